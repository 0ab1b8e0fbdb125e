/*
 * connection.c - one client: bytes of its socket in and out of an nghttp2 session.
 *
 * In:  read_cb -> nghttp2_session_mem_recv -> the callbacks below -> call.c.
 * Out: net_flush -> connection_flush: the session's frames are gathered in the server's
 *      one scratch buffer and leave in one write. Only what the socket did not take is
 *      copied for the connection, and until that is gone the session is not asked for
 *      more. So a client that does not read costs one scratch buffer and what its calls
 *      have queued.
 *
 * Invariants:
 *  1. `queued` is the sum of its calls' out buffers and of `unsent_length`;
 *     `unfinished` the sum of their in buffers.
 *  2. session != NULL until the end begins; without a session there are no calls and the
 *     connection is not in the dirty list.
 *  3. `unconsumed` is zero unless `held`.
 *
 * The end: a session that wants neither to read nor to write has said goodbye (GOAWAY).
 * Closing at once could destroy our last words together with what the client sent
 * meanwhile, so the connection shuts down its sending side and discards input until the
 * client closes too, or LINGER_MS passed.
 *
 * Not modelled: TLS, HTTP/1 upgrade, priorities, server push.
 */
#include "internal.h"

#include <string.h>

/* An empty SETTINGS, then GOAWAY(last stream 0, ENHANCE_YOUR_CALM): one client too many. */
static const uint8_t refusal[] = {0,
				  0,
				  0,
				  NGHTTP2_SETTINGS,
				  0,
				  0,
				  0,
				  0,
				  0,
				  0,
				  0,
				  8,
				  NGHTTP2_GOAWAY,
				  0,
				  0,
				  0,
				  0,
				  0,
				  0,
				  0,
				  0,
				  0,
				  0,
				  0,
				  0,
				  NGHTTP2_ENHANCE_YOUR_CALM};

/* ---- the end of a connection ---- */

static void end_session(struct net_connection *c, enum net_end end)
{
	struct net_call *call;

	if (!c->session)
		return;
	while ((call = LIST_FIRST(&c->calls)))
		call_free(call, end);
	if (c->dirty)
		TAILQ_REMOVE(&c->server->dirty, c, dirty_link);
	c->dirty = false;
	nghttp2_session_del(c->session);
	c->session = NULL;
}

static void closed_cb(uv_handle_t *handle)
{
	struct net_connection *c = NET_CONTAINER(handle, struct net_connection, handle);
	struct net_server *server = c->server;

	TAILQ_REMOVE(&server->connections, c, link);
	server->stats.connections--;
	pool_free(&server->pool, c->unsent);
	free(c);
	server_connection_gone(server);
	server_handle_closed(server);
}

void connection_close(struct net_connection *c)
{
	if (c->closing)
		return;
	NET_CHECK(!c->receiving);
	end_session(c, NET_END_DISCONNECTED);
	timeouts_cancel(&c->server->timeouts, &c->timeout);
	c->closing = true;
	uv_close(&c->handle, closed_cb);
}

static void linger_over(struct timeout *timeout)
{
	connection_close(NET_CONTAINER(timeout, struct net_connection, timeout));
}

static void shutdown_cb(uv_shutdown_t *request, int status)
{
	/* Nobody listens any more. If we are closing already, that is why it failed. */
	if (status < 0)
		connection_close(NET_CONTAINER(request, struct net_connection, shutdown));
}

static void linger(struct net_connection *c)
{
	end_session(c, NET_END_DISCONNECTED);
	if (uv_shutdown(&c->shutdown, &c->stream, shutdown_cb) != 0) {
		connection_close(c);
		return;
	}
	timeouts_set(&c->server->timeouts, &c->timeout, uv_hrtime() + LINGER_MS * NS_PER_MS,
		     linger_over);
}

