/*
 * test_cpus.c - the guest's CPUs are real: what one of them remembers in its TLB is gone when
 * another has changed it. Each test has one CPU use a mapping, another one change it, and
 * asks the first again.
 *
 *   test_cpus [KERNEL]
 *
 * With zoned-kernel-noshootdown.elf every test but the first has to fail.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "boot/layout.h"
#include "guest.h"

enum { CPUS = 4, FIXMAP_INDEX = 40, PKMAP_SLOTS = 1024 };

static const char *image = KERNEL_IMAGE;
static struct guest guest;
static u8 data[ENGINE_MAX_DATA];

static struct engine_result ask(struct engine_op op)
{
	struct engine_result res = {.data = data};

	if (!guest_execute(&guest, &op, &res))
		fail_msg("op %u on CPU %u: %s", op.code, op.cpu, guest.error);
	return res;
}

static u64 ok(struct engine_op op)
{
	struct engine_result res = ask(op);

	if (res.status != STATUS_OK)
		fail_msg("op %u on CPU %u: status %u", op.code, op.cpu, res.status);
	return res.values[0];
}

static struct engine_op access(u32 cpu, u32 task, u64 va, u32 mode, u64 bytes, const void *from)
{
	return (struct engine_op){
	    .code = OP_ACCESS,
	    .cpu = cpu,
	    .task = task,
	    .args = {va, from ? 0 : bytes, mode, task ? PRIVILEGE_USER : PRIVILEGE_KERNEL},
	    .data = from,
	    .data_len = from ? (u32)bytes : 0};
}

static void put(u32 cpu, u32 task, u64 va, const char text[8])
{
	ok(access(cpu, task, va, ACCESS_WRITE, 8, text));
}

static void expect(u32 cpu, u32 task, u64 va, const char text[8])
{
	ok(access(cpu, task, va, ACCESS_READ, 8, NULL));
	if (memcmp(data, text, 8) != 0)
		fail_msg("CPU %u reads %.8s at %llx, not %.8s", cpu, (char *)data,
			 (unsigned long long)va, text);
}

static u64 highmem(u32 order)
{
	return ok((struct engine_op){.code = OP_ALLOC_PAGES, .args = {GFP_HIGHUSER, order}});
}

static int start(void **state)
{
	struct engine_config config = {
	    .preset = PRESET_CLASSIC, .ram = 1024ull << 20, .cpus = CPUS};

	(void)state;
	if (!guest_start(&guest, image, &config, config.ram))
		fail_msg("guest: %s", guest.error);
	return 0;
}

static int stop(void **state)
{
	struct engine_error why = {""};

	(void)state;
	assert_null(guest_check(&guest, &why));
	return guest_stop(&guest) != 2 * 0x10 + 1;
}

/* The slots of kmap_atomic are the CPU's own, and so are its page tables. */
static void each_has_its_own(void **state)
{
	u64 va[CPUS], pfn = highmem(0);

	(void)state;
	for (u32 cpu = 0; cpu < CPUS; cpu++)
		va[cpu] = ok((struct engine_op){.code = OP_KMAP_ATOMIC, .cpu = cpu, .args = {pfn}});
	for (u32 cpu = 0; cpu < CPUS; cpu++) {
		char text[9];

		snprintf(text, sizeof text, "by CPU %u", cpu);
		put(cpu, 0, va[cpu], text);
		for (u32 other = 0; other < CPUS; other++)
			expect(other, 0, va[other], text);
		assert_int_equal(va[cpu], va[0] - cpu * 16 * PAGE_SIZE);
	}
	assert_int_equal(
	    ask((struct engine_op){.code = OP_KUNMAP_ATOMIC, .cpu = 1, .args = {va[2]}}).status,
	    STATUS_NOT_OWNER);
	for (u32 cpu = 0; cpu < CPUS; cpu++)
		ok((struct engine_op){.code = OP_KUNMAP_ATOMIC, .cpu = cpu, .args = {va[cpu]}});
	/* One task on each, in the same place of four address spaces. */
	for (u32 cpu = 0; cpu < CPUS; cpu++) {
		u32 task = (u32)ok((struct engine_op){.code = OP_TASK_CREATE});
		char text[9];

		snprintf(text, sizeof text, "task  %u.", task);
		ok((struct engine_op){.code = OP_SCHEDULE, .cpu = cpu, .args = {task}});
		va[cpu] = ok(
		    (struct engine_op){.code = OP_MMAP,
				       .cpu = cpu,
				       .task = task,
				       .args = {0, PAGE_SIZE, UPROT_READ | UPROT_WRITE, 0, 0, 0}});
		put(cpu, task, va[cpu], text);
		assert_int_equal(va[cpu], va[0]);
	}
	for (u32 task = 1; task <= CPUS; task++) {
		char text[9];

		snprintf(text, sizeof text, "task  %u.", task);
		expect(task - 1, task, va[0], text);
	}
}

