/*
 * explain.c - what a name means: every op, inspection, event, enum, value, message and
 * field of the contract, and every column of the history, in the contract's own words;
 * and the history's views, if the daemon can be asked.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "zonectl.h"

static bool same(const char *a, const char *b)
{
	for (; *a && *b; a++, b++) {
		char x = *a == '-' ? '_' : *a, y = *b == '-' ? '_' : *b;

		if (x != y && (x | 0x20) != (y | 0x20))
			return false;
	}
	return *a == *b;
}

/* "pfn; " or "flags of Gfp, GfpBit; " or "a Zone; ": what kind of value it is. */
static void print_kind(const struct contract_field *f)
{
	if (f->enums[0])
		printf("%s %s%s%s; ", f->is_flags ? "flags of" : "a", f->enums[0]->name,
		       f->enums[1] ? ", " : "", f->enums[1] ? f->enums[1]->name : "");
	else if (*f->unit)
		printf("%s; ", f->unit);
}

static void explain_fields(const char *title, const struct contract_fields *fields)
{
	unsigned i, n = fields->nr_ints + (fields->data != NULL);

	if (n)
		printf("  %s\n", title);
	for (i = 0; i < n; i++) {
		const struct contract_field *f =
		    i < fields->nr_ints ? &fields->ints[i] : fields->data;

		printf("    %-18s ", f->name);
		print_kind(f);
		printf("%s\n", contract_field_doc(f));
	}
}

static bool explain_op(const char *name)
{
	bool found = false;
	unsigned i;

	for (i = 0; i < OP_CODE_END; i++) {
		const struct contract_op *op = &contract_ops[i];

		if (!op->code ||
		    (!same(op->word, name) && !same(op->name, name) && !same(op->snake, name)))
			continue;
		printf("%s is an op (code %u, zonectl %s). %s\n", op->name, op->code, op->word,
		       op->doc);
		explain_fields("arguments:", &op->args);
		explain_fields("gives:", &op->values);
		if (op->nr_answers)
			printf("  beside OK it may answer:\n");
		for (unsigned k = 0; k < op->nr_answers; k++)
			printf("    %-18s %s\n", status_name(op->answers[k].status),
			       op->answers[k].why);
		printf("  in SQL: the view op_%s\n\n", op->snake);
		found = true;
	}
	return found;
}

static bool explain_event(const char *name)
{
	bool found = false;
	unsigned i;

	if (strncasecmp(name, "event_", 6) == 0)
		name += 6;
	for (i = 0; i < EVENT_KIND_END; i++) {
		const struct contract_event *e = &contract_events[i];

		if (!e->kind || (!same(e->name, name) && !same(e->message, name)))
			continue;
		printf("%s is an event (kind %u%s). %s\n", e->name, e->kind,
		       e->notable ? ", notable" : "", e->doc);
		explain_fields("columns:", &e->fields);
		printf("  in SQL: the view event_%s\n\n", e->name);
		found = true;
	}
	return found;
}

static bool explain_inspection(const char *name)
{
	const struct contract_inspection *i = inspection_by_word(name);
	unsigned k;

	if (!i)
		return false;
	printf("%s is an inspection (zonectl %s). %s\n", i->name, i->word, i->doc);
	explain_fields("arguments:", &i->args);
	for (k = 0; k < i->nr_rows; k++)
		explain_fields(i->rows[k].name, &i->rows[k].columns);
	printf("\n");
	return true;
}

/* The values of EventKind are explained as events. */
static bool explain_enum(const char *name)
{
	const struct contract_enum *kinds = contract_enum_by_name("EventKind");
	bool found = false;
	unsigned i, k;

	for (i = 0; i < contract_nr_enums; i++) {
		const struct contract_enum *e = &contract_enums[i];
		const struct contract_value *v = enum_find(e, name);

		if (same(e->name, name)) {
			printf("%s is an enum. %s\n", e->name, e->doc);
			for (k = 0; k < e->nr_values; k++)
				printf("  %#10x  %-24s %s\n", e->values[k].number,
				       e->values[k].name, e->values[k].doc);
			printf("\n");
			found = true;
		} else if (v && e != kinds) {
			printf("%s is a %s (%u, %#x). %s\n  %s: %s\n\n", v->name, e->name,
			       v->number, v->number, v->doc, e->name, e->doc);
			found = true;
		}
	}
	return found;
}

