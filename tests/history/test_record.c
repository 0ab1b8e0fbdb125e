/*
 * test_record.c - what is written is what is read, all of a turn or none of it.
 *
 * Opening (fresh, foreign, newer, locked), round trips of machines and ops,
 * completions and tokens, a full disk at every write of a commit, the disk's reserve
 * and the WAL's limit.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "effort.h"
#include "place_checked.h"

static int setup(void **state)
{
	struct place *p = malloc(sizeof(*p));

	place_make(p);
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	place_remove(*state);
	free(*state);
	return 0;
}

/* Makes an SQLite file with another program's hands. */
static void write_file(struct place *p, const char *sql)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open(p->path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
}

/* ---- opening ---- */

static void a_fresh_file_is_private_and_ours(void **state)
{
	struct place *p = *state;
	struct stat st;

	assert_int_equal(place_open(p), HISTORY_OK);
	assert_int_equal(stat(p->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(place_ask(p, "PRAGMA application_id"), 0x7a6f6e64);
	assert_int_equal(place_ask(p, "PRAGMA user_version"), 4);
	place_close(p);
	assert_int_equal(place_open(p), HISTORY_OK);
}

static void an_empty_file_becomes_a_history(void **state)
{
	struct place *p = *state;
	FILE *f = fopen(p->path, "w");

	fclose(f);
	assert_int_equal(place_open(p), HISTORY_OK);
}

static void a_file_that_is_not_sqlite_is_left_alone(void **state)
{
	struct place *p = *state;
	FILE *f = fopen(p->path, "w");
	char back[64] = "";

	fputs("These are the times that try men's souls. The summer soldier and the sunshine "
	      "patriot will, in this crisis, shrink from the service of their country.",
	      f);
	fclose(f);
	assert_int_equal(place_open(p), HISTORY_FOREIGN);
	assert_non_null(strstr(p->err, "not an SQLite file"));
	f = fopen(p->path, "r");
	assert_non_null(fgets(back, sizeof(back), f));
	fclose(f);
	assert_memory_equal(back, "These are the times", 19);
}

static void another_programs_database_is_left_alone(void **state)
{
	struct place *p = *state;

	write_file(p, "CREATE TABLE t(a); PRAGMA application_id = 77;");
	assert_int_equal(place_open(p), HISTORY_FOREIGN);
	assert_int_equal(place_ask(p, "SELECT count(*) FROM sqlite_schema"), 1);
}

static void a_database_without_an_id_is_foreign_too(void **state)
{
	struct place *p = *state;

	write_file(p, "CREATE TABLE t(a);");
	assert_int_equal(place_open(p), HISTORY_FOREIGN);
}

static void a_newer_history_is_left_alone(void **state)
{
	struct place *p = *state;

	assert_int_equal(place_open(p), HISTORY_OK);
	place_close(p);
	write_file(p, "PRAGMA user_version = 5;");
	assert_int_equal(place_open(p), HISTORY_NEWER);
	assert_non_null(strstr(p->err, "version 5"));
	assert_int_equal(place_ask(p, "PRAGMA user_version"), 5);
}

static void a_second_daemon_is_refused(void **state)
{
	struct place *p = *state;
	struct history *second = NULL;
	char err[256], pid[32];

	assert_int_equal(place_open(p), HISTORY_OK);
	assert_int_equal(history_open(&p->options, &second, err, sizeof(err)), HISTORY_LOCKED);
	assert_null(second);
	snprintf(pid, sizeof(pid), "process %d", (int)getpid());
	assert_non_null(strstr(err, pid));
	/* The first has lost nothing by it. */
	add_machine(p->h, "a");
	place_commit(p);
}

static void views_of_another_contract_are_made_anew(void **state)
{
	struct place *p = *state;

	assert_int_equal(place_open(p), HISTORY_OK);
	place_close(p);
	write_file(p, "UPDATE meta SET value = '1' WHERE name = 'contract';"
		      "DROP VIEW op_alloc_pages; CREATE VIEW op_of_old AS SELECT 1;"
		      "INSERT INTO view_columns VALUES('op_of_old', 1, '1', '', '');"
		      "CREATE VIEW of_a_user AS SELECT 1;"
		      "DELETE FROM enum_values;");
	assert_int_equal(place_open(p), HISTORY_OK);
	assert_int_equal(
	    place_ask(p, "SELECT count(*) FROM sqlite_schema WHERE name = 'op_of_old'"), 0);
	assert_int_equal(place_ask(p, "SELECT * FROM of_a_user"), 1);
	assert_int_equal(place_ask(p, "SELECT count(*) FROM op_alloc_pages"), 0);
	assert_true(place_ask(p, "SELECT count(*) FROM enum_values") > 100);
}

/* ---- machines ---- */

static void random_config(struct engine_config *c, uint64_t *seed)
{
	memset(c, 0, sizeof(*c));
	c->preset = (uint32_t)random_next(seed);
	c->flags = (uint32_t)random_next(seed);
	c->page_offset = (uint32_t)random_next(seed);
	c->vmalloc_bytes = (uint32_t)random_next(seed);
	c->cpus = (uint32_t)random_next(seed);
	c->user_fallback = (uint32_t)random_next(seed);
	c->detail = (uint32_t)random_next(seed);
	c->late_pages = (uint32_t)random_next(seed);
	c->ram = random_next(seed);
	c->mem = random_next(seed);
	c->highmem = random_next(seed);
	c->kernelcore = random_next(seed);
	c->movablecore = random_next(seed);
	c->nr_e820 = (uint32_t)(random_next(seed) % (ENGINE_MAX_E820 + 1));
	c->nr_reserved = (uint32_t)(random_next(seed) % (ENGINE_MAX_RESERVED + 1));
	for (uint32_t i = 0; i < c->nr_e820; i++)
		c->e820[i] = (struct engine_e820){random_next(seed), random_next(seed),
						  (uint32_t)random_next(seed), 0};
	for (uint32_t i = 0; i < c->nr_reserved; i++)
		c->reserved[i] = (struct engine_range){random_next(seed), random_next(seed)};
}

struct expected_machine {
	uint64_t id;
	struct engine_config config;
};

struct machines_seen {
	const struct expected_machine *expected;
	unsigned nr;
};

static bool compare_machine(void *arg, const struct history_machine *m)
{
	struct machines_seen *seen = arg;
	const struct expected_machine *e = &seen->expected[seen->nr++];
	char name[32];

	snprintf(name, sizeof(name), "m%llu", (unsigned long long)e->id);
	assert_int_equal(m->id, e->id);
	assert_string_equal(m->name, name);
	assert_string_equal(m->backend, "kernel");
	assert_memory_equal(m->config, &e->config, sizeof(e->config));
	assert_int_equal(m->forked_from, e->id - 1);
	assert_int_equal(m->forked_at_op, e->id * 10);
	assert_int_equal(m->frozen, e->id & 1);
	assert_int_equal(m->created_ns, -(int64_t)e->id);
	assert_int_equal(m->last_op, 0);
	return true;
}

/* Whatever a configuration holds, bit by bit, comes back. */
static void a_configuration_comes_back_exactly(void **state)
{
	enum { NR = 20 };
	struct place *p = *state;
	uint64_t seed = random_seed();
	struct expected_machine *expected = calloc(NR, sizeof(*expected));
	struct machines_seen seen = {expected, 0};
	char name[32];

	assert_int_equal(place_open(p), HISTORY_OK);
	for (unsigned i = 0; i < NR; i++) {
		random_config(&expected[i].config, &seed);
		expected[i].id = i + 1;
		snprintf(name, sizeof(name), "m%u", i + 1);
		assert_int_equal(history_add_machine(p->h, name, "kernel", &expected[i].config, i,
						     (i + 1) * 10, (i + 1) & 1, -(int64_t)(i + 1)),
				 i + 1);
	}
	place_commit(p);
	assert_int_equal(history_machines(p->h, compare_machine, &seen), HISTORY_OK);
	assert_int_equal(seen.nr, NR);
	place_close(p);
	assert_int_equal(place_open(p), HISTORY_OK);
	seen.nr = 0;
	assert_int_equal(history_machines(p->h, compare_machine, &seen), HISTORY_OK);
	assert_int_equal(seen.nr, NR);
	free(expected);
}

static bool count_machine(void *arg, const struct history_machine *m)
{
	uint64_t *last = arg;

	*last = m->id;
	return true;
}

static void an_id_is_never_reused(void **state)
{
	struct place *p = *state;
	uint64_t last = 0;

	assert_int_equal(place_open(p), HISTORY_OK);
	assert_int_equal(add_machine(p->h, "a"), 1);
	assert_int_equal(add_machine(p->h, "b"), 2);
	place_commit(p);
	history_end_machine(p->h, 2, 5000);
	place_commit(p);
	assert_int_equal(history_machines(p->h, count_machine, &last), HISTORY_OK);
	assert_int_equal(last, 1);
	place_close(p);
	assert_int_equal(place_open(p), HISTORY_OK);
	assert_int_equal(add_machine(p->h, "b"), 3);
	place_commit(p);
	assert_int_equal(place_ask(p, "SELECT ended_ns FROM machines WHERE id = 2"), 5000);
}

static bool compare_owner(void *arg, uint32_t number, const char *label)
{
	uint32_t *seen = arg;
	char expected[16];

	snprintf(expected, sizeof(expected), "owner %u", ++*seen);
	assert_int_equal(number, *seen);
	assert_string_equal(label, expected);
	return true;
}

static void owners_come_back_in_order(void **state)
{
	struct place *p = *state;
	char label[32];
	uint32_t seen = 0;

	assert_int_equal(place_open(p), HISTORY_OK);
	add_machine(p->h, "a");
	add_machine(p->h, "b");
	for (uint32_t i = 1; i <= 5; i++) {
		snprintf(label, sizeof(label), "owner %u", i);
		history_add_owner(p->h, 1, i, label);
		history_add_owner(p->h, 2, i, "of another machine");
	}
	assert_int_equal(history_owners(p->h, 1, compare_owner, &seen), HISTORY_OK);
	assert_int_equal(seen, 0); /* not before the commit */
	place_commit(p);
	assert_int_equal(history_owners(p->h, 1, compare_owner, &seen), HISTORY_OK);
	assert_int_equal(seen, 5);
}

/* ---- ops ---- */

enum { NR_OPS = 600, MAX_DATA = 3000, MAX_EVENTS = 40 };

struct made_op {
	struct history_record r;
	uint8_t data[MAX_DATA];
	struct engine_event events[MAX_EVENTS];
};

static void random_op(struct made_op *m, uint64_t machine, uint64_t op, uint64_t *seed)
{
	memset(m, 0, sizeof(*m));
	m->r.machine = machine;
	m->r.op = op;
	m->r.client = random_next(seed) % 3;
	m->r.token = random_next(seed) % 2 ? random_next(seed) : 0;
	m->r.sequence = m->r.token ? op : 0;
	m->r.time_ns = (int64_t)random_next(seed);
	m->r.latency_ns = random_next(seed) >> 1;
	do
		m->r.code = (uint32_t)(1 + random_next(seed) % (OP_CODE_END - 1));
	while (m->r.code == OP_SET_POLICY);
	m->r.cpu = (uint32_t)random_next(seed) & 0xffff;
	m->r.task = (uint32_t)random_next(seed);
	m->r.owner = (uint32_t)random_next(seed);
	m->r.status = (uint32_t)(random_next(seed) % STATUS_PARKED);
	for (int i = 0; i < OP_ARGS; i++)
		m->r.args[i] = random_next(seed) % 3 ? random_next(seed) : 0;
	for (int i = 0; i < OP_VALUES; i++)
		m->r.values[i] = random_next(seed) % 3 ? random_next(seed) : 0;
	m->r.data_len = random_next(seed) % 4 ? 0 : (uint32_t)(random_next(seed) % MAX_DATA);
	for (uint32_t i = 0; i < m->r.data_len; i++)
		m->data[i] = (uint8_t)random_next(seed);
	m->r.nr_events = (uint32_t)(random_next(seed) % (MAX_EVENTS + 1));
	for (uint32_t i = 0; i < m->r.nr_events; i++) {
		m->events[i].kind = (uint16_t)(1 + random_next(seed) % (EVENT_KIND_END - 1));
		for (int w = 0; w < EVENT_WORDS; w++)
			m->events[i].w[w] = (uint32_t)random_next(seed);
	}
	m->r.data = m->data;
	m->r.events = m->events;
	m->r.result_data = m->data;
	m->r.result_len = m->r.data_len / 2;
}

struct replay_check {
	const struct made_op *made;
	uint64_t next, stop_at;
};

static bool compare_op(void *arg, const struct history_record *r)
{
	struct replay_check *c = arg;
	const struct history_record *e = &c->made[c->next++].r;

	assert_int_equal(r->machine, e->machine);
	assert_int_equal(r->op, e->op);
	assert_int_equal(r->client, e->client);
	assert_int_equal(r->token, e->token);
	assert_int_equal(r->sequence, e->sequence);
	assert_int_equal(r->time_ns, e->time_ns);
	assert_int_equal(r->latency_ns, e->latency_ns);
	assert_int_equal(r->code, e->code);
	assert_int_equal(r->cpu, e->cpu);
	assert_int_equal(r->task, e->task);
	assert_int_equal(r->owner, e->owner);
	assert_int_equal(r->status, e->status);
	assert_memory_equal(r->args, e->args, sizeof(e->args));
	assert_memory_equal(r->values, e->values, sizeof(e->values));
	assert_int_equal(r->data_len, e->data_len);
	if (e->data_len)
		assert_memory_equal(r->data, e->data, e->data_len);
	assert_int_equal(r->result_len, e->result_len);
	return c->next != c->stop_at;
}

/* The events of every op, straight from the table. */
static void compare_events(struct place *p, const struct made_op *made, uint64_t nr)
{
	sqlite3 *db;
	sqlite3_stmt *st;

	assert_int_equal(sqlite3_open_v2(p->path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
	assert_int_equal(
	    sqlite3_prepare_v2(db,
			       "SELECT e.* FROM ops o JOIN events e ON e.id >= o.first_event AND"
			       " e.id < o.first_event + o.nr_events WHERE o.key = ? ORDER BY e.id",
			       -1, &st, NULL),
	    SQLITE_OK);
	for (uint64_t i = 0; i < nr; i++) {
		const struct history_record *e = &made[i].r;

		sqlite3_bind_int64(st, 1, (int64_t)(e->machine << 40 | e->op));
		for (uint32_t k = 0; k < e->nr_events; k++) {
			assert_int_equal(sqlite3_step(st), SQLITE_ROW);
			assert_int_equal(sqlite3_column_int64(st, 1), e->events[k].kind);
			for (int w = 0; w < EVENT_WORDS; w++)
				assert_int_equal(sqlite3_column_int64(st, 2 + w),
						 e->events[k].w[w]);
		}
		assert_int_equal(sqlite3_step(st), SQLITE_DONE);
		sqlite3_reset(st);
	}
	sqlite3_finalize(st);
	sqlite3_close(db);
}

static void ops_come_back_exactly(void **state)
{
	struct place *p = *state;
	uint64_t seed = random_seed(), turn = 1;
	struct made_op *made = calloc(2 * NR_OPS, sizeof(*made)), *other = made + NR_OPS;
	struct replay_check c = {made, 0, 0};
	struct history_record found;

	assert_int_equal(place_open(p), HISTORY_OK);
	add_machine(p->h, "a");
	add_machine(p->h, "b");
	for (uint64_t i = 0; i < NR_OPS; i++) {
		random_op(&made[i], 1, i + 1, &seed);
		random_op(&other[i], 2, i + 1, &seed);
		history_append(p->h, &made[i].r);
		history_append(p->h, &other[i].r);
		if (--turn == 0) {
			place_commit(p);
			turn = 1 + random_next(&seed) % 50;
		}
	}
	place_commit(p);
	assert_int_equal(history_replay(p->h, 1, 0, 0, compare_op, &c), HISTORY_OK);
	assert_int_equal(c.next, NR_OPS);
	/* Stopped by the callback, and a part. */
	c = (struct replay_check){made, 0, 10};
	assert_int_equal(history_replay(p->h, 1, 1, 0, compare_op, &c), HISTORY_ABORTED);
	assert_int_equal(c.next, 10);
	assert_int_equal(history_replay(p->h, 1, 11, 20, compare_op, &c), HISTORY_OK);
	assert_int_equal(c.next, 20);
	place_close(p);

	assert_int_equal(place_open(p), HISTORY_OK);
	c = (struct replay_check){other, 0, 0};
	assert_int_equal(history_replay(p->h, 2, 0, 0, compare_op, &c), HISTORY_OK);
	assert_int_equal(c.next, NR_OPS);
	compare_events(p, made, 2 * NR_OPS);
	for (uint64_t i = 0; i < NR_OPS; i++) {
		c = (struct replay_check){made, i, 0};
		assert_int_equal(
		    history_find_token(p->h, 1, made[i].r.token, made[i].r.sequence, &found),
		    HISTORY_OK);
		if (made[i].r.token)
			compare_op(&c, &found);
		else
			assert_int_equal(found.op, 0);
	}
	/* A token is one machine's. */
	assert_int_equal(history_find_token(p->h, 2, made[1].r.token, 2, &found), HISTORY_OK);
	assert_int_equal(found.op, 0);
	free(made);
}

static void boot_is_no_op_to_replay(void **state)
{
	struct place *p = *state;
	struct engine_event e = {.kind = EVENT_ZONE_READY, .w = {ZONE_NORMAL}};
	struct history_record boot = {.machine = 1, .events = &e, .nr_events = 1};
	struct replay_check c = {NULL, 0, 0};

	assert_int_equal(place_open(p), HISTORY_OK);
	add_machine(p->h, "a");
	history_append(p->h, &boot);
	place_commit(p);
	assert_int_equal(history_replay(p->h, 1, 0, 0, compare_op, &c), HISTORY_OK);
	assert_int_equal(c.next, 0);
	assert_int_equal(place_ask(p, "SELECT count(*) FROM event_zone_ready WHERE op = 0"), 1);
}

static void a_parked_op_is_answered_with_its_completion(void **state)
{
	struct place *p = *state;
	struct history_record r = {.machine = 1,
				   .op = 1,
				   .token = 99,
				   .sequence = 1,
				   .code = OP_KMAP,
				   .status = STATUS_PARKED},
			      found;
	struct engine_completion c = {
	    .op = 1, .status = STATUS_OK, .task = 3, .values = {0xff800000u, 7, 0, 0}};

	assert_int_equal(place_open(p), HISTORY_OK);
	add_machine(p->h, "a");
	history_append(p->h, &r);
	place_commit(p);
	assert_int_equal(history_find_token(p->h, 1, 99, 1, &found), HISTORY_OK);
	assert_int_equal(found.status, STATUS_PARKED);
	r = (struct history_record){.machine = 1, .op = 2, .code = OP_KUNMAP};
	history_append(p->h, &r);
	history_append_completion(p->h, 1, 2, &c, 55);
	place_commit(p);
	assert_int_equal(history_find_token(p->h, 1, 99, 1, &found), HISTORY_OK);
	assert_int_equal(found.op, 1);
	assert_int_equal(found.status, STATUS_OK);
	assert_int_equal(found.values[0], 0xff800000u);
	assert_int_equal(
	    place_ask(p, "SELECT woken_by FROM op_kmap WHERE status = 'OK' AND slot = 7"), 2);
}

static void a_result_is_kept_as_length_and_hash(void **state)
{
	struct place *p = *state;
	struct history_record r = {.machine = 1,
				   .op = 1,
				   .code = OP_FILE_READ,
				   .result_data = (const uint8_t *)"foobar",
				   .result_len = 6};

	assert_int_equal(place_open(p), HISTORY_OK);
	add_machine(p->h, "a");
	history_append(p->h, &r);
	place_commit(p);
	assert_int_equal(place_ask(p, "SELECT result_length FROM op_file_read"), 6);
	/* The published value of FNV-1a for this word. */
	assert_int_equal(place_ask(p, "SELECT result_hash FROM op_file_read"),
			 (int64_t)UINT64_C(0x85944171f73967e8));
}

static void an_op_of_no_machine_fails_the_turn(void **state)
{
	struct place *p = *state;

	assert_int_equal(place_open(p), HISTORY_OK);
	add_machine(p->h, "a");
	place_commit(p);
	append_alloc(p->h, 1, 1, 100, 2, 0);
	append_alloc(p->h, 2, 1, 100, 2, 0);
	assert_int_equal(history_commit(p->h, p->err, sizeof(p->err)), HISTORY_IO);
	assert_int_equal(place_ask(p, "SELECT count(*) FROM ops"), 0);
	append_alloc(p->h, 1, 1, 100, 2, 0);
	place_commit(p);
	assert_int_equal(place_ask(p, "SELECT count(*) FROM ops"), 1);
}

/* ---- a disk that is full ---- */

static void limit_file_size(uint64_t bytes)
{
	struct rlimit l;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &l), 0);
	l.rlim_cur = bytes ? bytes : l.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &l), 0);
}

