/*
 * lua_arguments.c - from a script's values to the arguments of an op or an inspection.
 *
 * A field takes what zonectl's flags take ("64K", "GFP_KERNEL|__GFP_ZERO", "highmem")
 * and numbers and booleans as they are.
 *
 * A loop says the same names and texts again and again. So a plan, one for each op and
 * inspection, remembers where a name was last looked up and what a text last meant, by
 * the string's address; the registry holds on to those strings, so that no other string
 * can come to lie there.
 *
 * Invariant: plan->keys[i] and plan->texts[i] are NULL, or strings that the registry
 * holds under the address of the entry.
 */
#include <stdlib.h>
#include <string.h>

#include "lua_core.h"

enum {
	FIELDS = OP_ARGS + 1, /* of an op: integers, and data behind them */
	/* Keys that are no field: of an op its context, of an inspection the moment. */
	KEY_CPU = FIELDS,
	KEY_TASK,
	KEY_OWNER,
	KEY_AT,
	NR_KEYS,
	TEXTS_MAX = 1024, /* of a field, whose meaning is kept */
};

static const char *const other_keys[] = {"cpu", "task", "owner", "at"};

struct plan {
	const char *word;
	const struct contract_fields *fields;
	bool is_op, none_required;
	const char *keys[NR_KEYS];
	const char *texts[OP_ARGS];
	uint64_t meanings[OP_ARGS]; /* of texts[i] */
	unsigned nr_texts[OP_ARGS]; /* in the table of all, under the address of meanings[i] */
};

static struct plan *plan_of(struct script *s, unsigned place, const char *word,
			    const struct contract_fields *fields, bool is_op)
{
	struct plan *p;
	unsigned i;

	if (!s->plans)
		s->plans = must(calloc(OP_CODE_END + contract_nr_inspections, sizeof *s->plans));
	if (s->plans[place])
		return s->plans[place];
	p = s->plans[place] = must(calloc(1, sizeof *p));
	p->word = word;
	p->fields = fields;
	p->is_op = is_op;
	p->none_required = true;
	for (i = 0; field_at(fields, i); i++)
		p->none_required = p->none_required && !field_at(fields, i)->required;
	return p;
}

struct plan *plan_of_op(struct script *s, const struct contract_op *op)
{
	return plan_of(s, op->code, op->word, &op->args, true);
}

struct plan *plan_of_inspection(struct script *s, const struct contract_inspection *i)
{
	unsigned place = OP_CODE_END + (unsigned)(i - contract_inspections);

	return plan_of(s, place, i->word, &i->args, false);
}

void plans_free(struct script *s)
{
	unsigned i;

	for (i = 0; s->plans && i < OP_CODE_END + contract_nr_inspections; i++)
		free(s->plans[i]);
	free(s->plans);
}

/* ---- names ---- */

static void no_argument(lua_State *L, const struct plan *p, const char *key)
    __attribute__((noreturn));

static void no_argument(lua_State *L, const struct plan *p, const char *key)
{
	struct suggestion s = {.word = key};
	const struct contract_field *f;
	char names[512] = "none";
	size_t used = 0;
	unsigned i;

	for (i = 0; (f = field_at(p->fields, i)); i++) {
		suggest(&s, f->name);
		if (used < sizeof names)
			used += (size_t)snprintf(names + used, sizeof names - used, "%s%s",
						 used ? ", " : "", f->name);
	}
	if (s.nearest)
		script_raise(L, EXIT_USAGE, "%s: no argument %s; did you mean %s?", p->word, key,
			     s.nearest);
	script_raise(L, EXIT_USAGE, "%s: no argument %s; it takes %s", p->word, key, names);
}

static bool takes_key(const struct plan *p, unsigned i)
{
	return p->is_op == (i != KEY_AT);
}

/* The place of a key that has not been seen at this address. */
static unsigned find_key(lua_State *L, const struct plan *p, const char *key)
{
	const char *name = strncmp(key, "arg_", 4) == 0 ? key + 4 : key;
	const struct contract_field *f;
	unsigned i;

	for (i = KEY_CPU; i < NR_KEYS; i++)
		if (takes_key(p, i) && strcmp(other_keys[i - FIELDS], key) == 0)
			return i;
	for (i = 0; (f = field_at(p->fields, i)); i++)
		if (strcmp(f->name, name) == 0)
			return i == p->fields->nr_ints ? OP_ARGS : i;
	no_argument(L, p, name);
}

/* The place of the key at `index`, a string. */
static unsigned key_place(lua_State *L, struct plan *p, int index)
{
	const char *key = lua_tostring(L, index);
	unsigned i;

	for (i = 0; i < NR_KEYS; i++)
		if (p->keys[i] == key)
			return i;
	i = find_key(L, p, key);
	lua_pushvalue(L, index);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &p->keys[i]);
	p->keys[i] = key;
	return i;
}

