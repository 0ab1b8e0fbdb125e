/*
 * lua_values.c - between Lua's values, the contract's fields, and JSON.
 *
 * A field takes what zonectl's flags take ("64K", "GFP_KERNEL|__GFP_ZERO", "highmem")
 * and numbers and booleans as they are. Texts are parsed once: what a text means of a
 * field is kept in a table of the state, because a loop says the same one often.
 */
#include <stdlib.h>
#include <string.h>

#include "lua_script.h"

enum { JSON_DEPTH = 64 };

/* ---- Lua -> message ---- */

/* The number that a text stands for; parsed at its first use only. */
static bool parse_once(lua_State *L, int index, const struct contract_field *f, uint64_t *ret_value,
		       char *err, size_t err_size)
{
	bool ok = true, known;

	if (lua_rawgetp(L, LUA_REGISTRYINDEX, f) != LUA_TTABLE) {
		lua_pop(L, 1);
		lua_newtable(L);
		lua_pushvalue(L, -1);
		lua_rawsetp(L, LUA_REGISTRYINDEX, f);
	}
	lua_pushvalue(L, index);
	known = lua_rawget(L, -2) == LUA_TNUMBER;
	if (known) {
		*ret_value = (uint64_t)lua_tointeger(L, -1);
	} else {
		ok = value_parse(f, lua_tostring(L, index), ret_value, err, err_size);
		if (ok) {
			lua_pushvalue(L, index);
			lua_pushinteger(L, (lua_Integer)*ret_value);
			lua_rawset(L, -4);
		}
	}
	lua_pop(L, 2);
	return ok;
}