/* A turn with a row in every table. */
static void append_wide_turn(struct place *p, uint64_t from_op)
{
	static uint8_t data[5000];
	struct engine_completion c = {.op = from_op};
	struct history_record w = {.machine = 1,
				   .op = from_op,
				   .code = OP_FILE_WRITE,
				   .data = data,
				   .data_len = sizeof(data)};

	history_add_owner(p->h, 1, (uint32_t)from_op, "somebody");
	history_append(p->h, &w);
	for (uint64_t op = from_op + 1; op < from_op + 200; op++)
		append_alloc(p->h, 1, op, (uint32_t)op, 2, 0);
	history_append_completion(p->h, 1, from_op + 1, &c, 0);
}

static void check_whole(struct place *p, uint64_t turns)
{
	assert_int_equal(place_ask(p, "SELECT count(*) FROM ops"), turns * 200);
	assert_int_equal(place_ask(p, "SELECT count(*) FROM events"), turns * 199);
	assert_int_equal(place_ask(p, "SELECT count(*) FROM event_alloc"), turns * 199);
	assert_int_equal(place_ask(p, "SELECT count(*) FROM payloads"), turns);
	assert_int_equal(place_ask(p, "SELECT count(*) FROM completions"), turns);
	assert_int_equal(place_ask(p, "SELECT count(*) FROM owners"), turns);
}

