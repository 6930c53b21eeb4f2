"""The game stays light: importing it brings in none of the heavy packages."""

import json
import subprocess
import sys

SCRIPT = """
import json, sys
before = set(sys.modules)
import medserl.game, medserl.game.rollout, medserl.game.referee
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_the_game_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    modules = json.loads(done.stdout)
    roots = {name.partition(".")[0] for name in modules}
    assert roots & {"torch", "verl", "vllm", "ray", "megatron", "transformers", "numpy", "pandas", "pyarrow"} == set()
    assert roots & {"asyncio", "multiprocessing", "unittest", "hydra", "omegaconf"} == set()
    assert "medserl.game.play" in modules
    assert len(modules) < 110
    assert not [name for name in modules if name.startswith("medserl.") and not _is_light(name)]


def _is_light(module: str) -> bool:
    return module == "medserl.errors" or module.startswith("medserl.game")
