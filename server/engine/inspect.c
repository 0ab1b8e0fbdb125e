/*
 * inspect.c - which question is answered where.
 */
#include "event.h"
#include "text.h"
#include "wings.h"

struct inspect_entry {
	inspect_fn *fn;
	bool early; /* can be asked before Boot */
};

static const struct inspect_entry inspect_table[] = {
    [INSPECT_ZONEINFO] = {inspect_zoneinfo, false},
    [INSPECT_BUDDYINFO] = {inspect_buddyinfo, false},
    [INSPECT_PAGETYPEINFO] = {inspect_pagetypeinfo, false},
    [INSPECT_VMALLOCINFO] = {inspect_vmallocinfo, false},
    [INSPECT_MEMINFO] = {inspect_meminfo, false},
    [INSPECT_MAPS] = {inspect_maps, false},
    [INSPECT_MEMBLOCK] = {inspect_memblock, true},
    [INSPECT_LAYOUT] = {inspect_layout, true},
    [INSPECT_PAGE] = {inspect_page, false},
    [INSPECT_WALK] = {inspect_walk, false},
    [INSPECT_FRAME_MAP] = {inspect_frame_map, false},
    [INSPECT_KMAP_WINDOW] = {inspect_kmap_window, false},
    [INSPECT_TASKS] = {inspect_tasks, false},
    [INSPECT_STATISTICS] = {inspect_statistics, true},
    [INSPECT_STATE] = {inspect_state, false},
};

u32 engine_inspect(struct engine *e, u32 question, const u64 args[OP_ARGS],
		   struct inspect_sink *sink)
{
	const struct inspect_entry *entry;

	if (question >= sizeof inspect_table / sizeof inspect_table[0] ||
	    !inspect_table[question].fn)
		return STATUS_INVALID;
	entry = &inspect_table[question];
	if (e->st->phase == PHASE_EARLY && !entry->early)
		return STATUS_INVALID;
	return entry->fn(e, args, sink);
}

/* Kinds are printed by number here and by name by whoever knows the contract. */
u32 inspect_statistics(struct engine *e, const u64 args[OP_ARGS], struct inspect_sink *sink)
{
	(void)args;
	say(sink, "ops %llu\n", (unsigned long long)e->st->op_count);
	for (u32 kind = 1; kind < EVENT_KIND_END; kind++) {
		if (!e->st->event_counts[kind])
			continue;
		say(sink, "event %2u %llu\n", kind, (unsigned long long)e->st->event_counts[kind]);
		ROW(sink, ROW_STATISTICS_EVENTS, kind, e->st->event_counts[kind]);
	}
	return STATUS_OK;
}
