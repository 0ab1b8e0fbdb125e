/*
 * fixture.h - a machine on the simulation, for a test: ops by their arguments, events
 * kept, and the audit after every op.
 */
#ifndef TESTS_ENGINE_FIXTURE_H
#define TESTS_ENGINE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* After the four above, as cmocka wants it. */
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/random.h"
#include "event.h"
#include "sim.h"

#define MIB_BYTES(n) ((u64)(n) << 20)
#define GIB_BYTES(n) ((u64)(n) << 30)

struct machine {
	struct sim *sim;
	struct engine *e;
	struct engine_result res; /* of the last op */
	u8 data[ENGINE_MAX_DATA];
	struct engine_event *events; /* since machine_forget_events() */
	u32 nr_events, max_events;
	struct engine_completion completed; /* the last one; op 0: none */
	u32 owner;			    /* of the ops to come */
	bool unchecked;			    /* leave the audit out, where speed matters */
};

static inline void machine_keep(void *user, const struct engine_event *events, u32 nr)
{
	struct machine *m = user;

	if (m->nr_events + nr > m->max_events) {
		m->max_events = (m->nr_events + nr) * 2;
		m->events = realloc(m->events, m->max_events * sizeof *events);
		assert_non_null(m->events);
	}
	memcpy(m->events + m->nr_events, events, nr * sizeof *events);
	m->nr_events += nr;
}

static inline void machine_completed(void *user, const struct engine_completion *c)
{
	((struct machine *)user)->completed = *c;
}

static inline struct sim_hooks machine_hooks(struct machine *m)
{
	return (struct sim_hooks){machine_keep, machine_completed, m, 0};
}

static inline void machine_take_events(struct machine *m)
{
	u32 nr;
	const struct engine_event *events = sim_take_events(m->sim, &nr);

	machine_keep(m, events, nr);
}

static inline void machine_forget_events(struct machine *m)
{
	m->nr_events = 0;
}

static inline u32 machine_count_events(const struct machine *m, u32 kind)
{
	u32 n = 0;

	for (u32 i = 0; i < m->nr_events; i++)
		n += m->events[i].kind == kind;
	return n;
}

/* The audit, and no TLB may have served what the tables do not hold. */
static inline void machine_check(struct machine *m)
{
	struct engine_error why;
	const char *lie = sim_check(m->sim, &why);

	if (lie)
		fail_msg("after op %llu: %s", (unsigned long long)m->res.op, lie);
	if (sim_stale_hits(m->sim))
		fail_msg("after op %llu: %llu stale TLB hits", (unsigned long long)m->res.op,
			 (unsigned long long)sim_stale_hits(m->sim));
}

static inline struct machine *machine_new(const struct engine_config *config)
{
	struct machine *m = calloc(1, sizeof *m);
	struct engine_error why = {""};
	struct sim_hooks hooks;

	assert_non_null(m);
	hooks = machine_hooks(m);
	m->sim = sim_new(config, &hooks, &why);
	if (!m->sim)
		fail_msg("no machine: %s", why.text);
	m->e = sim_engine(m->sim);
	machine_take_events(m);
	machine_check(m);
	return m;
}

static inline void machine_free(struct machine *m)
{
	sim_free(m->sim);
	free(m->events);
	free(m);
}

/* Executes an op as it stands. Returns its status. */
static inline u32 machine_run(struct machine *m, const struct engine_op *op)
{
	m->res.data = m->data;
	if (sim_execute(m->sim, op, &m->res, false) != SIM_DONE)
		fail_msg("machine lost: %s", sim_lost_reason(m->sim));
	machine_take_events(m);
	if (!m->unchecked)
		machine_check(m);
	return m->res.status;
}

/* An op of a task (0: the kernel) on a CPU, without data. */
#define machine_op_on(m, cpu_, task_, code_, ...)                 \
	machine_run((m), &(struct engine_op){.code = (code_),     \
					     .cpu = (cpu_),       \
					     .task = (task_),     \
					     .owner = (m)->owner, \
					     .args = {__VA_ARGS__}})
#define machine_op(m, code_, ...) machine_op_on(m, 0, 0, code_, __VA_ARGS__)

/* The seed in the environment variable SEED, or a fixed one; printed. */
static inline struct random random_seeded(u64 fixed)
{
	const char *text = getenv("SEED");
	u64 seed = text ? strtoull(text, NULL, 0) : fixed;

	print_message("SEED=%llu\n", (unsigned long long)seed);
	return (struct random){seed ? seed : 1};
}

#endif
