# SPDX-License-Identifier: GPL-3.0-or-later
"""Each built image has what Debian's official image of its vendor has, and its improvements.

The tables are those of the official trixie images of 2026; each difference has its reason.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import pytest

from debian_cloud.names import KEYRING_PACKAGE
from tests.built.conftest import Root
from tests.built.dpkg import Dpkg
from tests.configs import kernel, official

GIB: Final = 1024**3

BOOTED: Final = {"grub-efi-amd64-signed", "shim-signed"}
"""Dependencies of GRUB itself, so that a disk also boots with Secure Boot."""
MINIMAL: Final = {"e2fsprogs", "init", "netbase"}
"""Official packages that a minimal system has anyway."""
GROUPS: Final = "adm audio cdrom dialout dip floppy plugdev sudo video"

UNITS: Final = """
    systemd-networkd.service systemd-resolved.service apt-daily.timer apt-daily-upgrade.timer fstrim.timer
    unattended-upgrades.service apparmor.service getty@tty1.service
"""
SERVICES: Final = {
    "openssh-server": {"ssh.service"},
    "cloud-init": {"cloud-init-local.service", "cloud-config.service", "cloud-final.service"},
    "google-guest-agent": {"google-guest-agent.service"},
    "waagent": {"walinuxagent.service"},
    "chrony": {"chrony.service"},
    "systemd-timesyncd": {"systemd-timesyncd.service"},
}
"""Package in some images -> its units, enabled only in images that name the package."""
NEVER: Final = {"ssh.socket", "debug-shell.service"}
"""Units that no image enables: a second way to the same server, and a shell without a password."""


@dataclass(frozen=True)
class Vendor:
    """What differs in one vendor's image; sizes in GiB, the timeout of the grub menu in seconds."""

    size: int = 3
    kernel: str = "cloud"
    timeout: int = 0
    words: str = ""
    user: str = ""
    datasources: tuple[str, ...] = ()
    cdrom: str = ""


MANY: Final = (
    *("NoCloud", "ConfigDrive", "OpenStack", "DigitalOcean", "Hetzner", "Vultr", "Scaleway", "UpCloud", "Exoscale"),
    *("CloudStack", "OpenNebula", "Oracle", "Akamai", "VMware", "OVF", "LXD", "Ec2", "None"),
)
VENDORS: Final = {
    "ec2": Vendor(
        size=8,
        words="nvme_core.io_timeout=4294967295",
        user="admin",
        datasources=("Ec2", "None"),
        cdrom="ide sata virtio-scsi",
    ),
    "azure": Vendor(
        size=30,
        timeout=1,
        words="nvme_core.io_timeout=240 nvme_core.admin_timeout=240",
        user="debian",
        datasources=("Azure", "None"),
        cdrom="ide sata virtio-scsi",
    ),
    "generic": Vendor(
        kernel="any",
        user="debian",
        datasources=MANY,
        cdrom="ide sata usb virtio-scsi",
    ),
    "genericcloud": Vendor(user="debian", datasources=MANY, cdrom="ide sata virtio-scsi"),
    "nocloud": Vendor(kernel="any", timeout=5, cdrom="ide sata usb virtio-scsi"),
    "container": Vendor(size=0, kernel=""),
}


@dataclass(frozen=True)
class Content:
    """One image, and what it must contain."""

    root: Root

    @cached_property
    def vendor(self) -> Vendor:
        return VENDORS[self.root.config]

    @cached_property
    def named(self) -> set[str]:
        return official.ours(self.root.config, self.root.suite, "amd64")

    @cached_property
    def others(self) -> set[str]:
        """Packages of other vendors' images that this image's vendor does not name."""
        named = (official.packages(name, self.root.suite, "amd64") for name in official.VENDORS)
        return set[str]().union(*named, *official.OURS.values()) - self.named

    @cached_property
    def packages(self) -> set[str]:
        return set(Dpkg(self.root.tree.path).installed)

    @cached_property
    def facts(self) -> dict[str, str]:
        stanza = Dpkg(self.root.tree.path).packages[f"debian-cloud-config-{self.root.config}"]
        return {key.removeprefix("Image-"): value for key, value in stanza.items() if key.startswith("Image-")}

    def run(self, script: str) -> str:
        return self.root.tree.run("sh", "-euc", script).stdout


@pytest.fixture
def content(root: Root) -> Content:
    return Content(root)


@pytest.fixture
def disk(content: Content) -> Content:
    if not content.vendor.size:
        pytest.skip("it has no disk")
    return content


@pytest.fixture
def cloud(content: Content) -> Content:
    if "openssh-server" not in content.named:
        pytest.skip("nobody logs in over the network")
    return content


