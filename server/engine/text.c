/*
 * text.c - a small formatter, so that the engine can write /proc's tables and its
 * own errors without a libc. See text.h for what it knows.
 */
#include "text.h"

struct out {
	char *at, *end; /* end: room for the terminator */
};

static void put(struct out *o, char c)
{
	if (o->at < o->end)
		*o->at++ = c;
}

struct spec {
	u32 width;
	bool zero, left;
};

static void put_padded(struct out *o, const char *s, u32 length, struct spec spec)
{
	u32 pad = spec.width > length ? spec.width - length : 0;

	for (; pad && !spec.left; pad--)
		put(o, spec.zero ? '0' : ' ');
	for (u32 i = 0; i < length; i++)
		put(o, s[i]);
	for (; pad; pad--)
		put(o, ' ');
}

/* Long division by 32-bit pieces: a freestanding i386 build has no __udivdi3. */
static u32 divide(u64 *n, u32 base)
{
	u32 high = (u32)(*n >> 32), low = (u32)*n, rest = high % base;
	u32 quotient_high = high / base, quotient_low = 0;

	for (int bit = 31; bit >= 0; bit--) {
		u32 carry = rest >> 31;

		rest = rest << 1 | ((low >> bit) & 1);
		if (carry || rest >= base) {
			rest -= base;
			quotient_low |= 1u << bit;
		}
	}
	*n = (u64)quotient_high << 32 | quotient_low;
	return rest;
}

static void put_number(struct out *o, u64 n, u32 base, bool negative, struct spec spec)
{
	char digits[24];
	u32 at = sizeof digits;

	do {
		digits[--at] = "0123456789abcdef"[n <= 0xffffffff ? (u32)n % base : 0];
		if (n <= 0xffffffff) {
			n = (u32)n / base;
		} else {
			digits[at] = "0123456789abcdef"[divide(&n, base)];
		}
	} while (n);
	if (negative)
		digits[--at] = '-';
	put_padded(o, digits + at, (u32)sizeof digits - at, spec);
}

static u32 length_of(const char *s)
{
	u32 n = 0;

	while (s[n])
		n++;
	return n;
}

u32 text_vformat(char *out, u32 size, const char *format, va_list args)
{
	struct out o = {out, out + size - 1};

	for (const char *f = format; *f; f++) {
		if (*f != '%') {
			put(&o, *f);
			continue;
		}
		struct spec spec = {0, false, false};
		bool longer = false;

		for (f++; *f == '0' || *f == '-'; f++) {
			spec.zero |= *f == '0';
			spec.left |= *f == '-';
		}
		for (; *f >= '0' && *f <= '9'; f++)
			spec.width = spec.width * 10 + (u32)(*f - '0');
		for (; *f == 'l'; f++)
			longer = true;
		if (*f == 's') {
			const char *s = va_arg(args, const char *);

			put_padded(&o, s, length_of(s), spec);
		} else if (*f == 'c') {
			char c = (char)va_arg(args, int);

			put_padded(&o, &c, 1, spec);
		} else if (*f == 'd') {
			int n = va_arg(args, int);

			put_number(&o, n < 0 ? 0u - (u32)n : (u32)n, 10, n < 0, spec);
		} else if (*f == 'u' || *f == 'x') {
			u64 n = longer ? va_arg(args, unsigned long long) : va_arg(args, u32);

			put_number(&o, n, *f == 'x' ? 16 : 10, false, spec);
		} else {
			put(&o, *f);
		}
	}
	*o.at = 0;
	return (u32)(o.at - out);
}

u32 text_format(char *out, u32 size, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	u32 n = text_vformat(out, size, format, args);
	va_end(args);
	return n;
}

bool refuse(struct engine_error *why, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	text_vformat(why->text, sizeof why->text, format, args);
	va_end(args);
	return false;
}

void say(struct inspect_sink *sink, const char *format, ...)
{
	char line[512];
	va_list args;

	if (!sink->want_text)
		return;
	va_start(args, format);
	u32 n = text_vformat(line, sizeof line, format, args);
	va_end(args);
	sink->text(sink, line, n);
}
