/*
 * pipe.c - ops from JSON lines, pipelined over Memory.Run, results as JSON lines.
 *
 *   {"op":"alloc","gfp":"GFP_HIGHUSER","as":"p"}
 *   {"op":"kmap","pfn":"$p.pfn"}
 *
 * Lines become ops in order and go out in batches, several in flight. A line that uses
 * an earlier result ("$name.field", with +N or -N behind it) waits for that result and
 * for nothing else. Results are printed in the order in which they came to be: a
 * parked op's comes late. Input that pauses is sent as far as it came, so that a
 * program can hold a conversation.
 *
 * A line that fails is named on stderr with its number and op. Without --keep-going no
 * further line is read and nothing more is sent; what was sent before stands, and its
 * results are still printed. --batch 1 --window 1 makes that exactly one op at a time.
 *
 * Invariants:
 *  1. slots[i] belongs to the op with index base + i; base is the oldest unanswered.
 *  2. names[n] is the result of the latest op that was called n, or, while that is
 *     unanswered, its index as an integer.
 */
#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "zonectl.h"

enum {
	BATCH = 64,
	WINDOW = 8,
	LINE_BYTES = 1 << 20, /* a line may hold a payload of 64 KiB in hex, and more */
	READ_BYTES = 64 << 10,
	PROGRESS_NS = 100000000,
	LOOK_AGAIN_MS = 50,
};

static const struct flag pipe_flags[] = {
    {"keep-going", 'k', NULL, "go on after a line that fails; the exit code still tells"},
    {"quiet", 'q', NULL, "print no results, only failures"},
    {"batch", 0, "N", "ops sent together; default 64"},
    {"window", 0, "N", "batches in flight; default 8"},
    {"retry", 0, NULL, "outlive a lost connection and the daemon's restart: each op is done once"},
};
enum { NR_PIPE_FLAGS = sizeof pipe_flags / sizeof *pipe_flags };

struct slot {
	const struct contract_op *op; /* NULL: answered */
	uint64_t line;
	char *as;
	uint32_t expect; /* a bit for each status that is no failure */
};

struct pipe {
	struct ctl *ctl;
	struct zoned_run *run;
	bool keep_going, quiet;
	bool retry; /* the run is durable: that the connection is gone is no failure */
	uint64_t batch, window;

	char *buffer; /* [start, end) of it is input not yet taken */
	size_t start, end;
	bool eof;
	uint64_t line;

	struct slot *slots;
	size_t nr_slots, capacity;
	uint64_t base;
	json_t *names;

	bool stopped;
	bool discard; /* an op failed: what comes behind it and is not sent yet stays so */
	int code;     /* the first failure's */
	uint64_t answered, failed, also_failed, next_progress;
	bool progress;
};

/* ---- failures ---- */

static void failed(struct pipe *p, int code, uint64_t line, const char *op, const char *why)
{
	if (p->progress)
		fputs("\r\033[K", stderr);
	complain("line %llu: %s%s%s", (unsigned long long)line, op ? op : "", op ? ": " : "", why);
	p->failed++;
	if (p->code == EXIT_DONE)
		p->code = code;
	if (!p->keep_going)
		p->stopped = true;
}

/* An op's answer is a failure. Those in flight behind the one that ended it all are
 * counted and not named: they were sent before anyone could know. */
static void op_failed(struct pipe *p, int code, const struct slot *slot, const char *why)
{
	if (p->stopped) {
		p->failed++;
		p->also_failed++;
		return;
	}
	failed(p, code, slot->line, slot->op->word, why);
	p->discard = p->stopped;
}

/* ---- slots ---- */

static void slot_add(struct pipe *p, const struct slot *slot)
{
	if (p->nr_slots == p->capacity) {
		p->capacity = p->capacity ? 2 * p->capacity : 1024;
		p->slots = must(realloc(p->slots, p->capacity * sizeof *p->slots));
	}
	p->slots[p->nr_slots++] = *slot;
}

