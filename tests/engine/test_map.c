/*
 * test_map.c - page tables, fixmap, vmalloc, the ordered map of areas, and the audit
 * of all that. Addresses are those recorded on Debian's Linux 6.1 kernels.
 *
 * One test plays areas against a naive list with a seed (environment SEED).
 */
#include "map_ops.h"

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
		/* The host window: the image, ring 3's two pages, the devices. */
		assert_int_equal(pgtable_get(m->e, 0, HOST_WINDOW_VA), 0x1000163);
		assert_int_equal(pgtable_get(m->e, 0, HOST_USER_DATA_VA), 0x11ae167 | nx);
		assert_int_equal(pgtable_get(m->e, 0, HOST_USER_CODE_VA), 0x11af125);
		assert_int_equal(pgtable_get(m->e, 0, HOST_MMIO_VA), HOST_MMIO_PADDR | 0x17b | nx);
		assert_int_equal(pgtable_get(m->e, 0, HOST_LAPIC_VA),
				 HOST_LAPIC_PADDR | 0x17b | nx);
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

/* ---- vmalloc against as many single pages ---- */

/* What happened to frames and zones since the last call: all but an area, its PTEs, and what
 * became of its addresses. */
static u32 take_frame_events(struct machine *m)
{
	u32 n = 0;

	for (u32 i = 0; i < m->nr_events; i++) {
		const struct engine_event *ev = &m->events[i];

		if (ev->kind == EVENT_VMAP_AREA || ev->kind == EVENT_VMAP_PURGE ||
		    (ev->kind == EVENT_TLB_FLUSH && ev->w[0] == FLUSH_VMAP_PURGE) ||
		    ((ev->kind == EVENT_PTE_SET || ev->kind == EVENT_PTE_CLEARED) &&
		     ev->w[0] == WINDOW_VMALLOC))
			continue;
		m->events[n++] = *ev;
	}
	return n;
}

static void same_frame_events(struct machine *a, struct machine *b)
{
	u32 n = take_frame_events(a);

	assert_int_equal(take_frame_events(b), n);
	assert_memory_equal(a->events, b->events, n * sizeof *a->events);
	machine_forget_events(a);
	machine_forget_events(b);
}

/* Allocations and frees of any order on both machines, so that lists and zones differ from
 * round to round. Returns how many blocks are kept. */
static u32 stir(struct machine *a, struct machine *b, struct random *r, struct engine_op *kept,
		u32 nr)
{
	static const u32 gfps[] = {GFP_KERNEL, GFP_HIGHUSER, GFP_HIGHUSER_MOVABLE, GFP_DMA};
	u32 steps = (u32)random_below(r, 600);

	for (u32 i = 0; i < steps; i++) {
		u32 at = nr ? (u32)random_below(r, nr) : 0, cpu = (u32)random_below(r, 2);

		if (random_below(r, 2) && nr < 2000) {
			u32 order = random_below(r, 3) ? 0 : (u32)random_below(r, 6);

			machine_op_on(b, cpu, 0, OP_ALLOC_PAGES, gfps[at % 4], order);
			if (machine_op_on(a, cpu, 0, OP_ALLOC_PAGES, gfps[at % 4], order))
				continue;
			kept[nr++] = (struct engine_op){
			    .code = OP_FREE_PAGES, .cpu = cpu, .args = {a->res.values[0], order}};
		} else if (nr) {
			is_status(a, machine_run(a, &kept[at]), STATUS_OK);
			is_status(b, machine_run(b, &kept[at]), STATUS_OK);
			kept[at] = kept[--nr];
		}
	}
	return nr;
}

/* On one machine vmalloc and vfree, on the other the same with AllocPages and FreePages. */
static bool one_area(struct machine *a, struct machine *b, u32 cpu, u32 pages, u32 gfp)
{
	static pfn_t pfn[20000];
	u32 status = machine_op_on(a, cpu, 0, OP_VMALLOC, pages * PAGE_SIZE, gfp), done = 0;
	bool full = status != STATUS_OK;
	va_t va = (va_t)a->res.values[0];

	gfp = gfp & __GFP_DMA ? gfp : gfp | __GFP_HIGHMEM;
	while (done < pages && machine_op_on(b, cpu, 0, OP_ALLOC_PAGES, gfp, 0) == STATUS_OK)
		pfn[done++] = (pfn_t)b->res.values[0];
	assert_int_equal(status, done == pages ? STATUS_OK : STATUS_NO_MEMORY);
	if (!full) {
		same_frame_events(a, b);
		is_status(a, machine_op_on(a, cpu, 0, OP_VFREE, va), STATUS_OK);
	}
	for (u32 i = 0; i < done; i++)
		is_status(b,
			  machine_op_on(b, cpu, 0, OP_FREE_PAGES, pfn[full ? done - 1 - i : i], 0),
			  STATUS_OK);
	same_frame_events(a, b);
	machine_op(a, OP_PURGE_VMAP);
	machine_forget_events(a);
	return full;
}

/* What areas need besides is pages, too: their tables, and where they are noted. Then little
 * memory is left, or much. */
