/*
 * conformance.c - `zoned conformance PATH...`: finds recordings, checks each, says so.
 */
#include "conformance.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "box.h"

enum { CODE_AGREE = 0, CODE_DIFFER = 1, CODE_USAGE = 2, LOOK_AT_LINES = 64 };

/* ---- what is a recording ---- */

static bool is_folder(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool is_file(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static bool has(const char *folder, const char *name)
{
	struct lines *l = lines_open_in(folder, name);

	lines_close(l);
	return l != NULL;
}

static bool matches(const char *name, const char *prefix, bool exact)
{
	size_t n = strlen(prefix);
	const char *end = exact ? name + n : strstr(name, ".jsonl");

	return strncmp(name, prefix, n) == 0 && end &&
	       (strcmp(end, ".jsonl") == 0 || strcmp(end, ".jsonl.gz") == 0);
}

/* What a line says of the file that it is in. */
static enum conformance_kind kind_of_line(const char *line)
{
	static const struct {
		const char *type;
		enum conformance_kind kind;
	} types[] = {
	    {"init", CONFORMANCE_SEQUENCE}, {"op", CONFORMANCE_SEQUENCE},
	    {"kmap", CONFORMANCE_KMAP},	    {"kml", CONFORMANCE_KMAP},
	    {"vm", CONFORMANCE_KMAP},	    {"fix", CONFORMANCE_KMAP},
	    {"const", CONFORMANCE_CONST},
	};
	json_t *object = *line == '{' ? json_loads(line, 0, NULL) : NULL;
	const char *type = json_string_value(json_object_get(object, "t"));
	enum conformance_kind kind = CONFORMANCE_NONE;
	struct kmem_event event;

	for (size_t i = 0; type && i < sizeof types / sizeof *types; i++)
		if (strcmp(type, types[i].type) == 0)
			kind = types[i].kind;
	json_decref(object);
	if (*line != '{' && kmem_parse(line, &event) == KMEM_LINE_EVENT)
		kind = CONFORMANCE_TRACE;
	return kind;
}

/* Of a file whose name says nothing. */
static enum conformance_kind kind_of_content(const char *path)
{
	struct lines *l = is_file(path) ? lines_open(path) : NULL;
	enum conformance_kind kind = CONFORMANCE_NONE;
	const char *line;

	for (int i = 0; l && !kind && i < LOOK_AT_LINES && (line = lines_next(l)); i++)
		kind = kind_of_line(line);
	lines_close(l);
	return kind;
}

bool find_trace(const char *path, char *to, size_t size)
{
	struct dirent **entries;
	bool found = false;
	int nr;

	snprintf(to, size, "%s%s", path, is_folder(path) ? "/kmem.trace" : "");
	if (!is_folder(path) || has(path, "kmem.trace"))
		return true;
	nr = has(path, "state-begin.jsonl") ? scandir(path, &entries, NULL, alphasort) : -1;
	for (int i = 0; i < nr; i++) {
		if (!found)
			snprintf(to, size, "%s/%s", path, entries[i]->d_name);
		found = found || kind_of_content(to) == CONFORMANCE_TRACE;
		free(entries[i]);
	}
	if (nr >= 0)
		free(entries);
	return found;
}

static enum conformance_kind kind_of_file(const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;

	if (strcmp(name, "kmem.trace") == 0 || strcmp(name, "kmem.trace.gz") == 0)
		return CONFORMANCE_TRACE;
	if (matches(name, "seq", false) || matches(name, "exhaust", true))
		return CONFORMANCE_SEQUENCE;
	if (matches(name, "kmap", true))
		return CONFORMANCE_KMAP;
	if (matches(name, "const", false))
		return CONFORMANCE_CONST;
	return kind_of_content(path);
}

/* The folder of an experiment has a zoneinfo too, but taken after sysctls were read, which
 * computes the reserves anew. Its const.jsonl has the figures. */
static bool holds_experiments(const char *folder)
{
	DIR *dir = opendir(folder);
	const struct dirent *entry;
	bool found = false;

	while (dir && !found && (entry = readdir(dir)))
		found = strstr(entry->d_name, ".jsonl") != NULL;
	if (dir)
		closedir(dir);
	return found;
}

enum conformance_kind conformance_kind_of(const char *path)
{
	char text[4096];

	if (!is_folder(path))
		return kind_of_file(path);
	if (find_trace(path, text, sizeof text))
		return CONFORMANCE_TRACE;
	if (has(path, "dmesg") && has(path, "zoneinfo") && !holds_experiments(path))
		return CONFORMANCE_BOOT;
	return CONFORMANCE_NONE;
}

bool conformance_check(const char *path, enum conformance_kind kind, struct conformance_report *ret)
{
	static void (*const checks[])(const char *, struct conformance_report *) = {
	    [CONFORMANCE_BOOT] = check_boot_folder,  [CONFORMANCE_TRACE] = check_trace,
	    [CONFORMANCE_SEQUENCE] = check_sequence, [CONFORMANCE_KMAP] = check_kmap,
	    [CONFORMANCE_CONST] = check_constants,
	};

	*ret = (struct conformance_report){0};
	if (kind == CONFORMANCE_NONE)
		differs(ret, "%s is no recording", path);
	else
		checks[kind](path, ret);
	if (!ret->compared)
		differs(ret, "nothing in %s could be compared", path);
	return !*ret->difference && ret->agreed == ret->compared;
}

/* ---- the command ---- */

struct totals {
	uint32_t files, differing;
};

static void check_one(const char *path, enum conformance_kind kind, struct totals *t)
{
	struct conformance_report *r = calloc(1, sizeof *r);
	bool agrees = r && conformance_check(path, kind, r);

	t->files++;
	t->differing += !agrees;
	if (!r) {
		printf("DIFFER 0/0 %s: no memory\n", path);
		return;
	}
	printf("%s %" PRIu64 "/%" PRIu64 " %s%s%s%s\n", agrees ? "AGREE" : "DIFFER", r->agreed,
	       r->compared, path, *r->note ? " (" : "", r->note, *r->note ? ")" : "");
	if (!agrees)
		printf("  %s\n", r->difference);
	fflush(stdout);
	free(r);
}

static void walk(const char *path, bool named, struct totals *t);

static void walk_folder(const char *path, struct totals *t)
{
	struct dirent **entries;
	int nr = scandir(path, &entries, NULL, alphasort);

	for (int i = 0; i < nr; i++) {
		char child[4096];

		snprintf(child, sizeof child, "%s/%s", path, entries[i]->d_name);
		if (entries[i]->d_name[0] != '.')
			walk(child, false, t);
		free(entries[i]);
	}
	if (nr >= 0)
		free(entries);
}

/* A path that was named and is nothing to check is a failure; one found is passed over, and
 * looked at only if its name says that it may be something. */
static void walk(const char *path, bool named, struct totals *t)
{
	bool likely = named || is_folder(path) || strstr(path, ".jsonl");
	enum conformance_kind kind = likely ? conformance_kind_of(path) : CONFORMANCE_NONE;
	uint32_t before = t->files;

	if (kind != CONFORMANCE_NONE)
		check_one(path, kind, t);
	/* A trace's folder holds nothing else; a boot's may. */
	if (is_folder(path) && kind != CONFORMANCE_TRACE)
		walk_folder(path, t);
	if (named && t->files == before) {
		fprintf(stderr, "zoned: %s: no recording there\n", path);
		t->files++;
		t->differing++;
	}
}

static void print_help(void)
{
	printf(
	    "zoned conformance - compares this engine with recordings of a real Linux\n\n"
	    "usage: zoned conformance PATH...\n\n"
	    "Plays each recording to a machine of its own in this process; no daemon is "
	    "needed.\nA PATH is a recording or a folder to be searched for them:\n"
	    "  a boot's folder         dmesg and zoneinfo: every figure of every zone\n"
	    "  seq*.jsonl              every frame, counter and list of every op\n"
	    "  exhaust.jsonl           when each zone is left\n"
	    "  kmap.jsonl              addresses of kmap, kmap_local, vmalloc and fixmap\n"
	    "  const*.jsonl            constants and zones\n"
	    "  a trace, or its folder  kmem.trace and state-begin: every allocation's frame\n"
	    "Each file may be gzipped; the machine is made from the dmesg in its folder. A file\n"
	    "of another name is what its first lines say.\n\n"
	    "Prints a line for each: AGREE n/n, or DIFFER k/n (k of n things agree) with the "
	    "first\ndifference: the op, both answers, the shortest prefix that shows it.\n\n"
	    "exit codes: %d all agree; %d something differs; %d the command line is wrong\n",
	    CODE_AGREE, CODE_DIFFER, CODE_USAGE);
}

int conformance_command(int argc, char **argv)
{
	struct totals t = {0};

	if (argc < 2 || strncmp(argv[1], "-", 1) == 0) {
		bool help =
		    argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);

		if (help)
			print_help();
		else
			fprintf(stderr, "zoned: conformance needs paths of recordings; "
					"zoned conformance --help tells more\n");
		return help ? CODE_AGREE : CODE_USAGE;
	}
	for (int i = 1; i < argc; i++)
		walk(argv[i], true, &t);
	return t.differing ? CODE_DIFFER : CODE_AGREE;
}
