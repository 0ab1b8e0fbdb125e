/*
 * stream.c - one gRPC call: framing, headers, trailers, its end.
 *
 * A message on the wire is five bytes of prefix (a compressed flag, a big-endian
 * length) and the message; DATA frames cut this stream of bytes anywhere.
 *
 * Invariants:
 *  1. A stream that is over is in no list, has no nghttp2 stream, and never touches
 *     its connection again; so it may outlive it.
 *  2. Bytes of complete messages that nobody has received stay uncounted for flow
 *     control (`unconsumed`); those of an incomplete message are given back at once,
 *     or a message longer than the window could never arrive.
 *  3. `result` is what the trailers said, or why there were none.
 *
 * Not modelled: compression (never asked for), metadata of the caller's own.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"

enum { PREFIX = 5 };

/* ---- receiving ---- */

static bool header_is(const uint8_t *name, size_t length, const char *want)
{
	return length == strlen(want) && memcmp(name, want, length) == 0;
}

static int hex_digit(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* grpc-message is percent-encoded UTF-8; what does not decode is kept as it is. */
static char *percent_decode(const uint8_t *text, size_t length)
{
	char *out = malloc(length + 1), *o = out;
	size_t i;

	if (!out)
		return NULL;
	for (i = 0; i < length; i++) {
		int high = i + 2 < length && text[i] == '%' ? hex_digit(text[i + 1]) : -1;
		int low = high >= 0 ? hex_digit(text[i + 2]) : -1;

		if (low >= 0) {
			*o++ = (char)(high << 4 | low);
			i += 2;
		} else {
			*o++ = (char)text[i];
		}
	}
	*o = '\0';
	return out;
}

static int decimal(const uint8_t *text, size_t length)
{
	int n = 0;
	size_t i;

	if (length == 0 || length > 4)
		return -1;
	for (i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -1;
		n = n * 10 + (text[i] - '0');
	}
	return n;
}

void stream_on_header(struct zoned_stream *s, const uint8_t *name, size_t name_length,
		      const uint8_t *value, size_t value_length)
{
	if (header_is(name, name_length, ":status")) {
		s->http_status = decimal(value, value_length);
	} else if (header_is(name, name_length, "grpc-status")) {
		int status = decimal(value, value_length);

		/* A code that gRPC does not define is UNKNOWN, as in every client. */
		s->grpc_status =
		    status >= 0 && status <= ZONED_UNAUTHENTICATED ? status : ZONED_UNKNOWN;
	} else if (header_is(name, name_length, "grpc-message") && !s->grpc_message) {
		s->grpc_message = percent_decode(value, value_length);
	}
}

static void give_window_back(struct zoned_stream *s)
{
	if (!s->first && s->unconsumed && !s->over) {
		nghttp2_session_consume_stream(s->connection->session, s->id, s->unconsumed);
		s->unconsumed = 0;
	}
}

static int stream_abort(struct zoned_stream *s, int result, const char *reason)
{
	stream_finish(s, result, reason);
	return -1;
}

/* Moves complete messages from s->in to the list. */
static int split_messages(struct zoned_stream *s)
{
	while (bytes_length(&s->in) >= PREFIX) {
		const uint8_t *p = s->in.data + s->in.start;
		struct stream_message *m;
		uint32_t length;

		memcpy(&length, p + 1, sizeof length);
		length = ntohl(length);
		if (p[0])
			return stream_abort(s, ZONED_PROTOCOL,
					    "a compressed message that nobody asked for");
		if (length > s->connection->max_message_bytes)
			return stream_abort(s, ZONED_RESOURCE_EXHAUSTED,
					    "a message longer than this client's limit");
		if (bytes_length(&s->in) < PREFIX + length)
			return 0;
		m = malloc(sizeof *m + length);
		if (!m)
			return stream_abort(s, ZONED_NO_MEMORY, "out of memory");
		m->next = NULL;
		m->length = length;
		memcpy(m->bytes, p + PREFIX, length);
		*s->end = m;
		s->end = &m->next;
		bytes_take(&s->in, PREFIX + length);
	}
	return 0;
}

int stream_on_data(struct zoned_stream *s, const uint8_t *data, size_t length)
{
	if (bytes_append(&s->in, data, length))
		return stream_abort(s, ZONED_NO_MEMORY, "out of memory");
	s->unconsumed += length;
	if (split_messages(s) < 0)
		return -1;
	give_window_back(s);
	return 0;
}

/* ---- the end ---- */

void stream_finish(struct zoned_stream *s, int result, const char *reason)
{
	struct zoned *z = s->connection;

	if (s->over)
		return;
	s->over = true;
	s->result = result;
	snprintf(s->reason, sizeof s->reason, "%s", reason);
	*s->link = s->next;
	if (s->next)
		s->next->link = s->link;
	nghttp2_session_set_stream_user_data(z->session, s->id, NULL);
}

/* The status that gRPC's HTTP/2 mapping gives to a call without trailers. */
static int status_of_http(int http)
{
	switch (http) {
	case 400: return ZONED_INTERNAL;
	case 401: return ZONED_UNAUTHENTICATED;
	case 403: return ZONED_PERMISSION_DENIED;
	case 404: return ZONED_UNIMPLEMENTED;
	case 429:
	case 502:
	case 503:
	case 504: return ZONED_UNAVAILABLE;
	default: return ZONED_UNKNOWN;
	}
}

static int status_of_reset(uint32_t h2_error)
{
	switch (h2_error) {
	case NGHTTP2_REFUSED_STREAM: return ZONED_UNAVAILABLE;
	case NGHTTP2_CANCEL: return ZONED_CANCELLED;
	case NGHTTP2_ENHANCE_YOUR_CALM: return ZONED_RESOURCE_EXHAUSTED;
	default: return ZONED_INTERNAL;
	}
}

void stream_on_close(struct zoned_stream *s, uint32_t h2_error)
{
	char reason[128];

	if (s->grpc_status > 0) {
		stream_finish(s, s->grpc_status, s->grpc_message ? s->grpc_message : "");
	} else if (s->grpc_status == 0) {
		if (bytes_length(&s->in))
			stream_finish(s, ZONED_PROTOCOL, "the last message is cut off");
		else
			stream_finish(s, ZONED_END, "");
	} else if (s->http_status > 0 && s->http_status != 200) {
		snprintf(reason, sizeof reason, "HTTP status %d", s->http_status);
		stream_finish(s, status_of_http(s->http_status), reason);
	} else {
		snprintf(reason, sizeof reason, "the stream was reset: %s",
			 nghttp2_http2_strerror(h2_error));
		stream_finish(s, status_of_reset(h2_error), reason);
	}
}

/* Ends a stream from this side. */
static void stream_cancel(struct zoned_stream *s, int result, const char *reason)
{
	if (s->over)
		return;
	nghttp2_submit_rst_stream(s->connection->session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_CANCEL);
	stream_finish(s, result, reason);
}

void streams_expire(struct zoned *z)
{
	struct zoned_stream *s = z->streams, *next;

	for (; s; s = next) {
		next = s->next;
		if (s->deadline_ns != UINT64_MAX && clock_left_ms(s->deadline_ns) == 0)
			stream_cancel(s, ZONED_DEADLINE_EXCEEDED,
				      "the time given to the call is over");
	}
}

/* ---- sending ---- */

static ssize_t read_out(nghttp2_session *session, int32_t stream_id, uint8_t *to, size_t length,
			uint32_t *flags, nghttp2_data_source *source, void *user)
{
	struct zoned_stream *s = source->ptr;
	size_t have = bytes_length(&s->out);

	(void)session;
	(void)stream_id;
	(void)user;
	if (have == 0 && !s->out_end) {
		s->out_paused = true;
		return NGHTTP2_ERR_DEFERRED;
	}
	if (length > have)
		length = have;
	if (length)
		memcpy(to, s->out.data + s->out.start, length);
	bytes_take(&s->out, length);
	if (s->out_end && bytes_length(&s->out) == 0)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)length;
}

