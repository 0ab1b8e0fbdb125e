/*
 * report.c - one page about a machine, from its history: a file that needs no network.
 *
 * The page (client/report) is a template with a plotting library in it; the sections are
 * SQL statements. This file puts the machine's numbers into the statements, asks the
 * history, and writes the answers into the page as JSON. What it asks is what it shows.
 *
 * Sizes are bounded: a point stands for as many ops as it takes to have --points of them,
 * the grouping is SQL's, and no section has more than MAX_ROWS rows.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "report.h"
#include "zonectl.h"

enum {
	DEFAULT_POINTS = 500,
	MAX_POINTS = 5000,
	MAX_ROWS = 100000,
	DEFAULT_ORDER = 9, /* a huge page under PAE; the greatest block but one without */
	MAX_ORDER = 10,
	MAX_KEPT = 400, /* SQLite takes 500 rows in VALUES at the least */
	/* A sample of fragmentation looks at every event before it. */
	SAMPLED_EVENTS = 16000000,
	MIN_SAMPLES = 6,
	MAX_SAMPLES = 60,
	QUERY_TIMEOUT_MS = 600000, /* the contract's greatest */
};

static const struct flag report_flags[] = {
    {"output", 'o', "FILE", "where the page goes; - is standard output"},
    {"points", 0, "N", "points along each axis at most; default 500"},
    {"order", 0, "N", "order of the fragmentation's request; default 9"},
};
enum { NR_REPORT_FLAGS = sizeof report_flags / sizeof *report_flags };

/* What the statements are told. */
struct report {
	struct ctl *ctl;
	uint64_t machine, last, bucket, step, order, points;
	uint64_t at; /* of a statement that is asked once for every sample */
	bool whole;  /* every event since the machine's making is in its own history */
	char *kept;  /* "(first,count),..."; NULL: not known */
	json_t *page;
	bool failed; /* a section has no answer */
};

/* ---- statements ---- */

static const char *placeholder(const struct report *r, const char *at, char *number, size_t size,
			       size_t *ret_length)
{
	const struct {
		const char *name;
		uint64_t value;
	} numbers[] = {{":machine", r->machine}, {":bucket", r->bucket}, {":last", r->last},
		       {":at", r->at},		 {":step", r->step},	 {":order", r->order}};
	unsigned i;

	for (i = 0; i < sizeof numbers / sizeof *numbers; i++)
		if (strncmp(at, numbers[i].name, strlen(numbers[i].name)) == 0) {
			*ret_length = strlen(numbers[i].name);
			snprintf(number, size, "%llu", (unsigned long long)numbers[i].value);
			return number;
		}
	if (strncmp(at, ":kept", strlen(":kept")) != 0 || !r->kept)
		return NULL;
	*ret_length = strlen(":kept");
	return r->kept;
}

/* The text with the numbers in it; the caller frees it. */
static char *fill_in(const struct report *r, const char *text)
{
	char *filled, number[24];
	size_t size;
	FILE *to = must(open_memstream(&filled, &size));

	while (*text) {
		size_t length = 0;
		const char *value =
		    *text == ':' ? placeholder(r, text, number, sizeof number, &length) : NULL;

		if (value)
			fputs(value, to);
		else
			putc(*text, to);
		text += value ? length : 1;
	}
	fclose(to);
	return filled;
}

/* ---- the machine ---- */

/* The first row's value in a column; 0 if there is none. */
static uint64_t first_number(const json_t *answer, size_t column)
{
	const json_t *row = json_array_get(json_object_get(answer, "rows"), 0);

	return (uint64_t)json_integer_value(json_array_get(row, column));
}

static json_t *first_text(const json_t *answer, size_t column)
{
	const json_t *row = json_array_get(json_object_get(answer, "rows"), 0);

	return json_incref(json_array_get(row, column));
}

