# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of a shell script, as far as a linter has to know them."""

from __future__ import annotations

import itertools
import posixpath
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

# Words before the command that is really run.
_KEYWORDS: Final = {"if", "then", "elif", "else", "do", "done", "fi", "esac", "while", "until", "!", "{", "}", "time"}
# Commands that run another: their options that take a word, and how many words of their own come before it.
_WRAPPERS: Final[dict[str, tuple[str, int]]] = {
    "busybox": ("", 0),
    "chroot": ("", 1),
    "command": ("", 0),
    "env": ("-u --unset -C --chdir", 0),
    "exec": ("-a", 0),
    "flock": ("-w --timeout -E --conflict-exit-code", 1),
    "ionice": ("-c --class -n --classdata", 0),
    "nice": ("-n --adjustment", 0),
    "nohup": ("", 0),
    "runuser": ("-u --user -g --group -G --supp-group -s --shell", 0),
    "setpriv": ("--reuid --regid --groups --inh-caps --ambient-caps --bounding-set", 0),
    "setsid": ("", 0),
    "stdbuf": ("-i --input -o --output -e --error", 0),
    "sudo": ("-u --user -g --group -C --close-from -D --chdir -h --host -p --prompt -R --chroot -T -U -r -t", 0),
    "systemd-run": ("-p --property -u --unit -E --setenv -t", 0),
    "timeout": ("-k --kill-after -s --signal", 1),
    "unshare": ("-R --root -w --wd -S --setuid -G --setgid", 0),
    "xargs": ("-I -n --max-args -P --max-procs -L -d --delimiter -E -s --max-chars -a --arg-file", 0),
}
_SHELLS: Final = {"ash", "bash", "dash", "ksh", "mksh", "rbash", "sh", "zsh"}
_INTERPRETERS: Final = {"lua", "node", "perl", "php", "python", "python3", "ruby", "tclsh"}
_FIND_RUNS: Final = {"-exec", "-execdir", "-ok", "-okdir"}
_SHEBANG: Final = re.compile(r"#!\s*(?:\S*/)?(?:env\s+)?(?:\S*/)?(\w+)")
_ASSIGNMENT: Final = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_VARIABLE: Final = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_OPERATOR: Final = re.compile(r"&&|\|\||;;&?|;&|&>>?|<<<|<<-?|<>|<&|>>|>&|>\||[\n;()<>|&]")
_DESCRIPTOR: Final = re.compile(r"\d+(?=[<>])")
_ARITHMETIC: Final = re.compile(r"\(\((?:[^()]|\([^()]*\))*\)\)")
_END_OF_WORD: Final = " \t\n;()<>|&"
_DEEPEST: Final = 8
"""Scripts within scripts, and quotations within quotations, that are read; nobody writes more."""
_LONGEST: Final = 10_000
"""What a variable is kept of; each may be twice another."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its line, and its words, with variables filled in where the script sets them.

    `writes` and `reads` are where `>` and `<` lead; `document` is the program
    that an interpreter gets as a here-document; `folder` is where the script
    went by cd, "" where that is not known.
    """

    line: int
    words: tuple[str, ...]
    writes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    document: str = ""
    folder: str = ""

    @property
    def all(self) -> tuple[str, ...]:
        """Every word of it."""
        return (*self.words, *self.writes, *self.reads, self.document)

    @property
    def program(self) -> str:
        """What it runs, without its folder; "" where it only redirects."""
        return self.words[0].rpartition("/")[2] if self.words else ""


@dataclass(slots=True)
class _Token:
    """A word or an operator; a word's `inner` are the scripts of its substitutions, each with its line."""

    line: int
    text: str
    operator: bool = False
    quoted: bool = False
    inner: list[tuple[int, str]] = field(default_factory=list)
    document: tuple[int, str] = (0, "")


@dataclass(slots=True)
class _Script:
    """What is known where a script is read: a script in a script knows the same, and goes its own way."""

    variables: dict[str, str]
    folder: str = ""
    depth: int = 0

    def within(self) -> _Script:
        return _Script(self.variables, self.folder, self.depth + 1)


def commands(script: str) -> Iterator[Command]:
    """Every command of a script, and of the scripts in it; what is unclear is left as it stands."""
    match = _SHEBANG.match(script)
    if match and match[1] in _INTERPRETERS:
        yield Command(1, (match[1],), document=script)
        return
    yield from _commands(script, 1, _Script({}))


def _commands(script: str, line: int, state: _Script) -> Iterator[Command]:
    if state.depth > _DEEPEST:
        return
    parts = _Parts()
    folders: list[str] = []
    redirection, piped = "", (0, "")
    for token in [*_tokens(script, line), _Token(0, "\n", operator=True)]:
        for at, inner in token.inner:
            yield from _commands(inner, at, state.within())
        if not token.operator:
            parts.take(token, redirection)
            redirection = ""
        elif "<" in token.text or ">" in token.text:
            redirection = token.text
        else:
            if token.text == "(":
                # A function's name is no command.
                parts = _Parts()
                folders.append(state.folder)
            elif token.text == ")" and not folders:
                # Nor is a pattern of case.
                parts = _Parts()
            parts.document = parts.document if parts.document[1] else piped
            yield from _run(parts, state)
            piped = parts.document if token.text == "|" else (0, "")
            if token.text == ")" and folders:
                state.folder = folders.pop()
            parts, redirection = _Parts(), ""


