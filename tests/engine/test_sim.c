/*
 * test_sim.c - the simulation's body: what the software MMU makes of tables, what TLBs
 * keep, RAM that costs what was touched, ops in slices, and machines that are lost.
 */
#include "fixture.h"

#include "map/pgtable.h"
#include "mmu.h"
#include "sim_internal.h"

static struct machine *small_machine(bool pae)
{
	struct engine_config config = {.preset = PRESET_CLASSIC,
				       .flags = pae ? CONFIG_PAE : 0,
				       .ram = MIB_BYTES(2048),
				       .cpus = 2};

	return machine_new(&config);
}

/* ---- the walk, against the architecture's rules written down a second time ---- */

/* Tables of a test's own, in frames that nobody uses: 64 MiB and up. */
enum { TOP = 64 << 20, DIRECTORY = TOP + PAGE_SIZE, TABLE = TOP + 2 * PAGE_SIZE };
static const u32 FRAME = 80 << 20; /* what they map; 4 MiB aligned */
static const va_t VA = 0x40c03000;

static void put_entry(struct sim *s, u32 paddr, u64 entry)
{
	memcpy(sim_ram(s, paddr), &entry, s->pae ? 8 : 4);
}

static u64 get_entry(struct sim *s, u32 paddr)
{
	u64 entry = 0;

	memcpy(&entry, sim_ram(s, paddr), s->pae ? 8 : 4);
	return entry;
}

static u32 directory_entry(const struct sim *s)
{
	return s->pae ? DIRECTORY + (VA >> 21 & 511) * 8 : TOP + (VA >> 22) * 4;
}

static u32 table_entry(const struct sim *s)
{
	return s->pae ? TABLE + (VA >> 12 & 511) * 8 : TABLE + (VA >> 12 & 1023) * 4;
}

/* VA maps FRAME, or a large page that begins there, with these bits on the two levels. */
static void build(struct sim *s, u64 pde, u64 pte)
{
	if (s->pae)
		put_entry(s, TOP + (VA >> 30) * 8, DIRECTORY | PTE_PRESENT);
	put_entry(s, directory_entry(s), (pde & PTE_LARGE ? FRAME : TABLE) | pde);
	put_entry(s, table_entry(s), FRAME | pte);
}

struct expected {
	bool ok;
	u32 error, frame;
};

/* The rules, from the SDM's tables 4-2 to 4-11 and figure 4-12, for CR0.WP = 1. */
static struct expected expect(bool pae, u64 pde, u64 pte, const struct mmu_access *a)
{
	bool write = a->mode == ACCESS_WRITE, fetch = a->mode == ACCESS_EXECUTE;
	u32 base = (write ? 2u : 0) | (a->user ? 4u : 0) | (fetch && pae ? 16u : 0);
	bool large = pde & PTE_LARGE;
	u64 reserved = pae ? 0x7fffff0000000000ULL : 0;
	u64 large_reserved = pae ? reserved | 0x1fe000 : 0x200000;
	bool user_ok, write_ok, fetch_ok;

	if (!(pde & 1))
		return (struct expected){false, base, 0};
	if (pde & (large ? large_reserved : reserved))
		return (struct expected){false, base | 9, 0};
	if (!large && !(pte & 1))
		return (struct expected){false, base, 0};
	if (!large && pte & reserved)
		return (struct expected){false, base | 9, 0};
	user_ok = pde & 4 && (large || pte & 4);
	write_ok = pde & 2 && (large || pte & 2);
	fetch_ok = !pae || !(pde >> 63 || (!large && pte >> 63));
	if ((a->user && !user_ok) || (write && !write_ok) || (fetch && !fetch_ok))
		return (struct expected){false, base | 1, 0};
	return (struct expected){true, 0,
				 large ? FRAME | (VA & (pae ? 0x1ff000 : 0x3ff000)) : FRAME};
}

