/*
 * pkmap.c - the kmap window: slots, who holds them, and who sleeps for one.
 *
 *          kmap                 kunmap of the last user
 *   0 ------------> 2, 3, ... ------------------------> 1
 *   ^ free            in use          kmap of the       | mapped, without users
 *   |                      ^-------- same frame --------|
 *   +--------------- flush, when the search wraps ------+
 *
 * Invariants:
 *  1. A slot's count is 1 + the sum of its holders' counts, or 0 or 1 with none. It
 *     maps pfn[slot], whose descriptor names it, unless it is 0.
 *  2. `used` is the number of counts above 1.
 *  3. While anyone sleeps, every slot is in use, and not every holder sleeps.
 *  4. A holder is a task, or 0: the kernel's own contexts, and tasks that are gone. Each
 *     is once in a slot's list, the one who came first in the slot itself.
 *
 * The search is that of Linux's map_new_virtual(): it goes on from where the last
 * one ended, flushes when it comes to slot 0, gives up after a whole window, and so
 * leaves `last` at the end. Linux wakes every sleeper at a kunmap and leaves who
 * comes first to the scheduler; here it is who came first, and those for whom
 * nothing is left sleep on. Anyone may kunmap, as there.
 */
#include "pkmap.h"

#include "../event.h"
#include "../frames/slab.h"
#include "../ops.h"
#include "use.h"
#include "window.h"

#define NO_SLOT 0xffffffffu

static struct pkmap_state *pkmap(struct engine *e)
{
	return &e->st->map.pkmap;
}

static u32 nr_slots(const struct engine *e)
{
	return e->st->layout.pkmap_slots;
}

static va_t slot_va(const struct engine *e, u32 slot)
{
	return e->st->layout.pkmap_start + (slot << PAGE_SHIFT);
}

/* ---- holders ---- */

struct pkmap_holder *pkmap_holder_next(struct engine *e, const struct pkmap_holder *h)
{
	return h->next ? at(e, h->next) : NULL;
}

/* The holder of this task in a slot's list; NULL: none. */
static struct pkmap_holder *holder_of(struct engine *e, u32 slot, u32 task)
{
	struct pkmap_holder *h = &pkmap(e)->holder[slot];

	while (h && !(h->count && h->task == task))
		h = pkmap_holder_next(e, h);
	return h;
}

static void count_holding(struct engine *e, u32 task, u32 by)
{
	if (task)
		task_find(e, task)->holdings += by;
}

/* A new holder at the end of a slot's list; NULL: no memory. */
static struct pkmap_holder *holder_add(struct engine *e, u32 slot, u32 task)
{
	struct pkmap_holder *last = &pkmap(e)->holder[slot];
	ref_t ref;

	if (!last->count) {
		last->task = task;
		return last;
	}
	ref = slab_alloc(e, SLAB_HOLDER);
	if (!ref)
		return NULL;
	while (last->next)
		last = at(e, last->next);
	last->next = ref;
	last = at(e, ref);
	last->task = task;
	return last;
}

/* One use more, of one who is not the first of the slot's holders. */
static __attribute__((noinline)) u32 hold_too(struct engine *e, u32 slot, u32 task)
{
	struct pkmap_holder *h = holder_of(e, slot, task);

	if (!h)
		h = holder_add(e, slot, task);
	if (!h)
		return STATUS_NO_MEMORY;
	h->count++;
	count_holding(e, task, 1);
	return STATUS_OK;
}

/* A kernel context that is the first holder, or the only one, is found at once. */
static ALWAYS_INLINE u32 hold(struct engine *e, struct pkmap_state *pk, u32 slot, u32 task)
{
	struct pkmap_holder *first = &pk->holder[slot];

	if (__builtin_expect((task | first->task) != 0, 0))
		return hold_too(e, slot, task);
	first->count++;
	return STATUS_OK;
}

/* Takes a holder out of its slot's list. The second takes the first's place. */
static void holder_drop(struct engine *e, u32 slot, struct pkmap_holder *gone)
{
	struct pkmap_holder *h = &pkmap(e)->holder[slot];
	ref_t object = h->next;

	if (h == gone) {
		*h = object ? *pkmap_holder_next(e, h) : (struct pkmap_holder){0};
	} else {
		while (at(e, h->next) != gone)
			h = at(e, h->next);
		object = h->next;
		h->next = gone->next;
	}
	if (object)
		slab_free(e, SLAB_HOLDER, object);
}

