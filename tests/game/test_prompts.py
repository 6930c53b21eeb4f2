"""Prompt sets as files."""

import re
import shutil
from pathlib import Path

import pytest

from medserl.errors import ConfigError
from medserl.game import prompts as prompts_module
from medserl.game.labels import ERROR_TYPES, Mode
from medserl.game.parse import parse_edit
from medserl.game.prompts import FORMATS, load_prompt_set, numbered_sentences, prompt_set_names

NOTE = "He has {braces} and {note}. He takes\nmetformin 500 mg b.i.d. daily.\nNo rash."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "injector_benign.txt").write_text("=== system ===\nBe kind.\n=== user ===\nB {sentences}\n{note}\n")
    (tmp_path / "injector_error.txt").write_text("=== user edit ===\nE {sentences}\n=== user note ===\nN {note}\n")
    (tmp_path / "assessor.txt").write_text('Say {{"yes"}}: {note}\n')
    return tmp_path


def test_the_shipped_sets() -> None:
    assert prompt_set_names() == ["clinical", "ward"]


@pytest.mark.parametrize("name", ["clinical", "ward"])
@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("output_format", FORMATS)
def test_shipped_sets_serve_every_mode_and_format(name: str, mode: Mode, output_format: str) -> None:
    messages = load_prompt_set(name).injector(NOTE, mode, output_format)
    assert messages[-1]["role"] == "user"
    assert all(set(message) == {"role", "content"} and message["content"] for message in messages)
    shown = numbered_sentences(NOTE) if output_format == "edit" else NOTE
    assert shown in messages[-1]["content"]


def test_clinical_injector_prompts_name_their_format() -> None:
    prompts = load_prompt_set("clinical")
    for mode in Mode:
        keys = {"edit": ("sentence_id:", "new_sentence:"), "note": ("generated_note:",)}
        keys["phrase"] = ("old_phrase:", "new_phrase:")
        for kind in FORMATS:
            text = prompts.injector(NOTE, mode, kind)[-1]["content"]
            assert {other for other in FORMATS if any(key in text for key in keys[other])} == {kind}
            assert all(key in text for key in keys[kind])
    assert 'final_answer: "INCORRECT"' in prompts.assessor(NOTE)[-1]["content"]


def test_ward_prompts_are_short_and_start_with_the_task() -> None:
    prompts = load_prompt_set("ward")
    assert prompts.injector("A b. C d.", Mode.ERROR) == [{"role": "user", "content": "INJECT\n0 A b.\n1 C d.\nerror"}]
    assert prompts.injector("A b.", Mode.BENIGN)[0]["content"].endswith("\nbenign")
    assert prompts.assessor("A b. C d.\n") == [{"role": "user", "content": "ASSESS\nA b. C d."}]


def test_sentence_numbers_are_those_of_the_parser() -> None:
    lines = numbered_sentences(NOTE).split("\n")
    assert lines[1] == "1 He takes metformin 500 mg b.i.d. daily."
    for line in lines:
        index, _, sentence = line.partition(" ")
        edit = parse_edit(f"sentence_id: {index}\nnew_sentence: {sentence}", NOTE)
        assert getattr(edit, "modified", "").split() == NOTE.split()


def test_own_folder(folder: Path) -> None:
    prompts = load_prompt_set(folder)
    benign = prompts.injector("A b. In {note}", Mode.BENIGN, "edit")
    assert benign == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "B 0 A b.\n1 In {note}\nA b. In {note}"},
    ]
    assert prompts.injector("A b.", Mode.BENIGN, "note")[-1]["content"] == "B 0 A b.\nA b."
    assert prompts.injector("A b.", Mode.ERROR, "note") == [{"role": "user", "content": "N A b."}]
    assert prompts.assessor("A b.") == [{"role": "user", "content": 'Say {"yes"}: A b.'}]


def test_every_error_type_has_a_clinical_prompt_that_names_it() -> None:
    prompts = load_prompt_set("clinical")
    assert prompts.error_types == ERROR_TYPES
    for output_format in FORMATS:
        texts = {t: prompts.injector(NOTE, Mode.ERROR, output_format, t)[-1]["content"] for t in ERROR_TYPES}
        general = prompts.injector(NOTE, Mode.ERROR, output_format)[-1]["content"]
        assert len({general, *texts.values()}) == 1 + len(ERROR_TYPES)
        for error_type, text in texts.items():
            assert f"of the type {'causal organism' if error_type == 'causalorganism' else error_type}" in text
            assert text.splitlines()[-1] == general.splitlines()[-1]
    benign = prompts.injector(NOTE, Mode.BENIGN)
    assert prompts.injector(NOTE, Mode.BENIGN, error_type="diagnosis") == benign


def test_error_types_that_a_set_does_not_have(folder: Path) -> None:
    (folder / "injector_error_diagnosis.txt").write_text("=== user edit ===\nD {sentences}\n")
    prompts = load_prompt_set(folder)
    assert prompts.error_types == ("diagnosis",)
    assert prompts.injector("A b.", Mode.ERROR, error_type="diagnosis")[-1]["content"] == "D 0 A b."
    with pytest.raises(ConfigError, match=r"no injector_error_management\.txt"):
        prompts.injector("A b.", Mode.ERROR, error_type="management")
    with pytest.raises(ConfigError, match=r"'dose' is not known.*causalorganism"):
        prompts.check_error_types(["diagnosis", "dose"])
    (folder / "injector_error_dose.txt").write_text("{sentences}")
    with pytest.raises(ConfigError, match=r"injector_error_dose\.txt.*no error type"):
        load_prompt_set(folder)


