// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * zones.c - the allocator's state, whole or what has changed, and its hashes.
 *
 * Only looks. Callers keep the CPUs from changing it meanwhile. Hashes are 64-bit FNV-1a
 * over little-endian words: a word that marks a list, then its frames in order.
 */
#include "recorder.h"

#include <linux/cpumask.h>
#include <linux/vmstat.h>

#define FNV_START 14695981039346656037ULL
#define FNV_PRIME 1099511628211ULL
#define LIST_MARK 0x80000000u

/* Lengths of the lists when they were last told. */
static long told[MAX_NR_ZONES][MAX_ORDER][MIGRATE_TYPES];
static long told_pcp[MAX_NR_ZONES][NR_PCP_LISTS];

struct zone *zone_number(int i)
{
	return &contig_page_data.node_zones[i];
}

static struct per_cpu_pages *lists_of(struct zone *zone, int cpu)
{
	return per_cpu_ptr(zone->per_cpu_pageset, cpu);
}

static int free_diff(struct zone *zone, int cpu)
{
	return per_cpu_ptr(zone->per_cpu_zonestats, cpu)->vm_stat_diff[NR_FREE_PAGES];
}

static long nr_free(struct zone *zone)
{
	return atomic_long_read(&zone->vm_stat[NR_FREE_PAGES]);
}

void drain_lists(void)
{
	void (*drain_all)(struct zone * zone) = kernel_function("drain_all_pages");
	void (*drain_lru)(void) = kernel_function("lru_add_drain_all");

	if (drain_lru)
		drain_lru();
	if (drain_all)
		drain_all(NULL);
	out("{\"t\":\"drain\",\"lru_add_drain_all\":%d,\"drain_all_pages\":%d}\n", !!drain_lru,
	    !!drain_all);
}

/* ---- hashes ---- */

static u64 fnv(u64 hash, u32 word)
{
	int i;

	for (i = 0; i < 4; i++)
		hash = (hash ^ (word >> 8 * i & 0xff)) * FNV_PRIME;
	return hash;
}

static u64 hash_list(u64 hash, struct list_head *list)
{
	struct page *page;

	list_for_each_entry(page, list, lru) hash = fnv(hash, page_to_pfn(page));
	return hash;
}

static u64 hash_free_lists(struct zone *zone)
{
	u64 hash = FNV_START;
	int order, type;

	for (order = 0; order < MAX_ORDER; order++)
		for (type = 0; type < MIGRATE_TYPES; type++)
			hash = hash_list(fnv(hash, LIST_MARK | order << 8 | type),
					 &zone->free_area[order].free_list[type]);
	return hash;
}

static u64 hash_pcp_lists(struct per_cpu_pages *pcp)
{
	u64 hash = FNV_START;
	int i;

	for (i = 0; i < NR_PCP_LISTS; i++)
		hash = hash_list(fnv(hash, LIST_MARK | i), &pcp->lists[i]);
	return hash;
}

/* ---- pageblocks ---- */

static unsigned long nr_pageblocks(struct zone *zone)
{
	unsigned long start = zone->zone_start_pfn & ~(pageblock_nr_pages - 1);

	return (zone->zone_start_pfn + zone->spanned_pages - start + pageblock_nr_pages - 1) >>
	       pageblock_order;
}

static int pageblock_type_of(struct zone *zone, unsigned long number)
{
	unsigned long bit = number * NR_PAGEBLOCK_BITS;

	return zone->pageblock_flags[bit / BITS_PER_LONG] >> bit % BITS_PER_LONG & 7;
}

static u64 hash_pageblocks(struct zone *zone)
{
	unsigned long i, nr = nr_pageblocks(zone);
	u64 hash = FNV_START;

	for (i = 0; i < nr; i++)
		hash = fnv(hash, pageblock_type_of(zone, i));
	return hash;
}

/* ---- whole zones ---- */

/* Returns the list's length. */
static long out_list(struct list_head *list)
{
	struct page *page;
	long nr = 0;

	out("[");
	list_for_each_entry(page, list, lru) out("%s%lu", comma(nr++), page_to_pfn(page));
	out("]");
	return nr;
}

static void out_pcp(struct per_cpu_pages *pcp, long lengths[NR_PCP_LISTS])
{
	long length;
	int i;

	out("{\"count\":%d,\"high\":%d,\"batch\":%d,\"free_factor\":%d,\"lists\":[", pcp->count,
	    pcp->high, pcp->batch, pcp->free_factor);
	for (i = 0; i < NR_PCP_LISTS; i++) {
		out("%s", comma(i));
		length = out_list(&pcp->lists[i]);
		if (lengths)
			lengths[i] = length;
	}
	out("]}");
}

static void out_free_lists(struct zone *zone, long lengths[MAX_ORDER][MIGRATE_TYPES])
{
	int order, type;

	out(",\"free\":[");
	for (order = 0; order < MAX_ORDER; order++) {
		out("%s[", comma(order));
		for (type = 0; type < MIGRATE_TYPES; type++) {
			out("%s", comma(type));
			lengths[order][type] = out_list(&zone->free_area[order].free_list[type]);
		}
		out("]");
	}
	out("],\"nr_free_o\":[");
	for (order = 0; order < MAX_ORDER; order++)
		out("%s%lu", comma(order), zone->free_area[order].nr_free);
	out("]");
}

