/*
 * fuzz_state.c - an allocator state as the recordings' JSON, line by line, to LoadState's
 * payloads.
 */
#include <jansson.h>
#include <string.h>

#include "fuzz.h"
#include "state_words.h"

static bool take(void *user, const uint8_t *data, uint32_t bytes, bool last)
{
	unsigned *lasts = user;

	(void)data;
	FUZZ_CHECK(bytes <= STATE_MAX_WORDS * 4 && bytes % 4 == 0);
	FUZZ_CHECK(!*lasts);
	*lasts += last;
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	unsigned lasts = 0;
	struct state_words *words = calloc(1, sizeof *words);

	FUZZ_CHECK(words);
	words->send = take;
	words->user = &lasts;
	while (length) {
		const uint8_t *end = memchr(bytes, '\n', length);
		size_t line = end ? (size_t)(end - bytes) : length;
		json_t *zone = json_loadb((const char *)bytes, line, 0, NULL);

		if (json_is_object(zone))
			state_words_add(words, zone);
		json_decref(zone);
		line += end != NULL;
		bytes += line;
		length -= line;
	}
	FUZZ_CHECK(state_words_finish(words) && lasts == 1);
	free(words);
	return 0;
}
