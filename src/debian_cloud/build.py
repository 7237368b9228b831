# SPDX-License-Identifier: GPL-3.0-or-later
"""From a resolved configuration to the plan that builds its image."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from . import disk, formats, metadata, names, scripts, sources
from .errors import Error, did_you_mean
from .plan import Plan, Run, Write

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .config import ImageConfig
    from .disk import Disk
    from .resolution import Resolution

TREE: Final = "tree"
"""The root file system as a folder of the workspace."""

_SIGNED_SHIM: Final = "usr/lib/shim"
_SIGNED_GRUB: Final = "usr/lib/grub/x86_64-efi-signed"

_ARCHITECTURES: Final = ("amd64",)
"""Those whose boot files are listed below."""

# Target on the EFI system partition <- file of the tree. The removable path is the one that firmware
# finds without any variable of its own (UEFI 2.10, 3.5.1.1); the other is grub-install's.
_ESP_FILES: Final = (
    ("EFI/BOOT/BOOTX64.EFI", f"{_SIGNED_SHIM}/shimx64.efi.signed"),
    ("EFI/BOOT/grubx64.efi", f"{_SIGNED_GRUB}/grubx64.efi.signed"),
    ("EFI/BOOT/mmx64.efi", f"{_SIGNED_SHIM}/mmx64.efi.signed"),
    ("EFI/debian/BOOTX64.CSV", f"{_SIGNED_SHIM}/BOOTX64.CSV"),
    ("EFI/debian/fbx64.efi", f"{_SIGNED_SHIM}/fbx64.efi.signed"),
    ("EFI/debian/grubx64.efi", f"{_SIGNED_GRUB}/grubx64.efi.signed"),
    ("EFI/debian/mmx64.efi", f"{_SIGNED_SHIM}/mmx64.efi.signed"),
    ("EFI/debian/shimx64.efi", f"{_SIGNED_SHIM}/shimx64.efi.signed"),
)

# The host's own mke2fs.conf differs between releases; an image must not (mke2fs.conf(5)).
_MKE2FS_CONF: Final = """\
[defaults]
    base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
    default_mntopts = acl,user_xattr
    enable_periodic_fsck = 0
    blocksize = 4096
    inode_size = 256
    inode_ratio = 16384
[fs_types]
    ext4 = {
        features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
    }
