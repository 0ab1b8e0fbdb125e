/*
 * machine.c - machines: create, fork, list, get, destroy, revive, check, digest.
 *
 * The flags of `machine create` are the integer fields of MachineConfig, read from the
 * contract's tables; what is written here is what a table cannot say: the memory map
 * (dmesg.c reads it from Linux's own words), ranges, splits by name.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dmesg.h"
#include "zonectl.h"

enum { MAX_FLAGS = 40 };

static const struct flag create_flags[] = {
    {"split", 0, "SPLIT", CONTRACT_SPLIT_NAMES ", or the page offset itself; default 3G"},
    {"detail", 0, "NAME", "the same as --events: ops, notable, all"},
    {"e820", 0, "FILE", "the firmware's map, in the words of Linux: [mem 0xA-0xB] usable"},
    {"from-dmesg", 0, "FILE",
     "map, CPUs, PAE and command line of a Linux boot; flags after it override"},
    {"cmdline", 0, "TEXT",
     "mem=, highmem=, vmalloc=, kernelcore=, movablecore= of a kernel; the last two may be in "
     "percent of the RAM given before"},
    {"reserve", 0, "START+SIZE", "RAM kept from the allocator; may be repeated"},
};
enum { NR_CREATE_FLAGS = sizeof create_flags / sizeof *create_flags };

/* ---- machine create ---- */

struct config_flags {
	struct flag flags[MAX_FLAGS];
	unsigned nr;
	char names[MAX_FLAGS][32];
	char helps[MAX_FLAGS][400];
};

static void describe(const struct contract_field *f, char *to, size_t size)
{
	size_t n = (size_t)snprintf(to, size, "%s ", contract_field_doc(f));
	unsigned i;

	for (i = 0; f->kind == FIELD_ENUM && i < f->enums[0]->nr_values && n < size; i++)
		n += (size_t)snprintf(to + n, size - n, "%s%s", i ? ", " : "",
				      f->enums[0]->values[i].name);
}

static void collect_flags(struct config_flags *to)
{
	unsigned i;

	to->nr = 0;
	for (i = 0; i < contract_machine_config.nr_ints; i++) {
		const struct contract_field *f = &contract_machine_config.ints[i];
		char *name = to->names[to->nr], *help = to->helps[to->nr];

		kebab(f->name, name, sizeof to->names[0]);
		describe(f, help, sizeof to->helps[0]);
		to->flags[to->nr++] = (struct flag){name, 0, value_placeholder(f), help};
	}
	for (i = 0; i < NR_CREATE_FLAGS; i++)
		to->flags[to->nr++] = create_flags[i];
}

static int set_split(ProtobufCMessage *config, const char *text)
{
	const struct contract_field *f = fields_find(&contract_machine_config, "page_offset");
	uint64_t value = contract_split(text);

	if (!value && (!number_parse(text, true, &value) || value > UINT32_MAX))
		return usage_error("machine create: --split %s is none of " CONTRACT_SPLIT_NAMES
				   ", and no page offset such as 0xc0000000",
				   text);
	message_set(config, f->number, value);
	return EXIT_DONE;
}

static int set_reserve(Zoned__V1__MachineConfig *config, const char *text)
{
	Zoned__V1__MemoryRange *range;
	char start_text[32];
	const char *plus = strchr(text, '+');
	uint64_t start, size;

	snprintf(start_text, sizeof start_text, "%.*s", plus ? (int)(plus - text) : 0, text);
	if (!plus || !number_parse(start_text, true, &start) ||
	    !number_parse(plus + 1, true, &size))
		return usage_error("machine create: --reserve %s is not START+SIZE, such as "
				   "0x1000000+16M",
				   text);
	config->reserved =
	    must(realloc(config->reserved, (config->n_reserved + 1) * sizeof *config->reserved));
	range = (Zoned__V1__MemoryRange *)message_new(&zoned__v1__memory_range__descriptor);
	range->start = start;
	range->size = size;
	config->reserved[config->n_reserved++] = range;
	return EXIT_DONE;
}

