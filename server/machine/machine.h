/*
 * machine.h - the machines that the daemon hosts, and the queue of ops before each.
 *
 * A machine has a name, an id that is never reused, a back end (backend.h) and a
 * queue. Requests wait in lanes, one for each client; machines_run() takes them up
 * in turn, so that neither a machine nor a client can hold another one back. What
 * was executed is told to the hooks at once and to the request's done() only when
 * the turn that executed it is over: the daemon's turn decides when (turn.h).
 *
 * Ownership: a request belongs to whoever submitted it, and is lent to the machine
 * from machine_submit() until done(), which is called exactly once. A machine
 * belongs to the registry; pointers to it die when machines_generation() changes.
 * Everything happens on the loop's thread and nothing blocks, but for an op's own
 * time, which is bounded by what the engine does between two yields. Only looking
 * into a machine is done elsewhere (machine_look).
 */
#ifndef MACHINE_H
#define MACHINE_H

#include <uv.h>

#include "engine.h"

struct backend;
struct machine;
struct machines;
struct machine_lane;
struct machine_label;

/* The contract's MachineState, number by number (proto/zoned/v1/machines.proto). */
enum machine_status {
	MACHINE_EARLY = 1,
	MACHINE_RUNNING = 2,
	MACHINE_RECOVERING = 3,
	MACHINE_LOST = 4,
	MACHINE_FROZEN = 5,
};

/* Why a request or a machine was refused. What a machine answers is no error: that
 * is a status in the result. */
enum machine_error {
	MACHINE_OK = 0,
	MACHINE_E_NAME,	      /* not [A-Za-z0-9._-]{1,63} */
	MACHINE_E_EXISTS,     /* the name is taken */
	MACHINE_E_GONE,	      /* destroyed before the op was taken up */
	MACHINE_E_ABORTED,    /* destroyed or lost while the op slept; it is recorded */
	MACHINE_E_CANCELLED,  /* given up before it was taken up (machine_abandon) */
	MACHINE_E_CONFIG,     /* the engine refused the configuration */
	MACHINE_E_BACKEND,    /* no such back end in this daemon */
	MACHINE_E_MACHINES,   /* as many machines as the daemon hosts */
	MACHINE_E_MEMORY,     /* the machine's or the daemon's share of memory is used up */
	MACHINE_E_QUEUE,      /* the machine's queue is full */
	MACHINE_E_LABELS,     /* as many owner labels as a machine keeps */
	MACHINE_E_BUSY,	      /* an op is half done; ask again after the next turn */
	MACHINE_E_RECOVERING, /* it is being replayed */
	MACHINE_E_FROZEN,     /* a snapshot takes no ops */
	MACHINE_E_IS_LOST,    /* machine_reason() */
	MACHINE_E_NOT_LOST,   /* there is nothing to revive */
	MACHINE_E_FENCED,     /* Status was asked since, and said that it was not taken up */
	MACHINE_E_NO_OP,      /* the machine has not come to that op */
	MACHINE_E_PRUNED,     /* the history has no longer what led to that op */
	MACHINE_E_DISK,	      /* the history cannot take ops: disk reserve or WAL limit */
	MACHINE_E_HISTORY,    /* the commit failed: the op did not happen */
	MACHINE_E_SHUTDOWN,   /* the daemon is going down */
	MACHINE_E_END,
};

enum {
	MACHINE_NAME_LENGTH = 63,
	MACHINE_LABEL_LENGTH = 63,
	MACHINE_REASON_LENGTH = 256,
};

struct machines_limits {
	unsigned machines;	   /* 0: 1024 */
	unsigned queue;		   /* ops waiting before one machine, >= 2; 0: 65536 */
	unsigned labels;	   /* owner labels of one machine; 0: 65536 */
	uint64_t machine_resident; /* bytes of one machine; 0: no limit but the whole */
	uint64_t resident;	   /* bytes of the process; 0: three quarters of the host's RAM */
};

enum machine_request_state {
	REQUEST_FREE, /* its owner's */
	REQUEST_QUEUED,
	REQUEST_RUNNING,
	REQUEST_PARKED,
	REQUEST_ENDED, /* done() comes after the commit */
};

/* One op on its way. The submitter sets the first part. */
struct machine_request {
	struct engine_op op;	     /* data must live until the op is executed; owner: see label */
	struct machine_label *label; /* NULL: op.owner stands as it is */
	uint64_t client;	  /* the history's number of it; its lane. 0: the daemon itself */
	uint64_t token, sequence; /* 0: none */
	uint64_t call;		  /* that brought it; what a client called later is greater */
	uint64_t arrived_ns;	  /* uv_hrtime() */
	/* After the commit, or with `error`. The request is its owner's again. */
	void (*done)(struct machine_request *r);
	/* After the commit: the op sleeps, done() comes later. May be NULL. */
	void (*parked)(struct machine_request *r);

