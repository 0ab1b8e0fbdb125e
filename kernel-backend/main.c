/*
 * main.c - the guest's life: say hello, make or take up a machine, execute ops
 * until the link ends.
 *
 * Nothing here decides anything about memory: that is server/engine, the same
 * source as in the simulation. Frames from 16 MiB up are the guest's own (the host
 * window), in both worlds.
 */
#include "kernel.h"

#include "event.h"
#include "text.h"

enum { MAX_EVENTS = 2048 };

static struct engine engine;
static struct engine_event events[MAX_EVENTS];
static u8 op_data[ENGINE_MAX_DATA], result_data[ENGINE_MAX_DATA];
static struct engine_config config;

void kernel_main(u32 start_info);

static void say_hello(void)
{
	struct wire_hello hello = {WIRE_VERSION,
				   sizeof(struct engine_config),
				   sizeof(struct wire_op),
				   sizeof(struct wire_result),
				   sizeof(struct engine_event),
				   sizeof(struct machine_state)};

	send_frame(WIRE_HELLO, 0, &hello, sizeof hello);
}

static _Noreturn void refuse_frame(const struct wire_header *h)
{
	panic("garbage on the link: %x where a frame should begin", h->magic);
}

static u32 page_offset(void)
{
	return config.page_offset ? config.page_offset : 0xc0000000u;
}

/* RAM of a new machine is all zeros; what QEMU left below 640 KiB (start info, memory
 * map, command line) has been read or is not wanted. */
static void forget_firmware(void)
{
	__builtin_memset((void *)(uintptr_t)page_offset(), 0, 0x9fc00);
}

/* A machine that is in RAM already goes on with the tables that its CPUs had; one that
 * has not booted has none. */
static bool take_up(struct engine_error *why)
{
	if (!engine_attach(&engine, &config))
		return refuse(why, "there is no machine in this RAM");
	for (u32 cpu = 0; cpu < cpu_count(); cpu++) {
		u32 own = engine.st->user.cpu[cpu].pgd, pgd = own ? own : engine.st->map.kernel_pgd;

		if (pgd)
			port_load_cr3(&engine, cpu, pgd << PAGE_SHIFT);
	}
	return true;
}

static bool bring_up(bool attach, struct engine_error *why)
{
	u64 lowmem, end;

	if (!engine_plan(&config, &lowmem, &end, why))
		return false;
	paging_direct_map(&config, lowmem);
	link_use((volatile u32 *)(uintptr_t)HOST_MMIO_VA);
	cpu_use((volatile u32 *)(uintptr_t)HOST_LAPIC_VA);
	if (config.cpus > 1)
		cpu_start_others(config.cpus, page_offset());
	if (!port_init(&engine, &config, end, events, MAX_EVENTS, why))
		return false;
	if (attach)
		return take_up(why);
	forget_firmware();
	return engine_create(&engine, &config, why);
}

static void start_machine(void)
{
	struct wire_header h;
	struct engine_error why = {""};
	struct wire_ready ready = {0, 0};

	link_read(&h, sizeof h);
	if (h.magic != WIRE_MAGIC)
		refuse_frame(&h);
	if ((h.type != WIRE_CREATE && h.type != WIRE_ATTACH) || h.length != wire_pad(sizeof config))
		panic("frame %u of %u bytes where a configuration should be", h.type, h.length);
	link_read(&config, sizeof config);
	ready.ok = bring_up(h.type == WIRE_ATTACH, &why);
	if (ready.ok)
		port_send_events(&engine);
	u32 length = 0;

	while (why.text[length])
		length++;
	struct {
		struct wire_ready ready;
		char text[ENGINE_ERROR_LENGTH];
	} body = {ready, {0}};
	__builtin_memcpy(body.text, why.text, length);
	send_frame(WIRE_READY, ready.ok ? 0 : length, &body,
		   sizeof ready + (ready.ok ? 0 : length));
	if (!ready.ok) {
		link_flush();
		power_off(0x12);
	}
}

static inline void copy(u64 *to, const u64 *from, u32 nr)
{
	for (u32 i = 0; i < nr; i++)
		to[i] = from[i];
}

/* At its largest, but for its data. */
struct op_frame {
	struct wire_header header;
	struct wire_op op;
	u64 args[OP_ARGS];
};

static _Noreturn void refuse_op(const struct op_frame *f)
{
	if (f->header.magic != WIRE_MAGIC)
		refuse_frame(&f->header);
	panic("frame %u of %u bytes, with %u args and %u bytes of data, where an op should be",
	      f->header.type, f->header.length, f->header.words, f->header.count);
}

/* The next frame, but for its data, when it came in pieces. */
static __attribute__((noinline, cold)) const struct op_frame *collect_frame(void)
{
	static struct op_frame frame;

	link_read(&frame, offsetof(struct op_frame, args));
	if (frame.header.magic != WIRE_MAGIC || frame.header.words > OP_ARGS)
		refuse_op(&frame);
	link_read(frame.args, frame.header.words * (u32)sizeof *frame.args);
	return &frame;
}

