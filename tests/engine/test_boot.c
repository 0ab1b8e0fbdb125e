/*
 * test_boot.c - layouts against the presets' sources, what is refused, the RAM map, and
 * memblock: by drawing, and against a model. Recorded boots: tests/linux.
 */
#include "fixture.h"

#include "boot/layout.h"
#include "state.h"

enum {
	P3G = 0xc0000000,
	P3G_OPT = 0xb0000000,
	P2G = 0x80000000,
	P2G_OPT = 0x78000000,
	P1G = 0x40000000,
};

/* ---- the presets' own figures ---- */

struct figures {
	const char *name;
	struct engine_config config;
	u32 dma_end, low_end, max_pfn;
	u32 high_memory, vmalloc_start, vmalloc_end, pkmap_start, pkmap_slots;
};

#define CLASSIC .preset = PRESET_CLASSIC
#define LINUX61 .preset = PRESET_LINUX_6_1

/* Computed by hand from the sources that layout.c names; the README of the recordings has
 * the linux-6.1 ones. */
static const struct figures figures[] = {
    {"classic 3G",
     {CLASSIC, .ram = GIB_BYTES(2)},
     4096,
     229376,
     524288,
     0xf8000000,
     0xf8800000,
     0xff7fe000,
     0xff800000,
     1024},
    {"classic 3G pae",
     {CLASSIC, .flags = CONFIG_PAE, .ram = GIB_BYTES(8)},
     4096,
     229376,
     2359296,
     0xf8000000,
     0xf8800000,
     0xff9fe000,
     0xffa00000,
     512},
    {"classic 3G_OPT",
     {CLASSIC, .page_offset = P3G_OPT, .ram = GIB_BYTES(2)},
     4096,
     294912,
     524288,
     0xf8000000,
     0xf8800000,
     0xff7fe000,
     0xff800000,
     1024},
    {"classic 2G",
     {CLASSIC, .page_offset = P2G, .ram = GIB_BYTES(3)},
     4096,
     491520,
     786432,
     0xf8000000,
     0xf8800000,
     0xff7fe000,
     0xff800000,
     1024},
    {"classic 2G_OPT",
     {CLASSIC, .page_offset = P2G_OPT, .ram = GIB_BYTES(3)},
     4096,
     524288,
     786432,
     0xf8000000,
     0xf8800000,
     0xff7fe000,
     0xff800000,
     1024},
    {"classic 1G",
     {CLASSIC, .page_offset = P1G, .ram = GIB_BYTES(4), .flags = CONFIG_PAE},
     4096,
     753664,
     1310720,
     0xf8000000,
     0xf8800000,
     0xff9fe000,
     0xffa00000,
     512},
    {"classic 2.5G",
     {CLASSIC, .page_offset = 0xa0000000, .ram = GIB_BYTES(2)},
     4096,
     360448,
     524288,
     0xf8000000,
     0xf8800000,
     0xff7fe000,
     0xff800000,
     1024},
    {"classic 256M",
     {CLASSIC, .ram = MIB_BYTES(256)},
     4096,
     65536,
     65536,
     0xd0000000,
     0xd0800000,
     0xff7fe000,
     0xff800000,
     1024},
    {"classic vmalloc=256M",
     {CLASSIC, .vmalloc_bytes = 256 << 20, .ram = GIB_BYTES(2)},
     4096,
     196608,
     524288,
     0xf0000000,
     0xf0800000,
     0xff7fe000,
     0xff800000,
     1024},
    {"linux-6.1 3G",
     {LINUX61, .ram = GIB_BYTES(2)},
     4096,
     224254,
     524288,
     0xf6bfe000,
     0xf73fe000,
     0xfebfe000,
     0xfec00000,
     1024},
    {"linux-6.1 3G pae",
     {LINUX61, .flags = CONFIG_PAE, .ram = GIB_BYTES(2)},
     4096,
     225278,
     524288,
     0xf6ffe000,
     0xf77fe000,
     0xfeffe000,
     0xff000000,
     512},
    {"linux-6.1 vmalloc=256M",
     {LINUX61, .vmalloc_bytes = 256 << 20, .ram = GIB_BYTES(2)},
     4096,
     189438,
     524288,
     0xee3fe000,
     0xeebfe000,
     0xfebfe000,
     0xfec00000,
     1024},
    {"linux-6.1 2G split",
     {LINUX61, .page_offset = P2G, .ram = GIB_BYTES(3)},
     4096,
     486398,
     786432,
     0xf6bfe000,
     0xf73fe000,
     0xfebfe000,
     0xfec00000,
     1024},
    {"arm32 3G",
     {.preset = PRESET_ARM32, .ram = GIB_BYTES(2)},
     4096,
     196608,
     524288,
     0xf0000000,
     0xf0800000,
     0xff800000,
     0xbfe00000,
     512},
    {"arm32 2G",
     {.preset = PRESET_ARM32, .page_offset = P2G, .ram = GIB_BYTES(4)},
     4096,
     458752,
     1048576,
     0xf0000000,
     0xf0800000,
     0xff800000,
     0x7fe00000,
     512},
    {"ppc32 3G",
     {.preset = PRESET_PPC32, .ram = GIB_BYTES(1)},
     0,
     196608,
     262144,
     0xf0000000,
     0xf1000000,
     0xff7fe000,
     0xff800000,
     1024},
    {"ppc32 3G pae",
     {.preset = PRESET_PPC32, .flags = CONFIG_PAE, .ram = GIB_BYTES(8)},
     0,
     196608,
     2097152,
     0xf0000000,
     0xf1000000,
     0xff7fe000,
     0xffa00000,
     512},
};

static void test_figures(void **state)
{
	(void)state;
	for (u32 i = 0; i < sizeof figures / sizeof figures[0]; i++) {
		const struct figures *f = &figures[i];
		struct engine_error why = {""};
		struct layout l;

		if (!layout_compute(&f->config, &l, &why))
			fail_msg("%s: %s", f->name, why.text);
		print_message("%s\n", f->name);
		assert_int_equal(l.dma_end_pfn, f->dma_end);
		assert_int_equal(l.low_end_pfn, f->low_end);
		assert_int_equal(l.max_pfn, f->max_pfn);
		assert_int_equal(l.high_memory, f->high_memory);
		assert_int_equal(l.vmalloc_start, f->vmalloc_start);
		assert_int_equal(l.vmalloc_end, f->vmalloc_end);
		assert_int_equal(l.pkmap_start, f->pkmap_start);
		assert_int_equal(l.pkmap_slots, f->pkmap_slots);
	}
}

