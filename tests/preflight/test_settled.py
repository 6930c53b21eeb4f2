"""What a run settles by its notes: ``medserl train --prompt-data medec_train.jsonl`` works as it stands."""

import json
import shutil
from pathlib import Path

import pytest

from medserl.cli.main import main
from medserl.config.load import load_config
from medserl.errors import EXIT_OK, EXIT_USAGE
from medserl.preflight.checks import check_all
from medserl.preflight.model_files import MODEL, tell_other_format
from medserl.run.run_dir import RunDir
from medserl.ward import model_dir

SENTENCES = "He has a cough since Monday. The chest film shows a left lower lobe infiltrate. He lives alone. " * 7


def medec(folder: Path, more: str = "") -> Path:
    """Forty pairs in one of MEDEC's forms, longer than the embedded default's prompts; ``more`` lengthens the last."""
    rows = []
    for number in range(40):
        right = f"A {20 + number}-year-old man comes to the clinic. {SENTENCES}Amoxicillin is given."
        right += f" {more}" if number == 39 else ""
        wrong = right.replace("Amoxicillin", "Warfarin")
        rows.append({"note_id": f"ms-train-{number}", "correct_note": right, "incorrect_note": wrong})
    path = folder / "medec_train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def command(folder: Path, more: str = "") -> list[str]:
    # The tiny model on purpose: there is no other in the package.
    return ["train", "--prompt-data", str(medec(folder, more)), "--vcf-min-jaccard", "0.85", "--model", "builtin:ward",
            "--run-dir", str(folder / "run"), "--dry-run"]  # fmt: skip


def test_the_plain_command_gets_its_room_and_says_what_its_labels_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert main(command(tmp_path)) == EXIT_OK
    plan = capsys.readouterr().out
    assert "referee instruction" in plan
    assert "labels     labels are what the injector was asked for and were not checked" in plan.replace("\n", " ")
    assert "data.max_prompt_length is" in caplog.text and "instead of 192" in caplog.text
    assert "learns nothing from them" in caplog.text, "nobody takes this for training"


def test_a_model_that_learnt_another_format_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model_dir(), tmp_path / "warm/model")
    told = "learnt the injector's format phrase in its warm start and is asked for edit"
    for record, warned in (({"injector_format": "edit"}, False), ([], False), ({"injector_format": "phrase"}, True)):
        (tmp_path / "warm/finished.json").write_text(json.dumps(record))
        caplog.clear()
        tell_other_format(tmp_path / "warm/model", "edit")
        assert (told in caplog.text) == warned
    caplog.clear()
    words = ["--model", str(tmp_path / "warm/model"), "--run-dir", str(tmp_path / "run"), "--dry-run"]
    assert main(["train", *words]) == EXIT_OK and told in caplog.text


def test_the_room_is_what_the_longest_note_needs_in_all_places(tmp_path: Path) -> None:
    overrides = [f"medserl.notes.path={medec(tmp_path)}", f"medserl.run_dir={tmp_path / 'run'}",
                 "medserl.referee.name=judge"]  # fmt: skip
    config = load_config("embedded", overrides)
    before = config.reward.reward_model.rollout.max_model_len
    check_all(config, RunDir(tmp_path / "run"), {MODEL})
    longest, rollout = config.data.max_prompt_length, config.actor_rollout_ref.rollout
    assert 192 < longest <= rollout.max_model_len - config.data.max_response_length
    assert rollout.max_num_batched_tokens >= rollout.max_model_len
    assert config.reward.reward_model.rollout.max_model_len > before, "the judge reads the same notes"
    check_all(config, RunDir(tmp_path / "run"), {MODEL, "data.max_prompt_length"})
    assert config.data.max_prompt_length == longest


def test_a_limit_that_was_asked_for_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command(tmp_path), "data.max_prompt_length=150"]) == EXIT_USAGE
    assert "data.max_prompt_length is 150; raise it or leave the note out" in capsys.readouterr().err


def test_what_the_models_context_cannot_hold_is_refused_by_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path, more="He walks. " * 400)) == EXIT_USAGE
    assert "note ms-train-39: " in (told := capsys.readouterr().err)
    assert "the model's context leaves 960; take another model or leave the note out" in told
