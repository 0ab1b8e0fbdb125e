/*
 * top.h - the parts of `zonectl top`: a watch that asks (top_watch.c), a picture of what it
 * knows as lines of text (top_draw.c), and the terminal around them (top.c).
 */
#ifndef ZONECTL_TOP_H
#define ZONECTL_TOP_H

#include "zonectl.h"

/* What may be asked in a round: up to TOP_LAYOUT inspections. */
enum top_question {
	TOP_ZONES,
	TOP_BLOCKS,
	TOP_TYPES,
	TOP_AREAS,
	TOP_KMAP,
	TOP_COUNTERS,
	TOP_LAYOUT,
	TOP_LIST,
	TOP_MACHINE,
	TOP_TAIL,
	TOP_QUESTIONS,
};

enum {
	TOP_KEPT = 400,	 /* lines of ops and events */
	TOP_PAST = 240,	 /* rates of ops */
	TOP_OPS = 64,	 /* ops that a round asks the tail for, at most */
	TOP_REASON = 256 /* bytes of a sentence */
};

/* A line of the record: an op, or a notable event of the op above. */
struct top_line {
	bool is_event, bad;
	char *text;
};

/*
 * What is known of one machine. A round asks how many ops it has taken and, if that are
 * more than in the round before, every inspection and the last ops with their notable
 * events: an idle machine is not disturbed, and a busy one once a round, however busy it is.
 * The list of machines is dear to the daemon and asked for only now and then.
 */
struct top_watch {
	struct ctl *ctl;
	char *name; /* of the machine; NULL: the first that there is */
	Zoned__V1__ListResponse *list;
	uint64_t list_ns;	     /* when it came; 0: it is wanted now */
	Zoned__V1__Machine *machine; /* NULL: there is none of that name */
	uint64_t id;		     /* its number; another one: another machine */
	Zoned__V1__InspectResponse *answers[TOP_LAYOUT + 1]; /* NULL: none */
	struct zoned_stream *asked[TOP_QUESTIONS];
	unsigned nr_asked; /* 0: no round is on */
	uint64_t round_ns; /* when it began */
	int failed;	   /* zoned_failure or gRPC status that the round ended with */
	char why[TOP_REASON];

	/* Between two rounds. */
	bool has_rates;
	uint64_t ops, ops_ns, counters_ns, seen_op;
	bool has_seen;
	double ops_rate, past[TOP_PAST]; /* the newest last */
	unsigned nr_past;
	double rates[EVENT_KIND_END];
	uint64_t totals[EVENT_KIND_END];

	struct top_line lines[TOP_KEPT]; /* the oldest first */
	unsigned nr_lines;
};

/* Begins a round if none is on. */
void top_ask(struct top_watch *w);
/* Takes what has arrived. True: the round is over (see `failed`). */
bool top_take(struct top_watch *w);
/* Another machine: everything known is forgotten. Takes the name's ownership. */
void top_choose(struct top_watch *w, char *name);
/* The record's lines are not wanted again. */
void top_shown(struct top_watch *w);
void top_free(struct top_watch *w);

/* ---- the picture ---- */

/* Bytes in the lines that stand for what the text looks like from there on. */
enum top_look {
	LOOK_PLAIN = 1,
	LOOK_TITLE,
	LOOK_HEAD,
	LOOK_DIM,
	LOOK_GOOD,
	LOOK_WARN,
	LOOK_BAD,
	LOOK_CHOSEN,
	LOOK_END
};

enum top_sort { SORT_RATE, SORT_TOTAL, SORT_NAME, NR_SORTS };
extern const char *const top_sorts[NR_SORTS];

struct top_view {
	unsigned width, height; /* height 0: as many lines as it takes */
	bool ascii, live;	/* live: there are keys */
	bool paused, help;
	uint32_t zone; /* whose migratetypes are shown */
	enum top_sort sort;
	uint32_t interval_ms;
	char note[TOP_REASON]; /* "": none */
};

/* The keys, for their help, which is what a NULL ends. */
struct top_key {
	const char *keys, *help;
};
extern const struct top_key top_keys[];

/* Lines, each ended by '\n', none of them counted for what does not fit the height. The
 * caller frees them. */
char *top_picture(const struct top_watch *w, const struct top_view *v);
/* The same figures. The caller drops it. */
json_t *top_json(const struct top_watch *w);
/* The zones that this machine has, as bits. */
uint32_t top_zones(const struct top_watch *w);

#endif
