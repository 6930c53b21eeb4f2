"""What GPUs have, by the makers' data sheets. No torch.

Memory is what nvidia-smi reports as the total (modal-client's pull request 2797 on GitHub lists most of them). FLOP/s
are dense bfloat16 with float32 accumulation (data sheets print twice as much, "with sparsity", from Ampere on). Links
are bytes per second in one direction, half of what is printed.

No maker's sheet was opened when this table was made. Tables of others print the same FLOP/s and memory bandwidth for
what is marked ``compared`` (for b200-180gb some say 8.0 TB/s); the other rows are from memory of the sheets that they
name, and `medserl plan` says that of them.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from difflib import get_close_matches

from medserl.errors import ConfigError

MIB = 2**20


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU."""

    name: str
    mib: int
    """Memory, MiB."""
    flops: float
    """Peak of dense bfloat16, FLOP/s."""
    bandwidth: float
    """Peak of its memory, bytes/s."""
    link: float
    """To each other GPU of a node, bytes/s in one direction: NVLink, or PCIe where there is none."""
    host: float
    """To the host's memory by PCIe, bytes/s in one direction."""
    source: str
    compared: bool = False
    """Whether others print the same FLOP/s and bandwidth."""

    @property
    def told(self) -> str:
        """The source, and how far it can be trusted."""
        return self.source if self.compared else f"{self.source}, from memory: to be checked"

    @property
    def memory(self) -> int:
        """Bytes."""
        return self.mib * MIB


_PCIE4, _PCIE5 = 32e9, 64e9
_TABLE = (
    Gpu(
        "b200-180gb",
        183359,
        2250e12,
        7.7e12,
        900e9,
        _PCIE5,
        "NVIDIA DGX B200 data sheet; 7680 bits, 3996 MHz",
        True,
    ),
    Gpu("h200-141gb", 143771, 989e12, 4.8e12, 450e9, _PCIE5, "NVIDIA H200 data sheet, SXM"),
    Gpu("h100-80gb", 81559, 989e12, 3.35e12, 450e9, _PCIE5, "NVIDIA H100 data sheet, SXM5", True),
    Gpu("h100-nvl-94gb", 95830, 835e12, 3.9e12, 300e9, _PCIE5, "NVIDIA H100 NVL product brief; NVLink joins pairs"),
    Gpu("h100-pcie-80gb", 81559, 756e12, 2.0e12, _PCIE5, _PCIE5, "NVIDIA H100 data sheet, PCIe, without bridges"),
    Gpu("a100-80gb", 81920, 312e12, 2.039e12, 300e9, _PCIE4, "NVIDIA A100 data sheet, SXM4", True),
    Gpu("a100-40gb", 40960, 312e12, 1.555e12, 300e9, _PCIE4, "NVIDIA A100 data sheet, SXM4"),
    Gpu("l40s-48gb", 46068, 362e12, 0.864e12, _PCIE4, _PCIE4, "NVIDIA L40S data sheet", True),
    Gpu("a6000-48gb", 49140, 155e12, 0.768e12, _PCIE4, _PCIE4, "NVIDIA RTX A6000 data sheet"),
    Gpu("rtx4090-24gb", 24564, 165e12, 1.008e12, _PCIE4, _PCIE4, "NVIDIA Ada GPU architecture paper, float32 sums"),
    Gpu("a10-24gb", 23028, 125e12, 0.6e12, _PCIE4, _PCIE4, "NVIDIA A10 data sheet"),
    Gpu("l4-24gb", 23034, 121e12, 0.3e12, _PCIE4, _PCIE4, "NVIDIA L4 data sheet"),
)
GPUS = {gpu.name: gpu for gpu in _TABLE}


def gpus_of_device(device: str) -> list[Gpu]:
    """What a driver may mean by a name such as "NVIDIA H100 80GB HBM3": none, one, or one of several sizes. A part of a
    GPU ("NVIDIA H100 80GB HBM3 MIG 1g.10gb") is none of them: it has a share of the FLOP/s and of the bandwidth.

    Args:
        device: As nvidia-smi and CUDA name it.
    """
    words = re.findall(r"[a-z0-9]+", device.lower())
    if "mig" in words:
        return []
    words += [left + right for left, right in itertools.pairwise(words)]  # "RTX 4090"
    fitting = [name for name in GPUS if set(name.rpartition("-")[0].split("-")) <= set(words)]
    longest = max((len(name.rpartition("-")[0]) for name in fitting), default=0)
    kinds = [name for name in fitting if len(name.rpartition("-")[0]) == longest]
    sized = [name for name in kinds if name.rpartition("-")[2] in words] or kinds
    return [GPUS[name] for name in sized]


def _is_as_described(gpu: Gpu, wanted: str) -> bool:
    """Whether nothing in a name contradicts the table: another memory, or PCIe where the link is not that."""
    sizes = set(re.findall(r"\b\d+gb?\b", wanted))
    return sizes <= {gpu.name.rpartition("-")[2]} and ("pcie" in wanted) is ("pcie" in gpu.name)


def find_gpu(name: str) -> Gpu:
    """A GPU by its name, by the beginning of one that has no other meaning, or as nvidia-smi calls it.

    Raises:
        ConfigError: unknown or ambiguous; the sentence lists what is known and suggests the nearest.
    """
    wanted = name.strip().lower().replace("_", "-").replace(" ", "-").removeprefix("nvidia-")
    if wanted in GPUS:
        return GPUS[wanted]
    found = [known for known in GPUS if wanted and known.startswith(f"{wanted}-")]
    found = found or [gpu.name for gpu in gpus_of_device(name) if _is_as_described(gpu, wanted)]
    if len(found) == 1:
        return GPUS[found[0]]
    if found:
        raise ConfigError(f"--gpu {name}: could be {', '.join(sorted(found))}; give one of them")
    kinds = {known.rpartition("-")[0]: known for known in reversed(GPUS)} | {known: known for known in GPUS}
    near = get_close_matches(wanted, kinds, 1, 0.5)
    hint = f"did you mean {kinds[near[0]]}? " if near else ""
    raise ConfigError(f"--gpu {name or repr(name)}: is not known; {hint}known: {', '.join(sorted(GPUS))}")
