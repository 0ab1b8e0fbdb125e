/*
 * replay.h - plays the recordings of a real Linux to a machine, op by op, and
 * compares every answer and the whole state after each.
 *
 * Knows nothing of engine or daemon: the machine is three functions, so that the same
 * replay serves a test that links the engine and a client that speaks RPC. Words
 * and numbers of ops, sysctls and flags are the contract's.
 *
 * The recordings' form is described where they were made; in short: lines of JSON,
 * `init` and `dump` and `end` with the exact state of a zone, `op` with an
 * allocation or a free, the frame that Linux gave, and hashes of each zone's lists.
 */
#ifndef REPLAY_H
#define REPLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { REPLAY_ZONES = 4, REPLAY_MAX_E820 = 128 };

/* What a recorded machine was made from. */
struct replay_e820 {
	uint64_t start, size; /* bytes */
	uint32_t type;	      /* enum contract_e820_type; 1 is RAM */
};

struct replay_config {
	bool pae, thp_off;
	uint32_t nr_e820;
	struct replay_e820 e820[REPLAY_MAX_E820];
};

/* Reads the boot messages of a recorded machine. False: no such file, or no map. */
bool replay_read_config(const char *dmesg_path, struct replay_config *ret);

/* State of one zone, as the inspection `state` gives it in its rows. */
struct replay_zone {
	uint32_t zone;
	uint64_t lists_hash, pcp_hash, pageblocks_hash;
	uint32_t nr_free, boost, highatomic;
	int32_t nr_free_diff;
	uint32_t pcp, free_factor;
};

struct replay_machine {
	void *user;
	/* Executes an op; false when there was no answer at all. */
	bool (*op)(void *user, uint32_t code, const uint64_t args[6], const uint8_t *data,
		   uint32_t data_len, uint32_t *ret_status, uint64_t ret_values[4]);
	/* The rows of `state`; returns how many, at most REPLAY_ZONES. */
	uint32_t (*state)(void *user, struct replay_zone zones[REPLAY_ZONES]);
	/* The text of `state`, to be freed by the caller. */
	char *(*text)(void *user);
};

struct replay_report {
	uint32_t ops;	/* performed, all in agreement but perhaps the last */
	uint32_t dumps; /* whole zones compared */
	/* Where the two part: the op and both answers. Empty: nowhere. */
	char difference[8192];
};

/* Loads the recorded state into a fresh machine, then plays the recording to it.
 * True: they agree in all. `report` is filled either way. */
bool replay_sequence(const char *path, const struct replay_machine *m,
		     struct replay_report *report);

#endif
