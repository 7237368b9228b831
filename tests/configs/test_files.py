# SPDX-License-Identifier: GPL-3.0-or-later
"""Configurations are policy-clean: drop-ins alone, in directories made for them, that say what the fields say."""

from __future__ import annotations

import hashlib
import importlib
import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from debian_cloud import config, deb822, render
from debian_cloud.errors import Error

if TYPE_CHECKING:
    from collections.abc import Iterator

yaml = importlib.import_module("yaml")  # Debian's python3-yaml has no types
ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
NAMES = render.configurations(ROOT)
IMAGES = tuple(name for name in NAMES if name != "common")

DROP_INS = (
    "etc/cloud/cloud.cfg.d/*.cfg",
    "etc/default/grub.d/*.cfg",
    "etc/ssh/sshd_config.d/*.conf",
    "usr/lib/netplan/*.yaml",
    "usr/lib/systemd/*.conf.d/*.conf",
    "usr/lib/systemd/system/*.d/*.conf",
    "usr/lib/systemd/system/*.wants/*",
)
"""Directories that their reader merges; a file anywhere else would be somebody's own, or read by nobody."""


def installed(name: str) -> Iterator[tuple[Path, Path]]:
    """(path as installed, file in the source tree) of one configuration's files."""
    for tree in sorted(path for path in (CONFIGS / name).iterdir() if path.is_dir()):
        for path in sorted(tree.rglob("*")):
            if path.is_symlink() or not path.is_dir():
                yield path.relative_to(tree), path


def stanza(name: str) -> dict[str, str]:
    """One configuration's stanza of debian/control, without comments, as dpkg reads it."""
    text = re.sub(r"(?m)^#.*\n", "", (ROOT / "debian/control").read_text("utf-8"))
    (found,) = [s for s in deb822.parse(text) if s.get("Package") == f"debian-cloud-config-{name}"]
    return found


def image_fields(name: str) -> dict[str, str]:
    return {key.removeprefix("XB-"): value for key, value in stanza(name).items() if key.startswith("XB-")}


def depends(name: str) -> set[str]:
    """Names of the packages in Depends, of every alternative."""
    relations = re.split(r"[,|]", stanza(name)["Depends"])
    return {relation.split()[0] for relation in relations if relation.strip()} - {"${misc:Depends}"}


def cloud_settings(name: str) -> dict[str, object]:
    """cloud-init's settings: later files win, mappings are merged (a mapping of mappings is all that occurs)."""

    def merge(old: object, new: object) -> object:
        if isinstance(old, dict) and isinstance(new, dict):
            return {**old, **{key: merge(old.get(key), value) for key, value in new.items()}}
        return new

    merged: object = {}
    paths = {to.name: path for to, path in installed(name) if to.parent == Path("etc/cloud/cloud.cfg.d")}
    for _, path in sorted(paths.items()):
        merged = merge(merged, yaml.safe_load(path.read_text("utf-8")))
    assert isinstance(merged, dict)
    return merged


def grub(name: str, default: str = "") -> dict[str, str]:
    """Variables that grub-mkconfig has after /etc/default/grub (`default`) and the drop-ins of image and -common."""
    files = sorted(
        (to.name, path)
        for config_name in ("common", name)
        for to, path in installed(config_name)
        if to.parent == Path("etc/default/grub.d")
    )
    script = f"{default}\n" + "".join(f". {shlex.quote(str(path))}\n" for _, path in files) + "set\n"
    done = subprocess.run(
        ["sh", "-eu", "-c", script], env=dict[str, str](), capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return {
        key: "".join(shlex.split(value))
        for key, _, value in (line.partition("=") for line in done.stdout.splitlines())
        if key.startswith("GRUB_")
    }


@pytest.mark.parametrize("name", NAMES)
def test_files_are_drop_ins_in_directories_made_for_them(name: str) -> None:
    found = [to for to, _ in installed(name)]
    assert found, "a configuration without settings needs no folder of files"
    for path in found:
        assert any(path.match(pattern) and len(path.parts) == pattern.count("/") + 1 for pattern in DROP_INS), path


@pytest.mark.parametrize("name", NAMES)
def test_no_path_comes_from_two_trees(name: str) -> None:
    paths = [to for to, _ in installed(name)]
    assert len(paths) == len(set(paths))


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_shares_no_path_with_common(name: str) -> None:
    assert not {to for to, _ in installed(name)} & {to for to, _ in installed("common")}


def test_conffiles_are_named_alike_in_every_image() -> None:
    """A removed package's conffiles stay and act on, unless the next vendor's bear the same names and take over."""
    conffiles = {name: {str(to) for to, _ in installed(name) if to.parts[0] == "etc"} for name in IMAGES}
    assert conffiles["nocloud"] == {"etc/default/grub.d/60_debian-cloud-config.cfg"}
    clouds = [conffiles[name] for name in IMAGES if "cloud-init" in depends(name)]
    assert all(paths == clouds[0] and paths > conffiles["nocloud"] for paths in clouds)


def test_no_file_is_copied_text() -> None:
    contents: dict[str, Path] = {}
    for path in sorted(CONFIGS.rglob("*/files/**/*")):
        if path.is_file() and not path.is_symlink() and "systemd/system" not in str(path):
            twin = contents.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), path)
            assert twin == path, f"{path} equals {twin}: link the tree instead"


