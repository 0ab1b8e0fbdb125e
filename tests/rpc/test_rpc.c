/*
 * test_rpc.c - the codec against protobuf-c, over every op of the contract.
 *
 * What is held here: a message that protobuf-c packs is read as it was meant; what
 * the codec writes, protobuf-c unpacks to the same; every argument outside its range,
 * every unknown enum value and flag, every length above its limit is refused by name;
 * a message cut anywhere is refused or read, never read beyond.
 *
 * The cases come from contract_tables, so that a new op is covered by being there.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "codec.h"
#include "contract_protobuf.h"
#include "contract_tables.h"
#include "zoned/v1/memory.pb-c.h"

/* ---- random numbers, with the seed printed ---- */

static uint64_t seed;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static uint64_t between(uint64_t low, uint64_t high)
{
	uint64_t span = high - low + 1;

	return span ? low + rnd() % span : rnd();
}

/* ---- messages by their descriptors ---- */

struct packed {
	uint8_t *bytes;
	size_t length;
};

static struct wire_reader reader(const struct packed *p)
{
	return (struct wire_reader){p->bytes, p->bytes + p->length};
}

static ProtobufCMessage *new_message(const ProtobufCMessageDescriptor *d)
{
	ProtobufCMessage *m = calloc(1, d->sizeof_message);

	assert_non_null(m);
	protobuf_c_message_init(d, m);
	return m;
}

static void *field_at(ProtobufCMessage *m, uint32_t number)
{
	const ProtobufCFieldDescriptor *f =
	    protobuf_c_message_descriptor_get_field(m->descriptor, number);

	assert_non_null(f);
	return (char *)m + f->offset;
}

static void set_integer(ProtobufCMessage *m, uint32_t number, uint64_t value)
{
	const ProtobufCFieldDescriptor *f =
	    protobuf_c_message_descriptor_get_field(m->descriptor, number);

	assert_non_null(f);
	if (f->type == PROTOBUF_C_TYPE_UINT64)
		*(uint64_t *)field_at(m, number) = value;
	else
		*(uint32_t *)field_at(m, number) = (uint32_t)value;
}

static uint64_t get_integer(ProtobufCMessage *m, uint32_t number)
{
	const ProtobufCFieldDescriptor *f =
	    protobuf_c_message_descriptor_get_field(m->descriptor, number);

	assert_non_null(f);
	return f->type == PROTOBUF_C_TYPE_UINT64 ? *(uint64_t *)field_at(m, number)
						 : *(uint32_t *)field_at(m, number);
}

static struct packed pack(const ProtobufCMessage *m)
{
	struct packed p = {.length = protobuf_c_message_get_packed_size(m)};

	/* Exactly as large, so that a sanitizer sees one byte too many. */
	p.bytes = malloc(p.length ? p.length : 1);
	assert_non_null(p.bytes);
	protobuf_c_message_pack(m, p.bytes);
	return p;
}

static uint64_t valid_value(const struct contract_field *f)
{
	uint64_t value = 0;

	if (f->kind == FIELD_ENUM && f->enums[0])
		return f->enums[0]->values[rnd() % f->enums[0]->nr_values].number;
	if (!f->is_flags)
		return rnd() % 4 ? between(f->min, f->max) : rnd() % 2 ? f->min : f->max;
	for (unsigned i = 0; i < 2; i++)
		for (unsigned v = 0; f->enums[i] && v < f->enums[i]->nr_values; v++)
			if (rnd() % 3 == 0)
				value |= f->enums[i]->values[v].number;
	return value;
}

/* An op with arguments in range. Its data is either `data` or `list`. */
struct example {
	ProtobufCMessage *message;
	Zoned__V1__OpContext context;
	uint64_t args[OP_ARGS];
	uint8_t data[256];
	uint32_t list[64];
	size_t length; /* bytes or elements */
};

