/*
 * verify.c - see verify.h.
 *
 * First what the tables say about each other (recorded_verify()), then each machine played
 * again from its making, or from its oldest checkpoint where the ops before are forgotten:
 * each answer has to be the recorded one, and each checkpoint has to be loaded and to have
 * the digest of the machine that has come to its op. The first lie ends it.
 *
 * Of a machine that is forgotten nothing is left to be played, nor of one that has ended and
 * was forked from what is forgotten: they are counted and told, and are no lie.
 */
#include "verify.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rebuild.h"
#include "recorded.h"

enum { CODE_WHOLE = 0, CODE_LIE = 1, CODE_USAGE = 2, CODE_HISTORY = 3 };
/* Ops between two words of progress. */
enum { STEP_OPS = 65536 };

struct verify {
	struct recorded *file;
	struct history_reader *reader;
	struct recorded_machine *machines;
	size_t nr_machines, max_machines;
	bool is_terminal;
	uint64_t ops, checkpoints;
	unsigned forgotten, without_origin; /* machines */
	char lie[512];
};

static int complain(int code, const char *what, const char *why)
{
	fprintf(stderr, "zoned: verify: %s%s%s\n", what, *why ? ": " : "", why);
	return code;
}

static void clear_progress(const struct verify *v)
{
	if (v->is_terminal)
		fprintf(stderr, "\r%70s\r", "");
}

static void show_stage(void *arg, const char *what)
{
	const struct verify *v = arg;

	clear_progress(v);
	if (v->is_terminal)
		fprintf(stderr, "%s ", what);
}

static void show_replay(const struct verify *v, const struct recorded_machine *m, uint64_t op)
{
	if (v->is_terminal)
		fprintf(stderr, "\rreplaying %s: op %" PRIu64 " of %" PRIu64 " ", m->name, op,
			m->last_op);
}

/* ---- one machine ---- */

static bool lie(struct verify *v, const struct recorded_machine *m, const char *what,
		const char *why)
{
	snprintf(v->lie, sizeof v->lie, "machine %" PRIu64 " (%s): %s%s", m->id, m->name, what,
		 why);
	return false;
}

/* Plays on to an op, a step at a time. */
static bool play_to(struct verify *v, const struct recorded_machine *m, struct rebuild *b,
		    uint64_t to)
{
	uint64_t at = b->replica ? replica_op(b->replica) : 0;

	do {
		show_replay(v, m, at);
		at = to - at > STEP_OPS ? at + STEP_OPS : to;
		b->op = at;
		rebuild_run(b, v->reader);
	} while (!b->error && at < to);
	if (!b->error)
		return true;
	return lie(v, m, "it cannot be played again: ", b->why);
}

/* The checkpoint by itself: does it hold the machine whose digest it tells? */
static bool check_loads(struct verify *v, const struct recorded_machine *m,
			const struct history_checkpoint *c)
{
	struct rebuild b = {.machine = m->id, .op = c->op};

	rebuild_run(&b, v->reader);
	replica_free(b.replica);
	if (*b.note)
		return lie(v, m, "the checkpoint ", b.note);
	return !b.error || lie(v, m, "its checkpoint cannot be used: ", b.why);
}

static bool check_checkpoint(struct verify *v, const struct recorded_machine *m,
			     const struct history_checkpoint *c, struct rebuild *b)
{
	struct engine_digest digest;
	char which[64];

	v->checkpoints++;
	if (!check_loads(v, m, c) || !play_to(v, m, b, c->op))
		return false;
	digest = replica_digest(b->replica);
	if (memcmp(&digest, &c->digest, sizeof digest) == 0)
		return true;
	snprintf(which, sizeof which, "the checkpoint at op %" PRIu64, c->op);
	return lie(v, m, which, " is not the machine that its ops lead to");
}

struct list {
	struct history_checkpoint *items; /* oldest last */
	size_t nr;
};

/* A machine's checkpoints up to its last op. False: they cannot be read. */
static bool list_checkpoints(struct verify *v, const struct recorded_machine *m, uint64_t last,
			     struct list *ret)
{
	struct history_checkpoint c;
	uint64_t *parked, op = last;

	for (;;) {
		if (history_reader_checkpoint(v->reader, m->id, op, &c, &parked))
			return lie(v, m, "its checkpoints cannot be read", "");
		if (!c.machine)
			return true;
		free(parked);
		c.parked = NULL;
		ret->items = realloc(ret->items, (ret->nr + 1) * sizeof *ret->items);
		if (!ret->items)
			abort();
		ret->items[ret->nr++] = c;
		if (!c.op)
			return true;
		op = c.op - 1;
	}
}

/* From the making on; where that is forgotten, from the oldest checkpoint. True without a
 * replica: there is nothing to begin with, and no lie in that. */
static bool begin(struct verify *v, const struct recorded_machine *m, uint64_t first_op,
		  const struct list *l, struct rebuild *b)
{
	if (m->ended && first_op > 1 && !l->nr && m->last_op < first_op) {
		v->forgotten++;
		return true;
	}
	b->machine = m->id;
	b->op = m->forked_at_op;
	b->from_start = true;
	rebuild_run(b, v->reader);
	if (b->error == MACHINE_E_PRUNED || (first_op > 1 && l->nr)) {
		replica_free(b->replica);
		*b = (struct rebuild){.machine = m->id,
				      .op = l->nr ? l->items[l->nr - 1].op : m->last_op};
		rebuild_run(b, v->reader);
	}
	if (b->error == MACHINE_E_PRUNED && m->ended && first_op == 1) {
		v->without_origin++;
		return true;
	}
	return !b->error || lie(v, m, "it cannot be played again: ", b->why);
}

