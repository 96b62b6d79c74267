// SPDX-License-Identifier: GPL-2.0-or-later
//
// Random sessions beside a naive model: every answer, every translation at
// every page boundary, and what listeners have been told that mirror their
// endpoint's mappings, or cache its translations.
#include "machine.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <random>
#include <set>

namespace viommu::test
{

namespace
{

constexpr uint64_t kPage = 0x1000;
// The session lives on a few pages at either end of the address space.
constexpr uint64_t kPagesPerEnd = 12;
constexpr uint64_t kPages = 2 * kPagesPerEnd;

// The page of index `i` of those.
uint64_t page_address(uint64_t i)
{
    return i < kPagesPerEnd ? i * kPage : MAX - (kPages - i) * kPage + 1;
}

struct ModelPage {
    int mapping; // which one it belongs to
    uint64_t phys;
    uint32_t rights;
};

struct ModelDomain {
    bool bypass = false;
    std::map<uint64_t, ModelPage> pages; // by index
};

struct ModelEndpoint {
    uint32_t id;
    std::set<uint64_t> reserved; // page indices
    std::optional<uint32_t> domain;
};

class Model
{
public:
    int attach(uint32_t domain, ModelEndpoint &endpoint, bool with_bypass)
    {
        const auto entry = domains.find(domain);
        if (entry != domains.end()) {
            if (entry->second.bypass != with_bypass) {
                return INVAL;
            }
            if (endpoint.domain != domain) {
                for (const uint64_t page : endpoint.reserved) {
                    if (entry->second.pages.count(page)) {
                        return UNSUPP;
                    }
                }
            }
        }
        if (endpoint.domain != domain) {
            leave(endpoint);
            domains[domain].bypass = with_bypass;
            endpoint.domain = domain;
        }
        return OK;
    }

    int detach(uint32_t domain, ModelEndpoint &endpoint)
    {
        if (endpoint.domain != domain) {
            return INVAL;
        }
        leave(endpoint);
        return OK;
    }

    int map(uint32_t domain, uint64_t first, uint64_t last, uint64_t phys, uint32_t rights)
    {
        const auto entry = domains.find(domain);
        if (entry == domains.end()) {
            return NOENT;
        }
        if (entry->second.bypass) {
            return INVAL;
        }
        for (uint64_t page = first; page <= last; page++) {
            if (entry->second.pages.count(page)) {
                return INVAL;
            }
            for (const ModelEndpoint &endpoint : endpoints) {
                if (endpoint.domain == domain && endpoint.reserved.count(page)) {
                    return INVAL;
                }
            }
        }
        mappings_++;
        for (uint64_t page = first; page <= last; page++) {
            entry->second.pages[page] = {mappings_, phys + (page - first) * kPage, rights};
        }
        return OK;
    }

    int unmap(uint32_t domain, uint64_t first, uint64_t last)
    {
        const auto entry = domains.find(domain);
        if (entry == domains.end()) {
            return NOENT;
        }
        if (entry->second.bypass) {
            return INVAL;
        }
        auto &pages = entry->second.pages;
        std::set<int> inside;
        std::set<int> outside;
        for (const auto &[page, value] : pages) {
            (first <= page && page <= last ? inside : outside).insert(value.mapping);
        }
        for (const int mapping : inside) {
            if (outside.count(mapping)) {
                return RANGE;
            }
        }
        std::erase_if(pages, [&](const auto &page) { return inside.count(page.second.mapping); });
        return OK;
    }

    void reset()
    {
        domains.clear();
        for (ModelEndpoint &endpoint : endpoints) {
            endpoint.domain.reset();
        }
    }

    std::optional<uint64_t> access(const ModelEndpoint &endpoint, uint64_t page, uint64_t offset,
                                   uint32_t right) const
    {
        if (!endpoint.domain) {
            return bypass ? std::optional(page_address(page) + offset) : std::nullopt;
        }
        const ModelDomain &domain = domains.at(*endpoint.domain);
        if (domain.bypass) {
            return page_address(page) + offset;
        }
        if (endpoint.reserved.count(page)) {
            return std::nullopt;
        }
        const auto entry = domain.pages.find(page);
        if (entry == domain.pages.end() || (entry->second.rights & right) == 0) {
            return std::nullopt;
        }
        return entry->second.phys + offset;
    }

