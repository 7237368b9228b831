# SPDX-License-Identifier: GPL-3.0-or-later
"""debian-cloud-archive(1) has exactly the options that the scripts of archive/verbs accept."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from debian_cloud.archive.steps import STEPS
from tests.tools.pages import options_by_verb, shown
from tools import archive_manual

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = {path.name: path for path in sorted((ROOT / "archive/verbs").iterdir())}
VERBS = {verb.name: verb for verb in archive_manual.verbs()}
UNKNOWN = "--no-such-option"
# Values for placeholders; any other may be a file.
SAMPLES = {
    "CODENAME": "trixie",
    "DIR": "/usr",
    "ID": "20261120T120000Z",
    "SUITE": "trixie",
    "URL": "http://cloud.example.org",
    "WHAT": "images",
}


def sample(word: str) -> str:
    return SAMPLES.get(word, str(ROOT / "README.md"))


def taken(script: Path, *words: str) -> bool:
    """Whether a script accepts these words; its error must be that DIR is not an archive, or is not empty."""
    positional = re.findall("[A-Z]+", re.split(r"\[| --", VERBS[script.name].arguments)[0])
    command: list[str | Path] = [script, *map(sample, positional), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2, done.stderr
    hint = done.stderr.splitlines()[-1]
    assert hint.startswith("hint: "), done.stderr
    return f"{script.name} --help" not in hint


def accepted(script: Path) -> set[str]:
    """A verb's options: the words in its script that look like options and that it accepts."""
    assert not taken(script, UNKNOWN)
    values = {option.name: option.value for option in VERBS[script.name].options}
    words = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", script.read_text("utf-8"))) - {"--help"}
    calls = {word: (word, *([sample(values[word])] if values.get(word) else ())) for word in words}
    before = [(), *((flag,) for flag in values if not values[flag])]
    return {word for word, call in calls.items() if any(taken(script, *first, *call) for first in before)} - {
        "--help"
    }


@pytest.fixture(scope="module")
def page() -> str:
    return archive_manual.page()


def test_the_page_has_these_verbs_and_no_others(page: str) -> None:
    assert list(options_by_verb(page)) == list(SCRIPTS)
    synopsis = page.partition(".SH SYNOPSIS")[2].partition(".SH DESCRIPTION")[0]
    called = re.findall(r"^\\fBdebian\\-cloud\\-archive (\S+)\\fR", synopsis, re.M)
    assert [word.replace("\\-", "-") for word in called] == [*SCRIPTS, "--version"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_page_has_the_options_of_a_verb_and_no_others(page: str, name: str) -> None:
    documented = options_by_verb(page)[name]
    assert documented == accepted(SCRIPTS[name])
    synopsis = re.sub(r"\\f.", "", page.partition(".SH SYNOPSIS")[2].partition(".SH DESCRIPTION")[0]).replace(
        "\\-", "-"
    )
    (call,) = re.findall(rf"^debian-cloud-archive {name} .*\n(?:    .*\n)*", synopsis, re.M)
    assert set(re.findall("--[a-z-]+", call)) == documented


@pytest.mark.parametrize(("name", "step"), [("deprecate", "mark"), ("withdraw", "mark"), ("stale", "stale")])
def test_a_step_takes_the_options_that_a_verb_hands_on(name: str, step: str) -> None:
    assert accepted(SCRIPTS[name]) <= {*STEPS.parser(step)._option_string_actions}


def test_an_option_that_the_page_lacks_is_found(tmp_path: Path) -> None:
    """Tested on a copy of the scripts in which one accepts another option."""
    shutil.copytree(ROOT / "archive", tmp_path / "archive", symlinks=True)
    script = tmp_path / "archive/verbs/check"
    script.write_text(script.read_text("utf-8").replace("arguments '--fast' ", "arguments '--fast --deep' "))
    assert accepted(script) == {"--fast", "--deep"}
    script.write_text(script.read_text("utf-8").replace("arguments '--fast --deep' ", "arguments '' "))
    assert accepted(script) == set()


def test_help_is_what_the_page_is_made_of() -> None:
    for name, script in SCRIPTS.items():
        done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
        verb = VERBS[name]
        assert done.stdout.startswith(f"usage: debian-cloud-archive {name} {verb.arguments}: {verb.summary}\n")
        text = " ".join(done.stdout.split())
        assert all(paragraph in text for paragraph in verb.paragraphs)
        assert all(option.meaning in text for option in verb.options)


def test_the_page_is_shown_as_it_was_written(page: str) -> None:
    text = shown(page)
    assert not re.search(r"@[A-Z]+@", page)
    for verb in VERBS.values():
        for paragraph in (*verb.paragraphs, *(option.meaning for option in verb.options)):
            assert paragraph.replace("`", "").replace("…", "...").rstrip(".")[1:] in text


HEADER = "#!/bin/sh\n# SPDX-License-Identifier: GPL-3.0-or-later\n# try DIR [OPTION…]: try it\n"


def test_a_header_is_read() -> None:
    verb = archive_manual.verb(
        "try",
        HEADER
        + "#\n#   --much WHAT  how much; may be\n#                repeated\n#   --now\n#                at once\n#\n"
        "# Of DIR/conf\n# and `try --now`.\n\nset -eu\n",
    )
    assert verb.usage == "try DIR [--much WHAT]… [--now]"
    assert verb.paragraphs == ("Of DIR/conf and `try --now`.",)
    assert verb.options == (
        archive_manual.Option("--much", "WHAT", "how much; may be repeated"),
        archive_manual.Option("--now", "", "at once"),
    )
    assert r"Of \fIDIR/conf\fR and \fBtry \-\-now\fR." in archive_manual.section(verb)
    assert r"\fB\-\-much\fR \fIWHAT\fR" in archive_manual.section(verb)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (HEADER.replace("try DIR", "cry DIR") + "\n", "does not begin with"),
        (HEADER.replace(": try it", "") + "\n", "does not begin with"),
        ("set -eu\n", "does not begin with"),
        (HEADER + "#\n#   much  how much\n\n", "not an option: much"),
    ],
)
def test_a_header_that_is_written_otherwise_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        archive_manual.verb("try", text)
