/*
 * query.c - questions in SQL, a page at a time in libuv's thread pool.
 *
 * A query goes QUEUED -> RUNNING -> (WAITING -> QUEUED -> RUNNING)* -> gone:
 *
 *   QUEUED   in the list, waits for one of QUERY_WORKERS
 *   RUNNING  a thread of the pool fills one page; the loop does not touch what it fills
 *   WAITING  the page is the caller's until history_query_continue()
 *
 * No thread of the pool waits for a caller: between two pages a query is only its
 * statement and its read transaction. The deadline counts from history_query_start()
 * and goes on while it waits, because the transaction keeps the WAL from starting
 * again; a progress handler looks at it while RUNNING, a timer while WAITING.
 *
 * `stop` is the one field that both threads use: the loop sets it to an error, the
 * worker looks. The worker alone begins and ends the statement, so a query always
 * ends with a last run. The connection is then kept for the next query.
 *
 * What may be asked is what the authorizer knows to be a read. SQLite's sorter does
 * not call the progress handler within one step of a very large sort, so a query can
 * outlive its deadline by that step.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "history_priv.h"

enum {
	QUERIES_MAX = 32,
	PAGE_BYTES = 1 << 20,
	PROGRESS_STEPS = 2000, /* instructions of SQLite's machine: some ten microseconds */
	SQL_LENGTH_MAX = 1 << 20,
	/* Longest value, and longest row: a row must fit a message of 4 MiB. */
	VALUE_LENGTH_MAX = 2 << 20,
	ROW_BYTES_MAX = 3 << 20,
	COLUMNS_MAX = 512,
	DEADLINE_TICK_MS = 50,
};

enum query_state { QUERY_QUEUED, QUERY_RUNNING, QUERY_WAITING };

struct history_query {
	struct history *h;
	struct history_query *next;
	uv_work_t work;
	struct history_query_options options; /* sql and parameters are copies */
	enum query_state state;
	atomic_int stop;      /* HISTORY_*: why it must end; HISTORY_OK: it need not */
	uint64_t deadline_ns; /* monotonic */
	bool announced;	      /* columns() has been called */
	bool in_callback, continued;

	/* The worker's while RUNNING. */
	sqlite3 *db;
	sqlite3_stmt *st;
	uint64_t rows_given;
	bool finished, truncated;
	int error;
	char message[HISTORY_ERROR_LENGTH];
	unsigned nr_columns;
	char **names, **types;

	/* A page. While it is being filled a text or blob is an offset in `bytes`. */
	struct history_value *values;
	size_t nr_values, max_values;
	unsigned nr_rows;
	uint8_t *bytes;
	size_t nr_bytes, max_bytes;
};

/* ---- the worker's side ---- */

static int fail(struct history_query *q, int error, const char *message)
{
	q->error = error;
	snprintf(q->message, sizeof(q->message), "%s", message);
	return error;
}

static const char *stop_message(int error)
{
	switch (error) {
	case HISTORY_TIMEOUT: return "the query took longer than its time limit";
	case HISTORY_WAL: return "cut off: the write-ahead log is close to its limit";
	default: return "cancelled";
	}
}

static int fail_sqlite(struct history_query *q, int rc)
{
	int stop = atomic_load(&q->stop);

	if ((rc & 0xff) == SQLITE_INTERRUPT)
		return fail(q, stop ? stop : HISTORY_TIMEOUT,
			    stop_message(stop ? stop : HISTORY_TIMEOUT));
	switch (rc & 0xff) {
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB: return fail(q, HISTORY_CORRUPT, sqlite3_errmsg(q->db));
	case SQLITE_IOERR:
	case SQLITE_CANTOPEN:
	case SQLITE_BUSY:
	case SQLITE_NOMEM: return fail(q, HISTORY_IO, sqlite3_errmsg(q->db));
	default: return fail(q, HISTORY_SQL, sqlite3_errmsg(q->db));
	}
}

static int progress(void *arg)
{
	struct history_query *q = arg;

	return atomic_load(&q->stop) != HISTORY_OK || uv_hrtime() > q->deadline_ns;
}

