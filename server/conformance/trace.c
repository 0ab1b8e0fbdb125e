/*
 * trace.c - a trace of a real workload, from the exact allocator state at its beginning:
 * every allocation gets the frame that Linux gave.
 *
 * The ops are played and timed. What the trace cannot tell is a rule, and where a frame then
 * differs, guesses are tried: the one that goes furthest is adopted, and if none goes further
 * the difference stands. Each is counted in the report:
 *
 *  - When kswapd took a boost back: at once, by rule 3 of kmem_ops.h. This process can see
 *    the zones' boosts, so it need not rely on mm_page_alloc_extfrag having been recorded.
 *    It may have come later: the boost given last is kept, and taken back before the first
 *    op that differs because of that.
 *  - An interrupt may come between taking a block and writing that down: its own events are
 *    then before an allocation that happened earlier. That one is tried before them.
 *  - An interrupt that finds its CPU's lists locked frees to the buddy, past them. Told: it
 *    came in the middle of a batch of frees in that zone, or the buddy gave the block next
 *    and no list was drained of it. Else a block that this machine has drained and Linux has
 *    not is suspected: all of them at once, one interrupt's, and the one that an allocation
 *    got here. When all agrees but for drains, too.
 *  - Each CPU keeps up to a threshold of a zone's count of free pages to itself; its
 *    statistics' worker adds that about once a second. Where an allocation gets a frame of
 *    another zone, it is tried to have come before it, or one of the ops just before. With
 *    several CPUs that have come and gone that may be too little: then the zone's count is
 *    taken to be what the allocation shows, as far as the CPUs may keep the rest.
 *  - A pageblock that a request takes blocks from becomes one of the request's type if enough
 *    of it is alike. Linux asks which of its frames can be moved: those on an LRU list, which
 *    no event tells. mm_page_alloc_extfrag tells how it ended, and that is followed.
 *  - A block that Linux drained, and that is still the oldest of its list here after the op
 *    before that event, was drained by something that is no op of this trace (drain_all_pages()
 *    of reclaim, compaction or hotplug). It goes to the buddy then, in the trace's order.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "trace.h"

enum {
	MAX_MOVED = 64,
	MAX_PAST_LISTS = 256,
	MAX_GROUPS = 16,
	FOLD_REACH = 32, /* ops that are tried */
	FOLD_LOOK = 512, /* ops that they are looked for among */
	MAX_GUESSES = 2048,
	/* So many ops before a difference the machine is kept, to try from there. */
	KEPT_BEFORE = 4096,
	KEPT_FOR = 65536,
};

enum guess_kind {
	GUESS_PAST_LISTS, /* these frees went past the lists */
	GUESS_BEFORE,	  /* the allocation at `at` was before the interrupt that begins at `to` */
	GUESS_FOLD,	  /* the statistics' worker of the CPUs `to` came before op `at` */
	GUESS_SHIFT,	  /* `shift` pages were not with the CPUs, but in the zone's count */
	GUESS_HOLD,	  /* kswapd left the boost that op `at` gave */
	GUESS_RELEASE,	  /* and took it back before op `at` */
};

struct guess {
	enum guess_kind kind;
	size_t at, to;
	struct shift shift;
	const size_t *frees;
	u32 nr_frees;
};

struct guesses {
	struct guess guess[MAX_GUESSES];
	u32 nr;
	size_t frees[TRACE_MAX_SUSPECTS + 1]; /* suspects; the last one is an allocation's */
};

/* A machine to try from, and how the play went until there. */
struct kept {
	const char *folder; /* of the trace */
	struct box *b;	    /* NULL: none is kept */
	struct trace_course course;
};

static u64 now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (u64)now.tv_sec * 1000000000 + (u64)now.tv_nsec;
}

/* ---- a guess made, and taken back ---- */

/* Puts op `from` before op `to`, which is not behind it. */
static void move_op(struct trace *t, size_t from, size_t to)
{
	struct trace_op op = t->ops[from];

	memmove(&t->ops[to + 1], &t->ops[to], (from - to) * sizeof op);
	t->ops[to] = op;
}

/* And back. */
static void move_op_back(struct trace *t, size_t from, size_t to)
{
	struct trace_op op = t->ops[to];

	memmove(&t->ops[to], &t->ops[to + 1], (from - to) * sizeof op);
	t->ops[from] = op;
}

