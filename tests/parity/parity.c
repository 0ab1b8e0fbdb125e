/*
 * parity.c - the same random stream on both back ends: the guest kernel in QEMU and the
 * simulation must give the same results, completions and events in the same order, and
 * the same digest of RAM.
 *
 *   parity [--seed N] [--ops N] [--ram MIB] [--split HEX] [--pae] [--cpus N]
 *          [--preset N] [--highmem MIB] [--early] [--poison] [--filled] [--loaded]
 *          [--image FILE] [--part N/OF] [--verbose]
 *
 * Without --ram the configurations below run (--part: every OF-th of them, from the
 * N-th), and in a run of the usual length or longer each op of the contract must have
 * succeeded at least once.
 *
 *   --filled   tasks hold the whole pkmap window first, so that kmap parks
 *   --loaded   the machine takes the allocator state of another that has lived (LoadState)
 *
 * A difference in an answer is found at its op; one in RAM at the next digest, or by an
 * answer that comes of it. A second run of the same stream, with a digest after every op, says
 * whether an op before made RAM differ, and which. So the command that a failure prints has
 * the shortest prefix of the stream that fails.
 *
 * What may differ is masked in one place: engine_digest() leaves out the host window, which
 * is the guest kernel's own, the detail level, which is no state, and of page tables the
 * accessed and dirty bits. A real MMU sets those in its own time: when it walks the tables
 * because its TLB has no entry, and when that is depends on the size of the TLB.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "boot/layout.h"
#include "boot/memblock.h"
#include "contract_tables.h"
#include "effort.h"
#include "engine/stream.h"
#include "guest.h"
#include "map/pgtable.h"
#include "sim.h"
#include "state.h"
#include "state_words.h"

enum {
	USUAL_OPS = 4000,
	DIGEST_OPS = 250,
	MAX_COMPLETIONS = 64,
	LOADED_OPS = 600,
};

/* What a machine has gone through before the stream begins. */
enum beginning { FRESH, FILLED, LOADED };

struct setup {
	struct engine_config config;
	enum beginning beginning;
};

struct options {
	u64 seed, ops;
	struct setup setup;
	const char *image;
	u32 part, parts;
	bool verbose;
};

#define MIB(n) ((u64)(n) << 20)

/* Every split, both paging modes, both presets, the three beginnings, and RAM that ends before
 * the host window begins. */
static const struct setup setups[] = {
    {{.preset = PRESET_CLASSIC, .ram = MIB(8)}, FRESH},
    {{.preset = PRESET_CLASSIC, .ram = MIB(64)}, FRESH},
    {{.preset = PRESET_LINUX_6_1, .ram = MIB(2048)}, FILLED},
    {{.preset = PRESET_CLASSIC, .ram = MIB(8192), .flags = CONFIG_PAE}, FILLED},
    {{.preset = PRESET_LINUX_6_1, .ram = MIB(1024), .flags = CONFIG_PAE | CONFIG_POISON_FREE},
     LOADED},
    {{.preset = PRESET_CLASSIC, .ram = MIB(128), .highmem = MIB(48), .flags = CONFIG_EARLY}, FRESH},
    {{.preset = PRESET_CLASSIC, .ram = MIB(3072), .page_offset = 0xb0000000}, FRESH},
    {{.preset = PRESET_LINUX_6_1, .ram = MIB(3072), .page_offset = 0xa0000000}, FRESH},
    {{.preset = PRESET_CLASSIC, .ram = MIB(2048), .page_offset = 0x80000000}, LOADED},
    {{.preset = PRESET_LINUX_6_1, .ram = MIB(2048), .page_offset = 0x78000000}, FRESH},
    {{.preset = PRESET_CLASSIC, .ram = MIB(4096), .page_offset = 0x60000000}, FRESH},
    {{.preset = PRESET_LINUX_6_1, .ram = MIB(3072), .page_offset = 0x40000000}, FRESH},
    {{.preset = PRESET_LINUX_6_1,
      .ram = MIB(4096),
      .page_offset = 0x80000000,
      .flags = CONFIG_PAE | CONFIG_EARLY},
     FRESH},
    {{.preset = PRESET_CLASSIC, .ram = MIB(16384), .page_offset = 0x40000000, .flags = CONFIG_PAE},
     FRESH},
    {{.preset = PRESET_CLASSIC, .ram = MIB(1024), .cpus = 2}, FILLED},
    {{.preset = PRESET_LINUX_6_1, .ram = MIB(4096), .cpus = 4, .flags = CONFIG_PAE}, LOADED},
};
enum { NR_SETUPS = sizeof setups / sizeof setups[0] };

