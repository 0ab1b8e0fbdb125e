/*
 * digest.c - one number for a machine's whole state.
 *
 * Configuration (without the detail level), then every frame that holds anything
 * but zeros, in order of number: a frame of zeros is equal to one never touched.
 * Only RAM counts (a guest's firmware leaves copies of itself in holes of the map), and
 * the host window is left out: it is the guest's, not the machine's. What a real
 * MMU may set in its own time is masked by the tables' owner, pgtable_digest_mask.
 *
 * Four lanes of multiply and rotate over 64-bit words: a page in half a
 * microsecond. Made to find a difference, not to resist an adversary.
 */
#include "event.h"
#include "map/pgtable.h"

#define LANES	4
#define PRIME_A 0x9e3779b97f4a7c15ULL
#define PRIME_B 0xc2b2ae3d27d4eb4fULL

struct lanes {
	u64 v[LANES];
};

static u64 rotate(u64 x, u32 by)
{
	return x << by | x >> (64 - by);
}

static void mix(struct lanes *l, u32 lane, u64 word)
{
	l->v[lane] = rotate(l->v[lane] ^ word * PRIME_A, 29) * PRIME_B;
}

static void mix_words(struct lanes *l, const u64 *words, u32 nr)
{
	for (u32 i = 0; i < nr; i++)
		mix(l, i % LANES, words[i]);
}

static bool all_zero(const u64 *words, u32 nr)
{
	u64 any = 0;

	for (u32 i = 0; i < nr; i++)
		any |= words[i];
	return !any;
}

static bool is_host_frame(const struct layout *l, pfn_t pfn)
{
	return pfn - l->host_start < l->host_end - l->host_start;
}

/* Zeroes a u32 of the state block's first frame. */
static void forget(u64 *words, u32 offset)
{
	__builtin_memset((u8 *)words + offset, 0, sizeof(u32));
}

_Static_assert(offsetof(struct machine_state, config.detail) < PAGE_SIZE, "in the first frame");

struct engine_digest engine_digest(struct engine *e, struct digest_source *source)
{
	enum { WORDS = PAGE_SIZE / sizeof(u64) };
	struct lanes l = {{1, 2, 3, 4}};
	struct engine_config config = e->st->config;
	pfn_t state_pfn = ref_pfn(e, e->state_ref);
	u64 words[WORDS];

	config.detail = 0;
	for (u32 i = 0; i < sizeof config / sizeof(u64); i++) {
		u64 word;

		__builtin_memcpy(&word, (const u8 *)&config + i * sizeof word, sizeof word);
		mix(&l, i % LANES, word);
	}
	for (pfn_t pfn = source->next(source, 0); pfn < e->st->layout.max_pfn;
	     pfn = source->next(source, pfn + 1)) {
		if (!memblock_is_memory(e, pfn) || is_host_frame(&e->st->layout, pfn))
			continue;
		source->copy(source, pfn, words);
		if (pfn == state_pfn) {
			forget(words, offsetof(struct machine_state, detail));
			forget(words, offsetof(struct machine_state, config.detail));
		}
		pgtable_digest_mask(e, pfn, words);
		if (all_zero(words, WORDS))
			continue;
		mix(&l, 0, pfn);
		mix_words(&l, words, WORDS);
	}
	u64 a = rotate(l.v[0], 7) ^ l.v[1] * PRIME_A, b = rotate(l.v[2], 13) ^ l.v[3] * PRIME_B;

	a = (a ^ a >> 32) * PRIME_B;
	b = (b ^ b >> 29) * PRIME_A;
	return (struct engine_digest){a ^ rotate(b, 31), b ^ rotate(a, 17)};
}
