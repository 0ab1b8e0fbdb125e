/*
 * test_disk.c - what the history keeps when the disk is what fails: cuts of power at
 * any call, every single failure of a call, a disk that is full.
 *
 *  - With synchronous = full nothing acknowledged is lost to a power cut; with normal
 *    what is left is the turns up to some moment, whole, and the file is sound.
 *  - So it is when turns outgrow the writer's cache.
 *  - A call that fails fails the turn that it was for, whole, or nothing; the next one
 *    goes through.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "disk.h"
#include "effort.h"
#include "known.h"
#include "place_checked.h"

enum {
	TURN_OPS = 30,
	TURNS = 12,
	/* A quarter of it makes a checkpoint due, so that there are some in a few turns. */
	WAL_LIMIT = 256 << 10,
};

struct bench {
	struct place place;
	struct known_progress acknowledged;
	uint64_t random;
};

/* A history that has been made and closed, for those that need not make one: that takes
 * some hundred milliseconds, most of it SQLite's reading the views. */
static struct bench model;
static struct known_progress model_progress;

static void bench_make(struct bench *b, enum history_sync sync, uint64_t random)
{
	memset(b, 0, sizeof *b);
	place_make(&b->place);
	b->place.options.sync = sync;
	b->place.options.wal_limit_bytes = WAL_LIMIT;
	/* No queries here, and so no loop to turn. */
	b->place.options.loop = NULL;
	b->random = random;
	disk_forget();
}

static void bench_copy(struct bench *b, enum history_sync sync, uint64_t random)
{
	bench_make(b, sync, random);
	place_copy_file(model.place.path, b->place.path);
	b->acknowledged = model_progress;
}

static void bench_remove(struct bench *b)
{
	place_remove(&b->place);
	disk_forget();
}

static bool chance(struct bench *b, uint64_t one_in)
{
	return random_next(&b->random) % one_in == 0;
}

/* A turn and perhaps upkeep. False: it was not committed, and the history says why. */
static bool play_turn(struct bench *b, struct known_progress *p)
{
	struct place *place = &b->place;
	bool ok;

	if (!p->last[0]) {
		known_begin(place->h, p);
		p->last[0] = KNOWN_MACHINES;
	}
	known_append_turn(place->h, p, TURN_OPS, &b->random);
	place->err[0] = '\0';
	ok = history_commit(place->h, place->err, sizeof place->err) == HISTORY_OK;
	if (ok)
		b->acknowledged = *p;
	else
		assert_true(place->err[0]);
	*p = b->acknowledged;
	if (chance(b, 2))
		history_idle(place->h);
	return ok;
}

static bool try_open(struct bench *b)
{
	b->place.err[0] = '\0';
	if ((chance(b, 2) ? place_open : place_open_without_cache)(&b->place) == HISTORY_OK)
		return true;
	assert_true(b->place.err[0]);
	b->place.h = NULL;
	return false;
}

/* What a sound disk has of it; the history is open afterwards. */
static void verify(struct bench *b, struct known_progress *found)
{
	if (!try_open(b))
		fail_msg("it does not open: %s", b->place.err);
	known_verify(b->place.h, b->place.path, &b->acknowledged, found);
}

/* ---- power cuts ---- */

static uint64_t test_seed, test_random;

static void cut_and_verify(struct bench *b, enum history_sync sync, uint64_t at_call)
{
	struct known_progress p = b->acknowledged, found = {{0}}, nothing = {{0}};
	bool running;

	disk_power_off_at(DISK_WRITE | DISK_SYNC | DISK_TRUNCATE, at_call);
	running = try_open(b);
	for (unsigned i = 0; running && i < TURNS; i++)
		running = play_turn(b, &p);
	/* Without power closing only lets go. */
	if (!disk_has_failed())
		disk_power_off_at(DISK_ANY, 1);
	place_close(&b->place);
	disk_power_on(&b->random);
	/* Normal may forget turns, but only from the end. */
	if (sync == HISTORY_SYNC_NORMAL)
		b->acknowledged = nothing;
	verify(b, &found);
	b->acknowledged = found;
	place_close(&b->place);
}

