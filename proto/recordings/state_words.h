/*
 * state_words.h - an exact allocator state, from the recordings' JSON (a line `init` or
 * `state` for each zone) to the payloads of LoadState. The words are described where
 * LoadState is (server/engine/frames/load_state.h); the numbers here are the same.
 *
 * "pcp" and "nr_free_diff" are CPU 0's lists and difference, "pcp1" and "nr_free_diff1"
 * those of CPU 1, and so on: the form that the inspection `state` gives. A recording that
 * tells of CPU 0 alone, of a machine with more, has had the others' lists drained; their
 * differences are what its count lacks.
 */
#ifndef RECORDINGS_STATE_WORDS_H
#define RECORDINGS_STATE_WORDS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum {
	STATE_ZONE = 1,
	STATE_PAGEBLOCKS = 2,
	STATE_FREE = 3,
	STATE_PCP_LIST = 4,
	STATE_PCP = 5,
	STATE_ZONE_WORDS = 14,
	STATE_PCP_WORDS = 6,
	STATE_TYPES_PER_WORD = 8,
	STATE_MAX_WORDS = 16383, /* of one payload */
};

/* Takes one payload; `last` is LoadState's argument. False: the machine refused it. */
typedef bool state_send_fn(void *user, const uint8_t *data, uint32_t bytes, bool last);

/* A state on its way. Zero it but for send and user. */
struct state_words {
	state_send_fn *send;
	void *user;
	uint32_t words;
	bool refused;
	uint8_t data[STATE_MAX_WORDS * 4];
};

/* Adds a zone, or sends what came before it where the payload is full. */
void state_words_add(struct state_words *s, const json_t *zone);
/* Sends the rest. False: something was refused. */
bool state_words_finish(struct state_words *s);

#endif