def test_links_stay_inside_configs() -> None:
    links = [path for path in CONFIGS.glob("*/*") if path.is_symlink()]
    assert {str(link.relative_to(CONFIGS)) for link in links} >= {"ec2/cloud", "ec2/cloud-init", "generic/cloud"}
    assert all(link.resolve(strict=True).is_relative_to(CONFIGS) for link in links)


@pytest.mark.parametrize("name", IMAGES)
def test_fields_are_what_the_reader_takes(name: str) -> None:
    """The reader of `Image-*` is strict: a field or value that it does not know is an error."""
    package = f"debian-cloud-config-{name}"
    read = config.parse(
        image_fields(name), name=package, version="1", architecture="amd64", suite="trixie", description=""
    )
    assert read.formats == ("raw", "qcow2")
    assert read.firmware == ("bios", "uefi")
    with pytest.raises(Error, match="Image-Siez"):
        config.parse(
            {**image_fields(name), "Image-Siez": "1G"},
            name=package, version="1", architecture="amd64", suite="trixie", description="",
        )  # fmt: skip


def test_common_is_no_image() -> None:
    assert not config.is_image(image_fields("common"))


@pytest.mark.parametrize("name", IMAGES)
def test_one_vendor_takes_the_place_of_another(name: str) -> None:
    fields = stanza(name)
    assert {fields[key] for key in ("Provides", "Conflicts", "Replaces")} == {"debian-cloud-config"}
    assert "debian-cloud-config-common (= ${source:Version})" in fields["Depends"]


@pytest.mark.parametrize("name", IMAGES)
def test_user_and_datasources_are_those_of_the_fields(name: str) -> None:
    fields = image_fields(name)
    settings = cloud_settings(name)
    if "cloud-init" not in depends(name):
        assert not settings
        assert not {"Image-User", "Image-Datasource"} & fields.keys()
        return
    system_info = settings["system_info"]
    assert isinstance(system_info, dict)
    user = system_info["default_user"]
    assert user["name"] == fields["Image-User"]
    assert user["lock_passwd"] is True
    assert user["sudo"] == ["ALL=(ALL) NOPASSWD:ALL"]
    assert user["groups"] == ["adm", "audio", "cdrom", "dialout", "dip", "floppy", "plugdev", "sudo", "video"]
    assert settings["datasource_list"] == fields["Image-Datasource"].split()
    assert settings["apt"] == {"preserve_sources_list": True}
    assert settings["manage_etc_hosts"] is True


@pytest.mark.parametrize("name", IMAGES)
def test_cloud_init_shell_detection_reads_the_datasources(name: str) -> None:
    """ds-identify takes the list from one line alone, and cloud-init's own 90_dpkg.cfg must come before it."""
    lines = [
        (to.name, line)
        for to, path in installed(name)
        if to.parent == Path("etc/cloud/cloud.cfg.d")
        for line in path.read_text("utf-8").splitlines()
        if line.startswith("datasource_list")
    ]
    if "cloud-init" in depends(name):
        ((file, line),) = lines
        assert file > "90_dpkg.cfg"
        assert re.fullmatch(r"datasource_list: \[[A-Za-z0-9]+(, [A-Za-z0-9]+)*\]", line)
    else:
        assert not lines