/* Forgets the answered slots at the front, once they are many. */
static void slots_trim(struct pipe *p)
{
	size_t n = 0;

	while (n < p->nr_slots && !p->slots[n].op)
		n++;
	if (n < p->nr_slots / 2 || n == 0)
		return;
	memmove(p->slots, p->slots + n, (p->nr_slots - n) * sizeof *p->slots);
	p->nr_slots -= n;
	p->base += n;
}

/* ---- results ---- */

static void show_progress(struct pipe *p)
{
	uint64_t now;

	if (!p->progress)
		return;
	now = monotonic_ns();
	if (now < p->next_progress)
		return;
	p->next_progress = now + PROGRESS_NS;
	fprintf(stderr, "\r%llu ops done, %llu in flight\033[K", (unsigned long long)p->answered,
		(unsigned long long)zoned_run_in_flight(p->run));
}

static void check_result(struct pipe *p, const struct slot *slot, const Zoned__V1__Result *r,
			 const ProtobufCMessage *result)
{
	char why[640];
	uint32_t status;
	const char *name;

	if (!result) {
		snprintf(why, sizeof why, "%s: %s", zoned_code_name((int)r->code), r->message);
		op_failed(p, EXIT_REFUSED, slot, why);
		return;
	}
	status = op_status(result);
	if (status < 32 && (slot->expect & 1u << status))
		return;
	name = enum_name(contract_enum_by_name("Status"), status);
	snprintf(why, sizeof why, "%s%s%s%s", name ? name : "?", *op_detail(result) ? ": " : "",
		 op_detail(result),
		 slot->expect == 1u << STATUS_OK ? "" : " (not what was expected)");
	op_failed(p, EXIT_NOT_OK, slot, why);
}

/* The line that is printed: which input it answers, then the result. */
static json_t *result_line(const struct slot *slot, const Zoned__V1__Result *r,
			   const ProtobufCMessage *result)
{
	json_t *line = json_object(), *rest;

	json_object_set_new(line, "line", json_integer((json_int_t)slot->line));
	if (slot->as)
		json_object_set_new(line, "as", json_string(slot->as));
	if (result) {
		rest = op_result_to_json(slot->op, result);
	} else {
		rest = json_object();
		json_object_set_new(rest, "op", json_string(slot->op->word));
		json_object_set_new(rest, "error", json_string(zoned_code_name((int)r->code)));
		json_object_set_new(rest, "detail", json_string(r->message));
	}
	json_object_update(line, rest);
	json_decref(rest);
	return line;
}

static void on_result(void *user, uint64_t index, const Zoned__V1__Result *r)
{
	struct pipe *p = user;
	struct slot *slot =
	    index >= p->base && index - p->base < p->nr_slots ? &p->slots[index - p->base] : NULL;
	const ProtobufCMessage *result = NULL;
	json_t *line, *named;

	if (!slot || !slot->op) {
		failed(p, EXIT_REFUSED, p->line, NULL,
		       "the daemon answered an op twice, or one not sent");
		p->stopped = true;
		return;
	}
	if (!r->code && (uint32_t)r->result_case == slot->op->code)
		result = message_sub(&r->base, slot->op->code);
	line = result_line(slot, r, result);
	named = slot->as ? json_object_get(p->names, slot->as) : NULL;
	if (json_is_integer(named) && (uint64_t)json_integer_value(named) == index)
		json_object_set(p->names, slot->as, line);
	if (!p->quiet)
		json_print_line(line, stdout);
	json_decref(line);
	check_result(p, slot, r, result);
	p->answered++;
	free(slot->as);
	slot->as = NULL;
	slot->op = NULL;
	show_progress(p);
}

/* A wait went wrong: the connection or the stream is gone. */
static void broken(struct pipe *p, int rc)
{
	int code = ctl_failed(p->ctl, "pipe", rc);

	if (p->code == EXIT_DONE)
		p->code = code;
	p->stopped = true;
}