static void check_walk(struct sim *s, u64 pde, u64 pte, const struct mmu_access *a)
{
	struct expected want;
	translation_t t;
	u32 error = 0;
	u64 pde_after, pte_after;

	build(s, pde, pte);
	want = expect(s->pae, pde, pte, a);
	t = mmu_walk(s, TOP, a, true, &error);
	if (want.ok != (t != 0) || (!t && error != want.error) ||
	    (t && (t & MMU_FRAME) != want.frame))
		fail_msg(
		    "pae %d pde %llx pte %llx mode %u user %d: %llx error %x, expected %d %x %x",
		    s->pae, (unsigned long long)pde, (unsigned long long)pte, a->mode, a->user,
		    (unsigned long long)t, error, want.ok, want.error, want.frame);
	/* Accessed on the way, dirty by a write alone, and neither in what faulted. */
	pde_after = get_entry(s, directory_entry(s));
	pte_after = get_entry(s, table_entry(s));
	if (pde & PTE_LARGE) {
		assert_int_equal(pde_after & PTE_ACCESSED, want.ok ? PTE_ACCESSED : 0);
		assert_int_equal(pde_after & PTE_DIRTY,
				 want.ok && a->mode == ACCESS_WRITE ? PTE_DIRTY : 0);
		assert_int_equal(pte_after & (PTE_ACCESSED | PTE_DIRTY), 0);
	} else {
		assert_int_equal(pte_after & PTE_ACCESSED, want.ok ? PTE_ACCESSED : 0);
		assert_int_equal(pte_after & PTE_DIRTY,
				 want.ok && a->mode == ACCESS_WRITE ? PTE_DIRTY : 0);
		assert_int_equal(pde_after & PTE_DIRTY, 0);
	}
}

/* Every combination of rights on both levels, present or not, small or large, with and
 * without reserved bits, for each kind of access. */
static void walk_everything(bool pae)
{
	static const u64 odd_pde[] = {0, 0x2000, 0x200000, 1ULL << 40, 1ULL << 62};
	static const u64 odd_pte[] = {0, 1ULL << 40, 1ULL << 52};
	struct machine *m = small_machine(pae);
	u32 odd_pdes = pae ? 5 : 3, odd_ptes = pae ? 3 : 1, walks = 0;

	for (u32 bits = 0; bits < 1 << 9; bits++)
		for (u32 i = 0; i < odd_pdes; i++)
			for (u32 k = 0; k < odd_ptes; k++)
				for (u32 access = 0; access < 6; access++) {
					u64 pde = (bits & 7) | (u64)(bits >> 6 & 1) << 7 |
						  (u64)(bits >> 7 & 1 & pae) << 63 | odd_pde[i];
					u64 pte = (bits >> 3 & 7) |
						  (u64)(bits >> 8 & 1 & pae) << 63 | odd_pte[k];
					struct mmu_access a = {VA, access % 3, access / 3};

					/* These are address bits: of the table; of a
					 * large page, by PSE-36 or the next 2 MiB. */
					if (odd_pde[i] & 0x202000 &&
					    (!(pde & PTE_LARGE) ||
					     odd_pde[i] == (pae ? 0x200000 : 0x2000)))
						continue;
					check_walk(m->sim, pde, pte, &a);
					walks++;
				}
	print_message("%u walks\n", walks);
	machine_free(m);
}

static void test_walk_two_level(void **state)
{
	(void)state;
	walk_everything(false);
}

static void test_walk_pae(void **state)
{
	(void)state;
	walk_everything(true);
}

/* PSE-36: bits 20 to 13 of a 4 MiB page's entry are address bits 39 to 32. There is no RAM
 * there, so reads give ones. */
static void test_walk_pse36(void **state)
{
	struct machine *m = small_machine(false);
	struct mmu_access a = {VA, ACCESS_READ, false};
	u32 error;

	(void)state;
	put_entry(m->sim, directory_entry(m->sim), FRAME | PTE_PRESENT | PTE_LARGE | 0x5 << 13);
	assert_int_equal(mmu_walk(m->sim, TOP, &a, false, &error) & MMU_FRAME,
			 0x500000000ULL | FRAME | (VA & 0x3ff000));
	machine_free(m);
}