static bool pragma_allowed(const char *name, const char *argument)
{
	static const char *const described[] = {"table_info", "table_xinfo", "table_list"};
	static const char *const plain[] = {"application_id", "user_version", "page_count",
					    "page_size"};

	for (size_t i = 0; i < sizeof(described) / sizeof(described[0]); i++) {
		if (sqlite3_stricmp(name, described[i]) == 0)
			return true;
	}
	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++) {
		if (sqlite3_stricmp(name, plain[i]) == 0)
			return argument == NULL;
	}
	return false;
}

/* Allows what reads and denies the rest, whatever a later SQLite may add. */
static int authorize(void *arg, int action, const char *a, const char *b, const char *database,
		     const char *trigger)
{
	(void)arg;
	(void)database;
	(void)trigger;
	switch (action) {
	case SQLITE_SELECT:
	case SQLITE_READ:
	case SQLITE_RECURSIVE: return SQLITE_OK;
	case SQLITE_FUNCTION:
		return sqlite3_stricmp(b, "load_extension") == 0 ? SQLITE_DENY : SQLITE_OK;
	case SQLITE_PRAGMA: return pragma_allowed(a, b) ? SQLITE_OK : SQLITE_DENY;
	default: return SQLITE_DENY;
	}
}

static void bind_parameter(struct history_query *q, int at, const struct history_value *v)
{
	switch (v->type) {
	case VALUE_NULL: sqlite3_bind_null(q->st, at); break;
	case VALUE_INTEGER: sqlite3_bind_int64(q->st, at, v->integer); break;
	case VALUE_REAL: sqlite3_bind_double(q->st, at, v->real); break;
	case VALUE_TEXT:
		sqlite3_bind_text64(q->st, at, (const char *)v->bytes, v->length, SQLITE_STATIC,
				    SQLITE_UTF8);
		break;
	case VALUE_BLOB: sqlite3_bind_blob64(q->st, at, v->bytes, v->length, SQLITE_STATIC); break;
	}
}

static char *copy_string(const char *s)
{
	return strdup(s ? s : "");
}

/* Names and types of the columns, kept for columns(). */
static int describe_columns(struct history_query *q)
{
	q->nr_columns = (unsigned)sqlite3_column_count(q->st);
	q->names = calloc(q->nr_columns + 1, sizeof(*q->names));
	q->types = calloc(q->nr_columns + 1, sizeof(*q->types));
	for (unsigned i = 0; q->names && q->types && i < q->nr_columns; i++) {
		q->names[i] = copy_string(sqlite3_column_name(q->st, (int)i));
		q->types[i] = copy_string(sqlite3_column_decltype(q->st, (int)i));
		if (!q->names[i] || !q->types[i])
			break;
		if (i + 1 == q->nr_columns)
			return HISTORY_OK;
	}
	return fail(q, HISTORY_IO, "no memory for the query's columns");
}

/* One statement that gives rows, and nothing but space and comments after it. */
static int prepare(struct history_query *q)
{
	const char *rest = NULL;
	sqlite3_stmt *second = NULL;
	int rc = sqlite3_prepare_v2(q->db, q->options.sql, -1, &q->st, &rest);

	if (rc != SQLITE_OK)
		return fail_sqlite(q, rc);
	if (!q->st)
		return fail(q, HISTORY_SQL, "there is no statement");
	rc = sqlite3_prepare_v2(q->db, rest, -1, &second, NULL);
	sqlite3_finalize(second);
	if (rc != SQLITE_OK || second)
		return fail(q, HISTORY_SQL, "more than one statement");
	if (!sqlite3_stmt_readonly(q->st) || sqlite3_column_count(q->st) == 0)
		return fail(q, HISTORY_SQL, "not a query: only SELECT and WITH are answered");
	if (q->options.nr_parameters > (unsigned)sqlite3_bind_parameter_count(q->st))
		return fail(q, HISTORY_SQL, "more parameters are given than the statement has");
	for (unsigned i = 0; i < q->options.nr_parameters; i++)
		bind_parameter(q, (int)i + 1, &q->options.parameters[i]);
	return describe_columns(q);
}

