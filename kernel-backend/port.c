/*
 * port.c - port.h on real CPUs: virtual addresses are used as they are.
 *
 * What the engine has a CPU do is done by that CPU: an op runs on the one that it names,
 * so accesses are made where we are, and other CPUs are asked for the rest. Accesses on
 * behalf of a user run in ring 3, through a page of the host window that ring 3 may
 * write; everything else in ring 0.
 */
#include "kernel.h"

#include "event.h"
#include "map/pgtable.h"
#include "text.h"

static struct ram_map ram;
static struct engine *machine; /* NULL: none yet */

bool port_init(struct engine *e, const struct engine_config *config, u64 ram_end,
	       struct engine_event *events, u32 max_events, struct engine_error *why)
{
	e->bias = 0;
	engine_set_events(e, events, max_events);
	e->port = NULL;
	machine = e;
	return ram_map_make(config, ram_end, &ram, why);
}

void send_frame(u16 type, u32 count, const void *body, u32 bytes)
{
	static const u8 zeros[8];
	struct wire_header h = {WIRE_MAGIC, type, 0, wire_pad(bytes), count};

	link_write(&h, sizeof h);
	link_write(body, bytes);
	link_write(zeros, wire_pad(bytes) - bytes);
}

void power_off(u32 code)
{
	/* isa-debug-exit at 0xf4: QEMU's exit code is 2 * code + 1. */
	__asm__ volatile("outl %0, $0xf4" : : "a"(code));
	for (;;)
		__asm__ volatile("cli; hlt");
}

void panic(const char *format, ...)
{
	char text[256];
	va_list args;

	va_start(args, format);
	u32 n = text_vformat(text, sizeof text, format, args);
	va_end(args);
	if (machine)
		port_send_events(machine); /* what led here */
	send_frame(WIRE_PANIC, n, text, n);
	link_flush();
	power_off(0x11);
}

void port_panic(struct engine *e, const char *file, u32 line, const char *what)
{
	(void)e;
	panic("%s:%u: %s", file, line, what);
}

void port_send_events(struct engine *e)
{
	u32 nr = engine_nr_events(e);

	if (nr)
		send_frame(WIRE_EVENTS, nr, e->events, nr * (u32)sizeof *e->events);
	engine_forget_events(e);
}

void port_events(struct engine *e)
{
	port_send_events(e);
}

void port_complete(struct engine *e, const struct engine_completion *c)
{
	(void)e;
	send_frame(WIRE_COMPLETION, 0, c, sizeof *c);
}

/* The daemon does other things all the while, and wants to know that this lives. */
void port_yield(struct engine *e)
{
	(void)e;
	send_frame(WIRE_EVENTS, 0, NULL, 0);
	link_flush();
}

/* Images for tests have to show what a missing flush does: of all CPUs, or of the others
 * than the one that asks. */
#if defined ZONED_KERNEL_NO_FLUSH
static u32 really_flushed(u32 cpus)
{
	(void)cpus;
	return 0;
}
#elif defined ZONED_KERNEL_NO_SHOOTDOWN
static u32 really_flushed(u32 cpus)
{
	return cpus & 1u << cpu_this();
}
#else
static u32 really_flushed(u32 cpus)
{
	return cpus;
}
#endif

/* Where a CPU's access reaches, which is made by the CPU itself. */
static void *pointer(u32 cpu, va_t va)
{
	if (cpu != cpu_this())
		panic("CPU %u makes an access of CPU %u", cpu_this(), cpu);
	return (void *)(uintptr_t)va;
}

void port_clear_page(struct engine *e, u32 cpu, va_t page)
{
	(void)e;
	__builtin_memset(pointer(cpu, page), 0, PAGE_SIZE);
}

void port_fill_page(struct engine *e, u32 cpu, va_t page, u8 byte)
{
	(void)e;
	__builtin_memset(pointer(cpu, page), byte, PAGE_SIZE);
}

void port_copy_page(struct engine *e, u32 cpu, va_t to, va_t from)
{
	(void)e;
	__builtin_memcpy(pointer(cpu, to), pointer(cpu, from), PAGE_SIZE);
}

void port_read(struct engine *e, u32 cpu, va_t from, void *to, u32 bytes)
{
	(void)e;
	__builtin_memcpy(to, pointer(cpu, from), bytes);
}

void port_write(struct engine *e, u32 cpu, va_t to, const void *from, u32 bytes)
{
	(void)e;
	__builtin_memcpy(pointer(cpu, to), from, bytes);
}

static u32 read_cr3(void)
{
	u32 cr3;

	__asm__ volatile("movl %%cr3, %0" : "=r"(cr3));
	return cr3;
}

static void write_cr3(u32 cr3)
{
	__asm__ volatile("movl %0, %%cr3" : : "r"(cr3) : "memory");
}

static void load_cr3(u32 paddr, u32 unused)
{
	(void)unused;
	write_cr3(paddr);
}

void port_load_cr3(struct engine *e, u32 cpu, u32 paddr)
{
	(void)e;
	cpu_call(1u << cpu, load_cr3, paddr, 0);
}