/* PAE's first level: reserved bits fault, rights are not looked at. */
static void test_walk_pdpte(void **state)
{
	struct machine *m = small_machine(true);
	struct mmu_access a = {VA, ACCESS_READ, true};
	u32 error;

	(void)state;
	build(m->sim, PTE_PRESENT | PTE_USER, PTE_PRESENT | PTE_USER);
	assert_true(mmu_walk(m->sim, TOP, &a, false, &error));
	put_entry(m->sim, TOP + (VA >> 30) * 8, DIRECTORY | PTE_PRESENT | PTE_WRITE);
	assert_int_equal(mmu_walk(m->sim, TOP, &a, false, &error), 0);
	assert_int_equal(error, FAULT_PROTECTION | FAULT_RESERVED_BIT | FAULT_USER);
	put_entry(m->sim, TOP + (VA >> 30) * 8, 0);
	assert_int_equal(mmu_walk(m->sim, TOP, &a, false, &error), 0);
	assert_int_equal(error, FAULT_USER);
	/* Tables where there is no RAM read as ones: reserved bits. */
	assert_int_equal(mmu_walk(m->sim, 0xf0000000, &a, false, &error), 0);
	assert_int_equal(error, FAULT_PROTECTION | FAULT_RESERVED_BIT | FAULT_USER);
	machine_free(m);
}

/* ---- the TLB ---- */

static struct port_access read_byte(va_t va, u8 *byte)
{
	return (struct port_access){.va = va, .length = 1, .mode = ACCESS_READ, .bytes = byte};
}

/* CPU 0 on the test's tables, VA reading 'a' in FRAME and, once remapped, 'b' in the next. */
static struct machine *tlb_machine(bool pae, u64 bits)
{
	struct machine *m = small_machine(pae);

	build(m->sim, PTE_PRESENT | PTE_WRITE | PTE_USER, PTE_PRESENT | PTE_WRITE | bits);
	*sim_ram(m->sim, FRAME) = 'a';
	*sim_ram(m->sim, FRAME + PAGE_SIZE) = 'b';
	port_load_cr3(m->e, 0, TOP);
	return m;
}

static void remap(struct machine *m, u64 bits)
{
	put_entry(m->sim, table_entry(m->sim), (FRAME + PAGE_SIZE) | bits);
}

static u8 reads(struct machine *m)
{
	u8 byte = 0;
	struct port_access a = read_byte(VA, &byte);

	return port_access(m->e, 0, &a) ? byte : '!';
}

static void test_tlb_goes_stale(void **state)
{
	struct machine *m = tlb_machine(false, 0);

	(void)state;
	assert_int_equal(reads(m), 'a');
	assert_int_equal(sim_stale_hits(m->sim), 0);
	remap(m, PTE_PRESENT);
	/* Not flushed: the old frame, an event, and a count. */
	assert_int_equal(reads(m), 'a');
	assert_int_equal(sim_stale_hits(m->sim), 1);
	machine_take_events(m);
	assert_int_equal(machine_count_events(m, EVENT_STALE_TLB_HIT), 1);
	assert_int_equal(m->events[m->nr_events - 1].w[1], VA);
	assert_int_equal(m->events[m->nr_events - 1].w[2], FRAME >> PAGE_SHIFT);
	port_flush_tlb(m->e, 2, VA, 1); /* the other CPU's */
	assert_int_equal(reads(m), 'a');
	port_flush_tlb(m->e, 1, VA - PAGE_SIZE, 1); /* the page before */
	assert_int_equal(reads(m), 'a');
	port_flush_tlb(m->e, 1, VA - PAGE_SIZE, 2);
	assert_int_equal(reads(m), 'b');
	/* Cleared and not flushed: still there. Flushed: a fault. */
	remap(m, 0);
	assert_int_equal(reads(m), 'b');
	port_flush_tlb(m->e, 3, 0, 0);
	assert_int_equal(reads(m), '!');
	machine_free(m);
}

/* Rights that grow need no flush, ones that shrink do. */
static void test_tlb_rights(void **state)
{
	struct machine *m = tlb_machine(true, 0);
	u8 byte = 'x';
	struct port_access write = {.va = VA, .length = 1, .mode = ACCESS_WRITE, .bytes = &byte};

	(void)state;
	put_entry(m->sim, table_entry(m->sim), FRAME | PTE_PRESENT);
	assert_int_equal(reads(m), 'a');
	assert_false(port_access(m->e, 0, &write));
	assert_int_equal(write.ret_error_code, FAULT_PROTECTION | FAULT_WRITE);
	assert_int_equal(write.ret_fault_va, VA);
	put_entry(m->sim, table_entry(m->sim), FRAME | PTE_PRESENT | PTE_WRITE);
	assert_true(port_access(m->e, 0, &write));
	assert_int_equal(reads(m), 'x');
	assert_true(get_entry(m->sim, table_entry(m->sim)) & PTE_DIRTY);
	assert_int_equal(sim_stale_hits(m->sim), 0);
	/* Taken away again without a flush: reading is as the tables say, writing is not. */
	put_entry(m->sim, table_entry(m->sim), FRAME | PTE_PRESENT);
	assert_int_equal(reads(m), 'x');
	assert_int_equal(sim_stale_hits(m->sim), 0);
	assert_true(port_access(m->e, 0, &write));
	assert_int_equal(sim_stale_hits(m->sim), 1);
	machine_free(m);
}

