/*
 * replica_priv.h - a replica, as replica.c and replica_image.c share it.
 */
#ifndef MACHINE_REPLICA_PRIV_H
#define MACHINE_REPLICA_PRIV_H

#include "replica.h"
#include "sim.h"

struct replica {
	struct sim *sim;
	struct backend *backend; /* around `sim`, which is its */
	u64 *parked;
	u32 nr_parked, max_parked;
	u32 owners;
	u8 data[ENGINE_MAX_DATA]; /* of the op that is executed */
};

#endif
