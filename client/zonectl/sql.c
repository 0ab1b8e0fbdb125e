/*
 * sql.c - questions to the history: a statement out, pages of rows back.
 *
 * As a table (columns as wide as the first page needs), CSV (RFC 4180) or JSON. In a
 * table a column that is named like a field of the contract is printed as that field
 * is: pfn and va in hex, gfp as names. --raw, CSV and JSON leave the numbers alone.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "zonectl.h"

enum { STATEMENT_BYTES = 1 << 20, MAX_PARAMETERS = 32 };

static const struct flag sql_flags[] = {
    {"csv", 0, NULL, "comma-separated values"},
    {"raw", 0, NULL, "numbers as they are stored"},
    {"limit", 'n', "N", "at most this many rows; default: the daemon's limit"},
    {"param", 'p', "VALUE", "for ?1, ?2, ...; may be repeated"},
    {"no-pager", 0, NULL, "do not start $PAGER when the output is longer than the screen"},
};
enum { NR_SQL_FLAGS = sizeof sql_flags / sizeof *sql_flags };

/* How the rows are written. */
struct output {
	enum { TABLE, CSV, JSON } form;
	bool raw;
	FILE *to;
	unsigned nr_columns;
	struct output_column {
		char *name;
		const struct contract_field *meaning; /* NULL: print as it is */
		bool time;
	} * columns;
	struct table *table;
	uint64_t rows;
};

/* ---- what a column's name says ---- */

static bool same_meaning(const struct contract_field *a, const struct contract_field *b)
{
	return a->is_flags == b->is_flags && a->enums[0] == b->enums[0] &&
	       strcmp(a->unit, b->unit) == 0;
}

/* Takes up a field of that name; *clash when two fields of one name differ. */
static void look_in(const struct contract_fields *fields, const char *name,
		    const struct contract_field **meaning, bool *clash)
{
	const struct contract_field *f = fields_find(fields, name);

	if (!f)
		return;
	if (*meaning && !same_meaning(*meaning, f))
		*clash = true;
	*meaning = f;
}

static const struct contract_field *meaning_of(const char *name)
{
	const struct contract_field *meaning = NULL;
	bool clash = false;
	unsigned i;

	for (i = 0; i < OP_CODE_END; i++)
		if (contract_ops[i].code) {
			look_in(&contract_ops[i].args, name, &meaning, &clash);
			look_in(&contract_ops[i].values, name, &meaning, &clash);
		}
	for (i = 0; i < EVENT_KIND_END; i++)
		if (contract_events[i].kind)
			look_in(&contract_events[i].fields, name, &meaning, &clash);
	return clash || (meaning && meaning->kind == FIELD_BYTES) ? NULL : meaning;
}

/* ---- cells ---- */

static void format_time(int64_t ns, char *to, size_t size)
{
	time_t seconds = (time_t)(ns / 1000000000);
	struct tm tm;
	size_t n;

	localtime_r(&seconds, &tm);
	n = strftime(to, size, "%Y-%m-%d %H:%M:%S", &tm);
	snprintf(to + n, size - n, ".%06lld", (long long)(ns % 1000000000 / 1000));
}

static char *blob_text(const ProtobufCBinaryData *blob)
{
	char *text = must(malloc(2 * blob->len + sizeof "x''")), *at = text;
	size_t i;

	*at++ = 'x';
	*at++ = '\'';
	for (i = 0; i < blob->len; i++, at += 2)
		snprintf(at, 3, "%02x", blob->data[i]);
	*at++ = '\'';
	*at = '\0';
	return text;
}

const char *column_format(const char *name, int64_t value, char *to, size_t size)
{
	const struct contract_field *meaning = meaning_of(name);

	/* A column may have a field's name and be something else. */
	if (meaning && meaning->kind == FIELD_BOOL && value > 1)
		meaning = NULL;
	if (meaning && value >= 0)
		return value_format(meaning, (uint64_t)value, to, size);
	snprintf(to, size, "%lld", (long long)value);
	return to;
}

/* The fewest digits that read back as the same number. */
static void format_real(double value, char *to, size_t size)
{
	for (int digits = 15; digits <= 17; digits++) {
		snprintf(to, size, "%.*g", digits, value);
		if (strtod(to, NULL) == value)
			return;
	}
}