/* Where a field of this name occurs: those with words of their own in a line each, and how
 * many there are without. */
struct column {
	const char *name;
	unsigned found, plain;
	char where[400]; /* of the plain ones, as far as they fit */
};

static void note_plain(struct column *c, const char *owner)
{
	size_t used = strlen(c->where), length = strlen(owner);

	if (used + length + sizeof ", , ..." > sizeof c->where)
		owner = "...";
	if (c->plain == 0 || strcmp(c->where + used - 3, "...") != 0)
		snprintf(c->where + used, sizeof c->where - used, "%s%s", used ? ", " : "", owner);
	c->plain++;
}

static void explain_column_of(struct column *c, const char *owner,
			      const struct contract_fields *fields)
{
	unsigned i, n = fields->nr_ints + (fields->data != NULL);

	for (i = 0; i < n; i++) {
		const struct contract_field *f =
		    i < fields->nr_ints ? &fields->ints[i] : fields->data;

		if (!same(f->name, c->name))
			continue;
		c->found++;
		if (!*f->doc) {
			note_plain(c, owner);
			continue;
		}
		printf("  %-24s ", owner);
		print_kind(f);
		printf("%s\n", f->doc);
	}
}

/* As the contract writes names. */
static void folded(const char *name, char *to, size_t size)
{
	snprintf(to, size, "%s", name);
	for (; *to; to++)
		*to = (char)(*to == '-' ? '_' : tolower((unsigned char)*to));
}

/* A column's name: everywhere that it occurs. An answer's field that has the name of one of
 * the op's arguments is result_NAME in the history. */
static bool explain_column(const char *name)
{
	char owner[96], word[64];
	struct column c = {.name = word};
	const char *doc;
	unsigned i, k;

	folded(name, word, sizeof word);
	if (!*contract_word(word) && strncmp(word, "result_", 7) == 0)
		memmove(word, word + 7, strlen(word + 7) + 1);
	doc = contract_word(word);
	if (*doc)
		printf("%s is a column. %s\n", word, doc);
	for (i = 0; i < OP_CODE_END; i++)
		if (contract_ops[i].code) {
			snprintf(owner, sizeof owner, "%s ->", contract_ops[i].word);
			explain_column_of(&c, contract_ops[i].word, &contract_ops[i].args);
			explain_column_of(&c, owner, &contract_ops[i].values);
		}
	for (i = 0; i < EVENT_KIND_END; i++)
		if (contract_events[i].kind) {
			snprintf(owner, sizeof owner, "event %s", contract_events[i].name);
			explain_column_of(&c, owner, &contract_events[i].fields);
		}
	for (i = 0; i < contract_nr_inspections; i++)
		for (k = 0; k < contract_inspections[i].nr_rows; k++) {
			snprintf(owner, sizeof owner, "%s's %s", contract_inspections[i].word,
				 contract_inspections[i].rows[k].name);
			explain_column_of(&c, owner, &contract_inspections[i].rows[k].columns);
		}
	explain_column_of(&c, "machine create", &contract_machine_config);
	if (c.plain)
		printf("  of %s\n", c.where);
	if (c.found || *doc)
		printf("\n");
	return c.found || *doc;
}

static bool explain_doc(const char *name)
{
	bool found = false;
	unsigned i;

	for (i = 0; i < contract_nr_docs; i++)
		if (same(contract_docs[i].name, name)) {
			printf("%s: %s\n\n", contract_docs[i].name, contract_docs[i].doc);
			found = true;
		}
	return found;
}

