/*
 * test_retry.c - ops with a token are done exactly once, wherever the connection breaks
 * and whenever the daemon dies.
 */
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "contract.h"
#include "daemon.h"
#include "effort.h"
#include "relay.h"

struct fixture {
	struct test_daemon daemon;
	struct zoned *direct; /* not through the relay */
	struct relay *relay;
	char relayed[128];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);

	assert_non_null(f);
	daemon_make(&f->daemon, ZONED);
	daemon_start(&f->daemon);
	daemon_await(&f->daemon);
	f->direct = daemon_connect(&f->daemon);
	snprintf(f->relayed, sizeof f->relayed, "unix:%s/relay", f->daemon.folder);
	f->relay = relay_start(f->relayed, f->daemon.address);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	relay_stop(f->relay);
	zoned_close(f->direct);
	daemon_stop(&f->daemon);
	daemon_remove(&f->daemon);
	free(f);
	return 0;
}

/* ---- what is asked of the daemon ---- */

static void create_machine(struct fixture *f, uint64_t ram)
{
	Zoned__V1__CreateRequest request = ZONED__V1__CREATE_REQUEST__INIT;
	Zoned__V1__MachineConfig config = ZONED__V1__MACHINE_CONFIG__INIT;
	ProtobufCMessage *machine;

	config.ram = ram;
	request.name = (char *)(uintptr_t) "m";
	request.config = &config;
	assert_int_equal(zoned_call(f->direct, "/zoned.v1.Machines/Create", &request.base,
				    &zoned__v1__machine__descriptor, ZONED_NO_TIMEOUT, &machine),
			 0);
	protobuf_c_message_free_unpacked(machine, NULL);
}

static uint64_t ops_of_machine(struct fixture *f)
{
	Zoned__V1__GetRequest request = ZONED__V1__GET_REQUEST__INIT;
	ProtobufCMessage *machine;
	uint64_t ops;

	request.machine = (char *)(uintptr_t) "m";
	assert_int_equal(zoned_call(f->direct, "/zoned.v1.Machines/Get", &request.base,
				    &zoned__v1__machine__descriptor, ZONED_NO_TIMEOUT, &machine),
			 0);
	ops = ((Zoned__V1__Machine *)machine)->ops;
	protobuf_c_message_free_unpacked(machine, NULL);
	return ops;
}

static struct zoned *connect_to(const char *address)
{
	struct zoned_options options = {.address = address};
	struct zoned *z;
	char err[256] = "";

	if (zoned_connect(&options, &z, err, sizeof err))
		fail_msg("%s", err);
	return z;
}

static Zoned__V1__OpContext context_of(uint64_t token, uint64_t sequence)
{
	Zoned__V1__OpContext context = ZONED__V1__OP_CONTEXT__INIT;

	context.machine = (char *)(uintptr_t) "m";
	context.token = token;
	context.sequence = sequence;
	return context;
}

/* An AllocPages; the number that it has on the machine. */
static uint64_t alloc(struct zoned *z, uint64_t token, uint64_t sequence)
{
	Zoned__V1__OpContext context = context_of(token, sequence);
	Zoned__V1__AllocPages op = ZONED__V1__ALLOC_PAGES__INIT;
	Zoned__V1__AllocPagesResult *r;
	ProtobufCMessage *result = NULL;
	uint64_t number;
	int rc;

	op.context = &context;
	op.gfp = GFP_KERNEL;
	rc = zoned_op(z, OP_ALLOC_PAGES, &op.base, ZONED_NO_TIMEOUT, &result);
	if (rc)
		fail_msg("%s: %s", zoned_code_name(rc), zoned_error(z));
	r = (Zoned__V1__AllocPagesResult *)result;
	assert_int_equal(r->outcome->status, STATUS_OK);
	number = r->outcome->op;
	protobuf_c_message_free_unpacked(result, NULL);
	return number;
}

/* ---- the connection breaks ---- */

static void test_an_op_is_done_once_wherever_the_connection_breaks(void **state)
{
	struct fixture *f = *state;
	uint64_t ops = 0;

	create_machine(f, 1 << 28);
	for (enum relay_way way = TO_DAEMON; way <= TO_CLIENT; way++) {
		bool cut = true;

		for (size_t bytes = 0; cut; bytes++) {
			struct zoned *z;

			relay_cut_after(f->relay, way, bytes);
			z = connect_to(f->relayed);
			assert_int_equal(alloc(z, zoned_token(), 1), ++ops);
			zoned_close(z);
			cut = relay_was_cut(f->relay);
			assert_int_equal(ops_of_machine(f), ops);
		}
	}
}

