// SPDX-License-Identifier: GPL-2.0-or-later
#include "pages.h"

#include <sys/mman.h>
#include <unistd.h>

namespace viommu
{

size_t whole_pages(size_t size) noexcept
{
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    return (size + page - 1) / page * page;
}

void *map_pages(size_t size) noexcept
{
    void *const memory =
        mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return nullptr;
    }
    // A huge page would take 2 MiB where one page is used, and again after that was
    // given back.  Where there are none, this fails.
    static_cast<void>(madvise(memory, size, MADV_NOHUGEPAGE));
    return memory;
}

bool unmap_pages(void *at, size_t size) noexcept
{
    return munmap(at, size) == 0;
}

bool empty_pages(void *at, size_t size) noexcept
{
    if (madvise(at, size, MADV_DONTNEED) == 0) {
        return true;
    }
#ifdef MADV_DONTNEED_LOCKED
    return madvise(at, size, MADV_DONTNEED_LOCKED) == 0;
#else
    return false;
#endif
}

} // namespace viommu
