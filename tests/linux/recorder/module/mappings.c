// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * mappings.c - a script of kmap, kmap_local, vmalloc, vmap and a fixmap slot, each step with
 * the address that came of it. Steps in between (mostly unmapping) are not told: who reads
 * the record knows this script.
 */
#include "recorder.h"

#include <asm/fixmap.h>
#include <linux/delay.h>
#include <linux/highmem.h>
#include <linux/kthread.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

enum { NR_PAGES = 1400, NR_LOCALS = 15, LOCAL_FIRST = 200, AFTER_FIRST = 1300, AFTER_LAST = 1304 };

static struct page *low, *pages[NR_PAGES];
static int nr_pages; /* of pages[], that there are */

static unsigned long va(const void *address)
{
	return (unsigned long)address;
}

static void out_kmap(const char *op, int i, bool with_pfn)
{
	unsigned long at = va(kmap(pages[i]));

	out("{\"t\":\"kmap\",\"op\":\"%s\",\"i\":%d,", op, i);
	if (with_pfn)
		out("\"pfn\":%lu,", page_to_pfn(pages[i]));
	out("\"va\":\"0x%lx\"}\n", at);
}

/* ---- kmap ---- */

static void map_low(void)
{
	void *local;

	out("{\"t\":\"kmap\",\"op\":\"kmap lowmem\",\"pfn\":%lu,\"va\":\"0x%lx\"}\n",
	    page_to_pfn(low), va(kmap(low)));
	kunmap(low);
	local = kmap_local_page(low);
	out("{\"t\":\"kmap\",\"op\":\"kmap_local lowmem\",\"pfn\":%lu,\"va\":\"0x%lx\"}\n",
	    page_to_pfn(low), va(local));
	kunmap_local(local);
}

static void map_some(void)
{
	void *local;
	int i;

	for (i = 0; i < 8; i++)
		out_kmap("kmap", i, true);
	out_kmap("kmap again", 3, false);
	kunmap(pages[3]);
	for (i = 0; i < 4; i++) {
		kunmap(pages[i]);
		out("{\"t\":\"kmap\",\"op\":\"kunmap\",\"i\":%d,\"page_address_after\":\"0x%lx\"}"
		    "\n",
		    i, va(page_address(pages[i])));
	}
	for (i = 8; i < 12; i++)
		out_kmap("kmap", i, true);
	out_kmap("re-kmap unmapped", 1, false);
	local = kmap_local_page(pages[5]);
	out("{\"t\":\"kmap\",\"op\":\"kmap_local of a kmapped "
	    "page\",\"i\":5,\"va\":\"0x%lx\",\"page_address\":\"0x%lx\"}\n",
	    va(local), va(page_address(pages[5])));
	kunmap_local(local);
	kunmap(pages[1]);
	for (i = 4; i < 12; i++)
		kunmap(pages[i]);
}

/* ---- the window's capacity, and who gets a slot that becomes free ---- */

static unsigned long mapped_at[NR_PAGES];
static atomic_t mapped;

static int map_all(void *unused)
{
	int i;

	for (i = 0; i < nr_pages; i++) {
		mapped_at[i] = va(kmap(pages[i]));
		atomic_inc(&mapped);
	}
	while (!kthread_should_stop())
		msleep(10);
	return 0;
}

/* How many are mapped once nothing moves any more. */
static int wait_until_asleep(void)
{
	int before = -1, now = 0;

	while (before != now) {
		before = now;
		msleep(700);
		now = atomic_read(&mapped);
	}
	return now;
}

static void wake_some(int asleep_at)
{
	int i, now;

	for (i = 0; i < 4 && asleep_at < nr_pages; i++) {
		int which = (i * 97 + 50) % asleep_at;

		kunmap(pages[which]);
		msleep(300);
		now = atomic_read(&mapped);
		out("{\"t\":\"kmapexh\",\"kunmap_i\":%d,\"freed_va\":\"0x%lx\",\"count_now\":%d,"
		    "\"waiter_got\":\"0x%lx\"}\n",
		    which, mapped_at[which], now, mapped_at[now - 1]);
		/* It is never mapped again, and not given back. */
		pages[which] = NULL;
	}
}

static void release_until_through(void)
{
	int freed = 0, hold;

	do {
		hold = atomic_read(&mapped);
		for (; freed < hold; freed++)
			if (pages[freed])
				kunmap(pages[freed]);
		if (hold < nr_pages)
			msleep(200);
	} while (hold < nr_pages);
}

