/*
 * rates.c - how fast ops cross the link, beside the bare link: the same records echoed by
 * the guest without an engine, in turns with ops that do nothing, in the same run.
 *
 *   rates [KERNEL]
 *
 * Also order-0 pairs of AllocPages and FreePages, by the guest alone. Figures, not a test.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "guest.h"

enum { ROUNDS = 5, ONES = 4000, BATCHES = 60, BATCH = 1024 };

static u8 data[ENGINE_MAX_DATA];

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void give_up(const struct guest *g)
{
	fprintf(stderr, "rates: %s\n", g->error);
	exit(1);
}

/* Records a second, `at_once` in flight. */
static double measure(struct guest *g, u16 type, u32 rounds, u32 at_once)
{
	struct engine_op op = {.code = OP_WITHDRAW, .args = {1u << 30}};
	struct engine_result res = {.data = data};
	double start = now();

	for (u32 i = 0; i < rounds; i++) {
		for (u32 k = 0; k < at_once; k++)
			if (!guest_send(g, type, &op))
				give_up(g);
		for (u32 k = 0; k < at_once; k++)
			if (!guest_receive(g, &res))
				give_up(g);
	}
	return rounds * at_once / (now() - start);
}

static double pairs(struct guest *g)
{
	struct engine_op alloc = {.code = OP_ALLOC_PAGES, .args = {GFP_KERNEL}},
			 release = {.code = OP_FREE_PAGES};
	struct engine_result res = {.data = data};
	static u64 pfn[BATCH];
	double start = now();

	for (u32 round = 0; round < BATCHES; round++) {
		for (u32 k = 0; k < BATCH; k++)
			if (!guest_send(g, WIRE_OP, &alloc))
				give_up(g);
		for (u32 k = 0; k < BATCH; k++) {
			if (!guest_receive(g, &res))
				give_up(g);
			pfn[k] = res.values[0];
		}
		for (u32 k = 0; k < BATCH; k++) {
			release.args[0] = pfn[k];
			if (!guest_send(g, WIRE_OP, &release))
				give_up(g);
		}
		for (u32 k = 0; k < BATCH; k++)
			if (!guest_receive(g, &res))
				give_up(g);
	}
	return 2.0 * BATCHES * BATCH / (now() - start);
}

static void compare(struct guest *g, const char *what, u32 rounds, u32 at_once)
{
	double echo = 0, op = 0;

	for (u32 i = 0; i < ROUNDS; i++) {
		double e = measure(g, WIRE_ECHO, rounds, at_once);
		double o = measure(g, WIRE_OP, rounds, at_once);

		echo = e > echo ? e : echo;
		op = o > op ? o : op;
	}
	printf("%-14s echo %9.0f/s  op %9.0f/s  ratio %.2f\n", what, echo, op, op / echo);
}

int main(int argc, char **argv)
{
	struct engine_config config = {
	    .preset = PRESET_CLASSIC, .ram = 1024ull << 20, .detail = DETAIL_OPS};
	static struct guest g;

	if (!guest_start(&g, argc > 1 ? argv[1] : KERNEL_IMAGE, &config, config.ram))
		give_up(&g);
	compare(&g, "1 in flight", ONES, 1);
	compare(&g, "batch of 1024", BATCHES, BATCH);
	printf("alloc and free, batches of 1024: %.0f ops/s\n", pairs(&g));
	guest_stop(&g);
	return 0;
}
