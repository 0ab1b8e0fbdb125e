/*
 * test_checkpoint.c - machines kept as they are, and the record before that forgotten.
 *
 * What is held: a machine made again from a checkpoint has the digest that it had; one that
 * is damaged in any way, or is another machine's, costs a replay from further back and
 * nothing else; a commit that fails leaves no half of one; few are kept of many; what is
 * pruned is gone, the machine is not, and a file of the first version gets all of this.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "checkpoint.h"
#include "effort.h"
#include "older.h"
#include "place_checked.h"
#include "rebuild.h"
#include "recorded.h"

struct world {
	struct place place;
	struct recorded life;
	struct machines *machines;
	struct machine *machine;
	struct checkpoints *checkpoints;
	struct checkpoints_options options;
	int64_t now_ns;
	bool woken;
};

static void hook_ready(void *user)
{
	(void)user;
}

static void hook_wake(void *user)
{
	((struct world *)user)->woken = true;
}

static void open_rooms(struct world *w)
{
	struct machines_hooks hooks = {.user = w, .ready = hook_ready};

	assert_int_equal(place_open(&w->place), HISTORY_OK);
	w->machines = machines_new(&(struct machines_limits){0}, &hooks);
	w->options = (struct checkpoints_options){.loop = &w->place.loop,
						  .machines = w->machines,
						  .history = w->place.h,
						  .ops = w->options.ops,
						  .retain_seconds = w->options.retain_seconds,
						  .retain_bytes = w->options.retain_bytes,
						  .user = w,
						  .wake = hook_wake};
	w->checkpoints = checkpoints_new(&w->options);
}

static void close_rooms(struct world *w)
{
	checkpoints_free(w->checkpoints);
	machines_free(w->machines);
	place_close(&w->place);
	uv_run(&w->place.loop, UV_RUN_DEFAULT);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	place_make(&w->place);
	w->now_ns = 1000;
	open_rooms(w);
	recorded_make(&w->life, &w->place, "m", &recorded_config, random_seed());
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	close_rooms(w);
	recorded_free(&w->life);
	place_remove(&w->place);
	free(w);
	return 0;
}

static void live(struct world *w, unsigned steps)
{
	for (unsigned i = 0; i < steps; i++)
		recorded_step(&w->life);
	place_commit(&w->place);
}

/* As another program would spoil it. */
static void change(struct world *w, const char *sql)
{
	char *err = NULL;
	sqlite3 *db;

	assert_int_equal(sqlite3_open(w->place.path, &db), SQLITE_OK);
	sqlite3_busy_timeout(db, 5000);
	if (sqlite3_exec(db, sql, NULL, NULL, &err) != SQLITE_OK)
		fail_msg("%s: %s", sql, err);
	sqlite3_close(db);
}

/* ---- making again ---- */

struct made {
	struct rebuild rebuild;
	struct engine_digest digest;
};

static void make(struct world *w, struct made *m, uint64_t op)
{
	struct history_reader *rd;

	memset(m, 0, sizeof(*m));
	m->rebuild.machine = w->life.id;
	m->rebuild.op = op;
	assert_int_equal(history_reader_open(w->place.h, &rd, w->place.err, sizeof(w->place.err)),
			 HISTORY_OK);
	rebuild_run(&m->rebuild, rd);
	history_reader_close(rd);
	if (m->rebuild.replica)
		m->digest = replica_digest(m->rebuild.replica);
}

static void assert_made(struct world *w, uint64_t op)
{
	struct made m;

	make(w, &m, op);
	if (m.rebuild.error)
		fail_msg("op %llu: %s", (unsigned long long)op, m.rebuild.why);
	assert_memory_equal(&m.digest, &w->life.digests[op], sizeof(m.digest));
	replica_free(m.rebuild.replica);
}

/* The machine in the registry stands where the record ends. */
static void catch_up(struct world *w)
{
	struct engine_error why;
	struct made m;

	make(w, &m, recorded_ops(&w->life));
	assert_int_equal(m.rebuild.error, MACHINE_OK);
	if (w->machine) {
		machines_destroy(w->machines, w->machine);
		machines_committed(w->machines);
	}
	assert_int_equal(machines_restore(w->machines, w->life.id, "m", "sim", &recorded_config,
					  false, 1000, &w->machine),
			 MACHINE_OK);
	assert_int_equal(machine_adopt(w->machine, m.rebuild.replica, &why), MACHINE_OK);
	machine_recovered(w->machine);
	replica_free(m.rebuild.replica);
}

