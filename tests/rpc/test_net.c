/*
 * test_net.c - net/ against clients of every kind: good, slow, gone, wrong.
 *
 * Server and client share one thread and one loop; see h2client.h. Every test ends by
 * shutting the server down and checks that each call that was opened was closed once.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "echo.h"
#include "grpc.h"
#include "h2client.h"

#define END NGHTTP2_FLAG_END_STREAM
#define BIG (3u * 1024 * 1024)
#define KIB 1024u

static uv_loop_t loop;
static uv_prepare_t prepare;
static uv_check_t check;
static struct net_server *server;
static char address[200], tcp_address[200];
static bool done;

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

static void done_cb(void *user)
{
	*(bool *)user = true;
}

static void start_server(const struct net_limits *limits, const char *token)
{
	struct net_options options = {.loop = &loop, .route = echo_route, .token = token};
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

static void run_until_done(void)
{
	while (!done)
		uv_run(&loop, UV_RUN_ONCE);
}

static void stop_server(void)
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

static int setup(void **state)
{
	(void)state;
	start_server(NULL, NULL);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	stop_server();
	return 0;
}

static void connect_client(struct h2_client *c)
{
	h2_connect(c, &loop, address);
	h2_start(c, 0, 0);
	h2_pump(c);
	assert_int_equal(c->settings, 1);
	/* 65535 of HTTP/2, raised at once to ours. */
	assert_int_equal(c->connection_window, 1024 * KIB);
	assert_int_equal(c->initial_window, 256 * KIB);
}

/* A whole unary call of /test.Echo/Unary that must succeed: the connection is alive. */
static void assert_alive(struct h2_client *c, uint32_t stream)
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

static void assert_server_alive(void)
{
	struct h2_client c;

	connect_client(&c);
	assert_alive(&c, 1);
	h2_close(&c);
}

static void assert_trailers_only(const struct h2_stream *s, int status)
{
	assert_int_equal(s->http_status, 200);
	assert_string_equal(s->content_type, "application/grpc");
	assert_int_equal(s->grpc_status, status);
	assert_int_equal(s->headers, 1);
	assert_int_equal(s->data_frames, 0);
	assert_true(s->ended);
}

/* ---- good clients ---- */

static void test_unary(void **state)
{
	struct h2_client c;
	struct h2_stream *s;

	(void)state;
	connect_client(&c);
	assert_alive(&c, 1);
	s = h2_stream(&c, 1);
	assert_string_equal(s->content_type, "application/grpc");
	assert_int_equal(s->headers, 2);
	assert_int_equal(s->data_frames, 1);
	assert_int_equal(s->empty_data_frames, 0);
	assert_int_equal(s->resets, 0);
	assert_int_equal(echo_stats.closed[NET_END_FINISHED], 1);
	h2_close(&c);
}

/* Every byte of the request in its own DATA frame, and in its own segment. */
static void test_byte_by_byte(void **state)
{
	static const char request[] = "\0\0\0\0\5hello";
	struct h2_client c;
	struct h2_stream *s;

	(void)state;
	connect_client(&c);
	h2_request(&c, 1, "/test.Echo/Unary", NULL);
	for (unsigned i = 0; i < 10; i++) {
		struct h2_bytes frame = {0};

		h2_frame(&frame, NGHTTP2_DATA, 0, 1, request + i, 1);
		for (size_t k = 0; k < frame.length; k++) {
			h2_write(&c, frame.at + k, 1);
			h2_pump(&c);
		}
		h2_bytes_free(&frame);
	}
	h2_data(&c, 1, END, NULL, 0);
	h2_pump(&c);
	s = h2_stream(&c, 1);
	assert_int_equal(s->grpc_status, 0);
	assert_int_equal(s->data.length, 10);
	assert_memory_equal(s->data.at, request, 10);
	assert_int_equal(echo_stats.messages, 1);
	h2_close(&c);
}

static void test_messages_in_one_frame(void **state)
{
	static const char frame[] = "\0\0\0\0\1a\0\0\0\0\0\0\0\0\0\3ccc\0\0";
	static const char rest[] = "\0\0\2zz";
	struct h2_client c;
	struct h2_stream *s;

	(void)state;
	connect_client(&c);
	h2_request(&c, 1, "/test.Echo/Stream", NULL);
	h2_data(&c, 1, 0, frame, sizeof(frame) - 1);
	h2_pump(&c);
	assert_int_equal(echo_stats.messages, 3);
	assert_int_equal(h2_stream(&c, 1)->data.length, 6 + 5 + 8);
	h2_data(&c, 1, END, rest, sizeof(rest) - 1);
	h2_pump(&c);
	s = h2_stream(&c, 1);
	assert_int_equal(echo_stats.messages, 4);
	assert_int_equal(s->grpc_status, 0);
	assert_int_equal(s->data.length, 6 + 5 + 8 + 7);
	assert_memory_equal(s->data.at + 19, "\0\0\0\0\2zz", 7);
	h2_close(&c);
}

/* A stream without a single message still has headers and trailers of its own. */
static void test_empty_stream(void **state)
{
	struct h2_client c;
	struct h2_stream *s;

	(void)state;
	connect_client(&c);
	h2_request(&c, 1, "/test.Echo/Stream", NULL);
	h2_data(&c, 1, END, NULL, 0);
	h2_pump(&c);
	s = h2_stream(&c, 1);
	assert_int_equal(s->grpc_status, 0);
	assert_int_equal(s->headers, 2);
	assert_true(s->ended);
	assert_int_equal(s->data.length, 0);
	h2_close(&c);
}

/* END_STREAM on the request's headers. */
static void test_no_body(void **state)
{
	const struct h2_header headers[] = {{":method", "POST"},
					    {":scheme", "http"},
					    {":path", "/test.Echo/Unary"},
					    {":authority", "localhost"},
					    {"content-type", "application/grpc+proto"}};
	struct h2_bytes out = {0};
	struct h2_client c;

	(void)state;
	connect_client(&c);
	h2_put_headers(&out, 1, END, headers, 5);
	h2_write(&c, out.at, out.length);
	h2_bytes_free(&out);
	h2_pump(&c);
	assert_trailers_only(h2_stream(&c, 1), NET_INVALID_ARGUMENT);
	h2_close(&c);
}

