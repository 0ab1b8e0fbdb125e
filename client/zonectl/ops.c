/*
 * ops.c - a subcommand for every op, made from the contract's tables.
 *
 * A flag for every argument; required ones may be given by position, in the contract's
 * order. Bytes may come as text, hex or from a file.
 */
#include <stdlib.h>
#include <string.h>

#include "zonectl.h"

enum { MAX_FLAGS = 16, PAYLOAD_BYTES = 65536 };

/* Flags that every op has beside its arguments. */
static const struct flag common_flags[] = {
    {"raw", 0, NULL, "print the result's bytes and nothing else"},
};

/* Flags that a bytes argument has beside its own name. */
static const struct {
	const char *suffix, *value, *help;
} data_flags[] = {
    {"-hex", "HEX", "the same in hex"},
    {"-file", "FILE", "the same from a file, - for standard input"},
};

const struct contract_op *op_by_word(const char *word)
{
	unsigned i;

	for (i = 0; i < OP_CODE_END; i++) {
		const struct contract_op *op = &contract_ops[i];

		if (op->code && (strcmp(op->word, word) == 0 || strcmp(op->name, word) == 0 ||
				 strcmp(op->snake, word) == 0))
			return op;
	}
	return NULL;
}

const struct contract_field *fields_find(const struct contract_fields *fields, const char *name)
{
	unsigned i;

	for (i = 0; i < fields->nr_ints; i++)
		if (strcmp(fields->ints[i].name, name) == 0)
			return &fields->ints[i];
	if (fields->data && strcmp(fields->data->name, name) == 0)
		return fields->data;
	return NULL;
}

/* ---- arguments ---- */

uint32_t *list_parse(const struct contract_field *f, const char *text, size_t *ret_n, char *err,
		     size_t err_size)
{
	struct contract_field element = *f;
	uint32_t *values = must(calloc(f->max_length + 1, sizeof *values));
	size_t n = 0;
	bool ok = true;

	element.kind = FIELD_U32;
	while (ok && *text) {
		size_t length = strcspn(text, ",");
		char number[32];
		uint64_t value;

		snprintf(number, sizeof number, "%.*s", (int)(length < 31 ? length : 31), text);
		if (n >= f->max_length) {
			snprintf(err, err_size, "more than %u elements", f->max_length);
			ok = false;
		} else if ((ok = value_parse(&element, number, &value, err, err_size))) {
			values[n++] = (uint32_t)value;
		}
		text += length + (text[length] == ',');
	}
	*ret_n = n;
	if (ok)
		return values;
	free(values);
	return NULL;
}

static bool set_list(ProtobufCMessage *m, const struct contract_field *f, const char *text,
		     char *err, size_t err_size)
{
	size_t n;
	uint32_t *values = list_parse(f, text, &n, err, err_size);

	if (values)
		message_set_list(m, f->number, values, n);
	free(values);
	return values != NULL;
}

static bool set_bytes(ProtobufCMessage *m, const struct contract_field *f, const void *bytes,
		      size_t length, char *err, size_t err_size)
{
	if (length > f->max_length) {
		snprintf(err, err_size, "%zu bytes, at most %u fit", length, f->max_length);
		return false;
	}
	message_set_bytes(m, f->number, bytes, length);
	return true;
}

bool op_set_text(ProtobufCMessage *m, const struct contract_field *f, const char *text, char *err,
		 size_t err_size)
{
	uint64_t value;

	if (f->kind == FIELD_BYTES)
		return set_bytes(m, f, text, strlen(text), err, err_size);
	if (f->kind == FIELD_U32_LIST)
		return set_list(m, f, text, err, err_size);
	if (!value_parse(f, text, &value, err, err_size))
		return false;
	message_set(m, f->number, value);
	return true;
}

/* Bytes from --X-hex or --X-file. EXIT_DONE or an exit code after a sentence. */
static int set_data(ProtobufCMessage *m, const struct contract_op *op, const struct args *a)
{
	const struct contract_field *f = op->args.data;
	char name[48], flag[64], err[512] = "";
	const char *hex, *file;
	uint8_t *bytes = NULL;
	size_t length = 0;

	if (!f || f->kind != FIELD_BYTES)
		return EXIT_DONE;
	kebab(f->name, name, sizeof name);
	snprintf(flag, sizeof flag, "%s-hex", name);
	hex = args_text(a, flag);
	snprintf(flag, sizeof flag, "%s-file", name);
	file = args_text(a, flag);
	if (!hex && !file)
		return EXIT_DONE;
	if (hex) {
		bytes = hex_parse(hex, &length);
		if (!bytes)
			return usage_error("%s: --%s-hex: not an even number of hex digits",
					   op->word, name);
	} else {
		bytes = read_file(file, PAYLOAD_BYTES, &length);
		if (!bytes)
			return EXIT_FILE;
	}
	set_bytes(m, f, bytes, length, err, sizeof err);
	free(bytes);
	return *err ? usage_error("%s: --%s: %s", op->word, name, err) : EXIT_DONE;
}

