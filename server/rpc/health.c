/*
 * health.c - grpc.health.v1: Check and Watch.
 *
 * The daemon serves as a whole, so "" and every service of the contract have one state.
 * An unknown service is NOT_FOUND to Check; Watch answers SERVICE_UNKNOWN and stays
 * open, as the standard has it. A request without a message asks for "": some load
 * balancers send nothing but the end of the stream.
 *
 * Invariants:
 *  1. `watchers` holds exactly the Watch calls that were told a state and are not over.
 *  2. A watcher is told a state only when it changed, so a watcher that does not read
 *     costs a few bytes per change.
 *
 * The state is the process's, hence the only file-scope variables of the room.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "contract_protobuf.h"
#include "grpc/health/v1/health.pb-c.h"
#include "standard.h"

typedef Grpc__Health__V1__HealthCheckRequest request_t;
typedef Grpc__Health__V1__HealthCheckResponse response_t;

#define STATUS(name) GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__##name

struct check {
	LIST_ENTRY(check) link; /* while it watches */
	struct net_call *call;
	bool asked;    /* its message has come */
	bool known;    /* the service that it names is ours */
	bool watching; /* in the list */
};

static LIST_HEAD(, check) watchers = LIST_HEAD_INITIALIZER(watchers);
static bool is_serving;

static bool is_known(const char *service)
{
	if (!*service)
		return true;
	for (unsigned i = 0; i < contract_nr_services; i++) {
		if (strcmp(contract_services[i], service) == 0)
			return true;
	}
	return false;
}

static void tell(const struct check *check)
{
	response_t response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;

	if (!check->known)
		response.status = STATUS(SERVICE_UNKNOWN);
	else
		response.status = is_serving ? STATUS(SERVING) : STATUS(NOT_SERVING);
	grpc__health__v1__health_check_response__pack(
	    &response,
	    net_send_room(check->call,
			  grpc__health__v1__health_check_response__get_packed_size(&response)));
}

void health_set(bool serving)
{
	struct check *check;

	if (is_serving == serving)
		return;
	is_serving = serving;
	LIST_FOREACH(check, &watchers, link)
	{
		if (check->known)
			tell(check);
	}
}

static void open_cb(struct net_call *call)
{
	struct check *check = calloc(1, sizeof(*check));

	if (!check) {
		net_finish(call, NET_RESOURCE_EXHAUSTED, "out of memory");
		return;
	}
	check->call = call;
	check->known = true;
	net_call_set_user(call, check);
}

static void message_cb(struct net_call *call, const uint8_t *bytes, size_t length)
{
	struct check *check = net_call_user(call);
	request_t *request = grpc__health__v1__health_check_request__unpack(NULL, length, bytes);

	if (!request) {
		net_finish(call, NET_INVALID_ARGUMENT, "not a HealthCheckRequest");
		return;
	}
	if (check->asked)
		net_finish(call, NET_INTERNAL, "more than one message in a unary request");
	check->asked = true;
	check->known = is_known(request->service);
	grpc__health__v1__health_check_request__free_unpacked(request, NULL);
}

static void check_half_close_cb(struct net_call *call)
{
	const struct check *check = net_call_user(call);

	if (!check->known) {
		net_finish(call, NET_NOT_FOUND, "no such service");
		return;
	}
	tell(check);
	net_finish(call, NET_OK, NULL);
}

static void watch_half_close_cb(struct net_call *call)
{
	struct check *check = net_call_user(call);

	tell(check);
	check->watching = true;
	LIST_INSERT_HEAD(&watchers, check, link);
}

static void closed_cb(struct net_call *call, enum net_end end)
{
	struct check *check = net_call_user(call);

	(void)end;
	if (check && check->watching)
		LIST_REMOVE(check, link);
	free(check);
}

static const struct net_handler check_handler = {
    .open = open_cb,
    .message = message_cb,
    .half_close = check_half_close_cb,
    .closed = closed_cb,
};

static const struct net_handler watch_handler = {
    .open = open_cb,
    .message = message_cb,
    .half_close = watch_half_close_cb,
    .closed = closed_cb,
};

const struct net_method health_methods[HEALTH_METHODS] = {
    {"/grpc.health.v1.Health/Check", &check_handler, NULL, true},
    {"/grpc.health.v1.Health/Watch", &watch_handler, NULL, true},
};
