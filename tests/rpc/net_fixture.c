/*
 * net_fixture.c - a server of echo methods and its clients, in one thread and one loop.
 */
#include "net_fixture.h"

#include <unistd.h>

uv_loop_t loop;
static uv_prepare_t prepare;
static uv_check_t check;
struct net_server *server;
char address[200], tcp_address[200];
bool done;
const struct net_method *(*fixture_route)(void *user, const char *path, size_t length) = echo_route;

static void prepare_cb(uv_prepare_t *handle)
{
	(void)handle;
	net_flush(server);
}

static void check_cb(uv_check_t *handle)
{
	(void)handle;
	net_flush(server);
}

void done_cb(void *user)
{
	*(bool *)user = true;
}

void start_server(const struct net_limits *limits, const char *token)
{
	struct net_options options = {.loop = &loop, .route = fixture_route, .token = token};
	char path[128], err[256] = "";

	if (limits)
		options.limits = *limits;
	memset(&echo_stats, 0, sizeof(echo_stats));
	done = false;
	assert_int_equal(uv_loop_init(&loop), 0);
	uv_prepare_init(&loop, &prepare);
	uv_prepare_start(&prepare, prepare_cb);
	uv_check_init(&loop, &check);
	uv_check_start(&check, check_cb);
	assert_int_equal(net_server_new(&options, &server), 0);
	snprintf(path, sizeof(path), "unix:/tmp/test_net.%d.sock", (int)getpid());
	assert_int_equal(net_listen(server, path, address, sizeof(address), err, sizeof(err)), 0);
	if (token)
		assert_int_equal(net_listen(server, "tcp:127.0.0.1:0", tcp_address,
					    sizeof(tcp_address), err, sizeof(err)),
				 0);
}

void run_until_done(void)
{
	while (!done)
		uv_run(&loop, UV_RUN_ONCE);
}

void stop_server(void)
{
	struct net_stats stats;

	if (!done) {
		net_shutdown(server, 0, done_cb, &done);
		run_until_done();
	}
	net_get_stats(server, &stats);
	assert_int_equal(stats.connections, 0);
	assert_int_equal(stats.calls, 0);
	assert_int_equal(echo_stats.opened, echo_stats.closed[0] + echo_stats.closed[1] +
						echo_stats.closed[2] + echo_stats.closed[3]);
	uv_close((uv_handle_t *)&prepare, NULL);
	uv_close((uv_handle_t *)&check, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	net_server_free(server);
	server = NULL;
	assert_int_equal(uv_loop_close(&loop), 0);
}

int setup(void **state)
{
	(void)state;
	start_server(NULL, NULL);
	return 0;
}

int teardown(void **state)
{
	(void)state;
	stop_server();
	return 0;
}

void connect_client(struct h2_client *c)
{
	h2_connect(c, &loop, address);
	h2_start(c, 0, 0);
	h2_pump(c);
	assert_int_equal(c->settings, 1);
	/* 65535 of HTTP/2, raised at once to ours. */
	assert_int_equal(c->connection_window, 1024 * KIB);
	assert_int_equal(c->initial_window, 256 * KIB);
}

void assert_alive(struct h2_client *c, uint32_t stream)
{
	struct h2_stream *s;

	h2_request(c, stream, "/test.Echo/Unary", NULL);
	h2_message(c, stream, END, "ping", 4);
	h2_pump(c);
	s = h2_stream(c, stream);
	assert_int_equal(s->http_status, 200);
	assert_int_equal(s->grpc_status, 0);
	assert_true(s->ended);
	assert_int_equal(s->data.length, 9);
	assert_memory_equal(s->data.at, "\0\0\0\0\4ping", 9);
}

void assert_server_alive(void)
{
	struct h2_client c;

	connect_client(&c);
	assert_alive(&c, 1);
	h2_close(&c);
}

void assert_trailers_only(const struct h2_stream *s, int status)
{
	assert_int_equal(s->http_status, 200);
	assert_string_equal(s->content_type, "application/grpc");
	assert_int_equal(s->grpc_status, status);
	assert_int_equal(s->headers, 1);
	assert_int_equal(s->data_frames, 0);
	assert_true(s->ended);
}
