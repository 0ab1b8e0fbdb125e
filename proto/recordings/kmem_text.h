/*
 * kmem_text.h - one line of a trace of Linux's page allocator, as text: ftrace or perf
 * script, of old and new kernels.
 *
 * Fields are read by their name, never by their place: kernels have added, dropped and
 * respelled them (pfn decimal or with 0x; page a pointer, a hash, "(ptrval)" or a
 * number; GFP flags in old and new words), and vendors put their own between.
 */
#ifndef RECORDINGS_KMEM_TEXT_H
#define RECORDINGS_KMEM_TEXT_H

#include <stdbool.h>
#include <stdint.h>

enum kmem_kind {
	KMEM_ALLOC,	   /* mm_page_alloc */
	KMEM_FREE,	   /* mm_page_free, mm_page_free_direct */
	KMEM_FREE_BATCHED, /* mm_page_free_batched, mm_pagevec_free */
	KMEM_EXTFRAG,	   /* mm_page_alloc_extfrag: a fallback between migratetypes */
	KMEM_DRAIN,	   /* mm_page_pcpu_drain: a block leaves a CPU's list for the buddy */
	KMEM_TAKE,	   /* mm_page_alloc_zone_locked: a block leaves the buddy */
	KMEM_OTHER,	   /* another event of kmem */
};

enum { KMEM_COMM_LENGTH = 32 };

struct kmem_event {
	enum kmem_kind kind;
	uint64_t time_us; /* the trace's clock */
	uint32_t cpu, pid;
	uint32_t pfn; /* 0 in an allocation: it failed */
	uint32_t order;
	uint32_t gfp;
	bool gfp_unknown; /* there was a flag that this kernel does not know */
	char comm[KMEM_COMM_LENGTH];
	bool in_irq;   /* in a hard or soft interrupt; false where the text does not say */
	uint8_t depth; /* how often preemption was disabled; 0 where the text does not say */
	/* Of a fallback: who asked, and whether the pageblock is of that type now. Old kernels
	 * do not say it: told is false. */
	uint32_t migratetype;
	bool owned, told;
};

enum kmem_line {
	KMEM_LINE_EVENT,
	KMEM_LINE_NOISE, /* comments, blank lines, stacks, events of other kinds */
	KMEM_LINE_WRONG, /* begins as an event and lacks what it needs */
};

enum kmem_line kmem_parse(const char *line, struct kmem_event *ret);

#endif
