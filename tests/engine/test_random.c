/*
 * test_random.c - random streams over all ops, with the audit after every one, and each
 * stream a second time under other circumstances: in slices, with a small event buffer,
 * moved into a copy at every snapshot. Results, events and digest must be the same.
 *
 *   test_random [--seed N] [--ops N] [--machine N] [--unchecked] [--verbose]
 *
 * Ops, ranges and units come from the contract's tables, so a new op is in the streams
 * as soon as it is in the .proto. What makes a stream interesting: arguments are mostly
 * things that earlier results named, of the argument's own kind.
 *
 * No cmocka: the same program is built for i386, and its output compared.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "contract_tables.h"
#include "engine/random.h"
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

/* ---- what earlier results named ---- */

enum kind { PFN, VA, TASK, FILE_NUMBER, HANDLE, PARKED, NR_KINDS };

struct thing {
	u64 value;
	u32 order;   /* of a PFN: allocated with */
	u32 made_by; /* op code; 0: it was undone */
};

enum { POOL_SIZE = 256 };
struct pool {
	struct thing thing[POOL_SIZE];
	u32 nr; /* ever put in */
};

struct stream {
	struct random random;
	struct pool pool[NR_KINDS];
	u32 cpus;
	u32 phase; /* which ops are frequent now */
	u32 left_in_phase;
	u32 last_order;
	bool early; /* before Boot: ranges are small, or it would never succeed */
};

/* What an op takes mostly: things that a certain op made; and whether it undoes them. */
static const struct {
	u32 code, made_by;
	bool undoes;
} partners[] = {
    {OP_FREE_PAGES, OP_ALLOC_PAGES, true},
    {OP_KMAP, OP_ALLOC_PAGES, false},
    {OP_KMAP_LOCAL, OP_ALLOC_PAGES, false},
    {OP_KMAP_ATOMIC, OP_ALLOC_PAGES, false},
    {OP_VMAP, OP_ALLOC_PAGES, false},
    {OP_DMA_MAP, OP_ALLOC_PAGES, false},
    {OP_KUNMAP, OP_KMAP, true},
    {OP_KUNMAP_LOCAL, OP_KMAP_LOCAL, true},
    {OP_KUNMAP_ATOMIC, OP_KMAP_ATOMIC, true},
    {OP_VFREE, OP_VMALLOC, true},
    {OP_VUNMAP, OP_VMAP, true},
    {OP_IOUNMAP, OP_IOREMAP, true},
    {OP_MUNMAP, OP_MMAP, false},
    {OP_MPROTECT, OP_MMAP, false},
    {OP_ACCESS, OP_MMAP, false},
    {OP_FAULT, OP_MMAP, false},
    {OP_PIN_USER_PAGE, OP_MMAP, false},
    {OP_BRK, OP_BRK, false},
    {OP_UNPIN_USER_PAGE, OP_PIN_USER_PAGE, true},
    {OP_WITHDRAW, OP_KMAP, true},
};

static u32 partner_of(u32 code)
{
	for (u32 i = 0; i < sizeof partners / sizeof partners[0]; i++)
		if (partners[i].code == code)
			return i;
	return sizeof partners / sizeof partners[0];
}

static bool partner_undoes(u32 code)
{
	u32 i = partner_of(code);

	return i < sizeof partners / sizeof partners[0] && partners[i].undoes;
}

static void pool_put(struct pool *p, u64 value, u32 order, u32 made_by)
{
	p->thing[p->nr++ % POOL_SIZE] = (struct thing){value, order, made_by};
}

static u32 pool_held(const struct pool *p)
{
	return p->nr < POOL_SIZE ? p->nr : POOL_SIZE;
}

/* Number `back` from the latest. */
static struct thing *pool_at(struct pool *p, u32 back)
{
	return &p->thing[(p->nr - 1 - back) % POOL_SIZE];
}

/* The latest thing, or now and then an older one, that the op made. NULL: none. */
static const struct thing *pool_find(struct stream *s, enum kind kind, u32 made_by)
{
	u32 skip = random_below(&s->random, 3) ? 0 : (u32)random_below(&s->random, 20);
	const struct thing *found = NULL;

	for (u32 back = 0; back < pool_held(&s->pool[kind]); back++) {
		const struct thing *t = pool_at(&s->pool[kind], back);

		if (t->made_by != made_by)
			continue;
		found = t;
		if (skip-- == 0)
			break;
	}
	return found;
}

