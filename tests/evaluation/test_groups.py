"""Which texts belong together, against a comparison of every pair."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from medserl.data.near import THRESHOLD
from medserl.data.records import CORRECTED_SUFFIX
from medserl.data.text import normalised
from medserl.evaluation.data import load_examples
from medserl.evaluation.groups import joined, note_groups
from medserl.game.labels import Label
from medserl.game.vcf import shingle_similarity
from tests.evaluation.made import example


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8)), min_size=1, max_size=12))
def test_groups_are_what_chains_of_similar_texts_join(picks: list[tuple[int, int]]) -> None:
    made = []
    for number, (case, change) in enumerate(picks):
        words = f"{example(case, Label.CORRECT).text} He is well and goes home today.".split()
        words[change] = f"changed{change}"
        made.append(replace(example(case, Label.CORRECT), note_id=f"id-{number}", text=" ".join(words)))
    texts = [normalised(e.text) for e in made]
    wanted = list(range(len(texts)))
    for one in range(len(texts)):
        for other in range(one):
            if shingle_similarity(texts[one], texts[other]) >= THRESHOLD:
                old, new = wanted[one], wanted[other]
                wanted = [new if group == old else group for group in wanted]
    found = note_groups(made)
    assert len(set(zip(found, wanted, strict=True))) == len(set(found)) == len(set(wanted))


def test_versions_of_one_note_are_together_however_unlike() -> None:
    one, two = example(1, Label.CORRECT), example(2, Label.CORRECT)
    made = [replace(one, note_id="x"), replace(two, note_id="x" + CORRECTED_SUFFIX), replace(two, note_id="y")]
    assert note_groups(made) == [0, 0, 0]  # y has the text of x's other version
    assert note_groups([made[0], replace(example(3, Label.CORRECT), note_id="z")]) == [0, 1]


def test_notes_of_the_ward_are_no_near_duplicates_of_each_other() -> None:
    examples = load_examples(["ward:test"], 100, 0).examples
    assert len(set(note_groups(examples))) == 100


def test_shared_keys_join() -> None:
    assert joined([("a", 1), ("b", 2), ("c", 1), ("b", 3), ("d", 4)]) == [0, 1, 0, 1, 2]
    assert joined([]) == []
