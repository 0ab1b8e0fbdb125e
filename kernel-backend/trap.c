/*
 * trap.c - descriptor tables, and what a trap means here.
 *
 * The guest runs with interrupts off but while it is halted, so a trap is always the
 * consequence of what it was just doing. Page faults are expected in two places only: in
 * copy_recoverable() (ring 0) and in ring 3. Any other trap is a bug and ends the
 * guest with its registers in the message.
 */
#include "kernel.h"

struct trap_frame {
	u32 edi, esi, ebp, esp_here, ebx, edx, ecx, eax; /* pushal */
	u32 vector, error_code;
	u32 eip, cs, eflags; /* the CPU's */
};
_Static_assert(sizeof(struct trap_frame) == 52, "as trap.S pushes it");

u32 copy_recoverable(void *to, const void *from, u32 bytes);
void user_enter(u32 to, u32 from, u32 bytes);
_Noreturn void user_leave(void);
void trap_handle(struct trap_frame *f);
extern u64 gdt[];
extern u8 copy_recover[], trap_vectors[], trap_user_done[];
extern u32 copy_in_progress;

/* Null, ring 0 code and data, ring 3 code and data (flat), task state of each CPU. */
u64 gdt[5 + ENGINE_MAX_CPUS] = {
    0, 0x00cf9a000000ffff, 0x00cf92000000ffff, 0x00cffa000000ffff, 0x00cff2000000ffff,
};

static struct {
	u32 link, esp0, ss0, rest[23];
} tss[ENGINE_MAX_CPUS];
_Static_assert(sizeof tss[0] == 104, "a 32-bit task state segment");

static u64 idt[256];
/* From ring 3, whence come page faults and int $0x80. */
static u8 trap_stacks[ENGINE_MAX_CPUS][4096] __attribute__((aligned(16)));

static struct fault last_fault;

static void set_gate(u32 vector, const void *entry, u32 dpl)
{
	u32 at = (u32)(uintptr_t)entry;

	/* A 32-bit interrupt gate: present, at this privilege level. */
	idt[vector] = (u64)(at & 0xffff0000u) << 32 | (u64)(0x8e00u | dpl << 13) << 32 |
		      SEL_CODE << 16 | (at & 0xffff);
}

void trap_init(u32 cpu)
{
	struct __attribute__((packed)) {
		u16 limit;
		u32 base;
	} gdtr = {sizeof gdt - 1, (u32)(uintptr_t)gdt},
	  idtr = {sizeof idt - 1, (u32)(uintptr_t)idt};
	u32 base = (u32)(uintptr_t)&tss[cpu];

	tss[cpu].esp0 = (u32)(uintptr_t)trap_stacks[cpu] + sizeof trap_stacks[cpu];
	tss[cpu].ss0 = SEL_DATA;
	gdt[SEL_TSS / 8 + cpu] = (u64)(base >> 24) << 56 | 0x0000890000000000 |
				 (u64)(base & 0xffffff) << 16 | (sizeof tss[cpu] - 1);
	for (u32 v = 0; v < NR_VECTORS; v++)
		set_gate(v, trap_vectors + 16 * v, 0);
	set_gate(0x80, trap_user_done, 3);
	__asm__ volatile("lgdt %0\n\t"
			 "ljmp $0x08, $1f\n"
			 "1:\tmovl $0x10, %%eax\n\t"
			 "movl %%eax, %%ds\n\t"
			 "movl %%eax, %%es\n\t"
			 "movl %%eax, %%fs\n\t"
			 "movl %%eax, %%gs\n\t"
			 "movl %%eax, %%ss\n\t"
			 "lidt %1\n\t"
			 "ltr %w2"
			 :
			 : "m"(gdtr), "m"(idtr), "r"(SEL_TSS + 8 * cpu)
			 : "eax", "memory");
}

static u32 read_cr2(void)
{
	u32 va;

	__asm__ volatile("movl %%cr2, %0" : "=r"(va));
	return va;
}

/* Called by trap.S. */
void trap_handle(struct trap_frame *f)
{
	bool from_user = (f->cs & 3) == 3;

	if (f->vector == 0x80)
		user_leave();
	if (f->vector == 14 && (from_user || copy_in_progress)) {
		last_fault = (struct fault){true, f->error_code, read_cr2()};
		if (from_user)
			user_leave();
		f->eip = (u32)(uintptr_t)copy_recover;
		return;
	}
	if (f->vector >= VECTOR_LINK && f->vector < NR_VECTORS) {
		cpu_interrupted(f->vector);
		return;
	}
	panic("trap %u, error code %x, at %x:%x, cr2 %x", f->vector, f->error_code, f->cs, f->eip,
	      read_cr2());
}

struct fault trap_copy(void *to, const void *from, u32 bytes)
{
	last_fault.taken = false;
	copy_recoverable(to, from, bytes);
	return last_fault;
}

struct fault trap_copy_user(u32 to, u32 from, u32 bytes)
{
	last_fault.taken = false;
	user_enter(to, from, bytes);
	return last_fault;
}
