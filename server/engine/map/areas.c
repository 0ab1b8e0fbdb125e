/*
 * areas.c - sorted leaves under a paged directory.
 *
 *   root: 256 references -> chunk: 64 directory entries -> leaf: 42 areas
 *
 * Root, chunks and leaves are all 1 KiB objects. The directory is one array of
 * nr_leaves entries that happens to lie in pieces, so a search is a binary search
 * in it and one leaf, and "lowest hole" is one pass over it: an entry knows the
 * largest hole inside its leaf, and the hole between two leaves is the difference
 * of two entries. 10,000 areas are some 300 entries.
 *
 * Invariants:
 *  1. Areas are sorted, do not overlap and are not empty, in a leaf and across.
 *  2. No leaf is empty; an entry's first, last and maxgap are its leaf's.
 *  3. A map without areas has no objects but its spares.
 */
#include "areas.h"

#include "../frames/slab.h"
#include "../port.h"
#include "../state.h"

enum { LEAF_AREAS = 42, CHUNK_ENTRIES = 64, ROOT_CHUNKS = 256 };

/* Two neighbours become one leaf when both would fill it no more than this. */
enum { LEAF_MERGE = LEAF_AREAS * 3 / 4 };

struct leaf {
	u32 nr, reserved0[3];
	struct area area[LEAF_AREAS];
};

struct entry {
	va_t first, last; /* start of its first area, end of its last */
	u32 maxgap;	  /* largest hole between two of its areas */
	ref_t leaf;
};

struct chunk {
	struct entry entry[CHUNK_ENTRIES];
};

struct root {
	ref_t chunk[ROOT_CHUNKS];
};

_Static_assert(sizeof(struct leaf) == AREA_OBJECT_BYTES, "leaf");
_Static_assert(sizeof(struct chunk) == AREA_OBJECT_BYTES, "chunk");
_Static_assert(sizeof(struct root) == AREA_OBJECT_BYTES, "root");

/* ---- objects ---- */

static ref_t object_take(struct engine *e, struct area_map *m)
{
	ref_t object = m->spare;

	if (!object)
		return slab_alloc(e, SLAB_AREA_LEAF);
	u32 *next = at(e, object);

	m->spare = *next;
	*next = 0;
	return object;
}

static void spare_put(struct engine *e, struct area_map *m, ref_t object)
{
	*(u32 *)at(e, object) = m->spare;
	m->spare = object;
}

static u32 nr_spares(struct engine *e, const struct area_map *m)
{
	u32 n = 0;

	for (ref_t s = m->spare; s; s = *(u32 *)at(e, s))
		n++;
	return n;
}

/* ---- the directory ---- */

static struct root *root_of(struct engine *e, const struct area_map *m)
{
	return at(e, m->directory);
}

static struct entry *entry_at(struct engine *e, const struct area_map *m, u32 i)
{
	struct chunk *c = at(e, root_of(e, m)->chunk[i / CHUNK_ENTRIES]);

	return &c->entry[i % CHUNK_ENTRIES];
}

/* NULL: the map is empty. */
static inline struct entry *last_entry(struct engine *e, const struct area_map *m)
{
	return m->nr_leaves ? entry_at(e, m, m->nr_leaves - 1) : NULL;
}

static struct leaf *leaf_at(struct engine *e, const struct area_map *m, u32 i)
{
	return at(e, entry_at(e, m, i)->leaf);
}

/* How many of `nr` ascending keys, `stride` words apart, are at or below `bound`. What is
 * left halves whatever a key says, so that the compiler needs no branch that nobody could
 * predict. */
static inline u32 keys_up_to(const u32 *key, u32 stride, u32 nr, u32 bound)
{
	u32 n = 0;

	while (nr) {
		u32 half = (nr + 1) / 2;

		n += key[(size_t)(n + half - 1) * stride] <= bound ? half : 0;
		nr -= half;
	}
	return n;
}

enum {
	AREA_WORDS = sizeof(struct area) / sizeof(u32),
	ENTRY_WORDS = sizeof(struct entry) / sizeof(u32),
};

/* The same of the directory's keys, `offset` words into an entry. Chunks first: all but
 * the last are full. */
