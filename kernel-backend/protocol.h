/*
 * protocol.h - what crosses virtio-serial between the daemon and the guest.
 *
 * A stream of frames each way, little-endian, fixed layout, every frame a multiple
 * of 8 bytes: a header, then a record, then what the record counts, padded. The
 * guest speaks first. Shared by kernel-backend/ (i386) and the daemon (x86-64):
 * every layout is asserted, in both.
 *
 *   guest                          daemon
 *   HELLO version, sizes     ->
 *                            <-    CREATE config  |  ATTACH config
 *   READY status, text       ->
 *                            <-    OP, OP, OP ...
 *   RESULT + events ...      ->    one for each OP, in order
 *   PANIC text               ->    instead, and then nothing
 */
#ifndef KERNEL_BACKEND_PROTOCOL_H
#define KERNEL_BACKEND_PROTOCOL_H

#include "engine.h"

#define WIRE_MAGIC   0x7a6e6431u /* "1dnz" */
#define WIRE_VERSION 2u

enum wire_type {
	WIRE_HELLO = 1,
	WIRE_CREATE,
	WIRE_ATTACH,
	WIRE_READY,
	WIRE_OP,
	WIRE_RESULT,
	WIRE_EVENTS, /* of the op whose RESULT follows; as many frames as it takes. None: a
			long op is still at work */
	WIRE_COMPLETION,
	WIRE_PANIC,
	WIRE_END,     /* daemon: power off; with a record as that of an OP */
	WIRE_ECHO,    /* daemon: as OP, answered by a RESULT without executing anything */
	WIRE_MEASURE, /* bench: as OP, with a WIRE_COST before its RESULT */
	WIRE_COST,    /* a u64: by how much the TSC went on while the engine executed the op.
			 Under QEMU's -icount shift=0 it counts instructions */
};

struct wire_header {
	u32 magic;
	u16 type;
	u16 words;  /* args behind the record of an OP, values behind that of a RESULT: the last
		       ones may be left out if they are 0 */
	u32 length; /* bytes after the header, padding included */
	u32 count;  /* events in a WIRE_EVENTS, bytes of text in READY and PANIC, of data in OP
		       and RESULT */
};

struct wire_hello {
	u32 version;
	u32 config_bytes, op_bytes, result_bytes, event_bytes;
	u32 state_bytes; /* sizeof(struct machine_state): both sides have the same engine */
};

/* Then its args, then its data. */
struct wire_op {
	u32 code, cpu, task, owner;
};

/* Then its values, then its data. */
struct wire_result {
	u64 op;
	u32 status;
	u32 reserved0;
};

struct wire_ready {
	u32 ok;
	u32 reserved0;
};

static inline u32 wire_pad(u32 bytes)
{
	return (bytes + 7) & ~7u;
}

/* Of so many args or values, those that have to be sent. */
static inline u32 wire_words(const u64 *words, u32 nr)
{
	while (nr && !words[nr - 1])
		nr--;
	return nr;
}

_Static_assert(sizeof(struct wire_header) == 16, "wire layout");
_Static_assert(sizeof(struct wire_hello) == 24, "wire layout");
_Static_assert(sizeof(struct wire_op) == 16, "wire layout");
_Static_assert(sizeof(struct wire_result) == 16, "wire layout");
_Static_assert(sizeof(struct engine_event) == 28, "wire layout");
_Static_assert(sizeof(struct engine_completion) == 48, "wire layout");

#endif
