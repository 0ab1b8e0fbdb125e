/*
 * mem.c - what a compiler takes for granted: mem*, and division of 64-bit numbers
 * should the engine ever need it on i386. By words: an emulated CPU takes as long for a
 * byte as for a word.
 */
#include "kernel.h"

void *memcpy(void *restrict to, const void *restrict from, size_t bytes)
{
	void *at = to;
	size_t words = bytes / 4, rest = bytes % 4;

	__asm__ volatile("rep movsl" : "+D"(at), "+S"(from), "+c"(words) : : "memory");
	__asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(rest) : : "memory");
	return to;
}

void *memset(void *to, int byte, size_t bytes)
{
	void *at = to;
	size_t words = bytes / 4, rest = bytes % 4;
	u32 four = (u8)byte * 0x01010101u;

	__asm__ volatile("rep stosl" : "+D"(at), "+c"(words) : "a"(four) : "memory");
	__asm__ volatile("rep stosb" : "+D"(at), "+c"(rest) : "a"(four) : "memory");
	return to;
}

void *memmove(void *to, const void *from, size_t bytes)
{
	u8 *t = to;
	const u8 *f = from;

	if (t <= f || t >= f + bytes)
		return memcpy(to, from, bytes);
	while (bytes--)
		t[bytes] = f[bytes];
	return to;
}

int memcmp(const void *a, const void *b, size_t bytes)
{
	const u8 *x = a, *y = b;

	for (size_t i = 0; i < bytes; i++) {
		if (x[i] != y[i])
			return x[i] < y[i] ? -1 : 1;
	}
	return 0;
}

u64 __udivmoddi4(u64 n, u64 d, u64 *ret_rest);
u64 __udivdi3(u64 n, u64 d);
u64 __umoddi3(u64 n, u64 d);

u64 __udivmoddi4(u64 n, u64 d, u64 *ret_rest)
{
	u64 quotient = 0, rest = 0;

	for (int bit = 63; bit >= 0; bit--) {
		bool carry = rest >> 63;

		rest = rest << 1 | ((n >> bit) & 1);
		if (carry || rest >= d) {
			rest -= d;
			quotient |= 1ULL << bit;
		}
	}
	if (ret_rest)
		*ret_rest = rest;
	return quotient;
}

u64 __udivdi3(u64 n, u64 d)
{
	return __udivmoddi4(n, d, NULL);
}

u64 __umoddi3(u64 n, u64 d)
{
	u64 rest;

	__udivmoddi4(n, d, &rest);
	return rest;
}
