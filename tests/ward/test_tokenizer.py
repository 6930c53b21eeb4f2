"""The ward's tokenizer: lossless for any text, whole words for the ward's, Qwen3's special tokens and template."""

import json

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from medserl.game import Mode, load_prompt_set
from medserl.ward import MODEL_DIR, ward_notes
from medserl.ward.tokenizer import CHAT_TEMPLATE, VOCAB_SIZE, build_tokenizer

TOKENIZER = Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json"))
CONFIG = json.loads((MODEL_DIR / "config.json").read_text(encoding="utf-8"))


def render(messages: list[dict[str, str]], **variables: object) -> str:
    """The template as transformers renders it."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((MODEL_DIR / "chat_template.jinja").read_text(encoding="utf-8"))
    return template.render(messages=messages, **variables)


@given(st.text(max_size=200))
def test_any_text_survives(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids, skip_special_tokens=False) == text


def test_text_far_from_the_ward_survives() -> None:
    text = "Pt. c/o SOB × 3 d;\tSpO₂ 88 %\r\n\r\n  • naïve café — 中文 🩺 <|im_end|> </think> {x}"
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids, skip_special_tokens=False) == text


def test_vocabulary_has_exactly_the_models_size() -> None:
    assert TOKENIZER.get_vocab_size(with_added_tokens=True) == CONFIG["vocab_size"] == VOCAB_SIZE
    assert sorted(TOKENIZER.get_vocab().values()) == list(range(VOCAB_SIZE))
    assert VOCAB_SIZE % 128 == 0


def test_special_tokens_are_single_and_in_the_configuration() -> None:
    for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"):
        assert TOKENIZER.encode(token).tokens == [token]
    assert CONFIG["eos_token_id"] == TOKENIZER.token_to_id("<|im_end|>")
    assert CONFIG["pad_token_id"] == TOKENIZER.token_to_id("<|endoftext|>")
    generation = json.loads((MODEL_DIR / "generation_config.json").read_text(encoding="utf-8"))
    assert generation["eos_token_id"] == CONFIG["eos_token_id"]


def test_words_numbers_and_verdicts_of_the_game_are_whole_tokens() -> None:
    answer = 'final_answer: "INCORRECT"'
    assert len(TOKENIZER.encode(answer).ids) == 5
    assert TOKENIZER.encode(answer).ids[:3] == TOKENIZER.encode('final_answer: "CORRECT"').ids[:3]
    assert TOKENIZER.encode("sentence_id: 3\nnew_sentence: Lasix 40 mg").tokens[0] == "sentence_id"
    assert len(TOKENIZER.encode(" ceftriaxone 40 mg hyperinflation").ids) == 4
    assert len(TOKENIZER.encode(" Started on aspirin.").ids) == 4


@pytest.mark.parametrize("split", ["validation", "test"])
def test_prompts_of_held_out_patients_are_short(split: str) -> None:
    prompts = load_prompt_set("ward")
    for note in ward_notes(split, 150, 4):
        for chat in (prompts.injector(note.text, Mode.ERROR), prompts.assessor(note.error_text or "")):
            text = render(chat, add_generation_prompt=True, enable_thinking=False)
            assert len(TOKENIZER.encode(text).ids) <= 160


def test_chat_template_switches_thinking_as_qwen3_does() -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "ASSESS\nA note."}]
    turns = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nASSESS\nA note.<|im_end|>\n"
    assert render(chat) == turns
    assert render(chat, add_generation_prompt=True) == turns + "<|im_start|>assistant\n"
    assert render(chat, add_generation_prompt=True, enable_thinking=True) == turns + "<|im_start|>assistant\n"
    off = render(chat, add_generation_prompt=True, enable_thinking=False)
    assert off == turns + "<|im_start|>assistant\n<think>\n\n</think>\n\n"


def test_chat_template_drops_earlier_thoughts_and_bears_an_empty_message() -> None:
    thought = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nyes"}
    chat = [thought, {"role": "user", "content": "so?"}]
    assert render(chat).startswith("<|im_start|>assistant\nyes<|im_end|>")
    assert "hm" in render([thought])
    assert render([{}]) == "<|im_start|>user\n<|im_end|>\n"


def test_shipped_template_is_the_one_in_the_code() -> None:
    assert (MODEL_DIR / "chat_template.jinja").read_text(encoding="utf-8") == CHAT_TEMPLATE


def test_building_is_deterministic_and_fills_the_vocabulary() -> None:
    texts = [note.text for note in ward_notes("train", 60, 0)] * 2
    built = build_tokenizer(texts, 1280)
    assert built.get_vocab_size() == 1280
    assert built.to_str() == build_tokenizer(reversed(texts), 1280).to_str()
    assert built.decode(built.encode(texts[0]).ids) == texts[0]


def test_vocabulary_that_cannot_be_filled_or_is_too_small_is_refused() -> None:
    texts = [note.text for note in ward_notes("train", 60, 0)] * 2
    with pytest.raises(ValueError, match="do not fit into 512 tokens"):
        build_tokenizer(texts, 512)
    with pytest.raises(ValueError, match="merges too few"):
        build_tokenizer(["fever fever"], 1024)
