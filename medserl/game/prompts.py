"""Prompts as files: a set is a folder with one file per task, each with sections and placeholders.

A file is divided by lines ``=== system ===`` and ``=== user ===``; a section may be meant for one output
format of the injector only: ``=== user edit ===``, ``=== user note ===``, ``=== user phrase ===``. Text before the
first such line is the user section. Placeholders are ``{note}`` (the note's text) and, for the injector,
``{sentences}`` (its sentences, numbered from 0, one a line); ``{{`` and ``}}`` are literal braces.

Files of a set: ``injector_benign.txt``, ``injector_error.txt``, ``assessor.txt``; where wanted ``judge.txt`` for the
referee `judge` (placeholders ``{note}``, ``{original}``, ``{edited}``), ``injector_error_TYPE.txt`` for one of MEDEC's
error types, ``assessor_full.txt``, which asks for the verdict, the sentence's number and the correction
(`medserl.game.parse.parse_full`; MEDEC's three subtasks; placeholders ``{sentences}`` and ``{note}``), and ``VERSION``,
a line that names the state of the set in a run's records.
"""

import functools
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from medserl.errors import ConfigError
from medserl.game.labels import ERROR_TYPES, Mode
from medserl.game.sentences import sentence_texts

Message = dict[str, str]
"""A chat message: ``role`` and ``content``."""

KEYS = {"edit": ("sentence_id", "new_sentence"), "note": ("generated_note",), "phrase": ("old_phrase", "new_phrase")}
FORMATS = tuple(KEYS)
"""Output formats of the injector, and the keys that its replies have in each."""

_SHIPPED = Path(__file__).parent / "prompt_sets"
_SECTION = re.compile(rf"^=== (system|user)(?: ({'|'.join(FORMATS)}))? ===[ \t]*$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}\n]*)\}|[{}]")
_NEEDED = {"edit": "sentences", "note": "note", "phrase": "note"}
_JUDGE = "judge"
_FULL = "assessor_full"
_TYPED = "injector_error_"


class _Placeholders(NamedTuple):
    """What a file that is not the injector's may say, and what its user section must."""

    allowed: frozenset[str]
    needed: frozenset[str]


_OWN_PLACEHOLDERS = {
    "assessor": _Placeholders(frozenset({"note"}), frozenset({"note"})),
    _FULL: _Placeholders(frozenset({"note", "sentences"}), frozenset({"sentences"})),
    _JUDGE: _Placeholders(frozenset({"note", "original", "edited"}), frozenset({"note", "original", "edited"})),
}


