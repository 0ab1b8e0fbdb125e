/*
 * codec.h - op messages into engine ops and answers into result messages, by the
 * contract's tables alone: a new op needs nothing here.
 *
 * Decoding is one pass over the client's bytes, which it does not copy: strings and
 * payloads point into them. It checks everything that does not depend on a machine:
 * the wire format, ranges, flags, enum values, lengths, UTF-8. What it lets through
 * the engine may take as it is.
 */
#ifndef CODEC_H
#define CODEC_H

#include "engine.h"
#include "wire.h"

enum { CODEC_ERROR_LENGTH = 200 };

/* A sentence that names the field, the value and what is allowed. */
struct codec_error {
	char text[CODEC_ERROR_LENGTH];
};

/* An op's context, as far as it was given. Not zero-terminated. */
struct codec_context {
	const char *machine, *owner;
	uint32_t machine_length, owner_length;
	uint32_t cpu, task;
	uint64_t token, sequence;
};

struct codec_op {
	uint32_t code;
	struct codec_context context;
	uint64_t args[OP_ARGS];
	const uint8_t *data; /* in the client's bytes, or in `list` */
	uint32_t data_len;
	uint32_t *list; /* a list takes another form; to be freed by the caller, or NULL */
};

/* Builds the tables for decoding. Before anything else; again is harmless. */
void codec_init(void);

/* Reads the message of one op (zoned.v1.AllocPages). What the message's own context
 * does not say, `inherited` says, unless NULL. ret->list is set on failure too. */
bool codec_read_op(uint32_t code, struct wire_reader message, const struct codec_context *inherited,
		   struct codec_op *ret, struct codec_error *why);

/* Reads one zoned.v1.Op: which op, and that op's message. False: malformed, or none. */
bool codec_read_choice(struct wire_reader message, uint32_t *ret_code, struct wire_reader *ret_op,
		       struct codec_error *why);

/* Reads a zoned.v1.OpContext into *c; what it does not say stays. */
bool codec_read_context(struct wire_reader message, struct codec_context *c,
			struct codec_error *why);

/* Reads a question of zoned.v1.InspectRequest: its arguments. `row` indexes
 * contract_inspections. */
bool codec_read_question(unsigned row, struct wire_reader message, uint64_t args[OP_ARGS],
			 struct codec_error *why);

/* Appends the fields of an op's result message (zoned.v1.AllocPagesResult). */
void codec_write_result(struct wire_buffer *b, uint32_t code, const struct engine_result *result);

/* Appends a row of an inspection's report as the field of its list. */
void codec_write_row(struct wire_buffer *b, unsigned row, uint32_t type, const uint64_t *values,
		     uint32_t nr_values);

/* Checks an integer against a field of the contract. */
struct contract_field;
bool codec_check_integer(const struct contract_field *f, uint64_t value, struct codec_error *why);

bool codec_is_utf8(const void *bytes, size_t length);

#endif
