/*
 * kill_daemon.c - the daemon is killed under load, again and again, and nothing that it
 * acknowledged is lost or done twice.
 *
 *   history_kill_daemon [--kills N] [--seed S] [--clients C] [--daemon PATH]
 *
 * A round is a history of its own: clients (load.h) begin, the daemon is killed some
 * times (SIGKILL) and started again at once, while they go on. Some deaths come right
 * after the start, during recovery, others after some answers, in mid-load, with
 * machines being made, forked and destroyed. Then the clients end, which settles all
 * that was in flight; the daemon is killed once more, and what it left is compared with
 * what the clients were told:
 *
 *  1. Every op that was answered is in the history, once, under the number, with the
 *     arguments and the answer that its client was told; numbers are dense; there is
 *     nothing else but what the daemon decided itself.
 *  2. The model, which is the engine in this process fed those ops in that order,
 *     gives the same answers, and in the end the same digest as the daemon that comes
 *     back from the history, for each machine. Each machine adds up.
 *  3. Machines whose making, or end, was answered are there, or not.
 *  4. SQLite's own check of the file finds nothing.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <sqlite3.h>
#include <time.h>

#include "daemon.h"
#include "effort.h"
#include "load.h"
#include "place.h"
#include "sim.h"

enum {
	KILLS_PER_ROUND = 20,
	/* Deaths at any moment come this soon after the start, ... */
	DELAY_US_MAX = 120000,
	/* ... and those in mid-load after so many answers at most, and a little. */
	ANSWERS_MAX = 1500,
	LATE_US_MAX = 3000,
};

struct tally {
	uint64_t kills, acknowledged, found, missing, duplicated, own, machines;
};

static uint64_t seed;

/* ---- the ledger, machine by machine ---- */

/* An op and whose it is. */
struct entry {
	const struct load_op *op;
	const struct load_client *client;
};

static int by_machine_and_number(const void *a, const void *b)
{
	const struct load_op *x = ((const struct entry *)a)->op, *y = ((const struct entry *)b)->op;

	if (x->machine != y->machine)
		return x->machine < y->machine ? -1 : 1;
	return x->number < y->number ? -1 : x->number > y->number;
}

struct ledger {
	struct entry *entries;
	size_t nr;
};

static struct ledger ledger_make(const struct load *load)
{
	struct ledger l = {0};
	size_t nr = 0;

	for (unsigned i = 0; i < load->nr_clients; i++)
		nr += load->clients[i].nr_ops;
	l.entries = calloc(nr + 1, sizeof *l.entries);
	if (!l.entries)
		load_fail("no memory");
	for (unsigned i = 0; i < load->nr_clients; i++) {
		const struct load_client *c = &load->clients[i];

		for (size_t k = 0; k < c->nr_ops; k++) {
			if (!c->ops[k].answered)
				load_fail("%s was not told about its op %zu", c->label, k + 1);
			l.entries[l.nr++] = (struct entry){&c->ops[k], c};
		}
	}
	qsort(l.entries, l.nr, sizeof *l.entries, by_machine_and_number);
	return l;
}

