/*
 * bench_replay.c - ops per second by which a machine comes back from its history.
 *
 * A million ops, allocations and frees in turn, are executed and recorded; then the machine
 * is made again from its first op, rows read and answers compared. Beside it, reading the
 * rows alone.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "contract_tables.h"
#include "rebuild.h"
#include "sim.h"

enum { OPS = 1000000, TURN = 1024, LIVE = 4096 };

static char err[256];

static void die(const char *what, const char *why)
{
	fprintf(stderr, "bench_replay: %s: %s\n", what, why);
	exit(1);
}

static void record(struct history *h, uint64_t machine, struct sim *sim)
{
	static uint8_t data[ENGINE_MAX_DATA];
	static uint64_t live[LIVE];
	unsigned nr = 0;
	uint64_t random = 1;

	for (unsigned i = 1; i <= OPS; i++) {
		struct engine_op op = {.code = OP_ALLOC_PAGES, .args = {GFP_HIGHUSER, 0}};
		struct engine_result res = {.data = data};
		struct history_record r = {.machine = machine, .time_ns = i};

		random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
		if (nr == LIVE || (nr && random >> 63)) {
			unsigned at = (unsigned)((random >> 33) % nr);

			op.code = OP_FREE_PAGES;
			op.args[0] = live[at];
			live[at] = live[--nr];
		}
		sim_execute(sim, &op, &res, false);
		if (op.code == OP_ALLOC_PAGES)
			live[nr++] = res.values[0];
		r.op = res.op;
		r.code = op.code;
		memcpy(r.args, op.args, sizeof r.args);
		r.status = res.status;
		memcpy(r.values, res.values, sizeof r.values);
		r.events = sim_take_events(sim, &r.nr_events);
		history_append(h, &r);
		if (i % TURN == 0 || i == OPS) {
			if (history_commit(h, err, sizeof err))
				die("commit", err);
			history_idle(h);
		}
	}
}

static bool count(void *arg, const struct history_record *r)
{
	*(uint64_t *)arg += r->op;
	return true;
}

static void measure(uint32_t detail, const char *name)
{
	struct engine_config config = {.ram = UINT64_C(2) << 30, .cpus = 1, .detail = detail};
	struct history_options options = {0};
	struct history_reader *rd;
	struct rebuild b = {.op = REBUILD_LAST};
	struct engine_error why;
	struct history *h;
	struct sim *sim = sim_new(&config, &(struct sim_hooks){0}, &why);
	char dir[] = "/tmp/bench-replay.XXXXXX", path[64], command[96];
	double start, read_ns, replay_ns;
	uint64_t sum = 0;
	struct engine_digest is, was;
	uint32_t ignored;

	if (!sim || !mkdtemp(dir))
		die("setup", why.text);
	snprintf(path, sizeof path, "%s/h.db", dir);
	options.path = path;
	if (history_open(&options, &h, err, sizeof err))
		die("open", err);
	sim_take_events(sim, &ignored);
	b.machine = history_add_machine(h, "m", "sim", &config, 0, 0, false, 1);
	record(h, b.machine, sim);
	if (history_reader_open(h, &rd, err, sizeof err))
		die("reader", err);
	start = bench_cpu();
	history_reader_ops(rd, b.machine, 1, 0, count, &sum);
	read_ns = bench_cpu() - start;
	start = bench_cpu();
	rebuild_run(&b, rd);
	replay_ns = bench_cpu() - start;
	if (b.error)
		die("replay", b.why);
	is = replica_digest(b.replica);
	was = sim_digest(sim);
	if (memcmp(&is, &was, sizeof is) != 0)
		die("replay", "another machine came back");
	printf("  %-4s  read %7.0f ops/s   replay %7.0f ops/s\n", name, OPS * 1e9 / read_ns,
	       OPS * 1e9 / replay_ns);
	replica_free(b.replica);
	history_reader_close(rd);
	history_close(h);
	sim_free(sim);
	snprintf(command, sizeof command, "rm -rf %s", dir);
	if (system(command))
		die("cleanup", dir);
}

int main(void)
{
	printf("a million ops replayed from the history, by what was recorded of their events\n");
	for (int i = 0; i < 3; i++) {
		measure(DETAIL_OPS, "ops");
		measure(DETAIL_ALL, "all");
	}
	return 0;
}