/* ---- references ---- */

/* The result that a name stands for, waited for if need be; NULL and err: there is
 * none. Borrowed. */
static json_t *named_result(struct pipe *p, const char *name, char *err, size_t err_size)
{
	json_t *named = json_object_get(p->names, name);
	uint64_t in_flight;
	int rc = 0;

	if (!named) {
		snprintf(err, err_size, "no line before this one is called %s", name);
		return NULL;
	}
	if (json_is_integer(named)) {
		fflush(stdout);
		rc = zoned_run_flush(p->run);
	}
	while (!rc && !p->stopped && json_is_integer(named)) {
		in_flight = zoned_run_in_flight(p->run);
		rc = zoned_run_wait(p->run, in_flight ? in_flight - 1 : 0, ZONED_NO_TIMEOUT);
		named = json_object_get(p->names, name);
	}
	if (rc)
		broken(p, rc);
	/* What failed was named already; a line that needs it is passed over in silence. */
	if (json_is_integer(named) || p->stopped) {
		*err = '\0';
		return NULL;
	}
	return named;
}

/* "$name.field", "$name.field+4096" as what it stands for. A new reference, or NULL. */
static json_t *resolve(struct pipe *p, const char *text, char *err, size_t err_size)
{
	size_t name_length = strcspn(text + 1, ".");
	const char *field = text + 1 + name_length + (text[1 + name_length] == '.');
	size_t field_length = strcspn(field, "+-");
	char name[64], key[64];
	json_t *result, *value;
	uint64_t offset = 0;

	snprintf(name, sizeof name, "%.*s", (int)(name_length < 63 ? name_length : 63), text + 1);
	snprintf(key, sizeof key, "%.*s", (int)(field_length < 63 ? field_length : 63), field);
	if (!*name || !*key) {
		snprintf(err, err_size, "%s is not $NAME.FIELD", text);
		return NULL;
	}
	if (field[field_length] && !number_parse(field + field_length + 1, true, &offset)) {
		snprintf(err, err_size, "%s: no number behind the field", text);
		return NULL;
	}
	result = named_result(p, name, err, err_size);
	if (!result)
		return NULL;
	if (!json_object_get(result, "status")) {
		snprintf(err, err_size, "%s was refused", name);
		return NULL;
	}
	value = json_object_get(result, key);
	/* A failure leaves the values that it did not fill in zero: no frame, no address. */
	if (strcmp(json_string_value(json_object_get(result, "status")), "OK") != 0 &&
	    (!value || (json_is_integer(value) && json_integer_value(value) == 0))) {
		snprintf(err, err_size, "%s answered %s and has no %s", name,
			 json_string_value(json_object_get(result, "status")), key);
		return NULL;
	}
	if (!value || (field[field_length] && !json_is_integer(value))) {
		snprintf(err, err_size, "the result of %s has no %s %s", name,
			 field[field_length] ? "number" : "field", key);
		return NULL;
	}
	if (!json_is_integer(value))
		return json_incref(value);
	if (field[field_length] == '-')
		offset = 0 - offset;
	return json_integer(json_integer_value(value) + (json_int_t)offset);
}

/* ---- a line ---- */

/* Replaces every "$..." in the object (and its lists) by what it stands for. */
static bool resolve_all(struct pipe *p, json_t *object, const struct contract_field *data,
			char *err, size_t err_size)
{
	const char *key;
	json_t *value, *element, *got;
	size_t i;

	json_object_foreach (object, key, value) {
		/* A payload may begin with a dollar sign, and a name must not. */
		if (data && data->kind == FIELD_BYTES && strcmp(key, data->name) == 0)
			continue;
		if (json_is_string(value) && json_string_value(value)[0] == '$') {
			got = resolve(p, json_string_value(value), err, err_size);
			if (!got)
				return false;
			json_object_set_new(object, key, got);
			continue;
		}
		json_array_foreach (value, i, element) {
			if (!json_is_string(element) || json_string_value(element)[0] != '$')
				continue;
			got = resolve(p, json_string_value(element), err, err_size);
			if (!got)
				return false;
			json_array_set_new(value, i, got);
		}
	}
	return true;
}