static void test_without_a_token_a_loss_is_told(void **state)
{
	struct fixture *f = *state;
	Zoned__V1__OpContext context = context_of(0, 0);
	Zoned__V1__AllocPages op = ZONED__V1__ALLOC_PAGES__INIT;
	ProtobufCMessage *result;
	struct zoned *z;

	create_machine(f, 1 << 28);
	op.context = &context;
	op.gfp = GFP_KERNEL;
	relay_cut_after(f->relay, TO_CLIENT, 0);
	z = connect_to(f->relayed);
	assert_int_equal(zoned_op(z, OP_ALLOC_PAGES, &op.base, ZONED_NO_TIMEOUT, &result),
			 ZONED_LOST);
	/* The handle is as good as new. */
	assert_int_equal(zoned_op(z, OP_ALLOC_PAGES, &op.base, ZONED_NO_TIMEOUT, &result), 0);
	protobuf_c_message_free_unpacked(result, NULL);
	zoned_close(z);
}

enum { RUN_OPS = 40, RUN_BATCH = 8 };

/* The answers of a run of AllocPages. */
struct answers {
	uint64_t op[1 << 16]; /* by index; 0: none yet */
	uint64_t nr;
};

static void on_result(void *user, uint64_t index, const Zoned__V1__Result *result)
{
	struct answers *a = user;

	assert_int_equal(result->code, 0);
	assert_int_equal(result->result_case, ZONED__V1__RESULT__RESULT_ALLOC_PAGES);
	assert_int_equal(result->index, index);
	assert_int_equal(result->alloc_pages->outcome->status, STATUS_OK);
	assert_int_equal(a->op[index], 0);
	a->op[index] = result->alloc_pages->outcome->op;
	a->nr++;
}

static struct zoned_run *open_run(struct zoned *z, uint64_t token, struct answers *a)
{
	Zoned__V1__OpContext context = context_of(token, 0);
	struct zoned_run *run;

	memset(a, 0, sizeof *a);
	assert_int_equal(zoned_run_open(z, &context, on_result, a, &run), 0);
	return run;
}

/* The same in a run whose results come packed. */
static void on_packed(void *user, const struct zoned_packed_result *p)
{
	Zoned__V1__Result result = ZONED__V1__RESULT__INIT;

	assert_int_equal(p->code, 0);
	assert_int_equal(p->op, OP_ALLOC_PAGES);
	result.index = p->index;
	result.result_case = ZONED__V1__RESULT__RESULT_ALLOC_PAGES;
	result.alloc_pages = zoned__v1__alloc_pages_result__unpack(NULL, p->length, p->bytes);
	assert_non_null(result.alloc_pages);
	on_result(user, p->index, &result);
	zoned__v1__alloc_pages_result__free_unpacked(result.alloc_pages, NULL);
}

static struct zoned_run *open_packed_run(struct zoned *z, uint64_t token, struct answers *a)
{
	Zoned__V1__OpContext context = context_of(token, 0);
	struct zoned_run *run;

	memset(a, 0, sizeof *a);
	assert_int_equal(zoned_run_open_packed(z, &context, on_packed, a, &run), 0);
	return run;
}

static void add_packed(struct zoned_run *run)
{
	Zoned__V1__AllocPages op = ZONED__V1__ALLOC_PAGES__INIT;
	uint8_t bytes[32];

	op.gfp = GFP_KERNEL;
	assert_int_equal(zoned_run_add_packed(run, OP_ALLOC_PAGES, bytes,
					      zoned__v1__alloc_pages__pack(&op, bytes)),
			 0);
}

static void add(struct zoned_run *run)
{
	Zoned__V1__AllocPages op = ZONED__V1__ALLOC_PAGES__INIT;

	op.gfp = GFP_KERNEL;
	assert_int_equal(zoned_run_add(run, OP_ALLOC_PAGES, &op.base), 0);
}

