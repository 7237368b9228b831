# SPDX-License-Identifier: GPL-3.0-or-later
"""Carry a plan out; the only importer of subprocess."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from . import plan as plans
from . import tools
from .errors import FAILED, USAGE, Error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from .progress import Progress

_TAIL: Final = 12
"""Lines of a failed tool's own words that are shown."""
_REASONS: Final = ("E: ", "Err:", "dpkg: error", "error: ")
# Of what a tool says: a cause that one sentence tells better, and what to do.
_CAUSES: Final = (
    # A step that is our own says it itself.
    (
        re.compile(r"^debian-cloud: error: (?P<why>(?:.|\n)+?)\ndebian-cloud: hint: (?P<hint>.+)", re.MULTILINE),
        r"\g<why>",
        r"\g<hint>",
    ),
    (
        re.compile("No space left on device|ENOSPC"),
        "the disk is full",
        "free some space, or choose another place with --output",
    ),
    (
        re.compile(
            r"^dpkg: error processing archive \S*?(?P<new>[^/\s_]+)_[^/\s]*\.deb \(--unpack\):\n"
            r" *trying to overwrite '(?P<path>[^'\n]+)', which is also in package (?P<old>\S+)",
            re.MULTILINE,
        ),
        r"\g<new> and \g<old> both have the file \g<path>",
        r"a file belongs to one package: give the one of \g<new> a name of its own, as in a folder of drop-ins",
    ),
    (
        re.compile(r"^(?:unshare|newuidmap|newgidmap): (?P<why>.+)", re.MULTILINE),
        r"no namespace can be made: \g<why>",
        "an ordinary user needs user namespaces, and lines in /etc/subuid and /etc/subgid (unshare(1), subuid(5))",
    ),
)
_PATIENCE: Final = 25
_LOG: Final = "log"

SBIN: Final = "/usr/sbin:/sbin"
"""Folders of tools that an ordinary user's PATH lacks."""