static void finished(void *user)
{
	*(bool *)user = true;
}

/* Turns until everything is kept. */
static void keep(struct world *w)
{
	bool done = false;

	catch_up(w);
	checkpoints_finish(w->checkpoints, finished, &done);
	while (!done) {
		uv_run(&w->place.loop, UV_RUN_ONCE);
		checkpoints_write(w->checkpoints, w->now_ns);
		place_commit(&w->place);
		checkpoints_committed(w->checkpoints, true);
	}
}

/* ---- tests ---- */

static void a_machine_comes_back_from_it(void **state)
{
	struct world *w = *state;
	uint64_t kept, last;

	live(w, effort(500));
	kept = recorded_ops(&w->life);
	keep(w);
	assert_int_equal(place_ask(&w->place, "SELECT count(*) FROM checkpoints"), 1);
	live(w, 50);
	last = recorded_ops(&w->life);
	assert_made(w, last);
	assert_made(w, kept);
	assert_made(w, kept / 2);
	/* Nothing before it is needed any more. */
	change(w, "DELETE FROM op_rows WHERE key & 0xffffffffff <= (SELECT max(key) &"
		  " 0xffffffffff FROM checkpoints)");
	assert_made(w, last);
	assert_made(w, kept);
}

static void spoil_and_make(struct world *w, const char *sql)
{
	struct made m;
	uint64_t last = recorded_ops(&w->life);

	change(w, "CREATE TABLE IF NOT EXISTS kept_c AS SELECT * FROM checkpoints;"
		  "CREATE TABLE IF NOT EXISTS kept_p AS SELECT * FROM checkpoint_pieces");
	change(w, sql);
	make(w, &m, last);
	if (m.rebuild.error)
		fail_msg("%s: %s", sql, m.rebuild.why);
	assert_memory_equal(&m.digest, &w->life.digests[last], sizeof(m.digest));
	if (!m.rebuild.note[0])
		fail_msg("%s: nobody noticed", sql);
	replica_free(m.rebuild.replica);
	change(w, "DELETE FROM checkpoints; INSERT INTO checkpoints SELECT * FROM kept_c;"
		  "DELETE FROM checkpoint_pieces; INSERT INTO checkpoint_pieces SELECT * FROM "
		  "kept_p");
}

static const char change_a_byte[] =
    "UPDATE checkpoint_pieces SET data = CAST(substr(data, 1, length(data) - 9) || x'5a'"
    " || substr(data, length(data) - 7) AS BLOB)";

static void a_damaged_one_costs_time_alone(void **state)
{
	static const char *const damages[] = {
	    "DELETE FROM checkpoint_pieces WHERE id = (SELECT max(id) FROM checkpoint_pieces)",
	    "UPDATE checkpoint_pieces SET data = x'' WHERE id = 1",
	    "UPDATE checkpoint_pieces SET data = zeroblob(70000)",
	    "UPDATE checkpoint_pieces SET data = substr(data, 1, length(data) / 2)",
	    change_a_byte,
	    "UPDATE checkpoints SET digest = '00000000000000000000000000000000'",
	    "UPDATE checkpoints SET digest = 'nothing'",
	    "UPDATE checkpoints SET nr_pieces = nr_pieces - 1",
	    "UPDATE checkpoints SET key = key + 1",
	    "UPDATE checkpoints SET first_piece = 1000000",
	};
	struct world *w = *state;

	live(w, 300);
	keep(w);
	live(w, 30);
	for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++)
		spoil_and_make(w, damages[i]);
	assert_made(w, recorded_ops(&w->life));
}