/* The rest of the constants in the recordings' const.jsonl. */
static void test_linux_constants(void **state)
{
	struct engine_config config = {LINUX61, .ram = GIB_BYTES(2)};
	struct engine_error why;
	struct layout l;

	(void)state;
	assert_true(layout_compute(&config, &l, &why));
	assert_int_equal(l.ldt_start, 0xff000000);
	assert_int_equal(l.ldt_end, 0xff400000);
	assert_int_equal(l.cpu_entry_start, 0xff400000);
	assert_int_equal(l.cpu_entry_end - l.cpu_entry_start, 1376 * PAGE_SIZE);
	assert_int_equal(l.fixmap_start, 0xff9fe000);
	assert_int_equal(l.fixmap_top, 0xfffff000);
	assert_int_equal(l.nr_fixmap, 1537);
	assert_int_equal(l.fix_kmap_begin, 68);
	assert_int_equal(l.fix_kmap_end, 579);
	assert_int_equal(fix_to_va(&l, 68), 0xfffbb000);
	assert_int_equal(fix_to_va(&l, 579), 0xffdbc000);
	assert_int_equal(fix_to_va(&l, 1536), 0xff9ff000);
	/* A free index, kmap_local's, the host window's, and behind the end. */
	assert_true(fix_is_settable(&l, 1536));
	assert_true(fix_is_settable(&l, 1));
	assert_false(fix_is_settable(&l, 0));
	assert_false(fix_is_settable(&l, 68));
	assert_false(fix_is_settable(&l, 579));
	assert_true(fix_is_settable(&l, 580));
	assert_false(fix_is_settable(&l, 1023)); /* 0xffc00000 */
	assert_true(fix_is_settable(&l, 1024));
	assert_false(fix_is_settable(&l, 1537));

	config.flags = CONFIG_PAE;
	assert_true(layout_compute(&config, &l, &why));
	assert_int_equal(l.ldt_start, 0xff200000);
	assert_int_equal(l.ldt_end, 0xff400000);
}

/* ---- what a command line changes ---- */

static u32 frames_in(const struct ram_map *map, pfn_t start, pfn_t end)
{
	u32 n = 0;

	for (pfn_t pfn = start; pfn < end; pfn++)
		n += ram_map_has(map, pfn);
	return n;
}

/* movablecore=256M on the recorded map of 2 GiB: ZONE_MOVABLE starts at frame 458752. */
static void test_movablecore(void **state)
{
	struct engine_config config = {
	    LINUX61, .flags = CONFIG_PAE, .nr_e820 = 2,
	    .e820 = {{0, 0x9fc00, 1, 0}, {MIB_BYTES(1), 0x7ffe0000 - MIB_BYTES(1), 1, 0}}};
	struct engine_error why;
	struct layout l;

	(void)state;
	config.movablecore = MIB_BYTES(256);
	assert_true(layout_compute(&config, &l, &why));
	assert_int_equal(l.zone_start[ZONE_MOVABLE], 458752);
	assert_int_equal(l.zone_end[ZONE_HIGHMEM], 458752);
	assert_int_equal(l.zone_end[ZONE_MOVABLE], l.max_pfn);
	/* More than there is: no movable zone, as in Linux. */
	config.movablecore = 0;
	config.kernelcore = GIB_BYTES(4);
	assert_true(layout_compute(&config, &l, &why));
	assert_int_equal(l.zone_start[ZONE_MOVABLE], l.zone_end[ZONE_MOVABLE]);
	/* Less than lowmem: all of HIGHMEM is movable. */
	config.kernelcore = MIB_BYTES(64);
	assert_true(layout_compute(&config, &l, &why));
	assert_int_equal(l.zone_start[ZONE_HIGHMEM], l.low_end_pfn);
	assert_in_range(l.zone_start[ZONE_MOVABLE], l.low_end_pfn, l.low_end_pfn + 1023);
	/* Without HIGHMEM it is taken from NORMAL. */
	config.mem = MIB_BYTES(512);
	config.kernelcore = MIB_BYTES(256);
	assert_true(layout_compute(&config, &l, &why));
	assert_int_equal(l.zone_end[ZONE_NORMAL], l.zone_start[ZONE_MOVABLE]);
	assert_in_range(l.zone_start[ZONE_MOVABLE], 65536, 65536 + 1024 + 98);
	/* There it has no metadata, if that fits below. */
	assert_in_range(l.metadata_start, l.host_end, l.zone_start[ZONE_MOVABLE]);
	assert_in_range(l.metadata_end, l.host_end, l.zone_start[ZONE_MOVABLE]);
	config.kernelcore = MIB_BYTES(16);
	assert_true(layout_compute(&config, &l, &why));
	assert_in_range(l.metadata_start, l.zone_start[ZONE_MOVABLE], l.low_end_pfn);
	/* Less than a frame is none. RAM that highmem= puts out of use counts for the rest. */
	config.mem = config.kernelcore = 0;
	config.movablecore = PAGE_SIZE - 1;
	assert_true(layout_compute(&config, &l, &why));
	assert_int_equal(l.zone_start[ZONE_MOVABLE], l.zone_end[ZONE_MOVABLE]);
	config.flags |= CONFIG_HIGHMEM_OFF;
	config.movablecore = MIB_BYTES(1400);
	assert_true(layout_compute(&config, &l, &why));
	assert_int_equal(l.zone_start[ZONE_MOVABLE], 648 << (20 - PAGE_SHIFT));
	assert_int_equal(l.zone_end[ZONE_MOVABLE], l.low_end_pfn);
}

/* What Linux gave back late at the end of lowmem was its initrd: there the metadata leaves
 * room, so that a recorded state has its free frames. 512 frames where nobody says. */
