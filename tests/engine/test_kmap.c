/*
 * test_kmap.c - kmap, its window and its sleepers, and kmap_local. Addresses are
 * those recorded on Debian's Linux 6.1 kernels.
 *
 * One test plays the window against a naive model with a seed (environment SEED).
 */
#include "map_ops.h"

#define NO_SLOT 0xffffffffu

/* ---- kmap ---- */

static void kmap_addresses(void **state)
{
	(void)state;
	for (u32 pae = 0; pae < 2; pae++) {
		struct machine *m = machine_new(pae ? &pae_2g : &two_level_2g);
		va_t base = pae ? 0xff000000 : 0xfec00000;
		pfn_t low = alloc(m, GFP_KERNEL), high[12];

		is_status(m, machine_op(m, OP_KMAP, low), STATUS_OK);
		is_value(m, 0, 0xc0000000 + (low << PAGE_SHIFT));
		is_value(m, 1, NO_SLOT);
		is_status(m, machine_op(m, OP_KUNMAP, low), STATUS_OK);
		for (u32 i = 0; i < 12; i++)
			high[i] = alloc(m, HIGH);
		for (u32 i = 0; i < 8; i++) {
			is_status(m, machine_op(m, OP_KMAP, high[i]), STATUS_OK);
			is_value(m, 0, base + (i + 1) * PAGE_SIZE); /* slot 0 waits for the wrap */
			is_value(m, 1, i + 1);
		}
		machine_op(m, OP_KMAP, high[3]);
		is_value(m, 0, base + 0x4000);
		machine_op(m, OP_KUNMAP, high[3]);
		for (u32 i = 0; i < 4; i++)
			is_status(m, machine_op(m, OP_KUNMAP, high[i]), STATUS_OK);
		/* The entry stays, so the slots go on and the old address comes back. */
		assert_true(pgtable_get(m->e, 0, base + 0x2000) & PTE_PRESENT);
		for (u32 i = 8; i < 12; i++) {
			machine_op(m, OP_KMAP, high[i]);
			is_value(m, 0, base + (i + 1) * PAGE_SIZE);
		}
		machine_op(m, OP_KMAP, high[1]);
		is_value(m, 0, base + 0x2000);
		/* A kmapped page still gets a slot of its own in kmap_local. */
		machine_op(m, OP_KMAP_LOCAL, high[5]);
		is_value(m, 0, 0xfffbb000);
		machine_free(m);
	}
}

static void kmap_refusals(void **state)
{
	struct machine *m = machine_new(&pae_2g);
	pfn_t high = alloc(m, HIGH);

	(void)state;
	is_status(m, machine_op(m, OP_KUNMAP, high), STATUS_NOT_FOUND);
	is_status(m, machine_op(m, OP_KMAP, 0xffffff), STATUS_INVALID);
	is_status(m, machine_op(m, OP_KMAP, 0), STATUS_INVALID);    /* reserved */
	is_status(m, machine_op(m, OP_KMAP, 0xa0), STATUS_INVALID); /* no RAM */
	is_status(m, machine_op(m, OP_KMAP, HOST_WINDOW_PADDR >> PAGE_SHIFT), STATUS_INVALID);
	is_status(m, machine_op(m, OP_KMAP, high), STATUS_OK);
	is_status(m, machine_op(m, OP_FREE_PAGES, high, 0), STATUS_BUSY);
	is_status(m, machine_op(m, OP_KUNMAP, high), STATUS_OK);
	is_status(m, machine_op(m, OP_KUNMAP, high), STATUS_NOT_FOUND);
	is_status(m, machine_op(m, OP_FREE_PAGES, high, 0), STATUS_OK);
	is_status(m, machine_op(m, OP_KMAP, high), STATUS_NOT_FOUND);
	is_status(m, machine_op(m, OP_WITHDRAW, 1), STATUS_NOT_FOUND);
	machine_free(m);
}

