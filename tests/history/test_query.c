/*
 * test_query.c - questions: what may be asked, and what ends one.
 *
 * Nothing here depends on how fast a thing is: queries that must be cut off would
 * run for ever, and those that must not have no limit that a slow machine reaches.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/stat.h>

#include "place.h"

/* A number that never ends. */
#define ENDLESS "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "

static int setup(void **state)
{
	struct place *p = malloc(sizeof(*p));

	place_make(p);
	p->options.query_timeout_ms = 600000;
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	place_remove(*state);
	free(*state);
	return 0;
}

/* A caller that keeps what it was given. */
struct caller {
	struct place *place;
	struct history_query *query;
	unsigned columns_calls, pages, nr_columns;
	uint64_t rows;
	int64_t sum; /* of all integers */
	size_t bytes;
	char names[256], types[256], first[64];
	bool hold;	    /* does not continue by itself */
	bool inside;	    /* continues from within page() */
	bool cancel_inside; /* cancels from within page() */
	bool done, truncated;
	int error;
	char message[256];
};

static void columns(void *user, unsigned nr, const char *const names[], const char *const types[])
{
	struct caller *c = user;

	assert_int_equal(c->pages, 0);
	c->columns_calls++;
	c->nr_columns = nr;
	for (unsigned i = 0; i < nr; i++) {
		strcat(strcat(c->names, names[i]), ",");
		strcat(strcat(c->types, types[i]), ",");
	}
}

static void page(void *user, const struct history_value *values, unsigned nr_rows,
		 unsigned nr_columns)
{
	struct caller *c = user;

	assert_false(c->done);
	assert_int_equal(c->columns_calls, 1);
	assert_int_equal(nr_columns, c->nr_columns);
	assert_true(nr_rows > 0);
	if (c->inside)
		history_query_continue(c->query);
	if (c->cancel_inside)
		history_query_cancel(c->query);
	for (size_t i = 0; i < (size_t)nr_rows * nr_columns; i++) {
		if (values[i].type == VALUE_INTEGER)
			c->sum += values[i].integer;
		if (values[i].type == VALUE_TEXT || values[i].type == VALUE_BLOB)
			c->bytes += values[i].length;
	}
	if (c->pages++ == 0 && values[0].type == VALUE_TEXT)
		snprintf(c->first, sizeof(c->first), "%.*s", (int)values[0].length,
			 (const char *)values[0].bytes);
	c->rows += nr_rows;
}

static void done(void *user, int error, bool truncated, const char *message)
{
	struct caller *c = user;

	assert_false(c->done);
	c->done = true;
	c->error = error;
	c->truncated = truncated;
	snprintf(c->message, sizeof(c->message), "%s", message);
}

static void start_with(struct place *p, struct caller *c, struct history_query_options o)
{
	c->place = p;
	o.user = c;
	o.columns = columns;
	o.page = page;
	o.done = done;
	assert_int_equal(history_query_start(p->h, &o, &c->query), HISTORY_OK);
}

static void start(struct place *p, struct caller *c, const char *sql)
{
	start_with(p, c, (struct history_query_options){.sql = sql});
}

/* Turns the loop until the query has ended; until it has a page if that is held. */
static void run(struct caller *c)
{
	unsigned continued = c->pages;

	while (!c->done && !(c->hold && c->pages)) {
		uv_run(&c->place->loop, UV_RUN_ONCE);
		if (c->done || c->inside || c->hold || c->pages == continued)
			continue;
		continued = c->pages;
		history_query_continue(c->query);
	}
}

static struct caller ask(struct place *p, const char *sql)
{
	struct caller c = {0};

	start(p, &c, sql);
	run(&c);
	return c;
}

static void open_filled(struct place *p, uint64_t ops)
{
	assert_int_equal(place_open(p), HISTORY_OK);
	add_machine(p->h, "m");
	for (uint64_t op = 1; op <= ops; op++)
		append_alloc(p->h, 1, op, (uint32_t)op, ZONE_HIGHMEM, 0);
	assert_int_equal(history_commit(p->h, p->err, sizeof(p->err)), HISTORY_OK);
}

static void a_question_is_answered(void **state)
{
	struct place *p = *state;
	struct caller c;

	open_filled(p, 10);
	c = ask(p, "SELECT zone, pfn FROM op_alloc_pages ORDER BY op; -- and no more\n");
	assert_int_equal(c.error, HISTORY_OK);
	assert_int_equal(c.rows, 10);
	assert_int_equal(c.sum, 55);
	assert_string_equal(c.first, "ZONE_HIGHMEM");
	assert_string_equal(c.names, "zone,pfn,");
	c = ask(p, "SELECT key, nr_events + 1 FROM ops");
	assert_string_equal(c.types, "INTEGER,,");
}

