/*
 * shell.c - `zonectl shell`: Lua line by line, with history and completion.
 *
 * A chunk may take several lines: what Lua calls unfinished is read on. A chunk that is
 * an expression is printed. Ctrl-C at the prompt throws the chunk away; while something
 * runs it raises an error there: a hook stops Lua, and waits look at the same flag.
 * Without a terminal it reads lines as they come, prompts for nothing, and ends with the
 * first failure's exit code.
 */
#include <errno.h>
#include <histedit.h>
#include <locale.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

#include "lua_script.h"

enum { HISTORY_LINES = 2000, CHUNK_BYTES = 1 << 20 };

struct shell {
	struct script *script;
	EditLine *el; /* NULL: no terminal */
	History *history;
	char *chunk; /* lines so far that are no whole chunk yet */
	size_t length;
	int complete;	/* registry reference of the completion's function */
	bool cancelled; /* Ctrl-C at the prompt */
	int code;
};

/* A signal handler has no other way to it. */
static struct script *running;

/* ---- Ctrl-C ---- */

static void stop_hook(lua_State *L, lua_Debug *at)
{
	(void)at;
	lua_sethook(L, NULL, 0, 0);
	script_check_interrupt(L);
}

static void on_interrupt(int signal)
{
	(void)signal;
	running->interrupted = 1;
	/* What lua_sethook() promises to be allowed here. */
	lua_sethook(running->L, stop_hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1000);
}

static void catch_interrupts(struct script *s)
{
	struct sigaction action = {.sa_handler = on_interrupt};

	running = s;
	sigemptyset(&action.sa_mask);
	sigaction(SIGINT, &action, NULL);
}

/* At the prompt SIGINT is held back but while a key is waited for, so that one which
 * falls between a line's end and the next prompt is not lost. */
static void hold_interrupts(bool held)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigprocmask(held ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL);
}

static int read_key(EditLine *el, wchar_t *c)
{
	struct pollfd in = {STDIN_FILENO, POLLIN, 0};
	mbstate_t state = {0};
	sigset_t open;

	(void)el;
	sigprocmask(SIG_BLOCK, NULL, &open);
	sigdelset(&open, SIGINT);
	for (;;) {
		ssize_t n;
		char byte;

		if (running->interrupted)
			return -1;
		if (ppoll(&in, 1, NULL, &open) < 0) {
			if (errno == EINTR)
				continue;
			return -1;
		}
		n = read(STDIN_FILENO, &byte, 1);
		if (n <= 0)
			return (int)n;
		switch (mbrtowc(c, &byte, 1, &state)) {
		case (size_t)-2: continue; /* there is more of it */
		case (size_t)-1: memset(&state, 0, sizeof state); continue;
		default: return 1;
		}
	}
}

static void forget_interrupt(struct script *s)
{
	lua_sethook(s->L, NULL, 0, 0);
	s->interrupted = 0;
}

/* ---- completion: the words, for shell.lua ---- */

struct list {
	lua_State *L;
	lua_Integer n;
};

static void add_word(void *user, const char *word)
{
	struct list *list = user;
	char name[64];
	size_t i;

	snprintf(name, sizeof name, "%s", word);
	for (i = 0; name[i]; i++)
		if (name[i] == '-')
			name[i] = '_';
	lua_pushstring(list->L, name);
	lua_rawseti(list->L, -2, ++list->n);
}

/* core.methods(which): "ops", "inspections" or "all" */
static int core_methods(lua_State *L)
{
	const char *which = luaL_checkstring(L, 1);
	bool all = strcmp(which, "all") == 0;
	struct list list = {.L = L};
	unsigned i;

	lua_newtable(L);
	for (i = 0; i < OP_CODE_END && (all || strcmp(which, "ops") == 0); i++)
		if (contract_ops[i].code)
			add_word(&list, contract_ops[i].word);
	for (i = 0; i < contract_nr_inspections && (all || which[0] == 'i'); i++)
		add_word(&list, contract_inspections[i].word);
	if (all)
		machine_each_method(add_word, &list);
	return 1;
}

