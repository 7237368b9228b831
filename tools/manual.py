# SPDX-License-Identifier: GPL-3.0-or-later
"""Make debian-cloud(1) from the docstrings of the verbs, and debian-cloud-config(5) from the table of fields.

`python3 -m tools.manual` prints roff (man(7)); the package's build calls it.
`--fields` prints the page of the fields, `--completion` the verbs and their
options for bash.
"""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING, Final

from debian_cloud import VERSION, cli, formats, names
from debian_cloud.build import store
from debian_cloud.image import config, identities
from debian_cloud.machines.qemu import bases
from debian_cloud.packages import cache

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_HEAD: Final = f"""\
.\\" Made from the verbs' docstrings.
.TH DEBIAN\\-CLOUD 1 "" "debian\\-cloud {VERSION}" "Debian Cloud"
.SH NAME
debian\\-cloud \\- build, verify and fetch Debian images that are packages
.SH SYNOPSIS
.B debian\\-cloud
.I VERB
.RI [ ARGUMENT \\&...]
.br
.B debian\\-cloud \\-\\-version
.SH DESCRIPTION
An image configuration is a Debian binary package,
.BI debian\\-cloud\\-config\\- NAME\\fR.
Its dependencies are the image's packages, its files are the image's settings,
its Image\\-* fields say what disk is made.
.B debian\\-cloud
makes images of such packages, and finds, fetches and verifies those that an
archive has published.
"""
_INSTANCES: Final = """\
The package
.B debian\\-cloud\\-machines
has these. An instance is one machine that was started from an image; a target is where
instances run, and
.B local
is this machine.
"""
_TAIL: Final = f"""\
.SH FILES
.TP
.I ~/.config/debian\\-cloud/*.sources
Archives of image configurations that this user knows, in apt's own format
(sources.list(5), DEB822\\-STYLE FORMAT), below
.B XDG_CONFIG_HOME
if that is set.
.B debian\\-cloud\\-archive init \\-\\-own
writes such a file. Each stanza has the fields Types, URIs (one), Suites, Components
and Signed\\-By (the absolute path of a keyring, or the key itself in its armour), and
may have Enabled; any other field, and any that is there twice, is refused. A file, or a
keyring that it names, is refused if a user other than this one and root owns it, can write
to it, or can replace it. If such a file names the suite,
.BR build ", " plan ", " list ", " show
and all other verbs that read configurations use its archive without
.B \\-\\-archive
and
.BR \\-\\-keyring ,
and prefer it to the one whose keyring package is installed: that is the machine's, and this
the user's. The two options override both.
.B list \\-\\-images
lists its images before those that the machine's apt knows, and
.B fetch
takes an image from there if it has one of that configuration; both read its signed
indexes anew.
.BR verify " and " rebuild
use its keys before those of the keyring package, and of both archives the one whose key
signed the image. If such an archive is on this machine and published an image with
exactly the .buildinfo that is given, they take signed sums and closure from there.
.TP
.I ~/.cache/debian\\-cloud
The indexes of the archives that were read last, what apt resolved from them, keyrings
that were given, packages that were fetched, and layers: the trees of images after each stage
of their installation.
.B cache list
shows them, and
.B \\-\\-offline
needs nothing else.
It is below
.B XDG_CACHE_HOME
if that is set, and for root in
.IR /var/cache/debian\\-cloud .
At most {cache.BOUND >> 30} GiB stay there, besides {cache.BOUND_OF_DEBS >> 30} of packages and
{store.BOUND >> 30} of layers: what was used least recently goes first. All of it may be removed while no
.B debian\\-cloud
runs.
.TP
.I ~/.local/state/debian\\-cloud
The instances of this user on the target
.BR local ,
each in
.IR instances/ NAME ,
the images that they were started from, the key that they let in, and disks that outlive
them. It is below
.B XDG_STATE_HOME
if that is set. Images that no instance has take at most {bases.BOUND >> 30} GiB.
.TP
.IR ~/.config/debian\\-cloud/targets.d/ NAME .target
.TQ
.IR /etc/debian\\-cloud/targets.d/ NAME .target
Other targets:
.BR targets .
.SH ENVIRONMENT
.TP
.B DEBIAN_CLOUD_ACCEL
.B kvm
or
.BR tcg :
how instances on this machine run, instead of what was found by trying.
.SH EXIT STATUS
.TP
.B 0
Success.
.TP
.B 1
Failure, or verification or policy refused it.
.TP
.B 2
Wrong use.
.TP
.BR 129 ", " 130 ", " 143
Its terminal was closed
.RB ( SIGHUP ),
it was interrupted
.RB ( SIGINT )
or terminated
.RB ( SIGTERM );
incomplete files are removed.
.PP
An error is one sentence, and a hint on what to do.
.SH SEE ALSO
.BR debian\\-cloud\\-archive (1),
.BR debian\\-cloud\\-mirror (1),
.BR debian\\-cloud\\-config (5),
.BR apt (8),
.BR dpkg (1)
"""

