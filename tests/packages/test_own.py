# SPDX-License-Identifier: GPL-3.0-or-later
"""An archive in the user's configuration needs neither --archive nor --keyring; a bad file there is reported."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from debian_cloud import cli
from debian_cloud.build import workspace
from debian_cloud.errors import Error
from debian_cloud.host import files, sign
from debian_cloud.packages import own
from debian_cloud.proof import rebuild
from tests import throwaway
from tests.archive.clients import private
from tests.command import debian_cloud, refused
from tests.conftest import PUBLISHED, World
from tests.throwaway import FINE, configuration

GOOD = """\
# mine
Types: deb deb-src
URIs: file:/srv/archive/public
Suites: trixie forky
# with a remark
Components: main contrib
Signed-By: {key}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration directory of a user, with a blank in its name."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "own config"))
    folder = tmp_path / "own config/debian-cloud"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key.gpg"
    path.write_bytes(b"a key")
    return path


def test_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert own.directory() == tmp_path / ".config/debian-cloud"
    assert own.archives() == ()
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert own.directory() == tmp_path / ".config/debian-cloud"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "x"))
    assert own.directory() == tmp_path / "x/debian-cloud"


def test_a_path_and_a_key_within(config: Path, key: Path) -> None:
    (config / "a.sources").write_text(GOOD.format(key=key))
    (config / "b.sources").write_text(
        "types: deb\nURIs: https://cloud.example.org\nSuites: sid\nComponents: main\n"
        "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ==\n -----END PGP PUBLIC KEY BLOCK-----\n\n"
        "Enabled: no\nTypes: deb\nURIs: https://b.example.org\nSuites: sid\nComponents: main\nSigned-By: /none\n"
    )
    (config / "c.list").write_text("deb http://x y z\n")
    found = own.archive("forky")
    assert found
    assert (found.source.uri, found.source.components) == ("file:/srv/archive/public", ("main", "contrib"))
    assert found.keys == b"a key"
    found = own.archive("sid")
    assert found
    assert found.source.components == ("main",)
    assert found.keys == b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQ==\n-----END PGP PUBLIC KEY BLOCK-----\n"
    assert own.archive("bookworm") is None


def test_two_archives_of_one_suite(config: Path, key: Path) -> None:
    (config / "a.sources").write_text(GOOD.format(key=key))
    (config / "b.sources").write_text(GOOD.format(key=key).replace("/srv", "/tmp"))
    with pytest.raises(Error, match="several archives") as caught:
        own.archive("trixie")
    assert str(config / "a.sources") in caught.value.message
    assert "--archive URL --keyring FILE" in caught.value.hint
    # Two files that name the same archive are no conflict.
    (config / "b.sources").write_text(GOOD.format(key=key))
    assert own.archive("trixie")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Types: deb deb-src", "Types: deb-src", "Types is"),
        ("URIs: file", "URIs: ftp", "not one plain address"),
        ("URIs: file:/srv/archive/public", "URIs: https://u:p@cloud.example.org", "not one plain address"),
        ("URIs: file:/srv/archive/public", "URIs: https://a https://b", "not one plain address"),
        ("Suites: trixie", "Suites: ./", "suite"),
        ("Components: main contrib", "Components: main non-free", "Components is"),
        ("Components: main contrib", "Trusted: yes\nComponents: main", "the field Trusted is not accepted"),
        ("Components: main contrib", "Allow-Insecure: yes\nComponents: main", "the field Allow-Insecure is not"),
        ("Components: main contrib\n", "", "has no field Components"),
        ("Components: main contrib", "Components: main\nTypes: deb", "a stanza has the field Types twice"),
        ("Components: main contrib", "deb http://x trixie main", "line 6 is not a field and its value"),
        ("Signed-By: ", "Signed-By: ~/", "neither one path nor a key"),
        ("Signed-By: ", "Signed-By: /nowhere/", "cannot be read"),
        ("Types: deb", "Enabled: perhaps\nTypes: deb", "Enabled is 'perhaps'"),
    ],
)
def test_what_is_refused(config: Path, key: Path, old: str, new: str, said: str) -> None:
    text = GOOD.format(key=key)
    assert old in text
    (config / "a.sources").write_text(text.replace(old, new, 1))
    with pytest.raises(Error, match=re.escape(said)) as caught:
        own.archives()
    assert caught.value.hint
    assert str(config / "a.sources") in caught.value.message
    assert caught.value.status == 2


