/*
 * test_packed.c - zonectl's codec (client/zonectl/packed.c) against protobuf-c.
 *
 * What is held here, for every op of the contract and random values: an op that the codec
 * writes is the message that protobuf-c makes of the same arguments; a result that
 * protobuf-c packs is read as it was meant; fields that nobody knows, lists in pieces and
 * fields that come twice are read as protobuf asks; a result cut anywhere is refused or
 * read, never read beyond.
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

#include "contract_protobuf.h"
#include "packed.h"

enum { ROUNDS = 200, DATA_MAX = 40 };

static uint64_t seed;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* Of every width. */
static uint64_t number_of(enum contract_field_kind kind)
{
	uint64_t n = rnd() >> rnd() % 64;

	if (rnd() % 4 == 0)
		n = 0;
	switch (kind) {
	case FIELD_U64: return n;
	case FIELD_BOOL: return n & 1;
	/* No enum of the contract has a negative value. */
	case FIELD_ENUM: return n & INT32_MAX;
	default: return (uint32_t)n;
	}
}

/* Integers and data of a message, as a caller has them. */
struct values {
	uint64_t ints[OP_ARGS];
	uint8_t bytes[DATA_MAX];
	uint32_t list[DATA_MAX];
	size_t length;
};

static void make_values(const struct contract_fields *fields, struct values *v)
{
	for (unsigned i = 0; i < fields->nr_ints; i++)
		v->ints[i] = number_of(fields->ints[i].kind);
	v->length = fields->data ? rnd() % DATA_MAX : 0;
	for (size_t i = 0; i < v->length; i++) {
		v->list[i] = (uint32_t)number_of(FIELD_U32);
		v->bytes[i] = (uint8_t)rnd();
	}
}

static void *at(ProtobufCMessage *m, unsigned offset)
{
	return (char *)m + offset;
}

static const ProtobufCFieldDescriptor *field_of(const ProtobufCMessage *m, unsigned number)
{
	const ProtobufCFieldDescriptor *f =
	    protobuf_c_message_descriptor_get_field(m->descriptor, number);

	assert_non_null(f);
	return f;
}

/* The message of these values. Data stays `v`'s: it is freed by free(). */
static ProtobufCMessage *message_of(const ProtobufCMessageDescriptor *d,
				    const struct contract_fields *fields, struct values *v)
{
	ProtobufCMessage *m = calloc(1, d->sizeof_message);
	const ProtobufCFieldDescriptor *f;

	assert_non_null(m);
	protobuf_c_message_init(d, m);
	for (unsigned i = 0; i < fields->nr_ints; i++) {
		f = field_of(m, fields->ints[i].number);
		if (f->type == PROTOBUF_C_TYPE_UINT64)
			*(uint64_t *)at(m, f->offset) = v->ints[i];
		else
			*(uint32_t *)at(m, f->offset) = (uint32_t)v->ints[i];
	}
	if (!fields->data)
		return m;
	f = field_of(m, fields->data->number);
	if (fields->data->kind == FIELD_U32_LIST) {
		*(uint32_t **)at(m, f->offset) = v->list;
		*(size_t *)at(m, f->quantifier_offset) = v->length;
	} else {
		*(ProtobufCBinaryData *)at(m, f->offset) =
		    (ProtobufCBinaryData){v->length, v->bytes};
	}
	return m;
}

/* Exactly as large as the message, so that a sanitizer sees one byte too many. */
struct packed {
	uint8_t *bytes;
	size_t length;
};

static struct packed pack(const ProtobufCMessage *m)
{
	struct packed p = {.length = protobuf_c_message_get_packed_size(m)};

	p.bytes = malloc(p.length ? p.length : 1);
	assert_non_null(p.bytes);
	protobuf_c_message_pack(m, p.bytes);
	return p;
}

/* ---- ops ---- */

static void expect_op(const struct contract_op *op, struct values *v, Zoned__V1__OpContext *context)
{
	const ProtobufCMessageDescriptor *d = contract_op_messages[op->code].op;
	ProtobufCMessage *meant = message_of(d, &op->args, v), *got;
	bool list = op->args.data && op->args.data->kind == FIELD_U32_LIST;
	struct arguments a = {.data = list ? (const void *)v->list : v->bytes, .length = v->length};
	struct wire_buffer b = {0};
	struct packed expected, again;

	memcpy(a.ints, v->ints, sizeof a.ints);
	*(Zoned__V1__OpContext **)at(meant, field_of(meant, 1)->offset) = context;
	expected = pack(meant);
	packed_op_write(&b, op, context, &a);
	got = protobuf_c_message_unpack(d, NULL, b.length, b.bytes);
	assert_non_null(got);
	again = pack(got);
	assert_int_equal(again.length, expected.length);
	assert_memory_equal(again.bytes, expected.bytes, expected.length);
	/* No byte for nothing: as long as what protobuf-c writes. */
	assert_int_equal(b.length, expected.length);
	protobuf_c_message_free_unpacked(got, NULL);
	free(expected.bytes);
	free(again.bytes);
	free(meant);
	wire_free(&b);
}

static void test_every_op_is_what_protobuf_makes_of_it(void **state)
{
	unsigned ops = 0;

	(void)state;
	for (uint32_t code = 1; code < OP_CODE_END; code++) {
		const struct contract_op *op = &contract_ops[code];

		for (unsigned i = 0; op->code && i < ROUNDS; i++) {
			Zoned__V1__OpContext context = ZONED__V1__OP_CONTEXT__INIT;
			struct values v = {0};

			context.cpu = (uint32_t)(rnd() % 32);
			context.task = (uint32_t)rnd();
			context.owner = (char *)(uintptr_t) "somebody";
			make_values(&op->args, &v);
			expect_op(op, &v, rnd() % 2 ? &context : NULL);
			ops++;
		}
	}
	assert_true(ops > 30 * ROUNDS);
}