static void test_headroom(void **state)
{
	struct engine_config config = {LINUX61, .ram = GIB_BYTES(2)};
	struct engine_error why;
	struct layout l;

	(void)state;
	assert_true(layout_compute(&config, &l, &why));
	assert_int_equal(l.low_end_pfn - l.metadata_end, 512);
	config.late_pages = 523; /* 1180 KiB of initrd, 912 of init memory */
	assert_true(layout_compute(&config, &l, &why));
	assert_int_equal(l.low_end_pfn - l.metadata_end, 295);
	config.late_pages = 228 + 8192;
	assert_true(layout_compute(&config, &l, &why));
	assert_int_equal(l.low_end_pfn - l.metadata_end, 8192);
	config.late_pages = 228;
	assert_true(layout_compute(&config, &l, &why));
	assert_int_equal(l.low_end_pfn, l.metadata_end);
}

/* ---- what is refused ---- */

struct contradiction {
	struct engine_config config;
	const char *says[2]; /* both parts */
};

#define TWO_ENTRIES(...) .nr_e820 = 2, .e820 = {__VA_ARGS__}

static const struct contradiction contradictions[] = {
    {{CLASSIC}, {"neither ram", "e820"}},
    {{CLASSIC, .ram = GIB_BYTES(1), .nr_e820 = 1, .e820 = {{0, 4096, 1, 0}}}, {"both ram", "e820"}},
    {{.preset = 9, .ram = GIB_BYTES(1)}, {"preset 9", "4"}},
    {{CLASSIC, .flags = 1 << 20, .ram = GIB_BYTES(1)}, {"0x100000", "known"}},
    {{CLASSIC, .cpus = 33, .ram = GIB_BYTES(1)}, {"33 CPUs", "32"}},
    {{CLASSIC, TWO_ENTRIES({0, 4096, 2, 0}, {8192, 4096, 3, 0})}, {"2 entries", "usable"}},
    {{CLASSIC, TWO_ENTRIES({0, 0x2000, 1, 0}, {0x1000, 0x1000, 1, 0})},
     {"0x0-0x1fff", "0x1000-0x1fff"}},
    {{CLASSIC, TWO_ENTRIES({0, MIB_BYTES(64), 1, 0}, {4096, 0, 1, 0})}, {"entry 1", "no size"}},
    {{CLASSIC, .page_offset = P3G_OPT, .flags = CONFIG_PAE, .ram = GIB_BYTES(1)},
     {"0xb0000000", "PAE"}},
    {{CLASSIC, .page_offset = 0xa0000000, .flags = CONFIG_PAE, .ram = GIB_BYTES(1)},
     {"0xa0000000", "PAE"}},
    {{CLASSIC, .page_offset = 0xc0001000, .ram = GIB_BYTES(1)}, {"0xc0001000", "4 MiB"}},
    {{CLASSIC, .page_offset = 0x08000000, .ram = GIB_BYTES(1)}, {"0x08000000", "user space"}},
    {{CLASSIC, .page_offset = 0xf8000000, .ram = GIB_BYTES(1)}, {"0xf8000000", "lowmem"}},
    {{CLASSIC, .vmalloc_bytes = 1 << 30, .ram = GIB_BYTES(1)}, {"1024 MiB for vmalloc", "lowmem"}},
    {{CLASSIC, .vmalloc_bytes = 4 << 20, .ram = GIB_BYTES(1)}, {"4096 KiB", "classic"}},
    {{CLASSIC, .highmem = MIB_BYTES(64), .flags = CONFIG_HIGHMEM_OFF, .ram = GIB_BYTES(1)},
     {"highmem=64 MiB", "highmem off"}},
    {{CLASSIC, .highmem = MIB_BYTES(200), .ram = MIB_BYTES(256)}, {"highmem=200", "256 MiB"}},
    {{CLASSIC, .ram = GIB_BYTES(64), .flags = CONFIG_PAE}, {"65536 MiB", "66560 MiB"}},
    {{CLASSIC, .ram = MIB_BYTES(2)}, {"2048 KiB", "4096 KiB"}},
    {{CLASSIC, .ram = MIB_BYTES(64), .mem = 4096}, {"mem=0x1000", "RAM"}},
    {{CLASSIC, .nr_e820 = 1, .e820 = {{GIB_BYTES(5), GIB_BYTES(1), 1, 0}}},
     {"0x100000000", "0 KiB"}},
    /* 512 MiB of descriptors and 511 MiB of lowmem. */
    {{LINUX61, .vmalloc_bytes = 504 << 20, .ram = GIB_BYTES(63), .flags = CONFIG_PAE},
     {"65536 MiB", "metadata"}},
    {{CLASSIC, .late_pages = 70000, .ram = MIB_BYTES(256)}, {"late_pages 70000", "lowmem"}},
    {{CLASSIC, .nr_reserved = 1, .reserved = {{4096, 0}}, .ram = MIB_BYTES(256)},
     {"reserved range 0", "no size"}},
    /* All of lowmem reserved by hand: no room for the metadata. */
    {{CLASSIC, .nr_reserved = 1, .reserved = {{0, MIB_BYTES(256)}}, .ram = MIB_BYTES(256)},
     {"metadata", "no room"}},
};

static void test_contradictions(void **state)
{
	(void)state;
	for (u32 i = 0; i < sizeof contradictions / sizeof contradictions[0]; i++) {
		const struct contradiction *c = &contradictions[i];
		struct engine_error why = {""};
		struct layout l;

		if (layout_compute(&c->config, &l, &why))
			fail_msg("contradiction %u was accepted", i);
		print_message("%s\n", why.text);
		for (u32 k = 0; k < 2; k++)
			if (!strstr(why.text, c->says[k]))
				fail_msg("\"%s\" does not name \"%s\"", why.text, c->says[k]);
		assert_null(strchr(why.text, '\n'));
		assert_in_range(strlen(why.text), 10, ENGINE_ERROR_LENGTH - 2);
	}
}

/* ---- every split, preset and size ---- */

