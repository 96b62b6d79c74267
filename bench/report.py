# SPDX-License-Identifier: GPL-2.0-or-later
"""Turns the figures of bench/run into a report of ratios and a plot."""

import math
import statistics

OURS, INTREE = "ours", "intree"
MILLION = 1_000_000

HEAD = """Ratios between figures of one run, so that machines can be compared: the median of
{rounds} round{s}, in brackets the lowest and the highest. A ratio to the in-tree device is that of two
processes which ran one after the other.

- {qemu}; {cpus} CPUs{realtime}; load average of the machine {load}
- share of the time in which the bench's thread had a CPU: {share}
- share of the spans of several threads in which none was preempted: {clean}
"""


class Figures:
    """The figures of all rounds, by scenario and device."""

    def __init__(self, results):
        self.table = {}
        for run in results["runs"]:
            for metric, value in run["metrics"].items():
                key = (run["mappings"], run["layout"], metric, run["device"])
                self.table.setdefault(key, []).append(value)
        self.sizes = sorted({run["mappings"] for run in results["runs"]})

    def get(self, size, metric, device):
        """One value a round, from the scenario that has this metric."""
        layout = "scattered" if metric.endswith("scattered") else "dense"
        return self.table.get((size, layout, metric, device), [])

    def quotient(self, above, below):
        """Round by round; each argument is (size, metric, device)."""
        return [a / b for a, b in zip(self.get(*above), self.get(*below)) if b > 0]

    def to_floor(self, size, metric, device, floor):
        """In units of what both devices cost alike."""
        base = self.get(size, floor, OURS) + self.get(size, floor, INTREE)
        return [value / statistics.median(base) for value in self.get(size, metric, device)]

    def metrics(self):
        return list(dict.fromkeys(key[2] for key in self.table))


