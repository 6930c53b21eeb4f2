"""The agent loop as verl drives it, with a scripted language model: trajectories, rewards, seeds, and what may leak."""

import asyncio
import gc
import math
import os
from math import exp
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]  # imports torch and verl

EDIT = "sentence_id: {index}\nnew_sentence: {sentence}"
ANSWER = 'final_answer: "{label}"'


@pytest.fixture(scope="module")
def verl() -> Any:
    from medserl.cpu.environment import cpu_environment

    os.environ.update(cpu_environment())
    import verl

    return verl


class ScriptedServer:
    """Stands where verl's LLM client stands; keeps every request."""

    def __init__(self, tokenizer: Any, replies: list[str]) -> None:
        self.tokenizer = tokenizer
        self.replies = list(replies)
        self.requests: list[dict[str, Any]] = []

    async def generate(self, *, request_id: str, prompt_ids: list[int], sampling_params: dict[str, Any]) -> Any:
        self.requests.append({"id": request_id, "prompt_ids": prompt_ids, **sampling_params})
        ids = self.tokenizer(self.replies.pop(0), add_special_tokens=False)["input_ids"]
        return SimpleNamespace(token_ids=ids, log_probs=[-0.5] * len(ids), extra_fields={"global_steps": 4})


def loop_with(
    replies: list[str], overrides: tuple[str, ...] = (), template_tail: str = ""
) -> tuple[Any, ScriptedServer, Any]:
    from transformers import AutoTokenizer
    from verl.experimental.agent_loop.agent_loop import DictConfigWrap

    from medserl.config.load import load_config
    from medserl.training.agent_loop import SelfPlayAgentLoop

    config = load_config("embedded", ["medserl.referee.name=instruction", *overrides])
    tokenizer = AutoTokenizer.from_pretrained(config.actor_rollout_ref.model.path)
    tokenizer.chat_template += template_tail
    server = ScriptedServer(tokenizer, replies)

    async def make() -> Any:
        return SelfPlayAgentLoop(
            trainer_config=DictConfigWrap(config),
            server_manager=server,
            tokenizer=tokenizer,
            processor=None,
            dataset_cls=None,
            data_config=DictConfigWrap(config.data),
            hf_model_type="qwen3",
        )

    return make, server, tokenizer


def play(
    replies: list[str],
    overrides: tuple[str, ...] = (),
    mode: str = "error",
    error_type: str | None = None,
    template_tail: str = "",
) -> tuple[list[Any], ScriptedServer, Any]:
    from medserl.game import Mode
    from medserl.training.agent_loop import NoteTask

    make, server, tokenizer = loop_with(replies, overrides, template_tail)

    async def run() -> list[Any]:
        loop = await make()
        task = NoteTask(round=3, note=note(), mode=Mode(mode), error_type=error_type)
        outputs: list[Any] = await loop.run({"temperature": 1.0}, task=task)
        return outputs

    return asyncio.run(run()), server, tokenizer


def note() -> Any:
    from medserl.ward import ward_notes

    return next(n for n in ward_notes("train", 50, 7) if n.error_sentence and n.corrected_sentence)


def gold_edit() -> str:
    from medserl.game.sentences import sentence_texts

    index = sentence_texts(note().text).index(note().corrected_sentence)
    return EDIT.format(index=index, sentence=note().error_sentence)


def test_both_roles_come_back_with_their_own_rewards(verl: Any) -> None:
    outputs, _, _ = play([gold_edit(), ANSWER.format(label="INCORRECT")])
    info = [output.extra_fields["medserl"] for output in outputs]
    assert [(i["role"], i["trains"]) for i in info] == [("injector", True), ("assessor", True)]
    assert [output.reward_score for output in outputs] == [pytest.approx(-1 + 0.1), pytest.approx(1 + 0.1)]
    assert "game" in info[0] and "game" not in info[1]
    assert info[0]["p_incorrect"] is None and info[1]["p_incorrect"] == pytest.approx(exp(-0.5))
    assert [i["index"] for i in info] == [0, 1] and all(i["seconds"] >= 0 for i in info)


def test_rejected_attempts_are_made_again_and_then_the_note_is_given_up(verl: Any) -> None:
    outputs, server, _ = play(["nonsense", "nonsense", "nonsense"])
    assert len(server.requests) == 3
    assert [output.reward_score for output in outputs] == [-0.5] * 3


