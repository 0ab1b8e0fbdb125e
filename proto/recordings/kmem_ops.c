/*
 * kmem_ops.c - see kmem_ops.h.
 *
 * Events wait in a ring until it is known what they are. Invariants: sequence numbers
 * [head, tail) are in the ring, at most WINDOW of them; the frees that may turn out to be
 * announcements hang on chains by their frame, newest first: a bucket holds the sequence
 * number + 1 of its newest, each event that of the one before. A chain ends where its
 * numbers have left the ring.
 */
#include "kmem_ops.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lines.h"

enum { WINDOW = 4096, BUCKETS = 4096, MAX_SEEN = 64, MAX_CPUS = 64 };

struct waiting_event {
	struct kmem_op op;
	bool undecided, dropped;
	uint64_t older; /* of the same bucket: its sequence number + 1 */
};

struct kmem_ops {
	struct kmem_span span;
	struct kmem_counts counts;
	bool over, ended;
	bool boosts;	   /* the next allocation */
	bool boosts_stand; /* and nobody takes that back */
	/* Processes of the snapshot's name that ran before the span began. */
	uint32_t seen[MAX_SEEN], nr_seen;
	/* By CPU: the pid + 1 of the task whose last event was a batched free; 0: it was not. */
	uint32_t batch_of[MAX_CPUS];
	uint64_t head, tail;
	uint64_t newest[BUCKETS];
	struct waiting_event ring[WINDOW];
};

bool kmem_span_read(const char *folder, struct kmem_span *ret)
{
	struct lines *begin = lines_open_in(folder, "state-begin.jsonl");
	struct lines *end = lines_open_in(folder, "state-end.jsonl");
	const char *line;

	*ret = (struct kmem_span){.last_process = "insmod"};
	while (begin && (line = lines_next(begin))) {
		const char *at = strstr(line, "\"ns1\":");

		if (at)
			ret->begin_us = strtoull(at + 6, NULL, 10) / 1000;
	}
	while (end && !ret->end_us && (line = lines_next(end))) {
		const char *at = strstr(line, "\"ns0\":");

		if (at)
			ret->end_us = strtoull(at + 6, NULL, 10) / 1000;
	}
	lines_close(begin);
	lines_close(end);
	return ret->begin_us != 0;
}

struct kmem_ops *kmem_ops_new(const struct kmem_span *span)
{
	struct kmem_ops *k = calloc(1, sizeof *k);

	if (k && span)
		k->span = *span;
	return k;
}

void kmem_ops_free(struct kmem_ops *k)
{
	free(k);
}

const struct kmem_counts *kmem_ops_counts(const struct kmem_ops *k)
{
	return &k->counts;
}

/* ---- rule 2: the span ---- */

static bool was_seen(const struct kmem_ops *k, uint32_t pid)
{
	for (uint32_t i = 0; i < k->nr_seen; i++)
		if (k->seen[i] == pid)
			return true;
	return false;
}

/* Is this event inside? Ends the span when it is behind. */
static bool inside(struct kmem_ops *k, const struct kmem_event *ev)
{
	const struct kmem_span *s = &k->span;
	bool snapshot = s->last_process && strcmp(ev->comm, s->last_process) == 0;

	if (ev->time_us < s->begin_us) {
		if (snapshot && !was_seen(k, ev->pid) && k->nr_seen < MAX_SEEN)
			k->seen[k->nr_seen++] = ev->pid;
		return false;
	}
	if ((s->end_us && ev->time_us > s->end_us) || (snapshot && !was_seen(k, ev->pid)))
		k->over = true;
	return !k->over;
}

/* ---- rule 1: announcements ---- */

/* The newest free of this frame that is not decided yet; NULL: none. */
static struct waiting_event *find_undecided(struct kmem_ops *k, uint32_t pfn)
{
	uint64_t next = k->newest[pfn % BUCKETS];

	while (next > k->head) {
		struct waiting_event *w = &k->ring[(next - 1) % WINDOW];

		if (w->undecided && w->op.pfn == pfn)
			return w;
		next = w->older;
	}
	return NULL;
}

static void decide(struct kmem_ops *k, const struct kmem_event *ev)
{
	struct waiting_event *w = NULL;

	/* A fallback names a block of which its allocation may leave most. */
	if (ev->kind != KMEM_FREE && ev->kind != KMEM_EXTFRAG)
		w = find_undecided(k, ev->pfn);
	if (!w)
		return;
	w->undecided = false;
	w->dropped = ev->kind == KMEM_FREE_BATCHED;
	k->counts.announcements += w->dropped;
}

