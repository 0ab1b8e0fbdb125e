/*
 * test_dma.c - which frames a device reaches, where it bounces, and which way bytes
 * go when.
 *
 * The device itself is played by the kernel's direct map: a bounce buffer lies in
 * lowmem, so what a device would write there is written by Access.
 */
#include "user_helpers.h"

enum { PAGE = PAGE_SIZE };

/* PAE with frames on both sides of 4 GiB. */
static struct machine *wide_machine(void)
{
	struct engine_config config = {
	    .preset = PRESET_LINUX_6_1,
	    .flags = CONFIG_PAE,
	    .cpus = 1,
	    .ram = GIB_BYTES(4),
	    .detail = DETAIL_ALL,
	};

	return machine_new(&config);
}

static pfn_t alloc(struct machine *m, u32 gfp, u32 order)
{
	assert_int_equal(machine_op(m, OP_ALLOC_PAGES, gfp, order), STATUS_OK);
	return (pfn_t)m->res.values[0];
}

/* Bytes of a frame, through a mapping of the kernel's. */
static void poke(struct machine *m, pfn_t pfn, u32 within, const char *text)
{
	va_t va;

	assert_int_equal(machine_op(m, OP_KMAP, pfn), STATUS_OK);
	va = (va_t)m->res.values[0] + within;
	assert_int_equal(
	    do_access(m, 0, 0, va, 0, ACCESS_WRITE, PRIVILEGE_KERNEL, text, (u32)strlen(text)),
	    STATUS_OK);
	assert_int_equal(machine_op(m, OP_KUNMAP, pfn), STATUS_OK);
}

/* NULL: zeros. */
static void assert_bytes(struct machine *m, pfn_t pfn, u32 within, const char *text)
{
	static const char zeros[8];
	u32 length = text ? (u32)strlen(text) : (u32)sizeof zeros;
	va_t va;

	assert_int_equal(machine_op(m, OP_KMAP, pfn), STATUS_OK);
	va = (va_t)m->res.values[0] + within;
	assert_int_equal(do_access(m, 0, 0, va, length, ACCESS_READ, PRIVILEGE_KERNEL, NULL, 0),
			 STATUS_OK);
	assert_memory_equal(m->res.data, text ? text : zeros, length);
	assert_int_equal(machine_op(m, OP_KUNMAP, pfn), STATUS_OK);
}

struct mapped {
	u32 handle;
	u64 bus;
	bool bounced;
};

static struct mapped dma_map(struct machine *m, pfn_t pfn, u32 length, u32 bits, u32 direction)
{
	assert_int_equal(machine_op(m, OP_DMA_MAP, pfn, length, bits, direction), STATUS_OK);
	return (struct mapped){(u32)m->res.values[0], m->res.values[1], m->res.values[2]};
}

static void reachable_frames_are_used_as_they_are(void **state)
{
	struct machine *m = user_machine(0);
	pfn_t pfn = alloc(m, GFP_HIGHUSER, 0);
	struct mapped d = dma_map(m, pfn, PAGE, 32, DMA_BIDIRECTIONAL);

	(void)state;
	assert_false(d.bounced);
	assert_int_equal(d.bus, (u64)pfn << PAGE_SHIFT);
	/* Mapped for a device, a frame cannot be freed. */
	assert_int_equal(machine_op(m, OP_FREE_PAGES, pfn, 0), STATUS_BUSY);
	assert_int_equal(machine_op(m, OP_DMA_SYNC, d.handle, DMA_FOR_CPU), STATUS_OK);
	assert_int_equal(machine_op(m, OP_DMA_UNMAP, d.handle), STATUS_OK);
	assert_int_equal(machine_op(m, OP_DMA_UNMAP, d.handle), STATUS_NOT_FOUND);
	assert_int_equal(machine_op(m, OP_DMA_SYNC, d.handle, DMA_FOR_CPU), STATUS_NOT_FOUND);
	assert_int_equal(machine_op(m, OP_FREE_PAGES, pfn, 0), STATUS_OK);
	assert_int_equal(machine_count_events(m, EVENT_BOUNCE_MADE), 0);
	/* Handles are not used again. */
	pfn = alloc(m, GFP_DMA, 0);
	assert_int_equal(dma_map(m, pfn, 1, 24, DMA_TO_DEVICE).handle, d.handle + 1);
	machine_free(m);
}

