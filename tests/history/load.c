/*
 * load.c - what the clients do.
 *
 * What a client does follows from its seed and from the answers; where the daemon's
 * death falls does not, so a seed brings back the kind of a failure rather than its
 * very moment.
 */
#define _GNU_SOURCE
#include "load.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "contract_protobuf.h"
#include "contract_tables.h"
#include "place.h"

void load_fail(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

static uint64_t choose(struct load_client *c, uint64_t below)
{
	return random_next(&c->random) % below;
}

/* ---- messages, by their descriptors ---- */

static void *field_at(const ProtobufCMessage *m, unsigned number,
		      const ProtobufCFieldDescriptor **ret_field)
{
	*ret_field = protobuf_c_message_descriptor_get_field(m->descriptor, number);
	return (char *)(uintptr_t)m + (*ret_field)->offset;
}

static void set_integer(ProtobufCMessage *m, unsigned number, uint64_t value)
{
	const ProtobufCFieldDescriptor *f;
	void *at = field_at(m, number, &f);

	if (f->type == PROTOBUF_C_TYPE_UINT64 || f->type == PROTOBUF_C_TYPE_INT64)
		*(uint64_t *)at = value;
	else
		*(uint32_t *)at = (uint32_t)value; /* 32-bit integers, enums and bools */
}

static uint64_t get_integer(const ProtobufCMessage *m, unsigned number)
{
	const ProtobufCFieldDescriptor *f;
	const void *at = field_at(m, number, &f);

	if (f->type == PROTOBUF_C_TYPE_UINT64 || f->type == PROTOBUF_C_TYPE_INT64)
		return *(const uint64_t *)at;
	return *(const uint32_t *)at;
}

/* The op's message; its context says the label and, unless `streamed`, the rest. */
struct message {
	union {
		ProtobufCMessage base;
		uint8_t bytes[256];
	};
	Zoned__V1__OpContext context;
	uint8_t data[LOAD_DATA_MAX];
};

static void make_message(struct message *m, struct load_client *c, const struct load_op *op,
			 bool streamed)
{
	const struct contract_op *info = &contract_ops[op->code];
	const ProtobufCMessageDescriptor *type = contract_op_messages[op->code].op;
	const ProtobufCFieldDescriptor *f;

	if (type->sizeof_message > sizeof m->bytes)
		load_fail("a message of %zu bytes", type->sizeof_message);
	protobuf_c_message_init(type, m->bytes);
	zoned__v1__op_context__init(&m->context);
	if (op->labelled)
		m->context.owner = c->label;
	if (!streamed) {
		m->context.machine = c->load->machines[op->machine].name;
		m->context.token = c->token;
		m->context.sequence = op->sequence;
	}
	*(Zoned__V1__OpContext **)field_at(&m->base, 1, &f) = &m->context;
	for (unsigned i = 0; i < info->args.nr_ints; i++)
		set_integer(&m->base, info->args.ints[i].number, op->args[i]);
	if (!op->data_len)
		return;
	for (uint32_t i = 0; i < op->data_len; i++)
		m->data[i] = (uint8_t)(op->data_seed + i);
	*(ProtobufCBinaryData *)field_at(&m->base, info->args.data->number, &f) =
	    (ProtobufCBinaryData){op->data_len, m->data};
}

static void read_answer(struct load_op *op, const ProtobufCMessage *result)
{
	const struct contract_op *info = &contract_ops[op->code];
	const ProtobufCFieldDescriptor *f;
	const Zoned__V1__Outcome *outcome =
	    *(const Zoned__V1__Outcome *const *)field_at(result, 1, &f);

	op->number = outcome->op;
	op->status = (uint32_t)outcome->status;
	for (unsigned i = 0; i < info->values.nr_ints; i++)
		op->values[i] = get_integer(result, info->values.ints[i].number);
}

/* ---- what a client has ---- */

static void gain(struct load_client *c, const struct load_op *op, uint64_t a, uint64_t b)
{
	if (c->nr_things == sizeof c->things / sizeof c->things[0])
		return;
	c->things[c->nr_things].kind = op->code;
	c->things[c->nr_things].a = a;
	c->things[c->nr_things].b = b;
	c->things[c->nr_things++].machine = op->machine;
}

static void note_answer(struct load_client *c, struct load_op *op)
{
	if (op->answered)
		load_fail("op %llu of %s was answered twice", (unsigned long long)op->sequence,
			  c->label);
	op->answered = true;
	atomic_fetch_add(&c->load->answered, 1);
	if (op->refused || op->status != STATUS_OK)
		return;
	switch (op->code) {
	case OP_ALLOC_PAGES: gain(c, op, op->values[0], op->args[1]); break;
	case OP_KMAP: gain(c, op, op->args[0], 0); break;
	case OP_VMALLOC:
	case OP_TASK_CREATE:
	case OP_FILE_CREATE: gain(c, op, op->values[0], 0); break;
	}
}

/* ---- what it does next ---- */

static struct load_op *new_op(struct load_client *c, uint32_t machine, uint32_t code)
{
	struct load_op *op;

	if (c->nr_ops == c->max_ops) {
		c->max_ops = c->max_ops ? 2 * c->max_ops : 4096;
		c->ops = realloc(c->ops, c->max_ops * sizeof *c->ops);
		if (!c->ops)
			load_fail("no memory");
	}
	op = &c->ops[c->nr_ops++];
	*op = (struct load_op){
	    .machine = machine, .code = code, .sequence = c->nr_ops, .labelled = choose(c, 3) == 0};
	return op;
}

/* Gives back or uses one of its things. */
static void use_thing(struct load_client *c, unsigned i)
{
	uint32_t kind = c->things[i].kind, machine = c->things[i].machine;
	uint64_t a = c->things[i].a, b = c->things[i].b;
	struct load_op *op;

	/* It may use it more than once, or what it gave back: then that is the answer. */
	if (choose(c, 8))
		c->things[i] = c->things[--c->nr_things];
	if (kind == OP_ALLOC_PAGES && choose(c, 4) == 0) {
		op = new_op(c, machine, OP_KMAP);
		op->args[0] = a;
	} else if (kind == OP_ALLOC_PAGES) {
		op = new_op(c, machine, OP_FREE_PAGES);
		op->args[0] = a;
		op->args[1] = b;
	} else if (kind == OP_FILE_CREATE && choose(c, 2)) {
		op = new_op(c, machine, OP_FILE_WRITE);
		op->args[0] = a;
		op->args[1] = choose(c, 20000);
		op->data_len = (uint32_t)(1 + choose(c, LOAD_DATA_MAX));
		op->data_seed = (uint8_t)choose(c, 256);
	} else {
		op = new_op(c, machine,
			    kind == OP_KMAP	     ? OP_KUNMAP
			    : kind == OP_VMALLOC     ? OP_VFREE
			    : kind == OP_TASK_CREATE ? OP_TASK_EXIT
						     : OP_FILE_DELETE);
		op->args[0] = a;
	}
}

static void next_op(struct load_client *c, uint32_t machine)
{
	static const uint32_t gfp[] = {GFP_KERNEL, GFP_HIGHUSER, GFP_HIGHUSER, GFP_DMA};
	struct load_op *op;

	if (c->nr_things && choose(c, 2)) {
		use_thing(c, (unsigned)choose(c, c->nr_things));
		return;
	}
	switch (choose(c, 8)) {
	case 0:
		op = new_op(c, machine, OP_VMALLOC);
		op->args[0] = 1 + choose(c, 40000);
		break;
	case 1: new_op(c, machine, OP_TASK_CREATE); break;
	case 2:
		op = new_op(c, machine, OP_FILE_CREATE);
		op->args[0] = choose(c, 30000);
		break;
	case 3: new_op(c, machine, OP_DRAIN_PCP); break;
	default:
		op = new_op(c, machine, OP_ALLOC_PAGES);
		op->args[0] = gfp[choose(c, 4)];
		op->args[1] = choose(c, 4);
		break;
	}
}

/* ---- clients that stream ---- */

static void on_result(void *user, uint64_t index, const Zoned__V1__Result *result)
{
	struct load_client *c = user;
	struct load_op *op = &c->ops[index];
	const ProtobufCFieldDescriptor *f;

	op->refused = result->code != 0;
	if (result->code)
		load_fail("a stream's op was refused: %s", result->message);
	read_answer(op, *(ProtobufCMessage *const *)field_at(&result->base, op->code, &f));
	note_answer(c, op);
}

static void stream(struct load_client *c, uint32_t machine)
{
	Zoned__V1__OpContext context = ZONED__V1__OP_CONTEXT__INIT;
	struct zoned_run *run;
	struct message m;
	int rc;

	context.machine = c->load->machines[machine].name;
	context.token = c->token;
	rc = zoned_run_open(c->z, &context, on_result, c, &run);
	while (!rc && !atomic_load(&c->load->stop)) {
		for (uint64_t n = 1 + choose(c, 24); !rc && n; n--) {
			next_op(c, machine);
			make_message(&m, c, &c->ops[c->nr_ops - 1], true);
			rc = zoned_run_add(run, c->ops[c->nr_ops - 1].code, &m.base);
		}
		if (!rc)
			rc = zoned_run_flush(run);
		if (!rc)
			rc = zoned_run_wait(run, choose(c, 64), ZONED_NO_TIMEOUT);
	}
	if (!rc)
		rc = zoned_run_finish(run);
	if (rc)
		load_fail("%s: %s", zoned_code_name(rc), zoned_error(c->z));
}

/* ---- clients that call ---- */

static void perform(struct load_client *c)
{
	struct load_op *op = &c->ops[c->nr_ops - 1];
	ProtobufCMessage *result = NULL;
	struct message m;
	int rc;

	make_message(&m, c, op, false);
	rc = zoned_op(c->z, op->code, &m.base, ZONED_NO_TIMEOUT, &result);
	if (rc)
		load_fail("%s: %s: %s", contract_ops[op->code].name, zoned_code_name(rc),
			  zoned_error(c->z));
	read_answer(op, result);
	note_answer(c, op);
	protobuf_c_message_free_unpacked(result, NULL);
}

static void call(struct load_client *c, uint32_t machine)
{
	while (!atomic_load(&c->load->stop)) {
		next_op(c, machine);
		perform(c);
	}
}

/* ---- the client that makes machines ---- */

/* A call that may be made again until the daemon answers. Whoever makes it knows what a
 * second time answers if the first went through. */
static int insist(struct load_client *c, const char *method, const ProtobufCMessage *request,
		  const ProtobufCMessageDescriptor *type, ProtobufCMessage **ret_reply)
{
	for (;;) {
		int rc = zoned_call(c->z, method, request, type, ZONED_NO_TIMEOUT, ret_reply);

		if (rc != ZONED_LOST && rc != ZONED_UNREACHABLE && rc != ZONED_UNAVAILABLE)
			return rc;
		nanosleep(&(struct timespec){0, 5000000}, NULL);
	}
}

/* 0 when there is no such machine. */
static uint64_t id_of(struct load_client *c, const char *name)
{
	Zoned__V1__GetRequest request = ZONED__V1__GET_REQUEST__INIT;
	ProtobufCMessage *reply;
	uint64_t id;
	int rc;

	request.machine = (char *)(uintptr_t)name;
	rc = insist(c, "/zoned.v1.Machines/Get", &request.base, &zoned__v1__machine__descriptor,
		    &reply);
	if (rc == ZONED_NOT_FOUND)
		return 0;
	if (rc)
		load_fail("Get: %s", zoned_error(c->z));
	id = ((Zoned__V1__Machine *)reply)->id;
	protobuf_c_message_free_unpacked(reply, NULL);
	return id;
}

static uint32_t new_machine(struct load *load, const struct engine_config *config)
{
	unsigned nr = atomic_load(&load->nr_machines);
	struct load_machine *m = &load->machines[nr];

	if (nr == LOAD_MACHINES_MAX)
		load_fail("too many machines");
	snprintf(m->name, sizeof m->name, "m%u", nr);
	m->config = *config;
	atomic_store(&load->nr_machines, nr + 1);
	return nr;
}

static uint32_t create(struct load_client *c, const struct engine_config *config)
{
	uint32_t nr = new_machine(c->load, config);
	struct load_machine *m = &c->load->machines[nr];
	Zoned__V1__CreateRequest request = ZONED__V1__CREATE_REQUEST__INIT;
	Zoned__V1__MachineConfig message = ZONED__V1__MACHINE_CONFIG__INIT;
	ProtobufCMessage *reply;
	int rc;

	message.ram = config->ram;
	message.pae = config->flags & CONFIG_PAE;
	message.preset = (Zoned__V1__Preset)config->preset;
	request.name = m->name;
	request.config = &message;
	rc = insist(c, "/zoned.v1.Machines/Create", &request.base, &zoned__v1__machine__descriptor,
		    &reply);
	if (!rc)
		protobuf_c_message_free_unpacked(reply, NULL);
	else if (rc != ZONED_ALREADY_EXISTS)
		load_fail("Create: %s", zoned_error(c->z));
	m->id = id_of(c, m->name);
	if (!m->id)
		load_fail("%s was made and is not there", m->name);
	m->life = LOAD_ALIVE;
	return nr;
}

static uint32_t fork_machine(struct load_client *c, uint32_t from)
{
	uint32_t nr = new_machine(c->load, &c->load->machines[from].config);
	struct load_machine *m = &c->load->machines[nr];
	Zoned__V1__OpContext context = ZONED__V1__OP_CONTEXT__INIT;
	Zoned__V1__Fork fork = ZONED__V1__FORK__INIT;
	struct load_op *op = new_op(c, from, OP_FORK);
	ProtobufCMessage *result;

	context.machine = c->load->machines[from].name;
	context.token = c->token;
	context.sequence = op->sequence;
	op->labelled = false;
	/* The model finds the copy's name by this; the daemon has it as the op's data. */
	op->args[0] = nr;
	fork.context = &context;
	fork.name = (ProtobufCBinaryData){strlen(m->name), (uint8_t *)m->name};
	if (zoned_op(c->z, OP_FORK, &fork.base, ZONED_NO_TIMEOUT, &result))
		load_fail("Fork: %s", zoned_error(c->z));
	read_answer(op, result);
	note_answer(c, op);
	protobuf_c_message_free_unpacked(result, NULL);
	if (op->status != STATUS_OK)
		load_fail("Fork answered status %u", op->status);
	m->id = id_of(c, m->name);
	if (!m->id)
		load_fail("%s was forked and is not there", m->name);
	m->life = LOAD_ALIVE;
	return nr;
}

static void destroy(struct load_client *c, uint32_t machine)
{
	struct load_machine *m = &c->load->machines[machine];
	Zoned__V1__DestroyRequest request = ZONED__V1__DESTROY_REQUEST__INIT;
	ProtobufCMessage *reply;
	int rc;

	request.machine = m->name;
	m->life = LOAD_UNSURE;
	rc = insist(c, "/zoned.v1.Machines/Destroy", &request.base,
		    &zoned__v1__destroy_response__descriptor, &reply);
	if (!rc)
		protobuf_c_message_free_unpacked(reply, NULL);
	else if (rc != ZONED_NOT_FOUND)
		load_fail("Destroy: %s", zoned_error(c->z));
	if (id_of(c, m->name))
		load_fail("%s was destroyed and is still there", m->name);
	m->life = LOAD_ENDED;
	for (unsigned i = c->nr_things; i-- > 0;)
		if (c->things[i].machine == machine)
			c->things[i] = c->things[--c->nr_things];
}

static void make_machines(struct load_client *c)
{
	enum { AT_ONCE = 4 };
	uint32_t mine[AT_ONCE];
	unsigned nr = 0;

	while (!atomic_load(&c->load->stop)) {
		if (nr == AT_ONCE) {
			unsigned i = (unsigned)choose(c, nr);

			destroy(c, mine[i]);
			mine[i] = mine[--nr];
		}
		mine[nr++] = choose(c, 3) ? fork_machine(c, (uint32_t)choose(c, 2))
					  : create(c, &c->load->machines[choose(c, 2)].config);
		for (uint64_t n = choose(c, 30); n; n--) {
			next_op(c, mine[choose(c, nr)]);
			perform(c);
		}
	}
}

/* ---- all of them ---- */

static struct zoned *connect_to(const char *address)
{
	/* On a busy machine a client may often come too late for a daemon that lives for a
	 * moment: it goes on until the load is stopped. */
	struct zoned_options options = {.address = address, .patience_ms = UINT32_MAX};
	struct zoned *z;
	char err[256];

	if (zoned_connect(&options, &z, err, sizeof err))
		load_fail("%s", err);
	return z;
}

static void *work(void *arg)
{
	struct load_client *c = arg;

	if (c->index + 1 == c->load->nr_clients)
		make_machines(c);
	else if (c->index % 2)
		call(c, c->index / 2 % 2);
	else
		stream(c, c->index / 2 % 2);
	zoned_close(c->z);
	return NULL;
}

void load_start(struct load *load, const char *address, unsigned nr_clients, uint64_t seed)
{
	static const struct engine_config configs[] = {
	    {.preset = PRESET_CLASSIC, .ram = UINT64_C(1) << 30, .flags = CONFIG_PAE},
	    {.preset = PRESET_LINUX_6_1, .ram = UINT64_C(128) << 20},
	};

	memset(load, 0, sizeof *load);
	load->address = address;
	load->nr_clients = nr_clients;
	load->clients = calloc(nr_clients, sizeof *load->clients);
	if (!load->clients)
		load_fail("no memory");
	for (unsigned i = 0; i < nr_clients; i++) {
		struct load_client *c = &load->clients[i];

		c->load = load;
		c->index = i;
		c->random = (seed + i) * UINT64_C(0x9e3779b97f4a7c15) | 1;
		c->token = zoned_token();
		snprintf(c->label, sizeof c->label, "client %u", i);
		c->z = connect_to(address);
	}
	create(&load->clients[0], &configs[0]);
	create(&load->clients[0], &configs[1]);
	for (unsigned i = 0; i < nr_clients; i++)
		if (pthread_create(&load->clients[i].thread, NULL, work, &load->clients[i]))
			load_fail("no thread");
}

void load_stop(struct load *load)
{
	atomic_store(&load->stop, true);
	for (unsigned i = 0; i < load->nr_clients; i++)
		pthread_join(load->clients[i].thread, NULL);
}

void load_free(struct load *load)
{
	for (unsigned i = 0; i < load->nr_clients; i++)
		free(load->clients[i].ops);
	free(load->clients);
}
