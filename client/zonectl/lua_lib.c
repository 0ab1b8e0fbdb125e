/*
 * lua_lib.c - what `zoned` has beside machines: questions to the history, checks, tables,
 * CSV and JSON, a progress bar. What can be said in Lua itself is in prelude.lua.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lua_script.h"

enum {
	MAX_PARAMETERS = 32,
	BAR_NS = 100000000, /* how often a bar is drawn */
	BAR_WIDTH = 32,
};

/* ---- zoned.sql ---- */

static void push_value(lua_State *L, const Zoned__V1__Value *v)
{
	switch (v->value_case) {
	case ZONED__V1__VALUE__VALUE_INTEGER: lua_pushinteger(L, v->integer); break;
	case ZONED__V1__VALUE__VALUE_REAL: lua_pushnumber(L, v->real); break;
	case ZONED__V1__VALUE__VALUE_TEXT: lua_pushstring(L, v->text); break;
	case ZONED__V1__VALUE__VALUE_BLOB:
		lua_pushlstring(L, (const char *)v->blob.data, v->blob.len);
		break;
	default: lua_pushnil(L); break;
	}
}

static void parameter(lua_State *L, int index, Zoned__V1__Value *v)
{
	int type = lua_type(L, index);

	if (type == LUA_TSTRING) {
		v->value_case = ZONED__V1__VALUE__VALUE_TEXT;
		v->text = (char *)(uintptr_t)lua_tostring(L, index);
	} else if (lua_isinteger(L, index)) {
		v->value_case = ZONED__V1__VALUE__VALUE_INTEGER;
		v->integer = lua_tointeger(L, index);
	} else if (type == LUA_TNUMBER) {
		v->value_case = ZONED__V1__VALUE__VALUE_REAL;
		v->real = lua_tonumber(L, index);
	} else if (machine_at(L, index)) {
		/* A machine stands for its id, which no later one of its name has. */
		v->value_case = ZONED__V1__VALUE__VALUE_INTEGER;
		v->integer = (int64_t)machine_id(machine_at(L, index));
	} else if (type == LUA_TNIL) {
		v->value_case = ZONED__V1__VALUE__VALUE_NULL;
	} else {
		script_raise(L, EXIT_USAGE, "sql: a %s is no parameter", luaL_typename(L, index));
	}
}

/* Adds a page's rows to the table at `rows`, whose names are in the table above it. */
static void add_page(lua_State *L, int rows, const Zoned__V1__QueryResponse *page)
{
	lua_Integer n = (lua_Integer)lua_rawlen(L, rows);
	size_t i, k;

	for (i = 0; i < page->n_columns; i++) {
		lua_pushstring(L, page->columns[i]->name);
		lua_rawseti(L, rows + 1, (lua_Integer)i + 1);
	}
	for (i = 0; i < page->n_rows; i++) {
		const Zoned__V1__Row *row = page->rows[i];

		lua_createtable(L, 0, (int)row->n_values);
		for (k = 0; k < row->n_values; k++) {
			lua_rawgeti(L, rows + 1, (lua_Integer)k + 1);
			push_value(L, row->values[k]);
			lua_rawset(L, -3);
		}
		lua_rawseti(L, rows, ++n);
	}
	if (page->truncated) {
		lua_pushboolean(L, 1);
		lua_setfield(L, rows, "truncated");
	}
}

/* zoned.sql(statement, ...): a list of rows by column name, and .columns in order. */
static int zoned_sql(lua_State *L)
{
	Zoned__V1__QueryRequest request = ZONED__V1__QUERY_REQUEST__INIT;
	Zoned__V1__Value values[MAX_PARAMETERS], *pointers[MAX_PARAMETERS];
	struct ctl *ctl = script_of(L)->ctl;
	int i, n = lua_gettop(L) - 1, rc;
	ProtobufCMessage *page;
	struct zoned_stream *s;

	request.sql = (char *)(uintptr_t)luaL_checkstring(L, 1);
	if (n > MAX_PARAMETERS)
		script_raise(L, EXIT_USAGE, "sql: more than %d parameters", MAX_PARAMETERS);
	for (i = 0; i < n; i++) {
		values[i] = (Zoned__V1__Value)ZONED__V1__VALUE__INIT;
		pointers[i] = &values[i];
		parameter(L, i + 2, &values[i]);
	}
	request.parameters = pointers;
	request.n_parameters = (size_t)n;
	if (ctl->timeout_given)
		request.timeout_ms = ctl->timeout_ms;
	machines_settle(L);
	lua_newtable(L);
	lua_newtable(L);
	rc = zoned_stream_open(script_connection(L), "/zoned.v1.History/Query",
			       &zoned__v1__query_response__descriptor, ctl->timeout_ms, &s);
	if (rc)
		script_refused(L, "sql", rc);
	rc = zoned_stream_send(s, &request.base);
	if (!rc)
		rc = zoned_stream_end(s);
	while (!rc && !(rc = zoned_stream_receive(s, ZONED_NO_TIMEOUT, &page))) {
		add_page(L, n + 2, (Zoned__V1__QueryResponse *)page);
		message_free(page);
	}
	zoned_stream_close(s);
	if (rc != ZONED_END)
		script_refused(L, "sql", rc);
	lua_setfield(L, -2, "columns");
	return 1;
}

