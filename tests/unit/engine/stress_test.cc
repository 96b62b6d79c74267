// SPDX-License-Identifier: GPL-2.0-or-later
//
// DMA in several threads while the driver changes everything under it.
#include "machine.h"

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <pthread.h>
#include <random>
#include <thread>

namespace viommu::test
{

namespace
{

constexpr uint64_t kPage = 0x1000;
constexpr uint64_t kPages = 64;
constexpr uint32_t kDomains = 3;
constexpr auto kDuration = std::chrono::milliseconds(1500);

// Where page `page` may lead in domain `domain`: the domain is legible.
uint64_t target(uint32_t domain, uint64_t page)
{
    return (uint64_t{domain} << 40) | (page * kPage);
}

bool writable(uint64_t page)
{
    return page % 2 == 0;
}

// What a translation may say at any moment of the session.
bool legal(const ViommuTranslation &translation, uint64_t iova, bool may_bypass)
{
    if (translation.rights == 0) {
        return translation.mask == 0 && translation.phys == 0;
    }
    if (translation.mask == MAX) {
        return may_bypass && translation.phys == iova && translation.rights == RW;
    }
    const uint64_t domain = translation.phys >> 40;
    const uint64_t page = iova / kPage;
    return domain >= 1 && domain <= kDomains &&
           translation.phys == target(static_cast<uint32_t>(domain), page) + iova % kPage &&
           translation.mask == kPage - 1 && translation.rights == (writable(page) ? RW : R);
}

TEST(Stress, W20_EveryTranslationIsOneConsistentAnswer)
{
    Machine machine(Config().bypass(true));
    std::array<Function *, 4> functions{};
    for (uint32_t i = 0; i < functions.size(); i++) {
        functions[i] = &machine.add(0x30 + 8 * i);
    }
    // Never touched while the session runs: must always answer.
    Function &anchor = machine.add(0x100);
    ASSERT_EQ(machine.attach(50, 0x100), OK);
    ASSERT_EQ(machine.map(50, 0x7000, 0x7fff, 0x123000), OK);
    // Retired half way: faults from then on.
    Function &leaver = machine.add(0x108);

    std::atomic<bool> stop{false};
    std::atomic<bool> gone{false};
    std::atomic<uint64_t> accesses{0};
    std::atomic<uint64_t> wrong{0};

    const auto dma = [&](unsigned seed) {
        std::mt19937 random(seed);
        uint64_t done = 0;
        uint64_t bad = 0;
        ViommuTranslation translation;
        while (!stop.load(std::memory_order_relaxed)) {
            Function &function = *functions[random() % functions.size()];
            const uint64_t page = random() % kPages;
            const uint64_t iova = page * kPage + random() % kPage;
            const uint32_t access = random() % 4;
            Machine::translate(function, iova, access, translation);
            bad += !legal(translation, iova, true);
            if (translation.rights != 0) {
                bad += (access & ~translation.rights) != 0;
            }

            Machine::translate(anchor, 0x7abc, RW, translation);
            bad += translation.rights != RW || translation.phys != 0x123abc;
            Machine::translate(anchor, 0x8000, R, translation);
            bad += translation.rights != 0;

            const bool was_gone = gone.load(std::memory_order_acquire);
            Machine::translate(leaver, 0x1000, R, translation);
            bad += was_gone && translation.rights != 0;
            done++;
        }
        accesses += done;
        wrong += bad;
    };
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < 3; i++) {
        threads.emplace_back(dma, i + 1);
    }

