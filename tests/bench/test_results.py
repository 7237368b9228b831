# SPDX-License-Identifier: GPL-3.0-or-later
"""What is written of a run's figures: goals that were missed are missed, and what did not run is named."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from bench import chart, goals, ours, peers, results
from bench.measure import Cost
from bench.results import Described, Results, Scratch

FOUND = Results(
    machine={"processors": "2, Test|CPU", "file system": "ext4"},
    rounds=3,
    loads=(0.5, 1.0, 2.0, 1.5),
    peers={
        "fai": Described("fai-diskimage", "6.0", "a note"),
        "mmdebstrap": Described("mmdebstrap + mke2fs -d", "1.3", "by hand"),
        "mkosi": Described("mkosi", "not installed", "no"),
    },
    packages=frozenset({"a", "b"}),
    costs={
        ours.COLD: [Cost(41, 50, 100), Cost(40, 55, 300), Cost(39, 52, 200)],
        ours.COLD_QCOW2: [Cost(49, 60, 300)],
        ours.COLD_DISK: [Cost(54, 60, 300)],
        ours.WARM: [Cost(9, 12, 300)],
        ours.SIX: [Cost(81, 150, 300)],
        ours.SAME: [Cost(1, 1, 50)],
        ours.VERIFY_LAYERS: [Cost(20, 22, 300)],
        ours.FLOOR: [Cost(10, 16, 30)],
        ours.LIST: [Cost(1, 1, 50)],
        ours.APT_CACHE: [Cost(0.5, 0.4, 50)],
        "fai": [Cost(80, 77, 90), Cost(82, 79, 90), Cost(81, 78, 90)],
        "mmdebstrap": [Cost(64, 66, 90)],
    },
    failures={
        "mkosi": "exit status 1\nE: no http://mirror.example.org/debian in /tmp/archive.x1/bench.y2/z\x1b[31m\n"
    },
    found={
        "fai": frozenset({"a", "b", "c"}),
        "mmdebstrap": frozenset({"a"}),
        ours.COLD: frozenset("abd"),
    },
    spaces={
        ours.COLD: Scratch(100 << 20, 600 << 20, 500 << 20, 550 << 20),
        ours.COLD_DISK: Scratch(900 << 20, 0, 500 << 20, 550 << 20),
    },
)


def row(text: str, *words: str) -> list[str]:
    """The cells of the one row that has these words."""
    found = [line for line in text.splitlines() if line.startswith("| ") and all(word in line for word in words)]
    assert len(found) == 1, found
    return [cell.strip() for cell in found[0].strip("|").split("|")]


def test_a_goal_is_reached_or_missed() -> None:
    text = results.render(FOUND)
    assert row(text, "cold build |", "fai")[1:] == ["fai-diskimage", "≤ 0.5", "0.49", "reached"]
    assert row(text, "cold build |", "mke2fs")[1:] == ["mmdebstrap + mke2fs -d", "≤ 0.55", "0.62", "**missed**"]
    assert row(text, "raw and qcow2", "s more")[3:] == ["9.00 s more", "**missed**"]
    assert row(text, "| list | apt-cache show |")[3:] == ["2.00", "reached"]
    assert row(text, "one drop-in of")[1:] == [ours.COLD, "≤ 0.25", "0.23", "reached"]
    updated = replace(FOUND, costs={**FOUND.costs, ours.UPDATED: [Cost(39, 50, 300)]})
    assert row(results.render(updated), "one security update")[1:] == [ours.COLD, "≤ 0.6", "0.97", "**missed**"]
    assert row(text, "six vendors from")[1:] == [
        "fai-diskimage",
        *(f"{x} of six times it" for x in ("≤ 0.15", "0.17")),
        "**missed**",
    ]
    assert row(text, "| nothing changed")[2:] == ["< 1 s", "1.00 s", "**missed**"]
    assert row(text, "verify with layers")[2:] == ["≤ 0.5", "0.50", "reached"]
    assert row(text, "scratch space of")[1:] == ["size of the root", "≤ 2.2", "1.80", "reached"]
    assert row(text, "largest process")[3:] == ["200.00 MiB", "reached"]


def test_a_goal_without_a_figure_says_so() -> None:
    text = results.render(FOUND)
    assert row(text, "cold build |", "| mkosi |")[3:] == ["-", "it did not run: see below"]
    assert row(text, "cold build |", "| vmdb2 |")[3:] == ["-", "not measured: no figure of vmdb2"]
    assert row(text, "one security update")[3:] == ["-", f"not measured: no figure of {ours.UPDATED}"]
    assert row(results.render(replace(FOUND, spaces={})), "scratch space of")[3:] == [
        *("-", "not measured: no cold build was watched")
    ]
    failed = replace(FOUND, failures={ours.VERIFY: "exit status 1"})
    assert row(results.render(failed), "nothing cached |", "1.2")[3:] == ["-", "it did not run: see below"]
    assert row(results.render(failed), f"| {ours.VERIFY} | did")
    assert "reached" not in results.render(replace(FOUND, costs={}, spaces={}))


@pytest.mark.parametrize(("most", "said"), [(2.0, "reached"), (1.99, "**missed**")])
def test_a_bound_is_a_bound(most: float, said: str) -> None:
    goal = next(goal for goal in goals.GOALS if goal.name == ours.LIST)
    assert goals.judged(replace(goal, most=most), FOUND.medians) == ("2.00", said)
    assert goals.judged(replace(goal, strict=True), FOUND.medians)[1] == "**missed**"


def test_the_goals_are_the_project_s() -> None:
    bounds = [goal.most for goal in goals.GOALS]
    assert bounds == [0.50, 0.55, 1, 1, 1, 0.25, 0.60, 0.15, 1, 8, 2, 2, 4, 1.2, 0.5, 600, 2.2]
    assert {goal.against for goal in goals.GOALS} >= {*peers.names()}


def test_medians_and_spread() -> None:
    cells = row(results.render(FOUND), "| fai-diskimage | 81.0")
    assert cells == ["fai-diskimage", "81.0", "80.0 - 82.0", "78.0", "90", "0.49", "0.67", "0.67"]
    assert row(results.render(FOUND), ours.FLOOR)[5:] == ["4.00", "3.25", "5.40"]


def test_it_says_where_our_trees_are() -> None:
    text = results.render(FOUND)
    assert 'Our trees are in memory (tmpfs), except in the row "tree on disk".' in text
    assert row(text, f"| {ours.COLD_DISK} | 54.0")[5:] == ["-"] * 3
    assert row(text, f"| {ours.COLD} | 100") == [ours.COLD, "100", "600", "500", "1.40", "550"]
    for space in (Scratch(1, 0, 0, 0), Scratch(0, 0, 1, 0)):
        unseen = results.render(replace(FOUND, spaces={ours.COLD: space}))
        assert row(unseen, "scratch space of")[3:] == ["-", "not measured: no cold build was watched"]
    small = replace(FOUND, spaces={ours.COLD: Scratch(1, 0, 0, 0)})
    assert "Our trees are on the disk in all rows" in results.render(small)
    assert row(results.render(small), f"| {ours.COLD} | 0 | 0 |")[4] == "-"


def test_what_did_not_run_is_named_without_addresses() -> None:
    text = results.render(FOUND)
    assert row(text, "| mkosi | did not run")
    assert "\nmkosi:\n\n    exit status 1\n    E: no URL in DIR/z?[31m\n" in text
    assert not re.search(r"https?://|example\.org|\x1b", text)


def test_the_reason_of_a_failure_is_shown_though_it_is_not_last() -> None:
    said = "exit status 1\nall is well\nE: no key\n" + "Traceback\n" * 30
    text = results.render(replace(FOUND, failures={"mkosi": said}))
    assert "\n    E: no key\n    Traceback\n" in text
    assert text.count("Traceback") == 15
    assert "all is well" not in text


def test_a_disk_that_has_other_packages_says_so() -> None:
    text = results.render(FOUND)
    assert row(text, "fai-diskimage", "a note")[2:5] == ["3", "", "c"]
    assert row(text, "mke2fs -d", "by hand")[2:5] == ["1", "b", ""]
    assert row(text, "mkosi", "not installed")[3:5] == ["-", "-"]


def test_a_busy_machine_gives_no_results() -> None:
    assert "had other work" not in results.render(FOUND)
    assert "**The machine had other work" in results.render(replace(FOUND, loads=(1.1,)))


def test_a_name_cannot_break_a_table() -> None:
    assert row(results.render(FOUND), "Test/CPU") == ["processors", "2, Test/CPU"]


def test_the_chart_has_every_builder_that_ran() -> None:
    text = chart.render(results.bars(FOUND))
    fetched = replace(FOUND, costs={**FOUND.costs, ours.COLD_FETCHED: [Cost(43, 55, 300)]})
    assert [(bar.seconds, bar.own) for bar in results.bars(fetched)] == [
        *((40, True), (43, True)),
        *((64, False), (81, False)),
    ]
    assert chart.render(results.bars(fetched)).count('class="ours"') == 2
    tree = ET.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    words = [element.text for element in tree.iter(f"{space}text")][2:]
    assert words == [
        *("debian-cloud", "40.0", "52.0"),
        *("mmdebstrap + mke2fs -d", "64.0", "66.0"),
        *("fai-diskimage", "81.0", "78.0"),
    ]
    # A bar is as long as its figure says.
    widths = [float(bar.attrib["width"]) for bar in tree.iter(f"{space}rect")]
    assert widths[4] == max(widths)
    assert widths[0] / widths[4] == pytest.approx(40 / 81, abs=0.001)
    assert "prefers-color-scheme: dark" in text
    assert tree.find(f"{space}title") is not None


def test_a_chart_of_nothing_is_one() -> None:
    assert "no figures" in chart.render(())
    assert chart.render([chart.Bar("a<b", 1, 1)]).count("a&lt;b") == 2
