/*
 * describe.h - ops, answers and events as a line of text, by the contract's names.
 */
#ifndef REPLAY_DESCRIBE_H
#define REPLAY_DESCRIBE_H

#include <stdio.h>

#include "contract_tables.h"
#include "engine.h"

/* "AllocPages gfp=0xcc0 order=3 cpu=1 task=2", without what is 0. */
void describe_op(FILE *to, const struct engine_op *op);
/* "OK pfn=0x7fc00 zone=ZONE_HIGHMEM", with what is 0. */
void describe_answer(FILE *to, uint32_t code, uint32_t status, const uint64_t *values);
/* "split pfn=0x100 from_order=10 ..." */
void describe_event(FILE *to, const struct engine_event *e);
const char *describe_status(uint32_t status);
/* "HIGHMEM" */
const char *describe_zone(uint32_t zone);
/* An enum of the contract by its name. */
const struct contract_enum *describe_enum(const char *name);

#endif
