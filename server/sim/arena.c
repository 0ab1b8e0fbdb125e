/*
 * arena.c - see arena.h.
 *
 * The mapping is private, anonymous and without reserve: Linux gives a page of it at
 * the first write, zeroed. Huge pages are declined, since they would make a machine
 * that touches little resident in full. /proc/self/pagemap says for every page whether
 * it is present or swapped out; mincore() is no substitute, because it calls a page in
 * swap absent. A page that was only read shows as present too: a frame of zeros more.
 */
#define _GNU_SOURCE /* SEEK_DATA */
#include "arena.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define NONE 0xffffffffu
/* Bits of a pagemap entry: the page is present, or in swap. */
#define PAGEMAP_HAS_PAGE (3ULL << 62)

static void *map_sparse(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	/* Where there are no huge pages there is nothing to decline. */
	(void)madvise(p, bytes, MADV_NOHUGEPAGE);
	return p;
}

static size_t bitmap_bytes(const struct arena *a)
{
	return ((size_t)(a->end - a->low_end) / 64 + 1) * sizeof(u64);
}

bool arena_make(struct arena *a, u64 low_bytes, u64 bytes)
{
	*a = (struct arena){.bytes = (size_t)bytes,
			    .low_end = (pfn_t)(low_bytes >> PAGE_SHIFT),
			    .end = (pfn_t)(bytes >> PAGE_SHIFT),
			    .file = -1};
	/* A host of 32 bits cannot hold every machine. */
	a->base = a->bytes == bytes ? map_sparse(a->bytes) : NULL;
	a->high_touched = map_sparse(bitmap_bytes(a));
	if (a->base && a->high_touched)
		return true;
	arena_free(a);
	return false;
}

static bool map_file(struct arena *a, u64 paddr, u64 bytes, u64 offset)
{
	return bytes == 0 || mmap(a->base + paddr, (size_t)bytes, PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_FIXED, a->file, (off_t)offset) != MAP_FAILED;
}

bool arena_share(struct arena *a, u64 low_bytes, u64 bytes, int file)
{
	u64 below = bytes < ARENA_HOLE_START ? bytes : ARENA_HOLE_START;
	u64 above = bytes > ARENA_HOLE_END ? bytes - ARENA_HOLE_END : 0;

	if (!arena_make(a, low_bytes, bytes))
		return false;
	a->file = file;
	if (map_file(a, 0, below, 0) && map_file(a, ARENA_HOLE_END, above, ARENA_HOLE_START))
		return true;
	arena_free(a);
	return false;
}

void arena_free(struct arena *a)
{
	if (a->base)
		munmap(a->base, a->bytes);
	if (a->high_touched)
		munmap(a->high_touched, bitmap_bytes(a));
	a->base = NULL;
	a->high_touched = NULL;
}

void arena_cursor_open(struct arena_cursor *c, const struct arena *a)
{
	c->arena = a;
	c->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	c->window_start = c->window_end = 0;
}

void arena_cursor_close(struct arena_cursor *c)
{
	if (c->pagemap >= 0)
		close(c->pagemap);
}

/* Asks about lowmem from `pfn` on. False: the host does not tell. */
static bool load_window(struct arena_cursor *c, pfn_t pfn)
{
	u64 first = ((uintptr_t)c->arena->base >> PAGE_SHIFT) + pfn;
	pfn_t frames = c->arena->low_end - pfn;
	ssize_t got;

	if (frames > ARENA_WINDOW_FRAMES)
		frames = ARENA_WINDOW_FRAMES;
	got = c->pagemap < 0 ? -1
			     : pread(c->pagemap, c->window, frames * sizeof(u64),
				     (off_t)(first * sizeof(u64)));
	if (got < (ssize_t)sizeof(u64))
		return false;
	c->window_start = pfn;
	c->window_end = pfn + (pfn_t)((size_t)got / sizeof(u64));
	return true;
}

static bool has_low(struct arena_cursor *c, pfn_t pfn)
{
	if ((pfn < c->window_start || pfn >= c->window_end) && !load_window(c, pfn))
		return true;
	return c->window[pfn - c->window_start] & PAGEMAP_HAS_PAGE;
}

static pfn_t next_low(struct arena_cursor *c, pfn_t from)
{
	for (pfn_t pfn = from; pfn < c->arena->low_end; pfn++) {
		if (has_low(c, pfn))
			return pfn;
	}
	return NONE;
}

static pfn_t next_high(const struct arena *a, pfn_t from)
{
	pfn_t bit = from - a->low_end, bits = a->end - a->low_end;

	while (bit < bits) {
		u64 rest = a->high_touched[bit / 64] >> bit % 64;

		if (rest)
			return a->low_end + bit + (pfn_t)__builtin_ctzll(rest);
		bit = (bit / 64 + 1) * 64;
	}
	return NONE;
}

/* A file knows itself where it has pages. */
static pfn_t next_in_file(const struct arena *a, pfn_t from)
{
	u64 at = (u64)from << PAGE_SHIFT, hole = ARENA_HOLE_END - ARENA_HOLE_START;
	off_t found;

	if (at >= ARENA_HOLE_START)
		at = at < ARENA_HOLE_END ? ARENA_HOLE_START : at - hole;
	found = lseek(a->file, (off_t)at, SEEK_DATA);
	if (found < 0)
		return NONE;
	at = (u64)found & ~(u64)(PAGE_SIZE - 1);
	if (at >= ARENA_HOLE_START)
		at += hole;
	return at >> PAGE_SHIFT < a->end ? (pfn_t)(at >> PAGE_SHIFT) : NONE;
}

bool arena_has(struct arena_cursor *c, pfn_t pfn)
{
	const struct arena *a = c->arena;

	if (a->file >= 0)
		return next_in_file(a, pfn) == pfn;
	if (pfn < a->low_end)
		return has_low(c, pfn);
	return a->high_touched[(pfn - a->low_end) / 64] >> (pfn - a->low_end) % 64 & 1;
}

pfn_t arena_next(struct arena_cursor *c, pfn_t from)
{
	if (c->arena->file >= 0)
		return next_in_file(c->arena, from);
	if (from < c->arena->low_end) {
		pfn_t pfn = next_low(c, from);

		if (pfn != NONE)
			return pfn;
		from = c->arena->low_end;
	}
	return next_high(c->arena, from);
}

void arena_copy(struct arena *to, const struct arena *from)
{
	struct arena_cursor c;

	arena_cursor_open(&c, from);
	for (pfn_t pfn = arena_next(&c, 0); pfn != NONE; pfn = arena_next(&c, pfn + 1)) {
		u64 offset = (u64)pfn << PAGE_SHIFT;

		memcpy(to->base + offset, from->base + offset, PAGE_SIZE);
		arena_mark(to, pfn);
	}
	arena_cursor_close(&c);
}

u64 arena_resident_bytes(const struct arena *a)
{
	struct arena_cursor c;
	struct stat st;
	u64 frames = 0;

	if (a->file >= 0)
		return fstat(a->file, &st) == 0 ? (u64)st.st_blocks * 512 : 0;
	arena_cursor_open(&c, a);
	for (pfn_t pfn = arena_next(&c, 0); pfn != NONE; pfn = arena_next(&c, pfn + 1))
		frames++;
	arena_cursor_close(&c);
	return frames << PAGE_SHIFT;
}
