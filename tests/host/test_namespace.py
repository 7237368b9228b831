# SPDX-License-Identifier: GPL-3.0-or-later
"""If namespaces are forbidden, or a tool leaves a process behind, there is a clear error, no wait, nothing left."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from debian_cloud import plan as plans
from debian_cloud.errors import Error
from debian_cloud.host import failures, folders, run
from debian_cloud.host.progress import Progress
from tests import throwaway
from tests.command import refused
from tests.conftest import ROOT

UID = 64000 + os.getpid() % 1000
"""An ordinary user without an account, so that all its processes are the test's."""
AS_USER = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups")
AS_NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")

# Forbid unshare(2) with EPERM, as a container's filter does, and run the rest (seccomp(2), BPF by hand).
SECCOMP = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None)
steps = ((0x20, 0, 0, 0), (0x15, 0, 1, 272), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000))
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
class Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))
if libc.prctl(22, 2, ctypes.byref(Filter(len(steps), ctypes.addressof(code))), 0, 0):
    sys.exit("no filter")
os.execvp(sys.argv[1], sys.argv[1:])
"""
SECCOMP_COMMAND = ("/usr/bin/python3", "-c", SECCOMP)
CHROOT = ("unshare", "--mount", "sh", "-euc", 'mount --rbind / "$1"; root=$1; shift; exec chroot "$root" "$@"', "sh")
# A namespace of all ids in which no others may be made (namespaces(7)).
LIMIT = """
import ctypes, os, sys
read, write = os.pipe()
parent = os.getpid()
if not os.fork():
    os.read(read, 1)
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{parent}/{name}", "w") as out:
            out.write("0 0 70000")
    os._exit(0)
if ctypes.CDLL(None).unshare(0x10000000):
    sys.exit("no namespace")
os.write(write, b"x")
os.wait()
with open("/proc/sys/user/max_user_namespaces", "w") as out:
    out.write("0")
os.execvp(sys.argv[1], sys.argv[1:])
"""
LIMIT_COMMAND = ("/usr/bin/python3", "-c", LIMIT)
HIDDEN = ("unshare", "--mount", "sh", "-euc", 'mount -t tmpfs none /proc/sys/fs; exec "$@"', "sh")
UNMAPPED = ("unshare", "--mount", "sh", "-euc", 'mount --bind /dev/null /usr/bin/newuidmap; exec "$@"', "sh")
POWERLESS = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all")


def processes(word: str = "") -> list[str]:
    """The processes of UID, or those with a word in their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            status = (folder / "status").read_text()
            # A zombie only waits to be reaped by the machine's first process.
            if "\nState:\tZ" in status:
                continue
            line = (folder / "cmdline").read_bytes()
            if word.encode() in line.split(b"\0") if word else f"\nUid:\t{UID}\t" in status:
                found.append(f"{folder.name} {line!r}")
    return found


def left(word: str = "") -> list[str]:
    """The same after the kernel had time to end killed processes."""
    end = time.monotonic() + 30
    while (found := processes(word)) and time.monotonic() < end:
        time.sleep(0.1)
    return found


@pytest.fixture
def place() -> Iterator[Path]:
    """The source tree readable for all users, and a home."""
    with throwaway.folder() as folder:
        shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("home", "root"):
            (folder / name).mkdir()
        os.chown(folder / "home", UID, UID)
        yield folder


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can forbid it")


