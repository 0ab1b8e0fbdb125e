/*
 * run.c - Memory.Run: batches of ops out, batches of results back.
 *
 * An OpBatch is written straight in protobuf's wire format, op by op: a tag, a length
 * and the op's own bytes. The caller's message is packed once and never copied into a
 * tree of other messages, which is what makes a batch cheap to fill. A ResultBatch is
 * taken apart in the same way; a result becomes a message only for a caller who wants one.
 *
 * A run with a token is durable: it keeps each op until it has been answered, so that it
 * can ask what became of it and send it again (settle()).
 *
 * Invariants:
 *  1. added = filling + in flight + answered. An index is answered once; the daemon may
 *     answer out of order (a parked op comes late).
 *  2. `kept` holds the ops in flight of a durable run, in the order of their numbers on
 *     the stream, which is the order in which they were sent there. Ops in `filling` are
 *     not among them.
 *  3. Each batch of a durable run says its first op's sequence; the daemon counts on as
 *     sequence_after() does. So the names of ops do not depend on what was sent before.
 */
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "contract_protobuf.h"
#include "wire.h"

enum {
	FIELD_BATCH_CONTEXT = 1,
	FIELD_BATCH_OPS = 2,
	FIELD_BATCH_RESULTS = 1,
	FIELD_RESULT_INDEX = 1,
	FIELD_RESULT_CODE = 2,
	FIELD_RESULT_MESSAGE = 3,
	HEAD_MAX = 2 * WIRE_VARINT_MAX, /* a field's tag and length */
	ASK_AT_ONCE = 64,		/* questions under way; far fewer than a daemon's streams */
	/* A wait that must not wait still gives the daemon so long to answer a question. */
	ASK_MS = 1000,
	RESEND_BYTES = 256 << 10, /* of one batch */
};

/* An op of a durable run that has no answer yet. */
struct kept_op {
	struct kept_op *next;
	uint64_t index;	    /* the caller's */
	uint64_t on_stream; /* its number on the stream */
	uint64_t token, sequence;
	uint32_t code;
	bool in_doubt;	     /* whatever it was sent by is over */
	bool put_off;	     /* refused for a time, on a stream that goes on */
	bool denied;	     /* in doubt no more: it was not taken up, and is to be sent (again) */
	const char *machine; /* NULL: the run's */
	size_t length;
	uint8_t bytes[]; /* as a batch's field; behind it the machine's name */
};

struct op_list {
	struct kept_op *first, **end;
};

struct zoned_run {
	struct zoned *connection;
	struct zoned_stream *stream; /* NULL: lost, and not yet opened again */
	zoned_result_fn *on_result;
	zoned_packed_fn *on_packed; /* instead of on_result */
	void *user;
	Zoned__V1__OpContext *context; /* the sequence is that of the next op */
	bool durable;
	bool context_said; /* the daemon has it */
	struct bytes batch;
	uint64_t filling, in_flight;
	uint64_t next_index, next_on_stream;
	uint64_t batch_sequence;     /* of the first op in the batch */
	struct op_list kept, filled; /* in flight; in the batch */
	bool in_doubt;		     /* some kept op is */
	struct backoff backoff;
	bool lost_before;   /* since the last answer */
	struct bump result; /* the one that is being handled, where it is a message */
};

/* A tag and a length, as they stand before a nested message. */
static size_t put_head(uint8_t *to, uint32_t field, size_t length)
{
	uint8_t *at = wire_write_varint(to, (uint64_t)field << 3 | WIRE_BYTES);

	return (size_t)(wire_write_varint(at, length) - to);
}

/* ---- lists ---- */

static void list_init(struct op_list *l)
{
	l->first = NULL;
	l->end = &l->first;
}

static void list_add(struct op_list *l, struct kept_op *op)
{
	op->next = NULL;
	*l->end = op;
	l->end = &op->next;
}

/* Takes out what *at points to. */
static struct kept_op *list_take(struct op_list *l, struct kept_op **at)
{
	struct kept_op *op = *at;

	*at = op->next;
	if (l->end == &op->next)
		l->end = at;
	return op;
}

static void list_free(struct op_list *l)
{
	while (l->first)
		free(list_take(l, &l->first));
}

/* ---- filling a batch ---- */

static int out_of_memory(struct zoned *z)
{
	return fail(z, ZONED_NO_MEMORY, "out of memory");
}

