"""A reply's answer part and its fields: what both roles' parsers read, in whatever dress it comes.

Dress is what cannot be misread: bold, bullets, code fences, a JSON object, tags, a table's row, other quotes or none,
other case. A reply is as long as its model likes, so that no pattern here may take quadratic time: hence ``*+``.
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from medserl.game.objects import objects

OPEN, CLOSE = "<think>", "</think>"
_THINK = re.compile(r"(?:<(/?)think(?:ing)?>|\[(/?)THINK\])", re.IGNORECASE)
"""The tags of reasoning, whatever model writes them; Mistral's are in brackets."""
_KEYS = (
    *("final_answer", "error_sentence_id", "corrected_sentence"),
    *("sentence_id", "new_sentence", "generated_note", "old_phrase", "new_phrase"),
)
OTHER_KEY = "answer"
"""Key of a field that is called ``answer`` or ``verdict``: a verdict, where it holds one and nothing else."""
_NAMES = {key.replace("_", ""): key for key in _KEYS} | dict.fromkeys(("answer", "verdict", "finalverdict"), OTHER_KEY)
QUOTES = "\"'“”„‟‘’‚‛«»‹›「」『』＂()[]"
_DRESS = "*_`\"'“”„‘’ \t"
_JOINT = r"(?:\\_|[ _-])?"  # Markdown escapes an underscore
_KEY = "|".join([*(key.replace("_", _JOINT) for key in _KEYS), f"answer|verdict|final{_JOINT}verdict"])
_JOINTS = re.compile(r"[ _\\-]")
_FIELD = re.compile(
    rf"(?:(?:[-*+>•]|#++|\d{{1,2}}[.)])[ \t]++)*+[{_DRESS}]*+({_KEY})[{_DRESS}]*+(?:[:=：](.*))?",
    re.IGNORECASE | re.DOTALL | re.ASCII,  # without ASCII, dotless and dotted i and the long s are letters of the keys
)
_STRICT = re.compile(rf"[ \t]*({'|'.join(_KEYS)}):(.*)", re.DOTALL)
_BRACED = re.compile(r"^\{([^{}:,]*:[^{}:,]*)\}$")
_FENCE = re.compile(r"[ \t]*(?:```|~~~)[\w-]*[ \t]*$")
_TAG = re.compile(r"</?[a-z_]{1,20}/?>", re.IGNORECASE)
_TAGGED = re.compile(rf"<({_KEY})>(?:(.*)</\1>)?", re.IGNORECASE | re.DOTALL | re.ASCII)
_TAG_ENDS = re.compile(rf"(?=<(?:{_KEY})>)|(?<=</)((?:{_KEY})>)", re.IGNORECASE | re.ASCII)
_HTML = re.compile(r"</?(?:b|strong|i|em|u|p|span|code|mark|div|h[1-6]|br)(?: [^<>]{0,100})?/?>", re.IGNORECASE)
_ROW = re.compile(r"\|([^|]*)\|([^|]*)\|")
_PAIRS = {'"': '"', "“": "”", "„": "“", "'": "'", "‘": "’", "`": "`", "«": "»", "*": "*", "_": "_"} | {
    "‚": "‘",
    "‹": "›",
    "「": "」",
    "『": "』",
    "＂": "＂",
}


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
    TAGS = "HTML or XML"
    KEY = "another key"
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
    """STRICT, or what key and line are dressed in: JSON, MARKDOWN, TAGS, KEY, CASE, LAYOUT."""

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


_TAIL = 64  # characters
PROMPT_TAIL = 16
"""So many of a prompt's last tokens are enough for `opens_thinking`."""


def opens_thinking(prompt: str) -> bool:
    """Whether a rendered prompt ends in an open ``<think>``: what the model writes then is reasoning."""
    return _canonical(prompt[-_TAIL:].rstrip()).endswith(OPEN)


def _canonical(text: str) -> str:
    """With every tag of reasoning as ``<think>`` or ``</think>``."""
    return _THINK.sub(lambda tag: CLOSE if tag.group(1) or tag.group(2) else OPEN, text)


