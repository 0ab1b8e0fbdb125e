/*
 * compact.h - `zoned compact`: a history's file without what is free in it. No daemon may
 * have it meanwhile.
 *
 * It lives in the daemon's binary, where the writer of histories is; zonectl runs it as
 * `history compact`.
 */
#ifndef COMPACT_H
#define COMPACT_H

/* argv[0] is "compact". Returns the exit code. */
int compact_command(int argc, char **argv);

#endif