static void make_example(uint32_t code, struct example *e)
{
	const struct contract_op *op = &contract_ops[code];
	const struct contract_field *data = op->args.data;

	memset(e, 0, sizeof *e);
	e->message = new_message(contract_op_messages[code].op);
	for (unsigned i = 0; i < op->args.nr_ints; i++) {
		e->args[i] = valid_value(&op->args.ints[i]);
		set_integer(e->message, op->args.ints[i].number, e->args[i]);
	}
	if (data && data->kind == FIELD_BYTES) {
		ProtobufCBinaryData *at = field_at(e->message, data->number);

		e->length = rnd() % (data->max_length < 256 ? data->max_length : 256);
		for (size_t i = 0; i < e->length; i++)
			e->data[i] = (uint8_t)rnd();
		*at = (ProtobufCBinaryData){e->length, e->data};
	} else if (data) {
		const ProtobufCFieldDescriptor *f =
		    protobuf_c_message_descriptor_get_field(e->message->descriptor, data->number);

		e->length = rnd() % (data->max_length < 64 ? data->max_length : 64);
		for (size_t i = 0; i < e->length; i++)
			e->list[i] = (uint32_t)between(data->min, data->max);
		*(uint32_t **)field_at(e->message, data->number) = e->list;
		*(size_t *)((char *)e->message + f->quantifier_offset) = e->length;
	}
	zoned__v1__op_context__init(&e->context);
	e->context.machine = (char *)(uintptr_t) "a-machine";
	e->context.owner = (char *)(uintptr_t) "somebody \xc3\xa4";
	e->context.cpu = (uint32_t)(rnd() % ENGINE_MAX_CPUS);
	e->context.task = (uint32_t)rnd();
	e->context.token = rnd();
	e->context.sequence = rnd();
	*(Zoned__V1__OpContext **)field_at(e->message, 1) = &e->context;
}

static void free_example(struct example *e)
{
	free(e->message);
}

#define for_each_op(code)                                   \
	for (uint32_t code = 1; code < OP_CODE_END; code++) \
		if (contract_ops[code].code)

/* ---- reading ---- */

static void expect_same(const struct example *e, const struct contract_op *op,
			const struct codec_op *got)
{
	for (unsigned i = 0; i < op->args.nr_ints; i++)
		assert_int_equal(got->args[i], e->args[i]);
	for (unsigned i = op->args.nr_ints; i < OP_ARGS; i++)
		assert_int_equal(got->args[i], 0);
	if (op->args.data && op->args.data->kind == FIELD_U32_LIST) {
		assert_int_equal(got->data_len, e->length * 4);
		if (e->length)
			assert_memory_equal(got->data, e->list, e->length * 4);
	} else {
		assert_int_equal(got->data_len, e->length);
		if (e->length)
			assert_memory_equal(got->data, e->data, e->length);
	}
	assert_int_equal(got->context.machine_length, strlen(e->context.machine));
	assert_memory_equal(got->context.machine, e->context.machine, got->context.machine_length);
	assert_int_equal(got->context.owner_length, strlen(e->context.owner));
	assert_memory_equal(got->context.owner, e->context.owner, got->context.owner_length);
	assert_int_equal(got->context.cpu, e->context.cpu);
	assert_int_equal(got->context.task, e->context.task);
	assert_int_equal(got->context.token, e->context.token);
	assert_int_equal(got->context.sequence, e->context.sequence);
}

static void test_every_op_is_read_as_it_was_packed(void **state)
{
	unsigned read = 0;

	(void)state;
	for_each_op(code)
	{
		for (int round = 0; round < 50; round++, read++) {
			struct codec_error why = {""};
			struct codec_op got;
			struct example e;
			struct packed p;

			make_example(code, &e);
			p = pack(e.message);
			if (!codec_read_op(code, reader(&p), NULL, &got, &why))
				fail_msg("%s: %s", contract_ops[code].name, why.text);
			assert_int_equal(got.code, code);
			expect_same(&e, &contract_ops[code], &got);
			free(got.list);
			free(p.bytes);
			free_example(&e);
		}
	}
	assert_true(read > 40 * 50);
}

