/*
 * grpc.c - the small rules of gRPC over HTTP/2, as functions of bytes.
 *
 * Not modelled: message compression, "-bin" metadata (no service of ours has any).
 */
#include "grpc.h"

#include <string.h>
#include <strings.h>

static uint64_t unit_ns(uint8_t unit)
{
	switch (unit) {
	case 'H': return 3600 * 1000000000ull;
	case 'M': return 60 * 1000000000ull;
	case 'S': return 1000000000ull;
	case 'm': return 1000000;
	case 'u': return 1000;
	case 'n': return 1;
	default: return 0;
	}
}

bool grpc_parse_timeout(const uint8_t *text, size_t length, uint64_t *ret_ns)
{
	uint64_t value = 0, unit;

	if (length < 2 || length > 9)
		return false;
	for (size_t i = 0; i < length - 1; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		value = value * 10 + (uint64_t)(text[i] - '0');
	}
	unit = unit_ns(text[length - 1]);
	if (!unit)
		return false;
	if (__builtin_mul_overflow(value, unit, ret_ns))
		*ret_ns = UINT64_MAX;
	return true;
}

bool grpc_is_content_type(const uint8_t *text, size_t length)
{
	static const char type[] = "application/grpc";
	const size_t n = sizeof(type) - 1;

	if (length < n || strncasecmp((const char *)text, type, n) != 0)
		return false;
	return length == n || text[n] == '+' || text[n] == ';';
}

bool grpc_is_bearer(const uint8_t *text, size_t length, const char *token)
{
	static const char scheme[] = "bearer ";
	const size_t skip = sizeof(scheme) - 1, want = strlen(token);
	unsigned differ;

	if (length < skip || strncasecmp((const char *)text, scheme, skip) != 0)
		return false;
	text += skip;
	length -= skip;
	differ = length != want;
	/* Every byte is looked at, whatever the earlier ones were. */
	for (size_t i = 0; i < length && want; i++)
		differ |= (unsigned)(text[i] ^ (uint8_t)token[i % want]);
	return !differ && want;
}

size_t grpc_encode_message(const char *message, char *out)
{
	static const char hex[] = "0123456789ABCDEF";
	size_t length = strnlen(message, GRPC_MESSAGE_TEXT), n = 0;

	/* What is cut is cut between characters. */
	while (length && ((uint8_t)message[length] & 0xc0) == 0x80)
		length--;
	for (size_t i = 0; i < length; i++) {
		uint8_t c = (uint8_t)message[i];

		if (c >= 0x20 && c <= 0x7e && c != '%') {
			out[n++] = (char)c;
			continue;
		}
		out[n++] = '%';
		out[n++] = hex[c >> 4];
		out[n++] = hex[c & 15];
	}
	return n;
}
