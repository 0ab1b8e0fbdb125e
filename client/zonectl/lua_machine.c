/*
 * lua_machine.c - machines as Lua values: ops, their answers, inspections.
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
 *  3. A machine's sleepers hold nothing back but themselves: settle() ends when all that
 *     is unanswered is asleep.
 */
#include <stdlib.h>
#include <string.h>

#include "lua_script.h"

enum {
	BATCH = 256,	  /* ops sent together */
	IN_FLIGHT = 4096, /* ops unanswered, before async() waits for some */
	NAME_BYTES = 64,
	WHERE_BYTES = LUA_IDSIZE + 16,
	MAX_SOURCES = 64,
};

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

static const char core_type[] = "zoned.core", handle_type[] = "zoned.machine",
		  pending_type[] = "zoned.pending", answered_type[] = "zoned.result";
/* Key of a pending answer's core in its table; its address counts. */
static const char core_key;

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

const char *machine_name(const struct core *core)
{
	return core->name;
}

uint64_t machine_id(const struct core *core)
{
	return core->id;
}

struct core *machine_at(lua_State *L, int index)
{
	struct handle *h = luaL_testudata(L, index, handle_type);

	return h ? h->core : NULL;
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
static void run_drop(lua_State *L, struct core *c)
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

static void run_broken(lua_State *L, struct core *c, const char *what, int rc)
{
	run_drop(L, c);
	script_refused(L, what, rc);
}

static void run_open(lua_State *L, struct core *c)
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
static void wait_answer(lua_State *L, int index)
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
static uint64_t settle(lua_State *L, struct core *c)
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
		settle(L, c);
}

/* ---- building an op ---- */

/* Keys of an argument table that are the op's context. */
static bool set_context(lua_State *L, const char *key, Zoned__V1__OpContext *context)
{
	int exact = 1;
	lua_Integer n;

	if (strcmp(key, "owner") == 0) {
		context->owner = (char *)(uintptr_t)luaL_checkstring(L, -1);
		return true;
	}
	if (strcmp(key, "cpu") != 0 && strcmp(key, "task") != 0)
		return false;
	n = lua_tointegerx(L, -1, &exact);
	if (!exact || n < 0 || n > (key[0] == 'c' ? 31 : UINT32_MAX))
		script_raise(L, EXIT_USAGE, "%s: a number from 0 to %u is needed", key,
			     key[0] == 'c' ? 31u : UINT32_MAX);
	if (key[0] == 'c')
		context->cpu = (uint32_t)n;
	else
		context->task = (uint32_t)n;
	return true;
}

static const struct contract_field *field_at(const struct contract_fields *fields, unsigned i)
{
	if (i < fields->nr_ints)
		return &fields->ints[i];
	return i == fields->nr_ints ? fields->data : NULL;
}

/* A message that is filled from Lua's values. An error on the way leaves it behind, and
 * the next one frees it; so does the end of the script. */
static ProtobufCMessage *building_new(lua_State *L, const ProtobufCMessageDescriptor *descriptor)
{
	struct script *s = script_of(L);

	message_free(s->building);
	s->building = message_new(descriptor);
	return s->building;
}

static void building_free(lua_State *L)
{
	message_free(script_of(L)->building);
	script_of(L)->building = NULL;
}

static void no_argument(lua_State *L, const char *word, const struct contract_fields *fields,
			const char *key)
{
	struct suggestion s = {.word = key};
	const struct contract_field *f;
	char names[512] = "none";
	size_t used = 0;
	unsigned i;

	for (i = 0; (f = field_at(fields, i)); i++) {
		suggest(&s, f->name);
		if (used < sizeof names)
			used += (size_t)snprintf(names + used, sizeof names - used, "%s%s",
						 used ? ", " : "", f->name);
	}
	if (s.nearest)
		script_raise(L, EXIT_USAGE, "%s: no argument %s; did you mean %s?", word, key,
			     s.nearest);
	script_raise(L, EXIT_USAGE, "%s: no argument %s; it takes %s", word, key, names);
}

/* Sets a field from the top of the stack. */
static void set_argument(lua_State *L, const char *word, ProtobufCMessage *m,
			 const struct contract_field *f)
{
	char err[1024];

	if (!field_from_lua(L, -1, m, f, err, sizeof err))
		script_raise(L, EXIT_USAGE, "%s: %s: %s", word, f->name, err);
}

