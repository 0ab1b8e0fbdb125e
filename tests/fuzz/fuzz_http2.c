/*
 * fuzz_http2.c - bytes of a client on a connection of net/: HTTP/2, and gRPC's frames in it.
 *
 * The server is the tests' own with its echo methods, on a loop and a socket that live for all
 * tries; each try is a connection. The first byte's lowest bit: the client's preface and
 * SETTINGS come before what is given. Then pieces: a byte n, and n + 1 bytes that are written
 * at once, between turns of the loop.
 *
 * What must hold: when the client has gone, so have its connection and calls, and every call
 * that was opened has been closed once.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "echo.h"
#include "fuzz.h"
#include "net.h"

static uv_loop_t loop;
static uv_prepare_t prepare;
static uv_check_t check;
static struct net_server *server;
static char path[64];

static void on_prepare(uv_prepare_t *handle)
{
	(void)handle;
	net_flush(server);
}

static void on_check(uv_check_t *handle)
{
	(void)handle;
	net_flush(server);
}

static void remove_socket(void)
{
	unlink(path);
}

static void open_server(void)
{
	/* Small ones, so that short inputs reach them. */
	const struct net_options options = {
	    .loop = &loop,
	    .route = echo_route,
	    .limits = {.streams = 8, .message_bytes = 4096, .output_bytes = 16384}};
	char address[80], bound[200], err[256] = "";

	signal(SIGPIPE, SIG_IGN); /* as the daemon does */
	FUZZ_CHECK(uv_loop_init(&loop) == 0);
	uv_prepare_init(&loop, &prepare);
	uv_prepare_start(&prepare, on_prepare);
	uv_check_init(&loop, &check);
	uv_check_start(&check, on_check);
	FUZZ_CHECK(net_server_new(&options, &server) == 0);
	snprintf(path, sizeof path, "/tmp/zoned-fuzz.%d.sock", (int)getpid());
	snprintf(address, sizeof address, "unix:%s", path);
	FUZZ_CHECK(net_listen(server, address, bound, sizeof bound, err, sizeof err) == 0);
	atexit(remove_socket);
}

static int connect_client(void)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
	FUZZ_CHECK(fd >= 0 && connect(fd, (const struct sockaddr *)&to, sizeof to) == 0);
	return fd;
}

/* A turn of the loop, and whatever the server has said is thrown away. False: it has hung up. */
static bool turn(int fd)
{
	static uint8_t bytes[1 << 16];
	ssize_t n;

	uv_run(&loop, UV_RUN_NOWAIT);
	echo_resume_all();
	while ((n = read(fd, bytes, sizeof bytes)) > 0)
		continue;
	return n < 0 && errno == EAGAIN;
}

/* Writes all of it, as the server takes it. */
static bool say(int fd, const uint8_t *bytes, size_t length)
{
	while (length) {
		ssize_t n = send(fd, bytes, length, MSG_NOSIGNAL);

		if (n > 0) {
			bytes += n;
			length -= (size_t)n;
		}
		if (!turn(fd) || (n < 0 && errno != EAGAIN))
			return false;
	}
	return true;
}

static bool everything_is_closed(void)
{
	struct net_stats stats;

	net_get_stats(server, &stats);
	return stats.connections == 0 && stats.calls == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	/* The preface, and SETTINGS of none. */
	static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
	bool more = true;
	unsigned closed = 0;
	int fd;

	if (!server)
		open_server();
	memset(&echo_stats, 0, sizeof echo_stats);
	fd = connect_client();
	if (length && bytes[0] & 1)
		more = say(fd, (const uint8_t *)preface, sizeof preface);
	for (size_t at = 1; at < length && more;) {
		size_t piece = (size_t)bytes[at++] + 1;

		if (piece > length - at)
			piece = length - at;
		more = say(fd, bytes + at, piece);
		at += piece;
	}
	close(fd);
	while (!everything_is_closed())
		uv_run(&loop, UV_RUN_NOWAIT);
	for (unsigned i = 0; i < sizeof echo_stats.closed / sizeof echo_stats.closed[0]; i++)
		closed += echo_stats.closed[i];
	FUZZ_CHECK(closed == echo_stats.opened);
	return 0;
}