def test_the_assessors_tokens_hold_neither_original_nor_mode_nor_reasoning(verl: Any) -> None:
    """On token ids: what the assessor's context has beyond an empty question is the modified note, nothing else."""
    reasoning = "<think>swap the drug</think>\n"
    outputs, server, tokenizer = play([reasoning + gold_edit(), ANSWER.format(label="INCORRECT")])
    injector, assessor = server.requests
    modified = note().error_text
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": f"ASSESS\n{modified}"}],
        add_generation_prompt=True,
        enable_thinking=False,
        return_dict=False,
    )
    assert assessor["prompt_ids"] == list(expected)
    for leaked in (note().corrected_sentence, "swap the drug", "error\n", "INJECT"):
        ids = tokenizer(leaked, add_special_tokens=False)["input_ids"]
        assert not contains(assessor["prompt_ids"], ids), leaked
    assert contains(injector["prompt_ids"], tokenizer("INJECT", add_special_tokens=False)["input_ids"])
    assert outputs[1].prompt_ids == assessor["prompt_ids"]


OPENED = "{%- if add_generation_prompt %}{{ '<think>\\n' }}{%- endif %}"


def test_reasoning_that_the_prompt_opened_and_nobody_closed_is_no_answer(verl: Any) -> None:
    """Where the chat template ends in an open <think>, what comes before </think> is no edit and no answer."""
    whole = "so</think>\n" + ANSWER.format(label="INCORRECT")
    cut = [gold_edit(), "so</think>\n" + gold_edit(), ANSWER.format(label="INCORRECT")]
    outputs, server, tokenizer = play(cut, template_tail=OPENED)
    assert tokenizer.decode(server.requests[0]["prompt_ids"]).endswith("<think>\n")
    assert len(server.requests) == 3  # the first edit was a thought
    assert [output.reward_score for output in outputs if output.extra_fields["medserl"]["trains"]] == [0.0, -1.0]
    outputs, _, _ = play(["so</think>\n" + gold_edit(), whole], template_tail=OPENED)
    assert [output.reward_score for output in outputs] == [pytest.approx(-0.9), pytest.approx(1.1)]


GREEDY_ONLY = ["medserl.validation.sampled=false", "medserl.validation.best_metric=val/greedy/balanced_accuracy"]


def test_validation_reads_no_answer_out_of_open_reasoning(verl: Any) -> None:
    from medserl.config.load import load_config
    from medserl.game import load_prompt_set
    from medserl.training.validate import Validator

    def metrics(replies: list[str], tail: str = "") -> dict[str, float]:
        config = load_config("embedded", GREEDY_ONLY)
        _, server, tokenizer = loop_with(replies, template_tail=tail)
        validator = Validator(config, server, tokenizer, load_prompt_set("ward"), [note()])  # type: ignore[arg-type]
        return validator()

    right, wrong = ANSWER.format(label="CORRECT"), "final_answer: incorrect"
    found = metrics([right, wrong])
    assert (found["val/greedy/accuracy"], found["val/greedy/strict_rate"]) == (1.0, 0.5)
    found = metrics([right, wrong], OPENED)
    assert (found["val/greedy/parse_failure_rate"], found["val/greedy/strict_rate"]) == (1.0, 0.0)
    assert metrics([f"x</think>\n{right}", f"x</think>\n{wrong}"], OPENED)["val/greedy/accuracy"] == 1.0


def test_errors_that_play_has_covered_are_told_apart_from_others(verl: Any) -> None:
    from medserl.config.load import load_config
    from medserl.game import load_prompt_set
    from medserl.training.validate import Validator

    config = load_config("embedded", GREEDY_ONLY)
    _, server, tokenizer = loop_with([ANSWER.format(label="INCORRECT")] * 2)
    held_out = note()
    validator = Validator(config, server, tokenizer, load_prompt_set("ward"), [held_out])  # type: ignore[arg-type]
    asked = []
    found = validator(lambda *texts: asked.append(texts) or True)  # type: ignore[func-returns-value]
    assert asked == [(held_out.text, held_out.error_text)]
    assert (found["val/greedy/recall_incorrect_covered"], found["val/covered_rate"]) == (1.0, 1.0)
    assert math.isnan(found["val/greedy/recall_incorrect_uncovered"])


