/*
 * export.c - see export.h.
 */
#include "export.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "ftrace.h"
#include "source.h"

enum { CODE_DONE = 0, CODE_USAGE = 2, CODE_HISTORY = 3, CODE_OUTPUT = 4 };
enum { PATH_LENGTH = 4096 };

struct request {
	const char *history, *machine, *format, *output, *table;
	uint64_t until;
	bool counters;
};

static int complain(int code, const char *what, const char *why)
{
	fprintf(stderr, "zoned: export: %s%s%s\n", what, *why ? ": " : "", why);
	return code;
}

/* Standard output without a path. NULL after a sentence. */
static FILE *open_output(const char *path)
{
	FILE *to = path ? fopen(path, "w") : stdout;

	if (!to)
		complain(CODE_OUTPUT, path, strerror(errno));
	return to;
}

/* What was written is there, or it is said that it is not. */
static int close_output(FILE *to, const char *path)
{
	bool bad = fflush(to) || ferror(to);
	int why = errno;

	if (to != stdout && fclose(to) && !bad) {
		bad = true;
		why = errno;
	}
	return bad ? complain(CODE_OUTPUT, path ? path : "standard output", strerror(why))
		   : CODE_DONE;
}

/* ---- ftrace ---- */

static int export_ftrace(const struct request *r)
{
	char err[512] = "";
	struct source *s;
	uint64_t lines;
	FILE *to;
	int code;

	if (!r->machine || !*r->machine)
		return complain(CODE_USAGE, "which machine? Give --machine NAME", "");
	s = source_open(r->history, r->machine, r->until, err, sizeof err);
	if (!s)
		return complain(CODE_HISTORY, r->history, err);
	to = open_output(r->output);
	if (!to) {
		source_close(s);
		return CODE_OUTPUT;
	}
	lines = ftrace_write(s, r->counters, to);
	code = close_output(to, r->output);
	if (!code && *source_error(s))
		code = complain(CODE_HISTORY, r->history, source_error(s));
	if (!code && !lines)
		complain(CODE_DONE,
			 "no block was allocated or freed, or no event of it was kept: a machine "
			 "of detail `all` keeps them",
			 "");
	source_close(s);
	return code;
}

/* ---- CSV ---- */

struct csv {
	const struct request *request;
	struct recorded *file;
	char err[512];
	int code;
};

static bool write_table(void *arg, const char *table)
{
	struct csv *c = arg;
	char path[PATH_LENGTH];
	FILE *to;

	snprintf(path, sizeof path, "%s/%s.csv", c->request->output, table);
	to = open_output(path);
	if (!to) {
		c->code = CODE_OUTPUT;
		return false;
	}
	if (recorded_csv(c->file, table, to, c->err, sizeof c->err))
		c->code = complain(CODE_HISTORY, table, c->err);
	if (close_output(to, path))
		c->code = CODE_OUTPUT;
	return !c->code;
}

static int export_csv(const struct request *r)
{
	struct csv c = {.request = r};

	if (!r->table && !r->output)
		return complain(
		    CODE_USAGE,
		    "where to? Give --output FOLDER, or one --table for standard output", "");
	if (recorded_open(r->history, &c.file, c.err, sizeof c.err))
		return complain(CODE_HISTORY, r->history, c.err);
	if (!r->output) {
		if (recorded_csv(c.file, r->table, stdout, c.err, sizeof c.err))
			c.code = complain(CODE_HISTORY, r->table, c.err);
		else
			c.code = close_output(stdout, NULL);
	} else if (mkdir(r->output, 0777) && errno != EEXIST) {
		c.code = complain(CODE_OUTPUT, r->output, strerror(errno));
	} else if (r->table) {
		write_table(&c, r->table);
	} else if (recorded_tables(c.file, write_table, &c, c.err, sizeof c.err) && !c.code) {
		c.code = complain(CODE_HISTORY, r->history, c.err);
	}
	recorded_close(c.file);
	return c.code;
}