/* The fields of a message from the table at `table` and, before it, from the values at
 * first..table - 1, which are the required arguments in the contract's order; all of them
 * where none is required. */
static void set_arguments(lua_State *L, const char *word, const struct contract_fields *fields,
			  ProtobufCMessage *m, int first, int table, bool has_table,
			  Zoned__V1__OpContext *context)
{
	const struct contract_field *f;
	uint64_t given = 0;
	bool all = true;
	unsigned i;
	int at = first;

	for (i = 0; (f = field_at(fields, i)); i++)
		all = all && !f->required;
	for (i = 0; at < table && (f = field_at(fields, i)); i++) {
		if (!f->required && !all)
			continue;
		lua_pushvalue(L, at++);
		set_argument(L, word, m, f);
		lua_pop(L, 1);
		given |= 1ull << i;
	}
	if (at < table)
		script_raise(L, EXIT_USAGE,
			     "%s: it takes %d arguments by position; the others go by name, "
			     "in a table",
			     word, at - first);
	if (has_table) {
		lua_pushnil(L);
		while (lua_next(L, table)) {
			const char *key =
			    lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";

			if (context && set_context(L, key, context)) {
				lua_pop(L, 1);
				continue;
			}
			if (strncmp(key, "arg_", 4) == 0)
				key += 4;
			for (i = 0; (f = field_at(fields, i)) && strcmp(f->name, key) != 0; i++)
				;
			if (!f)
				no_argument(L, word, fields, key);
			set_argument(L, word, m, f);
			given |= 1ull << i;
			lua_pop(L, 1);
		}
	}
	for (i = 0; (f = field_at(fields, i)); i++)
		if (f->required && !(given & 1ull << i))
			script_raise(L, EXIT_USAGE, "%s: %s is needed", word, f->name);
}

static struct handle *check_handle(lua_State *L, int index)
{
	return luaL_checkudata(L, index, handle_type);
}

/* Queues an op with the arguments from stack index `first` on, and pushes its answer.
 * `callback`: the last value is one. */
static struct core *submit(lua_State *L, const struct contract_op *op, int first, bool callback)
{
	struct handle *h = check_handle(L, 1);
	Zoned__V1__OpContext context = ZONED__V1__OP_CONTEXT__INIT;
	int last = lua_gettop(L) - callback;
	bool has_table = last >= first && lua_istable(L, last);
	struct core *c = h->core;
	struct slot slot = {.code = op->code, .callback = callback};
	ProtobufCMessage *m;
	uint64_t index;
	int rc;

	/* A list of numbers as the one required argument is a value, not names. */
	if (has_table && last == first && lua_rawlen(L, last) > 0)
		has_table = false;
	run_open(L, c);
	context.cpu = h->cpu;
	context.task = h->task;
	context.owner = h->owner;
	m = building_new(L, contract_op_messages[op->code].op);
	set_arguments(L, op->word, &op->args, m, first, has_table ? last : last + 1, has_table,
		      &context);
	if (context.cpu || context.task || *context.owner)
		message_set_sub(m, 1, &context.base);
	rc = zoned_run_add(c->run, op->code, m);
	/* The context is this function's, not the message's to free. */
	message_set_sub(m, 1, NULL);
	building_free(L);
	if (rc)
		run_broken(L, c, op->word, rc);
	note_line(L, c, &slot);
	index = c->base + c->nr_slots;
	slot_add(c, &slot);

	push_pending(L, c);
	lua_createtable(L, 0, (int)op->values.nr_ints + 4);
	lua_getiuservalue(L, 1, 1);
	lua_rawsetp(L, -2, &core_key);
	luaL_setmetatable(L, pending_type);
	lua_pushvalue(L, -1);
	lua_rawseti(L, -3, (lua_Integer)index);
	lua_remove(L, -2);
	if (callback) {
		push_callbacks(L, c);
		lua_pushvalue(L, -2);
		lua_pushvalue(L, last + 1);
		lua_rawset(L, -3);
		lua_pop(L, 1);
	}
	return c;
}

static void no_op(lua_State *L, const char *what, const char *word)
{
	struct suggestion s = {.word = word};
	unsigned i;

	for (i = 0; i < OP_CODE_END; i++)
		if (contract_ops[i].code)
			suggest(&s, contract_ops[i].word);
	for (i = 0; i < contract_nr_inspections; i++)
		suggest(&s, contract_inspections[i].word);
	if (s.nearest)
		script_raise(L, EXIT_USAGE, "no %s %s; did you mean %s?", what, word, s.nearest);
	script_raise(L, EXIT_USAGE, "no %s %s; `zonectl help` lists them", what, word);
}

