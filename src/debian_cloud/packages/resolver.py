# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask apt what there is and what it would install; the only importer of apt.

All components of Debian are read, so that it is known where a package is; an image takes from those that its
configuration names. A package of the archive that Debian has, too, is refused.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Final

import apt_pkg

from debian_cloud import formats, names
from debian_cloud.errors import FAILED, USAGE, Error, did_you_mean, slip
from debian_cloud.image import config
from debian_cloud.image.custom import OFFICIAL, Custom
from debian_cloud.image.lock import preferences
from debian_cloud.image.resolution import Package, Resolution

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from debian_cloud.image.buildinfo import Buildinfo
    from debian_cloud.image.sources import Source

    _Marked = list[tuple[apt_pkg.Package, apt_pkg.Version]]

PREFERENCES: Final = "preferences"
"""Name of the file beside a private apt's apt.conf by which it leaves packages out (apt_preferences(5))."""

NOT_DEBIAN_S: Final = "Debian does not have it: --source FILE.sources takes the signed archive of whoever does"
"""The hint for a package that neither Debian has nor the archive."""

_SECURITY: Final = "Debian-Security"
"""Label of Debian's suites of security updates."""


class Apt:
    """A private apt (`sources.update` made it), read into memory once.

    libapt's configuration is one for the whole process: a process opens one of
    these and no second.
    """

    def __init__(self, root: Path, debian: Iterable[Source], archive: Source, others: Iterable[Source] = ()) -> None:
        """Read what these sources, and no others, gave; Error when one gave another suite than was asked for."""
        self._root = root
        debian, others = tuple(debian), tuple(others)
        apt_pkg.init_config()
        apt_pkg.read_config_file(apt_pkg.config, str(root / "apt.conf"))
        apt_pkg.init_system()
        self._cache = apt_pkg.Cache(None)
        self._records = apt_pkg.PackageRecords(self._cache)
        self.release_files = tuple(
            (source, suite, _release_file(root / "lists", source, suite))
            for source in (*debian, archive, *others)
            for suite in source.suites
        )
        """Each source's and suite's signed release file, as apt has verified it."""
        releases = [_release(*found) for found in self.release_files]
        self._archive = apt_pkg.uri_to_filename(f"{archive.uri.rstrip('/')}/dists/")
        dates = [apt_pkg.str_to_time(release["Date"]) for release in releases]
        self._epoch = max(dates)
        self.debian_epoch = max(dates[: sum(len(source.suites) for source in debian)], default=self._epoch)
        """When the newest of Debian's release files was signed, in seconds since 1970."""
        # By the suite, too: backports, say, are at Debian's own address.
        self._others = {
            apt_pkg.uri_to_filename(f"{source.uri.rstrip('/')}/dists/{suite}/"): source.uri
            for source in others
            for suite in source.suites
        }
        self._without = self._passed_over()
        if self._without:
            self._pin(self._without)

    def configurations(self, suite: str) -> tuple[config.ImageConfig, ...]:
        """Every image configuration there is, sorted by name."""
        return tuple(
            _parsed(version, fields, suite) for version, fields in self._candidates() if config.is_image(fields)
        )

    def configuration(self, name: str, suite: str) -> config.ImageConfig:
        """One image configuration; Error suggests another when there is none of that name."""
        wanted = names.package(names.word(name, "configuration"))
        images = {v.parent_pkg.name: (v, fields) for v, fields in self._candidates() if config.is_image(fields)}
        if wanted not in images:
            there = f"{suite} for {apt_pkg.config.find('APT::Architecture')}"
            raise Error(
                f"no image configuration {names.config(wanted)} in {there}",
                did_you_mean(names.config(wanted), map(names.config, images))
                if images
                else f"the archive has none at all in {there}: choose another --suite or --arch",
                USAGE,
            )
        return _parsed(*images[wanted], suite)

    def resolve(
        self, wanted: config.ImageConfig, custom: Custom = OFFICIAL, lock: Buildinfo | None = None
    ) -> Resolution | None:
        """The exact packages of a configuration, on an empty system, as mmdebstrap's minbase installs it.

        Essential packages come first, then apt and those of priority required,
        then the configuration with the archive's keyring package, if it has one,
        what the configuration itself recommends, and the added packages: apt's
        choices among alternatives depend on what is there already. None when they cannot be
        installed together; Error when a changed package is not there to be
        added, or cannot be left out, and when the configuration depends on
        another image. What was left out once stays so for the process. With a
        lock, apt may take its versions alone: Error when a source lacks one.

        The tools are what `formats.tools` names, with all that they need, beyond
        the image's own packages. A lock has its own.
        """
        self._refuse_another_image(wanted)
        # Where later versions come from is the archive's to say, as Debian's sources are Debian's.
        archive = {names.KEYRING_PACKAGE} & self.known() - {*custom.remove}
        recommended = self._recommended(wanted, lock)
        asked = [wanted.name, *archive, *recommended, *custom.add]
        for name in custom.add:
            self._refuse_addition(name, wanted.suite)
        if custom.remove:
            for name in custom.remove:
                self._refuse_removal(name, wanted.name, wanted.suite)
            whole = self._marked(*asked)
            recommended = tuple(name for name in recommended if name not in custom.remove)
            asked = [name for name in asked if name not in custom.remove]
        if lock is not None:
            self._refuse_gone(lock)
        # What a person leaves out of the image may be needed to make it: before the pins.
        tools = tuple(self.stanzas(lock.tools)) if lock else self._tools(wanted)
        pins = "\n".join(filter(None, (preferences(lock) if lock else "", self._without, custom.preferences)))
        if pins:
            self._pin(pins)
        marked = self._marked(*asked)
        if custom.remove and whole is not None:
            self._refuse_needed(custom, whole, whole if marked is None else marked)
        if marked is None:
            return None
        packages = self._packages(wanted, marked, custom.add)
        there = {package.name for package in packages}
        return Resolution(
            wanted,
            packages,
            lock.epoch if lock else self._epoch,
            sum(version.installed_size for _, version in marked),
            custom,
            tuple(tool for tool in tools if tool.name not in there),
            pins,
            recommended=recommended,
        )

    def _recommended(self, wanted: config.ImageConfig, lock: Buildinfo | None) -> tuple[str, ...]:
        """What the configuration itself recommends, of each group the first that there is; Error when there is none.

        With a lock, what it has of them: it may be of an image that was made without.
        """
        own = self._cache[wanted.name].version_list
        (version,) = (found for found in own if found.ver_str == wanted.version)
        locked = {package.name for package in lock.packages} if lock else self.known()
        found = []
        for alternatives in version.depends_list.get("Recommends", []):
            targets = [target.parent_pkg.name for dependency in alternatives for target in dependency.all_targets()]
            there = [name for name in targets if name in locked]
            if there:
                found.append(there[0])
            elif not lock:
                raise Error(
                    f"{wanted.name} recommends {alternatives[0].target_pkg.name}, which no signed source of"
                    f" {wanted.suite} has",
                    "what a configuration recommends is part of its image: suggest it instead, or leave it out",
                )
        return tuple(dict.fromkeys(found))

    def _tools(self, wanted: config.ImageConfig) -> tuple[Package, ...]:
        """What makes an image, with what every Debian system has; Error when the suite has it not."""
        tools = formats.tools("disk" if wanted.firmware else "tree")
        known = self.known()
        marked = self._marked(*tools) if known.issuperset(tools) else None
        if marked is None:
            raise Error(
                f"{wanted.suite} does not give what an image is made with: {', '.join(tools)}",
                "choose another mirror of Debian: are its indexes whole?",
            )
        return self._packages(wanted, marked)

    def _packages(
        self, wanted: config.ImageConfig, marked: _Marked, asked: Iterable[str] = ()
    ) -> tuple[Package, ...]:
        """What is marked, as data, sorted by name; Error when it may not come from where it does.

        `asked` are the names that a person gave.
        """
        packages: list[Package] = []
        self._refuse_components(wanted, asked, marked)
        for package, version in marked:
            self._refuse_replaced(package, version)
            self._records.lookup(version.file_list[0])
            sha256 = self._records.hashes.find("sha256")
            if sha256 is None:
                raise Error(f"package {package.name} has no SHA-256 in its index", "its archive must be mended")
            packages.append(
                Package(package.name, version.ver_str, version.arch, version.size, str(sha256).partition(":")[2])
            )
        return tuple(sorted(packages, key=lambda p: p.name))

    def _marked(self, *wanted: str) -> _Marked | None:
        """What apt installs to have the wanted packages; None when it cannot have them all."""
        depcache = apt_pkg.DepCache(self._cache)
        depcache.init()
        versions = [(p, v) for p in self._cache.packages if (v := depcache.get_candidate_ver(p)) is not None]
        essential = [p for p, _ in versions if p.essential]
        required = [p for p, v in versions if _is_required(p, v)]
        last = [self._cache[name] for name in wanted]
        for group in (essential, required):
            for package in group:
                depcache.mark_install(package, True, True)  # noqa: FBT003 - (auto_inst, from_user), a C function
        # As `apt-get install` does it: all are chosen before the dependencies of any, so that what is
        # added by name serves as the alternative.
        for auto in (False, True):
            for package in last:
                depcache.mark_install(package, auto, True)  # noqa: FBT003 - as above
        if depcache.broken_count or not all(map(depcache.marked_install, last)):
            return None
        return [(p, v) for p, v in versions if depcache.marked_install(p)]

    def _refuse_gone(self, lock: Buildinfo) -> None:
        """Error when no source has a package of the lock any more, in this version."""
        for package in lock.packages:
            versions = self._cache[package.name].version_list if package.name in self._cache else []
            if not any(version.ver_str == package.version for version in versions):
                raise Error(
                    f"no source has {package.name} {package.version}, which the lock names",
                    "an archive keeps the newest versions alone: take the packages from the image's own closure",
                )

    def _passed_over(self) -> str:
        """The text by which apt takes nothing of other sources that Debian or the archive has, or must have."""
        return "\n".join(
            f"Package: {package.name}\nPin: version {version.ver_str}\nPin-Priority: -1\n"
            for package in (self._cache.packages if self._others else ())
            for version in package.version_list
            if self._is_other_s(version)
            and (
                package.name.startswith(names.OURS)
                # Nobody asks for these, and each image would have them.
                or package.essential
                or _is_required(package, version)
                or not all(map(self._is_other_s, package.version_list))
            )
        )

    def _pin(self, text: str) -> None:
        """Let apt prefer by the text that the build's apt gets, too."""
        path = self._root / PREFERENCES
        path.write_text(text, "utf-8")
        depcache = apt_pkg.DepCache(self._cache)
        depcache.policy.read_pinfile(str(path))  # type: ignore[attr-defined] # the stubs lack it
        # Only now is it known what apt would take: configurations are read before anything is resolved.
        depcache.init()

    def _refuse_another_image(self, wanted: config.ImageConfig) -> None:
        """Error when a configuration, or a layer that it is built on, depends on another image."""
        there = {
            version.parent_pkg.name: (version, config.is_image(fields)) for version, fields in self._candidates()
        }
        waiting, seen = [wanted.name], {wanted.name}
        while waiting:
            name = waiting.pop()
            for alternatives in _depends(there[name][0]):
                targets = [dependency.target_pkg.name for dependency in alternatives]
                others = [target for target in targets if there.get(target, (None, False))[1]]
                if others and wanted.name not in others and len(others) == len(targets):
                    raise Error(
                        f"{name} depends on {others[0]}, which is another image",
                        "an image is one machine: depend on the layers that both share, such as "
                        f"{names.package('common')}",
                    )
                new = {target for target in targets if target in there and target not in seen}
                seen |= new
                waiting += sorted(new)

    def _refuse_unknown(self, name: str, suite: str, status: int, hint: str) -> None:
        """Error when no signed source has a package of this name, whatever unsigned ones have."""
        if name in self._cache and self._cache[name].has_versions:
            return
        if name in self._cache and (provided := self._cache[name].provides_list):
            providers = sorted({version.parent_pkg.name for _, _, version in provided})
            raise Error(
                f"{name} is a virtual package", f"name a package that provides it: {', '.join(providers)}", USAGE
            )
        # Of tens of thousands: a slip seldom changes the first letter, and there is no use in a list of them all.
        meant = slip(name, (other for other in self.known() if other[0] == name[0]))
        raise Error(
            f"no signed source of {suite} has a package {name}",
            f"did you mean {meant}?" if meant else hint,
            status,
        )

    def _refuse_addition(self, name: str, suite: str) -> None:
        # What only an unsigned source has may be meant: that is a failed verification.
        self._refuse_unknown(name, suite, FAILED, NOT_DEBIAN_S)
        if any(v.parent_pkg.name == name and config.is_image(fields) for v, fields in self._candidates()):
            raise Error(
                f"{name} is an image of its own, and cannot be added to another",
                f"debian-cloud build {names.config(name)}",
                USAGE,
            )

    def _refuse_removal(self, name: str, image: str, suite: str) -> None:
        self._refuse_unknown(name, suite, USAGE, "no image has it: leave it out of --remove")
        if name == image:
            raise Error(f"{name} is the image itself", "leave out packages that it depends on", USAGE)
        version = apt_pkg.DepCache(self._cache).get_candidate_ver(self._cache[name])
        if self._cache[name].essential or (version is not None and _is_required(self._cache[name], version)):
            raise Error(
                f"{name} is part of every Debian system", "leave out what is not essential or required", USAGE
            )

    def _refuse_needed(self, custom: Custom, whole: _Marked, rest: _Marked) -> None:
        """Error that names who among the rest depends on a package that was left out of the whole.

        What takes its place must have been there before: leaving vim out is no
        wish for vim-gtk3, which serves as vim, too.
        """
        there = {package.name for package, _ in whole} - {*custom.remove}
        # The project's own packages first: they are what a person can write anew.
        for package, version in sorted(
            rest, key=lambda p: (not p[0].name.startswith(names.PACKAGE_PREFIX), p[0].name)
        ):
            for alternatives in _depends(version) if package.name in there else ():
                targets = {target.parent_pkg.name for d in alternatives for target in d.all_targets()}
                left_out = targets & {*custom.remove}
                if left_out and not targets & there:
                    raise Error(
                        f"{min(left_out)} cannot be removed: {package.name} depends on it",
                        "add by name what takes its place, or make a configuration of your own that goes without: "
                        "debian-cloud new --help",
                    )

    def _refuse_replaced(self, package: apt_pkg.Package, version: apt_pkg.Version) -> None:
        """Error when the archive of configurations, or another source, gives a package that is Debian's.

        It may add packages; what Debian has comes from Debian, whatever version the archive claims.
        """
        if other := self._is_other_s(version):
            if package.name.startswith(names.OURS) or not all(map(self._is_other_s, package.version_list)):
                raise Error(
                    f"the source {other} gives {package.name} {version.ver_str}, which is not its own package",
                    "a source adds packages to Debian's and replaces none",
                )
        elif not self._is_debian_s(version) and any(map(self._is_debian_s, package.version_list)):
            raise Error(
                f"the archive gives {package.name} {version.ver_str}, which is Debian's package",
                "an archive of configurations adds packages and replaces none: remove it there",
            )

    def _is_debian_s(self, version: apt_pkg.Version) -> bool:
        return any(not self._is_archive_s(file) and not self._other(file) for file, _ in version.file_list)

    def _is_other_s(self, version: apt_pkg.Version) -> str:
        """The address of the other source that a version is from, and from no other place; else ""."""
        found = [self._other(file) for file, _ in version.file_list]
        return found[0] if found and all(found) else ""

    def _other(self, file: apt_pkg.PackageFile) -> str:
        name = Path(file.filename).name
        return next((uri for prefix, uri in self._others.items() if name.startswith(prefix)), "")

    def _is_archive_s(self, file: apt_pkg.PackageFile) -> bool:
        return Path(file.filename).name.startswith(self._archive)

    def newer(self, name: str, version: str) -> tuple[str, bool] | None:
        """The newest version of a package, and whether it or one before it is a security update; None: there is none.

        Versions of the archive do not count where Debian has the package: no machine takes those.
        """
        versions = self._cache[name].version_list if name in self._cache else []
        versions = [found for found in versions if self._is_debian_s(found)] or versions
        later = [found for found in versions if apt_pkg.version_compare(found.ver_str, version) > 0]
        if not later:
            return None
        newest = functools.reduce(
            lambda a, b: a if apt_pkg.version_compare(a, b) >= 0 else b, (v.ver_str for v in later)
        )
        return newest, any(file.label == _SECURITY for found in later for file, _ in found.file_list)

    def _refuse_components(self, wanted: config.ImageConfig, asked: Iterable[str], marked: _Marked) -> None:
        """Error when packages are of components that the configuration does not say it takes from."""
        found: dict[str, str] = {}
        for package, version in marked:
            components = {
                file.component
                for file, _ in version.file_list
                if not self._is_archive_s(file) and not self._other(file)
            }
            if components and not components & {*wanted.components}:
                found[package.name] = min(components)
        if not found:
            return
        # What a person named says more than what came along.
        depended = [d.target_pkg.name for v, _ in self._candidates() for group in _depends(v) for d in group]
        name = min(found, key=lambda name: (name not in asked, name not in depended, name))
        needed = [*wanted.components, *(c for c in config.COMPONENTS if c in found.values())]
        takes = ", ".join(wanted.components)
        raise Error(
            f"{name} is in Debian's {found[name]}, and configuration {names.config(wanted.name)} takes packages from"
            f" {takes} alone",
            f"set `Image-Components: {' '.join(needed)}` in a configuration of your own: debian-cloud new --help",
        )

    def stanzas(self, wanted: Iterable[Package]) -> dict[Package, str]:
        """What the signed indexes say of exactly these packages; Error names the first that none has."""
        found: dict[Package, str] = {}
        for package in wanted:
            versions = self._cache[package.name].version_list if package.name in self._cache else []
            for version in versions:
                if version.ver_str != package.version or version.arch != package.architecture:
                    continue
                for file in version.file_list:
                    self._records.lookup(file)
                    if str(self._records.hashes.find("sha256")) == f"SHA256:{package.sha256}":
                        found[package] = self._records.record
            if package not in found:
                raise Error(
                    f"no signed source has {package.name} {package.version} with the SHA-256 {package.sha256}",
                    "Debian's archive keeps the newest versions alone: build the image again",
                )
        return found

    def lacking(self, name: str) -> tuple[str, str] | None:
        """Of what a package brings, the first that depends on what no source has: its name, and what it lacks."""
        depcache = apt_pkg.DepCache(self._cache)
        # The cache has one for all: what could not be installed has lost its candidate there.
        depcache.init()
        waiting, seen = [name], {name}
        while waiting:
            version = depcache.get_candidate_ver(self._cache[waiting[0]])
            name = waiting.pop(0)
            for group in _depends(version) if version else ():
                # Where another version is there, apt's own words say more.
                if not any(d.all_targets() or d.target_pkg.has_versions for d in group):
                    return name, " | ".join(dependency.target_pkg.name for dependency in group)
                # What serves in its place is apt's choice: only what has to come is looked at.
                target = group[0].target_pkg.name
                if len(group) == 1 and target not in seen:
                    seen.add(target)
                    waiting.append(target)
        return None

    def known(self) -> frozenset[str]:
        """The names of all packages that a signed source has."""
        return frozenset(package.name for package in self._cache.packages if package.has_versions)

    def fields(self, name: str) -> dict[str, str]:
        """What the signed index says of a package that is known, of the version that apt would install."""
        self._records.lookup(self._candidate(name).file_list[0])
        section = apt_pkg.TagSection(self._records.record)
        return {field: section[field] for field in section.keys()}  # noqa: SIM118 - a TagSection cannot be iterated

    def components(self, wanted: Iterable[str]) -> dict[str, str]:
        """Package -> the component that apt would take it from, such as main or non-free-firmware."""
        return {name: self._candidate(name).file_list[0][0].component for name in wanted}

    def _candidate(self, name: str) -> apt_pkg.Version:
        version = apt_pkg.DepCache(self._cache).get_candidate_ver(self._cache[name])
        assert version is not None, name  # nothing is pinned away but what a person leaves out
        return version

    def _candidates(self) -> Iterator[tuple[apt_pkg.Version, dict[str, str]]]:
        depcache = apt_pkg.DepCache(self._cache)
        ours = (package for package in self._cache.packages if package.name.startswith(names.PACKAGE_PREFIX))
        for package in sorted(ours, key=lambda p: p.name):
            version = depcache.get_candidate_ver(package)
            if version is not None:
                self._records.lookup(version.file_list[0])
                section = apt_pkg.TagSection(self._records.record)
                yield version, {field: section[field] for field in section.keys()}  # noqa: SIM118 - a TagSection cannot be iterated