static void check_layout(const struct engine_config *config, const struct layout *l)
{
	pfn_t reached = 1;
	struct engine_error why;
	struct ram_map map;

	assert_true(ram_map_make(config, (u64)l->max_pfn << PAGE_SHIFT, &map, &why));
	/* Zones follow each other. */
	for (u32 z = 0; z < NR_ZONES; z++) {
		if (l->zone_start[z] == l->zone_end[z])
			continue;
		assert_int_equal(l->zone_start[z], reached);
		reached = l->zone_end[z];
	}
	assert_int_equal(reached, l->max_pfn);
	assert_true(l->low_end_pfn <= l->max_pfn);
	/* Windows ascend. */
	assert_true(l->task_size <= l->page_offset);
	assert_true(l->high_memory > l->page_offset);
	assert_true(l->high_memory < l->vmalloc_start);
	assert_true(l->vmalloc_start < l->vmalloc_end);
	if (l->pkmap_start > l->page_offset)
		assert_true(l->vmalloc_end <= l->pkmap_start &&
			    l->pkmap_start + l->pkmap_slots * PAGE_SIZE <= l->fixmap_start);
	else
		assert_true(l->task_size <= l->pkmap_start &&
			    l->pkmap_start + l->pkmap_slots * PAGE_SIZE <= l->page_offset);
	assert_true(fix_to_va(l, l->nr_fixmap - 1) >= l->fixmap_start);
	assert_true(l->fix_kmap_end < l->nr_fixmap);
	assert_true(l->cpu_entry_end <= l->fixmap_start);
	/* Metadata: in order, RAM, lowmem, apart from what else is kept. */
	assert_int_equal(ref_pfn(&(struct engine){.page_offset = l->page_offset}, l->state_ref),
			 l->metadata_start);
	assert_true(l->state_ref < l->mem_map_ref && l->mem_map_ref < l->pageblock_ref);
	assert_true(l->pageblock_ref - l->mem_map_ref >= l->max_pfn * sizeof(struct page));
	assert_true(l->reserve_start < l->reserve_end && l->reserve_end == l->metadata_end);
	assert_true(l->metadata_end <= l->low_end_pfn);
	assert_true(l->metadata_start >= l->firmware_end);
	assert_true(l->metadata_end <= l->host_start || l->metadata_start >= l->host_end);
	assert_int_equal(frames_in(&map, l->metadata_start, l->metadata_end),
			 l->metadata_end - l->metadata_start);
	assert_int_equal(frames_in(&map, l->host_start, l->host_end), l->host_end - l->host_start);
}

static void test_every_split(void **state)
{
	static const u32 splits[] = {P3G, P3G_OPT, P2G, P2G_OPT, P1G, 0x60000000, 0xa0000000};
	static const u64 sizes[] = {16, 17, 64, 512, 896, 1024, 3072, 4096, 8192, 16384, 64512};
	u32 made = 0, refused = 0;

	(void)state;
	for (u32 preset = 0; preset <= PRESET_PPC32; preset++)
		for (u32 i = 0; i < sizeof splits / sizeof splits[0]; i++)
			for (u32 pae = 0; pae < 2; pae++)
				for (u32 k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
					struct engine_config config = {.preset = preset,
								       .page_offset = splits[i],
								       .flags = pae,
								       .ram = MIB_BYTES(sizes[k])};
					struct engine_error why = {""};
					struct layout l;

					if (layout_compute(&config, &l, &why)) {
						check_layout(&config, &l);
						made++;
						continue;
					}
					refused++;
					/* The only reason to refuse one of these. */
					if (!pae || !(splits[i] & 0x3fffffff))
						fail_msg("preset %u at 0x%x, %u MiB: %s", preset,
							 splits[i], (u32)sizes[k], why.text);
				}
	print_message("%u layouts, %u refused\n", made, refused);
	assert_int_equal(refused, 4 * 4 * 11);
}

/* RAM that is there and cannot be used: behind 4 GiB without PAE, behind the cap, all
 * above lowmem with HIGHMEM off. */
static void test_unused(void **state)
{
	struct engine_config config = {CLASSIC, .ram = GIB_BYTES(8)};
	struct engine_error why;
	struct layout l;

	(void)state;
	assert_true(layout_compute(&config, &l, &why));
	assert_int_equal(l.max_pfn, 3 << (30 - PAGE_SHIFT));
	assert_int_equal(l.unused_start, GIB_BYTES(4));
	assert_int_equal(l.unused_bytes, GIB_BYTES(5));
	config.flags = CONFIG_HIGHMEM_OFF;
	assert_true(layout_compute(&config, &l, &why));
	assert_int_equal(l.max_pfn, l.low_end_pfn);
	assert_int_equal(l.unused_start, MIB_BYTES(896));
	assert_int_equal(l.unused_bytes, GIB_BYTES(8) - MIB_BYTES(896));
	config.flags = 0;
	config.highmem = MIB_BYTES(128);
	assert_true(layout_compute(&config, &l, &why));
	assert_int_equal(l.max_pfn, 1 << (30 - PAGE_SHIFT));
	assert_int_equal(l.unused_start, GIB_BYTES(1));
	assert_int_equal(l.unused_bytes, GIB_BYTES(7));
	config.flags = CONFIG_PAE;
	config.highmem = 0;
	assert_true(layout_compute(&config, &l, &why));
	assert_int_equal(l.unused_bytes, 0);
}

/* ---- the RAM map against a frame-by-frame model ---- */