static __attribute__((noinline)) void release_any(struct engine *e, u32 slot, u32 task)
{
	struct pkmap_holder *h = holder_of(e, slot, task);

	if (!h)
		h = &pkmap(e)->holder[slot];
	count_holding(e, h->task, (u32)-1);
	if (!--h->count)
		holder_drop(e, slot, h);
}

/* Takes one use back: the caller's own if it has one, else that of who has been
 * holding longest. */
static ALWAYS_INLINE void release(struct engine *e, struct pkmap_state *pk, u32 slot, u32 task)
{
	struct pkmap_holder *first = &pk->holder[slot];

	if (__builtin_expect((task | first->task | first->next) != 0, 0))
		release_any(e, slot, task);
	else
		first->count--; /* of a kernel context, and nobody else */
}

/* ---- slots ---- */

static void flush(struct engine *e)
{
	struct pkmap_state *pk = pkmap(e);
	va_t va = slot_va(e, 0);
	u32 freed = 0, nr = nr_slots(e);

	for (u32 slot = 0; slot < nr; slot++, va += PAGE_SIZE) {
		pfn_t pfn = pk->pfn[slot];

		if (pk->count[slot] != 1)
			continue;
		pk->count[slot] = 0;
		pk->pfn[slot] = 0;
		page_of(e, pfn)->slot = 0;
		freed++;
		window_clear(e, e->pkmap_ptes, va, pfn, WINDOW_PKMAP);
	}
	pk->flushes++;
	event_pkmap_flush(e, freed, pk->used);
	if (freed)
		tlb_flush(e, tlb_all_cpus(e), slot_va(e, 0), nr, FLUSH_PKMAP);
}

/* Finds a free slot. NO_SLOT: all are in use. */
static __attribute__((noinline)) u32 search(struct engine *e)
{
	struct pkmap_state *pk = pkmap(e);

	for (u32 left = nr_slots(e); left; left--) {
		pk->last = (pk->last + 1) & (nr_slots(e) - 1);
		if (!pk->last) {
			flush(e);
			left = nr_slots(e); /* a whole window from here, once */
		}
		if (!pk->count[pk->last])
			return pk->last;
	}
	return NO_SLOT;
}

/* Mostly the next one is free. */
static inline u32 find_free(struct engine *e)
{
	struct pkmap_state *pk = pkmap(e);
	u32 next = (pk->last + 1) & (nr_slots(e) - 1);

	if (__builtin_expect(!next || pk->count[next], 0))
		return search(e);
	pk->last = next;
	return next;
}

/* Maps a HIGHMEM frame of this block for a task, or adds a use. OK, NO_SPACE or NO_MEMORY. */
static ALWAYS_INLINE u32 take(struct engine *e, pfn_t pfn, struct page *block, u32 task,
			      u32 *ret_slot)
{
	struct pkmap_state *pk = pkmap(e);
	struct page *page = page_of(e, pfn);
	u32 slot = page->slot ? page->slot - 1 : find_free(e);

	if (__builtin_expect(slot == NO_SLOT, 0))
		return STATUS_NO_SPACE;
	if (hold(e, pk, slot, task) != STATUS_OK)
		return STATUS_NO_MEMORY;
	block->ref++;
	*ret_slot = slot;
	if (pk->count[slot]) {
		if (pk->count[slot]++ == 1)
			pk->used++;
		return STATUS_OK;
	}
	pk->used++;
	pk->count[slot] = 2;
	pk->pfn[slot] = pfn;
	page->slot = slot + 1;
	window_set(e, e->pkmap_ptes, slot_va(e, slot), pfn, WINDOW_PKMAP);
	return STATUS_OK;
}

/* ---- sleepers ---- */

static u32 park(struct engine *e, struct task *t, pfn_t pfn)
{
	struct pkmap_state *pk = pkmap(e);

	t->parked_op = op_number(e);
	t->parked_owner = e->op_owner;
	t->parked_pfn = pfn;
	t->sleeper_prev = pk->sleeper_last;
	t->sleeper_next = 0;
	if (pk->sleeper_last)
		task_find(e, pk->sleeper_last)->sleeper_next = t->number;
	else
		pk->sleeper_first = t->number;
	pk->sleeper_last = t->number;
	pk->nr_sleepers++;
	frame_use(e, pfn); /* so that it is there when its turn comes */
	event_park(e, t->number, pfn, pk->nr_sleepers);
	return STATUS_PARKED;
}

