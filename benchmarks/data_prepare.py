"""Measures ``medserl data prepare`` beside pandas and difflib, on the same synthetic notes, in the same run.

python benchmarks/data_prepare.py [--notes 5000] [--near 2000] [--large 100000 [--large-near]]

Prints, per core and in CPU seconds: notes read and checked per second (what every command that reads MEDEC does),
notes prepared per second without the near-duplicate search (read, checked, written as Parquet, hashed), and texts
searched for near-duplicates per second. The baselines do the same work the obvious way: ``pandas.read_csv``, a
difflib match of the error sentence against the note's sentences, ``DataFrame.to_parquet``; and
``difflib.SequenceMatcher`` on every pair of notes of two splits (timed on a few, scaled to all). ``--large`` also
prepares that many notes in a process of its own and shows its seconds and peak memory.
"""

import argparse
import csv
import difflib
import itertools
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from medserl.data.near import Signer, TextSpool, near_pairs, sign_texts
from medserl.data.prepare import PrepareOptions, prepare
from medserl.data.text import normalised
from medserl.game.prompts import load_prompt_set
from medserl.game.reader import ReadReport, converted_rows
from medserl.ward.medec import COLUMNS

LETTERS = "eeeeeetttttaaaaooooiiiinnnnsssshhhrrrdddlllccuummppggffybvkwxjqz"
# Words as frequent as in a language: unrelated notes are then as similar (0.2) as unrelated notes of MEDEC.
WEIGHTS = list(itertools.accumulate(1 / (rank + 3) for rank in range(1500)))
SHARES = (("Training", 0.8), ("Validation", 0.1), ("Test", 0.1))


def make_files(folder: Path, notes: int, words: int, seed: int = 0) -> list[Path]:
    """MEDEC-like CSVs of distinct notes in sentences of ten words; every other note holds an error."""
    rng = random.Random(seed)
    vocabulary = ["".join(rng.choices(LETTERS, k=rng.randint(1, 9))) for _ in WEIGHTS]
    paths, number = [], 0
    for name, share in SHARES:
        paths.append(folder / f"MEDEC-BENCH-{name}Set.csv")
        with paths[-1].open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for _ in range(round(notes * share)):
                writer.writerow(make_row(rng, vocabulary, f"bench-{number}", words, error=number % 2 == 1))
                number += 1
    return paths


