/*
 * address.c - from an address to a connected socket.
 *
 * Two forms: unix:PATH and tcp:HOST:PORT. The socket comes back connected and
 * non-blocking. TLS is not spoken: the daemon listens beyond loopback only with it,
 * and this library does not reach it there yet.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "client.h"

char *address_default(void)
{
	const char *env = getenv("ZONED_ADDRESS");
	const char *run = getenv("XDG_RUNTIME_DIR");
	char *address;

	if (env && *env)
		return strdup(env);
	if (asprintf(&address, "unix:%s/zoned.sock", run && *run ? run : "/run/zoned") < 0)
		return NULL;
	return address;
}

/* Connects a non-blocking socket within the time left. 0 or an errno. */
static int connect_within(int fd, const struct sockaddr *sa, socklen_t length, uint64_t deadline)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	int err = 0;
	socklen_t err_length = sizeof err;

	if (connect(fd, sa, length) == 0)
		return 0;
	if (errno != EINPROGRESS)
		return errno;
	for (;;) {
		uint32_t left = clock_left_ms(deadline);
		int n = poll(&p, 1, left > INT32_MAX ? -1 : (int)left);

		if (n > 0)
			break;
		if (n == 0)
			return ETIMEDOUT;
		if (errno != EINTR)
			return errno;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &err_length) < 0)
		return errno;
	return err;
}

/* A connected socket, or -errno. */
static int socket_connect(int family, const struct sockaddr *sa, socklen_t length,
			  uint64_t deadline)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int err;

	if (fd < 0)
		return -errno;
	err = connect_within(fd, sa, length, deadline);
	if (err) {
		close(fd);
		return -err;
	}
	return fd;
}

static int connect_unix(const char *path, uint64_t deadline, char *err, size_t err_size)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd;

	if (strlen(path) >= sizeof sa.sun_path) {
		snprintf(err, err_size, "the socket's path is longer than %zu bytes: %s",
			 sizeof sa.sun_path - 1, path);
		return ZONED_ARGUMENT;
	}
	memcpy(sa.sun_path, path, strlen(path) + 1);
	fd = socket_connect(AF_UNIX, (struct sockaddr *)&sa, sizeof sa, deadline);
	if (fd < 0) {
		snprintf(err, err_size, "cannot connect to unix:%s: %s", path, strerror(-fd));
		return ZONED_UNREACHABLE;
	}
	return fd;
}

/* Splits HOST:PORT or [HOST]:PORT in place. */
static bool split_host_port(char *text, char **host, char **port)
{
	char *colon = strrchr(text, ':');

	if (!colon || colon == text || !colon[1])
		return false;
	*colon = '\0';
	*port = colon + 1;
	*host = text;
	if (*text == '[') {
		if (colon[-1] != ']')
			return false;
		colon[-1] = '\0';
		*host = text + 1;
	}
	return true;
}

static int connect_tcp(const char *host_port, uint64_t deadline, char *err, size_t err_size)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list, *a;
	char text[300], *host, *port;
	int rc, fd = -EADDRNOTAVAIL, one = 1;

	if (strlen(host_port) >= sizeof text) {
		snprintf(err, err_size, "the host's name is too long");
		return ZONED_ARGUMENT;
	}
	memcpy(text, host_port, strlen(host_port) + 1);
	if (!split_host_port(text, &host, &port)) {
		snprintf(err, err_size, "tcp:%s is not tcp:HOST:PORT", host_port);
		return ZONED_ARGUMENT;
	}
	rc = getaddrinfo(host, port, &hints, &list);
	if (rc) {
		snprintf(err, err_size, "cannot resolve %s: %s", host, gai_strerror(rc));
		return ZONED_UNREACHABLE;
	}
	for (a = list; a && fd < 0; a = a->ai_next)
		fd = socket_connect(a->ai_family, a->ai_addr, a->ai_addrlen, deadline);
	freeaddrinfo(list);
	if (fd < 0) {
		snprintf(err, err_size, "cannot connect to tcp:%s: %s", host_port, strerror(-fd));
		return ZONED_UNREACHABLE;
	}
	/* Every write is a whole turn's output: waiting for more only adds latency. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	return fd;
}

int address_connect(const char *address, uint32_t timeout_ms, char *err, size_t err_size)
{
	uint64_t deadline = clock_deadline(timeout_ms);

	if (strncmp(address, "unix:", 5) == 0)
		return connect_unix(address + 5, deadline, err, err_size);
	if (strncmp(address, "tcp:", 4) == 0)
		return connect_tcp(address + 4, deadline, err, err_size);
	snprintf(err, err_size, "%s is not an address: unix:PATH or tcp:HOST:PORT", address);
	return ZONED_ARGUMENT;
}
