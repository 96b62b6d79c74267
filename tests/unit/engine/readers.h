// SPDX-License-Identifier: GPL-2.0-or-later
//
// Read-side critical sections as RCU has them: a reader takes no lock and waits for
// nobody, and, as important for what ThreadSanitizer can see, learns nothing by entering
// of what the writer did before.  Whoever frees learns of readers that left.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <thread>

namespace viommu::test
{

class Readers
{
public:
    // While one exists its thread is in a section; they nest.
    class Section
    {
    public:
        Section()
        {
            if (mine_.depth++ == 0) {
                mine_.slot().store(epoch_.load(std::memory_order_relaxed),
                                   std::memory_order_relaxed);
                barrier();
            }
        }
        ~Section()
        {
            if (--mine_.depth == 0) {
                mine_.slot().store(kOutside, std::memory_order_release);
            }
        }
        Section(const Section &) = delete;
        Section &operator=(const Section &) = delete;
    };

    // Begins a grace period: what was unlinked before is free when over() says so.
    static uint64_t begin()
    {
        barrier();
        return epoch_.fetch_add(1, std::memory_order_relaxed) + 1;
    }
    // Whether all have left who may have entered before that epoch began.
    static bool over(uint64_t epoch)
    {
        barrier();
        for (const Slot &slot : slots_) {
            const uint64_t entered = slot.entered.load(std::memory_order_acquire);
            if (entered != kOutside && entered < epoch) {
                return false;
            }
        }
        return true;
    }
    static void wait()
    {
        for (const uint64_t epoch = begin(); !over(epoch);) {
            std::this_thread::yield();
        }
    }

private:
    static constexpr uint64_t kOutside = 0;

    struct alignas(64) Slot {
        std::atomic<uint64_t> entered{kOutside};
        std::atomic<bool> taken{false};
    };

    // Of a thread, as long as it lives.
    struct Mine {
        std::atomic<uint64_t> &slot()
        {
            for (size_t i = 0; !own; i++) {
                if (i == slots_.size()) {
                    std::abort(); // more threads than any test has
                }
                if (!slots_[i].taken.exchange(true, std::memory_order_acquire)) {
                    own = &slots_[i];
                }
            }
            return own->entered;
        }
        ~Mine()
        {
            if (own) {
                own->taken.store(false, std::memory_order_release);
            }
        }
        Slot *own = nullptr;
        unsigned depth = 0;
    };

    // Between what a reader says and what it reads, and between what the writer
    // unlinked and whom it asks.  ThreadSanitizer does not know fences, nor need it:
    // they order nothing that it looks at.
    static void barrier()
    {
#if defined(__x86_64__)
        asm volatile("mfence" ::: "memory");
#else
        std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
    }

    static std::atomic<uint64_t> epoch_;
    static std::array<Slot, 512> slots_;
    static thread_local Mine mine_;
};

inline std::atomic<uint64_t> Readers::epoch_{1};
inline std::array<Readers::Slot, 512> Readers::slots_{};
inline thread_local Readers::Mine Readers::mine_;

} // namespace viommu::test
