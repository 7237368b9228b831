# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances on this machine, each a QEMU process of this user: no root, no daemon.

An instance's disk is an overlay of a verified image, and its directory is all of its state (`machines.qemu.state`).
QEMU survives this program; its lock says whether it runs.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian_cloud.errors import USAGE, Error, did_you_mean
from debian_cloud.host import folders, memory, run, signals
from debian_cloud.machines import expiry, keys, seed, ssh
from debian_cloud.machines.drivers import PATIENCE, NameInUseError, Started, one_by_one, power_off
from debian_cloud.machines.instance import Console, Instance, Login
from debian_cloud.machines.qemu import acceleration, bases, command, firmware, qmp, state
from debian_cloud.machines.qemu.state import Kept
from debian_cloud.machines.spec import memory_of, no_disk, refuse_no_memory
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from debian_cloud.machines.instance import Power, State
    from debian_cloud.machines.source import Source
    from debian_cloud.machines.spec import Disk, MachineSpec
    from debian_cloud.machines.target import Target

_DIRECTORY: Final = "Directory"
FIELDS: Final = (_DIRECTORY,)
"""`Directory`, an absolute path: where instances are, instead of below XDG_STATE_HOME."""

_HOST: Final = "127.0.0.1"
_UP: Final = 30.0
"""Seconds in which QEMU answers after its start; it takes a fraction of one."""
_SHORT: Final = 5.0
"""Seconds in which a running QEMU answers."""
_POLL: Final = 0.1
_PAUSED: Final = {
    "io-error": "its disk could not be written, as if the file system here were full",
    "internal-error": "its processor failed, and must be reset: debian-cloud reboot --force",
    "paused": "it was told so",
}
"""QEMU's word for why a guest does not run -> the reason."""
_LOG: Final = 2**20
"""Bytes of a console's log that are kept."""
_MOST_CPUS: Final = 2


def provider(target: Target) -> Local:
    """The instances of this user."""
    given = target.settings.get(_DIRECTORY, "")
    if given and not given.startswith("/"):
        raise Error(f"{_DIRECTORY} of target {target.name} is not an absolute path", "give one", USAGE)
    return Local(target, state.root(given))