static void fill_window(void)
{
	struct task_struct *thread;
	int i, n;

	atomic_set(&mapped, 0);
	thread = kthread_run(map_all, NULL, "zoned_kmap");
	if (IS_ERR(thread))
		return;
	n = wait_until_asleep();
	out("{\"t\":\"kmapexh\",\"mapped_before_block\":%d,\"of\":%d,\"LAST_PKMAP\":%d,\"va\":[", n,
	    nr_pages, LAST_PKMAP);
	for (i = 0; i < n; i++)
		out("%s\"%lx\"", comma(i), mapped_at[i]);
	out("]}\n");
	wake_some(n);
	release_until_through();
	kthread_stop(thread);
	for (i = AFTER_FIRST; i < AFTER_LAST && i < nr_pages; i++)
		out_kmap("kmap after all freed", i, false);
	for (i = AFTER_FIRST; i < AFTER_LAST && i < nr_pages; i++)
		kunmap(pages[i]);
}

/* ---- kmap_local ---- */

static void nest(void)
{
	void *local[NR_LOCALS];
	int i;

	for (i = 0; i < NR_LOCALS; i++) {
		local[i] = kmap_local_page(pages[LOCAL_FIRST + i]);
		out("{\"t\":\"kml\",\"op\":\"kmap_local_page\",\"depth\":%d,\"cpu\":%d,\"va\":\"0x%"
		    "lx\",\"idx\":%lu}\n",
		    i, raw_smp_processor_id(), va(local[i]), __virt_to_fix(va(local[i])));
	}
	while (i--)
		kunmap_local(local[i]);
}

static void nest_mixed(void)
{
	struct page **page = &pages[LOCAL_FIRST];
	void *v[4];

	v[0] = kmap_local_page(page[0]);
	v[1] = kmap_local_page(page[1]);
	v[2] = kmap_atomic(page[2]);
	v[3] = kmap_local_page(page[3]);
	out("{\"t\":\"kml\",\"op\":\"mixed "
	    "local,local,atomic,local\",\"va\":[\"0x%lx\",\"0x%lx\",\"0x%lx\",\"0x%lx\"]}\n",
	    va(v[0]), va(v[1]), va(v[2]), va(v[3]));
	kunmap_local(v[3]);
	kunmap_atomic(v[2]);
	v[2] = kmap_local_page(page[4]);
	out("{\"t\":\"kml\",\"op\":\"after pop 2 push 1\",\"va\":\"0x%lx\"}\n", va(v[2]));
	kunmap_local(v[2]);
	kunmap_local(v[1]);
	kunmap_local(v[0]);
}

static void nest_special(void)
{
	void *v[2];

	v[0] = kmap_local_page(low);
	v[1] = kmap_local_page(pages[LOCAL_FIRST]);
	out("{\"t\":\"kml\",\"op\":\"low,high\",\"va\":[\"0x%lx\",\"0x%lx\"]}\n", va(v[0]),
	    va(v[1]));
	kunmap_local(v[1]);
	kunmap_local(v[0]);
	v[0] = kmap_local_page(pages[LOCAL_FIRST]);
	v[1] = kmap_atomic(pages[LOCAL_FIRST]);
	out("{\"t\":\"kml\",\"op\":\"same page twice\",\"va\":[\"0x%lx\",\"0x%lx\"]}\n", va(v[0]),
	    va(v[1]));
	kunmap_atomic(v[1]);
	kunmap_local(v[0]);
}

/* ---- the vmalloc window ---- */

static void out_vmalloc(int nr, void *area)
{
	int zones[MAX_NR_ZONES] = {0}, i;

	for (i = 0; area && i < nr; i++)
		zones[page_zonenum(vmalloc_to_page(area + i * PAGE_SIZE))]++;
	out("{\"t\":\"vm\",\"op\":\"vmalloc\",\"pages\":%d,\"va\":\"0x%lx\",\"zones\":[%d,%d,%d,%d]"
	    "}\n",
	    nr, va(area), zones[0], zones[1], zones[2], zones[3]);
}

static void allocate_areas(void)
{
	static const int sizes[] = {1, 2, 1, 4, 1, 8, 3, 16, 64, 1, 256, 512, 513, 1024};
	void *area[ARRAY_SIZE(sizes)];
	u32 i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		area[i] = vmalloc((size_t)sizes[i] << PAGE_SHIFT);
		out_vmalloc(sizes[i], area[i]);
	}
	vfree(area[1]);
	vfree(area[4]);
	out("{\"t\":\"vm\",\"op\":\"vfree\",\"which\":[1,4]}\n");
	area[1] = area[4] = NULL;
	for (i = 0; i < 3; i++) {
		void *again = vmalloc(PAGE_SIZE);

		out("{\"t\":\"vm\",\"op\":\"vmalloc1 after vfree\",\"va\":\"0x%lx\"}\n", va(again));
		vfree(again);
	}
	for (i = 0; i < ARRAY_SIZE(sizes); i++)
		vfree(area[i]);
}