/* Reads an op that must be refused with a text that names `what`. */
static void expect_refused(uint32_t code, const struct packed *p, const char *what)
{
	struct codec_error why = {""};
	struct codec_op got;

	if (codec_read_op(code, reader(p), NULL, &got, &why))
		fail_msg("%s: %s was not refused", contract_ops[code].name, what);
	if (!strstr(why.text, what))
		fail_msg("%s: \"%s\" does not name %s", contract_ops[code].name, why.text, what);
	free(got.list);
}

static void refuse_value(uint32_t code, const struct contract_field *f, uint64_t value)
{
	struct example e;
	struct packed p;

	make_example(code, &e);
	set_integer(e.message, f->number, value);
	p = pack(e.message);
	expect_refused(code, &p, f->name);
	free(p.bytes);
	free_example(&e);
}

static bool is_narrow(const struct contract_field *f)
{
	return f->kind != FIELD_U64;
}

static void test_what_is_out_of_range_is_refused_by_name(void **state)
{
	unsigned refused = 0;

	(void)state;
	for_each_op(code)
	{
		const struct contract_fields *args = &contract_ops[code].args;

		for (unsigned i = 0; i < args->nr_ints; i++) {
			const struct contract_field *f = &args->ints[i];
			uint64_t most = is_narrow(f) ? UINT32_MAX : UINT64_MAX;

			if (f->kind == FIELD_BOOL)
				continue;
			if (f->max < most) {
				refuse_value(code, f, f->max + 1);
				refuse_value(code, f, most);
				refused += 2;
			}
			if (f->min) {
				refuse_value(code, f, f->min - 1);
				refused++;
			}
		}
	}
	assert_true(refused > 40);
}

static void test_unknown_values_and_flags_are_refused(void **state)
{
	unsigned enums = 0, flags = 0;

	(void)state;
	for_each_op(code)
	{
		const struct contract_fields *args = &contract_ops[code].args;

		for (unsigned i = 0; i < args->nr_ints; i++) {
			const struct contract_field *f = &args->ints[i];
			uint64_t known = 0;

			for (unsigned n = 0; n < 2; n++)
				for (unsigned v = 0; f->enums[n] && v < f->enums[n]->nr_values; v++)
					known |= f->enums[n]->values[v].number;
			for (unsigned bit = 0; f->is_flags && bit < 32; bit++) {
				if (known >> bit & 1)
					continue;
				refuse_value(code, f, UINT64_C(1) << bit);
				flags++;
			}
			if (f->kind == FIELD_ENUM) {
				refuse_value(code, f, f->max + 1);
				refuse_value(code, f, (uint32_t)-1);
				enums++;
			}
		}
	}
	assert_true(enums > 5 && flags > 50);
}

static void test_data_that_is_too_long_is_refused(void **state)
{
	(void)state;
	for_each_op(code)
	{
		const struct contract_field *f = contract_ops[code].args.data;
		struct wire_buffer b = {0};
		struct packed p;
		size_t begin;

		if (!f)
			continue;
		begin = wire_begin(&b, f->number);
		for (uint32_t i = 0; i <= f->max_length; i++)
			wire_put_varint(&b, f->min);
		wire_end(&b, begin);
		p = (struct packed){b.bytes, b.length};
		expect_refused(code, &p, f->name);
		wire_free(&b);
	}
}

