# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the plan that builds the image of a resolved configuration.

The plan lists each package with its SHA-256, which the resolver took from a signed index. A step fetches them, or
takes them from the cache, and compares each with its SHA-256; the tree's own dpkg installs them in stages
(`build.stages`, `scripts/install.py`); at the end, a step compares what dpkg has installed with the list.

The builder writes what belongs to this disk and to no package: fstab, Debian's sources, /etc/cloud-release,
machine-id (empty, or `uninitialized` if systemd-firstboot is to ask), the symlink resolv.conf, GRUB's files in
/boot/grub, /etc/grub.d/enable_cloud (which lets later upgrades of grub install themselves), the ESP, the default
locale, and two answers to debconf (where shim installs itself; no locale but that one). Identities are uuid5 of the
image's name; times are not later than the newest InRelease.

A build does not depend on the machine that it runs on. Root steps have a UTS namespace whose host name is
`localhost` without a domain; the tree has that name in its own /etc/hostname, and an empty resolv.conf, before the
first maintainer script runs. A step has the plan's variables and a few of the
caller's (`plan.KEPT`); a printed plan unsets all others. The kernel's release and the processor cannot be hidden
from a script that reads them: tests build with another host name and number of processors, but not with another
release.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from debian_cloud import formats, names
from debian_cloud.build import layers, scripts, stages
from debian_cloud.disk import layout as disk_layout
from debian_cloud.errors import USAGE, Error, did_you_mean
from debian_cloud.image import sources
from debian_cloud.image.buildinfo import DRAFT, Draft
from debian_cloud.packages import pool
from debian_cloud.plan import ENVIRONMENT, NAMESPACE, TREE, Plan, Run, Write, in_tree, plan_id
from debian_cloud.text.sizes import in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from debian_cloud.build.stages import Stage
    from debian_cloud.disk.layout import Disk
    from debian_cloud.image.config import ImageConfig
    from debian_cloud.image.id import ImageId
    from debian_cloud.image.resolution import Resolution

_SIGNED_SHIM: Final = "usr/lib/shim"
_SIGNED_GRUB: Final = "usr/lib/grub/x86_64-efi-signed"

_ARCHITECTURES: Final = ("amd64",)
"""The architectures whose boot files are listed below."""

# Target on the EFI system partition <- file of the tree. Firmware finds the removable path without
# any variable (UEFI 2.10, 3.5.1.1); the other path is grub-install's.
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
_MKE2FS_CONF: Final = f"""\
[defaults]
    base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
    default_mntopts = acl,user_xattr
    enable_periodic_fsck = 0
    blocksize = {disk_layout.BLOCK}
    inode_size = {disk_layout.INODE_SIZE}
    inode_ratio = {disk_layout.INODE_RATIO}
[fs_types]
    ext4 = {{
        features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
    }}
"""

_DEBS: Final = "debs"
"""Directory of the workspace for the .debs."""

_ANSWERS: Final = "locales locales/default_environment_locale select C.UTF-8\n"
"""Answers to debconf before the configuration is installed, so that locales, if installed, sets no locale itself."""

# A later shim installs itself by grub-install, and on the removable path only with this answer: otherwise firmware
# would still start the old one, which Secure Boot may refuse by then.
_ANSWERS_OF_GRUB: Final = "grub2 grub2/force_efi_extra_removable boolean true\n"

_DEFAULT_LOCALE: Final = "grep -qs ^LANG= /etc/default/locale || echo LANG=C.UTF-8 >>/etc/default/locale"

_UNINITIALIZED: Final = "uninitialized\n"

# Files that a machine makes for itself, or that only the installation needed.
_LEFT: Final = ("etc/hostname", "var/lib/dbus/machine-id", "var/lib/dpkg/available")


