# SPDX-License-Identifier: GPL-3.0-or-later
"""A build plan as data: its steps, their text as a shell script, and their identity.

Paths are relative to the workspace.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import asdict, dataclass
from typing import Final

ENVIRONMENT: Final = {"LC_ALL": "C.UTF-8", "TZ": "UTC", "DEBIAN_FRONTEND": "noninteractive"}
"""Variables that every step gets, whatever the user's environment is."""

KEPT: Final = ("PATH", "HOME", "http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "APT_CONFIG", "TMPDIR")
"""Variables of the user's environment that a step gets too: to find programs and to reach the network."""

HOSTNAME: Final = "localhost"
"""Host name that every root step sees, whatever the machine's is."""

_UNSHARED: Final = ("unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc")
# The kernel's default for no NIS domain is "(none)" (domainname(1)).
_NAMED: Final = ("sh", "-c", f'hostname {HOSTNAME} && domainname "(none)" && exec "$@"', "sh")

NAMESPACE: Final = (*_UNSHARED, *_NAMED)
"""Command prefix that runs a step in its own mount, PID and UTS namespaces: its mounts end with it."""
NAMESPACE_USER: Final = (*_UNSHARED, "--user", "--map-root-user", "--map-auto", *_NAMED)
"""The same for an ordinary user: inside, the user is root and owns all its subordinate ids (subuid(5))."""


TREE: Final = "tree"
"""Directory of the workspace that holds the image's root file system."""

_WIDTH: Final = 100
"""Columns of a printed script; a longer word gets a line of its own."""


@dataclass(frozen=True, slots=True)
class Run:
    """One process: an argument list, run in the workspace.

    `stdin` is its input, as text or as bytes; `root` steps run as root in a namespace of their own. `env` is added to
    ENVIRONMENT. `layer` is the id of what the tree contains after the step, if that can be kept for other builds.
    """

    title: str
    argv: tuple[str, ...]
    stdin: str | bytes = ""
    root: bool = False
    env: tuple[tuple[str, str], ...] = ()
    layer: str = ""


@dataclass(frozen=True, slots=True)
class Write:
    """One text file in the workspace; its directory is created.

    Only the step that makes `layer` needs it, if this is given.
    """

    title: str
    path: str
    text: str
    mode: int = 0o644
    layer: str = ""


Step = Run | Write
Plan = tuple[Step, ...]


def in_tree(title: str, epoch: int, *argv: str, stdin: str | bytes = "") -> Run:
    """A step that runs a tool of the image's own suite (`scripts/in-tree`), which sees the workspace as /mnt."""
    return Run(title, ("./in-tree", TREE, *argv), stdin=stdin, root=True, env=(("SOURCE_DATE_EPOCH", str(epoch)),))


def plan_id(plan: Plan) -> str:
    """The SHA-256 of the complete plan: plans with equal ids do the same."""
    steps = [{type(step).__name__: asdict(step)} for step in plan]
    return hashlib.sha256(json.dumps(steps, sort_keys=True, default=bytes.hex).encode()).hexdigest()


def as_shell(plan: Plan, workspace: str, about: str) -> str:
    """The plan as a POSIX shell script that does the same in a new directory `workspace`."""
    lines = [
        "#!/bin/sh",
        # shellcheck takes the variables of commands in arguments as the script's own.
        "# shellcheck disable=SC2016",
        *(f"# {line}".rstrip() for line in about.splitlines()),
        "set -eu",
        "umask 022",
        "# Of the caller's environment no more is seen than is named here.",
        "for name in $(env | sed -n 's/^\\([A-Za-z_][A-Za-z0-9_]*\\)=.*/\\1/p'); do",
        # bash cannot unset the last two.
        f'    case $name in {" | ".join((*KEPT, "PWD", "SHELLOPTS", "BASHOPTS"))}) ;; *) unset "$name" ;; esac',
        "done",
        *(f"export {name}={shlex.quote(value)}" for name, value in ENVIRONMENT.items()),
        "PATH=$PATH:/usr/sbin:/sbin",
        "",
        "# Root steps run in namespaces of their own: mounts end with them, and no privilege is needed.",
        'if [ "$(id -u)" = 0 ]; then',
        f'    as_root() {{ {shlex.join(NAMESPACE)} "$@"; }}',
        "else",
        "    # Where it is forbidden, this says so; with --map-auto, a process of unshare(1) would wait for ever.",
        f"    {shlex.join(word for word in NAMESPACE_USER if word != '--map-auto')} true",
        f'    as_root() {{ {shlex.join(NAMESPACE_USER)} "$@"; }}',
        "fi",
        "",
        f"mkdir {shlex.quote(workspace)}",
        f"cd {shlex.quote(workspace)}",
    ]
    for number, step in enumerate(plan, 1):
        lines += ["", f"# {number}. {step.title}", _shell(step)]
    return "\n".join(lines) + "\n"


def _shell(step: Step) -> str:
    if isinstance(step, Write):
        path = shlex.quote(step.path)
        folder = step.path.rpartition("/")[0]
        lines = [f"mkdir -p {shlex.quote(folder)}"] if folder else []
        lines.append(_here_document(f"cat > {path}", step.text))
        if step.mode != 0o644:
            lines.append(f"chmod {step.mode:o} {path}")
        return "\n".join(lines)
    # An assignment before a function does not work as before a command (POSIX 2.9.1): env(1) sets the variables.
    words = ["as_root"] if step.root else []
    if step.env:
        words += ["env", *(f"{name}={shlex.quote(value)}" for name, value in step.env)]
    command = " ".join([*words, _wrapped(step.argv)])
    if isinstance(step.stdin, bytes):
        return f"printf {shlex.quote(''.join(f'{chr(92)}{byte:03o}' for byte in step.stdin))} | {command}"
    return _here_document(command, step.stdin) if step.stdin else f"{command} < /dev/null"


def _wrapped(argv: tuple[str, ...]) -> str:
    """The arguments joined, with line breaks only between words."""
    lines = [""]
    for word in map(shlex.quote, argv):
        if lines[-1] and len(lines[-1]) + len(word) > _WIDTH:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return " \\\n    ".join(lines)


def _here_document(command: str, text: str) -> str:
    mark = "END"
    while f"\n{mark}\n" in f"\n{text}":
        mark += "_"
    return f"{command} <<'{mark}'\n{text}{'' if text.endswith(chr(10)) else chr(10)}{mark}"