@pytest.mark.parametrize("which", ["directory", "above", "file", "keyring", "keyring's directory"])
@pytest.mark.parametrize("mode", [0o002, 0o020])
def test_what_others_can_write_is_refused(
    config: Path, key: Path, monkeypatch: pytest.MonkeyPatch, which: str, mode: int
) -> None:
    monkeypatch.setattr(files, "_own_group", lambda _: False)
    (config / "a.sources").write_text(GOOD.format(key=key))
    places = {"directory": config, "above": config.parent, "file": config / "a.sources", "keyring": key}
    place = places.get(which, key.parent)
    assert own.archives()
    place.chmod(place.stat().st_mode | mode)
    with pytest.raises(Error, match="can be written by other users") as caught:
        own.archives()
    assert str(place) in caught.value.message
    assert (caught.value.status, caught.value.hint) == (2, f"run chmod go-w {place}")
    # In a sticky directory, others can add files but not replace them, so only the files' directory is in danger.
    if place.is_dir():
        place.chmod(place.stat().st_mode | 0o1000)
        if which == "directory":
            with pytest.raises(Error, match="can be written by other users"):
                own.archives()
        else:
            assert own.archives()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("which", ["directory", "above", "file", "keyring", "link"])
def test_what_belongs_to_another_is_refused(config: Path, key: Path, which: str) -> None:
    file = config / "a.sources"
    (config.parent / "real").write_text(GOOD.format(key=key))
    file.symlink_to(config.parent / "real")
    assert own.archives()
    places = {"directory": config, "above": config.parent, "file": file, "keyring": key, "link": file}
    os.chown(places[which], 65534, 65534, follow_symlinks=which != "link")
    with pytest.raises(Error, match="belongs to nobody") as caught:
        own.archives()
    assert str(config.parent / "real" if which == "file" else places[which]) in caught.value.message
    assert (caught.value.status, bool(caught.value.hint)) == (2, True)


