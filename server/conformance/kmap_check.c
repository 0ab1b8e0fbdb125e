/*
 * kmap_check.c - kmap.jsonl: addresses that a real kernel gave for kmap, kmap_local,
 * vmalloc, vmap and a fixmap slot.
 *
 * Each line is what the recorder did and what came of it; what it did between two lines
 * (unmapping mostly) is known from its source and done here where the next line begins.
 * There is no starting state, so frames have other numbers here and are not compared; of
 * a lowmem page the address less its frame is. Where Linux ran out of HIGHMEM for the pages
 * that it maps, HIGHMEM is emptied here at the same page.
 *
 * The vmalloc window had other users, whom the recording does not name. They are put
 * where the recording shows no address of its own: what it never used is filled with
 * areas before the first vmalloc, and the window's end, from the last hole on, is free.
 * Compared are then every address (lowest fit, guard pages, no re-use before the purge),
 * the zones of the pages, how many areas of 4 MiB the rest holds, the first two areas of
 * each smaller size, and how far up the areas of every size reach.
 *
 * Not compared:
 *  - how many smaller areas fit in all: between the other users there is room of which
 *    nothing is told. There must have been at least as many as fit here;
 *  - vm_map_ram: it hands out pieces of blocks that each CPU keeps, which is a layer
 *    above the window that this machine does not have;
 *  - the frames' numbers (`pfn`, `pfns`, `phys_pfn`).
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "box.h"
#include "map/pgtable.h"

enum {
	NR_PAGES = 1400, /* the recorder's array */
	LOCAL_FIRST = 200,
	NESTED = 15,
	AFTER_FIRST = 1300, /* mapped after all was freed: 1300 to 1303 */
	AFTER_LAST = 1304,
	VMAP_PAGES = 8,
	LARGEST_STEP = 1024, /* pages of the areas that fill the window first */
	MAX_HOLES = 64,
	MAX_VMALLOCS = 32,
	/* Most pages of one Vmap: its list is one payload. */
	VMAP_MOST = ENGINE_MAX_DATA / sizeof(u32),
	FIX_BYTES_AT = 20,
};

struct hole {
	va_t start, end;
	bool late; /* in use until the window's capacity is tried */
};

struct capacity {
	u32 areas;	      /* of the size that is being tried */
	va_t lowest, highest; /* of all sizes; the guard page of the highest left out */
};

struct script {
	struct box *b;
	struct conformance_report *r;
	pfn_t low, page[NR_PAGES];
	u32 nr_pages;
	bool is_low[NR_PAGES]; /* Linux had none of HIGHMEM left for this one */

	/* The thread that maps them all, one after the other. */
	u32 task, mapped;
	va_t va[NR_PAGES];
	bool parked, exhausting, released;

	va_t local[NESTED + 1];
	u32 depth;

	struct hole hole[MAX_HOLES]; /* sorted, apart */
	u32 nr_holes;
	va_t area[MAX_VMALLOCS];
	u32 nr_areas;
	bool window_filled, areas_freed;
	struct capacity capacity;
	u8 list[ENGINE_MAX_DATA];
};

static u32 number(const json_t *o, const char *key)
{
	return (u32)json_integer_value(json_object_get(o, key));
}

static va_t hex(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text ? (va_t)strtoul(text, NULL, 16) : 0;
}

static va_t hex_at(const json_t *array, size_t i)
{
	const char *text = json_string_value(json_array_get(array, i));

	return text ? (va_t)strtoul(text, NULL, 16) : 0;
}

/* The address that an op gave; 0: it gave none. */
static va_t va_of(struct script *s, u32 status)
{
	return status == STATUS_OK ? (va_t)s->b->res.values[0] : 0;
}

static va_t kmap(struct script *s, u32 i)
{
	return va_of(s, box_op(s->b, OP_KMAP, s->page[i]));
}

static void kunmap(struct script *s, u32 i)
{
	box_op(s->b, OP_KUNMAP, s->page[i]);
}

static va_t kmap_local(struct script *s, u32 code, pfn_t pfn)
{
	va_t va = va_of(s, box_op(s->b, code, pfn));

	/* More than fit come from no recorder of ours. */
	if (s->depth <= NESTED)
		s->local[s->depth++] = va;
	return va;
}