/* The caller frees it. */
static char *cell_text(const struct output *o, unsigned column, const Zoned__V1__Value *v)
{
	const struct output_column *c = &o->columns[column];
	char text[512];

	switch (v->value_case) {
	case ZONED__V1__VALUE__VALUE_INTEGER:
		if (c->time && !o->raw)
			format_time(v->integer, text, sizeof text);
		else if (c->meaning && !o->raw && v->integer >= 0)
			value_format(c->meaning, (uint64_t)v->integer, text, sizeof text);
		else
			snprintf(text, sizeof text, "%lld", (long long)v->integer);
		return must(strdup(text));
	case ZONED__V1__VALUE__VALUE_REAL:
		if (o->raw)
			format_real(v->real, text, sizeof text);
		else
			snprintf(text, sizeof text, "%.6g", v->real);
		return must(strdup(text));
	case ZONED__V1__VALUE__VALUE_TEXT: return must(strdup(v->text));
	case ZONED__V1__VALUE__VALUE_BLOB: return blob_text(&v->blob);
	default: return must(strdup(""));
	}
}

static json_t *cell_json(const Zoned__V1__Value *v)
{
	char *text;
	json_t *json;

	switch (v->value_case) {
	case ZONED__V1__VALUE__VALUE_INTEGER: return json_integer(v->integer);
	case ZONED__V1__VALUE__VALUE_REAL: return json_real(v->real);
	case ZONED__V1__VALUE__VALUE_TEXT: return json_string(v->text);
	case ZONED__V1__VALUE__VALUE_BLOB:
		text = blob_text(&v->blob);
		json = json_string(text);
		free(text);
		return json;
	default: return json_null();
	}
}

/* NULL (SQL's) is an empty field without quotes, an empty text one with them. */
static void csv_cell(FILE *to, const char *text)
{
	if (!text)
		return;
	if (*text && !strpbrk(text, ",\"\r\n")) {
		fputs(text, to);
		return;
	}
	fputc('"', to);
	for (; *text; text++) {
		if (*text == '"')
			fputc('"', to);
		fputc(*text, to);
	}
	fputc('"', to);
}

/* ---- for other commands ---- */

static void keep_page(json_t *answer, const Zoned__V1__QueryResponse *page)
{
	json_t *columns = json_object_get(answer, "columns"),
	       *rows = json_object_get(answer, "rows");
	size_t i, k;

	for (i = 0; i < page->n_columns; i++)
		json_array_append_new(columns, json_string(page->columns[i]->name));
	for (i = 0; i < page->n_rows; i++) {
		json_t *row = json_array();

		for (k = 0; k < page->rows[i]->n_values; k++)
			json_array_append_new(row, cell_json(page->rows[i]->values[k]));
		json_array_append_new(rows, row);
	}
	if (page->truncated)
		json_object_set_new(answer, "truncated", json_true());
}

int sql_rows(struct ctl *ctl, const char *what, const char *sql, uint64_t limit,
	     json_t **ret_answer)
{
	Zoned__V1__QueryRequest request = ZONED__V1__QUERY_REQUEST__INIT;
	struct zoned_stream *s;
	ProtobufCMessage *page;
	json_t *answer;
	int rc = ctl_connect(ctl);

	if (rc != EXIT_DONE)
		return rc;
	request.sql = (char *)(uintptr_t)sql;
	request.row_limit = limit;
	request.timeout_ms = ctl->timeout_ms == ZONED_NO_TIMEOUT ? 0 : ctl->timeout_ms;
	rc = zoned_stream_open(ctl->z, "/zoned.v1.History/Query",
			       &zoned__v1__query_response__descriptor, ctl->timeout_ms, &s);
	if (rc)
		return ctl_failed(ctl, what, rc);
	answer = json_pack("{s[] s[]}", "columns", "rows");
	rc = zoned_stream_send(s, &request.base);
	if (!rc)
		rc = zoned_stream_end(s);
	while (!rc && !(rc = zoned_stream_receive(s, ZONED_NO_TIMEOUT, &page))) {
		keep_page(answer, (Zoned__V1__QueryResponse *)page);
		message_free(page);
	}
	if (rc == ZONED_END) {
		*ret_answer = answer;
		rc = EXIT_DONE;
	} else {
		json_decref(answer);
		rc = ctl_failed(ctl, what, rc);
	}
	zoned_stream_close(s);
	return rc;
}

/* ---- pages ---- */

static void csv_row(const struct output *o, char *const *cells)
{
	unsigned i;

	for (i = 0; i < o->nr_columns; i++) {
		if (i)
			fputc(',', o->to);
		csv_cell(o->to, cells[i]);
	}
	fputs("\r\n", o->to);
}

