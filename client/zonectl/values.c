/*
 * values.c - between what people type and what travels: numbers with units, names of
 * enums and flags, hex bytes, durations.
 *
 * The contract's tables decide what a field accepts. A number may stand wherever a
 * name may; a name never has to be typed in full: HIGHMEM is ZONE_HIGHMEM.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "zonectl.h"

/* ---- numbers ---- */

static unsigned unit_shift(char c)
{
	switch (c) {
	case 'k':
	case 'K': return 10;
	case 'm':
	case 'M': return 20;
	case 'g':
	case 'G': return 30;
	case 't':
	case 'T': return 40;
	default: return 0;
	}
}

bool number_parse(const char *text, bool units, uint64_t *ret_value)
{
	unsigned shift;
	uint64_t n;
	char *end;

	/* strtoull would take blanks, a sign and, as octal, a leading 0. */
	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	n = strtoull(text, &end, text[0] == '0' && (text[1] | 0x20) == 'x' ? 16 : 10);
	if (errno)
		return false;
	shift = units ? unit_shift(*end) : 0;
	if (shift) {
		end++;
		if (strcmp(end, "iB") == 0 || strcmp(end, "B") == 0)
			end = strchr(end, '\0');
		if (n > UINT64_MAX >> shift)
			return false;
		n <<= shift;
	}
	if (*end)
		return false;
	*ret_value = n;
	return true;
}

bool duration_parse(const char *text, uint32_t *ret_ms)
{
	char *end;
	double n = strtod(text, &end), ms;

	if (end == text || !(n >= 0))
		return false;
	if (strcmp(end, "ms") == 0)
		ms = n;
	else if (strcmp(end, "s") == 0 || *end == '\0')
		ms = n * 1e3;
	else if (strcmp(end, "m") == 0)
		ms = n * 60e3;
	else if (strcmp(end, "h") == 0)
		ms = n * 3600e3;
	else
		return false;
	if (ms >= (double)ZONED_NO_TIMEOUT)
		return false;
	*ret_ms = (uint32_t)ms;
	return true;
}

/* ---- names ---- */

const struct contract_enum *contract_enum_by_name(const char *name)
{
	unsigned i;

	for (i = 0; i < contract_nr_enums; i++)
		if (strcmp(contract_enums[i].name, name) == 0)
			return &contract_enums[i];
	return NULL;
}

const char *enum_name(const struct contract_enum *e, uint32_t number)
{
	unsigned i;

	for (i = 0; i < e->nr_values; i++)
		if (e->values[i].number == number)
			return e->values[i].name;
	return NULL;
}

/* How much of a name all of the enum's names have in common, up to an underscore. */
static size_t shared_prefix(const struct contract_enum *e)
{
	size_t common = strlen(e->values[0].name);
	unsigned i;

	for (i = 1; i < e->nr_values; i++) {
		size_t n = 0;

		while (n < common && e->values[i].name[n] == e->values[0].name[n])
			n++;
		common = n;
	}
	while (common && e->values[0].name[common - 1] != '_')
		common--;
	return common;
}

static int fold(char c)
{
	return c == '-' || c == '.' ? '_' : toupper((unsigned char)c);
}

static bool same_name(const char *name, const char *text, size_t length)
{
	size_t i;

	for (i = 0; i < length; i++)
		if (fold(name[i]) != fold(text[i]))
			return false;
	return name[length] == '\0';
}

static const struct contract_value *enum_find_n(const struct contract_enum *e, const char *text,
						size_t length)
{
	size_t prefix = shared_prefix(e);
	unsigned i;

	for (i = 0; i < e->nr_values; i++)
		if (same_name(e->values[i].name, text, length) ||
		    same_name(e->values[i].name + prefix, text, length))
			return &e->values[i];
	return NULL;
}

const struct contract_value *enum_find(const struct contract_enum *e, const char *text)
{
	return enum_find_n(e, text, strlen(text));
}

/* "no FOO; did you mean FOE?", or without such a name all that there are. */
static void refuse_name(const struct contract_field *f, const char *text, size_t length, char *err,
			size_t err_size)
{
	char word[64];
	struct suggestion s = {.word = word};
	const char *separator = "";
	size_t used;
	unsigned k, i;

	snprintf(word, sizeof word, "%.*s", (int)(length < 63 ? length : 63), text);
	for (k = 0; k < 2 && f->enums[k]; k++)
		for (i = 0; i < f->enums[k]->nr_values; i++) {
			suggest(&s, f->enums[k]->values[i].name);
			suggest(&s, f->enums[k]->values[i].name + shared_prefix(f->enums[k]));
		}
	if (s.nearest) {
		snprintf(err, err_size, "no %s; did you mean %s?", word, s.nearest);
		return;
	}
	used = (size_t)snprintf(err, err_size, "%s is none of ", word);
	for (k = 0; k < 2 && f->enums[k]; k++)
		for (i = 0; i < f->enums[k]->nr_values && used < err_size; i++) {
			used += (size_t)snprintf(err + used, err_size - used, "%s%s", separator,
						 f->enums[k]->values[i].name);
			separator = ", ";
		}
}