/* Fills the window from task 0; returns the frames, one more than fit. */
static pfn_t *fill_window(struct machine *m)
{
	u32 slots = m->e->st->layout.pkmap_slots;
	pfn_t *pfn = calloc(slots + 4, sizeof *pfn);

	m->unchecked = true;
	for (u32 i = 0; i < slots + 4; i++)
		pfn[i] = alloc(m, HIGH);
	for (u32 i = 0; i < slots; i++) {
		is_status(m, machine_op(m, OP_KMAP, pfn[i]), STATUS_OK);
		is_value(m, 1, (i + 1) % slots);
	}
	m->unchecked = false;
	machine_check(m);
	return pfn;
}

static void kmap_capacity_and_waking(void **state)
{
	(void)state;
	for (u32 pae = 0; pae < 2; pae++) {
		struct machine *m = machine_new(pae ? &pae_2g : &two_level_2g);
		u32 slots = pae ? 512 : 1024, task = new_task(m, 1);
		pfn_t *pfn = fill_window(m);

		/* Task 0 never parks. */
		is_status(m, machine_op(m, OP_KMAP, pfn[slots]), STATUS_NO_SPACE);
		for (u32 i = 0; i < 4; i++) {
			u32 freed = (i * 97 + 50) % slots; /* as the recording did */
			pfn_t wish = pfn[slots + i % 4];

			is_status(m, machine_op_on(m, 1, task, OP_KMAP, wish), STATUS_PARKED);
			u64 parked = m->res.op;

			is_status(m, machine_op_on(m, 1, task, OP_FLUSH_TLB), STATUS_BUSY);
			is_status(m, machine_op(m, OP_FREE_PAGES, wish, 0), STATUS_BUSY);
			m->completed.op = 0;
			is_status(m, machine_op(m, OP_KUNMAP, pfn[freed]), STATUS_OK);
			/* The sleeper gets exactly the slot that was freed. */
			assert_int_equal(m->completed.op, parked);
			assert_int_equal(m->completed.status, STATUS_OK);
			assert_int_equal(m->completed.task, task);
			assert_int_equal(m->completed.values[1], (freed + 1) % slots);
			assert_int_equal(m->completed.values[0],
					 m->e->st->layout.pkmap_start +
					     (freed + 1) % slots * PAGE_SIZE);
			is_status(m, machine_op_on(m, 1, task, OP_FLUSH_TLB), STATUS_OK);
		}
		free(pfn);
		machine_free(m);
	}
}

static void kmap_flush_at_wrap(void **state)
{
	struct machine *m = machine_new(&pae_2g);
	pfn_t *pfn = fill_window(m);
	u32 flushes = m->e->st->map.pkmap.flushes;

	(void)state;
	for (u32 i = 0; i < 10; i++)
		is_status(m, machine_op(m, OP_KUNMAP, pfn[i]), STATUS_OK);
	machine_forget_events(m);
	/* `last` is slot 0, so 1 to 511 are tried, then the flush frees slots 1 to 10. */
	is_status(m, machine_op(m, OP_KMAP, pfn[512]), STATUS_OK);
	is_value(m, 1, 1);
	assert_int_equal(m->e->st->map.pkmap.flushes, flushes + 1);
	assert_int_equal(machine_count_events(m, EVENT_PKMAP_FLUSH), 1);
	assert_int_equal(machine_count_events(m, EVENT_TLB_FLUSH), 1);
	assert_int_equal(machine_count_events(m, EVENT_PTE_CLEARED), 10);
	/* The mapping of the second is gone, so it gets another slot. */
	is_status(m, machine_op(m, OP_KMAP, pfn[1]), STATUS_OK);
	is_value(m, 1, 2);
	free(pfn);
	machine_free(m);
}

