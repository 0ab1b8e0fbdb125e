/*
 * config.c - one table of words for the command line, the file and --help.
 *
 * Every value passes the same parser whether it came by `--name value` or by a line
 * `name = value`; the file is read first, wherever --config stands.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef ZONED_VERSION
#define ZONED_VERSION "unknown"
#endif

enum kind { TEXT, LIST, SWITCH, CHOICE, NUMBER, BYTES, DURATION, ACTION };

struct word {
	const char *name;
	enum kind kind;
	size_t offset;	       /* in struct config */
	const char *values[5]; /* of CHOICE: the index is the value */
	const char *argument, *help;
};

#define AT(field) offsetof(struct config, field)
static const struct word words[] = {
    {"listen",
     LIST,
     AT(listen),
     {0},
     "ADDRESS",
     "unix:PATH or tcp:HOST:PORT, up to 16 times; default unix:$XDG_RUNTIME_DIR/zoned.sock,\n"
     "or /run/zoned/zoned.sock"},
    {"history",
     TEXT,
     AT(history),
     {0},
     "FILE",
     "the record; default $STATE_DIRECTORY/history.db, or ~/.local/state/zoned/history.db"},
    {"sync",
     CHOICE,
     AT(sync_full),
     {"normal", "full"},
     "normal|full",
     "full: a commit survives the host's crash too, not only the daemon's"},
    {"token-file",
     TEXT,
     AT(token_file),
     {0},
     "FILE",
     "what TCP clients must present; readable by its owner alone"},
    {"kernel-image",
     TEXT,
     AT(kernel_image),
     {0},
     "FILE",
     "what machines of --backend kernel boot; default zoned-kernel.elf beside the daemon"},
    {"guest-gdb",
     TEXT,
     AT(guest_gdb),
     {0},
     "DIR",
     "guests have a gdb stub: start gdb with -x DIR/guest-N.gdb, N counting from 1. Guests\n"
     "may then be silent for as long as they like"},
    {"guest-timeout-ms",
     NUMBER,
     AT(guest_timeout_ms),
     {0},
     "N",
     "how long a guest that starts or owes an answer may send nothing; default 20000"},
    {"insecure-no-auth", SWITCH, AT(no_auth), {0}, NULL, "TCP without a token"},
    {"max-machines", NUMBER, AT(max_machines), {0}, "N", "machines hosted at most; default 1024"},
    {"max-memory",
     BYTES,
     AT(max_memory),
     {0},
     "SIZE",
     "host memory of all machines; default three quarters of the host's"},
    {"max-machine-memory",
     BYTES,
     AT(max_machine_memory),
     {0},
     "SIZE",
     "host memory of one machine; default that of all"},
    {"query-timeout-ms",
     NUMBER,
     AT(query_timeout_ms),
     {0},
     "N",
     "how long a query may run; default 10000"},
    {"checkpoint-ops",
     NUMBER,
     AT(checkpoint_ops),
     {0},
     "N",
     "a machine is kept as it is after so many ops; default 1048576"},
    {"checkpoint-seconds",
     NUMBER,
     AT(checkpoint_seconds),
     {0},
     "N",
     "... and after so long, if it has had any; default 600"},
    {"retain-age",
     DURATION,
     AT(retain_seconds),
     {0},
     "TIME",
     "forget ops that are older and machines that ended before (90s, 30m, 12h,\n"
     "7d); default never"},
    {"retain-size",
     BYTES,
     AT(retain_bytes),
     {0},
     "SIZE",
     "forget what is oldest while the record is larger; default never"},
    {"log-level",
     CHOICE,
     AT(log_level),
     {"error", "warning", "info", "debug"},
     "error|warning|info|debug",
     "default info"},
    {"log-format", CHOICE, AT(log_json), {"text", "json"}, "text|json", "to stderr; default text"},
    {"config", ACTION, 0, {0}, "FILE", "lines of `name = value` with these names"},
    {"help", ACTION, 0, {0}, NULL, "this"},
    {"version", ACTION, 0, {0}, NULL, "the version"},
};
enum { NR_WORDS = sizeof words / sizeof words[0] };

