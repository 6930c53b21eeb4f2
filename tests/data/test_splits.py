"""Which split a row belongs to."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.data.splits import SPLITS, parse_named_files, parse_ratios, split_of_file, split_of_id
from medserl.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("MEDEC-MS-TrainingSet.csv", "train"),
        ("MEDEC-Full-TrainingSet-with-ErrorType.csv", "train"),
        ("MEDEC-MS-ValidationSet-with-GroundTruth-and-ErrorType.csv", "validation"),
        ("MEDEC-MS-TestSet-with-GroundTruth-and-ErrorType.csv", "test"),
        ("medec_ms_train_pairs.jsonl", "train"),
        ("dev.parquet", "validation"),
        ("WARD-TestSet.csv", "test"),
        ("notes.csv", None),
        ("attestations.csv", None),
        ("train_and_test.csv", None),
    ],
)
def test_splits_by_file_name(name: str, split: str | None) -> None:
    assert split_of_file(Path("test") / name) == split


@given(st.text(min_size=1), st.integers(0, 10), st.integers(0, 10))
def test_an_id_always_draws_the_same_split(note_id: str, train: int, validation: int) -> None:
    ratios = (train / 20, validation / 20, 1 - (train + validation) / 20)
    split = split_of_id(note_id, ratios)
    assert split == split_of_id(note_id, ratios) and split in SPLITS
    assert split == split_of_id(note_id + ":corrected", ratios)
    assert split_of_id(note_id, (1.0, 0.0, 0.0)) == "train"
    assert split_of_id(note_id, (0.0, 0.0, 1.0)) == "test"


def test_the_shares_come_out() -> None:
    drawn = [split_of_id(f"note-{i}", (0.8, 0.1, 0.1)) for i in range(5000)]
    assert [round(drawn.count(split) / 5000, 1) for split in SPLITS] == [0.8, 0.1, 0.1]
    assert split_of_id("ms-train-1", (0.8, 0.1, 0.1)) == "train"  # the same on every machine


def test_options() -> None:
    assert parse_ratios("0.5,0.25,0.25") == (0.5, 0.25, 0.25)
    assert parse_named_files(["dev=a.csv", "TRAIN=b=c.csv"]) == {Path("a.csv"): "validation", Path("b=c.csv"): "train"}
    for bad in ("1", "0.5,0.5,0.5", "a,b,c", "-1,1,1"):
        with pytest.raises(ConfigError, match="--ratios"):
            parse_ratios(bad)
    for items in (["train"], ["=a"], ["other=a"], ["train=a", "test=a"]):
        with pytest.raises(ConfigError, match="--split"):
            parse_named_files(items)
