/*
 * fuzz_trace.c - the text of a trace of Linux's page allocator, line by line, to the
 * allocations and frees that it stands for.
 */
#include <string.h>

#include "fuzz.h"
#include "kmem_ops.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	const struct kmem_span all = {0};
	struct kmem_ops *k = kmem_ops_new(&all);
	char *text = malloc(length + 1), *line = text, *end;
	uint64_t ops = 0;
	struct kmem_op op;

	FUZZ_CHECK(k && text);
	if (length)
		memcpy(text, bytes, length);
	text[length] = 0;
	for (; line; line = end) {
		end = strchr(line, '\n');
		if (end)
			*end++ = 0;
		if (!kmem_ops_line(k, line))
			break;
		while (kmem_ops_next(k, &op))
			ops++;
	}
	kmem_ops_end(k);
	while (kmem_ops_next(k, &op))
		ops++;
	/* No event stands for more than one op. */
	FUZZ_CHECK(ops <= kmem_ops_counts(k)->events);
	kmem_ops_free(k);
	free(text);
	return 0;
}
