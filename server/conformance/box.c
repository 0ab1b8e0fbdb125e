/*
 * box.c - see box.h. Events are not kept: what is compared is answers and state.
 */
#include "box.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frames/load_state.h"
#include "frames/marks.h"

_Static_assert((int)LOAD_ZONE == STATE_ZONE && (int)LOAD_PAGEBLOCKS == STATE_PAGEBLOCKS &&
		   (int)LOAD_FREE == STATE_FREE && (int)LOAD_PCP_LIST == STATE_PCP_LIST &&
		   (int)LOAD_PCP == STATE_PCP && (int)LOAD_ZONE_WORDS == STATE_ZONE_WORDS &&
		   (int)LOAD_PCP_WORDS == STATE_PCP_WORDS &&
		   (int)LOAD_TYPES_PER_WORD == STATE_TYPES_PER_WORD &&
		   (int)LOAD_MAX_WORDS == STATE_MAX_WORDS,
	       "one format, told to two rooms");

struct engine_config box_config(const struct boot_log *log)
{
	struct engine_config c = {
	    .preset = PRESET_LINUX_6_1,
	    .flags = (log->pae ? CONFIG_PAE : 0) | (log->thp_off ? CONFIG_THP_OFF : 0) |
		     (log->highmem_off ? CONFIG_HIGHMEM_OFF : 0),
	    .vmalloc_bytes = (u32)log->vmalloc,
	    .cpus = log->cpus, /* 0: one */
	    .detail = DETAIL_OPS,
	    .late_pages = log->late_kib / (PAGE_SIZE / 1024),
	    .mem = log->mem,
	    .highmem = log->highmem,
	    .kernelcore = log->kernelcore,
	    .movablecore = log->movablecore,
	    .nr_e820 = log->nr_e820,
	};

	for (u32 i = 0; i < log->nr_e820; i++)
		c.e820[i] = (struct engine_e820){log->e820[i].start, log->e820[i].size,
						 log->e820[i].type, 0};
	return c;
}

static void forget_events(void *user, const struct engine_event *events, u32 nr)
{
	(void)user, (void)events, (void)nr;
}

static void completed(void *user, const struct engine_completion *c)
{
	struct box *b = user;

	b->completed = *c;
	b->nr_completed++;
}

struct box *box_new(const struct engine_config *config, struct conformance_report *r)
{
	struct box *b = calloc(1, sizeof *b);
	const struct sim_hooks hooks = {forget_events, completed, b, 0};
	struct engine_error why = {"no memory"};

	if (b)
		b->sim = sim_new(config, &hooks, &why);
	if (!b || !b->sim) {
		differs(r, "no such machine can be made: %s", why.text);
		free(b);
		return NULL;
	}
	b->e = sim_engine(b->sim);
	return b;
}

struct box *box_new_from(const char *folder, struct conformance_report *r)
{
	struct boot_log *log = calloc(1, sizeof *log);
	struct box *b = NULL;

	if (log && boot_log_read(folder, log)) {
		struct engine_config config = box_config(log);

		b = box_new(&config, r);
	} else {
		differs(r, "no boot messages with a memory map in %s/dmesg", folder);
	}
	free(log);
	return b;
}

/* At the zone's start; behind the host window, and the metadata, if they are there. */
static void reserve(struct engine_config *c, const struct layout *l, const struct zone *z,
		    u32 pages)
{
	pfn_t start = z->start;

	if (start == l->host_start)
		start = l->host_end;
	if (start <= l->metadata_start && l->metadata_start - start < z->end - l->metadata_end)
		start = l->metadata_end;
	c->reserved[c->nr_reserved++] =
	    (struct engine_range){(u64)start << PAGE_SHIFT, (u64)pages << PAGE_SHIFT};
}

/* The machine is made twice: the first one says how much ours keeps; the second one is told to
 * reserve the rest. One that keeps more than Linux did cannot have its figures. */
struct box *box_new_like(const struct boot_log *log, const u32 managed[NR_ZONES],
			 struct conformance_report *r)
{
	struct engine_config config = box_config(log);
	struct box *b = box_new(&config, r);

