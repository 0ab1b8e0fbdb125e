/*
 * paging.c - the tables between QEMU's entry and the engine's own.
 *
 * The engine writes its state through the direct map before it has page tables, so
 * a direct map must be there first. These tables hold it with large pages, beside
 * what boot.S mapped; the engine's port_load_cr3() leaves them for good. Two-level
 * tables grow out of boot.S's; a PAE machine gets a set of its own and paging is
 * switched over. The window is mapped as the engine will map it, devices included,
 * so the link does not notice when an early machine boots.
 */
#include "kernel.h"

#define ENTRY 0x03u /* present, write */
#define LARGE 0x83u /* and a large page */

static u32 cpuid_features(void)
{
	u32 a = 1, b, c, d;

	__asm__("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
	return d;
}

/* The table of the window and the devices: 1024 entries, or 512 under PAE. */
static u32 window_table[1024] __attribute__((aligned(PAGE_SIZE)));

static void map_window(bool pae)
{
	u32 words = pae ? 2 : 1, first = (HOST_WINDOW_VA >> PAGE_SHIFT) % (1024 / words);
	u32 pages = HOST_WINDOW_BYTES >> PAGE_SHIFT;

	for (u32 i = 0; i < pages; i++)
		window_table[(first + i) * words] = (HOST_WINDOW_PADDR + (i << PAGE_SHIFT)) | ENTRY;
	window_table[(first + pages) * words] = HOST_MMIO_PADDR | ENTRY;
	window_table[(first + pages + 1) * words] = HOST_LAPIC_PADDR | ENTRY;
}
_Static_assert(HOST_WINDOW_VA == 0xffc00000 && HOST_WINDOW_PADDR == 0x01000000,
	       "as boot.S and kernel.lds have them");
_Static_assert(HOST_USER_CODE_VA == 0xffdaf000, "as kernel.lds has it");
_Static_assert(HOST_MMIO_VA == HOST_WINDOW_VA + HOST_WINDOW_BYTES, "the pages behind the window");
_Static_assert(HOST_LAPIC_VA == HOST_MMIO_VA + PAGE_SIZE, "the pages behind the window");
_Static_assert(HOST_WINDOW_VA % (2u << 20) == 0, "one PAE table holds window and devices");

static void two_level(u32 page_offset, u64 lowmem_bytes)
{
	for (u64 at = 0; at < lowmem_bytes; at += 4u << 20)
		boot_pd[(page_offset + (u32)at) >> 22] = (u32)at | LARGE;
	map_window(false);
	boot_pd[HOST_WINDOW_VA >> 22] = host_paddr(window_table) | ENTRY;
	paging_switch(host_paddr(boot_pd), CR4_PSE | CR4_PGE);
}

static u64 pdpt[4] __attribute__((aligned(32)));
static u64 pd[4][512] __attribute__((aligned(PAGE_SIZE)));

static void map_2m(u32 va, u32 paddr)
{
	pd[va >> 30][(va >> 21) & 511] = paddr | LARGE;
}

static void pae(u32 page_offset, u64 lowmem_bytes)
{
	for (u32 i = 0; i < 4; i++)
		pdpt[i] = host_paddr(pd[i]) | 1;
	map_2m(HOST_WINDOW_PADDR, HOST_WINDOW_PADDR); /* paging is switched here */
	map_window(true);
	pd[HOST_WINDOW_VA >> 30][(HOST_WINDOW_VA >> 21) & 511] = host_paddr(window_table) | ENTRY;
	for (u64 at = 0; at < lowmem_bytes; at += 2u << 20)
		map_2m(page_offset + (u32)at, (u32)at);
	/* EFER.NXE: no-execute works in these tables and the engine's. */
	__asm__ volatile("rdmsr; orl $0x800, %%eax; wrmsr" : : "c"(0xc0000080u) : "eax", "edx");
	paging_switch(host_paddr(pdpt), CR4_PSE | CR4_PAE | CR4_PGE);
}

void paging_direct_map(const struct engine_config *config, u64 lowmem_bytes)
{
	u32 page_offset = config->page_offset ? config->page_offset : 0xc0000000u;

	/* PSE, PAE and PGE: bits 3, 6 and 13. */
	if ((cpuid_features() & 0x2048) != 0x2048)
		panic("this CPU lacks PSE, PAE or PGE");
	if (config->flags & CONFIG_PAE)
		pae(page_offset, lowmem_bytes);
	else
		two_level(page_offset, lowmem_bytes);
}