/* One flag, in the order of the command line: the last word stands. */
static int apply(ProtobufCMessage *message, const char *name, const char *text)
{
	Zoned__V1__MachineConfig *config = (Zoned__V1__MachineConfig *)message;
	const struct contract_field *f;
	char err[1024], field[32];
	size_t i;

	if (strcmp(name, "split") == 0)
		return set_split(message, text);
	if (strcmp(name, "reserve") == 0)
		return set_reserve(config, text);
	if (strcmp(name, "e820") == 0)
		return dmesg_read_e820(text, config);
	if (strcmp(name, "from-dmesg") == 0)
		return dmesg_read_boot(text, config);
	if (strcmp(name, "cmdline") == 0)
		return dmesg_apply_cmdline(text, config);
	if ((strcmp(name, "kernelcore") == 0 || strcmp(name, "movablecore") == 0) &&
	    strcmp(text + strspn(text, "0123456789"), "%") == 0) {
		snprintf(err, sizeof err, "%s=%s", name, text);
		return dmesg_apply_cmdline(err, config);
	}
	if (strcmp(name, "detail") == 0)
		name = "events";
	if (strcmp(name, "highmem") == 0 && strcasecmp(text, "off") == 0) {
		config->highmem_off = true;
		return EXIT_DONE;
	}
	snprintf(field, sizeof field, "%s", name);
	for (i = 0; field[i]; i++)
		if (field[i] == '-')
			field[i] = '_';
	f = fields_find(&contract_machine_config, field);
	if (op_set_text(message, f, *text ? text : "yes", err, sizeof err))
		return EXIT_DONE;
	return usage_error("machine create: --%s: %s", name, err);
}

int machine_config_set(ProtobufCMessage *config, const char *name, const char *text)
{
	struct config_flags *flags = must(malloc(sizeof *flags));
	struct suggestion s;
	char word[48];
	unsigned i;
	int rc;

	kebab(name, word, sizeof word);
	s = (struct suggestion){.word = word};
	collect_flags(flags);
	for (i = 0; i < flags->nr && strcmp(flags->flags[i].name, word) != 0; i++)
		suggest(&s, flags->flags[i].name);
	if (i < flags->nr)
		rc = apply(config, word, text);
	else if (s.nearest)
		rc = usage_error("machine create: no %s; did you mean %s?", name, s.nearest);
	else
		rc = usage_error("machine create: no %s; see zonectl machine create --help", name);
	free(flags);
	return rc;
}

static void create_help(const struct config_flags *flags)
{
	printf("zonectl machine create - makes a machine: RAM, zones, an address space\n\n"
	       "usage: zonectl machine create NAME [--ram SIZE | --e820 FILE | --from-dmesg FILE] "
	       "[flags]\n\n"
	       "examples:\n"
	       "  zonectl machine create m0 --ram 2G\n"
	       "  zonectl machine create board --ram 4G --pae --split 3G_OPT --preset linux-6.1\n"
	       "  zonectl machine create copy --from-dmesg dmesg.txt --highmem off\n\n");
	print_flags("flags:", flags->flags, flags->nr);
	print_flags("\nfor every command:", global_flags, nr_global_flags);
}

static void print_machine(struct ctl *ctl, const Zoned__V1__Machine *m);

/* Says how much of the RAM that was asked for the machine cannot use. */
static void note_unused(struct ctl *ctl, const Zoned__V1__Machine *m)
{
	char sql[128], size[16];
	json_int_t unused = 0;
	json_t *answer;

	snprintf(sql, sizeof sql, "SELECT sum(size) FROM event_ram_unused WHERE machine_id = %llu",
		 (unsigned long long)m->id);
	if (sql_rows(ctl, "machine create", sql, 1, &answer) != EXIT_DONE)
		return;
	unused = json_integer_value(
	    json_array_get(json_array_get(json_object_get(answer, "rows"), 0), 0));
	json_decref(answer);
	if (unused)
		complain(
		    "%s of its RAM is out of reach and not used%s; see zonectl explain ram_unused",
		    human_size((uint64_t)unused, size, sizeof size),
		    m->config && !m->config->pae ? ": --pae reaches 64G" : "");
}

