"""A model directory that is damaged, or does not fit itself, is told before anything starts."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from medserl.config.load import load_config
from medserl.errors import ConfigError, all_told
from medserl.planning.shapes import check_divides, shape_of
from medserl.preflight.checks import check_lengths
from medserl.preflight.model_files import check_files, read_model_config
from medserl.ward import model_dir

KEY = "actor_rollout_ref.model.path"
WEIGHTS = "model.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_dir(), tmp_path / "model"))


def look(path: Path, tp: int = 1) -> dict[str, Any]:
    with all_told() as found:
        config = read_model_config(path, KEY)
        check_files(path, KEY, config, found)
        check_divides(shape_of(config, KEY), tp, 1, 1)
    check_lengths(load_config("embedded"), config)
    return config


def refused(path: Path, tp: int = 1) -> str:
    with pytest.raises(ConfigError) as error:
        look(path, tp)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_shipped_model_is_whole(model: Path) -> None:
    look(model)
    look(model, tp=2)


@pytest.mark.parametrize("harm", ["empty", "cut", "longer", "garbage", "pointer", "folder", "bin", "shard", "index"])
def test_damaged_weights(model: Path, harm: str) -> None:
    file = model / WEIGHTS
    whole = file.read_bytes()
    if harm == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    elif harm == "longer":
        file.write_bytes(whole + b"x")
    elif harm == "garbage":
        file.write_bytes(bytes(range(256)) * 400)
    elif harm == "pointer":
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1235824\n")
    elif harm in ("folder", "bin"):
        file.unlink()
        file.mkdir() if harm == "folder" else (model / "pytorch_model.bin").write_bytes(whole)
    elif harm == "shard":
        file.rename(model / "model-00001-of-00002.safetensors")
        index = {"metadata": {}, "weight_map": {"model.embed_tokens.weight": "model-00002-of-00002.safetensors"}}
        (model / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    elif harm == "index":
        (model / f"{WEIGHTS}.index.json").write_text("[]")
    else:
        file.write_bytes(b"")
    message = refused(model)
    assert message.startswith(f"{KEY}: {model}")
    assert harm not in ("folder", "bin") or "weights" in message


def test_any_cut_is_seen(model: Path) -> None:
    file = model / WEIGHTS
    whole = file.read_bytes()
    for length in (1, 7, 8, 9, 100, len(whole) // 3, len(whole) - 1):
        file.write_bytes(whole[:length])
        refused(model)


def test_weights_in_several_files(model: Path) -> None:
    import struct

    whole = (model / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    header.pop("__metadata__", None)
    (model / WEIGHTS).unlink()
    names, files = sorted(header), {}
    for number, part in enumerate((names[::2], names[1::2])):
        own, data = {}, b""
        for name in part:
            begin, end = header[name]["data_offsets"]
            piece = whole[8 + length + begin : 8 + length + end]
            own[name] = {**header[name], "data_offsets": [len(data), len(data) + len(piece)]}
            data += piece
            files[name] = f"model-{number}.safetensors"
        text = json.dumps(own).encode()
        (model / f"model-{number}.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (model / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": files}))
    look(model)
    (model / "model-1.safetensors").unlink()
    assert "lacks model-1.safetensors" in refused(model)