/* One that is good in itself and not this machine's: only what comes after can tell. */
static void one_that_leads_elsewhere_is_not_followed(void **state)
{
	struct world *w = *state;
	struct recorded *other = malloc(sizeof(*other));
	uint64_t first = w->life.id, kept;
	struct recorded own;
	struct made m;

	live(w, 100);
	kept = recorded_ops(&w->life);
	/* As many ops of another life. */
	memcpy(&own, &w->life, sizeof(own));
	recorded_make(other, &w->place, "o", &recorded_config, own.seed + 1);
	while (recorded_ops(other) < kept)
		recorded_do(other,
			    (struct engine_op){.code = OP_ALLOC_PAGES, .args = {GFP_HIGHUSER, 0}});
	place_commit(&w->place);
	memcpy(&w->life, other, sizeof(*other));
	sim_set_hooks(w->life.sim,
		      &(struct sim_hooks){.complete = recorded_complete, .user = &w->life});
	keep(w);
	memcpy(&w->life, &own, sizeof(own));
	assert_int_equal(place_ask(&w->place, "SELECT count(*) FROM checkpoints"), 1);
	change(w, "UPDATE checkpoints SET key = (1 << 40) + (key & 0xffffffffff)");
	assert_int_equal(first, 1);
	live(w, 100);
	make(w, &m, recorded_ops(&w->life));
	assert_int_equal(m.rebuild.error, MACHINE_OK);
	assert_memory_equal(&m.digest, &w->life.digests[recorded_ops(&w->life)], sizeof(m.digest));
	assert_true(m.rebuild.note[0] != 0);
	replica_free(m.rebuild.replica);
	recorded_free(other);
	free(other);
}

static void of_many_few_are_kept(void **state)
{
	struct world *w = *state;
	unsigned times = effort(40);

	for (unsigned i = 0; i < times; i++) {
		live(w, 10);
		keep(w);
	}
	assert_in_range(place_ask(&w->place, "SELECT count(*) FROM checkpoints"), 2, 14);
	/* What is dropped takes its pieces along. */
	assert_int_equal(place_ask(&w->place, "SELECT count(*) FROM checkpoint_pieces"),
			 place_ask(&w->place, "SELECT sum(nr_pieces) FROM checkpoints"));
	for (unsigned i = 0; i < 10; i++)
		assert_made(w, recorded_pick(&w->life, (uint32_t)recorded_ops(&w->life)));
}

static void a_commit_that_fails_leaves_no_half(void **state)
{
	struct world *w = *state;
	struct history_record wrong = {.machine = 999, .op = 1, .code = OP_ALLOC_PAGES};
	char err[256];

	live(w, 200);
	catch_up(w);
	history_add_piece(w->place.h, (const uint8_t *)"piece", 5);
	place_commit(&w->place);
	history_add_piece(w->place.h, (const uint8_t *)"piece", 5);
	history_append(w->place.h, &wrong);
	assert_int_not_equal(history_commit(w->place.h, err, sizeof(err)), HISTORY_OK);
	keep(w);
	assert_int_equal(place_ask(&w->place, "SELECT count(*) FROM checkpoints"), 1);
	assert_int_equal(place_ask(&w->place, "SELECT count(*) FROM checkpoint_pieces"),
			 place_ask(&w->place, "SELECT sum(nr_pieces) FROM checkpoints"));
	assert_made(w, recorded_ops(&w->life));
}

/* Pieces without a checkpoint, as a daemon leaves them that dies. */
static void what_a_death_left_is_swept(void **state)
{
	struct world *w = *state;

	live(w, 100);
	keep(w);
	history_add_piece(w->place.h, (const uint8_t *)"piece", 5);
	place_commit(&w->place);
	w->machine = NULL;
	close_rooms(w);
	open_rooms(w);
	w->life.place = &w->place;
	live(w, 10);
	keep(w);
	assert_int_equal(place_ask(&w->place, "SELECT count(*) FROM checkpoint_pieces"),
			 place_ask(&w->place, "SELECT sum(nr_pieces) FROM checkpoints"));
	assert_made(w, recorded_ops(&w->life));
}

static void sweep(struct world *w)
{
	while (history_sweep(w->place.h))
		place_commit(&w->place);
	place_commit(&w->place);
}

