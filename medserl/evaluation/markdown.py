"""A results file as Markdown, with its plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medserl.evaluation.plots import Bar, bar_chart, reliability_plot
from medserl.report.tables import code, escape, table

# Name in the table, place in ``metrics`` and in a baseline (None: a baseline has none), name of the interval.
ROWS: tuple[tuple[str, tuple[str, ...], str | None], ...] = (
    ("error flag accuracy", ("official", "error_flag_accuracy"), "accuracy"),
    ("error sentence accuracy", ("official", "error_sentence_accuracy"), "error_sentence_accuracy"),
    ("balanced accuracy", ("flag", "balanced_accuracy"), "balanced_accuracy"),
    ("MCC", ("flag", "mcc"), "mcc"),
    ("recall CORRECT", ("flag", "recall_correct"), "recall_correct"),
    ("recall INCORRECT", ("flag", "recall_incorrect"), "recall_incorrect"),
    ("precision CORRECT", ("flag", "precision_correct"), "precision_correct"),
    ("precision INCORRECT", ("flag", "precision_incorrect"), "precision_incorrect"),
    ("parse failures (share)", ("flag", "parse_failure_rate"), None),
    ("accuracy where parsed", ("flag", "accuracy_parsed"), "accuracy_parsed"),
    ("balanced accuracy where parsed", ("flag", "balanced_accuracy_parsed"), "balanced_accuracy_parsed"),
)
_BASELINES = ("always_correct", "always_incorrect")
_BARS = ("error flag accuracy", "error sentence accuracy", "balanced accuracy", "recall CORRECT", "recall INCORRECT")


def results_markdown(results: Mapping[str, Any]) -> str:
    """The whole report of one results file."""
    metrics, data, settings = results["metrics"], results["data"], results["settings"]
    how = "greedy" if not settings["temperature"] else f"temperature {settings['temperature']}"
    if settings["samples"] > 1:
        how += f", majority of {settings['samples']}"
    lines = [
        f"# {escape(results['model']['name'])} on {escape(data['source'])}",
        "",
        f"{data['texts']} texts, {data['incorrect']} with an error; format {settings['format']}, "
        f"prompt set {escape(settings['prompt_set'])}, {how}, seed {settings['seed']}.",
        "",
        *_headline_table(results),
        "",
        f"Intervals draw the {metrics['groups']} groups of texts that belong together: versions of one note, and "
        "near-duplicates.",
        "",
        "![metrics](plots/metrics.svg)",
        "",
        *_type_table(results),
        *_parsing_lines(results),
        *_calibration_lines(metrics["calibration"]),
        *_sample_lines(metrics["samples"]),
        *_correction_lines(results),
        *_failure_lines(results),
        "## Made by",
        "",
        f"- {code(' '.join(results['command']))}",
        f"- medserl {results['medserl']}, commit {results['git_commit'] or 'unknown'}"
        f"{' with changes' if results['git_dirty'] else ''}, {results['started']}",
        f"- model {results['model']['sha256'][:16]}, data {data['sha256'][:16]}, "
        f"vLLM {results['packages'].get('vllm')}, {settings['device']}",
        "",
    ]
    return "\n".join(lines)


def _headline_table(results: Mapping[str, Any]) -> list[str]:
    metrics, baselines = results["metrics"], results["baselines"]
    rows = []
    for name, place, interval in ROWS:
        bounds = metrics["intervals"].get(interval) if interval else None
        constants = [number(_at(baselines[key], place)) for key in _BASELINES]
        rows.append([name, number(_at(metrics, place)), _bounds(bounds), *constants])
    lines = table(["", "result", "95 % interval", "always CORRECT", "always INCORRECT"], rows, "lrcrr")
    if reason := metrics["official"].get("no_error_sentence_accuracy"):
        lines += ["", f"Error sentence accuracy is n/a: {reason}."]
    return lines


def _type_table(results: Mapping[str, Any]) -> list[str]:
    by_type = results["metrics"]["by_error_type"]
    if not by_type:
        return []
    rows = []
    for kind, row in by_type.items():
        constants = [results["baselines"][key]["by_error_type"][kind] for key in _BASELINES]
        rows.append(
            [
                escape(kind),
                f"{row['n']:.0f}",
                number(row["recall"]),
                _bounds(row["recall_interval"]),
                number(row["precision"]),
                *(f"{number(constant['recall'])} / {number(constant['precision'])}" for constant in constants),
            ]
        )
    head = ["error type", "texts", "recall", "95 % interval", "precision", "always CORRECT", "always INCORRECT"]
    note = "A type's precision counts its texts against all correct texts; constant answers: recall / precision."
    return [*table(head, rows, "lrrcrcc"), "", note, ""]


def _parsing_lines(results: Mapping[str, Any]) -> list[str]:
    counts = results["metrics"].get("parsing")  # files of earlier versions have none
    if counts is None:
        return []
    others, failed = (sum(counts[key].values()) for key in ("other_form", "not_parsed"))
    text = (
        f"Of {counts['replies']} replies {counts['strict']} gave an answer in the strict form, {others} in another"
        f"{_kinds(counts['other_form'])}, {failed} gave none{_kinds(counts['not_parsed'])}."
    )
    if counts["replies"] and failed == counts["replies"]:
        text += f" No figure here says anything about the model. {_advice(results)}"
    return [text, ""]


def _kinds(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return f" ({', '.join(f'{kind} {count}' for kind, count in ordered)})" if counts else ""


def _advice(results: Mapping[str, Any]) -> str:
    """What to do where nothing parsed."""
    metrics, settings = results["metrics"], results["settings"]
    if 2 * metrics["cut_replies"] >= metrics["parsing"]["replies"]:
        change = ", or use --no-thinking" if settings.get("thinking") else ""
        return f"The replies ran into the limit of {settings.get('max_tokens')} tokens: raise --max-tokens{change}."
    return (
        "Read the replies: --keep-text writes them into predictions.jsonl. A model that does not know the format "
        "needs a prompt set that explains it (--prompt-set clinical) or a warm start (medserl sft)."
    )


def _calibration_lines(calibration: Mapping[str, Any] | None) -> list[str]:
    if calibration is None:
        return ["No calibration: no reply gave the log-probabilities of its verdict.", ""]
    return [
        f"Calibration over {calibration['n']} texts: ECE {number(calibration['ece'])}, Brier score "
        f"{number(calibration['brier'])} (the base rate alone: {number(calibration['brier_of_base_rate'])}).",
        "",
        "![reliability](plots/reliability.svg)",
        "",
    ]


def _sample_lines(samples: Mapping[str, Any] | None) -> list[str]:
    if samples is None:
        return []
    one = samples["mean"]
    return [
        f"Mean over the {samples['n']} single replies: accuracy {number(one['accuracy'])}, balanced accuracy "
        f"{number(one['balanced_accuracy'])}, parse failures {number(one['parse_failure_rate'])}; "
        f"{number(samples['agreement_with_majority'])} of the replies agree with their majority.",
        "",
    ]


def _correction_lines(results: Mapping[str, Any]) -> list[str]:
    corrections = results["metrics"]["corrections"]
    if corrections is None:
        return []
    lines = []
    if "rouge1" in corrections:
        rows = []
        for name, key in (("ROUGE-1", "rouge1"), ("BERTScore", "bertscore"), ("BLEURT", "bleurt")):
            score = corrections[key]
            if score is not None:
                # A constant answer never meets a correction, so every composite of it is the same number.
                constants = [number(results["baselines"][b]["rouge1_composite"]) for b in _BASELINES]
                rows.append([name, number(score["composite"]), number(score["pairs_mean"]), *constants])
        head = ["correction", "composite", "where both sides correct", "always CORRECT", "always INCORRECT"]
        lines = table(head, rows, "lrrrr")
        lines += ["", f"Aggregate of the three: {number(corrections['aggregate'])}."]
    return [*lines, *(f"{escape(note)}." for note in corrections["notes"]), ""]


def _failure_lines(results: Mapping[str, Any]) -> list[str]:
    metrics = results["metrics"]
    lines = [f"- {count} replies did not parse: {escape(why)}" for why, count in metrics["failures"].items()]
    if metrics["cut_replies"]:
        lines.append(f"- {metrics['cut_replies']} replies ran into the limit of tokens")
    lines += [f"- {escape(note)}" for note in results["data"]["notes"]]
    return ["## Left out or failed", "", *lines, ""] if lines else []


def result_plots(results: Mapping[str, Any]) -> dict[str, str]:
    """File name → SVG."""
    metrics, baselines = results["metrics"], results["baselines"]
    bars = []
    for name, place, interval in ROWS:
        if name in _BARS:
            constants = [_at(baselines[key], place) for key in _BASELINES] if "accuracy" in name else []
            bounds = metrics["intervals"].get(interval)
            bars.append(_bar(name, _at(metrics, place), bounds, [c for c in constants if c is not None]))
    for kind, row in metrics["by_error_type"].items():
        bars.append(_bar(f"recall {kind} ({row['n']:.0f})", row["recall"], row["recall_interval"], []))
    plots = {"metrics.svg": bar_chart(f"{results['model']['name']} on {results['data']['source']}"[-70:], bars)}
    if metrics["calibration"] is not None:
        plots["reliability.svg"] = reliability_plot("Reliability of the verdicts", metrics["calibration"]["bins"])
    return plots


def _bar(name: str, value: float | None, bounds: Sequence[float | None] | None, constants: Sequence[float]) -> Bar:
    interval = None
    if bounds is not None and bounds[0] is not None and bounds[1] is not None:
        interval = (bounds[0], bounds[1])
    return Bar(name, value, interval, max(constants, default=None))


def number(value: float | None) -> str:
    """Three decimals, or n/a."""
    return "n/a" if value is None else f"{value:.3f}"


def _bounds(bounds: Sequence[float | None] | None) -> str:
    if bounds is None or bounds[0] is None or bounds[1] is None:
        return "n/a"
    return f"{bounds[0]:.3f} to {bounds[1]:.3f}"


def _at(node: Mapping[str, Any], place: Sequence[str]) -> Any:
    for key in place:
        node = node[key]
    return node