	/* Set by the machine; good in done(). result.data dies after done(). */
	struct engine_result result;
	uint64_t latency_ns; /* from arrival to execution */
	enum machine_error error;
	const char *why; /* with error, a sentence, or NULL */

	/* The machine's and the turn's own. */
	enum machine_request_state state;
	bool abandoned; /* nobody waits for it */
	bool listed;	/* on the turn's list */
	struct machine *machine;
	struct machine_lane *lane;
	struct machine_request *next, *prev, *turn_next, *turn_prev;
};

/* What happens in machines, told while it happens. */
struct machines_hooks {
	void *user;
	/* Snapshot and Fork copy RAM in a thread of its pool, while other machines go on.
	 * NULL: they copy at once. */
	uv_loop_t *loop;
	/* A back end has something for us: call machines_run() soon. */
	void (*ready)(void *user);
	/* A label was used for the first time and has this number now. */
	void (*labelled)(void *user, struct machine *m, uint32_t number, const char *label);
	/* A machine came to be by Snapshot or Fork: returns its id. */
	uint64_t (*copied)(void *user, struct machine *from, uint64_t at_op, struct machine *copy);
	/* An op was executed; its row and its events. */
	void (*executed)(void *user, struct machine *m, struct machine_request *r,
			 const struct engine_event *events, uint32_t nr_events);
	/* A parked op ended inside the op woken_by. */
	void (*completed)(void *user, struct machine *m, uint64_t woken_by,
			  const struct engine_completion *c);
	/* It is LOST now, for machine_reason(), and machine_ops() are in effect. */
	void (*lost)(void *user, struct machine *m);
	/* A request is over; its done() is the hook's to call. Its machine may be gone by
	 * then. */
	void (*ended)(void *user, struct machine_request *r);
};

struct machines *machines_new(const struct machines_limits *limits,
			      const struct machines_hooks *hooks);
void machines_free(struct machines *ms); /* with its machines, none looked into; NULL is fine */

/* Changes whenever a machine goes away. */
uint64_t machines_generation(const struct machines *ms);
/* A machine by name or id, or NULL. Ended ones are not found. */
struct machine *machines_find(struct machines *ms, const char *name, size_t length);
struct machine *machines_find_id(struct machines *ms, uint64_t id);
/* Calls fn for each in order of id. */
void machines_each(struct machines *ms, void (*fn)(void *arg, struct machine *m), void *arg);
unsigned machines_count(const struct machines *ms);
/* Looks at how much memory is in use; the limits hold what was last seen. Several
 * times a second, while ops are executed. */
void machines_measure(struct machines *ms);

/* Makes a machine; the events of its boot are given back until the next call on
 * it. The caller sets its id. It is fresh until machines_committed(). */
enum machine_error machines_create(struct machines *ms, const char *name, size_t length,
				   uint32_t backend, const struct engine_config *config,
				   struct machine **ret, struct engine_error *why);
const struct engine_event *machine_boot_events(struct machine *m, uint32_t *ret_nr);
/* Ends a machine. Ops in its queue end with GONE, parked ones with ABORTED. It can
 * no longer be found; it is freed by machines_committed(). */
void machines_destroy(struct machines *ms, struct machine *m);

/* Executes ops until there are none, max_ops are done or uv_hrtime() has passed
 * deadline_ns. True: there is more to do now. */
bool machines_run(struct machines *ms, unsigned max_ops, uint64_t deadline_ns);
bool machines_have_work(const struct machines *ms); /* ... to do now */
/* Ends every queued request but the daemon's own. */
void machines_refuse_queued(struct machines *ms, enum machine_error error, const char *why);
/* Ends every parked request; the ops stay parked. */
void machines_release_parked(struct machines *ms, enum machine_error error, const char *why);

/* The turn's transaction is durable: fresh machines stay, ended ones are freed. */
void machines_committed(struct machines *ms);
/* The turn's transaction is void: fresh machines are freed, ended ones are back, and
 * each that was touched is empty, RECOVERING, and given to fn. */
void machines_rolled_back(struct machines *ms, void (*fn)(void *arg, struct machine *m), void *arg);

/* ---- one machine ---- */

uint64_t machine_id(const struct machine *m);
void machine_set_id(struct machine *m, uint64_t id);
const char *machine_name(const struct machine *m);
enum machine_status machine_status(const struct machine *m);
const char *machine_backend(const struct machine *m);	  /* "sim" */
uint32_t machine_backend_number(const struct machine *m); /* BACKEND_* */
const struct engine_config *machine_config(const struct machine *m);
bool machine_is_snapshot(const struct machine *m);
uint64_t machine_ops(const struct machine *m); /* number of the last op */
uint32_t machine_parked(const struct machine *m);
uint64_t machine_resident(const struct machine *m);  /* bytes */
const char *machine_reason(const struct machine *m); /* of LOST; else "" */
int64_t machine_created_ns(const struct machine *m);
void machine_set_created_ns(struct machine *m, int64_t time_ns);

