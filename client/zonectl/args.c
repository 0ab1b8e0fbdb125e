/*
 * args.c - the command line: flags, words, what holds for every command, suggestions.
 *
 * A command's flags are a table, fixed or made from the contract at run time. Flags
 * and words may be mixed; `--flag value` and `--flag=value` are the same; `--` ends
 * the flags.
 */
#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "zonectl.h"

const struct flag global_flags[] = {
    {"machine", 'm', "NAME", "the machine; default $ZONED_MACHINE"},
    {"address", 0, "ADDRESS", "unix:PATH or tcp:HOST:PORT of the daemon; default $ZONED_ADDRESS"},
    {"token-file", 0, "FILE", "holds the token for TCP; default $ZONED_TOKEN_FILE"},
    {"cpu", 0, "N", "the CPU that executes the op; default 0"},
    {"task", 0, "N", "on whose behalf; default 0, the kernel itself"},
    {"owner", 0, "LABEL", "kept with every frame the op allocates"},
    {"timeout", 0, "TIME", "how long to wait: 5s, 250ms, 2m; default 30s"},
    {"json", 'j', NULL, "print JSON"},
    {"help", 'h', NULL, "what the command does and takes"},
};
const unsigned nr_global_flags = sizeof global_flags / sizeof *global_flags;

/* Where complaints go: a buffer, or stderr while it is NULL. */
static char *complaint;
static size_t complaint_size;

void complain_to(char *to, size_t size)
{
	complaint = to;
	complaint_size = size;
	if (to)
		*to = '\0';
}

static void complain_with(const char *format, va_list ap)
{
	if (complaint) {
		vsnprintf(complaint, complaint_size, format, ap);
		return;
	}
	fflush(stdout);
	fputs("zonectl: ", stderr);
	vfprintf(stderr, format, ap);
	fputc('\n', stderr);
}

void complain(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	complain_with(format, ap);
	va_end(ap);
}

int usage_error(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	complain_with(format, ap);
	va_end(ap);
	return EXIT_USAGE;
}

void *must(void *p)
{
	if (!p) {
		complain("out of memory");
		exit(EXIT_FILE);
	}
	return p;
}

const char *kebab(const char *name, char *to, size_t size)
{
	size_t i;

	for (i = 0; name[i] && i + 1 < size; i++)
		to[i] = name[i] == '_' ? '-' : name[i];
	to[i] = '\0';
	return to;
}

/* ---- suggestions ---- */

/* Capitals and the two kinds of dashes are no typos. */
static int plain_letter(char c)
{
	return c == '-' ? '_' : tolower((unsigned char)c);
}

/* Edits (one letter more, less, other, or two swapped) between two short words. */
static unsigned edit_distance(const char *a, const char *b)
{
	enum { MOST = 40 };
	unsigned d[MOST + 1][MOST + 1];
	size_t la = strlen(a), lb = strlen(b), i, j;

	if (la > MOST || lb > MOST)
		return MOST;
	for (i = 0; i <= la; i++)
		d[i][0] = (unsigned)i;
	for (j = 0; j <= lb; j++)
		d[0][j] = (unsigned)j;
	for (i = 1; i <= la; i++)
		for (j = 1; j <= lb; j++) {
			int x = plain_letter(a[i - 1]), y = plain_letter(b[j - 1]);
			unsigned best = d[i - 1][j - 1] + (x != y);

			if (d[i - 1][j] + 1 < best)
				best = d[i - 1][j] + 1;
			if (d[i][j - 1] + 1 < best)
				best = d[i][j - 1] + 1;
			if (i > 1 && j > 1 && x == plain_letter(b[j - 2]) &&
			    plain_letter(a[i - 2]) == y && d[i - 2][j - 2] + 1 < best)
				best = d[i - 2][j - 2] + 1;
			d[i][j] = best;
		}
	return d[la][lb];
}

static bool begins_with(const char *text, const char *with)
{
	while (*with && plain_letter(*text) == plain_letter(*with)) {
		text++;
		with++;
	}
	return !*with;
}

void suggest(struct suggestion *s, const char *candidate)
{
	size_t length = strlen(s->word);
	unsigned limit = length < 5 ? 1 : (unsigned)((length + 1) / 3);
	unsigned distance = edit_distance(s->word, candidate);

	/* A word typed short, `buddy` for `buddyinfo`, is as near as one typo. */
	if (length >= 3 && begins_with(candidate, s->word))
		distance = 1;
	if (distance <= limit && (!s->nearest || distance < s->distance)) {
		s->nearest = candidate;
		s->distance = distance;
	}
}

void suggest_name(void *s, const char *name, const char *help)
{
	(void)help;
	suggest(s, name);
}

/* ---- parsing ---- */

