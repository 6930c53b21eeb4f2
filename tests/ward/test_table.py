"""The knowledge table: the shipped one is sound, and a broken one is refused with file, line and key."""

from pathlib import Path

import pytest

from medserl.errors import ConfigError
from medserl.ward.table import TABLE_FILE, load_table

SHIPPED = TABLE_FILE.read_text(encoding="utf-8")


def refusal(tmp_path: Path, content: str) -> str:
    path = tmp_path / "table.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_table(path)
    return str(caught.value).removeprefix(f"{path}, ")


def test_shipped_table_has_the_promised_breadth() -> None:
    table = load_table()
    conditions = table.conditions.values()
    assert len(conditions) >= 40
    assert sum(c.organism is not None for c in conditions) >= 10
    assert sum(c.treatment is not None for c in conditions) >= 10
    assert sum(c.sided for c in conditions) >= 10
    assert all(len(phrases) >= 2 for field in ("drug", "organism", "diagnosis", "management")
               for phrases in table.concepts[field].values())  # fmt: skip


def test_every_term_of_the_shipped_table_is_used() -> None:
    """A term that no condition has right would only ever be wrong, or never be said at all."""
    table = load_table()
    conditions = table.conditions.values()
    used = {
        "symptom": {s for c in conditions for s in (*c.symptoms, *c.denied)},
        "organism": {c.organism.name for c in conditions if c.organism},
        "drug": {c.drug.name for c in conditions if c.drug},
        "treatment": {c.treatment.name for c in conditions if c.treatment},
        "management": {c.management for c in conditions},
    }
    for field, names in used.items():
        assert names == set(table.concepts[field]), field


