# SPDX-License-Identifier: GPL-3.0-or-later
"""Configurations follow the policy: only drop-ins, in directories for these, which agree with the fields."""

from __future__ import annotations

import configparser
import functools
import hashlib
import importlib
import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from debian_cloud import names
from debian_cloud.errors import Error
from debian_cloud.image import config
from debian_cloud.text import deb822
from tests.configs import kernel, matrix, official
from tests.configs.expected import LAYERS
from tools import render

if TYPE_CHECKING:
    from collections.abc import Iterator

yaml = importlib.import_module("yaml")  # Debian's python3-yaml has no types
ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
NAMES = render.configurations(ROOT)
IMAGES = tuple(name for name in NAMES if name not in LAYERS)
BOOTED = tuple(name for name in IMAGES if name not in ("container", "raspi"))
CLOUD_INIT = ("azure", "ec2", "generic", "genericcloud", "openstack")
SUITES = tuple(names.RELEASES)

DROP_INS: Final = (
    "etc/chrony/conf.d/*.conf",
    "etc/cloud/cloud.cfg.d/*.cfg",
    "etc/default/grub.d/*.cfg",
    "etc/ssh/sshd_config.d/*.conf",
    # Our service, and the program that it runs.
    "usr/lib/debian-cloud/*",
    "usr/lib/systemd/system/debian-cloud-*.service",
    "usr/lib/dracut/modules.d/*/module-setup.sh",
    "usr/lib/netplan/*.yaml",
    "usr/lib/systemd/*.conf.d/*.conf",
    "usr/lib/systemd/network/*.network",
    "usr/lib/systemd/system-preset/*.preset",
    "usr/lib/systemd/system/*.d/*.conf",
    "usr/lib/systemd/system/*.wants/*",
    "usr/share/initramfs-tools/scripts/*/*",
    # WSL reads only this file, and no package owns it.
    "etc/wsl.conf",
)
"""Directories whose files their readers merge; a file elsewhere would belong to someone, or have no reader."""

READERS: Final = {
    "etc/chrony/conf.d": "chrony",
    "etc/cloud/cloud.cfg.d": "cloud-init",
    "etc/default/grub.d": "grub-cloud-amd64",
    "etc/wsl.conf": "",
}
"""Directories of an image's conffiles -> the package that reads them; empty for a reader outside the image."""


def installed(name: str) -> Iterator[tuple[Path, Path]]:
    """(path as installed, file in the source tree) of one configuration's files."""
    for tree in sorted(path for path in (CONFIGS / name).iterdir() if path.is_dir()):
        for path in sorted(tree.rglob("*")):
            if path.is_symlink() or not path.is_dir():
                yield path.relative_to(tree), path


def layers(name: str) -> tuple[str, ...]:
    """The configurations that a configuration is built on, and itself."""
    own = {package.removeprefix(names.PACKAGE_PREFIX) for package in _relations(name, "Depends")}
    return (*(layer for layer in LAYERS if layer in own), name)


def files(name: str) -> dict[str, Path]:
    """Path as installed -> file in the source tree, for a configuration and its layers."""
    return {str(to): path for layer in layers(name) for to, path in installed(layer)}


def text(name: str, to: str) -> str:
    return files(name)[to].read_text("utf-8")


def unit(name: str, to: str) -> configparser.ConfigParser:
    """Parse a drop-in of systemd, whose sections and keys do not repeat."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read_string(text(name, to))
    return parser


@functools.cache
def stanza(name: str, suite: str = "") -> dict[str, str]:
    """A configuration's stanza of debian/control, without comments, as dpkg reads it."""
    control = re.sub(r"(?m)^#.*\n", "", _control(suite))
    (found,) = [s for s in deb822.parse(control) if s.get("Package") == names.PACKAGE_PREFIX + name]
    return found


@functools.cache
def _control(suite: str) -> str:
    return render.render(ROOT, suite)


