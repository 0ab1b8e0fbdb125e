/*
 * user_helpers.h - what tests of user memory say often, on top of fixture.h.
 */
#ifndef TESTS_ENGINE_USER_HELPERS_H
#define TESTS_ENGINE_USER_HELPERS_H

#include "fixture.h"
#include "frames/page_alloc.h"
#include "map/pgtable.h"
#include "user/vma.h"

#define RW (UPROT_READ | UPROT_WRITE)

/* A machine with HIGHMEM, DMA and NORMAL, on two CPUs. Small, so that the audit is
 * quick: a large vmalloc reserve leaves some 240 MiB of lowmem. */
static inline struct engine_config user_config(u32 flags)
{
	return (struct engine_config){
	    .preset = PRESET_LINUX_6_1,
	    .flags = flags,
	    .cpus = 2,
	    .vmalloc_bytes = 0x2f000000,
	    .ram = MIB_BYTES(320),
	    .detail = DETAIL_ALL,
	};
}

static inline struct machine *user_machine(u32 flags)
{
	struct engine_config config = user_config(flags);

	return machine_new(&config);
}

/* A new task, current on CPU 0. */
static inline u32 new_task(struct machine *m)
{
	u32 task;

	assert_int_equal(machine_op(m, OP_TASK_CREATE, 0), STATUS_OK);
	task = (u32)m->res.values[0];
	assert_int_equal(machine_op(m, OP_SCHEDULE, task), STATUS_OK);
	return task;
}

static inline u32 fork_task(struct machine *m, u32 parent)
{
	assert_int_equal(machine_op(m, OP_TASK_FORK, parent), STATUS_OK);
	return (u32)m->res.values[0];
}

static inline void schedule(struct machine *m, u32 cpu, u32 task)
{
	assert_int_equal(machine_op_on(m, cpu, 0, OP_SCHEDULE, task), STATUS_OK);
}

/* Maps, and returns where. */
static inline va_t map(struct machine *m, u32 task, va_t addr, u32 length, u32 prot, u32 flags,
		       u32 file, u32 offset)
{
	u32 status = machine_op_on(m, 0, task, OP_MMAP, addr, length, prot, flags, file, offset);

	assert_int_equal(status, STATUS_OK);
	return (va_t)m->res.values[0];
}

static inline va_t map_anonymous(struct machine *m, u32 task, u32 pages)
{
	return map(m, task, 0, pages * PAGE_SIZE, RW, 0, 0, 0);
}

static inline u32 do_access(struct machine *m, u32 cpu, u32 task, va_t va, u32 length, u32 mode,
			    u32 privilege, const void *data, u32 data_len)
{
	return machine_run(m, &(struct engine_op){.code = OP_ACCESS,
						  .cpu = cpu,
						  .task = task,
						  .args = {va, length, mode, privilege},
						  .data = data,
						  .data_len = data_len});
}

static inline u32 user_write(struct machine *m, u32 task, va_t va, const char *text)
{
	return do_access(m, 0, task, va, 0, ACCESS_WRITE, PRIVILEGE_USER, text, (u32)strlen(text));
}

static inline u32 user_read(struct machine *m, u32 task, va_t va, u32 length)
{
	return do_access(m, 0, task, va, length, ACCESS_READ, PRIVILEGE_USER, NULL, 0);
}

/* Reads as the user and compares. */
static inline void assert_user_sees(struct machine *m, u32 task, va_t va, const char *text)
{
	u32 length = (u32)strlen(text);

	assert_int_equal(user_read(m, task, va, length), STATUS_OK);
	assert_int_equal(m->res.data_len, length);
	assert_memory_equal(m->res.data, text, length);
}

static inline u32 file_write(struct machine *m, u32 file, u32 offset, const void *data, u32 length)
{
	return machine_run(m, &(struct engine_op){.code = OP_FILE_WRITE,
						  .args = {file, offset},
						  .data = data,
						  .data_len = length});
}

static inline u32 new_file(struct machine *m, u32 size)
{
	assert_int_equal(machine_op(m, OP_FILE_CREATE, size), STATUS_OK);
	return (u32)m->res.values[0];
}

/* The entry of a task's page, and its frame. */
static inline u64 entry_of(struct machine *m, u32 task, va_t va)
{
	return pgtable_get(m->e, task_mm(m->e, task_find(m->e, task))->pgd, va);
}

static inline pfn_t frame_of(struct machine *m, u32 task, va_t va)
{
	return pte_pfn(entry_of(m, task, va));
}

/* The resolution of the last page fault among the events. */
static inline u32 last_fault(struct machine *m)
{
	for (u32 i = m->nr_events; i > 0; i--)
		if (m->events[i - 1].kind == EVENT_PAGE_FAULT)
			return m->events[i - 1].w[2];
	return FAULT_NONE;
}

/* Pages that are free anywhere. */
static inline u32 free_pages(struct machine *m)
{
	u32 pages = 0;

	for (u32 zone = 0; zone < NR_ZONES; zone++)
		pages += zone_free_pages(m->e, zone) + zone_pcp_pages(m->e, zone);
	return pages;
}

/* Rows of Maps. */
struct maps_rows {
	struct inspect_sink sink;
	u32 nr;
	u64 row[256][ROW_MAPS_VMAS_N];
	char text[32768];
	u32 length;
};

static inline void maps_row(struct inspect_sink *sink, u32 type, const u64 *values, u32 nr)
{
	struct maps_rows *rows = (struct maps_rows *)sink;

	assert_int_equal(type, ROW_MAPS_VMAS);
	assert_true(rows->nr < 256);
	memcpy(rows->row[rows->nr++], values, nr * sizeof *values);
}

static inline void maps_text(struct inspect_sink *sink, const char *bytes, u32 length)
{
	struct maps_rows *rows = (struct maps_rows *)sink;

	assert_true(rows->length + length < sizeof rows->text);
	memcpy(rows->text + rows->length, bytes, length);
	rows->length += length;
}

/* Static, for its size: good until the next call. */
static inline struct maps_rows *maps_of(struct machine *m, u32 task)
{
	static struct maps_rows rows;
	u64 args[OP_ARGS] = {task};

	memset(&rows, 0, sizeof rows);
	rows.sink = (struct inspect_sink){maps_text, maps_row, true, true};
	assert_int_equal(sim_inspect(m->sim, INSPECT_MAPS, args, &rows.sink), STATUS_OK);
	return &rows;
}

static inline void assert_vma(const struct maps_rows *rows, u32 i, va_t start, va_t end, u32 prot)
{
	assert_true(i < rows->nr);
	assert_int_equal(rows->row[i][0], start);
	assert_int_equal(rows->row[i][1], end);
	assert_int_equal(rows->row[i][2], prot);
}

#endif