/* Of all configurations that ran. */
static u64 issued[OP_CODE_END], succeeded[OP_CODE_END];

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

static u32 cpus_of(const struct options *o)
{
	return o->setup.config.cpus ? o->setup.config.cpus : 1;
}

/* What went wrong first in a run, and at which op. */
struct complaint {
	u64 op;
	char what[400];
};

static struct complaint complaint;

static bool complain(const struct pair *p, const char *what)
{
	complaint.op = p->executed;
	snprintf(complaint.what, sizeof complaint.what, "%s", what);
	return false;
}

static void tell(const struct options *o, const struct complaint *said)
{
	const struct engine_config *c = &o->setup.config;

	printf("FAILED at op %" PRIu64 ": %s\nagain: parity --seed %" PRIu64 " --ops %" PRIu64
	       " --ram %" PRIu64 " --split 0x%x --preset %u --cpus %u --highmem %" PRIu64
	       "%s%s%s%s%s\n",
	       said->op, said->what, o->seed, said->op, c->ram >> 20, c->page_offset, c->preset,
	       cpus_of(o), c->highmem >> 20, c->flags & CONFIG_PAE ? " --pae" : "",
	       c->flags & CONFIG_EARLY ? " --early" : "",
	       c->flags & CONFIG_POISON_FREE ? " --poison" : "",
	       o->setup.beginning == FILLED ? " --filled" : "",
	       o->setup.beginning == LOADED ? " --loaded" : "");
}

static bool same_events(struct pair *p)
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
		return complain(p, text);
	}
	if (p->nr_events != p->guest.nr_events) {
		snprintf(text, sizeof text, "guest has %u events, simulation %u",
			 p->guest.nr_events, p->nr_events);
		return complain(p, text);
	}
	p->nr_events = 0;
	return true;
}

