"""The rollout generator without a trainer."""

from dataclasses import dataclass
from typing import Any

import pytest

from medserl.errors import ConfigError
from medserl.game.labels import Mode
from medserl.game.play import GameRules
from medserl.game.prompts import load_prompt_set
from medserl.game.records import Note
from medserl.game.rollout import VCFRolloutGenerator
from medserl.game.vcf import Reason

NOTES = [f"Patient {i} has type 2 diabetes controlled with metformin." for i in range(4)]


def edit(note: str) -> str:
    return f"sentence_id: 0\nnew_sentence: {note.replace('type 2', 'type 1')}"


class Batches:
    """A callable model: reply sets by call, and what it was asked."""

    def __init__(self, *replies: list[str]) -> None:
        self.replies = list(replies)
        self.asked: list[list[Any]] = []

    def __call__(self, prompts: list[Any]) -> list[str]:
        self.asked.append(list(prompts))
        return self.replies.pop(0)


def test_only_accepted_samples_come_back_and_the_rest_is_retried() -> None:
    same = f"sentence_id: 0\nnew_sentence: {NOTES[1]}"
    model = Batches([edit(NOTES[0]), same, "?", "?"], [edit(NOTES[1]), "?", "?"], ["?", edit(NOTES[3])])
    prompts = [f"prompt {i}" for i in range(4)]
    result = VCFRolloutGenerator(model).generate_with_vcf(prompts, NOTES, ["error", "benign", "error", "benign"])
    assert model.asked == [prompts, prompts[1:], prompts[2:]]
    assert [(s.index, s.attempt, s.prompt, s.mode) for s in result.samples] == [
        (0, 1, "prompt 0", Mode.ERROR),
        (1, 2, "prompt 1", Mode.BENIGN),
        (3, 3, "prompt 3", Mode.BENIGN),
    ]
    for sample in result.samples:
        assert sample.verdict.passed
        assert sample.original == NOTES[sample.index]
        assert sample.modified == NOTES[sample.index].replace("type 2", "type 1")
    stats = result.statistics
    assert (stats.notes, stats.attempts, stats.accepted, stats.exhausted) == (4, 9, 3, 1)
    assert stats.attempts_by_number == (4, 3, 2)
    assert stats.accepted_by_number == (1, 1, 1)
    assert stats.rejections == {**dict.fromkeys(Reason, 0), Reason.IDENTICAL: 1, Reason.UNPARSEABLE: 5}
    assert stats.vcf_acceptance_rate == 3 / 9
    metrics = stats.as_metrics()
    assert metrics["vcf_game_acceptance_rate"] == 3 / 4
    assert metrics["vcf_acceptance_rate/attempt_2"] == 1 / 3
    assert metrics["vcf_rejections/unparseable"] == 5


def test_prompts_are_built_from_the_set_and_modes() -> None:
    model = Batches([edit(NOTES[0]), edit(NOTES[1])])
    notes = [Note("a", NOTES[0]), Note("b", NOTES[1])]
    generator = VCFRolloutGenerator(model, prompts="ward")
    result = generator.generate_with_vcf(None, notes, [Mode.ERROR, Mode.BENIGN])
    ward = load_prompt_set("ward")
    assert model.asked == [[ward.injector(NOTES[0], Mode.ERROR), ward.injector(NOTES[1], Mode.BENIGN)]]
    assert len(result.samples) == 2


@dataclass
class Completion:
    text: str


@dataclass
class RequestOutput:
    outputs: list[Completion]


class FakeVllm:
    """The two entry points of ``vllm.LLM`` that are used, with their signatures."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, Any]] = []

    def generate(self, prompts: list[str], sampling_params: Any = None) -> list[RequestOutput]:
        self.calls.append(("generate", len(prompts), sampling_params))
        return [RequestOutput([Completion(edit(NOTES[i])), Completion("another")]) for i in range(len(prompts))]

    def chat(self, messages: list[list[dict[str, str]]], sampling_params: Any = None) -> list[RequestOutput]:
        self.calls.append(("chat", len(messages), sampling_params))
        return [RequestOutput([Completion("<think>x</think>" + edit(NOTES[i]))]) for i in range(len(messages))]


def test_a_vllm_model_is_called_by_kind_of_prompt() -> None:
    llm, sampling = FakeVllm(), object()
    generator = VCFRolloutGenerator(llm, sampling=sampling)
    assert len(generator.generate_with_vcf(["a", "b"], NOTES[:2]).samples) == 2
    assert len(generator.generate_with_vcf(None, NOTES[:2], [Mode.ERROR] * 2).samples) == 2
    assert llm.calls == [("generate", 2, sampling), ("chat", 2, sampling)]


def test_no_notes() -> None:
    result = VCFRolloutGenerator(Batches()).generate_with_vcf([], [])
    assert result.samples == ()
    assert result.statistics.attempts == 0
    assert result.statistics.vcf_acceptance_rate == 0.0


def test_bounds_and_attempts_are_the_rules() -> None:
    rules = GameRules(max_attempts=1, min_jaccard=0.99, max_jaccard=1.0)
    result = VCFRolloutGenerator(Batches([edit(NOTES[0])]), rules=rules).generate_with_vcf(["p"], NOTES[:1])
    assert result.samples == ()
    assert result.statistics.rejections[Reason.JACCARD_LOW] == 1


def test_wrong_use_is_told() -> None:
    with pytest.raises(ConfigError, match="not int"):
        VCFRolloutGenerator(7)
    generator = VCFRolloutGenerator(Batches(["one reply"]))
    with pytest.raises(ConfigError, match="1 prompts for 2 notes"):
        generator.generate_with_vcf(["p"], NOTES[:2])
    with pytest.raises(ConfigError, match="1 modes for 2 notes"):
        generator.generate_with_vcf(None, NOTES[:2], ["error"])
    with pytest.raises(ConfigError, match="give prompts, or modes"):
        generator.generate_with_vcf(None, NOTES[:2])
    with pytest.raises(RuntimeError, match="1 replies to 2 prompts"):
        generator.generate_with_vcf(["p", "q"], NOTES[:2])
    with pytest.raises(ConfigError, match="all plain text or all chat"):
        VCFRolloutGenerator(FakeVllm()).generate_with_vcf(["p", [{"role": "user", "content": "q"}]], NOTES[:2])


def test_a_reply_cut_inside_reasoning_that_the_prompt_opened_is_no_edit() -> None:
    opened, closed = "p<think>\n", "p"
    model = Batches([edit(NOTES[0]), edit(NOTES[1])])
    rules = GameRules(max_attempts=1)
    result = VCFRolloutGenerator(model, rules=rules).generate_with_vcf([opened, closed], NOTES[:2])
    assert [sample.index for sample in result.samples] == [1]
    assert result.statistics.rejections[Reason.UNPARSEABLE] == 1
