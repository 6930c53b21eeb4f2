"""Texts as the change filter compares them."""

from medserl.game.vcf import visible_words

# What makes joining the words of an ASCII text change it: two spaces, and all white space that is no space.
_ASCII_GAPS = ("  ", "\n", "\r", "\t", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x1f")


def normalised(text: str) -> str:
    """The visible words joined by single spaces, as `medserl.game.vcf.apply_vcf` sees them."""
    if text.isascii():
        for gap in _ASCII_GAPS:
            if gap in text:
                break
        else:
            return text.strip(" ")  # the same, ten times faster
    return " ".join(visible_words(text))