def output(argv: Sequence[str]) -> str:
    """What a command prints; Error when it fails."""
    process = subprocess.run(
        [_find(argv[0]), *argv[1:]], env=_environment(()), stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if process.returncode:
        raise _failed(argv, process.returncode, process.stderr.decode(errors="replace") or process.stdout.decode())
    return process.stdout.decode()


def answer(argv: Sequence[str]) -> str:
    """What a command prints on its standard output, whether it fails or not."""
    process = subprocess.run(
        [_find(argv[0]), *argv[1:]], env=_environment(()), stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    return process.stdout.decode(errors="replace")


def words(argv: Sequence[str]) -> str:
    """What a command says, on either stream, whether it fails or not."""
    process = subprocess.run(
        [_find(argv[0]), *argv[1:]],
        env=_environment(()),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return process.stdout.decode(errors="replace")


@contextlib.contextmanager
def through(argv: Sequence[str], source: IO[bytes]) -> Iterator[IO[bytes]]:
    """What a command makes of a file, from where that was read to; it is ended with the reader."""
    os.lseek(source.fileno(), source.tell(), os.SEEK_SET)
    process = subprocess.Popen(
        [_find(argv[0]), *argv[1:]],
        env=_environment(()),
        stdin=source,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        yield process.stdout
    finally:
        process.kill()
        process.communicate()


def foreground(argv: Sequence[str]) -> int:
    """Run a command that speaks to the user itself, on standard error; its exit status."""
    return subprocess.run(
        [_find(argv[0]), *argv[1:]], env=_environment(()), stdout=sys.stderr.fileno(), check=False
    ).returncode


def carry_out(plan: plans.Plan, workspace: Path, progress: Progress, lock: int | None = None) -> None:
    """Carry a plan out in a folder; Error of the first step that fails, with its tool's own words.

    The processes of its steps hold `lock` too (`locked`): when we are killed,
    the folder stays locked until the last of them has ended.
    """
    check_tools(plan)
    for step in plan:
        progress.step(step.title)
        if isinstance(step, plans.Write):
            path = workspace / step.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step.text, "utf-8")
            path.chmod(step.mode)
        else:
            _run(step, workspace, progress, lock)
    progress.end()


def check_tools(plan: plans.Plan) -> None:
    """Error that names the Debian package of the first tool that is missing."""
    for step in plan:
        if isinstance(step, plans.Run):
            # A path is a script that the plan itself writes.
            if "/" not in step.argv[0]:
                _find(step.argv[0])
            if step.root:
                for tool in _namespace()[:1] + (() if os.geteuid() == 0 else ("newuidmap",)):
                    _find(tool)


@contextlib.contextmanager
def locked(folder: Path, what: str, *, wait: bool = False) -> Iterator[int]:
    """Hold a folder, which is made if need be; the kernel lets go when we die. Gives the lock's descriptor.

    When another process holds it: Error, or with `wait` patience.
    """
    while True:
        descriptor = _own_folder(folder)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise Error(f"{what} is in use by another debian-cloud", "wait until it has ended") from None
                print(f"debian-cloud: waiting for another debian-cloud that uses {what}", file=sys.stderr)  # noqa: T201 - a wait without a word looks like a hang
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Its last holder may have removed it before it let go: then this is no one's folder any more.
            if _same(descriptor, folder):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def remove(folder: Path) -> None:
    """Remove a workspace, with the files in it that belong to a namespace's users; Error when it cannot be."""
    argv = ("rm", "-rf", "--one-file-system", "--", str(folder))
    for _ in range(_PATIENCE):
        said = _in_namespace(argv)
        if not folder.exists():
            return
        # The kernel ends a killed namespace in its own time; until then its processes may write.
        time.sleep(0.2)
    raise _not_removed(folder, said)


def empty(folder: Path) -> None:
    """Remove what is in a workspace, and keep it; Error when it cannot be."""
    if any(folder.iterdir()):
        said = _in_namespace(("find", str(folder), "-xdev", "-mindepth", "1", "-delete"))
        if any(folder.iterdir()):
            raise _not_removed(folder, said)


def _in_namespace(argv: Sequence[str]) -> str:
    """Run a command as a namespace's root; what it says on its standard error."""
    said = ""
    # Where no namespace can be made, nobody else has files there yet: who we are will do.
    for prefix in (_namespace(), ()):
        process = subprocess.run(
            [*prefix, *argv],
            env=_environment(()),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            # Ctrl-C is not for this: a session of its own.
            start_new_session=True,
            check=False,
        )
        said += process.stderr.decode(errors="replace")
        if not process.returncode:
            break
    return said


def _not_removed(folder: Path, said: str) -> Error:
    lines = said.splitlines()
    # Why there was no namespace says more than whose files rm(1) may then not remove.
    reason = next((line for line in lines if line.startswith("unshare: ")), lines[-1] if lines else "")
    return Error(f"{folder} could not be removed{reason and f': {reason}'}", f"remove it as root: rm -rf {folder}")


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let nothing end us, for the few moments in which half the work would be left."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def ending_politely() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the work as Ctrl-C does, so that nothing is left behind."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _own_folder(folder: Path) -> int:
    """A descriptor of a folder that is ours alone to write, made if need be.

    Its name can be guessed and the place may be open to all: what runs in there
    as root must not be put there by another.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o755)
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        raise Error(f"{folder} is no folder", "remove what is there", USAGE) from None
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        os.close(descriptor)
        raise Error(f"{folder} belongs to another or is open to others", "remove it, or choose another place", USAGE)
    return descriptor


def _same(descriptor: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def _namespace() -> tuple[str, ...]:
    return plans.NAMESPACE if os.geteuid() == 0 else plans.NAMESPACE_USER


def _run(step: plans.Run, workspace: Path, progress: Progress, lock: int | None) -> None:
    argv = (*(_namespace() if step.root else ()), *step.argv)
    stdin = step.stdin.encode() if isinstance(step.stdin, str) else step.stdin
    log = workspace / _LOG
    # A file, not a pipe: no tool can block on it, and its end is there to show when the tool fails.
    with log.open("wb") as said:
        process = subprocess.Popen(
            argv,
            cwd=workspace,
            env=_environment(step.env),
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=subprocess.STDOUT,
            umask=0o022,
            pass_fds=() if lock is None else (lock,),
            # Ctrl-C is for us: we end the step and clean up, whatever its tool would do.
            start_new_session=True,
        )
        try:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(stdin)
                process.stdin.close()
            while True:
                try:
                    status = process.wait(timeout=0.5)
                    break
                except subprocess.TimeoutExpired:
                    progress.tick(_last_line(log))
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            progress.end()
            raise
    if status:
        progress.end()
        raise _failed(step.argv, status, log.read_text(errors="replace"), step.title)


def _environment(extra: Sequence[tuple[str, str]]) -> dict[str, str]:
    kept = {name: os.environ[name] for name in plans.KEPT if name in os.environ}
    # The `debian-cloud` that a plan calls is the one that runs it; ordinary users lack the sbin folders.
    path = f"{Path(sys.argv[0]).resolve().parent}:{kept.get('PATH', '/usr/bin:/bin')}:{SBIN}"
    return {**kept, "PATH": path, **plans.ENVIRONMENT, **dict(extra)}


def _find(tool: str) -> str:
    found = shutil.which(tool, path=_environment(())["PATH"])
    if found is None:
        package = tools.PACKAGES.get(tool, tool)
        raise Error(f"the tool {tool} is missing", f"apt-get install {package}", USAGE)
    return found


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 400))
        lines = file.read().decode(errors="replace").splitlines()
    return lines[-1] if lines else ""


def _failed(argv: Sequence[str], status: int, said: str, title: str = "") -> Error:
    lines = [line for line in said.splitlines() if line.strip()]
    what = title or argv[0]
    for known, sentence, hint in _CAUSES:
        if found := known.search(said):
            return Error(f"{what}: {found.expand(sentence)}", found.expand(hint), FAILED)
    ending = f"was killed by signal {-status}" if status < 0 else f"failed with exit status {status}"
    # The reason often stands long before the end: apt's and dpkg's own marks find it.
    reasons = [line for line in lines[:-_TAIL] if line.startswith(_REASONS)][:_TAIL]
    shown = "".join(f"\n  {line}" for line in (*reasons, *lines[-_TAIL:]))
    return Error(f"{what}: {argv[0]} {ending}{shown}", f"the command was: {_short(argv)}", FAILED)


def _short(argv: Sequence[str]) -> str:
    text = shlex.join(argv)
    return text if len(text) < 400 else text[:400] + " …"