static void test_ram_map_random(void **state)
{
	enum { FRAMES = 16384 };
	struct random r = random_seeded(20260601);
	u32 accepted = 0;

	(void)state;
	for (u32 round = 0; round < 400; round++) {
		static u8 bytes[FRAMES * 4]; /* quarter frames: 0 nothing, 1 RAM, 2 other */
		struct engine_config config = {CLASSIC};
		struct engine_error why = {""};
		struct ram_map map;
		bool overlap = false;
		u32 next = 0;

		memset(bytes, 0, sizeof bytes);
		config.nr_e820 = 1 + (u32)random_below(&r, 12);
		for (u32 i = 0; i < config.nr_e820; i++) {
			/* Often right behind the one before, in the middle of a frame. */
			u32 start = i && random_below(&r, 4) == 0
					? next
					: (u32)random_below(&r, sizeof bytes - 1);
			u32 size = 1 + (u32)random_below(&r, 6000);
			u32 type = random_below(&r, 3) ? 1 : 2;

			size = size > sizeof bytes - start ? (u32)sizeof bytes - start : size;
			config.e820[i] =
			    (struct engine_e820){(u64)start * 1024, (u64)size * 1024, type, 0};
			next = start + size < sizeof bytes ? start + size : 0;
			for (u32 q = start; q < start + size; q++) {
				overlap |= type == 1 && bytes[q] & 1;
				bytes[q] |= (u8)type;
			}
		}
		config.mem = random_below(&r, 2) ? random_below(&r, MIB_BYTES(64)) : 0;
		if (!ram_map_make(&config, 0, &map, &why))
			continue;
		assert_false(overlap);
		accepted++;
		for (u32 i = 0; i < map.nr; i++) {
			assert_true(map.range[i].size > 0);
			assert_true(i == 0 || map.range[i - 1].start + map.range[i - 1].size <
						  map.range[i].start);
		}
		for (pfn_t pfn = 0; pfn < FRAMES; pfn++) {
			bool ram = pfn != 0 && (pfn < 0xa0 || pfn >= 0x100);

			for (u32 q = 0; q < 4; q++)
				ram &= bytes[pfn * 4 + q] == 1;
			if (config.mem && (u64)(pfn + 1) << PAGE_SHIFT > config.mem)
				ram = false;
			if (ram != ram_map_has(&map, pfn))
				fail_msg("round %u frame %u: RAM %d", round, pfn, ram);
		}
	}
	print_message("%u maps\n", accepted);
	assert_in_range(accepted, 50, 400);
}

/* ---- memblock, by drawing ---- */

static struct machine *early_machine(u64 ram)
{
	struct engine_config config = {CLASSIC, .flags = CONFIG_EARLY, .ram = ram};

	return machine_new(&config);
}

static u32 region_count(struct machine *m, u32 which)
{
	return m->e->st->memblock.array[which].nr;
}

static struct memblock_region region(struct machine *m, u32 which, u32 i)
{
	struct memblock_array *a = &m->e->st->memblock.array[which];

	assert_in_range(i, 0, a->nr - 1);
	return (a->regions ? (struct memblock_region *)at(m->e, a->regions) : a->initial)[i];
}

/* Index of the region that begins there. */
static u32 region_at(struct machine *m, u32 which, u64 start)
{
	for (u32 i = 0; i < region_count(m, which); i++)
		if (region(m, which, i).start == start)
			return i;
	fail_msg("no region at 0x%llx", (unsigned long long)start);
	return 0;
}

static void assert_region(struct machine *m, u32 which, u64 start, u64 size)
{
	assert_int_equal(region(m, which, region_at(m, which, start)).size, size);
}

/*
 *  reserved, 32 to 48 MiB:
 *
 *     |   +-------+           +-------+    |
 *     |   |  r1   |           |  r2   |    |
 *     +---+-------+-----------+-------+----+
 *        32M     34M         38M     40M
 *
 *  and then what fills the gap. Expect the three to become one region, and one event
 *  for each seam.
 */
static void test_reserve_merges_three(void **state)
{
	struct machine *m = early_machine(MIB_BYTES(128));
	u32 before = region_count(m, MEMBLOCK_RESERVED);

	(void)state;
	assert_int_equal(machine_op(m, OP_MEMBLOCK_RESERVE, MIB_BYTES(32), MIB_BYTES(2)), 0);
	assert_int_equal(machine_op(m, OP_MEMBLOCK_RESERVE, MIB_BYTES(38), MIB_BYTES(2)), 0);
	assert_int_equal(region_count(m, MEMBLOCK_RESERVED), before + 2);
	machine_forget_events(m);
	assert_int_equal(machine_op(m, OP_MEMBLOCK_RESERVE, MIB_BYTES(34), MIB_BYTES(4)), 0);
	assert_int_equal(region_count(m, MEMBLOCK_RESERVED), before + 1);
	assert_region(m, MEMBLOCK_RESERVED, MIB_BYTES(32), MIB_BYTES(8));
	assert_int_equal(machine_count_events(m, EVENT_MEMBLOCK_ADDED), 1);
	assert_int_equal(machine_count_events(m, EVENT_MEMBLOCK_MERGED), 2);
	/* The last merge names the whole. */
	assert_int_equal(m->events[m->nr_events - 1].w[1], MIB_BYTES(32));
	assert_int_equal(m->events[m->nr_events - 1].w[3], MIB_BYTES(8));
	machine_free(m);
}

/*
 *     |   +-------+     +-------+        |
 *     |   |  r1   |     |  r2   |        |        two regions,
 *     +---+-------+-----+-------+--------+
 *     | +-----------------------------+  |        and one over both:
 *       30M  32M 34M   38M     40M   44M
 *
 *  Expect what is not there yet to be added in three pieces, and one region.
 */
static void test_reserve_over_two(void **state)
{
	struct machine *m = early_machine(MIB_BYTES(128));

	(void)state;
	machine_op(m, OP_MEMBLOCK_RESERVE, MIB_BYTES(32), MIB_BYTES(2));
	machine_op(m, OP_MEMBLOCK_RESERVE, MIB_BYTES(38), MIB_BYTES(2));
	machine_forget_events(m);
	assert_int_equal(machine_op(m, OP_MEMBLOCK_RESERVE, MIB_BYTES(30), MIB_BYTES(14)), 0);
	assert_region(m, MEMBLOCK_RESERVED, MIB_BYTES(30), MIB_BYTES(14));
	assert_int_equal(machine_count_events(m, EVENT_MEMBLOCK_ADDED), 3);
	assert_int_equal(machine_count_events(m, EVENT_MEMBLOCK_MERGED), 4);
	/* Again: nothing to add, and no event. */
	machine_forget_events(m);
	assert_int_equal(machine_op(m, OP_MEMBLOCK_RESERVE, MIB_BYTES(31), MIB_BYTES(1)), 0);
	assert_int_equal(m->nr_events, 0);
	machine_free(m);
}

/*
 *     +-----------------------------------+
 *     |                RAM                |
 *     +-----------+-----------+-----------+
 *     1M         40M  removed 44M       128M
 *
 *  Expect two regions; then, added again, one.
 */