/* memblock_add -> memblock-add, as words of the command line are written. */
static const char *dashed(const char *name, char *to, size_t size)
{
	return strchr(name, '_') ? kebab(name, to, size) : name;
}

static const struct contract_op *find_op(const char *name)
{
	char word[64];

	return op_by_word(name) ? op_by_word(name) : op_by_word(dashed(name, word, sizeof word));
}

/* ---- methods ---- */

/* m:alloc{gfp=..., order=0}: upvalue 1 is the op's code. */
static int call_op(lua_State *L)
{
	const struct contract_op *op = &contract_ops[lua_tointeger(L, lua_upvalueindex(1))];

	check_handle(L, 1);
	submit(L, op, 2, false);
	wait_answer(L, -1);
	return 1;
}

/* m:op("alloc", {...}): the same by name. */
static int method_op(lua_State *L)
{
	const char *name = luaL_checkstring(L, 2);
	const struct contract_op *op = find_op(name);

	if (!op)
		no_op(L, "op", name);
	submit(L, op, 3, false);
	wait_answer(L, -1);
	return 1;
}

/* Keeps the number of unanswered ops in bounds; sleepers do not count. */
static void keep_window(lua_State *L, struct core *c)
{
	uint64_t left;

	if (zoned_run_filling(c->run) < BATCH)
		return;
	left = zoned_run_in_flight(c->run);
	wait_a_while(L, c, UINT64_MAX, 0);
	if (left > IN_FLIGHT && !wait_a_while(L, c, IN_FLIGHT, SCRIPT_SLICE_MS))
		settle(L, c);
	run_callbacks(L, c);
}

/* m:async("alloc", {...} [, callback]) */
static int method_async(lua_State *L)
{
	const struct contract_op *op;
	struct core *c;

	check_handle(L, 1);
	lua_pushvalue(L, 2);
	if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNUMBER) {
		op = find_op(luaL_checkstring(L, 2));
		if (!op)
			no_op(L, "op", lua_tostring(L, 2));
		lua_pushvalue(L, 2);
		lua_pushinteger(L, op->code);
		lua_rawset(L, lua_upvalueindex(1));
	} else {
		op = &contract_ops[lua_tointeger(L, -1)];
	}
	lua_pop(L, 1);
	c = submit(L, op, 3, lua_isfunction(L, -1));
	keep_window(L, c);
	return 1;
}

/* m:flush(): by status, how many ops were answered since the last time. */
static int method_flush(lua_State *L)
{
	struct core *c = check_handle(L, 1)->core;
	uint64_t sleep = settle(L, c);
	uint32_t i;

	lua_newtable(L);
	for (i = 0; i < 32; i++)
		if (c->answers[i]) {
			lua_pushinteger(L, (lua_Integer)c->answers[i]);
			lua_setfield(L, -2, status_name(i));
		}
	if (sleep) {
		lua_pushinteger(L, (lua_Integer)sleep);
		lua_setfield(L, -2, status_name(STATUS_PARKED));
	}
	memset(c->answers, 0, sizeof c->answers);
	return 1;
}

static void handle_push(lua_State *L, const struct handle *from)
{
	struct handle *h = lua_newuserdatauv(L, sizeof *h, 1);

	*h = *from;
	luaL_setmetatable(L, handle_type);
}

/* m:with{task=1, cpu=0, owner="program"}: the same machine, on whose behalf. */
static int method_with(lua_State *L)
{
	struct handle h = *check_handle(L, 1);
	Zoned__V1__OpContext context = ZONED__V1__OP_CONTEXT__INIT;

	luaL_checktype(L, 2, LUA_TTABLE);
	context.cpu = h.cpu;
	context.task = h.task;
	context.owner = h.owner;
	lua_pushnil(L);
	while (lua_next(L, 2)) {
		if (lua_type(L, -2) != LUA_TSTRING ||
		    !set_context(L, lua_tostring(L, -2), &context))
			script_raise(L, EXIT_USAGE, "with: task, cpu and owner is what it takes");
		lua_pop(L, 1);
	}
	if (strlen(context.owner) >= sizeof h.owner)
		script_raise(L, EXIT_USAGE, "with: owner: longer than %zu bytes",
			     sizeof h.owner - 1);
	h.cpu = context.cpu;
	h.task = context.task;
	if (context.owner != h.owner)
		snprintf(h.owner, sizeof h.owner, "%s", context.owner);
	handle_push(L, &h);
	lua_getiuservalue(L, 1, 1);
	lua_setiuservalue(L, -2, 1);
	return 1;
}

