// SPDX-License-Identifier: GPL-2.0-or-later
#include "timing.h"

namespace bare
{

namespace
{

constexpr uint32_t domain = 1;
constexpr unsigned bufferPages = 256;
constexpr uint64_t bufferSize = bufferPages * pageSize;
// Of a disk that is larger.
constexpr uint32_t diskBlocks = 4096;

struct Pattern {
    const char *name;
    uint32_t size; // of a block, in bytes
    bool random;
};
constexpr Pattern patterns[] = {{"random", 4 << 10, true}, {"sequential", 64 << 10, false}};

// Where the block of the next read is, on the disk and in the buffer.
class Order
{
public:
    explicit Order(bool random) : random_(random) {}

    uint32_t next()
    {
        if (!random_) {
            return state_++;
        }
        // Xorshift.
        state_ ^= state_ << 13;
        state_ ^= state_ >> 17;
        state_ ^= state_ << 5;
        return state_ >> 8;
    }

private:
    bool random_;
    uint32_t state_ = 0x12345678;
};

class Reader
{
public:
    Reader(Iommu *iommu, Endpoint &endpoint, const Pattern &pattern, Addr buffer)
        : iommu_(iommu), endpoint_(endpoint), pattern_(pattern), buffer_(buffer),
          blocks_(static_cast<unsigned>(bufferSize / pattern.size)), order_(pattern.random)
    {
    }

    bool map(unsigned block)
    {
        return iommu_->map(domain, iova(block), pattern_.size, memory(block), mapWrite) ==
               Status::ok;
    }
    bool unmap(unsigned block)
    {
        return iommu_->unmap(domain, iova(block), pattern_.size) == Status::ok;
    }

    bool mapAll()
    {
        for (unsigned block = 0; block < blocks_; block++) {
            if (!map(block)) {
                return false;
            }
        }
        return true;
    }
    bool unmapAll() { return iommu_->unmap(domain, dataIova, bufferSize) == Status::ok; }

    // Each read fills its block with the zeros of the disk, and no block that is yet to come.
    bool verify(bool mapEach)
    {
        for (Addr word = buffer_; word < buffer_ + bufferSize; word += sizeof(uint32_t)) {
            store<uint32_t>(word, ~0u);
        }
        for (unsigned block = 0; block < blocks_; block++) {
            if (!holds(block, ~0u) || !read(block, block, mapEach) || !holds(block, 0)) {
                return false;
            }
        }
        return true;
    }

    void time(const char *mapped, unsigned spans, unsigned reads)
    {
        const bool mapEach = same(mapped, "each");

        if (!check(verify(mapEach), pattern_.name, "reads arrive where they should")) {
            return;
        }
        for (unsigned span = 0; span < spans; span++) {
            const uint64_t begin = ticks();
            for (unsigned i = 0; i < reads; i++) {
                const uint32_t next = order_.next();
                if (!read(next % diskBlocks, next % blocks_, mapEach)) {
                    fail("a timed read did not succeed");
                }
            }
            printAll("time pattern=", pattern_.name, " mapped=", mapped, " ticks=", ticks() - begin,
                     "\n");
        }
    }

private:
    Addr memory(unsigned block) const { return buffer_ + static_cast<Addr>(block) * pattern_.size; }
    uint64_t iova(unsigned block) const
    {
        return iommu_ ? dataIova + static_cast<uint64_t>(block) * pattern_.size : memory(block);
    }

    bool holds(unsigned block, uint32_t value) const
    {
        for (uint32_t offset = 0; offset < pattern_.size; offset += sizeof(uint32_t)) {
            if (load<uint32_t>(memory(block) + offset) != value) {
                return false;
            }
        }
        return true;
    }

    bool read(uint32_t diskBlock, unsigned block, bool mapEach)
    {
        return (!mapEach || map(block)) &&
               endpoint_.read(static_cast<uint64_t>(diskBlock) * (pattern_.size / sectorSize),
                              iova(block), pattern_.size) &&
               (!mapEach || unmap(block));
    }

    Iommu *iommu_;
    Endpoint &endpoint_;
    const Pattern &pattern_;
    Addr buffer_;
    unsigned blocks_;
    Order order_;
};

} // namespace

void timeReads(Iommu *iommu, Endpoint &endpoint, unsigned spans, unsigned reads)
{
    const Addr buffer = allocPages(bufferPages);

    if (iommu && !check(iommu->attach(domain, endpoint.id) == Status::ok &&
                            endpoint.mapRings(*iommu, domain),
                        endpoint.kind(), "ATTACH and MAP of its rings")) {
        return;
    }
    if (!check(endpoint.start(featureAccessPlatform, iommu ? ringShift : 0), endpoint.kind(),
               "starts")) {
        return;
    }
    for (const Pattern &pattern : patterns) {
        Reader reader(iommu, endpoint, pattern, buffer);

        if (!iommu) {
            reader.time("never", spans, reads);
            continue;
        }
        if (check(reader.mapAll(), pattern.name, "MAP of each block")) {
            reader.time("once", spans, reads);
            check(reader.unmapAll(), pattern.name, "UNMAP of all");
        }
        reader.time("each", spans, reads);
    }
}

} // namespace bare
