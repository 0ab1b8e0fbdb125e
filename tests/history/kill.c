/*
 * kill.c - a writer that is killed in mid-load has lost nothing that it acknowledged.
 *
 *   history_kill [--kills N] [--seed S]
 *
 * A child fills a history and tells after each commit, by a pipe, how far each
 * machine is. It is killed (SIGKILL) at a random moment: while it opens, appends,
 * commits or checkpoints, which its small WAL makes it do all the time. The parent
 * opens what is left and asserts:
 *
 *  1. every op that was acknowledged is there, and ops are dense from 1;
 *  2. of each op everything is there, events and payload too, and nothing of any
 *     op that is not;
 *  3. SQLite's own check of the file finds nothing.
 *
 * Then the next child goes on with the same file. What an op holds follows from its
 * machine and number, so the parent knows it without having been told.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <time.h>

#include "effort.h"
#include "place.h"

enum {
	MACHINES = 3,
	DATA_MAX = 2000,
	EVENTS_MAX = 6,
	/* A new file when this many ops are in it, so that many kills stay affordable. */
	OPS_PER_FILE = 200000,
	DELAY_US_MAX = 300000,
};

struct progress {
	uint64_t last[MACHINES + 1]; /* by machine; [0] counts machines */
};

static uint64_t seed;

#define FAIL(...)                                                            \
	do {                                                                 \
		fprintf(stderr, "history_kill: " __VA_ARGS__);               \
		fprintf(stderr, " (seed %llu)\n", (unsigned long long)seed); \
		exit(1);                                                     \
	} while (0)

/* ---- what an op holds ---- */

static uint64_t mix(uint64_t machine, uint64_t op)
{
	uint64_t x = (machine << 40 | op) * UINT64_C(0x9e3779b97f4a7c15) + 1;

	return random_next(&x);
}

static void make_op(struct history_record *r, struct engine_event *events, uint8_t *data,
		    uint64_t machine, uint64_t op)
{
	uint64_t x = mix(machine, op);

	*r = (struct history_record){.machine = machine,
				     .op = op,
				     .code = OP_FILE_WRITE,
				     .args = {x, x >> 8},
				     .values = {x >> 16},
				     .data = data,
				     .data_len = op % 7 ? 0 : (uint32_t)(x % DATA_MAX),
				     .token = op % 3 ? 0 : x | 1,
				     .sequence = op % 3 ? 0 : op,
				     .events = events,
				     .nr_events = (uint32_t)(x % EVENTS_MAX)};
	memset(data, (int)(x & 0xff), r->data_len);
	for (uint32_t i = 0; i < r->nr_events; i++)
		events[i] = (struct engine_event){.kind = (uint16_t)(1 + i),
						  .w = {(uint32_t)x, (uint32_t)op, i}};
}

/* ---- the child ---- */

static bool note_last(void *arg, const struct history_machine *m)
{
	struct progress *p = arg;

	p->last[0]++;
	p->last[m->id] = m->last_op;
	return true;
}

static struct history *open_history(const char *path)
{
	struct history_options options = {.path = path, .wal_limit_bytes = 4 << 20};
	struct history *h;
	char err[256];

	if (history_open(&options, &h, err, sizeof(err)))
		FAIL("open: %s", err);
	return h;
}

static void append_turn(struct history *h, struct progress *p, uint64_t *state)
{
	static struct engine_event events[EVENTS_MAX];
	static uint8_t data[DATA_MAX];
	uint64_t nr = 1 + random_next(state) % 200;

	for (uint64_t i = 0; i < nr; i++) {
		uint64_t machine = 1 + random_next(state) % MACHINES;
		struct history_record r;

		make_op(&r, events, data, machine, ++p->last[machine]);
		history_append(h, &r);
	}
}

