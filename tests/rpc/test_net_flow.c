/*
 * test_net_flow.c - clients that read slowly or not at all, and the server's own end.
 */
#include <sys/stat.h>

#include "net_fixture.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
	    SERVED(test_slow_reader),	 SERVED(test_flood), SERVED(test_deaf_socket),
	    SERVED(test_output_limit),	 SERVED(test_pause), SERVED(test_graceful_shutdown),
	    SERVED(test_shutdown_grace), SERVED(test_idle),
	};

	return cmocka_run_group_tests_name("net flow", tests, NULL, NULL);
}