static void no_rows_still_have_columns(void **state)
{
	struct place *p = *state;
	struct caller c;

	open_filled(p, 0);
	c = ask(p, "SELECT name FROM machines WHERE 0");
	assert_int_equal(c.error, HISTORY_OK);
	assert_int_equal(c.columns_calls, 1);
	assert_int_equal(c.pages, 0);
	assert_string_equal(c.names, "name,");
}

static void parameters_are_bound(void **state)
{
	static const struct history_value values[] = {
	    {.type = VALUE_INTEGER, .integer = 40},
	    {.type = VALUE_TEXT, .bytes = (const uint8_t *)"abcdef", .length = 3},
	    {.type = VALUE_BLOB, .bytes = (const uint8_t *)"\0\1", .length = 2},
	    {.type = VALUE_REAL, .real = 2.0},
	    {.type = VALUE_NULL},
	};
	struct place *p = *state;
	struct caller c = {0};

	open_filled(p, 0);
	start_with(p, &c,
		   (struct history_query_options){.sql = "SELECT ?2, ?1 + ?4 IS 42.0 AND ?5 IS NULL"
							 " AND hex(?3) = '0001'",
						  .parameters = values,
						  .nr_parameters = 5});
	run(&c);
	assert_int_equal(c.error, HISTORY_OK);
	assert_string_equal(c.first, "abc");
	assert_int_equal(c.sum, 1);
	memset(&c, 0, sizeof(c));
	start_with(p, &c,
		   (struct history_query_options){
		       .sql = "SELECT ?1", .parameters = values, .nr_parameters = 2});
	run(&c);
	assert_int_equal(c.error, HISTORY_SQL);
}

static void only_reading_is_allowed(void **state)
{
	static const char *const refused[] = {
	    "INSERT INTO machines(name) VALUES('x')",
	    "DELETE FROM ops",
	    "UPDATE ops SET cpu = 1 RETURNING cpu",
	    "CREATE TABLE t(a)",
	    "CREATE TEMP TABLE t(a)",
	    "CREATE TEMP VIEW t AS SELECT 1",
	    "DROP TABLE ops",
	    "ATTACH '/tmp/x.db' AS x",
	    "DETACH main",
	    "VACUUM INTO '/tmp/x.db'",
	    "REINDEX",
	    "ANALYZE",
	    "BEGIN",
	    "COMMIT",
	    "SAVEPOINT s",
	    "PRAGMA journal_mode = DELETE",
	    "PRAGMA wal_checkpoint",
	    "PRAGMA user_version = 7",
	    "PRAGMA query_only = 0",
	    "SELECT * FROM pragma_database_list",
	    "SELECT load_extension('x')",
	    "SELECT * FROM pending_ops",
	    "SELECT 1; SELECT 2",
	    "SELECT 1; DELETE FROM ops",
	    "SELECT 1; nonsense",
	    "nonsense",
	    "SELECT * FROM no_such_table",
	    "",
	    "   -- nothing\n",
	};
	struct place *p = *state;
	struct stat st;
	struct caller c;

	open_filled(p, 1);
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		c = ask(p, refused[i]);
		if (c.error != HISTORY_SQL || c.rows || !c.message[0])
			fail_msg("%s: %d %s", refused[i], c.error, c.message);
	}
	assert_int_equal(stat("/tmp/x.db", &st), -1);
	assert_int_equal(ask(p, "SELECT count(*) FROM ops").sum, 1);
	/* What describes is allowed. */
	assert_int_equal(ask(p, "PRAGMA user_version").sum, 4);
	c = ask(p, "PRAGMA table_info(ops)");
	if (c.rows < 20)
		fail_msg("%s", c.message);
	assert_true(ask(p, "SELECT name FROM sqlite_schema").rows > 90);
	assert_true(ask(p, "EXPLAIN QUERY PLAN SELECT * FROM op_log").rows > 1);
}

static void the_row_limit_says_that_there_was_more(void **state)
{
	struct place *p = *state;
	struct caller c = {0};

	p->options.query_row_limit = 10;
	open_filled(p, 10);
	/* Exactly the limit is not more. */
	c = ask(p, "SELECT key FROM ops");
	assert_int_equal(c.rows, 10);
	assert_false(c.truncated);
	memset(&c, 0, sizeof(c));
	start_with(p, &c,
		   (struct history_query_options){.sql = "SELECT key FROM ops", .row_limit = 9});
	run(&c);
	assert_int_equal(c.rows, 9);
	assert_true(c.truncated);
	/* More than the history's own limit cannot be had. */
	memset(&c, 0, sizeof(c));
	start_with(
	    p, &c,
	    (struct history_query_options){.sql = ENDLESS "SELECT i FROM n", .row_limit = 100});
	run(&c);
	assert_int_equal(c.error, HISTORY_OK);
	assert_int_equal(c.rows, 10);
	assert_true(c.truncated);
}

