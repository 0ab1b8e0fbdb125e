/*
 * backend_kernel.c - a guest in QEMU behind the back end's seam.
 *
 *   COLD -> STARTING -> RUNNING         LOST is reached from anywhere, and is the end
 *
 * STARTING: QEMU runs, ops are held back. RUNNING: the guest has said READY.
 *
 * RAM is a sparse memfd that QEMU maps as the guest's, and that a view (sim.h) maps as
 * the engine's, so that inspections read the same bytes by the same code.
 *
 * A new machine is booted twice: in a simulation that is thrown away, which refuses what
 * the engine refuses and says at once what the events of boot are; and by the guest,
 * whose events have to be those. A copy is a copy of the RAM; its guest starts with its
 * first op, onto that RAM. QEMU writes below 640 KiB and to the host window while it
 * starts; the window is the guest's own, and what was below is put back before the guest
 * is told to go on.
 *
 * Invariants:
 *  1. flight[] has the ops handed over and not collected, oldest first; the guest answers
 *     in that order.
 *  2. Frames are taken apart in collect(), while ops are in flight, and in on_input()
 *     else; nothing is parsed twice.
 *  3. Events stay in the link's buffer while their op's result is there too: they are
 *     handed on without a copy.
 *  4. What is handed on is what an engine could have said: the number that is due, a status
 *     and events that there are, as many as the record has room for, the end of an op that
 *     was asleep. A guest that says anything else is lost, with what it said as the reason.
 *
 * Deliberately not here: bytes and processes (qemu.c), and what is recorded.
 */
#define _GNU_SOURCE /* memfd_create, SEEK_DATA */
#include "backend_kernel.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arena.h"
#include "kernel-backend/protocol.h"
#include "qemu.h"
#include "sim.h"
#include "state.h"

enum {
	WINDOW = 1024,		   /* ops in flight; a power of 2 */
	FIRMWARE_BYTES = 0x9fc00,  /* what QEMU uses while it starts */
	RAM_STEP = 1 << 20,	   /* QEMU takes whole MiB */
	SEND_BYTES = 16384,	   /* of ops, that are sent before all are there */
	FRAME_MAX = 1 << 20,	   /* the guest's longest is a result with all its data */
	OP_EVENTS = (1 << 24) - 1, /* of one op: the record has room for no more */
	SILENT_MS = 20000,
};

enum kernel_state { COLD, STARTING, RUNNING, LOST };

struct kernel_backend {
	struct backend base;
	struct backend_hooks hooks;
	struct engine_config config;
	enum kernel_state state;
	bool attach; /* there is a machine in RAM already */
	int ram_file;
	u64 ram_bytes; /* of the file */
	u8 *firmware;  /* to be put back; NULL: nothing */
	struct sim *view;
	struct qemu *qemu;
	struct {
		const struct engine_op *op;
		struct engine_result *res;
	} flight[WINDOW];
	u32 first, nr; /* of flight[] */
	u64 last_op;   /* the number of the op that was answered last */
	/* Of boot, as they must be; given away once, compared as the guest's come. */
	struct engine_event *boot_events;
	u32 nr_boot_events, nr_compared;
	bool boot_events_given;
	/* Of the op that was collected. */
	const struct engine_event *events;
	u32 nr_events;
	u32 nr_handed_on; /* of its events, before these */
	char reason[ENGINE_ERROR_LENGTH];
};

static struct backend_kernel_options settings;

void backend_kernel_configure(const struct backend_kernel_options *options)
{
	settings = *options;
	if (!settings.silent_ms)
		settings.silent_ms = SILENT_MS;
	/* A guest that gdb has stopped does not hang. */
	if (settings.gdb)
		settings.silent_ms = 0;
}

static struct kernel_backend *self(const struct backend *b)
{
	return (struct kernel_backend *)(uintptr_t)b;
}

int backend_kernel_pid(const struct backend *b)
{
	return self(b)->qemu ? qemu_pid(self(b)->qemu) : 0;
}