static void test_large_message(void **state)
{
	uint8_t *bytes = malloc(BIG);
	struct h2_client c;
	struct h2_stream *s;

	(void)state;
	assert_non_null(bytes);
	for (size_t i = 0; i < BIG; i++)
		bytes[i] = (uint8_t)(i * 2654435761u >> 24);
	connect_client(&c);
	h2_request(&c, 1, "/test.Echo/Unary", NULL);
	assert_int_equal(h2_message_obey(&c, 1, END, bytes, BIG), 0);
	h2_pump(&c);
	s = h2_stream(&c, 1);
	assert_int_equal(s->grpc_status, 0);
	assert_int_equal(s->data.length, BIG + 5);
	assert_memory_equal(s->data.at + 5, bytes, BIG);
	free(bytes);
	h2_close(&c);
}

static void test_many_streams(void **state)
{
	enum { STREAMS = 1000 };
	struct h2_client c;

	(void)state;
	connect_client(&c);
	for (uint32_t i = 0; i < STREAMS; i++)
		h2_request(&c, i * 2 + 1, "/test.Echo/Unary", NULL);
	for (uint32_t i = STREAMS; i-- > 0;)
		h2_message(&c, i * 2 + 1, END, &i, sizeof(i));
	h2_pump(&c);
	for (uint32_t i = 0; i < STREAMS; i++) {
		const struct h2_stream *s = h2_stream(&c, i * 2 + 1);

		assert_int_equal(s->grpc_status, 0);
		assert_int_equal(s->data.length, 9);
		assert_memory_equal(s->data.at + 5, &i, 4);
	}
	h2_close(&c);
}

static void test_pings_are_welcome(void **state)
{
	struct h2_client c;

	(void)state;
	connect_client(&c);
	for (unsigned i = 0; i < 500; i++) {
		struct h2_bytes out = {0};

		h2_frame(&out, NGHTTP2_PING, 0, 0, "12345678", 8);
		h2_write(&c, out.at, out.length);
		h2_bytes_free(&out);
		h2_pump(&c);
	}
	assert_int_equal(c.ping_acks, 500);
	assert_int_equal(c.goaways, 0);
	assert_alive(&c, 1);
	h2_close(&c);
}

/* ---- requests that are refused ---- */

static void test_unknown_method(void **state)
{
	struct h2_client c;

	(void)state;
	connect_client(&c);
	h2_request(&c, 1, "/test.Echo/Nothing", NULL);
	h2_message(&c, 1, END, "x", 1);
	h2_pump(&c);
	assert_trailers_only(h2_stream(&c, 1), NET_UNIMPLEMENTED);
	assert_alive(&c, 3);
	h2_close(&c);
}

struct http_case {
	const char *method, *content_type; /* NULL: no such header */
	int http_status;
};

static void test_http_errors(void **state)
{
	static const struct http_case cases[] = {
	    {"POST", "application/grpc", 200},
	    {"POST", "application/grpc+proto", 200},
	    {"POST", "Application/gRPC;charset=utf-8", 200},
	    {"POST", "application/grpc-web", 415},
	    {"POST", "application/grp", 415},
	    {"POST", "application/json", 415},
	    {"POST", "", 415},
	    {"POST", NULL, 415},
	    {"GET", "application/grpc", 405},
	    {"PUT", "application/json", 405},
	};
	struct h2_client c;

	(void)state;
	connect_client(&c);
	for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct h2_header headers[] = {{":method", cases[i].method},
					      {":scheme", "http"},
					      {":path", "/test.Echo/Unary"},
					      {":authority", "localhost"},
					      {"content-type", cases[i].content_type}};
		struct h2_bytes out = {0};

		h2_put_headers(&out, i * 2 + 1, 0, headers, cases[i].content_type ? 5 : 4);
		h2_write(&c, out.at, out.length);
		h2_bytes_free(&out);
		h2_message(&c, i * 2 + 1, END, "x", 1);
		h2_pump(&c);
		assert_int_equal(h2_stream(&c, i * 2 + 1)->http_status, cases[i].http_status);
		assert_true(h2_stream(&c, i * 2 + 1)->ended);
	}
	assert_alive(&c, 101);
	h2_close(&c);
}

/* Headers count as name + value + 32 each, up to 8192 in all. */
static void test_header_limit(void **state)
{
	/* What h2_request() sends by itself, for this path. */
	static const char *const fixed[] = {
	    ":methodPOST",	   ":schemehttp", ":path/test.Echo/Unary",
	    ":authoritylocalhost", "tetrailers",  "content-typeapplication/grpc"};
	size_t used = 0, fill;
	char *value;
	struct h2_client c;

	(void)state;
	for (size_t i = 0; i < 6; i++)
		used += strlen(fixed[i]) + 32;
	fill = 8192 - used - 32 - strlen("x-pad");
	value = malloc(70000);
	assert_non_null(value);
	memset(value, 'a', 70000);
	connect_client(&c);
	for (uint32_t i = 0; i < 3; i++) {
		struct h2_header extra[] = {{"x-pad", value}, {NULL, NULL}};
		size_t n = i == 2 ? 60000 : fill + i;
		uint32_t stream = i * 2 + 1;

		value[n] = '\0';
		h2_request(&c, stream, "/test.Echo/Unary", extra);
		value[n] = 'a';
		h2_message(&c, stream, END, "x", 1);
		h2_pump(&c);
		if (i == 0)
			assert_int_equal(h2_stream(&c, stream)->grpc_status, NET_OK);
		else
			assert_trailers_only(h2_stream(&c, stream), NET_RESOURCE_EXHAUSTED);
	}
	assert_alive(&c, 7);
	free(value);
	h2_close(&c);
}

struct framing_case {
	const char *bytes;
	size_t length;
	const char *encoding; /* grpc-encoding, or NULL */
	int status;
};