static void kmap_atomic_may_not_sleep(void **state)
{
	struct machine *m = machine_new(&pae_2g);
	u32 task = new_task(m, 1);
	pfn_t *pfn = fill_window(m);

	(void)state;
	is_status(m, machine_op_on(m, 1, task, OP_KMAP_ATOMIC, pfn[0]), STATUS_OK);
	va_t va = (va_t)m->res.values[0];

	machine_forget_events(m);
	is_status(m, machine_op_on(m, 1, task, OP_KMAP, pfn[512]), STATUS_ATOMIC);
	assert_int_equal(machine_count_events(m, EVENT_ATOMIC_VIOLATION), 1);
	is_status(m, machine_op_on(m, 1, task, OP_SCHEDULE, 0), STATUS_ATOMIC);
	/* What is mapped already needs no sleep. */
	is_status(m, machine_op_on(m, 1, task, OP_KMAP, pfn[7]), STATUS_OK);
	is_status(m, machine_op_on(m, 1, task, OP_KUNMAP_LOCAL, va), STATUS_INVALID);
	is_status(m, machine_op_on(m, 1, task, OP_KUNMAP_ATOMIC, va), STATUS_OK);
	is_status(m, machine_op_on(m, 1, task, OP_KMAP, pfn[512]), STATUS_PARKED);
	is_status(m, machine_op(m, OP_WITHDRAW, m->res.op), STATUS_OK);
	assert_int_equal(m->completed.status, STATUS_WITHDRAWN);
	is_status(m, machine_op_on(m, 1, task, OP_SCHEDULE, 0), STATUS_OK);
	free(pfn);
	machine_free(m);
}

/* Two tasks share the window between them. */
static pfn_t *share_window(struct machine *m, const u32 task[2])
{
	u32 slots = m->e->st->layout.pkmap_slots;
	pfn_t *pfn = calloc(slots + 4, sizeof *pfn);

	m->unchecked = true;
	for (u32 i = 0; i < slots + 4; i++)
		pfn[i] = alloc(m, HIGH);
	for (u32 i = 0; i < slots; i++)
		is_status(m, machine_op_on(m, i % 2, task[i % 2], OP_KMAP, pfn[i]), STATUS_OK);
	m->unchecked = false;
	machine_check(m);
	return pfn;
}

static void kmap_deadlock(void **state)
{
	struct machine *m = machine_new(&pae_2g);
	u32 task[2] = {new_task(m, 0), new_task(m, 1)}, pair[2];
	pfn_t *pfn = share_window(m, task);

	(void)state;
	is_status(m, machine_op_on(m, 0, task[0], OP_KMAP, pfn[512]), STATUS_PARKED);
	u64 parked = m->res.op;

	machine_forget_events(m);
	is_status(m, machine_op_on(m, 1, task[1], OP_KMAP, pfn[513]), STATUS_DEADLOCK);
	assert_int_equal(machine_count_events(m, EVENT_DEADLOCK), 1);
	assert_int_equal(m->res.data_len, 512 * 8);
	/* Slot 0 was given out last, to the second task. */
	memcpy(pair, m->data, sizeof pair);
	assert_int_equal(pair[0], task[1]);
	assert_int_equal(pair[1], pfn[511]);
	memcpy(pair, m->data + 8, sizeof pair);
	assert_int_equal(pair[0], task[0]);
	assert_int_equal(pair[1], pfn[0]);
	/* The one that was refused is awake and can help the other. */
	is_status(m, machine_op_on(m, 1, task[1], OP_KUNMAP, pfn[1]), STATUS_OK);
	assert_int_equal(m->completed.op, parked);
	assert_int_equal(m->completed.status, STATUS_OK);
	free(pfn);
	machine_free(m);
}

/* The last holder that was awake lets go of a shared slot: those asleep would sleep
 * for ever, and the newest of them is told. */
static void kmap_deadlock_by_kunmap(void **state)
{
	struct machine *m = machine_new(&pae_2g);
	u32 task[3] = {new_task(m, 0), new_task(m, 1), new_task(m, 2)};
	pfn_t *pfn = share_window(m, task);

	(void)state;
	is_status(m, machine_op_on(m, 2, task[2], OP_KMAP, pfn[0]), STATUS_OK);
	is_status(m, machine_op_on(m, 0, task[0], OP_KMAP, pfn[512]), STATUS_PARKED);
	is_status(m, machine_op_on(m, 1, task[1], OP_KMAP, pfn[513]), STATUS_PARKED);
	u64 newest = m->res.op;

	is_status(m, machine_op_on(m, 2, task[2], OP_KUNMAP, pfn[0]), STATUS_OK);
	assert_int_equal(m->completed.op, newest);
	assert_int_equal(m->completed.status, STATUS_DEADLOCK);
	is_status(m, machine_op_on(m, 1, task[1], OP_FLUSH_TLB), STATUS_OK);
	free(pfn);
	machine_free(m);
}

