/*
 * map.h - the parts of `zonectl map`: what a machine is asked (map_load.c), the
 * terminal and the command (map.c), the difference between two moments (map_diff.c), the
 * address space as a drawing (map_space.c).
 */
#ifndef ZONECTL_MAP_H
#define ZONECTL_MAP_H

#include "zonectl.h"

enum { FRAME_BYTES = 4096, MAX_STATES = 32, MAX_OWNERS = 10, MAX_DRAWN_TASKS = 8 };

/* A machine at one moment. */
struct picture {
	struct ctl *ctl;
	bool ascii, colour, about;
	bool blocks; /* runs are alike in order and migratetype, too */
	/* The machine may go on between two questions. All answers are of one op if that is
	 * wanted: then those that come late are asked of the past. */
	bool of_one_op, has_op;
	uint64_t op; /* of the first answer */
	unsigned columns;
	uint64_t rows;
	uint64_t cell; /* frames */
	Zoned__V1__InspectResponse *zones, *buddy, *layout, *areas, *kmap, *tasks;
	Zoned__V1__InspectResponse *maps[MAX_DRAWN_TASKS]; /* of the first tasks */
	Zoned__V1__FrameRunRow *runs;			   /* in order of first */
	size_t nr_runs;
};

/* Asks for all but the tasks. `exact`: frames one by one, or a refusal. */
int picture_load(struct picture *p, bool exact);
int picture_load_tasks(struct picture *p);
void picture_free(struct picture *p);

/* "free", "user (anonymous)". */
const char *frame_state_name(unsigned state);
const char *map_zone_name(uint32_t zone);
/* A number of frames as a size. */
const char *frames_text(uint64_t frames, char *to, size_t size);
/* "direct map". */
const char *layout_part_name(unsigned part, char *to, size_t size);
uint64_t part_end(const Zoned__V1__LayoutRow *part);
/* The parts from the highest on; of two that end alike, the one that holds the other first. */
void sort_parts(const Zoned__V1__LayoutReport *layout);
/* What is in use of a window, in words. */
void part_usage(const struct picture *p, const Zoned__V1__LayoutRow *part, char *to, size_t size);

struct owner {
	uint32_t number;
	uint64_t pages;	     /* what owners are sorted by */
	uint64_t given_back; /* of a difference */
};

/* The owner of that number, added if it is new. Good until the next call. */
struct owner *owner_find(struct owner **owners, size_t *nr, uint32_t number);
void owners_sort(struct owner *owners, size_t nr);
/* Its label, or "owner 7". */
void owner_label(struct picture *p, uint32_t number, char *to, size_t size);

/* A file, or standard output for "-"; NULL after a sentence. */
FILE *drawing_open(const char *path);
/* EXIT_DONE, or EXIT_FILE after a sentence. */
int drawing_close(FILE *to, const char *path);

/* ---- map_diff.c ---- */

/* "10" or "10..20": *ret_to is UINT64_MAX where there is no second. */
bool diff_parse(const char *text, uint64_t *ret_from, uint64_t *ret_to);
/* Shows what changed: as a drawing if svg is not NULL, as JSON if ctl says so. */
int diff_show(struct picture *before, struct picture *after, const char *svg, bool hilbert);

/* ---- map_space.c ---- */

/* Writes the whole document. */
void space_write(struct picture *p, FILE *to);

#endif