"""

# Files that mmdebstrap leaves in the tree for its own use.
_OF_MMDEBSTRAP: Final = (
    "etc/hostname",
    "etc/apt/sources.list",
    "etc/apt/sources.list.d/0000sources.list",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/apt/preferences.d/99mmdebstrap",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
)


def plan(
    resolution: Resolution,
    serial: str,
    wanted: Iterable[str],
    debian: Iterable[sources.Source],
    archive: sources.Source,
    apt_options: Iterable[str] = (),
) -> Plan:
    """The plan of one image in the given formats; paths are relative to the workspace.

    `apt_options` are lines of apt.conf(5) for the way to the network. The last
    step writes the image's .buildinfo, record and .changes.
    """
    config = resolution.config
    debian, wanted = tuple(debian), tuple(wanted)
    if config.architecture not in _ARCHITECTURES:
        raise Error(f"images for {config.architecture} cannot be built yet", did_you_mean("", _ARCHITECTURES))
    stem = names.stem(config.suite, names.config(config.name), config.architecture, serial)
    layout = disk.layout(stem, config.size, config.architecture, bios="bios" in config.firmware)
    raw = f"{stem}.raw"
    return (
        *_tree(resolution, debian, archive, apt_options),
        *_settings(layout, debian, config),
        *_grub(layout),
        *_clean(resolution.epoch),
        *_disk(raw, layout),
        *(_bios(raw, layout.bios) if layout.bios else ()),
        *_uefi(raw, layout, resolution.epoch),
        *_root(raw, layout, resolution.epoch),
        *(step for name in wanted for step in formats.find(name).steps(raw, f"{stem}.{name}")),
        Write("write down the facts", metadata.FACTS, metadata.facts(resolution, serial, wanted)),
        Run("write hashes and records", ("debian-cloud", "seal", "."), root=False),
    )


def _tree(
    resolution: Resolution, debian: Iterable[sources.Source], archive: sources.Source, apt_options: Iterable[str]
) -> Plan:
    config = resolution.config
    # apt installs from a file: URI in place; copied, every .deb passes through the cache, where it is checked.
    copied = replace(archive, uri="copy:" + archive.uri[5:]) if archive.uri.startswith("file:") else archive
    listed = sorted(f"{package.sha256}  {package.deb}" for package in resolution.packages)
    record = 'cd "$1/var/cache/apt/archives" && sha256sum -- *.deb >> "$1/../installed"'
    return (
        Write("set sources", "sources.list", sources.as_lines((*debian, copied))),
        Write("note the packages to come", "expected", "".join(f"{line}\n" for line in listed)),
        Run(
            f"install {len(listed)} packages",
            (
                "mmdebstrap",
                "--mode=root",
                "--format=directory",
                "--variant=minbase",
                f"--architectures={config.architecture}",
                f"--include={config.name}",
                # 99mmdebstrap is removed again: these settings are the builder's, not the image's.
                '--aptopt=Acquire::Languages "none"',
                *(f"--aptopt={option}" for option in apt_options),
                # apt's own user may not look into the folders around the workspace, or at an archive in
                # somebody's home; and what it owns there would depend on that.
                '--aptopt=APT::Sandbox::User "root"',
                "--dpkgopt=force-unsafe-io",
                # The first ones are removed when they are installed, the others at the end: noted in time.
                f"--extract-hook={record}",
                f"--customize-hook={record}",
                config.suite,
                TREE,
                "sources.list",
            ),
            root=True,
            # Byte code that a maintainer script leaves by the way would carry the time of day.
            env=(("SOURCE_DATE_EPOCH", str(resolution.epoch)), ("PYTHONDONTWRITEBYTECODE", "1")),
        ),
        Run("sort the list of installed packages", ("sort", "-u", "-o", "installed", "installed")),
        Run("compare installed packages with the resolved ones", ("diff", "-u", "expected", "installed")),
    )


def _settings(layout: Disk, debian: Iterable[sources.Source], config: ImageConfig) -> Plan:
    """What belongs to this disk rather than to any package."""
    fstab = (
        f"PARTUUID={layout.root.uuid} / ext4 rw,discard,errors=remount-ro,x-systemd.growfs 0 1\n"
        f"PARTUUID={layout.esp.uuid} /boot/efi vfat umask=0077,defaults 0 2\n"
    )
    # That a build took expired indexes is no licence for the machine.
    first, *others = (replace(source, expired=False) for source in debian)
    if config.suite in names.RELEASES:
        first = replace(first, suites=(*first.suites, f"{config.suite}-backports"))

    def install(title: str, path: str, text: str, mode: str = "0644") -> Run:
        return Run(title, ("install", "-m", mode, "/dev/stdin", f"{TREE}/{path}"), stdin=text, root=True)

    return (
        Run(
            "remove the bootstrap's settings",
            ("rm", "-rf", *(f"{TREE}/{path}" for path in _OF_MMDEBSTRAP)),
            root=True,
        ),
        install(
            "set the image's sources",
            "etc/apt/sources.list.d/debian.sources",
            sources.as_deb822((first, *others), types="deb deb-src"),
        ),
        install("write fstab", "etc/fstab", fstab),
        Run("make the ESP's mount point", ("mkdir", "-p", f"{TREE}/boot/efi"), root=True),
        # Empty: the first boot makes an id and keeps it (machine-id(5)).
        Run("empty machine-id", ("install", "-m", "0444", "/dev/null", f"{TREE}/etc/machine-id"), root=True),
        Run(
            "point resolv.conf to systemd-resolved",
            ("ln", "-sfn", "../run/systemd/resolve/stub-resolv.conf", f"{TREE}/etc/resolv.conf"),
            root=True,
        ),
    )


def _grub(layout: Disk) -> Plan:
    identities = f"root_partuuid={layout.root.uuid}\nroot_uuid={layout.root_uuid}\n"
    return (
        Write("identify the disk to grub", "grub-probe.identities", identities),
        Write("prepare grub-probe", "grub-probe", scripts.text("grub-probe"), 0o755),
        Write("prepare grub-setup", "grub-setup", scripts.text("grub-setup"), 0o755),
        Run(
            "configure grub",
            ("./grub-setup", TREE, layout.root.uuid, *(("bios",) if layout.bios else ())),
            root=True,
        ),
    )


def _clean(epoch: int) -> Plan:
    """Leave out what a machine makes for itself, and every time later than the archive's."""

    def delete(title: str, folders: Iterable[str], *condition: str) -> Run:
        paths = (f"{TREE}/{folder}" for folder in folders)
        return Run(title, ("find", *paths, *condition, "-delete"), root=True)

    return (
        delete("empty run-time folders", ("dev", "run", "tmp", "var/tmp"), "-mindepth", "1"),
        delete(
            "empty logs and caches",
            ("var/log", "var/cache/apt", "var/cache/ldconfig", "var/lib/apt/lists"),
            "-type",
            "f",
        ),
        delete("leave out host keys", ("etc",), "-path", f"{TREE}/etc/ssh/ssh_host_*"),
        delete(
            "leave out backup files",
            ("etc", "var/lib/dpkg", "var/cache/debconf"),
            *("-type", "f", "(", "-name", "*-old", "-o", "-path", f"{TREE}/etc/*-", ")"),
        ),
        Run(
            "clamp time stamps",
            ("find", TREE, "-newermt", f"@{epoch}", "-exec", "touch", "-h", "-d", f"@{epoch}", "{}", "+"),
            root=True,
        ),
    )