void connection_drain(struct net_connection *c)
{
	if (!c->session || c->draining)
		return;
	c->draining = true;
	/* The answer to the ping proves that the client has seen the notice. */
	nghttp2_submit_shutdown_notice(c->session);
	nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, NULL);
	server_mark_dirty(c);
}

static void idle_over(struct timeout *timeout)
{
	struct net_connection *c = NET_CONTAINER(timeout, struct net_connection, timeout);
	struct net_server *server = c->server;
	uint64_t idle = server->options.limits.idle_seconds * NS_PER_SECOND, now = uv_hrtime();

	if (c->nr_calls || c->idle_since + idle > now) {
		timeouts_set(&server->timeouts, timeout, (c->nr_calls ? now : c->idle_since) + idle,
			     idle_over);
		return;
	}
	/* The second time round the client has ignored our goodbye. */
	if (c->draining) {
		connection_close(c);
		return;
	}
	connection_drain(c);
	timeouts_set(&server->timeouts, timeout, now + idle, idle_over);
	server_wake(server);
}

/* ---- output ---- */

static void write_cb(uv_write_t *request, int status)
{
	struct net_connection *c = NET_CONTAINER(request, struct net_connection, write);

	c->writing = false;
	c->queued -= c->unsent_length;
	c->unsent_length = 0;
	pool_free(&c->server->pool, c->unsent);
	c->unsent = NULL;
	if (c->closing)
		return;
	if (status < 0) {
		connection_close(c);
	} else {
		server_mark_dirty(c);
	}
	server_wake(c->server);
}

/* Sends the scratch buffer. False: the connection is broken. */
static bool write_scratch(struct net_connection *c)
{
	struct net_server *server = c->server;
	size_t used = server->scratch_used, taken;
	uv_buf_t buf = uv_buf_init((char *)server->scratch, (unsigned)used);
	int rc = uv_try_write(&c->stream, &buf, 1);

	if (rc < 0 && rc != UV_EAGAIN)
		return false;
	taken = rc < 0 ? 0 : (size_t)rc;
	server->stats.bytes_out += used;
	if (taken == used)
		return true;
	c->unsent_length = used - taken;
	c->unsent = pool_alloc(&server->pool, c->unsent_length);
	memcpy(c->unsent, server->scratch + taken, c->unsent_length);
	c->queued += c->unsent_length;
	c->writing = true;
	buf = uv_buf_init((char *)c->unsent, (unsigned)c->unsent_length);
	return uv_write(&c->write, &c->stream, &buf, 1, write_cb) == 0;
}

/* Gathers frames. 1: the scratch is full and there is more; 0: that was all; -1: broken. */
static int fill_scratch(struct net_connection *c)
{
	struct net_server *server = c->server;

	server->scratch_used = 0;
	c->pause_fill = false;
	while (WRITE_BYTES - server->scratch_used >= WRITE_SPARE) {
		const uint8_t *bytes;
		ssize_t n = nghttp2_session_mem_send(c->session, &bytes);

		if (n < 0)
			return -1;
		if (n == 0)
			return c->pause_fill;
		NET_CHECK((size_t)n <= WRITE_BYTES - server->scratch_used);
		memcpy(server->scratch + server->scratch_used, bytes, (size_t)n);
		server->scratch_used += (size_t)n;
	}
	return 1;
}

void connection_flush(struct net_connection *c)
{
	int more = 1;

	while (more && !c->writing) {
		more = fill_scratch(c);
		if (more < 0 || (c->server->scratch_used && !write_scratch(c))) {
			connection_close(c);
			return;
		}
	}
	connection_update_window(c);
	if (!c->writing && !nghttp2_session_want_read(c->session) &&
	    !nghttp2_session_want_write(c->session))
		linger(c);
}