/* ---- zoned.expect ---- */

/* Is the value at `value` the one at `wanted`? Tables by what is in them. */
static bool same(lua_State *L, int value, int wanted)
{
	char err[256];
	json_t *a, *b;
	bool equal;

	if (!lua_istable(L, value) || !lua_istable(L, wanted))
		return lua_compare(L, value, wanted, LUA_OPEQ);
	a = json_from_lua(L, value, err, sizeof err);
	b = json_from_lua(L, wanted, err, sizeof err);
	equal = a && b && json_equal(a, b);
	json_decref(a);
	json_decref(b);
	return equal;
}

/* A value in a message: texts in quotes, tables as JSON. Pushes it. */
static const char *describe(lua_State *L, int index)
{
	char err[256], *text;
	json_t *json;

	index = lua_absindex(L, index);
	if (lua_type(L, index) == LUA_TSTRING)
		return lua_pushfstring(L, "\"%s\"", lua_tostring(L, index));
	if (!lua_istable(L, index) || luaL_getmetafield(L, index, "__tostring"))
		return luaL_tolstring(L, index, NULL);
	json = json_from_lua(L, index, err, sizeof err);
	text = json ? json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY) : NULL;
	lua_pushstring(L, text ? text : err);
	free(text);
	json_decref(json);
	return lua_tostring(L, -1);
}

static bool is_one_of(lua_State *L, int value, int list)
{
	lua_Integer i, n = (lua_Integer)lua_rawlen(L, list);
	bool found = false;

	for (i = 1; i <= n && !found; i++) {
		lua_rawgeti(L, list, i);
		found = same(L, value, lua_gettop(L));
		lua_pop(L, 1);
	}
	return found;
}

enum comparison { IS, IS_NOT, ABOVE, BELOW, AT_LEAST, AT_MOST, ONE_OF };
static const char *const comparisons[] = {"is",	      "is_not",	 "above", "below",
					  "at_least", "at_most", "one_of"};
static const char *const said[] = {"",		"other than ", "above ", "below ",
				   "at least ", "at most ",    "one of "};
enum { NR_COMPARISONS = sizeof comparisons / sizeof *comparisons };

static bool holds(lua_State *L, enum comparison c, int got, int wanted)
{
	/* Only numbers have an order; anything else is neither above nor below. */
	bool numbers = lua_type(L, got) == LUA_TNUMBER && lua_type(L, wanted) == LUA_TNUMBER;

	switch (c) {
	case IS: return same(L, got, wanted);
	case IS_NOT: return !same(L, got, wanted);
	case ABOVE: return numbers && lua_compare(L, wanted, got, LUA_OPLT);
	case BELOW: return numbers && lua_compare(L, got, wanted, LUA_OPLT);
	case AT_LEAST: return numbers && lua_compare(L, wanted, got, LUA_OPLE);
	case AT_MOST: return numbers && lua_compare(L, got, wanted, LUA_OPLE);
	default: return lua_istable(L, wanted) && is_one_of(L, got, wanted);
	}
}

static void refuse_comparison(lua_State *L, const char *key)
{
	struct suggestion s = {.word = key};
	unsigned i;

	for (i = 0; i < NR_COMPARISONS; i++)
		suggest(&s, comparisons[i]);
	script_raise(L, EXIT_USAGE, "expect: no comparison %s; %s%s", key,
		     s.nearest ? "did you mean "
			       : "there are got, is, is_not, above, below, "
				 "at_least, at_most, one_of",
		     s.nearest ? s.nearest : "");
}

