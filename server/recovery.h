/*
 * recovery.h - the daemon's machines made again from the history, in threads of the pool.
 *
 * A machine that cannot be made again is lost rather than left in a state that nobody
 * saw. The loop stays free meanwhile: it says how far each machine is.
 */
#ifndef RECOVERY_H
#define RECOVERY_H

#include "history.h"
#include "machine.h"

struct recovery;

struct recovery_hooks {
	void *user;
	void (*wake)(void *user); /* a machine is back, or lost: run a turn */
	void (*idle)(void *user); /* nothing is left to recover */
};

struct recovery *recovery_new(uv_loop_t *loop, struct machines *machines, struct history *history,
			      const struct recovery_hooks *hooks);
/* Gives up what is under way and turns the loop until that has ended; NULL is fine. */
void recovery_free(struct recovery *rc);

/* Every machine of the history comes into the registry and is queued. */
int recovery_start(struct recovery *rc, char *err, size_t err_size);
/* A machine that machines_rolled_back() gave. */
void recovery_add(struct recovery *rc, struct machine *m);
/* As recovery_add(), and the machine goes on after ops that were lost at its end: they
 * keep their numbers and do nothing. */
void recovery_revive(struct recovery *rc, struct machine *m);
/* A machine ended while it was being recovered: forget it. */
void recovery_forget(struct recovery *rc, struct machine *m);
/* Tells each machine how far it is. */
void recovery_tell_progress(struct recovery *rc);
bool recovery_is_idle(const struct recovery *rc);

#endif
