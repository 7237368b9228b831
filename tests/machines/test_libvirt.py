# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances as domains: of a real libvirtd without privileges, and of libvirt's own driver for tests."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from debian_cloud.errors import Error
from debian_cloud.host import run
from debian_cloud.image.machine import Machine
from debian_cloud.machines import domain, drivers, running
from debian_cloud.machines.drivers import libvirt as driver
from debian_cloud.machines.drivers.libvirt import Libvirt
from debian_cloud.machines.libvirt import connection, kept, pool
from debian_cloud.machines.libvirt.kept import Kept
from debian_cloud.machines.qemu import firmware
from debian_cloud.machines.source import Source
from debian_cloud.machines.spec import Disk, MachineSpec
from debian_cloud.machines.target import Target
from tests.command import SOURCE, debian_cloud, refused
from tests.machines.records import MACHINE, SIZE, record

pytest.importorskip("libvirt", reason="python3-libvirt is not installed")

# Without privileges, libvirtd is one of a user. Root becomes nobody, whom each Debian has, and who owns its files.
USER = ("unshare", "--user", "--map-user=65534", "--map-group=65534") if os.geteuid() == 0 else ()
# mov dx, 0x3f8; for each letter: mov al, LETTER; out dx, al; at the end 1: hlt; jmp 1b; in a boot sector
SECTOR = (b"\xba\xf8\x03" + b"".join(b"\xb0%c\xee" % letter for letter in b"hello\n") + b"\xf4\xeb\xfd").ljust(
    510, b"\0"
) + b"\x55\xaa"
SPEC = MachineSpec("a", record(), memory=2**28, cpus=1)


