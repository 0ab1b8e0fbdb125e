/*
 * test_map.c - kernel mappings: page tables, kmap and its sleepers, kmap_local,
 * fixmap, vmalloc. Addresses are those recorded on Debian's Linux 6.1 kernels.
 *
 * Two tests are played against a naive model with a seed (environment SEED): the
 * ordered map of areas, and the kmap window with its sleepers.
 */
#include "fixture.h"
#include "frames/page_alloc.h"
#include "map/pgtable.h"
#include "map/use.h"
#include "text.h"

#define HIGH	GFP_HIGHUSER
#define NO_SLOT 0xffffffffu

static const struct engine_config two_level_2g = {
    .preset = PRESET_LINUX_6_1, .ram = GIB_BYTES(2), .cpus = 2};
static const struct engine_config pae_2g = {
    .preset = PRESET_LINUX_6_1, .flags = CONFIG_PAE, .ram = GIB_BYTES(2), .cpus = 4};

static void expect(struct machine *m, u32 got, u32 want, const char *what, int line)
{
	if (got != want)
		fail_msg("line %d: op %llu: %s is 0x%x, not 0x%x", line,
			 (unsigned long long)m->res.op, what, got, want);
}
#define is_status(m, call, want) expect(m, call, want, #call, __LINE__)
#define is_value(m, i, want)	 expect(m, (u32)(m)->res.values[i], want, "value", __LINE__)

static pfn_t alloc(struct machine *m, u32 gfp)
{
	is_status(m, machine_op(m, OP_ALLOC_PAGES, gfp, 0), STATUS_OK);
	return (pfn_t)m->res.values[0];
}

static u32 new_task(struct machine *m, u32 cpu)
{
	is_status(m, machine_op(m, OP_TASK_CREATE), STATUS_OK);
	u32 task = (u32)m->res.values[0];

	is_status(m, machine_op_on(m, cpu, 0, OP_SCHEDULE, task), STATUS_OK);
	return task;
}

static u32 write_word(struct machine *m, va_t va, u32 word)
{
	struct engine_op op = {.code = OP_ACCESS,
			       .args = {va, 4, ACCESS_WRITE, PRIVILEGE_KERNEL},
			       .data = (const u8 *)&word,
			       .data_len = 4};

	return machine_run(m, &op);
}

static u32 read_word(struct machine *m, va_t va)
{
	u32 word;

	is_status(m, machine_op(m, OP_ACCESS, va, 4, ACCESS_READ, PRIVILEGE_KERNEL), STATUS_OK);
	memcpy(&word, m->data, sizeof word);
	return word;
}

static u32 vmap_op(struct machine *m, const u32 *pfns, u32 nr, u32 prot)
{
	struct engine_op op = {.code = OP_VMAP,
			       .args = {prot},
			       .data = (const u8 *)pfns,
			       .data_len = nr * (u32)sizeof *pfns};

	return machine_run(m, &op);
}

/* ---- page tables ---- */

static void direct_map(void **state)
{
	(void)state;
	for (u32 pae = 0; pae < 2; pae++) {
		struct machine *m = machine_new(pae ? &pae_2g : &two_level_2g);
		const struct layout *l = &m->e->st->layout;
		u64 nx = pae ? PTE_NX : 0;

		/* The first span has small pages; then large ones; small ones at the edge. */
		assert_int_equal(pgtable_get(m->e, 0, 0xc0001000), 0x1163 | nx);
		assert_int_equal(pgtable_get(m->e, 0, 0xc0400000), 0x4001e3 | nx);
		u32 last = l->high_memory - PAGE_SIZE;
		assert_int_equal(pgtable_get(m->e, 0, last),
				 ((u64)(l->low_end_pfn - 1) << PAGE_SHIFT) | 0x163 | nx);
		assert_int_equal(pgtable_get(m->e, 0, l->high_memory), 0);
		/* The host window: the image, ring 3's two pages, the device. */
		assert_int_equal(pgtable_get(m->e, 0, HOST_WINDOW_VA), 0x1000163);
		assert_int_equal(pgtable_get(m->e, 0, HOST_USER_DATA_VA), 0x11ae167 | nx);
		assert_int_equal(pgtable_get(m->e, 0, HOST_USER_CODE_VA), 0x11af125);
		assert_int_equal(pgtable_get(m->e, 0, HOST_MMIO_VA), HOST_MMIO_PADDR | 0x17b | nx);
		machine_free(m);
	}
}