/* A look into a machine, in a thread of the loop's pool. The machine takes up no op
 * meanwhile; others do. The look is its owner's, and lives until done(). */
struct machine_look {
	/* In the thread. Has look_check() and its like, and nothing else of this room. */
	void (*look)(struct machine_look *l);
	/* On the loop's thread. Without a machine if it was destroyed, or is made again
	 * after a failed commit: then what was seen is worth nothing. */
	void (*done)(struct machine_look *l, struct machine *m);
	bool found_lost; /* in done(): it met a broken invariant; the machine is LOST */

	/* The machine's own. */
	uv_work_t work;
	struct machine *machine;
	struct backend *backend;
	bool owns_backend, owns_machine; /* nobody else does any more */
};
/* Begins a look, between turns. BUSY: an op is half done, or others are looking; ask
 * again after the next turn. Any answer but OK: done() will not be called. */
enum machine_error machine_look(struct machine *m, uv_loop_t *loop, struct machine_look *l);
/* Copies for Snapshot or Fork that are not in a turn yet. */
unsigned machines_copying(const struct machines *ms);
/* Looks under way; a loop with any must not be left by machines_free(). */
unsigned machines_looked_into(const struct machines *ms);
/* engine_check(), engine_inspect() and the digest. */
const char *look_check(struct machine_look *l, struct engine_error *why);
uint32_t look_inspect(struct machine_look *l, uint32_t question, const u64 args[OP_ARGS],
		      struct inspect_sink *sink);
struct engine_digest look_digest(struct machine_look *l);

/* Finds or makes an owner's label. It gets its number when an op that carries it is
 * taken up. NULL: as many as there may be. Length 0: NULL too, and no label. */
struct machine_label *machine_find_label(struct machine *m, const char *text, size_t length);
const char *machine_label_text(struct machine *m, uint32_t number); /* "" when unknown */
/* As the history has it. */
enum machine_error machine_set_label(struct machine *m, uint32_t number, const char *text);

/* Queues an op. Any answer but OK: refused, done() will not be called. */
enum machine_error machine_submit(struct machine *m, struct machine_request *r);
/* Whoever can wait submits while this holds: then half of the queue is left to those who
 * cannot. True too of a machine that takes no ops, which it says when asked. */
bool machine_has_room(const struct machine *m);
/* Whoever waited for this request is gone. Queued: it ends, never taken up. Parked:
 * it is withdrawn, by an op. Executed: it stays. done() is called all the same. */
void machine_abandon(struct machine_request *r);
/* Is this op asleep? */
bool machine_is_parked(struct machine *m, uint64_t op);
/* Is an op with this token queued or running? If not, none up to `sequence` that a call
 * before `call` brings will be taken up any more: who asked may send it again. The fences
 * of the last 1024 tokens are kept. */
bool machine_fence(struct machine *m, uint64_t token, uint64_t sequence, uint64_t call);

/* ---- recovery: a machine RECOVERING takes nothing but this ---- */

struct replica;

/* A machine as the history has it: without RAM until machine_adopt(). */
enum machine_error machines_restore(struct machines *ms, uint64_t id, const char *name,
				    const char *backend, const struct engine_config *config,
				    bool snapshot, int64_t created_ns, struct machine **ret);
/* A LOST machine becomes RECOVERING, without RAM. */
void machine_revive(struct machine *m);
/* How far its replay is, and how far it goes: machine_ops() then. */
void machine_set_progress(struct machine *m, uint64_t replayed, uint64_t ops);
uint64_t machine_replayed(const struct machine *m); /* 0 unless RECOVERING */
/* Goes on from where a replica is, which is left empty; the caller frees it. Machine
 * sleepers are those of the replica. Any answer but OK: `why`. */
enum machine_error machine_adopt(struct machine *m, struct replica *r, struct engine_error *why);
/* A machine of this turn, as machines_create() makes it, that goes on from where a replica
 * is; the replica is left empty. The caller sets its id and labels, and then calls
 * machine_recovered(). */
enum machine_error machines_fork(struct machines *ms, const char *name, size_t length,
				 const char *backend, const struct engine_config *config,
				 struct replica *r, struct machine **ret, struct engine_error *why);
/* All is replayed: from here on it takes ops. Parked ops without a request are
 * withdrawn, unless it is a snapshot. */
void machine_recovered(struct machine *m);
/* It cannot go on: LOST, with the reason. Looked into it can be if `sane`. */
void machine_lose(struct machine *m, bool sane, const char *reason);

/* Is the last word on this kind of op the daemon's and not the engine's (Snapshot,
 * Fork: the name may be taken)? */
bool machine_decides(uint32_t code);

bool machine_name_valid(const char *name, size_t length);

#endif
