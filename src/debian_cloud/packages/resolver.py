# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask apt which packages exist and what it would install; the only importer of apt.

All components of Debian are read, so that the component of each package is known; an image takes packages only from
those that its configuration names. A package of the archive that Debian also has is refused.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import apt_pkg

from debian_cloud import formats, names
from debian_cloud.errors import FAILED, USAGE, Error, did_you_mean, slip
from debian_cloud.image import config
from debian_cloud.image.custom import OFFICIAL, Custom
from debian_cloud.image.lock import preferences
from debian_cloud.image.resolution import Needs, Package, Resolution
from debian_cloud.packages import cache

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from debian_cloud.image.buildinfo import Buildinfo
    from debian_cloud.image.sources import Source
    from debian_cloud.packages.releases import Release

    _Marked = list[tuple[apt_pkg.Package, apt_pkg.Version]]

PREFERENCES: Final = "preferences"
"""Name of the file of pins beside a private apt's apt.conf (apt_preferences(5))."""

NOT_DEBIAN_S: Final = "Debian does not have it: add a signed archive that has it with --source FILE.sources"
"""The hint for a package that neither Debian nor the archive has."""

_SECURITY: Final = "Debian-Security"
"""Label of Debian's suites of security updates."""


class Apt:
    """A private apt (`sources.update` made it), read into memory once.

    libapt has one configuration for each process: a process must open only one of these.
    """

    def __init__(
        self, root: Path, releases: Iterable[Release], archive: Source, others: Iterable[Source] = ()
    ) -> None:
        """Read the indexes of these release files: of Debian's sources, of the archive, and of other sources."""
        self._root = root
        others = tuple(others)
        apt_pkg.init_config()
        apt_pkg.read_config_file(apt_pkg.config, str(root / "apt.conf"))
        apt_pkg.init_system()
        self._cache = _opened(root / "cache")
        self.binary_cache = apt_pkg.config.find("Dir::Cache::pkgcache")
        """Name of the file of apt's binary cache; empty if it cannot be written."""
        self._records = apt_pkg.PackageRecords(self._cache)
        self._sources = apt_pkg.SourceList()
        self._sources.read_main_list()
        self._archive = apt_pkg.uri_to_filename(f"{archive.uri.rstrip('/')}/dists/")
        dates = [(release.source, apt_pkg.str_to_time(release.field("Date"))) for release in releases]
        self._epoch = max(date for _, date in dates)
        of_debian = (date for source, date in dates if source not in (archive, *others))
        self.debian_epoch = max(of_debian, default=self._epoch)
        """When the newest of Debian's release files was signed, in seconds since 1970."""
        # The suite is part of the key: backports, for example, are at Debian's own address.
        self._others = {
            apt_pkg.uri_to_filename(f"{source.uri.rstrip('/')}/dists/{suite}/"): source.uri
            for source in others
            for suite in source.suites
        }
        self._offered: tuple[_Marked, list[apt_pkg.Package], list[apt_pkg.Package]] | None = None
        """What can be installed: all, what is essential, and what is required. Only pins change it."""
        self._without = self._passed_over()
        if self._without:
            self._pin(self._without)

    def configurations(self, suite: str) -> tuple[config.ImageConfig, ...]:
        """Return every image configuration, sorted by name."""
        return tuple(
            _parsed(version, fields, suite) for version, fields in self._candidates() if config.is_image(fields)
        )

    def configuration(self, name: str, suite: str) -> config.ImageConfig:
        """Return an image configuration; if there is none of that name, Error suggests another."""
        wanted = names.package(names.word(name, "configuration"))
        images = {v.parent_pkg.name: (v, fields) for v, fields in self._candidates() if config.is_image(fields)}
        if wanted not in images:
            there = f"{suite} for {apt_pkg.config.find('APT::Architecture')}"
            raise Error(
                f"no image configuration {names.config(wanted)} in {there}",
                did_you_mean(names.config(wanted), map(names.config, images))
                if images
                else f"the archive has no configurations in {there}: choose another --suite or --arch",
                USAGE,
            )
        return _parsed(*images[wanted], suite)

    def resolve(
        self, wanted: config.ImageConfig, custom: Custom = OFFICIAL, lock: Buildinfo | None = None
    ) -> Resolution | None:
        """Return the exact packages of a configuration on an empty system.

        Essential packages come first, then apt and those of priority required, then the configuration with the
        archive's keyring package, if it has one, what the configuration itself recommends, and the added packages:
        apt's choices among alternatives depend on what is already selected. Return None if they cannot be installed
        together. Raise Error if a package to add does not exist, if a package to remove cannot be removed, or if the
        configuration depends on another image. A removed package stays removed for the rest of the process. With a
        lock, apt may take only its versions: raise Error if no source has one of them.

        The tools are those that `formats.tools` names, with all their dependencies, except the image's own packages.
        A lock has its own tools.
        """
        self._refuse_another_image(wanted)
        # The archive decides where its later versions come from, as Debian does for its own.
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
        # Resolve tools before the pins: a package that the user removes from the image may be needed to make it.
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
            essential=tuple(sorted(package.name for package, _ in marked if package.essential)),
            required=tuple(sorted(p.name for p, version in marked if not p.essential and _is_required(p, version))),
            needs=_needs(marked),
        )

    def _recommended(self, wanted: config.ImageConfig, lock: Buildinfo | None) -> tuple[str, ...]:
        """Return what the configuration recommends, of each group the first that exists; raise Error if none does.

        With a lock, return those that the lock has: its image may have been made without them.
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
                    "recommended packages are part of the image: suggest it instead, or remove it from Recommends",
                )
        return tuple(dict.fromkeys(found))

    def _tools(self, wanted: config.ImageConfig) -> tuple[Package, ...]:
        """Return the tools that make an image, with what every Debian system has; raise Error if one is missing."""
        tools = formats.tools("disk" if wanted.firmware else "tree")
        known = self.known()
        marked = self._marked(*tools) if known.issuperset(tools) else None
        if marked is None:
            raise Error(
                f"{wanted.suite} lacks tools that make an image: {', '.join(tools)}",
                "choose another mirror of Debian: its indexes may be incomplete",
            )
        return self._packages(wanted, marked)

    def _packages(
        self, wanted: config.ImageConfig, marked: _Marked, asked: Iterable[str] = ()
    ) -> tuple[Package, ...]:
        """Return the marked packages, sorted by name; raise Error if one comes from a source that must not give it.

        `asked` are the names that the user gave.
        """
        packages: list[Package] = []
        self._refuse_components(wanted, asked, marked)
        for package, version in marked:
            self._refuse_replaced(package, version)
            self._records.lookup(version.file_list[0])
            sha256 = self._records.hashes.find("sha256")
            if sha256 is None:
                raise Error(f"package {package.name} has no SHA-256 in its index", "its archive must be repaired")
            packages.append(
                Package(
                    package.name,
                    version.ver_str,
                    version.arch,
                    version.size,
                    str(sha256).partition(":")[2],
                    uri=self._uri(version.file_list[0][0]),
                )
            )
        return tuple(sorted(packages, key=lambda p: p.name))

    def _uri(self, file: apt_pkg.PackageFile) -> str:
        """Return where apt fetches the package at whose stanza in an index `_records` is."""
        return str(self._sources.find_index(file).archive_uri(self._records.filename))

    def _marked(self, *wanted: str) -> _Marked | None:
        """Return what apt installs for the wanted packages; None if it cannot install all of them."""
        depcache = apt_pkg.DepCache(self._cache)
        depcache.init()
        if self._offered is None:
            versions = [(p, v) for p in self._cache.packages if (v := depcache.get_candidate_ver(p)) is not None]
            essential = [p for p, _ in versions if p.essential]
            self._offered = versions, essential, [p for p, v in versions if _is_required(p, v)]
        versions, essential, required = self._offered
        last = [self._cache[name] for name in wanted]
        # Without it, each call looks for packages that nothing needs any more, among all that there are.
        together = apt_pkg.ActionGroup(depcache)
        for group in (essential, required):
            for package in group:
                depcache.mark_install(package, True, True)  # noqa: FBT003 - (auto_inst, from_user), a C function
        # As `apt-get install` does: select all before the dependencies of any, so that a package added by name
        # is chosen among alternatives.
        for auto in (False, True):
            for package in last:
                depcache.mark_install(package, auto, True)  # noqa: FBT003 - as above
        together.release()  # type: ignore[attr-defined] # the stubs lack it
        if depcache.broken_count or not all(map(depcache.marked_install, last)):
            return None
        return [(p, v) for p, v in versions if depcache.marked_install(p)]

    def _refuse_gone(self, lock: Buildinfo) -> None:
        """Raise Error if no source still has a package of the lock in its version."""
        for package in lock.packages:
            versions = self._cache[package.name].version_list if package.name in self._cache else []
            if not any(version.ver_str == package.version for version in versions):
                raise Error(
                    f"no source has {package.name} {package.version}, which the lock lists",
                    "an archive keeps only the newest versions: take the packages from the image's own closure",
                )

    def _passed_over(self) -> str:
        """Return pins by which apt takes nothing from other sources that Debian or the archive has, or must have."""
        return "\n".join(
            f"Package: {package.name}\nPin: version {version.ver_str}\nPin-Priority: -1\n"
            for package in (self._cache.packages if self._others else ())
            for version in package.version_list
            if self._is_other_s(version)
            and (
                package.name.startswith(names.OURS)
                # These are not requested, and would be in each image.
                or package.essential
                or _is_required(package, version)
                or not all(map(self._is_other_s, package.version_list))
            )
        )

    def _pin(self, text: str) -> None:
        """Let apt use these pins, which the build's apt also gets."""
        path = self._root / PREFERENCES
        path.write_text(text, "utf-8")
        depcache = apt_pkg.DepCache(self._cache)
        depcache.policy.read_pinfile(str(path))  # type: ignore[attr-defined] # the stubs lack it
        # Compute the candidates now: configurations are read before anything is resolved.
        depcache.init()
        self._offered = None

    def _refuse_another_image(self, wanted: config.ImageConfig) -> None:
        """Raise Error if a configuration, or a layer that it is built on, depends on another image."""
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
        """Raise Error if no signed source has a package of this name, even if an unsigned one has it."""
        if name in self._cache and self._cache[name].has_versions:
            return
        if name in self._cache and (provided := self._cache[name].provides_list):
            providers = sorted({version.parent_pkg.name for _, _, version in provided})
            raise Error(
                f"{name} is a virtual package", f"name a package that provides it: {', '.join(providers)}", USAGE
            )
        # There are tens of thousands: a typing error seldom changes the first letter, and a list of all is useless.
        meant = slip(name, (other for other in self.known() if other[0] == name[0]))
        raise Error(
            f"no signed source of {suite} has the package {name}",
            f"did you mean {meant}?" if meant else hint,
            status,
        )

    def _refuse_addition(self, name: str, suite: str) -> None:
        # The user may mean a package that only an unsigned source has: that is a failed verification.
        self._refuse_unknown(name, suite, FAILED, NOT_DEBIAN_S)
        if any(v.parent_pkg.name == name and config.is_image(fields) for v, fields in self._candidates()):
            raise Error(
                f"{name} is an image of its own, and cannot be added to another",
                f"build it by itself: debian-cloud build {names.config(name)}",
                USAGE,
            )

    def _refuse_removal(self, name: str, image: str, suite: str) -> None:
        self._refuse_unknown(name, suite, USAGE, "no image has it: omit it from --remove")
        if name == image:
            raise Error(f"{name} is the image itself", "remove packages that it depends on", USAGE)
        version = apt_pkg.DepCache(self._cache).get_candidate_ver(self._cache[name])
        if self._cache[name].essential or (version is not None and _is_required(self._cache[name], version)):
            raise Error(
                f"{name} is part of every Debian system",
                "remove only packages that are not essential or required",
                USAGE,
            )

    def _refuse_needed(self, custom: Custom, whole: _Marked, rest: _Marked) -> None:
        """Raise Error that names a package of `rest` that depends on one that was removed from `whole`.

        A replacement must have been in `whole`: removing vim is not a request for vim-gtk3, which also provides vim.
        """
        there = {package.name for package, _ in whole} - {*custom.remove}
        # The project's own packages first: they are those that a user can rewrite.
        for package, version in sorted(
            rest, key=lambda p: (not p[0].name.startswith(names.PACKAGE_PREFIX), p[0].name)
        ):
            for alternatives in _depends(version) if package.name in there else ():
                targets = {target.parent_pkg.name for d in alternatives for target in d.all_targets()}
                left_out = targets & {*custom.remove}
                if left_out and not targets & there:
                    raise Error(
                        f"{min(left_out)} cannot be removed: {package.name} depends on it",
                        "add a replacement by name, or create a configuration of your own without it: "
                        "debian-cloud new --help",
                    )

    def _refuse_replaced(self, package: apt_pkg.Package, version: apt_pkg.Version) -> None:
        """Raise Error if the archive of configurations, or another source, gives a package that is Debian's.

        It may add packages; what Debian has comes from Debian, whatever version the archive claims.
        """
        if other := self._is_other_s(version):
            if package.name.startswith(names.OURS) or not all(map(self._is_other_s, package.version_list)):
                raise Error(
                    f"the source {other} provides {package.name} {version.ver_str}, which is not its own package",
                    "an added source may not replace packages of Debian or of the archive",
                )
        elif not self._is_debian_s(version) and any(map(self._is_debian_s, package.version_list)):
            raise Error(
                f"the archive provides {package.name} {version.ver_str}, which is Debian's package",
                "an archive of configurations may not replace Debian's packages: remove it there",
            )

    def _is_debian_s(self, version: apt_pkg.Version) -> bool:
        return any(not self._is_archive_s(file) and not self._other(file) for file, _ in version.file_list)

    def _is_other_s(self, version: apt_pkg.Version) -> str:
        """Return the address of the other source, if a version is only in other sources; else ""."""
        found = [self._other(file) for file, _ in version.file_list]
        return found[0] if found and all(found) else ""

    def _other(self, file: apt_pkg.PackageFile) -> str:
        name = Path(file.filename).name
        return next((uri for prefix, uri in self._others.items() if name.startswith(prefix)), "")

    def _is_archive_s(self, file: apt_pkg.PackageFile) -> bool:
        return Path(file.filename).name.startswith(self._archive)

    def newer(self, name: str, version: str) -> tuple[str, bool] | None:
        """Return the newest version of a package, and whether it or one before it is a security update.

        Return None if there is no newer version. Versions of the archive are ignored if Debian has the package: no
        machine takes those.
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
        """Raise Error if packages are of components that the configuration does not name."""
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
        # Prefer to name what the user named over what was installed as a dependency.
        depended = [d.target_pkg.name for v, _ in self._candidates() for group in _depends(v) for d in group]
        name = min(found, key=lambda name: (name not in asked, name not in depended, name))
        needed = [*wanted.components, *(c for c in config.COMPONENTS if c in found.values())]
        takes = ", ".join(wanted.components)
        raise Error(
            f"{name} is in Debian's {found[name]}, but configuration {names.config(wanted.name)} takes packages only"
            f" from {takes}",
            f"set `Image-Components: {' '.join(needed)}` in a configuration of your own: debian-cloud new --help",
        )

    def stanzas(self, wanted: Iterable[Package]) -> dict[Package, str]:
        """Return the stanzas of exactly these packages in the signed indexes; Error names the first that none has."""
        found: dict[Package, str] = {}
        for package in wanted:
            versions = self._cache[package.name].version_list if package.name in self._cache else []
            for version in versions:
                if version.ver_str != package.version or version.arch != package.architecture:
                    continue
                for file in version.file_list:
                    self._records.lookup(file)
                    if str(self._records.hashes.find("sha256")) == f"SHA256:{package.sha256}":
                        found[replace(package, uri=self._uri(file[0]))] = self._records.record
            if package not in found:
                raise Error(
                    f"no signed source has {package.name} {package.version} with the SHA-256 {package.sha256}",
                    "Debian's archive keeps only the newest versions: build the image again",
                )
        return found

    def lacking(self, name: str) -> tuple[str, str] | None:
        """Return the first of a package and its dependencies that needs what no source has, and what it needs."""
        depcache = apt_pkg.DepCache(self._cache)
        # All DepCaches share the cache's state: a package that could not be installed has lost its candidate there.
        depcache.init()
        waiting, seen = [name], {name}
        while waiting:
            version = depcache.get_candidate_ver(self._cache[waiting[0]])
            name = waiting.pop(0)
            for group in _depends(version) if version else ():
                # If another version exists, apt's own message says more.
                if not any(d.all_targets() or d.target_pkg.has_versions for d in group):
                    return name, " | ".join(dependency.target_pkg.name for dependency in group)
                # apt chooses among alternatives: only a dependency without alternatives is followed.
                target = group[0].target_pkg.name
                if len(group) == 1 and target not in seen:
                    seen.add(target)
                    waiting.append(target)
        return None

    def known(self) -> frozenset[str]:
        """Return the names of all packages that a signed source has."""
        return self._known

    @functools.cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(package.name for package in self._cache.packages if package.has_versions)

    @functools.cached_property
    def _configurations(self) -> list[apt_pkg.Package]:
        """All packages that are named like configurations, sorted by name."""
        found = (package for package in self._cache.packages if package.name.startswith(names.PACKAGE_PREFIX))
        return sorted(found, key=lambda package: package.name)

    def fields(self, name: str) -> dict[str, str]:
        """Return the fields that the signed index has for a known package, of the version that apt would install."""
        self._records.lookup(self._candidate(name).file_list[0])
        section = apt_pkg.TagSection(self._records.record)
        return {field: section[field] for field in section.keys()}  # noqa: SIM118 - a TagSection cannot be iterated

    def components(self, wanted: Iterable[str]) -> dict[str, str]:
        """Return package -> the component that apt would take it from, such as main or non-free-firmware."""
        return {name: self._candidate(name).file_list[0][0].component for name in wanted}

    def _candidate(self, name: str) -> apt_pkg.Version:
        version = apt_pkg.DepCache(self._cache).get_candidate_ver(self._cache[name])
        assert version is not None, name  # pins exclude only what the user removes
        return version

    def _candidates(self) -> Iterator[tuple[apt_pkg.Version, dict[str, str]]]:
        depcache = apt_pkg.DepCache(self._cache)
        for package in self._configurations:
            version = depcache.get_candidate_ver(package)
            if version is not None:
                self._records.lookup(version.file_list[0])
                section = apt_pkg.TagSection(self._records.record)
                yield version, {field: section[field] for field in section.keys()}  # noqa: SIM118 - a TagSection cannot be iterated


def _opened(folder: Path) -> apt_pkg.Cache:
    """Return apt's cache, from its file if that is of these indexes, otherwise made of the indexes and written to it.

    Raise Error if the indexes cannot be read. The file is in `folder`, which only this process uses.
    """
    cache.remove_unfinished(folder)
    try:
        try:
            return apt_pkg.Cache(None)
        except apt_pkg.Error:
            # The disk may be full: apt can do without the file.
            cache.remove_unfinished(folder)
            apt_pkg.config.set("Dir::Cache::pkgcache", "")
            return apt_pkg.Cache(None)
    except apt_pkg.Error as error:
        raise Error(f"apt cannot read the package indexes\n{error}", "choose another mirror, or try again") from None


def _is_required(package: apt_pkg.Package, version: apt_pkg.Version) -> bool:
    """Return whether a package is one that every Debian system has in addition to the essential ones."""
    return package.name == "apt" or version.priority_str == "required"


def _depends(version: apt_pkg.Version) -> list[list[apt_pkg.Dependency]]:
    """Return the dependencies of a version, as groups of alternatives."""
    return [group for kind in ("PreDepends", "Depends") for group in version.depends_list.get(kind, [])]


def _needs(marked: _Marked) -> dict[str, Needs]:
    """Return what each marked package needs of the others; alternatives are in the order of the field."""
    there = {package.name: version for package, version in marked}

    def groups(version: apt_pkg.Version, kind: str) -> tuple[tuple[str, ...], ...]:
        return tuple(
            tuple(
                dict.fromkeys(
                    target.parent_pkg.name
                    for dependency in alternatives
                    for target in dependency.all_targets()
                    if there.get(target.parent_pkg.name) == target
                )
            )
            for alternatives in version.depends_list.get(kind, [])
        )

    return {name: Needs(groups(version, "PreDepends"), groups(version, "Depends")) for name, version in there.items()}


def _parsed(version: apt_pkg.Version, fields: dict[str, str], suite: str) -> config.ImageConfig:
    return config.parse(
        fields,
        name=version.parent_pkg.name,
        version=version.ver_str,
        architecture=version.arch,
        suite=suite,
        description=fields.get("Description", "").partition("\n")[0],
    )
