/*
 * boot_log.h - what a recorded machine was made from, out of its boot messages.
 */
#ifndef RECORDINGS_BOOT_LOG_H
#define RECORDINGS_BOOT_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum { BOOT_MAX_E820 = 128, BOOT_E820_RAM = 1, BOOT_E820_OTHER = 2 };

struct boot_log {
	bool pae, thp_off;
	uint32_t cpus; /* 1 where the messages do not say */
	/* KiB of initrd and init memory: given to the allocator after its marks were set. */
	uint32_t late_kib;
	/* Options of the kernel's command line, in bytes; 0: not given. */
	uint64_t mem, highmem, vmalloc, kernelcore, movablecore;
	uint32_t nr_e820;
	struct {
		uint64_t start, size; /* bytes */
		uint32_t type;	      /* BOOT_E820_*; 1 is RAM, as in the contract */
	} e820[BOOT_MAX_E820];
};

/* Reads `dmesg` (or dmesg.gz) of a folder. False: there is none, or no memory map in
 * it. */
bool boot_log_read(const char *folder, struct boot_log *ret);

#endif
