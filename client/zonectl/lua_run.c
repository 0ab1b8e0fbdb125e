/*
 * lua_run.c - a machine's stream of ops, and their answers as Lua tables.
 *
 * Every op of a script goes over one Memory.Run stream per machine, so ops are done in
 * the order in which the script says them, whether it waits for each (m:alloc{...}) or
 * not (m:async("alloc", {...})). What either returns is one value, the answer: pending
 * until the daemon's is read. Reading a field of a pending one waits for it. What was
 * answered lies there as numbers; a field becomes a Lua value when it is read.
 *
 * Invariants:
 *  1. The answer to the op with index i of the stream, base <= i < end, is pending and
 *     at ring[i % capacity], and held by the ring's table; or that place is NULL.
 *  2. Lua code never runs inside the library's callback: the callback fills answers, and
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
	RING_AT_FIRST = 1024,
};

const char core_type[] = "zoned.core", answer_type[] = "zoned.result";

static void push_held(lua_State *L, const struct core *c)
{
	lua_rawgeti(L, LUA_REGISTRYINDEX, c->held);
}

/* Other tables of a core, in the registry under the addresses of its own fields. */

static void push_ready(lua_State *L, const struct core *c)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &c->nr_ready);
}

static void push_callbacks(lua_State *L, const struct core *c)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &c->answers);
}

/* ---- the ring ---- */

static uint64_t place_of(const struct core *c, uint64_t index)
{
	return index & (c->capacity - 1);
}

/* Makes the ring twice as large, and its table anew. */
static void ring_grow(lua_State *L, struct core *c)
{
	struct core old = *c;
	uint64_t i;

	c->capacity = old.capacity ? 2 * old.capacity : RING_AT_FIRST;
	c->ring = must(calloc(c->capacity, sizeof *c->ring));
	push_held(L, c);
	lua_createtable(L, (int)c->capacity, 0);
	for (i = c->base; i < c->end; i++) {
		c->ring[place_of(c, i)] = old.ring[place_of(&old, i)];
		lua_rawgeti(L, -2, (lua_Integer)place_of(&old, i) + 1);
		lua_rawseti(L, -2, (lua_Integer)place_of(c, i) + 1);
	}
	lua_rawseti(L, LUA_REGISTRYINDEX, c->held);
	lua_pop(L, 1);
	free(old.ring);
}

/* Adds the answer on top of the stack. */
static void ring_add(lua_State *L, struct core *c, struct answer *a)
{
	if (c->end - c->base == c->capacity)
		ring_grow(L, c);
	c->ring[place_of(c, c->end)] = a;
	push_held(L, c);
	lua_pushvalue(L, -2);
	lua_rawseti(L, -2, (lua_Integer)place_of(c, c->end) + 1);
	lua_pop(L, 1);
	c->end++;
}

/* Notes which source the function on top, which sends, is from. The sources are few; the
 * newest is the likeliest. */
static void note_sender(lua_State *L, struct core *c, lua_Debug *at)
{
	unsigned i;

	lua_getinfo(L, "S", at);
	for (i = c->nr_sources; i-- > 0 && strcmp(c->sources[i], at->short_src) != 0;)
		;
	if (i == UINT_MAX) {
		if (c->nr_sources == MAX_SOURCES)
			c->nr_sources--;
		i = c->nr_sources++;
		snprintf(c->sources[i], LUA_IDSIZE, "%s", at->short_src);
	}
	c->sender_source = (uint8_t)i;
	c->sender = lua_topointer(L, -1);
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &c->sender);
}

/* Notes where the script is. */
static void note_line(lua_State *L, struct core *c, struct answer *a)
{
	lua_Debug at;

	if (!lua_getstack(L, 1, &at))
		return;
	lua_getinfo(L, "fl", &at);
	if (lua_topointer(L, -1) != c->sender)
		note_sender(L, c, &at);
	lua_pop(L, 1);
	a->line = (uint32_t)(at.currentline > 0 ? at.currentline : 0);
	a->source = c->sender_source;
}

/* ---- answers ---- */

static void note_refusal(struct core *c, const struct answer *a,
			 const struct zoned_packed_result *r)
{
	if (*c->refusal_text)
		return;
	snprintf(c->refusal, sizeof c->refusal, "%s:%u: ", c->sources[a->source], a->line);
	snprintf(c->refusal_text, sizeof c->refusal_text, "%s: %s: %.*s", a->op->word,
		 zoned_code_name((int)r->code), (int)r->message_length, r->message);
}

