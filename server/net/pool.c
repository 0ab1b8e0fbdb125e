/*
 * pool.c - size-class memory and byte queues.
 *
 * Invariants:
 *  1. Every block is preceded by a struct pool_block that names its class.
 *  2. A block is either out, or in the list of its class; never both.
 *  3. buffer: start <= end <= room, and an empty buffer has start == end == 0.
 *
 * Not modelled: several threads, accounting of what is out.
 */
#include "pool.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define POOL_KEEPS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POOL_KEEPS 0
#endif
#endif
#ifndef POOL_KEEPS
#define POOL_KEEPS 1
#endif

struct pool_block {
	union {
		alignas(max_align_t) struct pool_block *next; /* while it is kept */
		size_t size; /* while it is out: what the caller may use */
	};
	unsigned class; /* POOL_CLASSES: too large for any */
};

enum {
	BUFFER_FIRST = 496,	  /* with its block header it fills the class of 512 */
	BUFFER_KEEP = 256 * 1024, /* an empty buffer above this is given back */
};

static unsigned class_of(size_t total)
{
	/* With its header no block is smaller than two bytes. */
	unsigned bits = 64 - (unsigned)__builtin_clzll(total - 1);

	if (bits <= POOL_SHIFT_MIN)
		return 0;
	return bits - POOL_SHIFT_MIN < POOL_CLASSES ? bits - POOL_SHIFT_MIN : POOL_CLASSES;
}

static size_t class_size(unsigned class)
{
	return (size_t)1 << (class + POOL_SHIFT_MIN);
}

void *pool_alloc(struct pool *pool, size_t size)
{
	size_t total = size + sizeof(struct pool_block);
	unsigned class = class_of(total);
	struct pool_block *block = class < POOL_CLASSES ? pool->free[class] : NULL;

	if (block) {
		pool->free[class] = block->next;
		pool->kept[class]--;
		block->size = class_size(class) - sizeof(*block);
		return block + 1;
	}
	if (class < POOL_CLASSES && POOL_KEEPS)
		total = class_size(class);
	block = total > size ? malloc(total) : NULL;
	if (!block)
		abort();
	block->class = class;
	block->size = total - sizeof(*block);
	return block + 1;
}

void pool_free(struct pool *pool, void *bytes)
{
	struct pool_block *block = bytes;
	unsigned class;

	if (!bytes)
		return;
	block--;
	class = block->class;
	if (!POOL_KEEPS || class == POOL_CLASSES ||
	    pool->kept[class] >= POOL_KEEP / class_size(class)) {
		free(block);
		return;
	}
	block->next = pool->free[class];
	pool->free[class] = block;
	pool->kept[class]++;
}

void *pool_realloc(struct pool *pool, void *bytes, size_t size)
{
	struct pool_block *block = bytes;
	void *moved;

	if (!bytes)
		return pool_alloc(pool, size);
	block--;
	if (size <= block->size)
		return bytes;
	moved = pool_alloc(pool, size);
	memcpy(moved, bytes, block->size);
	pool_free(pool, bytes);
	return moved;
}

void pool_drain(struct pool *pool)
{
	for (unsigned class = 0; class < POOL_CLASSES; class ++) {
		while (pool->free[class]) {
			struct pool_block *block = pool->free[class];

			pool->free[class] = block->next;
			free(block);
		}
		pool->kept[class] = 0;
	}
}

uint8_t *buffer_extend(struct pool *pool, struct buffer *b, size_t length)
{
	size_t held = buffer_length(b);
	uint8_t *at;

	if (b->room - b->end < length) {
		size_t room = b->room ? b->room : BUFFER_FIRST;

		/* Moving is worth it only if it frees at least as much as it copies. */
		if (b->start >= held && b->room - held >= length) {
			memcpy(b->bytes, b->bytes + b->start, held);
		} else {
			uint8_t *bytes;

			while (room - held < length)
				room *= 2;
			bytes = pool_alloc(pool, room);
			if (held)
				memcpy(bytes, b->bytes + b->start, held);
			pool_free(pool, b->bytes);
			b->bytes = bytes;
			b->room = room;
		}
		b->start = 0;
		b->end = held;
	}
	at = b->bytes + b->end;
	b->end += length;
	return at;
}

void buffer_append(struct pool *pool, struct buffer *b, const uint8_t *bytes, size_t length)
{
	if (length)
		memcpy(buffer_extend(pool, b, length), bytes, length);
}

void buffer_consume(struct pool *pool, struct buffer *b, size_t length)
{
	b->start += length;
	if (b->start < b->end)
		return;
	b->start = b->end = 0;
	if (b->room > BUFFER_KEEP)
		buffer_clear(pool, b);
}

void buffer_clear(struct pool *pool, struct buffer *b)
{
	pool_free(pool, b->bytes);
	*b = (struct buffer){0};
}
