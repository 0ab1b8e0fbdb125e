/*
 * test_random.c - random streams over all ops, with the audit after every one, and each
 * stream a second time under other circumstances: in slices, with a small event buffer,
 * moved into a copy at every snapshot. Results, events and digest must be the same.
 *
 *   test_random [--seed N] [--ops N] [--machine N] [--unchecked] [--verbose]
 *
 * No cmocka: the same program is built for i386, and its output compared.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "contract_tables.h"
#include "effort.h"
#include "engine/stream.h"
#include "event.h"
#include "frames/page_alloc.h"
#include "map/pgtable.h"
#include "sim.h"

/* ---- machines ---- */

#define MIB(n) ((u64)(n) << 20)

/* Small, so that the audit is quick, and so that memory, windows and zones run out. */
static const struct {
	struct engine_config config;
	bool fill_window;
} machines[] = {
    {{.preset = PRESET_CLASSIC, .ram = MIB(24), .cpus = 1}, false},
    {{.preset = PRESET_LINUX_6_1,
      .flags = CONFIG_PAE,
      .ram = MIB(160),
      .cpus = 2,
      .vmalloc_bytes = 900u << 20},
     true},
    {{.preset = PRESET_CLASSIC,
      .ram = MIB(128),
      .highmem = MIB(48),
      .cpus = 3,
      .user_fallback = USER_FALLBACK_NO_DMA},
     false},
    {{.preset = PRESET_LINUX_6_1,
      .ram = MIB(192),
      .highmem = MIB(96),
      .cpus = 2,
      .flags = CONFIG_POISON_FREE,
      .kernelcore = MIB(120)},
     false},
    {{.preset = PRESET_ARM32,
      .ram = MIB(96),
      .highmem = MIB(32),
      .cpus = 2,
      .user_fallback = USER_FALLBACK_HIGHMEM_ONLY},
     true},
    {{.preset = PRESET_PPC32, .flags = CONFIG_PAE, .ram = MIB(80), .cpus = 2}, false},
    {{.preset = PRESET_CLASSIC, .flags = CONFIG_EARLY, .ram = MIB(64), .cpus = 2}, false},
    /* Holes in lowmem and in HIGHMEM, and RAM that starts behind the first MiB. */
    {{.preset = PRESET_CLASSIC,
      .flags = CONFIG_PAE | CONFIG_EARLY,
      .cpus = 2,
      .highmem = MIB(40),
      .nr_e820 = 4,
      .e820 = {{MIB(1), MIB(30), 1, 0},
	       {MIB(40), MIB(64) + 512, 1, 0},
	       {MIB(105), MIB(3), 2, 0},
	       {MIB(110), MIB(33), 1, 0}},
      .nr_reserved = 2,
      .reserved = {{MIB(44) + 100, 5000}, {MIB(120), MIB(2)}}},
     false},
};
enum { NR_MACHINES = sizeof machines / sizeof machines[0] };

/* ---- a run ---- */

struct run {
	struct sim *sim;
	u64 events_hash, nr_events, results_hash;
	u64 by_status[STATUS_LOST + 1];
	u64 done[OP_CODE_END]; /* ops that were OK */
};

static u64 mix(u64 hash, u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ hash >> 29;
}

static void hash_events(void *user, const struct engine_event *events, u32 nr)
{
	struct run *run = user;

	for (u32 i = 0; i < nr; i++) {
		run->events_hash = mix(run->events_hash, events[i].kind);
		for (u32 k = 0; k < EVENT_WORDS; k++)
			run->events_hash = mix(run->events_hash, events[i].w[k]);
	}
	run->nr_events += nr;
}

static void hash_completion(void *user, const struct engine_completion *c)
{
	struct run *run = user;

	run->results_hash = mix(run->results_hash, c->op);
	run->results_hash = mix(run->results_hash, c->status);
	for (u32 i = 0; i < OP_VALUES; i++)
		run->results_hash = mix(run->results_hash, c->values[i]);
}

static void hash_result(struct run *run, const struct engine_result *res)
{
	run->results_hash = mix(run->results_hash, res->status);
	for (u32 i = 0; i < OP_VALUES; i++)
		run->results_hash = mix(run->results_hash, res->values[i]);
	run->results_hash = mix(run->results_hash, res->data_len);
	for (u32 i = 0; i < res->data_len; i++)
		run->results_hash = mix(run->results_hash, res->data[i]);
}

