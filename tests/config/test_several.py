"""All that is wrong with a configuration is told at once, and nothing that only follows from it."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medserl.config.load import load_config, load_sft_config
from medserl.errors import ConfigError, DataError, Problems, SeveralErrors, UserError, all_told


def told(*overrides: str, config: str = "embedded") -> list[str]:
    with pytest.raises(UserError) as error:
        (load_sft_config if config.startswith("sft") else load_config)(config, list(overrides))
    found = error.value.found if isinstance(error.value, SeveralErrors) else [error.value]
    assert not any("\n" in str(one) for one in found)
    return [str(one) for one in found]


def check(found: list[str], *expected: str) -> None:
    """Each of these is told in one sentence of its own, and nothing else is."""
    assert len(found) == len(expected), found
    assert [part for part in expected if sum(part in one for one in found) != 1] == [], found


def test_overrides_of_every_kind() -> None:
    check(
        told(
            *(
                "medserl.seed=1.5",
                "medserl.max_rounds=[1]",
                "medserl.sed=3",
                "trainer.total_epoch=3",
                "=1",
                "medserl=4",
            ),
            *("trainer.nnodes=two", "data.max_prompt_length=0", "trainer.logger=[wandb]", "critic=null", "trainer=abc"),
            *("actor_rollout_ref.rollout.name=sglang", "+trainer.foo=1", "+ray_kwargs.ray_init.num_cpu=1"),
            *("medserl.train_roles=nobody", "medserl.vcf.min_jaccard=2", "medserl.labelled_batch_size=3"),
            *("critic.megatron.seed=3", "critic.optim.lr=1", "~medserl.seed", "medserl.injector_url=ftp://x"),
            *("medserl.validation.best_metric=x", "+actor_rollout_ref.rollout.engine_kwargs.vllm.max_num_seq=1"),
        ),
        *(
            "medserl.seed takes a whole number",
            "medserl.max_rounds takes a whole number or null",
            "has a key medserl.sed",
        ),
        *("did you mean trainer.total_epochs", "names no key", "'medserl=4'", "data.max_prompt_length: 0 is less"),
        *("trainer.logger: ['wandb'] has no effect", "critic takes a name", "trainer: is a section", "only 'vllm'"),
        *(
            "key trainer.foo",
            "trainer.nnodes: 'two'",
            "no option num_cpu",
            "'nobody' is not one of",
            "min_jaccard 2.0",
            "3 is odd",
        ),
        *(
            "set actor_rollout_ref.actor.megatron.seed",
            "critic.optim.lr: has no effect",
            "cannot be removed",
            "'ftp://x'",
        ),
        *("best_metric: x is not measured", "did you mean max_num_seqs"),
    )


def test_what_follows_from_a_wrong_value_is_not_told() -> None:
    key = "actor_rollout_ref.actor.megatron.tensor_model_parallel_size"
    check(told(f"{key}=two"), f"{key}: 'two' is not a whole number")  # vLLM's, and the reference's, follow it
    check(
        told("medserl.rollout_batch_size=0", "medserl.replay_batch_size=4", "medserl.labelled_batch_size=0"), "nothing"
    )
    check(told("algorithm.adv_estimator=grpo", "critic.optim.lr=1"), "'grpo' is not supported")
    check(told("model_engine=torchtitan", "medserl.seed=x"), "'torchtitan' is not supported", "medserl.seed takes")


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "defaults: [embedded, _self_]\nfoo: {bar: 1}\ntrainer: [1]\ndata: {max_prompt_length: long}\n"
        "medserl: {notes: {count: many, typo: 1}, error_types: x, referee: null, seed: null, max_round: 3}\n"
        "critic: {model: {path: x}}\n"
    )
    check(
        told("medserl.poll_seconds=soon", config=str(file)),
        *("medserl.notes.count takes a whole number, not 'many'", "has a key medserl.notes.typo", "not 'x'"),
        *("medserl.referee is a section", "medserl.seed takes a whole number, not null", "mean medserl.max_rounds"),
        *("trainer is a section with keys of its own, not a list", "key foo", "critic.model", "'long' is not"),
        "medserl.poll_seconds takes a number",
    )


def test_a_warm_start() -> None:
    check(
        told(
            *("medserl.steps=-5", "optim.min_lr=1", "medserl.mixture.assessor_pairs=0", "trainer.seed=4", "nope.x=1"),
            *("medserl.mixture.injector_turns=0", "medserl.notes.labelled_path=x", "medserl.injector_format=xml"),
            *("+engine.override_transformer_config.atention_backend=local", "medserl.mixture.proved_errors=0.5"),
            config="sft_embedded",
        ),
        *("medserl.steps: -5", "optim.min_lr: 1 is more", "make an empty batch", "trainer.seed: 4", "key nope.x"),
        *(
            "medserl.notes.labelled_path",
            "'xml' is not one of",
            "mean attention_backend",
            "mixture.proved_errors: has no",
        ),
    )


def test_what_might_be_a_note_is_not_repeated(tmp_path: Path) -> None:
    note = "67-year-old male presents with numbness of the feet, and of feeling tired for seven months."
    (tmp_path / "mine.yaml").write_text(f"defaults: [embedded, _self_]\nmedserl: {{seed: '{note}'}}\n")
    for found in (told(f"medserl.seed='{note}'"), told(config=str(tmp_path / "mine.yaml"))):
        assert "medserl.seed takes a whole number" in found[0] and "numbness" not in found[0]


def test_a_value_that_leads_to_another_type() -> None:
    check(told("medserl.seed=${medserl.run_dir}"), "medserl.seed: ")


def test_a_caller_who_looks_at_more_gets_a_configuration_with_usual_values() -> None:
    problems = Problems()
    config = load_config("embedded", ["medserl.seed=x", "trainer.nnodes=two"], problems=problems)
    assert (config.medserl.seed, config.trainer.nnodes) == (1, 1)
    assert problems.doubts("medserl.seed") and problems.doubts("trainer.nnodes") and not problems.doubts("trainer")
    with pytest.raises(SeveralErrors, match="2 things"):
        problems.tell()


@pytest.mark.parametrize(
    ("sentence", "follows"),
    [
        ("12 notes are fewer than one round's medserl.rollout_batch_size 64", True),
        ("rollout_batch_size 64 is odd", True),
        ("the rollout batch size is too small", True),
        ("medserl.rollout_batch_size_x: 3", False),
        ("x.medserl.rollout_batch_size.y: 3", False),
        ("medserl.seed: 3", False),
    ],
)
def test_a_sentence_about_a_doubtful_key_is_left_out(sentence: str, follows: bool) -> None:
    problems = Problems()
    problems.add(ConfigError("override: none", ("medserl.rollout_batch_size",)))
    with problems.noted():
        raise DataError(sentence)
    with pytest.raises(UserError) as error:
        problems.tell()
    assert (sentence in str(error.value)) is not follows


names = st.lists(st.from_regex(r"[a-z]{1,4}(_[a-z]{1,3})?", fullmatch=True), min_size=2, max_size=5).map(".".join)


@settings(max_examples=50)
@given(names, names)
def test_a_key_is_found_in_a_sentence_that_names_it(key: str, other: str) -> None:
    problems = Problems()
    problems.add(ConfigError("wrong", (key,)))
    problems.add(ConfigError(f"{key}: 3 is too small"))
    problems.add(ConfigError(f"a sum of {key} and {other} is odd"))
    with pytest.raises(ConfigError, match=r"^wrong$"):
        problems.tell()


def test_an_error_that_ends_a_block_is_told_with_those_before_it() -> None:
    with pytest.raises(SeveralErrors) as error, all_told() as found:
        found.add(ConfigError("a"))
        found.add(ConfigError("a"))
        raise SeveralErrors([ConfigError("b"), ConfigError("c")])
    assert [str(one) for one in error.value.found] == ["a", "b", "c"]
    with pytest.raises(KeyError), all_told() as found:
        found.add(ConfigError("a"))
        raise KeyError("no user's error")
