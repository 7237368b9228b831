# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures of a run as RESULTS.md. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench import ours
from bench.chart import Bar
from bench.goals import GOALS, Goal, judged
from bench.measure import Cost, median

_QUIET: Final = 1.0
"""Load, before anything was done, beyond which the machine had other work."""
_LAST: Final = 15
"""Last lines of a failure's output that are shown, and of reasons before them."""
_REASON: Final = re.compile(r"(?:E|W|Err|ERROR|error|dpkg: error)\b.*:")

_HEAD: Final = """\
# Results of `make bench`

Made by `make bench`; do not edit. Ours is `debian-cloud build ec2` for trixie on
amd64, and every builder makes a disk of 8 GiB, raw, of the same Debian packages
by name; our own, which configure the image, are on our disk alone. Where nothing
is cached but .debs, our cache has the .debs that a build before has fetched, and
no layers, indexes or resolution. The others fetch .debs by HTTP from a local
mirror on the loopback, which has them on disk, in every round, and so do we in
the row ".debs not cached". All read the signed indexes from this mirror: no
network is measured. The builders take turns; figures are medians of the rounds,
after one round that is not measured. What a work finds in the cache is prepared
before each, and not measured. Root's cache is a mount of its own here, so root's
builds copy the .debs that they would otherwise link.

CPU seconds are user and system time of all processes of a builder; the memory is
that of its largest process. The times of the local mirror itself are in no figure.
"""
_SPACE: Final = """\
The most that a build was seen to take beside its .debs and results, by du(1), half
a second after each look, in the round that is not measured: its workspace, and its
directory in memory. The layers stay in the cache for other builds, up to
--cache-size, and are no scratch space. The root's size is that of its files and
directories on the disk.
"""
_UPDATE: Final = """\
The security update in the base is one of libc6. Only Debian could sign it, so the
cache is made as after one: without the .deb of libc6, the indexes of the security
suite, what apt made of them, and all layers, as libc6 is in the first of them.
"""
_MEBI: Final = 2**20


@dataclass(frozen=True, slots=True)
class Described:
    """A peer: its name for people, its version, and what its disk has or lacks."""

    name: str
    version: str
    note: str


@dataclass(frozen=True, slots=True)
class Scratch:
    """Bytes of scratch space of a build, on the disk and in memory, of its root file system, and of its layers."""

    disk: int
    memory: int
    root: int
    layers: int

    @property
    def ratio(self) -> float | None:
        """Scratch space by the root's size; None if one of them was not found."""
        return (self.disk + self.memory) / self.root if self.root and self.disk + self.memory else None


@dataclass(frozen=True, slots=True)
class Results:
    """What a run has found.

    `loads` are those before anything was done and after each round; `peers` is module name -> description; `costs`
    has one cost a round, `failures` why there are none, `found` the packages on each disk, and `spaces` what cold
    builds took meanwhile.
    """

    machine: Mapping[str, str]
    rounds: int
    loads: Sequence[float]
    peers: Mapping[str, Described]
    packages: frozenset[str]
    costs: Mapping[str, Sequence[Cost]]
    failures: Mapping[str, str]
    found: Mapping[str, frozenset[str]]
    spaces: Mapping[str, Scratch]

    @property
    def scratch(self) -> float | None:
        """The largest ratio of scratch space to root; None if there is none."""
        return max((ratio for space in self.spaces.values() if (ratio := space.ratio) is not None), default=None)

    @property
    def medians(self) -> dict[str, Cost]:
        """Name -> the median cost of its rounds."""
        return {name: median(costs) for name, costs in self.costs.items() if costs}

    def called(self, name: str) -> str:
        """What people call a peer, or a work of ours."""
        return self.peers[name].name if name in self.peers else name


def bars(found: Results) -> tuple[Bar, ...]:
    """The builders of disks for the chart, ours first, then the fastest first."""
    medians = found.medians
    order = sorted((name for name in found.peers if name in medians), key=lambda name: medians[name].seconds)
    labels = {ours.COLD: "debian-cloud", ours.COLD_FETCHED: "it, .debs not cached"}
    names = (*(name for name in labels if name in medians), *order)
    return tuple(
        Bar(labels.get(name, found.called(name)), medians[name].seconds, medians[name].cpu, name in labels)
        for name in names
    )


def render(found: Results) -> str:
    """The whole page."""
    quiet = found.loads[0] <= _QUIET
    loads = f"{', '.join(f'{load:.1f}' for load in found.loads)}: before all, and after each round"
    warning = "" if quiet else "\n**The machine had other work when this began: these figures are no results.**\n"
    parts = [
        _HEAD,
        _trees(found),
        f"{warning}\n![Seconds of each builder](results.svg)\n",
        _section("Goals", ("work", "against", "goal", "measured", ""), _goals(found), _UPDATE),
        _section("Builders of the disk", _COSTS, _costs(found, _builders(found))),
        _section("Other work of ours", _COSTS, _costs(found, _others(found))),
        _section("Scratch space", _SPACES, _spaces(found), _SPACE),
        _section("What is on the disks", ("builder", "version", "packages", "missing", "more", ""), _disks(found)),
        _failures(found),
        _section("Machine", ("", ""), (*found.machine.items(), ("rounds", str(found.rounds)), ("load", loads))),
    ]
    return "".join(parts)