/* A CR3 load leaves global entries alone, a flush of everything does not. */
static void test_tlb_global(void **state)
{
	(void)state;
	for (u32 global = 0; global < 2; global++) {
		struct machine *m = tlb_machine(false, global ? PTE_GLOBAL : 0);

		assert_int_equal(reads(m), 'a');
		remap(m, PTE_PRESENT | (global ? PTE_GLOBAL : 0));
		port_load_cr3(m->e, 0, TOP);
		assert_int_equal(reads(m), global ? 'a' : 'b');
		port_flush_tlb(m->e, 1, 0, 0);
		assert_int_equal(reads(m), 'b');
		machine_free(m);
	}
}

/* One entry serves all of a large page; a flush of any of its pages drops it. */
static void test_tlb_large(void **state)
{
	(void)state;
	for (u32 pae = 0; pae < 2; pae++) {
		struct machine *m = tlb_machine(pae, 0);
		const u32 other = FRAME + (4 << 20);

		*sim_ram(m->sim, FRAME + (VA & 0x1fffff)) = 'A';
		*sim_ram(m->sim, other + (VA & 0x1fffff)) = 'B';
		put_entry(m->sim, directory_entry(m->sim), FRAME | PTE_PRESENT | PTE_LARGE);
		assert_int_equal(reads(m), 'A');
		put_entry(m->sim, directory_entry(m->sim), other | PTE_PRESENT | PTE_LARGE);
		assert_int_equal(reads(m), 'A');
		port_flush_tlb(m->e, 1, VA & ~0x1fffffu, 1);
		assert_int_equal(reads(m), 'B');
		machine_free(m);
	}
}

/* Against a model that never forgets: an entry may be gone, but one that is found is what
 * was put there and not flushed since. */
static void test_tlb_random(void **state)
{
	enum { PAGES = 4096 };
	static struct {
		translation_t t;
	} model[PAGES];
	static struct tlb tlb;
	struct random r = random_seeded(99);
	u32 hits = 0;

	(void)state;
	memset(model, 0, sizeof model);
	tlb_init(&tlb, true);
	for (u32 round = 0; round < 200000; round++) {
		u32 page = (u32)random_below(&r, PAGES), what = (u32)random_below(&r, 1000);
		u32 nr = 1 + (u32)random_below(&r, 600);
		translation_t found = tlb_find(&tlb, page << PAGE_SHIFT);

		if (found) {
			hits++;
			assert_int_equal(found, model[page].t);
		}
		if (what < 900) {
			model[page].t = (random_next(&r) & MMU_FRAME) | PTE_PRESENT |
					(what & 1 ? PTE_GLOBAL : 0);
			tlb_insert(&tlb, page << PAGE_SHIFT, model[page].t);
			assert_int_equal(tlb_find(&tlb, page << PAGE_SHIFT), model[page].t);
		} else if (what < 998) {
			nr = nr > PAGES - page ? PAGES - page : nr;
			nr = what < 990 ? nr % 8 + 1 : nr;
			tlb_flush_range(&tlb, page << PAGE_SHIFT, nr);
			for (u32 i = page; i < page + nr && i < PAGES; i++)
				model[i].t = 0;
		} else {
			if (what == 998)
				tlb_flush_all(&tlb);
			else
				tlb_flush_local(&tlb);
			for (u32 i = 0; i < PAGES; i++)
				if (what == 998 || !(model[i].t & PTE_GLOBAL))
					model[i].t = 0;
		}
	}
	assert_true(hits > 1000);
}

/* ---- what is no RAM ---- */