/* name = {values} into the table on top. */
static void add_field(lua_State *L, const char *name, const struct contract_enum *const *enums)
{
	lua_Integer n = 0;
	unsigned k, i;

	lua_newtable(L);
	for (k = 0; enums && k < 2 && enums[k]; k++)
		for (i = 0; i < enums[k]->nr_values; i++) {
			lua_pushstring(L, enums[k]->values[i].name);
			lua_rawseti(L, -2, ++n);
		}
	lua_setfield(L, -2, name);
}

/* The same of words with commas between. */
static void add_words(lua_State *L, const char *name, const char *words)
{
	lua_Integer n = 0;

	lua_newtable(L);
	while (*words) {
		size_t length = strcspn(words, ", ");

		lua_pushlstring(L, words, length);
		lua_rawseti(L, -2, ++n);
		words += length + strspn(words + length, ", ");
	}
	lua_setfield(L, -2, name);
}

static void add_fields(lua_State *L, const struct contract_fields *fields)
{
	unsigned i;

	for (i = 0; i < fields->nr_ints; i++)
		add_field(L, fields->ints[i].name, fields->ints[i].enums);
	if (fields->data)
		add_field(L, fields->data->name, NULL);
}

static int core_fields(lua_State *L)
{
	static const char *const context[] = {"task", "cpu", "owner"};
	const struct contract_enum *statuses[2] = {contract_enum_by_name("Status")};
	const char *name = luaL_checkstring(L, 1);
	const struct contract_inspection *i;
	const struct contract_op *op;
	char word[64];
	unsigned k;

	kebab(name, word, sizeof word);
	op = op_by_word(name) ? op_by_word(name) : op_by_word(word);
	i = inspection_by_word(word);
	lua_newtable(L);
	if (op)
		add_fields(L, &op->args);
	else if (i)
		add_fields(L, &i->args);
	else if (strcmp(name, "machine") == 0)
		add_fields(L, &contract_machine_config);
	for (k = 0; k < 3 && (op || strcmp(name, "with") == 0); k++)
		add_field(L, context[k], NULL);
	if (strcmp(name, "machine") == 0) {
		add_field(L, "name", NULL);
		add_words(L, "split", CONTRACT_SPLIT_NAMES);
	}
	if (strcmp(name, "expect") == 0)
		add_field(L, "status", statuses);
	return 1;
}

static void completion_open(struct shell *sh)
{
	static const luaL_Reg core[] = {
	    {"methods", core_methods}, {"fields", core_fields}, {NULL, NULL}};
	const struct embedded *e = embedded_find("shell");
	lua_State *L = sh->script->L;
	int code;

	if (script_load(sh->script, e->text, e->length, "=shell") != EXIT_DONE)
		abort(); /* part of the program: it compiles */
	luaL_newlib(L, core);
	if (!script_call(sh->script, 1, 1, &code))
		abort();
	sh->complete = luaL_ref(L, LUA_REGISTRYINDEX);
}

/* How much all candidates of the list on top have in common, in bytes. */
static size_t common_length(lua_State *L, const char **ret_first)
{
	lua_Integer i, n = (lua_Integer)lua_rawlen(L, -1);
	size_t common = 0, k;

	for (i = 1; i <= n; i++) {
		const char *candidate;

		lua_rawgeti(L, -1, i);
		candidate = lua_tostring(L, -1);
		lua_pop(L, 1);
		if (i == 1) {
			*ret_first = candidate;
			common = strlen(candidate);
		}
		for (k = 0; k < common && candidate[k] == (*ret_first)[k]; k++)
			;
		common = k;
	}
	return common;
}

