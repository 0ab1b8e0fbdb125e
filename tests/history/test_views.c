/*
 * test_views.c - the views say what the contract says, and SCHEMA.md what the views
 * are.
 *
 *   history_views --print    the tables of views for SCHEMA.md
 *
 * Every op and event of the contract is written once with known words and read back
 * by the names of its fields. The views that people ask for are checked against a
 * short history whose answers are counted by hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "place_checked.h"

struct fixture {
	struct place place;
	sqlite3 *db;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	place_make(&f->place);
	if (place_open(&f->place) ||
	    sqlite3_open_v2(f->place.path, &f->db, SQLITE_OPEN_READONLY, NULL))
		return -1;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	sqlite3_close(f->db);
	place_remove(&f->place);
	free(f);
	return 0;
}

static sqlite3_stmt *prepare(struct fixture *f, const char *sql)
{
	sqlite3_stmt *st;

	if (sqlite3_prepare_v2(f->db, sql, -1, &st, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(f->db));
	return st;
}

/* All rows as text: columns joined by '|', rows by newlines. */
static const char *rows_of(struct fixture *f, const char *sql)
{
	static char out[1 << 16];
	sqlite3_stmt *st = prepare(f, sql);
	size_t used = 0;
	int rc;

	out[0] = '\0';
	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		for (int i = 0; i < sqlite3_column_count(st); i++) {
			const char *text = (const char *)sqlite3_column_text(st, i);

			used += (size_t)snprintf(out + used, sizeof(out) - used, "%s%s",
						 i	? "|"
						 : used ? "\n"
							: "",
						 text ? text : "-");
			assert_true(used < sizeof(out));
		}
	}
	if (rc != SQLITE_DONE)
		fail_msg("%s: %s", sql, sqlite3_errmsg(f->db));
	sqlite3_finalize(st);
	return out;
}

static void expect(struct fixture *f, const char *sql, const char *rows)
{
	const char *have = rows_of(f, sql);

	if (strcmp(have, rows) != 0)
		fail_msg("%s\nhas\n%s\nnot\n%s", sql, have, rows);
}

/* ---- against the contract ---- */

static int column_index(sqlite3_stmt *st, const char *name)
{
	for (int i = 0; i < sqlite3_column_count(st); i++) {
		if (strcmp(sqlite3_column_name(st, i), name) == 0)
			return i;
	}
	return -1;
}

/* The column of a field: its name, or with the prefix if a column before it has it. */
static int field_column(sqlite3_stmt *st, const char *prefix, const char *name, int after)
{
	char prefixed[128];
	int plain = column_index(st, name);

	if (plain > after)
		return plain;
	snprintf(prefixed, sizeof(prefixed), "%s_%s", prefix, name);
	return column_index(st, prefixed);
}

/* A value that the field can have, different for each position. */
static uint64_t sample(const struct contract_field *f, unsigned i)
{
	switch (f->kind) {
	case FIELD_ENUM: return f->enums[0]->values[i % f->enums[0]->nr_values].number;
	case FIELD_BOOL: return 1;
	case FIELD_U64: return UINT64_C(0x100000002) * (i + 3);
	default: return f->is_flags ? f->enums[0]->values[1].number : 0xfffffff0u + i;
	}
}

/* Checks a field's column and returns it. */
static int check_field(sqlite3_stmt *st, const char *prefix, const struct contract_field *f,
		       uint64_t value, int after)
{
	int at = field_column(st, prefix, f->name, after);

	if (at < 0)
		fail_msg("no column for %s", f->name);
	if (f->kind == FIELD_ENUM) {
		const char *text = (const char *)sqlite3_column_text(st, at);
		unsigned i = 0;

		while (f->enums[0]->values[i].number != value)
			i++;
		assert_string_equal(text, f->enums[0]->values[i].name);
	} else if (f->kind == FIELD_I32) {
		assert_int_equal(sqlite3_column_int64(st, at), (int32_t)value);
	} else {
		assert_int_equal(sqlite3_column_int64(st, at), (int64_t)value);
	}
	if (f->is_flags) {
		char names[96];
		int named;

		snprintf(names, sizeof(names), "%s_names", f->name);
		named = field_column(st, prefix, names, at);
		assert_int_equal(named, at + 1);
		assert_string_equal((const char *)sqlite3_column_text(st, named),
				    f->enums[0]->values[1].name);
		return named;
	}
	return at;
}