/* An integer or a list of them in JSON, as the text that op_set_text() takes. */
static bool value_text(json_t *value, char *to, size_t size)
{
	size_t i, used = 0;
	json_t *element;

	if (json_is_string(value))
		return (size_t)snprintf(to, size, "%s", json_string_value(value)) < size;
	if (json_is_boolean(value))
		return (size_t)snprintf(to, size, "%s", json_is_true(value) ? "yes" : "no") < size;
	if (json_is_integer(value))
		return (size_t)snprintf(to, size, "%lld", (long long)json_integer_value(value)) <
		       size;
	if (!json_is_array(value))
		return false;
	*to = '\0';
	json_array_foreach (value, i, element) {
		char one[64];

		if (json_is_array(element) || !value_text(element, one, sizeof one))
			return false;
		used += (size_t)snprintf(to + used, size - used, "%s%s", i ? "," : "", one);
		if (used >= size)
			return false;
	}
	return true;
}

/* The bytes of {"data": "text"} or {"data_hex": "00ff"}. */
static bool set_bytes(ProtobufCMessage *m, const struct contract_field *f, json_t *value, bool hex,
		      char *err, size_t err_size)
{
	const char *text = json_string_value(value);
	size_t length = json_string_length(value);
	uint8_t *bytes = NULL;

	if (!text) {
		snprintf(err, err_size, "is not a string");
		return false;
	}
	if (hex) {
		bytes = hex_parse(text, &length);
		if (!bytes) {
			snprintf(err, err_size, "is not an even number of hex digits");
			return false;
		}
	}
	if (length > f->max_length)
		snprintf(err, err_size, "%zu bytes, at most %u fit", length, f->max_length);
	else
		message_set_bytes(m, f->number, bytes ? (const void *)bytes : text, length);
	free(bytes);
	return length <= f->max_length;
}

/* The argument that a key means. Withdraw has an argument that is called `op`, which a
 * line has taken already: arg_op says it, and arg_X any other. */
static const char *argument_name(const char *key)
{
	return strncmp(key, "arg_", 4) == 0 ? key + 4 : key;
}

/* The bytes field that a key such as `data` or `data_hex` means, or NULL. */
static const struct contract_field *bytes_field(const struct contract_op *op, const char *key,
						bool *ret_hex)
{
	const struct contract_field *f = op->args.data;
	size_t length = f ? strlen(f->name) : 0;

	if (!f || f->kind != FIELD_BYTES || strncmp(key, f->name, length) != 0)
		return NULL;
	*ret_hex = strcmp(key + length, "_hex") == 0;
	return *ret_hex || !key[length] ? f : NULL;
}

static bool set_field(ProtobufCMessage *m, const struct contract_op *op, const char *key,
		      json_t *value, char *err, size_t err_size)
{
	static char text[LINE_BYTES];
	const struct contract_field *f;
	struct suggestion s = {.word = key};
	bool hex;
	unsigned i;

	f = bytes_field(op, key, &hex);
	if (f)
		return set_bytes(m, f, value, hex, err, err_size);
	f = fields_find(&op->args, key);
	if (!f) {
		for (i = 0; i < op->args.nr_ints; i++)
			suggest(&s, op->args.ints[i].name);
		snprintf(err, err_size, "%s has no such argument%s%s%s", op->word,
			 s.nearest ? "; did you mean " : "", s.nearest ? s.nearest : "",
			 s.nearest ? "?" : "");
		return false;
	}
	if (!value_text(value, text, sizeof text)) {
		snprintf(err, err_size,
			 "is neither a number, a string, a boolean nor a list of them");
		return false;
	}
	return op_set_text(m, f, text, err, err_size);
}

