"""Methods of verl that medserl.training relies on, and that do nothing without processes, are those of verl 0.9.1.

What small tensors and stand-ins can show is in test_verl_behaviour.py and test_trainer.py; a digest of the source is
the second best: it fails on changes that do not matter, too. When one fails after an upgrade: read the method's new
source, see whether ours still fits, then write the new digest (``python tests/training/test_verl_contracts.py`` prints
the table). Nothing of verl is imported.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
from pathlib import Path

import pytest

VERL_VERSION = "0.9.1"
BASE = "trainer/ppo/v1/trainer_base.py"
LOOP_TQ = "trainer/ppo/v1/agent_loop_tq.py"
LOOP = "experimental/agent_loop/agent_loop.py"
REWARD_LOOP = "experimental/reward_loop/reward_loop.py"
REWARD_MODEL = "experimental/reward_loop/reward_model.py"
# file, method: digest of its syntax tree (comments and layout do not count)
CONTRACTS: dict[tuple[str, str], str] = {
    # Start Ray's actors, Megatron or vLLM, or take the place of something that does.
    (BASE, "PPOTrainer.__init__"): "8bc9d71710a8d3f6",
    (BASE, "PPOTrainer._setup"): "a0196abc8257299f",
    (BASE, "PPOTrainer._init_dataloader"): "13e6f45f523f7efc",
    (BASE, "PPOTrainer._init_resource_pool_mgr"): "9c596c556c8fee19",
    (LOOP_TQ, "AgentLoopWorkerTQ.__init__"): "e25063aedd2f1206",
    (LOOP_TQ, "AgentLoopManagerTQ.__init__"): "e40b705ae58aab17",
    (LOOP_TQ, "AgentLoopManagerTQ.create"): "faf8b0cbda78e0f3",
    (LOOP, "AgentLoopManager.__init__"): "a03239a91e7ec530",
    (LOOP, "AgentLoopManager._init_agent_loop_workers"): "b06352640ed175cb",
    (LOOP, "AgentLoopBase.__init__"): "7ea60e26f89319fe",
    (REWARD_LOOP, "RewardLoopManager.__init__"): "392bc6b853c319a5",
    (REWARD_LOOP, "RewardLoopManager.reward_loop_worker_handles"): "77b970741ab27b43",
    (REWARD_MODEL, "RewardModelManager._initialize_llm_servers"): "2634ff9b9e4d697a",
    (REWARD_MODEL, "RewardModelManager._initialize_router"): "a6e09bbc3d2c8f96",
    # Write and read what Megatron's workers hold; that a run resumes is tested by whole runs (tests/e2e).
    (BASE, "PPOTrainer._save_checkpoint"): "734ffe28938a8417",
    (BASE, "PPOTrainer._load_checkpoint"): "647bf1b4ad9b8445",
    # Send rows to Ray's actors, or start tasks in the background whose errors go to a log.
    (LOOP_TQ, "AgentLoopWorkerTQ.generate_sequences"): "57f03918b11325f0",
    (LOOP_TQ, "AgentLoopWorkerTQ._run_prompt"): "66f467d68584aca2",
    (LOOP_TQ, "AgentLoopManagerTQ.generate_sequences"): "5372920add6e81ff",
    # Ours runs instead of it, which is what to compare.
    (BASE, "PPOTrainer._next_train_batch"): "d3dcf86abf20b03a",
    (BASE, "PPOTrainer.fit"): "742d184125981a8a",
}


def method_node(file: str, dotted: str) -> ast.AST:
    """The syntax tree of a method in one of verl's files."""
    spec = importlib.util.find_spec("verl")
    assert spec is not None and spec.submodule_search_locations
    node: ast.AST = ast.parse((Path(next(iter(spec.submodule_search_locations))) / file).read_text(encoding="utf-8"))
    for name in dotted.split("."):
        kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        node = next(n for n in ast.iter_child_nodes(node) if isinstance(n, kinds) and n.name == name)
    return node


def method_digest(file: str, dotted: str) -> str:
    return hashlib.sha256(ast.dump(method_node(file, dotted)).encode()).hexdigest()[:16]


def test_verl_is_the_version_that_was_read() -> None:
    assert importlib.metadata.version("verl") == VERL_VERSION


@pytest.mark.parametrize(("file", "method"), CONTRACTS, ids=lambda value: value.rsplit("/", 1)[-1])
def test_a_method_that_we_rely_on_is_unchanged(file: str, method: str) -> None:
    assert method_digest(file, method) == CONTRACTS[file, method], (
        f"verl/{file}: {method} is not that of verl {VERL_VERSION}; see medserl/training/trainer.py and agent_loop.py"
    )


if __name__ == "__main__":
    for file, method in CONTRACTS:
        print(f'    ({file!r}, "{method}"): "{method_digest(file, method)}",')