def split_think(text: str, opened: bool = False) -> tuple[str, str]:
    """What is outside ``<think>…</think>``, and what is inside; also in other tags of reasoning (`_THINK`).

    Reasoning without an end is cut off, and nothing of such a reply is an answer, not what stands before it either. A
    block is closed once; a further ``</think>`` is dropped. ``opened``: the prompt opened a block, so that without
    ``</think>`` all is inside. A block may also have been opened where nobody said so: before a first ``</think>``
    without ``<think>`` all is inside, if anything follows it.
    """
    text = _canonical(text)
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
    cut = not thinking or _THINK.search(answer) is not None  # the loop has turned it once more
    return "" if cut else answer, " ".join(inside).strip()


def read_body(answer: str) -> Body:
    """The fields of an answer part, in order."""
    lines = answer.splitlines()
    kept = [line for line in lines if not _FENCE.match(line)]
    fenced = len(kept) < len(lines)
    text = "\n".join(kept).strip()
    fields: list[Field] = []
    place, last = 0, False
    for begin, end, pairs in objects(text, python=not _BRACED.fullmatch(text)):
        if members := _members(pairs):
            _read_lines(text[place:begin], fenced, fields)
            fields += members
            place, last = end, True
    if text[place:].strip(" \n]"):
        last = _read_lines(text[place:], fenced, fields)
    return Body([_not_strict(field, Form.LAYOUT) for field in fields] if place else fields, last, text)


def _not_strict(field: Field, form: Form) -> Field:
    return field._replace(form=form) if field.strict else field


def _read_lines(text: str, fenced: bool, fields: list[Field]) -> bool:
    """Append the fields of lines; whether the last of them is the last thing that is said."""
    last, hanging = False, False
    for line in (_TAG_ENDS.sub(_own_line, text) if "</" in text else text).splitlines():
        if not line.strip():
            continue
        found = _field(line, fenced)
        if found is not None:
            fields.append(found)
            last, hanging = True, not found.value
        elif hanging and fields[-1].key in ("final_answer", OTHER_KEY):  # the verdict on the line after its key
            form = fields[-1].form if fields[-1].form in (Form.TAGS, Form.KEY) else Form.LAYOUT
            fields[-1] = Field(fields[-1].key, _without_marks(line.strip()), form)
            hanging = False
        elif not _TAG.fullmatch(line.strip()):
            last = hanging = False
        elif last:  # a tag behind it
            fields[-1] = _not_strict(fields[-1], Form.TAGS)
    return last


def _own_line(tag: re.Match[str]) -> str:
    return f"{tag.group(1)}\n" if tag.group(1) else "\n"


def _field(line: str, fenced: bool) -> Field | None:
    """The field that a line is."""
    bare = _BRACED.sub(r"\1", line.strip())
    if (row := _ROW.fullmatch(bare)) is not None:
        bare = f"{row.group(1).strip()}: {row.group(2).strip()}"
    if (tagged := _TAGGED.fullmatch(bare)) is not None:
        return Field(_key(tagged.group(1)), (tagged.group(2) or "").strip(), Form.TAGS)
    match = _FIELD.fullmatch(bare)
    plain = match or ("<" in bare and _FIELD.fullmatch(without_tags(bare))) or None
    if plain is None:
        return None
    key, value = _key(plain.group(1)), plain.group(2)
    if value is None and key not in ("final_answer", OTHER_KEY):
        return None  # a line with nothing but the key is a heading over a verdict, and over nothing else
    if value is None:
        return Field(OTHER_KEY, "", Form.LAYOUT)
    escaped = "\\_" in plain.group(1)
    value = value.replace("\\_", "_").strip() if escaped else value.strip()
    if plain.string[: plain.start(1)].endswith(('"', "'")) and value[-2:] in ('",', "',"):
        value = value[:-1]  # a line of an object that is no JSON
    marked = _without_marks(value)
    if match is None:
        form = Form.TAGS
    elif fenced or escaped or marked != value or row is not None:
        form = Form.MARKDOWN
    else:
        form = Form.KEY if key == OTHER_KEY else _dress(line, plain.group(1), key)
    return Field(key, marked, form)


def _key(written: str) -> str:
    return _NAMES[_JOINTS.sub("", written.lower())]


def once(fields: Sequence[Field]) -> list[Field]:
    """Without fields that repeat an earlier one: a reply that says the same again says one thing, not strictly."""
    found: dict[tuple[str, str], Field] = {}
    for field in fields:
        known = found.get((field.key, field.value))
        found[field.key, field.value] = _not_strict(known, Form.LAYOUT) if known else field
    return list(found.values())