def image_fields(name: str, suite: str = "", architecture: str = "amd64") -> dict[str, str]:
    """The fields as a build for an architecture writes them."""
    fields = {key.removeprefix("XB-"): value for key, value in stanza(name, suite).items() if key.startswith("XB-")}
    return config.of_architecture(fields, architecture)


def _relations(name: str, field: str, suite: str = "") -> set[str]:
    relations = re.split(r"[,|]", stanza(name, suite).get(field, ""))
    return {relation.split()[0] for relation in relations if relation.strip()} - {"${misc:Depends}"}


def depends(name: str, suite: str = "") -> set[str]:
    """The names of all packages in Depends of a configuration and its layers, every alternative included."""
    return {package for layer in layers(name) for package in _relations(layer, "Depends", suite)}


def cloud_settings(name: str) -> dict[str, object]:
    """The settings of cloud-init: later files win, and mappings are merged (only mappings of mappings exist)."""

    def merge(old: object, new: object) -> object:
        if isinstance(old, dict) and isinstance(new, dict):
            return {**old, **{key: merge(old.get(key), value) for key, value in new.items()}}
        return new

    merged: object = {}
    for to, path in sorted(files(name).items()):
        if to.startswith("etc/cloud/cloud.cfg.d/"):
            merged = merge(merged, yaml.safe_load(path.read_text("utf-8")))
    assert isinstance(merged, dict)
    return merged


PACKAGED: Final = {
    "amd64": "GRUB_CMDLINE_LINUX='console=tty0 console=ttyS0,115200 earlyprintk=ttyS0,115200 consoleblank=0'",
    "arm64": "GRUB_CMDLINE_LINUX='console=tty0 console=ttyAMA0'",
}
"""/etc/default/grub as grub-cloud-* ships it; bookworm has none on arm64, and grub-efi-arm64's names no console."""


def grub(name: str, default: str = "", architecture: str = "amd64") -> dict[str, str]:
    """Variables of grub-mkconfig after /etc/default/grub (`default`) and the drop-ins of image and layers."""
    drop_ins = sorted(path for path in files(name).values() if "etc/default/grub.d" in str(path))
    drop_ins.sort(key=lambda path: path.name)
    sourced = "".join(f". {shlex.quote(str(path))}\n" for path in drop_ins)
    script = f'dpkg() {{ [ "$*" = --print-architecture ] && echo {architecture}; }}\n{default}\n{sourced}set\n'
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
    assert found, "a configuration without settings needs no directory of files"
    for path in found:
        assert any(path.match(pattern) and len(path.parts) == pattern.count("/") + 1 for pattern in DROP_INS), path


@pytest.mark.parametrize("name", IMAGES)
def test_no_path_comes_from_two_trees(name: str) -> None:
    paths = [to for layer in layers(name) for to, _ in installed(layer)]
    assert len(paths) == len(set(paths))


@pytest.mark.parametrize("directory", READERS)
def test_conffiles_are_named_alike_wherever_they_have_a_reader(directory: str) -> None:
    """Conffiles of a removed package stay in effect unless the next vendor's package has the same names."""
    found = {
        name: {str(to) for to, _ in installed(name) if str(to).startswith(directory)} for name in IMAGES
    }  # fmt: skip
    reader = READERS[directory]
    having = {name for name in IMAGES if reader in depends(name)} if reader else {"container"}
    assert having
    named = {path for paths in found.values() for path in paths}
    assert len(named) == 1
    assert all(found[name] == (named if name in having else set()) for name in IMAGES)


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_has_no_conffile_without_a_known_reader(name: str) -> None:
    """Files that can be in /usr are there, because they are removed with their package."""
    conffiles = [str(to) for to, _ in installed(name) if to.parts[0] == "etc"]
    assert all(path.startswith(tuple(READERS)) for path in conffiles)


def test_no_file_is_copied_text() -> None:
    contents: dict[str, Path] = {}
    for path in sorted(CONFIGS.rglob("*/files/**/*")):
        if path.is_file() and not path.is_symlink() and "apt-daily" not in str(path):
            twin = contents.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), path)
            assert twin == path, f"{path} equals {twin}: say it in a layer"


