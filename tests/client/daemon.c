/*
 * daemon.c - starts, kills and removes a daemon.
 */
#include "daemon.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void print_log(const struct test_daemon *d)
{
	FILE *f = fopen(d->log, "re");
	char line[512];

	while (f && fgets(line, sizeof line, f))
		fputs(line, stderr);
	if (f)
		fclose(f);
}

#define FAIL(d, ...)                                                 \
	do {                                                         \
		print_log(d);                                        \
		fprintf(stderr, "daemon: " __VA_ARGS__);             \
		fputc('\n', stderr);                                 \
		/* A test that ends here leaves no daemon behind. */ \
		if ((d)->pid)                                        \
			kill((d)->pid, SIGKILL);                     \
		abort();                                             \
	} while (0)

void daemon_make(struct test_daemon *d, const char *program)
{
	const char *tmp = getenv("TMPDIR");

	memset(d, 0, sizeof *d);
	d->program = program;
	snprintf(d->folder, sizeof d->folder, "%.60s/zoned-test.XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(d->folder))
		FAIL(d, "no folder %s", d->folder);
	snprintf(d->address, sizeof d->address, "unix:%s/s", d->folder);
	snprintf(d->history, sizeof d->history, "%s/h.db", d->folder);
	snprintf(d->log, sizeof d->log, "%s/log", d->folder);
}

static void become(const struct test_daemon *d)
{
	const char *argv[6 + sizeof d->options / sizeof *d->options] = {
	    d->program, "--listen", d->address, "--history", d->history};
	int log = open(d->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	for (unsigned i = 0; d->options[i]; i++)
		argv[5 + i] = d->options[i];
	dup2(log, STDOUT_FILENO);
	dup2(log, STDERR_FILENO);
	execv(d->program, (char **)(uintptr_t)argv);
	_exit(127);
}

void daemon_start(struct test_daemon *d)
{
	d->pid = fork();
	if (d->pid < 0)
		FAIL(d, "cannot fork");
	if (d->pid == 0)
		become(d);
}

static void pause_ms(long ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

void daemon_expect_running(const struct test_daemon *d)
{
	int status;

	if (waitpid(d->pid, &status, WNOHANG) != 0)
		FAIL(d, "it ended by itself, status %#x", (unsigned)status);
}

struct zoned *daemon_connect(const struct test_daemon *d)
{
	struct zoned_options options = {.address = d->address};
	struct zoned *z;
	char err[256];

	while (zoned_connect(&options, &z, err, sizeof err)) {
		daemon_expect_running(d);
		pause_ms(1);
	}
	return z;
}

void daemon_await(struct test_daemon *d)
{
	struct zoned *z = daemon_connect(d);
	bool serving = false;

	while (!serving) {
		int rc = zoned_health(z, "", ZONED_NO_TIMEOUT, &serving);

		if (rc)
			daemon_expect_running(d);
		if (!serving)
			pause_ms(1);
	}
	zoned_close(z);
}

static int end(struct test_daemon *d, int signal)
{
	int status;

	kill(d->pid, signal);
	if (waitpid(d->pid, &status, 0) != d->pid)
		FAIL(d, "waitpid");
	d->pid = 0;
	return status;
}

void daemon_kill(struct test_daemon *d)
{
	int status = end(d, SIGKILL);

	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		FAIL(d, "it ended by itself, status %#x", (unsigned)status);
}

void daemon_stop(struct test_daemon *d)
{
	int status = end(d, SIGTERM);

	if (status)
		FAIL(d, "it ended with status %#x", (unsigned)status);
}

void daemon_remove(struct test_daemon *d)
{
	char path[512];
	DIR *folder;

	if (d->pid)
		end(d, SIGKILL);
	folder = opendir(d->folder);
	for (struct dirent *e; folder && (e = readdir(folder));) {
		snprintf(path, sizeof path, "%s/%s", d->folder, e->d_name);
		if (e->d_name[0] != '.')
			unlink(path);
	}
	if (folder)
		closedir(folder);
	if (rmdir(d->folder))
		FAIL(d, "cannot remove %s", d->folder);
}
