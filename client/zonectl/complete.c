/*
 * complete.c - `zonectl completion`: what could stand at the cursor, for shells.
 *
 * There is no second list of commands and flags. The line is given to the command that
 * it names, as ever, but when the command parses its flags (args_parse) the parser offers
 * what fits instead, and the command ends before it does anything. So a new flag, op or
 * enum value completes without a change here.
 */
#include <stdlib.h>
#include <string.h>

#include "zonectl.h"

enum { DAEMON_MS = 1000 }; /* a shell must not hang on a daemon that does not answer */

/* The word under the cursor; NULL: nothing is being completed. */
static const char *partial;
/* What stands before it in the same word, `--flag=`; each offer has to repeat it. */
static const char *before = "";

bool completing(void)
{
	return partial != NULL;
}

void complete_offer(const char *word, const char *help)
{
	const char *end = strstr(help, ". "); /* a sentence is enough */
	int length = (int)(end ? (size_t)(end + 1 - help) : strcspn(help, "\n"));

	if (strncmp(word, partial, strlen(partial)) == 0)
		printf("%s%s\t%.*s\n", before, word, length, help);
}

/* Names of an enum. Of flags joined by '|' the last is completed. */
static void offer_enum(const struct contract_enum *e, bool joined)
{
	const char *bar = joined ? strrchr(partial, '|') : NULL;
	size_t before = bar ? (size_t)(bar + 1 - partial) : 0;
	char word[256];
	unsigned i;

	for (i = 0; i < e->nr_values; i++) {
		snprintf(word, sizeof word, "%.*s%s", (int)before, partial, e->values[i].name);
		complete_offer(word, e->values[i].doc);
	}
}

static void offer_field(const struct contract_field *f)
{
	unsigned i;

	for (i = 0; i < 2 && f->enums[i]; i++)
		offer_enum(f->enums[i], f->is_flags);
}

static void offer_machines(struct ctl *ctl)
{
	Zoned__V1__ListRequest request = ZONED__V1__LIST_REQUEST__INIT;
	const Zoned__V1__ListResponse *list;
	ProtobufCMessage *reply;
	size_t i;

	ctl->timeout_ms = DAEMON_MS;
	if (ctl_call(ctl, "completion", "/zoned.v1.Machines/List", &request.base,
		     &zoned__v1__list_response__descriptor, &reply) == EXIT_DONE) {
		list = (const Zoned__V1__ListResponse *)reply;
		for (i = 0; i < list->n_machines; i++)
			complete_offer(list->machines[i]->name, "a machine");
		message_free(reply);
	}
}

/* The contract's arguments of a command; NULL: it has none of the contract's. */
static const struct contract_fields *fields_of(const char *command)
{
	const struct contract_op *op = op_by_word(command);
	const struct contract_inspection *i = inspection_by_word(command);

	if (strcmp(command, "machine create") == 0)
		return &contract_machine_config;
	return op ? &op->args : i ? &i->args : NULL;
}

/* Words with a '|' or a comma and a blank between them. */
static void offer_words(const char *words, const char *help)
{
	char word[64];

	while (*words) {
		size_t length = strcspn(words, "|, ");

		snprintf(word, sizeof word, "%.*s", (int)length, words);
		complete_offer(word, help);
		words += length + strspn(words + length, "|, ");
	}
}

/* What may stand behind a flag that is not a field of the contract; where its placeholder
 * is words with bars (sim|kernel) it says so itself. */
static void offer_alternatives(const struct flag *flag)
{
	static const char *const known[][2] = {
	    {"split", CONTRACT_SPLIT_NAMES},
	    {"detail", "ops, notable, all"},
	};
	unsigned i;

	if (strchr(flag->value, '|'))
		offer_words(flag->value, flag->help);
	for (i = 0; i < sizeof known / sizeof *known; i++)
		if (strcmp(known[i][0], flag->name) == 0)
			offer_words(known[i][1], flag->help);
}

/* tail --op and --event */
static void offer_kinds(bool ops)
{
	unsigned i;

	for (i = 0; ops && i < OP_CODE_END; i++)
		if (contract_ops[i].code)
			complete_offer(contract_ops[i].word, contract_ops[i].doc);
	for (i = 0; !ops && i < EVENT_KIND_END; i++)
		if (contract_events[i].kind)
			complete_offer(contract_events[i].name, contract_events[i].doc);
}

static void offer_value(struct ctl *ctl, const char *command, const struct flag *flag)
{
	const struct contract_fields *fields = fields_of(command);
	const struct contract_field *f;
	char name[64], *p;

	snprintf(name, sizeof name, "%s", flag->name);
	for (p = name; *p; p++)
		if (*p == '-')
			*p = '_';
	if (strcmp(flag->name, "machine") == 0)
		offer_machines(ctl);
	else if (fields && (f = fields_find(fields, name)))
		offer_field(f);
	else if (strcmp(command, "tail") == 0 &&
		 (strcmp(name, "op") == 0 || strcmp(name, "event") == 0))
		offer_kinds(name[0] == 'o');
	else
		offer_alternatives(flag);
}

static void offer(void *arg, const char *word, const char *help)
{
	(void)arg;
	complete_offer(word, help);
}

/* The nth word without a flag: an op's required arguments may stand there. */
static void offer_word(struct ctl *ctl, const char *command, unsigned nth)
{
	const struct contract_fields *fields = fields_of(command);
	unsigned i;

	if (strcmp(command, "help") == 0)
		commands_each(offer, NULL);
	if (strcmp(command, "explain") == 0)
		explain_each(offer, NULL);
	if (strcmp(command, "lesson") == 0 && nth == 0)
		lessons_each(offer, NULL);
	if (strcmp(command, "completion") == 0 && nth == 0)
		offer_words("bash, zsh, fish", "a shell");
	if (strncmp(command, "machine ", 8) == 0) {
		if (strcmp(command, "machine create") != 0)
			offer_machines(ctl);
		return;
	}
	for (i = 0; fields && i < fields->nr_ints; i++)
		if (fields->ints[i].required && nth-- == 0)
			offer_field(&fields->ints[i]);
}

