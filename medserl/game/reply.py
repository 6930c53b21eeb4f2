"""A reply's answer part and its fields: what both roles' parsers read, in whatever dress it comes.

Dress is what cannot be misread: bold, bullets, code fences, a JSON object, other quotes or none, other case.
"""

import json
import re
from enum import StrEnum
from typing import NamedTuple

OPEN, CLOSE = "<think>", "</think>"
_KEYS = (
    *("final_answer", "error_sentence_id", "corrected_sentence"),
    *("sentence_id", "new_sentence", "generated_note", "old_phrase", "new_phrase"),
)
_DRESS = "*_`\"'“”‘’ \t"
_FIELD = re.compile(
    rf"(?:(?:[-*+>•]|#+|\d{{1,2}}[.)])[ \t]+)*[{_DRESS}]*({'|'.join(key.replace('_', '[ _-]?') for key in _KEYS)})"
    rf"[{_DRESS}]*[:=](.*)",
    re.IGNORECASE | re.DOTALL,
)
_STRICT = re.compile(rf"[ \t]*({'|'.join(_KEYS)}):(.*)", re.DOTALL)
_BRACED = re.compile(r"^\{([^{}:,]*:[^{}:,]*)\}$")
_FENCE = re.compile(r"[ \t]*(?:```|~~~)[\w-]*[ \t]*$")
_PAIRS = {'"': '"', "“": "”", "„": "“", "'": "'", "‘": "’", "`": "`", "«": "»", "*": "*", "_": "_"}


class Form(StrEnum):
    """How an assessor's reply states its verdict, or why it has none."""

    STRICT = "strict"
    JSON = "JSON"
    BARE = "the verdict alone"
    MARKDOWN = "Markdown"
    CASE = "other case"
    UNQUOTED = "no quotes"
    QUOTES = "other quotes"
    LAYOUT = "other spacing or punctuation"
    SILENT = "no verdict"
    BOTH = "both verdicts"
    MISPLACED = "a verdict, but not on a line of its own at the end"
    INCOMPLETE = "the other lines missing or wrong"
    UNFINISHED = "reasoning without an end"


class Field(NamedTuple):
    """A line ``key: value``, or a member of a JSON object."""

    key: str
    value: str
    """Without the white space around it and without bold marks; quotes are still there."""
    form: Form
    """STRICT, or what key and line are dressed in: JSON, MARKDOWN, CASE, LAYOUT."""

    @property
    def strict(self) -> bool:
        return self.form is Form.STRICT

    @property
    def json(self) -> bool:
        return self.form is Form.JSON


class Body(NamedTuple):
    """The answer part of a reply."""

    fields: list[Field]
    last: bool
    """Whether the last field is the last thing that is said."""
    text: str
    """All of it, without code fences."""


PROMPT_TAIL = 16
"""So many of a prompt's last tokens are enough for `opens_thinking`."""


def opens_thinking(prompt: str) -> bool:
    """Whether a rendered prompt ends in an open ``<think>``: what the model writes then is reasoning."""
    return prompt.rstrip().endswith(OPEN)


def split_think(text: str, opened: bool = False) -> tuple[str, str]:
    """What is outside ``<think>…</think>``, and what is inside.

    A block is closed once; a further ``</think>`` is dropped. ``opened``: the prompt opened a block, so that without
    ``</think>`` all is inside. A block may also have been opened where nobody said so: before a first ``</think>``
    without ``<think>`` all is inside, if anything follows it.
    """
    outside: list[str] = []
    inside: list[str] = []
    first = text.find(CLOSE)
    stray = first >= 0 and not 0 <= text.find(OPEN) < first
    thinking = opened or (stray and text[first:].replace(CLOSE, "").strip() != "")
    place = 0
    while place >= 0:  # not an expression: "<think>" repeated without an end would take quadratic time
        end = text.find(CLOSE if thinking else OPEN, place)
        piece = text[place:] if end < 0 else text[place:end]
        inside += [piece] if thinking else []
        outside += [] if thinking else [piece.replace(CLOSE, "")]
        place = end + len(CLOSE if thinking else OPEN) if end >= 0 else -1
        thinking = not thinking
    answer = "".join(outside).strip()
    # Halves of tags that meet are no accident, and nothing of such a reply is an answer.
    return ("" if OPEN in answer or CLOSE in answer else answer), " ".join(inside).strip()