	if (!b)
		return NULL;
	for (u32 i = ZONE_NORMAL; i < NR_ZONES; i++) {
		const struct zone *z = &b->e->st->frames.zone[i];

		if (z->start >= b->e->st->layout.low_end_pfn || z->managed == managed[i])
			continue;
		if (z->managed < managed[i])
			note(r, "ours keeps %u pages more than Linux did", managed[i] - z->managed);
		else
			reserve(&config, &b->e->st->layout, z, z->managed - managed[i]);
	}
	box_free(b);
	return box_new(&config, r);
}

struct box *box_copy(struct box *b)
{
	struct box *copy = calloc(1, sizeof *copy);
	const struct sim_hooks hooks = {forget_events, completed, copy, 0};

	if (copy)
		copy->sim = sim_copy(b->sim, &hooks);
	if (!copy || !copy->sim) {
		free(copy);
		return NULL;
	}
	copy->e = sim_engine(copy->sim);
	return copy;
}

void box_free(struct box *b)
{
	if (!b)
		return;
	sim_free(b->sim);
	free(b);
}

u32 box_run(struct box *b, const struct engine_op *op)
{
	u32 nr;

	b->res.data = b->data;
	if (sim_lost_reason(b->sim) || sim_execute(b->sim, op, &b->res, false) != SIM_DONE)
		return STATUS_LOST;
	sim_take_events(b->sim, &nr);
	return b->res.status;
}

/* What a CPU may keep of a zone's count while kswapd is awake: its share of the pages
 * between MIN and LOW. Only where all CPUs together may keep more than these; Linux takes
 * any zone for such that it has seen before the marks were set, when a second CPU came. */
static u32 threshold_awake(const struct zone *z, u32 cpus, u32 asleep)
{
	u32 gap = z->mark[MARK_LOW] - z->mark[MARK_MIN], share = gap / cpus;

	if (cpus == 1 && asleep <= gap)
		return asleep;
	if (share > STAT_THRESHOLD_MOST)
		return STAT_THRESHOLD_MOST;
	return share ? share : 1;
}

void box_set_kswapd(struct box *b, bool awake)
{
	for (u32 i = 0; i < NR_ZONES; i++) {
		struct zone *z = &b->e->st->frames.zone[i];
		u32 asleep = marks_stat_threshold(b->e, z->managed);

		z->stat_threshold =
		    awake ? threshold_awake(z, b->e->st->layout.cpus, asleep) : asleep;
	}
}

bool box_load(void *box, const uint8_t *data, uint32_t bytes, bool last)
{
	return box_run(box, &(struct engine_op){.code = OP_LOAD_STATE,
						.args = {last},
						.data = data,
						.data_len = bytes}) == STATUS_OK;
}

/* ---- reports ---- */

bool differs(struct conformance_report *r, const char *format, ...)
{
	va_list args;

	if (*r->difference)
		return false;
	va_start(args, format);
	vsnprintf(r->difference, sizeof r->difference, format, args);
	va_end(args);
	return false;
}

void note(struct conformance_report *r, const char *format, ...)
{
	size_t length = strlen(r->note);
	va_list args;

	if (length && length + 2 < sizeof r->note)
		length += (size_t)snprintf(r->note + length, sizeof r->note - length, "; ");
	va_start(args, format);
	vsnprintf(r->note + length, sizeof r->note - length, format, args);
	va_end(args);
}

void compare(struct conformance_report *r, uint64_t got, uint64_t want, const char *format, ...)
{
	char what[256];
	va_list args;

	r->compared++;
	r->agreed += got == want;
	if (got == want || *r->difference)
		return;
	va_start(args, format);
	vsnprintf(what, sizeof what, format, args);
	va_end(args);
	differs(r, "%s is %llu (0x%llx), Linux has %llu (0x%llx)", what, (unsigned long long)got,
		(unsigned long long)got, (unsigned long long)want, (unsigned long long)want);
}

bool is_cut_line(const struct lines *l, struct conformance_report *r)
{
	if (!lines_cut(l))
		return differs(r, "line %" PRIu64 " is no JSON", lines_number(l));
	note(r, "its last line is cut off, and left out");
	return true;
}

void folder_of(const char *path, char *to, size_t size)
{
	const char *slash = strrchr(path, '/');

	snprintf(to, size, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
}
