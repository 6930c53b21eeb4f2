"""From a row to labelled examples: the reader's, which the game has too (`medserl.game.convert`)."""

from medserl.game.convert import Converted, Dropped, convert
from medserl.game.numbered import find_sentence, numbered_lines

__all__ = ["Converted", "Dropped", "convert", "find_sentence", "numbered_lines"]