def build(place: Path, *prefix: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": f"{place}/src", "HOME": f"{place}/home", "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
    return subprocess.run(
        [*prefix, "/usr/bin/python3", "-B", "-m", "debian_cloud", "build", "x", "--output", f"{place}/home/out"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@needs_root
@pytest.mark.parametrize(
    ("prefix", "status", "sentence", "hint"),
    [
        ((*CHROOT, "ROOT", *AS_USER), 1, "unshare failed: Operation not permitted", "outside of a chroot"),
        ((*SECCOMP_COMMAND, *AS_USER), 1, "unshare failed: Operation not permitted", "the kernel may forbid it"),
        ((*LIMIT_COMMAND, *AS_USER), 1, "the limit is reached", "sysctl user.max_user_namespaces=10000"),
        ((*HIDDEN, *AS_USER), 1, "mount /proc failed", "show it all of /proc"),
        (AS_USER, 1, f"you (user {UID}) don't exist", "usermod --add-subuids"),
        (AS_NOBODY, 1, 'no line matching user "nobody" in /etc/subuid', "usermod --add-subuids"),
        ((*UNMAPPED, *AS_USER), 2, "the tool newuidmap is missing", "apt-get install uidmap"),
        (SECCOMP_COMMAND, 1, "unshare failed: Operation not permitted", "build outside of the container"),
        (POWERLESS, 1, "unshare failed: Operation not permitted", "build outside of the container"),
    ],
    ids=["chroot", "seccomp", "limit", "proc", "unknown", "subuid", "uidmap", "root-seccomp", "root-powerless"],
)
def test_a_build_where_namespaces_are_forbidden_says_so_before_anything_else(
    place: Path, prefix: tuple[str, ...], status: int, sentence: str, hint: str
) -> None:
    done = build(place, *(str(place / "root") if word == "ROOT" else word for word in prefix))
    refused(done, status, sentence, hint)
    assert len(done.stderr.splitlines()) == 2
    assert left() == []
    assert list((place / "home").iterdir()) == []


@needs_root
def test_a_printed_plan_does_not_wait_there_either(place: Path) -> None:
    """A reader of the plan's output does not wait either: no process is left that holds the pipe open."""
    script = place / "plan.sh"
    script.write_text(plans.as_shell((plans.Run("root", ("id", "-u"), root=True),), str(place / "home" / "x"), "x"))
    command: list[str | Path] = [*CHROOT, place / "root", *AS_USER, "sh", script]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert done.stderr == "unshare: unshare failed: Operation not permitted\n"
    assert left() == []
    assert list((place / "home").iterdir()) == []


@pytest.mark.parametrize(
    ("said", "sentence", "hint"),
    [
        (
            "newuidmap: write to uid_map failed: Operation not permitted",
            "no namespace can be created: write to uid_map failed: Operation not permitted",
            "no_new_privs",
        ),
        (
            "newuidmap: uid range [1-65536) -> [100000-165536) not allowed",
            "no namespace can be created: uid range [1-65536) -> [100000-165536) not allowed",
            "set-user-ID",
        ),
        ("unshare: unshare failed: No space left on device", "unshare failed: the limit is reached", "namespaces(7)"),
        (
            "unshare: cannot change root filesystem propagation: Permission denied",
            "cannot change root filesystem propagation: Permission denied",
            "outside of",
        ),
    ],
)
def test_each_refusal_has_its_way_out(said: str, sentence: str, hint: str) -> None:
    error = failures.failed(("mmdebstrap",), 1, f"a line\n{said}\n", "install")
    assert error.message.startswith("install: no namespace can be created: ")
    assert sentence in error.message
    assert hint in error.hint


@pytest.mark.parametrize(
    ("setting", "value", "way"),
    [
        ("kernel.unprivileged_userns_clone", "0\n", "sysctl kernel.unprivileged_userns_clone=1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1\n", "kernel.apparmor_restrict_unprivileged_userns=0"),
    ],
)
def test_a_setting_of_the_machine_that_forbids_it_is_named(
    monkeypatch: pytest.MonkeyPatch, setting: str, value: str, way: str
) -> None:
    read = Path.read_text

    def faked(path: Path, *arguments: str) -> str:
        return value if path == Path("/proc/sys", *setting.split(".")) else read(path, *arguments)

    monkeypatch.setattr(os, "geteuid", lambda: UID)
    monkeypatch.setattr(Path, "read_text", faked)
    assert way in failures.refused("unshare: unshare failed: Operation not permitted").hint


def leaving(word: str, status: int = 0) -> tuple[str, ...]:
    """A command that ends, and leaves a process that holds all its descriptors."""
    return ("sh", "-c", f"sleep {word} & echo said; echo complaint >&2; exit {status}")


def test_who_leaves_a_process_behind_keeps_nobody_waiting() -> None:
    word = f"1000.{os.getpid()}"
    assert run.output(leaving(word)) == "said\n"
    assert run.answer(leaving(word, 1)) == "said\n"
    assert run.words(leaving(word, 1)) == "said\ncomplaint\n"
    with pytest.raises(Error, match="sh failed with exit status 1\n  complaint"):
        run.output(leaving(word, 1))
    assert left(word) == []


@pytest.mark.parametrize("status", [0, 1])
def test_a_step_that_leaves_a_process_behind_is_done(tmp_path: Path, status: int) -> None:
    word = f"1001.{os.getpid()}"
    # More than fits into a pipe, which the command does not read.
    step = plans.Run("leave it", leaving(word, status), stdin="x" * 2**20)
    with contextlib.ExitStack() as stack:
        if status:
            stack.enter_context(pytest.raises(Error, match="leave it: sh failed"))
        run.carry_out((step,), tmp_path, Progress(1, quiet=True))
    assert left(word) == []


def test_where_no_namespace_is_and_a_process_is_left_a_workspace_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    word = f"1002.{os.getpid()}"
    monkeypatch.setattr(run, "_namespace", lambda: (*leaving(word, 1), "unshare"))
    work = tmp_path / "work"
    (work / "tree").mkdir(parents=True)
    folders.empty(work)
    folders.remove(work)
    assert not work.exists()
    assert left(word) == []


def test_a_probe_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    word = f"1003.{os.getpid()}"
    monkeypatch.setattr(run, "_PROBE", 0.2)
    monkeypatch.setattr(run, "_namespace", lambda: ("sh", "-c", f"sleep {word}"))
    with pytest.raises(Error, match="no namespace can be created: the attempt did not end in time"):
        run.check_namespace()
    assert left(word) == []


def test_an_interrupted_command_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C interrupts a command while its output is read."""
    word = f"1004.{os.getpid()}"
    script = f"""
import os, signal, threading
from debian_cloud.host import run
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
signal.signal(signal.SIGINT, signal.default_int_handler)
run.output(("sh", "-c", "sleep {word} & sleep {word}"))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert "KeyboardInterrupt" in done.stderr
    assert left(word) == []


def test_what_a_command_gives_that_is_no_text_is_kept_for_its_reader() -> None:
    assert run.output(("printf", r"caf\351")) == "caf\udce9"
