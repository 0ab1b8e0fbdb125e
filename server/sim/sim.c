/*
 * sim.c - the machine's body: made, copied, executing, and the engine's port.
 *
 * Invariants:
 *   1 the engine runs on the caller's stack under a guard, or on the fiber; so a broken
 *     invariant always has somewhere to go, and never ends the process;
 *   2 a machine that is lost is never entered again: its RAM may be half changed;
 *   3 nothing here changes RAM but what the engine asks for, and accessed/dirty bits.
 */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "event.h"
#include "map/pgtable.h"
#include "sim_internal.h"

enum { DEFAULT_EVENTS = 4096 };

static struct sim *sim_of(struct engine *e)
{
	return e->port;
}

/* ---- made and ended ---- */

enum { OWN_RAM = -1 };

static bool make_ram(struct arena *a, const struct layout *layout, int ram_file)
{
	u64 low = (u64)layout->low_end_pfn << PAGE_SHIFT, all = (u64)layout->max_pfn << PAGE_SHIFT;

	return ram_file == OWN_RAM ? arena_make(a, low, all) : arena_share(a, low, all, ram_file);
}

static struct sim *make_body(const struct engine_config *config, const struct sim_hooks *hooks,
			     int ram_file, struct engine_error *why)
{
	struct sim *s = calloc(1, sizeof *s);
	struct layout layout;
	u32 max_events;

	if (!s || !layout_compute(config, &layout, why) ||
	    !ram_map_make(config, (u64)layout.max_pfn << PAGE_SHIFT, &s->ram, why)) {
		free(s);
		return NULL;
	}
	s->config = *config;
	s->hooks = *hooks;
	s->pae = layout.pae;
	s->nr_cpus = layout.cpus;
	s->cpu = calloc(layout.cpus, sizeof s->cpu[0]);
	max_events = hooks->max_events ? hooks->max_events : DEFAULT_EVENTS;
	engine_set_events(&s->engine, calloc(max_events, sizeof s->engine.events[0]), max_events);
	if (!make_ram(&s->arena, &layout, ram_file) || !s->cpu || !s->engine.events) {
		snprintf(why->text, sizeof why->text, "no memory for a machine of %u MiB",
			 layout.max_pfn >> (20 - PAGE_SHIFT));
		sim_free(s);
		return NULL;
	}
	for (u32 cpu = 0; cpu < s->nr_cpus; cpu++)
		tlb_init(&s->cpu[cpu].tlb, s->pae);
	s->engine.bias = (uintptr_t)s->arena.base - layout.page_offset;
	s->engine.port = s;
	return s;
}

/* ---- into the engine and out ---- */

/* Calls fn(arg), which runs the engine. False: the machine is lost, before or because of
 * it; a broken invariant inside comes out here. */
static bool enter(struct sim *s, void (*fn)(void *arg), void *arg)
{
	jmp_buf jump;

	if (s->lost)
		return false;
	s->guard = &jump;
	if (_setjmp(jump) == 0)
		fn(arg);
	s->guard = NULL;
	return !s->lost;
}

struct create_call {
	struct sim *s;
	struct engine_error *why;
	bool made;
};

static void call_create(void *arg)
{
	struct create_call *c = arg;

	c->made = engine_create(&c->s->engine, &c->s->config, c->why);
}

struct sim *sim_new(const struct engine_config *config, const struct sim_hooks *hooks,
		    struct engine_error *why)
{
	struct create_call call = {.s = make_body(config, hooks, OWN_RAM, why), .why = why};

	if (!call.s)
		return NULL;
	if (!enter(call.s, call_create, &call))
		memcpy(why->text, call.s->lost_reason, sizeof why->text);
	else if (call.made)
		return call.s;
	sim_free(call.s);
	return NULL;
}

struct sim *sim_new_empty(const struct engine_config *config, const struct sim_hooks *hooks,
			  struct engine_error *why)
{
	return make_body(config, hooks, OWN_RAM, why);
}

u8 *sim_frame(struct sim *s, pfn_t pfn)
{
	u8 *bytes =
	    (u64)pfn << PAGE_SHIFT < s->arena.bytes ? sim_ram(s, (u64)pfn << PAGE_SHIFT) : NULL;

	if (bytes)
		arena_mark(&s->arena, pfn);
	return bytes;
}

bool sim_take_up(struct sim *s)
{
	return engine_attach(&s->engine, &s->config);
}

size_t sim_host_state_size(const struct sim *s)
{
	return s->nr_cpus * sizeof s->cpu[0];
}

