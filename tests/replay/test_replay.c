/*
 * test_replay.c - a random life is recorded and played again: as it was, with a lie in the
 * record, under the same configuration as a what-if, and under others whose outcome is
 * known.
 *
 *   SEED=N test_replay
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "contract_tables.h"
#include "effort.h"
#include "engine/stream.h"
#include "history.h"
#include "history/older.h"
#include "names.h"
#include "replay.h"
#include "sim.h"

#define MIB(n) ((u64)(n) << 20)
#define GIB(n) ((u64)(n) << 30)

static u64 seed;

/* ---- a history with a machine in it ---- */

struct life {
	char dir[96], path[128], answer[128];
	struct history *history;
	uint64_t machine;
	struct sim *sim;
	struct engine_event *events;
	uint32_t nr_events, max_events;
	struct engine_completion completions[64];
	unsigned nr_completions;
	uint64_t by_status[STATUS_LOST + 1];
	u32 detail;
	json_t *report;
};

static void take_events(void *user, const struct engine_event *events, u32 nr)
{
	struct life *l = user;

	if (l->nr_events + nr > l->max_events) {
		l->max_events = (l->nr_events + nr) * 2;
		l->events = realloc(l->events, l->max_events * sizeof *l->events);
		assert_non_null(l->events);
	}
	if (nr)
		memcpy(l->events + l->nr_events, events, nr * sizeof *events);
	l->nr_events += nr;
}

static void take_completion(void *user, const struct engine_completion *c)
{
	struct life *l = user;

	assert_true(l->nr_completions < 64);
	l->completions[l->nr_completions++] = *c;
}

static void take_rest(struct life *l)
{
	u32 nr;
	const struct engine_event *events = sim_take_events(l->sim, &nr);

	take_events(l, events, nr);
}

static void commit(struct life *l)
{
	char err[256];

	if (history_commit(l->history, err, sizeof err))
		fail_msg("%s", err);
}

static void life_begin(struct life *l, const struct engine_config *config)
{
	struct sim_hooks hooks = {.events = take_events, .complete = take_completion, .user = l};
	struct history_record boot = {.time_ns = 1000};
	const char *tmp = getenv("TMPDIR");
	struct history_options options = {.path = l->path};
	struct engine_error why;
	char err[256];

	*l = (struct life){.detail = config->detail};
	snprintf(l->dir, sizeof l->dir, "%.60s/zoned-replay.XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(l->dir));
	snprintf(l->path, sizeof l->path, "%s/h.db", l->dir);
	snprintf(l->answer, sizeof l->answer, "%s/answer", l->dir);
	if (history_open(&options, &l->history, err, sizeof err))
		fail_msg("%s", err);
	l->sim = sim_new(config, &hooks, &why);
	if (!l->sim)
		fail_msg("%s", why.text);
	take_rest(l);
	l->machine = history_add_machine(l->history, "m0", "sim", config, 0, 0, false, 1000);
	boot.machine = l->machine;
	boot.events = l->events;
	boot.nr_events = l->nr_events;
	history_append(l->history, &boot);
	l->nr_events = 0;
}

static struct engine_result life_do(struct life *l, const struct engine_op *op)
{
	static u8 out[ENGINE_MAX_DATA];
	struct engine_result res = {.data = out};
	struct history_record r = {.machine = l->machine, .time_ns = 1000};

	assert_int_equal(sim_execute(l->sim, op, &res, false), SIM_DONE);
	take_rest(l);
	r.op = res.op;
	r.code = op->code;
	r.cpu = op->cpu;
	r.task = op->task;
	r.owner = op->owner;
	memcpy(r.args, op->args, sizeof r.args);
	r.data = op->data;
	r.data_len = op->data_len;
	r.status = res.status;
	memcpy(r.values, res.values, sizeof r.values);
	r.result_data = res.data;
	r.result_len = res.data_len;
	r.events = l->events;
	r.nr_events = l->nr_events;
	history_append(l->history, &r);
	for (unsigned i = 0; i < l->nr_completions; i++)
		history_append_completion(l->history, l->machine, res.op, &l->completions[i], 1000);
	l->by_status[res.status]++;
	l->nr_events = l->nr_completions = 0;
	if (res.op % 500 == 0)
		commit(l);
	return res;
}

/* Access is meant by the kernel. */
static uint64_t do_op(struct life *l, u32 code, u32 task, u64 a, u64 b, u64 c)
{
	struct engine_op op = {.code = code,
			       .task = task,
			       .args = {a, b, c, code == OP_ACCESS ? PRIVILEGE_KERNEL : 0}};
	struct engine_result res = life_do(l, &op);

	if (res.status != STATUS_OK)
		fail_msg("%s answered status %u", contract_ops[code].name, res.status);
	return res.values[0];
}

/* A random stream of n ops. */
static void live(struct life *l, u64 n, u64 random)
{
	static u8 data[ENGINE_MAX_DATA];
	struct stream s = {.random = {random * 0x9e3779b97f4a7c15ULL | 1}, .cpus = 2};

	for (u64 i = 0; i < n; i++) {
		struct engine_op op = stream_next(&s, sim_engine(l->sim), data);
		struct engine_result res = life_do(l, &op);

		stream_learn(&s, &op, &res);
	}
}

static void life_close(struct life *l)
{
	commit(l);
	history_close(l->history);
	l->history = NULL;
}

static void life_end(struct life *l)
{
	static const char *const suffixes[] = {"", "-wal", "-shm", "-journal", ".lock"};
	char name[160];

	if (l->history)
		life_close(l);
	sim_free(l->sim);
	free(l->events);
	json_decref(l->report);
	for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
		snprintf(name, sizeof name, "%s%s", l->path, suffixes[i]);
		unlink(name);
	}
	unlink(l->answer);
	assert_int_equal(rmdir(l->dir), 0);
}

