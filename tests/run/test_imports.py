"""What the commands' processes do not import, though it is installed."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
{first}
from medserl.imports import spare_scipy
spare_scipy()
spare_scipy()
{then}
loaded = {{"sklearn", "scipy.optimize", "scipy.stats", "scipy.signal"}} & set(sys.modules)
import scipy.signal, scipy.stats
print(sorted(loaded))
"""
TRANSFORMERS = """
from transformers import AutoModelForCausalLM, GenerationMixin
from transformers.generation import candidate_generator
from transformers.loss import loss_utils
"""


@pytest.mark.engine
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("", TRANSFORMERS),
        ("import transformers", TRANSFORMERS),
        ("import verl.protocol", TRANSFORMERS),
        ("", "import vllm.multimodal.audio, vllm.v1.engine.core"),
    ],
)
def test_scipy_is_for_those_who_ask(first: str, then: str) -> None:
    script = SCRIPT.format(first=first, then=then)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