static void every_op_has_its_view(void **state)
{
	struct fixture *f = *state;
	uint64_t op = 0;

	add_machine(f->place.h, "m");
	history_add_owner(f->place.h, 1, 1, "me");
	for (unsigned code = 0; code < OP_CODE_END; code++) {
		const struct contract_op *c = &contract_ops[code];
		struct history_record r = {.machine = 1,
					   .code = code,
					   .cpu = 2,
					   .task = 3,
					   .owner = 1,
					   .status = STATUS_BUSY};
		char sql[128];
		sqlite3_stmt *st;
		int at;

		if (!c->code)
			continue;
		r.op = ++op;
		for (unsigned i = 0; i < c->args.nr_ints; i++)
			r.args[i] = sample(&c->args.ints[i], i);
		for (unsigned i = 0; i < c->values.nr_ints; i++)
			r.values[i] = sample(&c->values.ints[i], i + 1);
		history_append(f->place.h, &r);
		place_commit(&f->place);
		snprintf(sql, sizeof(sql), "SELECT * FROM op_%s", c->snake);
		st = prepare(f, sql);
		assert_int_equal(sqlite3_step(st), SQLITE_ROW);
		assert_string_equal(sqlite3_column_text(st, column_index(st, "machine")), "m");
		assert_int_equal(sqlite3_column_int64(st, column_index(st, "op")), op);
		assert_int_equal(sqlite3_column_int64(st, column_index(st, "cpu")), 2);
		assert_int_equal(sqlite3_column_int64(st, column_index(st, "task")), 3);
		assert_string_equal(sqlite3_column_text(st, column_index(st, "owner")), "me");
		assert_string_equal(sqlite3_column_text(st, column_index(st, "status")), "BUSY");
		at = column_index(st, "woken_by");
		for (unsigned i = 0; i < c->args.nr_ints; i++)
			at = check_field(st, "arg", &c->args.ints[i], r.args[i], at);
		if (c->args.data) {
			int data = field_column(st, "arg", c->args.data->name, at);

			assert_int_equal(data, at + 1);
			at = data;
		}
		for (unsigned i = 0; i < c->values.nr_ints; i++)
			at = check_field(st, "result", &c->values.ints[i], r.values[i], at);
		at += c->values.data ? 2 : 0;
		/* And nothing else. */
		assert_int_equal(at, sqlite3_column_count(st) - 1);
		assert_int_equal(sqlite3_step(st), SQLITE_DONE);
		sqlite3_finalize(st);
	}
	assert_true(op > 40);
}

static void every_event_has_its_view(void **state)
{
	struct fixture *f = *state;
	uint64_t op = 0;

	add_machine(f->place.h, "m");
	for (unsigned kind = 0; kind < EVENT_KIND_END; kind++) {
		const struct contract_event *c = &contract_events[kind];
		/* One of another kind before it, so that idx is not 0. */
		struct engine_event e[2] = {
		    {.kind = kind == EVENT_ALLOC ? EVENT_FREE : EVENT_ALLOC},
		    {.kind = (uint16_t)kind}};
		struct history_record r = {
		    .machine = 1, .code = OP_KUNMAP, .events = e, .nr_events = 2};
		uint64_t values[EVENT_WORDS] = {0};
		unsigned word = 0;
		char sql[128];
		sqlite3_stmt *st;
		int at;

		if (!c->kind)
			continue;
		r.op = ++op;
		for (unsigned i = 0; i < c->fields.nr_ints; i++) {
			values[i] = sample(&c->fields.ints[i], i);
			e[1].w[word++] = (uint32_t)values[i];
			if (c->fields.ints[i].kind == FIELD_U64)
				e[1].w[word++] = (uint32_t)(values[i] >> 32);
		}
		history_append(f->place.h, &r);
		place_commit(&f->place);
		snprintf(sql, sizeof(sql), "SELECT * FROM event_%s WHERE op = %d", c->name,
			 (int)op);
		st = prepare(f, sql);
		assert_int_equal(sqlite3_step(st), SQLITE_ROW);
		assert_int_equal(sqlite3_column_int64(st, column_index(st, "idx")), 1);
		assert_string_equal(sqlite3_column_text(st, column_index(st, "op_name")), "Kunmap");
		at = column_index(st, "owner");
		for (unsigned i = 0; i < c->fields.nr_ints; i++)
			at = check_field(st, "event", &c->fields.ints[i], values[i], at);
		assert_int_equal(at, sqlite3_column_count(st) - 2);
		assert_string_equal(sqlite3_column_name(st, at + 1), "complete");
		assert_int_equal(sqlite3_column_int64(st, at + 1), 1);
		assert_int_equal(sqlite3_step(st), SQLITE_DONE);
		sqlite3_finalize(st);
	}
	assert_true(op > 40);
}

