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

/* Until anything else is read. */
static const struct wire_header *read_header(void)
{
	static struct wire_header spare;
	const struct wire_header *h = link_take(&spare, sizeof spare);

	if (h->magic != WIRE_MAGIC)
		panic("garbage on the link: %x where a frame should begin", h->magic);
	return h;
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
	struct wire_header h = *read_header();
	struct engine_error why = {""};
	struct wire_ready ready = {0, 0};

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

/* Unrolled, because an emulated CPU takes as long for a loop's bookkeeping as for its work. */
static inline void copy(u64 *to, const u64 *from, u32 nr)
{
#pragma GCC unroll 6
	for (u32 i = 0; i < nr; i++)
		to[i] = from[i];
}

static void read_op(u32 frame_length, struct engine_op *op)
{
	static struct wire_op spare;
	const struct wire_op *w = link_take(&spare, sizeof spare);

	if (w->data_len > ENGINE_MAX_DATA || frame_length != sizeof *w + wire_pad(w->data_len))
		panic("op %u with %u bytes of data in a frame of %u", w->code, w->data_len,
		      frame_length);
	op->code = w->code;
	op->cpu = w->cpu;
	op->task = w->task;
	op->owner = w->owner;
	copy(op->args, w->args, OP_ARGS);
	op->data = op_data;
	op->data_len = w->data_len;
	if (w->data_len)
		link_read(op_data, wire_pad(w->data_len));
}
_Static_assert(ENGINE_MAX_DATA % 8 == 0, "there is room for the padding");

static void send_result(const struct engine_result *res)
{
	struct {
		struct wire_header header;
		struct wire_result result;
	} *out = link_room(sizeof *out);

	out->header.magic = WIRE_MAGIC;
	out->header.type = WIRE_RESULT;
	out->header.reserved0 = 0;
	out->header.length = (u32)sizeof out->result + wire_pad(res->data_len);
	out->header.count = 0;
	out->result.op = res->op;
	copy(out->result.values, res->values, OP_VALUES);
	out->result.status = res->status;
	out->result.data_len = res->data_len;
	if (res->data_len)
		link_write(result_data, wire_pad(res->data_len));
}

static u64 read_tsc(void)
{
	u64 ticks;

	__asm__ volatile("rdtsc" : "=A"(ticks) : : "memory");
	return ticks;
}

static void execute(const struct engine_op *op, bool is_measured)
{
	struct engine_result res;
	u64 start, ticks;

	res.data = result_data; /* the rest is the engine's to fill */
	fault_inject(&engine, op);
	start = is_measured ? read_tsc() : 0;
	engine_execute(&engine, op, &res);
	ticks = is_measured ? read_tsc() - start : 0;
	port_send_events(&engine);
	if (is_measured)
		send_frame(WIRE_COST, 0, &ticks, sizeof ticks);
	send_result(&res);
}

/* What the link alone costs: the same records, and no engine. */
static void echo(const struct engine_op *op)
{
	struct engine_result res = {.status = STATUS_OK, .values = {op->args[0]}};

	send_result(&res);
}

/* Frames up to the next op for the engine. */
static void next_op(struct engine_op *op, bool *ret_is_measured)
{
	for (;;) {
		const struct wire_header *h = read_header();

		switch (h->type) {
		case WIRE_OP:
		case WIRE_MEASURE:
			*ret_is_measured = h->type == WIRE_MEASURE;
			read_op(h->length, op);
			return;
		case WIRE_ECHO:
			read_op(h->length, op);
			echo(op);
			break;
		case WIRE_END: link_flush(); power_off(0x10);
		default: panic("frame %u where an op should be", h->type);
		}
	}
}

/* An op that one CPU has read and that names another waits for that one to have the turn.
 * One that names none is refused by the engine, here as anywhere. */
void serve(void)
{
	static struct engine_op op;
	static bool op_waits, is_measured;

	for (;;) {
		if (!op_waits)
			next_op(&op, &is_measured);
		op_waits = op.cpu != cpu_this() && op.cpu < cpu_count();
		if (op_waits)
			cpu_give_turn(op.cpu);
		else
			execute(&op, is_measured);
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