@dataclass(slots=True)
class _Parts:
    """A command while its words are collected."""

    line: int = 0
    words: list[str] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    document: tuple[int, str] = (0, "")

    def take(self, token: _Token, redirection: str) -> None:
        """A word, which a redirection may lead to."""
        self.line = self.line or token.line
        if redirection == "<<<":
            self.document = (token.line, token.text)
        elif redirection.startswith("<<"):
            self.document = token.document
        elif redirection.endswith("&") and (token.text.isdigit() or token.text == "-"):
            pass  # another descriptor, or none
        elif redirection:
            (self.writes if ">" in redirection else self.reads).append(token.text)
        else:
            self.words.append(token.text)


def _run(parts: _Parts, state: _Script) -> Iterator[Command]:
    """The command that the words are, behind what only leads to it, or those of the script that it is given."""
    words = parts.words
    while words and words[0] in _KEYWORDS:
        words = words[1:]
    while words and (match := _ASSIGNMENT.fullmatch(words[0])):
        state.variables[match[1]] = _filled(match[2], state)[:_LONGEST]
        words = words[1:]
    if words[:1] == ["for"]:
        state.variables[words[1] if len(words) > 1 else ""] = _filled(" ".join(words[3:]), state)
        return
    if words[:1] == ["case"] or (words[:1] == ["command"] and words[1:2] in (["-v"], ["-V"])):
        return
    words = _unwrapped(words)
    if not words and not parts.writes and not parts.reads:
        return
    filled, writes, reads = (
        tuple(_filled(word, state) for word in part) for part in (words, parts.writes, parts.reads)
    )
    command = Command(parts.line, filled, writes, reads, folder=state.folder)
    scripts = list(_scripts(command, parts.document))
    for line, script in scripts:
        yield from _commands(script, line, state.within())
    if command.program == "cd" and len(command.words) > 1:
        word = command.words[-1]
        to = word if word.startswith("$") else posixpath.join(state.folder, word)
        state.folder = posixpath.normpath(to) if to[:1] in ("/", "$") and word != "-" else ""
    if command.program in _INTERPRETERS:
        command = replace(command, document=parts.document[1])
    if not scripts or command.program == "find" or command.writes or command.reads:
        yield command


def _unwrapped(words: list[str]) -> list[str]:
    while (
        words
        and (program := words[0].rpartition("/")[2]) in _WRAPPERS
        and not ("-c" in words and program == "runuser")
    ):
        valued, own = _WRAPPERS[program]
        words = words[1:]
        while words and (words[0].startswith("-") or _ASSIGNMENT.fullmatch(words[0])):
            option, words = words[0], words[1:]
            if option == "--":
                break
            if option in valued.split():
                words = words[1:]
        words = words[own:]
    return words


def _scripts(command: Command, document: tuple[int, str]) -> Iterator[tuple[int, str]]:
    """The scripts that a command runs, each with its line."""
    words = command.words
    if command.program in _SHELLS:
        options = [word for word in words[1:] if word[:1] in ("-", "+") and word != "-"]
        rest = [w for before, w in itertools.pairwise(words) if w not in options and before not in ("-o", "+o", "-O")]
        if any(re.fullmatch(r"-[a-z]*c[a-z]*", option) for option in options):
            yield from ((command.line, script) for script in rest[:1])
        elif document[1] and (not rest or rest[0] == "-" or "-s" in options):
            yield document
    elif command.program in ("su", "runuser"):
        yield from ((command.line, after) for word, after in itertools.pairwise(words) if word == "-c")
    elif command.program == "eval":
        yield command.line, " ".join(words[1:])
    elif command.program == "trap":
        yield from ((command.line, script) for script in words[1:2])
    elif command.program == "find":
        where = next((word for word in words[1:] if not word.startswith("-")), "{}")
        for number, word in enumerate(words):
            if word in _FIND_RUNS:
                run = [other.replace("{}", where) for other in words[number + 1 :]]
                end = next((n for n, other in enumerate(run) if other in (";", "+")), len(run))
                yield command.line, " ".join(_as_word(other) for other in run[:end])


