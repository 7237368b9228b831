# SPDX-License-Identifier: GPL-3.0-or-later
"""The command, how it makes archives and uploaders, and dput as their client."""

from __future__ import annotations

import configparser
import getpass
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from debian_cloud.host import sign
from tests import sshd
from tests.archive.conftest import run, stubbed
from tools import archive_manual

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.archive.conftest import Archive, Key, Maker

ROOT = Path(__file__).resolve().parents[2]
CALLS = {verb.name: re.split(r"\[|…| --", verb.arguments)[0].split() for verb in archive_manual.verbs()}
"""The operands of each verb, such as DIR and SUITE."""
VERBS = sorted(CALLS)


def fails(shell: Any, command: str, status: int) -> str:
    """Run a command line that must fail with this status, and return its message."""
    shell.auto_return_code_error = False
    message: str = shell.send(f"{command} 2>&1")
    assert shell.last_return_code == status, command
    assert re.search("^error: ", message, re.MULTILINE)
    return message


def lintian(package: Path, env: dict[str, str]) -> None:
    """Assert that lintian reports neither errors nor warnings."""
    command: list[str | Path] = ["lintian", "--allow-root", "--fail-on", "error,warning", package]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_help_lists_every_verb(bash: Any, env: dict[str, str]) -> None:
    with bash(envvars=env) as shell:
        text = shell.send("debian-cloud-archive --help")
        for verb in VERBS:
            assert re.search(rf"^  {verb} DIR.*: \S", text, re.MULTILINE)
            own = shell.send(f"debian-cloud-archive {verb} --help")
            assert own.startswith(f"usage: debian-cloud-archive {verb} DIR")
            assert "SPDX" not in own


WRONG_USE = {
    "debian-cloud-archive frob x": "frob",
    "debian-cloud-archive --frob": "unknown option --frob",
    "debian-cloud-archive ../lib/common.sh": "not a verb",
    "debian-cloud-archive accept": "one DIR",
    "debian-cloud-archive publish a b": "one DIR",
    "debian-cloud-archive accept /nonexistent": "not an archive",
    "debian-cloud-archive init": "takes one DIR",
    "debian-cloud-archive init /nonexistent/x --url": "--url needs a value",
    "debian-cloud-archive init /nonexistent/x --frob": "--frob",
    "debian-cloud-archive init /nonexistent/x": "does not exist",
    "debian-cloud-archive init $HOME/x --suite ../x": "codename",
    "debian-cloud-archive init $HOME/x --url 'a b'": "not a URL",
    'debian-cloud-archive init "$HOME/a b"': "characters",
    "debian-cloud-archive init $HOME/x --uploader /nonexistent": "no OpenPGP public key",
}


def test_wrong_use_says_what_to_do(bash: Any, env: dict[str, str]) -> None:
    before = {*Path(env["HOME"]).iterdir()}
    with bash(envvars=env) as shell:
        for command, word in WRONG_USE.items():
            message = fails(shell, command, 2)
            assert word in message
            assert "hint: " in message
    assert [path.name for path in {*Path(env["HOME"]).iterdir()} - before if path.name != ".gnupg"] == []


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_option_is_refused(verb: str, env: dict[str, str]) -> None:
    operands = [*("trixie" if word == "SUITE" else f"/nonexistent/{word}" for word in CALLS[verb])]
    for option in ("--frob", "--frob=trixie", "-x", "---"):
        for words in ([option, *operands], [*operands, option], [operands[0], option, *operands[1:], "more"]):
            done = run(["debian-cloud-archive", verb, *words], env, check=False)
            assert (done.returncode, done.stdout) == (2, "")
            assert done.stderr == (
                f"error: unknown option {option.partition('=')[0]}\n"
                f"hint: debian-cloud-archive {verb} --help shows the options\n"
            )
    # After -- it is an operand.
    done = run(["debian-cloud-archive", verb, "--", "-frob/a", *operands[1:]], env, check=False)
    assert done.returncode == 2
    assert ("unknown option" in done.stderr, "-frob" in done.stderr) == (False, True), done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_the_values_of_options(verb: str, env: dict[str, str]) -> None:
    """An empty value, none, and one that a flag does not take; two options in one word are none."""
    (header,) = (known for known in archive_manual.verbs() if known.name == verb)
    wrong: list[tuple[archive_manual.Option, list[str]]] = [
        (option, [f"{option.name}={'1' * (not option.value)}"]) for option in header.options
    ]
    wrong += [(option, [option.name, *more]) for option in header.options if option.value for more in ((), ("",))]
    for option, words in wrong:
        done = run(["debian-cloud-archive", verb, "/nonexistent", *words], env, check=False)
        needs = "needs a value" if option.value else "takes no value"
        assert (done.returncode, done.stderr.splitlines()[0]) == (2, f"error: {option.name} {needs}")
    both = " ".join(option.name for option in header.options) or "--frob --frob"
    done = run(["debian-cloud-archive", verb, "/nonexistent", f"{both} "], env, check=False)
    assert (done.returncode, f"unknown option {both}" in done.stderr) == (2, True), done.stderr


