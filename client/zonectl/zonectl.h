/*
 * zonectl.h - what the parts of zonectl share.
 *
 * Everything that depends on an op, an inspection, an event or an enum is read from
 * the contract's tables at run time: adding one needs no change in this directory.
 *
 * Ownership: what a function returns through ret_ belongs to the caller. Nothing here
 * is thread safe; zonectl has one thread.
 */
#ifndef ZONECTL_H
#define ZONECTL_H

#include <jansson.h>
#include <stdio.h>

#include "contract_protobuf.h"
#include "contract_tables.h"
#include "zoned.h"

/* Documented in `zonectl help`. */
enum exit_code {
	EXIT_DONE = 0,
	EXIT_NOT_OK = 1,      /* an op answered with a status other than OK */
	EXIT_USAGE = 2,	      /* the command line, or a line of the input */
	EXIT_UNREACHABLE = 3, /* no daemon, or the connection was lost */
	EXIT_REFUSED = 4,     /* the daemon answered with a gRPC error */
	EXIT_LIE = 5,	      /* machine check found something that does not add up */
	EXIT_FILE = 6,	      /* a local file could not be read or written; no memory */
};

/* ---- the command line: args.c ---- */

struct flag {
	const char *name;  /* without the dashes */
	char letter;	   /* 0: none */
	const char *value; /* what --help calls it; NULL: a switch */
	const char *help;
};

/* A parsed command line. Points into argv. */
struct args {
	struct given {
		const struct flag *flag;
		const char *text; /* "" for a switch */
	} * given;
	unsigned nr_given;
	const char **words;
	unsigned nr_words;
};

/* What holds for every command, and the connection once there is one. */
struct ctl {
	struct zoned_options options;
	const char *machine; /* NULL: none named */
	const char *owner;
	uint32_t cpu, task;
	uint32_t timeout_ms; /* ZONED_NO_TIMEOUT: none */
	bool timeout_given;
	bool json, help;
	bool has_at; /* a question about the past: --at */
	uint64_t at;
	struct zoned *z;
};

extern const struct flag global_flags[];
extern const unsigned nr_global_flags;

/* Removes the first word that is neither a flag nor a global flag's value, and returns
 * it; NULL: there is none. */
char *args_take_word(int *argc, char **argv);
/* Parses what is left against the command's flags and the global ones, which go to ctl.
 * EXIT_DONE, or EXIT_USAGE after a sentence on stderr. */
int args_parse(struct ctl *ctl, const char *command, int argc, char **argv,
	       const struct flag *flags, unsigned nr_flags, struct args *ret_args);
void args_free(struct args *a);
/* The last value given for a flag, or NULL. */
const char *args_text(const struct args *a, const char *name);
/* The n-th value given for a flag, from 0, or NULL. */
const char *args_text_at(const struct args *a, const char *name, unsigned n);
bool args_has(const struct args *a, const char *name);
/* EXIT_USAGE with a sentence if there are more than `most` words. */
int args_limit_words(const struct args *a, const char *command, unsigned most);
/* Prints a sentence to stderr, with the program's name before it. */
int usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* From here on what would be complained of is written to `to`, without the program's name;
 * NULL: to stderr again. A later sentence replaces an earlier one. */
void complain_to(char *to, size_t size);
/* --at, for whatever looks into a machine; the value goes to ctl. */
#define AT_FLAG                                                                        \
	{                                                                              \
		"at", 0, "OP", "as it was after this op (0: its making), ended or not" \
	}
int args_read_at(struct ctl *ctl, const struct args *a, const char *command);
void print_flags(const char *title, const struct flag *flags, unsigned nr_flags);
/* What an allocation returned; without memory there is nothing left to do but end. */
void *must(void *p);
/* max_length -> max-length, into `to`. */
const char *kebab(const char *name, char *to, size_t size);

/* The nearest name to a mistyped one. Zero-initialise but for `word`. */
struct suggestion {
	const char *word;
	const char *nearest; /* NULL: nothing is near enough */
	unsigned distance;
};
void suggest(struct suggestion *s, const char *candidate);

/* ---- values: text <-> integers, by the contract's word on a field: values.c ---- */

/* "64K", "0x1000", "GFP_KERNEL|__GFP_ZERO", "highmem", "yes". Checks the range. On
 * failure err says what would be accepted, and false is returned. */
bool value_parse(const struct contract_field *f, const char *text, uint64_t *ret_value, char *err,
		 size_t err_size);
