// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * main.c - the module's parameters, its output, and which experiment it is.
 */
#include "recorder.h"

#include <linux/cpumask.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/sched.h>
#include <linux/vmalloc.h>

static char *exp = "const";
module_param(exp, charp, 0);
MODULE_PARM_DESC(exp, "const, seq, exhaust, kmap or state");
static uint seed = 1;
module_param(seed, uint, 0);
static uint nops = 2000;
module_param(nops, uint, 0);
static uint omask = 0x1f0;
module_param(omask, uint, 0);
MODULE_PARM_DESC(omask, "bit n: order n is asked for");
static char *gset = "all";
module_param(gset, charp, 0);
MODULE_PARM_DESC(gset, "all, norm, mix, high, dma or kswapd");
static uint dumpevery = 250;
module_param(dumpevery, uint, 0);
static uint bufmb = 12;
module_param(bufmb, uint, 0);

enum { LONGEST = 512 };

static char *buffer;
static size_t used, room;

void out(const char *format, ...)
{
	va_list args;

	if (used + LONGEST > room)
		return;
	va_start(args, format);
	used += vscnprintf(buffer + used, room - used, format, args);
	va_end(args);
}

/* kallsyms_lookup_name() is not exported; a probe's address is where it is. */
void *kernel_function(const char *name)
{
	static unsigned long (*lookup)(const char *name);
	struct kprobe probe = {.symbol_name = "kallsyms_lookup_name"};

	if (!lookup && !register_kprobe(&probe)) {
		lookup = (void *)probe.addr;
		unregister_kprobe(&probe);
	}
	return lookup ? (void *)lookup(name) : NULL;
}

static u32 random_state;

void random_seed(u32 seed_)
{
	random_state = seed_ * 2654435761u + 12345;
}

u32 random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 17;
	random_state ^= random_state << 5;
	return random_state;
}

static ssize_t record_read(struct file *file, char __user *to, size_t length, loff_t *at)
{
	return simple_read_from_buffer(to, length, at, buffer, used);
}

static const struct proc_ops record_ops = {.proc_read = record_read};

static int __init recorder_init(void)
{
	room = (size_t)bufmb << 20;
	buffer = __vmalloc(room, GFP_KERNEL | __GFP_HIGHMEM);
	if (!buffer)
		return -ENOMEM;
	/* Everything happens on CPU 0, but for operations that name another. */
	set_cpus_allowed_ptr(current, cpumask_of(0));
	if (!strcmp(exp, "const"))
		record_constants();
	else if (!strcmp(exp, "seq"))
		record_sequence(seed, nops, omask, gset, dumpevery);
	else if (!strcmp(exp, "exhaust"))
		record_exhaustion();
	else if (!strcmp(exp, "kmap"))
		record_mappings();
	else if (!strcmp(exp, "state"))
		record_state();
	if (used + 2 * LONGEST > room)
		pr_err("recorder: OUTPUT TRUNCATED, give it more with bufmb=\n");
	proc_create("zoned_record", 0444, NULL, &record_ops);
	return 0;
}

static void __exit recorder_exit(void)
{
	remove_proc_entry("zoned_record", NULL);
	vfree(buffer);
}

module_init(recorder_init);
module_exit(recorder_exit);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("Records what the page allocator and the kernel's mappings do");
