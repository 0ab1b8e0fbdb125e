/*
 * boot_log.c - see boot_log.h. Only the firmware's map counts (lines `BIOS-e820:`): Linux
 * prints changed copies of it later, and what mem= takes off follows from mem=.
 */
#include "boot_log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lines.h"

static void read_entry(const char *text, struct boot_log *b)
{
	unsigned long long first, last;
	char type[32];

	if (b->nr_e820 == BOOT_MAX_E820 ||
	    sscanf(text, "BIOS-e820: [mem %llx-%llx] %31s", &first, &last, type) != 3 ||
	    last < first)
		return;
	b->e820[b->nr_e820].start = first;
	b->e820[b->nr_e820].size = last - first + 1;
	b->e820[b->nr_e820].type = strcmp(type, "usable") == 0 ? BOOT_E820_RAM : BOOT_E820_OTHER;
	b->nr_e820++;
}

/* As the kernel's memparse(): "512M". What follows an '@' is a place, and passed over. */
static uint64_t size_of(const char *text)
{
	static const char units[] = "kmg";
	char *end;
	uint64_t size = strtoull(text, &end, 0);
	const char *unit = *end ? strchr(units, *end | 0x20) : NULL;

	return unit ? size << 10 * (unit - units + 1) : size;
}

static void read_options(const char *text, struct boot_log *b)
{
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

	for (; *text; text += strcspn(text, " "), text += strspn(text, " ")) {
		b->thp_off |= strncmp(text, "transparent_hugepage=never", 26) == 0;
		for (unsigned i = 0; i < sizeof options / sizeof options[0]; i++) {
			size_t n = strlen(options[i].word);

			if (strncmp(text, options[i].word, n) == 0)
				*options[i].value = size_of(text + n);
		}
	}
}

static void read_line(const char *line, struct boot_log *b)
{
	static const char *const late[] = {"Freeing initrd memory: ",
					   "Freeing unused kernel image (initmem) memory: "};
	const char *at;

	b->pae |= strstr(line, "Linux version") && strstr(line, "-686-pae ");
	b->pae |= strstr(line, "NX (Execute Disable) protection: active") != NULL;
	at = strstr(line, "BIOS-e820: ");
	if (at)
		read_entry(at, b);
	at = strstr(line, "Kernel command line: ");
	if (at)
		read_options(at + strlen("Kernel command line: "), b);
	at = strstr(line, "smpboot: Allowing ");
	if (at)
		b->cpus = (uint32_t)strtoul(at + strlen("smpboot: Allowing "), NULL, 10);
	for (unsigned i = 0; i < sizeof late / sizeof late[0]; i++) {
		at = strstr(line, late[i]);
		if (at)
			b->late_kib += (uint32_t)strtoul(at + strlen(late[i]), NULL, 10);
	}
}

bool boot_log_read(const char *folder, struct boot_log *ret)
{
	struct lines *l = lines_open_in(folder, "dmesg");
	const char *line;

	*ret = (struct boot_log){0};
	if (!l)
		return false;
	while ((line = lines_next(l)))
		read_line(line, ret);
	lines_close(l);
	if (!ret->cpus)
		ret->cpus = 1;
	return ret->nr_e820 > 0;
}
