/*
 * wal.c - the write-ahead log's way into the file, and its limit.
 *
 * SQLite copies the log into the file in one go: sync the log, copy, sync the file. Eight
 * MiB of that stop the loop for 30 ms. So it is done in small steps, the slow ones in a
 * thread of the pool:
 *
 *   PIN     a reader of our own (the pin) takes a snapshot of the log's first K frames
 *   thread  sync the log
 *   COPY    a checkpoint, which stops at K because of the pin; then pin anew, from PIN on
 *   ...     until the log is long enough to begin anew. Then, with the pin still at K:
 *   thread  sync the file
 *   LAST    the pin goes; an ordinary checkpoint syncs and copies the little that is left,
 *           and the next write begins the log anew
 *
 * It is SQLite's own order, and as safe:
 *  1. Frames are copied only when the log up to them is durable: COPY goes no further than
 *     K, and the log was synced after it had K frames.
 *  2. The log begins anew only when the file is durable. While there is a pin it cannot
 *     begin anew at all, and the pin goes only in LAST, whose checkpoint syncs the file after
 *     the last of its copies; or, between turns, to be taken again before anything is written.
 *  3. So COPY needs no sync of its own, and is made with synchronous off. What it copied and
 *     a power cut loses is in the log still. Until the file has been synced it `is_dirty`, and
 *     nothing but a sync lets the pin go: SQLite, which has nothing left to copy, would not
 *     think of one. A daemon that was killed leaves such a file to the next: wal_open().
 *  4. The name of the log is durable: the first checkpoint after the file was opened is an
 *     ordinary one, by the connection that made it.
 * Without a loop the steps are the same, one after the other.
 *
 * The limit: from a half of it no query is begun, from three quarters ours are cut off; a
 * foreign reader cannot be, and at the limit ops are refused with its name.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "history_priv.h"

enum {
	/* What one step copies is what was written since the last, this or more. Measured:
	 * 3 us a frame. */
	STEP_BYTES = 2 << 20,
	/* From here on the log is to begin anew, which takes two syncs on the loop: 10 to 20 ms,
	 * so it should be rare. */
	RESTART_BYTES = 64 << 20,
	/* As soon as no more than this is left to be copied, or after some steps. */
	REST_BYTES = 1 << 20,
	REST_STEPS = 4,
};

static const uint64_t idle_ns = UINT64_C(1000000000);
static const uint64_t truncate_ns = UINT64_C(50000000);

uint64_t history_wal_bytes(const struct history *h)
{
	return h->wal_pages * HISTORY_PAGE_SIZE;
}

/* The same part of a small limit as of the usual one, which is 256 MiB. */
static uint64_t scaled(const struct history *h, uint64_t bytes)
{
	uint64_t part = h->options.wal_limit_bytes / ((256 << 20) / bytes);

	return part < bytes ? part : bytes;
}

/* ---- the pin ---- */

static int pin(struct history *h)
{
	char err[HISTORY_ERROR_LENGTH];
	struct wal_mover *w = &h->mover;
	int rc;

	if (!w->pin && history_open_reader(h, &w->pin, err, sizeof(err)))
		return SQLITE_ERROR;
	/* In this order, and nothing in between: invariant 2. */
	if (w->is_pinned)
		sqlite3_exec(w->pin, "COMMIT", NULL, NULL, NULL);
	rc = sqlite3_exec(w->pin, "BEGIN; SELECT 1 FROM meta", NULL, NULL, NULL);
	w->is_pinned = rc == SQLITE_OK;
	if (!w->is_pinned && !sqlite3_get_autocommit(w->pin))
		sqlite3_exec(w->pin, "ROLLBACK", NULL, NULL, NULL);
	w->frames = h->wal_pages;
	return rc;
}

static void unpin(struct history *h)
{
	if (h->mover.is_pinned)
		sqlite3_exec(h->mover.pin, "COMMIT", NULL, NULL, NULL);
	h->mover.is_pinned = false;
}

/* ---- steps ---- */

static void step_done(struct history *h);

