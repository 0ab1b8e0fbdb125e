/*
 * machines.c - the service Machines: made, listed, looked into, ended.
 *
 * Create and Destroy take effect at once and are answered after the commit that
 * holds them; Check and Digest look at a machine after the turn's commit, with no op
 * half done. Inspect is in inspect.c.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "contract_tables.h"
#include "inspect.h"
#include "rpc_priv.h"
#include "zoned/v1/machines.pb-c.h"

static void refuse(struct net_call *call, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void refuse(struct net_call *call, const char *format, ...)
{
	char text[256];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	net_finish(call, NET_INVALID_ARGUMENT, text);
	turn_wake(rpc.turn);
}

/* The message of a unary call, or NULL and the call has ended. */
static ProtobufCMessage *unpack(struct net_call *call, const ProtobufCMessageDescriptor *type,
				const uint8_t *bytes, size_t length)
{
	ProtobufCMessage *message;

	if (!rpc_unary_take(call))
		return NULL;
	message = protobuf_c_message_unpack(type, NULL, length, bytes);
	if (!message)
		refuse(call, "the message is malformed");
	return message;
}

static void reply(struct net_call *call, const ProtobufCMessage *message)
{
	rpc.scratch.length = 0;
	wire_reserve(&rpc.scratch, protobuf_c_message_get_packed_size(message));
	rpc.scratch.length = protobuf_c_message_pack(message, rpc.scratch.bytes);
	rpc_reply_scratch(call);
}

/* ---- a machine's configuration, both ways ---- */

/* The value of a message's integer field, as the contract's tables count it. */
static uint64_t field_value(const ProtobufCMessage *message, const struct contract_field *f)
{
	const ProtobufCFieldDescriptor *d =
	    protobuf_c_message_descriptor_get_field(message->descriptor, f->number);
	const void *at = (const char *)message + d->offset;

	switch (d->type) {
	case PROTOBUF_C_TYPE_UINT64: return *(const uint64_t *)at;
	case PROTOBUF_C_TYPE_BOOL: return *(const protobuf_c_boolean *)at != 0;
	default: return *(const uint32_t *)at;
	}
}

/* Ranges of the lists' members, from the annotations in machines.proto. */
static const uint64_t e820_start_max = 0xffffffffff, e820_size_max = 0x10000000000;
static const uint64_t range_start_max = 0xfffffffff, range_size_max = 0x1000000000;

static bool check_range(struct net_call *call, const char *list, size_t i, uint64_t start,
			uint64_t start_max, uint64_t size, uint64_t size_max)
{
	if (start > start_max) {
		refuse(call, "%s[%zu].start: %#" PRIx64 " is above %#" PRIx64, list, i, start,
		       start_max);
		return false;
	}
	if (!size || size > size_max) {
		refuse(call, "%s[%zu].size: %#" PRIx64 " is not in 0x1 to %#" PRIx64, list, i, size,
		       size_max);
		return false;
	}
	return true;
}

static bool read_lists(struct net_call *call, const Zoned__V1__MachineConfig *c,
		       struct engine_config *config)
{
	if (c->n_e820 > ENGINE_MAX_E820 || c->n_reserved > ENGINE_MAX_RESERVED) {
		refuse(call, "e820: %zu entries, %d fit; reserved: %zu entries, %d fit", c->n_e820,
		       ENGINE_MAX_E820, c->n_reserved, ENGINE_MAX_RESERVED);
		return false;
	}
	for (size_t i = 0; i < c->n_e820; i++) {
		const Zoned__V1__E820Entry *e = c->e820[i];

		if (!check_range(call, "e820", i, e->start, e820_start_max, e->size, e820_size_max))
			return false;
		if ((int)e->type < 1 || e->type > ZONED__V1__E820_ENTRY__TYPE__UNUSABLE) {
			refuse(call, "e820[%zu].type: %d is not a type of memory", i, (int)e->type);
			return false;
		}
		config->e820[i] = (struct engine_e820){e->start, e->size, (uint32_t)e->type, 0};
	}
	for (size_t i = 0; i < c->n_reserved; i++) {
		const Zoned__V1__MemoryRange *r = c->reserved[i];

		if (!check_range(call, "reserved", i, r->start, range_start_max, r->size,
				 range_size_max))
			return false;
		config->reserved[i] = (struct engine_range){r->start, r->size};
	}
	config->nr_e820 = (uint32_t)c->n_e820;
	config->nr_reserved = (uint32_t)c->n_reserved;
	return true;
}