@contextlib.contextmanager
def daemon() -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A libvirtd of this user, as the directory of its socket; at the end it and its logger are ended."""
    # Paths of sockets are short.
    home = Path(tempfile.mkdtemp(prefix="lv."))
    places = {name: home / name.partition("_")[0].lower() for name in ("RUNTIME_DIR", "CONFIG_HOME", "CACHE_HOME")}
    environment = {**os.environ, "HOME": str(home), **{f"XDG_{name}": str(path) for name, path in places.items()}}
    for path in places.values():
        path.mkdir(mode=0o700)
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([*USER, "libvirtd"], env=environment, stdin=subprocess.DEVNULL, stderr=log)
    run_ = places["RUNTIME_DIR"] / "libvirt"
    try:
        end = time.monotonic() + 60
        while not (run_ / "libvirt-sock").exists():
            assert process.poll() is None, (home / "log").read_text()
            assert time.monotonic() < end, (home / "log").read_text()
            time.sleep(0.1)
        yield run_, process
    finally:
        process.terminate()
        process.wait(60)
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((run_ / "virtlogd.pid").read_text()), signal.SIGTERM)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def libvirtd() -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    for program in ("libvirtd", "virtlogd", "qemu-system-x86_64"):
        if not shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin"):
            pytest.skip(f"{program} is not installed")
    with daemon() as found:
        yield found


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEBIAN_CLOUD_ACCEL", "tcg")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state/debian-cloud"


def provided(uri: str, **settings: str) -> Libvirt:
    found = drivers.provider(Target("virt", "libvirt", {"Uri": uri, **settings}))
    assert isinstance(found, Libvirt)
    return found


def emptied(here: Libvirt) -> None:
    """Remove all domains, and the pool of this test."""
    here.terminate([one.name for one in here.describe()])
    assert here.describe() == ()
    connected = connection.opened(here.uri)
    for one in connected.listAllDomains():
        if one.name() != "test":
            with contextlib.suppress(connection.api().libvirtError):
                one.destroy()
            one.undefine()
    for one in connected.listAllStoragePools():
        if one.name() == pool.OWN:
            one.destroy()
            one.undefine()


@pytest.fixture
def here(libvirtd: tuple[Path, subprocess.Popen[bytes]], state: Path) -> Iterator[Libvirt]:
    """The instances of a user."""
    found = provided(f"qemu+unix:///session?socket={libvirtd[0]}/libvirt-sock")
    yield found
    emptied(found)


def source(folder: Path, data: bytes = SECTOR) -> Source:
    """An image that says hello, and does nothing else."""
    file = folder / record().name
    file.write_bytes(data)
    os.truncate(file, SIZE)
    return Source(record(), f"sha256-{hashlib.sha256(file.read_bytes()).hexdigest()}", file=file)


@pytest.fixture
def image(here: Libvirt, tmp_path: Path) -> str:
    return here.publish(source(tmp_path))


def start(here: Libvirt, image: str, *names: str, spec: MachineSpec = SPEC) -> None:
    started = here.run(spec, image, names or ("a",), len(names) or 1)
    assert [(one.state, one.reason) for one in started.instances] == [("running", "")] * (len(names) or 1)


def states(here: Libvirt) -> dict[str, str]:
    return {one.name: one.state for one in here.describe()}


def looked_up(here: Libvirt, name: str = "a") -> Any:
    return connection.opened(here.uri).lookupByName(name)


def left(here: Libvirt) -> list[str]:
    """The volumes that are no bases."""
    found = connection.opened(here.uri).storagePoolLookupByName(here.pool)
    found.refresh(0)
    return sorted(name for name in found.listVolumes() if not name.startswith("debian-cloud-base-"))


def ours(here: Libvirt, name: str = "a") -> Kept:
    return driver._kept(looked_up(here, name))


def until(said: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not said():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_it_is_started_stopped_started_and_terminated(here: Libvirt, image: str, tmp_path: Path) -> None:
    assert here.publish(source(tmp_path)) == image
    start(here, image)
    (first,) = here.describe()
    assert first.login
    assert (first.login.user, first.login.host) == ("debian", "127.0.0.1")
    with socket.create_connection((first.login.host, first.login.port), 5):
        pass
    number = first.id
    assert left(here) == [f"debian-cloud-instance-{number}.{ending}" for ending in ("log", "qcow2", "seed")]
    for path in (here.root / "pool").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
    with pytest.raises(Error, match="a is running already"):
        here.power("a", "start")
    here.power("a", "stop", force=True)
    assert states(here) == {"a": "stopped"}
    with pytest.raises(Error, match="a is not running"):
        here.power("a", "stop")
    here.power("a", "start")
    (again,) = here.describe()
    assert again.login
    assert (again.id, again.login.alias, again.login.host_key) == (number, first.login.alias, first.login.host_key)
    here.power("a", "reboot", force=True)
    assert states(here) == {"a": "running"}
    here.terminate(("a",))
    assert (states(here), left(here)) == ({}, [])
    assert sorted(path.name for path in (here.root / "pool").iterdir()) == [image, f"{image}.whole"]
    here.terminate(("a",))


def test_its_seed_and_its_console(here: Libvirt, image: str) -> None:
    start(here, image, spec=replace(SPEC, user_data="#!/bin/sh\ntrue\n"))
    until(lambda: here.console("a").log == b"hello\n")
    assert here.console("a").command == ("virsh", "--connect", here.uri, "console", "a")
    seed = here.root / "pool" / pool.of_instance(ours(here).id, "seed")
    said = subprocess.run(["blkid", "-p", seed], capture_output=True, text=True, check=True).stdout
    assert ' LABEL="CIDATA"' in said
    assert 'TYPE="vfat"' in said
    for name, text in (("user-data", "#!/bin/sh"), ("meta-data", ours(here).id), ("vendor-data", "PRIVATE KEY")):
        read = subprocess.run(["mtype", "-i", seed, f"::{name}"], capture_output=True, text=True, check=True)
        assert text in read.stdout
    here.power("a", "stop", force=True)
    assert here.console("a").command == ()
    with pytest.raises(Error, match="there is no instance b") as error:
        here.console("b")
    assert error.value.hint == "did you mean a?" or "known: a" in error.value.hint


def test_no_secret_is_in_its_description(here: Libvirt, image: str) -> None:
    start(here, image)
    described = looked_up(here).XMLDesc(0)
    assert "PRIVATE" not in described
    assert str(here.root / "key") not in described
    assert ours(here).host_key in described


def test_several_have_their_own_disks_ports_and_keys(here: Libvirt, image: str) -> None:
    start(here, image, "a", "b")
    logins = [one.login for one in here.describe()]
    assert len({login.port for login in logins if login}) == 2
    assert len({login.host_key for login in logins if login}) == 2
    assert len(left(here)) == 6
    assert [one.name for one in here.describe(("b",))] == ["b"]


FOREIGN = "<domain type='qemu'><name>{}</name><memory>65536</memory><os><type arch='x86_64'>hvm</type></os></domain>"


def test_what_others_made_is_neither_listed_nor_touched(here: Libvirt, image: str) -> None:
    connected = connection.opened(here.uri)
    connected.defineXML(FOREIGN.format("theirs"))
    assert states(here) == {}
    here.terminate(("theirs",))
    with pytest.raises(Error, match="there is no instance theirs"):
        here.power("theirs", "start")
    with pytest.raises(Error, match="there is no instance theirs"):
        here.console("theirs")
    assert looked_up(here, "theirs").isActive() == 0
    with pytest.raises(Error, match="an instance theirs already"):
        here.run(SPEC, image, ("theirs",), 1)
    assert left(here) == []


def test_names_are_taken_once(here: Libvirt, image: str) -> None:
    start(here, image)
    with pytest.raises(Error, match="an instance a already"):
        here.run(SPEC, image, ("a",), 1)
    assert states(here) == {"a": "running"}
    assert len(left(here)) == 3


def test_two_commands_that_want_the_same_name(here: Libvirt, image: str) -> None:
    said: list[str] = []

    def one() -> None:
        try:
            here.run(SPEC, image, ("a",), 1)
        except Error as error:
            said.append(error.message)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert said == ["there is an instance a already"] * 2
    assert states(here) == {"a": "running"}
    assert len(left(here)) == 3


def few(monkeypatch: pytest.MonkeyPatch) -> None:
    real = driver._refuse_no_memory

    def refuse(connected: Any, spec: MachineSpec) -> None:
        if spec.name == "c":
            spec = replace(spec, memory=2**50)
        real(connected, spec)

    monkeypatch.setattr(driver, "_refuse_no_memory", refuse)


def test_fewer_than_asked_for_are_none(here: Libvirt, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch)
    with pytest.raises(Error, match=r"c needs .* MiB of memory, but"):
        here.run(SPEC, image, ("a", "b", "c"), 3)
    assert (states(here), left(here)) == ({}, [])


def test_as_many_as_there_can_be(here: Libvirt, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch)
    started = here.run(SPEC, image, ("a", "b", "c"), 2)
    assert [one.name for one in started.instances] == ["a", "b"]
    assert "c needs" in started.reason
    assert states(here) == {"a": "running", "b": "running"}


PHASES: tuple[tuple[Any, str], ...] = (
    (driver, "_told"),
    (Libvirt, "_defined"),
    (pool.Pool, "create"),
    (pool, "upload"),
    (pool, "_send"),
    (driver, "_keep"),
)


@pytest.mark.parametrize(("where", "what"), PHASES, ids=[what for _, what in PHASES])
@pytest.mark.parametrize("early", [True, False], ids=["before", "after"])
def test_what_is_interrupted_is_removed(
    here: Libvirt, image: str, monkeypatch: pytest.MonkeyPatch, where: Any, what: str, early: bool
) -> None:
    real = getattr(where, what)

    def interrupted(*words: Any, **others: Any) -> Any:
        if not early:
            real(*words, **others)
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(where, what, interrupted)
        with pytest.raises(KeyboardInterrupt):
            here.run(replace(SPEC, disks=(Disk("data", 2**26),)), image, ("a", "b"), 1)
    assert states(here) == {}
    assert left(here) in ([], ["debian-cloud-disk-data.qcow2"])
    assert connection.opened(here.uri).listAllDomains() == []


def test_an_upload_that_is_interrupted_leaves_nothing(
    here: Libvirt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(stream: Any, piece: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(pool, "_send", interrupted)
        with pytest.raises(KeyboardInterrupt):
            here.publish(source(tmp_path))
    assert [*(here.root / "pool").iterdir()] == []
    start(here, here.publish(source(tmp_path)))


KILLED = """
import os, signal, sys
from pathlib import Path
from debian_cloud.machines.libvirt import pool
from debian_cloud.machines.drivers import libvirt as driver
from tests.machines import test_libvirt as tests