/* A failure leaves values that mean nothing zero: they are left out, so that reading
 * one is an error. Where one value says something (how far an access came), all do. */
static bool says_something(const struct contract_op *op, const struct packed_result *r)
{
	unsigned i;

	for (i = 0; i < op->values.nr_ints; i++)
		if (r->values[i])
			return true;
	return r->status == STATUS_OK;
}

static void push_list(lua_State *L, struct wire_reader words)
{
	size_t i, n = (size_t)(words.end - words.at) / sizeof(uint32_t);
	uint32_t word;

	lua_createtable(L, (int)n, 0);
	for (i = 0; i < n; i++) {
		memcpy(&word, words.at + i * sizeof word, sizeof word);
		lua_pushinteger(L, word);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
}

static void push_bytes(lua_State *L, struct wire_reader bytes)
{
	lua_pushlstring(L, (const char *)bytes.at, (size_t)(bytes.end - bytes.at));
}

/* Fills in what the machine answered. `place` is the answer's in the ring's table. */
static void fill_answer(lua_State *L, struct core *c, struct answer *a, uint64_t place,
			const struct packed_result *r)
{
	const struct contract_field *data = a->op->values.data;

	a->number = r->number;
	a->status = r->status;
	memcpy(a->values, r->values, sizeof a->values);
	a->has_values = says_something(a->op, r);
	c->answers[r->status % 32]++;
	if (r->detail.at == r->detail.end && !data)
		return;
	push_held(L, c);
	lua_rawgeti(L, -1, (lua_Integer)place + 1);
	if (r->detail.at != r->detail.end) {
		push_bytes(L, r->detail);
		lua_setiuservalue(L, -2, ANSWER_DETAIL);
	}
	if (data) {
		if (data->kind == FIELD_U32_LIST)
			push_list(L, r->data);
		else
			push_bytes(L, r->data);
		lua_setiuservalue(L, -2, ANSWER_DATA);
	}
	lua_pop(L, 2);
}

/* The answer at this place is there: takes it out of the ring, and among those whose
 * callback is to be run if it has one. */
static void settle_answer(lua_State *L, struct core *c, struct answer *a, uint64_t place)
{
	a->state = ANSWER_THERE;
	c->ring[place] = NULL;
	push_held(L, c);
	if (a->callback) {
		push_ready(L, c);
		lua_rawgeti(L, -2, (lua_Integer)place + 1);
		lua_rawseti(L, -2, ++c->nr_ready);
		lua_pop(L, 1);
	}
	lua_pushnil(L);
	lua_rawseti(L, -2, (lua_Integer)place + 1);
	lua_pop(L, 1);
	while (c->base < c->end && !c->ring[place_of(c, c->base)])
		c->base++;
	c->progress++;
}

/* The library's callback; raises no error (nothing here can but for lack of memory). */
static void on_result(void *user, const struct zoned_packed_result *r)
{
	struct core *c = user;
	struct packed_result result;
	struct wire_reader bytes = {r->bytes, r->bytes + r->length};
	uint64_t place = place_of(c, r->index);
	struct answer *a = r->index >= c->base && r->index < c->end ? c->ring[place] : NULL;

	if (!a)
		return;
	if (!r->code && r->op == a->op->code &&
	    packed_result_read(a->op, bytes, &c->script->list, &result)) {
		fill_answer(c->L, c, a, place, &result);
	} else {
		a->refused = r->code ? r->code : ZONED_INTERNAL;
		note_refusal(c, a, r);
	}
	settle_answer(c->L, c, a, place);
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
	uint64_t i;

	zoned_run_close(c->run);
	c->run = NULL;
	for (i = c->base; i < c->end; i++)
		if (c->ring[place_of(c, i)])
			c->ring[place_of(c, i)]->state = ANSWER_LOST;
	free(c->ring);
	c->ring = NULL;
	c->base = c->end = c->capacity = 0;
	c->nr_ready = c->ready_done = 0;
	luaL_unref(L, LUA_REGISTRYINDEX, c->held);
	lua_newtable(L);
	c->held = luaL_ref(L, LUA_REGISTRYINDEX);
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
	rc = zoned_run_open_packed(z, &context, on_result, c, &c->run);
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

/* NULL: the value is no answer. */
static struct answer *answer_at(lua_State *L, int index)
{
	return luaL_testudata(L, index, answer_type);
}

/* Waits for an answer. */
static void wait_answer(lua_State *L, struct answer *a)
{
	uint64_t progress, since, in_flight;
	struct core *c = a->core;

	if (a->state == ANSWER_THERE)
		return;
	progress = c->progress;
	since = monotonic_ns();
	while (a->state == ANSWER_PENDING) {
		in_flight = zoned_run_in_flight(c->run) + zoned_run_filling(c->run);
		if (!wait_a_while(L, c, in_flight ? in_flight - 1 : 0, SCRIPT_SLICE_MS))
			check_patience(L, c, &progress, &since);
	}
	if (a->state == ANSWER_LOST)
		script_raise(L, EXIT_UNREACHABLE,
			     "%s: the connection that this answer was to come over is gone",
			     c->name);
	run_callbacks(L, c);
}

void run_wait_answer(lua_State *L, int index)
{
	struct answer *a = answer_at(L, index);

	if (a)
		wait_answer(L, a);
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
	struct answer *a = lua_newuserdatauv(L, sizeof *a, ANSWER_DATA);

	*a = (struct answer){.core = c, .op = op, .callback = callback != 0};
	lua_getiuservalue(L, handle, 1);
	lua_setiuservalue(L, -2, ANSWER_CORE);
	lua_rawgeti(L, LUA_REGISTRYINDEX, c->script->answer_metatable);
	lua_setmetatable(L, -2);
	note_line(L, c, a);
	ring_add(L, c, a);
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
	free(c->ring);
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	luaL_unref(L, LUA_REGISTRYINDEX, c->held);
	lua_pushnil(L);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &c->sender);
	lua_pushnil(L);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &c->nr_ready);
	lua_pushnil(L);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &c->answers);
	return 0;
}