/* For an argument of this op: mostly of the right origin, then recent, then any. */
static const struct thing *pool_get(struct stream *s, enum kind kind, u32 code)
{
	struct pool *p = &s->pool[kind];
	u32 partner = partner_of(code);
	u32 reach = random_below(&s->random, 4) ? 12 : POOL_SIZE;

	if (partner < sizeof partners / sizeof partners[0] && random_below(&s->random, 6)) {
		const struct thing *t = pool_find(s, kind, partners[partner].made_by);

		if (t)
			return t;
	}
	if (pool_held(p) == 0)
		return NULL;
	return pool_at(p,
		       (u32)random_below(&s->random, reach < pool_held(p) ? reach : pool_held(p)));
}

/* The op has undone it: it stays in the pool as something that no longer is. */
static void pool_undo(struct pool *p, u64 value, u32 made_by)
{
	for (u32 back = 0; back < pool_held(p); back++) {
		struct thing *t = pool_at(p, back);

		if (t->made_by == made_by && t->value == value) {
			t->made_by = 0;
			return;
		}
	}
}

/* Which pool an argument or a result belongs to. NR_KINDS: none. */
static enum kind kind_of(const struct contract_field *f)
{
	static const struct {
		const char *name;
		enum kind kind;
	} by_name[] = {{"task", TASK},	      {"parent", TASK},	  {"target", TASK}, {"next", TASK},
		       {"file", FILE_NUMBER}, {"handle", HANDLE}, {"op", PARKED}};

	if (strcmp(f->unit, "pfn") == 0)
		return PFN;
	if (strcmp(f->unit, "va") == 0)
		return VA;
	for (u32 i = 0; i < sizeof by_name / sizeof by_name[0]; i++)
		if (strcmp(f->name, by_name[i].name) == 0)
			return by_name[i].kind;
	return NR_KINDS;
}

/* ---- an op ---- */

/* Small numbers are as likely as large ones. */
static u64 random_size(struct random *r, u64 min, u64 max)
{
	u64 span = max - min, bits = 0, n;

	while (bits < 63 && span >> bits)
		bits++;
	/* One call a statement: which of two in an expression comes first is not defined. */
	bits = random_below(r, bits + 1);
	n = random_next(r) & ((1ULL << bits) - 1);
	return min + (n > span ? span : n);
}

static u64 random_flags(struct random *r, const struct contract_field *f)
{
	u64 value = 0;

	for (u32 i = 0; i < 2 && f->enums[i]; i++) {
		u32 picks = i == 0 ? 1 : (u32)random_below(r, 3);

		for (; picks > 0; picks--)
			value |=
			    f->enums[i]->values[random_below(r, f->enums[i]->nr_values)].number;
	}
	/* PROT and MAP flags are single bits: more than one is usual. */
	if (!f->enums[1])
		value |= f->enums[0]->values[random_below(r, f->enums[0]->nr_values)].number;
	return value < f->min ? f->min : value > f->max ? f->max : value;
}

static u64 random_arg(struct stream *s, u32 code, const struct contract_field *f)
{
	struct random *r = &s->random;
	enum kind kind = kind_of(f);
	const struct thing *t;
	u64 value;

	if (f->is_flags)
		return random_flags(r, f);
	if (f->kind == FIELD_ENUM)
		return f->enums[0]->values[random_below(r, f->enums[0]->nr_values)].number;
	if (f->kind == FIELD_BOOL)
		return random_below(r, 2);
	if (strcmp(f->name, "order") == 0 && random_below(r, 8))
		return s->last_order;
	/* Where the heap begins is what an op has to tell first. */
	if (code == OP_BRK && random_below(r, 3) == 0)
		return 0;
	if (kind == NR_KINDS || !(t = pool_get(s, kind, code)) || random_below(r, 16) == 0) {
		u64 max = f->max;

		if (s->early && strcmp(f->unit, "bytes") == 0 && max > MIB(1))
			max = MIB(1);
		value = random_size(r, f->min, max);
		if (strcmp(f->unit, "paddr") == 0 && random_below(r, 8))
			value = random_below(r, MIB(160));
		/* Mostly page-aligned where pages are what it is about. */
		return random_below(r, 2) && value >= PAGE_SIZE && f->max >= PAGE_SIZE
			   ? value & ~(u64)(PAGE_SIZE - 1)
			   : value;
	}
	value = t->value;
	if (kind == PFN)
		s->last_order = t->order;
	/* Beside it, now and then; in it, for an address that is not to be undone. */
	if (kind == VA && random_below(r, partner_undoes(code) ? 40 : 3) == 0)
		value += random_below(r, 1u << random_below(r, 18));
	else if (random_below(r, 32) == 0)
		value += random_below(r, 3) - 1;
	return value < f->min ? f->min : value > f->max ? f->max : value;
}

