/*
 * report.h - what a what-if has shown, for people and as JSON.
 */
#ifndef REPLAY_REPORT_H
#define REPLAY_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "whatif.h"

void report_text(const struct whatif *x, FILE *to);
json_t *report_json(const struct whatif *x);

#endif
