/*
 * player.h - what sequences and experiments share: a machine that a file with whole states
 * is played to, and its state compared with the recorded one. Only for server/conformance.
 */
#ifndef CONFORMANCE_PLAYER_H
#define CONFORMANCE_PLAYER_H

#include "box.h"

struct player {
	struct box *b;
	struct conformance_report *r;
	u32 folds, types; /* adopted, see adopt.h */
};

/* Fields of a recorded line. What is not there is 0. */
u32 json_u32(const json_t *object, const char *key);
s64 json_s64(const json_t *object, const char *key);
/* Of a text such as "0x9200a". */
u64 json_hex(const json_t *object, const char *key);

/* The first difference: what the machine did at this line, and the prefix so far. Always
 * false. */
bool player_differs(struct player *p, const char *line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Are the zones as this array has them? Of an `op` line's (s) lists and counters of every
 * CPU that it names; of an experiment's only counters, so that lists are left out. */
bool player_zones_agree(struct player *p, const char *line, const json_t *recorded,
			bool counters_only);
/* Is a zone as this line has it, whole, list by list? */
bool player_dump_agrees(struct player *p, const char *line, const json_t *object);

/* Experiments that allocate until nothing is left: exhaust.c. */
struct exhaustion;

struct exhaustion *exhaustion_new(struct player *p);
/* Is this type of line one of an experiment's? */
bool exhaustion_has(const char *type);
/* Plays it; false: it differs. */
bool exhaustion_play(struct exhaustion *x, const char *type, const char *line,
		     const json_t *object);
bool exhaustion_begun(const struct exhaustion *x);
/* A whole zone after the last experiment. */
bool exhaustion_end(struct exhaustion *x, const char *line, const json_t *object);
/* Notes what was played, and how far it could be compared. */
void exhaustion_free(struct exhaustion *x);

#endif
