/*
 * dmesg.c - see dmesg.h. The messages are read where `zoned conformance` reads them too
 * (proto/recordings/boot_log.h); here they become a configuration.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "boot_log.h"
#include "dmesg.h"

enum { MOST_CPUS = 32, USUAL_LOW_END = 0x9fc00 };

static void set_map(const struct boot_log *log, Zoned__V1__MachineConfig *config)
{
	while (config->n_e820)
		message_free(&config->e820[--config->n_e820]->base);
	config->e820 = must(realloc(config->e820, log->nr_e820 * sizeof *config->e820));
	for (uint32_t i = 0; i < log->nr_e820; i++) {
		Zoned__V1__E820Entry *entry =
		    (Zoned__V1__E820Entry *)message_new(&zoned__v1__e820_entry__descriptor);

		entry->start = log->e820[i].start;
		entry->size = log->e820[i].size;
		entry->type = (Zoned__V1__E820Entry__Type)log->e820[i].type;
		config->e820[config->n_e820++] = entry;
	}
}

static int set_options(const struct boot_log *log, Zoned__V1__MachineConfig *config)
{
	const struct {
		uint64_t from, *to;
	} options[] = {
	    {log->mem, &config->mem},
	    {log->highmem, &config->highmem},
	    {log->kernelcore, &config->kernelcore},
	    {log->movablecore, &config->movablecore},
	};

	if (*log->wrong_option)
		return usage_error("kernel command line: %s: its size makes no sense",
				   log->wrong_option);
	if (log->vmalloc > UINT32_MAX)
		return usage_error("kernel command line: vmalloc= is more than 4 GiB");
	for (unsigned i = 0; i < sizeof options / sizeof *options; i++)
		if (options[i].from)
			*options[i].to = options[i].from;
	if (log->vmalloc)
		config->vmalloc = (uint32_t)log->vmalloc;
	config->thp_off |= log->thp_off;
	config->highmem_off |= log->highmem_off;
	return EXIT_DONE;
}

static int read_log(const char *path, struct boot_log *log)
{
	errno = 0;
	if (!boot_log_read_file(path, log)) {
		complain("%s cannot be read%s%s", path, errno ? ": " : "",
			 errno ? strerror(errno) : "");
		return EXIT_FILE;
	}
	if (log->more_e820)
		return usage_error("%s: the map has more than %d entries", path, BOOT_MAX_E820);
	if (!log->nr_e820)
		return usage_error("%s has no line such as "
				   "`[mem 0x0000000000100000-0x000000007ffdffff] usable`",
				   path);
	return EXIT_DONE;
}

int dmesg_read_e820(const char *path, Zoned__V1__MachineConfig *config)
{
	struct boot_log *log = must(calloc(1, sizeof *log));
	int rc = read_log(path, log);

	if (rc == EXIT_DONE)
		set_map(log, config);
	free(log);
	return rc;
}

static void add_usable(struct boot_log *log, uint64_t start, uint64_t end)
{
	if (start >= end)
		return;
	log->e820[log->nr_e820].start = start;
	log->e820[log->nr_e820].size = end - start;
	log->e820[log->nr_e820++].type = BOOT_E820_USABLE;
}

/* What percentages are of: the machine's RAM as far as it has been told. A PC of `ram` bytes
 * has a hole from 3 to 4 GiB; what it has below 1 MiB is cut off where it is counted. */
static void get_ram(const Zoned__V1__MachineConfig *config, struct boot_log *log)
{
	const uint64_t hole = 3ULL << 30, behind = 1ULL << 32;
	uint64_t ram = config->n_e820 ? 0 : config->ram;

	log->pae = config->pae;
	log->mem = config->mem;
	for (size_t i = 0; i < config->n_e820 && i < BOOT_MAX_E820; i++) {
		log->e820[i].start = config->e820[i]->start;
		log->e820[i].size = config->e820[i]->size;
		log->e820[log->nr_e820++].type = (uint32_t)config->e820[i]->type;
	}
	add_usable(log, 0, ram < USUAL_LOW_END ? ram : USUAL_LOW_END);
	add_usable(log, 1 << 20, ram < hole ? ram : hole);
	add_usable(log, behind, ram < hole ? 0 : ram - hole + behind);
}

int dmesg_apply_cmdline(const char *cmdline, Zoned__V1__MachineConfig *config)
{
	struct boot_log *log = must(calloc(1, sizeof *log));
	int rc;

	get_ram(config, log);
	boot_log_options(cmdline, log);
	if (!log->nr_e820 && (log->kernelcore_percent || log->movablecore_percent))
		rc = usage_error("kernel command line: a percentage needs RAM before it: --ram, "
				 "--e820 or --from-dmesg");
	else {
		boot_log_percentages(log);
		rc = set_options(log, config);
	}
	free(log);
	return rc;
}

int dmesg_read_boot(const char *path, Zoned__V1__MachineConfig *config)
{
	struct boot_log *log = must(calloc(1, sizeof *log));
	int rc = read_log(path, log);

	if (rc == EXIT_DONE)
		rc = set_options(log, config);
	if (rc == EXIT_DONE) {
		set_map(log, config);
		config->preset = ZONED__V1__PRESET__LINUX_6_1;
		config->pae = log->pae;
		config->cpus = log->cpus <= MOST_CPUS ? log->cpus : MOST_CPUS;
		config->late_pages = log->late_kib / 4;
	}
	free(log);
	return rc;
}