static void test_remove_splits(void **state)
{
	struct machine *m = early_machine(MIB_BYTES(128));

	(void)state;
	assert_int_equal(machine_op(m, OP_MEMBLOCK_REMOVE, MIB_BYTES(40), MIB_BYTES(4)), 0);
	assert_region(m, MEMBLOCK_MEMORY, MIB_BYTES(1), MIB_BYTES(39));
	assert_region(m, MEMBLOCK_MEMORY, MIB_BYTES(44), MIB_BYTES(84));
	assert_int_equal(machine_count_events(m, EVENT_MEMBLOCK_SPLIT), 2);
	assert_int_equal(machine_op(m, OP_MEMBLOCK_REMOVE, MIB_BYTES(40), MIB_BYTES(4)),
			 STATUS_NOT_FOUND);
	assert_int_equal(machine_op(m, OP_MEMBLOCK_ADD, MIB_BYTES(40), MIB_BYTES(4)), 0);
	assert_region(m, MEMBLOCK_MEMORY, MIB_BYTES(1), MIB_BYTES(127));
	machine_free(m);
}

/* What is the machine's own, or was never RAM, is nobody's to give and take. */
static void test_own_ranges(void **state)
{
	struct machine *m = early_machine(MIB_BYTES(128));
	const struct layout *l = &m->e->st->layout;
	u64 metadata = (u64)l->metadata_start << PAGE_SHIFT;

	(void)state;
	assert_int_equal(machine_op(m, OP_MEMBLOCK_FREE, metadata, PAGE_SIZE), STATUS_RESERVED);
	assert_int_equal(machine_op(m, OP_MEMBLOCK_REMOVE, metadata - PAGE_SIZE, 2 * PAGE_SIZE),
			 STATUS_RESERVED);
	assert_int_equal(machine_op(m, OP_MEMBLOCK_FREE, HOST_WINDOW_PADDR, PAGE_SIZE),
			 STATUS_RESERVED);
	assert_int_equal(machine_op(m, OP_MEMBLOCK_REMOVE, 0, MIB_BYTES(128)), STATUS_RESERVED);
	assert_int_equal(machine_op(m, OP_MEMBLOCK_ADD, MIB_BYTES(127), MIB_BYTES(2)),
			 STATUS_INVALID);
	assert_int_equal(machine_op(m, OP_MEMBLOCK_ADD, 0, PAGE_SIZE), STATUS_INVALID);
	assert_int_equal(machine_op(m, OP_MEMBLOCK_FREE, MIB_BYTES(64), PAGE_SIZE),
			 STATUS_NOT_FOUND);
	assert_int_equal(machine_op(m, OP_ALLOC_PAGES, GFP_KERNEL, 0), STATUS_INVALID);
	machine_free(m);
}

/*
 *  Both directions, between 32 and 40 MiB, 1 MiB reserved in the middle:
 *
 *     |        +------+        |
 *     |        | kept |        |
 *     +--------+------+--------+
 *    32M      36M    37M      40M
 */
static void test_alloc_directions(void **state)
{
	struct machine *m = early_machine(MIB_BYTES(128));
	const u64 low = MIB_BYTES(32), high = MIB_BYTES(40);

	(void)state;
	machine_op(m, OP_MEMBLOCK_RESERVE, MIB_BYTES(36), MIB_BYTES(1));
	/* Top down takes the end of the upper part; what does not fit there, the lower. */
	assert_int_equal(
	    machine_op(m, OP_MEMBLOCK_ALLOC, MIB_BYTES(2), 0, low, high, MEMBLOCK_TOP_DOWN), 0);
	assert_int_equal(m->res.values[0], MIB_BYTES(38));
	assert_int_equal(
	    machine_op(m, OP_MEMBLOCK_ALLOC, MIB_BYTES(2), 0, low, high, MEMBLOCK_TOP_DOWN), 0);
	assert_int_equal(m->res.values[0], MIB_BYTES(34));
	/* Bottom up, aligned: 100 bytes at 32M, then the next multiple of 1 MiB. */
	assert_int_equal(machine_op(m, OP_MEMBLOCK_ALLOC, 100, 0, low, high, MEMBLOCK_BOTTOM_UP),
			 0);
	assert_int_equal(m->res.values[0], MIB_BYTES(32));
	assert_int_equal(
	    machine_op(m, OP_MEMBLOCK_ALLOC, 100, 1 << 20, low, high, MEMBLOCK_BOTTOM_UP), 0);
	assert_int_equal(m->res.values[0], MIB_BYTES(33));
	/* Without an alignment a cache line counts. */
	assert_int_equal(machine_op(m, OP_MEMBLOCK_ALLOC, 1, 0, low, high, MEMBLOCK_BOTTOM_UP), 0);
	assert_int_equal(m->res.values[0], MIB_BYTES(32) + 128);
	assert_int_equal(
	    machine_op(m, OP_MEMBLOCK_ALLOC, MIB_BYTES(2), 0, low, high, MEMBLOCK_BOTTOM_UP),
	    STATUS_NO_MEMORY);
	assert_int_equal(machine_op(m, OP_MEMBLOCK_ALLOC, 64, 48, low, high, 0), STATUS_INVALID);
	machine_free(m);
}

/*
 *  The array doubles while a range is being reserved: its new place must be found outside
 *  of that range, though the range is free and at the top, where the search begins.
 *
 *     +------------+-------------------------------+----------+
 *     |  128 small |   new array  |  to be reserved | metadata |
 *     +------------+-------------------------------+----------+
 *    32M                        64M
 */
static void test_doubling_avoids_the_range(void **state)
{
	struct machine *m = early_machine(MIB_BYTES(128));
	const struct memblock_array *a = &m->e->st->memblock.array[MEMBLOCK_RESERVED];
	u64 top = (u64)m->e->st->layout.metadata_start << PAGE_SHIFT;

	(void)state;
	for (u32 i = 0; a->nr < a->max; i++)
		machine_op(m, OP_MEMBLOCK_RESERVE, MIB_BYTES(32) + i * 2 * PAGE_SIZE, PAGE_SIZE);
	assert_int_equal(a->regions, 0);
	assert_int_equal(machine_op(m, OP_MEMBLOCK_RESERVE, MIB_BYTES(64), top - MIB_BYTES(64)), 0);
	assert_int_equal(a->max, 2 * MEMBLOCK_INITIAL_REGIONS);
	assert_in_range(a->regions - m->e->page_offset, MIB_BYTES(33), MIB_BYTES(64) - PAGE_SIZE);
	machine_free(m);
}

