# SPDX-License-Identifier: GPL-3.0-or-later
"""Many requests, several at a time."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, TypeVar

from debian_cloud.machines.ec2.account import WORKERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(todo: Sequence[Item], do: Callable[[Item], Result], done: Callable[[int, Item, Result], None]) -> None:
    """Do something to each item, and call `done` with how many are done, an item and its result, in any order.

    What is raised first ends it. Unlike a pool of threads, an interrupt does not wait for requests under way.
    """
    left = iter(todo)
    lock = threading.Lock()
    ended: queue.SimpleQueue[tuple[Item, Result] | BaseException] = queue.SimpleQueue()
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            with lock:
                try:
                    item = next(left)
                except StopIteration:
                    return
            try:
                ended.put((item, do(item)))
            except BaseException as error:
                ended.put(error)
                return

    for _ in range(min(WORKERS, len(todo))):
        threading.Thread(target=work, daemon=True).start()
    try:
        for number in range(1, len(todo) + 1):
            got = ended.get()
            if isinstance(got, BaseException):
                raise got
            done(number, *got)
    finally:
        stop.set()