@dataclass(frozen=True, slots=True)
class Local:
    """All instances in one directory."""

    target: Target
    root: Path
    pause: float = 0.5

    def about(self) -> str:
        """The directory."""
        return f"this machine, in {self.root}"

    def publish(self, source: Source) -> str:
        """The base of an image: the name of its file."""
        return bases.of(self.root, source).name

    def check(self, spec: MachineSpec) -> None:
        """Tools, firmware, memory, and what the image can be told."""
        of = spec.image
        board = command.board(of.id.architecture)
        run.need(board.program, "qemu-img", "ssh-keygen")
        _firmware(spec)
        way = _way(spec)
        for given, needed, what in (
            (spec.expires, ("seed",), "cannot be told when to end: omit --expires"),
            (spec.user_data, ("seed",), "reads no user-data here: omit --user-data"),
            (spec.keys, ("seed", "credentials"), "has no login by SSH: omit --key"),
        ):
            if given and way not in needed:
                why = "reads no seed" if "credentials" not in needed else "has no SSH server that a key could be for"
                sentence, _, hint = what.partition(": ")
                raise Error(f"{of.stem} {why}, so it {sentence}", f"{hint}, or use generic or genericcloud", USAGE)
        for disk in spec.disks:
            if not disk.size and not self._disk(disk).exists():
                raise no_disk(disk)
        refuse_no_memory(spec, memory.available())

    def run(self, spec: MachineSpec, image: str, names: Sequence[str], least: int) -> Started:
        """Start instances one by one; if fewer than `least` start, terminate those again."""
        _sweep(self.root)
        started, reason = one_by_one(
            names, least, lambda name, done: self._run(replace(spec, name=name), image, done), self.terminate
        )
        return Started(self._of(started), reason)

    def _of(self, names: Sequence[str]) -> tuple[Instance, ...]:
        return tuple(self._described(name) for name in names)

    def _run(self, spec: MachineSpec, image: str, started: list[str]) -> None:
        """Make an instance, start it, and add its name to those that have been started."""
        self.check(spec)
        folder = self._folder(spec.name)
        mine = False
        try:
            # Its lock is held before others see it, and until QEMU has it.
            with contextlib.ExitStack() as held:
                partial = held.enter_context(folders.partial(folder, f"the instance {spec.name}", wait=True))
                if os.path.lexists(folder):
                    raise NameInUseError(spec.name)
                made = partial / spec.name
                made.mkdir(mode=0o700)
                self._make(made, spec, image)
                lock = held.enter_context(state.locked(made))
                assert lock is not None
                try:
                    mine = bool(made.rename(folder))
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                        raise
                    raise NameInUseError(spec.name) from None
                self._start(folder, state.read(folder), lock)
                started.append(spec.name)
        except BaseException:
            if mine:
                # What went wrong before is what the user is told.
                with signals.undisturbed(), contextlib.suppress(Error, OSError):
                    self.terminate((spec.name,))
            raise

    def _make(self, made: Path, spec: MachineSpec, image: str) -> None:
        """Write all that an instance consists of into an empty directory."""
        of = spec.image
        form = image.rpartition(".")[2]
        base = f"base.{form}"
        _link(self.root / state.BASES / image, made / base, of.stem)
        size = spec.disk or of.virtual_size
        _create(made / state.DISK, size, "-b", base, "-F", command.driver(form))
        boot, found = _firmware(spec)
        if found:
            shutil.copyfile(found.variables, made / state.VARIABLES)
        way = _way(spec)
        sizes = [self._persistent(disk) for disk in spec.disks]
        kept = Kept(
            name=spec.name,
            id=f"{spec.name}-{secrets.token_hex(4)}",
            image=of.stem,
            architecture=of.id.architecture,
            memory=memory_of(spec),
            cpus=spec.cpus or min(_MOST_CPUS, os.cpu_count() or 1),
            boot=boot,
            code=str(found.code) if found else "",
            code_format=found.format if found else "",
            way=way,
            user={"seed": of.machine.user, "credentials": "root"}.get(way, ""),
            disks=tuple(disk.name for disk in spec.disks),
            # A file of a disk also has tables, which take less than a hundredth of it.
            largest=max(size, *sizes, 0) // 100 * 101 + 2**30,
            created=int(time.time()),
            expires=spec.expires,
            throw_away=spec.throw_away,
        )
        _tell(made, kept, (keys.public(self.root), *spec.keys), spec.user_data)
        state.write(made, kept)

    def _disk(self, disk: Disk) -> Path:
        return self.root / state.DISKS / f"{disk.name}.qcow2"

    def _persistent(self, disk: Disk) -> int:
        """Make a disk that outlives instances, unless it exists; its size in bytes."""
        path = self._disk(disk)
        if not path.exists():
            with folders.partial(path, f"the disk {disk.name}", wait=True) as partial:
                _create(partial / path.name, disk.size)
                if not path.exists():
                    (partial / path.name).rename(path)
        # Another instance may have it: QEMU says so when it starts.
        said = run.output(("qemu-img", "info", "--force-share", "--output=json", "-f", "qcow2", str(path)))
        return int(json.loads(said)["virtual-size"])

    def _started(self, folder: Path) -> None:
        """Start the QEMU of an instance that may be running, and wait until it answers."""
        kept = state.read(folder)
        with state.locked(folder) as lock:
            if lock is None:
                raise Error(f"{kept.name} is running already", "log in with `debian-cloud ssh`, or reboot it", USAGE)
            self._start(folder, kept, lock)

    def _start(self, folder: Path, kept: Kept, lock: int) -> None:
        """Start the QEMU of an instance that is locked, and wait until it answers."""
        accelerator = acceleration.found(self.root, kept.architecture)
        for left in (state.PORT, state.PID):
            (folder / left).unlink(missing_ok=True)
        state.trim(folder / state.CONSOLE_LOG, _LOG)
        with (
            state.listening(folder, state.QMP) as told,
            state.listening(folder, state.CONSOLE) as console,
            (folder / state.QEMU_LOG).open("wb") as log,
        ):
            argv = command.argv(kept, accelerator, told.fileno(), console.fileno())
            keep = (lock, told.fileno(), console.fileno())
            run.detached(argv, folder, log, keep=keep, largest=kept.largest)
        try:
            with qmp.opened(folder, _UP) as connection:
                port = qmp.port(connection)
        except Error as error:
            said = printable(state.tail(folder / state.QEMU_LOG, 400).strip())
            raise Error(
                f"{kept.name} could not be started: {error.message}{said and f': {said}'}",
                error.hint or "see qemu(1) for the reason that it gives",
            ) from None
        state.put(folder / state.PORT, f"{port}\n")
        (folder / state.REBOOTING).unlink(missing_ok=True)

    def describe(self, names: Sequence[str] = ()) -> tuple[Instance, ...]:
        """Each instance, as its directory and its lock say."""
        _remove_thrown_away(self.root)
        found: list[Instance] = []
        for name in state.names(self.root):
            if names and name not in names:
                continue
            folder = self._folder(name)
            state.trim(folder / state.CONSOLE_LOG, _LOG)
            try:
                one = self._described(name)
            except (Error, OSError):
                if folder.exists():
                    raise
                continue
            # It may have been removed while it was read.
            if one.state != "damaged" or folder.exists():
                found.append(one)
        return tuple(found)

    def _described(self, name: str) -> Instance:
        folder = self._folder(name)
        if not folder.is_dir():
            raise Error(
                f"there is no instance {printable(name, 80)}", did_you_mean(name, state.names(self.root)), USAGE
            )
        try:
            kept = state.read(folder)
        except Error as error:
            return Instance(name, name, self.target.name, "", "", "damaged", reason=error.message)
        now: State = "stopped"
        login, reason = None, ""
        if state.is_locked(folder):
            port, halted = _port(folder)
            now = "starting" if port is None else "paused" if halted else "running"
            reason = _PAUSED.get(halted, "")
            if port and kept.user:
                alias, host_key = (folder / state.KNOWN_HOSTS).read_text("ascii").strip().split(" ", 1)
                login = Login(kept.user, _HOST, port, alias, host_key, str(self.root / keys.NAME))
        return Instance(
            *(name, kept.id, self.target.name, kept.image, kept.architecture, now, kept.created, kept.expires),
            login=login,
            throw_away=kept.throw_away,
            reason=reason,
        )

    def console(self, name: str) -> Console:
        """The end of what was written, and the socket while it runs."""
        folder = self._folder(name)
        if not folder.is_dir():
            raise Error(f"there is no instance {printable(name, 80)}", "see `debian-cloud instances`", USAGE)
        state.trim(folder / state.CONSOLE_LOG, _LOG)
        path = folder / state.CONSOLE
        return Console(state.tail(folder / state.CONSOLE_LOG, _LOG), str(path) if state.is_locked(folder) else "")

    def power(self, name: str, action: Power, *, force: bool = False, seconds: float = PATIENCE) -> None:
        """Start, stop or reboot."""
        found = self._described(name)
        folder = self._folder(name)
        if found.state == "damaged":
            raise Error(found.reason, f"end it with `debian-cloud terminate {name}`")
        if found.state == "paused" and not force:
            if action == "start":
                with qmp.opened(folder, _SHORT) as connection:
                    connection.execute("cont")
                # It is paused again at once if nothing has changed.
                time.sleep(_POLL)
                found = self._described(name)
            if found.state == "paused":
                raise Error(
                    f"{name} is paused: {found.reason}",
                    f"mend that, and run debian-cloud start {name}; or end it with --force",
                )
            return
        if action != "start" and not state.is_locked(folder):
            raise Error(f"{name} is not running", f"start it with `debian-cloud start {name}`", USAGE)
        if action == "reboot" and force:
            with qmp.opened(folder, _SHORT) as connection:
                connection.execute("system_reset")
                connection.execute("cont")
            return
        if action == "reboot":
            # It is not thrown away between its end and its start.
            state.put(folder / state.REBOOTING, "")
        try:
            if action != "start" and force:
                _end(folder)
            elif action != "start":
                _power_off(folder, name, seconds)
        except BaseException:
            (folder / state.REBOOTING).unlink(missing_ok=True)
            raise
        if action != "stop":
            self._started(folder)

    def extend(self, name: str, expires: int) -> None:
        """Tell the guest, then write it down."""
        folder = self._folder(name)
        found = self._described(name)
        kept = state.read(folder)
        if kept.way != "seed":
            raise Error(f"{name} reads no seed, so it does not expire", "stop or terminate it by hand", USAGE)
        expiry.tell(found, expires)
        state.write(folder, replace(kept, expires=expires))

    def terminate(self, names: Sequence[str]) -> None:
        """End QEMU, and remove the directory; if that fails for one, the others are terminated all the same."""
        failed: Error | None = None
        for name in names:
            folder = self._folder(name)
            try:
                if folder.is_dir():
                    _end(folder)
                    _remove(folder)
            except FileNotFoundError:
                # Another command removed it at the same time.
                continue
            except Error as error:
                failed = failed or error
        _sweep(self.root)
        bases.bound(self.root)
        if failed:
            raise failed

    def _folder(self, name: str) -> Path:
        if not name or name.startswith(".") or "/" in name or "\0" in name:
            raise Error(
                f"{printable(name, 80)!r} is not the name of an instance", "see `debian-cloud instances`", USAGE
            )
        return self.root / state.INSTANCES / name


