/*
 * describe.c - see describe.h.
 */
#include "describe.h"

#include <inttypes.h>
#include <string.h>

static const char *enum_name(const struct contract_enum *e, uint64_t number)
{
	for (unsigned i = 0; e && i < e->nr_values; i++)
		if (e->values[i].number == number)
			return e->values[i].name;
	return NULL;
}

const struct contract_enum *describe_enum(const char *name)
{
	for (unsigned i = 0; i < contract_nr_enums; i++)
		if (strcmp(contract_enums[i].name, name) == 0)
			return &contract_enums[i];
	return NULL;
}

const char *describe_status(uint32_t status)
{
	const char *name = enum_name(describe_enum("Status"), status);

	return name ? name : "?";
}

const char *describe_zone(uint32_t zone)
{
	const char *name = enum_name(describe_enum("Zone"), zone);

	return name ? name + strlen("ZONE_") : "?";
}

static void describe_field(FILE *to, const struct contract_field *f, uint64_t value)
{
	const char *name = f->kind == FIELD_ENUM ? enum_name(f->enums[0], value) : NULL;
	bool is_hex = f->is_flags || strcmp(f->unit, "pfn") == 0 || strcmp(f->unit, "va") == 0 ||
		      strcmp(f->unit, "paddr") == 0;

	fprintf(to, " %s=", f->name);
	if (name)
		fputs(name, to);
	else
		fprintf(to, is_hex ? "%#" PRIx64 : "%" PRIu64, value);
}

void describe_op(FILE *to, const struct engine_op *op)
{
	const struct contract_op *info = &contract_ops[op->code];

	fputs(info->name ? info->name : "?", to);
	for (unsigned i = 0; i < info->args.nr_ints; i++)
		if (op->args[i])
			describe_field(to, &info->args.ints[i], op->args[i]);
	if (op->data_len)
		fprintf(to, " %s=[%" PRIu32 " bytes]",
			info->args.data ? info->args.data->name : "data", op->data_len);
	if (op->cpu)
		fprintf(to, " cpu=%" PRIu32, op->cpu);
	if (op->task)
		fprintf(to, " task=%" PRIu32, op->task);
}

void describe_answer(FILE *to, uint32_t code, uint32_t status, const uint64_t *values)
{
	const struct contract_op *info = &contract_ops[code];

	fputs(describe_status(status), to);
	for (unsigned i = 0; i < info->values.nr_ints; i++)
		if (status == STATUS_OK || values[i])
			describe_field(to, &info->values.ints[i], values[i]);
}

void describe_event(FILE *to, const struct engine_event *e)
{
	const struct contract_event *info =
	    e->kind < EVENT_KIND_END ? &contract_events[e->kind] : &contract_events[0];

	fputs(info->name ? info->name : "?", to);
	for (unsigned i = 0, word = 0; i < info->fields.nr_ints; i++) {
		const struct contract_field *f = &info->fields.ints[i];

		if (f->kind == FIELD_U64) {
			describe_field(to, f, e->w[word] | (uint64_t)e->w[word + 1] << 32);
			word += 2;
		} else {
			describe_field(to, f, e->w[word++]);
		}
	}
}
