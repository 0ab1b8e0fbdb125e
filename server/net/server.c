/*
 * server.c - the server as a whole: turns of work, limits, shutdown, statistics.
 *
 * Its place: connections mark themselves dirty when they have something to send, and
 * wake the daemon; the daemon's turn ends with net_flush(), which is the only place
 * where bytes of an answer reach a socket.
 *
 * Invariants:
 *  1. A connection is in `dirty` exactly while its flag says so.
 *  2. A call is in `deferred` exactly while its flag says so; the idle handle runs
 *     exactly while that list is not empty.
 *  3. `done` is called once, when the last handle has finished closing.
 */
#include "internal.h"

#include <signal.h>
#include <string.h>

static void idle_cb(uv_idle_t *idle)
{
	struct net_server *server = idle->data;

	/* What is deferred meanwhile has its turn next time, so that nobody starves. */
	for (unsigned n = server->nr_deferred; n && !TAILQ_EMPTY(&server->deferred); n--) {
		struct net_call *call = TAILQ_FIRST(&server->deferred);

		server_undefer(call);
		call_resume(call);
	}
	server_wake(server);
}

void server_defer(struct net_call *call)
{
	struct net_server *server = call->connection->server;

	if (call->deferred)
		return;
	call->deferred = true;
	TAILQ_INSERT_TAIL(&server->deferred, call, deferred_link);
	if (server->nr_deferred++ == 0)
		uv_idle_start(&server->idle, idle_cb);
}

void server_undefer(struct net_call *call)
{
	struct net_server *server = call->connection->server;

	if (!call->deferred)
		return;
	call->deferred = false;
	TAILQ_REMOVE(&server->deferred, call, deferred_link);
	if (--server->nr_deferred == 0)
		uv_idle_stop(&server->idle);
}

void server_wake(struct net_server *server)
{
	if (server->options.wake)
		server->options.wake(server->options.user);
}

void server_mark_dirty(struct net_connection *c)
{
	if (c->dirty || c->closing || !c->session)
		return;
	c->dirty = true;
	TAILQ_INSERT_TAIL(&c->server->dirty, c, dirty_link);
}

void net_flush(struct net_server *server)
{
	NET_CHECK(!server->flushing);
	server->flushing = true;
	while (!TAILQ_EMPTY(&server->dirty)) {
		struct net_connection *c = TAILQ_FIRST(&server->dirty);

		/* nghttp2 may not be asked for output from inside its own input. */
		NET_CHECK(!c->receiving);
		TAILQ_REMOVE(&server->dirty, c, dirty_link);
		c->dirty = false;
		connection_flush(c);
	}
	server->flushing = false;
}

static void *mem_malloc(size_t size, void *user)
{
	return pool_alloc(user, size);
}

static void mem_free(void *bytes, void *user)
{
	pool_free(user, bytes);
}

static void *mem_calloc(size_t n, size_t size, void *user)
{
	size_t total;

	if (__builtin_mul_overflow(n, size, &total))
		return NULL;
	return memset(pool_alloc(user, total), 0, total);
}

static void *mem_realloc(void *bytes, size_t size, void *user)
{
	return pool_realloc(user, bytes, size);
}

static nghttp2_option *session_options_new(void)
{
	nghttp2_option *option;

	if (nghttp2_option_new(&option))
		return NULL;
	/* Windows are given back by hand, see call_update_window(). */
	nghttp2_option_set_no_auto_window_update(option, 1);
	nghttp2_option_set_no_closed_streams(option, 1);
	/*
	 * Clients cancel calls at will: a thousand deadlines that pass at once are no
	 * attack. The library's own limit (1000, then 33 a second) would end the
	 * connection.
	 */
	nghttp2_option_set_stream_reset_rate_limit(option, 100000, 100000);
	return option;
}

static void fill_defaults(struct net_limits *limits)
{
	if (!limits->connections)
		limits->connections = 1024;
	if (!limits->streams)
		limits->streams = 1024;
	if (!limits->message_bytes)
		limits->message_bytes = (size_t)4 << 20;
	if (!limits->output_bytes)
		limits->output_bytes = (size_t)8 << 20;
	if (!limits->output_low)
		limits->output_low = limits->output_bytes / 4;
}