/* ---- memblock against a model ---- */

/* Units of 1 KiB below 64 MiB, and what each array holds. */
enum { UNITS = 65536, UNIT = 1024 };

struct model {
	u8 in[2][UNITS];
	ref_t regions[2];
	u32 max[2];
};

static void model_set(struct model *model, u32 which, u64 start, u64 size, u8 to)
{
	memset(model->in[which] + start / UNIT, to, size / UNIT);
}

/* The arrays' own memory moves when they double. */
static void model_follow_arrays(struct model *model, struct machine *m)
{
	for (u32 which = 0; which < 2; which++) {
		const struct memblock_array *a = &m->e->st->memblock.array[which];

		if (a->regions == model->regions[which])
			continue;
		if (model->regions[which])
			model_set(model, MEMBLOCK_RESERVED,
				  model->regions[which] - m->e->page_offset,
				  model->max[which] * sizeof(struct memblock_region), 0);
		model_set(model, MEMBLOCK_RESERVED, a->regions - m->e->page_offset,
			  a->max * sizeof(struct memblock_region), 1);
		model->regions[which] = a->regions;
		model->max[which] = a->max;
	}
}

static void model_compare(const struct model *model, struct machine *m)
{
	for (u32 which = 0; which < 2; which++) {
		u32 n = 0;

		for (u32 u = 0; u < UNITS;) {
			u32 start = u;

			for (; u < UNITS && model->in[which][u] == model->in[which][start]; u++)
				;
			if (!model->in[which][start])
				continue;
			if (region(m, which, n).start != (u64)start * UNIT ||
			    region(m, which, n).size != (u64)(u - start) * UNIT)
				fail_msg("op %llu: array %u region %u is 0x%llx+0x%llx, not "
					 "0x%x+0x%x",
					 (unsigned long long)m->res.op, which, n,
					 (unsigned long long)region(m, which, n).start,
					 (unsigned long long)region(m, which, n).size, start * UNIT,
					 (u - start) * UNIT);
			n++;
		}
		assert_int_equal(region_count(m, which), n);
	}
}

/* The naive search: every aligned place, one after the other. */
static u64 model_find(const struct model *model, u32 units, u32 align, u32 min, u32 max, bool down)
{
	for (u32 i = 0; i < UNITS; i += align) {
		u32 at = down ? (UNITS - align) / align * align - i : i, k = 0;

		if (at < min || at + units > max || at == 0)
			continue;
		while (k < units && model->in[MEMBLOCK_MEMORY][at + k] &&
		       !model->in[MEMBLOCK_RESERVED][at + k])
			k++;
		if (k == units)
			return (u64)at * UNIT;
	}
	return 0;
}

static void test_memblock_model(void **state)
{
	static struct model model;
	struct machine *m = early_machine(MIB_BYTES(64));
	const struct layout *l = &m->e->st->layout;
	struct random r = random_seeded(7);
	u32 done[4] = {0};

	(void)state;
	for (u32 which = 0; which < 2; which++)
		for (u32 i = 0; i < region_count(m, which); i++)
			model_set(&model, which, region(m, which, i).start,
				  region(m, which, i).size, 1);
	for (u32 round = 0; round < 6000; round++) {
		/* The first half makes fragments, so that the arrays double. */
		u32 largest = round < 3000 ? 4 : 1500;
		u64 start = random_below(&r, UNITS), size = 1 + random_below(&r, largest);
		u32 what = (u32)random_below(&r, round < 3000 ? 3 : 5), status;
		u64 end;

		size = size > UNITS - start ? UNITS - start : size;
		start *= UNIT;
		size *= UNIT;
		end = start + size;
		machine_forget_events(m);
		if (what == 0) {
			status = machine_op(m, OP_MEMBLOCK_RESERVE, start, size);
			assert_int_equal(status, STATUS_OK);
			model_follow_arrays(&model, m);
			model_set(&model, MEMBLOCK_RESERVED, start, size, 1);
		} else if (what == 1 || what == 3) {
			u32 which = random_below(&r, 2) ? MEMBLOCK_RESERVED : MEMBLOCK_MEMORY;

			status = machine_op(
			    m, which == MEMBLOCK_MEMORY ? OP_MEMBLOCK_REMOVE : OP_MEMBLOCK_FREE,
			    start, size);
			model_follow_arrays(&model, m);
			if (status == STATUS_OK)
				model_set(&model, which, start, size, 0);
		} else if (what == 2) {
			u32 align = 1u << random_below(&r, 6), min = (u32)random_below(&r, UNITS);
			bool down = random_below(&r, 2);
			u64 want = model_find(&model, (u32)(size / UNIT), align, min, UNITS, down);

			status = machine_op(m, OP_MEMBLOCK_ALLOC, size, align * UNIT,
					    (u64)min * UNIT, (u64)UNITS * UNIT,
					    down ? MEMBLOCK_TOP_DOWN : MEMBLOCK_BOTTOM_UP);
			assert_int_equal(status, want ? STATUS_OK : STATUS_NO_MEMORY);
			assert_int_equal(m->res.values[0], want);
			model_follow_arrays(&model, m);
			if (want)
				model_set(&model, MEMBLOCK_RESERVED, want, size, 1);
		} else {
			status = machine_op(m, OP_MEMBLOCK_ADD, start, size);
			model_follow_arrays(&model, m);
			/* Only what the configuration has as RAM: from 1 MiB on. */
			assert_int_equal(status, start >= MIB_BYTES(1) ||
							 (start >= PAGE_SIZE && end <= 0x9f000)
						     ? STATUS_OK
						     : STATUS_INVALID);
			if (status == STATUS_OK)
				model_set(&model, MEMBLOCK_MEMORY, start, size, 1);
		}
		done[status == STATUS_OK ? 0 : status == STATUS_RESERVED ? 1 : 2]++;
		model_compare(&model, m);
	}
	print_message("%u ok, %u own, %u other; arrays of %u and %u\n", done[0], done[1], done[2],
		      m->e->st->memblock.array[0].max, m->e->st->memblock.array[1].max);
	/* Both arrays have moved at least once, and the machine's own was defended. */
	assert_true(m->e->st->memblock.array[0].max > MEMBLOCK_INITIAL_REGIONS);
	assert_true(m->e->st->memblock.array[1].max > 2 * MEMBLOCK_INITIAL_REGIONS);
	assert_true(done[1] > 10);
	assert_true(l->metadata_start > 0);
	machine_free(m);
}

