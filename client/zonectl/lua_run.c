/*
 * lua_run.c - a machine's stream of ops, and their answers as Lua tables.
 *
 * Every op of a script goes over one Memory.Run stream per machine, so ops are done in
 * the order in which the script says them, whether it waits for each (m:alloc{...}) or
 * not (m:async("alloc", {...})). What either returns is one table, the answer: empty
 * at first and of the metatable `pending`; filled, and of the metatable `answered`,
 * when the daemon's answer is read. Reading a field of a pending one waits for it.
 *
 * Invariants:
 *  1. slots[i] belongs to the op with index base + i of the stream; base is the oldest
 *     unanswered. pending[index] is its answer's table for as long as it is unanswered.
 *  2. Lua code never runs inside the library's callback: the callback fills tables, and
 *     callbacks of the script's run when the wait is over.
 *  3. A machine's sleepers hold nothing back but themselves: run_settle() ends when all
 *     that is unanswered is asleep.
 */
#include <stdlib.h>
#include <string.h>

#include "lua_core.h"

enum {
	BATCH = 256,	  /* ops sent together */
	IN_FLIGHT = 4096, /* ops unanswered, before async() waits for some */
};

const char core_type[] = "zoned.core", pending_type[] = "zoned.pending",
	   answered_type[] = "zoned.result";
/* Key of a pending answer's core in its table; its address counts. */
static const char core_key;

const struct contract_field *field_at(const struct contract_fields *fields, unsigned i)
{
	if (i < fields->nr_ints)
		return &fields->ints[i];
	return i == fields->nr_ints ? fields->data : NULL;
}

/* Tables of a core, in the registry under the addresses of its own fields. */
static void push_pending(lua_State *L, const struct core *c)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &c->slots);
}

static void push_ready(lua_State *L, const struct core *c)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &c->nr_ready);
}

static void push_callbacks(lua_State *L, const struct core *c)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &c->answers);
}

/* ---- slots ---- */

static void slot_add(struct core *c, const struct slot *slot)
{
	if (c->nr_slots == c->capacity) {
		c->capacity = c->capacity ? 2 * c->capacity : 1024;
		c->slots = must(realloc(c->slots, c->capacity * sizeof *c->slots));
	}
	c->slots[c->nr_slots++] = *slot;
}

/* Forgets the answered slots at the front, once they are many. */
static void slots_trim(struct core *c)
{
	size_t n = 0;

	while (n < c->nr_slots && !c->slots[n].code)
		n++;
	if (n == 0 || n < c->nr_slots / 2)
		return;
	memmove(c->slots, c->slots + n, (c->nr_slots - n) * sizeof *c->slots);
	c->nr_slots -= n;
	c->base += n;
}

/* Notes where the script is. The sources are few; the newest is the likeliest. */
static void note_line(lua_State *L, struct core *c, struct slot *slot)
{
	lua_Debug at;
	unsigned i;

	if (!lua_getstack(L, 1, &at))
		return;
	lua_getinfo(L, "Sl", &at);
	slot->line = (uint32_t)(at.currentline > 0 ? at.currentline : 0);
	for (i = c->nr_sources; i-- > 0;)
		if (strcmp(c->sources[i], at.short_src) == 0) {
			slot->source = (uint8_t)i;
			return;
		}
	if (c->nr_sources == MAX_SOURCES)
		c->nr_sources--;
	slot->source = (uint8_t)c->nr_sources;
	snprintf(c->sources[c->nr_sources++], LUA_IDSIZE, "%s", at.short_src);
}

/* ---- answers ---- */

static void note_refusal(struct core *c, const struct slot *slot, const Zoned__V1__Result *r)
{
	if (*c->refusal_text)
		return;
	snprintf(c->refusal, sizeof c->refusal, "%s:%u: ", c->sources[slot->source], slot->line);
	snprintf(c->refusal_text, sizeof c->refusal_text, "%s: %s: %s",
		 contract_ops[slot->code].word, zoned_code_name((int)r->code), r->message);
}

static void set_text(lua_State *L, const char *key, const char *value)
{
	lua_pushstring(L, key);
	lua_pushstring(L, value);
	lua_rawset(L, -3);
}