def test_a_set_is_known_by_its_version_and_its_bytes(folder: Path) -> None:
    first = load_prompt_set(folder)
    assert (first.version, len(first.sha256)) == ("", 64)
    (folder / "VERSION").write_text("2026-03\n")
    assert load_prompt_set(folder).version == "2026-03"
    assert load_prompt_set(folder).sha256 == first.sha256
    (folder / "assessor.txt").write_text("Changed: {note}\n")
    assert load_prompt_set(folder).sha256 != first.sha256
    for text in ("", "1\n2\n"):
        (folder / "VERSION").write_text(text)
        with pytest.raises(ConfigError, match=r"VERSION.*one line"):
            load_prompt_set(folder)
    assert all(load_prompt_set(name).version for name in prompt_set_names())


def test_the_judges_prompt_is_optional_and_checked(folder: Path) -> None:
    assert not load_prompt_set(folder).has_judge
    path = folder / "judge.txt"
    path.write_text("N {note} A {original} B {edited}")
    assert load_prompt_set(folder).judge("n", "{a}", "b") == [{"role": "user", "content": "N n A {a} B b"}]
    for text, what in (
        ("{note} {edited}", "{original}"),
        ("{original} {edited}", "{note}"),
        ("{note} {mode}", "{mode}"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=re.escape(what)):
            load_prompt_set(folder)


def test_a_set_without_the_asked_format(folder: Path) -> None:
    (folder / "injector_error.txt").write_text("=== user edit ===\nE {sentences}")
    with pytest.raises(ConfigError, match="no user section for the format 'note'"):
        load_prompt_set(folder).injector("A.", Mode.ERROR, "note")


def refused_formats(folder: Path) -> dict[str, str]:
    """By format, the file that does not ask for it."""
    found = {}
    for format_ in FORMATS:
        try:
            load_prompt_set(folder).check_format(format_)
        except ConfigError as error:
            assert f"'=== user {format_} ===' that names them" in str(error)
            found[format_] = str(error).partition(": ")[2].partition(".txt")[0]
    return found


def test_a_set_that_does_not_ask_for_a_format_is_told_what_it_lacks(folder: Path) -> None:
    """Also where its one section for all formats would be taken, which asks for another."""
    benign, error = folder / "injector_benign.txt", folder / "injector_error.txt"
    assert refused_formats(folder) == dict.fromkeys(FORMATS, "injector_benign")
    benign.write_text("{sentences} {note} sentence_id: new_sentence: old_phrase: new_phrase:")
    assert refused_formats(folder) == {"edit": "injector_error", "note": "injector_benign", "phrase": "injector_error"}
    error.write_text("=== user phrase ===\n{note} Say old_phrase and new_phrase.")
    assert refused_formats(folder) == {"edit": "injector_error", "note": "injector_benign"}
    error.write_text("=== system ===\nSay old_phrase, new_phrase.\n=== user phrase ===\n{note}")
    assert "phrase" not in refused_formats(folder)
    error.write_text("=== user phrase ===\n{note} Say old_phrase.")
    assert refused_formats(folder)["phrase"] == "injector_error"


def test_a_section_is_not_taken_on_trust_unless_it_is_the_wards(tmp_path: Path) -> None:
    """The ward's model has learnt its short prompts; whoever writes others must say what is to be answered."""
    copy = Path(shutil.copytree(prompts_module._SHIPPED / "ward", tmp_path / "mine"))
    assert refused_formats(copy) == {}
    file = copy / "injector_error.txt"
    file.write_text(file.read_text().replace("INJECT", "CHANGE"))
    assert refused_formats(copy) == dict.fromkeys(FORMATS, "injector_error")


@pytest.mark.parametrize("name", ["clinical", "ward"])
def test_shipped_sets_ask_for_every_format(name: str) -> None:
    for output_format in FORMATS:
        load_prompt_set(name).check_format(output_format)


@pytest.mark.parametrize(
    ("file", "text", "what"),
    [
        ("assessor.txt", None, "missing"),
        ("assessor.txt", "", "no user section"),
        ("assessor.txt", "Is it right?", r"\{note\} is missing"),
        ("assessor.txt", "{note} {mode}", r"unknown placeholder \{mode\}"),
        ("assessor.txt", "{note} {sentences}", r"unknown placeholder \{sentences\}"),
        ("assessor.txt", "{note} {", "single '{'"),
        ("assessor.txt", "{note} }", "single '}'"),
        ("assessor.txt", "{note} {}", r"unknown placeholder \{\}"),
        ("assessor.txt", "=== user edit ===\n{note}", "one output format"),
        ("assessor.txt", "=== user ===\n{note}\n=== user ===\n{note}", "occurs twice"),
        ("assessor.txt", "=== system ===\n\n=== user ===\n{note}", "is empty"),
        ("injector_error.txt", "=== user edit ===\n{note}", r"\{sentences\} is missing"),
        ("injector_error.txt", "=== user note ===\n{sentences}", r"\{note\} is missing"),
        ("injector_error.txt", "=== system ===\nHello.", "no user section"),
        ("injector_benign.txt", None, "missing"),
    ],
)
def test_broken_sets_are_refused(folder: Path, file: str, text: str | None, what: str) -> None:
    path = folder / file
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    with pytest.raises(ConfigError, match=what) as caught:
        load_prompt_set(folder)
    assert file in str(caught.value)


def test_a_file_that_is_not_text(folder: Path) -> None:
    (folder / "assessor.txt").write_bytes(b"\xff\xfe{note}")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_prompt_set(folder)


def test_an_unknown_set() -> None:
    with pytest.raises(ConfigError, match=r"'clinicle'.*clinical, ward"):
        load_prompt_set("clinicle")
    with pytest.raises(ConfigError, match=r"'' is neither a folder nor"):
        load_prompt_set("")  # no name is not the current directory