static bool same_result(struct pair *p, const struct engine_op *op, const struct engine_result *g,
			const struct engine_result *s)
{
	char text[300];

	if (g->op == s->op && g->status == s->status && g->data_len == s->data_len &&
	    memcmp(g->values, s->values, sizeof g->values) == 0 &&
	    memcmp(g->data, s->data, g->data_len) == 0)
		return true;
	snprintf(text, sizeof text,
		 "%s %" PRIx64 " %" PRIx64 " %" PRIx64 " %" PRIx64 " task %u: guest status %u"
		 " %" PRIx64 " %" PRIx64 " and %u bytes, simulation %u %" PRIx64 " %" PRIx64
		 " and %u bytes",
		 contract_ops[op->code].name, (u64)op->args[0], (u64)op->args[1], (u64)op->args[2],
		 (u64)op->args[3], op->task, g->status, (u64)g->values[0], (u64)g->values[1],
		 g->data_len, s->status, (u64)s->values[0], (u64)s->values[1], s->data_len);
	return complain(p, text);
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

static void describe(const struct pair *p, const struct engine_op *op)
{
	printf("%" PRIu64 " %s cpu %u task %u: %" PRIx64 " %" PRIx64 " %" PRIx64 " %" PRIx64
	       " data %u",
	       p->executed, contract_ops[op->code].name, op->cpu, op->task, (u64)op->args[0],
	       (u64)op->args[1], (u64)op->args[2], (u64)op->args[3], op->data_len);
}

/* One op on both. */
static bool execute(const struct options *o, struct pair *p, struct stream *stream,
		    const struct engine_op *op)
{
	static u8 guest_data[ENGINE_MAX_DATA], sim_data[ENGINE_MAX_DATA];
	struct engine_result g = {.data = guest_data}, s = {.data = sim_data};

	p->executed++;
	p->nr_completions = 0;
	if (o->verbose)
		describe(p, op);
	if (sim_execute(p->sim, op, &s, false) != SIM_DONE)
		return complain(p, sim_lost_reason(p->sim));
	if (!guest_execute(&p->guest, op, &g))
		return complain(p, p->guest.error);
	if (o->verbose)
		printf(" -> status %u, %" PRIx64 " %" PRIx64 "\n", s.status, (u64)s.values[0],
		       (u64)s.values[1]);
	if (!same_result(p, op, &g, &s) || !same_events(p))
		return false;
	if (p->nr_completions != p->guest.nr_completions ||
	    memcmp(p->completions, p->guest.completions,
		   (p->nr_completions < MAX_COMPLETIONS ? p->nr_completions : MAX_COMPLETIONS) *
		       sizeof p->completions[0]) != 0)
		return complain(p, "sleepers woke otherwise");
	p->ok += s.status == STATUS_OK;
	issued[op->code]++;
	succeeded[op->code] += s.status == STATUS_OK;
	stream_learn(stream, op, &s);
	return true;
}

/* ---- a run ---- */

struct play {
	const struct options *o;
	struct pair *p;
	struct stream stream;
	u64 digest_from, digest_every; /* in ops */
	u64 differs;		       /* the op after which RAM did; 0: none */
	bool failed;		       /* anything else */
	u8 data[ENGINE_MAX_DATA];
};

static bool is_over(const struct play *t)
{
	return t->failed || t->differs || t->p->executed >= t->o->ops;
}

/* False: the run is over. */
static bool play(struct play *t, struct engine_op op)
{
	struct pair *p = t->p;

	if (is_over(t))
		return false;
	t->failed = !execute(t->o, p, &t->stream, &op);
	if (!t->failed && p->executed >= t->digest_from &&
	    (p->executed % t->digest_every == 0 || p->executed == t->o->ops) && !same_digest(p))
		t->differs = p->executed;
	return !t->failed && !t->differs;
}

/* ---- beginnings: their ops are ops of the run ---- */

/* Allocates a page and maps it for a task, for good. */
static bool hold_one(struct play *t, u32 cpu, u32 task)
{
	return play(t, (struct engine_op){.code = OP_ALLOC_PAGES, .args = {GFP_HIGHUSER}}) &&
	       play(t, (struct engine_op){.code = OP_KMAP,
					  .cpu = cpu,
					  .task = task,
					  .args = {stream_thing(&t->stream.pool[PFN], 0)->value}});
}

/* Two tasks hold the whole pkmap window; the second sleeps for more, and is woken by a
 * Withdraw. On one CPU the first task leaves it to the second. */
static bool fill_window(struct play *t)
{
	u32 slots = sim_engine(t->p->sim)->st->layout.pkmap_slots, cpu = t->stream.cpus - 1;
	bool ok = play(t, (struct engine_op){.code = OP_TASK_CREATE}) &&
		  play(t, (struct engine_op){.code = OP_TASK_CREATE}) &&
		  play(t, (struct engine_op){.code = OP_SCHEDULE, .args = {1}});

	for (u32 i = 0; ok && i < slots / 2; i++)
		ok = hold_one(t, 0, 1);
	ok = ok && play(t, (struct engine_op){.code = OP_SCHEDULE, .cpu = cpu, .args = {2}});
	for (u32 i = 0; ok && i < slots / 2 + 1; i++)
		ok = hold_one(t, cpu, 2);
	return ok && play(t, (struct engine_op){.code = OP_WITHDRAW, .args = {t->p->executed}});
}

static bool load_words(void *user, const uint8_t *data, uint32_t bytes, bool last)
{
	return play(user,
		    (struct engine_op){
			.code = OP_LOAD_STATE, .args = {last}, .data = data, .data_len = bytes});
}

/* A machine of the same configuration that has lived for a while. */
static struct sim *elder(const struct options *o, u8 *data)
{
	static u8 result[ENGINE_MAX_DATA];
	struct stream stream = {.random = {o->seed | 1}, .cpus = cpus_of(o)};
	struct engine_error why;
	struct sim *sim = sim_new(&o->setup.config, &(struct sim_hooks){0}, &why);

	for (u32 i = 0; sim && i < LOADED_OPS; i++) {
		struct engine_op op = stream_next(&stream, sim_engine(sim), data);
		struct engine_result res = {.data = result};
		u32 nr;

		if (op.code == OP_LOAD_STATE)
			continue;
		sim_execute(sim, &op, &res, false);
		sim_take_events(sim, &nr);
		stream_learn(&stream, &op, &res);
	}
	return sim;
}

struct text_sink {
	struct inspect_sink sink; /* first */
	char *text;
	size_t length;
};

static void keep_text(struct inspect_sink *sink, const char *bytes, u32 length)
{
	struct text_sink *t = (struct text_sink *)sink;

	t->text = realloc(t->text, t->length + length + 1);
	if (!t->text)
		abort();
	memcpy(t->text + t->length, bytes, length);
	t->length += length;
	t->text[t->length] = 0;
}

static bool load_state(struct play *t)
{
	struct state_words *words = calloc(1, sizeof *words);
	struct text_sink sink = {.sink = {.text = keep_text, .want_text = true}};
	struct sim *sim = elder(t->o, t->data);
	bool ok;

	if (!words || !sim)
		abort();
	words->send = load_words;
	words->user = t;
	engine_inspect(sim_engine(sim), INSPECT_STATE, (u64[OP_ARGS]){0}, &sink.sink);
	sim_free(sim);
	for (char *line = strtok(sink.text, "\n"); line; line = strtok(NULL, "\n")) {
		json_t *object = json_loads(line, 0, NULL);

		state_words_add(words, object);
		json_decref(object);
	}
	ok = state_words_finish(words);
	free(sink.text);
	free(words);
	return ok;
}

static bool start(const struct options *o, struct pair *p)
{
	struct sim_hooks hooks = {.events = take_events, .complete = take_completion, .user = p};
	struct engine_error why = {""};

	p->sim = sim_new(&o->setup.config, &hooks, &why);
	if (!p->sim)
		return complain(p, why.text);
	if (!guest_start(&p->guest, o->image, &o->setup.config, o->setup.config.ram))
		return complain(p, p->guest.error);
	return same_events(p);
}

static void finish(struct pair *p)
{
	guest_stop(&p->guest);
	sim_free(p->sim);
	free(p->events);
}

/* A digest after every `every` ops, from op `from` on. Returns the op after which the
 * first one differed, or 0; *ret_ok: nothing else did. */
static u64 run(const struct options *o, u64 from, u64 every, bool *ret_ok)
{
	static struct pair pair;
	static struct play t;
	const struct engine_config *c = &o->setup.config;

	memset(&pair, 0, sizeof pair);
	t = (struct play){
	    .o = o,
	    .p = &pair,
	    .stream = {.random = {o->seed * 0x9e3779b97f4a7c15ULL | 1}, .cpus = cpus_of(o)},
	    .digest_from = from,
	    .digest_every = every};
	t.failed = !start(o, &pair);
	if (!t.failed && o->setup.beginning == FILLED)
		fill_window(&t);
	if (!t.failed && o->setup.beginning == LOADED)
		load_state(&t);
	while (!is_over(&t))
		play(&t, stream_next(&t.stream, sim_engine(pair.sim), t.data));
	*ret_ok = !t.failed;
	if (t.differs && every == 1)
		print_differences(&pair);
	if (!t.failed && !t.differs)
		printf("%" PRIu64 " MiB%s preset %u split %#x, %u CPUs: %" PRIu64 " ops, %" PRIu64
		       " OK\n",
		       c->ram >> 20, c->flags & CONFIG_PAE ? " PAE" : "", c->preset, c->page_offset,
		       cpus_of(o), pair.executed, pair.ok);
	finish(&pair);
	return t.differs;
}

static bool compare(const struct options *o)
{
	struct complaint first;
	bool ok;
	u64 at = run(o, 0, DIGEST_OPS, &ok);

	if (ok && !at)
		return true;
	first = at ? (struct complaint){at, "RAM differs"} : complaint;
	/* Either may come of RAM that has differed since the last digest that did not. */
	if (first.op)
		at = run(o, (first.op - 1) / DIGEST_OPS * DIGEST_OPS, 1, &ok);
	if (at)
		first = (struct complaint){at, "RAM differs"};
	tell(o, &first);
	return false;
}

/* How often each op of the contract came and was OK. False when one never was, in a run
 * that is long enough for all. */
static bool print_ops(bool is_long)
{
	bool all = true;
	u32 column = 0;

	printf("ops issued and OK, all configurations:\n");
	for (u32 code = 1; code < OP_CODE_END; code++) {
		if (!contract_ops[code].code)
			continue;
		printf("  %-16s %6" PRIu64 " %6" PRIu64 "%s", contract_ops[code].name, issued[code],
		       succeeded[code], ++column % 3 ? "" : "\n");
		all = all && succeeded[code];
	}
	printf("%s", column % 3 ? "\n" : "");
	for (u32 code = 1; code < OP_CODE_END && is_long; code++)
		if (contract_ops[code].code && !succeeded[code])
			printf("FAILED: no %s ever succeeded\n", contract_ops[code].name);
	return all || !is_long;
}

static bool read_part(struct options *o, const char *text)
{
	return sscanf(text, "%u/%u", &o->part, &o->parts) == 2 && o->part < o->parts;
}

/* What takes no value. */
static bool read_switch(struct options *o, const char *word)
{
	static const struct {
		const char *word;
		u32 flag;
	} flags[] = {
	    {"--pae", CONFIG_PAE}, {"--early", CONFIG_EARLY}, {"--poison", CONFIG_POISON_FREE}};

	for (u32 i = 0; i < sizeof flags / sizeof flags[0]; i++) {
		if (strcmp(word, flags[i].word) == 0) {
			o->setup.config.flags |= flags[i].flag;
			return true;
		}
	}
	if (strcmp(word, "--filled") == 0)
		o->setup.beginning = FILLED;
	else if (strcmp(word, "--loaded") == 0)
		o->setup.beginning = LOADED;
	else if (strcmp(word, "--verbose") == 0)
		o->verbose = true;
	else
		return false;
	return true;
}

static bool read_value(struct options *o, const char *word, const char *value)
{
	struct engine_config *c = &o->setup.config;

	if (strcmp(word, "--image") == 0)
		o->image = value;
	else if (strcmp(word, "--part") == 0)
		return read_part(o, value);
	else if (strcmp(word, "--seed") == 0)
		o->seed = strtoull(value, NULL, 0);
	else if (strcmp(word, "--ops") == 0)
		o->ops = strtoull(value, NULL, 0);
	else if (strcmp(word, "--ram") == 0)
		c->ram = MIB(strtoull(value, NULL, 0));
	else if (strcmp(word, "--highmem") == 0)
		c->highmem = MIB(strtoull(value, NULL, 0));
	else if (strcmp(word, "--split") == 0)
		c->page_offset = (u32)strtoul(value, NULL, 0);
	else if (strcmp(word, "--preset") == 0)
		c->preset = (u32)strtoul(value, NULL, 0);
	else if (strcmp(word, "--cpus") == 0)
		c->cpus = (u32)strtoul(value, NULL, 0);
	else
		return false;
	return true;
}

static bool read_options(int argc, char **argv, struct options *o)
{
	for (int i = 1; i < argc; i++) {
		if (read_switch(o, argv[i]))
			continue;
		if (i + 1 == argc || !read_value(o, argv[i], argv[i + 1]))
			return false;
		i++;
	}
	return true;
}

int main(int argc, char **argv)
{
	struct options o = {.seed = 1, .ops = effort(USUAL_OPS), .image = KERNEL_IMAGE, .parts = 1};
	bool ok = true;

	o.setup.config.preset = PRESET_CLASSIC;
	if (!read_options(argc, argv, &o))
		return fprintf(stderr, "parity: see parity.c for the options\n"), 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("--seed %" PRIu64 " --ops %" PRIu64 "\n", o.seed, o.ops);
	if (o.setup.config.ram)
		return !compare(&o);
	for (u32 i = o.part; i < NR_SETUPS; i += o.parts) {
		struct options one = o;

		one.setup = setups[i];
		ok &= compare(&one);
	}
	return !(print_ops(o.ops >= USUAL_OPS && o.parts == 1) && ok);
}