/* A failure leaves values that mean nothing zero: they are left out, so that reading
 * one is an error. Where one value says something (how far an access came), all do. */
static bool says_something(const struct contract_op *op, const ProtobufCMessage *result)
{
	unsigned i;

	if (op_status(result) == STATUS_OK)
		return true;
	for (i = 0; i < op->values.nr_ints; i++)
		if (message_get(result, op->values.ints[i].number))
			return true;
	return false;
}

/* Fills the answer on top of the stack. */
static void fill_answer(lua_State *L, const struct contract_op *op, const ProtobufCMessage *result)
{
	const Zoned__V1__Outcome *o = (const Zoned__V1__Outcome *)message_sub(result, 1);

	lua_pushstring(L, "number");
	lua_pushinteger(L, o ? (lua_Integer)o->op : 0);
	lua_rawset(L, -3);
	set_text(L, "status", status_name(op_status(result)));
	if (o && *o->detail)
		set_text(L, "detail", o->detail);
	fields_to_lua(L, result, &op->values, says_something(op, result));
}

/* The library's callback; raises no error (nothing here can but for lack of memory). */
static void on_result(void *user, uint64_t index, const Zoned__V1__Result *r)
{
	struct core *c = user;
	lua_State *L = c->L;
	struct slot *slot =
	    index >= c->base && index - c->base < c->nr_slots ? &c->slots[index - c->base] : NULL;
	const ProtobufCMessage *result = NULL;
	const struct contract_op *op;

	if (!slot || !slot->code)
		return;
	op = &contract_ops[slot->code];
	if (!r->code && (uint32_t)r->result_case == slot->code)
		result = message_sub(&r->base, slot->code);
	push_pending(L, c);
	lua_rawgeti(L, -1, (lua_Integer)index);
	lua_pushnil(L);
	lua_rawsetp(L, -2, &core_key);
	set_text(L, "op", op->word);
	luaL_setmetatable(L, answered_type);
	if (result) {
		fill_answer(L, op, result);
		c->answers[op_status(result) % 32]++;
	} else {
		note_refusal(c, slot, r);
		set_text(L, "status", zoned_code_name((int)r->code));
	}
	if (slot->callback) {
		push_ready(L, c);
		lua_pushvalue(L, -2);
		lua_rawseti(L, -2, ++c->nr_ready);
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
	lua_pushnil(L);
	lua_rawseti(L, -2, (lua_Integer)index);
	lua_pop(L, 1);
	slot->code = 0;
	c->progress++;
}

/* Runs the script's callbacks of what has been answered. They may send and wait, and so
 * make more of them ready. */
static void run_callbacks(lua_State *L, struct core *c)
{
	while (c->ready_done < c->nr_ready) {
		push_callbacks(L, c);
		push_ready(L, c);
		lua_rawgeti(L, -1, ++c->ready_done);
		lua_pushnil(L);
		lua_rawseti(L, -3, c->ready_done);
		lua_remove(L, -2);
		if (c->ready_done == c->nr_ready)
			c->ready_done = c->nr_ready = 0;
		/* The callback, by its answer, and then no more. */
		lua_pushvalue(L, -1);
		lua_rawget(L, -3);
		lua_pushvalue(L, -2);
		lua_pushnil(L);
		lua_rawset(L, -5);
		lua_insert(L, -2);
		lua_call(L, 1, 0);
		lua_pop(L, 1);
	}
}

/* ---- waiting ---- */

/* The stream is gone: what was unanswered stays so for ever, and is forgotten. */
void run_drop(lua_State *L, struct core *c)
{
	zoned_run_close(c->run);
	c->run = NULL;
	c->nr_slots = 0;
	c->base = 0;
	c->nr_ready = c->ready_done = 0;
	lua_newtable(L);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &c->slots);
	lua_newtable(L);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &c->nr_ready);
	lua_newtable(L);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &c->answers);
}

void run_broken(lua_State *L, struct core *c, const char *what, int rc)
{
	run_drop(L, c);
	script_refused(L, what, rc);
}