@pytest.mark.parametrize("name", NAMES)
def test_drop_ins_parse(name: str) -> None:
    for to, path in installed(name):
        if path.is_symlink():
            continue
        content = path.read_text("utf-8")
        assert content.endswith("\n")
        assert not content.endswith("\n\n")
        if path.suffix in (".cfg", ".yaml") and "grub.d" not in str(to):
            assert isinstance(yaml.safe_load(content), dict), to
        elif {"scripts", "modules.d", "debian-cloud"} & {*to.parts} or "grub.d" in str(to):
            shell = "bash" if content.startswith("#!/bin/bash") else "sh"
            subprocess.run([shell, "-n", path], check=True)
            assert bool(path.stat().st_mode & 0o111) == content.startswith("#!"), to
        elif to.suffix == ".preset":
            assert re.search(r"(?m)^(en|dis)able \S+\.(service|socket)$", content)
        elif "systemd" in to.parts or to.name == "wsl.conf":
            assert unit(name, str(to)).sections(), to
        else:
            assert "chrony" in str(to) or "sshd_config.d" in str(to), f"nobody reads {to} here"


@pytest.mark.parametrize("path", sorted((ROOT / "debian").glob("debian-cloud-config-*.p*")), ids=str)
def test_maintainer_scripts_are_shell_that_asks_nothing(path: Path) -> None:
    subprocess.run(["sh", "-n", path], check=True)
    script = path.read_text("utf-8")
    assert "\nset -e\n" in script
    assert script.endswith("#DEBHELPER#\n")
    assert not re.search(r"\b(read|debconf|curl|wget|apt-get|systemctl (re)?start)\b(?!link)", script)


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("name", IMAGES)
def test_fields_are_what_the_reader_takes(name: str, suite: str) -> None:
    """The reader of `Image-*` is strict: an unknown field or value is an error."""
    for architecture in stanza(name)["Architecture"].split():
        fields = image_fields(name, suite, architecture)
        about = {"name": name, "version": "1", "architecture": architecture, "suite": suite, "description": ""}
        read = config.parse(fields, **about)
        assert read.formats == tuple(fields["Image-Format"].split())
        assert read.firmware == {
            "container": (),
            "raspi": ("raspi",),
        }.get(name, ("bios", "uefi") if architecture == "amd64" else ("uefi",))
        with pytest.raises(Error, match="Image-Siez"):
            config.parse({**fields, "Image-Siez": "1G"}, **about)


@pytest.mark.parametrize("architecture", names.ARCHITECTURES)
def test_a_build_leaves_the_fields_that_everybody_reads(tmp_path: Path, architecture: str) -> None:
    """debian/rules and the reader of the fields interpret the marks of architectures in the same way."""
    rules = (ROOT / "debian/rules").read_text("utf-8")
    (script,) = re.findall(r"sed -i -E '(/\^Image-.*?)'", rules)
    script = script.replace("$(DEB_HOST_ARCH)", architecture).replace("$$", "$")
    for name in IMAGES:
        fields = {key.removeprefix("XB-"): value for key, value in stanza(name).items() if key.startswith("XB-")}
        fields |= {"Image-Tpm": "v2.0 [amd64]", "Image-Volume": "a [arm64]", "Depends": "x [amd64], y [arm64]"}
        control = tmp_path / "control"
        control.write_text(deb822.render(fields.items()), "utf-8")
        subprocess.run(["sed", "-i", "-E", script, control], check=True)
        (left,) = deb822.parse(control.read_text("utf-8"))
        assert dict(left) == config.of_architecture(fields, architecture)
        assert ("Image-Tpm" in left, "Image-Volume" in left) == (architecture == "amd64", architecture == "arm64")


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("name", IMAGES)
def test_facts_are_what_the_kernel_of_the_suite_is_able_to(name: str, suite: str) -> None:
    for architecture in stanza(name)["Architecture"].split():
        fields = image_fields(name, suite, architecture)
        if name == "container":
            assert not {"Image-Drivers", "Image-Cdrom", "Image-Console"} & fields.keys()
            continue
        flavour = "cloud" if any(p.startswith("linux-image-cloud") for p in depends(name, suite)) else "any"
        drivers = kernel.words(kernel.DRIVERS, suite, flavour, architecture)
        assert set(fields["Image-Drivers"].split()) == ({"sdhci"} if name == "raspi" else drivers - {"sdhci"})
        if name != "raspi":
            assert set(fields["Image-Cdrom"].split()) == kernel.words(kernel.CDROM, suite, flavour, architecture)
        consoles = kernel.words(kernel.CONSOLE, suite, flavour, architecture)
        assert fields["Image-Console"].rstrip("0123456789") in consoles


