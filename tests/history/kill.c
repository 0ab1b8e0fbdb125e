/*
 * kill.c - a writer that is killed in mid-load has lost nothing that it acknowledged.
 *
 *   history_kill [--kills N] [--seed S]
 *
 * A child fills a history and tells after each commit, by a pipe, how far each
 * machine is. It is killed (SIGKILL) at a random moment: while it opens, appends,
 * commits or checkpoints, which its small WAL makes it do all the time. The parent
 * opens what is left and asserts:
 *
 *  1. every op that was acknowledged is there, and ops are dense from 1;
 *  2. of each op everything is there, events and payload too, and nothing of any
 *     op that is not;
 *  3. SQLite's own check of the file finds nothing.
 *
 * Then the next child goes on with the same file. What an op holds follows from its
 * machine and number, so the parent knows it without having been told.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "effort.h"
#include "known.h"

enum {
	/* A new file when this many ops are in it, so that many kills stay affordable. */
	OPS_PER_FILE = 200000,
	DELAY_US_MAX = 300000,
};

static uint64_t seed;

#define FAIL(...)                                                            \
	do {                                                                 \
		fprintf(stderr, "history_kill: " __VA_ARGS__);               \
		fprintf(stderr, " (seed %llu)\n", (unsigned long long)seed); \
		exit(1);                                                     \
	} while (0)

/* ---- the child ---- */

static struct history *open_history(const char *path)
{
	struct history_options options = {.path = path, .wal_limit_bytes = 4 << 20};
	struct history *h;
	char err[256];

	if (history_open(&options, &h, err, sizeof(err)))
		FAIL("open: %s", err);
	return h;
}

static int write_for_ever(const char *path, uint64_t state)
{
	struct history *h = open_history(path);
	struct known_progress p;
	char err[256];

	known_begin(h, &p);
	for (;;) {
		known_append_turn(h, &p, 200, &state);
		if (history_commit(h, err, sizeof(err)))
			FAIL("commit: %s", err);
		if (write(STDOUT_FILENO, &p, sizeof(p)) != sizeof(p))
			FAIL("the parent is gone");
		history_idle(h);
	}
}

/* ---- the parent ---- */

/* Reads acknowledgements until the time is over, kills, and reads the rest. */
static void load_and_kill(const char *path, uint64_t *state, bool mid_load,
			  struct known_progress *acknowledged)
{
	struct timespec delay = {0, (long)(random_next(state) % DELAY_US_MAX) * 1000};
	char number_text[24];
	struct known_progress p;
	int fds[2], status;
	pid_t pid;

	if (pipe(fds))
		FAIL("pipe");
	/* Wide enough that the child never waits for a parent that sleeps. */
	fcntl(fds[0], F_SETPIPE_SZ, 1 << 20);
	snprintf(number_text, sizeof(number_text), "%llu", (unsigned long long)random_next(state));
	pid = fork();
	if (pid < 0)
		FAIL("fork");
	if (pid == 0) {
		dup2(fds[1], STDOUT_FILENO);
		close(fds[0]);
		close(fds[1]);
		execl("/proc/self/exe", "history_kill", "--child", path, number_text, (char *)NULL);
		_exit(127);
	}
	close(fds[1]);
	/* Every other one dies in mid-load for certain, the rest at any moment. */
	if (mid_load && read(fds[0], acknowledged, sizeof(p)) != sizeof(p))
		FAIL("the writer ended by itself");
	nanosleep(&delay, NULL);
	kill(pid, SIGKILL);
	while (read(fds[0], &p, sizeof(p)) == sizeof(p))
		*acknowledged = p;
	close(fds[0]);
	if (waitpid(pid, &status, 0) != pid)
		FAIL("waitpid");
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		FAIL("the writer ended by itself, status %#x", (unsigned)status);
}

int main(int argc, char **argv)
{
	uint64_t kills = effort(8), state, ops = 0, all_ops = 0, mid_load = 0;
	struct known_progress acknowledged = {{0}};
	struct history *h;
	struct place place;

	seed = 0;
	if (argc == 4 && strcmp(argv[1], "--child") == 0)
		return write_for_ever(argv[2], strtoull(argv[3], NULL, 0) | 1);
	for (int i = 1; i + 1 < argc; i += 2) {
		if (strcmp(argv[i], "--kills") == 0)
			kills = strtoull(argv[i + 1], NULL, 0);
		if (strcmp(argv[i], "--seed") == 0)
			seed = strtoull(argv[i + 1], NULL, 0);
	}
	if (!seed)
		seed = random_seed();
	state = seed;
	place_make(&place);
	for (uint64_t k = 0; k < kills; k++) {
		struct known_progress before = acknowledged, found = {{0}};

		load_and_kill(place.path, &state, k % 2 == 0, &acknowledged);
		h = open_history(place.path);
		ops = known_verify(h, place.path, &acknowledged, &found);
		history_close(h);
		mid_load += memcmp(&before, &acknowledged, sizeof(before)) != 0;
		acknowledged = found;
		if (ops > OPS_PER_FILE || k + 1 == kills) {
			all_ops += ops;
			place_remove(&place);
			place_make(&place);
			acknowledged = (struct known_progress){{0}};
		}
	}
	place_remove(&place);
	printf("%llu kills (%llu in mid-load), %llu ops, nothing lost\n", (unsigned long long)kills,
	       (unsigned long long)mid_load, (unsigned long long)all_ops);
	return 0;
}