static struct answer *check_answer(lua_State *L)
{
	return luaL_checkudata(L, 1, answer_type);
}

static int answer_wait(lua_State *L)
{
	wait_answer(L, check_answer(L));
	lua_settop(L, 1);
	return 1;
}

static const char *status_of(const struct answer *a)
{
	return a->refused ? zoned_code_name((int)a->refused) : status_name(a->status);
}

/* Pushes one of the op's values, or nil. */
static void push_value(lua_State *L, const struct answer *a, int index, unsigned i)
{
	if (a->refused)
		lua_pushnil(L);
	else if (i == a->op->values.nr_ints)
		lua_getiuservalue(L, index, ANSWER_DATA);
	else if (!a->has_values)
		lua_pushnil(L);
	else
		field_to_lua(L, &a->op->values.ints[i], a->values[i]);
}

/* The place of a value of that name, or UINT_MAX. */
static unsigned value_named(const struct contract_op *op, const char *key)
{
	const struct contract_field *f;
	unsigned i;

	for (i = 0; (f = field_at(&op->values, i)); i++)
		if (strcmp(f->name, key) == 0)
			return i;
	return UINT_MAX;
}

static void no_value(lua_State *L, const struct answer *a, const char *key)
    __attribute__((noreturn));

static void no_value(lua_State *L, const struct answer *a, const char *key)
{
	const struct contract_field *f;
	struct suggestion s = {.word = key};
	unsigned i;

	if (value_named(a->op, key) != UINT_MAX)
		script_raise(L, EXIT_USAGE, "%s answered %s and has no %s", a->op->word,
			     status_of(a), key);
	for (i = 0; (f = field_at(&a->op->values, i)); i++)
		suggest(&s, f->name);
	if (s.nearest)
		script_raise(L, EXIT_USAGE, "%s answers no %s; did you mean %s?", a->op->word, key,
			     s.nearest);
	script_raise(L, EXIT_USAGE, "%s answers no %s; see zonectl %s --help", a->op->word, key,
		     a->op->word);
}

/* What an answer has beside its values. False: it has no such thing. */
static bool push_extra(lua_State *L, const struct answer *a, const char *key)
{
	if (strcmp(key, "status") == 0)
		lua_pushstring(L, status_of(a));
	else if (strcmp(key, "ok") == 0)
		lua_pushboolean(L, !a->refused && a->status == STATUS_OK);
	else if (strcmp(key, "number") == 0)
		lua_pushinteger(L, (lua_Integer)a->number);
	else if (strcmp(key, "op") == 0)
		lua_pushstring(L, a->op->word);
	else if (strcmp(key, "detail") != 0)
		return false;
	else if (lua_getiuservalue(L, 1, ANSWER_DETAIL) == LUA_TNIL)
		lua_pushstring(L, "");
	return true;
}