static uint64_t file_bytes(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (uint64_t)st.st_size;
}

/* The disk ends at one place of a commit after the other, from its first byte to
 * behind its last: nothing half is ever there, and the next turn with room goes in. */
static void a_full_disk_leaves_nothing_half_written(void **state)
{
	struct place *p = *state;
	unsigned failed = 0, succeeded = 0, cuts = effort(30);
	uint64_t turns = 0, turn_bytes;
	char wal[160];

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(place_open(p), HISTORY_OK);
	add_machine(p->h, "a");
	place_commit(p);
	snprintf(wal, sizeof(wal), "%s-wal", p->path);
	turn_bytes = file_bytes(wal);
	append_wide_turn(p, 1 + turns * 200);
	place_commit(p);
	turns++;
	turn_bytes = file_bytes(wal) - turn_bytes;
	for (uint64_t cut = 0; succeeded < 2; cut += turn_bytes / cuts) {
		int error;

		assert_true(cut < 4 * turn_bytes);
		append_wide_turn(p, 1 + turns * 200);
		limit_file_size(file_bytes(wal) + cut);
		error = history_commit(p->h, p->err, sizeof(p->err));
		limit_file_size(0);
		if (error) {
			if (error != HISTORY_FULL)
				fail_msg("%d: %s", error, p->err);
			failed++;
		} else {
			succeeded++;
			turns++;
		}
		check_whole(p, turns);
		append_wide_turn(p, 1 + turns * 200);
		place_commit(p);
		check_whole(p, ++turns);
	}
	assert_true(failed >= cuts / 2);
	place_close(p);
	assert_int_equal(place_open(p), HISTORY_OK);
	check_whole(p, turns);
	assert_int_equal(place_ask(p, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"),
			 1);
}

/* A key that SQLite made is not the one meant when someone else has written: nothing of
 * that turn stays. */
static void a_key_that_is_not_the_one_meant_fails_the_turn(void **state)
{
	struct place *p = *state;

	assert_int_equal(place_open(p), HISTORY_OK);
	add_machine(p->h, "a");
	append_alloc(p->h, 1, 1, 100, 2, 1);
	place_commit(p);
	write_file(p, "INSERT INTO event_rows(id, kind) VALUES(1000, 1)");
	append_alloc(p->h, 1, 2, 101, 2, 1);
	assert_int_equal(history_commit(p->h, p->err, sizeof(p->err)), HISTORY_CORRUPT);
	assert_int_equal(place_ask(p, "SELECT count(*) FROM ops"), 1);
	write_file(p, "DELETE FROM event_rows WHERE id = 1000");
	append_alloc(p->h, 1, 2, 101, 2, 1);
	place_commit(p);
	assert_int_equal(place_ask(p, "SELECT count(*) FROM ops"), 2);
	assert_int_equal(place_ask(p, "SELECT max(pfn) FROM event_alloc WHERE op = 2"), 101);
}

/* An op's row holds the number of its first event in 39 bits. */
static void there_is_an_end_to_the_numbers_of_events(void **state)
{
	struct place *p = *state;

	assert_int_equal(place_open(p), HISTORY_OK);
	add_machine(p->h, "a");
	place_commit(p);
	place_close(p);
	write_file(p, "INSERT INTO event_rows(id, kind) VALUES((1 << 39) - 2, 1)");
	assert_int_equal(place_open(p), HISTORY_OK);
	append_alloc(p->h, 1, 1, 100, 2, 1);
	place_commit(p);
	assert_int_equal(place_ask(p, "SELECT first_event FROM ops"), (INT64_C(1) << 39) - 1);
	assert_int_equal(place_ask(p, "SELECT pfn FROM event_alloc"), 100);
	append_alloc(p->h, 1, 2, 101, 2, 1);
	assert_int_equal(history_commit(p->h, p->err, sizeof(p->err)), HISTORY_IO);
	assert_non_null(strstr(p->err, "no room for"));
	assert_int_equal(place_ask(p, "SELECT count(*) FROM ops"), 1);
}

static void a_rare_row_that_fails_fails_the_turn(void **state)
{
	struct place *p = *state;

	assert_int_equal(place_open(p), HISTORY_OK);
	add_machine(p->h, "a");
	history_add_owner(p->h, 1, 1, "x");
	place_commit(p);
	append_alloc(p->h, 1, 1, 100, 2, 1);
	history_add_owner(p->h, 1, 1, "the same number again");
	history_add_owner(p->h, 1, 2, "never seen");
	assert_int_equal(history_commit(p->h, p->err, sizeof(p->err)), HISTORY_IO);
	assert_non_null(strstr(p->err, "UNIQUE"));
	assert_int_equal(place_ask(p, "SELECT count(*) FROM owners"), 1);
	assert_int_equal(place_ask(p, "SELECT count(*) FROM ops"), 0);
	history_add_owner(p->h, 1, 2, "y");
	place_commit(p);
	assert_int_equal(place_ask(p, "SELECT count(*) FROM owners"), 2);
}

/* The daemon is killed, and whoever comes has the log's sums alone to tell what is whole. */
static void a_turn_larger_than_the_cache_is_whole(void **state)
{
	struct place *p = *state, killed;
	uint64_t op = 0;

	assert_int_equal(place_open_without_cache(p), HISTORY_OK);
	add_machine(p->h, "a");
	place_make(&killed);
	for (unsigned turn = 0; turn < 10; turn++) {
		/* Each takes the other's page out of the cache. */
		for (unsigned i = 0; i < 4; i++) {
			history_add_owner(p->h, 1, 1 + 4 * turn + i, "an owner");
			history_add_client(p->h, "a client", 1000);
		}
		for (unsigned i = 0; i < 500; i++)
			append_alloc(p->h, 1, ++op, 1000, 1, 1);
		place_commit(p);
		place_copy_killed(p->path, killed.path);
		assert_int_equal(place_open(&killed), HISTORY_OK);
		assert_int_equal(history_last_op(killed.h, 1), op);
		assert_int_equal(place_ask(&killed, "SELECT count(*) FROM events"), op);
		assert_int_equal(place_ask(&killed, "SELECT count(*) FROM owners"), 4 * (turn + 1));
		assert_int_equal(place_ask(&killed, "SELECT count(*) FROM pragma_integrity_check"
						    " WHERE integrity_check <> 'ok'"),
				 0);
		place_close(&killed);
	}
	place_remove(&killed);
}

static void below_the_reserve_ops_are_refused(void **state)
{
	struct place *p = *state;

	p->options.disk_reserve_bytes = UINT64_MAX;
	assert_int_equal(place_open(p), HISTORY_OK);
	assert_int_equal(history_ready(p->h, p->err, sizeof(p->err)), HISTORY_FULL);
	assert_non_null(strstr(p->err, "reserve"));
	place_close(p);
	p->options.disk_reserve_bytes = 1;
	assert_int_equal(place_open(p), HISTORY_OK);
	assert_int_equal(history_ready(p->h, p->err, sizeof(p->err)), HISTORY_OK);
}

/* ---- the WAL ---- */

/* A process of someone else's that reads and does not end. It tells by a byte when
 * it has begun, and goes when its end of the pipe closes. */
static pid_t start_foreign_reader(struct place *p, int *ret_hold)
{
	int ready[2], hold[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	assert_int_equal(pipe(hold), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		sqlite3 *db;

		close(hold[1]);
		if (sqlite3_open_v2(p->path, &db, SQLITE_OPEN_READONLY, NULL) ||
		    sqlite3_exec(db, "BEGIN; SELECT count(*) FROM ops", NULL, NULL, NULL) ||
		    write(ready[1], "r", 1) != 1)
			_exit(1);
		(void)!read(hold[0], &byte, 1);
		_exit(0);
	}
	close(ready[1]);
	close(hold[0]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	*ret_hold = hold[1];
	return pid;
}

static void a_foreign_reader_at_the_limit_is_named(void **state)
{
	struct place *p = *state;
	uint64_t op = 1;
	int hold, error = HISTORY_OK;
	char number[32];
	pid_t reader;

	p->options.wal_limit_bytes = 1 << 20;
	assert_int_equal(place_open(p), HISTORY_OK);
	add_machine(p->h, "a");
	append_alloc(p->h, 1, op++, 1, 2, 0);
	place_commit(p);
	reader = start_foreign_reader(p, &hold);
	while (op < 100000) {
		error = history_ready(p->h, p->err, sizeof(p->err));
		if (error)
			break;
		for (int i = 0; i < 500; i++)
			append_alloc(p->h, 1, op++, 1, 2, 0);
		place_commit(p);
		history_idle(p->h);
		/* Until the step that it may have begun is over. */
		uv_run(&p->loop, UV_RUN_ONCE);
	}
	assert_int_equal(error, HISTORY_WAL);
	snprintf(number, sizeof(number), "process %d (", (int)reader);
	if (!strstr(p->err, number))
		fail_msg("%s", p->err);
	/* It goes, and all is well. */
	close(hold);
	assert_int_equal(waitpid(reader, NULL, 0), reader);
	while (history_ready(p->h, p->err, sizeof(p->err))) {
		uv_run(&p->loop, UV_RUN_NOWAIT);
		usleep(10000);
	}
	append_alloc(p->h, 1, op++, 1, 2, 0);
	place_commit(p);
	assert_int_equal(place_ask(p, "SELECT count(*) FROM ops"), op - 1);
}

static void the_wal_starts_again_without_readers(void **state)
{
	struct place *p = *state;
	struct stat st;
	char wal[160];
	uint64_t op = 1;

	p->options.wal_limit_bytes = 1 << 20;
	assert_int_equal(place_open(p), HISTORY_OK);
	add_machine(p->h, "a");
	while (op < 100000) {
		assert_int_equal(history_ready(p->h, p->err, sizeof(p->err)), HISTORY_OK);
		for (int i = 0; i < 500; i++)
			append_alloc(p->h, 1, op++, 1, 2, 0);
		place_commit(p);
		history_idle(p->h);
		/* Until the step that it may have begun is over. */
		uv_run(&p->loop, UV_RUN_ONCE);
	}
	snprintf(wal, sizeof(wal), "%s-wal", p->path);
	assert_int_equal(stat(wal, &st), 0);
	assert_true(st.st_size < 1 << 20);
	assert_int_equal(stat(p->path, &st), 0);
	assert_true(st.st_size > 4 << 20);
	place_close(p);
	/* Closing has put everything into the file. */
	assert_int_equal(stat(wal, &st), 0);
	assert_int_equal(st.st_size, 0);
	assert_int_equal(place_ask(p, "SELECT count(*) FROM ops"), op - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	    T(a_fresh_file_is_private_and_ours),
	    T(an_empty_file_becomes_a_history),
	    T(a_file_that_is_not_sqlite_is_left_alone),
	    T(another_programs_database_is_left_alone),
	    T(a_database_without_an_id_is_foreign_too),
	    T(a_newer_history_is_left_alone),
	    T(a_second_daemon_is_refused),
	    T(views_of_another_contract_are_made_anew),
	    T(a_configuration_comes_back_exactly),
	    T(an_id_is_never_reused),
	    T(owners_come_back_in_order),
	    T(ops_come_back_exactly),
	    T(boot_is_no_op_to_replay),
	    T(a_parked_op_is_answered_with_its_completion),
	    T(a_result_is_kept_as_length_and_hash),
	    T(an_op_of_no_machine_fails_the_turn),
	    T(a_full_disk_leaves_nothing_half_written),
	    T(a_key_that_is_not_the_one_meant_fails_the_turn),
	    T(there_is_an_end_to_the_numbers_of_events),
	    T(a_rare_row_that_fails_fails_the_turn),
	    T(a_turn_larger_than_the_cache_is_whole),
	    T(below_the_reserve_ops_are_refused),
	    T(a_foreign_reader_at_the_limit_is_named),
	    T(the_wal_starts_again_without_readers),
	};

	return cmocka_run_group_tests_name("history: the record", tests, NULL, NULL);
}