/* zoned.expect{"what", got=..., is=...} */
static int expect_value(lua_State *L)
{
	const char *what;
	bool compared = false;
	unsigned i;

	lua_rawgeti(L, 1, 1);
	what = luaL_optstring(L, 2, NULL);
	lua_getfield(L, 1, "got"); /* at 3 */
	lua_pushnil(L);
	while (lua_next(L, 1)) {
		const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "got";

		for (i = 0; i < NR_COMPARISONS && strcmp(comparisons[i], key) != 0; i++)
			;
		if (i == NR_COMPARISONS && strcmp(key, "got") != 0)
			refuse_comparison(L, key);
		if (i < NR_COMPARISONS) {
			int wanted = lua_gettop(L);

			compared = true;
			if (!holds(L, i, 3, wanted))
				script_raise(L, EXIT_NOT_OK, "%s%sgot %s, expected %s%s",
					     what ? what : "", what ? ": " : "", describe(L, 3),
					     said[i], describe(L, wanted));
		}
		lua_pop(L, 1);
	}
	if (!compared && !lua_toboolean(L, 3))
		script_raise(L, EXIT_NOT_OK, "%s%sgot %s, expected something", what ? what : "",
			     what ? ": " : "", describe(L, 3));
	lua_settop(L, 3);
	return 1;
}

/* One field of an answer against the value on top; a list: one of them. */
static void expect_field(lua_State *L, const char *key)
{
	int wanted = lua_gettop(L), got;
	bool ok, list = lua_istable(L, wanted) && strcmp(key, "status") == 0;

	lua_getfield(L, 2, key);
	got = lua_gettop(L);
	ok = list ? is_one_of(L, got, wanted) : same(L, got, wanted);
	if (!ok)
		script_raise(L, EXIT_NOT_OK, "expected %s %s%s, got %s: %s", key,
			     list ? "one of " : "", describe(L, wanted), describe(L, got),
			     describe(L, 2));
	lua_pop(L, 1);
}

/* zoned.expect{m:kmap(pfn), status="DEADLOCK"}: without a status, OK. */
static int expect_answer(lua_State *L)
{
	if (lua_getfield(L, 1, "status") == LUA_TNIL) {
		lua_pushstring(L, "OK");
		expect_field(L, "status");
	}
	lua_settop(L, 2);
	lua_pushnil(L);
	while (lua_next(L, 1)) {
		if (lua_type(L, -2) == LUA_TSTRING)
			expect_field(L, lua_tostring(L, -2));
		lua_pop(L, 1);
	}
	lua_settop(L, 2);
	return 1;
}

static int zoned_expect(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	lua_settop(L, 1);
	lua_rawgeti(L, 1, 1);
	if (result_at(L, 2))
		return expect_answer(L);
	lua_settop(L, 1);
	return expect_value(L);
}

/* ---- JSON ---- */

static int zoned_json(lua_State *L)
{
	size_t flags = JSON_SORT_KEYS | JSON_ENCODE_ANY;
	char err[256], *text;
	json_t *json = json_from_lua(L, 1, err, sizeof err);

	if (!json)
		script_raise(L, EXIT_USAGE, "json: it cannot hold %s", err);
	flags |= lua_toboolean(L, 2) ? JSON_INDENT(2) : JSON_COMPACT;
	text = must(json_dumps(json, flags));
	json_decref(json);
	lua_pushstring(L, text);
	free(text);
	return 1;
}

static int zoned_from_json(lua_State *L)
{
	size_t length;
	const char *text = luaL_checklstring(L, 1, &length);
	json_error_t why;
	json_t *json = json_loadb(text, length, JSON_DECODE_ANY, &why);

	if (!json)
		script_raise(L, EXIT_USAGE, "from_json: %s (line %d)", why.text, why.line);
	json_to_lua(L, json);
	json_decref(json);
	return 1;
}

/* ---- output ---- */

/* format(column, value): the value as `zonectl sql` shows it in a column of that name. */
static int helper_format(lua_State *L)
{
	char text[512];

	if (lua_isinteger(L, 2))
		lua_pushstring(L, column_format(luaL_checkstring(L, 1), lua_tointeger(L, 2), text,
						sizeof text));
	else if (lua_type(L, 2) == LUA_TNUMBER)
		lua_pushfstring(L, "%f", lua_tonumber(L, 2));
	else
		luaL_tolstring(L, 2, NULL);
	return 1;
}