static void payloads_are_shown_as_what_they_are(void **state)
{
	struct fixture *f = *state;
	static const uint8_t words[] = {1, 0, 0, 0, 0x78, 0x56, 0x34, 0xf2, 0xff, 0xff, 0, 0};
	struct history_record vmap = {
	    .machine = 1, .op = 1, .code = OP_VMAP, .data = words, .data_len = sizeof(words)};
	struct history_record sysctl = {.machine = 1,
					.op = 2,
					.code = OP_SET_SYSCTL,
					.args = {SYSCTL_LOWMEM_RESERVE_RATIO},
					.data = words,
					.data_len = 8};
	struct history_record fork = {
	    .machine = 1, .op = 3, .code = OP_FORK, .data = (const uint8_t *)"copy", .data_len = 4};
	struct history_record write = {.machine = 1,
				       .op = 4,
				       .code = OP_FILE_WRITE,
				       .data = (const uint8_t *)"\0\1x",
				       .data_len = 3};

	add_machine(f->place.h, "m");
	history_append(f->place.h, &vmap);
	history_append(f->place.h, &sysctl);
	history_append(f->place.h, &fork);
	history_append(f->place.h, &write);
	place_commit(&f->place);
	expect(f, "SELECT pfns FROM op_vmap", "[1,4063516280,65535]");
	expect(f, "SELECT name, \"values\" FROM op_set_sysctl",
	       "LOWMEM_RESERVE_RATIO|[1,4063516280]");
	expect(f, "SELECT name, typeof(name) FROM op_fork", "copy|text");
	expect(f, "SELECT hex(data) FROM op_file_write", "000178");
}

static void flags_are_named(void **state)
{
	struct fixture *f = *state;

	add_machine(f->place.h, "m");
	for (uint64_t op = 1; op <= 2; op++) {
		struct history_record r = {.machine = 1,
					   .op = op,
					   .code = OP_ALLOC_PAGES,
					   .args = {op == 1 ? GFP_HIGHUSER : GFP_KERNEL | 0x8100}};

		history_append(f->place.h, &r);
	}
	place_commit(&f->place);
	expect(f, "SELECT gfp_names FROM op_alloc_pages ORDER BY op",
	       "GFP_HIGHUSER\n"
	       "__GFP_IO|__GFP_FS|__GFP_ZERO|__GFP_DIRECT_RECLAIM|__GFP_KSWAPD_RECLAIM|"
	       "__GFP_NOFAIL");
}

/* ---- the views that people ask for ---- */

static void append(struct fixture *f, uint64_t machine, uint64_t op, uint32_t code, uint32_t owner,
		   const struct engine_event *events, uint32_t nr)
{
	struct history_record r = {.machine = machine,
				   .op = op,
				   .code = code,
				   .owner = owner,
				   .time_ns = (int64_t)op,
				   .events = events,
				   .nr_events = nr};

	history_append(f->place.h, &r);
}

#define EVENTS(...)                           \
	(struct engine_event[]){__VA_ARGS__}, \
	    sizeof((struct engine_event[]){__VA_ARGS__}) / sizeof(struct engine_event)