static int write_for_ever(const char *path, uint64_t state)
{
	static struct engine_config config;
	struct history *h = open_history(path);
	struct progress p = {{0}};
	char err[256];

	history_machines(h, note_last, &p);
	/* They are in the first turn, all of them or none. */
	for (int i = 0; p.last[0] == 0 && i < MACHINES; i++)
		history_add_machine(h, "m", "sim", &config, 0, 0, false, 0);
	for (;;) {
		append_turn(h, &p, &state);
		if (history_commit(h, err, sizeof(err)))
			FAIL("commit: %s", err);
		if (write(STDOUT_FILENO, &p, sizeof(p)) != sizeof(p))
			FAIL("the parent is gone");
		history_idle(h);
	}
}

/* ---- the parent ---- */

struct verify {
	struct history *h;
	uint64_t machine, next;
	sqlite3_stmt *events;
	uint64_t nr_events, nr_payloads;
};

static void verify_events(struct verify *v, const struct history_record *want)
{
	sqlite3_stmt *st = v->events;

	sqlite3_bind_int64(st, 1, (int64_t)(want->machine << 40 | want->op));
	for (uint32_t i = 0; i < want->nr_events; i++) {
		if (sqlite3_step(st) != SQLITE_ROW)
			FAIL("op %llu lacks event %u", (unsigned long long)want->op, i);
		if (sqlite3_column_int64(st, 0) != want->events[i].kind ||
		    sqlite3_column_int64(st, 1) != want->events[i].w[0] ||
		    sqlite3_column_int64(st, 2) != want->events[i].w[1] ||
		    sqlite3_column_int64(st, 3) != i)
			FAIL("op %llu has another event %u", (unsigned long long)want->op, i);
	}
	if (sqlite3_step(st) != SQLITE_DONE)
		FAIL("op %llu has an event too many", (unsigned long long)want->op);
	sqlite3_reset(st);
}

static bool verify_op(void *arg, const struct history_record *r)
{
	static struct engine_event events[EVENTS_MAX];
	static uint8_t data[DATA_MAX];
	struct verify *v = arg;
	struct history_record want;

	make_op(&want, events, data, v->machine, v->next);
	if (r->op != v->next)
		FAIL("machine %llu has op %llu where %llu should be",
		     (unsigned long long)v->machine, (unsigned long long)r->op,
		     (unsigned long long)v->next);
	if (memcmp(r->args, want.args, sizeof(r->args)) ||
	    memcmp(r->values, want.values, sizeof(r->values)) || r->token != want.token ||
	    r->data_len != want.data_len ||
	    (want.data_len && memcmp(r->data, want.data, want.data_len)))
		FAIL("op %llu is not what it was", (unsigned long long)r->op);
	verify_events(v, &want);
	v->nr_events += want.nr_events;
	v->nr_payloads += want.data_len > 0;
	v->next++;
	return true;
}

static int64_t number(sqlite3 *db, const char *sql)
{
	sqlite3_stmt *st;
	int64_t n;

	if (sqlite3_prepare_v2(db, sql, -1, &st, NULL) || sqlite3_step(st) != SQLITE_ROW)
		FAIL("%s: %s", sql, sqlite3_errmsg(db));
	n = sqlite3_column_int64(st, 0);
	sqlite3_finalize(st);
	return n;
}

/* Checks the file; *found is how far each machine is in it. */
static uint64_t verify(const char *path, const struct progress *acknowledged,
		       struct progress *found)
{
	struct verify v = {.h = open_history(path)};
	uint64_t total = 0;
	sqlite3 *db;