    std::mt19937 random(99);
    const auto pick = [&random](uint64_t n) { return random() % n; };
    const auto start = std::chrono::steady_clock::now();
    uint64_t steps = 0;
    for (;; steps++) {
        const auto elapsed = std::chrono::steady_clock::now() - start;
        if (elapsed > kDuration) {
            break;
        }
        if (elapsed > kDuration / 2 && !gone) {
            machine.retire(leaver);
            gone.store(true, std::memory_order_release);
        }
        const auto domain = static_cast<uint32_t>(1 + pick(kDomains));
        const uint32_t id = functions[pick(functions.size())]->id;
        const uint64_t page = pick(kPages);
        const uint64_t choice = pick(100);
        if (choice < 10) {
            machine.attach(domain, id, pick(8) == 0 ? BYPASS : 0);
        } else if (choice < 15) {
            machine.detach(domain, id);
        } else if (choice < 70) {
            machine.map(domain, page * kPage, page * kPage + kPage - 1, target(domain, page),
                        writable(page) ? RW : R);
        } else if (choice < 95) {
            const uint64_t last = std::min(kPages - 1, page + pick(8));
            machine.unmap(domain, page * kPage, last * kPage + kPage - 1);
        } else if (choice < 97) {
            viommu_engine_write_bypass(machine.engine(), static_cast<uint8_t>(pick(2)));
        } else if (choice < 99) {
            machine.pop();
        } else {
            for (Function *function : functions) {
                for (uint32_t i = 1; i <= kDomains; i++) {
                    machine.detach(i, function->id);
                }
            }
        }
        machine.told();
    }
    stop = true;
    for (std::thread &thread : threads) {
        thread.join();
    }
    EXPECT_EQ(wrong, 0u);
    EXPECT_GT(accesses, 0u);
    EXPECT_GT(steps, 0u);
}

TEST(Stress, W5_W31_ResetUnderDma)
{
    Machine machine(Config().bypass(false).lingering());
    Function &nic = machine.add(0x30);
    std::atomic<bool> stop{false};
    std::atomic<uint64_t> wrong{0}, accesses{0};
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < 2; i++) {
        threads.emplace_back([&] {
            uint64_t bad = 0, done = 0;
            ViommuTranslation translation;
            for (uint64_t iova = 0; !stop.load(std::memory_order_relaxed); iova += 0x777) {
                const uint64_t at = iova % (kPages * kPage);
                Machine::translate(nic, at, R, translation);
                bad += !legal(translation, at, false);
                done++;
            }
            wrong += bad;
            accesses += done;
        });
    }
    const auto start = std::chrono::steady_clock::now();
    uint64_t rounds = 0;
    for (; std::chrono::steady_clock::now() - start < kDuration / 2; rounds++) {
        const auto domain = static_cast<uint32_t>(1 + rounds % kDomains);
        EXPECT_EQ(machine.attach(domain, 0x30), OK);
        for (uint64_t page = 0; page < kPages; page++) {
            EXPECT_EQ(machine.map(domain, page * kPage, page * kPage + kPage - 1,
                                  target(domain, page), writable(page) ? RW : R),
                      OK);
        }
        if (rounds % 3 == 0) {
            viommu_engine_device_reset(machine.engine());
        } else if (rounds % 3 == 1) {
            viommu_engine_system_reset(machine.engine());
        } else {
            viommu_engine_driver_reset(machine.engine());
            EXPECT_EQ(machine.look(nic, 0).phys, target(domain, 0));
            viommu_engine_driver_returns(machine.engine());
        }
        EXPECT_EQ(machine.look(nic, 0).rights, 0u);
        machine.drive();
    }
    stop = true;
    for (std::thread &thread : threads) {
        thread.join();
    }
    EXPECT_EQ(wrong, 0u);
    EXPECT_GT(rounds, 0u);
    // Also what was counted while a reset took the counters away.
    machine.reclaim();
    machine.reclaim();
    const ViommuStats stats = machine.stats();
    EXPECT_EQ(stats.translations + stats.faults, accesses);
}