void run_open(lua_State *L, struct core *c)
{
	Zoned__V1__OpContext context = ZONED__V1__OP_CONTEXT__INIT;
	struct zoned *z = script_connection(L);
	int rc;

	if (c->run)
		return;
	context.machine = c->name;
	rc = zoned_run_open(z, &context, on_result, c, &c->run);
	if (rc)
		script_refused(L, c->name, rc);
}

/* Waits until at most `most` ops are unanswered or the time is up; false: it was. */
static bool wait_a_while(lua_State *L, struct core *c, uint64_t most, uint32_t timeout_ms)
{
	int rc;

	c->L = L;
	luaL_checkstack(L, 16, NULL);
	rc = zoned_run_flush(c->run);
	if (!rc)
		rc = zoned_run_wait(c->run, most, timeout_ms);
	slots_trim(c);
	if (rc && rc != ZONED_AGAIN)
		run_broken(L, c, c->name, rc);
	if (*c->refusal_text) {
		char text[SCRIPT_ERROR_BYTES];

		memcpy(text, c->refusal_text, sizeof text);
		c->refusal_text[0] = '\0';
		script_raise_at(L, EXIT_REFUSED, c->refusal, text);
	}
	script_check_interrupt(L);
	return !rc;
}

/* Raises an error when a wait has seen nothing happen for as long as --timeout says. What
 * slept is withdrawn by the daemon when the stream closes. */
static void check_patience(lua_State *L, struct core *c, uint64_t *progress, uint64_t *since_ns)
{
	uint32_t limit = script_of(L)->ctl->timeout_ms;

	if (c->progress != *progress) {
		*progress = c->progress;
		*since_ns = monotonic_ns();
	} else if (limit != ZONED_NO_TIMEOUT &&
		   monotonic_ns() - *since_ns > (uint64_t)limit * 1000000) {
		run_drop(L, c);
		script_raise(L, EXIT_NOT_OK,
			     "%s: no answer for %u ms: asleep, and nobody wakes it? It has been "
			     "withdrawn (--timeout says how long to wait)",
			     c->name, limit);
	}
}

static bool is_pending(lua_State *L, int index)
{
	bool is;

	if (lua_type(L, index) != LUA_TTABLE || !lua_getmetatable(L, index))
		return false;
	luaL_getmetatable(L, pending_type);
	is = lua_rawequal(L, -1, -2);
	lua_pop(L, 2);
	return is;
}

/* Waits for the answer at `index`. */
void run_wait_answer(lua_State *L, int index)
{
	uint64_t progress, since = monotonic_ns(), in_flight;
	struct core *c;

	index = lua_absindex(L, index);
	if (!is_pending(L, index))
		return;
	lua_rawgetp(L, index, &core_key);
	c = lua_touserdata(L, -1);
	lua_pop(L, 1);
	progress = c->progress;
	while (is_pending(L, index)) {
		if (!c->run)
			script_raise(L, EXIT_UNREACHABLE,
				     "%s: the connection that this answer was to come over is gone",
				     c->name);
		in_flight = zoned_run_in_flight(c->run) + zoned_run_filling(c->run);
		if (!wait_a_while(L, c, in_flight ? in_flight - 1 : 0, SCRIPT_SLICE_MS))
			check_patience(L, c, &progress, &since);
	}
	run_callbacks(L, c);
}

static uint32_t asleep(lua_State *L, const struct core *c)
{
	Zoned__V1__GetRequest request = ZONED__V1__GET_REQUEST__INIT;
	ProtobufCMessage *reply;
	uint32_t parked;
	int rc;

	request.machine = (char *)(uintptr_t)c->name;
	rc = zoned_call(script_connection(L), "/zoned.v1.Machines/Get", &request.base,
			&zoned__v1__machine__descriptor, c->script->ctl->timeout_ms, &reply);
	if (rc)
		script_refused(L, c->name, rc);
	parked = ((Zoned__V1__Machine *)reply)->parked;
	message_free(reply);
	return parked;
}

