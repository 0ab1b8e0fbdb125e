/*
 * kmem_text.c - see kmem_text.h.
 *
 * A line is cut at the event's name: `TASK [CPU] FLAGS TIME: [kmem:]NAME: FIELDS`. A
 * task's name may hold blanks, dashes, colons and brackets, so what is before the time
 * is read from its end.
 */
#include "kmem_text.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "contract.h"

static const struct {
	const char *name;
	enum kmem_kind kind;
} kinds[] = {
    {"mm_page_alloc", KMEM_ALLOC},	    {"mm_page_free", KMEM_FREE},
    {"mm_page_free_direct", KMEM_FREE},	    {"mm_page_free_batched", KMEM_FREE_BATCHED},
    {"mm_pagevec_free", KMEM_FREE_BATCHED}, {"mm_page_alloc_extfrag", KMEM_EXTFRAG},
    {"mm_page_pcpu_drain", KMEM_DRAIN},	    {"mm_page_alloc_zone_locked", KMEM_TAKE},
};

/* Sums of flags have the values of 6.1; names that kernels before it used for single
 * flags have that flag's, and those without a meaning any more have none. */
static const struct {
	const char *name;
	uint32_t bits;
} gfp_words[] = {
    {"GFP_DMA", GFP_DMA},
    {"GFP_NOWAIT", GFP_NOWAIT},
    {"GFP_ATOMIC", GFP_ATOMIC},
    {"GFP_NOIO", GFP_NOIO},
    {"GFP_NOFS", GFP_NOFS},
    {"GFP_KERNEL", GFP_KERNEL},
    {"GFP_KERNEL_ACCOUNT", GFP_KERNEL_ACCOUNT},
    {"GFP_USER", GFP_USER},
    {"GFP_HIGHUSER", GFP_HIGHUSER},
    {"GFP_HIGHUSER_MOVABLE", GFP_HIGHUSER_MOVABLE},
    {"GFP_TRANSHUGE_LIGHT", GFP_TRANSHUGE_LIGHT},
    {"GFP_TRANSHUGE", GFP_TRANSHUGE},
    {"GFP_TEMPORARY", GFP_KERNEL | __GFP_RECLAIMABLE},
    {"GFP_RECLAIM", __GFP_DIRECT_RECLAIM | __GFP_KSWAPD_RECLAIM},
    {"GFP_WAIT", __GFP_DIRECT_RECLAIM | __GFP_KSWAPD_RECLAIM},
    {"GFP_REPEAT", __GFP_RETRY_MAYFAIL},
    {"GFP_HIGHMEM", __GFP_HIGHMEM},
    {"GFP_MOVABLE", __GFP_MOVABLE},
    {"GFP_RECLAIMABLE", __GFP_RECLAIMABLE},
    {"GFP_HIGH", __GFP_HIGH},
    {"GFP_IO", __GFP_IO},
    {"GFP_FS", __GFP_FS},
    {"GFP_ZERO", __GFP_ZERO},
    {"GFP_DIRECT_RECLAIM", __GFP_DIRECT_RECLAIM},
    {"GFP_KSWAPD_RECLAIM", __GFP_KSWAPD_RECLAIM},
    {"GFP_WRITE", __GFP_WRITE},
    {"GFP_NOWARN", __GFP_NOWARN},
    {"GFP_RETRY_MAYFAIL", __GFP_RETRY_MAYFAIL},
    {"GFP_NOFAIL", __GFP_NOFAIL},
    {"GFP_NORETRY", __GFP_NORETRY},
    {"GFP_MEMALLOC", __GFP_MEMALLOC},
    {"GFP_COMP", __GFP_COMP},
    {"GFP_NOMEMALLOC", __GFP_NOMEMALLOC},
    {"GFP_HARDWALL", __GFP_HARDWALL},
    {"GFP_THISNODE", __GFP_THISNODE},
    {"GFP_ACCOUNT", __GFP_ACCOUNT},
    {"GFP_COLD", 0},
    {"GFP_NOTRACK", 0},
    {"GFP_OTHER_NODE", 0},
    {"GFP_SKIP_ZERO", 0},
    {"GFP_SKIP_KASAN_UNPOISON", 0},
    {"GFP_SKIP_KASAN_POISON", 0},
    {"GFP_ZEROTAGS", 0},
    {"GFP_NOLOCKDEP", 0},
    {"none", 0},
};

