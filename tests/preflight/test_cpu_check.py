"""A process that may use only some of the machine's CPUs."""

import os

import pytest

from medserl.preflight.node_checks import cpu_check


@pytest.mark.parametrize(
    ("usable", "there", "told", "bad", "remarked"),
    [
        (1, 64, 64, True, False),
        (1, 64, 0, False, True),
        (16, 64, 16, False, True),
        (15, 64, 16, True, False),
        (64, 64, 64, False, False),
        (2, 2, 16, False, False),  # told on purpose: a small machine
    ],
)
def test_pinned_step(
    monkeypatch: pytest.MonkeyPatch, usable: int, there: int, told: int, bad: bool, remarked: bool
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(usable)))
    monkeypatch.setattr(os, "cpu_count", lambda: there)
    check = cpu_check(told)
    assert (check.problem is not None, check.remark is not None) == (bad, remarked)
    if bad:
        assert f"may be used, Ray is told {told}" in str(check.problem)