    std::map<uint32_t, ModelDomain> domains;
    std::vector<ModelEndpoint> endpoints;
    bool bypass = false;

private:
    void leave(ModelEndpoint &endpoint)
    {
        const std::optional<uint32_t> left = std::exchange(endpoint.domain, std::nullopt);
        if (!left) {
            return;
        }
        for (const ModelEndpoint &other : endpoints) {
            if (other.domain == left) {
                return;
            }
        }
        domains.erase(*left);
    }

    int mappings_ = 0;
};

// As VFIO and vhost-vdpa: a copy of an endpoint's mappings, in something that
// refuses to map what is mapped and to unmap what is not, and that knows nothing
// beyond its last address.
class Mirror
{
public:
    explicit Mirror(uint64_t last) : last_(last) {}

    void come(Function &function)
    {
        EXPECT_FALSE(here);
        here = true;
        viommu_endpoint_replay(
            function.endpoint,
            [](void *mirror, uint64_t iova, uint64_t mask, uint64_t phys, uint32_t rights) {
                static_cast<Mirror *>(mirror)->map(iova, mask, phys, rights);
                return true;
            },
            this);
    }

    void go()
    {
        EXPECT_TRUE(here);
        here = false;
        blocks_.clear();
    }

    void map(uint64_t iova, uint64_t mask, uint64_t phys, uint32_t rights)
    {
        if (!here || iova + mask > last_) {
            return;
        }
        const auto after = blocks_.upper_bound(iova + mask);
        EXPECT_TRUE(after == blocks_.begin() ||
                    std::prev(after)->first + std::prev(after)->second.mask < iova)
            << "mapped twice";
        blocks_[iova] = {mask, phys, rights};
    }

    void unmap(uint64_t iova, uint64_t mask, uint64_t phys)
    {
        if (!here || iova + mask > last_) {
            return;
        }
        const auto block = blocks_.find(iova);
        ASSERT_TRUE(block != blocks_.end()) << "unmapped, and is not mapped";
        EXPECT_EQ(block->second.mask, mask);
        EXPECT_EQ(block->second.phys, phys);
        blocks_.erase(block);
    }

    std::optional<uint64_t> access(uint64_t iova, uint32_t right) const
    {
        auto after = blocks_.upper_bound(iova);
        if (after == blocks_.begin()) {
            return std::nullopt;
        }
        const auto &[first, block] = *--after;
        if (iova > first + block.mask || (block.rights & right) == 0) {
            return std::nullopt;
        }
        return block.phys + (iova - first);
    }

    bool empty() const { return blocks_.empty(); }

    bool here = false;

private:
    struct Block {
        uint64_t mask;
        uint64_t phys;
        uint32_t rights;
    };
    const uint64_t last_;
    std::map<uint64_t, Block> blocks_;
};

// As vhost: answers of translate(), until they must go.
class Cache
{
public:
    void remember(uint64_t iova, const ViommuTranslation &answer)
    {
        // Memory is not everywhere.
        const uint64_t mask = std::min(answer.mask, kPage - 1);
        if (answer.phys <= VIOMMU_MEMORY_LAST) {
            answers_[iova & ~mask] = {mask, answer.phys & ~mask, answer.rights};
        }
    }

    void drop(uint64_t iova, uint64_t mask)
    {
        std::erase_if(answers_, [&](const auto &answer) {
            return answer.first <= iova + mask && answer.first + answer.second.mask >= iova;
        });
    }

    void compare(Machine &machine, Function &function) const
    {
        for (const auto &[iova, answer] : answers_) {
            const ViommuTranslation now = machine.look(function, iova);
            EXPECT_EQ(now.rights, answer.rights);
            EXPECT_EQ(now.phys, answer.phys);
        }
    }

private:
    struct Answer {
        uint64_t mask;
        uint64_t phys;
        uint32_t rights;
    };
    std::map<uint64_t, Answer> answers_;
};

// One of the four.
struct Watched {
    Watched(Function &whose, bool with_the_switch, bool with_a_cache, uint64_t mirror_last)
        : function(&whose), follows(with_the_switch), caches(with_a_cache), last(mirror_last),
          mirror(mirror_last)
    {
    }

