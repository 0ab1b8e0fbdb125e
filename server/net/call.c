/*
 * call.c - one call: the life of an HTTP/2 stream as gRPC sees it.
 *
 *   call_new  -> call_header* -> call_begin --+--> handler->open, then messages
 *                                             +--> rejected: answered at once
 *   net_send, net_finish -> out buffer -> read_output_cb -> call_take_output -> trailers
 *   stream or connection gone -> call_free -> handler->closed
 *
 * Invariants:
 *  1. handler->open is called at most once, and after it handler->closed exactly once;
 *     nothing of the handler is called after `over`.
 *  2. Before `responded` nghttp2 knows of no answer. After `finished` nothing is added
 *     to either buffer and `in` is empty.
 *  3. Unless paused, `in` holds less than one message, from its first byte.
 *  4. `starved` means that nghttp2 waits for nghttp2_session_resume_data().
 *
 * Flow control: what a message needs is given back to the client as it arrives, else a
 * message larger than the window could never arrive. It is kept back while the call is
 * paused or has much unsent output.
 *
 * Not modelled: compressed messages, request metadata (no service of ours reads any).
 */
#include "internal.h"

#include <string.h>

#define NV(name, value, flags)                                                              \
	{                                                                                   \
		(uint8_t *)(name), (uint8_t *)(value), sizeof(name) - 1, sizeof(value) - 1, \
		    NGHTTP2_NV_FLAG_NO_COPY_NAME | (flags)                                  \
	}
#define NV_STATIC(name, value) NV(name, value, NGHTTP2_NV_FLAG_NO_COPY_VALUE)

static const struct {
	char text[3];
	uint8_t length;
} status_texts[] = {
    {"0", 1}, {"1", 1},	 {"2", 1},  {"3", 1},  {"4", 1},  {"5", 1},  {"6", 1},	{"7", 1},  {"8", 1},
    {"9", 1}, {"10", 2}, {"11", 2}, {"12", 2}, {"13", 2}, {"14", 2}, {"15", 2}, {"16", 2},
};

/* ---- the answer ---- */

/* grpc-status, and grpc-message if there is one. Returns how many. */
static size_t status_headers(const struct net_call *call, nghttp2_nv *nv)
{
	const uint8_t copy_neither = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE;

	nv[0] = (nghttp2_nv){(uint8_t *)"grpc-status", (uint8_t *)status_texts[call->status].text,
			     11, status_texts[call->status].length, copy_neither};
	if (!call->status_text)
		return 1;
	/* Not indexed: the texts differ and would push useful names out of the table. */
	nv[1] = (nghttp2_nv){(uint8_t *)"grpc-message", (uint8_t *)call->status_text, 12,
			     call->status_text_length, copy_neither | NGHTTP2_NV_FLAG_NO_INDEX};
	return 2;
}

static void submit_trailers(struct net_call *call)
{
	nghttp2_nv nv[2];
	size_t n = status_headers(call, nv);

	NET_CHECK(nghttp2_submit_trailer(call->connection->session, call->stream, nv, n) == 0);
}

static ssize_t read_output_cb(nghttp2_session *session, int32_t stream, uint8_t *buf, size_t length,
			      uint32_t *flags, nghttp2_data_source *source, void *user)
{
	struct net_call *call = source->ptr;
	size_t held = buffer_length(&call->out);

	(void)session, (void)stream, (void)buf, (void)user;
	if (!held && !call->finished) {
		call->starved = true;
		return NGHTTP2_ERR_DEFERRED;
	}
	/* Without NO_END_STREAM the data would end the stream and trailers could not follow. */
	if (call->finished && held <= length) {
		*flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
		submit_trailers(call);
	}
	if (held)
		*flags |= NGHTTP2_DATA_FLAG_NO_COPY;
	return (ssize_t)(held < length ? held : length);
}

static void respond(struct net_call *call)
{
	static const nghttp2_nv nv[] = {NV_STATIC(":status", "200"),
					NV_STATIC("content-type", "application/grpc")};
	const nghttp2_data_provider provider = {{.ptr = call}, read_output_cb};

	call->responded = true;
	NET_CHECK(nghttp2_submit_response(call->connection->session, call->stream, nv, 2,
					  &provider) == 0);
}

/* One HEADERS frame that begins and ends the answer. */
static void respond_trailers_only(struct net_call *call)
{
	nghttp2_nv nv[5] = {NV_STATIC(":status", "200"),
			    NV_STATIC("content-type", "application/grpc"),
			    NV_STATIC("grpc-accept-encoding", "identity")};
	size_t n = 3 + status_headers(call, nv + 3);

	call->responded = true;
	NET_CHECK(nghttp2_submit_response(call->connection->session, call->stream, nv, n, NULL) ==
		  0);
}