def test_the_kernels_table_is_read_from_a_configuration() -> None:
    whole = "".join(f"CONFIG_{option}=y\n" for option in kernel.OPTIONS)
    assert kernel.lacking(whole) == set()
    assert kernel.lacking(whole.replace("CONFIG_SATA_AHCI=y", "# CONFIG_SATA_AHCI is not set")) == {"SATA_AHCI"}
    modules = whole.replace("=y", "=m")
    assert kernel.lacking(modules) == {"SERIAL_8250_CONSOLE", "SERIAL_AMBA_PL011_CONSOLE"}
    assert {suite for suite, _, _ in kernel.LACKING} == set(SUITES)
    assert "sata" not in kernel.words(kernel.CDROM, "bookworm", "cloud", "amd64")
    assert "ide" not in kernel.words(kernel.CDROM, "trixie", "any", "arm64")


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_no_image(name: str) -> None:
    assert not config.is_image(image_fields(name))


@pytest.mark.parametrize("name", IMAGES)
def test_one_vendor_takes_the_place_of_another(name: str) -> None:
    fields = stanza(name)
    assert {fields[key] for key in ("Provides", "Conflicts", "Replaces")} == {"debian-cloud-config"}
    assert "debian-cloud-config-common (= ${source:Version})" in fields["Depends"]


def test_machine_facts_are_those_of_the_clouds() -> None:
    ec2 = image_fields("ec2")
    assert (ec2["Image-Boot-Mode"], ec2["Image-Imds"], ec2["Image-Tpm"]) == ("uefi-preferred", "v2.0", "v2.0")
    assert "ena" in ec2["Image-Drivers"].split()
    assert "gve" in image_fields("gce")["Image-Drivers"].split()
    assert {name: image_fields(name)["Image-Volume"] for name in IMAGES if "Image-Volume" in image_fields(name)} == {
        "ec2": "gp3"
    }
    sizes = {name: image_fields(name).get("Image-Size") for name in IMAGES}
    assert sizes == {
        "azure": "30G", "container": None, "ec2": "8G", "gce": "10G", "generic": "3G", "genericcloud": "3G",
        "nocloud": "3G", "openstack": "3G", "raspi": "3G",
    }  # fmt: skip


@pytest.mark.parametrize("name", IMAGES)
def test_user_and_datasources_are_those_of_the_fields(name: str) -> None:
    fields = image_fields(name)
    settings = cloud_settings(name)
    assert ("cloud-init" in depends(name)) == (name in CLOUD_INIT)
    if name not in CLOUD_INIT:
        assert not settings
        assert not {"Image-User", "Image-Datasource"} & fields.keys()
        return
    system_info = settings["system_info"]
    assert isinstance(system_info, dict)
    user = system_info["default_user"]
    assert user["name"] == fields["Image-User"] == ("admin" if name == "ec2" else "debian")
    assert user["lock_passwd"] is True
    assert user["sudo"] == ["ALL=(ALL) NOPASSWD:ALL"]
    assert user["groups"] == ["adm", "audio", "cdrom", "dialout", "dip", "floppy", "plugdev", "sudo", "video"]
    assert settings["datasource_list"] == fields["Image-Datasource"].split()
    assert settings["apt"] == {"preserve_sources_list": True}
    assert settings["manage_etc_hosts"] is True
    assert settings.get("reporting") == ({"telemetry": {"type": "hyperv"}} if name == "azure" else None)


