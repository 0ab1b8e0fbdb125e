/*
 * command.c - `zoned replay`: reads what is asked, plays it, tells what came of it.
 *
 * Without --set the machine is played as it was recorded, and has to answer as it did.
 * With --set it is a what-if: one machine as recorded and one for each combination of the
 * values that are set, side by side.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend_kernel.h"
#include "check.h"
#include "replay.h"
#include "report.h"
#include "settings.h"
#include "source.h"
#include "whatif.h"

enum { CODE_EQUAL = 0, CODE_DIFFER = 1, CODE_USAGE = 2, CODE_HISTORY = 3, CODE_FAILED = 4 };
enum { MAX_SETTINGS = 16, PROGRESS_NS = 100000000 };

struct request {
	const char *history, *machine, *kernel_image;
	const struct backend_type *backend;
	const char *settings[MAX_SETTINGS];
	unsigned nr_settings;
	uint64_t until;
	bool json;
};

struct play {
	const struct request *request;
	struct source *source;
	uv_loop_t loop;
	uint64_t lost; /* ops recorded LOST since the last other one */
	uint64_t shown_ns;
	bool is_terminal;
	struct engine_error why;
};

static int complain(int code, const char *what, const char *why)
{
	fprintf(stderr, "zoned: replay: %s%s%s\n", what, *why ? ": " : "", why);
	return code;
}

/* ---- progress ---- */

static void show_progress(struct play *p, uint64_t op)
{
	uint64_t now = uv_hrtime(), last = source_last_op(p->source);

	if (!p->is_terminal || now - p->shown_ns < PROGRESS_NS)
		return;
	p->shown_ns = now;
	fprintf(stderr, "\rop %" PRIu64 " of %" PRIu64 " (%u%%) ", op, last,
		(unsigned)(last ? op * 100 / last : 100));
}

static void clear_progress(const struct play *p)
{
	if (p->is_terminal && p->shown_ns)
		fprintf(stderr, "\r%60s\r", "");
}

/* ---- playing ---- */

/* Plays every op with `one`. False: it stopped. Ops that were lost have no effect; those
 * with others behind them take their number, on the machine that is as recorded. */
static bool play_all(struct play *p, struct world *as_recorded,
		     bool (*one)(struct play *p, void *arg, const struct history_record *op),
		     void *arg)
{
	const struct history_record *ops;
	unsigned nr;

	while ((nr = source_read(p->source, &ops)))
		for (unsigned i = 0; i < nr; i++) {
			if (ops[i].status == STATUS_LOST) {
				p->lost++;
				continue;
			}
			for (; p->lost; p->lost--)
				if (!check_fill(as_recorded))
					return false;
			show_progress(p, ops[i].op);
			if (!one(p, arg, &ops[i]))
				return false;
		}
	if (*source_error(p->source))
		snprintf(p->why.text, sizeof p->why.text, "%.190s", source_error(p->source));
	return !*p->why.text;
}

struct same {
	struct world world;
	struct check check;
};

static bool play_same(struct play *p, void *arg, const struct history_record *op)
{
	struct same *s = arg;
	struct engine_op played;

	check_op_of(op, &played);
	if (op->op && !world_execute(&s->world, &played)) {
		snprintf(p->why.text, sizeof p->why.text,
			 "the machine was lost at op %" PRIu64 ": %.120s", op->op,
			 world_reason(&s->world));
		return false;
	}
	return check_op(&s->check, op, &s->world);
}