/* An answer's field; a pending one is waited for, unless that is what was asked. */
static int answer_index(lua_State *L)
{
	struct answer *a = check_answer(L);
	const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : NULL;
	unsigned i;

	if (!key)
		return 0;
	if (strcmp(key, "wait") == 0) {
		lua_pushcfunction(L, answer_wait);
		return 1;
	}
	wait_answer(L, a);
	i = value_named(a->op, key);
	if (i != UINT_MAX) {
		push_value(L, a, 1, i);
		if (lua_isnil(L, -1))
			no_value(L, a, key);
	} else if (!push_extra(L, a, key)) {
		no_value(L, a, key);
	}
	return 1;
}

bool result_push_fields(lua_State *L, int index)
{
	const struct answer *a = answer_at(L, index);
	const struct contract_field *f;
	unsigned i;

	if (!a || a->state != ANSWER_THERE)
		return false;
	index = lua_absindex(L, index);
	lua_newtable(L);
	lua_pushstring(L, a->op->word);
	lua_setfield(L, -2, "op");
	lua_pushstring(L, status_of(a));
	lua_setfield(L, -2, "status");
	lua_pushinteger(L, (lua_Integer)a->number);
	lua_setfield(L, -2, "number");
	/* A value that is nil leaves no field. */
	lua_getiuservalue(L, index, ANSWER_DETAIL);
	lua_setfield(L, -2, "detail");
	for (i = 0; (f = field_at(&a->op->values, i)); i++) {
		push_value(L, a, index, i);
		lua_setfield(L, -2, f->name);
	}
	return true;
}

static int next_field(lua_State *L)
{
	lua_settop(L, 2);
	if (lua_next(L, 1))
		return 2;
	lua_pushnil(L);
	return 1;
}

/* for name, value in pairs(answer) */
static int answer_pairs(lua_State *L)
{
	wait_answer(L, check_answer(L));
	lua_pushcfunction(L, next_field);
	result_push_fields(L, 1);
	return 2;
}

static void add_value(luaL_Buffer *b, const struct contract_field *f, uint64_t value)
{
	char text[600], formatted[512];

	snprintf(text, sizeof text, " %s=%s", f->name,
		 value_format(f, value, formatted, sizeof formatted));
	luaL_addstring(b, text);
}

/* alloc #12 OK pfn=0x37ffe zone=ZONE_HIGHMEM migratetype=MIGRATE_UNMOVABLE */
static int answer_tostring(lua_State *L)
{
	const struct answer *a = check_answer(L);
	luaL_Buffer b;
	unsigned i;

	if (a->state != ANSWER_THERE) {
		lua_pushstring(L, a->state == ANSWER_LOST ? "an answer that will not come"
							  : "an answer that is not there yet");
		return 1;
	}
	luaL_buffinit(L, &b);
	lua_pushfstring(L, "%s #%I %s", a->op->word, (LUAI_UACINT)a->number, status_of(a));
	luaL_addvalue(&b);
	for (i = 0; a->has_values && i < a->op->values.nr_ints; i++)
		add_value(&b, &a->op->values.ints[i], a->values[i]);
	if (lua_getiuservalue(L, 1, ANSWER_DETAIL) == LUA_TSTRING) {
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
	struct answer *a = answer_at(L, index);

	if (a)
		wait_answer(L, a);
	return a != NULL;
}

bool result_is_pending(lua_State *L, int index)
{
	const struct answer *a = answer_at(L, index);

	return a && a->state == ANSWER_PENDING;
}

void run_types_open(lua_State *L)
{
	static const luaL_Reg core[] = {{"__gc", core_gc}, {NULL, NULL}};
	static const luaL_Reg answer[] = {{"__index", answer_index},
					  {"__pairs", answer_pairs},
					  {"__tostring", answer_tostring},
					  {NULL, NULL}};

	luaL_newmetatable(L, core_type);
	luaL_setfuncs(L, core, 0);
	lua_pop(L, 1);
	luaL_newmetatable(L, answer_type);
	luaL_setfuncs(L, answer, 0);
	script_of(L)->answer_metatable = luaL_ref(L, LUA_REGISTRYINDEX);
}
