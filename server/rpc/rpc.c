/*
 * rpc.c - the router, and what the services share.
 *
 * Invariants:
 *  1. Paths are put into the table once, at rpc_open(); routing allocates nothing.
 *  2. A call's user pointer is its question, its op or its stream, and NULL once that
 *     is gone: closed() never meets something freed.
 */
#include "rpc_priv.h"

#include <stddef.h>
#include <stdio.h>

#include "contract_tables.h"
#include "standard.h"

struct rpc rpc;

/* ---- the router ---- */

enum { ROUTES = 512 /* a power of two, several times the number of methods */ };
static const struct net_method *routes[ROUTES];
static struct net_method op_methods[OP_CODE_END];
static char op_paths[OP_CODE_END][64];

static unsigned hash_path(const char *path, size_t length)
{
	uint32_t h = 2166136261u; /* FNV-1a */

	for (size_t i = 0; i < length; i++)
		h = (h ^ (uint8_t)path[i]) * 16777619u;
	return (h ^ h >> 16) % ROUTES;
}

static void add_route(const struct net_method *method)
{
	unsigned i = hash_path(method->path, strlen(method->path));

	while (routes[i])
		i = (i + 1) % ROUTES;
	routes[i] = method;
}

const struct net_method *rpc_route(void *user, const char *path, size_t length)
{
	unsigned i = hash_path(path, length);

	(void)user;
	while (routes[i] &&
	       (strlen(routes[i]->path) != length || memcmp(routes[i]->path, path, length) != 0))
		i = (i + 1) % ROUTES;
	return routes[i];
}

static void add_routes(void)
{
	static const struct net_method *const services[] = {memory_methods, machines_methods,
							    history_methods};

	memset(routes, 0, sizeof routes);
	for (unsigned s = 0; s < sizeof services / sizeof *services; s++)
		for (const struct net_method *m = services[s]; m->path; m++)
			add_route(m);
	for (unsigned i = 0; i < HEALTH_METHODS; i++)
		add_route(&health_methods[i]);
	for (unsigned i = 0; i < REFLECTION_METHODS; i++)
		add_route(&reflection_methods[i]);
	for (uint32_t code = 1; code < OP_CODE_END; code++) {
		if (!contract_ops[code].code)
			continue;
		snprintf(op_paths[code], sizeof op_paths[code], "/zoned.v1.Memory/%s",
			 contract_ops[code].name);
		op_methods[code] = (struct net_method){
		    .path = op_paths[code],
		    .handler = &memory_op_handler,
		    .user = &contract_ops[code],
		};
		add_route(&op_methods[code]);
	}
}

void rpc_open(struct turn *turn)
{
	rpc = (struct rpc){
	    .turn = turn,
	    .machines = turn_machines(turn),
	    .history = turn_history(turn),
	};
	codec_init();
	add_routes();
}

void rpc_close(void)
{
	memory_close();
	wire_free(&rpc.scratch);
}

void rpc_flush(void)
{
	memory_flush();
}

void rpc_stop(void)
{
	history_service_stop();
}

/* ---- errors ---- */

enum net_status rpc_status(enum machine_error error)
{
	static const uint8_t status[MACHINE_E_END] = {
	    [MACHINE_OK] = NET_OK,
	    [MACHINE_E_NAME] = NET_INVALID_ARGUMENT,
	    [MACHINE_E_EXISTS] = NET_ALREADY_EXISTS,
	    [MACHINE_E_GONE] = NET_NOT_FOUND,
	    [MACHINE_E_ABORTED] = NET_ABORTED,
	    [MACHINE_E_CANCELLED] = NET_CANCELLED,
	    [MACHINE_E_CONFIG] = NET_INVALID_ARGUMENT,
	    [MACHINE_E_BACKEND] = NET_UNIMPLEMENTED,
	    [MACHINE_E_MACHINES] = NET_RESOURCE_EXHAUSTED,
	    [MACHINE_E_MEMORY] = NET_RESOURCE_EXHAUSTED,
	    [MACHINE_E_QUEUE] = NET_RESOURCE_EXHAUSTED,
	    [MACHINE_E_LABELS] = NET_RESOURCE_EXHAUSTED,
	    [MACHINE_E_BUSY] = NET_UNAVAILABLE,
	    [MACHINE_E_RECOVERING] = NET_UNAVAILABLE,
	    [MACHINE_E_FROZEN] = NET_FAILED_PRECONDITION,
	    [MACHINE_E_IS_LOST] = NET_FAILED_PRECONDITION,
	    [MACHINE_E_NOT_LOST] = NET_FAILED_PRECONDITION,
	    [MACHINE_E_FENCED] = NET_ABORTED,
	    [MACHINE_E_NO_OP] = NET_OUT_OF_RANGE,
	    [MACHINE_E_PRUNED] = NET_OUT_OF_RANGE,
	    [MACHINE_E_DISK] = NET_RESOURCE_EXHAUSTED,
	    [MACHINE_E_HISTORY] = NET_UNAVAILABLE,
	    [MACHINE_E_SHUTDOWN] = NET_UNAVAILABLE,
	};

