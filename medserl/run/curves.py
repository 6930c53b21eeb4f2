"""A run's curves in TensorBoard, ordered by what people ask of them. No torch until the first is written.

The tags of the game's metrics are their names in metrics.jsonl; what verl measures stands under ``verl/``. A metric
that never changes is not drawn, nor is one that verl reports under a second name or that has been the same as another
in every round so far; metrics.jsonl has them all.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

TENSORBOARD_DIR = "tensorboard"
COMPARED = ("val/greedy/balanced_accuracy", "val/sampled/balanced_accuracy", "vcf_acceptance_rate", "mean_reward")
"""Metrics that the page "HParams" lists beside a run's settings."""
SHOWN = (
    "medserl.seed",
    "medserl.rollout_batch_size",
    "medserl.labelled_share",
    "medserl.prompt_set",
    "medserl.injector_format",
    "medserl.thinking",
    "medserl.max_attempts",
    "medserl.vcf.min_jaccard",
    "medserl.vcf.max_jaccard",
    "medserl.vcf.max_word_edits",
    "medserl.referee.name",
    "medserl.rewards.name",
    "medserl.advantage.normalisation",
    "medserl.train_roles",
    "medserl.frozen_injector",
    "algorithm.kl_ctrl.kl_coef",
    "actor_rollout_ref.actor.optim.lr",
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.actor.ppo_epochs",
    "actor_rollout_ref.actor.entropy_coeff",
    "actor_rollout_ref.rollout.temperature",
    "actor_rollout_ref.actor.megatron.tensor_model_parallel_size",
    "actor_rollout_ref.actor.megatron.pipeline_model_parallel_size",
    "trainer.nnodes",
    "trainer.n_gpus_per_node",
)
VERL = "verl/"
# What verl 0.9.1 measures begins with one of these; its three counts of tokens are the game's own. Metrics that users
# register (docs/extending.md) have any other name.
_VERLS = re.compile(
    r"(actor|critic|training|timing_s|timing_per_token_ms|perf|response|response_length|prompt_length|num_turns"
    r"|rollout_corr|global_seqlen)/(?!(generated_tokens|tokens_per_second|rollout_tokens_per_second)$)"
)
# verl 0.9.1 (verl/trainer/ppo/metric_utils.py and v1/trainer_base.py) reports these under two names, or reports what
# metrics.jsonl's row number is, or what is asked of asynchronous training only.
_COPIES = re.compile(
    r"(epoch|validation|actor/pg_loss|critic/loss|actor/entropy_loss|perf/time_per_step|perf/total_num_tokens"
    r"|training/(epoch|global_step|num_turns/.*|off_policy/.*|rollout_probs_diff_valid)"
    r"|response_length_non_aborted/.*|global_seqlen/.*|(actor|critic)/perf/max_memory_reserved_gb)$"
)
# A metric, and the one that it equals as long as every reply has a verdict, the labels are balanced, or no game's edit
# loses a fact.
_TWINS = (
    (re.compile(r"(.*accuracy)_parsed$"), r"\1"),
    (re.compile(r"(.*/)accuracy$"), r"\1balanced_accuracy"),
    (re.compile(r"injector/contradiction_rate$"), "label_inversion_rate"),
)
ALWAYS = re.compile(r"(vcf_acceptance_rate|mean_reward|val/[a-z]+/(balanced_accuracy|auc|mcc|recall_(in)?correct)$)")
"""Drawn from the first point on, whether or not they change: what people look for first."""

# Question, chart, tags (regular expressions that TensorBoard matches against the whole tag).
QUESTIONS: dict[str, dict[str, list[str]]] = {
    "Is it working?": {
        "held-out notes: balanced accuracy (guessing: 0.5)": [r"val/[a-z]+/balanced_accuracy"],
        "held-out notes: AUC (guessing: 0.5)": [r"val/[a-z]+/auc"],
        "held-out notes: recall of each answer, greedy": [r"val/greedy/recall_.*"],
        "assessor in play and on gold labels: balanced accuracy": [r"(assessor|labelled)/balanced_accuracy"],
    },
    "Is the filter healthy?": {
        "accepted edits, a share of the attempts": [r"vcf_acceptance_rate(/(benign|error))?"],
        "accepted edits by attempt": [r"vcf_acceptance_rate/attempt_\d"],
        "rejected attempts by reason": [r"vcf_rejections/.*"],
        "replies that could not be read": [r"(injector|assessor)/parse_failure_rate"],
    },
    "Who wins?": {
        "reward by role (zero-sum but for the format bonus)": [r"mean_reward/(injector|assessor)"],
        "injector's wins and assessor's balanced accuracy": [r"(injector/win_rate|assessor/balanced_accuracy)"],
        "one answer for everything": [r"(assessor|labelled)/always_one_answer_rate"],
        "edits that contradict what was asked for": [r"(label_inversion_rate|injector/contradiction_rate)"],
    },
    "Is the policy drifting?": {
        "KL to the reference": [r"verl/actor/reward_kl_penalty"],
        "entropy": [r"verl/actor/entropy"],
        "norm of the gradient": [r"verl/actor/grad_norm"],
        "reply tokens": [r"(injector|assessor)/response_tokens"],
        "alarms": [r"alarm/.*"],
    },
    "Where does the time go?": {
        "seconds of a round by phase": [r"verl/timing_s/.*"],
        "tokens a second": [r"perf/(tokens_per_second|rollout_tokens_per_second)"],
    },
}


