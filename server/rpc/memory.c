/*
 * memory.c - the service Memory: an op by a call of its own, ops by the stream Run,
 * and what became of one.
 *
 * The way of an op: decoded (codec.h), queued before its machine, executed and
 * committed by a turn, answered by its done(). A call or stream that ends before
 * gives its ops up: those not taken up never are, a sleeper is withdrawn.
 *
 * Run:
 *  1. Its context is carried over from batch to batch. With a token and without a
 *     sequence of its own, an op has the number after that of the op before it,
 *     beginning with the context's (1 if that is 0).
 *  2. A stream holds at most RUN_HIGH ops that have not been executed and are not
 *     asleep. Beyond that, while its machine's queue has no room for streams or while
 *     OUTPUT_HIGH bytes of its answers are not written, the rest of its batch is held
 *     back and its further messages wait at the client: whoever is merely fast is
 *     slowed, not refused. The rests of all streams take at most HELD_BYTES; without
 *     room for its rest a stream is slowed no more, and the queue's limit is its answer.
 *  3. Results of one turn leave in one message, or several of about BATCH_BYTES.
 */
#include <stdio.h>
#include <sys/queue.h>

#include "contract_tables.h"
#include "rpc_priv.h"

enum {
	RUN_HIGH = 8192,
	RUN_LOW = 2048,
	OUTPUT_HIGH = 4 << 20,
	BATCH_BYTES = 256 << 10,
	HELD_BYTES = 64 << 20,
	POOL_SLAB = 64,
};

/* Fields of OpBatch, Result and ResultBatch (proto/zoned/v1/memory.proto). */
enum { BATCH_CONTEXT = 1, BATCH_OPS = 2 };
enum { RESULT_INDEX = 1, RESULT_CODE = 2, RESULT_MESSAGE = 3 };
enum { RESULTS = 1 };

struct run;

/* An op on its way. */
struct pending {
	struct machine_request request; /* first: done() casts */
	struct net_call *call;		/* of a call of its own; NULL: gone, or in a stream */
	struct run *run;		/* NULL: a call of its own */
	uint64_t index;			/* in the stream */
	void *payload;			/* what op.data points at; freed with it */
	bool asleep;			/* parked() was called */
	struct pending *next, *prev;	/* of the stream */
};

struct run {
	struct net_call *call;	/* NULL: gone; waits for its last ops */
	uint64_t client, order; /* of the call */
	struct codec_context context;
	char machine_name[MACHINE_NAME_LENGTH + 1], owner[MACHINE_LABEL_LENGTH + 1];
	/* The machine and label of the last op, good while the generation is. */
	struct machine *machine;
	struct machine_label *label;
	uint64_t generation;
	char known_machine[MACHINE_NAME_LENGTH + 1], known_owner[MACHINE_LABEL_LENGTH + 1];
	uint32_t known_machine_length, known_owner_length;
	uint64_t next_index;
	unsigned pending, asleep; /* ops; asleep are among the pending */
	bool paused, half_closed;
	struct pending *first;
	/* The ops of its batch that wait for room, and when they came; `held` is a list of
	 * the streams that have any, in the order in which they began to wait. */
	uint8_t *rest;
	struct wire_reader unread;
	uint64_t rest_arrived_ns;
	TAILQ_ENTRY(run) held;
	struct wire_buffer out;
	struct run *dirty_next; /* of those that have something in `out` */
	bool is_dirty;
};

static struct pending *pool;
static struct run *dirty_runs;
static TAILQ_HEAD(, run) held_runs = TAILQ_HEAD_INITIALIZER(held_runs);
static size_t held_bytes; /* of their rests */

/* ---- the pool: last in, first out, so that what is used is warm ---- */

struct slab {
	struct slab *next;
	struct pending items[POOL_SLAB];
};
static struct slab *slabs;

static struct pending *pending_new(void)
{
	struct pending *p = pool;

	if (!p) {
		struct slab *s = malloc(sizeof *s);

		if (!s)
			abort();
		s->next = slabs;
		slabs = s;
		for (unsigned i = 0; i < POOL_SLAB; i++) {
			s->items[i].next = pool;
			pool = &s->items[i];
		}
		p = pool;
	}
	pool = p->next;
	return p;
}