/* Two machines do the same, so that a view which mixes them up is found out. */
static void make_story(struct fixture *f)
{
	struct history *h = f->place.h;

	for (uint64_t m = 1; m <= 2; m++) {
		add_machine(h, m == 1 ? "left" : "right");
		history_add_owner(h, m, 1, "camera");
		history_add_owner(h, m, 2, "disk");
		append(f, m, 0, 0, 0,
		       EVENTS({EVENT_ZONE_READY, 0, {ZONE_DMA, 1, 4096, 4000, 3900, 3800}},
			      {EVENT_ZONE_READY, 0, {ZONE_HIGHMEM, 9, 100, 100, 100, 50}}));
		append(f, m, 1, OP_ALLOC_PAGES, 1,
		       EVENTS({EVENT_ALLOC, 0, {500, 3, GFP_HIGHUSER, ZONE_HIGHMEM, 1}}));
		append(
		    f, m, 2, OP_ALLOC_PAGES, 2,
		    EVENTS({EVENT_ZONE_FALLBACK, 0, {ZONE_HIGHMEM, ZONE_DMA, FALLBACK_MARK, 77, 0}},
			   {EVENT_ALLOC, 0, {77, 0, GFP_HIGHUSER, ZONE_DMA, 0}}));
		append(f, m, 3, OP_FREE_PAGES, 2,
		       EVENTS({EVENT_FREE, 0, {500, 3, ZONE_HIGHMEM, 1}}));
		/* Taken again, and rolled back within the op. */
		append(f, m, 4, OP_VMALLOC, 1,
		       EVENTS({EVENT_ALLOC, 0, {500, 0, GFP_KERNEL, ZONE_HIGHMEM, 1}},
			      {EVENT_ALLOC, 0, {501, 0, GFP_KERNEL, ZONE_HIGHMEM, 1}},
			      {EVENT_FREE, 0, {500, 0, ZONE_HIGHMEM, 1}}));
		append(f, m, 5, OP_KMAP, 1,
		       EVENTS({EVENT_PTE_SET, 0, {WINDOW_PKMAP, 0xff800000u, 501, 0x63}},
			      {EVENT_PTE_SET, 0, {WINDOW_USER, 0x1000, 501, 0x63}}));
		append(f, m, 6, OP_KMAP, 1,
		       EVENTS({EVENT_PTE_SET, 0, {WINDOW_PKMAP, 0xff801000u, 502, 0x63}}));
		append(f, m, 7, OP_KMAP, 1,
		       EVENTS({EVENT_PTE_CLEARED, 0, {WINDOW_PKMAP, 0xff800000u, 501, 0x63}},
			      {EVENT_PTE_CLEARED, 0, {WINDOW_PKMAP, 0xff801000u, 502, 0x63}},
			      {EVENT_PTE_SET, 0, {WINDOW_PKMAP, 0xff802000u, 503, 0x63}}));
		append(f, m, 8, OP_ACCESS, 1,
		       EVENTS({EVENT_PAGE_FAULT, 0, {0x1000, 6, FAULT_DEMAND_ZERO, 9, ZONE_NORMAL}},
			      {EVENT_PAGE_FAULT, 0, {0x2000, 6, FAULT_DEMAND_ZERO, 8, ZONE_NORMAL}},
			      {EVENT_PAGE_FAULT, 0, {0x3000, 4, FAULT_SEGMENTATION, 0, 0}}));
		history_add_loss(h, m, 8, "guest panic: out of ideas", 9000);
	}
	place_commit(&f->place);
}

static void an_allocation_has_a_life(void **state)
{
	struct fixture *f = *state;

	make_story(f);
	expect(f,
	       "SELECT pfn, pages, zone, owner, from_op_name, from_op, to_op, to_op_name, live,"
	       " complete FROM allocations WHERE machine = 'right' ORDER BY from_op, pfn",
	       "500|8|ZONE_HIGHMEM|camera|AllocPages|1|3|FreePages|0|1\n"
	       "77|1|ZONE_DMA|disk|AllocPages|2|-|-|1|1\n"
	       "500|1|ZONE_HIGHMEM|camera|Vmalloc|4|4|Vmalloc|0|1\n"
	       "501|1|ZONE_HIGHMEM|camera|Vmalloc|4|-|-|1|1");
	expect(f, "SELECT count(*) FROM allocations", "8");
}

