/*
 * config.h - what the daemon is told: by its command line and by a file of the same
 * words, `name = value`. The command line wins; a list (listen) is replaced, not
 * added to.
 */
#ifndef CONFIG_H
#define CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CONFIG_MAX_LISTEN = 16, CONFIG_ERROR_LENGTH = 256 };

/* Exit codes of zoned; --help lists them. */
enum config_exit {
	EXIT_OK = 0,
	EXIT_FAILED = 1,      /* something that was running broke */
	EXIT_USAGE = 2,	      /* the command line or the file */
	EXIT_HISTORY = 3,     /* the history cannot be opened */
	EXIT_LISTEN = 4,      /* an address cannot be listened on */
	EXIT_IMPATIENT = 130, /* a second signal */
};

struct config {
	char *listen[CONFIG_MAX_LISTEN]; /* "unix:PATH" or "tcp:HOST:PORT" */
	unsigned nr_listen;
	char *history;
	char *token_file;
	char *kernel_image; /* NULL: beside the daemon */
	char *guest_gdb;    /* folder; NULL: guests have no gdb stub */
	bool no_auth;
	bool sync_full;
	bool log_json;
	unsigned log_level; /* enum log_level */
	/* 0: default */
	uint64_t max_machines, max_memory, max_machine_memory, query_timeout_ms, guest_timeout_ms;
	uint64_t checkpoint_ops, checkpoint_seconds, retain_seconds, retain_bytes;
};

enum config_action { CONFIG_RUN, CONFIG_DONE, CONFIG_WRONG };

/* Reads the command line, and the file that it names. CONFIG_DONE: --help or --version
 * was answered on stdout. CONFIG_WRONG: err says what is wrong and where. */
enum config_action config_read(int argc, char **argv, struct config *ret, char *err,
			       size_t err_size);
void config_free(struct config *c);

/* Reads the token of a file that its owner alone can read: one line of 16 to 512
 * printable characters. NULL with a sentence; the caller frees it. */
char *config_read_token(const char *path, char *err, size_t err_size);

/* Makes the directories above a file, mode 0700. False with a sentence. */
bool config_make_parents(const char *path, char *err, size_t err_size);

#endif
