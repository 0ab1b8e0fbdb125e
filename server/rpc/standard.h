/*
 * standard.h - the services that every gRPC client knows: health and reflection.
 *
 * Their methods stand in tables for the router (rpc.c). Everything happens on the
 * loop's thread; nothing blocks.
 */
#ifndef STANDARD_H
#define STANDARD_H

#include <stdbool.h>

#include "net.h"

enum { HEALTH_METHODS = 2, REFLECTION_METHODS = 2 };

/* grpc.health.v1.Health: Check and Watch, answered without a token. */
extern const struct net_method health_methods[HEALTH_METHODS];

/* grpc.reflection.v1 and v1alpha: one method each, the same on the wire. */
extern const struct net_method reflection_methods[REFLECTION_METHODS];

/*
 * Says whether the daemon serves: of the whole ("") and of every service of the
 * contract. False until first called. Watchers hear of a change at the next
 * net_flush().
 */
void health_set(bool serving);

#endif
