/*
 * bench_run.c - ops per second through Memory.Run, and what that does to others.
 *
 *   bench_run MACHINE BATCH            50 connections, a stream each, two batches in
 *                                      flight each: allocate and free in turn
 *   bench_run MACHINE BATCH --beside   latency of one client's unary ops, alone and
 *                                      beside such streams
 *
 * The client and the daemon share the machine; with two cores each has one, and a guest's
 * QEMU has what they leave. So the client sleeps while no stream has an answer for it.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "contract.h"
#include "zoned.h"

enum { CONNECTIONS = 50, IN_FLIGHT = 2, MAX_LIVE = 512, SECONDS = 4 };

struct client {
	struct zoned *z;
	struct zoned_run *run;
	uint32_t live[MAX_LIVE];
	unsigned nr_live;
	uint64_t answered;
};

static char err[256];

static void die(const char *what, const char *why)
{
	fprintf(stderr, "bench_run: %s: %s\n", what, why);
	exit(1);
}

static struct zoned *connection(void)
{
	struct zoned *z;

	if (zoned_connect(NULL, &z, err, sizeof err))
		die("connect", err);
	return z;
}

static void on_result(void *user, uint64_t index, const Zoned__V1__Result *result)
{
	struct client *c = user;

	(void)index;
	c->answered++;
	if (result->code)
		die("op", result->message);
	if (result->result_case == ZONED__V1__RESULT__RESULT_ALLOC_PAGES) {
		const Zoned__V1__AllocPagesResult *r = result->alloc_pages;

		if (r->outcome->status == 0 && c->nr_live < MAX_LIVE)
			c->live[c->nr_live++] = r->pfn;
	}
}

static void fill(struct client *c, unsigned batch)
{
	Zoned__V1__AllocPages alloc = ZONED__V1__ALLOC_PAGES__INIT;
	Zoned__V1__FreePages release = ZONED__V1__FREE_PAGES__INIT;

	alloc.gfp = GFP_HIGHUSER_MOVABLE;
	for (unsigned i = 0; i < batch; i++) {
		if (c->nr_live > batch || (i % 2 && c->nr_live)) {
			release.pfn = c->live[--c->nr_live];
			zoned_run_add(c->run, OP_FREE_PAGES, &release.base);
		} else {
			zoned_run_add(c->run, OP_ALLOC_PAGES, &alloc.base);
		}
	}
	zoned_run_flush(c->run);
}

static void start(struct client *c, const char *machine)
{
	Zoned__V1__OpContext context = ZONED__V1__OP_CONTEXT__INIT;

	memset(c, 0, sizeof *c);
	context.machine = (char *)machine;
	context.owner = (char *)"bench";
	c->z = connection();
	if (zoned_run_open(c->z, &context, on_result, c, &c->run))
		die("run", zoned_error(c->z));
}

/* Keeps its batches in flight, and takes what answers have come. */
static void go_on(struct client *c, unsigned batch)
{
	int rc = zoned_run_wait(c->run, 0, 0);

	if (rc && rc != ZONED_AGAIN)
		die("wait", zoned_error(c->z));
	while (zoned_run_in_flight(c->run) < (uint64_t)batch * IN_FLIGHT)
		fill(c, batch);
}

/* Sleeps until some streams have something to do, and does it. */
static void serve(struct client *clients, unsigned batch)
{
	struct pollfd p[CONNECTIONS];

	for (unsigned i = 0; i < CONNECTIONS; i++)
		p[i] = (struct pollfd){.fd = zoned_fd(clients[i].z),
				       .events = zoned_poll_events(clients[i].z)};
	if (poll(p, CONNECTIONS, 1000) < 0)
		die("poll", strerror(errno));
	for (unsigned i = 0; i < CONNECTIONS; i++)
		if (p[i].revents)
			go_on(&clients[i], batch);
}

static uint64_t answered(const struct client *clients)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < CONNECTIONS; i++)
		total += clients[i].answered;
	return total;
}

/* Streams for so long; returns ops per second once it is warm. */
static double stream(const char *machine, unsigned batch, double seconds)
{
	static struct client clients[CONNECTIONS];
	double began = bench_now(), warm, rate;
	uint64_t before;

	for (unsigned i = 0; i < CONNECTIONS; i++) {
		start(&clients[i], machine);
		go_on(&clients[i], batch);
	}
	while (bench_now() - began < seconds * 1e9 / 4)
		serve(clients, batch);
	before = answered(clients);
	warm = bench_now();
	while (bench_now() - began < seconds * 1e9)
		serve(clients, batch);
	rate = (double)(answered(clients) - before) / ((bench_now() - warm) / 1e9);
	for (unsigned i = 0; i < CONNECTIONS; i++) {
		zoned_run_finish(clients[i].run);
		zoned_close(clients[i].z);
	}
	return rate;
}

static void latency(const char *machine, const char *when)
{
	enum { N = 4000 };
	static double t[N];
	struct zoned *z = connection();
	Zoned__V1__OpContext context = ZONED__V1__OP_CONTEXT__INIT;
	Zoned__V1__DrainPcp op = ZONED__V1__DRAIN_PCP__INIT;

	context.machine = (char *)machine;
	op.context = &context;
	for (unsigned i = 0; i < N; i++) {
		ProtobufCMessage *result;
		double began = bench_now();

		if (zoned_op(z, OP_DRAIN_PCP, &op.base, ZONED_NO_TIMEOUT, &result))
			die("unary", zoned_error(z));
		t[i] = (bench_now() - began) / 1e3;
		protobuf_c_message_free_unpacked(result, NULL);
	}
	zoned_close(z);
	qsort(t, N, sizeof *t, bench_compare);
	printf("  unary %-28s p50 %8.1f us   p99 %8.1f us   p99.9 %8.1f us\n", when, t[N / 2],
	       t[N * 99 / 100], t[N - 4]);
}

static void beside(const char *machine, unsigned batch)
{
	latency(machine, "alone");
	fflush(stdout);
	pid_t pid = fork();

	if (pid == 0) {
		stream(machine, batch, 3600);
		_exit(0);
	}
	sleep(1);
	latency(machine, "beside 50 streams");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "usage: bench_run MACHINE BATCH [--beside]\n");
		return 2;
	}
	unsigned batch = (unsigned)atoi(argv[2]);

	if (argc > 3) {
		beside(argv[1], batch);
		return 0;
	}
	double rates[3];

	for (unsigned i = 0; i < 3; i++)
		rates[i] = stream(argv[1], batch, SECONDS);
	printf("  machine %-8s batch %u: %.2f M ops/s (median of 3)\n", argv[1], batch,
	       bench_median(rates, 3) / 1e6);
	return 0;
}
