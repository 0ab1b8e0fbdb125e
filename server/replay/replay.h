/*
 * replay.h - a recorded machine played again, by itself: no daemon is asked, and one that
 * writes the same history meanwhile is not disturbed.
 *
 * It lives in the daemon's binary, where the engine and both back ends are; zonectl, which
 * may use nothing of the server's, runs `zoned replay` that lies beside it.
 */
#ifndef REPLAY_H
#define REPLAY_H

/* `zoned replay`: argv[0] is "replay". Returns the exit code. */
int replay_command(int argc, char **argv);

#endif