/* ---- results ---- */

static struct packed pack_result(const struct contract_op *op, struct values *v,
				 Zoned__V1__Outcome *outcome)
{
	ProtobufCMessage *m = message_of(contract_op_messages[op->code].result, &op->values, v);
	struct packed p;

	*(Zoned__V1__Outcome **)at(m, field_of(m, 1)->offset) = outcome;
	p = pack(m);
	free(m);
	return p;
}

static void expect_result(const struct contract_op *op, const struct values *v,
			  const struct packed_result *got)
{
	size_t length = (size_t)(got->data.end - got->data.at);

	for (unsigned i = 0; i < op->values.nr_ints; i++)
		assert_int_equal(got->values[i], v->ints[i]);
	if (!op->values.data)
		return;
	if (op->values.data->kind == FIELD_U32_LIST) {
		assert_int_equal(length, v->length * sizeof *v->list);
		if (length)
			assert_memory_equal(got->data.at, v->list, length);
	} else {
		assert_int_equal(length, v->length);
		if (length)
			assert_memory_equal(got->data.at, v->bytes, length);
	}
}

static void read_one(const struct contract_op *op, struct wire_buffer *list)
{
	Zoned__V1__Outcome outcome = ZONED__V1__OUTCOME__INIT;
	struct packed_result got;
	struct values v = {0};
	struct packed p;

	outcome.op = rnd();
	outcome.status = (Zoned__V1__Status)(rnd() % 20);
	outcome.detail = (char *)(uintptr_t) "why";
	make_values(&op->values, &v);
	p = pack_result(op, &v, &outcome);
	assert_true(
	    packed_result_read(op, (struct wire_reader){p.bytes, p.bytes + p.length}, list, &got));
	assert_true(got.has_outcome);
	assert_int_equal(got.number, outcome.op);
	assert_int_equal(got.status, outcome.status);
	assert_int_equal(got.detail.end - got.detail.at, 3);
	assert_memory_equal(got.detail.at, "why", 3);
	expect_result(op, &v, &got);
	for (size_t cut = 0; cut < p.length; cut++) {
		uint8_t *part = malloc(cut ? cut : 1);

		assert_non_null(part);
		memcpy(part, p.bytes, cut);
		packed_result_read(op, (struct wire_reader){part, part + cut}, list, &got);
		free(part);
	}
	free(p.bytes);
}

static void test_every_result_is_read_as_it_was_packed(void **state)
{
	struct wire_buffer list = {0};

	(void)state;
	for (uint32_t code = 1; code < OP_CODE_END; code++)
		for (unsigned i = 0; contract_ops[code].code && i < ROUNDS; i++)
			read_one(&contract_ops[code], &list);
	wire_free(&list);
}

/* What other writers of the same format may do. */
static void test_other_forms_of_a_result(void **state)
{
	const struct contract_op *op = &contract_ops[OP_ALLOC_PAGES];
	const uint32_t pfn = op->values.ints[0].number;
	struct wire_buffer b = {0}, list = {0};
	struct packed_result got;

	(void)state;
	wire_put_integer(&b, pfn, 7);
	wire_put_text(&b, 1000, "nobody knows this field");
	wire_put_tag(&b, 1001, WIRE_FIXED64);
	wire_put_word(&b, 1);
	wire_put_word(&b, 2);
	wire_put_integer(&b, pfn, 9);
	assert_true(
	    packed_result_read(op, (struct wire_reader){b.bytes, b.bytes + b.length}, &list, &got));
	assert_int_equal(got.values[0], 9);
	assert_false(got.has_outcome);
	/* Groups are not in proto3. */
	wire_put_tag(&b, 1002, (enum wire_type)3);
	assert_false(
	    packed_result_read(op, (struct wire_reader){b.bytes, b.bytes + b.length}, &list, &got));
	wire_free(&b);
	wire_free(&list);
}

static void test_a_list_in_pieces(void **state)
{
	static const uint32_t words[] = {1, 300, 70000, 5};
	struct wire_buffer b = {0}, list = {0};
	struct packed_result got;
	unsigned lists = 0;

	(void)state;
	for (uint32_t code = 1; code < OP_CODE_END; code++) {
		const struct contract_op *op = &contract_ops[code];
		const struct contract_field *data = op->code ? op->values.data : NULL;
		size_t begin;

		if (!data || data->kind != FIELD_U32_LIST)
			continue;
		lists++;
		b.length = 0;
		wire_put_integer(&b, data->number, words[0]);
		begin = wire_begin(&b, data->number);
		wire_put_varint(&b, words[1]);
		wire_put_varint(&b, words[2]);
		wire_end(&b, begin);
		wire_put_integer(&b, data->number, words[3]);
		assert_true(packed_result_read(
		    op, (struct wire_reader){b.bytes, b.bytes + b.length}, &list, &got));
		assert_int_equal(got.data.end - got.data.at, sizeof words);
		assert_memory_equal(got.data.at, words, sizeof words);
	}
	assert_true(lists > 0);
	wire_free(&b);
	wire_free(&list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_every_op_is_what_protobuf_makes_of_it),
	    cmocka_unit_test(test_every_result_is_read_as_it_was_packed),
	    cmocka_unit_test(test_other_forms_of_a_result),
	    cmocka_unit_test(test_a_list_in_pieces),
	};
	const char *given = getenv("SEED");

	seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) * 2654435761u | 1;
	printf("seed %#" PRIx64 " (SEED=... repeats it)\n", seed);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
