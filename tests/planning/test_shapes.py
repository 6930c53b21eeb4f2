"""Models by name and by config.json: sizes that are published, and one sentence for what is none."""

import json
from pathlib import Path
from typing import Any

import pytest

from medserl.errors import ConfigError
from medserl.planning.gpus import GPUS, find_gpu
from medserl.planning.shapes import KNOWN, check_divides, find_shape, known_shape, shape_of, stage_layers, unserved
from tests.shapes import QWEN3_4B

# As the weight files on the models' pages count them (those of tied models without a second copy of the embedding).
PUBLISHED = {
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3.1-8b": 8_030_261_248,
    "mistral-7b-v0.3": 7_248_023_552,
}
CONFIG = QWEN3_4B | {"max_position_embeddings": 40960}


def test_known_models_have_their_published_sizes() -> None:
    assert {name: find_shape(name, "--model").parameters for name in KNOWN} == PUBLISHED


@pytest.mark.parametrize("name", ["Qwen/Qwen3-4B", "qwen3-4b", "QWEN3-4B", "Qwen/Qwen2.5-7B-Instruct"])
def test_a_publishers_name_is_known(name: str) -> None:
    assert known_shape(name) is not None


def test_a_config_json_describes_the_same_shape(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    for given in (tmp_path, tmp_path / "config.json"):
        found = find_shape(str(given), "--model")
        known = find_shape("qwen3-4b", "--model")
        assert found.parameters == known.parameters and found.stage(2, (18, 18), 1) == known.stage(2, (18, 18), 1)


def test_families_differ_in_biases_and_norms() -> None:
    qwen3 = shape_of(CONFIG, "x")
    qwen2 = shape_of({**CONFIG, "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}, "x")
    untied = {**CONFIG, "architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": False}
    llama = shape_of(untied, "x")
    assert qwen3.layer(1) - qwen3.matrices == 2 * 2560 + 2 * 128
    assert qwen2.layer(1) - qwen2.matrices == 2 * 2560 + (32 + 16) * 128
    assert llama.layer(1) - llama.matrices == 2 * 2560
    assert llama.parameters - qwen3.parameters == 151936 * 2560 - 36 * 2 * 128
    old = {key: value for key, value in untied.items() if key not in ("num_key_value_heads", "head_dim")}
    assert shape_of(old, "x").groups == 32


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"architectures": ["BertForMaskedLM"]}, "describes BertForMaskedLM; MedSeRL plans Qwen3ForCausalLM"),
        ({"architectures": ["Qwen3MoeForCausalLM"]}, "describes Qwen3MoeForCausalLM"),
        ({"architectures": None}, "describes no architecture"),
        ({"architectures": "Qwen3ForCausalLM"}, "describes no architecture"),
        ({"architectures": [3]}, "describes 3; "),
        ({"hidden_size": "2560"}, "hidden_size is '2560', a whole number above 0"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"vocab_size": None}, "vocab_size is missing"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True"),
        ({"num_key_value_heads": 7}, "num_attention_heads 32 cannot be divided by num_key_value_heads 7"),
        ({"head_dim": None, "hidden_size": 2561}, "hidden_size 2561 cannot be divided by num_attention_heads 32"),
        ({"attention_bias": True}, "attention_bias true is not supported in training"),
    ],
)
def test_what_is_no_decoder_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        shape_of({**CONFIG, **changes}, "model/config.json")
    assert sentence in str(error.value) and str(error.value).startswith("model/config.json: ")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not JSON (line 1)"),
        ("[]", "is not a model's configuration"),
        ("\udcff", "is not UTF-8 text"),
        (None, "cannot be read (No such file or directory)"),
    ],
)
def test_a_broken_config_json_is_told(tmp_path: Path, content: str | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError) as error:
        find_shape(str(tmp_path), "--model")
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_model_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no model known by name; did you mean qwen3-4b\? known: qwen3-0.6b, "):
        find_shape("qwen3-4bb", "--model")


