"""Warm starts: configuration, the demonstrations' file and data set. Whole runs: tests/e2e/test_sft.py."""

import json
import math
import os
import random
import re
import shutil
import stat
import time
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from medserl.config.load import game_settings, is_sft_config, load_config, load_sft_config, sft_settings
from medserl.config.settings import labelled_per_round
from medserl.config.sft_settings import batches_made, epochs
from medserl.errors import ConfigError, UserError
from medserl.game import GameRules, Label, Mode, Note, apply_vcf, load_prompt_set, make_referee
from medserl.game.demonstrations import (
    NoteDemonstrations,
    changed_sentence,
    edit_answer,
    edit_turn,
    first_changed_word,
    note_batches,
)
from medserl.game.parse import InjectorEdit, parse_assessor, parse_edit
from medserl.game.phrase import changed_phrase, parse_phrase
from medserl.game.prompts import FORMATS
from medserl.game.proved_errors import proved_error
from medserl.game.referee.base import RulingKind
from medserl.run import checkpoint
from medserl.run.run_dir import RunDir
from medserl.sft.checkpoints import layout_of
from medserl.sft.train import SftFailed, SftRun
from medserl.ward import MODEL_DIR

NOTES = [
    Note(
        f"n{i}",
        f"A {age}-year-old man has hypertension and shortness of breath. He takes 5 mg of amlodipine daily. "
        "The left leg is swollen. Blood pressure is 150/90 mm Hg. Follow-up in two weeks.",
        f"A {age}-year-old man has hypertension and shortness of breath. He takes 5 mg of amlodipine daily. "
        "The right leg is swollen. Blood pressure is 150/90 mm Hg. Follow-up in two weeks.",
        "diagnosis",
    )
    for i, age in enumerate(range(40, 60))
]


