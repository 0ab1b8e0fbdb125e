/*
 * names.c - see names.h.
 *
 * Invariants:
 *  1. Chunks are not empty, and their ranges ascend without overlapping, within a chunk
 *     and from one to the next.
 *  2. A full chunk is cut in two before it takes another range.
 */
#include "names.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK_RANGES = 256 };

struct chunk {
	size_t nr;
	struct range range[CHUNK_RANGES];
};

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

static uint64_t end_of(const struct range *r)
{
	return r->start + r->length;
}

/* ---- chunks ---- */

static void put_chunk(struct names *n, size_t at, struct chunk *c)
{
	if (n->nr == n->max) {
		n->max = n->max ? n->max * 2 : 16;
		n->chunks = must(realloc(n->chunks, n->max * sizeof(struct chunk *)));
	}
	memmove(n->chunks + at + 1, n->chunks + at, (n->nr - at) * sizeof(struct chunk *));
	n->chunks[at] = c;
	n->nr++;
}

static void drop_chunk(struct names *n, size_t at)
{
	free(n->chunks[at]);
	n->nr--;
	memmove(n->chunks + at, n->chunks + at + 1, (n->nr - at) * sizeof(struct chunk *));
}

/* Where the first range that ends after `at` is; false: there is none. */
static bool locate(const struct names *n, uint64_t at, size_t *ret_chunk, size_t *ret_range)
{
	size_t low = 0, high = n->nr;
	const struct chunk *c;

	while (low < high) {
		size_t middle = (low + high) / 2;

		c = n->chunks[middle];
		if (end_of(&c->range[c->nr - 1]) <= at)
			low = middle + 1;
		else
			high = middle;
	}
	*ret_chunk = low;
	*ret_range = 0;
	if (low == n->nr)
		return false;
	c = n->chunks[low];
	low = 0;
	high = c->nr;
	while (low < high) {
		size_t middle = (low + high) / 2;

		if (end_of(&c->range[middle]) <= at)
			low = middle + 1;
		else
			high = middle;
	}
	*ret_range = low;
	return true;
}

/* Puts a range before the one at (chunk, i); nothing there overlaps it. */
static void insert(struct names *n, size_t chunk, size_t i, struct range r)
{
	struct chunk *c;

	if (chunk == n->nr) {
		/* Behind all others: at the end of the last chunk, if there is one. */
		if (!n->nr)
			put_chunk(n, 0, must(calloc(1, sizeof *c)));
		chunk = n->nr - 1;
		i = n->chunks[chunk]->nr;
	}
	c = n->chunks[chunk];
	if (c->nr == CHUNK_RANGES) {
		struct chunk *upper = must(calloc(1, sizeof *upper));
		/* What only grows at its end leaves full chunks behind. */
		size_t keep = i == CHUNK_RANGES ? CHUNK_RANGES - 1 : CHUNK_RANGES / 2;

		upper->nr = CHUNK_RANGES - keep;
		memcpy(upper->range, c->range + keep, upper->nr * sizeof *upper->range);
		c->nr = keep;
		put_chunk(n, chunk + 1, upper);
		if (i > keep) {
			c = upper;
			i -= keep;
		}
	}
	memmove(c->range + i + 1, c->range + i, (c->nr - i) * sizeof *c->range);
	c->range[i] = r;
	c->nr++;
}

static void delete_range(struct names *n, size_t chunk, size_t i)
{
	struct chunk *c = n->chunks[chunk];

	c->nr--;
	memmove(c->range + i, c->range + i + 1, (c->nr - i) * sizeof *c->range);
	if (!c->nr)
		drop_chunk(n, chunk);
}

/* ---- names ---- */

static struct range part(const struct range *r, uint64_t start, uint64_t end)
{
	struct range p = {start, end - start, r->target};

	if (r->target != NAME_ABSENT)
		p.target += start - r->start;
	return p;
}

void names_forget(struct names *n, uint64_t start, uint64_t length)
{
	uint64_t end = start + length;
	size_t chunk, i;

	while (locate(n, start, &chunk, &i)) {
		struct range r = n->chunks[chunk]->range[i];

		if (r.start >= end)
			return;
		delete_range(n, chunk, i);
		/* What is left of it on either side goes back. */
		if (r.start < start) {
			locate(n, r.start, &chunk, &i);
			insert(n, chunk, i, part(&r, r.start, start));
		}
		if (end_of(&r) > end) {
			locate(n, end, &chunk, &i);
			insert(n, chunk, i, part(&r, end, end_of(&r)));
		}
	}
}

void names_bind(struct names *n, uint64_t start, uint64_t length, uint64_t target)
{
	size_t chunk, i;

	names_forget(n, start, length);
	locate(n, start, &chunk, &i);
	insert(n, chunk, i, (struct range){start, length, target});
}

const struct range *names_from(const struct names *n, uint64_t at)
{
	size_t chunk, i;

	return locate(n, at, &chunk, &i) ? &n->chunks[chunk]->range[i] : NULL;
}

const struct range *names_find(const struct names *n, uint64_t at)
{
	const struct range *r = names_from(n, at);

	return r && r->start <= at ? r : NULL;
}

void names_copy(struct names *to, const struct names *from)
{
	names_free(to);
	to->chunks = must(calloc(from->nr + 1, sizeof(struct chunk *)));
	to->max = from->nr + 1;
	for (; to->nr < from->nr; to->nr++) {
		to->chunks[to->nr] = must(malloc(sizeof(struct chunk)));
		memcpy(to->chunks[to->nr], from->chunks[to->nr], sizeof(struct chunk));
	}
}

void names_free(struct names *n)
{
	while (n->nr)
		free(n->chunks[--n->nr]);
	free(n->chunks);
	*n = (struct names){0};
}
