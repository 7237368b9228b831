# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys: how one replaces another, what happens when one is lost, and how several sign together."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from debian_cloud.errors import Error
from debian_cloud.host import sign
from debian_cloud.text import openpgp
from tests.archive.clients import machine
from tests.archive.conftest import Archive, Key, Maker, Template, run
from tests.command import SOURCE, STEP
from tests.mirror.tree import Mirror, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.archive.clients import Apt

PRESET = Path("/usr/lib/gnupg/gpg-preset-passphrase")
LOOPBACK = ("--passphrase", "", "--pinentry-mode", "loopback")
PACKAGE = "debian-cloud-archive-keyring"


def states(archive: Archive) -> dict[str, str]:
    """Fingerprint -> state, as in conf/keys."""
    lines = (line.split() for line in (archive.path / "conf/keys").read_text().splitlines() if line[0] != "#")
    return {words[0]: words[1] for words in lines}


def only(archive: Archive, state: str) -> str:
    [key] = [key for key, known in states(archive).items() if known == state]
    return key


def keyring(archive: Archive, folder: Path, name: str = PACKAGE) -> Path:
    """A keyring of the archive's keyring package."""
    folder.mkdir(exist_ok=True)
    package = archive.public / f"{PACKAGE}_trixie.deb"
    subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    return folder / f"usr/share/keyrings/{name}.gpg"


def listed(keys: Path) -> set[str]:
    """The primaries in a keyring."""
    command = ["gpg", "--show-keys", "--with-colons", str(keys)]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return set(re.findall(r"^pub:.*\nfpr:+(\w+):", found, re.MULTILINE))


def signers(archive: Archive, keys: Path, folder: Path | None = None) -> set[str]:
    """The keys that signed InRelease, and Release.gpg."""
    where = folder or archive.dist
    found = set(sign.verified(keys, where / "InRelease").signers)
    assert found == set(sign.verified(keys, where / "Release", where / "Release.gpg").signers)
    return found


def signed_by(archive: Archive) -> list[str]:
    """The keys that Release names to apt in Signed-By."""
    [line] = re.findall("^Signed-By: (.*)$", (archive.dist / "InRelease").read_text(), re.MULTILINE)
    return str(line).split(",")


def content(client: Apt, *arguments: str) -> None:
    """Assert that apt succeeds without a warning or an error."""
    done = client.get(*arguments)
    assert done.returncode == 0, done.stdout
    assert not re.search("^[WE]: ", done.stdout, re.MULTILINE), done.stdout


def test_old_client_never_sees_an_error_while_a_key_follows_another(
    archive: Archive,
    client: Apt,
    clients: Callable[[str], Apt],
    request: pytest.FixtureRequest,
    gnupg_home: Path,
    tmp_path: Path,
) -> None:
    first = only(archive, "active")
    package = archive.public / f"{PACKAGE}_trixie.deb"
    sleeper = clients(request.node.callspec.params["client"])
    for each in (client, sleeper):
        each.installs(package)
        content(each, "update")
    assert signed_by(archive) == [first]
    before = client.version(PACKAGE)

    archive.run("add-key", "--name", "Second <second@example.org>")
    second = next(key for key in states(archive) if key != first)
    both = keyring(archive, tmp_path / "both")
    assert signers(archive, both) == {first, second} == set(signed_by(archive)) == listed(both)
    content(client, "update")
    content(client, "upgrade", "--yes")
    assert client.version(PACKAGE) == client.candidate(PACKAGE) != before
    content(client, "update")

    archive.run("retire-key", first, "--now")
    assert signers(archive, both) == {second} == set(signed_by(archive))
    assert listed(keyring(archive, tmp_path / "after")) == {first, second}
    content(client, "update")
    content(client, "upgrade", "--yes")

    # apt on a machine that missed all updates names the missing key, and keeps its indexes.
    told = sleeper.get("update")
    assert told.returncode != 0
    assert second[-16:] in told.stdout
    assert sleeper.candidate(PACKAGE) == before
    (sleeper.root / "usr/share/keyrings" / f"{PACKAGE}.gpg").unlink()
    sleeper.installs(package)
    content(sleeper, "update")

    # A stolen key: with the new keyring package, machines no longer trust it.
    secret = gnupg_home / "stolen"
    shutil.copytree(archive.path / "gnupg", secret, ignore=shutil.ignore_patterns("S.*"))
    archive.run("revoke-key", first)
    content(client, "update")
    content(client, "upgrade", "--yes")
    content(client, "update")
    assert listed(client.root / f"usr/share/keyrings/{PACKAGE}.gpg") == {second}
    time.sleep(1.1)
    archive.run("resign")
    forged = archive.dist / "InRelease"
    text = re.sub("^Signed-By: .*\n", "", (archive.dist / "Release").read_text(), flags=re.MULTILINE)
    (tmp_path / "Release").write_text(text)
    secret.chmod(0o700)
    thief = Key(secret, tmp_path / "no", first)
    thief.gpg("--local-user", f"{first}!", "--output", forged, "--clearsign", tmp_path / "Release")
    done = client.get("update")
    assert done.returncode != 0
    assert first[-16:] in done.stdout