static bool parse_flags(const struct contract_field *f, const char *text, uint64_t *ret_value,
			char *err, size_t err_size)
{
	uint64_t all = 0;

	for (;;) {
		size_t length = strcspn(text, "|,+");
		const struct contract_value *v = enum_find_n(f->enums[0], text, length);
		char number[32];
		uint64_t n;

		if (!v && f->enums[1])
			v = enum_find_n(f->enums[1], text, length);
		snprintf(number, sizeof number, "%.*s", (int)(length < 31 ? length : 31), text);
		if (v) {
			all |= v->number;
		} else if (length < sizeof number && number_parse(number, false, &n)) {
			all |= n;
		} else {
			refuse_name(f, text, length, err, err_size);
			return false;
		}
		if (!text[length])
			break;
		text += length + 1;
	}
	*ret_value = all;
	return true;
}

static bool parse_bool(const char *text, uint64_t *ret_value)
{
	static const char *const words[][2] = {
	    {"no", "yes"}, {"false", "true"}, {"off", "on"}, {"0", "1"}};
	unsigned i, k;

	for (i = 0; i < sizeof words / sizeof *words; i++)
		for (k = 0; k < 2; k++)
			if (strcasecmp(text, words[i][k]) == 0) {
				*ret_value = k;
				return true;
			}
	return false;
}

/* ---- a field's value ---- */

static bool takes_units(const struct contract_field *f)
{
	return strcmp(f->unit, "bytes") == 0 || strcmp(f->unit, "va") == 0 ||
	       strcmp(f->unit, "paddr") == 0;
}

static bool in_hex(const struct contract_field *f)
{
	return strcmp(f->unit, "va") == 0 || strcmp(f->unit, "paddr") == 0 ||
	       strcmp(f->unit, "pfn") == 0;
}

bool value_in_range(const struct contract_field *f, uint64_t value, char *err, size_t err_size)
{
	char given[16], most[16];

	if (value >= f->min && value <= f->max)
		return true;
	if (strcmp(f->unit, "bytes") == 0)
		snprintf(err, err_size, "%llu bytes (%s) is not in %llu to %llu (%s)",
			 (unsigned long long)value, human_size(value, given, sizeof given),
			 (unsigned long long)f->min, (unsigned long long)f->max,
			 human_size(f->max, most, sizeof most));
	else if (in_hex(f) || f->is_flags)
		snprintf(err, err_size, "%#llx is not in %#llx to %#llx", (unsigned long long)value,
			 (unsigned long long)f->min, (unsigned long long)f->max);
	else
		snprintf(err, err_size, "%llu is not in %llu to %llu", (unsigned long long)value,
			 (unsigned long long)f->min, (unsigned long long)f->max);
	return false;
}

bool value_parse(const struct contract_field *f, const char *text, uint64_t *ret_value, char *err,
		 size_t err_size)
{
	uint64_t value = 0;

	if (f->is_flags) {
		if (!parse_flags(f, text, &value, err, err_size))
			return false;
	} else if (f->kind == FIELD_ENUM && enum_find(f->enums[0], text)) {
		value = enum_find(f->enums[0], text)->number;
	} else if (f->kind == FIELD_ENUM) {
		if (!number_parse(text, false, &value) ||
		    !enum_name(f->enums[0], (uint32_t)value)) {
			refuse_name(f, text, strlen(text), err, err_size);
			return false;
		}
	} else if (f->kind == FIELD_BOOL) {
		if (!parse_bool(text, &value)) {
			snprintf(err, err_size, "%s is neither yes nor no", text);
			return false;
		}
	} else if (!number_parse(text, takes_units(f), &value)) {
		snprintf(err, err_size, "%s is not a number%s", text,
			 takes_units(f) ? " (decimal, 0x..., or with K, M, G)"
					: " (decimal or 0x...)");
		return false;
	}
	if (!value_in_range(f, value, err, err_size))
		return false;
	*ret_value = value;
	return true;
}