/* Keys of a line that are the op's context. Batch's context has machine and owner alone,
 * so that a task or CPU of 0 can be said. */
static bool set_context(struct pipe *p, ProtobufCMessage *m, json_t *object, char *err,
			size_t err_size)
{
	struct ctl own = *p->ctl;
	json_t *cpu = json_object_get(object, "cpu"), *task = json_object_get(object, "task");
	json_t *owner = json_object_get(object, "owner");

	if ((cpu && !json_is_integer(cpu)) || (task && !json_is_integer(task)) ||
	    (owner && !json_is_string(owner))) {
		snprintf(err, err_size, "cpu and task are numbers, owner is a string");
		return false;
	}
	if ((cpu && (json_integer_value(cpu) < 0 || json_integer_value(cpu) > 31)) ||
	    (task && (json_integer_value(task) < 0 || json_integer_value(task) > UINT32_MAX))) {
		snprintf(err, err_size, "cpu is 0 to 31, task a number of 32 bits");
		return false;
	}
	if (cpu)
		own.cpu = (uint32_t)json_integer_value(cpu);
	if (task)
		own.task = (uint32_t)json_integer_value(task);
	if (owner)
		own.owner = json_string_value(owner);
	if (own.cpu || own.task || owner)
		message_set_sub(m, 1, context_new(&own));
	return true;
}

static bool has_required(const struct contract_op *op, json_t *object, char *err, size_t err_size)
{
	unsigned i, n = op->args.nr_ints + (op->args.data != NULL);

	for (i = 0; i < n; i++) {
		const struct contract_field *f =
		    i < op->args.nr_ints ? &op->args.ints[i] : op->args.data;
		char renamed[64], hex[64];
		bool reserved = strcmp(f->name, "op") == 0;

		snprintf(renamed, sizeof renamed, "arg_%s", f->name);
		snprintf(hex, sizeof hex, "%s_hex", f->name);
		if (f->required && (reserved || !json_object_get(object, f->name)) &&
		    !json_object_get(object, renamed) && !json_object_get(object, hex)) {
			snprintf(err, err_size, "%s is needed", reserved ? renamed : f->name);
			return false;
		}
	}
	return true;
}

static bool set_arguments(ProtobufCMessage *m, const struct contract_op *op, json_t *object,
			  char *err, size_t err_size)
{
	static const char *const own_keys[] = {"op",  "as",   "expect", "comment",
					       "cpu", "task", "owner"};
	char why[1024];
	const char *key;
	json_t *value;
	size_t i;

	json_object_foreach (object, key, value) {
		for (i = 0; i < sizeof own_keys / sizeof *own_keys; i++)
			if (strcmp(key, own_keys[i]) == 0)
				break;
		if (i < sizeof own_keys / sizeof *own_keys)
			continue;
		if (!set_field(m, op, argument_name(key), value, why, sizeof why)) {
			snprintf(err, err_size, "%s: %s", key, why);
			return false;
		}
	}
	return has_required(op, object, err, err_size);
}

/* "OK", "any", or a list of statuses, as bits. */
static bool parse_expect(json_t *value, uint32_t *ret_bits, char *err, size_t err_size)
{
	const struct contract_enum *statuses = contract_enum_by_name("Status");
	uint32_t bits = 0;
	json_t *one;
	size_t i;

	if (!value) {
		*ret_bits = 1u << STATUS_OK;
		return true;
	}
	if (json_is_string(value) && strcmp(json_string_value(value), "any") == 0) {
		*ret_bits = UINT32_MAX;
		return true;
	}
	for (i = 0; i < (json_is_array(value) ? json_array_size(value) : 1); i++) {
		const struct contract_value *status = NULL;

		one = json_is_array(value) ? json_array_get(value, i) : value;
		if (json_is_string(one))
			status = enum_find(statuses, json_string_value(one));
		if (!status) {
			snprintf(err, err_size, "expect: not a status, a list of them, or \"any\"");
			return false;
		}
		bits |= 1u << status->number;
	}
	*ret_bits = bits;
	return true;
}

