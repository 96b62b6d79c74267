/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A shared object that is no module of QEMU's. */
int stranger(void);

int stranger(void)
{
    return 1;
}