def test_a_file_whose_name_begins_with_a_dash(archive: Archive, stranger: Key, tmp_path: Path) -> None:
    shutil.copy(stranger.public, tmp_path / "-key")
    command: list[str | Path] = ["debian-cloud-archive", "add-uploader", "--may=images", "--suite", "trixie"]
    subprocess.run([*command, archive.path, "--", "-key"], env=archive.env, cwd=tmp_path, check=True)
    rules = (archive.path / "conf/uploaders").read_text()
    assert re.search(rf"^{stranger.fingerprint} +images +trixie ", rules, re.MULTILINE)


def test_missing_tool_names_its_package(bash: Any, env: dict[str, str], archive: Archive, tmp_path: Path) -> None:
    for tool in ("sh", "dirname", "readlink", "sed"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or "")
    command = ROOT / "archive/debian-cloud-archive"
    with bash(envvars=env) as shell:
        message = fails(shell, f"PATH={tmp_path} {command} publish {archive.path}", 1)
    assert message == "error: reprepro is missing\nhint: apt install reprepro"


def test_init_makes_a_whole_archive(archive: Archive, uploader: Key) -> None:
    for name in ("gnupg", "uploaders"):
        assert (archive.path / name).stat().st_mode & 0o777 == 0o700
    assert archive.public.stat().st_mode & 0o777 == 0o755
    archive_keys = archive.key.gpg("--with-colons", "--list-keys")
    assert re.search(r"^pub:u:255:22:", archive_keys, re.MULTILINE)  # EdDSA
    assert uploader.fingerprint not in archive_keys
    assert uploader.fingerprint in (archive.path / "conf/uploaders").read_text()
    assert not [path for path in (archive.path / "uploaders").rglob("*.key") if path.is_file()]
    assert sorted(path.name for path in archive.path.parent.iterdir()) == ["a"]
    assert "debian-cloud-archive-keyring" in (archive.dist / "main/binary-amd64/Packages").read_text()


def test_keyring_package_is_clean(archive: Archive, tmp_path: Path, env: dict[str, str]) -> None:
    package = archive.public / "debian-cloud-archive-keyring_trixie.deb"
    (pooled,) = archive.public.glob("pool/main/d/*/debian-cloud-archive-keyring_*_all.deb")
    assert pooled.read_bytes() == package.read_bytes()
    lintian(pooled, env)
    subprocess.run(["dpkg-deb", "-R", package, tmp_path / "x"], env=env, check=True)
    sources = (tmp_path / "x/etc/apt/sources.list.d/debian-cloud.sources").read_text()
    assert sources == (
        f"Types: deb deb-src\nURIs: file://{archive.public}\nSuites: trixie\nComponents: main contrib\n"
        "Signed-By: /usr/share/keyrings/debian-cloud-archive-keyring.gpg\n"
        "Valid-Until-Max: 1209600\n"
    )
    conffiles = (tmp_path / "x/DEBIAN/conffiles").read_text().split()
    assert conffiles == [
        "/etc/apt/apt.conf.d/50debian-cloud",
        "/etc/apt/apt.conf.d/52debian-cloud",
        "/etc/apt/preferences.d/debian-cloud",
        "/etc/apt/sources.list.d/debian-cloud.sources",
    ]
    keyring = tmp_path / "x/usr/share/keyrings/debian-cloud-archive-keyring.gpg"
    assert keyring.read_bytes()[0] & 0xBF == 0x98 & 0xBF  # RFC 9580, 4.2: a public key, not armoured


