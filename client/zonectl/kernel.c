/*
 * kernel.c - `zonectl kernel`: a daemon of one's own with one machine on the kernel back end,
 * for those who want to watch a fault happen.
 *
 * A daemon that others use has deadlines for its guests, and a guest that gdb has stopped
 * looks like one that hangs. So this starts another, in a folder that is removed at the
 * end, and waits. Nothing of it is kept.
 */
#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "zonectl.h"

enum { START_MS = 10000, POLL_MS = 20 };

#define MACHINE "k0"

struct own_daemon {
	char folder[200], address[240], history[240];
	pid_t pid; /* 0: not running */
};

static void help(void)
{
	printf("zonectl kernel - a kernel machine of your own, to watch it with gdb\n\n"
	       "usage: zonectl kernel [--gdb] [FLAGS OF machine create; none: --ram 2G]\n\n"
	       "Starts a daemon with one machine, " MACHINE
	       ", on the kernel back end; Ctrl-C ends both and\n"
	       "nothing is kept. With --gdb its QEMU has a gdb stub, the guest may be stopped\n"
	       "for as long as one likes, and the line that starts gdb is printed.\n");
}

/* ---- the daemon ---- */

/* Beside zonectl, or in the folder they were built in, or wherever PATH finds it. */
static void run_daemon(const struct own_daemon *d, bool gdb)
{
	static const char *const places[] = {"zoned", "../server/zoned"};
	char exe[1000], path[1100];
	ssize_t length = readlink("/proc/self/exe", exe, sizeof exe - 1);
	char *args[] = {"zoned",
			"--listen",
			(char *)(uintptr_t)d->address,
			"--history",
			(char *)(uintptr_t)d->history,
			"--log-level",
			"error",
			gdb ? "--guest-gdb" : NULL,
			(char *)(uintptr_t)d->folder,
			NULL};
	size_t i;

	exe[length > 0 ? length : 0] = 0;
	if (strrchr(exe, '/'))
		*strrchr(exe, '/') = 0;
	for (i = 0; i < sizeof places / sizeof *places; i++) {
		snprintf(path, sizeof path, "%s/%s", exe, places[i]);
		execv(path, args);
	}
	execvp("zoned", args);
	complain("kernel: zoned is neither beside zonectl nor in PATH: %s", strerror(errno));
	_exit(EXIT_FILE);
}

static int start_daemon(struct own_daemon *d, bool gdb)
{
	const char *tmp = getenv("TMPDIR");
	sigset_t none;

	snprintf(d->folder, sizeof d->folder, "%s/zonectl-kernel-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(d->folder)) {
		complain("kernel: %s: %s", d->folder, strerror(errno));
		return EXIT_FILE;
	}
	snprintf(d->address, sizeof d->address, "unix:%s/zoned.sock", d->folder);
	snprintf(d->history, sizeof d->history, "%s/history.db", d->folder);
	d->pid = fork();
	if (d->pid == 0) {
		/* Ctrl-C is for us, who then end it in order; and it does not outlive us. */
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		setpgid(0, 0);
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		run_daemon(d, gdb);
	}
	if (d->pid > 0)
		return EXIT_DONE;
	d->pid = 0;
	complain("kernel: fork: %s", strerror(errno));
	return EXIT_FILE;
}

static bool is_running(struct own_daemon *d)
{
	if (d->pid && waitpid(d->pid, NULL, WNOHANG) == d->pid)
		d->pid = 0;
	return d->pid;
}

/* Connects when it listens. */
static int reach(struct ctl *ctl, struct own_daemon *d)
{
	char err[512] = "";
	int waited;

	ctl->options.address = d->address;
	for (waited = 0; waited < START_MS && is_running(d); waited += POLL_MS) {
		if (!zoned_connect(&ctl->options, &ctl->z, err, sizeof err))
			return EXIT_DONE;
		usleep(POLL_MS * 1000);
	}
	complain("kernel: the daemon did not start: %s", err);
	return EXIT_UNREACHABLE;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st, (void)type, (void)at;
	remove(path);
	return 0;
}

static void end_daemon(struct own_daemon *d)
{
	if (d->pid) {
		kill(d->pid, SIGTERM);
		waitpid(d->pid, NULL, 0);
	}
	if (d->folder[0])
		nftw(d->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* ---- the machine ---- */

static int create_machine(struct ctl *ctl, int argc, char **argv)
{
	static char *const usual[] = {"--ram", "2G"};
	char **args = must(calloc((size_t)argc + 7, sizeof *args));
	int rc;

	if (argc == 0) {
		argv = (char **)(uintptr_t)usual;
		argc = 2;
	}

	args[0] = "create";
	args[1] = MACHINE;
	args[2] = "--backend";
	args[3] = "kernel";
	memcpy(args + 4, argv, (size_t)argc * sizeof *argv);
	rc = machine_command(ctl, argc + 4, args);
	free(args);
	return rc;
}

static void tell(const struct own_daemon *d, bool gdb)
{
	char path[240], line[1200] = "";
	FILE *commands;

	printf("\nTo talk to it:\n  export ZONED_ADDRESS=%s ZONED_MACHINE=" MACHINE "\n",
	       d->address);
	if (gdb) {
		snprintf(path, sizeof path, "%s/guest-1.gdb", d->folder);
		commands = fopen(path, "re");
		if (commands && fgets(line, sizeof line, commands))
			printf("\nSymbols (file): %s", line + strcspn(line, "\""));
		if (commands)
			fclose(commands);
		printf("To watch it:\n  gdb -x %s -ex 'break fault_handle' -ex continue\n", path);
		printf("and then elsewhere, with the environment above:\n"
		       "  zonectl task-create && zonectl schedule --next 1 &&\n"
		       "  zonectl mmap --task 1 --length 0x1000 --prot PROT_READ,PROT_WRITE\n"
		       "  zonectl access --task 1 --va VA --mode ACCESS_WRITE --data hello\n");
	}
	printf("\nCtrl-C ends it.\n");
	fflush(stdout);
}

/* Removes the word and says whether it was there. */
static bool take_switch(int *argc, char **argv, const char *word)
{
	int i;

	for (i = 0; i < *argc && strcmp(argv[i], word) != 0; i++)
		;
	if (i == *argc)
		return false;
	memmove(argv + i, argv + i + 1, (size_t)(*argc - i) * sizeof *argv);
	--*argc;
	return true;
}

int kernel_command(struct ctl *ctl, int argc, char **argv)
{
	bool gdb = take_switch(&argc, argv, "--gdb");
	struct own_daemon d = {.pid = 0};
	sigset_t ends;
	int rc, signal_number;

	if (take_switch(&argc, argv, "--help")) {
		help();
		return EXIT_DONE;
	}
	sigemptyset(&ends);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGCHLD);
	sigprocmask(SIG_BLOCK, &ends, NULL);
	rc = start_daemon(&d, gdb);
	if (rc == EXIT_DONE)
		rc = reach(ctl, &d);
	if (rc == EXIT_DONE)
		rc = create_machine(ctl, argc, argv);
	if (rc == EXIT_DONE) {
		tell(&d, gdb);
		sigwait(&ends, &signal_number);
		if (!is_running(&d)) {
			complain("kernel: the daemon ended");
			rc = EXIT_UNREACHABLE;
		}
	}
	/* It waits for its clients. */
	zoned_close(ctl->z);
	ctl->z = NULL;
	end_daemon(&d);
	return rc;
}