/* What contradicts itself in it, the engine says; here, what no machine could have. */
static bool read_config(struct net_call *call, const Zoned__V1__MachineConfig *c,
			struct engine_config *config)
{
	struct codec_error why;

	for (unsigned i = 0; i < contract_machine_config.nr_ints; i++) {
		const struct contract_field *f = &contract_machine_config.ints[i];

		if (!codec_check_integer(f, field_value(&c->base, f), &why)) {
			refuse(call, "%s", why.text);
			return false;
		}
	}
	if (!c->ram == !c->n_e820) {
		refuse(call, c->ram ? "ram and e820: both given, a machine has one memory map"
				    : "ram: neither it nor e820 is given");
		return false;
	}
	*config = (struct engine_config){
	    .preset = (uint32_t)c->preset,
	    .flags = (c->pae ? CONFIG_PAE : 0u) | (c->early ? CONFIG_EARLY : 0u) |
		     (c->highmem_off ? CONFIG_HIGHMEM_OFF : 0u) |
		     (c->thp_off ? CONFIG_THP_OFF : 0u) |
		     (c->poison_free == ZONED__V1__TOGGLE__TOGGLE_ON ? CONFIG_POISON_FREE : 0u),
	    .page_offset = c->page_offset,
	    .vmalloc_bytes = c->vmalloc,
	    .cpus = c->cpus,
	    .user_fallback = (uint32_t)c->user_fallback,
	    .detail = (uint32_t)c->events,
	    .late_pages = c->late_pages,
	    .ram = c->ram,
	    .mem = c->mem,
	    .highmem = c->highmem,
	    .kernelcore = c->kernelcore,
	    .movablecore = c->movablecore,
	};
	return read_lists(call, c, config);
}

/* A Machine message and the lists that hang on it; everything else it points at is
 * the machine's. */
struct view {
	Zoned__V1__Machine machine;
	Zoned__V1__MachineConfig config;
	Zoned__V1__E820Entry e820[ENGINE_MAX_E820], *e820_list[ENGINE_MAX_E820];
	Zoned__V1__MemoryRange reserved[ENGINE_MAX_RESERVED], *reserved_list[ENGINE_MAX_RESERVED];
};

static void view_config(struct view *v, const struct engine_config *from, uint32_t backend)
{
	Zoned__V1__MachineConfig *c = &v->config;

	zoned__v1__machine_config__init(c);
	c->preset = (Zoned__V1__Preset)from->preset;
	c->backend = (Zoned__V1__Backend)backend;
	c->ram = from->ram;
	c->page_offset = from->page_offset;
	c->pae = (from->flags & CONFIG_PAE) != 0;
	c->vmalloc = from->vmalloc_bytes;
	c->highmem = from->highmem;
	c->highmem_off = (from->flags & CONFIG_HIGHMEM_OFF) != 0;
	c->cpus = from->cpus;
	c->early = (from->flags & CONFIG_EARLY) != 0;
	c->mem = from->mem;
	c->kernelcore = from->kernelcore;
	c->movablecore = from->movablecore;
	c->thp_off = (from->flags & CONFIG_THP_OFF) != 0;
	c->user_fallback = (Zoned__V1__UserFallback)from->user_fallback;
	c->poison_free = from->flags & CONFIG_POISON_FREE ? ZONED__V1__TOGGLE__TOGGLE_ON
							  : ZONED__V1__TOGGLE__TOGGLE_UNCHANGED;
	c->events = (Zoned__V1__Detail)from->detail;
	c->late_pages = from->late_pages;
	c->n_e820 = from->nr_e820;
	c->e820 = v->e820_list;
	for (uint32_t i = 0; i < from->nr_e820; i++) {
		v->e820_list[i] = &v->e820[i];
		zoned__v1__e820_entry__init(&v->e820[i]);
		v->e820[i].start = from->e820[i].start;
		v->e820[i].size = from->e820[i].size;
		v->e820[i].type = (Zoned__V1__E820Entry__Type)from->e820[i].type;
	}
	c->n_reserved = from->nr_reserved;
	c->reserved = v->reserved_list;
	for (uint32_t i = 0; i < from->nr_reserved; i++) {
		v->reserved_list[i] = &v->reserved[i];
		zoned__v1__memory_range__init(&v->reserved[i]);
		v->reserved[i].start = from->reserved[i].start;
		v->reserved[i].size = from->reserved[i].size;
	}
}

