// SPDX-License-Identifier: GPL-2.0-or-later
//
// The containers that could hold a domain's mappings, alone: the engine's own, GLib's GTree
// with keys that compare equal when they overlap (as the device in QEMU's tree uses it),
// absl::btree_map and std::map by start.  And a table that knows where each mapping is:
// no container, but what memory alone costs, to find in one step.
//
//   containers [--sizes=1000,100000] [--benchmark_...]
//   containers --memory=CONTAINER/LAYOUT/SIZE   resident bytes per mapping, as JSON
#include "mapping/mapping_set.h"

#include <absl/container/btree_map.h>
#include <benchmark/benchmark.h>
#include <glib.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

namespace
{

constexpr uint64_t kPage = 4096;
constexpr uint32_t kFlags = 3;

struct Target {
    uint64_t last;
    uint64_t phys;
    uint32_t flags;
};

class Ours
{
public:
    void insert(uint64_t iova, uint64_t last, uint64_t phys)
    {
        set_.insert(viommu::Mapping{iova, last, phys, kFlags});
    }
    uint64_t find(uint64_t iova) const
    {
        const auto found = set_.find(iova);
        return found ? found->phys + (iova - found->iova) : UINT64_MAX;
    }
    void erase(uint64_t iova, uint64_t last) { set_.remove(iova, last); }

private:
    viommu::MappingSet set_;
};

template <typename Map> class ByStart
{
public:
    void insert(uint64_t iova, uint64_t last, uint64_t phys)
    {
        map_.emplace(iova, Target{last, phys, kFlags});
    }
    uint64_t find(uint64_t iova) const
    {
        auto at = map_.upper_bound(iova);
        if (at == map_.begin()) {
            return UINT64_MAX;
        }
        --at;
        return iova <= at->second.last ? at->second.phys + (iova - at->first) : UINT64_MAX;
    }
    void erase(uint64_t iova, uint64_t) { map_.erase(iova); }

private:
    Map map_;
};

using StdMap = ByStart<std::map<uint64_t, Target>>;
using BtreeMap = ByStart<absl::btree_map<uint64_t, Target>>;

// Key and value are allocated on their own, as GTree wants them.
class GlibTree
{
public:
    GlibTree() : tree_(g_tree_new_full(compare, nullptr, g_free, g_free)) {}
    GlibTree(const GlibTree &) = delete;
    GlibTree &operator=(const GlibTree &) = delete;
    ~GlibTree() { g_tree_destroy(tree_); }

    void insert(uint64_t iova, uint64_t last, uint64_t phys)
    {
        auto *range = g_new(Range, 1);
        auto *value = g_new(Value, 1);
        *range = Range{iova, last};
        *value = Value{phys, kFlags};
        g_tree_insert(tree_, range, value);
    }
    uint64_t find(uint64_t iova) const
    {
        const Range wanted{iova, iova};
        gpointer range = nullptr;
        gpointer value = nullptr;
        if (g_tree_lookup_extended(tree_, &wanted, &range, &value) == 0) {
            return UINT64_MAX;
        }
        return static_cast<Value *>(value)->phys + (iova - static_cast<Range *>(range)->first);
    }
    void erase(uint64_t iova, uint64_t last)
    {
        const Range wanted{iova, last};
        g_tree_remove(tree_, &wanted);
    }

private:
    struct Range {
        uint64_t first;
        uint64_t last;
    };
    struct Value {
        uint64_t phys;
        uint32_t flags;
    };

    static gint compare(gconstpointer a, gconstpointer b, gpointer)
    {
        const auto *x = static_cast<const Range *>(a);
        const auto *y = static_cast<const Range *>(b);
        if (x->last < y->first) {
            return -1;
        }
        return x->first > y->last ? 1 : 0;
    }