static u32 entries_up_to(struct engine *e, const struct area_map *m, u32 offset, u32 bound)
{
	u32 low = 0, high = m->nr_leaves / CHUNK_ENTRIES;

	while (low < high) {
		u32 middle = (low + high) / 2;
		const struct entry *last =
		    entry_at(e, m, middle * CHUNK_ENTRIES + CHUNK_ENTRIES - 1);

		if (((const u32 *)last)[offset] <= bound)
			low = middle + 1;
		else
			high = middle;
	}
	low *= CHUNK_ENTRIES;
	u32 nr = m->nr_leaves - low < CHUNK_ENTRIES ? m->nr_leaves - low : CHUNK_ENTRIES;

	return nr ? low + keys_up_to((const u32 *)entry_at(e, m, low) + offset, ENTRY_WORDS, nr,
				     bound)
		  : low;
}

/* How many entries have `last` at or below va: the index of the first leaf that
 * reaches above it. */
static inline u32 leaf_above(struct engine *e, const struct area_map *m, va_t va)
{
	const struct entry *end = last_entry(e, m);
	u32 nr = m->nr_leaves;

	if (!end)
		return 0;
	/* Most maps are small, and what is looked for is often the newest, which came behind
	 * all others. */
	if (nr == 1 || end->first <= va)
		return nr - (end->last > va);
	return entries_up_to(e, m, offsetof(struct entry, last) / sizeof(u32), va);
}

/* How many entries have `first` below va. */
static inline u32 leaves_below(struct engine *e, const struct area_map *m, va_t va)
{
	const struct entry *end = last_entry(e, m);
	u32 nr = m->nr_leaves;

	if (!end || !va)
		return 0;
	if (nr == 1 || end->first < va)
		return nr - (end->first >= va);
	return entries_up_to(e, m, offsetof(struct entry, first) / sizeof(u32), va - 1);
}

static u32 largest_gap(const struct leaf *leaf)
{
	u32 largest = 0;

	for (u32 k = 1; k < leaf->nr; k++) {
		u32 gap = leaf->area[k].start - leaf->area[k - 1].end;

		if (gap > largest)
			largest = gap;
	}
	return largest;
}

/* The hole before position k of the leaf, 0 at its ends. */
static u32 gap_at(const struct leaf *leaf, u32 k)
{
	return k && k < leaf->nr ? leaf->area[k].start - leaf->area[k - 1].end : 0;
}

/* The larger hole beside the area at position k. */
static u32 gap_beside(const struct leaf *leaf, u32 k)
{
	u32 before = gap_at(leaf, k), behind = gap_at(leaf, k + 1);

	return before > behind ? before : behind;
}

static void entry_set(struct entry *entry, const struct leaf *leaf, u32 maxgap)
{
	entry->first = leaf->area[0].start;
	entry->last = leaf->area[leaf->nr - 1].end;
	entry->maxgap = maxgap;
}

/* The entry follows its leaf. */
static void entry_update(struct engine *e, struct area_map *m, u32 i)
{
	struct entry *entry = entry_at(e, m, i);
	const struct leaf *leaf = at(e, entry->leaf);

	entry_set(entry, leaf, largest_gap(leaf));
}

/* The same when one area came or went: the largest hole that this ended, and the
 * largest that it made. Only when the leaf's largest has gone is there much to do. */
static void entry_follow(struct entry *entry, const struct leaf *leaf, u32 ended, u32 made)
{
	u32 maxgap = entry->maxgap;

	if (made >= maxgap)
		maxgap = made;
	else if (ended == maxgap)
		maxgap = largest_gap(leaf);
	entry_set(entry, leaf, maxgap);
}

/* Makes an entry at i for a new leaf. The caller updates it. */
static u32 leaf_new(struct engine *e, struct area_map *m, u32 i)
{
	bool grows = m->nr_leaves % CHUNK_ENTRIES == 0;
	ref_t leaf, chunk = 0;

	if (m->nr_leaves == AREA_MAX_LEAVES)
		return STATUS_LIMIT;
	leaf = object_take(e, m);
	if (!leaf)
		return STATUS_NO_MEMORY;
	if (grows) {
		chunk = object_take(e, m);
		if (!chunk) {
			spare_put(e, m, leaf);
			return STATUS_NO_MEMORY;
		}
		root_of(e, m)->chunk[m->nr_leaves / CHUNK_ENTRIES] = chunk;
	}
	for (u32 k = m->nr_leaves++; k > i; k--)
		*entry_at(e, m, k) = *entry_at(e, m, k - 1);
	*entry_at(e, m, i) = (struct entry){.leaf = leaf};
	return STATUS_OK;
}