	return (enum net_status)status[error];
}

void rpc_fail(struct net_call *call, enum machine_error error, const char *why)
{
	net_finish(call, rpc_status(error), turn_error_text(error, why));
	turn_wake(rpc.turn);
}

const char *rpc_refusal(struct machine *m, enum machine_error error)
{
	return error == MACHINE_E_IS_LOST ? machine_reason(m) : NULL;
}

int rpc_unknown_machine(char *text, size_t size, const char *name, size_t length)
{
	if (!length)
		return snprintf(text, size, "machine: not given");
	return snprintf(text, size, "machine: there is none of the name %.*s", (int)length, name);
}

struct machine *rpc_find_machine(struct net_call *call, const char *name, size_t length)
{
	struct machine *m = machines_find(rpc.machines, name, length);
	char text[128];

	if (m)
		return m;
	rpc_unknown_machine(text, sizeof text, name, length > 63 ? 63 : length);
	net_finish(call, length ? NET_NOT_FOUND : NET_INVALID_ARGUMENT, text);
	turn_wake(rpc.turn);
	return NULL;
}

static void take_id(void *arg, const struct history_machine *m)
{
	*(uint64_t *)arg = m->id;
}

bool rpc_find_past(struct net_call *call, const char *name, size_t length, uint64_t *ret_id)
{
	struct machine *m = machines_find(rpc.machines, name, length);

	*ret_id = m ? machine_id(m) : 0;
	/* One that is being made in this turn is not in the file yet. */
	if (!m && history_machine_ever(rpc.history, name, length, take_id, ret_id)) {
		rpc_fail(call, MACHINE_E_HISTORY, "the history cannot be read");
		return false;
	}
	return *ret_id || rpc_find_machine(call, name, length);
}

/* ---- clients ---- */

/* Connections have ascending numbers and there are at most a thousand or so at a
 * time, so that two of them rarely meet in a slot; when they do, one gets a second
 * row in the history. */
uint64_t rpc_client(struct net_call *call)
{
	enum { SLOTS = 4096 };
	static struct {
		uint64_t connection, client;
	} known[SLOTS];
	uint64_t connection = net_call_client(call);
	char address[40];

	if (known[connection % SLOTS].connection != connection ||
	    !known[connection % SLOTS].client) {
		snprintf(address, sizeof address, "connection %llu",
			 (unsigned long long)connection);
		known[connection % SLOTS].connection = connection;
		known[connection % SLOTS].client = turn_add_client(rpc.turn, address);
	}
	return known[connection % SLOTS].client;
}

/* ---- unary calls ---- */

static bool on_waited(struct turn_waiter *w, enum machine_error error, const char *why)
{
	struct rpc_question *q = (struct rpc_question *)w; /* its first member */

	/* Finishing a call may close it at once: closed() must not find the question. */
	net_call_set_user(q->call, NULL);
	if (!q->answer(q, error, why)) {
		net_call_set_user(q->call, q);
		return false;
	}
	if (q->is_looking)
		net_call_set_user(q->call, q);
	else
		free(q);
	return true;
}

struct rpc_question *rpc_ask(struct net_call *call, uint64_t machine,
			     bool (*answer)(struct rpc_question *q, enum machine_error error,
					    const char *why))
{
	struct rpc_question *q = calloc(1, sizeof *q);

	if (!q)
		abort();
	q->waiter.fn = on_waited;
	q->call = call;
	q->answer = answer;
	q->machine = machine;
	net_call_set_user(call, q);
	turn_wait(rpc.turn, &q->waiter);
	return q;
}