real, number = {where}.{what}, int(sys.argv[1])
def killed(*words, **others):
    global number
    real(*words, **others)
    number -= 1
    if not number:
        os.kill(os.getpid(), signal.SIGKILL)
{where}.{what} = killed
here = tests.provided(sys.argv[2])
image = here.publish(tests.source(Path(sys.argv[3]), bytes(tests.DATA)))
here.run(tests.SPEC, image, ("a",), 1)
"""
DATA = SECTOR + b"\1" * 2**23


def killed(here: Libvirt, folder: Path, where: str, what: str, number: int) -> None:
    """Run an instance in another process, which is killed when it has called a function so many times."""
    words = ["-c", KILLED.format(where=where, what=what), str(number), here.uri, str(folder)]
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}:{SOURCE.parent}"}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_an_upload_that_was_killed_is_not_taken_for_a_whole_one(here: Libvirt, tmp_path: Path) -> None:
    killed(here, tmp_path, "pool", "_send", 3)
    (part,) = (path for path in (here.root / "pool").iterdir() if path.name.startswith("debian-cloud-base-"))
    assert part.read_bytes()[: len(DATA)] != DATA
    image = here.publish(source(tmp_path, DATA))
    assert image == part.name
    assert (here.root / "pool" / image).read_bytes()[: len(DATA)] == DATA
    start(here, image)


def test_one_whose_command_was_killed_is_told_and_terminated(
    here: Libvirt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(here, tmp_path, "driver.Libvirt", "_defined", 1)
    assert states(here) == {"a": "starting"}
    monkeypatch.setattr(driver, "_MADE", -1)
    (found,) = here.describe()
    assert (found.state, "did not come to its end" in found.reason) == ("damaged", True)
    with pytest.raises(Error, match="a is not complete"):
        here.power("a", "start")
    here.terminate(("a",))
    assert (states(here), left(here)) == ({}, [])


@pytest.mark.parametrize(
    "metadata",
    [
        "<machine/>",
        "<machine><tag name='version'>1</tag><tag name='id'>&#27;[2J</tag></machine>",
        "<machine><tag name='version'>&#x9b;2</tag></machine>",
        f"<machine>{'<tag/>' * 20_000}</machine>",
        f"<machine><tag name='version'>{'x' * 2**18}</tag></machine>",
    ],
    ids=["empty", "escape", "version", "many", "long"],
)
def test_metadata_that_others_wrote(here: Libvirt, image: str, metadata: str) -> None:
    start(here, image)
    # No escape is in XML; libvirt passes other control characters.
    metadata = metadata.replace("&#27;", "&#x9d;")
    looked_up(here).setMetadata(2, metadata, domain.PREFIX, domain.NAMESPACE, 3)
    (found,) = here.describe()
    assert (found.name, found.state, found.login) == ("a", "damaged", None)
    assert found.reason.startswith("its metadata cannot be read: ")
    assert found.reason.isprintable()
    assert len(found.reason) < 300
    with pytest.raises(Error, match="its metadata cannot be read"):
        here.power("a", "stop")
    here.terminate(("a",))
    assert states(here) == {}
    assert (here.root / "pool" / image).exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", ""),
        ("id", "a"),
        ("id", "base-sha256-3b6a07d0d404fab4e23b6d34bc6696a6a312dd92821332385e5af7c01c421351-ccceb303"),
        ("id", "../../x-12345678"),
        ("created", "1e9"),
        ("expires", "-1"),
        ("host-key", "ssh-ed25519 AAAA\nevil"),
        ("user", "debian -o"),
        ("user", "-oProxyCommand=x"),
        ("phase", "gone"),
        ("version", "2"),
        ("pool", "\x9b"),
    ],
)
def test_a_tag_that_no_instance_has(name: str, value: str) -> None:
    one = Kept("a-12345678", "i", "amd64", "me", "debian", "", "p", 1, 2, throw_away=True)
    assert kept.read(domain.metadata(one.tags())) == one
    with pytest.raises(Error, match="its metadata cannot be read") as error:
        kept.read(domain.metadata({**one.tags(), name: value}))
    assert error.value.message.isprintable()
    for text in ("", "<", "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "x" * 2**17):
        with pytest.raises(Error, match="its metadata cannot be read"):
            kept.read(text)


def test_what_is_thrown_away_goes_when_it_has_ended(here: Libvirt, image: str) -> None:
    start(here, image, "a", "b", spec=replace(SPEC, throw_away=True))
    looked_up(here).destroy()
    assert states(here) == {"b": "running"}
    assert len(left(here)) == 3
    looked_up(here, "b").destroy()
    here.terminate(())
    assert connection.opened(here.uri).listAllDomains() == []
    assert left(here) == []


def test_what_is_thrown_away_is_not_while_it_is_rebooted(
    here: Libvirt, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(here, image, spec=replace(SPEC, throw_away=True))
    seen: list[dict[str, str]] = []

    def off(found: Any, name: str, seconds: float) -> None:
        found.destroy()
        seen.append(states(here))

    monkeypatch.setattr(driver, "_power_off", off)
    here.power("a", "reboot")
    assert seen == [{"a": "stopped"}]
    assert states(here) == {"a": "running"}
    assert ours(here).phase == "whole"

    def late(found: Any, name: str, seconds: float) -> None:
        raise Error(f"{name} is still running")

    # After a reboot that did not come to its end, it is thrown away as before.
    monkeypatch.setattr(driver, "_power_off", late)
    with pytest.raises(Error, match="still running"):
        here.power("a", "reboot")
    looked_up(here).destroy()
    assert states(here) == {}


def test_a_guest_that_does_not_listen_is_named_and_left(here: Libvirt, image: str) -> None:
    start(here, image)
    with pytest.raises(Error, match="a is still running after 0 s") as error:
        here.power("a", "stop", seconds=0.2)
    assert "--force" in error.value.hint
    assert states(here) == {"a": "running"}


def test_one_that_is_paused_goes_on(here: Libvirt, image: str) -> None:
    start(here, image)
    looked_up(here).suspend()
    (found,) = here.describe()
    assert (found.state, found.reason) == ("paused", "it was told so")
    with pytest.raises(Error, match="a is paused: it was told so"):
        here.power("a", "stop")
    here.power("a", "start")
    assert states(here) == {"a": "running"}
    looked_up(here).suspend()
    here.power("a", "reboot", force=True)
    assert states(here) == {"a": "running"}
    looked_up(here).suspend()
    here.power("a", "stop", force=True)
    assert states(here) == {"a": "stopped"}


def processes(name: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"\0guest={name},".encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


@pytest.mark.thorough
def test_one_that_hangs_is_told_in_time_and_terminated(
    here: Libvirt, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_SHORT", 0.5)
    start(here, image, "hangs")
    for number in processes("hangs"):
        os.kill(number, signal.SIGSTOP)
    begun = time.monotonic()
    assert states(here) == {"hangs": "starting"}
    assert time.monotonic() - begun < 5
    here.terminate(("hangs",))
    assert (states(here), left(here), processes("hangs")) == ({}, [], [])


def test_after_a_kill_it_is_stopped_and_starts_again(here: Libvirt, image: str) -> None:
    start(here, image, "dies")
    for number in processes("dies"):
        os.kill(number, signal.SIGKILL)
    until(lambda: states(here) == {"dies": "stopped"})
    here.power("dies", "start")
    assert states(here) == {"dies": "running"}


def test_a_disk_outlives_instances_and_has_one_at_a_time(here: Libvirt, image: str) -> None:
    spec = replace(SPEC, disks=(Disk("data", 2**26),))
    start(here, image, spec=spec)
    disk = here.root / "pool/debian-cloud-disk-data.qcow2"
    inode = disk.stat().st_ino
    assert "<serial>data</serial>" in looked_up(here).XMLDesc(0)
    with pytest.raises(Error, match=r"b could not be started: .*lock"):
        start(here, image, "b", spec=spec)
    assert states(here) == {"a": "running"}
    here.terminate(("a",))
    assert left(here) == [disk.name]
    start(here, image, "b", spec=replace(SPEC, disks=(Disk("data"),)))
    assert disk.stat().st_ino == inode
    with pytest.raises(Error, match="no disk other") as error:
        start(here, image, "c", spec=replace(SPEC, disks=(Disk("other"),)))
    assert error.value.hint == "give its size, to make it: --persistent-disk other:10G"


def test_a_disk_is_as_large_as_asked_for(here: Libvirt, image: str) -> None:
    start(here, image, spec=replace(SPEC, disk=2**30))
    assert looked_up(here).blockInfo("vda")[0] == 2**30
    with pytest.raises(Error, match="--disk is smaller than the image"):
        running.planned(here.target, Source(record(), "sha256-x"), replace(SPEC, disk=2**20))


def test_extending_tells_the_guest_first(here: Libvirt, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start(here, image)
    before = ours(here)
    for ended, said in (
        (run.Ended(None, "", ""), "a does not answer"),
        (run.Ended(255, "", "Connection \x1b[2J"), r"a could not be told: Connection \\x1b"),
    ):
        monkeypatch.setattr(run, "bounded", lambda *_, ended=ended: ended)
        with pytest.raises(Error, match=said):
            here.extend("a", 2**31)
    assert ours(here) == before
    monkeypatch.setattr(run, "bounded", lambda *_: run.Ended(0, "", ""))
    here.extend("a", 2**31)
    assert ours(here) == replace(before, expires=2**31)
    assert [one.expires for one in here.describe()] == [2**31]
    here.power("a", "stop", force=True)
    with pytest.raises(Error, match="a is not running"):
        here.extend("a", 2**32)
    # It is kept for the next start, too.
    assert ours(here).expires == 2**31


def test_one_that_cannot_start_says_why_and_is_removed(
    here: Libvirt, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = domain.describe

    def described(*words: Any, **others: Any) -> str:
        return real(*words, **others).replace("virtio-net-pci", "no-such-card")

    monkeypatch.setattr(domain, "describe", described)
    with pytest.raises(Error, match=r"a could not be started: .*no-such-card") as error:
        start(here, image)
    assert error.value.message.isprintable()
    assert (states(here), left(here)) == ({}, [])


def test_an_image_that_was_removed_meanwhile(here: Libvirt, image: str) -> None:
    (here.root / "pool" / image).unlink()
    connection.opened(here.uri).storagePoolLookupByName(here.pool).refresh(0)
    with pytest.raises(Error, match="was removed from the pool meanwhile"):
        start(here, image)
    assert states(here) == {}


def test_a_pool_without_room_or_that_is_none(here: Libvirt, image: str, tmp_path: Path) -> None:
    volumes = here._volumes(connection.opened(here.uri))
    with pytest.raises(Error, match="pool debian-cloud is full"):
        pool._refuse_full(volumes, 2**62)
    other = replace(here, pool="\x1bnone")
    with pytest.raises(Error, match=r"there is no pool \\x1bnone"):
        other.publish(source(tmp_path))
    connected = connection.opened(here.uri)
    idle = connected.storagePoolDefineXML(
        f"<pool type='dir'><name>idle</name><target><path>{tmp_path}</path></target></pool>"
    )
    try:
        with pytest.raises(Error, match="the pool idle is not active") as error:
            replace(here, pool="idle").check(SPEC)
        assert error.value.hint == "run virsh pool-start idle"
    finally:
        idle.undefine()


def test_another_user_s_base_is_used(here: Libvirt, image: str, tmp_path: Path) -> None:
    other = image.replace(image[-12:-4], "00000000")
    for name in (image, f"{image}.whole"):
        (here.root / "pool" / name).rename(here.root / "pool" / name.replace(image, other))
    connection.opened(here.uri).storagePoolLookupByName(here.pool).refresh(0)
    assert here.publish(source(tmp_path)) == other
    start(here, other)


UEFI = replace(MACHINE, firmware=("uefi",))


def of(architecture: str) -> MachineSpec:
    machine = MACHINE if architecture in ("amd64", "i386") else UEFI
    return replace(SPEC, image=record(architecture=architecture, machine=machine))


@pytest.mark.parametrize("architecture", domain.BOARDS)
def test_a_machine_of_each_architecture_starts(here: Libvirt, image: str, architecture: str) -> None:
    board = domain.board(architecture)
    program = {"i686": "i386", "armv7l": "arm"}.get(board.architecture, board.architecture)
    if not shutil.which(f"qemu-system-{program.replace('ppc64le', 'ppc64')}"):
        with pytest.raises(Error, match=f"has no machine for {architecture}: .*emulator") as error:
            start(here, image, spec=of(architecture))
        assert "apt-get install qemu-system-" in error.value.hint
        pytest.skip(f"qemu-system-{program} is not installed")
    if "uefi" in board.firmware[:1]:
        found = {target["architecture"] for one in firmware._descriptors() for target in one.get("targets", ())}
        if {"armv7l": "arm"}.get(board.architecture, board.architecture) not in found:
            pytest.skip(f"there is no firmware for {architecture}")
    start(here, image, spec=of(architecture))
    (found_,) = here.describe()
    assert (found_.architecture, bool(found_.login)) == (architecture, True)
    here.power("a", "stop", force=True)
    here.power("a", "start")
    here.terminate(("a",))
    assert (states(here), left(here)) == ({}, [])


@pytest.mark.skipif(not Path("/usr/share/OVMF").is_dir(), reason="ovmf is not installed")
@pytest.mark.parametrize("boot", ["uefi", "secure"])
def test_a_machine_with_firmware_leaves_nothing_either(here: Libvirt, image: str, boot: Any) -> None:
    start(here, image, spec=replace(SPEC, boot=boot))
    described = ET.fromstring(looked_up(here).XMLDesc(0))
    variables = Path(described.findtext("os/nvram") or "")
    assert variables.is_file()
    here.terminate(("a",))
    assert not variables.exists()


def test_an_ordinary_user_has_instances(
    libvirtd: tuple[Path, subprocess.Popen[bytes]], here: Libvirt, image: str, tmp_path: Path
) -> None:
    """By the address that people use, and the command."""
    start(here, image)
    (tmp_path / "config/debian-cloud/targets.d").mkdir(parents=True)
    (tmp_path / "config/debian-cloud/targets.d/virt.target").write_text(
        "Target: virt\nDriver: libvirt\nUri: qemu:///session\n"
    )
    environment = {
        **os.environ,
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_RUNTIME_DIR": str(libvirtd[0].parent),
    }

    def said(*words: str) -> str:
        command = [*USER, "debian-cloud", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert re.search(r"^virt +libvirt +qemu:///session, on \S+$", said("targets"), re.M)
    assert re.search(r"^a +virt +running ", said("instances", "--on", "virt"), re.M)
    said("stop", "--force", "--on", "virt", "a")
    assert states(here) == {"a": "stopped"}
    said("start", "a")
    assert "hello" in said("console", "--log", "a")
    said("terminate", "a")
    assert (states(here), left(here)) == ({}, [])


OF_THE_MACHINE = """
for name in /etc/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt /run/libvirt; do
    mkdir -p "$name"
    mount -t tmpfs none "$name"
