/*
 * qemu.h - one QEMU with our kernel in it: the process, the byte stream to its console,
 * and why it ended.
 *
 * Everything happens on the loop's thread and nothing blocks. A QEMU belongs to whoever
 * started it until qemu_stop(), after which it cleans up after itself while the loop
 * runs. It dies with the daemon's process, however that ends.
 */
#ifndef MACHINE_QEMU_H
#define MACHINE_QEMU_H

#include <uv.h>

#include "engine.h"

struct qemu;

struct qemu_hooks {
	void *user;
	void (*input)(void *user); /* qemu_input() has more than before */
	void (*ended)(void *user); /* qemu_end_reason() says why; once, and never inside a call */
};

/* Starts QEMU on `kernel`, with the sparse file `ram_file` (ram_bytes long, a multiple of
 * 1 MiB) as its RAM and so many CPUs. gdb_socket: where its gdb stub listens; NULL: it has
 * none. NULL with `why`. */
struct qemu *qemu_start(uv_loop_t *loop, const char *kernel, int ram_file, u64 ram_bytes, u32 cpus,
			const char *gdb_socket, const struct qemu_hooks *hooks,
			struct engine_error *why);
/* Lets go of it; hooks are not called any more. `politely`: what was written is sent, and
 * it is killed only if it has not ended a second later. NULL is fine. */
void qemu_stop(struct qemu *q, bool politely);

/* Bytes that have come and were not consumed; they stay where they are until the loop
 * polls again. */
const u8 *qemu_input(struct qemu *q, size_t *ret_length);
void qemu_consume(struct qemu *q, size_t bytes);
/* Collects what is to be sent; qemu_flush() sends it. */
void qemu_write(struct qemu *q, const void *bytes, size_t length);
size_t qemu_unsent(const struct qemu *q); /* bytes collected */
void qemu_flush(struct qemu *q);

/* It must send something within so many milliseconds, and again after each input; else
 * it has ended with `complaint`, which must live as long. 0: no more. */
void qemu_expect(struct qemu *q, u64 milliseconds, const char *complaint);
/* Kills it, for this reason; hooks->ended is not called. */
void qemu_condemn(struct qemu *q, const char *reason);
/* NULL: it has not ended. */
const char *qemu_end_reason(const struct qemu *q);
int qemu_pid(const struct qemu *q);

#endif