static void out_sizes(struct zone *zone)
{
	int i;

	out("\"start\":%lu,\"spanned\":%lu,\"present\":%lu,\"managed\":%lu,", zone->zone_start_pfn,
	    zone->spanned_pages, zone->present_pages,
	    (unsigned long)atomic_long_read(&zone->managed_pages));
	out("\"wmark\":[%lu,%lu,%lu],\"boost\":%lu,\"highatomic\":%lu,\"reserve\":[",
	    zone->_watermark[WMARK_MIN], zone->_watermark[WMARK_LOW], zone->_watermark[WMARK_HIGH],
	    zone->watermark_boost, zone->nr_reserved_highatomic);
	for (i = 0; i < MAX_NR_ZONES; i++)
		out("%s%ld", comma(i), zone->lowmem_reserve[i]);
	out("],");
}

static void dump_zone(const char *type, int op, int number)
{
	struct zone *zone = zone_number(number);
	unsigned long i, nr = nr_pageblocks(zone);
	int cpu;

	out("{\"t\":\"%s\",\"op\":%d,\"z\":%d,\"name\":\"%s\",", type, op, number, zone->name);
	out_sizes(zone);
	out("\"nr_free\":%ld,\"nr_free_diff\":%d,\"pcp\":", nr_free(zone), free_diff(zone, 0));
	out_pcp(lists_of(zone, 0), told_pcp[number]);
	out_free_lists(zone, told[number]);
	out(",\"pb\":\"");
	for (i = 0; i < nr; i++)
		out("%d", pageblock_type_of(zone, i));
	out("\",\"zh\":\"%016llx\",\"ph\":\"%016llx\",\"bh\":\"%016llx\"", hash_free_lists(zone),
	    hash_pcp_lists(lists_of(zone, 0)), hash_pageblocks(zone));
	for_each_online_cpu(cpu)
	{
		if (!cpu)
			continue;
		out(",\"pcp%d\":", cpu);
		out_pcp(lists_of(zone, cpu), NULL);
		out(",\"nr_free_diff%d\":%d", cpu, free_diff(zone, cpu));
	}
	out("}\n");
}

void dump_zones(const char *type, int op)
{
	int i;

	for (i = 0; i < MAX_NR_ZONES; i++)
		if (populated_zone(zone_number(i)))
			dump_zone(type, op, i);
}

/* ---- what has changed ---- */

static long list_length(struct list_head *list)
{
	struct list_head *at;
	long nr = 0;

	list_for_each (at, list)
		nr++;
	return nr;
}

static void out_changed_lists(void)
{
	int zone, order, type, nr = 0;

	out("\"d\":[");
	for (zone = 0; zone < MAX_NR_ZONES; zone++) {
		struct zone *z = zone_number(zone);

		for (order = 0; populated_zone(z) && order < MAX_ORDER; order++) {
			for (type = 0; type < MIGRATE_TYPES; type++) {
				long n = list_length(&z->free_area[order].free_list[type]);

				if (n == told[zone][order][type])
					continue;
				told[zone][order][type] = n;
				out("%s[%d,%d,%d,%ld]", comma(nr++), zone, order, type, n);
			}
		}
	}
	out("],");
}

static void out_changed_pcp_lists(void)
{
	int zone, i, nr = 0;

	out("\"pd\":[");
	for (zone = 0; zone < MAX_NR_ZONES; zone++) {
		struct zone *z = zone_number(zone);

		for (i = 0; populated_zone(z) && i < NR_PCP_LISTS; i++) {
			long n = list_length(&lists_of(z, 0)->lists[i]);

			if (n == told_pcp[zone][i])
				continue;
			told_pcp[zone][i] = n;
			out("%s[%d,%d,%ld]", comma(nr++), zone, i, n);
		}
	}
	out("],");
}

/* CPUs after the first, of which there may be none. */
static void out_other_cpus(struct zone *zone)
{
	int cpu, nr = 0;

	if (num_online_cpus() == 1)
		return;
	out(",\"cpus\":[");
	for_each_online_cpu(cpu)
	{
		struct per_cpu_pages *pcp = lists_of(zone, cpu);

		if (cpu)
			out("%s{\"nd\":%d,\"pc\":%d,\"ff\":%d,\"ph\":\"%016llx\"}", comma(nr++),
			    free_diff(zone, cpu), pcp->count, pcp->free_factor,
			    hash_pcp_lists(pcp));
	}
	out("]");
}

void out_changes(void)
{
	int i, nr = 0;

	out_changed_lists();
	out_changed_pcp_lists();
	out("\"s\":[");
	for (i = 0; i < MAX_NR_ZONES; i++) {
		struct zone *zone = zone_number(i);
		struct per_cpu_pages *pcp;

		if (!populated_zone(zone))
			continue;
		pcp = lists_of(zone, 0);
		out("%s{\"z\":%d,\"nf\":%ld,\"nd\":%d,\"boost\":%lu,\"ha\":%lu,\"pc\":%d,\"ff\":%"
		    "d,",
		    comma(nr++), i, nr_free(zone), free_diff(zone, 0), zone->watermark_boost,
		    zone->nr_reserved_highatomic, pcp->count, pcp->free_factor);
		out("\"zh\":\"%016llx\",\"ph\":\"%016llx\",\"bh\":\"%016llx\"",
		    hash_free_lists(zone), hash_pcp_lists(pcp), hash_pageblocks(zone));
		out_other_cpus(zone);
		out("}");
	}
	out("]");
}

void out_counters(const char *name)
{
	int i, nr = 0;

	out("\"%s\":[", name);
	for (i = 0; i < MAX_NR_ZONES; i++) {
		struct zone *zone = zone_number(i);

		if (populated_zone(zone))
			out("%s{\"z\":%d,\"free\":%ld,\"diff\":%d,\"pcp\":%d,\"boost\":%lu,\"ha\":%"
			    "lu}",
			    comma(nr++), i, nr_free(zone), free_diff(zone, 0),
			    lists_of(zone, 0)->count, zone->watermark_boost,
			    zone->nr_reserved_highatomic);
	}
	out("]");
}
