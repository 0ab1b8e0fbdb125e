/*
 * fuzz_link.c - bytes on the link from a guest to the kernel back end: a guest that has gone
 * mad, or is another program.
 *
 * qemu.c is replaced by what is here: an input that comes in pieces, each time in a block of
 * its own length, so that a sanitizer sees whoever reads behind it or keeps a pointer for too
 * long. The first byte says how it begins: bit 0 without the handshake, bit 1 as a new machine
 * that the guest boots (without a handshake, too: there is no guest that could write its RAM)
 * and not as one that it attaches to; bits 2 to 4 how many ops are in flight. Then pieces: a
 * byte of length (in eights), and so much.
 *
 * What must hold: the back end is RUNNING or LOST with a reason; an op that is done was in
 * flight, has the number that is due, a status that an engine gives, and data that fits; events
 * and completions can be read while they are given, and are such as the contract has; no op is
 * woken that did not sleep.
 */
#include <sanitizer/asan_interface.h>
#include <string.h>

#include "backend_kernel.h"
#include "fuzz.h"
#include "kernel-backend/protocol.h"
#include "qemu.h"
#include "sim.h"
#include "state.h"

enum { BEHIND = 256 };
enum { NO_HANDSHAKE = 1, NEW = 2, MOST_OPS = 8 };
enum { SLEEPER = 2 }; /* the number of the one op that is said to be asleep */

/* ---- qemu.c ---- */

struct qemu {
	struct qemu_hooks hooks;
	u8 *input;
	size_t length, consumed;
	const char *reason;
};

static struct qemu *link_end; /* of the back end that is tried */

struct qemu *qemu_start(uv_loop_t *loop, const char *kernel, int ram_file, u64 ram_bytes, u32 cpus,
			const char *gdb_socket, const struct qemu_hooks *hooks,
			struct engine_error *why)
{
	(void)loop, (void)kernel, (void)ram_file, (void)ram_bytes, (void)cpus, (void)gdb_socket;
	(void)why;
	link_end = calloc(1, sizeof *link_end);
	FUZZ_CHECK(link_end);
	link_end->hooks = *hooks;
	return link_end;
}

void qemu_stop(struct qemu *q, bool politely)
{
	(void)politely;
	if (!q)
		return;
	free(q->input);
	free(q);
	link_end = NULL;
}

const u8 *qemu_input(struct qemu *q, size_t *ret_length)
{
	*ret_length = q->length - q->consumed;
	return q->input + q->consumed;
}

void qemu_consume(struct qemu *q, size_t bytes)
{
	FUZZ_CHECK(bytes <= q->length - q->consumed);
	q->consumed += bytes;
}

void qemu_write(struct qemu *q, const void *bytes, size_t length)
{
	(void)q, (void)bytes, (void)length;
}

size_t qemu_unsent(const struct qemu *q)
{
	(void)q;
	return 0;
}

void qemu_flush(struct qemu *q)
{
	(void)q;
}

void qemu_expect(struct qemu *q, u64 milliseconds, const char *complaint)
{
	(void)q, (void)milliseconds, (void)complaint;
}

void qemu_condemn(struct qemu *q, const char *reason)
{
	q->reason = reason;
}

const char *qemu_end_reason(const struct qemu *q)
{
	return q->reason;
}

int qemu_pid(const struct qemu *q)
{
	(void)q;
	return 1;
}

/* ---- the other end ---- */

struct world {
	struct backend *b;
	struct engine_op ops[MOST_OPS];
	struct engine_result results[MOST_OPS];
	u8 *data[MOST_OPS];
	unsigned nr, done;
	bool woken; /* the sleeper */
	u64 sum;    /* of all that was given */
};

static void look_at(struct world *w, const void *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		w->sum += ((const u8 *)bytes)[i];
}

static void on_events(void *user, const struct engine_event *events, u32 nr)
{
	look_at(user, events, nr * sizeof *events);
	for (u32 i = 0; i < nr; i++)
		FUZZ_CHECK(events[i].kind && events[i].kind < EVENT_KIND_END);
}

static bool is_asleep(void *user, u64 op)
{
	return op == SLEEPER && !((struct world *)user)->woken;
}

static void on_complete(void *user, const struct engine_completion *c)
{
	struct world *w = user;

	look_at(w, c, sizeof *c);
	FUZZ_CHECK(is_asleep(w, c->op) && c->status < STATUS_LOST);
	w->woken = true;
}

static void on_ready(void *user)
{
	((struct world *)user)->sum++;
}

static void take_events(struct world *w)
{
	u32 nr;
	const struct engine_event *events = w->b->type->take_events(w->b, &nr);

	on_events(w, events, nr);
}

static bool is_lost(const struct world *w)
{
	return w->b->type->lost_reason(w->b) != NULL;
}

static void collect(struct world *w)
{
	while (w->done < w->nr) {
		const struct engine_result *res = &w->results[w->done];

		switch (w->b->type->collect(w->b)) {
		case BACKEND_DONE:
			FUZZ_CHECK(res->op == w->done + 1);
			FUZZ_CHECK(res->status < STATUS_LOST);
			FUZZ_CHECK(res->data_len <= ENGINE_MAX_DATA);
			look_at(w, res->data, res->data_len);
			take_events(w);
			w->done++;
			break;
		case BACKEND_LOST: FUZZ_CHECK(is_lost(w)); return;
		case BACKEND_WAITING: return;
		case BACKEND_MORE: FUZZ_CHECK(false); /* it never is */
		}
	}
}

