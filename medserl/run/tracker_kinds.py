"""What Weights & Biases, MLflow and SwanLab are told, and what each is kept from collecting by itself. No torch.

Checked against wandb 0.31, mlflow-skinny 3.17 and swanlab 0.10; none is imported before it is opened.
"""

from __future__ import annotations

import netrc
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

PROJECT = "medserl"
HERE = "files on this machine"
_AT_ONCE = 1000  # MLflow takes no more metrics in one request
_NO_NAME = re.compile(r"[^\w/.\- ]")  # what MLflow takes in no name of a metric
_UNGROUPED = "round"
# Before the library is imported: no usage statistics of its own, no minutes of retries within a round.
_MLFLOW = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
_WANDB_QUIET: dict[str, Any] = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "save_code": False,
    "host": "",
    "email": "",
    "username": "",
    "program": PROJECT,
    "finish_timeout": 60.0,  # what has not left by then stays in RUN_DIR/wandb, for `wandb sync`
    "init_timeout": 30.0,
    "quiet": True,
    "silent": True,
    "symlink": False,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}


@dataclass(frozen=True)
class Opening:
    """What a tracker is opened with: the run directory, the run's id there at an earlier start, settings."""

    run_dir: Path
    known: str | None
    settings: Mapping[str, float]


class Tracker(Protocol):
    """One open run of a tracker; every method may raise whatever its library raises."""

    id: str

    def send(self, number: int, metrics: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class _Wandb:
    def __init__(self, opening: Opening) -> None:
        import wandb

        self.id = opening.known or secrets.token_hex(4)
        self._wandb = wandb
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=opening.run_dir.name,
            id=self.id,
            resume="allow",
            dir=str(opening.run_dir),
            config=dict(opening.settings),
            settings=wandb.Settings(**_WANDB_QUIET),
        )

    def send(self, number: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=number)

    def close(self) -> None:
        self._run.finish(exit_code=0)
        self._wandb.teardown()  # its service is a process of its own


def mlflow_name(name: str) -> str:
    """A metric's name there. MLflow's file store, which may also be behind a server, makes a path of a name, and
    ``mean_reward`` cannot be a file where ``mean_reward/assessor`` makes it a folder."""
    allowed = _NO_NAME.sub("_", name)
    return allowed if "/" in allowed else f"{_UNGROUPED}/{allowed}"


class _Mlflow:
    def __init__(self, opening: Opening) -> None:
        uri = os.environ["MLFLOW_TRACKING_URI"]
        os.environ.update(_MLFLOW)
        if not _host(uri):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # it was named: MLflow 3 asks again otherwise
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        # The client, not mlflow.start_run, which notes the user, the program and the commit as tags.
        self._client = MlflowClient(tracking_uri=uri)
        found = None
        if opening.known is not None:
            try:
                found = self._client.get_run(opening.known).info.run_id
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
        self.id = found or self._new(opening)
        self._client.update_run(self.id, status="RUNNING")

    def _new(self, opening: Opening) -> str:
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        made: str = self._client.create_run(number, run_name=opening.run_dir.name).info.run_id
        self._client.log_batch(made, params=[Param(name, str(value)) for name, value in opening.settings.items()])
        return made

    def send(self, number: int, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = [Metric(mlflow_name(name), value, now, number) for name, value in metrics.items()]
        for first in range(0, len(points), _AT_ONCE):
            self._client.log_batch(self.id, metrics=points[first : first + _AT_ONCE])

    def close(self) -> None:
        self._client.set_terminated(self.id)


class _Swanlab:
    def __init__(self, opening: Opening) -> None:
        import swanlab

        settings = swanlab.Settings
        off = dict.fromkeys(("hardware", "runtime", "requirements", "conda", "git", "swanlab", "monitor"), False)
        self.id = opening.known or secrets.token_hex(8)
        self._swanlab = swanlab
        swanlab.init(
            project=PROJECT,
            name=opening.run_dir.name,
            id=self.id,
            resume="allow",
            log_dir=str(opening.run_dir / "swanlog"),
            mode=os.environ.get("SWANLAB_MODE", "online"),
            config=dict(opening.settings),
            settings=settings(
                interactive=False, terminal=settings.Terminal(proxy_type="none"), probe=settings.Probe(**off)
            ),
        )

    def send(self, number: int, metrics: Mapping[str, float]) -> None:
        self._swanlab.log(dict(metrics), step=number)

    def close(self) -> None:
        self._swanlab.finish()


@dataclass(frozen=True)
class Kind:
    """A tracker that can be named.

    Attributes:
        package: What to install; ``module`` is imported.
        opened: Opens a run of it.
        goes_to: Where the numbers go, by the environment.
        lacks: What is missing before it can be used, by the environment; empty: nothing.
    """

    package: str
    module: str
    opened: Callable[[Opening], Tracker]
    goes_to: Callable[[Mapping[str, str]], str]
    lacks: Callable[[Mapping[str, str]], str]


def _host(address: str) -> str:
    """The host that an address names; empty: none, such as of a folder."""
    parts = urlsplit(address)
    return (parts.hostname or "") if parts.scheme in ("http", "https") else ""


def _wandb_host(environ: Mapping[str, str]) -> str:
    online = environ.get("WANDB_MODE", "online") not in ("offline", "dryrun", "disabled")
    return _host(environ.get("WANDB_BASE_URL", "https://api.wandb.ai")) if online else HERE


def _wandb_lacks(environ: Mapping[str, str]) -> str:
    host = _wandb_host(environ)
    file = Path(environ.get("NETRC", "~/.netrc")).expanduser()
    if host == HERE or environ.get("WANDB_API_KEY") or _has_key(file, host):
        return ""
    return f"a key for {host}: `wandb login`, WANDB_API_KEY, or WANDB_MODE=offline for files in the run directory"


def _mlflow_goes_to(environ: Mapping[str, str]) -> str:
    address = environ.get("MLFLOW_TRACKING_URI", "")
    return _host(address) or ("databricks" if address.startswith("databricks") else HERE)


def _mlflow_lacks(environ: Mapping[str, str]) -> str:
    if environ.get("MLFLOW_TRACKING_URI"):
        return ""
    return "MLFLOW_TRACKING_URI in the environment: a server's https://…, or file:/… for a folder"


def _swanlab_goes_to(environ: Mapping[str, str]) -> str:
    online = environ.get("SWANLAB_MODE", "online") in ("online", "cloud")
    return _host(environ.get("SWANLAB_API_HOST", "https://api.swanlab.cn")) if online else HERE


def _swanlab_lacks(environ: Mapping[str, str]) -> str:
    file = Path(environ.get("SWANLAB_ROOT", "~/.swanlab")).expanduser() / ".netrc"
    if _swanlab_goes_to(environ) == HERE or environ.get("SWANLAB_API_KEY") or file.is_file():
        return ""
    return "a key: `swanlab login`, SWANLAB_API_KEY, or SWANLAB_MODE=offline for files in the run directory"


def _has_key(file: Path, host: str) -> bool:
    try:
        return netrc.netrc(file).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


KINDS = {
    "wandb": Kind("wandb", "wandb", _Wandb, _wandb_host, _wandb_lacks),
    "mlflow": Kind("mlflow-skinny", "mlflow", _Mlflow, _mlflow_goes_to, _mlflow_lacks),
    "swanlab": Kind("swanlab", "swanlab", _Swanlab, _swanlab_goes_to, _swanlab_lacks),
}
