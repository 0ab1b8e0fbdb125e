/*
 * settings.h - other configurations, as words: "split=2G", "ram=4G,8G".
 */
#ifndef REPLAY_SETTINGS_H
#define REPLAY_SETTINGS_H

#include "engine.h"

/* Changes a configuration by "key=value". Keys are the integer fields of MachineConfig,
 * and split. False with `why`. */
bool settings_apply(struct engine_config *config, const char *setting, struct engine_error *why);
/* What --help says of the keys. */
void settings_print_help(void);

#endif
