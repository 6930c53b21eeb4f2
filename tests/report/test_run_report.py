"""``report.html`` and ``report.json``: whole, self-contained, private, and refused in one sentence."""

import json
import logging
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from omegaconf import OmegaConf

from medserl.cli.main import main
from medserl.cli.train import _report
from medserl.errors import ConfigError
from medserl.report.run_report import DATA, PAGE, next_steps, page, sample_games, summary_table, write_report
from medserl.run import checkpoint
from medserl.run.run_dir import RunDir
from tests.gamelog.made import made_log


def make_run(folder: Path) -> Path:
    """A run directory of 30 rounds, validated every third, whose 24th round was the best."""
    owner = RunDir(folder)
    owner.open(OmegaConf.create({"medserl": {"seed": 5}, "trainer": {"test_freq": 3}}), "embedded", ["medserl.seed=5"])
    owner.close()
    rows = []
    for number in range(1, 31):
        row = {"round": number, "epoch": 0, "mean_reward": 0.01 * number, "vcf_acceptance_rate": 0.5}
        row |= {"vcf_rejections/leak": 1, "vcf_rejections/empty": 0, "timing_s/gen": 4.0, "timing_s/step": 5.0}
        if number % 3 == 0:
            row |= {"val/greedy/balanced_accuracy": 0.7, "val/greedy/recall_correct": 0.9}
            row |= {"val/greedy/recall_incorrect": 0.5, "val/texts_correct": 100.0, "val/texts_incorrect": 100.0}
        rows.append(row)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "checkpoints/global_step_24").mkdir(parents=True)
    checkpoint.mark_best(folder / "checkpoints", 24, "val/greedy/balanced_accuracy", 0.7)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """See `make_run`."""
    return make_run(tmp_path / "run")


def test_it_says_what_became_of_the_run(run: Path) -> None:
    write_report(run)
    report = json.loads((run / DATA).read_text())
    assert report["rounds"] == 30 and report["seed"] == 5
    assert report["flattened"]["reward"]["state"] == "rising"
    assert report["flattened"]["acceptance"]["state"] == "flattened"
    assert report["flattened"]["held-out notes"]["state"] == "too few rounds"
    assert report["best"]["checkpoint"] == "global_step_24" and report["best"]["value"] == 0.7
    assert report["starts"][-1]["packages"]["verl"] and "git_commit" in report["starts"][-1]
    assert report["configuration"]["medserl"] == {"seed": 5}


def test_the_page_needs_nothing_else_and_is_private(run: Path) -> None:
    write_report(run)
    text = (run / PAGE).read_text()
    assert not re.search(r"<script|<link|<img|(src|href)=.(?!#)|url\((?!#)|@import", text)
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    assert [url for url in re.findall(r"https?://[^\"' ]+", text) if "w3.org" not in url] == []
    plots = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(plots) == 6  # the answer, the time, four curves
    for plot in (plots[0], *plots[2:]):
        assert "best, round 24" in "".join(ElementTree.fromstring(plot).itertext())
    assert "Entropy of the policy: not measured in this run." in text
    assert "Best checkpoint by balanced accuracy (greedy): round 24, with 0.700." in text
    assert "chance" in plots[0] and "chance" not in plots[2]
    assert "too few rounds" in text and "embedded medserl.seed=5" in text
    assert text.index("balanced accuracy (greedy) on 200 held-out texts") < text.index("<svg"), "the answer leads"
    assert "the edit says what it is" in text and "an empty reply" not in text
    assert "<code>medserl.seed</code>" in text, "what differs from the default"
    assert f"medserl export {run} --out model" in text
    assert (run / PAGE).stat().st_mode & 0o077 == 0
    assert (run / DATA).stat().st_mode & 0o077 == 0


def test_a_cut_last_line_of_a_running_run_is_left_out(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"round": 31, "mean')
    assert write_report(run)["rounds"] == 30


def test_what_is_no_run_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"has no metrics\.jsonl"):
        write_report(tmp_path)
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(ConfigError, match="no round is recorded yet"):
        write_report(run)
    assert main(["report", str(tmp_path)]) == 2
    assert "give the directory of a run" in capsys.readouterr().err


