/*
 * disk.c - the VFS, and what a power cut leaves.
 *
 * Invariants:
 *  1. A node's `durable` bytes are those of its last sync. `changes` are the writes and
 *     truncations since, in order; applied to `durable` they give the real file.
 *  2. With the power off nothing reaches a real file, so (1) still tells what the cut
 *     found.
 */
#include "disk.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "place.h"

enum { SECTOR = 512, NODES = 16 };

struct change {
	struct change *next;
	uint64_t offset, length; /* a truncation: to `offset`, length 0 */
	bool truncates;
	uint8_t bytes[];
};

struct node {
	char path[256]; /* "": free */
	bool exists;	/* as the program sees it */
	bool synced;	/* its name, too, is on the disk */
	uint64_t size;
	uint8_t *durable;
	uint64_t durable_size;
	struct change *changes, **changes_end;
};

struct file {
	sqlite3_file base;
	struct node *node; /* NULL: a temporary file, which no cut concerns */
	bool is_journal;   /* or a WAL */
	sqlite3_file real; /* and more: the real VFS's own */
};

static struct {
	sqlite3_vfs vfs, *real;
	struct node nodes[NODES];
	enum disk_call kinds;
	uint64_t fail_at; /* calls to go; 0: never */
	bool cuts;	  /* what then fails is the power */
	bool failed, off;
	uint64_t limit;
} disk = {.limit = UINT64_MAX};

/* ---- nodes ---- */

static struct node *node_of(const char *path)
{
	struct node *spare = NULL;

	for (unsigned i = 0; i < NODES; i++) {
		if (strcmp(disk.nodes[i].path, path) == 0)
			return &disk.nodes[i];
		if (!disk.nodes[i].path[0])
			spare = &disk.nodes[i];
	}
	if (!spare)
		abort();
	memset(spare, 0, sizeof *spare);
	snprintf(spare->path, sizeof spare->path, "%s", path);
	spare->changes_end = &spare->changes;
	return spare;
}

static void drop_changes(struct node *n)
{
	while (n->changes) {
		struct change *c = n->changes;

		n->changes = c->next;
		free(c);
	}
	n->changes_end = &n->changes;
}

void disk_forget(void)
{
	for (unsigned i = 0; i < NODES; i++) {
		drop_changes(&disk.nodes[i]);
		free(disk.nodes[i].durable);
		memset(&disk.nodes[i], 0, sizeof disk.nodes[i]);
	}
	disk_fail(DISK_ANY, 0);
	disk.off = false;
}

static void note_change(struct node *n, uint64_t offset, const void *bytes, uint64_t length,
			bool truncates)
{
	struct change *c = malloc(sizeof *c + length);

	if (!c)
		abort();
	*c = (struct change){.offset = offset, .length = length, .truncates = truncates};
	if (length)
		memcpy(c->bytes, bytes, length);
	*n->changes_end = c;
	n->changes_end = &c->next;
	if (truncates)
		n->size = offset;
	else if (offset + length > n->size)
		n->size = offset + length;
}

static void resize_durable(struct node *n, uint64_t size)
{
	uint8_t *durable = realloc(n->durable, size + 1);

	if (!durable)
		abort();
	if (size > n->durable_size)
		memset(durable + n->durable_size, 0, size - n->durable_size);
	n->durable = durable;
	n->durable_size = size;
}

static void make_durable(struct node *n, uint64_t offset, const uint8_t *bytes, uint64_t length)
{
	if (offset + length > n->durable_size)
		resize_durable(n, offset + length);
	memcpy(n->durable + offset, bytes, length);
}

static void sync_node(struct node *n)
{
	for (struct change *c = n->changes; c; c = c->next) {
		if (c->truncates)
			resize_durable(n, c->offset);
		else
			make_durable(n, c->offset, c->bytes, c->length);
	}
	drop_changes(n);
}

/* What is there stays there, and what was deleted is gone. */
static void sync_directory(void)
{
	for (unsigned i = 0; i < NODES; i++) {
		struct node *n = &disk.nodes[i];

		n->synced = n->exists;
		if (!n->exists) {
			drop_changes(n);
			n->durable_size = 0;
		}
	}
}

/* ---- failing ---- */

void disk_fail(enum disk_call kinds, uint64_t n)
{
	disk.kinds = kinds;
	disk.fail_at = n;
	disk.cuts = disk.failed = false;
}

void disk_power_off_at(enum disk_call kinds, uint64_t n)
{
	disk_fail(kinds, n);
	disk.cuts = true;
}

bool disk_has_failed(void)
{
	return disk.failed;
}

void disk_limit(uint64_t bytes)
{
	disk.limit = bytes;
}

