/*
 * echo.h - methods that exercise net/ without any of the daemon behind them.
 *
 *   /test.Echo/Unary    sends the last message back when the client has sent all
 *   /test.Echo/Stream   sends every message back at once
 *   /test.Echo/Sleep    never answers
 *   /test.Echo/Fail     first byte: status; the rest: grpc-message
 *   /test.Echo/Early    fails with PERMISSION_DENIED before any message
 *   /test.Echo/Count    at the end: OK and the number of bytes received, in decimal
 *   /test.Echo/Flood    two big-endian u32: sends `count` messages of `size` bytes
 *   /test.Echo/Hold     pauses itself after every message; echo_resume_all() goes on
 *   /test.Echo/Public   as Unary, without a token
 */
#ifndef ECHO_H
#define ECHO_H

#include "net.h"

struct echo_stats {
	unsigned opened, closed[4]; /* by enum net_end */
	unsigned messages, half_closes;
	size_t largest_queue; /* seen by any method */
};
extern struct echo_stats echo_stats;

/* An options.route; user is ignored. */
const struct net_method *echo_route(void *user, const char *path, size_t length);
/* Resumes every paused Hold call. Returns how many there were. */
unsigned echo_resume_all(void);

#endif