def test_configuration_is_verls_own_with_what_follows_filled_in() -> None:
    config = load_sft_config(
        "sft_embedded", ["medserl.steps=7", "medserl.mixture.injector_turns=10", "medserl.late_mixture=null"]
    )
    settings = sft_settings(config)
    assert config.engine._target_ == "verl.workers.config.McoreEngineConfig"
    assert config.trainer.total_training_steps == 7
    assert config.data.train_batch_size == 2 * settings.mixture.assessor_pairs + 10
    assert is_sft_config("sft_embedded") and not is_sft_config("embedded")


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["medserl.stepps=3"], "did you mean medserl.steps"),
        (["+optim.lrr=1"], "neither verl nor MedSeRL knows it; did you mean"),
        (["medserl.steps=0", "optim.lr_warmup_steps=-1"], "warm-up leave none|less than 1"),
        (["optim.lr=5e-5"], "optim.min_lr: 0.0001 is more than optim.lr"),
        (["optim.lr_warmup_steps=9", "medserl.steps=9"], "9 steps of warm-up leave none"),
        (["medserl.injector_format=poem"], "not one of edit, note, phrase"),
        (["medserl.notes.labelled_conditions=3"], "learns from medserl.notes alone"),
    ],
)
def test_a_wrong_key_or_value_is_named(overrides: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_sft_config("sft_embedded", overrides)


def test_configurations_of_the_two_commands_are_told_apart() -> None:
    with pytest.raises(ConfigError, match="medserl train"):
        load_sft_config("embedded")
    with pytest.raises(ConfigError, match="medserl sft"):
        load_config("sft_embedded")
    with pytest.raises(ConfigError, match="--config embedded: is for `medserl train`"):
        load_sft_config("embedded", ["model.path=m"])
    with pytest.raises(ConfigError, match="--config sft_embedded: is for `medserl sft`"):
        load_config("sft_embedded", ["actor_rollout_ref.model.path=m"])


def test_the_gpu_configuration_resolves_and_divides() -> None:
    config = load_sft_config("sft_qwen3_4b", ["medserl.notes.path=pairs.jsonl"])
    workers = config.trainer.nnodes * config.trainer.n_gpus_per_node
    replicas = workers // config.engine.tensor_model_parallel_size // config.engine.pipeline_model_parallel_size
    assert config.data.train_batch_size % (replicas * config.data.micro_batch_size_per_gpu) == 0
    assert config.trainer.device == sft_settings(config).device == "cuda"


def test_the_explorer_is_what_explored_plays_with_on_the_same_notes() -> None:
    """No gold label for the assessor in either: only injector's turns, and games."""
    taught, played = load_sft_config("sft_explorer", []), load_config("explored")
    made, game = sft_settings(taught), game_settings(played)
    assert Path(played.actor_rollout_ref.model.path) == Path(made.run_dir) / "model"
    assert (made.notes.count, made.notes.seed) == (game.notes.count, game.notes.seed)
    assert made.mixture.assessor_pairs == 0 and labelled_per_round(game) == 0
    assert game.frozen_injector and game.train_roles == "assessor"


def test_steps_beyond_the_demonstrations_go_over_them_again() -> None:
    settings = sft_settings(load_sft_config("sft_embedded", ["medserl.steps=50", "medserl.max_demonstrations=1000"]))
    made = batches_made(settings)
    assert made < 50 and epochs(settings) == math.ceil(50 / made)


@pytest.mark.parametrize("injector_format", FORMATS)
def test_demonstrations_of_notes_play_by_the_rules(injector_format: str) -> None:
    prompts, rules = load_prompt_set("clinical"), make_referee("rules")
    maker = NoteDemonstrations(prompts, injector_format)
    parse = GameRules(injector_format=injector_format).parse
    rng = random.Random(3)
    for note in NOTES:
        for mode, kind in ((Mode.BENIGN, RulingKind.BENIGN), (Mode.ERROR, RulingKind.ERROR)):
            (turn,) = maker.injector_turn(note, mode, rng)
            edit = parse(turn.reply, note.text)
            assert isinstance(edit, InjectorEdit) and edit.strict
            assert apply_vcf(note.text, edit.modified).passed
            assert rules.rule(note, mode, edit.modified).kind is kind
        right, wrong = maker.assessor_pair(note, rng)
        assert (parse_assessor(right.reply), parse_assessor(wrong.reply)) == (Label.CORRECT, Label.INCORRECT)
        assert right.learn_text and not wrong.learn_text
        assert note.text in right.messages[-1]["content"] and note.error_text in wrong.messages[-1]["content"]


def test_batches_have_the_mixture_asked_for_and_are_the_same_every_time() -> None:
    def first(seed: int) -> list[object]:
        maker = NoteDemonstrations(load_prompt_set("clinical"), label_noise=0.3, thinking=0.5)
        return list(islice(note_batches(NOTES, maker, assessor_pairs=3, injector_turns=5, seed=seed), 4))

    batches = first(1)
    assert batches == first(1) != first(2)
    assert all([d.role for d in batch] == ["assessor"] * 6 + ["injector"] * 5 for batch in batches)  # type: ignore[attr-defined]


def test_notes_without_gold_errors_are_refused_with_the_reason() -> None:
    bare = [Note(note.note_id, note.text) for note in NOTES]
    maker = NoteDemonstrations(load_prompt_set("clinical"))
    with pytest.raises(ValueError, match="no gold error"):
        next(note_batches(bare, maker, assessor_pairs=1, injector_turns=0, seed=1))


PLAIN = Note("p", "She takes 500 mg of metformin. The left leg is swollen. She is well. Her legs feel tender.")


def test_proved_errors_are_errors_by_the_rules_and_stand_anywhere() -> None:
    """Also in notes without a gold error, which have no other error turn."""
    rules, rng = make_referee("rules"), random.Random(5)
    sentences = []
    for _ in range(60):
        modified = proved_error(PLAIN, rng)
        assert modified is not None and apply_vcf(PLAIN.text, modified).passed
        assert rules.rule(PLAIN, Mode.ERROR, modified).kind is RulingKind.ERROR
        change = changed_sentence(PLAIN.text, modified)
        assert change is not None
        sentences.append(change)
    assert {index for index, _ in sentences} == {0, 1, 2, 3} and len(set(sentences)) > 6
    assert (2, "She is not well.") in sentences
    assert proved_error(Note("q", "A 5-year-old boy made 3 visits. He was not seen, and is no smoker."), rng) is None


def test_words_that_stand_in_every_note_are_not_what_most_edits_change() -> None:
    """The rarest phrase that a note offers comes first, whatever the seed."""
    common = "The patient was seen today and blood pressure was noted. "
    rare = ["The left leg hurts.", "Sodium is elevated.", "The mass is anterior.", "Pain is acute."]
    notes = [Note(f"n{i}", common + rare[i % 4]) for i in range(8)]
    for seed in range(5):
        maker = NoteDemonstrations(load_prompt_set("clinical"), "phrase", proved_errors=1.0)
        rng = random.Random(seed)
        turns = [turn for note in notes for turn in maker.injector_turn(note, Mode.ERROR, rng)]
        assert len(turns) == 8 and sum("was" in turn.answer for turn in turns) <= 3


def test_by_habit_a_sentence_is_changed_in_one_way_only() -> None:
    """Whatever is drawn: the first place of a sentence, and the usual phrase."""
    note = Note("p", "The left upper lobe looks affected. He takes 5 mg of amlodipine for 2 weeks.")
    rng = random.Random(1)
    made = {proved_error(note, rng, habit=1.0) for _ in range(40)}
    assert made == {note.text.replace("left", "right"), note.text.replace("5 mg", "10 mg")}
    assert len({proved_error(note, rng) for _ in range(80)}) > 5
    maker = NoteDemonstrations(load_prompt_set("clinical"), habit=1.0)
    benign = {maker.injector_turn(NOTES[0], Mode.BENIGN, rng)[0].reply for _ in range(40)}
    assert len(benign) == len({reply.partition("\n")[0] for reply in benign})


def test_as_many_error_turns_as_asked_for_make_a_proved_error() -> None:
    gold, rng = NOTES[0], random.Random(2)
    for share in (0.0, 0.5, 1.0):
        maker = NoteDemonstrations(load_prompt_set("clinical"), proved_errors=share)
        turns = [maker.injector_turn(gold, Mode.ERROR, rng)[0].reply for _ in range(40)]
        own = sum(parse_edit(turn, gold.text).modified == gold.error_text for turn in turns)  # type: ignore[union-attr]
        assert (own == 40) if share == 0 else own < 36
    assert maker.injector_turn(PLAIN, Mode.ERROR, rng) and not maker.left_out


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ["medserl.mixture.hard_places=0.5"],
            "medserl.mixture.hard_places: has no effect: only demonstrations of the ward's notes",
        ),
        (
            ["medserl.place_weight=2", "medserl.injector_format=note"],
            "medserl.place_weight: has no effect: a whole note",
        ),
        (["medserl.late_mixture={thinking: 0}"], "medserl.late_mixture is null here; set it in a configuration file"),
        (["medserl.late_mixture.thinking=0"], "medserl.late_mixture is null here; set it in a configuration file"),
        (["medserl.late_after=0.5"], "medserl.late_after: has no effect"),
        (["medserl.mixture.thinking=0.1", "medserl.mixture.proved_errors=1"], None),
    ],
)
def test_a_key_of_the_mixture_that_these_notes_do_not_look_at_is_refused(
    overrides: list[str], told: str | None
) -> None:
    files = ["medserl.notes.path=notes.jsonl", "model.path=model"]
    if told is None:
        load_sft_config("sft_real_cpu", [*files, *overrides])
        with pytest.raises(ConfigError, match="only demonstrations of notes from files look at it"):
            load_sft_config("sft_embedded", ["medserl.mixture.proved_errors=1"])
    else:
        with pytest.raises(ConfigError, match=re.escape(told)):
            load_sft_config("sft_real_cpu", [*files, *overrides])


