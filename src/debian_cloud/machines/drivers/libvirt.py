# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances as domains of libvirt: of this user, of this machine, or of another one that is reached by SSH.

All that an instance consists of is in libvirt: what is kept of it in its domain's metadata
(`machines.libvirt.kept`), its disk and its seed as volumes of a pool (`machines.libvirt.pool`). The domain is there
before its volumes and is removed after them, so a command that is killed leaves nothing that the next does not find.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import secrets
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from debian_cloud.errors import USAGE, Error, did_you_mean
from debian_cloud.host import run, signals
from debian_cloud.machines import domain, expiry, keys, seed, ssh
from debian_cloud.machines.drivers import PATIENCE, NameInUseError, Started, one_by_one, power_off
from debian_cloud.machines.instance import Console, Instance, Login
from debian_cloud.machines.libvirt import connection, kept, pool
from debian_cloud.machines.libvirt.kept import Kept
from debian_cloud.machines.qemu import acceleration, bases, qmp, state
from debian_cloud.machines.spec import no_disk, refuse_no_memory
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from debian_cloud.machines.instance import Power, State
    from debian_cloud.machines.libvirt.pool import Pool
    from debian_cloud.machines.source import Source
    from debian_cloud.machines.spec import MachineSpec
    from debian_cloud.machines.target import Target

_URI: Final = "Uri"
_POOL: Final = "Pool"
_NETWORK: Final = "Network"
FIELDS: Final = (_URI, _POOL, _NETWORK)
"""`Uri`, the address of a libvirt; `Pool` and `Network`, the names of its pool and network to use."""

_SESSION: Final = re.compile(r"[a-z+]+:///session(\?.*)?")
_TEST: Final = "test:///default"
_HOST: Final = "127.0.0.1"
_POLL: Final = 0.2
_SHORT: Final = 5.0
"""Seconds in which a running QEMU answers."""
_MADE: Final = 300
"""Seconds in which an instance is made, once its image is in the pool."""
_LOG: Final = 2**16
"""Bytes of a console's log that are asked for."""
_MOST_CPUS: Final = 2
_SEED: Final = "seed"
_LOGGED: Final = "log"
_ADDRESS: Final = re.compile(r"[0-9A-Fa-f.:]{2,45}")
_PACKAGES: Final = {
    "amd64": "qemu-system-x86",
    "i386": "qemu-system-x86",
    "arm64": "qemu-system-arm",
    "armhf": "qemu-system-arm",
    "riscv64": "qemu-system-misc",
    "ppc64el": "qemu-system-ppc",
}
"""Architecture -> the package with its QEMU."""


def provider(target: Target) -> Libvirt:
    """The instances of one libvirt; nothing is asked of it yet."""
    uri = connection.uri(target.settings.get(_URI, ""), target.name)
    session = bool(_SESSION.fullmatch(uri))
    if session and _NETWORK in target.settings:
        raise Error(
            f"target {target.name} has a {_NETWORK}, but without privileges each instance has its own",
            f"omit {_NETWORK}, or use qemu:///system",
            USAGE,
        )
    connection.api()
    usual = pool.OWN if session else "default-pool" if uri == _TEST else "default"
    return Libvirt(
        target,
        uri,
        target.settings.get(_POOL, usual),
        "" if session else target.settings.get(_NETWORK, "default"),
        state.root(),
    )


