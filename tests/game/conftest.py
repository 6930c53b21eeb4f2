"""Shared by the game's tests: a scripted player and hypothesis profiles without a clock."""

import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

from medserl.game.play import Reply, Role
from medserl.game.prompts import Message

# The machines that run this are shared: what is asserted is behaviour, never seconds.
settings.register_profile("game", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("game")


class ScriptedPlayer:
    """A generator that reads its replies from a script and keeps every conversation that it was given."""

    def __init__(self, injector: Iterable[str], assessor: Iterable[str]) -> None:
        self._replies = {Role.INJECTOR: list(injector), Role.ASSESSOR: list(assessor)}
        self.asked: list[tuple[Role, list[Message]]] = []

    async def __call__(self, role: Role, messages: list[Message]) -> Reply:
        self.asked.append((role, messages))
        text = self._replies[role].pop(0)
        return Reply(text, payload={"ids": list(range(len(text)))}, tokens=len(text), think_tokens=0)

    def conversations(self, role: Role) -> list[list[Message]]:
        return [messages for asked, messages in self.asked if asked is role]


@pytest.fixture
def scripted() -> Callable[..., ScriptedPlayer]:
    return ScriptedPlayer


@pytest.fixture(scope="session")
def textbook() -> ModuleType:
    """The filter as a textbook would write it: benchmarks/vcf.py."""
    path = Path(__file__).parents[2] / "benchmarks" / "vcf.py"
    spec = importlib.util.spec_from_file_location("benchmark_vcf", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
