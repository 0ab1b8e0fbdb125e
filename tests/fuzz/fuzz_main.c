/*
 * fuzz_main.c - a target without libFuzzer: every file of a folder as it is, cut off, and
 * with one byte spoiled at a time.
 *
 *     fuzz_NAME FOLDER
 *
 * What libFuzzer finds goes into the folder and is tried here from then on.
 */
#include "fuzz.h"

#include <dirent.h>
#include <string.h>

#include "effort.h"

enum { FILE_BYTES = 64 << 10, SPOILED = 4000 };

/* Each on a block of its own length, so that a sanitizer sees a read behind it. */
static void try_one(const uint8_t *bytes, size_t length)
{
	uint8_t *copy = malloc(length ? length : 1);

	FUZZ_CHECK(copy);
	memcpy(copy, bytes, length);
	LLVMFuzzerTestOneInput(copy, length);
	free(copy);
}

static void try_file(const char *path)
{
	static const uint8_t values[] = {0, 0x7f, 0x80, 0xff, '"', '-', '9', '\n'};
	static uint8_t bytes[FILE_BYTES];
	FILE *file = fopen(path, "rb");
	size_t length, step;

	FUZZ_CHECK(file);
	length = fread(bytes, 1, sizeof bytes, file);
	fclose(file);
	try_one(bytes, length);
	/* A large file has fewer of its places spoiled. */
	step = 1 + length * sizeof values / effort(SPOILED);
	for (size_t at = 0; at < length; at += step) {
		uint8_t was = bytes[at];

		try_one(bytes, at);
		for (size_t i = 0; i < sizeof values; i++) {
			bytes[at] = values[i];
			try_one(bytes, length);
		}
		bytes[at] = was;
	}
}

int main(int argc, char **argv)
{
	DIR *folder = argc == 2 ? opendir(argv[1]) : NULL;
	unsigned files = 0;
	struct dirent *entry;
	char path[4096];

	if (!folder) {
		fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
		return 2;
	}
	while ((entry = readdir(folder))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "%s/%s", argv[1], entry->d_name);
		try_file(path);
		files++;
	}
	closedir(folder);
	printf("%u files\n", files);
	return files ? 0 : 1;
}