static int create(struct ctl *ctl, int argc, char **argv)
{
	Zoned__V1__CreateRequest request = ZONED__V1__CREATE_REQUEST__INIT;
	struct config_flags *flags = must(malloc(sizeof *flags));
	ProtobufCMessage *config = message_new(&zoned__v1__machine_config__descriptor), *reply;
	struct args a = {0};
	unsigned i;
	int rc;

	collect_flags(flags);
	rc = args_parse(ctl, "machine create", argc, argv, flags->flags, flags->nr, &a);
	if (rc != EXIT_DONE)
		goto out;
	if (ctl->help) {
		create_help(flags);
		goto out;
	}
	if (a.nr_words)
		ctl->machine = a.words[0];
	rc = args_limit_words(&a, "machine create", 1);
	if (rc == EXIT_DONE)
		rc = ctl_need_machine(ctl, "machine create");
	for (i = 0; rc == EXIT_DONE && i < a.nr_given; i++)
		rc = apply(config, a.given[i].flag->name, a.given[i].text);
	if (rc != EXIT_DONE)
		goto out;
	request.name = must(strdup(ctl->machine));
	request.config = (Zoned__V1__MachineConfig *)config;
	rc = ctl_call(ctl, "machine create", "/zoned.v1.Machines/Create", &request.base,
		      &zoned__v1__machine__descriptor, &reply);
	free(request.name);
	if (rc == EXIT_DONE) {
		print_machine(ctl, (Zoned__V1__Machine *)reply);
		note_unused(ctl, (Zoned__V1__Machine *)reply);
		message_free(reply);
	}
out:
	message_free(config);
	args_free(&a);
	free(flags);
	return rc;
}

/* ---- what a machine looks like ---- */

static const char *state_name(const Zoned__V1__Machine *m)
{
	const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(
	    &zoned__v1__machine_state__descriptor, (int)m->state);

	return v ? v->name + strlen("MACHINE_") : "?";
}

/* RAM as configured: the size, or the sum of what an e820 map has usable. */
static uint64_t ram_bytes(const Zoned__V1__MachineConfig *config)
{
	uint64_t sum = config->ram;
	size_t i;

	for (i = 0; i < config->n_e820; i++)
		if (config->e820[i]->type == ZONED__V1__E820_ENTRY__TYPE__USABLE)
			sum += config->e820[i]->size;
	return sum;
}

static const char *time_text(int64_t ns, char *to, size_t size)
{
	time_t seconds = (time_t)(ns / 1000000000);
	struct tm tm;

	localtime_r(&seconds, &tm);
	strftime(to, size, "%Y-%m-%d %H:%M:%S", &tm);
	return to;
}

json_t *machine_to_json(const Zoned__V1__Machine *m)
{
	json_t *o = message_to_json(&m->base, NULL);

	if (m->config)
		json_object_set_new(o, "config",
				    message_to_json(&m->config->base, &contract_machine_config));
	return o;
}

/* What is configured other than by default, one line each. */
static void print_config(const Zoned__V1__MachineConfig *config)
{
	char text[512], size[16];
	size_t i;

	for (i = 0; i < contract_machine_config.nr_ints; i++) {
		const struct contract_field *f = &contract_machine_config.ints[i];
		uint64_t value = message_get(&config->base, f->number);

		/* A zero is worth a line only where it is a choice: a preset, a back end. */
		if (value ||
		    (f->kind == FIELD_ENUM && !strstr(enum_name(f->enums[0], 0), "UNCHANGED")))
			printf("  %-16s %s%s%s%s\n", f->name,
			       value_format(f, value, text, sizeof text),
			       strcmp(f->unit, "bytes") ? "" : " (",
			       strcmp(f->unit, "bytes") ? "" : human_size(value, size, sizeof size),
			       strcmp(f->unit, "bytes") ? "" : ")");
	}
	for (i = 0; i < config->n_e820; i++) {
		const Zoned__V1__E820Entry *e = config->e820[i];
		const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(
		    &zoned__v1__e820_entry__type__descriptor, (int)e->type);

		printf("  %-16s [mem 0x%09llx-0x%09llx] %s\n", "e820", (unsigned long long)e->start,
		       (unsigned long long)(e->start + e->size - 1), v ? v->name : "?");
	}
	for (i = 0; i < config->n_reserved; i++)
		printf("  %-16s %#llx+%#llx\n", "reserved",
		       (unsigned long long)config->reserved[i]->start,
		       (unsigned long long)config->reserved[i]->size);
}

static void print_machine(struct ctl *ctl, const Zoned__V1__Machine *m)
{
	char text[64];
	json_t *o;

	if (ctl->json) {
		o = machine_to_json(m);
		json_print(o, stdout);
		json_decref(o);
		return;
	}
	printf("%s: %s, machine %llu, %llu ops", m->name, state_name(m), (unsigned long long)m->id,
	       (unsigned long long)m->ops);
	if (m->parked)
		printf(", %u parked", m->parked);
	if (m->replayed)
		printf(", replayed to op %llu", (unsigned long long)m->replayed);
	if (m->first_op > 1)
		printf(", kept from op %llu on", (unsigned long long)m->first_op);
	printf(", %s of the host's memory", human_size(m->resident_bytes, text, sizeof text));
	printf(", since %s\n", time_text(m->created_ns, text, sizeof text));
	if (*m->reason)
		printf("  %s\n", m->reason);
	if (m->config)
		print_config(m->config);
}

