/*
 * lua_state.c - a script's life: its state, its errors and exit codes, `zonectl run`.
 *
 * An error is a text that begins with script and line, as Lua's own are. What the
 * program ends with if nobody catches it stands beside it in struct script: the code
 * holds for exactly that text, and every other uncaught error is the script's own.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lua_script.h"

enum { SCRIPT_BYTES = 16 << 20 };

/* ---- errors ---- */

static void raise_text(lua_State *L, int code) __attribute__((noreturn));

/* Raises the text on top of the stack. */
static void raise_text(lua_State *L, int code)
{
	struct script *s = script_of(L);

	snprintf(s->error, sizeof s->error, "%s", lua_tostring(L, -1));
	s->code = code;
	lua_error(L);
	abort(); /* lua_error() does not return, and does not say so */
}

int script_raise(lua_State *L, int code, const char *format, ...)
{
	char text[SCRIPT_ERROR_BYTES];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	luaL_where(L, 1);
	lua_pushstring(L, text);
	lua_concat(L, 2);
	raise_text(L, code);
}

int script_raise_at(lua_State *L, int code, const char *where, const char *text)
{
	lua_pushfstring(L, "%s%s", where, text);
	raise_text(L, code);
}

static int exit_code_of(int rc)
{
	switch (rc) {
	case ZONED_UNREACHABLE:
	case ZONED_LOST: return EXIT_UNREACHABLE;
	case ZONED_ARGUMENT: return EXIT_USAGE;
	case ZONED_NO_MEMORY: return EXIT_FILE;
	default: return EXIT_REFUSED;
	}
}

int script_refused(lua_State *L, const char *what, int rc)
{
	script_raise(L, exit_code_of(rc), "%s: %s: %s", what, zoned_code_name(rc),
		     zoned_error(script_of(L)->ctl->z));
}

void script_check_interrupt(lua_State *L)
{
	struct script *s = script_of(L);

	if (s->interrupted) {
		s->interrupted = 0;
		luaL_error(L, "interrupted");
	}
}

/* The message handler: adds who called whom, where that is more than one line. */
static int add_callers(lua_State *L)
{
	const char *text = lua_tostring(L, 1);
	lua_Debug at;
	int level, lines = 0;

	if (!text)
		text = luaL_tolstring(L, 1, NULL);
	lua_pushstring(L, text);
	for (level = 1; lua_getstack(L, level, &at); level++) {
		lua_getinfo(L, "Sl", &at);
		/* The first is where it happened, which the text itself begins with. */
		if (at.currentline > 0 && lines++ > 0)
			lua_pushfstring(L, "%s\n  called from %s:%d", lua_tostring(L, -1),
					at.short_src, at.currentline);
	}
	return 1;
}

void script_clear_bar(struct script *s)
{
	if (s->bar)
		fputs("\r\033[K", stderr);
	s->bar = false;
}

bool script_call(struct script *s, int nr_args, int nr_results, int *ret_code)
{
	int handler = lua_gettop(s->L) - nr_args, rc;
	size_t own;
	const char *text;

	lua_pushcfunction(s->L, add_callers);
	lua_insert(s->L, handler);
	s->error[0] = '\0';
	rc = lua_pcall(s->L, nr_args, nr_results, handler);
	lua_remove(s->L, handler);
	script_clear_bar(s);
	if (rc == LUA_OK)
		return true;
	text = lua_tostring(s->L, -1);
	own = strlen(s->error);
	*ret_code = own && strncmp(text, s->error, own) == 0 ? s->code : EXIT_NOT_OK;
	complain("%s", text);
	lua_pop(s->L, 1);
	return false;
}

int script_load(struct script *s, const char *text, size_t length, const char *name)
{
	/* A first line for the shell ("#!") is none for Lua; its line number stays. */
	if (length && text[0] == '#') {
		const char *newline = memchr(text, '\n', length);
		size_t skipped = newline ? (size_t)(newline - text) : length;

		text += skipped;
		length -= skipped;
	}
	if (luaL_loadbufferx(s->L, text, length, name, "t") == LUA_OK)
		return EXIT_DONE;
	complain("%s", lua_tostring(s->L, -1));
	lua_pop(s->L, 1);
	return EXIT_USAGE;
}

