# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables of what there is, as text, or by python3-rich on a terminal."""
import sys

from .machine import pci_address

try:
    import rich.box
    import rich.console
    import rich.table
    import rich.text
    HAVE_RICH = True
except ImportError:
    HAVE_RICH = False

UNITS = (" B", " KiB", " MiB", " GiB", " TiB")


def size(number):
    """Bytes, with three digits or so."""
    unit = 0
    while number >= 1024 and unit + 1 < len(UNITS):
        number, unit = number / 1024, unit + 1
    return f"{number:.0f}{UNITS[unit]}" if number >= 100 or unit == 0 else f"{number:.1f}{UNITS[unit]}"


def share(used, most):
    percent = 100 * used / most if most else 0
    return f"{percent:.0f} %" if percent == 0 or percent >= 1 else "<1 %"


def flag(value):
    return "yes" if value else "no"


class Table:
    """Rows of texts under headings; numbers are set to the right."""

    def __init__(self, title, *headings):
        self.title, self.headings, self.rows = title, headings, []

    def add(self, *row):
        self.rows.append([str(cell) for cell in row])

    def text(self):
        widths = [max(len(row[i]) for row in [self.headings, *self.rows])
                  for i in range(len(self.headings))]
        right = [self._is_number(i) for i in range(len(self.headings))]
        lines = [self.title] if self.title else []
        for row in [self.headings, *self.rows]:
            cells = (cell.rjust(width) if to_right else cell.ljust(width)
                     for cell, width, to_right in zip(row, widths, right))
            lines.append("  " + "  ".join(cells).rstrip())
        return "\n".join(lines) + "\n"

    def _is_number(self, column):
        cells = [row[column] for row in self.rows if row[column] not in ("", "-")]
        return bool(cells) and all(cell[0].isdigit() and ":" not in cell and cell[:2] != "0x"
                                   for cell in cells)

    def rich(self):
        table = rich.table.Table(title=self.title or None, title_justify="left",
                                 box=rich.box.SIMPLE_HEAD)
        for i, heading in enumerate(self.headings):
            table.add_column(heading, justify="right" if self._is_number(i) else "left",
                             no_wrap=True)
        for row in self.rows:
            table.add_row(*map(rich.text.Text, row)) # no markup
        return table


class Printer:
    """Where tables go; `plain` leaves rich out even where it is."""

    def __init__(self, plain=False):
        self.pretty = HAVE_RICH and not plain and sys.stdout.isatty()

    def clear(self):
        if sys.stdout.isatty():
            sys.stdout.write("\x1b[H\x1b[2J")

    def show(self, tables):
        console = rich.console.Console() if self.pretty else None
        for table in tables:
            if console:
                console.print(table.rich())
            else:
                print(table.text())
        sys.stdout.flush()


def instances(machine):
    table = Table("IOMMUs", "name", "on", "driver", "bypass", "mappings", "domains", "memory", "of",
                  "manages")
    for iommu in machine:
        one = iommu["instance"]
        state = ("broken" if one["broken"] else "lingering" if one["lingering"]
                 else flag(one["driver"]))
        manages = one["root-buses"] + ([f"{len(one['transports'])} on virtio-mmio"]
                                       if one["transports"] else [])
        table.add(one["name"], where(one), state, flag(one["bypass"]),
                  f"{one['mappings']} ({share(one['mappings'], one['max-mappings'])})",
                  f"{one['domains']} ({share(one['domains'], one['max-domains'])})",
                  size(one["memory"]),
                  f"{size(one['max-memory'])} ({share(one['memory'], one['max-memory'])})",
                  ", ".join(manages) or "nothing")
    return table


def where(instance):
    return pci_address(instance["id"]) if "id" in instance else f"{instance['base']:#x}"


def mode(endpoint):
    if endpoint["mode"] != "unattached":
        return endpoint["mode"]
    return "unattached, bypasses" if endpoint["bypasses"] else "unattached, blocked"


def last_fault(endpoint):
    fault = endpoint.get("last-fault")
    return f"{fault['access']} {fault['address']:#x} ({fault['reason']})" if fault else "-"