static void make(struct trace *t, const struct guess *g)
{
	switch (g->kind) {
	case GUESS_PAST_LISTS:
		for (u32 i = 0; i < g->nr_frees; i++)
			t->ops[g->frees[i]].past_lists = true;
		t->nr_past_lists += g->nr_frees;
		break;
	case GUESS_BEFORE:
		move_op(t, g->at, g->to);
		t->nr_moved++;
		break;
	case GUESS_FOLD:
		t->ops[g->at].folds |= (u32)g->to;
		t->nr_folds++;
		break;
	case GUESS_SHIFT:
		t->ops[g->at].shift = g->shift;
		t->nr_shifts++;
		break;
	case GUESS_HOLD: t->holds[t->nr_holds++] = (struct hold){g->at, SIZE_MAX}; break;
	case GUESS_RELEASE: t->holds[t->nr_holds - 1].release = g->at; break;
	}
}

static void unmake(struct trace *t, const struct guess *g)
{
	switch (g->kind) {
	case GUESS_PAST_LISTS:
		for (u32 i = 0; i < g->nr_frees; i++)
			t->ops[g->frees[i]].past_lists = false;
		t->nr_past_lists -= g->nr_frees;
		break;
	case GUESS_BEFORE:
		move_op_back(t, g->at, g->to);
		t->nr_moved--;
		break;
	case GUESS_FOLD:
		t->ops[g->at].folds &= ~(u32)g->to;
		t->nr_folds--;
		break;
	case GUESS_SHIFT:
		t->ops[g->at].shift = (struct shift){0};
		t->nr_shifts--;
		break;
	case GUESS_HOLD: t->nr_holds--; break;
	case GUESS_RELEASE: t->holds[t->nr_holds - 1].release = SIZE_MAX; break;
	}
}

/* ---- what may be guessed at a difference ---- */

static void add(struct guesses *all, struct guess g)
{
	if (all->nr < MAX_GUESSES)
		all->guess[all->nr++] = g;
}

static void add_past_lists(struct guesses *all, const struct trace *t, const size_t *frees, u32 nr)
{
	if (nr && t->nr_past_lists + nr <= MAX_PAST_LISTS)
		add(all, (struct guess){GUESS_PAST_LISTS, .frees = frees, .nr_frees = nr});
}

/* Where the events of an interrupt begin that are right before this op of a task; its own
 * place if there are none. */
static size_t before_interrupt(const struct trace *t, size_t at)
{
	size_t to = at;

	if (!t->ops[at].op.is_alloc || t->ops[at].op.in_irq)
		return at;
	while (to > 0 && t->ops[to - 1].op.in_irq && t->ops[to - 1].op.cpu == t->ops[at].op.cpu)
		to--;
	return to;
}

/* The last free of this block, if an interrupt made it and it went the usual way; SIZE_MAX:
 * there is none. */
static size_t freed_by_interrupt(const struct trace *t, size_t at, pfn_t pfn)
{
	while (at-- > 0) {
		const struct trace_op *o = &t->ops[at];

		if (o->op.pfn == pfn)
			return o->op.in_irq && !o->op.is_alloc && !o->past_lists && !o->left_list
				   ? at
				   : SIZE_MAX;
	}
	return SIZE_MAX;
}

/* Is there nothing of a task between these two ops of interrupts? */
static bool is_one_interrupt(const struct trace *t, size_t from, size_t to)
{
	for (size_t i = from; i <= to; i++)
		if (t->ops[i].op.cpu != t->ops[to].op.cpu || !t->ops[i].op.in_irq)
			return false;
	return true;
}

/* One interrupt's suspects after another's, from the newest on. */
static void add_interrupts(struct guesses *all, const struct trace *t, u32 nr)
{
	const size_t *frees = all->frees;

	for (u32 end = nr, groups = 0; end > 0 && groups < MAX_GROUPS; groups++) {
		u32 first = end - 1;

		while (first > 0 && is_one_interrupt(t, frees[first - 1], frees[end - 1]))
			first--;
		if (end - first < nr)
			add_past_lists(all, t, &frees[first], end - first);
		end = first;
	}
}

/* The worker of these CPUs (a bit each), which may have come just before: before this op, or
 * before one of the last that they executed themselves. */
static void add_folds(struct guesses *all, const struct trace *t, size_t at, u32 cpus)
{
	for (u32 back = 0, nr = 0; back < FOLD_LOOK && back <= at && nr < FOLD_REACH; back++) {
		const struct trace_op *o = &t->ops[at - back];

		if (o->folds & cpus)
			return;
		if (back && !(cpus >> o->op.cpu % 32 & 1))
			continue;
		add(all, (struct guess){GUESS_FOLD, .at = at - back, .to = cpus});
		nr++;
	}
}

