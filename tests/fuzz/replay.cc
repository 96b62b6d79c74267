// SPDX-License-Identifier: GPL-2.0-or-later
//
// Runs a fuzz target over the files and folders that are named, without a
// fuzzer: so that what was once found stays found, with any compiler.
#include "input.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

namespace
{

std::vector<std::filesystem::path> files_of(const std::filesystem::path &path)
{
    if (!std::filesystem::is_directory(path)) {
        return {path};
    }
    std::vector<std::filesystem::path> files;
    for (const auto &entry : std::filesystem::directory_iterator(path)) {
        files.push_back(entry.path());
    }
    std::ranges::sort(files);
    return files;
}

} // namespace

int main(int argc, char **argv)
{
    size_t count = 0;
    for (int i = 1; i < argc; i++) {
        for (const std::filesystem::path &path : files_of(argv[i])) {
            std::ifstream file(path, std::ios::binary);
            const std::vector<char> text{std::istreambuf_iterator<char>(file), {}};
            if (!file) {
                std::fprintf(stderr, "%s cannot be read\n", path.c_str());
                return 1;
            }
            // Before it runs: if it fails, this is the last line.
            std::printf("%s\n", path.filename().c_str());
            std::fflush(stdout);
            // A copy of exactly this size, so that a sanitizer sees its end.
            const std::vector<uint8_t> bytes(text.begin(), text.end());
            LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
            count++;
        }
    }
    std::printf("%zu inputs\n", count);
    return count == 0 ? 1 : 0;
}
