/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Direct boot of an ELF file (PVH): 32-bit protected mode, flat segments. */
        .section .note.pvh, "a", @note
        .align 4
        .long 4                 /* length of the name */
        .long 4                 /* length of the value */
        .long 18                /* 32-bit physical entry point */
        .asciz "Xen"
        .long start

        .section .text.start, "ax"
        .code32
        .globl start
start:
        cli
        cld
        movl $stackTop, %esp
        xorl %ebp, %ebp
        call bareMain

        .section .bss
        .align 16
        .skip 0x4000
stackTop:

        .section .note.GNU-stack, "", @progbits