/* Reads a frame; its type. All of *op was zero when the guest started, and what is not in the
 * frame is. */
static ALWAYS_INLINE u32 read_op(struct engine_op *op)
{
	static u32 args_before;
	const struct op_frame *f = (const void *)link_input.at;
	bool is_whole = link_input.left >= sizeof *f;

	if (!is_whole)
		f = collect_frame();
	u32 type = f->header.type, args = f->header.words, bytes = f->header.count;
	u32 length = args * (u32)sizeof *f->args + sizeof f->op;

	if (f->header.magic != WIRE_MAGIC || args > OP_ARGS || bytes > ENGINE_MAX_DATA ||
	    f->header.length != length + wire_pad(bytes))
		refuse_op(f);
	op->code = f->op.code;
	op->cpu = f->op.cpu;
	op->task = f->op.task;
	op->owner = f->op.owner;
	op->data_len = bytes;
	copy(op->args, f->args, args);
	for (u32 i = args; i < args_before; i++)
		op->args[i] = 0;
	args_before = args;
	if (is_whole)
		link_skip(sizeof f->header + length);
	if (bytes)
		link_read(op_data, wire_pad(bytes));
	return type;
}
_Static_assert(ENGINE_MAX_DATA % 8 == 0, "there is room for the padding");

/* None, one, or all. */
static inline u32 words_of(const u64 values[OP_VALUES])
{
	u64 rest = 0;

	for (u32 i = 1; i < OP_VALUES; i++)
		rest |= values[i];
	return rest ? OP_VALUES : values[0] != 0;
}

static ALWAYS_INLINE void send_result(const struct engine_result *res)
{
	struct {
		struct wire_header header;
		struct wire_result result;
		u64 values[OP_VALUES];
	} *out = link_room(sizeof *out);
	u32 words = words_of(res->values), length = sizeof out->result + words * sizeof(u64);

	out->header.magic = WIRE_MAGIC;
	out->header.type = WIRE_RESULT;
	out->header.words = (u16)words;
	out->header.length = length + wire_pad(res->data_len);
	out->header.count = res->data_len;
	out->result.op = res->op;
	out->result.status = res->status;
	out->result.reserved0 = 0;
	copy(out->values, res->values, words);
	link_add(sizeof out->header + length);
	if (res->data_len)
		link_write(result_data, wire_pad(res->data_len));
}

/* Its low half: what an op takes is less. */
static u32 read_tsc(void)
{
	u32 low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return low;
}

static struct engine_result result = {.data = result_data}; /* the rest is the engine's */

/* The one place where the engine is called from, so that it can be compiled in here. */
static ALWAYS_INLINE void execute(const struct engine_op *op, bool is_measured)
{
	static u32 began;
	u64 ticks = 0;

	fault_inject(&engine, op);
	if (is_measured)
		began = read_tsc();
	engine_execute(&engine, op, &result);
	if (__builtin_expect(is_measured, 0))
		ticks = read_tsc() - began;
	port_send_events(&engine);
	if (__builtin_expect(is_measured, 0))
		send_frame(WIRE_COST, 0, &ticks, sizeof ticks);
	send_result(&result);
}

/* What the link alone costs: what comes in an op goes back in a result, and no engine. */
static ALWAYS_INLINE void echo(const struct engine_op *op)
{
	result.op = op->args[0];
	result.status = op->code;
	result.data_len = 0;
#pragma GCC unroll 4
	for (u32 i = 0; i < OP_VALUES; i++)
		result.values[i] = op->args[1 + i];
	send_result(&result);
}
_Static_assert(OP_ARGS > OP_VALUES, "an op has something for each part of a result");

static _Noreturn __attribute__((noinline, cold)) void other_frame(u32 type)
{
	if (type != WIRE_END)
		panic("frame %u where an op should be", type);
	link_flush();
	power_off(0x10);
}

/* An op that one CPU has read and that names another waits for that one to have the turn.
 * One that names none is refused by the engine, here as anywhere.
 *
 * With what the engine does for every op, and the two ops that come most often, this is little
 * more than a page, and begins one: an emulated CPU goes from one page to another only after
 * looking up where that is. */
__attribute__((aligned(PAGE_SIZE))) void serve(void)
{
	static struct engine_op op = {.data = op_data};
	static bool op_waits;
	static u32 type;

	for (;;) {
		if (op_waits)
			op_waits = false;
		else
			type = read_op(&op);
		if (op.cpu != cpu_this() && op.cpu < cpu_count()) {
			op_waits = true;
			cpu_give_turn(op.cpu);
		} else if (type == WIRE_OP || type == WIRE_MEASURE) {
			execute(&op, type == WIRE_MEASURE);
		} else if (type == WIRE_ECHO) {
			echo(&op);
		} else {
			other_frame(type);
		}
	}
}

void kernel_main(u32 start_info)
{
	(void)start_info; /* the daemon made the RAM and sends the map with the configuration */
	trap_init(0);
	cpu_init();
	link_init();
	say_hello();
	start_machine();
	serve();
}