/* Kernel tables that are made later are seen by every mm, old and new. */
static void kernel_half_is_shared(void **state)
{
	static const struct engine_config other[] = {
	    {.preset = PRESET_ARM32, .ram = GIB_BYTES(2), .cpus = 2},
	    {.preset = PRESET_ARM32, .flags = CONFIG_PAE, .ram = GIB_BYTES(2), .cpus = 2},
	    {.preset = PRESET_PPC32, .ram = GIB_BYTES(2), .cpus = 2},
	    {.preset = PRESET_CLASSIC, .ram = GIB_BYTES(4), .page_offset = 0x78000000, .cpus = 2},
	    {.preset = PRESET_CLASSIC, .flags = CONFIG_PAE, .ram = GIB_BYTES(6), .cpus = 2},
	};
	const struct engine_config *configs[] = {&two_level_2g, &pae_2g,   &other[0], &other[1],
						 &other[2],	&other[3], &other[4]};

	(void)state;
	for (u32 i = 0; i < sizeof configs / sizeof configs[0]; i++) {
		struct machine *m = machine_new(configs[i]);
		bool below = configs[i]->preset == PRESET_ARM32;
		u32 old = new_task(m, 0);
		pfn_t pgd = task_mm(m->e, task_find(m->e, old))->pgd;
		pfn_t high = alloc(m, HIGH);

		is_status(m, machine_op(m, OP_VMALLOC, MIB_BYTES(16), 0), STATUS_OK);
		va_t va = (va_t)m->res.values[0] + MIB_BYTES(15);

		assert_true(pgtable_get(m->e, 0, va) & PTE_PRESENT);
		assert_int_equal(pgtable_get(m->e, pgd, va), pgtable_get(m->e, 0, va));
		new_task(m, 1);
		/* pkmap too, which on arm32 lies below PAGE_OFFSET. */
		is_status(m, machine_op(m, OP_KMAP, high), STATUS_OK);
		va = (va_t)m->res.values[0];
		assert_int_equal(va < m->e->page_offset, below);
		assert_int_equal(pte_pfn(pgtable_get(m->e, pgd, va)), high);
		is_status(m, write_word(m, va, 0xfeedbeef), STATUS_OK);
		machine_free(m);
	}
}

static void tables_are_counted_and_freed(void **state)
{
	(void)state;
	for (u32 pae = 0; pae < 2; pae++) {
		struct machine *m = machine_new(pae ? &pae_2g : &two_level_2g);
		u32 own = pae ? 4 : 1; /* with PAE, a directory for each of the user's GiBs */
		u32 before, span = pae ? 2u << 20 : 4u << 20;
		pfn_t pgd = pgd_alloc(m->e), pfn = alloc(m, HIGH);
		u64 pte;
		va_t va = 0;

		assert_int_equal(pgtable_count(m->e, pgd), own);
		before = zone_free_pages(m->e, ZONE_NORMAL) + zone_pcp_pages(m->e, ZONE_NORMAL);
		for (u32 i = 0; i < 3; i++)
			assert_int_equal(pgtable_set(m->e, pgd, 0x10000000 + i * span,
						     pte_make(pfn, PTE_PRESENT | PTE_USER), 0),
					 STATUS_OK);
		assert_int_equal(pgtable_count(m->e, pgd), own + 3);
		assert_true(pgtable_next(m->e, pgd, &va, 0xc0000000, &pte));
		assert_int_equal(va, 0x10000000);
		va += PAGE_SIZE;
		assert_true(pgtable_next(m->e, pgd, &va, 0xc0000000, &pte));
		assert_int_equal(va, 0x10000000 + span);
		assert_int_equal(pgtable_clear(m->e, pgd, va, 0),
				 pte_make(pfn, PTE_PRESENT | PTE_USER));
		assert_int_equal(pgtable_clear(m->e, pgd, va, 0), 0);
		assert_int_equal(pgtable_prune(m->e, pgd, 0, 0xc0000000), 1);
		assert_int_equal(pgtable_count(m->e, pgd), own + 2);
		for (u32 i = 0; i < 3; i += 2)
			pgtable_clear(m->e, pgd, 0x10000000 + i * span, 0);
		assert_int_equal(pgtable_prune(m->e, pgd, 0, 0xc0000000), 2);
		assert_int_equal(
		    zone_free_pages(m->e, ZONE_NORMAL) + zone_pcp_pages(m->e, ZONE_NORMAL), before);
		pgd_free(m->e, pgd);
		machine_check(m);
		machine_free(m);
	}
}

/* Accessed and dirty are the CPU's, and no part of the digest. */
static void digest_masks_soft_bits(void **state)
{
	(void)state;
	for (u32 pae = 0; pae < 2; pae++) {
		struct machine *m = machine_new(pae ? &pae_2g : &two_level_2g);
		pfn_t pgd = pgd_alloc(m->e), pfn = alloc(m, HIGH);
		u64 pte = pte_make(pfn, PTE_PRESENT | PTE_USER);

		pgtable_set(m->e, pgd, 0x1000, pte, WINDOW_USER);
		struct engine_digest clean = sim_digest(m->sim);

		pgtable_set(m->e, pgd, 0x1000, pte | PTE_ACCESSED | PTE_DIRTY, WINDOW_USER);
		m->e->st->event_counts[EVENT_PTE_SET]--; /* the event is state, the bits not */
		struct engine_digest soft = sim_digest(m->sim);

		pgtable_set(m->e, pgd, 0x1000, pte | PTE_WRITE, WINDOW_USER);
		m->e->st->event_counts[EVENT_PTE_SET]--;
		struct engine_digest other = sim_digest(m->sim);

		assert_memory_equal(&clean, &soft, sizeof clean);
		assert_memory_not_equal(&clean, &other, sizeof clean);
		machine_free(m);
	}
}

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
	/* On another CPU the addresses are that CPU's. */
	is_status(m, machine_op(m, OP_SCHEDULE, 0), STATUS_OK);
	is_status(m, machine_op_on(m, 1, 0, OP_SCHEDULE, a), STATUS_OK);
	assert_int_equal(read_word(m, 0xfffab010), 2222);
	is_status(m, machine_op_on(m, 1, a, OP_KUNMAP_LOCAL, 0xfffab000), STATUS_OK);
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

