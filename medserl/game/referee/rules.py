"""The referee of verifiable edit classes.

Both notes are brought to a canonical sequence of tokens in which whitelisted synonyms, formatting and equal
quantities ("500 mg", "0.5 g") are the same token; what still differs is classified piece by piece. Whatever
cannot be decided this way is void: this referee is meant to be right where it speaks, not to speak often.
"""

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from medserl.game.align import Alignment, align_words
from medserl.game.labels import Mode
from medserl.game.records import Note
from medserl.game.referee.base import Referee, Ruling, RulingKind, register_referee
from medserl.game.referee.canonical import Lexicon, Token, shipped_lexicon
from medserl.game.referee.reworded import negated_already, other_measure, reordered
from medserl.game.sentences import sentence_texts

_MAX_EDITS = 24  # of canonical tokens; more cannot be a single small edit
_SAME_QUANTITY = 1.2  # a smaller factor between two doses or times may be rounding


class Piece(NamedTuple):
    """One stretch that differs: its tokens before and after the edit, and where they begin."""

    removed: list[Token]
    added: list[Token]
    place: int
    place_after: int


@register_referee
class RulesReferee(Referee):
    """Error: laterality, location, polarity, negation, dose, unit, frequency or time scale changed, or the
    note's own gold error. Benign: synonyms and formatting only. Lossy: facts only removed. Else void, so too where
    phrases only changed places ("the left leg is shorter" for "the right leg is longer"), a negation is repeated over
    its list, a count is said as a mass, another drug has another dose, or what went had qualified what stays."""

    name: ClassVar[str] = "rules"

    def __init__(self) -> None:
        self._lexicon = shipped_lexicon()

    def rule(self, note: Note, mode: Mode, modified: str) -> Ruling:
        before = self._lexicon.tokens(note.text)
        after = self._lexicon.tokens(modified)
        if before == after:
            return Ruling(RulingKind.BENIGN, "synonym_or_formatting")
        if note.error_text is not None and after == self._lexicon.tokens(note.error_text):
            return Ruling(RulingKind.ERROR, "gold_error")
        alignment = align_words(before, after, _MAX_EDITS)
        if alignment is None:
            return Ruling(RulingKind.VOID, "undecided")
        pieces = _pieces(before, after, alignment)
        rulings = [self._rule_piece(piece) for piece in pieces]
        if any(ruling.kind is RulingKind.ERROR for ruling in rulings):
            if reordered(note.text, modified, self._lexicon) or self._turned_round(pieces):
                return Ruling(RulingKind.VOID, "reordered")
            rulings = self._weighed(note.text, modified, before, after, pieces, rulings)
        rulings = [
            self._checked_loss(ruling, piece, before, after) for ruling, piece in zip(rulings, pieces, strict=True)
        ]
        # One proven error makes the note wrong, whatever else changed; an open question leaves the rest open.
        for kind in (RulingKind.ERROR, RulingKind.VOID, RulingKind.LOSSY):
            for ruling in rulings:
                if ruling.kind is kind:
                    return ruling
        return Ruling(RulingKind.BENIGN, "synonym_or_formatting")

    def _turned_round(self, pieces: Sequence[Piece]) -> bool:
        """Whether words changed places and others changed beside them: "the left leg is shorter than the right" says
        the same as "the right leg is longer than the left"."""
        out = Counter(token for piece in pieces for token in piece.removed if token.text not in self._lexicon.fillers)
        came = Counter(token for piece in pieces for token in piece.added if token.text not in self._lexicon.fillers)
        return bool(out & came) and out != came

    def _checked_loss(self, ruling: Ruling, piece: Piece, before: list[Token], after: list[Token]) -> Ruling:
        """Void in place of lossy where what went may have said more than less: it qualified the rest ("possible
        pneumonia"), was the lower end of a range, or still stands in the note ("normal S1 and normal S2")."""
        if ruling.kind is not RulingKind.LOSSY:
            return ruling
        removed = [token for token in piece.removed if token.text not in self._lexicon.fillers]
        end = piece.place + len(piece.removed)
        number_left = end < len(before) and before[end].kind not in ("", "age")
        if all(token.text in self._lexicon.wording for token in removed):
            return Ruling(RulingKind.VOID, "wording")
        if any(token.text in self._lexicon.qualifiers for token in removed):
            return Ruling(RulingKind.VOID, "qualifier_removed")
        fraction = any(c.isnumeric() and not c.isdecimal() for token in removed for c in token.text)
        if fraction or (number_left and any(token.kind == "number" for token in removed[-2:])):
            return Ruling(RulingKind.VOID, "other_number")
        if set(removed) <= set(after):
            return Ruling(RulingKind.VOID, "repetition")
        return ruling

    def _weighed(
        self,
        original: str,
        modified: str,
        before: list[Token],
        after: list[Token],
        pieces: list[Piece],
        rulings: list[Ruling],
    ) -> list[Ruling]:
        """The rulings, void where the note around a piece takes its error back, and where two turns of one sentence may
        say the same again ("no longer abnormal")."""
        starts, starts_after = self._starts(original), self._starts(modified)
        weighed = list(rulings)
        for i, (piece, ruling) in enumerate(zip(pieces, rulings, strict=True)):
            if ruling.reason != "negation":
                continue
            lost, gained = ({t.text for t in side} & self._lexicon.negators for side in (piece.removed, piece.added))
            denied = not (lost and gained) and (
                # A negation that came is no news where the list was denied before, nor is the loss of one.
                negated_already(before, piece.place, starts, self._lexicon)
                and not {t.text for t in piece.removed} & self._lexicon.negation_ends
                if gained
                else negated_already(after, piece.place_after, starts_after, self._lexicon)
                and not {t.text for t in piece.added} & self._lexicon.negation_ends
            )
            if denied:
                weighed[i] = Ruling(RulingKind.VOID, "negation_repeated")
        for said, found in ((weighed, {"negation", "polarity"}), (rulings, {"negation"})):
            flips = [i for i, ruling in enumerate(said) if ruling.reason in ("negation", "polarity")]
            if len(flips) != 2 or {said[i].reason for i in flips} != found:
                continue
            first, second = (pieces[i] for i in flips)
            one = len({max(start for start in starts if start <= piece.place) for piece in (first, second)}) == 1
            if one and (len(found) == 2 or self._moved(first, second, before)):
                weighed = [
                    Ruling(RulingKind.VOID, "double_negation") if i in flips else r for i, r in enumerate(weighed)
                ]
        return self._of_one_statement(pieces, weighed, starts)

    def _of_one_statement(self, pieces: list[Piece], rulings: list[Ruling], starts: list[int]) -> list[Ruling]:
        """Void where a quantity, or what is denied, changed together with what it is said of: "lisinopril 10 mg" may be
        as right as "metformin 500 mg". A side is the patient's, whatever is said of it."""
        places = [max(start for start in starts if start <= piece.place) for piece in pieces]
        other = {
            place
            for place, piece, ruling in zip(places, pieces, rulings, strict=True)
            if ruling.reason == "undecided" and piece.removed and piece.added
        }
        return [
            Ruling(RulingKind.VOID, "other_statement")
            if ruling.kind is RulingKind.ERROR and place in other and ruling.reason not in ("laterality", "location")
            else ruling
            for ruling, place in zip(rulings, places, strict=True)
        ]

    def _moved(self, first: Piece, second: Piece, before: list[Token]) -> bool:
        """Whether a negation only moved within a statement: "is not taking any" for "is taking no". What a joint parts
        are two statements."""
        negators, joints = self._lexicon.negators, self._lexicon.joints
        lost = sum(token.text in negators for token in (*first.removed, *second.removed))
        gained = sum(token.text in negators for token in (*first.added, *second.added))
        between = before[first.place + len(first.removed) : second.place]
        return lost == gained and not any(token.text in joints for token in between)

    def _starts(self, text: str) -> list[int]:
        """At which tokens of a note its sentences begin."""
        starts = [0]
        for sentence in sentence_texts(text):
            starts.append(starts[-1] + len(self._lexicon.tokens(sentence)))
        return starts

    def _rule_piece(self, piece: Piece) -> Ruling:
        words = self._lexicon
        removed = [token for token in piece.removed if token.text not in words.fillers]
        added = [token for token in piece.added if token.text not in words.fillers]
        if removed == added:
            return Ruling(RulingKind.BENIGN, "formatting")
        if (reason := _opposed(removed, added, words)) or (reason := _negated(removed, added, words)):
            return Ruling(RulingKind.ERROR, reason)
        if len(removed) == len(added) == 1 and (ruling := _quantity(removed[0], added[0], words)):
            return ruling
        if removed and not piece.added and all(_is_fact(token, words) for token in removed):
            return Ruling(RulingKind.LOSSY, "fact_removed")
        return Ruling(RulingKind.VOID, "fact_added" if not removed else "undecided")


