/*
 * machine_priv.h - what the files of this room share.
 *
 * Bookkeeping that cannot get memory from the host aborts the process: what was
 * acknowledged is in the history, and a daemon that forgot who is asleep would lie.
 */
#ifndef MACHINE_PRIV_H
#define MACHINE_PRIV_H

#include <sys/queue.h>

#include "backend.h"
#include "machine.h"

/* Requests of one client, first in, first out. Exists while it has any. */
struct machine_lane {
	uint64_t client;
	struct machine_request *head, *tail;
	bool is_old;			/* it has had a visit since it came to be */
	TAILQ_ENTRY(machine_lane) link; /* of its round */
	struct machine_lane *chain;	/* of its hash bucket */
};

enum { LANE_BUCKETS = 64 };

struct lanes {
	TAILQ_HEAD(, machine_lane) round[2]; /* of new ones and of old ones, next one first */
	bool is_old;			     /* the round that was visited last */
	struct machine_lane *visited;	     /* NULL: its visit is over */
	unsigned credit;		     /* requests that it may still have in this visit */
	unsigned queued;		     /* requests in all lanes */
	struct machine_lane *buckets[LANE_BUCKETS];
	struct machine_lane *spare; /* freed ones */
};

void lanes_init(struct lanes *l);
void lanes_put(struct lanes *l, struct machine_request *r);
struct machine_request *lanes_take(struct lanes *l); /* NULL: none */
void lanes_remove(struct lanes *l, struct machine_request *r);
/* Calls fn with each request; fn may remove it. */
void lanes_each(struct lanes *l, void (*fn)(void *arg, struct machine_request *r), void *arg);
void lanes_clear(struct lanes *l); /* frees the lanes; there are no requests left */

struct machine_label {
	uint32_t number; /* 0: not used by any op yet */
	uint32_t length;
	uint64_t hash;
	char text[]; /* zero-terminated */
};

struct labels {
	struct machine_label **table; /* open addressing; a power of two */
	struct machine_label **by_number;
	uint32_t nr, table_size, numbered, numbers_size;
};

struct machine_label *labels_find(struct labels *l, const char *text, size_t length,
				  unsigned limit);
/* Gives it the next number, or the one it had. */
void labels_number(struct labels *l, struct machine_label *label, uint32_t number);
void labels_forget_numbers(struct labels *l);
void labels_clear(struct labels *l);

struct parked_op {
	uint64_t op;
	struct machine_request *request; /* who waits; NULL: nobody */
	bool stale;			 /* not replayed yet */
};

struct machine {
	struct machines *ms;
	uint64_t id;
	char name[MACHINE_NAME_LENGTH + 1];
	enum machine_status state;
	bool snapshot;
	bool booted;   /* not early any more */
	bool sane;     /* the engine can be looked into though the machine is LOST */
	bool fresh;    /* made in this turn */
	bool ending;   /* destroyed in this turn */
	bool touched;  /* on the registry's list of those in this turn's transaction */
	bool is_ready; /* on the registry's list */
	const struct backend_type *type;
	struct backend *backend; /* NULL before machine_adopt() */
	struct engine_config config;
	uint64_t ops;
	uint64_t replayed; /* of them, while RECOVERING */
	uint64_t resident; /* when last measured; only if there is a limit */
	uint64_t measure_after_ns;
	int64_t created_ns;
	char reason[MACHINE_REASON_LENGTH];

	struct lanes lanes;
	struct machine_request *running, *running_last; /* with the back end */
	uint32_t nr_running;
	bool is_paused;		      /* takes no op up: somebody wants to look into it */
	struct machine_copy *copying; /* of the running op; NULL: none */
	struct machine_look *look; /* under way; it may be into a back end that is no longer ours */
	uint8_t *data;		   /* ENGINE_MAX_DATA bytes for the oldest running op's result */

	/* Of the running op. */
	struct engine_event *events; /* what did not fit the back end's buffer */
	uint32_t nr_events, max_events;
	struct engine_completion *completions;
	uint32_t nr_completions, max_completions;