/* A list's elements one by one, and packed and single ones mixed, are one list. */
static void test_lists_come_in_every_form(void **state)
{
	(void)state;
	for_each_op(code)
	{
		const struct contract_op *op = &contract_ops[code];
		const struct contract_field *f = op->args.data;
		struct wire_buffer b = {0};
		struct codec_error why;
		struct codec_op got;
		struct packed p;
		size_t begin;
		uint32_t want[4];

		if (!f || f->kind != FIELD_U32_LIST)
			continue;
		for (unsigned i = 0; i < 4; i++)
			want[i] = (uint32_t)between(f->min, f->max) | (f->max > 1);
		for (unsigned i = 0; i < op->args.nr_ints; i++)
			wire_put_integer(&b, op->args.ints[i].number,
					 valid_value(&op->args.ints[i]));
		wire_put_tag(&b, f->number, WIRE_VARINT);
		wire_put_varint(&b, want[0]);
		begin = wire_begin(&b, f->number);
		wire_put_varint(&b, want[1]);
		wire_put_varint(&b, want[2]);
		wire_end(&b, begin);
		wire_put_tag(&b, f->number, WIRE_VARINT);
		wire_put_varint(&b, want[3]);
		p = (struct packed){b.bytes, b.length};
		assert_true(codec_read_op(code, reader(&p), NULL, &got, &why));
		assert_int_equal(got.data_len, sizeof want);
		assert_memory_equal(got.data, want, sizeof want);
		free(got.list);
		wire_free(&b);
	}
}

/* Cut anywhere, or with a byte changed, a message is read or refused; the sanitizers
 * see to it that nothing outside is touched. */
static void test_damaged_messages_are_read_or_refused(void **state)
{
	unsigned refused = 0, accepted = 0;

	(void)state;
	for_each_op(code)
	{
		struct example e;
		struct packed p;

		make_example(code, &e);
		p = pack(e.message);
		for (size_t i = 0; i < p.length * 4; i++) {
			size_t length = i < p.length ? i : p.length;
			struct packed copy = {malloc(length ? length : 1), length};
			struct codec_error why = {""};
			struct codec_op got;

			assert_non_null(copy.bytes);
			memcpy(copy.bytes, p.bytes, length);
			if (i >= p.length)
				copy.bytes[rnd() % length] = (uint8_t)rnd();
			if (codec_read_op(code, reader(&copy), NULL, &got, &why)) {
				accepted++;
			} else {
				assert_true(*why.text);
				refused++;
			}
			free(got.list);
			free(copy.bytes);
		}
		free(p.bytes);
		free_example(&e);
	}
	assert_true(refused > 100 && accepted > 100);
}

static void test_an_op_inherits_what_its_context_leaves_unset(void **state)
{
	const struct codec_context inherited = {.machine = "batch",
						.machine_length = 5,
						.owner = "all",
						.owner_length = 3,
						.cpu = 3,
						.task = 4,
						.token = 5,
						.sequence = 6};
	Zoned__V1__AllocPages message = ZONED__V1__ALLOC_PAGES__INIT;
	Zoned__V1__OpContext context = ZONED__V1__OP_CONTEXT__INIT;
	struct codec_error why;
	struct codec_op got;
	struct packed p;

	(void)state;
	context.task = 9;
	context.owner = (char *)(uintptr_t) "me";
	message.context = &context;
	p = pack(&message.base);
	assert_true(codec_read_op(OP_ALLOC_PAGES, reader(&p), &inherited, &got, &why));
	assert_memory_equal(got.context.machine, "batch", 5);
	assert_int_equal(got.context.owner_length, 2);
	assert_memory_equal(got.context.owner, "me", 2);
	assert_int_equal(got.context.cpu, 3);
	assert_int_equal(got.context.task, 9);
	assert_int_equal(got.context.token, 5);
	assert_int_equal(got.context.sequence, 6);
	free(p.bytes);
}

static void test_a_choice_names_its_op(void **state)
{
	struct codec_error why = {""};

	(void)state;
	for_each_op(code)
	{
		struct wire_buffer b = {0};
		struct wire_reader inner;
		struct packed p;
		uint32_t got;

		/* A field of somebody's future first. */
		wire_put_integer(&b, 999, 7);
		wire_put_bytes_always(&b, code, "xyz", 3);
		p = (struct packed){b.bytes, b.length};
		assert_true(codec_read_choice(reader(&p), &got, &inner, &why));
		assert_int_equal(got, code);
		assert_int_equal(inner.end - inner.at, 3);
		p.length--;
		assert_false(codec_read_choice(reader(&p), &got, &inner, &why));
		wire_free(&b);
	}
	{
		struct packed none = {(uint8_t *)(uintptr_t) "", 0};
		struct wire_reader inner;
		uint32_t got;

		assert_false(codec_read_choice(reader(&none), &got, &inner, &why));
	}
}