def _way(spec: MachineSpec) -> state.Way:
    """How an instance of an image is told at its first boot."""
    if seed.NOCLOUD in spec.image.machine.datasources:
        return "seed"
    return "credentials" if spec.image.machine.user else "none"


def _firmware(spec: MachineSpec) -> tuple[str, firmware.Firmware | None]:
    """How it boots, and the firmware for that, unless it is QEMU's own."""
    board = command.board(spec.image.id.architecture)
    boot = spec.boot or ("bios" if "bios" in spec.image.machine.firmware else "uefi")
    return boot, None if boot in board.firmware else firmware.find(board, secure=boot == "secure")


def _link(base: Path, path: Path, stem: str) -> None:
    """Give an instance its base: by a hard link, or by a copy where the file system has none."""
    try:
        os.link(base, path)
    except FileNotFoundError:
        raise Error(f"the image {stem} was removed meanwhile", "run it again") from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV):
            raise
        run.output(("cp", "--reflink=auto", "--sparse=always", "--", str(base), str(path)))


def _create(path: Path, size: int, *base: str) -> None:
    """Make a disk; its base, if it has one, is named relative to it."""
    run.output(("qemu-img", "create", "-q", "-f", "qcow2", *base, str(path), str(size)))


def _tell(folder: Path, kept: Kept, keys: tuple[str, ...], user_data: str) -> None:
    """Make the host key, keep its public part for the login, and write what the instance is told."""
    file = folder / "host-key"
    ssh.make_key(file, kept.name)
    private, public = file.read_text("ascii"), file.with_suffix(".pub").read_text("ascii")
    for path in (file, file.with_suffix(".pub")):
        path.unlink()
    kind, key, *_ = public.split()
    state.put(folder / state.KNOWN_HOSTS, f"debian-cloud-{kept.id} {kind} {key}\n")
    told = seed.Told(kept.name, kept.id, keys, private, public, user_data, kept.expires)
    if kept.way == "seed":
        (folder / state.SEED).mkdir(mode=0o700)
        for name, text in seed.nocloud(told).items():
            state.put(folder / state.SEED / name, text)
    elif kept.way == "credentials":
        texts = seed.credentials(told)
        assert len(texts) == command.CREDENTIALS
        for number, text in enumerate(texts):
            state.put(folder / f"{state.CREDENTIAL}.{number}", text)