/* print_table(names, rows of texts, [column] = true to align it to the right) */
static int helper_print_table(lua_State *L)
{
	unsigned nr_columns = (unsigned)lua_rawlen(L, 1), nr_rows = (unsigned)lua_rawlen(L, 2);
	const char **cells = lua_newuserdatauv(L, (nr_columns + 1) * sizeof *cells, 0);
	struct table *t;
	unsigned r, c;

	/* What the cells point to is anchored in the tables. */
	for (c = 0; c < nr_columns; c++) {
		lua_rawgeti(L, 1, (lua_Integer)c + 1);
		cells[c] = lua_tostring(L, -1);
		lua_pop(L, 1);
	}
	t = table_new(nr_columns, cells);
	for (c = 0; c < nr_columns; c++) {
		lua_rawgeti(L, 3, (lua_Integer)c + 1);
		table_align_right(t, c, lua_toboolean(L, -1));
		lua_pop(L, 1);
	}
	for (r = 0; r < nr_rows; r++) {
		lua_rawgeti(L, 2, (lua_Integer)r + 1);
		for (c = 0; c < nr_columns; c++) {
			lua_rawgeti(L, -1, (lua_Integer)c + 1);
			cells[c] = lua_tostring(L, -1);
			lua_pop(L, 1);
		}
		table_add(t, cells);
		lua_pop(L, 1);
	}
	script_clear_bar(script_of(L));
	table_print(t, stdout);
	table_free(t);
	return 0;
}

/* print() and the bar share the terminal. */
static int helper_clear_bar(lua_State *L)
{
	script_clear_bar(script_of(L));
	return 0;
}

/* zoned.progress(done, total [, what]): a bar on stderr if that is a terminal. */
static int zoned_progress(lua_State *L)
{
	static uint64_t next_ns;
	struct script *s = script_of(L);
	lua_Number done = luaL_checknumber(L, 1), total = luaL_checknumber(L, 2);
	const char *what = luaL_optstring(L, 3, "");
	int filled, i;

	if (!isatty(STDERR_FILENO))
		return 0;
	if (done >= total) {
		script_clear_bar(s);
		return 0;
	}
	if (monotonic_ns() < next_ns)
		return 0;
	next_ns = monotonic_ns() + BAR_NS;
	filled = (int)(done / total * BAR_WIDTH);
	fflush(stdout);
	fprintf(stderr, "\r[");
	for (i = 0; i < BAR_WIDTH; i++)
		fputc(i < filled ? '#' : ' ', stderr);
	fprintf(stderr, "] %3.0f%% %s\033[K", done / total * 100, what);
	s->bar = true;
	return 0;
}

static int zoned_size(lua_State *L)
{
	char text[32];

	lua_pushstring(L, human_size((uint64_t)luaL_checkinteger(L, 1), text, sizeof text));
	return 1;
}

void value_print(lua_State *L, int index, FILE *to)
{
	index = lua_absindex(L, index);
	lua_getglobal(L, "zoned");
	lua_getfield(L, -1, "print");
	lua_pushvalue(L, index);
	lua_call(L, 1, 0);
	lua_pop(L, 1);
	fflush(to);
}

/* ---- zoned ---- */

/* Whether a value is an answer, for the prelude; waits for one that is not there yet. */
static int helper_is_answer(lua_State *L)
{
	lua_pushboolean(L, result_at(L, 1));
	return 1;
}

static int helper_is_terminal(lua_State *L)
{
	lua_pushboolean(L, isatty(STDOUT_FILENO));
	lua_pushinteger(L, terminal_width());
	return 2;
}

int script_open_library(lua_State *L)
{
	static const luaL_Reg functions[] = {{"sql", zoned_sql},
					     {"expect", zoned_expect},
					     {"json", zoned_json},
					     {"from_json", zoned_from_json},
					     {"progress", zoned_progress},
					     {"size", zoned_size},
					     {NULL, NULL}};
	static const luaL_Reg helpers[] = {
	    {"format", helper_format},	      {"print_table", helper_print_table},
	    {"clear_bar", helper_clear_bar},  {"is_answer", helper_is_answer},
	    {"terminal", helper_is_terminal}, {NULL, NULL}};
	const struct embedded *prelude = embedded_find("prelude");

	luaL_newlib(L, functions);
	machines_open(L);
	lua_pushstring(L, script_of(L)->backend);
	lua_setfield(L, -2, "backend");
	lua_pushstring(L, ZONED_VERSION);
	lua_setfield(L, -2, "version");
	if (luaL_loadbufferx(L, prelude->text, prelude->length, "=zoned", "t") != LUA_OK)
		return lua_error(L);
	lua_pushvalue(L, -2);
	luaL_newlib(L, helpers);
	lua_call(L, 2, 0);
	return 1;
}