/* A table or view of the history: its columns and comments are in its own SQL. */
static bool explain_view(struct ctl *ctl, const char *name)
{
	Zoned__V1__QueryRequest request = ZONED__V1__QUERY_REQUEST__INIT;
	Zoned__V1__Value parameter = ZONED__V1__VALUE__INIT, *parameters[] = {&parameter};
	ProtobufCMessage *reply;
	struct zoned_stream *s;
	char *word = must(strdup(name)), *p;
	bool found = false;
	int rc;

	for (p = word; *p; p++)
		if (*p == '-')
			*p = '_';
	request.sql = (char *)(uintptr_t) "select sql from sqlite_schema where name = ?1";
	parameter.value_case = ZONED__V1__VALUE__VALUE_TEXT;
	parameter.text = word;
	request.parameters = parameters;
	request.n_parameters = 1;
	/* Without a daemon the contract's words are all there is to say. */
	if (!ctl->z && zoned_connect(&ctl->options, &ctl->z, NULL, 0))
		goto out;
	if (zoned_stream_open(ctl->z, "/zoned.v1.History/Query",
			      &zoned__v1__query_response__descriptor, ctl->timeout_ms, &s))
		goto out;
	rc = zoned_stream_send(s, &request.base);
	if (!rc)
		zoned_stream_end(s);
	while (!rc && !(rc = zoned_stream_receive(s, ZONED_NO_TIMEOUT, &reply))) {
		const Zoned__V1__QueryResponse *r = (const Zoned__V1__QueryResponse *)reply;

		if (r->n_rows && r->rows[0]->n_values &&
		    r->rows[0]->values[0]->value_case == ZONED__V1__VALUE__VALUE_TEXT) {
			printf("%s is in the history:\n%s\n", word, r->rows[0]->values[0]->text);
			found = true;
		}
		message_free(reply);
	}
	zoned_stream_close(s);
out:
	free(word);
	return found;
}

static void fields_each(const struct contract_fields *fields, name_fn *fn, void *arg)
{
	unsigned i;

	for (i = 0; i < fields->nr_ints; i++)
		fn(arg, fields->ints[i].name, contract_field_doc(&fields->ints[i]));
}

void columns_each(name_fn *fn, void *arg)
{
	unsigned i;

	for (i = 0; i < contract_nr_words; i++)
		fn(arg, contract_words[i].name, contract_words[i].doc);
	for (i = 0; i < OP_CODE_END; i++)
		if (contract_ops[i].code) {
			fields_each(&contract_ops[i].args, fn, arg);
			fields_each(&contract_ops[i].values, fn, arg);
		}
	for (i = 0; i < EVENT_KIND_END; i++)
		if (contract_events[i].kind)
			fields_each(&contract_events[i].fields, fn, arg);
	fields_each(&contract_machine_config, fn, arg);
}

void explain_each(name_fn *fn, void *arg)
{
	unsigned i, k;

	commands_each(fn, arg);
	for (i = 0; i < EVENT_KIND_END; i++)
		if (contract_events[i].kind)
			fn(arg, contract_events[i].name, contract_events[i].doc);
	for (i = 0; i < contract_nr_enums; i++)
		for (k = 0; k < contract_enums[i].nr_values; k++)
			fn(arg, contract_enums[i].values[k].name, contract_enums[i].values[k].doc);
	for (i = 0; i < contract_nr_docs; i++)
		fn(arg, contract_docs[i].name, contract_docs[i].doc);
	for (i = 0; i < contract_nr_words; i++)
		fn(arg, contract_words[i].name, contract_words[i].doc);
}

static int not_found(const char *name)
{
	struct suggestion s = {.word = name};

	explain_each(suggest_name, &s);
	if (s.nearest)
		return usage_error("explain: nothing is called %s; did you mean %s?", name,
				   s.nearest);
	return usage_error("explain: nothing is called %s", name);
}

static int explain(struct ctl *ctl, const char *name)
{
	bool found = explain_op(name);

	found |= explain_inspection(name);
	found |= explain_event(name);
	found |= explain_enum(name);
	found |= explain_column(name);
	if (!found)
		found = explain_doc(name) || explain_view(ctl, name);
	return found ? EXIT_DONE : not_found(name);
}

int explain_command(struct ctl *ctl, int argc, char **argv)
{
	struct args a;
	unsigned i;
	int rc = args_parse(ctl, "explain", argc, argv, NULL, 0, &a);

	if (rc != EXIT_DONE)
		return rc;
	if (ctl->help) {
		printf(
		    "zonectl explain - what a name means\n\nusage: zonectl explain NAME...\n\n"
		    "An op (alloc, AllocPages), an event (zone_fallback), a status (NOT_LIFO), a\n"
		    "flag (GFP_HIGHUSER), a column (managed, latency_ns), a message or field\n"
		    "(MachineConfig.ram), a view of the history (zone_fallbacks). Where Linux has "
		    "the\n"
		    "same, it says where.\n");
	} else if (a.nr_words == 0) {
		rc = usage_error("explain what? zonectl explain NAME");
	}
	for (i = 0; rc == EXIT_DONE && !ctl->help && i < a.nr_words; i++)
		rc = explain(ctl, a.words[i]);
	args_free(&a);
	return rc;
}
