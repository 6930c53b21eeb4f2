"""The page of games in a real browser: everything is shown, nothing is markup, filters are those of the terminal."""

import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medserl.errors import ConfigError
from medserl.gamelog.kinds import SORTS, Row, surprise
from medserl.gamelog.log import GameLog
from medserl.gamelog.read import read_games
from medserl.report.games_page import write_games
from medserl.report.games_text import Choice, Tally
from medserl.report.plots import line_plot
from tests.gamelog.made import HOSTILE, game, made_log
from tests.report.browser import browser

GAMES = 1 + 3 * 40 + 2 * 10
Opened = Callable[..., Any]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three rounds; the last game's every text is hostile and holds letters outside the first plane."""
    run_dir = made_log(tmp_path_factory.mktemp("games") / "run & <b>co")
    row = game(3, 8)
    odd = f"{HOSTILE} 🩺 has 🫀 pain. Ünder \u202e"
    row |= {"place": 40, "note_id": HOSTILE, "error_type": HOSTILE, "ruling_reason": HOSTILE, "original": odd}
    row |= {"shown": odd.replace("🫀", "🫁"), "second_reason": HOSTILE, "second_ruling": "void"}
    row["attempts"] = [turn | {"modified": row["shown"], "reply": HOSTILE} for turn in row["attempts"]]
    row["assessor"] |= {"reply": HOSTILE, "form": HOSTILE}
    rows = [r for r in read_games(run_dir) if r["round"] == 3]
    GameLog(run_dir).write(3, [*rows, row])
    return run_dir


@pytest.fixture(scope="module")
def rows(run: Path) -> list[Row]:
    return list(read_games(run))


@pytest.fixture(scope="module")
def file(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "games.html"
    assert write_games([run], out) == GAMES
    return out


@pytest.fixture
def opened(chromium: Any, file: Path) -> Iterator[Opened]:
    """Opens the page; whatever it complains of, and whatever it asks for beside itself, fails the test."""
    contexts, complaints = [], []

    def open_page(width: int = 1280, scheme: str = "light", path: str = "") -> Any:
        context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.on(
            "request",
            lambda request: None if request.url.startswith(f"file://{file}") else complaints.append(request.url),
        )
        page.goto(f"file://{file}{path}")
        page.wait_for_selector("article")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


def status(page: Any) -> str:
    return str(page.inner_text("#status"))


def filtered(page: Any, **state: Any) -> list[int]:
    """Places of the games that the page's own filter chooses, in its order."""
    page.evaluate("state => page.filter({...FREE, ...state})", state)
    found: list[int] = page.evaluate("page.shown")
    return found


def test_the_page_is_private_and_one_file(file: Path) -> None:
    text = file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "run &amp; &lt;b&gt;co" in text and "onerror" not in text
    assert not re.search(r"""(?:src|href)=|https?://|url\(|@import""", text)


def test_all_games_are_there_with_all_their_texts(opened: Opened, rows: list[Row]) -> None:
    page = opened()
    assert status(page) == f"{GAMES} games"
    filtered(page, sort="oldest")
    page.evaluate("page.games.loadAll()")
    found = page.evaluate("page.shown.map((game) => page.games.texts(game))")
    for row, texts in zip(rows, found, strict=True):
        assert (texts["original"], texts["shown"], texts["id"]) == (row["original"], row["shown"], row["note_id"])
        assert [a["modified"] for a in texts["attempts"]] == [a["modified"] for a in row["attempts"]]
        assert [a["reply"] for a in texts["attempts"]] == [a["reply"] for a in row["attempts"]]
        assert (texts["assessor"] or {}).get("reply") == (row["assessor"] or {}).get("reply")


def test_nothing_in_a_note_is_markup(opened: Opened) -> None:
    page = opened(path="#text=onerror")
    page.wait_for_selector("article")
    page.locator("article .head").first.click()
    body = page.locator("article .body")
    assert HOSTILE in body.inner_text() and "🫁" in body.locator("ins").first.inner_text()
    assert page.evaluate("window.pwned") is None
    assert page.locator("article img, article script, article b b, h1 b").count() == 0
    assert HOSTILE in page.locator("select[name=type]").inner_text()


CHOICES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"from": "2", "to": "2"}, {"rounds": (2, 2)}),
    ({"source": "held-out greedy"}, {"source": "held-out greedy"}),
    ({"mode": "benign"}, {"mode": "benign"}),
    ({"mode": "error", "type": "pharmacotherapy"}, {"mode": "error", "error_type": "pharmacotherapy"}),
    ({"reason": "identical"}, {"reason": "identical"}),
    ({"outcome": "assessor wrong"}, {"outcome": "assessor wrong"}),
    ({"outcome": "all attempts rejected"}, {"outcome": "all attempts rejected"}),
    ({"outcome": "no answer"}, {"outcome": "no answer"}),
    ({"contradiction": True}, {"contradiction": True}),
    ({"disagreement": True}, {"disagreement": True}),
    ({"text": 'having "year-old woman"'}, {"search": 'having "year-old woman"'}),
    ({"text": "WARD-train", "mode": "error"}, {"search": "WARD-train", "mode": "error"}),
    ({"text": "nowhere in any note"}, {"search": "nowhere in any note"}),
]