static void test_a_run_is_done_once_wherever_the_connection_breaks(void **state)
{
	struct fixture *f = *state;
	/* Every byte in the long run; else each residue comes about in some run of it. */
	size_t step = effort(1) > 1 ? 1 : 17, first = (size_t)getpid() % step;
	static struct answers a;
	bool packed = false;
	uint64_t ops = 0;

	create_machine(f, 1 << 28);
	for (enum relay_way way = TO_DAEMON; way <= TO_CLIENT; way++) {
		bool cut = true;

		for (size_t bytes = first; cut; bytes += step) {
			struct zoned_run *run;
			struct zoned *z;

			relay_cut_after(f->relay, way, bytes);
			z = connect_to(f->relayed);
			/* Packed or not makes no difference, to the last byte. */
			packed = !packed;
			run = packed ? open_packed_run(z, zoned_token(), &a)
				     : open_run(z, zoned_token(), &a);
			for (unsigned i = 0; i < RUN_OPS; i++) {
				if (i % 3 == 0)
					add_packed(run);
				else
					add(run);
				if (i % RUN_BATCH == RUN_BATCH - 1)
					assert_int_equal(zoned_run_flush(run), 0);
				if (i % RUN_BATCH == RUN_BATCH - 1)
					assert_int_equal(
					    zoned_run_wait(run, 2 * RUN_BATCH, ZONED_NO_TIMEOUT),
					    0);
			}
			if (zoned_run_finish(run))
				fail_msg("cut after %zu bytes, way %d: %s", bytes, (int)way,
					 zoned_error(z));
			zoned_close(z);
			cut = relay_was_cut(f->relay);
			assert_int_equal(a.nr, RUN_OPS);
			/* In the order in which they were added. */
			for (unsigned i = 0; i < RUN_OPS; i++)
				assert_int_equal(a.op[i], ++ops);
			assert_int_equal(ops_of_machine(f), ops);
		}
	}
}

/* Sequences that ops bring themselves, also out of order, keep their names. */
static void test_a_run_keeps_the_names_that_ops_bring(void **state)
{
	static const uint64_t own[] = {0, 0, 70, 3, 0, 9, 0, 80, 81, 0};
	static const uint64_t meant[] = {1, 2, 70, 3, 4, 9, 5, 80, 81, 6};
	enum { NR = sizeof own / sizeof *own };
	struct fixture *f = *state;
	static struct answers a;

	create_machine(f, 1 << 28);
	for (size_t bytes = 0; bytes < 600; bytes += 60) {
		uint64_t token = zoned_token();
		struct zoned_run *run;
		struct zoned *z;

		relay_cut_after(f->relay, TO_CLIENT, bytes);
		z = connect_to(f->relayed);
		run = open_run(z, token, &a);
		for (unsigned i = 0; i < NR; i++) {
			Zoned__V1__OpContext context = ZONED__V1__OP_CONTEXT__INIT;
			Zoned__V1__AllocPages op = ZONED__V1__ALLOC_PAGES__INIT;

			context.sequence = own[i];
			op.context = own[i] ? &context : NULL;
			op.gfp = GFP_KERNEL;
			assert_int_equal(zoned_run_add(run, OP_ALLOC_PAGES, &op.base), 0);
			assert_int_equal(zoned_run_flush(run), 0);
			assert_int_equal(zoned_run_wait(run, i % 3, ZONED_NO_TIMEOUT), 0);
		}
		assert_int_equal(zoned_run_finish(run), 0);
		zoned_close(z);
		for (unsigned i = 0; i < NR; i++) {
			Zoned__V1__StatusRequest request = ZONED__V1__STATUS_REQUEST__INIT;
			Zoned__V1__StatusResponse *status;
			ProtobufCMessage *reply;

			request.machine = (char *)(uintptr_t) "m";
			request.token = token;
			request.sequence = meant[i];
			assert_int_equal(zoned_call(f->direct, "/zoned.v1.Memory/Status",
						    &request.base,
						    &zoned__v1__status_response__descriptor,
						    ZONED_NO_TIMEOUT, &reply),
					 0);
			status = (Zoned__V1__StatusResponse *)reply;
			assert_true(status->taken);
			assert_int_equal(status->result->alloc_pages->outcome->op, a.op[i]);
			protobuf_c_message_free_unpacked(reply, NULL);
		}
	}
}

/* ---- the daemon ends ---- */

struct restart {
	struct test_daemon *daemon;
	void (*how)(struct test_daemon *d);
	long before_ms, between_ms;
	unsigned times;
};

