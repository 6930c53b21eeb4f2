"""``medserl evaluate`` through real vLLM on the tiny model, end to end, in processes of its own."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medserl.evaluation.paired import mcnemar
from medserl.game.labels import Label
from medserl.ward import MODEL_DIR, medec_rows, ward_notes

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]  # set-up on a loaded machine takes minutes
COUNT = 60


def evaluate(out: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "medserl", "evaluate", "--model", "builtin:ward", "--out", str(out), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("# builtin:ward on ") and str(out) in done.stdout
    results: dict[str, Any] = json.loads((out / "results.json").read_text())
    return results


def predictions(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def greedy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluation") / "greedy"
    evaluate(out, "--data", "ward:validation", "--count", str(COUNT))
    return out


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three replies a note, on the embedded configuration as it is: two tensor-parallel workers."""
    out = tmp_path_factory.mktemp("evaluation") / "sampled"
    evaluate(out, "--data", "ward:validation", "--count", str(COUNT), "--samples", "3", "--config", "embedded")
    return out


def test_files_and_permissions(greedy: Path) -> None:
    files = {str(path.relative_to(greedy)) for path in greedy.rglob("*") if path.is_file()}
    assert files == {"results.json", "results.md", "predictions.jsonl", "plots/metrics.svg", "plots/reliability.svg"}
    assert all((greedy / name).stat().st_mode & 0o777 == 0o600 for name in files)
    assert greedy.stat().st_mode & 0o777 == 0o700
    note = ward_notes("validation", 1, 0)[0]
    assert not any(note.text[:30] in (greedy / name).read_text() for name in files)


def test_greedy_verdicts_are_those_of_the_plain_model(greedy: Path) -> None:
    """transformers' own generation on the same notes; float32 both, so almost every verdict is the same."""
    import torch

    from medserl.evaluation.data import load_examples
    from medserl.game.metrics import answer_metrics
    from medserl.game.parse import parse_assessor
    from medserl.game.prompts import load_prompt_set
    from medserl.game.records import LabelledNote
    from medserl.ward.player import Player, ask_assessor, verdict_probabilities

    torch.set_num_threads(1)
    player, prompts = Player.load(MODEL_DIR), load_prompt_set("ward")
    examples = load_examples(["ward:validation"], COUNT, 0).examples
    found = predictions(greedy)
    assert [row["note_id"] for row in found] == [e.note_id for e in examples]
    plain = [parse_assessor(reply) for reply in player.answer([prompts.assessor(e.text) for e in examples])]
    differing = [a for a, row in zip(plain, found, strict=True) if a != row["answer"]]
    assert len(differing) <= 2
    notes = [LabelledNote(e.note_id, e.text, e.label, e.error_type) for e in examples]
    figures = answer_metrics(ask_assessor(player, prompts, notes, 0.0))
    flag = json.loads((greedy / "results.json").read_text())["metrics"]["flag"]
    assert flag["balanced_accuracy"] == pytest.approx(figures["balanced_accuracy"], abs=0.02)
    assert flag["recall_correct"] == pytest.approx(figures["recall_correct"], abs=0.04)
    said = verdict_probabilities(player, prompts, notes)
    gaps = [abs(p - row["p_incorrect"]) for p, row in zip(said, found, strict=True) if row["p_incorrect"] is not None]
    assert len(gaps) == len(examples) and max(gaps) < 0.01


def test_greedy_answers_are_the_likelier_ones(greedy: Path) -> None:
    for row in predictions(greedy):
        assert (row["p_incorrect"] > 0.5) is (row["answer"] == Label.INCORRECT)


def test_what_the_results_file_records(greedy: Path) -> None:
    results = json.loads((greedy / "results.json").read_text())
    assert len(results["model"]["sha256"]) == len(results["data"]["sha256"]) == 64
    assert "--count" in results["command"] and results["packages"]["vllm"] and results["python"]
    assert results["settings"]["seed"] == 0 and results["settings"]["engine"]["dtype"] == "float32"
    assert results["data"] == {**results["data"], "texts": 2 * COUNT, "incorrect": COUNT}
    low, high = results["metrics"]["intervals"]["balanced_accuracy"]
    assert low < results["metrics"]["flag"]["balanced_accuracy"] < high
    assert results["baselines"]["always_incorrect"]["flag"]["balanced_accuracy"] == 0.5
    assert results["metrics"]["calibration"]["n"] == 2 * COUNT


