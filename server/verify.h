/*
 * verify.h - `zoned verify`: is a history the truth? No daemon is asked, and one that writes
 * the same history meanwhile goes on; its log can start again only between two passes.
 *
 * It lives in the daemon's binary, where the engine is; zonectl runs it as `history verify`.
 */
#ifndef VERIFY_H
#define VERIFY_H

/* argv[0] is "verify". Returns the exit code. */
int verify_command(int argc, char **argv);

#endif