def test_a_datasource_that_a_suite_has_not_is_no_fact_of_it() -> None:
    """cloud-init 22.4 of bookworm does not know Akamai, skips its name, and finds the others."""
    assert "Akamai" in image_fields("generic", "trixie")["Image-Datasource"].split()
    assert "Akamai" not in image_fields("generic", "bookworm")["Image-Datasource"].split()


@pytest.mark.parametrize("name", CLOUD_INIT)
def test_cloud_init_shell_detection_reads_the_datasources(name: str) -> None:
    """ds-identify reads the list from a single line, and cloud-init's own 90_dpkg.cfg must precede it."""
    lines = [
        (Path(to).name, line)
        for to, path in files(name).items()
        if to.startswith("etc/cloud/cloud.cfg.d/")
        for line in path.read_text("utf-8").splitlines()
        if line.startswith("datasource_list")
    ]
    ((file, line),) = lines
    assert file > "90_dpkg.cfg"
    assert re.fullmatch(r"datasource_list: \[[A-Za-z0-9]+(, [A-Za-z0-9]+)*\]", line)


def test_upgrades_wait_for_the_first_boot() -> None:
    for service in ("apt-daily", "apt-daily-upgrade"):
        drop_in = unit("cloud-init", f"usr/lib/systemd/system/{service}.service.d/debian-cloud.conf")
        assert drop_in["Unit"]["After"] == "cloud-final.service"


SSHD = "etc/ssh/sshd_config.d/60-debian-cloud.conf"


@pytest.mark.parametrize("name", IMAGES)
def test_ssh_is_configured_where_it_is_installed(name: str) -> None:
    assert (SSHD in files(name)) == ("openssh-server" in depends(name)) == (name in (*CLOUD_INIT, "gce"))


def test_ssh_takes_keys_alone() -> None:
    words = {tuple(line.split()) for line in text("cloud", SSHD).splitlines() if line and not line.startswith("#")}
    assert words == {
        ("PasswordAuthentication", "no"),
        ("PermitRootLogin", "prohibit-password"),
        ("ClientAliveInterval", "120"),
    }


def test_the_ssh_server_makes_the_host_keys_that_nobody_made() -> None:
    """The keys are made before the check, which fails without them; so Debian's own check is cleared first."""
    lines = text("cloud", "usr/lib/systemd/system/ssh.service.d/debian-cloud.conf").splitlines()
    assert [line for line in lines if line.startswith("ExecStartPre=")] == [
        "ExecStartPre=",
        "ExecStartPre=/usr/bin/ssh-keygen -A",
        "ExecStartPre=/usr/sbin/sshd -t",
    ]


@pytest.mark.parametrize(
    ("name", "architecture"), [(name, arch) for name in BOOTED for arch in stanza(name)["Architecture"].split()]
)
def test_the_boot_loader_does_as_its_cloud_wants(name: str, architecture: str) -> None:
    variables = grub(name, PACKAGED[architecture], architecture)
    assert (variables["GRUB_DISABLE_LINUX_UUID"], variables["GRUB_DISABLE_LINUX_PARTUUID"]) == ("true", "false")
    assert variables["GRUB_TIMEOUT"] == {"nocloud": "5", "azure": "1"}.get(name, "0")
    words = variables["GRUB_CMDLINE_LINUX"].split()
    serial = "ttyS0,115200" if architecture == "amd64" else "ttyS0" if name == "ec2" else "ttyAMA0"
    assert words[:2] == ["console=tty0", f"console={serial}"]
    wanted = {
        "azure": {"nvme_core.io_timeout=240", "nvme_core.admin_timeout=240"},
        "ec2": {"nvme_core.io_timeout=4294967295"},
        "gce": {"intel_iommu=off"},
    }.get(name, set())
    if name == "azure" and architecture == "arm64":
        wanted |= {"earlycon=pl011,0xeffec000"}
    assert {word for word in words[2:] if not re.match("earlyprintk=|consoleblank=", word)} == wanted
    if architecture == "amd64":
        assert variables["GRUB_TERMINAL"] == "console serial"
        assert variables["GRUB_SERIAL_COMMAND"] == "serial --unit=0 --speed=115200"
    else:
        assert variables["GRUB_TERMINAL"] == "console"