static u32 random_data(struct stream *s, u32 code, const struct contract_field *f, u8 *data)
{
	struct random *r = &s->random;
	u32 most = f->max_length, nr;

	if (f->kind == FIELD_U32_LIST) {
		nr = (u32)random_below(r, most < 24 ? most + 1 : 24);
		for (u32 i = 0; i < nr; i++) {
			u32 word = (u32)random_arg(s, code, f);

			memcpy(data + i * 4, &word, 4);
		}
		return nr * 4;
	}
	/* Mostly short, sometimes pages long. */
	nr = (u32)random_size(r, 0, most);
	for (u32 i = 0; i < nr; i++)
		data[i] = (u8)random_next(r);
	return nr;
}

/* How often an op comes, by phase. Exits and frees are as frequent as what they undo; a
 * phase of growth makes windows and zones run full. */
static u32 weight_of(const struct contract_op *op, u32 phase)
{
	static const char *const growing[] = {"alloc",	 "kmap",  "kmap-local", "kmap-atomic",
					      "vmalloc", "vmap",  "mmap",	"access",
					      "access",	 "fault", "ioremap",	"file-write"};
	static const char *const kmapping[] = {"kmap", "kmap", "kmap", "alloc", "alloc"};
	static const char *const user[] = {"access",	    "fault",  "mmap",
					   "mprotect",	    "brk",    "task-fork",
					   "pin-user-page", "munmap", "schedule"};
	static const struct {
		const char *const *words;
		u32 nr;
	} phases[] = {{NULL, 0}, {growing, 12}, {kmapping, 5}, {user, 9}};
	u32 weight = 4;

	/* A fresh machine's only; a random state is refused, once is enough. */
	if (op->code == OP_LOAD_STATE || op->code == OP_SNAPSHOT || op->code == OP_FORK)
		return 1;
	if (op->code == OP_TASK_EXIT)
		weight = 2;
	if (op->code == OP_KUNMAP_LOCAL || op->code == OP_KUNMAP_ATOMIC || op->code == OP_SCHEDULE)
		weight = 12;
	for (u32 i = 0; i < phases[phase].nr; i++)
		if (strcmp(op->word, phases[phase].words[i]) == 0)
			weight += 20;
	return weight;
}

static u32 random_code(struct stream *s)
{
	u32 total = 0, pick;

	if (s->left_in_phase-- == 0) {
		s->phase = (u32)random_below(&s->random, 4);
		s->left_in_phase = 50 + (u32)random_below(&s->random, 400);
	}
	/* Before Boot memblock's ops, and then rarely. */
	for (u32 pass = 0; pass < 2; pass++) {
		pick = pass ? (u32)random_below(&s->random, total) : 0;
		for (u32 code = 1; code < OP_CODE_END; code++) {
			u32 weight;

			if (!contract_ops[code].code)
				continue;
			weight = weight_of(&contract_ops[code], s->phase);
			if (s->early != (code <= OP_BOOT))
				weight = code == OP_BOOT || weight == 1 ? 0 : weight / 4;
			if (!pass)
				total += weight;
			else if (pick < weight)
				return code;
			else
				pick -= weight;
		}
	}
	return OP_FLUSH_TLB;
}

/* Whoever is current on the CPU, mostly. */
static u32 random_task(struct stream *s, const struct engine *e, u32 cpu)
{
	const struct thing *t = pool_get(s, TASK, 0);
	u64 dice = random_below(&s->random, 20);

	if (dice == 0 && t)
		return (u32)t->value;
	return dice < 5 || s->early ? 0 : e->st->user.cpu[cpu].current;
}

