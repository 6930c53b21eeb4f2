"""Speed of the verifiable change filter, as a ratio to straightforward versions in the same run.

    python benchmarks/vcf.py [--pairs 2000] [--words 150] [--repeats 10] [--json FILE]

Two baselines give the same verdicts in the plain way: both split every sentence of both texts and build the
shingle sets of both texts. "trimmed" cuts the common words off both ends before the textbook edit distance;
"textbook" fills the whole distance matrix. Prints verdicts per second of all three, and the ratios; ends with
exit code 1 where any verdict differs.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from medserl.game.align import Alignment
from medserl.game.changes import changed_sentences
from medserl.game.cosmetic import only_cosmetic
from medserl.game.sentences import visible_lines
from medserl.game.vcf import Reason, VcfVerdict, apply_vcf, leak_markers, shingle_similarity

Pair = tuple[str, str]


# ---------------------------------------------------------------------------------- straightforward versions


def distance_matrix(a: Sequence[str], b: Sequence[str]) -> list[list[int]]:
    """The textbook Levenshtein matrix; entry [i][j] is the distance of a[:i] and b[:j]."""
    rows = [list(range(len(b) + 1))]
    for i, left in enumerate(a, start=1):
        above, row = rows[-1], [i]
        for j, right in enumerate(b, start=1):
            row.append(min(above[j - 1] + (left != right), above[j] + 1, row[j - 1] + 1))
        rows.append(row)
    return rows


def walk_back(a: Sequence[str], b: Sequence[str], matrix: list[list[int]], offset: int, tail: int) -> Alignment:
    """Edit script of a matrix; ``offset`` words were cut off in front and ``tail`` at the back."""
    i, j = len(a), len(b)
    substituted, deleted, inserted = [], [], []
    matched: list[tuple[int, int]] = [(offset + i + k, offset + j + k) for k in reversed(range(tail))]
    while i or j:
        if i and j and a[i - 1] == b[j - 1]:
            i, j = i - 1, j - 1
            matched.append((offset + i, offset + j))
        elif i and j and matrix[i][j] == matrix[i - 1][j - 1] + 1:
            i, j = i - 1, j - 1
            substituted.append((offset + i, offset + j))
        elif i and matrix[i][j] == matrix[i - 1][j] + 1:
            i -= 1
            deleted.append(offset + i)
        else:
            j -= 1
            inserted.append((offset + i, offset + j))
    matched.extend((k, k) for k in reversed(range(offset)))
    runs = tuple((i, j, 1) for i, j in reversed(matched))
    script = (tuple(reversed(edits)) for edits in (substituted, deleted, inserted))
    return Alignment(matrix[-1][-1], 0, 0, *script, runs)


def straightforward(original: str, modified: str, *, trim: bool) -> VcfVerdict:
    """`apply_vcf` with its default bounds, every measure taken on the whole texts."""
    (before, breaks), (after, breaks_after) = visible_lines(original), visible_lines(modified)
    if not before or not after:
        return VcfVerdict(False, Reason.EMPTY)
    if before == after:
        return VcfVerdict(False, Reason.IDENTICAL, 0)
    head = tail = 0
    if trim:
        shortest = min(len(before), len(after))
        while head < shortest and before[head] == after[head]:
            head += 1
        while tail < shortest - head and before[-1 - tail] == after[-1 - tail]:
            tail += 1
    a, b = before[head : len(before) - tail], after[head : len(after) - tail]
    matrix = distance_matrix(a, b)
    edits = matrix[-1][-1]
    if edits > 6:
        return VcfVerdict(False, Reason.TOO_MANY_EDITS)
    alignment = walk_back(a, b, matrix, head, tail)
    if only_cosmetic(before, after, alignment):
        return VcfVerdict(False, Reason.COSMETIC, edits)
    jaccard = shingle_similarity(" ".join(before), " ".join(after))
    if jaccard < 0.85:
        return VcfVerdict(False, Reason.JACCARD_LOW, edits, jaccard)
    if jaccard > 0.99:
        return VcfVerdict(False, Reason.JACCARD_HIGH, edits, jaccard)
    change = changed_sentences(before, after, alignment, breaks, breaks_after)
    reason = None
    if change.changed != 1:
        reason = Reason.SEVERAL_SENTENCES
    elif Counter(leak_markers(" ".join(after))) - Counter(leak_markers(" ".join(before))):
        reason = Reason.LEAK
    return VcfVerdict(reason is None, reason, edits, jaccard, change.first, change.total)


def trimmed(original: str, modified: str) -> VcfVerdict:
    return straightforward(original, modified, trim=True)


def textbook(original: str, modified: str) -> VcfVerdict:
    return straightforward(original, modified, trim=False)


# ------------------------------------------------------------------------------------------------- workload

_OPENINGS = ("The patient", "She", "He", "Physical examination", "Laboratory evaluation", "Her mother")
_VERBS = ("reports", "shows", "denies", "has", "is notable for", "was treated with", "reveals")
_THINGS = """\
a 3-day history of productive cough
fever of 38.5 C (101.3 F)
blood pressure of 132/86 mm Hg
metformin 500 mg b.i.d.
mild tenderness in the left lower quadrant
no rash or lymphadenopathy
type 2 diabetes mellitus and hypertension
a leukocyte count of 11,100/mm3
shortness of breath at rest
lisinopril 10 mg once daily
pain that radiates to the right shoulder
bilateral wheezes on auscultation""".splitlines()
_EXTRA = ("acute", "severe", "chronic", "right", "250", "penicillin", "distal", "viral", "weekly")


def make_note(rng: random.Random, words: int) -> str:
    """A note of about ``words`` words in sentences of the length that clinical notes have."""
    sentences: list[str] = []
    count = 0
    while count < words:
        things = " and ".join(rng.sample(_THINGS, rng.randint(1, 3)))
        sentences.append(f"{rng.choice(_OPENINGS)} {rng.choice(_VERBS)} {things}.")
        count += len(sentences[-1].split())
    return " ".join(sentences)


def edit(rng: random.Random, note: str) -> str:
    """What injectors write: mostly a few words in one place; some far apart, rewritten or leaking."""
    words = note.split()
    kind = rng.random()
    place = rng.randrange(1, len(words) - 4)
    if kind < 0.70:
        for i in range(place, place + rng.randint(1, 3)):
            words[i] = rng.choice(_EXTRA)
    elif kind < 0.80:
        words[place:place] = rng.sample(_EXTRA, 2)
    elif kind < 0.88:
        for i in (place, rng.randrange(1, len(words) - 1)):
            words[i] = rng.choice(_EXTRA)
    elif kind < 0.94:
        for i in rng.sample(range(len(words)), 20):
            words[i] = rng.choice(_EXTRA)
    elif kind < 0.97:
        words[place] = "INCORRECT"
    return " ".join(words)


def make_pairs(count: int, words: int, seed: int = 0) -> list[Pair]:
    """Distinct (original, modified) pairs; no note occurs twice."""
    rng = random.Random(seed)
    notes = [make_note(rng, words) for _ in range(count)]
    return [(note, edit(rng, note)) for note in notes]


# ----------------------------------------------------------------------------------------------- measurement


def rate(judge: Callable[[str, str], VcfVerdict], pairs: Sequence[Pair], repeats: int) -> float:
    """Verdicts per second, in CPU time of this process.

    The pairs are judged in slices of 5, each slice ``repeats`` times; its fastest time counts, so that what
    else runs on the machine weighs little.
    """
    total = 0.0
    for first in range(0, len(pairs), 5):
        times = []
        for _ in range(repeats):
            start = time.process_time()
            for original, modified in pairs[first : first + 5]:
                judge(original, modified)
            times.append(time.process_time() - start)
        total += min(times)
    return len(pairs) / total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000, help="distinct note pairs (default 2000)")
    parser.add_argument("--words", type=int, default=150, help="words per note (default 150)")
    parser.add_argument(
        "--repeats", type=int, default=10, help="times that each slice is judged; the fastest counts (default 10)"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    pairs = make_pairs(options.pairs, options.words)
    few = pairs[: max(1, len(pairs) // 20)]  # the full matrix is a hundred times slower

    differing = sum(apply_vcf(*pair) != trimmed(*pair) for pair in pairs)
    differing += sum(apply_vcf(*pair) != textbook(*pair) for pair in few)
    outcomes = Counter(verdict.reason or "passed" for verdict in (apply_vcf(*pair) for pair in pairs))
    rates = {
        "apply_vcf": rate(apply_vcf, pairs, options.repeats),
        "trimmed": rate(trimmed, pairs, options.repeats),
        "textbook": rate(textbook, few, 2),
    }
    counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    print(f"{len(pairs)} pairs of {options.words}-word notes: {counts}")
    for name, value in rates.items():
        print(f"{name:10} {value:9.0f} verdicts/s   apply_vcf / this: {rates['apply_vcf'] / value:6.2f}")
    print(f"verdicts that differ from a baseline's: {differing}")
    if options.json is not None:
        options.json.write_text(json.dumps({"verdicts_per_second": rates, "differing": differing}) + "\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