/* Is this the next free of a task's batch? What left the lists is part of one, too. */
static bool goes_on_with_batch(struct kmem_ops *k, const struct kmem_event *ev)
{
	uint32_t *of = &k->batch_of[ev->cpu % MAX_CPUS], before = *of;

	if (ev->in_irq || ev->kind == KMEM_DRAIN)
		return false;
	*of = ev->kind == KMEM_FREE_BATCHED ? ev->pid + 1 : 0;
	return *of && before == *of;
}

static void add(struct kmem_ops *k, const struct kmem_event *ev)
{
	struct waiting_event *w;

	decide(k, ev);
	w = &k->ring[k->tail++ % WINDOW];
	*w = (struct waiting_event){
	    .op = {.time_us = ev->time_us,
		   .pfn = ev->pfn,
		   .gfp = ev->gfp,
		   .cpu = (uint16_t)ev->cpu,
		   .order = (uint8_t)ev->order,
		   .is_alloc = ev->kind == KMEM_ALLOC,
		   .in_irq = ev->in_irq,
		   .depth = ev->depth,
		   .in_batch = goes_on_with_batch(k, ev),
		   .is_drain = ev->kind == KMEM_DRAIN,
		   .is_take = ev->kind == KMEM_TAKE,
		   .is_steal = ev->kind == KMEM_EXTFRAG,
		   .owned = ev->owned,
		   .migratetype = (uint8_t)ev->migratetype,
		   .boosts = ev->kind == KMEM_ALLOC && k->boosts && !k->boosts_stand},
	    .undecided = ev->kind == KMEM_FREE && ev->order == 0,
	};
	if (w->undecided) {
		w->older = k->newest[ev->pfn % BUCKETS];
		k->newest[ev->pfn % BUCKETS] = k->tail;
	}
	if (ev->kind == KMEM_ALLOC)
		k->boosts = false;
}

/* Rule 6. */
static bool is_of_lists(const struct kmem_event *ev)
{
	return ev->kind == KMEM_DRAIN || ev->kind == KMEM_TAKE ||
	       (ev->kind == KMEM_EXTFRAG && ev->told);
}

/* What ftrace says of events that it has not kept: in its head, and in between. */
static uint64_t lost_events(const char *line)
{
	unsigned long long kept, written, lost;
	const char *at = strstr(line, "[LOST ");

	if (sscanf(line, "# entries-in-buffer/entries-written: %llu/%llu", &kept, &written) == 2)
		return written > kept ? written - kept : 0;
	return at && sscanf(at, "[LOST %llu EVENTS]", &lost) == 1 ? lost : 0;
}

bool kmem_ops_line(struct kmem_ops *k, const char *line)
{
	struct kmem_event ev;

	if (k->over)
		return false;
	if (*line == '#' && strncmp(line, KMEM_BOOSTS_STAND, strlen(KMEM_BOOSTS_STAND)) == 0)
		k->boosts_stand = true;
	switch (kmem_parse(line, &ev)) {
	case KMEM_LINE_NOISE: k->counts.lost += lost_events(line); return true;
	case KMEM_LINE_WRONG: k->counts.wrong++; return true;
	case KMEM_LINE_EVENT: break;
	}
	k->counts.events++;
	if (!inside(k, &ev)) {
		k->counts.outside++;
		return !k->over;
	}
	k->counts.unknown_flags += ev.gfp_unknown;
	if (ev.kind == KMEM_EXTFRAG)
		k->counts.has_extfrag = k->boosts = true;
	k->counts.drains += ev.kind == KMEM_DRAIN;
	if (ev.kind <= KMEM_FREE_BATCHED || (k->span.with_lists && is_of_lists(&ev)))
		add(k, &ev);
	return true;
}

void kmem_ops_end(struct kmem_ops *k)
{
	k->ended = true;
}

bool kmem_ops_next(struct kmem_ops *k, struct kmem_op *ret)
{
	while (k->head < k->tail) {
		struct waiting_event *w = &k->ring[k->head % WINDOW];

		/* The ring is drained before it is full, so a place is always there. */
		if (w->undecided && !k->ended && k->tail - k->head < WINDOW)
			return false;
		k->head++;
		if (w->dropped)
			continue;
		*ret = w->op;
		return true;
	}
	return false;
}