/* Wakes the data provider, or starts it. */
static void output_ready(struct net_call *call)
{
	if (!call->responded) {
		respond(call);
	} else if (call->starved) {
		call->starved = false;
		nghttp2_session_resume_data(call->connection->session, call->stream);
	}
	server_mark_dirty(call->connection);
}

static void clear_in(struct net_call *call)
{
	call->connection->unfinished -= buffer_length(&call->in);
	buffer_clear(&call->connection->server->pool, &call->in);
}

static void clear_out(struct net_call *call)
{
	call->connection->queued -= buffer_length(&call->out);
	buffer_clear(&call->connection->server->pool, &call->out);
}

static void finish(struct net_call *call, enum net_status status, const char *message)
{
	struct net_server *server = call->connection->server;
	char text[3 * GRPC_MESSAGE_TEXT];

	timeouts_cancel(&server->timeouts, &call->timeout);
	server_undefer(call);
	clear_in(call);
	call->finished = true;
	call->status = status;
	if (message && *message) {
		call->status_text_length = grpc_encode_message(message, text);
		call->status_text = pool_alloc(&server->pool, call->status_text_length);
		memcpy(call->status_text, text, call->status_text_length);
	}
	if (!call->responded && !buffer_length(&call->out) && status != NET_OK) {
		respond_trailers_only(call);
		server_mark_dirty(call->connection);
	} else {
		output_ready(call);
	}
}

/* Tells the handler that the call is over. */
static void end_handler(struct net_call *call, enum net_end end)
{
	bool tell = call->handler && !call->over;

	call->over = true;
	if (tell)
		call->handler->closed(call, end);
}

/* Ends a call that broke the rules. */
static void reject(struct net_call *call, enum net_status status, const char *message)
{
	end_handler(call, NET_END_CANCELLED);
	finish(call, status, message);
}

/* The client speaks HTTP but no gRPC. */
static void reject_http(struct net_call *call, const char *status)
{
	const nghttp2_nv nv = {(uint8_t *)":status", (uint8_t *)status, 7, 3,
			       NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};

	call->over = call->finished = call->responded = true;
	NET_CHECK(nghttp2_submit_response(call->connection->session, call->stream, &nv, 1, NULL) ==
		  0);
}

void call_answered(struct net_call *call)
{
	/* The client may stop sending; NO_ERROR says that nothing is wrong with the answer. */
	if (!call->ended)
		nghttp2_submit_rst_stream(call->connection->session, NGHTTP2_FLAG_NONE,
					  call->stream, NGHTTP2_NO_ERROR);
}

/* Gives the stream's window back, if the call may have more input. */
static void update_window(struct net_call *call)
{
	if (!call->unconsumed || call->ended || call->finished || call->paused ||
	    buffer_length(&call->out) >= STREAM_OUTPUT_SHORT)
		return;
	nghttp2_session_consume_stream(call->connection->session, call->stream, call->unconsumed);
	call->unconsumed = 0;
	server_mark_dirty(call->connection);
}

void call_take_output(struct net_call *call, const uint8_t *frame_header, size_t length)
{
	struct net_connection *c = call->connection;
	struct net_server *server = c->server;
	uint8_t *at = server->scratch + server->scratch_used;

	memcpy(at, frame_header, FRAME_HEADER);
	memcpy(at + FRAME_HEADER, call->out.bytes + call->out.start, length);
	server->scratch_used += FRAME_HEADER + length;
	buffer_consume(&server->pool, &call->out, length);
	c->queued -= length;
	call->sent = true;
	update_window(call);
	if (!call->finished && call->handler->writable &&
	    buffer_length(&call->out) < server->options.limits.output_low) {
		call->drained = true;
		server_defer(call);
	}
}

/* ---- the request ---- */

static void deadline_passed(struct timeout *timeout)
{
	struct net_call *call = NET_CONTAINER(timeout, struct net_call, timeout);
	struct net_connection *c = call->connection;
	bool cut = call->sent && buffer_length(&call->out);

	end_handler(call, NET_END_DEADLINE);
	clear_out(call);
	finish(call, NET_DEADLINE_EXCEEDED, "deadline exceeded");
	/* A message may be half sent: trailers would make it look whole to nobody's good. */
	if (cut)
		nghttp2_submit_rst_stream(c->session, NGHTTP2_FLAG_NONE, call->stream,
					  NGHTTP2_CANCEL);
	server_wake(c->server);
}

struct net_call *call_new(struct net_connection *c, int32_t stream)
{
	struct net_call *call = pool_alloc(&c->server->pool, sizeof(*call));

	*call = (struct net_call){
	    .connection = c,
	    .stream = stream,
	    .timeout_ns = UINT64_MAX,
	    .deadline = UINT64_MAX,
	};
	LIST_INSERT_HEAD(&c->calls, call, sibling);
	c->nr_calls++;
	c->server->stats.calls++;
	c->server->stats.calls_total++;
	return call;
}

