"""What a cell holds: text, a number, or nothing, whatever program wrote it."""

import re
import unicodedata
from decimal import Decimal
from functools import cache

from medserl.game.vcf import visible_words

MISREAD = (
    "holds UTF-8 text that was read as Windows-1252 and saved again (`medserl data prepare --repair-text` repairs it)"
)
REPAIRED = "held UTF-8 text that was read as Windows-1252 and saved again; repaired"
LINE_MARKS = "holds a spreadsheet's marks for control characters (_x000D_), which were taken as such"

_NOTHING = frozenset(("", "na", "n/a", "nan", "none", "null", "<na>", "#n/a", "nil"))
_SPREADSHEET_ERRORS = frozenset(("#NAME?", "#REF!", "#VALUE!", "#DIV/0!", "#NUM!", "#NULL!"))
"""What a cell shows whose text was taken for a formula, as one that begins with "-" or "=" is."""
_SHORT = 16  # no word for nothing is longer
_SPREADSHEET = re.compile(r"_x00(0[0-9A-Fa-f]|1[0-9A-Fa-f])_(?:(?<=_x000[dD]_)\r?\n)?")
LINE_ENDS = re.compile("\r\n|[\n\r\v\f\x1c-\x1e\u2028\u2029]")

CHAT_TOKEN = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|<\uff5c[^\uff5c<>\s]{1,40}\uff5c>|</?s>|\[/?(?:INST|THINK)\]|<</?SYS>>"
    r"|</?(?i:think|thinking|tool_call|tool_response|bos|eos|pad|unk|start_of_turn|end_of_turn)\s*>"
)
"""What ends a turn, or begins one, in the chat templates of today's models."""


def is_nothing(value: object) -> bool:
    """Whether a cell holds nothing: null, NaN, white space or invisible characters only, or a word for nothing."""
    if value is None:
        return True
    if isinstance(value, str):
        if len(value) < _SHORT and value.strip().casefold() in _NOTHING:
            return True
        return value.isspace() or (not value[:1].isalnum() and not _readable(value))
    return isinstance(value, float | Decimal) and value != value


def _readable(value: str) -> bool:
    return any(
        unicodedata.category(character) not in ("Cc", "Cf") for word in visible_words(value) for character in word
    )


def text_problem(value: object) -> str | None:
    """Why a cell is not text, or must not be in a prompt; None where it may."""
    if not isinstance(value, str):
        return f"must be a string, not {type(value).__name__}"
    if value[:1] == "#" and value.strip() in _SPREADSHEET_ERRORS:
        return f"is a spreadsheet's error ({value.strip()}) in place of a text; mend the formula, or write text as text"
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return "holds half of a surrogate pair, which is not text"
    if "\0" in value:
        return "holds a NUL character, which is binary data, not text"
    if ("<" in value or "[" in value) and (token := CHAT_TOKEN.search(value)):
        return f"holds the chat token {token.group()}, which would end or begin a turn of the prompt; take it out"
    return None


def without_spreadsheet_marks(value: str) -> str:
    """``_x000D_`` and its like as the control characters that they stand for; a carriage return as a line end."""
    return _SPREADSHEET.sub(lambda mark: _control(mark.group(1)), value)


def _control(code: str) -> str:
    character = chr(int(code, 16))
    return "\n" if character in "\r\n\v\f" else character if character == "\t" else ""


# ---------------------------------------------------------------------------------------------- numbers

_INTEGER = re.compile(r"[+-]?\d{1,9}(?:\.0{1,9})?$")
_FLAGS = {"0": False, "1": True, "false": False, "true": True}


def whole_number(value: object) -> int | None:
    """An integer as number or string (``3``, ``3.0``, ``"3"``, ``"3.0"``); None for all else, a boolean included."""
    if isinstance(value, str):
        return int(float(value)) if _INTEGER.match(value := value.strip()) else None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    small = -(10**9) < value < 10**9
    return int(value) if small and value == int(value) else None


def flag_of(value: object) -> bool | None:
    """0 or 1, false or true, as number, boolean or string; None for all else."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and (word := value.strip().casefold()) in _FLAGS:
        return _FLAGS[word]
    number = whole_number(value)
    return bool(number) if number in (0, 1) else None


def shown_value(value: object) -> str:
    """What an error may say of a cell: a short number as it is, else only how long it is."""
    number = whole_number(value)
    if number is not None:
        return f"is '{number}'"
    return f"holds {len(value)} characters" if isinstance(value, str) else f"is a {type(value).__name__}"


def shown_id(note_id: str) -> str:
    """A note's id in quotes; its length where it does not look like an id."""
    usual = len(note_id) <= 64 and note_id.isprintable() and " " not in note_id
    return repr(note_id) if usual else f"({len(note_id)} characters)"


# ------------------------------------------------------------------------------------------- misread text


def _windows(byte: int) -> str:
    try:
        return bytes((byte,)).decode("cp1252")
    except UnicodeDecodeError:
        return chr(byte)  # five bytes have no character; programs keep them as control characters


_BYTES = {chr(byte): byte for byte in range(0x80, 0x100)} | {_windows(byte): byte for byte in range(0x80, 0x100)}


def _class(first: int, last: int) -> str:
    return "[" + re.escape("".join(c for c, byte in _BYTES.items() if first <= byte <= last)) + "]"


@cache  # compiled when the first text that is not ASCII is read, not when the game is imported
def _sequence() -> re.Pattern[str]:
    follows = _class(0x80, 0xBF)
    return re.compile(
        f"{_class(0xC2, 0xDF)}{follows}|{_class(0xE0, 0xEF)}{follows}{{2}}|{_class(0xF0, 0xF4)}{follows}{{3}}"
    )


_CONTROLS = re.compile("[\x80-\x84\x86-\x9f]")  # not U+0085, which is a line end
# What a note may well hold; "É…" and "café”—" would be letters of Africa and Asia, and are left as they are.
_PLAUSIBLE = re.compile(
    "[\x81\x8d\x8f\x90\x9d\u00a0-\u00ff\u0106\u0107\u010c\u010d\u0141\u0142\u0152\u0153\u0160\u0161\u0178\u017d\u017e"
    "\u02c6\u02da\u02dc\u0391-\u03d6"
    "\u2000-\u206f\u2070-\u209f\u20a0-\u20bf\u2100-\u23ff\u2500-\u27bf\u2a7d\u2a7e\ufb00-\ufb06\ufeff\ufffd"
    "\U0001f300-\U0001faff]"
)


def repaired(text: str) -> str:
    """``text`` with UTF-8 that was read as Windows-1252 (or Latin-1) put right, up to three times over.

    The same object comes back where there is nothing to put right.
    """
    if text.isascii():
        return text
    for _ in range(3):
        better = _sequence().sub(_decoded, text)
        if better == text:
            break
        text = better
    return _CONTROLS.sub(lambda match: _windows(ord(match.group())), text)


def _decoded(match: re.Match[str]) -> str:
    try:
        character = bytes(_BYTES[c] for c in match.group()).decode("utf-8")
    except UnicodeDecodeError:
        return match.group()
    return character if _PLAUSIBLE.match(character) else match.group()