static void list_candidates(lua_State *L)
{
	lua_Integer i, n = (lua_Integer)lua_rawlen(L, -1);
	unsigned width = 0, column = 0, across = terminal_width();

	for (i = 1; i <= n; i++) {
		lua_rawgeti(L, -1, i);
		if (text_width(lua_tostring(L, -1)) > width)
			width = text_width(lua_tostring(L, -1));
		lua_pop(L, 1);
	}
	for (i = 1; i <= n; i++) {
		lua_rawgeti(L, -1, i);
		printf("%s%-*s", column ? "  " : "\n", (int)width, lua_tostring(L, -1));
		lua_pop(L, 1);
		column += width + 2;
		if (column + width > across)
			column = 0;
	}
	putchar('\n');
	fflush(stdout);
}

static unsigned char complete(EditLine *el, int key)
{
	const LineInfo *line = el_line(el);
	unsigned char result = CC_ERROR;
	const char *first = "";
	struct shell *sh;
	size_t common, typed;
	lua_State *L;

	(void)key;
	el_get(el, EL_CLIENTDATA, &sh);
	L = sh->script->L;
	lua_rawgeti(L, LUA_REGISTRYINDEX, sh->complete);
	lua_pushlstring(L, sh->chunk, sh->length);
	lua_pushlstring(L, line->buffer, (size_t)(line->cursor - line->buffer));
	lua_concat(L, 2);
	if (lua_pcall(L, 1, 2, 0) != LUA_OK) {
		lua_pop(L, 1);
		return CC_ERROR;
	}
	typed = (size_t)lua_tointeger(L, -2);
	common = common_length(L, &first);
	if (common > typed || (lua_rawlen(L, -1) == 1 && common)) {
		/* Typed in another case: the candidate's own letters stand. */
		el_deletestr(el, (int)typed);
		lua_pushlstring(L, first, common);
		el_insertstr(el, lua_tostring(L, -1));
		lua_pop(L, 1);
		result = CC_REFRESH;
	} else if (lua_rawlen(L, -1) > 1) {
		list_candidates(L);
		result = CC_REDISPLAY;
	}
	lua_pop(L, 2);
	return result;
}

/* Ctrl-C at the prompt is a key like others, so that it falls between the keys before and
 * after it, which a signal would not. */
static unsigned char cancel(EditLine *el, int key)
{
	struct shell *sh;

	(void)key;
	el_get(el, EL_CLIENTDATA, &sh);
	sh->cancelled = true;
	return CC_NEWLINE;
}

/* ---- history ---- */

/* $XDG_STATE_HOME/zoned/shell_history, by default under ~/.local/state. False: nowhere. */
static bool history_path(char *to, size_t size)
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	size_t i;

	if (state && *state == '/')
		snprintf(to, size, "%s/zoned/shell_history", state);
	else if (home && *home)
		snprintf(to, size, "%s/.local/state/zoned/shell_history", home);
	else
		return false;
	for (i = 1; to[i]; i++)
		if (to[i] == '/') {
			to[i] = '\0';
			mkdir(to, 0700);
			to[i] = '/';
		}
	return true;
}

static void history_open(struct shell *sh)
{
	char path[4096];
	HistEvent event;

	sh->history = history_init();
	if (!sh->history)
		return;
	history(sh->history, &event, H_SETSIZE, HISTORY_LINES);
	history(sh->history, &event, H_SETUNIQUE, 1);
	if (history_path(path, sizeof path))
		history(sh->history, &event, H_LOAD, path);
	el_set(sh->el, EL_HIST, history, sh->history);
}

static void history_close(struct shell *sh)
{
	char path[4096];
	HistEvent event;

	if (!sh->history)
		return;
	if (history_path(path, sizeof path)) {
		mode_t old = umask(077);

		history(sh->history, &event, H_SAVE, path);
		umask(old);
	}
	history_end(sh->history);
}

/* ---- chunks ---- */

static int print_values(lua_State *L)
{
	int i, n = lua_gettop(L);

	for (i = 1; i <= n; i++)
		value_print(L, i, stdout);
	return 0;
}