@dataclass(frozen=True, slots=True)
class Libvirt:
    """All domains of one libvirt that this program made; without a `network`, it is one of a user."""

    target: Target
    uri: str
    pool: str
    network: str
    root: Path
    pause: float = 1.0

    def about(self) -> str:
        """The address, and the name of its machine."""
        with self._asked() as connected:
            return f"{self.uri}, on {printable(connected.getHostname(), 80)}"

    @contextlib.contextmanager
    def _asked(self) -> Iterator[Any]:
        """The connection; what libvirt refuses meanwhile is an Error."""
        connected = connection.opened(self.uri)
        with connection.told(f"{self.uri} refused"):
            yield connected

    def _volumes(self, connected: Any, name: str = "") -> Pool:  # noqa: ANN401 - it has no types
        name = name or self.pool
        own = not self.network and name == pool.OWN
        return pool.find(connected, name, self.root / "pool" if own else None)

    def publish(self, source: Source) -> str:
        """The base of an image: the name of its volume."""
        with self._asked() as connected:
            return pool.base(self._volumes(connected), self.root, source)

    def check(self, spec: MachineSpec) -> None:
        """Tools, emulator, memory, disks, and what the image can be told."""
        run.need("qemu-img", "ssh-keygen")
        _refuse_untold(spec)
        with self._asked() as connected:
            self._accelerated(connected, spec)
            _refuse_no_memory(connected, spec)
            volumes = self._volumes(connected)
            for disk in spec.disks:
                if not disk.size and volumes.volume(pool.disk(disk.name)) is None:
                    raise no_disk(disk)

    def _accelerated(self, connected: Any, spec: MachineSpec) -> bool:  # noqa: ANN401
        """Whether the hardware accelerates such an instance; Error if there is no emulator for it either."""
        architecture = spec.image.id.architecture
        board = domain.board(architecture)

        def known(kind: str) -> bool:
            return bool(connected.getDomainCapabilities(None, board.architecture, board.machine, kind))

        libvirt = connection.api()
        if self.uri == _TEST:
            return False
        try:
            known("qemu")
        except libvirt.libvirtError as error:
            raise Error(
                f"{self.uri} has no machine for {architecture}: {connection.said(error)}",
                f"run apt-get install {_PACKAGES[architecture]} there",
            ) from None
        if not self.network or acceleration.OVERRIDE in os.environ:
            return acceleration.found(self.root, architecture) == "kvm"
        with contextlib.suppress(libvirt.libvirtError):
            return known("kvm")
        return False

    def run(self, spec: MachineSpec, image: str, names: Sequence[str], least: int) -> Started:
        """Start instances one by one; if fewer than `least` start, terminate those again."""
        started, reason = one_by_one(
            names, least, lambda name, done: self._run(replace(spec, name=name), image, done), self.terminate
        )
        return Started(self._of(started), reason)

    def _of(self, names: Sequence[str]) -> tuple[Instance, ...]:
        found = {one.name: one for one in self.describe(names)}
        return tuple(found[name] for name in names if name in found)

    def _run(self, spec: MachineSpec, image: str, started: list[str]) -> None:
        """Make an instance, start it, and add its name to those that have been started."""
        self.check(spec)
        number = f"{spec.name}-{secrets.token_hex(4)}"
        try:
            with self._asked() as connected, tempfile.TemporaryDirectory(prefix="debian-cloud.") as folder:
                self._make(connected, spec, image, number, Path(folder))
            started.append(spec.name)
        except BaseException:
            with signals.undisturbed():
                self._remove_made(spec.name, number)
            raise

    def _make(self, connected: Any, spec: MachineSpec, image: str, number: str, folder: Path) -> None:  # noqa: ANN401
        volumes = self._volumes(connected)
        if volumes.volume(image) is None:
            raise Error(f"the image {spec.image.stem} was removed from the pool meanwhile", "run it again")
        told = _told(folder, spec, number, (keys.public(self.root), *spec.keys))
        now = Kept(
            id=number,
            image=spec.image.stem,
            architecture=spec.image.id.architecture,
            owner=_owner(),
            user=spec.image.machine.user if told else "",
            host_key=told,
            pool=volumes.name,
            created=int(time.time()),
            expires=spec.expires,
            throw_away=spec.throw_away,
        )
        made = self._defined(connected, spec, volumes, now)
        size = spec.disk or spec.image.virtual_size
        volumes.create(pool.of_instance(number, "qcow2"), size, "qcow2", image)
        if told:
            pool.upload(volumes, pool.of_instance(number, _SEED), folder / _SEED, f"making {spec.name}")
        for disk in spec.disks:
            if volumes.volume(pool.disk(disk.name)) is None:
                volumes.create(pool.disk(disk.name), disk.size, "qcow2")
        with connection.told(f"{spec.name} could not be started"):
            made.create()
        _keep(made, replace(now, phase="whole"))

    def _defined(self, connected: Any, spec: MachineSpec, volumes: Pool, now: Kept) -> Any:  # noqa: ANN401
        """The domain of an instance, by which it has its name; Error if another one has it."""
        number = now.id
        place = domain.Place(
            pool=volumes.name,
            network=self.network,
            forwarded=not self.network,
            log=f"{volumes.folder}/{pool.of_instance(number, _LOGGED)}",
        )
        described = domain.describe(
            replace(spec, cpus=spec.cpus or min(_MOST_CPUS, connected.getInfo()[2])),
            pool.of_instance(number, "qcow2"),
            "qcow2",
            now.tags(),
            seed=pool.of_instance(number, _SEED) if now.host_key else "",
            disks=[(disk.name, pool.disk(disk.name)) for disk in spec.disks],
            place=place,
            accelerated=self._accelerated(connected, spec),
        )
        libvirt = connection.api()
        try:
            if _domain(connected, spec.name) is None:
                return connected.defineXML(described)
        except libvirt.libvirtError:
            # Another command may have been faster.
            if _domain(connected, spec.name) is None:
                raise
        raise NameInUseError(spec.name)

    def _remove_made(self, name: str, number: str) -> None:
        """Remove an instance that is not complete, if it is the one with this id."""
        with contextlib.suppress(Error, OSError), self._asked() as connected:
            found = _domain(connected, name)
            if found is not None and _kept(found).id == number:
                self._remove(connected, found)

    def describe(self, names: Sequence[str] = ()) -> tuple[Instance, ...]:
        """Each domain that has this program's metadata."""
        with self._asked() as connected:
            self._sweep(connected)
            every = sorted(connected.listAllDomains(0), key=lambda one: str(one.name()))
            wanted = [one for one in every if not names or one.name() in names]
            # One may have been removed while it is looked at.
            found = [connection.maybe(partial(self._described, one)) for one in wanted]
            return tuple(one for one in found if one is not None)

    def _described(self, found: Any) -> Instance | None:  # noqa: ANN401
        if not _is_ours(found):
            return None
        name = str(found.name())
        try:
            one = _kept(found)
        except Error as error:
            return Instance(name, found.UUIDString(), self.target.name, "", "", "damaged", reason=error.message)
        now, reason = _state(found)
        login = None
        if now == "running" and one.user:
            login = self._login(found, one)
            now = "running" if login else "starting"
        if one.phase == "making":
            young = time.time() - one.created < _MADE
            now = "starting" if young else "damaged"
            reason = "" if young else "the command that made it did not come to its end"
        return Instance(
            *(name, one.id, self.target.name, one.image, one.architecture, now, one.created, one.expires),
            login=login if now == "running" else None,
            throw_away=one.throw_away,
            reason=reason,
        )

    def _login(self, found: Any, one: Kept) -> Login | None:  # noqa: ANN401
        """How to log in; None if that is not known yet, or QEMU hangs.

        The address in a network of libvirt is as it is there: if that is on another machine, this one must have a
        way to it.
        """
        libvirt = connection.api()
        host, port = "", 22
        with contextlib.suppress(libvirt.libvirtError, TimeoutError):
            host, port = (_leased(found), 22) if self.network else (_HOST, _forwarded(found))
        if not host or not port:
            return None
        return Login(one.user, host, port, f"debian-cloud-{one.id}", one.host_key, str(self.root / keys.NAME))

    def console(self, name: str) -> Console:
        """The end of what was written, and the command that connects to it while it runs."""
        with self._asked() as connected:
            found = self._found(connected, name)
            log = b""
            with contextlib.suppress(Error):
                one = _kept(found)
                log = pool.tail(self._volumes(connected, one.pool), pool.of_instance(one.id, _LOGGED), _LOG)
            active = bool(found.isActive())
        return Console(log, command=("virsh", "--connect", self.uri, "console", name) if active else ())

    def power(self, name: str, action: Power, *, force: bool = False, seconds: float = PATIENCE) -> None:
        """Start, stop or reboot."""
        with self._asked() as connected:
            found = self._found(connected, name)
            one = _kept(found)
            now, reason = _state(found)
            if one.phase == "making":
                raise Error(f"{name} is not complete", f"end it with `debian-cloud terminate {name}`")
            if now == "paused" and not force:
                _resume(found, name, reason, action)
            elif action == "start":
                self._start(found, one, now)
            elif now == "stopped":
                raise Error(f"{name} is not running", f"start it with `debian-cloud start {name}`", USAGE)
            elif action == "reboot" and force:
                found.reset(0)
                if now == "paused":
                    found.resume()
            elif action == "stop":
                _end(found) if force else _power_off(found, name, seconds)
            else:
                self._reboot(found, one, seconds)

    def _start(self, found: Any, one: Kept, now: State) -> None:  # noqa: ANN401
        name = str(found.name())
        if now != "stopped":
            raise Error(f"{name} is running already", "log in with `debian-cloud ssh`, or reboot it", USAGE)
        with connection.told(f"{name} could not be started"):
            found.create()
        if one.phase != "whole":
            _keep(found, replace(one, phase="whole"))

    def _reboot(self, found: Any, one: Kept, seconds: float) -> None:  # noqa: ANN401
        # It is not thrown away between its end and its start.
        _keep(found, replace(one, phase="rebooting"))
        try:
            _power_off(found, str(found.name()), seconds)
        except BaseException:
            with contextlib.suppress(connection.api().libvirtError):
                _keep(found, one)
            raise
        self._start(found, replace(one, phase="rebooting"), "stopped")

    def extend(self, name: str, expires: int) -> None:
        """Tell the guest, then write it down."""
        with self._asked() as connected:
            found = self._found(connected, name)
            one, described = _kept(found), self._described(found)
            if not one.host_key:
                raise Error(f"{name} reads no seed, so it does not expire", "stop or terminate it by hand", USAGE)
            assert described is not None
            expiry.tell(described, expires)
            _keep(found, replace(one, expires=expires))

    def terminate(self, names: Sequence[str]) -> None:
        """Remove domains and their volumes; if that fails for one, the others are terminated all the same."""
        failed: Error | None = None
        for name in names:
            try:
                with self._asked() as connected:
                    found = _domain(connected, name)
                    if found is not None and _is_ours(found):
                        self._remove(connected, found)
            except Error as error:
                failed = failed or error
        with self._asked() as connected:
            self._sweep(connected)
        bases.bound(self.root)
        if failed:
            raise failed

    def _remove(self, connected: Any, found: Any) -> None:  # noqa: ANN401
        """Remove a domain; another command may be at it, too."""
        _end(found)
        where = number = ""
        # If it is not known what belongs to it, nothing is removed that may be another's.
        with contextlib.suppress(Error):
            one = _kept(found)
            where, number = one.pool, one.id
        if where and connection.maybe(lambda: connected.storagePoolLookupByName(where)) is not None:
            pool.remove_instance(self._volumes(connected, where), number)
        connection.maybe(lambda: found.undefineFlags(_undefining(self.uri)))

    def _sweep(self, connected: Any) -> None:  # noqa: ANN401
        """Remove the instances that were to be thrown away at their end, and have ended."""
        for found in connected.listAllDomains(connection.api().VIR_CONNECT_LIST_DOMAINS_INACTIVE):
            with contextlib.suppress(Error, connection.api().libvirtError):
                one = _kept(found) if _is_ours(found) else None
                if one and one.throw_away and one.phase == "whole" and not found.isActive():
                    self._remove(connected, found)

    def _found(self, connected: Any, name: str) -> Any:  # noqa: ANN401
        found = _domain(connected, name)
        if found is None or not _is_ours(found):
            known = [one.name for one in self.describe()]
            raise Error(f"there is no instance {printable(name, 80)}", did_you_mean(name, known), USAGE)
        return found


