/*
 * walk.c - a machine's frames one after the other, for whoever keeps or copies them.
 */
#include <stdlib.h>
#include <unistd.h>

#include "sim_internal.h"
#include "state.h"

#define NONE 0xffffffffu

struct sim_walk {
	struct sim *sim;
	struct arena_cursor cursor;
	pfn_t next;
};

struct sim_walk *sim_walk_new(struct sim *s)
{
	struct sim_walk *w = malloc(sizeof *w);

	if (!w)
		return NULL;
	w->sim = s;
	w->next = 0;
	arena_cursor_open(&w->cursor, &s->arena);
	return w;
}

void sim_walk_free(struct sim_walk *w)
{
	if (!w)
		return;
	arena_cursor_close(&w->cursor);
	free(w);
}

static bool is_zero(const u8 *bytes)
{
	const u64 *words = (const u64 *)(const void *)bytes;
	u64 any = 0;

	/* In steps, because most frames that are not zero are so early. */
	for (u32 i = 0; i < PAGE_SIZE / sizeof any && !any; i += 8)
		for (u32 k = 0; k < 8; k++)
			any |= words[i + k];
	return !any;
}

pfn_t sim_walk_next(struct sim_walk *w, const u8 **ret_bytes)
{
	const struct layout *l = &w->sim->engine.st->layout;

	while (w->next < l->max_pfn) {
		pfn_t pfn = arena_next(&w->cursor, w->next);
		const u8 *bytes;

		if (pfn == NONE)
			break;
		w->next = pfn + 1;
		bytes = sim_ram(w->sim, (u64)pfn << PAGE_SHIFT);
		if (!bytes || pfn - l->host_start < l->host_end - l->host_start || is_zero(bytes))
			continue;
		*ret_bytes = bytes;
		return pfn;
	}
	w->next = NONE;
	return NONE;
}

bool sim_write_ram(struct sim *s, int ram_file)
{
	struct sim_walk *w = sim_walk_new(s);
	const u8 *bytes;
	bool ok = w != NULL;
	pfn_t pfn;

	while (ok && (pfn = sim_walk_next(w, &bytes)) != NONE)
		ok = pwrite(ram_file, bytes, PAGE_SIZE,
			    (off_t)arena_file_offset((u64)pfn << PAGE_SHIFT)) == PAGE_SIZE;
	sim_walk_free(w);
	return ok;
}