static void fallbacks_name_who_fell(void **state)
{
	struct fixture *f = *state;

	make_story(f);
	expect(f,
	       "SELECT machine, op, op_name, owner, wanted, got, why, pfn, \"order\", gfp, complete"
	       " FROM zone_fallbacks ORDER BY machine_id",
	       "left|2|AllocPages|disk|ZONE_HIGHMEM|ZONE_DMA|FALLBACK_MARK|77|0|1051842|1\n"
	       "right|2|AllocPages|disk|ZONE_HIGHMEM|ZONE_DMA|FALLBACK_MARK|77|0|1051842|1");
}

static void faults_are_counted_by_resolution(void **state)
{
	struct fixture *f = *state;

	make_story(f);
	expect(f,
	       "SELECT resolution, zone, count, first_op, last_op FROM faults"
	       " WHERE machine_id = 1 ORDER BY resolution",
	       "FAULT_DEMAND_ZERO|ZONE_NORMAL|2|8|8\nFAULT_SEGMENTATION|-|1|8|8");
}

static void free_pages_follow_every_op(void **state)
{
	struct fixture *f = *state;

	make_story(f);
	expect(f, "SELECT op, zone, free FROM free_pages WHERE machine_id = 2 ORDER BY op, zone",
	       "0|ZONE_DMA|3800\n0|ZONE_HIGHMEM|50\n1|ZONE_HIGHMEM|42\n2|ZONE_DMA|3799\n"
	       "3|ZONE_HIGHMEM|50\n4|ZONE_HIGHMEM|49");
	/* A zone that is made again counts from there. */
	append(f, 2, 9, OP_LOAD_STATE, 0,
	       EVENTS({EVENT_ZONE_READY, 0, {ZONE_HIGHMEM, 9, 100, 100, 100, 7}}));
	append(f, 2, 10, OP_FREE_PAGES, 0, EVENTS({EVENT_FREE, 0, {3, 1, ZONE_HIGHMEM, 1}}));
	place_commit(&f->place);
	expect(f, "SELECT op, free FROM free_pages WHERE machine = 'right' AND op > 8",
	       "9|7\n10|9");
	/* And once more, in an op that has had some of it before; the other zone goes on. */
	append(f, 2, 11, OP_LOAD_STATE, 0,
	       EVENTS({EVENT_FREE, 0, {3, 2, ZONE_HIGHMEM, 1}},
		      {EVENT_ZONE_READY, 0, {ZONE_HIGHMEM, 9, 100, 100, 100, 30}},
		      {EVENT_ALLOC, 0, {3, 1, GFP_HIGHUSER, ZONE_HIGHMEM, 1}}));
	append(f, 2, 12, OP_ALLOC_PAGES, 0, EVENTS({EVENT_ALLOC, 0, {9, 3, 0, ZONE_DMA, 1}}));
	place_commit(&f->place);
	expect(f, "SELECT op, zone, free FROM free_pages WHERE machine = 'right' AND op > 10",
	       "11|ZONE_HIGHMEM|28\n12|ZONE_DMA|3791");
}

static void the_pkmap_window_fills_and_empties(void **state)
{
	struct fixture *f = *state;

	make_story(f);
	expect(f, "SELECT op, mapped FROM pkmap_occupancy WHERE machine = 'left' ORDER BY op",
	       "5|1\n6|2\n7|1");
}

static void a_view_says_when_it_is_incomplete(void **state)
{
	struct fixture *f = *state;
	struct history_record policy = {
	    .machine = 1, .op = 9, .code = OP_SET_POLICY, .args = {0, 0, DETAIL_NOTABLE}};

	make_story(f);
	expect(f, "SELECT machine, from_op, detail FROM machine_detail ORDER BY 1, 2",
	       "left|0|DETAIL_ALL\nright|0|DETAIL_ALL");
	history_append(f->place.h, &policy);
	place_commit(&f->place);
	policy.op = 10;
	policy.args[2] = DETAIL_ALL;
	history_append(f->place.h, &policy);
	place_commit(&f->place);
	expect(f, "SELECT machine, from_op, detail FROM machine_detail ORDER BY 1, 2",
	       "left|0|DETAIL_ALL\nleft|10|DETAIL_NOTABLE\nleft|11|DETAIL_ALL\n"
	       "right|0|DETAIL_ALL");
	expect(f, "SELECT DISTINCT machine, complete FROM event_alloc", "left|0\nright|1");
	expect(f, "SELECT DISTINCT machine, complete FROM event_page_fault", "left|1\nright|1");
	expect(f, "SELECT DISTINCT machine, complete FROM allocations", "left|0\nright|1");
	/* Below that, not even the notable ones are. */
	policy.op = 11;
	policy.args[2] = DETAIL_OPS;
	history_append(f->place.h, &policy);
	place_commit(&f->place);
	expect(f, "SELECT DISTINCT machine, complete FROM event_page_fault", "left|0\nright|1");
}