static bool is(const uint8_t *text, size_t length, const char *word)
{
	return length == strlen(word) && memcmp(text, word, length) == 0;
}

void call_header(struct net_call *call, const uint8_t *name, size_t name_length,
		 const uint8_t *value, size_t value_length)
{
	const struct net_options *options = &call->connection->server->options;

	call->header_bytes += name_length + value_length + HEADER_OVERHEAD;
	if (call->header_bytes > HEADER_BYTES)
		return;
	if (is(name, name_length, ":path"))
		call->method = options->route(options->user, (const char *)value, value_length);
	else if (is(name, name_length, ":method"))
		call->is_post = is(value, value_length, "POST");
	else if (is(name, name_length, "content-type"))
		call->is_grpc = grpc_is_content_type(value, value_length);
	else if (is(name, name_length, "grpc-timeout"))
		call->timeout_bad = !grpc_parse_timeout(value, value_length, &call->timeout_ns);
	else if (is(name, name_length, "authorization") && options->token)
		call->authorized = grpc_is_bearer(value, value_length, options->token);
}

static bool is_allowed(const struct net_call *call)
{
	const struct net_connection *c = call->connection;

	return !c->is_tcp || call->authorized || c->server->options.insecure_no_auth ||
	       (call->method && call->method->unauthenticated);
}

static void open_call(struct net_call *call)
{
	uint64_t now = call->timeout_ns == UINT64_MAX ? 0 : uv_hrtime();

	if (call->timeout_ns < UINT64_MAX - now) {
		call->deadline = now + call->timeout_ns;
		timeouts_set(&call->connection->server->timeouts, &call->timeout, call->deadline,
			     deadline_passed);
	}
	call->handler = call->method->handler;
	call->handler->open(call);
}

/* Who may not know what exists hears of the token first. */
void call_begin(struct net_call *call)
{
	if (call->header_bytes > HEADER_BYTES)
		reject(call, NET_RESOURCE_EXHAUSTED, "request headers are larger than 8 KiB");
	else if (!call->is_post)
		reject_http(call, "405");
	else if (!call->is_grpc)
		reject_http(call, "415");
	else if (!is_allowed(call))
		reject(call, NET_UNAUTHENTICATED, "needs 'authorization: Bearer TOKEN'");
	else if (!call->method)
		reject(call, NET_UNIMPLEMENTED, "no such method");
	else if (call->timeout_bad)
		reject(call, NET_INTERNAL, "malformed grpc-timeout");
	else if (call->timeout_ns == 0)
		reject(call, NET_DEADLINE_EXCEEDED,
		       "the deadline had passed before the call began");
	else
		open_call(call);
}

/* Keeps bytes of a message that is not complete, or of a call that is paused. */
static bool keep(struct net_call *call, const uint8_t *bytes, size_t length)
{
	struct net_connection *c = call->connection;

	if (c->unfinished + length >
	    c->server->options.limits.message_bytes * UNFINISHED_MESSAGES) {
		reject(call, NET_RESOURCE_EXHAUSTED,
		       "too many bytes of unfinished messages on this connection");
		return false;
	}
	buffer_append(&c->server->pool, &call->in, bytes, length);
	c->unfinished += length;
	return true;
}

/* Whether a message may begin like this. */
static bool accept_prefix(struct net_call *call, const uint8_t *prefix)
{
	if (prefix[0] == 1)
		reject(call, NET_UNIMPLEMENTED, "compressed messages are not understood");
	else if (prefix[0] != 0)
		reject(call, NET_INTERNAL, "malformed message: unknown flag");
	else if (grpc_prefix_length(prefix) >
		 call->connection->server->options.limits.message_bytes)
		reject(call, NET_RESOURCE_EXHAUSTED, "message is larger than the server takes");
	else
		return true;
	return false;
}

/* Completes the message that `in` holds the beginning of. Returns how many bytes it took. */
static size_t complete(struct net_call *call, const uint8_t *bytes, size_t length)
{
	struct net_connection *c = call->connection;
	size_t held = buffer_length(&call->in), want = GRPC_PREFIX, taken = 0;
	struct buffer whole;

	if (held < GRPC_PREFIX) {
		taken = length < GRPC_PREFIX - held ? length : GRPC_PREFIX - held;
		if (!keep(call, bytes, taken) || held + taken < GRPC_PREFIX ||
		    !accept_prefix(call, call->in.bytes + call->in.start))
			return taken;
		held = GRPC_PREFIX;
	}
	want += grpc_prefix_length(call->in.bytes + call->in.start);
	if (length - taken < want - held) {
		keep(call, bytes + taken, length - taken);
		return length;
	}
	if (!keep(call, bytes + taken, want - held))
		return length;
	taken += want - held;
	/* The handler may pause or finish the call, which both touch `in`. */
	whole = call->in;
	call->in = (struct buffer){0};
	c->unfinished -= want;
	call->handler->message(call, whole.bytes + whole.start + GRPC_PREFIX, want - GRPC_PREFIX);
	buffer_clear(&c->server->pool, &whole);
	return taken;
}