/* The value of most bits among a field's enums that lies within `rest`. */
static const struct contract_value *largest_flag(const struct contract_field *f, uint64_t rest)
{
	const struct contract_value *best = NULL;
	unsigned k, i;

	for (k = 0; k < 2 && f->enums[k]; k++)
		for (i = 0; i < f->enums[k]->nr_values; i++) {
			const struct contract_value *v = &f->enums[k]->values[i];

			if (!v->number || (v->number & ~rest))
				continue;
			if (!best ||
			    __builtin_popcount(v->number) > __builtin_popcount(best->number))
				best = v;
		}
	return best;
}

void flags_format(const struct contract_field *f, uint64_t value, char *to, size_t size)
{
	const struct contract_value *v;
	const char *zero = enum_name(f->enums[0], 0);
	size_t used = 0;
	uint64_t rest = value;

	if (!value)
		snprintf(to, size, "%s", zero ? zero : "0");
	while (rest && used < size && (v = largest_flag(f, rest))) {
		used += (size_t)snprintf(to + used, size - used, "%s%s", used ? "|" : "", v->name);
		rest &= ~(uint64_t)v->number;
	}
	if (rest && used < size)
		snprintf(to + used, size - used, "%s%#llx", used ? "|" : "",
			 (unsigned long long)rest);
}

const char *value_format(const struct contract_field *f, uint64_t value, char *to, size_t size)
{
	const char *name = f->kind == FIELD_ENUM ? enum_name(f->enums[0], (uint32_t)value) : NULL;

	if (f->is_flags)
		flags_format(f, value, to, size);
	else if (name)
		snprintf(to, size, "%s", name);
	else if (f->kind == FIELD_BOOL)
		snprintf(to, size, "%s", value ? "yes" : "no");
	else if (f->kind == FIELD_I32)
		snprintf(to, size, "%d", (int32_t)value);
	else if (in_hex(f))
		snprintf(to, size, "%#llx", (unsigned long long)value);
	else
		snprintf(to, size, "%llu", (unsigned long long)value);
	return to;
}

const char *value_placeholder(const struct contract_field *f)
{
	static const struct {
		const char *unit, *word;
	} words[] = {
	    {"bytes", "SIZE"}, {"pages", "PAGES"}, {"pfn", "PFN"},
	    {"va", "VA"},      {"paddr", "PADDR"}, {"kib", "KIB"},
	};
	unsigned i;

	if (f->kind == FIELD_BOOL)
		return NULL;
	if (f->kind == FIELD_BYTES)
		return "TEXT";
	if (f->kind == FIELD_U32_LIST)
		return "N,N,...";
	if (f->is_flags)
		return "FLAGS";
	if (f->kind == FIELD_ENUM)
		return "NAME";
	for (i = 0; i < sizeof words / sizeof *words; i++)
		if (strcmp(f->unit, words[i].unit) == 0)
			return words[i].word;
	return "N";
}

/* ---- bytes ---- */

static int nibble(char c)
{
	if (isdigit((unsigned char)c))
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

uint8_t *hex_parse(const char *text, size_t *ret_length)
{
	uint8_t *out = must(malloc(strlen(text) / 2 + 1)), *o = out;

	while (*text) {
		int high, low;

		if (isspace((unsigned char)*text)) {
			text++;
			continue;
		}
		high = nibble(text[0]);
		low = high < 0 ? -1 : nibble(text[1]);
		if (low < 0) {
			free(out);
			return NULL;
		}
		*o++ = (uint8_t)(high << 4 | low);
		text += 2;
	}
	*ret_length = (size_t)(o - out);
	return out;
}

uint8_t *read_file(const char *path, size_t limit, size_t *ret_length)
{
	FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
	size_t length = 0, capacity = 4096;
	uint8_t *data = must(malloc(capacity + 1));
	const char *why = NULL;

	if (!f)
		why = strerror(errno);
	while (!why) {
		size_t n = fread(data + length, 1, capacity - length, f);

		length += n;
		if (length > limit)
			why = "it is larger than what can be sent";
		else if (n == 0)
			break;
		if (length == capacity)
			data = must(realloc(data, (capacity *= 2) + 1));
	}
	if (!why && f && ferror(f))
		why = strerror(errno);
	if (f && f != stdin)
		fclose(f);
	if (why) {
		complain("cannot read %s: %s", path, why);
		free(data);
		return NULL;
	}
	/* A zero behind the end lets text be used as a string. */
	data[length] = '\0';
	*ret_length = length;
	return data;
}
