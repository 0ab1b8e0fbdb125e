/*
 * fuzz_pipe.c - any text as the input of `zonectl pipe`: JSON lines, names, arguments.
 *
 * The daemon's side is here: a run that answers each op when it is waited for, some of them
 * with a refusal, the others with values made of the op's number.
 *
 * What must hold: what is sent is an op of the contract that packs and unpacks to itself; all
 * that was sent is answered; the exit code says whether a line or an op failed.
 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "zonectl.h"

enum { REFUSED_EACH = 7, FAILED_EACH = 5 };

/* ---- the client library ---- */

struct sent {
	uint32_t code;
	struct sent *next;
};

struct zoned_run {
	zoned_result_fn *on_result;
	void *user;
	struct sent *first, **last;
	uint64_t filling, in_flight, answered;
};

static struct zoned_run run;
static uint64_t refusals; /* answers of the daemon that are no success */

int zoned_run_open(struct zoned *z, const Zoned__V1__OpContext *context, zoned_result_fn *on_result,
		   void *user, struct zoned_run **ret_run)
{
	(void)z;
	FUZZ_CHECK(protobuf_c_message_check(&context->base));
	run = (struct zoned_run){.on_result = on_result, .user = user, .last = &run.first};
	*ret_run = &run;
	return 0;
}

int zoned_run_add(struct zoned_run *r, uint32_t code, const ProtobufCMessage *op)
{
	struct sent *sent = malloc(sizeof *sent);
	size_t size = protobuf_c_message_get_packed_size(op);
	uint8_t *bytes = malloc(size ? size : 1), *again = malloc(size ? size : 1);
	ProtobufCMessage *copy;

	FUZZ_CHECK(sent && bytes && again);
	FUZZ_CHECK(code < OP_CODE_END && op->descriptor == contract_op_messages[code].op);
	FUZZ_CHECK(protobuf_c_message_pack(op, bytes) == size);
	copy = protobuf_c_message_unpack(op->descriptor, NULL, size, bytes);
	FUZZ_CHECK(copy && protobuf_c_message_get_packed_size(copy) == size);
	FUZZ_CHECK(protobuf_c_message_pack(copy, again) == size && !memcmp(bytes, again, size));
	protobuf_c_message_free_unpacked(copy, NULL);
	free(bytes);
	free(again);
	*sent = (struct sent){.code = code};
	*r->last = sent;
	r->last = &sent->next;
	r->filling++;
	return 0;
}

int zoned_run_flush(struct zoned_run *r)
{
	r->in_flight += r->filling;
	r->filling = 0;
	return 0;
}

uint64_t zoned_run_filling(const struct zoned_run *r)
{
	return r->filling;
}

uint64_t zoned_run_in_flight(const struct zoned_run *r)
{
	return r->in_flight;
}

/* A result of the op: its number, a status, and something in every value. */
static ProtobufCMessage *result_of(uint32_t code, uint64_t index)
{
	ProtobufCMessage *m = message_new(contract_op_messages[code].result);
	ProtobufCMessage *outcome = message_new(&zoned__v1__outcome__descriptor);
	const struct contract_fields *values = &contract_ops[code].values;

	message_set(outcome, 1, index + 1);
	message_set(outcome, 2, index % FAILED_EACH == 1 ? STATUS_NO_MEMORY : STATUS_OK);
	message_set_sub(m, 1, outcome);
	for (unsigned i = 0; i < values->nr_ints; i++)
		message_set(m, values->ints[i].number,
			    values->ints[i].kind == FIELD_U64 ? ~index : index % 3);
	return m;
}

static void answer(struct zoned_run *r)
{
	struct sent *sent = r->first;
	Zoned__V1__Result result = ZONED__V1__RESULT__INIT;
	uint64_t index = r->answered++;

	r->first = sent->next;
	if (!r->first)
		r->last = &r->first;
	r->in_flight--;
	result.index = index;
	if (index % REFUSED_EACH == 2) {
		result.code = 3;
		result.message = (char *)(uintptr_t) "out of range";
	} else {
		message_set_sub(&result.base, sent->code, result_of(sent->code, index));
	}
	refusals += result.code || index % FAILED_EACH == 1;
	r->on_result(r->user, index, &result);
	if (!result.code)
		message_free(message_sub(&result.base, sent->code));
	free(sent);
}