static const char config_sql[] = "SELECT * FROM machine_config WHERE machine_id = :machine";
static const char extent_sql[] =
    "SELECT max(key) & 0xffffffffff, strftime('%Y-%m-%d %H:%M:%S', min(time_ns) / 1000000000, "
    "'unixepoch'),"
    " strftime('%Y-%m-%d %H:%M:%S', max(time_ns) / 1000000000, 'unixepoch'), sum(nr_events) FROM "
    "ops"
    " WHERE key BETWEEN :machine << 40 AND (:machine << 40) + 0xffffffffff";
static const char facts_sql[] =
    "SELECT 'preset', lower(replace(preset, '_', '-')) FROM machine_config WHERE machine_id = "
    ":machine"
    " UNION ALL SELECT 'RAM', printf('%.4g MiB', sum(present) / 256.0) FROM"
    " (SELECT present, max(key * 65536 + idx) FROM event_zone_ready WHERE machine_id = :machine"
    " GROUP BY zone)"
    " UNION ALL SELECT 'page offset', CASE page_offset WHEN 0 THEN 'preset''s' ELSE"
    " printf('0x%08x', page_offset) END FROM machine_config WHERE machine_id = :machine"
    " UNION ALL SELECT 'paging', CASE WHEN pae THEN 'PAE' ELSE 'two levels' END FROM machine_config"
    " WHERE machine_id = :machine"
    " UNION ALL SELECT 'CPUs', cast(cpus AS text) FROM machine_config WHERE machine_id = :machine"
    " UNION ALL SELECT 'back end', backend FROM machine_config WHERE machine_id = :machine"
    " UNION ALL SELECT 'user pages', lower(user_fallback) FROM machine_config WHERE"
    " machine_id = :machine AND user_fallback <> 'USER_FALLBACK_UNCHANGED'";
static const char notice_sql[] =
    "SELECT group_concat(text, ' ') FROM (SELECT 'This machine has not always kept every event: "
    "what"
    " is drawn here is incomplete. Replaying it with detail all gives the rest.' AS text FROM "
    "machines"
    " WHERE id = :machine AND least_detail < 3"
    " UNION ALL SELECT 'Its ops before ' || first_op || ' have been forgotten.' FROM machines"
    " WHERE id = :machine AND first_op > 1"
    " UNION ALL SELECT 'It was forked from another machine: what was before its first op is in that"
    " one''s history.' FROM machines WHERE id = :machine AND forked_from"
    " UNION ALL SELECT 'It was lost after op ' || last_op || ': ' || reason FROM losses"
    " WHERE machine = :machine)";

/* Asks, with the numbers filled in; after a failure the sentence has been printed. */
static int ask(struct report *r, const char *sql, json_t **ret_answer)
{
	char *filled = fill_in(r, sql);
	int rc = sql_rows(r->ctl, "report", filled, MAX_ROWS, ret_answer);

	free(filled);
	return rc;
}

/* The newest machine of that name, ended or not. */
static int find_machine(struct report *r)
{
	static const char by_name[] = "SELECT max(id) FROM machines WHERE name = '";
	char *sql, *at;
	json_t *answer;
	const char *c;
	int rc;

	at = sql = must(malloc(sizeof by_name + 2 * strlen(r->ctl->machine) + 1));
	at = stpcpy(at, by_name);
	for (c = r->ctl->machine; *c; c++) {
		if (*c == '\'')
			*at++ = '\'';
		*at++ = *c;
	}
	at[0] = '\'';
	at[1] = '\0';
	rc = sql_rows(r->ctl, "report", sql, 1, &answer);
	free(sql);
	if (rc != EXIT_DONE)
		return rc;
	r->machine = first_number(answer, 0);
	json_decref(answer);
	if (r->machine)
		return EXIT_DONE;
	complain("report: the history knows no machine %s", r->ctl->machine);
	return EXIT_REFUSED;
}

