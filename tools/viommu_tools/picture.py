# SPDX-License-Identifier: GPL-2.0-or-later
"""The topology of a machine as a picture: SVG that is laid out here, and text for graphviz.

Each IOMMU is a band. In it root buses, bridges and endpoints are boxes in columns, each as high
as all that is behind it, so that none can overlap; domains are the last column.
"""
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from .machine import name_of, pci_address

CHAR, LINE, PAD, GAP = 7.3, 16, 6, 4  # a character's width, a line's height, around text, between boxes
MARGIN, LINKS, BETWEEN, BAND_GAP = 16, 110, 18, 18
LONGEST = 44  # characters of one line
TOP = 64
COLOURS = {  # fill, stroke
    "iommu": ("#dde5f2", "#3f5c8c"),
    "none": ("#f3f3f3", "#8a8a8a"),
    "bus": ("#eef1f6", "#6f7f99"),
    "bridge": ("#f7f8fa", "#9aa5b5"),
    "translating": ("#d9f0dc", "#2f7d3b"),
    "bypass": ("#fdeccb", "#b7791f"),
    "unattached, bypasses": ("#fbdcd6", "#b4452f"),
    "unattached, blocked": ("#ececec", "#777777"),
}
LEGEND = ("translating", "bypass", "unattached, bypasses", "unattached, blocked")


@dataclass
class Node:
    kind: str  # a key of COLOURS
    lines: list
    children: list = field(default_factory=list)
    domain: tuple = None  # (IOMMU, number) of an endpoint
    key: str = ""
    x: float = 0
    y: float = 0
    width: float = 0
    height: float = 0

    def walk(self):
        yield self
        for child in self.children:
            yield from child.walk()


def _mode(endpoint):
    if endpoint["mode"] != "unattached":
        return endpoint["mode"]
    return "unattached, bypasses" if endpoint["bypasses"] else "unattached, blocked"


def _short(text):
    return text if len(text) <= LONGEST else f"{text[:LONGEST // 2]}…{text[-LONGEST // 2 + 1:]}"


def _endpoint(iommu, one):
    name = one["name"] if one["name"] == one["type"] else f"{one['name']} ({one['type']})"
    lines = [f"{one['address']} {name}"]
    others = [member for member in one["members"] if member["device"] != one["device"]]
    lines += [f"  shared by {pci_address(member['id'])} {name_of(member['device'], 'a device')}"
              for member in others]
    if one["faults"]:
        lines.append(f"  {_counted(one['faults'], 'fault')}")
    domain = (iommu, one["domain"]) if "domain" in one else None
    return Node(_mode(one), [_short(line) for line in lines], domain=domain,
                key=f"endpoint {one['id']:#x}")


def _below_root_bus(iommu, everything):
    """{root bus: nodes behind it} of one IOMMU."""
    buses, bridges = {}, {}
    behind = {path for one in everything["endpoints"] for path in one["bridges"]}
    own = {one["device"]: one for one in everything["endpoints"]
           if one["device"] in behind and one["device"] not in one["bridges"]}

    def parent_of(one, path):
        children = buses.setdefault(one["root-bus"], [])
        for bridge in path:
            if bridge not in bridges:
                label = name_of(bridge, "bridge")
                if bridge in own:
                    label += f" {own[bridge]['address']}"
                node = Node("bridge", [_short(label)], key=f"bridge {bridge}")
                bridges[bridge] = node
                children.append(node)
                if bridge in own and own[bridge]["mode"] != "unattached":
                    node.children.append(_endpoint(iommu, own[bridge]))
            children = bridges[bridge].children
        return children

    for one in everything["endpoints"]:
        if own.get(one["device"]) is one:
            parent_of(one, [*one["bridges"], one["device"]])
        else:
            parent_of(one, one["bridges"]).append(_endpoint(iommu, one))
    return buses


def _bus(bus, children):
    lines = [bus["name"], f"buses {bus['first-bus']:02x}-{bus['last-bus']:02x}"]
    if bus["segment"]:
        lines.insert(1, f"segment {bus['segment']:#x}")
    if bus["bypass"]:
        lines.append("bypasses IOMMUs")
    return Node("bus", [_short(line) for line in lines], children, key=f"bus {bus['name']}")


@dataclass
class Tree:
    bands: list  # Node: IOMMUs, and what none manages
    domains: dict  # {(IOMMU, number): Node}