/* Runs what is on the stack and prints what it gives. */
static void run_chunk(struct shell *sh)
{
	struct script *s = sh->script;
	int code, below = lua_gettop(s->L) - 1;

	if (script_call(s, 0, LUA_MULTRET, &code)) {
		lua_pushcfunction(s->L, print_values);
		lua_insert(s->L, below + 1);
		if (!script_call(s, lua_gettop(s->L) - below - 1, 0, &code) && !sh->code)
			sh->code = code;
	} else if (!sh->code) {
		sh->code = code;
	}
	fflush(stdout);
}

static bool unfinished(lua_State *L)
{
	static const char end[] = "<eof>";
	size_t length;
	const char *text = lua_tolstring(L, -1, &length);

	return length >= sizeof end - 1 && strcmp(text + length - (sizeof end - 1), end) == 0;
}

/* Compiles the chunk so far. True: it is dealt with, the next line begins another. */
static bool take_chunk(struct shell *sh)
{
	lua_State *L = sh->script->L;

	lua_pushliteral(L, "return ");
	lua_pushlstring(L, sh->chunk, sh->length);
	lua_concat(L, 2);
	if (luaL_loadbufferx(L, lua_tostring(L, -1), lua_rawlen(L, -1), "=shell", "t") == LUA_OK) {
		lua_remove(L, -2);
		run_chunk(sh);
		return true;
	}
	lua_pop(L, 2);
	if (luaL_loadbufferx(L, sh->chunk, sh->length, "=shell", "t") == LUA_OK) {
		run_chunk(sh);
		return true;
	}
	if (unfinished(L)) {
		lua_pop(L, 1);
		return false;
	}
	complain("%s", lua_tostring(L, -1));
	lua_pop(L, 1);
	if (!sh->code)
		sh->code = EXIT_USAGE;
	return true;
}

static void take_line(struct shell *sh, const char *line, size_t length)
{
	if (sh->length + length > CHUNK_BYTES) {
		complain("a chunk may have %d bytes", CHUNK_BYTES);
		sh->length = 0;
		return;
	}
	sh->chunk = must(realloc(sh->chunk, sh->length + length + 1));
	memcpy(sh->chunk + sh->length, line, length);
	sh->length += length;
	if (take_chunk(sh))
		sh->length = 0;
}

/* ---- lines ---- */

static char *prompt(EditLine *el)
{
	static char first[] = "zoned> ", more[] = "   ..> ";
	struct shell *sh;

	el_get(el, EL_CLIENTDATA, &sh);
	return sh->length ? more : first;
}

static bool terminal_open(struct shell *sh)
{
	setlocale(LC_CTYPE, "");
	sh->el = el_init("zonectl", stdin, stdout, stderr);
	if (!sh->el)
		return false;
	el_set(sh->el, EL_CLIENTDATA, sh);
	el_set(sh->el, EL_PROMPT, prompt);
	el_set(sh->el, EL_EDITOR, "emacs");
	el_set(sh->el, EL_SIGNAL, 1);
	el_set(sh->el, EL_GETCFN, read_key);
	el_set(sh->el, EL_ADDFN, "zoned-complete", "complete a name", complete);
	el_set(sh->el, EL_BIND, "^I", "zoned-complete", NULL);
	el_set(sh->el, EL_ADDFN, "zoned-cancel", "throw the chunk away", cancel);
	el_set(sh->el, EL_SETTY, "-d", "-isig", NULL);
	el_set(sh->el, EL_BIND, "^C", "zoned-cancel", NULL);
	el_set(sh->el, EL_BIND, "^R", "em-inc-search-prev", NULL);
	el_source(sh->el, NULL);
	history_open(sh);
	return true;
}

