/*
 * rpc.h - the services: messages into requests of machines, and answers into messages.
 *
 * Memory, Machines and History are here; health and reflection in standard.h. A
 * process has one of them. Everything happens on the loop's thread. What is sent is
 * only queued; the turn flushes it.
 *
 * When a call's deadline passes or its client cancels, its op is given up if it was not
 * taken up yet, and withdrawn if it sleeps. An op that was executed stays: the client
 * sees DEADLINE_EXCEEDED, the row is committed, and Status tells.
 *
 * Limits, and what is answered at each:
 *
 *   connections 1024, streams of each 1024     GOAWAY; REFUSED_STREAM, by net/
 *   a message 4 MiB                            RESOURCE_EXHAUSTED
 *   machines --max-machines                    RESOURCE_EXHAUSTED; Fork: status LIMIT
 *   memory --max-memory, --max-machine-memory  RESOURCE_EXHAUSTED for ops and Create
 *   ops before one machine 65536, labels 65536 RESOURCE_EXHAUSTED
 *   ops of a stream 8192, answers 4 MiB        the stream is not read meanwhile
 *   parked ops                                 one a task, so as many as there are tasks
 *   queries 32, tails 64                       RESOURCE_EXHAUSTED
 *   a query's time --query-timeout-ms          DEADLINE_EXCEEDED
 *   looks into machines 4, one a machine       they wait
 *   a report or a page 3.5 MiB                 cut, and says so
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
