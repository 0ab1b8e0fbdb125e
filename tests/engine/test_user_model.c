/*
 * test_user_model.c - user memory against arrays of bytes.
 *
 * Tasks map, unmap, protect, fork, exit, pin, write and read at random in a window of
 * 48 pages; files are written and read at their side. A model that knows pages and
 * bytes, but neither frames nor tables, says what each op must answer, what every
 * access must read, and which VMAs there must be. The audit runs after every op.
 */
#include "effort.h"
#include "user_helpers.h"

enum {
	PAGE = PAGE_SIZE,
	WINDOW_PAGES = 48,
	MAX_TASKS = 4,
	MAX_NAMED = 10,
	MAX_FILES = MAX_NAMED + MAX_TASKS * WINDOW_PAGES + 1, /* with shared anonymous ones */
	FILE_PAGES = 12,
	STEPS = 2500, /* unless the environment variable STEPS says otherwise */
};

struct model_file {
	u32 number; /* of the engine's; 0 once deleted, or shared anonymous */
	bool anonymous;
	u32 size;
	u8 bytes[FILE_PAGES * PAGE];
};

struct model_page {
	bool mapped, shared;
	u32 prot;
	struct model_file *file;
	u32 index; /* in the file */
	u8 *own;   /* a private page's bytes once it has been written */
};

struct model_task {
	u32 number; /* 0: none */
	struct model_page page[WINDOW_PAGES];
};

struct model {
	struct machine *m;
	struct random random;
	va_t base;
	struct model_task task[MAX_TASKS];
	struct model_file *file[MAX_FILES];
	u32 nr_files;
	pfn_t pins[16];
	u32 nr_pins;
	u32 faults; /* accesses that were refused, so that the test is known to try */
};

static u32 below(struct model *w, u32 n)
{
	return (u32)random_below(&w->random, n);
}

/* ---- the model ---- */

static void page_forget(struct model_page *p)
{
	free(p->own);
	*p = (struct model_page){0};
}

/* Bytes that the page shows; NULL: zeros. */
static const u8 *page_bytes_of(const struct model_page *p)
{
	if (p->own)
		return p->own;
	return p->file ? p->file->bytes + p->index * PAGE : NULL;
}

/* Where a write to the page goes. */
static u8 *page_for_write(struct model_page *p)
{
	if (p->shared)
		return p->file->bytes + p->index * PAGE;
	if (!p->own) {
		const u8 *now = page_bytes_of(p);

		p->own = calloc(1, PAGE);
		if (now)
			memcpy(p->own, now, PAGE);
	}
	return p->own;
}

static bool beyond_end(const struct model_page *p)
{
	return p->file && !p->own && p->index >= (p->file->size + PAGE - 1) / PAGE;
}

static bool may(const struct model *w, const struct model_page *p, u32 mode)
{
	if (!p->mapped)
		return false;
	if (mode == ACCESS_WRITE ? !(p->prot & UPROT_WRITE) : !p->prot)
		return false;
	if (mode == ACCESS_EXECUTE && w->m->e->st->layout.pae && !(p->prot & UPROT_EXEC))
		return false;
	return !beyond_end(p);
}

static bool same_vma(const struct model_page *a, const struct model_page *b)
{
	return a->mapped && b->mapped && a->prot == b->prot && a->shared == b->shared &&
	       a->file == b->file && (!a->file || a->index + 1 == b->index);
}

static struct model_task *any_task(struct model *w)
{
	struct model_task *t;

	do
		t = &w->task[below(w, MAX_TASKS)];
	while (!t->number);
	return t;
}

/* A file that is not deleted and has a name; NULL: none. */
static struct model_file *any_file(struct model *w)
{
	for (u32 tries = 0; tries < 20 && w->nr_files; tries++) {
		struct model_file *f = w->file[below(w, w->nr_files)];

		if (f->number)
			return f;
	}
	return NULL;
}

