# SPDX-License-Identifier: GPL-3.0-or-later
"""The functions behind the verbs work without a command line: for a cluster job, the gate or a GTK program."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from debian_cloud import plan as plans
from debian_cloud.build import layers, request, store, workspace
from debian_cloud.build.request import BuildRequest
from debian_cloud.errors import USAGE, Error
from debian_cloud.formats import BLOCKS
from debian_cloud.host import memory
from debian_cloud.host.checksums import Digest
from debian_cloud.host.progress import shown
from debian_cloud.image.buildinfo import Draft
from debian_cloud.image.custom import custom
from debian_cloud.packages import cache, described
from debian_cloud.packages.offers import Wanted
from debian_cloud.packages.origin import Places
from debian_cloud.plan import as_shell
from debian_cloud.proof import fetch, rebuild, verify
from debian_cloud.proof.trust import Trust
from debian_cloud.proof.verify import Given
from tests import throwaway
from tests.command import debian_cloud
from tests.conftest import World
from tests.samples import DEBIAN, RESOLUTION, SERIAL
from tests.throwaway import Archive, configuration

TREE = {"Image-Format": "tar.xz"}
"""Fields of a root file system without a disk."""


@pytest.fixture(scope="module")
def archive() -> Iterator[Archive]:
    with throwaway.folder() as top:
        yield throwaway.archive(top, configuration(top / "debs", "small", TREE))


@pytest.fixture
def asked(archive: Archive) -> BuildRequest:
    return BuildRequest("small", places=Places(archive=f"file:{archive.public}", keyring=archive.keyring))


def test_what_is_asked_for_can_be_sent_to_another_process() -> None:
    asked = BuildRequest(
        "ec2", formats=("raw",), changes=custom("vim"), places=Places(archive="file:/x", keyring=Path("/x.gpg"))
    )
    for value in (asked, Wanted("ec2"), Trust(keyring=Path("/x.gpg")), Given(closure=Path("/x"))):
        assert pickle.loads(pickle.dumps(value)) == value
        assert len({value, pickle.loads(pickle.dumps(value))}) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"formats": ("vhdx",)}, "unknown disk format vhdx"),
        ({"serial": "1"}, "is not an image serial"),
        ({"config": "../x"}, "is not a valid name"),
        ({"suite": "../x"}, "is not a valid name"),
        ({"architecture": "amd65"}, "no images for architecture 'amd65'"),
        ({"places": Places(mirror="gopher://x")}, "is not a URL that apt accepts"),
        ({"places": Places(mirror="http://x\nTrusted: yes")}, "is not a URL that apt accepts"),
        ({"places": Places(archive="http://me:word@x")}, "has a user or a password in its URL"),
        ({"places": Places(snapshot="now")}, "is not the id of a snapshot"),
    ],
)
def test_a_value_is_refused_as_the_word_is(change: dict[str, Any], said: str) -> None:
    """A bad value is refused before anything is fetched: the test gives no archive."""
    with pytest.raises(Error) as refused:
        request.planned(replace(BuildRequest("ec2"), **change))
    assert refused.value.status == USAGE
    assert said in refused.value.message


def test_planned(archive: Archive, asked: BuildRequest) -> None:
    """The plan is the one that the command prints."""
    planned = request.planned(asked)
    assert planned.outputs == tuple(f"{planned.stem}.{end}" for end in ("tar.xz", "buildinfo", "image", "changes"))
    assert {"base-files", "debian-cloud-config-small"} <= {package.name for package in planned.resolution.packages}
    done = debian_cloud("plan", "small", *archive.sources)
    assert done.returncode == 0, done.stderr
    about, script = done.stdout.partition("\nset -eu\n")[::2]
    assert f"Plan {planned.id}," in about
    assert script == as_shell(planned.plan, planned.stem, "").partition("\nset -eu\n")[2] != ""


def test_planned_with_changes(asked: BuildRequest) -> None:
    changed = request.planned(replace(asked, changes=custom("nano"), serial="20261121.1000"))
    assert changed.stem.endswith("-small-amd64-20261121.1000")
    assert "nano" in {package.name for package in changed.resolution.packages}
    assert "nano" not in {package.name for package in request.resolved(asked).packages}


def test_built(asked: BuildRequest, tmp_path: Path) -> None:
    built = workspace.build(asked, tmp_path / "out", shown(quiet=True), bound=0)
    planned = built.planned
    assert built.new
    # Planning first, then each step.
    assert [timing.title for timing in built.timings[1:]] == [step.title for step in planned.plan]
    assert built.timings[0].cpu > 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*planned.outputs}
    kept = described.of(tmp_path / "out" / f"{planned.stem}.buildinfo")
    assert {*kept.packages} == {*planned.resolution.packages}
    assert kept.plan == planned.id
    # Nothing has changed, so nothing is done.
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert not workspace.build(asked, tmp_path / "out", shown(quiet=True)).new
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    # Another plan has other files, and these are not replaced.
    changed = replace(asked, changes=custom(hostname="x"), serial=planned.image.serial)
    for other in (changed, asked):
        with pytest.raises(Error, match="exists already"):
            workspace.build(other, tmp_path / "out", shown(quiet=True))
        os.utime(tmp_path / "out" / f"{planned.stem}.tar.xz")


@pytest.mark.thorough
def test_an_image_is_the_same_with_layers_and_without(
    asked: BuildRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From nothing and on the disk; and in memory, from the layers of an image with one package less."""
    monkeypatch.setattr(cache, "place", lambda: tmp_path / "cache")
    added = replace(asked, changes=custom("nano"))
    ids = layers.of(request.planned(asked).plan)
    assert len({*ids}) == len(ids) > 3
    found: dict[str, tuple[str, ...]] = {}
    for name, one, bound, disk in (
        ("nothing", added, 0, True),
        ("less", asked, store.BOUND, False),
        ("added", added, store.BOUND, False),
    ):
        monkeypatch.setenv(memory.NEVER, "1")
        if not disk:
            monkeypatch.delenv(memory.NEVER)
        built = workspace.build(one, tmp_path / name, shown(quiet=True), bound=bound)
        titles = [timing.title for timing in built.timings]
        taken = [title for title in titles if title.endswith("stages from the cache")]
        kept = titles.count("keep it for other builds")
        installed = len([title for title in titles if title.startswith("install ")])
        file = tmp_path / name / f"{built.planned.stem}.tar.xz"
        found[name] = (hashlib.sha256(file.read_bytes()).hexdigest(), *taken, str(kept), str(installed))
    stages = len(ids)
    assert found["nothing"][1:] == ("0", str(stages + 1))
    assert found["less"][1:] == (str(stages), str(stages))
    assert found["added"] == (found["nothing"][0], f"take {stages} stages from the cache", "1", "1")
    assert {layer.id for layer in store.listed()} > {*ids}


