/*
 * wire.h - protobuf's wire format, as little of it as the hot paths need.
 *
 * A reader walks bytes that the other side sent and trusts none of them; a buffer grows
 * and is written at its end. Messages with many repeated parts (ops, results, rows)
 * pass through here in one pass, driven by the contract's tables; the others go
 * through protobuf-c. tests/rpc/test_rpc.c and tests/client/test_packed.c hold the two
 * against each other.
 */
#ifndef WIRE_H
#define WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum wire_type {
	WIRE_VARINT = 0,
	WIRE_FIXED64 = 1,
	WIRE_BYTES = 2,
	WIRE_FIXED32 = 5,
};

/* ---- reading: false means malformed, and the reader is done with ---- */

struct wire_reader {
	const uint8_t *at, *end;
};

static inline bool wire_varint(struct wire_reader *r, uint64_t *ret)
{
	uint64_t value = 0;

	if (r->at < r->end && *r->at < 0x80) {
		*ret = *r->at++;
		return true;
	}
	for (unsigned shift = 0; shift < 70 && r->at < r->end; shift += 7) {
		uint8_t byte = *r->at++;

		if (shift < 64)
			value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80) {
			*ret = value;
			return true;
		}
	}
	return false;
}

/* A field's number and type. Check r->at < r->end first: the end is no tag. */
static inline bool wire_tag(struct wire_reader *r, uint32_t *ret_field, uint32_t *ret_type)
{
	uint64_t tag;

	if (!wire_varint(r, &tag) || tag > UINT32_MAX || tag >> 3 == 0)
		return false;
	*ret_field = (uint32_t)(tag >> 3);
	*ret_type = (uint32_t)(tag & 7);
	return true;
}

/* The bytes of a length-delimited field, in place. */
static inline bool wire_bytes(struct wire_reader *r, struct wire_reader *ret)
{
	uint64_t length;

	if (!wire_varint(r, &length) || length > (uint64_t)(r->end - r->at))
		return false;
	ret->at = r->at;
	ret->end = r->at += length;
	return true;
}

/* Groups (types 3 and 4) are not in proto3 and are refused. */
static inline bool wire_skip(struct wire_reader *r, uint32_t type)
{
	struct wire_reader ignored;
	uint64_t value;

	switch (type) {
	case WIRE_VARINT: return wire_varint(r, &value);
	case WIRE_BYTES: return wire_bytes(r, &ignored);
	case WIRE_FIXED64:
	case WIRE_FIXED32: {
		size_t width = type == WIRE_FIXED64 ? 8 : 4;

		if ((size_t)(r->end - r->at) < width)
			return false;
		r->at += width;
		return true;
	}
	default: return false;
	}
}

/* ---- writing ---- */

enum {
	WIRE_VARINT_MAX = 10,
	/* A tag below 2^28 (field numbers here are below 2^11) and a length below 2^28. */
	WIRE_HEAD_MAX = 8,
};

struct wire_buffer {
	uint8_t *bytes;
	size_t length, capacity;
};

/* Makes room for `more` bytes. Aborts when the host has no memory. */
static inline void wire_reserve(struct wire_buffer *b, size_t more)
{
	size_t need = b->length + more, capacity = b->capacity ? b->capacity : 1024;

	if (need <= b->capacity)
		return;
	while (capacity < need)
		capacity *= 2;
	b->bytes = realloc(b->bytes, capacity);
	if (!b->bytes)
		abort();
	b->capacity = capacity;
}

static inline void wire_free(struct wire_buffer *b)
{
	free(b->bytes);
	*b = (struct wire_buffer){0};
}

static inline uint8_t *wire_write_varint(uint8_t *at, uint64_t value)
{
	while (value >= 0x80) {
		*at++ = (uint8_t)(value | 0x80);
		value >>= 7;
	}
	*at++ = (uint8_t)value;
	return at;
}

static inline void wire_put_varint(struct wire_buffer *b, uint64_t value)
{
	wire_reserve(b, WIRE_VARINT_MAX);
	b->length = (size_t)(wire_write_varint(b->bytes + b->length, value) - b->bytes);
}

static inline void wire_put_tag(struct wire_buffer *b, uint32_t field, enum wire_type type)
{
	wire_put_varint(b, (uint64_t)field << 3 | type);
}

/* A field of proto3: 0 is not written. */
static inline void wire_put_integer(struct wire_buffer *b, uint32_t field, uint64_t value)
{
	uint8_t *at;

	if (!value)
		return;
	wire_reserve(b, 2 * WIRE_VARINT_MAX);
	at = wire_write_varint(b->bytes + b->length, (uint64_t)field << 3 | WIRE_VARINT);
	b->length = (size_t)(wire_write_varint(at, value) - b->bytes);
}

/* Also when empty: for the members of a oneof and for repeated fields. */
static inline void wire_put_bytes_always(struct wire_buffer *b, uint32_t field, const void *bytes,
					 size_t length)
{
	wire_put_tag(b, field, WIRE_BYTES);
	wire_put_varint(b, length);
	wire_reserve(b, length);
	if (length)
		memcpy(b->bytes + b->length, bytes, length);
	b->length += length;
}

static inline void wire_put_bytes(struct wire_buffer *b, uint32_t field, const void *bytes,
				  size_t length)
{
	if (length)
		wire_put_bytes_always(b, field, bytes, length);
}

static inline void wire_put_text(struct wire_buffer *b, uint32_t field, const char *text)
{
	wire_put_bytes(b, field, text, strlen(text));
}

/* A word as it is: buffers of uint32_t grow in the same way. */
static inline void wire_put_word(struct wire_buffer *b, uint32_t word)
{
	wire_reserve(b, sizeof word);
	memcpy(b->bytes + b->length, &word, sizeof word);
	b->length += sizeof word;
}

/* A submessage whose length is not known yet: begin, write its fields, end. One byte
 * is kept for the length; a longer one moves the fields up by what it needs. */
static inline size_t wire_begin(struct wire_buffer *b, uint32_t field)
{
	wire_put_tag(b, field, WIRE_BYTES);
	wire_reserve(b, 1);
	return ++b->length;
}

static inline void wire_end(struct wire_buffer *b, size_t begin)
{
	size_t length = b->length - begin;
	uint8_t head[WIRE_VARINT_MAX];
	size_t width;

	if (length < 0x80) {
		b->bytes[begin - 1] = (uint8_t)length;
		return;
	}
	width = (size_t)(wire_write_varint(head, length) - head);
	wire_reserve(b, width - 1);
	memmove(b->bytes + begin + width - 1, b->bytes + begin, length);
	b->length += width - 1;
	memcpy(b->bytes + begin - 1, head, width);
}

#endif