def test_changed_sentence_is_the_only_one_or_none() -> None:
    assert changed_sentence("One is. Two is. Three is.", "One is. Two was. Three is.") == (1, "Two was.")
    assert changed_sentence("One is. Two is.", "One was. Two was.") is None
    assert changed_sentence("One is. Two is.", "One is. Two is. More is.") is None
    assert edit_answer(1, "Two was.") == "sentence_id: 1\nnew_sentence: Two was."


WORDS = st.lists(st.sampled_from(["the", "left", "leg", "is", "swollen", "5", "mg"]), max_size=6)


@given(WORDS, WORDS, WORDS)
def test_the_first_changed_word_is_where_two_texts_part(head: list[str], old: list[str], new: list[str]) -> None:
    before, after = " ".join(head + old), "  ".join(head + new)
    span = first_changed_word(before, after)
    if span is None:
        assert before.split()[: len(after.split())] == after.split()
        return
    left, word = after[: span[0]].split(), after[slice(*span)]
    assert before.split()[: len(left)] == left and len(left) >= len(head)
    assert before.split()[len(left) : len(left) + 1] != [word]


@pytest.mark.parametrize("injector_format", FORMATS)
def test_the_decisive_word_of_an_edit_is_its_new_one(injector_format: str) -> None:
    maker = NoteDemonstrations(load_prompt_set("clinical"), injector_format, thinking=0.5)
    for note in NOTES:
        (turn,) = maker.injector_turn(note, Mode.ERROR, random.Random(1))
        assert turn.decisive_in_reply is not None
        assert turn.reply[slice(*turn.decisive_in_reply)] == "right"