static void offer_flags(const struct flag *flags, unsigned nr_flags)
{
	char word[80];
	unsigned i;

	for (i = 0; i < nr_flags; i++) {
		snprintf(word, sizeof word, "--%s", flags[i].name);
		complete_offer(word, flags[i].help);
	}
}

void complete_at(struct ctl *ctl, const char *command, const struct flag *flags, unsigned nr_flags,
		 const struct flag *value_of, unsigned nr_words)
{
	const char *assigned = strchr(partial, '=');
	unsigned i;

	if (value_of) {
		offer_value(ctl, command, value_of);
		return;
	}
	/* --flag=value is one word to all shells but bash. */
	if (partial[0] == '-' && assigned) {
		char name[80];

		snprintf(name, sizeof name, "%.*s", (int)(assigned + 1 - partial), partial);
		before = name;
		partial = assigned + 1;
		for (i = 0; i < nr_flags; i++)
			if (strlen(flags[i].name) + 3 == strlen(name) &&
			    strncmp(flags[i].name, name + 2, strlen(name) - 3) == 0)
				offer_value(ctl, command, &flags[i]);
		before = "";
	} else if (partial[0] == '-') {
		offer_flags(flags, nr_flags);
		offer_flags(global_flags, nr_global_flags);
	} else {
		offer_word(ctl, command, nr_words);
	}
}

/* ---- the shells' side ---- */

static const struct {
	const char *shell, *script;
} scripts[] = {
    {"bash", "_zonectl() {\n"
	     "\tlocal IFS=$'\\n'\n"
	     "\tCOMPREPLY=($(zonectl completion -- \"${COMP_WORDS[@]:1:COMP_CWORD}\" "
	     "2>/dev/null | cut -f1))\n"
	     "\tcompopt +o nospace\n"
	     "}\n"
	     "complete -o default -F _zonectl zonectl\n"},
    {"zsh", "#compdef zonectl\n"
	    "_zonectl() {\n"
	    "\tlocal -a offered\n"
	    "\tlocal line\n"
	    "\tfor line in \"${(@f)$(zonectl completion -- \"${(@)words[2,CURRENT]}\" "
	    "2>/dev/null)}\"; do\n"
	    "\t\t[[ -n $line ]] && offered+=(\"${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}\")\n"
	    "\tdone\n"
	    "\tif (( ${#offered} )); then _describe zonectl offered; else _files; fi\n"
	    "}\n"
	    "if [[ $funcstack[1] == _zonectl ]]; then _zonectl \"$@\"; else compdef _zonectl "
	    "zonectl; fi\n"},
    {"fish", "function __zonectl_complete\n"
	     "\tset -l words (commandline -opc) (commandline -ct)\n"
	     "\tset -e words[1]\n"
	     "\tzonectl completion -- $words 2>/dev/null\n"
	     "end\n"
	     "complete -c zonectl -a '(__zonectl_complete)'\n"},
};

static int print_script(const char *shell)
{
	unsigned i;

	for (i = 0; i < sizeof scripts / sizeof *scripts; i++)
		if (strcmp(scripts[i].shell, shell) == 0) {
			fputs(scripts[i].script, stdout);
			return EXIT_DONE;
		}
	return usage_error("completion: %s is none of bash, zsh, fish", shell);
}

static void help(void)
{
	printf("zonectl completion - lets a shell complete commands, flags, values and machines\n\n"
	       "usage: zonectl completion bash|zsh|fish\n"
	       "       zonectl completion -- WORD...\n\n"
	       "The first prints the shell's script. For the running shell:\n\n"
	       "  bash   source <(zonectl completion bash)\n"
	       "  zsh    source <(zonectl completion zsh)\n"
	       "  fish   zonectl completion fish | source\n\n"
	       "The second prints what could stand for the last word, a line each, with a tab\n"
	       "and a description behind it. The scripts use it.\n");
}

/* Bash hands `--flag=value` over as three words, and quotes as they were typed. */
static int without_equals(int argc, char **argv)
{
	int i, n = 0;

	for (i = 0; i < argc; i++)
		if (strcmp(argv[i], "=") != 0)
			argv[n++] = argv[i];
		else if (i + 1 == argc) /* the value is still to come */
			argv[n++] = argv[i] + 1;
	if (n && (argv[n - 1][0] == '"' || argv[n - 1][0] == '\''))
		argv[n - 1]++;
	argv[n] = NULL;
	return n;
}

int completion_command(struct ctl *ctl, int argc, char **argv)
{
	char ignored[512];
	struct args a;
	int rc;

	if (argc > 0 && strcmp(argv[0], "--") == 0) {
		argc = without_equals(argc - 1, argv + 1);
		partial = argc ? argv[argc] : "";
		complain_to(ignored, sizeof ignored);
		if (argc)
			command_run(ctl, argc, argv + 1);
		complain_to(NULL, 0);
		partial = NULL;
		return EXIT_DONE;
	}
	rc = args_parse(ctl, "completion", argc, argv, NULL, 0, &a);
	if (rc != EXIT_DONE)
		return rc;
	rc = args_limit_words(&a, "completion", 1);
	if (ctl->help)
		help();
	else if (rc == EXIT_DONE)
		rc = a.nr_words ? print_script(a.words[0])
				: usage_error("completion: for which shell? bash, zsh, fish");
	args_free(&a);
	return rc;
}
