"""The judge's adapter: options, the server's contract, the user's own server, and a real vLLM (marked engine)."""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medserl.config.load import game_settings, load_config
from medserl.config.settings import make_setup
from medserl.errors import ConfigError
from medserl.game import Game, Mode, Note, Ruling, RulingKind, load_prompt_set, make_referee
from medserl.game.parse import ParseFailure, parse_edit
from medserl.preflight.checks import check_judge
from medserl.report.round_metrics import RefereeFailed, referee_complaint
from medserl.serving.judge import JudgeReferee, point_at
from medserl.serving.openai_server import JUDGE_KEY, ServerFailed
from medserl.serving.opponent import RemoteInjector
from medserl.serving.servers import check_servers
from tests.serving.http import Answer, Asked, serving

pytestmark = pytest.mark.engine  # seconds each: too long for the quick tests

JUDGE = "medserl.referee.name=judge"
NOTE = Note("n", "He is 54 years old. He has type 2 diabetes. Metformin 500 mg twice daily was started.")
EDITED = NOTE.text.replace("type 2", "type 1")


class Script:
    """What a server answers, path by path, and what it was sent."""

    def __init__(self, replies: list[str], status: int = 200, raw: bytes | None = None, wait: float = 0.0) -> None:
        self.replies, self.status, self.raw, self.wait = replies, status, raw, wait
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    def __call__(self, asked: Asked) -> Answer:
        if asked.method == "GET":
            assert asked.path == "/v1/models"
            return Answer({"object": "list", "data": [{"id": "first"}, {"id": "second"}]})
        assert asked.path in ("/v1/chat/completions", "/v1/completions")
        self.requests.append(json.loads(asked.body))
        self.keys.append(asked.key)
        time.sleep(self.wait)
        choices = [{"index": i, "message": {"role": "assistant", "content": t}} for i, t in enumerate(self.replies)]
        return Answer({"choices": choices} if self.raw is None else self.raw, self.status)


def ask(url: str, **options: Any) -> Ruling:
    judge = make_referee("judge", prompts=load_prompt_set("clinical"), url=url, **options)
    return asyncio.run(judge.arule(NOTE, Mode.ERROR, EDITED))


def test_a_question_is_one_request_in_openais_form() -> None:
    script = Script(['verdict: "ERROR"'])
    with serving(script) as url:
        assert ask(url).reason == "judge"
        assert (
            ask(f"{url}/v1/", model="second", temperature=0.5, votes=3, max_tokens=9, thinking=None).reason == "judge"
        )
    first, second = script.requests
    assert (first["model"], first["n"], first["temperature"], first["max_tokens"]) == ("first", 1, 0.0, 256)
    assert first["chat_template_kwargs"] == {"enable_thinking": False} and "seed" not in first
    assert first["messages"] == load_prompt_set("clinical").judge(
        NOTE.text, "He has type 2 diabetes.", "He has type 1 diabetes."
    )
    assert (second["model"], second["n"], second["temperature"], second["max_tokens"]) == ("second", 3, 0.5, 9)
    assert "chat_template_kwargs" not in second and 0 <= second["seed"] < 2**31


def test_a_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JUDGE_KEY, "k")
    script = Script(['verdict: "BENIGN"'])
    with serving(script) as url:
        ask(url)
    assert script.keys == ["Bearer k"]


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (Script([], status=500), "HTTP status 500"),
        (Script([], raw=b"<html>"), "not that of an OpenAI-compatible server"),
        (Script([], raw=b'{"choices": 3}'), "not that of an OpenAI-compatible server"),
        (Script([], wait=1.5), "no answer within 0.5 s"),
    ],
)
def test_a_server_that_fails_makes_the_game_void_and_says_why(script: Script, told: str) -> None:
    with serving(script) as url:
        ruling = ask(url, timeout=0.5)
    assert ruling.failed and told in ruling.detail
    assert "diabetes" not in ruling.detail


def test_a_server_that_is_gone_makes_the_game_void() -> None:
    with serving(Script([])) as url:
        pass
    assert ask(url).failed


