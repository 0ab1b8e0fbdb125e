/*
 * test_older.c - files of every older version are brought up to date, whole or not at all.
 *
 * What they hold is made by this version and taken apart as older.h says. It follows from
 * machine and number (known.h), and is compared row by row besides.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "disk.h"
#include "effort.h"
#include "known.h"
#include "older.h"
#include "place_checked.h"

enum { TURNS = 6, TURN_OPS = 60 };

static struct place now;	       /* of this version, closed */
static struct known_progress progress; /* of it */
static uint64_t contents;	       /* hash of it */

static sqlite3 *open_file(const char *path)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	return db;
}

static void change(const char *path, const char *sql)
{
	sqlite3 *db = open_file(path);
	char *err = NULL;

	if (sqlite3_exec(db, sql, NULL, NULL, &err))
		fail_msg("%s", err);
	sqlite3_close(db);
}

static int64_t version_of(const char *path)
{
	sqlite3 *db = open_file(path);
	sqlite3_stmt *st;
	int64_t version;

	assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &st, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(st), SQLITE_ROW);
	version = sqlite3_column_int64(st, 0);
	sqlite3_finalize(st);
	sqlite3_close(db);
	return version;
}

/* What every version shows of ops and events, in order. Where an op without events has its
 * first is nothing to go by. */
static uint64_t contents_of(const char *path)
{
	static const char *const sql[] = {
	    "SELECT key, code, cpu, task, owner, status, time_ns, latency_ns, client, token,"
	    " sequence, a0, a1, a2, a3, a4, a5, v0, v1, v2, v3, data_len, result_len,"
	    " result_hash, iif(nr_events, first_event, 0), nr_events, kinds FROM ops ORDER BY key",
	    "SELECT id, kind, w0, w1, w2, w3, w4, w5 FROM events ORDER BY id",
	    "SELECT key, length(data) FROM payloads ORDER BY key",
	};
	uint64_t hash = UINT64_C(0xcbf29ce484222325);
	sqlite3 *db = open_file(path);

	for (size_t i = 0; i < sizeof(sql) / sizeof(sql[0]); i++) {
		sqlite3_stmt *st;
		int rc;

		if (sqlite3_prepare_v2(db, sql[i], -1, &st, NULL))
			fail_msg("%s", sqlite3_errmsg(db));
		while ((rc = sqlite3_step(st)) == SQLITE_ROW)
			for (int c = 0; c < sqlite3_column_count(st); c++)
				hash = (hash ^ (uint64_t)sqlite3_column_int64(st, c) ^
					(uint64_t)sqlite3_column_type(st, c) << 60) *
				       UINT64_C(0x100000001b3);
		assert_int_equal(rc, SQLITE_DONE);
		sqlite3_finalize(st);
	}
	sqlite3_close(db);
	return hash;
}

/* A closed file of an older version. */
static void make_older(struct place *p, int version)
{
	place_make(p);
	p->options.loop = NULL; /* no queries */
	disk_forget();
	place_copy_file(now.path, p->path);
	for (int older = OLDER_VERSIONS; older >= version; older--)
		change(p->path, older_sql[older]);
	assert_true(contents_of(p->path) == contents);
}

static void assert_up_to_date(struct place *p)
{
	struct known_progress found = {{0}};

	if (place_open(p))
		fail_msg("%s", p->err);
	known_verify(p->h, p->path, &progress, &found);
	assert_memory_equal(&found.last[1], &progress.last[1],
			    sizeof found.last - sizeof found.last[0]);
	place_close(p);
	assert_int_equal(version_of(p->path), version_of(now.path));
	assert_true(contents_of(p->path) == contents);
}

static int make_now(void **state)
{
	uint64_t random = random_seed();

	(void)state;
	place_make(&now);
	now.options.loop = NULL;
	if (place_open(&now))
		return -1;
	known_begin(now.h, &progress);
	for (int i = 0; i < TURNS; i++) {
		known_append_turn(now.h, &progress, TURN_OPS, &random);
		if (history_commit(now.h, now.err, sizeof now.err))
			return -1;
	}
	place_close(&now);
	contents = contents_of(now.path);
	return 0;
}

static int remove_now(void **state)
{
	(void)state;
	place_remove(&now);
	return 0;
}

static void every_older_version_is_brought_up(void **state)
{
	(void)state;
	for (int version = 1; version <= OLDER_VERSIONS; version++) {
		struct place p;

		make_older(&p, version);
		assert_int_equal(version_of(p.path), version);
		assert_up_to_date(&p);
		/* And once more: there is nothing left to do. */
		assert_up_to_date(&p);
		place_remove(&p);
	}
}

/* The process dies, or the power, at one call after the other until one comes too late. */
static void a_death_leaves_the_old_or_the_new(bool power)
{
	uint64_t random = random_seed(), step = 1 + 12 / effort(1), before = 0, after = 0;
	bool came_too_late = false;
	struct place older, p;

	make_older(&older, 1);
	for (uint64_t n = 1; !came_too_late; n += 1 + random_next(&random) % step) {
		int64_t version;

		place_make(&p);
		p.options.loop = NULL;
		place_copy_file(older.path, p.path);
		disk_forget();
		disk_power_off_at(DISK_WRITE | DISK_SYNC | DISK_TRUNCATE, n);
		came_too_late = place_open(&p) == HISTORY_OK && !disk_has_failed();
		place_close(&p);
		/* What a killed process has written is there; of what a cut leaves, chance
		 * decides. */
		if (power)
			disk_power_on(&random);
		disk_forget();
		version = version_of(p.path);
		assert_in_range(version, 1, version_of(now.path));
		before += version < version_of(now.path);
		after += version == version_of(now.path);
		assert_true(contents_of(p.path) == contents);
		assert_up_to_date(&p);
		place_remove(&p);
	}
	place_remove(&older);
	/* Some died before it was done, some behind. */
	printf("%llu deaths left the old one, %llu the new\n", (unsigned long long)before,
	       (unsigned long long)after);
	assert_true(before > 3 && after > 3);
}

static void killed(void **state)
{
	(void)state;
	a_death_leaves_the_old_or_the_new(false);
}

static void cut_off(void **state)
{
	(void)state;
	a_death_leaves_the_old_or_the_new(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_older_version_is_brought_up),
	    cmocka_unit_test(killed),
	    cmocka_unit_test(cut_off),
	};

	disk_install();
	return cmocka_run_group_tests_name("history: older versions", tests, make_now, remove_now);
}