/* Every view finds ops by a range of keys and events by a range of ids: no index is
 * made for the query, and neither table is read whole for each row of the other. */
static void check_plan(struct fixture *f, const char *view, const char *condition)
{
	char sql[160];
	const char *plan;

	snprintf(sql, sizeof(sql), "EXPLAIN QUERY PLAN SELECT * FROM %s %s", view, condition);
	plan = rows_of(f, sql);
	if (strstr(plan, "AUTOMATIC") || strstr(plan, "SCAN o") || strstr(plan, "SCAN e"))
		fail_msg("%s:\n%s", sql, plan);
	if (strstr(condition, "machine_id") &&
	    !strstr(plan, "SEARCH m USING INTEGER PRIMARY KEY (rowid=?)"))
		fail_msg("%s:\n%s", sql, plan);
}

static void a_condition_on_the_machine_is_a_range_of_keys(void **state)
{
	struct fixture *f = *state;
	static char views[128][64];
	/* Not ops and events: those are tables themselves, put together. */
	sqlite3_stmt *st = prepare(f, "SELECT name FROM sqlite_schema WHERE type = 'view'"
				      " AND name NOT IN ('ops', 'events')");
	unsigned nr = 0;

	for (; sqlite3_step(st) == SQLITE_ROW && nr < 128; nr++)
		snprintf(views[nr], sizeof(views[nr]), "%s", sqlite3_column_text(st, 0));
	sqlite3_finalize(st);
	assert_true(nr > 90 && nr < 128);
	for (unsigned i = 0; i < nr; i++) {
		check_plan(f, views[i], "");
		check_plan(f, views[i], "WHERE machine = 'a'");
		/* Two SELECTs, of which the first is of machines alone. */
		if (strcmp(views[i], "machine_detail") != 0)
			check_plan(f, views[i], "WHERE machine_id = 3");
	}
	/* What runs over a machine from its first op on needs no order but that of its keys. */
	assert_null(strstr(rows_of(f, "EXPLAIN QUERY PLAN SELECT * FROM free_pages"), "ORDER BY"));
	assert_null(
	    strstr(rows_of(f, "EXPLAIN QUERY PLAN SELECT * FROM pkmap_occupancy"), "ORDER BY"));
	/* The newest ops of a machine are read from the end. */
	assert_null(strstr(rows_of(f, "EXPLAIN QUERY PLAN SELECT * FROM op_log WHERE machine_id = 3"
				      " ORDER BY key DESC LIMIT 10"),
			   "ORDER BY"));
}

/* ---- SCHEMA.md ---- */

static char *read_schema_md(void)
{
	FILE *file = fopen(SOURCE_DIR "/server/history/SCHEMA.md", "r");
	char *text = calloc(1, 1 << 18);
	size_t n;

	if (!file || !text)
		fail_msg("server/history/SCHEMA.md cannot be read");
	n = fread(text, 1, (1 << 18) - 1, file);
	fclose(file);
	assert_true(n > 0 && n < (1 << 18) - 1);
	return text;
}