@pytest.mark.parametrize(
    ("name", "architecture"), [(name, arch) for name in BOOTED for arch in stanza(name)["Architecture"].split()]
)
def test_the_console_is_named_where_no_package_names_it(name: str, architecture: str) -> None:
    words = grub(name, "", architecture)["GRUB_CMDLINE_LINUX"].split()
    console = image_fields(name, "bookworm", architecture)["Image-Console"]
    assert [word.partition(",")[0] for word in words[:2]] == ["console=tty0", f"console={console}"]


@pytest.mark.parametrize("name", BOOTED)
def test_grub_keeps_what_the_administrator_chose(name: str) -> None:
    mine = grub(name, "GRUB_CMDLINE_LINUX='quiet console=ttyS1,9600'")["GRUB_CMDLINE_LINUX"].split()
    assert mine[:2] == ["quiet", "console=ttyS1,9600"]
    assert [word for word in mine if word.startswith("console=")] == ["console=ttyS1,9600"]
    assert grub(name, "GRUB_CMDLINE_LINUX=quiet")["GRUB_CMDLINE_LINUX"].split()[0] == "quiet"


@pytest.mark.parametrize("name", ["gce", "nocloud", "raspi"])
def test_every_wired_interface_is_asked_for_addresses(name: str) -> None:
    network = yaml.safe_load(text(name, "usr/lib/netplan/50-debian-cloud.yaml"))["network"]
    assert {device["match"]["name"] for device in network["ethernets"].values()} == {"en*", "eth*"}
    assert all(device["dhcp4"] and device["dhcp6"] for device in network["ethernets"].values())
    assert all(device.get("optional", False) == (name == "raspi") for device in network["ethernets"].values())


@pytest.mark.parametrize("name", IMAGES)
def test_the_network_has_one_that_configures_it(name: str) -> None:
    paths = files(name)
    netplan = [path for path in paths if path.startswith("usr/lib/netplan/")]
    networkd = [path for path in paths if path.startswith("usr/lib/systemd/network/")]
    assert [bool(netplan), bool(networkd), name in CLOUD_INIT].count(True) == 1
    assert "usr/lib/systemd/system/multi-user.target.wants/systemd-networkd.service" in paths


def test_a_container_gets_addresses_where_its_host_gives_none() -> None:
    network = unit("container", "usr/lib/systemd/network/80-debian-cloud-config.network")
    assert network["Match"]["Name"].split() == ["eth*", "en*"]
    assert network["Match"]["Virtualization"] == "!wsl"
    assert network["Network"]["DHCP"] == "yes"
    assert unit("container", "etc/wsl.conf")["boot"]["systemd"] == "true"
    lines = text(
        "container", "usr/lib/systemd/system/netplan-configure.service.d/debian-cloud-config.conf"
    ).splitlines()
    assert lines[-2:] == ["[Service]", "ExecStartPost="], "a container has no udev to tell"


@pytest.mark.parametrize(
    ("name", "servers"), [("ec2", ["169.254.169.123", "fd00:ec2::123"]), ("gce", ["metadata.google.internal"])]
)
def test_the_clouds_clock_comes_first(name: str, servers: list[str]) -> None:
    time = unit(name, "usr/lib/systemd/timesyncd.conf.d/debian-cloud-config.conf")["Time"]
    assert time["NTP"].split() == servers
    assert "chrony" not in depends(name)