/* The first entry of a machine at or after this number. */
static size_t ledger_find(const struct ledger *l, uint32_t machine, uint64_t number)
{
	struct load_op key = {.machine = machine, .number = number};
	struct entry wanted = {&key, NULL};
	size_t low = 0, high = l->nr;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (by_machine_and_number(&l->entries[middle], &wanted) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* ---- the model ---- */

struct model {
	struct sim *sim; /* NULL: not made yet */
	uint64_t last_op;
	const struct load_client *labels[64]; /* by number, from 1 */
	uint32_t nr_labels;
};

static void on_events(void *user, const struct engine_event *events, u32 nr)
{
	(void)user;
	(void)events;
	(void)nr;
}

static void on_complete(void *user, const struct engine_completion *c)
{
	(void)user;
	(void)c;
}

static const struct sim_hooks hooks = {.events = on_events, .complete = on_complete};

/* The number that the machine gives this client's label. */
static uint32_t model_label(struct model *m, const struct load_client *c)
{
	for (uint32_t i = 1; i <= m->nr_labels; i++)
		if (m->labels[i] == c)
			return i;
	if (m->nr_labels == 63)
		load_fail("more labels than the model has room for");
	m->labels[++m->nr_labels] = c;
	return m->nr_labels;
}

/* ---- comparing ---- */

struct comparison {
	const struct load *load;
	const struct ledger *ledger;
	struct model *models; /* by machine */
	uint32_t machine;
	size_t at; /* in the ledger */
	struct tally *tally;
};

static bool same_op(const struct history_record *r, const struct entry *e)
{
	const struct load_op *op = e->op;

	if (r->op != op->number || r->code != op->code || r->token != e->client->token ||
	    r->sequence != op->sequence || r->status != op->status ||
	    memcmp(r->values, op->values, sizeof r->values))
		return false;
	if (op->code == OP_FORK)
		return true;
	if (memcmp(r->args, op->args, sizeof r->args) || r->data_len != op->data_len)
		return false;
	for (uint32_t i = 0; i < op->data_len; i++)
		if (r->data[i] != (uint8_t)(op->data_seed + i))
			return false;
	return true;
}

static void execute(struct comparison *c, const struct history_record *r)
{
	static uint8_t result_data[ENGINE_MAX_DATA];
	struct model *m = &c->models[c->machine];
	struct engine_op op = {.code = r->code,
			       .cpu = r->cpu,
			       .task = r->task,
			       .owner = r->owner,
			       .data = r->data,
			       .data_len = r->data_len};
	struct engine_result result = {.data = result_data};
	uint32_t nr;

	memcpy(op.args, r->args, sizeof op.args);
	if (sim_execute(m->sim, &op, &result, false) != SIM_DONE)
		load_fail("the model is lost: %s", sim_lost_reason(m->sim));
	sim_take_events(m->sim, &nr);
	if (result.op != r->op || result.status != r->status ||
	    memcmp(result.values, r->values, sizeof r->values))
		load_fail("op %" PRIu64 " of %s (code %u) answered status %u, the model says %u",
			  r->op, c->load->machines[c->machine].name, r->code, r->status,
			  result.status);
	m->last_op = r->op;
}

/* The op was Fork: its machine begins with what this one is now. */
static void copy_model(struct comparison *c, const struct load_op *op)
{
	struct model *from = &c->models[c->machine], *to = &c->models[op->args[0]];

	*to = *from;
	to->sim = sim_copy(from->sim, &hooks);
	if (!to->sim)
		load_fail("no memory");
}

static bool compare_op(void *arg, const struct history_record *r)
{
	struct comparison *c = arg;
	const struct entry *e = &c->ledger->entries[c->at];
	bool in_ledger = c->at < c->ledger->nr && e->op->machine == c->machine;

	if (r->op != c->models[c->machine].last_op + 1)
		load_fail("%s has op %" PRIu64 " behind op %" PRIu64,
			  c->load->machines[c->machine].name, r->op, c->models[c->machine].last_op);
	execute(c, r);
	if (!r->client) {
		c->tally->own++;
		return true;
	}
	/* Answered, and the history does not have it where its answer said. */
	while (in_ledger && e->op->number < r->op) {
		c->tally->missing++;
		e = &c->ledger->entries[++c->at];
		in_ledger = c->at < c->ledger->nr && e->op->machine == c->machine;
	}
	if (!in_ledger || !same_op(r, e)) {
		fprintf(stderr, "op %" PRIu64 " of %s, sequence %" PRIu64 ": nobody was told so\n",
			r->op, c->load->machines[c->machine].name, r->sequence);
		c->tally->duplicated++;
		return true;
	}
	if (r->owner != (e->op->labelled ? model_label(&c->models[c->machine], e->client) : 0))
		load_fail("op %" PRIu64 " has owner %u", r->op, r->owner);
	c->tally->found++;
	c->at++;
	if (r->code == OP_FORK)
		copy_model(c, e->op);
	return true;
}

/* Machines in the order of their making, so that a fork's origin comes before it: up to
 * the Fork alone, then the rest of it behind the copy is no matter. */
static void compare_machine(struct comparison *c, struct history *h, uint32_t machine)
{
	const struct load_machine *m = &c->load->machines[machine];
	struct model *model = &c->models[machine];
	struct engine_error why;

	c->machine = machine;
	if (!model->sim)
		model->sim = sim_new(&m->config, &hooks, &why);
	if (!model->sim)
		load_fail("the model of %s: %s", m->name, why.text);
	c->at = ledger_find(c->ledger, machine, 0);
	if (history_replay(h, m->id, 0, 0, compare_op, c))
		load_fail("the ops of %s cannot be read", m->name);
	for (; c->at < c->ledger->nr && c->ledger->entries[c->at].op->machine == machine; c->at++)
		c->tally->missing++;
}

static bool count_machine(void *arg, const struct history_machine *hm)
{
	const struct load *load = ((struct comparison *)arg)->load;

	for (unsigned i = 0; i < atomic_load(&load->nr_machines); i++)
		if (load->machines[i].id == hm->id && load->machines[i].life != LOAD_ENDED)
			return true;
	load_fail("%s is there, and its end was acknowledged", hm->name);
}

static void check_file(const char *path)
{
	sqlite3_stmt *st;
	sqlite3 *db;

	if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) ||
	    sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &st, NULL) ||
	    sqlite3_step(st) != SQLITE_ROW ||
	    strcmp((const char *)sqlite3_column_text(st, 0), "ok") != 0)
		load_fail("the file is damaged: %s", sqlite3_errmsg(db));
	sqlite3_finalize(st);
	sqlite3_close(db);
}

