# SPDX-License-Identifier: GPL-3.0-or-later
"""What the main job leaves: archive, images, mirror, and a minimal Debian that used them."""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from debian_cloud.host import sign
from debian_cloud.image import index
from debian_cloud.names import RELEASES
from debian_cloud.plan import NAMESPACE, NAMESPACE_USER
from debian_cloud.text import deb822
from tests.conftest import ALL, CONFIGS, SUITE, Image, World, traces
from tests.samples import blocks


def sha(path: Path, algorithm: str = "sha256") -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def records(world: World) -> dict[str, index.ImageRecord]:
    text = (world.public / "dists" / SUITE / "main" / "images" / "Images").read_text("utf-8")
    return {record.id.config: record for record in index.parse(text)}


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_each_image_is_published_as_it_was_built(world: World, images: Mapping[str, Image], config: str) -> None:
    record = records(world)[config]
    published = world.public / record.filename
    assert (record.sha256, record.size) == (sha(images[config].qcow2), images[config].qcow2.stat().st_size)
    assert sha(published) == record.sha256
    assert record.status == "current"
    assert (published.parent.parent / "current").readlink() == Path(record.id.serial)


def test_the_folder_of_an_image_is_whole_and_its_sums_are_signed(world: World, config: str) -> None:
    record = records(world)[config]
    folder = world.public / record.directory
    files = {record.name, *(f"{record.stem}.{extension}" for extension in ("buildinfo", "image", "changes"))}
    attestations = {"cdx.json", "intoto.json", "intoto.json.gpg", "spdx.json"}
    assert {attestation.suffix for attestation in record.attestations} == attestations
    files |= {f"{record.stem}.{suffix}" for suffix in attestations}
    files.add(record.stable.rpartition("/")[2])
    sums = {f"{name}{end}" for name in ("SHA256SUMS", "SHA512SUMS") for end in ("", ".sign", ".gpg")}
    assert {path.name for path in folder.iterdir()} == files | sums
    for name, tool in (("SHA256SUMS", "sha256sum"), ("SHA512SUMS", "sha512sum")):
        done = subprocess.run(
            [tool, "--check", "--strict", name], cwd=folder, capture_output=True, text=True, check=True
        )
        assert {line.partition(":")[0] for line in done.stdout.splitlines()} == files
        assert (folder / f"{name}.sign").read_bytes().startswith(b"-----BEGIN PGP SIGNATURE-----")
        for end in ("sign", "gpg"):
            command: list[str | Path] = ["gpgv", "--keyring", world.keyring, folder / f"{name}.{end}", folder / name]
            subprocess.run(command, capture_output=True, check=True)


def test_the_index_stands_in_the_signed_release(world: World) -> None:
    dist = world.public / "dists" / SUITE
    done = subprocess.run(
        ["gpgv", "--keyring", world.keyring, "--output", "-", dist / "InRelease"], capture_output=True, check=True
    )
    (release,) = deb822.parse(done.stdout.decode())
    listed = {line.split()[2]: line.split()[0] for line in release["SHA256"].strip().splitlines()}
    plain, packed = dist / "main/images/Images", dist / "main/images/Images.xz"
    assert listed["main/images/Images"] == sha(plain)
    assert listed["main/images/Images.xz"] == sha(packed)
    assert lzma.decompress(packed.read_bytes()) == plain.read_bytes()
    assert (plain.parent / "by-hash" / "SHA256" / sha(plain)).samefile(plain)
    assert release["Acquire-By-Hash"] == "yes"
    assert "Valid-Until" in release
    assert not {"MD5Sum", "SHA1"} & set(release)


def test_the_buildinfo_names_each_package_with_its_hash(
    world: World, images: Mapping[str, Image], config: str
) -> None:
    (stanza,) = deb822.parse(sign.text(images[config].file("buildinfo")))
    installed = dict(re.findall(r"^ (\S+) \(= (\S+)\)", stanza["Installed-Build-Depends"], re.M))
    lines = [line.split() for line in stanza["Packages-Sha256"].strip().splitlines()]
    assert {name: version for _, _, name, version, _ in lines} == installed
    assert {"base-files", "linux-base", f"debian-cloud-config-{config}", "debian-cloud-config-common"} <= set(
        installed
    )
    own = {name: digest for digest, _, name, _, _ in lines if name.startswith("debian-cloud-config-")}
    for name, digest in own.items():
        (deb,) = world.public.glob(f"pool/main/d/*/{name}_{installed[name]}_*.deb")
        assert digest == sha(deb)
    for field, file, digest in (
        ("Checksums-Sha256", images[config].qcow2, sha(images[config].qcow2)),
        ("Checksums-Sha256-Blocks", images[config].raw, blocks(images[config].raw)),
    ):
        assert [line.split()[::2] for line in stanza[field].strip().splitlines()] == [[digest, file.name]]


