/*
 * inspect.h - Machines.Inspect: a question by the contract's table, a report likewise.
 */
#ifndef RPC_INSPECT_H
#define RPC_INSPECT_H

#include "net.h"

void inspect_message(struct net_call *call, const uint8_t *bytes, size_t length);

#endif