uint64_t disk_used(void)
{
	uint64_t used = 0;

	for (unsigned i = 0; i < NODES; i++)
		used += disk.nodes[i].exists ? disk.nodes[i].size : 0;
	return used;
}

static bool fails(enum disk_call kind)
{
	if (disk.off)
		return true;
	if (!(disk.kinds & kind) || !disk.fail_at || --disk.fail_at)
		return false;
	disk.failed = true;
	disk.off = disk.cuts;
	return true;
}

/* ---- a file's methods ---- */

static struct file *self(sqlite3_file *f)
{
	return (struct file *)f;
}

static int file_close(sqlite3_file *f)
{
	return self(f)->real.pMethods->xClose(&self(f)->real);
}

static int file_read(sqlite3_file *f, void *to, int length, sqlite3_int64 offset)
{
	if (self(f)->node && fails(DISK_READ))
		return SQLITE_IOERR_READ;
	return self(f)->real.pMethods->xRead(&self(f)->real, to, length, offset);
}

static int file_write(sqlite3_file *f, const void *from, int length, sqlite3_int64 offset)
{
	struct node *n = self(f)->node;
	uint64_t end = (uint64_t)offset + (uint64_t)length;

	if (n && fails(DISK_WRITE))
		return SQLITE_IOERR_WRITE;
	if (n && end > n->size && disk_used() + end - n->size > disk.limit)
		return SQLITE_FULL;
	if (n)
		note_change(n, (uint64_t)offset, from, (uint64_t)length, false);
	return self(f)->real.pMethods->xWrite(&self(f)->real, from, length, offset);
}

static int file_truncate(sqlite3_file *f, sqlite3_int64 size)
{
	if (self(f)->node && fails(DISK_TRUNCATE))
		return SQLITE_IOERR_TRUNCATE;
	if (self(f)->node)
		note_change(self(f)->node, (uint64_t)size, NULL, 0, true);
	return self(f)->real.pMethods->xTruncate(&self(f)->real, size);
}

/* The real disk need not be asked: ours remembers. */
static int file_sync(sqlite3_file *f, int flags)
{
	struct node *n = self(f)->node;

	(void)flags;
	if (n && fails(DISK_SYNC))
		return SQLITE_IOERR_FSYNC;
	if (n)
		sync_node(n);
	/* SQLite's own VFS syncs the directory with the first sync of a journal or WAL, and
	 * SQLite counts on it. */
	if (n && !n->synced && self(f)->is_journal)
		sync_directory();
	if (n)
		n->synced = true;
	return SQLITE_OK;
}

static int file_size(sqlite3_file *f, sqlite3_int64 *size)
{
	return self(f)->real.pMethods->xFileSize(&self(f)->real, size);
}

static int file_lock(sqlite3_file *f, int level)
{
	return self(f)->real.pMethods->xLock(&self(f)->real, level);
}

static int file_unlock(sqlite3_file *f, int level)
{
	return self(f)->real.pMethods->xUnlock(&self(f)->real, level);
}

static int file_check_lock(sqlite3_file *f, int *ret)
{
	return self(f)->real.pMethods->xCheckReservedLock(&self(f)->real, ret);
}

static int file_control(sqlite3_file *f, int op, void *arg)
{
	return self(f)->real.pMethods->xFileControl(&self(f)->real, op, arg);
}

static int file_sector(sqlite3_file *f)
{
	return self(f)->real.pMethods->xSectorSize(&self(f)->real);
}

static int file_device(sqlite3_file *f)
{
	return self(f)->real.pMethods->xDeviceCharacteristics(&self(f)->real);
}

static int file_shm_map(sqlite3_file *f, int region, int size, int extend, void volatile **ret)
{
	return self(f)->real.pMethods->xShmMap(&self(f)->real, region, size, extend, ret);
}

static int file_shm_lock(sqlite3_file *f, int offset, int n, int flags)
{
	return self(f)->real.pMethods->xShmLock(&self(f)->real, offset, n, flags);
}

static void file_shm_barrier(sqlite3_file *f)
{
	self(f)->real.pMethods->xShmBarrier(&self(f)->real);
}

static int file_shm_unmap(sqlite3_file *f, int delete)
{
	return self(f)->real.pMethods->xShmUnmap(&self(f)->real, delete);
}

/* Version 2: without memory mapping, which no VFS could watch. */
static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_unlock,
    .xCheckReservedLock = file_check_lock,
    .xFileControl = file_control,
    .xSectorSize = file_sector,
    .xDeviceCharacteristics = file_device,
    .xShmMap = file_shm_map,
    .xShmLock = file_shm_lock,
    .xShmBarrier = file_shm_barrier,
    .xShmUnmap = file_shm_unmap,
};