def test_the_published_upload_is_signed_by_its_maintainer(world: World, config: str) -> None:
    record = records(world)[config]
    for extension in ("changes", "buildinfo"):
        signed = world.public / record.directory / f"{record.stem}.{extension}"
        subprocess.run(
            ["gpg", "--homedir", world.folder / "maintainer", "--batch", "--verify", signed],
            capture_output=True,
            check=True,
        )


def test_the_image_s_own_dpkg_knows_exactly_the_packages_of_the_buildinfo(
    images: Mapping[str, Image], config: str
) -> None:
    status = debugfs(images[config].raw, "cat /var/lib/dpkg/status")
    there = {(s["Package"], s["Version"]) for s in deb822.parse(status) if s["Status"] == "install ok installed"}
    (stanza,) = deb822.parse(sign.text(images[config].file("buildinfo")))
    assert there == {(line.split()[2], line.split()[3]) for line in stanza["Packages-Sha256"].strip().splitlines()}
    (own,) = (s for s in deb822.parse(status) if s["Package"] == f"debian-cloud-config-{config}")
    assert own["Image-Size"] == ("8G" if config == "ec2" else "3G")


def debugfs(raw: Path, request: str) -> str:
    """The answer to a request about the root file system."""
    said, complaints = asked(raw, request)
    assert complaints == ""
    return said