static int print_list(struct ctl *ctl, const Zoned__V1__ListResponse *list)
{
	static const char *const names[] = {"NAME", "ID",   "STATE",  "PRESET",	  "RAM",    "CPUS",
					    "OPS",  "FROM", "PARKED", "RESIDENT", "CREATED"};
	struct table *t;
	size_t i;

	if (ctl->json) {
		json_t *all = json_array();

		for (i = 0; i < list->n_machines; i++)
			json_array_append_new(all, machine_to_json(list->machines[i]));
		json_print(all, stdout);
		json_decref(all);
		return EXIT_DONE;
	}
	t = table_new(11, names);
	for (i = 0; i < list->n_machines; i++) {
		const Zoned__V1__Machine *m = list->machines[i];
		const Zoned__V1__MachineConfig *c = m->config;
		const char *preset =
		    c ? enum_name(contract_enum_by_name("Preset"), c->preset) : NULL;
		char id[24], ram[16], cpus[16], ops[48], from[24], parked[16], resident[16],
		    created[32];

		snprintf(id, sizeof id, "%llu", (unsigned long long)m->id);
		snprintf(cpus, sizeof cpus, "%u", c && c->cpus ? c->cpus : 1);
		if (m->state == ZONED__V1__MACHINE_STATE__MACHINE_RECOVERING)
			snprintf(ops, sizeof ops, "%llu of %llu", (unsigned long long)m->replayed,
				 (unsigned long long)m->ops);
		else
			snprintf(ops, sizeof ops, "%llu", (unsigned long long)m->ops);
		snprintf(from, sizeof from, "%llu", (unsigned long long)m->first_op);
		snprintf(parked, sizeof parked, "%u", m->parked);
		table_add(t, (const char *const[]){
				 m->name, id, state_name(m), preset ? preset : "?",
				 human_size(c ? ram_bytes(c) : 0, ram, sizeof ram), cpus, ops, from,
				 parked, human_size(m->resident_bytes, resident, sizeof resident),
				 time_text(m->created_ns, created, sizeof created)});
	}
	for (i = 4; i < 10; i++)
		table_align_right(t, (unsigned)i, true);
	table_align_right(t, 1, true);
	table_print(t, stdout);
	table_free(t);
	return EXIT_DONE;
}

/* ---- the others: a name in, a message out ---- */

static int finish_list(struct ctl *ctl, const ProtobufCMessage *reply)
{
	return print_list(ctl, (const Zoned__V1__ListResponse *)reply);
}

static int finish_get(struct ctl *ctl, const ProtobufCMessage *reply)
{
	print_machine(ctl, (const Zoned__V1__Machine *)reply);
	return EXIT_DONE;
}

static int finish_destroy(struct ctl *ctl, const ProtobufCMessage *reply)
{
	(void)reply;
	if (!ctl->json)
		printf("%s is no more; its history stays\n", ctl->machine);
	return EXIT_DONE;
}

static int finish_check(struct ctl *ctl, const ProtobufCMessage *reply)
{
	const Zoned__V1__CheckResponse *r = (const Zoned__V1__CheckResponse *)reply;
	json_t *o;

	if (ctl->json) {
		o = message_to_json(reply, NULL);
		json_print(o, stdout);
		json_decref(o);
	} else if (r->ok) {
		printf("%s: everything adds up after op %llu\n", ctl->machine,
		       (unsigned long long)r->op);
	} else {
		printf("%s: after op %llu: %s\n", ctl->machine, (unsigned long long)r->op, r->lie);
	}
	return r->ok ? EXIT_DONE : EXIT_LIE;
}

static int finish_digest(struct ctl *ctl, const ProtobufCMessage *reply)
{
	const Zoned__V1__DigestResponse *r = (const Zoned__V1__DigestResponse *)reply;
	json_t *o;

	if (ctl->json) {
		o = message_to_json(reply, NULL);
		json_print(o, stdout);
		json_decref(o);
	} else {
		printf("%s %llu\n", r->digest, (unsigned long long)r->op);
	}
	return EXIT_DONE;
}

