"""The stages of `medserl pipeline`: what each is told, which are run, what is refused. Whole runs: tests/e2e."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from medserl.cli.main import main
from medserl.config.load import load_config
from medserl.errors import ConfigError
from medserl.pipeline.page import write_page
from medserl.pipeline.plan import Folders, Request, evaluate_arguments, sft_overrides, split_items, train_overrides
from medserl.pipeline.run import Pipeline
from tests.data.files import clean_row, error_row, note_text, write_csv
from tests.pipeline.test_directory import write_stage

pytestmark = pytest.mark.engine  # whole dry runs, with tokenizers: seconds each, too long for the quick tests


def request(out: Path, **more: Any) -> Request:
    return Request(out, **{"count": 40, "model": "builtin:ward", **more})


def medec(folder: Path, train: int = 40) -> tuple[Path, ...]:
    """MEDEC's three files, hand-made: ``train`` notes in the first, four in the others."""
    first = 0
    files = []
    for name, count in (("TrainingSet", train), ("ValidationSet", 4), ("TestSet", 4)):
        rows = [
            error_row(f"{name}-{i}", i) if i % 2 else clean_row(f"{name}-{i}", note_text(i))
            for i in range(first, first + count)
        ]
        first += count
        files.append(write_csv(folder / f"MEDEC-{name}.csv", rows))
    return tuple(files)


def test_items_are_sources_and_overrides_of_a_stage(tmp_path: Path) -> None:
    odd = tmp_path / "a=b.csv"
    odd.touch()
    found = split_items(["train:data.seed=1", "notes.csv", "sft:medserl.steps=2", str(odd), "train:a='x:y=z'"])
    assert found == ([Path("notes.csv"), odd], ["data.seed=1", "a='x:y=z'"], ["medserl.steps=2"])
    with pytest.raises(ConfigError, match="name its stage, train:data.seed=1 or sft:data.seed=1"):
        split_items(["data.seed=1"])


def test_training_sees_train_validation_chooses_test_judges(tmp_path: Path) -> None:
    data = tmp_path / "it's data"
    asked = Request(tmp_path, sources=(Path("x.csv"),), train=("medserl.max_rounds=3",))
    config = load_config("embedded", train_overrides(asked, data, tmp_path / "run", None, False))
    assert config.medserl.notes.path == str(data / "train.parquet")
    assert config.medserl.notes.labelled_path is None
    assert config.medserl.validation.path == str(data / "validation.parquet")
    assert config.medserl.max_rounds == 3 and config.trainer.test_freq == 5
    assert config.medserl.referee.name == "instruction"
    assert any("train.parquet" in item for item in sft_overrides(asked, data, tmp_path, None))
    command = evaluate_arguments(asked, data, "model", tmp_path / "out")
    assert command[command.index("--data") + 1] == str(data / "test.parquet")
    assert command[-1] == "medserl.max_rounds=3"


def test_the_ward_is_judged_by_its_oracle_and_overrides_have_the_last_word(tmp_path: Path) -> None:
    asked = request(tmp_path, train=("trainer.test_freq=2", "medserl.referee.name=rules"))
    assert (
        load_config(
            "embedded", train_overrides(request(tmp_path), tmp_path, tmp_path, None, False)
        ).medserl.referee.name
        == "oracle"
    )
    config = load_config("embedded", train_overrides(asked, tmp_path, tmp_path, None, False))
    assert (config.trainer.test_freq, config.medserl.referee.name) == (2, "rules")