	struct parked_op *parked; /* by op number */
	uint32_t nr_parked, max_parked;
	struct labels labels;

	struct machine *ready_next, *ready_prev;
	struct machine *touched_next;
	struct machine *all_next; /* by id */
	struct machine *name_chain;
};

enum { NAME_BUCKETS = 256, FENCES = 1024 };

struct fence {
	uint64_t machine, token, sequence, call;
};

struct scratch_chunk;

struct machines {
	struct machines_hooks hooks;
	struct machines_limits limits;
	uint64_t generation;
	uint64_t resident; /* of the process */
	unsigned nr;
	unsigned nr_paused, nr_looks, nr_copying;
	struct machine *all;
	struct machine *ready; /* ring; the next one to run */
	struct machine *touched;
	struct machine *names[NAME_BUCKETS];
	struct fence fences[FENCES]; /* by token; a collision forgets the older one */
	struct scratch_chunk *scratch;
};

/* Makes *items hold at least `need` items of `size` bytes. */
void *grow(void *items, uint32_t *max, uint32_t need, size_t size);
uint64_t hash_bytes(const void *bytes, size_t length);
/* Bytes that live until the turn is over. */
uint8_t *scratch_copy(struct machines *ms, const uint8_t *bytes, size_t length);
void scratch_reset(struct machines *ms);

/* Executes up to max_ops of a machine's ops. False: there is nothing to do now. */
bool machine_run(struct machine *m, unsigned max_ops, unsigned *ret_ops);
bool machine_has_work(const struct machine *m);
void machine_ready(struct machine *m); /* puts it on the list if it has work */
void machine_unready(struct machine *m);
/* Something of it is in this turn's transaction. */
static inline void machine_touch(struct machine *m)
{
	if (m->touched)
		return;
	m->touched = true;
	m->touched_next = m->ms->touched;
	m->ms->touched = m;
}
void machine_free(struct machine *m);
/* Is our back end used by a thread of the pool? */
bool machine_is_looked_into(const struct machine *m);
void machine_measure(struct machine *m, uint64_t now_ns);
void machine_end_request(struct machine_request *r, enum machine_error error, const char *why);
/* Forgets the op that is half done. */
void machine_drop_running(struct machine *m, enum machine_error error);
void machine_refuse_queued(struct machine *m, enum machine_error error, const char *why,
			   bool own_too);
void machine_release_parked(struct machine *m, enum machine_error error, const char *why);
void machine_roll_back(struct machine *m);
/* The simulation inside a replica, to which nothing but replica_free() may follow. */
struct replica;
struct sim *replica_take_sim(struct replica *r);
/* A machine that nobody knows of yet, without a back end. */
struct machine *machine_make(struct machines *ms, const char *name, size_t length,
			     const struct backend_type *type, const struct engine_config *config);
/* May there be one more of this name? */
enum machine_error machines_may_add(struct machines *ms, const char *name, size_t length);
/* A look that no rule of machine_look() refuses: the machine has an op half done, and
 * whoever looks is that op. */
void machine_begin_look(struct machine *m, uv_loop_t *loop, struct machine_look *l);

/* copy.c. False: there is no thread for it, or nothing to be copied: machines_copy() does
 * without. True: the machine waits, and goes on with machine_copied(). */
bool machine_begin_copy(struct machine *m);
bool machine_copied(const struct machine *m); /* the running op's copy is made */
/* The copy becomes the caller's: a machine that is in no registry yet, with a back end. NULL:
 * none was made for want of memory. */
struct machine *machine_take_copy(struct machine *m);
/* The op that wanted the copy is no more. */
void machine_forget_copy(struct machine *m);

/* A status for Snapshot or Fork, whose op the engine has executed. */
uint32_t machines_copy(struct machine *from, const struct machine_request *r);
bool machine_attach_backend(struct machine *m, struct backend *b);
extern const struct backend_hooks machine_backend_hooks;

#endif