static void *restart(void *arg)
{
	struct restart *r = arg;

	for (unsigned i = 0; i < r->times; i++) {
		nanosleep(&(struct timespec){0, r->before_ms * 1000000}, NULL);
		/* One that has hardly begun dies of SIGTERM as any program does. */
		if (r->how == daemon_stop)
			daemon_await(r->daemon);
		r->how(r->daemon);
		nanosleep(&(struct timespec){0, r->between_ms * 1000000}, NULL);
		daemon_start(r->daemon);
	}
	return NULL;
}

static void run_across(struct fixture *f, void (*how)(struct test_daemon *d))
{
	struct restart r = {&f->daemon, how, 60, 30, 4};
	struct zoned *z = connect_to(f->daemon.address);
	static struct answers a;
	struct zoned_run *run;
	pthread_t thread;
	uint64_t added = 0, op = 0;
	bool over = false;

	create_machine(f, 1 << 28);
	run = open_run(z, zoned_token(), &a);
	assert_int_equal(pthread_create(&thread, NULL, restart, &r), 0);
	while (!over || added % RUN_BATCH) {
		add(run);
		if (++added % RUN_BATCH)
			continue;
		assert_int_equal(zoned_run_flush(run), 0);
		if (zoned_run_wait(run, 4 * RUN_BATCH, ZONED_NO_TIMEOUT))
			fail_msg("%s", zoned_error(z));
		over = added >= sizeof a.op / sizeof *a.op || pthread_tryjoin_np(thread, NULL) == 0;
	}
	if (zoned_run_finish(run))
		fail_msg("%s", zoned_error(z));
	zoned_close(z);
	if (added >= sizeof a.op / sizeof *a.op)
		pthread_join(thread, NULL);
	assert_int_equal(a.nr, added);
	for (uint64_t i = 0; i < added; i++) {
		assert_true(a.op[i] > op);
		op = a.op[i];
	}
	daemon_await(&f->daemon);
	assert_int_equal(ops_of_machine(f), added);
}

static void test_a_run_outlives_a_daemon_that_is_killed(void **state)
{
	run_across(*state, daemon_kill);
}

static void test_a_run_outlives_a_daemon_that_is_stopped(void **state)
{
	run_across(*state, daemon_stop);
}

static void test_ops_outlive_a_daemon_that_is_killed(void **state)
{
	struct fixture *f = *state;
	struct restart r = {&f->daemon, daemon_kill, 60, 30, 4};
	struct zoned *z = connect_to(f->daemon.address);
	uint64_t ops = 0, token = zoned_token();
	pthread_t thread;

	create_machine(f, 1 << 28);
	assert_int_equal(pthread_create(&thread, NULL, restart, &r), 0);
	while (pthread_tryjoin_np(thread, NULL)) {
		ops++;
		assert_int_equal(alloc(z, token, ops), ops);
	}
	assert_int_equal(alloc(z, token, ops + 1), ops + 1);
	zoned_close(z);
	daemon_await(&f->daemon);
	assert_int_equal(ops_of_machine(f), ops + 1);
}

static void test_patience_has_an_end(void **state)
{
	struct fixture *f = *state;
	struct zoned_options options = {.address = f->daemon.address, .patience_ms = 50};
	Zoned__V1__OpContext context = context_of(zoned_token(), 1);
	Zoned__V1__AllocPages op = ZONED__V1__ALLOC_PAGES__INIT;
	static struct answers a;
	ProtobufCMessage *result;
	struct zoned_run *run;
	struct zoned *z;
	char err[256];

	create_machine(f, 1 << 28);
	assert_int_equal(zoned_connect(&options, &z, err, sizeof err), 0);
	run = open_run(z, zoned_token(), &a);
	daemon_kill(&f->daemon);
	op.context = &context;
	op.gfp = GFP_KERNEL;
	assert_int_equal(zoned_op(z, OP_ALLOC_PAGES, &op.base, ZONED_NO_TIMEOUT, &result),
			 ZONED_UNREACHABLE);
	add(run);
	assert_int_equal(zoned_run_flush(run), 0);
	assert_int_equal(zoned_run_wait(run, 0, 0), ZONED_AGAIN);
	assert_int_equal(zoned_run_wait(run, 0, ZONED_NO_TIMEOUT), ZONED_UNREACHABLE);
	assert_int_equal(zoned_run_in_flight(run), 1);
	/* Another wait tries again, and again finds out what is missing. */
	daemon_start(&f->daemon);
	daemon_await(&f->daemon);
	assert_int_equal(zoned_run_finish(run), 0);
	assert_int_equal(a.op[0], 1);
	zoned_close(z);
}

