/*
 * listen.c - addresses, and the sockets that wait for clients.
 *
 * Who may connect is decided here: a Unix socket by its mode (0600), TCP by a token and
 * only from the machine itself. Addresses are never looked up: a name that resolves
 * elsewhere must not open the daemon to a network.
 *
 * Invariant: a Unix socket's file is removed by whoever made it, when libuv closes it.
 */
#include "internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

struct sentence {
	char *text;
	size_t size;
};

__attribute__((format(printf, 3, 4))) static int fail(struct sentence err, int code,
						      const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (err.size)
		vsnprintf(err.text, err.size, format, args);
	va_end(args);
	return code;
}

static void connection_cb(uv_stream_t *stream, int status)
{
	/* A failed accept (out of descriptors) leaves the client in the backlog. */
	if (status == 0)
		connection_accept(NET_CONTAINER(stream, struct net_listener, stream));
}

static void listener_closed_cb(uv_handle_t *handle)
{
	struct net_listener *listener = NET_CONTAINER(handle, struct net_listener, handle);
	struct net_server *server = listener->server;

	free(listener);
	server_handle_closed(server);
}

static void listener_close(struct net_listener *listener)
{
	LIST_REMOVE(listener, link);
	uv_close(&listener->handle, listener_closed_cb);
}

void listeners_close(struct net_server *server)
{
	while (!LIST_EMPTY(&server->listeners))
		listener_close(LIST_FIRST(&server->listeners));
}

static struct net_listener *listener_new(struct net_server *server, bool is_tcp)
{
	struct net_listener *listener = calloc(1, sizeof(*listener));

	if (!listener)
		return NULL;
	listener->server = server;
	listener->is_tcp = is_tcp;
	if (is_tcp)
		uv_tcp_init(server->loop, &listener->tcp);
	else
		uv_pipe_init(server->loop, &listener->pipe, 0);
	LIST_INSERT_HEAD(&server->listeners, listener, link);
	server->open_handles++;
	return listener;
}

/* Whether anybody answers at the socket; a stale file refuses. */
static bool is_live(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int rc = connect(fd, (const struct sockaddr *)address, sizeof(*address));
	bool live = rc == 0 || errno != ECONNREFUSED;

	if (fd >= 0)
		close(fd);
	return live;
}

/* libuv reports a missing directory as EACCES, which would send people the wrong way. */
static bool has_directory(const char *path)
{
	char directory[PATH_MAX];
	const char *slash = strrchr(path, '/');

	if (!slash || slash == path)
		return true;
	snprintf(directory, sizeof(directory), "%.*s", (int)(slash - path), path);
	return access(directory, F_OK) == 0;
}

