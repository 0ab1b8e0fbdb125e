/*
 * client.h - what the parts of libzoned know of each other. Not installed.
 */
#ifndef CLIENT_H
#define CLIENT_H

#include <nghttp2/nghttp2.h>

#include "zoned.h"

/* A growing byte queue: [start, end) is what has not been taken yet. */
struct bytes {
	uint8_t *data;
	size_t start, end, capacity;
};

/* Room for `length` more bytes at data + end, or NULL when memory is out. */
uint8_t *bytes_reserve(struct bytes *b, size_t length);
int bytes_append(struct bytes *b, const void *data, size_t length);
static inline size_t bytes_length(const struct bytes *b)
{
	return b->end - b->start;
}
/* Forgets the first `length` bytes. */
void bytes_take(struct bytes *b, size_t length);
void bytes_free(struct bytes *b);

/* Memory for messages that die together: bump.c. */
struct bump {
	ProtobufCAllocator allocator;
	struct bump_chunk *chunks;
};

void bump_init(struct bump *a);
/* Takes everything back at once. */
void bump_reset(struct bump *a);
void bump_free(struct bump *a);

struct zoned {
	char *address;
	char *token; /* "Bearer ..." or NULL */
	uint32_t connect_timeout_ms;
	uint32_t max_message_bytes;
	uint32_t patience_ms;

	int fd;			  /* -1: not connected */
	nghttp2_session *session; /* NULL exactly when fd is -1 */
	bool goaway;		  /* the daemon takes no new streams on this connection */
	bool deaf;		  /* it reads no more; what it has said is still to be read */
	struct bytes out;
	struct zoned_stream *streams; /* those not over */
	char error[512];
};

struct stream_message {
	struct stream_message *next;
	size_t length;
	uint8_t bytes[];
};

struct zoned_stream {
	struct zoned *connection;
	struct zoned_stream *next, **link; /* in connection->streams while not over */
	int32_t id;
	const ProtobufCMessageDescriptor *reply_type;
	uint64_t deadline_ns; /* monotonic; UINT64_MAX: none */

	struct bytes out;
	bool out_end;	 /* half-close follows what is queued */
	bool out_paused; /* nghttp2 waits to be told of new bytes */

	struct bytes in;		     /* an incomplete message with its prefix */
	struct stream_message *first, **end; /* complete ones, not yet received */
	size_t unconsumed;		     /* bytes that flow control still counts */

	int http_status;
	int grpc_status; /* -1: no trailers yet */
	char *grpc_message;

	bool over;
	int result; /* once over */
	char reason[256];
};

uint64_t clock_ns(void);
/* Monotonic time timeout_ms from now; UINT64_MAX for ZONED_NO_TIMEOUT. */
uint64_t clock_deadline(uint32_t timeout_ms);
/* What is left until a deadline, rounded up; ZONED_NO_TIMEOUT for none. */
uint32_t clock_left_ms(uint64_t deadline_ns);

/* Records a sentence as the connection's last error and returns `code`. */
int fail(struct zoned *z, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* address.c: a connected non-blocking socket, or a negative zoned_failure. */
int address_connect(const char *address, uint32_t timeout_ms, char *err, size_t err_size);
/* The default address. The caller frees it; NULL: no memory. */
char *address_default(void);

/* connection.c: connects again if need be. Fails if the daemon is going away while
 * streams of this connection are still open. */
int connection_ready(struct zoned *z);

/* stream.c */
void stream_on_header(struct zoned_stream *s, const uint8_t *name, size_t name_length,
		      const uint8_t *value, size_t value_length);
/* Returns 0, or -1 when the stream must be reset (s->result then says why). */
int stream_on_data(struct zoned_stream *s, const uint8_t *data, size_t length);
void stream_on_close(struct zoned_stream *s, uint32_t h2_error);
/* The stream is over with `result`. Idempotent: the first reason stands. */
void stream_finish(struct zoned_stream *s, int result, const char *reason);
/* zoned_stream_receive() of the bytes as they came; the caller frees them. */
int stream_receive(struct zoned_stream *s, uint32_t timeout_ms, struct stream_message **ret_bytes);
/* Ends streams whose deadline has passed. */
void streams_expire(struct zoned *z);

/* call.c: the two halves of zoned_call(), so that several calls can be under way. finish
 * frees the call, also on failure. */
int call_begin(struct zoned *z, const char *method, const ProtobufCMessage *request,
	       const ProtobufCMessageDescriptor *reply_type, uint32_t timeout_ms,
	       struct zoned_stream **ret_call);
int call_finish(struct zoned_stream *s, ProtobufCMessage **ret_reply);

/* op.c: has this failure an end if one waits? */
bool may_retry(int rc);

/* Pauses that grow, until the connection's patience is at its end. Begins as zeros. */
struct backoff {
	uint64_t give_up_ns; /* 0: no pause yet */
	uint32_t pause_ms;   /* the next one */
};
/* Pauses after an attempt that ended with `rc`; false at once when patience, or the time
 * until the deadline, is used up. */
bool backoff_pause(const struct zoned *z, struct backoff *b, int rc, uint64_t deadline_ns);

/* How Memory.Status knows an op. */
struct op_name {
	const char *machine;
	uint64_t token, sequence;
};
/* The two halves of asking for an op of this code. The answer, freed by the caller, has
 * the op's own result if the op was taken up and is not parked. */
int status_begin(struct zoned *z, const struct op_name *name, uint32_t timeout_ms,
		 struct zoned_stream **ret_call);
int status_finish(struct zoned_stream *call, uint32_t code, Zoned__V1__StatusResponse **ret_status);

/* The context of an op's message, or NULL. */
const Zoned__V1__OpContext *op_context(const ProtobufCMessage *op);

#endif
