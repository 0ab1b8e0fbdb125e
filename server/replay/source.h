/*
 * source.h - a machine's ops as they were recorded, from its beginning: those of its
 * ancestors up to where it was forked, then its own.
 *
 * Read a batch at a time, so that a history in use is held for milliseconds only.
 */
#ifndef REPLAY_SOURCE_H
#define REPLAY_SOURCE_H

#include "recorded.h"

struct source;

/* `until`: the last op to be given; 0: the last that there is now. Beyond the last:
 * refused. Errors leave a sentence in `err`. */
struct source *source_open(const char *path, const char *machine, uint64_t until, char *err,
			   size_t err_size);
void source_close(struct source *s); /* NULL is fine */

const struct recorded_machine *source_machine(const struct source *s);
uint64_t source_last_op(const struct source *s);

/* The next ops, in order from op 0 (boot) on, good until the next call. 0: there are no
 * more, or it failed and left a sentence in source_error(). */
unsigned source_read(struct source *s, const struct history_record **ret);
const char *source_error(const struct source *s); /* "": none */

/* What ended inside an op, by the number of the op that had parked. */
const struct engine_completion *source_completions(const struct source *s, uint64_t op,
						   unsigned *ret_nr);

#endif
