/*
 * trap.S - the CPU's side of traps: entry stubs, the copy that may fault, and the
 * way to ring 3 and back.
 */

/* ---- entries: each pushes an error code if the CPU did not, and its vector ---- */
	.text
	.altmacro
	.macro vector n
	.align 16
	.if (\n == 8) || ((\n >= 10) && (\n <= 14)) || (\n == 17)
	.else
	pushl $0
	.endif
	pushl $\n
	jmp trap_common
	.endm

#define NR_VECTORS 36 /* kernel.h */
	.align 16
	.globl trap_vectors
trap_vectors:
	.set i, 0
	.rept NR_VECTORS
	vector %i
	.set i, i + 1
	.endr

	.align 16
	.globl trap_user_done
trap_user_done: /* int $0x80: ring 3 is through with its copy */
	pushl $0
	pushl $0x80
trap_common:
	pushal
	movl $0x10, %eax /* ring 3 may have left its own segments */
	movl %eax, %ds
	movl %eax, %es
	pushl %esp
	call trap_handle /* struct trap_frame * */
	addl $4, %esp
	popal
	addl $8, %esp
	iret

/*
 * u32 copy_recoverable(void *to, const void *from, u32 bytes): how many bytes are
 * left. On a page fault trap_handle sets the frame's eip to copy_recover.
 */
	.globl copy_recoverable, copy_recover
copy_recoverable:
	pushl %esi
	pushl %edi
	movl 12(%esp), %edi
	movl 16(%esp), %esi
	movl 20(%esp), %ecx
	movl $1, copy_in_progress
	rep movsb
copy_recover:
	movl $0, copy_in_progress
	movl %ecx, %eax
	popl %edi
	popl %esi
	ret

/*
 * void user_enter(u32 to, u32 from, u32 bytes): runs user_copy in ring 3. Comes
 * back through user_leave, from int $0x80 or from a page fault.
 */
	.globl user_enter, user_leave
user_enter:
	pushal
	movl 36(%esp), %edi
	movl 40(%esp), %esi
	movl 44(%esp), %ecx
	movl %esp, user_saved_esp
	movl $0x23, %eax
	movl %eax, %ds
	movl %eax, %es
	pushl $0x23 /* ss */
	pushl $0    /* esp: ring 3 has no stack, and needs none */
	pushl $0x2  /* eflags */
	pushl $0x1b /* cs */
	pushl $user_copy
	iret
user_leave:
	movl user_saved_esp, %esp
	popal
	ret

/* ---- ring 3 ---- */
	.section .user, "ax"
user_copy:
	rep movsb
	int $0x80

	.bss
	.align 4
	.globl copy_in_progress
copy_in_progress:
	.skip 4
user_saved_esp:
	.skip 4
