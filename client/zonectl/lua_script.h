/*
 * lua_script.h - what the parts of zonectl's Lua share: the state of a script, its
 * errors, its machines, and the way between Lua's values and the contract's.
 *
 * Everything that depends on an op, an inspection or an enum is read from the
 * contract's tables: a new op is `m:its_word{...}` without a line here. What a script
 * sees is documented in client/experiments/README.md.
 *
 * Errors: a function that takes a lua_State may raise one, unless it says that it does
 * not. Memory is out: the program ends (the allocator sees to it), so that no error
 * can be raised while C code holds something.
 */
#ifndef LUA_SCRIPT_H
#define LUA_SCRIPT_H

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <signal.h>

#include "wire.h"
#include "zonectl.h"

enum {
	/* What there is to say of an error; longer ones are cut. */
	SCRIPT_ERROR_BYTES = 2048,
	/* How long one wait lasts before it looks for Ctrl-C and for sleepers. */
	SCRIPT_SLICE_MS = 20,
};

struct core;
struct plan;

/* One running script, or one shell. A pointer to it lies in every thread's extra space. */
struct script {
	struct ctl *ctl;
	lua_State *L;
	const char *backend;	    /* a name of enum Backend, in lower case */
	struct core *machines;	    /* those whose handles live */
	json_t *made;		    /* names of machines that the script made and did not end */
	ProtobufCMessage *building; /* lua_machine.c's; NULL: none */
	struct plan **plans;	    /* lua_arguments.c's */
	int answer_metatable;	    /* in the registry, where it is found faster than by name */
	/* Of the op that is being made or read: its bytes, and its list. */
	struct wire_buffer packed, list;
	/* The last error that script_raise() raised, so that the exit code of the one that
	 * nobody caught is known. */
	char error[SCRIPT_ERROR_BYTES];
	int code;
	bool bar; /* a progress bar stands on the terminal */
	volatile sig_atomic_t interrupted;
};

/* Modules and lessons that are part of the program; made from *.lua at build time. */
struct embedded {
	const char *name; /* without .lua */
	const char *text;
	size_t length;
};
extern const struct embedded embedded_scripts[];
extern const unsigned nr_embedded_scripts;
/* NULL: none of that name. */
const struct embedded *embedded_find(const char *name);

/* ---- lua_state.c: a script's life ---- */

/* A state with every library and `zoned`. Does not connect. */
struct script *script_new(struct ctl *ctl, const char *backend);
/* Ends its streams. With `destroy` also the machines that it made; their history stays. */
void script_free(struct script *s, bool destroy);
static inline struct script *script_of(lua_State *L)
{
	return *(struct script **)lua_getextraspace(L);
}
/* Raises an error that begins with the caller's script and line; `code` is what the
 * program ends with if nobody catches it. */
int script_raise(lua_State *L, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4), noreturn));
/* The same at a line that was noted earlier ("drain.lua:12: "). */
int script_raise_at(lua_State *L, int code, const char *where, const char *text)
    __attribute__((noreturn));
/* Calls the function below nr_args arguments, as lua_pcall does, with every result left
 * on the stack. False: the error was printed, its exit code is in *ret_code. */
bool script_call(struct script *s, int nr_args, int nr_results, int *ret_code);
/* Compiles a text. EXIT_DONE and a function on the stack, or EXIT_USAGE after a message. */
int script_load(struct script *s, const char *text, size_t length, const char *name);
/* Runs a text from its first line to its last in a state of its own. Returns the exit code
 * for it. a->words[0] is what it is called with. */
int script_run(struct ctl *ctl, const char *backend, const char *text, size_t length,
	       const char *path, const struct args *a, bool destroy);
/* "sim" or "kernel" from the flag's text (NULL: sim); NULL after a sentence on stderr. */
const char *script_backend(const char *command, const char *text);
/* The connection, made if need be. */
struct zoned *script_connection(lua_State *L);
/* A failed call's code (gRPC's, or a zoned_failure): raises it with its exit code. */
int script_refused(lua_State *L, const char *what, int rc) __attribute__((noreturn));
/* Clears the bar, if one is there, before anything else is written to the terminal. */
void script_clear_bar(struct script *s);
/* Raises an error if Ctrl-C was pressed. */
void script_check_interrupt(lua_State *L);

/* ---- lua_machine.c: machines, ops, inspections ---- */

/* zoned.machine, zoned.attach, zoned.machines into the table on top. */
void machines_open(lua_State *L);
/* Sends what is queued on every machine and waits until it is answered or asleep. */
void machines_settle(lua_State *L);
/* A handle on a machine, or NULL if the value is none. */
struct core *machine_at(lua_State *L, int index);
const char *machine_name(const struct core *core);
uint64_t machine_id(const struct core *core);
/* Is the value the answer of an op? Waits for one that is not there yet. */
bool result_at(lua_State *L, int index);
bool result_is_pending(lua_State *L, int index);
/* Pushes an answer's fields as a plain table; false, and nothing pushed: no answer, or one
 * that is not there yet. Raises nothing. */
bool result_push_fields(lua_State *L, int index);
/* Calls `each` for every method of a machine that is no op and no inspection. */
void machine_each_method(void (*each)(void *user, const char *name), void *user);

/* ---- lua_arguments.c ---- */

void plans_free(struct script *s);

/* ---- lua_values.c: Lua <-> messages, JSON ---- */

/* Pushes an integer field's value: enums and flags by name. */
void field_to_lua(lua_State *L, const struct contract_field *f, uint64_t value);
/* Sets in the table on top every column of a row. */
void row_to_lua(lua_State *L, const ProtobufCMessage *m, const struct contract_fields *columns);
void json_to_lua(lua_State *L, const json_t *value);
/* The caller frees it. NULL: err says what JSON cannot hold. Answers that it meets must be
 * there already. Raises nothing. */
json_t *json_from_lua(lua_State *L, int index, char *err, size_t err_size);

/* ---- lua_lib.c: the rest of `zoned` ---- */

int script_open_library(lua_State *L);
/* Prints a value for people: a result in a line, rows as a table, a report as its text. */
void value_print(lua_State *L, int index, FILE *to);

#endif
