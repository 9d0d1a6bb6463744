"""Checks the arrows between rooms in the output of `bazel query --output=xml`.

usage: arrows.py QUERY.xml...

ARROWS is the whole list of who may use whom; docs/design.md draws the same picture. An edge that is
not listed fails, and so does a visibility that would let one in. //tests and //bench may use all.
"""

import sys
import xml.etree.ElementTree

_CORE = ["core/matrix", "core/io", "core/search", "core/cpu", "core/job"]
_ABOUT_JOBS = [
    "//core/job:job_spec",
    "//core/job:job_spec_json",
    "//core/job:job_spec_sources",
    "//core/job:machine_limits",
    "//core/job:version",
]

# Room -> what it may use: a room, or one target where only that is open to it. A room is the
# package's path, and its subpackages belong to it.
ARROWS = {
    "core/matrix": [],
    "core/io": _CORE[:1],
    "core/search": _CORE[:2],
    "core/cpu": _CORE[:3],
    "core/job": [*_CORE[:4], "//docs:job_spec.md"],
    "gpu": _CORE,
    # What both ends of a socket agree on. The supervisor's side uses single targets of core/job, so
    # that it links neither an engine nor a parser of users' files.
    "daemon/protocol": [*_ABOUT_JOBS, "//docs:protocol.md"],
    "daemon/queue": [*_ABOUT_JOBS, "//core/io:errno_status", "//core/io:unique_fd", "daemon/protocol"],
    "daemon/supervisor": [
        *_ABOUT_JOBS,
        "//core/io:errno_status",
        "//core/io:unique_fd",
        "daemon/protocol",
        "daemon/queue",
    ],
    "daemon/client": [*_ABOUT_JOBS, "//core/io:unique_fd", "//core/io:unprivileged_for_test", "daemon/protocol"],
    # Only the worker opens an engine; nobody but gpu names one.
    "daemon/worker": ["core/matrix", "core/io", "core/search", "core/job", "//gpu:open_engine", "daemon/protocol"],
    # tiny-knnd, the supervisor's binary.
    "daemon": [*_ABOUT_JOBS, "daemon/supervisor", "daemon/protocol"],
    "cli": [
        "core/matrix",
        "core/io",
        "core/search",
        "core/job",
        "//gpu:open_engine",
        "daemon/protocol",
        "daemon/client",
        "daemon/worker",
        # Executed, not linked: by `tiny-knn daemon`, and in the verbs' tests.
        "//daemon:tiny-knnd",
    ],
    "capi": ["core/matrix", "core/io", "core/search", "core/job", "//gpu:open_engine"],
    "python": ["capi"],
    # What programs use that search by the libraries.
    "examples/c": ["capi"],
    "examples/cpp": ["core/matrix", "core/io", "core/search", "core/job", "//gpu:open_engine"],
}

# They prove and measure what crosses the rooms' borders.
_MAY_USE_ALL = ["tests", "bench"]
# Not code of ours: libraries, data, and the scripts' own tests.
_NOT_ROOMS = ["third_party", "examples", "tools", ""]


def package_of(label):
    return label[2:].partition(":")[0]


def room_of(package):
    """The room that a package lies in; None for a package that is in none."""
    # The innermost first: "daemon" is a room, and so is "daemon/worker".
    for room in sorted([*ARROWS, *_MAY_USE_ALL, *_NOT_ROOMS], key=len, reverse=True):
        if package == room or (room and package.startswith(room + "/")):
            return room
    return None


def may_use(user_room, label):
    room = room_of(package_of(label))
    if user_room == room or user_room in _MAY_USE_ALL or room in _NOT_ROOMS:
        return True
    return room in ARROWS.get(user_room, []) or label in ARROWS.get(user_room, [])


def rooms_below(package):
    """The rooms in `package` and below it; for a package that holds none, the room it lies in."""
    below = [room for room in ARROWS if (room + "/").startswith(package + "/")]
    return below or [room_of(package)]


def rooms_granted(visibility, groups):
    """The rooms that one visibility label lets in; None for everyone.

    `groups` has the packages of each package_group, as the query prints them: "gpu", "core/...".
    A group that it lacks grants nothing here: genquery does not reach groups, tools/check's query does.
    """
    if visibility == "//visibility:public":
        return None
    if visibility == "//visibility:private":
        return []
    package = package_of(visibility)
    if visibility.endswith(":__subpackages__"):
        return rooms_below(package)
    if visibility.endswith(":__pkg__"):
        return [room_of(package)]
    rooms = []
    for granted in groups.get(visibility, []):
        granted = granted.removeprefix("//")
        if granted == "...":
            return None
        if granted.endswith("/..."):
            rooms += rooms_below(granted[: -len("/...")])
        else:
            rooms.append(room_of(granted))
    return rooms


def check(tree):
    """Returns one line for each broken rule in a <query> element, and the number of edges seen."""
    broken, edges = [], 0
    groups = {}
    for group in tree.iter("package-group"):
        packages = group.findall("list[@name='packages']/string")
        groups[group.get("name")] = [element.get("value") for element in packages]
        if group.findall("list[@name='includes']/label"):
            broken.append(f"{group.get('name')} includes other groups: list the packages in one place")
    for rule in tree.iter("rule"):
        label = rule.get("name")
        if not label.startswith("//"):
            continue
        room = room_of(package_of(label))
        if room is None:
            broken.append(f"{label}: its package is in no room; add it to ARROWS in {__file__}")
            continue
        for used in {element.get("name") for element in rule.findall("rule-input")}:
            if not used.startswith("//") or package_of(used) == package_of(label):
                continue
            edges += 1
            if not may_use(room, used):
                broken.append(f"{label} uses {used}: there is no arrow {room} -> {room_of(package_of(used))}")
        if room not in ARROWS:
            continue
        for element in rule.findall("list[@name='visibility']/label"):
            visibility = element.get("value")
            granted = rooms_granted(visibility, groups)
            if granted is None:
                broken.append(f"{label} is visible to everyone: name the rooms that use it")
                continue
            for user in granted:
                if user is None or not may_use(user, label):
                    broken.append(f"{label} is visible to {visibility}: there is no arrow {user} -> {room}")
    return sorted(broken), edges


def main(paths):
    broken, edges = [], 0
    for path in paths:
        # Bazel writes XML 1.1, which the parser refuses; nothing in it differs from 1.0.
        with open(path, encoding="utf-8") as source:
            text = source.read().replace('version="1.1"', 'version="1.0"', 1)
        lines, count = check(xml.etree.ElementTree.fromstring(text.encode("utf-8")))
        broken += lines
        edges += count
    for line in sorted(set(broken)):
        print(line)
    print(f"arrows: {edges} edges between packages, {len(set(broken))} broken rules")
    # Without an edge the query did not reach the code that it is about.
    return 1 if broken or not edges else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