def test_the_page_and_the_terminal_choose_the_same_games(opened: Opened, rows: list[Row]) -> None:
    page = opened()
    sizes = []
    for state, choice in CHOICES:
        expected = {i for i, row in enumerate(rows) if Choice(**choice).fits(row)}
        found = filtered(page, **state)
        assert set(found) == expected and len(found) == len(expected), state
        sizes.append(len(found))
        tally = Tally()
        for i in expected:
            tally.see(rows[i])
        shown = page.evaluate("figures(page.games, page.shown)")
        assert sorted(shown) == sorted([name, f"{share} {of}".strip()] for name, share, of in tally.rows), state
    assert 0 < sizes[0] < GAMES and sizes[-1] == 0 and all(sizes[:-1])


def test_games_are_sorted(opened: Opened, rows: list[Row]) -> None:
    page = opened()
    bits = [surprise(rows[i]) for i in filtered(page, sort="surprise")]
    known = [value for value in bits if value is not None]
    assert bits[: len(known)] == known and known == pytest.approx(sorted(known, reverse=True), abs=0.02)
    assert [rows[i]["round"] for i in filtered(page, sort="newest")] == sorted((r["round"] for r in rows), reverse=True)
    assert filtered(page, sort="oldest") == list(range(GAMES))


def test_a_game_unfolds_to_every_attempt_and_reply(opened: Opened, rows: list[Row]) -> None:
    page = opened()
    (place,) = [i for i, row in enumerate(rows) if (row["round"], row["place"], row["source"]) == (2, 5, "self-play")]
    page.evaluate("async i => { await page.filter({...FREE}); page.shown = [i]; page.draw(true); }", place)
    page.locator(".head").click()
    body = page.locator(".body").inner_text()
    assert len(rows[place]["attempts"]) == 3 and page.locator(".body li").count() == 3
    for turn in (*rows[place]["attempts"], rows[place]["assessor"]):
        assert turn["reply"] in body
    assert "rejected: unparseable" in body and "accepted" in body and "Second referee" in body
    assert (
        page.locator(".body del").first.inner_text() and page.locator(".head").get_attribute("aria-expanded") == "true"
    )
    page.locator(".head").click()
    assert page.locator(".body").count() == 0


def test_a_line_says_why_a_game_counts_for_nothing(opened: Opened, rows: list[Row]) -> None:
    page = opened()
    for state in ({"outcome": "all attempts rejected"}, {"ruling": "void"}):
        first = rows[filtered(page, **state)[0]]
        reasons = {a["reason"].replace("_", " ") for a in first["attempts"] if a["reason"]}
        named = [f"({first['ruling_reason']})"] if first["ruling"] else sorted(reasons)
        page.wait_for_selector("article")
        said = page.inner_text("article .facts")
        assert named and all(word in said for word in named), said