const void *sim_host_state(const struct sim *s)
{
	return s->cpu;
}

bool sim_set_host_state(struct sim *s, const void *state, size_t size)
{
	if (size != sim_host_state_size(s))
		return false;
	memcpy(s->cpu, state, size);
	return true;
}

struct sim *sim_copy(struct sim *from, const struct sim_hooks *hooks)
{
	struct engine_error ignored;
	struct sim *s = from->lost ? NULL : make_body(&from->config, hooks, OWN_RAM, &ignored);

	if (!s)
		return NULL;
	arena_copy(&s->arena, &from->arena);
	for (u32 cpu = 0; cpu < s->nr_cpus; cpu++)
		s->cpu[cpu].cr3 = from->cpu[cpu].cr3;
	if (!engine_attach(&s->engine, &s->config)) {
		sim_free(s);
		return NULL;
	}
	return s;
}

struct sim *sim_view(const struct engine_config *config, int ram_file, struct engine_error *why)
{
	struct sim *s = make_body(config, &(struct sim_hooks){0}, ram_file, why);

	if (!s || engine_attach(&s->engine, &s->config))
		return s;
	snprintf(why->text, sizeof why->text, "there is no machine in this RAM");
	sim_free(s);
	return NULL;
}

void sim_free(struct sim *s)
{
	if (!s)
		return;
	fiber_free(s->fiber);
	arena_free(&s->arena);
	free(s->cpu);
	free(s->engine.events);
	free(s);
}

struct engine *sim_engine(struct sim *s)
{
	return &s->engine;
}

void sim_set_hooks(struct sim *s, const struct sim_hooks *hooks)
{
	s->hooks = *hooks;
}

void sim_set_quiet(struct sim *s, bool quiet)
{
	s->quiet = quiet;
	engine_set_detail(&s->engine, s->engine.st->detail);
}

/* ---- executing ---- */

/* Ops that can touch more than ENGINE_YIELD_FRAMES frames. The others are done before
 * a switch of stacks would pay. */
static bool is_long(const struct engine_op *op)
{
	switch (op->code) {
	case OP_BOOT:
	case OP_LOAD_STATE:
	case OP_VMALLOC:
	case OP_VFREE:
	case OP_VMAP:
	case OP_VUNMAP:
	case OP_IOREMAP:
	case OP_IOUNMAP:
	case OP_PURGE_VMAP:
	case OP_TASK_FORK:
	case OP_TASK_EXIT:
	case OP_MMAP:
	case OP_MUNMAP:
	case OP_MPROTECT:
	case OP_BRK:
	case OP_FILE_CREATE:
	case OP_FILE_DELETE: return true;
	default: return false;
	}
}

static void run_op(void *arg)
{
	struct sim *s = arg;

	/* Each time, because SetPolicy chooses anew. */
	if (s->quiet)
		memset(s->engine.event_mask, 0, sizeof s->engine.event_mask);
	engine_execute(&s->engine, s->op, s->res);
}

static enum sim_status status_of(const struct sim *s, bool done)
{
	return s->lost ? SIM_LOST : done ? SIM_DONE : SIM_MORE;
}

enum sim_status sim_execute(struct sim *s, const struct engine_op *op, struct engine_result *res,
			    bool sliced)
{
	if (s->lost)
		return SIM_LOST;
	s->op = op;
	s->res = res;
	if (sliced && is_long(op)) {
		if (!s->fiber)
			s->fiber = fiber_new();
		if (s->fiber)
			return status_of(s, fiber_run(s->fiber, run_op, s));
		/* Without memory for a stack the op runs in one piece. */
	}
	enter(s, run_op, s);
	return status_of(s, true);
}

enum sim_status sim_continue(struct sim *s)
{
	if (s->lost)
		return SIM_LOST;
	return status_of(s, fiber_continue(s->fiber));
}

const struct engine_event *sim_take_events(struct sim *s, u32 *ret_nr)
{
	*ret_nr = engine_nr_events(&s->engine);
	engine_forget_events(&s->engine);
	return s->engine.events;
}

struct check_call {
	struct sim *s;
	struct engine_error *why;
	const char *lie;
};

static void call_check(void *arg)
{
	struct check_call *c = arg;

	c->lie = engine_check(&c->s->engine, c->why);
}

const char *sim_check(struct sim *s, struct engine_error *why)
{
	struct check_call call = {s, why, NULL};

	return enter(s, call_check, &call) ? call.lie : s->lost_reason;
}

struct inspect_call {
	struct sim *s;
	u32 question;
	const u64 *args;
	struct inspect_sink *sink;
	u32 status;
};