def test_validation_tells_the_game_log_each_answer_once(verl: Any) -> None:
    from medserl.config.load import load_config
    from medserl.game import load_prompt_set
    from medserl.training.validate import Validator

    replies = [ANSWER.format(label="CORRECT"), "Who knows?"]
    _, server, tokenizer = loop_with(replies)
    config = load_config("embedded", GREEDY_ONLY)
    validator = Validator(config, server, tokenizer, load_prompt_set("ward"), [note()])  # type: ignore[arg-type]
    validator()
    right, wrong = validator.take_rows(5)
    assert [(row["round"], row["place"], row["source"]) for row in (right, wrong)] == [
        (5, 0, "held-out greedy"), (5, 1, "held-out greedy")
    ]  # fmt: skip
    assert (right["original"], right["shown"], wrong["shown"]) == (note().text, note().text, note().error_text)
    assert right["assessor"]["p_incorrect"] == pytest.approx(1 - exp(-0.5)) and right["assessor"]["seconds"] >= 0
    assert (wrong["assessor"]["answer"], wrong["assessor"]["p_incorrect"]) == (None, None)
    assert all(request["logprobs"] for request in server.requests)
    assert validator.take_rows(5) == []


def test_the_type_of_error_reaches_the_prompt_and_the_record(verl: Any) -> None:
    from medserl.game.wire import decode_game

    roomy = (
        "medserl.prompt_set=clinical",
        "data.max_prompt_length=900",
        "actor_rollout_ref.rollout.max_model_len=1024",
    )
    outputs, server, tokenizer = play([gold_edit(), ANSWER.format(label="INCORRECT")], roomy, error_type="management")
    assert "of the type management" in tokenizer.decode(server.requests[0]["prompt_ids"])
    assert "of the type management" not in tokenizer.decode(server.requests[1]["prompt_ids"])
    assert decode_game(outputs[0].extra_fields["medserl"]["game"]).error_type == "management"


def contains(haystack: list[int], needle: list[int]) -> bool:
    return any(haystack[i : i + len(needle)] == needle for i in range(len(haystack) - len(needle) + 1))


def test_every_request_has_a_seed_of_its_own_that_does_not_depend_on_order(verl: Any) -> None:
    seeds = [[r["seed"] for r in play(["nonsense"] * 3)[1].requests] for _ in range(2)]
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0])) == 3
    benign = [r["seed"] for r in play(["nonsense"] * 3, mode="benign")[1].requests]
    assert not set(benign) & set(seeds[0])
    other = [r["seed"] for r in play(["nonsense"] * 3, ("medserl.seed=2",))[1].requests]
    assert not set(other) & set(seeds[0])


def test_seeds_and_requests_are_unique_within_a_round(verl: Any) -> None:
    """Sixty gold notes, sixteen a round: a round that ends one pass over them and begins the next deals some twice."""
    from medserl.config.settings import GameSettings, NotesSettings
    from medserl.data.rounds import RoundSource
    from medserl.training.agent_loop import sampling_seed
    from tests.training.round_made import made_trainer

    for conditions in (None, 4):
        notes = NotesSettings(count=30, labelled_conditions=conditions)
        source = RoundSource(GameSettings(notes=notes, rollout_batch_size=8, labelled_batch_size=16))
        trainer = made_trainer()
        for trainer.global_steps in range(1, 31):
            tasks = trainer._tasks(source.next_round()).values()
            assert [task.place for task in tasks] == list(range(24))
            assert len({task.name for task in tasks}) == 24
            assert len({sampling_seed(1, task, call) for task in tasks for call in (1, 2, 3, 4)}) == 96


def test_a_setup_is_that_of_its_configuration_and_goes_with_it(verl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from omegaconf import OmegaConf

    import medserl.training.agent_loop as module

    monkeypatch.setattr(module, "game_settings", lambda config: config.number)
    monkeypatch.setattr(module, "make_setup", lambda number: [number])
    before = len(module._SETUPS)
    for number in range(200):
        config = OmegaConf.create({"number": number})
        assert module._setup_of(config) == [number]
        assert module._setup_of(config) is module._setup_of(config)
        del config
    gc.collect()
    assert len(module._SETUPS) <= before
    first, second = OmegaConf.create({"number": 1}), OmegaConf.create({"number": 2})
    assert module._setup_of(first) == [1] and module._setup_of(second) == [2] and module._setup_of(first) == [1]


def test_a_prompt_that_does_not_fit_is_an_error_not_a_cut(verl: Any) -> None:
    from medserl.training.agent_loop import PromptTooLong

    with pytest.raises(PromptTooLong, match="data.max_prompt_length is 20"):
        play(["nonsense"], ("data.max_prompt_length=20",))


def test_vllms_log_probabilities_and_weight_version_travel_along(verl: Any) -> None:
    outputs, _, _ = play([gold_edit(), ANSWER.format(label="CORRECT")])
    for output in outputs:
        assert len(output.response_logprobs) == len(output.response_ids) == len(output.response_mask)
        assert output.extra_fields["global_steps"] == 4
