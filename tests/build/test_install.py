# SPDX-License-Identifier: GPL-3.0-or-later
"""The script that installs: the .debs that it decompresses are what dpkg-deb(1) reads in them."""

from __future__ import annotations

import errno
import io
import lzma
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from debian_cloud.build.scripts import install


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of a package."""
    root = tmp_path_factory.mktemp("package")
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN" / "control").write_text(
        "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: x\n"
    )
    # Of an odd size, so that a member is padded.
    (root / "file").write_bytes(b"content" * 300_001)
    (root / "link").symlink_to("file")
    return root


def built(root: Path, to: Path, *options: str) -> Path:
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", *options, "--build", root, to], check=True, stdout=subprocess.DEVNULL
    )
    return to


def read(deb: Path) -> tuple[bytes, bytes]:
    return tuple(  # type: ignore[return-value]
        subprocess.run(["dpkg-deb", option, deb], check=True, capture_output=True).stdout
        for option in ("--ctrl-tarfile", "--fsys-tarfile")
    )


@pytest.mark.parametrize(
    "options", [("-Zxz",), ("-Zgzip",), ("-Znone",), ("-Zxz", "-z0"), ("-Zxz", "--uniform-compression")]
)
def test_a_package_is_the_same_when_it_is_stored(package: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    deb = built(package, tmp_path / "x.deb", *options)
    install.stored(deb, tmp_path / "stored.deb")
    assert read(tmp_path / "stored.deb") == read(deb)
    members = subprocess.run(["ar", "t", tmp_path / "stored.deb"], check=True, capture_output=True, text=True).stdout
    assert ("data.tar\n" in members) == (options[0] in ("-Zxz", "-Znone"))


def test_a_large_package_takes_no_memory(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deb = built(package, tmp_path / "x.deb", "-Zxz")
    monkeypatch.setattr(install, "_LARGE", 100)
    install.stored(deb, tmp_path / "stored.deb")
    assert str((tmp_path / "stored.deb").readlink()) == "/run/debian-cloud/large/x.deb"


def test_several_streams_of_xz_are_one_file(package: Path, tmp_path: Path) -> None:
    deb = built(package, tmp_path / "x.deb", "-Znone")
    data = read(deb)[1]
    parts = lzma.compress(data[:1000]) + lzma.compress(data[1000:])
    for name, content in (("debian-binary", b"2.0\n"), ("data.tar.xz", parts)):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "control.tar").write_bytes(read(deb)[0])
    made = tmp_path / "made.deb"
    subprocess.run(["ar", "rcSD", made, "debian-binary", "control.tar", "data.tar.xz"], cwd=tmp_path, check=True)
    install.stored(made, tmp_path / "stored.deb")
    assert read(tmp_path / "stored.deb")[1] == data


@pytest.mark.parametrize("cut", [0, 7, 100, 0.5, -40])
def test_a_truncated_package_is_refused(package: Path, tmp_path: Path, cut: float) -> None:
    deb = built(package, tmp_path / "x.deb", "-Zxz")
    content = deb.read_bytes()
    end = int(len(content) * cut) if isinstance(cut, float) else cut if cut >= 0 else len(content) + cut
    deb.write_bytes(content[:end])
    with pytest.raises((ValueError, lzma.LZMAError)):
        install.stored(deb, tmp_path / "stored.deb")


def test_packages_are_decompressed_before_they_are_needed_and_not_all_at_once(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(install, "_CHUNK", 1)
    Path("debs").mkdir()
    Path("place").mkdir()
    names = [f"{number}.deb" for number in range(8)]
    for name in names:
        built(package, Path("debs", name), "-Zxz")
    seen: list[str] = []
    with install.Ahead(names, Path("place")) as ahead:
        for chunk in ahead:
            there = {path.name for path in Path("place").iterdir()}
            assert {*chunk} <= there
            assert len(there) <= install._AHEAD
            seen += chunk
            for name in chunk:
                Path("place", name).unlink()
    assert seen == names
    assert not [*Path("place").iterdir()]


def test_what_is_written_need_not_reach_the_disk() -> None:
    """fsync(2) on a pipe fails, unless the kernel does not carry it out."""
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); import install; read, write = os.pipe()\n"
        "try: os.fsync(write)\nexcept OSError: print('carried out')\n"
        "install.without_sync(); os.fsync(write); os.sync(); os.fdatasync(write)\n"
        "import subprocess; subprocess.run([sys.executable, '-c', 'import os; os.fsync(os.pipe()[1])'], check=True)\n"
        "print('done')"
    )
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "/usr/bin/python3", "-c", code, Path(install.__file__).parent],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("carried out\ndone\n", "")


@pytest.mark.parametrize("link", [False, True])
def test_a_later_stage_can_read_resolv_conf(tmp_path: Path, link: bool) -> None:
    """systemd-resolved's postinst replaces the file by a symlink to /run, which is empty at the next stage."""
    tree, place = tmp_path / "tree", tmp_path / "place"
    for folder in (*(tree / name for name in ("etc", "proc", "run", "tmp", "dev", "usr/sbin")), place / "bin"):
        folder.mkdir(parents=True)
    if link:
        (tree / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    else:
        (tree / "etc/resolv.conf").touch()
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import install\n"
        "with install.prepared(Path(sys.argv[2]), Path(sys.argv[3])):\n"
        "    print(repr(Path(sys.argv[2], 'etc/resolv.conf').read_text()))"
    )
    done = subprocess.run(
        [
            *("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "/usr/bin/python3", "-c", code),
            *(Path(install.__file__).parent, tree, place),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("''\n", "")
    assert not list((tree / "run").iterdir())


@pytest.mark.parametrize(
    ("command", "words", "noted"),
    [
        ("py3compile", ["-p", "python3-apt"], "queue: py3compile -p python3-apt"),
        ("py3compile", ["-p", "x", "/usr/share/x", "-V", "3.13-"], "queue: py3compile -p x /usr/share/x -V 3.13-"),
        ("py3compile", ["--version"], ""),
        ("py3compile", ["-p", "x", "-X", "a b"], ""),
        ("update-initramfs", ["-c", "-k", "6.12-cloud-amd64"], "initramfs: -c -k 6.12-cloud-amd64"),
        ("update-initramfs", ["-u"], "initramfs: -u"),
        ("update-initramfs", ["-d", "-k", "6"], ""),
        ("update-ca-certificates", [], "certificates: "),
        ("update-ca-certificates", ["--fresh"], ""),
    ],
)
def test_a_command_is_noted_or_run(tmp_path: Path, command: str, words: list[str], noted: str) -> None:
    cases, does = install._NOTED[command]
    real = tmp_path / "real"
    real.mkdir()
    (real / command).write_text(f'#!/bin/sh\nprintf "%s|" "$@" >{tmp_path}/ran\n')
    text = install.note(command, cases, does.replace("/{place}", str(tmp_path))).replace("PATH=/", f"PATH={real}:/")
    for path, content in ((tmp_path / command, text), (real / command, (real / command).read_text())):
        path.write_text(content)
        path.chmod(0o755)
    subprocess.run([tmp_path / command, *words], check=True)
    found = [f"{name}: {path.read_text().strip()}" for name in ("queue", "initramfs", "certificates")
             if (path := tmp_path / name).exists()]  # fmt: skip
    assert found == ([noted] if noted else [])
    assert (tmp_path / "ran").exists() == (not noted)
    if not noted:
        assert (tmp_path / "ran").read_text() == "".join(f"{word}|" for word in words)


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([], []),
        (["-c -k 6.1-a"], ["6.1-a"]),
        (["-c -k 6.1-a", "-u"], ["6.1-a", "6.2-b"]),
        (["-u"], ["6.1-a", "6.2-b"]),
        (["-u -k all"], ["6.1-a", "6.2-b"]),
        (["-u -k 6.2-b", "-u -k 6.2-b"], ["6.2-b"]),
    ],
)
def test_an_initrd_is_made_for_each_kernel_that_needs_one(
    tmp_path: Path, lines: list[str], wanted: list[str]
) -> None:
    (tmp_path / "boot").mkdir()
    for name in ("vmlinuz-6.1-a", "vmlinuz-6.2-b", "config-6.2-b"):
        (tmp_path / "boot" / name).touch()
    assert install.kernels(lines, tmp_path) == wanted


def of_members(path: Path, *members: tuple[bytes, bytes], end: bytes = b"`\n") -> Path:
    """An archive (ar(5)) whose members have these dates and sizes, and no content."""
    headers = (b"x".ljust(16) + date.ljust(12) + b"0".ljust(20) + size.ljust(10) + end for date, size in members)
    path.write_bytes(b"!<arch>\n" + b"".join(headers))
    return path


def test_the_date_is_that_of_the_newest_package_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Without a package, and of one that is older than dates may be.
    assert install.date([]) == install._OLDEST
    old = of_members(tmp_path / "old.deb", (b"0", b"0"))
    assert install.date([old]) == install._OLDEST
    new = of_members(tmp_path / "new.deb", (b"1600000000", b"0"), (b"1700000000", b"0"), (b"5", b"0"))
    assert install.date([new, old]) == 1700000000
    assert Path(install.NEWEST).read_text() == "1700000000\n"
    assert install.date([old]) == 1700000000


def test_what_is_newer_than_the_stage_gets_its_date(tmp_path: Path) -> None:
    for number, name in enumerate(("older", "same", "newer", "new\nline", "-dash")):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, ns=(5, (1_600_000_000 - 1 + number) * 10**9 + (number > 1)))
    (tmp_path / "link").symlink_to("older")
    install.clamp(tmp_path, 1_600_000_000)
    found = {path.name: path.lstat().st_mtime_ns / 10**9 for path in (tmp_path, *tmp_path.iterdir())}
    assert found.pop("older") == 1_599_999_999
    assert {*found.values()} == {1_600_000_000}
    assert len(found) == 6


