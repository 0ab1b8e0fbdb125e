/*
 * follow.c - see follow.h.
 *
 * Invariants, for each kind of thing:
 *  1. `there` leads from recorded numbers to replayed ones, and `back` the other way, for
 *     exactly the ranges that are bound and not absent. Only addresses of the replayed
 *     direct map are missing in `back`: several names may lead to them.
 *  2. Memory is counted in bytes, so that memblock's ranges and the buddy's frames are one
 *     kind of thing.
 */
#include "follow.h"

#include <stdlib.h>
#include <string.h>

#include "contract_tables.h"
#include "names.h"

enum { NR_THINGS = THING_OP + 1 };

struct pair {
	struct names there, back;
};

/* A task's own addresses, by its recorded number. */
struct space {
	uint32_t task;
	struct pair names;
};

/* An op that slept in one of the worlds. Of each: has it ended, and how? */
struct sleeper {
	struct engine_op op; /* without its data */
	uint64_t extent[OP_VALUES];
	struct side {
		uint64_t number;
		bool ended;
		uint32_t status;
		uint64_t values[OP_VALUES];
	} recorded, replayed;
	struct sleeper *next;
};

struct follow {
	struct follow_space recorded, replayed;
	struct pair names[NR_THINGS];
	struct space *spaces; /* by task */
	unsigned nr_spaces, max_spaces;
	struct sleeper *sleepers;
	uint32_t *list; /* a translated list, ENGINE_MAX_DATA bytes */
	/* Kinds of events that tell what memory an address leads to, and their words. */
	struct mapping_words {
		bool has_va, has_pfn;
		uint8_t va, pfn;
	} mapping[EVENT_KIND_END];
};

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

/* ---- how addresses are divided ---- */

struct part_sink {
	struct inspect_sink base;
	struct follow_space *space;
};

static void take_part(struct inspect_sink *sink, u32 type, const u64 *values, u32 nr_values)
{
	struct follow_space *space = ((struct part_sink *)sink)->space;

	(void)type, (void)nr_values;
	if (values[0] == LAYOUT_USER) {
		space->user_end = values[2];
	} else if (values[0] == LAYOUT_DIRECT_MAP) {
		space->direct_start = values[1];
		space->direct_end = values[2];
		space->direct_paddr = values[3];
	}
}

bool follow_space_of(const struct engine_config *config, struct follow_space *ret,
		     struct engine_error *why)
{
	const u64 none[OP_ARGS] = {0};
	struct part_sink sink = {{.row = take_part, .want_rows = true}, ret};
	struct engine_config booted = *config;
	struct world w;

	*ret = (struct follow_space){0};
	booted.flags &= ~(uint32_t)CONFIG_EARLY;
	if (!world_open(&w, &backend_sim, &booted, NULL, why))
		return false;
	w.type->inspect(w.backend, INSPECT_LAYOUT, none, &sink.base);
	world_close(&w);
	return true;
}

static void find_mapping_words(struct follow *f)
{
	for (unsigned kind = 1; kind < EVENT_KIND_END; kind++) {
		const struct contract_fields *fields = &contract_events[kind].fields;
		struct mapping_words *m = &f->mapping[kind];
		uint8_t word = 0;

		for (unsigned i = 0; i < fields->nr_ints; i++) {
			if (fields->ints[i].thing == THING_ADDRESS) {
				m->has_va = true;
				m->va = word;
			} else if (fields->ints[i].thing == THING_MEMORY) {
				m->has_pfn = true;
				m->pfn = word;
			}
			word = (uint8_t)(word + (fields->ints[i].kind == FIELD_U64 ? 2 : 1));
		}
	}
}

struct follow *follow_new(const struct follow_space *recorded, const struct follow_space *replayed)
{
	struct follow *f = must(calloc(1, sizeof *f));

	f->recorded = *recorded;
	f->replayed = *replayed;
	f->list = must(malloc(ENGINE_MAX_DATA));
	find_mapping_words(f);
	return f;
}

static void pair_free(struct pair *p)
{
	names_free(&p->there);
	names_free(&p->back);
}