/* What is left of the old input moves: nobody may have kept a pointer. */
static void deliver(struct world *w, const void *bytes, size_t length)
{
	struct qemu *q = link_end;
	size_t rest = q->length - q->consumed;
	u8 *input = malloc(rest + length + BEHIND);

	FUZZ_CHECK(input);
	/* No text ends there by chance. */
	memset(input + rest + length, 1, BEHIND);
	ASAN_POISON_MEMORY_REGION(input + rest + length, BEHIND);
	if (rest)
		memcpy(input, q->input + q->consumed, rest);
	if (length)
		memcpy(input + rest, bytes, length);
	free(q->input);
	q->input = input;
	q->length = rest + length;
	q->consumed = 0;
	q->hooks.input(q->hooks.user);
	collect(w);
}

static void deliver_frame(struct world *w, u16 type, const void *body, size_t length, u32 count)
{
	static const u8 zeros[8];
	struct wire_header h = {WIRE_MAGIC, type, 0, wire_pad((u32)length), count};

	deliver(w, &h, sizeof h);
	deliver(w, body, length);
	deliver(w, zeros, h.length - length);
}

static void shake_hands(struct world *w)
{
	const struct wire_hello hello = {WIRE_VERSION,
					 sizeof(struct engine_config),
					 sizeof(struct wire_op),
					 sizeof(struct wire_result),
					 sizeof(struct engine_event),
					 sizeof(struct machine_state)};
	const struct wire_ready ready = {.ok = 1};

	deliver_frame(w, WIRE_HELLO, &hello, sizeof hello, 0);
	deliver_frame(w, WIRE_READY, &ready, sizeof ready, 0);
	FUZZ_CHECK(!is_lost(w));
}

/* ---- back ends ---- */

static const struct engine_config config = {
    .ram = 16 << 20, .cpus = 1, .preset = PRESET_LINUX_6_1, .detail = DETAIL_OPS};

/* A simulation's machine, of which each try has a copy. */
static struct backend *origin(void)
{
	static struct backend *b;
	static uv_loop_t loop;
	const struct backend_kernel_options options = {.loop = &loop, .image = "/dev/null"};
	static struct world nobody;
	const struct backend_hooks hooks = {&nobody, on_events, on_complete, is_asleep, on_ready};
	const struct sim_hooks none = {0};
	struct engine_error why;

	if (b)
		return b;
	backend_kernel_configure(&options);
	b = backend_kernel.adopt(sim_new(&config, &none, &why), &hooks, &why);
	FUZZ_CHECK(b);
	return b;
}

static struct backend *make(struct world *w, bool is_new)
{
	const struct backend_hooks hooks = {w, on_events, on_complete, is_asleep, on_ready};
	struct backend *from = origin(), *b;
	struct engine_error why;

	b = is_new ? backend_kernel.create(&config, &hooks, &why)
		   : backend_kernel.copy(from, &hooks);
	FUZZ_CHECK(b);
	return b;
}

static void submit(struct world *w, unsigned nr)
{
	w->nr = nr;
	for (unsigned i = 0; i < nr; i++) {
		w->data[i] = malloc(ENGINE_MAX_DATA);
		FUZZ_CHECK(w->data[i]);
		w->results[i].data = w->data[i];
		w->ops[i].code = OP_ALLOC_PAGES;
		w->b->type->submit(w->b, &w->ops[i], &w->results[i]);
	}
}

/* What is not sent as a whole piece is not sent. */
static void play(struct world *w, const uint8_t *bytes, size_t length)
{
	while (length && !is_lost(w)) {
		size_t piece = (size_t)bytes[0] * 8 + 8;

		bytes++;
		length--;
		if (piece > length)
			piece = length;
		deliver(w, bytes, piece);
		bytes += piece;
		length -= piece;
	}
	if (!is_lost(w)) {
		link_end->reason = "QEMU has ended";
		link_end->hooks.ended(link_end->hooks.user);
		collect(w);
	}
	FUZZ_CHECK(is_lost(w));
	/* It goes to people and into messages. */
	for (const char *c = w->b->type->lost_reason(w->b); *c; c++)
		FUZZ_CHECK(*c >= ' ' && *c <= '~');
	take_events(w);
}

static void end(struct world *w)
{
	w->b->type->free(w->b);
	for (unsigned i = 0; i < w->nr; i++)
		free(w->data[i]);
}

/* More than chance would ever come to: the record has room for 2^24 - 1 events of an op. */
static void one_event_too_many(void)
{
	enum { FRAME_EVENTS = 16384, FRAMES = (1 << 24) / FRAME_EVENTS };
	struct engine_event *events = calloc(FRAME_EVENTS, sizeof *events);
	struct world w = {0};

	FUZZ_CHECK(events);
	for (unsigned i = 0; i < FRAME_EVENTS; i++)
		events[i].kind = EVENT_ALLOC;
	w.b = make(&w, false);
	submit(&w, 1);
	shake_hands(&w);
	for (unsigned i = 0; i < FRAMES; i++) {
		u32 nr = i < FRAMES - 1 ? FRAME_EVENTS : FRAME_EVENTS - 1;

		deliver_frame(&w, WIRE_EVENTS, events, nr * sizeof *events, nr);
		FUZZ_CHECK(!is_lost(&w));
	}
	deliver_frame(&w, WIRE_EVENTS, events, sizeof *events, 1);
	FUZZ_CHECK(is_lost(&w) && strstr(w.b->type->lost_reason(w.b), "more than 16777215 events"));
	end(&w);
	free(events);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	static bool begun;
	struct world w = {0};
	u8 how = length ? bytes[0] : 0;

	if (!begun)
		one_event_too_many();
	begun = true;
	w.b = make(&w, how & NEW);
	take_events(&w);
	submit(&w, 1 + (how >> 2) % MOST_OPS);
	if (!(how & (NO_HANDSHAKE | NEW)))
		shake_hands(&w);
	play(&w, length ? bytes + 1 : bytes, length ? length - 1 : 0);
	end(&w);
	return 0;
}
