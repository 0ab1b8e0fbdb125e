/*
 * guest.h - a guest for a test: QEMU with our kernel, its RAM mapped here, and the
 * link to it. Blocking; a test has nothing else to do.
 */
#ifndef TESTS_GUEST_H
#define TESTS_GUEST_H

#include <sys/types.h>

#include "engine.h"
#include "kernel-backend/protocol.h"

struct guest {
	pid_t pid;
	int link;
	int ram_fd;
	u8 *ram;
	size_t ram_bytes;
	struct engine engine; /* a handle on the guest's RAM, for inspections */
	struct engine_event *events;
	u32 nr_events, room;
	struct engine_completion completions[64]; /* of the last op; more are counted */
	u32 nr_completions;
	u64 cost;     /* of the last WIRE_MEASURE, in ticks of the guest's TSC */
	bool is_slow; /* we read late, and little at a time */
	char error[ENGINE_ERROR_LENGTH];
	u8 out[1 << 18], in[1 << 18]; /* not sent; received and not looked at */
	size_t out_length, in_start, in_end;
};

/* Starts QEMU on `kernel` and makes the machine. False with g->error. */
bool guest_start(struct guest *g, const char *kernel, const struct engine_config *config,
		 u64 ram_bytes);
/* The same with a clock that goes on by one for each instruction of the guest. */
bool guest_start_counting(struct guest *g, const char *kernel, const struct engine_config *config,
			  u64 ram_bytes);
/* One op; g->events holds what it emitted. False when the guest ended instead. */
bool guest_execute(struct guest *g, const struct engine_op *op, struct engine_result *res);
/* Sends an op (WIRE_OP, WIRE_ECHO or WIRE_MEASURE), at the latest when a result is asked
 * for. */
bool guest_send(struct guest *g, u16 type, const struct engine_op *op);
/* The next result. False when the guest ended instead. */
bool guest_receive(struct guest *g, struct engine_result *res);
/* The first frame at or after `from` that the guest has touched, or 0xffffffff. */
pfn_t guest_next_frame(struct guest *g, pfn_t from);
void guest_read_frame(struct guest *g, pfn_t pfn, u64 words[PAGE_SIZE / 8]);
struct engine_digest guest_digest(struct guest *g);
/* engine_check(), with what an engine remembers beside its state remembered anew: the guest's
 * own is out of reach. */
const char *guest_check(struct guest *g, struct engine_error *why);
/* Powers the guest off and returns QEMU's exit code. */
int guest_stop(struct guest *g);

#endif
