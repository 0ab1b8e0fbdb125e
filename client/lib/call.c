/*
 * call.c - unary calls: one message out, one message back; and ops that survive a
 * lost connection.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client.h"
#include "contract_protobuf.h"
#include "contract_tables.h"
#include "grpc/health/v1/health.pb-c.h"

enum { RETRY_PAUSE_MS = 20 };

int zoned_call(struct zoned *z, const char *method, const ProtobufCMessage *request,
	       const ProtobufCMessageDescriptor *reply_type, uint32_t timeout_ms,
	       ProtobufCMessage **ret_reply)
{
	ProtobufCMessage *reply = NULL, *second = NULL;
	struct zoned_stream *s;
	int rc = zoned_stream_open(z, method, reply_type, timeout_ms, &s);

	if (rc)
		return rc;
	rc = zoned_stream_send(s, request);
	if (!rc)
		rc = zoned_stream_end(s);
	if (!rc)
		rc = zoned_stream_receive(s, ZONED_NO_TIMEOUT, &reply);
	if (rc == ZONED_END) {
		rc = ZONED_PROTOCOL;
		fail(z, rc, "%s: OK without an answer", method);
	}
	/* The answer counts only with the trailers behind it. */
	if (!rc) {
		rc = zoned_stream_receive(s, ZONED_NO_TIMEOUT, &second);
		if (rc == ZONED_END)
			rc = 0;
		else if (!rc)
			rc = fail(z, ZONED_PROTOCOL, "%s: two answers to one call", method);
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

/* ---- ops ---- */

/* The field of a message that holds a submessage, or NULL. */
static ProtobufCMessage **submessage(const ProtobufCMessage *m, unsigned number)
{
	const ProtobufCFieldDescriptor *f =
	    protobuf_c_message_descriptor_get_field(m->descriptor, number);

	if (!f || f->type != PROTOBUF_C_TYPE_MESSAGE)
		return NULL;
	return (ProtobufCMessage **)((uintptr_t)m + f->offset);
}

/* Takes the op's own result out of a Memory.Status answer. */
static ProtobufCMessage *steal_result(Zoned__V1__StatusResponse *status, uint32_t code)
{
	ProtobufCMessage **field, *result;

	if (!status->result || (uint32_t)status->result->result_case != code)
		return NULL;
	field = submessage(&status->result->base, code);
	result = *field;
	*field = NULL;
	status->result->result_case = ZONED__V1__RESULT__RESULT__NOT_SET;
	return result;
}

static void pause_ms(long ms)
{
	struct timespec t = {.tv_nsec = ms * 1000000};

	nanosleep(&t, NULL);
}

/* What became of the op? 0: here is its result. ZONED_AGAIN: it never was, or is still
 * parked (*ret_taken says which). Anything else: cannot tell. */
static int ask_status(struct zoned *z, const Zoned__V1__OpContext *context, uint32_t code,
		      uint64_t deadline, bool *ret_taken, ProtobufCMessage **ret_result)
{
	Zoned__V1__StatusRequest request = ZONED__V1__STATUS_REQUEST__INIT;
	Zoned__V1__StatusResponse *status;
	ProtobufCMessage *reply;
	int rc;

	request.machine = context->machine;
	request.token = context->token;
	request.sequence = context->sequence;
	rc = zoned_call(z, "/zoned.v1.Memory/Status", &request.base,
			&zoned__v1__status_response__descriptor, clock_left_ms(deadline), &reply);
	if (rc)
		return rc;
	status = (Zoned__V1__StatusResponse *)reply;
	*ret_taken = status->taken;
	*ret_result = status->taken && !status->parked ? steal_result(status, code) : NULL;
	if (status->taken && !status->parked && !*ret_result)
		rc = fail(z, ZONED_PROTOCOL, "the daemon knows the op but not its result");
	else
		rc = *ret_result ? 0 : ZONED_AGAIN;
	protobuf_c_message_free_unpacked(reply, NULL);
	return rc;
}

static bool may_retry(int rc)
{
	/* UNAVAILABLE is a daemon that is shutting down or still recovering. */
	return rc == ZONED_LOST || rc == ZONED_UNREACHABLE || rc == ZONED_UNAVAILABLE;
}

int zoned_op(struct zoned *z, uint32_t code, const ProtobufCMessage *op, uint32_t timeout_ms,
	     ProtobufCMessage **ret_result)
{
	uint64_t deadline = clock_deadline(timeout_ms);
	const Zoned__V1__OpContext *context;
	bool taken = false, sent = false;
	char method[64];
	int rc;

	if (code >= OP_CODE_END || op->descriptor != contract_op_messages[code].op)
		return fail(z, ZONED_ARGUMENT, "no op %u, or a message that is not its own", code);
	context = (const Zoned__V1__OpContext *)*submessage(op, 1);
	snprintf(method, sizeof method, "/zoned.v1.Memory/%s", contract_ops[code].name);
	for (;;) {
		/* Sent before, so ask what became of it; only what never was is sent again. */
		if (sent)
			rc = ask_status(z, context, code, deadline, &taken, ret_result);
		if (!sent || (rc == ZONED_AGAIN && !taken))
			rc = zoned_call(z, method, op, contract_op_messages[code].result,
					clock_left_ms(deadline), ret_result);
		if (!context || !context->token)
			return rc;
		sent = sent || rc == ZONED_LOST;
		if (!may_retry(rc) && rc != ZONED_AGAIN)
			return rc;
		if (clock_left_ms(deadline) == 0)
			return rc == ZONED_AGAIN
				   ? fail(z, ZONED_DEADLINE_EXCEEDED, "the op is still parked")
				   : rc;
		pause_ms(RETRY_PAUSE_MS);
	}
}