static void pending_free(struct pending *p)
{
	free(p->payload);
	p->next = pool;
	pool = p;
}

void memory_close(void)
{
	while (slabs) {
		struct slab *s = slabs;

		slabs = s->next;
		free(s);
	}
	pool = NULL;
}

/* ---- from a decoded op to a request ---- */

/* Fills the request but for machine and label. Takes the list of `op`; copies its
 * payload, because the client's bytes die when the message has been handled. */
static void fill(struct pending *p, const struct codec_op *op, uint64_t client, uint64_t order,
		 uint64_t arrived_ns)
{
	struct machine_request *r = &p->request;

	r->op.code = op->code;
	r->op.cpu = op->context.cpu;
	r->op.task = op->context.task;
	r->op.owner = 0;
	memcpy(r->op.args, op->args, sizeof r->op.args);
	r->op.data = op->data;
	r->op.data_len = op->data_len;
	r->client = client;
	r->call = order;
	r->token = op->context.token;
	r->sequence = op->context.sequence;
	r->arrived_ns = arrived_ns;
	r->error = MACHINE_OK;
	r->parked = NULL;
	p->payload = op->list;
	p->asleep = false;
	if (op->list || !op->data_len)
		return;
	p->payload = malloc(op->data_len);
	if (!p->payload)
		abort();
	memcpy(p->payload, op->data, op->data_len);
	r->op.data = p->payload;
}

/* ---- an op by a call of its own ---- */

static void call_done(struct machine_request *r)
{
	struct pending *p = (struct pending *)r;
	struct net_call *call = p->call;

	if (call) {
		net_call_set_user(call, NULL);
		if (r->error) {
			rpc_fail(call, r->error, r->why);
		} else {
			rpc.scratch.length = 0;
			codec_write_result(&rpc.scratch, r->op.code, &r->result);
			rpc_reply_scratch(call);
		}
	}
	pending_free(p);
}

static void submit_call(struct net_call *call, const struct codec_op *op)
{
	const struct codec_context *c = &op->context;
	struct machine *m = rpc_find_machine(call, c->machine, c->machine_length);
	struct machine_label *label = NULL;
	enum machine_error error = MACHINE_OK;
	struct pending *p;

	if (!m) {
		free(op->list);
		return;
	}
	if (c->owner_length && !(label = machine_find_label(m, c->owner, c->owner_length)))
		error = MACHINE_E_LABELS;
	p = pending_new();
	fill(p, op, rpc_client(call), net_call_order(call), uv_hrtime());
	p->request.label = label;
	p->request.done = call_done;
	p->call = call;
	p->run = NULL;
	if (!error)
		error = turn_submit(rpc.turn, m, &p->request);
	if (error) {
		rpc_fail(call, error, rpc_refusal(m, error));
		pending_free(p);
		return;
	}
	net_call_set_user(call, p);
}

static void call_message(struct net_call *call, const uint8_t *bytes, size_t length)
{
	const struct contract_op *info = net_call_method(call)->user;
	struct wire_reader message = {bytes, bytes + length};
	struct codec_error why;
	struct codec_op op;

	if (!rpc_unary_take(call))
		return;
	if (codec_read_op(info->code, message, NULL, &op, &why)) {
		submit_call(call, &op);
		return;
	}
	free(op.list);
	net_finish(call, NET_INVALID_ARGUMENT, why.text);
	turn_wake(rpc.turn);
}

static void call_closed(struct net_call *call, enum net_end end)
{
	struct pending *p = net_call_user(call);

	(void)end;
	if (!p || rpc_unary_is_waiting(call))
		return;
	p->call = NULL;
	machine_abandon(&p->request);
}

const struct net_handler memory_op_handler = {
    .open = rpc_unary_open,
    .message = call_message,
    .half_close = rpc_unary_half_close,
    .closed = call_closed,
};

/* ---- Run: answers ---- */

static void run_clean(struct run *run)
{
	struct run **at = &dirty_runs;

	if (!run->is_dirty)
		return;
	while (*at != run)
		at = &(*at)->dirty_next;
	*at = run->dirty_next;
	run->is_dirty = false;
}

static void run_drop_rest(struct run *run)
{
	if (!run->rest)
		return;
	TAILQ_REMOVE(&held_runs, run, held);
	held_bytes -= (size_t)(run->unread.end - run->rest);
	free(run->rest);
	run->rest = NULL;
}

