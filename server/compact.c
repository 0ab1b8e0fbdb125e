/*
 * compact.c - see compact.h.
 *
 * SQLite writes the whole file anew, in one transaction: whatever ends it in between, the
 * file is as it was.
 */
#include "compact.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "history.h"

enum { CODE_DONE = 0, CODE_USAGE = 2, CODE_HISTORY = 3 };

static int complain(int code, const char *what, const char *why)
{
	fprintf(stderr, "zoned: compact: %s%s%s\n", what, *why ? ": " : "", why);
	return code;
}

static void print_help(void)
{
	printf(
	    "zoned compact - a history's file without what is free in it\n\n"
	    "usage: zoned compact --history FILE\n\n"
	    "  --history FILE       the history; $ZONED_HISTORY if not given\n\n"
	    "What a daemon forgets (--retain-age, --retain-size) leaves room in the file that is\n"
	    "used again. This writes the file anew without that room, and from then on the\n"
	    "daemon makes it smaller by itself when much of it is free; a file that was made by\n"
	    "a daemon with one of these options needs no compact for that. No daemon may run on\n"
	    "the history, and two more of the file must fit beside it for a while.\n\n"
	    "exit codes: %d done; %d the command line is wrong; %d the history cannot be opened\n"
	    "or written anew\n",
	    CODE_DONE, CODE_USAGE, CODE_HISTORY);
}

static uint64_t size_of(const char *path)
{
	struct stat st;

	return stat(path, &st) ? 0 : (uint64_t)st.st_size;
}

static int compact(const char *path)
{
	struct history_options options = {.path = path};
	uint64_t before = size_of(path);
	struct history *h;
	char err[512] = "";
	int error;

	if (!before)
		return complain(CODE_HISTORY, path, "there is no such file, or it is empty");
	if (history_open(&options, &h, err, sizeof err))
		return complain(CODE_HISTORY, path, err);
	error = history_compact(h, err, sizeof err);
	history_close(h);
	if (error)
		return complain(CODE_HISTORY, path, err);
	printf("%" PRIu64 " bytes, were %" PRIu64 "\n", size_of(path), before);
	return CODE_DONE;
}

int compact_command(int argc, char **argv)
{
	static const struct option options[] = {
	    {"history", required_argument, NULL, 'H'}, {"help", no_argument, NULL, 'h'}, {0}};
	const char *path = getenv("ZONED_HISTORY");
	int key;

	optind = 0;
	while ((key = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (key) {
		case 'H': path = optarg; break;
		case 'h': print_help(); return CODE_DONE;
		default: return CODE_USAGE; /* getopt has said why */
		}
	}
	if (optind < argc)
		return complain(CODE_USAGE, "do not know what to do with", argv[optind]);
	if (!path || !*path)
		return complain(CODE_USAGE, "which history? Give --history FILE", "");
	return compact(path);
}