@pytest.mark.parametrize(
    ("name", "tp", "pp", "rollout_tp", "sentence"),
    [
        ("qwen3-4b", 3, 1, 1, "num_attention_heads 32 cannot be divided by tensor_model_parallel_size 3; choose one"),
        ("qwen3-4b", 16, 1, 1, "num_key_value_heads 8 cannot be divided by tensor_model_parallel_size 16"),
        ("qwen2.5-1.5b", 4, 1, 1, "num_key_value_heads 2 cannot be divided by tensor_model_parallel_size 4"),
        ("qwen3-4b", 1, 5, 1, "num_hidden_layers 36 cannot be divided by pipeline_model_parallel_size 5; choose one"),
        ("qwen3-4b", 1, 1, 3, "cannot be divided by rollout.tensor_model_parallel_size 3"),
        ("qwen2.5-0.5b", 1, 1, 4, "its 14 heads"),
    ],
)
def test_what_does_not_divide(name: str, tp: int, pp: int, rollout_tp: int, sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_divides(find_shape(name, "--model"), tp, pp, rollout_tp)
    assert sentence in str(error.value)


def test_vllm_copies_heads_that_cannot_be_divided() -> None:
    shape = find_shape("qwen2.5-1.5b", "--model")  # 12 heads, 2 key-value heads
    assert unserved(shape, 4) is None and shape.cache(4) == shape.cache(2) == shape.cache(1) // 2


def test_stages_of_a_pipeline() -> None:
    shape = find_shape("qwen3-4b", "--model")
    assert stage_layers(shape, 4) == (9, 9, 9, 9)
    assert stage_layers(shape, 2, last=17) == (19, 17)
    assert stage_layers(shape, 3, first=12, last=10) == (12, 14, 10)
    assert stage_layers(shape, 8, first=3, last=3) == (3, 5, 5, 5, 5, 5, 5, 3)  # 36 alone is not divided by 8
    refused = ((2, None, 36), (3, 11, None), (1, None, 17), (2, 40, None), (2, 20, 17), (2, None, 0), (2, -1, None))
    for pp, first, last in refused:
        with pytest.raises(
            ConfigError, match=r"36 cannot be dealt to pipeline_model_parallel_size \d with num_layers_in"
        ):
            stage_layers(shape, pp, first, last)
        with pytest.raises(ConfigError, match="cannot be dealt"):
            check_divides(shape, 1, pp, 1, (first, last))
    check_divides(shape, 1, 8, 1, (3, 3))
    with pytest.raises(
        ConfigError, match="36 cannot be divided by pipeline_model_parallel_size 64; choose one of 1, 2"
    ):
        stage_layers(shape, 64)


def test_gpus_by_name() -> None:
    assert find_gpu("H200").name == "h200-141gb" and find_gpu("NVIDIA_B200").name == "b200-180gb"
    as_nvidia_smi_does = {
        "NVIDIA H100 80GB HBM3": "h100-80gb",
        "NVIDIA A100-SXM4-80GB": "a100-80gb",
        "NVIDIA H100 PCIe": "h100-pcie-80gb",
        "NVIDIA GeForce RTX 4090": "rtx4090-24gb",
    }
    assert {name: find_gpu(name).name for name in as_nvidia_smi_does} == as_nvidia_smi_does
    for given, sentence in (
        ("NVIDIA A100-SXM4", "could be a100-40gb, a100-80gb; give one of them"),
        ("NVIDIA A100-PCIE-40GB", "is not known"),  # another link than the table's
        ("h100-64gb", "did you mean h100-80gb?"),
        ("NVIDIA L40", "is not known"),
        ("h100", "could be h100-80gb, h100-nvl-94gb, h100-pcie-80gb; give one of them"),
        ("a100", "could be a100-40gb, a100-80gb"),
        ("h100-80g", "did you mean h100-80gb? known: a10-24gb, "),
        ("h20", "did you mean h200-141gb?"),
        ("", "is not known; known: "),
        ("mi300x", "is not known"),
    ):
        with pytest.raises(ConfigError) as error:
            find_gpu(given)
        assert sentence in str(error.value)


def test_every_gpu_has_plausible_figures_and_a_source() -> None:
    for name, gpu in GPUS.items():
        assert gpu.name == name and gpu.source
        assert gpu.told.endswith("to be checked") is not gpu.compared
        assert abs(gpu.memory / 1e9 - float(name.rpartition("-")[2].removesuffix("gb"))) < 13
        assert 1e14 < gpu.flops < 3e15 and 2e11 < gpu.bandwidth < 1e13 and gpu.host <= gpu.link <= 1e12