# (what is replaced in the shipped table, by what, text on the reported line, key, part of the problem)
BROKEN = [
    ("    management: airborne isolation\n", "", "- diagnosis: [pulmonary tuberculosis",
     "conditions[", "the field 'management' is missing"),
    ("wrong: [amoxicillin, prednisone, methotrexate]", "wrong: [amoxicilin, prednisone, methotrexate]",
     "amoxicilin", "conditions.pulmonary tuberculosis.drug.wrong", "'amoxicilin' is not in the table's drugs"),
    ("wrong: [amoxicillin, prednisone, methotrexate]", "wrong: [amoxicillin, isoniazid]", "isoniazid]",
     "conditions.pulmonary tuberculosis.drug.wrong", "'isoniazid' is the right answer here"),
    ("range: [200, 300], doses: [300]", "range: [200, 250], doses: [300]", "range: [200, 250]",
     "conditions.pulmonary tuberculosis.drug.doses[0]", "outside the range 200–250"),
    ("range: [200, 300], doses: [300]", "range: [300, 200], doses: [300]", "range: [300, 200]",
     "conditions.pulmonary tuberculosis.drug.range", "expected [lowest, highest]"),
    ("range: [200, 300], doses: [300]", "range: [200, 300], doses: [none]", "doses: [none]",
     "conditions.pulmonary tuberculosis.drug.doses[0]", "expected a number above 0"),
    ("    vitals: slow\n    symptoms: [fatigue, cold", "    vitals: slow\n    color: red\n    symptoms: [fatigue, cold",
     "color: red", "conditions[", "unknown field 'color'"),
    ("denied: [palpitations, tremor]", "denied: [fatigue, tremor]", "denied: [fatigue, tremor]",
     "conditions.primary hypothyroidism.denied", "'fatigue' is both a symptom and denied"),
    ("symptoms: [fatigue, cold intolerance, weight gain]", "symptoms: [fatigue]", "symptoms: [fatigue]",
     "conditions.primary hypothyroidism.symptoms", "at least two"),
    ('exam: [["a {side} Tinel sign", "a', 'exam: [["a Tinel sign", "a', "a Tinel sign",
     "conditions.carpal tunnel syndrome.exam", "needs {side}"),
    ('exam: [["jaundice and splenomegaly"', 'exam: [["{side} jaundice"', "{side} jaundice",
     "conditions.severe falciparum malaria.exam", "must not have {side}"),
    ("  furosemide: [Lasix, frusemide]", "  furosemide: [Zestril]", "furosemide: [Zestril]", "drugs.furosemide",
     "'Zestril' already stands for 'lisinopril'"),
    ("  furosemide: [Lasix, frusemide]", "  furosemide: [Lasix]\n  furosemide: [Lasix]", "furosemide",
     "drugs.furosemide", "twice"),
    ("diagnosis: [influenza, flu]", "diagnosis: [influenza, PE]", "[", "conditions.", "already stands for"),
    ("sex: female", "sex: woman", "sex: woman", "conditions.acute pyelonephritis.sex", "male, female or any"),
    ("duration: [2, 7, days]", "duration: [2, 7, fortnights]", "fortnights",
     "conditions.community-acquired pneumonia.duration[2]", "minutes, hours"),
    ('    - "Denies {denied}."', '    - "Denies {symptom}."', "Denies {symptom}.", "sentences.denial[0]", "{denied}"),
    ('    - "Denies {denied}."', '    - "Denies {denied."', "Denies {denied.", "sentences.denial[0]", "braces"),
    ('    - "Denies {denied}."', '    - "Denies {denied}"', 'Denies {denied}"', "sentences.denial[0]", "full stop"),
    ("version: 1", "version: 2", "version: 2", "version", "version 1"),
    ("  aspirin: [ASA, acetylsalicylic acid]", "  aspirin: ASA", "aspirin: ASA", "drugs.aspirin", "expected a list"),
    ("range: [200, 300], doses: [300]", "range: [200, 1.0e+400], doses: [300]", "1.0e+400",
     "conditions.pulmonary tuberculosis.drug.range[1]", "expected a number above 0"),
    ("  furosemide: [Lasix, frusemide]", "  furosemide: [Lasix, Fru. Semide]", "Fru. S", "drugs.furosemide[1]",
     "more than one sentence"),
    ("  furosemide: [Lasix, frusemide]", '  furosemide: [Lasix, "{drug}"]', "{drug}", "drugs.furosemide[1]",
     "the only slot"),
    ("  furosemide: [Lasix, frusemide]", '  furosemide: [Lasix, "{side} pill"]', "{side} pill", "drugs.furosemide[1]",
     "the only slot"),
    ("duration: [2, 7, days]", "duration: [0.5, 7, days]", "[0.5,",
     "conditions.community-acquired pneumonia.duration[0]", "expected a whole number"),
    ("diagnosis: [influenza, flu]", 'diagnosis: [influenza, "f\\nlu"]', "f\\nlu", "conditions[", "of one line"),
    ("wrong: [amoxicillin, prednisone, methotrexate]", "wrong: &a [*a]", "*a",
     "conditions.pulmonary tuberculosis.drug.wrong[0]", "expected text"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "on_line", "key", "problem"), BROKEN)
def test_broken_table_is_refused_with_line_and_key(
    tmp_path: Path, old: str, new: str, on_line: str, key: str, problem: str
) -> None:
    assert old in SHIPPED
    content = SHIPPED.replace(old, new, 1)
    message = refusal(tmp_path, content)
    place, _, rest = message.partition(", key ")
    line = int(place.removeprefix("line "))
    assert on_line in content.splitlines()[line - 1]
    assert rest.startswith(key)
    assert problem in message
    assert "\n" not in message


def test_term_that_is_only_ever_wrong_is_refused(tmp_path: Path) -> None:
    content = SHIPPED.replace("management: home blood pressure log", "management: physical therapy", 1)
    message = refusal(tmp_path, content)
    assert "'home blood pressure log' is never the right management" in message
    assert "conditions.severe preeclampsia.wrong_managements" in message


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param("a: " + "[" * 10_000, "line 1: lists and mappings lie in each other", id="deep"),
        (SHIPPED.partition("\nconditions:")[0] + "\nconditions: []\n", "key conditions: the list is empty"),
        ("", "line 1: the table is empty"),
        ("a: [1\nb: 2\n", "not valid YAML"),
        ("- 1\n", "expected a mapping"),
    ],
)
def test_file_that_is_no_table_is_refused(tmp_path: Path, content: str, problem: str) -> None:
    assert problem in refusal(tmp_path, content)


def test_missing_and_undecodable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_table(tmp_path / "none.yaml")
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"version: 1\n# caf\xe9\n")
    with pytest.raises(ConfigError, match="line 2: not UTF-8"):
        load_table(path)
