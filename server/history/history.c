/*
 * history.c - opening, closing and keeping the file in order.
 *
 * Invariants:
 *  1. One process at a time has the lock file (flock, so it ends with the process).
 *     It is a file beside the history, because closing any descriptor of the
 *     history itself would drop SQLite's own locks.
 *  2. One connection writes and checkpoints. SQLite before 3.51.3 can corrupt a WAL
 *     that several connections checkpoint, so automatic checkpoints and those on
 *     close are off everywhere, and readers are opened read-only. There is no mmap.
 *  3. A checkpoint never happens inside a commit, and the WAL stays below its limit: wal.c.
 *
 * Not modelled: a foreign writer. It can only wait for us and we, for a second, for
 * it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "history_priv.h"

enum {
	WRITER_CACHE_KIB = 65536,
	READER_CACHE_KIB = 8192,
	WAL_KEEP_BYTES = 64 << 20, /* what a WAL that starts again is cut down to */
};

static const uint64_t disk_check_ns = UINT64_C(50000000);

/* ---- errors ---- */

/* The errno behind an I/O error. sqlite3_system_errno() does not know that of a
 * COMMIT, but the file or its WAL does. */
static int errno_behind(sqlite3 *db)
{
	sqlite3_file *wal = NULL;
	int number = sqlite3_system_errno(db);

	if (!number)
		sqlite3_file_control(db, "main", SQLITE_FCNTL_LAST_ERRNO, &number);
	if (!number)
		sqlite3_file_control(db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &wal);
	if (wal && wal->pMethods)
		wal->pMethods->xFileControl(wal, SQLITE_FCNTL_LAST_ERRNO, &number);
	return number;
}

int history_map_error(sqlite3 *db, int rc, const char *doing, char *err, size_t err_size)
{
	int system_error = db && (rc & 0xff) == SQLITE_IOERR ? errno_behind(db) : 0;

	snprintf(err, err_size, "%s: %s%s%s", doing, db ? sqlite3_errmsg(db) : sqlite3_errstr(rc),
		 system_error ? ": " : "", system_error ? strerror(system_error) : "");
	switch (rc & 0xff) {
	case SQLITE_FULL: return HISTORY_FULL;
	case SQLITE_CORRUPT: return HISTORY_CORRUPT;
	case SQLITE_NOTADB: return HISTORY_CORRUPT;
	case SQLITE_INTERRUPT: return HISTORY_ABORTED;
	case SQLITE_IOERR:
		if (system_error == ENOSPC || system_error == EDQUOT || system_error == EFBIG)
			return HISTORY_FULL;
		return HISTORY_IO;
	default: return HISTORY_IO;
	}
}

/* ---- opening ---- */

static int take_lock(struct history *h, char *err, size_t err_size)
{
	char *path = sqlite3_mprintf("%s.lock", h->path);
	char pid[24] = "";
	int error = HISTORY_OK;

	h->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (h->lock_fd < 0) {
		snprintf(err, err_size, "%s: %s", path, strerror(errno));
		error = HISTORY_IO;
	} else if (flock(h->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		ssize_t n = read(h->lock_fd, pid, sizeof(pid) - 1);

		pid[n > 0 ? n : 0] = '\0';
		pid[strcspn(pid, "\n")] = '\0';
		snprintf(err, err_size, "%s: another daemon (process %s) has this history", path,
			 pid[0] ? pid : "unknown");
		error = HISTORY_LOCKED;
	} else {
		/* For the message above only; flock is what counts. */
		int n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());

		if (ftruncate(h->lock_fd, 0) < 0 || pwrite(h->lock_fd, pid, (size_t)n, 0) < 0) {
			snprintf(err, err_size, "%s: %s", path, strerror(errno));
			error = errno == ENOSPC ? HISTORY_FULL : HISTORY_IO;
		}
	}
	sqlite3_free(path);
	return error;
}

static int wal_hook(void *arg, sqlite3 *db, const char *schema, int pages)
{
	struct history *h = arg;

	(void)db;
	(void)schema;
	/* Fewer frames than there were: the WAL has begun anew. */
	if ((uint64_t)pages < h->wal_pages)
		h->wal_done = h->mover.tried = h->mover.steps = 0;
	h->wal_pages = (uint64_t)pages;
	return SQLITE_OK;
}

