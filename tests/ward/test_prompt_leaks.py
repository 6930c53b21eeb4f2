"""Every prompt of every shipped set, for every source of notes, through the chat template: no answer leaks.

The proof is on the whole rendered text: it is the set's constant frame around the one note that is shown, so nothing
else of the note (label, mode, gold sentences, the original) can be in it.
"""

import asyncio
import csv
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import jinja2
import pytest
from tokenizers import Tokenizer

from medserl.game import GameRules, Mode, Note, Reply, Role, load_notes, load_prompt_set, play_game
from medserl.game.prompts import FORMATS, Message, PromptSet, numbered_sentences, prompt_set_names
from medserl.game.referee import InstructionReferee
from medserl.game.sentences import sentence_texts
from medserl.ward import MODEL_DIR, SPLITS, ward_notes
from medserl.ward.medec import COLUMNS

TEMPLATE = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(
    (MODEL_DIR / "chat_template.jinja").read_text(encoding="utf-8")
)
TOKENIZER = Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json"))
MARK = "@@NOTE@@"
RULES = GameRules(min_jaccard=0.5, injector_format="note")
SOURCES = ("ward", "medec_csv", "pairs_jsonl", pytest.param("medec_files", marks=pytest.mark.medec))
PAIRS = [
    ("A 61-year-old man has chest pain.\nECG shows ST elevation in II, III and aVF. He is given aspirin 325 mg.",
     "A 61-year-old man has chest pain.\nECG shows ST elevation in II, III and aVF. He is given warfarin 5 mg.",
     "pharmacotherapy"),
    ("She has {dysuria} since 3 days. Urine grew E. coli. Dr. Roe started nitrofurantoin 100 mg b.i.d. p.o.",
     "She has {dysuria} since 3 days. Urine grew S. aureus. Dr. Roe started nitrofurantoin 100 mg b.i.d. p.o.",
     "causalOrganism"),
    ("The left knee is warm and swollen. Septic arthritis is suspected. The left knee is aspirated at once.",
     "The left knee is warm and swollen. Acute gout is suspected. The left knee is aspirated at once.", "diagnosis"),
]  # fmt: skip


def sentence_pair(right: str, wrong: str) -> tuple[int, str, str]:
    pairs = enumerate(zip(sentence_texts(right), sentence_texts(wrong), strict=True))
    return next((i, old, new) for i, (old, new) in pairs if old != new)


def write_medec_csv(path: Path) -> Path:
    """Two variants of each pair in the columns of MEDEC's files."""
    rows = []
    for number, (right, wrong, error_type) in enumerate(PAIRS):
        index, old, new = sentence_pair(right, wrong)
        rows.append([f"e-{number}", wrong, "", "1", error_type, str(index), new, old, right])
        rows.append([f"c-{number}", right + " No allergies.", "", "0", "NA", "-1", "NA", "NA", "NA"])
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return path


def write_pairs(path: Path) -> Path:
    rows = []
    for number, (right, wrong, error_type) in enumerate(PAIRS):
        _, old, new = sentence_pair(right, wrong)
        rows.append({"note_id": f"p-{number}", "correct_note": right, "incorrect_note": wrong,
                     "error_type": error_type, "error_sentence": new, "corrected_sentence": old})  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(params=SOURCES)
def notes(request: pytest.FixtureRequest, tmp_path: Path) -> list[Note]:
    match request.param:
        case "ward":
            return [note for split in SPLITS for note in ward_notes(split, 12, 3)]
        case "medec_csv":
            return load_notes(write_medec_csv(tmp_path / "n.csv"))
        case "pairs_jsonl":
            return load_notes(write_pairs(tmp_path / "n.jsonl"))
        case _:
            folder = Path(os.environ["MEDSERL_MEDEC_DIR"])
            files = ("MEDEC-MS-ValidationSet.csv", "medec_ms_train_pairs.jsonl")
            return [note for file in files for note in load_notes(folder / file)[:30]]


def render(messages: Sequence[Message], thinking: bool) -> str:
    """As the trainer renders a turn; the model's tokens say exactly this text."""
    text = TEMPLATE.render(messages=list(messages), add_generation_prompt=True, enable_thinking=thinking)
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids, skip_special_tokens=False) == text
    return text


def frame(messages: Sequence[Message], thinking: bool, shown: str = MARK) -> tuple[str, str]:
    """What a prompt says before and after the note ``MARK``."""
    before, found, after = render(messages, thinking).partition(shown)
    assert found and MARK not in before + after
    return before, after


