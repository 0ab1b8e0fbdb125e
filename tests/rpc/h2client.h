/*
 * h2client.h - an HTTP/2 client for tests, in the same thread as the server.
 *
 * Frames are built by hand, so that wrong ones can be sent too; what comes back is
 * taken apart and kept per stream. Nothing waits: h2_pump() turns the loop until neither
 * side has anything more to say.
 */
#ifndef H2CLIENT_H
#define H2CLIENT_H

#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct h2_bytes {
	uint8_t *at;
	size_t length, room;
};

struct h2_stream {
	int http_status;    /* 0: no headers yet */
	int grpc_status;    /* -1: none yet */
	char message[4096]; /* grpc-message, decoded */
	char content_type[64];
	unsigned headers, data_frames, empty_data_frames, resets;
	uint32_t reset_code;
	bool ended;	/* END_STREAM came */
	int64_t window; /* what we may still send on it */
	struct h2_bytes data;
};

struct h2_client {
	uv_loop_t *loop;
	int fd;
	bool keep_windows; /* do not give windows back */
	bool no_settings_ack;
	bool no_ping_ack;
	bool eof;
	struct h2_bytes in;
	nghttp2_hd_inflater *inflater;
	struct h2_stream *streams; /* by (id - 1) / 2 */
	size_t nr_streams;
	unsigned goaways, pings, ping_acks, settings;
	uint32_t goaway_last, goaway_code;
	uint64_t received;	   /* bytes of DATA */
	int64_t connection_window; /* what we may still send */
	int64_t initial_window;	   /* of a stream */
};

struct h2_header {
	const char *name, *value;
};

void h2_bytes_add(struct h2_bytes *b, const void *bytes, size_t length);
void h2_bytes_free(struct h2_bytes *b);

/* Connects and, unless raw, sends the preface and SETTINGS (of one entry if id != 0). */
void h2_connect(struct h2_client *c, uv_loop_t *loop, const char *address);
void h2_start(struct h2_client *c, uint16_t setting, uint32_t value);
void h2_close(struct h2_client *c);
/* Sends bytes, turning the loop while the socket is full. False: the server hung up. */
bool h2_write(struct h2_client *c, const void *bytes, size_t length);
/* Turns the loop until nothing moves any more. */
void h2_pump(struct h2_client *c);
/* Turns the loop, sleeping in it, until *flag. */
void h2_wait(struct h2_client *c, const bool *flag);

void h2_frame(struct h2_bytes *out, uint8_t type, uint8_t flags, uint32_t stream,
	      const void *payload, size_t length);
void h2_put_headers(struct h2_bytes *out, uint32_t stream, uint8_t flags,
		    const struct h2_header *headers, size_t n);
/* The usual request headers, and extra ones up to a name of NULL (or extra is NULL). */
void h2_request(struct h2_client *c, uint32_t stream, const char *path,
		const struct h2_header *extra);
void h2_data(struct h2_client *c, uint32_t stream, uint8_t flags, const void *bytes, size_t length);
/* A gRPC message in one DATA frame, or in several if it is long. */
void h2_message(struct h2_client *c, uint32_t stream, uint8_t flags, const void *bytes,
		size_t length);
/* The same, obeying the windows. Returns the bytes that could not be sent for want of them. */
size_t h2_message_obey(struct h2_client *c, uint32_t stream, uint8_t flags, const void *bytes,
		       size_t length);
void h2_reset(struct h2_client *c, uint32_t stream, uint32_t code);
void h2_window(struct h2_client *c, uint32_t stream, uint32_t increment);
/* Created when first asked for; pointers die with the next call for a new stream. */
struct h2_stream *h2_stream(struct h2_client *c, uint32_t stream);

#endif