static void unlink_sleeper(struct engine *e, struct task *t)
{
	struct pkmap_state *pk = pkmap(e);

	if (t->sleeper_prev)
		task_find(e, t->sleeper_prev)->sleeper_next = t->sleeper_next;
	else
		pk->sleeper_first = t->sleeper_next;
	if (t->sleeper_next)
		task_find(e, t->sleeper_next)->sleeper_prev = t->sleeper_prev;
	else
		pk->sleeper_last = t->sleeper_prev;
	pk->nr_sleepers--;
}

/* Ends a task's sleep. `slot` counts when the status is OK. */
static void wake(struct engine *e, struct task *t, u32 status, u32 slot)
{
	struct engine_completion done = {.op = t->parked_op, .status = status, .task = t->number};
	pfn_t pfn = t->parked_pfn;

	if (status == STATUS_OK) {
		done.values[0] = slot_va(e, slot);
		done.values[1] = slot;
	}
	unlink_sleeper(e, t);
	t->parked_op = 0;
	t->parked_owner = 0;
	t->parked_pfn = 0;
	t->sleeper_next = t->sleeper_prev = 0;
	frame_unuse(e, pfn);
	event_wake(e, t->number, done.op, status);
	port_complete(e, &done);
}

/* A slot has lost its last user: whoever can go on does, first come, first served. */
static void serve_sleepers(struct engine *e)
{
	struct pkmap_state *pk = pkmap(e);
	u32 next;

	for (u32 number = pk->sleeper_first; number; number = next) {
		struct task *t = task_find(e, number);
		u32 slot = 0, status;

		next = t->sleeper_next;
		if (pk->used == nr_slots(e) && !page_of(e, t->parked_pfn)->slot)
			continue;
		status = take(e, t->parked_pfn, frame_block(e, t->parked_pfn), number, &slot);
		wake(e, t, status, slot);
	}
	/* Those who sleep on have searched the whole window in vain. */
	if (pk->nr_sleepers)
		pk->last = nr_slots(e) - 1;
}

/* Does every use of the window belong to a sleeper, or to `t` that is about to
 * become one? */
static bool is_deadlock(struct engine *e, const struct task *t)
{
	const struct pkmap_state *pk = pkmap(e);
	u32 uses = 0, asleep = t ? t->holdings : 0;

	for (u32 slot = 0; slot < nr_slots(e); slot++)
		uses += pk->count[slot] > 1 ? pk->count[slot] - 1 : 0;
	for (u32 number = pk->sleeper_first; number;) {
		const struct task *sleeper = task_find(e, number);

		asleep += sleeper->holdings;
		number = sleeper->sleeper_next;
	}
	return uses == asleep;
}

static void put_word(struct engine_result *res, u32 word)
{
	__builtin_memcpy(res->data + res->data_len, &word, sizeof word);
	res->data_len += (u32)sizeof word;
}

/* Who holds what, slot by slot, as far as a payload reaches. */
static void tell_holders(struct engine *e, struct engine_result *res)
{
	const struct pkmap_state *pk = pkmap(e);

	for (u32 slot = 0; slot < nr_slots(e); slot++) {
		const struct pkmap_holder *h = &pk->holder[slot];

		for (; h && h->count; h = pkmap_holder_next(e, h)) {
			if (res->data_len + 2 * sizeof(u32) > ENGINE_MAX_DATA)
				return;
			put_word(res, h->task);
			put_word(res, pk->pfn[slot]);
		}
	}
}

/* A kunmap can leave sleepers alone with the window, without making room in it. The
 * newest of them that holds anything gives up, and can undo what it holds. */
static void break_deadlock(struct engine *e)
{
	struct pkmap_state *pk = pkmap(e);

	if (!pk->nr_sleepers || !is_deadlock(e, NULL))
		return;
	for (u32 number = pk->sleeper_last; number;) {
		struct task *t = task_find(e, number);

		if (t->holdings) {
			event_deadlock(e, number, t->parked_pfn, pk->nr_sleepers);
			wake(e, t, STATUS_DEADLOCK, 0);
			return;
		}
		number = t->sleeper_prev;
	}
}

void pkmap_task_exit(struct engine *e, struct task *t)
{
	if (t->parked_op)
		wake(e, t, STATUS_WITHDRAWN, 0);
	for (u32 slot = 0; t->holdings && slot < nr_slots(e); slot++) {
		struct pkmap_holder *h = holder_of(e, slot, t->number);
		struct pkmap_holder *nobody = holder_of(e, slot, 0);

		if (!h)
			continue;
		t->holdings -= h->count;
		if (nobody) {
			nobody->count += h->count;
			holder_drop(e, slot, h);
		} else {
			h->task = 0;
		}
	}
}

/* ---- the ops ---- */