def test_a_dry_run_checks_all_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["pipeline", "--out", str(out), "--count", "40", "--model", "builtin:ward", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()[:5]] == ["prepare", "sft", "train", "evaluate", "report"]
    assert "nothing started" in printed and not out.exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--count", "20"], "20 notes are fewer than one round"),
        (["train:medserl.rollout_batch_sice=8"], "did you mean medserl.rollout_batch_size"),
        (["sft:medserl.stepz=8"], "did you mean medserl.steps"),
        (["--model", "/nowhere"], "/nowhere is not a directory"),
        (["--config", "qwen3_4b_1node"], "--sft-config: name the warm start's configuration"),
        (["--max-prompt-tokens", "500"], "more than the configuration's data.max_prompt_length 192"),
        (["missing.csv"], "missing.csv"),
        (["--split", "train:x.csv"], "give SPLIT=FILE"),
    ],
)
def test_a_dry_run_refuses_in_one_sentence(
    tmp_path: Path, arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pipeline", "--out", str(tmp_path / "out"), "--count", "40", *arguments, "--dry-run"]) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_sources_must_give_all_splits(tmp_path: Path) -> None:
    train, _, test = medec(tmp_path)
    with pytest.raises(ConfigError, match="no split 'validation'"):
        Pipeline(request(tmp_path / "out", sources=(train, test), skip_warm_start=True)).dry_run()


def test_long_medec_notes_are_an_error_unless_they_are_left_out_and_counted(tmp_path: Path) -> None:
    files = medec(tmp_path)
    longer = ("data.max_prompt_length=448", "actor_rollout_ref.rollout.max_model_len=512")
    asked = ("data.max_prompt_length=192",)
    with pytest.raises(ValueError, match=r"data\.max_prompt_length is 192"):
        Pipeline(request(tmp_path / "out", sources=files, skip_warm_start=True, train=asked)).dry_run()
    write_csv(
        files[2], [clean_row("long", note_text(90) + " Word." * 600), clean_row("a", note_text(91)), error_row("b", 92)]
    )
    pipeline = Pipeline(
        request(tmp_path / "out", sources=files, skip_warm_start=True, train=longer, max_prompt_tokens=448)
    )
    pipeline.dry_run()
    facts = pipeline._prepare_into(tmp_path / "prepare")
    assert facts["too_long"] == {"test": 1, "train": 0, "validation": 0}
    assert facts["dropped"] == {"a prompt needs more than 448 tokens": 1}
    assert facts["splits"]["test"]["rows"] == 2


class Recorded(Pipeline):
    """Stages that write a word instead of starting anything; which were run is remembered."""

    def __init__(self, asked: Request, fails_in: str = "") -> None:
        super().__init__(asked)
        self.ran: list[str] = []
        self.fails_in = fails_in

    def check_stages(self, data: Path) -> None:
        assert self.is_done("prepare")

    def _note(self, stage: str, **facts: Any) -> dict[str, Any]:
        self.ran.append(stage)
        if stage == self.fails_in:
            raise RuntimeError(stage)
        write_stage(self.folders.out, stage)
        return facts

    def _prepare(self) -> dict[str, Any]:
        return self._note("prepare", splits={"train": {"rows": 3, "labels": {"CORRECT": 3}}}, dropped={"too <long>": 2})

    def _sft(self) -> dict[str, Any]:
        return self._note("sft")

    def _train(self) -> dict[str, Any]:
        return self._note("train", rounds=2, checkpoint="global_step_2", sentences=["too few rounds"])

    def _evaluate(self) -> dict[str, Any]:
        return self._note("evaluate")

    def _report(self) -> dict[str, Any]:
        side = dict.fromkeys(("accuracy", "balanced_accuracy", "mcc", "recall_correct", "recall_incorrect"), 0.5)
        found = {"texts": 8, "first": side, "second": {**side, "mcc": None}}
        (self.folders.out / "report/comparison.json").write_text(json.dumps(found))
        return self._note("report", sentence="No <significant> difference.", significant=False)


def test_it_goes_on_with_the_stage_that_failed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    broken = Recorded(request(out), fails_in="train")
    with pytest.raises(RuntimeError, match="train"):
        broken.run()
    assert broken.ran == ["prepare", "sft", "train"]
    assert "Not finished" in (out / "index.html").read_text()
    again = Recorded(request(out))
    again.run()
    assert again.ran == ["train", "evaluate", "report"]
    finished = Recorded(request(out))
    finished.run()
    assert finished.ran == []
    assert "report    done" in finished.plan()
    page = (out / "index.html").read_text()
    for text in ("No &lt;significant&gt; difference.", "2 rows: too &lt;long&gt;", "global_step_2", "n/a", "0.500"):
        assert text in page
    assert (out / "index.html").stat().st_mode & 0o077 == 0 and out.stat().st_mode & 0o077 == 0


def test_a_skipped_warm_start_has_no_stage(tmp_path: Path) -> None:
    asked = request(tmp_path / "out", skip_warm_start=True)
    pipeline = Recorded(asked)
    pipeline.run()
    assert pipeline.ran == ["prepare", "train", "evaluate", "report"]
    assert pipeline.start_model == "builtin:ward"
    assert not (tmp_path / "out/sft").exists()
    assert "sft" not in write_page(Folders(tmp_path / "out"), asked).read_text().split("<details>")[0]


def test_killed_pipeline_leaves_no_command_behind(tmp_path: Path) -> None:
    """A stage's command is told to stop when the pipeline is killed; as `train` it then saves what it has."""
    program = f"from medserl.pipeline.run import _medserl; _medserl('train', '--run-dir', {str(tmp_path / 'run')!r})"
    pipeline = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL)
    children = Path(f"/proc/{pipeline.pid}/task/{pipeline.pid}/children")
    deadline = time.monotonic() + 60
    while not (found := [pid for pid in children.read_text().split() if b"medserl\0train" in _command_line(pid)]):
        assert pipeline.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    pipeline.kill()
    pipeline.wait()
    while Path(f"/proc/{found[0]}").exists() and _command_line(found[0]):  # a zombie has none
        assert time.monotonic() < deadline + 60, os.kill(int(found[0]), 9)
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_told_to_stop_between_two_commands_it_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    monkeypatch.setattr(Pipeline, "_prepare", lambda _: os.kill(os.getpid(), number))
    assert main(["pipeline", "--out", str(tmp_path / "out"), "--skip-warm-start"]) == 128 + number
    assert "the same command continues" in capsys.readouterr().err
    assert signal.getsignal(number) is before and not (tmp_path / "out/prepare/done.json").exists()


def _command_line(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
