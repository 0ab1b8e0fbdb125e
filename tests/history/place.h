/*
 * place.h - a directory of a test's own with a history in it, and records made by
 * hand.
 */
#ifndef TESTS_HISTORY_PLACE_H
#define TESTS_HISTORY_PLACE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "contract_tables.h"
#include "history.h"

struct place {
	char dir[96];
	char path[128];
	struct history_options options;
	uv_loop_t loop;
	struct history *h;
	char err[256];
};

static inline void place_make(struct place *p)
{
	const char *tmp = getenv("TMPDIR");

	memset(p, 0, sizeof(*p));
	snprintf(p->dir, sizeof(p->dir), "%.70s/zoned-history.XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(p->dir))
		abort();
	snprintf(p->path, sizeof(p->path), "%s/h.db", p->dir);
	uv_loop_init(&p->loop);
	p->options.path = p->path;
	p->options.loop = &p->loop;
}

static inline int place_open(struct place *p)
{
	return history_open(&p->options, &p->h, p->err, sizeof(p->err));
}

static inline void place_close(struct place *p)
{
	history_close(p->h);
	p->h = NULL;
}

static inline void place_remove(struct place *p)
{
	static const char *const suffixes[] = {"", "-wal", "-shm", "-journal", ".lock"};
	char name[160];

	place_close(p);
	if (uv_loop_close(&p->loop))
		abort();
	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		snprintf(name, sizeof(name), "%s%s", p->path, suffixes[i]);
		unlink(name);
	}
	if (rmdir(p->dir))
		abort();
}

/* xorshift64*: the same rows for the same seed. */
static inline uint64_t random_next(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * UINT64_C(2685821657736338717);
}

/* A seed from the environment or the clock, printed so that a failure can be had
 * again. */
static inline uint64_t random_seed(void)
{
	const char *given = getenv("SEED");
	uint64_t seed = given ? strtoull(given, NULL, 0) : uv_hrtime() | 1;

	printf("SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

static inline uint64_t add_machine(struct history *h, const char *name)
{
	static const struct engine_config config = {.ram = UINT64_C(1) << 30, .cpus = 1};

	return history_add_machine(h, name, "sim", &config, 0, 0, false, 1000);
}

/* An AllocPages of one frame that answered `pfn`, with the event of it. */
static inline void append_alloc(struct history *h, uint64_t machine, uint64_t op, uint32_t pfn,
				uint32_t zone, uint32_t owner)
{
	struct engine_event e = {.kind = EVENT_ALLOC, .w = {pfn, 0, GFP_HIGHUSER, zone, 1}};
	struct history_record r = {.machine = machine,
				   .op = op,
				   .time_ns = (int64_t)(1000000000 + op),
				   .code = OP_ALLOC_PAGES,
				   .owner = owner,
				   .args = {GFP_HIGHUSER, 0},
				   .values = {pfn, zone, 1},
				   .events = &e,
				   .nr_events = 1};

	history_append(h, &r);
}

static inline void append_free(struct history *h, uint64_t machine, uint64_t op, uint32_t pfn,
			       uint32_t zone)
{
	struct engine_event e = {.kind = EVENT_FREE, .w = {pfn, 0, zone, 1}};
	struct history_record r = {.machine = machine,
				   .op = op,
				   .time_ns = (int64_t)(1000000000 + op),
				   .code = OP_FREE_PAGES,
				   .args = {pfn, 0},
				   .events = &e,
				   .nr_events = 1};

	history_append(h, &r);
}

#endif
