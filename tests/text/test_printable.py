# SPDX-License-Identifier: GPL-3.0-or-later
"""Foreign text as it is shown on a terminal."""

from __future__ import annotations

import ast
import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from debian_cloud.text import printable as room
from debian_cloud.text.printable import beneath, paragraph, plain, printable, printed
from tests.command import debian_cloud

SOURCE = Path(room.__file__).parents[1]
ROOT = SOURCE.parents[1]
HOSTILE = (
    "\x1b[2J\x1b[H",
    "\n0 are unexplained",
    "\r0",
    "\x9b2J",
    "\u202eoN",
    "\udcff",
    "\x00",
    "x" * 2**20,
    "\ud800",
)
"""Text that an index, an image, a file name or a tool's output may contain."""
NAMES = tuple(ascii(value[:9]) for value in HOSTILE)


@pytest.mark.parametrize(
    ("foreign", "shown"),
    [
        ("etc/größe", "etc/größe"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\n0 are unexplained", "a\\x0a0 are unexplained"),
        ("a\rb\x7f\x9b", "a\\x0db\\x7f\\x9b"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\u2028b", "a\\u2028b"),
        ("\udcffa", "\\xffa"),
        (b"\xff\xfea", "\\xff\\xfea"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("a b\\c", "a b\\c"),
    ],
)
def test_nothing_is_left_that_a_terminal_obeys(foreign: str | bytes, shown: str) -> None:
    assert printable(foreign) == shown


def test_what_is_shown_has_a_bound() -> None:
    assert printable("x" * 10**7, 10) == "xxxxxxxxx…"
    assert len(printable("ä" * 1000)) == 400


@pytest.mark.parametrize("foreign", HOSTILE, ids=NAMES)
def test_no_value_is_more_than_a_line_or_obeyed(foreign: str) -> None:
    for said in (
        printable(foreign),
        printable(foreign.encode("utf-8", "surrogatepass")),
        printable("x" * 399 + foreign),
    ):
        assert said.isprintable()
        assert len(said) <= 4 * room.LONGEST
        said.encode("utf-8")


def test_no_line_of_what_an_error_says_begins_as_ours_do() -> None:
    assert paragraph("one\nhint: two\n  three\n\n\tfour\n") == "one\n  hint: two\n  three\n\n        four"
    assert paragraph("x\n" * 10**6).count("\n") == 200
    assert paragraph("") == ""
    assert paragraph(f"it is {'x' * 10**6}, and must not be").endswith("xxx, and must not be")
    assert len(paragraph("\t" * 10**6)) < 10_000


@pytest.mark.parametrize("coding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("foreign", HOSTILE, ids=NAMES)
def test_nothing_else_is_written_whatever_a_verb_prints(foreign: str, coding: str) -> None:
    raw = io.BytesIO()
    stream = printed(io.TextIOWrapper(raw, coding, "strict", newline=""))
    print(f"ä €{foreign}\t.", file=stream, flush=True)
    said = raw.getvalue().decode(coding)
    assert said.replace("\n", "").replace("\t", "").isprintable()
    assert said.endswith("\t.\n")


def test_the_stream_itself_is_beneath() -> None:
    stream = io.StringIO()
    assert beneath(printed(stream)) is stream
    assert beneath(stream) is stream


ARGUMENTS = [
    ["list", "--add", "{}"],
    ["{}"],
    ["show", "{}"],
    ["lint", "/tmp/{}"],
    ["lint", "./{}.deb"],
    ["fetch", "{}"],
    ["diff", "{}", "{}"],
    ["verify", "{}", "--closure", "{}"],
    ["build", "ec2", "--add", "{}"],
    ["plan", "ec2", "--seed", "{}"],
    ["plan", "ec2", "--hostname", "{}"],
    ["list", "--archive", "{}"],
    ["list", "--keyring", "{}"],
    ["show", "ec2", "--suite", "{}"],
    ["rebuild", "{}"],
    ["sbom", "{}"],
]
STEP = [sys.executable, "-P", "-m", "debian_cloud.archive.steps"]


@pytest.mark.parametrize(
    "command",
    [
        *(["debian-cloud", *arguments] for arguments in ARGUMENTS),
        *([*STEP, *arguments] for arguments in (["{}"], ["expire", "{}"])),
    ],
    ids=lambda command: " ".join(command).removeprefix(f"{sys.executable} -P -m "),
)
def test_an_argument_is_shown_as_foreign(command: list[str], tmp_path: Path) -> None:
    """Characters that the encoding lacks do not cause a traceback."""
    hostile = os.fsdecode(b"\x1b[2J\x9b\xff\xc2\x9bx\n0 are unexplained\r\xe2\x80\xae")
    for environment in (
        {"LC_ALL": "C", "PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0"},
        {"LC_ALL": "C.UTF-8"},
    ):
        done = subprocess.run(
            [argument.replace("{}", hostile) for argument in command],
            cwd=tmp_path,
            env={**os.environ, **environment, "HOME": str(tmp_path), "PYTHONPATH": str(SOURCE.parent)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=120,
        )
        said = (done.stdout + done.stderr).decode("utf-8")
        assert done.returncode == 2, said
        assert "Traceback" not in said
        assert said.replace("\n", "").isprintable()
        assert "\n0 are" not in said


def test_a_terminal_gets_no_more(tmp_path: Path) -> None:
    """A tool's last line is in the progress bar, between the bar's own escape sequences, without any others."""
    ours, theirs = pty.openpty()
    code = (
        "from debian_cloud.host.progress import Progress; p = Progress(1);"
        "p.step('a\\x1b[2Jb'); p.tick('c\\x1b]0;x\\x07\\udcff\\nd'); p.end()"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(SOURCE.parent), "TERM": "xterm", "COLUMNS": "100", "LC_ALL": "C.UTF-8"},
        stderr=theirs,
        check=True,
    )
    said = os.read(ours, 65536).decode()
    os.close(ours)
    os.close(theirs)
    assert "a\\x1b[2Jb: c\\x1b]0;x\\x07\\xff\\x0ad" in said
    assert said.replace("\x1b[K", "").replace("\r", "").isprintable()


COMMON = SOURCE.parents[1] / "archive" / "lib" / "common.sh"


@pytest.mark.parametrize("foreign", HOSTILE, ids=NAMES)
def test_a_script_shows_no_more(foreign: str, tmp_path: Path) -> None:
    """A sentence and a hint, each on its line, and a logged event."""
    (tmp_path / "log").mkdir()
    foreign = foreign.replace("\0", "")  # no argument has one
    octets = b"gr\xc3\xb6\xc3\x9fer" + foreign[:60_000].encode(
        "utf-8", "surrogateescape" if "\udcff" in foreign else "surrogatepass"
    )
    script = '. "$1"; dir=$2; log_line "$3"; fail "$3" "$3"'
    done = subprocess.run(
        [b"sh", b"-c", script.encode(), b"sh", COMMON, tmp_path, octets], check=False, capture_output=True
    )
    assert done.returncode == 1
    (event,) = done.stdout.decode("utf-8").splitlines()
    error, hint = done.stderr.decode("utf-8").splitlines()
    (logged,) = (tmp_path / "log" / "accept.log").read_text("utf-8").splitlines()
    for line, begin in ((event, "größer"), (error, "error: größer"), (hint, "hint: größer")):
        assert line.startswith(begin)
        assert line.isprintable()
        assert len(line) < 4100
    assert logged.endswith(event)


def test_a_closed_stream_is_none() -> None:
    done = subprocess.run("debian-cloud nothing >&- 2>&-", shell=True, check=False, env={**os.environ})
    assert done.returncode == 2
    assert debian_cloud("--version").returncode == 0


STREAMS = ("sys.stdout", "sys.stderr", "stdout", "stderr")


def writers(path: Path) -> set[str]:
    """The functions and streams with which a module writes to a terminal."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "beneath"):
            found.add(node.func.id)
        if isinstance(node, ast.Attribute) and ast.unparse(node).removeprefix("sys.__").rstrip("_") in STREAMS:
            found.add(ast.unparse(node))
    return found


def test_only_verbs_print_and_nobody_around_the_one_place() -> None:
    apart = {
        # The function for messages; messages while waiting, and apt's own output; the progress bar.
        "host/command.py": {"print", "sys.stdout", "sys.stderr"},
        "host/folders.py": {"print", "sys.stderr"},
        # It flushes both before another program takes its place.
        "host/run.py": {"sys.stdout", "sys.stderr"},
        # A console is connected to a terminal as it is.
        "machines/terminal.py": {"sys.stdout"},
        "host/progress.py": {"beneath", "sys.stderr"},
        # What a mirror reports, by the function that it gives to a run.
        "mirror/__main__.py": {"print", "sys.stderr"},
        # Tools of the source tree, which print only its own files.
        "tools/archive_manual.py": {"sys.stdout"},
        "tools/manual.py": {"sys.stdout"},
        "tools/render.py": {"sys.stdout", "sys.stderr"},
    }
    folders = ("cli", "cli/in_plans", "cli/machines", "archive/steps")
    verbs = [path for folder in folders for path in (SOURCE / folder).glob("*.py")]
    outside = [path for path in SOURCE.rglob("*.py") if path not in verbs] + [*(ROOT / "tools").glob("*.py")]
    place = {path: path.relative_to(SOURCE if path.is_relative_to(SOURCE) else ROOT).as_posix() for path in outside}
    assert {place[path]: found for path in outside if (found := writers(path))} == apart
    around = {path.name for path in verbs if "beneath" in writers(path)}
    assert around == {"plan.py"}
    for path in verbs:
        if path.name != "plan.py":
            assert "sys.stdout.buffer" not in path.read_text("utf-8")
            assert "os.write(" not in path.read_text("utf-8")


def test_a_console_s_text_without_the_usual_sequences() -> None:
    assert plain("\x1b[0;32m  OK  \x1b[0m Reached\r\n\x1b(B\x1b[?25h\x1b=done") == "  OK   Reached\ndone"