/* Also after which op the allocator had begun: 0, or that of an early machine's boot. */
static const char whole_sql[] =
    "SELECT least_detail >= 3 AND first_op = 1 AND forked_from = 0, "
    "EXISTS (SELECT 1 FROM op_load_state WHERE machine_id = :machine), "
    "(SELECT coalesce(max(op), 0) FROM event_zone_ready WHERE machine_id = :machine)"
    " FROM machines WHERE id = :machine";

/* In use without an event of their own, when the allocator begins. */
static bool is_kept(unsigned state)
{
	return state == FRAME_RESERVED || state == FRAME_HOLE || state == FRAME_METADATA ||
	       state == FRAME_HOST || state == FRAME_PAGE_TABLE;
}

/* Frames that the allocator never had, and the kernel's first page tables, which are never
 * given back. Without an answer it is not known. */
static void find_kept(struct report *r, uint64_t begin)
{
	ProtobufCMessage *question = message_new(&zoned__v1__frame_map__descriptor);
	struct ctl then = *r->ctl;
	Zoned__V1__InspectResponse *response;
	char told[256], number[24];
	size_t size, i, n = 0;
	FILE *to;
	int rc;

	snprintf(number, sizeof number, "#%llu", (unsigned long long)r->machine);
	then.machine = number;
	then.has_at = true;
	then.at = begin;
	complain_to(told, sizeof told);
	rc = inspect_ask(&then, inspection_by_word("frame-map"), question, &response);
	complain_to(NULL, 0);
	if (rc != EXIT_DONE)
		return;
	to = must(open_memstream(&r->kept, &size));
	for (i = 0; response->frame_map && i < response->frame_map->n_runs; i++) {
		const Zoned__V1__FrameRunRow *run = response->frame_map->runs[i];

		if (is_kept((unsigned)run->state))
			fprintf(to, "%s(%u,%u)", n++ ? "," : "", run->first, run->count);
	}
	fclose(to);
	if (n == 0 || n > MAX_KEPT || response->truncated) {
		free(r->kept);
		r->kept = NULL;
	}
	message_free(&response->base);
}

/* Of an answer with one row: its columns as an object. */
static json_t *row_object(const json_t *answer)
{
	const json_t *names = json_object_get(answer, "columns");
	json_t *object = json_object();
	size_t i;

	for (i = 0; i < json_array_size(names); i++)
		json_object_set_new(object, json_string_value(json_array_get(names, i)),
				    first_text(answer, i));
	return object;
}

static int describe(struct report *r)
{
	json_t *answer;
	uint64_t events, samples;
	int rc = ask(r, extent_sql, &answer);

	if (rc != EXIT_DONE)
		return rc;
	r->last = first_number(answer, 0);
	events = first_number(answer, 3);
	r->bucket = r->last > r->points ? (r->last + r->points - 1) / r->points : 1;
	samples = SAMPLED_EVENTS / (events + 1);
	samples = samples < MIN_SAMPLES	  ? MIN_SAMPLES
		  : samples > MAX_SAMPLES ? MAX_SAMPLES
					  : samples;
	r->step = r->last > samples ? (r->last + samples - 1) / samples : 1;
	json_object_set_new(r->page, "ops", json_integer((json_int_t)r->last));
	json_object_set_new(r->page, "bucket", json_integer((json_int_t)r->bucket));
	json_object_set_new(r->page, "began", first_text(answer, 1));
	json_object_set_new(r->page, "ended", first_text(answer, 2));
	json_decref(answer);
	if ((rc = ask(r, config_sql, &answer)) != EXIT_DONE)
		return rc;
	json_object_set_new(r->page, "machine", row_object(answer));
	json_decref(answer);
	if ((rc = ask(r, facts_sql, &answer)) != EXIT_DONE)
		return rc;
	json_object_set(r->page, "facts", json_object_get(answer, "rows"));
	json_decref(answer);
	if ((rc = ask(r, notice_sql, &answer)) != EXIT_DONE)
		return rc;
	json_object_set_new(r->page, "notice", first_text(answer, 0));
	json_decref(answer);
	return EXIT_DONE;
}

/* ---- sections ---- */

