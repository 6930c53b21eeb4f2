"""`medserl config --explain` and `--changed`: what a key means, from where it is written down."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from medserl.cli.main import main
from medserl.config.explain import changed, comments, entry, explain_key, own_entries, verl_comments
from medserl.config.family import SFT, TRAIN, Family
from medserl.config.load import load_config
from medserl.errors import ConfigError


@pytest.mark.parametrize("family", [TRAIN, SFT])
def test_every_key_of_ours_says_what_it_means(family: Family) -> None:
    silent = [key for key, found in own_entries(family).items() if not found.meaning]
    assert not silent
    assert own_entries(family)["medserl.seed"].default == family.settings().seed


def test_comments_of_verls_files_reach_the_keys_that_they_stand_above() -> None:
    found = verl_comments(TRAIN)
    assert found["actor_rollout_ref.actor.clip_ratio"] == "PPO clip ratio"
    assert "KV cache" in found["actor_rollout_ref.rollout.gpu_memory_utilization"]
    assert found["algorithm.gamma"] == "Discount factor for future rewards"
    assert "tensor model parallel size" in found["actor_rollout_ref.actor.megatron.tensor_model_parallel_size"]
    assert found["actor_rollout_ref.actor.optim.lr"] == "Learning rate"


def test_a_key_says_its_value_its_default_and_why() -> None:
    config = load_config("embedded", ["medserl.vcf.min_jaccard=0.9"])
    said = explain_key(config, "medserl.vcf.min_jaccard", "embedded")
    assert said.splitlines()[:3] == ["medserl.vcf.min_jaccard (float)", "  value    0.9", "  default  0.85"]
    assert "here: on-policy: generate, update, new weights" in explain_key(
        config, "trainer.v1.trainer_mode", "embedded"
    )
    section = explain_key(config, "medserl.vcf", "embedded")
    assert "\n  max_word_edits: Maximum number of word edits (Levenshtein distance over words)." in section


def test_what_is_no_key_is_refused_with_near_ones() -> None:
    config = load_config("embedded", [])
    with pytest.raises(ConfigError, match=r"min_jaccard: .* did you mean medserl\.vcf\.min_jaccard\?"):
        explain_key(config, "min_jaccard", "embedded")
    with pytest.raises(ConfigError, match=r"did you mean medserl\.vcf\.max_jaccard"):
        explain_key(config, "medserl.vcf.max_jacard", "embedded")


def test_changed_lists_what_differs_and_nothing_else() -> None:
    config = load_config("embedded", ["medserl.max_attempts=2"])
    found = {one.key: one for one in changed(config, "embedded")}
    assert found["medserl.max_attempts"].default == 3
    assert "algorithm.kl_ctrl.kl_coef" in found and "medserl.vcf.min_jaccard" not in found
    for key in found:
        assert OmegaConf.select(config, key) != entry(config, key, "embedded").default


@pytest.mark.parametrize("name", ["embedded", "qwen3_4b_1node", "sft_embedded"])
def test_the_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--config", name, "--changed"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("medserl.") for line in lines) and all("(default " in line for line in lines)
    assert main(["config", "--config", name, "--explain", "medserl.seed"]) == 0
    assert main(["config", "--config", name, "--explain", "medserl.sead"]) == 2
    assert "did you mean medserl.seed" in capsys.readouterr().err


def test_comments_above_and_behind(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("# head\n\n# one\n# two\na:\n  b: 1 # behind\n  # c's\n  c: '#no'\n\n# lost\n\nd: 2\ne:\n  b: 3\n")
    assert comments(path) == {"a": "one two", "a.b": "behind", "a.c": "c's"}


def test_a_nested_default_is_that_of_its_section() -> None:
    second = own_entries(TRAIN)["medserl.second_referee.name"]
    assert second.default is None and dataclasses.asdict(second)["kind"] == "str or null"