static void kunmap_local(struct script *s, u32 code)
{
	if (s->depth)
		box_op(s->b, code, s->local[--s->depth]);
}

/* Which CPU ran it is told by some lines; else by the slot's address, each CPU having its
 * own. That it is the right slot of that CPU is compared. */
static void move_to_cpu(struct script *s, const json_t *o)
{
	const struct layout *l = &s->b->e->st->layout;
	const json_t *va = json_object_get(o, "va");
	va_t at = json_is_array(va) ? hex_at(va, json_array_size(va) - 1) : hex(o, "va");
	u32 index = (l->fixmap_top - at) >> PAGE_SHIFT;
	u32 cpu = (index - l->fix_kmap_begin) / KMAP_LOCAL_SLOTS;

	if (json_object_get(o, "cpu"))
		cpu = number(o, "cpu");
	if (cpu < l->cpus)
		s->b->cpu = cpu;
}

/* ---- kmap ---- */

/* The mapping that a frame has for good, or still in the window. */
static va_t page_address(struct script *s, u32 i)
{
	u32 slot = s->b->e->mem_map[s->page[i]].slot;

	if (s->is_low[i])
		return s->b->e->st->layout.page_offset + (s->page[i] << PAGE_SHIFT);
	return slot ? s->b->e->st->layout.pkmap_start + (slot - 1) * PAGE_SIZE : 0;
}

/* A lowmem page's address, less its frame's. */
static void compare_low(struct script *s, const json_t *o, va_t va, const char *what)
{
	compare(s->r, va - (s->low << PAGE_SHIFT), hex(o, "va") - (number(o, "pfn") << PAGE_SHIFT),
		"%s: the direct map's offset", what);
}

static bool is_direct(const struct script *s, va_t va)
{
	const struct layout *l = &s->b->e->st->layout;

	return va >= l->page_offset && va < l->high_memory;
}

/* The address of page i of the array. A lowmem page's says only that it is one. */
static void compare_page(struct script *s, u32 i, va_t va, va_t want, const char *what)
{
	if (is_direct(s, want))
		compare(s->r, va, s->b->e->st->layout.page_offset + (s->page[i] << PAGE_SHIFT),
			"%s %u in the direct map", what, i);
	else
		compare(s->r, va, want, "%s %u", what, i);
}

/* The thread goes on until it sleeps or is through. */
static void thread_runs(struct script *s)
{
	while (!s->parked && s->mapped < s->nr_pages) {
		u32 status = box_run(s->b, &(struct engine_op){.code = OP_KMAP,
							       .cpu = s->b->cpu,
							       .task = s->task,
							       .args = {s->page[s->mapped]}});

		s->parked = status == STATUS_PARKED;
		if (status == STATUS_OK)
			s->va[s->mapped] = (va_t)s->b->res.values[0];
		else if (!s->parked)
			return;
		s->mapped += status == STATUS_OK;
	}
}

/* Unmaps a page; a sleeper that this wakes has its address then, and does not run yet. */
static void kunmap_waking(struct script *s, u32 i)
{
	u32 before = s->b->nr_completed;

	kunmap(s, i);
	if (s->b->nr_completed == before || s->b->completed.status != STATUS_OK)
		return;
	s->va[s->mapped++] = (va_t)s->b->completed.values[0];
	s->parked = false;
}

static void exhaust(struct script *s, const json_t *o)
{
	const json_t *va = json_object_get(o, "va");

	s->exhausting = true;
	kunmap(s, 1);
	for (u32 i = 4; i < 12; i++)
		kunmap(s, i);
	if (box_op(s->b, OP_TASK_CREATE) == STATUS_OK)
		s->task = (u32)s->b->res.values[0];
	box_op(s->b, OP_SCHEDULE, s->task);
	thread_runs(s);
	compare(s->r, s->mapped, number(o, "mapped_before_block"), "mapped before one sleeps");
	compare(s->r, s->b->e->st->layout.pkmap_slots, number(o, "LAST_PKMAP"), "LAST_PKMAP");
	for (u32 i = 0; i < json_array_size(va) && i < NR_PAGES; i++)
		compare_page(s, i, s->va[i], hex_at(va, i), "kmap until one sleeps,");
}