done
mkdir -p /etc/libvirt/qemu/networks /var/lib/libvirt/images
printf 'unix_sock_dir = "%s"\\nauth_unix_rw = "none"\\n' "$1" >/etc/libvirt/libvirtd.conf
# Where /dev/kvm is another group's, libvirt looks at each QEMU again and again for a user of its own.
printf 'security_driver = "none"\\nuser = "root"\\ngroup = "root"\\n' >/etc/libvirt/qemu.conf
ip link set lo up
ip link add br0 type bridge
ip link set br0 up
virtlogd &
libvirtd &
# The first process of a namespace takes care of those whose parents have ended.
wait
"""
"""A libvirtd of the machine, in namespaces: what it writes below /etc, /var and /run ends with it."""


@pytest.fixture
def system(state: Path) -> Iterator[Libvirt]:
    if os.geteuid() != 0:
        pytest.skip("only root has a libvirtd of the machine")
    for program in ("libvirtd", "virtlogd", "ip"):
        if not shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin"):
            pytest.skip(f"{program} is not installed")
    folder = Path(tempfile.mkdtemp(prefix="lv."))
    # The processes of a namespace end with its first one.
    apart = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*apart, "sh", "-euc", OF_THE_MACHINE, "sh", folder], stdout=log, stderr=log)
    try:
        end = time.monotonic() + 60
        while not (folder / "libvirt-sock").exists():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.1)
        yield provided(f"qemu+unix:///system?socket={folder}/libvirt-sock")
    finally:
        process.kill()
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_libvirt_of_the_machine_has_all_in_its_pool(system: Libvirt, tmp_path: Path) -> None:
    """It sees no directory of this test."""
    connected = connection.opened(system.uri)
    with pytest.raises(Error, match="there is no pool default"):
        system.check(SPEC)
    connected.storagePoolDefineXML(
        "<pool type='dir'><name>default</name><target><path>/var/lib/libvirt/images</path></target></pool>"
    ).create()
    image = system.publish(source(tmp_path))
    with pytest.raises(Error, match=r"a could not be started: .*network"):
        system.run(SPEC, image, ("a",), 1)
    assert (states(system), left(system)) == ({}, [])
    connected.networkDefineXML(
        "<network><name>default</name><forward mode='bridge'/><bridge name='br0'/></network>"
    ).create()
    (found,) = system.run(replace(SPEC, disks=(Disk("data", 2**26),)), image, ("a",), 1).instances
    # Nobody gives it an address.
    assert (found.state, found.login) == ("starting", None)
    until(lambda: system.console("a").log == b"hello\n")
    system.power("a", "stop", force=True)
    system.power("a", "start")
    system.power("a", "reboot", force=True)
    system.terminate(("a",))
    assert (states(system), left(system)) == ({}, ["debian-cloud-disk-data.qcow2"])
    assert not (system.root / "pool").exists()


def test_a_daemon_that_hangs_is_given_up(here: Libvirt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with daemon() as (folder, process):
        monkeypatch.setattr(connection, "_ALIVE", (1, 2))
        there = replace(here, uri=f"qemu+unix:///session?socket={folder}/libvirt-sock")
        assert there.about().startswith(there.uri)
        process.send_signal(signal.SIGSTOP)
        try:
            begun = time.monotonic()
            with pytest.raises(Error, match="keepalive"):
                there.describe()
            monkeypatch.setattr(connection, "_OPEN", 1.0)
            with pytest.raises(Error, match="does not answer"):
                there.describe()
            assert time.monotonic() - begun < 20
        finally:
            process.send_signal(signal.SIGCONT)
        monkeypatch.setattr(connection, "_OPEN", 60.0)
        assert there.describe() == ()


def test_an_address_where_nobody_is(state: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for uri in (
        f"qemu+unix:///system?socket={tmp_path}/none",
        "qemu+ssh://nobody@127.0.0.1:1/system",
        f"qemu+ssh://[::1]:1/system?keyfile={tmp_path}/none",
    ):
        with pytest.raises(Error, match="cannot be reached: ") as error:
            provided(uri).describe()
        assert error.value.hint == f"try virsh --connect '{uri}' version"
        assert error.value.message.isprintable()
    # libvirt prints nothing of its own.
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "esx://host",
        "qemu:///other",
        "qemu:///session\x1b[2J",
        "qemu:///system?command=/bin/false",
        "qemu+ext:///system?command=x",
        "qemu+ssh://-oProxyCommand=x/system",
        "qemu+ssh://host/session",
        "qemu+ssh://host/system?socket=a b",
        "qemu+tcp://host/system",
        "test:////etc/passwd",
        "/run/libvirt/libvirt-sock",
    ],
)
def test_an_address_that_is_none(state: Path, uri: str) -> None:
    with pytest.raises(Error, match="Uri") as error:
        provided(uri)
    assert error.value.status == 2
    assert error.value.message.isprintable()
    assert "qemu:///session" in error.value.hint


def test_settings_that_a_target_cannot_have(state: Path) -> None:
    with pytest.raises(Error, match="target virt has a Network, but"):
        provided("qemu:///session", Network="default")
    with pytest.raises(Error, match="has the unknown field Pol"):
        provided("test:///default", Pol="x")
    found = provided("qemu+ssh://me@host.example:22/system?keyfile=/k&known_hosts=/h", Pool="p", Network="n")
    assert (found.pool, found.network) == ("p", "n")
    assert (provided("qemu:///system").pool, provided("qemu:///system").network) == ("default", "default")
    assert (provided("qemu:///session").pool, provided("qemu:///session").network) == ("debian-cloud", "")


def test_without_the_package_only_its_targets_cannot_be_used(tmp_path: Path) -> None:
    folder = tmp_path / "debian-cloud/targets.d"
    folder.mkdir(parents=True)
    (folder / "virt.target").write_text("Target: virt\nDriver: libvirt\nUri: test:///default\n")
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    code = (
        "import sys; from debian_cloud.machines import drivers; import debian_cloud.machines.drivers.libvirt;"
        "assert 'libvirt' not in sys.modules; sys.modules['libvirt'] = None;"
        "from debian_cloud.__main__ import main; sys.exit(main())"
    )

    def done(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *words]
        environment["PYTHONPATH"] = str(SOURCE)
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    found = done("instances", "--on", "virt")
    refused(found, 2, "python3-libvirt is not installed", "apt-get install python3-libvirt")
    assert done("instances", "--on", "local").returncode == 0
    assert "target virt is left out: python3-libvirt is not installed" in done("instances").stderr
    assert debian_cloud("targets", **environment).returncode == 0


@pytest.fixture
def tried(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Libvirt]:
    """The domains of libvirt's driver for tests, to which nothing can be uploaded."""
    found = provided("test:///default")
    monkeypatch.setattr(
        pool, "upload", lambda volumes, name, file, _: volumes.create(name, file.stat().st_size, "raw")
    )
    yield found
    emptied(found)
    volumes = found._volumes(connection.opened(found.uri))
    for name in volumes.pool.listVolumes():
        pool._remove(volumes, name)


