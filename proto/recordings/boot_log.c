/*
 * boot_log.c - see boot_log.h. Where there are lines `BIOS-e820:`, the firmware's map, only
 * they count: Linux prints changed copies of it later, and what mem= takes off follows from
 * mem=. A bare list of ranges has none and is taken whole.
 */
#include "boot_log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lines.h"

static const struct {
	const char *name;
	enum boot_e820_type type;
} e820_types[] = {
    {"usable", BOOT_E820_USABLE},	{"reserved", BOOT_E820_RESERVED},
    {"ACPI data", BOOT_E820_ACPI_DATA}, {"ACPI NVS", BOOT_E820_ACPI_NVS},
    {"unusable", BOOT_E820_UNUSABLE},
};

/* "[mem 0xA-0xB] TYPE", of a type that a machine knows. */
static void read_entry(const char *text, struct boot_log *b)
{
	unsigned long long first, last;
	int length = 0;

	if (sscanf(text, "[mem 0x%llx-0x%llx] %n", &first, &last, &length) != 2 || !length ||
	    last < first)
		return;
	for (unsigned i = 0; i < sizeof e820_types / sizeof e820_types[0]; i++) {
		const char *name = e820_types[i].name;

		if (strncmp(text + length, name, strlen(name)) != 0)
			continue;
		if (b->nr_e820 == BOOT_MAX_E820) {
			b->more_e820 = true;
			return;
		}
		b->e820[b->nr_e820].start = first;
		b->e820[b->nr_e820].size = last - first + 1;
		b->e820[b->nr_e820++].type = e820_types[i].type;
		return;
	}
}

/* As the kernel's memparse(): "512M". What follows an '@' is a place, and passed over.
 * False: it is no size. */
static bool size_of(const char *text, uint64_t *ret)
{
	static const char units[] = "kmg";
	char *end;
	uint64_t size = strtoull(text, &end, 0);
	const char *unit = *end ? strchr(units, *end | 0x20) : NULL;

	if (end == text)
		return false;
	if (unit) {
		size <<= 10 * (unit - units + 1);
		end++;
	}
	*ret = size;
	return !*end || strchr(" \t\n@%", *end);
}

static void note_wrong(const char *word, struct boot_log *b)
{
	if (!*b->wrong_option)
		snprintf(b->wrong_option, sizeof b->wrong_option, "%.*s",
			 (int)strcspn(word, " \t\n"), word);
}

void boot_log_options(const char *text, struct boot_log *b)
{
	static const char never[] = "transparent_hugepage=never";
	const struct {
		const char *word;
		uint64_t *value;
	} options[] = {
	    {"mem=", &b->mem},
	    {"highmem=", &b->highmem},
	    {"vmalloc=", &b->vmalloc},
	    {"kernelcore=", &b->kernelcore},
	    {"movablecore=", &b->movablecore},
	};

	for (text += strspn(text, " \t\n"); *text;
	     text += strcspn(text, " \t\n"), text += strspn(text, " \t\n")) {
		b->thp_off |= strncmp(text, never, sizeof never - 1) == 0;
		for (unsigned i = 0; i < sizeof options / sizeof options[0]; i++) {
			size_t n = strlen(options[i].word);

			if (strncmp(text, options[i].word, n) == 0 &&
			    !size_of(text + n, options[i].value))
				note_wrong(text, b);
			else if (options[i].value == &b->highmem &&
				 strncmp(text, options[i].word, n) == 0)
				b->highmem_off = !b->highmem;
		}
	}
}

/* Returns whether the line is of the firmware's map. `marked`: such a line was before. */
static bool read_map_line(const char *line, bool marked, struct boot_log *b)
{
	const char *mem = strstr(line, "[mem 0x");
	bool firmware = strstr(line, "BIOS-e820: ") != NULL;

	if (firmware && !marked)
		b->nr_e820 = 0;
	if (mem && (firmware || !marked))
		read_entry(mem, b);
	return firmware;
}

static void read_line(const char *line, struct boot_log *b)
{
	static const char *const late[] = {"Freeing initrd memory: ",
					   "Freeing unused kernel image (initmem) memory: "};
	const char *at;

	b->pae |= strstr(line, "Linux version") && strstr(line, "-686-pae ");
	b->pae |= strstr(line, "NX (Execute Disable) protection: active") != NULL;
	at = strstr(line, "Kernel command line: ");
	if (at)
		boot_log_options(at + strlen("Kernel command line: "), b);
	at = strstr(line, "smpboot: Allowing ");
	if (at)
		b->cpus = (uint32_t)strtoul(at + strlen("smpboot: Allowing "), NULL, 10);
	for (unsigned i = 0; i < sizeof late / sizeof late[0]; i++) {
		at = strstr(line, late[i]);
		if (at)
			b->late_kib += (uint32_t)strtoul(at + strlen(late[i]), NULL, 10);
	}
}

bool boot_log_read_file(const char *path, struct boot_log *ret)
{
	struct lines *l = lines_open(path);
	const char *line;
	bool marked = false, whole;

	*ret = (struct boot_log){0};
	if (!l)
		return false;
	while ((line = lines_next(l))) {
		marked |= read_map_line(line, marked, ret);
		read_line(line, ret);
	}
	whole = !lines_broken(l);
	lines_close(l);
	return whole;
}

bool boot_log_read(const char *folder, struct boot_log *ret)
{
	char path[4096];

	snprintf(path, sizeof path, "%s/dmesg", folder);
	return boot_log_read_file(path, ret) && ret->nr_e820 > 0;
}