/* If no worker explains it alone: the count that it needs, as the CPUs may keep other parts. */
static void add_shifts(struct guesses *all, const struct trace *t, size_t at)
{
	const struct trace_difference *d = &t->difference;
	struct shift shift = d->least;

	if (!d->between_zones || t->ops[at].shift.pages)
		return;
	for (; shift.pages * d->least.pages <= d->most.pages * d->least.pages;
	     shift.pages += d->least.pages)
		add(all, (struct guess){GUESS_SHIFT, .at = at, .shift = shift});
}

static void add_boosts(struct guesses *all, const struct trace *t, size_t at)
{
	const struct hold *last = t->nr_holds ? &t->holds[t->nr_holds - 1] : NULL;
	size_t given = t->course.last_boost;

	if (last && last->release == SIZE_MAX) {
		if (at > last->given + 1)
			add(all, (struct guess){GUESS_RELEASE, .at = at});
	} else if (given != SIZE_MAX && t->nr_holds < TRACE_MAX_HOLDS &&
		   (!last || given >= last->release)) {
		add(all, (struct guess){GUESS_HOLD, .at = given});
	}
}

static void collect(struct guesses *all, const struct trace *t, size_t at)
{
	const struct trace_difference *d = &t->difference;
	size_t to = before_interrupt(t, at), freed = freed_by_interrupt(t, at, d->given);

	all->nr = 0;
	memcpy(all->frees, d->suspect, sizeof d->suspect);
	all->frees[TRACE_MAX_SUSPECTS] = freed;
	add_past_lists(all, t, all->frees, d->nr_suspects);
	add_past_lists(all, t, &all->frees[TRACE_MAX_SUSPECTS], freed != SIZE_MAX);
	if (to != at && t->nr_moved < MAX_MOVED)
		add(all, (struct guess){GUESS_BEFORE, .at = at, .to = to});
	for (u32 cpu = 0; d->between_zones && cpu < t->layout.cpus; cpu++)
		add_folds(all, t, at, 1U << cpu);
	if (d->between_zones && t->layout.cpus > 1)
		add_folds(all, t, at, UINT32_MAX >> (32 - t->layout.cpus));
	add_boosts(all, t, at);
	add_interrupts(all, t, d->nr_suspects);
}

/* ---- trying ---- */

/* The first op that this guess makes another one. */
static size_t first_of(const struct guess *g)
{
	size_t first = SIZE_MAX;

	switch (g->kind) {
	case GUESS_PAST_LISTS:
		for (u32 i = 0; i < g->nr_frees; i++)
			first = g->frees[i] < first ? g->frees[i] : first;
		return first;
	case GUESS_BEFORE: return g->to;
	case GUESS_RELEASE: return g->at - 1;
	case GUESS_FOLD:
	case GUESS_SHIFT:
	case GUESS_HOLD: return g->at;
	}
	return 0;
}

/* A machine in which the trace was played until before op `from`, or before an earlier one;
 * the course is set to it. */
static struct box *machine_before(struct trace *t, struct kept *k, size_t from)
{
	struct conformance_report unused = {0};

	if (k->b && k->course.op <= from) {
		t->course = k->course;
		return box_copy(k->b);
	}
	trace_start(t);
	return trace_box(k->folder, &unused);
}

static void forget(struct kept *k)
{
	box_free(k->b);
	k->b = NULL;
}

/* Most guesses concern ops just before the difference: a machine is kept from there. */
static void keep_before(struct trace *t, struct kept *k, size_t at)
{
	const struct trace_course course = t->course;
	const struct trace_difference difference = t->difference;
	struct conformance_report unused = {0};
	size_t to = at > KEPT_BEFORE ? at - KEPT_BEFORE : 0;
	struct box *b;

	if (k->b && k->course.op <= to && k->course.op + KEPT_FOR > at)
		return;
	b = machine_before(t, k, to);
	forget(k);
	if (b && trace_play(t, b, to, &unused) == to) {
		k->b = b;
		k->course = t->course;
	} else {
		box_free(b);
	}
	t->course = course;
	t->difference = difference;
}

/* Plays a machine of its own; true if that went further, and then it is what counts. */
static bool goes_further(struct trace *t, struct kept *k, const struct guess *g,
			 struct conformance_report *r)
{
	const struct trace_course course = t->course;
	const struct trace_difference difference = t->difference;
	struct conformance_report again = {0};
	struct box *b = machine_before(t, k, first_of(g));
	size_t agreed = b ? trace_play(t, b, t->nr, &again) : 0;