/* ---- inspections ---- */

static void push_report(lua_State *L, const struct contract_inspection *i,
			const Zoned__V1__InspectResponse *response)
{
	const ProtobufCMessage *report = message_sub(&response->base, i->code);
	unsigned k;
	size_t r;

	lua_newtable(L);
	lua_pushinteger(L, (lua_Integer)response->op);
	lua_setfield(L, -2, "op");
	lua_pushstring(L, response->text);
	lua_setfield(L, -2, "text");
	lua_pushboolean(L, response->truncated);
	lua_setfield(L, -2, "truncated");
	for (k = 0; report && k < i->nr_rows; k++) {
		const ProtobufCFieldDescriptor *f =
		    protobuf_c_message_descriptor_get_field(report->descriptor, i->rows[k].type);
		size_t n = *(const size_t *)((uintptr_t)report + f->quantifier_offset);
		ProtobufCMessage *const *row =
		    *(ProtobufCMessage *const **)((uintptr_t)report + f->offset);

		lua_createtable(L, (int)n, 0);
		for (r = 0; r < n; r++) {
			lua_createtable(L, 0, (int)i->rows[k].columns.nr_ints);
			fields_to_lua(L, row[r], &i->rows[k].columns, true);
			lua_rawseti(L, -2, (lua_Integer)r + 1);
		}
		lua_setfield(L, -2, i->rows[k].name);
	}
}

static int inspect(lua_State *L, const struct contract_inspection *i, int first)
{
	struct core *c = check_handle(L, 1)->core;
	int last = lua_gettop(L);
	bool has_table = last >= first && lua_istable(L, last);
	ProtobufCMessage *question, *request, *reply;
	int rc;

	settle(L, c);
	script_connection(L);
	question = building_new(L, contract_inspect_messages[i - contract_inspections].question);
	set_arguments(L, i->word, &i->args, question, first, has_table ? last : last + 1, has_table,
		      NULL);
	script_of(L)->building = NULL; /* the request's now */
	request = message_new(&zoned__v1__inspect_request__descriptor);
	message_set_string(request, 1, c->name);
	message_set_sub(request, i->code, question);
	rc = zoned_call(c->script->ctl->z, "/zoned.v1.Machines/Inspect", request,
			&zoned__v1__inspect_response__descriptor, c->script->ctl->timeout_ms,
			&reply);
	message_free(request);
	if (rc)
		script_refused(L, i->word, rc);
	push_report(L, i, (Zoned__V1__InspectResponse *)reply);
	message_free(reply);
	return 1;
}

/* m:zoneinfo(): upvalue 1 is the inspection's place in the contract's list. */
static int call_inspection(lua_State *L)
{
	return inspect(L, &contract_inspections[lua_tointeger(L, lua_upvalueindex(1))], 2);
}

static const struct contract_inspection *find_inspection(const char *name)
{
	char word[64];
	const struct contract_inspection *i = inspection_by_word(name);

	return i ? i : inspection_by_word(dashed(name, word, sizeof word));
}

static int method_inspect(lua_State *L)
{
	const char *name = luaL_checkstring(L, 2);
	const struct contract_inspection *i = find_inspection(name);

	if (!i)
		no_op(L, "inspection", name);
	return inspect(L, i, 3);
}

/* ---- machines by name ---- */

/* A unary call of the service Machines; the caller frees the reply. */
static ProtobufCMessage *machines_call(lua_State *L, const char *method,
				       const ProtobufCMessageDescriptor *request_type,
				       const ProtobufCMessageDescriptor *reply_type,
				       const char *name)
{
	struct zoned *z = script_connection(L);
	ProtobufCMessage *request = message_new(request_type), *reply;
	char path[64];
	int rc;

	snprintf(path, sizeof path, "/zoned.v1.Machines/%s", method);
	if (name)
		message_set_string(request, 1, name);
	rc = zoned_call(z, path, request, reply_type, script_of(L)->ctl->timeout_ms, &reply);
	message_free(request);
	if (rc)
		script_refused(L, name ? name : "machines", rc);
	return reply;
}

