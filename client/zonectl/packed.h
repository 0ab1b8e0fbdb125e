/*
 * packed.h - ops and their results in protobuf's wire format, by the contract's tables.
 *
 * For a caller who sends and reads many: no message is made, and nothing is allocated for
 * one op. What is written is what protobuf-c would write of the same message, but for the
 * order of its fields; what is read is any form that protobuf allows.
 */
#ifndef PACKED_H
#define PACKED_H

#include "contract_tables.h"
#include "wire.h"
#include "zoned.h"

/* An op's arguments, or an inspection's, in the contract's order. */
struct arguments {
	uint64_t ints[OP_ARGS];
	const void *data; /* bytes; of a list: uint32_t */
	size_t length;	  /* in bytes; of a list: elements */
};

/* Appends an op's message. context: NULL if it would say nothing. */
void packed_op_write(struct wire_buffer *b, const struct contract_op *op,
		     const Zoned__V1__OpContext *context, const struct arguments *a);

struct packed_result {
	bool has_outcome;
	uint64_t number;
	uint32_t status;
	struct wire_reader detail;
	uint64_t values[OP_VALUES];
	struct wire_reader data; /* bytes; of a list: of uint32_t, in `list` */
};

/* Reads an op's result message. Texts and bytes stay where they are; a list goes to *list,
 * which is emptied first. False: malformed. */
bool packed_result_read(const struct contract_op *op, struct wire_reader message,
			struct wire_buffer *list, struct packed_result *ret);

#endif
