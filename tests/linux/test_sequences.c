/*
 * test_sequences.c - every recorded sequence of allocations and frees of a real Linux
 * 6.1, played to the engine: same frame, same lists, same counters after every op.
 */
#include <glob.h>
#include <libgen.h>

#include "../engine/fixture.h"
#include "replay.h"

struct played {
	struct machine *m;
	struct replay_zone *zones;
	u32 nr_zones;
	char *text;
	size_t length;
};

static bool play_op(void *user, uint32_t code, const uint64_t args[6], const uint8_t *data,
		    uint32_t data_len, uint32_t *ret_status, uint64_t ret_values[4])
{
	struct played *p = user;
	struct engine_op op = {.code = code, .data = data, .data_len = data_len};

	memcpy(op.args, args, sizeof op.args);
	*ret_status = machine_run(p->m, &op);
	memcpy(ret_values, p->m->res.values, sizeof p->m->res.values);
	machine_forget_events(p->m);
	return true;
}

struct played_sink {
	struct inspect_sink sink;
	struct played *p;
};

static void take_row(struct inspect_sink *sink, u32 type, const u64 *v, u32 nr_values)
{
	struct played *p = ((struct played_sink *)sink)->p;

	(void)type, (void)nr_values;
	p->zones[p->nr_zones++] = (struct replay_zone){
	    .zone = (u32)v[0],
	    .lists_hash = v[1],
	    .pcp_hash = v[2],
	    .pageblocks_hash = v[3],
	    .nr_free = (u32)v[4],
	    .boost = (u32)v[5],
	    .highatomic = (u32)v[6],
	    .nr_free_diff = (s32)v[7],
	    .pcp = (u32)v[8],
	    .free_factor = (u32)v[9],
	};
}

static void take_text(struct inspect_sink *sink, const char *bytes, u32 length)
{
	struct played *p = ((struct played_sink *)sink)->p;

	p->text = realloc(p->text, p->length + length + 1);
	assert_non_null(p->text);
	memcpy(p->text + p->length, bytes, length);
	p->length += length;
	p->text[p->length] = 0;
}

static uint32_t play_state(void *user, struct replay_zone zones[REPLAY_ZONES])
{
	struct played *p = user;
	struct played_sink sink = {{.row = take_row, .want_rows = true}, p};
	const u64 args[OP_ARGS] = {0};

	p->zones = zones;
	p->nr_zones = 0;
	assert_int_equal(engine_inspect(p->m->e, INSPECT_STATE, args, &sink.sink), STATUS_OK);
	return p->nr_zones;
}

static char *play_text(void *user)
{
	struct played *p = user;
	struct played_sink sink = {{.text = take_text, .want_text = true}, p};
	const u64 args[OP_ARGS] = {0};

	p->text = NULL;
	p->length = 0;
	assert_int_equal(engine_inspect(p->m->e, INSPECT_STATE, args, &sink.sink), STATUS_OK);
	return p->text;
}

/* The machine on which a recording was made. */
static struct engine_config config_of(const char *recording)
{
	char path[512], copy[512];
	struct replay_config from;
	struct engine_config config = {.preset = PRESET_LINUX_6_1};

	snprintf(copy, sizeof copy, "%s", recording);
	snprintf(path, sizeof path, "%s/dmesg", dirname(copy));
	if (!replay_read_config(path, &from))
		fail_msg("no boot messages in %s", path);
	config.flags = (from.pae ? CONFIG_PAE : 0) | (from.thp_off ? CONFIG_THP_OFF : 0);
	config.nr_e820 = from.nr_e820;
	for (u32 i = 0; i < from.nr_e820; i++)
		config.e820[i] = (struct engine_e820){from.e820[i].start, from.e820[i].size,
						      from.e820[i].type, 0};
	return config;
}

/* Returns the ops that agreed: all of the recording's. */
static u32 play(const char *path, bool audited)
{
	struct engine_config config = config_of(path);
	struct played p = {.m = machine_new(&config)};
	const struct replay_machine machine = {&p, play_op, play_state, play_text};
	struct replay_report report;

	p.m->unchecked = !audited;
	if (!replay_sequence(path, &machine, &report))
		fail_msg("%s, after %u ops: %s", path, report.ops, report.difference);
	machine_check(p.m);
	machine_free(p.m);
	print_message("%s: %u ops, %u dumps\n", path + sizeof SOURCE_DIR, report.ops, report.dumps);
	return report.ops;
}

static void test_all_sequences(void **state)
{
	u32 ops = 0;
	glob_t found;

	(void)state;
	assert_int_equal(
	    glob(SOURCE_DIR "/tests/linux/recordings/*/seq*.jsonl.gz", 0, NULL, &found), 0);
	assert_int_equal(found.gl_pathc, 28);
	for (size_t i = 0; i < found.gl_pathc; i++)
		ops += play(found.gl_pathv[i], false);
	globfree(&found);
	/* All that was recorded, so that no line is passed over in silence. */
	assert_int_equal(ops, 46551);
}

/* Where each zone is left, block by block, down to the last: 484 thousand of them in
 * the largest. */
static void test_exhaustion(void **state)
{
	glob_t found;

	(void)state;
	assert_int_equal(
	    glob(SOURCE_DIR "/tests/linux/recordings/*/exhaust.jsonl.gz", 0, NULL, &found), 0);
	assert_int_equal(found.gl_pathc, 5);
	for (size_t i = 0; i < found.gl_pathc; i++)
		assert_true(play(found.gl_pathv[i], false) > 200000);
	globfree(&found);
}

/* A real workload: tar, gzip, sort, forks, and one that fills HIGHMEM and falls back.
 * Every frame that Linux gave, in 201,923 allocations. */
static void test_traces(void **state)
{
	u32 ops = 0;
	glob_t found;

	(void)state;
	assert_int_equal(
	    glob(SOURCE_DIR "/tests/linux/recordings/*/trace.jsonl.gz", 0, NULL, &found), 0);
	assert_int_equal(found.gl_pathc, 2);
	for (size_t i = 0; i < found.gl_pathc; i++)
		ops += play(found.gl_pathv[i], false);
	globfree(&found);
	assert_int_equal(ops, 404907);
}

/* With the audit after every op: slower, so on the smallest ones. */
static void test_audited_sequence(void **state)
{
	(void)state;
	play(SOURCE_DIR "/tests/linux/recordings/686-pae-512M/seqB_all.jsonl.gz", true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_all_sequences),
	    cmocka_unit_test(test_exhaustion),
	    cmocka_unit_test(test_traces),
	    cmocka_unit_test(test_audited_sequence),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