static int method_info(lua_State *L)
{
	struct core *c = check_handle(L, 1)->core;
	ProtobufCMessage *reply;
	json_t *o;

	settle(L, c);
	reply = machines_call(L, "Get", &zoned__v1__get_request__descriptor,
			      &zoned__v1__machine__descriptor, c->name);
	o = machine_to_json((Zoned__V1__Machine *)reply);
	message_free(reply);
	json_to_lua(L, o);
	json_decref(o);
	return 1;
}

/* m:check(): recounts everything; an error names the first lie. */
static int method_check(lua_State *L)
{
	struct core *c = check_handle(L, 1)->core;
	const Zoned__V1__CheckResponse *r;
	char lie[SCRIPT_ERROR_BYTES];
	ProtobufCMessage *reply;
	bool ok;

	settle(L, c);
	reply = machines_call(L, "Check", &zoned__v1__check_request__descriptor,
			      &zoned__v1__check_response__descriptor, c->name);
	r = (const Zoned__V1__CheckResponse *)reply;
	ok = r->ok;
	snprintf(lie, sizeof lie, "after op %llu: %s", (unsigned long long)r->op, r->lie);
	message_free(reply);
	if (!ok)
		script_raise(L, EXIT_LIE, "%s: %s", c->name, lie);
	lua_pushboolean(L, 1);
	return 1;
}

static int method_digest(lua_State *L)
{
	struct core *c = check_handle(L, 1)->core;
	ProtobufCMessage *reply;

	settle(L, c);
	reply = machines_call(L, "Digest", &zoned__v1__digest_request__descriptor,
			      &zoned__v1__digest_response__descriptor, c->name);
	lua_pushstring(L, ((Zoned__V1__DigestResponse *)reply)->digest);
	message_free(reply);
	return 1;
}

static int method_destroy(lua_State *L)
{
	struct core *c = check_handle(L, 1)->core;

	if (c->run)
		run_drop(L, c);
	message_free(machines_call(L, "Destroy", &zoned__v1__destroy_request__descriptor,
				   &zoned__v1__destroy_response__descriptor, c->name));
	json_object_del(c->script->made, c->name);
	return 0;
}

static const struct {
	const char *name;
	lua_CFunction function;
} methods[] = {
    {"async", method_async}, {"flush", method_flush},	  {"op", method_op},
    {"with", method_with},   {"inspect", method_inspect}, {"info", method_info},
    {"check", method_check}, {"digest", method_digest},	  {"destroy", method_destroy},
};
enum { NR_METHODS = sizeof methods / sizeof *methods };

void machine_each_method(void (*each)(void *user, const char *name), void *user)
{
	unsigned i;

	for (i = 0; i < NR_METHODS; i++)
		each(user, methods[i].name);
}

/* ---- metatables ---- */

/* Upvalue 1 holds the methods that were asked for before. */
static int handle_index(lua_State *L)
{
	const struct contract_inspection *i;
	const struct contract_op *op;
	const char *key;

	lua_pushvalue(L, 2);
	if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL)
		return 1;
	key = luaL_checkstring(L, 2);
	if (strcmp(key, "name") == 0) {
		lua_pushstring(L, check_handle(L, 1)->core->name);
		return 1;
	}
	if (strcmp(key, "id") == 0) {
		lua_pushinteger(L, (lua_Integer)check_handle(L, 1)->core->id);
		return 1;
	}
	op = find_op(key);
	i = find_inspection(key);
	if (op) {
		lua_pushinteger(L, op->code);
		lua_pushcclosure(L, call_op, 1);
	} else if (i) {
		lua_pushinteger(L, i - contract_inspections);
		lua_pushcclosure(L, call_inspection, 1);
	} else {
		no_op(L, "op, inspection or method", key);
	}
	lua_pushvalue(L, 2);
	lua_pushvalue(L, -2);
	lua_rawset(L, lua_upvalueindex(1));
	return 1;
}

static int handle_tostring(lua_State *L)
{
	lua_pushfstring(L, "machine %s", check_handle(L, 1)->core->name);
	return 1;
}

