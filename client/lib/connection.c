/*
 * connection.c - one HTTP/2 connection: the socket, nghttp2's session, the clock.
 *
 * Invariants:
 *  1. fd and session live and die together; `streams` holds exactly the streams of the
 *     session that are not over.
 *  2. nghttp2 is fed and drained only in connection_read() and connection_write(),
 *     never from a callback.
 *  3. When the connection dies every stream on it is over with ZONED_LOST before the
 *     function that noticed returns.
 *  4. Flow control is by hand: the connection's window is given back as bytes arrive,
 *     a stream's only when its reader has taken what is complete (stream.c).
 *
 * Not modelled: TLS, several connections behind one handle, server push.
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "client.h"

enum {
	CONNECT_TIMEOUT_MS = 5000,
	PATIENCE_MS = 30000,
	MAX_MESSAGE_BYTES = 64 << 20,
	STREAM_WINDOW = 1 << 20,
	CONNECTION_WINDOW = 16 << 20,
	READ_BYTES = 64 << 10,
};

uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t clock_deadline(uint32_t timeout_ms)
{
	if (timeout_ms == ZONED_NO_TIMEOUT)
		return UINT64_MAX;
	return clock_ns() + (uint64_t)timeout_ms * 1000000u;
}

uint32_t clock_left_ms(uint64_t deadline_ns)
{
	uint64_t now, left;

	if (deadline_ns == UINT64_MAX)
		return ZONED_NO_TIMEOUT;
	now = clock_ns();
	left = deadline_ns > now ? (deadline_ns - now + 999999) / 1000000 : 0;
	return left < ZONED_NO_TIMEOUT ? (uint32_t)left : ZONED_NO_TIMEOUT - 1;
}

uint8_t *bytes_reserve(struct bytes *b, size_t length)
{
	if (b->start == b->end)
		b->start = b->end = 0;
	if (b->capacity - b->end >= length)
		return b->data + b->end;
	if (b->start) {
		memmove(b->data, b->data + b->start, b->end - b->start);
		b->end -= b->start;
		b->start = 0;
	}
	if (b->capacity - b->end < length) {
		size_t capacity =
		    b->capacity * 2 > b->end + length ? b->capacity * 2 : b->end + length;
		uint8_t *data = realloc(b->data, capacity);

		if (!data)
			return NULL;
		b->data = data;
		b->capacity = capacity;
	}
	return b->data + b->end;
}

int bytes_append(struct bytes *b, const void *data, size_t length)
{
	uint8_t *to = bytes_reserve(b, length);

	if (!to)
		return ZONED_NO_MEMORY;
	memcpy(to, data, length);
	b->end += length;
	return 0;
}

void bytes_take(struct bytes *b, size_t length)
{
	b->start += length;
}

void bytes_free(struct bytes *b)
{
	free(b->data);
	*b = (struct bytes){0};
}

int fail(struct zoned *z, int code, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(z->error, sizeof z->error, format, ap);
	va_end(ap);
	return code;
}

static const char *const code_names[] = {
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
};

static const char *const failure_names[] = {
    "OK",	    "end of stream",   "nothing yet",
    "unreachable",  "connection lost", "protocol error",
    "bad argument", "out of memory",
};

const char *zoned_code_name(int code)
{
	if (code >= 0 && (size_t)code < sizeof code_names / sizeof *code_names)
		return code_names[code];
	if (code < 0 && (size_t)-code < sizeof failure_names / sizeof *failure_names)
		return failure_names[-code];
	return "unknown code";
}

/* ---- nghttp2's callbacks ---- */

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
		     size_t name_length, const uint8_t *value, size_t value_length, uint8_t flags,
		     void *user)
{
	struct zoned_stream *s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);

	(void)flags;
	(void)user;
	if (s)
		stream_on_header(s, name, name_length, value, value_length);
	return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *data,
		   size_t length, void *user)
{
	struct zoned_stream *s = nghttp2_session_get_stream_user_data(session, stream_id);

	(void)flags;
	(void)user;
	nghttp2_session_consume_connection(session, length);
	if (s && stream_on_data(s, data, length) < 0)
		nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream_id, NGHTTP2_CANCEL);
	return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t stream_id, uint32_t error_code,
			   void *user)
{
	struct zoned_stream *s = nghttp2_session_get_stream_user_data(session, stream_id);

	(void)user;
	if (s)
		stream_on_close(s, error_code);
	return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct zoned *z = user;

	(void)session;
	if (frame->hd.type == NGHTTP2_GOAWAY)
		z->goaway = true;
	return 0;
}