static void tell_same(const struct play *p, const struct check *c)
{
	const struct request *r = p->request;
	const struct recorded_machine *m = source_machine(p->source);
	/* Op 0 is boot. */
	uint64_t ops = c->compared ? c->compared - 1 : 0;

	if (r->json) {
		json_t *o = json_object();

		json_object_set_new(o, "machine", json_string(m->name));
		json_object_set_new(o, "backend", json_string(r->backend->name));
		json_object_set_new(o, "equal", json_boolean(!c->difference));
		json_object_set_new(o, "ops", json_integer((json_int_t)ops));
		json_object_set_new(o, "events", json_integer((json_int_t)c->events_compared));
		if (c->difference) {
			json_object_set_new(o, "op", json_integer((json_int_t)c->difference_op));
			json_object_set_new(o, "difference", json_string(c->difference));
		}
		json_dumpf(o, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(o);
		return;
	}
	if (c->difference)
		printf("%s", c->difference);
	printf("%s on %s: %" PRIu64 " ops and %" PRIu64 " events as recorded%s\n", m->name,
	       r->nr_settings ? "sim" : r->backend->name, ops, c->events_compared,
	       c->difference ? ", and then the difference above" : "");
	if (r->nr_settings)
		puts("there is nothing to compare a what-if with");
}

static int replay_same(struct play *p)
{
	const struct recorded_machine *m = source_machine(p->source);
	struct same s;
	int code = CODE_EQUAL;

	if (!world_open(&s.world, p->request->backend, &m->config, &p->loop, &p->why))
		return complain(CODE_FAILED, "the machine cannot be made", p->why.text);
	check_begin(&s.check, p->source, strcmp(m->backend, p->request->backend->name) != 0);
	if (!play_all(p, &s.world, play_same, &s))
		code = s.check.difference ? CODE_DIFFER : CODE_FAILED;
	clear_progress(p);
	if (code == CODE_FAILED)
		complain(code, p->why.text, world_reason(&s.world));
	else
		tell_same(p, &s.check);
	check_end(&s.check);
	world_close(&s.world);
	return code;
}

/* ---- what if ---- */

/* The n-th of a setting's values: "split=2G,1G" -> "split=1G". False: it has fewer. */
static bool pick(const char *setting, unsigned n, char to[WHATIF_LABEL])
{
	size_t key = strcspn(setting, "=") + 1, length;
	const char *value = setting + key;

	for (; n; n--) {
		value = strchr(value, ',');
		if (!value)
			return false;
		value++;
	}
	length = strcspn(value, ",");
	memcpy(to, setting, key);
	memcpy(to + key, value, length);
	to[key + length] = '\0';
	return true;
}

/* Adds the world of one combination: of setting i the choice[i]-th value. */
static bool add_world(struct play *p, struct whatif *x, const unsigned *choice)
{
	const struct request *r = p->request;
	struct engine_config config = source_machine(p->source)->config;
	char label[WHATIF_LABEL] = "", one[WHATIF_LABEL];

	for (unsigned i = 0; i < r->nr_settings; i++) {
		pick(r->settings[i], choice[i], one);
		if (!settings_apply(&config, one, &p->why))
			return false;
		if (i)
			strncat(label, " ", sizeof label - strlen(label) - 1);
		strncat(label, one, sizeof label - strlen(label) - 1);
	}
	if (x->nr_worlds == WHATIF_WORLDS) {
		snprintf(p->why.text, sizeof p->why.text, "more than %d combinations of --set",
			 WHATIF_WORLDS);
		return false;
	}
	return whatif_add(x, label, r->backend, &config, &p->why);
}

/* All combinations, the last setting's values fastest. */
static bool add_worlds(struct play *p, struct whatif *x)
{
	const struct request *r = p->request;
	unsigned choice[MAX_SETTINGS] = {0}, i;
	char ignored[WHATIF_LABEL];

	for (;;) {
		if (!add_world(p, x, choice))
			return false;
		for (i = r->nr_settings; i-- > 0;) {
			if (pick(r->settings[i], choice[i] + 1, ignored)) {
				choice[i]++;
				break;
			}
			choice[i] = 0;
		}
		if (i > r->nr_settings)
			return true;
	}
}

static bool play_whatif(struct play *p, void *arg, const struct history_record *op)
{
	return whatif_play(arg, op, &p->why);
}

static void tell_whatif(const struct play *p, const struct whatif *x)
{
	const struct recorded_machine *m = source_machine(p->source);

	if (p->request->json) {
		json_t *o = report_json(x);

		json_object_set_new(o, "machine", json_string(m->name));
		json_dumpf(o, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(o);
		return;
	}
	printf("%s, what if (up to op %" PRIu64 ")\n\n", m->name, source_last_op(p->source));
	report_text(x, stdout);
}

static int replay_whatif(struct play *p)
{
	struct whatif *x = calloc(1, sizeof *x);
	int code = CODE_EQUAL;

	if (!x)
		abort();
	if (!whatif_begin(x, p->source, &p->loop, &p->why) || !add_worlds(p, x)) {
		code = complain(CODE_USAGE, p->why.text, "");
	} else if (!play_all(p, &x->base, play_whatif, x)) {
		clear_progress(p);
		code = x->check.difference ? CODE_DIFFER : CODE_FAILED;
		if (x->check.difference)
			tell_same(p, &x->check);
		else
			complain(code, p->why.text, "");
	} else {
		clear_progress(p);
		whatif_finish(x);
		tell_whatif(p, x);
	}
	whatif_free(x);
	free(x);
	return code;
}

/* ---- the command ---- */

static void print_help(void)
{
	printf("zoned replay - plays a recorded machine again\n\n"
	       "usage: zoned replay --history FILE --machine NAME [flags]\n\n"
	       "No daemon is needed, and one that uses the history is not disturbed.\n\n"
	       "  --history FILE       the history; $ZONED_HISTORY if not given\n"
	       "  -m, --machine NAME   the machine; of those that have ended the latest of this\n"
	       "                       name, or #ID\n"
	       "  --until OP           the last op to play; default all\n"
	       "  --backend NAME       sim (default) or kernel: QEMU\n"
	       "  --kernel-image FILE  default beside the program\n"
	       "  --set KEY=VALUE      what if? May be repeated; with VALUE,VALUE,... every\n"
	       "                       combination is played, side by side (%d at most)\n"
	       "  --json               print JSON\n\n"
	       "Without --set every op must answer as recorded: status, values, data and events;\n"
	       "the first difference is shown. With --set the same ops are played to a machine of\n"
	       "another configuration. What an op names follows what made it there; an op that\n"
	       "names what is not there is skipped. Printed is what changed.\n\n",
	       WHATIF_WORLDS);
	settings_print_help();
	printf("\nexit codes: %d as recorded, or the what-if was played; %d it differs; %d the "
	       "command line is\nwrong; %d the history cannot be read, or has no such machine or "
	       "op; %d a machine cannot be\nmade or was lost\n",
	       CODE_EQUAL, CODE_DIFFER, CODE_USAGE, CODE_HISTORY, CODE_FAILED);
}

enum option_key { KEY_HISTORY = 256, KEY_UNTIL, KEY_BACKEND, KEY_IMAGE, KEY_SET, KEY_JSON };

static const struct option options[] = {
    {"history", required_argument, NULL, KEY_HISTORY},
    {"machine", required_argument, NULL, 'm'},
    {"until", required_argument, NULL, KEY_UNTIL},
    {"backend", required_argument, NULL, KEY_BACKEND},
    {"kernel-image", required_argument, NULL, KEY_IMAGE},
    {"set", required_argument, NULL, KEY_SET},
    {"json", no_argument, NULL, KEY_JSON},
    {"help", no_argument, NULL, 'h'},
    {0},
};

static bool read_backend(struct request *r, const char *name)
{
	static const struct backend_type *const types[] = {&backend_sim, &backend_kernel};

	for (unsigned i = 0; i < sizeof types / sizeof *types; i++)
		if (strcmp(types[i]->name, name) == 0) {
			r->backend = types[i];
			return true;
		}
	return false;
}

static bool read_op(struct request *r, const char *text)
{
	char *end;

	r->until = strtoull(text, &end, 0);
	return *text && !*end && *text != '-' && r->until;
}

/* CODE_EQUAL, or CODE_USAGE after a sentence; *ret_help: help was asked for. */
static int read_request(int argc, char **argv, struct request *r, bool *ret_help)
{
	int key;

	*ret_help = false;
	optind = 0;
	while ((key = getopt_long(argc, argv, "m:jh", options, NULL)) != -1) {
		switch (key) {
		case KEY_HISTORY: r->history = optarg; break;
		case 'm': r->machine = optarg; break;
		case KEY_IMAGE: r->kernel_image = optarg; break;
		case 'j':
		case KEY_JSON: r->json = true; break;
		case 'h': *ret_help = true; return CODE_EQUAL;
		case KEY_UNTIL:
			if (!read_op(r, optarg))
				return complain(CODE_USAGE, "--until is no op number", optarg);
			break;
		case KEY_BACKEND:
			if (!read_backend(r, optarg))
				return complain(CODE_USAGE, "--backend is sim or kernel, not",
						optarg);
			break;
		case KEY_SET:
			if (r->nr_settings == MAX_SETTINGS)
				return complain(CODE_USAGE, "too many --set", optarg);
			if (!strchr(optarg, '=') || strlen(optarg) >= WHATIF_LABEL)
				return complain(CODE_USAGE, "--set wants KEY=VALUE, not", optarg);
			r->settings[r->nr_settings++] = optarg;
			break;
		default: return CODE_USAGE; /* getopt has said why */
		}
	}
	if (optind < argc)
		return complain(CODE_USAGE, "do not know what to do with", argv[optind]);
	if (!r->history || !*r->history)
		return complain(CODE_USAGE, "which history? Give --history FILE", "");
	if (!r->machine || !*r->machine)
		return complain(CODE_USAGE, "which machine? Give --machine NAME", "");
	return CODE_EQUAL;
}

int replay_command(int argc, char **argv)
{
	struct request request = {.history = getenv("ZONED_HISTORY"),
				  .machine = getenv("ZONED_MACHINE"),
				  .backend = &backend_sim};
	struct play p = {.request = &request, .is_terminal = isatty(STDERR_FILENO)};
	struct backend_kernel_options guests = {.loop = &p.loop};
	char err[512] = "";
	bool help;
	int code = read_request(argc, argv, &request, &help);

	if (code)
		return code;
	if (help) {
		print_help();
		return CODE_EQUAL;
	}
	p.source = source_open(request.history, request.machine, request.until, err, sizeof err);
	if (!p.source)
		return complain(CODE_HISTORY, request.history, err);
	guests.image = request.kernel_image;
	uv_loop_init(&p.loop);
	backend_kernel_configure(&guests);
	code = request.nr_settings ? replay_whatif(&p) : replay_same(&p);
	/* Guests are reaped. */
	uv_run(&p.loop, UV_RUN_DEFAULT);
	uv_loop_close(&p.loop);
	source_close(p.source);
	return code;
}