/* In the thread, which alone uses the pin meanwhile; its descriptors are its own. */
static void run(uv_work_t *work)
{
	struct history *h = work->data;
	struct wal_mover *w = &h->mover;
	sqlite3_file *file = NULL;
	int op = w->step == MOVER_LOG ? SQLITE_FCNTL_JOURNAL_POINTER : SQLITE_FCNTL_FILE_POINTER;

	w->rc = sqlite3_file_control(w->pin, "main", op, &file);
	if (w->rc == SQLITE_OK)
		w->rc = file && file->pMethods ? file->pMethods->xSync(file, SQLITE_SYNC_NORMAL)
					       : SQLITE_IOERR;
}

static void over(uv_work_t *work, int status)
{
	(void)status; /* Nobody cancels it. */
	step_done(work->data);
}

static void sync_in_thread(struct history *h, enum mover_step step)
{
	h->mover.step = step;
	h->mover.work.data = h;
	if (!h->options.loop) {
		run(&h->mover.work);
		step_done(h);
	} else if (uv_queue_work(h->options.loop, &h->mover.work, run, over)) {
		abort(); /* it refuses nothing but a missing function */
	}
}

static int passive(struct history *h)
{
	int pages = 0, done = 0;
	int rc =
	    sqlite3_wal_checkpoint_v2(h->writer, NULL, SQLITE_CHECKPOINT_PASSIVE, &pages, &done);

	if (rc == SQLITE_OK)
		h->wal_done = done > 0 ? (uint64_t)done : 0;
	return rc;
}

static bool sync_file(struct history *h)
{
	sqlite3_file *file = NULL;

	sqlite3_file_control(h->writer, "main", SQLITE_FCNTL_FILE_POINTER, &file);
	if (!file || !file->pMethods ||
	    file->pMethods->xSync(file, SQLITE_SYNC_NORMAL) != SQLITE_OK)
		return false;
	h->mover.is_dirty = false;
	return true;
}

/* A failure (a full disk) loses nothing: the log still has it. */
static void copy(struct history *h)
{
	h->mover.is_dirty = true;
	sqlite3_exec(h->writer, "PRAGMA synchronous = OFF", NULL, NULL, NULL);
	passive(h);
	sqlite3_exec(h->writer,
		     h->options.sync == HISTORY_SYNC_FULL ? "PRAGMA synchronous = FULL"
							  : "PRAGMA synchronous = NORMAL",
		     NULL, NULL, NULL);
}

/* An ordinary checkpoint: SQLite syncs the log, copies, and syncs the file if it has all. */
static void checkpoint(struct history *h)
{
	h->mover.tried = h->wal_pages;
	h->mover.steps = 0;
	if (h->mover.is_dirty && !sync_file(h))
		return;
	unpin(h);
	if (passive(h) == SQLITE_OK && h->wal_done)
		h->mover.is_named = true;
}

static bool is_to_restart(const struct history *h)
{
	uint64_t rest = (h->wal_pages - h->wal_done) * HISTORY_PAGE_SIZE;

	return history_wal_bytes(h) >= scaled(h, RESTART_BYTES) && h->wal_done >= h->mover.frames &&
	       (rest <= scaled(h, REST_BYTES) || h->mover.steps >= REST_STEPS);
}

static void step_done(struct history *h)
{
	struct wal_mover *w = &h->mover;
	enum mover_step step = w->step;

	w->step = MOVER_IDLE;
	/* Who waits for the end of this waits in history_close(), and checkpoints itself. */
	if (w->rc != SQLITE_OK || h->closing || h->journal.in_transaction)
		return;
	if (step == MOVER_FILE) {
		w->is_dirty = false;
		checkpoint(h);
		return;
	}
	copy(h);
	if (history_wal_bytes(h) >= scaled(h, RESTART_BYTES))
		w->steps++;
	if (is_to_restart(h))
		sync_in_thread(h, MOVER_FILE);
}

/* The next step, if there is one to be made. */
static void move_on(struct history *h)
{
	struct wal_mover *w = &h->mover;

	if (w->step != MOVER_IDLE ||
	    (h->wal_pages - w->tried) * HISTORY_PAGE_SIZE < scaled(h, STEP_BYTES))
		return;
	w->tried = h->wal_pages;
	if (!w->is_named)
		checkpoint(h);
	else if (pin(h) == SQLITE_OK)
		sync_in_thread(h, MOVER_LOG);
}

