/*
 * main.c - constructs the rooms in order, runs the loop, closes them in reverse.
 *
 *   config -> history -> turn (machines, recovery) -> rpc -> net
 *
 * The end, at SIGTERM or SIGINT: no new connections, no new ops; what is queued is
 * executed and committed; calls finish; machines are kept as they are (checkpoints), and the
 * history's log goes into its file; exit 0. A
 * second signal does not wait: what was acknowledged is committed already.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "backend_kernel.h"
#include "compact.h"
#include "config.h"
#include "conformance.h"
#include "export.h"
#include "log.h"
#include "replay.h"
#include "reserve.h"
#include "rpc.h"
#include "standard.h"
#include "verify.h"

enum { GRACE_MS = 5000 };

struct daemon {
	struct config config;
	uv_loop_t loop;
	struct history *history;
	struct turn *turn;
	struct net_server *server;
	char *token;
	uv_signal_t signals[2];
	uv_work_t pool_started;
	uv_timer_t watchdog;
	bool stopping;
};

static const int stop_signals[2] = {SIGTERM, SIGINT};

static void on_flush(void *user)
{
	struct daemon *d = user;

	rpc_flush();
	if (d->server)
		net_flush(d->server);
}

static void on_recovered(void *user)
{
	struct daemon *d = user;

	if (d->stopping)
		return;
	log_info("serving", LOG_N("machines", machines_count(turn_machines(d->turn))));
	log_notify("READY=1\nSTATUS=Serving");
	health_set(true);
}

static void on_wake(void *user)
{
	struct daemon *d = user;

	turn_wake(d->turn);
}

/* ---- the end ---- */

static void on_kept(void *user)
{
	struct daemon *d = user;

	uv_stop(&d->loop);
}

static void on_net_closed(void *user)
{
	struct daemon *d = user;

	net_server_free(d->server);
	d->server = NULL;
	turn_keep_machines(d->turn, on_kept, d);
}

static void stop(struct daemon *d)
{
	d->stopping = true;
	log_notify("STOPPING=1");
	health_set(false);
	rpc_stop();
	turn_stop(d->turn);
	net_shutdown(d->server, GRACE_MS, on_net_closed, d);
}

static void on_signal(uv_signal_t *handle, int number)
{
	struct daemon *d = handle->data;

	if (d->stopping)
		_exit(EXIT_IMPATIENT);
	log_info("stopping", LOG_S("signal", number == SIGTERM ? "SIGTERM" : "SIGINT"));
	stop(d);
}

/* ---- the beginning ---- */

static int open_history(struct daemon *d)
{
	struct history_options options = {
	    .path = d->config.history,
	    .sync = d->config.sync_full ? HISTORY_SYNC_FULL : HISTORY_SYNC_NORMAL,
	    .query_timeout_ms = (uint32_t)d->config.query_timeout_ms,
	    .gives_back = d->config.retain_seconds || d->config.retain_bytes,
	    .loop = &d->loop,
	};
	char err[512] = "";

	if (!config_make_parents(options.path, err, sizeof err) ||
	    history_open(&options, &d->history, err, sizeof err)) {
		log_error("the history cannot be opened", LOG_S("file", options.path),
			  LOG_S("why", err));
		return EXIT_HISTORY;
	}
	return EXIT_OK;
}

static int open_turn(struct daemon *d)
{
	struct backend_kernel_options guests = {
	    .loop = &d->loop,
	    .image = d->config.kernel_image,
	    .silent_ms = (unsigned)d->config.guest_timeout_ms,
	    .gdb = d->config.guest_gdb,
	};
	struct turn_options options = {
	    .loop = &d->loop,
	    .history = d->history,
	    .limits = {.machines = (unsigned)d->config.max_machines,
		       .resident = d->config.max_memory,
		       .machine_resident = d->config.max_machine_memory},
	    .checkpoint_ops = d->config.checkpoint_ops,
	    .checkpoint_seconds = d->config.checkpoint_seconds,
	    .retain_seconds = d->config.retain_seconds,
	    .retain_bytes = d->config.retain_bytes,
	    .flush = on_flush,
	    .recovered = on_recovered,
	    .user = d,
	};

	backend_kernel_configure(&guests);
	d->turn = turn_new(&options);
	if (!d->turn)
		return EXIT_FAILED;
	rpc_open(d->turn);
	return EXIT_OK;
}

static bool listen_on(struct daemon *d, const char *address)
{
	char bound[256], err[256] = "";

	if (strncmp(address, "unix:", 5) == 0 &&
	    !config_make_parents(address + 5, err, sizeof err)) {
		log_error("cannot listen", LOG_S("address", address), LOG_S("why", err));
		return false;
	}
	if (net_listen(d->server, address, bound, sizeof bound, err, sizeof err)) {
		log_error("cannot listen", LOG_S("address", address), LOG_S("why", err));
		return false;
	}
	log_info("listening", LOG_S("address", bound));
	return true;
}

static int open_net(struct daemon *d)
{
	struct net_options options = {
	    .loop = &d->loop,
	    .route = rpc_route,
	    .wake = on_wake,
	    .user = d,
	    .insecure_no_auth = d->config.no_auth,
	};
	char err[256];

	if (d->config.token_file && !d->config.no_auth) {
		d->token = config_read_token(d->config.token_file, err, sizeof err);
		if (!d->token) {
			log_error("no token", LOG_S("why", err));
			return EXIT_USAGE;
		}
		options.token = d->token;
	}
	if (net_server_new(&options, &d->server))
		return EXIT_FAILED;
	for (unsigned i = 0; i < d->config.nr_listen; i++)
		if (!listen_on(d, d->config.listen[i]))
			return EXIT_LISTEN;
	return EXIT_OK;
}

