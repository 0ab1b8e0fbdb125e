/*
 * turn.h - the heart: one turn of the loop.
 *
 *   read      the loop polls; services turn messages into requests of machines
 *   execute   a slice of the queued ops, machine by machine, client by client
 *   commit    everything executed goes into the history, in one transaction
 *   reply     only now done() is called, and questions are answered; those that take
 *             a look into a machine, when a thread of the pool has taken it
 *   flush     one write per connection
 *
 * In this order, because a reply that left before its transaction was durable could
 * be a lie after a crash, and a question answered in between would show what a
 * failed commit takes back. If the commit fails nothing of the turn is acknowledged:
 * requests end with an error, and each machine that the turn touched is made again
 * from the history before its next op.
 */
#ifndef TURN_H
#define TURN_H

#include <uv.h>

#include "history.h"
#include "machine.h"

struct turn;

struct turn_options {
	uv_loop_t *loop;
	struct history *history;
	struct machines_limits limits;
	/* checkpoint.h; 0: its defaults, and nothing is forgotten. */
	uint64_t checkpoint_ops, checkpoint_seconds, retain_seconds, retain_bytes;
	/* Replies are complete: write them. */
	void (*flush)(void *user);
	/* The last machine of the history at the start has been replayed, or given up. */
	void (*recovered)(void *user);
	void *user;
};

struct turn *turn_new(const struct turn_options *options);
/* Its machines too. Nothing is committed: run turns until turn_is_idle() first. Waits for
 * looks into machines; their done() is called. */
void turn_free(struct turn *t);
struct machines *turn_machines(struct turn *t);
struct history *turn_history(struct turn *t);
struct pasts *turn_pasts(struct turn *t); /* past.h: machines as they were */

/* Takes up the machines of the history; they are RECOVERING until replayed. False
 * with a sentence if the history cannot be read. */
bool turn_start(struct turn *t, char *err, size_t err_size);
/* Something waits: run a turn after the next poll, which will not block. */
void turn_wake(struct turn *t);
/* Wall clock of this turn in nanoseconds since 1970: one stamp for all of it. */
int64_t turn_time_ns(struct turn *t);
/* No op queued, no answer owed, nothing to recover. */
bool turn_is_idle(const struct turn *t);
/* From now on nothing new is taken up: ops and machines are refused with SHUTDOWN.
 * What is queued is still executed; sleepers' callers are told to come back. */
void turn_stop(struct turn *t);
/* Checkpoints for all machines that have changed since their last, so that the next start
 * is short; then done(). The loop must go on turning until then. */
void turn_keep_machines(struct turn *t, void (*done)(void *user), void *user);
bool turn_is_stopping(const struct turn *t);

/* Machines come and go in the turn's transaction; answer from a waiter. */
enum machine_error turn_create(struct turn *t, const char *name, size_t length, uint32_t backend,
			       const struct engine_config *config, struct machine **ret,
			       struct engine_error *why);
void turn_destroy(struct turn *t, struct machine *m);
/* A second machine from the history of one, living or ended, as a replica of it is, which
 * is left empty. Answer from a waiter. */
struct replica;
enum machine_error turn_fork(struct turn *t, uint64_t from, const char *name, struct replica *r,
			     struct machine **ret, struct engine_error *why);
/* A lost machine is made again from its history; it is RECOVERING until then. */
enum machine_error turn_revive(struct turn *t, struct machine *m);
/* Queues an op: machine_submit(), and a turn to run it. */
enum machine_error turn_submit(struct turn *t, struct machine *m, struct machine_request *r);
/* Begins a look into a machine: machine_look(). In a waiter, so that what is seen is
 * committed. */
enum machine_error turn_look(struct turn *t, struct machine *m, struct machine_look *l);
/* The history's number of a client. */
uint64_t turn_add_client(struct turn *t, const char *address);

/* Called after this turn's commit with its outcome; `why` is a sentence or NULL.
 * Returning false asks to be called after the next turn again. The waiter is its
 * owner's and must live until fn returned true or turn_unwait(). */
struct turn_waiter {
	bool (*fn)(struct turn_waiter *w, enum machine_error error, const char *why);
	/* The turn's own. */
	struct turn_waiter *next, *prev;
};
void turn_wait(struct turn *t, struct turn_waiter *w);
void turn_unwait(struct turn *t, struct turn_waiter *w);

/* A sentence for people about an error; `why` if there is one. */
const char *turn_error_text(enum machine_error error, const char *why);

#endif