// A thread that is stopped by a signal, nearly always in the middle of a translation.
class Stopped
{
public:
    explicit Stopped(Function &function)
        : thread_([this, &function] {
              ViommuTranslation translation;
              while (!over_.load(std::memory_order_relaxed)) {
                  Machine::translate(function, 0x1000, R, translation);
              }
          })
    {
        struct sigaction action {
        };
        action.sa_handler = [](int) {
            stopped_.store(true, std::memory_order_release);
            while (!go_on_.load(std::memory_order_acquire)) {
            }
            stopped_.store(false, std::memory_order_release);
        };
        sigaction(SIGUSR1, &action, nullptr);
    }
    ~Stopped()
    {
        over_ = true;
        thread_.join();
    }
    void stop()
    {
        go_on_ = false;
        pthread_kill(thread_.native_handle(), SIGUSR1);
        while (!stopped_.load(std::memory_order_acquire)) {
            std::this_thread::yield();
        }
    }
    void go_on()
    {
        go_on_ = true;
        while (stopped_.load(std::memory_order_acquire)) {
            std::this_thread::yield();
        }
    }
    // From any thread, without waiting.
    static void release() { go_on_ = true; }

private:
    static inline std::atomic<bool> stopped_{false};
    static inline std::atomic<bool> go_on_{true};
    std::atomic<bool> over_{false};
    std::thread thread_;
};

TEST(Stress, W22_RequestsDoNotWaitForAThreadThatTranslates)
{
    Machine machine(Config().bypass(false));
    Function &nic = machine.add(0x30);
    machine.add(0x38);
    ASSERT_EQ(machine.attach(1, 0x30), OK);
    ASSERT_EQ(machine.attach(1, 0x38), OK);
    ASSERT_EQ(machine.map(1, 0x1000, 0x1fff, 0x5000), OK);

    Stopped reader(nic);
    for (int i = 0; i < 50; i++) {
        std::atomic<bool> done{false}, waited{false};
        reader.stop();
        std::thread watchdog([&] {
            const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(10);
            while (!done) {
                if (std::chrono::steady_clock::now() > limit) {
                    waited = true;
                    Stopped::release();
                    return;
                }
                std::this_thread::sleep_for(std::chrono::milliseconds(1));
            }
        });
        EXPECT_EQ(machine.map(1, 0x8000, 0x8fff, 0x5000), OK);
        EXPECT_EQ(machine.unmap(1, 0x8000, 0x8fff), OK);
        EXPECT_EQ(machine.detach(1, 0x38), OK);
        EXPECT_EQ(machine.attach(2, 0x38), OK);
        EXPECT_EQ(machine.attach(1, 0x38), OK);
        done = true;
        watchdog.join();
        reader.go_on();
        ASSERT_FALSE(waited);
    }
}

// Whole branches of the tree go in one UNMAP, while threads look into them.
TEST(Stress, W7_W20_NothingIsReachedAfterAnUnmapOfManyPages)
{
    // Branches of full leaves, see nodes.h; those between the first and the last go.
    constexpr uint64_t kBranch = 56 * 48, kMany = 12 * kBranch;
    constexpr uint64_t kFirst = kBranch + 24, kEnd = 11 * kBranch + 24;
    Machine machine(Config().quota(MAX, 10));
    Function &nic = machine.add(0x30);
    ASSERT_EQ(machine.attach(1, 0x30), OK);

    // Odd: UNMAP has been answered, and nothing mapped since.
    std::atomic<uint64_t> phase{0};
    std::atomic<bool> stop{false};
    std::atomic<uint64_t> reached{0}, lost{0}, looks{0};
    const auto dma = [&](unsigned seed) {
        std::mt19937 random(seed);
        ViommuTranslation translation;
        while (!stop.load(std::memory_order_relaxed)) {
            const uint64_t page = kFirst + 64 * (1 + random() % 400);
            const uint64_t before = phase.load(std::memory_order_acquire);
            Machine::translate(nic, page * kPage, R, translation);
            const bool allowed = translation.rights != 0;
            looks++;
            if (before % 2 == 1 && allowed && phase.load(std::memory_order_acquire) == before) {
                reached++;
            }
            Machine::translate(nic, (random() % kFirst) * kPage, R, translation);
            lost += before >= 1 && translation.rights == 0;
        }
    };
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < 2; i++) {
        threads.emplace_back(dma, i + 1);
    }
    const auto until = std::chrono::steady_clock::now() + kDuration;
    uint64_t page = 0;
    do {
        for (; page < kMany; page++) {
            ASSERT_EQ(machine.map(1, page * kPage, page * kPage + kPage - 1, target(1, page)), OK);
        }
        const uint64_t before = looks;
        while (looks < before + 1000) {
            std::this_thread::yield();
        }
        ASSERT_EQ(machine.unmap(1, kFirst * kPage, kEnd * kPage - 1), OK);
        phase.fetch_add(1, std::memory_order_release);
        while (looks < before + 3000) {
            std::this_thread::yield();
        }
        ASSERT_EQ(machine.unmap(1, kEnd * kPage, MAX), OK);
        phase.fetch_add(1, std::memory_order_release);
        page = kFirst;
    } while (std::chrono::steady_clock::now() < until);
    stop = true;
    for (std::thread &thread : threads) {
        thread.join();
    }
    EXPECT_EQ(reached, 0u);
    EXPECT_EQ(lost, 0u);
}

