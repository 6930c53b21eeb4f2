"""Types and bounds of settings, verl's and our own, in one table; checked when a configuration is loaded.

Every key of verl's that is not in the table must have the type of verl's own default. Sizes that must divide each
other are medserl.preflight.checks' affair; names of things that must exist are told where they are looked up.

Over 350 lines, because the table has a row for each kind of setting, and what reads it stands below it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from medserl.config.engines import CRITIC_FOLLOWS
from medserl.config.mistakes import first_line
from medserl.errors import ConfigError, Problems, all_told

MAX_SEED = 2**31 - 1
"""numpy, which vLLM seeds, takes 32 bits, and verl adds a replica's number."""
_MISSING = object()
Usual = Callable[[], DictConfig]
"""Makes a configuration with a usual value for every key, when one is needed."""


@dataclass(frozen=True)
class Rule:
    """What a key may hold."""

    kind: str = "number"
    """``whole`` (numbers), ``number``, ``switch``, ``text`` or ``list``."""
    least: float | None = None
    most: float | None = None
    above: float | None = None
    """Exclusive lower bound."""
    null: bool = False
    """Whether null is a value, too."""
    choices: tuple[str, ...] = ()
    also: tuple[Any, ...] = ()
    """Values outside of the bounds that mean something of their own, such as -1 for off."""
    filled: bool = False
    """Whether a text may not be empty: an empty path is the current directory."""

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value, as the end of a sentence; None where nothing is."""
        if value is None:
            return None if self.null else "needs a value"
        if value in self.also and not isinstance(value, bool):
            return None
        if not _is(self.kind, value):
            return f"{_shown(value)} is not {_NAMES[self.kind]}"
        if self.filled and not value.strip():
            return "an empty value is not a path; give one (. for the current directory)"
        if self.choices and value not in self.choices:
            return f"{value!r} is not one of {', '.join(self.choices)}"
        if self.kind in ("whole", "number"):
            return self._out_of_bounds(value)
        return None

    def _out_of_bounds(self, value: float) -> str | None:
        if not math.isfinite(value):
            return f"{value} is not a finite number"
        besides = f" (or {', '.join(map(str, self.also))})" if self.also else ""
        if self.above is not None and value <= self.above:
            return f"{value} is not above {self.above:g}{besides}"
        if self.least is not None and value < self.least:
            return f"{value} is less than {self.least:g}{besides}"
        if self.most is not None and value > self.most:
            return f"{value} is more than {self.most:.12g}{besides}"
        return None


_NAMES = {"whole": "a whole number", "number": "a number", "switch": "true or false", "text": "text", "list": "a list"}


def _shown(value: Any) -> str:
    plain = OmegaConf.to_container(value) if isinstance(value, DictConfig | ListConfig) else value
    text = "an empty value" if plain == "" else repr(plain)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is(kind: str, value: Any) -> bool:
    if kind == "whole":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "switch":
        return isinstance(value, bool)
    if kind == "list":
        return isinstance(value, list | tuple | ListConfig)
    return isinstance(value, str)


SIZE = Rule("whole", least=1)
SIZE_OR_NULL = Rule("whole", least=1, null=True)
COUNT = Rule("whole", least=0)
POSITIVE = Rule(above=0.0)
NOT_NEGATIVE = Rule(least=0.0)
ANY = Rule()
SHARE = Rule(least=0.0, most=1.0)
EVERY = Rule("whole", least=1, also=(-1,))  # rounds between two of something; -1: never
SEED = Rule("whole", least=0, most=MAX_SEED)
FOLDER = Rule("text", filled=True)

_PRECISION = Rule("text", choices=("fp32", "float32", "bf16", "bfloat16"))
_OPTIM = {
    "lr": SHARE,
    "min_lr": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "clip_grad": NOT_NEGATIVE,
    "lr_warmup_init": NOT_NEGATIVE,
    "lr_warmup_steps": Rule("whole", least=0, null=True, also=(-1,)),
    "lr_warmup_steps_ratio": SHARE,
    "lr_decay_steps": SIZE_OR_NULL,
    "lr_decay_style": Rule("text", choices=("constant", "linear", "cosine", "inverse_square_root", "WSD")),
    "optimizer": Rule("text", choices=("adam", "sgd")),
    "weight_decay_incr_style": Rule("text", choices=("constant", "linear", "cosine")),
    "lr_wsd_decay_style": Rule("text", choices=("linear", "exponential", "cosine", "minus_sqrt")),
    "lr_wsd_decay_steps": SIZE_OR_NULL,
    **dict.fromkeys(("main_grads_dtype", "exp_avg_dtype", "exp_avg_sq_dtype"), _PRECISION),
    # Of FSDP's, where Megatron has lr_decay_style and min_lr.
    "lr_scheduler_type": Rule("text", choices=("constant", "cosine")),
    "min_lr_ratio": SHARE,
    "num_cycles": POSITIVE,
}
_MEGATRON = {
    "tensor_model_parallel_size": SIZE,
    "pipeline_model_parallel_size": SIZE,
    "context_parallel_size": SIZE,
    "virtual_pipeline_model_parallel_size": SIZE_OR_NULL,
    "seed": SEED,
}
_LOSS = Rule("text", choices=("token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"))
_SAMPLING = {"temperature": POSITIVE, "top_p": Rule(above=0.0, most=1.0), "top_k": Rule("whole", least=1, also=(-1, 0))}
_NODES = {
    "trainer.nnodes": SIZE,
    "trainer.n_gpus_per_node": SIZE,
    "trainer.device": Rule("text", choices=("cpu", "cuda")),
    "trainer.save_freq": EVERY,
    "trainer.test_freq": EVERY,
}


def _under(prefix: str, rules: dict[str, Rule]) -> dict[str, Rule]:
    return {f"{prefix}.{key}": rule for key, rule in rules.items()}


_NOTES = _under("medserl.notes", {"count": SIZE, "seed": SEED, "labelled_conditions": SIZE_OR_NULL})
_SHARE_OR_NULL, _POSITIVE_OR_NULL = Rule(least=0.0, most=1.0, null=True), Rule(above=0.0, null=True)
_ALARMS = {
    "rounds": SIZE,
    "validations": SIZE,
    **dict.fromkeys(("min_acceptance", "max_one_answer", "max_inversion"), _SHARE_OR_NULL),
    "max_length_factor": Rule(above=1.0, null=True),
    "max_kl": _POSITIVE_OR_NULL,
    "min_reward_gain": _POSITIVE_OR_NULL,
}
_ACTOR, _ROLLOUT, _REF = (f"actor_rollout_ref.{part}" for part in ("actor", "rollout", "ref"))

TRAIN_RULES: dict[str, Rule] = {
    **_NODES,
    "trainer.total_epochs": SIZE,
    "trainer.total_training_steps": SIZE_OR_NULL,
    "trainer.max_actor_ckpt_to_keep": SIZE_OR_NULL,
    "trainer.resume_mode": Rule("text", choices=("auto", "disable")),
    "data.max_prompt_length": SIZE,
    "data.max_response_length": SIZE,
    "algorithm.gamma": SHARE,
    "algorithm.lam": SHARE,
    "algorithm.kl_penalty": Rule("text", choices=("kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3")),
    "algorithm.kl_ctrl.type": Rule("text", choices=("fixed", "adaptive")),
    "algorithm.kl_ctrl.kl_coef": NOT_NEGATIVE,
    "algorithm.kl_ctrl.horizon": SIZE,
    "algorithm.kl_ctrl.target_kl": POSITIVE,
    "actor_rollout_ref.model.path": FOLDER,
    **_under(
        _ACTOR,
        {
            "ppo_mini_batch_size": SIZE,
            "ppo_micro_batch_size_per_gpu": SIZE_OR_NULL,
            "ppo_max_token_len_per_gpu": SIZE,
            "ppo_epochs": SIZE,
            "clip_ratio": POSITIVE,
            "clip_ratio_low": POSITIVE,
            "clip_ratio_high": POSITIVE,
            "clip_ratio_c": Rule(above=1.0),
            "entropy_coeff": ANY,
            "kl_loss_coef": NOT_NEGATIVE,
            "kl_loss_type": Rule("text", choices=("kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3")),
            "loss_agg_mode": _LOSS,
        },
    ),
    **_under(
        "critic",
        {"ppo_mini_batch_size": SIZE, "ppo_epochs": SIZE, "cliprange_value": POSITIVE, "loss_agg_mode": _LOSS},
    ),
    **_under("critic.optim", _OPTIM),
    **_under(f"{_ACTOR}.optim", _OPTIM),
    **_under(f"{_ACTOR}.megatron", _MEGATRON),
    **_under(f"{_REF}.megatron", _MEGATRON),
    f"{_REF}.log_prob_micro_batch_size_per_gpu": SIZE_OR_NULL,
    **_under(
        _ROLLOUT,
        {
            **_SAMPLING,
            "n": SIZE,
            "tensor_model_parallel_size": SIZE,
            "gpu_memory_utilization": Rule(above=0.0, most=1.0),
            "max_model_len": SIZE_OR_NULL,
            "max_num_seqs": SIZE,
            "max_num_batched_tokens": SIZE,
            "log_prob_micro_batch_size_per_gpu": SIZE_OR_NULL,
            "dtype": Rule("text", choices=("bfloat16", "float16", "float32", "auto", "half", "float")),
            "checkpoint_engine.update_weights_bucket_megabytes": SIZE,
            "engine_kwargs.vllm.kv_cache_memory_bytes": SIZE_OR_NULL,
        },
    ),
    "ray_kwargs.ray_init.num_cpus": SIZE_OR_NULL,
    "ray_kwargs.ray_init.num_gpus": Rule("whole", least=0, null=True),
    **_NOTES,
    **_under(
        "medserl",
        {
            "seed": SEED,
            "run_dir": FOLDER,
            "rollout_batch_size": COUNT,
            "labelled_batch_size": Rule("whole", least=0, null=True),
            "replay_batch_size": COUNT,
            "labelled_share": SHARE,
            "validation.count": SIZE,
            "validation.seed": SEED,
            "validation.patience": SIZE_OR_NULL,
            "max_attempts": SIZE,
            "vcf.max_word_edits": SIZE,
            "advantage.injector_weight": NOT_NEGATIVE,
            "advantage.baseline_decay": SHARE,
            "max_failed_share": SHARE,
            **_under("alarms", _ALARMS),
            "rollout_workers": COUNT,
            "poll_seconds": POSITIVE,
            "deadline_margin": NOT_NEGATIVE,
            "max_rounds": SIZE_OR_NULL,
            "game_log.keep_rounds": SIZE_OR_NULL,
            "game_log.max_megabytes": SIZE_OR_NULL,
        },
    ),
}
_MIXTURE = {
    "assessor_pairs": COUNT,
    "injector_turns": COUNT,
    **dict.fromkeys(
        (
            *("label_noise", "missed_errors", "thinking", "benign_variant", "gold_error", "habit", "hard_places"),
            *("least_similarity", "learn_text", "proved_errors"),
        ),
        SHARE,
    ),
}
SFT_RULES: dict[str, Rule] = {
    **_NODES,
    "trainer.max_ckpt_to_keep": SIZE_OR_NULL,
    "trainer.resume_mode": Rule("text", choices=("auto", "disable")),
    "data.micro_batch_size_per_gpu": SIZE,
    "data.max_length": SIZE,
    "data.max_token_len_per_gpu": SIZE,
    "model.path": FOLDER,
    **_under("optim", _OPTIM),
    **_under("engine", _MEGATRON),
    **_NOTES,
    **_under(
        "medserl",
        {
            "seed": SEED,
            "run_dir": FOLDER,
            "steps": SIZE,
            "max_demonstrations": SIZE,
            "late_after": SHARE,
            **dict.fromkeys(("answer_weight", "verdict_weight", "change_weight", "text_weight"), NOT_NEGATIVE),
            "place_weight": Rule(least=0.0, null=True),
        },
    ),
    **_under("medserl.mixture", _MIXTURE),
    **_under("medserl.late_mixture", _MIXTURE),
}


def check_values(
    config: DictConfig,
    rules: dict[str, Rule],
    defaults: DictConfig,
    problems: Problems | None = None,
    usual: Usual | None = None,
) -> None:
    """Every value must have its type and lie within its bounds.

    Args:
        config: A composed configuration, interpolations and all; a wrong value gives way to the usual one.
        rules: ``TRAIN_RULES`` or ``SFT_RULES``.
        defaults: verl's own configuration, whose types hold for the keys without a rule.
        problems: Takes what is wrong; None: it is raised.
        usual: Makes a configuration that has usual values; None: wrong ones stay where they are.

    Raises:
        ConfigError: names a key and its value.
    """
    with all_told(problems) as found:
        for key, problem in _wrong_sections(config, defaults, ""):
            _tell(config, found, usual, key, problem)
        for followers in (False, True):  # a key that follows another one is told there, unless that one's was right
            if usual is None:
                found.tell()
            values = _followed(config, found, usual)
            for section in CRITIC_FOLLOWS:
                part, _, name = section.partition(".")
                values.get(part, {}).pop(name, None)
            wrong = (*_by_rule(values, rules), *_by_type(values, defaults, rules), *_not_finite(values, ""))
            if not wrong:  # as a rule: to follow all interpolations once more takes a tenth of a second
                return
            for key, problem in wrong:
                if _follows(config, key) is followers:
                    _tell(config, found, usual, key, problem)


def _follows(config: DictConfig, key: str) -> bool:
    """Whether a key's value, or a section that it stands in, is an interpolation."""
    node: Any = config
    for name in key.split("."):
        node = node._get_node(name, validate_access=False) if isinstance(node, DictConfig) else None
        if node is None or node._is_interpolation():
            return node is not None
    return False


