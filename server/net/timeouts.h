/*
 * timeouts.h - any number of points in time behind one uv_timer.
 *
 * A binary heap: setting and cancelling cost O(log n), which unary calls with a
 * deadline pay once each. Times are uv_hrtime() nanoseconds. A timeout never fires
 * early; it fires at most about a millisecond (libuv's resolution) late.
 */
#ifndef NET_TIMEOUTS_H
#define NET_TIMEOUTS_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

/* Lives inside what it belongs to; all zero is "not set". */
struct timeout {
	uint64_t at;
	unsigned place; /* in the heap, from 1; 0: not set */
	void (*fire)(struct timeout *timeout);
};

struct timeouts {
	uv_timer_t timer;
	struct timeout **heap; /* heap[1] is the earliest */
	unsigned nr, room;
	uint64_t armed; /* what the timer waits for; 0: nothing */
};

/* `data` of the timer stays the caller's. */
void timeouts_init(struct timeouts *timeouts, uv_loop_t *loop);
/* Sets or moves. fire() runs on the loop with the timeout no longer set. */
void timeouts_set(struct timeouts *timeouts, struct timeout *timeout, uint64_t at,
		  void (*fire)(struct timeout *timeout));
void timeouts_cancel(struct timeouts *timeouts, struct timeout *timeout);
/* After the timer is closed. */
void timeouts_free(struct timeouts *timeouts);

#endif