static int open_query(struct history_query *q)
{
	if (!q->db)
		q->error = history_open_reader(q->h, &q->db, q->message, sizeof(q->message));
	if (q->error)
		return q->error;
	sqlite3_limit(q->db, SQLITE_LIMIT_LENGTH, VALUE_LENGTH_MAX);
	sqlite3_limit(q->db, SQLITE_LIMIT_SQL_LENGTH, SQL_LENGTH_MAX);
	sqlite3_limit(q->db, SQLITE_LIMIT_COLUMN, COLUMNS_MAX);
	sqlite3_limit(q->db, SQLITE_LIMIT_ATTACHED, 0);
	sqlite3_limit(q->db, SQLITE_LIMIT_WORKER_THREADS, 0);
	sqlite3_set_authorizer(q->db, authorize, q);
	sqlite3_progress_handler(q->db, PROGRESS_STEPS, progress, q);
	return prepare(q);
}

static bool reserve(void **rows, size_t *max, size_t need, size_t size)
{
	size_t grown = *max ? *max : 1024;
	void *p;

	if (need <= *max)
		return true;
	while (grown < need)
		grown *= 2;
	p = realloc(*rows, grown * size);
	if (!p)
		return false;
	*rows = p;
	*max = grown;
	return true;
}

static bool read_bytes(struct history_query *q, struct history_value *v, const void *bytes,
		       size_t length)
{
	if (!reserve((void **)&q->bytes, &q->max_bytes, q->nr_bytes + length + 1, 1))
		return false;
	v->integer = (int64_t)q->nr_bytes; /* place_bytes() makes it a pointer */
	v->length = length;
	if (length)
		memcpy(q->bytes + q->nr_bytes, bytes, length);
	q->nr_bytes += length;
	return true;
}

static bool read_value(struct history_query *q, int column, struct history_value *v)
{
	memset(v, 0, sizeof(*v));
	switch (sqlite3_column_type(q->st, column)) {
	case SQLITE_INTEGER:
		v->type = VALUE_INTEGER;
		v->integer = sqlite3_column_int64(q->st, column);
		return true;
	case SQLITE_FLOAT:
		v->type = VALUE_REAL;
		v->real = sqlite3_column_double(q->st, column);
		return true;
	case SQLITE_TEXT: {
		const void *text = sqlite3_column_text(q->st, column);

		v->type = VALUE_TEXT;
		return read_bytes(q, v, text, (size_t)sqlite3_column_bytes(q->st, column));
	}
	case SQLITE_BLOB: {
		const void *blob = sqlite3_column_blob(q->st, column);

		v->type = VALUE_BLOB;
		return read_bytes(q, v, blob, (size_t)sqlite3_column_bytes(q->st, column));
	}
	default: v->type = VALUE_NULL; return true;
	}
}

static int read_row(struct history_query *q)
{
	size_t before = q->nr_bytes;

	if (!reserve((void **)&q->values, &q->max_values, q->nr_values + q->nr_columns,
		     sizeof(*q->values)))
		return fail(q, HISTORY_IO, "no memory for a row");
	for (unsigned i = 0; i < q->nr_columns; i++) {
		if (!read_value(q, (int)i, &q->values[q->nr_values + i]))
			return fail(q, HISTORY_IO, "no memory for a row");
		if (q->nr_bytes - before > ROW_BYTES_MAX)
			return fail(q, HISTORY_SQL, "a row is longer than 3 MiB");
	}
	q->nr_values += q->nr_columns;
	q->nr_rows++;
	q->rows_given++;
	return HISTORY_OK;
}

/* Offsets become pointers once the page does not move any more. */
static void place_bytes(struct history_query *q)
{
	for (size_t i = 0; i < q->nr_values; i++) {
		struct history_value *v = &q->values[i];

		if (v->type == VALUE_TEXT || v->type == VALUE_BLOB) {
			v->bytes = q->bytes + v->integer;
			v->integer = 0;
		}
	}
}