/* Until every op is answered or asleep. Returns how many sleep. */
uint64_t run_settle(lua_State *L, struct core *c)
{
	uint64_t progress = c->progress, since = monotonic_ns(), left = 0;

	while (c->run && (left = zoned_run_in_flight(c->run) + zoned_run_filling(c->run))) {
		if (wait_a_while(L, c, 0, SCRIPT_SLICE_MS)) {
			run_callbacks(L, c);
			continue;
		}
		run_callbacks(L, c);
		left = zoned_run_in_flight(c->run);
		/* Answers that were under way when it was asked are read in the next round. */
		if (left && asleep(L, c) >= left && !zoned_run_filling(c->run) &&
		    wait_a_while(L, c, left - 1, 0) == false)
			break;
		check_patience(L, c, &progress, &since);
	}
	return left;
}

void machines_settle(lua_State *L)
{
	struct core *c;

	for (c = script_of(L)->machines; c; c = c->next)
		run_settle(L, c);
}

/* ---- sending ---- */

void run_push_answer(lua_State *L, struct core *c, const struct contract_op *op, int handle,
		     int callback)
{
	struct slot slot = {.code = op->code, .callback = callback != 0};
	uint64_t index = c->base + c->nr_slots;

	note_line(L, c, &slot);
	slot_add(c, &slot);
	push_pending(L, c);
	lua_createtable(L, 0, (int)op->values.nr_ints + 4);
	lua_getiuservalue(L, handle, 1);
	lua_rawsetp(L, -2, &core_key);
	luaL_setmetatable(L, pending_type);
	lua_pushvalue(L, -1);
	lua_rawseti(L, -3, (lua_Integer)index);
	lua_remove(L, -2);
	if (callback) {
		push_callbacks(L, c);
		lua_pushvalue(L, -2);
		lua_pushvalue(L, callback);
		lua_rawset(L, -3);
		lua_pop(L, 1);
	}
}

void run_keep_window(lua_State *L, struct core *c)
{
	uint64_t left;

	if (zoned_run_filling(c->run) < BATCH)
		return;
	left = zoned_run_in_flight(c->run);
	wait_a_while(L, c, UINT64_MAX, 0);
	if (left > IN_FLIGHT && !wait_a_while(L, c, IN_FLIGHT, SCRIPT_SLICE_MS))
		run_settle(L, c);
	run_callbacks(L, c);
}

/* ---- answers as values ---- */

static int core_gc(lua_State *L)
{
	struct core *c = luaL_checkudata(L, 1, core_type);

	zoned_run_close(c->run);
	c->run = NULL;
	free(c->slots);
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	lua_pushnil(L);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &c->slots);
	lua_pushnil(L);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &c->nr_ready);
	lua_pushnil(L);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &c->answers);
	return 0;
}

static int answer_wait(lua_State *L)
{
	run_wait_answer(L, 1);
	lua_settop(L, 1);
	return 1;
}

/* What an answer has beside its values. True: pushed. */
static bool push_extra(lua_State *L, const char *key)
{
	if (strcmp(key, "wait") == 0) {
		lua_pushcfunction(L, answer_wait);
	} else if (strcmp(key, "done") == 0 && is_pending(L, 1)) {
		lua_pushboolean(L, 0);
	} else if (strcmp(key, "ok") == 0) {
		lua_getfield(L, 1, "status");
		lua_pushboolean(L, strcmp(lua_tostring(L, -1), "OK") == 0);
	} else if (strcmp(key, "detail") == 0) {
		lua_pushstring(L, "");
	} else {
		return false;
	}
	return true;
}

/* A pending answer's field: waits for it. */
static int pending_index(lua_State *L)
{
	const char *key = luaL_checkstring(L, 2);

	if (strcmp(key, "wait") == 0) {
		lua_pushcfunction(L, answer_wait);
		return 1;
	}
	run_wait_answer(L, 1);
	lua_settop(L, 2);
	lua_gettable(L, 1);
	return 1;
}