static void on_not_found(void *user, uint64_t index, const Zoned__V1__Result *result)
{
	(void)user;
	(void)index;
	assert_int_equal(result->file_write->outcome->status, STATUS_NOT_FOUND);
}

/* Connections break before an op that is longer than `bytes` gets through; on every other
 * one already after `others`. How many came in a second, after which they are whole? */
static unsigned connections_in_vain(struct fixture *f, size_t bytes, size_t others)
{
	struct zoned_options options = {.address = f->relayed, .patience_ms = 50};
	static uint8_t data[32768];
	Zoned__V1__FileWrite op = ZONED__V1__FILE_WRITE__INIT;
	Zoned__V1__OpContext context = context_of(zoned_token(), 0);
	struct zoned_run *run;
	struct zoned *z;
	unsigned came;
	char err[256];
	int rc;

	create_machine(f, 1 << 28);
	assert_int_equal(zoned_connect(&options, &z, err, sizeof err), 0);
	assert_int_equal(zoned_run_open(z, &context, on_not_found, NULL, &run), 0);
	relay_cut_each_after(f->relay, TO_DAEMON, bytes, others);
	op.file = 1;
	op.data = (ProtobufCBinaryData){sizeof data, data};
	assert_int_equal(zoned_run_add(run, OP_FILE_WRITE, &op.base), 0);
	assert_int_equal(zoned_run_flush(run), 0);
	rc = zoned_run_wait(run, 0, 1000);
	assert_true(relay_was_cut(f->relay));
	came = relay_connections(f->relay);
	if (rc != ZONED_AGAIN)
		fail_msg("%s: %s", zoned_code_name(rc), zoned_error(z));
	assert_int_equal(zoned_run_finish(run), 0);
	zoned_close(z);
	return came;
}

/* A daemon that answers is not gone, even if it takes longer than patience until an op gets
 * through to it: on every other connection the questions do, and the op is too long. */
static void test_patience_is_for_a_daemon_that_is_gone(void **state)
{
	connections_in_vain(*state, 4096, 100);
}

/* Pauses double from 10 ms to 50, which is all the patience there is: some 22 in a second,
 * none before the first two. */
static void test_answers_to_questions_are_no_reason_to_hurry(void **state)
{
	unsigned came = connections_in_vain(*state, 4096, 4096);

	print_message("  %u connections\n", came);
	assert_in_range(came, 2, 30);
}

/* ---- sleepers ---- */

static void message_op(struct zoned *z, uint32_t code, ProtobufCMessage *op, uint32_t want)
{
	ProtobufCMessage *result;

	assert_int_equal(zoned_op(z, code, op, ZONED_NO_TIMEOUT, &result), 0);
	/* Every result begins with its outcome, and TaskCreate's is as good as any. */
	assert_int_equal(((Zoned__V1__TaskCreateResult *)result)->outcome->status, want);
	protobuf_c_message_free_unpacked(result, NULL);
}

static void on_withdrawn(void *user, uint64_t index, const Zoned__V1__Result *result)
{
	(void)index;
	assert_int_equal(result->result_case, ZONED__V1__RESULT__RESULT_KMAP);
	assert_int_equal(result->kmap->outcome->status, STATUS_WITHDRAWN);
	++*(unsigned *)user;
}

/* Task 1 waits for a slot of a window that the kernel's own context has filled. */
static void park(struct fixture *f, struct zoned_run *run)
{
	enum { WINDOW = 1024 };
	Zoned__V1__OpContext own = context_of(0, 0);
	Zoned__V1__TaskCreate create = ZONED__V1__TASK_CREATE__INIT;
	Zoned__V1__Schedule schedule = ZONED__V1__SCHEDULE__INIT;
	Zoned__V1__Kmap kmap = ZONED__V1__KMAP__INIT;

	create.context = schedule.context = kmap.context = &own;
	schedule.next = 1;
	for (unsigned i = 0; i <= WINDOW; i++) {
		Zoned__V1__AllocPages op = ZONED__V1__ALLOC_PAGES__INIT;
		ProtobufCMessage *result;

		op.context = &own;
		op.gfp = GFP_HIGHUSER;
		assert_int_equal(
		    zoned_op(f->direct, OP_ALLOC_PAGES, &op.base, ZONED_NO_TIMEOUT, &result), 0);
		kmap.pfn = ((Zoned__V1__AllocPagesResult *)result)->pfn;
		protobuf_c_message_free_unpacked(result, NULL);
		if (i < WINDOW)
			message_op(f->direct, OP_KMAP, &kmap.base, STATUS_OK);
	}
	message_op(f->direct, OP_TASK_CREATE, &create.base, STATUS_OK);
	message_op(f->direct, OP_SCHEDULE, &schedule.base, STATUS_OK);
	own.task = 1;
	assert_int_equal(zoned_run_add(run, OP_KMAP, &kmap.base), 0);
	assert_int_equal(zoned_run_flush(run), 0);
}