/* A device of 26 bits reaches the block that ends at 64 MiB and not the next one. */
static void reach_is_to_the_last_byte(void **state)
{
	struct machine *m = user_machine(0);
	const pfn_t border = MIB_BYTES(64) >> PAGE_SHIFT;
	const u32 length = (u32)MIB_BYTES(4);
	bool below = false, above = false;
	struct mapped d;

	(void)state;
	while (!below || !above) {
		pfn_t pfn = alloc(m, GFP_KERNEL, 10);

		below |= pfn == border - 1024;
		above |= pfn == border;
	}
	assert_false(dma_map(m, border - 1024, length, 26, DMA_TO_DEVICE).bounced);
	assert_true(dma_map(m, border - 1, 1, 25, DMA_TO_DEVICE).bounced);
	d = dma_map(m, border, 1, 26, DMA_TO_DEVICE);
	assert_true(d.bounced);
	assert_true(d.bus < MIB_BYTES(16));
	assert_false(dma_map(m, border, length, 27, DMA_TO_DEVICE).bounced);
	assert_false(dma_map(m, border, length, 64, DMA_TO_DEVICE).bounced);
	machine_free(m);
}

static void bytes_go_by_direction(void **state)
{
	static const u32 directions[] = {DMA_TO_DEVICE, DMA_FROM_DEVICE, DMA_BIDIRECTIONAL};

	(void)state;
	for (u32 i = 0; i < 3; i++) {
		struct machine *m = user_machine(i == 1 ? CONFIG_PAE : 0);
		bool in = directions[i] != DMA_FROM_DEVICE, out = directions[i] != DMA_TO_DEVICE;
		pfn_t pfn = alloc(m, GFP_HIGHUSER, 1), bounce;
		struct mapped d;

		poke(m, pfn, 0, "first");
		poke(m, pfn + 1, 100, "second");
		machine_forget_events(m);
		d = dma_map(m, pfn, PAGE + 110, 24, directions[i]);
		bounce = (pfn_t)(d.bus >> PAGE_SHIFT);
		assert_true(d.bounced);
		assert_int_equal(zone_of_pfn(m->e, bounce), ZONE_DMA);
		assert_int_equal(m->e->st->dma.bounced_pages, 2);
		assert_int_equal(machine_count_events(m, EVENT_BOUNCE_MADE), 1);
		assert_int_equal(machine_count_events(m, EVENT_BOUNCE_COPIED), in);
		assert_bytes(m, bounce, 0, in ? "first" : NULL);
		assert_bytes(m, bounce + 1, 100, in ? "second" : NULL);
		/* Each side writes, and asks to be seen. */
		poke(m, pfn, 0, "FIRST");
		assert_int_equal(machine_op(m, OP_DMA_SYNC, d.handle, DMA_FOR_DEVICE), STATUS_OK);
		assert_bytes(m, bounce, 0, in ? "FIRST" : NULL);
		poke(m, bounce + 1, 100, "device");
		assert_int_equal(machine_op(m, OP_DMA_SYNC, d.handle, DMA_FOR_CPU), STATUS_OK);
		assert_bytes(m, pfn + 1, 100, out ? "device" : "second");
		/* The last copy is the unmap's; what lies behind the length stays. */
		poke(m, bounce, 0, "last");
		poke(m, bounce + 1, 108, "beyond");
		machine_forget_events(m);
		assert_int_equal(machine_op(m, OP_DMA_UNMAP, d.handle), STATUS_OK);
		assert_bytes(m, pfn, 0, out ? "last" : "FIRST");
		assert_bytes(m, pfn + 1, 110, NULL);
		assert_int_equal(machine_count_events(m, EVENT_BOUNCE_COPIED), out);
		assert_int_equal(machine_count_events(m, EVENT_BOUNCE_RELEASED), 1);
		assert_int_equal(m->e->st->dma.bounced_pages, 0);
		assert_int_equal(machine_op(m, OP_FREE_PAGES, bounce, 1), STATUS_DOUBLE_FREE);
		assert_int_equal(machine_op(m, OP_FREE_PAGES, pfn, 1), STATUS_OK);
		machine_free(m);
	}
}