def _tell(config: DictConfig, found: Problems, usual: Usual | None, key: str, problem: str) -> None:
    if not found.doubts(key):
        found.add(ConfigError(f"{key}: {problem}", (key,)))
        if usual is not None:
            _put(config, key, usual)


def _put(config: DictConfig, key: str, usual: Usual) -> None:
    """Give a key the value that it has elsewhere, so that the rest of a configuration can be looked at."""
    value = OmegaConf.select(usual(), key, throw_on_missing=False)
    OmegaConf.update(config, key, value, merge=False, force_add=True)


def _wrong_sections(config: DictConfig, node: DictConfig, prefix: str) -> Iterator[tuple[str, str]]:
    """What is a section in verl's configuration must be one still."""
    for name, wanted in _sections(node):
        if f"{prefix}{name}" in CRITIC_FOLLOWS:  # told of the policy's
            continue
        try:
            given = OmegaConf.select(config, name, default=_MISSING)
        except OmegaConfBaseException as error:
            yield f"{prefix}{name}", first_line(error)
            continue
        if given is _MISSING:
            continue
        if not isinstance(given, DictConfig):
            yield f"{prefix}{name}", f"is a section with keys of its own, not {_shown(given)}; set one of them"
            continue
        yield from _wrong_sections(given, wanted, f"{prefix}{name}.")


