/*
 * replay.c - zonectl replay: runs `zoned replay`, which lies beside zonectl.
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

int replay_command(struct ctl *ctl, int argc, char **argv)
{
	char **to = must(calloc((size_t)argc + 4, sizeof *to)), zoned[PATH_LENGTH];
	int i, n = 0;

	if (!find_zoned(zoned, sizeof zoned)) {
		free(to);
		complain("replay: the program zoned is not beside zonectl");
		return EXIT_FILE;
	}
	to[n++] = zoned;
	to[n++] = (char *)(uintptr_t) "replay";
	if (ctl->help)
		to[n++] = (char *)(uintptr_t) "--help";
	for (i = 0; i < argc; i++)
		to[n++] = argv[i];
	fflush(stdout);
	execv(zoned, to);
	complain("replay: %s: %s", zoned, strerror(errno));
	free(to);
	return EXIT_FILE;
}
