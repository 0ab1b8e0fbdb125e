/*
 * backend.h - the seam between a machine and what executes its ops.
 *
 * A back end holds up to `window` ops and executes them in order. submit() hands one
 * over and never waits; collect() says how far the oldest is. The simulation executes inside
 * collect(), slice by slice; a back end in another process answers WAITING and calls hooks->ready
 * when the result has arrived. Events and completions of the op come through the hooks or by
 * take_events(), always before DONE.
 */
#ifndef MACHINE_BACKEND_H
#define MACHINE_BACKEND_H

#include "engine.h"

enum backend_status {
	BACKEND_DONE,	 /* the result is there */
	BACKEND_MORE,	 /* not yet: collect() again after others had their turn */
	BACKEND_WAITING, /* not yet: hooks->ready will be called */
	BACKEND_LOST,	 /* gone; lost_reason() */
};

struct backend_hooks {
	void *user;
	void (*events)(void *user, const struct engine_event *events, u32 nr);
	void (*complete)(void *user, const struct engine_completion *c);
	/* Has it parked, and not been completed? For a back end that does not believe its
	 * engine; NULL: it has to. */
	bool (*is_asleep)(void *user, u64 op);
	void (*ready)(void *user); /* a result has come, or the back end was lost */
};

struct backend;
struct sim;

struct backend_type {
	u32 number;	  /* BACKEND_* of the contract */
	const char *name; /* in the history */
	u32 window;	  /* ops that it holds at once */
	/* A machine in its own RAM, booted. NULL with `why`. */
	struct backend *(*create)(const struct engine_config *config,
				  const struct backend_hooks *hooks, struct engine_error *why);
	/* A second one, equal; no op is under way. NULL: no memory. */
	struct backend *(*copy)(struct backend *b, const struct backend_hooks *hooks);
	void (*free)(struct backend *b); /* an op under way is forgotten */
	/* One that goes on from where a simulation is, which it takes over. NULL with `why`, and
	 * the simulation is gone. */
	struct backend *(*adopt)(struct sim *sim, const struct backend_hooks *hooks,
				 struct engine_error *why);
	/* op and res live until collect() says DONE or LOST. */
	void (*submit)(struct backend *b, const struct engine_op *op, struct engine_result *res);
	enum backend_status (*collect)(struct backend *b);
	/* Events since the last call, not given to hooks->events. */
	const struct engine_event *(*take_events)(struct backend *b, u32 *ret_nr);
	/* It cannot be looked into yet; hooks->ready will be called. NULL: it always can. */
	bool (*is_busy)(const struct backend *b);
	/* engine_check(), engine_inspect() and engine_digest(), while no op is under way. A
	 * broken invariant met inside: the reason, or STATUS_LOST, and lost_reason(). */
	const char *(*check)(struct backend *b, struct engine_error *why);
	u32 (*inspect)(struct backend *b, u32 question, const u64 args[OP_ARGS],
		       struct inspect_sink *sink);
	struct engine_digest (*digest)(struct backend *b);
	u64 (*resident_bytes)(const struct backend *b);
	/* NULL: it is not lost. Once it is, only this, take_events and free work. */
	const char *(*lost_reason)(const struct backend *b);
};

struct backend {
	const struct backend_type *type;
};

extern const struct backend_type backend_sim;

/* A back end around a simulation, which it takes over. NULL in, NULL out; NULL and the
 * simulation is gone without memory. */
struct backend *backend_sim_wrap(struct sim *sim);
/* The simulation inside; the back end is gone. */
struct sim *backend_sim_unwrap(struct backend *b);

#endif
