"""The `cpu` image, built from the Dockerfile and run without a network."""

import re
import time
from collections.abc import Iterator

import pytest

from medserl import __version__
from tests.images.machine import REVISION, Docker

pytestmark = [pytest.mark.images, pytest.mark.timeout(1800)]
PASSED = r"selftest passed: 1 round, checkpoint, TensorBoard; vllm \S+, verl \S+, torch \S+, TP 2, cpu"
NO_NETWORK = ("--network=none", "--shm-size=2g")


@pytest.fixture(scope="module")
def selftest(docker: Docker, cpu_image: str) -> Iterator[str]:
    """A container that runs the image without arguments; looked at while it runs."""
    name = docker.run("run", "--detach", *NO_NETWORK, "--health-interval=5s", cpu_image).strip()
    yield name
    docker.run("rm", "--force", name)


def test_image_says_what_it_is(docker: Docker, cpu_image: str) -> None:
    config = docker.inspect(cpu_image)["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["tini", "-s", "-g", "--", "medserl"]
    assert config["Cmd"] == ["selftest"]
    assert config["Healthcheck"]["Test"] == ["CMD", "medserl", "health"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.revision"] == REVISION
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    environment = dict(line.split("=", 1) for line in config["Env"])
    assert (environment["HF_HOME"], environment["HF_HUB_OFFLINE"], environment["XDG_CACHE_HOME"]) == (
        "/models",
        "1",
        "/cache",
    )


def test_container_becomes_healthy_while_it_trains(docker: Docker, selftest: str) -> None:
    """The check sees the run by itself, wherever the run writes."""
    deadline = time.monotonic() + 600
    said = ""
    while "moves: /tmp/medserl-selftest-" not in said:
        state = docker.inspect(selftest)["State"]
        assert state["Running"] and time.monotonic() < deadline, docker.run("logs", selftest)
        said = "".join(check["Output"] for check in state["Health"]["Log"])
        time.sleep(1)
    assert docker.inspect(selftest)["State"]["Health"]["Status"] == "healthy"
    assert docker.run("exec", selftest, "id", "-u").strip() == "10001"


def test_selftest_passes_without_a_network(docker: Docker, selftest: str) -> None:
    code = docker.run("wait", selftest, timeout=1200).strip()
    said = docker.run("logs", selftest)
    assert code == "0", said
    assert re.fullmatch(PASSED, said.strip().splitlines()[-1]), said
    for check in ("rounds", "metrics", "checkpoint", "TensorBoard"):
        assert re.search(rf"^ok +{check} ", said, re.MULTILINE), said


def test_arguments_go_to_medserl_under_any_user(docker: Docker, cpu_image: str) -> None:
    """`docker run IMAGE train …` trains; nothing needs the image's own user or a writable image."""
    anyone = ("--user=4242:4242", "--env=HOME=/tmp", "--read-only", "--tmpfs=/tmp", "--tmpfs=/cache")
    said = docker.run("run", "--rm", *NO_NETWORK, *anyone, cpu_image, "train", "--dry-run", "--run-dir", "/tmp/run")
    assert "Megatron TP 2" in said
    assert "dry run: everything checked, nothing started" in said


def test_command_that_fails_ends_the_container_with_its_code(docker: Docker, cpu_image: str) -> None:
    name = docker.run("run", "--detach", *NO_NETWORK, cpu_image, "train", "--max-rounds", "0").strip()
    assert docker.run("wait", name).strip() == "2"
    assert "medserl: error:" in docker.run("logs", name)
    docker.run("rm", name)