static void talk(struct shell *sh)
{
	HistEvent event;
	const char *line;
	int length;

	for (;;) {
		errno = 0;
		hold_interrupts(true);
		/* Before the prompt: who answers it at once would type into a terminal that
		 * still makes lines, where Ctrl-D becomes a NUL and is lost. */
		el_set(sh->el, EL_PREP_TERM, 1);
		line = el_gets(sh->el, &length);
		hold_interrupts(false);
		if (!line && !sh->script->interrupted && !sh->cancelled)
			break;
		forget_interrupt(sh->script);
		if (!line || sh->cancelled) {
			sh->cancelled = false;
			putchar('\n');
			sh->length = 0;
			continue;
		}
		if (length > 1 && sh->history)
			history(sh->history, &event, H_ENTER, line);
		take_line(sh, line, (size_t)length);
	}
	putchar('\n');
}

static void read_lines(struct shell *sh)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t length;

	while ((length = getline(&line, &size, stdin)) > 0)
		take_line(sh, line, (size_t)length);
	free(line);
	if (sh->length) {
		complain("the input ends in the middle of a chunk");
		sh->code = sh->code ? sh->code : EXIT_USAGE;
	}
}

/* ---- the command ---- */

/* m is the machine that -m names. */
static void attach(struct shell *sh, const char *name)
{
	lua_State *L = sh->script->L;
	int code;

	if (!name || !*name)
		return;
	lua_getglobal(L, "zoned");
	lua_getfield(L, -1, "attach");
	lua_remove(L, -2);
	lua_pushstring(L, name);
	if (script_call(sh->script, 1, 1, &code))
		lua_setglobal(L, "m");
	else
		sh->code = code;
}

static void greet(struct shell *sh)
{
	printf(
	    "zoned %s. Lua 5.4; names stay if they are not `local`. Tab completes, Ctrl-D ends.\n",
	    ZONED_VERSION);
	lua_getglobal(sh->script->L, "m");
	if (machine_at(sh->script->L, -1))
		printf("m is machine %s: try m:zoneinfo() or m:alloc{gfp=\"GFP_HIGHUSER\"}\n",
		       machine_name(machine_at(sh->script->L, -1)));
	else
		printf("Make a machine: m = zoned.machine{name=\"m0\", ram=\"2G\"}, "
		       "or m = zoned.attach\"NAME\"\n");
	lua_pop(sh->script->L, 1);
}

static const struct flag shell_flags[] = {
    {"backend", 'b', "sim|kernel", "where zoned.machine makes machines; default sim"},
};

static int shell(struct ctl *ctl, const char *backend)
{
	struct shell sh = {.script = script_new(ctl, backend), .chunk = must(calloc(1, 1))};
	bool terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);

	catch_interrupts(sh.script);
	completion_open(&sh);
	attach(&sh, ctl->machine);
	if (terminal && terminal_open(&sh)) {
		greet(&sh);
		talk(&sh);
		history_close(&sh);
		el_end(sh.el);
		sh.code = EXIT_DONE; /* what failed was seen */
	} else {
		read_lines(&sh);
	}
	signal(SIGINT, SIG_DFL);
	script_free(sh.script, false);
	free(sh.chunk);
	return sh.code;
}

int shell_command(struct ctl *ctl, int argc, char **argv)
{
	struct args a;
	const char *backend;
	int rc = args_parse(ctl, "shell", argc, argv, shell_flags, 1, &a);

	if (rc != EXIT_DONE)
		return rc;
	if (ctl->help) {
		printf(
		    "zonectl shell - Lua line by line, as zonectl run runs it\n\n"
		    "usage: zonectl shell [-m MACHINE]\n\n"
		    "With a machine it is called m. An expression is printed. Tab completes ops,\n"
		    "arguments and values; Ctrl-C returns to the prompt; the history is kept in\n"
		    "$XDG_STATE_HOME/zoned/shell_history. Lines may come from a pipe, too.\n\n");
		print_flags("flags:", shell_flags, 1);
		print_flags("\nfor every command:", global_flags, nr_global_flags);
		args_free(&a);
		return EXIT_DONE;
	}
	backend = script_backend("shell", args_text(&a, "backend"));
	rc = backend ? args_limit_words(&a, "shell", 0) : EXIT_USAGE;
	args_free(&a);
	return rc == EXIT_DONE ? shell(ctl, backend) : rc;
}