def test_azure_keeps_time_by_the_hypervisor() -> None:
    lines = text("azure", "etc/chrony/conf.d/debian-cloud-config.conf").splitlines()
    assert "refclock PHC /dev/ptp_hyperv poll 3 dpoll -2 offset 0 stratum 2" in lines
    drop_in = unit("azure", "usr/lib/systemd/system/chrony.service.d/debian-cloud-config.conf")
    assert drop_in["Unit"]["Wants"] == drop_in["Unit"]["After"] == "modprobe@hv_utils.service"


def test_ec2_looks_for_no_duplicate_addresses(tmp_path: Path) -> None:
    """Both kinds of initrd use one script; the test runs it on a tree in place of /proc."""
    script = "usr/share/initramfs-tools/scripts/init-top/debian-cloud-config-ec2.sh"
    assert f"inst_hook pre-udev 00 /{script}" in text(
        "ec2", "usr/lib/dracut/modules.d/50debian-cloud-config-ec2/module-setup.sh"
    )
    for interface in ("all", "default", "lo"):
        (tmp_path / interface).mkdir()
        (tmp_path / interface / "accept_dad").write_text("1\n")
    copy = tmp_path / "script"
    copy.write_text(text("ec2", script).replace("/proc/sys/net/ipv6/conf", str(tmp_path)))
    subprocess.run(["sh", copy, "prereqs"], check=True)
    assert {path.read_text() for path in tmp_path.glob("*/accept_dad")} == {"1\n"}
    subprocess.run(["sh", "-eu", copy], check=True)
    assert {path.read_text() for path in tmp_path.glob("*/accept_dad")} == {"0\n"}
    assert "activate-noawait update-initramfs\n" in (ROOT / "debian/debian-cloud-config-ec2.triggers").read_text()


def test_a_first_boot_asks_for_the_password_alone_and_does_not_wait_for_ever() -> None:
    units = "usr/lib/systemd/system"
    lines = text("common", f"{units}/systemd-firstboot.service.d/debian-cloud.conf").splitlines()
    assert lines[-3:] == [
        "ExecStart=",
        "ExecStart=systemd-firstboot --force --prompt-root-password",
        "TimeoutStartSec=5min",
    ]
    complete = unit("common", f"{units}/first-boot-complete.target.d/debian-cloud.conf")
    assert complete["Unit"]["Requires"] == "systemd-firstboot.service"
    commit = unit("common", f"{units}/systemd-machine-id-commit.service.d/debian-cloud.conf")
    assert commit["Unit"]["Requires"] == "first-boot-complete.target"


def test_each_serial_console_may_come_late() -> None:
    """Systemd gives a device 90 seconds; the unit for its login prompt is then not started."""
    names_of_all = sorted(path.parent.name for path in (ROOT / "configs").glob("*/stanza.j2"))
    fields = " ".join(stanza(name).get("XB-Image-Console", "") for name in names_of_all)
    consoles = set(re.findall(r"\btty\w+", fields))
    assert {"ttyS0", "ttyS1", "ttyAMA0"} <= consoles
    for console in consoles:
        late = unit("common", f"usr/lib/systemd/system/dev-{console}.device.d/debian-cloud.conf")
        assert late["Unit"]["JobRunningTimeoutSec"] == "10min"


def test_changed_settings_reach_machines_that_run() -> None:
    triggers = {
        name: (ROOT / f"debian/debian-cloud-config-{name}.triggers").read_text("utf-8").splitlines()
        for name in ("cloud", "common")
    }
    assert "interest-noawait /etc/ssh/sshd_config.d" in triggers["cloud"]
    assert "interest-noawait /etc/default/grub.d" in triggers["common"]
    assert "interest-noawait /etc/chrony/conf.d" in triggers["common"]
    assert "interest-noawait /usr/lib/systemd/timesyncd.conf.d" in triggers["common"]
    for name in triggers:
        assert "\nconfigure | triggered)\n" in (ROOT / f"debian/debian-cloud-config-{name}.postinst").read_text(
            "utf-8"
        )


