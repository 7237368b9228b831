# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans: their text equals a golden file, their identity, and the text does the same as the execution."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from debian_cloud import plan
from debian_cloud.build import scripts
from debian_cloud.build import steps as build_steps
from debian_cloud.errors import USAGE, Error
from debian_cloud.host import folders, run, tools
from debian_cloud.host.progress import Progress
from debian_cloud.image import custom
from tests.samples import ARCHIVE, CONFIG, CONTAINER, DEBIAN, EC2, RESOLUTION, SERIAL, configured, planned

if TYPE_CHECKING:
    pass

GOLDEN = Path(__file__).parents[1] / "golden"


def written(steps: plan.Plan, path: str) -> str:
    """What a step writes into a file of the tree."""
    (text,) = (step.stdin for step in steps if isinstance(step, plan.Run) and step.argv[-1] == f"tree/{path}")
    assert isinstance(text, str)
    return text


def staged(steps: plan.Plan) -> dict[str, list[str]]:
    """The operations of each stage."""
    return {
        step.path.removeprefix("stages/").partition("-")[2]: step.text.splitlines()
        for step in steps
        if isinstance(step, plan.Write) and step.path.startswith("stages/")
    }


PLAN = planned(CONFIG)
TAR = planned(configured(CONTAINER, "container"))


@pytest.mark.parametrize(("name", "steps"), [("ec2", PLAN), ("container", TAR)])
def test_the_plan_is_the_golden_one(name: str, steps: plan.Plan) -> None:
    text = plan.as_shell(steps, "image", "About.")
    # Scripts that a plan writes are files of the source already.
    for script in resources.files(scripts).iterdir():
        if script.is_file() and script.name != "__init__.py":
            text = text.replace(script.read_text("utf-8"), f"(the text of {script.name})\n")
    golden = GOLDEN / f"{name}.sh"
    if "DEBIAN_CLOUD_GOLDEN" in os.environ:
        golden.write_text(text, "utf-8")
    assert text == golden.read_text("utf-8"), "if the change is wanted: DEBIAN_CLOUD_GOLDEN=1 make check"


def test_an_image_without_firmware_has_neither_disk_nor_boot_loader() -> None:
    def words(steps: plan.Plan) -> list[str]:
        return [
            word
            for step in steps
            for word in (step.title, *(step.argv if isinstance(step, plan.Run) else (step.path,)))
        ]

    for part in ("sfdisk", "mke2fs", "mformat", "write fstab", "grub", "boot/efi", ".raw"):
        assert any(part in word for word in words(PLAN))
        assert not any(part in word for word in words(TAR))
    assert "/mnt/debian-13-container-amd64-20261121.0.tar.xz" in words(TAR)


def test_a_boot_waits_for_the_root_file_system_alone(tmp_path: Path) -> None:
    """An ESP that a busy host shows too late would end the boot in an emergency shell, which nobody can enter."""
    (tmp_path / "fstab").write_text(written(PLAN, "etc/fstab"))
    subprocess.run(
        ["/lib/systemd/system-generators/systemd-fstab-generator", *(str(tmp_path),) * 3],
        env={"SYSTEMD_FSTAB": str(tmp_path / "fstab")},
        check=True,
    )
    assert [path.name for path in (tmp_path / "local-fs.target.requires").iterdir()] == ["-.mount"]
    assert (tmp_path / "local-fs.target.wants/boot-efi.mount").exists()
    assert "Before=local-fs.target" not in (tmp_path / "boot-efi.mount").read_text()
    (timeout,) = tmp_path.glob("dev-disk-by*.device.d/50-device-timeout.conf")
    assert "JobRunningTimeoutSec=10min" in timeout.read_text()


@pytest.mark.parametrize(
    ("fields", "wanted", "sentence", "hint"),
    [
        (EC2, "tar.xz", "x is a disk, which has no format tar.xz", "--format qcow2,raw"),
        (CONTAINER, "raw", "x is a root file system without a disk, which has no format raw", "--format tar.xz"),
        (CONTAINER, "qcow2", "x is a root file system without a disk, which has no format qcow2", "--format tar.xz"),
    ],
)
def test_a_format_is_refused_where_there_is_nothing_to_make_it_of(
    fields: dict[str, str], wanted: str, sentence: str, hint: str
) -> None:
    with pytest.raises(Error, match=sentence) as refused:
        planned(configured(fields, "x"), (wanted,))
    assert hint in refused.value.hint
    assert refused.value.status == USAGE


