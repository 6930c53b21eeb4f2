"""``medserl pipeline`` from files in MEDEC's form to a judged checkpoint."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from medserl.data.ward import write_ward
from tests.data.files import clean_row, note_text, write_csv
from tests.e2e.runs import MARK, ONE_WORKER, SESSION, processes

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]  # set-up on a loaded machine takes minutes
ONE_TRAINER = [f"train:{override}" for override in ONE_WORKER]
SHORT_WARM_START = (
    "sft:medserl.steps=2",
    "sft:medserl.late_mixture=null",
    "sft:medserl.mixture.assessor_pairs=4",
    "sft:medserl.mixture.injector_turns=4",
    "sft:trainer.n_gpus_per_node=1",
    "sft:engine.tensor_model_parallel_size=1",
    "sft:optim.lr=1e-4",
    "sft:optim.min_lr=0.0",
    "sft:data.micro_batch_size_per_gpu=12",
)


def pipeline(out: Path, *arguments: str, stop_after: str | None = None) -> tuple[int, str]:
    """Exit code and output of ``medserl pipeline``, which gets SIGTERM once ``stop_after`` is in its output."""
    log = out.with_suffix(f".{time.monotonic_ns()}.out")
    command = [sys.executable, "-m", "medserl", "pipeline", "--out", str(out), *arguments]
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, MARK: SESSION},
        )
        try:
            while stop_after is not None and process.poll() is None:
                if stop_after in log.read_text():
                    process.send_signal(signal.SIGTERM)
                    break
                time.sleep(0.2)
            code = process.wait(timeout=1200)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return code, log.read_text()


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_files_in_medecs_form_to_a_judged_checkpoint(tmp_path: Path) -> None:
    """The ward in MEDEC's columns and one note that is too long; ended by SIGTERM as soon as training begins, and taken
    up again: the finished stages are not run twice."""
    out = tmp_path / "pipeline"
    sources = [str(path) for path in write_ward(tmp_path / "ward", 40, 7)]
    long = [clean_row("long", note_text(80) + " Word." * 700)]
    sources.append(str(write_csv(tmp_path / "more-TestSet.csv", long)))
    asked = [
        *sources, "--model", "builtin:ward", "--max-prompt-tokens", "192", "train:medserl.max_rounds=1",
        "train:trainer.val_before_train=false",
        *ONE_TRAINER, *SHORT_WARM_START,
    ]  # fmt: skip
    code, output = pipeline(out, *asked, stop_after="medserl pipeline: train")
    assert code == 128 + 15, output
    assert "the same command continues" in output
    warm = read(out / "sft/done.json")
    assert not (out / "train/done.json").exists() and not (out / "evaluate").exists()

    code, output = pipeline(out, *asked)
    assert code == 0, output
    assert read(out / "sft/done.json") == warm
    prepared = read(out / "prepare/done.json")
    assert prepared["dropped"] == {"a prompt needs more than 192 tokens": 1}
    assert {split: counts["rows"] for split, counts in prepared["splits"].items()} == {
        "train": 40, "validation": 40, "test": 40,
    }  # fmt: skip
    trained = read(out / "train/done.json")
    assert trained["rounds"] == 1
    start, end = (read(out / "evaluate" / which / "results.json") for which in ("start", "trained"))
    assert start["model"]["path"] == str(out / "sft/run/model")
    assert end["model"]["path"] == str(out / "train/model")
    assert start["data"]["sha256"] == end["data"]["sha256"] and start["data"]["texts"] == 40
    assert end["data"]["incorrect"] == 20
    assert start["model"]["sha256"] != end["model"]["sha256"]
    found = read(out / "report/comparison.json")
    assert found["texts"] == 40 and found["settings_that_differ"] == []
    page = (out / "index.html").read_text()
    assert found["sentence"] in page.replace("&gt;", ">") and 'href="train/run/report.html"' in page
    assert "1 rows: a prompt needs more than 192 tokens" in page
    assert (out / "train/run/report.html").is_file()
    assert processes() == {}
    assert_vllm_and_transformers_agree(out)

    code, output = pipeline(out, *asked)
    assert code == 0 and "report: done before" in output


def assert_vllm_and_transformers_agree(out: Path) -> None:
    """p(INCORRECT) of the test texts by the exported model: vLLM's tokens against plain torch."""
    import torch

    from medserl.data import read_labelled
    from medserl.game import LabelledNote, load_prompt_set
    from medserl.ward.player import Player, verdict_probabilities

    torch.set_num_threads(1)
    texts = read_labelled(out / "prepare/data/test.parquet")
    notes = [LabelledNote(e.note_id, e.text, e.label, e.error_type) for e in texts]
    said = verdict_probabilities(Player.load(out / "train/model"), load_prompt_set("ward"), notes)
    rows = [json.loads(line) for line in (out / "evaluate/trained/predictions.jsonl").read_text().splitlines()]
    assert [row["note_id"] for row in rows] == [note.note_id for note in notes]
    gaps = [abs(p - row["p_incorrect"]) for p, row in zip(said, rows, strict=True) if row["p_incorrect"] is not None]
    assert len(gaps) >= 0.9 * len(rows) and max(gaps) < 0.01  # an answer that does not parse has none