static void compare_history(struct comparison *c, const struct test_daemon *d)
{
	struct history_options options = {.path = d->history};
	struct history *h;
	char err[256];

	check_file(d->history);
	if (history_open(&options, &h, err, sizeof err))
		load_fail("the history cannot be opened: %s", err);
	for (unsigned i = 0; i < atomic_load(&c->load->nr_machines); i++)
		if (c->load->machines[i].id)
			compare_machine(c, h, i);
	history_machines(h, count_machine, c);
	history_close(h);
}

/* ---- what comes back ---- */

static ProtobufCMessage *ask(struct zoned *z, const char *method, const ProtobufCMessage *request,
			     const ProtobufCMessageDescriptor *type)
{
	ProtobufCMessage *reply;
	int rc = zoned_call(z, method, request, type, ZONED_NO_TIMEOUT, &reply);

	if (rc)
		load_fail("%s: %s", method, zoned_error(z));
	return reply;
}

static void compare_digest(struct zoned *z, const struct load_machine *m, struct model *model)
{
	Zoned__V1__CheckRequest check = ZONED__V1__CHECK_REQUEST__INIT;
	Zoned__V1__DigestRequest digest = ZONED__V1__DIGEST_REQUEST__INIT;
	struct engine_digest want = sim_digest(model->sim);
	ProtobufCMessage *reply;
	char text[40];

	check.machine = digest.machine = (char *)(uintptr_t)m->name;
	reply =
	    ask(z, "/zoned.v1.Machines/Check", &check.base, &zoned__v1__check_response__descriptor);
	if (!((Zoned__V1__CheckResponse *)reply)->ok)
		load_fail("%s does not add up: %s", m->name,
			  ((Zoned__V1__CheckResponse *)reply)->lie);
	protobuf_c_message_free_unpacked(reply, NULL);
	snprintf(text, sizeof text, "%016" PRIx64 "%016" PRIx64, (uint64_t)want.hi,
		 (uint64_t)want.lo);
	reply = ask(z, "/zoned.v1.Machines/Digest", &digest.base,
		    &zoned__v1__digest_response__descriptor);
	if (strcmp(((Zoned__V1__DigestResponse *)reply)->digest, text) != 0)
		load_fail("%s came back as %s, the model is %s", m->name,
			  ((Zoned__V1__DigestResponse *)reply)->digest, text);
	protobuf_c_message_free_unpacked(reply, NULL);
}

static void compare_daemon(struct comparison *c, struct test_daemon *d)
{
	struct zoned *z;

	daemon_start(d);
	daemon_await(d);
	z = daemon_connect(d);
	for (unsigned i = 0; i < atomic_load(&c->load->nr_machines); i++) {
		if (c->load->machines[i].life != LOAD_ALIVE)
			continue;
		compare_digest(z, &c->load->machines[i], &c->models[i]);
		c->tally->machines++;
	}
	zoned_close(z);
}

