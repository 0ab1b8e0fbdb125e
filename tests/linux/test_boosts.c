/*
 * test_boosts.c - when kswapd came late, the replay finds out when.
 *
 * No recording has it, so one is made: the trace that boosts is played with the boost kept
 * for a while, and what the machine gives then is taken for what Linux gave. Played as
 * recorded, it agrees again, with the boost kept for exactly as long. (The source is
 * included, because the way into it is between its functions.)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* After the four above, as cmocka wants it. */
#include <cmocka.h>

#include "../../server/conformance/trace.c"

static const char *const path = SOURCE_DIR "/tests/linux/traces/686-pae-1G-fill";

/* Renames every frame to the one that the machine gives; returns how many changed. */
static size_t forge(struct trace *t, struct box *b)
{
	u32 *now = calloc(t->nr_frames, sizeof *now);
	size_t changed = 0;

	assert_non_null(now);
	for (size_t i = 0; i < t->nr; i++) {
		struct kmem_op *op = &t->ops[i];
		u32 was = op->pfn;

		if (!op->is_alloc && now[was]) {
			op->pfn = now[was];
			now[was] = 0;
		}
		assert_int_equal(play_op(t, b, op), STATUS_OK);
		if (op->is_alloc) {
			op->pfn = now[was] = (u32)b->res.values[0];
			changed += op->pfn != was;
		}
		take_boosts_back(t, b, i);
	}
	free(now);
	return changed;
}

static void late_by(size_t ops)
{
	struct conformance_report r = {0};
	struct trace t = {.last_boost = SIZE_MAX};
	struct box *b = begin(path, &r);
	size_t given;

	assert_non_null(b);
	assert_true(read_trace(&t, path, &r));
	t.nr_frames = b->e->st->layout.max_pfn;
	t.allocated = calloc(t.nr_frames, 1);
	t.past_lists = calloc(t.nr, sizeof *t.past_lists);
	assert_non_null(t.allocated);
	assert_non_null(t.past_lists);
	assert_int_equal(play(&t, b, &r), t.nr);
	given = t.last_boost;
	box_free(b);

	b = begin(path, &r);
	assert_non_null(b);
	t.holds[t.nr_holds++] = (struct hold){given, given + ops};
	assert_true(forge(&t, b) > 0);
	box_free(b);

	b = begin(path, &r);
	assert_non_null(b);
	t.nr_holds = 0;
	play_as_recorded(&t, b, path, &r);
	assert_int_equal(r.agreed, t.nr);
	assert_int_equal(t.nr_holds, 1);
	assert_int_equal(t.holds[0].given, given);
	assert_int_equal(t.holds[0].release, given + ops);
	assert_string_equal(r.difference, "");
	box_free(b);
	free(t.past_lists);
	free(t.allocated);
	free(t.ops);
}

static void kswapd_came_late(void **state)
{
	(void)state;
	late_by(2);
	late_by(20000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(kswapd_came_late)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
