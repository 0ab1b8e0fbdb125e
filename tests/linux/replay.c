/*
 * replay.c - recordings, played and compared. See replay.h.
 *
 * A line at a time: `init` lines are gathered into the records of LoadState
 * (server/engine/frames/load_state.h); each `op` line is performed and its `s` array
 * compared with the machine's rows; `dump`, `end` and `enddrained` lines are compared
 * as text, from the zone's number on.
 */
#include "replay.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "contract.h"
#include "frames/load_state.h"

/* ---- boot messages ---- */

static uint32_t type_of_e820(const char *word)
{
	return strcmp(word, "usable") == 0 ? 1 : 2;
}

bool replay_read_config(const char *dmesg_path, struct replay_config *ret)
{
	FILE *f = fopen(dmesg_path, "r");
	char line[1024];

	*ret = (struct replay_config){0};
	if (!f)
		return false;
	while (fgets(line, sizeof line, f)) {
		const char *entry = strstr(line, "BIOS-e820: [mem ");
		unsigned long long first, last;
		char type[32];

		ret->pae |= strstr(line, "Linux version") && strstr(line, "-686-pae ");
		ret->thp_off |= strstr(line, "Kernel command line") &&
				strstr(line, "transparent_hugepage=never");
		if (!entry || ret->nr_e820 == REPLAY_MAX_E820 ||
		    sscanf(entry, "BIOS-e820: [mem %llx-%llx] %31s", &first, &last, type) != 3)
			continue;
		ret->e820[ret->nr_e820++] =
		    (struct replay_e820){first, last - first + 1, type_of_e820(type)};
	}
	fclose(f);
	return ret->nr_e820 > 0;
}

/* ---- lines of a compressed file ---- */

struct reader {
	gzFile file;
	char *line;
	size_t room;
};

/* The next line, without its end, good until the next call. NULL at the end. */
static const char *read_line(struct reader *r)
{
	size_t length = 0;

	for (;;) {
		if (r->room - length < 2) {
			r->room = r->room ? r->room * 2 : 65536;
			r->line = realloc(r->line, r->room);
			if (!r->line)
				return NULL;
		}
		if (!gzgets(r->file, r->line + length, (int)(r->room - length)))
			return length ? r->line : NULL;
		length += strlen(r->line + length);
		if (r->line[length - 1] == '\n') {
			r->line[length - 1] = 0;
			return r->line;
		}
	}
}

/* ---- the records of LoadState ---- */

/* Records that are not yet sent, at most one payload. */
struct loader {
	const struct replay_machine *m;
	uint8_t data[LOAD_MAX_WORDS * 4];
	uint32_t words;
	bool refused;
};

static void put_word(struct loader *l, uint32_t word)
{
	uint8_t *at = l->data + l->words++ * 4;

	for (int i = 0; i < 4; i++)
		at[i] = (uint8_t)(word >> 8 * i);
}

static void send(struct loader *l, bool last)
{
	const uint64_t args[6] = {last};
	uint64_t values[4];
	uint32_t status;

	if (!l->refused)
		l->refused = !l->m->op(l->m->user, OP_LOAD_STATE, args, l->data, l->words * 4,
				       &status, values) ||
			     status != STATUS_OK;
	l->words = 0;
}

/* Begins a record of n words, in a new payload if it has no room in this one. */
static void begin_record(struct loader *l, uint32_t kind, uint32_t zone, uint32_t n)
{
	if (l->words + 1 + n > LOAD_MAX_WORDS)
		send(l, false);
	put_word(l, kind | zone << 8 | n << 16);
}

static uint32_t number(const json_t *object, const char *key)
{
	return (uint32_t)json_integer_value(json_object_get(object, key));
}

static uint32_t element(const json_t *array, size_t i)
{
	return (uint32_t)json_integer_value(json_array_get(array, i));
}

/* A list, in as many records as it takes. */
static void load_list(struct loader *l, uint32_t kind, uint32_t zone, uint32_t which,
		      const json_t *pfns)
{
	enum { PIECE = 4096 };
	size_t nr = json_array_size(pfns);

	for (size_t from = 0; from < nr; from += PIECE) {
		size_t n = nr - from < PIECE ? nr - from : PIECE;

		begin_record(l, kind, zone, (uint32_t)n + 1);
		put_word(l, which);
		for (size_t i = 0; i < n; i++)
			put_word(l, element(pfns, from + i));
	}
}