static void fixmap(void **state)
{
	const struct engine_op clear = {.code = OP_CLEAR_FIXMAP, .args = {FIXMAP_INDEX}};
	u64 frames = highmem(1), va;
	struct engine_op set = {
	    .code = OP_SET_FIXMAP,
	    .cpu = 2,
	    .args = {FIXMAP_INDEX, frames << PAGE_SHIFT, UPROT_READ | UPROT_WRITE}};

	(void)state;
	va = ok(set);
	put(0, 0, va, "the 1st.");
	for (u32 cpu = 0; cpu < CPUS; cpu++)
		expect(cpu, 0, va, "the 1st.");
	ok(clear);
	for (u32 cpu = 0; cpu < CPUS; cpu++)
		assert_int_equal(ask(access(cpu, 0, va, ACCESS_READ, 8, NULL)).status,
				 STATUS_FAULT);
	set.args[1] += PAGE_SIZE;
	ok(set);
	put(3, 0, va, "the 2nd.");
	for (u32 cpu = 0; cpu < CPUS; cpu++)
		expect(cpu, 0, va, "the 2nd.");
}

/* A window that wraps hands out addresses again, after one flush of every CPU. */
static void pkmap(void **state)
{
	u64 first = highmem(0), many = highmem(10), va;

	(void)state;
	va = ok((struct engine_op){.code = OP_KMAP, .args = {first}});
	put(0, 0, va, "the 1st.");
	for (u32 cpu = 0; cpu < CPUS; cpu++)
		expect(cpu, 0, va, "the 1st.");
	ok((struct engine_op){.code = OP_KUNMAP, .args = {first}});
	for (u32 i = 0; i < PKMAP_SLOTS; i++) {
		u64 at = ok((struct engine_op){.code = OP_KMAP, .args = {many + i}});

		if (at != va) {
			ok((struct engine_op){.code = OP_KUNMAP, .args = {many + i}});
			continue;
		}
		put(0, 0, va, "the 2nd.");
		for (u32 cpu = 0; cpu < CPUS; cpu++)
			expect(cpu, 0, va, "the 2nd.");
		return;
	}
	fail_msg("the window did not wrap");
}

static void vmalloc(void **state)
{
	const struct engine_op make = {.code = OP_VMALLOC, .args = {PAGE_SIZE}};
	u64 va = ok(make);

	(void)state;
	put(0, 0, va, "the 1st.");
	for (u32 cpu = 0; cpu < CPUS; cpu++)
		expect(cpu, 0, va, "the 1st.");
	ok((struct engine_op){.code = OP_VFREE, .cpu = 1, .args = {va}});
	ok((struct engine_op){.code = OP_PURGE_VMAP, .cpu = 1});
	/* Another frame, at the address that is free again. */
	highmem(0);
	assert_int_equal(ok(make), va);
	put(1, 0, va, "the 2nd.");
	for (u32 cpu = 0; cpu < CPUS; cpu++)
		expect(cpu, 0, va, "the 2nd.");
}

/* A fork takes write permission from a task that is current on another CPU. */
static void fork_elsewhere(void **state)
{
	u32 parent = (u32)ok((struct engine_op){.code = OP_TASK_CREATE}), child;
	u64 va;

	(void)state;
	ok((struct engine_op){.code = OP_SCHEDULE, .cpu = 1, .args = {parent}});
	va = ok((struct engine_op){.code = OP_MMAP,
				   .cpu = 1,
				   .task = parent,
				   .args = {0, PAGE_SIZE, UPROT_READ | UPROT_WRITE, 0, 0, 0}});
	put(1, parent, va, "of both.");
	child = (u32)ok((struct engine_op){.code = OP_TASK_FORK, .cpu = 2, .args = {parent}});
	put(1, parent, va, "of one. ");
	ok((struct engine_op){.code = OP_SCHEDULE, .cpu = 3, .args = {child}});
	expect(3, child, va, "of both.");
	expect(1, parent, va, "of one. ");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(each_has_its_own, start, stop),
	    cmocka_unit_test_setup_teardown(fixmap, start, stop),
	    cmocka_unit_test_setup_teardown(pkmap, start, stop),
	    cmocka_unit_test_setup_teardown(vmalloc, start, stop),
	    cmocka_unit_test_setup_teardown(fork_elsewhere, start, stop),
	};

	if (argc > 1)
		image = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
