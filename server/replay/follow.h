/*
 * follow.h - the names of one world in another: what an op of the recorded machine names
 * (frames, addresses, tasks, files, DMA handles, sleeping ops), as the replayed machine
 * calls the thing that the same op made there.
 *
 * Which field names or makes what is said by the contract ((arg).thing and .extent): a
 * new op needs nothing here. The rules:
 *
 *   a name follows what made it, with its offset in what was made;
 *   a name that nothing made (a hole, the heap, a device) stays as it is, unless it is by
 *   now the name of something else over there;
 *   what an op made that failed or was skipped in the replayed machine is absent there, and
 *   so is what lost its number to something else; an op that names it cannot be played;
 *   an address of the direct map follows the memory behind it; if that is HIGHMEM over
 *   there, it is where kmap put it;
 *   memory that an op mapped without telling (a page fault's, vmalloc's) follows the
 *   address at which it was mapped.
 *
 * Not followed: an address of the kmap_local window after its task moved to another CPU,
 * which no result names; and names inside payloads that are no list of integers.
 */
#ifndef REPLAY_FOLLOW_H
#define REPLAY_FOLLOW_H

#include "world.h"

struct follow;

/* How a configuration divides addresses. */
struct follow_space {
	uint64_t user_end;
	uint64_t direct_start, direct_end, direct_paddr;
};
/* False with `why`: the configuration contradicts itself. */
bool follow_space_of(const struct engine_config *config, struct follow_space *ret,
		     struct engine_error *why);

struct follow *follow_new(const struct follow_space *recorded, const struct follow_space *replayed);
void follow_free(struct follow *f);

/* Rewrites a recorded op. What `ret` points at is good until the next call. NULL: it can
 * be played; else the field that names what is not there. */
const char *follow_translate(struct follow *f, const struct engine_op *op, struct engine_op *ret);

/* What the op made in both worlds. `replayed` is NULL for an op that was not played. */
void follow_learn(struct follow *f, const struct engine_op *op, const struct world *recorded,
		  const struct world *replayed);

#endif
