// SPDX-License-Identifier: GPL-2.0-or-later
//
// The model.  Each location has the list of its stores, in the order in which they were done.
// Each thread has a floor for each location: it reads that store or a later one.  Its floors
// rise when it loads or stores, and, by a load that acquires from a store that released, to
// where those of the other thread were then.
//
// An execution is a list of choices: which store a load reads, and whether it rather waits for
// one that is still to be done.  All lists are tried, by depth first.
#include "explore.h"

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <optional>
#include <semaphore>
#include <stdexcept>
#include <thread>

namespace viommu::model
{

namespace
{

constexpr size_t kThreads = 4;
constexpr uint64_t kMostExecutions = 5'000'000;
constexpr size_t kTold = 60;        // events in the report of a fault
constexpr size_t kMostPauses = 100; // before they become a sleep

// How much of each thread's log is known.
using Clock = std::array<uint32_t, kThreads>;

bool acquires(std::memory_order order)
{
    return order == std::memory_order_acquire || order == std::memory_order_acq_rel;
}

bool releases(std::memory_order order)
{
    return order == std::memory_order_release || order == std::memory_order_acq_rel;
}

struct Store {
    uint64_t value;
    Clock told; // to a load that acquires
};

struct Location {
    const void *at;
    // The first one stands for no value at all if a thread has made the atomic.
    std::vector<Store> stores;
    bool made;
    uint32_t readers; // bit i: thread i

    uint32_t newest() const { return static_cast<uint32_t>(stores.size() - 1); }
};

// Addresses to numbers.
class Numbers
{
public:
    void clear()
    {
        round_++;
        used_ = 0;
    }
    // The place where the number of the location is, or belongs; the former if `known`.
    uint32_t &of(const void *at, bool &known)
    {
        size_t i = reinterpret_cast<uintptr_t>(at) * 0x9e3779b97f4a7c15 >> (64 - kBits);
        while (entries_[i].round == round_ && entries_[i].at != at) {
            i = (i + 1) % entries_.size();
        }
        Entry &entry = entries_[i];
        known = entry.round == round_;
        if (!known) {
            if (++used_ > entries_.size() / 2) {
                std::abort(); // more locations than any test has
            }
            entry = {at, round_, 0};
        }
        return entry.number;
    }

private:
    static constexpr unsigned kBits = 16;
    struct Entry {
        const void *at;
        uint64_t round;
        uint32_t number;
    };
    std::vector<Entry> entries_ = std::vector<Entry>(size_t{1} << kBits);
    uint64_t round_ = 1;
    size_t used_ = 0;
};

struct Raise {
    uint32_t location;
    uint32_t to;
};

constexpr uint32_t kNoLocation = UINT32_MAX;
constexpr uint64_t kOutside = UINT64_MAX;

struct Thread {
    enum class State : uint8_t { Ready, Waiting, Finished };

    std::vector<uint32_t> floor; // by location; 0 beyond its end
    std::vector<Raise> log;
    Clock joined;
    uint64_t section; // the grace periods that had begun
    bool wants_news;  // spin_pause()
    State state;
    uint32_t waits_for;                    // a store to this location
    bool must_wait;                        // there was nothing else to do
    bool for_update;                       // which needs the newest store
    std::optional<uint64_t> for_update_of; // as well, if it has that value
    uint32_t takes;                        // the store that came
    uint32_t waits;                        // how many so far
    std::binary_semaphore turn{0};
};

struct Event {
    const char *what;
    size_t thread;
    const void *at;
    uint64_t value;
    uint32_t age; // stores since
};

struct Memory {
    uintptr_t begin;
    uintptr_t end;
    uint64_t epoch; // the grace period that it waits for; 0: none
};

// Thrown where a thread would wait for ever.
struct Stuck {
};

struct Choice {
    uint32_t taken;
    uint32_t of;
};

thread_local size_t current = kThreads; // nobody

bool running()
{
    return current < kThreads;
}

class Explorer
{
public:
    void begin()
    {
        numbers_.clear();
        location_count_ = 0;
        events_.clear();
        gone_.clear();
        depth_ = 0;
        abandoned_ = false;
        draining_ = false;
        count_ = 0;
        pauses_ = 0;
    }
    // Whether there is another list of choices.
    bool next()
    {
        while (!choices_.empty() && choices_.back().taken + 1 == choices_.back().of) {
            choices_.pop_back();
        }
        if (choices_.empty()) {
            return false;
        }
        choices_.back().taken++;
        return true;
    }
    bool abandoned() const { return abandoned_; }
    const std::string &fault() const { return fault_; }