_COSTS: Final = ("", "seconds", "from - to", "CPU s", "MiB", "ours ÷ it", "CPU: ours ÷ it", "tree on disk ÷ it")
_SPACES: Final = ("", "disk, MiB", "memory, MiB", "root, MiB", "scratch ÷ root", "layers kept, MiB")
_OURS: Final = (ours.COLD, ours.COLD_DISK, ours.COLD_FETCHED)
"""Works of ours that are shown beside the peers; "ours" is the first."""


def _trees(found: Results) -> str:
    """Where our builds have the tree, as the watched ones have shown."""
    if ours.COLD not in found.spaces:
        return ""
    if found.spaces[ours.COLD].memory:
        return '\nOur trees are in memory (tmpfs), except in the row "tree on disk".\n'
    return "\nOur trees are on the disk in all rows: memory had no room for one.\n"


def _section(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], about: str = "") -> str:
    lines = [_row(head), _row("---" for _ in head), *(_row(row) for row in rows)]
    return f"\n## {title}\n\n" + (about and f"{about}\n") + "".join(f"{line}\n" for line in lines)


def _spaces(found: Results) -> Iterable[Sequence[str]]:
    for name, space in found.spaces.items():
        disk, memory, root, layers = (
            f"{size / _MEBI:.0f}" for size in (space.disk, space.memory, space.root, space.layers)
        )
        yield name, disk, memory, root, "-" if space.ratio is None else f"{space.ratio:.2f}", layers


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _goals(found: Results) -> Iterable[Sequence[str]]:
    for goal in GOALS:
        figure, verdict = judged(goal, found.medians, found.scratch)
        if {goal.name, goal.against} & {*found.failures}:
            verdict = "it did not run: see below"
        yield (
            goal.work,
            _against(goal, found),
            f"{'<' if goal.strict else '≤'} {goal.most:g}{goal.unit}",
            figure,
            verdict,
        )


def _against(goal: Goal, found: Results) -> str:
    return found.called(goal.against) or "-"


def _builders(found: Results) -> tuple[str, ...]:
    own = tuple(name for name in (*_OURS, ours.FLOOR) if name in found.costs or name in found.failures)
    return (*own[:-1], *found.peers, own[-1]) if ours.FLOOR in own else (*own, *found.peers)


def _others(found: Results) -> tuple[str, ...]:
    beside = {*found.peers, *_OURS, ours.FLOOR}
    return tuple(name for name in (*found.costs, *found.failures) if name not in beside)


def _costs(found: Results, names: Iterable[str]) -> Iterable[Sequence[str]]:
    medians = found.medians
    for name in names:
        if name not in medians:
            yield found.called(name), "did not run: see below", *("-" for _ in _COSTS[2:])
            continue
        cost, own = medians[name], medians.get(ours.COLD)
        seconds = [one.seconds for one in found.costs[name]]
        on_disk = medians.get(ours.COLD_DISK)
        beside = name in found.peers or name == ours.FLOOR
        yield (
            found.called(name),
            f"{cost.seconds:.1f}",
            f"{min(seconds):.1f} - {max(seconds):.1f}",
            f"{cost.cpu:.1f}",
            f"{cost.mebibytes:.0f}",
            f"{own.seconds / cost.seconds:.2f}" if own and beside else "-",
            f"{own.cpu / cost.cpu:.2f}" if own and beside else "-",
            f"{on_disk.seconds / cost.seconds:.2f}" if on_disk and beside else "-",
        )


def _disks(found: Results) -> Iterable[Sequence[str]]:
    yield (
        *("debian-cloud", "this tree", str(len(found.found.get(ours.COLD, ())))),
        *_compared(found, ours.COLD),
        "bootable, with hashes, .buildinfo and records; the packages more are its own, which configure the image",
    )
    for name, peer in found.peers.items():
        yield peer.name, peer.version, str(len(found.found.get(name, ()))), *_compared(found, name), peer.note


def _compared(found: Results, name: str) -> tuple[str, str]:
    """The packages that a disk lacks and those that it has besides: their names, if they are few."""
    if name not in found.found:
        return "-", "-"
    there = found.found[name]
    return _few(found.packages - there), _few(there - found.packages)


def _few(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)) if len(names) <= 8 else str(len(names))


def _failures(found: Results) -> str:
    if not found.failures:
        return ""
    lines = ["\n## What did not run\n"]
    for name, said in found.failures.items():
        lines.append(f"\n{found.called(name)}:\n\n")
        shown = anonymous(said).splitlines()
        # The reason is often long before the end.
        reasons = [line for line in shown[:-_LAST] if _REASON.match(line)][-_LAST:]
        lines += [f"    {line}\n" for line in (*reasons, *shown[-_LAST:])]
    return "".join(lines)


def anonymous(said: str) -> str:
    """What a tool said, without addresses, directories of this run, or anything that a terminal obeys."""
    said = re.sub(r"\b[a-z+]+://[^\s'\"<>]+", "URL", said)
    said = re.sub(r"(?<![\w.-])(?:[a-z0-9-]+\.)+(?:org|com|net|io|de|dev)\b(?!/?[\w-]*\.(?:py|sh))", "HOST", said)
    said = re.sub(r"/\S*/(?:archive|bench)\.\w+", "DIR", said)
    return re.sub(r"[^\x20-\x7e\n]", "?", said.replace("\t", " "))
