/*
 * rebuild.h - a machine made again from the history, up to an op of its choice.
 *
 * Each op is executed as it was recorded, in a private simulation, and its answer is
 * compared with the recorded one: a difference is an error rather than a state that
 * nobody saw. It begins at the nearest checkpoint; one that is damaged, or does not lead on
 * to what was recorded, costs time and not truth. A fork begins with its ancestors' ops up to
 * where it left them. What blocks
 * for as long as that takes runs in a thread of the pool.
 */
#ifndef REBUILD_H
#define REBUILD_H

#include <stdatomic.h>

#include "history.h"
#include "machine.h"
#include "replica.h"

enum { REBUILD_WHY_LENGTH = 256 };

struct rebuild {
	/* Set by whoever asks. */
	uint64_t machine;
	uint64_t op; /* REBUILD_LAST: whatever has been committed */
	/* Ops at the very end that were recorded LOST are not ops of this machine until it
	 * is revived: leave them out. */
	bool stop_at_lost;
	/* Use no checkpoint: begin with the machine's making. PRUNED when that is forgotten. */
	bool from_start;
	/* A replica of this machine at an op not after the one wanted, or NULL. Afterwards the
	 * one that was made; NULL with an error. */
	struct replica *replica;

	/* Afterwards. IS_LOST: the answers differ or an invariant broke, see why. NO_OP: the
	 * machine has not come to that op. GONE: the history knows no such machine. */
	enum machine_error error;
	char why[REBUILD_WHY_LENGTH];
	/* With an error: what failed was a read or memory, not what was recorded. Another try
	 * may do better. */
	bool may_pass;
	uint64_t lost; /* ops at the end that were left out */
	/* With or without an error: a checkpoint that could not be used, or one from which the
	 * record did not go on, and why; it was made from an older one, or from nothing. "":
	 * there was none such. */
	char note[REBUILD_WHY_LENGTH];

	/* Any thread: how far it is, and that it shall end with CANCELLED. */
	atomic_uint_fast64_t progress;
	atomic_bool cancelled;
};

#define REBUILD_LAST UINT64_MAX

/* Blocks. The reader is used by nobody else meanwhile. */
void rebuild_run(struct rebuild *b, struct history_reader *rd);

#endif