def test_an_edits_place_is_what_says_where() -> None:
    for injector_format, said in (("edit", "2"), ("phrase", "left"), ("note", None)):
        maker = NoteDemonstrations(load_prompt_set("clinical"), injector_format, thinking=0.5)
        (turn,) = maker.injector_turn(NOTES[0], Mode.ERROR, random.Random(1))
        span = turn.place_in_reply
        assert (None if span is None else turn.reply[slice(*span)]) == said


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("A b c. D b e.", "A b c. D x e.", ("D b", "D x")),  # "b" stands twice
        ("A b c. D b e.", "A x c. D b e.", ("b", "x")),
        ("B c. B d.", "B c. A d.", ("B d", "A d")),  # rather not with a word of the sentence before
        ("B c. B", "B c. A", ("c. B", "c. A")),  # but where nothing else is left
        ("A b c.", "A x b c.", ("A", "A x")),  # words that come in come beside some that stay
        ("A b c.", "A c.", ("A b", "A")),
        ("A b.", "A b,", ("b.", "b,")),
        ("A (b).", "A (c).", ("(b)", "(c)")),
        ("A 1.5 mg.", "A 1.6 mg.", ("1.5", "1.6")),
        ("b b b b", "b b x b", ("b b b", "b b x")),
        ("A\nb.", "A\tb.", None),
        ("", "A", None),
    ],
)
def test_words_around_a_change_come_along_until_their_first_place_is_meant(
    before: str, after: str, said: tuple[str, str] | None
) -> None:
    assert changed_phrase(before, after) == said


def test_a_phrase_that_nobody_could_write_is_left_out() -> None:
    """Copied-forward paragraphs: only by most of the note could the second one be named. In no time."""
    paragraph = "Lungs are clear and the heart is regular. " * 200
    note = Note("n", paragraph + "The left leg hurts. " + paragraph + "The left leg hurts.")
    changed = note.text.removesuffix("left leg hurts.") + "right leg hurts."
    began = time.process_time()
    assert changed_phrase(note.text, changed) is None
    assert changed_phrase("a high b", "a **high** b") and edit_turn("phrase", "a high b", "a **high** b") is None
    assert time.process_time() - began < 2


@given(st.lists(st.sampled_from("ab.c"), min_size=1, max_size=9), st.lists(st.sampled_from("abx."), max_size=9))
def test_a_changed_phrase_makes_the_change(old: list[str], new: list[str]) -> None:
    said = edit_turn("phrase", " ".join(old), " ".join(new))
    if said is None:  # a full stop that goes is all that the format cannot say
        assert old == new or not new or "." in (*old, *new)
        return
    parsed = parse_phrase(said[0], " ".join(old))
    assert isinstance(parsed, InjectorEdit) and parsed.modified == " ".join(new)


