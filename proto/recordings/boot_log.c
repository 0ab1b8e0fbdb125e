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
	return !*end || strchr(" \t\n@", *end);
}

/* "25%". */
static bool percent_of(const char *text, uint32_t *ret)
{
	char *end;
	unsigned long percent = strtoul(text, &end, 10);

	if (end == text || *end != '%' || percent > 100 || (end[1] && !strchr(" \t\n", end[1])))
		return false;
	*ret = (uint32_t)percent;
	return true;
}

static void note_wrong(const char *word, struct boot_log *b)
{
	if (!*b->wrong_option)
		snprintf(b->wrong_option, sizeof b->wrong_option, "%.*s",
			 (int)strcspn(word, " \t\n"), word);
}

struct option {
	const char *word;
	uint64_t *bytes;
	uint32_t *percent; /* NULL: only bytes will do */
};

/* The last one given stands. */
static bool read_option(const char *text, const struct option *o)
{
	uint32_t percent = 0;
	bool is_percent = o->percent && percent_of(text, &percent);

	if (!is_percent && !size_of(text, o->bytes))
		return false;
	if (o->percent)
		*o->percent = percent;
	return true;
}

void boot_log_options(const char *text, struct boot_log *b)
{
	static const char never[] = "transparent_hugepage=never", mirror[] = "kernelcore=mirror";
	const struct option options[] = {
	    {"mem=", &b->mem, NULL},
	    {"highmem=", &b->highmem, NULL},
	    {"vmalloc=", &b->vmalloc, NULL},
	    {"kernelcore=", &b->kernelcore, &b->kernelcore_percent},
	    {"movablecore=", &b->movablecore, &b->movablecore_percent},
	};

	for (text += strspn(text, " \t\n"); *text;
	     text += strcspn(text, " \t\n"), text += strspn(text, " \t\n")) {
		b->thp_off |= strncmp(text, never, sizeof never - 1) == 0;
		if (strcspn(text, " \t\n") == sizeof mirror - 1 &&
		    strncmp(text, mirror, sizeof mirror - 1) == 0) {
			b->mirror = true;
			continue;
		}
		for (unsigned i = 0; i < sizeof options / sizeof options[0]; i++) {
			size_t n = strlen(options[i].word);

			if (strncmp(text, options[i].word, n) == 0 &&
			    !read_option(text + n, &options[i]))
				note_wrong(text, b);
			else if (options[i].bytes == &b->highmem &&
				 strncmp(text, options[i].word, n) == 0)
				b->highmem_off = !b->highmem;
		}
	}
}

/* ---- percentages ---- */

enum {
	FRAME = 4096,
	BIOS_AREA = 0xa0000, /* up to 1 MiB, no RAM on a PC */
	BIOS_AREA_END = 0x100000,
};

/* Where the kernel sees no more RAM. */
static uint64_t end_of_ram(const struct boot_log *b)
{
	uint64_t reach = b->pae ? 1ULL << 36 : 1ULL << 32;

	return b->mem && b->mem < reach ? b->mem : reach;
}

static bool is_ram(const struct boot_log *b, uint64_t address)
{
	bool usable = false;

	if (address < FRAME || (address >= BIOS_AREA && address < BIOS_AREA_END) ||
	    address >= end_of_ram(b))
		return false;
	for (uint32_t i = 0; i < b->nr_e820; i++) {
		if (address < b->e820[i].start || address - b->e820[i].start >= b->e820[i].size)
			continue;
		if (b->e820[i].type != BOOT_E820_USABLE)
			return false;
		usable = true;
	}
	return usable;
}

static int by_address(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Whole frames of RAM. Between two neighbours of `edges` all is RAM, or nothing. */
static uint64_t count_frames(const struct boot_log *b)
{
	uint64_t edges[2 * BOOT_MAX_E820 + 4] = {FRAME, BIOS_AREA, BIOS_AREA_END, end_of_ram(b)};
	uint64_t frames = 0, start = 0;
	uint32_t nr = 4;
	bool inside = false;

	for (uint32_t i = 0; i < b->nr_e820; i++) {
		edges[nr++] = b->e820[i].start;
		edges[nr++] = b->e820[i].start + b->e820[i].size;
	}
	qsort(edges, nr, sizeof *edges, by_address);
	for (uint32_t i = 0; i < nr; i++) {
		bool before = inside;
		uint64_t first = (start + FRAME - 1) / FRAME;

		inside = is_ram(b, edges[i]);
		if (inside && !before)
			start = edges[i];
		else if (before && !inside && first < edges[i] / FRAME)
			frames += edges[i] / FRAME - first;
	}
	return frames;
}

/* Linux computes it in 32 bits: half of 4 GiB is less than lowmem. */
static void to_bytes(uint32_t frames, uint32_t *percent, uint64_t *bytes)
{
	if (*percent)
		*bytes = (uint64_t)(frames * 100 * *percent / 10000) * FRAME;
	*percent = 0;
}

void boot_log_percentages(struct boot_log *b)
{
	uint32_t frames = (uint32_t)count_frames(b);

	to_bytes(frames, &b->kernelcore_percent, &b->kernelcore);
	to_bytes(frames, &b->movablecore_percent, &b->movablecore);
	if (b->mirror)
		b->kernelcore = b->movablecore = 0;
}

/* ---- messages ---- */

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
	boot_log_percentages(ret);
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