/* ---- fixmap ---- */

static void fixmap_slots(void **state)
{
	struct machine *m = machine_new(&two_level_2g);
	pfn_t high = alloc(m, HIGH);
	u64 paddr = (u64)high << PAGE_SHIFT;
	u32 rw = UPROT_READ | UPROT_WRITE;

	(void)state;
	is_status(m, machine_op(m, OP_KMAP, high), STATUS_OK);
	va_t kmapped = (va_t)m->res.values[0];

	is_status(m, write_word(m, kmapped + 20, 0xfeedbeef), STATUS_OK);
	is_status(m, machine_op(m, OP_SET_FIXMAP, 1536, paddr, rw), STATUS_OK);
	is_value(m, 0, 0xff9ff000); /* FIX_WP_TEST */
	assert_int_equal(read_word(m, 0xff9ff014), 0xfeedbeef);
	is_status(m, write_word(m, 0xff9ff018, 0x12345678), STATUS_OK);
	assert_int_equal(read_word(m, kmapped + 24), 0x12345678);
	is_status(m, machine_op(m, OP_KUNMAP, high), STATUS_OK);
	is_status(m, machine_op(m, OP_FREE_PAGES, high, 0), STATUS_BUSY);
	is_status(m, machine_op(m, OP_SET_FIXMAP, 1536, paddr, rw), STATUS_EXISTS);
	is_status(m, machine_op(m, OP_CLEAR_FIXMAP, 1536), STATUS_OK);
	is_status(m, machine_op(m, OP_CLEAR_FIXMAP, 1536), STATUS_NOT_FOUND);
	is_status(m, machine_op(m, OP_FREE_PAGES, high, 0), STATUS_OK);
	is_status(m, machine_op(m, OP_SET_FIXMAP, 1536, paddr, rw), STATUS_NOT_FOUND);
	is_status(m, machine_op(m, OP_SET_FIXMAP, 3, 0xfee00000, rw), STATUS_OK); /* the APIC */
	assert_int_equal(pgtable_get(m->e, 0, 0xffffc000) & (PTE_PCD | PTE_PWT), PTE_PCD | PTE_PWT);
	assert_int_equal(read_word(m, 0xffffc000), 0xffffffff);
	/* The hole, kmap_local's, the host window's, none, unaligned, beyond reach. */
	is_status(m, machine_op(m, OP_SET_FIXMAP, 0, 0xfee00000, rw), STATUS_INVALID);
	is_status(m, machine_op(m, OP_SET_FIXMAP, 68, 0xfee00000, rw), STATUS_INVALID);
	is_status(m, machine_op(m, OP_SET_FIXMAP, 579, 0xfee00000, rw), STATUS_INVALID);
	is_status(m, machine_op(m, OP_SET_FIXMAP, 600, 0xfee00000, rw), STATUS_INVALID);
	is_status(m, machine_op(m, OP_SET_FIXMAP, 1537, 0xfee00000, rw), STATUS_INVALID);
	is_status(m, machine_op(m, OP_SET_FIXMAP, 4, 0xfee00010, rw), STATUS_INVALID);
	is_status(m, machine_op(m, OP_SET_FIXMAP, 4, 0x100000000, rw), STATUS_INVALID);
	is_status(m, machine_op(m, OP_CLEAR_FIXMAP, 100), STATUS_INVALID);
	machine_free(m);
}

/* ---- vmalloc ---- */