static void resume_output(struct zoned_stream *s)
{
	if (s->out_paused && !s->over) {
		s->out_paused = false;
		nghttp2_session_resume_data(s->connection->session, s->id);
	}
}

static void put_prefix(uint8_t *to, size_t length)
{
	uint32_t big_endian = htonl((uint32_t)length);

	to[0] = 0;
	memcpy(to + 1, &big_endian, sizeof big_endian);
}

/* Room for a message of `length` bytes behind its prefix, or NULL. */
static uint8_t *message_room(struct zoned_stream *s, size_t length)
{
	uint8_t *to = bytes_reserve(&s->out, PREFIX + length);

	if (!to)
		return NULL;
	put_prefix(to, length);
	s->out.end += PREFIX + length;
	return to + PREFIX;
}

static int stream_result(struct zoned_stream *s)
{
	if (s->result == ZONED_END)
		return ZONED_END;
	return fail(s->connection, s->result, "%s", s->reason);
}

int zoned_stream_send(struct zoned_stream *s, const ProtobufCMessage *message)
{
	uint8_t *to;

	if (s->over)
		return stream_result(s);
	to = message_room(s, protobuf_c_message_get_packed_size(message));
	if (!to)
		return fail(s->connection, ZONED_NO_MEMORY, "out of memory");
	protobuf_c_message_pack(message, to);
	resume_output(s);
	return 0;
}

int zoned_stream_send_packed(struct zoned_stream *s, const void *bytes, size_t length)
{
	uint8_t *to;

	if (s->over)
		return stream_result(s);
	to = message_room(s, length);
	if (!to)
		return fail(s->connection, ZONED_NO_MEMORY, "out of memory");
	memcpy(to, bytes, length);
	resume_output(s);
	return 0;
}