static void leaf_drop(struct engine *e, struct area_map *m, u32 i)
{
	slab_free(e, SLAB_AREA_LEAF, entry_at(e, m, i)->leaf);
	m->nr_leaves--;
	for (u32 k = i; k < m->nr_leaves; k++)
		*entry_at(e, m, k) = *entry_at(e, m, k + 1);
	*entry_at(e, m, m->nr_leaves) = (struct entry){0};
	if (m->nr_leaves % CHUNK_ENTRIES == 0) {
		ref_t *chunk = &root_of(e, m)->chunk[m->nr_leaves / CHUNK_ENTRIES];

		slab_free(e, SLAB_AREA_LEAF, *chunk);
		*chunk = 0;
	}
	if (!m->nr_leaves) {
		slab_free(e, SLAB_AREA_LEAF, m->directory);
		m->directory = 0;
	}
}

/* ---- finding ---- */

/* Most maps are small, and what is looked for is often the newest, behind all others: the two
 * searches are functions of their own, so that who needs none pays for none. */
static __attribute__((noinline)) struct leaf *search_leaf(struct engine *e, struct area_map *m,
							  va_t va)
{
	return leaf_at(e, m, leaf_above(e, m, va));
}

static __attribute__((noinline)) struct area *search_area(struct leaf *leaf, va_t va)
{
	return &leaf->area[keys_up_to(&leaf->area[0].end, AREA_WORDS, leaf->nr - 1, va)];
}

struct area *area_find_next(struct engine *e, struct area_map *m, va_t va)
{
	u32 nr = m->nr_leaves;

	if (!nr)
		return NULL;
	const struct entry *entry = entry_at(e, m, nr - 1);

	if (entry->last <= va)
		return NULL;
	struct leaf *leaf =
	    nr > 1 && entry->first > va ? search_leaf(e, m, va) : at(e, entry->leaf);

	/* The last one of the leaf does reach above va. */
	if (leaf->nr > 1 && leaf->area[leaf->nr - 2].end > va)
		return search_area(leaf, va);
	return &leaf->area[leaf->nr - 1];
}

struct area *area_find(struct engine *e, struct area_map *m, va_t va)
{
	struct area *a = area_find_next(e, m, va);

	return a && a->start <= va ? a : NULL;
}

/* Position of the first area of the leaf that begins at or above va. */
static u32 position_of(const struct leaf *leaf, va_t va)
{
	/* What is new often comes behind all others. */
	if (leaf->nr && leaf->area[leaf->nr - 1].start < va)
		return leaf->nr;
	return va ? keys_up_to(&leaf->area[0].start, AREA_WORDS, leaf->nr, va - 1) : 0;
}

struct area *area_find_prev(struct engine *e, struct area_map *m, va_t va)
{
	u32 below = leaves_below(e, m, va);

	if (!below)
		return NULL;
	struct leaf *leaf = leaf_at(e, m, below - 1);

	return &leaf->area[position_of(leaf, va) - 1];
}

va_t area_map_end(struct engine *e, const struct area_map *m)
{
	const struct entry *end = last_entry(e, m);

	return end ? end->last : 0;
}

/* ---- changing ---- */

static void leaf_move(struct leaf *to, u32 to_at, struct leaf *from, u32 from_at, u32 nr)
{
	__builtin_memmove(&to->area[to_at], &from->area[from_at], nr * sizeof(struct area));
}

/* Makes room in leaf i, which is full, for an area at *position: the upper half
 * moves to a new leaf, or nothing does when the area comes behind all others, so
 * that ascending inserts leave full leaves. Says which leaf and where. */
static u32 leaf_split(struct engine *e, struct area_map *m, u32 *i, u32 *position)
{
	u32 keep = *position == LEAF_AREAS ? LEAF_AREAS : LEAF_AREAS / 2;
	u32 status = leaf_new(e, m, *i + 1);

	if (status != STATUS_OK)
		return status;
	struct leaf *lower = leaf_at(e, m, *i), *upper = leaf_at(e, m, *i + 1);

	upper->nr = LEAF_AREAS - keep;
	lower->nr = keep;
	leaf_move(upper, 0, lower, keep, upper->nr);
	entry_update(e, m, *i);
	if (upper->nr)
		entry_update(e, m, *i + 1);
	if (*position >= keep) {
		*position -= keep;
		*i += 1;
	}
	return STATUS_OK;
}