    void fail(const std::string &sentence)
    {
        if (draining_ || abandoned_ || !fault_.empty()) {
            return;
        }
        draining_ = true;
        fault_ = sentence;
        std::erase_if(events_, [](const Event &event) { return event.thread != current; });
        const size_t from = events_.size() < kTold ? 0 : events_.size() - kTold;
        for (size_t i = from; i < events_.size(); i++) {
            const Event &event = events_[i];
            std::array<char, 160> line;
            std::snprintf(line.data(), line.size(), "\n  thread %zu %s %04" PRIxPTR ": %#" PRIx64,
                          event.thread, event.what, reinterpret_cast<uintptr_t>(event.at) & 0xffff,
                          event.value);
            fault_ += line.data();
            if (event.age > 0) {
                fault_ += ", " + std::to_string(event.age) + " before the newest";
            }
        }
    }

    /* Threads */

    void one_way(const Execution::Threads &threads)
    {
        start(threads.size());
        one_way_ = true;
        for (current = 0; current < count_; current++) {
            run(threads[current]);
        }
        current = kThreads;
    }

    bool both_ways(const Execution::Threads &threads)
    {
        start(threads.size());
        one_way_ = false;
        std::vector<std::thread> real;
        for (size_t i = 0; i < count_; i++) {
            real.emplace_back([this, i, &threads] {
                // What the thread has of its own is destroyed before this is.
                static thread_local struct Farewell {
                    ~Farewell()
                    {
                        if (of) {
                            of->threads_[current].state = Thread::State::Finished;
                            of->hand_on();
                        }
                    }
                    Explorer *of = nullptr;
                } farewell;
                threads_[i].turn.acquire();
                farewell.of = this;
                current = i;
                run(threads[i]);
            });
        }
        hand_on();
        done_.acquire();
        for (std::thread &thread : real) {
            thread.join();
        }
        return !abandoned_;
    }

    static void run(const std::function<void()> &thread)
    {
        try {
            thread();
        } catch (const Stuck &) {
            // It has been said.
        }
    }

    void enter(uint64_t epoch) { me().section = epoch; }
    void leave() { me().section = kOutside; }
    void pause()
    {
        if (!draining_) {
            me().wants_news = true;
            return;
        }
        if (++pauses_ == kMostPauses) {
            throw Stuck();
        }
        if (!one_way_) {
            hand_on();
            me().turn.acquire();
        }
    }

    /* Memory */

    void retire(const void *memory, size_t size, uint64_t epoch)
    {
        const auto begin = reinterpret_cast<uintptr_t>(memory);
        gone_.push_back({begin, begin + size, epoch});
    }
    void reuse(const void *memory, size_t size)
    {
        const auto begin = reinterpret_cast<uintptr_t>(memory);
        std::erase_if(gone_, [&](const Memory &gone) {
            return gone.begin < begin + size && begin < gone.end;
        });
    }

    void created(const void *at, uint64_t value)
    {
        bool known = false;
        uint32_t &number = numbers_.of(at, known);
        number = add(at);
        Location &location = locations_[number];
        location.made = true;
        location.stores.push_back({0, {}});
        location.stores.push_back({value, {}});
        raise(me(), number, 1);
    }

    uint64_t load(const void *at, uint64_t newest, std::memory_order order)
    {
        const uint32_t number = touch(at, newest);
        if (draining_) {
            return newest;
        }
        const uint32_t from = lowest(number);
        const uint32_t end = locations_[number].newest() + 1;
        const uint32_t chosen = choose(number, end - from, false, std::nullopt);
        if (draining_) {
            return newest_value(number);
        }
        // The newest first.
        return read(number, chosen == end - from ? me().takes : end - 1 - chosen, order);
    }

    void store(const void *at, uint64_t old, uint64_t value, std::memory_order order)
    {
        const uint32_t number = touch(at, old);
        if (!draining_ && floor(me(), number) != locations_[number].newest()) {
            fail("two threads store to one location, and neither knows of the other");
        }
        append(number, value, order, Clock{}, "stores");
    }