def plan(
    resolution: Resolution,
    serial: str,
    wanted: Iterable[str],
    debian: Iterable[sources.Source],
    archive: sources.Source,
    of_image: Iterable[sources.Source] = (),
    others: Iterable[sources.Source] = (),
) -> Plan:
    """Return the plan of one image in the given formats; paths are relative to the workspace.

    `of_image` are Debian's sources in the image, if they are not those that it is made from; `others` are those that
    the user added, which the image does not have. The network settings are those of the machine that carries out the
    plan, and no part of it. The last step writes the image's .buildinfo, record and .changes.
    """
    config, epoch = resolution.config, resolution.epoch
    wanted = tuple(wanted)
    _refuse(config, wanted)
    others = tuple(others)
    for source in (archive, *others):
        _refuse_secret(source)
    debian = tuple(_of_image(source, config) for source in debian)
    of_image = tuple(_of_image(source, config) for source in of_image) or debian
    image = config.image(serial)
    raw = image.file("raw")
    layout = (
        disk_layout.layout(image.stem, config.size, config.architecture, bios="bios" in config.firmware)
        if config.firmware
        else None
    )
    making = (
        *_tree(resolution),
        *_tools(resolution),
        *_settings(resolution, image, of_image),
        *(_boot(layout) if layout else ()),
        *_clean(resolution),
        *(_disk(raw, layout, epoch) if layout else ()),
        *(
            step
            for name in wanted
            for step in formats.find(name).steps(raw if layout else TREE, image.file(name), epoch)
        ),
    )
    return (
        *making,
        Write(
            "write down the facts",
            DRAFT,
            Draft.of(resolution, serial, wanted, of_image, plan_id(making)).render(),
        ),
        Run("write hashes and records", ("debian-cloud", "seal", "."), root=False),
    )


def check_size(resolution: Resolution) -> None:
    """Raise Error that names the size to set, if the packages that apt resolved do not fit on the image's disk."""
    config, custom = resolution.config, resolution.custom
    if not config.firmware:
        return
    packages = len(resolution.packages)
    needed = disk_layout.needed(resolution.installed_size, packages)
    if disk_layout.room(config.size) >= needed:
        return
    have, need = map(in_words, (config.size, disk_layout.least(needed)))
    raise Error(
        f"the disk of {names.config(config.name)} is too small: it has {have}, but {packages} packages with"
        f" {resolution.installed_size >> 20} MiB, the files that they create, boot areas and file system need {need}",
        f"give --size {need}" if custom.lines else f"set Image-Size to {need}; for a test, give --size {need}",
    )


def identity(plan: Plan) -> str:
    """Return the id of the steps that make the image's files; the last two steps only describe these files."""
    return plan_id(plan[:-2])