def _as_word(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _filled(word: str, state: _Script) -> str:
    return _VARIABLE.sub(lambda match: state.variables.get(match[1] or match[2], match[0]), word)


def _tokens(script: str, line: int) -> list[_Token]:
    """Words and operators, without comments; a here-document goes with the word that ends it."""
    found: list[_Token] = []
    waiting: list[tuple[_Token, bool]] = []
    at = 0
    while at < len(script):
        if script[at] in " \t":
            at += 1
        elif script.startswith("\\\n", at):
            at, line = at + 2, line + 1
        elif script[at] == "#":
            end = script.find("\n", at)
            at = len(script) if end < 0 else end
        elif match := _ARITHMETIC.match(script, at) or _DESCRIPTOR.match(script, at):
            at, line = match.end(), line + match[0].count("\n")
        elif match := _OPERATOR.match(script, at):
            found.append(_Token(line, match[0], operator=True))
            at = match.end()
            if match[0] == "\n":
                line += 1
                for word, indented in waiting:
                    begun = at
                    at, body = _document(script, at, word, indented=indented)
                    word.document = (line, body)
                    line += script.count("\n", begun, at)
                waiting = []
        else:
            end, token = _word(script, at, line)
            if found and found[-1].operator and found[-1].text in ("<<", "<<-"):
                waiting.append((token, found[-1].text == "<<-"))
            found.append(token)
            at, line = end, line + script.count("\n", at, end)
    return found


def _document(script: str, at: int, word: _Token, *, indented: bool) -> tuple[int, str]:
    """Where a here-document ends, and its text; what it substitutes goes to the word."""
    lines = []
    while at < len(script):
        end = script.find("\n", at) + 1 or len(script)
        text = script[at:end].lstrip("\t") if indented else script[at:end]
        at = end
        if text.rstrip("\n") == word.text:
            break
        lines.append(text)
    body = "".join(lines)
    if not word.quoted:
        _expanded(body, word.line + 1, word.inner)
    return at, body


def _word(script: str, at: int, line: int) -> tuple[int, _Token]:
    """Where a word ends, and the word as the shell sees it; a quotation without an end goes to the script's."""
    token = _Token(line, "")
    parts: list[str] = []
    while at < len(script) and script[at] not in _END_OF_WORD:
        if script[at] == "\\":
            end = at + 2
            parts.append(script[at + 1 : end].replace("\n", ""))
            token.quoted = True
        elif script[at] == "'":
            end = script.find("'", at + 1) + 1 or len(script) + 1
            parts.append(script[at + 1 : end - 1])
            token.quoted = True
        elif script[at] == '"':
            end = _end(script, at + 1, '"')
            parts.append(_expanded(script[at + 1 : end - 1], line, token.inner))
            token.quoted = True
        elif script[at] in "$`":
            end = _end_of_expansion(script, at)
            parts.append(_expanded(script[at:end], line, token.inner))
        else:
            end = at + 1
            parts.append(script[at])
        line += script.count("\n", at, end)
        at = end
    token.text = "".join(parts)
    return min(at, len(script)), token


def _expanded(text: str, line: int, inner: list[tuple[int, str]], depth: int = 0) -> str:
    """Text as in double quotes, `$()` for every substitution; their scripts are added to `inner`."""
    out = []
    at = 0
    while at < len(text) and depth <= _DEEPEST:
        end = at + 1
        if text[at] == "\\" and text[end : end + 1] in ("$", "`", '"', "\\", "\n"):
            end += 1
            out.append(text[at + 1 : end].replace("\n", ""))
        elif text[at] == "`":
            end = _end_of_expansion(text, at)
            inner.append((line, re.sub(r"\\([$`\\])", r"\1", text[at + 1 : end - 1])))
            out.append("$()")
        elif text.startswith("$(", at):
            end = _end_of_expansion(text, at)
            if text.startswith("$((", at):
                _expanded(text[at + 3 : end - 2], line, inner, depth + 1)
            else:
                inner.append((line, text[at + 2 : end - 1]))
            out.append("$()")
        elif text.startswith("${", at):
            end = _end_of_expansion(text, at)
            out.append(f"${{{_expanded(text[at + 2 : end - 1], line, inner, depth + 1)}}}")
        else:
            out.append(text[at])
        line += text.count("\n", at, end)
        at = end
    return "".join(out)


def _end_of_expansion(text: str, at: int) -> int:
    """Behind the expansion that begins there; behind its dollar sign where it is a plain name's."""
    if text[at] == "`":
        return _end(text, at + 1, "`")
    closer = {"$(": ")", "${": "}"}.get(text[at : at + 2])
    return _end(text, at + 2, closer) if closer else at + 1


def _end(text: str, at: int, closer: str, depth: int = 0) -> int:
    """Behind the character that closes what has begun; one behind the text where none does."""
    while at < len(text) and depth <= _DEEPEST:
        character = text[at]
        if character == closer:
            return at + 1
        if character == "\\":
            at += 2
        elif closer == "`":
            at += 1
        elif closer == ")" and character == "'":
            at = text.find("'", at + 1) + 1 or len(text)
        elif closer == ")" and character == "#" and text[at - 1] in _END_OF_WORD:
            at = text.find("\n", at) + 1 or len(text)
        elif text[at : at + 2] in ("$(", "${"):
            at = _end(text, at + 2, ")" if text[at + 1] == "(" else "}", depth + 1)
        elif character in '"`' or (character == "(" and closer == ")"):
            at = _end(text, at + 1, ")" if character == "(" else character, depth + 1)
        else:
            at += 1
    return len(text) + 1
