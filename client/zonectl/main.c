/*
 * main.c - zonectl: finds the command, connects when one needs it, explains failures.
 *
 * Commands are this file's table, and after it every op and every inspection of the
 * contract by its word.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "zonectl.h"

enum { DEFAULT_TIMEOUT_MS = 30000 };

static int ping_command(struct ctl *ctl, int argc, char **argv);
static int health_command(struct ctl *ctl, int argc, char **argv);
static int help_command(struct ctl *ctl, int argc, char **argv);
static int version_command(struct ctl *ctl, int argc, char **argv);

static const struct command {
	const char *word;
	int (*run)(struct ctl *ctl, int argc, char **argv);
	const char *help;
} commands[] = {
    {"machine", machine_command, "create, fork, list, get, destroy, revive, check, digest"},
    {"kernel", kernel_command, "a kernel machine of your own, to watch it with gdb"},
    {"pipe", pipe_command, "ops from JSON lines, pipelined, results as JSON lines"},
    {"run", run_command, "run a Lua script"},
    {"shell", shell_command, "the same line by line, with completion"},
    {"lesson", lesson_command, "scripts to learn from: list, run, show"},
    {"import", import_command, "replay an ftrace of a real Linux's allocator"},
    {"sql", sql_command, "ask the history"},
    {"replay", replay_command, "play a recorded machine again, as it was or as it might have been"},
    {"history", history_command, "verify, export, compact: look after the file of a history"},
    {"tail", tail_command, "follow ops and events as they happen"},
    {"top", top_command, "a machine at work, live"},
    {"map", map_command, "draw a machine's memory and address space"},
    {"report", report_command, "a machine's history as one page, with plots"},
    {"explain", explain_command, "what an op, event, status, flag or column means"},
    {"completion", completion_command, "completion for bash, zsh and fish"},
    {"ping", ping_command, "time a round trip to the daemon"},
    {"health", health_command, "is the daemon serving?"},
    {"help", help_command, "help [COMMAND]"},
    {"version", version_command, "print the version"},
};
enum { NR_COMMANDS = sizeof commands / sizeof *commands };

/* ---- connection ---- */

int ctl_connect(struct ctl *ctl)
{
	char err[512];
	int rc;

	if (ctl->z)
		return EXIT_DONE;
	rc = zoned_connect(&ctl->options, &ctl->z, err, sizeof err);
	if (!rc)
		return EXIT_DONE;
	if (rc == ZONED_ARGUMENT)
		return usage_error("%s", err);
	complain("%s\nIs the daemon running? Start it with `zoned`, or name another one with "
		 "--address\nor $ZONED_ADDRESS.",
		 err);
	return EXIT_UNREACHABLE;
}

int ctl_need_machine(const struct ctl *ctl, const char *command)
{
	if (ctl->machine && *ctl->machine)
		return EXIT_DONE;
	return usage_error("%s: which machine? Give -m NAME or set $ZONED_MACHINE; "
			   "`zonectl machine list` names them",
			   command);
}

void ctl_machine_hint(struct ctl *ctl, const char *name, char *to, size_t size)
{
	Zoned__V1__ListRequest request = ZONED__V1__LIST_REQUEST__INIT;
	const Zoned__V1__ListResponse *list;
	struct suggestion s = {.word = name};
	ProtobufCMessage *reply;
	bool there = false;
	size_t i;

	*to = '\0';
	if (zoned_call(ctl->z, "/zoned.v1.Machines/List", &request.base,
		       &zoned__v1__list_response__descriptor, ctl->timeout_ms, &reply))
		return;
	list = (const Zoned__V1__ListResponse *)reply;
	for (i = 0; i < list->n_machines; i++) {
		there = there || strcmp(list->machines[i]->name, name) == 0;
		suggest(&s, list->machines[i]->name);
	}
	/* Else it is something of that machine's that was not found. */
	if (!there && !list->n_machines)
		snprintf(to, size, "There is no machine yet: zonectl machine create %.80s --ram 2G",
			 name);
	else if (!there)
		snprintf(to, size, "%s%s%s`zonectl machine list` names the machines.",
			 s.nearest ? "Did you mean " : "", s.nearest ? s.nearest : "",
			 s.nearest ? "? " : "");
	message_free(reply);
}

int ctl_failed(struct ctl *ctl, const char *what, int code)
{
	char why[512], hint[256] = "";

	snprintf(why, sizeof why, "%s", zoned_error(ctl->z));
	if (code == ZONED_NOT_FOUND && ctl->machine)
		ctl_machine_hint(ctl, ctl->machine, hint, sizeof hint);
	if (code == ZONED_UNAUTHENTICATED)
		snprintf(hint, sizeof hint,
			 "Give the daemon's token with --token-file or $ZONED_TOKEN_FILE.");
	complain("%s: %s: %s%s%s", what, zoned_code_name(code), why, *hint ? "\n" : "", hint);
	return code == ZONED_UNREACHABLE || code == ZONED_LOST ? EXIT_UNREACHABLE : EXIT_REFUSED;
}

