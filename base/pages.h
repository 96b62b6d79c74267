// SPDX-License-Identifier: GPL-2.0-or-later
//
// Memory from the system, by pages.
//
// A process has a limited number of mappings of memory (65530 by default), and each
// hole in one makes one more.  So memory is taken in large pieces, and what is unused
// in the middle of one is given back without a hole.
#pragma once

#include <cstddef>

namespace viommu
{

// A size in whole pages.
size_t whole_pages(size_t size) noexcept;

// All zero; a page takes memory when it is first written.  nullptr: there is none.
void *map_pages(size_t size) noexcept;

// Both may fail, for want of memory or because it is locked (-overcommit mem-lock=on);
// then all is as it was.
[[nodiscard]] bool unmap_pages(void *at, size_t size) noexcept;
// The addresses stay, and what is there is zero.
[[nodiscard]] bool empty_pages(void *at, size_t size) noexcept;

} // namespace viommu
