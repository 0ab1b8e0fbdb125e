/*
 * test_net_access.c - who may connect, what is no HTTP/2 at all, and gRPC's small rules.
 */
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "grpc.h"
#include "net_fixture.h"

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

/* TCP without a token, for those who ask for it in so many words. */
static void test_insecure(void **state)
{
	const struct net_options options = {
	    .loop = &loop, .route = echo_route, .insecure_no_auth = true};
	struct net_server *open_server, *mine = server;
	char where[64], err[256];
	bool gone = false;
	struct h2_client c;

	(void)state;
	assert_int_equal(net_server_new(&options, &open_server), 0);
	assert_int_equal(
	    net_listen(open_server, "tcp:[::1]:0", where, sizeof(where), err, sizeof(err)), 0);
	assert_non_null(strstr(where, "[::1]:"));
	assert_int_equal(
	    net_listen(open_server, "tcp:localhost:0", where, sizeof(where), err, sizeof(err)), 0);
	server = open_server; /* whom the loop flushes */
	h2_connect(&c, &loop, where);
	h2_start(&c, 0, 0);
	h2_request(&c, 1, "/test.Echo/Unary", NULL);
	h2_message(&c, 1, END, "x", 1);
	h2_wait(&c, &h2_stream(&c, 1)->ended);
	assert_int_equal(h2_stream(&c, 1)->grpc_status, NET_OK);
	net_shutdown(open_server, 1000000, done_cb, &gone);
	h2_wait(&c, &gone);
	assert_true(c.goaways > 0);
	h2_close(&c);
	net_server_free(open_server);
	server = mine;
}

/* A daemon that fails to start frees a server that listens and has clients. */
static void test_free_without_shutdown(void **state)
{
	struct net_options options = {.loop = &loop, .route = echo_route};
	struct net_server *second, *mine = server;
	char path[100], err[256];
	struct h2_client c;

	(void)state;
	assert_int_equal(net_server_new(&options, &second), 0);
	snprintf(path, sizeof(path), "unix:/tmp/test_net.%d.second", (int)getpid());
	assert_int_equal(net_listen(second, path, NULL, 0, err, sizeof(err)), 0);
	server = second;
	h2_connect(&c, &loop, path);
	h2_start(&c, 0, 0);
	h2_request(&c, 1, "/test.Echo/Sleep", NULL);
	h2_pump(&c);
	assert_int_equal(echo_stats.opened, 1);
	server = mine;
	net_server_free(second);
	assert_int_equal(echo_stats.closed[NET_END_DISCONNECTED], 1);
	h2_pump(&c);
	assert_true(c.eof);
	h2_close(&c);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
	    SERVED(test_token),
	    SERVED(test_listen_refuses),
	    SERVED(test_unix_socket_file),
	    SERVED(test_insecure),
	    SERVED(test_free_without_shutdown),
	    SERVED(test_not_http2),
	    SERVED(test_broken_frames),
	    cmocka_unit_test(test_timeout_text),
	    cmocka_unit_test(test_message_text),
	};

	return cmocka_run_group_tests_name("net access", tests, NULL, NULL);
}