/* The reason may have a guest's text in it, and what a guest sends may be anything. */
static void lose(struct kernel_backend *k, const char *reason)
{
	if (k->state == LOST)
		return;
	snprintf(k->reason, sizeof k->reason, "%s", reason);
	for (char *c = k->reason; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	k->state = LOST;
	if (k->qemu)
		qemu_condemn(k->qemu, reason);
}

/* It said what no engine says. */
static void disbelieve(struct kernel_backend *k, const char *format, ...)
{
	char reason[ENGINE_ERROR_LENGTH];
	va_list args;

	va_start(args, format);
	vsnprintf(reason, sizeof reason, format, args);
	va_end(args);
	lose(k, reason);
}

/* ---- RAM ---- */

/* For RAM that ends at this address. The guest's own frames are there even if the machine's
 * RAM ends before them. */
static u64 ram_file_bytes(u64 end)
{
	const u64 window_end = HOST_WINDOW_PADDR + HOST_WINDOW_BYTES;

	if (end < window_end)
		end = window_end;
	return (arena_file_offset(end) + RAM_STEP - 1) & ~(u64)(RAM_STEP - 1);
}

static int make_ram(u64 bytes)
{
	int file = memfd_create("zoned-ram", MFD_CLOEXEC);

	if (file >= 0 && ftruncate(file, (off_t)bytes)) {
		close(file);
		file = -1;
	}
	return file;
}

/* Copies what was ever touched. */
static bool copy_ram(int to, int from, u64 bytes)
{
	off_t start = 0, end;

	while ((start = lseek(from, start, SEEK_DATA)) >= 0 && (u64)start < bytes) {
		off_t out = start;

		end = lseek(from, start, SEEK_HOLE);
		while (start < end)
			if (copy_file_range(from, &start, to, &out, (size_t)(end - start), 0) <= 0)
				return false;
	}
	return true;
}

/* ---- the guest starts ---- */

/* The image is installed beside the daemon, or lies in the folder they were built in. */
static bool find_image(char *ret, size_t size, struct engine_error *why)
{
	static const char *const places[] = {ZONED_KERNEL_INSTALLED, "../lib/zoned",
					     "../kernel-backend", "../../kernel-backend"};
	char exe[1024];
	size_t length = sizeof exe;
	char *slash;

	if (settings.image) {
		snprintf(ret, size, "%s", settings.image);
		if (access(ret, R_OK) == 0)
			return true;
		snprintf(why->text, sizeof why->text, "the kernel image %.150s cannot be read",
			 settings.image);
		return false;
	}
	if (uv_exepath(exe, &length) || !(slash = strrchr(exe, '/')))
		length = 0;
	else
		*slash = 0;
	for (unsigned i = 0; length && i < sizeof places / sizeof places[0]; i++) {
		snprintf(ret, size, "%s/%s/zoned-kernel.elf", exe, places[i]);
		if (access(ret, R_OK) == 0)
			return true;
	}
	snprintf(why->text, sizeof why->text,
		 "zoned-kernel.elf is not beside the daemon; name it with --kernel-image");
	return false;
}

/* The next guest's gdb socket, and the commands for gdb beside it. */
static bool offer_gdb(const char *image, char *ret_socket, size_t size, struct engine_error *why)
{
	static unsigned nr_guests;
	char path[1200];
	FILE *commands;

	nr_guests++;
	snprintf(ret_socket, size, "%s/guest-%u.sock", settings.gdb, nr_guests);
	snprintf(path, sizeof path, "%s/guest-%u.gdb", settings.gdb, nr_guests);
	commands = fopen(path, "we");
	if (commands) {
		fprintf(commands, "file \"%s\"\ntarget remote %s\n", image, ret_socket);
		if (fclose(commands) == 0)
			return true;
	}
	snprintf(why->text, sizeof why->text, "%.150s cannot be written", path);
	return false;
}

static void on_input(void *user);
static void on_ended(void *user);

static bool start(struct kernel_backend *k, struct engine_error *why)
{
	struct qemu_hooks hooks = {.user = k, .input = on_input, .ended = on_ended};
	char image[1200], gdb[1200];

	if (!find_image(image, sizeof image, why))
		return false;
	if (settings.gdb && !offer_gdb(image, gdb, sizeof gdb, why))
		return false;
	if (k->attach) {
		k->firmware = malloc(FIRMWARE_BYTES);
		if (!k->firmware || pread(k->ram_file, k->firmware, FIRMWARE_BYTES, 0) < 0) {
			snprintf(why->text, sizeof why->text, "no memory to start a guest");
			return false;
		}
	}
	k->qemu =
	    qemu_start(settings.loop, image, k->ram_file, k->ram_bytes,
		       k->config.cpus ? k->config.cpus : 1, settings.gdb ? gdb : NULL, &hooks, why);
	if (!k->qemu)
		return false;
	k->state = STARTING;
	qemu_expect(k->qemu, settings.silent_ms, "the guest did not start in time");
	return true;
}

static void send_op(struct kernel_backend *k, const struct engine_op *op)
{
	static const u8 zeros[8];
	struct {
		struct wire_header header;
		struct wire_op op;
		u64 args[OP_ARGS];
	} frame;
	u32 words = wire_words(op->args, OP_ARGS), padded = wire_pad(op->data_len);
	u32 length = (u32)(sizeof frame.op + words * sizeof *frame.args);

	frame.header =
	    (struct wire_header){WIRE_MAGIC, WIRE_OP, (u16)words, length + padded, op->data_len};
	frame.op = (struct wire_op){op->code, op->cpu, op->task, op->owner};
	for (u32 i = 0; i < words; i++)
		frame.args[i] = op->args[i];
	qemu_write(k->qemu, &frame, sizeof frame.header + length);
	if (padded) {
		qemu_write(k->qemu, op->data, op->data_len);
		qemu_write(k->qemu, zeros, padded - op->data_len);
	}
}

static void expect_answer(struct kernel_backend *k)
{
	qemu_expect(k->qemu, k->nr ? settings.silent_ms : 0,
		    "the guest hangs: it owes an answer and sends nothing");
}

static void greet(struct kernel_backend *k, const struct wire_hello *hello)
{
	static const struct wire_hello ours = {WIRE_VERSION,
					       sizeof(struct engine_config),
					       sizeof(struct wire_op),
					       sizeof(struct wire_result),
					       sizeof(struct engine_event),
					       sizeof(struct machine_state)};
	struct wire_header h = {WIRE_MAGIC, k->attach ? WIRE_ATTACH : WIRE_CREATE, 0,
				wire_pad(sizeof k->config), 0};

	if (memcmp(hello, &ours, sizeof ours) != 0) {
		lose(k, "the kernel image is of another version than the daemon");
		return;
	}
	if (k->firmware && pwrite(k->ram_file, k->firmware, FIRMWARE_BYTES, 0) != FIRMWARE_BYTES) {
		lose(k, "the guest's RAM cannot be written");
		return;
	}
	free(k->firmware);
	k->firmware = NULL;
	qemu_write(k->qemu, &h, sizeof h);
	qemu_write(k->qemu, &k->config, sizeof k->config);
	qemu_flush(k->qemu);
}
_Static_assert(sizeof(struct engine_config) % 8 == 0, "a configuration needs no padding");

static void compare_boot(struct kernel_backend *k, const u8 *events, u32 nr)
{
	if (!nr)
		return;
	if (nr > k->nr_boot_events - k->nr_compared ||
	    memcmp(k->boot_events + k->nr_compared, events, nr * sizeof(struct engine_event)) != 0)
		lose(k, "the guest booted otherwise than the simulation");
	k->nr_compared += nr;
}

static void is_ready(struct kernel_backend *k, const struct wire_header *h, const u8 *body)
{
	const struct wire_ready *ready = (const struct wire_ready *)(const void *)body;
	struct engine_error why;

	if (!ready->ok) {
		snprintf(why.text, sizeof why.text, "the guest refuses: %.*s",
			 h->count < 150 ? (int)h->count : 150, (const char *)(ready + 1));
		lose(k, why.text);
		return;
	}
	if (!k->attach && k->nr_compared != k->nr_boot_events) {
		lose(k, "the guest booted otherwise than the simulation");
		return;
	}
	k->view = k->view ? k->view : sim_view(&k->config, k->ram_file, &why);
	if (!k->view) {
		lose(k, why.text);
		return;
	}
	free(k->boot_events);
	k->boot_events = NULL;
	k->state = RUNNING;
	for (u32 i = 0; i < k->nr; i++)
		send_op(k, k->flight[(k->first + i) % WINDOW].op);
	qemu_flush(k->qemu);
	expect_answer(k);
}

/* ---- frames ---- */

/* The frame at the head of the input, whole; NULL: not yet, or lost. */
static const u8 *next_frame(struct kernel_backend *k, struct wire_header *h)
{
	/* The least that a frame of each type can be. What is not here is not the guest's. */
	static const u32 least[] = {
	    [WIRE_HELLO] = sizeof(struct wire_hello),
	    [WIRE_READY] = sizeof(struct wire_ready),
	    [WIRE_RESULT] = sizeof(struct wire_result),
	    [WIRE_EVENTS] = 0,
	    [WIRE_COMPLETION] = sizeof(struct engine_completion),
	    [WIRE_PANIC] = 0,
	};
	const u32 known = 1u << WIRE_HELLO | 1u << WIRE_READY | 1u << WIRE_RESULT |
			  1u << WIRE_EVENTS | 1u << WIRE_COMPLETION | 1u << WIRE_PANIC;
	size_t length;
	const u8 *in = qemu_input(k->qemu, &length);
	u64 content;

	if (length < sizeof *h || k->state == LOST)
		return NULL;
	memcpy(h, in, sizeof *h);
	content = h->type == WIRE_EVENTS  ? (u64)h->count * sizeof(struct engine_event)
		  : h->type == WIRE_PANIC ? h->count
		  : h->type == WIRE_READY ? sizeof(struct wire_ready) + (u64)h->count
					  : 0;
	if (h->magic != WIRE_MAGIC || h->type > WIRE_PANIC || !(known >> h->type & 1) ||
	    h->length > FRAME_MAX || h->length % 8 || h->length < least[h->type] ||
	    (h->length < content && h->type != WIRE_EVENTS)) {
		lose(k, "garbage on the link from the guest");
		return NULL;
	}
	if (h->type == WIRE_EVENTS && h->length != (content + 7) / 8 * 8) {
		disbelieve(k, "the guest sent %u events in %u bytes", h->count, h->length);
		return NULL;
	}
	return length - sizeof *h < h->length ? NULL : in + sizeof *h;
}

static void done_with(struct kernel_backend *k, const struct wire_header *h)
{
	qemu_consume(k->qemu, sizeof *h + h->length);
}

static void panicked(struct kernel_backend *k, const struct wire_header *h, const u8 *text)
{
	char reason[ENGINE_ERROR_LENGTH];

	snprintf(reason, sizeof reason, "guest panic: %.*s", h->count < 150 ? (int)h->count : 150,
		 (const char *)text);
	lose(k, reason);
}

static void boot_frame(struct kernel_backend *k, const struct wire_header *h, const u8 *body)
{
	switch (h->type) {
	case WIRE_HELLO: greet(k, (const struct wire_hello *)(const void *)body); break;
	case WIRE_EVENTS: compare_boot(k, body, h->count); break;
	case WIRE_READY: is_ready(k, h, body); break;
	case WIRE_PANIC: panicked(k, h, body); break;
	default: lose(k, "the guest sent a result before it was ready");
	}
}

static void look_at_idle(struct kernel_backend *k)
{
	struct wire_header h;
	const u8 *body = next_frame(k, &h);

	if (!body)
		return;
	if (h.type == WIRE_PANIC)
		panicked(k, &h, body);
	else
		lose(k, "the guest sent what nobody asked for");
}

/* With ops in flight, frames wait for collect(). */
static void on_input(void *user)
{
	struct kernel_backend *k = user;
	enum kernel_state before = k->state;
	struct wire_header h;
	const u8 *body;

	while (k->state == STARTING && (body = next_frame(k, &h))) {
		boot_frame(k, &h, body);
		done_with(k, &h);
	}
	if (k->state == RUNNING && !k->nr)
		look_at_idle(k);
	if (k->nr || k->state != before)
		k->hooks.ready(k->hooks.user);
}

/* What it sent before it ended is still to be looked at: it may say why. */
static void on_ended(void *user)
{
	struct kernel_backend *k = user;

	if (k->state == STARTING || !k->nr)
		lose(k, qemu_end_reason(k->qemu));
	k->hooks.ready(k->hooks.user);
}

/* ---- the seam: made and ended ---- */

static bool refuse(struct engine_error *why, const char *text)
{
	snprintf(why->text, sizeof why->text, "%s", text);
	return false;
}

static bool accept_config(const struct engine_config *c, struct engine_error *why)
{
	if (!settings.loop)
		return refuse(why, "this daemon has no kernel back end");
	if (c->preset != PRESET_CLASSIC && c->preset != PRESET_LINUX_6_1)
		return refuse(why, "the presets arm32 and ppc32 are for the simulation alone; the "
				   "kernel back end is an x86");
	for (u32 i = 0; i < c->nr_e820; i++) {
		const struct engine_e820 *e = &c->e820[i];
		u64 end = e->start + e->size;

		if (e->type != 1 || e->start >= ARENA_HOLE_END || end <= ARENA_HOLE_START ||
		    (c->mem && e->start >= c->mem))
			continue;
		snprintf(why->text, sizeof why->text,
			 "e820[%u] has RAM from %#llx to %#llx, and QEMU's hole without RAM is "
			 "from %#llx to %#llx",
			 i, (unsigned long long)e->start, (unsigned long long)end,
			 (unsigned long long)ARENA_HOLE_START, (unsigned long long)ARENA_HOLE_END);
		return false;
	}
	return true;
}

static void collect_boot_events(void *user, const struct engine_event *events, u32 nr)
{
	struct kernel_backend *k = user;
	size_t size = (k->nr_boot_events + (size_t)nr + 1) * sizeof *events;

	k->boot_events = realloc(k->boot_events, size);
	if (!k->boot_events)
		abort();
	memcpy(k->boot_events + k->nr_boot_events, events, nr * sizeof *events);
	k->nr_boot_events += nr;
}

/* Boots it in a simulation, for the events and for what the engine refuses. */
static bool rehearse(struct kernel_backend *k, struct engine_error *why)
{
	struct sim_hooks hooks = {.events = collect_boot_events, .user = k};
	struct sim *sim = sim_new(&k->config, &hooks, why);
	const struct engine_event *events;
	u32 nr;

	if (!sim)
		return false;
	events = sim_take_events(sim, &nr);
	collect_boot_events(k, events, nr);
	k->last_op = engine_op_count(sim_engine(sim));
	sim_free(sim);
	return true;
}

static struct kernel_backend *make(const struct engine_config *config,
				   const struct backend_hooks *hooks)
{
	struct kernel_backend *k = calloc(1, sizeof *k);

	if (!k)
		abort();
	k->base.type = &backend_kernel;
	k->config = *config;
	k->hooks = *hooks;
	k->ram_file = -1;
	return k;
}

static void kernel_free(struct backend *b)
{
	struct kernel_backend *k = self(b);
	const struct {
		struct wire_header header;
		struct wire_op op;
	} end = {{WIRE_MAGIC, WIRE_END, 0, sizeof end.op, 0}, {0}};

	if (k->state == RUNNING)
		qemu_write(k->qemu, &end, sizeof end);
	qemu_stop(k->qemu, k->state == RUNNING);
	sim_free(k->view);
	if (k->ram_file >= 0)
		close(k->ram_file);
	free(k->boot_events);
	free(k->firmware);
	free(k);
}

static struct backend *kernel_create(const struct engine_config *config,
				     const struct backend_hooks *hooks, struct engine_error *why)
{
	struct kernel_backend *k;
	u64 lowmem, end;

	if (!accept_config(config, why) || !engine_plan(config, &lowmem, &end, why))
		return NULL;
	k = make(config, hooks);
	k->ram_bytes = ram_file_bytes(end);
	if (rehearse(k, why)) {
		k->ram_file = make_ram(k->ram_bytes);
		if (k->ram_file < 0)
			refuse(why, "no memory file for the guest's RAM");
		else if (start(k, why))
			return &k->base;
	}
	kernel_free(&k->base);
	return NULL;
}

static struct backend *kernel_copy(struct backend *b, const struct backend_hooks *hooks)
{
	struct kernel_backend *from = self(b), *k = make(&from->config, hooks);
	struct engine_error ignored;

	k->attach = true;
	k->last_op = from->last_op;
	k->ram_bytes = from->ram_bytes;
	k->ram_file = make_ram(k->ram_bytes);
	if (k->ram_file >= 0 && copy_ram(k->ram_file, from->ram_file, k->ram_bytes))
		k->view = sim_view(&k->config, k->ram_file, &ignored);
	if (k->view)
		return &k->base;
	kernel_free(&k->base);
	return NULL;
}

/* The bytes are those that the guest would have: it boots onto them with the first op. */
static struct backend *kernel_adopt(struct sim *sim, const struct backend_hooks *hooks,
				    struct engine_error *why)
{
	const struct engine_config *config = engine_config(sim_engine(sim));
	struct kernel_backend *k;
	u64 lowmem, end;

	if (!accept_config(config, why) || !engine_plan(config, &lowmem, &end, why)) {
		sim_free(sim);
		return NULL;
	}
	k = make(config, hooks);
	k->attach = true;
	k->last_op = engine_op_count(sim_engine(sim));
	k->ram_bytes = ram_file_bytes(end);
	k->ram_file = make_ram(k->ram_bytes);
	if (k->ram_file < 0 || !sim_write_ram(sim, k->ram_file))
		refuse(why, "no memory file for the guest's RAM");
	else
		k->view = sim_view(&k->config, k->ram_file, why);
	sim_free(sim);
	if (k->view)
		return &k->base;
	kernel_free(&k->base);
	return NULL;
}

/* ---- the seam: ops ---- */

static void kernel_submit(struct backend *b, const struct engine_op *op, struct engine_result *res)
{
	struct kernel_backend *k = self(b);
	struct engine_error why;

	if (k->state == RUNNING && !k->nr)
		look_at_idle(k); /* it came with the last answer */
	k->flight[(k->first + k->nr) % WINDOW].op = op;
	k->flight[(k->first + k->nr) % WINDOW].res = res;
	k->nr++;
	if (k->state == COLD && !start(k, &why))
		lose(k, why.text);
	if (k->state != RUNNING)
		return;
	send_op(k, op);
	if (k->nr == 1)
		expect_answer(k);
	/* So that the guest works while we do. */
	if (qemu_unsent(k->qemu) >= SEND_BYTES)
		qemu_flush(k->qemu);
}

/* LOST is the daemon's word, and the last of all. */
static bool is_engine_status(u32 status)
{
	return status < STATUS_LOST;
}

static void hand_on(struct kernel_backend *k)
{
	if (k->nr_events)
		k->hooks.events(k->hooks.user, k->events, k->nr_events);
	k->nr_handed_on += k->nr_events;
	k->nr_events = 0;
}

static void take_events(struct kernel_backend *k, const struct engine_event *events, u32 nr)
{
	/* Of none it is a sign of life from a long op. */
	hand_on(k);
	if (nr > OP_EVENTS - k->nr_handed_on) {
		disbelieve(k, "the guest sent more than %u events for op %llu", OP_EVENTS,
			   (unsigned long long)k->last_op + 1);
		return;
	}
	for (u32 i = 0; i < nr; i++) {
		if (events[i].kind && events[i].kind < EVENT_KIND_END)
			continue;
		disbelieve(k, "the guest sent an event of kind %u, which there is not",
			   events[i].kind);
		return;
	}
	k->events = events;
	k->nr_events = nr;
}

static void take_completion(struct kernel_backend *k, const struct engine_completion *c)
{
	if (!is_engine_status(c->status))
		disbelieve(k, "the guest ended op %llu with status %u, which there is not",
			   (unsigned long long)c->op, c->status);
	else if (k->hooks.is_asleep && !k->hooks.is_asleep(k->hooks.user, c->op))
		disbelieve(k, "the guest woke op %llu, which is not asleep",
			   (unsigned long long)c->op);
	else
		k->hooks.complete(k->hooks.user, c);
}

static void take_result(struct kernel_backend *k, const struct wire_header *h, const u8 *body)
{
	const struct wire_result *w = (const struct wire_result *)(const void *)body;
	const u64 *values = (const u64 *)(const void *)(body + sizeof *w);
	struct engine_result *res = k->flight[k->first].res;

	if (h->words > OP_VALUES || h->count > ENGINE_MAX_DATA ||
	    h->length != sizeof *w + h->words * sizeof *values + wire_pad(h->count)) {
		lose(k, "garbage on the link from the guest");
		return;
	}
	if (w->op != k->last_op + 1) {
		disbelieve(k, "the guest answered op %llu, and the oldest that waits is op %llu",
			   (unsigned long long)w->op, (unsigned long long)k->last_op + 1);
		return;
	}
	if (!is_engine_status(w->status)) {
		disbelieve(k, "the guest answered op %llu with status %u, which there is not",
			   (unsigned long long)w->op, w->status);
		return;
	}
	k->last_op = w->op;
	k->nr_handed_on = 0;
	res->op = w->op;
	res->status = w->status;
	for (u32 i = 0; i < OP_VALUES; i++)
		res->values[i] = i < h->words ? values[i] : 0;
	res->data_len = h->count;
	if (h->count)
		memcpy(res->data, values + h->words, h->count);
	k->first = (k->first + 1) % WINDOW;
	if (--k->nr == 0)
		expect_answer(k);
}

/* One frame of the oldest op. True: it was its result. */
static bool op_frame(struct kernel_backend *k, const struct wire_header *h, const u8 *body)
{
	switch (h->type) {
	case WIRE_EVENTS:
		take_events(k, (const struct engine_event *)(const void *)body, h->count);
		return false;
	case WIRE_COMPLETION:
		take_completion(k, (const struct engine_completion *)(const void *)body);
		return false;
	case WIRE_RESULT: take_result(k, h, body); return k->state != LOST;
	case WIRE_PANIC: panicked(k, h, body); return false;
	default: lose(k, "garbage on the link from the guest"); return false;
	}
}

static enum backend_status kernel_collect(struct backend *b)
{
	struct kernel_backend *k = self(b);
	struct wire_header h;
	const u8 *body;
	bool done = false;

	while (!done && k->state == RUNNING && (body = next_frame(k, &h))) {
		done = op_frame(k, &h, body);
		done_with(k, &h);
	}
	if (done)
		return BACKEND_DONE;
	/* The buffer may move before the result comes. */
	hand_on(k);
	if (k->qemu && qemu_end_reason(k->qemu))
		lose(k, qemu_end_reason(k->qemu));
	if (k->state == LOST)
		return BACKEND_LOST;
	qemu_flush(k->qemu);
	return BACKEND_WAITING;
}

static const struct engine_event *kernel_take_events(struct backend *b, u32 *ret_nr)
{
	static const struct engine_event none;
	struct kernel_backend *k = self(b);

	if (k->boot_events && !k->boot_events_given) {
		k->boot_events_given = true;
		*ret_nr = k->nr_boot_events;
		return k->boot_events;
	}
	*ret_nr = k->nr_events;
	k->nr_events = 0;
	return *ret_nr ? k->events : &none;
}

/* ---- the seam: looking into it ---- */

static bool kernel_is_busy(const struct backend *b)
{
	return self(b)->state != LOST && !self(b)->view;
}

/* What the guest's engine remembers beside its state is out of reach: taking the machine up
 * anew remembers it from the state. */
static const char *kernel_check(struct backend *b, struct engine_error *why)
{
	sim_take_up(self(b)->view);
	return sim_check(self(b)->view, why);
}

static u32 kernel_inspect(struct backend *b, u32 question, const u64 args[OP_ARGS],
			  struct inspect_sink *sink)
{
	return sim_inspect(self(b)->view, question, args, sink);
}

static struct engine_digest kernel_digest(struct backend *b)
{
	return sim_digest(self(b)->view);
}

static u64 kernel_resident_bytes(const struct backend *b)
{
	struct stat st;

	return fstat(self(b)->ram_file, &st) == 0 ? (u64)st.st_blocks * 512 : 0;
}

static const char *kernel_lost_reason(const struct backend *b)
{
	const struct kernel_backend *k = self(b);

	if (k->state == LOST)
		return k->reason;
	return k->view ? sim_lost_reason(k->view) : NULL;
}

const struct backend_type backend_kernel = {
    .number = BACKEND_KERNEL,
    .name = "kernel",
    .window = WINDOW,
    .create = kernel_create,
    .copy = kernel_copy,
    .free = kernel_free,
    .adopt = kernel_adopt,
    .submit = kernel_submit,
    .collect = kernel_collect,
    .take_events = kernel_take_events,
    .is_busy = kernel_is_busy,
    .check = kernel_check,
    .inspect = kernel_inspect,
    .digest = kernel_digest,
    .resident_bytes = kernel_resident_bytes,
    .lost_reason = kernel_lost_reason,
};