/* The last op that there is to come to, and the first that is kept. */
static bool find_ends(struct verify *v, const struct recorded_machine *m, uint64_t *ret_first,
		      uint64_t *ret_last)
{
	struct engine_config config;
	struct history_machine kept;

	if (history_reader_machine(v->reader, m->id, &config, &kept) || !kept.id)
		return lie(v, m, "it cannot be read", "");
	*ret_first = kept.first_op;
	*ret_last = kept.first_op - 1;
	if (*ret_last < m->forked_at_op)
		*ret_last = m->forked_at_op;
	if (*ret_last < m->last_op)
		*ret_last = m->last_op;
	return true;
}

static bool check_machine(struct verify *v, const struct recorded_machine *m)
{
	uint64_t first, last, from;
	struct rebuild b = {0};
	struct list l = {0};
	bool ok = find_ends(v, m, &first, &last) && list_checkpoints(v, m, last, &l) &&
		  begin(v, m, first, &l, &b);

	if (!b.replica)
		goto out;
	from = replica_op(b.replica);
	for (size_t i = l.nr; i-- > 0 && ok;)
		ok = check_checkpoint(v, m, &l.items[i], &b);
	ok = ok && play_to(v, m, &b, last);
	if (ok)
		v->ops += last - from;
out:
	replica_free(b.replica);
	free(l.items);
	return ok;
}

/* ---- all of it ---- */

static bool take_machine(void *arg, const struct recorded_machine *m)
{
	struct verify *v = arg;

	if (v->nr_machines == v->max_machines) {
		v->max_machines = v->max_machines * 2 + 16;
		v->machines = realloc(v->machines, v->max_machines * sizeof *v->machines);
		if (!v->machines)
			abort();
	}
	v->machines[v->nr_machines++] = *m;
	return true;
}

static int check_history(struct verify *v)
{
	int error = recorded_verify(v->file, show_stage, v, v->lie, sizeof v->lie);

	if (!error)
		error = recorded_machines(v->file, take_machine, v, v->lie, sizeof v->lie);
	if (!error)
		error = recorded_reader(v->file, &v->reader, v->lie, sizeof v->lie);
	for (size_t i = 0; i < v->nr_machines && !error; i++)
		if (!check_machine(v, &v->machines[i]))
			error = HISTORY_CORRUPT;
	clear_progress(v);
	if (error == HISTORY_CORRUPT) {
		puts(v->lie);
		return CODE_LIE;
	}
	if (error)
		return complain(CODE_HISTORY, v->lie, "");
	printf("whole: %zu machines, %" PRIu64 " ops replayed, %" PRIu64 " checkpoints\n",
	       v->nr_machines, v->ops, v->checkpoints);
	if (v->forgotten)
		printf("%u machines that have ended are forgotten\n", v->forgotten);
	if (v->without_origin)
		printf("%u forks that have ended were not replayed: what they came from is "
		       "forgotten\n",
		       v->without_origin);
	return CODE_WHOLE;
}

static void print_help(void)
{
	printf("zoned verify - is a history whole, and the truth?\n\n"
	       "usage: zoned verify --history FILE\n\n"
	       "  --history FILE       the history; $ZONED_HISTORY if not given\n\n"
	       "Looked at are the file itself, the numbers of the ops, payloads, ends of parked\n"
	       "ops and events; then every machine is played again, has to answer as recorded,\n"
	       "and to come to what its checkpoints hold. The first lie is printed. What events\n"
	       "say is compared by `replay`. No daemon is needed, and one that uses the history\n"
	       "goes on.\n\n"
	       "exit codes: %d whole; %d a lie was found; %d the command line is wrong; %d the "
	       "history\ncannot be read\n",
	       CODE_WHOLE, CODE_LIE, CODE_USAGE, CODE_HISTORY);
}

int verify_command(int argc, char **argv)
{
	static const struct option options[] = {
	    {"history", required_argument, NULL, 'H'}, {"help", no_argument, NULL, 'h'}, {0}};
	struct verify v = {.is_terminal = isatty(STDERR_FILENO)};
	const char *path = getenv("ZONED_HISTORY");
	char err[512] = "";
	int key, error, code;

	optind = 0;
	while ((key = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (key) {
		case 'H': path = optarg; break;
		case 'h': print_help(); return CODE_WHOLE;
		default: return CODE_USAGE; /* getopt has said why */
		}
	}
	if (optind < argc)
		return complain(CODE_USAGE, "do not know what to do with", argv[optind]);
	if (!path || !*path)
		return complain(CODE_USAGE, "which history? Give --history FILE", "");
	error = recorded_open(path, &v.file, err, sizeof err);
	if (error)
		return complain(CODE_HISTORY, path, err);
	code = check_history(&v);
	history_reader_close(v.reader);
	recorded_close(v.file);
	free(v.machines);
	return code;
}