    Function *function;
    bool follows; // the mirror is there while the endpoint translates
    bool caches;
    uint64_t last; // of the mirror
    Mirror mirror;
    Cache cache;
};

class Session
{
public:
    explicit Session(unsigned seed) : random_(seed), machine_(Config().quota(1000, 100))
    {
        const std::vector<std::vector<uint64_t>> reserved{{}, {3}, {}, {kPages - 1}};
        for (uint32_t i = 0; i < reserved.size(); i++) {
            std::vector<ViommuRegion> regions;
            for (const uint64_t page : reserved[i]) {
                regions.push_back(
                    {page_address(page), page_address(page) + kPage - 1, VIOMMU_RESV_RESERVED});
            }
            model_.endpoints.push_back(
                {0x30 + 8 * i, {reserved[i].begin(), reserved[i].end()}, std::nullopt});
            Function &function = machine_.add(0x30 + 8 * i, regions);
            watched_.emplace_back(function, i != 0, i >= 2, i == 1 ? kLimit : MAX);
        }
        for (Watched &watched : watched_) {
            if (!watched.follows || watched.function->translating) {
                watched.mirror.come(*watched.function);
            }
            register_listeners(watched);
        }
        machine_.on_map = [this](Function &function, auto... block) {
            find(function).mirror.map(block...);
        };
        machine_.on_unmap = [this](Function &function, auto... block) {
            find(function).mirror.unmap(block...);
        };
        machine_.on_drop = [this](Function &function, auto... block) {
            find(function).cache.drop(block...);
        };
        machine_.on_commit = [this] {
            for (Watched &watched : watched_) {
                if (watched.follows && watched.mirror.here && !watched.function->translating) {
                    EXPECT_TRUE(watched.mirror.empty()) << "left behind";
                    watched.mirror.go();
                } else if (watched.follows && !watched.mirror.here &&
                           watched.function->translating) {
                    watched.mirror.come(*watched.function);
                }
                register_listeners(watched);
            }
        };
    }

    void step()
    {
        const uint64_t choice = pick(100);
        const auto domain = static_cast<uint32_t>(1 + pick(4));
        ModelEndpoint &endpoint = model_.endpoints[pick(model_.endpoints.size())];
        if (choice < 8) {
            const bool bypass = pick(4) == 0;
            EXPECT_EQ(machine_.attach(domain, endpoint.id, bypass ? BYPASS : 0),
                      model_.attach(domain, endpoint, bypass));
        } else if (choice < 11) {
            EXPECT_EQ(machine_.detach(domain, endpoint.id), model_.detach(domain, endpoint));
        } else if (choice < 70) {
            const auto [first, last] = range(3);
            const uint64_t phys = pick(1u << 20) * kPage;
            const auto rights = static_cast<uint32_t>(pick(4));
            EXPECT_EQ(machine_.map(domain, page_address(first), page_address(last) + kPage - 1,
                                   phys, rights),
                      model_.map(domain, first, last, phys, rights));
        } else if (choice < 97) {
            const auto [first, last] = range(6);
            EXPECT_EQ(machine_.unmap(domain, page_address(first), page_address(last) + kPage - 1),
                      model_.unmap(domain, first, last));
        } else if (choice < 98) {
            Watched &watched = watched_[pick(watched_.size())];
            if (watched.mirror.here) {
                watched.mirror.go();
            } else if (watched.function->translating) {
                watched.mirror.come(*watched.function);
            }
            register_listeners(watched);
        } else if (choice < 99) {
            EXPECT_EQ(viommu_engine_write_bypass(machine_.engine(), model_.bypass ? 0 : 1), true);
            model_.bypass = !model_.bypass;
        } else {
            viommu_engine_device_reset(machine_.engine());
            machine_.drive();
            model_.reset();
        }
        machine_.told();
    }

