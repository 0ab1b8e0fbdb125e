/*
 * h2client.c - an HTTP/2 client for tests, in the same thread as the server.
 */
#include "h2client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FRAME_MAX = 16384, QUIET_ROUNDS = 3 };

static void die(const char *what)
{
	perror(what);
	abort();
}

void h2_bytes_add(struct h2_bytes *b, const void *bytes, size_t length)
{
	if (b->length + length > b->room) {
		b->room = (b->length + length) * 2;
		b->at = realloc(b->at, b->room);
		if (!b->at)
			die("realloc");
	}
	if (length)
		memcpy(b->at + b->length, bytes, length);
	b->length += length;
}

void h2_bytes_free(struct h2_bytes *b)
{
	free(b->at);
	*b = (struct h2_bytes){0};
}

static int connect_unix(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)))
		die(path);
	return fd;
}

static int connect_tcp(const char *text)
{
	struct sockaddr_in address;
	char host[64];
	int port, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (sscanf(text, "%63[^:]:%d", host, &port) != 2 || uv_ip4_addr(host, port, &address) ||
	    fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)))
		die(text);
	return fd;
}

void h2_connect(struct h2_client *c, uv_loop_t *loop, const char *address)
{
	memset(c, 0, sizeof(*c));
	c->loop = loop;
	c->connection_window = c->initial_window = 65535;
	c->fd =
	    strncmp(address, "unix:", 5) == 0 ? connect_unix(address + 5) : connect_tcp(address);
	if (nghttp2_hd_inflate_new(&c->inflater))
		die("inflater");
}

void h2_close(struct h2_client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	nghttp2_hd_inflate_del(c->inflater);
	c->inflater = NULL;
	for (size_t i = 0; i < c->nr_streams; i++)
		h2_bytes_free(&c->streams[i].data);
	free(c->streams);
	c->streams = NULL;
	c->nr_streams = 0;
	h2_bytes_free(&c->in);
}

struct h2_stream *h2_stream(struct h2_client *c, uint32_t stream)
{
	size_t i = (stream - 1) / 2;

	if (i >= c->nr_streams) {
		size_t n = i * 2 + 16;

		c->streams = realloc(c->streams, n * sizeof(*c->streams));
		if (!c->streams)
			die("realloc");
		memset(c->streams + c->nr_streams, 0, (n - c->nr_streams) * sizeof(*c->streams));
		for (size_t k = c->nr_streams; k < n; k++) {
			c->streams[k].grpc_status = -1;
			c->streams[k].window = c->initial_window;
		}
		c->nr_streams = n;
	}
	return &c->streams[i];
}

/* ---- what the server says ---- */