def _owner() -> str:
    """Who started an instance, for people who share a libvirt."""
    user = str(os.geteuid())
    with contextlib.suppress(KeyError):
        user = pwd.getpwuid(os.geteuid()).pw_name
    return printable(f"{user}@{os.uname().nodename}", 200)


def _domain(connected: Any, name: str) -> Any:  # noqa: ANN401
    return connection.maybe(lambda: connected.lookupByName(name))


def _metadata(found: Any) -> str | None:  # noqa: ANN401
    libvirt = connection.api()
    text = connection.maybe(lambda: found.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, domain.NAMESPACE, 0))
    return None if text is None else str(text)


def _is_ours(found: Any) -> bool:  # noqa: ANN401
    return _metadata(found) is not None


def _kept(found: Any) -> Kept:  # noqa: ANN401
    return kept.read(_metadata(found) or "")


def _keep(found: Any, one: Kept) -> None:  # noqa: ANN401
    """Write what is kept of an instance, for now and for its next start."""
    libvirt = connection.api()
    flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG | (libvirt.VIR_DOMAIN_AFFECT_LIVE if found.isActive() else 0)
    text = domain.metadata(one.tags())
    found.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, text, domain.PREFIX, domain.NAMESPACE, flags)


def _state(found: Any) -> tuple[State, str]:  # noqa: ANN401
    """The state of a domain, and why it is paused."""
    libvirt = connection.api()
    number, why = found.state(0)
    if number in (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED):
        return "stopped", ""
    if number in (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PMSUSPENDED):
        full = number == libvirt.VIR_DOMAIN_PAUSED and why == libvirt.VIR_DOMAIN_PAUSED_IOERROR
        return "paused", "its disk could not be written, as if the pool were full" if full else "it was told so"
    return "running", ""


