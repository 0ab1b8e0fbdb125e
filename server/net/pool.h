/*
 * pool.h - memory in size classes, for one thread.
 *
 * HTTP/2 makes and drops the same few sizes for every request. A pool keeps what is
 * given back, by size class, up to POOL_KEEP bytes per class; the rest goes back to
 * the C library at once. Built with the address sanitizer it keeps nothing, so that a
 * use after free stays visible.
 *
 * Blocks are aligned as malloc's are. When the machine is out of memory, pool_alloc()
 * aborts: a daemon that cannot hold a frame header can answer nobody.
 */
#ifndef NET_POOL_H
#define NET_POOL_H

#include <stddef.h>
#include <stdint.h>

enum {
	POOL_SHIFT_MIN = 6,	 /* smallest class: 64 bytes */
	POOL_CLASSES = 10,	 /* largest: 32 KiB */
	POOL_KEEP = 1024 * 1024, /* bytes kept per class */
};

struct pool_block;

struct pool {
	struct pool_block *free[POOL_CLASSES];
	uint32_t kept[POOL_CLASSES]; /* blocks in each list */
};

void *pool_alloc(struct pool *pool, size_t size);
void *pool_realloc(struct pool *pool, void *bytes, size_t size);
void pool_free(struct pool *pool, void *bytes); /* NULL is fine */
/* Gives back everything that is kept. The pool may be used again. */
void pool_drain(struct pool *pool);

/* A growing queue of bytes: [start, end) is held, room is what is allocated. */
struct buffer {
	uint8_t *bytes;
	size_t start, end, room;
};

static inline size_t buffer_length(const struct buffer *b)
{
	return b->end - b->start;
}

/* Room for `length` bytes at the end, already counted as held. */
uint8_t *buffer_extend(struct pool *pool, struct buffer *b, size_t length);
void buffer_append(struct pool *pool, struct buffer *b, const uint8_t *bytes, size_t length);
/* Drops `length` bytes from the front; an empty large buffer gives its memory back. */
void buffer_consume(struct pool *pool, struct buffer *b, size_t length);
void buffer_clear(struct pool *pool, struct buffer *b);

#endif