/* ---- inspections ---- */

struct text_sink {
	struct inspect_sink sink;
	char text[16384];
	u32 length, rows;
};

static void keep_text(struct inspect_sink *sink, const char *bytes, u32 length)
{
	struct text_sink *t = (struct text_sink *)sink;

	assert_in_range(t->length + length, 0, sizeof t->text - 1);
	memcpy(t->text + t->length, bytes, length);
	t->length += length;
	t->text[t->length] = 0;
}

static void count_row(struct inspect_sink *sink, u32 type, const u64 *values, u32 nr)
{
	(void)type, (void)values, (void)nr;
	((struct text_sink *)sink)->rows++;
}

static void inspect(struct machine *m, u32 question, struct text_sink *t)
{
	const u64 args[OP_ARGS] = {0};

	*t = (struct text_sink){.sink = {keep_text, count_row, true, true}};
	assert_int_equal(sim_inspect(m->sim, question, args, &t->sink), STATUS_OK);
}

static void test_inspections(void **state)
{
	struct machine *m = early_machine(MIB_BYTES(128));
	struct text_sink t;

	(void)state;
	inspect(m, INSPECT_MEMBLOCK, &t);
	print_message("%s", t.text);
	assert_non_null(strstr(t.text, "memory:\n   0: 0x00001000..0x0009efff\n"
				       "   1: 0x00100000..0x07ffffff\n"
				       "reserved:\n   0: 0x00000000..0x000fffff\n"
				       "   1: 0x01000000..0x011affff\n"));
	assert_int_equal(t.rows, region_count(m, 0) + region_count(m, 1));
	inspect(m, INSPECT_LAYOUT, &t);
	print_message("%s", t.text);
	assert_non_null(strstr(t.text, "0xff800000-0xffbfffff       4 MiB  pkmap\n"));
	assert_non_null(strstr(t.text, "0xc0000000-0xc7ffffff     128 MiB  direct map\n"));
	machine_free(m);
}

/* ---- a whole boot ---- */

/* A booted machine has given the buddy what memblock had free, and nothing else. */
static void test_boot_op(void **state)
{
	struct machine *m = early_machine(GIB_BYTES(1));

	(void)state;
	assert_int_equal(machine_op(m, OP_MEMBLOCK_RESERVE, MIB_BYTES(512), MIB_BYTES(8)), 0);
	assert_int_equal(machine_op(m, OP_MEMBLOCK_REMOVE, MIB_BYTES(600), MIB_BYTES(4)), 0);
	assert_int_equal(machine_op(m, OP_BOOT), 0);

	u32 free = 0;
	u64 given = m->res.values[0];

	for (pfn_t pfn = 0; pfn < m->e->st->layout.max_pfn; pfn++)
		free += memblock_is_memory(m->e, pfn) && !memblock_is_reserved(m->e, pfn);
	assert_int_equal(given, free);
	assert_int_equal(m->e->st->phase, PHASE_FRESH);
	assert_int_equal(machine_op(m, OP_BOOT), STATUS_INVALID);
	machine_free(m);
}

/* No lowmem left: Boot says so and the machine stays as it was, ready for another try. */
static void test_boot_without_room(void **state)
{
	struct machine *m = early_machine(MIB_BYTES(128));
	u64 paddr;

	(void)state;
	assert_int_equal(machine_op(m, OP_MEMBLOCK_RESERVE, MIB_BYTES(1), MIB_BYTES(127)), 0);
	assert_int_equal(machine_op(m, OP_BOOT), STATUS_NO_MEMORY);
	assert_int_equal(m->e->st->phase, PHASE_EARLY);
	assert_int_equal(machine_op(m, OP_MEMBLOCK_FREE, MIB_BYTES(32), MIB_BYTES(32)), 0);
	assert_int_equal(memblock_alloc(m->e, PAGE_SIZE, PAGE_SIZE, 0, 0, 0, &paddr), STATUS_OK);
	assert_int_equal(machine_op(m, OP_BOOT), 0);
	machine_free(m);
}

/* A machine of 64 GiB starts without touching a descriptor per frame: 512 MiB of mem_map
 * would show. */
static void test_large_machine_is_lazy(void **state)
{
	struct engine_config config = {CLASSIC, .flags = CONFIG_PAE, .nr_e820 = 1,
				       .e820 = {{0, GIB_BYTES(64), 1, 0}}};
	struct machine *m = machine_new(&config);
	u64 resident = sim_resident_bytes(m->sim);

	(void)state;
	print_message("64 GiB: %llu KiB resident\n", (unsigned long long)resident >> 10);
	assert_int_equal(m->e->st->layout.max_pfn, 1 << 24);
	assert_in_range(resident, 1, MIB_BYTES(600));
	machine_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_figures),
	    cmocka_unit_test(test_linux_constants),
	    cmocka_unit_test(test_movablecore),
	    cmocka_unit_test(test_headroom),
	    cmocka_unit_test(test_contradictions),
	    cmocka_unit_test(test_every_split),
	    cmocka_unit_test(test_unused),
	    cmocka_unit_test(test_ram_map_random),
	    cmocka_unit_test(test_reserve_merges_three),
	    cmocka_unit_test(test_reserve_over_two),
	    cmocka_unit_test(test_remove_splits),
	    cmocka_unit_test(test_own_ranges),
	    cmocka_unit_test(test_alloc_directions),
	    cmocka_unit_test(test_doubling_avoids_the_range),
	    cmocka_unit_test(test_memblock_model),
	    cmocka_unit_test(test_inspections),
	    cmocka_unit_test(test_boot_op),
	    cmocka_unit_test(test_boot_without_room),
	    cmocka_unit_test(test_large_machine_is_lazy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