/* What was in the block before is not the device's to see. */
static void a_buffer_to_be_filled_begins_as_zeros(void **state)
{
	struct machine *m = user_machine(0);
	pfn_t secret = alloc(m, GFP_DMA, 0), pfn = alloc(m, GFP_HIGHUSER, 0);
	struct mapped d;

	(void)state;
	poke(m, secret, 50, "secret");
	assert_int_equal(machine_op(m, OP_FREE_PAGES, secret, 0), STATUS_OK);
	d = dma_map(m, pfn, 100, 24, DMA_FROM_DEVICE);
	assert_int_equal(d.bus >> PAGE_SHIFT, secret);
	assert_int_equal(machine_op(m, OP_DMA_UNMAP, d.handle), STATUS_OK);
	assert_int_equal(machine_op(m, OP_KMAP, pfn), STATUS_OK);
	assert_int_equal(do_access(m, 0, 0, (va_t)m->res.values[0], PAGE, ACCESS_READ,
				   PRIVILEGE_KERNEL, NULL, 0),
			 STATUS_OK);
	for (u32 i = 0; i < PAGE; i++)
		assert_int_equal(m->res.data[i], 0);
	machine_free(m);
}

static void wide_frames_bounce_through_normal(void **state)
{
	struct machine *m = wide_machine();
	pfn_t pfn = alloc(m, GFP_HIGHUSER, 3);
	struct mapped d;

	(void)state;
	assert_true(pfn >= 0x100000); /* HIGHMEM's list begins at its end, above 4 GiB */
	d = dma_map(m, pfn, 8 * PAGE, 32, DMA_TO_DEVICE);
	assert_true(d.bounced);
	assert_int_equal(zone_of_pfn(m->e, (pfn_t)(d.bus >> PAGE_SHIFT)), ZONE_NORMAL);
	assert_int_equal(m->e->st->dma.bounced_pages, 8);
	assert_false(dma_map(m, pfn, 8 * PAGE, 36, DMA_TO_DEVICE).bounced);
	/* 29 bits do not reach all of lowmem. */
	d = dma_map(m, pfn, 5 * PAGE, 29, DMA_TO_DEVICE);
	assert_true(d.bounced);
	assert_int_equal(zone_of_pfn(m->e, (pfn_t)(d.bus >> PAGE_SHIFT)), ZONE_DMA);
	assert_int_equal(m->e->st->dma.bounced_pages, 16);
	machine_free(m);
}

static void refusals(void **state)
{
	struct machine *m = user_machine(0);
	pfn_t pfn = alloc(m, GFP_HIGHUSER, 2), task_page;
	u32 task;
	va_t va;

	(void)state;
	assert_int_equal(machine_op(m, OP_DMA_MAP, pfn + 1, 3 * PAGE + 1, 32, DMA_TO_DEVICE),
			 STATUS_INVALID);
	assert_int_equal(machine_op(m, OP_DMA_MAP, pfn + 1, 3 * PAGE, 32, DMA_TO_DEVICE),
			 STATUS_OK);
	assert_int_equal(machine_op(m, OP_DMA_MAP, 0xffffff, PAGE, 32, DMA_TO_DEVICE),
			 STATUS_INVALID);
	assert_int_equal(machine_op(m, OP_DMA_MAP, 0, PAGE, 32, DMA_TO_DEVICE), STATUS_INVALID);
	assert_int_equal(
	    machine_op(m, OP_DMA_MAP, m->e->st->layout.max_pfn - 1, PAGE, 32, DMA_TO_DEVICE),
	    STATUS_NOT_FOUND);
	/* The engine's own frames are nobody's to hand to a device. */
	task = new_task(m);
	assert_int_equal(machine_op(m, OP_DMA_MAP, task_mm(m->e, task_find(m->e, task))->pgd, PAGE,
				    32, DMA_TO_DEVICE),
			 STATUS_INVALID);
	/* A user's frame outlives the user. */
	va = map_anonymous(m, task, 1);
	assert_int_equal(user_write(m, task, va, "user"), STATUS_OK);
	task_page = frame_of(m, task, va);
	assert_int_equal(machine_op(m, OP_DMA_MAP, task_page, 4, 32, DMA_TO_DEVICE), STATUS_OK);
	assert_int_equal(machine_op(m, OP_TASK_EXIT, task), STATUS_OK);
	assert_bytes(m, task_page, 0, "user");
	assert_int_equal(machine_op(m, OP_DMA_UNMAP, 2), STATUS_OK);
	assert_int_equal(page_allocated_head(m->e, task_page), 0);
	machine_free(m);
}