static void load_pageblocks(struct loader *l, uint32_t zone, const char *types)
{
	uint32_t nr = (uint32_t)strlen(types);
	uint32_t words = (nr + LOAD_TYPES_PER_WORD - 1) / LOAD_TYPES_PER_WORD;

	begin_record(l, LOAD_PAGEBLOCKS, zone, 2 + words);
	put_word(l, 0);
	put_word(l, nr);
	for (uint32_t i = 0; i < words; i++) {
		uint32_t word = 0;

		for (uint32_t k = 0; k < LOAD_TYPES_PER_WORD; k++) {
			uint32_t at = i * LOAD_TYPES_PER_WORD + k;

			word |= at < nr ? (uint32_t)(types[at] - '0') << 4 * k : 0;
		}
		put_word(l, word);
	}
}

static void load_zone(struct loader *l, const json_t *init)
{
	static const char *const scalars[] = {"start", "spanned", "present", "managed"};
	const json_t *free_lists = json_object_get(init, "free"), *orders, *list;
	const json_t *pcp = json_object_get(init, "pcp");
	uint32_t zone = number(init, "z");
	size_t order, i;

	begin_record(l, LOAD_ZONE, zone, LOAD_ZONE_WORDS);
	for (i = 0; i < sizeof scalars / sizeof scalars[0]; i++)
		put_word(l, number(init, scalars[i]));
	for (i = 0; i < 3; i++)
		put_word(l, element(json_object_get(init, "wmark"), i));
	put_word(l, number(init, "boost"));
	put_word(l, number(init, "highatomic"));
	for (i = 0; i < REPLAY_ZONES; i++)
		put_word(l, element(json_object_get(init, "reserve"), i));
	put_word(l, number(init, "nr_free"));
	load_pageblocks(l, zone, json_string_value(json_object_get(init, "pb")));
	json_array_foreach (free_lists, order, orders) {
		json_array_foreach (orders, i, list) {
			load_list(l, LOAD_FREE, zone, (uint32_t)(order << 8 | i), list);
		}
	}
	json_array_foreach (json_object_get(pcp, "lists"), i, list) {
		load_list(l, LOAD_PCP_LIST, zone, (uint32_t)i, list);
	}
	begin_record(l, LOAD_PCP, zone, LOAD_PCP_WORDS);
	put_word(l, 0);
	put_word(l, number(pcp, "count"));
	put_word(l, number(pcp, "high"));
	put_word(l, number(pcp, "batch"));
	put_word(l, number(pcp, "free_factor"));
	put_word(l, number(init, "nr_free_diff"));
}

/* ---- comparing ---- */

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
	const struct replay_machine *m;
	struct replay_report *report;
	struct loader loader;
	bool loaded;
	bool unboost; /* a boost is taken back at once: see trace_to_sequence.py */
	struct exhaustion exhaustion;
};

static bool differs(struct player *p, const char *line, const char *format, ...)
{
	char *at = p->report->difference, *end = at + sizeof p->report->difference;
	va_list args;

	va_start(args, format);
	at += vsnprintf(at, (size_t)(end - at), format, args);
	va_end(args);
	if (at < end)
		snprintf(at, (size_t)(end - at), "\n  recorded: %.3000s", line);
	return false;
}

static uint64_t hex(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? strtoull(text, NULL, 16) : 0;
}

static struct replay_zone recorded_zone(const json_t *s)
{
	return (struct replay_zone){
	    .zone = number(s, "z"),
	    .lists_hash = hex(s, "zh"),
	    .pcp_hash = hex(s, "ph"),
	    .pageblocks_hash = hex(s, "bh"),
	    .nr_free = number(s, "nf"),
	    .boost = number(s, "boost"),
	    .highatomic = number(s, "ha"),
	    .nr_free_diff = (int32_t)number(s, "nd"),
	    .pcp = number(s, "pc"),
	    .free_factor = number(s, "ff"),
	};
}

