/*
 * lanes.c - the ops that wait before a machine, by client.
 *
 * A visit takes up to QUANTUM ops of one lane: the answers of one client's ops leave
 * together, and what they cost is mostly what a message costs. A client that had nothing
 * here and comes with an op does not wait for all the others' visits: new lanes have a round
 * of their own, of short visits, and the two rounds are visited in turn.
 *
 * Invariants:
 *  1. A client has at most one lane, and a lane at least one request: the last
 *     request that leaves takes its lane with it.
 *  2. Within a lane ops are taken in the order in which they came. Each round goes from
 *     lane to lane, and a lane that has had its visit in the new one goes on in the old one.
 *     So what one client can add to another's wait is bounded by the number of clients, not
 *     by its own queue, and no number of new lanes can keep an old one from its visit.
 *  3. `visited` is in its round's list.
 */
#include "machine_priv.h"

#include <stdlib.h>

enum { QUANTUM = 128, NEW_QUANTUM = 16 };

void lanes_init(struct lanes *l)
{
	TAILQ_INIT(&l->round[false]);
	TAILQ_INIT(&l->round[true]);
}

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
	lane->is_old = false;
	TAILQ_INSERT_TAIL(&l->round[false], lane, link);
	return lane;
}

static void lane_close(struct lanes *l, struct machine_lane *lane)
{
	struct machine_lane **at = bucket_of(l, lane->client);

	while (*at != lane)
		at = &(*at)->chain;
	*at = lane->chain;
	if (l->visited == lane)
		l->visited = NULL;
	TAILQ_REMOVE(&l->round[lane->is_old], lane, link);
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

/* The lane visited goes to the end of the old round, and the first of the other round is
 * next, or of the same if that one is empty. There is a lane. */
static void next_visit(struct lanes *l)
{
	struct machine_lane *lane = l->visited;

	if (lane) {
		TAILQ_REMOVE(&l->round[lane->is_old], lane, link);
		lane->is_old = true;
		TAILQ_INSERT_TAIL(&l->round[true], lane, link);
	}
	l->is_old = !l->is_old;
	if (TAILQ_EMPTY(&l->round[l->is_old]))
		l->is_old = !l->is_old;
	l->visited = TAILQ_FIRST(&l->round[l->is_old]);
	l->credit = l->is_old ? QUANTUM : NEW_QUANTUM;
}

struct machine_request *lanes_take(struct lanes *l)
{
	struct machine_request *r;

	if (!l->queued)
		return NULL;
	if (!l->visited || !l->credit)
		next_visit(l);
	l->credit--;
	r = l->visited->head;
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