static uint32_t be32(const uint8_t *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void decode_message(const char *text, size_t length, char *out, size_t room)
{
	size_t n = 0;

	for (size_t i = 0; i < length && n + 1 < room; i++) {
		unsigned byte;

		if (text[i] == '%' && i + 2 < length && sscanf(text + i + 1, "%2x", &byte) == 1) {
			out[n++] = (char)byte;
			i += 2;
		} else {
			out[n++] = text[i];
		}
	}
	out[n] = '\0';
}

static void take_header(struct h2_stream *s, const nghttp2_nv *nv)
{
	char name[64], value[64];

	snprintf(name, sizeof(name), "%.*s", (int)nv->namelen, (const char *)nv->name);
	snprintf(value, sizeof(value), "%.*s", (int)nv->valuelen, (const char *)nv->value);
	if (strcmp(name, ":status") == 0)
		s->http_status = atoi(value);
	else if (strcmp(name, "grpc-status") == 0)
		s->grpc_status = atoi(value);
	else if (strcmp(name, "content-type") == 0)
		strcpy(s->content_type, value);
	else if (strcmp(name, "grpc-message") == 0)
		decode_message((const char *)nv->value, nv->valuelen, s->message,
			       sizeof(s->message));
}

static void take_headers(struct h2_client *c, struct h2_stream *s, const uint8_t *at, size_t length)
{
	s->headers++;
	for (;;) {
		nghttp2_nv nv;
		int flags = 0;
		ssize_t n = nghttp2_hd_inflate_hd2(c->inflater, &nv, &flags, at, length, 1);

		if (n < 0)
			die("inflate");
		at += n;
		length -= (size_t)n;
		if (flags & NGHTTP2_HD_INFLATE_EMIT)
			take_header(s, &nv);
		if (flags & NGHTTP2_HD_INFLATE_FINAL)
			break;
		if (!(flags & NGHTTP2_HD_INFLATE_EMIT) && !length)
			break;
	}
	nghttp2_hd_inflate_end_headers(c->inflater);
}

static void take_data(struct h2_client *c, uint32_t stream, const uint8_t *at, size_t length)
{
	struct h2_stream *s = h2_stream(c, stream);

	s->data_frames++;
	s->empty_data_frames += !length;
	h2_bytes_add(&s->data, at, length);
	c->received += length;
	if (!c->keep_windows && length) {
		h2_window(c, 0, (uint32_t)length);
		h2_window(c, stream, (uint32_t)length);
	}
}

static void take_settings(struct h2_client *c, const uint8_t *at, size_t length)
{
	c->settings++;
	for (; length >= 6; at += 6, length -= 6) {
		if (at[0] == 0 && at[1] == NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE)
			c->initial_window = be32(at + 2);
	}
}

static void take_frame(struct h2_client *c, uint8_t type, uint8_t flags, uint32_t stream,
		       const uint8_t *at, size_t length)
{
	struct h2_bytes out = {0};

	switch (type) {
	case NGHTTP2_DATA: take_data(c, stream, at, length); break;
	case NGHTTP2_HEADERS: take_headers(c, h2_stream(c, stream), at, length); break;
	case NGHTTP2_RST_STREAM:
		h2_stream(c, stream)->resets++;
		h2_stream(c, stream)->reset_code = be32(at);
		break;
	case NGHTTP2_SETTINGS:
		if (flags & NGHTTP2_FLAG_ACK)
			break;
		take_settings(c, at, length);
		if (!c->no_settings_ack)
			h2_frame(&out, NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0, NULL, 0);
		break;
	case NGHTTP2_PING:
		if (flags & NGHTTP2_FLAG_ACK) {
			c->ping_acks++;
		} else {
			c->pings++;
			if (!c->no_ping_ack)
				h2_frame(&out, NGHTTP2_PING, NGHTTP2_FLAG_ACK, 0, at, length);
		}
		break;
	case NGHTTP2_GOAWAY:
		c->goaways++;
		c->goaway_last = be32(at);
		c->goaway_code = be32(at + 4);
		break;
	case NGHTTP2_WINDOW_UPDATE:
		*(stream ? &h2_stream(c, stream)->window : &c->connection_window) += be32(at);
		break;
	default: break;
	}
	if ((type == NGHTTP2_DATA || type == NGHTTP2_HEADERS) && (flags & NGHTTP2_FLAG_END_STREAM))
		h2_stream(c, stream)->ended = true;
	h2_write(c, out.at, out.length);
	h2_bytes_free(&out);
}

static void take_frames(struct h2_client *c)
{
	struct h2_bytes in = c->in;
	size_t at = 0;

	/* Answers to frames may read more, so the buffer is ours while we walk it. */
	c->in = (struct h2_bytes){0};
	while (in.length - at >= 9) {
		const uint8_t *f = in.at + at;
		size_t length = (size_t)f[0] << 16 | (size_t)f[1] << 8 | f[2];

		if (in.length - at < 9 + length)
			break;
		take_frame(c, f[3], f[4], be32(f + 5) & 0x7fffffff, f + 9, length);
		at += 9 + length;
	}
	if (c->in.length || at < in.length) {
		struct h2_bytes rest = {0};

		h2_bytes_add(&rest, in.at + at, in.length - at);
		h2_bytes_add(&rest, c->in.at, c->in.length);
		h2_bytes_free(&c->in);
		c->in = rest;
	}
	h2_bytes_free(&in);
}

/* Reads what is there. Returns whether anything was. */
static bool read_some(struct h2_client *c)
{
	uint8_t bytes[65536];
	bool any = false;

	while (c->fd >= 0 && !c->eof) {
		ssize_t n = recv(c->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		any = true;
		if (n <= 0)
			c->eof = true;
		else
			h2_bytes_add(&c->in, bytes, (size_t)n);
	}
	return any;
}

void h2_pump(struct h2_client *c)
{
	for (int quiet = 0; quiet < QUIET_ROUNDS;) {
		uv_run(c->loop, UV_RUN_NOWAIT);
		quiet = read_some(c) ? 0 : quiet + 1;
		take_frames(c);
	}
}

void h2_wait(struct h2_client *c, const bool *flag)
{
	for (h2_pump(c); !*flag; h2_pump(c)) {
		struct pollfd fds[] = {{.fd = c->eof ? -1 : c->fd, .events = POLLIN},
				       {.fd = uv_backend_fd(c->loop), .events = POLLIN}};

		poll(fds, 2, uv_backend_timeout(c->loop));
	}
}

/* ---- what we say ---- */

bool h2_write(struct h2_client *c, const void *bytes, size_t length)
{
	const uint8_t *at = bytes;

	while (length) {
		ssize_t n = send(c->fd, at, length, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN) {
			uv_run(c->loop, UV_RUN_NOWAIT);
			read_some(c);
			continue;
		}
		if (n < 0)
			return false;
		at += n;
		length -= (size_t)n;
	}
	return true;
}

void h2_start(struct h2_client *c, uint16_t setting, uint32_t value)
{
	struct h2_bytes out = {0};
	uint8_t entry[6] = {(uint8_t)(setting >> 8), (uint8_t)setting,	    (uint8_t)(value >> 24),
			    (uint8_t)(value >> 16),  (uint8_t)(value >> 8), (uint8_t)value};

	h2_bytes_add(&out, NGHTTP2_CLIENT_MAGIC, NGHTTP2_CLIENT_MAGIC_LEN);
	h2_frame(&out, NGHTTP2_SETTINGS, 0, 0, entry, setting ? 6 : 0);
	h2_write(c, out.at, out.length);
	h2_bytes_free(&out);
}

void h2_frame(struct h2_bytes *out, uint8_t type, uint8_t flags, uint32_t stream,
	      const void *payload, size_t length)
{
	uint8_t head[9] = {(uint8_t)(length >> 16),
			   (uint8_t)(length >> 8),
			   (uint8_t)length,
			   type,
			   flags,
			   (uint8_t)(stream >> 24),
			   (uint8_t)(stream >> 16),
			   (uint8_t)(stream >> 8),
			   (uint8_t)stream};

	h2_bytes_add(out, head, sizeof(head));
	h2_bytes_add(out, payload, length);
}

/* HPACK's integer with a prefix of 7 bits, the eighth zero (no Huffman coding). */
static void put_string(struct h2_bytes *out, const char *text)
{
	size_t n = strlen(text);
	uint8_t byte;

	if (n < 127) {
		byte = (uint8_t)n;
		h2_bytes_add(out, &byte, 1);
	} else {
		size_t rest = n - 127;

		byte = 127;
		h2_bytes_add(out, &byte, 1);
		do {
			byte = (uint8_t)((rest & 127) | (rest > 127 ? 128 : 0));
			h2_bytes_add(out, &byte, 1);
			rest >>= 7;
		} while (rest);
	}
	h2_bytes_add(out, text, n);
}

void h2_put_headers(struct h2_bytes *out, uint32_t stream, uint8_t flags,
		    const struct h2_header *headers, size_t n)
{
	struct h2_bytes block = {0};
	const uint8_t literal = 0; /* without indexing, new name */
	size_t at = 0;

	for (size_t i = 0; i < n; i++) {
		h2_bytes_add(&block, &literal, 1);
		put_string(&block, headers[i].name);
		put_string(&block, headers[i].value);
	}
	do {
		size_t part = block.length - at < FRAME_MAX ? block.length - at : FRAME_MAX;
		uint8_t end = at + part == block.length ? NGHTTP2_FLAG_END_HEADERS : 0;

		h2_frame(out, at ? NGHTTP2_CONTINUATION : NGHTTP2_HEADERS,
			 (uint8_t)((at ? 0 : flags) | end), stream, block.at + at, part);
		at += part;
	} while (at < block.length);
	h2_bytes_free(&block);
}

void h2_request(struct h2_client *c, uint32_t stream, const char *path,
		const struct h2_header *extra)
{
	struct h2_bytes out = {0};
	struct h2_header headers[32] = {
	    {":method", "POST"},	 {":scheme", "http"}, {":path", path},
	    {":authority", "localhost"}, {"te", "trailers"},  {"content-type", "application/grpc"},
	};
	size_t n = 6;

	for (; extra && extra->name; extra++)
		headers[n++] = *extra;
	h2_put_headers(&out, stream, 0, headers, n);
	h2_write(c, out.at, out.length);
	h2_bytes_free(&out);
}

void h2_data(struct h2_client *c, uint32_t stream, uint8_t flags, const void *bytes, size_t length)
{
	struct h2_bytes out = {0};

	h2_frame(&out, NGHTTP2_DATA, flags, stream, bytes, length);
	c->connection_window -= (int64_t)length;
	if (stream & 1)
		h2_stream(c, stream)->window -= (int64_t)length;
	h2_write(c, out.at, out.length);
	h2_bytes_free(&out);
}

/* How much of one frame may be sent now. */
static size_t allowance(struct h2_client *c, uint32_t stream, size_t want)
{
	int64_t window = h2_stream(c, stream)->window;

	if (window > c->connection_window)
		window = c->connection_window;
	return window <= 0 ? 0 : (size_t)window < want ? (size_t)window : want;
}

static size_t put_message(struct h2_client *c, uint32_t stream, uint8_t flags, const void *bytes,
			  size_t length, bool obey)
{
	struct h2_bytes framed = {0};
	const uint8_t prefix[5] = {0, (uint8_t)(length >> 24), (uint8_t)(length >> 16),
				   (uint8_t)(length >> 8), (uint8_t)length};
	size_t at = 0;

	h2_bytes_add(&framed, prefix, 5);
	h2_bytes_add(&framed, bytes, length);
	while (at < framed.length) {
		size_t part = framed.length - at < FRAME_MAX ? framed.length - at : FRAME_MAX;

		if (obey && !allowance(c, stream, part)) {
			h2_pump(c);
			if (!allowance(c, stream, part))
				break;
		}
		if (obey)
			part = allowance(c, stream, part);
		h2_data(c, stream, at + part == framed.length ? flags : 0, framed.at + at, part);
		at += part;
	}
	at = framed.length - at;
	h2_bytes_free(&framed);
	return at;
}

void h2_message(struct h2_client *c, uint32_t stream, uint8_t flags, const void *bytes,
		size_t length)
{
	put_message(c, stream, flags, bytes, length, false);
}

size_t h2_message_obey(struct h2_client *c, uint32_t stream, uint8_t flags, const void *bytes,
		       size_t length)
{
	return put_message(c, stream, flags, bytes, length, true);
}

void h2_reset(struct h2_client *c, uint32_t stream, uint32_t code)
{
	struct h2_bytes out = {0};
	const uint8_t payload[4] = {(uint8_t)(code >> 24), (uint8_t)(code >> 16),
				    (uint8_t)(code >> 8), (uint8_t)code};

	h2_frame(&out, NGHTTP2_RST_STREAM, 0, stream, payload, 4);
	h2_write(c, out.at, out.length);
	h2_bytes_free(&out);
}

void h2_window(struct h2_client *c, uint32_t stream, uint32_t increment)
{
	struct h2_bytes out = {0};
	const uint8_t payload[4] = {(uint8_t)(increment >> 24), (uint8_t)(increment >> 16),
				    (uint8_t)(increment >> 8), (uint8_t)increment};

	h2_frame(&out, NGHTTP2_WINDOW_UPDATE, 0, stream, payload, 4);
	h2_write(c, out.at, out.length);
	h2_bytes_free(&out);
}
