# SPDX-License-Identifier: GPL-3.0-or-later
"""By HTTP and HTTPS, with curl(1)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from debian_cloud.host import run
from debian_cloud.mirror.listed import UNKNOWN

if TYPE_CHECKING:
    from debian_cloud.mirror.transports import Job

SCHEMES: Final = ("http", "https")
_PARALLEL: Final = 8
_ABORTED: Final = 42
"""Exit status of a transfer that was aborted because another one failed (curl(1))."""
_STATUS: Final = 22
_RANGE: Final = 33
_MISSING: Final = ("403", "404", "410")
_ENVIRONMENT: Final = (
    *("HTTPS_PROXY", "ALL_PROXY", "all_proxy", "NO_PROXY"),
    *("CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"),
)
_ANSWER: Final = re.compile("([0-9]+) ([0-9]{3}) (\\S+) ?(.*)")
_HEAD: Final = re.compile("([0-9]+) ([0-9]{3}) ([0-9]{0,15}) ?([^ ;]*).*")
_EXPIRES: Final = re.compile("^Expire date: *(.+)$", re.MULTILINE)
_SAFE: Final = ("--globoff", "--proto", "=http,https", "--location", "--max-redirs", "8")


def fetch(job: Job) -> tuple[str, ...]:
    """Fetch the files of a job that the source has; a partial file is continued."""
    parallel = max(1, min(_PARALLEL, len(job.files), job.bandwidth or _PARALLEL))
    names = job.listing("".join(f'url = "{_url(job, file.path)}"\noutput = "{file.path}"\n' for file in job.files))
    ended = run.bounded(
        (
            *("curl", "-q", "--config", str(names), "--parallel", "--parallel-max", str(parallel)),
            *(("--fail-early",) if job.eager else ()),
            *("--fail", "--silent", "--progress-meter" if job.drawn else "--no-progress-meter"),
            *(*_SAFE, "--create-dirs"),
            # A server must not say how long this waits (RFC 9110, 10.2.3).
            *("--remote-time", "--continue-at", "-", "--retry", "2", "--retry-max-time", str(job.timeout)),
            *("--connect-timeout", str(job.timeout), "--speed-time", str(job.timeout)),
            *("--speed-limit", str(max(1, job.slowest // parallel))),
            *(("--limit-rate", f"{job.bandwidth // parallel}K") if job.bandwidth else ()),
            *("--header", "Cache-Control: max-age=0"),
            *("--write-out", "%{exitcode} %{http_code} %{filename_effective} %{errormsg}\\n"),
        ),
        job.into,
        job.work,
        # curl itself ends a transfer that is too slow.
        replace(job.limits, slowest=0),
        keep=_ENVIRONMENT,
        meter="stderr" if job.drawn else "",
        lock=job.lock,
    )
    if ended.status == 0:
        return ()
    missing, reasons, explained = list[str](), list[str](), False
    for line in ended.said.splitlines():
        match = _ANSWER.fullmatch(line)
        if not match:
            continue
        status, code, reason = int(match[1]), match[2], match[4]
        # 22 without an answer (000): aborted before it began.
        if status in (0, _ABORTED) or (status == _STATUS and code == "000"):
            continue
        # 33, 416: the file of an earlier run cannot be continued; the verification decides.
        if status == _RANGE or code == "416":
            explained = True
        elif code in _MISSING:
            missing.append(match[3])
        else:
            reasons.append(reason)
    if reasons or not (missing or explained):
        raise job.failed(ended, (*reasons, *ended.complaint.splitlines(), "")[0])
    return (*missing,)


@dataclass(frozen=True, slots=True)
class Head:
    """The answer of a server about a file: its status (RFC 9110), bytes, -1 if unknown, and media type."""

    status: int
    length: int
    kind: str


def heads(job: Job) -> dict[str, Head]:
    """Path -> answer about each file of a job, none of which is fetched."""
    listing = "".join(f'url = "{_url(job, file.path)}"\noutput = "/dev/null"\n' for file in job.files)
    ended = _asked(
        job,
        *("--config", str(job.listing(listing)), "--parallel", "--parallel-max", str(_PARALLEL), "--head"),
        *("--write-out", "%{urlnum} %{http_code} %header{content-length} %{content_type}\\n"),
    )
    found: dict[str, Head] = {}
    for match in filter(None, map(_HEAD.fullmatch, ended.said.splitlines())):
        if int(match[1]) < len(job.files):
            found[job.files[int(match[1])].path] = Head(int(match[2]), int(match[3] or UNKNOWN), match[4])
    if not any(head.status for head in found.values()):
        raise job.failed(ended, (*ended.complaint.splitlines(), "")[0])
    return found


def continues(job: Job, path: str, start: int, size: int) -> bool:
    """Whether the server sends a part of a file, which is how an aborted download is continued."""
    part = job.work / "part"
    part.unlink(missing_ok=True)
    ended = _asked(
        job,
        # A server that ignores it would send all.
        *("--range", f"{start}-{start + size - 1}", "--max-filesize", str(size), "--output", str(part)),
        *("--write-out", "%{http_code}", _url(job, path)),
    )
    return ended.said == "206" and part.is_file() and part.stat().st_size == size


def certified_until(job: Job, path: str) -> str:
    """The date until which the certificate of a server is valid, as curl(1) prints it; "" if it does not."""
    ended = _asked(job, *("--head", "--output", "/dev/null", "--write-out", "%{certs}", _url(job, path)))
    match = _EXPIRES.search(ended.said)
    return match[1].strip() if match else ""


def _url(job: Job, path: str) -> str:
    return f"{job.source.url}/{path.replace('+', '%2B')}"


def _asked(job: Job, *words: str) -> run.Ended:
    return run.bounded(
        ("curl", "-q", "--silent", "--show-error", *_SAFE, "--connect-timeout", str(job.timeout), *words),
        job.into,
        job.work,
        replace(job.limits, slowest=0),
        keep=_ENVIRONMENT,
        lock=job.lock,
    )