static void run_free(struct run *run)
{
	run_clean(run);
	wire_free(&run->out);
	free(run);
}

/* Nobody waits for its answers any more. */
static void run_leave(struct run *run)
{
	struct pending *p, *next;

	run->call = NULL;
	run->out.length = 0;
	run_clean(run);
	run_drop_rest(run);
	for (p = run->first; p; p = next) {
		next = p->next;
		machine_abandon(&p->request);
	}
	if (!run->pending)
		run_free(run);
}

static void run_send(struct run *run)
{
	if (run->out.length)
		net_send(run->call, run->out.bytes, run->out.length);
	run->out.length = 0;
}

static void run_dirty(struct run *run)
{
	if (run->out.length >= BATCH_BYTES)
		run_send(run);
	if (run->is_dirty)
		return;
	run->is_dirty = true;
	run->dirty_next = dirty_runs;
	dirty_runs = run;
}

static void run_answer(struct run *run, uint64_t index, const struct machine_request *r)
{
	struct wire_buffer *b = &run->out;
	size_t result = wire_begin(b, RESULTS), inner;

	wire_put_integer(b, RESULT_INDEX, index);
	inner = wire_begin(b, r->op.code);
	codec_write_result(b, r->op.code, &r->result);
	wire_end(b, inner);
	wire_end(b, result);
	run_dirty(run);
}

static void run_refuse(struct run *run, uint64_t index, enum net_status code, const char *text)
{
	struct wire_buffer *b = &run->out;
	size_t result = wire_begin(b, RESULTS);

	wire_put_integer(b, RESULT_INDEX, index);
	wire_put_integer(b, RESULT_CODE, (uint64_t)code);
	wire_put_text(b, RESULT_MESSAGE, text);
	wire_end(b, result);
	run_dirty(run);
	turn_wake(rpc.turn);
}

/* Reads on when there is room again, and ends the stream after its last answer. */
static void run_settle(struct run *run)
{
	if (run->paused && !run->rest && run->pending - run->asleep <= RUN_LOW &&
	    net_queued(run->call) < OUTPUT_HIGH) {
		run->paused = false;
		net_resume(run->call);
	}
	if (run->half_closed && !run->pending) {
		struct net_call *call = run->call;

		run_send(run);
		net_call_set_user(call, NULL);
		run_free(run);
		net_finish(call, NET_OK, NULL);
	}
}

static void run_done(struct machine_request *r)
{
	struct pending *p = (struct pending *)r;
	struct run *run = p->run;

	if (p->prev)
		p->prev->next = p->next;
	else
		run->first = p->next;
	if (p->next)
		p->next->prev = p->prev;
	run->pending--;
	run->asleep -= p->asleep;
	if (!run->call) {
		if (!run->pending)
			run_free(run);
	} else if (r->error) {
		run_refuse(run, p->index, rpc_status(r->error), turn_error_text(r->error, r->why));
	} else {
		run_answer(run, p->index, r);
	}
	pending_free(p);
}

static void run_parked(struct machine_request *r)
{
	struct pending *p = (struct pending *)r;

	p->asleep = true;
	p->run->asleep++;
	/* It is out of the stream's budget: there may be room to read now. */
	if (p->run->call)
		run_dirty(p->run);
}

/* ---- Run: batches ---- */

static bool same(const char *a, uint32_t a_length, const char *b, uint32_t b_length)
{
	return a_length == b_length && memcmp(a, b, a_length) == 0;
}

/* Finds the machine and label of an op; almost always those of the op before it. */
static enum machine_error run_find(struct run *run, const struct codec_context *c)
{
	bool fresh = run->machine && run->generation == machines_generation(rpc.machines);

	if (!fresh ||
	    !same(c->machine, c->machine_length, run->known_machine, run->known_machine_length)) {
		run->machine = machines_find(rpc.machines, c->machine, c->machine_length);
		run->generation = machines_generation(rpc.machines);
		run->label = NULL;
		run->known_owner_length = 0;
		if (!run->machine)
			return MACHINE_E_GONE;
		memcpy(run->known_machine, c->machine, c->machine_length);
		run->known_machine_length = c->machine_length;
	}
	if (same(c->owner, c->owner_length, run->known_owner, run->known_owner_length))
		return MACHINE_OK;
	run->label = machine_find_label(run->machine, c->owner, c->owner_length);
	run->known_owner_length = 0;
	if (!run->label)
		return c->owner_length ? MACHINE_E_LABELS : MACHINE_OK;
	memcpy(run->known_owner, c->owner, c->owner_length);
	run->known_owner_length = c->owner_length;
	return MACHINE_OK;
}