def tree_of(everything, model):
    bands, domains = [], {}
    for iommu in everything:
        one = iommu["instance"]
        index = one["index"]
        below = _below_root_bus(index, iommu)
        children = [_bus(bus, below.get(bus["name"], [])) for bus in model["root-buses"]
                    if bus.get("iommu") == index]
        if "main-system-bus" in below:
            children.append(Node("bus", ["main-system-bus", "virtio-mmio"],
                                 below["main-system-bus"], key="bus main-system-bus"))
        at = (f"pci {pci_address(one['id'])}" if "id" in one else f"mmio {one['base']:#x}")
        lines = [one["name"], at, _counted(one["mappings"], "mapping"), f"bypass {'on' if one['bypass'] else 'off'}"]
        if not one["driver"]:
            lines.append("no driver")
        bands.append(Node("iommu", [_short(line) for line in lines], children, key=f"iommu {index}"))
        for domain in iommu["domains"]:
            text = (f"domain {domain['domain']}: bypass" if domain["type"] == "bypass" else
                    f"domain {domain['domain']}: {_counted(domain['mappings'], 'mapping')}")
            domains[index, domain["domain"]] = Node(
                "bypass" if domain["type"] == "bypass" else "translating", [text],
                key=f"domain {index} {domain['domain']}")
    free = [_bus(bus, []) for bus in model["root-buses"] if "iommu" not in bus]
    if free:
        bands.append(Node("none", ["no IOMMU"], free, key="none"))
    return Tree(bands, domains)


# --- SVG ------------------------------------------------------------------------------------------


def _own_height(node):
    return len(node.lines) * LINE + 2 * PAD


def _measure(node):
    inner = sum(_measure(child) for child in node.children) + GAP * max(len(node.children) - 1, 0)
    node.height = max(_own_height(node), inner)
    return node.height


def _place_y(node, y):
    node.y = y
    for child in node.children:
        _place_y(child, y)
        y += child.height + GAP


def _columns(bands):
    """[nodes] of each column; endpoints are all in the last."""
    columns, leaves = [], []

    def visit(node, depth):
        if node.kind in LEGEND:
            leaves.append(node)
            return
        while len(columns) <= depth:
            columns.append([])
        columns[depth].append(node)
        for child in node.children:
            visit(child, depth + 1)

    for band in bands:
        visit(band, 0)
    return [*columns, leaves]


def _text_width(node):
    return max(len(line) for line in node.lines) * CHAR + 2 * PAD


def _place_domains(tree, band, x):
    """The domains of one IOMMU, near their members; returns where the last one ends."""
    members = {}
    for node in band.walk():
        if node.domain:
            members.setdefault(node.domain, []).append(node.y + node.height / 2)
    index = int(band.key.split()[1]) if band.kind == "iommu" else None
    mine = [key for key in tree.domains if key[0] == index]
    mine.sort(key=lambda key: (sum(members.get(key, [band.y])) / len(members.get(key, [band.y])), key))
    y = band.y
    for key in mine:
        node = tree.domains[key]
        node.x, node.height = x, _own_height(node)
        middle = sum(members.get(key, [band.y])) / len(members.get(key, [band.y]))
        node.y = max(y, middle - node.height / 2)
        y = node.y + node.height + GAP
    # Those that would leave the band push the others up.
    limit = max(band.y + band.height, band.y + sum(tree.domains[key].height + GAP for key in mine) - GAP)
    for key in reversed(mine):
        node = tree.domains[key]
        node.y = min(node.y, limit - node.height)
        limit = node.y - GAP
    return max((tree.domains[key].y + tree.domains[key].height for key in mine), default=band.y)


def layout(tree):
    """Gives each node its place; returns width and height of the picture."""
    y = TOP
    columns = _columns(tree.bands)
    x = MARGIN
    for column in columns:
        width = max(map(_text_width, column), default=0)
        for node in column:
            node.x, node.width = x, width
        x += width + (BETWEEN if column else 0)
    domain_x = x - BETWEEN + LINKS
    domain_width = max(map(_text_width, tree.domains.values()), default=0)
    for node in tree.domains.values():
        node.width = domain_width
    for band in tree.bands:
        _measure(band)
        _place_y(band, y)
        end = _place_domains(tree, band, domain_x)
        band.height = max(band.height, end - band.y)
        y += band.height + BAND_GAP
    legend = MARGIN + sum(len(name) * CHAR + 40 for name in LEGEND)
    width = (domain_x + domain_width if tree.domains else x - BETWEEN) + MARGIN
    return max(width, legend), y - BAND_GAP + MARGIN


