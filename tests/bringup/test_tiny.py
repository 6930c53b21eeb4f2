"""`medserl bringup` where no GPU is: what it can run passes, in tiny sizes; the rest says what it lacks."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medserl.bringup.checks import CHECKS, NOT_RUN, PASSED


def bring_up(folder: Path, only: str) -> dict[str, dict[str, Any]]:
    out = folder / "lines.jsonl"
    command = [sys.executable, "-m", "medserl", "bringup", "--device", "cpu", "--only", only, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in out.read_text().splitlines()[1:]]
    assert done.returncode == 0, [line for line in lines if line["status"] == "failed"]
    assert "without a GPU" in done.stdout
    return {line["check"]: line for line in lines}


@pytest.mark.engine
@pytest.mark.timeout(900)
def test_all_that_needs_no_gpu_passes(tmp_path: Path) -> None:
    lines = bring_up(tmp_path, "a,b,c,d,e")
    for check in (check for check in CHECKS if check.group in "abcde"):
        line = lines[check.key]
        expected = (NOT_RUN, "no GPU") if check.cpu_seconds is None else (PASSED, None)
        assert (line["status"], line.get("why")) == expected, line
    found = {key: line.get("measured", {}) for key, line in lines.items()}
    assert found["c1"]["parameters"] == 4_022_468_096
    # Entropy is beside the log-probs and the loss, and changes neither.
    assert found["c2"]["mean_log_probs"] == pytest.approx(found["c3"]["mean_log_probs"], abs=1e-4)
    assert found["c5"]["with_entropy"]["loss"] == pytest.approx(found["c5"]["without"]["loss"], abs=1e-4)
    assert found["c2"]["mfu"] is None and found["c2"]["tokens_per_s"] > 0
    assert found["d1"]["losses"][-1] < found["d1"]["losses"][0]
    assert found["e1"]["tokens_per_s_20"] > 0


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_whole_rounds_pass(tmp_path: Path) -> None:
    lines = bring_up(tmp_path, "f,g")
    assert lines["f1"]["measured"]["correlation"] > 0.99
    assert lines["g1"]["measured"]["step"] > lines["g1"]["measured"]["gen"] > 0


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_the_engine_of_a_gpu_takes_bridges_that_read_this_transformers(tmp_path: Path) -> None:
    """Without the CPU's own bridges, as on a GPU: mbridge's asks the model's configuration for ``rope_theta``, which
    transformers 5 keeps elsewhere, so that (c) and (d) would end before their first pass."""
    code = """
import medserl.bringup.engine as engine
from verl.workers.engine import EngineRegistry
class Made:
    def __init__(self, model, megatron, *rest):
        from types import SimpleNamespace
        from mbridge.core.bridge import _MODEL_REGISTRY
        from transformers import Qwen3Config
        bridge = SimpleNamespace(hf_config=Qwen3Config(**engine.QWEN3_4B))
        arguments = _MODEL_REGISTRY["qwen3"]._get_gptmodel_args(bridge)
        print(arguments, megatron.override_transformer_config["attention_backend"])
        raise SystemExit
EngineRegistry.new = lambda kind, backend, *parts: Made(*parts)
engine.join_group = lambda place: None
from pathlib import Path
from medserl.bringup.child import Place
place = Place("cuda", Path(FOLDER))
engine.make_engine(place, engine.model_folder(place), optimizer=False)
""".replace("FOLDER", repr(str(tmp_path)))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("VERL_")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "'rotary_base': 1000000" in done.stdout and done.stdout.strip().endswith("fused"), done.stderr[-800:]