def test_the_keys_are_there_as_files(archive: Archive, env: dict[str, str], tmp_path: Path) -> None:
    """Clients that are not apt verify signatures with them."""
    keys = archive.public / "debian-cloud-archive-keyring.gpg"
    assert keys.read_bytes() == (archive.path / "keyring.gpg").read_bytes()
    assert sign.binary(keys.with_suffix(".asc").read_bytes()) == keys.read_bytes()
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    show = ["gpg", "--homedir", str(home), "--with-colons", "--show-keys"]
    shown = [
        subprocess.run([*show, path], env=env, capture_output=True, text=True, check=True).stdout
        for path in (keys, keys.with_suffix(".asc"))
    ]
    assert shown[0] == shown[1]
    assert archive.key.fingerprint in shown[0]
    for path in (keys, keys.with_suffix(".asc")):
        assert path.stat().st_mode & 0o777 == 0o644
    subprocess.run(["gpgv", "--keyring", keys, archive.dist / "InRelease"], env=env, capture_output=True, check=True)


@pytest.mark.thorough
def test_init_takes_several_suites_a_url_and_a_name(short_path: Path, env: dict[str, str], tmp_path: Path) -> None:
    path = short_path / "several"
    command: list[str | Path] = ["debian-cloud-archive", "init", path, "--suite", "trixie", "--suite", "forky"]
    command += ["--url", f"https://cloud.example.org/{'debian/' * 12}", "--key-name", "Example <cloud@example.org>"]
    subprocess.run(command, env=env, check=True, capture_output=True)
    assert {path.name for path in (path / "public/dists").iterdir()} == {"trixie", "forky"}
    versions = {}
    for suite in ("trixie", "forky"):
        package = path / f"public/debian-cloud-archive-keyring_{suite}.deb"
        lintian(package, env)
        subprocess.run(["dpkg-deb", "-R", package, tmp_path / suite], env=env, check=True)
        sources = (tmp_path / suite / "etc/apt/sources.list.d/debian-cloud.sources").read_text()
        # A machine gets only the configurations of its own suite.
        assert f"URIs: https://cloud.example.org/{'debian/' * 12}\nSuites: {suite}\n" in sources
        control = (tmp_path / suite / "DEBIAN/control").read_text()
        assert "Maintainer: Example <cloud@example.org>\n" in control
        (versions[suite],) = re.findall(r"^Version: (.*)$", control, re.MULTILINE)
    # The next release's package replaces this one's.
    newer = ["dpkg", "--compare-versions", versions["forky"], "gt", versions["trixie"]]
    assert subprocess.run(newer, check=False).returncode == 0


def test_init_leaves_what_exists_alone(bash: Any, env: dict[str, str], archive: Archive) -> None:
    before = archive.snapshot()
    with bash(envvars=env) as shell:
        assert "already exists" in fails(shell, f"debian-cloud-archive init {archive.path}", 2)
    assert archive.snapshot() == before
    archive.run("publish")


# Answers to what init asks before it writes anything.
ANSWERING = '[ "$1" != suite ] || { echo 13 14d; exit; }'