/* A line for each view: its name, its columns beyond the common ones, what it is. */
static char *views_as_markdown(struct fixture *f)
{
	char *out = calloc(1, 1 << 18);
	sqlite3_stmt *st = prepare(
	    f, "SELECT s.name,"
	       " group_concat(CASE WHEN c.position > CASE WHEN s.name IN ('op_log', 'event_log')"
	       " THEN 0 WHEN s.name LIKE 'op/_%' ESCAPE '/' THEN 13"
	       " WHEN s.name LIKE 'event/_%' ESCAPE '/' THEN 8 ELSE 0 END"
	       " AND c.name <> 'complete' THEN '`' || c.name || '`' END, ' '),"
	       " substr(s.sql, instr(s.sql, '-- ') + 3,"
	       "  instr(s.sql, char(10)) - instr(s.sql, '-- ') - 3)"
	       " FROM sqlite_schema s JOIN view_columns c ON c.view = s.name"
	       " WHERE s.type = 'view' GROUP BY s.name ORDER BY s.name");

	while (sqlite3_step(st) == SQLITE_ROW) {
		const char *columns = (const char *)sqlite3_column_text(st, 1);
		size_t used = strlen(out);

		snprintf(out + used, (1 << 18) - used, "| `%s` | %s | %s |\n",
			 sqlite3_column_text(st, 0), columns ? columns : "",
			 sqlite3_column_text(st, 2));
	}
	sqlite3_finalize(st);
	return out;
}

static void schema_md_lists_every_view(void **state)
{
	struct fixture *f = *state;
	char *text = read_schema_md(), *views = views_as_markdown(f);

	if (!strstr(text, views))
		fail_msg("the table of views in SCHEMA.md is stale: put in what "
			 "`history_views --print` prints");
	free(views);
	free(text);
}

static void schema_md_lists_every_table_and_column(void **state)
{
	struct fixture *f = *state;
	char *text = read_schema_md();
	sqlite3_stmt *st = prepare(f, "SELECT t.name, c.name FROM pragma_table_list t"
				      " JOIN pragma_table_info(t.name) c WHERE t.type = 'table'"
				      " AND t.name NOT LIKE 'sqlite%' AND t.schema = 'main'");
	unsigned nr = 0;

	if (!text) {
		fail_msg("no SCHEMA.md");
		return;
	}
	while (sqlite3_step(st) == SQLITE_ROW) {
		char heading[64], word[64];
		const char *section, *found, *end;

		snprintf(heading, sizeof(heading), "### %s\n", sqlite3_column_text(st, 0));
		snprintf(word, sizeof(word), "`%s`", sqlite3_column_text(st, 1));
		section = strstr(text, heading);
		if (!section) {
			fail_msg("SCHEMA.md does not have %s", heading);
			return;
		}
		end = strstr(section + 3, "\n##");
		found = strstr(section, word);
		if (!found || found > end)
			fail_msg("SCHEMA.md does not have %s of %s", word, heading);
		nr++;
	}
	sqlite3_finalize(st);
	assert_true(nr > 80);
	free(text);
}

/* Each ```sql block is one statement; it must run, and on the story give rows. */
static void schema_mds_examples_answer(void **state)
{
	struct fixture *f = *state;
	char *text = read_schema_md(), *at = text;
	unsigned nr = 0;

	make_story(f);
	while ((at = strstr(at, "```sql\n"))) {
		char *end = strstr(at += 7, "```");

		assert_non_null(end);
		*end = '\0';
		if (!rows_of(f, at)[0])
			fail_msg("no rows from\n%s", at);
		at = end + 1;
		nr++;
	}
	assert_true(nr >= 8);
	free(text);
}

static int print_views(void)
{
	void *state;
	char *views;

	if (setup(&state))
		return 1;
	views = views_as_markdown(state);
	fputs(views, stdout);
	free(views);
	return teardown(&state);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	    T(every_op_has_its_view),
	    T(every_event_has_its_view),
	    T(payloads_are_shown_as_what_they_are),
	    T(flags_are_named),
	    T(an_allocation_has_a_life),
	    T(fallbacks_name_who_fell),
	    T(faults_are_counted_by_resolution),
	    T(free_pages_follow_every_op),
	    T(the_pkmap_window_fills_and_empties),
	    T(a_view_says_when_it_is_incomplete),
	    T(a_condition_on_the_machine_is_a_range_of_keys),
	    T(schema_md_lists_every_view),
	    T(schema_md_lists_every_table_and_column),
	    T(schema_mds_examples_answer),
	};

	if (argc > 1 && strcmp(argv[1], "--print") == 0)
		return print_views();
	return cmocka_run_group_tests_name("history: the views", tests, NULL, NULL);
}