static bool same_zone(const struct replay_zone *a, const struct replay_zone *b)
{
	return a->zone == b->zone && a->lists_hash == b->lists_hash && a->pcp_hash == b->pcp_hash &&
	       a->pageblocks_hash == b->pageblocks_hash && a->nr_free == b->nr_free &&
	       a->boost == b->boost && a->highatomic == b->highatomic &&
	       a->nr_free_diff == b->nr_free_diff && a->pcp == b->pcp &&
	       a->free_factor == b->free_factor;
}

static bool compare_zones(struct player *p, const char *line, const json_t *recorded)
{
	struct replay_zone zones[REPLAY_ZONES];
	uint32_t nr = p->m->state(p->m->user, zones);
	const json_t *s;
	size_t i;

	if (nr != json_array_size(recorded))
		return differs(p, line, "%u zones, recorded %zu", nr, json_array_size(recorded));
	json_array_foreach (recorded, i, s) {
		struct replay_zone want = recorded_zone(s), *got = &zones[i];

		if (!same_zone(&want, got))
			return differs(
			    p, line,
			    "zone %u: the machine has nf %u nd %d boost %u ha %u pc %u ff %u zh "
			    "%016" PRIx64 " ph %016" PRIx64 " bh %016" PRIx64
			    ", Linux had nf %u nd %d boost %u ha %u pc %u ff %u zh %016" PRIx64
			    " ph %016" PRIx64 " bh %016" PRIx64,
			    got->zone, got->nr_free, got->nr_free_diff, got->boost, got->highatomic,
			    got->pcp, got->free_factor, got->lists_hash, got->pcp_hash,
			    got->pageblocks_hash, want.nr_free, want.nr_free_diff, want.boost,
			    want.highatomic, want.pcp, want.free_factor, want.lists_hash,
			    want.pcp_hash, want.pageblocks_hash);
	}
	return true;
}

/* A whole zone as text. What comes before the zone's number (kind of line, op) is
 * the recording's own. */
static bool compare_dump(struct player *p, const char *line, const json_t *object)
{
	char *text = p->m->text(p->m->user), *row = text, *next;
	const char *want = strstr(line, "\"z\":");
	char key[16];
	bool same;

	snprintf(key, sizeof key, "\"z\":%u,", number(object, "z"));
	for (; row; row = next) {
		next = strchr(row, '\n');
		if (next)
			*next++ = 0;
		if (strstr(row, key))
			break;
	}
	same = row && want && strcmp(strstr(row, "\"z\":"), want) == 0;
	if (!same)
		differs(p, line, "the machine's dump: %.3000s", row ? row : "(no such zone)");
	free(text);
	p->report->dumps++;
	return same;
}

/* ---- playing ---- */

static bool perform(struct player *p, uint32_t code, uint64_t a, uint64_t b, uint32_t *status,
		    uint64_t values[4])
{
	const uint64_t args[6] = {a, b};

	return p->m->op(p->m->user, code, args, NULL, 0, status, values);
}

static bool play_alloc(struct player *p, const char *line, const json_t *op)
{
	uint32_t gfp = (uint32_t)strtoul(json_string_value(json_object_get(op, "gfp")), NULL, 16);
	int64_t want_pfn = json_integer_value(json_object_get(op, "pfn"));
	int64_t want_zone = json_integer_value(json_object_get(op, "z"));
	uint64_t values[4];
	uint32_t status;

	if (!perform(p, OP_ALLOC_PAGES, gfp, number(op, "order"), &status, values))
		return differs(p, line, "op %u: no answer", number(op, "i"));
	if (want_pfn < 0)
		return status == STATUS_NO_MEMORY ||
		       differs(p, line, "op %u: status %u, frame %" PRIu64 "; Linux failed",
			       number(op, "i"), status, values[0]);
	if (status != STATUS_OK || (int64_t)values[0] != want_pfn ||
	    (int64_t)values[1] != want_zone)
		return differs(p, line,
			       "op %u: status %u, frame %" PRIu64 " of zone %" PRIu64
			       "; Linux gave frame %" PRId64 " of zone %" PRId64,
			       number(op, "i"), status, values[0], values[1], want_pfn, want_zone);
	return true;
}