// Each access that is armed is taken once, by whoever comes first, and views beside it see no
// more and no less.
TEST(Stress, MOD_26_AsManyAccessesFaultAsAreArmed)
{
    Config config;
    config.fault_injection = true;
    Machine machine(config);
    Function &function = machine.add(0x18);
    ASSERT_EQ(machine.attach(1, 0x18), OK);
    ASSERT_EQ(machine.map(1, 0, kPages * kPage - 1, 0), OK);

    std::atomic<bool> stop{false};
    std::atomic<uint64_t> faults{0};
    std::vector<std::thread> threads;
    for (unsigned seed = 1; seed <= 3; seed++) {
        threads.emplace_back([&, seed] {
            std::mt19937 random(seed);
            ViommuTranslation translation;
            while (!stop.load(std::memory_order_relaxed)) {
                Machine::translate(function, random() % (kPages * kPage), RW, translation);
                faults += translation.rights == 0;
            }
        });
    }
    const ViommuInjection wanted{VIOMMU_INJECT_ACCESSES, 1, 1, 2, R, 0x18, 0, 100};
    constexpr uint64_t kRounds = 50;
    for (uint64_t round = 1; round <= kRounds; round++) {
        ASSERT_TRUE(viommu_engine_inject(machine.engine(), &wanted, nullptr, 0));
        while (viommu_endpoint_armed_accesses(function.endpoint) != 0) {
            ViommuLook look{};
            viommu_endpoint_look(function.endpoint, 0x1000, &look);
            ASSERT_EQ(look.rights, RW);
            machine.pop();
        }
    }
    stop = true;
    for (std::thread &thread : threads) {
        thread.join();
    }
    EXPECT_EQ(faults, kRounds * wanted.count);
    ViommuFaultCounts counts{};
    viommu_engine_fault_counts(machine.engine(), &counts);
    EXPECT_EQ(counts.mapping, kRounds * wanted.count);
    EXPECT_EQ(machine.stats().faults, kRounds * wanted.count);
}

TEST(Stress, W21_FaultsOfManyThreadsAreAllAccountedFor)
{
    Machine machine;
    std::vector<Function *> functions;
    for (uint32_t i = 0; i < 4; i++) {
        functions.push_back(&machine.add(0x30 + 8 * i));
    }
    constexpr uint64_t kEach = 20000;
    std::atomic<uint64_t> running{functions.size()};
    std::atomic<uint64_t> queued{0};
    std::vector<std::thread> threads;
    threads.reserve(functions.size());
    for (Function *function : functions) {
        threads.emplace_back([&, function] {
            uint64_t mine = 0;
            ViommuTranslation translation;
            for (uint64_t i = 0; i < kEach; i++) {
                Machine::translate(*function, (i % 40) * kPage, R, translation);
                mine += translation.fault_queued;
            }
            queued += mine;
            running--;
        });
    }
    uint64_t popped = 0;
    while (running != 0 || viommu_engine_fault_ready(machine.engine())) {
        popped += machine.pop().has_value();
    }
    for (std::thread &thread : threads) {
        thread.join();
    }
    const ViommuStats stats = machine.stats();
    EXPECT_EQ(stats.faults, kEach * functions.size());
    EXPECT_EQ(popped, queued);
    EXPECT_EQ(popped + stats.faults_coalesced + stats.faults_dropped, stats.faults);
}

} // namespace

} // namespace viommu::test