static bool is_mapped(const struct model *w, const struct model_file *f)
{
	for (u32 t = 0; t < MAX_TASKS; t++)
		for (u32 i = 0; i < WINDOW_PAGES; i++)
			if (w->task[t].page[i].file == f)
				return true;
	return false;
}

/* The place of a file that is no more, or a new one. */
static struct model_file *file_place(struct model *w)
{
	for (u32 i = 0; i < w->nr_files; i++)
		if (!w->file[i]->number && !is_mapped(w, w->file[i]))
			return w->file[i];
	/* No more shared anonymous files can be mapped than there are pages. */
	assert_true(w->nr_files < MAX_FILES);
	w->file[w->nr_files] = malloc(sizeof *w->file[0]);
	assert_non_null(w->file[w->nr_files]);
	return w->file[w->nr_files++];
}

static struct model_file *file_add(struct model *w, u32 number, u32 size)
{
	struct model_file *f = file_place(w);

	memset(f, 0, sizeof *f);
	f->number = number;
	f->anonymous = !number;
	f->size = size;
	return f;
}

/* ---- the two side by side ---- */

static u32 cpu_of(struct model *w, u32 number)
{
	struct task *t = task_find(w->m->e, number);
	u32 cpu = below(w, 2);

	if (t->cpu == CPU_NONE)
		schedule(w->m, cpu, number);
	return t->cpu;
}

static va_t va_of(const struct model *w, u32 page)
{
	return w->base + page * PAGE;
}

/* The rows of Maps are the model's runs of pages alike. */
static void compare_maps(struct model *w, const struct model_task *t)
{
	const struct maps_rows *rows = maps_of(w->m, t->number);
	u32 row = 0;

	for (u32 i = 0, end; i < WINDOW_PAGES; i = end) {
		const struct model_page *p = &t->page[i];

		for (end = i + 1; end < WINDOW_PAGES && same_vma(&t->page[end - 1], &t->page[end]);)
			end++;
		if (!p->mapped)
			continue;
		assert_vma(rows, row, va_of(w, i), va_of(w, end), p->prot);
		assert_int_equal(rows->row[row][3],
				 (p->shared ? UMAP_SHARED : UMAP_PRIVATE) |
				     (p->file && !p->file->anonymous ? 0 : UMAP_ANONYMOUS));
		if (p->file && !p->file->anonymous)
			assert_int_equal(rows->row[row][4], p->file->number);
		assert_int_equal(rows->row[row][5], p->file ? p->index * PAGE : 0);
		row++;
	}
	assert_int_equal(rows->nr, row);
}

static void some_range(struct model *w, u32 *first, u32 *nr)
{
	*nr = 1 + below(w, 8);
	*first = below(w, WINDOW_PAGES - *nr + 1);
}

static u32 some_prot(struct model *w)
{
	static const u32 prots[] = {
	    RW, RW, RW, UPROT_READ, UPROT_NONE, UPROT_READ | UPROT_EXEC, RW | UPROT_EXEC};

	return prots[below(w, sizeof prots / sizeof prots[0])];
}

/* The first page of the highest hole of the window; 0xffffffff: none is inside. */
static u32 highest_hole(const struct model_task *t, u32 nr)
{
	u32 run = 0;

	for (u32 i = WINDOW_PAGES; i-- > 0;) {
		run = t->page[i].mapped ? 0 : run + 1;
		if (run == nr)
			return i;
	}
	return 0xffffffff;
}

