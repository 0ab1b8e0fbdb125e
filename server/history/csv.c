/*
 * csv.c - tables and views of a history as CSV (RFC 4180). Declared in recorded.h.
 *
 * NULL is an empty field without quotes, an empty text one with them, a blob x'..'.
 */
#include <stdlib.h>
#include <string.h>

#include "recorded_priv.h"

static void write_text(const char *text, size_t length, FILE *to)
{
	bool plain = length > 0;

	for (size_t i = 0; i < length && plain; i++)
		plain = !strchr(",\"\r\n", text[i]) || !text[i];
	if (plain) {
		fwrite(text, 1, length, to);
		return;
	}
	fputc('"', to);
	for (size_t i = 0; i < length; i++) {
		if (text[i] == '"')
			fputc('"', to);
		fputc(text[i], to);
	}
	fputc('"', to);
}

static void write_blob(const uint8_t *bytes, size_t length, FILE *to)
{
	fputs("x'", to);
	for (size_t i = 0; i < length; i++)
		fprintf(to, "%02x", bytes[i]);
	fputc('\'', to);
}

static void write_value(sqlite3_stmt *st, int column, FILE *to)
{
	switch (sqlite3_column_type(st, column)) {
	case SQLITE_NULL: return;
	case SQLITE_BLOB: {
		const uint8_t *bytes = sqlite3_column_blob(st, column);

		write_blob(bytes, (size_t)sqlite3_column_bytes(st, column), to);
		return;
	}
	case SQLITE_INTEGER:
	case SQLITE_FLOAT: fputs((const char *)sqlite3_column_text(st, column), to); return;
	default: {
		const char *text = (const char *)sqlite3_column_text(st, column);

		write_text(text ? text : "", (size_t)sqlite3_column_bytes(st, column), to);
	}
	}
}

int recorded_csv(struct recorded *r, const char *table, FILE *to, char *err, size_t err_size)
{
	sqlite3 *db = recorded_db(r);
	char *sql = sqlite3_mprintf("SELECT * FROM \"%w\"", table);
	sqlite3_stmt *st = NULL;
	int nr, rc = sql ? sqlite3_prepare_v2(db, sql, -1, &st, NULL) : SQLITE_NOMEM;

	sqlite3_free(sql);
	if (rc == SQLITE_ERROR) {
		snprintf(err, err_size, "%s", sqlite3_errmsg(db));
		return HISTORY_SQL;
	}
	nr = sqlite3_column_count(st);
	for (int i = 0; i < nr; i++) {
		const char *name = sqlite3_column_name(st, i);

		if (i)
			fputc(',', to);
		write_text(name, strlen(name), to);
	}
	fputs("\r\n", to);
	while (rc == SQLITE_OK && !ferror(to) && (rc = sqlite3_step(st)) == SQLITE_ROW) {
		for (int i = 0; i < nr; i++) {
			if (i)
				fputc(',', to);
			write_value(st, i, to);
		}
		fputs("\r\n", to);
		rc = SQLITE_OK;
	}
	sqlite3_finalize(st);
	if (rc == SQLITE_OK || rc == SQLITE_DONE)
		return HISTORY_OK;
	return history_map_error(db, rc, "reading the history", err, err_size);
}

int recorded_tables(struct recorded *r, bool (*fn)(void *arg, const char *table), void *arg,
		    char *err, size_t err_size)
{
	sqlite3 *db = recorded_db(r);
	sqlite3_stmt *st = NULL;
	bool more = true;
	int rc = sqlite3_prepare_v2(db,
				    "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')"
				    " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name",
				    -1, &st, NULL);

	while (rc == SQLITE_OK && more && (rc = sqlite3_step(st)) == SQLITE_ROW) {
		more = fn(arg, (const char *)sqlite3_column_text(st, 0));
		rc = SQLITE_OK;
	}
	sqlite3_finalize(st);
	if (!more)
		return HISTORY_ABORTED;
	if (rc == SQLITE_OK || rc == SQLITE_DONE)
		return HISTORY_OK;
	return history_map_error(db, rc, "reading the history", err, err_size);
}