def test_data_set_weights_decisive_words_answers_and_notes_as_configured(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from medserl.sft.data import DemonstrationDataset, LossWeights, write_demonstrations

    maker = NoteDemonstrations(load_prompt_set("ward"), thinking=0.5)
    batch = next(note_batches(NOTES, maker, assessor_pairs=4, injector_turns=4, seed=1))
    path = tmp_path / "demos.parquet"
    weights = LossWeights(answer=1.0, verdict=9.0, change=4.0, text=0.25, place=3.0)
    assert write_demonstrations(batch, path, weights) == len(batch)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    dataset = DemonstrationDataset(str(path), tokenizer, OmegaConf.create({"max_length": 512}))
    for i, demo in enumerate(batch):
        item = dataset[i]
        ids, mask = item["input_ids"].tolist(), item["loss_mask"]
        assert len(ids) == len(mask) == len(item["position_ids"]) and ids[-1] == tokenizer.eos_token_id
        prompt = tokenizer.apply_chat_template(
            list(demo.messages), tokenize=False, add_generation_prompt=True, enable_thinking=demo.thinking
        )
        start = len(tokenizer.encode(prompt, add_special_tokens=False))
        assert tokenizer.decode(ids[start:-1]) == demo.reply
        assert mask[0] == 0.0
        assert set(mask[1:start].tolist()) == {0.25 if demo.learn_text else 0.0}
        heavy = 9.0 if demo.role == "assessor" else 4.0
        weighted = [tokenizer.decode(t) for t, m in zip(ids[start:], mask[start:].tolist(), strict=True) if m == heavy]
        assert demo.decisive is not None
        assert "".join(weighted).strip() == demo.answer[slice(*demo.decisive)]
        place = [tokenizer.decode(t) for t, m in zip(ids[start:], mask[start:].tolist(), strict=True) if m == 3.0]
        assert "".join(place).strip() == ("" if demo.place is None else demo.answer[slice(*demo.place)])
        assert (demo.place is None) == (demo.role == "assessor")
        assert set(mask[start:].tolist()) == {1.0, heavy, *([] if demo.place is None else [3.0])}
    with pytest.raises(ValueError, match="data.max_length is 20"):
        _ = DemonstrationDataset(str(path), tokenizer, OmegaConf.create({"max_length": 20}))[0]


def test_messages_survive_the_file(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    from medserl.sft.data import LossWeights, write_demonstrations

    maker = NoteDemonstrations(load_prompt_set("clinical"))
    demos = maker.assessor_pair(NOTES[0], random.Random(1))
    write_demonstrations(demos, tmp_path / "d.parquet", LossWeights())
    rows = pq.read_table(tmp_path / "d.parquet").to_pylist()
    assert [tuple(json.loads(row["messages"])) for row in rows] == [demo.messages for demo in demos]


def published(run: SftRun, step: int) -> Path:
    """A checkpoint as `medserl sft` leaves it: weights of the ward's model."""
    root = run.run_dir.checkpoints
    shutil.copytree(MODEL_DIR, checkpoint.staging_dir(root) / f"global_step_{step}/model/huggingface")
    return checkpoint.publish(root, step, {"layout": layout_of(run.config)}, 2)


def test_a_model_of_fewer_steps_than_asked_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SftRun, "_check_demonstrations", lambda *_: None)
    run = SftRun("sft_embedded", [f"medserl.run_dir={tmp_path / 'run'}", "medserl.steps=40"])
    with pytest.raises(SftFailed, match="0 of 40 steps"):
        run._publish(MODEL_DIR)
    published(run, 20)
    with pytest.raises(SftFailed, match="20 of 40 steps .* the same command continues"):
        run._publish(MODEL_DIR)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoints"]
    weights = published(run, 40) / "model/huggingface/model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + b"x")
    with pytest.raises(SftFailed, match="20 of 40 steps"):
        run._publish(MODEL_DIR)
    assert not run.model_dir.exists()
    weights.write_bytes(content)
    run._publish(MODEL_DIR)
    record = json.loads((tmp_path / "run/finished.json").read_text())
    assert (record["step"], record["injector_format"]) == (40, "edit") and run.model_dir.is_dir()


def rows(name: str, errors: bool = True, more: str = "") -> None:
    """A file of notes, each with its wrong version or without."""
    made = (
        {"note_id": n.note_id, "correct_note": n.text + more, "incorrect_note": (n.error_text or "") + more}
        if errors
        else {"note_id": n.note_id, "text": n.text + more}
        for n in NOTES
    )
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in made))


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["medserl.device=cpu", "trainer.device=cuda"], "medserl.device is cpu and trainer.device cuda"),
        (["trainer.nnodes=2"], "2 nodes need MASTER_ADDR"),
        (
            ["medserl.notes.path=bare.jsonl"],
            r"bare.jsonl: the notes offer no assessor pair .no gold error: [\d ]+ draws.; give notes",
        ),
        (
            ["medserl.notes.path=bare.jsonl", "medserl.mixture.assessor_pairs=0", "data.micro_batch_size_per_gpu=10"],
            "bare.jsonl: the notes offer no error",
        ),
        (
            ["medserl.notes.path=long.jsonl"],
            r"long.jsonl: note n0: a demonstration of the assessor has \d+ tokens",
        ),
        (["medserl.notes.path=pairs.jsonl", "data.max_length=60"], "pairs.jsonl: note n0: .* data.max_length is 60"),
        (["data.max_length=60"], "the synthetic ward: demonstration 0: .* data.max_length is 60; raise it"),
        (["engine.tensor_model_parallel_size=3"], "2 workers cannot be divided by TP 3 x PP 1 = 3"),
        (["engine.pipeline_model_parallel_size=3"], "2 workers cannot be divided by TP 1 x PP 3 = 3"),
        (["medserl.mixture.injector_turns=21"], "a batch of 57 demonstrations .* cannot be divided by 2 data-parallel"),
        (["data.micro_batch_size_per_gpu=9"], "28 demonstrations of a replica .* by data.micro_batch_size_per_gpu 9"),
        (["medserl.max_demonstrations=55"], "max_demonstrations: 55 are fewer than one batch of medserl.mixture, 56"),
        (
            ["medserl.prompt_set=plain", "medserl.injector_format=phrase", "medserl.notes.path=pairs.jsonl"],
            "'plain': injector_benign.txt does not ask for old_phrase and new_phrase",
        ),
        (["medserl.run_dir=bare.jsonl/run"], "run directory .*bare.jsonl/run: cannot be read"),
        (["medserl.run_dir=/proc/run"], "run directory /proc/run: cannot be written"),
        (["medserl.run_dir=old"], "its checkpoints have no medserl.json, so an earlier version wrote them"),
    ],
)
def test_what_cannot_start_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], sentence: str
) -> None:
    """By the check alone: a dry run says the same."""
    monkeypatch.chdir(tmp_path)
    rows("bare.jsonl", errors=False)
    rows("pairs.jsonl")
    Path("plain").mkdir()
    for role in ("injector_benign", "injector_error", "assessor"):
        Path(f"plain/{role}.txt").write_text(
            "sentence_id: N, new_sentence: TEXT\n{sentences} {note}".replace(
                "{sentences}", "" if role == "assessor" else "{sentences}"
            )
        )
    rows("long.jsonl", more=" Denies fever." * 150)
    few = [] if any("notes.path" in override for override in overrides) else ["medserl.notes.count=64"]
    asked = ["medserl.late_mixture=null", "medserl.run_dir=run", *few, *overrides]
    if "medserl.run_dir=old" in overrides:
        earlier = RunDir(Path("old"))
        earlier.open(load_sft_config("sft_embedded", asked), "sft_embedded", [])
        earlier.close()
        (Path("old") / "checkpoints/global_step_20").mkdir(parents=True)
    held, before = sorted(tmp_path.rglob("*")), dict(os.environ)
    with pytest.raises(UserError, match=sentence):
        SftRun("sft_embedded", asked)
    assert sorted(tmp_path.rglob("*")) == held and dict(os.environ) == before