	box_free(b);
	if (agreed <= r->agreed) {
		t->course = course;
		t->difference = difference;
		return false;
	}
	r->agreed = agreed;
	memcpy(r->difference, again.difference, sizeof r->difference);
	return true;
}

/* The guess that goes furthest; NULL: none goes further. */
static const struct guess *find_best(struct trace *t, const struct guesses *all, struct kept *k,
				     struct conformance_report *r)
{
	const struct guess *best = NULL;

	for (u32 i = 0; i < all->nr && r->agreed < t->nr; i++) {
		make(t, &all->guess[i]);
		if (goes_further(t, k, &all->guess[i], r))
			best = &all->guess[i];
		unmake(t, &all->guess[i]);
	}
	return best;
}

/* Tries what the trace does not tell at its first difference, and adopts it. False: nothing
 * helped. */
static bool goes_otherwise(struct trace *t, struct guesses *all, struct kept *k,
			   struct conformance_report *r)
{
	const struct guess *best;

	collect(all, t, r->agreed);
	keep_before(t, k, r->agreed);
	best = find_best(t, all, k, r);
	if (!best) {
		all->nr = 0;
		add_shifts(all, t, r->agreed);
		best = find_best(t, all, k, r);
	}
	if (!best)
		return false;
	make(t, best);
	if (k->b && first_of(best) < k->course.op)
		forget(k);
	return true;
}

/* All agrees, but for drains: an interrupt's free past the lists may have shown in nothing
 * else. Taken so if it agrees still, with fewer drains to follow. */
static void drain_as_recorded(struct trace *t, struct guesses *all, struct kept *k,
			      struct conformance_report *r)
{
	const struct trace_course course = t->course;

	all->nr = 0;
	memcpy(all->frees, t->difference.suspect, sizeof t->difference.suspect);
	add_past_lists(all, t, all->frees, t->difference.nr_suspects);
	if (!all->nr)
		return;
	make(t, all->guess);
	r->agreed--;
	if (goes_further(t, k, all->guess, r) && r->agreed == t->nr &&
	    t->course.followed < course.followed)
		return;
	unmake(t, all->guess);
	t->course = course;
	r->agreed = t->nr;
	*r->difference = 0;
}

void trace_play_as_recorded(struct trace *t, struct box *first, const char *folder,
			    struct conformance_report *r)
{
	struct guesses *all = calloc(1, sizeof *all);
	struct kept k = {.folder = folder};
	u64 start = now_ns();

	trace_start(t);
	r->agreed = trace_play(t, first, t->nr, r);
	r->play_ns = now_ns() - start;
	t->tries = true;
	while (all && r->agreed < t->nr && goes_otherwise(t, all, &k, r))
		;
	if (all && r->agreed == t->nr && t->course.followed)
		drain_as_recorded(t, all, &k, r);
	forget(&k);
	free(all);
}

/* What was played, and each rule and guess that mattered. */
static void note_course(const struct trace *t, struct conformance_report *r)
{
	const struct {
		u64 count;
		const char *what;
	} rows[] = {
	    {t->course.boosts, "boosts taken back at once"},
	    {t->nr_holds, "boosts taken back later"},
	    {t->course.awake, "times kswapd was awake"},
	    {t->course.retyped, "pageblocks of the type that is told"},
	    {t->nr_told_past_lists, "frees past the CPU's lists told"},
	    {t->nr_past_lists, "frees past the CPU's lists found"},
	    {t->nr_moved, "allocations before an interrupt's events"},
	    {t->nr_folds, "times counts were added"},
	    {t->nr_shifts, "times they were other counts"},
	    {t->course.followed, "drains of something else followed"},
	};

	note(r, "%" PRIu64 " allocations, %" PRIu64 " frees (%" PRIu64 " of frames from before)",
	     t->allocs, t->frees, t->unknown);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		if (rows[i].count)
			note(r, "%" PRIu64 " %s", rows[i].count, rows[i].what);
}

void check_trace(const char *path, struct conformance_report *r)
{
	struct trace t = {0};
	char text[4096], folder[4096];
	struct box *b;

	find_trace(path, text, sizeof text);
	folder_of(text, folder, sizeof folder);
	b = trace_box(folder, r);
	if (b && trace_begin(&t, b) && trace_read(&t, path, r)) {
		r->compared = t.nr;
		trace_play_as_recorded(&t, b, folder, r);
		note_course(&t, r);
	}
	trace_end(&t);
	box_free(b);
}