static void test_framing_errors(void **state)
{
	static const struct framing_case cases[] = {
	    {"\0\0\0\0\1x", 6, "gzip", NET_OK}, /* the flag decides, not the header */
	    {"\1\0\0\0\1x", 6, NULL, NET_UNIMPLEMENTED},
	    {"\1\0\0\0\1x", 6, "gzip", NET_UNIMPLEMENTED},
	    {"\2\0\0\0\1x", 6, NULL, NET_INTERNAL},
	    {"\377\0\0\0\1x", 6, NULL, NET_INTERNAL},
	    {"\0\0\0\0\2x", 6, NULL, NET_INTERNAL},	       /* ends inside the message */
	    {"\0\0\0", 3, NULL, NET_INTERNAL},		       /* ends inside the prefix */
	    {"\0\0\0\0\1xy", 7, NULL, NET_INTERNAL},	       /* one byte too many */
	    {"\0\0\100\0\1", 5, NULL, NET_RESOURCE_EXHAUSTED}, /* 4 MiB and 1 */
	    {"\0\377\377\377\377", 5, NULL, NET_RESOURCE_EXHAUSTED},
	};
	struct h2_client c;

	(void)state;
	connect_client(&c);
	for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct h2_header extra[] = {
		    {cases[i].encoding ? "grpc-encoding" : NULL, cases[i].encoding}, {NULL, NULL}};
		uint8_t frame[16];

		memcpy(frame, cases[i].bytes, cases[i].length);
		if (i == 8) /* a NUL in the middle cannot be written as octal in one string */
			memcpy(frame, (const uint8_t[]){0, 0, 0x40, 0, 1}, 5);
		h2_request(&c, i * 2 + 1, "/test.Echo/Unary", extra);
		h2_data(&c, i * 2 + 1, END, frame, cases[i].length);
		h2_pump(&c);
		assert_int_equal(h2_stream(&c, i * 2 + 1)->grpc_status, cases[i].status);
		assert_true(h2_stream(&c, i * 2 + 1)->ended);
	}
	assert_int_equal(echo_stats.closed[NET_END_CANCELLED],
			 sizeof(cases) / sizeof(cases[0]) - 1);
	assert_alive(&c, 101);
	h2_close(&c);
}

/* Exactly the largest message is taken. */
static void test_message_limit(void **state)
{
	const size_t limit = 4u * 1024 * 1024;
	uint8_t *bytes = calloc(1, limit);
	struct h2_client c;

	(void)state;
	assert_non_null(bytes);
	connect_client(&c);
	h2_request(&c, 1, "/test.Echo/Count", NULL);
	assert_int_equal(h2_message_obey(&c, 1, END, bytes, limit), 0);
	h2_pump(&c);
	assert_int_equal(h2_stream(&c, 1)->grpc_status, 0);
	assert_memory_equal(h2_stream(&c, 1)->data.at + 5, "4194304", 7);
	free(bytes);
	h2_close(&c);
}

/* Nine messages of 4 MiB are begun and not ended: the connection may hold eight. */
static void test_unfinished_limit(void **state)
{
	const size_t begun = 4u * 1024 * 1024 - 16;
	uint8_t *bytes = calloc(1, begun + 5);
	unsigned exhausted = 0;
	struct h2_client c;

	(void)state;
	assert_non_null(bytes);
	bytes[2] = 0x3f, bytes[3] = 0xff, bytes[4] = 0xff;
	connect_client(&c);
	for (uint32_t i = 0; i < 9; i++) {
		uint32_t stream = i * 2 + 1;

		h2_request(&c, stream, "/test.Echo/Count", NULL);
		for (size_t at = 0; at < begun; at += 16384) {
			size_t part = begun - at < 16384 ? begun - at : 16384;

			h2_data(&c, stream, 0, bytes + (at ? 5 : 0), part);
			h2_pump(&c);
			if (h2_stream(&c, stream)->ended)
				break;
		}
		exhausted += h2_stream(&c, stream)->grpc_status == NET_RESOURCE_EXHAUSTED;
	}
	assert_int_equal(exhausted, 1);
	assert_int_equal(h2_stream(&c, 17)->grpc_status, NET_RESOURCE_EXHAUSTED);
	free(bytes);
	h2_close(&c);
}

static void test_stream_limit(void **state)
{
	struct h2_client c;

	(void)state;
	stop_server();
	start_server(&(struct net_limits){.streams = 4}, NULL);
	h2_connect(&c, &loop, address);
	/* Before the client has agreed to the limit, what is beyond is refused politely. */
	c.no_settings_ack = true;
	h2_start(&c, 0, 0);
	h2_pump(&c);
	for (uint32_t i = 0; i < 6; i++)
		h2_request(&c, i * 2 + 1, "/test.Echo/Sleep", NULL);
	h2_pump(&c);
	assert_int_equal(echo_stats.opened, 4);
	assert_int_equal(h2_stream(&c, 7)->resets, 0);
	assert_int_equal(h2_stream(&c, 9)->resets, 1);
	assert_int_equal(h2_stream(&c, 9)->reset_code, NGHTTP2_REFUSED_STREAM);
	assert_int_equal(h2_stream(&c, 11)->reset_code, NGHTTP2_REFUSED_STREAM);
	h2_reset(&c, 1, NGHTTP2_CANCEL);
	assert_alive(&c, 13);
	h2_close(&c);
}

static void test_connection_limit(void **state)
{
	struct h2_client a, b, c;
	struct net_stats stats;

	(void)state;
	stop_server();
	start_server(&(struct net_limits){.connections = 2}, NULL);
	connect_client(&a);
	connect_client(&b);
	h2_connect(&c, &loop, address);
	h2_pump(&c);
	assert_int_equal(c.goaways, 1);
	assert_int_equal(c.goaway_code, NGHTTP2_ENHANCE_YOUR_CALM);
	assert_int_equal(c.goaway_last, 0);
	assert_true(c.eof);
	net_get_stats(server, &stats);
	assert_int_equal(stats.refused, 1);
	assert_alive(&a, 1);
	h2_close(&a);
	h2_pump(&b);
	assert_server_alive();
	h2_close(&b);
	h2_close(&c);
}

/* ---- the end of an answer ---- */

