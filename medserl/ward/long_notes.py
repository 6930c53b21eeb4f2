"""Ward notes of a usual length, for models that read more than the tiny one: context that says nothing of the case.

The oracle reads a note sentence by sentence and rules on what an edit changed, so that sentences without any fact of
the table leave every ruling as it is. They are the same in a note and its error variant.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from medserl.errors import ConfigError
from medserl.game.records import Note
from medserl.game.sentences import sentence_texts
from medserl.ward.facts import reader
from medserl.ward.table import Table

LEAST_WORDS, MOST_WORDS = 150, 300
CONTEXT = (
    "The visit was arranged by the practice earlier in the same morning.",
    "A relative came along and waited outside during the examination.",
    "The history was taken in a quiet room and read back afterwards.",
    "The medication list was brought along and compared with the file.",
    "Immunisations are up to date according to the booklet.",
    "The household has several other members, all of them in good health.",
    "Works in an office and sits for most of the working time.",
    "Walks to the shops and climbs the stairs at home without help.",
    "Appetite and sleep have been as usual over the past year.",
    "There was no recent travel, and nobody at home has been unwell.",
    "Family history was asked about and adds nothing of note.",
    "Earlier records from the other hospital were requested by telephone.",
    "The course of events was explained again in plain language.",
    "Questions were answered, and a leaflet was handed out.",
    "An interpreter was offered and was not needed on this occasion.",
    "The nurse recorded the belongings and the contact details of the family.",
    "The ward round was joined by some students, with permission.",
    "Alternatives were talked through, and the preference was written down.",
    "The general practitioner will receive a letter within the week.",
    "The telephone number of the clinic was confirmed before leaving.",
    "Insurance details were checked at the front desk on arrival.",
    "The bed near the window was chosen at the request of the family.",
    "Meals were ordered from the regular menu of the kitchen.",
    "Glasses and hearing aids were kept within reach at all times.",
    "The team met at noon and agreed on how to go on from here.",
    "A summary of the discussion was added to the electronic file.",
    "Transport home is being organised by the family themselves.",
    "The situation at home was reviewed together with the social worker.",
    "Advice on when to come back was given and was understood.",
    "The next appointment was written on a card for the wallet.",
    "Consent for sharing this letter with the practice was obtained.",
    "Valuables were put into the safe of the reception.",
)
"""Sentences that say nothing that any knowledge table would."""


def lengthened(note: Note, table: Table, seed: int) -> Note:
    """A note with context between its sentences, `LEAST_WORDS` to `MOST_WORDS` long.

    Args:
        note: A note of ``ward_notes``.
        table: Its table: context that has a fact of it is left out.
        seed: Of length, choice and places, with the note's id.

    Raises:
        ConfigError: too much of the context has facts of the table.
    """
    rng = Random(f"long {seed} {note.note_id}")
    context = [sentence for sentence in CONTEXT if not reader(table).sentence(sentence).facts]
    rng.shuffle(context)
    right = list(sentence_texts(note.text))
    wrong = list(sentence_texts(note.error_text)) if note.error_text is not None else list(right)
    target = rng.randint(LEAST_WORDS, MOST_WORDS - 40)
    while sum(len(sentence.split()) for sentence in right) < target:
        if not context:
            raise ConfigError(
                f"{table.file}: its phrases occur in most of the context of long notes "
                "(medserl/ward/long_notes.py); leave --long out"
            )
        place = rng.randrange(len(right) + 1)
        right.insert(place, context[-1])
        wrong.insert(place, context.pop())
    error = None if note.error_text is None else " ".join(wrong)
    return replace(note, text=" ".join(right), error_text=error)