int zoned_run_wait(struct zoned_run *r, uint64_t max_in_flight, uint32_t timeout_ms)
{
	(void)timeout_ms;
	while (r->in_flight > max_in_flight)
		answer(r);
	return 0;
}

void zoned_run_close(struct zoned_run *r)
{
	if (!r)
		return;
	for (struct sent *next; r->first; r->first = next) {
		next = r->first->next;
		free(r->first);
	}
}

const char *zoned_code_name(int code)
{
	return code ? "INVALID_ARGUMENT" : "OK";
}

int zoned_fd(const struct zoned *z)
{
	(void)z;
	return STDIN_FILENO;
}

short zoned_poll_events(const struct zoned *z)
{
	(void)z;
	return 0;
}

int zoned_process(struct zoned *z, uint32_t timeout_ms)
{
	(void)z, (void)timeout_ms;
	return 0;
}

uint64_t zoned_token(void)
{
	return 1;
}

int zoned_op(struct zoned *z, uint32_t code, const ProtobufCMessage *op, uint32_t timeout_ms,
	     ProtobufCMessage **ret_result)
{
	(void)z, (void)code, (void)op, (void)timeout_ms, (void)ret_result;
	FUZZ_CHECK(false); /* pipe has no unary ops */
	return 0;
}

/* ---- the rest of zonectl ---- */

int ctl_connect(struct ctl *ctl)
{
	(void)ctl;
	return EXIT_DONE;
}

int ctl_failed(struct ctl *ctl, const char *what, int code)
{
	(void)ctl, (void)what, (void)code;
	FUZZ_CHECK(false); /* this connection does not break */
	return EXIT_REFUSED;
}

int ctl_need_machine(const struct ctl *ctl, const char *command)
{
	(void)ctl, (void)command;
	return EXIT_DONE;
}

const char *field_doc(const struct contract_field *f)
{
	return f->doc;
}

bool completing(void)
{
	return false;
}

void complete_at(struct ctl *ctl, const char *command, const struct flag *flags, unsigned nr_flags,
		 const struct flag *value_of, unsigned nr_words)
{
	(void)ctl, (void)command, (void)flags, (void)nr_flags, (void)value_of, (void)nr_words;
}

/* ---- a try ---- */

static void become_input(const uint8_t *bytes, size_t length)
{
	int file = memfd_create("input", 0);

	FUZZ_CHECK(file >= 0 && write(file, bytes, length) == (ssize_t)length);
	FUZZ_CHECK(lseek(file, 0, SEEK_SET) == 0 && dup2(file, STDIN_FILENO) == STDIN_FILENO);
	if (file != STDIN_FILENO)
		close(file);
}

/* The first byte's lowest bit: --keep-going. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	static char complaints[512];
	char quiet[] = "--quiet", keep_going[] = "--keep-going", batch[] = "--batch", three[] = "3";
	char *argv[] = {quiet, batch, three, keep_going};
	struct ctl ctl = {.machine = (char *)(uintptr_t) "m0", .timeout_ms = ZONED_NO_TIMEOUT};
	bool keeps = length && bytes[0] & 1;
	int code;

	become_input(length ? bytes + 1 : bytes, length ? length - 1 : 0);
	complaints[0] = '\0';
	refusals = 0;
	complain_to(complaints, sizeof complaints);
	code = pipe_command(&ctl, keeps ? 4 : 3, argv);
	complain_to(NULL, 0);
	FUZZ_CHECK(code == EXIT_DONE || code == EXIT_NOT_OK || code == EXIT_USAGE ||
		   code == EXIT_REFUSED);
	FUZZ_CHECK((code == EXIT_DONE) == !*complaints);
	FUZZ_CHECK(!run.first || !keeps); /* who goes on leaves nothing without an answer */
	return 0;
}
