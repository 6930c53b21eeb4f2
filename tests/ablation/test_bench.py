"""A bench uses a finished result only where grid, weights and code are what it was made with."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from medserl import provenance
from medserl.ablation import fingerprint as made
from medserl.ablation.grid import Cell, read_grid
from medserl.ablation.report import write_report
from medserl.ablation.runner import RESULT, Bench
from medserl.cli.main import main
from medserl.errors import ConfigError
from medserl.game import prompts as game_prompts
from medserl.ward import MODEL_DIR

LIMIT = "medserl.max_rounds=1"
NOTE = '{"note_id": "a", "text": "He is well."}\n'
RATE = "actor_rollout_ref.actor.optim.lr=1e-3"


def bench_of(tmp_path: Path, *overrides: str, seeds: str = "[1]") -> Bench:
    grid = tmp_path / "g.yaml"
    grid.write_text(f"arms:\n  a: [{', '.join(overrides)}]\nseeds: {seeds}\n")
    return Bench(read_grid(grid), tmp_path / "bench", 1, 10)


def the_cell(bench: Bench) -> Cell:
    return next(bench.grid.cells())


def finish(bench: Bench, **changed: Any) -> Path:
    cell = the_cell(bench)
    folder = bench.folder(cell)
    folder.mkdir(parents=True, exist_ok=True)
    result = {"test": {"greedy": 0.71}, made.FINGERPRINT: {**made.fingerprint(cell, bench.notes), **changed}}
    (folder / RESULT).write_text(json.dumps(result))
    return folder / RESULT


def started(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    cells: list[Cell] = []

    class Done:
        returncode = 0

        def poll(self) -> int:
            return 0

    monkeypatch.setattr(bench, "_start", lambda cell: (cells.append(cell), Done())[1])
    monkeypatch.setattr("medserl.ablation.runner._POLL", 0.0)
    bench.run()
    return cells


def test_a_finished_cell_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(tmp_path, LIMIT, RATE)
    finish(bench)
    assert started(bench, monkeypatch) == []
    commit = made.fingerprint(the_cell(bench), bench.notes)["commit"] or "no checkout"
    assert write_report(bench).endswith(f"Made with {commit}.\n")


def test_signals_are_taken_while_cells_run_and_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal ends the bench, whose end ends its cells; in a thread of somebody else's program nothing is taken."""
    bench = bench_of(tmp_path, LIMIT)
    before = signal.getsignal(signal.SIGTERM)
    ended = []

    class Told:
        returncode: int | None = None

        def poll(self) -> None:
            signal.raise_signal(signal.SIGTERM)

        def terminate(self) -> None:
            ended.append("told")

        def wait(self) -> None:
            ended.append("waited for")

    monkeypatch.setattr(bench, "_start", lambda cell: Told())
    with pytest.raises(SystemExit) as left:
        bench.run()
    assert left.value.code == 128 + signal.SIGTERM
    assert ended == ["told", "waited for"]
    assert signal.getsignal(signal.SIGTERM) is before
    ran: list[Cell] = []
    thread = threading.Thread(target=lambda: ran.extend(started(bench, monkeypatch)))
    thread.start()
    thread.join()
    assert ran == [the_cell(bench)]


def test_where_the_bench_lies_is_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(tmp_path, LIMIT, RATE)
    finish(bench)
    (tmp_path / "bench").rename(tmp_path / "moved")
    bench.out = tmp_path / "moved"
    assert started(bench, monkeypatch) == []


def test_another_arm_under_the_same_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(bench_of(tmp_path, LIMIT, RATE))
    other = bench_of(tmp_path, LIMIT, "actor_rollout_ref.actor.optim.lr=9e-1", "medserl.labelled_share=0")
    with pytest.raises(ConfigError, match="a-seed1.*other configuration; give another --out"):
        started(other, monkeypatch)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"model": "0" * 64}, "other model"),
        ({"commit": "0" * 40}, "other commit"),
        ({"commit": "0" * 40, "configuration": ""}, "other configuration and commit"),
    ],
)
def test_other_weights_or_code_are_refused(
    tmp_path: Path, changed: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bench_of(tmp_path, LIMIT)
    finish(bench, **changed)
    with pytest.raises(ConfigError, match=told):
        started(bench, monkeypatch)


def test_another_number_of_patients_or_other_notes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(tmp_path, LIMIT)
    finish(bench)
    bench.notes = 11
    with pytest.raises(ConfigError, match="other patients;"):
        started(bench, monkeypatch)
    notes = tmp_path / "notes.jsonl"
    notes.write_text(NOTE)
    bench = bench_of(
        tmp_path, LIMIT, f"medserl.notes.path={notes}", "medserl.labelled_share=0", "medserl.prompt_set=clinical"
    )
    finish(bench)
    assert bench.finished(the_cell(bench))
    notes.write_text(NOTE.replace("well", "ill"))
    made._note_files.cache_clear()
    with pytest.raises(ConfigError, match="other note files;"):
        bench.finished(the_cell(bench))


def test_another_tokenizer_or_prompt_is_another_start(tmp_path: Path) -> None:
    model, prompts = tmp_path / "model", tmp_path / "prompts"
    shutil.copytree(MODEL_DIR, model)
    shutil.copytree(Path(game_prompts.__file__).with_name("prompt_sets") / "clinical", prompts)
    bench = bench_of(tmp_path, f"actor_rollout_ref.model.path={model}", f"medserl.prompt_set={prompts}")
    for changed, what in ((model / "tokenizer.json", "model"), (prompts / "assessor.txt", "prompts")):
        shutil.rmtree(bench.out, ignore_errors=True)
        finish(bench)
        made._model.cache_clear()
        assert bench.finished(the_cell(bench))
        changed.chmod(0o600)
        changed.write_text(changed.read_text() + " ")
        made._model.cache_clear()
        with pytest.raises(ConfigError, match=f"was made with other {what};"):
            bench.finished(the_cell(bench))


def test_two_changes_of_one_commit_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"rev-parse": "c" * 40, "status": " M a.py", "diff": "+one"}
    monkeypatch.setattr(provenance, "_git", lambda verb, *_: said[verb])
    first = provenance.git_changes()
    said["diff"] = "+two"
    assert first and first != provenance.git_changes()
    said["status"] = ""
    assert provenance.git_changes() == ""