static u32 directory_new(struct engine *e, struct area_map *m)
{
	u32 status;

	m->directory = object_take(e, m);
	if (!m->directory)
		return STATUS_NO_MEMORY;
	status = leaf_new(e, m, 0);
	if (status != STATUS_OK) {
		slab_free(e, SLAB_AREA_LEAF, m->directory);
		m->directory = 0;
	}
	return status;
}

static __attribute__((noinline)) u32 insert_anywhere(struct engine *e, struct area_map *m,
						     const struct area *area)
{
	u32 status = m->directory ? STATUS_OK : directory_new(e, m);
	u32 i, position;

	if (status != STATUS_OK)
		return status;
	i = leaves_below(e, m, area->start);
	i -= i > 0; /* below all others: at the front of the first leaf */
	struct entry *entry = entry_at(e, m, i);
	struct leaf *leaf = at(e, entry->leaf);

	position = position_of(leaf, area->start);
	if (leaf->nr == LEAF_AREAS) {
		status = leaf_split(e, m, &i, &position);
		if (status != STATUS_OK)
			return status;
		entry = entry_at(e, m, i);
		leaf = at(e, entry->leaf);
	}
	u32 hole = gap_at(leaf, position);

	if (position < leaf->nr)
		leaf_move(leaf, position + 1, leaf, position, leaf->nr - position);
	leaf->area[position] = *area;
	leaf->nr++;
	m->nr_areas++;
	entry_follow(entry, leaf, hole, gap_beside(leaf, position));
	return STATUS_OK;
}

u32 area_insert(struct engine *e, struct area_map *m, const struct area *area)
{
	struct entry *end = last_entry(e, m);
	struct leaf *leaf = end ? at(e, end->leaf) : NULL;

	ENGINE_ASSERT(e, area->start < area->end);
	/* What is new often comes behind all others. */
	if (!leaf || leaf->nr == LEAF_AREAS || area->start < end->last)
		return insert_anywhere(e, m, area);
	if (area->start - end->last > end->maxgap)
		end->maxgap = area->start - end->last;
	end->last = area->end;
	leaf->area[leaf->nr++] = *area;
	m->nr_areas++;
	return STATUS_OK;
}

u32 area_reserve(struct engine *e, struct area_map *m, u32 nr)
{
	u32 chunks = (m->nr_leaves + CHUNK_ENTRIES - 1) / CHUNK_ENTRIES;
	u32 chunks_then = (m->nr_leaves + nr + CHUNK_ENTRIES - 1) / CHUNK_ENTRIES;
	u32 need = nr + chunks_then - chunks + !m->directory;

	if (m->nr_leaves + nr > AREA_MAX_LEAVES)
		return STATUS_LIMIT;
	for (u32 have = nr_spares(e, m); have < need; have++) {
		ref_t object = slab_alloc(e, SLAB_AREA_LEAF);

		if (!object)
			return STATUS_NO_MEMORY;
		spare_put(e, m, object);
	}
	return STATUS_OK;
}

/* Leaf i + 1 joins leaf i if both are thin. */
static void leaf_merge(struct engine *e, struct area_map *m, u32 i)
{
	if (i + 1 >= m->nr_leaves)
		return;
	struct leaf *lower = leaf_at(e, m, i), *upper = leaf_at(e, m, i + 1);

	if (lower->nr + upper->nr > LEAF_MERGE)
		return;
	leaf_move(lower, lower->nr, upper, 0, upper->nr);
	lower->nr += upper->nr;
	leaf_drop(e, m, i + 1);
	entry_update(e, m, i);
}

static void remove_at(struct engine *e, struct area_map *m, u32 i, u32 position)
{
	struct entry *entry = entry_at(e, m, i);
	struct leaf *leaf = at(e, entry->leaf);
	u32 holes = gap_beside(leaf, position);

	leaf->nr--;
	m->nr_areas--;
	leaf_move(leaf, position, leaf, position + 1, leaf->nr - position);
	if (!leaf->nr) {
		leaf_drop(e, m, i);
		return;
	}
	entry_follow(entry, leaf, holes, gap_at(leaf, position));
	leaf_merge(e, m, i);
	if (i)
		leaf_merge(e, m, i - 1);
}