    void before_change(const void *at, uint64_t newest)
    {
        const uint32_t number = touch(at, newest);
        if (!draining_) {
            choose(number, 1, true, std::nullopt);
        }
    }

    void update(const void *at, uint64_t old, uint64_t value, std::memory_order order)
    {
        const uint32_t number = touch(at, old);
        Location &location = locations_[number];
        const Store last = location.stores.back();
        if (!draining_) {
            if (location.made && floor(me(), number) == 0) {
                fail("an atomic is used by a thread that does not know it was made");
            }
            location.readers |= 1u << current;
            raise(me(), number, location.newest());
            if (acquires(order)) {
                join(me(), last.told);
            }
        }
        // It goes on with what the store told that it replaces.
        append(number, value, order, last.told, "updates");
    }

    uint64_t compare(const void *at, uint64_t newest, uint64_t expected, std::memory_order order)
    {
        const uint32_t number = touch(at, newest);
        if (draining_) {
            return newest;
        }
        std::vector<uint32_t> candidates;
        for (uint32_t i = locations_[number].newest() + 1; i-- > lowest(number);) {
            if (i == locations_[number].newest() ||
                locations_[number].stores[i].value != expected) {
                candidates.push_back(i);
            }
        }
        const auto n = static_cast<uint32_t>(candidates.size());
        const uint32_t chosen = choose(number, n, false, expected);
        if (draining_) {
            return newest_value(number);
        }
        const uint32_t which = chosen == n ? me().takes : candidates[chosen];
        const uint64_t value = locations_[number].stores[which].value;
        return value == expected ? value : read(number, which, order);
    }

private:
    Thread &me() { return threads_[current]; }

    void start(size_t count)
    {
        if (count > kThreads) {
            std::abort();
        }
        count_ = count;
        for (size_t i = 0; i < count; i++) {
            Thread &thread = threads_[i];
            thread.floor.clear();
            thread.log.clear();
            thread.joined = {};
            thread.section = kOutside;
            thread.wants_news = false;
            thread.state = Thread::State::Ready;
            thread.waits_for = kNoLocation;
        }
    }

    /* Locations */

    uint32_t add(const void *at)
    {
        if (location_count_ == locations_.size()) {
            locations_.emplace_back();
        }
        Location &location = locations_[location_count_];
        location.at = at;
        location.stores.clear();
        location.made = false;
        location.readers = 0;
        return location_count_++;
    }

    uint32_t touch(const void *at, uint64_t newest)
    {
        bool known = false;
        uint32_t &number = numbers_.of(at, known);
        if (!known) {
            number = add(at);
            locations_[number].stores.push_back({newest, {}});
        }
        const auto place = reinterpret_cast<uintptr_t>(at);
        for (const Memory &gone : gone_) {
            if (place >= gone.begin && place < gone.end && me().section >= gone.epoch) {
                fail("memory is touched that may be free");
            }
        }
        return number;
    }

    static uint32_t floor(const Thread &thread, uint32_t number)
    {
        return number < thread.floor.size() ? thread.floor[number] : 0;
    }
    static void raise(Thread &thread, uint32_t number, uint32_t to)
    {
        if (floor(thread, number) >= to) {
            return;
        }
        if (thread.floor.size() <= number) {
            thread.floor.resize(number + 1);
        }
        thread.floor[number] = to;
        thread.log.push_back({number, to});
    }
    void join(Thread &thread, const Clock &told)
    {
        for (size_t i = 0; i < count_; i++) {
            while (&threads_[i] != &thread && thread.joined[i] < told[i]) {
                const Raise known = threads_[i].log[thread.joined[i]++];
                raise(thread, known.location, known.to);
            }
        }
    }

    // The oldest store that the thread may read.
    uint32_t lowest(uint32_t number)
    {
        const uint32_t from = floor(me(), number) + (me().wants_news ? 1 : 0);
        me().wants_news = false;
        return from;
    }

    uint64_t newest_value(uint32_t number) const { return locations_[number].stores.back().value; }

