/*
 * test_marks.c - watermarks, reserves, per-CPU list sizes and statistics thresholds of
 * every recorded boot, from the pages that its zones managed.
 *
 * A real kernel's zones manage a few pages less or more than ours, whose metadata has
 * another size; so a machine is given the recorded numbers and computes its marks
 * from them.
 */
#include <glob.h>

#include "../engine/fixture.h"
#include "frames/marks.h"

struct recorded {
	u32 min, low, high, spanned, managed;
	u32 reserve[NR_ZONES];
	u32 pcp_high, pcp_batch, threshold;
};

struct boot {
	struct recorded zone[NR_ZONES];
	u32 late_kib, cpus;
	bool pae;
};

static FILE *open_file(const char *folder, const char *name)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof path, "%s/%s", folder, name);
	f = fopen(path, "r");
	if (!f)
		fail_msg("%s cannot be opened", path);
	return f;
}

static void read_dmesg(const char *folder, struct boot *b)
{
	FILE *f = open_file(folder, "dmesg");
	char line[1024];

	while (fgets(line, sizeof line, f)) {
		const char *late = strstr(line, "Freeing initrd memory: ");
		unsigned kib;

		if (!late)
			late = strstr(line, "Freeing unused kernel image (initmem) memory: ");
		if (late && sscanf(strstr(late, "memory: "), "memory: %uK", &kib) == 1)
			b->late_kib += kib;
		b->pae |= strstr(line, "Linux version") && strstr(line, "-686-pae ");
	}
	fclose(f);
}

static void read_zoneinfo(const char *folder, struct boot *b)
{
	static const char *const words[NR_ZONES] = {"DMA", "Normal", "HighMem", "Movable"};
	FILE *f = open_file(folder, "zoneinfo");
	struct recorded *z = NULL, none;
	char line[256], word[32];
	u32 cpu;

	while (fgets(line, sizeof line, f)) {
		if (sscanf(line, "Node 0, zone %31s", word) == 1) {
			z = NULL;
			for (u32 i = 0; i < NR_ZONES; i++)
				z = strcmp(word, words[i]) == 0 ? &b->zone[i] : z;
			assert_non_null(z);
		}
		if (!z)
			z = &none;
		sscanf(line, " min %u", &z->min);
		sscanf(line, " low %u", &z->low);
		if (sscanf(line, " high: %u", &z->pcp_high) != 1)
			sscanf(line, " high %u", &z->high);
		sscanf(line, " spanned %u", &z->spanned);
		sscanf(line, " managed %u", &z->managed);
		sscanf(line, " protection: (%u, %u, %u, %u)", &z->reserve[0], &z->reserve[1],
		       &z->reserve[2], &z->reserve[3]);
		sscanf(line, " batch: %u", &z->pcp_batch);
		sscanf(line, " vm stats threshold: %u", &z->threshold);
		if (sscanf(line, " cpu: %u", &cpu) == 1 && cpu >= b->cpus)
			b->cpus = cpu + 1;
	}
	fclose(f);
}

static void give(struct machine *m, const struct boot *b)
{
	struct machine_state *st = m->e->st;

	st->config.late_pages = b->late_kib / 4;
	st->layout.cpus = b->cpus;
	for (u32 i = 0; i < NR_ZONES; i++) {
		st->frames.zone[i].managed = b->zone[i].managed;
		if (i == ZONE_MOVABLE) {
			st->frames.zone[i].start = st->layout.low_end_pfn;
			st->frames.zone[i].end = st->layout.low_end_pfn + b->zone[i].spanned;
		}
	}
	marks_boot(m->e);
}

static u32 compare(struct machine *m, const struct boot *b, const char *folder)
{
	u32 rows = 0;

	for (u32 i = 0; i < NR_ZONES; i++) {
		const struct zone *z = &m->e->st->frames.zone[i];
		const struct recorded *want = &b->zone[i];
		bool same = z->mark[MARK_MIN] == want->min && z->mark[MARK_LOW] == want->low &&
			    z->mark[MARK_HIGH] == want->high &&
			    memcmp(z->reserve, want->reserve, sizeof want->reserve) == 0;

		/* An empty zone shows no more. */
		if (want->managed) {
			same &= z->pcp_high == want->pcp_high && z->pcp_batch == want->pcp_batch &&
				z->stat_threshold == want->threshold;
			rows++;
		}
		if (!same)
			fail_msg("%s, zone %u: marks %u %u %u, high %u, batch %u, threshold %u; "
				 "Linux had %u %u %u, %u, %u, %u",
				 folder, i, z->mark[0], z->mark[1], z->mark[2], z->pcp_high,
				 z->pcp_batch, z->stat_threshold, want->min, want->low, want->high,
				 want->pcp_high, want->pcp_batch, want->threshold);
	}
	return rows;
}

static void test_marks(void **state)
{
	u32 rows = 0;
	glob_t found;

	(void)state;
	assert_int_equal(glob(SOURCE_DIR "/tests/linux/boots/*-*", 0, NULL, &found), 0);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		struct engine_config config = {.preset = PRESET_LINUX_6_1, .ram = GIB_BYTES(1)};
		struct boot b = {0};
		struct machine *m;

		read_dmesg(found.gl_pathv[i], &b);
		read_zoneinfo(found.gl_pathv[i], &b);
		config.flags = b.pae ? CONFIG_PAE : 0;
		m = machine_new(&config);
		give(m, &b);
		rows += compare(m, &b, found.gl_pathv[i]);
		machine_free(m);
	}
	assert_int_equal(found.gl_pathc, 28);
	assert_int_equal(rows, 76);
	globfree(&found);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_marks)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