def read_body(answer: str) -> Body:
    """The fields of an answer part, in order."""
    lines = answer.splitlines()
    kept = [line for line in lines if not _FENCE.match(line)]
    text = "\n".join(kept).strip()
    if (members := _json_members(text)) is not None:
        return Body(members, True, text)
    fenced = len(kept) < len(lines)
    fields: list[Field] = []
    last, hanging = False, False
    for line in kept:
        if not line.strip():
            continue
        match = _FIELD.fullmatch(_BRACED.sub(r"\1", line.strip()))
        if match is not None:
            key = re.sub("[ -]", "_", match.group(1).lower())
            key = next(known for known in _KEYS if known.replace("_", "") == key.replace("_", ""))
            value = match.group(2).strip()
            bare = _without_marks(value)
            form = Form.MARKDOWN if fenced or bare != value else _dress(line, match.group(1), key)
            fields.append(Field(key, bare, form))
            last, hanging = True, not bare
        elif hanging and fields[-1].key == "final_answer":  # the verdict on the line after its key
            fields[-1] = Field("final_answer", _without_marks(line.strip()), Form.LAYOUT)
            hanging = False
        else:
            last = hanging = False
    return Body(fields, last, text)


def _dress(line: str, written: str, key: str) -> Form:
    if _STRICT.fullmatch(line):
        return Form.STRICT
    head = line[: line.find(written)]
    if head.strip() or any(mark in line.partition(written)[2].partition(":")[0] for mark in "*_`"):
        return Form.MARKDOWN
    return Form.CASE if written != key and written.lower() == key else Form.LAYOUT


def _without_marks(value: str) -> str:
    """Without bold around the value, or left over from around the key (``**key:** value``)."""
    for mark in ("**", "__"):
        if mark + mark[0] in value:  # what stands for a name in notes without names
            continue
        if value.startswith(mark) and not value.endswith(mark) and value.count(mark) == 1:
            value = value[2:].strip()
        elif value.endswith(mark) and value.count(mark) == 1:
            value = value[:-2].strip()
    return value


def unquoted(value: str, like: str = "") -> str:
    """Without quotes or marks around the whole value, unless ``like`` has them too."""
    while len(value) > 1 and _PAIRS.get(value[0]) == value[-1]:
        inner, opener = value[1:-1], value[0]
        if like[:1] == opener and like[-1:] == value[-1]:
            break
        if any(inner.count(mark) != like.count(mark) for mark in {opener, value[-1]}) and opener not in "*_":
            break
        value = inner.strip()
    return value


def index_of(value: str) -> int | None:
    """A number, with a bracket or quotes around it or without; None where it is none."""
    match = re.fullmatch(r"[\[(<#\"'“‘`*_ ]*(-1|[0-9]{1,6})[\])>\"'”’`*_.:, ]*", value)
    return int(match.group(1)) if match else None


def _json_members(text: str) -> list[Field] | None:
    """The known keys of the JSON object that ends the text; None where there is none."""
    if not text.endswith("}"):
        return None
    begins = [0] if text.startswith("{") else []
    if (found := text.rfind("\n{")) >= 0:
        begins.append(found + 1)
    for begin in begins:
        try:
            pairs = json.loads(text[begin:], object_pairs_hook=list)
        except (ValueError, RecursionError):
            continue
        if isinstance(pairs, list):
            named = [(str(key).lower(), value) for key, value in pairs]
            return [Field(key, _plain(value), Form.JSON) for key, value in named if key in _KEYS]
    return None


def _plain(value: object) -> str:
    if value is None:
        return ""
    return " ".join(str(value).split()) if isinstance(value, str | int) else ""
