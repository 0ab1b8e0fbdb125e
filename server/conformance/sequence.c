/*
 * sequence.c - recordings with the whole state: sequences of allocations and frees, and
 * experiments that allocate until nothing is left.
 *
 * `init` lines are gathered into LoadState; each `op` line is performed and the zones'
 * counters and list hashes compared after it; `dump` and `end` lines are compared as
 * text, from the zone's number on. Of an `exhaust` file the first experiment is played:
 * between it and the next the recorded kernel did other things, which it does not tell.
 *
 * A recording is played in order and stops at its first difference, so what was played
 * until then is the shortest prefix that shows it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "box.h"

/* An experiment that allocates until it fails. */
struct exhaustion {
	uint32_t gfp, order;
	uint32_t *pfns; /* what it holds, oldest first */
	uint32_t nr, room;
	/* The last allocation, which belongs to the next run: Linux's recorder noticed a
	 * run's end by it. zone -1: it failed. */
	int64_t zone, pfn;
	bool begun, over;
};

struct player {
	struct box *b;
	struct conformance_report *r;
	struct state_words words;
	bool loaded;
	struct exhaustion exhaustion;
};

static bool answer_differs(struct player *p, const char *line, const char *answer)
{
	return differs(p->r,
		       "%s\n  recorded: %.3000s\n  shortest prefix: its first %" PRIu64 " ops",
		       answer, line, p->r->compared);
}

#define DIFFERS(p, line, ...)                                   \
	do {                                                    \
		char answer_[4096];                             \
                                                                \
		snprintf(answer_, sizeof answer_, __VA_ARGS__); \
		return answer_differs((p), (line), answer_);    \
	} while (0)

static u32 number(const json_t *object, const char *key)
{
	return (u32)json_integer_value(json_object_get(object, key));
}

