/*
 * engine.h - the memory manager's face to the world.
 *
 * A machine is its configuration and the bytes of its RAM. `struct engine` is a
 * handle on them: host pointers and caches, nothing that an answer depends on. It
 * can be thrown away and made again with engine_attach() on the same RAM, in this
 * process, in another, or in the guest kernel.
 *
 * The host provides RAM and a handful of functions (port.h). Nothing here
 * allocates from the host, blocks, reads a clock or keeps a global. The same op
 * stream on the same configuration gives the same results, events and bytes,
 * hosted on x86-64 or freestanding on i386.
 */
#ifndef ENGINE_H
#define ENGINE_H

#include "contract.h"
#include "types.h"

enum {
	ENGINE_MAX_CPUS = 32,
	ENGINE_MAX_E820 = 128,
	ENGINE_MAX_RESERVED = 64,
	ENGINE_MAX_DATA = 65536, /* bytes of one payload */
	ENGINE_ERROR_LENGTH = 200,
	ENGINE_YIELD_FRAMES = 4096, /* a long op calls port_yield() this often */
};

/* What a machine is made from. Part of the digest, but for `detail`. */
struct engine_range {
	u64 start, size; /* bytes */
};

struct engine_e820 {
	u64 start, size; /* bytes */
	u32 type;	 /* enum contract_e820_type; 1 is usable RAM */
	u32 reserved0;
};

enum engine_config_flags {
	CONFIG_PAE = 1,
	CONFIG_EARLY = 2,
	CONFIG_HIGHMEM_OFF = 4,
	CONFIG_THP_OFF = 8,
	CONFIG_POISON_FREE = 16,
};

struct engine_config {
	u32 preset; /* PRESET_* */
	u32 flags;
	u32 page_offset;   /* 0: 0xc0000000 */
	u32 vmalloc_bytes; /* 0: the preset's */
	u32 cpus;	   /* 0: 1 */
	u32 user_fallback; /* USER_FALLBACK_*; 0: any */
	u32 detail;	   /* DETAIL_*; 0: all. Not part of the digest */
	u32 late_pages;	   /* see MachineConfig.late_pages */
	u64 ram;	   /* bytes of the usual PC map; 0: e820 says */
	u64 mem;	   /* ignore RAM from this address on; 0: no limit */
	u64 highmem;	   /* bytes; 0: no cap */
	u64 kernelcore, movablecore;
	u32 nr_e820, nr_reserved;
	struct engine_e820 e820[ENGINE_MAX_E820];
	struct engine_range reserved[ENGINE_MAX_RESERVED];
};

struct engine_error {
	char text[ENGINE_ERROR_LENGTH]; /* one line, names both parts of a contradiction */
};

/* One op. Static ranges (contract_tables.h) have been checked by the caller. */
struct engine_op {
	u32 code; /* OP_* */
	u32 cpu, task;
	u32 owner; /* number of the caller's label on this machine */
	u64 args[OP_ARGS];
	const u8 *data;
	u32 data_len; /* bytes */
};

struct engine_result {
	u64 op; /* number, dense from 1 */
	u32 status;
	u32 data_len; /* bytes at data */
	u64 values[OP_VALUES];
	u8 *data; /* the caller's buffer of ENGINE_MAX_DATA bytes */
};

/* A value of 32 bits. All are 0 when an op's function is called, so that half of one is left
 * alone where a store takes no more than that. */
static inline void result_put(struct engine_result *res, u32 i, u32 value)
{
	if (sizeof(void *) == sizeof(u32))
		__builtin_memcpy(&res->values[i], &value, sizeof value);
	else
		res->values[i] = value;
}

/* A parked op that came to its end inside another op. Given to port_complete(). */
struct engine_completion {
	u64 op; /* the op that had parked */
	u32 status;
	u32 task;
	u64 values[OP_VALUES];
};

/* What happened, in the order in which it happened; words as in the proto. */
struct engine_event {
	u16 kind; /* EVENT_* */
	u16 reserved0;
	u32 w[EVENT_WORDS];
};

struct machine_state;
struct page;

/* Where a request for pages is tried first: by its gfp, and while no policy changes. */
struct page_route {
	u8 zone;
	u8 limit; /* index of engine.page_limit */
	u8 type;  /* MIGRATE_* */
	u8 reserved0;
};

enum {
	PAGE_ROUTES = 64,
	PAGE_LIMITS = 17,
};