def _box(node):
    fill, stroke = COLOURS[node.kind]
    parts = [f'<g class="box"><title>{escape(node.key)}</title>'
             f'<rect x="{node.x:.1f}" y="{node.y:.1f}" width="{node.width:.1f}" '
             f'height="{node.height:.1f}" rx="3" fill="{fill}" stroke="{stroke}"/>']
    for i, line in enumerate(node.lines):
        weight = ' font-weight="bold"' if i == 0 and node.kind in ("iommu", "bus") else ""
        parts.append(f'<text x="{node.x + PAD:.1f}" y="{node.y + PAD + LINE * (i + 0.75):.1f}"'
                     f'{weight} xml:space="preserve">{escape(line)}</text>')
    return "".join(parts) + "</g>"


def _connector(parent, child):
    y = child.y + min(_own_height(child), child.height) / 2
    return (f'<path class="wire" d="M{parent.x + parent.width:.1f} {y:.1f}H{child.x:.1f}" '
            'stroke="#9aa5b5" fill="none"/>')


def _link(node, domain):
    x0, y0 = node.x + node.width, node.y + node.height / 2
    x1, y1 = domain.x, domain.y + domain.height / 2
    middle = (x0 + x1) / 2
    return (f'<path class="link" d="M{x0:.1f} {y0:.1f}C{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} '
            f'{x1:.1f} {y1:.1f}" stroke="{COLOURS[domain.kind][1]}" fill="none"/>')


def _legend():
    parts, x = [], MARGIN
    for name in LEGEND:
        fill, stroke = COLOURS[name]
        parts.append(f'<rect x="{x}" y="36" width="14" height="14" rx="3" fill="{fill}" '
                     f'stroke="{stroke}"/><text x="{x + 20}" y="48">{name}</text>')
        x += int(len(name) * CHAR + 40)
    return "".join(parts)


def _counted(number, what):
    return f"{number} {what}{'' if number == 1 else 's'}"


def svg(tree):
    width, height = layout(tree)
    wires, boxes = [], []
    for band in tree.bands:
        for node in band.walk():
            boxes.append(_box(node))
            wires += [_connector(node, child) for child in node.children]
            if node.domain in tree.domains:
                wires.append(_link(node, tree.domains[node.domain]))
    boxes += [_box(node) for node in tree.domains.values()]
    title = ", ".join(_counted(number, what) for number, what in (
        (sum(band.kind == "iommu" for band in tree.bands), "virtio-iommu"),
        (len(tree.domains), "domain")))
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="DejaVu Sans Mono, monospace" '
        'font-size="12" fill="#1b1b1b">',
        f'<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="{MARGIN}" y="24" font-size="14" font-weight="bold">{escape(title)}</text>',
        _legend(), *wires, *boxes, "</svg>", ""])


# --- graphviz -------------------------------------------------------------------------------------


def _quoted(text):
    return text.replace("\\", "\\\\").replace('"', '\\"')


def dot(tree):
    lines = ["digraph viommu {", "  rankdir=LR;",
             '  node [shape=box, style="rounded,filled", fontname="DejaVu Sans Mono", fontsize=10];']

    def node_line(node):
        fill, stroke = COLOURS[node.kind]
        label = "\\l".join(_quoted(line) for line in node.lines) + "\\l"
        return (f'"{_quoted(node.key)}" [label="{label}", fillcolor="{fill}", color="{stroke}"];')

    for number, band in enumerate(tree.bands):
        lines.append(f"  subgraph cluster_{number} {{")
        lines += [f"    {node_line(node)}" for node in _unique(band)]
        for node in band.walk():
            lines += [f'    "{_quoted(node.key)}" -> "{_quoted(child.key)}" [arrowhead=none];'
                      for child in node.children]
        lines.append("  }")
    lines += [f"  {node_line(node)}" for node in tree.domains.values()]
    for band in tree.bands:
        lines += [f'  "{_quoted(node.key)}" -> "{_quoted(tree.domains[node.domain].key)}";'
                  for node in band.walk() if node.domain in tree.domains]
    return "\n".join([*lines, "}", ""])


def _unique(band):
    return list({node.key: node for node in band.walk()}.values())