static void wake_one(struct script *s, const json_t *o)
{
	u32 i = number(o, "kunmap_i");

	if (i >= NR_PAGES)
		return;
	compare(s->r, s->va[i], hex(o, "freed_va"), "kunmap %u frees", i);
	kunmap_waking(s, i);
	thread_runs(s);
	compare(s->r, s->mapped, number(o, "count_now"), "mapped after kunmap %u", i);
	compare(s->r, s->mapped ? s->va[s->mapped - 1] : 0, hex(o, "waiter_got"),
		"the sleeper woken by kunmap %u got", i);
	s->page[i] = 0;
}

/* Unmaps what the thread holds until it is through. It runs when the unmapping pauses. */
static void release_all(struct script *s)
{
	u32 freed = 0;

	s->released = true;
	while (freed < s->nr_pages) {
		u32 hold = s->mapped;

		for (; freed < hold; freed++)
			if (s->page[freed])
				kunmap_waking(s, freed);
		thread_runs(s);
		if (s->mapped == hold && freed == hold)
			break;
	}
	box_op(s->b, OP_SCHEDULE, 0);
}

static void play_kmap(struct script *s, const char *op, const json_t *o)
{
	u32 i = number(o, "i") % NR_PAGES;

	if (strcmp(op, "kmap lowmem") == 0) {
		compare_low(s, o, va_of(s, box_op(s->b, OP_KMAP, s->low)), op);
		box_op(s->b, OP_KUNMAP, s->low);
	} else if (strcmp(op, "kmap_local lowmem") == 0) {
		compare_low(s, o, kmap_local(s, OP_KMAP_LOCAL, s->low), op);
		kunmap_local(s, OP_KUNMAP_LOCAL);
	} else if (strcmp(op, "kunmap") == 0) {
		kunmap(s, i);
		compare_page(s, i, page_address(s, i), hex(o, "page_address_after"),
			     "page_address after kunmap");
	} else if (strcmp(op, "kmap_local of a kmapped page") == 0) {
		move_to_cpu(s, o);
		compare_page(s, i, kmap_local(s, OP_KMAP_LOCAL, s->page[i]), hex(o, "va"), op);
		compare_page(s, i, page_address(s, i), hex(o, "page_address"), "page_address of");
		kunmap_local(s, OP_KUNMAP_LOCAL);
	} else {
		if (strcmp(op, "kmap after all freed") == 0 && !s->released)
			release_all(s);
		compare_page(s, i, kmap(s, i), hex(o, "va"), op);
		if (strcmp(op, "kmap again") == 0)
			kunmap(s, i);
	}
}

/* ---- kmap_local ---- */

static void play_nested(struct script *s, const json_t *o)
{
	const struct layout *l = &s->b->e->st->layout;
	u32 depth = number(o, "depth");
	va_t va;

	if (!depth)
		move_to_cpu(s, o);
	va = kmap_local(s, OP_KMAP_LOCAL, s->page[LOCAL_FIRST + depth % NESTED]);

	compare_page(s, LOCAL_FIRST + depth % NESTED, va, hex(o, "va"), "kmap_local of");
	if (!is_direct(s, hex(o, "va")))
		compare(s->r, (l->fixmap_top - va) >> PAGE_SHIFT, number(o, "idx"),
			"its fixmap index");
}

/* Of so many pages, one after the other. */
static void compare_locals(struct script *s, const char *op, const json_t *o, u32 pages)
{
	const json_t *want = json_object_get(o, "va");

	for (u32 i = 0; i < json_array_size(want) && i < s->depth; i++)
		compare_page(s, LOCAL_FIRST + i % pages, s->local[i], hex_at(want, i), op);
}

