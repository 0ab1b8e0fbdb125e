/*
 * sim.h - a simulated machine's body: RAM, CPUs with TLBs, and the fiber its ops
 * run on. Implements port.h.
 *
 * RAM is one sparse anonymous mapping: a frame never touched costs nothing, and
 * 64 GiB of them start on a small host. Nothing here is part of the machine's
 * state: RAM's bytes are, and the engine wrote those.
 */
#ifndef SIM_H
#define SIM_H

#include "engine.h"

struct sim;

struct sim_hooks {
	/* Events of the op in progress; called when the buffer is full. */
	void (*events)(void *user, const struct engine_event *events, u32 nr);
	void (*complete)(void *user, const struct engine_completion *c);
	void *user;
	u32 max_events; /* size of the buffer; 0: 4096 */
};

enum sim_status {
	SIM_DONE, /* the op is done */
	SIM_MORE, /* it yielded: call sim_continue() */
	SIM_LOST, /* the engine met a broken invariant; sim_lost_reason() */
};

/* Makes RAM for the configuration and creates the machine in it. NULL with `why`. */
struct sim *sim_new(const struct engine_config *config, const struct sim_hooks *hooks,
		    struct engine_error *why);
/* A copy of the machine as it is now, at a cost proportional to what was touched.
 * The caller has flushed the TLBs (an op does). NULL: no memory. */
struct sim *sim_copy(struct sim *s, const struct sim_hooks *hooks);
/* A machine's body without a machine in it: its frames are written, its host's state is set,
 * and then it is taken up. Nothing but these three, and sim_free(), before the last. NULL
 * with `why`. */
struct sim *sim_new_empty(const struct engine_config *config, const struct sim_hooks *hooks,
			  struct engine_error *why);
u8 *sim_frame(struct sim *s, pfn_t pfn); /* to be written; NULL: there is no RAM */
bool sim_take_up(struct sim *s);	 /* false: there is no machine in it */
/* What the host of a machine keeps beside its RAM: each CPU's CR3 and its TLB, which may be
 * stale. With it a machine that is taken up goes on exactly as the one that was kept. It has
 * no pointers; its size and the number of CPUs say whether it fits. */
size_t sim_host_state_size(const struct sim *s);
const void *sim_host_state(const struct sim *s);
bool sim_set_host_state(struct sim *s, const void *state, size_t size); /* false: of another */

/* A window on a machine that another executes: check, inspect, digest and resident bytes
 * alone. `ram_file` (arena.h says how it is laid out) stays the caller's and must outlive
 * the view. NULL: there is no machine in it, or no memory. */
struct sim *sim_view(const struct engine_config *config, int ram_file, struct engine_error *why);
void sim_free(struct sim *s);

struct engine *sim_engine(struct sim *s);

/* Who hears of events and completions from here on; the buffer keeps its size. */
void sim_set_hooks(struct sim *s, const struct sim_hooks *hooks);
/* While it is quiet no events are recorded, whatever the machine's detail level: for
 * ops that are replayed. Their counters go on, so the state is the same. */
void sim_set_quiet(struct sim *s, bool quiet);

/* Executes an op. Runs it on the caller's stack until it is done, unless `sliced`:
 * then a long op yields and SIM_MORE is returned. op and res must live until done. */
enum sim_status sim_execute(struct sim *s, const struct engine_op *op, struct engine_result *res,
			    bool sliced);
enum sim_status sim_continue(struct sim *s);
/* What is in the event buffer now; empties it. */
const struct engine_event *sim_take_events(struct sim *s, u32 *ret_nr);

/* engine_check() and engine_inspect(), with a broken invariant met inside them as
 * SIM_LOST would be: the first then returns the reason, the second STATUS_LOST. Whoever
 * may not die with a machine calls these. */
const char *sim_check(struct sim *s, struct engine_error *why);
u32 sim_inspect(struct sim *s, u32 question, const u64 args[OP_ARGS], struct inspect_sink *sink);

/* NULL: it is not lost. Once it is, only this, sim_take_events() and sim_free() work. */
const char *sim_lost_reason(const struct sim *s);
/* Accesses that a TLB entry served and the tables would not have: each one is a flush
 * that the engine forgot. */
u64 sim_stale_hits(const struct sim *s);
u64 sim_resident_bytes(const struct sim *s);
struct engine_digest sim_digest(struct sim *s);

/* The frames of RAM that hold anything but zeros, in order of number, without those of the
 * host window. The machine executes nothing meanwhile. */
struct sim_walk;
struct sim_walk *sim_walk_new(struct sim *s); /* NULL: no memory */
void sim_walk_free(struct sim_walk *w);
/* The next one and its bytes; 0xffffffff: there are no more. */
pfn_t sim_walk_next(struct sim_walk *w, const u8 **ret_bytes);
/* Writes them into a file laid out as for sim_view(), which has holes there. */
bool sim_write_ram(struct sim *s, int ram_file);

/* Reads physical memory without touching what was never touched (zeros then). */
void sim_read_physical(struct sim *s, paddr_t paddr, void *to, u32 bytes);

#endif