/* ---- writing ---- */

static void expect_outcome(ProtobufCMessage *m, const struct engine_result *result)
{
	Zoned__V1__Outcome *o = *(Zoned__V1__Outcome **)field_at(m, 1);

	assert_non_null(o);
	assert_int_equal(o->op, result->op);
	assert_int_equal((uint32_t)o->status, result->status);
	assert_int_equal(*o->detail != 0, result->status != STATUS_OK);
}

static void expect_result(ProtobufCMessage *m, const struct contract_fields *fields,
			  const struct engine_result *result)
{
	expect_outcome(m, result);
	for (unsigned i = 0; i < fields->nr_ints; i++)
		assert_int_equal(get_integer(m, fields->ints[i].number), result->values[i]);
	if (!fields->data)
		return;
	if (fields->data->kind == FIELD_BYTES) {
		ProtobufCBinaryData *data = field_at(m, fields->data->number);

		assert_int_equal(data->len, result->data_len);
		if (data->len)
			assert_memory_equal(data->data, result->data, data->len);
	} else {
		const ProtobufCFieldDescriptor *f =
		    protobuf_c_message_descriptor_get_field(m->descriptor, fields->data->number);
		size_t nr = *(size_t *)((char *)m + f->quantifier_offset);

		assert_int_equal(nr * 4, result->data_len);
		if (nr)
			assert_memory_equal(*(uint32_t **)field_at(m, fields->data->number),
					    result->data, nr * 4);
	}
}

static void test_every_result_is_unpacked_as_it_was_written(void **state)
{
	static uint32_t words[64];

	(void)state;
	for_each_op(code)
	{
		const struct contract_fields *fields = &contract_ops[code].values;

		for (int round = 0; round < 50; round++) {
			struct engine_result result = {.op = rnd() >> rnd() % 64,
						       .status = (uint32_t)(rnd() % 19),
						       .data = (u8 *)words};
			struct wire_buffer b = {0};
			ProtobufCMessage *m;

			for (unsigned i = 0; i < 64; i++)
				words[i] = (uint32_t)(rnd() >> rnd() % 32);
			for (unsigned i = 0; i < fields->nr_ints; i++)
				result.values[i] = valid_value(&fields->ints[i]);
			result.data_len = fields->data ? (uint32_t)(rnd() % 64) * 4 : 0;
			codec_write_result(&b, code, &result);
			m = protobuf_c_message_unpack(contract_op_messages[code].result, NULL,
						      b.length, b.bytes);
			assert_non_null(m);
			expect_result(m, fields, &result);
			protobuf_c_message_free_unpacked(m, NULL);
			wire_free(&b);
		}
	}
}

static void test_every_row_is_unpacked_as_it_was_written(void **state)
{
	(void)state;
	for (unsigned i = 0; i < contract_nr_inspections; i++) {
		const struct contract_inspection *q = &contract_inspections[i];

		for (unsigned n = 0; n < q->nr_rows; n++) {
			const struct contract_rows *rows = &q->rows[n];
			const ProtobufCFieldDescriptor *f;
			uint64_t values[32];
			struct wire_buffer b = {0};
			ProtobufCMessage *m, **list;

			for (unsigned v = 0; v < rows->columns.nr_ints; v++)
				values[v] = valid_value(&rows->columns.ints[v]);
			codec_write_row(&b, i, rows->type, values, rows->columns.nr_ints);
			codec_write_row(&b, i, rows->type, values, rows->columns.nr_ints);
			m = protobuf_c_message_unpack(contract_inspect_messages[i].report, NULL,
						      b.length, b.bytes);
			assert_non_null(m);
			f = protobuf_c_message_descriptor_get_field(m->descriptor, rows->type);
			assert_non_null(f);
			assert_int_equal(*(size_t *)((char *)m + f->quantifier_offset), 2);
			list = *(ProtobufCMessage ***)field_at(m, rows->type);
			for (unsigned v = 0; v < rows->columns.nr_ints; v++)
				assert_int_equal(get_integer(list[1], rows->columns.ints[v].number),
						 values[v]);
			protobuf_c_message_free_unpacked(m, NULL);
			wire_free(&b);
		}
	}
}

