/*
 * rpc.h - the services: messages into requests of machines, and answers into messages.
 *
 * Memory, Machines and History are here; health and reflection in standard.h. A
 * process has one of them. Everything happens on the loop's thread. What is sent is
 * only queued; the turn flushes it.
 */
#ifndef RPC_H
#define RPC_H

#include "net.h"
#include "turn.h"

/* Before any call arrives. The turn must outlive every call. */
void rpc_open(struct turn *turn);
/* After the last call has been closed. */
void rpc_close(void);

/* net_options.route. */
const struct net_method *rpc_route(void *user, const char *path, size_t length);

/* Hands the batches of results that this turn has filled to net, before net_flush(). */
void rpc_flush(void);

/* The daemon goes down: streams that never end by themselves are ended. */
void rpc_stop(void);

#endif
