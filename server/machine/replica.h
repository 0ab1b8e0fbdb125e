/*
 * replica.h - a private simulation that is taken along a recorded stream of ops.
 *
 * It stands for a machine of either back end: their bytes are the same. Recovery,
 * questions about the past and checkpoints bring one to an op, and then look into it,
 * keep its bytes, or give it to a machine (machine_adopt). No registry knows it and no
 * events are recorded. One thread at a time uses it, any thread.
 */
#ifndef MACHINE_REPLICA_H
#define MACHINE_REPLICA_H

#include "engine.h"

struct backend;
struct replica;

/* As the machine was after its making. NULL with `why`. */
struct replica *replica_new(const struct engine_config *config, struct engine_error *why);
void replica_free(struct replica *r); /* NULL is fine */

/* As one was kept, in pieces (replica_save_*): each is given once, in their order. False with
 * `why`: it is damaged, and the replica worth nothing. The last call takes it up. */
struct replica *replica_load_begin(const struct engine_config *config, struct engine_error *why);
bool replica_load_piece(struct replica *r, const u8 *bytes, size_t length,
			struct engine_error *why);
bool replica_load_end(struct replica *r, const u64 *parked, u32 nr_parked, u32 owners,
		      struct engine_error *why);

/* All that it is, as compressed pieces of some 100 KiB: RAM that is not zero, and what the
 * host keeps of its CPUs. Nothing is executed between begin and end. */
struct replica_save;
struct replica_save *replica_save_begin(struct replica *r); /* NULL: no memory */
/* The next piece, good until the next call; 0: that was all. */
size_t replica_save_next(struct replica_save *s, const u8 **ret);
u64 replica_save_frames(const struct replica_save *s); /* so far */
void replica_save_end(struct replica_save *s);	       /* NULL is fine */
struct engine_digest replica_digest(struct replica *r);

/* What an op answered, as it was recorded. */
struct replica_answer {
	u32 status;
	u32 data_len;
	u64 data_hash; /* hash_bytes() of the data, if there was any */
	u64 values[OP_VALUES];
};
/* Executes the next op. False with `why` when it answers otherwise than recorded, or
 * meets a broken invariant: then the replica is worth nothing any more. */
bool replica_apply(struct replica *r, const struct engine_op *op,
		   const struct replica_answer *recorded, struct engine_error *why);
/* The next op was recorded LOST: it has a number and did nothing. */
bool replica_skip(struct replica *r, struct engine_error *why);

u64 replica_op(const struct replica *r);	    /* the last one executed */
u32 replica_owners(const struct replica *r);	    /* the largest number of an owner so far */
bool replica_is_early(const struct replica *r);	    /* it has not come to its Boot */
u32 replica_nr_parked(const struct replica *r);	    /* ops asleep, */
const u64 *replica_parked(const struct replica *r); /* by number */
u64 replica_resident(const struct replica *r);	    /* bytes */
const char *replica_lost_reason(const struct replica *r); /* NULL: it is not */
/* To look into it (machine_look's look_check() and its like); it stays the replica's. */
struct backend *replica_backend(struct replica *r);

#endif