@dataclass(frozen=True, slots=True)
class Offline:
    """A primary that only certifies, kept outside the archive, which gets its subkeys in `file`."""

    maker: Key
    archive: Archive
    file: Path

    def next_subkey(self) -> str:
        """Make another signing subkey without expiry, give it to the archive, and return its fingerprint."""
        self.maker.gpg(*LOOPBACK, "--quick-add-key", self.maker.fingerprint, "ed25519", "sign", "never")
        self.bring()
        return fingerprints(self.maker)[-1]

    def bring(self) -> None:
        """Give the archive the subkeys as they are now."""
        self.maker.gpg(*LOOPBACK, "--output", self.file, "--export-secret-subkeys", self.maker.fingerprint)
        self.archive.run("add-key", "--key", self.file)


def fingerprints(key: Key) -> list[str]:
    return re.findall(r"^fpr:+(\w+):", key.gpg("--list-keys", "--with-colons"), re.MULTILINE)


@pytest.fixture
def offline(archive: Archive) -> Offline:
    """An offline key for the archive, besides the one that it has."""
    home = archive.path.parent / "primary"
    home.mkdir(mode=0o700)
    maker = Key(home, home / "no", "")
    maker.gpg(*LOOPBACK, "--quick-generate-key", "Offline <offline@example.org>", "ed25519", "cert", "never")
    [primary] = fingerprints(maker)
    return Offline(replace(maker, fingerprint=primary), archive, home / "subkeys")


@pytest.mark.thorough
def test_release_binds_a_client_that_trusts_more_keys_to_those_of_the_archive(
    archive: Archive, offline: Offline, client: Apt, stranger: Key, tmp_path: Path
) -> None:
    """If a source has no Signed-By, Release's one applies: it names primaries, whose subkeys may all sign."""
    offline.next_subkey()
    primary = offline.maker.fingerprint
    trusted = client.root / "etc/apt/trusted.gpg.d"
    shutil.copy(keyring(archive, tmp_path / "both"), trusted / "archive.gpg")
    stranger.gpg("--export", "--output", trusted / "stranger.gpg")
    (client.root / "etc/apt/sources.list").write_text(f"deb file:{archive.public} trixie main\n")

    content(client, "update")
    archive.run("retire-key", next(iter(states(archive))), "--now")
    assert signed_by(archive) == [primary]
    content(client, "update")
    # apt checks the next Release against the keys that this one names.
    time.sleep(1.1)
    archive.run("resign")
    content(client, "update")
    time.sleep(1.1)
    archive.run("resign")
    stranger.gpg("--output", archive.dist / "InRelease", "--clearsign", archive.dist / "Release")
    done = client.get("update")
    assert done.returncode != 0
    assert "InRelease" in done.stdout