static void without_dma_memory(void **state)
{
	struct machine *m = user_machine(0);
	pfn_t pfn = alloc(m, GFP_HIGHUSER, 0);
	u32 nr = 0, before;

	(void)state;
	m->unchecked = true;
	while (machine_op(m, OP_DMA_MAP, pfn, PAGE, 24, DMA_FROM_DEVICE) == STATUS_OK)
		nr++;
	m->unchecked = false;
	machine_check(m);
	assert_int_equal(m->res.status, STATUS_NO_MEMORY);
	assert_in_range(nr, 1000, 4096);
	assert_int_equal(m->e->st->dma.bounced_pages, nr);
	before = free_pages(m);
	assert_int_equal(machine_op(m, OP_DMA_MAP, pfn, PAGE, 24, DMA_TO_DEVICE), STATUS_NO_MEMORY);
	assert_int_equal(m->res.values[0], 0);
	assert_int_equal(free_pages(m), before);
	/* Too long for any block that is left, but not for a device that reaches it. */
	assert_int_equal(machine_op(m, OP_DMA_MAP, pfn, PAGE, 32, DMA_TO_DEVICE), STATUS_OK);
	m->unchecked = true;
	for (u32 handle = 1; handle <= nr; handle++)
		assert_int_equal(machine_op(m, OP_DMA_UNMAP, handle), STATUS_OK);
	m->unchecked = false;
	machine_check(m);
	assert_int_equal(m->e->st->dma.bounced_pages, 0);
	machine_free(m);
}

/* Where there is no DMA zone a 24-bit device may find nothing that it reaches. */
static void without_a_dma_zone(void **state)
{
	struct engine_config config = {
	    .preset = PRESET_PPC32,
	    .cpus = 1,
	    .ram = GIB_BYTES(1),
	    .detail = DETAIL_ALL,
	};
	struct machine *m = machine_new(&config);
	pfn_t pfn = alloc(m, GFP_HIGHUSER, 0);
	u32 before, reached = 0;

	(void)state;
	/* GFP_DMA is NORMAL here: a block within reach is taken, another given back. */
	m->unchecked = true;
	while (machine_op(m, OP_DMA_MAP, pfn, PAGE, 24, DMA_TO_DEVICE) == STATUS_OK) {
		assert_true(m->res.values[1] + PAGE <= MIB_BYTES(16));
		reached++;
	}
	m->unchecked = false;
	machine_check(m);
	assert_in_range(reached, 1, 4096);
	assert_int_equal(m->res.status, STATUS_NO_MEMORY);
	before = free_pages(m);
	assert_int_equal(machine_op(m, OP_DMA_MAP, pfn, PAGE, 24, DMA_TO_DEVICE), STATUS_NO_MEMORY);
	assert_int_equal(free_pages(m), before);
	machine_free(m);
}

static void handle_limit(void **state)
{
	struct machine *m = user_machine(0);
	pfn_t pfn = alloc(m, GFP_KERNEL, 0);

	(void)state;
	m->unchecked = true;
	for (u32 i = 1; i <= NUMBERS_MAX; i++)
		assert_int_equal(dma_map(m, pfn, 1, 64, DMA_TO_DEVICE).handle, i);
	assert_int_equal(machine_op(m, OP_DMA_MAP, pfn, 1, 64, DMA_TO_DEVICE), STATUS_LIMIT);
	machine_check(m);
	assert_int_equal(machine_op(m, OP_DMA_UNMAP, 1), STATUS_OK);
	assert_int_equal(dma_map(m, pfn, 1, 64, DMA_TO_DEVICE).handle, NUMBERS_MAX + 1);
	machine_check(m);
	machine_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(reachable_frames_are_used_as_they_are),
	    cmocka_unit_test(reach_is_to_the_last_byte),
	    cmocka_unit_test(bytes_go_by_direction),
	    cmocka_unit_test(a_buffer_to_be_filled_begins_as_zeros),
	    cmocka_unit_test(wide_frames_bounce_through_normal),
	    cmocka_unit_test(refusals),
	    cmocka_unit_test(without_dma_memory),
	    cmocka_unit_test(without_a_dma_zone),
	    cmocka_unit_test(handle_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
