/*
 * numbers.c - see numbers.h.
 *
 * Invariants: (1) numbers rise strictly from the first entry to the last, and none
 * exceeds t->last; (2) entry i lies in leaf i / 128, so the first nr entries fill
 * the leaves without a gap; (3) every leaf with an entry is there, and between ops
 * no other.
 *
 * Taking an entry out moves all that follow: at most 128 KiB, and objects that end
 * are worth more than that (a task's exit, a file's pages). In return a table is
 * as small as what it holds, and walking it in order needs no links.
 */
#include "numbers.h"
#include "../frames/slab.h"
#include "../port.h"
#include "../state.h"

static struct numbered *entry(const struct engine *e, const struct number_table *t, u32 i)
{
	struct numbered *leaf = at(e, t->leaf[i / NUMBERS_PER_LEAF]);

	return &leaf[i % NUMBERS_PER_LEAF];
}

static u32 leaves_needed(const struct number_table *t)
{
	return (t->nr + NUMBERS_PER_LEAF - 1) / NUMBERS_PER_LEAF;
}

u32 numbers_reserve(struct engine *e, struct number_table *t)
{
	ref_t *leaf = &t->leaf[t->nr / NUMBERS_PER_LEAF];

	if (t->nr == NUMBERS_MAX || t->last == 0xffffffff)
		return STATUS_LIMIT;
	if (!*leaf)
		*leaf = slab_alloc(e, SLAB_NUMBERS);
	return *leaf ? STATUS_OK : STATUS_NO_MEMORY;
}

void numbers_trim(struct engine *e, struct number_table *t)
{
	for (u32 i = leaves_needed(t); i < NUMBERS_LEAVES && t->leaf[i]; i++) {
		slab_free(e, SLAB_NUMBERS, t->leaf[i]);
		t->leaf[i] = 0;
	}
}

u32 numbers_add(struct engine *e, struct number_table *t, ref_t object)
{
	struct numbered *end = entry(e, t, t->nr);

	t->nr++;
	end->number = ++t->last;
	end->object = object;
	return end->number;
}

/* Index of the first entry whose number is not below. */
static __attribute__((noinline)) u32 search(const struct engine *e, const struct number_table *t,
					    u32 number)
{
	u32 low = 0, high = t->nr;

	while (low < high) {
		u32 middle = low + (high - low) / 2;

		if (entry(e, t, middle)->number < number)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

ref_t numbers_find(struct engine *e, const struct number_table *t, u32 number)
{
	/* Where it is as long as none below it has been taken out. */
	u32 i = number - 1;

	if (__builtin_expect(i < t->nr && entry(e, t, i)->number == number, 1))
		return entry(e, t, i)->object;
	i = search(e, t, number);
	return i < t->nr && entry(e, t, i)->number == number ? entry(e, t, i)->object : 0;
}

void numbers_remove(struct engine *e, struct number_table *t, u32 number)
{
	u32 i = search(e, t, number);

	ENGINE_ASSERT(e, i < t->nr && entry(e, t, i)->number == number);
	for (; i + 1 < t->nr; i++)
		*entry(e, t, i) = *entry(e, t, i + 1);
	*entry(e, t, i) = (struct numbered){0, 0};
	t->nr--;
	numbers_trim(e, t);
}

ref_t numbers_at(const struct engine *e, const struct number_table *t, u32 i)
{
	return entry(e, t, i)->object;
}

bool numbers_check(const struct engine *e, const struct number_table *t)
{
	u32 before = 0;

	if (t->nr > NUMBERS_MAX)
		return false;
	for (u32 i = 0; i < NUMBERS_LEAVES; i++)
		if ((t->leaf[i] != 0) != (i < leaves_needed(t)))
			return false;
	for (u32 i = 0; i < t->nr; i++) {
		u32 number = entry(e, t, i)->number;

		if (number <= before || number > t->last)
			return false;
		before = number;
	}
	return true;
}