def test_it_is_used_without_a_mouse(opened: Opened) -> None:
    page = opened()
    press, focused = page.keyboard.press, "document.activeElement.dataset.place"
    press("j"), press("ArrowDown"), press("j"), press("k")
    assert page.evaluate(focused) == "1"
    press("Enter")
    assert page.locator("article.open").get_attribute("aria-posinset") == "2"
    press("j")
    assert page.evaluate(focused) == "2"
    press("Escape")
    assert page.locator("article.open").count() == 0
    press("End")
    page.wait_for_selector(f"article[aria-posinset='{GAMES}']")
    press("Home")
    assert page.evaluate(focused) == "0"
    press("/")
    page.keyboard.type("onerror")
    page.get_by_text(f"1 of {GAMES} games").wait_for()
    press("Escape")
    press("c")
    assert page.is_checked("input[name=contradiction]")
    press("?")
    assert page.locator("#help").is_visible()
    press("Escape")
    assert not page.locator("#help").is_visible()
    assert "contradiction=yes" in page.url and "text=onerror" in page.url
    page.get_by_role("button", name="Clear all").click()
    page.get_by_text(re.compile(f"^{GAMES} games")).wait_for()


def test_the_address_brings_the_filters_back(opened: Opened, rows: list[Row]) -> None:
    page = opened(path="#mode=error&sort=surprise&reason=identical")
    expected = sum(Choice(mode="error", reason="identical").fits(row) for row in rows)
    assert status(page) == f"{expected} of {GAMES} games"
    assert page.input_value("select[name=reason]") == "identical" and "bits" in page.inner_text("article")


def test_an_address_that_names_nothing_known_chooses_everything(opened: Opened) -> None:
    page = opened(path="#mode=bogus&sort=bogus&run=away&x=y&from=&reason=%3Cb%3E")
    assert status(page) == f"{GAMES} games" and page.input_value("select[name=sort]") == "newest"
    assert page.evaluate("SORTS") == list(SORTS)