/* First come, first served; who wants what another has just mapped shares it. */
static void kmap_queue(void **state)
{
	struct machine *m = machine_new(&pae_2g);
	u32 task[3] = {new_task(m, 1), new_task(m, 2), new_task(m, 3)};
	pfn_t *pfn = fill_window(m);
	u32 order[2] = {0, 0}, n = 0;

	(void)state;
	is_status(m, machine_op_on(m, 1, task[0], OP_KMAP, pfn[512]), STATUS_PARKED);
	is_status(m, machine_op_on(m, 2, task[1], OP_KMAP, pfn[513]), STATUS_PARKED);
	is_status(m, machine_op_on(m, 3, task[2], OP_KMAP, pfn[512]), STATUS_PARKED);
	machine_forget_events(m);
	is_status(m, machine_op(m, OP_KUNMAP, pfn[99]), STATUS_OK);
	for (u32 i = 0; i < m->nr_events; i++) {
		if (m->events[i].kind == EVENT_WAKE && n < 2)
			order[n++] = m->events[i].w[0];
	}
	assert_int_equal(machine_count_events(m, EVENT_WAKE), 2);
	assert_int_equal(order[0], task[0]);
	assert_int_equal(order[1], task[2]);
	assert_int_equal(m->completed.values[1], 100);
	/* A task that goes, goes without its wish; its mapping is left to anyone. */
	is_status(m, machine_op(m, OP_TASK_EXIT, task[0]), STATUS_OK);
	is_status(m, machine_op(m, OP_KUNMAP, pfn[512]), STATUS_OK);
	is_status(m, machine_op(m, OP_KUNMAP, pfn[512]), STATUS_OK);
	assert_int_equal(m->completed.task, task[1]);
	free(pfn);
	machine_free(m);
}

/* ---- kmap against a naive model ---- */

enum { MODEL_TASKS = 8, MODEL_FRAMES = 700 };

struct model {
	u32 slots, last;
	u32 count[1024], frame[1024]; /* frame + 1 */
	u32 slot_of[MODEL_FRAMES];    /* slot + 1 */
	u32 held[MODEL_TASKS][MODEL_FRAMES];
	u32 queue[MODEL_TASKS], wish[MODEL_TASKS], nr_queue;
};

static bool model_asleep(const struct model *w, u32 task)
{
	for (u32 i = 0; i < w->nr_queue; i++) {
		if (w->queue[i] == task)
			return true;
	}
	return false;
}

/* A slot for a frame, or NO_SLOT. Linux's loop, as its comments tell it. */
static u32 model_map(struct model *w, u32 task, u32 frame)
{
	u32 slot = w->slot_of[frame] - 1;

	if (slot == NO_SLOT) {
		u32 tries = w->slots;

		for (;;) {
			w->last = (w->last + 1) % w->slots;
			if (w->last == 0) {
				for (u32 i = 0; i < w->slots; i++) {
					if (w->count[i] == 1) {
						w->slot_of[w->frame[i] - 1] = 0;
						w->count[i] = w->frame[i] = 0;
					}
				}
				tries = w->slots;
			}
			if (w->count[w->last] == 0)
				break;
			if (--tries == 0)
				return NO_SLOT;
		}
		slot = w->last;
		w->count[slot] = 1;
		w->frame[slot] = frame + 1;
		w->slot_of[frame] = slot + 1;
	}
	w->count[slot]++;
	w->held[task][frame]++;
	return slot;
}

static bool model_holds(const struct model *w, u32 task)
{
	for (u32 f = 0; f < MODEL_FRAMES; f++) {
		if (w->held[task][f])
			return true;
	}
	return false;
}

static bool model_deadlock(const struct model *w, u32 also)
{
	for (u32 t = 0; t < MODEL_TASKS; t++) {
		if (t != also && !model_asleep(w, t) && model_holds(w, t))
			return false;
	}
	return true;
}