    uint64_t read(uint32_t number, uint32_t which, std::memory_order order)
    {
        Location &location = locations_[number];
        const Store &from = location.stores[which];
        events_.push_back({"loads", current, location.at, from.value, location.newest() - which});
        if (location.made && which == 0) {
            fail("an atomic is used by a thread that does not know it was made");
            return newest_value(number);
        }
        location.readers |= 1u << current;
        raise(me(), number, which);
        if (acquires(order)) {
            join(me(), from.told);
        }
        return from.value;
    }

    void append(uint32_t number, uint64_t value, std::memory_order order, Clock told,
                const char *what)
    {
        Location &location = locations_[number];
        location.stores.push_back({value, told});
        const uint32_t which = location.newest();
        raise(me(), number, which);
        if (releases(order)) {
            location.stores.back().told[current] = static_cast<uint32_t>(me().log.size());
        }
        events_.push_back({what, current, location.at, value, 0});
        if (draining_) {
            return;
        }
        if (one_way_) {
            // What a thread read before its own store here cannot be from a later one.
            location.readers &= ~(1u << current);
            if ((location.readers & ((1u << current) - 1)) != 0) {
                fail("a thread reads what a later one stores: that is not one way");
            }
            return;
        }
        wake(number, which);
    }

    /* Choices */

    uint32_t choose(uint32_t of)
    {
        if (of == 1) {
            return 0;
        }
        if (depth_ == choices_.size()) {
            choices_.push_back({0, of});
        } else if (choices_[depth_].of != of) {
            std::fputs("the scenario does not do the same each time\n", stderr);
            std::abort();
        }
        return choices_[depth_++].taken;
    }

    // One of `n` things to read, or, `n`, that the thread has waited for another one.
    uint32_t choose(uint32_t number, uint32_t n, bool for_update,
                    std::optional<uint64_t> for_update_of)
    {
        if (one_way_) {
            if (n == 0) {
                fail("a thread waits for what never comes");
            }
            return n == 0 ? 0 : choose(n);
        }
        // Waiting is of use while another thread can run.
        bool can_wait = n == 0;
        for (size_t i = 0; i < count_; i++) {
            can_wait = can_wait || (i != current && threads_[i].state == Thread::State::Ready);
        }
        const uint32_t chosen = choose(can_wait ? n + 1 : n);
        if (chosen == n) {
            Thread &thread = me();
            thread.state = Thread::State::Waiting;
            thread.waits_for = number;
            thread.must_wait = n == 0;
            thread.for_update = for_update;
            thread.for_update_of = for_update_of;
            thread.waits++;
            hand_on();
            thread.turn.acquire();
        }
        return chosen;
    }

    // Those who wait for a store get this one, or go on waiting.
    void wake(uint32_t number, uint32_t which)
    {
        std::array<uint32_t, kThreads> waits;
        for (size_t i = 0; i < count_; i++) {
            waits[i] = threads_[i].waits;
        }
        for (size_t i = 0; i < count_ && !draining_; i++) {
            Thread &other = threads_[i];
            if (other.state != Thread::State::Waiting || other.waits_for != number ||
                other.waits != waits[i]) {
                continue;
            }
            const Location &location = locations_[number];
            const bool for_update =
                other.for_update || other.for_update_of == location.stores[which].value;
            if (for_update && which != location.newest()) {
                continue;
            }
            other.must_wait = false;
            if (choose(2) == 0) {
                other.takes = which;
                other.state = Thread::State::Ready;
                other.turn.release();
                me().turn.acquire();
            }
        }
    }

    // The turn goes to the first thread that can use it.  Whoever is not finished has to
    // wait for its own next turn then.
    void hand_on()
    {
        size_t left = 0, stuck = 0;
        for (size_t i = 0; i < count_; i++) {
            Thread &thread = threads_[i];
            left += thread.state != Thread::State::Finished;
            stuck += thread.state == Thread::State::Waiting && thread.must_wait;
        }
        if (left == 0) {
            done_.release();
            return;
        }
        // Behind this one first, so that all get a turn who wait for each other.
        for (int round = 0; round < 2; round++) {
            for (size_t i = 1; i <= count_; i++) {
                Thread &thread = threads_[draining_ ? (current + i) % count_ : i - 1];
                if (thread.state == Thread::State::Ready) {
                    thread.turn.release();
                    return;
                }
            }
            // All wait.
            if (stuck == left) {
                fail("all threads wait for what never comes");
            }
            abandoned_ = abandoned_ || fault_.empty();
            draining_ = true;
            for (size_t i = 0; i < count_; i++) {
                if (threads_[i].state == Thread::State::Waiting) {
                    threads_[i].state = Thread::State::Ready;
                }
            }
        }
    }

