"""mbridge's bridges between Hugging Face and Megatron, mended for every family that MedSeRL trains. Imports mbridge.

Upstream: mbridge 0.15.1, with transformers 5.10; tests/cpu/test_engine_parity.py compares each family with Hugging Face
and tests/test_families.py fails when one of these places changes.

* mbridge/models/llama.py, LLaMABridge: a tied model's output layer is looked for as ``lm_head.weight``, which its
  files do not have; only the bridge of Qwen2 knows tying.
* The same bridge does for Mistral, for which mbridge has none: its layers are a Llama's, and its sliding window is
  refused before a start.
* mbridge/models/qwen2.py, Qwen2Bridge._adjust_mapping_for_shared_weights: tying is written into a table of the class,
  so that the next model of the process is tied too.
* mbridge/core/llm_bridge.py and models/llama.py, _get_gptmodel_args: transformers 5 keeps the scaling of rotary
  positions in ``rope_parameters``, where it is not looked for: long contexts would be trained unscaled, silently.
* mbridge/core/safetensor_io.py, save_hf_weight: a shard is written when all tensors that the index names are there. A
  tied model whose index names ``lm_head.weight`` too would never get that shard.
* mbridge/core/bridge.py, load_weights, and save_hf_weight as above: the value head of a critic is read from
  ``lm_head.weight``, and skipped where that has another shape. The files of a tied model have none, which is an error,
  and no shard is named for it, so that a critic would be saved without its head. verl has untied the configuration by
  then (verl 0.9.1, workers/engine/megatron/transformer_impl.py, MegatronEngine._build_tf_config).
"""

from __future__ import annotations

from typing import Any

from mbridge.core import bridge as registry
from mbridge.core import register_model
from mbridge.models.llama import LLaMABridge
from mbridge.models.qwen2 import Qwen2Bridge
from mbridge.models.qwen3 import Qwen3Bridge

from medserl.families import FAMILIES, rope

VALUES = "output_layer.weight"
"""Megatron's name of the output layer; one row of it makes a critic of the model."""
UPSTREAM = {"qwen3": Qwen3Bridge, "qwen2": Qwen2Bridge, "llama": LLaMABridge, "mistral": LLaMABridge}
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


class MendedBridge:
    """What differs from mbridge's bridge of a family, whichever it is; stands before it among the bases."""

    hf_config: Any
    _DIRECT_MAPPING: dict[str, str]
    loading, headless = False, False

    @property
    def tied(self) -> bool:
        """Whether the output layer is the embedding."""
        return bool(getattr(self.hf_config, "tie_word_embeddings", False))

    def _adjust_mapping_for_shared_weights(self) -> None:
        self._DIRECT_MAPPING = dict(type(self)._DIRECT_MAPPING)
        if self.tied:
            self._DIRECT_MAPPING[VALUES] = EMBEDDING

    def _get_hf_shared_weight_keys(self) -> list[str]:
        return [EMBEDDING] if self.tied else []

    def _get_safetensor_io(self, weights_path: str) -> Any:
        files = super()._get_safetensor_io(weights_path)  # type: ignore[misc]
        self.headless = HEAD not in files.load_hf_weight_names()
        if self.tied:
            files.index.pop(HEAD, None)  # the same mapping as origin_index["weight_map"], which is saved again
        elif files.index:
            files.index.setdefault(HEAD, next(reversed(files.index.values())))
        return files

    def _weight_name_mapping_mcore_local_to_global(self, model: Any, consider_ep: bool = True) -> dict[str, str]:
        names: dict[str, str] = super()._weight_name_mapping_mcore_local_to_global(model, consider_ep)  # type: ignore[misc]
        if self.loading and (head := value_head(model)) is not None:
            head.zero_()  # first values of 0 instead of noise of a reward's size; a critic's own files fill it
            if self.headless:
                names = {name: whole for name, whole in names.items() if not name.endswith(VALUES)}
        return names

    def load_weights(self, *args: Any, **kwargs: Any) -> None:
        """A critic's head begins at zero where the files have none; everything else must be there."""
        self.loading = True
        try:
            super().load_weights(*args, **kwargs)  # type: ignore[misc]
        finally:
            self.loading = False

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


def value_head(model: Any) -> Any:
    """The one row, (1, hidden), that a critic has for an output layer; None in other models and stages."""
    weights = (value for name, value in model.state_dict().items() if name.endswith(VALUES))
    return next((weight for weight in weights if weight.shape[0] == 1), None)


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
