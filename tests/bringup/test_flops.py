"""Model FLOPs and peaks, which MFU is made of; and lengths, which batches are made of."""

import ast
import sys
from pathlib import Path

import pytest

from medserl.bringup.flops import PARAMETERS, QWEN3_4B, peak, training_flops
from medserl.planning.shapes import find_shape

PACKAGE = Path(__file__).parents[2] / "medserl" / "bringup"


def test_flops_are_six_per_parameter_and_token_and_a_little_attention() -> None:
    short = training_flops(QWEN3_4B, [1] * 1000)
    assert short == pytest.approx(6 * PARAMETERS * 1000, rel=0.001)
    long = training_flops(QWEN3_4B, [1000])
    assert 1.0 < long / short < 1.05
    assert training_flops(QWEN3_4B, [1000, 1000]) == pytest.approx(2 * long)


def test_attention_is_counted_under_its_mask() -> None:
    """Two products per pair of tokens, head and element, forwards; half of the pairs of a sequence."""
    difference = training_flops(QWEN3_4B, [2000]) - 2 * training_flops(QWEN3_4B, [1000])
    pairs = 2000 * 2001 / 2 - 2 * 1000 * 1001 / 2
    assert difference == pytest.approx(3 * 36 * 32 * 128 * 4 * pairs)


def test_the_count_of_qwen3_4b_by_hand() -> None:
    """Not by the code's own shapes: the numbers are Qwen3-4B's config.json, multiplied out."""
    attention = 2 * 2560 * 4096 + 2 * 2560 * 1024  # queries and output, keys and values
    assert attention == 26_214_400
    mlp = 3 * 2560 * 9728
    assert mlp == 74_711_040
    matrices = 36 * 100_925_440 + 151_936 * 2560
    assert matrices == 4_022_272_000
    # 1 000 tokens: 6 N each, and 3 * 4 * 36 layers * 32 heads * 128 for each of 500 500 pairs.
    assert training_flops(QWEN3_4B, [1000]) == 24_133_632_000_000 + 885_620_736_000
    # PaLM counts every pair of tokens: 12 L H Q T a token.
    palm = 6 * matrices + 12 * 36 * 32 * 128 * 1000
    assert training_flops(QWEN3_4B, [1000]) / 1000 == pytest.approx(palm - 12 * 36 * 32 * 128 * 499.5)


@pytest.mark.parametrize(
    ("name", "flops"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA A100-SXM4-40GB MIG 7g.40gb", None),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA A100-PCIE-40GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40", None),
        ("NVIDIA Something 9000", None),
        ("CPU", None),
    ],
)
def test_the_peak_of_a_device_is_known_or_nothing_is_claimed(name: str, flops: float | None) -> None:
    assert peak(name) == flops


def test_batches_have_the_tokens_that_were_asked_for_in_sequences_of_several_lengths(tmp_path: Path) -> None:
    from medserl.bringup.engine import LONGEST, TOKENS, fill_vocabulary, lengths
    from medserl.ward import model_dir

    for device, tokens in TOKENS.items():
        for total in (tokens, tokens // 2):
            sizes = lengths(total, LONGEST[device])
            assert sum(sizes) == total and max(sizes) <= LONGEST[device] and len(set(sizes)) > 3
    file = tmp_path / "tokenizer.json"
    file.write_text((model_dir() / "tokenizer.json").read_text())
    fill_vocabulary(file, 2000)
    from tokenizers import Tokenizer

    before, after = Tokenizer.from_file(str(model_dir() / "tokenizer.json")), Tokenizer.from_file(str(file))
    assert after.get_vocab_size() == 2000
    assert after.encode("<|im_start|>user\nfever").ids == before.encode("<|im_start|>user\nfever").ids


def test_the_training_that_measures_the_transfer_fits_what_it_is_for() -> None:
    """The start itself asks this, before it does anything: one H100, and a host of 128 GiB."""
    from medserl.bringup.rounds import CONFIGURATIONS, ON_A_GPU, TRANSFER_ONLY
    from medserl.config.load import load_config
    from medserl.planning.fits import check_fits
    from medserl.planning.gpus import find_gpu
    from medserl.planning.job import job_of
    from medserl.planning.memory import GIB, UPDATE, need_of

    config = load_config(CONFIGURATIONS["cuda"], [*TRANSFER_ONLY, *ON_A_GPU])
    assert config.trainer.critic_warmup > config.medserl.max_rounds and not config.algorithm.use_kl_in_reward
    job, shape, gpu = job_of(config), find_shape("qwen3-4b", "test"), find_gpu("h100-80gb").memory
    check_fits(job, need_of(job, shape, gpu), gpu, 128 * GIB, ("GPU", "host"))
    assert need_of(job, shape, gpu).fullest.total < 0.8 * gpu
    # The buffer takes the greatest tensor, or verl refuses to send it.
    assert (
        config.actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes * 2**20 > 2 * shape.embedding
    )
    trained = job_of(load_config(CONFIGURATIONS["cuda"], [*TRANSFER_ONLY, *ON_A_GPU, "trainer.critic_warmup=2"]))
    assert need_of(trained, shape, gpu).phase(UPDATE).total > gpu
    assert load_config(CONFIGURATIONS["cpu"], TRANSFER_ONLY).trainer.save_freq == -1


# Modules of (a) to (d), and what they may import by the first import statement that runs: a machine may have no more.
FOR_ALL = {"torch", "megatron", "mbridge", "verl", "tensordict", "transformers", "omegaconf", "transformer_engine"}
NO_VLLM = ("kernels", "attention", "shape", "engine", "checkpoint", "flops")


@pytest.mark.parametrize("name", NO_VLLM)
def test_the_first_checks_need_no_more_than_the_trainer(name: str) -> None:
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{name}.py").read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    assert found - set(sys.stdlib_module_names) - {"medserl"} <= FOR_ALL | ({"vllm"} if name == "kernels" else set())


@pytest.mark.parametrize("name", ["checks", "runner", "child", "machine", "table", "flops"])
def test_the_parent_imports_no_torch(name: str) -> None:
    tree = ast.parse((PACKAGE / f"{name}.py").read_text())
    tops = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    tops |= {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    assert not {top.partition(".")[0] for top in tops} & {"torch", "verl", "vllm", "megatron", "ray"}


def test_the_trainers_packages_are_what_verls_engines_import() -> None:
    """A machine that has Megatron and verl alone cannot import Megatron's engine: FSDP's is imported beside it."""
    import importlib.util

    from medserl.bringup.checks import TRAINER

    spec = importlib.util.find_spec("verl")
    assert spec is not None and spec.origin is not None
    engines = Path(spec.origin).parent / "workers" / "engine"
    assert "from .fsdp import " in (engines / "__init__.py").read_text()
    tops = {
        (node.module or "").partition(".")[0]
        if isinstance(node, ast.ImportFrom)
        else node.names[0].name.partition(".")[0]
        for file in ("fsdp/transformer_impl.py", "megatron/transformer_impl.py", "base.py")
        for node in ast.parse((engines / file).read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0)
    }
    named = {package.partition(".")[0] for package in TRAINER}
    assert tops - set(sys.stdlib_module_names) <= named | {"omegaconf"}