static void test_no_ram(void **state)
{
	struct machine *m = tlb_machine(false, 0);
	u8 bytes[4] = {1, 2, 3, 4};
	u32 pattern = 0;

	(void)state;
	/* A hole below 1 MiB, and far above RAM. */
	for (u32 i = 0; i < 2; i++) {
		put_entry(m->sim, table_entry(m->sim),
			  (i ? 0xf0000000 : 0xa0000) | PTE_PRESENT | PTE_WRITE);
		port_flush_tlb(m->e, 1, 0, 0);
		port_write(m->e, 0, VA, bytes, 4);
		port_read(m->e, 0, VA, &pattern, 4);
		assert_int_equal(pattern, 0xffffffff);
		assert_int_equal(reads(m), 0xff);
		port_clear_page(m->e, 0, VA);
		port_read(m->e, 0, VA, &pattern, 4);
		assert_int_equal(pattern, 0xffffffff);
	}
	sim_read_physical(m->sim, 0xa0000, &pattern, 4);
	assert_int_equal(pattern, 0xffffffff);
	machine_free(m);
}

/* Bytes across a page border go where each page is mapped. */
static void test_across_pages(void **state)
{
	struct machine *m = tlb_machine(false, 0);
	const u8 bytes[8] = "12345678";
	u8 back[8];

	(void)state;
	put_entry(m->sim, table_entry(m->sim) + 4,
		  (FRAME + 7 * PAGE_SIZE) | PTE_PRESENT | PTE_WRITE);
	port_write(m->e, 0, VA + PAGE_SIZE - 3, bytes, 8);
	assert_memory_equal(sim_ram(m->sim, FRAME + PAGE_SIZE - 3), "123", 3);
	assert_memory_equal(sim_ram(m->sim, FRAME + 7 * PAGE_SIZE), "45678", 5);
	port_read(m->e, 0, VA + PAGE_SIZE - 3, back, 8);
	assert_memory_equal(back, bytes, 8);
	port_copy_page(m->e, 0, VA + PAGE_SIZE, VA);
	assert_memory_equal(sim_ram(m->sim, FRAME + 7 * PAGE_SIZE), sim_ram(m->sim, FRAME),
			    PAGE_SIZE);
	port_fill_page(m->e, 0, VA, 0xaa);
	assert_int_equal(*sim_ram(m->sim, FRAME + 77), 0xaa);
	machine_free(m);
}

/* ---- RAM that costs what was touched ---- */

static void test_reading_leaves_no_trace(void **state)
{
	struct machine *m = small_machine(false);
	u64 before = sim_resident_bytes(m->sim);
	u8 bytes[3 * PAGE_SIZE];

	(void)state;
	for (u32 mib = 100; mib < 2000; mib += 50) {
		sim_read_physical(m->sim, MIB_BYTES(mib) + 5, bytes, sizeof bytes);
		for (u32 i = 0; i < sizeof bytes; i++)
			assert_int_equal(bytes[i], 0);
	}
	assert_int_equal(sim_resident_bytes(m->sim), before);
	machine_free(m);
}

static bool digests_equal(struct sim *a, struct sim *b)
{
	struct engine_digest x = sim_digest(a), y = sim_digest(b);

	return x.lo == y.lo && x.hi == y.hi;
}