def _port(folder: Path) -> tuple[int | None, str]:
    """The port of a running instance, and why QEMU has halted it, if so; None if it is about to start, or hangs."""
    port = None
    with contextlib.suppress(OSError, ValueError):
        port = int((folder / state.PORT).read_text("ascii"))
    with contextlib.suppress(Error), qmp.opened(folder, _SHORT if port is None else _SHORT / 5) as connection:
        # If there is no port, the command that started it was killed before it wrote it.
        return (qmp.port(connection) if port is None else port), qmp.halted(connection)
    return port, ""


def _power_off(folder: Path, name: str, seconds: float) -> None:
    def ask() -> None:
        # It may end at any moment.
        with contextlib.suppress(Error), qmp.opened(folder, _SHORT) as connection:
            connection.execute("system_powerdown")

    power_off(name, seconds, lambda: state.is_locked(folder), ask)


def _end(folder: Path) -> None:
    """End QEMU at once, however it is."""
    if not state.is_locked(folder):
        return
    with contextlib.suppress(Error), qmp.opened(folder, _SHORT) as connection:
        connection.execute("quit")
    if not _released(folder, _SHORT):
        _kill(folder)
        if not _released(folder, _SHORT):
            raise Error(f"the QEMU of {folder.name} does not end", f"see the process in {folder / state.PID}")