/* An answer before the request's end is followed by RST_STREAM(NO_ERROR). */
static void test_early_end(void **state)
{
	uint8_t junk[8192] = {0};
	struct h2_client c;
	struct h2_stream *s;

	(void)state;
	connect_client(&c);
	h2_request(&c, 1, "/test.Echo/Early", NULL);
	h2_pump(&c);
	s = h2_stream(&c, 1);
	assert_trailers_only(s, NET_PERMISSION_DENIED);
	assert_string_equal(s->message, "not you");
	assert_int_equal(s->resets, 1);
	assert_int_equal(s->reset_code, NGHTTP2_NO_ERROR);
	/* What was under way does not count against the connection for ever. */
	for (unsigned i = 0; i < 400; i++) {
		h2_data(&c, 1, 0, junk, sizeof(junk));
		h2_pump(&c);
	}
	assert_true(c.connection_window > 0);
	assert_alive(&c, 3);
	h2_close(&c);
}

static void test_status_message(void **state)
{
	static const char text[] = "50% of h\xc3\xa9llo,\tline\nbreak \x7f ~ \xe2\x98\xba";
	char request[sizeof(text) + 1] = {NET_NOT_FOUND};
	struct h2_client c;

	(void)state;
	connect_client(&c);
	memcpy(request + 1, text, sizeof(text));
	h2_request(&c, 1, "/test.Echo/Fail", NULL);
	h2_message(&c, 1, END, request, sizeof(text));
	h2_pump(&c);
	assert_trailers_only(h2_stream(&c, 1), NET_NOT_FOUND);
	assert_string_equal(h2_stream(&c, 1)->message, text);
	for (uint32_t status = 1; status <= 16; status++) {
		uint32_t stream = status * 2 + 1;

		request[0] = (char)status;
		h2_request(&c, stream, "/test.Echo/Fail", NULL);
		h2_message(&c, stream, END, request, 1);
		h2_pump(&c);
		assert_trailers_only(h2_stream(&c, stream), (int)status);
		assert_string_equal(h2_stream(&c, stream)->message, "");
	}
	h2_close(&c);
}

/* ---- calls that end otherwise ---- */

static void test_cancel_storm(void **state)
{
	enum { STORM = 5000 };
	struct h2_client c;

	(void)state;
	connect_client(&c);
	for (uint32_t i = 0; i < STORM; i++) {
		h2_request(&c, i * 2 + 1, "/test.Echo/Sleep", NULL);
		h2_reset(&c, i * 2 + 1, NGHTTP2_CANCEL);
	}
	h2_pump(&c);
	assert_int_equal(echo_stats.opened, STORM);
	assert_int_equal(echo_stats.closed[NET_END_CANCELLED], STORM);
	assert_int_equal(c.goaways, 0);
	assert_alive(&c, STORM * 2 + 1);
	h2_close(&c);
}

/* Calls in every state when the client vanishes, one of them inside a message. */
static void test_disconnect(void **state)
{
	static const char half[] = "\0\0\0\0\12half";
	uint8_t flood[8] = {0, 1, 0, 0, 0, 0, 1, 0};
	struct net_stats stats;
	struct h2_client c;

	(void)state;
	connect_client(&c);
	c.keep_windows = true;
	h2_request(&c, 1, "/test.Echo/Sleep", (struct h2_header[]){{"grpc-timeout", "1H"}, {0}});
	h2_request(&c, 3, "/test.Echo/Unary", NULL);
	h2_data(&c, 3, 0, half, sizeof(half) - 1);
	h2_request(&c, 5, "/test.Echo/Flood", NULL);
	h2_message(&c, 5, END, flood, 8);
	h2_request(&c, 7, "/test.Echo/Hold", NULL);
	h2_message(&c, 7, 0, "abc", 3);
	h2_message(&c, 7, 0, "def", 3);
	h2_pump(&c);
	assert_int_equal(echo_stats.opened, 4);
	h2_close(&c);
	c.fd = -1;
	h2_pump(&c);
	assert_int_equal(echo_stats.closed[NET_END_DISCONNECTED], 4);
	net_get_stats(server, &stats);
	assert_int_equal(stats.calls, 0);
	assert_int_equal(stats.connections, 0);
	assert_server_alive();
}

static void test_deadline(void **state)
{
	static const char *const bad[] = {"", "1", "S", "123456789S", "1x", "-1S", "1 S", "1.5S"};
	struct h2_client c;

	(void)state;
	connect_client(&c);
	h2_request(&c, 1, "/test.Echo/Sleep", (struct h2_header[]){{"grpc-timeout", "20m"}, {0}});
	h2_message(&c, 1, END, "x", 1);
	h2_request(&c, 3, "/test.Echo/Sleep", (struct h2_header[]){{"grpc-timeout", "1H"}, {0}});
	h2_request(&c, 5, "/test.Echo/Sleep",
		   (struct h2_header[]){{"grpc-timeout", "10000u"}, {0}});
	h2_wait(&c, &h2_stream(&c, 1)->ended);
	assert_trailers_only(h2_stream(&c, 1), NET_DEADLINE_EXCEEDED);
	assert_trailers_only(h2_stream(&c, 5), NET_DEADLINE_EXCEEDED);
	assert_int_equal(h2_stream(&c, 3)->headers, 0);
	assert_int_equal(echo_stats.closed[NET_END_DEADLINE], 2);
	h2_request(&c, 7, "/test.Echo/Unary", (struct h2_header[]){{"grpc-timeout", "0n"}, {0}});
	h2_pump(&c);
	assert_trailers_only(h2_stream(&c, 7), NET_DEADLINE_EXCEEDED);
	for (uint32_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		uint32_t stream = 9 + i * 2;

		h2_request(&c, stream, "/test.Echo/Unary",
			   (struct h2_header[]){{"grpc-timeout", bad[i]}, {0}});
		h2_pump(&c);
		assert_trailers_only(h2_stream(&c, stream), NET_INTERNAL);
	}
	/* A deadline that is met leaves nothing behind. */
	h2_request(&c, 101, "/test.Echo/Unary", (struct h2_header[]){{"grpc-timeout", "5S"}, {0}});
	h2_message(&c, 101, END, "x", 1);
	h2_pump(&c);
	assert_int_equal(h2_stream(&c, 101)->grpc_status, 0);
	h2_close(&c);
}

