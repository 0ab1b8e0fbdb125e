/*
 * stub_port.c - the smallest host an engine can have: RAM is an array, the direct map
 * the only mapping, and there is no libc.
 *
 * Built twice. For i386 it is linked with nothing but the engine, without libc and
 * without libgcc: what the engine has taken for granted would not link. For the build's
 * own machine it is an ordinary program. Both make a machine, let it run, and print
 * sizes, offsets and the digest: the state has the same layout and the same bytes.
 */
#include "event.h"
#include "text.h"

enum { RAM_BYTES = 48 << 20, NR_EVENTS = 256, NR_OPS = 3000 };

static u8 ram[RAM_BYTES] __attribute__((aligned(4096)));
static struct engine_event events[NR_EVENTS];
static struct engine engine;
static u8 data[ENGINE_MAX_DATA];
static u64 nr_events; /* in all */

/* ---- the host's own needs: bytes out, and an end ---- */

#ifdef __i386__
static u32 system_call(u32 number, u32 a, u32 b, u32 c)
{
	u32 result;

	__asm__ volatile("int $0x80"
			 : "=a"(result)
			 : "a"(number), "b"(a), "c"(b), "d"(c)
			 : "memory");
	return result;
}

static void host_write(const char *bytes, u32 length)
{
	system_call(4, 1, (u32)bytes, length);
}

static _Noreturn void host_exit(u32 status)
{
	for (;;)
		system_call(1, status, 0, 0);
}

void *memset(void *to, int byte, size_t n)
{
	for (size_t i = 0; i < n; i++)
		((volatile u8 *)to)[i] = (u8)byte;
	return to;
}

void *memcpy(void *to, const void *from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		((volatile u8 *)to)[i] = ((const u8 *)from)[i];
	return to;
}

void *memmove(void *to, const void *from, size_t n)
{
	if ((u8 *)to <= (const u8 *)from)
		return memcpy(to, from, n);
	while (n-- > 0)
		((volatile u8 *)to)[n] = ((const u8 *)from)[n];
	return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (((const volatile u8 *)a)[i] != ((const u8 *)b)[i])
			return ((const u8 *)a)[i] < ((const u8 *)b)[i] ? -1 : 1;
	return 0;
}
#else
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void host_write(const char *bytes, u32 length)
{
	if (write(1, bytes, length) != (ssize_t)length)
		exit(2);
}

static _Noreturn void host_exit(u32 status)
{
	exit((int)status);
}
#endif

static __attribute__((format(printf, 1, 2))) void print(const char *format, ...)
{
	char line[300];
	va_list args;

	va_start(args, format);
	u32 n = text_vformat(line, sizeof line, format, args);
	va_end(args);
	host_write(line, n);
}

/* ---- the port ---- */

static u8 *direct(struct engine *e, va_t va, u32 bytes)
{
	ENGINE_ASSERT(e, va >= e->page_offset && va - e->page_offset <= RAM_BYTES - bytes);
	return ram + (va - e->page_offset);
}

void port_clear_page(struct engine *e, u32 cpu, va_t page)
{
	port_fill_page(e, cpu, page, 0);
}

void port_fill_page(struct engine *e, u32 cpu, va_t page, u8 byte)
{
	(void)cpu;
	memset(direct(e, page, PAGE_SIZE), byte, PAGE_SIZE);
}

void port_copy_page(struct engine *e, u32 cpu, va_t to, va_t from)
{
	(void)cpu;
	memcpy(direct(e, to, PAGE_SIZE), direct(e, from, PAGE_SIZE), PAGE_SIZE);
}

void port_read(struct engine *e, u32 cpu, va_t from, void *to, u32 bytes)
{
	(void)cpu;
	memcpy(to, direct(e, from, bytes), bytes);
}

void port_write(struct engine *e, u32 cpu, va_t to, const void *from, u32 bytes)
{
	(void)cpu;
	memcpy(direct(e, to, bytes), from, bytes);
}

bool port_access(struct engine *e, u32 cpu, struct port_access *a)
{
	(void)e, (void)cpu;
	a->ret_error_code = a->user ? FAULT_USER : 0;
	a->ret_fault_va = a->va;
	return false;
}

void port_load_cr3(struct engine *e, u32 cpu, u32 paddr)
{
	(void)e, (void)cpu, (void)paddr;
}

void port_flush_page(struct engine *e, u32 cpu, va_t page)
{
	(void)e, (void)cpu, (void)page;
}

void port_flush_tlb(struct engine *e, u32 cpus, va_t va, u32 nr_pages)
{
	(void)e, (void)cpus, (void)va, (void)nr_pages;
}

void port_events(struct engine *e)
{
	nr_events += engine_nr_events(e);
	engine_forget_events(e);
}

void port_complete(struct engine *e, const struct engine_completion *c)
{
	(void)e, (void)c;
}

void port_yield(struct engine *e)
{
	(void)e;
}

void port_panic(struct engine *e, const char *file, u32 line, const char *what)
{
	print("op %llu: %s:%u: %s\n", (unsigned long long)op_number(e), file, line, what);
	host_exit(1);
}

/* ---- the run ---- */