static void vmalloc_addresses(void **state)
{
	(void)state;
	for (u32 pae = 0; pae < 2; pae++) {
		struct machine *m = machine_new(pae ? &pae_2g : &two_level_2g);
		va_t start = pae ? 0xf77fe000 : 0xf73fe000;

		is_status(m, machine_op(m, OP_VMALLOC, 1, 0), STATUS_OK);
		is_value(m, 0, start);
		is_value(m, 1, 1);
		is_status(m, machine_op(m, OP_VMALLOC, 2 * PAGE_SIZE, 0), STATUS_OK);
		is_value(m, 0, start + 0x2000);
		is_status(m, machine_op(m, OP_VMALLOC, PAGE_SIZE, GFP_KERNEL | GFP_DMA), STATUS_OK);
		is_value(m, 0, start + 0x5000);
		/* HIGHMEM first, unless DMA is asked for; the guard page maps nothing. */
		pfn_t high = pte_pfn(pgtable_get(m->e, 0, start));
		pfn_t dma = pte_pfn(pgtable_get(m->e, 0, start + 0x5000));

		assert_int_equal(zone_of_pfn(m->e, high), ZONE_HIGHMEM);
		assert_int_equal(zone_of_pfn(m->e, dma), ZONE_DMA);
		assert_int_equal(pgtable_get(m->e, 0, start + 0x4000), 0);
		is_status(m, machine_op(m, OP_FREE_PAGES, high, 0), STATUS_BUSY);
		is_status(m, write_word(m, start + 0x2ffe, 0x01020304), STATUS_OK);
		assert_int_equal(read_word(m, start + 0x2ffe), 0x01020304);
		is_status(m, write_word(m, start + 0x4000, 0), STATUS_FAULT);

		/* Not one's own, or not one at all. */
		is_status(m, machine_op(m, OP_VUNMAP, start), STATUS_INVALID);
		is_status(m, machine_op(m, OP_IOUNMAP, start), STATUS_INVALID);
		is_status(m, machine_op(m, OP_VFREE, start + 8), STATUS_INVALID);
		is_status(m, machine_op(m, OP_VFREE, start + 0x3000), STATUS_NOT_FOUND);
		is_status(m, machine_op(m, OP_VFREE, 0xc0000000), STATUS_NOT_FOUND);

		/* Frames go at once, addresses after the purge. */
		is_status(m, machine_op(m, OP_KMAP, high), STATUS_OK);
		is_status(m, machine_op(m, OP_VFREE, start), STATUS_BUSY);
		is_status(m, machine_op(m, OP_KUNMAP, high), STATUS_OK);
		is_status(m, machine_op(m, OP_VFREE, start), STATUS_OK);
		is_status(m, machine_op(m, OP_FREE_PAGES, high, 0), STATUS_DOUBLE_FREE);
		is_status(m, machine_op(m, OP_VFREE, start), STATUS_NOT_FOUND);
		is_status(m, machine_op(m, OP_VMALLOC, 1, 0), STATUS_OK);
		is_value(m, 0, start + 0x7000);
		is_status(m, machine_op(m, OP_PURGE_VMAP), STATUS_OK);
		is_value(m, 0, 1);
		is_value(m, 1, 2);
		is_status(m, machine_op(m, OP_VMALLOC, 1, 0), STATUS_OK);
		is_value(m, 0, start);
		machine_free(m);
	}
}

/* A CPU that has seen the pages may still know them: the access must fault anyway. */
static void lazily_freed_faults(void **state)
{
	struct machine *m = machine_new(&pae_2g);

	(void)state;
	is_status(m, machine_op(m, OP_VMALLOC, 4 * PAGE_SIZE, 0), STATUS_OK);
	va_t va = (va_t)m->res.values[0];

	is_status(m, write_word(m, va + PAGE_SIZE, 7), STATUS_OK);
	is_status(m, machine_op(m, OP_VFREE, va), STATUS_OK);
	machine_forget_events(m);
	is_status(m, write_word(m, va + PAGE_SIZE, 8), STATUS_FAULT);
	is_value(m, 3, va + PAGE_SIZE);
	assert_int_equal(machine_count_events(m, EVENT_TLB_FLUSH), 1);
	assert_int_equal(machine_count_events(m, EVENT_OOPS), 1);
	machine_free(m);
}

/* More than fls(cpus) x 32 MiB of lazily freed pages are purged at the op's end. */
static void purge_trigger(void **state)
{
	struct engine_config config = two_level_2g;

	(void)state;
	for (u32 cpus = 1; cpus <= 4; cpus += 3) {
		u32 limit = (cpus == 1 ? 1 : 3) * 8192, area = 1024; /* with guard */

		config.cpus = cpus;
		struct machine *m = machine_new(&config);

		for (u32 lazy = area; lazy <= limit; lazy += area) {
			is_status(m, machine_op(m, OP_VMALLOC, (area - 1) * PAGE_SIZE, 0),
				  STATUS_OK);
			is_status(m, machine_op(m, OP_VFREE, m->res.values[0]), STATUS_OK);
			assert_int_equal(m->e->st->map.vmap.lazy_pages, lazy);
		}
		is_status(m, machine_op(m, OP_VMALLOC, 1, 0), STATUS_OK);
		machine_forget_events(m);
		is_status(m, machine_op(m, OP_VFREE, m->res.values[0]), STATUS_OK);
		assert_int_equal(machine_count_events(m, EVENT_VMAP_PURGE), 1);
		assert_int_equal(m->e->st->map.vmap.lazy_pages, 0);
		machine_free(m);
	}
}

