/*
 * call.c - unary calls: one message out, one message back.
 */
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "grpc/health/v1/health.pb-c.h"

int call_begin(struct zoned *z, const char *method, const ProtobufCMessage *request,
	       const ProtobufCMessageDescriptor *reply_type, uint32_t timeout_ms,
	       struct zoned_stream **ret_call)
{
	struct zoned_stream *s;
	int rc = zoned_stream_open(z, method, reply_type, timeout_ms, &s);

	if (rc)
		return rc;
	rc = zoned_stream_send(s, request);
	if (!rc)
		rc = zoned_stream_end(s);
	if (rc)
		zoned_stream_close(s);
	else
		*ret_call = s;
	return rc;
}

int call_finish(struct zoned_stream *s, ProtobufCMessage **ret_reply)
{
	ProtobufCMessage *reply = NULL, *second = NULL;
	struct zoned *z = s->connection;
	int rc = zoned_stream_receive(s, ZONED_NO_TIMEOUT, &reply);

	if (rc == ZONED_END)
		rc = fail(z, ZONED_PROTOCOL, "OK without a %s", s->reply_type->name);
	/* The answer counts only with the trailers behind it. */
	if (!rc) {
		rc = zoned_stream_receive(s, ZONED_NO_TIMEOUT, &second);
		if (rc == ZONED_END)
			rc = 0;
		else if (!rc)
			rc = fail(z, ZONED_PROTOCOL, "two of %s to one call", s->reply_type->name);
	}
	zoned_stream_close(s);
	if (second)
		protobuf_c_message_free_unpacked(second, NULL);
	if (rc && reply)
		protobuf_c_message_free_unpacked(reply, NULL);
	if (!rc)
		*ret_reply = reply;
	return rc;
}

int zoned_call(struct zoned *z, const char *method, const ProtobufCMessage *request,
	       const ProtobufCMessageDescriptor *reply_type, uint32_t timeout_ms,
	       ProtobufCMessage **ret_reply)
{
	struct zoned_stream *s;
	int rc = call_begin(z, method, request, reply_type, timeout_ms, &s);

	return rc ? rc : call_finish(s, ret_reply);
}

int zoned_health(struct zoned *z, const char *service, uint32_t timeout_ms, bool *ret_serving)
{
	Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
	Grpc__Health__V1__HealthCheckResponse *response;
	ProtobufCMessage *reply;
	char *name = strdup(service);
	int rc;

	if (!name)
		return fail(z, ZONED_NO_MEMORY, "out of memory");
	request.service = name;
	rc = zoned_call(z, "/grpc.health.v1.Health/Check", &request.base,
			&grpc__health__v1__health_check_response__descriptor, timeout_ms, &reply);
	free(name);
	if (rc)
		return rc;
	response = (Grpc__Health__V1__HealthCheckResponse *)reply;
	*ret_serving =
	    response->status == GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
	protobuf_c_message_free_unpacked(reply, NULL);
	return 0;
}