static void destroy(struct net_server *server)
{
	timeouts_free(&server->timeouts);
	nghttp2_session_callbacks_del(server->callbacks);
	nghttp2_option_del(server->session_options);
	pool_drain(&server->pool);
	free(server->read_buffer);
	free(server->scratch);
	free((char *)server->options.token);
	free(server);
}

int net_server_new(const struct net_options *options, struct net_server **ret)
{
	struct net_server *server = calloc(1, sizeof(*server));

	if (!server)
		return UV_ENOMEM;
	/* libuv writes without MSG_NOSIGNAL; a client that is gone is an error, not our end. */
	signal(SIGPIPE, SIG_IGN);
	server->options = *options;
	server->options.token = options->token ? strdup(options->token) : NULL;
	fill_defaults(&server->options.limits);
	server->loop = options->loop;
	server->mem = (nghttp2_mem){&server->pool, mem_malloc, mem_free, mem_calloc, mem_realloc};
	server->callbacks = connection_callbacks_new();
	server->session_options = session_options_new();
	server->read_buffer = malloc(READ_BYTES);
	server->scratch = malloc(WRITE_BYTES);
	if (!server->callbacks || !server->session_options || !server->read_buffer ||
	    !server->scratch || (options->token && !server->options.token)) {
		destroy(server);
		return UV_ENOMEM;
	}
	TAILQ_INIT(&server->deferred);
	TAILQ_INIT(&server->connections);
	TAILQ_INIT(&server->dirty);
	timeouts_init(&server->timeouts, server->loop);
	uv_idle_init(server->loop, &server->idle);
	server->idle.data = server;
	server->timeouts.timer.data = server;
	server->open_handles = 2;
	*ret = server;
	return 0;
}

void server_handle_closed(struct net_server *server)
{
	if (--server->open_handles)
		return;
	if (server->freed)
		destroy(server);
	else if (server->done)
		server->done(server->done_user);
}

static void own_handle_closed_cb(uv_handle_t *handle)
{
	server_handle_closed(handle->data);
}

/* Called on every end of a connection while stopping. */
static void close_own_handles(struct net_server *server)
{
	if (uv_is_closing((uv_handle_t *)&server->idle))
		return;
	uv_close((uv_handle_t *)&server->timeouts.timer, own_handle_closed_cb);
	uv_close((uv_handle_t *)&server->idle, own_handle_closed_cb);
}

void server_connection_gone(struct net_server *server)
{
	if (server->stopping && TAILQ_EMPTY(&server->connections))
		close_own_handles(server);
}

static void close_connections(struct net_server *server)
{
	struct net_connection *c, *next;

	for (c = TAILQ_FIRST(&server->connections); c; c = next) {
		next = TAILQ_NEXT(c, link);
		connection_close(c);
	}
}

static void grace_over(struct timeout *timeout)
{
	struct net_server *server = NET_CONTAINER(timeout, struct net_server, grace);

	close_connections(server);
	server_wake(server);
}

void net_shutdown(struct net_server *server, unsigned grace_ms, void (*done)(void *user),
		  void *user)
{
	struct net_connection *c;

	NET_CHECK(!server->stopping);
	server->stopping = true;
	server->done = done;
	server->done_user = user;
	listeners_close(server);
	TAILQ_FOREACH(c, &server->connections, link)
	connection_drain(c);
	timeouts_set(&server->timeouts, &server->grace, uv_hrtime() + grace_ms * NS_PER_MS,
		     grace_over);
	server_connection_gone(server);
	if (!server->freed)
		server_wake(server);
}

void net_server_free(struct net_server *server)
{
	if (!server)
		return;
	if (!server->open_handles) {
		destroy(server);
		return;
	}
	/* Not done yet (a daemon that failed to start): the last handle takes the rest along. */
	server->freed = true;
	if (!server->stopping)
		net_shutdown(server, 0, NULL, NULL);
	close_connections(server);
}

void net_get_stats(const struct net_server *server, struct net_stats *ret)
{
	*ret = server->stats;
}