/* ---- fields ---- */

static bool word_is(const char *word, size_t length, const char *name)
{
	return strlen(name) == length && memcmp(word, name, length) == 0;
}

/* With the underscores it is the single flag, whatever the sum of that name means. */
static bool flag_of(const char *word, size_t length, uint32_t *bits)
{
	bool single = length > 2 && memcmp(word, "__", 2) == 0;

	if (single) {
		if (word_is(word, length, "__GFP_ATOMIC")) {
			*bits |= __GFP_ATOMIC;
			return true;
		}
		word += 2;
		length -= 2;
	}
	for (unsigned i = 0; i < sizeof gfp_words / sizeof gfp_words[0]; i++)
		if (word_is(word, length, gfp_words[i].name)) {
			*bits |= gfp_words[i].bits;
			return true;
		}
	if (isdigit((unsigned char)*word)) {
		*bits |= (uint32_t)strtoul(word, NULL, 16);
		return true;
	}
	return false;
}

static void read_gfp(const char *value, size_t length, struct kmem_event *ev)
{
	const char *end = value + length;

	while (value < end) {
		const char *bar = memchr(value, '|', (size_t)(end - value));
		size_t n = (size_t)((bar ? bar : end) - value);

		if (n && !flag_of(value, n, &ev->gfp))
			ev->gfp_unknown = true;
		value += n + 1;
	}
}

/* What is there: an event needs some of them. */
enum { HAS_PFN = 1, HAS_ORDER = 2, HAS_GFP = 4, HAS_TYPE = 8, HAS_OWNED = 16 };

static unsigned read_field(const char *key, size_t key_length, const char *value, size_t length,
			   struct kmem_event *ev)
{
	if (word_is(key, key_length, "pfn")) {
		ev->pfn = (uint32_t)strtoul(value, NULL, 0);
		return HAS_PFN;
	}
	if (word_is(key, key_length, "order") || word_is(key, key_length, "alloc_order")) {
		ev->order = (uint32_t)strtoul(value, NULL, 10);
		return HAS_ORDER;
	}
	if (word_is(key, key_length, "gfp_flags")) {
		read_gfp(value, length, ev);
		return HAS_GFP;
	}
	if (word_is(key, key_length, "alloc_migratetype")) {
		ev->migratetype = (uint32_t)strtoul(value, NULL, 10);
		return HAS_TYPE;
	}
	if (word_is(key, key_length, "change_ownership")) {
		ev->owned = strtoul(value, NULL, 10) != 0;
		return HAS_OWNED;
	}
	return 0;
}

static unsigned read_fields(const char *text, struct kmem_event *ev)
{
	unsigned has = 0;

	while (*(text += strspn(text, " \t\r"))) {
		size_t length = strcspn(text, " \t\r");
		const char *equals = memchr(text, '=', length);

		if (equals)
			has |= read_field(text, (size_t)(equals - text), equals + 1,
					  length - (size_t)(equals + 1 - text), ev);
		text += length;
	}
	return has;
}

/* ---- what is before the name ---- */

/* "TASK-PID" of ftrace, perhaps with "(TGID)" behind, or "TASK PID[/TID]" of perf: the thread
 * counts. */
static void read_task(const char *text, const char *end, struct kmem_event *ev)
{
	const char *pid, *first;
	size_t length;

	text += strspn(text, " \t");
	while (end > text && isblank((unsigned char)end[-1]))
		end--;
	if (end > text && end[-1] == ')') {
		while (end > text && *--end != '(')
			;
		while (end > text && isblank((unsigned char)end[-1]))
			end--;
	}
	for (pid = end; pid > text && isdigit((unsigned char)pid[-1]);)
		pid--;
	ev->pid = (uint32_t)strtoul(pid, NULL, 10);
	first = pid;
	if (first > text && first[-1] == '/')
		while (--first > text && isdigit((unsigned char)first[-1]))
			;
	if (first > text)
		first--;
	while (first > text && isblank((unsigned char)first[-1]))
		first--;
	length = (size_t)(first - text);
	if (length >= KMEM_COMM_LENGTH)
		length = KMEM_COMM_LENGTH - 1;
	memcpy(ev->comm, text, length);
	ev->comm[length] = 0;
}

