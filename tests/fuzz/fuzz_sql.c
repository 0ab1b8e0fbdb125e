/*
 * fuzz_sql.c - any text as a question to the history: it is answered or refused, and that is
 * all that happens.
 *
 * One history for all tries, with a machine and some ops in it. After each question the file is
 * what it was, nothing lies beside it that did not before, and no more was given than may be.
 */
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "contract_tables.h"
#include "fuzz.h"
#include "history.h"

enum { ROWS = 50, PAGE_BYTES = 1 << 16, VALUE_MAX = 2 << 20, TIMEOUT_MS = 200, OPS = 40 };

static char folder[] = "/tmp/zoned-fuzz.XXXXXX", path[64];
static uv_loop_t loop;
static struct history *history;

/* ---- what must stay ---- */

struct snapshot {
	unsigned files;
	uint64_t hash;
};

static uint64_t add_file(uint64_t hash, const char *name)
{
	static uint8_t bytes[1 << 16];
	FILE *f = fopen(name, "rb");
	size_t n;

	FUZZ_CHECK(f);
	while ((n = fread(bytes, 1, sizeof bytes, f)) > 0)
		for (size_t i = 0; i < n; i += 8) {
			uint64_t word = 0;

			memcpy(&word, bytes + i, n - i < 8 ? n - i : 8);
			hash = (hash ^ word) * UINT64_C(0x100000001b3);
		}
	fclose(f);
	return hash;
}

/* The history's file and its log, byte by byte; not the index of the log, where readers write
 * that they read. And the names in the folder, in which we stand while it is asked. */
static struct snapshot look(void)
{
	struct snapshot s = {0};
	DIR *d = opendir(folder);
	char wal[80];

	snprintf(wal, sizeof wal, "%s-wal", path);
	s.hash = add_file(add_file(0, path), wal);
	FUZZ_CHECK(d);
	while (readdir(d))
		s.files++;
	closedir(d);
	return s;
}

/* ---- the history ---- */

static void fill(void)
{
	static const struct engine_config config = {.ram = UINT64_C(1) << 30, .cpus = 1};
	uint64_t machine = history_add_machine(history, "m0", "sim", &config, 0, 0, false, 1000);
	char err[512];

	for (uint64_t op = 1; op <= OPS; op++) {
		const struct engine_event e = {.kind = EVENT_ALLOC,
					       .w = {(uint32_t)op, 0, GFP_KERNEL, ZONE_NORMAL, 1}};
		const struct history_record r = {.machine = machine,
						 .op = op,
						 .time_ns = (int64_t)op,
						 .code = OP_ALLOC_PAGES,
						 .args = {GFP_KERNEL},
						 .values = {op, ZONE_NORMAL, 1},
						 .data = (const uint8_t *)"data",
						 .data_len = 4,
						 .events = &e,
						 .nr_events = 1};

		history_append(history, &r);
	}
	FUZZ_CHECK(history_commit(history, err, sizeof err) == HISTORY_OK);
}

static void close_history(void)
{
	static const char *const suffixes[] = {"", "-wal", "-shm", ".lock"};
	char name[96];

	history_close(history);
	for (unsigned i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
		snprintf(name, sizeof name, "%s%s", path, suffixes[i]);
		unlink(name);
	}
	rmdir(folder);
}

static void open_history(void)
{
	struct history_options options = {
	    .path = path, .loop = &loop, .query_row_limit = ROWS, .query_timeout_ms = TIMEOUT_MS};
	char err[512] = "";

	FUZZ_CHECK(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/h.db", folder);
	FUZZ_CHECK(uv_loop_init(&loop) == 0);
	FUZZ_CHECK(history_open(&options, &history, err, sizeof err) == HISTORY_OK);
	fill();
	atexit(close_history);
}

/* ---- a question ---- */

struct question {
	struct history_query *query;
	uint64_t rows, sum; /* of the bytes given: they are read */
	unsigned nr_columns;
	bool done;
};

static void on_columns(void *user, unsigned nr, const char *const names[],
		       const char *const types[])
{
	struct question *q = user;

	q->nr_columns = nr;
	for (unsigned i = 0; i < nr; i++)
		FUZZ_CHECK(names[i] && types[i]);
}

static void on_page(void *user, const struct history_value *values, unsigned nr_rows,
		    unsigned nr_columns)
{
	struct question *q = user;

	FUZZ_CHECK(nr_columns == q->nr_columns && nr_rows > 0);
	q->rows += nr_rows;
	FUZZ_CHECK(q->rows <= ROWS);
	for (size_t i = 0; i < (size_t)nr_rows * nr_columns; i++) {
		const struct history_value *v = &values[i];

		if (v->type != VALUE_TEXT && v->type != VALUE_BLOB)
			continue;
		FUZZ_CHECK(v->length <= VALUE_MAX);
		for (size_t k = 0; k < v->length; k++)
			q->sum += v->bytes[k];
	}
	history_query_continue(q->query);
}

static void on_done(void *user, int error, bool truncated, const char *message)
{
	struct question *q = user;

	FUZZ_CHECK(!q->done);
	FUZZ_CHECK(error == HISTORY_OK || error == HISTORY_SQL || error == HISTORY_TIMEOUT);
	FUZZ_CHECK(error == HISTORY_OK || (message && *message));
	FUZZ_CHECK(!truncated || q->rows == ROWS);
	q->done = true;
}

static void ask(const char *sql)
{
	const struct history_value parameters[] = {{.type = VALUE_INTEGER, .integer = 1}};
	struct question q = {0};
	struct history_query_options options = {.sql = sql,
						.parameters = parameters,
						.nr_parameters = strchr(sql, '?') != NULL,
						.page_bytes = PAGE_BYTES,
						.user = &q,
						.columns = on_columns,
						.page = on_page,
						.done = on_done};

	if (history_query_start(history, &options, &q.query))
		return; /* it is too long */
	while (!q.done)
		uv_run(&loop, UV_RUN_ONCE);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	char *sql = malloc(length + 1);
	struct snapshot before, after;
	int home = open(".", O_PATH | O_DIRECTORY);

	FUZZ_CHECK(home >= 0);
	FUZZ_CHECK(sql);
	if (length)
		memcpy(sql, bytes, length);
	sql[length] = '\0';
	if (!history)
		open_history();
	FUZZ_CHECK(chdir(folder) == 0);
	before = look();
	ask(sql);
	after = look();
	FUZZ_CHECK(fchdir(home) == 0);
	close(home);
	FUZZ_CHECK(after.hash == before.hash && after.files == before.files);
	free(sql);
	return 0;
}
