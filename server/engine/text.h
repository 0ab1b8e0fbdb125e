/*
 * text.h - the little of printf that a freestanding engine needs.
 *
 * Conversions: %s %c %u %d %x %llu %llx %%, with width, `0` and `-`. u32 for %u
 * and %x, int for %d, u64 for the ll forms. The output is always terminated.
 */
#ifndef ENGINE_TEXT_H
#define ENGINE_TEXT_H

#include <stdarg.h>

#include "engine.h"

/* Returns the length that was written, without the terminator. */
u32 text_vformat(char *out, u32 size, const char *format, va_list args);
u32 text_format(char *out, u32 size, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Fills an error and returns false, so that a caller can `return refuse(...)`. */
bool refuse(struct engine_error *why, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Text of an inspection; does nothing when the sink wants none. */
void say(struct inspect_sink *sink, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A row of an inspection; values as the proto's row message has its fields. */
#define ROW(sink, type, ...)                                                           \
	do {                                                                           \
		const u64 row_values_[] = {__VA_ARGS__};                               \
		_Static_assert(sizeof row_values_ / sizeof row_values_[0] == type##_N, \
			       "as many values as the row has fields");                \
		if ((sink)->want_rows)                                                 \
			(sink)->row((sink), type, row_values_, type##_N);              \
	} while (0)

#endif
