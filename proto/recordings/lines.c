/*
 * lines.c - see lines.h. A line may be of any length: a zone's state is one.
 */
#include "lines.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

enum { FIRST_ROOM = 64 << 10, READ_AHEAD = 256 << 10 };

struct lines {
	gzFile file;
	char *line;
	size_t room;
	uint64_t number;
	bool no_memory, cut;
};

struct lines *lines_open(const char *path)
{
	struct lines *l = calloc(1, sizeof *l);
	char compressed[4096];

	if (!l)
		return NULL;
	if (strcmp(path, "-") == 0) {
		int fd = dup(STDIN_FILENO);

		l->file = fd < 0 ? NULL : gzdopen(fd, "rb");
	} else {
		l->file = gzopen(path, "rb");
		snprintf(compressed, sizeof compressed, "%s.gz", path);
		if (!l->file)
			l->file = gzopen(compressed, "rb");
	}
	if (!l->file) {
		free(l);
		return NULL;
	}
	gzbuffer(l->file, READ_AHEAD);
	return l;
}

struct lines *lines_open_in(const char *folder, const char *name)
{
	char path[4096];

	snprintf(path, sizeof path, "%s/%s", folder, name);
	return lines_open(path);
}

static bool make_room(struct lines *l)
{
	size_t room = l->room ? l->room * 2 : FIRST_ROOM;
	char *line = realloc(l->line, room);

	l->no_memory = !line;
	if (!line)
		return false;
	l->line = line;
	l->room = room;
	return true;
}

const char *lines_next(struct lines *l)
{
	size_t length = 0;

	for (;;) {
		if (l->room - length < 2 && !make_room(l))
			return NULL;
		if (!gzgets(l->file, l->line + length, (int)(l->room - length)))
			break;
		length += strlen(l->line + length);
		if (length && l->line[length - 1] == '\n')
			break;
		/* A byte of zero in the text: the rest of the line is lost, not the reader. */
		if (length + 1 < l->room)
			break;
	}
	if (!length)
		return NULL;
	l->number++;
	l->cut = l->line[length - 1] != '\n';
	length -= !l->cut;
	length -= length && l->line[length - 1] == '\r';
	l->line[length] = 0;
	return l->line;
}

bool lines_cut(const struct lines *l)
{
	return l->cut && gzeof(l->file);
}

uint64_t lines_number(const struct lines *l)
{
	return l->number;
}

uint64_t lines_offset(const struct lines *l)
{
	z_off_t at = gzoffset(l->file);

	return at < 0 ? 0 : (uint64_t)at;
}

bool lines_broken(const struct lines *l)
{
	int code = Z_OK;

	gzerror(l->file, &code);
	return l->no_memory || (code != Z_OK && code != Z_STREAM_END);
}

void lines_close(struct lines *l)
{
	if (!l)
		return;
	gzclose(l->file);
	free(l->line);
	free(l);
}