/* Who holds it longest is not the model's business: the caller always holds it. */
static void model_unmap(struct model *w, u32 task, u32 frame, u32 expected_wakes[MODEL_TASKS],
			u32 *nr_wakes)
{
	u32 slot = w->slot_of[frame] - 1, left = 0;

	w->held[task][frame]--;
	w->count[slot]--;
	*nr_wakes = 0;
	if (w->count[slot] > 1) {
		/* Nobody can go on. If nobody who holds anything is awake, the newest sleeper
		 * that does is told. */
		for (u32 i = w->nr_queue; model_deadlock(w, NO_SLOT) && i-- > 0;) {
			if (!model_holds(w, w->queue[i]))
				continue;
			expected_wakes[(*nr_wakes)++] = w->queue[i];
			w->nr_queue--;
			memmove(&w->queue[i], &w->queue[i + 1],
				(w->nr_queue - i) * sizeof w->queue[0]);
		}
		return;
	}
	for (u32 i = 0; i < w->nr_queue; i++) {
		u32 sleeper = w->queue[i], f = w->wish[sleeper];

		if (model_map(w, sleeper, f) == NO_SLOT)
			w->queue[left++] = sleeper;
		else
			expected_wakes[(*nr_wakes)++] = sleeper;
	}
	w->nr_queue = left;
}

static void kmap_against_model(void **state)
{
	struct engine_config config = pae_2g;
	struct random r = random_seeded(20261121);
	struct model *w = calloc(1, sizeof *w);
	u32 task[MODEL_TASKS], number_of[64] = {0}, parks = 0, deadlocks = 0;
	u32 woken = 0, broken = 0;
	static pfn_t pfn[MODEL_FRAMES];

	(void)state;
	config.cpus = MODEL_TASKS;
	struct machine *m = machine_new(&config);

	w->slots = m->e->st->layout.pkmap_slots;
	m->unchecked = true;
	for (u32 i = 0; i < MODEL_FRAMES; i++)
		pfn[i] = alloc(m, HIGH);
	for (u32 i = 0; i < MODEL_TASKS; i++) {
		task[i] = new_task(m, i);
		number_of[task[i]] = i;
	}
	for (u32 step = 0; step < 40000; step++) {
		u32 t = (u32)random_below(&r, MODEL_TASKS);
		u32 f = (u32)random_below(&r, MODEL_FRAMES), wakes[MODEL_TASKS], nr_wakes = 0;
		bool grow = step / 2500 % 2 == 0;

		m->unchecked = step % 500 != 0;
		if (model_asleep(w, t)) {
			is_status(m, machine_op_on(m, t, task[t], OP_KMAP, pfn[f]), STATUS_BUSY);
			continue;
		}
		if (w->held[t][f] && (!grow || random_below(&r, 2) == 0)) {
			model_unmap(w, t, f, wakes, &nr_wakes);
			machine_forget_events(m);
			is_status(m, machine_op_on(m, t, task[t], OP_KUNMAP, pfn[f]), STATUS_OK);
			u32 seen = 0;

			for (u32 i = 0; i < m->nr_events; i++) {
				if (m->events[i].kind != EVENT_WAKE)
					continue;
				assert_true(seen < nr_wakes);
				assert_int_equal(number_of[m->events[i].w[0]], wakes[seen++]);
			}
			assert_int_equal(seen, nr_wakes);
			woken += seen;
			broken += seen && m->completed.status == STATUS_DEADLOCK;
			if (seen && m->completed.status == STATUS_OK)
				assert_int_equal(m->completed.values[1],
						 w->slot_of[w->wish[wakes[seen - 1]]] - 1);
		} else if (grow) {
			u32 slot = model_map(w, t, f), status;

			machine_forget_events(m);
			status = machine_op_on(m, t, task[t], OP_KMAP, pfn[f]);
			if (slot != NO_SLOT) {
				is_status(m, status, STATUS_OK);
				is_value(m, 1, slot);
			} else if (model_deadlock(w, t)) {
				is_status(m, status, STATUS_DEADLOCK);
				deadlocks++;
			} else {
				is_status(m, status, STATUS_PARKED);
				w->queue[w->nr_queue++] = t;
				w->wish[t] = f;
				parks++;
			}
		}
		for (u32 i = 0; step % 500 == 0 && i < w->slots; i++)
			assert_int_equal(m->e->st->map.pkmap.count[i], w->count[i]);
	}
	print_message("%u parked, %u woken, %u of them by a deadlock; %u deadlocks at once\n",
		      parks, woken, broken, deadlocks);
	assert_true(parks > 0 && deadlocks > 0 && woken > broken);
	free(w);
	machine_free(m);
}

