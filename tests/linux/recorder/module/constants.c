// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * constants.c - numbers that the kernel was built with, or that its boot has made; zones
 * and zonelists.
 */
#include "recorder.h"

#include <asm/fixmap.h>
#include <asm/pgtable_areas.h>
#include <linux/cpumask.h>
#include <linux/highmem.h>
#include <linux/vmalloc.h>

#define CONSTANT(x)                                                               \
	out("{\"t\":\"const\",\"k\":\"" #x "\",\"v\":%lld,\"hex\":\"0x%llx\"}\n", \
	    (long long)(unsigned long)(x), (unsigned long long)(unsigned long)(x))

/* The kernel's own variable, which the macro VMALLOC_END's neighbour MAXMEM uses, is not to
 * be linked to; this is its value without vmalloc=. */
static const unsigned int reserve_mb = 128;

static void out_constants(void)
{
	CONSTANT(PAGE_OFFSET);
	CONSTANT(PAGE_SIZE);
	CONSTANT(high_memory);
	CONSTANT(VMALLOC_START);
	CONSTANT(VMALLOC_END);
	CONSTANT(VMALLOC_OFFSET);
	CONSTANT(PKMAP_BASE);
	CONSTANT(LAST_PKMAP);
	CONSTANT(PKMAP_ADDR(0));
	CONSTANT(PKMAP_ADDR(LAST_PKMAP - 1));
	CONSTANT(LDT_BASE_ADDR);
	CONSTANT(LDT_END_ADDR);
	CONSTANT(CPU_ENTRY_AREA_BASE);
	CONSTANT(CPU_ENTRY_AREA_PAGES);
	CONSTANT(sizeof(struct cpu_entry_area));
	CONSTANT(__FIXADDR_TOP);
	CONSTANT(FIXADDR_TOP);
	CONSTANT(FIXADDR_START);
	CONSTANT(FIXADDR_SIZE);
	CONSTANT(FIXADDR_TOT_START);
	CONSTANT(FIXADDR_TOT_SIZE);
	CONSTANT(VMALLOC_END - PAGE_OFFSET - ((unsigned long)reserve_mb << 20));
	CONSTANT(PMD_SIZE);
	CONSTANT(PGDIR_SHIFT);
	CONSTANT(PTRS_PER_PTE);
	CONSTANT(PTRS_PER_PMD);
	CONSTANT(PTRS_PER_PGD);
	CONSTANT(sizeof(pte_t));
	CONSTANT(sizeof(pgd_t));
	CONSTANT(KM_MAX_IDX);
	CONSTANT(NR_CPUS);
	CONSTANT(nr_cpu_ids);
	CONSTANT(FIX_HOLE);
	CONSTANT(FIX_DBGP_BASE);
	CONSTANT(FIX_EARLYCON_MEM_BASE);
#ifdef CONFIG_PROVIDE_OHCI1394_DMA_INIT
	CONSTANT(FIX_OHCI1394_BASE);
#endif
	CONSTANT(FIX_APIC_BASE);
	CONSTANT(FIX_IO_APIC_BASE_0);
	CONSTANT(FIX_IO_APIC_BASE_END);
	CONSTANT(FIX_KMAP_BEGIN);
	CONSTANT(FIX_KMAP_END);
#ifdef CONFIG_PCI_MMCONFIG
	CONSTANT(FIX_PCIE_MCFG);
#endif
#ifdef CONFIG_ACPI_APEI_GHES
	CONSTANT(FIX_APEI_GHES_IRQ);
	CONSTANT(FIX_APEI_GHES_NMI);
#endif
	CONSTANT(__end_of_permanent_fixed_addresses);
	CONSTANT(FIX_BTMAP_END);
	CONSTANT(FIX_BTMAP_BEGIN);
	CONSTANT(FIX_WP_TEST);
#ifdef CONFIG_INTEL_TXT
	CONSTANT(FIX_TBOOT_BASE);
#endif
	CONSTANT(__end_of_fixed_addresses);
	CONSTANT(__fix_to_virt(FIX_KMAP_BEGIN));
	CONSTANT(__fix_to_virt(FIX_KMAP_END));
	CONSTANT(__fix_to_virt(FIX_BTMAP_BEGIN));
	CONSTANT(__fix_to_virt(FIX_BTMAP_END));
	CONSTANT(__fix_to_virt(FIX_WP_TEST));
	CONSTANT(__fix_to_virt(FIX_APIC_BASE));
	CONSTANT(__fix_to_virt(FIX_IO_APIC_BASE_0));
	CONSTANT(__fix_to_virt(FIX_HOLE));
	CONSTANT(sizeof(struct page));
	CONSTANT(MAX_ORDER);
	CONSTANT(pageblock_order);
	CONSTANT(pageblock_nr_pages);
	CONSTANT(MIGRATE_TYPES);
	CONSTANT(MIGRATE_PCPTYPES);
	CONSTANT(NR_PCP_LISTS);
	CONSTANT(MAX_NR_ZONES);
	CONSTANT(MIGRATE_UNMOVABLE);
	CONSTANT(MIGRATE_MOVABLE);
	CONSTANT(MIGRATE_RECLAIMABLE);
	CONSTANT(MIGRATE_HIGHATOMIC);
	CONSTANT(MIGRATE_ISOLATE);
	CONSTANT(ZONE_DMA);
	CONSTANT(ZONE_NORMAL);
	CONSTANT(ZONE_HIGHMEM);
	CONSTANT(ZONE_MOVABLE);
	CONSTANT(GFP_ATOMIC);
	CONSTANT(GFP_KERNEL);
	CONSTANT(GFP_NOWAIT);
	CONSTANT(GFP_USER);
	CONSTANT(GFP_DMA);
	CONSTANT(GFP_HIGHUSER);
	CONSTANT(GFP_HIGHUSER_MOVABLE);
	CONSTANT(GFP_TRANSHUGE_LIGHT);
	CONSTANT(__GFP_DMA);
	CONSTANT(__GFP_HIGHMEM);
	CONSTANT(__GFP_MOVABLE);
	CONSTANT(__GFP_RECLAIMABLE);
	CONSTANT(__GFP_HIGH);
	CONSTANT(__GFP_IO);
	CONSTANT(__GFP_FS);
	CONSTANT(__GFP_ZERO);
	CONSTANT(__GFP_ATOMIC);
	CONSTANT(__GFP_DIRECT_RECLAIM);
	CONSTANT(__GFP_KSWAPD_RECLAIM);
	CONSTANT(__GFP_WRITE);
	CONSTANT(__GFP_NOWARN);
	CONSTANT(__GFP_RETRY_MAYFAIL);
	CONSTANT(__GFP_NOFAIL);
	CONSTANT(__GFP_NORETRY);
	CONSTANT(__GFP_MEMALLOC);
	CONSTANT(__GFP_COMP);
	CONSTANT(__GFP_NOMEMALLOC);
	CONSTANT(__GFP_HARDWALL);
	CONSTANT(__GFP_THISNODE);
	CONSTANT(__GFP_ACCOUNT);
	CONSTANT(mem_map);
	CONSTANT(max_mapnr);
	CONSTANT(totalram_pages());
	CONSTANT(totalhigh_pages());
}