static const struct flag *find_flag(const struct flag *flags, unsigned nr, const char *name,
				    size_t length)
{
	unsigned i;

	for (i = 0; i < nr; i++)
		if (strlen(flags[i].name) == length && strncmp(flags[i].name, name, length) == 0)
			return &flags[i];
	return NULL;
}

static const struct flag *find_letter(const struct flag *flags, unsigned nr, char letter)
{
	unsigned i;

	for (i = 0; i < nr; i++)
		if (flags[i].letter == letter)
			return &flags[i];
	return NULL;
}

static bool is_flag(const char *word)
{
	return word[0] == '-' && word[1];
}

/* The flag that a word names, or NULL; *ret_value: what stands behind '=', or NULL. */
static const struct flag *flag_of_word(const char *word, const struct flag *flags, unsigned nr,
				       const char **ret_value)
{
	const struct flag *f;
	size_t length;

	*ret_value = NULL;
	if (word[1] != '-') {
		if (word[2])
			*ret_value = word + 2;
		f = find_letter(flags, nr, word[1]);
		return f ? f : find_letter(global_flags, nr_global_flags, word[1]);
	}
	word += 2;
	length = strcspn(word, "=");
	if (word[length])
		*ret_value = word + length + 1;
	f = find_flag(flags, nr, word, length);
	return f ? f : find_flag(global_flags, nr_global_flags, word, length);
}

char *args_take_word(int *argc, char **argv)
{
	/* The word under the cursor is not yet a word. */
	int i, n = *argc - completing();

	for (i = 0; i < n; i++) {
		const struct flag *f;
		const char *value;
		char *word = argv[i];

		if (!is_flag(word)) {
			memmove(&argv[i], &argv[i + 1], (size_t)(*argc - i) * sizeof *argv);
			--*argc;
			return word;
		}
		f = flag_of_word(word, NULL, 0, &value);
		if (f && f->value && !value)
			i++;
	}
	return NULL;
}

static int unknown_flag(const char *command, const char *word, const struct flag *flags,
			unsigned nr)
{
	char name[64];
	struct suggestion s = {.word = name};
	const char *start = word + strspn(word, "-");
	unsigned i;

	snprintf(name, sizeof name, "%.*s", (int)strcspn(start, "="), start);
	for (i = 0; i < nr; i++)
		suggest(&s, flags[i].name);
	for (i = 0; i < nr_global_flags; i++)
		suggest(&s, global_flags[i].name);
	if (s.nearest)
		return usage_error("%s: no flag %s; did you mean --%s?", command, word, s.nearest);
	return usage_error("%s: no flag %s; see zonectl %s --help", command, word, command);
}

static int parse_number_flag(const char *name, const char *text, uint32_t most, uint32_t *ret)
{
	uint64_t n;

	if (!number_parse(text, false, &n) || n > most)
		return usage_error("--%s %s is not a number from 0 to %u", name, text, most);
	*ret = (uint32_t)n;
	return EXIT_DONE;
}

/* A global flag's effect. */
static int apply_global(struct ctl *ctl, const char *name, const char *text)
{
	if (strcmp(name, "machine") == 0)
		ctl->machine = text;
	else if (strcmp(name, "address") == 0)
		ctl->options.address = text;
	else if (strcmp(name, "token-file") == 0)
		ctl->options.token_file = text;
	else if (strcmp(name, "owner") == 0)
		ctl->owner = text;
	else if (strcmp(name, "json") == 0)
		ctl->json = true;
	else if (strcmp(name, "help") == 0)
		ctl->help = true;
	else if (strcmp(name, "cpu") == 0)
		return parse_number_flag(name, text, 31, &ctl->cpu);
	else if (strcmp(name, "task") == 0)
		return parse_number_flag(name, text, UINT32_MAX, &ctl->task);
	else if (!duration_parse(text, &ctl->timeout_ms))
		return usage_error("--timeout %s is not a time: 5s, 250ms, 2m", text);
	else
		ctl->timeout_given = true;
	return EXIT_DONE;
}

static int parse_flag(struct ctl *ctl, const char *command, int argc, char **argv, int *at,
		      const struct flag *flags, unsigned nr_flags, struct args *a)
{
	const char *word = argv[*at], *value;
	const struct flag *f = flag_of_word(word, flags, nr_flags, &value);

	if (!f)
		return unknown_flag(command, word, flags, nr_flags);
	if (!f->value && value)
		return usage_error("%s: --%s takes no value", command, f->name);
	if (f->value && !value) {
		if (*at + 1 >= argc)
			return usage_error("%s: --%s wants a value: --%s %s", command, f->name,
					   f->name, f->value);
		value = argv[++*at];
	}
	if (f >= global_flags && f < global_flags + nr_global_flags)
		return apply_global(ctl, f->name, value ? value : "");
	a->given[a->nr_given++] = (struct given){f, value ? value : ""};
	return EXIT_DONE;
}