/* Opens the file for writing, with the mode that history.h promises. */
static int open_writer(struct history *h, char *err, size_t err_size)
{
	int fd = open(h->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	int rc;

	if (fd < 0) {
		snprintf(err, err_size, "%s: %s", h->path, strerror(errno));
		return HISTORY_IO;
	}
	close(fd); /* SQLite has no lock to lose yet */
	rc = sqlite3_open_v2(h->path, &h->writer,
			     SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE,
			     NULL);
	if (rc != SQLITE_OK)
		return history_map_error(h->writer, rc, h->path, err, err_size);
	sqlite3_busy_timeout(h->writer, BUSY_TIMEOUT_MS);
	sqlite3_db_config(h->writer, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	return HISTORY_OK;
}

static int configure_writer(struct history *h, char *err, size_t err_size)
{
	char *sql = sqlite3_mprintf(
	    "PRAGMA journal_mode = WAL; PRAGMA synchronous = %s; PRAGMA wal_autocheckpoint = 0;"
	    "PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -%d;"
	    "PRAGMA journal_size_limit = %d; PRAGMA foreign_keys = OFF",
	    h->options.sync == HISTORY_SYNC_FULL ? "FULL" : "NORMAL", WRITER_CACHE_KIB,
	    WAL_KEEP_BYTES);
	int rc = sqlite3_exec(h->writer, sql, NULL, NULL, NULL);

	sqlite3_free(sql);
	if (rc != SQLITE_OK)
		return history_map_error(h->writer, rc, "setting the file up", err, err_size);
	sqlite3_wal_hook(h->writer, wal_hook, h);
	return HISTORY_OK;
}

int history_open_reader(const struct history *h, sqlite3 **ret, char *err, size_t err_size)
{
	sqlite3 *db = NULL;
	int rc = sqlite3_open_v2(
	    h->path, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE,
	    NULL);
	char sql[64];
	int error;

	if (rc == SQLITE_OK) {
		sqlite3_busy_timeout(db, BUSY_TIMEOUT_MS);
		sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
		sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
		snprintf(sql, sizeof(sql), "PRAGMA mmap_size = 0; PRAGMA cache_size = -%d",
			 READER_CACHE_KIB);
		rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
	}
	if (rc == SQLITE_OK) {
		*ret = db;
		return HISTORY_OK;
	}
	error = history_map_error(db, rc, "opening the history to read", err, err_size);
	sqlite3_close(db);
	return error;
}

sqlite3 *history_take_reader(struct history *h)
{
	return h->nr_idle_readers ? h->idle_readers[--h->nr_idle_readers] : NULL;
}

/* Keeps the connection, unless it is one too many or may be what failed. */
void history_give_reader_back(struct history *h, sqlite3 *db, int error)
{
	bool sound = error != HISTORY_IO && error != HISTORY_CORRUPT;

	if (db && sound && h->nr_idle_readers < IDLE_READERS)
		h->idle_readers[h->nr_idle_readers++] = db;
	else
		sqlite3_close(db);
}

static int open_timer(struct history *h)
{
	if (!h->options.loop)
		return HISTORY_OK; /* a tool that only writes or replays */
	h->deadline_timer = calloc(1, sizeof(*h->deadline_timer));
	if (!h->deadline_timer)
		return HISTORY_IO;
	uv_timer_init(h->options.loop, h->deadline_timer);
	h->deadline_timer->data = h;
	return HISTORY_OK;
}

/* Before there is anything in it. */
static int make_giving_back(struct history *h, char *err, size_t err_size)
{
	int rc = sqlite3_exec(h->writer, "PRAGMA auto_vacuum = INCREMENTAL", NULL, NULL, NULL);

	if (rc == SQLITE_OK)
		return HISTORY_OK;
	return history_map_error(h->writer, rc, "setting the file up", err, err_size);
}

static int open_file(struct history *h, char *err, size_t err_size)
{
	bool fresh = false;
	int error = open_writer(h, err, err_size);

	if (!error)
		error = schema_recognise(h->writer, &fresh, err, err_size);
	if (!error && fresh && h->options.gives_back)
		error = make_giving_back(h, err, err_size);
	if (!error && fresh)
		error = schema_create(h->writer, err, err_size);
	else if (!error)
		error = schema_migrate(h->writer, err, err_size);
	if (!error)
		error = configure_writer(h, err, err_size);
	if (!error)
		error = wal_open(h, err, err_size);
	if (!error)
		error = schema_refresh(h->writer, err, err_size);
	if (!error)
		error = log_open(h, err, err_size);
	if (!error)
		error = history_open_reader(h, &h->reader, err, err_size);
	if (!error)
		error = replay_load(h, err, err_size);
	if (!error)
		error = checkpoint_load(h, err, err_size);
	if (!error)
		error = prune_load(h, err, err_size);
	if (!error)
		error = journal_open(h, err, err_size);
	return error;
}

static void release(struct history *h)
{
	journal_close(h);
	history_reader_close(h->loop_reader);
	sqlite3_close(h->reader);
	sqlite3_close(h->writer);
	free(h->log);
	if (h->lock_fd >= 0)
		close(h->lock_fd); /* gives the lock back; the file stays, or two could have it */
	sqlite3_free(h->path);
	sqlite3_free(h->wal_path);
	sqlite3_free(h->shm_path);
	free(h->scratch);
	free(h->ends);
	free(h->saved);
	free(h->rubbish);
	free(h);
}

int history_open(const struct history_options *options, struct history **ret, char *err,
		 size_t err_size)
{
	struct history *h = calloc(1, sizeof(*h));
	int error = HISTORY_OK;

	if (!h) {
		snprintf(err, err_size, "no memory");
		return HISTORY_IO;
	}
	h->lock_fd = -1;
	h->options = *options;
	h->path = sqlite3_mprintf("%s", options->path);
	h->wal_path = sqlite3_mprintf("%s-wal", options->path);
	h->shm_path = sqlite3_mprintf("%s-shm", options->path);
	h->options.path = h->path;
	if (!h->options.disk_reserve_bytes)
		h->options.disk_reserve_bytes = UINT64_C(64) << 20;
	if (!h->options.wal_limit_bytes)
		h->options.wal_limit_bytes = UINT64_C(256) << 20;
	if (!h->options.query_timeout_ms)
		h->options.query_timeout_ms = 10000;
	if (!h->options.query_row_limit)
		h->options.query_row_limit = 1000000;
	if (!h->path || !h->wal_path || !h->shm_path) {
		snprintf(err, err_size, "no memory");
		error = HISTORY_IO;
	}
	if (!error)
		error = take_lock(h, err, err_size);
	if (!error)
		error = open_file(h, err, err_size);
	if (!error && open_timer(h)) {
		snprintf(err, err_size, "no memory");
		error = HISTORY_IO;
	}
	if (error) {
		release(h);
		return error;
	}
	*ret = h;
	return HISTORY_OK;
}

/* ---- the disk ---- */

static int disk_ready(struct history *h, char *err, size_t err_size)
{
	uint64_t now = uv_hrtime();

	if (!h->last_disk_check_ns || now - h->last_disk_check_ns >= disk_check_ns) {
		struct statvfs fs;

		h->last_disk_check_ns = now;
		h->disk_state = HISTORY_OK;
		if (statvfs(h->path, &fs) == 0) {
			h->disk_free = (uint64_t)fs.f_bavail * fs.f_frsize;
			if (h->disk_free < h->options.disk_reserve_bytes)
				h->disk_state = HISTORY_FULL;
		}
	}
	if (h->disk_state)
		snprintf(err, err_size, "%s: %llu bytes are free, the reserve is %llu", h->path,
			 (unsigned long long)h->disk_free,
			 (unsigned long long)h->options.disk_reserve_bytes);
	return h->disk_state;
}

int history_ready(struct history *h, char *err, size_t err_size)
{
	int error = disk_ready(h, err, err_size);

	return error ? error : wal_ready(h, err, err_size);
}

/* ---- closing ---- */

static void timer_closed(uv_handle_t *timer)
{
	((struct history *)timer->data)->deadline_timer = NULL;
	free(timer);
}

void history_close(struct history *h)
{
	char err[HISTORY_ERROR_LENGTH];

	if (!h)
		return;
	h->closing = true;
	/* A turn that was not committed was not acknowledged either: that it fails now
	 * is no one's loss. */
	history_commit(h, err, sizeof(err));
	query_stop_all(h, HISTORY_ABORTED);
	tail_stop_all(h);
	while (h->nr_queries || h->nr_tails)
		uv_run(h->options.loop, UV_RUN_ONCE);
	if (h->deadline_timer)
		uv_close((uv_handle_t *)h->deadline_timer, timer_closed);
	while (h->deadline_timer)
		uv_run(h->options.loop, UV_RUN_ONCE);
	while (h->nr_idle_readers)
		sqlite3_close(history_take_reader(h));
	wal_close(h);
	/* The readers first: the checkpoint is then alone with the WAL. */
	history_reader_close(h->loop_reader);
	h->loop_reader = NULL;
	sqlite3_close(h->reader);
	h->reader = NULL;
	wal_truncate(h);
	release(h);
}
