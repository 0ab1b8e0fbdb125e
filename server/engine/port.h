/*
 * port.h - what the engine needs from its host, and all that it needs.
 *
 * Two implementations, chosen at link time: server/sim (software MMU in the
 * daemon) and kernel-backend (the CPU). A third, in tests/engine, is a stub that
 * only links. The engine reaches lowmem by at(); everything else goes through a
 * virtual address and the page tables, as in a kernel.
 */
#ifndef ENGINE_PORT_H
#define ENGINE_PORT_H

#include "engine.h"

/* Kernel access through a mapping that the engine has just made or checked. It
 * may not fault; that it does is a broken invariant. `cpu` is whose TLB serves. */
void port_clear_page(struct engine *e, u32 cpu, va_t page);
void port_fill_page(struct engine *e, u32 cpu, va_t page, u8 byte);
void port_copy_page(struct engine *e, u32 cpu, va_t to, va_t from);
void port_read(struct engine *e, u32 cpu, va_t from, void *to, u32 bytes);
void port_write(struct engine *e, u32 cpu, va_t to, const void *from, u32 bytes);

/* One access within one page, as the CPU would make it now. Returns true when it
 * went through; else error code and address are those the CPU reports, and no
 * byte was moved. A read or fetch fills `bytes`, a write takes them. */
struct port_access {
	va_t va;
	u32 length; /* va and length stay within a page */
	u32 mode;   /* ACCESS_* */
	bool user;
	u8 *bytes;
	u32 ret_error_code;
	va_t ret_fault_va;
};
bool port_access(struct engine *e, u32 cpu, struct port_access *a);

/* Physical memory that is not RAM reads as ones and swallows writes; the port
 * knows RAM by the configuration. */

/* Page-table base of a CPU, as a physical address below 4 GiB. Flushes that
 * CPU's TLB but for global entries. */
void port_load_cr3(struct engine *e, u32 cpu, u32 paddr);

/* Flushes the entry of one page on the CPU that executes, which is this one. */
void port_flush_page(struct engine *e, u32 cpu, va_t page);

/* Flushes entries of [va, va + nr_pages) on each CPU of the mask; nr_pages 0:
 * everything, global entries included. Returns when all have done so. */
void port_flush_tlb(struct engine *e, u32 cpus, va_t va, u32 nr_pages);

/* The event buffer is full: take what is in it; engine_forget_events(). Cold: once
 * in thousands of events, so who emits one keeps nothing ready for the call. */
void port_events(struct engine *e) __attribute__((cold));

/* A parked op ended. */
void port_complete(struct engine *e, const struct engine_completion *c);

/* Called by long ops every ENGINE_YIELD_FRAMES frames. The host may do other
 * things meanwhile, but nothing with this machine. */
void port_yield(struct engine *e);

/* A broken invariant. Never returns: the machine is lost. */
_Noreturn void port_panic(struct engine *e, const char *file, u32 line, const char *what)
    __attribute__((cold));

#endif
