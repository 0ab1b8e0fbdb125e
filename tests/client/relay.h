/*
 * relay.h - stands between a client and a daemon and can break the connection after any
 * byte. A thread of its own; one connection at a time.
 */
#ifndef TESTS_CLIENT_RELAY_H
#define TESTS_CLIENT_RELAY_H

#include <stdbool.h>
#include <stddef.h>

enum relay_way { TO_DAEMON, TO_CLIENT };

struct relay;

/* Listens at `from`; whatever connects there is connected to `to` (both "unix:PATH"). */
struct relay *relay_start(const char *from, const char *to);
void relay_stop(struct relay *r);
/* The connection that carries the byte after the next `bytes` in this direction breaks
 * before it does. Once: later connections are whole. */
void relay_cut_after(struct relay *r, enum relay_way way, size_t bytes);
/* So do all later ones, by turns after so many bytes and after so many others. */
void relay_cut_each_after(struct relay *r, enum relay_way way, size_t bytes, size_t others);
/* Connections that came so far. */
unsigned relay_connections(struct relay *r);
/* Has that happened? It no longer will. */
bool relay_was_cut(struct relay *r);

#endif
