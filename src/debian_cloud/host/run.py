# SPDX-License-Identifier: GPL-3.0-or-later
"""Run commands and the steps of plans; the only importer of subprocess.

Root steps run in namespaces, for root and for ordinary users alike: mounts end with the process. The output of a
process goes to a file, not to a pipe that another process could keep open, unless the caller reads it as a stream
(`printing`, `through`). When a process ends, the other processes of its group are killed.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, Final, cast

from debian_cloud import plan as plans
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import failures, timing, tools
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import NoReturn

    from debian_cloud.host.progress import Progress

_MOST_SAID: Final = 2**16
"""Maximum bytes of a failed tool's output that are read."""
_MOST_LOGGED: Final = 2**22
"""Maximum bytes of a failed step's output that are read at its beginning, and at its end."""
_MOST_TOLD: Final = 2**26
"""Maximum bytes of a bounded command's output that are read: a line for each of some hundred thousand files."""
_PROBE: Final = 60.0
"""Seconds in which an empty namespace must be made, or a process must end after the end of its output."""
_ROOM: Final = 2**16
"""Free bytes below which a disk is full: a tool that fails then may not say so."""
_TICK: Final = 0.5
"""Seconds between two updates of a step's progress."""
_LOG: Final = "log"
_MOUNTED: Final = ("sh", "-euc", f'mount --bind "$1" {plans.TREE}; shift; exec "$@"', "sh")

SBIN: Final = "/usr/sbin:/sbin"
"""Directories of tools that an ordinary user's PATH lacks."""


def output(argv: Sequence[str]) -> str:
    """The standard output of a command; Error if it fails."""
    status, said, complaint = _done(argv)
    if status:
        raise failures.failed(argv, status, (complaint or said).decode(errors="replace"))
    # The caller refuses or shows what is not UTF-8.
    return said.decode(errors="surrogateescape")


