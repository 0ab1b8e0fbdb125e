/*
 * layout_inspect.c - the address space as people look at it: a table, ascending, and
 * a picture, with the highest address on top.
 */
#include "../event.h"
#include "../text.h"
#include "../wings.h"

struct part {
	u32 kind;	/* LAYOUT_* */
	u64 start, end; /* virtual */
	u64 paddr;	/* of what has one */
	bool inside;	/* part of the one before it */
};

enum { MAX_PARTS = 32 };

struct parts {
	u32 nr;
	struct part part[MAX_PARTS];
};

static const char *const part_names[] = {
    [LAYOUT_USER] = "user",
    [LAYOUT_DIRECT_MAP] = "direct map",
    [LAYOUT_GAP] = "-",
    [LAYOUT_VMALLOC] = "vmalloc",
    [LAYOUT_PKMAP] = "pkmap",
    [LAYOUT_FIXMAP] = "fixmap",
    [LAYOUT_KMAP_LOCAL] = "kmap_local",
    [LAYOUT_HOST] = "host window",
    [LAYOUT_LDT] = "LDT",
    [LAYOUT_CPU_ENTRY] = "CPU entry",
    [LAYOUT_METADATA] = "metadata",
};

static const char *const zone_names[NR_ZONES] = {"DMA", "Normal", "HighMem", "Movable"};

/* Parts come in order of address, but for those inside another; what lies between two
 * is a gap. */
static void add_part(struct parts *p, u32 kind, u64 start, u64 end, u64 paddr)
{
	u64 reached = 0;

	if (start >= end)
		return;
	for (u32 i = 0; i < p->nr; i++)
		if (!p->part[i].inside)
			reached = p->part[i].end;
	if (start > reached)
		p->part[p->nr++] = (struct part){LAYOUT_GAP, reached, start, 0, false};
	p->part[p->nr++] = (struct part){kind, start, end, paddr, start < reached};
}

static void collect(const struct layout *l, struct parts *p)
{
	u64 pkmap_end = (u64)l->pkmap_start + ((u64)l->pkmap_slots << PAGE_SHIFT);
	bool pkmap_low = l->pkmap_start < l->page_offset;
	u64 metadata = (u64)l->metadata_start << PAGE_SHIFT;
	u64 host = (u64)l->host_start << PAGE_SHIFT;

	p->nr = 0;
	add_part(p, LAYOUT_USER, 0, l->task_size, 0);
	if (pkmap_low)
		add_part(p, LAYOUT_PKMAP, l->pkmap_start, pkmap_end, 0);
	add_part(p, LAYOUT_DIRECT_MAP, l->page_offset, l->high_memory, 0);
	add_part(p, LAYOUT_METADATA, l->page_offset + metadata,
		 l->page_offset + ((u64)l->metadata_end << PAGE_SHIFT), metadata);
	add_part(p, LAYOUT_VMALLOC, l->vmalloc_start, l->vmalloc_end, 0);
	if (!pkmap_low)
		add_part(p, LAYOUT_PKMAP, l->pkmap_start, pkmap_end, 0);
	add_part(p, LAYOUT_LDT, l->ldt_start, l->ldt_end, 0);
	add_part(p, LAYOUT_CPU_ENTRY, l->cpu_entry_start, l->cpu_entry_end, 0);
	add_part(p, LAYOUT_FIXMAP, l->fixmap_start, (u64)l->fixmap_top + PAGE_SIZE, 0);
	if (l->host_end > l->host_start)
		add_part(p, LAYOUT_HOST, HOST_WINDOW_VA, HOST_WINDOW_VA + HOST_WINDOW_BYTES, host);
	add_part(p, LAYOUT_KMAP_LOCAL, fix_to_va(l, l->fix_kmap_end),
		 (u64)fix_to_va(l, l->fix_kmap_begin) + PAGE_SIZE, 0);
}

static void say_size(struct inspect_sink *sink, u64 bytes)
{
	if (bytes & ((1 << 20) - 1))
		say(sink, "%7u KiB", (u32)(bytes >> 10));
	else
		say(sink, "%7u MiB", (u32)(bytes >> 20));
}

static void say_table(const struct parts *p, struct inspect_sink *sink)
{
	for (u32 i = 0; i < p->nr; i++) {
		const struct part *part = &p->part[i];

		say(sink, "0x%08x-0x%08x ", (u32)part->start, (u32)(part->end - 1));
		say_size(sink, part->end - part->start);
		say(sink, "  %s%s", part->inside ? "  " : "", part_names[part->kind]);
		if (part->paddr)
			say(sink, " at physical 0x%08llx", (unsigned long long)part->paddr);
		say(sink, "\n");
		ROW(sink, ROW_LAYOUT_PARTS, part->kind, part->start, part->end & 0xffffffff,
		    part->paddr);
	}
}

static void say_picture(const struct parts *p, struct inspect_sink *sink)
{
	static const char line[] = "+----------------------------+";

	say(sink, "\n 4 GiB     %s\n", line);
	for (u32 i = p->nr; i-- > 0;) {
		const struct part *part = &p->part[i];

		if (part->inside)
			continue;
		say(sink, "           | %-13s", part_names[part->kind]);
		say_size(sink, part->end - part->start);
		say(sink, "   |\n");
		/* What is inside stands behind its owner in the list. */
		for (u32 k = i + 1; k < p->nr && p->part[k].inside; k++) {
			say(sink, "           |   %-11s", part_names[p->part[k].kind]);
			say_size(sink, p->part[k].end - p->part[k].start);
			say(sink, "   |\n");
		}
		say(sink, "0x%08x %s\n", (u32)part->start, line);
	}
}

static void say_frames(const struct layout *l, struct inspect_sink *sink)
{
	say(sink, "\nframes 1 to %u:\n", l->max_pfn - 1);
	for (u32 z = 0; z < NR_ZONES; z++)
		if (l->zone_start[z] < l->zone_end[z])
			say(sink, "%8u-%-8u %s\n", l->zone_start[z], l->zone_end[z] - 1,
			    zone_names[z]);
	if (l->unused_bytes)
		say(sink, "not used: %u MiB of RAM from 0x%llx on\n", (u32)(l->unused_bytes >> 20),
		    (unsigned long long)l->unused_start);
}

u32 inspect_layout(struct engine *e, const u64 args[OP_ARGS], struct inspect_sink *sink)
{
	struct parts parts;

	(void)args;
	collect(&e->st->layout, &parts);
	say_table(&parts, sink);
	say_picture(&parts, sink);
	say_frames(&e->st->layout, sink);
	return STATUS_OK;
}
