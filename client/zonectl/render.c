/*
 * render.c - the terminal: widths, colours, tables, a pager.
 *
 * A text's width is its number of code points: nothing that zonectl prints is wider
 * or narrower than one column (combining marks and wide characters in labels may
 * shift a table, and nothing else).
 */
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "zonectl.h"

uint64_t monotonic_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

unsigned terminal_width(void)
{
	const char *columns = getenv("COLUMNS");
	struct winsize w;
	uint64_t n;

	if (columns && number_parse(columns, false, &n) && n >= 20 && n <= 1000)
		return (unsigned)n;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col >= 20)
		return w.ws_col;
	return 80;
}

bool want_colour(FILE *to)
{
	const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

	return isatty(fileno(to)) && !(no && *no) && !(term && strcmp(term, "dumb") == 0);
}

bool terminal_is_utf8(void)
{
	const char *ctype = setlocale(LC_CTYPE, "");

	return ctype && (strstr(ctype, "UTF-8") || strstr(ctype, "utf8"));
}

const char *human_size(uint64_t bytes, char *to, size_t size)
{
	static const char units[] = "BKMGT";
	double n = (double)bytes;
	unsigned u = 0;

	while (n >= 1024 && u < 4) {
		n /= 1024;
		u++;
	}
	if (u == 0 || n >= 100 || n == (double)(uint64_t)n)
		snprintf(to, size, "%.0f%c", n, units[u]);
	else
		snprintf(to, size, n >= 10 ? "%.1f%c" : "%.2f%c", n, units[u]);
	return to;
}

unsigned text_width(const char *text)
{
	unsigned n = 0;

	for (; *text; text++)
		n += (*text & 0xc0) != 0x80;
	return n;
}

/* ---- tables ---- */

struct table {
	unsigned nr_columns;
	struct column {
		char *name;
		unsigned width;
		bool right;
	} * columns;
	char **cells; /* nr_columns for each row */
	unsigned nr_rows, capacity, printed;
	bool header_done;
};

struct table *table_new(unsigned nr_columns, const char *const *names)
{
	struct table *t = must(calloc(1, sizeof *t));
	unsigned i;

	t->nr_columns = nr_columns;
	t->columns = must(calloc(nr_columns + 1, sizeof *t->columns));
	for (i = 0; i < nr_columns; i++) {
		t->columns[i].name = must(strdup(names[i]));
		t->columns[i].width = text_width(names[i]);
	}
	return t;
}

void table_align_right(struct table *t, unsigned column, bool right)
{
	t->columns[column].right = right;
}

void table_add(struct table *t, const char *const *cells)
{
	unsigned i;

	if (t->nr_rows == t->capacity) {
		t->capacity = t->capacity ? 2 * t->capacity : 64;
		t->cells = must(realloc(t->cells, sizeof *t->cells * t->capacity * t->nr_columns));
	}
	for (i = 0; i < t->nr_columns; i++) {
		unsigned width = text_width(cells[i]);

		t->cells[t->nr_rows * t->nr_columns + i] = must(strdup(cells[i]));
		if (width > t->columns[i].width)
			t->columns[i].width = width;
	}
	t->nr_rows++;
}

unsigned table_rows(const struct table *t)
{
	return t->nr_rows;
}

static void print_cell(const struct table *t, unsigned column, const char *text, FILE *to)
{
	const struct column *c = &t->columns[column];
	int pad = (int)(c->width - text_width(text));
	bool last = column + 1 == t->nr_columns;

	if (column)
		fputs("  ", to);
	if (c->right)
		fprintf(to, "%*s%s", pad, "", text);
	else
		fprintf(to, "%s%*s", text, last ? 0 : pad, "");
}

static void print_header(const struct table *t, FILE *to)
{
	bool colour = want_colour(to);
	unsigned width = terminal_width(), i, k;

	if (colour)
		fputs("\033[1m", to);
	for (i = 0; i < t->nr_columns; i++)
		print_cell(t, i, t->columns[i].name, to);
	fputs(colour ? "\033[0m\n" : "\n", to);
	for (i = 0; i < t->nr_columns && !colour; i++) {
		if (i)
			fputs("  ", to);
		for (k = 0; k < t->columns[i].width && k < width; k++)
			fputc('-', to);
	}
	if (!colour)
		fputc('\n', to);
}

void table_print(struct table *t, FILE *to)
{
	unsigned i, k;

	if (!t->header_done && t->nr_columns)
		print_header(t, to);
	t->header_done = true;
	for (i = 0; i < t->nr_rows; i++) {
		for (k = 0; k < t->nr_columns; k++) {
			char **cell = &t->cells[i * t->nr_columns + k];

			print_cell(t, k, *cell, to);
			free(*cell);
		}
		fputc('\n', to);
	}
	t->nr_rows = 0;
}

void table_free(struct table *t)
{
	unsigned i;

	if (!t)
		return;
	for (i = 0; i < t->nr_rows * t->nr_columns; i++)
		free(t->cells[i]);
	for (i = 0; i < t->nr_columns; i++)
		free(t->columns[i].name);
	free(t->cells);
	free(t->columns);
	free(t);
}

/* ---- the pager ---- */

FILE *pager_open(bool wanted)
{
	const char *pager = getenv("PAGER");
	FILE *to = NULL;

	if (!wanted || !isatty(STDOUT_FILENO))
		return stdout;
	/* -F: what fits on the screen is simply printed. -S: long rows are not folded. */
	if (!pager)
		pager = "less -FRSX 2>/dev/null || cat";
	if (*pager && strcmp(pager, "cat") != 0)
		to = popen(pager, "we");
	return to ? to : stdout;
}

void pager_close(FILE *to)
{
	if (to != stdout)
		pclose(to);
}