/* ---- kmap_local ---- */

static void kmap_local_addresses(void **state)
{
	struct machine *m = machine_new(&pae_2g);
	pfn_t low = alloc(m, GFP_KERNEL), high[16];
	va_t va[15];

	(void)state;
	for (u32 i = 0; i < 16; i++)
		high[i] = alloc(m, HIGH);
	for (u32 i = 0; i < 15; i++) {
		is_status(m, machine_op(m, OP_KMAP_LOCAL, high[i]), STATUS_OK);
		va[i] = (va_t)m->res.values[0];
		assert_int_equal(va[i], 0xfffbb000 - i * PAGE_SIZE);
	}
	is_status(m, machine_op(m, OP_KMAP_LOCAL, high[15]), STATUS_LIMIT);
	is_status(m, machine_op(m, OP_KMAP_LOCAL, low), STATUS_OK); /* needs no slot */
	is_value(m, 0, 0xc0000000 + (low << PAGE_SHIFT));
	is_status(m, machine_op(m, OP_FREE_PAGES, low, 0), STATUS_BUSY);
	is_status(m, machine_op(m, OP_KUNMAP_LOCAL, va[14]), STATUS_NOT_LIFO);
	is_status(m, machine_op(m, OP_KUNMAP_LOCAL, 0xc0000000 + (low << PAGE_SHIFT) + 77),
		  STATUS_OK);
	is_status(m, machine_op(m, OP_FREE_PAGES, low, 0), STATUS_OK);
	for (u32 i = 15; i-- > 0;) {
		is_status(m, machine_op(m, OP_FREE_PAGES, high[i], 0), STATUS_BUSY);
		is_status(m, machine_op(m, OP_KUNMAP_LOCAL, va[i]), STATUS_OK);
		assert_int_equal(pgtable_get(m->e, 0, va[i]), 0);
		is_status(m, machine_op(m, OP_FREE_PAGES, high[i], 0), STATUS_OK);
	}
	is_status(m, machine_op(m, OP_KUNMAP_LOCAL, va[0]), STATUS_NOT_FOUND);
	/* CPU 3 begins 48 slots further. The same page twice takes two slots. */
	is_status(m, machine_op_on(m, 3, 0, OP_KMAP_LOCAL, high[15]), STATUS_OK);
	is_value(m, 0, 0xfff8b000);
	is_status(m, machine_op_on(m, 3, 0, OP_KMAP_ATOMIC, high[15]), STATUS_OK);
	is_value(m, 0, 0xfff8a000);
	/* Each CPU's own. */
	is_status(m, machine_op(m, OP_KUNMAP_ATOMIC, 0xfff8a000), STATUS_NOT_OWNER);
	is_status(m, machine_op_on(m, 3, 0, OP_KUNMAP_LOCAL, 0xfff8b000), STATUS_NOT_LIFO);
	machine_free(m);
}