static void call_inspect(void *arg)
{
	struct inspect_call *c = arg;

	c->status = engine_inspect(&c->s->engine, c->question, c->args, c->sink);
}

u32 sim_inspect(struct sim *s, u32 question, const u64 args[OP_ARGS], struct inspect_sink *sink)
{
	struct inspect_call call = {s, question, args, sink, STATUS_LOST};

	return enter(s, call_inspect, &call) ? call.status : STATUS_LOST;
}

const char *sim_lost_reason(const struct sim *s)
{
	return s->lost ? s->lost_reason : NULL;
}

u64 sim_stale_hits(const struct sim *s)
{
	return s->stale_hits;
}

u64 sim_resident_bytes(const struct sim *s)
{
	return arena_resident_bytes(&s->arena);
}

/* ---- RAM ---- */

u8 *sim_ram(struct sim *s, paddr_t paddr)
{
	const struct engine_range *r = &s->ram.range[s->last_range];

	if (paddr - r->start >= r->size) {
		u32 low = 0, high = s->ram.nr;

		while (low < high) {
			u32 mid = (low + high) / 2;

			if (s->ram.range[mid].start + s->ram.range[mid].size > paddr)
				high = mid;
			else
				low = mid + 1;
		}
		if (low == s->ram.nr || s->ram.range[low].start > paddr)
			return NULL;
		s->last_range = low;
	}
	return s->arena.base + paddr;
}

struct digest_walk {
	struct digest_source source; /* first: the engine hands it back */
	struct sim *sim;
	struct engine_digest digest; /* zeros when the machine is lost */
	struct arena_cursor cursor;
};

static pfn_t digest_next(struct digest_source *source, pfn_t from)
{
	return arena_next(&((struct digest_walk *)source)->cursor, from);
}

static void digest_copy(struct digest_source *source, pfn_t pfn, u64 words[PAGE_SIZE / 8])
{
	struct sim *s = ((struct digest_walk *)source)->sim;

	memcpy(words, s->arena.base + ((u64)pfn << PAGE_SHIFT), PAGE_SIZE);
}

static void call_digest(void *arg)
{
	struct digest_walk *walk = arg;

	walk->digest = engine_digest(&walk->sim->engine, &walk->source);
}

struct engine_digest sim_digest(struct sim *s)
{
	struct digest_walk walk = {.source = {digest_next, digest_copy}, .sim = s};

	arena_cursor_open(&walk.cursor, &s->arena);
	enter(s, call_digest, &walk);
	arena_cursor_close(&walk.cursor);
	return walk.digest;
}

void sim_read_physical(struct sim *s, paddr_t paddr, void *to, u32 bytes)
{
	struct arena_cursor cursor;
	u8 *out = to;

	arena_cursor_open(&cursor, &s->arena);
	while (bytes) {
		u32 offset = (u32)(paddr & (PAGE_SIZE - 1));
		u32 n = bytes < PAGE_SIZE - offset ? bytes : PAGE_SIZE - offset;
		pfn_t pfn = (pfn_t)(paddr >> PAGE_SHIFT);
		const u8 *from = sim_ram(s, paddr);

		if (!from)
			memset(out, 0xff, n);
		else if (!arena_has(&cursor, pfn))
			memset(out, 0, n);
		else
			memcpy(out, from, n);
		paddr += n;
		out += n;
		bytes -= n;
	}
	arena_cursor_close(&cursor);
}

/* ---- the port ---- */

/* The bytes behind a kernel mapping, which must serve the access. NULL: no RAM. */
static u8 *kernel_bytes(struct engine *e, u32 cpu, va_t va, u32 mode)
{
	struct sim *s = sim_of(e);
	struct mmu_access a = {va, mode, false};
	u32 error;
	translation_t t = mmu_translate(s, cpu, &a, &error);
	paddr_t paddr = (t & MMU_FRAME) | (va & (PAGE_SIZE - 1));
	u8 *ram = sim_ram(s, paddr);

	ENGINE_ASSERT(e, t != 0);
	if (ram && mode == ACCESS_WRITE)
		arena_mark(&s->arena, (pfn_t)(paddr >> PAGE_SHIFT));
	return ram;
}

void port_clear_page(struct engine *e, u32 cpu, va_t page)
{
	port_fill_page(e, cpu, page, 0);
}

void port_fill_page(struct engine *e, u32 cpu, va_t page, u8 byte)
{
	u8 *to = kernel_bytes(e, cpu, page, ACCESS_WRITE);

	if (to)
		memset(to, byte, PAGE_SIZE);
}