static int set_argument(ProtobufCMessage *m, const struct contract_op *op,
			const struct contract_field *f, const char *text)
{
	char err[1024], name[48];

	/* A switch alone means yes. */
	if (f->kind == FIELD_BOOL && !*text)
		text = "yes";
	if (op_set_text(m, f, text, err, sizeof err))
		return EXIT_DONE;
	return usage_error("%s: --%s: %s", op->word, kebab(f->name, name, sizeof name), err);
}

static const struct contract_field *field_at(const struct contract_fields *fields, unsigned i)
{
	if (i < fields->nr_ints)
		return &fields->ints[i];
	return i == fields->nr_ints ? fields->data : NULL;
}

static bool data_given(const struct contract_field *f, const struct args *a)
{
	char name[48], flag[64];
	unsigned i;

	for (i = 0; i < sizeof data_flags / sizeof *data_flags; i++) {
		snprintf(flag, sizeof flag, "%s%s", kebab(f->name, name, sizeof name),
			 data_flags[i].suffix);
		if (f->kind == FIELD_BYTES && args_has(a, flag))
			return true;
	}
	return false;
}

/* Every argument from its flag or, if required, from the next word. */
static int fill(ProtobufCMessage *m, const struct contract_op *op, const struct args *a)
{
	const struct contract_field *f;
	unsigned i, word = 0;
	int rc = EXIT_DONE;

	for (i = 0; rc == EXIT_DONE && (f = field_at(&op->args, i)); i++) {
		char name[48];
		const char *text = args_text(a, kebab(f->name, name, sizeof name));

		if (!text && f->required && word < a->nr_words)
			text = a->words[word++];
		if (text)
			rc = set_argument(m, op, f, text);
		else if (f->required && !data_given(f, a))
			rc = usage_error("%s: --%s %s is needed; see zonectl %s --help", op->word,
					 name, value_placeholder(f), op->word);
	}
	if (rc == EXIT_DONE)
		rc = set_data(m, op, a);
	if (rc == EXIT_DONE)
		rc = args_limit_words(a, op->word, word);
	return rc;
}

ProtobufCMessage *context_new(const struct ctl *ctl)
{
	ProtobufCMessage *m = message_new(&zoned__v1__op_context__descriptor);
	Zoned__V1__OpContext *context = (Zoned__V1__OpContext *)m;

	context->machine = must(strdup(ctl->machine ? ctl->machine : ""));
	context->owner = must(strdup(ctl->owner ? ctl->owner : ""));
	context->cpu = ctl->cpu;
	context->task = ctl->task;
	return m;
}

/* ---- results ---- */

uint32_t op_status(const ProtobufCMessage *result)
{
	const Zoned__V1__Outcome *o = (const Zoned__V1__Outcome *)message_sub(result, 1);

	return o ? (uint32_t)o->status : 0;
}

const char *op_detail(const ProtobufCMessage *result)
{
	const Zoned__V1__Outcome *o = (const Zoned__V1__Outcome *)message_sub(result, 1);

	return o ? o->detail : "";
}

static uint64_t op_number(const ProtobufCMessage *result)
{
	const Zoned__V1__Outcome *o = (const Zoned__V1__Outcome *)message_sub(result, 1);

	return o ? o->op : 0;
}

const char *status_name(uint32_t status)
{
	const char *name = enum_name(contract_enum_by_name("Status"), status);

	return name ? name : "a status that this zonectl does not know";
}