/* Why a section cannot be: what it needs is not there. NULL: it can. */
static const char *impossible(const struct report *r, const char *needs)
{
	if (!needs)
		return NULL;
	if (!r->whole)
		return "This needs every event from the machine's making on; see above.";
	if (strcmp(needs, "kept") == 0 && !r->kept)
		return "This needs the frames in use when the allocator began: not of a machine "
		       "whose state was loaded, or whose memory is in too many pieces.";
	return NULL;
}

/* Adds what the history answers to a statement to the section. */
static void ask_section(struct report *r, const struct report_section *s, json_t *section)
{
	json_t *rows = json_object_get(section, "rows"), *answer;
	char *sql = fill_in(r, s->sql);

	if (sql_rows(r->ctl, s->id, sql, MAX_ROWS, &answer) == EXIT_DONE) {
		json_array_extend(rows, json_object_get(answer, "rows"));
		json_object_del(answer, "rows");
		json_object_update(section, answer);
		json_decref(answer);
	} else {
		r->failed = true;
		json_object_set_new(section, "error",
				    json_string("The daemon did not answer this statement. It may "
						"have taken longer than a query may (zoned.conf: "
						"query-timeout-ms)."));
	}
	json_object_set_new(section, "sql", json_string(sql));
	free(sql);
}

static json_t *section_new(struct report *r, const struct report_section *s)
{
	json_t *options = json_loads(s->options, 0, NULL);
	const char *why = impossible(r, json_string_value(json_object_get(options, "needs")));
	bool samples = json_object_get(options, "samples");
	char *about = fill_in(r, s->about);
	json_t *section =
	    json_pack("{ss ss ss so ss s[] s[]}", "id", s->id, "title", s->title, "about", about,
		      "options", options, "sql", s->sql, "columns", "rows");

	free(about);
	if (why)
		json_object_set_new(section, "error", json_string(why));
	for (r->at = samples ? 0 : r->last; !why; r->at += r->step) {
		if (r->at > r->last)
			r->at = r->last;
		ask_section(r, s, section);
		if (r->at == r->last || json_object_get(section, "error"))
			break;
	}
	return section;
}

static void say_sampling(struct report *r)
{
	char text[256];

	if (r->bucket == 1)
		snprintf(text, sizeof text, "A point is an op; ");
	else
		snprintf(text, sizeof text, "A point stands for %llu ops, grouped in SQL; ",
			 (unsigned long long)r->bucket);
	snprintf(text + strlen(text), sizeof text - strlen(text),
		 "fragmentation is looked at every %llu ops; no section has more than %d rows.",
		 (unsigned long long)r->step, MAX_ROWS);
	json_object_set_new(r->page, "sampling", json_string(text));
}

static int build(struct report *r)
{
	json_t *sections = json_array(), *whole;
	char made[32];
	time_t now = time(NULL);
	struct tm tm;
	unsigned i;
	int rc = find_machine(r);

	json_object_set_new(r->page, "sections", sections);
	if (rc == EXIT_DONE)
		rc = describe(r);
	if (rc == EXIT_DONE)
		rc = ask(r, whole_sql, &whole);
	if (rc != EXIT_DONE)
		return rc;
	r->whole = first_number(whole, 0);
	if (r->whole && !first_number(whole, 1))
		find_kept(r, first_number(whole, 2));
	json_decref(whole);
	for (i = 0; i < nr_report_sections; i++)
		json_array_append_new(sections, section_new(r, &report_sections[i]));
	say_sampling(r);
	strftime(made, sizeof made, "%Y-%m-%d %H:%M:%S", gmtime_r(&now, &tm));
	json_object_set_new(r->page, "made", json_string(made));
	json_object_set_new(r->page, "version", json_string(ZONED_VERSION));
	return EXIT_DONE;
}

/* ---- the page ---- */

