"""Notes that a configuration leaves to the user: a start without them is refused, a look at it is not."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from medserl.cli.main import main
from medserl.config.family import NOTES, config_path, leaves_open
from medserl.config.load import available_configs, is_sft_config, load_config, load_sft_config
from medserl.errors import ConfigError

OPEN = [name for name in available_configs() if leaves_open(config_path(name), NOTES)]


def loader(name: str) -> Callable[..., DictConfig]:
    return load_sft_config if is_sft_config(name) else load_config


def test_production_configurations_leave_their_notes_open() -> None:
    assert set(OPEN) == {name for name in available_configs() if "qwen3" in name}


@pytest.mark.parametrize("name", OPEN)
def test_a_start_without_notes_is_refused_and_a_look_is_not(name: str) -> None:
    option = "--data" if is_sft_config(name) else "--prompt-data"
    with pytest.raises(ConfigError) as error:
        loader(name)(name)
    assert (
        str(error.value) == f"{NOTES}: configuration {name} leaves the notes to you; name a file of them, {option} FILE"
    )
    assert loader(name)(name, starts=False).medserl.notes.path is None
    assert loader(name)(name, [f"{NOTES}=notes.jsonl"]).medserl.notes.path == "notes.jsonl"


def test_the_ward_can_be_asked_for_in_so_many_words() -> None:
    for word in (f"{NOTES}=null", "medserl.notes.source=ward"):
        assert load_config("qwen3_4b_1gpu", [word]).medserl.notes.source == "ward"


def test_a_file_that_stands_on_such_a_configuration(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("defaults: [qwen3_4b_1gpu, _self_]\ntrainer: {save_freq: 7}\n")
    with pytest.raises(ConfigError, match="leaves the notes to you"):
        load_config(str(mine))
    mine.write_text("defaults: [qwen3_4b_1gpu, _self_]\nmedserl: {notes: {path: mine.jsonl}}\n")
    assert load_config(str(mine)).medserl.notes.path == "mine.jsonl"
    mine.write_text('defaults: [embedded, _self_]\nmedserl: {notes: {path: "???"}}\n')
    with pytest.raises(ConfigError, match=r"--prompt-data FILE"):
        load_config(str(mine))


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--config", "qwen3_4b_1gpu", "--dry-run"],
        ["sft", "--config", "sft_qwen3_4b", "--dry-run"],
        ["slurm", "render", "train_multinode", "actor_rollout_ref.model.path=/models/Qwen3-4B"],
        ["slurm", "submit", "train_multinode"],
    ],
    ids=" ".join,
)
def test_every_command_that_starts_one_says_what_to_give(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    lines = capsys.readouterr().err.strip().splitlines()  # with the GPU and the model that this machine lacks
    (told,) = (line for line in lines if "leaves the notes to you; name a file of them, --" in line)
    assert told.endswith("data FILE")
    assert not list(tmp_path.iterdir())


def test_plan_and_config_need_no_notes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--config", "qwen3_4b_1gpu", "--json"]) == 0
    assert main(["config", "--config", "sft_qwen3_4b", "--section", NOTES]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "null"