/* How many rows the last statement changed. */
static int change_rows(struct life *l, const char *sql)
{
	sqlite3 *db;
	char *err = NULL;
	int changes;

	assert_int_equal(sqlite3_open(l->path, &db), SQLITE_OK);
	if (sqlite3_exec(db, sql, NULL, NULL, &err) != SQLITE_OK)
		fail_msg("%s", err);
	changes = sqlite3_changes(db);
	sqlite3_close(db);
	return changes;
}

static void change(struct life *l, const char *sql)
{
	assert_int_equal(change_rows(l, sql), 1);
}

/* Runs the command with --json; its answer is in l->report until the next call. */
static int replay(struct life *l, const char *a, const char *b)
{
	char *argv[] = {"replay", "--json", "--history",	  l->path,
			"-m",	  "m0",	    (char *)(uintptr_t)a, (char *)(uintptr_t)b,
			NULL};
	int argc = 6 + (a != NULL) + (b != NULL), code, saved;
	json_error_t error;
	FILE *to;

	fflush(stdout);
	saved = dup(STDOUT_FILENO);
	to = fopen(l->answer, "w");
	assert_non_null(to);
	dup2(fileno(to), STDOUT_FILENO);
	code = replay_command(argc, argv);
	fflush(stdout);
	dup2(saved, STDOUT_FILENO);
	close(saved);
	fclose(to);
	json_decref(l->report);
	l->report = json_load_file(l->answer, 0, &error);
	if (code == 1)
		printf("%s", json_string_value(json_object_get(l->report, "difference")));
	return code;
}

static json_int_t number_at(const json_t *o, const char *path)
{
	char key[64];

	for (size_t n; *path; path += n + (path[n] == '/')) {
		n = strcspn(path, "/");
		snprintf(key, sizeof key, "%.*s", (int)n, path);
		o = json_is_array(o) ? json_array_get(o, (size_t)atoi(key))
				     : json_object_get(o, key);
	}
	return o ? json_integer_value(o) : 0;
}

static json_int_t at(struct life *l, const char *path)
{
	return number_at(l->report, path);
}

