/* SPDX-License-Identifier: GPL-2.0-or-later */
        .section .text.start, "ax"
        .globl start
start:
        adrp x0, stackTop
        add x0, x0, :lo12:stackTop
        mov sp, x0
        mov x29, xzr
        bl bareMain

        .section .bss
        .align 4
        .skip 0x4000
stackTop:

        .section .note.GNU-stack, "", @progbits