/* ---- what codec.c and memory.c know by number ---- */

static void expect_number(const ProtobufCMessageDescriptor *d, const char *name, uint32_t number)
{
	const ProtobufCFieldDescriptor *f =
	    protobuf_c_message_descriptor_get_field_by_name(d, name);

	assert_non_null(f);
	assert_int_equal(f->id, number);
}

static void test_the_numbers_that_the_services_know_are_the_contract_s(void **state)
{
	const ProtobufCMessageDescriptor *d = &zoned__v1__op_context__descriptor;

	(void)state;
	expect_number(d, "machine", 1);
	expect_number(d, "cpu", 2);
	expect_number(d, "task", 3);
	expect_number(d, "owner", 4);
	expect_number(d, "token", 5);
	expect_number(d, "sequence", 6);
	d = &zoned__v1__outcome__descriptor;
	expect_number(d, "op", 1);
	expect_number(d, "status", 2);
	expect_number(d, "detail", 3);
	d = &zoned__v1__result__descriptor;
	expect_number(d, "index", 1);
	expect_number(d, "code", 2);
	expect_number(d, "message", 3);
	expect_number(&zoned__v1__op_batch__descriptor, "context", 1);
	expect_number(&zoned__v1__op_batch__descriptor, "ops", 2);
	expect_number(&zoned__v1__result_batch__descriptor, "results", 1);
	d = &zoned__v1__status_response__descriptor;
	expect_number(d, "taken", 1);
	expect_number(d, "parked", 2);
	expect_number(d, "result", 3);
}

static void test_utf8(void **state)
{
	static const char *const good[] = {"",
					   "a",
					   "\xc3\xa4",
					   "\xe2\x82\xac",
					   "\xf0\x9f\x98\x80",
					   "\xf4\x8f\xbf\xbf",
					   "\xed\x9f\xbf"};
	static const char *const bad[] = {"\x80",	  "\xc3",	  "\xc0\x80",
					  "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
					  "\xff",	  "a\xe2\x82",	  "\xf8\x88\x80\x80\x80"};

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		assert_true(codec_is_utf8(good[i], strlen(good[i])));
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_false(codec_is_utf8(bad[i], strlen(bad[i])));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_every_op_is_read_as_it_was_packed),
	    cmocka_unit_test(test_what_is_out_of_range_is_refused_by_name),
	    cmocka_unit_test(test_unknown_values_and_flags_are_refused),
	    cmocka_unit_test(test_data_that_is_too_long_is_refused),
	    cmocka_unit_test(test_lists_come_in_every_form),
	    cmocka_unit_test(test_damaged_messages_are_read_or_refused),
	    cmocka_unit_test(test_an_op_inherits_what_its_context_leaves_unset),
	    cmocka_unit_test(test_a_choice_names_its_op),
	    cmocka_unit_test(test_every_result_is_unpacked_as_it_was_written),
	    cmocka_unit_test(test_every_row_is_unpacked_as_it_was_written),
	    cmocka_unit_test(test_the_numbers_that_the_services_know_are_the_contract_s),
	    cmocka_unit_test(test_utf8),
	};
	const char *given = getenv("SEED");

	seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) * 2654435761u | 1;
	printf("seed %#" PRIx64 " (SEED=... repeats it)\n", seed);
	codec_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
