/*
 * known.c - makes such ops and knows them again.
 */
#include "known.h"

#include <sqlite3.h>

enum { DATA_MAX = 2000, EVENTS_MAX = 6 };

/* ---- what an op holds ---- */

static uint64_t mix(uint64_t machine, uint64_t op)
{
	uint64_t x = (machine << 40 | op) * UINT64_C(0x9e3779b97f4a7c15) + 1;

	return random_next(&x);
}

static void make_op(struct history_record *r, struct engine_event *events, uint8_t *data,
		    uint64_t machine, uint64_t op)
{
	uint64_t x = mix(machine, op);
	unsigned narrow = op % 4 ? 32 : 0; /* some fit 32 bits, some do not */

	*r = (struct history_record){.machine = machine,
				     .op = op,
				     .code = OP_FILE_WRITE,
				     .args = {x >> narrow, ~x >> narrow},
				     .values = {x >> 16, ~x >> narrow, x >> narrow},
				     .data = data,
				     .data_len = op % 7 ? 0 : (uint32_t)(x % DATA_MAX),
				     .token = op % 3 ? 0 : x | 1,
				     .sequence = op % 3 ? 0 : op,
				     .events = events,
				     .nr_events = (uint32_t)(x % EVENTS_MAX)};
	memset(data, (int)(x & 0xff), r->data_len);
	for (uint32_t i = 0; i < r->nr_events; i++)
		events[i] = (struct engine_event){.kind = (uint16_t)(1 + i),
						  .w = {(uint32_t)x, (uint32_t)op, i}};
}

/* ---- writing ---- */

static bool note_last(void *arg, const struct history_machine *m)
{
	struct known_progress *p = arg;

	p->last[0]++;
	p->last[m->id] = m->last_op;
	return true;
}

void known_begin(struct history *h, struct known_progress *p)
{
	static struct engine_config config;

	*p = (struct known_progress){{0}};
	history_machines(h, note_last, p);
	/* They are in the first turn, all of them or none. */
	for (int i = 0; p->last[0] == 0 && i < KNOWN_MACHINES; i++)
		history_add_machine(h, "m", "sim", &config, 0, 0, false, 0);
}

void known_append_turn(struct history *h, struct known_progress *p, uint64_t max_ops,
		       uint64_t *random)
{
	static struct engine_event events[EVENTS_MAX];
	static uint8_t data[DATA_MAX];
	uint64_t nr = 1 + random_next(random) % max_ops;

	for (uint64_t i = 0; i < nr; i++) {
		uint64_t machine = 1 + random_next(random) % KNOWN_MACHINES;
		struct history_record r;

		make_op(&r, events, data, machine, ++p->last[machine]);
		history_append(h, &r);
	}
}

/* ---- reading ---- */

struct verify {
	struct history *h;
	uint64_t machine, next;
	sqlite3_stmt *events;
	uint64_t nr_events, nr_payloads;
};

static void verify_events(struct verify *v, const struct history_record *want)
{
	sqlite3_stmt *st = v->events;

	sqlite3_bind_int64(st, 1, (int64_t)(want->machine << 40 | want->op));
	for (uint32_t i = 0; i < want->nr_events; i++) {
		if (sqlite3_step(st) != SQLITE_ROW)
			KNOWN_FAIL("op %llu lacks event %u", (unsigned long long)want->op, i);
		if (sqlite3_column_int64(st, 0) != want->events[i].kind ||
		    sqlite3_column_int64(st, 1) != want->events[i].w[0] ||
		    sqlite3_column_int64(st, 2) != want->events[i].w[1] ||
		    sqlite3_column_int64(st, 3) != i)
			KNOWN_FAIL("op %llu has another event %u", (unsigned long long)want->op, i);
	}
	if (sqlite3_step(st) != SQLITE_DONE)
		KNOWN_FAIL("op %llu has an event too many", (unsigned long long)want->op);
	sqlite3_reset(st);
}

static bool verify_op(void *arg, const struct history_record *r)
{
	static struct engine_event events[EVENTS_MAX];
	static uint8_t data[DATA_MAX];
	struct verify *v = arg;
	struct history_record want;

	make_op(&want, events, data, v->machine, v->next);
	if (r->op != v->next)
		KNOWN_FAIL("machine %llu has op %llu where %llu should be",
			   (unsigned long long)v->machine, (unsigned long long)r->op,
			   (unsigned long long)v->next);
	if (memcmp(r->args, want.args, sizeof(r->args)) ||
	    memcmp(r->values, want.values, sizeof(r->values)) || r->token != want.token ||
	    r->data_len != want.data_len ||
	    (want.data_len && memcmp(r->data, want.data, want.data_len)))
		KNOWN_FAIL("op %llu is not what it was", (unsigned long long)r->op);
	verify_events(v, &want);
	v->nr_events += want.nr_events;
	v->nr_payloads += want.data_len > 0;
	v->next++;
	return true;
}

static int64_t number(sqlite3 *db, const char *sql)
{
	sqlite3_stmt *st;
	int64_t n;

	if (sqlite3_prepare_v2(db, sql, -1, &st, NULL) || sqlite3_step(st) != SQLITE_ROW)
		KNOWN_FAIL("%s: %s", sql, sqlite3_errmsg(db));
	n = sqlite3_column_int64(st, 0);
	sqlite3_finalize(st);
	return n;
}

static void check_file(sqlite3 *db)
{
	sqlite3_stmt *st;

	if (sqlite3_prepare_v2(db, "PRAGMA integrity_check(5)", -1, &st, NULL) ||
	    sqlite3_step(st) != SQLITE_ROW)
		KNOWN_FAIL("the file cannot be checked: %s", sqlite3_errmsg(db));
	if (strcmp((const char *)sqlite3_column_text(st, 0), "ok") != 0)
		KNOWN_FAIL("the file is damaged: %s", sqlite3_column_text(st, 0));
	sqlite3_finalize(st);
}

uint64_t known_verify(struct history *h, const char *path,
		      const struct known_progress *acknowledged, struct known_progress *found)
{
	struct verify v = {.h = h};
	uint64_t total = 0;
	sqlite3 *db;

	if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL) ||
	    sqlite3_prepare_v2(db,
			       "SELECT e.kind, e.w0, e.w1, e.w2 FROM ops o JOIN events e"
			       " ON e.id >= o.first_event AND e.id < o.first_event + o.nr_events"
			       " WHERE o.key = ? ORDER BY e.id",
			       -1, &v.events, NULL))
		KNOWN_FAIL("cannot read: %s", sqlite3_errmsg(db));
	for (uint64_t m = 1; m <= KNOWN_MACHINES; m++) {
		v.machine = m;
		v.next = 1;
		if (history_replay(v.h, m, 0, 0, verify_op, &v))
			KNOWN_FAIL("machine %llu cannot be replayed", (unsigned long long)m);
		found->last[m] = v.next - 1;
		total += v.next - 1;
		if (v.next - 1 < acknowledged->last[m])
			KNOWN_FAIL("machine %llu: op %llu was acknowledged, %llu is the last found",
				   (unsigned long long)m, (unsigned long long)acknowledged->last[m],
				   (unsigned long long)v.next - 1);
	}
	sqlite3_finalize(v.events);
	if ((uint64_t)number(db, "SELECT count(*) FROM ops") != total ||
	    (uint64_t)number(db, "SELECT count(*) FROM events") != v.nr_events ||
	    (uint64_t)number(db, "SELECT count(*) FROM payloads") != v.nr_payloads)
		KNOWN_FAIL("there is something of ops that are not there");
	check_file(db);
	sqlite3_close(db);
	return total;
}
