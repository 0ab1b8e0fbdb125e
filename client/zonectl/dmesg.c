/*
 * dmesg.c - reads Linux's boot messages.
 *
 * Only lines with `BIOS-e820:` count as the map when there are any: Linux prints
 * changed copies of it later. A bare list (an --e820 file) has none and is taken
 * whole.
 */
#include <stdlib.h>
#include <string.h>

#include "dmesg.h"

enum { FILE_LIMIT = 16 << 20, MAX_ENTRIES = 128 };

static const struct {
	const char *name;
	Zoned__V1__E820Entry__Type type;
} e820_types[] = {
    {"usable", ZONED__V1__E820_ENTRY__TYPE__USABLE},
    {"reserved", ZONED__V1__E820_ENTRY__TYPE__RESERVED},
    {"ACPI data", ZONED__V1__E820_ENTRY__TYPE__ACPI_DATA},
    {"ACPI NVS", ZONED__V1__E820_ENTRY__TYPE__ACPI_NVS},
    {"unusable", ZONED__V1__E820_ENTRY__TYPE__UNUSABLE},
};

/* "[mem 0xA-0xB] TYPE" anywhere in a line. */
static bool parse_entry(const char *line, Zoned__V1__E820Entry *entry)
{
	const char *mem = strstr(line, "[mem 0x");
	unsigned long long first, last;
	char *end;
	unsigned i;

	if (!mem)
		return false;
	first = strtoull(mem + strlen("[mem "), &end, 16);
	if (strncmp(end, "-0x", 3) != 0)
		return false;
	last = strtoull(end + 1, &end, 16);
	if (*end++ != ']' || last < first)
		return false;
	end += strspn(end, " \t");
	for (i = 0; i < sizeof e820_types / sizeof *e820_types; i++)
		if (strncmp(end, e820_types[i].name, strlen(e820_types[i].name)) == 0) {
			entry->start = first;
			entry->size = last - first + 1;
			entry->type = e820_types[i].type;
			return true;
		}
	return false;
}

static void clear_map(Zoned__V1__MachineConfig *config)
{
	while (config->n_e820)
		message_free(&config->e820[--config->n_e820]->base);
}

static int add_entry(Zoned__V1__MachineConfig *config, const Zoned__V1__E820Entry *entry)
{
	Zoned__V1__E820Entry *copy;

	if (config->n_e820 == MAX_ENTRIES)
		return usage_error("the map has more than %d entries", MAX_ENTRIES);
	config->e820 = must(realloc(config->e820, (config->n_e820 + 1) * sizeof *config->e820));
	copy = (Zoned__V1__E820Entry *)message_new(&zoned__v1__e820_entry__descriptor);
	copy->start = entry->start;
	copy->size = entry->size;
	copy->type = entry->type;
	config->e820[config->n_e820++] = copy;
	return EXIT_DONE;
}

static int read_map(char *text, const char *path, Zoned__V1__MachineConfig *config)
{
	bool marked = strstr(text, "BIOS-e820:") != NULL;
	char *line, *rest = text;
	int rc = EXIT_DONE;

	clear_map(config);
	while (rc == EXIT_DONE && (line = strsep(&rest, "\n"))) {
		Zoned__V1__E820Entry entry;

		if ((!marked || strstr(line, "BIOS-e820:")) && parse_entry(line, &entry))
			rc = add_entry(config, &entry);
		if (rest)
			rest[-1] = '\n';
	}
	if (rc == EXIT_DONE && !config->n_e820)
		rc = usage_error("%s has no line such as "
				 "`[mem 0x0000000000100000-0x000000007ffdffff] usable`",
				 path);
	return rc;
}

int dmesg_read_e820(const char *path, Zoned__V1__MachineConfig *config)
{
	size_t length;
	char *text = (char *)read_file(path, FILE_LIMIT, &length);
	int rc;

	if (!text)
		return EXIT_FILE;
	rc = read_map(text, path, config);
	free(text);
	return rc;
}

/* The number behind the first occurrence of a text, or 0. */
static uint64_t number_behind(const char *text, const char *before)
{
	const char *at = strstr(text, before);

	return at ? strtoull(at + strlen(before), NULL, 10) : 0;
}

int dmesg_apply_cmdline(const char *cmdline, Zoned__V1__MachineConfig *config)
{
	const struct {
		const char *name;
		const char *field;
	} options[] = {
	    {"mem=", "mem"},
	    {"highmem=", "highmem"},
	    {"vmalloc=", "vmalloc"},
	    {"kernelcore=", "kernelcore"},
	    {"movablecore=", "movablecore"},
	};
	char *copy = must(strdup(cmdline)), *rest = copy, *word, err[256];
	int rc = EXIT_DONE;
	unsigned i;

	while (rc == EXIT_DONE && (word = strsep(&rest, " \t\n"))) {
		if (strcmp(word, "transparent_hugepage=never") == 0)
			config->thp_off = true;
		for (i = 0; i < sizeof options / sizeof *options; i++) {
			size_t n = strlen(options[i].name);
			const struct contract_field *f =
			    fields_find(&contract_machine_config, options[i].field);

			if (strncmp(word, options[i].name, n) == 0 &&
			    !op_set_text(&config->base, f, word + n, err, sizeof err))
				rc = usage_error("kernel command line: %s: %s", word, err);
		}
	}
	free(copy);
	return rc;
}

static int apply_log(const char *text, Zoned__V1__MachineConfig *config)
{
	const char *cmdline = strstr(text, "Kernel command line: ");
	uint64_t late_kib = number_behind(text, "Freeing initrd memory: ") +
			    number_behind(text, "Freeing unused kernel image (initmem) memory: ");
	uint64_t cpus = number_behind(text, "smpboot: Allowing ");
	char *line;
	int rc;

	config->preset = ZONED__V1__PRESET__LINUX_6_1;
	config->pae = strstr(text, "NX (Execute Disable) protection: active") != NULL;
	config->cpus = cpus <= 32 ? (uint32_t)cpus : 32;
	config->late_pages = (uint32_t)(late_kib / 4);
	if (!cmdline)
		return EXIT_DONE;
	cmdline += strlen("Kernel command line: ");
	line = must(strndup(cmdline, strcspn(cmdline, "\n")));
	rc = dmesg_apply_cmdline(line, config);
	free(line);
	return rc;
}

int dmesg_read_boot(const char *path, Zoned__V1__MachineConfig *config)
{
	size_t length;
	char *text = (char *)read_file(path, FILE_LIMIT, &length);
	int rc;

	if (!text)
		return EXIT_FILE;
	rc = read_map(text, path, config);
	if (rc == EXIT_DONE)
		rc = apply_log(text, config);
	free(text);
	return rc;
}