static int session_new(struct zoned *z)
{
	nghttp2_settings_entry settings[] = {
	    {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
	    {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
	};
	nghttp2_session_callbacks *callbacks = NULL;
	nghttp2_option *option = NULL;
	int rc = ZONED_NO_MEMORY;

	if (nghttp2_session_callbacks_new(&callbacks) || nghttp2_option_new(&option))
		goto out;
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
	nghttp2_option_set_no_auto_window_update(option, 1);
	if (nghttp2_session_client_new2(&z->session, callbacks, z, option))
		goto out;
	if (nghttp2_submit_settings(z->session, NGHTTP2_FLAG_NONE, settings, 2) ||
	    nghttp2_session_set_local_window_size(z->session, NGHTTP2_FLAG_NONE, 0,
						  CONNECTION_WINDOW))
		goto out;
	rc = 0;
out:
	if (rc)
		nghttp2_session_del(z->session);
	if (rc)
		z->session = NULL;
	nghttp2_option_del(option);
	nghttp2_session_callbacks_del(callbacks);
	return rc;
}

/* ---- the connection's life ---- */

static void connection_drop(struct zoned *z, const char *reason)
{
	while (z->streams)
		stream_finish(z->streams, ZONED_LOST, reason);
	nghttp2_session_del(z->session);
	z->session = NULL;
	if (z->fd >= 0)
		close(z->fd);
	z->fd = -1;
	z->goaway = z->deaf = false;
	z->out.start = z->out.end = 0;
}

static int connection_lost(struct zoned *z, const char *reason)
{
	connection_drop(z, reason);
	return fail(z, ZONED_LOST, "the connection to %s was lost: %s", z->address, reason);
}

static int connection_open(struct zoned *z)
{
	int fd = address_connect(z->address, z->connect_timeout_ms, z->error, sizeof z->error);

	if (fd < 0)
		return fd;
	z->fd = fd;
	if (session_new(z)) {
		connection_drop(z, "out of memory");
		return fail(z, ZONED_NO_MEMORY, "out of memory");
	}
	return 0;
}

/* Gives the socket whatever nghttp2 wants to send. */
static int connection_write(struct zoned *z)
{
	const uint8_t *data;
	ssize_t n;

	/* The end comes with the next read, and perhaps before it why. */
	if (z->deaf)
		return 0;
	for (;;) {
		while (bytes_length(&z->out) < READ_BYTES) {
			n = nghttp2_session_mem_send(z->session, &data);
			if (n < 0)
				return connection_lost(z, nghttp2_strerror((int)n));
			if (n == 0)
				break;
			if (bytes_append(&z->out, data, (size_t)n))
				return connection_lost(z, "out of memory");
		}
		if (bytes_length(&z->out) == 0)
			return 0;
		n = send(z->fd, z->out.data + z->out.start, bytes_length(&z->out), MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return 0;
		if (n < 0 && (errno == EPIPE || errno == ECONNRESET)) {
			z->deaf = true;
			return 0;
		}
		if (n < 0)
			return connection_lost(z, strerror(errno));
		bytes_take(&z->out, (size_t)n);
	}
}

/* Reads what has arrived, up to one buffer: a stream that is full of unread messages
 * is held back by its window, not by this. */
static int connection_read(struct zoned *z)
{
	uint8_t buffer[READ_BYTES];
	ssize_t n = recv(z->fd, buffer, sizeof buffer, 0);

	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return 0;
	if (n < 0)
		return connection_lost(z, strerror(errno));
	if (n == 0)
		return connection_lost(z, "the daemon closed it");
	n = nghttp2_session_mem_recv(z->session, buffer, (size_t)n);
	if (n < 0)
		return connection_lost(z, nghttp2_strerror((int)n));
	if (!nghttp2_session_want_read(z->session) && !nghttp2_session_want_write(z->session))
		return connection_lost(z, "the daemon ended it");
	return 0;
}

static uint32_t nearest_deadline_ms(const struct zoned *z, uint32_t timeout_ms)
{
	const struct zoned_stream *s;

	for (s = z->streams; s; s = s->next) {
		uint32_t left = clock_left_ms(s->deadline_ns);

		timeout_ms = left < timeout_ms ? left : timeout_ms;
	}
	return timeout_ms;
}

int zoned_process(struct zoned *z, uint32_t timeout_ms)
{
	struct pollfd p;
	int rc, n;

	if (z->fd < 0)
		return fail(z, ZONED_LOST, "not connected to %s", z->address);
	rc = connection_write(z);
	if (rc)
		return rc;
	p = (struct pollfd){.fd = z->fd, .events = zoned_poll_events(z)};
	timeout_ms = nearest_deadline_ms(z, timeout_ms);
	n = poll(&p, 1, timeout_ms > INT32_MAX ? -1 : (int)timeout_ms);
	if (n < 0 && errno != EINTR)
		return connection_lost(z, strerror(errno));
	if (n > 0) {
		rc = connection_read(z);
		if (rc)
			return rc;
	}
	streams_expire(z);
	return connection_write(z);
}

int connection_ready(struct zoned *z)
{
	if (z->fd >= 0 && !z->streams) {
		/* The daemon may have gone away while nobody looked. */
		connection_read(z);
		if (z->fd >= 0 && z->goaway)
			connection_drop(z, "the daemon is shutting down");
	}
	if (z->fd < 0)
		return connection_open(z);
	if (z->goaway)
		return fail(z, ZONED_UNAVAILABLE, "the daemon at %s is shutting down", z->address);
	return 0;
}

/* "Bearer TOKEN" from the first line of a file; NULL and a sentence on failure. */
static char *token_from_file(const char *path, char *err, size_t err_size)
{
	char line[512], *token = NULL;
	size_t length;
	FILE *f = fopen(path, "re");

	if (!f) {
		snprintf(err, err_size, "cannot read the token file %s: %s", path, strerror(errno));
		return NULL;
	}
	if (!fgets(line, sizeof line, f))
		line[0] = '\0';
	length = strcspn(line, "\r\n");
	if (length == 0 || (line[length] == '\0' && !feof(f)))
		snprintf(err, err_size,
			 "the first line of the token file %s is not a token (1 to %zu bytes)",
			 path, sizeof line - 2);
	else if (asprintf(&token, "Bearer %.*s", (int)length, line) < 0)
		token = NULL;
	fclose(f);
	return token;
}

static int choose_token(struct zoned *z, const struct zoned_options *o, char *err, size_t err_size)
{
	const char *file = o->token_file ? o->token_file : getenv("ZONED_TOKEN_FILE");

	if (o->token)
		return asprintf(&z->token, "Bearer %s", o->token) < 0 ? ZONED_NO_MEMORY : 0;
	if (!file || !*file)
		return 0;
	z->token = token_from_file(file, err, err_size);
	return z->token ? 0 : ZONED_ARGUMENT;
}

int zoned_connect(const struct zoned_options *options, struct zoned **ret_connection, char *err,
		  size_t err_size)
{
	static const struct zoned_options defaults;
	const struct zoned_options *o = options ? options : &defaults;
	struct zoned *z = calloc(1, sizeof *z);
	int rc = ZONED_NO_MEMORY;

	if (!z)
		goto out;
	z->fd = -1;
	z->connect_timeout_ms = o->connect_timeout_ms ? o->connect_timeout_ms : CONNECT_TIMEOUT_MS;
	z->max_message_bytes = o->max_message_bytes ? o->max_message_bytes : MAX_MESSAGE_BYTES;
	z->patience_ms = o->patience_ms ? o->patience_ms : PATIENCE_MS;
	strcpy(z->error, "out of memory");
	z->address = o->address ? strdup(o->address) : address_default();
	if (!z->address)
		goto out;
	rc = choose_token(z, o, z->error, sizeof z->error);
	if (!rc)
		rc = connection_open(z);
out:
	if (rc && err)
		snprintf(err, err_size, "%s", z ? z->error : "out of memory");
	if (rc)
		zoned_close(z);
	else
		*ret_connection = z;
	return rc;
}

void zoned_close(struct zoned *z)
{
	if (!z)
		return;
	if (z->fd >= 0 && nghttp2_submit_goaway(z->session, NGHTTP2_FLAG_NONE, 0, 0, NULL, 0) == 0)
		connection_write(z);
	connection_drop(z, "closed by this side");
	bytes_free(&z->out);
	free(z->address);
	free(z->token);
	free(z);
}

const char *zoned_address(const struct zoned *z)
{
	return z->address;
}

const char *zoned_error(const struct zoned *z)
{
	return z->error;
}

int zoned_fd(const struct zoned *z)
{
	return z->fd;
}

short zoned_poll_events(const struct zoned *z)
{
	bool write = z->session && !z->deaf &&
		     (bytes_length(&z->out) || nghttp2_session_want_write(z->session));

	return (short)(POLLIN | (write ? POLLOUT : 0));
}

uint64_t zoned_token(void)
{
	uint64_t token = 0;

	/* 0 means "no token", so it is drawn again. The kernel answers eight bytes whole. */
	while (token == 0)
		if (getrandom(&token, sizeof token, 0) != sizeof token)
			token = 0;
	return token;
}
