# SPDX-License-Identifier: GPL-3.0-or-later
"""How signals affect work in progress.

Only the main thread of a process can set that (Python's module signal): in another one, they change nothing.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    Handler = Callable[[int, FrameType | None], None] | signal.Handlers


_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore SIGINT, SIGTERM and SIGHUP for a short time in which work must not be left half done."""
    with _handled(signal.SIG_IGN):
        yield


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP wait until the end of a short time, in which they would be acted on too early.

    A process that is begun in this time lets them wait until it calls `accepted`.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def accepted() -> None:
    """Let signals wait no longer, in a process that was begun while they did."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


class Ended(KeyboardInterrupt):
    """The end of the work by a signal, whose number is the only argument (`ending_politely`)."""


@contextlib.contextmanager
def ending_politely() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the work as Ctrl-C does, so that it is cleaned up; a second signal is ignored."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        # A terminal sends SIGINT to all processes, and a parent may send SIGTERM after it: that would interrupt the
        # cleaning up.
        for other in _ENDING:
            signal.signal(other, signal.SIG_IGN)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Ended(number)

    with _handled(interrupt):
        yield


@contextlib.contextmanager
def _handled(handler: Handler) -> Iterator[None]:
    """Handle the signals that end a process, except those that are ignored, as nohup(1) lets SIGHUP be."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in _ENDING if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
