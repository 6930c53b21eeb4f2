"""mbridge's bridges between Hugging Face and Megatron, mended for every family that MedSeRL trains. Imports mbridge.

Upstream: mbridge 0.15.1, with transformers 5.10; tests/cpu/test_engine_parity.py compares each family with Hugging Face
and tests/test_families.py fails when one of these places changes.

* mbridge/models/llama.py, LLaMABridge: a tied model's output layer is looked for as ``lm_head.weight``, which its
  files do not have; only the bridge of Qwen2 knows tying.
* mbridge/models/qwen2.py, Qwen2Bridge._adjust_mapping_for_shared_weights: tying is written into a table of the class,
  so that the next model of the process is tied too.
* mbridge/core/llm_bridge.py and models/llama.py, _get_gptmodel_args: transformers 5 keeps the scaling of rotary
  positions in ``rope_parameters``, where it is not looked for: long contexts would be trained unscaled, silently.
* mbridge/core/safetensor_io.py, save_hf_weight: a shard is written when all tensors that the index names are there. A
  tied model whose index names ``lm_head.weight`` too would never get that shard.
"""

from __future__ import annotations

from typing import Any

from mbridge.core import bridge as registry
from mbridge.core import register_model
from mbridge.models.llama import LLaMABridge
from mbridge.models.qwen2 import Qwen2Bridge
from mbridge.models.qwen3 import Qwen3Bridge

from medserl.families import FAMILIES, rope

UPSTREAM = {"qwen3": Qwen3Bridge, "qwen2": Qwen2Bridge, "llama": LLaMABridge}
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


class MendedBridge:
    """What differs from mbridge's bridge of a family, whichever it is; stands before it among the bases."""

    hf_config: Any
    _DIRECT_MAPPING: dict[str, str]

    @property
    def tied(self) -> bool:
        """Whether the output layer is the embedding."""
        return bool(getattr(self.hf_config, "tie_word_embeddings", False))

    def _adjust_mapping_for_shared_weights(self) -> None:
        self._DIRECT_MAPPING = dict(type(self)._DIRECT_MAPPING)
        if self.tied:
            self._DIRECT_MAPPING["output_layer.weight"] = EMBEDDING

    def _get_hf_shared_weight_keys(self) -> list[str]:
        return [EMBEDDING] if self.tied else []

    def _get_safetensor_io(self, weights_path: str) -> Any:
        files = super()._get_safetensor_io(weights_path)  # type: ignore[misc]
        if self.tied:
            files.index.pop(HEAD, None)  # the same mapping as origin_index["weight_map"], which is saved again
        return files

    def _get_gptmodel_args(self) -> dict[str, Any]:
        """Arguments of megatron's ``GPTModel``; what cannot be done is refused before a start (`families.obstacle`)."""
        config = self.hf_config.to_dict()
        name, found = rope(config)
        arguments = {
            "vocab_size": self.hf_config.vocab_size,
            "max_sequence_length": self.hf_config.max_position_embeddings,
            "position_embedding_type": "rope",
            "rotary_base": found.get("rope_theta") or config["rope_theta"],
        }
        if name == "linear":
            arguments["seq_len_interpolation_factor"] = found["factor"]
        elif name == "llama3":
            arguments |= {"rope_scaling": True, "rope_scaling_factor": found["factor"]}
        return arguments


def register(layers: type | None = None) -> None:
    """Have mbridge use mended bridges for the known families.

    Args:
        layers: A class that says which layers Megatron builds; it stands before all others among the bases, and
            replaces what was registered without one.
    """
    for family in FAMILIES.values():
        known = registry._MODEL_REGISTRY.get(family.model_type)
        if layers is None and known is not None and issubclass(known, MendedBridge):
            continue
        upstream = UPSTREAM[family.model_type]
        bases = (MendedBridge, upstream) if layers is None else (layers, MendedBridge, upstream)
        register_model(family.model_type)(type(f"Mended{upstream.__name__}", bases, {}))