static const struct subcommand {
	const char *word, *help, *method;
	bool named;
	uint32_t moment; /* the request's field for --at; 0: there is none */
	const ProtobufCMessageDescriptor *request, *reply;
	int (*finish)(struct ctl *ctl, const ProtobufCMessage *reply);
} subcommands[] = {
    {"create", "make a machine", NULL, true, 0, NULL, NULL, NULL},
    {"fork", "a second machine that goes on from here, or from an op", NULL, true, 0, NULL, NULL,
     NULL},
    {"list", "every machine", "/zoned.v1.Machines/List", false, 0,
     &zoned__v1__list_request__descriptor, &zoned__v1__list_response__descriptor, finish_list},
    {"get", "one machine and what it was made from", "/zoned.v1.Machines/Get", true, 0,
     &zoned__v1__get_request__descriptor, &zoned__v1__machine__descriptor, finish_get},
    {"destroy", "end a machine for ever", "/zoned.v1.Machines/Destroy", true, 0,
     &zoned__v1__destroy_request__descriptor, &zoned__v1__destroy_response__descriptor,
     finish_destroy},
    {"revive", "make a lost machine again by replaying its history", "/zoned.v1.Machines/Revive",
     true, 0, &zoned__v1__revive_request__descriptor, &zoned__v1__machine__descriptor, finish_get},
    {"check", "recount everything and name the first lie (exit code 5)", "/zoned.v1.Machines/Check",
     true, 2, &zoned__v1__check_request__descriptor, &zoned__v1__check_response__descriptor,
     finish_check},
    {"digest", "a hash of the machine's whole state", "/zoned.v1.Machines/Digest", true, 2,
     &zoned__v1__digest_request__descriptor, &zoned__v1__digest_response__descriptor,
     finish_digest},
};
enum { NR_SUBCOMMANDS = sizeof subcommands / sizeof *subcommands };

static const struct flag at_flag = AT_FLAG;

/* ---- machine fork ---- */

/* The machine that lives makes its copy: an op of its own. */
static int fork_now(struct ctl *ctl, const char *name)
{
	const struct contract_op_messages *messages = &contract_op_messages[OP_FORK];
	ProtobufCMessage *op = message_new(messages->op), *result, *reply;
	Zoned__V1__GetRequest get = ZONED__V1__GET_REQUEST__INIT;
	int rc;

	message_set_sub(op, 1, context_new(ctl));
	message_set_bytes(op, contract_ops[OP_FORK].args.data->number, name, strlen(name));
	rc = ctl_call(ctl, "machine fork", "/zoned.v1.Memory/Fork", op, messages->result, &result);
	message_free(op);
	if (rc != EXIT_DONE)
		return rc;
	if (op_status(result) != STATUS_OK) {
		complain("machine fork: %s: %s", status_name(op_status(result)), op_detail(result));
		message_free(result);
		return EXIT_NOT_OK;
	}
	message_free(result);
	get.machine = must(strdup(name));
	rc = ctl_call(ctl, "machine fork", "/zoned.v1.Machines/Get", &get.base,
		      &zoned__v1__machine__descriptor, &reply);
	free(get.machine);
	if (rc != EXIT_DONE)
		return rc;
	print_machine(ctl, (Zoned__V1__Machine *)reply);
	message_free(reply);
	return EXIT_DONE;
}

/* Made from the history. */
static int fork_then(struct ctl *ctl, const char *name)
{
	ProtobufCMessage *request = message_new(&zoned__v1__fork_at_request__descriptor), *reply;
	int rc;

	message_set_string(request, 1, ctl->machine);
	message_set_string(request, 2, name);
	message_set_at(request, 3, ctl);
	rc = ctl_call(ctl, "machine fork", "/zoned.v1.Machines/ForkAt", request,
		      &zoned__v1__machine__descriptor, &reply);
	message_free(request);
	if (rc != EXIT_DONE)
		return rc;
	print_machine(ctl, (Zoned__V1__Machine *)reply);
	message_free(reply);
	return EXIT_DONE;
}