static int open_stream(struct zoned_run *run)
{
	return zoned_stream_open(run->connection, "/zoned.v1.Memory/Run",
				 &zoned__v1__result_batch__descriptor, ZONED_NO_TIMEOUT,
				 &run->stream);
}

static Zoned__V1__OpContext *copy_context(const Zoned__V1__OpContext *context)
{
	size_t length = protobuf_c_message_get_packed_size(&context->base);
	uint8_t *bytes = malloc(length + 1);
	Zoned__V1__OpContext *copy = NULL;

	if (bytes) {
		protobuf_c_message_pack(&context->base, bytes);
		copy = zoned__v1__op_context__unpack(NULL, length, bytes);
	}
	free(bytes);
	return copy;
}

static int run_open(struct zoned *z, const Zoned__V1__OpContext *context,
		    const struct zoned_run *like, struct zoned_run **ret_run)
{
	struct zoned_run *run = malloc(sizeof *run);
	int rc;

	if (!run)
		return out_of_memory(z);
	*run = *like;
	run->connection = z;
	list_init(&run->kept);
	list_init(&run->filled);
	bump_init(&run->result);
	run->context = copy_context(context);
	rc = run->context ? open_stream(run) : out_of_memory(z);
	if (rc || !run->context) {
		zoned_run_close(run);
		return rc;
	}
	run->durable = context->token != 0;
	if (run->durable && !run->context->sequence)
		run->context->sequence = 1;
	*ret_run = run;
	return 0;
}

int zoned_run_open(struct zoned *z, const Zoned__V1__OpContext *context, zoned_result_fn *on_result,
		   void *user, struct zoned_run **ret_run)
{
	return run_open(z, context, &(struct zoned_run){.on_result = on_result, .user = user},
			ret_run);
}

int zoned_run_open_packed(struct zoned *z, const Zoned__V1__OpContext *context,
			  zoned_packed_fn *on_packed, void *user, struct zoned_run **ret_run)
{
	return run_open(z, context, &(struct zoned_run){.on_packed = on_packed, .user = user},
			ret_run);
}

/* What the daemon makes of a sequence that an op, perhaps, brings itself. */
static uint64_t sequence_after(uint64_t next, uint64_t of_op)
{
	return of_op == next ? next + 1 : next;
}

/* Keeps the op whose field of the batch is `bytes`; `own` is its context, or NULL. */
static int keep(struct zoned_run *run, uint32_t code, const Zoned__V1__OpContext *own,
		const uint8_t *bytes, size_t length)
{
	size_t name = own && own->machine[0] ? strlen(own->machine) + 1 : 0;
	uint64_t next = run->context->sequence;
	struct kept_op *op = malloc(sizeof *op + length + name);

	if (!op)
		return out_of_memory(run->connection);
	*op = (struct kept_op){
	    .index = run->next_index,
	    .token = own && own->token ? own->token : run->context->token,
	    .sequence = own && own->sequence ? own->sequence : next,
	    .code = code,
	    .length = length,
	};
	memcpy(op->bytes, bytes, length);
	if (name)
		op->machine = memcpy(op->bytes + length, own->machine, name);
	if (!run->filled.first)
		run->batch_sequence = next;
	list_add(&run->filled, op);
	run->context->sequence = sequence_after(next, op->sequence);
	return 0;
}

/* Room in the batch for an op of `length` bytes behind its heads, which are written; or
 * NULL. *ret_begin is where the op's field begins. */
static uint8_t *begin_op(struct zoned_run *run, uint32_t code, size_t length, uint8_t **ret_begin)
{
	uint8_t inner[HEAD_MAX], *to;
	size_t inner_length = put_head(inner, code, length);

	*ret_begin = to = bytes_reserve(&run->batch, HEAD_MAX + inner_length + length);
	if (!to)
		return NULL;
	to += put_head(to, FIELD_BATCH_OPS, inner_length + length);
	memcpy(to, inner, inner_length);
	return to + inner_length;
}

/* The op's field is whole and ends at `end`. */
static void end_op(struct zoned_run *run, const uint8_t *end)
{
	run->batch.end = (size_t)(end - run->batch.data);
	run->filling++;
	run->next_index++;
}