struct options {
	u64 seed, ops;
	s64 machine; /* -1: all */
	bool unchecked, verbose;
};

static void describe(const struct engine_op *op, const struct engine_result *res)
{
	printf("op %" PRIu64 " %s cpu %u task %u:", res->op, contract_ops[op->code].name, op->cpu,
	       op->task);
	for (u32 i = 0; i < contract_ops[op->code].args.nr_ints; i++)
		printf(" %s 0x%" PRIx64, contract_ops[op->code].args.ints[i].name, op->args[i]);
	printf(" data %u -> status %u, 0x%" PRIx64 " 0x%" PRIx64 "\n", op->data_len, res->status,
	       res->values[0], res->values[1]);
}

static void take_events(struct run *run)
{
	u32 nr;
	const struct engine_event *events = sim_take_events(run->sim, &nr);

	hash_events(run, events, nr);
}

static bool complain(const struct options *o, u32 machine, const char *what)
{
	printf("FAILED: %s\nagain: test_random --seed %" PRIu64 " --ops %" PRIu64
	       " --machine %u --verbose\n",
	       what, o->seed, o->ops, machine);
	return false;
}

struct turn {
	const struct options *options;
	u32 machine;
	bool second;
	struct sim_hooks hooks;
	struct stream stream;
};

/* Is this status one that the contract says the op may answer? */
static bool is_documented(u32 code, u32 status)
{
	/* Of any op, before its own function is called; see OpInfo.answer. */
	if (status == STATUS_OK || status == STATUS_INVALID || status == STATUS_NOT_FOUND ||
	    status == STATUS_NOT_OWNER || status == STATUS_BUSY)
		return true;
	for (unsigned i = 0; i < contract_ops[code].nr_answers; i++)
		if (contract_ops[code].answers[i].status == status)
			return true;
	return false;
}

/* The first run is audited after every op. The second is in slices, and goes over to a
 * copy of the machine whenever a snapshot or fork was made. */
static bool execute(struct turn *t, struct run *run, const struct engine_op *op)
{
	static u8 out[ENGINE_MAX_DATA];
	const struct options *o = t->options;
	struct engine_result res = {.data = out};
	enum sim_status status = sim_execute(run->sim, op, &res, t->second);
	struct engine_error why;
	const char *lie = NULL;

	while (status == SIM_MORE)
		status = sim_continue(run->sim);
	take_events(run);
	if (status == SIM_LOST)
		lie = sim_lost_reason(run->sim);
	else if (!t->second && !o->unchecked)
		lie = sim_check(run->sim, &why);
	if (!lie && sim_stale_hits(run->sim))
		lie = "a stale TLB entry served an access";
	if (!lie && !is_documented(op->code, res.status))
		lie = "a status that the contract does not name for this op";
	if (lie || (o->verbose && !t->second))
		describe(op, &res);
	if (lie)
		return complain(o, t->machine, lie);
	hash_result(run, &res);
	stream_learn(&t->stream, op, &res);
	run->by_status[res.status]++;
	run->done[op->code] += res.status == STATUS_OK;
	if (t->second && res.status == STATUS_OK &&
	    (op->code == OP_SNAPSHOT || op->code == OP_FORK)) {
		struct sim *copy = sim_copy(run->sim, &t->hooks);

		sim_free(run->sim);
		run->sim = copy;
		if (!copy)
			return complain(o, t->machine, "no memory for a copy");
	}
	return true;
}

/* Two tasks hold all but a few slots of the pkmap window, so that the stream parks. */
static bool fill_window(struct turn *t, struct run *run)
{
	u32 slots = sim_engine(run->sim)->st->layout.pkmap_slots;
	bool ok = true;

	for (u32 cpu = 0; cpu < 2; cpu++) {
		struct engine_op create = {.code = OP_TASK_CREATE};
		struct engine_op next = {.code = OP_SCHEDULE, .cpu = cpu, .args = {cpu + 1}};

		ok = ok && execute(t, run, &create) && execute(t, run, &next);
	}
	for (u32 i = 0; ok && i < slots - 8; i++) {
		struct engine_op alloc = {.code = OP_ALLOC_PAGES, .args = {GFP_HIGHUSER}};
		struct engine_op kmap = {.code = OP_KMAP, .cpu = i % 2, .task = i % 2 + 1};

		ok = execute(t, run, &alloc);
		kmap.args[0] = stream_thing(&t->stream.pool[PFN], 0)->value;
		ok = ok && execute(t, run, &kmap);
	}
	return ok;
}