static void play_local(struct script *s, const char *op, const json_t *o)
{
	const pfn_t *page = &s->page[LOCAL_FIRST];

	if (strcmp(op, "kmap_local_page") == 0) {
		play_nested(s, o);
		return;
	}
	if (strcmp(op, "after pop 2 push 1") != 0)
		while (s->depth)
			kunmap_local(s, OP_KUNMAP_LOCAL);
	if (!s->depth)
		move_to_cpu(s, o);
	if (strcmp(op, "mixed local,local,atomic,local") == 0) {
		kmap_local(s, OP_KMAP_LOCAL, page[0]);
		kmap_local(s, OP_KMAP_LOCAL, page[1]);
		kmap_local(s, OP_KMAP_ATOMIC, page[2]);
		kmap_local(s, OP_KMAP_LOCAL, page[3]);
		compare_locals(s, op, o, 4);
	} else if (strcmp(op, "after pop 2 push 1") == 0) {
		kunmap_local(s, OP_KUNMAP_LOCAL);
		kunmap_local(s, OP_KUNMAP_ATOMIC);
		compare_page(s, LOCAL_FIRST + 4, kmap_local(s, OP_KMAP_LOCAL, page[4]),
			     hex(o, "va"), op);
	} else if (strcmp(op, "low,high") == 0) {
		va_t low = kmap_local(s, OP_KMAP_LOCAL, s->low);
		const json_t *want = json_object_get(o, "va");

		compare(s->r, low < s->b->e->st->layout.high_memory,
			hex_at(want, 0) < s->b->e->st->layout.high_memory, "%s: low is direct", op);
		compare_page(s, LOCAL_FIRST, kmap_local(s, OP_KMAP_LOCAL, page[0]), hex_at(want, 1),
			     op);
	} else if (strcmp(op, "kmap_atomic irqs off") == 0) {
		compare_page(s, LOCAL_FIRST, kmap_local(s, OP_KMAP_ATOMIC, page[0]), hex(o, "va"),
			     op);
		kunmap_local(s, OP_KUNMAP_ATOMIC);
	} else if (strcmp(op, "same page twice") == 0) {
		kmap_local(s, OP_KMAP_LOCAL, page[0]);
		kmap_local(s, OP_KMAP_ATOMIC, page[0]);
		compare_locals(s, op, o, 1);
		kunmap_local(s, OP_KUNMAP_ATOMIC);
	}
}

/* ---- the vmalloc window ---- */

static void insert_hole(struct script *s, struct hole h)
{
	u32 at = s->nr_holes;

	if (h.end - h.start < 2 * PAGE_SIZE || at == MAX_HOLES)
		return;
	for (; at > 0 && s->hole[at - 1].start > h.start; at--)
		s->hole[at] = s->hole[at - 1];
	s->hole[at] = h;
	s->nr_holes++;
}

/* Neighbours become one. */
static void merge_holes(struct script *s)
{
	u32 kept = 0;

	for (u32 i = 1; i < s->nr_holes; i++) {
		struct hole *last = &s->hole[kept];

		if (s->hole[i].start <= last->end)
			last->end = s->hole[i].end > last->end ? s->hole[i].end : last->end;
		else
			s->hole[++kept] = s->hole[i];
	}
	s->nr_holes = s->nr_holes ? kept + 1 : 0;
}

/* An area that the window had room for only later: what of it is in no hole yet. From
 * the last hole on everything is free anyway. */
static void insert_late(struct script *s, struct hole h)
{
	for (u32 i = 0; i < s->nr_holes && h.start < h.end; i++) {
		struct hole below = {h.start, s->hole[i].start, true};

		if (s->hole[i].end <= h.start)
			continue;
		below.end = below.end < h.end ? below.end : h.end;
		if (below.start < below.end) {
			insert_hole(s, below);
			i++;
		}
		h.start = s->hole[i].end > h.start ? s->hole[i].end : h.start;
	}
}

/* Pages of an area that a line shows: before the window's capacity is tried, or, later,
 * when that has made Linux purge what lay there. 0: it shows none. */
static u32 shown_pages(const json_t *o, bool later)
{
	const char *type = json_string_value(json_object_get(o, "t"));
	const char *op = json_string_value(json_object_get(o, "op"));

	if (!type || !op || strcmp(type, "vm") != 0 || !hex(o, "va"))
		return 0;
	if (later)
		return strcmp(op, "cap") == 0 && number(o, "pages") != LARGEST_STEP
			   ? number(o, "pages")
			   : 0;
	if (strcmp(op, "vmalloc") == 0)
		return number(o, "pages");
	if (strcmp(op, "vmalloc1 after vfree") == 0)
		return 1;
	return strcmp(op, "vmap 8") == 0 ? VMAP_PAGES : 0;
}

