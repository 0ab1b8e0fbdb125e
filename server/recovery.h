/*
 * recovery.h - machines made again from the history, in slices between turns.
 *
 * Each op is executed as it was recorded, and its status and values are compared
 * with the recorded ones; a difference loses the machine rather than letting it go
 * on from a state that nobody saw. A fork replays its ancestors' ops up to where it
 * left them, and then its own.
 */
#ifndef RECOVERY_H
#define RECOVERY_H

#include "history.h"
#include "machine.h"

struct recovery;

/* `idle` is called when nothing is left to recover. */
struct recovery *recovery_new(struct machines *machines, struct history *history,
			      void (*idle)(void *user), void *user);
void recovery_free(struct recovery *rc); /* NULL is fine */

/* Every machine of the history comes into the registry and is queued. */
int recovery_start(struct recovery *rc, char *err, size_t err_size);
/* A machine that machines_rolled_back() gave. */
void recovery_add(struct recovery *rc, struct machine *m);
/* As recovery_add(), and the machine goes on after ops that were lost at its end: they
 * keep their numbers and do nothing. */
void recovery_revive(struct recovery *rc, struct machine *m);
/* A machine ended while it was being recovered: forget it. */
void recovery_forget(struct recovery *rc, struct machine *m);
/* hooks->replayed. */
void recovery_replayed(struct recovery *rc, struct machine *m, struct machine_request *r);
/* Reads what is to be replayed next. True: something was queued or finished. */
bool recovery_step(struct recovery *rc);
bool recovery_is_idle(const struct recovery *rc);

#endif
