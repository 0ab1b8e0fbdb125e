/*
 * state_words.c - see state_words.h. Records never cross a payload's end; a list that is
 * too long for one goes on in the next.
 */
#include "state_words.h"

#include <stdio.h>
#include <string.h>

enum { LIST_PIECE = 4096, NR_RESERVES = 4, MOST_CPUS = 32 };

static void put_word(struct state_words *s, uint32_t word)
{
	uint8_t *at = s->data + (size_t)s->words++ * 4;

	for (int i = 0; i < 4; i++)
		at[i] = (uint8_t)(word >> 8 * i);
}

static void send(struct state_words *s, bool last)
{
	if (!s->refused)
		s->refused = !s->send(s->user, s->data, s->words * 4, last);
	s->words = 0;
}

static void begin_record(struct state_words *s, uint32_t kind, uint32_t zone, uint32_t n)
{
	if (s->words + 1 + n > STATE_MAX_WORDS)
		send(s, false);
	put_word(s, kind | zone << 8 | n << 16);
}

static uint32_t number(const json_t *object, const char *key)
{
	return (uint32_t)json_integer_value(json_object_get(object, key));
}

static uint32_t element(const json_t *array, size_t i)
{
	return (uint32_t)json_integer_value(json_array_get(array, i));
}

static void put_list(struct state_words *s, uint32_t kind, uint32_t zone, uint32_t which,
		     const json_t *pfns)
{
	size_t nr = json_array_size(pfns);

	for (size_t from = 0; from < nr; from += LIST_PIECE) {
		size_t n = nr - from < LIST_PIECE ? nr - from : LIST_PIECE;

		begin_record(s, kind, zone, (uint32_t)n + 1);
		put_word(s, which);
		for (size_t i = 0; i < n; i++)
			put_word(s, element(pfns, from + i));
	}
}

/* One digit for each pageblock, eight to a word. */
static void put_pageblocks(struct state_words *s, uint32_t zone, const char *types)
{
	uint32_t nr = types ? (uint32_t)strlen(types) : 0;
	uint32_t words = (nr + STATE_TYPES_PER_WORD - 1) / STATE_TYPES_PER_WORD;

	begin_record(s, STATE_PAGEBLOCKS, zone, 2 + words);
	put_word(s, 0);
	put_word(s, nr);
	for (uint32_t i = 0; i < words; i++) {
		uint32_t word = 0;

		for (uint32_t k = 0; k < STATE_TYPES_PER_WORD; k++) {
			uint32_t at = i * STATE_TYPES_PER_WORD + k;

			word |= at < nr ? ((uint32_t)types[at] - '0') << 4 * k : 0;
		}
		put_word(s, word);
	}
}

/* ---- CPUs ---- */

struct cpu {
	const json_t *pcp; /* NULL: the recording does not tell of this CPU */
	int32_t diff;	   /* to NR_FREE_PAGES */
};

/* "pcp" and "nr_free_diff" are CPU 0's; the others' end in their number. */
static struct cpu cpu_of(const json_t *zone_line, uint32_t cpu)
{
	char pcp[16], diff[24];

	snprintf(pcp, sizeof pcp, cpu ? "pcp%u" : "pcp", cpu);
	snprintf(diff, sizeof diff, cpu ? "nr_free_diff%u" : "nr_free_diff", cpu);
	return (struct cpu){json_object_get(zone_line, pcp), (int32_t)number(zone_line, diff)};
}

static int64_t free_pages(const json_t *zone_line)
{
	const json_t *orders, *list;
	size_t order, type;
	int64_t pages = 0;

	json_array_foreach (json_object_get(zone_line, "free"), order, orders)
		json_array_foreach (orders, type, list)
			pages += (int64_t)json_array_size(list) << order;
	return pages;
}

/* What a CPU may keep from the count, by Linux's formula for two CPUs: with more it is
 * larger. */
static int32_t most_diff(uint32_t managed)
{
	int32_t bits = 0;

	for (managed >>= 15; managed; managed >>= 1)
		bits++;
	return 4 * (1 + bits);
}

/* What the count lacks is what CPUs keep that the recording does not tell of: CPU 0's
 * recorder on a machine with several. Whose it is makes no difference until they fold it. */
static void spread_diffs(const json_t *zone_line, struct cpu cpus[MOST_CPUS])
{
	int64_t missing = free_pages(zone_line) - (int32_t)number(zone_line, "nr_free");
	int32_t most = most_diff(number(zone_line, "managed"));

	for (uint32_t i = 0; i < MOST_CPUS; i++)
		missing -= cpus[i].diff;
	for (uint32_t i = 1; i < MOST_CPUS && missing; i++) {
		if (cpus[i].pcp)
			continue;
		cpus[i].diff = (int32_t)(missing > most ? most : missing < -most ? -most : missing);
		missing -= cpus[i].diff;
	}
}

static void put_cpus(struct state_words *s, const json_t *zone_line, uint32_t zone)
{
	struct cpu cpus[MOST_CPUS];
	const json_t *list;
	size_t which;

	for (uint32_t i = 0; i < MOST_CPUS; i++) {
		cpus[i] = cpu_of(zone_line, i);
		json_array_foreach (json_object_get(cpus[i].pcp, "lists"), which, list)
			put_list(s, STATE_PCP_LIST, zone, i << 8 | (uint32_t)which, list);
	}
	spread_diffs(zone_line, cpus);
	for (uint32_t i = 0; i < MOST_CPUS; i++) {
		const json_t *pcp = cpus[i].pcp;

		if (!pcp && !cpus[i].diff)
			continue;
		begin_record(s, STATE_PCP, zone, STATE_PCP_WORDS);
		put_word(s, i);
		put_word(s, number(pcp, "count"));
		put_word(s, number(pcp ? pcp : cpus[0].pcp, "high"));
		put_word(s, number(pcp ? pcp : cpus[0].pcp, "batch"));
		put_word(s, number(pcp, "free_factor"));
		put_word(s, (uint32_t)cpus[i].diff);
	}
}

/* ---- a zone ---- */

void state_words_add(struct state_words *s, const json_t *zone_line)
{
	static const char *const scalars[] = {"start", "spanned", "present", "managed"};
	const json_t *free_lists = json_object_get(zone_line, "free"), *orders, *list;
	uint32_t zone = number(zone_line, "z");
	size_t order, i;

	begin_record(s, STATE_ZONE, zone, STATE_ZONE_WORDS);
	for (i = 0; i < sizeof scalars / sizeof scalars[0]; i++)
		put_word(s, number(zone_line, scalars[i]));
	for (i = 0; i < 3; i++)
		put_word(s, element(json_object_get(zone_line, "wmark"), i));
	put_word(s, number(zone_line, "boost"));
	put_word(s, number(zone_line, "highatomic"));
	for (i = 0; i < NR_RESERVES; i++)
		put_word(s, element(json_object_get(zone_line, "reserve"), i));
	put_word(s, number(zone_line, "nr_free"));
	put_pageblocks(s, zone, json_string_value(json_object_get(zone_line, "pb")));
	json_array_foreach (free_lists, order, orders) {
		json_array_foreach (orders, i, list) {
			put_list(s, STATE_FREE, zone, (uint32_t)(order << 8 | i), list);
		}
	}
	put_cpus(s, zone_line, zone);
}

bool state_words_finish(struct state_words *s)
{
	send(s, true);
	return !s->refused;
}