/* Cuts arriving bytes into messages. */
static void deliver(struct net_call *call, const uint8_t *bytes, size_t length)
{
	while (length && !call->finished) {
		size_t taken, message;

		if (call->paused) {
			keep(call, bytes, length);
			return;
		}
		if (buffer_length(&call->in) || length < GRPC_PREFIX) {
			taken = complete(call, bytes, length);
		} else {
			if (!accept_prefix(call, bytes))
				return;
			message = grpc_prefix_length(bytes);
			if (length - GRPC_PREFIX < message) {
				keep(call, bytes, length);
				return;
			}
			call->handler->message(call, bytes + GRPC_PREFIX, message);
			taken = GRPC_PREFIX + message;
		}
		bytes += taken;
		length -= taken;
	}
}

static void check_half_close(struct net_call *call)
{
	if (!call->ended || call->told_half_close || call->paused || call->finished)
		return;
	if (buffer_length(&call->in)) {
		reject(call, NET_INTERNAL, "the request ended inside a message");
		return;
	}
	call->told_half_close = true;
	call->handler->half_close(call);
}

void call_data(struct net_call *call, const uint8_t *bytes, size_t length)
{
	call->unconsumed += length;
	deliver(call, bytes, length);
	update_window(call);
}

void call_end_stream(struct net_call *call)
{
	call->ended = true;
	check_half_close(call);
}

void call_resume(struct net_call *call)
{
	struct pool *pool = &call->connection->server->pool;

	if (call->resume) {
		struct buffer held = call->in;

		call->resume = call->paused = false;
		call->in = (struct buffer){0};
		call->connection->unfinished -= buffer_length(&held);
		if (buffer_length(&held))
			deliver(call, held.bytes + held.start, buffer_length(&held));
		buffer_clear(pool, &held);
		check_half_close(call);
		update_window(call);
	}
	if (call->drained) {
		call->drained = false;
		if (!call->finished)
			call->handler->writable(call);
	}
}

void call_free(struct net_call *call, enum net_end end)
{
	struct net_connection *c = call->connection;
	struct net_server *server = c->server;

	timeouts_cancel(&server->timeouts, &call->timeout);
	end_handler(call, call->finished ? NET_END_FINISHED : end);
	server_undefer(call);
	clear_in(call);
	clear_out(call);
	pool_free(&server->pool, call->status_text);
	LIST_REMOVE(call, sibling);
	if (--c->nr_calls == 0 && server->options.limits.idle_seconds)
		c->idle_since = uv_hrtime();
	server->stats.calls--;
	pool_free(&server->pool, call);
}

/* ---- what handlers call ---- */

const struct net_method *net_call_method(const struct net_call *call)
{
	return call->method;
}

void net_call_set_user(struct net_call *call, void *user)
{
	call->user = user;
}

void *net_call_user(const struct net_call *call)
{
	return call->user;
}

uint64_t net_call_deadline(const struct net_call *call)
{
	return call->deadline;
}

uint64_t net_call_client(const struct net_call *call)
{
	return call->connection->client;
}

uint64_t net_call_order(const struct net_call *call)
{
	return call->connection->client << 32 | (uint32_t)call->stream;
}

uint8_t *net_send_room(struct net_call *call, size_t length)
{
	struct net_connection *c = call->connection;
	uint8_t *at;

	NET_CHECK(!call->finished && !call->over);
	NET_CHECK(length <= UINT32_MAX);
	at = buffer_extend(&c->server->pool, &call->out, GRPC_PREFIX + length);
	grpc_put_prefix(at, length);
	c->queued += GRPC_PREFIX + length;
	output_ready(call);
	return at + GRPC_PREFIX;
}

void net_send(struct net_call *call, const uint8_t *bytes, size_t length)
{
	uint8_t *at = net_send_room(call, length);

	if (length)
		memcpy(at, bytes, length);
}

void net_finish(struct net_call *call, enum net_status status, const char *message)
{
	NET_CHECK(!call->finished && !call->over);
	NET_CHECK((size_t)status < sizeof(status_texts) / sizeof(status_texts[0]));
	finish(call, status, message);
}

size_t net_queued(const struct net_call *call)
{
	return buffer_length(&call->out);
}

void net_pause(struct net_call *call)
{
	call->paused = true;
	call->resume = false;
}

void net_resume(struct net_call *call)
{
	if (!call->paused || call->finished)
		return;
	call->resume = true;
	server_defer(call);
}
