/*
 * copy.c - RAM copied for Snapshot and Fork in a thread of the loop's pool.
 *
 * To copy a gigabyte takes longer than others should wait. So the op's machine stands
 * still, as if it were looked into, and the op ends when the copy is made.
 *
 * Invariants:
 *  1. A copy under way is a look of the machine, so that whatever ends the machine leaves
 *     the back end alone until the thread is done with it.
 *  2. machine.copying is the copy that the running op waits for. One that no machine has
 *     any more frees itself when its thread is done.
 */
#include "machine_priv.h"

#include <stdlib.h>

struct machine_copy {
	struct machine_look look; /* first */
	struct machines *ms;
	struct machine *copy; /* in no registry */
	bool is_made;
};

static void copy_ram(struct machine_look *l)
{
	struct machine_copy *c = (struct machine_copy *)l;
	struct backend_hooks hooks = machine_backend_hooks;

	hooks.user = c->copy;
	machine_attach_backend(c->copy, l->backend->type->copy(l->backend, &hooks));
}

static void free_copy(struct machine_copy *c)
{
	c->ms->nr_copying--;
	if (c->copy)
		machine_free(c->copy);
	free(c);
}

static void copy_made(struct machine_look *l, struct machine *m)
{
	struct machine_copy *c = (struct machine_copy *)l;

	if (!m || m->copying != c) {
		free_copy(c);
		return;
	}
	c->is_made = true;
	machine_ready(m);
}

bool machine_begin_copy(struct machine *m)
{
	const struct engine_op *op = &m->running->op;
	uv_loop_t *loop = m->ms->hooks.loop;
	struct machine_copy *c;

	if (!loop || m->look || machines_may_add(m->ms, (const char *)op->data, op->data_len))
		return false;
	c = calloc(1, sizeof *c);
	if (!c)
		abort();
	c->ms = m->ms;
	c->copy = machine_make(m->ms, (const char *)op->data, op->data_len, m->type, &m->config);
	c->look.look = copy_ram;
	c->look.done = copy_made;
	m->copying = c;
	m->ms->nr_copying++;
	machine_begin_look(m, loop, &c->look);
	return true;
}

bool machine_copied(const struct machine *m)
{
	return m->copying && m->copying->is_made;
}

struct machine *machine_take_copy(struct machine *m)
{
	struct machine_copy *c = m->copying;
	struct machine *copy = c->copy;

	m->copying = NULL;
	if (copy->backend)
		c->copy = NULL;
	else
		copy = NULL;
	free_copy(c);
	return copy;
}

void machine_forget_copy(struct machine *m)
{
	struct machine_copy *c = m->copying;

	m->copying = NULL;
	if (c && c->is_made)
		free_copy(c);
}

unsigned machines_copying(const struct machines *ms)
{
	return ms->nr_copying;
}