void connection_update_window(struct net_connection *c)
{
	const struct net_limits *limits = &c->server->options.limits;

	if (!c->held) {
		c->held = c->queued > limits->output_bytes;
		return;
	}
	if (c->queued >= limits->output_low)
		return;
	c->held = false;
	nghttp2_session_consume_connection(c->session, c->unconsumed);
	c->unconsumed = 0;
	server_mark_dirty(c);
}

/* ---- input ---- */

static void alloc_cb(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
	struct net_connection *c = NET_CONTAINER(handle, struct net_connection, handle);

	(void)suggested;
	/* libuv reads and calls read_cb before it asks again, so one buffer serves all. */
	*ret = uv_buf_init((char *)c->server->read_buffer, READ_BYTES);
}

static void read_cb(uv_stream_t *stream, ssize_t nread, const uv_buf_t *buf)
{
	struct net_connection *c = NET_CONTAINER(stream, struct net_connection, stream);
	struct net_server *server = c->server;
	ssize_t rc;

	if (nread == 0)
		return;
	if (nread < 0) {
		connection_close(c);
		server_wake(server);
		return;
	}
	server->stats.bytes_in += (uint64_t)nread;
	if (!c->session)
		return;
	c->receiving = true;
	rc = nghttp2_session_mem_recv(c->session, (const uint8_t *)buf->base, (size_t)nread);
	c->receiving = false;
	/* What the library can explain to the client is a GOAWAY in its queue and no error. */
	if (rc < 0)
		connection_close(c);
	else
		server_mark_dirty(c);
	server_wake(server);
}

static struct net_call *call_of(nghttp2_session *session, int32_t stream)
{
	return nghttp2_session_get_stream_user_data(session, stream);
}

static int begin_headers_cb(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct net_connection *c = user;

	c->parsing = NULL;
	if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
		c->parsing = call_new(c, frame->hd.stream_id);
		nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, c->parsing);
	}
	return 0;
}

static int header_cb(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
		     size_t name_length, const uint8_t *value, size_t value_length, uint8_t flags,
		     void *user)
{
	struct net_connection *c = user;

	(void)session, (void)frame, (void)flags;
	/* Trailers of a request mean nothing in gRPC. */
	if (c->parsing)
		call_header(c->parsing, name, name_length, value, value_length);
	return 0;
}

static int frame_recv_cb(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct net_connection *c = user;
	struct net_call *call;

	switch (frame->hd.type) {
	case NGHTTP2_HEADERS:
		if (frame->headers.cat == NGHTTP2_HCAT_REQUEST && c->parsing) {
			call = c->parsing;
			c->parsing = NULL;
			call_begin(call);
		}
		break;
	case NGHTTP2_PING:
		if (c->draining && (frame->hd.flags & NGHTTP2_FLAG_ACK))
			nghttp2_submit_goaway(session, NGHTTP2_FLAG_NONE,
					      nghttp2_session_get_last_proc_stream_id(session),
					      NGHTTP2_NO_ERROR, NULL, 0);
		return 0;
	case NGHTTP2_DATA: break;
	default: return 0;
	}
	call = call_of(session, frame->hd.stream_id);
	if (call && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
		call_end_stream(call);
	return 0;
}

static int data_chunk_cb(nghttp2_session *session, uint8_t flags, int32_t stream,
			 const uint8_t *bytes, size_t length, void *user)
{
	struct net_connection *c = user;
	struct net_call *call = call_of(session, stream);

	(void)flags;
	if (call)
		call_data(call, bytes, length);
	connection_update_window(c);
	if (c->held)
		c->unconsumed += length;
	else
		nghttp2_session_consume_connection(session, length);
	return 0;
}

static int stream_close_cb(nghttp2_session *session, int32_t stream, uint32_t code, void *user)
{
	struct net_connection *c = user;
	struct net_call *call = call_of(session, stream);

	(void)code;
	if (!call)
		return 0;
	if (c->parsing == call)
		c->parsing = NULL;
	nghttp2_session_set_stream_user_data(session, stream, NULL);
	call_free(call, NET_END_CANCELLED);
	return 0;
}

static int frame_send_cb(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct net_call *call;

	(void)user;
	if (frame->hd.type != NGHTTP2_HEADERS || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
		return 0;
	call = call_of(session, frame->hd.stream_id);
	if (call)
		call_answered(call);
	return 0;
}

static int send_data_cb(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *header,
			size_t length, nghttp2_data_source *source, void *user)
{
	struct net_connection *c = user;

	(void)session, (void)frame;
	call_take_output(source->ptr, header, length);
	/* Room for a whole frame is promised to the next one, so stop while there is. */
	c->pause_fill = WRITE_BYTES - c->server->scratch_used < WRITE_SPARE;
	return c->pause_fill ? NGHTTP2_ERR_PAUSE : 0;
}

nghttp2_session_callbacks *connection_callbacks_new(void)
{
	nghttp2_session_callbacks *cb;

	if (nghttp2_session_callbacks_new(&cb))
		return NULL;
	nghttp2_session_callbacks_set_on_begin_headers_callback(cb, begin_headers_cb);
	nghttp2_session_callbacks_set_on_header_callback(cb, header_cb);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, frame_recv_cb);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, data_chunk_cb);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, stream_close_cb);
	nghttp2_session_callbacks_set_on_frame_send_callback(cb, frame_send_cb);
	nghttp2_session_callbacks_set_send_data_callback(cb, send_data_cb);
	return cb;
}