/* Offers what fits under the cursor, which stands in the last word. What is wrong with
 * the words before it is for later. */
static int parse_to_complete(struct ctl *ctl, const char *command, int argc, char **argv,
			     const struct flag *flags, unsigned nr_flags)
{
	const struct flag *f = NULL;
	const char *value;
	unsigned nr_words = 0;
	int i;

	for (i = 0; i + 1 < argc; i++, f = NULL) {
		f = is_flag(argv[i]) ? flag_of_word(argv[i], flags, nr_flags, &value) : NULL;
		nr_words += !is_flag(argv[i]);
		if (!f || !f->value)
			continue;
		if (!value && i + 2 == argc)
			break;
		value = value ? value : argv[++i];
		if (f >= global_flags && f < global_flags + nr_global_flags)
			apply_global(ctl, f->name, value);
	}
	complete_at(ctl, command, flags, nr_flags, f, nr_words);
	return EXIT_USAGE;
}

int args_parse(struct ctl *ctl, const char *command, int argc, char **argv,
	       const struct flag *flags, unsigned nr_flags, struct args *ret_args)
{
	struct args a = {0};
	bool no_more_flags = false;
	int i, rc = EXIT_DONE;

	if (completing())
		return parse_to_complete(ctl, command, argc, argv, flags, nr_flags);
	a.given = must(calloc((size_t)argc + 1, sizeof *a.given));
	a.words = must(calloc((size_t)argc + 1, sizeof *a.words));
	for (i = 0; i < argc && rc == EXIT_DONE; i++) {
		if (no_more_flags || !is_flag(argv[i]))
			a.words[a.nr_words++] = argv[i];
		else if (strcmp(argv[i], "--") == 0)
			no_more_flags = true;
		else
			rc = parse_flag(ctl, command, argc, argv, &i, flags, nr_flags, &a);
	}
	if (rc != EXIT_DONE)
		args_free(&a);
	else
		*ret_args = a;
	return rc;
}

void args_free(struct args *a)
{
	free(a->given);
	free(a->words);
	*a = (struct args){0};
}

const char *args_text_at(const struct args *a, const char *name, unsigned n)
{
	unsigned i;

	for (i = 0; i < a->nr_given; i++)
		if (strcmp(a->given[i].flag->name, name) == 0 && n-- == 0)
			return a->given[i].text;
	return NULL;
}

const char *args_text(const struct args *a, const char *name)
{
	const char *last = NULL;
	unsigned i;

	for (i = 0; i < a->nr_given; i++)
		if (strcmp(a->given[i].flag->name, name) == 0)
			last = a->given[i].text;
	return last;
}

bool args_has(const struct args *a, const char *name)
{
	return args_text(a, name) != NULL;
}

int args_limit_words(const struct args *a, const char *command, unsigned most)
{
	if (a->nr_words <= most)
		return EXIT_DONE;
	return usage_error("%s: do not know what to do with %s; see zonectl %s --help", command,
			   a->words[most], command);
}

int args_read_at(struct ctl *ctl, const struct args *a, const char *command)
{
	const char *text = args_text(a, "at");

	if (!text)
		return EXIT_DONE;
	ctl->has_at = true;
	if (number_parse(text, false, &ctl->at))
		return EXIT_DONE;
	return usage_error("%s: --at %s is no op number", command, text);
}

/* Prints a text behind a column of `indent`, folded at the terminal's width. */
static void print_folded(const char *text, unsigned indent)
{
	unsigned width = terminal_width() > indent + 20 ? terminal_width() - indent : 20;
	unsigned column = 0;

	while (*text) {
		/* Flags joined by | may be folded behind each of them. */
		size_t blanks = strspn(text, " "), length = strcspn(text + blanks, " |");

		text += blanks;
		length += text[length] == '|';
		if (column && column + blanks + length > width) {
			printf("\n%*s", (int)indent, "");
			column = 0;
			blanks = 0;
		}
		if (length)
			printf("%*s%.*s", (int)blanks, "", (int)length, text);
		column += (unsigned)(blanks + length);
		text += length;
	}
	putchar('\n');
}

void print_flags(const char *title, const struct flag *flags, unsigned nr_flags)
{
	enum { INDENT = 31 };
	unsigned i;

	printf("%s\n", title);
	for (i = 0; i < nr_flags; i++) {
		const struct flag *f = &flags[i];
		char left[64];

		snprintf(left, sizeof left, "%c%c%s--%s%s%s", f->letter ? '-' : ' ',
			 f->letter ? f->letter : ' ', f->letter ? ", " : "  ", f->name,
			 f->value ? " " : "", f->value ? f->value : "");
		printf("  %-*s ", INDENT - 3, left);
		print_folded(f->help, INDENT);
	}
}
