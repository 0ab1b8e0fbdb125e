/*
 * disk.h - a disk that forgets, fails and fills up: an SQLite VFS between the history
 * and the real one.
 *
 * Files are real and hold what the program has written. Beside them the disk remembers
 * what of each file would survive a power cut for certain (what was synced) and what
 * was written since. A cut keeps of the latter what chance says, sector by sector, in
 * any order. The shared memory of the WAL is memory: after a cut it is gone.
 *
 * One thread. A file that nobody ever synced may be gone after a cut, and one that was
 * deleted without a sync of its directory may be back.
 */
#ifndef TESTS_HISTORY_DISK_H
#define TESTS_HISTORY_DISK_H

#include <stdbool.h>
#include <stdint.h>

/* Calls that can fail, one by one. */
enum disk_call {
	DISK_READ = 1,
	DISK_WRITE = 2,
	DISK_SYNC = 4,
	DISK_TRUNCATE = 8,
	DISK_ANY = 15,
};

/* Becomes SQLite's default VFS; before anything else uses SQLite. */
void disk_install(void);
/* Forgets every file. They must be closed; what is on the real disk stays there. */
void disk_forget(void);

/* The n-th call of these kinds from now fails with an I/O error, once. 0: none. */
void disk_fail(enum disk_call kinds, uint64_t n);
/* From the n-th call of these kinds on, the power is off: everything fails. */
void disk_power_off_at(enum disk_call kinds, uint64_t n);
/* Has the failure, or the end of power, come about? */
bool disk_has_failed(void);
/* A write that makes the files longer than this, all together, finds the disk full.
 * UINT64_MAX: no limit. */
void disk_limit(uint64_t bytes);
uint64_t disk_used(void);

/* After the files have been closed with the power off: what is left of them by chance
 * (`random` is its state) is what they hold now, and the power is on again. */
void disk_power_on(uint64_t *random);

#endif
