/*
 * net_fixture.h - a server of echo methods and its clients, in one thread and one loop.
 *
 * stop_server() checks that each call that was opened was closed once.
 */
#ifndef NET_FIXTURE_H
#define NET_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "echo.h"
#include "h2client.h"

#define END NGHTTP2_FLAG_END_STREAM
#define KIB 1024u

extern uv_loop_t loop;
extern struct net_server *server;
extern char address[200];     /* of the Unix socket */
extern char tcp_address[200]; /* with a token only */
extern bool done;	      /* the server has shut down */
/* What routes paths; echo_route unless a test sets it before start_server(). */
extern const struct net_method *(*fixture_route)(void *user, const char *path, size_t length);

void start_server(const struct net_limits *limits, const char *token);
void done_cb(void *user); /* sets the bool that user points to */
void run_until_done(void);
void stop_server(void);
int setup(void **state);
int teardown(void **state);

/* Connects and checks the server's first words. */
void connect_client(struct h2_client *c);
/* A unary call of /test.Echo/Unary that must succeed: the connection is alive. */
void assert_alive(struct h2_client *c, uint32_t stream);
/* The same over a connection of its own. */
void assert_server_alive(void);
void assert_trailers_only(const struct h2_stream *s, int status);

#define SERVED(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

#endif
