# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances on this machine: real QEMU processes, whose disks have nothing on them, so that they boot nothing."""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from debian_cloud.cli.machines import options
from debian_cloud.cli.machines import run as verb
from debian_cloud.errors import Error
from debian_cloud.host import folders, memory, run
from debian_cloud.machines import drivers, running, source, ssh, target
from debian_cloud.machines.drivers import qemu
from debian_cloud.machines.drivers.qemu import Local
from debian_cloud.machines.instance import Instance
from debian_cloud.machines.qemu import bases, command, qmp, state
from debian_cloud.machines.spec import Disk, MachineSpec
from tests.command import debian_cloud, refused
from tests.machines.records import MACHINE, SIZE, empty, local, record


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Local]:
    """A directory of instances, all of which are ended at the end of the test."""
    monkeypatch.setenv("DEBIAN_CLOUD_ACCEL", "tcg")
    found = local(tmp_path)
    yield found
    found.terminate(state.names(found.root))
    assert state.names(found.root) == ()


@pytest.fixture
def image(here: Local, tmp_path: Path) -> str:
    """The base of an empty disk."""
    return here.publish(empty(tmp_path, record()))


SPEC = MachineSpec("a", record(), memory=2**28, cpus=1)


def start(here: Local, image: str, *names: str, spec: MachineSpec = SPEC) -> None:
    started = here.run(spec, image, names or ("a",), len(names) or 1)
    assert [one.state for one in started.instances] == ["running"] * len(started.instances)


def pid(here: Local, name: str = "a") -> int:
    return int((here.root / state.INSTANCES / name / state.PID).read_text())


def states(here: Local) -> dict[str, str]:
    return {one.name: one.state for one in here.describe()}


def folder(here: Local, name: str = "a") -> Path:
    return here.root / state.INSTANCES / name


def test_it_is_started_stopped_started_and_terminated(here: Local, image: str) -> None:
    start(here, image)
    (first,) = here.describe()
    assert first.login
    assert (first.login.user, first.login.host) == ("debian", "127.0.0.1")
    with pytest.raises(Error, match="a is running already"):
        here.power("a", "start")
    here.power("a", "stop", force=True)
    assert states(here) == {"a": "stopped"}
    with pytest.raises(Error, match="a is not running"):
        here.power("a", "stop")
    here.power("a", "start")
    (again,) = here.describe()
    assert again.login
    assert (again.id, again.login.alias) == (first.id, first.login.alias)
    here.power("a", "reboot", force=True)
    here.terminate(("a",))
    assert states(here) == {}
    here.terminate(("a",))


def test_a_guest_that_does_not_listen_is_named_and_left(here: Local, image: str) -> None:
    start(here, image)
    with pytest.raises(Error, match="a is still running after 0 s") as error:
        here.power("a", "stop", seconds=0.2)
    assert "--force" in error.value.hint
    assert states(here) == {"a": "running"}


def test_after_a_kill_it_is_stopped_and_starts_again(here: Local, image: str) -> None:
    start(here, image)
    os.kill(pid(here), signal.SIGKILL)
    assert qemu._released(folder(here), 5)
    assert states(here) == {"a": "stopped"}
    here.power("a", "start")
    assert states(here) == {"a": "running"}


def test_one_that_hangs_is_terminated(here: Local, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "_SHORT", 0.5)
    start(here, image)
    os.kill(pid(here), signal.SIGSTOP)
    here.terminate(("a",))
    assert states(here) == {}


def test_another_process_with_its_id_is_not_killed(here: Local, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "_SHORT", 0.3)
    start(here, image)
    real = pid(here)
    other = subprocess.Popen(["sleep", "60"])
    try:
        os.kill(real, signal.SIGSTOP)
        (folder(here) / state.PID).write_text(f"{other.pid}\n")
        with pytest.raises(Error, match="does not end"):
            here.terminate(("a",))
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
        (folder(here) / state.PID).write_text(f"{real}\n")


def test_names_are_taken_once(here: Local, image: str) -> None:
    start(here, image)
    with pytest.raises(Error, match="an instance a already"):
        here.run(SPEC, image, ("a",), 1)
    assert states(here) == {"a": "running"}