def _refuse(config: ImageConfig, wanted: Iterable[str]) -> None:
    """Raise Error if the image cannot be built, or not in a requested format."""
    name = names.config(config.name)
    if "raspi" in config.firmware:
        raise Error(
            f"{name} cannot be built yet: it boots by the firmware of the Raspberry Pi",
            "build a configuration whose Image-Firmware is bios or uefi; see `debian-cloud show`",
        )
    if config.architecture not in _ARCHITECTURES:
        raise Error(f"images for {config.architecture} cannot be built yet", did_you_mean("", _ARCHITECTURES))
    source = "disk" if config.firmware else "tree"
    made = [known for known in formats.names() if source == formats.find(known).SOURCE]
    for known in wanted:
        if known not in made:
            what = "a disk" if config.firmware else "a root file system without a disk"
            raise Error(f"{name} is {what}, which has no format {known}", f"give --format {','.join(made)}", USAGE)
        unit = formats.find(known).UNIT
        if config.size % unit:
            whole, next_ = in_words(unit), in_words(-(-config.size // unit) * unit)
            raise Error(
                f"{name} has a disk of {in_words(config.size)}, but that of a {known} is a multiple of {whole}",
                f"give --size {next_}, or another --format",
                USAGE,
            )


def _of_image(source: sources.Source, config: ImageConfig) -> sources.Source:
    """Return the source with the image's components; raise Error if its URI would disclose a password."""
    _refuse_secret(source)
    return replace(source, components=config.components)


def _refuse_secret(source: sources.Source) -> None:
    """Raise Error if the URI of a source would disclose a password: image, plan and .buildinfo have the URI."""
    if sources.names_a_user(source.uri):
        raise Error(
            f"the address of {' '.join(source.suites)} has a user or a password in its URI, and anyone with"
            " the image could read it",
            "put it into apt_auth.conf(5), and give the address without it",
            USAGE,
        )


def _tree(resolution: Resolution) -> Plan:
    custom = resolution.custom
    installed = sorted(
        f"installed {package.name} {package.version} {package.architecture}" for package in resolution.packages
    )
    answers = _ANSWERS + (_ANSWERS_OF_GRUB if "uefi" in resolution.config.firmware else "") + custom.seed
    debs = {package.name: package.deb for package in resolution.packages}
    made = layers.identified(
        [(stage, _operations(stage, debs)) for stage in stages.stages(resolution)],
        resolution,
        (
            scripts.text("install.py"),
            answers,
            *NAMESPACE,
            *(f"{name}={value}" for name, value in ENVIRONMENT.items()),
        ),
    )
    lists = tuple(
        Write(
            f"list the packages of {stage.name}",
            f"packages/{number}-{stage.name}",
            pool.listed(package for package in resolution.packages if package.name in {*stage.packages}),
            layer=layer,
        )
        for number, (stage, _, layer) in enumerate(made, 1)
    )
    if resolution.tools:
        lists = (*lists, Write("list what else makes the image", "packages/tools", pool.listed(resolution.tools)))
    return (
        *lists,
        Run(
            f"get {len(debs)} packages",
            (*pool.COMMAND, _DEBS, *(write.path for write in lists)),
        ),
        Write("prepare to install", "install", scripts.text("install.py"), 0o755),
        # Answers may be secret.
        Write("note the answers to debconf", "answers", answers, 0o600),
        *(step for number, found in enumerate(made, 1) for step in _stage(number, *found)),
        Write("note what was installed automatically", "automatic", _automatic(resolution)),
        Write("note the packages to come", "expected", "".join(f"{line}\n" for line in installed)),
        Write("plan to make the initrd", "stages/finish", "mark automatic\ninitrd\nlist installed\n"),
        Run(
            "make the initrd",
            ("./install", TREE, "stages/finish"),
            root=True,
            env=(("SOURCE_DATE_EPOCH", str(resolution.epoch)),),
        ),
        Run("compare installed packages with the resolved ones", ("diff", "-u", "expected", "installed")),
    )


def _operations(stage: Stage, debs: Mapping[str, str]) -> str:
    """Return what the installer does in a stage."""
    lines = []
    for one in stage.rounds:
        files = " ".join(debs[name] for name in one.unpack)
        if stage.name == stages.ESSENTIAL:
            # Answers are there before any package asks but these.
            lines += [f"essential {files}", "answers answers", "configure"]
        else:
            lines += [f"unpack {files}", " ".join(("configure", *one.configure))]
    return "".join(f"{line}\n" for line in lines)


def _stage(number: int, stage: Stage, operations: str, layer: str) -> Plan:
    """Return the steps that install one stage."""
    file, title = f"stages/{number}-{stage.name}", f"install {stage.name}: {len(stage.packages)} packages"
    return (
        Write(f"plan to {title}", file, operations, layer=layer),
        Run(title, ("./install", TREE, file), root=True, layer=layer),
    )


def _automatic(resolution: Resolution) -> str:
    """Return apt's marks of the packages that nobody asked for: apt removes them when nothing needs them."""
    # libapt takes apt itself for essential; what only apt needs goes with it.
    asked = stages.with_dependencies({*resolution.essential} - {"apt"}, resolution)
    asked |= {*resolution.essential, *resolution.required, resolution.config.name, names.KEYRING_PACKAGE}
    # As on a machine where apt installs them with the configuration, what it recommends is removed with it.
    asked |= {*resolution.custom.add}
    architecture = resolution.config.architecture
    return "".join(
        f"Package: {package.name}\nArchitecture: {architecture}\nAuto-Installed: 1\n\n"
        for package in resolution.packages
        if package.name not in asked
    )


def _tools(resolution: Resolution) -> Plan:
    """Return the steps that unpack the missing tools beside the tree, from its suite and the same signed archives."""
    return (
        Write("prepare to run the image's own tools", "in-tree", scripts.text("in-tree"), 0o755),
        # No maintainer script runs: the tree's own dpkg only unpacks the archives.
        *(
            in_tree(
                *(f"unpack the tool {package.name}", resolution.epoch, "dpkg-deb", "--extract"),
                *(f"/mnt/{_DEBS}/{package.deb}", "/mnt/tools"),
            )
            for package in resolution.tools
        ),
    )


def _settings(resolution: Resolution, image: ImageId, debian: Iterable[sources.Source]) -> Plan:
    """Return the steps that write what belongs to this image rather than to any package."""
    config, hostname = resolution.config, resolution.custom.hostname
    first, *others = debian
    if config.suite in names.RELEASES:
        first = replace(first, suites=(*first.suites, f"{config.suite}-backports"))
    return (
        Run(
            "remove what the installation needed",
            ("rm", "-f", *(f"{TREE}/{path}" for path in _LEFT)),
            root=True,
        ),
        _install(
            "set the image's sources",
            "etc/apt/sources.list.d/debian.sources",
            sources.as_deb822((first, *others), types="deb deb-src"),
        ),
        _install("say what image it is", "etc/cloud-release", f'ID={image.config}\nVERSION="{image.serial}"\n'),
        # As an installer does: no package owns this file, and an administrator who chooses another locale changes it
        # (update-locale(8)). From trixie on it is a symlink to /etc/locale.conf, which may not exist yet.
        in_tree("set the default locale", resolution.epoch, "sh", "-c", _DEFAULT_LOCALE),
        *((_install("set the host name", "etc/hostname", f"{hostname}\n"),) if hostname else ()),
        # The first boot makes an id and keeps it. systemd-firstboot(1) sets up the machine only if it finds this
        # word; an empty file is a first boot for cloud-init, but not for systemd (machine-id(5)).
        _install("leave the machine-id to the first boot", "etc/machine-id", _UNINITIALIZED, "0444")
        if config.first_boot == "systemd-firstboot"
        else Run("empty machine-id", ("install", "-m", "0444", "/dev/null", f"{TREE}/etc/machine-id"), root=True),
        Run(
            "point resolv.conf to systemd-resolved",
            ("ln", "-sfn", "../run/systemd/resolve/stub-resolv.conf", f"{TREE}/etc/resolv.conf"),
            root=True,
        ),
    )


def _install(title: str, path: str, text: str, mode: str = "0644") -> Run:
    return Run(title, ("install", "-m", mode, "/dev/stdin", f"{TREE}/{path}"), stdin=text, root=True)


def _boot(layout: Disk) -> Plan:
    """Return the steps that adapt the tree to its disk: its mounts, and GRUB."""
    # A boot that does not find the ESP in time would end in an emergency shell, which nobody can enter: a machine
    # needs the ESP for updates of the boot loader alone. A busy host may take minutes to show it.
    fstab = (
        f"PARTUUID={layout.root.uuid} / ext4 rw,discard,errors=remount-ro,x-systemd.growfs 0 1\n"
        f"PARTUUID={layout.esp.uuid} /boot/efi vfat umask=0077,nofail,x-systemd.device-timeout=10min 0 2\n"
    )
    identities = f"root_partuuid={layout.root.uuid}\nroot_uuid={layout.root_uuid}\n"
    return (
        _install("write fstab", "etc/fstab", fstab),
        Run("make the ESP's mount point", ("mkdir", "-p", f"{TREE}/boot/efi"), root=True),
        Write("identify the disk to grub", "grub-probe.identities", identities),
        Write("prepare grub-probe", "grub-probe", scripts.text("grub-probe"), 0o755),
        Write("prepare grub-setup", "grub-setup", scripts.text("grub-setup"), 0o755),
        Run(
            "configure grub",
            ("./grub-setup", TREE, layout.root.uuid, *(("bios",) if layout.bios else ())),
            root=True,
        ),
    )


def _clean(resolution: Resolution) -> Plan:
    """Return the steps that remove what a machine makes for itself, and every time later than the archive's."""
    config, epoch = resolution.config, resolution.epoch
    kept = dict.fromkeys((*config.keep_secrets, *resolution.custom.keep))
    decided = (*(f"--keep={path}" for path in kept), *(f"--drop={path}" for path in config.drop_secrets))

    def delete(title: str, folders: Iterable[str], *condition: str) -> Run:
        paths = (f"{TREE}/{folder}" for folder in folders)
        return Run(title, ("find", *paths, *condition, "-delete"), root=True)

    return (
        delete("empty run-time directories", ("dev", "run", "tmp", "var/tmp"), "-mindepth", "1"),
        delete(
            "empty logs and caches",
            ("var/log", "var/cache/apt", "var/cache/ldconfig", "var/lib/apt/lists"),
            "-type",
            "f",
        ),
        # systemd-resolved's postinst keeps the resolv.conf that it finds: the building machine's.
        delete("leave out the builder's resolv.conf", ("etc",), "-path", f"{TREE}/etc/.resolv.conf.*.bak"),
        delete(
            "leave out backup and lock files",
            ("etc", "var/lib", "var/cache/debconf"),
            *("-type", "f", "("),
            *("-name", "*-old", "-o", "-name", "*.old", "-o", "-path", f"{TREE}/etc/*-", "-o", "-name", ".pwd.lock"),
            ")",
        ),
        # `identities` has the table of paths that packages make, and the patterns of keys in content.
        Run("leave out secrets and identities", ("debian-cloud", "scrub", *decided, TREE), root=True),
        Run(
            "clamp time stamps",
            ("find", TREE, "-newermt", f"@{epoch}", "-exec", "touch", "-h", "-d", f"@{epoch}", "{}", "+"),
            root=True,
        ),
    )


def _disk(raw: str, layout: Disk, epoch: int) -> Plan:
    return (
        Run("make an empty disk", ("truncate", "-s", str(layout.size), raw)),
        in_tree(
            *("partition it", epoch, "sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--wipe=never"),
            f"/mnt/{raw}",
            stdin=disk_layout.table(layout),
        ),
        *(_bios(raw, layout.bios) if layout.bios else ()),
        *_uefi(raw, layout, epoch),
        *_root(raw, layout, epoch),
    )


def _bios(raw: str, partition: disk_layout.Partition) -> Plan:
    """Install GRUB as grub-bios-setup(8) does, at computed offsets (GRUB's manual, "BIOS installation")."""
    sector = partition.start // disk_layout.SECTOR

    def copy(title: str, image: str, *operands: str) -> Run:
        source = f"if={TREE}/boot/grub/i386-pc/{image}"
        return Run(title, ("dd", source, f"of={raw}", *operands, "conv=notrunc", "status=none"), root=True)

    def patch(title: str, offset: int, data: bytes) -> Run:
        return Run(title, ("dd", f"of={raw}", "bs=1", f"seek={offset}", "conv=notrunc", "status=none"), stdin=data)

    return (
        copy("place GRUB's core image", "core.img", f"bs={disk_layout.SECTOR}", f"seek={sector}"),
        copy("place GRUB's boot sector", "boot.img", "bs=440", "count=1"),
        patch("point the boot sector to the core image", 0x5C, sector.to_bytes(8, "little")),
        # Two NOPs instead of boot.img's jump: it then corrects a wrong drive number from the firmware.
        patch("let it mend the boot drive", 0x66, b"\x90\x90"),
        # grub-mkimage wrote the length and the segment; the start is known only here.
        patch("point the core image to its rest", partition.start + 0x1F4, (sector + 1).to_bytes(8, "little")),
    )


def _uefi(raw: str, layout: Disk, epoch: int) -> Plan:
    """Firmware -> signed shim -> signed GRUB -> EFI/debian/grub.cfg -> /boot/grub/grub.cfg."""
    esp = layout.esp
    at = f"/mnt/{raw}@@{esp.start}"
    grub_cfg = (
        # Byte for byte what grub-install writes, with its space at the end of a line.
        f"search.fs_uuid {layout.root_uuid} root \nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n"
    )
    return (
        in_tree(
            "make the EFI system partition", epoch,
            "mformat", "-i", at, "-F", "-v", "ESP", "-N", layout.esp_serial,
            "-T", str(esp.size // disk_layout.SECTOR),
            "-h", "255", "-s", "63", "-H", str(esp.start // disk_layout.SECTOR), "::",
        ),
        # mformat writes a partition entry into the boot sector and its copy (sector 6): GRUB and the kernel
        # would take the partition for a partitioned disk.
        *(
            Run(
                "take a partition entry out of it",
                (
                    *("dd", "if=/dev/zero", f"of={raw}", "bs=1", "count=16"),
                    *(f"seek={esp.start + sector * disk_layout.SECTOR + 0x1BE}", "conv=notrunc", "status=none"),
                ),
            )
            for sector in (0, 6)
        ),
        in_tree("make its directories", epoch, "mmd", "-i", at, "::EFI", "::EFI/BOOT", "::EFI/debian"),
        *(
            in_tree(f"place {target}", epoch, "mcopy", "-i", at, f"/{source}", f"::{target}")
            for target, source in _ESP_FILES
        ),
        in_tree("place EFI/debian/grub.cfg", epoch, "mcopy", "-i", at, "-", "::EFI/debian/grub.cfg", stdin=grub_cfg),
    )  # fmt: skip


def _root(raw: str, layout: Disk, epoch: int) -> Plan:
    extended = (
        f"offset={layout.root.start},hash_seed={layout.hash_seed},"
        # A sparse file reads as zeros: neither mke2fs nor the first boot need write them.
        "nodiscard,assume_storage_prezeroed=1"
    )
    return (
        Write("set mke2fs's defaults", "mke2fs.conf", _MKE2FS_CONF),
        in_tree(
            *("make the root file system", epoch, "mke2fs", "-q", "-F", "-t", "ext4", "-L", "root"),
            *("-U", layout.root_uuid, "-E", extended, "-d", f"/mnt/{TREE}"),
            *(f"/mnt/{raw}", f"{layout.root.size // 1024}k"),
        ),
        Write("prepare to set its inodes' times", "inode-times", scripts.text("inode-times"), 0o755),
        in_tree("set its inodes' times", epoch, "/mnt/inode-times", f"/mnt/{raw}", str(layout.root.start)),
    )
