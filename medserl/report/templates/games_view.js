/* The page: filters, a list that draws only what is seen, and the one game that is unfolded. */

const $ = (id) => document.getElementById(id);
const narrow = matchMedia("(max-width: 640px)");
const MARKS = { "assessor right": "✓", "assessor wrong": "✗", "no answer": "?" };

/* An element; text goes in as text, never as markup. */
function made(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null && child !== ""));
  return node;
}

const signed = (value) => (value === null ? "–" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`);

function diffNodes(parts) {
  const tags = { gone: "del", came: "ins" };
  return parts.flatMap(([kind, text]) => {
    const words = text.trimEnd();
    return tags[kind] && words ? [made(tags[kind], {}, words), text.slice(words.length)] : [text];
  });
}

function snippet(texts) {
  const { original, shown, attempts } = texts;
  const last = attempts.length ? attempts[attempts.length - 1] : null;
  const text = shown ?? last?.modified ?? null;
  if (text === null) return [last ? last.reply.slice(0, 240) : ""];
  if (original === null || original === text) return [text.slice(0, 240)];
  return diffNodes(around(wordDiff(original, text), narrow.matches ? 20 : 48));
}

function askedFor(games, game) {
  const mode = games.word("mode", "mode", game);
  const type = games.word("type", "type", game);
  const source = games.word("source", "source", game);
  if (mode === null) return source === "gold" ? "gold note" : source;
  return `asked for: ${mode === "error" && type ? `${type} error` : mode}`;
}

const plain = (word) => word.replaceAll("_", " ");

/* Why the filter rejected attempts of a game. */
function rejections(games, game) {
  return games.words.reason.filter((_, i) => (games.columns.reasons[game] >> i) & 1).map(plain).join(", ");
}

function facts(games, game, sort, why) {
  const { columns } = games;
  const ruling = games.word("ruling", "ruling", game);
  const second = games.word("ruling", "second", game);
  const answer = games.word("label", "answer", game);
  const truth = games.word("label", "truth", game);
  const run = games.runs.length > 1 ? `${games.runs[columns.run[game]]}, ` : "";
  const nodes = [made("span", {}, `${run}round ${columns.round[game]}`), made("b", {}, askedFor(games, game))];
  if (ruling !== null && columns.trusted[game]) {
    nodes.push(made("span", {}, "label as asked for, not checked: ", made("b", {}, ruling)));
  } else if (ruling !== null) {
    // A game that counts for nothing says why on a phone too.
    const said = made("span", { class: ["error", "benign"].includes(ruling) ? "aside" : "" }, why ? ` (${why})` : "");
    nodes.push(made("span", {}, "referee: ", made("b", {}, ruling), said));
  }
  else if (truth !== null) nodes.push(made("span", {}, "truth: ", made("b", {}, truth)));
  if (games.contradicts(game)) nodes.push(made("span", { class: "flag" }, "not as asked"));
  if (games.disagree(game)) nodes.push(made("span", { class: "flag" }, `second referee: ${second}`));
  const outcome = games.words.outcome[columns.outcome[game]];
  if (outcome === "no answer") nodes.push(made("b", {}, "no answer"));
  else if (answer !== null) {
    const p = columns.p[game] < 0 ? "" : `, p(INCORRECT) ${(columns.p[game] / 1000).toFixed(2)}`;
    nodes.push(made("span", {}, "assessor: ", made("b", {}, answer), p));
  } else if (ruling === null) {
    const rejected = rejections(games, game);
    nodes.push(made("span", {}, made("b", {}, outcome), rejected ? `: ${rejected}` : ""));
  }
  const reward = (name) => (columns[name][game] === null ? null : columns[name][game] / 100);
  const paid = ["injector", "assessor"].filter((name) => reward(name) !== null);
  if (paid.length) nodes.push(made("span", { class: "aside" }, "rewards: ", paid.map((name) => `${name} ${signed(reward(name))}`).join(", ")));
  if (columns.tries[game] > 1) nodes.push(made("span", { class: "aside" }, `${columns.tries[game]} attempts`));
  const bits = ["surprise", "sure"].includes(sort) ? games.surprise(game) : null;
  if (bits !== null) nodes.push(made("span", {}, `surprise ${bits.toFixed(1)} bits`));
  return nodes;
}

function took(turn) {
  const parts = [];
  if (turn.tokens !== null) parts.push(`${turn.tokens} tokens${turn.think ? `, ${turn.think} of them reasoning` : ""}`);
  if (turn.seconds !== null) parts.push(`${turn.seconds.toFixed(1)} s`);
  if (turn.reward !== null) parts.push(`reward ${signed(turn.reward)}`);
  parts.push(turn.trained ? `trained, advantage ${signed(turn.advantage)}` : "did not train");
  return parts;
}

function attemptNode(attempt, original) {
  const parts = [attempt.reason === null ? "accepted" : `rejected: ${plain(attempt.reason)}`];
  if (attempt.edits !== null) parts.push(`${attempt.edits} word edit${attempt.edits === 1 ? "" : "s"}`);
  if (attempt.similarity !== null) parts.push(`similarity ${attempt.similarity.toFixed(2)}`);
  const node = made("li", {}, made("p", { class: "small" }, [...parts, ...took(attempt)].join(" · ")));
  if (attempt.modified !== null && original !== null && attempt.modified !== original && attempt.reason !== null) {
    node.append(made("p", { class: "text" }, ...diffNodes(around(wordDiff(original, attempt.modified), 48, 1200))));
  }
  if (attempt.reply) node.append(made("pre", { tabindex: "0" }, attempt.reply));
  return node;
}

function bodyOf(games, game, texts) {
  const body = made("div", { class: "body" });
  const { original, shown, attempts, assessor } = texts;
  if (games.redacted) body.append(made("p", { class: "small" }, "The texts of this log were left out."));
  else {
    body.append(made("h3", {}, original !== null && shown !== null && original !== shown ? "The note, and what changed" : "The note"));
    const whole = original !== null && shown !== null ? diffNodes(wordDiff(original, shown)) : [shown ?? original ?? ""];
    body.append(made("p", { class: "text" }, ...whole), made("p", { class: "small" }, `note ${texts.id}`));
  }
  if (attempts.length) {
    body.append(made("h3", {}, "Injector"), made("ol", {}, ...attempts.map((a) => attemptNode(a, original))));
  }
  const ruling = games.word("ruling", "ruling", game);
  if (ruling !== null) {
    const second = games.word("ruling", "second", game);
    const said = (kind, why) => `${kind}${why ? ` (${why})` : ""}`;
    body.append(made("h3", {}, "Referee"), made("p", {}, said(ruling, texts.reason)));
    if (second !== null) body.append(made("p", {}, `Second referee, for comparison only: ${said(second, texts.second)}`));
  }
  if (assessor) {
    const bits = games.surprise(game);
    const parts = [`form: ${assessor.form}`, ...(bits === null ? [] : [`surprise ${bits.toFixed(1)} bits`]), ...took(assessor)];
    body.append(made("h3", {}, "Assessor"), made("p", { class: "small" }, parts.join(" · ")));
    if (assessor.reply) body.append(made("pre", { tabindex: "0" }, assessor.reply));
  }
  return body;
}

class Page {
  constructor() {
    this.state = stateOf(location.hash);
    this.shown = [];
    this.nodes = new Map();
    this.open = null; // the number of the game that is unfolded
    this.openHeight = 0;
    this.focused = 0; // place in the list
    this.turn = 0;
    this.resized = new ResizeObserver(() => this.measure());
    $("scroll").addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw(true)).observe($("scroll"));
    $("filters").addEventListener("input", () => this.later());
    $("filters").addEventListener("reset", () => setTimeout(() => this.filter({ ...FREE })));
    $("filters").addEventListener("submit", (event) => event.preventDefault());
    window.addEventListener("hashchange", () => this.filter(stateOf(location.hash)));
    document.addEventListener("keydown", (event) => this.key(event));
    $("ask").addEventListener("click", () => $("help").showModal());
  }

  async take(games) {
    const kept = this.open === null ? null : this.identity(this.open);
    if (this.timer) this.state = this.read(); // what was typed just now
    this.games = games;
    this.fillLists();
    await this.filter(this.state, false);
    this.open = kept === null ? null : (this.shown.find((game) => this.identity(game) === kept) ?? null);
    this.draw(true);
  }

  identity(game) {
    return ["run", "round", "source", "place"].map((name) => this.games.columns[name][game]).join("/");
  }

  fillLists() {
    const { games } = this;
    const fill = (name, words, column) => {
      const select = $("filters").elements[name];
      const counts = words.map(() => 0);
      if (column === "reasons") for (const bits of games.columns.reasons) words.forEach((_, i) => (counts[i] += (bits >> i) & 1));
      else for (const place of games.columns[column]) if (place >= 0) counts[place]++;
      const shown = (word) => (name === "run" ? word : plain(word));
      const option = (word, i) => made("option", { value: word }, `${shown(word)} (${counts[i].toLocaleString("en")})`);
      if (!words.includes(this.state[name])) this.state[name] = "";
      // What is chosen stays to be chosen, though a run under way has no such game yet.
      const options = words.map(option).filter((_, i) => counts[i] || words[i] === this.state[name]);
      select.replaceChildren(made("option", { value: "" }, "any"), ...options);
      select.closest("label").hidden = options.length < (name === "run" ? 2 : 1);
    };
    for (const [name, list] of Object.entries(LISTS)) fill(name, games.words[list], name);
    fill("reason", games.words.reason, "reasons");
    fill("run", games.runs, "run");
  }

  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.timer = null;
      if (this.games) this.filter(this.read());
    }, 120);
  }

  read() {
    const fields = $("filters").elements;
    return Object.fromEntries(
      Object.keys(FREE).map((name) => [name, typeof FREE[name] === "boolean" ? fields[name].checked : fields[name].value]),
    );
  }

  write(state) {
    const fields = $("filters").elements;
    for (const [name, value] of Object.entries(state)) {
      if (typeof FREE[name] === "boolean") fields[name].checked = value;
      else if (fields[name].value !== value) fields[name].value = value;
    }
    const active = Object.keys(FREE).filter((name) => !["text", "sort"].includes(name) && state[name] !== FREE[name]);
    $("active").textContent = active.length ? `(${active.length} set)` : "";
    const hash = hashOf(state);
    if (hash !== location.hash.replace(/^#/, "")) history.replaceState(null, "", `#${hash}`);
  }

  async filter(state, afresh = true) {
    const turn = ++this.turn;
    this.state = state;
    this.write(state);
    let found = chosen(this.games, state);
    const wanted = terms(state.text);
    if (wanted.length) {
      $("status").textContent = "searching …";
      await this.games.loadAll();
      if (turn !== this.turn) return;
      found = found.filter((game) => holds(this.games, game, wanted));
    }
    this.shown = ordered(this.games, found, state.sort);
    this.say();
    if (afresh) {
      this.open = null;
      this.focused = 0;
      $("scroll").scrollTop = 0;
    }
    this.draw(true);
  }

  say() {
    const all = this.games.count.toLocaleString("en");
    const some = this.shown.length.toLocaleString("en");
    $("status").textContent = this.shown.length === this.games.count ? `${all} games` : `${some} of ${all} games`;
    const rows = figures(this.games, this.shown);
    $("figures").replaceChildren(...rows.map(([name, value]) => made("div", {}, made("dt", {}, name), made("dd", {}, value))));
  }

  /* ---- the list */

  get row() {
    return (this.rowHeight ??= parseFloat(getComputedStyle(document.documentElement).fontSize) *
      parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row")));
  }

  top(place) {
    const open = this.open === null ? -1 : this.openPlace;
    return place * this.row + (open >= 0 && place > open ? this.openHeight : 0);
  }

  draw(anew = false) {
    if (!this.games) return;
    if (anew) {
      this.rowHeight = null;
      for (const node of this.nodes.values()) node.remove();
      this.nodes.clear();
    }
    this.openPlace = this.open === null ? -1 : this.shown.indexOf(this.open);
    const { scrollTop, clientHeight } = $("scroll");
    const extra = this.openPlace >= 0 ? this.openHeight : 0;
    $("list").style.height = `${this.shown.length * this.row + extra}px`;
    let first = Math.floor(scrollTop / this.row);
    if (this.openPlace >= 0 && first > this.openPlace) {
      first = Math.max(this.openPlace, Math.floor((scrollTop - extra) / this.row));
    }
    const last = Math.min(this.shown.length, first + Math.ceil(clientHeight / this.row) + 6);
    first = Math.max(0, first - 5);
    const wanted = new Set();
    for (let place = first; place < last; place++) wanted.add(place);
    if (this.focused < this.shown.length && document.activeElement?.classList.contains("head")) wanted.add(this.focused);
    for (const [place, node] of this.nodes) if (!wanted.has(place)) (node.remove(), this.nodes.delete(place));
    for (const place of [...wanted].sort((a, b) => a - b)) this.place(place);
  }

  place(place) {
    let node = this.nodes.get(place);
    if (!node) {
      node = this.article(place);
      if (!node) return; // its texts are being unpacked
      const next = [...this.nodes.keys()].filter((other) => other > place).sort((a, b) => a - b)[0];
      $("list").insertBefore(node, next === undefined ? null : this.nodes.get(next));
      this.nodes.set(place, node);
      if (place === this.openPlace) {
        this.resized.disconnect();
        this.resized.observe(node.querySelector(".body"));
      }
    }
    node.style.top = `${this.top(place)}px`;
  }

  article(place) {
    const { games } = this;
    const game = this.shown[place];
    const texts = games.texts(game);
    if (!texts) {
      games.load(games.chunkOf(game)).then(() => this.draw());
      return null;
    }
    const outcome = games.words.outcome[games.columns.outcome[game]];
    const kind = outcome === "assessor right" ? "mark right" : outcome === "assessor wrong" ? "mark wrong" : "mark";
    const open = game === this.open;
    const head = made(
      "button",
      { class: "head", type: "button", "aria-expanded": open, "data-place": place },
      made("span", { class: kind, title: outcome, role: "img", "aria-label": outcome }, MARKS[outcome] || "–"),
      made("span", { class: "facts" }, ...facts(games, game, this.state.sort, texts.reason)),
      made("span", {}),
      made("span", { class: "snippet" }, ...snippet(texts)),
    );
    head.addEventListener("click", () => this.toggle(place));
    head.addEventListener("focus", () => (this.focused = place));
    const node = made(
      "article",
      { class: open ? "open" : "", "aria-posinset": place + 1, "aria-setsize": this.shown.length },
      head,
    );
    if (open) node.append(bodyOf(games, game, texts));
    return node;
  }

  measure() {
    const body = this.nodes.get(this.openPlace)?.querySelector(".body");
    if (!body || body.offsetHeight === this.openHeight) return;
    this.openHeight = body.offsetHeight;
    this.draw();
  }

  toggle(place) {
    const before = this.top(place) - $("scroll").scrollTop;
    this.open = this.shown[place] === this.open ? null : this.shown[place];
    this.openHeight = 0;
    this.focused = place;
    this.draw(true);
    this.measure();
    $("scroll").scrollTop = Math.max(0, this.top(place) - Math.max(0, before));
    this.draw();
    this.nodes.get(place)?.querySelector(".head").focus({ preventScroll: true });
  }

  go(place) {
    if (!this.shown.length) return;
    this.focused = Math.min(Math.max(place, 0), this.shown.length - 1);
    const scroll = $("scroll");
    const top = this.top(this.focused);
    if (top < scroll.scrollTop) scroll.scrollTop = top;
    else if (top + this.row > scroll.scrollTop + scroll.clientHeight) scroll.scrollTop = top + this.row - scroll.clientHeight;
    this.draw();
    const focus = () => this.nodes.get(this.focused)?.querySelector(".head").focus({ preventScroll: true });
    if (this.nodes.has(this.focused)) focus();
    else this.games.load(this.games.chunkOf(this.shown[this.focused])).then(() => (this.draw(), focus()));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || $("help").open || !this.games) return;
    const writing = event.target.matches("input, select, textarea");
    if (event.key === "Escape") {
      if (writing) event.target.blur();
      else if (this.open !== null) this.toggle(this.shown.indexOf(this.open));
      return;
    }
    if (writing || event.target.matches("pre")) return;
    const inList = document.activeElement?.classList.contains("head");
    const from = inList ? this.focused : -1;
    const actions = {
      j: () => this.go(from + 1), ArrowDown: () => this.go(from + 1), k: () => this.go(from - 1), ArrowUp: () => this.go(from - 1),
      Home: () => this.go(0), End: () => this.go(this.shown.length - 1),
      "/": () => $("filters").elements.text.focus(), "?": () => $("help").showModal(),
      s: () => this.filter({ ...this.state, sort: this.state.sort === "surprise" ? "newest" : "surprise" }),
      c: () => this.filter({ ...this.state, contradiction: !this.state.contradiction }),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }
}

function embedded() {
  return { index: $("index").textContent, chunks: [...document.querySelectorAll("script.chunk")].map((node) => node.textContent) };
}

/* A page that `medserl watch` serves asks for what is new; the filters and the unfolded game stay. */
async function follow(page) {
  let version = null;
  for (;;) {
    try {
      const said = await (await fetch("version", { cache: "no-store" })).text();
      if (said !== version) {
        await page.take(await Games.unpacked(await (await fetch("data", { cache: "no-store" })).json()));
        version = said;
      }
    } catch {
      $("status").textContent = "medserl watch has ended; this is what it last showed";
    }
    await new Promise((done) => setTimeout(done, 2000));
  }
}

const page = new Page();
if (typeof DecompressionStream === "undefined") {
  $("status").textContent = "this browser is too old to unpack the games; take one from 2023 or later";
} else if ("live" in document.body.dataset) follow(page);
else Games.unpacked(embedded()).then((games) => page.take(games)).then(() => performance.mark("shown"));
if (!narrow.matches) $("more").open = true;