def test_the_command_prints_the_sentences(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "Reward (mean_reward): not flattened, still rising" in printed
    assert str(run / PAGE) in printed
    assert f"\ntake the best model: medserl export {run} --out model\n" in printed


def test_a_run_ends_with_the_answer_and_what_to_look_at(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    made_log(run)
    logging.getLogger("medserl").propagate = True
    with caplog.at_level(logging.INFO, "medserl.run"):
        _report(run)
    answer, best, page_, games = caplog.messages
    assert answer.startswith("No change can be told from noise: balanced accuracy (greedy)")
    assert best.startswith("Best checkpoint") and page_ == f"report: {run / PAGE}"
    assert games.endswith(f": medserl games {run}")


def test_alarms_stand_in_the_report(run: Path) -> None:
    assert write_report(run)["alarms"] is None
    assert "Alarms were not looked for in this run." in (run / PAGE).read_text()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for raised, told in ((set(), "No alarm was raised."), ({7, 8}, "Alarms: kl in 2 rounds (first 7, last 8).")):
        lines = (json.dumps({**row, "alarm/kl": float(row["round"] in raised)}) + "\n" for row in rows)
        (run / "metrics.jsonl").write_text("".join(lines))
        assert told in str(summary_table(write_report(run)))
        assert told in (run / PAGE).read_text()


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("metrics.jsonl", b"[1,2]\n", "no line that is a round's"),
        ("metrics.jsonl", b"\x93\xff\x00{" * 50, "no line that is a round's"),
        ("provenance.json", b'{"starts": [{"started": ', "is damaged"),
        ("provenance.json", b'{"starts": []}', "how the run was started"),
        ("provenance.json", b'{"starts": [{"packages": [1]}]}', "how the run was started"),
        ("provenance.json", b"[]", "is damaged"),
        ("provenance.json", b"[" * 100_000, "is damaged"),
        ("config.yaml", b"a: [", "is damaged"),
        ("config.yaml", b"", "has no medserl"),
        ("config.yaml", b"- a", "has no medserl"),
        ("checkpoints/best.json", b"x", "which checkpoint is the best"),
        ("checkpoints/best.json", b'{"step": 30}', "which checkpoint is the best"),
        ("checkpoints/best.json", b'{"step": 30, "metric": [], "value": "much"}', "which checkpoint is the best"),
    ],
)
def test_damaged_files_of_a_run_are_told_and_nothing_is_written(
    run: Path, file: str, content: bytes, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / file).write_bytes(content)
    assert main(["report", str(run)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"medserl: error: {run / file}: ") and told in error and error.count("\n") == 1
    assert not (run / PAGE).exists() and not (run / DATA).exists()


def test_lines_that_are_none_are_named(run: Path) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    lines[3:3] = ["garbage", '{"round": 4, "mean_reward": "much", "vcf_acceptance_rate": 1e999}']
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    report = write_report(run)
    assert report["rounds"] == 30 and report["lines_left_out"] == [4]
    assert "metrics.jsonl: line 4 cannot be read and was left out" in (run / PAGE).read_text()


def test_a_start_that_says_little_is_no_reason_for_no_report(run: Path) -> None:
    (run / "provenance.json").write_text('{"starts": [{"ended": {}}]}')  # of a file that was damaged and has begun anew
    assert write_report(run)["rounds"] == 30


def test_games_of_the_last_round_are_shown_in_the_page_alone(run: Path) -> None:
    assert sample_games(run) == [] and "Games lost and won" not in page(write_report(run))
    made_log(run)
    games = sample_games(run)
    assert all(game["said"].startswith("round 3 · asked for: ") and "p(INCORRECT)" in game["said"] for game in games)
    assert [game["how"] for game in games] == ["lost by the assessor"] * 5 + ["won by the assessor"] * 5
    assert all(("✓" in game["said"]) == (game["how"] == "won by the assessor") for game in games)
    note = "".join(text for kind, text in games[0]["note"] if kind != "gone")
    report = write_report(run)
    text = (run / PAGE).read_text()
    assert "Games lost and won" in text and "<ins>" in text
    assert note[:40] in text and note[:40] not in (run / DATA).read_text()
    assert ("see what was played, and why games were lost", f"medserl games {run}") in next_steps(report)


def test_a_note_is_no_markup(run: Path) -> None:
    report = write_report(run)
    game = {"how": "lost by the assessor", "said": "round 1 · referee: <b>"}
    text = page(report, [game | {"note": [("came", "<script>alert(1)</script>")]}])
    assert "<script" not in text and "&lt;script&gt;" in text and "referee: &lt;b&gt;" in text


def test_what_to_do_next_can_be_typed_as_it_stands(run: Path) -> None:
    commands = dict(next_steps(write_report(run)))
    assert commands["train longer, for twice as many rounds"] == (
        f"medserl train --config embedded --run-dir {run} --max-rounds 60 medserl.seed=5"
    )
    unseen = "judge it on notes that the run has not seen"
    assert commands[unseen] == "medserl evaluate --model model --data notes.jsonl"
    config = OmegaConf.load(run / "config.yaml")
    OmegaConf.save(
        OmegaConf.merge(config, {"medserl": {"notes": {"source": "ward", "path": None}}}), run / "config.yaml"
    )
    assert dict(next_steps(write_report(run)))[unseen] == "medserl evaluate --model model --data ward:test"
