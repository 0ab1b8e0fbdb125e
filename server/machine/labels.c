/*
 * labels.c - the owner labels of a machine, and their numbers.
 *
 * Invariants:
 *  1. A label is found by its text from the moment a client mentions it, but has a
 *     number only from the first op that is taken up with it; so numbers are in the
 *     order of first use, whatever was refused or given up in between.
 *  2. Numbers are dense from 1. by_number[n - 1] is the label with number n.
 *  3. A label lives as long as its machine: pointers to it may be kept.
 */
#include "machine_priv.h"

#include <stdlib.h>
#include <string.h>

uint64_t hash_bytes(const void *bytes, size_t length)
{
	const uint8_t *b = bytes;
	uint64_t h = 0xcbf29ce484222325u; /* FNV-1a, 64 bits */

	for (size_t i = 0; i < length; i++)
		h = (h ^ b[i]) * 0x100000001b3u;
	return h;
}

void *grow(void *items, uint32_t *max, uint32_t need, size_t size)
{
	uint32_t n = *max ? *max : 16;

	if (need <= *max)
		return items;
	while (n < need)
		n *= 2;
	items = realloc(items, n * size);
	if (!items)
		abort();
	*max = n;
	return items;
}

static struct machine_label **slot_of(struct labels *l, uint64_t hash, const char *text,
				      size_t length)
{
	uint32_t i = (uint32_t)hash & (l->table_size - 1);

	for (;; i = (i + 1) & (l->table_size - 1)) {
		struct machine_label *at = l->table[i];

		if (!at || (at->hash == hash && at->length == length &&
			    memcmp(at->text, text, length) == 0))
			return &l->table[i];
	}
}

static void widen(struct labels *l)
{
	struct machine_label **old = l->table;
	uint32_t old_size = l->table_size;

	l->table_size = old_size ? old_size * 2 : 16;
	l->table = calloc(l->table_size, sizeof *l->table);
	if (!l->table)
		abort();
	for (uint32_t i = 0; i < old_size; i++)
		if (old[i])
			*slot_of(l, old[i]->hash, old[i]->text, old[i]->length) = old[i];
	free(old);
}

struct machine_label *labels_find(struct labels *l, const char *text, size_t length, unsigned limit)
{
	uint64_t hash = hash_bytes(text, length);
	struct machine_label **slot, *label;

	/* Half full at most, so that a search ends soon. */
	if (l->nr * 2 >= l->table_size)
		widen(l);
	slot = slot_of(l, hash, text, length);
	if (*slot || l->nr >= limit)
		return *slot;
	label = malloc(sizeof *label + length + 1);
	if (!label)
		abort();
	label->number = 0;
	label->length = (uint32_t)length;
	label->hash = hash;
	memcpy(label->text, text, length);
	label->text[length] = 0;
	l->nr++;
	return *slot = label;
}

void labels_number(struct labels *l, struct machine_label *label, uint32_t number)
{
	l->by_number = grow(l->by_number, &l->numbers_size, number, sizeof(void *));
	while (l->numbered < number)
		l->by_number[l->numbered++] = NULL;
	l->by_number[number - 1] = label;
	label->number = number;
}

void labels_forget_numbers(struct labels *l)
{
	for (uint32_t i = 0; i < l->numbered; i++)
		if (l->by_number[i])
			l->by_number[i]->number = 0;
	l->numbered = 0;
}

void labels_clear(struct labels *l)
{
	for (uint32_t i = 0; i < l->table_size; i++)
		free(l->table[i]);
	free(l->table);
	free(l->by_number);
	*l = (struct labels){0};
}
