/*
 * recorded_priv.h - what recorded.c lends to verify.c.
 */
#ifndef RECORDED_PRIV_H
#define RECORDED_PRIV_H

#include "history_priv.h"
#include "recorded.h"

sqlite3 *recorded_db(const struct recorded *r);

#endif