def make_row(rng: random.Random, vocabulary: list[str], note_id: str, words: int, *, error: bool) -> list[str]:
    sentences = [
        " ".join(rng.choices(vocabulary, cum_weights=WEIGHTS, k=10)).capitalize() + "." for _ in range(words // 10)
    ]
    place = rng.randrange(len(sentences))
    changed = " ".join([*sentences[place].split()[:-1], "warfarin."])
    wrong = [*sentences[:place], changed, *sentences[place + 1 :]]
    shown = wrong if error else sentences
    numbered = "\n".join(f"{i} {sentence}" for i, sentence in enumerate(shown))
    head = [note_id, " ".join(shown), numbered]
    if not error:
        return [*head, "0", "NA", "-1", "NA", "NA", "NA"]
    return [*head, "1", "diagnosis", str(place), wrong[place], sentences[place], " ".join(sentences)]


def cpu_seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """The fastest of some runs."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def read(paths: list[Path]) -> int:
    return sum(len(row.examples) for path in paths for _, row in converted_rows(path, ReadReport()))


def prepared(paths: list[Path], threshold: float | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        prepare(PrepareOptions(paths, Path(folder) / "out", near_threshold=threshold))


def pandas_prepared(paths: list[Path]) -> None:
    """The same columns with pandas; the error sentence is found with difflib."""
    import pandas

    prompts = load_prompt_set("clinical")
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            frame = pandas.read_csv(path, dtype=str, keep_default_na=False)
            rows = []
            for _, row in frame.iterrows():
                sentences = [line.partition(" ")[2] for line in row["Sentences"].split("\n")]
                if row["Error Flag"] == "1":
                    assert difflib.get_close_matches(row["Error Sentence"], sentences, n=1, cutoff=0.9)
                label = "INCORRECT" if row["Error Flag"] == "1" else "CORRECT"
                info = {"note_id": row["Text ID"], "sentences": sentences, **row[3:].to_dict(), "text": row["Text"]}
                rows.append(
                    {
                        "data_source": path.stem,
                        "prompt": prompts.assessor(row["Text"]),
                        "ability": "medical_error_detection",
                        "reward_model": {"style": "rule", "ground_truth": label},
                        "extra_info": info,
                    }
                )
            pandas.DataFrame(rows).to_parquet(Path(folder) / f"{path.stem}.parquet")


def texts_of(path: Path, count: int) -> list[str]:
    texts = [normalised(row.examples[0].text) for _, row in converted_rows(path, ReadReport())]
    return texts[:count]


def search(texts: list[str], others: list[str], threshold: float = 0.85) -> int:
    import numpy as np

    with tempfile.TemporaryFile() as file:
        spool = TextSpool(file)
        for text in (*texts, *others):
            spool.append(text.encode())
        spool.close_writing()
        signer = Signer(threshold)
        left = sign_texts(signer, spool, np.arange(len(texts)), lambda done: None)
        right = sign_texts(signer, spool, np.arange(len(texts), len(spool)), lambda done: None)
        return sum(1 for _ in near_pairs(spool, signer, threshold, left, right))


def difflib_pairs(texts: list[str], others: list[str]) -> None:
    for text in texts:
        matcher = difflib.SequenceMatcher(None, "", text, autojunk=False)
        for other in others:
            matcher.set_seq1(other)
            matcher.quick_ratio()


def large(notes: int, words: int, near: bool) -> dict[str, float]:
    """Seconds and peak memory of one preparation in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        paths = make_files(Path(folder), notes, words, seed=1)
        arguments = [sys.executable, "-m", "medserl", "data", "prepare", *map(str, paths), "--out", f"{folder}/out"]
        arguments += [] if near else ["--no-near-duplicates"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.monotonic()
        subprocess.run(arguments, cwd=Path(__file__).resolve().parents[1], check=True)
        wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"notes": notes, "wall_s": wall, "cpu_s": cpu, "peak_mib": after.ru_maxrss / 1024}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--notes", type=int, default=5000, help="notes to read and prepare (default 5000; 0: --large only)"
    )
    parser.add_argument("--near", type=int, default=2000, help="notes searched for near-duplicates (default 2000)")
    parser.add_argument("--words", type=int, default=120, help="words per note (default 120)")
    parser.add_argument("--large", type=int, default=0, metavar="N", help="also prepare N notes in another process")
    parser.add_argument("--large-near", action="store_true", help="with the near-duplicate search")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    large_arguments = (options.large, options.words, options.large_near)
    if options.large and not options.notes:
        print(", ".join(f"{key} {value:.0f}" for key, value in large(*large_arguments).items()))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        paths = make_files(Path(folder), options.notes, options.words)
        size = sum(path.stat().st_size for path in paths) / options.notes
        figures = {
            "read": options.notes / cpu_seconds(lambda: read(paths)),
            "prepare": options.notes / cpu_seconds(lambda: prepared(paths, None)),
            "pandas": options.notes / cpu_seconds(lambda: pandas_prepared(paths), 1),
        }
        texts = texts_of(paths[0], options.near)
        others = texts_of(paths[2], options.near // 8)
        figures["near"] = (len(texts) + len(others)) / cpu_seconds(lambda: search(texts, others), 1)
        few = cpu_seconds(lambda: difflib_pairs(texts[:10], others[:50]), 1) / 500
        figures["difflib"] = (len(texts) + len(others)) / (few * len(texts) * len(others))
    print(f"{options.notes} notes of {size:.0f} bytes")
    print(f"read and checked       {figures['read']:10.0f} notes/s")
    print(f"prepared               {figures['prepare']:10.0f} notes/s")
    print(f"pandas + difflib       {figures['pandas']:10.0f} notes/s   prepared / this: ", end="")
    print(f"{figures['prepare'] / figures['pandas']:.1f}")
    print(f"near-duplicate search  {figures['near']:10.0f} texts/s   ({len(texts)} x {len(others)})")
    print(f"difflib, every pair    {figures['difflib']:10.1f} texts/s   search / this: ", end="")
    print(f"{figures['near'] / figures['difflib']:.0f}")
    if options.large:
        figures["large"] = large(*large_arguments)
        print(", ".join(f"{key} {value:.0f}" for key, value in figures["large"].items()))
    if options.json is not None:
        options.json.write_text(json.dumps(figures) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
