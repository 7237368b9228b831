# SPDX-License-Identifier: GPL-3.0-or-later
"""debian-cloud(1) has what the verbs' docstrings and parsers have."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from debian_cloud import cli
from debian_cloud.configuration import lint
from debian_cloud.image import config
from debian_cloud.packages import debs
from tests.tools.pages import options_by_verb, shown
from tools import manual

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def page() -> str:
    return shown(manual.manual())


def test_the_page_has_these_verbs_and_options_and_no_others(page: str) -> None:
    documented = options_by_verb(manual.manual())
    verbs = (*cli.names(), *cli.of_plans())
    assert documented == {name: accepted(name) for name in verbs}
    for name in verbs:
        assert " ".join(cli.summary(name).split()) in page


def accepted(name: str) -> set[str]:
    """A verb's options, without --help, which all have, and without hidden ones for tests."""
    actions = cli.parser(name)._actions
    return {
        option
        for action in actions
        for option in action.option_strings
        if action.dest != "help" and action.help is not argparse.SUPPRESS
    }


def test_an_option_that_the_page_lacks_is_found() -> None:
    page = manual.manual()
    line = ".B \\-\\-snapshot ID\n"
    assert line in page
    documented = options_by_verb(page.replace(line, ".B ID\n"))
    assert "--snapshot" in accepted("build") - documented["build"]


@pytest.mark.parametrize("name", cli.names())
def test_each_verb_that_people_use_has_an_example(name: str) -> None:
    """The example's words are accepted by the verb."""
    lines = re.findall(f"^    debian-cloud {name}(.*)", cli.verb(name).__doc__, re.M)
    assert lines
    for line in lines:
        words = shlex.split(re.split(r" [|>&]", line)[0])
        known = {option for action in cli.parser(name)._actions for option in action.option_strings}
        assert {word for word in words if word.startswith("-")} <= known


def test_verbs_of_a_plan_are_told_apart(page: str) -> None:
    people, plans = page.split("VERBS OF A PLAN")
    for part, names in ((people, cli.names()), (plans, cli.of_plans())):
        for name in names:
            assert f" {name} debian-cloud {name} [-h]" in part, name
    assert cli.of_plans() == ("layer", "packages", "scrub", "seal")


def test_text_is_shown_as_it_was_written() -> None:
    """Dots, quotes, backslashes and hyphens have a special meaning for the formatter."""
    parser = argparse.ArgumentParser(prog="debian-cloud try")
    parser.add_argument("--back-up", metavar="C:\\DIR", default="a", help="100%% of it, by default %(default)s")
    parser.add_argument("--kind", choices=("raw", "qcow2"), help="what to make.")
    parser.add_argument("--secret", help=argparse.SUPPRESS)
    docstring = "Try it.\n\n.hidden files\n'quoted' and C:\\n too.\n\n    $ debian-cloud try --kind raw\n"
    head = '.TH TRY 1 "" "" ""\n.SH VERBS\n'
    text = shown(head + manual.section("try", docstring, parser))
    assert "Try it. .hidden files 'quoted' and C:\\n too. $ debian-cloud try --kind raw" in text
    assert "--back-up C:\\DIR 100% of it, by default a." in text.replace("Of", "of")
    assert "--kind raw|qcow2 What to make." in text
    assert "--secret" not in text


@pytest.mark.parametrize("name", config.FIELDS)
def test_a_field_is_told_with_its_words(name: str) -> None:
    page = shown(manual.fields())
    field = config.FIELDS[name]
    text = page.partition(f" {name} ")[2]
    assert text.startswith(field.meaning[:1].upper() + field.meaning[1:])
    assert all(word in text for word in field.words)
    assert not field.sizes[0] or f"From {field.sizes[0]} to {field.sizes[1]}." in text


def test_the_example_is_what_lint_asks_for(tmp_path: Path) -> None:
    """The example is copied as a reader does: the text between the requests, without roff's hyphens."""
    example = manual.fields().partition(".SH EXAMPLE\n.EX\n")[2].partition(".EE\n")[0].replace("\\-", "-")
    assert example.startswith("Package: debian-cloud-config-hpc\n")
    (tmp_path / "debian").mkdir()
    (tmp_path / "debian" / "control").write_text(f"Source: debian-cloud-config-hpc\n\n{example}")
    _, (binary,) = debs.source(tmp_path)
    assert lint.findings(lint.Subject(binary, "forky")) == ()
    assert binary.fields["Image-Size"] == "8G"
