/*
 * dmesg.c - see dmesg.h. The messages are read where `zoned conformance` reads them too
 * (proto/recordings/boot_log.h); here they become a configuration.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "boot_log.h"
#include "dmesg.h"

enum { MOST_CPUS = 32 };

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

int dmesg_apply_cmdline(const char *cmdline, Zoned__V1__MachineConfig *config)
{
	struct boot_log *log = must(calloc(1, sizeof *log));
	int rc;

	boot_log_options(cmdline, log);
	rc = set_options(log, config);
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
