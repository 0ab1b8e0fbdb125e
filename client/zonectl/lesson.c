/*
 * lesson.c - `zonectl lesson`: the scripts of client/experiments, which are part of the
 * program. A lesson's first line is "-- lesson: what it shows".
 */
#include <string.h>

#include "lua_script.h"

static const char mark[] = "-- lesson: ";

static const struct flag lesson_flags[] = {
    {"backend", 'b', "sim|kernel", "where it runs; default sim"},
    {"keep", 'k', NULL, "leave its machines when it ends, to look into them"},
    {"show", 's', NULL, "print the script instead of running it"},
    {"all", 'a', NULL, "run every lesson, one after the other"},
};
enum { NR_LESSON_FLAGS = sizeof lesson_flags / sizeof *lesson_flags };

static bool is_lesson(const struct embedded *e)
{
	return strncmp(e->text, mark, sizeof mark - 1) == 0;
}

void lessons_each(name_fn *fn, void *arg)
{
	unsigned i;

	for (i = 0; i < nr_embedded_scripts; i++) {
		const struct embedded *e = &embedded_scripts[i];
		char what[160];

		if (!is_lesson(e))
			continue;
		snprintf(what, sizeof what, "%.*s", (int)strcspn(e->text + sizeof mark - 1, "\n"),
			 e->text + sizeof mark - 1);
		fn(arg, e->name, what);
	}
}

static void add_row(void *table, const char *name, const char *what)
{
	table_add(table, (const char *const[]){name, what});
}

static void list_lessons(void)
{
	static const char *const names[] = {"LESSON", "WHAT IT SHOWS"};
	struct table *t = table_new(2, names);

	lessons_each(add_row, t);
	table_print(t, stdout);
	table_free(t);
}

static const struct embedded *find_lesson(const char *name)
{
	const struct embedded *e = embedded_find(name);
	struct suggestion s = {.word = name};
	unsigned i;

	if (e && is_lesson(e))
		return e;
	for (i = 0; i < nr_embedded_scripts; i++)
		if (is_lesson(&embedded_scripts[i]))
			suggest(&s, embedded_scripts[i].name);
	if (s.nearest)
		usage_error("lesson: no lesson %s; did you mean %s?", name, s.nearest);
	else
		usage_error("lesson: no lesson %s; `zonectl lesson` lists them", name);
	return NULL;
}

static int run_lesson(struct ctl *ctl, const struct embedded *e, const char *backend,
		      const struct args *a)
{
	char path[80];

	snprintf(path, sizeof path, "%s.lua", e->name);
	return script_run(ctl, backend, e->text, e->length, path, a, !args_has(a, "keep"));
}

static int run_all(struct ctl *ctl, const char *backend, const struct args *a)
{
	unsigned i;
	int rc = EXIT_DONE;

	for (i = 0; i < nr_embedded_scripts && rc == EXIT_DONE; i++)
		if (is_lesson(&embedded_scripts[i]))
			rc = run_lesson(ctl, &embedded_scripts[i], backend, a);
	return rc;
}

static void lesson_help(void)
{
	printf("zonectl lesson - scripts to learn from\n\n"
	       "usage: zonectl lesson [NAME] [flags]; without a name it lists them\n\n"
	       "A lesson says what it will show, shows it on machines of its own, checks what it\n"
	       "claims, and ends with the SQL that proves it from the history.\n\n");
	print_flags("flags:", lesson_flags, NR_LESSON_FLAGS);
	print_flags("\nfor every command:", global_flags, nr_global_flags);
	printf("\nexit codes: as of zonectl run; 1: what the lesson claims is not so.\n");
}

int lesson_command(struct ctl *ctl, int argc, char **argv)
{
	const struct embedded *e = NULL;
	const char *backend;
	struct args a;
	int rc = args_parse(ctl, "lesson", argc, argv, lesson_flags, NR_LESSON_FLAGS, &a);

	if (rc != EXIT_DONE)
		return rc;
	backend = script_backend("lesson", args_text(&a, "backend"));
	rc = backend ? EXIT_DONE : EXIT_USAGE;
	if (rc == EXIT_DONE && a.nr_words) {
		e = find_lesson(a.words[0]);
		rc = e ? EXIT_DONE : EXIT_USAGE;
	}
	if (rc != EXIT_DONE)
		goto out;
	if (ctl->help)
		lesson_help();
	else if (e && args_has(&a, "show"))
		fwrite(e->text, 1, e->length, stdout);
	else if (e)
		rc = run_lesson(ctl, e, backend, &a);
	else if (args_has(&a, "all"))
		rc = run_all(ctl, backend, &a);
	else
		list_lessons();
out:
	args_free(&a);
	return rc;
}
