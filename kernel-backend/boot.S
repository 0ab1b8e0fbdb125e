/*
 * boot.S - from QEMU's PVH entry to C.
 *
 * QEMU enters at the physical address in the note: protected mode, flat segments,
 * paging off. The image is linked at HOST_WINDOW_VA and loaded at HOST_WINDOW_PADDR,
 * so code here subtracts OFFSET until the first tables are on. Those map, with
 * 4 MiB pages: the window, the same frames one to one (paging is switched there
 * once more), and the page of devices.
 */
#define OFFSET 0xfec00000 /* HOST_WINDOW_VA - HOST_WINDOW_PADDR */
#define PHYS(symbol) ((symbol) - OFFSET)

#define LARGE 0x83	 /* present, write, large */
#define CR4_PSE 0x10
#define CR0_PG_WP_ET_PE 0x80010011

	.section .note.pvh, "a", @note
	.align 4
	.long 4, 4, 18 /* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long PHYS(start)

	.section .text.start, "ax"
	.globl start
start:
	cli
	cld
	movl $CR4_PSE, %eax
	movl %eax, %cr4
	movl $PHYS(boot_pd), %eax
	movl %eax, %cr3
	movl $CR0_PG_WP_ET_PE, %eax
	movl %eax, %cr0
	movl $high, %eax
	jmp *%eax
high:
	movl $boot_stack_top, %esp
	xorl %ebp, %ebp
	pushl %ebx /* struct hvm_start_info, physical */
	call kernel_main
1:	cli
	hlt
	jmp 1b

/*
 * void paging_switch(u32 cr3, u32 cr4): other tables, perhaps of another mode.
 * Runs at its physical address while paging is off; both sets of tables map it
 * there one to one.
 */
	.text
	.globl paging_switch
paging_switch:
	movl 4(%esp), %ecx
	movl 8(%esp), %edx
	movl $PHYS(1f), %eax
	jmp *%eax
1:	movl %cr0, %eax
	andl $0x7fffffff, %eax
	movl %eax, %cr0
	movl %ecx, %cr3
	movl %edx, %cr4
	orl $0x80000000, %eax
	movl %eax, %cr0
	ret

	.data
	.align 4096
	.globl boot_pd
boot_pd:
	.fill 4, 4, 0
	.long 0x01000000 + LARGE /* the window's frames, one to one */
	.fill 1024 - 5 - 6, 4, 0
	.long 0xfe800000 + LARGE /* 0xfe800000: devices */
	.fill 4, 4, 0
	.long 0x01000000 + LARGE /* 0xffc00000: the window */

	.bss
	.align 16
	.globl boot_stack
boot_stack:
	.skip 65536
	.globl boot_stack_top
boot_stack_top:
