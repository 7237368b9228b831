# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets and machine identities that installing a package creates, and that no image may contain.

Everybody who gets an image can read all of it, and all machines made from it would share them. Some are recognized by
their path (the table), others by their content.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from debian_cloud.image.generated import NOTED, Patterns

RENEWAL: Final = "usr/lib/debian-cloud/renew"
"""Program of the layer `common` that, at the first boot, generates again what RENEWED lists."""
RENEWED: Final = NOTED[-1]
"""List of the packages, one per line, whose identities the image lacks until its first boot."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A secret or identity that a package creates when it is installed; `paths` are as in `generated.GENERATED`.

    `renewed` is what generates it again on each machine: RENEWAL, or a path of the tree that does so by itself; "" if
    nothing does, and then the image is refused.
    """

    package: str
    what: str
    renewed: str
    paths: tuple[str, ...]


IDENTITIES: Final = (
    # Generated again by software that is in the image anyway.
    Identity(
        "openssh-server",
        "host keys",
        "usr/lib/systemd/system/ssh.service.d/debian-cloud.conf",
        ("etc/ssh/ssh_host_*",),
    ),
    Identity("systemd", "a random seed", "usr/lib/systemd/systemd-random-seed", ("var/lib/systemd/random-seed",)),
    Identity(
        "systemd", "the key of its credentials", "usr/bin/systemd-creds", ("var/lib/systemd/credential.secret",)
    ),
    Identity("dbus", "the machine's id", "usr/lib/tmpfiles.d/dbus.conf", ("var/lib/dbus/machine-id",)),
    Identity("network-manager", "a host's key", "usr/sbin/NetworkManager", ("var/lib/NetworkManager/secret_key",)),
    Identity(
        "rabbitmq-server",
        "the cookie that lets nodes in",
        "usr/lib/rabbitmq/bin/rabbitmq-server",
        ("var/lib/rabbitmq/.erlang.cookie",),
    ),
    # Generated again by the layer `common`.
    Identity("bind9", "the key that controls it", RENEWAL, ("etc/bind/rndc.key",)),
    Identity("dropbear", "host keys", RENEWAL, ("etc/dropbear/dropbear_*_host_key", "etc/dropbear/dropbear_*.pub")),
    Identity("munge", "the key of its realm", RENEWAL, ("etc/munge/munge.key",)),
    Identity("nsd", "the keys that control it", RENEWAL, ("etc/nsd/nsd_*.key", "etc/nsd/nsd_*.pem")),
    Identity("nvme-cli", "the host's names", RENEWAL, ("etc/nvme/hostnqn", "etc/nvme/hostid")),
    Identity("open-iscsi", "the initiator's name", RENEWAL, ("etc/iscsi/initiatorname.iscsi",)),
    # Berkeley DB generates a random number for each file.
    Identity("postfix", "a database with a number of its own", RENEWAL, ("etc/aliases.db",)),
    Identity(
        "ssl-cert",
        "a key, with a certificate of the host's name",
        RENEWAL,
        ("etc/ssl/private/ssl-cert-snakeoil.key", "etc/ssl/certs/ssl-cert-snakeoil.pem"),
    ),
    # Generated only once, by a maintainer script: the configuration must decide.
    Identity("backuppc", "a password", "", ("etc/backuppc/htpasswd",)),
    Identity("bacula-common", "passwords", "", ("etc/bacula/common_default_passwords",)),
    Identity("bacula-fd", "a password", "", ("etc/bacula/bacula-fd.conf",)),
    Identity("dropbear-initramfs", "host keys", "", ("etc/dropbear/initramfs/dropbear_*",)),
    Identity("ejabberd", "a private key", "", ("etc/ejabberd/ejabberd.pem",)),
    Identity("etckeeper", "the history of a machine's settings", "", ("etc/.git/**",)),
    Identity("ircd-hybrid", "a private key", "", ("etc/ircd-hybrid/key/*",)),
    Identity("mailman3", "passwords", "", ("etc/mailman3/mailman.cfg",)),
    Identity("mariadb-server", "a database with its identity", "", ("var/lib/mysql/**",)),
    Identity("popularity-contest", "the host's id", "", ("etc/popularity-contest.conf",)),
    Identity("postgresql-common", "a database with its identity", "", ("var/lib/postgresql/**",)),
    Identity("roundcube-core", "a key", "", ("etc/roundcube/config.inc.php",)),
    Identity("slapd", "a directory with its password", "", ("etc/ldap/slapd.d/**", "var/lib/ldap/**")),
    Identity("tripwire", "keys", "", ("etc/tripwire/*.key",)),
    Identity("xrdp", "private keys", "", ("etc/xrdp/rsakeys.ini",)),
)
"""All known identities; the first whose paths match counts."""