@pytest.mark.parametrize("architecture", domain.BOARDS)
def test_the_tags_of_a_machine_of_each_architecture(tried: Libvirt, tmp_path: Path, architecture: str) -> None:
    assert tried.describe() == ()
    name = tried.publish(source(tmp_path))
    begun = int(time.time())
    spec = replace(of(architecture), expires=2**31, throw_away=True, disks=(Disk("data", 2**26),))
    (found,) = tried.run(spec, name, ("a",), 1).instances
    assert (found.state, found.architecture) == ("running", architecture)
    assert found.login
    assert (found.login.port, found.login.alias) == (22, f"debian-cloud-{found.id}")
    top = ET.fromstring(looked_up(tried).XMLDesc(0))
    tags = {tag.get("name"): tag.text for tag in top.iter() if tag.tag.rpartition("}")[2] == "tag"}
    host_key, created = tags.pop("host-key"), int(tags.pop("created") or 0)
    assert re.fullmatch("ssh-ed25519 [A-Za-z0-9+/]{68}", str(host_key))
    assert begun <= created <= time.time()
    assert str(tags.pop("owner")).endswith(f"@{os.uname().nodename}")
    assert tags == {
        "version": "1",
        "id": found.id,
        "image": f"debian-13-generic-{architecture}-20261120.0",
        "architecture": architecture,
        "user": "debian",
        "pool": "default-pool",
        "expires": str(2**31),
        "throw-away": "yes",
        "phase": "whole",
    }
    machine = next(one for one in top.iter() if one.tag.rpartition("}")[2] == "machine")
    assert machine.tag == f"{{{domain.NAMESPACE}}}machine"
    sources = [one.attrib for one in top.findall("devices/disk/source")]
    assert sources == [
        {"pool": "default-pool", "volume": volume}
        for volume in (
            f"debian-cloud-instance-{found.id}.qcow2",
            f"debian-cloud-instance-{found.id}.seed",
            "debian-cloud-disk-data.qcow2",
        )
    ]
    (interface,) = top.findall("devices/interface/source")
    assert interface.get("network") == "default"
    tried.terminate(("a",))
    assert left(tried) == ["debian-cloud-disk-data.qcow2"]
    assert [one.name() for one in connection.opened(tried.uri).listAllDomains()] == ["test"]


