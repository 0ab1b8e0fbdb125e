/*
 * stream.c - see stream.h.
 */
#include "engine/stream.h"

#include <string.h>

#include "contract_tables.h"
#include "frames/page_alloc.h"
#include "map/areas.h"
#include "state.h"
#include "user/vma.h"

#define MIB(n) ((u64)(n) << 20)

enum { LEAST_EARLY = 100 };

/* ---- what earlier results named ---- */

/* What an op takes mostly: things that a certain op made; and whether it undoes them. */
static const struct {
	u32 code, made_by;
	bool undoes;
} partners[] = {
    {OP_MEMBLOCK_FREE, OP_MEMBLOCK_RESERVE, false},
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
    {OP_CLEAR_FIXMAP, OP_SET_FIXMAP, true},
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

static void pool_put(struct pool *p, struct thing t)
{
	p->thing[p->nr++ % POOL_SIZE] = t;
}

static u32 pool_held(const struct pool *p)
{
	return p->nr < POOL_SIZE ? p->nr : POOL_SIZE;
}

/* Number `back` from the latest. */
struct thing *stream_thing(struct pool *p, u32 back)
{
	return &p->thing[(p->nr - 1 - back) % POOL_SIZE];
}

/* The latest thing, or now and then an older one, that the op made. NULL: none. */
static const struct thing *pool_find(struct stream *s, enum kind kind, u32 made_by)
{
	u32 skip = random_below(&s->random, 3) ? 0 : (u32)random_below(&s->random, 20);
	const struct thing *found = NULL;

	for (u32 back = 0; back < pool_held(&s->pool[kind]); back++) {
		const struct thing *t = stream_thing(&s->pool[kind], back);

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
	return stream_thing(
	    p, (u32)random_below(&s->random, reach < pool_held(p) ? reach : pool_held(p)));
}

/* The op has undone it: it stays in the pool as something that no longer is. */
static void pool_undo(struct pool *p, u64 value, u32 made_by)
{
	for (u32 back = 0; back < pool_held(p); back++) {
		struct thing *t = stream_thing(p, back);

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
	} by_name[] = {{"task", TASK}, {"parent", TASK},      {"target", TASK},
		       {"next", TASK}, {"file", FILE_NUMBER}, {"handle", HANDLE},
		       {"op", PARKED}, {"index", FIXMAP_SLOT}};

	if (strcmp(f->unit, "pfn") == 0)
		return PFN;
	if (strcmp(f->unit, "va") == 0)
		return VA;
	if (strcmp(f->unit, "paddr") == 0)
		return PADDR;
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
	if (f->enums[0] && !f->enums[1])
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

	/* A random state is refused, once is enough. */
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
	/* Before Boot memblock's ops, and then rarely. Boot ends what they need. */
	for (u32 pass = 0; pass < 2; pass++) {
		pick = pass ? (u32)random_below(&s->random, total) : 0;
		for (u32 code = 1; code < OP_CODE_END; code++) {
			u32 weight;

			if (!contract_ops[code].code)
				continue;
			weight = weight_of(&contract_ops[code], s->phase);
			if (s->early != (code <= OP_BOOT))
				weight = weight == 1 ? 0 : weight / 4;
			else if (s->early)
				weight *= 4;
			if (code == OP_BOOT && s->nr_early < LEAST_EARLY)
				weight = 0;
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
	op->code =
	    stack->entry[stack->depth - 1].how & KMAP_ATOMIC ? OP_KUNMAP_ATOMIC : OP_KUNMAP_LOCAL;
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

/* One of the first few VMAs of a task. NULL: it has none. */
static const struct area *random_vma(struct stream *s, struct engine *e, const struct task *t)
{
	struct area_map *vmas = &task_mm(e, t)->vmas;
	const struct area *vma = area_find_next(e, vmas, 0), *next;

	for (u64 skip = random_below(&s->random, 6); vma && skip; skip--) {
		next = area_find_next(e, vmas, vma->end);
		vma = next ? next : vma;
	}
	return vma;
}

/* An address space is large: mostly, what a task touches is in one of its VMAs, and what
 * the CPU would report is what it reports of a user's access. */
static void aim_at_a_vma(struct stream *s, struct engine *e, struct engine_op *op)
{
	bool is_range = op->code == OP_MUNMAP || op->code == OP_MPROTECT;
	const struct area *vma;
	struct task *t;
	u64 pages;

	if ((op->code != OP_FAULT && op->code != OP_ACCESS && op->code != OP_PIN_USER_PAGE &&
	     !is_range) ||
	    s->early || op->cpu >= s->cpus || random_below(&s->random, 4) == 0)
		return;
	if (!op->task)
		op->task = e->st->user.cpu[op->cpu].current;
	t = op->task ? task_find(e, op->task) : NULL;
	vma = t ? random_vma(s, e, t) : NULL;
	if (!vma)
		return;
	pages = (vma->end - vma->start) >> PAGE_SHIFT;
	op->args[0] =
	    vma->start + (random_below(&s->random, pages < 16 ? pages : 16) << PAGE_SHIFT);
	if (is_range)
		op->args[1] = (1 + random_below(&s->random, pages < 16 ? pages : 16)) << PAGE_SHIFT;
	if (op->code == OP_FAULT)
		op->args[1] = FAULT_USER | (random_below(&s->random, 2) ? FAULT_WRITE : 0);
	if (op->code == OP_ACCESS) {
		op->args[0] += random_below(&s->random, PAGE_SIZE);
		op->args[3] = PRIVILEGE_USER;
	}
}

/* All of lowmem is there to be read, and what nobody allocated with it: now and then, a
 * place in its first 32 MiB, in the host window's frames, or in page tables. */
static void aim_at_lowmem(struct stream *s, struct engine *e, struct engine_op *op)
{
	struct random *r = &s->random;
	pfn_t pgd = e->st->user.cpu[0].pgd;
	paddr_t at;

	if (op->code != OP_ACCESS || op->args[3] != PRIVILEGE_KERNEL || s->early ||
	    random_below(r, 4))
		return;
	switch (random_below(r, 3)) {
	case 0: at = random_below(r, MIB(32)); break;
	case 1: at = HOST_WINDOW_PADDR + random_below(r, HOST_WINDOW_BYTES); break;
	default:
		at = (paddr_t)(pgd ? pgd : e->st->map.kernel_pgd) << PAGE_SHIFT;
		op->args[1] = PAGE_SIZE;
	}
	op->args[0] = e->page_offset + at;
}

/* Limits at random leave nothing between them: mostly, a range that could be found. */
static void make_findable(struct stream *s, struct engine_op *op)
{
	if (op->code != OP_MEMBLOCK_ALLOC || random_below(&s->random, 4) == 0)
		return;
	op->args[1] = 1u << random_below(&s->random, 16);
	op->args[2] = random_below(&s->random, MIB(16));
	op->args[3] = 0;
}

/* Of all slots few may be set, and of all addresses few are an allocated frame's. */
static void make_settable(struct stream *s, struct engine_op *op)
{
	const struct thing *t;

	if (op->code != OP_SET_FIXMAP || random_below(&s->random, 4) == 0 ||
	    !(t = pool_get(s, PFN, OP_KMAP)))
		return;
	op->args[0] = 1 + random_below(&s->random, 40);
	op->args[1] = t->value << PAGE_SHIFT;
	op->args[2] = UPROT_READ | UPROT_WRITE;
}

static struct engine_op touch_op(struct stream *s, struct touch t, u8 *data)
{
	struct engine_op op = {
	    .code = OP_ACCESS,
	    .cpu = t.cpu,
	    .task = t.task,
	    .args = {t.va, 8, t.mode, t.task ? PRIVILEGE_USER : PRIVILEGE_KERNEL},
	    .data = data};

	if (t.mode == ACCESS_WRITE) {
		op.args[1] = 0;
		op.data_len = 8;
		for (u32 i = 0; i < op.data_len; i++)
			data[i] = (u8)random_next(&s->random);
	}
	return op;
}

struct engine_op stream_next(struct stream *s, struct engine *e, u8 *data)
{
	struct engine_op op = {.data = data};
	const struct contract_op *c;

	if (s->nr_due)
		return touch_op(s, s->due[--s->nr_due], data);
	s->early = e->st->phase == PHASE_EARLY;
	s->nr_early += s->early;
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
	aim_at_a_vma(s, e, &op);
	aim_at_lowmem(s, e, &op);
	make_findable(s, &op);
	make_settable(s, &op);
	return op;
}

/* A mapping of the kernel has changed or is new: every CPU looks, now and then. */
static void all_touch(struct stream *s, va_t va)
{
	if (s->nr_due || random_below(&s->random, 3) == 0)
		return;
	for (u32 cpu = 0; cpu < s->cpus; cpu++)
		s->due[s->nr_due++] = (struct touch){
		    cpu, 0, va, random_below(&s->random, 4) ? ACCESS_READ : ACCESS_WRITE};
}

/* What of an op that succeeded a TLB may not know. */
static void learn_touches(struct stream *s, const struct engine_op *op,
			  const struct engine_result *res)
{
	const struct touch *w = &s->written;

	switch (op->code) {
	case OP_SET_FIXMAP:
	case OP_KMAP:
	case OP_VMALLOC:
	case OP_VMAP: all_touch(s, (va_t)res->values[0]); break;
	case OP_CLEAR_FIXMAP:
		for (u32 back = 0; back < pool_held(&s->pool[FIXMAP_SLOT]); back++)
			if (stream_thing(&s->pool[FIXMAP_SLOT], back)->value == op->args[0]) {
				all_touch(s, stream_thing(&s->pool[FIXMAP_SLOT], back)->va);
				break;
			}
		break;
	case OP_ACCESS:
		if (op->task && op->args[2] == ACCESS_WRITE && op->args[3] == PRIVILEGE_USER)
			s->written =
			    (struct touch){op->cpu, op->task, (va_t)op->args[0], ACCESS_WRITE};
		break;
	case OP_TASK_FORK:
		/* Now the parent must not write without a copy. */
		if (w->task == op->args[0] && !s->nr_due)
			s->due[s->nr_due++] = *w;
		break;
	default: break;
	}
}

/* Results feed the pools. */
void stream_learn(struct stream *s, const struct engine_op *op, const struct engine_result *res)
{
	const struct contract_op *c = &contract_ops[op->code];

	u32 partner = partner_of(op->code);

	if (res->status == STATUS_PARKED)
		pool_put(&s->pool[PARKED], (struct thing){.value = res->op, .made_by = op->code});
	if (res->status != STATUS_OK)
		return;
	for (u32 i = 0; i < c->values.nr_ints; i++) {
		enum kind kind = kind_of(&c->values.ints[i]);

		if (kind != NR_KINDS && res->values[i])
			pool_put(&s->pool[kind], (struct thing){.value = res->values[i],
								.order = op->code == OP_ALLOC_PAGES
									     ? (u32)op->args[1]
									     : 0,
								.made_by = op->code});
	}
	/* What Kunmap wants is what Kmap was given, and so with memblock's ranges. */
	if (op->code == OP_KMAP)
		pool_put(&s->pool[PFN], (struct thing){.value = op->args[0], .made_by = op->code});
	if (op->code == OP_MEMBLOCK_RESERVE)
		pool_put(&s->pool[PADDR],
			 (struct thing){.value = op->args[0], .made_by = op->code});
	if (op->code == OP_SET_FIXMAP)
		pool_put(&s->pool[FIXMAP_SLOT], (struct thing){.value = op->args[0],
							       .va = (u32)res->values[0],
							       .made_by = op->code});
	if (s->cpus > 1)
		learn_touches(s, op, res);
	if (partner_undoes(op->code))
		pool_undo(&s->pool[kind_of(&c->args.ints[0])], op->args[0],
			  partners[partner].made_by);
}