def number(value):
    """Three digits that matter."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 5)}f}"


def spread(values, unit=""):
    if not values:
        return "-"
    median = number(statistics.median(values)) + unit
    if len(values) == 1:
        return median
    return f"{median} ({number(min(values))}-{number(max(values))})"


def size_name(size):
    for unit, name in ((MILLION, " M"), (1000, " k")):
        if size >= unit:
            return f"{size // unit}{name}"
    return str(size)


class Row:
    """One line of the table of targets; `limit` is met from below unless `more`."""

    def __init__(self, what, at, ours, intree, limit, stretch, more=False, unit=""):
        self.what, self.at, self.unit = what, at, unit
        self.ours, self.intree = ours, intree
        self.limit, self.stretch, self.more = limit, stretch, more

    def target(self):
        sign = ">=" if self.more else "<="
        stretch = f" [{number(self.stretch)}]" if self.stretch else ""
        return f"{sign} {number(self.limit)}{self.unit}{stretch}"

    def verdict(self):
        median = statistics.median(self.ours)
        reached = (lambda limit: median >= limit) if self.more else (lambda limit: median <= limit)
        if not reached(self.limit):
            return "no"
        return "stretch" if self.stretch and reached(self.stretch) else "yes"

    def markdown(self):
        return (f"| {self.what} | {size_name(self.at)} | {spread(self.ours, self.unit)} | "
                f"{spread(self.intree, self.unit)} | {self.target()} | {self.verdict()} |")


def target_rows(figures):
    rows = []

    def to_intree(what, metric, limit, stretch, sizes=(MILLION,)):
        for size in sizes:
            rows.append(Row(what + ": to in-tree", size,
                            figures.quotient((size, metric, OURS), (size, metric, INTREE)),
                            [1.0], limit, stretch))

    def to_floor(what, metric, floor, limit, stretch, sizes=(MILLION,)):
        for size in sizes:
            values = [figures.quotient((size, metric, device), (size, floor, device))
                      for device in (OURS, INTREE)]
            rows.append(Row(what + ": to the bypass floor", size, *values, limit, stretch))

    def parallel(what, metric, limit, stretch, sizes):
        for size in sizes:
            values = [figures.quotient((size, metric + ".1thread", device),
                                       (size, metric + ".2threads", device))
                      for device in (OURS, INTREE)]
            rows.append(Row(what, size, *values, limit, stretch, more=True))

    def memory(what, metric, limit, stretch):
        rows.append(Row(what, MILLION, figures.get(MILLION, metric, OURS),
                        figures.get(MILLION, metric, INTREE), limit, stretch, unit=" B"))

    all_sizes = (1000, 100_000, MILLION)
    to_intree("8-byte DMA, random pages", "dma.random", 1 / 5, 1 / 10)
    to_intree("8-byte DMA, random pages", "dma.random", 1 / 2, 1 / 3, (1000,))
    to_intree("8-byte DMA, same page", "dma.same", 1 / 2, None, (1000, MILLION))
    to_floor("8-byte DMA, same page", "dma.same", "floor.dma.same", 2, 1.6, (1000, MILLION))
    parallel("8-byte DMA, random pages: throughput of 2 threads to 1", "dma.random", 1.8, 1.95,
             all_sizes)
    parallel("8-byte DMA, same page: throughput of 2 threads to 1", "dma.same", 1.8, 1.95,
             (MILLION,))
    to_floor("64 KiB DMA in one mapping", "dma.64k", "floor.dma.64k", 1.1, 1.03)
    to_floor("1 MiB DMA in one mapping", "dma.1m", "floor.dma.1m", 1.1, 1.03)
    for kind in ("map", "unmap"):
        to_intree(f"{kind.upper()} sequential, 128 a kick", f"{kind}.sequential", 0.85, 0.6)
    for kind in ("map", "unmap"):
        to_intree(f"{kind.upper()} random, 128 a kick", f"{kind}.random", 0.45, 0.3)
    to_intree("MAP while another thread does DMA", "map.beside-dma", 1 / 8, 1 / 12)
    to_intree("one UNMAP of everything, per mapping", "unmap.all", 1 / 3, 1 / 6)
    to_intree("ATTACH of a second endpoint", "attach.second", 1 / 300, 1 / 1000)
    to_intree("DETACH of a second endpoint", "detach.second", 1 / 300, 1 / 1000)
    to_intree("teardown by DETACH of the last endpoint", "teardown", 1 / 50, 1 / 300)
    memory("resident memory per mapping, dense", "memory.dense", 40, 24)
    memory("resident memory per mapping, scattered pages", "memory.scattered", 64, None)
    memory("resident memory kept after UNMAP, per mapping", "memory.kept", 4, None)
    small, large = figures.sizes[0], figures.sizes[-1]
    for what, metric in (("8-byte DMA, random pages", "dma.random"), ("MAP random", "map.random")):
        if small == large:
            break
        values = [figures.quotient((large, metric, device), (small, metric, device))
                  for device in (OURS, INTREE)]
        rows.append(Row(f"{what}: cost to that at {size_name(small)}; a logarithm grows so much",
                        large, *values, math.log(large) / math.log(small), None))
    return [row for row in rows if row.ours and row.intree]


def all_ratios(figures):
    """Every figure that both devices have, as a ratio, by number of mappings."""
    lines = ["| figure | " + " | ".join(size_name(size) for size in figures.sizes) + " |",
             "| --- |" + " --- |" * len(figures.sizes)]
    for metric in figures.metrics():
        if metric.startswith(("noise.", "memory.")):
            continue
        cells = [spread(figures.quotient((size, metric, OURS), (size, metric, INTREE)))
                 for size in figures.sizes]
        lines.append(f"| {metric} | " + " | ".join(cells) + " |")
    return lines


def containers(results):
    names = ("ours", "btree_map", "std_map")
    lines = ["| operation | layout | order | mappings | " + " | ".join(names) + " |",
             "| --- | --- | --- | --- |" + " --- |" * len(names)]
    for key, times in results["containers"].items():
        kind, layout, order, size = key.split("/")
        base = statistics.median(times["gtree"])
        cells = [spread([value / base for value in times[name]]) for name in names]
        lines.append(f"| {kind} | {layout} | {order} | {size_name(int(size))} | "
                     + " | ".join(cells) + " |")
    lines += ["", "A random look-up among dense mappings, to the same container's with the fewest. The "
              "table is an array that is indexed by page: what memory alone costs.", "",
              "| mappings | ours | gtree | btree_map | std_map | table |",
              "| --- | --- | --- | --- | --- | --- |"]
    finds = {int(key.split("/")[3]): times for key, times in results["containers"].items()
             if key.startswith("find/dense/random/")}
    for size, times in sorted(finds.items()):
        cells = [number(statistics.median(times[name]) / statistics.median(finds[min(finds)][name]))
                 for name in ("ours", "gtree", "btree_map", "std_map", "table")]
        lines.append(f"| {size_name(size)} | " + " | ".join(cells) + " |")
    lines += ["", "Resident bytes per mapping, inserted in random order:", "",
              "| layout | mappings | gtree | " + " | ".join(names) + " |",
              "| --- | --- | --- |" + " --- |" * len(names)]
    for key, values in results["bytes"].items():
        layout, size = key.split("/")
        cells = [number(values[name]) for name in ("gtree", *names)]
        lines.append(f"| {layout} | {size_name(int(size))} | " + " | ".join(cells) + " |")
    return lines


def bare(results):
    """Time of a read by the bare guest to that without an IOMMU, and of one device to the other."""
    times = {}
    for run in results["bare"]:
        times.setdefault((run["thread"], run["pattern"], run["mapped"]), {}) \
             .setdefault(run["device"], []).append(run["ticks"])
    reads = {"random": "4 KiB random", "sequential": "64 KiB sequential"}
    mappings = {"once": "stay", "each": "one a read"}
    lines = ["| disk served by | reads | mappings | this device to none | in-tree to none | "
             "this to in-tree |",
             "| --- | --- | --- | --- | --- | --- |"]
    for (thread, pattern, mapped), found in times.items():
        if mapped not in mappings:
            continue
        found["none"] = times[thread, pattern, "never"]["none"]
        cells = [spread([a / b for a, b in zip(found[above], found[below])])
                 for above, below in ((OURS, "none"), (INTREE, "none"), (OURS, INTREE))]
        lines.append(f"| {thread} | {reads[pattern]} | {mappings[mapped]} | "
                     + " | ".join(cells) + " |")
    return lines


def guests(results):
    """Time of a read in a Linux guest to that without an IOMMU, and of one device to the other."""
    times = {}
    for run in results["guests"]:
        times.setdefault((run["disk"], run["pattern"], run["mode"]), {}) \
             .setdefault(run["device"], []).append(run["ns"])
    lines = ["| disk | reads | mode | this device to none | in-tree to none | this to in-tree |",
             "| --- | --- | --- | --- | --- | --- |"]
    for key, found in times.items():
        cells = [spread([a / b for a, b in zip(found[above], found[below])])
                 for above, below in ((OURS, "none"), (INTREE, "none"), (OURS, INTREE))]
        lines.append("| " + " | ".join((*key, *cells)) + " |")
    return lines


def requests(results):
    found = {}
    for entry in results["requests"]:
        found.setdefault((entry["disk"], entry["kib"]), {})[entry["sparse"]] = entry["requests"]
    return ["| disk | a read of | all sizes | sparse sizes |", "| --- | --- | --- | --- |",
            *(f"| {disk} | {kib} KiB | {number(of['off'])} | {number(of['on'])} |"
              for (disk, kib), of in found.items())]


def noise(results, metric):
    values = [run["metrics"][metric] for run in results["runs"]]
    return f"{statistics.median(values):.0%} (lowest {min(values):.0%})"


def markdown(results):
    figures = Figures(results)
    machine = results["machine"]
    loads = [run["load"] for run in results["runs"]]
    lines = [HEAD.format(
        rounds=results["rounds"], s="" if results["rounds"] == 1 else "s",
        qemu=machine["qemu"], cpus=machine["cpus"],
        realtime=", real-time priority" if machine["realtime"] else "",
        load=f"{min(loads):.1f} to {max(loads):.1f}",
        share=noise(results, "noise.cpu-share"),
        clean=noise(results, "noise.clean-spans")),
        "## Targets", "",
        "| what | mappings | this device | in-tree | target [stretch] | met |",
        "| --- | --- | --- | --- | --- | --- |"]
    lines += [row.markdown() for row in target_rows(figures)]
    lines += ["", "## All figures, this device to in-tree", ""] + all_ratios(figures)
    if "bare" in results:
        lines += ["", "## The bare guest's disk, time of a read", ""] + bare(results)
    if "guests" in results:
        lines += ["", "## A Linux guest's disks, time of a read", ""] + guests(results)
        lines += ["", "## Requests to the IOMMU for a read, strict mode", ""] + requests(results)
    if "containers" in results:
        lines += ["", "## Containers alone, CPU time to that of GTree", ""] + containers(results)
    return "\n".join(lines) + "\n"


# -- plot --

PANELS = (
    ("8-byte DMA, random pages", "dma.random", "floor.dma.random", "times the bypass floor"),
    ("8-byte DMA, 2 threads", "dma.random.2threads", "floor.dma.random.2threads",
     "times the bypass floor"),
    ("MAP, random, 128 a kick", "map.random", "unknown.batch128.direct",
     "times a request of unknown type"),
    ("ATTACH of a second endpoint", "attach.second", "kick.empty", "times an empty kick"),
)
COLOURS = {OURS: "#1b6ca8", INTREE: "#c0392b"}
LABELS = {OURS: "this device", INTREE: "in-tree"}
WIDTH, HEIGHT, MARGIN = 400, 270, 56


class Panel:
    """One pair of axes, both logarithmic."""

    def __init__(self, left, top, series):
        xs = [x for points in series.values() for x, _ in points]
        ys = [y for points in series.values() for _, values in points for y in values]
        self.left, self.top = left + MARGIN, top + 34
        self.width, self.height = WIDTH - MARGIN - 16, HEIGHT - 34 - 44
        self.x_range = (math.log10(min(xs)) - 0.1, math.log10(max(xs)) + 0.1)
        self.y_range = (math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)) + 1e-9))

    def x(self, value):
        low, high = self.x_range
        return self.left + self.width * (math.log10(value) - low) / (high - low)

    def y(self, value):
        low, high = self.y_range
        return self.top + self.height * (1 - (math.log10(value) - low) / (high - low))


def draw_text(x, y, text, size=11, anchor="middle"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">'
            f'{text}</text>')


def draw_panel(left, top, title, unit, series):
    panel = Panel(left, top, series)
    right, bottom = panel.left + panel.width, panel.top + panel.height
    out = [draw_text((panel.left + right) / 2, top + 20, f"{title}, {unit}", 12),
           f'<rect x="{panel.left}" y="{panel.top}" width="{panel.width}" '
           f'height="{panel.height}" fill="none" stroke="#888"/>']
    for power in range(panel.y_range[0], panel.y_range[1] + 1):
        y = panel.y(10 ** power)
        out.append(f'<line x1="{panel.left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" '
                   'stroke="#ddd"/>')
        out.append(draw_text(panel.left - 6, y + 4, f"{10.0 ** power:g}", anchor="end"))
    for size in sorted({x for points in series.values() for x, _ in points}):
        out.append(draw_text(panel.x(size), bottom + 16, size_name(size)))
    out.append(draw_text((panel.left + right) / 2, bottom + 34, "live mappings"))
    for device, points in series.items():
        colour = COLOURS[device]
        line = " ".join(f"{panel.x(x):.1f},{panel.y(statistics.median(ys)):.1f}"
                        for x, ys in points)
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, values in points:
            at = panel.x(x)
            out.append(f'<line x1="{at:.1f}" y1="{panel.y(min(values)):.1f}" x2="{at:.1f}" '
                       f'y2="{panel.y(max(values)):.1f}" stroke="{colour}"/>')
            out.append(f'<circle cx="{at:.1f}" cy="{panel.y(statistics.median(values)):.1f}" '
                       f'r="3" fill="{colour}"/>')
    return out


def plot(results):
    """Medians, and lines from the lowest to the highest round."""
    figures = Figures(results)
    out = []
    for index, (title, metric, floor, unit) in enumerate(PANELS):
        series = {}
        for device in (OURS, INTREE):
            points = [(size, figures.to_floor(size, metric, device, floor))
                      for size in figures.sizes]
            series[device] = [(size, values) for size, values in points if values]
        out += draw_panel(index % 2 * WIDTH, index // 2 * HEIGHT, title, unit, series)
    width, height = 2 * WIDTH, 2 * HEIGHT + 24
    for index, device in enumerate((OURS, INTREE)):
        x = width / 2 - 110 + index * 130
        out.append(f'<line x1="{x}" y1="{height - 12}" x2="{x + 24}" y2="{height - 12}" '
                   f'stroke="{COLOURS[device]}" stroke-width="2"/>')
        out.append(draw_text(x + 30, height - 8, LABELS[device], anchor="start"))
    return "\n".join(
        ["<!-- SPDX-License-Identifier: GPL-2.0-or-later -->",
         f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
         'font-family="sans-serif">',
         '<rect width="100%" height="100%" fill="white"/>', *out, "</svg>", ""])