@dataclass(frozen=True, slots=True)
class PromptSet:
    """The messages that each role is given. Build one with `load_prompt_set`."""

    name: str
    _sections: dict[str, dict[tuple[str, str | None], str]]
    version: str = ""
    """The line of the set's file ``VERSION``; empty where it has none."""
    sha256: str = ""
    """Over the names and bytes of the set's prompt files."""

    def record(self) -> dict[str, str]:
        """Which state of which set this is, for a run's provenance."""
        return {"name": self.name, "version": self.version, "sha256": self.sha256}

    def injector(
        self, note_text: str, mode: Mode, output_format: str = "edit", error_type: str | None = None
    ) -> list[Message]:
        """Messages that ask for an edit of ``note_text``, in error mode for an error of ``error_type`` where given.

        Raises ConfigError where the set lacks the format or the type.
        """
        values = {"note": note_text.strip(), "sentences": numbered_sentences(note_text)}
        if mode is Mode.ERROR and error_type is not None:
            self.check_error_types([error_type])
            return self._messages(_TYPED + error_type, output_format, values)
        return self._messages(_injector_file(mode), output_format, values)

    @property
    def error_types(self) -> tuple[str, ...]:
        """The error types that the set has a prompt of their own for."""
        return tuple(name for name in ERROR_TYPES if _TYPED + name in self._sections)

    def check_error_types(self, names: Iterable[str]) -> None:
        """Raise ConfigError for an error type without a prompt."""
        for name in names:
            if name not in ERROR_TYPES:
                raise ConfigError(f"error type {name!r} is not known; choose from: {', '.join(ERROR_TYPES)}")
            if name not in self.error_types:
                raise ConfigError(
                    f"prompt set {self.name!r} has no {_TYPED}{name}.txt; write one or leave {name!r} out of "
                    "medserl.error_types"
                )

    def check_format(self, output_format: str) -> None:
        """Raise ConfigError where an injector's file does not ask for replies in a format: what it says to that format
        has no section, lacks the note, or does not name the format's keys. Only files as they are shipped may leave
        the keys out: the ward's do, as its model has learnt them."""
        for file, sections in self._sections.items():
            if not file.startswith("injector_"):
                continue
            user = _section(sections, "user", output_format) or ""
            asked = f"{_section(sections, 'system', output_format) or ''} {user}"
            lacking = [key for key in KEYS[output_format] if key not in asked]
            if f"{{{_NEEDED[output_format]}}}" in user and (not lacking or _is_shipped(file, sections)):
                continue
            raise ConfigError(
                f"prompt set {self.name!r}: {file}.txt does not ask for {' and '.join(KEYS[output_format])}, which "
                f"the format {output_format!r} reads; give it a section '=== user {output_format} ===' that names "
                "them, or choose another medserl.injector_format"
            )

    def judge(self, note_text: str, original: str, edited: str) -> list[Message]:
        """Messages that ask a judge what became of the note when its sentence ``original`` became ``edited``.

        Raises ConfigError where the set has no ``judge.txt``.
        """
        if not self.has_judge:
            raise ConfigError(f"prompt set {self.name!r} has no judge.txt, which the referee 'judge' needs; write one")
        return self._messages(_JUDGE, None, {"note": note_text.strip(), "original": original, "edited": edited})

    @property
    def has_judge(self) -> bool:
        return _JUDGE in self._sections

    def assessor(self, note_text: str) -> list[Message]:
        """Messages that ask about ``note_text``; nothing else of the game is in them."""
        return self._messages("assessor", None, {"note": note_text.strip()})

    def assessor_full(self, note_text: str, sentences: Sequence[str]) -> list[Message]:
        """Messages that ask for the verdict, the wrong sentence's number and its correction.

        ``sentences`` are numbered from 0 as they stand, so that a source's own numbering is kept. Raises
        ConfigError where the set has no ``assessor_full.txt``.
        """
        if _FULL not in self._sections:
            raise ConfigError(f"prompt set {self.name!r} has no file {_FULL}.txt, which the format 'full' needs")
        return self._messages(_FULL, None, {"note": note_text.strip(), "sentences": _numbered(sentences)})

    @property
    def has_full(self) -> bool:
        """Whether the set can ask for the sentence and its correction too (`assessor_full`)."""
        return _FULL in self._sections

    def _messages(self, file: str, output_format: str | None, values: dict[str, str]) -> list[Message]:
        messages: list[Message] = []
        for role in ("system", "user"):
            template = _section(self._sections[file], role, output_format)
            if template is not None:
                messages.append({"role": role, "content": _fill(template, values)})
        if not messages or messages[-1]["role"] != "user":
            raise ConfigError(f"prompt set {self.name!r} has no user section for the format {output_format!r}")
        return messages


def numbered_sentences(note_text: str) -> str:
    """One sentence a line, numbered from 0: what the edit format's sentence_id refers to."""
    return _numbered(sentence_texts(note_text))


def _numbered(sentences: Sequence[str]) -> str:
    return "\n".join(f"{index} {' '.join(text.split())}" for index, text in enumerate(sentences))


def prompt_set_names() -> list[str]:
    """Names of the shipped sets, sorted."""
    return sorted(path.name for path in _SHIPPED.iterdir() if path.is_dir())


def load_prompt_set(name_or_dir: str | Path) -> PromptSet:
    """A shipped set by name, or one's own set by its folder.

    Raises ConfigError where a file is missing or not UTF-8, has no user section, or where a placeholder is
    unknown or missing.
    """
    folder = Path(name_or_dir)
    if str(name_or_dir) in prompt_set_names():
        folder = _SHIPPED / name_or_dir
    elif not str(name_or_dir).strip() or not folder.is_dir():
        raise ConfigError(
            f"prompt set {str(name_or_dir)!r} is neither a folder nor "
            f"one of the shipped sets: {', '.join(prompt_set_names())}"
        )
    files = [*(_injector_file(mode) for mode in Mode), "assessor"]
    files += [path.stem for path in sorted(folder.glob(f"{_TYPED}*.txt"))]
    files += [name for name in (_FULL, _JUDGE) if (folder / f"{name}.txt").exists()]
    sections, digest = {}, hashlib.sha256()
    for file in files:
        path = folder / f"{file}.txt"
        if file.startswith(_TYPED) and file.removeprefix(_TYPED) not in ERROR_TYPES:
            raise ConfigError(f"{path}: no error type of this name; known: {', '.join(ERROR_TYPES)}")
        sections[file] = _read_sections(path)
        _check(path, sections[file], _OWN_PLACEHOLDERS.get(file))
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return PromptSet(folder.name, sections, _version(folder / "VERSION"), digest.hexdigest())