/* How many areas of 4 MiB fit, from where the recording's first was. */
static void vmap_capacity(void **state)
{
	static const struct {
		u32 vmalloc_bytes, areas;
		va_t first, end;
	} recorded[] = {{0, 26, 0xf875f000, 0xfeffe000}, {256u << 20, 60, 0xeff5f000, 0xfeffe000}};

	(void)state;
	for (u32 i = 0; i < 2; i++) {
		struct engine_config config = pae_2g;

		config.vmalloc_bytes = recorded[i].vmalloc_bytes;
		struct machine *m = machine_new(&config);
		pfn_t low = alloc(m, GFP_KERNEL), list[1024];
		va_t start = m->e->st->layout.vmalloc_start, last = 0;
		/* Device memory up to there: aligned to a large page, and a guard. */
		va_t from = (start + 0x1fffff) & ~0x1fffffu;
		u32 areas = 0;

		is_status(
		    m, machine_op(m, OP_IOREMAP, 0xd0000000, recorded[i].first - PAGE_SIZE - from),
		    STATUS_OK);
		is_value(m, 0, from);
		for (u32 k = 0; k < 1024; k++)
			list[k] = low;
		m->unchecked = true;
		while (vmap_op(m, list, 1024, 0) == STATUS_OK) {
			last = (va_t)m->res.values[0];
			assert_int_equal(last, recorded[i].first + areas * 0x401000);
			areas++;
		}
		assert_int_equal(m->res.status, STATUS_NO_SPACE);
		assert_int_equal(areas, recorded[i].areas);
		machine_check(m);
		/* Freed addresses are used before an allocation gives up. */
		is_status(m, machine_op(m, OP_VUNMAP, last), STATUS_OK);
		is_status(m, vmap_op(m, list, 1024, 0), STATUS_OK);
		is_value(m, 0, last);
		machine_check(m);
		machine_free(m);
	}
}

static void vmap_frames_stay_the_callers(void **state)
{
	struct machine *m = machine_new(&pae_2g);
	u32 pfns[3] = {alloc(m, HIGH), alloc(m, GFP_KERNEL), 0};

	(void)state;
	pfns[2] = pfns[0];
	is_status(m, vmap_op(m, pfns, 3, 0), STATUS_OK);
	va_t va = (va_t)m->res.values[0];

	is_status(m, write_word(m, va + 8, 42), STATUS_OK);
	assert_int_equal(read_word(m, va + 0x2008), 42);
	is_status(m, machine_op(m, OP_FREE_PAGES, pfns[0], 0), STATUS_BUSY);
	is_status(m, machine_op(m, OP_VFREE, va), STATUS_INVALID);
	is_status(m, machine_op(m, OP_VUNMAP, va), STATUS_OK);
	is_status(m, machine_op(m, OP_FREE_PAGES, pfns[0], 0), STATUS_OK);
	is_status(m, vmap_op(m, pfns, 3, 0), STATUS_NOT_FOUND);
	is_status(m, vmap_op(m, pfns + 1, 0, 0), STATUS_INVALID);
	/* Read-only is read-only. */
	is_status(m, vmap_op(m, pfns + 1, 1, UPROT_READ), STATUS_OK);
	is_status(m, write_word(m, (va_t)m->res.values[0], 1), STATUS_FAULT);
	is_value(m, 2, FAULT_PROTECTION | FAULT_WRITE);
	/* The engine's own frames are not the caller's. */
	pfns[0] = m->e->st->map.kernel_pgd;
	is_status(m, vmap_op(m, pfns, 1, 0), STATUS_INVALID);
	new_task(m, 0);
	pfns[0] = task_mm(m->e, task_find(m->e, 1))->pgd;
	is_status(m, vmap_op(m, pfns, 1, 0), STATUS_BUSY);
	machine_free(m);
}

static void ioremap_rules(void **state)
{
	struct machine *m = machine_new(&two_level_2g);
	va_t start = 0xf73fe000;

	(void)state;
	is_status(m, machine_op(m, OP_IOREMAP, 0x7ffe1000, 0x1000), STATUS_INVALID); /* RAM */
	is_status(m, machine_op(m, OP_IOREMAP, 0x7ffff000, 0x2000), STATUS_INVALID);
	is_status(m, machine_op(m, OP_IOREMAP, 0xfffff000, 0x2000), STATUS_INVALID);
	is_status(m, machine_op(m, OP_IOREMAP, 0x100000000, 0x1000), STATUS_INVALID);
	is_status(m, machine_op(m, OP_IOREMAP, 0xa0000, 0x20000), STATUS_OK); /* video memory */
	/* Aligned to its size: 0xf7400000. */
	is_value(m, 0, 0xf7400000);
	is_status(m, machine_op(m, OP_IOREMAP, 0xfed00010, 4), STATUS_OK);
	is_value(m, 0, start + 0x10);
	assert_int_equal(pgtable_get(m->e, 0, start), 0xfed0017b);
	assert_int_equal(read_word(m, start + 0x10), 0xffffffff);
	is_status(m, write_word(m, start + 0x10, 0), STATUS_OK);
	assert_int_equal(read_word(m, start + 0x10), 0xffffffff);
	is_status(m, machine_op(m, OP_VFREE, start), STATUS_INVALID);
	is_status(m, machine_op(m, OP_IOUNMAP, start + 0x10), STATUS_OK);
	is_status(m, machine_op(m, OP_IOUNMAP, start + 0x10), STATUS_NOT_FOUND);
	machine_free(m);
}

static u32 all_free(const struct machine *m)
{
	u32 n = 0;

	for (u32 z = 0; z < NR_ZONES; z++)
		n += zone_free_pages(m->e, z) + zone_pcp_pages(m->e, z);
	return n;
}

