/*
 * lua_machine.c - machines as Lua values: ops, their answers, inspections.
 *
 * The stream that ops go over, and what an answer is, are in lua_run.c. Methods of a
 * machine are found by name at their first use: its own, then ops, then inspections.
 */
#include <stdlib.h>
#include <string.h>

#include "lua_core.h"

const char handle_type[] = "zoned.machine";

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

/* ---- sending an op ---- */

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

static struct handle *check_handle(lua_State *L, int index)
{
	return luaL_checkudata(L, index, handle_type);
}

/* Queues an op for the handle at 1, with the arguments from stack index `first` on, and
 * pushes its answer. `callback`: the last value is one. */
static void submit(lua_State *L, const struct handle *h, const struct contract_op *op, int first,
		   bool callback)
{
	struct wire_buffer *packed = &script_of(L)->packed;
	Zoned__V1__OpContext context = ZONED__V1__OP_CONTEXT__INIT;
	int last = lua_gettop(L) - callback, rc;
	bool has_table = last >= first && lua_istable(L, last), has_context;
	struct core *c = h->core;
	struct arguments a;

	/* A list of numbers as the one required argument is a value, not names. */
	if (has_table && last == first && lua_rawlen(L, last) > 0)
		has_table = false;
	run_open(L, c);
	context.cpu = h->cpu;
	context.task = h->task;
	context.owner = (char *)(uintptr_t)h->owner;
	arguments_from_lua(L, plan_of_op(c->script, op), first, has_table ? last : last + 1,
			   has_table, &a, &context);
	has_context = context.cpu || context.task || *context.owner;
	packed->length = 0;
	packed_op_write(packed, op, has_context ? &context : NULL, &a);
	rc = zoned_run_add_packed(c->run, op->code, packed->bytes, packed->length);
	if (rc)
		run_broken(L, c, op->word, rc);
	run_push_answer(L, c, op, 1, callback ? last + 1 : 0);
}

static void no_op(lua_State *L, const char *what, const char *word) __attribute__((noreturn));

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
	const struct handle *h = luaL_testudata(L, 1, handle_type);

	if (!h)
		script_raise(L, EXIT_USAGE, "%s: it is a machine's: m:%s{...}, with a colon",
			     op->word, op->snake);
	submit(L, h, op, 2, false);
	run_wait_answer(L, -1);
	return 1;
}

/* m:op("alloc", {...}): the same by name. */
static int method_op(lua_State *L)
{
	const struct handle *h = check_handle(L, 1);
	const char *name = luaL_checkstring(L, 2);
	const struct contract_op *op = find_op(name);

	if (!op)
		no_op(L, "op", name);
	submit(L, h, op, 3, false);
	run_wait_answer(L, -1);
	return 1;
}

/* m:async("alloc", {...} [, callback]) */
static int method_async(lua_State *L)
{
	const struct handle *h = check_handle(L, 1);
	const struct contract_op *op;

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
	if (lua_gettop(L) > 3 && !lua_isfunction(L, -1))
		script_raise(L, EXIT_USAGE, "async: the callback is a %s, not a function",
			     luaL_typename(L, -1));
	submit(L, h, op, 3, lua_isfunction(L, -1));
	run_keep_window(L, h->core);
	return 1;
}

/* m:flush(): by status, how many ops were answered since the last time. */
static int method_flush(lua_State *L)
{
	struct core *c = check_handle(L, 1)->core;
	uint64_t sleep = run_settle(L, c);
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
		    !context_from_lua(L, lua_tostring(L, -2), lua_gettop(L), &context))
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
			row_to_lua(L, row[r], &i->rows[k].columns);
			lua_rawseti(L, -2, (lua_Integer)r + 1);
		}
		lua_setfield(L, -2, i->rows[k].name);
	}
}

/* {at=12}: the machine as it was after that op, if the table says so. */
static void set_moment(lua_State *L, const char *word, int table, ProtobufCMessage *request)
{
	const unsigned field = 2;
	ProtobufCMessage *moment;

	if (lua_getfield(L, table, "at") != LUA_TNIL) {
		if (!lua_isinteger(L, -1) || lua_tointeger(L, -1) < 0)
			script_raise(L, EXIT_USAGE, "%s: at: the number of an op is needed", word);
		moment = message_new(&zoned__v1__moment__descriptor);
		((Zoned__V1__Moment *)moment)->op = (uint64_t)lua_tointeger(L, -1);
		message_set_sub(request, field, moment);
	}
	lua_pop(L, 1);
}

static void set_arguments(ProtobufCMessage *m, const struct contract_fields *fields,
			  const struct arguments *a)
{
	unsigned i;

	for (i = 0; i < fields->nr_ints; i++)
		message_set(m, fields->ints[i].number, a->ints[i]);
	if (fields->data && fields->data->kind == FIELD_U32_LIST)
		message_set_list(m, fields->data->number, a->data, a->length);
	else if (fields->data)
		message_set_bytes(m, fields->data->number, a->data, a->length);
}

static int inspect(lua_State *L, const struct contract_inspection *i, int first)
{
	struct core *c = check_handle(L, 1)->core;
	int last = lua_gettop(L);
	bool has_table = last >= first && lua_istable(L, last);
	ProtobufCMessage *question, *request, *reply;
	struct arguments a;
	int rc;

	run_settle(L, c);
	script_connection(L);
	arguments_from_lua(L, plan_of_inspection(c->script, i), first, has_table ? last : last + 1,
			   has_table, &a, NULL);
	request = building_new(L, &zoned__v1__inspect_request__descriptor);
	message_set_string(request, 1, c->name);
	question = message_new(contract_inspect_messages[i - contract_inspections].question);
	message_set_sub(request, i->code, question);
	set_arguments(question, &i->args, &a);
	if (has_table)
		set_moment(L, i->word, last, request);
	rc = zoned_call(c->script->ctl->z, "/zoned.v1.Machines/Inspect", request,
			&zoned__v1__inspect_response__descriptor, c->script->ctl->timeout_ms,
			&reply);
	building_free(L);
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

static void no_machine(lua_State *L, const char *name) __attribute__((noreturn));

/* A machine, or what else of its name was asked for, is not there. */
static void no_machine(lua_State *L, const char *name)
{
	struct ctl *ctl = script_of(L)->ctl;
	char why[512], hint[256];

	snprintf(why, sizeof why, "%s", zoned_error(ctl->z));
	ctl_machine_hint(ctl, name, hint, sizeof hint);
	script_raise(L, EXIT_REFUSED, "%s: NOT_FOUND: %s%s%s", name, why, *hint ? "\n" : "", hint);
}

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
	if (rc == ZONED_NOT_FOUND && name)
		no_machine(L, name);
	if (rc)
		script_refused(L, name ? name : "machines", rc);
	return reply;
}

static int method_info(lua_State *L)
{
	struct core *c = check_handle(L, 1)->core;
	ProtobufCMessage *reply;
	json_t *o;

	run_settle(L, c);
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

	run_settle(L, c);
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

	run_settle(L, c);
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

void machines_open(lua_State *L)
{
	static const luaL_Reg handle[] = {
	    {"__tostring", handle_tostring}, {"__eq", handle_eq}, {NULL, NULL}};
	static const luaL_Reg functions[] = {{"machine", zoned_machine},
					     {"attach", zoned_attach},
					     {"machines", zoned_machines},
					     {NULL, NULL}};
	unsigned i;

	run_types_open(L);
	luaL_newmetatable(L, handle_type);
	luaL_setfuncs(L, handle, 0);
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