static void pages_come_one_at_a_time(void **state)
{
	struct place *p = *state;
	struct caller c = {.hold = true};

	open_filled(p, 1000);
	start_with(p, &c,
		   (struct history_query_options){
		       .sql = "SELECT pfn FROM op_alloc_pages ORDER BY op", .page_bytes = 4096});
	run(&c);
	assert_int_equal(c.pages, 1);
	assert_true(c.rows < 1000);
	/* Nothing comes unasked for. */
	for (int i = 0; i < 10; i++)
		uv_run(&p->loop, UV_RUN_NOWAIT);
	assert_int_equal(c.pages, 1);
	c.hold = false;
	history_query_continue(c.query);
	run(&c);
	assert_int_equal(c.error, HISTORY_OK);
	assert_int_equal(c.rows, 1000);
	assert_int_equal(c.sum, 500500);
	assert_true(c.pages > 5);
}

static void continuing_from_within_a_page_is_safe(void **state)
{
	struct place *p = *state;
	struct caller c = {.inside = true};

	open_filled(p, 1000);
	start_with(p, &c,
		   (struct history_query_options){.sql = "SELECT pfn, zone FROM op_alloc_pages",
						  .page_bytes = 4096});
	run(&c);
	assert_int_equal(c.rows, 1000);
	assert_int_equal(c.sum, 500500);
	assert_int_equal(c.bytes, 12000);
}

static void a_query_sees_one_moment(void **state)
{
	struct place *p = *state;
	struct caller c = {.hold = true};

	open_filled(p, 1000);
	start_with(
	    p, &c,
	    (struct history_query_options){.sql = "SELECT key FROM ops", .page_bytes = 4096});
	run(&c);
	for (uint64_t op = 1001; op <= 1100; op++)
		append_alloc(p->h, 1, op, 1, ZONE_DMA, 0);
	assert_int_equal(history_commit(p->h, p->err, sizeof(p->err)), HISTORY_OK);
	history_idle(p->h);
	c.hold = false;
	history_query_continue(c.query);
	run(&c);
	assert_int_equal(c.rows, 1000);
	assert_int_equal(ask(p, "SELECT key FROM ops").rows, 1100);
}

static void time_ends_a_query_that_runs(void **state)
{
	struct place *p = *state;
	struct caller c = {0};

	open_filled(p, 0);
	start_with(p, &c,
		   (struct history_query_options){.sql = ENDLESS "SELECT max(i) FROM n",
						  .timeout_ms = 20});
	run(&c);
	assert_int_equal(c.error, HISTORY_TIMEOUT);
	assert_non_null(strstr(c.message, "time limit"));
	assert_int_equal(c.rows, 0);
}

static void time_ends_a_query_that_nobody_reads(void **state)
{
	struct place *p = *state;
	struct caller c = {.hold = true};

	open_filled(p, 0);
	start_with(p, &c,
		   (struct history_query_options){
		       .sql = ENDLESS "SELECT i FROM n", .timeout_ms = 200, .page_bytes = 100});
	/* Whether a page came before the time was over or not. */
	while (!c.done)
		uv_run(&p->loop, UV_RUN_ONCE);
	assert_int_equal(c.error, HISTORY_TIMEOUT);
	assert_true(c.pages <= 1);
}

static void a_query_can_be_cancelled_in_every_state(void **state)
{
	struct place *p = *state;
	struct caller c = {0};

	open_filled(p, 1000);
	/* While it runs or before. */
	start(p, &c, ENDLESS "SELECT max(i) FROM n");
	history_query_cancel(c.query);
	assert_false(c.done); /* never from within the call */
	run(&c);
	assert_int_equal(c.error, HISTORY_ABORTED);
	/* While it waits with a page, */
	c = (struct caller){.hold = true};
	start_with(p, &c,
		   (struct history_query_options){.sql = "SELECT key FROM ops", .page_bytes = 100});
	run(&c);
	history_query_cancel(c.query);
	history_query_cancel(c.query);
	assert_false(c.done);
	while (!c.done)
		uv_run(&p->loop, UV_RUN_ONCE);
	assert_int_equal(c.error, HISTORY_ABORTED);
	/* with its last page, */
	c = (struct caller){.hold = true};
	start(p, &c, "SELECT 1");
	run(&c);
	history_query_cancel(c.query);
	while (!c.done)
		uv_run(&p->loop, UV_RUN_ONCE);
	assert_int_equal(c.error, HISTORY_ABORTED);
	/* and from within page(). */
	c = (struct caller){.cancel_inside = true, .hold = true};
	start_with(p, &c,
		   (struct history_query_options){.sql = "SELECT key FROM ops", .page_bytes = 100});
	while (!c.done)
		uv_run(&p->loop, UV_RUN_ONCE);
	assert_int_equal(c.error, HISTORY_ABORTED);
	assert_int_equal(c.pages, 1);
}

