/*
 * player.c - see player.h. The machine's state is what its inspection `state` says: rows
 * for counters and hashes, text for whole zones.
 */
#include "player.h"
#include "adopt.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

u32 json_u32(const json_t *object, const char *key)
{
	return (u32)json_integer_value(json_object_get(object, key));
}

s64 json_s64(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

u64 json_hex(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? strtoull(text, NULL, 16) : 0;
}

bool player_differs(struct player *p, const char *line, const char *format, ...)
{
	char answer[4096];
	va_list args;

	va_start(args, format);
	vsnprintf(answer, sizeof answer, format, args);
	va_end(args);
	return differs(p->r,
		       "%s\n  recorded: %.3000s\n  shortest prefix: its first %" PRIu64 " ops",
		       answer, line, p->r->compared);
}

/* ---- the machine's state ---- */

struct state_sink {
	struct inspect_sink sink;
	struct state_row rows[NR_ZONES];
	u32 nr;
	char *text;
	size_t length;
};

static void take_row(struct inspect_sink *sink, u32 type, const u64 *v, u32 nr_values)
{
	struct state_sink *s = (struct state_sink *)sink;

	(void)type, (void)nr_values;
	s->rows[s->nr++] = (struct state_row){v[0], v[1], v[2],		  v[3], v[4],
					      v[5], v[6], (u64)(s32)v[7], v[8], v[9]};
}

static void take_text(struct inspect_sink *sink, const char *bytes, u32 length)
{
	struct state_sink *s = (struct state_sink *)sink;
	char *text = realloc(s->text, s->length + length + 1);

	if (!text)
		return;
	s->text = text;
	memcpy(text + s->length, bytes, length);
	s->length += length;
	text[s->length] = 0;
}

static void read_state(struct player *p, u32 cpu, bool text, struct state_sink *s)
{
	const u64 args[OP_ARGS] = {cpu};

	*s = (struct state_sink){
	    .sink = {.text = take_text, .row = take_row, .want_text = text, .want_rows = !text}};
	sim_inspect(p->b->sim, INSPECT_STATE, args, &s->sink);
}

/* ---- counters and hashes ---- */

static struct state_row recorded_row(const json_t *s)
{
	return (struct state_row){
	    .zone = json_u32(s, "z"),
	    .lists = json_hex(s, "zh"),
	    .pcp_lists = json_hex(s, "ph"),
	    .pageblocks = json_hex(s, "bh"),
	    .nr_free = json_u32(s, "nf"),
	    .boost = json_u32(s, "boost"),
	    .highatomic = json_u32(s, "ha"),
	    .diff = (u64)json_s64(s, "nd"),
	    .pcp = json_u32(s, "pc"),
	    .free_factor = json_u32(s, "ff"),
	};
}

/* What an experiment's line has of a zone: counters without lists. */
static struct state_row recorded_counters(const json_t *s, const struct state_row *got)
{
	struct state_row want = *got;

	want.zone = json_u32(s, "z");
	want.nr_free = json_u32(s, "free");
	want.diff = (u64)json_s64(s, "diff");
	want.pcp = json_u32(s, "pcp");
	want.boost = json_u32(s, "boost");
	want.highatomic = json_u32(s, "ha");
	return want;
}

static void row_text(const struct state_row *z, char *to, size_t size)
{
	snprintf(to, size,
		 "nr_free %" PRIu64 " diff %" PRId64 " boost %" PRIu64 " highatomic %" PRIu64
		 " pcp %" PRIu64 " free_factor %" PRIu64 " lists %016" PRIx64
		 " pcp lists %016" PRIx64 " pageblocks %016" PRIx64,
		 z->nr_free, (s64)z->diff, z->boost, z->highatomic, z->pcp, z->free_factor,
		 z->lists, z->pcp_lists, z->pageblocks);
}

static bool row_agrees(struct player *p, const char *line, u32 cpu, const struct state_row *got,
		       const struct state_row *want)
{
	char ours[400], theirs[400];

	if (memcmp(got, want, sizeof *got) == 0)
		return true;
	row_text(got, ours, sizeof ours);
	row_text(want, theirs, sizeof theirs);
	return player_differs(p, line,
			      "zone %" PRIu64 " afterwards, lists of CPU %u\n  machine:  %s\n"
			      "  Linux:    %s",
			      want->zone, cpu, ours, theirs);
}

/* A CPU after the first: an op line has its own counters in the zone's array "cpus". */
static bool cpu_agrees(struct player *p, const char *line, const json_t *zones, u32 cpu)
{
	struct state_sink state;
	const json_t *zone;
	size_t i;

	read_state(p, cpu, false, &state);
	if (state.nr != json_array_size(zones))
		return player_differs(p, line, "no CPU %u", cpu);
	json_array_foreach (zones, i, zone) {
		const json_t *s = json_array_get(json_object_get(zone, "cpus"), cpu - 1);
		struct state_row want = state.rows[i];

		want.pcp_lists = json_hex(s, "ph");
		want.diff = (u64)json_s64(s, "nd");
		want.pcp = json_u32(s, "pc");
		want.free_factor = json_u32(s, "ff");
		if (!row_agrees(p, line, cpu, &state.rows[i], &want))
			return false;
	}
	return true;
}

bool player_zones_agree(struct player *p, const char *line, const json_t *recorded,
			bool counters_only)
{
	u32 cpus = (u32)json_array_size(json_object_get(json_array_get(recorded, 0), "cpus")) + 1;
	struct state_sink state;
	const json_t *s;
	size_t i;

	read_state(p, 0, false, &state);
	if (state.nr != json_array_size(recorded))
		return player_differs(p, line, "%u zones, recorded %zu", state.nr,
				      json_array_size(recorded));
	json_array_foreach (recorded, i, s) {
		struct state_row *got = &state.rows[i];
		struct state_row want = counters_only ? recorded_counters(s, got) : recorded_row(s);

		if (cpus == 1)
			adopt_fold(p, got, &want);
		if (got->pageblocks != want.pageblocks)
			adopt_type(p, got, &want);
		if (!row_agrees(p, line, 0, got, &want))
			return false;
	}
	for (u32 cpu = 1; cpu < cpus; cpu++)
		if (!cpu_agrees(p, line, recorded, cpu))
			return false;
	return true;
}

/* ---- whole zones ---- */

/* A zone's text from its number on. What comes before (kind of line, op) is the
 * recording's own, and lists of CPUs that it does not tell of are cut off. */
static bool same_zone(char *row, const char *line)
{
	const char *want = strstr(line, "\"z\":");
	char *got = row ? strstr(row, "\"z\":") : NULL, *more;

	if (!want || !got)
		return false;
	more = strstr(got, ",\"pcp1\":");
	if (more && !strstr(want, ",\"pcp1\":")) {
		more[0] = '}';
		more[1] = '\0';
	}
	return strcmp(got, want) == 0;
}

bool player_dump_agrees(struct player *p, const char *line, const json_t *object)
{
	struct state_sink state;
	char *row, *next;
	char key[16];
	bool same;

	read_state(p, 0, true, &state);
	snprintf(key, sizeof key, "\"z\":%u,", json_u32(object, "z"));
	for (row = state.text; row; row = next) {
		next = strchr(row, '\n');
		if (next)
			*next++ = 0;
		if (strstr(row, key))
			break;
	}
	same = same_zone(row, line);
	if (!same)
		differs(p->r, "the whole zone\n  machine:  %.3000s\n  recorded: %.3000s",
			row ? row : "(no such zone)", line);
	free(state.text);
	return same;
}
