/*
 * grpc.h - the small rules of gRPC over HTTP/2, as functions of bytes.
 *
 * Source of every rule: "gRPC over HTTP2" (PROTOCOL-HTTP2.md). Nothing here keeps
 * state, blocks or allocates.
 */
#ifndef NET_GRPC_H
#define NET_GRPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	GRPC_PREFIX = 5,	  /* bytes before a message: flag, then its length, big-endian */
	GRPC_MESSAGE_TEXT = 1024, /* longest grpc-message before encoding; more is cut */
};

/*
 * grpc-timeout: one to eight digits and a unit (H M S m u n). True and nanoseconds, or
 * UINT64_MAX when they do not fit; false if it is malformed.
 */
bool grpc_parse_timeout(const uint8_t *text, size_t length, uint64_t *ret_ns);

/* "application/grpc", alone or followed by '+' or ';'; letters in any case. */
bool grpc_is_content_type(const uint8_t *text, size_t length);

/* True if text is "Bearer " and the token. Its time depends on the lengths alone. */
bool grpc_is_bearer(const uint8_t *text, size_t length, const char *token);

/*
 * Percent-encodes a status message: bytes outside 0x20..0x7e and '%' itself. At most
 * GRPC_MESSAGE_TEXT bytes of it; out has room for three times as many. Returns the length.
 */
size_t grpc_encode_message(const char *message, char *out);

static inline void grpc_put_prefix(uint8_t *at, size_t length)
{
	at[0] = 0;
	at[1] = (uint8_t)(length >> 24);
	at[2] = (uint8_t)(length >> 16);
	at[3] = (uint8_t)(length >> 8);
	at[4] = (uint8_t)length;
}

static inline size_t grpc_prefix_length(const uint8_t *at)
{
	return (size_t)at[1] << 24 | (size_t)at[2] << 16 | (size_t)at[3] << 8 | at[4];
}

#endif