static void closing_ends_what_runs(void **state)
{
	struct place *p = *state;
	struct caller running = {0}, waiting = {.hold = true};

	open_filled(p, 10);
	start(p, &waiting, "SELECT key FROM ops");
	run(&waiting);
	start(p, &running, ENDLESS "SELECT max(i) FROM n");
	place_close(p);
	assert_true(running.done && waiting.done);
	assert_int_equal(running.error, HISTORY_ABORTED);
	assert_int_equal(waiting.error, HISTORY_ABORTED);
}

static void there_is_a_limit_of_queries(void **state)
{
	enum { LIMIT = 32 };
	struct place *p = *state;
	struct caller *c = calloc(LIMIT, sizeof(*c)), more = {0};
	struct history_query_options o = {
	    .sql = "SELECT 1", .user = &more, .columns = columns, .page = page, .done = done};

	open_filled(p, 10);
	/* More than run at once: those that are held let others run. */
	for (int i = 0; i < LIMIT; i++) {
		c[i].hold = true;
		start(p, &c[i], "SELECT key FROM ops");
	}
	assert_int_equal(history_query_start(p->h, &o, &more.query), HISTORY_BUSY);
	for (int i = 0; i < LIMIT; i++)
		run(&c[i]);
	for (int i = 0; i < LIMIT; i++) {
		c[i].hold = false;
		history_query_continue(c[i].query);
		run(&c[i]);
		assert_int_equal(c[i].rows, 10);
	}
	assert_int_equal(history_query_start(p->h, &o, &more.query), HISTORY_OK);
	more.place = p;
	run(&more);
	free(c);
}

static void a_row_that_is_too_long_is_an_error(void **state)
{
	struct place *p = *state;
	struct caller c;

	open_filled(p, 0);
	c = ask(p, "SELECT zeroblob(3000000)");
	assert_int_equal(c.error, HISTORY_SQL);
	c = ask(p, "SELECT zeroblob(1900000), zeroblob(1900000)");
	assert_int_equal(c.error, HISTORY_SQL);
	assert_non_null(strstr(c.message, "3 MiB"));
	c = ask(p, "SELECT zeroblob(1900000) UNION ALL SELECT zeroblob(1900000)");
	assert_int_equal(c.error, HISTORY_OK);
	assert_int_equal(c.pages, 2);
}

/* At three quarters of the WAL's limit our own readers are cut off, so that it can
 * start again and no op is refused. */
static void a_held_query_gives_way_to_the_wal(void **state)
{
	struct place *p = *state;
	struct caller c = {.hold = true};

	p->options.wal_limit_bytes = 1 << 20;
	open_filled(p, 1000);
	start_with(p, &c,
		   (struct history_query_options){.sql = "SELECT key FROM ops", .page_bytes = 100});
	run(&c);
	for (uint64_t op = 1001; op < 60000; op++) {
		append_alloc(p->h, 1, op, 1, ZONE_DMA, 0);
		if (op % 500)
			continue;
		assert_int_equal(history_commit(p->h, p->err, sizeof(p->err)), HISTORY_OK);
		history_idle(p->h);
		uv_run(&p->loop, UV_RUN_NOWAIT);
		/* The worker that ends it needs its moment. */
		while (history_ready(p->h, p->err, sizeof(p->err)) == HISTORY_WAL)
			uv_run(&p->loop, UV_RUN_ONCE);
	}
	assert_true(c.done);
	assert_int_equal(c.error, HISTORY_WAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	    T(a_question_is_answered),
	    T(no_rows_still_have_columns),
	    T(parameters_are_bound),
	    T(only_reading_is_allowed),
	    T(the_row_limit_says_that_there_was_more),
	    T(pages_come_one_at_a_time),
	    T(continuing_from_within_a_page_is_safe),
	    T(a_query_sees_one_moment),
	    T(time_ends_a_query_that_runs),
	    T(time_ends_a_query_that_nobody_reads),
	    T(a_query_can_be_cancelled_in_every_state),
	    T(closing_ends_what_runs),
	    T(there_is_a_limit_of_queries),
	    T(a_row_that_is_too_long_is_an_error),
	    T(a_held_query_gives_way_to_the_wal),
	};

	return cmocka_run_group_tests_name("history: questions", tests, NULL, NULL);
}