static void on_watchdog(uv_timer_t *timer)
{
	(void)timer;
	log_notify("WATCHDOG=1");
}

/* A service manager that wants to hear that the loop still goes round (WatchdogSec=) says
 * how often, in microseconds: it is told twice as often. */
static void start_watchdog(struct daemon *d)
{
	const char *text = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	unsigned long long every_us = text ? strtoull(text, NULL, 10) : 0;

	if (!every_us || (pid && strtoull(pid, NULL, 10) != (unsigned long long)getpid()))
		return;
	every_us = every_us < 2000 ? 2000 : every_us;
	uv_timer_init(&d->loop, &d->watchdog);
	uv_timer_start(&d->watchdog, on_watchdog, 0, every_us / 2000);
	/* It keeps no loop going. */
	uv_unref((uv_handle_t *)&d->watchdog);
}

static int start(struct daemon *d)
{
	char err[256];

	start_watchdog(d);
	for (unsigned i = 0; i < 2; i++) {
		uv_signal_init(&d->loop, &d->signals[i]);
		d->signals[i].data = d;
		uv_signal_start(&d->signals[i], on_signal, stop_signals[i]);
	}
	if (turn_start(d->turn, err, sizeof err))
		return EXIT_OK;
	log_error("the machines cannot be taken up", LOG_S("why", err));
	return EXIT_HISTORY;
}

/* A machine is one mapping, but connections and SQLite's files are descriptors. */
static void raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/* Of the pool's threads queries and tails have whatever looks into machines leave; with
 * libuv's four a few long queries would keep an audit waiting. */
static void size_pool(void)
{
	char set[8];
	size_t size = sizeof set;

	if (uv_os_getenv("UV_THREADPOOL_SIZE", set, &size) == UV_ENOENT)
		uv_os_setenv("UV_THREADPOOL_SIZE", "8");
}

static void do_nothing(uv_work_t *work)
{
	(void)work; /* That there is a thread for it is all. */
}

/* libuv makes the pool's threads with the first work, and ends the process if it cannot:
 * at the start that is an answer, but not when memory is short later. */
static void start_pool(struct daemon *d)
{
	uv_queue_work(&d->loop, &d->pool_started, do_nothing, NULL);
}

static void close_handle(uv_handle_t *handle, void *arg)
{
	(void)arg;
	if (!uv_is_closing(handle))
		uv_close(handle, NULL);
}

/* Whatever was constructed, in reverse. */
static void tear_down(struct daemon *d)
{
	for (unsigned i = 0; i < 2; i++)
		if (d->signals[i].data && !uv_is_closing((uv_handle_t *)&d->signals[i]))
			uv_close((uv_handle_t *)&d->signals[i], NULL);
	net_server_free(d->server);
	if (d->turn)
		rpc_close();
	turn_free(d->turn);
	if (d->history)
		history_close(d->history);
	uv_run(&d->loop, UV_RUN_DEFAULT);
	uv_walk(&d->loop, close_handle, NULL);
	uv_run(&d->loop, UV_RUN_DEFAULT);
	uv_loop_close(&d->loop);
	free(d->token);
	config_free(&d->config);
}

static int run(struct daemon *d)
{
	int code = open_history(d);

	if (!code)
		code = open_turn(d);
	if (!code)
		code = open_net(d);
	if (!code)
		code = start(d);
	if (code)
		return code;
	uv_run(&d->loop, UV_RUN_DEFAULT);
	log_info("stopped");
	return EXIT_OK;
}

int main(int argc, char **argv)
{
	static struct daemon d;
	char err[CONFIG_ERROR_LENGTH];
	int code;

	if (argc > 1 && strcmp(argv[1], "conformance") == 0)
		return conformance_command(argc - 1, argv + 1);
	if (argc > 1 && strcmp(argv[1], "replay") == 0)
		return replay_command(argc - 1, argv + 1);
	if (argc > 1 && strcmp(argv[1], "export") == 0)
		return export_command(argc - 1, argv + 1);
	if (argc > 1 && strcmp(argv[1], "verify") == 0)
		return verify_command(argc - 1, argv + 1);
	if (argc > 1 && strcmp(argv[1], "compact") == 0)
		return compact_command(argc - 1, argv + 1);
	switch (config_read(argc, argv, &d.config, err, sizeof err)) {
	case CONFIG_DONE: return EXIT_OK;
	case CONFIG_WRONG: fprintf(stderr, "zoned: %s\n", err); return EXIT_USAGE;
	case CONFIG_RUN: break;
	}
	/* Both are errors of a write, and writes are checked. */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	raise_descriptor_limit();
	log_configure((enum log_level)d.config.log_level, d.config.log_json);
	size_pool();
	reserve_restore();
	/* Before it allocates anything: as ours, which have a reserve behind them. */
	uv_replace_allocator(malloc, realloc, calloc, free);
	uv_loop_init(&d.loop);
	start_pool(&d);
	code = run(&d);
	tear_down(&d);
	return code;
}
