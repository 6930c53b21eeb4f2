"""Objects in a reply's text, as JSON writes them, or Python."""

import ast
import json
import re
import warnings
from collections.abc import Iterator
from itertools import islice
from typing import Any

_BEGIN = re.compile(r"\{\s*+[\"'\w]")
_MOST, _MOST_LITERALS = 20, 3
"""So many braces are looked at as the beginning of an object, of JSON or of Python: each may cost the whole text."""
_DECODER = json.JSONDecoder(object_pairs_hook=list, strict=False)

Pairs = list[tuple[Any, Any]]
"""Keys and values in the order of the text; a key may be there twice."""


def objects(text: str, python: bool) -> Iterator[tuple[int, int, Pairs]]:
    """From where to where objects stand in a text, one after the other, and what is in them.

    Inner ones come with the outer one. With ``python``, the last thing in braces is also read as Python writes it, with
    single quotes or a comma too many.
    """
    place, literals = 0, 0
    closing = text.rfind("}") + 1
    for match in islice(_BEGIN.finditer(text, 0, closing), _MOST):
        begin = match.start()
        if begin < place:
            continue
        try:
            pairs, end = _DECODER.raw_decode(text, begin)
        except (ValueError, RecursionError):
            if not python or literals == _MOST_LITERALS:
                continue
            pairs, end = _literal(text[begin:closing]), closing
            literals += 1
        if pairs:
            yield begin, end, pairs
            place = end


def _literal(text: str) -> Pairs:
    """The pairs of a dict as Python writes it; none where it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a backslash in a note is no escape
            tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    if not isinstance(tree, ast.Dict):
        return []
    return [(_value(key), _value(value)) for key, value in zip(tree.keys, tree.values, strict=True)]


def _value(node: ast.expr | None) -> Any:
    """A constant or a negative number; None for null, and for what is neither."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _value(node.operand)
        return -number if isinstance(number, int | float) else None
    return node.value if isinstance(node, ast.Constant) else None
