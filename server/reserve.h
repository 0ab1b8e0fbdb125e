/*
 * reserve.h - memory kept for the moment when the host has none left.
 *
 * The daemon's own bookkeeping (connections, queues, who waits for what) cannot go on
 * without memory and must not forget; so what it asks for when malloc fails comes out of
 * a reserve, and as long as that is not whole again no new op is taken up. Only when
 * the reserve, too, is used up does the daemon end itself: what was acknowledged is in
 * the history. SQLite and protobuf-c have an answer of their own to a failed allocation,
 * and no part in this.
 */
#ifndef RESERVE_H
#define RESERVE_H

#include <stdbool.h>

/* Sets the reserve aside, if it is not. True: it is whole. Cheap then. */
bool reserve_restore(void);
/* Gives it back to malloc. False: that had been done. Any thread. */
bool reserve_release(void);

#endif
