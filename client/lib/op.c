/*
 * op.c - ops that are done once, whatever happens to the connection or the daemon.
 *
 * An op is named by its token and sequence. When the way to the daemon was lost with the
 * op on it, Memory.Status says whether the op was taken up and what it answered. Once
 * Status has said no, the daemon refuses the op should the lost call still bring it, so
 * that sending it again does it once.
 */
#include <stdio.h>
#include <time.h>

#include "client.h"
#include "contract_protobuf.h"
#include "contract_tables.h"

/* Between two questions after an op that sleeps, and before the first new attempt to
 * reach a daemon; that pause doubles. A daemon is back in a few of these. */
enum { PAUSE_MS = 10, PAUSE_MAX_MS = 500 };

/* ---- trying again ---- */

bool may_retry(int rc)
{
	/* UNAVAILABLE is a daemon that is shutting down or still recovering. */
	return rc == ZONED_LOST || rc == ZONED_UNREACHABLE || rc == ZONED_UNAVAILABLE;
}

bool backoff_pause(const struct zoned *z, struct backoff *b, int rc, uint64_t deadline_ns)
{
	struct timespec t;
	uint32_t left;

	if (!b->pause_ms)
		b->pause_ms = PAUSE_MS;
	/* ZONED_AGAIN and UNAVAILABLE are answers: the daemon is there. */
	if (!b->give_up_ns || rc == ZONED_AGAIN || rc == ZONED_UNAVAILABLE)
		b->give_up_ns = clock_deadline(z->patience_ms);
	left = clock_left_ms(deadline_ns < b->give_up_ns ? deadline_ns : b->give_up_ns);
	if (left == 0)
		return false;
	if (left > b->pause_ms)
		left = b->pause_ms;
	t = (struct timespec){left / 1000, (long)(left % 1000) * 1000000};
	nanosleep(&t, NULL);
	b->pause_ms = b->pause_ms * 2 < PAUSE_MAX_MS ? b->pause_ms * 2 : PAUSE_MAX_MS;
	return true;
}

/* ---- asking ---- */

int status_begin(struct zoned *z, const struct op_name *name, uint32_t timeout_ms,
		 struct zoned_stream **ret_call)
{
	Zoned__V1__StatusRequest request = ZONED__V1__STATUS_REQUEST__INIT;

	request.machine = (char *)(uintptr_t)name->machine;
	request.token = name->token;
	request.sequence = name->sequence;
	return call_begin(z, "/zoned.v1.Memory/Status", &request.base,
			  &zoned__v1__status_response__descriptor, timeout_ms, ret_call);
}

int status_finish(struct zoned_stream *call, uint32_t code, Zoned__V1__StatusResponse **ret_status)
{
	struct zoned *z = call->connection;
	Zoned__V1__StatusResponse *status;
	ProtobufCMessage *reply;
	int rc = call_finish(call, &reply);

	if (rc)
		return rc;
	status = (Zoned__V1__StatusResponse *)reply;
	if (status->taken && !status->parked &&
	    (!status->result || (uint32_t)status->result->result_case != code)) {
		protobuf_c_message_free_unpacked(reply, NULL);
		return fail(z, ZONED_PROTOCOL, "the daemon knows the op but not its result");
	}
	*ret_status = status;
	return 0;
}

/* ---- one op ---- */

/* The field of a message that holds a submessage, or NULL. */
static ProtobufCMessage **submessage(const ProtobufCMessage *m, unsigned number)
{
	const ProtobufCFieldDescriptor *f =
	    protobuf_c_message_descriptor_get_field(m->descriptor, number);

	if (!f || f->type != PROTOBUF_C_TYPE_MESSAGE)
		return NULL;
	return (ProtobufCMessage **)((uintptr_t)m + f->offset);
}

const Zoned__V1__OpContext *op_context(const ProtobufCMessage *op)
{
	return (const Zoned__V1__OpContext *)*submessage(op, 1);
}

/* Takes the op's own result out of a Memory.Status answer. */
static ProtobufCMessage *steal_result(Zoned__V1__StatusResponse *status, uint32_t code)
{
	ProtobufCMessage **field = submessage(&status->result->base, code), *result = *field;

	*field = NULL;
	status->result->result_case = ZONED__V1__RESULT__RESULT__NOT_SET;
	return result;
}

/* What became of the op? 0: here is its result. ZONED_AGAIN: it never was, or is still
 * parked (*ret_taken says which). Anything else: cannot tell. */
static int ask_status(struct zoned *z, const struct op_name *name, uint32_t code, uint64_t deadline,
		      bool *ret_taken, ProtobufCMessage **ret_result)
{
	Zoned__V1__StatusResponse *status = NULL;
	struct zoned_stream *call;
	int rc = status_begin(z, name, clock_left_ms(deadline), &call);

	if (!rc)
		rc = status_finish(call, code, &status);
	if (rc || !status)
		return rc;
	*ret_taken = status->taken;
	if (status->taken && !status->parked)
		*ret_result = steal_result(status, code);
	else
		rc = ZONED_AGAIN;
	protobuf_c_message_free_unpacked(&status->base, NULL);
	return rc;
}

/* An op that has a name, until it is done or cannot be. */
static int persist(struct zoned *z, const char *method, uint32_t code, const ProtobufCMessage *op,
		   const struct op_name *name, uint64_t deadline, ProtobufCMessage **ret_result)
{
	bool taken = false, uncertain = false;
	struct backoff backoff = {0};
	int rc;

	for (;;) {
		/* Only what never was is sent again. */
		if (uncertain) {
			rc = ask_status(z, name, code, deadline, &taken, ret_result);
			/* One that answers is not gone, however often it then breaks off. */
			if (rc == ZONED_AGAIN)
				backoff = (struct backoff){0};
		}
		if (!uncertain || (rc == ZONED_AGAIN && !taken))
			rc = zoned_call(z, method, op, contract_op_messages[code].result,
					clock_left_ms(deadline), ret_result);
		if (!may_retry(rc) && rc != ZONED_AGAIN)
			return rc;
		/* A sleeper, too, hears UNAVAILABLE from a daemon that goes down. */
		uncertain = uncertain || rc == ZONED_LOST || rc == ZONED_UNAVAILABLE;
		if (!backoff_pause(z, &backoff, rc, deadline))
			return rc == ZONED_AGAIN
				   ? fail(z, ZONED_DEADLINE_EXCEEDED, "the op is still parked")
				   : rc;
	}
}

int zoned_op(struct zoned *z, uint32_t code, const ProtobufCMessage *op, uint32_t timeout_ms,
	     ProtobufCMessage **ret_result)
{
	const Zoned__V1__OpContext *context;
	char method[64];

	if (code >= OP_CODE_END || op->descriptor != contract_op_messages[code].op)
		return fail(z, ZONED_ARGUMENT, "no op %u, or a message that is not its own", code);
	context = op_context(op);
	snprintf(method, sizeof method, "/zoned.v1.Memory/%s", contract_ops[code].name);
	if (!context || !context->token)
		return zoned_call(z, method, op, contract_op_messages[code].result, timeout_ms,
				  ret_result);
	const struct op_name name = {context->machine, context->token, context->sequence};

	return persist(z, method, code, op, &name, clock_deadline(timeout_ms), ret_result);
}