/* A field that an answer does not have. */
static int answered_index(lua_State *L)
{
	const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : NULL;
	const struct contract_field *f = NULL;
	const struct contract_op *op;
	struct suggestion s = {.word = key};
	unsigned i;

	if (!key)
		return 0;
	if (push_extra(L, key))
		return 1;
	lua_pushstring(L, "op");
	lua_rawget(L, 1);
	op = op_by_word(lua_tostring(L, -1));
	for (i = 0; (f = field_at(&op->values, i)) && strcmp(f->name, key) != 0; i++)
		suggest(&s, f->name);
	lua_getfield(L, 1, "status");
	if (f)
		script_raise(L, EXIT_USAGE, "%s answered %s and has no %s", op->word,
			     lua_tostring(L, -1), key);
	if (s.nearest)
		script_raise(L, EXIT_USAGE, "%s answers no %s; did you mean %s?", op->word, key,
			     s.nearest);
	script_raise(L, EXIT_USAGE, "%s answers no %s; see zonectl %s --help", op->word, key,
		     op->word);
}

static void add_value(lua_State *L, luaL_Buffer *b, const struct contract_field *f)
{
	char text[512];

	if (lua_type(L, -1) == LUA_TNUMBER)
		value_format(f, (uint64_t)lua_tointeger(L, -1), text, sizeof text);
	else if (lua_isboolean(L, -1))
		snprintf(text, sizeof text, "%s", lua_toboolean(L, -1) ? "yes" : "no");
	else
		snprintf(text, sizeof text, "%.500s", lua_tostring(L, -1));
	lua_pop(L, 1);
	lua_pushfstring(L, " %s=%s", f->name, text);
	luaL_addvalue(b);
}

/* alloc #12 OK pfn=0x37ffe zone=ZONE_HIGHMEM migratetype=MIGRATE_UNMOVABLE */
static int answer_tostring(lua_State *L)
{
	const struct contract_op *op;
	luaL_Buffer b;
	unsigned i;

	if (is_pending(L, 1)) {
		lua_pushstring(L, "an answer that is not there yet");
		return 1;
	}
	lua_getfield(L, 1, "op");
	op = op_by_word(lua_tostring(L, -1));
	lua_getfield(L, 1, "status");
	lua_pushstring(L, "number");
	lua_rawget(L, 1);
	luaL_buffinit(L, &b);
	lua_pushfstring(L, "%s #%I %s", op->word, lua_tointeger(L, 4), lua_tostring(L, 3));
	luaL_addvalue(&b);
	for (i = 0; i < op->values.nr_ints; i++) {
		lua_pushstring(L, op->values.ints[i].name);
		if (lua_rawget(L, 1) == LUA_TNIL)
			lua_pop(L, 1);
		else
			add_value(L, &b, &op->values.ints[i]);
	}
	lua_pushstring(L, "detail");
	if (lua_rawget(L, 1) == LUA_TSTRING) {
		lua_pushfstring(L, " (%s)", lua_tostring(L, -1));
		lua_remove(L, -2);
		luaL_addvalue(&b);
	} else {
		lua_pop(L, 1);
	}
	luaL_pushresult(&b);
	return 1;
}

bool result_at(lua_State *L, int index)
{
	bool is;

	index = lua_absindex(L, index);
	if (is_pending(L, index)) {
		run_wait_answer(L, index);
		return true;
	}
	if (lua_type(L, index) != LUA_TTABLE || !lua_getmetatable(L, index))
		return false;
	luaL_getmetatable(L, answered_type);
	is = lua_rawequal(L, -1, -2);
	lua_pop(L, 2);
	return is;
}

static void new_type(lua_State *L, const char *type, const luaL_Reg *functions)
{
	luaL_newmetatable(L, type);
	luaL_setfuncs(L, functions, 0);
	lua_pop(L, 1);
}

void run_types_open(lua_State *L)
{
	static const luaL_Reg core[] = {{"__gc", core_gc}, {NULL, NULL}};
	static const luaL_Reg pending[] = {
	    {"__index", pending_index}, {"__tostring", answer_tostring}, {NULL, NULL}};
	static const luaL_Reg answered[] = {
	    {"__index", answered_index}, {"__tostring", answer_tostring}, {NULL, NULL}};

	new_type(L, core_type, core);
	new_type(L, pending_type, pending);
	new_type(L, answered_type, answered);
}