/* Steps until the page is full or the rows end. */
static void fill_page(struct history_query *q)
{
	size_t limit = q->options.page_bytes;

	while (q->nr_bytes + q->nr_values * sizeof(*q->values) < limit || q->nr_rows == 0) {
		int rc = sqlite3_step(q->st);

		if (rc == SQLITE_DONE) {
			q->finished = true;
			return;
		}
		if (rc != SQLITE_ROW) {
			fail_sqlite(q, rc);
			return;
		}
		if (q->rows_given == q->options.row_limit) {
			q->truncated = q->finished = true;
			return;
		}
		if (read_row(q))
			return;
		/* A cheap scan could fill a page without ever being asked for progress. */
		if (progress(q)) {
			fail_sqlite(q, SQLITE_INTERRUPT);
			return;
		}
	}
}

static void run_page(uv_work_t *work)
{
	struct history_query *q = work->data;

	q->nr_values = q->nr_bytes = 0;
	q->nr_rows = 0;
	if (atomic_load(&q->stop) != HISTORY_OK || uv_hrtime() > q->deadline_ns)
		fail_sqlite(q, SQLITE_INTERRUPT);
	else if (!q->finished && (q->st || open_query(q) == HISTORY_OK))
		fill_page(q);
	if (q->error) {
		q->finished = true;
		q->nr_rows = 0;
	}
	if (q->finished) {
		sqlite3_finalize(q->st);
		q->st = NULL;
		if (q->db) {
			sqlite3_progress_handler(q->db, 0, NULL, NULL);
			sqlite3_set_authorizer(q->db, NULL, NULL);
		}
	}
	place_bytes(q);
}

/* ---- the loop's side ---- */

static void free_query(struct history_query *q)
{
	for (unsigned i = 0; i < q->nr_columns; i++) {
		if (q->names)
			free(q->names[i]);
		if (q->types)
			free(q->types[i]);
	}
	free(q->names);
	free(q->types);
	free(q->values);
	free(q->bytes);
	for (unsigned i = 0; i < q->options.nr_parameters; i++)
		free((void *)q->options.parameters[i].bytes);
	free((void *)q->options.parameters);
	free((void *)q->options.sql);
	free(q);
}

static void end_query(struct history_query *q)
{
	struct history *h = q->h;
	struct history_query **at = &h->queries;

	history_give_reader_back(h, q->db, q->error);
	while (*at != q)
		at = &(*at)->next;
	*at = q->next;
	if (--h->nr_queries == 0)
		uv_timer_stop(h->deadline_timer);
	q->options.done(q->options.user, q->error, q->truncated, q->message);
	free_query(q);
}

static void page_done(uv_work_t *work, int status)
{
	struct history_query *q = work->data;
	struct history *h = q->h;

	(void)status; /* never cancelled: a query ends by its own last run */
	h->nr_running--;
	if (!q->error && !q->announced) {
		q->announced = true;
		q->options.columns(q->options.user, q->nr_columns, (const char *const *)q->names,
				   (const char *const *)q->types);
	}
	if (q->nr_rows) {
		q->state = QUERY_WAITING;
		q->in_callback = true;
		q->continued = false;
		q->options.page(q->options.user, q->values, q->nr_rows, q->nr_columns);
		q->in_callback = false;
		/* Only now may a worker write over the page again. */
		if (q->continued || atomic_load(&q->stop) != HISTORY_OK)
			q->state = QUERY_QUEUED;
	} else {
		end_query(q);
	}
	query_pump(h);
}

