/*
 * zoned.h - the C client library: a connection to a daemon, calls, streams, ops.
 *
 * Generic by descriptors: a method is its path ("/zoned.v1.Memory/AllocPages"), a
 * message is what protobuf-c made of proto/. A new op needs no change here.
 *
 * Threads: a struct zoned, its streams and its runs belong to one thread at a time;
 * different connections are independent. There is no hidden thread: bytes move only
 * inside the calls below. The library prints nothing and touches no signal.
 *
 * Blocking: zoned_connect, zoned_call, zoned_op, zoned_health and the functions with
 * a timeout argument wait; everything else returns at once. Times are milliseconds;
 * ZONED_NO_TIMEOUT waits as long as it takes.
 *
 * Errors: a function that can fail returns an int. 0 is success, 1 to 16 is the gRPC
 * status that the daemon answered (4, DEADLINE_EXCEEDED, also when this side's clock
 * ran out), a negative one is a failure of this side. zoned_error() then says in a
 * sentence what happened. Outputs (ret_*) are written on success only. A status of
 * an op other than OK is not an error here: it is in the result's outcome.
 *
 * Ownership: what a function hands out through a ret_ argument is the caller's until
 * the matching close, or protobuf_c_message_free_unpacked(m, NULL) for a message.
 * Messages given to the library are read during the call and stay the caller's.
 *
 * After a lost connection the next call or stream connects again by itself; what was
 * in flight ends with ZONED_LOST and is never repeated behind the caller's back,
 * because the daemon may have done it. Ops with a token are the exception, by zoned_op()
 * and in runs: the library asks what became of each, and repeats what never was.
 */
#ifndef ZONED_H
#define ZONED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include "zoned/v1/history.pb-c.h"
#include "zoned/v1/machines.pb-c.h"
#include "zoned/v1/memory.pb-c.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ZONED_NO_TIMEOUT UINT32_MAX

/* gRPC status codes, as https://grpc.github.io/grpc/core/md_doc_statuscodes.html has
 * them. */
enum zoned_status {
	ZONED_CANCELLED = 1,
	ZONED_UNKNOWN = 2,
	ZONED_INVALID_ARGUMENT = 3,
	ZONED_DEADLINE_EXCEEDED = 4,
	ZONED_NOT_FOUND = 5,
	ZONED_ALREADY_EXISTS = 6,
	ZONED_PERMISSION_DENIED = 7,
	ZONED_RESOURCE_EXHAUSTED = 8,
	ZONED_FAILED_PRECONDITION = 9,
	ZONED_ABORTED = 10,
	ZONED_OUT_OF_RANGE = 11,
	ZONED_UNIMPLEMENTED = 12,
	ZONED_INTERNAL = 13,
	ZONED_UNAVAILABLE = 14,
	ZONED_DATA_LOSS = 15,
	ZONED_UNAUTHENTICATED = 16,
};

enum zoned_failure {
	ZONED_OK = 0,
	ZONED_END = -1,		/* the stream is over and all is well */
	ZONED_AGAIN = -2,	/* nothing within the time given; the stream goes on */
	ZONED_UNREACHABLE = -3, /* no connection came about; nothing was sent */
	ZONED_LOST = -4,	/* the connection broke; what was in flight is unknown */
	ZONED_PROTOCOL = -5,	/* the other side does not speak gRPC, or not this contract */
	ZONED_ARGUMENT = -6,	/* the caller's: a bad address, an unknown op code */
	ZONED_NO_MEMORY = -7,
};

/* "DEADLINE_EXCEEDED" for 4, "connection lost" for ZONED_LOST. Never NULL. */
const char *zoned_code_name(int code);

/* ---- connection ---- */

struct zoned;