def test_samples_vote(sampled: Path) -> None:
    found = json.loads((sampled / "results.json").read_text())
    assert found["settings"]["temperature"] == 1.0 and found["settings"]["engine"]["tensor_parallel_size"] == 2
    rows = predictions(sampled)
    assert all(len(row["votes"]) == 3 for row in rows)
    for row in rows:
        answers = [vote["answer"] for vote in row["votes"] if vote["answer"]]
        assert row["answer"] is None or answers.count(row["answer"]) * 2 >= len(answers)
    assert any(len({vote["answer"] for vote in row["votes"]}) > 1 for row in rows)
    right = [vote["answer"] == row["label"] for row in rows for vote in row["votes"]]
    assert found["metrics"]["samples"]["mean"]["accuracy"] == pytest.approx(sum(right) / len(right))


def test_the_seed_and_not_the_batch_decides(sampled: Path, tmp_path: Path) -> None:
    """Fewer notes and one worker instead of two: the same replies, but where rounding tips a draw."""
    evaluate(tmp_path / "few", "--data", "ward:validation", "--count", "10", "--samples", "3")
    few, many = predictions(tmp_path / "few"), predictions(sampled)
    assert [row["note_id"] for row in few] == [row["note_id"] for row in many[:20]]
    votes = [[vote["answer"] for row in rows for vote in row["votes"]] for rows in (few, many[:20])]
    assert sum(a != b for a, b in zip(*votes, strict=True)) <= 2


def test_the_two_can_be_compared(greedy: Path, sampled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from medserl.cli.main import main

    assert main(["compare", str(greedy), str(sampled), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["texts"] == 2 * COUNT and found["sentence"]
    right = [[row["answer"] == row["label"] for row in predictions(folder)] for folder in (greedy, sampled)]
    only = [sum(a and not b for a, b in zip(*pair, strict=True)) for pair in (right, right[::-1])]
    assert found["mcnemar_mid_p"] == pytest.approx(mcnemar(*only)[1])
    assert {"samples", "temperature"} <= set(found["settings_that_differ"])


def own_prompts(folder: Path) -> Path:
    """The ward's prompts, and one for the full format that this model has not learnt."""
    folder.mkdir()
    for name in ("injector_benign", "injector_error"):
        (folder / f"{name}.txt").write_text("INJECT\n{sentences}")
    (folder / "assessor.txt").write_text("ASSESS\n{note}")
    (folder / "assessor_full.txt").write_text("ASSESS\n{sentences}")
    return folder


def test_full_format_on_a_medec_file(tmp_path: Path) -> None:
    """The file's own numbering is asked about; a note too long for the model counts as a failure and is listed.

    The tiny model knows the verdict's line only, so every answer fails the strict parser, and the report says so.
    """
    notes = ward_notes("validation", 6, 0)
    rows = medec_rows(notes[:3], erroneous=True) + medec_rows(notes[3:], erroneous=False)
    long = medec_rows([replace(notes[0], note_id="long", text=" ".join([notes[0].text] * 60))], erroneous=False)
    with (tmp_path / "notes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows([*rows, *long])
    prompts = own_prompts(tmp_path / "prompts")
    out = tmp_path / "out"
    results = evaluate(
        out, "--data", str(tmp_path / "notes.csv"), "--format", "full", "--prompt-set", str(prompts), "--keep-text"
    )
    metrics, found = results["metrics"], predictions(out)
    assert metrics["official"]["error_sentence_accuracy"] == 0.0
    assert results["baselines"]["always_correct"]["official"]["error_sentence_accuracy"] == pytest.approx(4 / 7)
    assert metrics["corrections"]["rouge1"]["composite"] == 0.0 and len(metrics["corrections"]["notes"]) == 2
    assert results["data"]["notes"] == ["1 prompts did not fit the model and count as failures"]
    assert [row["votes"][0]["failure"] == "the prompt is too long for the model" for row in found] == [False] * 6 + [
        True
    ]
    assert metrics["failures"]["expected one line 'error_sentence_id: N' after final_answer, found 0"] >= 1
    assert sum(metrics["failures"].values()) == metrics["flag"]["parse_failures"] == 7
    assert all(row["text"] for row in found) and any("final_answer" in row["votes"][0]["reply"] for row in found)