def test_the_driver_for_tests_takes_no_image(state: Path, tmp_path: Path) -> None:
    found = provided("test:///default")
    assert found.about().startswith("test:///default, on ")
    with pytest.raises(Error, match=r"test:///default refused: .*not supported"):
        found.publish(source(tmp_path))
    assert left(found) == []
    with pytest.raises(Error, match="there is no pool none"):
        provided("test:///default", Pool="none").check(SPEC)


def test_what_an_image_without_a_seed_cannot_be(tried: Libvirt, tmp_path: Path) -> None:
    name = tried.publish(source(tmp_path))
    closed = replace(MACHINE, user="", datasources=())
    refusals: tuple[tuple[Machine, dict[str, Any], str], ...] = (
        (replace(MACHINE, datasources=("Ec2",)), {}, "reads no seed, so nobody could log in to it here"),
        (closed, {"expires": 2**31}, "reads no seed, so it cannot be told when to end"),
        (closed, {"user_data": "#!"}, "reads no seed, so it reads no user-data here"),
        (closed, {"keys": ("k",)}, "reads no seed, so it has no login by SSH"),
    )
    for machine, changes, said in refusals:
        with pytest.raises(Error, match=said):
            tried.run(replace(SPEC, image=record(machine=machine), **changes), name, ("a",), 1)
    (found,) = tried.run(replace(SPEC, image=record(machine=closed)), name, ("a",), 1).instances
    assert (found.state, found.login) == ("running", None)
    assert left(tried) == [f"debian-cloud-instance-{found.id}.qcow2"]
    with pytest.raises(Error, match="a reads no seed, so it does not expire"):
        tried.extend("a", 2**31)


