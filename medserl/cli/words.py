"""What the command line says of itself: commands in groups, and what a mistyped one was meant to be."""

from __future__ import annotations

import argparse
import difflib
import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

GROUPS: dict[str, tuple[str, ...]] = {
    "train": ("train", "sft", "pipeline", "ablate"),
    "see how it went": ("report", "games", "watch"),
    "use and judge a model": ("export", "evaluate", "compare", "check"),
    "notes": ("data",),
    "before a start": ("config", "plan", "doctor", "bringup"),
    "clusters and containers": ("slurm", "image", "selftest", "health"),
}
_MOST = 3
_COLUMN, _WIDTH = 12, 88
_NO_NUMBER = re.compile(r"^argument (\S+): invalid (int|float) value: '(.*)'$", re.DOTALL)
_NUMBERS = {"int": "whole number", "float": "number"}


class Parser(argparse.ArgumentParser):
    """argparse's, with suggestions for a mistyped word, and with commands in groups where there are many."""

    def error(self, message: str) -> NoReturn:
        """One sentence with what may have been meant, and where the options are listed; argparse prints them all."""
        choice = re.fullmatch(r"argument \S+: invalid choice: '(.*)' \(choose from (.*)\)", message, re.DOTALL)
        if choice is not None:
            known = re.findall(r"'([^']*)'", choice[2])
            kind = "command" if set(known) <= set(_commands(self)) else "choice"
            message = f"{choice[1]!r} is not a {kind}; {meant(choice[1], known) or 'known: ' + ', '.join(known)}"
        message = _NO_NUMBER.sub(lambda m: f"{m[1]} {m[3]!r}: is not a {_NUMBERS[m[2]]}", message)
        self.exit(2, f"medserl: error: {message}; `{self.prog} --help` lists the choices\n")

    def format_help(self) -> str:
        """The top's commands by group, as far as they are listed there; other parsers as argparse has them."""
        helps = dict(_helps(self))
        if not set().union(*GROUPS.values()) <= helps.keys():
            return super().format_help()
        listed = {name for names in GROUPS.values() for name in names}
        groups = {**GROUPS, "more": tuple(name for name in helps if name not in listed)}
        lines = [self.format_usage(), self.description or ""]
        for title, names in groups.items():
            if names:
                lines += ["", f"{title}:", *(_entry(name, helps[name]) for name in names)]
        lines += [
            "",
            "`medserl COMMAND --help` says more about a command, and `medserl --version` prints the version.",
            "",
        ]
        return "\n".join(lines)


def meant(word: str, known: Iterable[str]) -> str | None:
    """``did you mean …?`` where something known is near."""
    near = difflib.get_close_matches(word, list(known), n=_MOST)
    return f"did you mean {' or '.join(near)}?" if near else None


def options_of(parser: argparse.ArgumentParser, words: Iterable[str]) -> list[str]:
    """The options of the command that a command line names, as deep as it names one."""
    found = list(parser._option_string_actions)
    for word in words:
        below = next((a.choices[word] for a in _subcommands(parser) if a.choices and word in a.choices), None)
        if below is not None:
            parser = below
            found = list(parser._option_string_actions)
    return found


def _subcommands(parser: argparse.ArgumentParser) -> Iterator[Any]:
    return (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))


def _commands(parser: argparse.ArgumentParser) -> list[str]:
    return [name for action in _subcommands(parser) for name in action.choices]


def _helps(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    for action in _subcommands(parser):
        for choice in action._choices_actions:
            yield choice.dest, choice.help or ""


def _entry(name: str, text: str) -> str:
    first, *rest = textwrap.wrap(text, _WIDTH - _COLUMN - 2) or [""]
    return "\n".join([f"  {name:<{_COLUMN}}{first}", *(f"  {'':<{_COLUMN}}{line}" for line in rest)])
