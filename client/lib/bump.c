/*
 * bump.c - memory that is given piece by piece and taken back all at once.
 *
 * A batch of results is thousands of small objects that die together; this is what a
 * reader of batches spends least on.
 */
#include <stdlib.h>

#include "client.h"

enum { CHUNK_BYTES = 64 << 10, ALIGNMENT = _Alignof(max_align_t) };

struct bump_chunk {
	struct bump_chunk *next; /* an older one */
	size_t used, size;
	_Alignas(ALIGNMENT) uint8_t bytes[];
};

static void *give(void *data, size_t size)
{
	struct bump *a = data;
	struct bump_chunk *c = a->chunks;

	if (size > SIZE_MAX - sizeof *c - ALIGNMENT)
		return NULL;
	size = (size + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
	if (!c || c->size - c->used < size) {
		size_t room = size > CHUNK_BYTES ? size : CHUNK_BYTES;

		c = malloc(sizeof *c + room);
		if (!c)
			return NULL;
		c->next = a->chunks;
		c->used = 0;
		c->size = room;
		a->chunks = c;
	}
	c->used += size;
	return c->bytes + c->used - size;
}

/* Pieces are not taken back one by one. */
static void keep(void *data, void *piece)
{
	(void)data;
	(void)piece;
}

void bump_init(struct bump *a)
{
	a->allocator = (ProtobufCAllocator){give, keep, a};
	a->chunks = NULL;
}

/* The oldest chunk is kept: the next batch wants it again. */
void bump_reset(struct bump *a)
{
	struct bump_chunk *c;

	while ((c = a->chunks) && c->next) {
		a->chunks = c->next;
		free(c);
	}
	if (c)
		c->used = 0;
}

void bump_free(struct bump *a)
{
	bump_reset(a);
	free(a->chunks);
	a->chunks = NULL;
}
