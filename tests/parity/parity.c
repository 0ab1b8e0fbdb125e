/*
 * parity.c - the same random stream on both back ends: the guest kernel in QEMU and the
 * simulation must give the same results, completions and events in the same order, and
 * the same digest of RAM.
 *
 *   parity [--seed N] [--ops N] [--ram MIB] [--split HEX] [--pae] [--cpus N]
 *          [--preset N] [--image FILE] [--verbose]
 *
 * Without --ram all the configurations below run. A difference in an answer is found at
 * its op; one in RAM at the next digest, and a second run of the same stream, with a
 * digest after every op, says which op made it.
 *
 * What the digest masks is engine_digest()'s to say: the accessed and dirty bits, which
 * a real MMU sets in its own time, and the host window, which is the guest's own.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "boot/layout.h"
#include "contract_tables.h"
#include "engine/stream.h"
#include "guest.h"
#include "sim.h"

enum { DIGEST_OPS = 250, MAX_COMPLETIONS = 64 };

struct options {
	u64 seed, ops;
	struct engine_config config;
	const char *image;
	bool verbose;
};

static const struct engine_config configs[] = {
    {.preset = PRESET_CLASSIC, .ram = 64u << 20},
    {.preset = PRESET_LINUX_6_1, .ram = 2048ull << 20},
    {.preset = PRESET_CLASSIC, .ram = 8192ull << 20, .flags = CONFIG_PAE},
    {.preset = PRESET_LINUX_6_1, .ram = 1024ull << 20, .flags = CONFIG_PAE | CONFIG_POISON_FREE},
    {.preset = PRESET_CLASSIC, .ram = 128u << 20, .highmem = 48u << 20, .flags = CONFIG_EARLY},
    {.preset = PRESET_CLASSIC, .ram = 3072ull << 20, .page_offset = 0xb0000000},
    {.preset = PRESET_CLASSIC, .ram = 2048ull << 20, .page_offset = 0x80000000},
    {.preset = PRESET_LINUX_6_1, .ram = 2048ull << 20, .page_offset = 0x78000000},
    {.preset = PRESET_LINUX_6_1, .ram = 3072ull << 20, .page_offset = 0x40000000},
};

struct pair {
	struct guest guest;
	struct sim *sim;
	struct engine_completion completions[MAX_COMPLETIONS];
	u32 nr_completions;
	struct engine_event *events; /* what did not fit the simulation's buffer */
	u32 nr_events, room;
	u64 executed, ok;
};

static void take_completion(void *user, const struct engine_completion *c)
{
	struct pair *p = user;

	if (p->nr_completions < MAX_COMPLETIONS)
		p->completions[p->nr_completions] = *c;
	p->nr_completions++;
}

static void take_events(void *user, const struct engine_event *events, u32 nr)
{
	struct pair *p = user;

	if (p->nr_events + nr > p->room) {
		p->room = (p->nr_events + nr) * 2;
		p->events = realloc(p->events, p->room * sizeof *p->events);
		if (!p->events)
			abort();
	}
	memcpy(p->events + p->nr_events, events, nr * sizeof *events);
	p->nr_events += nr;
}

static void drain_events(struct pair *p)
{
	u32 nr;
	const struct engine_event *events = sim_take_events(p->sim, &nr);

	take_events(p, events, nr);
}

static bool complain(const struct options *o, const struct pair *p, const char *what)
{
	const struct engine_config *c = &o->config;

	printf("FAILED at op %" PRIu64 ": %s\nagain: parity --seed %" PRIu64 " --ops %" PRIu64
	       " --ram %" PRIu64 " --split 0x%x --preset %u%s\n",
	       p->executed, what, o->seed, p->executed, c->ram >> 20, c->page_offset, c->preset,
	       c->flags & CONFIG_PAE ? " --pae" : "");
	return false;
}

static bool same_events(const struct options *o, struct pair *p)
{
	char text[200];

	drain_events(p);
	for (u32 i = 0; i < p->nr_events && i < p->guest.nr_events; i++) {
		const struct engine_event *s = &p->events[i], *g = &p->guest.events[i];

		if (memcmp(s, g, sizeof *s) == 0)
			continue;
		snprintf(text, sizeof text,
			 "event %u: guest kind %u %x %x %x %x, simulation kind %u %x %x %x %x", i,
			 g->kind, g->w[0], g->w[1], g->w[2], g->w[3], s->kind, s->w[0], s->w[1],
			 s->w[2], s->w[3]);
		return complain(o, p, text);
	}
	if (p->nr_events != p->guest.nr_events) {
		snprintf(text, sizeof text, "guest has %u events, simulation %u",
			 p->guest.nr_events, p->nr_events);
		return complain(o, p, text);
	}
	p->nr_events = 0;
	return true;
}

