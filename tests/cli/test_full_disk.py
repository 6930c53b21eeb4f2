"""A disk that is full, a quota that is used up, a folder that takes nothing: one sentence with the file's name, and
what was there before is there afterwards, nothing else.

The limit on a file's size is the system's own, so that every library meets it; what only another machine has (a
read-only mount, a quota) is raised where Python opens and syncs files.
"""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medserl.cli.main import main
from medserl.evaluation import engine
from medserl.evaluation.votes import Vote
from medserl.game.labels import Label
from medserl.run import checkpoint
from medserl.ward import MODEL_DIR
from tests.evaluation.made import FLAG, examples, scored, stored
from tests.gamelog.made import made_log
from tests.report.test_run_report import make_run

# What is run, and what the sentence must name.
COMMANDS: dict[str, tuple[str, str]] = {
    "report": ("report run", "run/report"),
    "report of two": ("report run second --out two.html", "two.html"),
    "games": ("games games --out page.html", "page.html"),
    "export": ("export run --out deep/exported", "deep"),
    "prepare": ("data prepare notes.jsonl --out deep/prepared", "deep/prepared"),
    "prepare over another": ("data prepare notes.jsonl --out before --overwrite", "before"),
    "ward": ("data ward --count 20 --out deep/ward", "deep/ward"),
    "pipeline": ("pipeline --count 40 --skip-warm-start --out deep/pipeline", "deep/pipeline"),
    "ablate": ("ablate grid.yaml --out bench --report --notes 1", "bench"),
    "evaluate": ("evaluate --model builtin:ward --data ward:test --count 5 --out deep/found", "deep"),
    "check": ("check notes.jsonl --model model --out checked.csv", "/world0/.answers-|checked.csv"),
    "plan": (
        "slurm step plan --nodes 1 --gpus-per-node 2 --cpus-per-node 32 --out plan.json -- train --config embedded",
        "plan.json",
    ),
}
FAULTS = {
    "file size": errno.EFBIG,
    "quota": errno.EDQUOT,
    "read-only": errno.EROFS,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands read."""
    folder = tmp_path_factory.mktemp("world")
    notes = [
        {"note_id": f"n{i}", "correct_note": f"Patient {i} has gout.", "incorrect_note": f"Patient {i} has flu."}
        for i in range(30)
    ]
    (folder / "notes.jsonl").write_text("".join(json.dumps(note) + "\n" for note in notes))
    (folder / "grid.yaml").write_text("arms:\n  a: [medserl.notes.count=32]\n")
    make_run(folder / "run")
    make_run(folder / "second")
    staged = checkpoint.staging_dir(folder / "run/checkpoints") / "global_step_24"
    shutil.copytree(MODEL_DIR, staged / "actor/model/huggingface")
    shutil.rmtree(folder / "run/checkpoints/global_step_24")
    checkpoint.publish(folder / "run/checkpoints", 24, {}, None)
    made_log(folder / "games")
    shutil.copytree(MODEL_DIR, folder / "model")
    stored(folder / "results", [scored(item, FLAG.format(item.label.value)) for item in examples(2)])
    assert main(["data", "prepare", str(folder / "notes.jsonl"), "--out", str(folder / "before")]) == 0
    return folder


@pytest.fixture
def at_hand(world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In its folder; models answer without vLLM, and judge without torch."""

    def assess(_: Any, chats: list[Any], *__: Any) -> list[tuple[Vote, ...]]:
        return [(Vote(Label.CORRECT, p_incorrect=0.2),) for _ in chats]

    monkeypatch.setattr(engine, "assess", assess)
    monkeypatch.setattr(engine, "prepare_device", lambda config: "cpu")
    monkeypatch.setattr("medserl.ablation.cell.judge", lambda *_: dict.fromkeys(("greedy", "sampled", "auc"), 0.5))
    monkeypatch.setattr("medserl.pipeline.run._medserl", lambda *_: pytest.fail("a stage began"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.chdir(world)
    return world


_failing: list[tuple[Path, int]] = []


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: cannot be taken back, so it looks whether it is wanted."""
    if not _failing or event not in ("open", "os.mkdir", "os.rename"):
        return
    below, number = _failing[-1]
    path = arguments[0]
    writes = event != "open" or (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR))
    if writes and isinstance(path, str | bytes | os.PathLike):
        named = os.path.abspath(os.fsdecode(path))
        if named.startswith(f"{below}/"):
            raise OSError(number, os.strerror(number), os.fsdecode(path))


sys.addaudithook(_refuse)


@contextmanager
def failing(name: str, folder: Path, limit: int) -> Iterator[None]:
    """Writing fails inside: files above ``limit`` bytes, every sync, or every file that is opened for it."""
    if name == "file size":
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    elif name == "quota":

        def full(_: int) -> None:
            raise OSError(FAULTS[name], os.strerror(FAULTS[name]))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", full)
            yield
    else:
        _failing.append((folder, FAULTS[name]))
        try:
            yield
        finally:
            _failing.pop()


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_left_and_the_file_is_named(
    command: str, fault: str, at_hand: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, named = COMMANDS[command]
    before = tree(at_hand)
    for limit in (0, 100) if fault == "file size" else (0,):
        with failing(fault, at_hand, limit):
            code = main(words.split())
        said = capsys.readouterr().err
        last = said.splitlines()[-1]
        assert code in (1, 2) and last.startswith("medserl: error: "), said
        assert os.strerror(FAULTS[fault]) in last, said
        assert re.search(named, last) and f".{os.getpid()}" not in last, said
        assert tree(at_hand) == before


def test_a_bench_that_cannot_keep_a_log_starts_no_run(
    at_hand: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    none = SimpleNamespace(Popen=lambda *_, **__: pytest.fail("a run began"), STDOUT=None)
    monkeypatch.setattr("medserl.ablation.runner.subprocess", none)
    before = tree(at_hand)
    with failing("read-only", at_hand, 0):
        assert main(["ablate", "grid.yaml", "--out", "bench"]) == 2
    assert "bench/runs: Read-only file system; choose" in capsys.readouterr().err
    assert tree(at_hand) == before