    Numbers numbers_;
    std::deque<Location> locations_;
    uint32_t location_count_ = 0;
    std::array<Thread, kThreads> threads_;
    size_t count_ = 0;
    bool one_way_ = true;
    std::binary_semaphore done_{0};

    std::vector<Event> events_;
    std::vector<Memory> gone_;
    std::vector<Choice> choices_;
    size_t depth_ = 0;
    bool abandoned_ = false; // came to no end
    size_t pauses_ = 0;      // since then
    bool draining_ = false;  // goes on to its end, and nothing is looked at any more
    std::string fault_;
};

Explorer *explorer = nullptr;

} // namespace

/* What atomics call */

void created(const void *location, uint64_t value)
{
    if (running()) {
        explorer->created(location, value);
    }
}

uint64_t load(const void *location, uint64_t newest, std::memory_order order)
{
    return running() ? explorer->load(location, newest, order) : newest;
}

void store(const void *location, uint64_t old, uint64_t value, std::memory_order order)
{
    if (running()) {
        explorer->store(location, old, value, order);
    }
}

void before_change(const void *location, uint64_t newest)
{
    if (running()) {
        explorer->before_change(location, newest);
    }
}

void update(const void *location, uint64_t old, uint64_t value, std::memory_order order)
{
    if (running()) {
        explorer->update(location, old, value, order);
    }
}

uint64_t compare(const void *location, uint64_t newest, uint64_t expected, std::memory_order order)
{
    return running() ? explorer->compare(location, newest, expected, order) : newest;
}

void poison(const void *memory, size_t size)
{
    if (running()) {
        explorer->retire(memory, size, 0);
    }
}

void unpoison(const void *memory, size_t size)
{
    if (running()) {
        explorer->reuse(memory, size);
    }
}

/* What scenarios call */

void Execution::one_way(const Threads &threads)
{
    explorer->one_way(threads);
}

bool Execution::both_ways(const Threads &threads)
{
    return explorer->both_ways(threads);
}

void require(bool truth, const char *sentence)
{
    if (truth) {
        return;
    }
    if (!explorer) {
        throw std::logic_error(sentence);
    }
    explorer->fail(sentence);
}

Outcome explore(const std::function<void(Execution &)> &scenario)
{
    Explorer own;
    explorer = &own;
    Outcome outcome{};
    do {
        own.begin();
        Execution execution;
        scenario(execution);
        ++(own.abandoned() ? outcome.abandoned : outcome.executions);
        if (outcome.executions + outcome.abandoned > kMostExecutions) {
            own.fail("the scenario has too many executions");
        }
    } while (own.fault().empty() && own.next());
    outcome.fault = own.fault();
    explorer = nullptr;
    return outcome;
}

/* Rcu */

Rcu::~Rcu()
{
    reclaim();
}

void Rcu::reclaim()
{
    for (ViommuDeferred *const object : std::exchange(deferred_, {})) {
        while (object->reclaim(object)) {
        }
    }
}

void Rcu::defer(ViommuDeferred &object) noexcept
{
    const uint64_t epoch = begun_.load(std::memory_order_relaxed) + 1;
    std::vector<std::pair<const void *, size_t>> all;
    extent_(object, [&all](const void *memory, size_t size) { all.emplace_back(memory, size); });
    for (const auto &[memory, size] : all) {
        if (explorer) {
            explorer->retire(memory, size, epoch);
        }
    }
    begun_.store(epoch, std::memory_order_release);
    deferred_.push_back(&object);
}

Rcu::Section::Section(const Rcu &rcu)
{
    const uint64_t epoch = rcu.begun_.load(std::memory_order_acquire);
    if (running()) {
        explorer->enter(epoch);
    }
}

Rcu::Section::~Section()
{
    if (running()) {
        explorer->leave();
    }
}

} // namespace viommu::model

namespace viommu
{

void spin_pause()
{
    if (model::running()) {
        model::explorer->pause();
    }
}

} // namespace viommu
