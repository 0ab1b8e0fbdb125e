/*
 * known.h - ops that whoever reads them back knows without having been told: what an op
 * holds follows from its machine and its number.
 */
#ifndef TESTS_HISTORY_KNOWN_H
#define TESTS_HISTORY_KNOWN_H

#include "place.h"

enum { KNOWN_MACHINES = 3 };

/* How far each machine is, by its id; [0] counts machines. */
struct known_progress {
	uint64_t last[KNOWN_MACHINES + 1];
};

/* Ends the program with a sentence. */
#define KNOWN_FAIL(...)                       \
	do {                                  \
		fprintf(stderr, __VA_ARGS__); \
		fputc('\n', stderr);          \
		exit(1);                      \
	} while (0)

/* Reads how far the machines are, and makes them, without a commit, in a history that
 * has none. */
void known_begin(struct history *h, struct known_progress *p);
/* Appends 1 to max_ops ops, by chance. *p is ahead of what is committed. */
void known_append_turn(struct history *h, struct known_progress *p, uint64_t max_ops,
		       uint64_t *random);
/* Asserts that the history holds each machine's ops from 1 on without a gap, of each op
 * everything and of others nothing, at least as far as was acknowledged; and that
 * SQLite's own check of the file finds nothing. *found is how far they are. Returns how
 * many ops there are. The history must be open. */
uint64_t known_verify(struct history *h, const char *path,
		      const struct known_progress *acknowledged, struct known_progress *found);

#endif