/* A copy is the machine, goes its own way, and costs what the original had touched. */
static void test_copy(void **state)
{
	struct machine *m = small_machine(true), *copy = calloc(1, sizeof *copy);
	struct sim_hooks hooks = machine_hooks(copy);
	u8 bytes[2 * PAGE_SIZE];

	(void)state;
	for (u32 i = 0; i < 300; i++)
		assert_int_equal(machine_op(m, OP_ALLOC_PAGES,
					    (i & 1 ? GFP_HIGHUSER : GFP_KERNEL) | __GFP_ZERO,
					    i % 4),
				 STATUS_OK);
	/* Page cache in HIGHMEM, written by the kernel. */
	assert_int_equal(machine_op(m, OP_FILE_CREATE, 3 * PAGE_SIZE), STATUS_OK);
	memset(bytes, 'z', sizeof bytes);
	assert_int_equal(machine_run(m, &(struct engine_op){.code = OP_FILE_WRITE,
							    .args = {m->res.values[0], 100},
							    .data = bytes,
							    .data_len = sizeof bytes}),
			 STATUS_OK);
	assert_int_equal(machine_op(m, OP_SNAPSHOT), STATUS_OK);
	copy->sim = sim_copy(m->sim, &hooks);
	assert_non_null(copy->sim);
	copy->e = sim_engine(copy->sim);
	machine_check(copy);
	assert_true(digests_equal(m->sim, copy->sim));
	assert_int_equal(machine_op(copy, OP_FILE_READ, 1, 100, sizeof bytes), STATUS_OK);
	assert_memory_equal(copy->data, bytes, sizeof bytes);
	assert_int_equal(machine_op(m, OP_FILE_READ, 1, 100, sizeof bytes), STATUS_OK);
	assert_true(sim_resident_bytes(copy->sim) <= sim_resident_bytes(m->sim));
	/* The same op gives the same on both; one more, and they differ. */
	assert_int_equal(machine_op(m, OP_ALLOC_PAGES, GFP_KERNEL, 0), STATUS_OK);
	assert_int_equal(machine_op(copy, OP_ALLOC_PAGES, GFP_KERNEL, 0), STATUS_OK);
	assert_int_equal(m->res.values[0], copy->res.values[0]);
	assert_int_equal(m->res.op, copy->res.op);
	assert_true(digests_equal(m->sim, copy->sim));
	assert_int_equal(machine_op(copy, OP_ALLOC_PAGES, GFP_KERNEL, 0), STATUS_OK);
	assert_false(digests_equal(m->sim, copy->sim));
	machine_free(copy);
	machine_free(m);
}

/* One byte of RAM anywhere changes the digest; the host window's do not. */
static void test_digest_sees_every_frame(void **state)
{
	struct machine *m = small_machine(false);
	struct random r = random_seeded(5);
	struct engine_digest before = sim_digest(m->sim), after;

	(void)state;
	for (u32 i = 0; i < 50; i++) {
		u64 paddr = MIB_BYTES(64) + random_below(&r, MIB_BYTES(1900));
		u8 *byte = sim_ram(m->sim, paddr);

		arena_mark(&m->sim->arena, (pfn_t)(paddr >> PAGE_SHIFT));
		*byte ^= 1;
		after = sim_digest(m->sim);
		assert_false(before.lo == after.lo && before.hi == after.hi);
		*byte ^= 1;
	}
	*sim_ram(m->sim, HOST_WINDOW_PADDR + 12345) = 1;
	after = sim_digest(m->sim);
	assert_int_equal(before.lo, after.lo);
	assert_int_equal(before.hi, after.hi);
	machine_free(m);
}

/* ---- slices ---- */

static u32 run_sliced(struct machine *m, const struct engine_op *op)
{
	u32 slices = 0;
	enum sim_status status;

	m->res.data = m->data;
	for (status = sim_execute(m->sim, op, &m->res, true); status == SIM_MORE;
	     status = sim_continue(m->sim))
		slices++;
	assert_int_equal(status, SIM_DONE);
	machine_take_events(m);
	machine_check(m);
	return slices;
}

/* A long op in slices is the same op: result, events, bytes. */
static void test_slices(void **state)
{
	struct machine *whole = small_machine(true), *sliced = small_machine(true);
	const struct engine_op alloc = {.code = OP_VMALLOC, .args = {MIB_BYTES(64), GFP_NONE}};
	struct engine_op vfree = {.code = OP_VFREE};

	(void)state;
	assert_int_equal(machine_run(whole, &alloc), STATUS_OK);
	/* 16384 frames, a slice for each 4096. */
	assert_in_range(run_sliced(sliced, &alloc), 3, 5);
	assert_int_equal(sliced->res.status, STATUS_OK);
	assert_int_equal(whole->res.values[0], sliced->res.values[0]);
	vfree.args[0] = whole->res.values[0];
	assert_int_equal(machine_run(whole, &vfree), STATUS_OK);
	run_sliced(sliced, &vfree);
	assert_int_equal(sliced->res.status, STATUS_OK);
	assert_int_equal(whole->nr_events, sliced->nr_events);
	assert_memory_equal(whole->events, sliced->events,
			    whole->nr_events * sizeof whole->events[0]);
	assert_true(digests_equal(whole->sim, sliced->sim));
	machine_free(whole);
	machine_free(sliced);
}