static void settle(struct machine *m, bool scarce)
{
	pfn_t last[8] = {0};

	m->unchecked = true;
	is_status(m, machine_op(m, OP_VMALLOC, PAGE_SIZE, 0), STATUS_OK);
	is_status(m, machine_op(m, OP_VMALLOC, 10000 * PAGE_SIZE, 0), STATUS_OK);
	is_status(m, machine_op(m, OP_VFREE, m->res.values[0]), STATUS_OK);
	is_status(m, machine_op(m, OP_PURGE_VMAP), STATUS_OK);
	for (u32 i = 0; scarce; i++) {
		if (machine_op(m, OP_ALLOC_PAGES, GFP_HIGHUSER_MOVABLE, 10) != STATUS_OK)
			break;
		last[i % 8] = (pfn_t)m->res.values[0];
	}
	for (u32 i = 0; scarce && i < 8; i++)
		is_status(m, machine_op(m, OP_FREE_PAGES, last[i], 10), STATUS_OK);
	machine_forget_events(m);
}

static void vmalloc_is_single_pages(void **state)
{
	static const struct engine_config configs[] = {
	    {.preset = PRESET_LINUX_6_1, .flags = CONFIG_PAE, .ram = MIB_BYTES(1100), .cpus = 2},
	    {.preset = PRESET_LINUX_6_1, .ram = MIB_BYTES(700), .cpus = 2},
	};
	static const u32 gfps[] = {GFP_KERNEL, GFP_KERNEL,
				   GFP_DMA,    GFP_ATOMIC,
				   GFP_NOWAIT, GFP_KERNEL | __GFP_ZERO,
				   GFP_USER,   GFP_KERNEL | __GFP_RECLAIMABLE};
	static struct engine_op kept[2000];
	struct random r = random_seeded(20261130);

	(void)state;
	for (u32 i = 0; i < 4; i++) {
		struct machine *a = machine_new(&configs[i / 2]), *b = machine_new(&configs[i / 2]);
		bool scarce = i % 2;
		u32 nr = 0, failed = 0;

		settle(a, scarce);
		settle(b, scarce);
		for (u32 round = 0; round < 60; round++) {
			u32 most = random_below(&r, 3) ? 40 : 3000;
			u32 pages = round % 10 == 9 ? 9999 : 1 + (u32)random_below(&r, most);

			nr = stir(a, b, &r, kept, nr);
			same_frame_events(a, b);
			failed += one_area(a, b, (u32)random_below(&r, 2), pages,
					   gfps[random_below(&r, 8)]);
			machine_check(a);
			machine_check(b);
		}
		assert_true(failed > 0 || !scarce);
		machine_free(a);
		machine_free(b);
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

static void remove_kind(struct engine *e, struct area_map *map, struct naive *n, u32 kind)
{
	va_t first = 0, last = 0, start, end;
	u32 left = 0;

	for (u32 i = 0; i < n->nr; i++) {
		if (n->area[i].kind == kind) {
			first = last ? first : n->area[i].start;
			last = n->area[i].end;
		} else {
			n->area[left++] = n->area[i];
		}
	}
	assert_true(left < n->nr);
	n->nr = left;
	area_remove_kind(e, map, kind, &start, &end);
	assert_int_equal(start, first);
	assert_int_equal(end, last);
	compare_areas(e, map, n);
	area_remove_kind(e, map, kind, &start, &end);
	assert_int_equal(start | end, 0);
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
		u32 align = (u32)PAGE_SIZE << random_below(&r, 4);
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
			struct area a = {va, va + size, 3 + (u32)random_below(&r, 2), step, 0, 0};

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
		if (step % 7000 == 6999)
			remove_kind(e, &map, n, 4);
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
	/* Those of pkmap and kmap_local with the right frame and without the right to write. */
	const va_t kmaps[] = {m->e->st->layout.pkmap_start +
				  ((page_of(m->e, high)->slot - 1) << PAGE_SHIFT),
			      m->e->st->user.cpu[0].kmap.entry[0].va};

	for (u32 i = 0; i < 2; i++) {
		pgtable_walk(m->e, 0, kmaps[i], step);
		audit_sees(m, at(m->e, m->e->page_offset + (u32)step[1].entry_paddr),
			   (u32)(step[1].entry & ~PTE_WRITE));
	}
	machine_free(m);
}

/* Tables that are not boot's are no machine's, wherever they are said to be. */
static void no_machine_without_tables(void **state)
{
	const struct engine_config *const configs[] = {&two_level_2g, &pae_2g};

	(void)state;
	for (u32 i = 0; i < 2; i++) {
		struct machine *m = machine_new(configs[i]);
		struct engine again = *m->e;
		pfn_t *pgd = &m->e->st->map.kernel_pgd, truth = *pgd;
		const pfn_t lies[] = {0, alloc(m, GFP_KERNEL), alloc(m, HIGH), 0xffffffff};

		for (u32 lie = 0; lie < sizeof lies / sizeof lies[0]; lie++) {
			*pgd = lies[lie];
			assert_false(engine_attach(&again, configs[i]));
		}
		*pgd = truth;
		assert_true(engine_attach(&again, configs[i]));
		machine_free(m);
	}
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
	    cmocka_unit_test(fixmap_slots),
	    cmocka_unit_test(vmalloc_addresses),
	    cmocka_unit_test(lazily_freed_faults),
	    cmocka_unit_test(purge_trigger),
	    cmocka_unit_test(vmalloc_is_single_pages),
	    cmocka_unit_test(vmap_capacity),
	    cmocka_unit_test(vmap_frames_stay_the_callers),
	    cmocka_unit_test(ioremap_rules),
	    cmocka_unit_test(vmalloc_rolls_back),
	    cmocka_unit_test(areas_against_list),
	    cmocka_unit_test(audit_finds_lies),
	    cmocka_unit_test(no_machine_without_tables),
	    cmocka_unit_test(inspections),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