/* Makes way for a new socket: removes a stale one, refuses anything else. */
static int clear_path(const char *path, struct sentence err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct stat st;

	if (strlen(path) >= sizeof(address.sun_path))
		return fail(err, UV_ENAMETOOLONG, "%s: longer than a socket's path may be (%zu)",
			    path, sizeof(address.sun_path) - 1);
	if (!has_directory(path))
		return fail(err, UV_ENOENT, "%s: no such directory", path);
	if (lstat(path, &st) != 0)
		return errno == ENOENT ? 0 : fail(err, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return fail(err, UV_EEXIST, "%s exists and is not a socket", path);
	memcpy(address.sun_path, path, strlen(path) + 1);
	if (is_live(&address))
		return fail(err, UV_EADDRINUSE, "%s: another server is listening there", path);
	if (unlink(path) != 0)
		return fail(err, -errno, "%s: %s", path, strerror(errno));
	return 0;
}

static int start(struct net_listener *listener, const char *name, struct sentence err)
{
	int rc = uv_listen(&listener->stream, LISTEN_BACKLOG, connection_cb);

	if (rc == 0)
		return 0;
	listener_close(listener);
	return fail(err, rc, "%s: %s", name, uv_strerror(rc));
}

static int listen_unix(struct net_server *server, const char *path, char *ret_address,
		       size_t ret_size, struct sentence err)
{
	struct net_listener *listener;
	mode_t mask;
	int rc;

	if (!*path)
		return fail(err, UV_EINVAL, "unix: needs a path");
	rc = clear_path(path, err);
	if (rc)
		return rc;
	listener = listener_new(server, false);
	if (!listener)
		return fail(err, UV_ENOMEM, "out of memory");
	/* The mode must hold from the first moment, so a chmod() afterwards is too late. */
	mask = umask(0177);
	rc = uv_pipe_bind(&listener->pipe, path);
	umask(mask);
	if (rc) {
		listener_close(listener);
		return fail(err, rc, "%s: %s", path, uv_strerror(rc));
	}
	rc = start(listener, path, err);
	if (rc == 0 && ret_address)
		snprintf(ret_address, ret_size, "unix:%s", path);
	return rc;
}

/* "HOST:PORT" with a loopback HOST into an address. */
static int parse_loopback(const char *text, struct sockaddr_storage *ret, struct sentence err)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;
	const char *colon = strrchr(text, ':');
	char host[64], *end;
	unsigned long port;
	size_t n;

	if (!colon || colon == text || (size_t)(colon - text) >= sizeof(host))
		return fail(err, UV_EINVAL, "tcp:%s: not tcp:HOST:PORT", text);
	port = strtoul(colon + 1, &end, 10);
	if (colon[1] < '0' || colon[1] > '9' || *end || port > 65535)
		return fail(err, UV_EINVAL, "tcp:%s: not a port", text);
	n = (size_t)(colon - text);
	if (text[0] == '[' && text[n - 1] == ']') {
		text++;
		n -= 2;
	}
	memcpy(host, text, n);
	host[n] = '\0';
	memset(ret, 0, sizeof(*ret));
	/* The one name that is allowed is not looked up either. */
	if (strcmp(host, "localhost") == 0)
		strcpy(host, "127.0.0.1");
	if (uv_ip4_addr(host, (int)port, v4) == 0 && ntohl(v4->sin_addr.s_addr) >> 24 == 127)
		return 0;
	if (uv_ip6_addr(host, (int)port, v6) == 0 && IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr))
		return 0;
	return fail(err, UV_EACCES,
		    "tcp:%s:%lu: only loopback addresses are served: beyond this machine zoned "
		    "would need TLS, which does not exist yet",
		    host, port);
}

static void tcp_name(const uv_tcp_t *tcp, char *ret_address, size_t ret_size)
{
	struct sockaddr_storage bound;
	int size = sizeof(bound);
	char host[64] = "";

	uv_tcp_getsockname(tcp, (struct sockaddr *)&bound, &size);
	if (bound.ss_family == AF_INET6) {
		const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&bound;

		uv_ip6_name(v6, host, sizeof(host));
		snprintf(ret_address, ret_size, "[%s]:%u", host, ntohs(v6->sin6_port));
	} else {
		const struct sockaddr_in *v4 = (const struct sockaddr_in *)&bound;

		uv_ip4_name(v4, host, sizeof(host));
		snprintf(ret_address, ret_size, "%s:%u", host, ntohs(v4->sin_port));
	}
}

static int listen_tcp(struct net_server *server, const char *text, char *ret_address,
		      size_t ret_size, struct sentence err)
{
	struct sockaddr_storage address;
	struct net_listener *listener;
	int rc = parse_loopback(text, &address, err);

	if (rc)
		return rc;
	if (!server->options.insecure_no_auth &&
	    (!server->options.token || !*server->options.token))
		return fail(err, UV_EACCES,
			    "tcp:%s: TCP needs a token, because any user of this machine "
			    "could connect",
			    text);
	listener = listener_new(server, true);
	if (!listener)
		return fail(err, UV_ENOMEM, "out of memory");
	rc = uv_tcp_bind(&listener->tcp, (const struct sockaddr *)&address, 0);
	if (rc) {
		listener_close(listener);
		return fail(err, rc, "tcp:%s: %s", text, uv_strerror(rc));
	}
	rc = start(listener, text, err);
	if (rc == 0 && ret_address)
		tcp_name(&listener->tcp, ret_address, ret_size);
	return rc;
}

int net_listen(struct net_server *server, const char *address, char *ret_address,
	       size_t ret_address_size, char *err, size_t err_size)
{
	struct sentence sentence = {err, err ? err_size : 0};

	if (strncmp(address, "unix:", 5) == 0)
		return listen_unix(server, address + 5, ret_address, ret_address_size, sentence);
	if (strncmp(address, "tcp:", 4) == 0)
		return listen_tcp(server, address + 4, ret_address, ret_address_size, sentence);
	return fail(sentence, UV_EINVAL, "%s: neither unix:PATH nor tcp:HOST:PORT", address);
}
