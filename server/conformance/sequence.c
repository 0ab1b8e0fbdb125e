/*
 * sequence.c - recordings with the whole state: sequences of allocations and frees, and
 * experiments that allocate until nothing is left (exhaust.c).
 *
 * `init` lines are gathered into LoadState; each `op` line is performed and the zones'
 * counters and list hashes compared after it; `dump` and `end` lines are compared as
 * text, from the zone's number on.
 *
 * An op that names its CPU runs there. A recorder that did not name it may have run on any
 * CPU of the machine, and looked at the lists of CPU 0 all the same: the file is played
 * with CPU 0, then with the others, and counts as it agrees furthest. So does one with
 * several CPUs and kswapd awake all the time, which no line tells.
 *
 * A recording is played in order and stops at its first difference, so what was played
 * until then is the shortest prefix that shows it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "player.h"

struct reader {
	struct player p;
	struct state_words words;
	struct exhaustion *exhaustion;
	bool begun;	 /* lines of the state were there */
	bool loaded;	 /* and the machine has them */
	bool names_cpus; /* ops do */
	bool awake;	 /* kswapd is taken to be */
};

/* Of what is not told. */
struct assumed {
	u32 cpu; /* ran what does not name its CPU */
	bool awake;
};

/* ---- ops ---- */

static u32 run(struct player *p, const json_t *op, u32 code, u64 first)
{
	const json_t *cpu = json_object_get(op, "cpu");

	return box_run(p->b, &(struct engine_op){.code = code,
						 .cpu = cpu ? json_u32(op, "cpu") : p->b->cpu,
						 .args = {first, json_u32(op, "order")}});
}

static bool play_alloc(struct player *p, const char *line, const json_t *op)
{
	s64 want_pfn = json_s64(op, "pfn"), want_zone = json_s64(op, "z");
	u32 status = run(p, op, OP_ALLOC_PAGES, json_hex(op, "gfp"));
	const u64 *v = p->b->res.values;

	if (want_pfn < 0) {
		if (status == STATUS_NO_MEMORY)
			return true;
		return player_differs(p, line, "op %u: status %u, frame %" PRIu64 "; Linux failed",
				      json_u32(op, "i"), status, v[0]);
	}
	if (status == STATUS_OK && (s64)v[0] == want_pfn && (s64)v[1] == want_zone)
		return true;
	return player_differs(p, line,
			      "op %u: status %u, frame %" PRIu64 " of zone %" PRIu64
			      "; Linux gave frame %" PRId64 " of zone %" PRId64,
			      json_u32(op, "i"), status, v[0], v[1], want_pfn, want_zone);
}

static bool play_free(struct player *p, const char *line, const json_t *op)
{
	u32 status = run(p, op, OP_FREE_PAGES, json_u32(op, "pfn"));

	if (status == STATUS_OK)
		return true;
	return player_differs(p, line, "op %u: status %u; Linux freed it", json_u32(op, "i"),
			      status);
}

static bool play_op(struct player *p, const char *line, const json_t *op)
{
	const char *word = json_string_value(json_object_get(op, "op"));
	bool is_alloc = word && strcmp(word, "alloc") == 0;

	p->r->compared++;
	if (!(is_alloc ? play_alloc : play_free)(p, line, op) ||
	    !player_zones_agree(p, line, json_object_get(op, "s"), false))
		return false;
	p->r->agreed++;
	return true;
}

/* ---- lines ---- */

static bool finish_loading(struct reader *s, const char *line)
{
	if (s->loaded)
		return true;
	s->loaded = true;
	if (!state_words_finish(&s->words))
		return player_differs(&s->p, line,
				      "the machine refused the recording's initial state");
	box_set_kswapd(s->p.b, s->awake);
	return true;
}

