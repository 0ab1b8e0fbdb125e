/*
 * echo.c - methods that exercise net/ without any of the daemon behind them.
 *
 * Flood keeps at most FLOOD_QUEUE bytes queued and waits for writable(), as a service
 * that streams rows should.
 */
#include "echo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

enum { FLOOD_QUEUE = 256 * 1024, FLOOD_MESSAGE = 16 << 20 };

struct echo {
	LIST_ENTRY(echo) link; /* of a Hold call */
	struct net_call *call;
	uint8_t *last;
	size_t length, received;
	uint32_t left, size; /* of Flood */
	bool paused;
};

struct echo_stats echo_stats;
static LIST_HEAD(, echo) holders = LIST_HEAD_INITIALIZER(holders);

static void note_queue(const struct net_call *call)
{
	if (net_queued(call) > echo_stats.largest_queue)
		echo_stats.largest_queue = net_queued(call);
}

static void open_cb(struct net_call *call)
{
	struct echo *echo = calloc(1, sizeof(*echo));

	if (!echo)
		abort();
	echo->call = call;
	net_call_set_user(call, echo);
	LIST_INSERT_HEAD(&holders, echo, link);
	echo_stats.opened++;
}

static void closed_cb(struct net_call *call, enum net_end end)
{
	struct echo *echo = net_call_user(call);

	echo_stats.closed[end]++;
	LIST_REMOVE(echo, link);
	free(echo->last);
	free(echo);
}

static void keep_cb(struct net_call *call, const uint8_t *bytes, size_t length)
{
	struct echo *echo = net_call_user(call);

	echo_stats.messages++;
	echo->received += length;
	free(echo->last);
	echo->last = malloc(length + 1);
	if (!echo->last)
		abort();
	if (length)
		memcpy(echo->last, bytes, length);
	echo->length = length;
}

static void unary_half_close_cb(struct net_call *call)
{
	struct echo *echo = net_call_user(call);

	echo_stats.half_closes++;
	if (!echo->last) {
		net_finish(call, NET_INVALID_ARGUMENT, "no message");
		return;
	}
	net_send(call, echo->last, echo->length);
	net_finish(call, NET_OK, NULL);
}

static void stream_message_cb(struct net_call *call, const uint8_t *bytes, size_t length)
{
	echo_stats.messages++;
	if (length)
		memcpy(net_send_room(call, length), bytes, length);
	else
		net_send(call, NULL, 0);
	note_queue(call);
}

static void ok_half_close_cb(struct net_call *call)
{
	echo_stats.half_closes++;
	net_finish(call, NET_OK, NULL);
}

static void ignore_half_close_cb(struct net_call *call)
{
	(void)call;
	echo_stats.half_closes++;
}

static void fail_half_close_cb(struct net_call *call)
{
	struct echo *echo = net_call_user(call);

	if (!echo->length) {
		net_finish(call, NET_UNKNOWN, "fail with what?");
		return;
	}
	echo->last[echo->length] = '\0';
	net_finish(call, (enum net_status)(echo->last[0] % (NET_UNAUTHENTICATED + 1)),
		   (const char *)echo->last + 1);
}

static void early_open_cb(struct net_call *call)
{
	open_cb(call);
	net_finish(call, NET_PERMISSION_DENIED, "not you");
}

static void count_half_close_cb(struct net_call *call)
{
	const struct echo *echo = net_call_user(call);
	char text[32];

	net_send(call, (const uint8_t *)text,
		 (size_t)snprintf(text, sizeof(text), "%zu", echo->received));
	net_finish(call, NET_OK, NULL);
}

static uint32_t be32(const uint8_t *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void flood_writable_cb(struct net_call *call)
{
	struct echo *echo = net_call_user(call);

	if (!echo->size)
		return;
	while (echo->left && net_queued(call) < FLOOD_QUEUE) {
		memset(net_send_room(call, echo->size), (int)(echo->left & 255), echo->size);
		echo->left--;
	}
	note_queue(call);
	if (!echo->left)
		net_finish(call, NET_OK, NULL);
}

static void flood_half_close_cb(struct net_call *call)
{
	struct echo *echo = net_call_user(call);

	if (echo->length != 8) {
		net_finish(call, NET_INVALID_ARGUMENT, "needs count and size");
		return;
	}
	echo->left = be32(echo->last);
	echo->size = be32(echo->last + 4);
	if (!echo->size || echo->size > FLOOD_MESSAGE) {
		net_finish(call, NET_INVALID_ARGUMENT, "messages of a size from 1 on, to 16 MiB");
		return;
	}
	flood_writable_cb(call);
}

static void hold_message_cb(struct net_call *call, const uint8_t *bytes, size_t length)
{
	struct echo *echo = net_call_user(call);

	stream_message_cb(call, bytes, length);
	net_pause(call);
	echo->paused = true;
}

unsigned echo_resume_all(void)
{
	struct echo *echo;
	unsigned n = 0;

	LIST_FOREACH(echo, &holders, link)
	{
		if (!echo->paused)
			continue;
		echo->paused = false;
		net_resume(echo->call);
		n++;
	}
	return n;
}

#define HANDLER(name, ...) static const struct net_handler name = {.closed = closed_cb, __VA_ARGS__}

HANDLER(unary, .open = open_cb, .message = keep_cb, .half_close = unary_half_close_cb);
HANDLER(stream, .open = open_cb, .message = stream_message_cb, .half_close = ok_half_close_cb);
HANDLER(sleeper, .open = open_cb, .message = keep_cb, .half_close = ignore_half_close_cb);
HANDLER(failing, .open = open_cb, .message = keep_cb, .half_close = fail_half_close_cb);
HANDLER(early, .open = early_open_cb, .message = keep_cb, .half_close = ok_half_close_cb);
HANDLER(count, .open = open_cb, .message = keep_cb, .half_close = count_half_close_cb);
HANDLER(flood, .open = open_cb, .message = keep_cb, .half_close = flood_half_close_cb,
	.writable = flood_writable_cb);
HANDLER(hold, .open = open_cb, .message = hold_message_cb, .half_close = ok_half_close_cb);

static const struct net_method methods[] = {
    {"/test.Echo/Unary", &unary, NULL, false},	 {"/test.Echo/Stream", &stream, NULL, false},
    {"/test.Echo/Sleep", &sleeper, NULL, false}, {"/test.Echo/Fail", &failing, NULL, false},
    {"/test.Echo/Early", &early, NULL, false},	 {"/test.Echo/Count", &count, NULL, false},
    {"/test.Echo/Flood", &flood, NULL, false},	 {"/test.Echo/Hold", &hold, NULL, false},
    {"/test.Echo/Public", &unary, NULL, true},
};

const struct net_method *echo_route(void *user, const char *path, size_t length)
{
	(void)user;
	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
		if (strlen(methods[i].path) == length && memcmp(methods[i].path, path, length) == 0)
			return &methods[i];
	}
	return NULL;
}
