"""The way of one note, as CONTRIBUTING.md tells it, leads through functions that exist."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

MENTION = re.compile(r"`([\w/]+\.py)(?::(\w+))?`")


def mentions(root: Path) -> list[tuple[str, str]]:
    """Files and names in code format, in the order of the text; the name is empty where only a file is meant."""
    return MENTION.findall((root / "CONTRIBUTING.md").read_text())


def place(root: Path, path: str) -> Path:
    """The file: below `medserl/`, or from the top."""
    below = root / "medserl" / path
    return below if below.exists() else root / path


def names_of(source: str) -> set[str]:
    """Functions, classes, methods and what a module assigns."""
    tree = ast.parse(source)
    assigned = {
        target.id
        for node in tree.body
        for target in (node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)])
        if isinstance(target, ast.Name)
    }
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return assigned | {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def test_every_file_and_name_exists(root: Path) -> None:
    lost = []
    for path, name in mentions(root):
        if path in ("trainer_sync.py", "verl/trainer/ppo/v1/trainer_base.py"):  # verl's
            continue
        file = place(root, path)
        if not file.is_file() or (name and name not in names_of(file.read_text())):
            lost.append(f"{path}:{name}")
    assert not lost


@pytest.mark.parametrize(
    "room", ["data", "game", "training", "report", "run"], ids=lambda room: f"leads through {room}"
)
def test_the_way_of_a_note_leads_through_the_rooms(root: Path, room: str) -> None:
    assert [name for path, name in mentions(root) if name and path.startswith(f"{room}/")]


def test_verl_still_has_what_it_is_said_to_have(root: Path) -> None:
    spec = importlib.util.find_spec("verl")  # not imported: it would bring torch
    if spec is None or spec.origin is None:
        pytest.skip("verl is not installed")
    folder = Path(spec.origin).parent / "trainer/ppo/v1"
    names = names_of((folder / "trainer_base.py").read_text()) | names_of((folder / "trainer_sync.py").read_text())
    assert {"_compute_old_log_prob", "_compute_ref_log_prob", "on_step_end"} <= names


# Who uses what on the way, by the numbers of the text; helpers between two functions are left out there.
WAY = {
    1: [
        ("data/rounds.py:training_notes", "note_source"),
        ("game/sources.py:training", "load_notes"),
        ("game/load.py:load_notes", "load_notes_with_report"),
        ("game/load.py:add", "Note"),
        ("ward/source.py:_notes", "ward_notes"),
        ("data/rounds.py:RoundSource", "NoteStream"),
    ],
    2: [
        ("training/api.py:fit", "sample_batch"),
        ("training/api.py:sample_batch", "next_round"),
        ("data/rounds.py:next_round", "next_batch"),
        ("data/rounds.py:next_round", "next_labelled"),
    ],
    3: [
        ("training/api.py:fit", "training_step"),
        ("training/trainer.py:training_step", "_tasks"),
        ("training/trainer.py:_tasks", "NoteTask"),
        ("training/trainer.py:_next_train_batch", "tasks"),
        ("training/agent_loop.py:generate_sequences", "generate_sequences"),
    ],
    4: [
        ("training/agent_loop.py:SelfPlayAgentLoop", "play_game"),
        ("training/agent_loop.py:run", "play_game"),
        ("training/agent_loop.py:run", "assess_labelled"),
        ("training/agent_loop.py:run", "_generate"),
        ("training/agent_loop.py:_generate", "Reply"),
        ("game/play.py:play_game", "injector"),
        ("game/play.py:play_game", "attempt"),
        ("game/play.py:attempt", "parse"),
        ("game/play.py:parse", "parse_edit"),
        ("game/play.py:attempt", "vcf"),
        ("game/play.py:vcf", "apply_vcf"),
        ("game/play.py:play_game", "arule"),
        ("game/play.py:play_game", "label"),
        ("game/play.py:play_game", "assessor"),
        ("game/play.py:play_game", "_ask_assessor"),
        ("game/play.py:_ask_assessor", "read_answer"),
        ("game/play.py:play_game", "rewards"),
        ("game/play.py:_with_trajectories", "Trajectory"),
    ],
    5: [
        ("training/agent_loop.py:run", "_outputs"),
        ("training/agent_loop.py:_outputs", "encode_game"),
        ("training/agent_loop.py:_agent_loop_postprocess", "_agent_loop_postprocess"),
    ],
    6: [
        ("training/trainer.py:_balance_batch", "_collect_games"),
        ("training/trainer.py:_collect_games", "decode_game"),
        ("training/trainer.py:_balance_batch", "choose"),
        ("training/rows.py:choose", "balance_modes"),
        ("training/rows.py:choose", "balance_labels"),
        ("training/trainer.py:_balance_batch", "_deal"),
        ("training/trainer.py:_deal", "deal"),
    ],
    7: [("training/critic.py:_compute_values", "_compute_values")],
    8: [
        ("training/trainer.py:_compute_advantage", "_compute_returns"),
        ("training/trainer.py:_compute_advantage", "_advantages_by_role"),
        ("training/trainer.py:_advantages_by_role", "advantages"),
        ("training/advantage.py:role_advantages", "RoleAdvantages"),
    ],
    9: [("training/trainer.py:_update_actor", "_update_actor")],
    11: [
        ("training/api.py:training_step", "with_game_metrics"),
        ("report/round_metrics.py:with_game_metrics", "round_metrics"),
        ("training/api.py:training_step", "validate"),
        ("training/api.py:training_step", "round"),
        ("training/api.py:training_step", "save"),
        ("training/checkpoints.py:save", "_save_checkpoint"),
        ("training/checkpoints.py:_save_checkpoint", "publish"),
    ],
}


def functions(root: Path, where: str) -> list[ast.AST]:
    file, _, name = where.partition(":")
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    tree = ast.parse(place(root, file).read_text())
    return [node for node in ast.walk(tree) if isinstance(node, kinds) and node.name == name]


def calls(node: ast.AST) -> list[str]:
    """What a function calls or hands on, in the order of the lines."""
    found = [
        (n.lineno, n.col_offset, n.id if isinstance(n, ast.Name) else n.attr)
        for n in ast.walk(node)
        if isinstance(n, ast.Name | ast.Attribute) and isinstance(n.ctx, ast.Load)
    ]
    return [name for _, _, name in sorted(found)]


@pytest.mark.parametrize("step", WAY)
def test_each_function_of_the_way_uses_the_next(root: Path, step: int) -> None:
    for caller, callee in WAY[step]:
        used = [calls(node) for node in functions(root, caller)]
        assert any(callee in names for names in used), f"{caller} no longer uses {callee}: mend the text and this list"


def test_what_happens_in_an_order_is_told_in_that_order(root: Path) -> None:
    [choosing] = functions(root, "training/trainer.py:_balance_batch")
    assert in_order(calls(choosing), "_collect_games", "choose", "_deal")
    [reporting] = functions(root, "training/api.py:training_step")
    assert in_order(calls(reporting), "training_step", "with_game_metrics", "validate", "_log", "round", "save")
    [playing] = functions(root, "game/play.py:play_game")
    assert in_order(calls(playing), "injector", "attempt", "arule", "assessor")


def in_order(names: list[str], *wanted: str) -> bool:
    left = iter(names)
    return all(name in left for name in wanted)


def test_every_function_that_the_text_names_is_in_the_list(root: Path) -> None:
    text = (root / "CONTRIBUTING.md").read_text().partition("## One note")[2].partition("\n## ")[0]
    listed = {name for pairs in WAY.values() for caller, callee in pairs for name in (caller.partition(":")[2], callee)}
    assert {name for _, name in MENTION.findall(text) if name} - listed == set()
