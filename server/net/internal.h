/*
 * internal.h - what the files of net/ share. Nobody else includes it.
 *
 *   server.c      the server: turns of work, limits, shutdown, statistics
 *   listen.c      addresses and listening sockets
 *   connection.c  one client: socket <-> nghttp2 session
 *   call.c        one stream: headers, messages, flow control, trailers
 *   grpc.c        the rules of gRPC as functions of bytes
 *   pool.c, timeouts.c   memory and time
 *
 * Everything is confined to the loop's thread. Who may destroy what: a call ends inside
 * nghttp2's stream_close callback or with its connection; a connection is closed only
 * from the top of a libuv callback or of net_flush(), never below a handler.
 */
#ifndef NET_INTERNAL_H
#define NET_INTERNAL_H

#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "grpc.h"
#include "net.h"
#include "pool.h"
#include "timeouts.h"

#define NET_CONTAINER(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* A broken rule between our own files or a handler's misuse: stop, in every build. */
#define NET_CHECK(condition)                                                                 \
	do {                                                                                 \
		if (!(condition)) {                                                          \
			fprintf(stderr, "net: %s:%d: %s\n", __FILE__, __LINE__, #condition); \
			abort();                                                             \
		}                                                                            \
	} while (0)

#define NS_PER_SECOND 1000000000ull
#define NS_PER_MS     1000000ull

enum {
	/* What a client may send before it hears from us: per stream and per connection. */
	STREAM_WINDOW = 256 * 1024,
	CONNECTION_WINDOW = 1024 * 1024,
	/* A stream's window is given back while less than this waits to be sent on it. */
	STREAM_OUTPUT_SHORT = 256 * 1024,
	/* Request headers, counted as HTTP/2 does (name + value + 32); gRPC's default. */
	HEADER_BYTES = 8192,
	HEADER_OVERHEAD = 32,
	/* Bytes of unfinished messages that one connection may hold, in largest messages. */
	UNFINISHED_MESSAGES = 8,
	FRAME_HEADER = 9, /* of HTTP/2 */
	READ_BYTES = 256 * 1024,
	/* One write. nghttp2 hands out at most a frame (16 KiB and its header) at a time. */
	WRITE_BYTES = 160 * 1024,
	WRITE_SPARE = 32 * 1024,
	LISTEN_BACKLOG = 511,
	/* How long a closed connection waits for the client to read our last words. */
	LINGER_MS = 1000,
};

struct net_connection {
	union {
		uv_handle_t handle;
		uv_stream_t stream;
		uv_tcp_t tcp;
		uv_pipe_t pipe;
	};
	struct net_server *server;
	TAILQ_ENTRY(net_connection) link;
	TAILQ_ENTRY(net_connection) dirty_link;
	nghttp2_session *session; /* NULL once the connection only lingers */
	LIST_HEAD(, net_call) calls;
	unsigned nr_calls;
	uint64_t client;
	struct net_call *parsing; /* whose headers are arriving */
	bool is_tcp;
	bool dirty;
	bool receiving;	   /* inside nghttp2_session_mem_recv() */
	bool writing;	   /* a uv_write() is under way; the session waits */
	bool closing;	   /* uv_close() was called */
	bool draining;	   /* the shutdown notice was sent */
	bool held;	   /* too much output: the connection's window is kept back */
	bool pause_fill;   /* the scratch is full; nghttp2 was told to stop */
	size_t queued;	   /* bytes in the calls' out buffers and in the write */
	size_t unfinished; /* bytes in the calls' in buffers */
	size_t unconsumed; /* of the connection's window, while held */
	uint64_t idle_since;
	struct timeout timeout; /* idle, then linger */
	uv_write_t write;
	uint8_t *unsent;
	size_t unsent_length;
	uv_shutdown_t shutdown;
};

TAILQ_HEAD(connection_list, net_connection);

struct net_call {
	struct net_connection *connection;
	LIST_ENTRY(net_call) sibling;
	TAILQ_ENTRY(net_call) deferred_link;
	const struct net_method *method; /* NULL: no such */
	void *user;
	int32_t stream;

	/* The request, as its headers arrive. */
	bool is_post, is_grpc, authorized, timeout_bad;
	size_t header_bytes;
	uint64_t timeout_ns; /* UINT64_MAX: none */

	/* The method's, from its `open` on; NULL before and for a call that never got so far. */
	const struct net_handler *handler;

	/* Where the call stands. */
	bool over;	      /* handler->closed was called, or never will be */
	bool ended;	      /* the client sent END_STREAM */
	bool told_half_close; /* ... and the handler knows */
	bool paused;
	bool responded;			/* response headers are nghttp2's */
	bool starved;			/* the data provider answered DEFERRED */
	bool finished;			/* status is set; nothing more is taken from either side */
	bool sent;			/* at least one byte of data went out */
	bool deferred, resume, drained; /* in the server's deferred list, and why */
	enum net_status status;
	char *status_text; /* percent-encoded; the pool's, or NULL */
	size_t status_text_length;

	uint64_t deadline; /* UINT64_MAX: none */
	struct timeout timeout;

	struct buffer out; /* framed messages that nghttp2 has not taken */
	/* Not paused: the beginning of one message. Paused: whatever arrived. */
	struct buffer in;
	size_t unconsumed; /* of the stream's window, not given back yet */
};

TAILQ_HEAD(call_list, net_call);

struct net_listener {
	union {
		uv_handle_t handle;
		uv_stream_t stream;
		uv_tcp_t tcp;
		uv_pipe_t pipe;
	};
	struct net_server *server;
	LIST_ENTRY(net_listener) link;
	bool is_tcp;
};

struct net_server {
	struct net_options options; /* with defaults filled in; token is ours */
	uv_loop_t *loop;
	struct pool pool;
	nghttp2_mem mem;
	nghttp2_session_callbacks *callbacks;
	nghttp2_option *session_options;
	struct timeouts timeouts;
	uv_idle_t idle; /* runs while there are deferred calls */
	struct call_list deferred;
	unsigned nr_deferred;
	LIST_HEAD(, net_listener) listeners;
	struct connection_list connections, dirty;
	unsigned open_handles; /* listeners, connections, timer, idle */
	uint64_t next_client;
	struct net_stats stats;
	uint8_t *read_buffer, *scratch;
	size_t scratch_used;
	bool stopping, flushing;
	bool freed; /* by its owner; gone with its last handle */
	struct timeout grace;
	void (*done)(void *user);
	void *done_user;
};

/* ---- server.c ---- */
void server_wake(struct net_server *server);
void server_mark_dirty(struct net_connection *c);
/* The call is looked at again on the loop's next turn. */
void server_defer(struct net_call *call);
void server_undefer(struct net_call *call);
/* Out of the list of connections; the last one lets a stopping server end. */
void server_connection_gone(struct net_server *server);
/* A handle of the server's finished closing. */
void server_handle_closed(struct net_server *server);

/* ---- listen.c ---- */
void listeners_close(struct net_server *server);

/* ---- connection.c ---- */
void connection_accept(struct net_listener *listener);
void connection_flush(struct net_connection *c);
/* Begins the graceful end: no new streams, those under way finish. */
void connection_drain(struct net_connection *c);
/* Ends it now; handlers hear NET_END_DISCONNECTED. */
void connection_close(struct net_connection *c);
/* Holds the connection's window back, or gives it back, by what is queued. */
void connection_update_window(struct net_connection *c);
/* Callbacks of every session. */
nghttp2_session_callbacks *connection_callbacks_new(void);

/* ---- call.c ---- */
struct net_call *call_new(struct net_connection *c, int32_t stream);
void call_header(struct net_call *call, const uint8_t *name, size_t name_length,
		 const uint8_t *value, size_t value_length);
void call_begin(struct net_call *call);
void call_data(struct net_call *call, const uint8_t *bytes, size_t length);
void call_end_stream(struct net_call *call);
/* What a deferred call waited for. */
void call_resume(struct net_call *call);
/* The stream or the connection is gone. Frees the call. */
void call_free(struct net_call *call, enum net_end end);
/* The last frame of the answer was handed over. */
void call_answered(struct net_call *call);
/* Moves `length` bytes of output to the server's scratch, after their frame's header. */
void call_take_output(struct net_call *call, const uint8_t *frame_header, size_t length);

#endif