def _released(folder: Path, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while state.is_locked(folder):
        if time.monotonic() > end:
            return False
        time.sleep(_POLL / 10)
    return True


def _kill(folder: Path) -> None:
    """Kill the process whose id QEMU wrote, if that process is this instance's QEMU: it runs in the directory."""
    with contextlib.suppress(OSError, ValueError):
        number = int((folder / state.PID).read_text("ascii"))
        descriptor = os.pidfd_open(number)
        try:
            if Path(f"/proc/{number}/cwd").samefile(folder):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)


def _remove(folder: Path) -> None:
    """Remove an instance that does not run; another command that would start it finds it locked, then gone."""
    with state.locked(folder) as lock:
        if lock is None:
            raise Error(f"{folder.name} was started meanwhile", "terminate it again")
        gone = folder.with_name(f"{state.GONE}{folder.name}.{secrets.token_hex(4)}")
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
    if gone.exists():
        raise Error(f"{gone} could not be removed", "look at who owns what is in it; the next command tries again")


def _remove_thrown_away(root: Path) -> None:
    """Remove the instances that were to be thrown away at their end, and have ended."""
    for name in state.names(root):
        folder = root / state.INSTANCES / name
        if not state.is_locked(folder):
            with contextlib.suppress(Error, OSError):
                if state.read(folder).throw_away and _has_ended(folder):
                    _remove(folder)


def _has_ended(folder: Path) -> bool:
    """Whether QEMU has been started and will not be again: a command may be about to."""
    return (folder / state.QEMU_LOG).exists() and not (folder / state.REBOOTING).exists()


def _sweep(root: Path) -> None:
    """Remove what killed commands have left."""
    for path in _left(root):
        # An instance may be called "gone".
        if not path.name.endswith(folders.PARTIAL):
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(Error, OSError), folders.locked(path, "it"):
                shutil.rmtree(path, ignore_errors=True)


def _left(root: Path) -> Iterator[Path]:
    for name in (state.INSTANCES, state.BASES, state.DISKS):
        for path in (root / name).iterdir():
            if path.name.startswith(state.GONE) or (path.name[0] == "." and path.name.endswith(folders.PARTIAL)):
                yield path
