/*
 * past.h - machines as they were after one of their ops: time travel.
 *
 * A thread of the loop's pool makes a private simulation of the machine from the history
 * (rebuild.h), lets the caller look into it, and keeps the last few for those who ask
 * again. The machine itself is not touched and goes on. It may be of either back end,
 * running, recovering, lost or ended: what it was is in the history.
 */
#ifndef PAST_H
#define PAST_H

#include <uv.h>

#include "history.h"
#include "rebuild.h"

struct pasts;

struct pasts *pasts_new(uv_loop_t *loop, struct history *history);
/* Cancels what is under way and turns the loop until it has ended; NULL is fine. */
void pasts_free(struct pasts *ps);
/* One request. It is its owner's, and lent from past_start() until done(). */
struct past {
	/* Set by the owner. */
	uint64_t machine; /* its id */
	uint64_t op;	  /* 0: as it was after its making; REBUILD_LAST: as it is */
	/* What to do with it. In the thread, when the machine stands at `op`: look->look() is
	 * called, and has look_check(), look_inspect() and look_digest(). The rest of the
	 * look is not used; done() below takes the place of its own. NULL: nothing. */
	struct machine_look *look;
	/* Once, on the loop's thread, never from within past_start(). */
	void (*done)(struct past *p);

	/* Good in done(). Errors are those of struct rebuild, and CANCELLED. */
	enum machine_error error;
	const char *why; /* a sentence, with an error */

	/* Ours. */
	struct past *next;
	struct past_thread *thread; /* NULL: it waits */
	struct rebuild rebuild;
};

/* Any answer but OK (QUEUE: too many wait) refuses it, and done() will not be called. */
enum machine_error past_start(struct pasts *ps, struct past *p);
/* Nobody waits any more. done() comes soon, with CANCELLED unless it was over. */
void past_cancel(struct past *p);
/* In done(), without an error: the machine at `op` becomes the caller's, for a fork; its
 * owners' labels are the history's up to replica_owners(). Else it is kept for others. */
struct replica *past_take(struct past *p);

#endif