/* ---- the VFS ---- */

/* A file that was there before the disk is whole. */
static void load(struct node *n)
{
	int fd = open(n->path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return;
	if (fstat(fd, &st) < 0)
		abort();
	resize_durable(n, (uint64_t)st.st_size);
	if (pread(fd, n->durable, n->durable_size, 0) != (ssize_t)n->durable_size)
		abort();
	close(fd);
	n->size = n->durable_size;
	n->exists = true;
	n->synced = n->size > 0;
}

static int disk_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *f, int flags, int *ret_flags)
{
	struct node *n = path ? node_of(path) : NULL;
	int rc;

	(void)vfs;
	f->pMethods = NULL;
	if (n && disk.off)
		return SQLITE_CANTOPEN;
	if (n && !n->exists && !n->synced && !n->changes)
		load(n);
	rc = disk.real->xOpen(disk.real, path, &self(f)->real, flags, ret_flags);
	if (rc != SQLITE_OK)
		return rc;
	self(f)->node = n;
	self(f)->is_journal = flags & (SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_WAL);
	if (n)
		n->exists = true;
	f->pMethods = &methods;
	return SQLITE_OK;
}

static int disk_delete(sqlite3_vfs *vfs, const char *path, int sync_too)
{
	struct node *n = node_of(path);
	int rc;

	(void)vfs;
	if (disk.off)
		return SQLITE_IOERR_DELETE;
	rc = disk.real->xDelete(disk.real, path, 0);
	if (rc != SQLITE_OK)
		return rc;
	n->exists = false;
	note_change(n, 0, NULL, 0, true);
	if (sync_too)
		sync_directory();
	return SQLITE_OK;
}

void disk_install(void)
{
	disk.real = sqlite3_vfs_find(NULL);
	disk.vfs = *disk.real;
	disk.vfs.zName = "disk";
	disk.vfs.szOsFile = (int)sizeof(struct file) + disk.real->szOsFile;
	disk.vfs.xOpen = disk_open;
	disk.vfs.xDelete = disk_delete;
	if (sqlite3_vfs_register(&disk.vfs, 1) != SQLITE_OK)
		abort();
}

/* ---- the power comes back ---- */

/* Sectors of a write land or do not, each for itself. */
static void land(struct node *n, const struct change *c, uint64_t *random)
{
	uint64_t done = 0;

	if (c->truncates) {
		if (random_next(random) % 2)
			resize_durable(n, c->offset);
		return;
	}
	while (done < c->length) {
		uint64_t length = SECTOR - (c->offset + done) % SECTOR;

		if (length > c->length - done)
			length = c->length - done;
		if (random_next(random) % 2)
			make_durable(n, c->offset + done, c->bytes + done, length);
		done += length;
	}
}

static void shuffle(struct change **changes, size_t nr, uint64_t *random)
{
	for (size_t i = nr; i > 1; i--) {
		size_t k = random_next(random) % i;
		struct change *c = changes[i - 1];

		changes[i - 1] = changes[k];
		changes[k] = c;
	}
}

/* Half of the time all or nothing of what was not synced: neither is a mixture's limit
 * that chance would often come to. */
static void land_some(struct node *n, uint64_t *random)
{
	struct change *changes[1 << 14];
	uint64_t how = random_next(random) % 4;
	size_t nr = 0;

	if (how == 0)
		sync_node(n);
	if (how == 1)
		return;
	for (struct change *c = n->changes; c && nr < sizeof changes / sizeof *changes; c = c->next)
		changes[nr++] = c;
	shuffle(changes, nr, random);
	for (size_t i = 0; i < nr; i++)
		land(n, changes[i], random);
}

static void write_real(const struct node *n)
{
	int fd = open(n->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || pwrite(fd, n->durable, n->durable_size, 0) != (ssize_t)n->durable_size)
		abort();
	close(fd);
}

void disk_power_on(uint64_t *random)
{
	char shm[300];

	for (unsigned i = 0; i < NODES; i++) {
		struct node *n = &disk.nodes[i];
		bool there;

		if (!n->path[0])
			continue;
		land_some(n, random);
		drop_changes(n);
		/* A name that was neither synced nor unsynced is there or is not. */
		there = n->exists == n->synced ? n->exists : random_next(random) % 2;
		if (!there)
			n->durable_size = 0;
		n->exists = n->synced = there;
		n->size = n->durable_size;
		if (there)
			write_real(n);
		else
			unlink(n->path);
		snprintf(shm, sizeof shm, "%s-shm", n->path);
		unlink(shm);
	}
	disk_fail(DISK_ANY, 0);
	disk.off = false;
}