void area_remove(struct engine *e, struct area_map *m, va_t start)
{
	u32 i = leaf_above(e, m, start);

	ENGINE_ASSERT(e, i < m->nr_leaves);
	const struct leaf *leaf = leaf_at(e, m, i);
	u32 position = position_of(leaf, start);

	ENGINE_ASSERT(e, position < leaf->nr && leaf->area[position].start == start);
	remove_at(e, m, i, position);
}

void area_remove_kind(struct engine *e, struct area_map *m, u32 kind, va_t *ret_start,
		      va_t *ret_end)
{
	u32 i = 0, k = 0;

	*ret_start = *ret_end = 0;
	while (i < m->nr_leaves) {
		const struct leaf *leaf = leaf_at(e, m, i);
		u32 nr_leaves = m->nr_leaves;

		if (k == leaf->nr) {
			i++;
			k = 0;
			continue;
		}
		if (leaf->area[k].kind != kind) {
			k++;
			continue;
		}
		if (!*ret_end)
			*ret_start = leaf->area[k].start;
		*ret_end = leaf->area[k].end;
		remove_at(e, m, i, k);
		if (m->nr_leaves == nr_leaves)
			continue; /* the next one has moved up to here */
		i = leaf_above(e, m, *ret_end);
		k = i < m->nr_leaves ? position_of(leaf_at(e, m, i), *ret_end) : 0;
	}
}

void area_resize(struct engine *e, struct area_map *m, va_t start, va_t new_start, va_t new_end)
{
	struct area *a = area_find(e, m, start);
	u32 i = leaf_above(e, m, start);

	ENGINE_ASSERT(e, a && a->start == start && new_start < new_end);
	a->start = new_start;
	a->end = new_end;
	entry_update(e, m, i);
}

void area_map_clear(struct engine *e, struct area_map *m)
{
	/* Back to front: nothing moves up. */
	while (m->nr_leaves)
		leaf_drop(e, m, m->nr_leaves - 1);
	while (m->spare)
		slab_free(e, SLAB_AREA_LEAF, object_take(e, m));
	m->nr_areas = 0;
}

/* ---- holes ---- */

struct wish {
	va_t low, high; /* the hole lies in here */
	u32 size, align;
};

/* The lowest place in the hole [start, end); 0: it does not fit. */
static va_t place_low(const struct wish *w, va_t start, va_t end)
{
	va_t from = start > w->low ? start : w->low;
	va_t to = end < w->high ? end : w->high;
	u32 skipped = -from & (w->align - 1);

	return from < to && to - from >= skipped && to - from - skipped >= w->size ? from + skipped
										   : 0;
}

static va_t place_high(const struct wish *w, va_t start, va_t end)
{
	va_t from = start > w->low ? start : w->low;
	va_t to = end < w->high ? end : w->high;

	if (to < w->size)
		return 0;
	to = (to - w->size) & ~(w->align - 1);
	return to >= from ? to : 0;
}

/* Entries of a chunk are neighbours: passing over those without a hole is what a large
 * map costs. From entry i on, before `end`: the first with a hole of this size in its
 * leaf or before it. `hole` is where the one before entry i begins, and follows. */
static u32 pass_up(struct engine *e, const struct area_map *m, u32 i, u32 end, u32 size, va_t *hole)
{
	while (i < end) {
		const struct entry *entry = entry_at(e, m, i);
		u32 here = CHUNK_ENTRIES - i % CHUNK_ENTRIES;
		const struct entry *stop = entry + (end - i < here ? end - i : here);
		va_t begins = *hole;

		for (i += (u32)(stop - entry); entry < stop; entry++) {
			if (entry->maxgap >= size || entry->first - begins >= size)
				break;
			begins = entry->last;
		}
		*hole = begins;
		if (entry < stop)
			return i - (u32)(stop - entry);
	}
	return i;
}

/* Downwards, from the entry below i: one more than the last with a hole in its leaf or
 * behind it, or `first`. `hole` is where the one behind that entry ends. It may lie
 * inside the entry's last area. */