static bool play_free(struct player *p, const char *line, const json_t *op)
{
	uint64_t values[4];
	uint32_t status;

	if (!perform(p, OP_FREE_PAGES, number(op, "pfn"), number(op, "order"), &status, values) ||
	    status != STATUS_OK)
		return differs(p, line, "op %u: status %u; Linux freed it", number(op, "i"),
			       status);
	return true;
}

/* What kswapd does, at the time that the recording says: after each op. */
static bool take_boosts_back(struct player *p, const char *line)
{
	uint64_t values[4];
	uint32_t status;

	for (uint32_t zone = 0; zone < REPLAY_ZONES; zone++) {
		if (!perform(p, OP_UNBOOST_ZONE, zone, 0, &status, values) || status != STATUS_OK)
			return differs(p, line, "zone %u keeps its boost", zone);
	}
	return true;
}

/* Whether the whole state is compared after the op is the recording's choice: a trace
 * of a workload knows frames alone. */
static bool play_op(struct player *p, const char *line, const json_t *op)
{
	const json_t *zones = json_object_get(op, "s");
	bool is_alloc = strcmp(json_string_value(json_object_get(op, "op")), "alloc") == 0;

	p->report->ops++;
	if (!(is_alloc ? play_alloc(p, line, op) : play_free(p, line, op)))
		return false;
	if (p->unboost && !take_boosts_back(p, line))
		return false;
	return !zones || compare_zones(p, line, zones);
}

/* ---- until nothing is left ---- */

/* A zone's counters, without its lists. */
static bool compare_counters(struct player *p, const char *line, const json_t *recorded)
{
	struct replay_zone zones[REPLAY_ZONES];
	uint32_t nr = p->m->state(p->m->user, zones);
	const json_t *s;
	size_t i;

	if (nr != json_array_size(recorded))
		return differs(p, line, "%u zones, recorded %zu", nr, json_array_size(recorded));
	json_array_foreach (recorded, i, s) {
		const struct replay_zone *z = &zones[i];

		if (z->zone != number(s, "z") || z->nr_free != number(s, "free") ||
		    z->nr_free_diff != (int32_t)number(s, "diff") || z->pcp != number(s, "pcp") ||
		    z->boost != number(s, "boost") || z->highatomic != number(s, "ha"))
			return differs(p, line, "zone %u: free %u diff %d pcp %u boost %u ha %u",
				       z->zone, z->nr_free, z->nr_free_diff, z->pcp, z->boost,
				       z->highatomic);
	}
	return true;
}

static bool exhaust_more(struct player *p, const char *line)
{
	struct exhaustion *x = &p->exhaustion;
	uint64_t values[4];
	uint32_t status;

	p->report->ops++;
	if (!perform(p, OP_ALLOC_PAGES, x->gfp, x->order, &status, values))
		return differs(p, line, "no answer");
	x->zone = x->pfn = -1;
	if (status != STATUS_OK)
		return true;
	x->zone = (int64_t)values[1];
	x->pfn = (int64_t)values[0];
	if (x->nr == x->room) {
		x->room = x->room ? x->room * 2 : 65536;
		x->pfns = realloc(x->pfns, x->room * sizeof *x->pfns);
		if (!x->pfns)
			return differs(p, line, "no memory for what the machine gave");
	}
	x->pfns[x->nr++] = (uint32_t)x->pfn;
	return true;
}

/* Linux took n blocks in a row from one zone; the one after them came from another. */
static bool play_run(struct player *p, const char *line, const json_t *run)
{
	struct exhaustion *x = &p->exhaustion;
	uint32_t n = number(run, "n");
	int64_t last = x->pfn;

	if (x->pfn != json_integer_value(json_object_get(run, "first")))
		return differs(p, line, "the run begins with frame %" PRId64, x->pfn);
	for (uint32_t i = 0; i < n; i++) {
		if (x->zone != json_integer_value(json_object_get(run, "z")))
			return differs(p, line, "block %u of the run is of zone %" PRId64, i,
				       x->zone);
		last = x->pfn;
		if (!exhaust_more(p, line))
			return false;
	}
	if (last != json_integer_value(json_object_get(run, "last")) ||
	    x->zone == json_integer_value(json_object_get(run, "z")))
		return differs(p, line, "block %u is frame %" PRId64 ", the next of zone %" PRId64,
			       n, last, x->zone);
	return compare_counters(p, line, json_object_get(run, "after_next"));
}