def test_a_key_retires_when_machines_had_time_to_get_another(archive: Archive, stranger: Key, tmp_path: Path) -> None:
    """A key may retire once another was in the keyring package long enough; one that does not sign, at any time."""
    first = only(archive, "active")
    secret = tmp_path / "secret"
    stranger.gpg("--export-secret-keys", "--output", secret)
    archive.run("add-key", "--key", secret)
    conf = archive.path / "conf/keys"
    today = time.strftime("%Y-%m-%d", time.gmtime())
    assert re.search(rf"(?m)^{stranger.fingerprint} active since={today}T[0-9:]+Z stranger ", conf.read_text())
    done = archive.run("retire-key", first, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    error, hint = done.stderr.splitlines()
    assert error == f"error: machines have not had 30 days to get the other key, which signs since {today}"
    assert re.fullmatch(rf"hint: retire {first} on \d{{4}}-\d\d-\d\d, or use --now: .*refuses the archive", hint)
    assert states(archive) == {first: "active", stranger.fingerprint: "active"}
    assert signers(archive, keyring(archive, tmp_path / "both")) == {first, stranger.fingerprint}
    # The period is set in conf/overlap; an invalid number of days is an error.
    (archive.path / "conf/overlap").write_text("# days\na month\n")
    done = archive.run("retire-key", first, check=False)
    assert "conf/overlap is not a number of days: a month" in done.stderr
    assert states(archive)[first] == "active"
    (archive.path / "conf/overlap").write_text("# days\n90\n")
    conf.write_text(re.sub("since=[^ ]*", f"since={since(60)}", conf.read_text()))
    assert archive.run("retire-key", first, check=False).returncode == 1
    (archive.path / "conf/overlap").unlink()
    archive.run("retire-key", first)
    assert states(archive)[first] == "retired"


def since(days: int) -> str:
    """The date `days` days ago."""
    return time.strftime("%Y-%m-%d", time.gmtime(time.time() - days * 86400))


@pytest.mark.thorough
def test_of_several_other_keys_the_one_that_machines_know_best_counts(archive: Archive) -> None:
    first = only(archive, "active")
    archive.run("add-key")
    archive.run("add-key")
    assert archive.run("retire-key", first, check=False).returncode == 1
    conf = archive.path / "conf/keys"
    conf.write_text(re.sub("since=[^ ]*", f"since={since(31)}", conf.read_text(), count=1))
    archive.run("retire-key", first)
    # The last key that machines have had must stay, too.
    second = next(key for key, state in states(archive).items() if state == "active")
    assert archive.run("retire-key", second, check=False).returncode == 1
    archive.run("retire-key", second, "--now")


def test_verbs_for_keys_refuse_what_would_harm(
    archive: Archive, uploader: Key, stranger: Key, tmp_path: Path, env: dict[str, str]
) -> None:
    def refuses(says: str, verb: str, *arguments: str | Path, status: int = 1) -> None:
        before, keys = archive.snapshot(), (archive.path / "conf/keys").read_text()
        done = archive.run(verb, *arguments, check=False)
        assert done.returncode == status, done.stderr
        assert says in done.stderr
        assert "\nhint: " in done.stderr
        assert (archive.snapshot(), (archive.path / "conf/keys").read_text()) == (before, keys)

    first = only(archive, "active")
    refuses("no other key can sign", "retire-key", first)
    refuses("no other key can sign", "revoke-key", first)
    refuses("is not a fingerprint", "retire-key", "me@example.org", status=2)
    refuses("has no key", "revoke-key", "0" * 40, status=2)
    refuses("has no OpenPGP key", "add-key", "--key", tmp_path / "nothing", status=2)
    refuses("is an uploader's", "add-key", "--key", uploader.public, status=2)
    refuses("cannot sign here", "add-key", "--key", stranger.public)
    refuses("names no cosigner", "cosign", stranger.public)
    secret = tmp_path / "secret"
    stranger.gpg("--export-secret-keys", "--output", secret)
    refuses("has a secret key", "add-key", "--cosigner", secret, status=2)
    refuses("adds one key", "add-key", "--cosigner", secret, "--name", "x", status=2)

    archive.run("add-key", "--key", secret)
    assert states(archive)[stranger.fingerprint] == "active"
    refuses("the archive's", "add-key", "--cosigner", stranger.public)
    # A malformed line stops all, because it may be for the only key that some machines know.
    for line in (f"{first} actve", first, f"{first[:39]} active", "AAAA BBBB active"):
        kept = (archive.path / "conf/keys").read_text()
        (archive.path / "conf/keys").write_text(f"{kept}{line}\n")
        refuses(f"is not a key and a state: {line}", "publish")
        (archive.path / "conf/keys").write_text(kept)
    archive.run("check")
    away = archive.path / "gnupg/private-keys-v1.d"
    keygrip = re.findall(
        r"^fpr:+\w+:\ngrp:+(\w+):",
        run(["gpg", "--homedir", archive.path / "gnupg", "--with-colons", "--with-keygrip", "-k", first], env).stdout,
        re.MULTILINE,
    )[0]
    (away / f"{keygrip}.key").rename(tmp_path / "away")
    for verb in ("publish", "resign"):
        refuses(f"no secret key of {first}", verb)
    checked = archive.run("check", check=False)
    assert checked.returncode == 1
    assert f"no secret key of {first}" in checked.stderr
    archive.run("retire-key", first)
    assert signed_by(archive) == [stranger.fingerprint]
    refuses("does not sign", "retire-key", first)
    archive.run("revoke-key", first)
    refuses("is revoked", "add-key", "--key", keyring_of(archive, first, tmp_path))


def keyring_of(archive: Archive, key: str, folder: Path) -> Path:
    path = folder / key
    archive.key.gpg("--export", "--output", path, key)
    return path


@pytest.mark.thorough
def test_what_a_revoked_key_alone_has_signed_is_signed_anew_or_named(
    archive: Archive, make: Maker, uploader: Key, tmp_path: Path
) -> None:
    first = only(archive, "active")
    for serial in ("20261119.0", *(f"20261120.{number}" for number in range(5))):
        archive.take(make.image(uploader, serial))
    archive.run("publish")
    archive.run("add-key")
    archive.take(make.image(uploader, "20261121.0"))
    second = next(key for key in states(archive) if key != first)
    folders = {path.name: path for path in archive.public.glob("images/trixie/ec2/amd64/2*")}
    by_thief = [folders["20261119.0"] / "SHA512SUMS"]
    text = by_thief[0].read_text()
    by_thief[0].write_text(text.replace(text[:64], "0" * 64))
    zeros = "0" * 64
    for pattern, new in (
        (r"\Z", f"{zeros}  other.qcow2\n"),
        (r"\A(\w+)(  .*\n)", rf"{zeros}\2\1\2"),
        (r"(?m)^\w+(  .*spdx\.json)$", rf"{zeros}\1"),
        (r"(?m)^\w+(  debian-13-ec2-amd64\.qcow2)$", rf"{zeros}\1"),
    ):
        by_thief.append(folders[f"20261120.{len(by_thief)}"] / "SHA256SUMS")
        text, count = re.subn(pattern, new, by_thief[-1].read_text())
        assert count == 1
        by_thief[-1].write_text(text)
    for changed in by_thief:
        for form, suffix in ((("--armor",), "sign"), ((), "gpg")):
            archive.key.gpg(
                *form, "--local-user", first, "--yes", "--output", f"{changed}.{suffix}", "--detach-sign", changed
            )
    evidence = archive.public / "closures/trixie/ec2/amd64/20261120.0/evidence/0/InRelease"
    evidence.parent.mkdir(parents=True)
    snapshots = sorted(archive.public.glob("snap/*/dists/trixie"))
    shutil.copy(snapshots[0] / "InRelease", evidence)
    # The archive has recorded this file, as when a closure is made. One that it has not recorded may be a thief's.
    forged = evidence.parents[1] / "1/InRelease"
    own = ("--keyring", keyring(archive, tmp_path / "before"))
    command: list[str | Path] = [*STEP, "adopt", archive.path, "closures/trixie/ec2/amd64/20261120.0", *own]
    run(command, {**archive.env, "PYTHONPATH": str(SOURCE)})
    forged.parent.mkdir()
    shutil.copy(snapshots[1] / "InRelease", forged)
    kept = evidence.read_bytes()

    done = archive.run("revoke-key", first, check=False)
    assert done.returncode == 1
    for changed in by_thief:
        assert f"{changed.parent.name}/{changed.name} does not agree with the archive's records" in done.stderr
    assert "evidence/1/InRelease is not what the archive has signed" in done.stderr
    forged.unlink()
    assert states(archive) == {first: "revoked", second: "active"}
    keys = keyring(archive, tmp_path / "after")
    assert listed(keys) == {second} == signers(archive, keys)
    for folder in folders.values():
        for sums in (folder / "SHA256SUMS", folder / "SHA512SUMS"):
            for signature in (Path(f"{sums}.gpg"), Path(f"{sums}.sign")):
                if sums in by_thief:
                    with pytest.raises(Error):
                        sign.verified(keys, sums, signature)
                else:
                    assert sign.verified(keys, sums, signature).signers == (second,)
    # The index of all files, too, has what was signed again, and nothing of a thief.
    carried = (archive.dist / "main/images/Files").read_text()
    for folder in folders.values():
        for name in ("SHA256SUMS.gpg", "SHA512SUMS.sign"):
            digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
            assert (f"{digest} " in carried) != (folder in {path.parent for path in by_thief}), folder
    assert len(snapshots) > 2
    for folder in snapshots:
        assert signers(archive, keys, folder) == {second}
    assert sign.verified(keys, evidence).content == openpgp.cleartext(kept).text + b"\n"
    assert "pub:r:" in archive.key.gpg("--list-keys", "--with-colons", first)
    # A second revocation does no harm, and has nothing left to sign.
    assert "signed anew" not in archive.run("revoke-key", first).stdout


@pytest.mark.thorough
def test_offline_primary_and_subkeys_that_follow_each_other(
    archive: Archive, offline: Offline, make: Maker, uploader: Key, tmp_path: Path, env: dict[str, str]
) -> None:
    maker, primary = offline.maker, offline.maker.fingerprint
    old = offline.next_subkey()
    archive.run("retire-key", next(iter(states(archive))), "--now")
    assert "sec#" in archive.key.gpg("--list-secret-keys", primary)
    assert signed_by(archive) == [primary]
    apt = machine(tmp_path / "machine", env)
    apt.installs(archive.public / f"{PACKAGE}_trixie.deb")
    content(apt, "update")
    archive.take(make.image(uploader))
    archive.take(make.deb(uploader))
    archive.run("publish")
    archive.run("resign")
    content(apt, "update")
    (sums,) = archive.public.glob("images/*/*/*/2*/SHA512SUMS")
    keys = keyring(archive, tmp_path / "old")
    assert sign.verified(keys, sums, Path(f"{sums}.gpg")).signers == (primary,)

    # A machine that knows only the old subkey goes on; the mirror counts two subkeys of one primary as one signer.
    new = offline.next_subkey()
    content(apt, "update")
    assert apt.candidate(PACKAGE) != "(none)"
    assert len(openpgp.cleartext((archive.dist / "InRelease").read_bytes()).signatures) == 2
    keys = keyring(archive, tmp_path / "new")
    server = serve("http", archive.public, tmp_path / "etc")
    try:
        mirror = Mirror(server.url, tmp_path / "mirror", keys)
        mirror.refused("--signers", "2", says="is signed by 1 of the keys")
        mirror.ok()

        # The old subkey expires: what only it has signed is signed by the new one, and mirrors fetch that.
        maker.gpg(*LOOPBACK, "--quick-set-expire", primary, "seconds=1", old)
        time.sleep(2)
        before = Path(f"{sums}.gpg").read_bytes()
        offline.bring()
        assert Path(f"{sums}.gpg").read_bytes() != before
        mirror.keyring = keys = keyring(archive, tmp_path / "expired")
        mirror.ok()
    finally:
        server.kill()
    assert sign.verified(keys, sums, Path(f"{sums}.gpg")).signers == (primary,)
    assert (mirror.dest / sums.relative_to(archive.public)).with_name("SHA512SUMS.gpg").read_bytes() == Path(
        f"{sums}.gpg"
    ).read_bytes()
    assert signers(archive, keys) == {primary}
    said = subprocess.run(
        ["gpgv", "--status-fd", "1", "--keyring", keys, archive.dist / "InRelease"], capture_output=True, text=True
    ).stdout
    assert re.findall(r"VALIDSIG (\w+) ", said) == [new]
    apt.installs(archive.public / f"{PACKAGE}_trixie.deb")
    content(apt, "update")


@pytest.mark.thorough
def test_agent_of_the_operator_signs_and_stays(archive: Archive, short_path: Path, tmp_path: Path) -> None:
    """A passphrase that only a running agent has stands for a card's PIN: no verb asks for it or ends the agent."""
    home = archive.path / "gnupg"
    (home / "gpg-agent.conf").write_text("allow-preset-passphrase\npinentry-program /bin/false\n")
    protected = short_path / "protected"
    protected.mkdir(mode=0o700)
    maker = Key(protected, protected / "no", "")
    secret = ("--pinentry-mode", "loopback", "--passphrase", "secret")
    maker.gpg(*secret, "--quick-generate-key", "Card <card@example.org>", "ed25519", "sign", "never")
    maker.gpg(*secret, "--output", tmp_path / "key", "--export-secret-keys")
    listing = maker.gpg("--list-secret-keys", "--with-colons", "--with-keygrip")
    [fingerprint] = re.findall(r"^fpr:+(\w+):", listing, re.MULTILINE)
    [keygrip] = re.findall(r"^grp:+(\w+):", listing, re.MULTILINE)
    environment = {**os.environ, "GNUPGHOME": str(home)}

    def pid() -> str:
        talk = ["gpg-connect-agent", "--no-autostart", "GETINFO pid", "/bye"]
        return run(talk, environment).stdout

    run(["gpg-connect-agent", "/bye"], environment)
    try:
        before = pid()
        assert before.startswith("D ")
        done = archive.run("add-key", "--key", tmp_path / "key", check=False)
        assert "cannot sign here" in done.stderr
        subprocess.run([PRESET, "--preset", keygrip], input="secret", text=True, check=True, env=environment)
        archive.run("add-key", "--key", tmp_path / "key")
        archive.run("publish")
        archive.run("resign")
        assert pid() == before
        assert set(signed_by(archive)) == set(states(archive)) > {fingerprint}
        subprocess.run([PRESET, "--forget", keygrip], check=True, env=environment)
        assert archive.run("resign", check=False).returncode == 1
    finally:
        for folder in (home, protected):
            run(["gpgconf", "--homedir", folder, "--kill", "all"], dict(os.environ))


@pytest.fixture(scope="module")
def cosigned_template(
    short_path: Path, env: dict[str, str], uploader: Key, stranger: Key, tmp_path_factory: pytest.TempPathFactory
) -> Template:
    template = Template.begun(short_path, "cosigned", env, uploader)
    archive = Archive(template.path, env)
    archive.run("add-key", "--cosigner", stranger.public)
    archive.run("add-uploader", stranger.public)
    archive.run("add-key", "--cosigner", uploader.public)
    archive.run("retire-key", uploader.fingerprint)
    archive.take(Maker(tmp_path_factory.mktemp("uploads"), env).image(uploader))
    archive.run("publish")
    kept = archive.public / "closures/trixie/ec2/amd64/20261120.0/evidence/0/InRelease"
    kept.parent.mkdir(parents=True)
    shutil.copy(archive.dist / "InRelease", kept)
    template.keep()
    return template


@dataclass(frozen=True, slots=True)
class Cosigned:
    """An archive with an image, a cosigner and a former cosigner, and a machine that trusts it."""

    archive: Archive
    cosigner: Key
    apt: Apt
    keys: Path
    """The keyring of all of these keys."""
    folder: Path

    @property
    def release(self) -> Path:
        return self.archive.dist / "Release"

    @property
    def kept(self) -> Path:
        """The archive's own release file in an image's closure."""
        return self.archive.public / "closures/trixie/ec2/amd64/20261120.0/evidence/0/InRelease"

    def signed(self, name: str, *how: str, by: Key | None = None) -> Path:
        """Sign the release file with the cosigner's or another key."""
        (by or self.cosigner).gpg("--output", self.folder / name, *how, self.release)
        return self.folder / name

    def refuses(self, says: str, *files: Path) -> None:
        before = self.archive.snapshot()
        done = self.archive.run("cosign", *files, check=False)
        assert done.returncode == 1
        assert says in done.stderr, done.stderr
        assert self.archive.snapshot() == before


@pytest.fixture
def cosigned(cosigned_template: Template, env: dict[str, str], stranger: Key, tmp_path: Path) -> Iterator[Cosigned]:
    with cosigned_template.copied():
        archive = Archive(cosigned_template.path, env)
        apt = machine(tmp_path / "machine", env)
        apt.installs(archive.public / f"{PACKAGE}_trixie.deb")
        content(apt, "update")
        keys = keyring(archive, tmp_path / "keys", "debian-cloud-archive-cosigners")
        yield Cosigned(archive, stranger, apt, keys, tmp_path)


@pytest.fixture
def mirror(cosigned: Cosigned) -> Iterator[Mirror]:
    """A mirror of that archive that has not run yet."""
    server = serve("http", cosigned.archive.public, cosigned.folder / "etc")
    yield Mirror(server.url, cosigned.folder / "mirror", cosigned.keys)
    server.kill()


@pytest.mark.thorough
def test_what_is_no_signature_of_a_cosigner_is_refused(cosigned: Cosigned, uploader: Key) -> None:
    clear, detached = cosigned.signed("clear", "--clearsign"), cosigned.signed("detached", "--detach-sign")
    edited, bad = cosigned.folder / "edited", cosigned.folder / "bad"
    edited.write_bytes(clear.read_bytes().replace(b"Origin: ", b"Origin: x"))
    packet = bytearray(detached.read_bytes())
    packet[-1] ^= 1
    bad.write_bytes(packet)
    cosigned.refuses("does not sign a published Release", clear, edited)
    cosigned.refuses("too weak", cosigned.signed("weak", "--digest-algo", "SHA1", "--detach-sign"))
    cosigned.refuses("is not by a cosigner", clear, cosigned.signed("other", "--clearsign", by=uploader))
    cosigned.refuses("is not by a cosigner", cosigned.signed("other", "--armor", "--detach-sign", by=uploader))
    cosigned.refuses("adds no signature", cosigned.release)
    cosigned.refuses("is not by a cosigner", bad)


def test_maintainers_sign_besides(cosigned: Cosigned, mirror: Mirror, uploader: Key) -> None:
    archive, keys, kept, cosigner = cosigned.archive, cosigned.keys, cosigned.kept, cosigned.cosigner.fingerprint
    own = only(archive, "active")
    assert listed(keys) == {own, cosigner, uploader.fingerprint}
    assert listed(keyring(archive, cosigned.folder / "own")) == {own}
    mirror.refused("--signers", "2", says="is signed by 1 of the keys")
    with pytest.raises(Error, match="signed by 1 of the keys"):
        sign.verified(keys, kept, signers=2)
    serial = (archive.public / "project/trace/master").read_text()
    archive.run("cosign", cosigned.signed("clear", "--clearsign"), cosigned.signed("detached", "--detach-sign"))
    archive.run("check")
    assert signers(archive, keys) == {own, cosigner}
    assert sign.verified(keys, kept, signers=2).content.startswith(b"Origin: ")
    assert (archive.public / "project/trace/master").read_text() != serial
    # A second signature of the same key does not count as another signer.
    archive.run("cosign", cosigned.signed("again", "--clearsign"))
    assert len(openpgp.cleartext((archive.dist / "InRelease").read_bytes()).signatures) == 2
    with pytest.raises(Error, match="signed by 2 of the keys"):
        sign.verified(keys, archive.dist / "InRelease", signers=3)
    mirror.ok("--signers", "2")
    content(cosigned.apt, "update")


def test_a_later_publication_waits_for_its_maintainers(
    cosigned: Cosigned, mirror: Mirror, make: Maker, uploader: Key
) -> None:
    """Until they sign, mirrors that require them do not follow, and apt goes on."""
    archive, apt = cosigned.archive, cosigned.apt
    clear = cosigned.signed("clear", "--clearsign")
    archive.run("cosign", clear)
    mirror.ok("--signers", "2")
    time.sleep(1.1)
    archive.take(make.deb(uploader))
    archive.run("publish")
    mirror.refused("--signers", "2", says="is signed by 1 of the keys")
    content(apt, "update")
    assert apt.candidate("debian-cloud-config-demo") == "1.0"
    cosigned.refuses("does not sign a published Release", clear)
    archive.run("cosign", cosigned.signed("clear", "--clearsign"))
    mirror.ok("--signers", "2")


def test_a_cosigner_alone_vouches_for_nothing(cosigned: Cosigned) -> None:
    archive, cosigner = cosigned.archive, cosigned.cosigner
    clear = cosigned.signed("clear", "--clearsign")
    archive.run("cosign", clear)
    cosigner.gpg("--output", archive.dist / "InRelease", "--clearsign", cosigned.release)
    assert cosigned.apt.get("update").returncode != 0
    archive.run("retire-key", cosigner.fingerprint)
    assert states(archive)[cosigner.fingerprint] == "former-cosigner"
    later = keyring(archive, cosigned.folder / "later", "debian-cloud-archive-cosigners")
    assert listed(later) == listed(cosigned.keys)
    cosigned.refuses("names no cosigner", clear)