static bool run_stream(const struct options *o, u32 machine, bool second, struct run *run)
{
	static u8 data[ENGINE_MAX_DATA];
	struct turn t = {o,
			 machine,
			 second,
			 {hash_events, hash_completion, run, second ? 7 : 0},
			 {.random = {(o->seed + machine) * 0x9e3779b97f4a7c15ULL | 1},
			  .cpus = machines[machine].config.cpus}};
	struct engine_error why = {""};

	run->sim = sim_new(&machines[machine].config, &t.hooks, &why);
	if (!run->sim)
		return complain(o, machine, why.text);
	take_events(run);
	if (machines[machine].fill_window && !fill_window(&t, run))
		return false;
	for (u64 i = 0; i < o->ops; i++) {
		struct engine_op op = stream_next(&t.stream, sim_engine(run->sim), data);

		if (!execute(&t, run, &op))
			return false;
	}
	return true;
}

static bool same_digest(struct sim *a, struct sim *b, char text[40])
{
	struct engine_digest x = sim_digest(a), y = sim_digest(b);

	snprintf(text, 40, "%016" PRIx64 "%016" PRIx64, x.hi, x.lo);
	return x.lo == y.lo && x.hi == y.hi;
}

static bool run_machine(const struct options *o, u32 machine)
{
	static struct run first, second;
	char digest[40];
	bool ok;

	first = second = (struct run){0};
	ok = run_stream(o, machine, false, &first) && run_stream(o, machine, true, &second);
	if (ok && first.results_hash != second.results_hash)
		ok = complain(o, machine, "the second run answers differently");
	if (ok && (first.nr_events != second.nr_events || first.events_hash != second.events_hash))
		ok = complain(o, machine, "the second run has other events");
	if (ok && !same_digest(first.sim, second.sim, digest))
		ok = complain(o, machine, "the second run has another digest");
	if (ok) {
		u32 kinds = 0, codes = 0;

		for (u32 code = 1; code < OP_CODE_END; code++) {
			codes += contract_ops[code].code != 0;
			kinds += first.done[code] != 0;
		}
		printf("machine %u: %" PRIu64 " ops, %" PRIu64 " OK, %u of %u kinds, %" PRIu64
		       " events %016" PRIx64 ", digest %s\n",
		       machine, o->ops, first.by_status[STATUS_OK], kinds, codes, first.nr_events,
		       first.events_hash, digest);
	}
	if (o->verbose)
		for (u32 code = 1; code < OP_CODE_END; code++)
			if (contract_ops[code].code)
				printf("  %-16s OK %" PRIu64 "\n", contract_ops[code].name,
				       first.done[code]);
	sim_free(first.sim);
	sim_free(second.sim);
	return ok;
}

int main(int argc, char **argv)
{
	struct options o = {.seed = 1, .ops = effort(1200), .machine = -1};
	bool ok = true;

	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : "0";

		if (strcmp(argv[i], "--seed") == 0)
			o.seed = strtoull(value, NULL, 0), i++;
		else if (strcmp(argv[i], "--ops") == 0)
			o.ops = strtoull(value, NULL, 0), i++;
		else if (strcmp(argv[i], "--machine") == 0)
			o.machine = strtoll(value, NULL, 0), i++;
		else if (strcmp(argv[i], "--unchecked") == 0)
			o.unchecked = true;
		else if (strcmp(argv[i], "--verbose") == 0)
			o.verbose = true;
		else
			return fprintf(stderr, "test_random: %s?\n", argv[i]), 2;
	}
	printf("--seed %" PRIu64 " --ops %" PRIu64 "\n", o.seed, o.ops);
	for (u32 machine = 0; machine < NR_MACHINES; machine++)
		if (o.machine < 0 || o.machine == machine)
			ok &= run_machine(&o, machine);
	return !ok;
}