bool value_in_range(const struct contract_field *f, uint64_t value, char *err, size_t err_size);
/* Addresses and frame numbers in hex, enums and flags by name. Returns `to`. */
const char *value_format(const struct contract_field *f, uint64_t value, char *to, size_t size);
/* A number in a column of that name, printed as the contract's field of that name is. */
const char *column_format(const char *name, int64_t value, char *to, size_t size);
/* A number with an optional unit K, M, G or T (powers of 1024). */
bool number_parse(const char *text, bool units, uint64_t *ret_value);
/* "10s", "250ms", "2m", or a number of seconds. */
bool duration_parse(const char *text, uint32_t *ret_ms);
/* "GFP_HIGHUSER|__GFP_ZERO" */
void flags_format(const struct contract_field *f, uint64_t value, char *to, size_t size);
const char *enum_name(const struct contract_enum *e, uint32_t number); /* NULL: none */
/* By full name or without the prefix that all its values share, in any case, with '-'
 * or '.' for '_'. NULL: no such value. */
const struct contract_value *enum_find(const struct contract_enum *e, const char *text);
const struct contract_enum *contract_enum_by_name(const char *name);
/* "NUMBER", "FLAGS", "SIZE", ...: what a field's value is called in --help. */
const char *value_placeholder(const struct contract_field *f);
/* Bytes from hex digits, blanks allowed between pairs. NULL: not hex. */
uint8_t *hex_parse(const char *text, size_t *ret_length);
/* A whole file, "-" is standard input. NULL after a sentence on stderr. */
uint8_t *read_file(const char *path, size_t limit, size_t *ret_length);

/* ---- messages by descriptors, and JSON: json.c ---- */

ProtobufCMessage *message_new(const ProtobufCMessageDescriptor *descriptor);
void message_free(ProtobufCMessage *m);
/* Of an integer, enum or bool field; the number must be one of the message's. */
void message_set(ProtobufCMessage *m, unsigned number, uint64_t value);
uint64_t message_get(const ProtobufCMessage *m, unsigned number);
/* A Moment in this field, if --at was given. */
void message_set_at(ProtobufCMessage *m, unsigned number, const struct ctl *ctl);
void message_set_string(ProtobufCMessage *m, unsigned number, const char *text);
void message_set_bytes(ProtobufCMessage *m, unsigned number, const void *bytes, size_t length);
void message_set_list(ProtobufCMessage *m, unsigned number, const uint32_t *values, size_t n);
/* The submessage in a field, or NULL. */
ProtobufCMessage *message_sub(const ProtobufCMessage *m, unsigned number);
/* Gives a message (and its ownership) to a field; selects it if it is one of a oneof. */
void message_set_sub(ProtobufCMessage *m, unsigned number, ProtobufCMessage *sub);
const ProtobufCBinaryData *message_bytes(const ProtobufCMessage *m, unsigned number);

/* Every field by name; enums by name; flags by name where `hint` knows them (may be
 * NULL); bytes as text where they are text, else as NAME_hex; unset messages left out. */
json_t *message_to_json(const ProtobufCMessage *m, const struct contract_fields *hint);
/* Adds bytes to an object as NAME or NAME_hex. */
void json_add_bytes(json_t *object, const char *name, const uint8_t *bytes, size_t length);
void json_print(const json_t *value, FILE *to);
void json_print_line(const json_t *value, FILE *to);

/* ---- ops: ops.c ---- */

const struct contract_op *op_by_word(const char *word); /* alloc, AllocPages, alloc_pages */
/* Sets one field from text. NAME_hex and files are the caller's business. */
bool op_set_text(ProtobufCMessage *m, const struct contract_field *f, const char *text, char *err,
		 size_t err_size);
/* A list's numbers from "1,2,3"; the caller frees them. NULL: err says why. */
uint32_t *list_parse(const struct contract_field *f, const char *text, size_t *ret_n, char *err,
		     size_t err_size);
/* NULL: no field of that name. */
const struct contract_field *fields_find(const struct contract_fields *fields, const char *name);
/* {"op": word, "number": ..., "status": ..., values} of a result. */
json_t *op_result_to_json(const struct contract_op *op, const ProtobufCMessage *result);
uint32_t op_status(const ProtobufCMessage *result);
const char *op_detail(const ProtobufCMessage *result);
/* Never NULL. */
const char *status_name(uint32_t status);
/* The context of the command line; the caller frees it. */
ProtobufCMessage *context_new(const struct ctl *ctl);
int op_command(struct ctl *ctl, const struct contract_op *op, int argc, char **argv);
void op_usage(const struct contract_op *op, FILE *to);

/* ---- the other commands: one file each ---- */

const struct contract_inspection *inspection_by_word(const char *word);
int inspect_command(struct ctl *ctl, const struct contract_inspection *i, int argc, char **argv);
/* Asks a question; the caller frees the response. EXIT_DONE or another exit code. */
int inspect_ask(struct ctl *ctl, const struct contract_inspection *i, ProtobufCMessage *question,
		Zoned__V1__InspectResponse **ret_response);

