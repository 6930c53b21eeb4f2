"""Numbers for trackers: what is sent, when it is sent again, what is refused before a start."""

import json
import logging
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from medserl.config.load import load_config, load_sft_config
from medserl.errors import ConfigError
from medserl.run import trackers
from medserl.run.tracker_kinds import HERE, KINDS, Kind, Opening, mlflow_name
from medserl.run.trackers import STATE_FILE, Trackers, check_trackers, numbers_of, send_what_waits, where_numbers_go
from medserl.sft.step_lines import STEP, figures


class Server:
    """A tracker that can be out of reach; it keeps what it got."""

    def __init__(self) -> None:
        self.got: list[tuple[str, int, dict[str, float]]] = []
        self.openings: list[Opening] = []
        self.reachable = True
        self.closed = 0

    def open(self, opening: Opening) -> "Run":
        self.ask()
        self.openings.append(opening)
        return Run(self, opening.known or f"run-{len(self.openings)}")

    def ask(self) -> None:
        if not self.reachable:
            raise ConnectionError("word of a note")


class Run:
    def __init__(self, server: Server, id: str) -> None:
        self.server, self.id = server, id

    def send(self, number: int, metrics: Mapping[str, float]) -> None:
        self.server.ask()
        self.server.got.append((self.id, number, dict(metrics)))

    def close(self) -> None:
        self.server.closed += 1


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    kind = Kind("package", "json", made.open, lambda _: HERE, lambda _: "")
    monkeypatch.setattr(trackers, "KINDS", {"made": kind})
    return made


def test_only_finite_numbers_are_sent_under_the_names_that_tensorboard_shows(tmp_path: Path, server: Server) -> None:
    sent: dict[str, Any] = {
        "mean_reward": 0.5, "actor/entropy": 1, "epoch": 3.0, "actor/kl": float("nan"), "text": "a word",
    }  # fmt: skip
    lines = Trackers(tmp_path, ["made"], {"lr": 0.1})
    lines.send(1, sent)
    lines.close()
    assert server.got == [("run-1", 1, {"mean_reward": 0.5, "verl/actor/entropy": 1.0})]
    assert server.openings[0].settings == {"lr": 0.1}
    assert server.closed == 1


def test_a_resumed_run_goes_on_in_the_same_run_and_sends_no_round_twice(tmp_path: Path, server: Server) -> None:
    first = Trackers(tmp_path, ["made"], {})
    for number in (0, 1, 2, 3):
        first.send(number, {"mean_reward": float(number)})
    rows = [{"round": number, "mean_reward": float(number)} for number in (0, 1, 2)]
    second = Trackers(tmp_path, ["made"], {}, rows)  # round 3 is played again
    for number in (3, 4):
        second.send(number, {"mean_reward": float(number)})
    assert [(run, number) for run, number, _ in server.got] == [("run-1", number) for number in range(5)]
    assert json.loads((tmp_path / STATE_FILE).read_text()) == {"made": {"run": "run-1", "round": 4}}
    assert (tmp_path / STATE_FILE).stat().st_mode & 0o077 == 0


def test_a_tracker_that_is_asked_for_later_gets_the_earlier_rounds_too(tmp_path: Path, server: Server) -> None:
    Trackers(tmp_path, ["made"], {}, [{"round": 1, "mean_reward": 0.1}, {"round": 2, "mean_reward": 0.2}])
    assert [number for _, number, _ in server.got] == [1, 2]