_FIELDS_HEAD: Final = f"""\
.\\" Made from the table of fields.
.TH DEBIAN\\-CLOUD\\-CONFIG 5 "" "debian\\-cloud {VERSION}" "Debian Cloud"
.SH NAME
debian\\-cloud\\-config \\- a Debian package that is the configuration of an image
.SH DESCRIPTION
An image configuration is a binary package,
.BI debian\\-cloud\\-config\\- NAME\\fR,
and nothing else: its dependencies are installed, its files are the settings, and its
.B Image\\-*
fields define what is made of it.
.PP
It
.BR Provides ,
.B Conflicts
and
.B Replaces
.BR debian\\-cloud\\-config :
one machine has one configuration, and installing another turns the machine
into that other one. What several configurations share is in
.IR layers ,
packages of the same kind without those fields, on which they depend:
.B debian\\-cloud\\-config\\-common
on every machine,
.B debian\\-cloud\\-config\\-cloud
if users log in by SSH,
.B debian\\-cloud\\-config\\-cloud\\-init
if cloud\\-init configures it.
.PP
Its image has what it depends on and what it recommends itself; a machine may
remove the latter. What other packages recommend is not installed.
.PP
Its files are drop\\-ins: in
.I /usr/lib
if they are read there, otherwise in a
.I *.d
directory of
.IR /etc .
It edits no file of another package, diverts none, and asks nothing.
.B debian\\-cloud lint
checks this, and
.B debian\\-cloud new
writes the source of a new one.
.SH FIELDS
In
.I debian/control
each is written with
.B XB\\-
before it
.RB ( XB\\-Image\\-Size ),
which dpkg removes. Several words are separated by blanks.
"""
_FIELDS_TAIL: Final = """\
.SH EXAMPLE
.EX
Package: debian\\-cloud\\-config\\-hpc
Architecture: amd64
Section: admin
Provides: debian\\-cloud\\-config
Conflicts: debian\\-cloud\\-config
Replaces: debian\\-cloud\\-config
Depends: ${misc:Depends},
         debian\\-cloud\\-config\\-common, debian\\-cloud\\-config\\-cloud,
         debian\\-cloud\\-config\\-cloud\\-init,
         linux\\-image\\-amd64, grub\\-cloud\\-amd64, slurmd
XB\\-Image\\-Size: 8G
XB\\-Image\\-Format: raw qcow2
XB\\-Image\\-Firmware: bios uefi
XB\\-Image\\-Drivers: virtio
XB\\-Image\\-Console: ttyS0
XB\\-Image\\-Memory: 2G
XB\\-Image\\-First\\-Boot: cloud\\-init
XB\\-Image\\-User: debian
XB\\-Image\\-Datasource: NoCloud None
Description: Debian image configuration: nodes of a cluster
 What generic has, and Slurm's daemon.
.EE
.SH SEE ALSO
.BR debian\\-cloud (1),
.BR deb\\-control (5)
"""


_SECRETS: Final = """\
.SH SECRETS AND IDENTITIES
Everybody who gets an image can read all of it, and all machines that are made of
it have the same content. What packages make for one machine when they are installed is
therefore not in an image. It is removed if each machine can make it again at its first boot:
.B debian\\-cloud\\-renew.service
of
.B debian\\-cloud\\-config\\-common
does so for the packages that the builder has noted in
.IR /var/lib/debian\\-cloud/renew ,
and for no others. What exists by then stays.
.PP
Anything else whose path or content shows that it is a secret ends the build: a
private key in any armour or binary form, in the tree or in the initrd, the hash
of a password, an answer to a question of debconf for a password, a file that no
package ships and that its maintainer script has made unreadable for others, a random
identifier in /etc or /var/lib. What packages ship themselves is public.
A configuration decides with
.B Image\\-Drop\\-Secrets
and
.BR Image\\-Keep\\-Secrets .
"""


def fields() -> str:
    """The page of the fields."""
    page = [_FIELDS_HEAD]
    for name, field in config.FIELDS.items():
        text = f"{field.meaning[:1].upper()}{field.meaning[1:]}."
        words = f" One of: {', '.join(field.words)}." if field.single else f" Any of: {', '.join(field.words)}."
        sizes = f" From {field.sizes[0]} to {field.sizes[1]}."
        text += (words if field.words else "") + (sizes if field.sizes[0] else "")
        page.append(f".TP\n.B {escape(name)}\n{line(text)}\n")
    page.append(_SECRETS)
    for title, renewed in (("Made again at the first boot", True), ("To be decided on", False)):
        page.append(f".SS {title}\n")
        for known in identities.IDENTITIES:
            if bool(known.renewed) is renewed:
                paths = ", ".join(f"/{path}" for path in known.paths)
                page.append(f".TP\n.B {escape(known.package)}\n{line(f'{known.what}: {paths}')}\n")
    page.append(_FIELDS_TAIL)
    return "".join(page)


def manual() -> str:
    """The complete page."""
    page = [_HEAD]
    machines = cli.of_machines()
    others = tuple(name for name in cli.names() if name not in machines)
    for verbs, title, more in (
        (others, "VERBS", ""),
        (machines, "VERBS FOR INSTANCES", _INSTANCES),
        (cli.of_plans(), "VERBS OF A PLAN", ""),
    ):
        page.append(f".SH {title}\n{more}")
        page.extend(section(name, cli.verb(name).__doc__, cli.parser(name)) for name in verbs)
    page.append(_TAIL)
    return "".join(page)


def section(name: str, docstring: str, parser: argparse.ArgumentParser) -> str:
    """One verb: how it is called, what it does, what its arguments mean."""
    usage = " ".join(parser.format_usage().removeprefix("usage:").split())
    lines = [f".SS {escape(name)}", f".B {escape(usage)}", ".PP", *_prose(docstring)]
    for action in _actions(parser):
        lines += [".TP", f".B {escape(_label(action))}", *_prose(_help(action, parser))]
    return "\n".join(lines) + "\n"


def completion() -> str:
    """A line for each verb that people use, as debian-cloud.bash-completion reads it.

    `VERB @KIND @words=WORD,WORD --flag --option= --option=VALUE,VALUE --option=@KIND`.
    """
    return "".join(f"{' '.join((name, *_words(name, cli.parser(name))))}\n" for name in cli.names())


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments, without --help, which every verb has."""
    for action in parser._actions:  # noqa: SLF001 - argparse lists them nowhere else
        if action.dest != "help" and action.help is not argparse.SUPPRESS:
            yield action


def _words(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in _actions(parser):
        if not action.option_strings:
            if action.choices:
                yield f"@words={','.join(map(str, action.choices))}"
                continue
            for word in _value(action).split("|"):
                # The name for a new configuration does not exist yet.
                kinds = {"CONFIG": "@configurations", **({"NAME": "@instances"} if name in cli.of_machines() else {})}
                yield kinds.get(word, "@files")
        for option in action.option_strings:
            if option.startswith("--"):
                yield option if action.nargs == 0 else f"{option}={','.join(_values(name, action))}"


def _values(name: str, action: argparse.Action) -> Iterable[str]:
    """The values of an option: words, or their kind; empty for a file or free text."""
    if action.choices:
        return map(str, action.choices)
    if action.metavar == "CONFIG":
        return ("@configurations",)
    if action.metavar == "TARGET":
        return ("@targets",)
    # With any other verb, the serial does not exist yet.
    if name == "fetch" and action.dest == "serial":
        return ("@serials",)
    return {"suite": (*names.RELEASES,), "arch": names.ARCHITECTURES, "format": formats.names()}.get(action.dest, ())


def _label(action: argparse.Action) -> str:
    """`-o, --output DIR`, or the name of a positional argument."""
    value = _value(action)
    if not action.option_strings:
        return value
    return ", ".join(action.option_strings) + (f" {value}" if action.nargs != 0 else "")


def _value(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    if action.metavar:
        return " ".join(action.metavar)
    return "|".join(map(str, action.choices)) if action.choices else action.dest.upper()


def _help(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    """The argument's help, with argparse's %(default)s and the like filled in."""
    text = (action.help or "") % {**vars(action), "prog": parser.prog}
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""


def _prose(text: str) -> Iterator[str]:
    """Paragraphs of a docstring; indented lines, such as examples, are not filled."""
    for number, paragraph in enumerate(_paragraphs(text)):
        if paragraph[0].startswith((" ", "\t")):
            yield from (".PP", ".EX", *map(line, paragraph), ".EE")
        else:
            if number:
                yield ".PP"
            yield from map(line, paragraph)


def _paragraphs(text: str) -> Iterable[list[str]]:
    return [block.splitlines() for block in re.split(r"\n[ \t]*\n", text.strip("\n")) if block.strip()]


def line(text: str) -> str:
    """A line of text: a leading dot or quote would be a request."""
    return plain(escape(text))


def plain(roff: str) -> str:
    """An escaped line, protected from being read as a request."""
    return f"\\&{roff}" if roff.startswith((".", "'")) else roff


def escape(text: str) -> str:
    r"""Text as roff takes it: \e is a backslash, \- the hyphen that can be copied into a shell."""
    return text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")


def main(argv: Sequence[str]) -> int:
    """Print the page, or the words for completion, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python3 -m tools.manual", description=__doc__)
    parser.add_argument("--completion", action="store_true", help="verbs and options, for bash")
    parser.add_argument("--fields", action="store_true", help="the page of the fields")
    args = parser.parse_args(argv)
    sys.stdout.write(completion() if args.completion else fields() if args.fields else manual())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