/* ---- numbers ---- */

static void refuse_value(lua_State *L, const struct plan *p, const struct contract_field *f,
			 const char *why) __attribute__((noreturn));

static void refuse_value(lua_State *L, const struct plan *p, const struct contract_field *f,
			 const char *why)
{
	script_raise(L, EXIT_USAGE, "%s: %s: %s", p->word, f->name, why);
}

/* Pushes the table of what a field's texts mean; a new one when it holds too many. */
static void push_texts(lua_State *L, struct plan *p, unsigned i)
{
	if (p->nr_texts[i] && p->nr_texts[i] < TEXTS_MAX) {
		lua_rawgetp(L, LUA_REGISTRYINDEX, &p->meanings[i]);
		return;
	}
	p->nr_texts[i] = 0;
	lua_newtable(L);
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &p->meanings[i]);
}

/* The number that the text at `index` stands for; parsed at its first use only. */
static uint64_t text_value(lua_State *L, struct plan *p, unsigned i, int index)
{
	const struct contract_field *f = &p->fields->ints[i];
	const char *text = lua_tostring(L, index);
	char err[1024];

	if (p->texts[i] == text)
		return p->meanings[i];
	push_texts(L, p, i);
	lua_pushvalue(L, index);
	if (lua_rawget(L, -2) == LUA_TNUMBER) {
		p->meanings[i] = (uint64_t)lua_tointeger(L, -1);
	} else {
		/* Before anything is forgotten: this may raise an error. */
		uint64_t value;

		if (!value_parse(f, text, &value, err, sizeof err))
			refuse_value(L, p, f, err);
		lua_pushvalue(L, index);
		lua_pushinteger(L, (lua_Integer)value);
		lua_rawset(L, -4);
		p->nr_texts[i]++;
		p->meanings[i] = value;
	}
	lua_pop(L, 2);
	lua_pushvalue(L, index);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &p->texts[i]);
	p->texts[i] = text;
	return p->meanings[i];
}

/* What a number or boolean says of a field. False: err says why not. */
static bool plain_value(lua_State *L, int index, const struct contract_field *f,
			uint64_t *ret_value, char *err, size_t err_size)
{
	int exact;

	if (lua_type(L, index) == LUA_TNUMBER) {
		*ret_value = (uint64_t)lua_tointegerx(L, index, &exact);
		if (!exact) {
			snprintf(err, err_size, "%g is not a whole number", lua_tonumber(L, index));
			return false;
		}
		if ((int64_t)*ret_value < 0 && f->max <= INT64_MAX) {
			snprintf(err, err_size, "%lld is negative", (long long)*ret_value);
			return false;
		}
	} else if (lua_type(L, index) == LUA_TBOOLEAN) {
		*ret_value = (uint64_t)lua_toboolean(L, index);
	} else {
		snprintf(err, err_size, "a %s is neither a number nor a text",
			 luaL_typename(L, index));
		return false;
	}
	if (f->kind == FIELD_ENUM && !enum_name(f->enums[0], (uint32_t)*ret_value)) {
		snprintf(err, err_size, "%llu is no %s", (unsigned long long)*ret_value,
			 f->enums[0]->name);
		return false;
	}
	return value_in_range(f, *ret_value, err, err_size);
}

/* ---- data ---- */

/* Elements of a table as uint32_t in the script's list. */
static void take_list(lua_State *L, const struct plan *p, int index)
{
	struct wire_buffer *list = &script_of(L)->list;
	struct contract_field element = *p->fields->data;
	size_t i, n = lua_rawlen(L, index);
	char err[1024];

	element.kind = FIELD_U32;
	if (n > element.max_length) {
		snprintf(err, sizeof err, "%zu elements, at most %u fit", n, element.max_length);
		refuse_value(L, p, p->fields->data, err);
	}
	for (i = 1; i <= n; i++) {
		uint64_t value;

		if (lua_rawgeti(L, index, (lua_Integer)i) != LUA_TNUMBER) {
			snprintf(err, sizeof err, "element %zu is not a number", i);
			refuse_value(L, p, p->fields->data, err);
		}
		if (!plain_value(L, lua_gettop(L), &element, &value, err, sizeof err))
			refuse_value(L, p, p->fields->data, err);
		lua_pop(L, 1);
		wire_put_word(list, (uint32_t)value);
	}
}

static void take_list_text(lua_State *L, const struct plan *p, const char *text)
{
	struct wire_buffer *list = &script_of(L)->list;
	char err[1024];
	size_t i, n;
	uint32_t *words = list_parse(p->fields->data, text, &n, err, sizeof err);

	if (!words)
		refuse_value(L, p, p->fields->data, err);
	for (i = 0; i < n; i++)
		wire_put_word(list, words[i]);
	free(words);
}