/* A deadline that passes while a message is half sent resets the stream. */
static void test_deadline_inside_output(void **state)
{
	static const uint8_t flood[8] = {0, 0, 0, 1, 0, 4, 0, 0};
	struct h2_stream *s;
	struct h2_client c;

	(void)state;
	connect_client(&c);
	c.keep_windows = true;
	h2_request(&c, 1, "/test.Echo/Flood", (struct h2_header[]){{"grpc-timeout", "30m"}, {0}});
	/* Not ended, so the call is unfinished while its output waits for the window. */
	h2_message(&c, 1, 0, flood, 8);
	h2_request(&c, 3, "/test.Echo/Stream", (struct h2_header[]){{"grpc-timeout", "30m"}, {0}});
	for (unsigned i = 0; i < 8; i++)
		h2_message(&c, 3, 0, (uint8_t[16000]){0}, 16000);
	h2_pump(&c);
	assert_int_equal(h2_stream(&c, 3)->data.length, 65535);
	while (!h2_stream(&c, 3)->resets || !h2_stream(&c, 1)->ended) {
		uv_run(&loop, UV_RUN_ONCE);
		h2_pump(&c);
	}
	s = h2_stream(&c, 3);
	assert_int_equal(s->reset_code, NGHTTP2_CANCEL);
	assert_int_equal(s->grpc_status, -1);
	assert_int_equal(h2_stream(&c, 1)->grpc_status, NET_DEADLINE_EXCEEDED);
	h2_window(&c, 0, 1024 * KIB);
	assert_alive(&c, 5);
	h2_close(&c);
}

/* ---- slow clients ---- */

/* The client sends and does not read: it is stopped, and then served in full. */
static void test_slow_reader(void **state)
{
	enum { MESSAGE = 32000, TRIES = 200 };
	uint8_t *bytes = calloc(1, MESSAGE);
	size_t left = 0, sent = 0;
	struct h2_client c;
	struct h2_stream *s;

	(void)state;
	assert_non_null(bytes);
	connect_client(&c);
	c.keep_windows = true;
	h2_request(&c, 1, "/test.Echo/Stream", NULL);
	while (!left && sent < TRIES) {
		left = h2_message_obey(&c, 1, 0, bytes, MESSAGE);
		sent++;
	}
	assert_true(left > 0);
	/* What may be queued: until the window is kept back, and a window more. */
	assert_true(echo_stats.largest_queue <= 2 * 256 * KIB + MESSAGE + 5);
	/* Another call of the same connection does not suffer for it. */
	h2_window(&c, 0, 64 * KIB);
	h2_window(&c, 1, 0x1000000);
	h2_window(&c, 0, 0x1000000);
	c.keep_windows = false;
	h2_pump(&c);
	s = h2_stream(&c, 1);
	assert_int_equal(s->data.length, (sent - 1) * (MESSAGE + 5));
	/* The rest of the last message, and the end. */
	while (left) {
		size_t part = left < 16384 ? left : 16384;

		h2_data(&c, 1, left == part ? END : 0, bytes, part);
		left -= part;
	}
	h2_pump(&c);
	s = h2_stream(&c, 1);
	assert_int_equal(s->data.length, sent * (MESSAGE + 5));
	assert_int_equal(s->grpc_status, 0);
	free(bytes);
	h2_close(&c);
}

/* A server stream produces only what is taken; writable() carries it to its end. */
static void test_flood(void **state)
{
	/* 2000 messages of 4096 bytes. */
	static const uint8_t flood[8] = {0, 0, 7, 0xd0, 0, 0, 0x10, 0};
	struct h2_client c;
	struct h2_stream *s;

	(void)state;
	connect_client(&c);
	c.keep_windows = true;
	h2_request(&c, 1, "/test.Echo/Flood", NULL);
	h2_message(&c, 1, END, flood, 8);
	h2_pump(&c);
	s = h2_stream(&c, 1);
	assert_int_equal(s->data.length, 65535);
	assert_true(echo_stats.largest_queue <= 256 * KIB + 4096 + 5);
	/* Again and again a little: the queue must never run dry for good. */
	while (!h2_stream(&c, 1)->ended) {
		uint64_t before = c.received;

		h2_window(&c, 0, 50000);
		h2_window(&c, 1, 50000);
		h2_pump(&c);
		assert_true(c.received > before || h2_stream(&c, 1)->ended);
	}
	s = h2_stream(&c, 1);
	assert_int_equal(s->grpc_status, 0);
	assert_int_equal(s->data.length, 2000 * (4096 + 5));
	assert_true(echo_stats.largest_queue <= 256 * KIB + 4096 + 5);
	h2_close(&c);
}