/* The bytes that a kernel read gave may be those of a page table, through the direct map:
 * there accessed and dirty bits (5 and 6 of an entry's first byte) are the MMU's to set in
 * its own time. QEMU's sets the accessed bit of PAE's PDPTEs too, which have none. */
static bool same_data(const struct engine_op *op, const struct engine_result *g,
		      const struct engine_result *s)
{
	bool tables = op->code == OP_ACCESS && op->args[3] == PRIVILEGE_KERNEL;

	for (u32 i = 0; i < g->data_len; i++) {
		u32 differs = (u32)g->data[i] ^ s->data[i];

		if (differs && !(tables && (op->args[0] + i) % 4 == 0 && !(differs & ~0x60u)))
			return false;
	}
	return true;
}

static bool same_result(const struct options *o, struct pair *p, const struct engine_op *op,
			const struct engine_result *g, const struct engine_result *s)
{
	char text[300];

	if (g->op == s->op && g->status == s->status && g->data_len == s->data_len &&
	    memcmp(g->values, s->values, sizeof g->values) == 0 && same_data(op, g, s))
		return true;
	snprintf(text, sizeof text,
		 "%s %" PRIx64 " %" PRIx64 " %" PRIx64 " %" PRIx64 " task %u: guest status %u"
		 " %" PRIx64 " %" PRIx64 " and %u bytes, simulation %u %" PRIx64 " %" PRIx64
		 " and %u bytes",
		 contract_ops[op->code].name, (u64)op->args[0], (u64)op->args[1], (u64)op->args[2],
		 (u64)op->args[3], op->task, g->status, (u64)g->values[0], (u64)g->values[1],
		 g->data_len, s->status, (u64)s->values[0], (u64)s->values[1], s->data_len);
	return complain(o, p, text);
}

static bool same_digest(struct pair *p)
{
	struct engine_digest g = guest_digest(&p->guest), s = sim_digest(p->sim);

	return g.lo == s.lo && g.hi == s.hi;
}

/* Names the first words that differ, masked bits and all, among the frames that the guest
 * has touched. */
static void print_differences(struct pair *p)
{
	u64 theirs[PAGE_SIZE / 8], ours[PAGE_SIZE / 8];
	u32 shown = 0;

	for (pfn_t pfn = guest_next_frame(&p->guest, 0); pfn != 0xffffffff && shown < 12;
	     pfn = guest_next_frame(&p->guest, pfn + 1)) {
		if (pfn - (HOST_WINDOW_PADDR >> PAGE_SHIFT) < HOST_WINDOW_BYTES >> PAGE_SHIFT)
			continue;
		guest_read_frame(&p->guest, pfn, theirs);
		sim_read_physical(p->sim, (paddr_t)pfn << PAGE_SHIFT, ours, PAGE_SIZE);
		for (u32 i = 0; i < PAGE_SIZE / 8 && shown < 12; i++) {
			/* What is no RAM reads as ones in the simulation. */
			if (ours[i] == theirs[i] || ours[i] == ~(u64)0)
				continue;
			printf("frame %x word %x: guest %016" PRIx64 " simulation %016" PRIx64 "\n",
			       pfn, i, (u64)theirs[i], (u64)ours[i]);
			shown++;
		}
	}
}

static bool step(const struct options *o, struct pair *p, struct stream *stream)
{
	static u8 data[ENGINE_MAX_DATA], guest_data[ENGINE_MAX_DATA], sim_data[ENGINE_MAX_DATA];
	struct engine_op op = stream_next(stream, sim_engine(p->sim), data);
	struct engine_result g = {.data = guest_data}, s = {.data = sim_data};

	p->executed++;
	p->nr_completions = 0;
	if (o->verbose)
		printf("%" PRIu64 " %s task %u: %" PRIx64 " %" PRIx64 " %" PRIx64 " %" PRIx64
		       " data %u\n",
		       p->executed, contract_ops[op.code].name, op.task, (u64)op.args[0],
		       (u64)op.args[1], (u64)op.args[2], (u64)op.args[3], op.data_len);
	if (sim_execute(p->sim, &op, &s, false) != SIM_DONE)
		return complain(o, p, sim_lost_reason(p->sim));
	if (!guest_execute(&p->guest, &op, &g))
		return complain(o, p, p->guest.error);
	if (!same_result(o, p, &op, &g, &s) || !same_events(o, p))
		return false;
	if (p->nr_completions != p->guest.nr_completions ||
	    memcmp(p->completions, p->guest.completions,
		   (p->nr_completions < MAX_COMPLETIONS ? p->nr_completions : MAX_COMPLETIONS) *
		       sizeof p->completions[0]) != 0)
		return complain(o, p, "sleepers woke otherwise");
	p->ok += s.status == STATUS_OK;
	stream_learn(stream, &op, &s);
	return true;
}

