/*
 * boot_check.c - a recorded boot: every figure of its zoneinfo, and the address space.
 *
 * Zones, marks and sizes follow from the boot messages alone, but for one number of a zone
 * of lowmem: how much the kernel kept for itself (its image, its larger mem_map).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "box.h"

struct recorded_zone {
	u32 min, low, high, boost, start, spanned, present, managed;
	u32 reserve[NR_ZONES];
	/* Of the first CPU's lists; all have the same. */
	u32 pcp_high, pcp_batch, threshold, cpus;
	bool there;
};

static const char *const zone_names[NR_ZONES] = {"DMA", "Normal", "HighMem", "Movable"};

static struct recorded_zone *zone_named(struct recorded_zone zones[NR_ZONES], const char *line)
{
	char word[32];

	if (sscanf(line, "Node 0, zone %31s", word) != 1)
		return NULL;
	for (u32 i = 0; i < NR_ZONES; i++)
		if (strcmp(word, zone_names[i]) == 0)
			return &zones[i];
	return NULL;
}

static void read_figure(struct recorded_zone *z, const char *line)
{
	unsigned cpu;

	sscanf(line, " boost %u", &z->boost);
	sscanf(line, " min %u", &z->min);
	sscanf(line, " low %u", &z->low);
	/* "high:" is the lists', "high" the mark. */
	if (sscanf(line, " high: %u", &z->pcp_high) != 1)
		sscanf(line, " high %u", &z->high);
	sscanf(line, " spanned %u", &z->spanned);
	sscanf(line, " present %u", &z->present);
	sscanf(line, " managed %u", &z->managed);
	sscanf(line, " start_pfn: %u", &z->start);
	sscanf(line, " protection: (%u, %u, %u, %u)", &z->reserve[0], &z->reserve[1],
	       &z->reserve[2], &z->reserve[3]);
	sscanf(line, " batch: %u", &z->pcp_batch);
	sscanf(line, " vm stats threshold: %u", &z->threshold);
	if (sscanf(line, " cpu: %u", &cpu) == 1)
		z->cpus = cpu + 1;
}

static bool read_zoneinfo(const char *folder, struct recorded_zone zones[NR_ZONES])
{
	struct lines *l = lines_open_in(folder, "zoneinfo");
	struct recorded_zone *z = NULL;
	const char *line;

	while (l && (line = lines_next(l))) {
		struct recorded_zone *next = zone_named(zones, line);

		z = next ? next : z;
		if (z) {
			z->there = true;
			read_figure(z, line);
		}
	}
	lines_close(l);
	return z != NULL;
}

/* ---- comparing ---- */

static void compare_zone(struct conformance_report *r, const struct zone *z,
			 const struct recorded_zone *want, const char *name)
{
	static const char *const marks[NR_MARKS] = {"min", "low", "high"};
	const u32 recorded_marks[NR_MARKS] = {want->min, want->low, want->high};

	compare(r, zone_spanned(z), want->spanned, "%s: spanned", name);
	compare(r, z->present, want->present, "%s: present", name);
	compare(r, z->managed, want->managed, "%s: managed", name);
	for (u32 i = 0; i < NR_MARKS; i++)
		compare(r, z->mark[i], recorded_marks[i] - want->boost, "%s: %s mark", name,
			marks[i]);
	for (u32 i = 0; i < NR_ZONES; i++)
		compare(r, z->reserve[i], want->reserve[i], "%s: protection against zone %u", name,
			i);
	/* zoneinfo says no more of a zone without pages. */
	if (!want->managed)
		return;
	compare(r, z->start, want->start, "%s: start", name);
	compare(r, z->pcp_high, want->pcp_high, "%s: pcp high", name);
	compare(r, z->pcp_batch, want->pcp_batch, "%s: pcp batch", name);
	compare(r, z->stat_threshold, want->threshold, "%s: stat threshold", name);
}

/* The number behind the first occurrence of a text in a file. */
static bool read_number(const char *folder, const char *file, const char *word, int base, u64 *ret)
{
	struct lines *l = lines_open_in(folder, file);
	const char *line, *at = NULL;

	while (l && !at && (line = lines_next(l))) {
		at = strstr(line, word);
		if (at)
			*ret = strtoull(at + strlen(word), NULL, base);
	}
	lines_close(l);
	return at != NULL;
}

static void compare_machine(struct conformance_report *r, struct engine *e, const char *folder,
			    const struct recorded_zone zones[NR_ZONES])
{
	const struct layout *l = &e->st->layout;
	u32 cpus = 0;
	u64 number;

	for (u32 i = 0; i < NR_ZONES; i++) {
		if (zones[i].there)
			compare_zone(r, &e->st->frames.zone[i], &zones[i], zone_names[i]);
		/* An empty zone has no lists. */
		cpus = zones[i].cpus > cpus ? zones[i].cpus : cpus;
	}
	compare(r, l->cpus, cpus, "CPUs");
	if (read_number(folder, "vm/min_free_kbytes", "", 10, &number))
		compare(r, e->st->frames.min_free_kbytes, number, "min_free_kbytes");
	if (read_number(folder, "meminfo", "VmallocTotal:", 10, &number))
		compare(r, (l->vmalloc_end - l->vmalloc_start) >> 10, number, "VmallocTotal in kB");
	if (read_number(folder, "dmesg", "mapped low ram: 0 - ", 16, &number))
		compare(r, l->high_memory - l->page_offset, number, "end of the direct map");
}

void check_boot_folder(const char *path, struct conformance_report *r)
{
	struct recorded_zone zones[NR_ZONES] = {{0}};
	struct boot_log *log = calloc(1, sizeof *log);
	struct box *b = NULL;
	u32 managed[NR_ZONES];

	if (!log || !boot_log_read(path, log) || !read_zoneinfo(path, zones))
		differs(r, "%s has no dmesg with a memory map, or no zoneinfo", path);
	else {
		for (u32 i = 0; i < NR_ZONES; i++)
			managed[i] = zones[i].managed;
		b = box_new_like(log, managed, r);
	}
	if (b)
		compare_machine(r, b->e, path, zones);
	box_free(b);
	free(log);
}
