/*
 * dmesg.h - a machine's configuration from what a real Linux printed at boot.
 *
 * All return EXIT_DONE, or an exit code after a sentence on stderr.
 */
#ifndef DMESG_H
#define DMESG_H

#include "zonectl.h"

/* Replaces config's map by the file's lines of the form
 * `[mem 0x0000000000100000-0x000000007ffdffff] usable`; other lines are passed over. */
int dmesg_read_e820(const char *path, Zoned__V1__MachineConfig *config);

/* The map as above, and from the rest of the log: the preset linux-6.1, PAE (the kernel's
 * name, or NX, which needs it), the number of CPUs, the command line, the memory that Linux gave
 * back late. */
int dmesg_read_boot(const char *path, Zoned__V1__MachineConfig *config);

/* mem=, highmem=, vmalloc=, kernelcore=, movablecore=, transparent_hugepage=never; what
 * else a kernel's command line has does not concern a machine. A percentage is one of the RAM
 * that config has by then. */
int dmesg_apply_cmdline(const char *cmdline, Zoned__V1__MachineConfig *config);

#endif