void port_copy_page(struct engine *e, u32 cpu, va_t to, va_t from)
{
	const u8 *src = kernel_bytes(e, cpu, from, ACCESS_READ);
	u8 *dst = kernel_bytes(e, cpu, to, ACCESS_WRITE);

	if (dst && src)
		memcpy(dst, src, PAGE_SIZE);
	else if (dst)
		memset(dst, 0xff, PAGE_SIZE);
}

static u32 rest_of_page(va_t va, u32 bytes)
{
	u32 rest = PAGE_SIZE - (va & (PAGE_SIZE - 1));

	return bytes < rest ? bytes : rest;
}

void port_read(struct engine *e, u32 cpu, va_t from, void *to, u32 bytes)
{
	for (u32 n; bytes; bytes -= n, from += n, to = (u8 *)to + n) {
		const u8 *src = kernel_bytes(e, cpu, from, ACCESS_READ);

		n = rest_of_page(from, bytes);
		if (src)
			memcpy(to, src, n);
		else
			memset(to, 0xff, n);
	}
}

void port_write(struct engine *e, u32 cpu, va_t to, const void *from, u32 bytes)
{
	for (u32 n; bytes; bytes -= n, to += n, from = (const u8 *)from + n) {
		u8 *dst = kernel_bytes(e, cpu, to, ACCESS_WRITE);

		n = rest_of_page(to, bytes);
		if (dst)
			memcpy(dst, from, n);
	}
}

bool port_access(struct engine *e, u32 cpu, struct port_access *a)
{
	struct sim *s = sim_of(e);
	struct mmu_access access = {a->va, a->mode, a->user};
	translation_t t = mmu_translate(s, cpu, &access, &a->ret_error_code);
	paddr_t paddr = (t & MMU_FRAME) | (a->va & (PAGE_SIZE - 1));
	u8 *ram;

	if (!t) {
		a->ret_fault_va = a->va;
		return false;
	}
	ram = sim_ram(s, paddr);
	if (a->mode != ACCESS_WRITE) {
		if (ram)
			memcpy(a->bytes, ram, a->length);
		else
			memset(a->bytes, 0xff, a->length);
	} else if (ram) {
		arena_mark(&s->arena, (pfn_t)(paddr >> PAGE_SHIFT));
		memcpy(ram, a->bytes, a->length);
	}
	return true;
}

void port_load_cr3(struct engine *e, u32 cpu, u32 paddr)
{
	struct sim *s = sim_of(e);

	s->cpu[cpu].cr3 = paddr;
	tlb_flush_local(&s->cpu[cpu].tlb);
}

void port_flush_page(struct engine *e, u32 cpu, va_t page)
{
	tlb_flush_range(&sim_of(e)->cpu[cpu].tlb, page, 1);
}

void port_flush_tlb(struct engine *e, u32 cpus, va_t va, u32 nr_pages)
{
	struct sim *s = sim_of(e);

	for (u32 cpu = 0; cpu < s->nr_cpus; cpu++) {
		if (!(cpus >> cpu & 1))
			continue;
		if (nr_pages)
			tlb_flush_range(&s->cpu[cpu].tlb, va, nr_pages);
		else
			tlb_flush_all(&s->cpu[cpu].tlb);
	}
}

void port_events(struct engine *e)
{
	struct sim *s = sim_of(e);

	if (s->hooks.events)
		s->hooks.events(s->hooks.user, e->events, engine_nr_events(e));
	engine_forget_events(e);
}

void port_complete(struct engine *e, const struct engine_completion *c)
{
	struct sim *s = sim_of(e);

	if (s->hooks.complete)
		s->hooks.complete(s->hooks.user, c);
}

void port_yield(struct engine *e)
{
	struct sim *s = sim_of(e);

	if (fiber_is_running(s->fiber))
		fiber_leave(s->fiber);
}

void port_panic(struct engine *e, const char *file, u32 line, const char *what)
{
	struct sim *s = sim_of(e);

	s->lost = true;
	snprintf(s->lost_reason, sizeof s->lost_reason, "op %llu: %s:%u: %s",
		 (unsigned long long)op_number(e), file, line, what);
	if (fiber_is_running(s->fiber))
		fiber_abandon(s->fiber);
	if (s->guard)
		_longjmp(*s->guard, 1);
	/* The engine was entered behind the simulation's back: sim_engine() and a function
	 * that does not only read. */
	fprintf(stderr, "%s\n", s->lost_reason);
	abort();
}
