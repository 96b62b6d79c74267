#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Breaks decisions of the engine and of the model, and the order of memory, one by one; for each,
a named unit test has to fail.

A copy of the tree is built without optimisation, once as it is and once per mutation, of
which only one file and one program are new.  With --check nothing is built: each text that
a mutation replaces has to be there exactly once, and its test has to exist.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
ROOMS = ("base", "engine", "include", "mapping", "topology", "acpi", "fdt", "tests/interleave",
         "tests/unit/engine", "tests/unit/topology")
PROGRAMS = {"engine": "tests/unit/engine", "engine-mappings": "tests/unit/engine",
            "interleave": "tests/interleave",
            **{f"topology-{name}": "tests/unit/topology"
               for name in ("model", "array", "viot", "fdt", "leave-out", "properties", "view")}}
LIMIT = 120  # seconds for one test


class Mutation(NamedTuple):
    file: str
    text: str
    instead: str
    test: str
    program: str = "engine"


MUTATIONS = (
    # Translation
    Mutation("engine/endpoint.cc", "if (retired.load(std::memory_order_acquire)) {",
             "if (false) {", "Members.W18_RetiredOutOfBypassIsBlocked"),
    Mutation("engine/endpoint.cc", "return shared.bypass.load(std::memory_order_acquire)",
             "return true",
             "Device.OPS_5_UnattachedWithoutBypassReachesNothing"),
    Mutation("engine/endpoint.cc", "region->subtype == VIOMMU_RESV_MSI",
             "region->subtype != VIOMMU_RESV_MSI",
             "ReservedMapping.RSV_5_ReservedFaultsAndMsiPasses"),
    Mutation("engine/endpoint.cc", "mapping->iova - mapping->phys)", "0)",
             "Translate.W8_BlockIsCongruentWithThePhysicalAddress"),
    Mutation("engine/endpoint.cc", "const uint32_t refused = access & ~out.rights;",
             "const uint32_t refused = out.rights ? 0 : access;", "Map.MAP_6_NoWriteWithoutTheRight"),
    Mutation("engine/endpoint.cc", " || (access & ~out.rights) != 0) {", ") {",
             "ThreadCaches.MAP_6_FaultsAreNotRemembered"),
    Mutation("engine/endpoint.cc", " || !here->mappings.holds(hit.stamp)", "",
             "ThreadCaches.UNM_5_NotBeyondTheMapping"),
    Mutation("engine/endpoint.cc", "shared.attachments.peek() != hit.attachments || ", "",
             "ThreadCaches.DET_4_NotBeyondTheAttachment"),
    # What threads remember
    Mutation("engine/thread_cache.cc", "cache->totals_->add(cache->counts() - cache->folded_);", "",
             "CacheStore.W22_WhatIsCountedAfterADropCounts"),
    Mutation("engine/thread_cache.h", "kCaches = 1024;", "kCaches = 960;",
             "ThreadCaches.W11_WhatThreadsRememberIsLimitedForEachIommu"),
    Mutation("engine/thread_cache.cc", "    count_.fetch_sub(1, std::memory_order_relaxed);\n}\n\n"
             "void CacheStore::destroy", "}\n\nvoid CacheStore::destroy",
             "CacheStore.W11_CachesAreFreedInBoundedSteps"),
    Mutation("engine/thread_cache.cc", "if (!empty_pages(cache, size_)) {", "if (false) {",
             "CacheStore.W11_CachesAreFreedInBoundedSteps"),
    Mutation("engine/thread_cache.cc", "        totals_->add(cache->folded_);\n", "",
             "ThreadCaches.W11_WhatThreadsRememberGoesWithTheAttachment"),
    # The model of the machine, and what it says
    Mutation("topology/model.cc", "windows.back().segment == bus.segment &&", "true &&",
             "Model.WindowsThatTouchInNumberButNotInSegmentStayApart", "topology-model"),
    Mutation("topology/model.cc", "left.last_bus >= right.first_bus", "left.last_bus > right.first_bus",
             "ModelRefusal.OverlappingWindows", "topology-model"),
    Mutation("topology/model.cc", " && !machine_.root_buses[i].bypass) {", ") {",
             "Model.BypassedRootBusIsManagedByNobody", "topology-model"),
    Mutation("topology/model.cc", "subtract(window, holes)",
             "std::vector<PciRange>{window}", "Model.EveryIommuIsLeftOutOfEveryRange",
             "topology-model"),
    Mutation("topology/model.cc", "if (first <= whole.last) {", "if (true) {",
             "Model.IommusAtTheEndsOfAWindowLeaveNoEmptyRange", "topology-model"),
    Mutation("topology/array.cc", "if (total > limit) {", "if (total > limit + 1) {",
             "Array.FitsExactlyOrIsRefused", "topology-array"),
    Mutation("acpi/viot.cc", "kMax16 - position", "kMax16 - 0 * position",
             "Viot.TwoPciIommusThatManageNothingShareNoFunction", "topology-viot"),
    Mutation("acpi/viot.cc", "        offset += kIommuNodeSize;\n", "",
             "Viot.PciIommusRangesAndMmioEndpoint", "topology-viot"),
    Mutation("fdt/fdt.cc", "if (tree_.has_phandle(value)) {", "if (false) {",
             "FdtRefusal.UnusablePhandles", "topology-fdt"),
    Mutation("fdt/fdt.cc", "{range.first, phandle(iommu), range.first_id(), length}",
             "{range.first, phandle(0), range.first_id(), length}",
             "Fdt.IommuMapHasATuplePerRangeInOrderOfRequesterIds", "topology-fdt"),
    Mutation("topology/shown.h", "return error == std::errc{} && rest == end;",
             "return error == std::errc{};", "ReservedRegion.W15_OtherFormsAreRefused",
             "topology-properties"),
    Mutation("topology/properties.cc", "} else if (fields.start > fields.last) {", "} else if (false) {",
             "ReservedRegion.W15_AnEndBeforeTheStartIsRefused", "topology-properties"),
    Mutation("topology/properties.cc", "if (cap <= colons) {", "if (cap < colons) {",
             "RootBus.MOD_7_TooLittleRoomChangesNothing", "topology-properties"),
    # What is left out
    Mutation("topology/model.cc", "            add_holes(holes, bus, left_out[position]);\n", "",
             "LeaveOut.AFunctionByItsId", "topology-leave-out"),
    Mutation("topology/model.cc", "left_out[position].all ? VIOMMU_NO_IOMMU : checked",
             "false ? VIOMMU_NO_IOMMU : checked", "LeaveOut.ARootBusWithAllOfItsWindow",
             "topology-leave-out"),
    Mutation("topology/model.cc", "holes.emplace(bus.segment, ", "holes.emplace(0, ",
             "LeaveOut.SegmentsAreKeptApart", "topology-leave-out"),
    Mutation("topology/model.cc", "found->second.left_out[devfn];", "true;",
             "LeaveOut.WhoIsLeftOutIsAskedByRootBusAndFunction", "topology-leave-out"),
    Mutation("topology/leave_out.cc", "if (function.bridge && function.on_root_bus && ",
             "if (function.bridge && ", "LeaveOutRefusal.WhatTheGuestNumbers", "topology-leave-out"),
    Mutation("topology/leave_out.cc", " && root_bus(function.root_bus) == bus &&", " &&",
             "LeaveOutRefusal.WhatTheGuestNumbers", "topology-leave-out"),
    Mutation("topology/leave_out.cc", "function.devfn <= entry.last_devfn)", "true)",
             "LeaveOut.AFunctionOrSlotByAddressWhetherPluggedOrNot", "topology-leave-out"),
    Mutation("topology/leave_out.cc", "function.devfn >= entry.first_devfn &&", "",
             "LeaveOutRefusal.WhatTheGuestNumbers", "topology-leave-out"),
    Mutation("topology/leave_out.cc", "if (function.bridge) {", "if (false) {",
             "LeaveOutRefusal.WhatTheGuestNumbers", "topology-leave-out"),
    Mutation("topology/leave_out.cc", "if (!function.on_root_bus) {", "if (false) {",
             "LeaveOutRefusal.WhatTheGuestNumbers", "topology-leave-out"),
    Mutation("topology/leave_out.cc", "if (owner != iommu) {",
             "if (owner == VIOMMU_NO_IOMMU) {", "LeaveOutRefusal.WhatItDoesNotManage",
             "topology-leave-out"),
    Mutation("topology/leave_out.cc", "other.segment == root.segment &&", "",
             "LeaveOutRefusal.AnIommu", "topology-leave-out"),
    Mutation("topology/leave_out.cc", "if (found_[bus].functions[devfn]) {", "if (false) {",
             "LeaveOutRefusal.TheSameTwice", "topology-leave-out"),
    Mutation("topology/leave_out.cc", "(function.bridge && name == function.root_bus)", "true",
             "LeaveOutRefusal.ANameThatMeansTwoThings", "topology-leave-out"),
    Mutation("topology/leave_out.cc", "if (name == desc.root_buses[k]) {", "if (false) {",
             "LeaveOutRefusal.ARootBusThatItClaims", "topology-leave-out"),
    Mutation("topology/properties.cc", "|| slot > 0x1f) {", ") {",
             "LeaveOut.MOD_15_OtherFormsAreRefused", "topology-properties"),
    Mutation("topology/properties.cc", "|| function > 7) {", ") {",
             "LeaveOut.MOD_15_OtherFormsAreRefused", "topology-properties"),
    Mutation("topology/properties.cc", "if (cap < count) {", "if (cap <= count) {",
             "LeaveOut.MOD_15_TooLittleRoomChangesNothing", "topology-properties"),
    Mutation("topology/properties.cc", "return of_bus && function->on_root_bus && ",
             "return of_bus && ", "LeaveOutNames.AsTheModelWill", "topology-leave-out"),
    # What users see of a running device
    Mutation("engine/inspect.cc", "    return entry != domains_.end();", "    return count == out.size();",
             "Inspect.MOD_21_DomainsInPages"),
    Mutation("engine/inspect.cc", "auto mapping = mappings.find(iova);",
             "auto mapping = mappings.next(iova);", "Inspect.MOD_21_MappingsInPages"),
    Mutation("engine/inspect.cc", "look_up(iova, nullptr, answer)",
             "look_up(iova, const_cast<Endpoint *>(this)->caches_.mine(), answer)",
             "Inspect.MOD_22_ALookIsNoAccess"),
    Mutation("engine/inspect.cc", "view.bypasses = !engine.must_translate(*this);",
             "view.bypasses = here && here->bypass;", "Inspect.MOD_21_EndpointsHaveAMode"),
    Mutation("engine/faults.cc", "{&tally_, &source.tally_}", "{&source.tally_}",
             "Inspect.MOD_23_FaultsAreCountedByReasonAndTheLastIsKept"),
    Mutation("topology/words.h", "        for (const std::string_view key : needed) {\n"
             "            if (!find(key)) {", "        for (const std::string_view key : needed) {\n"
             "            if (false) {",
             "Query.MOD_21_WhatMakesNoSenseIsRefusedWithASentence", "topology-view"),
    Mutation("topology/words.h", "value < first || value > last) {", "value < first) {",
             "Query.MOD_21_WhatMakesNoSenseIsRefusedWithASentence", "topology-view"),
    # Faults that are made
    Mutation("engine/injection.cc", "if (!settings_.fault_injection) {", "if (false) {",
             "Injection.MOD_24_RefusedUnlessTheDeviceWasMadeForIt"),
    Mutation("engine/injection.cc", "        AttachmentChange change(shared_.attachments);\n", "",
             "Injection.MOD_26_TheNextAccessesOfAnEndpointFault"),
    Mutation("engine/endpoint.cc", " && injection.left() == 0) {", ") {",
             "Injection.MOD_26_WhatIsAnsweredWhileArmedIsNotRemembered"),
    Mutation("engine/endpoint.cc", "access != 0 ? injection.take() : std::nullopt",
             "injection.take()", "Injection.MOD_26_TheNextAccessesOfAnEndpointFault"),
    Mutation("engine/injection.cc", "drop_cached(*endpoint, 0, UINT64_MAX);", "",
             "Injection.MOD_26_WhoCachesIsToldToAskAgain"),
    Mutation("engine/injection.cc", "    std::fill_n(out, area + wire::kTailSize, uint8_t{0});\n", "",
             "Injection.MOD_25_AProbeThatFailsHasNoProperties"),
    # Assigned devices
    Mutation("engine/engine.cc", "if (smallest > granule) {", "if (false) {",
             "Hosts.W27_AfterThatALargerPageIsRefused"),
    Mutation("engine/engine.cc", "    for (const ViommuRegion &region : reserved) {\n"
             "        if (domain->mappings.overlaps",
             "    for (const ViommuRegion &region : Regions()) {\n"
             "        if (domain->mappings.overlaps",
             "Hosts.W27_OneThatCannotFollowIsRefusedAndNothingChanges"),
    Mutation("engine/engine.cc", "own.insert(own.end(), reserved.begin(), reserved.end());",
             "own = reserved;", "Hosts.W27_ThoseThatShareAnEndpointGetWhatAllCanUse"),
    Mutation("engine/engine.cc", "    domain.mappings.remove(mapping.iova, mapping.last);\n"
             "    std::for_each(domain.endpoints", "    std::for_each(domain.endpoints",
             "Full.W25_MapThatAListenerCannotFollowIsNomemAndUndone"),
    Mutation("engine/engine.cc", "drop_cached(*member, mapping.iova, mapping.last);", "(void)member;",
             "Full.W25_OthersHearNothingAfterTheFirstThatCannot"),
    Mutation("engine/engine.cc", "std::next(told_last)", "told_last",
             "Full.W25_OthersHearNothingAfterTheFirstThatCannot"),
    Mutation("engine/engine.cc", "    endpoint.behind = false;\n", "",
             "Full.W25_OneThatLacksSomethingSinceThenDoesNotHinder"),
    Mutation("engine/requests.cc", "if (endpoint.behind) {", "if (false) {",
             "Full.W25_ATT_10_AttachThatAListenerCannotFollowLeavesItOutside"),
    Mutation("engine/requests.cc", "domains_.insert(std::move(left));", "left = {};",
             "Full.W25_ATT_10_AttachThatFailsLeavesItInADomainOfItsOwn"),
    Mutation("engine/regions.cc", "if (range.last < at) {", "if (false) {",
             "Hosts.W27_RangesInAnyOrder"),
    Mutation("engine/engine.cc", "if (region.last != input_last || bits < kNarrowest) {",
             "if (bits < kNarrowest) {", "Hosts.W27_OneThatIsTooNarrowNamesTheWidth"),
    Mutation("engine/engine.cc", "bits < kNarrowest", "bits < 0",
             "Hosts.W27_OneThatIsTooNarrowNamesTheWidth"),
    Mutation("engine/settings.cc", "if (smallest > granule()) {", "if (smallest != 0) {",
             "Hosts.CFG_1_TheGranuleFollowsTheHostUntilTheGuestRuns"),
    # Requests
    Mutation("engine/requests.cc", "if (request.reserved != 0) {", "if (false) {",
             "Attach.ATT_1_ReservedNotZeroIsInval"),
    Mutation("engine/requests.cc", "if (target && target->bypass != bypass) {", "if (false) {",
             "Attach.ATT_5_FlagThatDisagreesIsInval"),
    Mutation("engine/requests.cc", "if (target->mappings.overlaps(region.start, region.last)) {",
             "if (false) {", "Attach.ATT_9_IncompatibleReservedRegionIsUnsupp"),
    Mutation("engine/requests.cc", "domains_.size() - (current_dies ? 1 : 0) >=",
             "domains_.size() >", "Attach.W11_DomainQuotaIsNomem"),
    Mutation("engine/requests.cc", " || !contains(endpoint.members, who->member)) {", ") {",
             "Members.W17_DetachOfOneKeepsTheOthersAttached"),
    Mutation("engine/requests.cc", "if (regions_overlap(settings_.regions, mapping.iova, "
             "mapping.last)) {", "if (false) {", "ReservedMapping.RSV_4_OverlapIsInval"),
    Mutation("engine/requests.cc", "if (with_own_regions_ > 0) {", "if (with_own_regions_ > 1) {",
             "ReservedMapping.RSV_4_OfAnyEndpointInTheDomain"),
    Mutation("engine/requests.cc", "if (mapping_count_ >= settings_.max_mappings ||",
             "if (mapping_count_ > settings_.max_mappings ||",
             "SmallQuota.W11_MappingQuotaIsNomem"),
    Mutation("engine/requests.cc", "memory_ -= before - domain->mappings.memory();",
             "memory_ -= 0;", "SmallMemory.W11_MemoryQuotaIsNomem"),
    Mutation("engine/requests.cc", "drop_cached(*endpoint, removed->first, removed->last);",
             "drop_cached(*endpoint, request.virt_start, removed->first);",
             "Blocked.W24_ManyAreAnnouncedTogether"),
    Mutation("engine/requests.cc", "if (area.size() < settings_.probe_size) {",
             "if (area.empty()) {", "Probe.PRB_7_SmallAreaIsInvalInItsLastBytes"),
    Mutation("engine/requests.cc", "std::fill_n(tail, wire::kTailSize, uint8_t{0});",
             "std::fill_n(tail, 1, uint8_t{0});", "Requests.OPS_4_TailReservedIsZero"),
    # Settings and regions
    Mutation("engine/settings.cc", "if (mapping.last < mapping.iova) {", "if (false) {",
             "Map.MAP_D1_W1_InvertedIsInval"),
    Mutation("engine/settings.cc", "(mapping.iova | mapping.phys | (mapping.last + 1))",
             "(mapping.iova | (mapping.last + 1))", "Map.MAP_1_W8_MisalignedIsRange"),
    Mutation("engine/settings.cc", "mapping.last - mapping.iova > UINT64_MAX - mapping.phys",
             "false", "Map.MAP_D3_PhysicalRangeMustNotWrap"),
    Mutation("engine/settings.cc", "mapping.last > input_last", "mapping.iova > input_last",
             "NarrowInput.OPS_D2_OutsideTheInputRangeIsRange"),
    Mutation("engine/regions.cc", "std::prev(after)->last >= first;",
             "std::prev(after)->last > first;", "ReservedMapping.RSV_4_OverlapInOneByte"),
    # The device
    Mutation("engine/engine.cc", "reset(settings_.boot_bypass);", "reset(bypass());",
             "Reset.CFG_5_SystemResetRestoresBypass"),
    Mutation("engine/engine.cc", "    tell_and_switch(endpoints_);\n    return true;",
             "    return true;", "Order.W23_BypassWriteIsOneSwitchForAll"),
    Mutation("engine/engine.cc", "shared_.faults.close(endpoint.fault_source);", "",
             "Faults.W18_RetiredEndpointsRecordsAreDiscarded"),
    Mutation("engine/engine.cc", "    tell_left(*endpoint, *left);",
             "    (void)left;",
             "Order.DET_4_DetachDropsCachesWhileTheListenersAreThere"),
    Mutation("engine/engine.h", "if (mapping.rights() != 0) {",
             "if (true) {",
             "Blocked.MAP_6_MappingWithoutRightsIsNotAnnounced"),
    Mutation("engine/engine.cc", "if (attachment.domain != domain.get()) {", "if (false) {",
             "Commit.W17_OneRequesterInTwoDomainsIsRefused"),
    Mutation("engine/engine.cc", "who.endpoint->stable_retired()) {", "false) {",
             "Members.W18_RetiredEndpointIsGone"),
    # What lingers
    Mutation("engine/engine.cc", "if (!settings_.linger || lingering_ ||",
             "if (!settings_.linger ||", "Linger.W31_EndsWithASecondReset"),
    Mutation("engine/requests.cc", "driver_returns(); // whoever asks is a driver", "",
             "Linger.W31_W5_EndsWithAnyRequest"),
    Mutation("engine/engine.cc", "        return save_lingering(writer);",
             "", "Linger.W31_ArrivesAttachedToNothingThatCanBeReached"),
    Mutation("engine/engine.cc", "lingering_ = !driven;", "lingering_ = false;",
             "Linger.W31_WhatArrivesWithoutADriverLingers"),
    # Faults
    Mutation("engine/faults.cc", "directions &= ~record.directions;", "",
             "Faults.W19_FLT_D3_OneRecordPerPageAndDirection"),
    Mutation("engine/faults.cc", "of_source >= kFaultsPerEndpoint || ", "",
             "Faults.W19_FLT_D3_OneEndpointCannotFillTheQueue"),
    # Migration
    Mutation("engine/stream.cc", "if (!first && mapping.iova <= previous_last) {",
             "if (!first && mapping.iova < previous_last) {", "Load.MAP_2_OverlapInOneByte"),
    Mutation("engine/stream.cc", "if (domain.bypass && !domain.mappings.empty()) {",
             "if (false) {", "LoadRefuses.W4_Malformed"),
    # The container
    Mutation("mapping/mapping_set.cc", "if (own(leaf->start[at]) <= mapping.last) {",
             "if (own(leaf->start[at]) < mapping.last) {",
             "ByteGranule.MAP_2_OverlapInOneByte"),
    Mutation("mapping/mapping_set.cc", "if (low && low->last >= first && low->iova < first) {",
             "if (low && low->last > first && low->iova < first) {",
             "ByteGranule.MAP_2_OverlapInOneByte"),
    Mutation("mapping/mapping_set.cc", "poke(set_.generation_, own(set_.generation_) + 1);", "",
             "MappingSet.W7_W20_WhatIsSeenDuringARemovalHoldsNotAfterIt", "engine-mappings"),
    # The order of memory, and what readers compare
    Mutation("base/sequence_counter.h", "return value_.load(std::memory_order_acquire); }",
             "return value_.load(std::memory_order_relaxed); }",
             "Counter.NoTornPairIsAccepted", "interleave"),
    Mutation("base/sequence_counter.h", "+ 1, std::memory_order_release);",
             "+ 1, std::memory_order_relaxed);", "Counter.NoTornPairIsAccepted", "interleave"),
    Mutation("base/sequence_counter.h", "return (seen & 1) == 0 ? seen : wait_until_even();",
             "return seen;", "Counter.NoTornPairIsAccepted", "interleave"),
    Mutation("mapping/nodes.h", "return field.load(std::memory_order_acquire);",
             "return field.load(std::memory_order_relaxed);",
             "Counter.NoTornPairIsAccepted", "interleave"),
    Mutation("mapping/nodes.h", "field.store(value, std::memory_order_release);",
             "field.store(value, std::memory_order_relaxed);",
             "Counter.NoTornPairIsAccepted", "interleave"),
    Mutation("mapping/nodes.h", "peek(generation_) == stamp.generation && "
             "stamp.leaf->version.peek() == stamp.version",
             "stamp.leaf->version.peek() == stamp.version && "
             "peek(generation_) == stamp.generation",
             "Translation.UNM_5_NotBeyondTheMapping", "interleave"),
    Mutation("mapping/nodes.h", " && stamp.leaf->version.peek() == stamp.version", "",
             "Container.W7_RemovalBetweenOthers", "interleave"),
    Mutation("mapping/mapping_set.cc", "        if (peek(root_) != node) {\n"
             "            continue;\n        }\n", "", "Container.W20_SplitOfTheRoot", "interleave"),
    Mutation("mapping/mapping_set.cc", "child->version.note();\n"
             "            if (!inner->version.unchanged(noted)) {",
             "child->version.note();\n            if (false) {",
             "Container.W20_SplitBelowTheRoot", "interleave"),
    Mutation("mapping/mapping_set.cc", "if (!leaf->version.unchanged(noted)) {", "if (false) {",
             "Container.W20_InsertionBetweenOthers", "interleave"),
    Mutation("mapping/mapping_set.cc", "changes[0].emplace(*path.steps[top - 1].inner);", "",
             "Container.W20_SplitBelowTheRoot", "interleave"),
    Mutation("mapping/mapping_set.cc", "changes[step + 1].emplace(*path.steps[step].inner);", "",
             "Container.W20_SplitOfAnInnerNode", "interleave"),
    Mutation("mapping/mapping_set.cc", "            Change parent(*above.inner);\n", "",
             "Container.W7_LeavesMerge", "interleave"),
    Mutation("mapping/mapping_set.cc", "            Change to(left);\n", "",
             "Container.W7_LeavesMerge", "interleave"),
    Mutation("mapping/mapping_set.cc", "            Change from(right);\n", "",
             "Container.W7_LeavesMerge", "interleave"),
    Mutation("mapping/mapping_set.cc", "            stamp.version = noted;",
             "            stamp.version = noted;\n"
             "            stamp.generation = peek(generation_);",
             "Container.W7_AnEmptyLeafGoes", "interleave"),
)