def tag(metric: str) -> str | None:
    """Where TensorBoard shows a metric; ``None``: nowhere, another metric says the same."""
    if _COPIES.match(metric):
        return None
    return VERL + metric if _VERLS.match(metric) else metric


def _twin(metric: str) -> str:
    """The metric that this one may always be the same as; empty where there is none."""
    return next((found.expand(other) for pattern, other in _TWINS if (found := pattern.match(metric))), "")


class Curves:
    """Writes a run's TensorBoard events.

    Args:
        run_dir: The run directory; events lie in its ``tensorboard``.
        earlier: Rows of metrics.jsonl that count.
        hyperparameters: Numbers and names for the page "HParams"; none: the page stays empty.
    """

    def __init__(
        self,
        run_dir: Path,
        earlier: Iterable[Mapping[str, Any]] = (),
        hyperparameters: Mapping[str, float | str | bool] | None = None,
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # A start draws everything anew and has TensorBoard forget what earlier starts drew: a point of a round that is
        # played again, or one that was drawn when its metric had changed in such a round, would be there twice.
        self._writer = SummaryWriter(str(run_dir / TENSORBOARD_DIR), purge_step=0)
        self._waiting: dict[str, list[tuple[int, float]]] = {}
        self._drawn: set[str] = set()
        self._own: set[str] = set()  # differed from their twins
        self._writer.add_custom_scalars(_layout())
        self._ended = self._describe(hyperparameters) if hyperparameters else None
        for row in earlier:
            self._draw(int(row["round"]), {name: float(value) for name, value in row.items() if name != "round"})

    def add(self, number: int, metrics: Mapping[str, float]) -> None:
        """Draw finite ``metrics`` at round ``number``."""
        self._draw(number, metrics)
        self._writer.flush()

    def _draw(self, number: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if (shown := tag(name)) is not None:
                other = metrics.get(_twin(name), value + 1)
                for step, point in self._see(shown, number, value, math.isclose(value, other, abs_tol=1e-12)):
                    self._writer.add_scalar(shown, point, step)

    def text(self, title: str, number: int, markdown: str) -> None:
        """Show a text at round ``number``."""
        self._writer.add_text(title, markdown, number)
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the file."""
        if self._ended is not None:
            self._writer.file_writer.add_summary(self._ended)
        self._writer.close()

    def _see(self, name: str, number: int, value: float, copied: bool) -> list[tuple[int, float]]:
        """The points that can be drawn now that this one is known, which may be another metric's too."""
        if name in self._drawn:
            return [(number, value)]
        points = [*self._waiting.pop(name, []), (number, value)]
        if not copied:
            self._own.add(name)
        if ALWAYS.match(name) or (name in self._own and any(point != value for _, point in points)):
            self._drawn.add(name)
            return points
        self._waiting[name] = points
        return []

    def _describe(self, hyperparameters: Mapping[str, float | str | bool]) -> Any:
        """Write a run's settings for the page "HParams"; returns the entry for its end."""
        # SummaryWriter.add_hparams would write them to a run of its own, beside this one.
        from torch.utils.tensorboard.summary import hparams

        experiment, begins, ends = hparams(dict(hyperparameters), dict.fromkeys(COMPARED, 0.0))
        self._writer.file_writer.add_summary(experiment)
        self._writer.file_writer.add_summary(begins)
        return ends


def _layout() -> dict[str, dict[str, list[Any]]]:
    return {
        question: {chart: ["Multiline", tags] for chart, tags in charts.items()}
        for question, charts in QUESTIONS.items()
    }


def hyperparameters(config: DictConfig) -> dict[str, float | str | bool]:
    """What distinguishes runs in the page "HParams": no path but the model's last name.

    Args:
        config: A run's resolved configuration.
    """
    found: dict[str, float | str | bool] = {"model": Path(str(config.actor_rollout_ref.model.path)).name}
    for key in SHOWN:
        value = OmegaConf.select(config, key)
        if isinstance(value, bool | int | float | str):
            found[key] = value
    return found