/* ---- the state ---- */

/* A state without memory has nothing left to do; see the header. */
static void *allocate(void *user, void *old, size_t old_size, size_t size)
{
	(void)user;
	(void)old_size;
	if (!size) {
		free(old);
		return NULL;
	}
	return must(realloc(old, size));
}

const struct embedded *embedded_find(const char *name)
{
	unsigned i;

	for (i = 0; i < nr_embedded_scripts; i++)
		if (strcmp(embedded_scripts[i].name, name) == 0)
			return &embedded_scripts[i];
	return NULL;
}

/* require "lesson" finds what is part of the program. */
static int search_embedded(lua_State *L)
{
	const struct embedded *e = embedded_find(luaL_checkstring(L, 1));
	char name[64];

	if (!e) {
		lua_pushfstring(L, "no module '%s' in zonectl", lua_tostring(L, 1));
		return 1;
	}
	snprintf(name, sizeof name, "@%s.lua", e->name);
	if (luaL_loadbufferx(L, e->text, e->length, name, "t") != LUA_OK)
		return lua_error(L);
	return 1;
}

static void add_searcher(lua_State *L)
{
	lua_getglobal(L, "package");
	lua_getfield(L, -1, "searchers");
	lua_pushcfunction(L, search_embedded);
	lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
	lua_pop(L, 2);
}

struct script *script_new(struct ctl *ctl, const char *backend)
{
	struct script *s = must(calloc(1, sizeof *s));

	s->ctl = ctl;
	s->backend = backend;
	s->made = json_object();
	s->L = must(lua_newstate(allocate, NULL));
	*(struct script **)lua_getextraspace(s->L) = s;
	luaL_openlibs(s->L);
	add_searcher(s->L);
	luaL_requiref(s->L, "zoned", script_open_library, 1);
	lua_pop(s->L, 1);
	return s;
}

static void destroy_made(struct script *s)
{
	Zoned__V1__DestroyRequest request = ZONED__V1__DESTROY_REQUEST__INIT;
	ProtobufCMessage *reply;
	const char *name;
	json_t *value;

	json_object_foreach (s->made, name, value) {
		request.machine = (char *)(uintptr_t)name;
		if (!zoned_call(s->ctl->z, "/zoned.v1.Machines/Destroy", &request.base,
				&zoned__v1__destroy_response__descriptor, s->ctl->timeout_ms,
				&reply))
			message_free(reply);
	}
}

void script_free(struct script *s, bool destroy)
{
	lua_close(s->L);
	message_free(s->building);
	plans_free(s);
	wire_free(&s->packed);
	wire_free(&s->list);
	if (destroy && s->ctl->z)
		destroy_made(s);
	json_decref(s->made);
	free(s);
}

struct zoned *script_connection(lua_State *L)
{
	struct ctl *ctl = script_of(L)->ctl;
	char why[SCRIPT_ERROR_BYTES];
	int rc;

	if (ctl->z)
		return ctl->z;
	complain_to(why, sizeof why);
	rc = ctl_connect(ctl);
	complain_to(NULL, 0);
	if (rc != EXIT_DONE)
		script_raise(L, rc, "%s", why);
	return ctl->z;
}

/* ---- zonectl run ---- */

static const struct flag run_flags[] = {
    {"backend", 'b', "sim|kernel", "where zoned.machine makes machines; default sim"},
    {"destroy", 0, NULL, "end the machines that the script made when it ends; history stays"},
};
enum { NR_RUN_FLAGS = sizeof run_flags / sizeof *run_flags };

const char *script_backend(const char *command, const char *text)
{
	if (!text || strcasecmp(text, "sim") == 0)
		return "sim";
	if (strcasecmp(text, "kernel") == 0)
		return "kernel";
	usage_error("%s: --backend %s is neither sim nor kernel", command, text);
	return NULL;
}

