/*
 * log.c - lines to stderr, and states to the service manager.
 *
 * Invariants:
 *  1. A line is one write(2): lines of several processes do not mix.
 *  2. Whatever a value holds, the line stays one line and one JSON object: control
 *     characters, quotes and backslashes are escaped. What does not fit is cut.
 */
#include "log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 2048 };

static enum log_level log_level = LOG_LEVEL_INFO;
static bool log_json;

static const char *const level_name[] = {"error", "warning", "info", "debug"};
/* Of syslog(3). */
static const int level_priority[] = {3, 4, 6, 7};

struct line {
	char bytes[LINE_MAX_BYTES];
	size_t length;
};

void log_configure(enum log_level level, bool json)
{
	log_level = level;
	log_json = json;
}

/* Two bytes are kept for the end of the line. */
static void put(struct line *l, const char *text)
{
	size_t length = strlen(text), room = sizeof l->bytes - 2 - l->length;

	if (length > room)
		length = room;
	memcpy(l->bytes + l->length, text, length);
	l->length += length;
}

static void put_quoted(struct line *l, const char *text)
{
	put(l, "\"");
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		char escaped[8] = {(char)c};

		if (c == '"' || c == '\\')
			snprintf(escaped, sizeof escaped, "\\%c", c);
		else if (c < 0x20)
			snprintf(escaped, sizeof escaped, "\\u%04x", c);
		put(l, escaped);
	}
	put(l, "\"");
}

/* In text a word stands bare; anything else is quoted. */
static void put_value(struct line *l, const struct log_field *f)
{
	char number[24];

	if (f->type == LOG_NUMBER) {
		snprintf(number, sizeof number, "%" PRIu64, f->number);
		put(l, number);
	} else if (log_json || !*f->text || strpbrk(f->text, " \"\\=\n\t")) {
		put_quoted(l, f->text);
	} else {
		put(l, f->text);
	}
}

static void put_name(struct line *l, const char *name)
{
	if (log_json) {
		put(l, l->length > 1 ? "," : "");
		put_quoted(l, name);
		put(l, ":");
		return;
	}
	put(l, " ");
	put(l, name);
	put(l, "=");
}

static void put_head(struct line *l, enum log_level level, const char *message)
{
	char stamp[40], prefix[8];
	struct timespec now;
	struct tm tm;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(stamp + strlen(stamp), sizeof stamp - strlen(stamp), ".%03ldZ",
		 now.tv_nsec / 1000000);
	if (log_json) {
		put(l, "{");
		put_name(l, "time");
		put_quoted(l, stamp);
		put_name(l, "level");
		put_quoted(l, level_name[level]);
		put_name(l, "message");
		put_quoted(l, message);
		return;
	}
	if (getenv("JOURNAL_STREAM")) {
		snprintf(prefix, sizeof prefix, "<%d>", level_priority[level]);
		put(l, prefix);
	} else {
		put(l, stamp);
		put(l, " ");
		put(l, level_name[level]);
		put(l, ": ");
	}
	put(l, message);
}

void log_write(enum log_level level, const char *message, const struct log_field *fields,
	       size_t nr_fields)
{
	struct line l = {.length = 0};

	if (level > log_level)
		return;
	put_head(&l, level, message);
	for (size_t i = 0; i < nr_fields; i++) {
		put_name(&l, fields[i].name);
		put_value(&l, &fields[i]);
	}
	if (log_json)
		l.bytes[l.length++] = '}';
	l.bytes[l.length++] = '\n';
	/* Nobody is left to tell when stderr itself fails. */
	if (write(STDERR_FILENO, l.bytes, l.length) < 0)
		return;
}

void log_notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t length = path ? strlen(path) : 0;
	socklen_t size;
	int fd;

	if (!length || length >= sizeof address.sun_path || (path[0] != '/' && path[0] != '@'))
		return;
	memcpy(address.sun_path, path, length);
	/* '@' stands for an abstract name, which begins with a zero byte. */
	if (path[0] == '@')
		address.sun_path[0] = 0;
	size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address, size) < 0)
		log_debug("the service manager does not listen", LOG_S("socket", path));
	close(fd);
}