/* ---- the beginning ---- */

static bool start_session(struct net_connection *c)
{
	struct net_server *server = c->server;
	const nghttp2_settings_entry settings[] = {
	    {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, server->options.limits.streams},
	    {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
	    {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HEADER_BYTES},
	};

	return nghttp2_session_server_new3(&c->session, server->callbacks, c,
					   server->session_options, &server->mem) == 0 &&
	       nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings,
				       sizeof(settings) / sizeof(settings[0])) == 0 &&
	       nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0,
						     CONNECTION_WINDOW) == 0;
}

static void refuse(struct net_connection *c)
{
	uv_buf_t buf = uv_buf_init((char *)refusal, sizeof(refusal));

	c->server->stats.refused++;
	uv_try_write(&c->stream, &buf, 1);
	connection_close(c);
}

static struct net_connection *connection_new(struct net_server *server, bool is_tcp)
{
	struct net_connection *c = calloc(1, sizeof(*c));

	/* A connection that is not accepted would keep libuv from listening for ever. */
	if (!c)
		abort();
	c->server = server;
	c->is_tcp = is_tcp;
	c->client = ++server->next_client;
	c->idle_since = uv_hrtime();
	LIST_INIT(&c->calls);
	if (is_tcp)
		uv_tcp_init(server->loop, &c->tcp);
	else
		uv_pipe_init(server->loop, &c->pipe, 0);
	server->open_handles++;
	server->stats.connections++;
	server->stats.connections_total++;
	TAILQ_INSERT_TAIL(&server->connections, c, link);
	return c;
}

void connection_accept(struct net_listener *listener)
{
	struct net_server *server = listener->server;
	const struct net_limits *limits = &server->options.limits;
	struct net_connection *c = connection_new(server, listener->is_tcp);

	if (uv_accept(&listener->stream, &c->stream) != 0) {
		connection_close(c);
		return;
	}
	if (server->stats.connections > limits->connections) {
		refuse(c);
		return;
	}
	if (c->is_tcp)
		uv_tcp_nodelay(&c->tcp, 1);
	if (!start_session(c) || uv_read_start(&c->stream, alloc_cb, read_cb) != 0) {
		connection_close(c);
		return;
	}
	if (limits->idle_seconds)
		timeouts_set(&server->timeouts, &c->timeout,
			     c->idle_since + limits->idle_seconds * NS_PER_SECOND, idle_over);
	server_mark_dirty(c);
	server_wake(server);
}