static bool start(const struct options *o, struct pair *p)
{
	struct sim_hooks hooks = {.events = take_events, .complete = take_completion, .user = p};
	struct engine_error why = {""};

	p->sim = sim_new(&o->config, &hooks, &why);
	if (!p->sim)
		return complain(o, p, why.text);
	if (!guest_start(&p->guest, o->image, &o->config, o->config.ram))
		return complain(o, p, p->guest.error);
	return same_events(o, p);
}

static void finish(struct pair *p)
{
	guest_stop(&p->guest);
	sim_free(p->sim);
	free(p->events);
}

/* A digest after every `interval` ops, from op `from` on. Returns the op after which the
 * first one differed, or 0; *ret_ok: nothing else did. */
static u64 run(const struct options *o, u64 from, u64 interval, bool *ret_ok)
{
	static struct pair pair;
	struct stream stream = {.random = {o->seed * 0x9e3779b97f4a7c15ULL | 1},
				.cpus = o->config.cpus ? o->config.cpus : 1};
	u64 differs = 0;

	memset(&pair, 0, sizeof pair);
	*ret_ok = start(o, &pair);
	while (*ret_ok && !differs && pair.executed < o->ops) {
		*ret_ok = step(o, &pair, &stream);
		if (*ret_ok && pair.executed >= from &&
		    (pair.executed % interval == 0 || pair.executed == o->ops) &&
		    !same_digest(&pair))
			differs = pair.executed;
	}
	if (differs && interval == 1)
		print_differences(&pair);
	if (*ret_ok && !differs)
		printf("%" PRIu64 " MiB%s preset %u split %#x: %" PRIu64 " ops, %" PRIu64 " OK\n",
		       o->config.ram >> 20, o->config.flags & CONFIG_PAE ? " PAE" : "",
		       o->config.preset, o->config.page_offset, pair.executed, pair.ok);
	finish(&pair);
	return differs;
}

static bool compare(const struct options *o)
{
	struct pair at = {.executed = 0};
	bool ok;
	u64 differs = run(o, 0, DIGEST_OPS, &ok);

	if (!differs)
		return ok;
	at.executed = run(o, differs > DIGEST_OPS ? differs - DIGEST_OPS : 0, 1, &ok);
	if (!at.executed)
		at.executed = differs;
	return ok && complain(o, &at, "RAM differs");
}

static bool read_options(int argc, char **argv, struct options *o)
{
	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : "0";

		if (strcmp(argv[i], "--verbose") == 0) {
			o->verbose = true;
			continue;
		}
		if (strcmp(argv[i], "--pae") == 0) {
			o->config.flags |= CONFIG_PAE;
			continue;
		}
		i++;
		if (strcmp(argv[i - 1], "--seed") == 0)
			o->seed = strtoull(value, NULL, 0);
		else if (strcmp(argv[i - 1], "--ops") == 0)
			o->ops = strtoull(value, NULL, 0);
		else if (strcmp(argv[i - 1], "--ram") == 0)
			o->config.ram = strtoull(value, NULL, 0) << 20;
		else if (strcmp(argv[i - 1], "--split") == 0)
			o->config.page_offset = (u32)strtoul(value, NULL, 0);
		else if (strcmp(argv[i - 1], "--preset") == 0)
			o->config.preset = (u32)strtoul(value, NULL, 0);
		else if (strcmp(argv[i - 1], "--cpus") == 0)
			o->config.cpus = (u32)strtoul(value, NULL, 0);
		else if (strcmp(argv[i - 1], "--image") == 0)
			o->image = value;
		else
			return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	struct options o = {.seed = 1, .ops = 2000, .image = KERNEL_IMAGE};
	bool ok = true;

	o.config.preset = PRESET_CLASSIC;
	if (!read_options(argc, argv, &o))
		return fprintf(stderr, "parity: see parity.c for the options\n"), 2;
	printf("--seed %" PRIu64 " --ops %" PRIu64 "\n", o.seed, o.ops);
	if (o.config.ram)
		return !compare(&o);
	for (u32 i = 0; i < sizeof configs / sizeof configs[0]; i++) {
		struct options one = o;

		one.config = configs[i];
		ok &= compare(&one);
		fflush(stdout);
	}
	return !ok;
}