static void read_holes(struct script *s, const char *path, bool later)
{
	struct lines *lines = lines_open(path);
	const char *line;

	while (lines && (line = lines_next(lines))) {
		json_t *o = json_loads(line, 0, NULL);
		u32 pages = shown_pages(o, later);
		va_t va = hex(o, "va");
		/* The guard page is the area's too. */
		struct hole h = {va, va + (pages + 1) * PAGE_SIZE, later};

		if (pages && later)
			insert_late(s, h);
		else if (pages)
			insert_hole(s, h);
		json_decref(o);
	}
	lines_close(lines);
	if (!later)
		merge_holes(s);
}

static va_t vmap_low(struct script *s, u32 pages)
{
	for (u32 i = 0; i < pages; i++)
		memcpy(s->list + i * sizeof(u32), &s->low, sizeof(u32));
	return va_of(s, box_run(s->b, &(struct engine_op){.code = OP_VMAP,
							  .cpu = s->b->cpu,
							  .data = s->list,
							  .data_len = pages * (u32)sizeof(u32)}));
}

/* Fills addresses up to `end` with areas, from the lowest free one on. */
static void fill_to(struct script *s, va_t from, va_t end)
{
	while (from + 2 * PAGE_SIZE <= end) {
		u32 pages = ((end - from) >> PAGE_SHIFT) - 1;

		/* Of a piece that is not the last, at least one more area must be left. */
		if (pages > VMAP_MOST)
			pages = VMAP_MOST - 1;
		if (vmap_low(s, pages) != from)
			return;
		from += (pages + 1) * PAGE_SIZE;
	}
}

/* The last hole was never filled. */
static void empty_holes(struct script *s, bool late)
{
	for (u32 i = 0; i + 1 < s->nr_holes; i++)
		if (s->hole[i].late == late)
			box_op(s->b, OP_VUNMAP, s->hole[i].start);
	box_op(s->b, OP_PURGE_VMAP);
}

/* The other users: everything below the last hole is filled in order, and the areas in
 * the holes go again. */
static void fill_window(struct script *s)
{
	va_t from = s->b->e->st->layout.vmalloc_start;

	s->window_filled = true;
	for (u32 i = 0; i < s->nr_holes; i++) {
		fill_to(s, from, s->hole[i].start);
		from = s->hole[i].end;
		if (i + 1 < s->nr_holes)
			fill_to(s, s->hole[i].start, s->hole[i].end);
	}
	empty_holes(s, false);
}

static void compare_zones(struct script *s, va_t va, const json_t *o)
{
	u32 zones[NR_ZONES] = {0}, pages = number(o, "pages");

	for (u32 i = 0; i < pages; i++) {
		const struct layout *l = &s->b->e->st->layout;
		u64 entry = pgtable_get(s->b->e, 0, va + i * PAGE_SIZE);
		/* Above the frame's bits is what forbids execution. */
		pfn_t pfn = (pfn_t)(entry << 1 >> (PAGE_SHIFT + 1));

		for (u32 z = 0; z < NR_ZONES; z++)
			zones[z] += pfn >= l->zone_start[z] && pfn < l->zone_end[z];
	}
	for (u32 z = 0; z < NR_ZONES; z++)
		compare(s->r, zones[z],
			(u64)json_integer_value(json_array_get(json_object_get(o, "zones"), z)),
			"vmalloc of %u pages: pages of zone %u", pages, z);
}

static void play_vmalloc(struct script *s, const json_t *o)
{
	u32 pages = number(o, "pages");
	va_t va = va_of(s, box_op(s->b, OP_VMALLOC, (u64)pages << PAGE_SHIFT, GFP_KERNEL));

	if (s->nr_areas < MAX_VMALLOCS)
		s->area[s->nr_areas++] = va;
	compare(s->r, va, hex(o, "va"), "vmalloc of %u pages", pages);
	if (va)
		compare_zones(s, va, o);
}

static void free_areas(struct script *s, const json_t *which)
{
	const json_t *one;
	size_t i;

	json_array_foreach (which, i, one) {
		size_t n = (size_t)json_integer_value(one);

		if (n < s->nr_areas) {
			box_op(s->b, OP_VFREE, s->area[n]);
			s->area[n] = 0;
		}
	}
}