    GTree *tree_;
};

constexpr uint64_t kFirstPage = uint64_t{1} << 24;

// For dense layouts only.
class Table
{
public:
    void insert(uint64_t iova, uint64_t last, uint64_t phys)
    {
        const uint64_t at = index(iova);
        if (at >= entries_.size()) {
            entries_.resize(at + 1);
        }
        entries_[at] = Target{last, phys, kFlags};
    }
    uint64_t find(uint64_t iova) const
    {
        const Target &target = entries_[index(iova)];
        return iova <= target.last ? target.phys + iova % kPage : UINT64_MAX;
    }

private:
    static uint64_t index(uint64_t iova) { return iova / kPage - kFirstPage; }

    std::vector<Target> entries_;
};

enum class Layout { Dense, Scattered };
enum class Order { Sequential, Random };

constexpr const char *name(Layout layout)
{
    return layout == Layout::Dense ? "dense" : "scattered";
}
constexpr const char *name(Order order)
{
    return order == Order::Sequential ? "sequential" : "random";
}

// Starts of `n` one-page mappings in the order in which they are to be used.
std::vector<uint64_t> starts(Layout layout, Order order, size_t n)
{
    std::mt19937_64 random(n);
    std::vector<uint64_t> out(n);
    if (layout == Layout::Dense) {
        std::iota(out.begin(), out.end(), kFirstPage);
    } else {
        // More are drawn than needed, as some meet.
        std::vector<uint64_t> drawn(n + n / 8 + 64);
        for (auto &page : drawn) {
            page = random() >> 30;
        }
        std::sort(drawn.begin(), drawn.end());
        drawn.erase(std::unique(drawn.begin(), drawn.end()), drawn.end());
        std::shuffle(drawn.begin(), drawn.end(), random);
        std::copy_n(drawn.begin(), n, out.begin());
        std::sort(out.begin(), out.end());
    }
    if (order == Order::Random) {
        std::shuffle(out.begin(), out.end(), random);
    }
    for (auto &page : out) {
        page *= kPage;
    }
    return out;
}

uint64_t phys_of(uint64_t iova)
{
    return iova ^ (uint64_t{1} << 44);
}

template <typename Container> void fill(Container &container, const std::vector<uint64_t> &iovas)
{
    for (const uint64_t iova : iovas) {
        container.insert(iova, iova + kPage - 1, phys_of(iova));
    }
}

template <typename Container>
void insert_all(benchmark::State &state, Layout layout, Order order, size_t n)
{
    const auto iovas = starts(layout, order, n);
    for ([[maybe_unused]] auto _ : state) {
        state.PauseTiming();
        auto container = std::make_unique<Container>();
        state.ResumeTiming();
        fill(*container, iovas);
        state.PauseTiming();
        container.reset();
        state.ResumeTiming();
    }
}

template <typename Container>
void erase_all(benchmark::State &state, Layout layout, Order order, size_t n)
{
    const auto iovas = starts(layout, order, n);
    for ([[maybe_unused]] auto _ : state) {
        state.PauseTiming();
        auto container = std::make_unique<Container>();
        fill(*container, iovas);
        state.ResumeTiming();
        for (const uint64_t iova : iovas) {
            container->erase(iova, iova + kPage - 1);
        }
        state.PauseTiming();
        container.reset();
        state.ResumeTiming();
    }
}

template <typename Container>
void find_all(benchmark::State &state, Layout layout, Order order, size_t n)
{
    Container container;
    const auto iovas = starts(layout, order, n);
    fill(container, iovas);
    for ([[maybe_unused]] auto _ : state) {
        for (const uint64_t iova : iovas) {
            const uint64_t phys = container.find(iova + 8);
            if (phys != phys_of(iova) + 8) {
                state.SkipWithError("found another mapping");
                return;
            }
        }
    }
}

// Small sets are gone through several times, to be measurable.
int64_t rounds(size_t n)
{
    return static_cast<int64_t>(std::max<size_t>(1, 200000 / n));
}

template <typename Container> void add(const std::string &container, size_t n)
{
    using Bench = void (*)(benchmark::State &, Layout, Order, size_t);
    const std::pair<const char *, Bench> kinds[] = {
        {"insert", insert_all<Container>},
        {"find", find_all<Container>},
        {"erase", erase_all<Container>},
    };
    for (const auto &[kind, bench] : kinds) {
        for (const Layout layout : {Layout::Dense, Layout::Scattered}) {
            for (const Order order : {Order::Sequential, Order::Random}) {
                const std::string full = container + '/' + kind + '/' + name(layout) + '/' +
                                         name(order) + '/' + std::to_string(n);
                benchmark::RegisterBenchmark(full.c_str(), bench, layout, order, n)
                    ->Iterations(rounds(n));
            }
        }
    }
}

void add_table(const std::string &container, size_t n)
{
    for (const Order order : {Order::Sequential, Order::Random}) {
        const std::string full = container + "/find/dense/" + name(order) + '/' + std::to_string(n);
        benchmark::RegisterBenchmark(full.c_str(), find_all<Table>, Layout::Dense, order, n)
            ->Iterations(rounds(n));
    }
}

long resident_bytes()
{
    std::unique_ptr<FILE, int (*)(FILE *)> file(std::fopen("/proc/self/statm", "r"), std::fclose);
    long size = 0;
    long resident = 0;
    if (!file || std::fscanf(file.get(), "%ld %ld", &size, &resident) != 2) {
        std::fprintf(stderr, "containers: cannot read /proc/self/statm\n");
        std::exit(1);
    }
    return resident * sysconf(_SC_PAGESIZE);
}

template <typename Container> double bytes_per_mapping(Layout layout, size_t n)
{
    const auto iovas = starts(layout, Order::Random, n);
    const long before = resident_bytes();
    Container container;
    fill(container, iovas);
    return static_cast<double>(resident_bytes() - before) / static_cast<double>(n);
}

struct Entry {
    const char *name;
    void (*add)(const std::string &, size_t);
    double (*bytes)(Layout, size_t);
};

constexpr Entry kContainers[] = {
    {"ours", add<Ours>, bytes_per_mapping<Ours>},
    {"gtree", add<GlibTree>, bytes_per_mapping<GlibTree>},
    {"btree_map", add<BtreeMap>, bytes_per_mapping<BtreeMap>},
    {"std_map", add<StdMap>, bytes_per_mapping<StdMap>},
};

size_t number(std::string_view text)
{
    size_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value == 0) {
        std::fprintf(stderr, "containers: '%.*s' is not a size\n", static_cast<int>(text.size()),
                     text.data());
        std::exit(2);
    }
    return value;
}

