/*
 * report.h - what the build makes of client/report: the page and its statements.
 */
#ifndef ZONECTL_REPORT_H
#define ZONECTL_REPORT_H

/* Why there is no page in this build, in words; NULL: there is one. */
extern const char *const report_missing;
/* The page's text before and after its data, which is JSON. */
extern const char *const report_before, *const report_after;

/* One question to the history and how its rows are drawn. In `sql` and `about` the names
 * :machine, :bucket, :last, :at, :order and :kept stand for numbers (report.c). */
extern const struct report_section {
	const char *id, *title, *about;
	const char *options; /* for the page's script, as JSON */
	const char *sql;
} report_sections[];
extern const unsigned nr_report_sections;

#endif
