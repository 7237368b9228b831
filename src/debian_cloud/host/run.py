# SPDX-License-Identifier: GPL-3.0-or-later
"""Carry a plan out; the only importer of subprocess.

Root steps run in namespaces, for root and for ordinary users alike: mounts end with the process. Output of a process
goes to a file, never to a pipe that another could keep open, and whatever it leaves in its session when it ends is
ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, Final, cast

from debian_cloud import plan as plans
from debian_cloud.errors import FAILED, USAGE, Error
from debian_cloud.host import tools
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from debian_cloud.host.progress import Progress

_TAIL: Final = 12
"""Lines of a failed tool's own words that are shown."""
_MOST_SAID: Final = 2**16
"""Bytes of what a failed tool says that are looked at."""
_MOST_LOGGED: Final = 2**22
"""Bytes at the beginning, and at the end, of what a failed step says that are looked at."""
_REASONS: Final = ("E: ", "Err:", "dpkg: error", "error: ")
# Of what a tool says: a cause that one sentence tells better, and what to do.
_CAUSES: Final = (
    # A step that is our own says it itself.
    (
        re.compile(
            r"^debian-cloud: error: (?P<why>.+(?:\n(?!debian-cloud: ).*)*)\ndebian-cloud: hint: (?P<hint>.+)",
            re.MULTILINE,
        ),
        r"\g<why>",
        r"\g<hint>",
    ),
    # mke2fs(8) fills a disk of its own, whatever the one is that it lies on.
    (
        re.compile("Could not allocate (?:block|inode) in ext2 filesystem"),
        "the disk of the image is too small for what is in it",
        "set Image-Size to more; for a try, give --size",
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
)
_NO_NAMESPACE: Final = re.compile(r"^(?:unshare|newuidmap|newgidmap): (?P<why>.+)", re.MULTILINE)
# Of the kernel, for ordinary users: a setting, its value that forbids namespaces, one that allows them.
_SETTINGS: Final = (
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ("user.max_user_namespaces", "0", "10000"),
)
# What stands in a refusal, and what to do; the first that fits.
_WAYS: Final = (
    (
        "subuid|subgid|don't exist",
        "a user needs ids of its own there: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER",
    ),
    (
        "map",
        "newuidmap(1) must be able to map ids: it needs its set-user-ID bit, and neither no_new_privs nor nosuid",
    ),
    (
        "/proc",
        "a container that hides parts of its /proc lets nobody mount another: build outside of it, or show all",
    ),
    ("No space left", "a limit of user.max_*_namespaces is reached: namespaces(7)"),
)
_PATIENCE: Final = 25
_PROBE: Final = 60.0
"""Seconds in which an empty namespace must be made, or a process end that has nothing more to say."""
_TICK: Final = 0.5
"""Seconds between two looks at how far a step has come."""
_LOG: Final = "log"

SBIN: Final = "/usr/sbin:/sbin"
"""Folders of tools that an ordinary user's PATH lacks."""


def output(argv: Sequence[str]) -> str:
    """What a command prints; Error when it fails."""
    status, said, complaint = _done(argv)
    if status:
        raise _failed(argv, status, (complaint or said).decode(errors="replace"))
    # What is not UTF-8 is whoever reads it to refuse, or to show.
    return said.decode(errors="surrogateescape")


@contextlib.contextmanager
def printing(argv: Sequence[str]) -> Iterator[IO[bytes]]:
    """What a command prints, to be read as it comes, to its end: so no more is kept than the reader keeps.

    Error when it fails; it is ended when the reader has had enough, and raises.
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
            raise _failed(argv, process.returncode, said.read(_MOST_SAID).decode(errors="replace"))


def answer(argv: Sequence[str]) -> str:
    """What a command prints on its standard output, whether it fails or not."""
    return _done(argv)[1].decode(errors="replace")


def words(argv: Sequence[str], folder: Path | None = None) -> str:
    """What a command says, on either stream, whether it fails or not; it runs in a folder, if one is given."""
    return _done(argv, together=True, folder=folder)[1].decode(errors="replace")


@contextlib.contextmanager
def through(argv: Sequence[str], source: IO[bytes]) -> Iterator[IO[bytes]]:
    """What a command makes of a file, from where that was read to; it is ended with the reader.

    Whoever reads to the end gets an OSError there if the command failed: it need not have made all.
    """
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
        yield io.BufferedReader(_Whole(process, process.stdout, argv))
    finally:
        process.kill()
        process.communicate()


class _Whole(io.RawIOBase):
    """What a process prints, with an OSError at its end if it failed."""

    def __init__(self, process: subprocess.Popen[bytes], printed: IO[bytes], argv: Sequence[str]) -> None:
        self._process, self._printed, self._argv = process, printed, argv

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast("bytearray", buffer)).cast("B")
        data = self._printed.read(len(view))
        view[: len(data)] = data
        if not data and self._failed():
            raise OSError(f"this failed: {shlex.join(self._argv)}")
        return len(data)

    def _failed(self) -> bool:
        try:
            return bool(self._process.wait(_PROBE))
        except subprocess.TimeoutExpired:
            return True


def foreground(argv: Sequence[str], folder: Path | None = None) -> int:
    """Run a command that speaks to the user itself, on standard error; its exit status."""
    return subprocess.run(
        [_find(argv[0]), *argv[1:]], env=_environment(()), cwd=folder, stdout=sys.stderr.fileno(), check=False
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
            # Before there is anything in it.
            path.touch()
            path.chmod(step.mode)
            path.write_text(step.text, "utf-8")
        else:
            _run(step, workspace, progress, lock)
    progress.end()


def check_tools(plan: plans.Plan) -> None:
    """Error that names the Debian package of the first tool that is missing."""
    for step in plan:
        # A path is a script that the plan itself writes.
        if isinstance(step, plans.Run) and "/" not in step.argv[0]:
            _find(step.argv[0])
    if any(isinstance(step, plans.Run) and step.root for step in plan):
        check_namespace()


def check_namespace() -> None:
    """Error that says why, and what to do, where no namespace for root steps can be made."""
    prefix = _namespace()
    for tool in (*prefix[:1], *(("newuidmap", "newgidmap") if "--map-auto" in prefix else ())):
        _find(tool)
    # First without --map-auto: for that unshare(1) starts a process, which waits for ever where the kernel refuses.
    for tried in dict.fromkeys((tuple(word for word in prefix if word != "--map-auto"), prefix)):
        status, said, _ = _done((*tried, "true"), together=True, seconds=_PROBE)
        if status:
            raise _refused(said.decode(errors="replace") or "it did not end in time")


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


@contextlib.contextmanager
def partial(place: Path, what: str) -> Iterator[Path]:
    """An empty folder beside a place, for what is given that place by a rename when it is whole; then it is removed.

    What a run that was killed has left there is removed, too. Error when another run is at work there.
    """
    held = place.with_name(f".{place.name}.partial")
    with locked(held, what):
        try:
            for left in held.iterdir():
                shutil.rmtree(left)
            # Of its own name: a process that a killed run left behind may still write to the other.
            yield Path(tempfile.mkdtemp(dir=held))
        finally:
            shutil.rmtree(held, ignore_errors=True)


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
        status, _, complaint = _done((*prefix, *argv))
        said += complaint.decode(errors="replace")
        if not status:
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


class Ended(KeyboardInterrupt):
    """The end by a signal, whose number is its only argument (`ending_politely`)."""


@contextlib.contextmanager
def ending_politely() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the work as Ctrl-C does, so that nothing is left behind."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise Ended(number)

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
    while True:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o755)
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            break
        except FileNotFoundError:
            # It was there, and its holder has removed it in the meantime.
            continue
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
            pass_fds=() if lock is None else (lock,),
            start_new_session=True,
        )
        try:
            status = _ended(process, lambda: progress.tick(_last_line(log)))
        except BaseException:
            progress.end()
            raise
    if status:
        progress.end()
        raise _failed(step.argv, status, _ends(log), step.title)


def _done(
    argv: Sequence[str], *, together: bool = False, seconds: float | None = None, folder: Path | None = None
) -> tuple[int, bytes, bytes]:
    """A command's exit status, and what it says on standard output and error, or `together` on the first.

    It is ended when it takes longer than `seconds`.
    """
    # Files, not pipes: whoever holds one open after the command has ended keeps nobody waiting.
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
    """A file without a name or a disk, for what a process reads or says."""
    return os.fdopen(os.memfd_create("debian-cloud"), "w+b")


def _ended(
    process: subprocess.Popen[bytes], tick: Callable[[], None] = lambda: None, seconds: float | None = None
) -> int:
    """Wait for a process that leads a session of its own; then end whatever it leaves behind there.

    So Ctrl-C is for us: we end the process, whatever it would do itself. What
    makes a session of its own, such as gpg-agent, stays.
    """
    begun = ticked = time.monotonic()
    delay = 0.0005
    try:
        # Not reaped yet, its number is nobody else's.
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
    # The `debian-cloud` that a plan calls is the one that runs it; ordinary users lack the sbin folders.
    path = f"{Path(sys.argv[0]).resolve().parent}:{kept.get('PATH', '/usr/bin:/bin')}:{SBIN}"
    return {**kept, "PATH": path, **plans.ENVIRONMENT, **dict(extra)}


def _find(tool: str) -> str:
    found = shutil.which(tool, path=_environment(())["PATH"])
    if found is None:
        raise Error(f"the tool {tool} is missing", f"apt-get install {tools.package(tool)}", USAGE)
    return found


def _ends(log: Path) -> str:
    """What a step has said, or the beginning and the end of more than that."""
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


def _failed(argv: Sequence[str], status: int, said: str, title: str = "") -> Error:
    lines = [line for line in said.splitlines() if line.strip()]
    what = title or argv[0]
    if _NO_NAMESPACE.search(said):
        return _refused(said, what)
    for known, sentence, hint in _CAUSES:
        if found := known.search(said):
            return Error(f"{what}: {found.expand(sentence)}", found.expand(hint), FAILED)
    ending = f"was killed by signal {-status}" if status < 0 else f"failed with exit status {status}"
    # The reason often stands long before the end: apt's and dpkg's own marks find it.
    reasons = [line for line in lines[:-_TAIL] if line.startswith(_REASONS)][:_TAIL]
    shown = "".join(f"\n  {printable(line)}" for line in (*reasons, *lines[-_TAIL:]))
    return Error(f"{what}: {argv[0]} {ending}{shown}", f"the command was: {_short(argv)}", FAILED)


def _refused(said: str, what: str = "") -> Error:
    """Why no namespace can be made, by what unshare(1) says and how the machine is set, and what to do."""
    match = _NO_NAMESPACE.search(said)
    why = printable(match["why"] if match else said).removesuffix(": Success")
    # ENOSPC is of limits here, not of a disk (unshare(2)).
    sentence = f"no namespace can be made: {why.replace('No space left on device', 'the limit is reached')}"
    return Error(f"{what}: {sentence}" if what else sentence, _way(match[0] if match else said))


def _way(said: str) -> str:
    if os.geteuid():
        for name, forbids, allows in _SETTINGS:
            with contextlib.suppress(OSError):
                if Path("/proc/sys", *name.split(".")).read_text("ascii").strip() == forbids:
                    return f"this machine forbids it to ordinary users: sysctl {name}={allows}, or build as root"
    for pattern, hint in _WAYS:
        if re.search(pattern, said):
            return hint
    if os.geteuid():
        return (
            "the kernel refuses it to ordinary users in a chroot, and a container may forbid it:"
            " build outside of it, or as root (user_namespaces(7))"
        )
    return "root of a container may not make one: build outside of it, or give it CAP_SYS_ADMIN (capabilities(7))"


def _short(argv: Sequence[str]) -> str:
    text = shlex.join(argv)
    return text if len(text) < 400 else text[:400] + " …"