static void test_a_sleeper_whose_daemon_dies_is_withdrawn(void **state)
{
	struct fixture *f = *state;
	Zoned__V1__OpContext context = context_of(zoned_token(), 0);
	struct zoned *z = connect_to(f->daemon.address);
	struct zoned_run *run;
	unsigned answers = 0;
	uint64_t ops;

	create_machine(f, UINT64_C(2) << 30);
	assert_int_equal(zoned_run_open(z, &context, on_withdrawn, &answers, &run), 0);
	park(f, run);
	/* 1025 pages, 1024 mappings, a task and its turn, the sleeper. */
	ops = 1025 + 1024 + 2 + 1;
	while (ops_of_machine(f) < ops)
		assert_int_equal(zoned_run_wait(run, 0, 1), ZONED_AGAIN);
	assert_int_equal(zoned_run_wait(run, 0, 0), ZONED_AGAIN);
	daemon_kill(&f->daemon);
	daemon_start(&f->daemon);
	assert_int_equal(zoned_run_finish(run), 0);
	assert_int_equal(answers, 1);
	zoned_close(z);
	assert_int_equal(ops_of_machine(f), ops + 1);
}

/* What came of bytes that are no message. */
static void on_refusal(void *user, const struct zoned_packed_result *p)
{
	unsigned *refused = user;

	assert_int_equal(p->code, *refused ? 0 : ZONED_INVALID_ARGUMENT);
	assert_int_equal(p->op, *refused ? OP_ALLOC_PAGES : 0);
	assert_int_equal(p->index, *refused);
	if (!*refused)
		assert_non_null(memmem(p->message, p->message_length, "malformed", 9));
	(*refused)++;
}

static void test_bytes_that_are_no_message_are_refused_alone(void **state)
{
	struct fixture *f = *state;
	Zoned__V1__OpContext context = context_of(0, 0);
	unsigned refused = 0;
	struct zoned_run *run;

	create_machine(f, 1 << 28);
	assert_int_equal(zoned_run_open_packed(f->direct, &context, on_refusal, &refused, &run), 0);
	assert_int_equal(zoned_run_add_packed(run, OP_ALLOC_PAGES, "\x07", 1), 0);
	add_packed(run);
	assert_int_equal(zoned_run_add_packed(run, OP_CODE_END, "", 0), ZONED_ARGUMENT);
	assert_int_equal(zoned_run_finish(run), 0);
	assert_int_equal(refused, 2);
	/* A run that may have to send again looks at them itself. */
	context = context_of(zoned_token(), 0);
	assert_int_equal(zoned_run_open_packed(f->direct, &context, on_refusal, &refused, &run), 0);
	assert_int_equal(zoned_run_add_packed(run, OP_ALLOC_PAGES, "\x07", 1), ZONED_ARGUMENT);
	zoned_run_close(run);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	    TEST(test_an_op_is_done_once_wherever_the_connection_breaks),
	    TEST(test_without_a_token_a_loss_is_told),
	    TEST(test_a_run_is_done_once_wherever_the_connection_breaks),
	    TEST(test_a_run_keeps_the_names_that_ops_bring),
	    TEST(test_bytes_that_are_no_message_are_refused_alone),
	    TEST(test_a_run_outlives_a_daemon_that_is_killed),
	    TEST(test_a_run_outlives_a_daemon_that_is_stopped),
	    TEST(test_ops_outlive_a_daemon_that_is_killed),
	    TEST(test_patience_has_an_end),
	    TEST(test_patience_is_for_a_daemon_that_is_gone),
	    TEST(test_answers_to_questions_are_no_reason_to_hurry),
	    TEST(test_a_sleeper_whose_daemon_dies_is_withdrawn),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
