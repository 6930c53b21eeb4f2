"""The injector's side of a round without any trainer: prompts in, accepted edits and statistics out.

For generating over a ``vllm.LLM`` or any callable; all notes that still need an attempt go into one batch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medserl.errors import ConfigError
from medserl.game.labels import Mode
from medserl.game.play import GameRules, Reply
from medserl.game.prompts import Message, PromptSet, load_prompt_set
from medserl.game.records import Note
from medserl.game.reply import opens_thinking
from medserl.game.vcf import Reason, VcfVerdict

Prompt = str | list[Message]
"""A prompt as plain text, or as chat messages."""

TextModel = Callable[[list[Any]], Sequence[str]]
"""Answers a list of prompts, in order."""


@dataclass(frozen=True, slots=True)
class VCFSample:
    """One accepted edit."""

    index: int
    """Place of its note in ``original_notes``."""
    original: str
    modified: str
    mode: Mode | None
    prompt: Prompt
    reply: str
    attempt: int
    """1 for the first."""
    verdict: VcfVerdict


@dataclass(frozen=True, slots=True)
class RolloutStatistics:
    """Counts over one call of `VCFRolloutGenerator.generate_with_vcf`."""

    notes: int
    attempts: int
    accepted: int
    attempts_by_number: tuple[int, ...]
    """How many notes needed attempt 1, 2, …"""
    accepted_by_number: tuple[int, ...]
    """How many were accepted on attempt 1, 2, …"""
    rejections: Mapping[Reason, int] = field(default_factory=dict)
    """Rejected attempts by reason; every reason is a key."""

    @property
    def vcf_acceptance_rate(self) -> float:
        """Accepted attempts / attempts; 0 where there were none."""
        return self.accepted / self.attempts if self.attempts else 0.0

    @property
    def exhausted(self) -> int:
        """Notes without an accepted edit."""
        return self.notes - self.accepted

    def as_metrics(self) -> dict[str, float]:
        """Flat metrics under the names that `medserl.game.metrics.round_metrics` uses."""
        metrics = {
            "vcf_acceptance_rate": self.vcf_acceptance_rate,
            "vcf_game_acceptance_rate": self.accepted / self.notes if self.notes else 0.0,
            "vcf_attempts": float(self.attempts),
        }
        for number, count in enumerate(self.attempts_by_number, start=1):
            accepted = self.accepted_by_number[number - 1]
            metrics[f"vcf_acceptance_rate/attempt_{number}"] = accepted / count if count else float("nan")
        metrics.update({f"vcf_rejections/{why.value}": float(n) for why, n in self.rejections.items()})
        return metrics


@dataclass(frozen=True, slots=True)
class VCFRolloutResult:
    """The accepted samples, in the order of their notes, and what it took to get them."""

    samples: tuple[VCFSample, ...]
    statistics: RolloutStatistics


class VCFRolloutGenerator:
    """Generates edits and keeps those that pass the filter, retrying the rest.

    ``llm`` is a ``vllm.LLM`` (its ``chat`` is used for messages, ``generate`` for plain text) or a callable
    from a list of prompts to a list of replies. ``prompts`` is a prompt set or its name, used where
    `generate_with_vcf` is given no prompts. ``sampling`` is handed to a vLLM model as it is.
    """

    def __init__(
        self,
        llm: Any,
        prompts: PromptSet | str = "clinical",
        rules: GameRules | None = None,
        sampling: Any = None,
    ) -> None:
        if not callable(llm) and not (hasattr(llm, "chat") and hasattr(llm, "generate")):
            raise ConfigError(
                f"llm must be a vllm.LLM or a callable that takes a list of prompts, not {type(llm).__name__}"
            )
        self._llm = llm
        self._prompts = load_prompt_set(prompts) if isinstance(prompts, str) else prompts
        self._rules = rules if rules is not None else GameRules()
        self._sampling = sampling

    def generate_with_vcf(
        self,
        prompts: Sequence[Prompt] | None,
        original_notes: Sequence[str | Note],
        modes: Sequence[Mode | str] | None = None,
    ) -> VCFRolloutResult:
        """Up to ``rules.max_attempts`` replies per note; only accepted edits come back.

        ``prompts[i]`` asks for an edit of ``original_notes[i]``; with None they are built from the prompt set
        and ``modes``. Raises ConfigError where the lengths differ or neither prompts nor modes are given,
        RuntimeError where the model does not answer every prompt.
        """
        texts = [note.text if isinstance(note, Note) else note for note in original_notes]
        own_modes = None if modes is None else [Mode(mode) for mode in modes]
        asked = self._asked(prompts, texts, own_modes)
        pending = list(range(len(texts)))
        found: dict[int, VCFSample] = {}
        rejections = dict.fromkeys(Reason, 0)
        asked_counts: list[int] = []
        accepted_counts: list[int] = []
        for attempt in range(1, self._rules.max_attempts + 1):
            replies = self._replies([asked[i] for i in pending])
            asked_counts.append(len(pending))
            for i, reply in zip(pending, replies, strict=True):
                modified, verdict = self._rules.judge(reply.text, texts[i], reply.thinking_open)
                if verdict.passed and modified is not None:
                    mode = None if own_modes is None else own_modes[i]
                    found[i] = VCFSample(i, texts[i], modified, mode, asked[i], reply.text, attempt, verdict)
                elif verdict.reason is not None:
                    rejections[verdict.reason] += 1
            pending = [i for i in pending if i not in found]
            accepted_counts.append(asked_counts[-1] - len(pending))
        statistics = RolloutStatistics(
            notes=len(texts),
            attempts=sum(asked_counts),
            accepted=len(found),
            attempts_by_number=tuple(asked_counts),
            accepted_by_number=tuple(accepted_counts),
            rejections=rejections,
        )
        return VCFRolloutResult(tuple(found[i] for i in sorted(found)), statistics)

    def _asked(
        self, prompts: Sequence[Prompt] | None, texts: Sequence[str], modes: Sequence[Mode] | None
    ) -> list[Prompt]:
        if modes is not None and len(modes) != len(texts):
            raise ConfigError(f"there are {len(modes)} modes for {len(texts)} notes")
        if prompts is not None:
            if len(prompts) != len(texts):
                raise ConfigError(f"there are {len(prompts)} prompts for {len(texts)} notes")
            return list(prompts)
        if modes is None:
            raise ConfigError("give prompts, or modes to build them from the prompt set")
        asked = zip(texts, modes, strict=True)
        return [self._prompts.injector(text, mode, self._rules.injector_format) for text, mode in asked]

    def _replies(self, asked: list[Prompt]) -> list[Reply]:
        if not asked:
            return []
        if hasattr(self._llm, "chat") and hasattr(self._llm, "generate"):
            kinds = {isinstance(prompt, str) for prompt in asked}
            if len(kinds) > 1:
                raise ConfigError("prompts must be all plain text or all chat messages")
            call = self._llm.generate if kinds == {True} else self._llm.chat
            options = {} if self._sampling is None else {"sampling_params": self._sampling}
            outputs = list(call(asked, **options))
            texts = [output.outputs[0].text for output in outputs]
            rendered = [getattr(output, "prompt", None) for output in outputs]
        else:
            texts, rendered = list(self._llm(asked)), [prompt if isinstance(prompt, str) else None for prompt in asked]
        if len(texts) != len(asked):
            raise RuntimeError(f"the model gave {len(texts)} replies to {len(asked)} prompts")
        opened = [opens_thinking(prompt or "") for prompt in rendered]
        return [Reply(text, thinking_open=own) for text, own in zip(texts, opened, strict=True)]
