/*
 * daemon.h - a real daemon with a folder of its own, which survives its restarts; for
 * tests of whatever talks to one. Failures end the test program with a sentence.
 */
#ifndef TESTS_CLIENT_DAEMON_H
#define TESTS_CLIENT_DAEMON_H

#include <stdint.h>
#include <sys/types.h>

#include "zoned.h"

struct test_daemon {
	const char *program;
	const char *options[8]; /* beside --listen and --history; NULL ends them */
	char folder[96];
	char address[128]; /* unix:PATH */
	char history[128], log[128];
	pid_t pid; /* 0: not running */
};

/* A folder, in TMPDIR, for this program to run in. Nothing runs yet. */
void daemon_make(struct test_daemon *d, const char *program);
/* Does not wait until it serves. */
void daemon_start(struct test_daemon *d);
/* Waits until it serves; ends the test program if it ended instead. */
void daemon_await(struct test_daemon *d);
/* Ends the test program if it ended by itself: for those who wait for it. */
void daemon_expect_running(const struct test_daemon *d);
/* SIGKILL; it must still have been running. */
void daemon_kill(struct test_daemon *d);
/* SIGTERM; it must then end with exit code 0. */
void daemon_stop(struct test_daemon *d);
/* Kills it if it runs, and removes the folder. */
void daemon_remove(struct test_daemon *d);

/* A connection to it, as soon as there can be one. */
struct zoned *daemon_connect(const struct test_daemon *d);

#endif
