# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection to libvirt, which may be far away, and its errors as those of this program.

Only this module and the driver know the package python3-libvirt. What it returns has no types.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import queue
import re
import threading
from typing import TYPE_CHECKING, Any, Final

from debian_cloud.errors import USAGE, Error
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_OPEN: Final = 60.0
"""Seconds in which libvirt answers; a daemon that is started for it first looks at each QEMU, which may take 20."""
_ALIVE: Final = (10, 3)
"""Seconds after which a silent daemon is asked whether it lives, and how often, until the connection is ended."""

_HOST: Final = r"(?:[A-Za-z0-9._-]+@)?(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?"
# Of the parameters of an address (libvirt, Remote URIs), none that names a program; no '&' and '?' in their values.
_WORD: Final = r"(?:socket|keyfile|known_hosts|proxy|mode)=[!-%'->@-~]+"
_WHERE: Final = rf"(?:\?{_WORD}(?:&{_WORD})*)?"
_SSH: Final = "qemu+ssh://"
_KNOWN: Final = re.compile(
    rf"test:///default|qemu(?:\+unix)?:///(?:session|system){_WHERE}|{re.escape(_SSH)}{_HOST}/system{_WHERE}"
)


def uri(text: str, target: str) -> str:
    """The address of a libvirt; Error if it is none that this program can use."""
    if not _KNOWN.fullmatch(text):
        raise Error(
            f"Uri of target {target} is {printable(text, 80)!r}" if text else f"target {target} has no Uri",
            "give qemu:///session, qemu:///system, qemu+ssh://HOST/system or test:///default",
            USAGE,
        )
    return text


@functools.cache
def api(name: str = "libvirt") -> Any:  # noqa: ANN401 - it has no types
    """The module `libvirt`, or another of its package; Error if that is not installed."""
    try:
        found = importlib.import_module(name)
    except ImportError:
        raise Error("python3-libvirt is not installed", "run apt-get install python3-libvirt", USAGE) from None
    if name == "libvirt":
        # It prints errors, too, unless it is told not to.
        found.registerErrorHandler(_ignore, None)
        # Whether a daemon lives is asked by a loop of libvirt's own.
        found.virEventRegisterDefaultImpl()
        threading.Thread(target=functools.partial(_loop, found), daemon=True, name="libvirt").start()
    return found


def _ignore(*_: object) -> None:
    """Called with each error."""


def _loop(libvirt: Any) -> None:  # noqa: ANN401
    while True:
        with contextlib.suppress(libvirt.libvirtError):
            libvirt.virEventRunDefaultImpl()


_OPENED: Final[dict[str, Any]] = {}
"""Address -> its connection: that of ssh takes a second."""


def opened(address: str) -> Any:  # noqa: ANN401
    """The connection of an address; Error if it cannot be reached in time."""
    libvirt = api()
    found = _OPENED.get(address)
    with contextlib.suppress(libvirt.libvirtError):
        if found and found.isAlive():
            return found
    found = _OPENED[address] = _reached(libvirt, address)
    return found


def _reached(libvirt: Any, address: str) -> Any:  # noqa: ANN401
    # ssh(1) must not ask for a password behind the progress of a command.
    quiet = f"{address}{'&' if '?' in address else '?'}no_tty=1" if address.startswith(_SSH) else address
    try:
        found = within(_OPEN, lambda: libvirt.open(quiet))
    except TimeoutError:
        raise Error(f"{address} does not answer", "is its libvirtd running, and not hanging?") from None
    except libvirt.libvirtError as error:
        raise Error(
            f"{address} cannot be reached: {said(error)}", f"try virsh --connect '{address}' version"
        ) from None
    if address.startswith("qemu"):
        found.setKeepAlive(*_ALIVE)
    return found


def within(seconds: float, ask: Callable[[], Any]) -> Any:  # noqa: ANN401
    """What is asked of libvirt, which nothing can interrupt; TimeoutError if it does not answer in time."""
    answers: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

    def put() -> None:
        try:
            answers.put((ask(), None))
        except api().libvirtError as error:
            answers.put((None, error))

    threading.Thread(target=put, daemon=True).start()
    try:
        found, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if error:
        raise error
    return found


@contextlib.contextmanager
def told(what: str, hint: str = "") -> Iterator[None]:
    """Turn an error of libvirt into one that says what failed."""
    try:
        yield
    except api().libvirtError as error:
        raise Error(f"{what}: {said(error)}", hint or "see virsh(1), and the log of libvirtd") from None


def said(error: Any) -> str:  # noqa: ANN401
    """The message of libvirt's, which may have the output of a program on another machine."""
    return printable(" ".join((error.get_error_message() or str(error)).split()[:100]), 400)


def maybe(ask: Callable[[], Any]) -> Any:  # noqa: ANN401
    """What is asked of libvirt; None if it has no such thing, or the driver of a connection cannot do it."""
    libvirt = api()
    try:
        return ask()
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (
            libvirt.VIR_ERR_NO_DOMAIN,
            libvirt.VIR_ERR_NO_DOMAIN_METADATA,
            libvirt.VIR_ERR_NO_STORAGE_POOL,
            libvirt.VIR_ERR_NO_STORAGE_VOL,
            libvirt.VIR_ERR_NO_SUPPORT,
        ):
            raise
        return None
