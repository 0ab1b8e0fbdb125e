/*
 * test_net.c - calls through net/: good ones, refused ones, and every way to end.
 */
#include "net_fixture.h"

#define BIG (3u * 1024 * 1024)

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
	};

	return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
