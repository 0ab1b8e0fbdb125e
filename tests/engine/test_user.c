/*
 * test_user.c - tasks, address spaces, faults, files and pins, each rule by itself
 * and all together against a model that is nothing but arrays of bytes.
 *
 * The audit runs after every op (fixture.h), so what is tested here is what it
 * cannot know: which status, which address, which bytes.
 */
#include "user_helpers.h"

enum { PAGE = PAGE_SIZE };

static const u32 pagings[] = {0, CONFIG_PAE};

/* Runs a test under both paging modes. */
static void under_both(void (*test)(struct machine *m))
{
	for (u32 i = 0; i < 2; i++) {
		struct machine *m = user_machine(pagings[i]);

		test(m);
		machine_free(m);
	}
}

#define BOTH(name)                                \
	static void name##_in(struct machine *m); \
	static void name(void **state)            \
	{                                         \
		(void)state;                      \
		under_both(name##_in);            \
	}                                         \
	static void name##_in(struct machine *m)

/* ---- tasks ---- */

BOTH(task_numbers_are_never_reused)
{
	m->unchecked = true;
	for (u32 i = 1; i <= 200; i++) {
		assert_int_equal(machine_op(m, OP_TASK_CREATE, 0), STATUS_OK);
		assert_int_equal(m->res.values[0], i);
	}
	assert_int_equal(machine_op(m, OP_TASK_EXIT, 100), STATUS_OK);
	assert_int_equal(machine_op(m, OP_TASK_EXIT, 200), STATUS_OK);
	assert_int_equal(machine_op(m, OP_TASK_EXIT, 100), STATUS_NOT_FOUND);
	assert_int_equal(machine_op(m, OP_SCHEDULE, 200), STATUS_NOT_FOUND);
	assert_int_equal(machine_op(m, OP_TASK_CREATE, 0), STATUS_OK);
	assert_int_equal(m->res.values[0], 201);
	machine_check(m);
	for (u32 i = 1; i <= 201; i++)
		machine_op(m, OP_TASK_EXIT, i);
	assert_int_equal(m->e->st->user.tasks.nr, 0);
	assert_int_equal(m->e->st->user.tasks.leaf[0], 0);
}

static void task_limit(void **state)
{
	struct machine *m = user_machine(0);
	u32 before = free_pages(m);

	(void)state;
	m->unchecked = true;
	for (u32 i = 0; i < ENGINE_MAX_TASKS; i++)
		assert_int_equal(machine_op(m, OP_TASK_CREATE, 0), STATUS_OK);
	assert_int_equal(machine_op(m, OP_TASK_CREATE, 0), STATUS_LIMIT);
	assert_int_equal(machine_op(m, OP_TASK_FORK, 1), STATUS_LIMIT);
	machine_check(m);
	for (u32 i = 1; i <= ENGINE_MAX_TASKS; i++)
		assert_int_equal(machine_op(m, OP_TASK_EXIT, i), STATUS_OK);
	machine_check(m);
	assert_int_equal(free_pages(m), before);
	machine_free(m);
}

BOTH(schedule_rules)
{
	u32 a = new_task(m), b;

	assert_int_equal(machine_op(m, OP_TASK_CREATE, 0), STATUS_OK);
	b = (u32)m->res.values[0];
	/* A task's ops need it current on the CPU that they name. */
	assert_int_equal(machine_op_on(m, 0, b, OP_BRK, 0), STATUS_NOT_OWNER);
	assert_int_equal(machine_op_on(m, 1, a, OP_BRK, 0), STATUS_NOT_OWNER);
	assert_int_equal(machine_op(m, OP_BRK, 0), STATUS_NOT_OWNER);
	/* Current elsewhere. */
	assert_int_equal(machine_op_on(m, 1, 0, OP_SCHEDULE, a), STATUS_BUSY);
	assert_int_equal(machine_op_on(m, 0, 0, OP_SCHEDULE, a), STATUS_OK);
	assert_int_equal(m->res.values[0], a);
	assert_int_equal(machine_op_on(m, 0, 0, OP_SCHEDULE, b), STATUS_OK);
	assert_int_equal(m->res.values[0], a);
	assert_int_equal(machine_op_on(m, 1, 0, OP_SCHEDULE, a), STATUS_OK);
	assert_int_equal(m->res.values[0], 0);
	assert_int_equal(machine_op_on(m, 1, a, OP_BRK, 0), STATUS_OK);
	/* An exit leaves its CPU in its own context. */
	assert_int_equal(machine_op(m, OP_TASK_EXIT, a), STATUS_OK);
	assert_int_equal(m->e->st->user.cpu[1].current, 0);
	assert_int_equal(m->e->st->user.cpu[1].pgd, 0);
	assert_int_equal(machine_op_on(m, 0, b, OP_TASK_EXIT, b), STATUS_OK);
}

BOTH(atomic_forbids_to_move_sleep_and_end)
{
	u32 task = new_task(m);
	va_t va = map_anonymous(m, task, 1), local;

	assert_int_equal(machine_op(m, OP_ALLOC_PAGES, GFP_HIGHUSER, 0), STATUS_OK);
	assert_int_equal(machine_op_on(m, 0, task, OP_KMAP_ATOMIC, m->res.values[0]), STATUS_OK);
	local = (va_t)m->res.values[0];
	machine_forget_events(m);
	assert_int_equal(machine_op(m, OP_SCHEDULE, 0), STATUS_ATOMIC);
	assert_int_equal(machine_op(m, OP_TASK_EXIT, task), STATUS_ATOMIC);
	assert_int_equal(user_write(m, task, va, "x"), STATUS_ATOMIC);
	assert_int_equal(m->res.values[0], 0);
	assert_int_equal(machine_op_on(m, 0, task, OP_PIN_USER_PAGE, va, 1), STATUS_ATOMIC);
	assert_int_equal(machine_count_events(m, EVENT_ATOMIC_VIOLATION), 4);
	assert_int_equal(machine_op_on(m, 0, task, OP_KUNMAP_ATOMIC, local), STATUS_OK);
	assert_int_equal(user_write(m, task, va, "x"), STATUS_OK);
	assert_int_equal(machine_op(m, OP_SCHEDULE, 0), STATUS_OK);
}

BOTH(exit_gives_everything_back)
{
	u32 before, task, file = new_file(m, 64 * PAGE);
	pfn_t frame;

	assert_int_equal(file_write(m, file, 0, "cached", 6), STATUS_OK);
	assert_int_equal(machine_op(m, OP_ALLOC_PAGES, GFP_HIGHUSER, 0), STATUS_OK);
	frame = (pfn_t)m->res.values[0];
	before = free_pages(m);
	task = new_task(m);
	for (u32 i = 0; i < 20; i++)
		user_write(m, task,
			   map(m, task, 0, 3 * PAGE, RW, UMAP_SHARED | UMAP_ANONYMOUS, 0, 0),
			   "shared");
	for (u32 i = 0; i < 20; i++)
		user_write(m, task,
			   map(m, task, 0, 2 * PAGE,
			       i % 2 ? RW : UPROT_READ | UPROT_WRITE | UPROT_EXEC, 0, 0, 0),
			   "private");
	assert_user_sees(m, task, map(m, task, 0, PAGE, RW, UMAP_PRIVATE, file, 0), "cached");
	assert_int_equal(machine_op_on(m, 0, task, OP_BRK, BRK_START + 100 * PAGE), STATUS_OK);
	assert_int_equal(user_write(m, task, BRK_START + 50 * PAGE, "heap"), STATUS_OK);
	/* Local mappings that it forgot go with it. */
	assert_int_equal(machine_op_on(m, 0, task, OP_KMAP_LOCAL, frame), STATUS_OK);
	assert_int_equal(machine_op(m, OP_FREE_PAGES, frame, 0), STATUS_BUSY);
	assert_int_equal(machine_op(m, OP_TASK_EXIT, task), STATUS_OK);
	assert_int_equal(free_pages(m), before);
	assert_int_equal(machine_op(m, OP_FREE_PAGES, frame, 0), STATUS_OK);
	assert_int_equal(machine_op(m, OP_FILE_DELETE, file), STATUS_OK);
}

/* ---- fork ---- */

BOTH(fork_copies_on_write)
{
	u32 parent = new_task(m), child;
	va_t va = map_anonymous(m, parent, 4);
	pfn_t first;

	assert_int_equal(user_write(m, parent, va, "before"), STATUS_OK);
	first = frame_of(m, parent, va);
	child = fork_task(m, parent);
	assert_int_equal(frame_of(m, child, va), first);
	assert_int_equal(entry_of(m, parent, va) & PTE_WRITE, 0);
	/* The parent writes: it gets the copy, the child keeps the frame. */
	assert_int_equal(user_write(m, parent, va, "parent"), STATUS_OK);
	assert_int_equal(last_fault(m), FAULT_COPY_ON_WRITE);
	assert_int_not_equal(frame_of(m, parent, va), first);
	schedule(m, 1, child);
	assert_int_equal(do_access(m, 1, child, va, 6, ACCESS_READ, PRIVILEGE_USER, NULL, 0),
			 STATUS_OK);
	assert_memory_equal(m->res.data, "before", 6);
	/* Nobody else has it any more: the child's write takes it as it is. */
	assert_int_equal(do_access(m, 1, child, va, 0, ACCESS_WRITE, PRIVILEGE_USER, "child", 5),
			 STATUS_OK);
	assert_int_equal(last_fault(m), FAULT_REUSE);
	assert_int_equal(frame_of(m, child, va), first);
	assert_user_sees(m, parent, va, "parent");
	/* What neither had touched is its own. */
	assert_int_equal(user_write(m, parent, va + PAGE, "only here"), STATUS_OK);
	assert_int_equal(do_access(m, 1, child, va + PAGE, 4, ACCESS_READ, PRIVILEGE_USER, NULL, 0),
			 STATUS_OK);
	assert_memory_equal(m->res.data, "\0\0\0\0", 4);
}

BOTH(fork_shares_shared_memory)
{
	u32 parent = new_task(m), child;
	va_t va = map(m, parent, 0, 2 * PAGE, RW, UMAP_SHARED | UMAP_ANONYMOUS, 0, 0);

	child = fork_task(m, parent);
	assert_int_equal(user_write(m, parent, va + PAGE, "for both"), STATUS_OK);
	schedule(m, 0, child);
	assert_user_sees(m, child, va + PAGE, "for both");
	assert_int_equal(user_write(m, child, va, "back"), STATUS_OK);
	/* It outlives the one who made it, and goes with the last. */
	assert_int_equal(machine_op(m, OP_TASK_EXIT, parent), STATUS_OK);
	assert_user_sees(m, child, va, "back");
	assert_int_equal(m->e->st->files.files.nr, 1);
	assert_int_equal(machine_op_on(m, 0, child, OP_MUNMAP, va, PAGE), STATUS_OK);
	assert_user_sees(m, child, va + PAGE, "for both");
	assert_int_equal(machine_op_on(m, 0, child, OP_MUNMAP, va + PAGE, PAGE), STATUS_OK);
	assert_int_equal(m->e->st->files.files.nr, 0);
	assert_int_equal(m->e->st->files.cached_pages, 0);
}

BOTH(fork_copies_pinned_pages_at_once)
{
	u32 parent = new_task(m), child;
	va_t va = map_anonymous(m, parent, 1);
	pfn_t pinned;

	assert_int_equal(user_write(m, parent, va, "dma"), STATUS_OK);
	assert_int_equal(machine_op_on(m, 0, parent, OP_PIN_USER_PAGE, va, 1), STATUS_OK);
	pinned = (pfn_t)m->res.values[0];
	child = fork_task(m, parent);
	assert_int_equal(frame_of(m, parent, va), pinned);
	assert_int_not_equal(frame_of(m, child, va), pinned);
	assert_int_equal(user_write(m, parent, va, "new"), STATUS_OK);
	assert_int_equal(m->res.values[1], 0); /* no fault: it is still the parent's to write */
	schedule(m, 0, child);
	assert_user_sees(m, child, va, "dma");
	assert_int_equal(machine_op(m, OP_UNPIN_USER_PAGE, pinned), STATUS_OK);
}

/* Makes the op, with its second argument growing by `step`, until there is no memory
 * for it, and sees that the last one, which got none, kept none. */
static void until_no_memory(struct machine *m, struct engine_op op, u32 step)
{
	u32 before, status;

	do {
		before = free_pages(m);
		status = machine_run(m, &op);
		op.args[1] += step;
	} while (status == STATUS_OK);
	assert_int_equal(status, STATUS_NO_MEMORY);
	assert_int_equal(m->res.values[0], 0);
	assert_int_equal(free_pages(m), before);
}

/* Without lowmem; a fork leaves no trace in the parent's entries either. */
BOTH(failures_keep_no_memory)
{
	u32 task = new_task(m), file = new_file(m, PAGE), before;
	va_t va = map_anonymous(m, task, 64);
	pfn_t hog[4096];
	u32 nr = 0;

	for (u32 i = 0; i < 64; i++)
		assert_int_equal(user_write(m, task, va + i * PAGE, "x"), STATUS_OK);
	m->unchecked = true;
	for (u32 order = 4; order <= 4; order--) {
		while (nr < 4096 && machine_op(m, OP_ALLOC_PAGES, GFP_KERNEL | __GFP_MEMALLOC,
					       order) == STATUS_OK)
			hog[nr++] = (pfn_t)m->res.values[0] | order << 28;
	}
	assert_in_range(nr, 1, 4095);
	m->unchecked = false;
	machine_check(m);
	before = free_pages(m);
	assert_int_equal(machine_op(m, OP_TASK_FORK, task), STATUS_NO_MEMORY);
	assert_int_equal(m->res.values[0], 0);
	assert_int_equal(free_pages(m), before);
	assert_true(entry_of(m, task, va) & PTE_WRITE);
	until_no_memory(m, (struct engine_op){.code = OP_FILE_CREATE, .args = {PAGE}}, 0);
	/* Every page in a leaf of its own of the file's index. */
	until_no_memory(
	    m,
	    (struct engine_op){
		.code = OP_FILE_WRITE, .args = {file}, .data = (const u8 *)"x", .data_len = 1},
	    FILE_NODE_SLOTS * PAGE);
	until_no_memory(m,
			(struct engine_op){.code = OP_MMAP,
					   .task = task,
					   .args = {0, PAGE, RW, UMAP_SHARED | UMAP_ANONYMOUS}},
			0);
	until_no_memory(m,
			(struct engine_op){.code = OP_MMAP,
					   .task = task,
					   .args = {0, PAGE, UPROT_READ, UMAP_SHARED, file}},
			0);
	until_no_memory(m,
			(struct engine_op){.code = OP_DMA_MAP,
					   .args = {hog[0] & 0xfffffff, 1, 24, DMA_TO_DEVICE}},
			0);
	assert_int_equal(machine_op(m, OP_TASK_CREATE, 0), STATUS_NO_MEMORY);
	m->unchecked = true;
	while (nr--)
		assert_int_equal(machine_op(m, OP_FREE_PAGES, hog[nr] & 0xfffffff, hog[nr] >> 28),
				 STATUS_OK);
	m->unchecked = false;
	assert_int_equal(fork_task(m, task), task + 1);
}

/* ---- mmap ---- */

BOTH(mmap_goes_top_down)
{
	u32 task = new_task(m);
	va_t top = m->e->st->layout.task_size - MMAP_STACK_GAP;
	va_t a = map(m, task, 0, 3 * PAGE, RW, 0, 0, 0);
	va_t b = map(m, task, 0, 1, UPROT_READ, 0, 0, 0);
	va_t c;

	assert_int_equal(a, top - 3 * PAGE);
	assert_int_equal(b, a - PAGE);
	/* The highest hole that fits, not the first after the last. */
	assert_int_equal(machine_op_on(m, 0, task, OP_MUNMAP, a, PAGE), STATUS_OK);
	c = map(m, task, 0, 2 * PAGE, UPROT_EXEC, 0, 0, 0);
	assert_int_equal(c, b - 2 * PAGE);
	assert_int_equal(map(m, task, 0, PAGE, UPROT_NONE, 0, 0, 0), a);
	/* When nothing is left below the stack's room: above a third, bottom up. */
	assert_int_equal(machine_op_on(m, 0, task, OP_MMAP, MMAP_MIN_ADDR, c - MMAP_MIN_ADDR,
				       UPROT_NONE, UMAP_FIXED | UMAP_PRIVATE | UMAP_ANONYMOUS),
			 STATUS_OK);
	assert_int_equal(map(m, task, 0, PAGE, UPROT_READ, 0, 0, 0), top);
	assert_int_equal(machine_op_on(m, 0, task, OP_MMAP, 0, MMAP_STACK_GAP, UPROT_READ),
			 STATUS_NO_SPACE);
}

BOTH(mmap_hints)
{
	u32 task = new_task(m);
	va_t top = m->e->st->layout.task_size - MMAP_STACK_GAP;

	/* A free hint is taken, rounded down, and never below the least address. */
	assert_int_equal(map(m, task, 0x20000123, PAGE, RW, 0, 0, 0), 0x20000000);
	assert_int_equal(map(m, task, 0x1000, PAGE, RW, 0, 0, 0), MMAP_MIN_ADDR);
	/* One that is not free, or does not fit, is forgotten. */
	assert_int_equal(map(m, task, 0x20000000, PAGE, RW, 0, 0, 0), top - PAGE);
	assert_int_equal(map(m, task, m->e->st->layout.task_size - PAGE, 2 * PAGE, RW, 0, 0, 0),
			 top - 3 * PAGE);
	/* Above the search's top it is as good as below. */
	assert_int_equal(map(m, task, top + PAGE, PAGE, RW, 0, 0, 0), top + PAGE);
}

BOTH(mmap_fixed)
{
	const u32 fixed = UMAP_FIXED | UMAP_PRIVATE | UMAP_ANONYMOUS;
	const u32 noreplace = UMAP_FIXED_NOREPLACE | UMAP_PRIVATE | UMAP_ANONYMOUS;
	u32 task = new_task(m), size = m->e->st->layout.task_size;
	va_t va = map(m, task, 0x30000000, 5 * PAGE, RW, fixed, 0, 0);

	assert_int_equal(user_write(m, task, va + 2 * PAGE, "old"), STATUS_OK);
	assert_int_equal(machine_op_on(m, 0, task, OP_MMAP, va + 4 * PAGE, 2 * PAGE, RW, noreplace),
			 STATUS_EXISTS);
	assert_user_sees(m, task, va + 2 * PAGE, "old");
	assert_int_equal(map(m, task, va + 5 * PAGE, PAGE, UPROT_READ, noreplace, 0, 0),
			 va + 5 * PAGE);
	/* Replaces what was there, bytes and all. */
	assert_int_equal(map(m, task, va + 2 * PAGE, PAGE, UPROT_READ, fixed, 0, 0), va + 2 * PAGE);
	assert_int_equal(user_read(m, task, va + 2 * PAGE, 3), STATUS_OK);
	assert_memory_equal(m->res.data, "\0\0\0", 3);
	assert_int_equal(maps_of(m, task)->nr, 4);
	/* As root Linux lets it go below mmap_min_addr, even to 0. */
	assert_int_equal(map(m, task, 0, PAGE, RW, fixed, 0, 0), 0);
	assert_int_equal(user_write(m, task, 0, "null"), STATUS_OK);
	/* But not where it cannot be. */
	assert_int_equal(machine_op_on(m, 0, task, OP_MMAP, va + 1, PAGE, RW, fixed),
			 STATUS_INVALID);
	assert_int_equal(machine_op_on(m, 0, task, OP_MMAP, size - PAGE, 2 * PAGE, RW, fixed),
			 STATUS_NO_SPACE);
	assert_int_equal(machine_op_on(m, 0, task, OP_MMAP, size, PAGE, RW, fixed),
			 STATUS_NO_SPACE);
	assert_int_equal(map(m, task, size - PAGE, PAGE, RW, fixed, 0, 0), size - PAGE);
	assert_int_equal(user_write(m, task, size - 4, "last"), STATUS_OK);
}

BOTH(mmap_refuses)
{
	u32 task = new_task(m), file = new_file(m, PAGE);
	const struct {
		u32 length, prot, flags, file, offset, status;
	} cases[] = {
	    {0xffffffff, RW, 0, 0, 0, STATUS_NO_SPACE},
	    {m->e->st->layout.task_size, RW, 0, 0, 0, STATUS_NO_SPACE},
	    {PAGE, RW, UMAP_SHARED | UMAP_PRIVATE, file, 0, STATUS_INVALID},
	    {PAGE, RW, UMAP_ANONYMOUS, 0, 0, STATUS_INVALID},
	    {PAGE, RW, UMAP_PRIVATE | 0x4, file, 0, STATUS_INVALID},
	    {PAGE, RW, UMAP_PRIVATE, file, 17, STATUS_INVALID},
	    {2 * PAGE, RW, UMAP_PRIVATE, file, 0xfffff000, STATUS_INVALID},
	    {PAGE, RW, 0, file, 0, STATUS_INVALID},
	    {PAGE, RW, UMAP_PRIVATE, 0, 0, STATUS_NOT_FOUND},
	    {PAGE, RW, UMAP_PRIVATE, file + 1, 0, STATUS_NOT_FOUND},
	};

	for (u32 i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		u32 status = machine_op_on(m, 0, task, OP_MMAP, 0, cases[i].length, cases[i].prot,
					   cases[i].flags, cases[i].file, cases[i].offset);

		if (status != cases[i].status)
			fail_msg("case %u: status %u", i, status);
	}
	assert_int_equal(maps_of(m, task)->nr, 0);
}

BOTH(vmas_merge_and_split)
{
	const u32 fixed = UMAP_FIXED | UMAP_PRIVATE | UMAP_ANONYMOUS;
	u32 task = new_task(m), file = new_file(m, 16 * PAGE);
	va_t va = 0x40000000;
	struct maps_rows *rows;

	machine_forget_events(m);
	map(m, task, va, PAGE, RW, fixed, 0, 0);
	map(m, task, va + 2 * PAGE, PAGE, RW, fixed, 0, 0);
	assert_int_equal(maps_of(m, task)->nr, 2);
	/* The hole between closes: three are one. */
	map(m, task, va + PAGE, PAGE, RW, fixed, 0, 0);
	rows = maps_of(m, task);
	assert_int_equal(rows->nr, 1);
	assert_vma(rows, 0, va, va + 3 * PAGE, RW);
	assert_int_equal(machine_count_events(m, EVENT_VMA_CREATED), 3);
	assert_int_equal(machine_count_events(m, EVENT_VMA_MERGED), 2);
	assert_int_equal(machine_op_on(m, 0, task, OP_MUNMAP, va + PAGE, PAGE), STATUS_OK);
	assert_int_equal(machine_count_events(m, EVENT_VMA_SPLIT), 2);
	assert_int_equal(machine_count_events(m, EVENT_VMA_REMOVED), 1);
	rows = maps_of(m, task);
	assert_vma(rows, 0, va, va + PAGE, RW);
	assert_vma(rows, 1, va + 2 * PAGE, va + 3 * PAGE, RW);
	/* Of files, only pages that follow each other merge. */
	va += 16 * PAGE;
	map(m, task, va, PAGE, RW, UMAP_FIXED | UMAP_SHARED, file, 0);
	map(m, task, va + PAGE, PAGE, RW, UMAP_FIXED | UMAP_SHARED, file, PAGE);
	map(m, task, va + 2 * PAGE, PAGE, RW, UMAP_FIXED | UMAP_SHARED, file, PAGE);
	map(m, task, va + 3 * PAGE, PAGE, RW, UMAP_FIXED | UMAP_PRIVATE, file, 2 * PAGE);
	rows = maps_of(m, task);
	assert_int_equal(rows->nr, 5);
	assert_vma(rows, 2, va, va + 2 * PAGE, RW);
	assert_int_equal(rows->row[2][5], 0);
	assert_int_equal(rows->row[3][5], PAGE);
	/* Two shared anonymous mappings are two things. */
	va += 16 * PAGE;
	map(m, task, va, PAGE, RW, UMAP_FIXED | UMAP_SHARED | UMAP_ANONYMOUS, 0, 0);
	map(m, task, va + PAGE, PAGE, RW, UMAP_FIXED | UMAP_SHARED | UMAP_ANONYMOUS, 0, 0);
	assert_int_equal(maps_of(m, task)->nr, 7);
	assert_int_equal(machine_op(m, OP_FILE_DELETE, file), STATUS_BUSY);
	/* Everything at once, holes included. */
	assert_int_equal(machine_op_on(m, 0, task, OP_MUNMAP, 0, m->e->st->layout.task_size),
			 STATUS_OK);
	assert_int_equal(maps_of(m, task)->nr, 0);
	assert_int_equal(machine_op(m, OP_FILE_DELETE, file), STATUS_OK);
}

BOTH(munmap_and_mprotect_refuse)
{
	u32 task = new_task(m), size = m->e->st->layout.task_size;
	va_t va = map_anonymous(m, task, 4);

	assert_int_equal(machine_op_on(m, 0, task, OP_MUNMAP, va + 1, PAGE), STATUS_INVALID);
	assert_int_equal(machine_op_on(m, 0, task, OP_MUNMAP, size, PAGE), STATUS_INVALID);
	assert_int_equal(machine_op_on(m, 0, task, OP_MUNMAP, va, 0xffffffff), STATUS_INVALID);
	assert_int_equal(machine_op_on(m, 0, task, OP_MUNMAP, 0x10000000, PAGE), STATUS_OK);
	assert_int_equal(machine_op_on(m, 0, task, OP_MPROTECT, va + 8, PAGE, RW), STATUS_INVALID);
	assert_int_equal(machine_op_on(m, 0, task, OP_MPROTECT, size, PAGE, RW), STATUS_INVALID);
	/* Over a hole nothing changes, also not before it. */
	assert_int_equal(machine_op_on(m, 0, task, OP_MUNMAP, va + 2 * PAGE, PAGE), STATUS_OK);
	assert_int_equal(machine_op_on(m, 0, task, OP_MPROTECT, va, 4 * PAGE, UPROT_READ),
			 STATUS_NOT_FOUND);
	assert_vma(maps_of(m, task), 0, va, va + 2 * PAGE, RW);
}

static void vma_limit(void **state)
{
	const u32 fixed = UMAP_FIXED | UMAP_PRIVATE | UMAP_ANONYMOUS;
	struct machine *m = user_machine(0);
	u32 task = new_task(m);
	va_t va = 0x10000000;

	(void)state;
	m->unchecked = true;
	for (u32 i = 0; i < VMA_MAX_COUNT; i++)
		map(m, task, va + i * PAGE, PAGE, i % 2 ? RW : UPROT_READ, fixed, 0, 0);
	assert_int_equal(machine_op_on(m, 0, task, OP_MMAP, 0, PAGE, RW), STATUS_LIMIT);
	assert_int_equal(machine_op_on(m, 0, task, OP_MUNMAP, va, PAGE), STATUS_OK);
	assert_int_equal(machine_op_on(m, 0, task, OP_MMAP, 0, 3 * PAGE, RW), STATUS_OK);
	va = (va_t)m->res.values[0];
	/* Cutting one in two is one too many; cutting its end off is not. */
	assert_int_equal(machine_op_on(m, 0, task, OP_MUNMAP, va + PAGE, PAGE), STATUS_LIMIT);
	assert_int_equal(machine_op_on(m, 0, task, OP_MPROTECT, va + PAGE, PAGE, UPROT_READ),
			 STATUS_LIMIT);
	machine_check(m);
	assert_int_equal(machine_op(m, OP_TASK_EXIT, task), STATUS_OK);
	machine_check(m);
	machine_free(m);
}

/* ---- mprotect ---- */

BOTH(mprotect_changes_what_may_be_done)
{
	u32 task = new_task(m);
	va_t va = map_anonymous(m, task, 3);
	bool pae = m->e->st->layout.pae;

	assert_int_equal(user_write(m, task, va + PAGE, "kept"), STATUS_OK);
	assert_int_equal(machine_op_on(m, 0, task, OP_MPROTECT, va + PAGE, PAGE, UPROT_NONE),
			 STATUS_OK);
	assert_int_equal(maps_of(m, task)->nr, 3);
	assert_int_equal(user_read(m, task, va + PAGE, 4), STATUS_FAULT);
	assert_int_equal(m->res.values[2], FAULT_USER);
	assert_int_equal(m->res.values[3], va + PAGE);
	assert_int_equal(last_fault(m), FAULT_PROTECTED);
	/* The kernel on the task's behalf may not either. */
	assert_int_equal(
	    do_access(m, 0, task, va + PAGE, 4, ACCESS_READ, PRIVILEGE_KERNEL, NULL, 0),
	    STATUS_FAULT);
	assert_int_equal(machine_op_on(m, 0, task, OP_MPROTECT, va + PAGE, PAGE, UPROT_READ),
			 STATUS_OK);
	assert_user_sees(m, task, va + PAGE, "kept");
	assert_int_equal(user_write(m, task, va + PAGE, "no"), STATUS_FAULT);
	assert_int_equal(m->res.values[2], FAULT_USER | FAULT_WRITE | FAULT_PROTECTION);
	/* Its own frame is writable again at once, and the three are one again. */
	assert_int_equal(machine_op_on(m, 0, task, OP_MPROTECT, va + PAGE, PAGE, RW), STATUS_OK);
	assert_int_equal(maps_of(m, task)->nr, 1);
	assert_int_equal(user_write(m, task, va + PAGE, "yes"), STATUS_OK);
	assert_int_equal(m->res.values[1], 0);
	/* Fetching is a right of its own only with NX. */
	assert_int_equal(
	    do_access(m, 0, task, va + PAGE, 4, ACCESS_EXECUTE, PRIVILEGE_USER, NULL, 0),
	    pae ? STATUS_FAULT : STATUS_OK);
	assert_int_equal(
	    machine_op_on(m, 0, task, OP_MPROTECT, va, 3 * PAGE, UPROT_READ | UPROT_EXEC),
	    STATUS_OK);
	assert_int_equal(
	    do_access(m, 0, task, va + PAGE, 4, ACCESS_EXECUTE, PRIVILEGE_USER, NULL, 0),
	    STATUS_OK);
	assert_memory_equal(m->res.data, "yest", 4);
	/* A page that was never there comes in as for a read before NX refuses it. */
	va = map_anonymous(m, task, 1);
	assert_int_equal(do_access(m, 0, task, va, 4, ACCESS_EXECUTE, PRIVILEGE_USER, NULL, 0),
			 pae ? STATUS_FAULT : STATUS_OK);
	assert_int_equal(m->res.values[1], pae ? 2 : 1);
}

BOTH(mprotect_flushes_other_cpus)
{
	u32 task = new_task(m);
	va_t va = map_anonymous(m, task, 1);

	/* The TLB of CPU 1 is warm with the right to write. */
	schedule(m, 0, 0);
	schedule(m, 1, task);
	assert_int_equal(do_access(m, 1, task, va, 0, ACCESS_WRITE, PRIVILEGE_USER, "a", 1),
			 STATUS_OK);
	machine_forget_events(m);
	assert_int_equal(machine_op_on(m, 1, task, OP_MPROTECT, va, PAGE, UPROT_READ), STATUS_OK);
	assert_int_equal(machine_count_events(m, EVENT_TLB_FLUSH), 1);
	assert_int_equal(do_access(m, 1, task, va, 0, ACCESS_WRITE, PRIVILEGE_USER, "b", 1),
			 STATUS_FAULT);
}

/* ---- brk ---- */

BOTH(brk_grows_and_shrinks)
{
	u32 task = new_task(m);
	const u32 fixed = UMAP_FIXED | UMAP_PRIVATE | UMAP_ANONYMOUS;

	assert_int_equal(machine_op_on(m, 0, task, OP_BRK, 0), STATUS_OK);
	assert_int_equal(m->res.values[0], BRK_START);
	assert_int_equal(machine_op_on(m, 0, task, OP_BRK, BRK_START - 1), STATUS_INVALID);
	assert_int_equal(machine_op_on(m, 0, task, OP_BRK, BRK_START + 100), STATUS_OK);
	assert_int_equal(m->res.values[0], BRK_START + 100);
	assert_vma(maps_of(m, task), 0, BRK_START, BRK_START + PAGE, RW);
	assert_int_equal(user_write(m, task, BRK_START + 10, "heap"), STATUS_OK);
	assert_int_equal(machine_op_on(m, 0, task, OP_BRK, BRK_START + 10 * PAGE), STATUS_OK);
	assert_int_equal(maps_of(m, task)->nr, 1);
	assert_user_sees(m, task, BRK_START + 10, "heap");
	assert_int_equal(user_write(m, task, BRK_START + 9 * PAGE, "end"), STATUS_OK);
	assert_int_equal(machine_op_on(m, 0, task, OP_BRK, BRK_START + 9 * PAGE), STATUS_OK);
	assert_int_equal(user_read(m, task, BRK_START + 9 * PAGE, 1), STATUS_FAULT);
	/* It comes back as zeros. */
	assert_int_equal(machine_op_on(m, 0, task, OP_BRK, BRK_START + 10 * PAGE), STATUS_OK);
	assert_int_equal(user_read(m, task, BRK_START + 9 * PAGE, 3), STATUS_OK);
	assert_memory_equal(m->res.data, "\0\0\0", 3);
	/* It keeps a page's distance to what is above. */
	map(m, task, BRK_START + 20 * PAGE, PAGE, UPROT_READ, fixed, 0, 0);
	assert_int_equal(machine_op_on(m, 0, task, OP_BRK, BRK_START + 20 * PAGE), STATUS_NO_SPACE);
	assert_int_equal(machine_op_on(m, 0, task, OP_BRK, BRK_START + 19 * PAGE), STATUS_OK);
	assert_int_equal(machine_op_on(m, 0, task, OP_BRK, 0xfffffff0), STATUS_NO_SPACE);
	assert_int_equal(machine_op_on(m, 0, task, OP_BRK, BRK_START), STATUS_OK);
	assert_int_equal(maps_of(m, task)->nr, 1);
}

/* ---- faults ---- */

BOTH(anonymous_faults)
{
	u32 task = new_task(m);
	va_t va = map_anonymous(m, task, 2);

	assert_int_equal(user_read(m, task, va + 5, 1), STATUS_OK);
	assert_int_equal(last_fault(m), FAULT_ZERO_PAGE);
	assert_int_equal(frame_of(m, task, va), m->e->st->map.zero_pfn);
	assert_int_equal(task_mm(m->e, task_find(m->e, task))->resident, 0);
	assert_int_equal(user_write(m, task, va, "w"), STATUS_OK);
	assert_int_equal(last_fault(m), FAULT_COPY_ON_WRITE);
	assert_int_equal(user_write(m, task, va + PAGE, "w"), STATUS_OK);
	assert_int_equal(last_fault(m), FAULT_DEMAND_ZERO);
	/* From HIGHMEM, for as long as there is some. */
	assert_int_equal(zone_of_pfn(m->e, frame_of(m, task, va)), ZONE_HIGHMEM);
	assert_int_equal(task_mm(m->e, task_find(m->e, task))->resident, 2);
	assert_int_equal(user_read(m, task, va + 2 * PAGE, 1), STATUS_FAULT);
	assert_int_equal(last_fault(m), FAULT_SEGMENTATION);
}

BOTH(fault_op)
{
	u32 task = new_task(m);
	va_t va = map(m, task, 0, PAGE, UPROT_READ, 0, 0, 0);

	assert_int_equal(machine_op_on(m, 0, task, OP_FAULT, va, FAULT_USER), STATUS_OK);
	assert_int_equal(m->res.values[0], FAULT_ZERO_PAGE);
	assert_int_equal(m->res.values[1], m->e->st->map.zero_pfn);
	assert_int_equal(machine_op_on(m, 0, task, OP_FAULT, va, FAULT_USER), STATUS_OK);
	assert_int_equal(m->res.values[0], FAULT_SPURIOUS);
	assert_int_equal(machine_op_on(m, 0, task, OP_FAULT, va, FAULT_USER | FAULT_WRITE),
			 STATUS_FAULT);
	assert_int_equal(last_fault(m), FAULT_PROTECTED);
	assert_int_equal(machine_op_on(m, 0, task, OP_FAULT, va, FAULT_USER | FAULT_PROTECTION),
			 STATUS_FAULT);
	assert_int_equal(machine_op_on(m, 0, task, OP_FAULT, va - PAGE, FAULT_USER), STATUS_FAULT);
	assert_int_equal(last_fault(m), FAULT_SEGMENTATION);
	assert_int_equal(m->res.values[0], FAULT_NONE);
	assert_int_equal(machine_op_on(m, 0, task, OP_FAULT, 0xffffffff, FAULT_USER), STATUS_FAULT);
	assert_int_equal(machine_op_on(m, 0, task, OP_FAULT, va, FAULT_RESERVED_BIT),
			 STATUS_INVALID);
	va = map_anonymous(m, task, 1);
	assert_int_equal(machine_op_on(m, 0, task, OP_FAULT, va, FAULT_USER | FAULT_WRITE),
			 STATUS_OK);
	assert_int_equal(m->res.values[0], FAULT_DEMAND_ZERO);
	assert_int_equal(m->res.values[2], ZONE_HIGHMEM);
}

BOTH(kernel_accesses)
{
	u32 task = new_task(m);
	va_t va = map_anonymous(m, task, 2), low;

	/* copy_to_user: the fault is handled like the user's own. */
	assert_int_equal(
	    do_access(m, 0, task, va + PAGE - 3, 0, ACCESS_WRITE, PRIVILEGE_KERNEL, "border", 6),
	    STATUS_OK);
	assert_int_equal(m->res.values[1], 2);
	assert_user_sees(m, task, va + PAGE - 3, "border");
	machine_forget_events(m);
	/* A bad user address is the caller's EFAULT, no oops. */
	assert_int_equal(do_access(m, 0, task, 0x5000, 1, ACCESS_READ, PRIVILEGE_KERNEL, NULL, 0),
			 STATUS_FAULT);
	assert_int_equal(machine_count_events(m, EVENT_OOPS), 0);
	/* Without a task there is no user address, and a bad kernel address is an oops. */
	assert_int_equal(do_access(m, 1, 0, va, 1, ACCESS_READ, PRIVILEGE_KERNEL, NULL, 0),
			 STATUS_FAULT);
	assert_int_equal(do_access(m, 0, task, m->e->st->layout.vmalloc_start, 1, ACCESS_WRITE,
				   PRIVILEGE_KERNEL, "x", 1),
			 STATUS_FAULT);
	assert_int_equal(m->res.values[2], FAULT_WRITE);
	assert_int_equal(machine_count_events(m, EVENT_OOPS), 2);
	/* The direct map is the kernel's alone. */
	assert_int_equal(machine_op(m, OP_ALLOC_PAGES, GFP_KERNEL, 0), STATUS_OK);
	low = m->e->page_offset + ((va_t)m->res.values[0] << PAGE_SHIFT);
	assert_int_equal(do_access(m, 1, 0, low, 0, ACCESS_WRITE, PRIVILEGE_KERNEL, "low", 3),
			 STATUS_OK);
	assert_int_equal(user_read(m, task, low, 3), STATUS_FAULT);
	assert_int_equal(m->res.values[2], FAULT_USER | FAULT_PROTECTION);
	assert_int_equal(last_fault(m), FAULT_SEGMENTATION);
	assert_int_equal(do_access(m, 0, 0, va, 1, ACCESS_READ, PRIVILEGE_USER, NULL, 0),
			 STATUS_NOT_OWNER);
}

/* What the engine lives on can be read and not written, through any mapping. */
BOTH(engine_frames_are_not_written)
{
	u32 task = new_task(m);
	const struct layout *l = &m->e->st->layout;
	const pfn_t own[] = {
	    l->metadata_start,
	    m->e->st->map.kernel_pgd,
	    m->e->st->map.zero_pfn,
	    task_mm(m->e, task_find(m->e, task))->pgd,
	    ref_pfn(m->e, ref_of(m->e, task_find(m->e, task))),
	    l->host_start,
	};

	for (u32 i = 0; i < sizeof own / sizeof own[0]; i++) {
		va_t va = frame_ref(m->e, own[i]);

		assert_int_equal(do_access(m, 0, 0, va, 1, ACCESS_READ, PRIVILEGE_KERNEL, NULL, 0),
				 STATUS_OK);
		assert_int_equal(do_access(m, 0, 0, va, 0, ACCESS_WRITE, PRIVILEGE_KERNEL, "x", 1),
				 STATUS_RESERVED);
		assert_int_equal(m->res.values[0], 0);
	}
	assert_int_equal(
	    do_access(m, 0, 0, HOST_WINDOW_VA, 1, ACCESS_READ, PRIVILEGE_KERNEL, NULL, 0),
	    STATUS_FAULT);
}

BOTH(access_is_page_by_page)
{
	u32 task = new_task(m);
	va_t va = map_anonymous(m, task, 3);
	u8 text[3] = "abc";

	/* A pattern goes over and over. */
	assert_int_equal(
	    do_access(m, 0, task, va + 1, 2 * PAGE, ACCESS_WRITE, PRIVILEGE_USER, text, 3),
	    STATUS_OK);
	assert_int_equal(m->res.values[0], 2 * PAGE);
	assert_int_equal(m->res.values[1], 3);
	assert_int_equal(m->res.data_len, 0);
	assert_int_equal(user_read(m, task, va, 3 * PAGE), STATUS_OK);
	assert_int_equal(m->res.values[1], 0);
	for (u32 i = 0; i < 2 * PAGE; i++)
		assert_int_equal(m->res.data[i + 1], text[i % 3]);
	assert_int_equal(m->res.data[0], 0);
	assert_int_equal(m->res.data[2 * PAGE + 1], 0);
	/* Pages before the one that refuses are done. */
	assert_int_equal(machine_op_on(m, 0, task, OP_MPROTECT, va + 2 * PAGE, PAGE, UPROT_READ),
			 STATUS_OK);
	assert_int_equal(
	    do_access(m, 0, task, va + 100, 3 * PAGE - 100, ACCESS_WRITE, PRIVILEGE_USER, "X", 1),
	    STATUS_FAULT);
	assert_int_equal(m->res.values[0], 2 * PAGE - 100);
	assert_int_equal(m->res.values[3], va + 2 * PAGE);
	assert_int_equal(user_read(m, task, va + PAGE, 2 * PAGE + 1), STATUS_FAULT);
	assert_int_equal(m->res.data_len, 2 * PAGE);
	assert_int_equal(m->res.data[0], 'X');
	assert_int_equal(user_read(m, task, va, 0), STATUS_INVALID);
	assert_int_equal(user_read(m, task, 0xffffff00, 0x200), STATUS_INVALID);
	assert_int_equal(do_access(m, 0, task, va, 4, ACCESS_WRITE, PRIVILEGE_USER, NULL, 0),
			 STATUS_INVALID);
	assert_int_equal(do_access(m, 0, task, va, 2, ACCESS_WRITE, PRIVILEGE_USER, text, 3),
			 STATUS_INVALID);
}

/* User pages from HIGHMEM alone, of which there is little. */
static void access_without_memory(void **state)
{
	struct engine_config config = user_config(CONFIG_PAE);
	struct machine *m;
	u32 task, task_tables, file;
	va_t va;

	(void)state;
	config.highmem = MIB_BYTES(2);
	m = machine_new(&config);
	assert_int_equal(machine_op(m, OP_SET_POLICY, USER_FALLBACK_HIGHMEM_ONLY, 0, 0), STATUS_OK);
	task = new_task(m);
	va = map(m, task, 0, MIB_BYTES(8), RW, 0, 0, 0);
	m->unchecked = true;
	while (do_access(m, 0, task, va, 65536, ACCESS_WRITE, PRIVILEGE_USER, "#", 1) == STATUS_OK)
		va += 65536;
	m->unchecked = false;
	machine_check(m);
	assert_int_equal(m->res.status, STATUS_NO_MEMORY);
	assert_int_equal(m->res.values[0] % PAGE, 0);
	assert_in_range(m->res.values[0], 0, 65536 - PAGE);
	assert_int_equal(m->res.values[1], m->res.values[0] / PAGE + 1);
	/* What was done is there; what was not has no page. */
	va += (va_t)m->res.values[0];
	assert_int_equal(entry_of(m, task, va), 0);
	assert_true(entry_of(m, task, va - PAGE) & PTE_WRITE);
	/* A fault that fails does not even keep the table that it made. */
	task_tables = task_mm(m->e, task_find(m->e, task))->page_tables;
	assert_int_equal(map(m, task, 0x20000000, PAGE, RW, 0, 0, 0), 0x20000000);
	assert_int_equal(user_write(m, task, 0x20000000, "x"), STATUS_NO_MEMORY);
	assert_int_equal(task_mm(m->e, task_find(m->e, task))->page_tables, task_tables);
	/* Nor does a file's page, or one that a pin brought in. */
	file = new_file(m, PAGE);
	va = map(m, task, 0, PAGE, RW, UMAP_PRIVATE, file, 0);
	assert_int_equal(user_write(m, task, va, "x"), STATUS_NO_MEMORY);
	assert_int_equal(m->e->st->files.cached_pages, 0);
	assert_int_equal(machine_op_on(m, 0, task, OP_PIN_USER_PAGE, 0x20000000, 0),
			 STATUS_NO_MEMORY);
	assert_int_equal(entry_of(m, task, 0x20000000), 0);
	assert_int_equal(file_write(m, file, 0, "x", 1), STATUS_NO_MEMORY);
	assert_int_equal(task_mm(m->e, task_find(m->e, task))->page_tables, task_tables);
	/* Reading needs no frame. */
	assert_int_equal(user_read(m, task, 0x20000000, 16), STATUS_OK);
	assert_int_equal(machine_op_on(m, 0, task, OP_PIN_USER_PAGE, 0x20000000, 0),
			 STATUS_NO_MEMORY);
	assert_int_equal(machine_op(m, OP_TASK_FORK, task), STATUS_OK);
	machine_free(m);
}

/* ---- files ---- */

BOTH(files_are_sparse)
{
	u32 file = new_file(m, 0x40000000), before = free_pages(m);
	static u8 bytes[3 * PAGE];

	assert_int_equal(machine_op(m, OP_FILE_READ, file, 0x3fffff00, 65536), STATUS_OK);
	assert_int_equal(m->res.data_len, 0x100);
	for (u32 i = 0; i < 0x100; i++)
		assert_int_equal(m->res.data[i], 0);
	assert_int_equal(free_pages(m), before);
	memset(bytes, 'z', sizeof bytes);
	assert_int_equal(file_write(m, file, 0x30000000 - 7, bytes, 2 * PAGE + 14), STATUS_OK);
	assert_int_equal(m->res.values[0], 2 * PAGE + 14);
	assert_int_equal(m->e->st->files.cached_pages, 4);
	assert_int_equal(machine_op(m, OP_FILE_READ, file, 0x30000000 - 8, 4 * PAGE), STATUS_OK);
	assert_int_equal(m->res.data[0], 0);
	assert_memory_equal(m->res.data + 1, bytes, 2 * PAGE + 14);
	assert_int_equal(m->res.data[2 * PAGE + 15], 0);
	assert_int_equal(file_write(m, file, 0x40000000 - 1, "ab", 2), STATUS_LIMIT);
	assert_int_equal(file_write(m, file, 0xffffffff, "ab", 2), STATUS_LIMIT);
	assert_int_equal(file_write(m, file + 1, 0, "ab", 2), STATUS_NOT_FOUND);
	assert_int_equal(machine_op(m, OP_FILE_READ, file + 1, 0, 1), STATUS_NOT_FOUND);
	assert_int_equal(machine_op(m, OP_FILE_DELETE, file + 1), STATUS_NOT_FOUND);
	assert_int_equal(machine_op(m, OP_FILE_DELETE, file), STATUS_OK);
	assert_int_equal(machine_op(m, OP_FILE_DELETE, file), STATUS_NOT_FOUND);
	assert_int_equal(m->e->st->files.cached_pages, 0);
}

BOTH(files_grow)
{
	u32 file = new_file(m, 10), task = new_task(m);
	va_t va = map(m, task, 0, 3 * PAGE, RW, UMAP_SHARED, file, 0);

	/* A mapping may write behind the end in the last page, but not beyond it. */
	assert_int_equal(user_write(m, task, va + 8, "tail!"), STATUS_OK);
	assert_int_equal(machine_op(m, OP_FILE_READ, file, 0, 100), STATUS_OK);
	assert_int_equal(m->res.data_len, 10);
	assert_memory_equal(m->res.data + 8, "ta", 2);
	assert_int_equal(user_read(m, task, va + PAGE, 1), STATUS_FAULT);
	assert_int_equal(last_fault(m), FAULT_BUS);
	/* When the file grows that far, there are zeros. */
	assert_int_equal(file_write(m, file, PAGE + 2, "new", 3), STATUS_OK);
	assert_int_equal(machine_op(m, OP_FILE_READ, file, 8, 5), STATUS_OK);
	assert_memory_equal(m->res.data, "ta\0\0\0", 5);
	assert_user_sees(m, task, va + PAGE + 2, "new");
	assert_int_equal(machine_op(m, OP_FILE_READ, file, PAGE + 5, 1), STATUS_OK);
	assert_int_equal(m->res.data_len, 0);
	assert_int_equal(file_write(m, file, 2 * PAGE + 5, "", 0), STATUS_OK);
	assert_int_equal(user_read(m, task, va + 2 * PAGE, 1), STATUS_FAULT);
}

BOTH(mappings_see_their_file)
{
	u32 file = new_file(m, 2 * PAGE), task = new_task(m);
	va_t shared, private;

	assert_int_equal(file_write(m, file, 0, "one", 3), STATUS_OK);
	shared = map(m, task, 0, 2 * PAGE, RW, UMAP_SHARED, file, 0);
	private = map(m, task, 0, 2 * PAGE, RW, UMAP_PRIVATE, file, 0);
	assert_user_sees(m, task, shared, "one");
	assert_user_sees(m, task, private, "one");
	assert_int_equal(last_fault(m), FAULT_FILE);
	assert_int_equal(frame_of(m, task, shared), frame_of(m, task, private));
	/* Until it is copied a private page shows what the file has now. */
	assert_int_equal(user_write(m, task, shared, "two"), STATUS_OK);
	assert_user_sees(m, task, private, "two");
	assert_int_equal(user_write(m, task, private, "own"), STATUS_OK);
	assert_int_equal(last_fault(m), FAULT_COPY_ON_WRITE);
	assert_int_equal(file_write(m, file, 0, "six", 3), STATUS_OK);
	assert_user_sees(m, task, private, "own");
	assert_user_sees(m, task, shared, "six");
	/* The first access a write: copied straight from the file. */
	assert_int_equal(user_write(m, task, private + PAGE + 1, "p"), STATUS_OK);
	assert_int_equal(last_fault(m), FAULT_COPY_ON_WRITE);
	assert_int_equal(user_write(m, task, shared + PAGE, "s"), STATUS_OK);
	assert_int_equal(user_read(m, task, private + PAGE, 2), STATUS_OK);
	assert_memory_equal(m->res.data, "\0p", 2);
	assert_int_equal(machine_op(m, OP_FILE_DELETE, file), STATUS_BUSY);
	/* The cache outlives the mappings. */
	assert_int_equal(machine_op(m, OP_TASK_EXIT, task), STATUS_OK);
	assert_int_equal(machine_op(m, OP_FILE_READ, file, 0, 3), STATUS_OK);
	assert_memory_equal(m->res.data, "six", 3);
	assert_int_equal(machine_op(m, OP_FILE_DELETE, file), STATUS_OK);
}

/* ---- pins ---- */

BOTH(a_pinned_frame_survives)
{
	u32 task = new_task(m);
	va_t va = map_anonymous(m, task, 2);
	pfn_t pfn;

	assert_int_equal(user_write(m, task, va, "pinned"), STATUS_OK);
	pfn = frame_of(m, task, va);
	for (u32 i = 0; i < 2; i++) {
		assert_int_equal(machine_op_on(m, 0, task, OP_PIN_USER_PAGE, va + 3, i), STATUS_OK);
		assert_int_equal(m->res.values[0], pfn);
	}
	assert_int_equal(machine_op_on(m, 0, task, OP_MUNMAP, va, PAGE), STATUS_OK);
	assert_int_equal(machine_op(m, OP_TASK_EXIT, task), STATUS_OK);
	assert_int_equal(machine_op(m, OP_FREE_PAGES, pfn, 0), STATUS_BUSY);
	assert_int_equal(machine_op(m, OP_KMAP, pfn), STATUS_OK);
	assert_int_equal(
	    do_access(m, 0, 0, (va_t)m->res.values[0], 6, ACCESS_READ, PRIVILEGE_KERNEL, NULL, 0),
	    STATUS_OK);
	assert_memory_equal(m->res.data, "pinned", 6);
	assert_int_equal(machine_op(m, OP_UNPIN_USER_PAGE, pfn), STATUS_OK);
	assert_int_equal(machine_op(m, OP_UNPIN_USER_PAGE, pfn), STATUS_OK);
	assert_int_equal(machine_op(m, OP_UNPIN_USER_PAGE, pfn), STATUS_NOT_FOUND);
	/* The kernel's mapping is its last use. */
	assert_int_equal(page_allocated_head(m->e, pfn), pfn);
	assert_int_equal(machine_op(m, OP_KUNMAP, pfn), STATUS_OK);
	assert_int_equal(page_allocated_head(m->e, pfn), 0);
	assert_int_equal(machine_op(m, OP_UNPIN_USER_PAGE, 0xffffff), STATUS_INVALID);
}

BOTH(pins_end_sharing_first)
{
	u32 parent = new_task(m), child;
	va_t va = map_anonymous(m, parent, 2), none;
	pfn_t shared;

	assert_int_equal(user_write(m, parent, va, "x"), STATUS_OK);
	assert_int_equal(user_read(m, parent, va + PAGE, 1), STATUS_OK);
	shared = frame_of(m, parent, va);
	child = fork_task(m, parent);
	machine_forget_events(m);
	/* To read: a frame of its own, with the same bytes. */
	assert_int_equal(machine_op_on(m, 0, parent, OP_PIN_USER_PAGE, va, 0), STATUS_OK);
	assert_int_not_equal(m->res.values[0], shared);
	assert_int_equal(last_fault(m), FAULT_COPY_ON_WRITE);
	assert_user_sees(m, parent, va, "x");
	assert_int_equal(frame_of(m, child, va), shared);
	/* The zero page is nobody's to pin. */
	assert_int_equal(machine_op_on(m, 0, parent, OP_PIN_USER_PAGE, va + PAGE, 0), STATUS_OK);
	assert_int_not_equal(m->res.values[0], m->e->st->map.zero_pfn);
	assert_int_equal(machine_op_on(m, 0, parent, OP_UNPIN_USER_PAGE, m->res.values[0]),
			 STATUS_OK);
	assert_int_equal(machine_op_on(m, 0, parent, OP_UNPIN_USER_PAGE, shared), STATUS_NOT_FOUND);
	none = map(m, parent, 0, PAGE, UPROT_READ, 0, 0, 0);
	assert_int_equal(machine_op_on(m, 0, parent, OP_PIN_USER_PAGE, none, 1), STATUS_FAULT);
	assert_int_equal(machine_op_on(m, 0, parent, OP_PIN_USER_PAGE, 0x1000, 0), STATUS_FAULT);
	assert_int_equal(machine_op_on(m, 0, parent, OP_PIN_USER_PAGE, 0xfffff000, 0),
			 STATUS_FAULT);
}

BOTH(a_pinned_page_outlives_its_file)
{
	u32 file = new_file(m, PAGE), task = new_task(m);
	va_t va = map(m, task, 0, PAGE, RW, UMAP_SHARED, file, 0);
	u32 before;
	pfn_t pfn;

	assert_int_equal(machine_op_on(m, 0, task, OP_PIN_USER_PAGE, va, 1), STATUS_OK);
	pfn = (pfn_t)m->res.values[0];
	assert_int_equal(machine_op(m, OP_TASK_EXIT, task), STATUS_OK);
	assert_int_equal(machine_op(m, OP_FILE_DELETE, file), STATUS_OK);
	before = free_pages(m);
	assert_int_equal(machine_op(m, OP_UNPIN_USER_PAGE, pfn), STATUS_OK);
	assert_int_equal(free_pages(m), before + 1);
}

/* ---- sleepers ---- */

/* Fills the pkmap window from the kernel's context, then sends the task to sleep. */
static u64 park(struct machine *m, u32 task)
{
	m->unchecked = true;
	for (u32 i = 0; i <= m->e->st->layout.pkmap_slots; i++) {
		u32 status;
		pfn_t pfn;

		assert_int_equal(machine_op(m, OP_ALLOC_PAGES, GFP_HIGHUSER, 0), STATUS_OK);
		pfn = (pfn_t)m->res.values[0];
		status =
		    machine_op_on(m, 0, i < m->e->st->layout.pkmap_slots ? 0 : task, OP_KMAP, pfn);
		assert_int_equal(status,
				 i < m->e->st->layout.pkmap_slots ? STATUS_OK : STATUS_PARKED);
	}
	m->unchecked = false;
	machine_check(m);
	return m->res.op;
}

BOTH(a_sleeping_task)
{
	u32 task = new_task(m);
	va_t va = map_anonymous(m, task, 1);
	u64 op;

	assert_int_equal(user_write(m, task, va, "x"), STATUS_OK);
	op = park(m, task);
	assert_int_equal(user_read(m, task, va, 1), STATUS_BUSY);
	assert_int_equal(machine_op(m, OP_TASK_FORK, task), STATUS_BUSY);
	/* Its CPU may do something else, but it cannot come back before it wakes. */
	assert_int_equal(machine_op(m, OP_SCHEDULE, 0), STATUS_OK);
	assert_int_equal(machine_op(m, OP_SCHEDULE, task), STATUS_BUSY);
	/* Its end is the end of its sleep. */
	assert_int_equal(machine_op(m, OP_TASK_EXIT, task), STATUS_OK);
	assert_int_equal(m->completed.op, op);
	assert_int_equal(m->completed.status, STATUS_WITHDRAWN);
	assert_int_equal(m->e->st->map.pkmap.nr_sleepers, 0);
}

/* ---- long ops ---- */

/* Ops on many pages let the daemon do other things meanwhile. */
BOTH(long_ops_yield)
{
	const u32 pages = 3 * ENGINE_YIELD_FRAMES;
	u32 task = new_task(m), child;
	va_t va = map(m, task, 0, pages * PAGE, RW, 0, 0, 0);
	const struct engine_op ops[] = {
	    {.code = OP_TASK_FORK, .args = {task}},
	    {.code = OP_MPROTECT, .task = task, .args = {va, pages * PAGE, UPROT_READ}},
	    {.code = OP_MUNMAP, .task = task, .args = {va, pages * PAGE}},
	};

	m->unchecked = true;
	for (u32 i = 0; i < pages; i += 16)
		assert_int_equal(do_access(m, 0, task, va + i * PAGE, 16 * PAGE, ACCESS_WRITE,
					   PRIVILEGE_USER, "y", 1),
				 STATUS_OK);
	m->unchecked = false;
	for (u32 i = 0; i < sizeof ops / sizeof ops[0]; i++) {
		enum sim_status status = sim_execute(m->sim, &ops[i], &m->res, true);
		u32 yields = 0;

		for (; status == SIM_MORE; status = sim_continue(m->sim))
			yields++;
		assert_int_equal(status, SIM_DONE);
		assert_int_equal(m->res.status, STATUS_OK);
		assert_in_range(yields, 2, 6);
		machine_check(m);
	}
	child = task + 1;
	schedule(m, 0, child);
	assert_user_sees(m, child, va + (pages - 1) * PAGE, "y");
	assert_int_equal(machine_op(m, OP_TASK_EXIT, task), STATUS_OK);
}

/* ---- the audit ---- */

/* Makes a u32 wrong, sees that the audit notices, and puts it right again. */
static void assert_lie_is_found(struct machine *m, u32 *where, u32 lie, const char *what)
{
	struct engine_error why;
	u32 truth = *where;

	*where = lie;
	if (!sim_check(m->sim, &why))
		fail_msg("not found: %s", what);
	*where = truth;
	machine_check(m);
}

BOTH(the_audit_finds_lies)
{
	u32 task = new_task(m), file = new_file(m, 2 * PAGE), child;
	va_t va = map_anonymous(m, task, 2);
	va_t shown = map(m, task, 0, PAGE, UPROT_READ, UMAP_SHARED, file, 0);
	struct task *t = task_find(m->e, task);
	struct mm *mm = task_mm(m->e, t);
	struct file *f = at(m->e, file_find(m->e, file));
	struct page *p, *cached;
	struct pgtable_step step[3];
	u32 *entry;

	assert_int_equal(user_write(m, task, va, "x"), STATUS_OK);
	assert_int_equal(user_read(m, task, shown, 1), STATUS_OK);
	assert_int_equal(machine_op_on(m, 0, task, OP_PIN_USER_PAGE, va, 1), STATUS_OK);
	child = fork_task(m, task);
	p = page_of(m->e, frame_of(m, task, va));
	cached = page_of(m->e, frame_of(m, task, shown));
	entry = at(m->e, m->e->page_offset +
			     (u32)step[pgtable_walk(m->e, mm->pgd, shown, step) - 1].entry_paddr);
	assert_lie_is_found(m, &mm->resident, mm->resident + 1, "resident");
	assert_lie_is_found(m, &mm->page_tables, mm->page_tables - 1, "page tables");
	assert_lie_is_found(m, &mm->brk, BRK_START - PAGE, "heap");
	assert_lie_is_found(m, page_mapcount(p), 2, "mapcount");
	assert_lie_is_found(m, page_pincount(p), 2, "pins");
	assert_lie_is_found(m, &p->ref, p->ref + 1, "uses of an anonymous frame");
	assert_lie_is_found(m, &cached->ref, 0, "uses of a cached frame");
	assert_lie_is_found(m, entry, *entry | (u32)PTE_WRITE, "a right too many");
	assert_lie_is_found(m, entry, *entry & ~(u32)PTE_USER, "the kernel's entry");
	assert_lie_is_found(m, entry, *entry + PAGE, "another frame");
	assert_lie_is_found(m, entry, 0, "a missing entry");
	assert_lie_is_found(m, &vma_find(m->e, mm, va)->kind, RW, "no anonymous frames");
	assert_lie_is_found(m, &vma_find(m->e, mm, shown)->b, 1, "another page of the file");
	assert_lie_is_found(m, &f->vmas, 1, "VMAs of a file");
	assert_lie_is_found(m, &f->nr_pages, 0, "pages of a file");
	assert_lie_is_found(m, &m->e->st->files.cached_pages, 9, "pages of all files");
	assert_lie_is_found(m, &t->cpu, 1, "another CPU");
	assert_lie_is_found(m, &m->e->st->user.cpu[0].current, child, "another task");
	assert_lie_is_found(m, &m->e->st->user.cpu[1].pgd, mm->pgd, "tables without a task");
	assert_lie_is_found(m, &m->e->st->user.tasks.last, 1, "numbers that were not given");
}

/* ---- text ---- */

BOTH(maps_in_linux_format)
{
	u32 task = new_task(m), file = new_file(m, 4 * PAGE);
	const u32 fixed = UMAP_FIXED | UMAP_PRIVATE | UMAP_ANONYMOUS;
	struct maps_rows *rows;

	assert_int_equal(machine_op_on(m, 0, task, OP_BRK, BRK_START + 1), STATUS_OK);
	map(m, task, 0x20000000, 2 * PAGE, UPROT_NONE, fixed, 0, 0);
	map(m, task, 0x30000000, PAGE, UPROT_READ | UPROT_EXEC, UMAP_FIXED | UMAP_PRIVATE, file,
	    2 * PAGE);
	map(m, task, 0x30001000, PAGE, RW, UMAP_FIXED | UMAP_SHARED | UMAP_ANONYMOUS, 0, 0);
	assert_int_equal(user_write(m, task, 0x30001000, "x"), STATUS_OK);
	rows = maps_of(m, task);
	assert_string_equal(
	    rows->text, "08048000-08049000 rw-p 00000000 00:00 0          [heap]\n"
			"20000000-20002000 ---p 00000000 00:00 0 \n"
			"30000000-30001000 r-xp 00002000 00:01 1          file:1\n"
			"30001000-30002000 rw-s 00000000 00:01 2          /dev/zero (deleted)\n");
	assert_int_equal(rows->row[3][3], UMAP_SHARED | UMAP_ANONYMOUS);
	assert_int_equal(rows->row[3][6], 1);
	assert_int_equal(rows->row[2][5], 2 * PAGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(task_numbers_are_never_reused),
	    cmocka_unit_test(task_limit),
	    cmocka_unit_test(schedule_rules),
	    cmocka_unit_test(atomic_forbids_to_move_sleep_and_end),
	    cmocka_unit_test(exit_gives_everything_back),
	    cmocka_unit_test(fork_copies_on_write),
	    cmocka_unit_test(fork_shares_shared_memory),
	    cmocka_unit_test(fork_copies_pinned_pages_at_once),
	    cmocka_unit_test(failures_keep_no_memory),
	    cmocka_unit_test(mmap_goes_top_down),
	    cmocka_unit_test(mmap_hints),
	    cmocka_unit_test(mmap_fixed),
	    cmocka_unit_test(mmap_refuses),
	    cmocka_unit_test(vmas_merge_and_split),
	    cmocka_unit_test(munmap_and_mprotect_refuse),
	    cmocka_unit_test(vma_limit),
	    cmocka_unit_test(mprotect_changes_what_may_be_done),
	    cmocka_unit_test(mprotect_flushes_other_cpus),
	    cmocka_unit_test(brk_grows_and_shrinks),
	    cmocka_unit_test(anonymous_faults),
	    cmocka_unit_test(fault_op),
	    cmocka_unit_test(kernel_accesses),
	    cmocka_unit_test(engine_frames_are_not_written),
	    cmocka_unit_test(access_is_page_by_page),
	    cmocka_unit_test(access_without_memory),
	    cmocka_unit_test(files_are_sparse),
	    cmocka_unit_test(files_grow),
	    cmocka_unit_test(mappings_see_their_file),
	    cmocka_unit_test(a_pinned_frame_survives),
	    cmocka_unit_test(pins_end_sharing_first),
	    cmocka_unit_test(a_pinned_page_outlives_its_file),
	    cmocka_unit_test(a_sleeping_task),
	    cmocka_unit_test(long_ops_yield),
	    cmocka_unit_test(the_audit_finds_lies),
	    cmocka_unit_test(maps_in_linux_format),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
