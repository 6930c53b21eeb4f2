"""Names from data in Markdown, and what a terminal and a pipe are shown."""

import os
import pty
import re
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from medserl.report.tables import code, escape, table
from medserl.report.terminal import Table, show, show_markdown

RENDERER = MarkdownIt("commonmark").enable("table")
ODD = st.text(st.sampled_from(list("ab|<>&*_`[]()\\!#~\n\t \"'é-.1")), max_size=15)


def cells(markdown: str) -> list[list[str]]:
    """The texts of a rendered table's cells; fails on anything that is not text."""
    found: list[list[str]] = []
    for token in RENDERER.parse(markdown):
        if token.type == "tr_open":
            found.append([])
        elif token.type == "inline":
            assert all(child.type == "text" for child in token.children or []), token.content
            found[-1].append("".join(child.content for child in token.children or []))
    return found


@given(st.lists(st.tuples(ODD, ODD), min_size=1, max_size=4))
def test_cells_show_the_names_as_they_are(names: list[tuple[str, str]]) -> None:
    rows = [[escape(a), escape(b), "1"] for a, b in names]
    wanted = [[" ".join(a.split()), " ".join(b.split()), "1"] for a, b in names]
    assert cells("\n".join(table(["x", "y", "n"], rows, "llr")))[1:] == wanted


def test_the_known_case() -> None:
    assert escape("dose|route <b>x</b>") == r"dose\|route &lt;b&gt;x&lt;/b&gt;"
    assert escape("val/greedy/balanced_accuracy") == "val/greedy/balanced_accuracy"


@given(ODD.filter(lambda words: words.strip()))
def test_code_is_verbatim(words: str) -> None:
    (paragraph,) = [token for token in RENDERER.parse(f"- {code(words)}") if token.type == "inline"]
    (inside,) = paragraph.children or []
    assert inside.type == "code_inline" and inside.content.strip() == " ".join(words.split())


ROWS = Table(["check", "value"], [["disk [red]", "ok"], ["a much longer name", "BAD"]])


def on_terminal(act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> str:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        act()
        terminal.flush()
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    return shown


def test_a_pipe_gets_aligned_text(capsys: pytest.CaptureFixture[str]) -> None:
    show(ROWS)
    assert capsys.readouterr().out == ("check               value\ndisk [red]          ok\na much longer name  BAD\n")
    show(Table(["a"], [["b"]], "said otherwise"))
    show_markdown("# x | y")
    assert capsys.readouterr().out == "said otherwise\n# x | y\n"


def test_a_terminal_gets_colours_unless_it_wants_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = on_terminal(lambda: show(ROWS), monkeypatch)
    assert "disk [red]" in shown and re.search("\x1b\\[[0-9;]*31mBAD", shown)
    monkeypatch.setenv("NO_COLOR", "1")
    shown = on_terminal(lambda: show(ROWS), monkeypatch)
    assert "BAD" in shown and not re.search("\x1b\\[[0-9;]*3[0-7]m", shown)


def test_a_terminal_is_drawn_the_markdown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    text = "\n".join(["# Title", "", *table(["a"], [[escape("x|<b>")]], "l")])
    shown = on_terminal(lambda: show_markdown(text), monkeypatch)
    assert "x|<b>" in shown and "| ---" not in shown and "# Title" not in shown