static __attribute__((noinline)) u32 sleep_for(struct engine *e, const struct engine_op *op,
					       struct engine_result *res)
{
	pfn_t pfn = (pfn_t)op->args[0];
	struct task *t;

	if (!op->task)
		return STATUS_NO_SPACE;
	t = task_find(e, op->task);
	if (t->kmap.atomic) {
		event_atomic_violation(e, op->task, op->cpu, ATOMIC_SLEEP);
		return STATUS_ATOMIC;
	}
	if (is_deadlock(e, t)) {
		event_deadlock(e, op->task, pfn, pkmap(e)->nr_sleepers + 1);
		tell_holders(e, res);
		return STATUS_DEADLOCK;
	}
	return park(e, t, pfn);
}

static ALWAYS_INLINE u32 map(struct engine *e, const struct engine_op *op,
			     struct engine_result *res, pfn_t pfn, struct page *block)
{
	u32 slot, status;

	if (is_lowmem(e, pfn)) {
		result_put(res, 0, frame_ref(e, pfn));
		result_put(res, 1, NO_SLOT);
		return STATUS_OK;
	}
	status = take(e, pfn, block, op->task, &slot);
	if (__builtin_expect(status == STATUS_NO_SPACE, 0))
		return sleep_for(e, op, res);
	if (status == STATUS_OK) {
		result_put(res, 0, slot_va(e, slot));
		result_put(res, 1, slot);
	}
	return status;
}

static __attribute__((noinline)) u32 map_any(struct engine *e, const struct engine_op *op,
					     struct engine_result *res)
{
	struct page *block;
	u32 status = frame_mappable(e, (pfn_t)op->args[0], &block);

	return status == STATUS_OK ? map(e, op, res, (pfn_t)op->args[0], block) : status;
}

/* Mostly it is the first frame of what AllocPages gave. */
u32 op_kmap(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	pfn_t pfn = (pfn_t)op->args[0];
	struct page *page = page_of(e, pfn);

	if (__builtin_expect(pfn < e->st->layout.max_pfn && page_is_plain(page), 1))
		return map(e, op, res, pfn, page);
	return map_any(e, op, res);
}

/* Somebody sleeps, and a use has been taken back. */
static __attribute__((noinline)) void look_for_sleepers(struct engine *e, u32 slot)
{
	if (pkmap(e)->count[slot] == 1)
		serve_sleepers(e);
	else
		break_deadlock(e);
}

static ALWAYS_INLINE u32 unmap(struct engine *e, const struct engine_op *op, pfn_t pfn,
			       struct page *block, bool is_plain)
{
	struct pkmap_state *pk = pkmap(e);
	u32 slot, count;

	if (is_lowmem(e, pfn))
		return STATUS_OK;
	slot = page_of(e, pfn)->slot - 1; /* NO_SLOT for none */
	if (slot == NO_SLOT || pk->count[slot] < 2)
		return STATUS_NOT_FOUND;
	count = --pk->count[slot];
	if (count == 1)
		pk->used--;
	release(e, pk, slot, op->task);
	if (is_plain)
		page_unuse_plain(e, block);
	else
		block_unuse(e, block);
	if (__builtin_expect(pk->nr_sleepers != 0, 0))
		look_for_sleepers(e, slot);
	return STATUS_OK;
}

static __attribute__((noinline)) u32 unmap_any(struct engine *e, const struct engine_op *op)
{
	struct page *block;
	u32 status = frame_mappable(e, (pfn_t)op->args[0], &block);

	return status == STATUS_OK ? unmap(e, op, (pfn_t)op->args[0], block, false) : status;
}

u32 op_kunmap(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	pfn_t pfn = (pfn_t)op->args[0];
	struct page *page = page_of(e, pfn);

	(void)res;
	if (__builtin_expect(pfn < e->st->layout.max_pfn && page_is_plain(page), 1))
		return unmap(e, op, pfn, page, true);
	return unmap_any(e, op);
}

static __attribute__((noinline)) u32 withdraw(struct engine *e, u64 parked_op)
{
	for (u32 number = pkmap(e)->sleeper_first; number;) {
		struct task *t = task_find(e, number);

		if (t->parked_op == parked_op) {
			wake(e, t, STATUS_WITHDRAWN, 0);
			return STATUS_OK;
		}
		number = t->sleeper_next;
	}
	return STATUS_NOT_FOUND;
}

/* Mostly nobody sleeps. This is also the op that does nothing, where the cost of any op is
 * measured. */
u32 op_withdraw(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	(void)res;
	return pkmap(e)->sleeper_first ? withdraw(e, op->args[0]) : STATUS_NOT_FOUND;
}