static void step_mmap(struct model *w, struct model_task *t)
{
	u32 first, nr, prot = some_prot(w), flags, index = 0, expected;
	struct model_file *f = below(w, 2) ? any_file(w) : NULL;
	bool fixed = below(w, 2), shared = below(w, 2), replace = below(w, 2), taken = false;

	some_range(w, &first, &nr);
	if (f)
		index = below(w, FILE_PAGES - nr + 1);
	if (!fixed) {
		first = highest_hole(t, nr);
		if (first == 0xffffffff)
			return;
	}
	for (u32 i = first; i < first + nr; i++)
		taken |= t->page[i].mapped;
	flags = (shared ? UMAP_SHARED : UMAP_PRIVATE) | (f ? 0 : UMAP_ANONYMOUS);
	if (fixed)
		flags |= replace ? UMAP_FIXED : UMAP_FIXED_NOREPLACE;
	expected = fixed && !replace && taken ? STATUS_EXISTS : STATUS_OK;
	assert_int_equal(machine_op_on(w->m, cpu_of(w, t->number), t->number, OP_MMAP,
				       fixed ? va_of(w, first) : 0, nr * PAGE, prot, flags,
				       f ? f->number : 0, index * PAGE),
			 expected);
	if (expected != STATUS_OK)
		return;
	assert_int_equal(w->m->res.values[0], va_of(w, first));
	if (!f && shared)
		f = file_add(w, 0, nr * PAGE);
	for (u32 i = 0; i < nr; i++) {
		page_forget(&t->page[first + i]);
		t->page[first + i] = (struct model_page){true, shared, prot, f, index + i, NULL};
	}
}

static void step_munmap(struct model *w, struct model_task *t)
{
	u32 first, nr;

	some_range(w, &first, &nr);
	assert_int_equal(machine_op_on(w->m, cpu_of(w, t->number), t->number, OP_MUNMAP,
				       va_of(w, first), nr * PAGE - below(w, PAGE)),
			 STATUS_OK);
	for (u32 i = first; i < first + nr; i++)
		page_forget(&t->page[i]);
}

static void step_mprotect(struct model *w, struct model_task *t)
{
	u32 first, nr, prot = some_prot(w);
	bool full = true;

	some_range(w, &first, &nr);
	for (u32 i = first; i < first + nr; i++)
		full &= t->page[i].mapped;
	assert_int_equal(machine_op_on(w->m, cpu_of(w, t->number), t->number, OP_MPROTECT,
				       va_of(w, first), nr * PAGE, prot),
			 full ? STATUS_OK : STATUS_NOT_FOUND);
	for (u32 i = first; full && i < first + nr; i++)
		t->page[i].prot = prot;
}

static void step_access(struct model *w, struct model_task *t)
{
	u32 mode = below(w, 5) == 0 ? ACCESS_EXECUTE : below(w, 2) ? ACCESS_WRITE : ACCESS_READ;
	u32 from = below(w, WINDOW_PAGES * PAGE - 3 * PAGE), length = 1 + below(w, 3 * PAGE);
	u32 privilege = below(w, 3) ? PRIVILEGE_USER : PRIVILEGE_KERNEL, done = 0;
	static u8 pattern[7];

	/* The kernel fetches nothing from user space. */
	if (mode == ACCESS_EXECUTE)
		privilege = PRIVILEGE_USER;
	for (u32 i = 0; i < sizeof pattern; i++)
		pattern[i] = (u8)random_next(&w->random);
	if (length < sizeof pattern)
		length = sizeof pattern;
	while (done < length && may(w, &t->page[(from + done) / PAGE], mode)) {
		u32 rest = PAGE - (from + done) % PAGE;

		done += rest < length - done ? rest : length - done;
	}
	w->faults += done < length;
	assert_int_equal(do_access(w->m, cpu_of(w, t->number), t->number, w->base + from, length,
				   mode, privilege, mode == ACCESS_WRITE ? pattern : NULL,
				   mode == ACCESS_WRITE ? sizeof pattern : 0),
			 done < length ? STATUS_FAULT : STATUS_OK);
	assert_int_equal(w->m->res.values[0], done);
	for (u32 i = 0; i < done; i++) {
		struct model_page *p = &t->page[(from + i) / PAGE];
		u32 within = (from + i) % PAGE;

		if (mode == ACCESS_WRITE) {
			page_for_write(p)[within] = pattern[i % sizeof pattern];
		} else {
			const u8 *bytes = page_bytes_of(p);

			assert_int_equal(w->m->res.data[i], bytes ? bytes[within] : 0);
		}
	}
}

