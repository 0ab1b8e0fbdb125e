/*
 * test_first_guest.c - the same ten ops on both back ends: the guest kernel in QEMU
 * and the simulation agree on every result, every event and every byte of RAM.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "boot/layout.h"
#include "guest.h"
#include "sim.h"

static const u8 text[] = "written through one mapping, read through another";

static const struct engine_op ops[] = {
    {.code = OP_ALLOC_PAGES, .owner = 1, .args = {GFP_HIGHUSER, 0}},
    {.code = OP_ALLOC_PAGES, .owner = 1, .args = {GFP_KERNEL, 3}},
    {.code = OP_VMALLOC, .owner = 2, .args = {5 * PAGE_SIZE, 0}},
    {.code = OP_TASK_CREATE},
    {.code = OP_SCHEDULE, .args = {1}},
    {.code = OP_MMAP, .task = 1, .args = {0, 16 * PAGE_SIZE, UPROT_READ | UPROT_WRITE, 0, 0, 0}},
    {.code = OP_BRK, .task = 1, .args = {0}},
    {.code = OP_ACCESS,
     .task = 1,
     .args = {0x40000000, 8, ACCESS_READ, PRIVILEGE_USER}}, /* no mapping there */
    {.code = OP_TASK_FORK, .args = {1}},
    {.code = OP_FLUSH_TLB},
};

/* What the ops above gave is used by these; args filled in as they come. */
struct pair {
	struct guest guest;
	struct sim *sim;
};

static u8 guest_data[ENGINE_MAX_DATA], sim_data[ENGINE_MAX_DATA];

static struct engine_result both(struct pair *p, const struct engine_op *op)
{
	struct engine_result g = {.data = guest_data}, s = {.data = sim_data};
	u32 nr;

	if (!guest_execute(&p->guest, op, &g))
		fail_msg("op %u: %s", op->code, p->guest.error);
	assert_int_equal(sim_execute(p->sim, op, &s, false), SIM_DONE);
	const struct engine_event *events = sim_take_events(p->sim, &nr);

	if (g.status != s.status || g.op != s.op ||
	    memcmp(g.values, s.values, sizeof g.values) != 0)
		fail_msg("op %llu (%u): guest status %u values %llx %llx, sim %u %llx %llx",
			 (unsigned long long)s.op, op->code, g.status,
			 (unsigned long long)g.values[0], (unsigned long long)g.values[1], s.status,
			 (unsigned long long)s.values[0], (unsigned long long)s.values[1]);
	assert_int_equal(g.data_len, s.data_len);
	assert_memory_equal(g.data, s.data, g.data_len);
	for (u32 i = 0; i < nr && i < p->guest.nr_events; i++) {
		if (memcmp(&events[i], &p->guest.events[i], sizeof *events) != 0)
			fail_msg("op %u: event %u differs: kind %u and %u", op->code, i,
				 p->guest.events[i].kind, events[i].kind);
	}
	assert_int_equal(p->guest.nr_events, nr);
	return s;
}

/* Names the first frames and words that differ, masked bits and all, among those that
 * the guest has touched. */
static void print_differences(struct pair *p)
{
	u64 ours[PAGE_SIZE / 8];
	u32 shown = 0;

	for (pfn_t pfn = guest_next_frame(&p->guest, 0);
	     pfn < p->guest.ram_bytes >> PAGE_SHIFT && shown < 12;
	     pfn = guest_next_frame(&p->guest, pfn + 1)) {
		if (pfn - (HOST_WINDOW_PADDR >> PAGE_SHIFT) < HOST_WINDOW_BYTES >> PAGE_SHIFT)
			continue;
		const u64 *theirs =
		    (const u64 *)(const void *)(p->guest.ram + ((size_t)pfn << PAGE_SHIFT));

		sim_read_physical(p->sim, (paddr_t)pfn << PAGE_SHIFT, ours, PAGE_SIZE);
		for (u32 i = 0; i < PAGE_SIZE / 8; i++) {
			/* What is no RAM reads as ones in the simulation. */
			if (ours[i] == theirs[i] || ours[i] == ~(u64)0)
				continue;
			printf("frame %x word %x: guest %016llx simulation %016llx\n", pfn, i,
			       (unsigned long long)theirs[i], (unsigned long long)ours[i]);
			shown++;
			break;
		}
	}
}

static void same_digest(struct pair *p, const char *when)
{
	struct engine_digest g = guest_digest(&p->guest), s = sim_digest(p->sim);

	if (g.lo != s.lo || g.hi != s.hi)
		print_differences(p);

	if (g.lo != s.lo || g.hi != s.hi)
		fail_msg("digests differ %s: guest %llx, simulation %llx", when,
			 (unsigned long long)g.lo, (unsigned long long)s.lo);
}