static inline void invalidate(u32 page)
{
	__asm__ volatile("invlpg (%0)" : : "r"(page) : "memory");
}

static void flush(u32 va, u32 nr_pages)
{
	if (nr_pages) {
		for (u32 i = 0; i < nr_pages; i++)
			invalidate(va + (i << PAGE_SHIFT));
		return;
	}
	/* Global entries go when CR4.PGE is cleared. */
	u32 cr4;

	__asm__ volatile("movl %%cr4, %0" : "=r"(cr4));
	__asm__ volatile("movl %0, %%cr4" : : "r"(cr4 & ~CR4_PGE) : "memory");
	write_cr3(read_cr3());
	__asm__ volatile("movl %0, %%cr4" : : "r"(cr4) : "memory");
}

void port_flush_page(struct engine *e, u32 cpu, va_t page)
{
	(void)e;
	if (really_flushed(1u << cpu))
		invalidate(page);
}

void port_flush_tlb(struct engine *e, u32 cpus, va_t va, u32 nr_pages)
{
	(void)e;
	cpus = really_flushed(cpus);
	if (cpus == 1u << cpu_this())
		flush(va, nr_pages);
	else
		cpu_call(cpus, flush, va, nr_pages);
}

/* A fetch is made as a read, since what it fetches must not run. So no-execute is looked up
 * before, in the tables that the CPU would walk: the CPU refuses such a fetch without
 * setting accessed bits, which a read would set. With NX on, it tells fetches from reads in
 * its error codes. */
static bool fetch_forbidden(struct engine *e, const struct port_access *a)
{
	struct pgtable_step step[3];
	u32 n = pgtable_walk(e, read_cr3() >> PAGE_SHIFT, a->va, step);
	bool no_execute = false;

	for (u32 i = 0; i < n; i++) {
		if (!(step[i].entry & PTE_PRESENT))
			return false;
		no_execute = no_execute || step[i].entry & PTE_NX;
	}
	return no_execute;
}

static bool is_ram(paddr_t paddr)
{
	for (u32 i = 0; i < ram.nr; i++) {
		if (paddr - ram.range[i].start < ram.range[i].size)
			return true;
	}
	return false;
}

enum reach { REACHES_RAM, REACHES_WINDOW, REACHES_NOTHING };

/* What would the access reach: the machine's RAM, the frames that are the guest's own, or a
 * device, or nothing at all? Only the first kind is ever made; the window's frames read as
 * in a simulation, where nobody lives in them. What the CPU would refuse is made too, for the
 * CPU to refuse it. */
static enum reach reach_of(struct engine *e, const struct port_access *a)
{
	struct pgtable_step step[3];
	u32 n = pgtable_walk(e, read_cr3() >> PAGE_SHIFT, a->va, step);
	u64 leaf = step[n - 1].entry;
	bool large = n < (e->st->layout.pae ? 3u : 2u);
	u32 span = !large ? PAGE_SIZE : e->st->layout.pae ? 2u << 20 : 4u << 20;
	paddr_t at;

	for (u32 i = 0; i < n; i++) {
		if (!(step[i].entry & PTE_PRESENT))
			return REACHES_RAM;
	}
	if (a->mode == ACCESS_WRITE && !(leaf & PTE_WRITE))
		return REACHES_RAM;
	at = (leaf & PTE_FRAME & ~(u64)(span - 1)) + (a->va & (span - 1));
	if (!is_ram(at))
		return REACHES_NOTHING;
	return at - HOST_WINDOW_PADDR < HOST_WINDOW_BYTES ? REACHES_WINDOW : REACHES_RAM;
}

bool port_access(struct engine *e, u32 cpu, struct port_access *a)
{
	bool write = a->mode == ACCESS_WRITE;
	bool fetch = a->mode == ACCESS_EXECUTE && e->st->layout.pae; /* without PAE it is a read */
	u8 *user_data = pointer(cpu, HOST_USER_DATA_VA);
	enum reach reach = a->user ? REACHES_RAM : reach_of(e, a);
	struct fault f;

	if (fetch && fetch_forbidden(e, a)) {
		f = (struct fault){true, FAULT_PROTECTION | (a->user ? FAULT_USER : 0), a->va};
	} else if (reach != REACHES_RAM) {
		f = (struct fault){false, 0, 0};
		if (!write)
			__builtin_memset(a->bytes, reach == REACHES_WINDOW ? 0 : 0xff, a->length);
	} else if (a->user) {
		if (write)
			__builtin_memcpy(user_data, a->bytes, a->length);
		f = write ? trap_copy_user(a->va, HOST_USER_DATA_VA, a->length)
			  : trap_copy_user(HOST_USER_DATA_VA, a->va, a->length);
		if (!write && !f.taken)
			__builtin_memcpy(a->bytes, user_data, a->length);
	} else {
		f = write ? trap_copy(pointer(cpu, a->va), a->bytes, a->length)
			  : trap_copy(a->bytes, pointer(cpu, a->va), a->length);
	}
	if (fetch && f.taken)
		f.error_code |= FAULT_FETCH;
	a->ret_error_code = f.error_code;
	a->ret_fault_va = f.va;
	return !f.taken;
}
