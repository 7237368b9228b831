# SPDX-License-Identifier: GPL-3.0-or-later
"""The paths of an image that no package ships, each with what generates it.

A maintainer script creates a file, instead of dpkg, if its content depends on the machine or is merged from several
packages. Links of update-alternatives(1) are not listed: dpkg's database has them.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

GENERATED: Final = (
    # debian-cloud's builder: files of this disk that belong to no package
    ("boot/efi", "builder: where the EFI system partition is mounted"),
    ("boot/grub", "builder: as grub-install(8) does"),
    ("boot/grub/fonts", "builder: as grub-install(8) does"),
    ("boot/grub/i386-pc", "builder: as grub-install(8) does"),
    ("boot/grub/i386-pc/core.img", "builder: GRUB's core, as grub-mkimage(1) makes it"),
    ("boot/grub/x86_64-efi", "builder: as grub-install(8) does"),
    ("boot/grub/grub.cfg", "builder: as update-grub(8) does"),
    ("boot/grub/grubenv", "builder: as grub-editenv(1) does"),
    ("etc/apt/sources.list.d/debian.sources", "builder: Debian's mirror, and the suite's parts"),
    ("etc/cloud-release", "builder: which image it is"),
    ("etc/fstab", "builder: the disk's partitions"),
    ("etc/grub.d/enable_cloud", "builder: lets upgrades of grub-cloud-* install themselves"),
    ("etc/machine-id", "builder: empty, the first boot fills it"),
    ("etc/resolv.conf", "builder: systemd-resolved's"),
    # the system's databases
    ("etc/passwd", "base-passwd, then adduser(8) and systemd-sysusers(8)"),
    ("etc/group", "base-passwd, then adduser(8) and systemd-sysusers(8)"),
    ("etc/shadow", "shadowconfig(8)"),
    ("etc/gshadow", "shadowconfig(8)"),
    ("etc/subuid", "passwd"),
    ("etc/subgid", "passwd"),
    ("etc/security/opasswd", "libpam-runtime"),
    ("etc/shells", "update-shells(8)"),
    ("etc/pam.d/common-*", "pam-auth-update(8)"),
    ("etc/nsswitch.conf", "base-files, then libnss-*"),
    ("etc/environment", "libpam-modules"),
    # base-files and similar: initial contents, which belong to the administrator afterwards
    ("etc/dpkg/origins/default", "base-files"),
    ("etc/motd", "base-files"),
    ("etc/profile", "base-files"),
    ("etc/opt", "base-files"),
    ("etc/mtab", "base-files"),
    ("etc/inputrc", "readline-common"),
    ("etc/hosts", "netbase"),
    ("etc/networks", "netbase"),
    ("etc/hosts.allow", "libwrap0"),
    ("etc/hosts.deny", "libwrap0"),
    ("etc/localtime", "tzdata"),
    ("etc/timezone", "tzdata"),
    ("etc/default/locale", "debian-cloud; from systemd 257 on a link"),
    ("etc/locale.conf", "debian-cloud-config-common, from systemd 257 on"),
    ("etc/vconsole.conf", "systemd, from 257 on: keyboard-configuration's by another name"),
    ("etc/locale.gen", "libc-bin"),
    ("etc/ssh/sshd_config", "openssh-server, by ucf(1)"),
    ("etc/apt/apt.conf.d/20auto-upgrades", "unattended-upgrades, by ucf(1)"),
    ("etc/apt/apt.conf.d/50unattended-upgrades", "unattended-upgrades, by ucf(1)"),
    ("etc/apt/listchanges.conf", "apt-listchanges, by ucf(1)"),
    ("etc/chrony/chrony.conf", "chrony, by ucf(1)"),
    ("etc/chrony/chrony.keys", "chrony, by ucf(1)"),
    ("etc/python3", "python3-minimal"),
    ("etc/python3/debian_config", "python3-minimal"),
    ("etc/modules", "kmod"),
    ("etc/initramfs-tools/modules", "initramfs-tools-core"),
    ("etc/apparmor.d/local/*", "dh_apparmor(1): for the administrator's additions"),
    ("etc/apparmor.d/tunables/home.d/ubuntu", "apparmor"),
    ("etc/apparmor.d/tunables/xdg-user-dirs.d/site.local", "apparmor"),
    # enabled services
    ("etc/rc?.d/[KS]??*", "update-rc.d(8)"),
    ("etc/systemd/system/*.wants", "deb-systemd-helper(1), systemctl preset"),
    ("etc/systemd/system/*.wants/*", "deb-systemd-helper(1), systemctl preset"),
    ("etc/systemd/system/*.service", "deb-systemd-helper(1): other names of a service"),
    ("etc/systemd/user/*.wants", "deb-systemd-helper(1)"),
    ("etc/systemd/user/*.wants/*", "deb-systemd-helper(1)"),
    ("etc/runit/runsvdir/default/ssh", "openssh-server, by runit-helper"),
    ("etc/tmpfiles.d/screen-cleanup.conf", "screen"),
    ("usr/lib/systemd/system/screen-cleanup.service", "screen"),
    # indexes and caches of installed packages
    ("etc/ld.so.cache", "ldconfig(8)"),
    ("etc/ca-certificates.conf", "update-ca-certificates(8)"),
    ("etc/ssl/certs/*", "update-ca-certificates(8)"),
    ("etc/sgml/catalog", "update-catalog(8)"),
    ("etc/xml/*", "update-xmlcatalog(8)"),
    ("usr/lib/python3**/__pycache__", "py3compile(1)"),
    ("usr/lib/python3**/__pycache__/*.pyc", "py3compile(1)"),
    ("usr/share/**/__pycache__", "py3compile(1)"),
    ("usr/share/**/__pycache__/*.pyc", "py3compile(1)"),
    ("usr/lib/modules/*/modules.*", "depmod(8)"),
    ("usr/lib/udev/hwdb.bin", "systemd-hwdb(8)"),
    ("usr/share/info/dir", "install-info(1)"),
    ("boot/initrd.img-*", "update-initramfs(8), dracut(8)"),
    # databases of dpkg, debconf and similar
    ("var/lib/dpkg", "dpkg"),
    ("var/lib/dpkg/*", "dpkg: its database"),
    ("var/lib/dpkg/alternatives/*", "update-alternatives(1)"),
    ("var/lib/dpkg/info/*.list", "dpkg: the paths of a package"),
    ("var/lib/dpkg/info/*.md5sums", "dpkg: of a package that has none of its own"),
    ("var/lib/dpkg/info/format", "dpkg"),
    ("var/lib/dpkg/triggers", "dpkg"),
    ("var/lib/dpkg/triggers/*", "dpkg: who waits for which trigger"),
    ("var/lib/dpkg/updates", "dpkg"),
    ("var/lib/apt/*", "apt: which packages came along"),
    ("var/lib/apt/lists/partial", "apt"),
    ("var/cache/apt/archives/partial", "apt"),
    ("var/cache/debconf/*", "debconf(7)"),
    ("var/lib/ucf/*", "ucf(1)"),
    ("var/lib/ucf/cache/*", "ucf(1): the files as they came"),
    ("var/lib/pam/*", "pam-auth-update(8)"),
    ("var/lib/python", "python3-minimal"),
    ("var/lib/python/*", "python3-minimal"),
    ("var/lib/sgml-base/supercatalog", "update-catalog(8)"),
    ("var/lib/xml-core/*", "update-xmlcatalog(8)"),
    ("var/lib/shells.state", "update-shells(8)"),
    ("var/lib/man-db/auto-update", "man-db"),
    ("var/lib/systemd/**", "systemd, deb-systemd-helper(1)"),
    ("var/lib/private", "systemd-tmpfiles(8)"),
    ("var/lib/libuuid", "uuid-runtime"),
    ("var/log/README", "systemd-tmpfiles(8)"),
    ("var/log/journal", "systemd-tmpfiles(8)"),
    ("var/log/private", "systemd-tmpfiles(8)"),
    ("var/log/unattended-upgrades", "unattended-upgrades"),
    # links and directories of base-files, created once
    ("var/lock", "base-files"),
    ("var/mail", "base-files"),
    ("var/opt", "base-files"),
    ("var/run", "base-files"),
    ("var/spool/mail", "base-files"),
    ("media", "base-files"),
    ("mnt", "base-files"),
    ("opt", "base-files"),
    ("srv", "base-files"),
    ("root/.bashrc", "base-files"),
    ("root/.profile", "base-files"),
    ("root/.ssh", "systemd-tmpfiles(8)"),
    # files that a package ships with another owner, mode or capability
    ("etc/credstore", "systemd-tmpfiles(8)"),
    ("etc/credstore.encrypted", "systemd-tmpfiles(8)"),
    ("etc/polkit-1/rules.d", "polkitd"),
    ("etc/sudoers", "sudo"),
    ("usr/lib/dbus-1.0/dbus-daemon-launch-helper", "dbus, by dpkg-statoverride(1)"),
    ("usr/lib/polkit-1/polkit-agent-helper-1", "polkitd"),
    ("usr/bin/ssh-agent", "openssh-client"),
    # links to the kernel, and files that exist from the beginning
    ("initrd.img", "linux-base: linux-update-symlinks"),
    ("initrd.img.old", "linux-base: linux-update-symlinks"),
    ("vmlinuz", "linux-base: linux-update-symlinks"),
    ("vmlinuz.old", "linux-base: linux-update-symlinks"),
    ("lost+found", "mke2fs(8)"),
    ("var/lib/wtmpdb", "wtmpdb"),
    ("var/lib/wtmpdb/*", "wtmpdb"),
    # indexes of manual pages, and of vim's help
    ("usr/share/vim/vim*/doc/*.vim-tiny", "vim-runtime, by dpkg-divert(1)"),
    ("var/cache/man/**", "mandb(8)"),
    ("var/cache/private", "systemd-tmpfiles(8)"),
    # the administrator's directories, empty
    ("usr/local", "base-files"),
    ("usr/local/**", "base-files and others: empty directories (Debian policy 9.1.2)"),
)
"""Path -> what generates it. `*` matches within one directory, `**` across directories."""

ASKED_FOR: Final = (("etc/hostname", "builder: the host name that was asked for"),)
"""The same for paths that only an option of `build` adds; no official image has them."""

NOTED: Final = ("var/lib/debian-cloud", "var/lib/debian-cloud/renew")
"""Paths where the builder records what the first boot generates again; only in images with packages that do so."""

GENERATED_ON_ESP: Final = (
    ("", "builder: the EFI system partition's root"),
    ("EFI", "builder: directories as firmware and shim know them (UEFI 13.3.1.3)"),
    ("EFI/BOOT", "builder: directories as firmware and shim know them (UEFI 13.3.1.3)"),
    ("EFI/debian", "builder: directories as firmware and shim know them (UEFI 13.3.1.3)"),
    ("EFI/debian/grub.cfg", "builder: leads signed GRUB to /boot/grub/grub.cfg"),
)
"""The same for the EFI system partition; everything else there is copied from packages."""

_COPIES: Final = (
    # copied by the builder as by grub-install(8)
    "boot/grub/fonts/*.pf2",
    "boot/grub/i386-pc/*",
    "boot/grub/x86_64-efi/*",
    # linux-base, from forky on: the kernel and its configuration, from /usr/lib/modules
    "boot/config-*",
    "boot/vmlinuz-*",
)

_ALTERNATIVES: Final = "/etc/alternatives/"
_WILD: Final = re.compile(r"(\*\*|\*|\?|\[[^]]*\])")


def matches(pattern: str, path: str) -> bool:
    """Whether a path matches a pattern of the table."""
    return _compiled(pattern).fullmatch(path) is not None


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    words = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = _WILD.split(pattern)
    return re.compile("".join(words.get(part, part if part.startswith("[") else re.escape(part)) for part in parts))


class Patterns:
    """Patterns of which the first that a path matches is found without trying all: images have many paths."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._exact: dict[str, int] = {}
        self._below: dict[str, list[tuple[int, re.Pattern[str]]]] = {}
        for index, pattern in enumerate(patterns):
            if _WILD.search(pattern):
                top = pattern.partition("/")[0]
                self._below.setdefault("" if _WILD.search(top) else top, []).append((index, _compiled(pattern)))
            else:
                self._exact.setdefault(pattern, index)

    def first(self, path: str) -> int | None:
        """The index of the first pattern that a path matches; None if it matches none."""
        found = [self._exact[path]] if path in self._exact else []
        for top in (path.partition("/")[0], ""):
            for index, pattern in self._below.get(top, ()):
                if pattern.fullmatch(path):
                    found.append(index)
                    break
        return min(found, default=None)


_LINES: Final = (*GENERATED, *ASKED_FOR)
_GENERATED: Final = Patterns(pattern for pattern, _ in _LINES)
_COPIED: Final = Patterns(_COPIES)


def is_copy(path: str) -> bool:
    """Whether a path of the root file system is a copy of a file that a package ships elsewhere."""
    return _COPIED.first(path) is not None


def generator(path: str, target: str = "", *, esp: bool = False) -> str:
    """What generates a path that no package ships as it is; "" if the path is not in the tables.

    `target` is the target of a symlink: update-alternatives(1) creates only links, from generic names to its
    directory, and from there to a package's file. With `esp`, the path is on the EFI system partition.
    """
    if esp:
        return next((made_by for known, made_by in GENERATED_ON_ESP if known == path), "")
    if target and (path.startswith(_ALTERNATIVES[1:]) or target.startswith(_ALTERNATIVES)):
        return "update-alternatives(1)"
    if path in NOTED:
        return "builder: what the first boot makes again"
    line = _GENERATED.first(path)
    return "" if line is None else _LINES[line][1]
