/*
 * boot.S - from QEMU's PVH entry to C.
 *
 * QEMU enters at the physical address in the note: protected mode, flat segments,
 * paging off. The image is linked at HOST_WINDOW_VA and loaded at HOST_WINDOW_PADDR,
 * so code here subtracts OFFSET until the first tables are on. Those map, with
 * 4 MiB pages: the window, the same frames one to one (paging is switched there
 * once more), and the pages of devices.
 */
#define OFFSET 0xfec00000 /* HOST_WINDOW_VA - HOST_WINDOW_PADDR */
#define PHYS(symbol) ((symbol) - OFFSET)

#define LARGE 0x83	 /* present, write, large */
#define CR4_PSE 0x10
#define STACK_BYTES 16384 /* CPU_STACK_BYTES */
#define EFER 0xc0000080
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
	movl $cpu_stacks + STACK_BYTES, %esp
	xorl %ebp, %ebp
	pushl %ebx /* struct hvm_start_info, physical */
	call kernel_main
1:	cli
	hlt
	jmp 1b

/*
 * Where a further CPU starts, in real mode: cpu.c copies this below 1 MiB. The descriptors
 * are those of trap.c, by their physical address.
 */
	.globl trampoline, trampoline_end
	.code16
trampoline:
	cli
	lgdtl %cs:trampoline_gdtr - trampoline
	movl %cr0, %eax
	orb $1, %al
	movl %eax, %cr0
	ljmpl $0x08, $PHYS(start_other)
	.align 4
trampoline_gdtr:
	.word 23
	.long PHYS(gdt)
trampoline_end:

	.code32
start_other:
	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl PHYS(start_cr4), %eax
	movl %eax, %cr4
	movl PHYS(start_cr3), %eax
	movl %eax, %cr3
	movl PHYS(start_efer), %eax
	xorl %edx, %edx
	movl $EFER, %ecx
	wrmsr
	movl $CR0_PG_WP_ET_PE, %eax
	movl %eax, %cr0
	movl $1f, %eax
	jmp *%eax
1:	movl start_number, %eax
	leal 1(%eax), %esp
	imull $STACK_BYTES, %esp
	addl $cpu_stacks, %esp
	xorl %ebp, %ebp
	pushl %eax
	call cpu_main /* u32 number */

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
	.long 0xfec00000 + LARGE /* 0xfec00000: interrupt controllers */
	.fill 3, 4, 0
	.long 0x01000000 + LARGE /* 0xffc00000: the window */