static pfn_t next_frame(struct digest_source *source, pfn_t from)
{
	(void)source;
	return from < RAM_BYTES >> PAGE_SHIFT ? from : 0xffffffff;
}

static void copy_frame(struct digest_source *source, pfn_t pfn, u64 words[PAGE_SIZE / 8])
{
	(void)source;
	memcpy(words, ram + (pfn << PAGE_SHIFT), PAGE_SIZE);
}

#define SIZE(type)	     print("sizeof " #type " %u\n", (u32)sizeof(struct type))
#define OFFSET(type, member) print("  ." #member " %u\n", (u32)offsetof(struct type, member))

static void print_layout(void)
{
	SIZE(machine_state);
	OFFSET(machine_state, config);
	OFFSET(machine_state, layout);
	OFFSET(machine_state, op_count);
	OFFSET(machine_state, event_counts);
	OFFSET(machine_state, memblock);
	OFFSET(machine_state, frames);
	OFFSET(machine_state, slab);
	OFFSET(machine_state, map);
	OFFSET(machine_state, user);
	OFFSET(machine_state, files);
	OFFSET(machine_state, dma);
	SIZE(engine_config);
	OFFSET(engine_config, e820);
	OFFSET(engine_config, reserved);
	SIZE(layout);
	SIZE(memblock);
	SIZE(page);
	SIZE(zone);
	OFFSET(zone, free_list);
	OFFSET(zone, pcp);
	SIZE(frames_state);
	SIZE(slab_state);
	SIZE(map_state);
	OFFSET(map_state, pkmap);
	OFFSET(map_state, vmap);
	SIZE(area);
	SIZE(area_map);
	SIZE(kmap_stack);
	SIZE(task);
	OFFSET(task, parked_op);
	OFFSET(task, kmap);
	SIZE(mm);
	SIZE(cpu);
	SIZE(user_state);
	SIZE(file_state);
	SIZE(dma_state);

	SIZE(engine_event);
}

/* Ops that need no mapping but the direct map, with arguments from a small generator. */
static void run_ops(struct engine *e)
{
	static const u32 codes[] = {OP_ALLOC_PAGES, OP_ALLOC_PAGES, OP_FREE_PAGES, OP_VMALLOC,
				    OP_VFREE,	    OP_TASK_CREATE, OP_TASK_EXIT,  OP_KMAP,
				    OP_FILE_CREATE, OP_DRAIN_PCP,   OP_DMA_MAP,	   OP_DMA_UNMAP};
	struct engine_result res = {.data = data};
	u32 x = 12345, done = 0;
	u64 last_pfn = 0, last_va = 0;

	for (u32 i = 0; i < NR_OPS; i++) {
		struct engine_op op = {.owner = i % 7};

		x = x * 1664525 + 1013904223;
		op.code = codes[(x >> 16) % (sizeof codes / sizeof codes[0])];
		switch (op.code) {
		case OP_ALLOC_PAGES:
			op.args[0] = x & 1 << 24 ? GFP_KERNEL : GFP_USER | __GFP_ZERO;
			op.args[1] = x >> 28 & 3;
			break;
		case OP_FREE_PAGES: op.args[0] = last_pfn; break;
		case OP_VMALLOC: op.args[0] = 1 + (x >> 12 & 0xffff); break;
		case OP_VFREE: op.args[0] = last_va; break;
		case OP_FILE_CREATE: op.args[0] = x >> 12; break;
		case OP_DMA_MAP:
			op.args[0] = last_pfn;
			op.args[1] = 4096;
			op.args[2] = 32;
			break;
		default: op.args[0] = 1 + (x >> 20 & 63);
		}
		engine_execute(e, &op, &res);
		if (res.status == STATUS_OK && op.code == OP_ALLOC_PAGES)
			last_pfn = res.values[0];
		if (res.status == STATUS_OK && op.code == OP_VMALLOC)
			last_va = res.values[0];
		done += res.status == STATUS_OK;
	}
	print("%u of %u ops done\n", done, NR_OPS);
}

static void run(void)
{
	static const struct engine_config config = {
	    .preset = PRESET_CLASSIC, .cpus = 2, .ram = RAM_BYTES};
	struct digest_source source = {next_frame, copy_frame};
	struct engine *e = &engine;
	struct engine_error why;
	struct engine_digest d;
	const char *lie;

	e->bias = (uintptr_t)ram - 0xc0000000u;
	engine_set_events(e, events, NR_EVENTS);
	print_layout();
	if (!engine_create(e, &config, &why)) {
		print("%s\n", why.text);
		host_exit(1);
	}
	run_ops(e);
	lie = engine_check(e, &why);
	if (lie) {
		print("check: %s\n", lie);
		host_exit(1);
	}
	port_events(e);
	d = engine_digest(e, &source);
	print("%llu events, digest %016llx%016llx\n", (unsigned long long)nr_events,
	      (unsigned long long)d.hi, (unsigned long long)d.lo);
}

#ifdef __i386__
void _start(void);
void _start(void)
{
	run();
	host_exit(0);
}
#else
int main(void)
{
	run();
	return 0;
}
#endif