static void compare(const struct load *load, struct test_daemon *d, struct tally *tally)
{
	unsigned nr = atomic_load(&load->nr_machines);
	struct ledger ledger = ledger_make(load);
	struct comparison c = {.load = load,
			       .ledger = &ledger,
			       .models = calloc(nr, sizeof(struct model)),
			       .tally = tally};

	if (!c.models)
		load_fail("no memory");
	tally->acknowledged += ledger.nr;
	compare_history(&c, d);
	if (!tally->missing && !tally->duplicated)
		compare_daemon(&c, d);
	for (unsigned i = 0; i < nr; i++)
		if (c.models[i].sim)
			sim_free(c.models[i].sim);
	free(c.models);
	free(ledger.entries);
}

/* ---- killing ---- */

static void pause_us(uint64_t us)
{
	nanosleep(&(struct timespec){(time_t)(us / 1000000), (long)(us % 1000000) * 1000}, NULL);
}

/* Every other death is at any moment, the rest in mid-load for certain. */
static void await_moment(const struct test_daemon *daemon, struct load *load, uint64_t *state)
{
	unsigned long answered = atomic_load(&load->answered);
	unsigned long wanted = 1 + random_next(state) % ANSWERS_MAX;

	if (random_next(state) % 2) {
		pause_us(random_next(state) % DELAY_US_MAX);
		return;
	}
	while (atomic_load(&load->answered) - answered < wanted) {
		daemon_expect_running(daemon);
		pause_us(500);
	}
	pause_us(random_next(state) % LATE_US_MAX);
}

static void play_round(const char *program, unsigned clients, uint64_t kills, uint64_t *state,
		       struct tally *tally)
{
	static struct load load;
	struct test_daemon daemon;

	daemon_make(&daemon, program);
	daemon_start(&daemon);
	daemon_await(&daemon);
	load_start(&load, daemon.address, clients, random_next(state));
	for (uint64_t k = 0; k < kills; k++) {
		await_moment(&daemon, &load, state);
		daemon_kill(&daemon);
		daemon_start(&daemon);
		tally->kills++;
	}
	load_stop(&load);
	daemon_kill(&daemon);
	tally->kills++;
	compare(&load, &daemon, tally);
	load_free(&load);
	daemon_remove(&daemon);
}

int main(int argc, char **argv)
{
	uint64_t kills = effort(200), state;
	const char *program = ZONED;
	unsigned clients = 5;
	struct tally t = {0};

	for (int i = 1; i + 1 < argc; i += 2) {
		if (strcmp(argv[i], "--kills") == 0)
			kills = strtoull(argv[i + 1], NULL, 0);
		else if (strcmp(argv[i], "--seed") == 0)
			seed = strtoull(argv[i + 1], NULL, 0);
		else if (strcmp(argv[i], "--clients") == 0)
			clients = (unsigned)strtoul(argv[i + 1], NULL, 0);
		else if (strcmp(argv[i], "--daemon") == 0)
			program = argv[i + 1];
		else
			load_fail("unknown option %s; see the head of kill_daemon.c", argv[i]);
	}
	if (clients < 2 || clients > 60)
		load_fail("--clients is from 2 to 60");
	if (!seed)
		seed = random_seed();
	state = seed | 1;
	while (t.kills < kills && !t.missing && !t.duplicated) {
		uint64_t left = kills - t.kills;

		play_round(program, clients,
			   left < KILLS_PER_ROUND ? left - 1 : KILLS_PER_ROUND - 1, &state, &t);
	}
	printf("kills %" PRIu64 ", acknowledged %" PRIu64 ", found %" PRIu64 ", missing %" PRIu64
	       ", duplicated %" PRIu64 ", the daemon's own %" PRIu64 ", machines compared %" PRIu64
	       "\n",
	       t.kills, t.acknowledged, t.found, t.missing, t.duplicated, t.own, t.machines);
	return t.missing || t.duplicated || t.found != t.acknowledged;
}
