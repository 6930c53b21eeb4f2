"""Put a finished warm start into the package, with its recipe: ``python -m medserl.ward.ship RUN_DIR``."""

from __future__ import annotations

import argparse
import json
import platform
import shutil
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from medserl.files import sha256_of, whole_folder
from medserl.provenance import package_versions
from medserl.ward import MODEL_DIR
from medserl.ward.demonstrations import prompts_sha256
from medserl.ward.evaluate import Player, evaluate, token_lengths
from medserl.ward.generator import ward_notes
from medserl.ward.table import load_table

RECIPE = "recipe.json"
SECTIONS = ("medserl", "model", "optim")
EVAL_SEED = 1


def recipe(run_dir: Path, eval_count: int) -> dict[str, Any]:
    """What made the model in ``run_dir/model``, hashes of what it depends on, and what it measures."""
    model = run_dir / "model"
    config = OmegaConf.load(run_dir / "config.yaml")
    chosen: dict[str, Any] = {
        name: OmegaConf.to_container(config[name]) for name in SECTIONS if OmegaConf.select(config, name) is not None
    }
    chosen["medserl"].pop("run_dir")
    engine = {key: config.engine[f"{key}_model_parallel_size"] for key in ("tensor", "pipeline")}
    player = Player.load(model)
    splits = ("validation", "test_heldout")
    notes = {split: ward_notes(split, eval_count, EVAL_SEED) for split in splits}
    return {
        "command": "medserl sft",
        "settings": {"game": chosen["medserl"], "model": chosen["model"]["path"], "optim": chosen["optim"]},
        "parallel": engine,
        "table_sha256": load_table().sha256,
        "prompts_sha256": prompts_sha256(),
        "weights_sha256": sha256_of(model / "model.safetensors"),
        "tokenizer_sha256": sha256_of(model / "tokenizer.json"),
        "parameters": player.model.num_parameters(),
        "versions": {"python": platform.python_version(), **package_versions()},
        "measured": {
            "notes": eval_count,
            "seed": EVAL_SEED,
            **{split: evaluate(player, notes[split], EVAL_SEED) for split in splits},
            "tokens": token_lengths(player, notes["validation"]),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path, help="run directory of a finished `medserl sft`")
    parser.add_argument("--out", type=Path, default=MODEL_DIR, help="directory to replace (default: the package's)")
    parser.add_argument("--eval-notes", type=int, default=300)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    written = recipe(arguments.run_dir, arguments.eval_notes)
    out: Path = arguments.out.resolve()
    with whole_folder(out, overwrite=True) as made:
        leave = shutil.ignore_patterns("medserl_export.json")
        shutil.copytree(arguments.run_dir / "model", made, ignore=leave, dirs_exist_ok=True)
        (made / RECIPE).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
        for file in made.iterdir():
            file.chmod(0o644)
        made.chmod(0o755)
    print(json.dumps(written["measured"], indent=2))


if __name__ == "__main__":
    main()