def test_explicit_packages(content: Content) -> None:
    wanted = content.named | {KEYRING_PACKAGE} | (BOOTED if content.vendor.size else set())
    assert wanted - content.packages == set()


def test_packages_that_other_vendors_have(content: Content) -> None:
    absent = content.others | (set() if content.vendor.size else BOOTED)
    # Other packages use this library, too.
    assert (absent - {"python3-passlib"}) & content.packages == set()
    kernels = [name for name in content.packages if re.fullmatch(r"linux-image-\d.*", name)]
    assert len(kernels) == bool(content.vendor.kernel)
    assert all(("-cloud-" in name) == (content.vendor.kernel == "cloud") for name in kernels)


def test_the_configuration_alone_was_asked_for(content: Content) -> None:
    """Only the configuration is marked as manually installed, so apt removes what a later version no longer needs."""
    manual = set(content.run("apt-mark -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= showmanual").split())
    assert f"debian-cloud-config-{content.root.config}" in manual
    # The others belong to a minimal system, and are not the image's choice either.
    assert manual & ((content.named | content.others | BOOTED) - MINIMAL) == set()


def test_no_user_and_no_password(content: Content) -> None:
    users = [line.split(":") for line in content.root.tree.text("etc/passwd").splitlines()]
    assert [name for name, _, uid, *_ in users if 1000 <= int(uid) < 60000] == []
    shadow = [line.split(":")[:2] for line in content.root.tree.text("etc/shadow").splitlines()]
    assert [name for name, password in shadow if not password.startswith(("*", "!"))] == []


def test_groups_of_the_default_user(content: Content) -> None:
    groups = {line.split(":")[0] for line in content.root.tree.text("etc/group").splitlines()}
    assert set(GROUPS.split()) <= groups


def cloud_config(content: Content) -> dict[str, object]:
    """The configuration as cloud-init reads it."""
    script = "from cloudinit.util import read_conf_with_confd as read; import json; print(json.dumps(read({!r})))"
    merged = json.loads(content.run(f'python3 -B -c "{script.format("/etc/cloud/cloud.cfg")}"'))
    assert isinstance(merged, dict)
    return merged


def test_cloud_init_makes_the_default_user(content: Content) -> None:
    if not content.vendor.user:
        assert "cloud-init" not in content.packages
        pytest.skip("it has no cloud-init")
    merged = cloud_config(content)
    system = merged["system_info"]
    assert isinstance(system, dict)
    user = system["default_user"]
    assert user["name"] == content.vendor.user == content.facts["User"]
    assert sorted(user["groups"]) == GROUPS.split()
    assert user["sudo"] == ["ALL=(ALL) NOPASSWD:ALL"]
    assert user["lock_passwd"] is True
    assert user["shell"] == "/bin/bash"
    assert merged["users"] == ["default"]
    assert merged["datasource_list"] == list(content.vendor.datasources)
    # bookworm's cloud-init skips one that it does not know yet
    late = {"Akamai"} if content.root.suite == "bookworm" else set()
    assert content.facts["Datasource"].split() == [name for name in content.vendor.datasources if name not in late]
    assert merged["apt"] == {"preserve_sources_list": True}
    assert (merged.get("reporting") == {"telemetry": {"type": "hyperv"}}) == (content.root.config == "azure")


def test_sshd_takes_keys_alone(cloud: Content) -> None:
    said = cloud.run("ssh-keygen -q -t ed25519 -N '' -f /run/key; mkdir -p /run/sshd; sshd -T -h /run/key")
    settings = {key.lower(): value for key, _, value in (line.partition(" ") for line in said.splitlines())}
    wanted = {
        "passwordauthentication": "no",
        "kbdinteractiveauthentication": "no",
        # the same value by its older name
        "permitrootlogin": "without-password" if cloud.root.suite != "forky" else "prohibit-password",
        "pubkeyauthentication": "yes",
        "clientaliveinterval": "120",
        "usepam": "yes",
        "permitemptypasswords": "no",
    }
    assert {key: settings[key] for key in wanted} == wanted


