"""Notes that nobody labelled: what the CSV holds, in which order, who can read it; and the tutorial's commands."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.cli.main import main
from medserl.data.records import LabelledExample
from medserl.evaluation import check, engine
from medserl.evaluation.check import COLUMNS, NO_DEVICE, NOT_KNOWN, Finding, finding, held_out_accuracy, write_findings
from medserl.evaluation.kept import KeptAnswers
from medserl.evaluation.votes import Vote, parse_vote
from medserl.game.labels import Label
from medserl.run import checkpoint
from medserl.ward import ward_notes
from tests.preflight.models import make_model, real_notes

ROOT = Path(__file__).parents[2]
WRONG = 'final_answer: "INCORRECT"\nerror_sentence_id: 1\ncorrected_sentence: He is well.'
RIGHT = 'final_answer: "CORRECT"\nerror_sentence_id: -1\ncorrected_sentence: NA'


def example(note_id: str = "a") -> LabelledExample:
    sentences = ("He coughs.", "He is\n ill.")
    return LabelledExample(note_id, " ".join(sentences), Label.CORRECT, None, -1, None, None, sentences)


def votes(*replies: str) -> list[Vote]:
    return [parse_vote(reply, "full", 2) for reply in replies]


def test_a_suspected_note_is_told_with_its_sentence_and_a_correction() -> None:
    found = finding(example(), votes(WRONG))
    assert found == Finding("a", 1.0, Label.INCORRECT, "He is ill.", "He is well.")
    assert finding(example(), votes(WRONG, RIGHT, WRONG)).p_error == pytest.approx(2 / 3)


def test_a_verdict_counts_although_no_sentence_is_named() -> None:
    """A model that was trained on the game says its verdict and no more."""

    def vote(text: str, **settings: Any) -> Vote:
        reply = SimpleNamespace(text=text, token_ids=[1, 2], finish_reason="stop")
        return engine._vote(reply, engine.Decoding("full", **settings), 2, False)

    for text in ('final_answer: "INCORRECT"', 'final_answer: "INCORRECT"\nerror_sentence_id: 9\ncorrected_sentence: x'):
        assert vote(text).answer is None  # as MEDEC's script
        found = finding(example(), [vote(text, verdict_alone=True)])
        assert (found.verdict, found.sentence, found.remark) == (Label.INCORRECT, "", check.NO_SENTENCE)
    assert vote(WRONG, verdict_alone=True).sentence_id == 1
    assert vote("hm", verdict_alone=True).answer is None
    both = 'final_answer: "INCORRECT"\nfinal_answer: "CORRECT"'
    assert vote(both, verdict_alone=True).answer is None


def test_what_cannot_be_read_says_so() -> None:
    found = finding(example(), votes("I think so."))
    assert found.verdict is None and found.p_error is None and found.remark.startswith("no verdict: ")
    assert finding(example(), [Vote(Label.INCORRECT, 7, "x")]).sentence == ""


@given(st.lists(st.tuples(st.sampled_from([None, *Label]), st.floats(0, 1)), max_size=8))
def test_the_most_suspected_come_first_and_those_without_a_verdict_last(rows: list[tuple[Label | None, float]]) -> None:
    found = [Finding(str(i), None if label is None else p, label) for i, (label, p) in enumerate(rows)]
    ordered = sorted(found, key=lambda item: item.order)
    known = [item.p_error for item in ordered if item.verdict is not None]
    assert known == sorted((p for p in known if p is not None), reverse=True)
    assert all(item.verdict is None for item in ordered[len(known) :])


@given(st.text(max_size=20))
def test_no_cell_is_run_by_a_spreadsheet(text: str) -> None:
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in Finding(text, 0.5, None, text).cells())


def test_the_file_is_private_and_opens_in_a_spreadsheet(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    write_findings(
        out, [Finding("a", 0.25, Label.CORRECT), Finding("b", 0.75, Label.INCORRECT, "Ä, ü")], ["one", "two"]
    )
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    rows = list(csv.reader(out.read_text(encoding="utf-8-sig").splitlines()))
    assert rows[:3] == [["# one"], ["# two"], list(COLUMNS)]
    assert [row[:4] for row in rows[3:]] == [["b", "0.750", "INCORRECT", "Ä, ü"], ["a", "0.250", "CORRECT", ""]]


def test_the_accuracy_is_that_of_the_runs_validation(tmp_path: Path) -> None:
    assert held_out_accuracy(tmp_path) == NOT_KNOWN
    record = tmp_path / checkpoint.EXPORT_RECORD
    for content in ("", "[]", '{"validation": null}', '{"validation": {"accuracy": "x"}}'):
        record.write_text(content)
        assert held_out_accuracy(tmp_path) == NOT_KNOWN
    record.write_text('{"validation": {"accuracy": 0.7, "balanced_accuracy": 0.651, "texts": 120}}')
    assert held_out_accuracy(tmp_path) == "70.0% (65.1% balanced) on the 120 texts of its run's validation"


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replies that the model gives in turn, instead of vLLM."""
    replies: list[str] = []

    def assess(
        model: Path,
        chats: Sequence[Any],
        counts: Sequence[int],
        options: dict[str, Any],
        decoding: engine.Decoding,
        _: KeptAnswers,
    ) -> list[tuple[Vote, ...]]:
        assert (model / "config.json").is_file()
        said = replies or [RIGHT]
        return [(parse_vote(said[i % len(said)], decoding.output_format, count),) for i, count in enumerate(counts)]

    monkeypatch.setattr(engine, "assess", assess)
    monkeypatch.setattr(engine, "prepare_device", lambda config: "cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return replies


def test_check_says_what_it_found_and_whom_it_is_for(
    answers: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = real_notes(tmp_path / "notes.jsonl", 3, gold=False)
    model = make_model(tmp_path / "model")
    answers += [RIGHT, WRONG, "hm"]
    out = tmp_path / "checked.csv"
    assert main(["check", str(notes), "--model", str(model), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "1 of 3 texts suspected, 1 without a verdict" in shown and NO_DEVICE in shown and NOT_KNOWN in shown
    assert "palpitations" not in shown
    assert NO_DEVICE in out.read_text(encoding="utf-8-sig")
    assert main(["check", str(notes), "--model", str(model), "--out", str(out)]) == 2
    assert "already exists" in capsys.readouterr().err
    answers[:] = ["hm"]
    assert main(["check", str(notes), "--model", str(model), "--out", str(tmp_path / "other.csv")]) == 1
    assert "warm-start it first" in capsys.readouterr().out


def commands() -> list[str]:
    """The tutorial's, in order."""
    text = (ROOT / "docs/own-notes.md").read_text()
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
    return [line for line in blocks.replace("\\\n", " ").splitlines() if line.startswith("medserl ")]


def spreadsheets(folder: Path) -> None:
    """notes.csv and labelled.csv as a spreadsheet saves them: semicolons, and a mark in front."""
    notes = [note for note in ward_notes("train", 40, 3) if note.error_text]
    rows = [
        {"note_id": n.note_id, "text": n.text, "correct_note": n.text, "incorrect_note": n.error_text} for n in notes
    ]
    for name, columns in (("notes", ("note_id", "text")), ("labelled", ("note_id", "correct_note", "incorrect_note"))):
        with (folder / f"{name}.csv").open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.writer(file, delimiter=";")
            writer.writerow(columns)
            writer.writerows([row[column] for column in columns] for row in rows)


def checkpointed(run: Path, model: Path) -> None:
    """A run directory with a checkpoint that a validation judged."""
    staged = checkpoint.staging_dir(run / "checkpoints") / "global_step_2"
    shutil.copytree(model, staged / "actor/model/huggingface")
    checkpoint.publish(run / "checkpoints", 2, {}, None)
    judged = {"val/greedy/accuracy": 0.75, "val/greedy/balanced_accuracy": 0.7}
    texts = {"val/texts_correct": 6, "val/texts_incorrect": 6}
    rows = [{"round": 1}, {"round": 2, **judged, **texts}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.engine  # seconds: too long for the quick tests
def test_the_tutorials_commands(
    answers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each runs as it stands there; what starts torch is checked with ``--dry-run``, and made here."""
    monkeypatch.chdir(tmp_path)
    spreadsheets(tmp_path)
    model = make_model(tmp_path / "models/start")
    answers += [RIGHT, WRONG]
    ran = []
    for command in commands():
        words = shlex.split(command)[1:]
        ran.append(words[0])
        assert main([*words, "--dry-run"] if words[0] in ("sft", "train") else words) == 0, capsys.readouterr().err
        if words[0] == "sft":
            shutil.copytree(model, tmp_path / "outputs/warm/model")
        elif words[0] == "train":
            checkpointed(tmp_path / "outputs/game", model)
    assert ran == ["data", "check", "data", "sft", "train", "export", "evaluate", "check"]
    assert "75.0% (70.0% balanced) on the 12 texts" in (tmp_path / "checked-own.csv").read_text()
    assert check.NOT_KNOWN in (tmp_path / "checked.csv").read_text()