static void free_rest(struct script *s)
{
	s->areas_freed = true;
	for (u32 i = 0; i < s->nr_areas; i++)
		if (s->area[i])
			box_op(s->b, OP_VFREE, s->area[i]);
}

static void note_area(struct script *s, va_t va, u32 pages)
{
	struct capacity *c = &s->capacity;

	if (!va)
		return;
	c->lowest = !c->lowest || va < c->lowest ? va : c->lowest;
	c->highest = va + pages * PAGE_SIZE > c->highest ? va + pages * PAGE_SIZE : c->highest;
}

/* An area of the size whose capacity is tried: the first two of a size are lines. */
static void play_cap(struct script *s, const json_t *o)
{
	u32 pages = number(o, "pages");
	va_t va = vmap_low(s, pages);

	s->capacity.areas++;
	note_area(s, va, pages);
	/* Where the largest begin depends on what the others leave below. */
	if (pages != LARGEST_STEP)
		compare(s->r, va, hex(o, "va"), "area %u of %u pages", s->capacity.areas, pages);
}

/* How many areas of that size fit. Of the largest all lie in the free end of the window,
 * and are counted; smaller ones fit between the other users too, so that what is known to
 * be free is the least that Linux had room for. Up to where they reach is the end's. */
static void play_capacity(struct script *s, const json_t *o)
{
	u32 pages = number(o, "step_pages");
	const struct layout *l = &s->b->e->st->layout;
	va_t va;

	while ((va = vmap_low(s, pages))) {
		s->capacity.areas++;
		note_area(s, va, pages);
	}
	if (pages == LARGEST_STEP) {
		compare(s->r, s->capacity.areas, number(o, "areas"), "areas of %u pages that fit",
			pages);
		compare(s->r, s->capacity.lowest, hex(o, "lo"), "the lowest of them");
		compare(s->r, l->vmalloc_start, hex(o, "VMALLOC_START"), "VMALLOC_START");
		compare(s->r, l->vmalloc_end, hex(o, "VMALLOC_END"), "VMALLOC_END");
		empty_holes(s, true);
	} else {
		compare(s->r, s->capacity.areas <= number(o, "areas"), true,
			"that %u areas of %u pages fit between what is known to be used",
			s->capacity.areas, pages);
	}
	compare(s->r, s->capacity.highest, hex(o, "hi"), "the end of areas down to %u pages",
		pages);
	s->capacity.areas = 0;
}

static void play_vm(struct script *s, const char *op, const json_t *o)
{
	va_t va;

	if (!s->window_filled)
		fill_window(s);
	if (strcmp(op, "vmalloc") == 0) {
		play_vmalloc(s, o);
	} else if (strcmp(op, "vfree") == 0) {
		free_areas(s, json_object_get(o, "which"));
	} else if (strcmp(op, "vmalloc1 after vfree") == 0) {
		va = va_of(s, box_op(s->b, OP_VMALLOC, PAGE_SIZE, GFP_KERNEL));
		compare(s->r, va, hex(o, "va"), "%s", op);
		box_op(s->b, OP_VFREE, va);
	} else if (strcmp(op, "vmap 8") == 0) {
		if (!s->areas_freed)
			free_rest(s);
		va = vmap_low(s, VMAP_PAGES);
		compare(s->r, va, hex(o, "va"), "%s", op);
		box_op(s->b, OP_VUNMAP, va);
	} else if (strcmp(op, "cap") == 0) {
		play_cap(s, o);
	} else if (strcmp(op, "capacity") == 0) {
		play_capacity(s, o);
	}
}

/* ---- fixmap ---- */

static u32 access_word(struct script *s, va_t va, u32 mode, u32 word)
{
	u8 bytes[sizeof word];
	struct engine_op op = {
	    .code = OP_ACCESS, .cpu = s->b->cpu, .args = {va, sizeof word, mode, PRIVILEGE_KERNEL}};

	memcpy(bytes, &word, sizeof word);
	if (mode == ACCESS_WRITE) {
		op.data = bytes;
		op.data_len = sizeof bytes;
	}
	if (box_run(s->b, &op) != STATUS_OK || s->b->res.data_len < sizeof word)
		return 0;
	memcpy(&word, s->b->data, sizeof word);
	return word;
}