def test_a_clock_that_is_before_the_packages_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the clock is wrong: it is .* UTC, but what is installed is of 2100-01-01"):
        install.clamp(tmp_path, 4102444800)


@pytest.mark.parametrize("missing", ["", "security.capability", "system.posix_acl_default"])
def test_a_tree_must_keep_capabilities_and_acls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """Without, maintainer scripts do something else and do not fail."""
    tried = []

    def set_attribute(path: Path, name: str, value: bytes) -> None:
        tried.append(name)
        if name == missing:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "setxattr", set_attribute)
    if missing:
        with pytest.raises(ValueError, match="keeps no capabilities or no ACLs: Operation not supported"):
            install.check_attributes(tmp_path)
    else:
        install.check_attributes(tmp_path)
        assert len(tried) == 2
    assert [*tmp_path.iterdir()] == []


def test_the_date_of_a_package_is_that_of_its_changelog(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1650000000")
    assert install.date([built(package, tmp_path / "x.deb")]) == 1650000000


@pytest.mark.parametrize(
    ("members", "end"),
    [
        ([(b"garbage", b"0")], b"`\n"),
        ([(b"", b"0")], b"`\n"),
        ([(b"-5", b"0")], b"`\n"),
        ([(b"1_0", b"0")], b"`\n"),
        ([(b"5", b"x")], b"`\n"),
        # The member before would follow, without an end.
        ([(b"5", b"-60")], b"`\n"),
        ([(b"5", b"0")], b"xx"),
        ([(b"5", b"0")], b""),
    ],
)
def test_a_package_with_a_damaged_header_is_one_sentence(
    tmp_path: Path, members: list[tuple[bytes, bytes]], end: bytes
) -> None:
    (tmp_path / "debs").mkdir()
    of_members(tmp_path / "debs/x.deb", *members, end=end)
    done = installed(tmp_path, "unpack x.deb\n")
    assert (done.returncode, done.stderr) == (1, "error: debs/x.deb is not a .deb\n")


def test_a_package_of_the_future_is_named_before_anything_is_installed(tmp_path: Path) -> None:
    (tmp_path / "debs").mkdir()
    header = b"debian-binary".ljust(16) + b"4102444800  " + b"0     0     100644  " + b"4         `\n"
    (tmp_path / "debs/x.deb").write_bytes(b"!<arch>\n" + header + b"2.0\n")
    done = installed(tmp_path, "unpack x.deb\n")
    assert done.returncode == 1
    said = r"error: x\.deb is of 2100-01-01 00:00:00 UTC, but the clock says .* UTC: one of them is wrong\n"
    assert re.fullmatch(said, done.stderr)
    assert not (tmp_path / "place").exists()


def test_a_date_that_is_no_number_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / install.NEWEST).write_text("yesterday\n")
    done = installed(tmp_path, "configure\n")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def installed(workspace: Path, stage: str) -> subprocess.CompletedProcess[str]:
    """Run the script as a plan does, as root of a namespace."""
    (workspace / "stage").write_text(stage)
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "/usr/bin/python3", install.__file__, "tree", "stage"],
        cwd=workspace,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("content", ["file", "folder"])
