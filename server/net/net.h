/*
 * net.h - a gRPC server over libuv and nghttp2: connections, calls, messages.
 *
 * Knows nothing of what the messages mean. A call is one HTTP/2 stream; a message
 * is what gRPC frames. Everything happens on the loop's thread. Nothing is written
 * to a socket before net_flush(): the daemon's turn decides when replies may leave.
 *
 * Ownership: a struct net_call is the server's. It lives from handler->open until
 * handler->closed returns; after that the pointer is dead. Reply bytes are copied.
 */
#ifndef NET_H
#define NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct net_server;
struct net_call;

/* gRPC status codes. */
enum net_status {
	NET_OK = 0,
	NET_CANCELLED = 1,
	NET_UNKNOWN = 2,
	NET_INVALID_ARGUMENT = 3,
	NET_DEADLINE_EXCEEDED = 4,
	NET_NOT_FOUND = 5,
	NET_ALREADY_EXISTS = 6,
	NET_PERMISSION_DENIED = 7,
	NET_RESOURCE_EXHAUSTED = 8,
	NET_FAILED_PRECONDITION = 9,
	NET_ABORTED = 10,
	NET_OUT_OF_RANGE = 11,
	NET_UNIMPLEMENTED = 12,
	NET_INTERNAL = 13,
	NET_UNAVAILABLE = 14,
	NET_DATA_LOSS = 15,
	NET_UNAUTHENTICATED = 16,
};

/* How a call ended. After net_finish() it is NET_END_FINISHED, even if the client was
 * gone before the answer was. */
enum net_end {
	NET_END_FINISHED,  /* it was finished by its handler; all is well */
	NET_END_CANCELLED, /* by the client, or because it broke the protocol */
	NET_END_DEADLINE,
	NET_END_DISCONNECTED,
};

struct net_handler {
	/* A call began. Sets the call's user pointer; may finish it at once. */
	void (*open)(struct net_call *call);
	/* One whole message. The bytes are the server's and die on return. */
	void (*message)(struct net_call *call, const uint8_t *bytes, size_t length);
	/* The client will send no more. */
	void (*half_close)(struct net_call *call);
	/* Output of this call was sent and net_queued() is below output_low. Comes on a
	 * turn of its own, as often as that happens. May be NULL. */
	void (*writable)(struct net_call *call);
	/* The call is over; drop every reference to it. Called exactly once. */
	void (*closed)(struct net_call *call, enum net_end end);
};

struct net_method {
	const char *path; /* "/zoned.v1.Memory/AllocPages" */
	const struct net_handler *handler;
	const void *user;     /* for the handler: net_call_method(call)->user */
	bool unauthenticated; /* answered without a token (health) */
};

struct net_limits {
	unsigned connections;  /* 0: default 1024 */
	unsigned streams;      /* per connection; 0: default 1024 */
	size_t message_bytes;  /* of a request; 0: default 4 MiB */
	size_t output_bytes;   /* queued per connection before reading from it stops; 0: 8 MiB */
	size_t output_low;     /* writable() below this; 0: output_bytes / 4 */
	unsigned idle_seconds; /* without a call: GOAWAY and close; 0: never */
};

struct net_options {
	uv_loop_t *loop;
	struct net_limits limits;
	/* Finds a method by its path, or NULL (UNIMPLEMENTED). */
	const struct net_method *(*route)(void *user, const char *path, size_t length);
	/* Something arrived or ended: run a turn of the daemon soon. May be NULL. */
	void (*wake)(void *user);
	void *user;
	const char *token; /* required of TCP clients as `authorization: Bearer ...` */
	/* Serves TCP without a token. Without either net_listen() refuses TCP. */
	bool insecure_no_auth;
};

/* 0 or a negative uv error. From here on the process ignores SIGPIPE. The options are
 * copied; what they point to, except the token, must stay. */
int net_server_new(const struct net_options *options, struct net_server **ret);

/* "unix:PATH" (mode 0600; a stale socket is replaced, a live one is an error) or
 * "tcp:HOST:PORT" (loopback only, token needed; port 0 picks one). 0, or a negative uv
 * error with a sentence in err. ret_address, if not NULL, gets the target that gRPC
 * clients take: "unix:PATH" or "HOST:PORT". */
int net_listen(struct net_server *server, const char *address, char *ret_address,
	       size_t ret_address_size, char *err, size_t err_size);

/* Sends everything that is queued, one write per connection. Not from a handler's
 * open, message or half_close. Handlers' closed may be called from inside. */
void net_flush(struct net_server *server);

/* Accepts no more, tells clients (GOAWAY), lets calls finish; when the last
 * connection is gone, or after grace_ms, calls done once. */
void net_shutdown(struct net_server *server, unsigned grace_ms, void (*done)(void *user),
		  void *user);
/* After done, or instead of net_shutdown() when a daemon fails to start: then everything
 * is closed at once and the memory goes when the loop has run. NULL is fine. */
void net_server_free(struct net_server *server);

/* ---- calls ---- */
const struct net_method *net_call_method(const struct net_call *call);
void net_call_set_user(struct net_call *call, void *user);
void *net_call_user(const struct net_call *call);
/* Monotonic (uv_hrtime) nanoseconds; UINT64_MAX: no deadline. */
uint64_t net_call_deadline(const struct net_call *call);
/* A number for the connection, never reused while the daemon runs. */
uint64_t net_call_client(const struct net_call *call);
/* Ascends from call to call that a client begins one after the other, on one connection
 * or on a new one after it lost that. Never 0. */
uint64_t net_call_order(const struct net_call *call);

/* Queues one message. Never fails: the size of the queue is net_queued(). */
void net_send(struct net_call *call, const uint8_t *bytes, size_t length);
/* The same without a copy: returns room for `length` bytes of one message, to be
 * filled before anything else is called on this server. */
uint8_t *net_send_room(struct net_call *call, size_t length);
/* Ends the call with trailers, after what is queued. message may be NULL; more than 1024
 * bytes of it are cut. Once per call, and nothing may be sent after it. */
void net_finish(struct net_call *call, enum net_status status, const char *message);

size_t net_queued(const struct net_call *call); /* bytes not yet given to the socket */
/* Stops and starts reading messages of a call: flow control holds the client back. While
 * paused neither message nor half_close is called; after net_resume() they come on a
 * later turn of the loop. */
void net_pause(struct net_call *call);
void net_resume(struct net_call *call);

struct net_stats {
	uint64_t connections_total, calls_total, bytes_in, bytes_out, refused;
	unsigned connections, calls;
};
void net_get_stats(const struct net_server *server, struct net_stats *ret);

#endif