/* All or nothing: what was taken goes back, and the events tell both. */
static void vmalloc_rolls_back(void **state)
{
	struct engine_config config = {.preset = PRESET_LINUX_6_1, .ram = MIB_BYTES(64)};
	struct machine *m = machine_new(&config);
	u32 managed = 0, allocated = 0, freed = 0, set = 0, cleared = 0, before;

	(void)state;
	for (u32 z = 0; z < NR_ZONES; z++)
		managed += m->e->st->frames.zone[z].managed;
	is_status(m, machine_op(m, OP_VMALLOC, (u64)(managed + 1) << PAGE_SHIFT, 0),
		  STATUS_NO_MEMORY);
	/* The first call makes kernel tables, which stay. */
	is_status(m, machine_op(m, OP_VMALLOC, (u64)managed << PAGE_SHIFT, 0), STATUS_NO_MEMORY);
	is_status(m, machine_op(m, OP_PURGE_VMAP), STATUS_OK);
	before = all_free(m);
	machine_forget_events(m);
	is_status(m, machine_op(m, OP_VMALLOC, (u64)managed << PAGE_SHIFT, 0), STATUS_NO_MEMORY);
	assert_int_equal(m->e->st->map.vmap.used_pages, 0);
	for (u32 i = 0; i < m->nr_events; i++) {
		allocated += m->events[i].kind == EVENT_ALLOC;
		freed += m->events[i].kind == EVENT_FREE;
		set += m->events[i].kind == EVENT_PTE_SET;
		cleared += m->events[i].kind == EVENT_PTE_CLEARED;
	}
	assert_true(set > 4096);
	assert_int_equal(set, cleared);
	is_status(m, machine_op(m, OP_PURGE_VMAP), STATUS_OK);
	assert_int_equal(all_free(m), before);
	print_message("%u allocated, %u freed\n", allocated, freed);
	machine_free(m);
}

/* ---- areas against a naive list ---- */

enum { NAIVE_MAX = 4000 };

struct naive {
	u32 nr;
	struct area area[NAIVE_MAX];
};

static u32 naive_position(const struct naive *n, va_t va)
{
	u32 i = 0;

	while (i < n->nr && n->area[i].end <= va)
		i++;
	return i;
}

static va_t naive_lowest(const struct naive *n, u64 low, u64 high, u32 size, u32 align)
{
	for (u32 i = 0; i <= n->nr; i++) {
		u64 from = i ? n->area[i - 1].end : 0, to = i < n->nr ? n->area[i].start : high;

		from = from > low ? from : low;
		to = to < high ? to : high;
		from = (from + align - 1) / align * align;
		if (from + size <= to)
			return (va_t)from;
	}
	return 0;
}

static va_t naive_highest(const struct naive *n, u64 low, u64 high, u32 size, u32 align)
{
	for (u32 i = n->nr + 1; i-- > 0;) {
		u64 from = i ? n->area[i - 1].end : 0, to = i < n->nr ? n->area[i].start : high;

		from = from > low ? from : low;
		to = to < high ? to : high;
		if (to >= size && (to - size) / align * align >= from)
			return (va_t)((to - size) / align * align);
	}
	return 0;
}

static void compare_areas(struct engine *e, struct area_map *map, const struct naive *n)
{
	u32 i = 0;

	assert_null(area_map_check(e, map));
	assert_int_equal(map->nr_areas, n->nr);
	for (struct area *a = area_find_next(e, map, 0); a; a = area_find_next(e, map, a->end), i++)
		assert_memory_equal(a, &n->area[i], sizeof *a);
	assert_int_equal(i, n->nr);
}