/* kmap_local and kmap_atomic come off in order: mostly, the right op with the right
 * address; held for ever they would forbid every switch of tasks. */
static void take_off_the_top(struct stream *s, struct engine *e, struct engine_op *op)
{
	const struct kmap_stack *stack;

	if ((op->code != OP_KUNMAP_LOCAL && op->code != OP_KUNMAP_ATOMIC) || s->early ||
	    op->cpu >= s->cpus || random_below(&s->random, 6) == 0 ||
	    (op->task && !task_find(e, op->task)))
		return;
	stack = task_kmap_stack(e, op->cpu, op->task);
	if (!stack->depth)
		return;
	op->args[0] = stack->entry[stack->depth - 1].va;
	op->code = stack->entry[stack->depth - 1].atomic ? OP_KUNMAP_ATOMIC : OP_KUNMAP_LOCAL;
}

/* Of all words of flags few are a mapping: mostly, one that could be. */
static void make_mappable(struct stream *s, struct engine_op *op)
{
	struct random *r = &s->random;
	const struct thing *file = pool_get(s, FILE_NUMBER, 0);

	if (op->code != OP_MMAP || random_below(r, 5) == 0)
		return;
	op->args[0] = random_below(r, 3) ? 0 : op->args[0] & ~(u64)(PAGE_SIZE - 1);
	op->args[1] = 1 + random_below(r, 1u << (10 + random_below(r, 12)));
	op->args[2] &= 7;
	op->args[3] = random_below(r, 3) ? UMAP_PRIVATE : UMAP_SHARED;
	op->args[3] |= random_below(r, 8) ? 0 : UMAP_FIXED;
	op->args[4] = file && random_below(r, 3) == 0 ? file->value : 0;
	op->args[5] = op->args[4] ? random_below(r, 4) << PAGE_SHIFT : 0;
	if (!op->args[4])
		op->args[3] |= UMAP_ANONYMOUS;
}

static struct engine_op random_op(struct stream *s, struct engine *e, u8 *data)
{
	struct engine_op op = {.data = data};
	const struct contract_op *c;

	s->early = e->st->phase == PHASE_EARLY;
	op.code = random_code(s);
	c = &contract_ops[op.code];
	op.cpu =
	    (u32)random_below(&s->random, 40) ? (u32)random_below(&s->random, s->cpus) : s->cpus;
	op.task = random_task(s, e, op.cpu < s->cpus ? op.cpu : 0);
	op.owner = (u32)random_below(&s->random, 5);
	s->last_order = random_below(&s->random, 2) ? 0 : (u32)random_below(&s->random, 11);
	for (u32 i = 0; i < c->args.nr_ints; i++)
		op.args[i] = random_arg(s, op.code, &c->args.ints[i]);
	if (c->args.data)
		op.data_len = random_data(s, op.code, c->args.data, data);
	take_off_the_top(s, e, &op);
	make_mappable(s, &op);
	return op;
}

/* Results feed the pools. */
static void learn(struct stream *s, const struct engine_op *op, const struct engine_result *res)
{
	const struct contract_op *c = &contract_ops[op->code];

	u32 partner = partner_of(op->code);

	if (res->status == STATUS_PARKED)
		pool_put(&s->pool[PARKED], res->op, 0, op->code);
	if (res->status != STATUS_OK)
		return;
	for (u32 i = 0; i < c->values.nr_ints; i++) {
		enum kind kind = kind_of(&c->values.ints[i]);

		if (kind != NR_KINDS && res->values[i])
			pool_put(&s->pool[kind], res->values[i],
				 op->code == OP_ALLOC_PAGES ? (u32)op->args[1] : 0, op->code);
	}
	/* What Kunmap wants is what Kmap was given. */
	if (op->code == OP_KMAP)
		pool_put(&s->pool[PFN], op->args[0], 0, op->code);
	if (partner_undoes(op->code))
		pool_undo(&s->pool[kind_of(&c->args.ints[0])], op->args[0],
			  partners[partner].made_by);
}

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
	learn(&t->stream, op, &res);
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
		kmap.args[0] = pool_at(&t->stream.pool[PFN], 0)->value;
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
		struct engine_op op = random_op(&t.stream, sim_engine(run->sim), data);

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
	struct options o = {.seed = 1, .ops = 1200, .machine = -1};
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
