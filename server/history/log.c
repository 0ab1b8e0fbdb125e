/*
 * log.c - a transaction's frames go into the WAL in one write.
 *
 * SQLite writes each frame of its log in two pieces, 24 bytes of header and then the page, and
 * a turn's transaction is a few frames: up to a quarter of what a commit costs. So the methods
 * of the writer's log are a copy of the VFS's own in which xWrite keeps the frames until the one
 * comes that commits.
 *
 * Invariants:
 *  1. The frame that commits is not kept: when SQLite has written it, all of the transaction
 *     is in the file, or SQLite has been told why not. Readers learn of a transaction after
 *     that, from the index.
 *  2. What SQLite asks of the file sees what SQLite has written: frames that are kept go first.
 *  3. Kept is only what goes on from the end of all that was written. In a transaction that
 *     outgrew the cache SQLite writes pages anew where they are, and, behind the frame that
 *     commits, their headers: these go through.
 */
#include <stdlib.h>
#include <string.h>

#include "history_priv.h"

enum {
	FRAME_HEADER = 24,
	/* In its bytes 4 to 7, big end first: pages in the file, if it is a frame that commits. */
	FRAME_COMMITS = 4,
	/* SQLite's unix VFS writes less than 128 KiB at a time. */
	KEEP_FRAMES = 31,
};

struct wal_log {
	sqlite3_io_methods methods; /* first: the file's, by which the log is found */
	const sqlite3_io_methods *real;
	sqlite3_int64 end; /* of what was written; what is kept comes there */
	bool commits;	   /* the frame whose header came last */
	int kept;
	uint8_t bytes[KEEP_FRAMES * (FRAME_HEADER + HISTORY_PAGE_SIZE)];
};

static struct wal_log *log_of(const sqlite3_file *file)
{
	return (struct wal_log *)(uintptr_t)file->pMethods;
}

static int write_through(struct wal_log *l, sqlite3_file *file, const void *bytes, int length,
			 sqlite3_int64 at)
{
	int rc = l->real->xWrite(file, bytes, length, at);

	/* At 0 is the header of a log that begins anew. */
	if (rc == SQLITE_OK && (at == 0 || at + length > l->end))
		l->end = at + length;
	return rc;
}

/* After an error nothing is kept either: the transaction has failed. */
static int write_kept(struct wal_log *l, sqlite3_file *file)
{
	int length = l->kept;

	l->kept = 0;
	return length ? write_through(l, file, l->bytes, length, l->end) : SQLITE_OK;
}

static int log_write(sqlite3_file *file, const void *bytes, int length, sqlite3_int64 at)
{
	struct wal_log *l = log_of(file);
	bool is_header = length == FRAME_HEADER;
	int rc, room = (int)sizeof(l->bytes) - l->kept - length;

	if (at != l->end + l->kept || room < 0 || (!is_header && !l->kept)) {
		rc = write_kept(l, file);
		return rc == SQLITE_OK ? write_through(l, file, bytes, length, at) : rc;
	}
	memcpy(l->bytes + l->kept, bytes, (size_t)length);
	l->kept += length;
	if (is_header)
		l->commits = memcmp((const char *)bytes + FRAME_COMMITS, "\0\0\0", 4) != 0;
	if (is_header || (!l->commits && room >= FRAME_HEADER + length))
		return SQLITE_OK;
	return write_kept(l, file);
}

static int log_read(sqlite3_file *file, void *bytes, int length, sqlite3_int64 at)
{
	int rc = write_kept(log_of(file), file);

	return rc == SQLITE_OK ? log_of(file)->real->xRead(file, bytes, length, at) : rc;
}

static int log_truncate(sqlite3_file *file, sqlite3_int64 size)
{
	int rc = write_kept(log_of(file), file);

	return rc == SQLITE_OK ? log_of(file)->real->xTruncate(file, size) : rc;
}

static int log_sync(sqlite3_file *file, int flags)
{
	int rc = write_kept(log_of(file), file);

	return rc == SQLITE_OK ? log_of(file)->real->xSync(file, flags) : rc;
}

static int log_size(sqlite3_file *file, sqlite3_int64 *ret)
{
	int rc = write_kept(log_of(file), file);

	return rc == SQLITE_OK ? log_of(file)->real->xFileSize(file, ret) : rc;
}

int log_open(struct history *h, char *err, size_t err_size)
{
	sqlite3_file *file = NULL;

	sqlite3_file_control(h->writer, "main", SQLITE_FCNTL_JOURNAL_POINTER, &file);
	h->log = malloc(sizeof(*h->log));
	if (!h->log || !file || !file->pMethods) {
		snprintf(err, err_size, "%s", h->log ? "the history has no log" : "no memory");
		return HISTORY_IO;
	}
	h->log->methods = *file->pMethods;
	h->log->real = file->pMethods;
	h->log->end = 0;
	h->log->kept = 0;
	h->log->methods.xWrite = log_write;
	h->log->methods.xRead = log_read;
	h->log->methods.xTruncate = log_truncate;
	h->log->methods.xSync = log_sync;
	h->log->methods.xFileSize = log_size;
	file->pMethods = &h->log->methods;
	return HISTORY_OK;
}