def test_kernel_command_line_and_menu(disk: Content) -> None:
    text = disk.root.tree.text("boot/grub/grub.cfg")
    lines = re.findall(r"^\s*linux\s+(\S+)\s+(.*)$", text, re.MULTILINE)
    assert lines
    partuuid = re.search(r"^PARTUUID=(\S+) / ", disk.root.tree.text("etc/fstab"), re.MULTILINE)
    assert partuuid
    for path, options in lines:
        assert (disk.root.tree.path / path.lstrip("/")).exists()
        assert f"root=PARTUUID={partuuid[1]}" in options.split()
        assert "root=UUID" not in options
    first = lines[0][1].split()
    assert set(disk.vendor.words.split()) <= set(first)
    # The last console becomes /dev/console.
    assert [word for word in first if word.startswith("console=")] == ["console=tty0", "console=ttyS0,115200"]
    assert re.findall(r"^\s*set timeout=(\d+)$", text, re.MULTILINE)[-1:] == [str(disk.vendor.timeout)]
    # /etc/default/grub, a conffile of grub-cloud-amd64, adds the last two.
    known = {f"root=PARTUUID={partuuid[1]}", "ro", "console=tty0", "console=ttyS0,115200", *disk.vendor.words.split()}
    assert set(first) - known == {"earlyprintk=ttyS0,115200", "consoleblank=0"}


def test_fstab(disk: Content) -> None:
    lines = [line.split() for line in disk.root.tree.text("etc/fstab").splitlines()]
    assert [line[1:] for line in lines] == [
        ["/", "ext4", "rw,discard,errors=remount-ro,x-systemd.growfs", "0", "1"],
        ["/boot/efi", "vfat", "umask=0077,nofail,x-systemd.device-timeout=10min", "0", "2"],
    ]
    assert all(line[0].startswith("PARTUUID=") for line in lines)


def test_disk_size(disk: Content) -> None:
    assert disk.root.file.stat().st_size == disk.vendor.size * GIB
    assert disk.facts["Size"] == f"{disk.vendor.size}G"


def test_enabled_units(content: Content) -> None:
    wants = [path for folder in ("etc", "usr/lib", "lib") for path in _wants(content, folder)]
    enabled = {path.rpartition("/")[2] for path in wants}
    present = [units for package, units in SERVICES.items() if package in content.named]
    assert {*UNITS.split()}.union(*present) - enabled == set()
    absent = [units for package, units in SERVICES.items() if package in content.others]
    # Each image is without the units of some other vendor.
    assert len(SERVICES) - len(present) == len(absent) > 0
    assert NEVER.union(*absent) & enabled == set()


def _wants(content: Content, folder: str) -> list[str]:
    place = content.root.tree.path / folder / "systemd/system"
    return [str(path) for path in place.glob("*.wants/*")] if not place.parent.parent.is_symlink() else []


def test_a_login_gets_the_default_locale(content: Content) -> None:
    assert content.run("env -i su --login root --command 'echo $LANG'") == "C.UTF-8\n"


def test_apt_sources(content: Content) -> None:
    suite = content.root.suite
    text = content.root.tree.text("etc/apt/sources.list.d/debian.sources")
    first, security = re.split(r"\n\n+", text.strip())
    assert f"Suites: {suite} {suite}-updates {suite}-backports\n" in first
    assert f"Suites: {suite}-security\n" in security
    for stanza in (first, security):
        assert "Types: deb deb-src\n" in stanza
        assert re.search(r"^Signed-By: /usr/share/keyrings/debian-archive-keyring\.(gpg|pgp)$", stanza, re.MULTILINE)
        assert re.search(r"^Components: main$", stanza, re.MULTILINE)
    folder = content.root.tree.path / "etc/apt"
    assert sorted(path.name for path in folder.glob("sources.list.d/*")) == ["debian-cloud.sources", "debian.sources"]
    assert not (folder / "sources.list").exists()


def test_updates_install_themselves(content: Content) -> None:
    said = content.run("apt-config dump")
    assert 'APT::Periodic::Update-Package-Lists "1";' in said
    assert 'APT::Periodic::Unattended-Upgrade "1";' in said
    assert f'"origin=debian-cloud,codename={content.root.suite}";' in said


def test_cloud_release(content: Content) -> None:
    text = content.root.tree.text("etc/cloud-release")
    assert text == f'ID={content.root.config}\nVERSION="{content.root.serial}"\n'
    assert f"VERSION_CODENAME={content.root.suite}\n" in content.root.tree.text("etc/os-release")


EMPTY: Final = """
    var/cache/apt var/lib/apt/lists var/lib/apt/periodic tmp var/tmp var/log run dev root/.ssh home var/lib/cloud
    var/lib/dhcp var/spool var/mail var/lib/systemd/random-seed var/crash
"""
ABSENT: Final = """
    etc/hostname etc/mailname root/.bash_history var/lib/dbus/machine-id etc/adjtime etc/.pwd.lock
    usr/sbin/policy-rc.d .dockerenv
"""