/* ---- as it was ---- */

static const struct engine_config configs[] = {
    {.preset = PRESET_CLASSIC, .ram = MIB(48), .cpus = 2},
    {.preset = PRESET_LINUX_6_1,
     .flags = CONFIG_PAE,
     .ram = MIB(160),
     .highmem = MIB(64),
     .cpus = 2,
     .detail = DETAIL_NOTABLE},
    {.preset = PRESET_ARM32, .ram = MIB(96), .highmem = MIB(32), .cpus = 2, .detail = DETAIL_OPS},
    {.preset = PRESET_CLASSIC, .flags = CONFIG_EARLY, .ram = MIB(64), .cpus = 2},
};
enum { NR_CONFIGS = sizeof configs / sizeof *configs };

static void test_as_recorded(void **state)
{
	(void)state;
	for (unsigned i = 0; i < NR_CONFIGS; i++) {
		const u64 ops = effort(4000);
		struct life l;

		life_begin(&l, &configs[i]);
		live(&l, ops, seed + i);
		commit(&l);
		/* The history is open, and stays so. */
		if (replay(&l, NULL, NULL))
			fail_msg("SEED=%llu, configuration %u: %s", (unsigned long long)seed, i,
				 json_string_value(json_object_get(l.report, "difference")));
		assert_int_equal(at(&l, "ops"), ops);
		assert_int_equal(replay(&l, "--until", "100"), 0);
		assert_int_equal(at(&l, "ops"), 100);
		assert_int_equal(replay(&l, "--until", "100000000"), 3);
		life_end(&l);
	}
}

/* Every kind of lie in the record is found, at its op. */
static void test_lies(void **state)
{
	static const struct {
		const char *sql;
		int op;
	} lies[] = {
	    {"UPDATE op_rows SET what = what | 0x100 WHERE key = (1 << 40) + 40", 40},
	    {"UPDATE op_rows SET v0 = v0 + 1 WHERE key = (1 << 40) + 30", 30},
	    {"UPDATE op_more SET result_hash = result_hash + 1 WHERE key = (1 << 40) + 22", 22},
	    {"UPDATE event_rows SET w01 = w01 + 1 WHERE id ="
	     " (SELECT first_event FROM ops WHERE key = (1 << 40) + 10)",
	     10},
	    {"UPDATE event_rows SET w01 = w01 + (1 << 32) WHERE id = 1", 0},
	};
	struct life l;
	u64 file;
	u8 bytes[] = "what is in it";

	(void)state;
	life_begin(&l, &configs[0]);
	for (unsigned i = 0; i < 20; i++)
		do_op(&l, OP_ALLOC_PAGES, 0, GFP_KERNEL, 0, 0);
	file = do_op(&l, OP_FILE_CREATE, 0, 4096, 0, 0);
	do_op(&l, OP_FILE_READ, 0, file, 0, 100);
	life_do(&l, &(struct engine_op){
			.code = OP_FILE_WRITE, .args = {file}, .data = bytes, .data_len = 13});
	for (unsigned i = 0; i < 20; i++)
		do_op(&l, OP_ALLOC_PAGES, 0, GFP_KERNEL, 0, 0);
	life_close(&l);
	assert_int_equal(replay(&l, NULL, NULL), 0);
	for (unsigned i = 0; i < sizeof lies / sizeof *lies; i++) {
		change(&l, lies[i].sql);
		assert_int_equal(replay(&l, NULL, NULL), 1);
		assert_int_equal(at(&l, "op"), lies[i].op);
		/* No what-if on top of a record that is not true. */
		assert_int_equal(replay(&l, "--set", "split=2G"), 1);
	}
	change(&l, "DELETE FROM op_rows WHERE key = (1 << 40) + 5");
	change(&l, "UPDATE event_rows SET w01 = w01 - (1 << 32) WHERE id = 1");
	assert_int_equal(replay(&l, NULL, NULL), 4);
	life_end(&l);
}