static u32 pass_down(struct engine *e, const struct area_map *m, u32 i, u32 first, u32 size,
		     va_t *hole)
{
	while (i > first) {
		const struct entry *entry = entry_at(e, m, i - 1) + 1;
		u32 here = (i - 1) % CHUNK_ENTRIES + 1;
		const struct entry *stop = entry - (i - first < here ? i - first : here);
		va_t ends = *hole;

		for (i -= (u32)(entry - stop); entry > stop; entry--) {
			if (entry[-1].maxgap >= size ||
			    (ends > entry[-1].last && ends - entry[-1].last >= size))
				break;
			ends = entry[-1].first;
		}
		*hole = ends;
		if (entry > stop)
			return i + (u32)(entry - stop);
	}
	return i;
}

/* Where there are areas above w->low. */
static __attribute__((noinline)) va_t lowest_between(struct engine *e, const struct area_map *m,
						     const struct wish *w)
{
	u32 i = leaf_above(e, m, w->low), end = leaves_below(e, m, w->high);
	/* Where the hole before i begins. Below `low` nothing is looked for. */
	va_t hole = i ? entry_at(e, m, i - 1)->last : 0;

	hole = hole < w->low ? w->low : hole;
	while ((i = pass_up(e, m, i, end, w->size, &hole)) < end) {
		const struct entry *entry = entry_at(e, m, i++);
		const struct leaf *leaf = at(e, entry->leaf);
		va_t va = place_low(w, hole, entry->first);

		for (u32 k = 1; !va && k < leaf->nr && entry->maxgap >= w->size; k++) {
			if (leaf->area[k].start - leaf->area[k - 1].end >= w->size)
				va = place_low(w, leaf->area[k - 1].end, leaf->area[k].start);
		}
		if (va)
			return va;
		hole = entry->last;
	}
	return place_low(w, hole, i < m->nr_leaves ? entry_at(e, m, i)->first : w->high);
}

va_t area_lowest_fit(struct engine *e, struct area_map *m, va_t low, va_t high, u32 size, u32 align)
{
	const struct wish w = {low, high, size, align};

	if (area_map_end(e, m) <= low)
		return place_low(&w, low, high);
	return lowest_between(e, m, &w);
}

va_t area_highest_fit(struct engine *e, struct area_map *m, va_t low, va_t high, u32 size,
		      u32 align)
{
	const struct wish w = {low, high, size, align};
	u32 i = leaves_below(e, m, high), first = leaf_above(e, m, low);
	va_t hole = i < m->nr_leaves ? entry_at(e, m, i)->first : high; /* where it ends */

	while ((i = pass_down(e, m, i, first, size, &hole)) > first) {
		const struct entry *entry = entry_at(e, m, --i);
		const struct leaf *leaf = at(e, entry->leaf);
		va_t va = place_high(&w, entry->last, hole);

		for (u32 k = leaf->nr - 1; !va && k > 0 && entry->maxgap >= size; k--) {
			if (leaf->area[k].start - leaf->area[k - 1].end >= size)
				va = place_high(&w, leaf->area[k - 1].end, leaf->area[k].start);
		}
		if (va)
			return va;
		hole = entry->first;
	}
	return place_high(&w, i ? entry_at(e, m, i - 1)->last : 0, hole);
}

/* ---- audit ---- */

static const char *leaf_lie(struct engine *e, struct area_map *m, u32 i, va_t *last)
{
	const struct entry entry = *entry_at(e, m, i);
	const struct leaf *leaf = at(e, entry.leaf);

	if (!leaf->nr || leaf->nr > LEAF_AREAS)
		return "a leaf of areas is empty or overfull";
	for (u32 k = 0; k < leaf->nr; k++) {
		if (leaf->area[k].start < *last || leaf->area[k].end <= leaf->area[k].start)
			return "areas overlap or are out of order";
		*last = leaf->area[k].end;
	}
	if (entry.first != leaf->area[0].start || entry.last != *last ||
	    entry.maxgap != largest_gap(leaf))
		return "a directory entry differs from its leaf of areas";
	return NULL;
}

const char *area_map_check(struct engine *e, struct area_map *m)
{
	u32 nr_areas = 0;
	va_t last = 0;

	if (!m->nr_areas != !m->directory || !m->nr_leaves != !m->directory)
		return "an empty map of areas holds objects, or a map lost its directory";
	for (u32 i = 0; i < m->nr_leaves; i++) {
		const char *lie = leaf_lie(e, m, i, &last);

		if (lie)
			return lie;
		nr_areas += leaf_at(e, m, i)->nr;
	}
	return nr_areas == m->nr_areas ? NULL : "areas do not count up";
}