int ctl_call(struct ctl *ctl, const char *what, const char *method, const ProtobufCMessage *request,
	     const ProtobufCMessageDescriptor *reply_type, ProtobufCMessage **ret_reply)
{
	int rc = ctl_connect(ctl);

	if (rc != EXIT_DONE)
		return rc;
	rc = zoned_call(ctl->z, method, request, reply_type, ctl->timeout_ms, ret_reply);
	return rc ? ctl_failed(ctl, what, rc) : EXIT_DONE;
}

/* ---- ping, health, version ---- */

/* A command without flags and words of its own. */
static int parse_bare(struct ctl *ctl, const char *command, const char *help, int argc, char **argv)
{
	struct args a;
	int rc = args_parse(ctl, command, argc, argv, NULL, 0, &a);

	if (rc != EXIT_DONE)
		return rc;
	rc = args_limit_words(&a, command, 0);
	args_free(&a);
	if (ctl->help) {
		printf("zonectl %s - %s\n\n", command, help);
		print_flags("flags:", global_flags, nr_global_flags);
	}
	return rc;
}

static int ping_command(struct ctl *ctl, int argc, char **argv)
{
	enum { COUNT = 10 };
	static const struct flag flags[] = {{"count", 'n', "N", "how many; default 10"}};
	struct args a;
	uint64_t count = COUNT, i;
	int rc = args_parse(ctl, "ping", argc, argv, flags, 1, &a);

	if (rc != EXIT_DONE)
		return rc;
	if (args_has(&a, "count") && !number_parse(args_text(&a, "count"), false, &count))
		rc = usage_error("ping: --count %s is not a number", args_text(&a, "count"));
	args_free(&a);
	if (ctl->help) {
		printf("zonectl ping - time a round trip to the daemon (its health check)\n\n"
		       "usage: zonectl ping [--count N]\n\n");
		print_flags("flags:", flags, 1);
		return EXIT_DONE;
	}
	if (rc == EXIT_DONE)
		rc = ctl_connect(ctl);
	for (i = 0; rc == EXIT_DONE && i < count; i++) {
		uint64_t before = monotonic_ns();
		bool serving;
		int code = zoned_health(ctl->z, "", ctl->timeout_ms, &serving);

		if (code)
			rc = ctl_failed(ctl, "ping", code);
		else
			printf("%s: %s, %.1f us\n", zoned_address(ctl->z),
			       serving ? "serving" : "not serving",
			       (double)(monotonic_ns() - before) / 1e3);
	}
	return rc;
}

static int health_command(struct ctl *ctl, int argc, char **argv)
{
	bool serving;
	int rc = parse_bare(ctl, "health", "0 when the daemon is serving, 4 when it is not yet",
			    argc, argv);

	if (rc != EXIT_DONE || ctl->help)
		return rc;
	rc = ctl_connect(ctl);
	if (rc != EXIT_DONE)
		return rc;
	rc = zoned_health(ctl->z, "", ctl->timeout_ms, &serving);
	if (rc)
		return ctl_failed(ctl, "health", rc);
	if (ctl->json)
		printf("{\"serving\":%s}\n", serving ? "true" : "false");
	else
		printf("%s\n", serving ? "serving" : "not serving");
	return serving ? EXIT_DONE : EXIT_REFUSED;
}

static int version_command(struct ctl *ctl, int argc, char **argv)
{
	int rc = parse_bare(ctl, "version", "print the version", argc, argv);

	if (rc == EXIT_DONE && !ctl->help)
		printf("zonectl %s\n", ZONED_VERSION);
	return rc;
}

/* ---- help ---- */

static void first_sentence(const char *doc)
{
	const char *end = strstr(doc, ". ");

	printf("%.*s\n", end ? (int)(end - doc + 1) : (int)strlen(doc), doc);
}