void wal_committed(struct history *h)
{
	/* Without a loop, or for the first time, a step takes as long as it takes. */
	if (h->options.loop && h->mover.is_named)
		move_on(h);
}

void history_idle(struct history *h)
{
	bool idle = uv_hrtime() - h->last_commit_ns >= idle_ns;

	if (h->journal.in_transaction)
		return;
	if (!idle)
		move_on(h);
	else if (h->wal_pages > h->wal_done && h->mover.step == MOVER_IDLE)
		checkpoint(h);
	if (history_wal_bytes(h) * 4 >= h->options.wal_limit_bytes * 3)
		query_stop_all(h, HISTORY_WAL);
	query_pump(h);
}

/* ---- the limit ---- */

bool wal_truncate(struct history *h)
{
	int rc;

	if (h->mover.step != MOVER_IDLE || (h->mover.is_dirty && !sync_file(h)))
		return false;
	unpin(h);
	sqlite3_busy_timeout(h->writer, 0);
	rc = sqlite3_wal_checkpoint_v2(h->writer, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
	sqlite3_busy_timeout(h->writer, BUSY_TIMEOUT_MS);
	if (rc != SQLITE_OK)
		return false;
	h->wal_pages = h->wal_done = h->mover.tried = 0;
	return true;
}

/* Names the processes, other than this one, that hold a lock of the WAL's readers.
 * /proc/locks rather than F_GETLK: opening and closing the -shm file here would
 * drop SQLite's own locks on it. */
static void name_foreign_readers(const struct history *h, char *names, size_t size)
{
	FILE *locks = fopen("/proc/locks", "re");
	struct stat st;
	char line[256], comm[64];
	size_t used = 0;

	names[0] = '\0';
	if (locks && stat(h->shm_path, &st) == 0) {
		while (fgets(line, sizeof(line), locks) && used < size) {
			char inode[24], pid[16], path[64];
			FILE *f;

			/* "1: POSIX  ADVISORY  READ 4242 fe:00:1051 123 123" */
			if (sscanf(line, "%*u: %*s %*s %*s %15s %*x:%*x:%23s", pid, inode) != 2 ||
			    strtoull(inode, NULL, 10) != st.st_ino ||
			    strtol(pid, NULL, 10) == getpid() || strtol(pid, NULL, 10) <= 0)
				continue;
			snprintf(path, sizeof(path), "/proc/%s/comm", pid);
			f = fopen(path, "re");
			if (!f || !fgets(comm, sizeof(comm), f))
				snprintf(comm, sizeof(comm), "?");
			if (f)
				fclose(f);
			comm[strcspn(comm, "\n")] = '\0';
			used += (size_t)snprintf(names + used, size - used, "%s%s (%s)",
						 used ? ", " : "", pid, comm);
		}
	}
	if (locks)
		fclose(locks);
}

int wal_ready(struct history *h, char *err, size_t err_size)
{
	uint64_t now = uv_hrtime();
	char names[128];

	if (history_wal_bytes(h) < h->options.wal_limit_bytes)
		return HISTORY_OK;
	if (now - h->last_truncate_ns >= truncate_ns) {
		h->last_truncate_ns = now;
		query_stop_all(h, HISTORY_WAL);
		if (wal_truncate(h))
			return HISTORY_OK;
	}
	name_foreign_readers(h, names, sizeof(names));
	snprintf(err, err_size,
		 "%s has reached its limit of %llu bytes: a reader holds it%s%s; end that reader",
		 h->wal_path, (unsigned long long)h->options.wal_limit_bytes,
		 names[0] ? ", process " : "", names);
	return HISTORY_WAL;
}

/* ---- the beginning and the end ---- */

int wal_open(struct history *h, char *err, size_t err_size)
{
	if (sync_file(h))
		return HISTORY_OK;
	return history_map_error(h->writer, SQLITE_IOERR_FSYNC, "syncing the file", err, err_size);
}

void wal_close(struct history *h)
{
	while (h->mover.step != MOVER_IDLE)
		uv_run(h->options.loop, UV_RUN_ONCE);
	unpin(h);
	sqlite3_close(h->mover.pin);
	h->mover.pin = NULL;
}