static void view_machine(struct view *v, struct machine *m)
{
	Zoned__V1__Machine *to = &v->machine;

	zoned__v1__machine__init(to);
	view_config(v, machine_config(m), machine_backend_number(m));
	to->config = &v->config;
	to->name = (char *)(uintptr_t)machine_name(m);
	to->id = machine_id(m);
	to->state = (Zoned__V1__MachineState)machine_status(m);
	to->ops = machine_ops(m);
	to->parked = machine_parked(m);
	to->resident_bytes = machine_resident(m);
	to->created_ns = machine_created_ns(m);
	to->replayed = machine_replayed(m);
	to->first_op = history_first_op(turn_history(rpc.turn), machine_id(m));
	to->reason = (char *)(uintptr_t)machine_reason(m);
}

/* ---- Create, Get, List, Destroy ---- */

static bool answer_machine(struct rpc_question *q, enum machine_error error, const char *why)
{
	struct machine *m = machines_find_id(rpc.machines, q->machine);
	static struct view v; /* too large for the stack, and used by one at a time */

	if (error || !m) {
		rpc_fail(q->call, error ? error : MACHINE_E_GONE, why);
		return true;
	}
	view_machine(&v, m);
	reply(q->call, &v.machine.base);
	return true;
}

static void create_message(struct net_call *call, const uint8_t *bytes, size_t length)
{
	Zoned__V1__CreateRequest *request = (Zoned__V1__CreateRequest *)unpack(
	    call, &zoned__v1__create_request__descriptor, bytes, length);
	static struct engine_config config;
	struct engine_error why = {""};
	enum machine_error error;
	struct machine *m;

	if (!request)
		return;
	if (!request->config) {
		refuse(call, "config: not given");
	} else if (read_config(call, request->config, &config)) {
		error = turn_create(rpc.turn, request->name, strlen(request->name),
				    (uint32_t)request->config->backend, &config, &m, &why);
		if (error)
			rpc_fail(call, error, *why.text ? why.text : NULL);
		else
			rpc_ask(call, machine_id(m), answer_machine);
	}
	zoned__v1__create_request__free_unpacked(request, NULL);
}

/* Get answers after the commit too: what it says of ops is then true for good. */
static void get_message(struct net_call *call, const uint8_t *bytes, size_t length)
{
	Zoned__V1__GetRequest *request = (Zoned__V1__GetRequest *)unpack(
	    call, &zoned__v1__get_request__descriptor, bytes, length);
	struct machine *m;

	if (!request)
		return;
	m = rpc_find_machine(call, request->machine, strlen(request->machine));
	if (m)
		rpc_ask(call, machine_id(m), answer_machine);
	zoned__v1__get_request__free_unpacked(request, NULL);
}

enum { LIST_MACHINES = 1 };

static void list_one(void *arg, struct machine *m)
{
	static struct view v;
	struct wire_buffer *b = arg;
	size_t length;

	view_machine(&v, m);
	length = zoned__v1__machine__get_packed_size(&v.machine);
	wire_put_tag(b, LIST_MACHINES, WIRE_BYTES);
	wire_put_varint(b, length);
	wire_reserve(b, length);
	b->length += zoned__v1__machine__pack(&v.machine, b->bytes + b->length);
}

static bool answer_list(struct rpc_question *q, enum machine_error error, const char *why)
{
	(void)error, (void)why; /* A failed commit leaves a list as true as any other. */
	rpc.scratch.length = 0;
	machines_each(rpc.machines, list_one, &rpc.scratch);
	rpc_reply_scratch(q->call);
	return true;
}

static void list_message(struct net_call *call, const uint8_t *bytes, size_t length)
{
	ProtobufCMessage *request =
	    unpack(call, &zoned__v1__list_request__descriptor, bytes, length);

	if (!request)
		return;
	rpc_ask(call, 0, answer_list);
	protobuf_c_message_free_unpacked(request, NULL);
}

static bool answer_destroy(struct rpc_question *q, enum machine_error error, const char *why)
{
	if (error) {
		rpc_fail(q->call, error, why);
		return true;
	}
	rpc.scratch.length = 0;
	rpc_reply_scratch(q->call);
	return true;
}

