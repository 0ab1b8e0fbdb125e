/*
 * log.h - the daemon's own words: one line an event, to stderr, for a log collector.
 *
 * A line is a time, a level, a message and named values, as key=value pairs or as
 * JSON. Only main.c, turn.c and recovery.c write; rooms return errors. Under systemd
 * (JOURNAL_STREAM) the time is left out and the level is a <N> prefix.
 */
#ifndef LOG_H
#define LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Lines above the level are dropped. The default is INFO, as text. */
void log_configure(enum log_level level, bool json);

/* A named value of a line. */
struct log_field {
	const char *name;
	enum { LOG_TEXT, LOG_NUMBER } type;
	const char *text;
	uint64_t number;
};
#define LOG_S(field, value) ((struct log_field){(field), LOG_TEXT, (value), 0})
#define LOG_N(field, value) ((struct log_field){(field), LOG_NUMBER, NULL, (uint64_t)(value)})

void log_write(enum log_level level, const char *message, const struct log_field *fields,
	       size_t nr_fields);

/* log_info("listening", LOG_S("address", a)); the array may be empty. */
#define LOG_FIELDS(...)            \
	(const struct log_field[]) \
	{                          \
		{0}, ##__VA_ARGS__ \
	}
#define log_line(level, message, ...)                              \
	log_write((level), (message), LOG_FIELDS(__VA_ARGS__) + 1, \
		  sizeof(LOG_FIELDS(__VA_ARGS__)) / sizeof(struct log_field) - 1)
#define log_error(message, ...)	  log_line(LOG_LEVEL_ERROR, message, ##__VA_ARGS__)
#define log_warning(message, ...) log_line(LOG_LEVEL_WARNING, message, ##__VA_ARGS__)
#define log_info(message, ...)	  log_line(LOG_LEVEL_INFO, message, ##__VA_ARGS__)
#define log_debug(message, ...)	  log_line(LOG_LEVEL_DEBUG, message, ##__VA_ARGS__)

/* Tells the service manager (the NOTIFY_SOCKET protocol), if there is one:
 * "READY=1", "WATCHDOG=1", "STOPPING=1", "STATUS=...". */
void log_notify(const char *state);

#endif