	if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL) ||
	    sqlite3_prepare_v2(db,
			       "SELECT e.kind, e.w0, e.w1, e.w2 FROM ops o JOIN events e"
			       " ON e.id >= o.first_event AND e.id < o.first_event + o.nr_events"
			       " WHERE o.key = ? ORDER BY e.id",
			       -1, &v.events, NULL))
		FAIL("cannot read: %s", sqlite3_errmsg(db));
	for (uint64_t m = 1; m <= MACHINES; m++) {
		v.machine = m;
		v.next = 1;
		if (history_replay(v.h, m, 0, 0, verify_op, &v))
			FAIL("machine %llu cannot be replayed", (unsigned long long)m);
		found->last[m] = v.next - 1;
		total += v.next - 1;
		if (v.next - 1 < acknowledged->last[m])
			FAIL("machine %llu: op %llu was acknowledged, %llu is the last found",
			     (unsigned long long)m, (unsigned long long)acknowledged->last[m],
			     (unsigned long long)v.next - 1);
	}
	sqlite3_finalize(v.events);
	if ((uint64_t)number(db, "SELECT count(*) FROM ops") != total ||
	    (uint64_t)number(db, "SELECT count(*) FROM events") != v.nr_events ||
	    (uint64_t)number(db, "SELECT count(*) FROM payloads") != v.nr_payloads)
		FAIL("there is something of ops that are not there");
	if (number(db, "SELECT integrity_check = 'ok' FROM pragma_integrity_check") != 1)
		FAIL("the file is damaged");
	sqlite3_close(db);
	history_close(v.h);
	return total;
}

/* Reads acknowledgements until the time is over, kills, and reads the rest. */
static void load_and_kill(const char *path, uint64_t *state, bool mid_load,
			  struct progress *acknowledged)
{
	struct timespec delay = {0, (long)(random_next(state) % DELAY_US_MAX) * 1000};
	char number_text[24];
	struct progress p;
	int fds[2], status;
	pid_t pid;

	if (pipe(fds))
		FAIL("pipe");
	/* Wide enough that the child never waits for a parent that sleeps. */
	fcntl(fds[0], F_SETPIPE_SZ, 1 << 20);
	snprintf(number_text, sizeof(number_text), "%llu", (unsigned long long)random_next(state));
	pid = fork();
	if (pid < 0)
		FAIL("fork");
	if (pid == 0) {
		dup2(fds[1], STDOUT_FILENO);
		close(fds[0]);
		close(fds[1]);
		execl("/proc/self/exe", "history_kill", "--child", path, number_text, (char *)NULL);
		_exit(127);
	}
	close(fds[1]);
	/* Every other one dies in mid-load for certain, the rest at any moment. */
	if (mid_load && read(fds[0], acknowledged, sizeof(p)) != sizeof(p))
		FAIL("the writer ended by itself");
	nanosleep(&delay, NULL);
	kill(pid, SIGKILL);
	while (read(fds[0], &p, sizeof(p)) == sizeof(p))
		*acknowledged = p;
	close(fds[0]);
	if (waitpid(pid, &status, 0) != pid)
		FAIL("waitpid");
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		FAIL("the writer ended by itself, status %#x", (unsigned)status);
}

int main(int argc, char **argv)
{
	uint64_t kills = effort(8), state, ops = 0, all_ops = 0, mid_load = 0;
	struct progress acknowledged = {{0}};
	struct place place;

	seed = 0;
	if (argc == 4 && strcmp(argv[1], "--child") == 0)
		return write_for_ever(argv[2], strtoull(argv[3], NULL, 0) | 1);
	for (int i = 1; i + 1 < argc; i += 2) {
		if (strcmp(argv[i], "--kills") == 0)
			kills = strtoull(argv[i + 1], NULL, 0);
		if (strcmp(argv[i], "--seed") == 0)
			seed = strtoull(argv[i + 1], NULL, 0);
	}
	if (!seed)
		seed = random_seed();
	state = seed;
	place_make(&place);
	for (uint64_t k = 0; k < kills; k++) {
		struct progress before = acknowledged, found = {{0}};

		load_and_kill(place.path, &state, k % 2 == 0, &acknowledged);
		ops = verify(place.path, &acknowledged, &found);
		mid_load += memcmp(&before, &acknowledged, sizeof(before)) != 0;
		acknowledged = found;
		if (ops > OPS_PER_FILE || k + 1 == kills) {
			all_ops += ops;
			place_remove(&place);
			place_make(&place);
			acknowledged = (struct progress){{0}};
		}
	}
	place_remove(&place);
	printf("%llu kills (%llu in mid-load), %llu ops, nothing lost\n", (unsigned long long)kills,
	       (unsigned long long)mid_load, (unsigned long long)all_ops);
	return 0;
}