static void begin(struct output *o, const Zoned__V1__QueryResponse *page)
{
	const char **names = must(calloc(page->n_columns + 1, sizeof *names));
	unsigned i;

	o->nr_columns = (unsigned)page->n_columns;
	o->columns = must(calloc(page->n_columns + 1, sizeof *o->columns));
	for (i = 0; i < o->nr_columns; i++) {
		struct output_column *c = &o->columns[i];

		c->name = must(strdup(page->columns[i]->name));
		c->meaning = meaning_of(c->name);
		c->time = strcmp(c->name, "time_ns") == 0;
		names[i] = c->name;
	}
	if (o->form == TABLE)
		o->table = table_new(o->nr_columns, names);
	else if (o->form == CSV)
		csv_row(o, (char *const *)(uintptr_t)names);
	else
		fputs("[", o->to);
	free(names);
}

static void json_row(struct output *o, const Zoned__V1__Row *row)
{
	json_t *object = json_object();
	unsigned i;

	for (i = 0; i < o->nr_columns && i < row->n_values; i++)
		json_object_set_new(object, o->columns[i].name, cell_json(row->values[i]));
	fputs(o->rows ? ",\n " : "\n ", o->to);
	json_dumpf(object, o->to, JSON_COMPACT);
	json_decref(object);
}

static bool is_number(const Zoned__V1__Value *v)
{
	return v->value_case == ZONED__V1__VALUE__VALUE_INTEGER ||
	       v->value_case == ZONED__V1__VALUE__VALUE_REAL;
}

static bool is_null(const Zoned__V1__Value *v)
{
	return v->value_case == ZONED__V1__VALUE__VALUE_NULL ||
	       v->value_case == ZONED__V1__VALUE__VALUE__NOT_SET;
}

static void text_row(struct output *o, const Zoned__V1__Row *row)
{
	char **cells = must(calloc(o->nr_columns + 1, sizeof *cells));
	unsigned i;

	for (i = 0; i < o->nr_columns; i++) {
		static const Zoned__V1__Value none = ZONED__V1__VALUE__INIT;
		const Zoned__V1__Value *v = i < row->n_values ? row->values[i] : &none;

		cells[i] = o->form == CSV && is_null(v) ? NULL : cell_text(o, i, v);
		if (o->table && o->rows == 0)
			table_align_right(o->table, i, is_number(v));
	}
	if (o->table)
		table_add(o->table, (const char *const *)cells);
	else
		csv_row(o, cells);
	for (i = 0; i < o->nr_columns; i++)
		free(cells[i]);
	free(cells);
}

static void print_page(struct output *o, const Zoned__V1__QueryResponse *page)
{
	size_t i;

	if (!o->columns)
		begin(o, page);
	for (i = 0; i < page->n_rows; i++) {
		if (o->form == JSON)
			json_row(o, page->rows[i]);
		else
			text_row(o, page->rows[i]);
		o->rows++;
	}
	if (o->table)
		table_print(o->table, o->to);
}

static void finish(struct output *o)
{
	unsigned i;

	if (o->form == JSON)
		fputs(o->columns ? "\n]\n" : "[]\n", o->to);
	for (i = 0; o->columns && i < o->nr_columns; i++)
		free(o->columns[i].name);
	free(o->columns);
	table_free(o->table);
}

/* ---- the question ---- */

static Zoned__V1__Value *parameter_new(const char *text)
{
	Zoned__V1__Value *v = (Zoned__V1__Value *)message_new(&zoned__v1__value__descriptor);
	uint64_t n;

	if (number_parse(text, false, &n) && n <= INT64_MAX) {
		v->value_case = ZONED__V1__VALUE__VALUE_INTEGER;
		v->integer = (int64_t)n;
	} else {
		v->value_case = ZONED__V1__VALUE__VALUE_TEXT;
		v->text = must(strdup(text));
	}
	return v;
}

static int build(struct ctl *ctl, const struct args *a, Zoned__V1__QueryRequest *request)
{
	const char *text, *limit = args_text(a, "limit");
	size_t length;
	unsigned i;

	if (a->nr_words == 0)
		return usage_error(
		    "sql: ask what? zonectl sql \"select ...\", or - to read it from "
		    "standard input");
	if (strcmp(a->words[0], "-") == 0)
		request->sql = (char *)read_file("-", STATEMENT_BYTES, &length);
	else
		request->sql = must(strdup(a->words[0]));
	if (!request->sql)
		return EXIT_FILE;
	if (limit && !number_parse(limit, true, &request->row_limit))
		return usage_error("sql: --limit %s is not a number", limit);
	if (ctl->timeout_given)
		request->timeout_ms = ctl->timeout_ms;
	request->parameters = must(calloc(MAX_PARAMETERS, sizeof *request->parameters));
	for (i = 0; (text = args_text_at(a, "param", i)); i++) {
		if (i == MAX_PARAMETERS)
			return usage_error("sql: more than %d parameters", MAX_PARAMETERS);
		request->parameters[request->n_parameters++] = parameter_new(text);
	}
	return EXIT_DONE;
}