/* A client that gives windows for everything and reads nothing from its socket. */
static void test_deaf_socket(void **state)
{
	static const uint8_t flood[8] = {0, 1, 0, 0, 0, 0, 0x10, 0};
	struct net_stats before, after;
	struct h2_client c;

	(void)state;
	h2_connect(&c, &loop, address);
	h2_start(&c, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0x7fffffff);
	h2_window(&c, 0, 0x7fff0000);
	h2_pump(&c);
	h2_request(&c, 1, "/test.Echo/Flood", NULL);
	h2_message(&c, 1, END, flood, 8);
	for (unsigned i = 0; i < 1000; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	net_get_stats(server, &before);
	for (unsigned i = 0; i < 1000; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	net_get_stats(server, &after);
	/* It stands still, far from the 256 MiB that were asked for. */
	assert_int_equal(before.bytes_out, after.bytes_out);
	assert_true(after.bytes_out < 4 * 1024 * KIB);
	assert_true(echo_stats.largest_queue <= 256 * KIB + 4096 + 5);
	h2_pump(&c);
	assert_true(c.received > after.bytes_out);
	h2_close(&c);
}

/* Too much output for a connection: its window is kept back, and comes back. */
static void test_output_limit(void **state)
{
	enum { STREAMS = 20, MESSAGE = 100000 };
	uint8_t *bytes = calloc(1, MESSAGE);
	size_t blocked = 0;
	struct h2_client c;

	(void)state;
	assert_non_null(bytes);
	stop_server();
	start_server(&(struct net_limits){.output_bytes = 512 * KIB}, NULL);
	connect_client(&c);
	c.keep_windows = true;
	for (uint32_t i = 0; i < STREAMS; i++) {
		h2_request(&c, i * 2 + 1, "/test.Echo/Stream", NULL);
		blocked += h2_message_obey(&c, i * 2 + 1, 0, bytes, MESSAGE) != 0;
	}
	/* Half a MiB until it is held, one of the connection's window after. */
	assert_true(blocked >= 3);
	assert_true(c.connection_window <= 0);
	c.keep_windows = false;
	for (uint32_t i = 0; i < STREAMS; i++)
		h2_window(&c, i * 2 + 1, 0x1000000);
	h2_window(&c, 0, 0x1000000);
	h2_pump(&c);
	assert_true(c.connection_window > 0);
	assert_alive(&c, 1001);
	free(bytes);
	h2_close(&c);
}

static void test_pause(void **state)
{
	struct h2_client c;
	struct h2_stream *s;
	size_t left = 0;
	unsigned sent;
	uint8_t *bytes = calloc(1, 20000);

	(void)state;
	assert_non_null(bytes);
	connect_client(&c);
	h2_request(&c, 1, "/test.Echo/Hold", NULL);
	/* Three in one frame: one is delivered, two wait. */
	h2_data(&c, 1, 0, "\0\0\0\0\1a\0\0\0\0\1b\0\0\0\0\1c", 18);
	h2_pump(&c);
	assert_int_equal(echo_stats.messages, 1);
	for (unsigned i = 2; i <= 3; i++) {
		assert_int_equal(echo_resume_all(), 1);
		h2_pump(&c);
		assert_int_equal(echo_stats.messages, i);
	}
	assert_int_equal(echo_resume_all(), 1);
	h2_pump(&c);
	/* While it is paused the client can send one window and no more. */
	for (sent = 0; sent < 100 && !left; sent++)
		left = h2_message_obey(&c, 1, 0, bytes, 20000);
	assert_true(left > 0);
	assert_in_range(sent, 256 * KIB / 20005, 256 * KIB / 20005 + 2);
	assert_int_equal(echo_stats.messages, 4);
	while (echo_resume_all())
		h2_pump(&c);
	assert_int_equal(echo_stats.messages, 3 + sent - 1);
	h2_data(&c, 1, 0, bytes, left < 16384 ? left : 16384);
	if (left > 16384)
		h2_data(&c, 1, 0, bytes, left - 16384);
	h2_pump(&c);
	assert_int_equal(echo_stats.messages, 3 + sent);
	/* The half-close waits, too. */
	h2_data(&c, 1, END, "\0\0\0\0\1z", 6);
	h2_pump(&c);
	assert_int_equal(echo_stats.half_closes, 0);
	while (echo_resume_all())
		h2_pump(&c);
	s = h2_stream(&c, 1);
	assert_int_equal(echo_stats.half_closes, 1);
	assert_int_equal(s->grpc_status, 0);
	assert_int_equal(s->data.length, 3 * 6 + sent * 20005 + 6);
	free(bytes);
	h2_close(&c);
}

/* ---- the end of the server ---- */

static void test_graceful_shutdown(void **state)
{
	struct h2_client c;
	struct stat st;

	(void)state;
	connect_client(&c);
	c.no_ping_ack = true;
	h2_request(&c, 1, "/test.Echo/Stream", NULL);
	h2_message(&c, 1, 0, "one", 3);
	h2_pump(&c);
	net_shutdown(server, 1000000, done_cb, &done);
	h2_pump(&c);
	/* The notice: nothing is refused yet. */
	assert_int_equal(c.goaways, 1);
	assert_int_equal(c.goaway_last, 0x7fffffff);
	assert_int_equal(c.pings, 1);
	assert_alive(&c, 3);
	assert_int_equal(stat(address + 5, &st), -1);
	/* The client has seen it. */
	{
		struct h2_bytes out = {0};

		h2_frame(&out, NGHTTP2_PING, NGHTTP2_FLAG_ACK, 0, "\0\0\0\0\0\0\0\0", 8);
		h2_write(&c, out.at, out.length);
		h2_bytes_free(&out);
	}
	h2_pump(&c);
	assert_int_equal(c.goaways, 2);
	assert_int_equal(c.goaway_last, 3);
	assert_int_equal(c.goaway_code, NGHTTP2_NO_ERROR);
	/* New streams are not taken; the old one finishes. */
	h2_request(&c, 5, "/test.Echo/Unary", NULL);
	h2_message(&c, 5, END, "x", 1);
	h2_message(&c, 1, END, "two", 3);
	h2_pump(&c);
	assert_int_equal(h2_stream(&c, 5)->grpc_status, -1);
	assert_int_equal(h2_stream(&c, 1)->grpc_status, 0);
	assert_int_equal(h2_stream(&c, 1)->data.length, 16);
	assert_true(c.eof);
	assert_false(done);
	h2_close(&c);
	run_until_done();
	assert_int_equal(echo_stats.closed[NET_END_FINISHED], 2);
}

/* Calls that do not end are ended when the grace is over. */
static void test_shutdown_grace(void **state)
{
	struct h2_client c;

	(void)state;
	connect_client(&c);
	h2_request(&c, 1, "/test.Echo/Sleep", NULL);
	h2_pump(&c);
	net_shutdown(server, 20, done_cb, &done);
	h2_wait(&c, &done);
	h2_pump(&c);
	assert_true(c.eof);
	assert_int_equal(c.goaways, 2);
	assert_int_equal(echo_stats.closed[NET_END_DISCONNECTED], 1);
	h2_close(&c);
}

static void test_idle(void **state)
{
	struct h2_client idle, busy;

	(void)state;
	stop_server();
	start_server(&(struct net_limits){.idle_seconds = 1}, NULL);
	connect_client(&idle);
	connect_client(&busy);
	h2_request(&busy, 1, "/test.Echo/Sleep", NULL);
	h2_pump(&busy);
	h2_wait(&idle, &idle.eof);
	h2_pump(&busy);
	assert_int_equal(idle.goaways, 2);
	assert_int_equal(idle.goaway_code, NGHTTP2_NO_ERROR);
	assert_int_equal(busy.goaways, 0);
	assert_alive(&busy, 3);
	h2_close(&idle);
	h2_close(&busy);
}

/* ---- who may come in ---- */

static void test_token(void **state)
{
	static const struct {
		const char *path, *authorization;
		int status;
	} cases[] = {
	    {"/test.Echo/Unary", NULL, NET_UNAUTHENTICATED},
	    {"/test.Echo/Nothing", NULL, NET_UNAUTHENTICATED},
	    {"/test.Echo/Unary", "", NET_UNAUTHENTICATED},
	    {"/test.Echo/Unary", "Bearer", NET_UNAUTHENTICATED},
	    {"/test.Echo/Unary", "Bearer secreT", NET_UNAUTHENTICATED},
	    {"/test.Echo/Unary", "Bearer secret1", NET_UNAUTHENTICATED},
	    {"/test.Echo/Unary", "Bearer secre", NET_UNAUTHENTICATED},
	    {"/test.Echo/Unary", "Bearer secretsecret", NET_UNAUTHENTICATED},
	    {"/test.Echo/Unary", "Basic secret", NET_UNAUTHENTICATED},
	    {"/test.Echo/Unary", "Bearer secret", NET_OK},
	    {"/test.Echo/Unary", "bearer secret", NET_OK},
	    {"/test.Echo/Nothing", "Bearer secret", NET_UNIMPLEMENTED},
	    {"/test.Echo/Public", NULL, NET_OK},
	    {"/test.Echo/Public", "Bearer wrong", NET_OK},
	};
	struct h2_client c;

	(void)state;
	stop_server();
	start_server(NULL, "secret");
	h2_connect(&c, &loop, tcp_address);
	h2_start(&c, 0, 0);
	for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *value = cases[i].authorization;
		struct h2_header extra[] = {{value ? "authorization" : NULL, value}, {0}};

		h2_request(&c, i * 2 + 1, cases[i].path, extra);
		h2_message(&c, i * 2 + 1, END, "x", 1);
		/* TCP needs a moment, so wait for the answer and not for quiet. */
		h2_wait(&c, &h2_stream(&c, i * 2 + 1)->ended);
		assert_int_equal(h2_stream(&c, i * 2 + 1)->grpc_status, cases[i].status);
	}
	h2_close(&c);
	/* A Unix socket is guarded by its mode instead. */
	assert_server_alive();
}

static void assert_refused(const char *where, int code, const char *says)
{
	char err[256] = "", got[64];
	int rc = net_listen(server, where, got, sizeof(got), err, sizeof(err));

	assert_int_equal(rc, code);
	if (!strstr(err, says))
		fail_msg("%s: \"%s\" does not say \"%s\"", where, err, says);
}

static void test_listen_refuses(void **state)
{
	char path[128], longer[300] = "unix:/tmp/";
	int fd;

	(void)state;
	assert_refused("tcp:127.0.0.1:0", UV_EACCES, "token");
	assert_refused("bogus", UV_EINVAL, "neither");
	assert_refused("unix:", UV_EINVAL, "path");
	memset(longer + strlen(longer), 'x', 150);
	assert_refused(longer, UV_ENAMETOOLONG, "longer");
	assert_refused("unix:/nonexistent/dir/sock", UV_ENOENT, "no such directory");
	snprintf(path, sizeof(path), "unix:/tmp/test_net.%d.file", (int)getpid());
	fd = open(path + 5, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_refused(path, UV_EEXIST, "not a socket");
	unlink(path + 5);
	/* Our own socket is live. */
	assert_refused(address, UV_EADDRINUSE, "another server");
	stop_server();
	start_server(NULL, "secret");
	assert_refused("tcp:0.0.0.0:0", UV_EACCES, "TLS");
	assert_refused("tcp:192.168.1.1:50051", UV_EACCES, "TLS");
	assert_refused("tcp:[::]:0", UV_EACCES, "TLS");
	assert_refused("tcp:example.com:80", UV_EACCES, "TLS");
	assert_refused("tcp:127.0.0.1", UV_EINVAL, "not tcp:HOST:PORT");
	assert_refused("tcp:127.0.0.1:65536", UV_EINVAL, "not a port");
	assert_refused("tcp:127.0.0.1:x", UV_EINVAL, "not a port");
	assert_refused("tcp:127.0.0.1:", UV_EINVAL, "not a port");
}

static void test_unix_socket_file(void **state)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	char path[100], got[128], err[128];
	struct stat st;
	int fd;

	(void)state;
	assert_int_equal(stat(address + 5, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	/* A socket whose server died is replaced. */
	snprintf(path, sizeof(path), "unix:/tmp/test_net.%d.stale", (int)getpid());
	snprintf(name.sun_path, sizeof(name.sun_path), "%s", path + 5);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof(name)), 0);
	close(fd);
	assert_int_equal(net_listen(server, path, got, sizeof(got), err, sizeof(err)), 0);
	assert_string_equal(got, path);
	stop_server();
	assert_int_equal(stat(path + 5, &st), -1);
	assert_int_equal(stat(address + 5, &st), -1);
	start_server(NULL, NULL);
}

/* ---- wrong HTTP/2 ---- */

static void test_not_http2(void **state)
{
	static const char http1[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
	struct h2_client c;

	(void)state;
	h2_connect(&c, &loop, address);
	h2_write(&c, http1, sizeof(http1) - 1);
	h2_pump(&c);
	assert_true(c.eof);
	h2_close(&c);
	assert_server_alive();
}

struct frame_case {
	uint8_t type, flags;
	uint32_t stream;
	size_t length;
	uint32_t code; /* of the GOAWAY */
};

static void test_broken_frames(void **state)
{
	static const struct frame_case cases[] = {
	    {NGHTTP2_DATA, 0, 0, 10, NGHTTP2_PROTOCOL_ERROR},
	    {NGHTTP2_DATA, 0, 7, 10, NGHTTP2_PROTOCOL_ERROR}, /* idle stream */
	    {NGHTTP2_DATA, 0, 1, 16385, NGHTTP2_FRAME_SIZE_ERROR},
	    {NGHTTP2_DATA, NGHTTP2_FLAG_PADDED, 1, 1, NGHTTP2_PROTOCOL_ERROR},
	    {NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 2, 10, NGHTTP2_PROTOCOL_ERROR},
	    {NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 3, 10, NGHTTP2_COMPRESSION_ERROR},
	    {NGHTTP2_CONTINUATION, NGHTTP2_FLAG_END_HEADERS, 3, 10, NGHTTP2_PROTOCOL_ERROR},
	    {NGHTTP2_SETTINGS, 0, 0, 5, NGHTTP2_FRAME_SIZE_ERROR},
	    {NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0, 6, NGHTTP2_FRAME_SIZE_ERROR},
	    {NGHTTP2_PING, 0, 0, 7, NGHTTP2_FRAME_SIZE_ERROR},
	    {NGHTTP2_PING, 0, 1, 8, NGHTTP2_PROTOCOL_ERROR},
	    {NGHTTP2_WINDOW_UPDATE, 0, 0, 3, NGHTTP2_FRAME_SIZE_ERROR},
	    {NGHTTP2_WINDOW_UPDATE, 0, 0, 4, NGHTTP2_FLOW_CONTROL_ERROR},
	    {NGHTTP2_PUSH_PROMISE, NGHTTP2_FLAG_END_HEADERS, 1, 10, NGHTTP2_PROTOCOL_ERROR},
	    {NGHTTP2_RST_STREAM, 0, 0, 4, NGHTTP2_PROTOCOL_ERROR},
	};
	uint8_t *payload = malloc(20000);

	(void)state;
	assert_non_null(payload);
	memset(payload, 0xff, 20000);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct h2_bytes out = {0};
		struct h2_client c;

		connect_client(&c);
		h2_request(&c, 1, "/test.Echo/Sleep", NULL);
		h2_frame(&out, cases[i].type, cases[i].flags, cases[i].stream, payload,
			 cases[i].length);
		h2_write(&c, out.at, out.length);
		h2_bytes_free(&out);
		h2_pump(&c);
		if (!c.goaways || c.goaway_code != cases[i].code)
			fail_msg("case %zu: %u goaways, code %u", i, c.goaways, c.goaway_code);
		assert_true(c.eof);
		h2_close(&c);
	}
	/* Frames of unknown kinds are to be ignored. */
	{
		struct h2_bytes out = {0};
		struct h2_client c;

		connect_client(&c);
		h2_frame(&out, 0xf0, 0xff, 0, payload, 100);
		h2_write(&c, out.at, out.length);
		h2_bytes_free(&out);
		assert_alive(&c, 1);
		h2_close(&c);
	}
	free(payload);
}

/* ---- the rules as functions ---- */

static void test_timeout_text(void **state)
{
	static const struct {
		const char *text;
		bool ok;
		uint64_t ns;
	} cases[] = {
	    {"1n", true, 1},
	    {"99999999n", true, 99999999},
	    {"00000001u", true, 1000},
	    {"7m", true, 7000000},
	    {"3S", true, 3000000000ull},
	    {"2M", true, 120000000000ull},
	    {"1H", true, 3600000000000ull},
	    {"99999999M", true, 5999999940000000000ull},
	    {"99999999H", true, UINT64_MAX},
	    {"0S", true, 0},
	    {"", false, 0},
	    {"S", false, 0},
	    {"000000001S", false, 0},
	    {"1s", false, 0},
	    {"+1S", false, 0},
	    {"1SS", false, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t ns = 12345;
		bool ok =
		    grpc_parse_timeout((const uint8_t *)cases[i].text, strlen(cases[i].text), &ns);

		assert_int_equal(ok, cases[i].ok);
		if (ok)
			assert_true(ns == cases[i].ns);
	}
}

static void test_message_text(void **state)
{
	char out[3 * GRPC_MESSAGE_TEXT], *longer = malloc(5000);
	size_t n;

	(void)state;
	assert_non_null(longer);
	n = grpc_encode_message("a%b\n\xff ~", out);
	assert_int_equal(n, strlen("a%25b%0A%FF ~"));
	assert_memory_equal(out, "a%25b%0A%FF ~", n);
	/* Cut, but not inside a character: 1023 bytes fit, the two-byte one does not. */
	memset(longer, 'x', 4999);
	longer[4999] = '\0';
	assert_int_equal(grpc_encode_message(longer, out), GRPC_MESSAGE_TEXT);
	memcpy(longer + GRPC_MESSAGE_TEXT - 1, "\xc3\xa9", 2);
	assert_int_equal(grpc_encode_message(longer, out), GRPC_MESSAGE_TEXT - 1);
	free(longer);
}

#define SERVED(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    SERVED(test_unary),
	    SERVED(test_byte_by_byte),
	    SERVED(test_messages_in_one_frame),
	    SERVED(test_empty_stream),
	    SERVED(test_no_body),
	    SERVED(test_large_message),
	    SERVED(test_many_streams),
	    SERVED(test_pings_are_welcome),
	    SERVED(test_unknown_method),
	    SERVED(test_http_errors),
	    SERVED(test_header_limit),
	    SERVED(test_framing_errors),
	    SERVED(test_message_limit),
	    SERVED(test_unfinished_limit),
	    SERVED(test_stream_limit),
	    SERVED(test_connection_limit),
	    SERVED(test_early_end),
	    SERVED(test_status_message),
	    SERVED(test_cancel_storm),
	    SERVED(test_disconnect),
	    SERVED(test_deadline),
	    SERVED(test_deadline_inside_output),
	    SERVED(test_slow_reader),
	    SERVED(test_flood),
	    SERVED(test_deaf_socket),
	    SERVED(test_output_limit),
	    SERVED(test_pause),
	    SERVED(test_graceful_shutdown),
	    SERVED(test_shutdown_grace),
	    SERVED(test_idle),
	    SERVED(test_token),
	    SERVED(test_listen_refuses),
	    SERVED(test_unix_socket_file),
	    SERVED(test_not_http2),
	    SERVED(test_broken_frames),
	    cmocka_unit_test(test_timeout_text),
	    cmocka_unit_test(test_message_text),
	};

	return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