def _release_file(lists: Path, source: Source, suite: str) -> Path:
    uri = f"{source.uri.rstrip('/')}/dists/{suite}"
    # apt takes Release with Release.gpg where there is no InRelease.
    paths = (lists / apt_pkg.uri_to_filename(f"{uri}/{name}") for name in ("InRelease", "Release"))
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        raise Error(f"apt has no signed release file of {suite} from {source.uri}", "is the mirror whole?")
    return path


def _release(source: Source, suite: str, path: Path) -> dict[str, str]:
    """The fields that tell what the release file of a suite is; apt has verified it.

    Error when it is, rightly signed, another suite's: apt only warns of that.
    """
    found = dict.fromkeys(("Date", "Suite", "Codename"), "")
    for line in path.read_text("utf-8").splitlines():
        field, _, value = line.partition(": ")
        if field in found:
            found[field] = value.strip()
        if line.startswith("SHA256:"):
            break
    if not found["Date"]:
        raise Error(f"the release file of {suite} from {source.uri} has no Date", "its archive must be mended")
    if suite not in (found["Suite"], found["Codename"]):
        raise Error(
            f"{source.uri} gives the suite {found['Codename'] or found['Suite']} for {suite}",
            "its InRelease is signed, but it is another's: choose another mirror",
        )
    return found


def _is_required(package: apt_pkg.Package, version: apt_pkg.Version) -> bool:
    """Whether mmdebstrap's minbase has a package besides the essential ones."""
    return package.name == "apt" or version.priority_str == "required"


def _depends(version: apt_pkg.Version) -> list[list[apt_pkg.Dependency]]:
    """What a version needs to work: groups of alternatives."""
    return [group for kind in ("PreDepends", "Depends") for group in version.depends_list.get(kind, [])]


def _parsed(version: apt_pkg.Version, fields: dict[str, str], suite: str) -> config.ImageConfig:
    return config.parse(
        fields,
        name=version.parent_pkg.name,
        version=version.ver_str,
        architecture=version.arch,
        suite=suite,
        description=fields.get("Description", "").partition("\n")[0],
    )