static void step_file_write(struct model *w)
{
	struct model_file *f = any_file(w);
	u32 offset, length;
	static u8 bytes[3 * PAGE];

	if (!f)
		return;
	offset = below(w, FILE_PAGES * PAGE);
	length = below(w, 3 * PAGE);
	if (length > FILE_PAGES * PAGE - offset)
		length = FILE_PAGES * PAGE - offset;
	for (u32 i = 0; i < length; i++)
		bytes[i] = (u8)random_next(&w->random);
	assert_int_equal(file_write(w->m, f->number, offset, bytes, length), STATUS_OK);
	if (length && offset + length > f->size) {
		/* What a mapping wrote behind the end is gone. */
		memset(f->bytes + f->size, 0, sizeof f->bytes - f->size);
		f->size = offset + length;
	}
	memcpy(f->bytes + offset, bytes, length);
}

static void step_file_read(struct model *w)
{
	struct model_file *f = any_file(w);
	u32 offset, length, expected;

	if (!f)
		return;
	offset = below(w, FILE_PAGES * PAGE);
	length = below(w, 4 * PAGE);
	expected = offset < f->size ? f->size - offset : 0;
	if (expected > length)
		expected = length;
	assert_int_equal(machine_op(w->m, OP_FILE_READ, f->number, offset, length), STATUS_OK);
	assert_int_equal(w->m->res.data_len, expected);
	assert_memory_equal(w->m->data, f->bytes + offset, expected);
}

static void step_file_create(struct model *w)
{
	u32 size = below(w, FILE_PAGES * PAGE / 2), named = 0;

	for (u32 i = 0; i < w->nr_files; i++)
		named += w->file[i]->number != 0;
	if (named < MAX_NAMED)
		file_add(w, new_file(w->m, size), size);
}

static void step_file_delete(struct model *w)
{
	struct model_file *f = any_file(w);
	bool mapped = f && is_mapped(w, f);

	if (!f)
		return;
	assert_int_equal(machine_op(w->m, OP_FILE_DELETE, f->number),
			 mapped ? STATUS_BUSY : STATUS_OK);
	if (!mapped)
		f->number = 0;
}

static void step_fork(struct model *w, struct model_task *parent)
{
	for (u32 k = 0; k < MAX_TASKS; k++) {
		struct model_task *child = &w->task[k];

		if (child->number)
			continue;
		child->number = fork_task(w->m, parent->number);
		for (u32 i = 0; i < WINDOW_PAGES; i++) {
			child->page[i] = parent->page[i];
			if (!parent->page[i].own)
				continue;
			child->page[i].own = malloc(PAGE);
			memcpy(child->page[i].own, parent->page[i].own, PAGE);
		}
		compare_maps(w, child);
		return;
	}
}

static void step_exit(struct model *w, struct model_task *t)
{
	u32 others = 0;

	for (u32 k = 0; k < MAX_TASKS; k++)
		others += w->task[k].number && &w->task[k] != t;
	if (!others)
		return;
	assert_int_equal(machine_op(w->m, OP_TASK_EXIT, t->number), STATUS_OK);
	for (u32 i = 0; i < WINDOW_PAGES; i++)
		page_forget(&t->page[i]);
	t->number = 0;
}