BY_LAYER: Final = frozenset({"openssh-server"} | {known.package for known in IDENTITIES if known.renewed == RENEWAL})
"""The packages whose identities RENEWAL can generate again."""


_PATTERNS: Final = Patterns(path for known in IDENTITIES for path in known.paths)
_OF_PATTERN: Final = tuple(known for known in IDENTITIES for _ in known.paths)


def identity(path: str) -> Identity | None:
    """The first identity in the table whose paths match a path; None if there is none."""
    line = _PATTERNS.first(path)
    return None if line is None else _OF_PATTERN[line]


# An armour's first line (RFC 7468, RFC 4716, RFC 9580). A text that only quotes it, such as a manual, has no key
# after it.
_ARMOUR: Final = re.compile(
    rb"-{4,5} ?BEGIN [A-Z0-9 ]{0,40}(?:PRIVATE KEY(?: BLOCK)?|SSH2 ENCRYPTED PRIVATE KEY) ?-{4,5}"
)
_BEHIND: Final = 1024
"""Bytes after that line in which its fields and the beginning of the key are searched for."""
_LINE: Final = re.compile(rb"(?:[\r\n]|\\r|\\n)+")
"""The end of a line, also as an escape sequence in source code."""
_FIELD: Final = re.compile(rb"\s*[A-Za-z-]+: ")
_KEY: Final = re.compile(rb"[A-Za-z0-9+/=\s]{40}")
# Secrets anywhere in a file: what it is, a string for a quick search, and the complete pattern.
_ANYWHERE: Final = (
    ("a shared key (OpenVPN)", b"BEGIN OpenVPN", re.compile(rb"BEGIN OpenVPN Static key V1-{5}\s+[0-9a-f]{32}")),
    ("a private key (age)", b"AGE-SECRET-KEY-1", re.compile(rb"AGE-SECRET-KEY-1[02-9AC-HJ-NP-Z]{58}")),
    (
        "a key (WireGuard)",
        b"Key",
        re.compile(rb"(?m)^[ \t]*(?:Private|Preshared)Key[ \t]*=[ \t]*[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]="),
    ),
    ("a key (TSIG)", b"secret", re.compile(rb"(?m)^[^#/\n]*\bsecret[ \t]+\"?[A-Za-z0-9+/]{22,}={0,2}\"?[ \t]*;")),
    ("a private key (JSON)", b'"kty"', re.compile(rb"\"(?:d|k)\"\s*:\s*\"[A-Za-z0-9_-]{16,}\"")),
)
# Secrets at the beginning of a file. Binary ones begin with lengths, then the type of content in DER or OpenPGP.
_BEGINNINGS: Final = tuple(
    (what, re.compile(shape, re.DOTALL))
    for what, shape in (
        ("a private key (PuTTY)", rb"PuTTY-User-Key-File-[0-9]+:"),
        ("a private key (DNSSEC)", rb"Private-key-format: v1"),
        ("a private key (signify)", rb"untrusted comment: [^\n]*secret key\n"),
        (
            "a private key (GnuPG)",
            rb"(?:Created: [^\n]*\n)?(?:Key: )?\((?:[0-9]+:)?(?:protected-|shadowed-)?private-key",
        ),
        ("a private key (Dropbear)", rb"\0\0\0[\x07\x0b\x13](?:ssh-rsa|ssh-dss|ssh-ed25519|ecdsa-sha2-nistp)"),
        (
            "a private key (OpenPGP)",
            rb"(?:\x94.|\x95..|\xc5(?:[\xc0-\xdf].|\xff.{4}|[^\xc0-\xff]))[\x04-\x06].{4}[\x01-\x1c]",
        ),
        ("a private key (PKCS #1)", rb"0(?:\x81.|\x82..)\x02\x01[\0\x01]\x02(?:\x81.|\x82..|[\x20-\x7f])"),
        ("a private key (PKCS #8)", rb"0(?:[\x20-\x7f]|\x81.|\x82..)\x02\x01[\0\x01]0.{1,2}\x06"),
        ("a private key (PKCS #8)", rb"0(?:\x81.|\x82..)0.\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d"),
        ("a private key (SEC 1)", rb"0(?:[\x20-\x7f]|\x81.|\x82..)\x02\x01\x01\x04[\x10-\x50]"),
        # An object identifier of PKCS #12, and the tag of JKS: a store without them has only certificates.
        ("a private key (PKCS #12)", rb"0[\x80-\x84](?=.*\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01[\x01\x02])"),
        ("a private key (Java)", rb"\xfe\xed\xfe\xed\0\0\0[\x01\x02]....\0\0\0\x01"),
    )
)