static const struct contract_op *find_op(json_t *object, char *err, size_t err_size)
{
	const char *word = json_string_value(json_object_get(object, "op"));
	const struct contract_op *op = word ? op_by_word(word) : NULL;
	struct suggestion s = {.word = word};
	unsigned i;

	if (op)
		return op;
	if (!word) {
		snprintf(err, err_size, "no \"op\": the name of an op is needed");
		return NULL;
	}
	for (i = 0; i < OP_CODE_END; i++)
		if (contract_ops[i].code)
			suggest(&s, contract_ops[i].word);
	snprintf(err, err_size, "no op %s%s%s%s", word, s.nearest ? "; did you mean " : "",
		 s.nearest ? s.nearest : "", s.nearest ? "?" : "");
	return NULL;
}

/* Makes an op of an object and adds it to the batch. False: err says why not; an empty
 * err: what it depends on failed. */
static bool submit(struct pipe *p, json_t *object, const struct contract_op *op, char *err,
		   size_t err_size)
{
	const char *as = json_string_value(json_object_get(object, "as"));
	ProtobufCMessage *m = message_new(contract_op_messages[op->code].op);
	struct slot slot = {.op = op, .line = p->line};
	int rc;
	bool ok = parse_expect(json_object_get(object, "expect"), &slot.expect, err, err_size) &&
		  resolve_all(p, object, op->args.data, err, err_size) &&
		  set_context(p, m, object, err, err_size) &&
		  set_arguments(m, op, object, err, err_size);

	if (ok) {
		rc = zoned_run_add(p->run, op->code, m);
		if (rc)
			broken(p, rc);
		slot.as = as ? must(strdup(as)) : NULL;
		if (as)
			json_object_set_new(
			    p->names, as,
			    json_integer((json_int_t)p->base + (json_int_t)p->nr_slots));
		slot_add(p, &slot);
	}
	message_free(m);
	return ok;
}

static void take_line(struct pipe *p, const char *line, size_t length)
{
	const struct contract_op *op = NULL;
	char err[1400] = "";
	json_error_t why;
	json_t *object;

	while (length && isspace((unsigned char)*line)) {
		line++;
		length--;
	}
	if (!length || *line == '#')
		return;
	object = json_loadb(line, length, JSON_REJECT_DUPLICATES, &why);
	if (!object)
		snprintf(err, sizeof err, "not JSON: %s (column %d)", why.text, why.column);
	else if (!json_is_object(object))
		snprintf(err, sizeof err, "not a JSON object");
	else
		op = find_op(object, err, sizeof err);
	if (op && submit(p, object, op, err, sizeof err))
		err[0] = '\0';
	if (*err)
		failed(p, EXIT_USAGE, p->line, op ? op->word : NULL, err);
	json_decref(object);
}

/* ---- the loop ---- */

static void send_full(struct pipe *p)
{
	uint64_t most = p->batch * (p->window - 1);
	int rc;

	if (zoned_run_filling(p->run) < p->batch)
		return;
	rc = zoned_run_flush(p->run);
	/* Parked ops may fill the window; then later ones have to wait for them. */
	if (!rc && zoned_run_in_flight(p->run) > most)
		rc = zoned_run_wait(p->run, most, ZONED_NO_TIMEOUT);
	else if (!rc)
		rc = zoned_run_wait(p->run, UINT64_MAX, 0);
	if (rc)
		broken(p, rc);
	slots_trim(p);
}