/* May a stream that has so much under way read on? */
static bool run_is_full(const struct run *run)
{
	return run->pending - run->asleep >= RUN_HIGH || net_queued(run->call) >= OUTPUT_HIGH;
}

/* False: the machine's queue has no room for it and the stream can wait; nothing has
 * changed. Else the op is queued or refused, and op->list is no longer the caller's. */
static bool run_submit(struct run *run, uint64_t index, const struct codec_op *op,
		       uint64_t arrived_ns, bool can_wait)
{
	enum machine_error error = run_find(run, &op->context);
	struct pending *p;
	char text[128];

	if (error == MACHINE_E_GONE) {
		rpc_unknown_machine(text, sizeof text, op->context.machine,
				    op->context.machine_length);
		run_refuse(run, index,
			   op->context.machine_length ? NET_NOT_FOUND : NET_INVALID_ARGUMENT, text);
		free(op->list);
		return true;
	}
	if (can_wait && !machine_has_room(run->machine))
		return false;
	p = pending_new();
	fill(p, op, run->client, run->order, arrived_ns);
	p->request.label = run->label;
	p->request.done = run_done;
	p->request.parked = run_parked;
	p->call = NULL;
	p->run = run;
	p->index = index;
	if (!error)
		error = turn_submit(rpc.turn, run->machine, &p->request);
	if (error) {
		run_refuse(run, index, rpc_status(error),
			   turn_error_text(error, rpc_refusal(run->machine, error)));
		pending_free(p);
		return true;
	}
	p->prev = NULL;
	p->next = run->first;
	if (run->first)
		run->first->prev = p;
	run->first = p;
	run->pending++;
	return true;
}

/* False as of run_submit(). */
static bool run_op(struct run *run, struct wire_reader message, uint64_t arrived_ns, bool can_wait)
{
	uint64_t sequence = run->context.sequence;
	struct wire_reader inner;
	struct codec_error why;
	struct codec_op op;
	uint32_t code;
	bool ok;

	/* Of the rest nothing is looked at before codec_read_op() has set it. */
	op.context.sequence = sequence;
	op.list = NULL;
	ok = codec_read_choice(message, &code, &inner, &why) &&
	     codec_read_op(code, inner, &run->context, &op, &why);

	if (ok && !run_submit(run, run->next_index, &op, arrived_ns, can_wait)) {
		free(op.list);
		return false;
	}
	if (!ok) {
		free(op.list);
		run_refuse(run, run->next_index, NET_INVALID_ARGUMENT, why.text);
	}
	if (run->context.token && op.context.sequence == sequence)
		run->context.sequence++;
	run->next_index++;
	return true;
}

/* Keeps what a batch's context says for this batch and those to come. */
static bool run_context(struct run *run, struct wire_reader message, struct codec_error *why)
{
	struct codec_context c = {0};

	if (!codec_read_context(message, &c, why))
		return false;
	if (c.machine_length)
		memcpy(run->machine_name, c.machine, c.machine_length);
	if (c.owner_length)
		memcpy(run->owner, c.owner, c.owner_length);
	c.machine = run->machine_name;
	c.owner = run->owner;
	if (c.token && !c.sequence)
		c.sequence = 1;
	run->context = c;
	return true;
}

/* The context, which may stand behind the ops that it is for, and whether the batch is
 * whole: none of its ops is taken else. */
static bool run_begin(struct run *run, struct wire_reader batch, struct codec_error *why)
{
	while (batch.at < batch.end) {
		struct wire_reader inner;
		uint32_t field, type;
		bool ok = wire_tag(&batch, &field, &type);

		if (ok && field == BATCH_CONTEXT && type == WIRE_BYTES) {
			ok = wire_bytes(&batch, &inner);
			if (ok && !run_context(run, inner, why))
				return false;
		} else if (ok) {
			ok = wire_skip(&batch, type);
		}
		if (!ok) {
			snprintf(why->text, sizeof why->text, "the batch is malformed");
			return false;
		}
	}
	return true;
}

