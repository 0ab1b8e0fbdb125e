/*
 * relay.c - pumps bytes both ways until one side closes or the cut is due.
 */
#include "relay.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct relay {
	int listener, stop[2];
	struct sockaddr_un from, to;
	pthread_t thread;
	pthread_mutex_t mutex; /* of what follows */
	bool armed, cut;
	unsigned connections;
	enum relay_way way;
	size_t left;
	size_t each[2]; /* what the connections that come may carry, by turns; 0: anything */
};

static struct sockaddr_un address_of(const char *text)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	snprintf(a.sun_path, sizeof a.sun_path, "%s", text + strlen("unix:"));
	return a;
}

static void begin_connection(struct relay *r)
{
	pthread_mutex_lock(&r->mutex);
	r->connections++;
	if (r->each[0]) {
		size_t next = r->each[1];

		r->armed = true;
		r->left = next;
		r->each[1] = r->each[0];
		r->each[0] = next;
	}
	pthread_mutex_unlock(&r->mutex);
}

/* How much of `length` bytes may pass; fewer: the connection breaks behind them. */
static size_t allowed(struct relay *r, enum relay_way way, size_t length)
{
	pthread_mutex_lock(&r->mutex);
	if (r->armed && way == r->way) {
		if (length > r->left) {
			length = r->left;
			r->armed = false;
			r->cut = true;
		}
		r->left -= length;
	}
	pthread_mutex_unlock(&r->mutex);
	return length;
}

/* Carries over what is there. False: the connection is over. */
static bool carry(struct relay *r, int from, int to, enum relay_way way)
{
	char bytes[16384];
	ssize_t n = recv(from, bytes, sizeof bytes, 0);
	size_t length, sent = 0;

	if (n <= 0)
		return false;
	length = allowed(r, way, (size_t)n);
	while (sent < length) {
		ssize_t m = send(to, bytes + sent, length - sent, MSG_NOSIGNAL);

		if (m < 0)
			return false;
		sent += (size_t)m;
	}
	return length == (size_t)n;
}

static void pump(struct relay *r, int client, int daemon)
{
	struct pollfd p[] = {
	    {client, POLLIN, 0},
	    {daemon, POLLIN, 0},
	    {r->stop[0], POLLIN, 0},
	};

	for (;;) {
		if (poll(p, 3, -1) < 0 || p[2].revents)
			return;
		if (p[0].revents && !carry(r, client, daemon, TO_DAEMON))
			return;
		if (p[1].revents && !carry(r, daemon, client, TO_CLIENT))
			return;
	}
}

static void *run(void *arg)
{
	struct relay *r = arg;
	struct pollfd p[] = {{r->listener, POLLIN, 0}, {r->stop[0], POLLIN, 0}};

	while (poll(p, 2, -1) > 0 && !p[1].revents) {
		int client = accept(r->listener, NULL, NULL);
		int daemon = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		begin_connection(r);
		if (connect(daemon, (struct sockaddr *)&r->to, sizeof r->to) == 0)
			pump(r, client, daemon);
		close(daemon);
		close(client);
	}
	return NULL;
}

struct relay *relay_start(const char *from, const char *to)
{
	struct relay *r = calloc(1, sizeof *r);

	if (!r || pipe(r->stop))
		abort();
	r->from = address_of(from);
	r->to = address_of(to);
	r->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(r->listener, (struct sockaddr *)&r->from, sizeof r->from) ||
	    listen(r->listener, 8) || pthread_mutex_init(&r->mutex, NULL) ||
	    pthread_create(&r->thread, NULL, run, r))
		abort();
	return r;
}

void relay_stop(struct relay *r)
{
	if (write(r->stop[1], "", 1) != 1 || pthread_join(r->thread, NULL))
		abort();
	close(r->listener);
	close(r->stop[0]);
	close(r->stop[1]);
	unlink(r->from.sun_path);
	pthread_mutex_destroy(&r->mutex);
	free(r);
}

static void arm(struct relay *r, enum relay_way way, size_t bytes)
{
	pthread_mutex_lock(&r->mutex);
	r->armed = true;
	r->cut = false;
	r->way = way;
	r->left = bytes;
	pthread_mutex_unlock(&r->mutex);
}

void relay_cut_after(struct relay *r, enum relay_way way, size_t bytes)
{
	arm(r, way, bytes);
}

void relay_cut_each_after(struct relay *r, enum relay_way way, size_t bytes, size_t others)
{
	arm(r, way, bytes);
	pthread_mutex_lock(&r->mutex);
	r->each[0] = bytes;
	r->each[1] = others;
	pthread_mutex_unlock(&r->mutex);
}

unsigned relay_connections(struct relay *r)
{
	unsigned nr;

	pthread_mutex_lock(&r->mutex);
	nr = r->connections;
	pthread_mutex_unlock(&r->mutex);
	return nr;
}

bool relay_was_cut(struct relay *r)
{
	bool cut;

	pthread_mutex_lock(&r->mutex);
	r->armed = false;
	r->each[0] = r->each[1] = 0;
	cut = r->cut;
	pthread_mutex_unlock(&r->mutex);
	return cut;
}