static bool wrong(char *err, size_t err_size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static bool wrong(char *err, size_t err_size, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(err, err_size, format, args);
	va_end(args);
	return false;
}

/* ---- values ---- */

static char *copy(const char *text)
{
	char *c = strdup(text);

	if (!c)
		abort();
	return c;
}

/* A number, for BYTES with a suffix K, M, G or T of powers of 1024. */
static bool parse_number(const char *text, bool suffixed, uint64_t *ret)
{
	static const char suffixes[] = "KMGT";
	const char *suffix;
	uint64_t value;
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	value = strtoull(text, &end, 0);
	if (errno)
		return false;
	if (suffixed && *end && (suffix = strchr(suffixes, *end))) {
		unsigned shift = 10 * (unsigned)(suffix - suffixes + 1);

		if (value > UINT64_MAX >> shift)
			return false;
		value <<= shift;
		end++;
	}
	*ret = value;
	return !*end;
}

/* Seconds, or with a suffix minutes, hours or days. */
static bool parse_duration(const char *text, uint64_t *ret)
{
	static const struct {
		char suffix;
		uint64_t seconds;
	} units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
	size_t length = strlen(text);
	uint64_t unit = 1;
	char digits[24];

	for (unsigned i = 0; length && i < 4; i++) {
		if (text[length - 1] != units[i].suffix)
			continue;
		unit = units[i].seconds;
		length--;
		break;
	}
	if (length >= sizeof digits)
		return false;
	memcpy(digits, text, length);
	digits[length] = 0;
	if (!parse_number(digits, false, ret) || *ret > INT64_MAX / 2000000000 / unit)
		return false;
	*ret *= unit;
	return true;
}

static bool set_choice(const struct word *w, void *at, const char *value, char *err,
		       size_t err_size)
{
	for (unsigned i = 0; w->values[i]; i++) {
		if (strcmp(w->values[i], value) != 0)
			continue;
		/* Two values are a bool, more an index. */
		if (w->values[2])
			*(unsigned *)at = i;
		else
			*(bool *)at = i;
		return true;
	}
	return wrong(err, err_size, "%s: %s is none of %s", w->name, value, w->argument);
}

static bool set_word(struct config *c, const struct word *w, const char *value, char *err,
		     size_t err_size)
{
	void *at = (char *)c + w->offset;

	switch (w->kind) {
	case TEXT:
		free(*(char **)at);
		*(char **)at = copy(value);
		return true;
	case LIST:
		if (c->nr_listen == CONFIG_MAX_LISTEN)
			return wrong(err, err_size, "%s: more than %d", w->name, CONFIG_MAX_LISTEN);
		c->listen[c->nr_listen++] = copy(value);
		return true;
	case SWITCH:
		if (strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
			return wrong(err, err_size, "%s: %s is neither true nor false", w->name,
				     value);
		*(bool *)at = value[0] == 't';
		return true;
	case CHOICE: return set_choice(w, at, value, err, err_size);
	case NUMBER:
	case BYTES:
		return parse_number(value, w->kind == BYTES, at) ||
		       wrong(err, err_size, "%s: %s is not a %s", w->name, value,
			     w->kind == BYTES ? "size (64M, 2G, ...)" : "number");
	case DURATION:
		return parse_duration(value, at) ||
		       wrong(err, err_size, "%s: %s is not a time (90s, 30m, 12h, 7d)", w->name,
			     value);
	case ACTION: break;
	}
	return wrong(err, err_size, "%s: only on the command line", w->name);
}

static const struct word *find_word(const char *name, size_t length)
{
	for (unsigned i = 0; i < NR_WORDS; i++)
		if (strlen(words[i].name) == length && memcmp(words[i].name, name, length) == 0)
			return &words[i];
	return NULL;
}

/* ---- the file ---- */

/* The text without the blanks around it, cut in place. */
static char *trim(char *text)
{
	char *end;

	text += strspn(text, " \t\r\n");
	end = text + strlen(text);
	while (end > text && strchr(" \t\r\n", end[-1]))
		end--;
	*end = 0;
	return text;
}

static bool read_line(struct config *c, const char *path, unsigned number, char *line, char *err,
		      size_t err_size)
{
	char *name = trim(line), *value = strchr(name, '='), why[CONFIG_ERROR_LENGTH];
	const struct word *w;

	if (!*name || *name == '#')
		return true;
	if (!value)
		return wrong(err, err_size, "%s:%u: not `name = value`", path, number);
	*value++ = 0;
	name = trim(name);
	w = find_word(name, strlen(name));
	if (!w)
		return wrong(err, err_size, "%s:%u: there is no setting %s", path, number, name);
	if (!set_word(c, w, trim(value), why, sizeof why))
		return wrong(err, err_size, "%s:%u: %s", path, number, why);
	return true;
}

static bool read_file(struct config *c, const char *path, char *err, size_t err_size)
{
	FILE *f = fopen(path, "re");
	unsigned number = 0;
	char *line = NULL;
	size_t size = 0;
	bool ok = true;

	if (!f)
		return wrong(err, err_size, "%s: %s", path, strerror(errno));
	while (ok && getline(&line, &size, f) >= 0)
		ok = read_line(c, path, ++number, line, err, err_size);
	if (ok && ferror(f))
		ok = wrong(err, err_size, "%s: %s", path, strerror(errno));
	free(line);
	fclose(f);
	return ok;
}

/* ---- the command line ---- */

static void print_help(void)
{
	printf("zoned - hosts 32-bit machines' memory managers\n\nusage: zoned [OPTION]...\n"
	       "       zoned conformance PATH...   (compares the engine with recordings of a real "
	       "Linux)\n"
	       "       zoned replay ...            (plays a recorded machine again)\n"
	       "       zoned export ...            (a history as CSV or ftrace's text)\n"
	       "       zoned verify ...            (is a history whole, and the truth?)\n"
	       "       zoned compact ...           (its file without what is free in it)\n\n");
	for (unsigned i = 0; i < NR_WORDS; i++) {
		const struct word *w = &words[i];
		const char *help = w->help, *end;
		int column = printf("  --%s%s%s", w->name, w->argument ? " " : "",
				    w->argument ? w->argument : "");

		printf("%*s", column < 28 ? 28 - column : 1, "");
		while ((end = strchr(help, '\n'))) {
			printf("%.*s\n%28s", (int)(end - help), help, "");
			help = end + 1;
		}
		printf("%s\n", help);
	}
	printf("\nexit codes: %d stopped by a signal or --help; %d something broke while running;\n"
	       "  %d the command line or the file is wrong; %d the history cannot be opened;\n"
	       "  %d an address cannot be listened on; %d stopped by a second signal\n",
	       EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_HISTORY, EXIT_LISTEN, EXIT_IMPATIENT);
}

/* One --name, --name value or --name=value. Returns how many words it took; 0: wrong. */
static int parse_option(char **argv, const struct word **ret, const char **ret_value, char *err,
			size_t err_size)
{
	const char *name = argv[0], *equals = strchr(name, '=');
	size_t length = equals ? (size_t)(equals - name) : strlen(name);
	const struct word *w;

	w = length > 2 && name[0] == '-' && name[1] == '-' ? find_word(name + 2, length - 2) : NULL;
	if (!w) {
		wrong(err, err_size, "%s: no such option; --help lists them", name);
		return 0;
	}
	*ret = w;
	*ret_value = equals ? equals + 1 : w->argument ? argv[1] : "true";
	if (!*ret_value)
		wrong(err, err_size, "--%s needs %s", w->name, w->argument);
	return !*ret_value ? 0 : equals || !w->argument ? 1 : 2;
}

/* Two passes over the same words: the file has to be read before what overrides it. */
static enum config_action parse(struct config *c, int argc, char **argv, bool actions, char *err,
				size_t err_size)
{
	bool listed = false;
	int took;

	for (int i = 1; i < argc; i += took) {
		const struct word *w;
		const char *value;

		took = parse_option(argv + i, &w, &value, err, err_size);
		if (!took)
			return CONFIG_WRONG;
		if (w->kind != ACTION && !actions) {
			/* The command line's list stands for the file's. */
			while (w->kind == LIST && !listed && c->nr_listen)
				free(c->listen[--c->nr_listen]);
			listed |= w->kind == LIST;
			if (!set_word(c, w, value, err, err_size))
				return CONFIG_WRONG;
		}
		if (w->kind != ACTION || !actions)
			continue;
		if (strcmp(w->name, "help") == 0) {
			print_help();
			return CONFIG_DONE;
		}
		if (strcmp(w->name, "version") == 0) {
			printf("zoned %s\n", ZONED_VERSION);
			return CONFIG_DONE;
		}
		if (!read_file(c, value, err, err_size))
			return CONFIG_WRONG;
	}
	return CONFIG_RUN;
}

/* ---- defaults ---- */

static char *join(const char *a, const char *b, const char *c)
{
	size_t size = strlen(a) + strlen(b) + strlen(c) + 1;
	char *text = malloc(size);

	if (!text)
		abort();
	snprintf(text, size, "%s%s%s", a, b, c);
	return text;
}

static const char *environment(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? value : NULL;
}

static bool set_defaults(struct config *c, char *err, size_t err_size)
{
	const char *run = environment("RUNTIME_DIRECTORY"), *home = environment("HOME");
	const char *state = environment("STATE_DIRECTORY"), *local = environment("XDG_STATE_HOME");

	if (!c->nr_listen) {
		if (!run)
			run = environment("XDG_RUNTIME_DIR");
		c->listen[c->nr_listen++] = join("unix:", run ? run : "/run/zoned", "/zoned.sock");
	}
	if (c->history)
		return true;
	if (state)
		c->history = join(state, "/history.db", "");
	else if (local)
		c->history = join(local, "/zoned/history.db", "");
	else if (home)
		c->history = join(home, "/.local/state/zoned/history.db", "");
	return c->history || wrong(err, err_size, "--history: not given, and there is no $HOME");
}

static bool check(const struct config *c, char *err, size_t err_size)
{
	for (unsigned i = 0; i < c->nr_listen; i++)
		if (strncmp(c->listen[i], "tcp:", 4) == 0 && !c->token_file && !c->no_auth)
			return wrong(err, err_size,
				     "%s: TCP needs --token-file (or --insecure-no-auth)",
				     c->listen[i]);
	return true;
}

enum config_action config_read(int argc, char **argv, struct config *ret, char *err,
			       size_t err_size)
{
	enum config_action action;

	*ret = (struct config){.log_level = 2 /* info */};
	action = parse(ret, argc, argv, true, err, err_size);
	if (action == CONFIG_RUN)
		action = parse(ret, argc, argv, false, err, err_size);
	if (action == CONFIG_RUN &&
	    (!set_defaults(ret, err, err_size) || !check(ret, err, err_size)))
		action = CONFIG_WRONG;
	if (action != CONFIG_RUN)
		config_free(ret);
	return action;
}

void config_free(struct config *c)
{
	for (unsigned i = 0; i < c->nr_listen; i++)
		free(c->listen[i]);
	free(c->history);
	free(c->token_file);
	free(c->kernel_image);
	*c = (struct config){0};
}

/* ---- files ---- */

char *config_read_token(const char *path, char *err, size_t err_size)
{
	enum { TOKEN_MIN = 16, TOKEN_MAX = 512 };
	char bytes[TOKEN_MAX + 2] = "", *token;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	ssize_t length;

	if (fd < 0 || fstat(fd, &st) < 0) {
		wrong(err, err_size, "%s: %s", path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	length = read(fd, bytes, sizeof bytes - 1);
	close(fd);
	if (length < 0) {
		wrong(err, err_size, "%s: %s", path, strerror(errno));
		return NULL;
	}
	if (!S_ISREG(st.st_mode) || st.st_mode & 077) {
		wrong(err, err_size, "%s: others can read it; chmod 600 it", path);
		return NULL;
	}
	token = trim(bytes);
	for (const char *at = token; *at; at++)
		if (*at <= ' ' || *at > '~')
			length = 0;
	if (!length || strlen(token) < TOKEN_MIN || strlen(token) > TOKEN_MAX) {
		wrong(err, err_size, "%s: not one line of %d to %d printable characters", path,
		      TOKEN_MIN, TOKEN_MAX);
		return NULL;
	}
	return copy(token);
}

bool config_make_parents(const char *path, char *err, size_t err_size)
{
	char *parent = copy(path);
	bool ok = true;

	for (char *slash = strchr(parent + 1, '/'); ok && slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		if (mkdir(parent, 0700) < 0 && errno != EEXIST)
			ok = wrong(err, err_size, "%s: %s", parent, strerror(errno));
		*slash = '/';
	}
	free(parent);
	return ok;
}