json_t *op_result_to_json(const struct contract_op *op, const ProtobufCMessage *result)
{
	json_t *values = message_to_json(result, &op->values);
	json_t *o = json_object();

	json_object_del(values, "outcome");
	if (op->values.data &&
	    json_array_size(json_object_get(values, op->values.data->name)) == 0 &&
	    op->values.data->kind == FIELD_U32_LIST)
		json_object_del(values, op->values.data->name);
	json_object_set_new(o, "op", json_string(op->word));
	json_object_set_new(o, "number", json_integer((json_int_t)op_number(result)));
	json_object_set_new(o, "status", json_string(status_name(op_status(result))));
	if (*op_detail(result))
		json_object_set_new(o, "detail", json_string(op_detail(result)));
	json_object_update(o, values);
	json_decref(values);
	return o;
}

static void print_hex(const uint8_t *bytes, size_t length)
{
	size_t i, k;

	for (i = 0; i < length; i += 16) {
		printf("  %08zx ", i);
		for (k = i; k < i + 16; k++)
			if (k < length)
				printf(" %02x", bytes[k]);
			else
				printf("   ");
		printf("  |");
		for (k = i; k < i + 16 && k < length; k++)
			putchar(bytes[k] >= ' ' && bytes[k] < 0x7f ? bytes[k] : '.');
		printf("|\n");
	}
}

static void print_list(const ProtobufCMessage *result, const struct contract_field *f)
{
	json_t *all = message_to_json(result, NULL);
	json_t *list = json_object_get(all, f->name), *value;
	size_t i;

	if (json_array_size(list))
		printf(" %s=", f->name);
	json_array_foreach (list, i, value)
		printf("%s%lld", i ? "," : "", (long long)json_integer_value(value));
	json_decref(all);
}

/* "alloc #12 OK pfn=0x37ffe zone=ZONE_HIGHMEM" */
static void print_result(const struct contract_op *op, const ProtobufCMessage *result)
{
	const struct contract_field *data = op->values.data;
	bool ok = op_status(result) == STATUS_OK;
	unsigned i;

	printf("%s #%llu %s", op->word, (unsigned long long)op_number(result),
	       status_name(op_status(result)));
	for (i = 0; i < op->values.nr_ints; i++) {
		const struct contract_field *f = &op->values.ints[i];
		uint64_t value = message_get(result, f->number);
		char text[512];

		/* Of a failure only what it filled in. */
		if (ok || value)
			printf(" %s=%s", f->name, value_format(f, value, text, sizeof text));
	}
	if (data && data->kind == FIELD_U32_LIST)
		print_list(result, data);
	putchar('\n');
	if (data && data->kind == FIELD_BYTES)
		print_hex(message_bytes(result, data->number)->data,
			  message_bytes(result, data->number)->len);
}

static int report(struct ctl *ctl, const struct contract_op *op, const ProtobufCMessage *result,
		  bool raw)
{
	const struct contract_field *data = op->values.data;
	uint32_t status = op_status(result);
	json_t *json;

	if (raw && data && data->kind == FIELD_BYTES) {
		const ProtobufCBinaryData *bytes = message_bytes(result, data->number);

		fwrite(bytes->data, 1, bytes->len, stdout);
	} else if (ctl->json) {
		json = op_result_to_json(op, result);
		json_print(json, stdout);
		json_decref(json);
	} else {
		print_result(op, result);
	}
	if (status == STATUS_OK)
		return EXIT_DONE;
	complain("%s: %s%s%s", op->word, status_name(status), *op_detail(result) ? ": " : "",
		 op_detail(result));
	return EXIT_NOT_OK;
}

/* ---- the command ---- */

/* Flags of an op, from its fields. Strings of their own live in `names`. */
struct op_flags {
	struct flag flags[MAX_FLAGS];
	unsigned nr;
	char names[MAX_FLAGS][48];
	char helps[MAX_FLAGS][1400];
};

static void describe(const struct contract_field *f, char *to, size_t size)
{
	size_t n = (size_t)snprintf(to, size, "%s ", contract_field_doc(f));
	unsigned k, i;

	if (f->required && n < size)
		n += (size_t)snprintf(to + n, size - n, "Required. ");
	for (k = 0; k < 2 && f->enums[k]; k++)
		for (i = 0; i < f->enums[k]->nr_values && n < size; i++)
			n += (size_t)snprintf(to + n, size - n, "%s%s",
					      i || k ? (f->is_flags ? "|" : ", ") : "",
					      f->enums[k]->values[i].name);
	if (!f->enums[0] && f->kind != FIELD_BYTES && f->kind != FIELD_BOOL && n < size &&
	    f->max < UINT32_MAX)
		snprintf(to + n, size - n, f->max < 0x10000 ? "%llu to %llu." : "%#llx to %#llx.",
			 (unsigned long long)f->min, (unsigned long long)f->max);
}