def maintainer_script(script: str, root: Path, *arguments: str, active: str = "", valid: bool = True) -> list[str]:
    """Run a maintainer script on a tree, and return what it called deb-systemd-invoke with.

    `active` is the running service, `valid` whether sshd accepts its settings.
    """
    stubs = root / "stubs"
    stubs.mkdir(parents=True, exist_ok=True)
    said = root / "said"
    for name, body in (
        ("systemctl", f'[ "$*" = "--quiet is-active {active}" ]'),
        ("deb-systemd-invoke", f'echo "$*" >>{shlex.quote(str(said))}; exit 1'),
        ("sshd", f'[ "$*" = -t ] && {"true" if valid else "false"}'),
    ):
        (stubs / name).write_text(f"#!/bin/sh\n{body}\n")
        (stubs / name).chmod(0o755)
    for directory in ("run/systemd/system", "etc/default"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    text = (ROOT / "debian" / script).read_text("utf-8")
    moved = re.sub(r"(?<![\w$])/(?=(etc|run|boot)/)", f"{root}/", text)
    subprocess.run(
        ["sh", "-c", moved, script, *arguments],
        env={"PATH": f"{stubs}:/usr/bin:/bin"},
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return said.read_text().splitlines() if said.exists() else []


def test_a_server_that_runs_reads_its_changed_settings(tmp_path: Path) -> None:
    """If the restart fails, that is reported and does not stop the upgrade; wrong settings prevent it."""
    script = "debian-cloud-config-cloud.postinst"
    trigger = ("triggered", "/etc/ssh/sshd_config.d")
    assert maintainer_script(script, tmp_path / "running", *trigger, active="ssh.service") == ["restart ssh.service"]
    assert maintainer_script(script, tmp_path / "wrong", *trigger, active="ssh.service", valid=False) == []
    assert maintainer_script(script, tmp_path / "down", *trigger) == []
    assert maintainer_script(script, tmp_path / "other", "abort-upgrade", "1", active="ssh.service") == []


@pytest.mark.parametrize("service", ["chrony.service", "systemd-timesyncd.service"])
def test_a_clock_that_runs_reads_its_changed_settings(tmp_path: Path, service: str) -> None:
    script = "debian-cloud-config-common.postinst"
    assert maintainer_script(script, tmp_path / "a", "configure", "1", active=service) == [f"restart {service}"]
    assert maintainer_script(script, tmp_path / "b", "configure", "1") == []


def test_the_official_images_packages_are_as_many_as_debian_counts() -> None:
    counts = {
        vendor: len(official.packages(vendor, "trixie", "arm64" if vendor == "raspi" else "amd64"))
        for vendor in official.VENDORS
    }
    assert counts == {
        "nocloud": 43, "generic": 48, "genericcloud": 48, "ec2": 50, "azure": 52, "gce": 48, "raspi": 45,
    }  # fmt: skip


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize(
    ("name", "architecture"), [(name, arch) for name in IMAGES for arch in stanza(name)["Architecture"].split()]
)
def test_packages_are_those_of_the_official_image_and_our_own(name: str, architecture: str, suite: str) -> None:
    found = matrix.named(_control(suite), architecture)[name]
    if "chrony" in found:
        # The first of two alternatives; chrony is the other.
        found.remove("systemd-timesyncd")
    assert found == official.ours(name, suite, architecture)


def test_common_needs_neither_kernel_nor_boot_loader() -> None:
    """A container is an image, too, and has neither."""
    assert not {package for package in depends("container") if package.startswith(("linux-image", "grub", "shim"))}


def test_awscli_is_recommended_so_that_a_machine_may_remove_it() -> None:
    assert "awscli" in stanza("ec2")["Recommends"]
    assert "awscli" not in depends("ec2")