def _refuse_untold(spec: MachineSpec) -> None:
    """Raise Error for what an image that reads no seed cannot be told; the firmware tells nothing here.

    libvirt shows the description of a domain to everyone, so no secret is in it.
    """
    of = spec.image
    if seed.NOCLOUD in of.machine.datasources:
        return
    for given, what in (
        (of.machine.user, "so nobody could log in to it here"),
        (spec.expires, "so it cannot be told when to end"),
        (spec.user_data, "so it reads no user-data here"),
        (spec.keys, "so it has no login by SSH"),
    ):
        if given:
            raise Error(f"{of.stem} reads no seed, {what}", "use generic or genericcloud", USAGE)


def _refuse_no_memory(connected: Any, spec: MachineSpec) -> None:  # noqa: ANN401
    libvirt = connection.api()
    stats = connection.maybe(lambda: connected.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS, 0))
    if not stats:
        return
    refuse_no_memory(spec, sum(stats.get(name, 0) for name in ("free", "buffers", "cached")) << 10)


def _told(folder: Path, spec: MachineSpec, number: str, known: tuple[str, ...]) -> str:
    """Write the file system that tells an instance, and return its host key; "" if its image reads none."""
    if seed.NOCLOUD not in spec.image.machine.datasources:
        return ""
    file = folder / "host-key"
    ssh.make_key(file, spec.name)
    private, public = file.read_text("ascii"), file.with_suffix(".pub").read_text("ascii")
    told = seed.Told(spec.name, number, known, private, public, spec.user_data, spec.expires)
    (folder / "files").mkdir(mode=0o700)
    for name, text in seed.nocloud(told).items():
        state.put(folder / "files" / name, text)
    # What QEMU shows to a guest of a directory (vvfat), as a file system of its own without partitions.
    shown = str(folder / "files").replace(",", ",,")
    of = f"driver=vvfat,dir={shown},label={seed.LABEL},floppy=on,fat-type=12"
    run.output(("qemu-img", "convert", "-O", "raw", "--image-opts", of, str(folder / _SEED)))
    return " ".join(public.split()[:2])


