/*
 * inspect.c - a subcommand for every inspection, made from the contract's tables.
 *
 * Text is printed as the daemon laid it out (Linux's format where there is one);
 * --json prints the report's rows by name.
 */
#include <stdlib.h>
#include <string.h>

#include "zonectl.h"

enum { MAX_ARGUMENTS = 8 };

const struct contract_inspection *inspection_by_word(const char *word)
{
	unsigned i;

	for (i = 0; i < contract_nr_inspections; i++)
		if (strcmp(contract_inspections[i].word, word) == 0 ||
		    strcmp(contract_inspections[i].name, word) == 0)
			return &contract_inspections[i];
	return NULL;
}

int inspect_ask(struct ctl *ctl, const struct contract_inspection *i, ProtobufCMessage *question,
		Zoned__V1__InspectResponse **ret_response)
{
	ProtobufCMessage *request = message_new(&zoned__v1__inspect_request__descriptor), *reply;
	int rc;

	message_set_string(request, 1, ctl->machine);
	message_set_at(request, 2, ctl);
	message_set_sub(request, i->code, question);
	rc = ctl_call(ctl, i->word, "/zoned.v1.Machines/Inspect", request,
		      &zoned__v1__inspect_response__descriptor, &reply);
	message_free(request);
	if (rc == EXIT_DONE)
		*ret_response = (Zoned__V1__InspectResponse *)reply;
	return rc;
}

/* The rows of one list of a report, flags by name. */
static json_t *rows_to_json(const ProtobufCMessage *report, const struct contract_rows *rows)
{
	const ProtobufCFieldDescriptor *f =
	    protobuf_c_message_descriptor_get_field(report->descriptor, rows->type);
	size_t i, n = *(const size_t *)((uintptr_t)report + f->quantifier_offset);
	ProtobufCMessage *const *row = *(ProtobufCMessage *const **)((uintptr_t)report + f->offset);
	json_t *list = json_array();

	for (i = 0; i < n; i++)
		json_array_append_new(list, message_to_json(row[i], &rows->columns));
	return list;
}

static void print_json(const struct contract_inspection *i,
		       const Zoned__V1__InspectResponse *response)
{
	const ProtobufCMessage *report = message_sub(&response->base, i->code);
	json_t *o = json_object();
	unsigned k;

	json_object_set_new(o, "op", json_integer((json_int_t)response->op));
	json_object_set_new(o, "truncated", json_boolean(response->truncated));
	for (k = 0; report && k < i->nr_rows; k++)
		json_object_set_new(o, i->rows[k].name, rows_to_json(report, &i->rows[k]));
	json_print(o, stdout);
	json_decref(o);
}

static int fill(const struct contract_inspection *i, ProtobufCMessage *question,
		const struct args *a)
{
	unsigned k, word = 0;

	for (k = 0; k < i->args.nr_ints; k++) {
		const struct contract_field *f = &i->args.ints[k];
		char name[48], err[512];
		const char *text = args_text(a, kebab(f->name, name, sizeof name));

		/* A switch alone means yes. */
		if (f->kind == FIELD_BOOL && text && !*text)
			text = "yes";
		if (!text && f->kind != FIELD_BOOL && word < a->nr_words)
			text = a->words[word++];
		if (!text && f->required)
			return usage_error("%s: --%s %s is needed", i->word, name,
					   value_placeholder(f));
		if (text && !op_set_text(question, f, text, err, sizeof err))
			return usage_error("%s: --%s: %s", i->word, name, err);
	}
	return args_limit_words(a, i->word, word);
}

static const struct flag at_flag = AT_FLAG;

static void inspect_help(const struct contract_inspection *i, const struct flag *flags)
{
	unsigned k, c;

	printf("zonectl %s - %s\n\nusage: zonectl %s -m MACHINE", i->word, i->doc, i->word);
	for (k = 0; k < i->args.nr_ints; k++)
		printf(i->args.ints[k].required ? " --%s%s%s" : " [--%s%s%s]", flags[k].name,
		       flags[k].value ? " " : "", flags[k].value ? flags[k].value : "");
	printf("\n\n");
	if (i->args.nr_ints)
		print_flags("arguments (also by position):", flags, i->args.nr_ints);
	for (k = 0; k < i->nr_rows; k++) {
		printf("\nwith --json, %s:\n", i->rows[k].name);
		for (c = 0; c < i->rows[k].columns.nr_ints; c++) {
			const struct contract_field *f = &i->rows[k].columns.ints[c];

			printf("  %-28s %s\n", f->name, contract_field_doc(f));
		}
	}
	printf("\n");
	print_flags("flags:", &at_flag, 1);
	print_flags("for every command:", global_flags, nr_global_flags);
}

static int answer(struct ctl *ctl, const struct contract_inspection *i,
		  const Zoned__V1__InspectResponse *response)
{
	size_t length = strlen(response->text);
	FILE *to = pager_open(!ctl->json);

	if (ctl->json)
		print_json(i, response);
	else
		fprintf(to, "%s%s", response->text,
			length && response->text[length - 1] != '\n' ? "\n" : "");
	pager_close(to);
	if (response->truncated)
		complain("%s: the report is cut at the size of a message; ask for a part of it",
			 i->word);
	return EXIT_DONE;
}

int inspect_command(struct ctl *ctl, const struct contract_inspection *i, int argc, char **argv)
{
	struct flag flags[MAX_ARGUMENTS + 1] = {at_flag};
	char names[MAX_ARGUMENTS][48];
	Zoned__V1__InspectResponse *response;
	ProtobufCMessage *question;
	struct args a = {0};
	unsigned k;
	int rc;

	for (k = 0; k < i->args.nr_ints; k++) {
		const struct contract_field *f = &i->args.ints[k];

		flags[k + 1] = (struct flag){kebab(f->name, names[k], sizeof names[k]), 0,
					     value_placeholder(f), contract_field_doc(f)};
	}
	rc = args_parse(ctl, i->word, argc, argv, flags, i->args.nr_ints + 1, &a);
	if (rc != EXIT_DONE)
		return rc;
	if (ctl->help) {
		inspect_help(i, flags + 1);
		args_free(&a);
		return EXIT_DONE;
	}
	question = message_new(contract_inspect_messages[i - contract_inspections].question);
	rc = fill(i, question, &a);
	if (rc == EXIT_DONE)
		rc = args_read_at(ctl, &a, i->word);
	args_free(&a);
	if (rc == EXIT_DONE)
		rc = ctl_need_machine(ctl, i->word);
	if (rc != EXIT_DONE) {
		message_free(question);
		return rc;
	}
	rc = inspect_ask(ctl, i, question, &response);
	if (rc == EXIT_DONE) {
		rc = answer(ctl, i, response);
		message_free(&response->base);
	}
	return rc;
}