@contextlib.contextmanager
def printing(argv: Sequence[str]) -> Iterator[IO[bytes]]:
    """The standard output of a command as a stream, to be read to its end; only what the reader keeps is kept.

    Error if the command fails; if the reader raises an exception, the command is killed.
    """
    with (
        _memory() as said,
        subprocess.Popen(
            [_find(argv[0]), *argv[1:]],
            env=_environment(()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            yield process.stdout
        except BaseException:
            process.kill()
            raise
        process.stdout.close()
        if process.wait():
            said.seek(0)
            raise failures.failed(argv, process.returncode, said.read(_MOST_SAID).decode(errors="replace"))


def answer(argv: Sequence[str]) -> str:
    """The standard output of a command, whether it fails or not."""
    return _done(argv)[1].decode(errors="replace")


def status(argv: Sequence[str], seconds: float) -> int:
    """The exit status of a command; it is negative if the command was killed after so many seconds."""
    return _done(argv, seconds=seconds)[0]


def words(argv: Sequence[str], folder: Path | None = None) -> str:
    """The output of a command on both streams, whether it fails or not; it runs in `folder`, if given."""
    return _done(argv, together=True, folder=folder)[1].decode(errors="replace")


@contextlib.contextmanager
def through(argv: Sequence[str], source: IO[bytes], *, heard: bool = False) -> Iterator[IO[bytes]]:
    """The output of a command that reads a file from its current position; it is killed when the context ends.

    Its standard error is this process's if it is to be `heard`, and nowhere otherwise.

    Reading to the end raises OSError if the command failed, because the output may be incomplete.
    """
    os.lseek(source.fileno(), source.tell(), os.SEEK_SET)
    process = subprocess.Popen(
        [_find(argv[0]), *argv[1:]],
        env=_environment(()),
        stdin=source,
        stdout=subprocess.PIPE,
        stderr=None if heard else subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        yield io.BufferedReader(_Whole(process, process.stdout, argv))
    finally:
        process.kill()
        process.communicate()


def fed(argv: Sequence[str], source: IO[bytes]) -> None:
    """Run a command that reads a file from its current position, and writes to this process's streams.

    Raise Error if it fails.
    """
    os.lseek(source.fileno(), source.tell(), os.SEEK_SET)
    status = subprocess.run([_find(argv[0]), *argv[1:]], env=_environment(()), stdin=source, check=False).returncode
    if status:
        raise failures.failed(argv, status, "")


class _Whole(io.RawIOBase):
    """The output of a process; its end raises OSError if the process failed."""

    def __init__(self, process: subprocess.Popen[bytes], printed: IO[bytes], argv: Sequence[str]) -> None:
        self._process, self._printed, self._argv = process, printed, argv

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast("bytearray", buffer)).cast("B")
        data = self._printed.read(len(view))
        view[: len(data)] = data
        if not data and self._failed():
            raise OSError(f"command failed: {shlex.join(self._argv)}")
        return len(data)

    def _failed(self) -> bool:
        try:
            return bool(self._process.wait(_PROBE))
        except subprocess.TimeoutExpired:
            return True


def detached(argv: Sequence[str], folder: Path, log: IO[bytes], *, keep: Sequence[int], largest: int) -> None:
    """Start a program that outlives this process and is not its child; return when it has been started.

    It leads a session of its own, runs in `folder`, has the descriptors `keep`, writes no file larger than `largest`
    bytes, and its output goes to `log`. Whether it goes on running must be seen from what it does.
    """
    # A child that ended would stay a zombie for as long as a program like this one runs.
    prefix = ("prlimit", f"--fsize={largest}", "setsid", "--fork")
    need(prefix[0], prefix[2], argv[0])
    status = subprocess.run(
        [_find(prefix[0]), *prefix[1:], _find(argv[0]), *argv[1:]],
        env=_environment(()),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=keep,
        # Python ignores SIGXFSZ: the program sees an error instead of its end.
        restore_signals=False,
        check=False,
    ).returncode
    if status:
        raise failures.failed(argv, status, "")


def become(argv: Sequence[str]) -> NoReturn:
    """Replace this process by a program with the user's own environment and terminal; Error if it is missing."""
    program = _find(argv[0])
    sys.stdout.flush()
    sys.stderr.flush()
    # Python ignores both, and a program keeps what is ignored.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.execve(program, [*argv], os.environ)  # noqa: S606 - an argument list


def foreground(argv: Sequence[str], folder: Path | None = None) -> int:
    """Run a command that writes to the user itself, on standard error, and return its exit status."""
    return subprocess.run(
        [_find(argv[0]), *argv[1:]], env=_environment(()), cwd=folder, stdout=sys.stderr.fileno(), check=False
    ).returncode


@dataclass(frozen=True, slots=True)
class Limits:
    """What a command may take: `seconds` in all, and bytes of each file that it writes.

    It must also read and write `slowest` bytes per second, on average over each `window` of seconds; 0 for no such
    limit.
    """

    seconds: float
    largest: int
    slowest: int = 0
    window: float = 60.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: its status, None if it was ended because it exceeded a limit, and what it said.

    `said` has only the beginning of its standard output, and `complaint` the end of its standard error.
    """

    status: int | None
    said: str
    complaint: str


class _TooSlowError(Exception):
    """A command reads and writes too little."""


def bounded(
    argv: Sequence[str],
    folder: Path,
    logs: Path,
    limits: Limits,
    *,
    keep: Sequence[str] = (),
    meter: str = "",
    lock: int | None = None,
) -> Ended:
    """Run a command within limits, in `folder`, with files for its output in the directory `logs`.

    It and its children end with this process, however that ends, and hold the descriptor `lock` until then. It also
    gets the environment's variables `keep`. `meter` is the one of its two streams, "stdout" or "stderr", that goes to
    this process's standard error instead.
    """
    # The kernel tells timeout(1) when its parent dies, and timeout(1) its children; prlimit(1) sets what they write.
    prefix = (
        *("setpriv", "--pdeathsig=TERM", "prlimit", f"--fsize={limits.largest}"),
        *("timeout", "--kill-after=2", str(int(limits.seconds) + 10)),
    )
    need(prefix[0], prefix[2], prefix[4], argv[0])
    with (logs / "stdout").open("w+b") as said, (logs / "stderr").open("w+b") as complaint:
        process = subprocess.Popen(
            [_find(prefix[0]), *prefix[1:], *argv],
            env=_environment([(name, os.environ[name]) for name in keep if name in os.environ]),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno() if meter == "stdout" else said,
            stderr=sys.stderr.fileno() if meter == "stderr" else complaint,
            start_new_session=True,
            pass_fds=() if lock is None else (lock,),
            # Python ignores SIGXFSZ: the command reports by itself that a file is too large.
            restore_signals=False,
        )
        begun = time.monotonic()
        status: int | None
        try:
            status = _ended(process, _watch(process.pid, limits), seconds=limits.seconds)
        except _TooSlowError:
            status = None
        if time.monotonic() - begun > limits.seconds:
            status = None
        complaint.seek(max(0, complaint.seek(0, os.SEEK_END) - _MOST_SAID))
        # A read takes memory for all that it asks for, however little there is.
        told = min(said.seek(0, os.SEEK_END), _MOST_TOLD)
        said.seek(0)
        return Ended(status, said.read(told).decode(errors="replace"), complaint.read().decode(errors="replace"))


def _watch(group: int, limits: Limits) -> Callable[[], None]:
    """A function that raises _TooSlowError if the processes of a group have moved too few bytes in a window."""
    since, before = time.monotonic(), 0

    def tick() -> None:
        nonlocal since, before
        now = time.monotonic()
        if not limits.slowest or now - since < limits.window:
            return
        moved = _moved(group)
        if moved - before < limits.slowest * (now - since):
            raise _TooSlowError
        since, before = now, moved

    return tick


def _moved(group: int) -> int:
    """Bytes that the processes of a group have read and written (proc(5), /proc/PID/io)."""
    total = 0
    for place in Path("/proc").glob("[0-9]*"):
        # Others end at any time.
        with contextlib.suppress(OSError, ValueError, IndexError):
            if int((place / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[2]) == group:
                lines = (place / "io").read_text("ascii").splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith(("rchar:", "wchar:")))
    return total


def carry_out(
    plan: plans.Plan, workspace: Path, progress: Progress, locks: tuple[int, ...] = (), tree: Path | None = None
) -> tuple[timing.Timing, ...]:
    """Run the steps of a plan in a directory; return the cost of each.

    Raise the Error of the first step that fails, with its tool's output. The processes of the steps hold `locks` too
    (`folders.locked`): if this process is killed, the directories stay locked until the last of them has ended. Root
    steps see the directory `tree`, if given, as the tree of the workspace.
    """
    check_tools(plan)
    if tree is not None:
        (workspace / plans.TREE).mkdir(exist_ok=True)
    costs: list[timing.Timing] = []
    for step in plan:
        progress.step(step.title)
        with timing.timed(step.title, costs):
            if isinstance(step, plans.Write):
                _write(step, workspace)
            else:
                _run(step, workspace, progress, locks, tree)
    progress.end()
    return tuple(costs)


def _write(step: plans.Write, workspace: Path) -> None:
    path = workspace / step.path
    path.parent.mkdir(parents=True, exist_ok=True)
    # The mode is set before the file has content.
    path.touch()
    path.chmod(step.mode)
    path.write_text(step.text, "utf-8")


def check_tools(plan: plans.Plan) -> None:
    """Raise an Error that names the Debian package of the first missing tool."""
    for step in plan:
        # A path is a script that the plan itself writes.
        if isinstance(step, plans.Run) and "/" not in step.argv[0]:
            _find(step.argv[0])
    if any(isinstance(step, plans.Run) and step.root for step in plan):
        check_namespace()


def need(*wanted: str) -> None:
    """Raise an Error that names the Debian package of the first of these tools that is missing."""
    for tool in wanted:
        _find(tool)


def check_namespace() -> None:
    """Raise an Error that says why, and what to do, if no namespace for root steps can be made."""
    prefix = _namespace()
    for tool in (*prefix[:1], *(("newuidmap", "newgidmap") if "--map-auto" in prefix else ())):
        _find(tool)
    # First without --map-auto: with it, unshare(1) starts a process, which waits forever if the kernel refuses.
    for tried in dict.fromkeys((tuple(word for word in prefix if word != "--map-auto"), prefix)):
        status, said, _ = _done((*tried, "true"), together=True, seconds=_PROBE)
        if status:
            raise failures.refused(said.decode(errors="replace") or "the attempt did not end in time")


def in_namespace(argv: Sequence[str]) -> str:
    """Run a command as root of a namespace, and return its standard error."""
    said = ""
    # If no namespace can be created, all files are this user's own, and no namespace is needed.
    for prefix in (_namespace(), ()):
        status, _, complaint = _done((*prefix, *argv))
        said += complaint.decode(errors="replace")
        if not status:
            break
    return said


def _namespace() -> tuple[str, ...]:
    return plans.NAMESPACE if os.geteuid() == 0 else plans.NAMESPACE_USER


def _run(step: plans.Run, workspace: Path, progress: Progress, locks: tuple[int, ...], tree: Path | None) -> None:
    mounted = (*_MOUNTED, str(tree)) if tree is not None else ()
    argv = (*((*_namespace(), *mounted) if step.root else ()), *step.argv)
    log = workspace / _LOG
    with log.open("wb") as said, _memory() as stdin:
        stdin.write(step.stdin.encode() if isinstance(step.stdin, str) else step.stdin)
        stdin.seek(0)
        process = subprocess.Popen(
            argv,
            cwd=workspace,
            env=_environment(step.env),
            stdin=stdin,
            stdout=said,
            stderr=subprocess.STDOUT,
            umask=0o022,
            pass_fds=locks,
            start_new_session=True,
        )
        try:
            status = _ended(process, lambda: progress.tick(_last_line(log)))
        except BaseException:
            progress.end()
            raise
    if tree is not None and not tree.exists():
        progress.end()
        raise failures.no_tree(step.title, tree)
    if status:
        progress.end()
        if tree is not None and _is_full(tree):
            raise failures.no_memory(step.title, tree)
        # The tool's own words about it may have found no room in the log, or be another program's.
        reported = "No space left on device" if _is_full(workspace) else _ends(log)
        raise failures.failed(step.argv, status, reported, step.title)


def _is_full(place: Path) -> bool:
    try:
        return shutil.disk_usage(place).free < _ROOM
    except OSError:
        # It is gone: what the step said is the reason.
        return False


def _done(
    argv: Sequence[str], *, together: bool = False, seconds: float | None = None, folder: Path | None = None
) -> tuple[int, bytes, bytes]:
    """A command's exit status, standard output and standard error; with `together`, both in the first.

    The command is killed if it takes longer than `seconds`.
    """
    # Files, not pipes: a process that holds one open after the command has ended blocks no reader.
    with _memory() as said, _memory() as complaint:
        process = subprocess.Popen(
            [_find(argv[0]), *argv[1:]],
            env=_environment(()),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT if together else complaint,
            start_new_session=True,
        )
        status = _ended(process, seconds=seconds)
        for file in (said, complaint):
            file.seek(0)
        return status, said.read(), complaint.read()


def _memory() -> BinaryIO:
    """A file in memory, without a name, for the input or output of a process."""
    return os.fdopen(os.memfd_create("debian-cloud"), "w+b")


def _ended(
    process: subprocess.Popen[bytes], tick: Callable[[], None] = lambda: None, seconds: float | None = None
) -> int:
    """Wait for a process that leads a session of its own; then kill the processes left in its group.

    So Ctrl-C reaches only this program, which kills the process. A process that makes a session of its own, such as
    gpg-agent, stays.
    """
    begun = ticked = time.monotonic()
    delay = 0.0005
    try:
        # As long as it is not reaped, no other process can get its id.
        while not os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
            now = time.monotonic()
            if seconds is not None and now - begun > seconds:
                break
            if now - ticked > _TICK:
                tick()
                ticked = now
            time.sleep(delay)
            delay = min(2 * delay, 0.05)
    finally:
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return process.returncode


def _environment(extra: Sequence[tuple[str, str]]) -> dict[str, str]:
    kept = {name: os.environ[name] for name in plans.KEPT if name in os.environ}
    # The `debian-cloud` that a plan calls is the one that runs it; an ordinary user's PATH lacks the sbin
    # directories.
    path = f"{Path(sys.argv[0]).resolve().parent}:{kept.get('PATH', '/usr/bin:/bin')}:{SBIN}"
    return {**kept, "PATH": path, **plans.ENVIRONMENT, **dict(extra)}


def _find(tool: str) -> str:
    found = shutil.which(tool, path=_environment(())["PATH"])
    if found is None:
        raise Error(f"the tool {tool} is missing", f"run apt-get install {tools.package(tool)}", USAGE)
    return found


def _ends(log: Path) -> str:
    """The output of a step, or only its beginning and end if it is longer than both."""
    with log.open("rb") as file:
        said = file.read(_MOST_LOGGED)
        file.seek(max(file.tell(), file.seek(0, os.SEEK_END) - _MOST_LOGGED))
        return (said + file.read(_MOST_LOGGED)).decode(errors="replace")


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 400))
        lines = file.read().decode(errors="replace").splitlines()
    return printable(lines[-1]) if lines else ""
