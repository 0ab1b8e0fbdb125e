/*
 * cpu.c - the CPUs of the guest: told apart, started, interrupted, given the turn.
 *
 * Ops are in total order, so one CPU at a time has the turn: it alone reads the link, runs
 * the engine and writes answers. The others are halted with interrupts on. Invariants:
 *  1. Whoever has the turn runs with interrupts off but while it is halted too.
 *  2. So an interrupt meets halted CPUs only, and what it has them do needs no lock.
 *  3. The turn changes hands by a store and an interrupt, made by whoever has it.
 *
 * A CPU knows its number by its task register, which nothing but trap_init() loads.
 * Registers of the interrupt controllers: Intel's SDM volume 3, chapter 11, and the 82093AA's
 * data sheet.
 */
#include "kernel.h"

enum {
	APIC_EOI = 0x0b0 / 4,
	APIC_SPURIOUS = 0x0f0 / 4,
	APIC_COMMAND = 0x300 / 4,
	APIC_COMMAND_TARGET = 0x310 / 4,
	SPURIOUS_ENABLE = 0x100,
	COMMAND_PENDING = 0x1000,
	COMMAND_INIT = 0x4500,	  /* level asserted */
	COMMAND_STARTUP = 0x4600, /* with the page of the code to start at */
	COMMAND_FIXED = 0x4000,	  /* with a vector */
};

enum {
	IOAPIC_SELECT = 0x00 / 4,
	IOAPIC_WINDOW = 0x10 / 4,
	IOAPIC_PINS = 0x10, /* two registers for each pin */
	IOAPIC_LEVEL = 1 << 15,
	IOAPIC_EVERYBODY = 0xffu << 24,
};

/* Where boot.S maps them; microvm's second I/O APIC has the pins of its consoles. */
#define BOOT_APIC   ((volatile u32 *)HOST_LAPIC_PADDR)
#define BOOT_IOAPIC ((volatile u32 *)0xfec10000u)

enum { TRAMPOLINE = 0x8000 }; /* below 1 MiB and on a page: where a CPU can start */

_Static_assert(CPU_STACK_BYTES == 16384 && SEL_CODE == 0x08 && SEL_DATA == 0x10,
	       "as boot.S has them");
_Static_assert(NR_VECTORS == 36, "as trap.S has it");

static volatile u32 *apic = BOOT_APIC;
static u32 nr_cpus = 1;
static volatile u32 turn;    /* the number of who has it */
static volatile u32 running; /* CPUs that have come up */

static struct {
	void (*fn)(u32 a, u32 b);
	u32 a, b;
	volatile u32 owing; /* CPUs that have yet to call it */
} call;

/* For boot.S, which brings a CPU up with them. */
u8 cpu_stacks[ENGINE_MAX_CPUS][CPU_STACK_BYTES] __attribute__((aligned(16)));
u32 start_number, start_cr3, start_cr4, start_efer;
extern const u8 trampoline[], trampoline_end[];
_Noreturn void cpu_main(u32 number);

static void send(u32 cpu, u32 command)
{
	apic[APIC_COMMAND_TARGET] = cpu << 24;
	apic[APIC_COMMAND] = command;
	while (apic[APIC_COMMAND] & COMMAND_PENDING)
		__asm__ volatile("pause");
}

void cpu_halt(void)
{
	/* An interrupt cannot come between sti and hlt. */
	__asm__ volatile("sti; hlt; cli" : : : "memory");
}

void cpu_init(void)
{
	apic[APIC_SPURIOUS] = SPURIOUS_ENABLE | VECTOR_SPURIOUS;
}

void cpu_use(volatile u32 *registers)
{
	apic = registers;
}

/* Whoever waits for the device has the turn, and any CPU may: all of them are told. */
void cpu_route_interrupt(u32 pin)
{
	volatile u32 *ioapic = BOOT_IOAPIC;

	ioapic[IOAPIC_SELECT] = IOAPIC_PINS + 2 * pin + 1;
	ioapic[IOAPIC_WINDOW] = IOAPIC_EVERYBODY;
	ioapic[IOAPIC_SELECT] = IOAPIC_PINS + 2 * pin;
	ioapic[IOAPIC_WINDOW] = IOAPIC_LEVEL | VECTOR_LINK;
}

/* ---- more CPUs ---- */

/* One CPU after another, so that each finds its own number in start_number. What lies where
 * the trampoline is put belongs to the machine. */
void cpu_start_others(u32 nr, u32 page_offset)
{
	u8 *at = (u8 *)(uintptr_t)(page_offset + TRAMPOLINE), kept[64];
	u32 bytes = (u32)(trampoline_end - trampoline), high;

	if (bytes > sizeof kept)
		panic("the trampoline has grown to %u bytes", bytes);
	__builtin_memcpy(kept, at, bytes);
	__builtin_memcpy(at, trampoline, bytes);
	__asm__ volatile("movl %%cr3, %0" : "=r"(start_cr3));
	__asm__ volatile("movl %%cr4, %0" : "=r"(start_cr4));
	__asm__ volatile("rdmsr" : "=a"(start_efer), "=d"(high) : "c"(0xc0000080u));
	for (start_number = 1; start_number < nr; start_number++) {
		send(start_number, COMMAND_INIT);
		send(start_number, COMMAND_STARTUP | TRAMPOLINE >> PAGE_SHIFT);
		while (running < start_number)
			__asm__ volatile("pause");
	}
	__builtin_memcpy(at, kept, bytes);
	nr_cpus = nr;
}

static void await_turn(void)
{
	while (turn != cpu_this())
		cpu_halt();
}

void cpu_main(u32 number)
{
	trap_init(number);
	cpu_init();
	running = number;
	await_turn();
	serve();
}

void cpu_give_turn(u32 cpu)
{
	turn = cpu;
	send(cpu, COMMAND_FIXED | VECTOR_WAKE);
	await_turn();
}

u32 cpu_count(void)
{
	return nr_cpus;
}

/* ---- what one has others do ---- */

void cpu_call(u32 cpus, void (*fn)(u32 a, u32 b), u32 a, u32 b)
{
	u32 self = 1u << cpu_this(), others = cpus & ~self;

	if (cpus & self)
		fn(a, b);
	if (!others)
		return;
	call.fn = fn;
	call.a = a;
	call.b = b;
	call.owing = others;
	for (u32 cpu = 0; cpu < nr_cpus; cpu++)
		if (others >> cpu & 1)
			send(cpu, COMMAND_FIXED | VECTOR_CALL);
	while (call.owing)
		__asm__ volatile("pause");
}

/* Called by trap_handle(). */
void cpu_interrupted(u32 vector)
{
	if (vector == VECTOR_SPURIOUS)
		return;
	if (vector == VECTOR_LINK)
		link_interrupted();
	if (vector == VECTOR_CALL) {
		call.fn(call.a, call.b);
		__atomic_fetch_and(&call.owing, ~(1u << cpu_this()), __ATOMIC_SEQ_CST);
	}
	apic[APIC_EOI] = 0;
}