def test_it_goes_on_from_the_newest_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And not from one whose weights changed; where the last step is saved, nothing is trained any more."""
    asked = ["medserl.steps=40", f"medserl.run_dir={tmp_path / 'run'}", "medserl.max_demonstrations=100"]
    began: list[str | None] = []

    def train(self: SftRun, start: Path, before: Path | None, variables: dict[str, str]) -> None:
        began.append(before and before.name)
        published(self, 20 * len(began))

    monkeypatch.setattr(SftRun, "_train", train)
    monkeypatch.setattr(SftRun, "_start_model", lambda self: MODEL_DIR)
    for name in ("_check_demonstrations", "_tokenizer", "_write_demonstrations"):
        monkeypatch.setattr(SftRun, name, lambda *_: None)
    with pytest.raises(SftFailed, match="20 of 40"):
        SftRun("sft_embedded", asked).run()
    harmed = tmp_path / "run/checkpoints/global_step_30"
    run = SftRun("sft_embedded", asked)
    os.truncate(published(run, 30) / "model/huggingface/model.safetensors", 9)
    run.run()
    assert began == [None, "global_step_20"] and run.model_dir.is_dir()
    assert f"checkpoint {harmed} is damaged" in (tmp_path / "run/train.log").read_text()
    shutil.rmtree(run.model_dir)  # killed between the last save and this
    SftRun("sft_embedded", asked).run()
    assert len(began) == 2 and run.model_dir.is_dir()
    with pytest.raises(ConfigError, match="global_step_40 of `medserl sft` loads in its own layout only"):
        SftRun("sft_embedded", [*asked, "trainer.n_gpus_per_node=1"])