def endpoints(machine, rates=None):
    more = ("translations/s", "faults/s") if rates else ()
    table = Table("Endpoints", "IOMMU", "ID", "address", "device", "mode", "domain", "translations",
                  "faults", *more, "last fault")
    for iommu in machine:
        for one in iommu["endpoints"]:
            extra = rates(iommu["path"], one) if rates else ()
            table.add(iommu["instance"]["name"], f"{one['id']:#x}", one["address"], label(one),
                      mode(one), one.get("domain", "-"), one["translations"], one["faults"],
                      *extra, last_fault(one))
    return table


def label(endpoint):
    """Its name and its type, and how many functions share it."""
    name, kind = endpoint["name"], endpoint["type"]
    text = name if name == kind else f"{name} ({kind})"
    shared = len(endpoint["members"])
    return f"{text}, {shared} functions" if shared > 1 else text


def domains(machine):
    table = Table("Domains", "IOMMU", "domain", "type", "mappings", "memory", "endpoints")
    for iommu in machine:
        names = {one["id"]: one["name"] for one in iommu["endpoints"]}
        for one in iommu["domains"]:
            members = [names.get(member, f"{member:#x}") for member in one["members"]]
            if one["endpoints"] > len(members):
                members.append(f"and {one['endpoints'] - len(members)} more")
            table.add(iommu["instance"]["name"], one["domain"], one["type"], one["mappings"],
                      size(one["memory"]), ", ".join(members))
    return table


def stats(machine):
    tables = []
    for iommu in machine:
        counters = iommu["stats"]
        table = Table(f"Counters of {iommu['instance']['name']}", "counter", "value")
        for name, value in sorted(counters.items()):
            if not isinstance(value, (list, bool)):
                table.add(name, value)
        tables.append(table)
        if counters["requests-by-status"]:
            answers = Table(f"Requests of {iommu['instance']['name']}", "type", "status", "count")
            for one in counters["requests-by-status"]:
                answers.add(one["type"], one["status"], one["count"])
            tables.append(answers)
    return tables


def mappings(name, domain, entries):
    table = Table(f"Mappings of domain {domain} of {name}", "first", "last", "size", "to", "rights")
    for one in entries:
        table.add(f"{one['first']:#x}", f"{one['last']:#x}", size(one["last"] - one["first"] + 1),
                  f"{one['phys']:#x}", one["rights"] + (", mmio" if one["flags"] & 4 else ""))
    return table


SENTENCES = {
    "mapping": "is mapped",
    "msi": "is in the window of interrupts",
    "bypass": "reaches memory as it is",
    "unmapped": "faults: nothing is mapped there",
    "reserved": "faults: it is in a reserved region",
    "unattached": "faults: the endpoint is in no domain",
}


def translation(answer):
    lines = [f"{answer['address']:#x} of endpoint {pci_address(answer['endpoint'])} "
             f"{SENTENCES[answer['found']]}"]
    if "domain" in answer:
        lines[0] += f" (domain {answer['domain']})"
    if "phys" in answer:
        lines.append(f"  leads to {answer['phys']:#x}, rights {answer['rights']}")
        lines.append(f"  so does all of {answer['first']:#x}-{answer['last']:#x}")
    elif answer["found"] == "mapping":
        lines.append("  lets nothing through: it has no rights")
    return "\n".join(lines) + "\n"


def model(model_):
    buses = Table("Root buses", "name", "segment", "buses", "IOMMU")
    for bus in model_["root-buses"]:
        manager = (model_["iommus"][bus["iommu"]]["name"] if "iommu" in bus
                   else "none: bypasses" if bus["bypass"] else "none")
        buses.add(bus["name"], bus["segment"], f"{bus['first-bus']:02x}-{bus['last-bus']:02x}",
                  manager)
    ranges = Table("Ranges of endpoint IDs", "IOMMU", "first", "last", "what")
    for iommu in model_["iommus"]:
        for one in iommu["ranges"]:
            ranges.add(iommu["name"], f"{one['first']:#x}", f"{one['last']:#x}",
                       f"{pci_address(one['first'])} to {pci_address(one['last'])}")
        for one in iommu["transports"]:
            ranges.add(iommu["name"], f"{one['id']:#x}", f"{one['id']:#x}",
                       f"{one['name']} at {one['base']:#x}")
    return [buses, ranges]
