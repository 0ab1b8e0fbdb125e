/*
 * lanes.c - the ops that wait before a machine, by client.
 *
 * Invariants:
 *  1. A client has at most one lane, and a lane at least one request: the last
 *     request that leaves takes its lane with it.
 *  2. Within a lane ops are taken in the order in which they came. Between lanes
 *     it goes round, LANE_QUANTUM ops a visit, so that what one client can add to
 *     another's wait is bounded by the number of clients, not by its own queue.
 */
#include "machine_priv.h"

#include <stdlib.h>

enum { LANE_QUANTUM = 16 };

static struct machine_lane **bucket_of(struct lanes *l, uint64_t client)
{
	return &l->buckets[(client ^ client >> 6) % LANE_BUCKETS];
}

static struct machine_lane *lane_open(struct lanes *l, uint64_t client)
{
	struct machine_lane **bucket = bucket_of(l, client), *lane;

	for (lane = *bucket; lane; lane = lane->chain)
		if (lane->client == client)
			return lane;
	lane = l->spare;
	if (lane)
		l->spare = lane->chain;
	else if (!(lane = malloc(sizeof *lane)))
		abort();
	lane->client = client;
	lane->head = lane->tail = NULL;
	lane->chain = *bucket;
	*bucket = lane;
	if (l->turn) {
		/* At the end of the round: before the one whose turn it is. */
		lane->next = l->turn;
		lane->prev = l->turn->prev;
		lane->prev->next = lane->next->prev = lane;
	} else {
		l->turn = lane->next = lane->prev = lane;
		l->credit = LANE_QUANTUM;
	}
	return lane;
}

static void lane_close(struct lanes *l, struct machine_lane *lane)
{
	struct machine_lane **at = bucket_of(l, lane->client);

	while (*at != lane)
		at = &(*at)->chain;
	*at = lane->chain;
	if (l->turn == lane) {
		l->turn = lane->next == lane ? NULL : lane->next;
		l->credit = LANE_QUANTUM;
	}
	lane->prev->next = lane->next;
	lane->next->prev = lane->prev;
	lane->chain = l->spare;
	l->spare = lane;
}

void lanes_put(struct lanes *l, struct machine_request *r)
{
	struct machine_lane *lane = lane_open(l, r->client);

	r->lane = lane;
	r->next = NULL;
	r->prev = lane->tail;
	if (lane->tail)
		lane->tail->next = r;
	else
		lane->head = r;
	lane->tail = r;
	l->queued++;
}

void lanes_remove(struct lanes *l, struct machine_request *r)
{
	struct machine_lane *lane = r->lane;

	if (r->prev)
		r->prev->next = r->next;
	else
		lane->head = r->next;
	if (r->next)
		r->next->prev = r->prev;
	else
		lane->tail = r->prev;
	r->lane = NULL;
	r->next = r->prev = NULL;
	l->queued--;
	if (!lane->head)
		lane_close(l, lane);
}

struct machine_request *lanes_take(struct lanes *l)
{
	struct machine_request *r;

	if (!l->turn)
		return NULL;
	if (!l->credit) {
		l->turn = l->turn->next;
		l->credit = LANE_QUANTUM;
	}
	l->credit--;
	r = l->turn->head;
	lanes_remove(l, r);
	return r;
}

void lanes_each(struct lanes *l, void (*fn)(void *arg, struct machine_request *r), void *arg)
{
	for (unsigned i = 0; i < LANE_BUCKETS; i++) {
		struct machine_lane *lane = l->buckets[i], *after;

		for (; lane; lane = after) {
			struct machine_request *r = lane->head, *next;

			/* fn may close the lane with its last request. */
			after = lane->chain;
			for (; r; r = next) {
				next = r->next;
				fn(arg, r);
			}
		}
	}
}

void lanes_clear(struct lanes *l)
{
	while (l->spare) {
		struct machine_lane *lane = l->spare;

		l->spare = lane->chain;
		free(lane);
	}
}