static void map_pages(void)
{
	struct page *eight[8];
	void *area;
	int i;

	for (i = 0; i < 8; i++)
		eight[i] = i & 1 || !PageHighMem(pages[300]) ? low : pages[300 + i];
	area = vmap(eight, 8, VM_MAP, PAGE_KERNEL);
	out("{\"t\":\"vm\",\"op\":\"vmap 8\",\"va\":\"0x%lx\",\"match\":%d}\n", va(area),
	    area && vmalloc_to_page(area + PAGE_SIZE) == eight[1]);
	vunmap(area);
}

/* Areas of one size until there is no room. */
static int fill_with(struct page **same, int step, void **areas, int nr, int most,
		     unsigned long *lowest, unsigned long *highest)
{
	int first = nr;

	while (nr < most && (areas[nr] = vmap(same, step, VM_MAP, PAGE_KERNEL))) {
		unsigned long start = va(areas[nr]);

		*lowest = min(*lowest, start);
		*highest = max(*highest, start + step * PAGE_SIZE);
		if (nr++ - first < 2)
			out("{\"t\":\"vm\",\"op\":\"cap\",\"pages\":%d,\"va\":\"0x%lx\"}\n", step,
			    start);
	}
	return nr;
}

static void fill_areas(void)
{
	static const int steps[] = {1024, 256, 16, 1};
	enum { MOST = 40000 };
	unsigned long lowest = ~0UL, highest = 0, total = 0;
	void **areas = vzalloc(MOST * sizeof(*areas));
	struct page **same = kmalloc_array(1024, sizeof(*same), GFP_KERNEL);
	int i, nr = 0, before;

	for (i = 0; same && i < 1024; i++)
		same[i] = low;
	for (i = 0; areas && same && i < ARRAY_SIZE(steps); i++) {
		before = nr;
		nr = fill_with(same, steps[i], areas, nr, MOST, &lowest, &highest);
		total += (unsigned long)(nr - before) * steps[i];
		out("{\"t\":\"vm\",\"op\":\"capacity\",\"step_pages\":%d,\"areas\":%d,\"total_"
		    "pages\":%lu,",
		    steps[i], nr - before, total);
		out("\"lo\":\"0x%lx\",\"hi\":\"0x%lx\",\"VMALLOC_START\":\"0x%lx\",\"VMALLOC_END\":"
		    "\"0x%lx\"}\n",
		    lowest, highest, VMALLOC_START, VMALLOC_END);
	}
	while (nr)
		vunmap(areas[--nr]);
	kfree(same);
	vfree(areas);
}

/* ---- a fixmap slot ---- */

static void set_slot(void)
{
	void (*set)(unsigned int index, phys_addr_t at, pgprot_t prot) =
	    kernel_function("native_set_fixmap");
	struct page *page = PageHighMem(pages[400]) ? pages[400] : low;
	u32 *through_slot = (u32 *)__fix_to_virt(FIX_WP_TEST), *through_kmap;
	bool same;

	if (!set)
		return;
	through_kmap = kmap(page);
	through_kmap[5] = 0xfeedbeef;
	set(FIX_WP_TEST, PFN_PHYS(page_to_pfn(page)), PAGE_KERNEL);
	same = through_slot[5] == 0xfeedbeef;
	through_slot[6] = 0x12345678;
	same = same && READ_ONCE(through_kmap[6]) == 0x12345678;
	kunmap(page);
	set(FIX_WP_TEST, 0, __pgprot(0));
	out("{\"t\":\"fix\",\"op\":\"set_fixmap(FIX_WP_TEST)\",\"idx\":%d,\"va\":\"0x%lx\",\"rw_"
	    "ok\":%d}\n",
	    FIX_WP_TEST, va(through_slot), same);
}

void record_mappings(void)
{
	int i;

	low = alloc_page(GFP_KERNEL);
	for (nr_pages = 0; low && nr_pages < NR_PAGES; nr_pages++) {
		pages[nr_pages] = alloc_page(GFP_HIGHUSER | __GFP_NOWARN);
		if (!pages[nr_pages])
			break;
	}
	if (nr_pages < NR_PAGES) {
		out("{\"t\":\"note\",\"m\":\"too little memory for this script\"}\n");
		goto end;
	}
	map_low();
	if (PageHighMem(pages[0])) {
		map_some();
		fill_window();
		nest();
		nest_mixed();
		nest_special();
	}
	allocate_areas();
	map_pages();
	fill_areas();
	set_slot();
end:
	for (i = 0; i < nr_pages; i++)
		if (pages[i])
			__free_page(pages[i]);
	if (low)
		__free_page(low);
}
