/*
 * replay.c - zonectl replay and zonectl history: run `zoned`, which lies beside zonectl.
 *
 * To play a machine again takes an engine, and a client has none. The flags are that
 * program's; what zonectl adds is its own: the machine by $ZONED_MACHINE, `help replay`.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "zonectl.h"

enum { PATH_LENGTH = 4096 };

/* Installed side by side, or in the folders they were built in. */
static bool find_zoned(char *ret, size_t size)
{
	static const char *const places[] = {"zoned", "../server/zoned"};
	char self[PATH_LENGTH];
	ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
	char *slash;
	unsigned i;

	self[length > 0 ? length : 0] = '\0';
	slash = strrchr(self, '/');
	for (i = 0; slash && i < sizeof places / sizeof *places; i++) {
		int n = snprintf(ret, size, "%.*s/%s", (int)(slash - self), self, places[i]);

		if (n > 0 && (size_t)n < size && access(ret, X_OK) == 0)
			return true;
	}
	return false;
}

/* Becomes `zoned WORD ARGUMENTS`; returns only if it cannot. */
static int become_zoned(const struct ctl *ctl, const char *word, int argc, char **argv)
{
	char **to = must(calloc((size_t)argc + 4, sizeof *to)), zoned[PATH_LENGTH];
	int i, n = 0;

	if (!find_zoned(zoned, sizeof zoned)) {
		free(to);
		complain("%s: the program zoned is not beside zonectl", word);
		return EXIT_FILE;
	}
	to[n++] = zoned;
	to[n++] = (char *)(uintptr_t)word;
	if (ctl->help)
		to[n++] = (char *)(uintptr_t) "--help";
	for (i = 0; i < argc; i++)
		to[n++] = argv[i];
	fflush(stdout);
	execv(zoned, to);
	complain("%s: %s: %s", word, zoned, strerror(errno));
	free(to);
	return EXIT_FILE;
}

int replay_command(struct ctl *ctl, int argc, char **argv)
{
	return become_zoned(ctl, "replay", argc, argv);
}

int history_command(struct ctl *ctl, int argc, char **argv)
{
	static const char *const words[] = {"verify", "export", "compact"};
	unsigned i;

	for (i = 0; argc > 0 && i < sizeof words / sizeof *words; i++)
		if (strcmp(argv[0], words[i]) == 0)
			return become_zoned(ctl, argv[0], argc - 1, argv + 1);
	if (ctl->help ||
	    (argc > 0 && (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0))) {
		printf("zonectl history - look after the file of a history\n\n"
		       "usage: zonectl history verify|export|compact --history FILE [flags]\n\n"
		       "  verify   is it whole, and the truth? `zonectl history verify --help`\n"
		       "  export   as CSV or ftrace's text; `zonectl history export --help`\n"
		       "  compact  the file without what is free in it; `zonectl history compact "
		       "--help`\n");
		return EXIT_DONE;
	}
	return usage_error("history: what with it? verify, export or compact");
}