/* Two handles are one machine, whoever they speak for. */
static int handle_eq(lua_State *L)
{
	lua_pushboolean(L, check_handle(L, 1)->core == check_handle(L, 2)->core);
	return 1;
}

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
	wait_answer(L, 1);
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
	wait_answer(L, 1);
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
		wait_answer(L, index);
		return true;
	}
	if (lua_type(L, index) != LUA_TTABLE || !lua_getmetatable(L, index))
		return false;
	luaL_getmetatable(L, answered_type);
	is = lua_rawequal(L, -1, -2);
	lua_pop(L, 2);
	return is;
}

/* ---- zoned.machine, zoned.attach, zoned.machines ---- */

/* Pushes a new handle on a machine that is there. */
static int push_machine(lua_State *L, const Zoned__V1__Machine *m)
{
	struct script *s = script_of(L);
	struct handle h = {.cpu = s->ctl->cpu, .task = s->ctl->task};
	struct core *c;

	snprintf(h.owner, sizeof h.owner, "%s", s->ctl->owner ? s->ctl->owner : "");
	handle_push(L, &h);
	c = lua_newuserdatauv(L, sizeof *c, 0);
	memset(c, 0, sizeof *c);
	c->script = s;
	snprintf(c->name, sizeof c->name, "%s", m->name);
	c->id = m->id;
	c->next = s->machines;
	c->link = &s->machines;
	if (c->next)
		c->next->link = &c->next;
	s->machines = c;
	luaL_setmetatable(L, core_type);
	run_drop(L, c);
	((struct handle *)lua_touserdata(L, -2))->core = c;
	lua_setiuservalue(L, -2, 1);
	return 1;
}

static int zoned_attach(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);
	ProtobufCMessage *reply = machines_call(L, "Get", &zoned__v1__get_request__descriptor,
						&zoned__v1__machine__descriptor, name);

	push_machine(L, (Zoned__V1__Machine *)reply);
	message_free(reply);
	return 1;
}