static void add_flag(struct op_flags *to, const char *name, const char *suffix, const char *value,
		     const char *help)
{
	unsigned i = to->nr++;

	snprintf(to->names[i], sizeof to->names[i], "%s%s", name, suffix);
	snprintf(to->helps[i], sizeof to->helps[i], "%s", help);
	to->flags[i] = (struct flag){to->names[i], 0, value, to->helps[i]};
}

static void collect_flags(const struct contract_op *op, struct op_flags *to)
{
	const struct contract_field *f;
	char name[48], help[1400];
	unsigned i, k;

	to->nr = 0;
	for (i = 0; (f = field_at(&op->args, i)); i++) {
		describe(f, help, sizeof help);
		kebab(f->name, name, sizeof name);
		add_flag(to, name, "", value_placeholder(f), help);
		for (k = 0; f->kind == FIELD_BYTES && k < sizeof data_flags / sizeof *data_flags;
		     k++)
			add_flag(to, name, data_flags[k].suffix, data_flags[k].value,
				 data_flags[k].help);
	}
	for (i = 0; i < sizeof common_flags / sizeof *common_flags; i++)
		to->flags[to->nr++] = common_flags[i];
}

void op_usage(const struct contract_op *op, FILE *to)
{
	const struct contract_field *f;
	char name[48];
	unsigned i;

	fprintf(to, "usage: zonectl %s -m MACHINE", op->word);
	for (i = 0; (f = field_at(&op->args, i)); i++) {
		const char *value = value_placeholder(f);

		fprintf(to, f->required ? " --%s%s%s" : " [--%s%s%s]",
			kebab(f->name, name, sizeof name), value ? " " : "", value ? value : "");
	}
	fputc('\n', to);
}

static void op_help(const struct contract_op *op, const struct op_flags *flags)
{
	const struct contract_field *f;
	unsigned i;

	printf("zonectl %s - %s%s%s\n\n", op->word, op->name, *op->doc ? ": " : "", op->doc);
	op_usage(op, stdout);
	printf("Required arguments may also be given by position, in this order.\n\n");
	print_flags("arguments:", flags->flags, flags->nr);
	printf("\ngives:\n  %-28s %s\n", "number", "the op's number on its machine");
	for (i = 0; (f = field_at(&op->values, i)); i++)
		printf("  %-28s %s\n", f->name, contract_field_doc(f));
	if (op->nr_answers)
		printf("\nbeside OK it may answer (exit code 1):\n");
	for (i = 0; i < op->nr_answers; i++)
		printf("  %-28s %s\n", status_name(op->answers[i].status), op->answers[i].why);
	printf("\n");
	print_flags("for every command:", global_flags, nr_global_flags);
}

static int perform(struct ctl *ctl, const struct contract_op *op, ProtobufCMessage *m, bool raw)
{
	Zoned__V1__OpContext *context = (Zoned__V1__OpContext *)message_sub(m, 1);
	ProtobufCMessage *result;
	int rc = ctl_connect(ctl);

	if (rc != EXIT_DONE)
		return rc;
	/* It has a name, so that it is done once even if the daemon restarts meanwhile. */
	context->token = zoned_token();
	context->sequence = 1;
	rc = zoned_op(ctl->z, op->code, m, ctl->timeout_ms, &result);
	if (rc)
		return ctl_failed(ctl, op->word, rc);
	rc = report(ctl, op, result, raw);
	message_free(result);
	return rc;
}

int op_command(struct ctl *ctl, const struct contract_op *op, int argc, char **argv)
{
	struct op_flags *flags = must(malloc(sizeof *flags));
	struct args a = {0};
	ProtobufCMessage *m = NULL;
	int rc;

	collect_flags(op, flags);
	rc = args_parse(ctl, op->word, argc, argv, flags->flags, flags->nr, &a);
	if (rc != EXIT_DONE)
		goto out;
	if (ctl->help) {
		op_help(op, flags);
		goto out;
	}
	m = message_new(contract_op_messages[op->code].op);
	message_set_sub(m, 1, context_new(ctl));
	rc = fill(m, op, &a);
	if (rc == EXIT_DONE)
		rc = ctl_need_machine(ctl, op->word);
	if (rc == EXIT_DONE)
		rc = perform(ctl, op, m, args_has(&a, "raw"));
out:
	message_free(m);
	args_free(&a);
	free(flags);
	return rc;
}