static void out_zone(int number)
{
	struct zone *zone = zone_number(number);
	int i;

	out("{\"t\":\"zone\",\"z\":%d,\"name\":\"%s\",\"start\":%lu,\"spanned\":%lu,\"present\":%"
	    "lu,",
	    number, zone->name, zone->zone_start_pfn, zone->spanned_pages, zone->present_pages);
	out("\"managed\":%lu,\"wmark\":[%lu,%lu,%lu],\"boost\":%lu,",
	    (unsigned long)atomic_long_read(&zone->managed_pages), zone->_watermark[WMARK_MIN],
	    zone->_watermark[WMARK_LOW], zone->_watermark[WMARK_HIGH], zone->watermark_boost);
	out("\"pageset_high\":%d,\"pageset_batch\":%d,\"drift\":%lu,\"reserve\":[",
	    zone->pageset_high, zone->pageset_batch, zone->percpu_drift_mark);
	for (i = 0; i < MAX_NR_ZONES; i++)
		out("%s%ld", comma(i), zone->lowmem_reserve[i]);
	out("]}\n");
}

static void out_zonelist(int number)
{
	struct zonelist *list = &contig_page_data.node_zonelists[number * (MAX_ZONELISTS - 1)];
	struct zoneref *ref;
	int nr = 0;

	out("{\"t\":\"zonelist\",\"i\":%d,\"zones\":[", number);
	for (ref = list->_zonerefs; ref->zone; ref++)
		out("%s\"%s\"", comma(nr++), ref->zone->name);
	out("]}\n");
}

void record_constants(void)
{
	int i;

	out_constants();
	for (i = 0; i < MAX_NR_ZONES; i++)
		out_zone(i);
	for (i = 0; i < 2; i++)
		out_zonelist(i);
}
