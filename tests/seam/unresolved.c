/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A module that needs a symbol which QEMU does not have. */
extern int viommu_no_such_symbol;
int *unresolved(void);

int *unresolved(void)
{
    return &viommu_no_such_symbol;
}