static void cut_power(enum history_sync sync, unsigned cuts)
{
	struct bench b;

	for (unsigned i = 0; i < cuts; i++) {
		/* Some files go on through many cuts, others are cut at their making. */
		if (i % 8 == 0 && i % 32 == 0)
			bench_make(&b, sync, (test_seed + i) | 1);
		else if (i % 8 == 0)
			bench_copy(&b, sync, (test_seed + i) | 1);
		cut_and_verify(&b, sync, 1 + random_next(&b.random) % 150);
		if (i % 8 == 7 || i + 1 == cuts)
			bench_remove(&b);
	}
}

static void test_full_loses_nothing_to_a_power_cut(void **state)
{
	(void)state;
	cut_power(HISTORY_SYNC_FULL, effort(40));
}

static void test_normal_is_sound_after_a_power_cut(void **state)
{
	(void)state;
	cut_power(HISTORY_SYNC_NORMAL, effort(40));
}

/* Of reads and writes only the long run takes each; the usual one some of them, and others
 * each time. */
static uint64_t next_call(uint64_t n)
{
	uint64_t step = random_next(&test_random) % (320 / effort(5));

	return effort(1) > 1 ? n + 1 : n + 1 + step;
}

/* Each call of the history's making, and of its first turns, is the last one. */
static void test_a_cut_at_every_call(void **state)
{
	(void)state;
	for (uint64_t n = 1; n < 400; n = next_call(n)) {
		struct bench b;

		/* Those of the history's making are the first hundred or so. */
		if (n % 4 == 0)
			bench_make(&b, HISTORY_SYNC_FULL, test_seed | 1);
		else
			bench_copy(&b, HISTORY_SYNC_FULL, test_seed | 1);
		cut_and_verify(&b, HISTORY_SYNC_FULL, n);
		bench_remove(&b);
	}
}

/* ---- single failures ---- */

/* A life on a disk whose n-th call fails. False: it was over before that. */
static bool live_with_failure(enum disk_call kind, uint64_t n, bool cut)
{
	struct known_progress p = model_progress, found;
	unsigned refused = 0;
	bool failed;
	struct bench b;

	bench_copy(&b, HISTORY_SYNC_FULL, test_seed | 1);
	disk_fail(kind, n);
	/* The first open may be what fails; the second is not. */
	if (!try_open(&b))
		assert_true(try_open(&b));
	for (unsigned i = 0; i < TURNS; i++)
		refused += !play_turn(&b, &p);
	/* One call cannot fail two turns. */
	assert_true(refused <= 1);
	failed = disk_has_failed();
	if (cut)
		disk_power_off_at(DISK_ANY, 1);
	place_close(&b.place);
	failed = failed || (!cut && disk_has_failed());
	if (cut)
		disk_power_on(&b.random);
	disk_fail(DISK_ANY, 0);
	verify(&b, &found);
	/* And nothing of the turn that failed, not even if it was written and not synced. */
	assert_memory_equal(found.last + 1, b.acknowledged.last + 1, sizeof found.last - 8);
	bench_remove(&b);
	return failed;
}

static void fail_every(enum disk_call kind)
{
	bool are_few = kind == DISK_SYNC || kind == DISK_TRUNCATE;
	uint64_t calls[2] = {0};

	for (unsigned cut = 0; cut < 2; cut++)
		for (uint64_t n = 1; live_with_failure(kind, n, cut);
		     n = are_few ? n + 1 : next_call(n))
			calls[cut] = n;
	assert_true(calls[0] && calls[1]);
	print_message("  of at least %u calls\n", (unsigned)calls[0]);
}

static void test_any_read_may_fail(void **state)
{
	(void)state;
	fail_every(DISK_READ);
}

static void test_any_write_may_fail(void **state)
{
	(void)state;
	fail_every(DISK_WRITE);
}

static void test_any_sync_may_fail(void **state)
{
	(void)state;
	fail_every(DISK_SYNC);
}

static void test_any_truncation_may_fail(void **state)
{
	(void)state;
	fail_every(DISK_TRUNCATE);
}