/* In a script element nothing may look like the end of it, or like a comment's begin. */
static void write_data(const json_t *page, FILE *to)
{
	char *text = must(json_dumps(page, JSON_COMPACT)), *at;

	for (at = text; *at; at++)
		if (*at == '<')
			fputs("\\u003c", to);
		else
			putc(*at, to);
	free(text);
}

/* Written beside and moved into place: a page is whole or not there. */
static int write_page(const struct report *r, const char *path)
{
	size_t size = strlen(path) + sizeof ".part";
	char *beside = must(malloc(size));
	bool out = strcmp(path, "-") == 0, bad;
	FILE *to;

	snprintf(beside, size, "%s.part", path);
	to = out ? stdout : fopen(beside, "w");
	if (to) {
		fputs(report_before, to);
		write_data(r->page, to);
		fputs(report_after, to);
	}
	bad = !to || fflush(to) || ferror(to);
	if (to && !out)
		bad = fclose(to) || bad;
	if (!out && (bad || rename(beside, path))) {
		complain("report: cannot write %s: %m", path);
		bad = true;
		remove(beside);
	}
	free(beside);
	return bad ? EXIT_FILE : EXIT_DONE;
}

static int number_flag(const struct args *a, const char *name, uint64_t least, uint64_t most,
		       uint64_t *value)
{
	const char *text = args_text(a, name);

	if (!text || (number_parse(text, false, value) && *value >= least && *value <= most))
		return EXIT_DONE;
	return usage_error("report: --%s %s is not a number from %llu to %llu", name, text,
			   (unsigned long long)least, (unsigned long long)most);
}

static void usage(void)
{
	printf("zonectl report - a machine's history as one page, with plots\n\n"
	       "usage: zonectl report -m MACHINE -o FILE [flags]\n\n"
	       "Free pages and the marks, fallbacks, fragmentation, faults, the pkmap window and\n"
	       "latency over the ops, each with its SQL and its numbers. The file holds all it\n"
	       "needs: mail it, open it anywhere. Machines that have ended have a report too.\n\n");
	print_flags("flags:", report_flags, NR_REPORT_FLAGS);
	print_flags("\nfor every command:", global_flags, nr_global_flags);
}

int report_command(struct ctl *ctl, int argc, char **argv)
{
	struct report r = {.ctl = ctl, .points = DEFAULT_POINTS, .order = DEFAULT_ORDER};
	struct args a;
	const char *path;
	int rc = args_parse(ctl, "report", argc, argv, report_flags, NR_REPORT_FLAGS, &a);

	if (rc != EXIT_DONE)
		return rc;
	path = args_text(&a, "output");
	if (ctl->help) {
		usage();
		goto out;
	}
	rc = args_limit_words(&a, "report", 0);
	if (rc == EXIT_DONE)
		rc = number_flag(&a, "points", 10, MAX_POINTS, &r.points);
	if (rc == EXIT_DONE)
		rc = number_flag(&a, "order", 1, MAX_ORDER, &r.order);
	if (rc == EXIT_DONE)
		rc = ctl_need_machine(ctl, "report");
	if (rc == EXIT_DONE && !path && !ctl->json)
		rc = usage_error("report: where to? Give -o FILE; - is standard output");
	if (rc == EXIT_DONE && report_missing && !ctl->json) {
		complain("report: %s, so this build has no page; --json gives the numbers. With\n"
			 "node and npm installed, build again from a clean build folder.",
			 report_missing);
		rc = EXIT_FILE;
	}
	if (rc != EXIT_DONE)
		goto out;
	if (!ctl->timeout_given)
		ctl->timeout_ms = QUERY_TIMEOUT_MS;
	r.page = json_object();
	rc = build(&r);
	if (rc == EXIT_DONE && ctl->json)
		json_print(r.page, stdout);
	else if (rc == EXIT_DONE)
		rc = write_page(&r, path);
	if (rc == EXIT_DONE && r.failed)
		rc = EXIT_REFUSED;
	json_decref(r.page);
	free(r.kept);
out:
	args_free(&a);
	return rc;
}