/* What one mapping wrote the other one reads. */
static void play_fixmap(struct script *s, const json_t *o)
{
	enum { WORD = 0x12345678 };
	u32 index = number(o, "idx");
	pfn_t pfn = s->nr_pages > 400 && s->page[400] ? s->page[400] : s->low;
	va_t va = va_of(s, box_op(s->b, OP_SET_FIXMAP, index, (u64)pfn << PAGE_SHIFT,
				  UPROT_READ | UPROT_WRITE)),
	     kva;

	compare(s->r, va, hex(o, "va"), "fixmap slot %u", index);
	access_word(s, va + FIX_BYTES_AT, ACCESS_WRITE, WORD);
	kva = va_of(s, box_op(s->b, OP_KMAP, pfn));
	compare(s->r, access_word(s, kva + FIX_BYTES_AT, ACCESS_READ, 0) == WORD,
		number(o, "rw_ok"), "what the fixmap wrote is what kmap reads");
	box_op(s->b, OP_KUNMAP, pfn);
	box_op(s->b, OP_CLEAR_FIXMAP, index);
}

/* ---- all of it ---- */

static void play_line(struct script *s, const json_t *o)
{
	const char *type = json_string_value(json_object_get(o, "t"));
	const char *op = json_string_value(json_object_get(o, "op"));

	if (!type)
		return;
	if (strcmp(type, "kmapexh") == 0) {
		if (!s->exhausting)
			exhaust(s, o);
		else
			wake_one(s, o);
	}
	if (!op)
		return;
	if (strcmp(type, "kmap") == 0)
		play_kmap(s, op, o);
	else if (strcmp(type, "kml") == 0)
		play_local(s, op, o);
	else if (strcmp(type, "vm") == 0)
		play_vm(s, op, o);
	else if (strcmp(type, "fix") == 0)
		play_fixmap(s, o);
}

/* Which pages of the array Linux mapped in the direct map. */
static void read_low_pages(struct script *s, const char *path)
{
	struct lines *lines = lines_open(path);
	const char *line;

	while (lines && (line = lines_next(lines))) {
		json_t *o = json_loads(line, 0, NULL);
		const json_t *va = json_object_get(o, "va");
		const char *type = json_string_value(json_object_get(o, "t"));

		if (type && strcmp(type, "kmapexh") == 0)
			for (u32 i = 0; i < json_array_size(va) && i < NR_PAGES; i++)
				s->is_low[i] = is_direct(s, hex_at(va, i));
		json_decref(o);
	}
	lines_close(lines);
}

/* As the recorder did. Where Linux had nothing left in HIGHMEM, what is there goes first. */
static void allocate(struct script *s)
{
	box_op(s->b, OP_ALLOC_PAGES, GFP_KERNEL, 0);
	s->low = (pfn_t)s->b->res.values[0];
	for (; s->nr_pages < NR_PAGES; s->nr_pages++) {
		do
			if (box_op(s->b, OP_ALLOC_PAGES, GFP_HIGHUSER, 0) != STATUS_OK)
				return;
		while (s->is_low[s->nr_pages] && s->b->res.values[1] >= ZONE_HIGHMEM);
		s->page[s->nr_pages] = (pfn_t)s->b->res.values[0];
	}
}

void check_kmap(const char *path, struct conformance_report *r)
{
	struct script *s = calloc(1, sizeof *s);
	struct lines *lines = lines_open(path);
	char folder[4096];
	const char *line;

	folder_of(path, folder, sizeof folder);
	if (s && lines) {
		s->r = r;
		s->b = box_new_from(folder, r);
	} else {
		differs(r, "%s cannot be read", path);
	}
	if (s && s->b) {
		read_holes(s, path, false);
		read_holes(s, path, true);
		read_low_pages(s, path);
		allocate(s);
	}
	while (s && s->b && lines && (line = lines_next(lines))) {
		json_t *o = json_loads(line, 0, NULL);

		if (!o)
			is_cut_line(lines, r);
		play_line(s, o);
		json_decref(o);
	}
	if (lines && lines_broken(lines))
		differs(r, "%s cannot be read to its end", path);
	lines_close(lines);
	if (s)
		box_free(s->b);
	free(s);
}