def _sections(node: DictConfig) -> list[tuple[str, DictConfig]]:
    nodes = ((str(name), node._get_node(name)) for name in node)
    return [(name, own) for name, own in nodes if isinstance(own, DictConfig) and not own._is_interpolation()]


def _followed(config: DictConfig, found: Problems, usual: Usual | None) -> dict[str, Any]:
    """All values with interpolations followed; of one that leads nowhere, the usual value.

    Raises:
        ConfigError: an interpolation leads nowhere, and no other value helps.
    """
    while True:
        try:
            return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
        except OmegaConfBaseException as error:
            key = str(error.full_key)
            told = ConfigError(f"{key}: {first_line(error)}", (key,))
            if usual is None or found.doubts(key):
                raise told from None
            found.add(told)
            _put(config, key, usual)


def _by_rule(values: dict[str, Any], rules: dict[str, Rule]) -> Iterator[tuple[str, str]]:
    """Keys that have a rule and do not keep it."""
    for key, rule in rules.items():
        value = _find(values, key)
        if value is not _MISSING and (problem := rule.problem(value)):
            yield key, problem


def _find(values: dict[str, Any], key: str) -> Any:
    """A dotted key's value; _MISSING where there is none, or one that is left to the user still."""
    found: Any = values
    for part in key.split("."):
        if not isinstance(found, dict) or part not in found:
            return _MISSING
        found = found[part]
    return _MISSING if found == "???" else found


