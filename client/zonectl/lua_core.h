/*
 * lua_core.h - what lua_run.c and lua_machine.c share: a machine's stream of ops, and the
 * handles by which a script holds the machine.
 *
 * A core belongs to Lua (it is a user value of every handle on it) and ends when the last
 * handle is collected. What waits may raise an error, and run callbacks of the script's.
 */
#ifndef LUA_CORE_H
#define LUA_CORE_H

#include "lua_script.h"
#include "packed.h"

enum { NAME_BYTES = 64, WHERE_BYTES = LUA_IDSIZE + 16, MAX_SOURCES = 64 };

enum answer_state {
	ANSWER_PENDING, /* the op was sent */
	ANSWER_THERE,
	ANSWER_LOST, /* it will not come: the stream it was to come over is gone */
};

/* What an op returns to a script. User value 1 is the core, so that it lives as long as
 * somebody may wait; 2 the detail, 3 the data, where there are such. */
struct answer {
	struct core *core;
	const struct contract_op *op;
	uint64_t number;
	uint64_t values[OP_VALUES];
	uint32_t line;	  /* of the script, which sent it */
	uint32_t status;  /* of the machine */
	uint32_t refused; /* or a gRPC status: the op never reached the machine */
	uint8_t source;	  /* index into the core's sources */
	uint8_t state;	  /* enum answer_state */
	bool callback;
	bool has_values; /* they mean something */
};
enum { ANSWER_CORE = 1, ANSWER_DETAIL, ANSWER_DATA };

struct core {
	struct script *script;
	struct core *next, **link; /* in script->machines */
	char name[NAME_BYTES];
	uint64_t id;

	struct zoned_run *run; /* NULL: none is open */
	lua_State *L;	       /* whose stack the callback may use: the thread that waits */
	/* The answers that are not there yet, at their ops' index on the stream, modulo the
	 * capacity (a power of two); NULL: it is there. Of those from `base`, the oldest, to
	 * `end`. A table in the registry, under the ring's address, holds them. */
	struct answer **ring;
	uint64_t base, end, capacity;
	int held;
	char sources[MAX_SOURCES][LUA_IDSIZE];
	unsigned nr_sources;
	/* The function that sent last, held by the registry, and where it is from. */
	const void *sender;
	uint8_t sender_source;

	uint64_t answers[32]; /* by status, since the last flush() said them */
	/* Answers whose callback is to be run, and how many of them have been. */
	unsigned nr_ready, ready_done;
	uint64_t progress;		       /* answers read; tells a wait that things move */
	char refusal[WHERE_BYTES];	       /* "script:line: " of an op the daemon refused */
	char refusal_text[SCRIPT_ERROR_BYTES]; /* empty: none */
};

/* What a script holds: a machine, and on whose behalf it speaks. User value 1 is the
 * core, which all handles of a machine share. */
struct handle {
	struct core *core;
	uint32_t cpu, task;
	char owner[NAME_BYTES];
};

extern const char core_type[], handle_type[], answer_type[];

/* ---- lua_run.c ---- */

/* The metatables of cores and answers. */
void run_types_open(lua_State *L);
/* Opens the stream if there is none. */
void run_open(lua_State *L, struct core *c);
/* Closes the stream: what was unanswered stays so for ever, and is forgotten. */
void run_drop(lua_State *L, struct core *c);
/* Closes it and raises why: rc is what a function of it returned. */
void run_broken(lua_State *L, struct core *c, const char *what, int rc) __attribute__((noreturn));
/* Pushes the answer of the op that is being added to the stream. The value at `handle` is
 * the machine's handle; at `callback`, unless 0, is what to call with the answer. */
void run_push_answer(lua_State *L, struct core *c, const struct contract_op *op, int handle,
		     int callback);
/* Waits for the answer at `index`; for any other value it does nothing. */
void run_wait_answer(lua_State *L, int index);
/* Keeps the number of unanswered ops in bounds; sleepers do not count. */
void run_keep_window(lua_State *L, struct core *c);
/* Waits until every op is answered or asleep. Returns how many sleep. */
uint64_t run_settle(lua_State *L, struct core *c);
/* The i-th field of a list, its data last; NULL: no more. */
static inline const struct contract_field *field_at(const struct contract_fields *fields,
						    unsigned i)
{
	if (i < fields->nr_ints)
		return &fields->ints[i];
	return i == fields->nr_ints ? fields->data : NULL;
}

/* ---- lua_arguments.c ---- */

struct plan *plan_of_op(struct script *s, const struct contract_op *op);
struct plan *plan_of_inspection(struct script *s, const struct contract_inspection *i);
/* The arguments from the table at `table` (`at` is passed over where it is an inspection's)
 * and, before it, from the values at first..table - 1, which are the required arguments in
 * the contract's order; all of them where none is required. What *a points to holds until
 * the next call, and while the values stay on the stack. */
void arguments_from_lua(lua_State *L, struct plan *p, int first, int table, bool has_table,
			struct arguments *a, Zoned__V1__OpContext *context);
/* A word of an op's context from the value at `index`; false: it is none. */
bool context_from_lua(lua_State *L, const char *key, int index, Zoned__V1__OpContext *context);

#endif