def test_failed_init_leaves_nothing(bash: Any, env: dict[str, str], short_path: Path) -> None:
    folder = short_path / "failed"
    folder.mkdir()
    with bash(envvars=stubbed(short_path / "broken", env, f"{ANSWERING}\nexit 1")) as shell:
        fails(shell, f"debian-cloud-archive init {folder}/a", 1)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_init_cut_off_leaves_nothing(env: dict[str, str], short_path: Path, number: signal.Signals) -> None:
    folder = short_path / f"cut{number}"
    folder.mkdir()
    begun = short_path / f"begun{number}"
    slow = stubbed(short_path / f"slow{number}", env, f"{ANSWERING}\ntouch {begun}; sleep 60")
    command: list[str | Path] = ["debian-cloud-archive", "init", folder / "a"]
    with subprocess.Popen(command, env=slow, start_new_session=True, stderr=subprocess.DEVNULL) as process:
        for _ in range(200):
            if begun.exists():
                break
            time.sleep(0.1)
        assert begun.exists()
        assert list(folder.iterdir()) != []
        os.killpg(process.pid, number)
        assert process.wait(timeout=20) != 0
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user; others run all of this as themselves")
def test_works_as_an_ordinary_user(short_path: Path, env: dict[str, str], make: Maker, uploader: Key) -> None:
    home = short_path / "nobody"
    home.mkdir()
    shutil.copy(uploader.public, home)
    shutil.chown(home, "nobody")
    short_path.chmod(0o711)
    as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "env", f"HOME={home}"]
    command = [*as_user, "debian-cloud-archive", "init", f"{home}/a", "--uploader", f"{home}/uploader.asc"]
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    # Its image was not built from packages, so there is no closure to keep.
    (home / "a/conf/closures").unlink()
    upload = make.image(uploader)
    for path in (*upload.files, upload.changes):  # as root: the files belong to another user
        shutil.copy(path, home / "a/incoming")
    for verb in ("accept", "publish"):
        command = [*as_user, "debian-cloud-archive", verb, f"{home}/a"]
        done = subprocess.run(command, env=env, check=False, capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stdout + done.stderr
    assert "qcow2" in (home / "a/public/dists/trixie/main/images/Images").read_text()


def test_uploader_may_sign_with_a_subkey(archive: Archive, make: Maker, short_path: Path, stranger: Key) -> None:
    key = type(stranger)(short_path / "subkey", short_path / "subkey.asc", "")
    shutil.copytree(stranger.home, key.home, ignore=shutil.ignore_patterns("S.*"))
    no_questions = ("--passphrase", "", "--pinentry-mode", "loopback")
    key.gpg(*no_questions, "--quick-add-key", stranger.fingerprint, "ed25519", "sign")
    key.gpg("--armor", "--export", "--output", key.public)
    upload = make.deb(key)
    assert "not signed by an uploader" in archive.refuse(upload)
    said = archive.run("add-uploader", key.public)
    assert said.stderr == ""
    archive.take(upload)
    assert "debian-cloud-config-demo 1.0" in archive.packages()


def test_add_uploader_twice_changes_nothing(archive: Archive, uploader: Key) -> None:
    before = (archive.path / "conf/uploaders").read_text()
    archive.run("add-uploader", uploader.public)
    assert (archive.path / "conf/uploaders").read_text() == before


def test_add_uploader_refuses_what_is_no_single_public_key(
    archive: Archive, uploader: Key, stranger: Key, tmp_path: Path
) -> None:
    before = (archive.path / "conf/uploaders").read_text()
    bad = tmp_path / "bad.asc"
    no_questions = ("--passphrase", "", "--pinentry-mode", "loopback")
    two = uploader.public.read_text() + stranger.public.read_text()
    own = archive.key.gpg("--armor", "--export")
    secret = stranger.gpg(*no_questions, "--armor", "--export-secret-keys")
    cases = ("nonsense", "no OpenPGP"), (two, "exactly one"), (own, "archive's own"), (secret, "secret key")
    for text, word in cases:
        bad.write_text(text)
        done = archive.run("add-uploader", bad, check=False)
        assert done.returncode == 2
        assert word in done.stderr
        assert (archive.path / "conf/uploaders").read_text() == before


def test_dput_with_the_classic_profile(archive: Archive, make: Maker, uploader: Key, env: dict[str, str]) -> None:
    for upload in (make.deb(uploader), make.image(uploader)):
        command: list[str | Path] = [
            "dput",
            "-U",
            "-c",
            archive.path / "dput/dput.cf",
            "debian-cloud",
            upload.changes,
        ]
        subprocess.run(command, env={**env, "GNUPGHOME": str(uploader.home)}, check=True, capture_output=True)
        assert len(archive.queue()) == len(upload.files) + 1
        archive.run("accept")
    assert "debian-cloud-config-demo 1.0" in archive.packages()
    assert (archive.public / "images/trixie/ec2/amd64/20261120.0").is_dir()


def test_dput_with_the_json_profile(
    archive: Archive, make: Maker, uploader: Key, env: dict[str, str], tmp_path: Path
) -> None:
    profiles = tmp_path / ".dput.d/profiles"
    profiles.mkdir(parents=True)
    shutil.copy(archive.path / "dput/debian-cloud.json", profiles)
    own = {**env, "HOME": str(tmp_path), "GNUPGHOME": str(uploader.home)}
    command: list[str | Path] = ["dput", "-U", "debian-cloud", make.deb(uploader).changes]
    subprocess.run(command, env=own, check=True, capture_output=True)
    archive.run("accept")
    # The profile itself refuses what the archive would refuse.
    command[-1] = make.deb(uploader, "2.0", suite="sid").changes
    done = subprocess.run(command, env=own, check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert "sid" in done.stderr
    assert archive.queue() == []


@pytest.fixture
def ssh_port(tmp_path: Path) -> Iterator[int]:
    """An ssh server of this user's on 127.0.0.1, to which HOME=tmp_path logs in without a question."""
    keys = tmp_path / ".ssh"
    keys.mkdir(mode=0o700)
    with sshd.served(keys) as port:
        (keys / "known_hosts").write_text(f"[127.0.0.1]:{port} {(keys / 'host.pub').read_text()}")
        yield port


def test_dput_over_sftp(
    archive: Archive, make: Maker, uploader: Key, env: dict[str, str], tmp_path: Path, ssh_port: int
) -> None:
    own = {**env, "HOME": str(tmp_path), "GNUPGHOME": str(uploader.home), "USER": getpass.getuser()}
    # Edited as the comment in the file says, with another port.
    classic = tmp_path / "dput.cf"
    shipped = (archive.path / "dput/dput.cf").read_text()
    host = "fqdn = HOST-OF-THE-ARCHIVE.invalid\n"
    assert shipped.count(host) == 1
    classic.write_text(shipped.replace(host, f"fqdn = 127.0.0.1\nport = {ssh_port}\n"))
    profiles = tmp_path / ".dput.d/profiles"
    profiles.mkdir(parents=True)
    profile = json.loads((archive.path / "dput/debian-cloud-sftp.json").read_text())
    changed = {**profile, "fqdn": "127.0.0.1", "port": ssh_port}
    (profiles / "debian-cloud-sftp.json").write_text(json.dumps(changed))

    uploads = make.deb(uploader), make.image(uploader)
    options: list[list[str | Path]] = [["-c", classic], []]
    for upload, option in zip(uploads, options, strict=True):
        run(["dput", "-U", *option, "debian-cloud-sftp", upload.changes], own)
        assert len(archive.queue()) == len(upload.files) + 1
        archive.run("accept")
    assert "debian-cloud-config-demo 1.0" in archive.packages()
    assert (archive.public / "images/trixie/ec2/amd64/20261120.0").is_dir()


def test_shipped_profiles_have_no_host_of_their_own(archive: Archive) -> None:
    for name, method in (("debian-cloud", "local"), ("debian-cloud-sftp", "sftp")):
        profile = json.loads((archive.path / f"dput/{name}.json").read_text())
        assert profile["method"] == method
        assert profile["default_host_main"] == ""
        # RFC 2606: no host ever has such a name.
        assert profile["fqdn"] == "localhost" if method == "local" else profile["fqdn"].endswith(".invalid")
        assert profile["incoming"] == f"{archive.path}/incoming"
    classic = configparser.ConfigParser()
    classic.read(archive.path / "dput/dput.cf")
    assert classic.sections() == ["debian-cloud", "debian-cloud-sftp"]
    assert classic["debian-cloud-sftp"]["fqdn"].endswith(".invalid")
