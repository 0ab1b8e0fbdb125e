/*
 * place_checked.h - what tests do at a place and expect to go well. Include it after
 * cmocka.h; programs that are no tests of cmocka's have place.h alone.
 */
#ifndef TESTS_HISTORY_PLACE_CHECKED_H
#define TESTS_HISTORY_PLACE_CHECKED_H

#include <sqlite3.h>
#include <stdio.h>

#include "place.h"

static inline void place_commit(struct place *p)
{
	if (history_commit(p->h, p->err, sizeof(p->err)))
		fail_msg("%s", p->err);
}

static sqlite3 *place_writer;

static inline int place_note_writer(sqlite3 *db, char **err, const void *api)
{
	(void)err;
	(void)api;
	if (!place_writer)
		place_writer = db; /* the connection that is opened first */
	return SQLITE_OK;
}

/* With a cache that every turn outgrows: pages go into the log before the turn ends, are read
 * there and written again. */
static inline int place_open_without_cache(struct place *p)
{
	void (*note)(void) = (void (*)(void))place_note_writer;
	int error;

	place_writer = NULL;
	sqlite3_auto_extension(note);
	error = place_open(p);
	sqlite3_cancel_auto_extension(note);
	if (error == HISTORY_OK)
		sqlite3_exec(place_writer, "PRAGMA cache_size = 1", NULL, NULL, NULL);
	return error;
}

/* The one number that a statement gives, as another program reads it. */
static inline int64_t place_ask(const struct place *p, const char *sql)
{
	sqlite3 *db;
	sqlite3_stmt *st;
	int64_t answer;

	assert_int_equal(sqlite3_open_v2(p->path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
	if (sqlite3_prepare_v2(db, sql, -1, &st, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	assert_int_equal(sqlite3_step(st), SQLITE_ROW);
	answer = sqlite3_column_int64(st, 0);
	sqlite3_finalize(st);
	sqlite3_close(db);
	return answer;
}

static inline void place_copy_file(const char *from, const char *to)
{
	FILE *in = fopen(from, "re"), *out = fopen(to, "we");
	char bytes[65536];
	size_t n;

	assert_non_null(in);
	assert_non_null(out);
	while ((n = fread(bytes, 1, sizeof bytes, in)))
		assert_int_equal(fwrite(bytes, 1, n, out), n);
	fclose(in);
	assert_int_equal(fclose(out), 0);
}

/* A history as the daemon leaves it that is killed now: its file and its log. */
static inline void place_copy_killed(const char *from, const char *to)
{
	char log[512], copy[512];

	snprintf(log, sizeof log, "%s-wal", from);
	snprintf(copy, sizeof copy, "%s-wal", to);
	place_copy_file(from, to);
	place_copy_file(log, copy);
}

#endif