static void take_data(lua_State *L, const struct plan *p, int index, struct arguments *a)
{
	struct wire_buffer *list = &script_of(L)->list;
	const struct contract_field *f = p->fields->data;
	bool is_list = f->kind == FIELD_U32_LIST;
	char err[1024];

	if (is_list)
		list->length = 0;
	if (is_list && lua_istable(L, index)) {
		take_list(L, p, index);
	} else if (lua_type(L, index) != LUA_TSTRING) {
		snprintf(err, sizeof err, "a %s is not %s", luaL_typename(L, index),
			 is_list ? "a list" : "a string");
		refuse_value(L, p, f, err);
	} else if (is_list) {
		take_list_text(L, p, lua_tostring(L, index));
	} else {
		a->data = lua_tolstring(L, index, &a->length);
		if (a->length > f->max_length) {
			snprintf(err, sizeof err, "%zu bytes, at most %u fit", a->length,
				 f->max_length);
			refuse_value(L, p, f, err);
		}
	}
	if (is_list) {
		a->data = list->bytes;
		a->length = list->length / sizeof(uint32_t);
	}
}

/* ---- all of them ---- */

/* The field at this place from the value at `index`. */
static void take_field(lua_State *L, struct plan *p, unsigned place, int index, struct arguments *a)
{
	char err[1024];

	if (place == OP_ARGS)
		take_data(L, p, index, a);
	else if (lua_type(L, index) == LUA_TSTRING)
		a->ints[place] = text_value(L, p, place, index);
	else if (!plain_value(L, index, &p->fields->ints[place], &a->ints[place], err, sizeof err))
		refuse_value(L, p, &p->fields->ints[place], err);
}

static void take_context(lua_State *L, unsigned key, int index, Zoned__V1__OpContext *context)
{
	int exact = 1;
	lua_Integer n;

	if (key == KEY_OWNER) {
		context->owner = (char *)(uintptr_t)luaL_checkstring(L, index);
		return;
	}
	n = lua_tointegerx(L, index, &exact);
	if (!exact || n < 0 || n > (key == KEY_CPU ? 31 : UINT32_MAX))
		script_raise(L, EXIT_USAGE, "%s: a number from 0 to %u is needed",
			     other_keys[key - FIELDS], key == KEY_CPU ? 31u : UINT32_MAX);
	if (key == KEY_CPU)
		context->cpu = (uint32_t)n;
	else
		context->task = (uint32_t)n;
}

bool context_from_lua(lua_State *L, const char *key, int index, Zoned__V1__OpContext *context)
{
	unsigned i;

	for (i = KEY_CPU; i <= KEY_OWNER; i++)
		if (strcmp(other_keys[i - FIELDS], key) == 0) {
			take_context(L, i, index, context);
			return true;
		}
	return false;
}

/* Those that stand before the table: the required ones in the contract's order, or all of
 * them where none is required. Returns which places were given. */
static unsigned take_positions(lua_State *L, struct plan *p, int first, int table,
			       struct arguments *a)
{
	const struct contract_field *f;
	unsigned i, given = 0;
	int at = first;

	for (i = 0; at < table && (f = field_at(p->fields, i)); i++) {
		unsigned place = i == p->fields->nr_ints ? OP_ARGS : i;

		if (!f->required && !p->none_required)
			continue;
		take_field(L, p, place, at++, a);
		given |= 1u << place;
	}
	if (at < table)
		script_raise(L, EXIT_USAGE,
			     "%s: it takes %d arguments by position; the others go by name, "
			     "in a table",
			     p->word, at - first);
	return given;
}

void arguments_from_lua(lua_State *L, struct plan *p, int first, int table, bool has_table,
			struct arguments *a, Zoned__V1__OpContext *context)
{
	const struct contract_field *f;
	unsigned i, given, place;

	*a = (struct arguments){0};
	given = take_positions(L, p, first, table, a);
	if (has_table) {
		lua_pushnil(L);
		while (lua_next(L, table)) {
			int value = lua_gettop(L);

			if (lua_type(L, value - 1) != LUA_TSTRING)
				no_argument(L, p, "?");
			place = key_place(L, p, value - 1);
			if (place < FIELDS) {
				take_field(L, p, place, value, a);
				given |= 1u << place;
			} else if (place != KEY_AT) {
				take_context(L, place, value, context);
			}
			lua_pop(L, 1);
		}
	}
	for (i = 0; (f = field_at(p->fields, i)); i++)
		if (f->required && !(given & 1u << (i == p->fields->nr_ints ? OP_ARGS : i)))
			script_raise(L, EXIT_USAGE, "%s: %s is needed", p->word, f->name);
}