int zoned_run_add(struct zoned_run *run, uint32_t code, const ProtobufCMessage *op)
{
	struct zoned *z = run->connection;
	uint8_t *begin, *to;
	int rc = 0;

	if (code >= OP_CODE_END || op->descriptor != contract_op_messages[code].op)
		return fail(z, ZONED_ARGUMENT, "no op %u, or a message that is not its own", code);
	to = begin_op(run, code, protobuf_c_message_get_packed_size(op), &begin);
	if (!to)
		return out_of_memory(z);
	to += protobuf_c_message_pack(op, to);
	if (run->durable)
		rc = keep(run, code, op_context(op), begin, (size_t)(to - begin));
	if (!rc)
		end_op(run, to);
	return rc;
}

int zoned_run_add_packed(struct zoned_run *run, uint32_t code, const void *op, size_t length)
{
	struct zoned *z = run->connection;
	ProtobufCMessage *message;
	uint8_t *begin, *to;
	int rc;

	if (code >= OP_CODE_END || !contract_op_messages[code].op)
		return fail(z, ZONED_ARGUMENT, "no op %u", code);
	/* A durable run has to know the op's context. */
	if (run->durable) {
		message =
		    protobuf_c_message_unpack(contract_op_messages[code].op, NULL, length, op);
		if (!message)
			return fail(z, ZONED_ARGUMENT, "the bytes are no %s",
				    contract_op_messages[code].op->name);
		rc = zoned_run_add(run, code, message);
		protobuf_c_message_free_unpacked(message, NULL);
		return rc;
	}
	to = begin_op(run, code, length, &begin);
	if (!to)
		return out_of_memory(z);
	if (length)
		memcpy(to, op, length);
	end_op(run, to + length);
	return 0;
}

/* Appends the context to a batch; it holds for those behind it too. */
static int append_context(struct zoned_run *run, struct bytes *batch, uint64_t sequence)
{
	Zoned__V1__OpContext said = *run->context;
	size_t length;
	uint8_t *to;

	if (run->durable)
		said.sequence = sequence;
	length = protobuf_c_message_get_packed_size(&said.base);
	to = bytes_reserve(batch, HEAD_MAX + length);
	if (!to)
		return out_of_memory(run->connection);
	batch->end += put_head(to, FIELD_BATCH_CONTEXT, length);
	batch->end += protobuf_c_message_pack(&said.base, batch->data + batch->end);
	return 0;
}

static int send_batch(struct zoned_run *run, struct bytes *batch, uint64_t sequence)
{
	size_t ops_end = batch->end;
	int rc = 0;

	if (run->durable || !run->context_said)
		rc = append_context(run, batch, sequence);
	if (!rc)
		rc = zoned_stream_send_packed(run->stream, batch->data + batch->start,
					      bytes_length(batch));
	if (rc) {
		batch->end = ops_end;
		return rc;
	}
	run->context_said = true;
	batch->start = batch->end = 0;
	return 0;
}

static void lose(struct zoned_run *run)
{
	zoned_stream_close(run->stream);
	run->stream = NULL;
	for (struct kept_op *op = run->kept.first; op; op = op->next) {
		op->in_doubt = true;
		op->denied = op->denied && !op->put_off;
		op->put_off = false;
	}
	run->in_doubt = true;
}