/* What a unary call's user pointer is until its message has come. */
static char no_message;

void rpc_unary_open(struct net_call *call)
{
	net_call_set_user(call, &no_message);
}

bool rpc_unary_is_waiting(struct net_call *call)
{
	return net_call_user(call) == &no_message;
}

bool rpc_unary_take(struct net_call *call)
{
	if (!rpc_unary_is_waiting(call))
		return false;
	net_call_set_user(call, NULL);
	return true;
}

void rpc_unary_half_close(struct net_call *call)
{
	if (!rpc_unary_is_waiting(call))
		return;
	net_call_set_user(call, NULL);
	net_finish(call, NET_INVALID_ARGUMENT, "a unary call without a message");
	turn_wake(rpc.turn);
}

void rpc_unary_closed(struct net_call *call, enum net_end end)
{
	struct rpc_question *q = net_call_user(call);

	(void)end;
	if (!q || rpc_unary_is_waiting(call))
		return;
	if (q->is_looking) {
		q->call = NULL;
		if (q->is_past)
			past_cancel(&q->past);
		return;
	}
	turn_unwait(rpc.turn, &q->waiter);
	free(q);
}

/* ---- looking into machines ---- */

struct rpc_question *rpc_looking(struct machine_look *l)
{
	return (struct rpc_question *)((char *)l - offsetof(struct rpc_question, look));
}

/* Nobody may be waiting any more, and there may be nothing to tell. */
static void end_look(struct rpc_question *q, struct machine *m, enum machine_error error,
		     const char *why)
{
	if (q->call) {
		net_call_set_user(q->call, NULL);
		if (error)
			rpc_fail(q->call, error, why);
		else
			q->tell(q, m);
	}
	wire_free(&q->seen.rows);
	wire_free(&q->seen.text);
	free(q);
}

static void look_done(struct machine_look *l, struct machine *m)
{
	end_look(rpc_looking(l), m, m ? MACHINE_OK : MACHINE_E_GONE, NULL);
}

static void past_done(struct past *p)
{
	struct rpc_question *q =
	    (struct rpc_question *)((char *)p - offsetof(struct rpc_question, past));

	end_look(q, NULL, p->error, p->error ? p->why : NULL);
}

/* What is seen then is nobody's but ours: `tell` is given no machine. */
static bool look_at_past(struct rpc_question *q)
{
	enum machine_error error;

	q->past.machine = q->machine;
	q->past.look = q->look.look ? &q->look : NULL;
	q->past.done = past_done;
	q->op = q->past.op;
	error = past_start(turn_pasts(rpc.turn), &q->past);
	if (error) {
		rpc_fail(q->call, error, "too many questions about the past wait; ask again later");
		return true;
	}
	q->is_looking = true;
	return true;
}

void rpc_ask_past(struct rpc_question *q, uint64_t op)
{
	q->is_past = true;
	/* The largest number stands for the last op there. */
	q->past.op = op < REBUILD_LAST ? op : REBUILD_LAST - 1;
}

bool rpc_look(struct rpc_question *q, void (*see)(struct machine_look *l),
	      void (*tell)(struct rpc_question *q, struct machine *m))
{
	struct machine *m;
	enum machine_error error;

	q->look.look = see;
	q->look.done = look_done;
	q->tell = tell;
	if (q->is_past)
		return look_at_past(q);
	m = machines_find_id(rpc.machines, q->machine);
	error = m ? turn_look(rpc.turn, m, &q->look) : MACHINE_E_GONE;
	if (error == MACHINE_E_BUSY)
		return false;
	if (error) {
		rpc_fail(q->call, error, m ? rpc_refusal(m, error) : NULL);
		return true;
	}
	q->is_looking = true;
	q->op = machine_ops(m);
	return true;
}

void rpc_reply_scratch(struct net_call *call)
{
	net_send(call, rpc.scratch.bytes, rpc.scratch.length);
	net_finish(call, NET_OK, NULL);
	turn_wake(rpc.turn);
}