/* ftrace's flags, between CPU and time: the third is the context, the fourth how deep
 * preemption is disabled, '.' being a task's and 0. Where the column is missing there is
 * nothing but blanks. */
static void read_flags(const char *from, const char *end, struct kmem_event *ev)
{
	const char *flags = from < end ? from + strspn(from, " \t") : end;

	if (end - flags <= 3)
		return;
	ev->in_irq = strchr("hHsSzZ", flags[2]) != NULL;
	if (isxdigit((unsigned char)flags[3]))
		ev->depth = (uint8_t)strtoul((char[]){flags[3], 0}, NULL, 16);
}

/* Reads the time that ends at `colon`, then CPU and task. */
static bool read_head(const char *line, const char *colon, struct kmem_event *ev)
{
	const char *dot = colon, *from, *bracket;
	uint64_t fraction = 0;
	uint32_t digits = 0;

	while (dot > line && isdigit((unsigned char)dot[-1]))
		dot--;
	if (dot == colon || dot == line || dot[-1] != '.')
		return false;
	for (const char *c = dot; c < colon && digits < 6; c++, digits++)
		fraction = fraction * 10 + (uint64_t)(*c - '0');
	for (; digits < 6; digits++)
		fraction *= 10;
	for (from = dot - 1; from > line && isdigit((unsigned char)from[-1]);)
		from--;
	ev->time_us = strtoull(from, NULL, 10) * 1000000 + fraction;
	for (bracket = from; bracket > line && *bracket != '[';)
		bracket--;
	ev->cpu = *bracket == '[' ? (uint32_t)strtoul(bracket + 1, NULL, 10) : 0;
	if (*bracket == '[')
		read_flags(bracket + strcspn(bracket, "]") + 1, from, ev);
	read_task(line, *bracket == '[' ? bracket : from, ev);
	return true;
}

/* The event's name, its end, and the colon before it. */
static const char *find_name(const char *line, const char **ret_end, const char **ret_colon)
{
	for (const char *at = line; (at = strstr(at, "mm_page")); at++) {
		const char *end = at + strspn(at, "abcdefghijklmnopqrstuvwxyz_"), *before = at;

		if (*end != ':')
			continue;
		if (before - line >= 5 && memcmp(before - 5, "kmem:", 5) == 0)
			before -= 5;
		while (before > line && isblank((unsigned char)before[-1]))
			before--;
		if (before - line < 2 || before[-1] != ':' || !isdigit((unsigned char)before[-2]))
			continue;
		*ret_end = end;
		*ret_colon = before - 1;
		return at;
	}
	return NULL;
}

enum kmem_line kmem_parse(const char *line, struct kmem_event *ret)
{
	const char *end, *colon, *name = find_name(line, &end, &colon);
	unsigned has, needs;

	if (!name || *line == '#')
		return KMEM_LINE_NOISE;
	*ret = (struct kmem_event){.kind = KMEM_OTHER};
	for (unsigned i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
		if (word_is(name, (size_t)(end - name), kinds[i].name))
			ret->kind = kinds[i].kind;
	if (!read_head(line, colon, ret))
		return KMEM_LINE_WRONG;
	if (ret->kind == KMEM_OTHER)
		return KMEM_LINE_EVENT;
	has = read_fields(end + 1, ret);
	ret->told = (has & (HAS_TYPE | HAS_OWNED)) == (HAS_TYPE | HAS_OWNED);
	/* Old kernels did not print the order of what a batch frees: it is always 0. */
	needs = ret->kind == KMEM_ALLOC	 ? HAS_PFN | HAS_ORDER | HAS_GFP
		: ret->kind == KMEM_FREE ? HAS_PFN | HAS_ORDER
					 : HAS_PFN;
	return (has & needs) == needs ? KMEM_LINE_EVENT : KMEM_LINE_WRONG;
}