def test_the_same_judge_can_be_asked_from_several_event_loops() -> None:
    with serving(Script(['verdict: "BENIGN"'])) as url:
        judge = make_referee("judge", prompts=load_prompt_set("ward"), url=url)
        assert [asyncio.run(judge.arule(NOTE, Mode.ERROR, EDITED)).kind.value for _ in range(2)] == ["benign"] * 2


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"votes": 0}, "votes: 0 is not a whole number"),
        ({"votes": 3}, "set a temperature"),
        ({"max_tokens": "many"}, "max_tokens is 'many', not a whole number"),
        ({"temperature": -1}, "temperature: -1"),
        ({"url": "localhost"}, "http://"),
        ({"tensor_parallel_size": 0}, "tensor_parallel_size: 0"),
        ({"vote": 3}, "unexpected keyword argument 'vote'"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make_referee("judge", prompts=load_prompt_set("ward"), **options)


def test_a_misspelt_option_is_refused_when_the_configuration_is_made() -> None:
    with pytest.raises(ConfigError, match="unexpected keyword argument 'vote'"):
        load_config("embedded", [JUDGE, "+medserl.referee.options.vote=3"])


def test_without_a_url_verl_starts_a_frozen_replica_on_devices_of_its_own() -> None:
    plain, config = load_config("embedded"), load_config("embedded", [JUDGE])
    model = config.reward.reward_model
    assert model.enable and model.enable_resource_pool and (model.nnodes, model.n_gpus_per_node) == (1, 1)
    assert model.model_path == config.actor_rollout_ref.model.path
    assert model.rollout.name == "vllm" and not model.rollout.free_cache_engine
    assert model.rollout.load_format == "auto"
    assert model.rollout.engine_kwargs == config.actor_rollout_ref.rollout.engine_kwargs
    assert model.rollout.prompt_length + model.rollout.response_length == model.rollout.max_model_len <= 1024
    assert config.ray_kwargs.ray_init.num_gpus == plain.ray_kwargs.ray_init.num_gpus + 1
    assert not plain.reward.reward_model.enable
    assert isinstance(make_setup(game_settings(config)).referee, JudgeReferee)


def test_with_a_url_nothing_is_started() -> None:
    config = load_config("embedded", [JUDGE, "+medserl.referee.options.url=http://127.0.0.1:1"])
    assert not config.reward.reward_model.enable


def test_two_judges_need_servers_of_their_own() -> None:
    second = ["medserl.second_referee.name=judge", "+medserl.second_referee.options.url=http://127.0.0.1:1"]
    with pytest.raises(ConfigError, match=r"second_referee.*url"):
        load_config("embedded", [JUDGE, *second])
    load_config("embedded", [JUDGE, "+medserl.referee.options.url=http://127.0.0.1:2", *second])


def test_the_started_servers_address_reaches_the_games() -> None:
    config = load_config("embedded", ["medserl.second_referee.name=judge"])
    point_at(config, "127.0.0.1:7")
    referee = make_setup(game_settings(config)).second_referee
    assert isinstance(referee, JudgeReferee) and referee.options.api == "http://127.0.0.1:7/v1"
    assert "url" not in config.medserl.referee.options


def test_the_users_server_is_asked_before_anything_starts() -> None:
    def check(*options: str) -> None:
        config = load_config("embedded", [JUDGE, *(f"+medserl.referee.options.{option}" for option in options)])
        check_servers(game_settings(config))
        check_judge(config)

    with serving(Script([])) as url:
        check(f"url={url}")
        check(f"url={url}/v1", "model=second")
        with pytest.raises(ConfigError, match="serves first, second, not third"):
            check(f"url={url}", "model=third")
    with pytest.raises(ConfigError, match=r"referee\.options\.url.*vllm serve"):
        check(f"url={url}")
    with pytest.raises(ConfigError, match="not a model directory"):
        check("model=/nowhere")


# ------------------------------------------------------------------------------------------- a round with failures


def games(*rulings: Ruling | None) -> list[Game]:
    return [Game(f"n{i}", Mode.ERROR, ruling=ruling) for i, ruling in enumerate(rulings)]


def test_a_round_in_which_the_judge_always_fails_ends_the_run_with_a_sentence() -> None:
    failure, decided = Ruling.of_failure("http://x/v1: no answer within 300 s"), Ruling(RulingKind.ERROR, "judge")
    assert referee_complaint(games(decided, None), "judge") is None
    assert referee_complaint(games(None), "judge") is None
    complaint = referee_complaint(games(failure, decided, None), "judge")
    assert complaint == "the referee judge failed in 1 of 2 games (first: http://x/v1: no answer within 300 s)"
    with pytest.raises(RefereeFailed, match=r"failed in 2 of 2 games .*no answer.*last checkpoint"):
        referee_complaint(games(failure, failure, None), "judge")
    undecided = Ruling(RulingKind.VOID, "judge_undecidable")
    assert referee_complaint(games(undecided, undecided), "judge") is None


# ------------------------------------------------------------------------------------------- a real vLLM


@pytest.fixture(scope="module")
def vllm_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``vllm serve`` with the tiny model, as a user would start it."""
    from medserl.cpu.environment import cpu_environment
    from medserl.ward import model_dir

    folder = tmp_path_factory.mktemp("vllm")
    port = free_port()
    command = [
        str(Path(sys.executable).parent / "vllm"), "serve", str(model_dir()), "--dtype", "float32",
        "--host", "127.0.0.1", "--port", str(port), "--enforce-eager",
        "--max-model-len", "832", "--no-enable-chunked-prefill",
        "--max-num-batched-tokens", "2048", "--max-num-seqs", "16", "--kv-cache-memory-bytes", "67108864",
    ]  # fmt: skip
    environment = {**os.environ, **cpu_environment()}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=folder)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(f"{url}/health", server, folder / "log")
            yield url
        finally:
            server.terminate()
            server.wait(60)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(1)
    pytest.fail(f"vLLM did not come up:\n{log.read_text()[-3000:]}")


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_the_tiny_model_as_a_judge_on_vllm_decides_nothing(vllm_url: str) -> None:
    """It never learnt the question. Its replies come back through the whole path and every game is void, not failed."""
    from medserl.ward import ward_notes

    judge = make_referee("judge", prompts=load_prompt_set("ward"), url=vllm_url, max_tokens=24)
    votes = make_referee(
        "judge", prompts=load_prompt_set("ward"), url=vllm_url, max_tokens=24, votes=3, temperature=1.0
    )
    notes = ward_notes("test", 6, 0)

    async def ask_all() -> list[Ruling]:
        return await asyncio.gather(
            *(r.arule(n, Mode.ERROR, n.error_text or "") for r in (judge, votes) for n in notes)
        )

    rulings = asyncio.run(ask_all())
    assert {(ruling.kind.value, ruling.reason) for ruling in rulings} == {("void", "judge_unparseable")}
    raw = asyncio.run(judge._post(judge._prompts.judge("A b.", "A b.", "A c."), 1))  # type: ignore[attr-defined]
    assert len(raw) == 1 and raw[0]


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_an_injector_beside_the_policy_answers_in_the_game_s_format(vllm_url: str) -> None:
    from transformers import AutoTokenizer

    from medserl.ward import model_dir, ward_notes

    tokenizer, prompts = AutoTokenizer.from_pretrained(model_dir()), load_prompt_set("ward")
    note = ward_notes("test", 1, 0)[0]
    chat = tokenizer.apply_chat_template(
        prompts.injector(note.text, Mode.ERROR), tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    ids = tokenizer.encode(chat, add_special_tokens=False)
    injector = RemoteInjector(vllm_url)

    async def ask_all() -> list[str]:
        seeds = (3, 3, 4, 5, 6)
        return await asyncio.gather(*(injector(ids, {"temperature": 1.0, "seed": seed}, 48) for seed in seeds))

    replies = asyncio.run(ask_all())
    assert replies[0] == replies[1]  # a request's seed decides
    assert len(set(replies)) > 1
    assert any(not isinstance(parse_edit(reply, note.text), ParseFailure) for reply in replies)


def test_an_injector_that_fails_names_its_server() -> None:
    with serving(Script([], status=500)) as url, pytest.raises(ServerFailed, match=f"{url}.*500"):
        asyncio.run(RemoteInjector(url)([1, 2], {}, 4))


def test_a_frozen_injector_trains_nobody_but_the_assessor() -> None:
    both = load_config("embedded", ["medserl.frozen_injector=true", "medserl.train_roles=assessor", JUDGE])
    assert both.reward.reward_model.model_path == both.actor_rollout_ref.model.path
    point_at(both, "127.0.0.1:7")
    assert both.medserl.injector_url == "http://127.0.0.1:7/v1"
    with pytest.raises(ConfigError, match=r"train_roles: 'both'.*assessor"):
        load_config("embedded", ["medserl.frozen_injector=true"])
    with pytest.raises(ConfigError, match="one frozen server"):
        load_config(
            "embedded",
            [
                "medserl.frozen_injector=true", "medserl.train_roles=assessor", JUDGE,
                "+medserl.referee.options.model=/other",
            ],
        )  # fmt: skip
    with pytest.raises(ConfigError, match=r"injector_url.*vllm serve"):
        config = load_config("embedded", ["medserl.injector_url=http://127.0.0.1:1", "medserl.train_roles=assessor"])
        check_servers(game_settings(config))


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_a_question_that_is_too_long_for_vllm_is_a_failure(vllm_url: str) -> None:
    judge = make_referee("judge", prompts=load_prompt_set("ward"), url=vllm_url)
    long = Note("n", " ".join(f"He takes {i} mg." for i in range(400)))
    ruling = asyncio.run(judge.arule(long, Mode.ERROR, long.text.replace("He takes 7 mg.", "He takes 70 mg.")))
    assert ruling.failed and "HTTP status 400" in ruling.detail
