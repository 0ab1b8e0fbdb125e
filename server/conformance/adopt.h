/*
 * adopt.h - what a recording with whole states cannot tell, and what is done about it: the
 * machine takes over what Linux's answer shows, where nothing else can explain it, and it
 * is counted. Only for server/conformance.
 *
 *  - folds: when the statistics' worker of a CPU that does not execute the ops adds what
 *    that CPU keeps to the zone's count;
 *  - types: whether a pageblock is retyped by a steal depends on how many of its frames
 *    could be moved (user pages, page cache). Of frames that were allocated before the
 *    recording began nobody knows.
 */
#ifndef CONFORMANCE_ADOPT_H
#define CONFORMANCE_ADOPT_H

#include "player.h"

/* Of a zone: what the inspection `state` says, and the recordings. */
struct state_row {
	u64 zone, lists, pcp_lists, pageblocks; /* hashes */
	u64 nr_free, boost, highatomic, diff, pcp, free_factor;
};

/* Each brings the machine and `got` to what is wanted if its rule allows. */
void adopt_fold(struct player *p, struct state_row *got, const struct state_row *want);
void adopt_type(struct player *p, struct state_row *got, const struct state_row *want);

#endif
