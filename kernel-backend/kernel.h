/*
 * kernel.h - the guest's few parts and what they offer each other.
 */
#ifndef KERNEL_BACKEND_KERNEL_H
#define KERNEL_BACKEND_KERNEL_H

#include "engine.h"
#include "protocol.h"
#include "state.h"

#define CR4_PSE 0x010u
#define CR4_PAE 0x020u
#define CR4_PGE 0x080u

/* An address in the image or on its stacks, as devices see it. */
static inline u32 host_paddr(const volatile void *p)
{
	return (u32)(uintptr_t)p - HOST_WINDOW_VA + HOST_WINDOW_PADDR;
}

/* boot.S */
void paging_switch(u32 cr3, u32 cr4);
extern u32 boot_pd[1024];

/* cpu.c. One CPU has the turn and runs what is here; the others are halted. */
enum {
	CPU_STACK_BYTES = 16384,
	SEL_CODE = 0x08, /* selectors of the descriptor table in trap.c */
	SEL_DATA = 0x10,
	SEL_TSS = 0x28, /* CPU 0's; 8 more for each */
	/* Vectors of interrupts, after the 32 that are the CPU's own. */
	VECTOR_LINK = 32,
	VECTOR_CALL,
	VECTOR_WAKE,
	VECTOR_SPURIOUS,
	NR_VECTORS,
};
static inline u32 cpu_this(void)
{
	u32 selector;

	__asm__("str %0" : "=r"(selector));
	return (selector - SEL_TSS) / 8;
}
u32 cpu_count(void);
void cpu_init(void);		       /* this one can be interrupted, while it is halted */
void cpu_use(volatile u32 *registers); /* the local APIC through another mapping */
void cpu_route_interrupt(u32 pin);     /* of the console, as VECTOR_LINK */
/* CPUs 1 to nr - 1, with this one's tables; the first MiB is mapped at page_offset. */
void cpu_start_others(u32 nr, u32 page_offset);
void cpu_halt(void);	     /* until an interrupt has been handled */
void cpu_give_turn(u32 cpu); /* comes back with the turn */
/* Each CPU of the mask calls fn; comes back when all have. */
void cpu_call(u32 cpus, void (*fn)(u32 a, u32 b), u32 a, u32 b);
void cpu_interrupted(u32 vector);

/* main.c: ops, for as long as this CPU has the turn and whenever it comes back. */
_Noreturn void serve(void);

/* paging.c: tables to stand on before the engine has made its own. */
void paging_direct_map(const struct engine_config *config, u64 lowmem_bytes);

/* trap.c and trap.S */
void trap_init(u32 cpu); /* once on each */
struct fault {
	bool taken;
	u32 error_code;
	u32 va;
};
/* Copies in ring 0; stops at a page fault and says which. */
struct fault trap_copy(void *to, const void *from, u32 bytes);
/* Copies in ring 3, between user memory and HOST_USER_DATA_VA. */
struct fault trap_copy_user(u32 to, u32 from, u32 bytes);

/* link.c: the virtio port as a byte stream. What is done for each record is done in line:
 * an emulated CPU looks up where each call and each return goes. */
void link_init(void);
void link_use(volatile u32 *registers); /* the same device through another mapping */
void link_flush(void);
struct link_input {
	const u8 *at;
	u32 left; /* in the buffer received first */
};
struct link_output {
	u8 *at;
	u32 left; /* in the buffer being filled */
};
extern struct link_input link_input;
extern struct link_output link_output;
/* Reading waits for what has not come, after sending what has been written. Or it is done
 * in place, of what is there. */
void link_read(void *to, u32 bytes);
static inline void link_skip(u32 bytes)
{
	link_input.at += bytes;
	link_input.left -= bytes;
}
void link_write(const void *from, u32 bytes);
/* Room for so many bytes, a page at most; what of it is filled is to be added. */
static inline void *link_room(u32 bytes)
{
	if (link_output.left < bytes)
		link_flush();
	return link_output.at;
}
static inline void link_add(u32 bytes)
{
	link_output.at += bytes;
	link_output.left -= bytes;
}
void link_interrupted(void);

/* port.c */
/* False: the configuration's RAM contradicts itself. */
bool port_init(struct engine *e, const struct engine_config *config, u64 ram_end,
	       struct engine_event *events, u32 max_events, struct engine_error *why);
void port_send_events(struct engine *e);
void send_frame(u16 type, u32 count, const void *body, u32 bytes);
_Noreturn void panic(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void power_off(u32 code);

/* fault.c, in images for tests: an op that names a fault has it happen. */
#ifdef ZONED_KERNEL_FAULTS
void fault_inject(struct engine *e, const struct engine_op *op);
#else
static inline void fault_inject(struct engine *e, const struct engine_op *op)
{
	(void)e, (void)op;
}
#endif

#endif