static s64 signed_number(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

static u64 hex(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? strtoull(text, NULL, 16) : 0;
}

/* ---- the machine's state, as the inspection `state` gives it ---- */

struct state_row {
	u64 zone, lists, pcp_lists, pageblocks; /* hashes */
	u64 nr_free, boost, highatomic, diff, pcp, free_factor;
};

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

static void read_state(struct player *p, bool text, struct state_sink *s)
{
	const u64 args[OP_ARGS] = {0};

	*s = (struct state_sink){
	    .sink = {.text = take_text, .row = take_row, .want_text = text, .want_rows = !text}};
	sim_inspect(p->b->sim, INSPECT_STATE, args, &s->sink);
}

static struct state_row recorded_row(const json_t *s)
{
	return (struct state_row){
	    .zone = number(s, "z"),
	    .lists = hex(s, "zh"),
	    .pcp_lists = hex(s, "ph"),
	    .pageblocks = hex(s, "bh"),
	    .nr_free = number(s, "nf"),
	    .boost = number(s, "boost"),
	    .highatomic = number(s, "ha"),
	    .diff = (u64)signed_number(s, "nd"),
	    .pcp = number(s, "pc"),
	    .free_factor = number(s, "ff"),
	};
}

/* What an `exhaust` line has of a zone: counters without lists. */
static struct state_row recorded_counters(const json_t *s, const struct state_row *got)
{
	struct state_row want = *got;

	want.zone = number(s, "z");
	want.nr_free = number(s, "free");
	want.diff = (u64)signed_number(s, "diff");
	want.pcp = number(s, "pcp");
	want.boost = number(s, "boost");
	want.highatomic = number(s, "ha");
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

static bool compare_zones(struct player *p, const char *line, const json_t *recorded,
			  bool counters_only)
{
	struct state_sink state;
	const json_t *s;
	size_t i;

	read_state(p, false, &state);
	if (state.nr != json_array_size(recorded))
		DIFFERS(p, line, "%u zones, recorded %zu", state.nr, json_array_size(recorded));
	json_array_foreach (recorded, i, s) {
		const struct state_row *got = &state.rows[i];
		struct state_row want = counters_only ? recorded_counters(s, got) : recorded_row(s);
		char ours[400], theirs[400];

		if (memcmp(got, &want, sizeof want) == 0)
			continue;
		row_text(got, ours, sizeof ours);
		row_text(&want, theirs, sizeof theirs);
		DIFFERS(p, line, "zone %" PRIu64 " afterwards\n  machine:  %s\n  Linux:    %s",
			want.zone, ours, theirs);
	}
	return true;
}

/* A whole zone as text. What comes before the zone's number (kind of line, op) is
 * the recording's own. */
static bool compare_dump(struct player *p, const char *line, const json_t *object)
{
	struct state_sink state;
	char *row, *next;
	const char *want = strstr(line, "\"z\":");
	char key[16];
	bool same;

	read_state(p, true, &state);
	snprintf(key, sizeof key, "\"z\":%u,", number(object, "z"));
	for (row = state.text; row; row = next) {
		next = strchr(row, '\n');
		if (next)
			*next++ = 0;
		if (strstr(row, key))
			break;
	}
	same = row && want && strcmp(strstr(row, "\"z\":"), want) == 0;
	if (!same)
		differs(p->r, "the whole zone\n  machine:  %.3000s\n  recorded: %.3000s",
			row ? row : "(no such zone)", line);
	free(state.text);
	return same;
}

/* ---- sequences ---- */

static bool play_alloc(struct player *p, const char *line, const json_t *op)
{
	const char *gfp = json_string_value(json_object_get(op, "gfp"));
	s64 want_pfn = signed_number(op, "pfn"), want_zone = signed_number(op, "z");
	u32 status =
	    box_op(p->b, OP_ALLOC_PAGES, gfp ? strtoul(gfp, NULL, 16) : 0, number(op, "order"));
	const u64 *v = p->b->res.values;

	if (want_pfn < 0) {
		if (status == STATUS_NO_MEMORY)
			return true;
		DIFFERS(p, line, "op %u: status %u, frame %" PRIu64 "; Linux failed",
			number(op, "i"), status, v[0]);
	}
	if (status != STATUS_OK || (s64)v[0] != want_pfn || (s64)v[1] != want_zone)
		DIFFERS(p, line,
			"op %u: status %u, frame %" PRIu64 " of zone %" PRIu64
			"; Linux gave frame %" PRId64 " of zone %" PRId64,
			number(op, "i"), status, v[0], v[1], want_pfn, want_zone);
	return true;
}

static bool play_op(struct player *p, const char *line, const json_t *op)
{
	const char *word = json_string_value(json_object_get(op, "op"));
	u32 status;

	p->r->compared++;
	if (word && strcmp(word, "alloc") == 0) {
		if (!play_alloc(p, line, op))
			return false;
	} else {
		status = box_op(p->b, OP_FREE_PAGES, number(op, "pfn"), number(op, "order"));
		if (status != STATUS_OK)
			DIFFERS(p, line, "op %u: status %u; Linux freed it", number(op, "i"),
				status);
	}
	if (!compare_zones(p, line, json_object_get(op, "s"), false))
		return false;
	p->r->agreed++;
	return true;
}

/* ---- until nothing is left ---- */

static bool exhaust_more(struct player *p, const char *line)
{
	struct exhaustion *x = &p->exhaustion;

	p->r->compared++;
	x->zone = x->pfn = -1;
	if (box_op(p->b, OP_ALLOC_PAGES, x->gfp, x->order) != STATUS_OK)
		return true;
	x->pfn = (s64)p->b->res.values[0];
	x->zone = (s64)p->b->res.values[1];
	if (x->nr == x->room) {
		u32 room = x->room ? x->room * 2 : 65536;
		u32 *pfns = realloc(x->pfns, room * sizeof *pfns);

		if (!pfns)
			DIFFERS(p, line, "no memory for what the machine gave");
		x->pfns = pfns;
		x->room = room;
	}
	x->pfns[x->nr++] = (u32)x->pfn;
	return true;
}

/* What holds of a zone when it is left: free pages, mark, reserve and boost. */
static void why_left(struct player *p, s64 zone, char *to, size_t size)
{
	const struct zone *z =
	    zone >= 0 && zone < NR_ZONES ? &p->b->e->st->frames.zone[zone] : NULL;

	*to = 0;
	if (z)
		snprintf(to, size,
			 "; zone %d has nr_free %d, min %u low %u, boost %u, reserves %u %u %u %u, "
			 "highatomic %u",
			 (int)zone, (int)z->free, z->mark[MARK_MIN], z->mark[MARK_LOW], z->boost,
			 z->reserve[0], z->reserve[1], z->reserve[2], z->reserve[3], z->highatomic);
}

/* Linux took n blocks in a row from one zone; the one after them came from another. */
static bool play_run(struct player *p, const char *line, const json_t *run)
{
	struct exhaustion *x = &p->exhaustion;
	s64 zone = signed_number(run, "z"), last = x->pfn;
	u32 n = number(run, "n");
	char why[256];

	if (x->pfn != signed_number(run, "first"))
		DIFFERS(p, line, "the run begins with frame %" PRId64, x->pfn);
	for (u32 i = 0; i < n; i++) {
		if (x->zone != zone) {
			why_left(p, zone, why, sizeof why);
			DIFFERS(p, line, "block %u of %u of the run is of zone %" PRId64 "%s",
				i + 1, n, x->zone, why);
		}
		last = x->pfn;
		p->r->agreed++;
		if (!exhaust_more(p, line))
			return false;
	}
	if (last != signed_number(run, "last") || x->zone == zone) {
		why_left(p, zone, why, sizeof why);
		DIFFERS(p, line, "block %u is frame %" PRId64 ", the next is of zone %" PRId64 "%s",
			n, last, x->zone, why);
	}
	return compare_zones(p, line, json_object_get(run, "after_next"), true);
}

/* The newest first, as the recorder's list had them. */
static bool play_freed(struct player *p, const char *line, const json_t *freed)
{
	struct exhaustion *x = &p->exhaustion;

	while (x->nr) {
		u32 status = box_op(p->b, OP_FREE_PAGES, x->pfns[--x->nr], x->order);

		p->r->compared++;
		if (status != STATUS_OK)
			DIFFERS(p, line, "status %u for frame %u", status, x->pfns[x->nr]);
		p->r->agreed++;
	}
	x->over = true;
	return compare_zones(p, line, json_object_get(freed, "s"), true);
}

static bool play_exhaustion(struct player *p, const char *type, const char *line,
			    const json_t *object)
{
	struct exhaustion *x = &p->exhaustion;

	if (x->over)
		return true;
	if (strcmp(type, "exh") == 0) {
		x->gfp = (u32)hex(object, "gfp");
		x->order = number(object, "order");
		x->begun = true;
		return compare_zones(p, line, json_object_get(object, "s"), true) &&
		       exhaust_more(p, line);
	}
	if (strcmp(type, "run") == 0)
		return play_run(p, line, object);
	if (strcmp(type, "freed") == 0)
		return play_freed(p, line, object);
	if (x->zone != -1 || x->nr != number(object, "total"))
		DIFFERS(p, line, "after %u blocks the next is of zone %" PRId64, x->nr, x->zone);
	p->r->agreed++; /* the allocation that failed */
	return compare_zones(p, line, json_object_get(object, "s"), true);
}

/* ---- lines ---- */

static bool finish_loading(struct player *p, const char *line)
{
	if (p->loaded)
		return true;
	p->loaded = true;
	if (!state_words_finish(&p->words))
		DIFFERS(p, line, "the machine refused the recording's initial state");
	return true;
}

static bool play_line(struct player *p, const char *line, const json_t *object)
{
	static const char *const exhausting[] = {"exh", "run", "fail", "freed"};
	const char *type = json_string_value(json_object_get(object, "t"));

	if (!type)
		DIFFERS(p, line, "a line without a type");
	if (strcmp(type, "init") == 0) {
		if (!p->loaded)
			state_words_add(&p->words, object);
		return true;
	}
	if (strcmp(type, "op") == 0)
		return finish_loading(p, line) && play_op(p, line, object);
	for (unsigned i = 0; i < sizeof exhausting / sizeof exhausting[0]; i++)
		if (strcmp(type, exhausting[i]) == 0)
			return finish_loading(p, line) && play_exhaustion(p, type, line, object);
	if (strcmp(type, "dump") == 0 || (strcmp(type, "end") == 0 && !p->exhaustion.begun))
		return finish_loading(p, line) && compare_dump(p, line, object);
	/* The rest tells how the recording was made. What comes after `end` happened
	 * with interrupts on, and is not the sequence's alone. */
	return true;
}

/* Ops that are behind the first difference count as not agreed. */
static bool is_op(const char *line)
{
	return strstr(line, "\"t\":\"op\"") != NULL;
}

void check_sequence(const char *path, struct conformance_report *r)
{
	struct player *p = calloc(1, sizeof *p);
	struct lines *lines = lines_open(path);
	char folder[4096];
	const char *line;
	bool agrees = true;

	folder_of(path, folder, sizeof folder);
	if (p && lines) {
		p->r = r;
		p->b = box_new_from(folder, r);
		p->words.send = box_load;
		p->words.user = p->b;
	}
	while (p && p->b && (line = lines_next(lines))) {
		if (agrees) {
			json_t *object = json_loads(line, 0, NULL);

			agrees =
			    object ? play_line(p, line, object)
				   : differs(r, "line %" PRIu64 " is no JSON", lines_number(lines));
			json_decref(object);
		} else {
			r->compared += is_op(line);
		}
	}
	if (!lines || lines_broken(lines))
		differs(r, "%s cannot be read to its end", path);
	lines_close(lines);
	if (p) {
		if (p->b && p->exhaustion.over)
			note(r, "the first experiment");
		free(p->exhaustion.pfns);
		box_free(p->b);
	}
	free(p);
}
