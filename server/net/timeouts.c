/*
 * timeouts.c - a heap of points in time behind one uv_timer.
 *
 * Invariants:
 *  1. heap[i]->place == i for 1 <= i <= nr.
 *  2. heap[i / 2]->at <= heap[i]->at.
 *  3. The timer is armed for a time no later than heap[1]->at. It may be armed for an
 *     earlier one whose timeout was cancelled: then it wakes once for nothing, which is
 *     cheaper than moving it on every cancel.
 */
#include "timeouts.h"

#include <stdlib.h>
#include <string.h>

#define NS_PER_MS 1000000u

static void place(struct timeouts *t, struct timeout *timeout, unsigned at)
{
	t->heap[at] = timeout;
	timeout->place = at;
}

static void sift_up(struct timeouts *t, struct timeout *timeout, unsigned at)
{
	for (; at > 1 && t->heap[at / 2]->at > timeout->at; at /= 2)
		place(t, t->heap[at / 2], at);
	place(t, timeout, at);
}

static void sift_down(struct timeouts *t, struct timeout *timeout, unsigned at)
{
	for (;;) {
		unsigned child = at * 2;

		if (child < t->nr && t->heap[child + 1]->at < t->heap[child]->at)
			child++;
		if (child > t->nr || t->heap[child]->at >= timeout->at)
			break;
		place(t, t->heap[child], at);
		at = child;
	}
	place(t, timeout, at);
}

static void timer_cb(uv_timer_t *timer);

static void arm(struct timeouts *t)
{
	uint64_t now = uv_hrtime(), at;

	if (!t->nr || (t->armed && t->armed <= t->heap[1]->at))
		return;
	at = t->heap[1]->at;
	t->armed = at;
	/* libuv counts from the start of this turn of the loop, which may be long ago. */
	uv_update_time(t->timer.loop);
	uv_timer_start(&t->timer, timer_cb, at <= now ? 0 : (at - now + NS_PER_MS - 1) / NS_PER_MS,
		       0);
}

static void timer_cb(uv_timer_t *timer)
{
	struct timeouts *t = (struct timeouts *)timer;
	uint64_t now = uv_hrtime();

	t->armed = 0;
	while (t->nr && t->heap[1]->at <= now) {
		struct timeout *timeout = t->heap[1];

		timeouts_cancel(t, timeout);
		timeout->fire(timeout);
	}
	arm(t);
}

void timeouts_init(struct timeouts *t, uv_loop_t *loop)
{
	memset(t, 0, sizeof(*t));
	uv_timer_init(loop, &t->timer);
}

void timeouts_set(struct timeouts *t, struct timeout *timeout, uint64_t at,
		  void (*fire)(struct timeout *timeout))
{
	timeouts_cancel(t, timeout);
	if (t->nr + 1 >= t->room) {
		t->room = t->room ? t->room * 2 : 64;
		t->heap = realloc(t->heap, t->room * sizeof(*t->heap));
		if (!t->heap)
			abort();
	}
	timeout->at = at;
	timeout->fire = fire;
	sift_up(t, timeout, ++t->nr);
	arm(t);
}

void timeouts_cancel(struct timeouts *t, struct timeout *timeout)
{
	unsigned hole = timeout->place;
	struct timeout *last;

	if (!hole)
		return;
	timeout->place = 0;
	last = t->heap[t->nr--];
	if (last == timeout)
		return;
	if (hole > 1 && t->heap[hole / 2]->at > last->at)
		sift_up(t, last, hole);
	else
		sift_down(t, last, hole);
}

void timeouts_free(struct timeouts *t)
{
	free(t->heap);
	t->heap = NULL;
}
