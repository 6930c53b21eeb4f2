"""What the commands' processes do not import, though it is installed."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
{first}
from medserl.imports import lighten_transformers
lighten_transformers()
from transformers import AutoModelForCausalLM, GenerationMixin
from transformers.generation import candidate_generator
from transformers.loss import loss_utils
print(sorted({{"sklearn", "scipy"}} & set(sys.modules)))
"""


@pytest.mark.engine
@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", ["", "import transformers", "import verl.protocol"])
def test_transformers_leaves_scikit_learn_alone(first: str) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(first=first)], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
