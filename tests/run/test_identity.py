"""A run goes on with the same content, wherever it lies, and is refused with other content under the same name."""

import functools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from medserl.config.load import load_config, load_sft_config
from medserl.errors import ConfigError
from medserl.run import identity
from medserl.run.identity import FREE_KEYS, INPUTS_FILE, differences, fingerprint
from medserl.run.layout import LAYOUT_KEYS
from medserl.run.run_dir import CONFIG_FILE, RunDir
from medserl.ward import MODEL_DIR

MODEL, NOTES = "actor_rollout_ref.model.path", "medserl.notes.path"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [{"note_id": f"n{i}", "text": f"Patient {i} has a cough. He is well."} for i in range(40)]
    Path("notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


# What the tests here change, and what stands beside it: of a thousand keys, most concern none of them.
SECTIONS = ("medserl", "trainer", "algorithm", "data")
MODEL_SECTIONS = ("model.path", "actor.optim", "actor.megatron", "rollout.gpu_memory_utilization")


@functools.cache
def composed() -> DictConfig:
    whole = load_config("embedded", ["medserl.run_dir=run"])
    part = OmegaConf.masked_copy(whole, SECTIONS)
    for key in (f"actor_rollout_ref.{section}" for section in MODEL_SECTIONS):
        OmegaConf.update(part, key, OmegaConf.select(whole, key), force_add=True)
    return part


def start(*overrides: str) -> None:
    """A start of a run; values are set in the resolved configuration, because composing one takes a second."""
    config = composed().copy()
    for override in overrides:
        key, value = override.split("=")
        OmegaConf.update(config, key, yaml.safe_load(value))
    run = RunDir(Path("run"))
    run.open(config, "embedded", [])
    run.close()


begin = resume = start


def of_an_earlier_version(change: Callable[[Any], Any] = lambda config: None) -> None:
    """The run directory as a version left it that recorded no inputs."""
    Path("run", INPUTS_FILE).unlink()
    config = OmegaConf.to_container(OmegaConf.load(Path("run", CONFIG_FILE)))
    change(config)
    Path("run", CONFIG_FILE).write_text(OmegaConf.to_yaml(OmegaConf.create(config)))


def test_notes_and_model_may_move(here: Path) -> None:
    shutil.copytree(MODEL_DIR, "model")
    begin(f"{NOTES}=notes.jsonl", f"{MODEL}=model")
    os.rename("model", "moved")
    os.mkdir("data")
    os.rename("notes.jsonl", "data/other_name.jsonl")
    resume(f"{NOTES}={here}/data/other_name.jsonl", f"{MODEL}=moved")
    resume(f"{NOTES}=data/other_name.jsonl", f"{MODEL}={here}/moved")


def test_other_content_under_the_same_path_is_refused(here: Path) -> None:
    shutil.copytree(MODEL_DIR, "model")
    begin(f"{NOTES}=notes.jsonl", f"{MODEL}=model")
    text = Path("notes.jsonl").read_text()
    Path("notes.jsonl").write_text(text.replace("cough", "fever"))
    with pytest.raises(
        ConfigError, match=r"notes\.path: notes\.jsonl, which holds something else than when the run began"
    ):
        resume(f"{NOTES}=notes.jsonl", f"{MODEL}=model")
    Path("notes.jsonl").write_text(text)
    resume(f"{NOTES}=notes.jsonl", f"{MODEL}=model")
    weights = Path("model/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ConfigError, match=r"model\.path: model, which holds something else .* give another --run-dir"):
        resume(f"{NOTES}=notes.jsonl", f"{MODEL}=model")


def test_other_notes_by_another_path_are_refused(here: Path) -> None:
    begin(f"{NOTES}=notes.jsonl")
    Path("others.jsonl").write_text(Path("notes.jsonl").read_text() + "\n")
    with pytest.raises(ConfigError, match=r"'notes\.jsonl' there, 'others\.jsonl' now, which holds something else"):
        resume(f"{NOTES}=others.jsonl")
    with pytest.raises(ConfigError, match=r"notes\.path: 'notes\.jsonl' there, None now"):
        resume()


def test_the_builtin_model_is_a_name(here: Path) -> None:
    begin()
    assert OmegaConf.load("run/config.yaml").actor_rollout_ref.model.path == "builtin:ward"
    elsewhere = here / "venv/lib/medserl/ward/model"
    shutil.copytree(MODEL_DIR, elsewhere)
    resume(f"{MODEL}={elsewhere}")
    config = elsewhere / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(ConfigError, match=r"model\.path: builtin:ward, which holds something else than when the run"):
        resume(f"{MODEL}={elsewhere}")


@pytest.mark.parametrize(
    ("overrides", "change"),
    [
        ([], lambda c: None),
        ([], lambda c: c["actor_rollout_ref"]["model"].update(path="/gone/site-packages/medserl/ward/model")),
        ([f"{NOTES}=notes.jsonl"], lambda c: c["medserl"]["notes"].update(path="./notes.jsonl")),
        ([], lambda c: c["medserl"].pop("balance_labels")),
        ([], lambda c: c["medserl"].pop("validation")),
        ([], lambda c: c["medserl"]["vcf"].pop("max_word_edits")),
        ([], lambda c: c["medserl"].pop("error_types")),
    ],
)
def test_a_directory_of_an_earlier_version_goes_on(
    here: Path, overrides: list[str], change: Callable[[Any], Any]
) -> None:
    begin(*overrides)
    of_an_earlier_version(change)
    resume(*overrides)
    assert MODEL in json.loads(Path("run", INPUTS_FILE).read_text()), "recorded from now on"


def test_what_an_earlier_version_did_not_have_and_is_not_at_its_default_is_refused(here: Path) -> None:
    begin()
    of_an_earlier_version(lambda c: c["medserl"].pop("balance_labels"))
    with pytest.raises(ConfigError, match=r"medserl\.balance_labels: None there, False now"):
        resume("medserl.balance_labels=false")


def test_notes_that_cannot_be_compared_any_more_are_refused_with_a_way_on(here: Path) -> None:
    begin(f"{NOTES}=notes.jsonl")
    of_an_earlier_version()
    os.rename("notes.jsonl", "moved.jsonl")
    with pytest.raises(ConfigError, match="not there any more to compare them; make it a link to the latter"):
        resume(f"{NOTES}=moved.jsonl")
    os.symlink("moved.jsonl", "notes.jsonl")
    resume(f"{NOTES}=moved.jsonl")


@pytest.mark.parametrize(
    "override",
    [
        "trainer.test_freq=1",
        "trainer.val_before_train=false",
        "trainer.save_freq=7",
        "medserl.validation.patience=3",
        "medserl.validation.count=10",
        "medserl.validation.sampled=false",
        "medserl.validation.best_metric=val/greedy/mcc",
        "medserl.game_log.enabled=true",
        "medserl.device=cpu",
        "medserl.trackers=[mlflow]",
        "trainer.logger=[console]",
        "medserl.max_rounds=99",
        "actor_rollout_ref.rollout.gpu_memory_utilization=0.2",
    ],
)
def test_what_only_watches_a_run_or_says_where_it_runs_is_free(here: Path, override: str) -> None:
    begin()
    resume(override)
    resume()


@pytest.mark.parametrize(
    "override",
    [
        "medserl.seed=9",
        "medserl.rollout_batch_size=16",
        "actor_rollout_ref.actor.optim.lr=3e-3",
        "medserl.rewards.format_bonus=0.2",
        "medserl.notes.count=100",
        "algorithm.gamma=0.9",
        "medserl.labelled_share=0",
    ],
)
def test_what_the_weights_depend_on_is_not(here: Path, override: str) -> None:
    begin()
    with pytest.raises(
        ConfigError, match=rf"{override.split('=')[0].split('.')[-1]}.*go on with what its config\.yaml"
    ):
        resume(override)


ACTOR, ROLLOUT = "actor_rollout_ref.actor.megatron", "actor_rollout_ref.rollout"


JUDGE, FROZEN = ["medserl.referee.name=judge"], ["medserl.frozen_injector=true", "medserl.train_roles=assessor"]


@pytest.mark.parametrize(
    ("more", "layout"),
    [
        ([], ["trainer.n_gpus_per_node=4"]),
        ([], [f"{ACTOR}.tensor_model_parallel_size=1", f"{ROLLOUT}.tensor_model_parallel_size=1"]),
        ([], [f"{ACTOR}.tensor_model_parallel_size=1", f"{ACTOR}.pipeline_model_parallel_size=2"]),
        (FROZEN, ["trainer.nnodes=3", "trainer.n_gpus_per_node=8", f"{ROLLOUT}.tensor_model_parallel_size=1"]),
        (JUDGE, ["trainer.nnodes=3", "trainer.n_gpus_per_node=8", f"{ROLLOUT}.tensor_model_parallel_size=1"]),
    ],
)
def test_another_number_of_workers_is_a_layout_and_nothing_else(more: list[str], layout: list[str]) -> None:
    """docs/pipeline.md promises it."""
    before, after = load_config("embedded", more), load_config("embedded", [*more, *layout])
    assert differences(before, after) != []
    assert differences(before, after, (*FREE_KEYS, *LAYOUT_KEYS)) == []


def test_a_supervised_run_goes_by_content_too(here: Path) -> None:
    composed = load_sft_config("sft_embedded", ["medserl.run_dir=sft"])

    def start(path: str) -> None:
        config = composed.copy()
        config.medserl.notes.path = path
        run = RunDir(Path("sft"))
        run.open(config, "sft_embedded", [])
        run.close()

    start("notes.jsonl")
    os.rename("notes.jsonl", "n.jsonl")
    start("n.jsonl")
    Path("n.jsonl").write_text("{}")
    with pytest.raises(ConfigError, match="holds something else"):
        start("n.jsonl")


def test_big_files_are_read_again_only_when_they_changed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkdir("m")
    Path("m/a.safetensors").write_bytes(b"w" * 50)
    Path("m/README.md").write_text("1")
    monkeypatch.setattr(identity, "_BIG", 10)
    first = fingerprint(Path("m"))
    read: list[Path] = []
    monkeypatch.setattr(identity, "sha256_of", lambda path: read.append(path) or "x")
    assert fingerprint(Path("m"), first) == first and read == []
    Path("m/README.md").write_text("2")
    assert fingerprint(Path("m"), first) == first and read == []
    os.utime("m/a.safetensors", ns=(1, 1))
    fingerprint(Path("m"), first)
    assert [path.name for path in read] == ["a.safetensors"]


def test_a_damaged_record_of_inputs_is_as_none(here: Path) -> None:
    begin(f"{NOTES}=notes.jsonl")
    for content in ("", "[]", '{"medserl.notes.path": 3}'):
        Path("run", INPUTS_FILE).write_text(content)
        resume(f"{NOTES}=./notes.jsonl")


def test_the_package_s_own_paths_are_recorded_as_names() -> None:
    config: DictConfig = load_config("embedded", ["medserl.referee.name=judge"])
    assert str(MODEL_DIR) not in OmegaConf.to_yaml(identity.named(config))
    assert config.actor_rollout_ref.model.path == str(MODEL_DIR), "the run itself needs the place"