static void destroy_message(struct net_call *call, const uint8_t *bytes, size_t length)
{
	Zoned__V1__DestroyRequest *request = (Zoned__V1__DestroyRequest *)unpack(
	    call, &zoned__v1__destroy_request__descriptor, bytes, length);
	struct machine *m;

	if (!request)
		return;
	m = rpc_find_machine(call, request->machine, strlen(request->machine));
	if (m) {
		turn_destroy(rpc.turn, m);
		rpc_ask(call, 0, answer_destroy);
	}
	zoned__v1__destroy_request__free_unpacked(request, NULL);
}

static bool answer_revive(struct rpc_question *q, enum machine_error error, const char *why)
{
	struct machine *m = machines_find_id(rpc.machines, q->machine);

	(void)error, (void)why; /* Its replay goes on, whatever became of a commit. */
	if (m && machine_status(m) == MACHINE_RECOVERING)
		return false;
	if (m && machine_status(m) == MACHINE_LOST) {
		rpc_fail(q->call, MACHINE_E_IS_LOST, rpc_refusal(m, MACHINE_E_IS_LOST));
		return true;
	}
	return answer_machine(q, MACHINE_OK, NULL);
}

static void revive_message(struct net_call *call, const uint8_t *bytes, size_t length)
{
	Zoned__V1__ReviveRequest *request = (Zoned__V1__ReviveRequest *)unpack(
	    call, &zoned__v1__revive_request__descriptor, bytes, length);
	enum machine_error error;
	struct machine *m;

	if (!request)
		return;
	m = rpc_find_machine(call, request->machine, strlen(request->machine));
	error = m ? turn_revive(rpc.turn, m) : MACHINE_OK;
	if (error)
		rpc_fail(call, error, NULL);
	else if (m)
		rpc_ask(call, machine_id(m), answer_revive);
	zoned__v1__revive_request__free_unpacked(request, NULL);
}

/* ---- Check, Digest ---- */

static void see_lie(struct machine_look *l)
{
	struct rpc_seen *seen = &rpc_looking(l)->seen;

	seen->lie = look_check(l, &seen->why);
}

/* A broken invariant that the audit met on its way is the first lie, and the machine is
 * LOST by it. */
static void tell_lie(struct rpc_question *q, struct machine *m)
{
	Zoned__V1__CheckResponse response = ZONED__V1__CHECK_RESPONSE__INIT;
	const char *lie = q->seen.lie;

	(void)m;
	response.ok = lie == NULL;
	response.lie = (char *)(uintptr_t)(lie ? lie : "");
	response.op = q->op;
	reply(q->call, &response.base);
}

/* After a failed commit the machine is RECOVERING, and says so. */
static bool answer_check(struct rpc_question *q, enum machine_error error, const char *why)
{
	(void)error, (void)why;
	return rpc_look(q, see_lie, tell_lie);
}

static void see_digest(struct machine_look *l)
{
	rpc_looking(l)->seen.digest = look_digest(l);
}

static void tell_digest(struct rpc_question *q, struct machine *m)
{
	Zoned__V1__DigestResponse response = ZONED__V1__DIGEST_RESPONSE__INIT;
	const struct engine_digest *digest = &q->seen.digest;
	char text[33];

	if (q->look.found_lost) {
		rpc_fail(q->call, MACHINE_E_IS_LOST, machine_reason(m));
		return;
	}
	snprintf(text, sizeof text, "%016" PRIx64 "%016" PRIx64, (uint64_t)digest->hi,
		 (uint64_t)digest->lo);
	response.digest = text;
	response.op = q->op;
	reply(q->call, &response.base);
}

static bool answer_digest(struct rpc_question *q, enum machine_error error, const char *why)
{
	(void)error, (void)why;
	return rpc_look(q, see_digest, tell_digest);
}

/* About the machine that lives, or about a moment of one. */
static void ask_at(struct net_call *call, const char *name, const Zoned__V1__Moment *at,
		   bool (*answer)(struct rpc_question *q, enum machine_error error,
				  const char *why))
{
	struct machine *m;
	uint64_t machine;

	if (at) {
		if (rpc_find_past(call, name, strlen(name), &machine))
			rpc_ask_past(rpc_ask(call, machine, answer), at->op);
		return;
	}
	m = rpc_find_machine(call, name, strlen(name));
	if (m)
		rpc_ask(call, machine_id(m), answer);
}