/* A daemon is killed: the next one finds its files as they are now. */
static void kill_and_verify(struct bench *b, struct known_progress *found)
{
	struct place kept;

	place_make(&kept);
	place_copy_killed(b->place.path, kept.path);
	place_close(&b->place);
	disk_forget();
	place_copy_killed(kept.path, b->place.path);
	place_remove(&kept);
	verify(b, found);
}

/* The turn was written, to its end, and then refused. */
static void test_a_turn_that_was_not_synced_is_not_there_after_a_kill(void **state)
{
	struct known_progress p = model_progress, found;
	struct bench b;

	(void)state;
	bench_copy(&b, HISTORY_SYNC_FULL, test_seed | 1);
	assert_true(try_open(&b));
	for (unsigned i = 0; i < 2; i++)
		assert_true(play_turn(&b, &p));
	disk_fail(DISK_SYNC, 1);
	assert_false(play_turn(&b, &p));
	disk_fail(DISK_ANY, 0);
	kill_and_verify(&b, &found);
	assert_memory_equal(found.last + 1, b.acknowledged.last + 1, sizeof found.last - 8);
	for (unsigned i = 0; i < 2; i++)
		assert_true(play_turn(&b, &p));
	place_close(&b.place);
	bench_remove(&b);
}

/* ---- a full disk ---- */

/* Turns go through until the disk is full, and again as soon as it is not. */
static void fill(uint64_t room)
{
	struct known_progress p = model_progress, found;
	struct bench b;
	unsigned refused = 0;

	bench_copy(&b, HISTORY_SYNC_FULL, test_seed | 1);
	assert_true(try_open(&b));
	assert_true(play_turn(&b, &p));
	disk_limit(disk_used() + room);
	for (unsigned i = 0; i < 4 * TURNS; i++)
		refused += !play_turn(&b, &p);
	assert_true(refused > 0);
	disk_limit(UINT64_MAX);
	for (unsigned i = 0; i < TURNS; i++)
		assert_true(play_turn(&b, &p));
	place_close(&b.place);
	verify(&b, &found);
	assert_memory_equal(&found.last[1], &b.acknowledged.last[1], sizeof found.last - 8);
	bench_remove(&b);
}

static void test_a_disk_full_at_any_page(void **state)
{
	(void)state;
	for (uint64_t room = 0; room < 60 * 4096; room += 4096 * next_call(0) / 2)
		fill(room);
}

/* A disk that is full when the history is made. */
static void test_no_room_to_begin(void **state)
{
	bool opened = false;

	(void)state;
	for (uint64_t room = 0; !opened; room += 8192 * (1 + next_call(0) / 8)) {
		struct known_progress found;
		struct bench b;

		bench_make(&b, HISTORY_SYNC_FULL, test_seed | 1);
		disk_limit(room);
		opened = try_open(&b);
		place_close(&b.place);
		disk_limit(UINT64_MAX);
		verify(&b, &found);
		bench_remove(&b);
	}
}

static int make_model(void **state)
{
	(void)state;
	bench_make(&model, HISTORY_SYNC_FULL, test_seed | 1);
	if (!try_open(&model) || !play_turn(&model, &model_progress))
		fail_msg("%s", model.place.err);
	place_close(&model.place);
	return 0;
}

static int remove_model(void **state)
{
	(void)state;
	bench_remove(&model);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_full_loses_nothing_to_a_power_cut),
	    cmocka_unit_test(test_normal_is_sound_after_a_power_cut),
	    cmocka_unit_test(test_a_cut_at_every_call),
	    cmocka_unit_test(test_any_read_may_fail),
	    cmocka_unit_test(test_any_write_may_fail),
	    cmocka_unit_test(test_any_sync_may_fail),
	    cmocka_unit_test(test_any_truncation_may_fail),
	    cmocka_unit_test(test_a_turn_that_was_not_synced_is_not_there_after_a_kill),
	    cmocka_unit_test(test_a_disk_full_at_any_page),
	    cmocka_unit_test(test_no_room_to_begin),
	};

	test_seed = random_seed();
	test_random = test_seed | 1;
	disk_install();
	return cmocka_run_group_tests(tests, make_model, remove_model);
}