@functools.cache
def _shipped_sections(file: str) -> tuple[dict[tuple[str, str | None], str], ...]:
    paths = (_SHIPPED / name / f"{file}.txt" for name in prompt_set_names())
    return tuple(_read_sections(path) for path in paths if path.is_file())


def _is_shipped(file: str, sections: dict[tuple[str, str | None], str]) -> bool:
    """Whether an injector's file says the same as one of the shipped ones."""
    return sections in _shipped_sections(file)


def _version(path: Path) -> str:
    if not path.exists():
        return ""
    lines = _text(path).split("\n")
    if not lines[0].strip() or any(line.strip() for line in lines[1:]):
        raise ConfigError(f"{path}: expected one line, the version of the prompt set")
    return lines[0].strip()


def _injector_file(mode: Mode) -> str:
    return f"injector_{mode.value}"


def _section(sections: dict[tuple[str, str | None], str], role: str, output_format: str | None) -> str | None:
    """The section for this format, else the one for all formats."""
    return sections.get((role, output_format), sections.get((role, None)))


def _text(path: Path) -> str:
    """A file's text. Raises ConfigError, also for a pipe, which would be waited for, and a device, which never ends."""
    try:
        if path.exists() and not path.is_file():
            raise OSError("is no regular file")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: this file of the prompt set is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text ({error})") from error


def _read_sections(path: Path) -> dict[tuple[str, str | None], str]:
    text = _text(path)
    heads = list(_SECTION.finditer(text))
    sections: dict[tuple[str, str | None], str] = {}
    if before := text[: heads[0].start() if heads else len(text)].strip():
        sections["user", None] = before
    for number, head in enumerate(heads, start=1):
        key = (head.group(1), head.group(2))
        if key in sections:
            raise ConfigError(f"{path}: the section {head.group().strip()!r} occurs twice")
        sections[key] = text[head.end() : heads[number].start() if number < len(heads) else len(text)].strip()
    return sections


def _check(path: Path, sections: dict[tuple[str, str | None], str], own: _Placeholders | None) -> None:
    """``own``: the placeholders of a file that is not the injector's."""
    injector = own is None
    allowed = {"note", "sentences"} if own is None else own.allowed
    for (role, output_format), template in sections.items():
        if not template:
            raise ConfigError(f"{path}: the section '{role} {output_format or ''}'".rstrip() + " is empty")
        for name in _placeholders(path, template) - allowed:
            raise ConfigError(f"{path}: unknown placeholder {{{name}}}; known: {', '.join(sorted(allowed))}")
    if not injector and any(output_format for _, output_format in sections):
        raise ConfigError(f"{path}: the {path.stem} has one output format; use '=== user ===' and '=== system ==='")
    found = False
    for output_format in FORMATS if injector else (None,):
        user = _section(sections, "user", output_format)
        if user is None:
            continue
        present = _placeholders(path, user)
        for name in sorted(own.needed - present) if own is not None else ():
            raise ConfigError(f"{path}: the placeholder {{{name}}} is missing")
        needed = _NEEDED[output_format] if output_format else next(iter(own.needed if own else ("note",)))
        specific = (("user", output_format) in sections) or not injector
        if needed in present:
            found = True
        elif specific or output_format == "edit":
            raise ConfigError(f"{path}: the placeholder {{{needed}}} is missing")
    if not found:
        raise ConfigError(f"{path}: there is no user section")


def _placeholders(path: Path, template: str) -> set[str]:
    names = set()
    for match in _PLACEHOLDER.finditer(template):
        if match.group(1) is not None:
            names.add(match.group(1))
        elif match.group() in "{}":
            raise ConfigError(f"{path}: a single {match.group()!r}; write '{match.group() * 2}' for a literal brace")
    return names


def _fill(template: str, values: dict[str, str]) -> str:
    """Fill every placeholder in one pass, so that braces inside a note stay what they are."""

    def replace(match: re.Match[str]) -> str:
        return values[match.group(1)] if match.group(1) is not None else match.group()[0]

    return _PLACEHOLDER.sub(replace, template)