    void compare()
    {
        for (size_t i = 0; i < watched_.size(); i++) {
            Function &function = *watched_[i].function;
            const ModelEndpoint &endpoint = model_.endpoints[i];
            const Mirror &mirror = watched_[i].mirror;
            watched_[i].cache.compare(machine_, function);
            const bool maps = endpoint.domain && !model_.domains.at(*endpoint.domain).bypass;
            EXPECT_EQ(function.translating, maps || (!endpoint.domain && !model_.bypass));
            if (!maps) {
                EXPECT_TRUE(mirror.empty());
            }
            for (uint64_t page = 0; page < kPages; page++) {
                for (const uint64_t offset : {uint64_t{0}, kPage - 1}) {
                    const uint64_t iova = page_address(page) + offset;
                    for (const uint32_t right : {R, W}) {
                        const auto expected = model_.access(endpoint, page, offset, right);
                        const ViommuTranslation found = machine_.translate(function, iova, right);
                        ASSERT_EQ(found.rights != 0, expected.has_value());
                        if (maps && mirror.here) {
                            const bool known = block_end(endpoint, page) <= watched_[i].last;
                            EXPECT_EQ(mirror.access(iova, right), known ? expected : FAULT);
                        }
                        if (!expected) {
                            continue;
                        }
                        ASSERT_EQ(found.phys, *expected);
                        check_block(endpoint, page, found);
                        if (watched_[i].caches) {
                            watched_[i].cache.remember(iova, found);
                        }
                    }
                }
            }
        }
    }

private:
    // The blocks of some mappings have it in their middle.
    static constexpr uint64_t kLimit = 7 * kPage - 1;

    uint64_t pick(uint64_t n) { return random_() % n; }

    Watched &find(const Function &function)
    {
        return *std::find_if(watched_.begin(), watched_.end(),
                             [&](const Watched &watched) { return watched.function == &function; });
    }

    void register_listeners(Watched &watched)
    {
        machine_.listen(*watched.function, watched.mirror.here,
                        watched.mirror.here || watched.caches);
    }

    // The last address of the largest block around a page inside one mapping.
    uint64_t block_end(const ModelEndpoint &endpoint, uint64_t page) const
    {
        const auto &pages = model_.domains.at(*endpoint.domain).pages;
        const auto here = pages.find(page);
        uint64_t size = 1;
        const auto inside = [&](uint64_t other) {
            const auto entry = pages.find(other);
            return entry != pages.end() && entry->second.mapping == here->second.mapping;
        };
        // Only at the lower end, where pages are numbered by their address.
        for (bool fits = here != pages.end() && page < kPagesPerEnd; fits; size *= fits ? 2 : 1) {
            const uint64_t first = page & ~(2 * size - 1);
            for (uint64_t other = first; other < first + 2 * size; other++) {
                fits = fits && other < kPagesPerEnd && inside(other);
            }
        }
        return page < kPagesPerEnd ? (page | (size - 1)) * kPage + kPage - 1
                                   : page_address(page) + kPage - 1;
    }

    std::pair<uint64_t, uint64_t> range(uint64_t longest)
    {
        const uint64_t first = pick(kPages);
        const uint64_t end = first < kPagesPerEnd ? kPagesPerEnd : kPages;
        return {first, std::min(first + pick(longest), end - 1)};
    }

    // The block's first and last page must lead where the block says.
    void check_block(const ModelEndpoint &endpoint, uint64_t page, const ViommuTranslation &found)
    {
        if (found.mask == MAX) {
            return; // identity
        }
        const uint64_t iova = page_address(page);
        for (const uint64_t other : {iova & ~found.mask, (iova | found.mask) & ~(kPage - 1)}) {
            const uint64_t pages_off = (other - iova) / kPage;
            const uint64_t index = other >= iova ? page + pages_off : page - (iova - other) / kPage;
            ASSERT_LT(index, kPages);
            ASSERT_EQ(page_address(index), other);
            const uint32_t right = (found.rights & R) ? R : W;
            ASSERT_EQ(model_.access(endpoint, index, 0, right),
                      (found.phys & ~found.mask) | (other & found.mask));
        }
    }

    std::mt19937 random_;
    Model model_;
    std::vector<Watched> watched_;
    Machine machine_;
};

class RandomSession : public ::testing::TestWithParam<unsigned>
{
};

TEST_P(RandomSession, W7_W8_W29_UNM_4_DET_4_AgreesWithTheModel)
{
    Session session(GetParam());
    for (int i = 0; i < 1500; i++) {
        session.step();
        session.compare();
        if (HasFailure()) {
            FAIL() << "step " << i;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomSession, ::testing::Range(1u, 9u));

} // namespace

} // namespace viommu::test