def of_another_size(file: Path) -> None:
    file.write_bytes(b"more")


def written_to(file: Path) -> None:
    os.utime(file, ns=(file.stat().st_mtime_ns + 10**9,) * 2)


def a_link(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


def open_to_others(file: Path) -> None:
    file.chmod(0o666)


def of_another_user(file: Path) -> None:
    if os.geteuid():
        file.chmod(0o664)
    else:
        os.chown(file, 65534, 65534)


def gone(file: Path) -> None:
    file.unlink()


def test_files_are_made_again_unless_the_same_plan_left_them(tmp_path: Path) -> None:
    content = b"disk"
    sealed = Draft.of(RESOLUTION, SERIAL, ("raw",), DEBIAN, "0" * 64).buildinfo.sealed(
        {f"debian-13-ec2-amd64-{SERIAL}.raw": Digest(len(content), {BLOCKS: "0" * 64})}
    )
    plan = (plans.Write("x", "x", "x"), plans.Write("y", "y", "y"), plans.Write("z", "z", "z"))
    file, text = tmp_path / f"{sealed.stem}.raw", tmp_path / f"{sealed.stem}.buildinfo"
    planned = request.Planned(plan, RESOLUTION, sealed.id, (file.name, text.name))

    def make(plan_id: str = planned.id) -> None:
        for path in tmp_path.iterdir():
            path.unlink()
        file.write_bytes(content)
        text.write_text(replace(sealed, plan=plan_id).render(()))

    assert not workspace.is_made(planned, tmp_path)
    make()
    assert workspace.is_made(planned, tmp_path)
    make("1" * 64)
    assert not workspace.is_made(planned, tmp_path)
    for change in (of_another_size, written_to, a_link, open_to_others, of_another_user, gone):
        make()
        change(file)
        assert not workspace.is_made(planned, tmp_path), change
    for change in (open_to_others, of_another_user):
        make()
        change(text)
        assert not workspace.is_made(planned, tmp_path), change
    for damaged in (b"", b"\xff\x00", b"Format: 1.0\n"):
        make()
        text.write_bytes(damaged)
        assert not workspace.is_made(planned, tmp_path)
    make()
    text.unlink()
    os.mkfifo(text)
    assert not workspace.is_made(planned, tmp_path)


@pytest.fixture
def known(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world, with its archive as the user's own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(world.folder / "config"))
    return world


def test_fetched_and_verified(known: World, container: Path, tmp_path: Path) -> None:
    said: list[str] = []
    image = fetch.fetch(Wanted("container"), tmp_path / "out", said.append, proof=True)
    assert said == []
    assert image.parent == tmp_path / "out"
    assert image.read_bytes() == container.read_bytes()
    # The proof was fetched with the image; other tests show that the image can be rebuilt.
    report = verify.verify(image, Trust(), Given(rebuilt=container))
    assert report.unexplained == ()
    assert list(report.signers) == throwaway.fingerprints_of(known.archive / "keyring.gpg")
    assert report.file
    assert report.file.digest == hashlib.sha256(container.read_bytes()).hexdigest()
    verify.refuse(image, report)

    changed = bytearray(image.read_bytes())
    changed[len(changed) // 2] ^= 1
    image.write_bytes(changed)
    with pytest.raises(Error, match="is not the file that the "):
        verify.verify(image, Trust(), Given(rebuilt=container))
    report = verify.verify(image, Trust(), Given(rebuilt=container), diagnose=True)
    with pytest.raises(Error, match="is not made only of signed packages"):
        verify.refuse(image, report)


def test_what_is_not_offered_is_refused(known: World, tmp_path: Path) -> None:
    for name, words in {"containr": "no image of containr in trixie", "../x": "not a valid name"}.items():
        with pytest.raises(Error, match=words):
            fetch.fetch(Wanted(name), tmp_path / "out", lambda _: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.thorough
def test_made_again(known: World, container: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image of the user's own archive is rebuilt without naming that archive, and from nothing."""
    monkeypatch.setattr(store, "opened", lambda _: pytest.fail("layers of former builds are used"))
    buildinfo = container.with_name(f"{container.name.removesuffix('.tar.xz')}.buildinfo")
    made = rebuild.rebuild(buildinfo, Trust(), output=tmp_path / "again")
    assert made.same == {container.name: True}
    assert (tmp_path / "again" / container.name).read_bytes() == container.read_bytes()
    rebuild.refuse(made)
    wrong = replace(made, same={container.name: False})
    with pytest.raises(Error, match="differs from what the "):
        rebuild.state(wrong, tmp_path / "statement", None)
    assert not (tmp_path / "statement").exists()