def test_a_link_is_as_good_as_what_it_leads_through(
    config: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_own_group", lambda _: False)
    place = tmp_path / "elsewhere"
    place.mkdir()
    (place / "mine.sources").write_text(GOOD.format(key=place / "../elsewhere/key.gpg"))
    (place / "key.gpg").symlink_to("../key.gpg")
    (config / "a.sources").symlink_to("../../elsewhere/mine.sources")
    (found,) = own.archives()
    assert found.keys == key.read_bytes()
    place.chmod(0o777)
    with pytest.raises(Error, match="elsewhere can be written by other users"):
        own.archives()
    place.chmod(0o755)
    # The directory may be a link; a link that leads to itself cannot be read.
    shutil.move(config, tmp_path / "moved")
    config.symlink_to(tmp_path / "moved")
    (tmp_path / "moved/a.sources").unlink()
    (tmp_path / "moved/a.sources").symlink_to("a.sources")
    with pytest.raises(Error, match="cannot be read"):
        own.archives()
    (tmp_path / "moved").chmod(0o1777)
    with pytest.raises(Error, match="moved can be written by other users"):
        own.archives()


@pytest.mark.parametrize(
    ("group", "members", "others", "own_"),
    [
        ("me", [], [], True),
        ("me", ["me"], [], True),
        ("me", ["me", "you"], [], False),
        ("me", [], [("you", 5000)], False),
        ("users", [], [], False),
    ],
)
def test_a_user_group_is_nobody_else(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    group: str,
    members: list[str],
    others: list[tuple[str, int]],
    own_: bool,
) -> None:
    """A umask of 002, as Debian gives users with groups of their own, is safe."""
    gid = 5000 if group == "me" else 100
    user = SimpleNamespace(pw_name="me", pw_uid=5000, pw_gid=5000)
    everybody = [user, *(SimpleNamespace(pw_name=name, pw_uid=6000, pw_gid=gid) for name, gid in others)]
    monkeypatch.setattr("pwd.getpwuid", lambda _: user)
    monkeypatch.setattr("pwd.getpwall", lambda: everybody)
    monkeypatch.setattr("grp.getgrgid", lambda _: SimpleNamespace(gr_gid=gid, gr_mem=members))
    found = os.stat_result((0o100664, 0, 0, 1, 5000, gid, 0, 0, 0, 0))
    assert files._own_group(found) is own_


# With real apt: only the two commands.


@dataclass(frozen=True)
class Own:
    """A user's own archive, and the user's directories."""

    archive: Path
    env: dict[str, str]
    said: str


@pytest.fixture(scope="module")
def user() -> Iterator[Own]:
    with throwaway.folder() as top:
        env = {"XDG_CONFIG_HOME": str(top / "config"), "HOME": str(top)}
        debs = [configuration(top / "debs", "mine", FINE), configuration(top / "debs", "ours", FINE)]
        done = command(top / "a", "init", "--own", **env)
        assert done.returncode == 0, done.stderr
        # A configuration of the user's own, whose source package has its name.
        added = command(top / "a", "add", *debs, **env)
        assert added.returncode == 0, added.stderr
        assert added.stdout.count("accepted: ") == 2
        yield Own(top / "a", env, done.stdout)


def command(archive: Path, verb: str, *arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run debian-cloud-archive as this user."""
    return subprocess.run(
        [
            "env",
            *(f"{name}={value}" for name, value in env.items()),
            "debian-cloud-archive",
            verb,
            archive,
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_init_says_where(user: Own) -> None:
    file = Path(user.env["XDG_CONFIG_HOME"]) / "debian-cloud/a.sources"
    assert f"known by:  {file}\n" in user.said
    assert f"to add:    debian-cloud-archive add {user.archive} FILE.deb\n" in user.said
    assert f"Signed-By: {user.archive}/keyring.gpg\n" in file.read_text()


def test_apt_itself_reads_the_file(user: Own, tmp_path: Path) -> None:
    """The file has apt's own format: it is a source if it is among apt's."""
    file = Path(user.env["XDG_CONFIG_HOME"]) / "debian-cloud/a.sources"
    options = private(tmp_path / "apt", file.read_text())
    done = subprocess.run(
        ["apt-get", *options, "--error-on=any", "update"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        ["apt-cache", *options, "show", "debian-cloud-config-mine"], capture_output=True, text=True, check=False
    )
    assert "Package: debian-cloud-config-mine" in done.stdout


def test_list_show_and_plan_need_no_options(user: Own) -> None:
    done = debian_cloud("list", **user.env)
    assert done.returncode == 0, done.stderr
    assert re.findall("^(mine|ours) ", done.stdout, re.MULTILINE) == ["mine", "ours"]
    done = debian_cloud("show", "mine", **user.env)
    assert done.returncode == 0, done.stderr
    done = debian_cloud("plan", "mine", **user.env)
    assert done.returncode == 0, done.stderr
    assert f"copy:{user.archive}/public" in done.stdout


def test_no_image_asks_an_archive_without_an_address(user: Own) -> None:
    """An image does not get the archive as a source, because `apt update` would fail on its machines."""
    assert list((user.archive / "public").glob("*.deb")) == []
    assert "archive-keyring" not in debian_cloud("plan", "mine", **user.env).stdout.replace(
        "debian-archive-keyring", ""
    )
    shown = command(user.archive, "status", **user.env).stdout
    assert f"archive    {user.archive}\n" in shown


def test_options_and_the_absence_of_a_file_decide_otherwise(user: Own, tmp_path: Path) -> None:
    refused(debian_cloud("list", "--archive", "file:/nowhere", **user.env), 2, "--archive needs --keyring")
    refused(
        debian_cloud("list", **{**user.env, "XDG_CONFIG_HOME": str(tmp_path)}),
        2,
        "knows no archive of image configurations for trixie",
        "debian-cloud-archive init DIR --own",
    )
    file = tmp_path / "debian-cloud/x.sources"
    file.parent.mkdir()
    file.write_text("Types: deb\nTrusted: yes\n")
    refused(debian_cloud("list", **{**user.env, "XDG_CONFIG_HOME": str(tmp_path)}), 2, "the field Trusted is not")


def test_a_file_of_another_archive_is_left(user: Own, tmp_path: Path) -> None:
    file = Path(user.env["XDG_CONFIG_HOME"]) / "debian-cloud/a.sources"
    before = file.read_text()
    (user.archive.parent / "deeper").mkdir()
    done = command(user.archive.parent / "deeper" / "a", "init", "--own", **user.env)
    assert done.returncode == 2
    assert f"error: {file} exists and belongs to another archive\n" in done.stderr
    assert not (user.archive.parent / "deeper" / "a").exists()
    assert file.read_text() == before
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = command(user.archive.parent / "b", "init", "--own", **{**user.env, "XDG_CONFIG_HOME": str(blocked)})
    assert done.returncode == 2
    assert f"error: cannot write to {blocked}/debian-cloud\nhint: " in done.stderr
    assert not (user.archive.parent / "b").exists()


# An image that was built and published (tests/demo), on a machine without a keyring package.


def known(world: World) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(world.folder / "config")}


def test_the_images_of_an_archive_of_one_s_own_are_listed(world: World) -> None:
    done = debian_cloud("list", "--images", "--json", **known(world))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [image["config"] for image in found] == list(PUBLISHED)
    machines = {image["config"]: image["machine"] for image in found}
    assert (machines["ec2"]["firmware"], machines["ec2"]["boot_mode"]) == (["bios", "uefi"], "uefi-preferred")
    assert (machines["ec2"]["root_device"], machines["ec2"]["console"]) == ("/dev/xvda", "ttyS0")
    assert (machines["ec2"]["user"], machines["ec2"]["memory"]) == ("admin", 2**29)
    assert machines["generic"]["datasources"][:2] == ["NoCloud", "ConfigDrive"]
    assert machines["container"]["firmware"] == []


def test_what_was_built_is_verified_where_it_lies(world: World, container: Path, tmp_path: Path) -> None:
    """The archive that published the image has its signed sums and its closure."""
    image = container
    done = debian_cloud("verify", image, "--rebuilt", image, **known(world))
    assert done.returncode == 0, done.stderr
    assert "\n0 are unexplained\n" in done.stdout
    (signer,) = throwaway.fingerprints_of(world.archive / "keyring.gpg")
    assert signer in done.stdout
    refused(debian_cloud("verify", image, XDG_CONFIG_HOME=str(tmp_path)), 2, "is not beside it")
    # This applies only to published files: another .buildinfo is unsigned.
    (other := tmp_path / "other").mkdir()
    (other / image.name).symlink_to(image)
    buildinfo = image.with_name(f"{image.name.removesuffix('.tar.xz')}.buildinfo")
    (other / buildinfo.name).write_text(re.sub(r"(?m)^(Image-Plan: ).{8}", r"\g<1>00000000", sign.text(buildinfo)))
    done = debian_cloud("verify", other / image.name, "--rebuilt", image, **known(world))
    refused(done, 1, f"{other / buildinfo.name} is not signed")


@pytest.mark.thorough
def test_it_is_made_again_without_an_option(
    world: World, container: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tested until the plan is complete: other tests show that the bytes are the same."""
    made: list[str] = []
    monkeypatch.setenv("XDG_CONFIG_HOME", known(world)["XDG_CONFIG_HOME"])
    monkeypatch.setattr(workspace, "make", lambda planned, *_, **__: made.append(planned.stem))
    monkeypatch.setattr(rebuild, "_compared", lambda *_: {"it": True})
    buildinfo = container.with_name(f"{container.name.removesuffix('.tar.xz')}.buildinfo")
    assert cli.run(["rebuild", str(buildinfo)]) == 0
    assert made == [buildinfo.stem]
    (signer,) = throwaway.fingerprints_of(world.archive / "keyring.gpg")
    assert f"{buildinfo.name} is signed by {signer}\n" in capsys.readouterr().out