@pytest.mark.parametrize("name", IMAGES)
def test_ssh_is_configured_where_it_is_installed(name: str) -> None:
    settings = [path.read_text("utf-8") for to, path in installed(name) if to.parts[:2] == ("etc", "ssh")]
    assert bool(settings) == ("openssh-server" in depends(name)) == (name != "nocloud")
    for text in settings:
        words = {tuple(line.split()) for line in text.splitlines() if line and not line.startswith("#")}
        assert words == {
            ("PasswordAuthentication", "no"),
            ("PermitRootLogin", "prohibit-password"),
            ("ClientAliveInterval", "120"),
        }


@pytest.mark.parametrize("name", IMAGES)
def test_grub_shows_itself_on_screen_and_serial_port(name: str) -> None:
    variables = grub(name)
    assert variables["GRUB_CMDLINE_LINUX"].split()[:2] == ["console=tty0", "console=ttyS0,115200"]
    assert variables["GRUB_TERMINAL"] == "console serial"
    assert variables["GRUB_SERIAL_COMMAND"] == "serial --unit=0 --speed=115200"
    assert (variables["GRUB_DISABLE_LINUX_UUID"], variables["GRUB_DISABLE_LINUX_PARTUUID"]) == ("true", "false")
    assert variables["GRUB_TIMEOUT"] == ("5" if name == "nocloud" else "0")
    assert ("nvme_core.io_timeout=4294967295" in variables["GRUB_CMDLINE_LINUX"].split()) == (name == "ec2")


@pytest.mark.parametrize("name", IMAGES)
def test_grub_keeps_what_the_administrator_chose(name: str) -> None:
    mine = grub(name, "GRUB_CMDLINE_LINUX='quiet console=ttyS1,9600'")["GRUB_CMDLINE_LINUX"].split()
    assert mine[:2] == ["quiet", "console=ttyS1,9600"]
    assert [word for word in mine if word.startswith("console=")] == ["console=ttyS1,9600"]
    assert grub(name, "GRUB_CMDLINE_LINUX=quiet")["GRUB_CMDLINE_LINUX"].split()[0] == "quiet"


def test_nocloud_asks_for_addresses_on_every_wired_interface() -> None:
    (path,) = [path for to, path in installed("nocloud") if to.suffix == ".yaml"]
    network = yaml.safe_load(path.read_text("utf-8"))["network"]
    assert {device["match"]["name"] for device in network["ethernets"].values()} == {"en*", "eth*"}
    assert all(device["dhcp4"] and device["dhcp6"] for device in network["ethernets"].values())


WANTED = {
    "common": """
        apparmor apt-utils e2fsprogs init iptables iputils-ping less libnss-myhostname libnss-resolve
        libpam-systemd linux-sysctl-defaults nano netbase netplan.io polkitd sudo systemd-resolved
        unattended-upgrades vim-tiny whiptail zstd apt-listchanges bash-completion bind9-host ca-certificates
        curl ethtool man-db manpages pciutils psmisc reportbug screen socat tcpdump traceroute uuid-runtime vim
        xz-utils dosfstools systemd-timesyncd debian-cloud-archive-keyring""",
    "nocloud": "grub-cloud-amd64 linux-image-amd64",
    "generic": """
        grub-cloud-amd64 linux-image-amd64 openssh-server ssh-import-id cloud-initramfs-growroot cloud-init
        cloud-guest-utils qemu-guest-agent""",
    "ec2": """
        grub-cloud-amd64 linux-image-cloud-amd64 openssh-server ssh-import-id cloud-initramfs-growroot cloud-init
        cloud-guest-utils amazon-ec2-utils""",
}
"""What Debian's official images of trixie install by name."""


@pytest.mark.parametrize("name", NAMES)
def test_packages_are_at_least_those_of_the_official_image(name: str) -> None:
    assert set(WANTED[name].split()) <= depends(name)


def test_common_needs_neither_kernel_nor_boot_loader() -> None:
    """A container is an image, too."""
    assert not {package for package in depends("common") if package.startswith(("linux-image", "grub", "shim"))}


def test_awscli_is_recommended_as_it_is_large() -> None:
    assert "awscli" in stanza("ec2")["Recommends"]
    assert "awscli" not in depends("ec2")
