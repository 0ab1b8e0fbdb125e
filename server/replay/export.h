/*
 * export.h - `zoned export`: a recorded history for other programs. It reads as `zoned replay`
 * does, and zonectl runs it as `history export`.
 */
#ifndef REPLAY_EXPORT_H
#define REPLAY_EXPORT_H

/* argv[0] is "export". Returns the exit code. */
int export_command(int argc, char **argv);

#endif