static void areas_against_list(void **state)
{
	struct machine *m = machine_new(&two_level_2g);
	struct random r = random_seeded(20261122);
	struct naive *n = calloc(1, sizeof *n);
	struct area_map map = {0};
	struct engine *e = m->e;
	const u64 low = 0x10000, high = 0x30000000;
	u32 free_before = all_free(m);

	(void)state;
	for (u32 step = 0; step < 60000; step++) {
		bool grow =
		    step / 10000 % 2 == 0 ? random_below(&r, 10) < 8 : random_below(&r, 10) < 3;
		u32 size = (u32)(1 + random_below(&r, 16)) << PAGE_SHIFT;
		u32 align = PAGE_SIZE << random_below(&r, 4);
		va_t hint = (va_t)(low + (random_below(&r, high - low) & ~0xfffULL));
		u32 p = naive_position(n, hint);
		struct area *found = area_find_next(e, &map, hint);

		assert_int_equal(found != NULL, p < n->nr);
		if (found)
			assert_int_equal(found->start, n->area[p].start);
		found = area_find(e, &map, hint);
		assert_int_equal(found != NULL, p < n->nr && n->area[p].start <= hint);
		u32 below = p + (p < n->nr && n->area[p].start < hint);

		found = area_find_prev(e, &map, hint);
		assert_int_equal(found != NULL, below > 0);
		if (found)
			assert_int_equal(found->start, n->area[below - 1].start);
		if (grow && n->nr < NAIVE_MAX) {
			bool top = random_below(&r, 2);
			va_t from = random_below(&r, 4) ? (va_t)low : hint;
			va_t va = top ? area_highest_fit(e, &map, from, (va_t)high, size, align)
				      : area_lowest_fit(e, &map, from, (va_t)high, size, align);

			assert_int_equal(va, top ? naive_highest(n, from, high, size, align)
						 : naive_lowest(n, from, high, size, align));
			if (!va)
				continue;
			/* Leave holes, now and then. */
			struct area a = {va, va + size, 3, step, 0, 0};

			if (random_below(&r, 3) == 0 && size > PAGE_SIZE)
				a.end -= PAGE_SIZE;
			if (random_below(&r, 5) == 0)
				assert_int_equal(area_reserve(e, &map, 2), STATUS_OK);
			assert_int_equal(area_insert(e, &map, &a), STATUS_OK);
			u32 at = naive_position(n, a.start);

			memmove(&n->area[at + 1], &n->area[at], (n->nr - at) * sizeof a);
			n->area[at] = a;
			n->nr++;
		} else if (p < n->nr && random_below(&r, 4) == 0 &&
			   n->area[p].end - n->area[p].start > PAGE_SIZE) {
			area_resize(e, &map, n->area[p].start, n->area[p].start,
				    n->area[p].end - PAGE_SIZE);
			n->area[p].end -= PAGE_SIZE;
		} else if (p < n->nr) {
			area_remove(e, &map, n->area[p].start);
			n->nr--;
			memmove(&n->area[p], &n->area[p + 1], (n->nr - p) * sizeof n->area[0]);
		}
		if (step % 500 == 0)
			compare_areas(e, &map, n);
	}
	compare_areas(e, &map, n);
	assert_true(map.nr_leaves > 64); /* the directory has had more than one piece */
	area_map_clear(e, &map);
	assert_int_equal(map.directory | map.nr_leaves | map.nr_areas | map.spare, 0);
	assert_int_equal(all_free(m), free_before);
	free(n);
	machine_free(m);
}

/* ---- the audit sees lies ---- */

static void audit_sees(struct machine *m, u32 *word, u32 lie)
{
	struct engine_error why = {""};
	u32 truth = *word;

	machine_check(m);
	*word = lie;
	assert_non_null(engine_check(m->e, &why));
	assert_true(why.text[0]);
	*word = truth;
	machine_check(m);
}

static void audit_finds_lies(void **state)
{
	struct machine *m = machine_new(&two_level_2g);
	struct map_state *map = &m->e->st->map;
	pfn_t high = alloc(m, HIGH);
	pfn_t pgd = task_mm(m->e, task_find(m->e, new_task(m, 1)))->pgd;

	(void)state;
	machine_op(m, OP_KMAP, high);
	machine_op(m, OP_KMAP_LOCAL, high);
	machine_op(m, OP_VMALLOC, 3 * PAGE_SIZE, 0);
	va_t va = (va_t)m->res.values[0];

	machine_op(m, OP_SET_FIXMAP, 1536, (u64)high << PAGE_SHIFT, UPROT_READ);
	audit_sees(m, &map->pkmap.count[1], 3);
	audit_sees(m, &map->pkmap.count[2], 1);
	audit_sees(m, &map->pkmap.used, 0);
	audit_sees(m, &map->pkmap.nr_sleepers, 1);
	audit_sees(m, &page_of(m->e, high)->slot, 0);
	audit_sees(m, &page_of(m->e, high)->ref, 2);
	audit_sees(m, &m->e->st->user.cpu[0].kmap.atomic, 1);
	audit_sees(m, &m->e->st->user.cpu[0].kmap.entry[0].pfn, high + 1);
	audit_sees(m, &map->vmap.used_pages, 2);
	audit_sees(m, &map->vmap.lazy_areas, 1);
	audit_sees(m, &area_find(m->e, &map->vmap.areas, va)->a, 2);
	audit_sees(m, &map->fixmap_used[1536 / 32], 0);
	audit_sees(m, &map->fixmap_used[0], 4);
	/* Entries: a guard page's, a direct-map one, an mm's copy of the kernel's part. */
	struct pgtable_step step[3];
	u32 n = pgtable_walk(m->e, 0, va + 3 * PAGE_SIZE, step);

	assert_int_equal(n, 2);
	audit_sees(m, at(m->e, m->e->page_offset + (u32)step[1].entry_paddr), 0x80000163);
	pgtable_walk(m->e, 0, 0xc0010000, step);
	audit_sees(m, at(m->e, m->e->page_offset + (u32)step[1].entry_paddr), 0x11163);
	pgtable_walk(m->e, pgd, va, step);
	audit_sees(m, at(m->e, m->e->page_offset + (u32)step[0].entry_paddr), 0);
	machine_free(m);
}

/* ---- inspections ---- */

struct report {
	struct inspect_sink sink;
	char text[65536];
	u32 length, rows, row_type[256];
	u64 values[256][16];
};

