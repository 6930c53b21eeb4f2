"""docs/security.md says what is so of places, variables and upstream's pickles. tests/e2e/test_sockets.py compares its
sockets with those of real commands."""

import importlib.util
import re
from pathlib import Path

import pytest

from medserl.cpu.environment import common_environment
from medserl.run.run_dir import _FOLDERS as FOLDERS

# What the page calls a place, and the file whose code gives it that name.
PLACES = {
    "replay.json": "medserl/training/checkpoints.py",
    "demonstrations.parquet": "medserl/sft/train.py",
    ".answers-": "medserl/evaluation/kept.py",
    "rl-colocate-zmq-": "medserl/run/leftovers.py",
    "games.html": "medserl/report/games_page.py",
    "report.html": "medserl/report/run_report.py",
}
# Upstream's files, below site-packages, and what they do with a pickle.
PICKLES = {
    "verl/trainer/ppo/v1/trainer_base.py": "torch.load(dataloader_local_path, weights_only=False)",
    "verl/utils/checkpoint/fsdp_checkpoint_manager.py": "torch.load(local_model_path, weights_only=False)",
    "torch/distributed/checkpoint/filesystem.py": "metadata = pickle.load(metadata_file)",
    "megatron/core/dist_checkpointing/strategies/common.py": "torch.load(load_path, map_location='cpu')",
    "transfer_queue/utils/serial_utils.py": "pickle.loads(",
}


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs/security.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("place", PLACES)
def test_a_place_is_called_what_the_code_calls_it(place: str, page: str, root: Path) -> None:
    assert place in page and place in (root / PLACES[place]).read_text()


def test_the_run_directorys_folders_are_there(page: str) -> None:
    assert all(f"`{name}/" in page for name in FOLDERS if name != "logs")


def test_the_variables_against_telemetry_are_set(page: str) -> None:
    said = dict(re.findall(r"`([A-Z_]+)=(\d)`", page.split("There is no telemetry")[1].split("\n\n")[0]))
    assert len(said) == 4 and said.items() <= common_environment().items()


@pytest.mark.parametrize("file", PICKLES)
def test_upstream_still_unpacks_what_the_page_says(file: str) -> None:
    spec = importlib.util.find_spec(file.split("/")[0])  # its source is read, not imported
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip(f"{file.split('/')[0]} is not installed")
    text = Path(spec.submodule_search_locations[0], *file.split("/")[1:]).read_text()
    assert PICKLES[file] in text
    if "megatron" in file:
        assert "weights_only=False" not in text, "common.pt was read with torch's restricted unpickler"