# A name, a colon, and a crypt(5) hash, locked or not; systemd's "unprovisioned" looks like the oldest kind of hash.
_HASHED: Final = re.compile(
    rb"(?m)^(?P<who>[A-Za-z0-9_][A-Za-z0-9_.@-]*):[!*]*(?:\$[0-9a-z-]{1,8}\$[^:\s]{8,}|_[A-Za-z0-9./]{19}|(?!unprovisioned)[A-Za-z0-9./]{13}(?=:))"
)
_PASSWORDS: Final = ("etc/shadow", "etc/gshadow", "etc/passwd", "etc/group", "etc/shadow-", "etc/gshadow-")
_ANSWERS: Final = "var/cache/debconf/passwords.dat"
_ANSWERED: Final = re.compile(rb"(?m)^Name: (?P<who>[^\n]+)\n(?:(?!Value:|Name:)[^\n]+\n)*Value: [^\n]")
_UUID: Final = re.compile(
    rb"(?<![0-9A-Za-z])[0-9a-f]{8}-[0-9a-f]{4}-[14][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}(?![0-9A-Za-z])", re.I
)


def secret(path: str, content: bytes) -> str:
    """A description of the secret that a file's content has; "" if none is known."""
    if content.find(b"BEGIN ") >= 0 and _is_armoured(content):
        return "a private key"
    for what, word, shape in _ANYWHERE:
        if content.find(word) >= 0 and shape.search(content):
            return what
    for what, shape in _BEGINNINGS:
        if shape.match(content):
            return what
    if path.endswith(_PASSWORDS) and (hashed := _HASHED.search(content)):
        return f"the password of {hashed['who'].decode()}, hashed"
    if path == _ANSWERS and (answered := _ANSWERED.search(content)):
        return f"the answer to the question {answered['who'].decode(errors='replace')}"
    return ""


def _is_armoured(content: bytes) -> bool:
    for found in _ARMOUR.finditer(content):
        lines = _LINE.split(content[found.end() : found.end() + _BEHIND])
        if _KEY.match(b"\n".join(line for line in lines if not _FIELD.match(line)).lstrip()):
            return True
    return False


def host_id(content: bytes) -> bool:
    """Whether a text has a random or time-based UUID (RFC 9562, versions 1 and 4)."""
    return bool(_UUID.search(content))