/* Takes every whole line of the buffer. */
static void take_lines(struct pipe *p)
{
	while (!p->stopped) {
		char *line = p->buffer + p->start;
		char *newline = memchr(line, '\n', p->end - p->start);

		if (!newline && !(p->eof && p->end > p->start))
			break;
		if (!newline)
			newline = p->buffer + p->end;
		p->line++;
		p->start = (size_t)(newline - p->buffer) + (newline < p->buffer + p->end);
		if (newline - line > LINE_BYTES)
			failed(p, EXIT_USAGE, p->line, NULL, "longer than a line may be (1 MiB)");
		else
			take_line(p, line, (size_t)(newline - line));
		send_full(p);
	}
}

static void read_more(struct pipe *p)
{
	ssize_t n;

	memmove(p->buffer, p->buffer + p->start, p->end - p->start);
	p->end -= p->start;
	p->start = 0;
	if (p->end > LINE_BYTES) {
		failed(p, EXIT_USAGE, p->line + 1, NULL, "longer than a line may be (1 MiB)");
		p->stopped = true; /* where the next line begins is not known */
		return;
	}
	n = read(STDIN_FILENO, p->buffer + p->end, READ_BYTES);
	if (n < 0 && errno != EINTR) {
		complain("pipe: cannot read standard input: %s", strerror(errno));
		p->code = EXIT_FILE;
		p->stopped = true;
	} else if (n == 0) {
		p->eof = true;
	} else if (n > 0) {
		p->end += (size_t)n;
	}
}

/* Nothing to read just now: send what there is, and wait for either side. */
static void wait_for_either(struct pipe *p)
{
	struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN}};
	int rc = zoned_run_flush(p->run);

	if (!rc)
		rc = zoned_run_wait(p->run, UINT64_MAX, 0);
	fflush(stdout);
	if (rc) {
		broken(p, rc);
		return;
	}
	fds[1] = (struct pollfd){.fd = zoned_fd(p->ctl->z), .events = zoned_poll_events(p->ctl->z)};
	/* Without a connection nothing tells when the daemon is back: look again. */
	poll(fds, 2, fds[1].fd < 0 ? LOOK_AGAIN_MS : -1);
	/* With nothing in flight only the end of the connection can come. */
	if (fds[1].revents && !zoned_run_in_flight(p->run)) {
		rc = zoned_process(p->ctl->z, 0);
		if (rc && !p->retry)
			broken(p, rc);
	}
	slots_trim(p);
}

static void pump(struct pipe *p)
{
	while (!p->stopped && !p->eof) {
		struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};

		if (poll(&in, 1, 0) > 0)
			read_more(p);
		else
			wait_for_either(p);
		take_lines(p);
	}
}

/* Waits for what was sent. Parked ops that nothing wakes are withdrawn in the end. */
static void drain(struct pipe *p)
{
	uint32_t timeout = p->ctl->timeout_ms;
	size_t i;
	int rc = p->discard ? 0 : zoned_run_flush(p->run);

	fflush(stdout);
	if (!rc && (p->retry || zoned_fd(p->ctl->z) >= 0))
		rc = zoned_run_wait(p->run, 0, timeout);
	if (rc == ZONED_AGAIN) {
		for (i = 0; i < p->nr_slots; i++)
			if (p->slots[i].op)
				failed(p, EXIT_NOT_OK, p->slots[i].line, p->slots[i].op->word,
				       "still no answer (parked?); withdrawn");
	} else if (rc && !p->stopped) {
		broken(p, rc);
	}
}

static void pipe_free(struct pipe *p)
{
	size_t i;

	for (i = 0; i < p->nr_slots; i++)
		free(p->slots[i].as);
	free(p->slots);
	free(p->buffer);
	json_decref(p->names);
	zoned_run_close(p->run);
}

