/*
 * lua_values.c - from the contract's fields and JSON to Lua's values, and back to JSON.
 */
#include <stdlib.h>
#include <string.h>

#include "lua_script.h"

enum { JSON_DEPTH = 64 };

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

void row_to_lua(lua_State *L, const ProtobufCMessage *m, const struct contract_fields *columns)
{
	unsigned i;

	for (i = 0; i < columns->nr_ints; i++) {
		lua_pushstring(L, columns->ints[i].name);
		field_to_lua(L, &columns->ints[i], message_get(m, columns->ints[i].number));
		lua_rawset(L, -3);
	}
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
	json_t *real, *fields;

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
		if (result_push_fields(L, index)) {
			fields = object_to_json(L, lua_gettop(L), depth + 1, err, err_size);
			lua_pop(L, 1);
			return fields;
		}
		if (machine_at(L, index))
			return json_string(machine_name(machine_at(L, index)));
		if (result_is_pending(L, index))
			snprintf(err, err_size,
				 "an answer that is not there yet; wait() for it first");
		else
			snprintf(err, err_size, "a %s", luaL_typename(L, index));
		return NULL;
	}
}

json_t *json_from_lua(lua_State *L, int index, char *err, size_t err_size)
{
	return value_to_json(L, lua_absindex(L, index), 0, err, err_size);
}