int zoned_stream_end(struct zoned_stream *s)
{
	s->out_end = true;
	resume_output(s);
	return 0;
}

size_t zoned_stream_queued(const struct zoned_stream *s)
{
	return s->over ? 0 : bytes_length(&s->out) + bytes_length(&s->connection->out);
}

/* ---- open, receive, close ---- */

static nghttp2_nv header(const char *name, const char *value)
{
	return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name),
			    strlen(value), NGHTTP2_NV_FLAG_NONE};
}

/* grpc-timeout has at most eight digits; beyond that in seconds. */
static void format_timeout(char *to, size_t size, uint32_t timeout_ms)
{
	if (timeout_ms < 100000000)
		snprintf(to, size, "%um", timeout_ms);
	else
		snprintf(to, size, "%uS", timeout_ms / 1000);
}

static int submit(struct zoned_stream *s, const char *method, uint32_t timeout_ms)
{
	struct zoned *z = s->connection;
	nghttp2_data_provider body = {.source = {.ptr = s}, .read_callback = read_out};
	nghttp2_nv headers[9];
	char timeout[16];
	size_t n = 0;

	headers[n++] = header(":method", "POST");
	headers[n++] = header(":scheme", "http");
	headers[n++] = header(":path", method);
	headers[n++] = header(":authority", "localhost");
	headers[n++] = header("te", "trailers");
	headers[n++] = header("content-type", "application/grpc");
	headers[n++] = header("user-agent", "libzoned");
	if (timeout_ms != ZONED_NO_TIMEOUT) {
		format_timeout(timeout, sizeof timeout, timeout_ms);
		headers[n++] = header("grpc-timeout", timeout);
	}
	if (z->token) {
		headers[n] = header("authorization", z->token);
		/* Kept out of the compression table: it is a secret. */
		headers[n++].flags |= NGHTTP2_NV_FLAG_NO_INDEX;
	}
	s->id = nghttp2_submit_request(z->session, NULL, headers, n, &body, s);
	if (s->id < 0)
		return fail(z, ZONED_PROTOCOL, "cannot begin a call: %s", nghttp2_strerror(s->id));
	return 0;
}

int zoned_stream_open(struct zoned *z, const char *method,
		      const ProtobufCMessageDescriptor *reply_type, uint32_t timeout_ms,
		      struct zoned_stream **ret_stream)
{
	int rc = connection_ready(z);
	struct zoned_stream *s;

	if (rc)
		return rc;
	s = calloc(1, sizeof *s);
	if (!s)
		return fail(z, ZONED_NO_MEMORY, "out of memory");
	s->connection = z;
	s->reply_type = reply_type;
	s->deadline_ns = clock_deadline(timeout_ms);
	s->grpc_status = -1;
	s->end = &s->first;
	rc = submit(s, method, timeout_ms);
	if (rc) {
		free(s);
		return rc;
	}
	s->next = z->streams;
	s->link = &z->streams;
	if (s->next)
		s->next->link = &s->next;
	z->streams = s;
	*ret_stream = s;
	return 0;
}

static struct stream_message *take_first(struct zoned_stream *s)
{
	struct stream_message *m = s->first;

	s->first = m->next;
	if (!s->first)
		s->end = &s->first;
	give_window_back(s);
	return m;
}

int stream_receive(struct zoned_stream *s, uint32_t timeout_ms, struct stream_message **ret_bytes)
{
	uint64_t deadline = clock_deadline(timeout_ms);
	bool looked = false;

	for (;;) {
		uint32_t left;

		if (s->first) {
			*ret_bytes = take_first(s);
			return 0;
		}
		if (s->over)
			return stream_result(s);
		left = clock_left_ms(deadline);
		if (left == 0 && looked)
			return ZONED_AGAIN;
		/* What this returns is in s->result too, if it concerns this stream. */
		zoned_process(s->connection, left);
		looked = true;
	}
}

int zoned_stream_receive(struct zoned_stream *s, uint32_t timeout_ms,
			 ProtobufCMessage **ret_message)
{
	struct stream_message *m = NULL;
	ProtobufCMessage *message;
	int rc = stream_receive(s, timeout_ms, &m);

	if (!m)
		return rc;
	message = protobuf_c_message_unpack(s->reply_type, NULL, m->length, m->bytes);
	free(m);
	if (!message)
		return fail(s->connection, ZONED_PROTOCOL, "what came is not a %s",
			    s->reply_type->name);
	*ret_message = message;
	return 0;
}

void zoned_stream_close(struct zoned_stream *s)
{
	struct stream_message *m;

	if (!s)
		return;
	if (!s->over) {
		stream_cancel(s, ZONED_CANCELLED, "cancelled by this side");
		zoned_process(s->connection, 0);
	}
	while ((m = s->first)) {
		s->first = m->next;
		free(m);
	}
	bytes_free(&s->in);
	bytes_free(&s->out);
	free(s->grpc_message);
	free(s);
}
