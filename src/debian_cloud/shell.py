# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of a shell script, as far as a linter has to know them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

# Words before the command that is really run.
_KEYWORDS: Final = {"if", "then", "elif", "else", "do", "done", "fi", "esac", "while", "until", "!", "{", "}", "time"}
_WRAPPERS: Final = {
    "busybox",
    "chroot",
    "command",
    "env",
    "eval",
    "exec",
    "nice",
    "nohup",
    "sudo",
    "timeout",
    "xargs",
}
_ASSIGNMENT: Final = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_VARIABLE: Final = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_HERE_DOCUMENT: Final = re.compile(r"<<-?\s*[\\'\"]?(\w+)")
_SUBSTITUTION: Final = re.compile(r"\$\((?!\()(.*)\)|`([^`]*)`", re.DOTALL)
_OPERATOR: Final = re.compile(r"[();<>|&]+")


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its line, and its words, with variables filled in where the script sets them.

    `writes` and `reads` are where `>` and `<` lead.
    """

    line: int
    words: tuple[str, ...]
    writes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Every word of it."""
        return (*self.words, *self.writes, *self.reads)


def commands(script: str) -> Iterator[Command]:
    """Every command of a script, without comments and here-documents; what is unclear is left as it stands."""
    variables: dict[str, str] = {}
    for number, line in _lines(script):
        yield from _commands(number, line, variables)


def _lines(script: str) -> Iterator[tuple[int, str]]:
    """Logical lines, each with the number at which it begins."""
    begun, text, end = 0, "", ""
    for number, line in enumerate(script.splitlines(), 1):
        if end:
            end = "" if line.strip() == end else end
            continue
        if not text:
            begun = number
            if line.lstrip().startswith("#"):
                continue
        text += line
        if text.endswith("\\"):
            text = f"{text[:-1]} "
            continue
        text = _without_comment(text)
        if _tokens(text) is None:
            # A quotation goes on.
            text += "\n"
            continue
        match = _HERE_DOCUMENT.search(text)
        end = match[1] if match else ""
        yield begun, text
        text = ""
    if text:
        yield begun, text


def _without_comment(line: str) -> str:
    for match in re.finditer(r"\s#", line):
        if _tokens(line[: match.start()]) is not None:
            return line[: match.start()]
    return line


def _tokens(line: str) -> list[str] | None:
    """Words and operators; None when a quotation does not end."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        return list(lexer)
    except ValueError:
        return None


def _commands(number: int, line: str, variables: dict[str, str]) -> Iterator[Command]:
    words: list[str] = []
    files: dict[str, list[str]] = {">": [], "<": []}
    redirection = ""
    for token in [*(_tokens(line) or line.split()), ";"]:
        if _OPERATOR.fullmatch(token):
            redirection = ">" if ">" in token else "<" if "<" in token else ""
            if not redirection or "(" in token or ")" in token:
                yield from _command(number, words, files, variables)
                words, files = [], {">": [], "<": []}
            continue
        (files[redirection] if redirection else words).append(token)
        redirection = ""
        for match in _SUBSTITUTION.finditer(token):
            yield from _commands(number, match[1] or match[2] or "", variables)


def _command(
    number: int, words: list[str], files: dict[str, list[str]], variables: dict[str, str]
) -> Iterator[Command]:
    while words and words[0] in _KEYWORDS:
        words = words[1:]
    while words and (match := _ASSIGNMENT.fullmatch(words[0])):
        variables[match[1]] = _filled(match[2], variables)
        words = words[1:]
    if words[:1] == ["for"]:
        variables[words[1] if len(words) > 1 else ""] = _filled(" ".join(words[3:]), variables)
        return
    if words[:1] == ["command"] and words[1:2] in (["-v"], ["-V"]):
        return
    while words and words[0] in _WRAPPERS:
        words = words[1:]
        while words and (words[0].startswith("-") or words[0].isdigit() or _ASSIGNMENT.fullmatch(words[0])):
            words = words[1:]
    if words or any(files.values()):
        yield Command(
            number, *(tuple(_filled(w, variables) for w in part) for part in (words, files[">"], files["<"]))
        )


def _filled(word: str, variables: dict[str, str]) -> str:
    return _VARIABLE.sub(lambda match: variables.get(match[1] or match[2], match[0]), word)