static void what_is_pruned_is_gone_and_the_machine_is_not(void **state)
{
	struct world *w = *state;
	struct made m;
	uint64_t first, events;

	recorded_do(&w->life,
		    (struct engine_op){.code = OP_SET_POLICY, .args = {0, 0, DETAIL_ALL}});
	live(w, 200);
	w->now_ns = 2000;
	keep(w);
	first = recorded_ops(&w->life) + 1;
	live(w, 100);
	w->now_ns = 3000;
	keep(w);
	live(w, 10);
	events = (uint64_t)place_ask(&w->place, "SELECT count(*) FROM events");
	assert_int_equal(history_prune(w->place.h, w->life.id, 1999), 0);
	assert_int_equal(history_prune(w->place.h, w->life.id, 2999), first);
	sweep(w);
	assert_int_equal(history_prune(w->place.h, w->life.id, 2999), 0);
	place_commit(&w->place);
	assert_int_equal(place_ask(&w->place, "SELECT min(key & 0xffffffffff) FROM op_rows"),
			 first);
	assert_int_equal(place_ask(&w->place, "SELECT first_op FROM machine_config"), first);
	assert_int_equal(place_ask(&w->place,
				   "SELECT count(*) FROM payloads WHERE key NOT IN (SELECT key FROM"
				   " op_rows)"),
			 0);
	assert_true((uint64_t)place_ask(&w->place, "SELECT count(*) FROM events") <= events);
	assert_int_equal(place_ask(&w->place, "SELECT count(*) FROM checkpoints"), 2);
	for (unsigned i = 0; i < 10; i++)
		assert_made(w, first - 1 + recorded_pick(&w->life, 100));
	assert_made(w, recorded_ops(&w->life));
	make(w, &m, first - 2);
	assert_int_equal(m.rebuild.error, MACHINE_E_PRUNED);
	/* Without its checkpoints it cannot come back, and says so. */
	change(w, "DELETE FROM checkpoints");
	make(w, &m, recorded_ops(&w->life));
	assert_int_equal(m.rebuild.error, MACHINE_E_PRUNED);
}

static void checkpoint_by_hand(struct world *w, uint64_t machine, uint64_t op)
{
	struct history_checkpoint c = {.machine = machine, .op = op, .time_ns = 2000};

	history_add_piece(w->place.h, (const uint8_t *)"piece", 5);
	history_add_checkpoint(w->place.h, &c);
	place_commit(&w->place);
}

/* A machine that is idle is pruned up to its last op, which may be the newest row of all. */
static void after_a_prune_to_the_end_it_goes_on(void **state)
{
	struct world *w = *state;
	uint64_t id = add_machine(w->place.h, "idle"), op = 0;
	int64_t events;

	while (op < 10)
		append_alloc(w->place.h, id, ++op, 100, ZONE_NORMAL, 0);
	checkpoint_by_hand(w, id, op);
	assert_int_equal(history_prune(w->place.h, id, 2000), op + 1);
	sweep(w);
	events = place_ask(&w->place, "SELECT max(id) FROM events");
	for (unsigned i = 0; i < 2; i++) {
		append_alloc(w->place.h, id, ++op, 100, ZONE_NORMAL, 0);
		place_commit(&w->place);
		assert_int_equal(place_ask(&w->place, "SELECT max(op) FROM op_log"), op);
		/* Ids of events are not used again. */
		assert_true(place_ask(&w->place, "SELECT max(id) FROM events") > events);
		events = place_ask(&w->place, "SELECT max(id) FROM events");
		w->machine = NULL;
		close_rooms(w);
		open_rooms(w);
	}
	/* And what was kept for that is swept when there is newer. */
	assert_int_equal(history_last_op(w->place.h, id), op);
	sweep(w);
	assert_int_equal(place_ask(&w->place, "SELECT min(op) FROM op_log"), 11);
	assert_int_equal(place_ask(&w->place, "SELECT count(*) FROM events"), 2);
}

static void a_file_of_version_1_is_brought_up(void **state)
{
	struct world *w = *state;
	int64_t version = place_ask(&w->place, "PRAGMA user_version");

	live(w, 200);
	w->machine = NULL;
	close_rooms(w);
	for (int older = OLDER_VERSIONS; older >= 1; older--)
		change(w, older_sql[older]);
	open_rooms(w);
	assert_int_equal(place_ask(&w->place, "PRAGMA user_version"), version);
	assert_int_equal(place_ask(&w->place, "SELECT first_op FROM machine_config"), 1);
	live(w, 50);
	keep(w);
	assert_int_equal(place_ask(&w->place, "SELECT count(*) FROM checkpoints"), 1);
	assert_made(w, recorded_ops(&w->life));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(a_machine_comes_back_from_it),
	    TEST(a_damaged_one_costs_time_alone),
	    TEST(one_that_leads_elsewhere_is_not_followed),
	    TEST(of_many_few_are_kept),
	    TEST(a_commit_that_fails_leaves_no_half),
	    TEST(what_a_death_left_is_swept),
	    TEST(what_is_pruned_is_gone_and_the_machine_is_not),
	    TEST(after_a_prune_to_the_end_it_goes_on),
	    TEST(a_file_of_version_1_is_brought_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