struct zoned_options {
	/* "unix:PATH" or "tcp:HOST:PORT" ("tcp:[::1]:PORT"). NULL: $ZONED_ADDRESS, and
	 * without that the daemon's default, unix:$XDG_RUNTIME_DIR/zoned.sock or, where
	 * that variable is not set, unix:/run/zoned/zoned.sock. */
	const char *address;
	/* Sent as `authorization: Bearer ...`. NULL: the first line of token_file. */
	const char *token;
	/* NULL: $ZONED_TOKEN_FILE; without that no token is sent. */
	const char *token_file;
	uint32_t connect_timeout_ms; /* 0: 5000 */
	uint32_t max_message_bytes;  /* a longer one ends its stream; 0: 64 MiB */
	/* How long ops that have a token wait for a daemon that is gone; 0: 30000. One that
	 * answers, if only that it is not ready yet, is not gone. */
	uint32_t patience_ms;
};

/* Connects. options may be NULL. On failure a sentence is in err (if not NULL). */
int zoned_connect(const struct zoned_options *options, struct zoned **ret_connection, char *err,
		  size_t err_size);
/* Ends its streams without waiting. NULL is fine. */
void zoned_close(struct zoned *z);
const char *zoned_address(const struct zoned *z);
/* What the last failure on this connection was. Valid until the next call on it. */
const char *zoned_error(const struct zoned *z);

/* For a caller with an event loop of its own: wait for zoned_poll_events() (POLLIN,
 * POLLOUT) on zoned_fd(), then zoned_process(z, 0), then look at the streams with a
 * timeout of 0. The descriptor changes after a reconnect; -1: not connected. */
int zoned_fd(const struct zoned *z);
short zoned_poll_events(const struct zoned *z);
/* Moves bytes both ways; waits for at most timeout_ms for something to arrive. */
int zoned_process(struct zoned *z, uint32_t timeout_ms);

/* ---- unary calls ---- */

int zoned_call(struct zoned *z, const char *method, const ProtobufCMessage *request,
	       const ProtobufCMessageDescriptor *reply_type, uint32_t timeout_ms,
	       ProtobufCMessage **ret_reply);

/* grpc.health.v1. service "": the daemon as a whole. */
int zoned_health(struct zoned *z, const char *service, uint32_t timeout_ms, bool *ret_serving);

/* ---- ops ---- */

/* A random token for OpContext.token; with a sequence counting from 1 it names an op. */
uint64_t zoned_token(void);

/*
 * One op by its code, unary. `op` is the op's own message (Zoned__V1__AllocPages), its
 * context set. If the context carries a token and the connection breaks or the daemon
 * restarts, connects again within the timeout and the connection's patience, asks
 * Memory.Status what became of the op, and either returns the recorded answer or sends
 * the op again: it is done exactly once. Of what an op has read the history keeps length
 * and hash alone, so that a recorded answer comes without the bytes.
 * Without a token a broken connection is ZONED_LOST.
 */
int zoned_op(struct zoned *z, uint32_t code, const ProtobufCMessage *op, uint32_t timeout_ms,
	     ProtobufCMessage **ret_result);

/* ---- streams ---- */

struct zoned_stream;

/* Begins a call whose messages are sent and received one by one. The deadline covers
 * the whole stream; ZONED_NO_TIMEOUT: none. */
int zoned_stream_open(struct zoned *z, const char *method,
		      const ProtobufCMessageDescriptor *reply_type, uint32_t timeout_ms,
		      struct zoned_stream **ret_stream);
/* Queues a message. What is queued leaves with zoned_process() or any wait. */
int zoned_stream_send(struct zoned_stream *s, const ProtobufCMessage *message);
/* The same for bytes that are a message already. */
int zoned_stream_send_packed(struct zoned_stream *s, const void *bytes, size_t length);
/* This side will send no more. */
int zoned_stream_end(struct zoned_stream *s);
/* The next message, ZONED_END after the last one, ZONED_AGAIN when the time is up. A
 * reader that does not call this holds the daemon back by flow control: at most one
 * window (1 MiB), or one message if that is longer, waits in memory. */
