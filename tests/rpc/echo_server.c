/*
 * echo_server.c - the echo methods, health and reflection as a program, for stock
 * clients and for measuring net/ by itself.
 *
 *     echo_server ADDRESS [TOKEN]
 *
 * Prints where it listens. SIGUSR1 turns health over; SIGTERM ends it gracefully.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "echo.h"
#include "standard.h"

enum { GRACE_MS = 2000 };

static struct net_server *server;
static uv_prepare_t prepare;
static uv_check_t check;
static uv_signal_t terminate, turn_over;
static bool serving = true;

static const struct net_method *route(void *user, const char *path, size_t length)
{
	const struct net_method *tables[] = {health_methods, reflection_methods};
	const unsigned sizes[] = {HEALTH_METHODS, REFLECTION_METHODS};

	for (unsigned t = 0; t < 2; t++) {
		for (unsigned i = 0; i < sizes[t]; i++) {
			if (strlen(tables[t][i].path) == length &&
			    memcmp(tables[t][i].path, path, length) == 0)
				return &tables[t][i];
		}
	}
	return echo_route(user, path, length);
}

/* After input, and before the loop sleeps: whatever made output, it leaves now. */
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
	(void)user;
	uv_stop(prepare.loop);
}

static void terminate_cb(uv_signal_t *handle, int number)
{
	(void)number;
	uv_signal_stop(handle);
	net_shutdown(server, GRACE_MS, done_cb, NULL);
}

static void turn_over_cb(uv_signal_t *handle, int number)
{
	(void)handle, (void)number;
	serving = !serving;
	health_set(serving);
}

int main(int argc, char **argv)
{
	uv_loop_t *loop = uv_default_loop();
	struct net_options options = {.loop = loop, .route = route};
	char address[256], err[256];

	if (argc < 2) {
		fprintf(stderr, "usage: %s ADDRESS [TOKEN]\n", argv[0]);
		return 2;
	}
	options.token = argc > 2 ? argv[2] : NULL;
	if (net_server_new(&options, &server) ||
	    net_listen(server, argv[1], address, sizeof(address), err, sizeof(err))) {
		fprintf(stderr, "%s\n", server ? err : "out of memory");
		return 1;
	}
	health_set(serving);
	uv_prepare_init(loop, &prepare);
	uv_prepare_start(&prepare, prepare_cb);
	uv_check_init(loop, &check);
	uv_check_start(&check, check_cb);
	uv_signal_init(loop, &terminate);
	uv_signal_start(&terminate, terminate_cb, SIGTERM);
	uv_signal_init(loop, &turn_over);
	uv_signal_start(&turn_over, turn_over_cb, SIGUSR1);
	printf("listening %s\n", address);
	fflush(stdout);
	uv_run(loop, UV_RUN_DEFAULT);
	net_server_free(server);
	return 0;
}
