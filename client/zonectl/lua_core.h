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

enum { NAME_BYTES = 64, WHERE_BYTES = LUA_IDSIZE + 16, MAX_SOURCES = 64 };

/* An op that was sent, and where in the script. */
struct slot {
	uint32_t code; /* of the op; 0: answered */
	uint32_t line;
	uint8_t source; /* index into sources */
	bool callback;
};

struct core {
	struct script *script;
	struct core *next, **link; /* in script->machines */
	char name[NAME_BYTES];
	uint64_t id;

	struct zoned_run *run; /* NULL: none is open */
	lua_State *L;	       /* whose stack the callback may use: the thread that waits */
	struct slot *slots;
	size_t nr_slots, capacity;
	uint64_t base;
	char sources[MAX_SOURCES][LUA_IDSIZE];
	unsigned nr_sources;

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

extern const char core_type[], handle_type[], pending_type[], answered_type[];

/* ---- lua_run.c ---- */

/* The metatables of cores and answers. */
void run_types_open(lua_State *L);
/* Opens the stream if there is none. */
void run_open(lua_State *L, struct core *c);
/* Closes the stream: what was unanswered stays so for ever, and is forgotten. */
void run_drop(lua_State *L, struct core *c);
/* Closes it and raises why: rc is what a function of it returned. */
void run_broken(lua_State *L, struct core *c, const char *what, int rc) __attribute__((noreturn));
/* Pushes the answer of the op that was just added to the stream. The value at `handle` is
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
const struct contract_field *field_at(const struct contract_fields *fields, unsigned i);

#endif