static int fork_command(struct ctl *ctl, int argc, char **argv)
{
	const char *name = "";
	struct args a;
	int rc = args_parse(ctl, "machine fork", argc, argv, &at_flag, 1, &a);

	if (rc != EXIT_DONE)
		return rc;
	if (ctl->help) {
		printf(
		    "zonectl machine fork - a second machine that goes on from here, or from an "
		    "op\n\nusage: zonectl machine fork MACHINE NAME [--at OP]\n\n"
		    "Without --at it is an op of MACHINE, which copies what it has touched. With\n"
		    "--at NAME is made from the history, and MACHINE is not touched; it may have\n"
		    "ended.\n\n");
		print_flags("flags:", &at_flag, 1);
		print_flags("\nfor every command:", global_flags, nr_global_flags);
		args_free(&a);
		return EXIT_DONE;
	}
	rc = args_read_at(ctl, &a, "machine fork");
	if (rc == EXIT_DONE)
		rc = args_limit_words(&a, "machine fork", 2);
	if (a.nr_words == 2)
		ctl->machine = a.words[0];
	if (a.nr_words)
		name = a.words[a.nr_words - 1];
	if (rc == EXIT_DONE && (a.nr_words == 0 || !ctl->machine))
		rc = usage_error("machine fork: which machine, and what is the new one called? "
				 "zonectl machine fork MACHINE NAME");
	args_free(&a);
	if (rc == EXIT_DONE && !*name)
		rc = usage_error("machine fork: what is the second one to be called?");
	if (rc != EXIT_DONE)
		return rc;
	return ctl->has_at ? fork_then(ctl, name) : fork_now(ctl, name);
}

static int perform(struct ctl *ctl, const struct subcommand *sub, int argc, char **argv)
{
	char command[32];
	ProtobufCMessage *request, *reply;
	struct args a;
	int rc;

	snprintf(command, sizeof command, "machine %s", sub->word);
	rc = args_parse(ctl, command, argc, argv, &at_flag, sub->moment != 0, &a);
	if (rc != EXIT_DONE)
		return rc;
	if (ctl->help) {
		printf("zonectl %s - %s\n\nusage: zonectl %s%s\n\n", command, sub->help, command,
		       sub->named ? " NAME" : "");
		if (sub->moment)
			print_flags("flags:", &at_flag, 1);
		print_flags("flags:", global_flags, nr_global_flags);
		args_free(&a);
		return EXIT_DONE;
	}
	if (sub->named && a.nr_words)
		ctl->machine = a.words[0];
	rc = args_limit_words(&a, command, sub->named ? 1 : 0);
	if (rc == EXIT_DONE)
		rc = args_read_at(ctl, &a, command);
	args_free(&a);
	if (rc == EXIT_DONE && sub->named)
		rc = ctl_need_machine(ctl, command);
	if (rc != EXIT_DONE)
		return rc;
	request = message_new(sub->request);
	if (sub->named)
		message_set_string(request, 1, ctl->machine);
	if (sub->moment)
		message_set_at(request, sub->moment, ctl);
	rc = ctl_call(ctl, command, sub->method, request, sub->reply, &reply);
	message_free(request);
	if (rc != EXIT_DONE)
		return rc;
	rc = sub->finish(ctl, reply);
	message_free(reply);
	return rc;
}

static void machine_help(void)
{
	unsigned i;

	printf("zonectl machine - machines: made, listed, looked into, ended\n\n"
	       "usage: zonectl machine SUBCOMMAND [NAME] [flags]\n\n");
	for (i = 0; i < NR_SUBCOMMANDS; i++)
		printf("  %-10s %s\n", subcommands[i].word, subcommands[i].help);
}

int machine_command(struct ctl *ctl, int argc, char **argv)
{
	char *word = args_take_word(&argc, argv);
	struct suggestion s = {.word = word};
	struct args a;
	unsigned i;
	int rc;

	if (!word) {
		for (i = 0; completing() && i < NR_SUBCOMMANDS; i++)
			complete_offer(subcommands[i].word, subcommands[i].help);
		rc = args_parse(ctl, "machine", argc, argv, NULL, 0, &a);
		if (rc != EXIT_DONE)
			return rc;
		args_free(&a);
		machine_help();
		return ctl->help ? EXIT_DONE : EXIT_USAGE;
	}
	for (i = 0; i < NR_SUBCOMMANDS; i++) {
		if (strcmp(subcommands[i].word, word) == 0)
			return subcommands[i].method ? perform(ctl, &subcommands[i], argc, argv)
			       : strcmp(word, "fork") == 0 ? fork_command(ctl, argc, argv)
							   : create(ctl, argc, argv);
		suggest(&s, subcommands[i].word);
	}
	if (s.nearest)
		return usage_error("machine: no subcommand %s; did you mean %s?", word, s.nearest);
	return usage_error("machine: no subcommand %s; see zonectl machine --help", word);
}