static void run(u32 preset, u32 flags, u32 page_offset, u64 ram)
{
	struct engine_config config = {
	    .preset = preset, .flags = flags, .page_offset = page_offset, .ram = ram};
	struct engine_error why = {""};
	static struct pair p;
	u32 nr;

	p.sim = sim_new(&config, &(struct sim_hooks){0}, &why);
	if (!p.sim)
		fail_msg("simulation: %s", why.text);
	if (!guest_start(&p.guest, KERNEL_IMAGE, &config, ram))
		fail_msg("guest: %s", p.guest.error);
	const struct engine_event *events = sim_take_events(p.sim, &nr);

	assert_int_equal(p.guest.nr_events, nr);
	assert_memory_equal(p.guest.events, events, nr * sizeof *events);
	same_digest(&p, "after boot");

	u64 addr = 0, high_pfn = 0;

	for (u32 i = 0; i < sizeof ops / sizeof ops[0]; i++) {
		struct engine_result res = both(&p, &ops[i]);

		if (ops[i].code == OP_MMAP)
			addr = res.values[0];
		if (i == 0)
			high_pfn = res.values[0];
		same_digest(&p, "after an op");
	}
	/* Bytes are real: user memory in ring 3, and a HIGHMEM frame through kmap. */
	struct engine_op access = {.code = OP_ACCESS,
				   .task = 1,
				   .args = {addr + PAGE_SIZE - 7, 0, ACCESS_WRITE, PRIVILEGE_USER},
				   .data = text,
				   .data_len = sizeof text};

	both(&p, &access);
	access.args[2] = ACCESS_READ;
	access.args[1] = sizeof text;
	access.data_len = 0;
	assert_int_equal(both(&p, &access).status, STATUS_OK);
	assert_memory_equal(guest_data, text, sizeof text);

	struct engine_result mapped =
	    both(&p, &(struct engine_op){.code = OP_KMAP, .args = {high_pfn}});
	access = (struct engine_op){.code = OP_ACCESS,
				    .args = {mapped.values[0], 0, ACCESS_WRITE, PRIVILEGE_KERNEL},
				    .data = text,
				    .data_len = sizeof text};
	both(&p, &access);
	struct engine_result local =
	    both(&p, &(struct engine_op){.code = OP_KMAP_LOCAL, .task = 1, .args = {high_pfn}});
	access = (struct engine_op){
	    .code = OP_ACCESS,
	    .task = 1,
	    .args = {local.values[0], sizeof text, ACCESS_READ, PRIVILEGE_KERNEL}};
	assert_int_equal(both(&p, &access).status, STATUS_OK);
	assert_memory_equal(guest_data, text, sizeof text);
	/* The guest's own pages are out of reach, in the same way on both. */
	access.args[0] = HOST_USER_CODE_VA;
	assert_int_equal(both(&p, &access).status, STATUS_FAULT);
	access.args[0] = HOST_LAPIC_VA;
	assert_int_equal(both(&p, &access).status, STATUS_FAULT);
	access.args[0] = HOST_MMIO_VA;
	access.args[3] = PRIVILEGE_USER;
	assert_int_equal(both(&p, &access).status, STATUS_FAULT);
	same_digest(&p, "at the end");
	if (engine_check(sim_engine(p.sim), &why))
		fail_msg("simulation: %s", why.text);
	if (guest_check(&p.guest, &why))
		fail_msg("guest: %s", why.text);
	assert_int_equal(guest_stop(&p.guest), 2 * 0x10 + 1);
	sim_free(p.sim);
}

static void two_level(void **state)
{
	(void)state;
	run(PRESET_LINUX_6_1, 0, 0, 1024ull << 20);
}

static void pae(void **state)
{
	(void)state;
	run(PRESET_CLASSIC, CONFIG_PAE, 0, 1536ull << 20);
}

static void split_2g_opt(void **state)
{
	(void)state;
	run(PRESET_CLASSIC, 0, 0x78000000, 2048ull << 20);
}

/* An op's events are many times what the link's socket holds, and nobody reads them for a
 * while: not one is lost. */
static void slow_reader(void **state)
{
	const struct engine_op op = {.code = OP_VMALLOC, .args = {96 << 20}};
	struct engine_config config = {.preset = PRESET_CLASSIC, .ram = 1024ull << 20};
	struct engine_error why = {""};
	static struct pair p;
	u32 nr;

	(void)state;
	p.sim = sim_new(&config, &(struct sim_hooks){.max_events = 1 << 20}, &why);
	if (!p.sim)
		fail_msg("simulation: %s", why.text);
	if (!guest_start(&p.guest, KERNEL_IMAGE, &config, config.ram))
		fail_msg("guest: %s", p.guest.error);
	sim_take_events(p.sim, &nr); /* those of boot */
	p.guest.is_slow = true;
	assert_int_equal(both(&p, &op).status, STATUS_OK);
	assert_true(p.guest.nr_events * sizeof(struct engine_event) > 1 << 20);
	same_digest(&p, "after a burst of events");
	assert_int_equal(guest_stop(&p.guest), 2 * 0x10 + 1);
	sim_free(p.sim);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(two_level),
	    cmocka_unit_test(pae),
	    cmocka_unit_test(split_2g_opt),
	    cmocka_unit_test(slow_reader),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