def assert_no_trace(text: str, note: Note, shown: str) -> None:
    """``text`` has none of the note's gold fields beyond what the note that is ``shown`` says itself."""
    for secret in filter(None, (note.error_sentence, note.corrected_sentence, note.error_text, note.text)):
        assert secret.strip() in shown or secret.strip() not in text
    assert note.note_id not in text.replace(shown, "")


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("name", prompt_set_names())
def test_the_assessor_sees_one_note_and_nothing_else(name: str, thinking: bool, notes: list[Note]) -> None:
    prompts = load_prompt_set(name)
    before, after = frame(prompts.assessor(MARK), thinking)
    for word in ("inject", "benign", "edited", "sentence_id", "phrase", "verdict", "pharmacotherapy"):
        assert word not in (before + after).lower(), word
    for note in notes:
        for shown in filter(None, (note.text, note.error_text)):
            rendered = render(prompts.assessor(shown), thinking)
            assert rendered == before + shown.strip() + after
            assert_no_trace(rendered, note, shown)


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("name", prompt_set_names())
def test_the_injector_sees_the_right_note_and_no_gold_error(name: str, thinking: bool, notes: list[Note]) -> None:
    prompts = load_prompt_set(name)
    asked = [(mode, None) for mode in Mode] + [(Mode.ERROR, error_type) for error_type in prompts.error_types]
    for mode, error_type in asked:
        for kind in FORMATS:
            shown_mark = f"0 {MARK}" if kind == "edit" else MARK
            before, after = frame(prompts.injector(MARK, mode, kind, error_type), thinking, shown_mark)
            for note in notes:
                shown = numbered_sentences(note.text) if kind == "edit" else note.text.strip()
                rendered = render(prompts.injector(note.text, mode, kind, error_type), thinking)
                assert rendered == before + shown + after
                if note.error_sentence and note.error_sentence not in shown:
                    assert note.error_sentence not in rendered


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("name", prompt_set_names())
def test_the_judge_sees_the_note_and_two_sentences(name: str, thinking: bool, notes: list[Note]) -> None:
    prompts = load_prompt_set(name)
    pieces = render(prompts.judge("@@A@@", "@@B@@", "@@C@@"), thinking)
    for note in notes:
        shown = (note.text.strip(), sentence_texts(note.text)[0], "He is an edited sentence.")
        expected = pieces
        for mark, text in zip(("@@A@@", "@@B@@", "@@C@@"), shown, strict=True):
            expected = expected.replace(mark, text)
        assert render(prompts.judge(note.text, *shown[1:]), thinking) == expected


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("name", prompt_set_names())
def test_in_a_whole_game_the_assessors_context_is_the_edited_note(name: str, thinking: bool, notes: list[Note]) -> None:
    """The injector makes the gold error and thinks aloud; in the assessor's context only the edited note shows."""
    prompts = load_prompt_set(name)
    played = 0
    for note in notes:
        wrong = note.error_text
        if wrong is None or not RULES.vcf(note.text, wrong).passed:
            continue
        for error_type in (None, *prompts.error_types):
            context = assessor_context(note, f"<think>CANARY</think>\ngenerated_note:\n{wrong}", prompts, error_type)
            before, after = frame(prompts.assessor(MARK), thinking)
            rendered = render(context, thinking)
            assert rendered == before + wrong.strip() + after
            assert "CANARY" not in rendered
            assert_no_trace(rendered, note, wrong)
            played += 1
    assert played


def assessor_context(note: Note, reply: str, prompts: PromptSet, error_type: str | None) -> list[Message]:
    contexts: list[list[Message]] = []

    async def generate(role: Role, messages: list[Message]) -> Reply:
        if role is Role.INJECTOR:
            return Reply(reply)
        contexts.append(messages)
        return Reply("")

    asyncio.run(
        play_game(
            note, Mode.ERROR, generate=generate, prompts=prompts, rules=RULES,
            referee=InstructionReferee(), error_type=error_type,
        )
    )  # fmt: skip
    assert len(contexts) == 1
    return contexts[0]


def test_thinking_changes_nothing_but_the_opened_thought() -> None:
    for name in prompt_set_names():
        prompts = load_prompt_set(name)
        makers: list[Callable[[], list[Message]]] = [
            lambda p=prompts: p.assessor("A b."),  # type: ignore[misc]
            lambda p=prompts: p.injector("A b.", Mode.BENIGN),  # type: ignore[misc]
        ]
        for make in makers:
            assert render(make(), False) == render(make(), True) + "<think>\n\n</think>\n\n"