int machine_command(struct ctl *ctl, int argc, char **argv);
int kernel_command(struct ctl *ctl, int argc, char **argv);
int sql_command(struct ctl *ctl, int argc, char **argv);
/* Asks the history: {"columns": [name...], "rows": [[value...]...]}, and "truncated": true
 * if there were more than `limit` rows. EXIT_DONE, or an exit code after a sentence; `what`
 * is its subject. The caller drops the answer. */
int sql_rows(struct ctl *ctl, const char *what, const char *sql, uint64_t limit,
	     json_t **ret_answer);
int tail_command(struct ctl *ctl, int argc, char **argv);
int pipe_command(struct ctl *ctl, int argc, char **argv);
int import_command(struct ctl *ctl, int argc, char **argv);
int replay_command(struct ctl *ctl, int argc, char **argv);
int history_command(struct ctl *ctl, int argc, char **argv);
int top_command(struct ctl *ctl, int argc, char **argv);
int map_command(struct ctl *ctl, int argc, char **argv);
int report_command(struct ctl *ctl, int argc, char **argv);
int explain_command(struct ctl *ctl, int argc, char **argv);
int run_command(struct ctl *ctl, int argc, char **argv);
int shell_command(struct ctl *ctl, int argc, char **argv);
int lesson_command(struct ctl *ctl, int argc, char **argv);
/* Sets what `machine create --NAME TEXT` would set in a MachineConfig; '_' may stand for
 * '-'. EXIT_DONE, or EXIT_USAGE or EXIT_FILE after a sentence. */
int machine_config_set(ProtobufCMessage *config, const char *name, const char *text);
/* A machine as `machine get --json` prints it. */
json_t *machine_to_json(const Zoned__V1__Machine *m);
int completion_command(struct ctl *ctl, int argc, char **argv);
/* Finds the command that a line begins with, and runs it. */
int command_run(struct ctl *ctl, int argc, char **argv);
typedef void name_fn(void *arg, const char *name, const char *help);
/* Every command's word; every name that `explain` knows without a daemon. */
void commands_each(name_fn *fn, void *arg);
void explain_each(name_fn *fn, void *arg);
/* Every name that a column of the history's views may have. */
void columns_each(name_fn *fn, void *arg);
void lessons_each(name_fn *fn, void *arg);
/* The same to a suggestion, which is `arg`. */
name_fn suggest_name;

/* ---- completion: complete.c ---- */

/* The line is being completed, not run: args_parse offers and ends the command. */
bool completing(void);
/* Prints a word if it begins as the one under the cursor does. */
void complete_offer(const char *word, const char *help);
/* Offers what fits behind nr_words words of a command; value_of: behind that flag. */
void complete_at(struct ctl *ctl, const char *command, const struct flag *flags, unsigned nr_flags,
		 const struct flag *value_of, unsigned nr_words);

/* ---- connection: main.c ---- */

/* Connects if not connected. EXIT_DONE, or EXIT_UNREACHABLE after a sentence. */
int ctl_connect(struct ctl *ctl);
/* EXIT_USAGE with a sentence if no machine is named. */
int ctl_need_machine(const struct ctl *ctl, const char *command);
/* A unary call. EXIT_DONE, or an exit code after a sentence. */
int ctl_call(struct ctl *ctl, const char *what, const char *method, const ProtobufCMessage *request,
	     const ProtobufCMessageDescriptor *reply_type, ProtobufCMessage **ret_reply);
/* What to say of a machine that was not found: the nearest of those that are there; "" if
 * it is there. The error of the last call is forgotten. */
void ctl_machine_hint(struct ctl *ctl, const char *name, char *to, size_t size);
/* Says why a call failed and returns the exit code for it. */
int ctl_failed(struct ctl *ctl, const char *what, int code);

/* ---- the terminal: render.c ---- */

uint64_t monotonic_ns(void);
unsigned terminal_width(void); /* of stdout; 80 where there is none */
bool terminal_is_utf8(void);   /* also sets the locale of characters from the environment */
bool want_colour(FILE *to);    /* a terminal, and NO_COLOR is not set */
/* "2.0G", "860K": three significant digits, powers of 1024. Returns `to`. */
const char *human_size(uint64_t bytes, char *to, size_t size);
/* How many columns a UTF-8 text takes. */
unsigned text_width(const char *text);

/* A table of text, its columns as wide as they need to be. */
struct table;
struct table *table_new(unsigned nr_columns, const char *const *names);
void table_align_right(struct table *t, unsigned column, bool right);
/* Copies nr_columns texts. */
void table_add(struct table *t, const char *const *cells);
unsigned table_rows(const struct table *t);
/* Prints the rows added since the last time; the header only at first. */
void table_print(struct table *t, FILE *to);
void table_free(struct table *t);

/* stdout, or a pager in front of it when stdout is a terminal. */
FILE *pager_open(bool wanted);
void pager_close(FILE *to);

#endif