def test_a_tree_that_has_something_is_not_made_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / content).mkdir() if content == "folder" else (tmp_path / "tree" / content).touch()
    with pytest.raises(ValueError, match="tree is not empty"):
        install.new(tmp_path / "tree", (), tmp_path / "place")
    assert [path.name for path in (tmp_path / "tree").iterdir()] == [content]


def test_a_tree_that_is_there_and_empty_is_used(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    install.new(tmp_path / "tree", (), tmp_path / "place")
    assert (tmp_path / "tree/bin").is_symlink()


IN_TREE = Path(install.__file__).parent / "in-tree"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A workspace with a tree that has a shell, and what that needs."""
    tools = ("/usr/bin/sh", "/usr/bin/env", "/usr/bin/ls", "/usr/bin/cat", "/usr/bin/touch")
    needed = subprocess.run(["ldd", *tools], check=True, capture_output=True, text=True).stdout
    libraries = {word for line in needed.splitlines() for word in line.split()[:3] if word.startswith("/")}
    tree = tmp_path / "work" / "tree"
    for name in ("mnt", "proc", "etc"):
        (tree / name).mkdir(parents=True)
    for file in {*tools, *libraries}:
        if not file.endswith(":"):
            (tree / file[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, tree / file[1:])
    return tree


@pytest.mark.parametrize("mounted", [False, True])
def test_a_tool_of_the_tree_sees_it_without_what_is_mounted_in_it(small: Path, tmp_path: Path, mounted: bool) -> None:
    script = (
        "echo $SOURCE_DATE_EPOCH $E2FSPROGS_FAKE_TIME; echo /mnt/tree/proc/* /mnt/tree/mnt/*;"
        "cat /proc/self/comm /mnt/seen; ls /mnt/tree/etc; touch /mnt/made /mnt/tree/etc/new"
    )
    command = ["./in-tree", "tree", "sh", "-euc", script]
    real = small
    if mounted:
        real = small.rename(tmp_path / "memory")
        small.mkdir()
        command = ["sh", "-euc", 'mount --bind "$1" tree; shift; exec "$@"', "sh", str(real), *command]
    work = small.parent
    (real / "etc/file").touch()
    (work / "seen").write_text("seen\n")
    shutil.copy(IN_TREE, work / "in-tree")
    (work / "in-tree").chmod(0o755)
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", *command],
        cwd=work,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    said = "1700000000 1700000000\n/mnt/tree/proc/* /mnt/tree/mnt/*\ncat\nseen\nfile\n"
    assert (done.stdout, done.stderr) == (said, "")
    assert (work / "made").exists()
    assert (real / "etc/new").exists()
    assert [*(real / "mnt").iterdir()] == [*(real / "proc").iterdir()] == []
    assert not mounted or [*small.iterdir()] == []


def test_how_long_each_package_took_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what dpkg writes to --status-fd."""
    clock = iter((10.0, 10.5, 12.0, 12.25))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    lines = (
        "processing: unpack: bash\n",
        "status: bash: half-installed\n",
        "processing: configure: libc6:amd64\n",
        "status: /etc/x : conffile-prompt : 'processing: configure: evil' 'x' 1 1 \n",
        "processing: trigproc: man-db\n",
    )
    out = io.StringIO()
    install.note_seconds(iter(lines), out)
    assert out.getvalue() == "unpack 0.500000 bash\nconfigure 1.500000 libc6\ntrigproc 0.250000 man-db\n"


def test_an_initrd_of_dracut_is_for_any_machine(tmp_path: Path) -> None:
    """Dracut takes a tree in memory, which is a mount, for a machine that runs."""
    with install.for_any_machine(tmp_path):
        assert not [*tmp_path.iterdir()]
    conf = tmp_path / "etc/dracut.conf.d"
    conf.mkdir(parents=True)
    with install.for_any_machine(tmp_path):
        assert [path.read_text() for path in conf.iterdir()] == ['hostonly="no"\n']
    assert not [*conf.iterdir()]
