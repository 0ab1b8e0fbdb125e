/*
 * fiber.c - see fiber.h. ucontext, with what the sanitizers want to be told about a
 * change of stacks.
 *
 * A switch costs a system call for the signal mask: half a microsecond, which only long
 * ops pay.
 */
#include "fiber.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define WITH_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WITH_TSAN 1
#endif
#endif

#ifdef WITH_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef WITH_TSAN
#include <sanitizer/tsan_interface.h>
#endif

enum { STACK_BYTES = 256 * 1024, GUARD_BYTES = 4096 };

struct fiber {
	ucontext_t self, caller;
	char *mapping; /* guard page, then the stack */
	void (*fn)(void *arg);
	void *arg;
	bool running, done;
	/* The sanitizers' names for the two stacks. */
	void *caller_fake, *self_fake;
	const void *caller_bottom;
	size_t caller_bytes;
	void *tsan_self, *tsan_caller;
};

/* Before and after a switch of stacks. `fake` is where the stack that is left keeps its
 * fake frames; NULL: it will never be entered again. */
static void before_switch(void **fake, const void *bottom, size_t bytes, void *tsan_to)
{
#ifdef WITH_ASAN
	__sanitizer_start_switch_fiber(fake, bottom, bytes);
#endif
#ifdef WITH_TSAN
	__tsan_switch_to_fiber(tsan_to, 0);
#endif
	(void)fake, (void)bottom, (void)bytes, (void)tsan_to;
}

static void after_switch(void *fake, const void **from_bottom, size_t *from_bytes)
{
#ifdef WITH_ASAN
	__sanitizer_finish_switch_fiber(fake, from_bottom, from_bytes);
#endif
	(void)fake, (void)from_bottom, (void)from_bytes;
}

struct fiber *fiber_new(void)
{
	struct fiber *f = calloc(1, sizeof *f);

	if (!f)
		return NULL;
	f->mapping = mmap(NULL, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (f->mapping == MAP_FAILED) {
		free(f);
		return NULL;
	}
	if (mprotect(f->mapping, GUARD_BYTES, PROT_NONE) != 0) {
		fiber_free(f);
		return NULL;
	}
#ifdef WITH_TSAN
	f->tsan_self = __tsan_create_fiber(0);
#endif
	return f;
}

void fiber_free(struct fiber *f)
{
	if (!f)
		return;
#ifdef WITH_TSAN
	if (f->tsan_self)
		__tsan_destroy_fiber(f->tsan_self);
#endif
	munmap(f->mapping, GUARD_BYTES + STACK_BYTES);
	free(f);
}

static void leave(struct fiber *f, bool for_good)
{
	f->running = false;
	before_switch(for_good ? NULL : &f->self_fake, f->caller_bottom, f->caller_bytes,
		      f->tsan_caller);
	swapcontext(&f->self, &f->caller);
	after_switch(f->self_fake, &f->caller_bottom, &f->caller_bytes);
}

/* makecontext() passes ints: a pointer comes in two halves. */
static void fiber_main(unsigned high, unsigned low)
{
	struct fiber *f = (struct fiber *)(uintptr_t)((uint64_t)high << 32 | low);

	after_switch(NULL, &f->caller_bottom, &f->caller_bytes);
	f->fn(f->arg);
	fiber_abandon(f);
}

void fiber_abandon(struct fiber *f)
{
	f->done = true;
	leave(f, true);
	abort(); /* a fiber that is done is never entered again */
}

void fiber_leave(struct fiber *f)
{
	leave(f, false);
}

bool fiber_continue(struct fiber *f)
{
	f->running = true;
#ifdef WITH_TSAN
	f->tsan_caller = __tsan_get_current_fiber();
#endif
	before_switch(&f->caller_fake, f->mapping + GUARD_BYTES, STACK_BYTES, f->tsan_self);
	swapcontext(&f->caller, &f->self);
	after_switch(f->caller_fake, NULL, NULL);
	return f->done;
}

bool fiber_run(struct fiber *f, void (*fn)(void *arg), void *arg)
{
	uint64_t p = (uintptr_t)f;

	f->fn = fn;
	f->arg = arg;
	f->done = false;
	getcontext(&f->self);
	f->self.uc_stack.ss_sp = f->mapping + GUARD_BYTES;
	f->self.uc_stack.ss_size = STACK_BYTES;
	f->self.uc_link = NULL;
	makecontext(&f->self, (void (*)(void))(void *)fiber_main, 2, (unsigned)(p >> 32),
		    (unsigned)p);
	return fiber_continue(f);
}

bool fiber_is_running(const struct fiber *f)
{
	return f && f->running;
}