def test_numbers_wait_while_a_tracker_is_out_of_reach_and_one_line_says_so(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.reachable = False
    with caplog.at_level(logging.INFO, logger="medserl.run"):
        lines = Trackers(tmp_path, ["made"], {})
        for number in range(1, 5):
            lines.send(number, {"mean_reward": 1.0})
        server.reachable = True
        lines.close()
    assert [number for _, number, _ in server.got] == [1, 2, 3, 4]
    assert [record.message for record in caplog.records] == [
        "made: numbers could not be sent (ConnectionError); they wait, and the run goes on",
        "made: reached again",
    ]


def test_what_still_waits_at_the_end_is_said_and_sent_at_the_next_start(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.reachable = False
    lines = Trackers(tmp_path, ["made"], {})
    lines.send(1, {"mean_reward": 1.0})
    lines.close()
    assert caplog.messages[-1] == "made: the numbers of 1 round were not sent; metrics.jsonl has them"
    server.reachable = True
    Trackers(tmp_path, ["made"], {}, [{"round": 1, "mean_reward": 1.0}])
    assert [number for _, number, _ in server.got] == [1]


def test_a_finished_run_sends_what_a_tracker_lacks_and_asks_no_other(tmp_path: Path, server: Server) -> None:
    rows = [{"round": number, "mean_reward": number / 10} for number in (0, 1)]
    send_what_waits(tmp_path, ["made"], {"lr": 0.1, "name": "x"}, rows)
    assert [number for _, number, _ in server.got] == [0, 1]
    opened = len(server.openings)
    send_what_waits(tmp_path, ["made"], {}, rows)
    assert len(server.openings) == opened
    send_what_waits(tmp_path, ["made"], {}, [*rows, {"round": 2, "mean_reward": 0.3}])
    assert [number for _, number, _ in server.got] == [0, 1, 2]


def test_no_name_in_mlflow_is_a_folder_of_another() -> None:
    """A path in its file store: mean_reward cannot stand beside mean_reward/assessor."""
    known = ["mean_reward", "mean_reward/assessor", "label_inversion_rate", "label_inversion_rate/second_referee"]
    known += ["vcf_acceptance_rate", "vcf_acceptance_rate/benign", "games", "val/greedy/auc", "verl/timing_s/step"]
    names = {mlflow_name(name) for name in known}
    assert len(names) == len(known)
    assert not [name for name in names if any(other.startswith(f"{name}/") for other in names)]
    assert mlflow_name("mine (50 %)") == "round/mine _50 __"


def test_without_trackers_nothing_is_written(tmp_path: Path) -> None:
    lines = Trackers(tmp_path, [], {"lr": 0.1}, [{"round": 1, "mean_reward": 0.1}])
    lines.send(2, {"mean_reward": 0.2})
    lines.close()
    assert list(tmp_path.iterdir()) == []


def test_settings_that_are_no_numbers_stay_here() -> None:
    assert numbers_of({"lr": 1e-3, "seed": 1, "model": "/models/x", "thinking": False}) == {"lr": 1e-3, "seed": 1}


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(ConfigError, match="'wanbd' is not one of wandb, mlflow, swanlab"):
        check_trackers(["wanbd"])


@pytest.mark.parametrize("name", KINDS)
def test_a_tracker_that_is_not_installed_is_refused_with_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=f"{name} is not installed; install the package {KINDS[name].package}"):
        check_trackers([name], {"MLFLOW_TRACKING_URI": "file:/x"})


@pytest.mark.parametrize(
    ("name", "environ", "problem", "goes_to"),
    [
        ("wandb", {}, "wandb login", "api.wandb.ai"),
        ("wandb", {"WANDB_API_KEY": "k"}, None, "api.wandb.ai"),
        ("wandb", {"WANDB_API_KEY": "k", "WANDB_BASE_URL": "https://u:p@own.example:8080"}, None, "own.example"),
        ("wandb", {"WANDB_MODE": "offline"}, None, HERE),
        ("mlflow", {}, "MLFLOW_TRACKING_URI", HERE),
        ("mlflow", {"MLFLOW_TRACKING_URI": "file:/tmp/x"}, None, HERE),
        ("mlflow", {"MLFLOW_TRACKING_URI": "https://u:p@flow.example/x"}, None, "flow.example"),
        ("mlflow", {"MLFLOW_TRACKING_URI": "databricks"}, None, "databricks"),
        ("swanlab", {}, "swanlab login", "api.swanlab.cn"),
        ("swanlab", {"SWANLAB_MODE": "offline"}, None, HERE),
        ("swanlab", {"SWANLAB_API_KEY": "k"}, None, "api.swanlab.cn"),
    ],
)
def test_the_start_says_where_numbers_go_and_refuses_a_tracker_without_a_place(
    name: str, environ: dict[str, str], problem: str | None, goes_to: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    environ = {"NETRC": str(tmp_path / "netrc"), "SWANLAB_ROOT": str(tmp_path), **environ}
    assert where_numbers_go([name], environ) == f"{goes_to} ({name})"
    if problem is None:
        check_trackers([name], environ)
    else:
        with pytest.raises(ConfigError, match=problem):
            check_trackers([name], environ)


def test_a_login_of_wandb_counts_as_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password key\n")
    check_trackers(["wandb"], {"NETRC": str(tmp_path / "netrc")})


def test_both_configurations_take_trackers_and_have_none_by_default() -> None:
    assert load_config("embedded").medserl.trackers == load_sft_config("sft_embedded").medserl.trackers == []
    assert load_config("embedded", ["medserl.trackers=[wandb,mlflow]"]).medserl.trackers == ["wandb", "mlflow"]
    with pytest.raises(ConfigError, match=r"medserl\.trackers"):
        load_config("embedded", ["medserl.trackers=wandb"])


def test_swanlab_is_asked_to_collect_nothing_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with the names that swanlab 0.10 has: its protobuf is older than the pinned one, so it is no test
    tool here."""
    said: dict[str, Any] = {}

    def keep(kind: str) -> Any:
        return lambda *args, **options: said.setdefault(kind, options or args) or options

    settings = keep("settings")
    settings.Terminal, settings.Probe = keep("terminal"), keep("probe")
    module = types.ModuleType("swanlab")
    for name in ("init", "log", "finish"):
        setattr(module, name, keep(name))
    module.Settings = settings  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "swanlab", module)
    monkeypatch.setenv("SWANLAB_MODE", "offline")
    opened = KINDS["swanlab"].opened(Opening(tmp_path / "own", "abc", {"lr": 0.1}))
    opened.send(3, {"mean_reward": 0.5})
    opened.close()
    assert not any(said["probe"].values()) and len(said["probe"]) == 7
    assert said["terminal"] == {"proxy_type": "none"} and said["settings"]["interactive"] is False
    init = {name: said["init"][name] for name in ("id", "resume", "name", "mode", "config", "project")}
    assert init == {
        "id": "abc", "resume": "allow", "name": "own", "mode": "offline", "config": {"lr": 0.1}, "project": "medserl",
    }  # fmt: skip
    assert said["log"] == {"step": 3} and "finish" in said


def test_every_figure_of_a_step_of_the_warm_start_is_read() -> None:
    match = STEP.search("x\rstep:7 - train/loss:0.25 - train/lr:1e-3 - note:word - train/grad_norm:nan\n")
    assert match is not None
    found = figures(match)
    assert (found["train/loss"], found["train/lr"], "note" in found) == (0.25, 1e-3, False)
