/*
 * map_ops.h - what the tests of kernel mappings share: two machines, and ops that
 * fail the test with the line they stand on.
 */
#ifndef TESTS_ENGINE_MAP_OPS_H
#define TESTS_ENGINE_MAP_OPS_H

#include "fixture.h"
#include "frames/page_alloc.h"
#include "map/pgtable.h"

#define HIGH GFP_HIGHUSER

static const struct engine_config two_level_2g = {
    .preset = PRESET_LINUX_6_1, .ram = GIB_BYTES(2), .cpus = 2};
static const struct engine_config pae_2g = {
    .preset = PRESET_LINUX_6_1, .flags = CONFIG_PAE, .ram = GIB_BYTES(2), .cpus = 4};

static inline void expect(struct machine *m, u32 got, u32 want, const char *what, int line)
{
	if (got != want)
		fail_msg("line %d: op %llu: %s is 0x%x, not 0x%x", line,
			 (unsigned long long)m->res.op, what, got, want);
}
#define is_status(m, call, want) expect(m, call, want, #call, __LINE__)
#define is_value(m, i, want)	 expect(m, (u32)(m)->res.values[i], want, "value", __LINE__)

static inline pfn_t alloc(struct machine *m, u32 gfp)
{
	is_status(m, machine_op(m, OP_ALLOC_PAGES, gfp, 0), STATUS_OK);
	return (pfn_t)m->res.values[0];
}

static inline u32 new_task(struct machine *m, u32 cpu)
{
	is_status(m, machine_op(m, OP_TASK_CREATE), STATUS_OK);
	u32 task = (u32)m->res.values[0];

	is_status(m, machine_op_on(m, cpu, 0, OP_SCHEDULE, task), STATUS_OK);
	return task;
}

static inline u32 write_word(struct machine *m, va_t va, u32 word)
{
	struct engine_op op = {.code = OP_ACCESS,
			       .args = {va, 4, ACCESS_WRITE, PRIVILEGE_KERNEL},
			       .data = (const u8 *)&word,
			       .data_len = 4};

	return machine_run(m, &op);
}

static inline u32 read_word(struct machine *m, va_t va)
{
	u32 word;

	is_status(m, machine_op(m, OP_ACCESS, va, 4, ACCESS_READ, PRIVILEGE_KERNEL), STATUS_OK);
	memcpy(&word, m->data, sizeof word);
	return word;
}

#endif