/* The ops of a batch that run_begin() has seen, until there are none or, if it can wait,
 * there is no room: the batch then begins with the first that was not taken. */
static void run_take(struct run *run, struct wire_reader *batch, uint64_t arrived_ns, bool can_wait)
{
	while (batch->at < batch->end && !(can_wait && run_is_full(run))) {
		struct wire_reader at = *batch, inner;
		uint32_t field, type;
		bool ok = wire_tag(&at, &field, &type);

		if (ok && field == BATCH_OPS && type == WIRE_BYTES) {
			ok = wire_bytes(&at, &inner);
			if (ok && !run_op(run, inner, arrived_ns, can_wait))
				return;
		} else if (ok) {
			ok = wire_skip(&at, type);
		}
		/* run_begin() has seen that all of it is. */
		if (!ok)
			at = (struct wire_reader){batch->end, batch->end};
		*batch = at;
	}
}

/* Keeps what is left of a batch. False: there is no room for it. */
static bool run_hold(struct run *run, struct wire_reader batch, uint64_t arrived_ns)
{
	size_t length = (size_t)(batch.end - batch.at);

	if (length > HELD_BYTES - held_bytes || !(run->rest = malloc(length)))
		return false;
	memcpy(run->rest, batch.at, length);
	run->unread = (struct wire_reader){run->rest, run->rest + length};
	run->rest_arrived_ns = arrived_ns;
	held_bytes += length;
	TAILQ_INSERT_TAIL(&held_runs, run, held);
	return true;
}

static void run_take_rest(struct run *run)
{
	run_take(run, &run->unread, run->rest_arrived_ns, true);
	if (run->unread.at == run->unread.end)
		run_drop_rest(run);
}

/* At the end of a turn, which made room: those that wait for some go on in the order in
 * which they came. Then what the turn filled is sent, in one message a stream. */
void memory_flush(void)
{
	struct run *run, *next;

	for (run = TAILQ_FIRST(&held_runs); run; run = next) {
		next = TAILQ_NEXT(run, held);
		run_take_rest(run);
		run_settle(run);
	}
	while (dirty_runs) {
		run = dirty_runs;
		dirty_runs = run->dirty_next;
		run->is_dirty = false;
		run_send(run);
		run_settle(run);
	}
}

static void run_open(struct net_call *call)
{
	struct run *run = calloc(1, sizeof *run);

	if (!run)
		abort();
	run->call = call;
	run->client = rpc_client(call);
	run->order = net_call_order(call);
	run->context.machine = run->machine_name;
	run->context.owner = run->owner;
	net_call_set_user(call, run);
}

static void run_message(struct net_call *call, const uint8_t *bytes, size_t length)
{
	struct wire_reader batch = {bytes, bytes + length};
	struct run *run = net_call_user(call);
	uint64_t now = uv_hrtime();
	struct codec_error why;

	if (!run)
		return;
	if (!run_begin(run, batch, &why)) {
		run_send(run);
		net_call_set_user(call, NULL);
		run_leave(run);
		net_finish(call, NET_INVALID_ARGUMENT, why.text);
		turn_wake(rpc.turn);
		return;
	}
	run_take(run, &batch, now, true);
	if (batch.at < batch.end && !run_hold(run, batch, now))
		run_take(run, &batch, now, false);
	if (run->rest || run_is_full(run)) {
		run->paused = true;
		net_pause(call);
	}
}

static void run_half_close(struct net_call *call)
{
	struct run *run = net_call_user(call);

	if (!run)
		return;
	run->half_closed = true;
	run_dirty(run);
	turn_wake(rpc.turn);
}

static void run_writable(struct net_call *call)
{
	struct run *run = net_call_user(call);

	if (!run)
		return;
	if (run->rest)
		run_take_rest(run);
	run_settle(run);
}

static void run_closed(struct net_call *call, enum net_end end)
{
	struct run *run = net_call_user(call);

	(void)end;
	if (run)
		run_leave(run);
}

static const struct net_handler run_handler = {
    .open = run_open,
    .message = run_message,
    .half_close = run_half_close,
    .writable = run_writable,
    .closed = run_closed,
};

/* ---- Status ---- */