/* A task's mappings leave with it, come back with it, and are nobody else's. */
static void kmap_local_survives_a_switch(void **state)
{
	struct machine *m = machine_new(&pae_2g);
	u32 a = new_task(m, 0), b = new_task(m, 0);
	pfn_t first = alloc(m, HIGH), second = alloc(m, HIGH);

	(void)state;
	is_status(m, machine_op_on(m, 0, b, OP_KMAP_LOCAL, first), STATUS_OK);
	is_value(m, 0, 0xfffbb000);
	is_status(m, write_word(m, 0xfffbb010, 1111), STATUS_OK);
	/* The CPU's own context is not current now. */
	is_status(m, machine_op(m, OP_KMAP_LOCAL, second), STATUS_NOT_OWNER);
	is_status(m, machine_op(m, OP_SCHEDULE, a), STATUS_OK);
	assert_int_equal(pgtable_get(m->e, 0, 0xfffbb000), 0);
	is_status(m, machine_op_on(m, 0, a, OP_KUNMAP_LOCAL, 0xfffbb000), STATUS_NOT_OWNER);
	is_status(m, machine_op_on(m, 0, a, OP_KMAP_LOCAL, second), STATUS_OK);
	is_value(m, 0, 0xfffbb000);
	is_status(m, write_word(m, 0xfffbb010, 2222), STATUS_OK);
	is_status(m, machine_op(m, OP_SCHEDULE, b), STATUS_OK);
	assert_int_equal(read_word(m, 0xfffbb010), 1111);
	/* The addresses are this CPU's, so here it has to come back. */
	is_status(m, machine_op(m, OP_SCHEDULE, 0), STATUS_OK);
	is_status(m, machine_op_on(m, 1, 0, OP_SCHEDULE, a), STATUS_BUSY);
	is_status(m, machine_op(m, OP_SCHEDULE, a), STATUS_OK);
	assert_int_equal(read_word(m, 0xfffbb010), 2222);
	is_status(m, machine_op_on(m, 0, a, OP_KUNMAP_LOCAL, 0xfffbb000), STATUS_OK);
	/* Without mappings it is free to move. */
	is_status(m, machine_op(m, OP_SCHEDULE, 0), STATUS_OK);
	is_status(m, machine_op_on(m, 1, 0, OP_SCHEDULE, a), STATUS_OK);
	/* A task's end is the end of its mappings. */
	is_status(m, machine_op(m, OP_FREE_PAGES, first, 0), STATUS_BUSY);
	is_status(m, machine_op(m, OP_TASK_EXIT, b), STATUS_OK);
	is_status(m, machine_op(m, OP_FREE_PAGES, first, 0), STATUS_OK);
	machine_free(m);
}

/* With every slot of a task taken, the kernel still clears and copies its pages. */
static void temporaries_always_find_a_slot(void **state)
{
	struct machine *m = machine_new(&pae_2g);
	u32 task = new_task(m, 0);
	pfn_t high[15];

	(void)state;
	for (u32 i = 0; i < 15; i++) {
		high[i] = alloc(m, HIGH);
		is_status(m, machine_op_on(m, 0, task, OP_KMAP_LOCAL, high[i]), STATUS_OK);
		is_status(m, write_word(m, (va_t)m->res.values[0], i + 1), STATUS_OK);
	}
	is_status(m, machine_op(m, OP_ALLOC_PAGES, HIGH | __GFP_ZERO, 0), STATUS_OK);
	pfn_t fresh = (pfn_t)m->res.values[0];

	/* Two at once, as a copy needs, and two more. */
	va_t to[4];

	for (u32 i = 0; i < 4; i++) {
		to[i] = kmap_temporary(m->e, 0, fresh);
		assert_int_equal(pte_pfn(pgtable_get(m->e, 0, to[i])), fresh);
	}
	port_copy_page(m->e, 0, to[3], to[0]);
	for (u32 i = 4; i-- > 0;)
		kunmap_temporary(m->e, 0, to[i]);
	machine_check(m);
	for (u32 i = 0; i < 15; i++)
		assert_int_equal(read_word(m, 0xfffbb000 - i * PAGE_SIZE), i + 1);
	machine_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(kmap_addresses),
	    cmocka_unit_test(kmap_refusals),
	    cmocka_unit_test(kmap_capacity_and_waking),
	    cmocka_unit_test(kmap_flush_at_wrap),
	    cmocka_unit_test(kmap_atomic_may_not_sleep),
	    cmocka_unit_test(kmap_deadlock),
	    cmocka_unit_test(kmap_deadlock_by_kunmap),
	    cmocka_unit_test(kmap_queue),
	    cmocka_unit_test(kmap_against_model),
	    cmocka_unit_test(kmap_local_addresses),
	    cmocka_unit_test(kmap_local_survives_a_switch),
	    cmocka_unit_test(temporaries_always_find_a_slot),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