def asked(raw: Path, request: str) -> tuple[str, str]:
    """The answer and the complaints of debugfs(8), whose exit status is always 0."""
    command = ["debugfs", "-R", request, f"{raw}?offset={128 * 2**20}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    version, _, complaints = done.stderr.partition("\n")
    assert version.startswith("debugfs ")
    return done.stdout, complaints


def test_the_disk_is_sound(images: Mapping[str, Image], config: str, tmp_path: Path) -> None:
    raw = images[config].raw
    subprocess.run(["sfdisk", "--verify", raw], capture_output=True, check=True)
    subprocess.run(["e2fsck", "-fn", f"{raw}?offset={128 * 2**20}"], capture_output=True, check=True)
    esp = tmp_path / "esp"
    subprocess.run(["dd", f"if={raw}", f"of={esp}", "bs=1M", "skip=4", "count=124", "status=none"], check=True)
    subprocess.run(["fsck.vfat", "-n", esp], capture_output=True, check=True)


def test_the_qcow2_is_the_raw_disk(images: Mapping[str, Image], config: str) -> None:
    image = images[config]
    subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", image.raw, image.qcow2], check=True)


@pytest.mark.parametrize("path", ["/etc/hostname", "/etc/mailname", "/etc/apt/sources.list"])
def test_a_machine_s_own_things_are_not_there(images: Mapping[str, Image], config: str, path: str) -> None:
    raw = images[config].raw
    assert asked(raw, f"cat {path}") == ("", f"{path}: File not found by ext2_lookup \n")
    # The file system is readable, so the file is really missing.
    assert f"/{Path(path).name}/" not in debugfs(raw, f"ls -p {Path(path).parent}")
    assert debugfs(raw, "cat /etc/debian_version").startswith("13")


def test_machine_id_is_there_and_empty(images: Mapping[str, Image], config: str) -> None:
    said = debugfs(images[config].raw, "stat /etc/machine-id")
    assert "Type: regular    Mode:  0444" in said
    assert re.search(r"\bSize: 0$", said, re.M)


def test_no_index_and_no_cache_of_packages_is_there(images: Mapping[str, Image], config: str) -> None:
    raw = images[config].raw
    names = {line.split("/")[5] for line in debugfs(raw, "ls -p /var/lib/apt/lists").splitlines() if line}
    assert names == {".", "..", "partial"}
    assert ".deb" not in debugfs(raw, "ls -p /var/cache/apt/archives")


def test_no_host_key_and_no_trace_of_the_builder(images: Mapping[str, Image], config: str) -> None:
    raw = images[config].raw
    assert "ssh_host" not in debugfs(raw, "ls -p /etc/ssh")
    assert "99mmdebstrap" not in debugfs(raw, "ls -p /etc/apt/apt.conf.d") + debugfs(
        raw, "ls -p /etc/dpkg/dpkg.cfg.d"
    )
    sources = deb822.parse(debugfs(raw, "cat /etc/apt/sources.list.d/debian.sources"))
    assert [(s["Types"], s["Signed-By"]) for s in sources] == [
        ("deb deb-src", "/usr/share/keyrings/debian-archive-keyring.gpg")
    ] * 2
    assert f"{SUITE}-security" in sources[1]["Suites"]


def test_the_mirror_is_the_archive(world: World) -> None:
    def files(tree: Path) -> dict[str, str]:
        return {
            str(path.relative_to(tree)): sha(path)
            for path in tree.rglob("*")
            if path.is_file() and not path.is_symlink()
        }

    archive, mirror = files(world.public), files(world.mirror)
    for name in list(mirror):
        if name.startswith((".mirror/", "project/trace/")):
            del mirror[name]
    # A mirror has only what a signed index lists: no older indexes, records of uploads, copies of the keyring
    # package, closures or snapshots.
    missing = {name for name in archive if name not in mirror and not name.startswith("project/trace/")}
    kinds = re.compile(r"^(closures|snap)/|/by-hash/|\.changes$|\.buildinfo$|-keyring(_[a-z]+\.deb|\.gpg|\.asc)$")
    assert all(kinds.search(name) for name in missing), missing
    assert not any(name.startswith("images/") for name in missing)
    assert mirror.items() <= archive.items()
    for config in CONFIGS:
        link = f"images/{SUITE}/{config}/amd64/current"
        assert (world.mirror / link).readlink() == (world.public / link).readlink()
    (trace,) = [p for p in (world.mirror / "project" / "trace").iterdir() if p.name != "master"]
    assert "Archive serial: " in trace.read_text()


def test_a_clean_debian_fetched_and_installed_from_the_mirror(world: World) -> None:
    said = (world.folder / "user.log").read_text("utf-8")
    assert re.search(rf"^Get:\d+ http://127\S+ {SUITE}/main Images", said, re.M)
    assert re.search(rf"^http://127\S+ {SUITE}/main Images /var/lib/apt/lists/\S+_Images$", said, re.M)
    for config in CONFIGS:
        assert re.search(rf"^{config} +{SUITE} +amd64 .* current, bios or uefi, 512 MiB of memory", said, re.M)
        (fetched,) = (world.folder / "user" / "tmp" / "fetched").glob(f"*-{config}-*.qcow2")
        assert sha(fetched, "sha512") == records(world)[config].sha512
    assert f"debian-cloud-config-{CONFIGS[0]} 0.2.0~deb13u1 install ok installed" in said


def test_what_the_summary_says_next_works_when_pasted(world: World) -> None:
    """The commands in the summary, except build and add, work in a shell without the demo's environment."""
    summary = (world.folder / "summary").read_text("utf-8")
    assert re.search(rf"^state +{world.archive} is an archive of your own", summary, re.M)
    found = re.search(r"^next +((?:.*\n {10})+.*)\n", summary, re.M)
    assert found
    first, *commands = (line.strip() for line in found[1].split("\n"))
    assert first == f". {world.folder}/env"
    verbs = [" ".join(command.split()[:2]) for command in commands]
    assert verbs == [f"debian-cloud {verb}" for verb in ("list", "show", "plan", "build", "run")] + [
        f"debian-cloud-archive {verb}" for verb in ("add", "status")
    ]
    for verb, command in zip(verbs, commands, strict=True):
        if verb not in ("debian-cloud build", "debian-cloud-archive add"):
            # tests/machines/test_boot.py starts images.
            command += " --dry-run" if verb == "debian-cloud run" else ""
            env = {"PATH": "/usr/bin:/bin", "HOME": str(Path.home())}
            done = subprocess.run(
                ["sh", "-euc", f"{first}\n{command}"], env=env, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, (command, done.stderr)
            assert done.stdout


@pytest.mark.thorough
@pytest.mark.parametrize("config", ("container", "ec2") if ALL else ("container",))
def test_a_printed_plan_builds_the_same_image(world: World, config: str, tmp_path: Path) -> None:
    """`debian-cloud plan container | sh` makes the same image, byte for byte, and leaves only its own directory."""
    image = next(
        path
        for path in (world.folder / "images").glob(f"debian-{RELEASES[SUITE]}-{config}-amd64-*")
        if path.name.endswith((".raw", ".tar.xz"))
    )
    stem = image.name.removesuffix(".raw").removesuffix(".tar.xz")
    wanted = ("--serial", stem.rpartition("-")[2], "--format", image.name.removeprefix(f"{stem}."))
    command = ["debian-cloud", "plan", config, *wanted, *world.sources]
    plan = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # The archive was published again, with the image: its InRelease is newer than at the build.
    buildinfo = image.with_name(f"{stem}.buildinfo").read_text("utf-8")
    epoch = re.search(r'SOURCE_DATE_EPOCH="(\d+)"', buildinfo)
    newer = re.search(r"^Epoch: (\d+)$", plan, re.M)
    assert epoch
    assert newer
    plan = plan.replace(newer[1], epoch[1])
    workspace = tmp_path / stem
    try:
        done = subprocess.run(["sh"], input=plan, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        # cmp(1) is faster than hashing the zeros of a whole disk.
        subprocess.run(["cmp", workspace / image.name, image], check=True)
        assert [path.name for path in tmp_path.iterdir()] == [workspace.name]
        assert traces(tmp_path) == []
    finally:
        subprocess.run([*(NAMESPACE_USER if os.geteuid() else NAMESPACE), "rm", "-rf", workspace], check=True)