def test_empty_places(content: Content) -> None:
    entries = content.root.tree.entries()
    files = [path for path, entry in entries.items() if entry.kind not in "dl"]
    full = [path for path in files if any(path == place or path.startswith(place + "/") for place in EMPTY.split())]
    assert [path for path in full if path not in Dpkg(content.root.tree.path).owners] == []
    assert [path for path in ABSENT.split() if path in entries and entries[path].kind == "f"] == []
    assert [path for path in files if path.startswith("etc/ssh/ssh_host_")] == []
    assert [
        path for path in files if re.search(r"\.(dpkg|ucf)-\w+$|\.old$|~$", path) and path.startswith("etc")
    ] == []
    assert [
        path for path in files if re.search(r"^etc/.*(-old|\.bak)$|^etc/(passwd|group|g?shadow|sub.id)-$", path)
    ] == []
    # systemd-firstboot(1) asks only if the file contains this word.
    first = "uninitialized\n" if content.root.config == "nocloud" else ""
    assert content.root.tree.text("etc/machine-id") == first
    assert entries["etc/resolv.conf"].target == "../run/systemd/resolve/stub-resolv.conf"


def test_the_time(content: Content) -> None:
    if "chrony" in content.named:
        said = content.run("chronyd -p -f /etc/chrony/chrony.conf")
        assert "refclock PHC /dev/ptp_hyperv poll 3 dpoll -2 offset 0 stratum 2" in said.splitlines()
        return
    text = content.run("systemd-analyze cat-config --root=/ systemd/timesyncd.conf")
    servers = re.findall(r"^(NTP|FallbackNTP)=(.*)$", text, re.MULTILINE)
    # EC2's link-local servers are asked first; in the official image, last.
    assert servers == ([("NTP", "169.254.169.123 fd00:ec2::123")] if content.root.config == "ec2" else [])


def test_initrd(disk: Content) -> None:
    dracut = "dracut" in disk.packages
    listed = disk.run(f"{'lsinitrd' if dracut else 'lsinitramfs'} /boot/initrd.img-*")
    assert ("debian-cloud-config-ec2.sh" in listed) == (disk.root.config == "ec2")
    if "cloud-initramfs-growroot" in disk.packages:
        assert "scripts/local-bottom/growroot" in listed
        assert "growpart" in listed
    # The initrd is for any machine, not for the one that built it.
    (config,) = (disk.root.tree.path / "boot").glob("config-*")
    built_in = re.findall(r"^CONFIG_(\w+)=y$", config.read_text("utf-8"), re.MULTILINE)
    modules = {
        "virtio_blk": "VIRTIO_BLK",
        "nvme": "BLK_DEV_NVME",
        "xen-blkfront": "XEN_BLKDEV_FRONTEND",
        "hv_storvsc": "HYPERV_STORAGE",
    }
    assert [name for name, option in modules.items() if f"/{name}.ko" not in listed and option not in built_in] == []


def test_the_kernel_is_able_to_what_the_fields_say(disk: Content) -> None:
    (config,) = (disk.root.tree.path / "boot").glob("config-*")
    have = set(re.findall(r"^CONFIG_(\w+)=[ym]$", config.read_text("utf-8"), re.MULTILINE))
    cdrom = set(disk.vendor.cdrom.split()) - (
        {"sata"} if disk.root.suite == "bookworm" and "cloud" in config.name else set()
    )
    assert set(disk.facts["Cdrom"].split()) == cdrom
    assert set(disk.facts["Drivers"].split()) == {"virtio", "nvme", "xen", "hyperv", "ena", "gve"}
    for word in disk.facts["Drivers"].split():
        assert set(kernel.DRIVERS[word]) <= have, word
    able = {word for word, options in kernel.CDROM.items() if set(options) <= have}
    assert able == cdrom
    console = disk.facts["Console"].rstrip("0123456789")
    built_in = set(re.findall(r"^CONFIG_(\w+)=y$", config.read_text("utf-8"), re.MULTILINE))
    assert set(kernel.CONSOLE[console]) <= built_in


def test_grub_installs_itself_where_firmware_looks(disk: Content) -> None:
    answers = disk.root.tree.text("var/cache/debconf/config.dat").split("\n\n")
    (answer,) = [text for text in answers if text.startswith("Name: grub2/force_efi_extra_removable\n")]
    assert "\nValue: true\n" in f"{answer}\n"
    assert disk.root.tree.text("etc/grub.d/enable_cloud") == ""


def test_network_without_cloud_init(content: Content) -> None:
    plans = sorted(path.name for path in (content.root.tree.path / "usr/lib/netplan").glob("*debian-cloud*"))
    assert plans == (["50-debian-cloud.yaml"] if content.root.config == "nocloud" else [])
    assert not list((content.root.tree.path / "etc/netplan").glob("*"))
    network = content.root.tree.path / "usr/lib/systemd/network/80-debian-cloud-config.network"
    assert network.exists() == (content.root.config == "container")
