/*
 * past.c - see past.h.
 *
 * Invariants:
 *  1. PAST_THREADS requests are under way at most, each with a reader of its own, so that
 *     the pool has threads for others; the rest wait in the order in which they came, as
 *     many as PAST_QUEUE.
 *  2. A replica is in the cache or with one request. The cache has CACHE_MAX of them and
 *     CACHE_BYTES at most; the one not used for longest goes first.
 *  3. A request takes from the cache what is nearest before its op. Who goes forward goes
 *     on from there; who goes back begins anew.
 */
#include "past.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	PAST_THREADS = 2,
	PAST_QUEUE = 64,
	CACHE_MAX = 4,
	CACHE_BYTES = 256 << 20,
};

struct past_thread {
	uv_work_t work;
	struct pasts *pasts;
	struct history_reader *reader; /* opened with the first request */
	struct past *past;	       /* NULL: free */
	struct replica *replica;       /* while done() is called */
};

struct cached {
	uint64_t machine;
	uint64_t bytes;
	uint64_t used;		 /* when: a count */
	struct replica *replica; /* NULL: free */
};

struct pasts {
	uv_loop_t *loop;
	struct history *history;
	struct past_thread threads[PAST_THREADS];
	struct past *waiting, *waiting_last;
	unsigned nr_waiting;
	struct cached cache[CACHE_MAX];
	uint64_t clock;
};

/* ---- the cache ---- */

static struct replica *cache_take(struct pasts *ps, uint64_t machine, uint64_t op)
{
	struct cached *best = NULL;
	struct replica *replica;

	for (unsigned i = 0; i < CACHE_MAX; i++) {
		struct cached *c = &ps->cache[i];

		if (c->replica && c->machine == machine && replica_op(c->replica) <= op &&
		    (!best || replica_op(c->replica) > replica_op(best->replica)))
			best = c;
	}
	if (!best)
		return NULL;
	replica = best->replica;
	best->replica = NULL;
	return replica;
}

static void cache_drop(struct cached *c)
{
	replica_free(c->replica);
	c->replica = NULL;
}

/* The one that was not used for longest, or a free one. */
static struct cached *cache_oldest(struct pasts *ps)
{
	struct cached *best = &ps->cache[0];

	for (unsigned i = 0; i < CACHE_MAX; i++) {
		struct cached *c = &ps->cache[i];

		if (!c->replica)
			return c;
		if (c->used < best->used)
			best = c;
	}
	return best;
}

static void cache_put(struct pasts *ps, uint64_t machine, struct replica *replica)
{
	struct cached *c = cache_oldest(ps);
	uint64_t bytes = 0;

	cache_drop(c);
	*c = (struct cached){machine, replica_resident(replica), ++ps->clock, replica};
	for (unsigned i = 0; i < CACHE_MAX; i++)
		bytes += ps->cache[i].replica ? ps->cache[i].bytes : 0;
	/* One alone that is too large is not kept either. */
	for (unsigned i = 0; i < CACHE_MAX && bytes > CACHE_BYTES; i++) {
		struct cached *other = &ps->cache[i];

		if (!other->replica || (other == c && bytes != c->bytes))
			continue;
		bytes -= other->bytes;
		cache_drop(other);
	}
	if (bytes > CACHE_BYTES)
		cache_drop(c);
}

/* ---- a request ---- */

static void run(uv_work_t *work)
{
	struct past_thread *t = work->data;
	struct past *p = t->past;
	struct rebuild *b = &p->rebuild;

	if (!t->reader &&
	    history_reader_open(t->pasts->history, &t->reader, b->why, sizeof b->why)) {
		b->error = MACHINE_E_HISTORY;
		return;
	}
	rebuild_run(b, t->reader);
	if (b->error || !p->look)
		return;
	p->look->backend = replica_backend(b->replica);
	p->look->look(p->look);
	/* Looking can find what an op would have run into. */
	if (!replica_lost_reason(b->replica))
		return;
	b->error = MACHINE_E_IS_LOST;
	snprintf(b->why, sizeof b->why, "%s", replica_lost_reason(b->replica));
	replica_free(b->replica);
	b->replica = NULL;
}

static void pump(struct pasts *ps);

static void over(uv_work_t *work, int status)
{
	struct past_thread *t = work->data;
	struct pasts *ps = t->pasts;
	struct past *p = t->past;
	uint64_t machine = p->machine;

	(void)status; /* Nobody cancels it in the pool. */
	t->replica = p->rebuild.replica;
	p->error = p->rebuild.error;
	p->why = p->rebuild.why;
	p->done(p);
	/* The request may be gone; what it did not take is for others. */
	t->past = NULL;
	if (t->replica)
		cache_put(ps, machine, t->replica);
	t->replica = NULL;
	pump(ps);
}

static void begin(struct pasts *ps, struct past_thread *t, struct past *p)
{
	struct replica *start = cache_take(ps, p->machine, p->op);

	p->rebuild.machine = p->machine;
	p->rebuild.op = p->op;
	p->rebuild.replica = start;
	p->thread = t;
	t->past = p;
	t->pasts = ps;
	t->work.data = t;
	/* It refuses nothing but a missing function. */
	if (uv_queue_work(ps->loop, &t->work, run, over))
		abort();
}

/* Gives waiting requests to free threads. */
static void pump(struct pasts *ps)
{
	for (unsigned i = 0; i < PAST_THREADS && ps->waiting; i++) {
		struct past *p = ps->waiting;

		if (ps->threads[i].past)
			continue;
		ps->waiting = p->next;
		ps->nr_waiting--;
		begin(ps, &ps->threads[i], p);
	}
}

enum machine_error past_start(struct pasts *ps, struct past *p)
{
	if (ps->nr_waiting == PAST_QUEUE)
		return MACHINE_E_QUEUE;
	p->next = NULL;
	p->thread = NULL;
	p->error = MACHINE_OK;
	p->why = "";
	memset(&p->rebuild, 0, sizeof p->rebuild);
	if (ps->waiting)
		ps->waiting_last->next = p;
	else
		ps->waiting = p;
	ps->waiting_last = p;
	ps->nr_waiting++;
	pump(ps);
	return MACHINE_OK;
}

void past_cancel(struct past *p)
{
	/* One that waits still gets its thread, and ends at once. */
	atomic_store(&p->rebuild.cancelled, true);
}

struct replica *past_take(struct past *p)
{
	struct replica *replica = p->thread->replica;

	p->thread->replica = NULL;
	return replica;
}

/* ---- made and ended ---- */

struct pasts *pasts_new(uv_loop_t *loop, struct history *history)
{
	struct pasts *ps = calloc(1, sizeof *ps);

	if (!ps)
		abort();
	ps->loop = loop;
	ps->history = history;
	return ps;
}

static bool is_idle(const struct pasts *ps)
{
	for (unsigned i = 0; i < PAST_THREADS; i++)
		if (ps->threads[i].past)
			return false;
	return !ps->waiting;
}

void pasts_free(struct pasts *ps)
{
	if (!ps)
		return;
	for (struct past *p = ps->waiting; p; p = p->next)
		past_cancel(p);
	for (unsigned i = 0; i < PAST_THREADS; i++)
		if (ps->threads[i].past)
			past_cancel(ps->threads[i].past);
	while (!is_idle(ps))
		uv_run(ps->loop, UV_RUN_ONCE);
	for (unsigned i = 0; i < CACHE_MAX; i++)
		cache_drop(&ps->cache[i]);
	for (unsigned i = 0; i < PAST_THREADS; i++)
		history_reader_close(ps->threads[i].reader);
	free(ps);
}