static int run(struct ctl *ctl, struct pipe *p)
{
	ProtobufCMessage *context;
	struct ctl plain = *ctl;
	int rc = ctl_connect(ctl);

	if (rc != EXIT_DONE)
		return rc;
	plain.cpu = plain.task = 0;
	context = context_new(&plain);
	((Zoned__V1__OpContext *)context)->token = p->retry ? zoned_token() : 0;
	rc = zoned_run_open(ctl->z, (Zoned__V1__OpContext *)context, on_result, p, &p->run);
	message_free(context);
	if (rc)
		return ctl_failed(ctl, "pipe", rc);
	p->ctl = ctl;
	p->names = json_object();
	p->buffer = must(malloc(LINE_BYTES + READ_BYTES));
	p->progress = isatty(STDERR_FILENO) && !isatty(STDOUT_FILENO) && !isatty(STDIN_FILENO);
	pump(p);
	drain(p);
	if (p->also_failed)
		complain("pipe: %llu more ops that were in flight failed as well",
			 (unsigned long long)p->also_failed);
	if (p->progress)
		fprintf(stderr, "\r%llu ops, %llu failed\033[K\n", (unsigned long long)p->answered,
			(unsigned long long)p->failed);
	pipe_free(p);
	return p->code;
}

static int parse_count(const struct args *a, const char *name, uint64_t fallback, uint64_t *ret)
{
	const char *text = args_text(a, name);

	*ret = fallback;
	if (text && (!number_parse(text, false, ret) || *ret == 0 || *ret > 4096))
		return usage_error("pipe: --%s %s is not a number from 1 to 4096", name, text);
	return EXIT_DONE;
}

static void pipe_help(void)
{
	printf(
	    "zonectl pipe - ops from JSON lines, results as JSON lines\n\n"
	    "usage: zonectl pipe -m MACHINE [flags] < ops.jsonl\n\n"
	    "A line is an object: \"op\" and the op's arguments by name (numbers, or texts as\n"
	    "on the command line); bytes as \"data\" or \"data_hex\". Also:\n"
	    "  \"as\": \"p\"            call the result p; later lines use \"$p.pfn\", "
	    "\"$p.va+4096\"\n"
	    "  \"expect\": \"NO_SPACE\"  statuses that are no failure here: one, a list, \"any\"\n"
	    "  \"cpu\", \"task\", \"owner\"  for this op\n"
	    "  \"arg_op\": 12         an argument that is called like one of these (withdraw)\n"
	    "  \"comment\"             ignored, as are empty lines and lines that begin with #\n\n"
	    "  {\"op\":\"alloc\",\"gfp\":\"GFP_HIGHUSER\",\"as\":\"p\"}\n"
	    "  {\"op\":\"kmap\",\"pfn\":\"$p.pfn\"}\n\n"
	    "A line that fails is named and nothing more is sent; what was sent stands. The\n"
	    "exit code is the first failure's. --batch 1 --window 1: one op at a time.\n\n");
	print_flags("flags:", pipe_flags, NR_PIPE_FLAGS);
	print_flags("\nfor every command:", global_flags, nr_global_flags);
}

int pipe_command(struct ctl *ctl, int argc, char **argv)
{
	struct pipe p = {0};
	struct args a;
	int rc = args_parse(ctl, "pipe", argc, argv, pipe_flags, NR_PIPE_FLAGS, &a);

	if (rc != EXIT_DONE)
		return rc;
	p.keep_going = args_has(&a, "keep-going");
	p.quiet = args_has(&a, "quiet");
	p.retry = args_has(&a, "retry");
	rc = args_limit_words(&a, "pipe", 0);
	if (rc == EXIT_DONE)
		rc = parse_count(&a, "batch", BATCH, &p.batch);
	if (rc == EXIT_DONE)
		rc = parse_count(&a, "window", WINDOW, &p.window);
	args_free(&a);
	if (ctl->help) {
		pipe_help();
		return EXIT_DONE;
	}
	if (rc == EXIT_DONE)
		rc = ctl_need_machine(ctl, "pipe");
	return rc == EXIT_DONE ? run(ctl, &p) : rc;
}