def test_what_cannot_be_built_yet_is_refused() -> None:
    with pytest.raises(Error, match="images for arm64 cannot be built yet"):
        planned(configured(EC2, architecture="arm64"))
    with pytest.raises(Error, match="raspi cannot be built yet: it boots by the firmware of the Raspberry Pi"):
        planned(configured({**EC2, "Image-Firmware": "raspi"}, "raspi", "arm64"))


def test_what_the_configuration_decided_on_is_told_where_secrets_are_left_out() -> None:
    decided = {"Image-Keep-Secrets": "/etc/a /etc/b", "Image-Drop-Secrets": "/var/lib/c/**"}
    titles = [step.title for step in PLAN]
    number = titles.index("leave out secrets and identities")
    # All files to remove are removed before it, and time stamps are clamped after it.
    assert titles[number - 1 : number + 2 : 2] == ["leave out backup and lock files", "clamp time stamps"]
    for fields, words in ((EC2, ()), (EC2 | decided, ("--keep=/etc/a", "--keep=/etc/b", "--drop=/var/lib/c/**"))):
        step = planned(configured(fields))[number]
        assert isinstance(step, plan.Run)
        assert step.root
        assert step.argv == ("debian-cloud", "scrub", *words, "tree")


def test_an_image_says_which_it_is() -> None:
    assert written(PLAN, "etc/cloud-release") == f'ID=ec2\nVERSION="{SERIAL}"\n'
    assert written(TAR, "etc/cloud-release") == f'ID=container\nVERSION="{SERIAL}"\n'


def test_only_systemd_firstboot_finds_its_word_in_the_machine_id() -> None:
    assert written(planned(configured({**EC2, "Image-First-Boot": "systemd-firstboot"})), "etc/machine-id") == (
        "uninitialized\n"
    )
    for first_boot in ("cloud-init", "google-guest-agent"):
        assert written(planned(configured({**EC2, "Image-First-Boot": first_boot})), "etc/machine-id") == ""
    nobody = {name: value for name, value in EC2.items() if name != "Image-First-Boot"}
    assert written(planned(configured(nobody)), "etc/machine-id") == ""


def test_debconf_is_answered_before_the_configuration_is_installed() -> None:
    (of_tar,) = (step.text for step in TAR if isinstance(step, plan.Write) and step.path == "answers")
    assert of_tar == "locales locales/default_environment_locale select C.UTF-8\n"
    (seed,) = (step for step in PLAN if isinstance(step, plan.Write) and step.path == "answers")
    assert seed.text == f"{of_tar}grub2 grub2/force_efi_extra_removable boolean true\n"
    first = next(step for step in PLAN if isinstance(step, plan.Run) and step.argv[0] == "./install")
    assert PLAN.index(seed) < PLAN.index(first)
    assert staged(PLAN)["essential"] == [
        "essential base-files_13.8_amd64.deb",
        "answers answers",
        "configure",
    ]


def test_what_the_building_machine_left_in_the_tree_is_taken_out_before_it_is_packed(tmp_path: Path) -> None:
    of_the_builder = [
        "etc/.resolv.conf.systemd-resolved.bak", "etc/.pwd.lock", "etc/passwd-", "etc/xml/catalog.old",
        "var/lib/dpkg/status-old", "var/lib/sgml-base/supercatalog.old",
        "var/cache/debconf/config.dat-old", "var/cache/apt/pkgcache.bin", "var/lib/apt/lists/lock",
        "var/cache/ldconfig/aux-cache", "var/log/apt/history.log", "tmp/x", "var/tmp/.x/y", "run/lock/x", "dev/null",
    ]  # fmt: skip
    of_the_image = ["etc/passwd", "etc/xml/catalog", "etc/resolv.conf", "var/lib/dpkg/status", "etc/ssh/sshd_config"]
    for name in (*of_the_builder, *of_the_image):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_text("")
    for step in TAR:
        if isinstance(step, plan.Run) and step.argv[0] == "find":
            carry_out(step, tmp_path)
    left = [str(path.relative_to(tmp_path / "tree")) for path in tmp_path.rglob("tree/**/*") if path.is_file()]
    assert sorted(left) == sorted(of_the_image)
    for folder in ("tmp", "var/tmp", "run", "dev"):
        assert list((tmp_path / "tree" / folder).iterdir()) == []