static void check_message(struct net_call *call, const uint8_t *bytes, size_t length)
{
	Zoned__V1__CheckRequest *request = (Zoned__V1__CheckRequest *)unpack(
	    call, &zoned__v1__check_request__descriptor, bytes, length);

	if (!request)
		return;
	ask_at(call, request->machine, request->at, answer_check);
	zoned__v1__check_request__free_unpacked(request, NULL);
}

static void digest_message(struct net_call *call, const uint8_t *bytes, size_t length)
{
	Zoned__V1__DigestRequest *request = (Zoned__V1__DigestRequest *)unpack(
	    call, &zoned__v1__digest_request__descriptor, bytes, length);

	if (!request)
		return;
	ask_at(call, request->machine, request->at, answer_digest);
	zoned__v1__digest_request__free_unpacked(request, NULL);
}

/* ---- ForkAt ---- */

/* The machine is there as it was. What is made of it is of this turn, so that whoever asked
 * hears of it after the commit. */
static void tell_fork(struct rpc_question *q, struct machine *none)
{
	struct replica *replica = past_take(&q->past);
	struct engine_error why = {""};
	struct machine *m;
	enum machine_error error = turn_fork(rpc.turn, q->machine, q->name, replica, &m, &why);

	(void)none;
	replica_free(replica);
	if (error)
		rpc_fail(q->call, error, *why.text ? why.text : NULL);
	else
		rpc_ask(q->call, machine_id(m), answer_machine);
}

static bool answer_fork(struct rpc_question *q, enum machine_error error, const char *why)
{
	(void)error, (void)why;
	return rpc_look(q, NULL, tell_fork);
}

static void fork_message(struct net_call *call, const uint8_t *bytes, size_t length)
{
	Zoned__V1__ForkAtRequest *request = (Zoned__V1__ForkAtRequest *)unpack(
	    call, &zoned__v1__fork_at_request__descriptor, bytes, length);
	struct rpc_question *q;
	uint64_t machine;

	if (!request)
		return;
	if (!machine_name_valid(request->name, strlen(request->name))) {
		rpc_fail(call, MACHINE_E_NAME, NULL);
	} else if (machines_find(rpc.machines, request->name, strlen(request->name))) {
		rpc_fail(call, MACHINE_E_EXISTS, NULL);
	} else if (rpc_find_past(call, request->machine, strlen(request->machine), &machine)) {
		q = rpc_ask(call, machine, answer_fork);
		snprintf(q->name, sizeof q->name, "%s", request->name);
		if (request->at)
			rpc_ask_past(q, request->at->op);
		q->is_past = true;
		q->past.op = request->at ? q->past.op : REBUILD_LAST;
	}
	zoned__v1__fork_at_request__free_unpacked(request, NULL);
}

#define UNARY(name, on_message)                  \
	static const struct net_handler name = { \
	    .open = rpc_unary_open,              \
	    .message = (on_message),             \
	    .half_close = rpc_unary_half_close,  \
	    .closed = rpc_unary_closed,          \
	}
UNARY(create_handler, create_message);
UNARY(list_handler, list_message);
UNARY(get_handler, get_message);
UNARY(destroy_handler, destroy_message);
UNARY(revive_handler, revive_message);
UNARY(check_handler, check_message);
UNARY(digest_handler, digest_message);
UNARY(fork_handler, fork_message);
UNARY(inspect_handler, inspect_message);

const struct net_method machines_methods[] = {
    {.path = "/zoned.v1.Machines/Create", .handler = &create_handler},
    {.path = "/zoned.v1.Machines/List", .handler = &list_handler},
    {.path = "/zoned.v1.Machines/Get", .handler = &get_handler},
    {.path = "/zoned.v1.Machines/Destroy", .handler = &destroy_handler},
    {.path = "/zoned.v1.Machines/Revive", .handler = &revive_handler},
    {.path = "/zoned.v1.Machines/Check", .handler = &check_handler},
    {.path = "/zoned.v1.Machines/Digest", .handler = &digest_handler},
    {.path = "/zoned.v1.Machines/ForkAt", .handler = &fork_handler},
    {.path = "/zoned.v1.Machines/Inspect", .handler = &inspect_handler},
    {.path = NULL},
};
