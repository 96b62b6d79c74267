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
        lgdt segmentsPointer
        ljmp $8, $1f
1:      movw $16, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %fs
        movw %ax, %gs
        movw %ax, %ss
        movl $stackTop, %esp
        xorl %ebp, %ebp
        call bareMain

/* Where another processor starts, in real mode: a page that is copied to 0x8000.
 * What it needs is written behind it: its stack, and whom to call. */
#define HERE(label) (0x8000 + (label) - processorStart)
        .section .rodata.processor, "a"
        .globl processorStart, processorStack, processorEntry, processorEnd
        .code16
processorStart:
        cli
        cld
        xorw %ax, %ax
        movw %ax, %ds
        lgdtl HERE(segmentsPointerLow)
        movl %cr0, %eax
        andl $0x9fffffff, %eax  /* with its caches */
        orl $1, %eax
        movl %eax, %cr0
        ljmpl $8, $HERE(1f)
        .code32
1:      movw $16, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %fs
        movw %ax, %gs
        movw %ax, %ss
        movl HERE(processorStack), %esp
        xorl %ebp, %ebp
        call *HERE(processorEntry)
2:      hlt
        jmp 2b
        .align 8
segmentsLow:
        .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
segmentsPointerLow:
        .word 23
        .long HERE(segmentsLow)
        .align 4
processorStack:
        .long 0
processorEntry:
        .long 0
processorEnd:

        .section .rodata
        .align 8
segments:                       /* none, code, data: all of memory */
        .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
segmentsPointer:
        .word 23
        .long segments

        .section .bss
        .align 16
        .skip 0x4000
stackTop:

        .section .note.GNU-stack, "", @progbits
