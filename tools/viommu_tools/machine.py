# SPDX-License-Identifier: GPL-2.0-or-later
"""The virtio-iommus of a running QEMU, by their properties; docs/inspect.md says what those are."""
import re

from .qmp import QmpError, Refused

CONTAINERS = ("/machine/peripheral", "/machine/peripheral-anon")
# The last is the plugin's, in a QEMU that has a virtio-iommu of its own.
TYPES = ("virtio-iommu-pci", "virtio-iommu-device", "virtio-iommu-mmio", "virtio-iommu", "viommu-pci")
CHILD = re.compile(r"child<(.+)>")
ADDRESS = re.compile(r"(?:([0-9a-f]{1,4}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})\.([0-7])", re.I)
TRIES = 20  # of a question that another client keeps replacing


def pci_address(number):
    """An endpoint ID as lspci writes it; a transport's as what it is."""
    segment, rid = number >> 16, number & 0xffff
    if segment == 0xffff:
        return f"mmio {rid}"
    address = f"{rid >> 8:02x}:{rid >> 3 & 31:02x}.{rid & 7}"
    return f"{segment:04x}:{address}" if segment else address


def parse_number(text, what):
    try:
        number = int(text, 0)
    except ValueError as err:
        raise QmpError(f"{what}: '{text}' is no number") from err
    if number < 0:
        raise QmpError(f"{what}: '{text}' is negative")
    return number


def name_of(path, kind):
    """What to call a device: its id, or its type if it has none."""
    return path.rsplit("/", 1)[1] if path.startswith("/machine/peripheral/") else kind


class Iommu:
    """One virtio-iommu of this project's."""

    def __init__(self, qmp, path):
        self.qmp, self.path = qmp, path

    def get(self, name):
        return self.qmp.get(self.path, name)

    def ask(self, question):
        """The answer to a question; another client's questions are waited out."""
        for _ in range(TRIES):
            self.qmp.set(self.path, "inspect", question)
            try:
                answer = self.get("inspected")
            except Refused:
                if self.get("inspect") == question:
                    raise
                continue
            if answer["query"] == question:
                return answer
        raise QmpError(f"another client keeps asking {self.path}: '{question}' gets no answer")

    def pages(self, question, key):
        """All entries, page by page."""
        answer = self.ask(question)
        yield from answer[key]
        while answer["more"]:
            answer = self.ask(f"{question} from={answer['next']:#x}")
            yield from answer[key]

    def endpoints(self):
        endpoints = list(self.pages("endpoints", "endpoints"))
        for endpoint in endpoints:
            endpoint["address"] = pci_address(endpoint["id"])
            endpoint["name"] = name_of(endpoint["device"], endpoint["type"])
        return endpoints

    def domains(self):
        return list(self.pages("domains", "domains"))

    def mappings(self, domain):
        return self.pages(f"mappings domain={domain}", "mappings")

    def translate(self, endpoint, address):
        return self.ask(f"translate endpoint={endpoint:#x} address={address:#x}")

    def everything(self):
        return {"path": self.path, "instance": self.get("instance"), "stats": self.get("stats"),
                "endpoints": self.endpoints(), "domains": self.domains()}


def _backend(qmp, path):
    """Where the properties of the device are: its own path, or that of the part behind PCI."""
    properties = qmp.list(path)
    return f"{path}/virtio-backend" if "virtio-backend" in properties else path


def find(qmp):
    """The IOMMUs of the machine.  Raises a sentence if there are none that can be looked into."""
    found, strangers, gone = [], [], []
    for container in CONTAINERS:
        for name, kind in sorted(qmp.list(container).items()):
            match = CHILD.fullmatch(kind)
            if not match or not match[1].startswith(TYPES):
                continue
            path = _backend(qmp, f"{container}/{name}")
            if "inspected" not in qmp.list(path):
                strangers.append(f"{container}/{name}")
            elif qmp.get(path, "realized"):
                found.append(Iommu(qmp, path))
            else:
                gone.append(f"{container}/{name}")
    if not found and gone:
        raise QmpError(f"{', '.join(gone)} was taken away: what was behind it bypasses")
    if not found and strangers:
        raise QmpError(f"{', '.join(strangers)} cannot be looked into: it is QEMU's own "
                       "virtio-iommu, or one of an older viommu")
    if not found:
        raise QmpError("there is no virtio-iommu in this machine")
    return sorted(found, key=lambda iommu: iommu.get("instance")["index"])


def choose(iommus, name):
    """Those with that id or QOM path; all without a name."""
    if name is None:
        return iommus
    chosen = [iommu for iommu in iommus
              if name in (iommu.path, iommu.get("instance")["name"], iommu.get("instance")["device"])]
    if not chosen:
        names = ", ".join(iommu.get("instance")["name"] for iommu in iommus)
        raise QmpError(f"there is no virtio-iommu '{name}' in this machine, only {names}")
    return chosen


def find_endpoint(iommus, text):
    """(iommu, ID) of an endpoint that is given as ID, PCI address or device id."""
    number = None
    if match := ADDRESS.fullmatch(text):
        segment, bus, slot, function = (int(part or "0", 16) for part in match.groups())
        number = segment << 16 | bus << 8 | slot << 3 | function
    elif re.fullmatch(r"0x[0-9a-f]+|[0-9]+", text, re.I):
        number = int(text, 0)
    for iommu in iommus:
        for endpoint in iommu.endpoints():
            members = [member["device"].rsplit("/", 1)[1] for member in endpoint["members"]]
            ids = [endpoint["id"], *(member["id"] for member in endpoint["members"])]
            # As in requests, a function behind a bridge may be named by its own ID.
            if number in ids:
                return iommu, number
            if number is None and (text == endpoint["name"] or text in members):
                return iommu, endpoint["id"]
    raise QmpError(f"no endpoint is called '{text}': it is an ID, a PCI address or the id of a device")