def _forwarded(found: Any) -> int:  # noqa: ANN401
    """The port of this machine that leads to the SSH server of the guest; 0 if there is none."""
    monitor = connection.api("libvirt_qemu")
    flag = monitor.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
    # libvirt waits for ever for a QEMU that hangs.
    said = connection.within(_SHORT, lambda: monitor.qemuMonitorCommand(found, "info usernet", flag))
    return qmp.forwarded(str(said)[: 2**20])


def _leased(found: Any) -> str:  # noqa: ANN401
    """The address that a network of libvirt gave to the guest; "" if it did not ask for one yet."""
    source = connection.api().VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE
    given = connection.maybe(lambda: found.interfaceAddresses(source, 0)) or {}
    addresses = [str(one["addr"]) for card in given.values() for one in card.get("addrs") or ()]
    return next((one for one in addresses if _ADDRESS.fullmatch(one)), "")


def _resume(found: Any, name: str, reason: str, action: Power) -> None:  # noqa: ANN401
    """Let a paused domain go on; Error if it is paused again at once, or was to do something else."""
    if action == "start":
        found.resume()
        time.sleep(_POLL)
    if action != "start" or _state(found)[0] == "paused":
        raise Error(
            f"{name} is paused: {reason}",
            f"mend that, and run debian-cloud start {name}; or end it with --force",
        )


def _power_off(found: Any, name: str, seconds: float) -> None:  # noqa: ANN401
    def ask() -> None:
        # It may end at any moment.
        with contextlib.suppress(connection.api().libvirtError):
            found.shutdown()

    power_off(name, seconds, lambda: bool(found.isActive()), ask)


def _end(found: Any) -> None:  # noqa: ANN401
    """End a domain at once, however it is."""
    try:
        if found.isActive():
            found.destroy()
    except connection.api().libvirtError:
        if connection.maybe(found.isActive):
            raise


def _undefining(uri: str) -> int:
    """What is removed with a domain; the driver for tests has less of it."""
    libvirt = connection.api()
    flags = int(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)
    return flags if uri == _TEST else flags | int(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