int zoned_stream_receive(struct zoned_stream *s, uint32_t timeout_ms,
			 ProtobufCMessage **ret_message);
/* Bytes queued and not yet given to the socket. */
size_t zoned_stream_queued(const struct zoned_stream *s);
/* Cancels the call if it is not over. NULL is fine. */
void zoned_stream_close(struct zoned_stream *s);

/* ---- Memory.Run: ops at speed ---- */

struct zoned_run;

/* Called inside zoned_run_wait() and zoned_run_finish(), once for each op, in the order
 * in which answers came to be. index counts zoned_run_add() from 0. The result dies on
 * return. May call zoned_run_add(). */
typedef void zoned_result_fn(void *user, uint64_t index, const Zoned__V1__Result *result);

/*
 * context holds for every op that has none of its own. If it carries a token, the run
 * outlives its connection, and the daemon: zoned_run_wait() and zoned_run_finish() then
 * connect again, ask what became of each op that has no answer, hand out the answers that
 * are recorded (without bytes, as zoned_op() has them), and send the others again, in
 * their order. Only then does a wait with a timeout of 0 take longer. While the daemon
 * refuses ops for a time (UNAVAILABLE), one that is sent again may come behind one that
 * was added later and went through. ZONED_LOST, ZONED_UNREACHABLE and ZONED_UNAVAILABLE
 * then mean that patience is at its end; another wait tries again.
 */
int zoned_run_open(struct zoned *z, const Zoned__V1__OpContext *context, zoned_result_fn *on_result,
		   void *user, struct zoned_run **ret_run);
/* Adds an op to the batch being filled; its bytes are taken now. */
int zoned_run_add(struct zoned_run *run, uint32_t code, const ProtobufCMessage *op);

/* For a caller who reads and writes protobuf's wire format without messages: a result as
 * it came. What it points to dies on return, and ends with no zero. */
struct zoned_packed_result {
	uint64_t index;	     /* counts zoned_run_add() and zoned_run_add_packed() from 0 */
	uint32_t code;	     /* a gRPC status: why the op never reached the machine; 0: it did */
	uint32_t op;	     /* whose result's message `bytes` are: an op code; 0: there is none */
	const char *message; /* with code */
	size_t message_length;
	const uint8_t *bytes; /* a zoned.v1.AllocPagesResult, say */
	size_t length;
};
/* Instead of zoned_result_fn, and under its rules. */
typedef void zoned_packed_fn(void *user, const struct zoned_packed_result *result);
int zoned_run_open_packed(struct zoned *z, const Zoned__V1__OpContext *context,
			  zoned_packed_fn *on_packed, void *user, struct zoned_run **ret_run);
/* zoned_run_add() of an op's message (zoned.v1.AllocPages) as its bytes; in any run. The
 * daemon refuses, as this op's answer, what is none. */
int zoned_run_add_packed(struct zoned_run *run, uint32_t code, const void *op, size_t length);

/* Sends the batch being filled, if it holds anything. Does not wait. */
int zoned_run_flush(struct zoned_run *run);
/* Ops in the batch being filled, and ops sent and not yet answered. */
uint64_t zoned_run_filling(const struct zoned_run *run);
uint64_t zoned_run_in_flight(const struct zoned_run *run);
/* Handles answers until at most max_in_flight ops are unanswered (0) or the time is up
 * (ZONED_AGAIN). With a timeout of 0: handles what has arrived. */
int zoned_run_wait(struct zoned_run *run, uint64_t max_in_flight, uint32_t timeout_ms);
/* Flushes, tells the daemon that no more comes, waits for every answer, and frees the
 * run, also on failure. */
int zoned_run_finish(struct zoned_run *run);
/* Cancels what is unanswered: parked ops are withdrawn by the daemon. NULL is fine. */
void zoned_run_close(struct zoned_run *run);

#ifdef __cplusplus
}
#endif

#endif