def test_a_result_of_before_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(tmp_path, LIMIT)
    finish(bench).write_text('{"test": {"greedy": 0.7}}')
    with pytest.raises(ConfigError, match="does not say what it was made with"):
        started(bench, monkeypatch)


@pytest.mark.parametrize("text", ["{", "[]", "3", "\xff"])
def test_a_damaged_result_is_told(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    finish(bench_of(tmp_path, LIMIT)).write_text(text, encoding="latin-1")
    command = ["ablate", str(tmp_path / "g.yaml"), "--out", str(tmp_path / "bench"), "--report", "--notes", "2"]
    assert main(command) == 2
    assert "a-seed1/result.json" in capsys.readouterr().err
    assert not (tmp_path / "bench" / "table.md").exists()


@pytest.mark.parametrize(
    ("text", "words", "told"),
    [
        ("config: nope\narms: {a: []}", [], "--config nope"),
        ("config: 5\narms: {a: []}", [], "--config 5"),
        ("arms: {a: []}", ["--notes", "0"], "--notes: 0"),
        ("arms: {a: []}", ["--jobs", "0"], "--jobs: 0"),
        ("arms: {a: []}", ["--seeds", "2", "2"], "--seeds: 2 is given twice"),
        ("arms: {a: []}", ["--seeds", "-1"], "--seeds: -1"),
        ("grid: {a.seed: [1], b.seed: [1]}", [], "a.seed"),
        ("arms: {a: [medserl.sede=1]}", [], "arm a: .*sede"),
    ],
)
def test_what_cannot_run_is_told_and_nothing_is_written(
    tmp_path: Path, text: str, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    grid = tmp_path / "g.yaml"
    grid.write_text(text)
    assert main(["ablate", str(grid), "--out", str(tmp_path / "o"), *words]) == 2
    assert re.search(told, capsys.readouterr().err)
    assert not (tmp_path / "o").exists()


SFT = "{config: sft_embedded, overrides: [medserl.notes.path=FILE], only: true}"


@pytest.mark.parametrize(
    ("last", "content", "told"),
    [
        ("[medserl.notes.path=FILE]", None, "FILE: no such file"),
        ("[medserl.notes.path=FILE]", "{}\n", "FILE, row 1: 'note_id' is missing"),
        ("[medserl.notes.path=FILE]", NOTE, "FILE: 1 note is fewer than one round's"),
        ("[medserl.notes.labelled_path=FILE]", NOTE, "FILE: no note has an error variant"),
        ("[medserl.validation.path=FILE]", None, "FILE: no such file"),
        ("[medserl.validation.path=FILE]", NOTE, "FILE: no note has an error variant, so there is nothing to find"),
        (SFT, None, "FILE: no such file"),
    ],
)
def test_notes_of_the_last_arm_are_looked_at_before_the_first_begins(
    tmp_path: Path,
    last: str,
    content: str | None,
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Bench, "_start", lambda *_: pytest.fail("a run began"))
    grid, file = tmp_path / "g.yaml", tmp_path / "notes.jsonl"
    grid.write_text(f"arms:\n  a: [medserl.notes.count=32]\n  last: {last.replace('FILE', str(file))}\nseeds: [1, 2]\n")
    if content is not None:
        file.write_text(content)
    assert main(["ablate", str(grid), "--out", str(tmp_path / "o")]) == 2
    assert f"error: arm last: {told.replace('FILE', str(file))}" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_grid_that_is_a_folder_and_an_out_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", str(tmp_path), "--out", str(tmp_path / "o")]) == 2
    grid, out = tmp_path / "g.yaml", tmp_path / "file"
    grid.write_text("arms: {a: []}")
    out.write_text("x")
    assert main(["ablate", str(grid), "--out", str(out)]) == 2
    assert f"--out {out}: is not a folder" in capsys.readouterr().err


def test_names_of_a_product_are_names_of_folders(tmp_path: Path) -> None:
    grid = tmp_path / "g.yaml"
    grid.write_text("grid: {medserl.notes.path: [a/b, '..']}")
    names = [cell.name for cell in read_grid(grid).cells()]
    assert names == ["path-a-b-seed1", "path-..-seed1"] and not any("/" in name for name in names)