def test_two_commands_that_want_the_same_name(here: Local, image: str) -> None:
    said: list[str] = []

    def run() -> None:
        try:
            here.run(SPEC, image, ("a",), 1)
        except Error as error:
            said.append(error.message)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(said) == 3
    assert states(here) == {"a": "running"}
    assert {path.name for path in (here.root / state.INSTANCES).iterdir()} == {"a"}


def test_several_have_their_own_disks_ports_and_keys(here: Local, image: str) -> None:
    start(here, image, "a", "b")
    logins = [one.login for one in here.describe()]
    assert len({login.port for login in logins if login}) == 2
    assert len({login.host_key for login in logins if login}) == 2
    assert (here.root / state.BASES / image).stat().st_nlink == 3


def test_fewer_than_asked_for_are_none(here: Local, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter((2**40, 2**40, 2**20))
    monkeypatch.setattr(memory, "available", lambda: next(sizes))
    with pytest.raises(Error, match="c needs 512 MiB of memory, but 1 are free"):
        here.run(SPEC, image, ("a", "b", "c"), 3)
    assert states(here) == {}


def test_as_many_as_there_can_be(here: Local, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter((2**40, 2**40, 2**20))
    monkeypatch.setattr(memory, "available", lambda: next(sizes))
    started = here.run(SPEC, image, ("a", "b", "c"), 2)
    assert [one.name for one in started.instances] == ["a", "b"]
    assert "c needs 512 MiB of memory" in started.reason
    assert states(here) == {"a": "running", "b": "running"}


def test_what_is_interrupted_is_removed(here: Local, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Local._start

    def start_(self: Local, path: Path, kept: state.Kept, lock: int) -> None:
        real(self, path, kept, lock)
        if kept.name == "b":
            raise KeyboardInterrupt

    monkeypatch.setattr(Local, "_start", start_)
    with pytest.raises(KeyboardInterrupt):
        here.run(SPEC, image, ("a", "b"), 1)
    assert states(here) == {}
    assert [*(here.root / state.INSTANCES).iterdir()] == []


def test_one_that_cannot_start_says_why_and_is_removed(
    here: Local, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = command.argv
    monkeypatch.setattr(command, "argv", lambda *words: (*real(*words), "-device", "no-such\x1b[2J"))
    with pytest.raises(Error, match=r"a could not be started: QEMU has ended: .*no-such") as error:
        start(here, image)
    assert "\x1b" not in error.value.message
    assert states(here) == {}


def test_a_damaged_one_can_only_be_terminated(here: Local, image: str) -> None:
    start(here, image)
    here.power("a", "stop", force=True)
    (folder(here) / state.SPEC).write_text("{")
    (found,) = here.describe()
    assert (found.state, "cannot be read" in found.reason) == ("damaged", True)
    with pytest.raises(Error, match="cannot be read"):
        here.power("a", "start")
    here.terminate(("a",))
    assert states(here) == {}


def test_what_is_thrown_away_goes_when_it_has_ended(here: Local, image: str) -> None:
    start(here, image, spec=replace(SPEC, throw_away=True))
    assert states(here) == {"a": "running"}
    os.kill(pid(here), signal.SIGKILL)
    assert qemu._released(folder(here), 5)
    assert states(here) == {}
    assert not folder(here).exists()


def test_a_disk_outlives_instances_and_has_one_at_a_time(here: Local, image: str) -> None:
    spec = replace(SPEC, disks=(Disk("data", 2**26),))
    start(here, image, spec=spec)
    disk = here.root / "disks/data.qcow2"
    inode = disk.stat().st_ino
    with pytest.raises(Error, match=r"could not be started.*lock"):
        start(here, image, "b", spec=spec)
    here.terminate(("a",))
    start(here, image, "b", spec=replace(SPEC, disks=(Disk("data"),)))
    assert disk.stat().st_ino == inode
    with pytest.raises(Error, match="no disk other"):
        start(here, image, "c", spec=replace(SPEC, disks=(Disk("other"),)))


def test_a_file_may_be_as_large_as_the_largest_disk(here: Local, image: str) -> None:
    """Also that of a disk which was there before."""
    start(here, image, spec=replace(SPEC, disks=(Disk("data", 2**34),)))
    here.terminate(("a",))
    start(here, image, spec=replace(SPEC, disks=(Disk("data"),)))
    limit = Path(f"/proc/{pid(here)}/limits").read_text()
    (most,) = re.findall(r"^Max file size +([0-9]+) +\1 ", limit, re.M)
    assert 2**34 + 2**30 < int(most) < 2**35


def test_what_is_thrown_away_is_not_while_it_is_rebooted(
    here: Local, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(here, image, spec=replace(SPEC, throw_away=True))
    seen: list[dict[str, str]] = []

    def off(path: Path, name: str, seconds: float) -> None:
        qemu._end(path)
        seen.append(states(here))

    monkeypatch.setattr(qemu, "_power_off", off)
    here.power("a", "reboot")
    assert seen == [{"a": "stopped"}]
    assert states(here) == {"a": "running"}

    def late(path: Path, name: str, seconds: float) -> None:
        raise Error(f"{name} is still running")

    # After a reboot that did not come to its end, it is thrown away as before.
    monkeypatch.setattr(qemu, "_power_off", late)
    with pytest.raises(Error, match="still running"):
        here.power("a", "reboot")
    os.kill(pid(here), signal.SIGKILL)
    assert qemu._released(folder(here), 5)
    assert states(here) == {}


def test_what_is_thrown_away_stays_if_it_cannot_be_started_again(
    here: Local, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(here, image, spec=replace(SPEC, throw_away=True))
    monkeypatch.setattr(qemu, "_power_off", lambda path, *_: qemu._end(path))
    real = command.argv
    with monkeypatch.context() as broken:
        broken.setattr(command, "argv", lambda *words: (*real(*words), "-device", "no-such"))
        with pytest.raises(Error, match="could not be started"):
            here.power("a", "reboot")
    assert states(here) == {"a": "stopped"}
    here.power("a", "start")
    assert states(here) == {"a": "running"}


def test_an_instance_and_a_disk_may_be_called_gone(here: Local, image: str) -> None:
    for name in (".gone.partial", ".gone.qcow2.partial"):
        folder_ = here.root / (state.DISKS if "qcow2" in name else state.INSTANCES) / name
        with folders.locked(folder_, "it"):
            (folder_ / "made").mkdir()
            here.terminate(())
            assert (folder_ / "made").exists()
    start(here, image, "gone", spec=replace(SPEC, disks=(Disk("gone", 2**26),)))
    assert states(here) == {"gone": "running"}


def test_what_cannot_be_removed_is_said_and_the_others_go(
    here: Local, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(here, image, "a", "b")
    real = shutil.rmtree

    def rmtree(path: Path, ignore_errors: bool = False) -> None:
        if ".gone.a." not in str(path):
            real(path, ignore_errors=ignore_errors)

    with monkeypatch.context() as broken:
        broken.setattr(shutil, "rmtree", rmtree)
        with pytest.raises(Error, match="could not be removed"):
            here.terminate(("a", "b"))
    assert states(here) == {}
    assert [path.name[:8] for path in (here.root / state.INSTANCES).iterdir()] == [".gone.a."]
    here.terminate(())
    assert [*(here.root / state.INSTANCES).iterdir()] == []


def test_a_guest_that_does_not_hear_of_its_end_is_named(
    here: Local, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(here, image)
    before = state.read(folder(here))
    for ended, said in (
        (run.Ended(None, "", ""), "a does not answer"),
        (run.Ended(255, "", "Connection \x1b[2J"), r"a could not be told: Connection \\x1b"),
    ):
        monkeypatch.setattr(run, "bounded", lambda *_, ended=ended: ended)
        with pytest.raises(Error, match=said):
            here.extend("a", 2**31)
    assert state.read(folder(here)) == before


def test_a_directory_that_cannot_be_renamed_is_not_a_name_in_use(
    here: Local, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if target.name == "a":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(target))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="Input/output error"):
        here.run(SPEC, image, ("a",), 1)


def test_an_instance_that_is_about_to_start_is_waited_for(here: Local, image: str) -> None:
    start(here, image)
    seen = iter(("starting", "starting", "running"))
    (now,) = here.describe()

    def find() -> Instance | None:
        found = next(seen, None)
        if found is None:
            return None
        return replace(now, state="running" if found == "running" else "starting", login=None)

    assert not ssh.wait(find, 60, 0.1, lambda: None)
    # It was asked until it ran, and then nobody could log in.
    assert next(seen, None) is None


def test_one_that_is_gone_while_it_is_waited_for(here: Local, image: str) -> None:
    start(here, image, spec=replace(SPEC, throw_away=True))
    timer = threading.Timer(1, os.kill, (pid(here), signal.SIGKILL))
    timer.start()
    with pytest.raises(Error, match="a is gone"):
        running.wait(here, "a", 60)
    with pytest.raises(Error, match="a is gone"):
        running.wait(here, "a", 60)


def test_one_that_is_terminated_while_others_are_listed(
    here: Local, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(here, image, "a", "b")
    real, lost = Local._described, list[str]()

    def described(self: Local, name: str) -> Instance:
        if name == "a" and not lost:
            lost.append(name)
            self.terminate((name,))
        return real(self, name)

    monkeypatch.setattr(Local, "_described", described)
    assert states(here) == {"b": "running"}


def test_one_that_is_paused_goes_on(here: Local, image: str) -> None:
    start(here, image)
    with qmp.opened(folder(here), 5) as connection:
        connection.execute("stop")
    (found,) = here.describe()
    assert (found.state, found.reason) == ("paused", "it was told so")
    with pytest.raises(Error, match="a is paused: it was told so"):
        here.power("a", "stop")
    with pytest.raises(Error, match="a is paused"):
        running.wait(here, "a", 1)
    here.power("a", "start")
    assert states(here) == {"a": "running"}


@pytest.mark.parametrize(
    ("word", "said"), [("io-error", "could not be written"), ("internal-error", "must be reset")]
)
def test_one_that_is_paused_again_at_once(
    here: Local, image: str, monkeypatch: pytest.MonkeyPatch, word: str, said: str
) -> None:
    start(here, image)
    monkeypatch.setattr(qmp, "halted", lambda _: word)
    with pytest.raises(Error, match=said):
        here.power("a", "start")
    here.power("a", "stop", force=True)
    with pytest.raises(Error, match="a is not running"):
        here.power("a", "reboot", force=True)


def test_a_name_that_was_chosen_here_gives_way_to_another(
    here: Local, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers, "provider", lambda _: here)
    source = empty(tmp_path, record())
    plan = running.planned(here.target, source, replace(SPEC, name=""))
    assert plan.names == ("generic",)
    start(here, image, "generic", "generic-2")
    (found,) = running.start(plan).instances
    assert found.name == "generic-3"
    with pytest.raises(Error, match="an instance generic already"):
        running.planned(here.target, source, replace(SPEC, name="generic"))
    with pytest.raises(Error, match="an instance generic already"):
        running.start(replace(plan, chosen=False))


def test_another_file_system_has_no_hard_links(here: Local, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    start(here, image)
    assert (folder(here) / "base.raw").stat().st_nlink == 1


def test_the_lock_of_one_that_was_removed_is_none(here: Local, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command may have opened it before it was removed."""
    start(here, image)
    here.power("a", "stop", force=True)
    real = os.open

    def slow(path: Path | str, *words: int, **more: int) -> int:
        found = real(path, *words, **more)
        if str(path).endswith("/lock") and not gone:
            gone.append(path)
            folder(here).rename(here.root / "moved")
            folder(here).mkdir()
        return found

    gone: list[Path | str] = []
    monkeypatch.setattr(os, "open", slow)
    with pytest.raises(FileNotFoundError):
        here._started(folder(here))
    shutil.rmtree(here.root / "moved")
    folder(here).rmdir()


def test_a_larger_disk(here: Local, image: str) -> None:
    start(here, image, spec=replace(SPEC, disk=2**30))
    said = subprocess.run(
        ["qemu-img", "info", "-U", "--output=json", folder(here) / state.DISK], capture_output=True, check=True
    )
    assert json.loads(said.stdout)["virtual-size"] == 2**30


@pytest.mark.parametrize("boot", ["uefi", "secure"])
def test_each_firmware_runs(here: Local, image: str, boot: str) -> None:
    start(here, image, spec=replace(SPEC, boot="uefi" if boot == "uefi" else "secure"))
    end = time.monotonic() + 60
    while b"UEFI" not in here.console("a").log and b"BdsDxe" not in here.console("a").log:
        assert time.monotonic() < end, here.console("a").log
        time.sleep(0.2)


def test_arm64_runs_by_its_own_firmware(here: Local, tmp_path: Path) -> None:
    of = record(architecture="arm64", machine=replace(MACHINE, firmware=("uefi",), console="ttyAMA0"))
    start(here, here.publish(empty(tmp_path, of)), spec=replace(SPEC, image=of))
    end = time.monotonic() + 60
    while b"BdsDxe" not in here.console("a").log and b"UEFI" not in here.console("a").log:
        assert time.monotonic() < end, here.console("a").log
        time.sleep(0.2)


def test_an_image_that_reads_no_seed_gets_credentials(here: Local, tmp_path: Path) -> None:
    of = record("ec2", machine=replace(MACHINE, user="admin", datasources=("Ec2", "None")))
    base = here.publish(empty(tmp_path, of))
    start(here, base, spec=replace(SPEC, image=of))
    (found,) = here.describe()
    assert found.login
    assert found.login.user == "root"
    for spec, said in (
        (replace(SPEC, image=of, expires=2**31), "cannot be told when to end"),
        (replace(SPEC, image=of, user_data="#!/bin/sh"), "reads no user-data here"),
    ):
        with pytest.raises(Error, match=said) as error:
            here.check(spec)
        assert "generic" in error.value.hint
    here.check(replace(SPEC, image=of, keys=("ssh-ed25519 AAAA",)))


def test_an_image_without_ssh_has_a_console(here: Local, tmp_path: Path) -> None:
    of = record("nocloud", machine=replace(MACHINE, user="", datasources=()))
    start(here, here.publish(empty(tmp_path, of)), spec=replace(SPEC, image=of))
    (found,) = here.describe()
    assert found.login is None
    console = here.console("a")
    connection = state.connected(Path(console.socket).parent, Path(console.socket).name, 5)
    connection.close()
    with pytest.raises(Error, match="nobody can log in to a by SSH"):
        running.wait(here, "a", 1)
    with pytest.raises(Error, match="has no login by SSH"):
        here.check(replace(SPEC, image=of, keys=("ssh-ed25519 AAAA",)))


def test_nobody_else_reads_its_secrets(here: Local, image: str) -> None:
    start(here, image)
    private = "PRIVATE KEY"
    for path in folder(here).rglob("*"):
        if path.is_file() and path.stat().st_size < 2**20 and private in path.read_text("utf-8", "replace"):
            assert path.stat().st_mode & 0o077 == 0, path
            assert path.parent.name == state.SEED
    arguments = Path(f"/proc/{pid(here)}/cmdline").read_text()
    assert private not in arguments
    assert here.root.stat().st_mode & 0o777 == 0o755 or here.root.stat().st_mode & 0o077 == 0
    assert (here.root / state.INSTANCES).stat().st_mode & 0o777 == 0o700


def test_a_base_is_of_the_right_bytes(here: Local, tmp_path: Path) -> None:
    source = empty(tmp_path, record())
    assert source.file
    with source.file.open("r+b") as file:
        file.write(b"x")
    with pytest.raises(Error, match="was changed while it was copied"):
        here.publish(source)
    assert [*(here.root / state.BASES).iterdir()] == []


def test_a_base_is_never_written_to(here: Local, image: str) -> None:
    start(here, image)
    base = here.root / state.BASES / image
    assert base.stat().st_mode & 0o777 == 0o444
    assert (folder(here) / "base.raw").samefile(base)


def test_bases_that_nobody_has_are_bounded(
    here: Local, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bases, "BOUND", 2**20)
    places = here.root / state.BASES
    for number in range(3):
        (places / f"sha512-{number}.raw").write_bytes(b"x" * 2**19)
        os.utime(places / f"sha512-{number}.raw", (number + 1, number + 1))
    start(here, image)
    here.terminate(())
    assert {path.name for path in places.iterdir()} == {image, "sha512-1.raw", "sha512-2.raw"}


def test_what_killed_commands_left_is_removed(here: Local, image: str) -> None:
    left = [here.root / state.INSTANCES / name for name in (".x.partial", ".gone.y.1")]
    for path in left:
        (path / "tmp").mkdir(parents=True, mode=0o700)
        path.chmod(0o700)
    start(here, image)
    assert not any(path.exists() for path in left)


def test_a_full_disk_is_said(here: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is mostly holes needs no room for them."""
    source = empty(tmp_path, record())
    assert source.file
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**19))
    here.publish(source)
    with source.file.open("r+b") as file:
        file.write(os.urandom(2**20))
    with pytest.raises(Error, match="the disk is full"):
        here.publish(replace(source, digest="sha256-0"))


# The verbs, as commands.


@pytest.fixture
def command_line(here: Local, image: str, monkeypatch: pytest.MonkeyPatch) -> Local:
    """The same instances for commands."""
    place = here.root.parent / "state/debian-cloud"
    place.parent.mkdir()
    place.symlink_to(here.root)
    monkeypatch.setenv("XDG_STATE_HOME", str(place.parent))
    return here


def test_the_verbs_of_one(command_line: Local, image: str) -> None:
    start(command_line, image)
    listed = debian_cloud("instances")
    assert listed.stdout.split()[:3] == ["a", "local", "running"]
    (found,) = json.loads(debian_cloud("instances", "--json").stdout)
    assert (found["name"], found["state"], found["login"]["user"]) == ("a", "running", "debian")
    assert debian_cloud("console", "a").returncode == 0
    refused(debian_cloud("start", "a"), 2, "a is running already")
    assert debian_cloud("stop", "a", "--force").returncode == 0
    refused(debian_cloud("ssh", "a", "true"), 2, "a is stopped", "debian-cloud start a")
    refused(debian_cloud("extend", "a", "8h"), 2, "a is not running")
    refused(debian_cloud("stop", "a", "b"), 2, "a is not running; there is no instance b")
    assert debian_cloud("start", "a").returncode == 0
    assert debian_cloud("reboot", "a", "--force").returncode == 0
    assert debian_cloud("terminate", "a").stdout == "a is terminated\n"
    assert debian_cloud("instances").stdout == ""


def test_one_unknown_does_not_keep_the_others(command_line: Local, image: str) -> None:
    start(command_line, image, "a", "b")
    done = debian_cloud("terminate", "x", "a", "b")
    refused(done, 2, "there is no instance x")
    assert done.stdout == "a is terminated\nb is terminated\n"
    refused(debian_cloud("terminate"), 2, "no instance is named")


def test_one_that_has_no_address_yet_is_waited_for(
    here: Local, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a network of libvirt's, where it is leased later."""
    one = Instance("a", "a-1", "local", record().stem, "amd64", "starting")
    waited: list[str] = []
    monkeypatch.setattr(options, "source", lambda _: source.Source(record(), "sha256-0"))
    monkeypatch.setattr(target, "find", lambda *_: here.target)
    monkeypatch.setattr(drivers, "provider", lambda _: here)
    monkeypatch.setattr(running, "start", lambda _: drivers.Started((one,)))
    monkeypatch.setattr(running, "wait", lambda _, name, *__: waited.append(name))
    parser = argparse.ArgumentParser()
    verb.arguments(parser)
    assert verb.main(parser.parse_args(["generic", "--wait", "--memory", "256M"])) == 0
    assert waited == ["a"]
    assert "debian-cloud ssh a    (as debian)" in capsys.readouterr().out


def test_those_that_have_expired(command_line: Local, image: str) -> None:
    start(command_line, image, "a", "b", spec=replace(SPEC, expires=int(time.time()) + 3600))
    start(command_line, image, "c", spec=replace(SPEC, expires=int(time.time()) - 1))
    assert "(expired)" in debian_cloud("instances").stdout.splitlines()[2]
    assert debian_cloud("terminate", "--expired").stdout == "c is terminated\n"
    command_line.power("a", "stop", force=True)
    state.write(folder(command_line), replace(state.read(folder(command_line)), expires=1))
    done = debian_cloud("start", "a")
    assert (done.returncode, "has expired" in done.stderr) == (0, True)


def test_a_guest_s_text_is_printed_as_text(command_line: Local, image: str) -> None:
    start(command_line, image)
    with (folder(command_line) / state.CONSOLE_LOG).open("ab") as log:
        log.write(b"\x1b[1mbold\x1b[0m \x1b]0;title\x07\xff\n" + b"x\r\n" * 300)
    done = debian_cloud("console", "a", "--log", "--lines", "301")
    assert done.stdout.startswith("bold \\x1b]0;title\\x07\ufffd\n")
    assert len(debian_cloud("console", "a", "--log").stdout.splitlines()) == 200
    refused(debian_cloud("console", "a", "--log", "--lines", "0"), 2, "prints nothing")


def test_one_that_does_not_answer_lives_on_and_its_console_is_shown(command_line: Local, image: str) -> None:
    start(command_line, image)
    with (folder(command_line) / state.CONSOLE_LOG).open("ab") as log:
        log.write(b"Kernel panic \x1b[2J\n")
    done = debian_cloud("ssh", "--timeout", "1", "a", "true")
    refused(done, 1, "a does not answer by SSH after 1 s, and still runs", "Kernel panic", "debian-cloud console a")
    assert "\x1b" not in done.stderr
    assert states(command_line) == {"a": "running"}


def test_one_that_ends_while_it_is_waited_for(command_line: Local, image: str) -> None:
    start(command_line, image)
    timer = threading.Timer(1, os.kill, (pid(command_line), signal.SIGKILL))
    timer.start()
    begun = time.monotonic()
    refused(debian_cloud("ssh", "--timeout", "60", "a", "true"), 1, "a stopped")
    assert time.monotonic() - begun < 30


def test_any_other_server_at_the_port_is_no_answer(here: Local, image: str) -> None:
    start(here, image)
    (folder(here) / state.PORT).write_text("9\n")
    with pytest.raises(Error, match="does not answer"):
        running.wait(here, "a", 0.5)


@pytest.mark.parametrize("at", [0.05, 0.15, 0.25, 0.35, 0.5])
def test_after_a_command_was_killed_all_is_told_as_it_is(command_line: Local, image: str, at: float) -> None:
    """Whenever `start` is killed, the instance is stopped, starting or running, and can be terminated."""
    start(command_line, image)
    command_line.power("a", "stop", force=True)
    process = subprocess.Popen(["debian-cloud", "start", "a"], stdin=subprocess.DEVNULL)
    time.sleep(at)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    process.wait()
    (found,) = command_line.describe()
    assert found.state in ("stopped", "starting", "running")
    assert (found.state == "stopped") == (not state.is_locked(folder(command_line)))
    if found.state == "stopped":
        command_line.power("a", "start")
        assert states(command_line) == {"a": "running"}
    command_line.terminate(("a",))
    assert states(command_line) == {}


def test_a_terminal_is_connected_until_it_says_so(command_line: Local, image: str) -> None:
    start(command_line, image)
    main, other = pty.openpty()
    process = subprocess.Popen(["debian-cloud", "console", "a"], stdin=other, stdout=other, stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert b"connected to a" in process.stderr.readline()
    refused_ = subprocess.run(
        ["script", "--quiet", "--command", "debian-cloud console a", "/dev/null"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "another terminal is connected" in refused_.stdout
    os.write(main, b"\x1d")
    assert process.wait(30) == 0
    # The end of the instance is the end of the connection.
    process = subprocess.Popen(["debian-cloud", "console", "a"], stdin=other, stdout=other, stderr=subprocess.PIPE)
    assert process.stderr is not None
    process.stderr.readline()
    time.sleep(0.5)
    os.kill(pid(command_line), signal.SIGKILL)
    assert process.wait(30) == 0
    assert b"error" not in process.stderr.read()


def test_the_driver_is_found_by_its_target(here: Local) -> None:
    assert drivers.provider(replace(here.target, settings={"Directory": str(here.root)})) == replace(
        here, target=replace(here.target, settings={"Directory": str(here.root)})
    )
    assert str(here.root) in here.about()
    assert SIZE == 2**26