/* What the script sees as `arg` and `...`. Leaves the latter on the stack. */
static int push_arguments(lua_State *L, const struct args *a)
{
	unsigned i;

	lua_createtable(L, (int)a->nr_words, 1);
	for (i = 0; i < a->nr_words; i++) {
		lua_pushstring(L, a->words[i]);
		lua_rawseti(L, -2, i);
	}
	lua_setglobal(L, "arg");
	luaL_checkstack(L, (int)a->nr_words + 4, "too many arguments");
	for (i = 1; i < a->nr_words; i++)
		lua_pushstring(L, a->words[i]);
	return a->nr_words ? (int)a->nr_words - 1 : 0;
}

static int settle_all(lua_State *L)
{
	machines_settle(L);
	return 0;
}

int script_run(struct ctl *ctl, const char *backend, const char *text, size_t length,
	       const char *path, const struct args *a, bool destroy)
{
	struct script *s = script_new(ctl, backend);
	char *name = must(malloc(strlen(path) + 2));
	int rc;

	sprintf(name, "@%s", path);
	rc = script_load(s, text, length, name);
	free(name);
	/* What it sent and did not wait for is done before it ends. */
	if (rc == EXIT_DONE && script_call(s, push_arguments(s->L, a), 0, &rc)) {
		lua_pushcfunction(s->L, settle_all);
		script_call(s, 0, 0, &rc);
	}
	fflush(stdout);
	script_free(s, destroy);
	return rc;
}

static void run_help(void)
{
	printf("zonectl run - runs a Lua script against the daemon\n\n"
	       "usage: zonectl run SCRIPT [ARGUMENTS]; - reads it from standard input\n\n"
	       "  local m = zoned.machine{name=\"m0\", ram=\"2G\", split=\"3G\"}\n"
	       "  local page = zoned.expect{m:alloc{gfp=\"GFP_HIGHUSER\", order=0}}\n"
	       "  print(page.pfn, m:kmap(page.pfn))\n\n"
	       "Every op and every inspection is a method of a machine, by its word on the\n"
	       "command line; client/experiments/README.md tells all of it. Arguments that begin\n"
	       "with a dash stand behind a --. `zonectl shell` is the same line by line, and\n"
	       "`zonectl lesson` lists scripts to learn from.\n\n");
	print_flags("flags:", run_flags, NR_RUN_FLAGS);
	print_flags("\nfor every command:", global_flags, nr_global_flags);
	printf("\nexit codes:\n"
	       "  0  the script ran to its end\n"
	       "  1  zoned.expect found something else, or the script ended with an error\n"
	       "  2  the command line; no Lua; an op, argument or value that the contract "
	       "does not know\n"
	       "  3  the daemon cannot be reached, or the connection was lost\n"
	       "  4  the daemon answered with a gRPC error\n"
	       "  5  m:check() found something that does not add up\n"
	       "  6  the script could not be read\n"
	       "or what the script itself gives to os.exit().\n");
}

int run_command(struct ctl *ctl, int argc, char **argv)
{
	const char *backend;
	uint8_t *text = NULL;
	size_t length;
	struct args a;
	int rc = args_parse(ctl, "run", argc, argv, run_flags, NR_RUN_FLAGS, &a);

	if (rc != EXIT_DONE)
		return rc;
	if (ctl->help) {
		run_help();
		goto out;
	}
	backend = script_backend("run", args_text(&a, "backend"));
	if (!backend)
		rc = EXIT_USAGE;
	else if (!a.nr_words)
		rc = usage_error("run: which script? zonectl run SCRIPT [ARGUMENTS]");
	else if (!(text = read_file(a.words[0], SCRIPT_BYTES, &length)))
		rc = EXIT_FILE;
	else
		rc = script_run(ctl, backend, (const char *)text, length,
				strcmp(a.words[0], "-") ? a.words[0] : "stdin", &a,
				args_has(&a, "destroy"));
	free(text);
out:
	args_free(&a);
	return rc;
}