/* ---- the command ---- */

static void print_help(void)
{
	printf(
	    "zoned export - a recorded history for other programs\n\n"
	    "usage: zoned export --history FILE --format ftrace --machine NAME [--output FILE]\n"
	    "       zoned export --history FILE --format csv --output FOLDER | --table NAME\n\n"
	    "  --history FILE       the history; $ZONED_HISTORY if not given\n"
	    "  --format NAME        ftrace or csv\n"
	    "  -m, --machine NAME   for ftrace: of those that have ended the latest of this name,\n"
	    "                       or #ID\n"
	    "  --until OP           for ftrace: the last op; default all\n"
	    "  --counters           for ftrace: with the zones' free pages after each op, as the\n"
	    "                       counters that perfetto draws\n"
	    "  --table NAME         for csv: this table or view alone\n"
	    "  --output PATH        for ftrace a file; for csv a folder, with a file for each\n"
	    "                       table and view\n\n"
	    "ftrace is text with the events mm_page_alloc, mm_page_free and "
	    "mm_page_alloc_extfrag,\n"
	    "as Linux 6.1 writes them, for `zonectl import` and every program that reads ftrace's\n"
	    "text. perfetto's UI opens it, and of that it draws what --counters adds; trace-cmd\n"
	    "and KernelShark read their own binary format, and no text. CSV is that\n"
	    "of RFC 4180: NULL is empty and unquoted, an empty text is \"\", a blob x'..'.\n\n"
	    "exit codes: %d done; %d the command line is wrong; %d the history cannot be read, or\n"
	    "has no such machine, op or table; %d the output cannot be written\n",
	    CODE_DONE, CODE_USAGE, CODE_HISTORY, CODE_OUTPUT);
}

enum option_key { KEY_HISTORY = 256, KEY_FORMAT, KEY_UNTIL, KEY_TABLE, KEY_OUTPUT, KEY_COUNTERS };

static const struct option options[] = {
    {"history", required_argument, NULL, KEY_HISTORY},
    {"format", required_argument, NULL, KEY_FORMAT},
    {"machine", required_argument, NULL, 'm'},
    {"until", required_argument, NULL, KEY_UNTIL},
    {"counters", no_argument, NULL, KEY_COUNTERS},
    {"table", required_argument, NULL, KEY_TABLE},
    {"output", required_argument, NULL, KEY_OUTPUT},
    {"help", no_argument, NULL, 'h'},
    {0},
};

int export_command(int argc, char **argv)
{
	struct request r = {.history = getenv("ZONED_HISTORY"), .machine = getenv("ZONED_MACHINE")};
	char *end;
	int key;

	optind = 0;
	while ((key = getopt_long(argc, argv, "m:h", options, NULL)) != -1) {
		switch (key) {
		case KEY_HISTORY: r.history = optarg; break;
		case KEY_FORMAT: r.format = optarg; break;
		case 'm': r.machine = optarg; break;
		case KEY_COUNTERS: r.counters = true; break;
		case KEY_TABLE: r.table = optarg; break;
		case KEY_OUTPUT: r.output = optarg; break;
		case 'h': print_help(); return CODE_DONE;
		case KEY_UNTIL:
			r.until = strtoull(optarg, &end, 0);
			if (!*optarg || *end || *optarg == '-' || !r.until)
				return complain(CODE_USAGE, "--until is no op number", optarg);
			break;
		default: return CODE_USAGE; /* getopt has said why */
		}
	}
	if (optind < argc)
		return complain(CODE_USAGE, "do not know what to do with", argv[optind]);
	if (!r.history || !*r.history)
		return complain(CODE_USAGE, "which history? Give --history FILE", "");
	if (r.format && strcmp(r.format, "ftrace") == 0)
		return export_ftrace(&r);
	if (r.format && strcmp(r.format, "csv") == 0)
		return export_csv(&r);
	return complain(CODE_USAGE, "which format? Give --format ftrace or --format csv", "");
}