def mutated(mutation, text):
    return text.replace(mutation.text, mutation.instead)


def applies(tree):
    """Sentences about mutations that are none any more."""
    tests = set()
    for source in (path for folder in set(PROGRAMS.values())
                   for path in (tree / folder).glob("*_test.cc")):
        for suite, name in re.findall(r"^TEST(?:_[FP])?\(\s*(\w+),\s*(\w+)\)",
                                      source.read_text(encoding="utf-8"), re.MULTILINE):
            tests.add(f"{suite}.{name}")
    wrong = []
    for mutation in MUTATIONS:
        found = (tree / mutation.file).read_text(encoding="utf-8").count(mutation.text)
        if found != 1:
            wrong.append(f"{mutation.file} holds {found} times, not once: {mutation.text!r}")
        if mutation.test not in tests:
            wrong.append(f"there is no test {mutation.test}")
    return wrong


def copy_tree(to):
    for room in ROOMS:
        shutil.copytree(REPOSITORY / room, to / room)
    (to / "meson.build").write_text(
        "project('mutations', 'c', 'cpp', default_options: ['cpp_std=c++20', 'buildtype=plain'])\n"
        "cpp = meson.get_compiler('cpp')\n"
        "viommu_inc = include_directories('include')\n"
        "gtest = dependency('gtest', main: true)\n"
        "subdir('base')\nsubdir('topology')\nsubdir('acpi')\nsubdir('fdt')\n"
        "subdir('mapping')\nsubdir('engine')\nsubdir('tests/unit/engine')\n"
        "subdir('tests/unit/topology')\nsubdir('tests/interleave')\n",
        encoding="utf-8")