/* A file of an older version that no daemon has opened since is read as it is. */
static void test_older_file(void **state)
{
	struct life l;

	(void)state;
	life_begin(&l, &configs[0]);
	for (unsigned i = 0; i < 20; i++)
		do_op(&l, OP_ALLOC_PAGES, 0, GFP_KERNEL, 0, 0);
	/* Does not fit 32 bits. */
	do_op(&l, OP_FILE_CREATE, 0, 5ULL << 32, 0, 0);
	life_close(&l);
	assert_int_equal(replay(&l, NULL, NULL), 0);
	change_rows(&l, older_sql[3]);
	assert_int_equal(replay(&l, NULL, NULL), 0);
	change(&l, "UPDATE op_rows SET v0 = v0 + 1 WHERE key = (1 << 40) + 10");
	assert_int_equal(replay(&l, NULL, NULL), 1);
	life_end(&l);
}

/* ---- what if nothing changed ---- */

static void test_identity(void **state)
{
	static const char *const keys[] = {"fails", "works", "answers", "moved", "skipped"};
	static const char *const same[] = {"split=3G", "highmem=64M", "cpus=2", "early=x"};

	(void)state;
	for (unsigned i = 0; i < NR_CONFIGS; i++) {
		struct life l;
		char path[64];

		life_begin(&l, &configs[i]);
		live(&l, effort(4000), seed + 100 + i);
		commit(&l);
		assert_int_equal(replay(&l, "--set", i == 3 ? "split=3G" : same[i]), 0);
		for (unsigned k = 0; k < 5; k++) {
			snprintf(path, sizeof path, "worlds/0/%s/ops", keys[k]);
			if (at(&l, path))
				fail_msg("SEED=%llu, configuration %u: %s",
					 (unsigned long long)seed, i,
					 json_dumps(l.report, JSON_INDENT(1)));
		}
		assert_true(json_equal(
		    json_object_get(json_object_get(l.report, "recorded"), "zones"),
		    json_object_get(json_array_get(json_object_get(l.report, "worlds"), 0),
				    "zones")));
		assert_true(at(&l, "recorded/ops") > 0);
		life_end(&l);
	}
}

/* Any stream under any split is played to the end, and says what it could not play. */
static void test_streams_elsewhere(void **state)
{
	(void)state;
	for (unsigned i = 0; i < NR_CONFIGS; i++) {
		struct life l;

		life_begin(&l, &configs[i]);
		live(&l, effort(2000), seed + 200 + i);
		commit(&l);
		assert_int_equal(replay(&l, "--set", "split=2G,1G"), 0);
		assert_int_equal(at(&l, "worlds/0/ops") + at(&l, "worlds/0/skipped/ops"),
				 at(&l, "recorded/ops"));
		assert_true(at(&l, "worlds/1/ops") > 0);
		life_end(&l);
	}
}

/* ---- what if, with a known outcome ---- */

/* 1.5 GiB of RAM: under 3G it has HIGHMEM, under 1G none. A kmap of a HIGHMEM frame then is
 * one of lowmem, without a slot; the frame, its address, the task and what it mapped have
 * other numbers and are followed. */