static void step_pin(struct model *w, struct model_task *t)
{
	u32 page = below(w, WINDOW_PAGES), write = below(w, 2), expected;
	struct model_page *p = &t->page[page];

	if (w->nr_pins == 16 || below(w, 4) == 0) {
		if (!w->nr_pins)
			return;
		u32 which = below(w, w->nr_pins);

		assert_int_equal(machine_op(w->m, OP_UNPIN_USER_PAGE, w->pins[which]), STATUS_OK);
		w->pins[which] = w->pins[--w->nr_pins];
		return;
	}
	expected = p->mapped && p->prot & (write ? UPROT_WRITE : UPROT_READ) && !beyond_end(p)
		       ? STATUS_OK
		       : STATUS_FAULT;
	assert_int_equal(machine_op_on(w->m, cpu_of(w, t->number), t->number, OP_PIN_USER_PAGE,
				       va_of(w, page), write),
			 expected);
	if (expected != STATUS_OK)
		return;
	w->pins[w->nr_pins++] = (pfn_t)w->m->res.values[0];
	/* A pin that writes has its copy from then on. */
	if (write)
		page_for_write(p);
}

static void step(struct model *w)
{
	struct model_task *t = any_task(w);
	u32 what = below(w, 100);

	if (what < 18)
		step_mmap(w, t);
	else if (what < 26)
		step_munmap(w, t);
	else if (what < 36)
		step_mprotect(w, t);
	else if (what < 74)
		step_access(w, t);
	else if (what < 80)
		step_file_write(w);
	else if (what < 84)
		step_file_read(w);
	else if (what < 86)
		step_file_create(w);
	else if (what < 87)
		step_file_delete(w);
	else if (what < 90)
		step_fork(w, t);
	else if (what < 92)
		step_exit(w, t);
	else if (what < 98)
		step_pin(w, t);
	else
		machine_op_on(w->m, below(w, 2), 0, OP_SCHEDULE, 0);
	for (u32 k = 0; k < MAX_TASKS; k++)
		if (w->task[k].number)
			compare_maps(w, &w->task[k]);
}

static void against_model(const struct engine_config *config, u64 seed)
{
	struct model *w = calloc(1, sizeof *w);
	const char *text = getenv("STEPS");
	u32 steps = text ? (u32)strtoul(text, NULL, 0) : effort(STEPS);

	assert_non_null(w);
	w->random = random_seeded(seed);
	w->m = machine_new(config);
	w->base = w->m->e->st->layout.task_size - MMAP_STACK_GAP - WINDOW_PAGES * PAGE;
	w->task[0].number = new_task(w->m);
	for (u32 i = 0; i < steps; i++)
		step(w);
	assert_true(w->faults > steps / 50);
	for (u32 k = 0; k < MAX_TASKS; k++) {
		if (!w->task[k].number)
			continue;
		assert_int_equal(machine_op(w->m, OP_TASK_EXIT, w->task[k].number), STATUS_OK);
		for (u32 i = 0; i < WINDOW_PAGES; i++)
			page_forget(&w->task[k].page[i]);
	}
	while (w->nr_pins)
		assert_int_equal(machine_op(w->m, OP_UNPIN_USER_PAGE, w->pins[--w->nr_pins]),
				 STATUS_OK);
	for (u32 i = 0; i < w->nr_files; i++) {
		if (w->file[i]->number)
			assert_int_equal(machine_op(w->m, OP_FILE_DELETE, w->file[i]->number),
					 STATUS_OK);
		free(w->file[i]);
	}
	/* Nothing is left of it all. */
	assert_int_equal(w->m->e->st->files.files.nr, 0);
	assert_int_equal(w->m->e->st->files.cached_pages, 0);
	machine_free(w->m);
	free(w);
}

static void two_level(void **state)
{
	struct engine_config config = user_config(0);

	(void)state;
	against_model(&config, 20240601);
}

static void pae(void **state)
{
	struct engine_config config = user_config(CONFIG_PAE);

	(void)state;
	against_model(&config, 20240602);
}

/* User space ends below the kernel's half, and the pkmap window lies between. */
static void arm32(void **state)
{
	const struct engine_config config = {
	    .preset = PRESET_ARM32, .cpus = 2, .ram = GIB_BYTES(1), .detail = DETAIL_ALL};

	(void)state;
	against_model(&config, 20240603);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(two_level),
	    cmocka_unit_test(pae),
	    cmocka_unit_test(arm32),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