@pytest.mark.parametrize("components", ["main", "main non-free-firmware"])
def test_apt_has_the_configurations_components_in_the_image(components: str) -> None:
    both = tuple(replace(source, components=("main", "non-free-firmware")) for source in DEBIAN)
    steps = planned(configured({**EC2, "Image-Components": components}), debian=both)
    image = [line for line in written(steps, "etc/apt/sources.list.d/debian.sources").splitlines() if "Comp" in line]
    assert image == [f"Components: {components}"] * 2


@pytest.mark.parametrize("uri", ["http://user:pw@debian.example/debian", "https://user@debian.example/debian"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_mirrors_password_does_not_get_into_an_image(uri: str, number: int) -> None:
    mirrors = [replace(source, uri=uri) if n == number else source for n, source in enumerate(DEBIAN)]
    with pytest.raises(Error, match="a user or a password in its URI") as refused:
        planned(CONFIG, debian=tuple(mirrors))
    assert "user" not in refused.value.message.replace("a user or a password", "")
    assert "pw" not in refused.value.message + refused.value.hint.replace("apt_auth", "")


def test_every_tool_of_the_plan_has_its_package() -> None:
    used = {step.argv[0] for step in (*PLAN, *TAR) if isinstance(step, plan.Run) and "/" not in step.argv[0]}
    assert used <= set(tools.PACKAGES)


def test_the_id_is_the_plan_s_and_changes_with_each_step() -> None:
    assert plan.plan_id(PLAN) == plan.plan_id(planned(CONFIG))
    ids = {plan.plan_id(PLAN[:n] + PLAN[n + 1 :]) for n in range(len(PLAN))}
    assert len(ids) == len(PLAN)


def test_what_makes_the_bytes_of_an_image_is_of_its_own_suite() -> None:
    """The host's tools only copy bytes, and write those that the plan contains."""
    of_the_host = {step.argv[0] for step in (*PLAN, *TAR) if isinstance(step, plan.Run)} - {
        "./in-tree",
        "./grub-setup",
        "./install",
    }
    assert of_the_host == {
        *("dd", "debian-cloud", "diff", "find", "install", "ln", "mkdir", "rm", "truncate"),
    }
    titles = [step.title for step in PLAN]
    fetched = titles.index("get 2 packages")
    unpacked = titles.index("unpack the tool mtools")
    assert fetched < unpacked < titles.index("partition it")
    unpack = PLAN[unpacked]
    assert isinstance(unpack, plan.Run)
    assert unpack.argv[2:] == ("dpkg-deb", "--extract", "/mnt/debs/mtools_4.0.48-1_amd64.deb", "/mnt/tools")
    (listed,) = (step.text for step in PLAN if isinstance(step, plan.Write) and step.path == "packages/tools")
    (mtools,) = (line for line in listed.splitlines() if "mtools" in line)
    assert mtools.split() == [*("c" * 64, "198228", "mtools_4.0.48-1_amd64.deb"), RESOLUTION.tools[0].uri]


def test_an_image_that_has_all_tools_fetches_none() -> None:
    steps = build_steps.plan(replace(RESOLUTION, tools=()), SERIAL, ("raw",), DEBIAN, ARCHIVE)
    assert not [step.title for step in steps if "the tool" in step.title]
    assert "packages/tools" not in [step.path for step in steps if isinstance(step, plan.Write)]


def test_what_nobody_asked_for_is_marked_so() -> None:
    """Apt removes it when nothing needs it any more; base-files is essential."""
    (marks,) = (step.text for step in PLAN if isinstance(step, plan.Write) and step.path == "automatic")
    assert marks == "Package: login\nArchitecture: amd64\nAuto-Installed: 1\n\n"
    asked = replace(RESOLUTION, custom=custom.Custom(add=("login",)))
    steps = build_steps.plan(asked, SERIAL, ("raw",), DEBIAN, ARCHIVE)
    (marks,) = (step.text for step in steps if isinstance(step, plan.Write) and step.path == "automatic")
    assert marks == ""


STEPS: plan.Plan = (
    plan.Write("text", "sub/text", "it's $HOME `x` \\n\nEND\n", 0o750),
    plan.Run("input", ("dd", "of=input", "status=none"), stdin="END\n$HOME\n"),
    plan.Run("bytes", ("dd", "of=bytes", "status=none"), stdin=bytes(range(256))),
    plan.Run("environment", ("sh", "-c", 'echo "$A$LC_ALL$TZ" > environment'), env=(("A", "b c"),)),
    plan.Run("arguments", ("install", "-D", "/dev/null", "a b/$HOME/'/*")),
    plan.Run("of the caller", ("sh", "-c", "env | cut -d= -f1 | grep -vx -e _ -e OLDPWD | sort > names")),
    plan.Run("root", ("sh", "-c", "id -u > root"), root=True),
    plan.Run("names", ("sh", "-c", "hostname > hostname; domainname > domainname; uname -n > nodename"), root=True),
    plan.Run("owner", ("install", "-o", "7", "/dev/null", "owned"), root=True),
)


def test_printed_and_carried_out_a_plan_does_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGUAGE", "de\nHOME=x\nB=c")
    monkeypatch.setenv("TAR_OPTIONS", "--help")
    script = tmp_path / "plan.sh"
    script.write_text(plan.as_shell(STEPS, "printed", "x\ny"))
    subprocess.run(["sh", script], cwd=tmp_path, check=True)
    (tmp_path / "run").mkdir()
    run.carry_out(STEPS, tmp_path / "run", Progress(len(STEPS), quiet=True))

    def content(folder: Path) -> dict[str, tuple[bytes, int, int]]:
        files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "log")
        return {
            str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode, path.stat().st_uid)
            for path in files
        }

    printed, carried_out = content(tmp_path / "printed"), content(tmp_path / "run")
    assert printed == carried_out
    assert printed["bytes"][0] == bytes(range(256))
    assert printed["sub/text"][0] == STEPS[0].text.encode()  # type: ignore[union-attr]
    assert printed["root"][0] == b"0\n"
    assert printed["environment"][0] == b"b cC.UTF-8UTC\n"
    assert set(printed["names"][0].decode().split()) <= {*plan.KEPT, *plan.ENVIRONMENT, "PWD"}
    assert [printed[name][0] for name in ("hostname", "nodename", "domainname")] == [b"localhost\n"] * 2 + [
        b"(none)\n"
    ]
    folders.remove(tmp_path / "printed")
    folders.remove(tmp_path / "run")


def carry_out(step: plan.Run, workspace: Path) -> None:
    run.carry_out((step,), workspace, Progress(1, quiet=True))


def test_a_failed_step_says_what_its_tool_said_and_the_command(tmp_path: Path) -> None:
    with pytest.raises(Error) as failed:
        carry_out(plan.Run("look away", ("ls", "/nowhere at all")), tmp_path)
    assert "look away: ls failed with exit status 2" in failed.value.message
    assert "No such file or directory" in failed.value.message
    assert "ls '/nowhere at all'" in failed.value.hint


def test_a_full_disk_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(Error, match="fill: the disk is full") as failed:
        carry_out(plan.Run("fill", ("dd", "if=/dev/zero", "of=/dev/full", "count=1")), tmp_path)
    assert "--output" in failed.value.hint


def test_a_missing_tool_is_named_with_its_package_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(run, "SBIN", "")
    steps = (plan.Write("first", "first", ""), plan.Run("then", ("diff", "--version")))
    with pytest.raises(Error, match="the tool diff is missing") as missing:
        run.carry_out(steps, tmp_path, Progress(2, quiet=True))
    assert missing.value.hint == "run apt-get install diffutils"
    assert list(tmp_path.iterdir()) == []
