// SPDX-License-Identifier: GPL-2.0-or-later
//
// The device-tree compiler reads what was written and has nothing to complain of.
#include "machine_builder.h"
#include "tree.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <unistd.h>

namespace viommu::test
{

namespace
{

struct Compiled {
    int status;
    std::string source;
    std::string warnings;
};

std::string contents(const std::filesystem::path &path)
{
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

Compiled decompile(void *fdt)
{
    const std::filesystem::path folder =
        std::filesystem::temp_directory_path() / ("viommu-dtc-" + std::to_string(getpid()));
    std::filesystem::create_directory(folder);
    std::ofstream(folder / "tree.dtb", std::ios::binary)
        .write(static_cast<const char *>(fdt), static_cast<std::streamsize>(fdt_totalsize(fdt)));
    const std::string command =
        std::string("'") + VIOMMU_DTC + "' -I dtb -O dts -o '" + (folder / "tree.dts").string() +
        "' '" + (folder / "tree.dtb").string() + "' 2>'" + (folder / "warnings").string() + "'";
    Compiled compiled{std::system(command.c_str()), contents(folder / "tree.dts"),
                      contents(folder / "warnings")};
    std::filesystem::remove_all(folder);
    // Older versions write a list of strings as one with zeros in it.
    constexpr std::string_view kZero = "\\0", kComma = "\", \"";
    for (size_t at; (at = compiled.source.find(kZero)) != std::string::npos;) {
        compiled.source.replace(at, kZero.size(), kComma);
    }
    return compiled;
}

} // namespace

TEST(Dtc, HasNoWarningAboutWhatWasWritten)
{
    MachineBuilder machine = golden_machine();
    machine.mmio_iommu("iommu2", 0x0a003e00, {"pxb3"})
        .root_bus("pxb3", 0, 0x40, 0xff)
        .mmio_endpoint("vm4", 4, 0x0a000800, 2);
    const auto topology = build(machine);
    Tree tree(machine.desc());
    ASSERT_EQ(tree.write(topology.get()), "");

    const Compiled compiled = decompile(tree.fdt());
    EXPECT_EQ(compiled.status, 0);
    EXPECT_EQ(compiled.warnings, "");
    for (const char *piece :
         {"iommu@1 {", "iommu@2,1 {", "compatible = \"virtio,pci-iommu\", \"pci1af4,1057\";",
          "reg = <0x800 0x00 0x00 0x00 0x00>;", "reg = <0x1100 0x00 0x00 0x00 0x00>;",
          "#iommu-cells = <0x01>;", "iommus = <0x8000 0xffff0003>;",
          "iommus = <0x8002 0xffff0004>;",
          ("iommu-map = <0x00 0x8000 0x00 0x08 0x09 0x8000 0x09 0x08 0x12 0x8000 0x12 0x1fee "
           "0x3000 0x8001 0x3000 0x1000 0x4000 0x8002 0x4000 0xc000>;")}) {
        EXPECT_NE(compiled.source.find(piece), std::string::npos) << piece << " is not in\n"
                                                                  << compiled.source;
    }
}

TEST(Dtc, WarnsWhenANodeIsWrong)
{
    const MachineBuilder machine = golden_machine();
    const auto topology = build(machine);
    Tree tree(machine.desc());
    ASSERT_EQ(tree.write(topology.get()), "");
    tree.set_cells(std::string(Tree::kPciHost) + "/iommu@1", "reg", {0x1000, 0, 0, 0, 0});
    EXPECT_NE(decompile(tree.fdt()).warnings.find("iommu@1"), std::string::npos);
}

} // namespace viommu::test