static void help_all(void)
{
	unsigned i;

	printf("zonectl - asks zoned, a memory manager you can talk to\n\n"
	       "usage: zonectl COMMAND [ARGUMENTS]; zonectl COMMAND --help tells more\n\n"
	       "commands:\n");
	for (i = 0; i < NR_COMMANDS; i++)
		printf("  %-18s %s\n", commands[i].word, commands[i].help);
	printf("\nops (each answers with a status, and is kept in the history):\n");
	for (i = 0; i < OP_CODE_END; i++)
		if (contract_ops[i].code) {
			printf("  %-18s ", contract_ops[i].word);
			first_sentence(*contract_ops[i].doc ? contract_ops[i].doc
							    : contract_ops[i].name);
		}
	printf("\ninspections (look, change nothing, leave no trace):\n");
	for (i = 0; i < contract_nr_inspections; i++) {
		printf("  %-18s ", contract_inspections[i].word);
		first_sentence(contract_inspections[i].doc);
	}
	printf("\n");
	print_flags("flags of every command:", global_flags, nr_global_flags);
	printf("\nexit codes:\n"
	       "  0  done\n"
	       "  1  an op answered with a status other than OK\n"
	       "  2  the command line, or a line of the input, is wrong\n"
	       "  3  the daemon cannot be reached, or the connection was lost\n"
	       "  4  the daemon answered with a gRPC error, or is not serving\n"
	       "  5  machine check found something that does not add up\n"
	       "  6  a local file could not be read or written\n"
	       "\nenvironment:\n"
	       "  ZONED_ADDRESS      the daemon; without it $XDG_RUNTIME_DIR/zoned.sock, or\n"
	       "                     /run/zoned/zoned.sock\n"
	       "  ZONED_MACHINE      the machine of commands without -m\n"
	       "  ZONED_TOKEN_FILE   holds the token for TCP\n"
	       "  PAGER              shows what is longer than the screen; cat: none\n"
	       "  NO_COLOR           no colours, if it is set to anything\n"
	       "  COLUMNS            the width of drawings and folded text\n");
}

static const struct command *command_by_word(const char *word)
{
	unsigned i;

	for (i = 0; i < NR_COMMANDS; i++)
		if (strcmp(commands[i].word, word) == 0)
			return &commands[i];
	return NULL;
}

void commands_each(name_fn *fn, void *arg)
{
	unsigned i;

	for (i = 0; i < NR_COMMANDS; i++)
		fn(arg, commands[i].word, commands[i].help);
	for (i = 0; i < OP_CODE_END; i++)
		if (contract_ops[i].code)
			fn(arg, contract_ops[i].word, contract_ops[i].doc);
	for (i = 0; i < contract_nr_inspections; i++)
		fn(arg, contract_inspections[i].word, contract_inspections[i].doc);
}

static int dispatch(struct ctl *ctl, const char *word, int argc, char **argv)
{
	const struct contract_inspection *i = inspection_by_word(word);
	const struct contract_op *op = op_by_word(word);
	const struct command *c = command_by_word(word);
	struct suggestion s = {.word = word};

	if (c)
		return c->run(ctl, argc, argv);
	if (op)
		return op_command(ctl, op, argc, argv);
	if (i)
		return inspect_command(ctl, i, argc, argv);
	commands_each(suggest_name, &s);
	if (s.nearest)
		return usage_error("no command %s; did you mean %s?", word, s.nearest);
	return usage_error("no command %s; `zonectl help` lists them", word);
}

/* `zonectl` and `zonectl --help` and `--version`, without a command. */
static int no_command(struct ctl *ctl, int argc, char **argv)
{
	static const struct flag flags[] = {{"version", 'V', NULL, "print the version"}};
	struct args a;
	int rc = args_parse(ctl, "help", argc, argv, flags, 1, &a);

	if (rc != EXIT_DONE)
		return rc;
	if (args_has(&a, "version"))
		printf("zonectl %s\n", ZONED_VERSION);
	else if (ctl->help)
		help_all();
	else
		rc = usage_error("what shall it do? `zonectl help` lists the commands");
	args_free(&a);
	return rc;
}

static int help_command(struct ctl *ctl, int argc, char **argv)
{
	char *word = args_take_word(&argc, argv);

	if (!word && completing())
		return no_command(ctl, argc, argv);
	ctl->help = true;
	if (word)
		return dispatch(ctl, word, argc, argv);
	help_all();
	return EXIT_DONE;
}

int command_run(struct ctl *ctl, int argc, char **argv)
{
	char *word = args_take_word(&argc, argv);

	return word ? dispatch(ctl, word, argc, argv) : no_command(ctl, argc, argv);
}

int main(int argc, char **argv)
{
	struct ctl ctl = {
	    .machine = getenv("ZONED_MACHINE"),
	    .timeout_ms = DEFAULT_TIMEOUT_MS,
	};
	int rc = command_run(&ctl, argc - 1, argv + 1);

	zoned_close(ctl.z);
	if (fflush(stdout) || ferror(stdout)) {
		fputs("zonectl: cannot write the output\n", stderr);
		if (rc == EXIT_DONE)
			rc = EXIT_FILE;
	}
	return rc;
}