/* The newest first, as the recorder's list had them. */
static bool play_freed(struct player *p, const char *line, const json_t *freed)
{
	struct exhaustion *x = &p->exhaustion;
	uint64_t values[4];
	uint32_t status;

	while (x->nr) {
		p->report->ops++;
		if (!perform(p, OP_FREE_PAGES, x->pfns[--x->nr], x->order, &status, values) ||
		    status != STATUS_OK)
			return differs(p, line, "status %u for frame %u", status, x->pfns[x->nr]);
	}
	/* Between this experiment and the next one the kernel did other things too. */
	x->over = true;
	return compare_counters(p, line, json_object_get(freed, "s"));
}

/* Lines of the first experiment of an `exhaust` recording. */
static bool play_exhaustion(struct player *p, const char *type, const char *line,
			    const json_t *object)
{
	struct exhaustion *x = &p->exhaustion;

	if (x->over)
		return true;
	if (strcmp(type, "exh") == 0) {
		x->gfp =
		    (uint32_t)strtoul(json_string_value(json_object_get(object, "gfp")), NULL, 16);
		x->order = number(object, "order");
		x->begun = true;
		return compare_counters(p, line, json_object_get(object, "s")) &&
		       exhaust_more(p, line);
	}
	if (strcmp(type, "run") == 0)
		return play_run(p, line, object);
	if (strcmp(type, "freed") == 0)
		return play_freed(p, line, object);
	if (x->zone != -1 || x->nr != number(object, "total"))
		return differs(p, line, "after %u blocks the next is of zone %" PRId64, x->nr,
			       x->zone);
	return compare_counters(p, line, json_object_get(object, "s"));
}

/* ---- lines ---- */

static bool finish_loading(struct player *p, const char *line)
{
	if (p->loaded)
		return true;
	send(&p->loader, true);
	p->loaded = true;
	return !p->loader.refused || differs(p, line, "the machine refused the initial state");
}

static bool play_line(struct player *p, const char *line, const json_t *object)
{
	const char *type = json_string_value(json_object_get(object, "t"));

	if (!type)
		return differs(p, line, "a line without a type");
	if (strcmp(type, "trace") == 0)
		p->unboost = number(object, "unboost");
	if (strcmp(type, "init") == 0) {
		load_zone(&p->loader, object);
		return true;
	}
	if (strcmp(type, "op") == 0)
		return finish_loading(p, line) && play_op(p, line, object);
	if (strcmp(type, "exh") == 0 || strcmp(type, "run") == 0 || strcmp(type, "fail") == 0 ||
	    strcmp(type, "freed") == 0)
		return finish_loading(p, line) && play_exhaustion(p, type, line, object);
	if (strcmp(type, "dump") == 0 || (strcmp(type, "end") == 0 && !p->exhaustion.begun))
		return finish_loading(p, line) && compare_dump(p, line, object);
	/* The rest tells how the recording was made. What comes after `end` happened
	 * with interrupts on, and is not the sequence's alone. */
	return true;
}

bool replay_sequence(const char *path, const struct replay_machine *m, struct replay_report *report)
{
	struct player *p = calloc(1, sizeof *p);
	struct reader reader = {.file = gzopen(path, "rb")};
	bool agrees = p && reader.file;
	const char *line;

	*report = (struct replay_report){0};
	if (!agrees)
		snprintf(report->difference, sizeof report->difference, "%s: cannot be read", path);
	if (p) {
		p->m = p->loader.m = m;
		p->report = report;
	}
	while (agrees && (line = read_line(&reader))) {
		json_t *object = json_loads(line, 0, NULL);

		agrees = object ? play_line(p, line, object)
				: differs(p, line, "a line that is no JSON");
		json_decref(object);
	}
	if (reader.file)
		gzclose(reader.file);
	free(reader.line);
	if (p)
		free(p->exhaustion.pfns);
	free(p);
	return agrees;
}