static void keep_text(struct inspect_sink *sink, const char *bytes, u32 length)
{
	struct report *r = (struct report *)sink;

	assert_true(r->length + length < sizeof r->text);
	memcpy(r->text + r->length, bytes, length);
	r->length += length;
	r->text[r->length] = 0;
}

static void keep_row(struct inspect_sink *sink, u32 type, const u64 *values, u32 nr)
{
	struct report *r = (struct report *)sink;

	assert_true(r->rows < 256 && nr <= 16);
	r->row_type[r->rows] = type;
	memcpy(r->values[r->rows++], values, nr * sizeof *values);
}

static struct report *inspect(struct machine *m, u32 question, u64 a, u64 b)
{
	static struct report r;
	const u64 args[OP_ARGS] = {a, b};

	memset(&r, 0, sizeof r);
	r.sink = (struct inspect_sink){keep_text, keep_row, true, true};
	assert_int_equal(engine_inspect(m->e, question, args, &r.sink), STATUS_OK);
	return &r;
}

static void inspections(void **state)
{
	struct machine *m = machine_new(&two_level_2g);
	pfn_t high = alloc(m, HIGH);
	u32 task = new_task(m, 1);
	struct report *r;
	static const u32 windows[] = {WINDOW_VMALLOC, WINDOW_PKMAP, WINDOW_FIXMAP,
				      WINDOW_KMAP_LOCAL};

	(void)state;
	is_status(m, machine_op(m, OP_VMALLOC, 32 * PAGE_SIZE, 0), STATUS_OK);
	is_status(m, machine_op(m, OP_IOREMAP, 0xfed00000, 0x400), STATUS_OK);
	is_status(m, vmap_op(m, &high, 1, 0), STATUS_OK);
	is_status(m, machine_op(m, OP_VFREE, 0xf73fe000), STATUS_OK);
	r = inspect(m, INSPECT_VMALLOCINFO, 0, 0);
	assert_string_equal(r->text, "0xf741f000-0xf7421000    8192 phys=0xfed00000 ioremap\n"
				     "0xf7421000-0xf7423000    8192 vmap\n"
				     "0xf73fe000-0xf741f000  135168 unpurged vm_area\n");
	assert_int_equal(r->rows, 3);
	assert_int_equal(r->values[2][2], VMAP_LAZY);

	/* Every mapping of one frame. */
	is_status(m, machine_op(m, OP_KMAP, high), STATUS_OK);
	is_status(m, machine_op_on(m, 1, task, OP_KMAP_LOCAL, high), STATUS_OK);
	is_status(m, machine_op(m, OP_SET_FIXMAP, 5, (u64)high << PAGE_SHIFT, UPROT_READ),
		  STATUS_OK);
	r = inspect(m, INSPECT_PAGE, high, 0);
	assert_int_equal(r->row_type[0], ROW_PAGE_FRAME);
	assert_int_equal(r->values[0][1], FRAME_ALLOCATED);
	assert_int_equal(r->values[0][2], ZONE_HIGHMEM);
	assert_int_equal(r->values[0][6], 4);
	assert_int_equal(r->rows, 5);
	for (u32 i = 0; i < 4; i++) {
		bool seen = false;

		for (u32 k = 1; k < 5; k++)
			seen |= r->values[k][0] == windows[i];
		assert_true(seen);
	}
	r = inspect(m, INSPECT_PAGE, m->e->st->map.kernel_pgd, 0);
	assert_int_equal(r->values[0][1], FRAME_PAGE_TABLE);
	assert_int_equal(r->values[1][0], WINDOW_DIRECT);

	r = inspect(m, INSPECT_WALK, 0xc0400123, task);
	assert_int_equal(r->rows, 2);
	assert_int_equal(r->values[0][2], 0x4001e3);
	assert_int_equal(r->values[1][1], 0x400123);
	assert_int_equal(r->values[1][2], 4 << 20);
	r = inspect(m, INSPECT_WALK, 0x1000, 0);
	assert_int_equal(r->values[r->rows - 1][0], 0);

	r = inspect(m, INSPECT_KMAP_WINDOW, 0, 0);
	assert_int_equal(r->row_type[0], ROW_KMAP_WINDOW_SUMMARY);
	assert_int_equal(r->values[0][3], 1);
	assert_int_equal(r->values[1][2], high);
	machine_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(direct_map),
	    cmocka_unit_test(kernel_half_is_shared),
	    cmocka_unit_test(tables_are_counted_and_freed),
	    cmocka_unit_test(digest_masks_soft_bits),
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
	    cmocka_unit_test(fixmap_slots),
	    cmocka_unit_test(vmalloc_addresses),
	    cmocka_unit_test(lazily_freed_faults),
	    cmocka_unit_test(purge_trigger),
	    cmocka_unit_test(vmap_capacity),
	    cmocka_unit_test(vmap_frames_stay_the_callers),
	    cmocka_unit_test(ioremap_rules),
	    cmocka_unit_test(vmalloc_rolls_back),
	    cmocka_unit_test(areas_against_list),
	    cmocka_unit_test(audit_finds_lies),
	    cmocka_unit_test(inspections),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