std::vector<std::string_view> split(std::string_view text, char separator)
{
    std::vector<std::string_view> out;
    for (size_t at = 0; at <= text.size();) {
        const size_t end = std::min(text.find(separator, at), text.size());
        out.push_back(text.substr(at, end - at));
        at = end + 1;
    }
    return out;
}

int print_memory(std::string_view what)
{
    const auto parts = split(what, '/');
    for (const Entry &entry : kContainers) {
        if (parts.size() == 3 && parts[0] == entry.name &&
            (parts[1] == "dense" || parts[1] == "scattered")) {
            const Layout layout = parts[1] == "dense" ? Layout::Dense : Layout::Scattered;
            std::printf("{\"bytes\": %.2f}\n", entry.bytes(layout, number(parts[2])));
            return 0;
        }
    }
    std::fprintf(stderr, "containers: --memory wants CONTAINER/dense|scattered/SIZE\n");
    return 2;
}

} // namespace

int main(int argc, char **argv)
{
    std::vector<size_t> sizes = {1000, 100000, 1000000};
    int kept = 1;
    for (int i = 1; i < argc; i++) {
        const std::string_view arg = argv[i];
        if (arg.starts_with("--memory=")) {
            return print_memory(arg.substr(9));
        }
        if (arg.starts_with("--sizes=")) {
            sizes.clear();
            for (const auto size : split(arg.substr(8), ',')) {
                sizes.push_back(number(size));
            }
            continue;
        }
        argv[kept++] = argv[i];
    }
    benchmark::Initialize(&kept, argv);
    if (benchmark::ReportUnrecognizedArguments(kept, argv)) {
        return 2;
    }
    for (const size_t size : sizes) {
        for (const Entry &entry : kContainers) {
            entry.add(entry.name, size);
        }
        add_table("table", size);
    }
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return 0;
}
