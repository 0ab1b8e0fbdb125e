/*
 * settings.c - see settings.h.
 *
 * Ranges, enums, splits and words are the contract's; what is written here is which field of the
 * engine's configuration each is.
 */
#include "settings.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "contract_tables.h"

/* Where a field of MachineConfig is kept: a word, a long, or a flag. */
static const struct place {
	const char *name;
	uint32_t flag; /* 0: the field at `offset` */
	uint16_t offset;
	bool is_long;
} places[] = {
    {"preset", 0, offsetof(struct engine_config, preset), false},
    {"ram", 0, offsetof(struct engine_config, ram), true},
    {"page_offset", 0, offsetof(struct engine_config, page_offset), false},
    {"pae", CONFIG_PAE, 0, false},
    {"vmalloc", 0, offsetof(struct engine_config, vmalloc_bytes), false},
    {"highmem", 0, offsetof(struct engine_config, highmem), true},
    {"highmem_off", CONFIG_HIGHMEM_OFF, 0, false},
    {"cpus", 0, offsetof(struct engine_config, cpus), false},
    {"mem", 0, offsetof(struct engine_config, mem), true},
    {"kernelcore", 0, offsetof(struct engine_config, kernelcore), true},
    {"movablecore", 0, offsetof(struct engine_config, movablecore), true},
    {"thp_off", CONFIG_THP_OFF, 0, false},
    {"user_fallback", 0, offsetof(struct engine_config, user_fallback), false},
    {"poison_free", CONFIG_POISON_FREE, 0, false},
    {"late_pages", 0, offsetof(struct engine_config, late_pages), false},
};
enum { NR_PLACES = sizeof places / sizeof *places };

static bool refuse(struct engine_error *why, const char *setting, const char *what)
{
	snprintf(why->text, sizeof why->text, "--set %.80s: %.100s", setting, what);
	return false;
}

/* "4G", "0xc0000000", "12" */
static bool parse_number(const char *text, uint64_t *ret)
{
	static const char units[] = "KMGT";
	const char *unit;
	char *end;

	*ret = strtoull(text, &end, 0);
	if (end == text || *text == '-')
		return false;
	unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
	if (unit) {
		unsigned shift = 10 * (unsigned)(unit - units + 1);

		if (*ret > UINT64_MAX >> shift)
			return false;
		*ret <<= shift;
		end++;
	}
	return *end == '\0';
}

static bool parse_bool(const char *text, uint64_t *ret)
{
	static const char *const words[2][4] = {{"no", "off", "false", "0"},
						{"yes", "on", "true", "1"}};

	for (unsigned i = 0; i < 8; i++)
		if (strcasecmp(text, words[i / 4][i % 4]) == 0) {
			*ret = i / 4;
			return true;
		}
	return false;
}

/* A value's whole name, or the end of it behind a '_'; '-' and '.' stand for '_'. */
static bool enum_matches(const char *name, const char *text)
{
	size_t n = strlen(name), t = strlen(text);

	if (t > n || (t < n && name[n - t - 1] != '_'))
		return false;
	for (size_t i = 0; i < t; i++) {
		char c = text[i] == '-' || text[i] == '.' ? '_' : text[i];

		if (toupper((unsigned char)c) != toupper((unsigned char)name[n - t + i]))
			return false;
	}
	return true;
}

static bool parse_enum(const struct contract_enum *e, const char *text, uint64_t *ret)
{
	for (unsigned i = 0; e && i < e->nr_values; i++)
		if (enum_matches(e->values[i].name, text)) {
			*ret = e->values[i].number;
			return true;
		}
	return false;
}

static bool parse_value(const struct contract_field *f, const char *text, uint64_t *ret)
{
	bool is_toggle = f->enums[0] && strcmp(f->enums[0]->name, "Toggle") == 0;

	if (f->kind == FIELD_BOOL || is_toggle)
		return parse_bool(text, ret);
	if (f->kind == FIELD_ENUM)
		return parse_enum(f->enums[0], text, ret);
	return parse_number(text, ret) && *ret >= f->min && *ret <= f->max;
}

static bool set_split(struct engine_config *config, const char *text)
{
	uint64_t value;

	config->page_offset = contract_split(text);
	if (config->page_offset)
		return true;
	if (!parse_number(text, &value) || value > UINT32_MAX)
		return false;
	config->page_offset = (uint32_t)value;
	return true;
}

static void put(struct engine_config *config, const struct place *p, uint64_t value)
{
	uint8_t *at = (uint8_t *)config + p->offset;

	if (p->flag)
		config->flags = value ? config->flags | p->flag : config->flags & ~p->flag;
	else if (p->is_long)
		memcpy(at, &value, sizeof value);
	else
		memcpy(at, &(uint32_t){(uint32_t)value}, sizeof(uint32_t));
	/* A size stands for the usual map. */
	if (strcmp(p->name, "ram") == 0)
		config->nr_e820 = 0;
}

static const struct contract_field *field_of(const char *name)
{
	for (unsigned i = 0; i < contract_machine_config.nr_ints; i++)
		if (strcmp(contract_machine_config.ints[i].name, name) == 0)
			return &contract_machine_config.ints[i];
	return NULL;
}

bool settings_apply(struct engine_config *config, const char *setting, struct engine_error *why)
{
	const char *text = strchr(setting, '=');
	char key[32];
	uint64_t value;

	if (!text++)
		return refuse(why, setting, "not key=value");
	snprintf(key, sizeof key, "%.*s", (int)(text - 1 - setting), setting);
	for (char *c = key; *c; c++)
		*c = *c == '-' ? '_' : *c;
	if (strcmp(key, "split") == 0)
		return set_split(config, text) ||
		       refuse(why, setting, "3G, 3G_OPT, 2G, 2G_OPT, 1G, or a page offset");
	if (strcmp(key, "highmem") == 0 && strcasecmp(text, "off") == 0) {
		config->flags |= CONFIG_HIGHMEM_OFF;
		return true;
	}
	for (unsigned i = 0; i < NR_PLACES; i++) {
		if (strcmp(places[i].name, key) != 0)
			continue;
		if (!parse_value(field_of(key), text, &value))
			return refuse(why, setting, "no value for it");
		put(config, &places[i], value);
		return true;
	}
	return refuse(why, setting, "no such key; --help names them");
}

void settings_print_help(void)
{
	printf("keys of --set:\n  %-14s " CONTRACT_SPLIT_NAMES ", or a page offset\n", "split");
	for (unsigned i = 0; i < NR_PLACES; i++)
		printf("  %-14s %s\n", places[i].name,
		       contract_field_doc(field_of(places[i].name)));
}