static bool play_line(struct reader *s, const char *line, const json_t *object)
{
	const char *type = json_string_value(json_object_get(object, "t"));
	bool is_op, is_dump;

	if (!type)
		return player_differs(&s->p, line, "a line without a type");
	if (strcmp(type, "init") == 0) {
		if (!s->loaded)
			state_words_add(&s->words, object);
		s->begun = true;
		return true;
	}
	is_op = strcmp(type, "op") == 0;
	/* What comes before the state, and after `end`, happened with interrupts on, and is
	 * not the recording's alone. */
	is_dump = strcmp(type, "dump") == 0 || strcmp(type, "end") == 0;
	if (!s->begun || !(is_op || is_dump || exhaustion_has(type)))
		return true;
	if (!finish_loading(s, line))
		return false;
	if (is_op) {
		s->names_cpus |= json_object_get(object, "cpu") != NULL;
		return play_op(&s->p, line, object);
	}
	if (exhaustion_has(type))
		return exhaustion_play(s->exhaustion, type, line, object);
	if (exhaustion_begun(s->exhaustion))
		return exhaustion_end(s->exhaustion, line, object);
	return player_dump_agrees(&s->p, line, object);
}

/* Ops that are behind the first difference count as not agreed. */
static bool is_op_line(const char *line)
{
	return strstr(line, "\"t\":\"op\"") != NULL;
}

static void play_lines(struct reader *s, struct lines *lines)
{
	struct conformance_report *r = s->p.r;
	const char *line;
	bool agrees = true;

	while ((line = lines_next(lines))) {
		json_t *object;

		if (!agrees) {
			r->compared += is_op_line(line);
			continue;
		}
		object = json_loads(line, 0, NULL);
		agrees = object ? play_line(s, line, object) : is_cut_line(lines, r);
		json_decref(object);
	}
}

struct played {
	u32 cpus;
	bool names_cpus;
};

static struct played play_file(const char *path, struct assumed as, struct conformance_report *r)
{
	struct reader *s = calloc(1, sizeof *s);
	struct lines *lines = lines_open(path);
	char folder[4096];
	struct played played = {1, false};

	folder_of(path, folder, sizeof folder);
	if (s && lines) {
		s->p = (struct player){box_new_from(folder, r), r, 0, 0};
		s->words.send = box_load;
		s->words.user = s->p.b;
		s->exhaustion = exhaustion_new(&s->p);
	}
	if (s && s->p.b && s->exhaustion) {
		s->p.b->cpu = as.cpu;
		s->awake = as.awake;
		play_lines(s, lines);
		if (s->p.folds)
			note(r, "other CPUs folded their differences %u times", s->p.folds);
		if (s->p.types)
			note(r,
			     "%u pageblocks were retyped or not by frames of which nothing is told",
			     s->p.types);
		played = (struct played){s->p.b->e->st->layout.cpus, s->names_cpus};
	}
	if (!lines || lines_broken(lines))
		differs(r, "%s cannot be read to its end", path);
	lines_close(lines);
	if (s) {
		exhaustion_free(s->exhaustion);
		box_free(s->p.b);
	}
	free(s);
	return played;
}

/* Once more; what goes further counts. */
static void try_file(const char *path, struct assumed as, struct conformance_report *r,
		     struct assumed *best)
{
	struct conformance_report *again = calloc(1, sizeof *again);

	if (again)
		play_file(path, as, again);
	if (again && (!*again->difference || again->agreed > r->agreed)) {
		*r = *again;
		*best = as;
	}
	free(again);
}

void check_sequence(const char *path, struct conformance_report *r)
{
	struct assumed best = {0};
	struct played first = play_file(path, best, r);
	u32 cpus = first.names_cpus ? 1 : first.cpus;

	for (u32 awake = 0; awake < 2 && first.cpus > 1; awake++)
		for (u32 cpu = 0; cpu < cpus && *r->difference; cpu++)
			if (cpu || awake)
				try_file(path, (struct assumed){cpu, awake}, r, &best);
	if (best.cpu)
		note(r, "recorded on CPU %u", best.cpu);
	if (best.awake)
		note(r, "with kswapd awake");
}