/* A machine may be dropped half way through an op. */
static void test_free_between_slices(void **state)
{
	struct machine *m = small_machine(false);
	const struct engine_op alloc = {.code = OP_VMALLOC, .args = {MIB_BYTES(64), GFP_NONE}};

	(void)state;
	m->res.data = m->data;
	assert_int_equal(sim_execute(m->sim, &alloc, &m->res, true), SIM_MORE);
	machine_free(m);
}

/* A small buffer is emptied on the way, in order, and nothing is lost. */
static void test_small_event_buffer(void **state)
{
	struct machine *large = small_machine(false), *small = calloc(1, sizeof *small);
	struct sim_hooks hooks = machine_hooks(small);
	struct engine_error why;

	(void)state;
	hooks.max_events = 3;
	small->sim = sim_new(engine_config(large->e), &hooks, &why);
	assert_non_null(small->sim);
	small->e = sim_engine(small->sim);
	machine_take_events(small);
	assert_int_equal(machine_op(large, OP_VMALLOC, MIB_BYTES(1), GFP_NONE), STATUS_OK);
	assert_int_equal(machine_op(small, OP_VMALLOC, MIB_BYTES(1), GFP_NONE), STATUS_OK);
	assert_true(large->nr_events > 256);
	assert_int_equal(large->nr_events, small->nr_events);
	assert_memory_equal(large->events, small->events,
			    large->nr_events * sizeof large->events[0]);
	machine_free(large);
	machine_free(small);
}

/* ---- lost machines ---- */

/* With a CR3 that maps nothing the engine's own mappings do not work: a broken invariant. */
static void test_lost(void **state)
{
	(void)state;
	for (u32 sliced = 0; sliced < 2; sliced++) {
		struct machine *m = small_machine(false);
		const struct engine_op op = {
		    .code = OP_VMALLOC,
		    .args = {PAGE_SIZE * 8, GFP_HIGHUSER | __GFP_ZERO},
		};
		struct engine_result res = {.data = m->data};
		struct engine_error why;
		u32 nr;

		port_load_cr3(m->e, 0, TOP);
		port_flush_tlb(m->e, 1, 0, 0);
		assert_null(sim_lost_reason(m->sim));
		assert_int_equal(sim_execute(m->sim, &op, &res, sliced), SIM_LOST);
		print_message("%s\n", sim_lost_reason(m->sim));
		assert_non_null(strstr(sim_lost_reason(m->sim), "op 1: sim.c:"));
		/* Nothing enters it any more; its last events are there. */
		assert_int_equal(sim_execute(m->sim, &op, &res, sliced), SIM_LOST);
		assert_int_equal(sim_continue(m->sim), SIM_LOST);
		assert_non_null(sim_check(m->sim, &why));
		assert_int_equal(sim_inspect(m->sim, INSPECT_LAYOUT, op.args, NULL), STATUS_LOST);
		assert_int_equal(sim_digest(m->sim).lo, 0);
		sim_take_events(m->sim, &nr);
		assert_in_range(nr, 1, 4096);
		machine_free(m);
	}
}

/* A body that its host cannot hold, or a contradiction, is refused with a reason. */
static void test_refused(void **state)
{
	struct engine_config config = {.preset = PRESET_CLASSIC};
	struct sim_hooks hooks = {0};
	struct engine_error why = {""};

	(void)state;
	assert_null(sim_new(&config, &hooks, &why));
	assert_non_null(strstr(why.text, "neither ram"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_walk_two_level),
	    cmocka_unit_test(test_walk_pae),
	    cmocka_unit_test(test_walk_pse36),
	    cmocka_unit_test(test_walk_pdpte),
	    cmocka_unit_test(test_tlb_goes_stale),
	    cmocka_unit_test(test_tlb_rights),
	    cmocka_unit_test(test_tlb_global),
	    cmocka_unit_test(test_tlb_large),
	    cmocka_unit_test(test_tlb_random),
	    cmocka_unit_test(test_no_ram),
	    cmocka_unit_test(test_across_pages),
	    cmocka_unit_test(test_reading_leaves_no_trace),
	    cmocka_unit_test(test_copy),
	    cmocka_unit_test(test_digest_sees_every_frame),
	    cmocka_unit_test(test_slices),
	    cmocka_unit_test(test_free_between_slices),
	    cmocka_unit_test(test_small_event_buffer),
	    cmocka_unit_test(test_lost),
	    cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