static int zoned_machines(lua_State *L)
{
	ProtobufCMessage *reply = machines_call(L, "List", &zoned__v1__list_request__descriptor,
						&zoned__v1__list_response__descriptor, NULL);
	const Zoned__V1__ListResponse *list = (Zoned__V1__ListResponse *)reply;
	size_t i;

	lua_createtable(L, (int)list->n_machines, 0);
	for (i = 0; i < list->n_machines; i++) {
		json_t *o = machine_to_json(list->machines[i]);

		json_to_lua(L, o);
		json_decref(o);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	message_free(reply);
	return 1;
}

/* One word of a configuration, from the value on top. */
static void set_config(lua_State *L, ProtobufCMessage *config, const char *name)
{
	char why[SCRIPT_ERROR_BYTES], number[32];
	const char *text = number;
	int rc;

	if (lua_isboolean(L, -1))
		text = lua_toboolean(L, -1) ? "yes" : "no";
	else if (lua_isinteger(L, -1))
		snprintf(number, sizeof number, "%lld", (long long)lua_tointeger(L, -1));
	else if (lua_type(L, -1) == LUA_TSTRING)
		text = lua_tostring(L, -1);
	else
		text = NULL;
	if (text) {
		complain_to(why, sizeof why);
		rc = machine_config_set(config, name, text);
		complain_to(NULL, 0);
	} else {
		rc = EXIT_USAGE;
		snprintf(why, sizeof why, "machine: %s: a %s is neither text, number nor boolean",
			 name, luaL_typename(L, -1));
	}
	if (rc != EXIT_DONE)
		script_raise(L, rc, "%s", why);
}

/* Words that stand before the others, which override them. */
static const char *const first_words[] = {"from_dmesg", "e820", "cmdline"};

static bool is_first_word(const char *key)
{
	unsigned i;

	for (i = 0; i < sizeof first_words / sizeof *first_words; i++)
		if (strcmp(first_words[i], key) == 0)
			return true;
	return false;
}

/* `reserve` may be a list. */
static void set_config_values(lua_State *L, ProtobufCMessage *config, const char *key)
{
	lua_Integer i, n = lua_istable(L, -1) ? (lua_Integer)lua_rawlen(L, -1) : 0;

	for (i = 1; i <= n; i++) {
		lua_rawgeti(L, -1, i);
		set_config(L, config, key);
		lua_pop(L, 1);
	}
	if (!n)
		set_config(L, config, key);
}

static ProtobufCMessage *config_from_table(lua_State *L)
{
	ProtobufCMessage *config = building_new(L, &zoned__v1__machine_config__descriptor);
	unsigned i;

	lua_pushstring(L, script_of(L)->backend);
	set_config(L, config, "backend");
	lua_pop(L, 1);
	for (i = 0; i < sizeof first_words / sizeof *first_words; i++) {
		if (lua_getfield(L, 1, first_words[i]) != LUA_TNIL)
			set_config_values(L, config, first_words[i]);
		lua_pop(L, 1);
	}
	lua_pushnil(L);
	while (lua_next(L, 1)) {
		const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";

		if (strcmp(key, "name") != 0 && strcmp(key, "replace") != 0 && !is_first_word(key))
			set_config_values(L, config, key);
		lua_pop(L, 1);
	}
	return config;
}

/* Ends the machine of that name, if there is one. */
static void replace(lua_State *L, const char *name)
{
	Zoned__V1__DestroyRequest request = ZONED__V1__DESTROY_REQUEST__INIT;
	ProtobufCMessage *reply;
	int rc;

	request.machine = (char *)(uintptr_t)name;
	rc = zoned_call(script_connection(L), "/zoned.v1.Machines/Destroy", &request.base,
			&zoned__v1__destroy_response__descriptor, script_of(L)->ctl->timeout_ms,
			&reply);
	if (!rc)
		message_free(reply);
	else if (rc != ZONED_NOT_FOUND)
		script_refused(L, name, rc);
}

/* zoned.machine{name=..., ram="2G", split="3G", ...} */
static int zoned_machine(lua_State *L)
{
	Zoned__V1__CreateRequest request = ZONED__V1__CREATE_REQUEST__INIT;
	struct script *s = script_of(L);
	ProtobufCMessage *config, *reply;
	const char *name;
	int rc;

	luaL_checktype(L, 1, LUA_TTABLE);
	lua_settop(L, 1);
	if (lua_getfield(L, 1, "name") != LUA_TSTRING)
		script_raise(L, EXIT_USAGE,
			     "machine: name is needed: zoned.machine{name=\"m0\", "
			     "ram=\"2G\"}");
	name = lua_tostring(L, 2);
	if (lua_getfield(L, 1, "replace") != LUA_TNIL && lua_toboolean(L, -1))
		replace(L, name);
	lua_pop(L, 1);
	script_connection(L);
	config = config_from_table(L);
	request.name = (char *)(uintptr_t)name;
	request.config = (Zoned__V1__MachineConfig *)config;
	rc = zoned_call(s->ctl->z, "/zoned.v1.Machines/Create", &request.base,
			&zoned__v1__machine__descriptor, s->ctl->timeout_ms, &reply);
	building_free(L);
	if (rc)
		script_refused(L, name, rc);
	json_object_set_new(s->made, name, json_true());
	push_machine(L, (Zoned__V1__Machine *)reply);
	message_free(reply);
	return 1;
}

static void new_type(lua_State *L, const char *type, const luaL_Reg *functions)
{
	luaL_newmetatable(L, type);
	luaL_setfuncs(L, functions, 0);
	lua_pop(L, 1);
}

void machines_open(lua_State *L)
{
	static const luaL_Reg core[] = {{"__gc", core_gc}, {NULL, NULL}};
	static const luaL_Reg pending[] = {
	    {"__index", pending_index}, {"__tostring", answer_tostring}, {NULL, NULL}};
	static const luaL_Reg answered[] = {
	    {"__index", answered_index}, {"__tostring", answer_tostring}, {NULL, NULL}};
	static const luaL_Reg handle[] = {
	    {"__tostring", handle_tostring}, {"__eq", handle_eq}, {NULL, NULL}};
	static const luaL_Reg functions[] = {{"machine", zoned_machine},
					     {"attach", zoned_attach},
					     {"machines", zoned_machines},
					     {NULL, NULL}};
	unsigned i;

	new_type(L, core_type, core);
	new_type(L, pending_type, pending);
	new_type(L, answered_type, answered);
	new_type(L, handle_type, handle);
	luaL_getmetatable(L, handle_type);
	lua_newtable(L);
	for (i = 0; i < NR_METHODS; i++) {
		lua_newtable(L); /* of async: codes by name */
		lua_pushcclosure(L, methods[i].function, 1);
		lua_setfield(L, -2, methods[i].name);
	}
	lua_pushcclosure(L, handle_index, 1);
	lua_setfield(L, -2, "__index");
	lua_pop(L, 1);
	luaL_setfuncs(L, functions, 0);
}
