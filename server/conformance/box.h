/*
 * box.h - the private machine that a recording is played to, and the words in which a
 * difference is told. Only for server/conformance.
 */
#ifndef CONFORMANCE_BOX_H
#define CONFORMANCE_BOX_H

#include "boot_log.h"
#include "conformance.h"
#include "kmem_text.h"
#include "lines.h"
#include "sim.h"
#include "state.h"
#include "state_words.h"

struct box {
	struct sim *sim;
	struct engine *e;
	struct engine_result res; /* of the last op */
	struct engine_completion completed;
	u32 nr_completed;
	u32 cpu; /* executes box_op() */
	u8 data[ENGINE_MAX_DATA];
};

/* The machine that these boot messages are of. */
struct engine_config box_config(const struct boot_log *log);
/* NULL after a difference that says why not. */
struct box *box_new(const struct engine_config *config, struct conformance_report *r);
/* From the dmesg of a folder. */
struct box *box_new_from(const char *folder, struct conformance_report *r);
/* The machine of a boot in whose zones so many pages were managed: what Linux kept beyond our
 * own metadata is kept from the allocator, in NORMAL and in a ZONE_MOVABLE of lowmem. */
struct box *box_new_like(const struct boot_log *log, const u32 managed[NR_ZONES],
			 struct conformance_report *r);
/* Another machine that is as this one is now. NULL: no memory. */
struct box *box_copy(struct box *b);
void box_free(struct box *b);

/* Executes an op; returns its status, STATUS_LOST when the machine broke. */
u32 box_run(struct box *b, const struct engine_op *op);
#define box_op(b, code_, ...) \
	box_run((b), &(struct engine_op){.code = (code_), .cpu = (b)->cpu, .args = {__VA_ARGS__}})

/* How much of a zone's count its CPUs may keep: Linux lets them keep other amounts while
 * kswapd is awake. */
void box_set_kswapd(struct box *b, bool awake);

/* Feeds state_words to this machine: a state_send_fn. */
bool box_load(void *box, const uint8_t *data, uint32_t bytes, bool last);

/* Notes the first difference; always false. */
bool differs(struct conformance_report *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void note(struct conformance_report *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Counts a figure; a difference is noted when it is the first. */
void compare(struct conformance_report *r, uint64_t got, uint64_t want, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The last line read is no JSON. Noted, and true, if it is a file's last and cut off in its
 * middle; else a difference. */
bool is_cut_line(const struct lines *l, struct conformance_report *r);

/* The text of a trace: this file, or what is in this folder. False: nothing. */
bool find_trace(const char *path, char *to, size_t size);

/* The folder that a file is in. */
void folder_of(const char *path, char *to, size_t size);

/* Each kind of recording, by its path. */
void check_sequence(const char *path, struct conformance_report *r);
void check_boot_folder(const char *path, struct conformance_report *r);
void check_constants(const char *path, struct conformance_report *r);
void check_kmap(const char *path, struct conformance_report *r);
void check_trace(const char *path, struct conformance_report *r);

#endif
