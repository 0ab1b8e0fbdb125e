/*
 * boot_log.h - what a machine was made from, out of a kernel's boot messages.
 */
#ifndef RECORDINGS_BOOT_LOG_H
#define RECORDINGS_BOOT_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum { BOOT_MAX_E820 = 128 };

/* As in the contract. */
enum boot_e820_type {
	BOOT_E820_USABLE = 1,
	BOOT_E820_RESERVED,
	BOOT_E820_ACPI_DATA,
	BOOT_E820_ACPI_NVS,
	BOOT_E820_UNUSABLE,
};

struct boot_log {
	bool pae, thp_off;
	bool highmem_off; /* highmem=0: RAM above lowmem is not used */
	uint32_t cpus;	  /* 0 where the messages do not say */
	/* KiB of initrd and init memory: given to the allocator after its marks were set. */
	uint32_t late_kib;
	/* Options of the kernel's command line, in bytes; 0: not given. */
	uint64_t mem, highmem, vmalloc, kernelcore, movablecore;
	/* Of all RAM; 0: not given in percent. While not 0, they stand for the bytes. */
	uint32_t kernelcore_percent, movablecore_percent;
	bool mirror; /* kernelcore=mirror: a machine has no mirrored RAM, and neither counts */
	char wrong_option[64]; /* the first one whose size makes no sense; empty: none */
	bool more_e820;	       /* there were more than BOOT_MAX_E820 */
	uint32_t nr_e820;
	struct {
		uint64_t start, size; /* bytes */
		uint32_t type;	      /* enum boot_e820_type */
	} e820[BOOT_MAX_E820];
};

/* Reads messages, gzipped or not; percentages become bytes. A file that is no more than lines
 * such as `[mem 0x0000000000100000-0x000000007ffdffff] usable` will do. False: it cannot be
 * read. */
bool boot_log_read_file(const char *path, struct boot_log *ret);
/* Reads `dmesg` of a folder. False: there is none, or no memory map in it. */
bool boot_log_read(const char *folder, struct boot_log *ret);
/* Adds the options of a command line: mem=, highmem=, vmalloc=, kernelcore=, movablecore=,
 * transparent_hugepage=never. What else there is does not concern a machine. */
void boot_log_options(const char *cmdline, struct boot_log *log);
/* Makes bytes of percentages, which are of the whole frames of RAM in the map, as far as mem=
 * and PAE let Linux see it. */
void boot_log_percentages(struct boot_log *log);

#endif