int zoned_run_flush(struct zoned_run *run)
{
	int rc = 0;

	if (!run->filling)
		return 0;
	if (run->stream)
		rc = send_batch(run, &run->batch, run->batch_sequence);
	if (rc && !(run->durable && may_retry(rc)))
		return rc;
	if (rc)
		lose(run);
	run->batch.start = run->batch.end = 0;
	run->in_flight += run->filling;
	run->filling = 0;
	while (run->filled.first) {
		struct kept_op *op = list_take(&run->filled, &run->filled.first);

		/* Without a stream they wait for the next, like ops that were denied. */
		op->denied = op->in_doubt = !run->stream;
		op->on_stream = run->stream ? run->next_on_stream++ : 0;
		list_add(&run->kept, op);
	}
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

/* ---- answers ---- */

static int not_a_batch(struct zoned_run *run)
{
	return fail(run->connection, ZONED_PROTOCOL, "what came is not a zoned.v1.ResultBatch");
}

/* Reads one zoned.v1.Result as far as it is no op's own. False: malformed. */
static bool read_result(struct wire_reader r, struct zoned_packed_result *ret)
{
	struct wire_reader bytes;
	uint32_t field, type;
	uint64_t value;

	*ret = (struct zoned_packed_result){.message = ""};
	while (r.at < r.end) {
		if (!wire_tag(&r, &field, &type))
			return false;
		if (type == WIRE_VARINT) {
			if (!wire_varint(&r, &value))
				return false;
			if (field == FIELD_RESULT_INDEX)
				ret->index = value;
			else if (field == FIELD_RESULT_CODE)
				ret->code = (uint32_t)value;
		} else if (type == WIRE_BYTES) {
			if (!wire_bytes(&r, &bytes))
				return false;
			if (field == FIELD_RESULT_MESSAGE) {
				ret->message = (const char *)bytes.at;
				ret->message_length = (size_t)(bytes.end - bytes.at);
			} else if (field < OP_CODE_END && contract_op_messages[field].op) {
				ret->op = field;
				ret->bytes = bytes.at;
				ret->length = (size_t)(bytes.end - bytes.at);
			}
		} else if (!wire_skip(&r, type)) {
			return false;
		}
	}
	return true;
}

/* Gives the caller a result, which was read into *p, as the answer to its index-th op. */
static int answer(struct zoned_run *run, uint64_t index, struct wire_reader bytes,
		  struct zoned_packed_result *p)
{
	Zoned__V1__Result *result;

	if (run->on_packed) {
		p->index = index;
		run->in_flight--;
		run->on_packed(run->user, p);
		return 0;
	}
	result = zoned__v1__result__unpack(&run->result.allocator, (size_t)(bytes.end - bytes.at),
					   bytes.at);
	if (!result)
		return not_a_batch(run);
	result->index = index;
	run->in_flight--;
	run->on_result(run->user, index, result);
	bump_reset(&run->result);
	return 0;
}

/* An answer to a durable run's op: hands it out, unless it only puts the op off. */
static int answer_kept(struct zoned_run *run, struct wire_reader bytes,
		       struct zoned_packed_result *p)
{
	struct kept_op **at = &run->kept.first, *op;
	int rc;

	while (*at && ((*at)->in_doubt || (*at)->on_stream != p->index))
		at = &(*at)->next;
	if (!*at)
		return fail(run->connection, ZONED_PROTOCOL, "a result of no op");
	if (p->code == ZONED_UNAVAILABLE) {
		(*at)->put_off = (*at)->in_doubt = run->in_doubt = true;
		return 0;
	}
	op = list_take(&run->kept, at);
	rc = answer(run, op->index, bytes, p);
	free(op);
	return rc;
}

static int receive_result(struct zoned_run *run, struct wire_reader bytes)
{
	struct zoned_packed_result p;

	if (!read_result(bytes, &p))
		return not_a_batch(run);
	if (run->in_flight == 0)
		return fail(run->connection, ZONED_PROTOCOL, "more results than ops");
	return run->durable ? answer_kept(run, bytes, &p) : answer(run, p.index, bytes, &p);
}

/* One batch of results. 0, or what zoned_stream_receive() said. */
static int receive_batch(struct zoned_run *run, uint32_t timeout_ms)
{
	struct stream_message *message;
	struct wire_reader r, bytes;
	uint32_t field, type;
	int rc = stream_receive(run->stream, timeout_ms, &message);

	if (rc)
		return rc;
	r = (struct wire_reader){message->bytes, message->bytes + message->length};
	while (!rc && r.at < r.end) {
		if (!wire_tag(&r, &field, &type))
			rc = not_a_batch(run);
		else if (field != FIELD_BATCH_RESULTS || type != WIRE_BYTES)
			rc = wire_skip(&r, type) ? 0 : not_a_batch(run);
		else
			rc = wire_bytes(&r, &bytes) ? receive_result(run, bytes) : not_a_batch(run);
	}
	free(message);
	run->backoff = (struct backoff){0};
	run->lost_before = false;
	return rc;
}

/* ---- settling: what became of ops in doubt, and what of them must be sent again ---- */

static uint32_t time_to_ask(uint64_t deadline)
{
	uint32_t left = clock_left_ms(deadline);

	return left < ASK_MS ? ASK_MS : left;
}

/* A daemon that is still recovering would refuse them all. */
static int expect_serving(struct zoned_run *run, uint64_t deadline)
{
	bool serving;
	int rc = zoned_health(run->connection, "", time_to_ask(deadline), &serving);

	if (!rc && !serving)
		rc = fail(run->connection, ZONED_UNAVAILABLE, "the daemon is not ready yet");
	return rc;
}

struct question {
	struct kept_op *op;
	struct zoned_stream *call;
};

/* The op is answered, and no longer kept. */
static int release(struct zoned_run *run, struct kept_op *op, const Zoned__V1__Result *result)
{
	size_t length = zoned__v1__result__get_packed_size(result);
	uint8_t *bytes = malloc(length + 1);
	struct kept_op **at = &run->kept.first;
	struct zoned_packed_result p;
	struct wire_reader r;
	int rc;

	if (!bytes)
		return out_of_memory(run->connection);
	while (*at != op)
		at = &(*at)->next;
	list_take(&run->kept, at);
	zoned__v1__result__pack(result, bytes);
	r = (struct wire_reader){bytes, bytes + length};
	rc = read_result(r, &p) ? answer(run, op->index, r, &p) : not_a_batch(run);
	free(bytes);
	free(op);
	return rc;
}

/* Acts on what became of an op. A call that failed for good is the op's answer. */
static int conclude(struct zoned_run *run, const struct question *q)
{
	Zoned__V1__Result refusal = ZONED__V1__RESULT__INIT;
	Zoned__V1__StatusResponse *status;
	int rc = status_finish(q->call, q->op->code, &status);

	if (!rc) {
		q->op->denied = !status->taken;
		if (status->taken && !status->parked)
			rc = release(run, q->op, status->result);
		protobuf_c_message_free_unpacked(&status->base, NULL);
	} else if (rc > 0 && !may_retry(rc)) {
		refusal.code = (uint32_t)rc;
		refusal.message = run->connection->error;
		rc = release(run, q->op, &refusal);
	}
	return rc;
}

/* Asks for up to ASK_AT_ONCE ops in doubt, from *op on, which is moved behind them. */
static int ask_some(struct zoned_run *run, struct kept_op **op, uint64_t deadline)
{
	struct question asked[ASK_AT_ONCE];
	unsigned n = 0, i;
	int rc = 0, failed;

	for (; *op && n < ASK_AT_ONCE && !rc; *op = (*op)->next) {
		struct op_name name = {(*op)->machine ? (*op)->machine : run->context->machine,
				       (*op)->token, (*op)->sequence};

		/* Whoever is refused on a stream that goes on was not taken up; but for a
		 * sleeper that hears of the daemon's end, with which the stream ends, too. */
		(*op)->denied = (*op)->denied || (*op)->put_off;
		if (!(*op)->in_doubt || (*op)->denied)
			continue;
		asked[n].op = *op;
		rc = status_begin(run->connection, &name, time_to_ask(deadline), &asked[n].call);
		n += !rc;
	}
	for (i = 0; i < n; i++) {
		failed = conclude(run, &asked[i]);
		rc = rc ? rc : failed;
	}
	return rc;
}

/* Sends the first of these ops, as many as one batch may hold whose sequences follow
 * upon each other, and keeps them. */
static int resend_some(struct zoned_run *run, struct op_list *denied)
{
	uint64_t first = denied->first->sequence, nr = 0;
	struct bytes batch = {0};
	struct kept_op *op;
	int rc = 0;

	for (op = denied->first;
	     op && !rc && op->sequence == first + nr && bytes_length(&batch) < RESEND_BYTES;
	     op = op->next) {
		rc = bytes_append(&batch, op->bytes, op->length);
		nr++;
	}
	if (rc)
		out_of_memory(run->connection);
	else
		rc = send_batch(run, &batch, first);
	bytes_free(&batch);
	for (; !rc && nr; nr--) {
		op = list_take(denied, &denied->first);
		op->on_stream = run->next_on_stream++;
		op->denied = op->in_doubt = op->put_off = false;
		list_add(&run->kept, op);
	}
	return rc;
}

static int resend(struct zoned_run *run)
{
	struct kept_op **at = &run->kept.first;
	struct op_list denied;
	int rc = 0;

	list_init(&denied);
	while (*at) {
		if ((*at)->denied)
			list_add(&denied, list_take(&run->kept, at));
		else
			at = &(*at)->next;
	}
	while (!rc && denied.first)
		rc = resend_some(run, &denied);
	while (denied.first)
		list_add(&run->kept, list_take(&denied, &denied.first));
	return rc;
}

/* Removes all doubt. ZONED_AGAIN: an op still sleeps that nobody waited for; the daemon
 * will have withdrawn it soon. */
static int settle(struct zoned_run *run, uint64_t deadline)
{
	struct kept_op *op = run->kept.first;
	int rc;

	/* A daemon that takes no new calls here is left for the one that comes after it. */
	if (run->stream && run->connection->goaway)
		lose(run);
	rc = expect_serving(run, deadline);
	/* One that answers is not gone, however often it then breaks off. */
	if (!rc)
		run->backoff.give_up_ns = 0;
	while (!rc && op)
		rc = ask_some(run, &op, deadline);
	if (!rc && !run->stream) {
		run->next_on_stream = 0;
		rc = open_stream(run);
	}
	if (!rc)
		rc = resend(run);
	if (rc)
		return rc;
	for (op = run->kept.first; op; op = op->next)
		if (op->in_doubt)
			return ZONED_AGAIN;
	run->in_doubt = false;
	return 0;
}

/* ---- waiting ---- */

/* Receives; a durable run that thereby finds its stream gone is in doubt. */
static int receive(struct zoned_run *run, uint32_t timeout_ms)
{
	int rc = receive_batch(run, timeout_ms);

	if (rc == ZONED_END)
		return fail(run->connection, ZONED_PROTOCOL,
			    "the daemon ended the stream before every op was answered");
	if (!run->durable || !may_retry(rc))
		return rc;
	lose(run);
	return 0;
}

/* Answers. Whoever is lost a second time before there was one pauses, ever longer: settling
 * alone is no progress. */
static int advance_on_stream(struct zoned_run *run, uint64_t deadline)
{
	int rc = receive(run, clock_left_ms(deadline));
	bool in_time = true;

	if (rc || !run->in_doubt)
		return rc;
	if (run->lost_before)
		in_time = backoff_pause(run->connection, &run->backoff, ZONED_AGAIN, deadline);
	run->lost_before = true;
	run->backoff.give_up_ns = 0;
	return in_time || clock_left_ms(deadline) ? 0 : ZONED_AGAIN;
}

/* One step: answers, or out of doubt. ZONED_AGAIN: the time is up. */
static int advance(struct zoned_run *run, uint64_t deadline)
{
	int rc, received = 0;

	if (!run->in_doubt)
		return advance_on_stream(run, deadline);
	rc = settle(run, deadline);
	if (!rc || (!may_retry(rc) && rc != ZONED_AGAIN))
		return rc;
	/* Others may have been answered meanwhile, or the stream be gone with what failed. */
	if (run->stream)
		received = receive(run, 0);
	if (received && received != ZONED_AGAIN)
		return received;
	if (backoff_pause(run->connection, &run->backoff, rc, deadline))
		return 0;
	run->backoff = (struct backoff){0};
	return clock_left_ms(deadline) == 0 ? ZONED_AGAIN : rc;
}

int zoned_run_wait(struct zoned_run *run, uint64_t max_in_flight, uint32_t timeout_ms)
{
	uint64_t deadline = clock_deadline(timeout_ms);
	int rc = 0;

	while (!rc && (run->in_flight > max_in_flight || run->in_doubt ||
		       (timeout_ms == 0 && run->in_flight)))
		rc = advance(run, deadline);
	if (rc == ZONED_AGAIN && run->in_flight <= max_in_flight)
		return 0;
	return rc;
}

int zoned_run_finish(struct zoned_run *run)
{
	int rc = zoned_run_flush(run);

	/* On a stream that is ended nothing could be sent again. */
	if (!rc && run->durable)
		rc = zoned_run_wait(run, 0, ZONED_NO_TIMEOUT);
	if (!rc)
		rc = zoned_stream_end(run->stream);
	if (!rc)
		rc = zoned_run_wait(run, 0, ZONED_NO_TIMEOUT);
	if (!rc)
		rc = receive_batch(run, ZONED_NO_TIMEOUT);
	/* With every answer there, how the stream ends is of no interest to a durable run. */
	if (rc == ZONED_END || (run->durable && !run->in_flight && may_retry(rc)))
		rc = 0;
	zoned_run_close(run);
	return rc;
}

void zoned_run_close(struct zoned_run *run)
{
	if (!run)
		return;
	zoned_stream_close(run->stream);
	list_free(&run->kept);
	list_free(&run->filled);
	if (run->context)
		zoned__v1__op_context__free_unpacked(run->context, NULL);
	bytes_free(&run->batch);
	bump_free(&run->result);
	free(run);
}