def _disk(raw: str, layout: Disk) -> Plan:
    return (
        Run("make an empty disk", ("truncate", "-s", str(layout.size), raw)),
        Run(
            "partition it",
            ("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--wipe=never", raw),
            stdin=disk.table(layout),
        ),
    )


def _bios(raw: str, partition: disk.Partition) -> Plan:
    """GRUB as grub-bios-setup(8) leaves it, at computed offsets (GRUB's manual, "BIOS installation")."""
    sector = partition.start // disk.SECTOR

    def copy(title: str, image: str, *operands: str) -> Run:
        source = f"if={TREE}/boot/grub/i386-pc/{image}"
        return Run(title, ("dd", source, f"of={raw}", *operands, "conv=notrunc", "status=none"), root=True)

    def patch(title: str, offset: int, data: bytes) -> Run:
        return Run(title, ("dd", f"of={raw}", "bs=1", f"seek={offset}", "conv=notrunc", "status=none"), stdin=data)

    return (
        copy("place GRUB's core image", "core.img", f"bs={disk.SECTOR}", f"seek={sector}"),
        copy("place GRUB's boot sector", "boot.img", "bs=440", "count=1"),
        patch("point the boot sector to the core image", 0x5C, sector.to_bytes(8, "little")),
        # Two NOPs where boot.img jumps: a wrong drive number from the firmware is then put right.
        patch("let it mend the boot drive", 0x66, b"\x90\x90"),
        # grub-mkimage wrote the length and the segment; where it starts is known only here.
        patch("point the core image to its rest", partition.start + 0x1F4, (sector + 1).to_bytes(8, "little")),
    )


def _uefi(raw: str, layout: Disk, epoch: int) -> Plan:
    """Firmware -> signed shim -> signed GRUB -> EFI/debian/grub.cfg -> /boot/grub/grub.cfg."""
    esp = layout.esp
    at = f"{raw}@@{esp.start}"
    # mtools asks no questions about a geometry that no firmware reads.
    env = (("MTOOLS_SKIP_CHECK", "1"), ("SOURCE_DATE_EPOCH", str(epoch)))
    grub_cfg = (
        # Byte for byte what grub-install writes, with its blank at the end.
        f"search.fs_uuid {layout.root_uuid} root \nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n"
    )
    return (
        Run(
            "make the EFI system partition",
            (
                "mformat", "-i", at, "-F", "-v", "ESP", "-N", layout.esp_serial, "-T", str(esp.size // disk.SECTOR),
                "-h", "255", "-s", "63", "-H", str(esp.start // disk.SECTOR), "::",
            ),
            env=env,
        ),
        # mformat writes a partition entry into its boot sector and that one's copy (sector 6): GRUB and the
        # kernel would take the partition for a partitioned disk.
        *(
            Run(
                "take a partition entry out of it",
                (
                    *("dd", "if=/dev/zero", f"of={raw}", "bs=1", "count=16"),
                    *(f"seek={esp.start + sector * disk.SECTOR + 0x1BE}", "conv=notrunc", "status=none"),
                ),
            )
            for sector in (0, 6)
        ),
        Run("make its folders", ("mmd", "-i", at, "::EFI", "::EFI/BOOT", "::EFI/debian"), env=env),
        *(
            Run(f"place {target}", ("mcopy", "-i", at, f"{TREE}/{source}", f"::{target}"), root=True, env=env)
            for target, source in _ESP_FILES
        ),
        Run("place EFI/debian/grub.cfg", ("mcopy", "-i", at, "-", "::EFI/debian/grub.cfg"), stdin=grub_cfg, env=env),
    )  # fmt: skip


def _root(raw: str, layout: Disk, epoch: int) -> Plan:
    extended = (
        f"offset={layout.root.start},hash_seed={layout.hash_seed},"
        # A sparse file reads as zeros: neither mke2fs nor the first boot need write them.
        "nodiscard,assume_storage_prezeroed=1"
    )
    return (
        Write("set mke2fs's defaults", "mke2fs.conf", _MKE2FS_CONF),
        Write("prepare to run the image's own tools", "in-tree", scripts.text("in-tree"), 0o755),
        Run(
            "make the root file system",
            (
                *("./in-tree", TREE, "mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-U", layout.root_uuid),
                *("-E", extended, "-d", f"/mnt/{TREE}", f"/mnt/{raw}", f"{layout.root.size // 1024}k"),
            ),
            root=True,
            # From 1.47.2 on mke2fs takes no time later than this into the file system.
            env=(("SOURCE_DATE_EPOCH", str(epoch)),),
        ),
    )