def test_the_address_that_a_network_gave(tried: Libvirt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = tried.publish(source(tmp_path))
    card: dict[str, Any] = {"hwaddr": "52:54:00:00:00:01"}
    for given, host in (
        ({"vnet0": {**card, "addrs": [{"addr": "192.168.122.9", "prefix": 24, "type": 0}]}}, "192.168.122.9"),
        ({"vnet0": {**card, "addrs": None}}, ""),
        ({"vnet0": {**card, "addrs": [{"addr": "-oProxyCommand=x", "prefix": 24, "type": 0}]}}, ""),
        ({}, ""),
    ):
        monkeypatch.setattr(connection.api().virDomain, "interfaceAddresses", lambda *_, given=given: given)
        found = tried.describe(("a",)) or tried.run(SPEC, name, ("a",), 1).instances
        login = found[0].login
        assert (login.host if login else "", found[0].state) == (host, "running" if host else "starting")
        assert login is None or login.port == 22


def test_acceleration_where_it_works(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Connected:
        def getDomainCapabilities(self, *words: object) -> str:  # noqa: N802 - libvirt's name
            if words[-1] not in self.kinds:
                raise connection.api().libvirtError("no \x1b emulator")
            return "<domainCapabilities/>"

        kinds: tuple[str, ...] = ("qemu", "kvm")

    there = provided("qemu:///system")
    assert not there._accelerated(Connected(), SPEC)
    monkeypatch.setenv("DEBIAN_CLOUD_ACCEL", "kvm")
    assert there._accelerated(Connected(), SPEC)
    monkeypatch.delenv("DEBIAN_CLOUD_ACCEL")
    assert there._accelerated(Connected(), SPEC)
    Connected.kinds = ("qemu",)
    assert not there._accelerated(Connected(), SPEC)
    Connected.kinds = ()
    with pytest.raises(Error, match=r"qemu:///system has no machine for arm64: no \\x1b emulator") as error:
        there._accelerated(Connected(), of("arm64"))
    assert error.value.hint == "run apt-get install qemu-system-arm there"
