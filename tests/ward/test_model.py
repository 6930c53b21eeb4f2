"""The shipped model is what its recipe says, and the warm start makes such a model."""

import json
from pathlib import Path

import pytest

from medserl.ward import MODEL_DIR, model_dir, ward_notes
from medserl.ward.table import load_table

RECIPE = json.loads((MODEL_DIR / "recipe.json").read_text(encoding="utf-8"))


def file_hash(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_shipped_files_are_those_of_the_recipe() -> None:
    assert RECIPE["weights_sha256"] == file_hash(MODEL_DIR / "model.safetensors")
    assert RECIPE["tokenizer_sha256"] == file_hash(MODEL_DIR / "tokenizer.json")
    assert RECIPE["table_sha256"] == load_table().sha256, "the table changed: make the model anew (docs/ward-model.md)"


def test_prompts_are_those_that_the_model_learnt() -> None:
    from medserl.ward.demonstrations import prompts_sha256

    assert RECIPE["prompts_sha256"] == prompts_sha256(), "the prompts changed: make the model anew (docs/ward-model.md)"


def test_the_recipe_is_the_shipped_configuration() -> None:
    from omegaconf import OmegaConf

    from medserl.config.load import load_sft_config, sft_settings
    from medserl.config.plugins import resolved_source
    from medserl.config.sft_settings import SftSettings

    now = sft_settings(load_sft_config("sft_embedded"))
    # A setting that came after the model was made must stand at its default, which is what the run had.
    recorded = {**RECIPE["settings"]["game"], "run_dir": now.run_dir}
    then = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SftSettings), recorded))
    assert isinstance(then, SftSettings)
    then.notes.source = resolved_source(then.notes)
    assert then == now


def test_shipped_files_are_small_and_shaped_for_parallel_layouts() -> None:
    assert model_dir() == MODEL_DIR
    assert sum(path.stat().st_size for path in MODEL_DIR.iterdir()) < 4_000_000
    config = json.loads((MODEL_DIR / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert config["tie_word_embeddings"] is True
    for key in ("num_attention_heads", "num_key_value_heads", "num_hidden_layers", "vocab_size", "intermediate_size"):
        assert config[key] % 2 == 0, key


def test_recipe_measured_a_playable_and_improvable_model() -> None:
    measured = RECIPE["measured"]
    assert measured["notes"] >= 200
    for split in ("validation", "test_heldout"):
        for way in ("greedy", "sampled"):
            assert measured[split][way]["assessor"]["parse_rate"] > 0.95
    injector = {way: measured["validation"][way]["injector"]["vcf_acceptance_rate"] for way in ("greedy", "sampled")}
    assert injector["greedy"] >= 0.70 and injector["sampled"] >= 0.70
    assert 0.60 <= measured["validation"]["greedy"]["assessor"]["balanced_accuracy"] <= 0.68
    assert measured["validation"]["mean_min_p"] > 0.05


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_shipped_model_loads_and_plays() -> None:
    from medserl.game import Mode, apply_vcf, load_prompt_set
    from medserl.game.parse import InjectorEdit, parse_assessor, parse_edit
    from medserl.ward.player import Player

    player = Player.load(MODEL_DIR)
    assert len(player.tokenizer) == player.model.config.vocab_size
    assert player.model.get_input_embeddings().weight.shape[0] == len(player.tokenizer)
    notes = ward_notes("test", 40, 0)
    prompts = load_prompt_set("ward")
    replies = player.answer([prompts.injector(note.text, Mode.ERROR) for note in notes])
    edits = [parse_edit(reply, note.text) for note, reply in zip(notes, replies, strict=True)]
    passed = [isinstance(edit, InjectorEdit) and apply_vcf(note.text, edit.modified).passed
              for note, edit in zip(notes, edits, strict=True)]  # fmt: skip
    assert sum(passed) >= 0.75 * len(notes)  # 40 notes: two to three standard errors below the recipe's figure
    answers = [parse_assessor(reply) for reply in player.answer([prompts.assessor(note.text) for note in notes])]
    assert sum(answer is not None for answer in answers) >= 0.95 * len(notes)


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_wired_heads_look_where_copying_needs_them_to() -> None:
    """Before any training: one token back in layer 0, and behind the token's last occurrence in layer 1."""
    import torch
    from transformers import PreTrainedTokenizerFast

    from medserl.ward.untrained import make_model

    model = make_model(PreTrainedTokenizerFast.from_pretrained(MODEL_DIR), 1)
    model.set_attn_implementation("eager")
    period = 20
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(300, 1700, (8, period), generator=generator).repeat(1, 3)
    with torch.inference_mode():
        maps = model(input_ids=words, output_attentions=True).attentions

    def attention(layer: int, head: int, back: int) -> float:
        return float(torch.diagonal(maps[layer][:, head], -back, 1, 2)[:, 5:].mean())

    assert attention(0, 0, back=1) > 0.9
    assert attention(1, 0, back=period - 1) > 3 * attention(1, 2, back=period - 1)


@pytest.mark.engine
def test_the_same_seed_gives_the_same_untrained_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the steps that sharpen the copying heads, in bits; tests/e2e has the steps of the warm start."""
    import torch
    from transformers import PreTrainedTokenizerFast

    from medserl.ward import untrained

    monkeypatch.setattr(untrained, "_COPY_STEPS", 2)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(MODEL_DIR)
    models = {}
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        models[name] = untrained.make_model(tokenizer, seed)
        untrained.practise_copying(models[name], tokenizer, seed)
    one, same, other = (model.state_dict() for model in models.values())
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.engine
def test_model_too_narrow_to_wire_is_refused() -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from medserl.ward.wiring import wire_copying_heads

    config = Qwen3Config(vocab_size=64, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, head_dim=32)
    with pytest.raises(ValueError, match="too few to wire"):
        wire_copying_heads(Qwen3ForCausalLM(config), 1)
