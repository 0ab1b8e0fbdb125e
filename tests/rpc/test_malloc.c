/*
 * test_malloc.c - any allocation of a request's path may fail, in the daemon and in the
 * libraries that it uses.
 *
 * A request is made again and again, and the n-th allocation since it began fails, for
 * n = 1 and so on, until the request passes untouched. Its answer is a result or an
 * error; the daemon lives; an op that was answered is in the history, once, and one that
 * was not either is or is not, as Memory.Status says; the machine adds up, and has the
 * digest that the history makes of it.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "contract.h"
#include "daemon.h"
#include "effort.h"
#include "failing_malloc.h"

struct fixture {
	struct test_daemon daemon;
	struct failing_malloc *control;
	char control_path[128];
	uint64_t token, sequence;
	uint64_t acknowledged; /* ops of the machine "m" */
};

/* Whom calls wait for. */
static const struct test_daemon *waited_for;

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	int fd;

	assert_non_null(f);
	daemon_make(&f->daemon, ZONED_FAILING);
	snprintf(f->control_path, sizeof f->control_path, "%s/malloc", f->daemon.folder);
	fd = open(f->control_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(ftruncate(fd, sizeof *f->control), 0);
	f->control = mmap(NULL, sizeof *f->control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(f->control != MAP_FAILED);
	close(fd);
	setenv(FAILING_MALLOC_ENV, f->control_path, 1);
	daemon_start(&f->daemon);
	daemon_await(&f->daemon);
	f->token = zoned_token();
	waited_for = &f->daemon;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	daemon_stop(&f->daemon);
	munmap(f->control, sizeof *f->control);
	daemon_remove(&f->daemon);
	free(f);
	return 0;
}

/* ---- calls ---- */

static char machine_name[] = "m";

static int get(struct zoned *z, const char *method, const ProtobufCMessage *request,
	       const ProtobufCMessageDescriptor *type, ProtobufCMessage **ret)
{
	int rc = zoned_call(z, method, request, type, ZONED_NO_TIMEOUT, ret);

	/* Whatever it is, it says what. */
	if (rc)
		assert_true(zoned_error(z)[0]);
	return rc;
}

static void must_get(struct zoned *z, const char *method, const ProtobufCMessage *request,
		     const ProtobufCMessageDescriptor *type, ProtobufCMessage **ret)
{
	int rc;

	/* A machine that is made again after a failed commit is there in a moment. */
	while ((rc = get(z, method, request, type, ret)) == ZONED_UNAVAILABLE) {
		daemon_expect_running(waited_for);
		usleep(1000);
	}
	if (rc)
		fail_msg("%s: %s: %s", method, zoned_code_name(rc), zoned_error(z));
}

static int create(struct zoned *z, const char *name)
{
	Zoned__V1__CreateRequest request = ZONED__V1__CREATE_REQUEST__INIT;
	Zoned__V1__MachineConfig config = ZONED__V1__MACHINE_CONFIG__INIT;
	ProtobufCMessage *reply;
	int rc;

	config.ram = UINT64_C(1) << 30;
	request.name = (char *)(uintptr_t)name;
	request.config = &config;
	rc = get(z, "/zoned.v1.Machines/Create", &request.base, &zoned__v1__machine__descriptor,
		 &reply);
	if (!rc)
		protobuf_c_message_free_unpacked(reply, NULL);
	return rc;
}

/* When memory failed for good while it was being made again. */
static void revive(struct zoned *z)
{
	Zoned__V1__ReviveRequest request = ZONED__V1__REVIVE_REQUEST__INIT;
	ProtobufCMessage *reply;

	request.machine = machine_name;
	must_get(z, "/zoned.v1.Machines/Revive", &request.base, &zoned__v1__machine__descriptor,
		 &reply);
	protobuf_c_message_free_unpacked(reply, NULL);
}

static uint64_t ops_of_machine(struct zoned *z)
{
	Zoned__V1__GetRequest request = ZONED__V1__GET_REQUEST__INIT;
	ProtobufCMessage *reply;
	uint64_t ops;

	request.machine = machine_name;
	for (;;) {
		Zoned__V1__Machine *m;
		bool ready;

		must_get(z, "/zoned.v1.Machines/Get", &request.base,
			 &zoned__v1__machine__descriptor, &reply);
		m = (Zoned__V1__Machine *)reply;
		ops = m->ops;
		ready = m->state == ZONED__V1__MACHINE_STATE__MACHINE_RUNNING;
		if (m->state == ZONED__V1__MACHINE_STATE__MACHINE_LOST)
			revive(z);
		protobuf_c_message_free_unpacked(reply, NULL);
		if (ready)
			return ops;
		usleep(1000);
	}
}

static void digest_of_machine(struct zoned *z, char *to, size_t size)
{
	Zoned__V1__DigestRequest digest = ZONED__V1__DIGEST_REQUEST__INIT;
	Zoned__V1__CheckRequest check = ZONED__V1__CHECK_REQUEST__INIT;
	ProtobufCMessage *reply;

	digest.machine = check.machine = machine_name;
	must_get(z, "/zoned.v1.Machines/Check", &check.base, &zoned__v1__check_response__descriptor,
		 &reply);
	assert_true(((Zoned__V1__CheckResponse *)reply)->ok);
	protobuf_c_message_free_unpacked(reply, NULL);
	must_get(z, "/zoned.v1.Machines/Digest", &digest.base,
		 &zoned__v1__digest_response__descriptor, &reply);
	snprintf(to, size, "%s", ((Zoned__V1__DigestResponse *)reply)->digest);
	protobuf_c_message_free_unpacked(reply, NULL);
}

/* ---- requests that are made on a daemon without memory ---- */

/* Each has a connection of its own and returns what became of it; ops count in
 * f->acknowledged when they were taken up. */
typedef int request_fn(struct fixture *f, struct zoned *z);

static Zoned__V1__OpContext next_context(struct fixture *f)
{
	Zoned__V1__OpContext context = ZONED__V1__OP_CONTEXT__INIT;

	context.machine = machine_name;
	context.token = f->token;
	context.sequence = ++f->sequence;
	return context;
}

/* By a plain call, then by Status: libzoned's own insistence would hide the answer. */
static int make_op(struct fixture *f, struct zoned *z, const char *method,
		   const ProtobufCMessage *op, const ProtobufCMessageDescriptor *type)
{
	Zoned__V1__StatusRequest request = ZONED__V1__STATUS_REQUEST__INIT;
	ProtobufCMessage *reply;
	int rc = get(z, method, op, type, &reply);

	if (!rc) {
		protobuf_c_message_free_unpacked(reply, NULL);
		f->acknowledged++;
		return 0;
	}
	atomic_store(&f->control->countdown, 0);
	request.machine = machine_name;
	request.token = f->token;
	request.sequence = f->sequence;
	must_get(z, "/zoned.v1.Memory/Status", &request.base,
		 &zoned__v1__status_response__descriptor, &reply);
	f->acknowledged += (uint64_t)((Zoned__V1__StatusResponse *)reply)->taken;
	protobuf_c_message_free_unpacked(reply, NULL);
	return rc;
}

static int request_alloc(struct fixture *f, struct zoned *z)
{
	Zoned__V1__OpContext context = next_context(f);
	Zoned__V1__AllocPages op = ZONED__V1__ALLOC_PAGES__INIT;
	char owner[32];

	/* A label that the machine has not met. */
	snprintf(owner, sizeof owner, "owner %llu", (unsigned long long)f->sequence);
	context.owner = owner;
	op.context = &context;
	op.gfp = GFP_HIGHUSER;
	return make_op(f, z, "/zoned.v1.Memory/AllocPages", &op.base,
		       &zoned__v1__alloc_pages_result__descriptor);
}

static int request_file(struct fixture *f, struct zoned *z)
{
	static uint8_t bytes[60000];
	Zoned__V1__OpContext context = next_context(f);
	Zoned__V1__FileWrite op = ZONED__V1__FILE_WRITE__INIT;

	op.context = &context;
	op.file = 1;
	op.offset = (uint32_t)f->sequence * 4096;
	op.data = (ProtobufCBinaryData){sizeof bytes, bytes};
	return make_op(f, z, "/zoned.v1.Memory/FileWrite", &op.base,
		       &zoned__v1__file_write_result__descriptor);
}

static int request_read(struct fixture *f, struct zoned *z)
{
	Zoned__V1__OpContext context = next_context(f);
	Zoned__V1__FileRead op = ZONED__V1__FILE_READ__INIT;

	op.context = &context;
	op.file = 1;
	op.length = 60000;
	return make_op(f, z, "/zoned.v1.Memory/FileRead", &op.base,
		       &zoned__v1__file_read_result__descriptor);
}

static int request_fork(struct fixture *f, struct zoned *z)
{
	Zoned__V1__OpContext context = next_context(f);
	Zoned__V1__Fork op = ZONED__V1__FORK__INIT;
	char name[32];

	snprintf(name, sizeof name, "f%llu", (unsigned long long)f->sequence);
	op.context = &context;
	op.name = (ProtobufCBinaryData){strlen(name), (uint8_t *)name};
	return make_op(f, z, "/zoned.v1.Memory/Fork", &op.base,
		       &zoned__v1__fork_result__descriptor);
}

static void on_result(void *user, uint64_t index, const Zoned__V1__Result *result)
{
	struct fixture *f = user;

	(void)index;
	assert_int_equal(result->code, 0);
	f->acknowledged++;
}

/* A stream, with libzoned's insistence: each op is done, once. */
static int request_run(struct fixture *f, struct zoned *z)
{
	Zoned__V1__OpContext context = ZONED__V1__OP_CONTEXT__INIT;
	Zoned__V1__AllocPages op = ZONED__V1__ALLOC_PAGES__INIT;
	struct zoned_run *run;
	int rc;

	context.machine = machine_name;
	context.token = zoned_token();
	op.gfp = GFP_KERNEL;
	rc = zoned_run_open(z, &context, on_result, f, &run);
	for (unsigned i = 0; !rc && i < 20; i++)
		rc = zoned_run_add(run, OP_ALLOC_PAGES, &op.base);
	return rc ? rc : zoned_run_finish(run);
}

static int request_status(struct fixture *f, struct zoned *z)
{
	Zoned__V1__StatusRequest request = ZONED__V1__STATUS_REQUEST__INIT;
	ProtobufCMessage *reply;
	int rc;

	request.machine = machine_name;
	request.token = f->token;
	request.sequence = 1;
	rc = get(z, "/zoned.v1.Memory/Status", &request.base,
		 &zoned__v1__status_response__descriptor, &reply);
	if (!rc)
		protobuf_c_message_free_unpacked(reply, NULL);
	return rc;
}

static int request_machines(struct fixture *f, struct zoned *z)
{
	static unsigned nr;
	Zoned__V1__DestroyRequest request = ZONED__V1__DESTROY_REQUEST__INIT;
	ProtobufCMessage *reply;
	char name[32];
	int rc;

	(void)f;
	snprintf(name, sizeof name, "c%u", nr++);
	rc = create(z, name);
	request.machine = name;
	if (!rc)
		rc = get(z, "/zoned.v1.Machines/Destroy", &request.base,
			 &zoned__v1__destroy_response__descriptor, &reply);
	if (!rc)
		protobuf_c_message_free_unpacked(reply, NULL);
	return rc;
}

static int request_look(struct fixture *f, struct zoned *z)
{
	Zoned__V1__InspectRequest request = ZONED__V1__INSPECT_REQUEST__INIT;
	Zoned__V1__Zoneinfo zoneinfo = ZONED__V1__ZONEINFO__INIT;
	ProtobufCMessage *reply;
	int rc;

	(void)f;
	request.machine = machine_name;
	request.question_case = ZONED__V1__INSPECT_REQUEST__QUESTION_ZONEINFO;
	request.zoneinfo = &zoneinfo;
	rc = get(z, "/zoned.v1.Machines/Inspect", &request.base,
		 &zoned__v1__inspect_response__descriptor, &reply);
	if (!rc)
		protobuf_c_message_free_unpacked(reply, NULL);
	return rc;
}

static int request_query(struct fixture *f, struct zoned *z)
{
	Zoned__V1__QueryRequest request = ZONED__V1__QUERY_REQUEST__INIT;
	struct zoned_stream *s;
	ProtobufCMessage *reply;
	int rc;

	(void)f;
	request.sql = (char *)(uintptr_t) "select key, time_ns from op_rows limit 10";
	rc = zoned_stream_open(z, "/zoned.v1.History/Query", &zoned__v1__query_response__descriptor,
			       ZONED_NO_TIMEOUT, &s);
	if (rc)
		return rc;
	rc = zoned_stream_send(s, &request.base);
	if (!rc)
		rc = zoned_stream_end(s);
	while (!rc && !(rc = zoned_stream_receive(s, ZONED_NO_TIMEOUT, &reply)))
		protobuf_c_message_free_unpacked(reply, NULL);
	zoned_stream_close(s);
	return rc == ZONED_END ? 0 : rc;
}

/* ---- the tests ---- */

static struct zoned *connect_once(struct fixture *f)
{
	struct zoned_options options = {.address = f->daemon.address};
	struct zoned *z;
	char err[256];

	if (zoned_connect(&options, &z, err, sizeof err))
		fail_msg("%s", err);
	return z;
}

/* The machine is what the history says, and holds what was acknowledged. */
static void verify(struct fixture *f)
{
	char before[64], after[64];
	struct zoned *z = daemon_connect(&f->daemon);

	assert_int_equal(ops_of_machine(z), f->acknowledged);
	digest_of_machine(z, before, sizeof before);
	zoned_close(z);
	daemon_kill(&f->daemon);
	daemon_start(&f->daemon);
	daemon_await(&f->daemon);
	z = daemon_connect(&f->daemon);
	assert_int_equal(ops_of_machine(z), f->acknowledged);
	digest_of_machine(z, after, sizeof after);
	assert_string_equal(before, after);
	zoned_close(z);
}

static void begin(struct fixture *f)
{
	struct zoned *z = daemon_connect(&f->daemon);
	Zoned__V1__OpContext context = next_context(f);
	Zoned__V1__FileCreate op = ZONED__V1__FILE_CREATE__INIT;

	assert_int_equal(create(z, machine_name), 0);
	op.context = &context;
	op.size = 60000;
	assert_int_equal(make_op(f, z, "/zoned.v1.Memory/FileCreate", &op.base,
				 &zoned__v1__file_create_result__descriptor),
			 0);
	zoned_close(z);
}

/* Every n-th allocation from the first on, until a request passes untouched. */
static void fail_each(struct fixture *f, request_fn *request)
{
	unsigned refused = 0, passed = 0;
	long n, fine = effort(1) > 1 ? 2000 : 60;
	bool touched = true;

	for (n = 1; touched; n += n < fine ? 1 : n / 8) {
		struct zoned *z;
		uint64_t ops;
		int rc;

		atomic_store(&f->control->failed, 0);
		atomic_store(&f->control->countdown, n);
		z = connect_once(f);
		rc = request(f, z);
		refused += rc != 0;
		passed += rc == 0;
		atomic_store(&f->control->countdown, 0);
		touched = atomic_load(&f->control->failed) > 0;
		if (!touched)
			assert_int_equal(rc, 0);
		ops = ops_of_machine(z);
		if (ops != f->acknowledged)
			fail_msg("allocation %ld: %llu ops, %llu acknowledged", n,
				 (unsigned long long)ops, (unsigned long long)f->acknowledged);
		zoned_close(z);
	}
	print_message("  some %ld allocations: %u requests refused, %u done\n", n, refused, passed);
}

static void fail_all(struct fixture *f, request_fn *request)
{
	begin(f);
	fail_each(f, request);
	verify(f);
}

#define TEST_REQUEST(name)                                     \
	static void test_##name##_without_memory(void **state) \
	{                                                      \
		fail_all(*state, request_##name);              \
	}
TEST_REQUEST(alloc)
TEST_REQUEST(file)
TEST_REQUEST(read)
TEST_REQUEST(fork)
TEST_REQUEST(run)
TEST_REQUEST(status)
TEST_REQUEST(machines)
TEST_REQUEST(look)
TEST_REQUEST(query)

/* Its state once it is neither made again nor waits for that; calls are refused meanwhile,
 * and connections may be lost. */
static Zoned__V1__MachineState state_in_the_end(struct fixture *f)
{
	Zoned__V1__GetRequest request = ZONED__V1__GET_REQUEST__INIT;

	request.machine = machine_name;
	for (;; usleep(1000)) {
		Zoned__V1__MachineState state = ZONED__V1__MACHINE_STATE__MACHINE_RECOVERING;
		struct zoned *z = daemon_connect(&f->daemon);
		ProtobufCMessage *reply;

		if (!get(z, "/zoned.v1.Machines/Get", &request.base,
			 &zoned__v1__machine__descriptor, &reply)) {
			state = ((Zoned__V1__Machine *)reply)->state;
			protobuf_c_message_free_unpacked(reply, NULL);
		}
		zoned_close(z);
		if (state != ZONED__V1__MACHINE_STATE__MACHINE_RECOVERING)
			return state;
	}
}

/* A commit fails, and then attempts to read the history do: the machine is made again all
 * the same, and nobody has to revive it. */
static void test_a_machine_is_tried_again(void **state)
{
	struct fixture *f = *state;

	begin(f);
	for (long n = 1; n < 200; n += 23) {
		Zoned__V1__OpContext context = next_context(f);
		Zoned__V1__AllocPages op = ZONED__V1__ALLOC_PAGES__INIT;
		struct zoned *z = connect_once(f);
		ProtobufCMessage *reply;
		uint64_t ops;
		int rc;

		op.context = &context;
		op.gfp = GFP_HIGHUSER;
		atomic_store(&f->control->more, 60);
		atomic_store(&f->control->countdown, n);
		rc = get(z, "/zoned.v1.Memory/AllocPages", &op.base,
			 &zoned__v1__alloc_pages_result__descriptor, &reply);
		if (!rc)
			protobuf_c_message_free_unpacked(reply, NULL);
		zoned_close(z);
		assert_int_equal(state_in_the_end(f), ZONED__V1__MACHINE_STATE__MACHINE_RUNNING);
		atomic_store(&f->control->more, 0);
		atomic_store(&f->control->countdown, 0);
		z = connect_once(f);
		ops = ops_of_machine(z);
		assert_in_range(ops, f->acknowledged + !rc, f->acknowledged + 1);
		f->acknowledged = ops;
		zoned_close(z);
	}
	verify(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name##_without_memory, setup, teardown)
	    TEST(alloc),
	    TEST(file),
	    TEST(read),
	    TEST(fork),
	    TEST(run),
	    TEST(status),
	    TEST(machines),
	    TEST(look),
	    TEST(query),
	    cmocka_unit_test_setup_teardown(test_a_machine_is_tried_again, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