static void test_drain(void **state)
{
	const struct engine_config config = {.preset = PRESET_CLASSIC, .ram = MIB(1536), .cpus = 1};
	enum { PAGES = 48 }; /* an access has 64 KiB at most */
	const u64 bytes = (u64)PAGES * 4096, third = bytes / 3;
	u64 pfn, va, task, heap, user_pfn;
	struct engine_op write = {.code = OP_ACCESS,
				  .args = {0, third, ACCESS_WRITE, PRIVILEGE_USER},
				  .data = (const u8 *)"x",
				  .data_len = 1};
	struct life l;

	(void)state;
	life_begin(&l, &config);
	pfn = do_op(&l, OP_ALLOC_PAGES, 0, GFP_HIGHUSER, 0, 0);
	va = do_op(&l, OP_KMAP, 0, pfn, 0, 0);
	do_op(&l, OP_ACCESS, 0, va + 12, 64, ACCESS_READ);
	task = do_op(&l, OP_TASK_CREATE, 0, 0, 0, 0);
	do_op(&l, OP_SCHEDULE, 0, task, 0, 0);
	heap = do_op(&l, OP_MMAP, (u32)task, 0, bytes, UPROT_READ | UPROT_WRITE);
	for (unsigned i = 0; i < 3; i++) {
		write.task = (u32)task;
		write.args[0] = heap + i * third;
		assert_int_equal(life_do(&l, &write).status, STATUS_OK);
	}
	user_pfn = do_op(&l, OP_PIN_USER_PAGE, (u32)task, heap + 4096, 1, 0);
	do_op(&l, OP_KMAP, 0, user_pfn, 0, 0);
	do_op(&l, OP_KUNMAP, 0, user_pfn, 0, 0);
	do_op(&l, OP_UNPIN_USER_PAGE, 0, user_pfn, 0, 0);
	do_op(&l, OP_KUNMAP, 0, pfn, 0, 0);
	do_op(&l, OP_FREE_PAGES, 0, pfn, 0, 0);
	do_op(&l, OP_MUNMAP, (u32)task, heap, bytes, 0);
	/* An area larger than what 3G leaves for vmalloc. */
	life_do(&l, &(struct engine_op){.code = OP_VMALLOC, .args = {MIB(700), 0}});
	commit(&l);
	assert_int_equal(l.by_status[STATUS_NO_SPACE], 1);

	assert_int_equal(replay(&l, "--set", "split=1G"), 0);
	assert_int_equal(at(&l, "worlds/0/skipped/ops"), 0);
	assert_int_equal(at(&l, "worlds/0/fails/ops"), 0);
	assert_int_equal(at(&l, "worlds/0/zones/HIGHMEM/managed"), 0);
	/* The page and all those of the program. */
	assert_int_equal(at(&l, "worlds/0/frames/HIGHMEM/NORMAL"), PAGES + 1);
	assert_int_equal(at(&l, "recorded/pkmap_peak"), 2);
	assert_int_equal(at(&l, "worlds/0/pkmap_peak"), 0);
	/* With 1 GiB of its own the kernel has room for the area. */
	assert_int_equal(at(&l, "worlds/0/works/ops"), 1);
	assert_int_equal(at(&l, "worlds/0/works/by_op/Vmalloc"), 1);
	assert_int_equal(at(&l, "recorded/failed"), 1);
	assert_int_equal(at(&l, "recorded/vmalloc_failures"), 1);
	assert_int_equal(at(&l, "worlds/0/failed"), 0);
	life_end(&l);
}

/* HIGHMEM is drained: with less of it NORMAL is taken earlier; where users may not have
 * NORMAL the rest fails, and what depends on it is skipped. */
static void test_exhaustion(void **state)
{
	const struct engine_config config = {
	    .preset = PRESET_CLASSIC, .ram = MIB(256), .highmem = MIB(64), .cpus = 1};
	enum { BLOCKS = 30 }; /* of 4 MiB: more than HIGHMEM has, less than there is */
	u64 pfn[BLOCKS];
	struct life l;
	json_int_t failed, skipped;

	(void)state;
	life_begin(&l, &config);
	for (unsigned i = 0; i < BLOCKS; i++)
		pfn[i] = do_op(&l, OP_ALLOC_PAGES, 0, GFP_HIGHUSER, 10, 0);
	for (unsigned i = 0; i < BLOCKS; i++)
		do_op(&l, OP_FREE_PAGES, 0, pfn[i], 10, 0);
	commit(&l);
	assert_int_equal(replay(&l, "--set", "highmem=32M,128M"), 0);
	/* First those with HIGHMEM of 32 MiB, then those with 128. */
	assert_true(at(&l, "worlds/0/frames/HIGHMEM/NORMAL") >= 4096);
	assert_int_equal(at(&l, "worlds/0/frames/NORMAL/HIGHMEM"), 0);
	assert_true(at(&l, "worlds/1/frames/NORMAL/HIGHMEM") >= 4096);
	assert_int_equal(at(&l, "worlds/1/fails/ops"), 0);
	assert_true(at(&l, "worlds/0/zones/HIGHMEM/first_below/low") <
		    at(&l, "recorded/zones/HIGHMEM/first_below/low"));
	assert_int_equal(
	    json_typeof(json_object_get(
		json_object_get(
		    json_object_get(
			json_object_get(json_array_get(json_object_get(l.report, "worlds"), 1),
					"zones"),
			"HIGHMEM"),
		    "first_below"),
		"min")),
	    JSON_NULL);
	assert_int_equal(replay(&l, "--set", "ram=130M"), 0);
	failed = at(&l, "worlds/0/fails/ops");
	skipped = at(&l, "worlds/0/skipped/ops");
	assert_true(failed > 0);
	assert_int_equal(skipped, failed);
	assert_int_equal(at(&l, "worlds/0/fails/by_op/AllocPages"), failed);
	assert_int_equal(at(&l, "worlds/0/skipped/by_op/FreePages"), skipped);
	life_end(&l);
}