def after_key(text: str, key: str) -> str:
    """What stands behind the first line start ``key:`` of a text, to its end; empty where there is none."""
    place = 0
    for line in text.splitlines(keepends=True):
        match = _FIELD.fullmatch(line.strip())
        if match is not None and match.group(2) is not None and _key(match.group(1)) == key:
            return text[place + len(line) - len(line.lstrip()) + match.start(2) :].strip()
        place += len(line)
    return ""


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


_STOPS = (".", ",", ";", ":", "!", "?")
_LAYERS = 8
"""Of quotes and marks around a value, at most: each costs its length."""
_NUMBER = re.compile(
    r"(?:(?:sentence|line|number|no\.?|nr\.?|№)[ \t]{0,4})?[\[(<#\"'“„‘«`*_ ]*+([-\u2212\u2013]1|[0-9]{1,6})"
    r"[\])>\"'”“’»`*_.:, ]*+",
    re.IGNORECASE | re.ASCII,
)


_BULLET = re.compile(r"(?:[*•][ \t]+|[-+>][ \t]+(?!\d))(?=\S)")  # "- 5" and "> 5" may be the note's
_BRACKETS = {"[": "]", "(": ")", "<": ">"}  # in the last, the prompt names what to write


def undressed(value: str, like: str = "") -> str:
    """Without what a list, a quotation, quotes, brackets or a code fence left around a value, where ``like``, which it
    replaces, has nothing of the kind."""
    if "`" not in like:
        value = value.removesuffix("```").rstrip()
    if not _BULLET.match(like) and (bullet := _BULLET.match(value)) is not None:
        value = value[bullet.end() :]
    value = unquoted(value, like)
    inner = value[1:-1]
    if value[:1] != like[:1] and _BRACKETS.get(value[:1]) == value[-1:] and not set(inner) & {value[0], value[-1]}:
        value = inner.strip()
    for quote in '"“”':
        if value.count(quote) == 1 and value.strip('"“”') == value.replace(quote, "") and quote not in like:
            value = value.replace(quote, "").strip()
    return unquoted(value, like)


def unquoted(value: str, like: str = "") -> str:
    """Without quotes, marks or tags around the whole value, unless ``like`` has them too; a stop behind the closing
    quote stays where ``like`` ends in it."""
    stop = value[-1:]
    if stop in _STOPS and len(value) > 2 and _PAIRS.get(value[0]) == value[-2] and like[:1] != value[0]:
        inner = unquoted(value[:-1], like)
        if inner != value[:-1]:
            return inner + stop if like.endswith(stop) and not inner.endswith(_STOPS) else inner
    for _ in range(_LAYERS):
        if value[:1] == "<" and "<" not in like:
            value = _without_tags(value)
        if len(value) < 2 or _PAIRS.get(value[0]) != value[-1]:
            break
        inner, opener = value[1:-1], value[0]
        if like[:1] == opener and like[-1:] == value[-1]:
            break
        if any(inner.count(mark) != like.count(mark) for mark in {opener, value[-1]}) and opener not in "*_":
            break
        value = inner.strip()
    return value


def without_tags(text: str) -> str:
    """Without HTML's tags for bold and the like, wherever they stand."""
    return _HTML.sub("", text) if "<" in text else text


def _without_tags(value: str) -> str:
    opening = _HTML.match(value)
    closing = value.rfind("</")
    if opening is None or closing < opening.end() or not _HTML.fullmatch(value, closing):
        return value
    return value[opening.end() : closing].strip()


def index_of(value: str) -> int | None:
    """A number, with a bracket, quotes or the word "sentence" around it or without; None where it is none."""
    match = _NUMBER.fullmatch(value)
    return int(re.sub("[\u2212\u2013]", "-", match.group(1))) if match else None


def _members(pairs: Sequence[tuple[object, object]]) -> list[Field]:
    """The known keys of an object; its members have no order, but a parser goes by it."""
    found = []
    for key, value in pairs:
        known = _NAMES.get(_JOINTS.sub("", str(key).lower()))
        if known is not None:
            found.append(Field(known, _plain(value), Form.JSON))
    return sorted(found, key=lambda field: (OTHER_KEY, *_KEYS).index(field.key))


def _plain(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return " ".join(str(value).split()) if isinstance(value, str | int) else ""