void query_pump(struct history *h)
{
	bool long_wal = history_wal_bytes(h) * 2 >= h->options.wal_limit_bytes;
	struct history_query *q, *oldest;

	while (h->nr_running < QUERY_WORKERS) {
		/* The list has the newest first. One that has begun goes on, so that it
		 * ends and the WAL can start again; so does one that must end. */
		oldest = NULL;
		for (q = h->queries; q; q = q->next) {
			if (q->state == QUERY_QUEUED &&
			    (!long_wal || q->st || q->finished || atomic_load(&q->stop)))
				oldest = q;
		}
		if (!oldest)
			return;
		if (!oldest->db)
			oldest->db = history_take_reader(h);
		oldest->state = QUERY_RUNNING;
		h->nr_running++;
		uv_queue_work(h->options.loop, &oldest->work, run_page, page_done);
	}
}

static void stop_query(struct history_query *q, int error)
{
	int none = HISTORY_OK;

	atomic_compare_exchange_strong(&q->stop, &none, error);
	if (q->state == QUERY_WAITING && !q->in_callback)
		q->state = QUERY_QUEUED;
}

void query_stop_all(struct history *h, int error)
{
	for (struct history_query *q = h->queries; q; q = q->next)
		stop_query(q, error);
	query_pump(h);
}

/* Ends queries whose time is over while nobody takes their pages. Runs only while
 * there are queries. */
static void check_deadlines(uv_timer_t *timer)
{
	struct history *h = timer->data;
	uint64_t now = uv_hrtime();

	for (struct history_query *q = h->queries; q; q = q->next) {
		if (now > q->deadline_ns)
			stop_query(q, HISTORY_TIMEOUT);
	}
	query_pump(h);
}

static bool copy_options(struct history_query *q, const struct history_query_options *options)
{
	struct history_value *copies = calloc(options->nr_parameters + 1, sizeof(*copies));

	q->options = *options;
	q->options.nr_parameters = 0;
	q->options.parameters = copies;
	q->options.sql = strdup(options->sql);
	if (!copies || !q->options.sql)
		return false;
	for (unsigned i = 0; i < options->nr_parameters; i++) {
		const struct history_value *v = &options->parameters[i];

		copies[i] = *v;
		copies[i].bytes = NULL;
		q->options.nr_parameters++;
		if (v->type == VALUE_TEXT || v->type == VALUE_BLOB) {
			uint8_t *bytes = malloc(v->length + 1);

			if (!bytes)
				return false;
			if (v->length)
				memcpy(bytes, v->bytes, v->length);
			copies[i].bytes = bytes;
		}
	}
	return true;
}

int history_query_start(struct history *h, const struct history_query_options *options,
			struct history_query **ret)
{
	struct history_query *q;
	uint32_t timeout_ms = options->timeout_ms, most_ms = h->options.query_timeout_ms;

	if (h->closing || !h->options.loop)
		return HISTORY_ABORTED;
	if (h->nr_queries == QUERIES_MAX)
		return HISTORY_BUSY;
	q = calloc(1, sizeof(*q));
	if (!q)
		return HISTORY_IO;
	if (!copy_options(q, options)) {
		free_query(q);
		return HISTORY_IO;
	}
	q->h = h;
	q->work.data = q;
	q->state = QUERY_QUEUED;
	if (!timeout_ms || timeout_ms > most_ms)
		timeout_ms = most_ms;
	q->deadline_ns = uv_hrtime() + timeout_ms * UINT64_C(1000000);
	if (!q->options.row_limit || q->options.row_limit > h->options.query_row_limit)
		q->options.row_limit = h->options.query_row_limit;
	if (!q->options.page_bytes)
		q->options.page_bytes = PAGE_BYTES;
	q->next = h->queries;
	h->queries = q;
	if (h->nr_queries++ == 0)
		uv_timer_start(h->deadline_timer, check_deadlines, DEADLINE_TICK_MS,
			       DEADLINE_TICK_MS);
	*ret = q;
	query_pump(h);
	return HISTORY_OK;
}

void history_query_continue(struct history_query *q)
{
	if (q->in_callback) {
		q->continued = true;
		return;
	}
	if (q->state != QUERY_WAITING)
		return;
	q->state = QUERY_QUEUED;
	query_pump(q->h);
}

void history_query_cancel(struct history_query *q)
{
	stop_query(q, HISTORY_ABORTED);
	query_pump(q->h);
}