class Tree:
    def __init__(self, folder):
        self.source = folder / "tree"
        self.build = folder / "build"
        self.source.mkdir()
        copy_tree(self.source)
        self.call("meson", "setup", self.build, self.source)

    @staticmethod
    def call(*words):
        done = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
        if done.returncode:
            sys.exit(f"{words[0]} failed:\n{done.stdout[-4000:]}")

    def make(self, programs):
        self.call("ninja", "-C", self.build,
                  *(f"{PROGRAMS[program]}/{program}-test" for program in programs))

    def passes(self, mutation):
        """Whether the mutation's test, which has to be one of the program, passes."""
        program = self.build / PROGRAMS[mutation.program] / f"{mutation.program}-test"
        # Of a parameterized test all instances.
        suite, _, name = mutation.test.partition(".")
        names = f"{mutation.test}:*/{suite}.{name}/*"
        try:
            done = subprocess.run([program, f"--gtest_filter={names}"], stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, errors="replace",
                                  timeout=LIMIT, check=False)
        except subprocess.TimeoutExpired:
            return False
        if done.returncode == 0 and not re.search(r"\[  PASSED  \] [1-9]", done.stdout):
            sys.exit(f"{mutation.program} ran no {mutation.test}")
        return done.returncode == 0


def survivors(tree, chosen):
    tree.make(sorted({mutation.program for mutation in chosen}))
    for mutation in chosen:
        if not tree.passes(mutation):
            sys.exit(f"{mutation.test} fails without any mutation")
    alive = []
    for mutation in chosen:
        file = tree.source / mutation.file
        whole = file.read_text(encoding="utf-8")
        file.write_text(mutated(mutation, whole), encoding="utf-8")
        tree.make([mutation.program])
        caught = not tree.passes(mutation)
        file.write_text(whole, encoding="utf-8")
        print("caught  " if caught else "SURVIVED", f"{mutation.file}: {mutation.text!r} -> "
              f"{mutation.instead!r} by {mutation.test}", flush=True)
        if not caught:
            alive.append(mutation)
    return alive


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="build nothing")
    parser.add_argument("--only", metavar="TEXT", default="",
                        help="mutations whose file or test has this text in it")
    options = parser.parse_args()
    wrong = applies(REPOSITORY)
    if wrong:
        sys.exit("\n".join(wrong))
    if options.check:
        print(f"{len(MUTATIONS)} mutations apply")
        return
    chosen = [m for m in MUTATIONS if options.only in m.file or options.only in m.test]
    with tempfile.TemporaryDirectory(prefix="viommu-mutations-") as name:
        alive = survivors(Tree(Path(name)), chosen)
    print(f"{len(chosen) - len(alive)} of {len(chosen)} mutations caught")
    sys.exit(1 if alive else 0)


if __name__ == "__main__":
    os.environ.setdefault("NINJA_STATUS", "")
    main()