CONTRAST = """names => {
  const style = getComputedStyle(document.documentElement);
  const light = (name) => {
    const probe = document.body.appendChild(document.createElement('i'));
    probe.style.color = `var(--${name})`;
    const parts = getComputedStyle(probe).color.match(/\\d+/g).map(Number).map((v) => v / 255);
    probe.remove();
    const [r, g, b] = parts.map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return names.map(([a, b]) => {
    const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05);
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 800, 400])
def test_it_fits_a_phone_and_can_be_read_in_the_dark(opened: Opened, scheme: str, width: int) -> None:
    page = opened(width, scheme)
    page.locator("article .head").nth(1).click()
    page.wait_for_selector(".body")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.getElementById('scroll').scrollWidth") <= width
    # Whatever a line says of a game, its note is not cut off.
    page.evaluate("page.filter({...FREE, sort: 'surprise'})")
    cut = """[...document.querySelectorAll('.head')].filter((head) =>
      head.querySelector('.snippet').getBoundingClientRect().bottom > head.getBoundingClientRect().bottom).length"""
    assert page.locator(".head .snippet").count() > 3 and page.evaluate(cut) == 0
    page.locator("article .head").nth(1).click()
    pairs = [("ink", "ground"), ("ink", "raised"), ("faint", "ground"), ("faint", "raised"), ("gone", "gone-ground")]
    pairs += [("came", "came-ground"), ("right", "ground"), ("wrong", "ground"), ("accent", "ground")]
    assert min(page.evaluate(CONTRAST, pairs)) >= 4.5  # WCAG 2.1, AA
    # What went and what came differ by their lines too, not by colour alone.
    lines = "tag => getComputedStyle(document.querySelector(tag)).textDecorationLine"
    assert (page.evaluate(lines, "del"), page.evaluate(lines, "ins")) == ("line-through", "underline")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert dark is (scheme == "dark")


def test_only_what_is_seen_is_drawn_and_unfolding_moves_nothing_above(opened: Opened) -> None:
    page = opened()
    assert page.locator("article").count() < 25
    page.evaluate("page.go(70)")
    page.wait_for_selector("[data-place='70']")
    assert (
        page.evaluate(
            "Math.abs(page.top(70) - document.querySelector(\"[data-place='70']\").closest('article').offsetTop)"
        )
        < 1
    )
    before = page.locator("[data-place='70']").bounding_box()["y"]
    page.keyboard.press("Enter")
    page.wait_for_selector(".body")
    assert abs(page.locator("[data-place='70']").bounding_box()["y"] - before) < 2
    below = page.evaluate("[page.top(71), page.top(70) + page.row + document.querySelector('.body').offsetHeight]")
    assert below[0] == pytest.approx(below[1], abs=1)


def test_changes_are_shown_word_by_word(opened: Opened) -> None:
    page = opened()
    diff = "([a, b]) => wordDiff(a, b).map(([kind, text]) => `${kind}:${text}`)"
    assert page.evaluate(diff, ["a b c d", "a x c y d"]) == [
        "same:a ",
        "gone:b ",
        "came:x ",
        "same:c ",
        "came:y ",
        "same:d",
    ]
    assert page.evaluate(diff, ["a b", "a b"]) == ["same:a b"]
    assert page.evaluate(diff, ["", "a"]) == ["came:a"]
    assert page.evaluate(diff, ["He has a cough.", "He has a cough. New."]) == ["same:He has a cough. ", "came:New."]


def test_a_redacted_page_holds_no_text(chromium: Any, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "redacted.html"
    write_games([run], out, redact=True)
    page = chromium.new_page()
    page.goto(f"file://{out}")
    page.wait_for_selector("article")
    page.locator(".head").first.click()
    found = page.evaluate("(async () => { await page.games.loadAll(); return JSON.stringify(page.games.chunks); })()")
    page.close()
    assert not {note["original"] for note in read_games(run)} & set(re.findall(r'"([^"]+)"', found))
    assert "year-old" not in found and "ward-train" not in found and "final_answer" not in found


def test_runs_are_told_apart(chromium: Any, tmp_path: Path) -> None:
    runs = [made_log(tmp_path / name / "run", 1, 5, 0) for name in ("a", "b")]
    write_games(runs, tmp_path / "both.html")
    page = chromium.new_page()
    page.goto(f"file://{tmp_path}/both.html#run=b%2Frun")
    page.get_by_text("5 of 10 games").wait_for()
    assert page.inner_text("article .facts span").startswith("b/run, round 1")
    page.close()


def test_a_run_without_games_writes_nothing(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no games"):
        write_games([run, tmp_path / "empty"], out)
    assert not out.exists()
    with pytest.raises(ConfigError, match="cannot be written"):
        write_games([run], tmp_path / "no" / "page.html")


# ---------------------------------------------------------------- plots of the other pages, in the same browser

COLOURS = """() => [...document.querySelectorAll('svg text, svg path, svg use')].map(element => {
  const style = getComputedStyle(element)
  return [element.tagName, style.fill, style.stroke].join('|')
})"""


def contrast(one: str, other: str) -> float:
    """Of two colours as a browser writes them; 21 is black on white (WCAG 2.2, "contrast ratio")."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_a_plot_has_the_readers_colours(chromium: Any) -> None:
    """Ten curves, one of each colour: text, curves and ground change together, and are told apart on both grounds."""
    svg = line_plot("t", {f"c{i}": [[(0, i), (1, i + 1)]] for i in range(10)}, unit="u", chance=0.5)
    grounds = {}
    for scheme, least in (("light", 1.8), ("dark", 4.5)):
        page = chromium.new_page(color_scheme=scheme)
        page.set_content(f"<body>{svg}</body>")
        found = [entry.split("|") for entry in page.evaluate(COLOURS)]
        ground = grounds[scheme] = next(fill for tag, fill, _ in found if tag == "path" and fill != "none")
        assert all(contrast(fill, ground) > 12 for tag, fill, _ in found if tag == "text")
        curves = {stroke for tag, fill, stroke in found if tag == "path" and fill == "none" and stroke != "none"}
        seen = sorted(contrast(stroke, ground) for stroke in curves)
        assert len(seen) >= 12 and seen[2] > least, (scheme, seen)  # the two faintest are the grid and the axes
        page.close()
    assert grounds == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 28)"}