static bool integer_from_lua(lua_State *L, int index, const struct contract_field *f,
			     uint64_t *ret_value, char *err, size_t err_size)
{
	int exact;

	switch (lua_type(L, index)) {
	case LUA_TNUMBER:
		*ret_value = (uint64_t)lua_tointegerx(L, index, &exact);
		if (!exact) {
			snprintf(err, err_size, "%g is not a whole number", lua_tonumber(L, index));
			return false;
		}
		if ((int64_t)*ret_value < 0 && f->max <= INT64_MAX) {
			snprintf(err, err_size, "%lld is negative", (long long)*ret_value);
			return false;
		}
		break;
	case LUA_TBOOLEAN: *ret_value = (uint64_t)lua_toboolean(L, index); break;
	case LUA_TSTRING: return parse_once(L, index, f, ret_value, err, err_size);
	default:
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

static bool list_from_lua(lua_State *L, int index, ProtobufCMessage *m,
			  const struct contract_field *f, char *err, size_t err_size)
{
	struct contract_field element = *f;
	size_t i, n = lua_rawlen(L, index);
	uint32_t *values;
	bool ok = true;

	element.kind = FIELD_U32;
	if (n > f->max_length) {
		snprintf(err, err_size, "%zu elements, at most %u fit", n, f->max_length);
		return false;
	}
	values = must(calloc(n + 1, sizeof *values));
	for (i = 0; ok && i < n; i++) {
		uint64_t value;

		/* Not a text: what it means would be kept under this stack's field. */
		ok = lua_rawgeti(L, index, (lua_Integer)i + 1) == LUA_TNUMBER;
		if (!ok)
			snprintf(err, err_size, "element %zu is not a number", i + 1);
		else
			ok = integer_from_lua(L, lua_gettop(L), &element, &value, err, err_size);
		if (ok)
			values[i] = (uint32_t)value;
		lua_pop(L, 1);
	}
	if (ok)
		message_set_list(m, f->number, values, n);
	free(values);
	return ok;
}

bool field_from_lua(lua_State *L, int index, ProtobufCMessage *m, const struct contract_field *f,
		    char *err, size_t err_size)
{
	uint64_t value;
	size_t length;
	const char *text;

	index = lua_absindex(L, index);
	if (f->kind == FIELD_U32_LIST && lua_istable(L, index))
		return list_from_lua(L, index, m, f, err, err_size);
	if (f->kind == FIELD_U32_LIST || f->kind == FIELD_BYTES) {
		if (lua_type(L, index) != LUA_TSTRING) {
			snprintf(err, err_size, "a %s is not %s", luaL_typename(L, index),
				 f->kind == FIELD_BYTES ? "a string" : "a list");
			return false;
		}
		text = lua_tolstring(L, index, &length);
		if (f->kind == FIELD_U32_LIST)
			return op_set_text(m, f, text, err, err_size);
		if (length > f->max_length) {
			snprintf(err, err_size, "%zu bytes, at most %u fit", length, f->max_length);
			return false;
		}
		message_set_bytes(m, f->number, text, length);
		return true;
	}
	if (!integer_from_lua(L, index, f, &value, err, err_size))
		return false;
	message_set(m, f->number, value);
	return true;
}

/* ---- message -> Lua ---- */

void field_to_lua(lua_State *L, const struct contract_field *f, uint64_t value)
{
	const char *name = f->kind == FIELD_ENUM ? enum_name(f->enums[0], (uint32_t)value) : NULL;
	char text[512];

	if (name) {
		lua_pushstring(L, name);
	} else if (f->is_flags) {
		flags_format(f, value, text, sizeof text);
		lua_pushstring(L, text);
	} else if (f->kind == FIELD_BOOL) {
		lua_pushboolean(L, value != 0);
	} else if (f->kind == FIELD_I32) {
		lua_pushinteger(L, (int32_t)value);
	} else {
		lua_pushinteger(L, (lua_Integer)value);
	}
}

static void list_to_lua(lua_State *L, const ProtobufCMessage *m, unsigned number)
{
	const ProtobufCFieldDescriptor *f =
	    protobuf_c_message_descriptor_get_field(m->descriptor, number);
	size_t i, n = *(const size_t *)((uintptr_t)m + f->quantifier_offset);
	const uint32_t *values = *(uint32_t *const *)((uintptr_t)m + f->offset);

	lua_createtable(L, (int)n, 0);
	for (i = 0; i < n; i++) {
		lua_pushinteger(L, values[i]);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
}

void fields_to_lua(lua_State *L, const ProtobufCMessage *m, const struct contract_fields *fields,
		   bool all)
{
	const ProtobufCBinaryData *bytes;
	unsigned i;

	for (i = 0; i < fields->nr_ints; i++) {
		uint64_t value = message_get(m, fields->ints[i].number);

		if (!value && !all)
			continue;
		lua_pushstring(L, fields->ints[i].name);
		field_to_lua(L, &fields->ints[i], value);
		lua_rawset(L, -3);
	}
	if (!fields->data)
		return;
	lua_pushstring(L, fields->data->name);
	if (fields->data->kind == FIELD_U32_LIST) {
		list_to_lua(L, m, fields->data->number);
	} else {
		bytes = message_bytes(m, fields->data->number);
		lua_pushlstring(L, (const char *)bytes->data, bytes->len);
	}
	lua_rawset(L, -3);
}

/* ---- JSON ---- */

void json_to_lua(lua_State *L, const json_t *value)
{
	const char *key;
	json_t *element;
	size_t i;

	luaL_checkstack(L, 4, "JSON nested too deep");
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		lua_createtable(L, 0, (int)json_object_size(value));
		json_object_foreach ((json_t *)(uintptr_t)value, key, element) {
			lua_pushstring(L, key);
			json_to_lua(L, element);
			lua_rawset(L, -3);
		}
		break;
	case JSON_ARRAY:
		lua_createtable(L, (int)json_array_size(value), 0);
		json_array_foreach (value, i, element) {
			json_to_lua(L, element);
			lua_rawseti(L, -2, (lua_Integer)i + 1);
		}
		break;
	case JSON_STRING:
		lua_pushlstring(L, json_string_value(value), json_string_length(value));
		break;
	case JSON_INTEGER: lua_pushinteger(L, json_integer_value(value)); break;
	case JSON_REAL: lua_pushnumber(L, json_real_value(value)); break;
	case JSON_TRUE: lua_pushboolean(L, 1); break;
	case JSON_FALSE: lua_pushboolean(L, 0); break;
	default: lua_pushnil(L); break;
	}
}

static json_t *value_to_json(lua_State *L, int index, int depth, char *err, size_t err_size);

static json_t *list_to_json(lua_State *L, int index, int depth, char *err, size_t err_size)
{
	json_t *list = json_array(), *element;
	size_t i, n = lua_rawlen(L, index);

	for (i = 1; i <= n; i++) {
		lua_rawgeti(L, index, (lua_Integer)i);
		element = value_to_json(L, lua_gettop(L), depth, err, err_size);
		lua_pop(L, 1);
		if (!element) {
			json_decref(list);
			return NULL;
		}
		json_array_append_new(list, element);
	}
	return list;
}

static json_t *object_to_json(lua_State *L, int index, int depth, char *err, size_t err_size)
{
	json_t *object = json_object(), *element;
	char number[32];

	lua_pushnil(L);
	while (lua_next(L, index)) {
		const char *key = NULL;

		/* lua_tostring() would change a number that is a key in its place. */
		if (lua_type(L, -2) == LUA_TSTRING) {
			key = lua_tostring(L, -2);
		} else if (lua_isinteger(L, -2)) {
			snprintf(number, sizeof number, "%lld", (long long)lua_tointeger(L, -2));
			key = number;
		}
		element = key ? value_to_json(L, lua_gettop(L), depth, err, err_size) : NULL;
		if (!key)
			snprintf(err, err_size, "a key that is a %s", luaL_typename(L, -2));
		if (!element || json_object_set_new(object, key, element)) {
			if (element)
				snprintf(err, err_size, "a key that is not UTF-8");
			lua_pop(L, 2);
			json_decref(object);
			return NULL;
		}
		lua_pop(L, 1);
	}
	return object;
}

/* Bytes that are no text become hex, as everywhere in zonectl's JSON. */
static json_t *string_to_json(lua_State *L, int index)
{
	size_t length, i;
	const char *text = lua_tolstring(L, index, &length);
	json_t *value = json_stringn(text, length);
	char *hex;

	if (value)
		return value;
	hex = must(malloc(2 * length + 1));
	for (i = 0; i < length; i++)
		snprintf(hex + 2 * i, 3, "%02x", (unsigned char)text[i]);
	value = json_stringn(hex, 2 * length);
	free(hex);
	return value;
}

static json_t *value_to_json(lua_State *L, int index, int depth, char *err, size_t err_size)
{
	json_t *real;

	if (depth > JSON_DEPTH || !lua_checkstack(L, 4)) {
		snprintf(err, err_size, "tables nested deeper than %d", JSON_DEPTH);
		return NULL;
	}
	switch (lua_type(L, index)) {
	case LUA_TNIL: return json_null();
	case LUA_TBOOLEAN: return json_boolean(lua_toboolean(L, index));
	case LUA_TSTRING: return string_to_json(L, index);
	case LUA_TNUMBER:
		if (lua_isinteger(L, index))
			return json_integer(lua_tointeger(L, index));
		/* NULL for what is not finite. */
		real = json_real(lua_tonumber(L, index));
		if (!real)
			snprintf(err, err_size, "a number that is not finite");
		return real;
	case LUA_TTABLE:
		lua_pushnil(L);
		if (!lua_next(L, index))
			return json_array();
		lua_pop(L, 2);
		if (lua_rawlen(L, index))
			return list_to_json(L, index, depth + 1, err, err_size);
		return object_to_json(L, index, depth + 1, err, err_size);
	default:
		if (machine_at(L, index))
			return json_string(machine_name(machine_at(L, index)));
		snprintf(err, err_size, "a %s", luaL_typename(L, index));
		return NULL;
	}
}

json_t *json_from_lua(lua_State *L, int index, char *err, size_t err_size)
{
	return value_to_json(L, lua_absindex(L, index), 0, err, err_size);
}
