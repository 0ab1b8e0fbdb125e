/*
 * reserve.c - one block, large enough that the C library maps it from the system and
 * returns it there: whatever limit malloc has met, it is that much further away.
 */
#include "reserve.h"

#include <stdatomic.h>
#include <stdlib.h>

/* What a turn and the connections' buffers take, several times over. Its pages are never
 * touched, so that it costs address space alone. */
enum { RESERVE_BYTES = 32 << 20 };

static void *_Atomic reserve;

bool reserve_restore(void)
{
	if (atomic_load(&reserve))
		return true;
	/* The loop's thread alone sets it. */
	atomic_store(&reserve, malloc(RESERVE_BYTES));
	return atomic_load(&reserve) != NULL;
}

bool reserve_release(void)
{
	void *bytes = atomic_exchange(&reserve, NULL);

	free(bytes);
	return bytes != NULL;
}
