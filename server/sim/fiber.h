/*
 * fiber.h - a second stack, on which a long op runs so that it can stop half way.
 */
#ifndef SIM_FIBER_H
#define SIM_FIBER_H

#include <stdbool.h>

struct fiber;

/* NULL: no memory. The stack is 256 KiB with a guard page below. */
struct fiber *fiber_new(void);
void fiber_free(struct fiber *f);

/* Runs fn(arg) on the fiber until it returns or leaves. True: it returned. The fiber
 * must be idle. */
bool fiber_run(struct fiber *f, void (*fn)(void *arg), void *arg);
/* Goes on behind the last fiber_leave(). True: fn returned. */
bool fiber_continue(struct fiber *f);
/* On the fiber: back to whoever runs it. */
void fiber_leave(struct fiber *f);
/* On the fiber: back for good, as if fn had returned. */
_Noreturn void fiber_abandon(struct fiber *f);

/* Is the caller on this fiber's stack? */
bool fiber_is_running(const struct fiber *f);

#endif