static void suggest_table(struct ctl *ctl, struct suggestion *s, json_t **ret_names)
{
	static const char sql[] = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')";
	json_t *row;
	size_t i;

	if (sql_rows(ctl, "sql", sql, 0, ret_names) != EXIT_DONE)
		return;
	json_array_foreach (json_object_get(*ret_names, "rows"), i, row)
		suggest(s, json_string_value(json_array_get(row, 0)));
}

/* What SQLite did not know, and the nearest that there is. */
static int statement_failed(struct ctl *ctl, int code)
{
	static const char table[] = "no such table: ", column[] = "no such column: ";
	char error[256];
	struct suggestion s = {.word = error};
	json_t *names = NULL;
	int rc;

	snprintf(error, sizeof error, "%s", zoned_error(ctl->z));
	rc = ctl_failed(ctl, "sql", code);
	if (strncmp(error, table, sizeof table - 1) == 0) {
		s.word = error + sizeof table - 1;
		suggest_table(ctl, &s, &names);
	} else if (strncmp(error, column, sizeof column - 1) == 0) {
		/* t.column */
		s.word = strrchr(error, '.') ? strrchr(error, '.') + 1 : error + sizeof column - 1;
		columns_each(suggest_name, &s);
	}
	if (s.nearest)
		fprintf(stderr, "Did you mean %s?\n", s.nearest);
	else if (s.word != error)
		fprintf(stderr,
			"`zonectl sql \"select name from sqlite_schema where type = 'view'\"` "
			"lists the views, `zonectl explain VIEW` its columns.\n");
	json_decref(names);
	return rc;
}

static int ask(struct ctl *ctl, const Zoned__V1__QueryRequest *request, struct output *o)
{
	struct zoned_stream *s;
	ProtobufCMessage *page;
	bool truncated = false;
	int rc = ctl_connect(ctl);

	if (rc != EXIT_DONE)
		return rc;
	rc = zoned_stream_open(ctl->z, "/zoned.v1.History/Query",
			       &zoned__v1__query_response__descriptor, ctl->timeout_ms, &s);
	if (rc)
		return ctl_failed(ctl, "sql", rc);
	rc = zoned_stream_send(s, &request->base);
	if (!rc)
		rc = zoned_stream_end(s);
	while (!rc && !(rc = zoned_stream_receive(s, ZONED_NO_TIMEOUT, &page))) {
		print_page(o, (Zoned__V1__QueryResponse *)page);
		truncated = ((Zoned__V1__QueryResponse *)page)->truncated;
		message_free(page);
	}
	rc = rc == ZONED_END ? EXIT_DONE : statement_failed(ctl, rc);
	zoned_stream_close(s);
	finish(o);
	if (truncated)
		complain("sql: there are more rows; this is the limit (--limit N)");
	return rc;
}

int sql_command(struct ctl *ctl, int argc, char **argv)
{
	ProtobufCMessage *request = message_new(&zoned__v1__query_request__descriptor);
	struct output o = {0};
	struct args a;
	int rc = args_parse(ctl, "sql", argc, argv, sql_flags, NR_SQL_FLAGS, &a);

	if (rc != EXIT_DONE) {
		message_free(request);
		return rc;
	}
	if (ctl->help) {
		printf("zonectl sql - ask the history, read-only\n\n"
		       "usage: zonectl sql \"select ...\" [flags]\n\n"
		       "There is a view op_NAME for every op and event_NAME for every event; see\n"
		       "`zonectl sql \"select name from sqlite_schema where type = 'view'\"` and\n"
		       "`zonectl explain VIEW`.\n\n");
		print_flags("flags:", sql_flags, NR_SQL_FLAGS);
		print_flags("\nfor every command:", global_flags, nr_global_flags);
		goto out;
	}
	rc = args_limit_words(&a, "sql", 1);
	if (rc == EXIT_DONE)
		rc = build(ctl, &a, (Zoned__V1__QueryRequest *)request);
	if (rc != EXIT_DONE)
		goto out;
	o.form = ctl->json ? JSON : args_has(&a, "csv") ? CSV : TABLE;
	o.raw = args_has(&a, "raw") || o.form != TABLE;
	o.to = pager_open(o.form == TABLE && !args_has(&a, "no-pager"));
	rc = ask(ctl, (Zoned__V1__QueryRequest *)request, &o);
	pager_close(o.to);
out:
	message_free(request);
	args_free(&a);
	return rc;
}