enum { STATUS_MACHINE = 1, STATUS_TOKEN = 2, STATUS_SEQUENCE = 3 };
enum { STATUS_IS_TAKEN = 1, STATUS_IS_PARKED = 2, STATUS_RESULT = 3 };

static void write_status(struct wire_buffer *b, const struct history_record *h, bool parked)
{
	struct engine_result result = {.op = h->op, .status = h->status};
	size_t outer, inner;

	memcpy(result.values, h->values, sizeof result.values);
	wire_put_integer(b, STATUS_IS_TAKEN, 1);
	wire_put_integer(b, STATUS_IS_PARKED, parked);
	outer = wire_begin(b, STATUS_RESULT);
	inner = wire_begin(b, h->code);
	codec_write_result(b, h->code, &result);
	wire_end(b, inner);
	wire_end(b, outer);
}

/* After the commit the history knows every op that was taken up. One that is neither
 * there nor in the queue gets a fence, so that the answer stays true: a call begun before
 * this one brings it in vain. One begun later may bring it again. An op that had parked
 * and has no completion sleeps as long as its machine has not been replayed, too. */
static bool answer_status(struct rpc_question *q, enum machine_error error, const char *why)
{
	struct machine *m = machines_find_id(rpc.machines, q->machine);
	struct history_record record;
	bool forgotten = false;
	int failed;

	if (error || !m) {
		rpc_fail(q->call, error ? error : MACHINE_E_GONE, why);
		return true;
	}
	failed = history_find_token(rpc.history, q->machine, q->token, q->sequence, &record);
	if (!failed && !record.op)
		failed = history_token_forgotten(rpc.history, q->machine, q->token, q->sequence,
						 &forgotten);
	if (failed) {
		net_finish(q->call, NET_INTERNAL, "the history cannot be read");
		return true;
	}
	if (forgotten) {
		net_finish(q->call, NET_OUT_OF_RANGE,
			   "the machine's first ops are forgotten, and this may be one of them");
		return true;
	}
	if (!record.op && machine_fence(m, q->token, q->sequence, net_call_order(q->call)))
		return false;
	rpc.scratch.length = 0;
	if (record.op)
		write_status(&rpc.scratch, &record,
			     machine_is_parked(m, record.op) ||
				 (record.status == STATUS_PARKED &&
				  machine_status(m) == MACHINE_RECOVERING));
	rpc_reply_scratch(q->call);
	return true;
}

static void status_message(struct net_call *call, const uint8_t *bytes, size_t length)
{
	struct wire_reader message = {bytes, bytes + length}, name = {NULL, NULL};
	uint64_t token = 0, sequence = 0;
	struct rpc_question *q;
	struct machine *m;

	if (!rpc_unary_take(call))
		return;
	while (message.at < message.end) {
		uint32_t field, type;
		bool ok = wire_tag(&message, &field, &type);

		if (ok && field == STATUS_MACHINE && type == WIRE_BYTES)
			ok = wire_bytes(&message, &name);
		else if (ok && field == STATUS_TOKEN && type == WIRE_VARINT)
			ok = wire_varint(&message, &token);
		else if (ok && field == STATUS_SEQUENCE && type == WIRE_VARINT)
			ok = wire_varint(&message, &sequence);
		else if (ok)
			ok = wire_skip(&message, type);
		if (!ok) {
			net_finish(call, NET_INVALID_ARGUMENT, "the message is malformed");
			turn_wake(rpc.turn);
			return;
		}
	}
	if (!token) {
		net_finish(call, NET_INVALID_ARGUMENT, "token: not given");
		turn_wake(rpc.turn);
		return;
	}
	m = rpc_find_machine(call, (const char *)name.at, (size_t)(name.end - name.at));
	if (!m)
		return;
	q = rpc_ask(call, machine_id(m), answer_status);
	q->token = token;
	q->sequence = sequence;
}

static const struct net_handler status_handler = {
    .open = rpc_unary_open,
    .message = status_message,
    .half_close = rpc_unary_half_close,
    .closed = rpc_unary_closed,
};

const struct net_method memory_methods[] = {
    {.path = "/zoned.v1.Memory/Run", .handler = &run_handler},
    {.path = "/zoned.v1.Memory/Status", .handler = &status_handler},
    {.path = NULL},
};
