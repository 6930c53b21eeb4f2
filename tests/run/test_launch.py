"""Ray that does not start in time is started once more."""

from pathlib import Path
from typing import Any

import pytest

from medserl.run.launch import RAY_WAS_SLOW, RUN_TOKEN, Cluster

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]  # imports Ray and verl
SLOW = f"The current {RAY_WAS_SLOW}. This could happen because some of the raylet failed to startup."


@pytest.mark.parametrize(
    ("errors", "calls", "raised"),
    [([SLOW], 2, None), ([SLOW] * 5, 3, RAY_WAS_SLOW), (["no such address"], 1, "no such address")],
)
def test_ray_that_was_too_slow_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, errors: list[str], calls: int, raised: str | None
) -> None:
    import ray

    from medserl.config.load import load_config

    waiting, made = list(errors), []

    def init(**options: Any) -> None:
        made.append(options)
        if waiting:
            raise Exception(waiting.pop(0))

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    if raised is None:
        Cluster(load_config("embedded"), {RUN_TOKEN: "slow"}, tmp_path / "logs").close()
    else:
        with pytest.raises(Exception, match=raised):
            Cluster(load_config("embedded"), {RUN_TOKEN: "slow"}, tmp_path / "logs")
    assert len(made) == calls
    assert not Path(made[0]["_temp_dir"]).exists()


def test_ray_still_says_it_that_way() -> None:
    from ray._private import node

    assert RAY_WAS_SLOW in "".join(Path(node.__file__).read_text().split('"\n                        "'))
