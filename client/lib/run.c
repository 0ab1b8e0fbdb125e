/*
 * run.c - Memory.Run: batches of ops out, batches of results back.
 *
 * An OpBatch is written straight in protobuf's wire format, op by op: a tag, a length
 * and the op's own bytes. The caller's message is packed once and never copied into a
 * tree of other messages, which is what makes a batch cheap to fill.
 *
 * Invariant: added = filling + in flight + answered. An index is answered once; the
 * daemon may answer out of order (a parked op comes late).
 */
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "contract_protobuf.h"

enum {
	FIELD_BATCH_CONTEXT = 1,
	FIELD_BATCH_OPS = 2,
	WIRE_LENGTH_DELIMITED = 2,
	VARINT_MAX = 10,
	HEAD_MAX = 2 * VARINT_MAX, /* a field's tag and length */
};

struct zoned_run {
	struct zoned_stream *stream;
	zoned_result_fn *on_result;
	void *user;
	struct bytes batch;
	uint64_t filling, in_flight;
};

static size_t put_varint(uint8_t *to, uint64_t n)
{
	size_t length = 0;

	for (; n >= 0x80; n >>= 7)
		to[length++] = (uint8_t)(n | 0x80);
	to[length++] = (uint8_t)n;
	return length;
}

/* A tag and a length, as they stand before a nested message. */
static size_t put_head(uint8_t *to, uint32_t field, size_t length)
{
	size_t n = put_varint(to, (uint64_t)field << 3 | WIRE_LENGTH_DELIMITED);

	return n + put_varint(to + n, length);
}

int zoned_run_open(struct zoned *z, const Zoned__V1__OpContext *context, zoned_result_fn *on_result,
		   void *user, struct zoned_run **ret_run)
{
	struct zoned_run *run = calloc(1, sizeof *run);
	uint8_t *to = NULL;
	size_t length = protobuf_c_message_get_packed_size(&context->base);
	int rc;

	if (run)
		to = bytes_reserve(&run->batch, HEAD_MAX + length);
	if (!to) {
		free(run);
		return fail(z, ZONED_NO_MEMORY, "out of memory");
	}
	run->on_result = on_result;
	run->user = user;
	/* The daemon keeps the first batch's context for the later ones. */
	run->batch.end += put_head(to, FIELD_BATCH_CONTEXT, length);
	run->batch.end += protobuf_c_message_pack(&context->base, run->batch.data + run->batch.end);
	rc = zoned_stream_open(z, "/zoned.v1.Memory/Run", &zoned__v1__result_batch__descriptor,
			       ZONED_NO_TIMEOUT, &run->stream);
	if (rc) {
		zoned_run_close(run);
		return rc;
	}
	*ret_run = run;
	return 0;
}

int zoned_run_add(struct zoned_run *run, uint32_t code, const ProtobufCMessage *op)
{
	struct zoned *z = run->stream->connection;
	uint8_t inner[HEAD_MAX], *to;
	size_t length, inner_length;

	if (code >= OP_CODE_END || op->descriptor != contract_op_messages[code].op)
		return fail(z, ZONED_ARGUMENT, "no op %u, or a message that is not its own", code);
	length = protobuf_c_message_get_packed_size(op);
	inner_length = put_head(inner, code, length);
	to = bytes_reserve(&run->batch, HEAD_MAX + inner_length + length);
	if (!to)
		return fail(z, ZONED_NO_MEMORY, "out of memory");
	to += put_head(to, FIELD_BATCH_OPS, inner_length + length);
	memcpy(to, inner, inner_length);
	to += inner_length;
	to += protobuf_c_message_pack(op, to);
	run->batch.end = (size_t)(to - run->batch.data);
	run->filling++;
	return 0;
}

int zoned_run_flush(struct zoned_run *run)
{
	int rc;

	if (!run->filling)
		return 0;
	rc = zoned_stream_send_packed(run->stream, run->batch.data + run->batch.start,
				      bytes_length(&run->batch));
	if (rc)
		return rc;
	run->in_flight += run->filling;
	run->filling = 0;
	run->batch.start = run->batch.end = 0;
	return 0;
}

uint64_t zoned_run_filling(const struct zoned_run *run)
{
	return run->filling;
}

uint64_t zoned_run_in_flight(const struct zoned_run *run)
{
	return run->in_flight;
}

/* One batch of results. 0, or what zoned_stream_receive() said. */
static int receive_batch(struct zoned_run *run, uint32_t timeout_ms)
{
	ProtobufCMessage *message;
	Zoned__V1__ResultBatch *batch;
	size_t i;
	int rc = zoned_stream_receive(run->stream, timeout_ms, &message);

	if (rc)
		return rc;
	batch = (Zoned__V1__ResultBatch *)message;
	if (batch->n_results > run->in_flight)
		rc = fail(run->stream->connection, ZONED_PROTOCOL, "more results than ops");
	for (i = 0; !rc && i < batch->n_results; i++) {
		run->in_flight--;
		run->on_result(run->user, batch->results[i]->index, batch->results[i]);
	}
	protobuf_c_message_free_unpacked(message, NULL);
	return rc;
}

int zoned_run_wait(struct zoned_run *run, uint64_t max_in_flight, uint32_t timeout_ms)
{
	uint64_t deadline = clock_deadline(timeout_ms);
	int rc = 0;

	while (!rc && (run->in_flight > max_in_flight || (timeout_ms == 0 && run->in_flight)))
		rc = receive_batch(run, clock_left_ms(deadline));
	if (rc == ZONED_END)
		rc = fail(run->stream->connection, ZONED_PROTOCOL,
			  "the daemon ended the stream before every op was answered");
	if (rc == ZONED_AGAIN && run->in_flight <= max_in_flight)
		return 0;
	return rc;
}

int zoned_run_finish(struct zoned_run *run)
{
	int rc = zoned_run_flush(run);

	if (!rc)
		rc = zoned_stream_end(run->stream);
	if (!rc)
		rc = zoned_run_wait(run, 0, ZONED_NO_TIMEOUT);
	if (!rc)
		rc = receive_batch(run, ZONED_NO_TIMEOUT);
	if (rc == ZONED_END)
		rc = 0;
	zoned_run_close(run);
	return rc;
}

void zoned_run_close(struct zoned_run *run)
{
	if (!run)
		return;
	zoned_stream_close(run->stream);
	bytes_free(&run->batch);
	free(run);
}