def _is_fact(token: Token, words: Lexicon) -> bool:
    """Not a negation and not a bare sign: taking those away says something else rather than less."""
    return token.text not in words.negators and (token.kind != "" or any(map(str.isalnum, token.text)))


def _pieces(before: list[Token], after: list[Token], alignment: Alignment) -> list[Piece]:
    """What lies between the matched stretches."""
    pieces: list[Piece] = []
    i = j = 0
    for start_a, start_b, length in (*alignment.runs, (len(before), len(after), 0)):
        if start_a > i or start_b > j:
            pieces.append(Piece(before[i:start_a], after[j:start_b], i, j))
        i, j = start_a + length, start_b + length
    return pieces


def _opposed(removed: list[Token], added: list[Token], words: Lexicon) -> str | None:
    """The class of an exchange for a word that excludes it (left for right), all else equal."""
    if len(removed) != len(added):
        return None
    reason: str | None = None
    for old, new in zip(removed, added, strict=True):
        if old == new:
            continue
        found = words.exclusive_class(old.text, new.text)
        if found is None:
            return None
        reason = found
    return reason


def _negated(removed: list[Token], added: list[Token], words: Lexicon) -> str | None:
    """ "negation" where the two sides differ by an odd number of negations and say the same otherwise."""

    def parts(tokens: list[Token]) -> tuple[int, list[Token]]:
        negators = sum(token.text in words.negators for token in tokens)
        skipped = words.negators | words.companions
        return negators, [token for token in tokens if token.text not in skipped]

    (count_removed, rest_removed), (count_added, rest_added) = parts(removed), parts(added)
    odd = (count_removed - count_added) % 2 == 1
    return "negation" if odd and rest_removed == rest_added else None


def _quantity(old: Token, new: Token, words: Lexicon) -> Ruling | None:
    """Ruling on one quantity put in the place of another; None where one of the two is none."""
    if "" in (old.kind, new.kind):
        return None
    decidable = ("dose", "time", "frequency")
    if old.kind not in decidable or new.kind not in decidable:
        return Ruling(RulingKind.VOID, "other_number")
    if other_measure(old, new, words):
        return Ruling(RulingKind.VOID, "other_measure")
    if old.kind != new.kind or old.dimension != new.dimension:
        return Ruling(RulingKind.ERROR, "unit")
    low, high = sorted((old.value, new.value))
    if low > 0 and high / low < _SAME_QUANTITY:
        return Ruling(RulingKind.VOID, "small_change")
    return Ruling(RulingKind.ERROR, {"time": "time_scale"}.get(old.kind, old.kind))