void follow_free(struct follow *f)
{
	if (!f)
		return;
	for (unsigned i = 0; i < NR_THINGS; i++)
		pair_free(&f->names[i]);
	for (unsigned i = 0; i < f->nr_spaces; i++)
		pair_free(&f->spaces[i].names);
	while (f->sleepers) {
		struct sleeper *s = f->sleepers;

		f->sleepers = s->next;
		free(s);
	}
	free(f->spaces);
	free(f->list);
	free(f);
}

/* ---- the addresses of tasks ---- */

static unsigned space_index(const struct follow *f, uint32_t task)
{
	unsigned low = 0, high = f->nr_spaces;

	while (low < high) {
		unsigned middle = (low + high) / 2;

		if (f->spaces[middle].task < task)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Made if it is not there; pointers to others may die. */
static struct pair *space_of(struct follow *f, uint32_t task)
{
	unsigned i = space_index(f, task);

	if (i < f->nr_spaces && f->spaces[i].task == task)
		return &f->spaces[i].names;
	if (f->nr_spaces == f->max_spaces) {
		f->max_spaces = f->max_spaces ? f->max_spaces * 2 : 16;
		f->spaces = must(realloc(f->spaces, f->max_spaces * sizeof *f->spaces));
	}
	memmove(f->spaces + i + 1, f->spaces + i, (f->nr_spaces - i) * sizeof *f->spaces);
	f->spaces[i] = (struct space){.task = task};
	f->nr_spaces++;
	return &f->spaces[i].names;
}

/* A new task's addresses: its parent's, or none. */
static void begin_space(struct follow *f, uint32_t task, uint32_t parent)
{
	struct pair copy = {{0}, {0}}, *to;

	if (parent) {
		names_copy(&copy.there, &space_of(f, parent)->there);
		names_copy(&copy.back, &space_of(f, parent)->back);
	}
	to = space_of(f, task);
	pair_free(to);
	*to = copy;
}

/* ---- pairs ---- */

/* Forgets what the names in a recorded range led to. */
static void forget_there(struct pair *p, uint64_t start, uint64_t length)
{
	uint64_t end = start + length;
	const struct range *r;

	for (uint64_t at = start; at < end && (r = names_from(&p->there, at)) && r->start < end;) {
		uint64_t from = r->start > start ? r->start : start;
		uint64_t to = r->start + r->length < end ? r->start + r->length : end;

		if (r->target != NAME_ABSENT)
			names_forget(&p->back, r->target + (from - r->start), to - from);
		at = to;
	}
	names_forget(&p->there, start, length);
}

/* What had replayed numbers in this range has lost them. */
static void take_back(struct pair *p, uint64_t target, uint64_t length)
{
	uint64_t end = target + length;
	const struct range *r;

	while ((r = names_from(&p->back, target)) && r->start < end) {
		uint64_t from = r->start > target ? r->start : target;
		uint64_t to = r->start + r->length < end ? r->start + r->length : end;
		uint64_t name = r->target + (from - r->start);

		names_bind(&p->there, name, to - from, NAME_ABSENT);
		names_forget(&p->back, from, to - from);
	}
}

static void bind_range(struct pair *p, uint64_t start, uint64_t length, uint64_t target,
		       bool shared)
{
	forget_there(p, start, length);
	if (target != NAME_ABSENT && !shared) {
		take_back(p, target, length);
		names_bind(&p->back, target, length, start);
	}
	names_bind(&p->there, start, length, target);
}

enum found { FOUND, ABSENT, UNMADE };

/* Where [start, start + length) is over there. Parts that nothing made do not matter, if
 * any of it was made; all that was made must still lie side by side. */
static enum found resolve(const struct pair *p, uint64_t start, uint64_t length, uint64_t *ret)
{
	uint64_t end = start + length, delta = 0;
	enum found found = UNMADE;
	const struct range *r;

	for (uint64_t at = start; (r = names_from(&p->there, at)) && r->start < end;
	     at = r->start + r->length) {
		if (r->target == NAME_ABSENT)
			return ABSENT;
		if (found == FOUND && r->target - r->start != delta)
			return ABSENT;
		delta = r->target - r->start;
		found = FOUND;
	}
	*ret = start + delta;
	if (found == UNMADE && (r = names_from(&p->back, start)) && r->start < end)
		return ABSENT;
	return found;
}

/* ---- one name ---- */

static bool is_direct(const struct follow_space *s, uint64_t va)
{
	return va >= s->direct_start && va < s->direct_end;
}

/* An address of the recorded direct map: by the memory behind it. */
static enum found follow_direct(const struct follow *f, uint64_t va, uint64_t length, uint64_t *ret)
{
	const struct follow_space *from = &f->recorded, *to = &f->replayed;
	uint64_t paddr = va - from->direct_start + from->direct_paddr, there;

	if (length > from->direct_end - va)
		length = from->direct_end - va;
	if (resolve(&f->names[THING_MEMORY], paddr, length, &there) == ABSENT)
		return ABSENT;
	if (there >= to->direct_paddr &&
	    there + length <= to->direct_paddr + (to->direct_end - to->direct_start)) {
		*ret = there - to->direct_paddr + to->direct_start;
		return FOUND;
	}
	return resolve(&f->names[THING_ADDRESS], va, length, ret) == FOUND ? FOUND : ABSENT;
}

static enum found follow_address(struct follow *f, uint32_t task, uint64_t va, uint64_t length,
				 bool wish, uint64_t *ret)
{
	enum found found;

	if (is_direct(&f->recorded, va))
		return follow_direct(f, va, length, ret);
	if (va >= f->recorded.user_end || !task)
		return resolve(&f->names[THING_ADDRESS], va, length, ret);
	found = resolve(space_of(f, task), va, length, ret);
	/* What was nobody's must not become an address of the kernel's; a wish may be refused. */
	if (found == UNMADE && va >= f->replayed.user_end && !wish)
		return ABSENT;
	return found;
}

/* Memory by frame number, everything else by itself. */
static unsigned shift_of(const struct contract_field *field)
{
	return field->thing == THING_MEMORY && strcmp(field->unit, "pfn") == 0 ? PAGE_SHIFT : 0;
}

static bool makes_address(const struct contract_op *info)
{
	for (unsigned i = 0; i < info->values.nr_ints; i++)
		if (info->values.ints[i].thing == THING_ADDRESS)
			return true;
	return false;
}

/* How far the thing of a field reaches, in bytes for memory and addresses. */
static uint64_t extent_of(const struct contract_op *info, const struct contract_field *field,
			  const struct engine_op *op)
{
	uint64_t bytes = PAGE_SIZE, value = 0;

	if (field->thing != THING_MEMORY && field->thing != THING_ADDRESS)
		return 1;
	if (!*field->extent)
		return shift_of(field) || field->thing == THING_ADDRESS ? bytes : 1;
	for (unsigned i = 0; i < info->args.nr_ints; i++)
		if (strcmp(info->args.ints[i].name, field->extent) == 0)
			value = op->args[i];
	if (info->args.data && strcmp(info->args.data->name, field->extent) == 0)
		return (uint64_t)op->data_len / sizeof(u32) * PAGE_SIZE;
	if (strcmp(field->extent, "order") == 0)
		return bytes << value;
	/* No length stands for that of the data, where an op has both. */
	value = value ? value : op->data_len;
	return value ? value : 1;
}

/* False: it names what is not there. */
static bool translate(struct follow *f, const struct contract_op *info,
		      const struct contract_field *field, const struct engine_op *op,
		      uint64_t *value)
{
	unsigned shift = shift_of(field);
	uint64_t name = *value << shift, there = name, length = extent_of(info, field, op);
	enum found found;

	/* An address within a page names that page and what it reaches behind. */
	if (field->thing == THING_ADDRESS) {
		if (!*field->extent)
			length = 1;
		if (name + length > 1ULL << 32)
			length = (1ULL << 32) - name;
		found = follow_address(f, op->task, name, length, makes_address(info), &there);
	} else {
		found = resolve(&f->names[field->thing], name, length, &there);
	}
	if (found == ABSENT)
		return false;
	if (found == FOUND)
		*value = there >> shift;
	return true;
}

const char *follow_translate(struct follow *f, const struct engine_op *op, struct engine_op *ret)
{
	const struct contract_op *info = &contract_ops[op->code];
	const struct contract_field *data = info->args.data;
	uint64_t task;

	*ret = *op;
	switch (resolve(&f->names[THING_TASK], op->task, 1, &task)) {
	case FOUND: ret->task = (uint32_t)task; break;
	case ABSENT: return "task";
	case UNMADE: break;
	}
	for (unsigned i = 0; i < info->args.nr_ints; i++)
		if (info->args.ints[i].thing &&
		    !translate(f, info, &info->args.ints[i], op, &ret->args[i]))
			return info->args.ints[i].name;
	if (!data || !data->thing)
		return NULL;
	for (uint32_t i = 0; i < op->data_len / sizeof(u32); i++) {
		uint64_t value;

		memcpy(&f->list[i], op->data + i * sizeof(u32), sizeof(u32));
		value = f->list[i];
		if (!translate(f, info, data, op, &value))
			return data->name;
		f->list[i] = (uint32_t)value;
	}
	ret->data = (const u8 *)f->list;
	return NULL;
}

/* ---- what ops made ---- */

static void bind_address(struct follow *f, uint32_t task, uint64_t va, uint64_t length,
			 uint64_t there)
{
	bool shared = there != NAME_ABSENT && is_direct(&f->replayed, there);

	if (task && va < f->recorded.user_end)
		bind_range(space_of(f, task), va, length, there, false);
	else
		bind_range(&f->names[THING_ADDRESS], va, length, there, shared);
}

/* Binds what a value names to what it names over there; either may be 0: nothing made. */
static void learn_value(struct follow *f, const struct contract_field *field,
			const struct engine_op *op, uint64_t length, uint64_t here, uint64_t there)
{
	unsigned shift = shift_of(field);
	uint64_t target = there ? there << shift : NAME_ABSENT;

	if (!here) {
		/* A number that is taken over there is no longer anybody else's. */
		if (there && field->thing == THING_ADDRESS && op->task &&
		    there < f->replayed.user_end)
			take_back(space_of(f, op->task), target, length);
		else if (there)
			take_back(&f->names[field->thing], target, length);
		return;
	}
	if (field->thing == THING_ADDRESS)
		bind_address(f, op->task, here, length, target);
	else
		bind_range(&f->names[field->thing], here << shift, length, target, false);
}

static uint32_t named_task(const struct contract_op *info, const struct engine_op *op)
{
	for (unsigned i = 0; i < info->args.nr_ints; i++)
		if (info->args.ints[i].thing == THING_TASK)
			return (uint32_t)op->args[i];
	return 0;
}

static void learn_values(struct follow *f, const struct engine_op *op, const uint64_t *lengths,
			 const uint64_t *here, const uint64_t *there)
{
	const struct contract_op *info = &contract_ops[op->code];

	for (unsigned i = 0; i < info->values.nr_ints; i++) {
		const struct contract_field *field = &info->values.ints[i];

		if (!field->thing)
			continue;
		if (field->thing == THING_TASK && here && here[i])
			begin_space(f, (uint32_t)here[i], named_task(info, op));
		learn_value(f, field, op, lengths[i], here ? here[i] : 0, there ? there[i] : 0);
	}
}

static void lengths_of(const struct engine_op *op, uint64_t *ret)
{
	const struct contract_op *info = &contract_ops[op->code];

	for (unsigned i = 0; i < info->values.nr_ints; i++)
		ret[i] = extent_of(info, &info->values.ints[i], op);
}

/* ---- sleepers ---- */

static void learn_sleeper(struct follow *f, struct sleeper *s)
{
	const struct side *here = &s->recorded, *there = &s->replayed;

	learn_values(f, &s->op, s->extent,
		     here->ended && here->status == STATUS_OK ? here->values : NULL,
		     there->ended && there->status == STATUS_OK ? there->values : NULL);
}

static struct side side_of(const struct world *w)
{
	struct side s = {0};

	if (!w) {
		s.ended = true;
		s.status = STATUS_LOST;
		return s;
	}
	s.number = w->result.op;
	s.ended = w->result.status != STATUS_PARKED;
	s.status = w->result.status;
	memcpy(s.values, w->result.values, sizeof s.values);
	return s;
}

static void add_sleeper(struct follow *f, const struct engine_op *op, const struct world *recorded,
			const struct world *replayed)
{
	struct sleeper *s = must(calloc(1, sizeof *s));

	s->op = *op;
	s->op.data = NULL;
	lengths_of(op, s->extent);
	s->recorded = side_of(recorded);
	s->replayed = side_of(replayed);
	s->next = f->sleepers;
	f->sleepers = s;
	bind_range(&f->names[THING_OP], s->recorded.number, 1,
		   replayed ? s->replayed.number : NAME_ABSENT, false);
	learn_sleeper(f, s);
}

static void end_sleepers(struct follow *f, const struct world *w, bool is_recorded)
{
	for (uint32_t i = 0; i < w->nr_completions; i++) {
		const struct engine_completion *c = &w->completions[i];

		for (struct sleeper **at = &f->sleepers, *s; (s = *at);) {
			struct side *side = is_recorded ? &s->recorded : &s->replayed;

			if (side->ended || side->number != c->op) {
				at = &s->next;
				continue;
			}
			side->ended = true;
			side->status = c->status;
			memcpy(side->values, c->values, sizeof side->values);
			learn_sleeper(f, s);
			if (s->recorded.ended && s->replayed.ended) {
				*at = s->next;
				free(s);
			} else {
				at = &s->next;
			}
		}
	}
}

/* ---- memory that was mapped without being told ---- */

/* Where an address that was mapped lies over there, if that is certain. */
static bool mapped_there(struct follow *f, uint32_t task, uint64_t va, uint64_t *ret)
{
	bool is_user = task && va < f->recorded.user_end;
	const struct pair *p = is_user ? space_of(f, task) : &f->names[THING_ADDRESS];
	enum found found = resolve(p, va, 1, ret);

	return found == FOUND || (found == UNMADE && is_user);
}

static void learn_mappings(struct follow *f, const struct engine_op *op,
			   const struct world *recorded, const struct world *replayed)
{
	uint32_t next = 0, nr = replayed->nr_events;
	struct pair *memory = &f->names[THING_MEMORY];

	for (uint32_t i = 0; i < recorded->nr_events; i++) {
		const struct engine_event *e = &recorded->events[i], *o;
		const struct mapping_words *m = &f->mapping[e->kind];
		uint64_t there, frame, known;

		if (!m->has_va || !m->has_pfn || !mapped_there(f, op->task, e->w[m->va], &there))
			continue;
		/* Both lists are nearly always in the same order. */
		for (uint32_t k = 0; k < nr; k++) {
			o = &replayed->events[(next + k) % nr];
			if (o->kind != e->kind || o->w[m->va] != there)
				continue;
			next = (next + k + 1) % nr;
			frame = (uint64_t)e->w[m->pfn] << PAGE_SHIFT;
			there = (uint64_t)o->w[m->pfn] << PAGE_SHIFT;
			if (resolve(memory, frame, PAGE_SIZE, &known) != FOUND || known != there)
				bind_range(memory, frame, PAGE_SIZE, there, false);
			break;
		}
	}
}

void follow_learn(struct follow *f, const struct engine_op *op, const struct world *recorded,
		  const struct world *replayed)
{
	bool sleeps = recorded->result.status == STATUS_PARKED ||
		      (replayed && replayed->result.status == STATUS_PARKED);
	uint64_t lengths[OP_VALUES] = {0};

	if (sleeps) {
		add_sleeper(f, op, recorded, replayed);
	} else {
		lengths_of(op, lengths);
		learn_values(f, op, lengths,
			     recorded->result.status == STATUS_OK ? recorded->result.values : NULL,
			     replayed && replayed->result.status == STATUS_OK
				 ? replayed->result.values
				 : NULL);
	}
	end_sleepers(f, recorded, true);
	if (!replayed)
		return;
	end_sleepers(f, replayed, false);
	learn_mappings(f, op, recorded, replayed);
}