struct engine {
	/* Pointer to the byte at kernel virtual address 0 of the direct map, as an
	 * integer: at() adds. In the guest it is 0, which its compiler knows
	 * (ENGINE_IN_PLACE). */
	uintptr_t bias;
	struct machine_state *st; /* cached */
	struct page *mem_map;	  /* cached */
	u8 *pageblocks;		  /* cached: their types, see pageblock_entry() */
	/* Cached, once there are tables: where the PTE of address 0 would be if what the windows
	 * of pkmap and kmap_local have went on to there. See map/window.h. */
	uintptr_t pkmap_ptes, kmap_local_ptes;
	u32 kmap_local_va; /* of CPU 0's first slot; later ones lie below */
	u32 page_offset;   /* cached */
	u32 state_ref;	   /* where st lives */
	/* Of the op being executed, for the frames it allocates. */
	u32 op_owner, op_cpu;
	u32 event_mask[2]; /* kinds wanted, from the detail level */
	/* The host's buffer; port_events() empties it when it is full and the host
	 * empties it after each op. */
	struct engine_event *events, *next_event, *events_end;
	void *port; /* the host's own */
	/* Cached, from zones and policies: what an ordinary request needs to know of them. A
	 * zone serves it while it has more free pages than the limit. See frames/route.h. */
	struct page_route page_route[PAGE_ROUTES];
	s32 page_limit[PAGE_LIMITS];
};

static inline uintptr_t bias_of(const struct engine *e)
{
#ifdef ENGINE_IN_PLACE
	(void)e;
	return 0;
#else
	return e->bias;
#endif
}

/* Before a machine is made or taken up: where its events go. */
static inline void engine_set_events(struct engine *e, struct engine_event *buffer, u32 max)
{
	e->events = e->next_event = buffer;
	e->events_end = buffer + max;
}

/* How many are in the buffer, from its beginning. */
static inline u32 engine_nr_events(const struct engine *e)
{
	return (u32)(e->next_event - e->events);
}

/* They have been taken. */
static inline void engine_forget_events(struct engine *e)
{
	e->next_event = e->events;
}

/* Lowmem in bytes that a configuration needs mapped at bias, and the end of its
 * RAM. False with `why` when the configuration contradicts itself. */
bool engine_plan(const struct engine_config *config, u64 *ret_lowmem_bytes, u64 *ret_ram_end,
		 struct engine_error *why);

/* Makes a machine in RAM that is all zeros. e->bias, the events' buffer and port
 * are set by the caller. Emits the events of boot as those of op 0. */
bool engine_create(struct engine *e, const struct engine_config *config, struct engine_error *why);

/* Takes up a machine that is in RAM already. False when there is none. */
bool engine_attach(struct engine *e, const struct engine_config *config);

/* Executes one op and fills `res` (res->data must be set). */
void engine_execute(struct engine *e, const struct engine_op *op, struct engine_result *res);

/* Changes what is recorded from here on (DETAIL_*). Not part of the state. */
void engine_set_detail(struct engine *e, u32 detail);

u64 engine_op_count(const struct engine *e);
const struct engine_config *engine_config(const struct engine *e);

/* Recounts the machine and returns NULL, or describes the first lie in `why`. */
const char *engine_check(struct engine *e, struct engine_error *why);

/* Answers a question (INSPECT_*): text and rows go to the sink, in order. The
 * machine is not changed, and RAM never touched stays untouched. */
struct inspect_sink {
	void (*text)(struct inspect_sink *sink, const char *bytes, u32 length);
	void (*row)(struct inspect_sink *sink, u32 type, const u64 *values, u32 nr_values);
	bool want_text, want_rows;
};
u32 engine_inspect(struct engine *e, u32 question, const u64 args[OP_ARGS],
		   struct inspect_sink *sink); /* a status: OK, INVALID, NOT_FOUND */

/* Digest of configuration and RAM, by whoever can read all of RAM: the daemon,
 * for both back ends. `next` returns the first frame at or after `from` that was
 * ever touched (a frame of zeros more does no harm), or 0xffffffff; `copy` copies
 * a frame. */
struct engine_digest {
	u64 lo, hi;
};
struct digest_source {
	pfn_t (*next)(struct digest_source *source, pfn_t from);
	void (*copy)(struct digest_source *source, pfn_t pfn, u64 words[PAGE_SIZE / 8]);
};
struct engine_digest engine_digest(struct engine *e, struct digest_source *source);

#endif