static void test_wrong_settings(void **state)
{
	static const char *const wrong[] = {"split=4G", "ram",	  "nonsense=1", "preset=vax",
					    "ram=1K",	"split=", "pae=maybe"};
	struct life l;

	(void)state;
	life_begin(&l, &configs[0]);
	do_op(&l, OP_ALLOC_PAGES, 0, GFP_KERNEL, 0, 0);
	commit(&l);
	for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++)
		if (replay(&l, "--set", wrong[i]) != 2)
			fail_msg("--set %s is taken", wrong[i]);
	assert_int_equal(replay(&l, "-m", "nobody"), 3);
	assert_int_equal(replay(&l, "-m", "#1"), 0);
	assert_int_equal(replay(&l, "--backend", "vax"), 2);
	life_end(&l);
}

/* ---- names ---- */

/* Against an array with an entry for each number. */
static void test_names(void **state)
{
	enum { NUMBERS = 2000 };
	static uint64_t model[NUMBERS]; /* target + 1; 0: unbound */
	struct names n = {0}, copy = {0};
	struct random r = {seed | 1};

	(void)state;
	for (unsigned i = 0; i < effort(20000); i++) {
		u64 start = random_below(&r, NUMBERS - 40), length = 1 + random_below(&r, 40);
		u64 target = random_below(&r, 3) ? random_below(&r, 1u << 30) : NAME_ABSENT;
		bool forget = random_below(&r, 4) == 0;

		if (forget)
			names_forget(&n, start, length);
		else
			names_bind(&n, start, length, target);
		for (u64 k = 0; k < length; k++)
			model[start + k] = forget		   ? 0
					   : target == NAME_ABSENT ? UINT64_MAX
								   : target + k + 1;
		if (i % 500)
			continue;
		names_copy(&copy, &n);
		for (u64 at_number = 0; at_number < NUMBERS; at_number++) {
			const struct range *f = names_find(&copy, at_number);
			u64 want = model[at_number], have = 0;

			if (f)
				have = f->target == NAME_ABSENT
					   ? UINT64_MAX
					   : f->target + (at_number - f->start) + 1;
			assert_int_equal(have, want);
		}
	}
	names_free(&n);
	names_free(&copy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_names),	   cmocka_unit_test(test_as_recorded),
	    cmocka_unit_test(test_lies),	   cmocka_unit_test(test_older_file),
	    cmocka_unit_test(test_identity),	   cmocka_unit_test(test_streams_elsewhere),
	    cmocka_unit_test(test_drain),	   cmocka_unit_test(test_exhaustion),
	    cmocka_unit_test(test_wrong_settings),
	};
	const char *given = getenv("SEED");

	seed = given ? strtoull(given, NULL, 0) : uv_hrtime();
	printf("SEED=%llu\n", (unsigned long long)seed);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