def _by_type(values: dict[str, Any], defaults: DictConfig, rules: dict[str, Rule]) -> Iterator[tuple[str, str]]:
    """A key without a rule must hold what verl's default is; what follows another key is told there."""
    pending = [("", defaults)]
    while pending:
        prefix, node = pending.pop(0)
        pending += [(f"{prefix}{name}.", section) for name, section in _sections(node)]
        for name in node:
            key, own = f"{prefix}{name}", node._get_node(name)
            if key in rules or own is None or own._is_interpolation():
                continue
            rule, given = _of_type(own), _find(values, key)
            if rule is not None and given is not _MISSING and (problem := rule.problem(given)):
                yield key, problem


def _of_type(default: Any) -> Rule | None:
    """A rule from the node of verl's default alone: its type. A null default says nothing, nor does a text."""
    if isinstance(default, ListConfig):
        return Rule("list", null=True)
    value = default._value()
    if isinstance(value, bool):
        return Rule("switch", null=True)
    return Rule("number", null=True) if isinstance(value, int | float) else None


def _not_finite(values: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    """No nan and no infinity anywhere: each makes a run that computes nothing."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _not_finite(value, f"{prefix}{name}.")
        elif isinstance(value, float) and not math.isfinite(value):
            yield f"{prefix}{name}", f"{value} is not a finite number"
