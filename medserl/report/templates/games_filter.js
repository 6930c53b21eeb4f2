/* Which games are shown, in which order, and what they say together. */

const FREE = {
  run: "", from: "", to: "", source: "", mode: "", type: "", outcome: "", ruling: "", reason: "", text: "",
  contradiction: false, disagreement: false, sort: "newest",
};
const SORTS = ["newest", "oldest", "surprise", "sure", "tokens"];
const LISTS = { source: "source", mode: "mode", type: "type", outcome: "outcome", ruling: "ruling" };

function stateOf(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const state = { ...FREE };
  for (const name of Object.keys(FREE)) {
    if (given.has(name)) state[name] = typeof FREE[name] === "boolean" ? given.get(name) === "yes" : given.get(name);
  }
  if (!SORTS.includes(state.sort)) state.sort = FREE.sort;
  return state;
}

function hashOf(state) {
  const changed = Object.keys(FREE).filter((name) => state[name] !== FREE[name]);
  return new URLSearchParams(changed.map((name) => [name, state[name] === true ? "yes" : state[name]])).toString();
}

/* Numbers of the games that fit all but the text. */
function chosen(games, state) {
  const { columns } = games;
  const wanted = Object.entries(LISTS)
    .filter(([name]) => state[name] !== "")
    .map(([name, list]) => [columns[name], games.words[list].indexOf(state[name])]);
  if (state.run !== "") wanted.push([columns.run, games.runs.indexOf(state.run)]);
  const from = state.from === "" ? -Infinity : Number(state.from);
  const to = state.to === "" ? Infinity : Number(state.to);
  const reason = state.reason === "" ? 0 : 1 << games.words.reason.indexOf(state.reason);
  const found = [];
  for (let game = 0; game < games.count; game++) {
    if (columns.round[game] < from || columns.round[game] > to) continue;
    if (reason && !(columns.reasons[game] & reason)) continue;
    if (wanted.some(([column, value]) => column[game] !== value)) continue;
    if (state.contradiction && !games.contradicts(game)) continue;
    if (state.disagreement && !games.disagree(game)) continue;
    found.push(game);
  }
  return found;
}

function ordered(games, found, sort) {
  const { columns } = games;
  const unknown = (value) => (value === null ? -1 : value);
  const keys = {
    newest: (game) => -columns.round[game],
    oldest: (game) => columns.round[game],
    surprise: (game) => -unknown(games.surprise(game)),
    sure: (game) => games.surprise(game) ?? Infinity,
    tokens: (game) => -columns.tokens[game],
  };
  const key = new Float64Array(games.count);
  for (const game of found) key[game] = (keys[sort] || keys.newest)(game);
  return found.sort((a, b) => key[a] - key[b] || a - b);
}

/* Words in any order, and phrases in double quotes; the case of letters makes no difference. */
function terms(text) {
  return (text.toLowerCase().match(/"[^"]+"|[^\s"]+/g) || []).map((term) => term.replace(/"/g, ""));
}

function holds(games, game, wanted) {
  const chunk = games.chunks[games.chunkOf(game)];
  chunk.lowered ??= chunk.notes.map((note) => note.toLowerCase());
  const [id, place, shown, attempts, reason, second, assessor] = games.packedTexts(game);
  const own = [id, reason, second, games.word("type", "type", game) || ""];
  const changed = (change) => (change === null ? "" : typeof change === "string" ? change : change[2]);
  own.push(changed(shown), assessor ? assessor[2] : "");
  for (const attempt of attempts) own.push(changed(attempt[0]), attempt[4]);
  const lowered = own.join("\n").toLowerCase();
  const original = place < 0 ? "" : chunk.lowered[place];
  const missing = wanted.filter((term) => !lowered.includes(term) && !original.includes(term));
  if (!missing.length) return true;
  // What was written across the ends of a change stands in neither piece.
  const whole = games.texts(game);
  const edited = [whole.shown, ...whole.attempts.map((a) => a.modified)].filter(Boolean).join("\n").toLowerCase();
  return missing.every((term) => edited.includes(term));
}

/* What the chosen games say together: [name, value]. */
function figures(games, found) {
  const { columns } = games;
  const count = { played: 0, accepted: 0, decided: 0, trusted: 0, ruled: 0, against: 0, benign: 0, spoilt: 0, both: 0, apart: 0 };
  const wrong = new Map([["INCORRECT", [0, 0]], ["CORRECT", [0, 0]]]); // by truth: how many, how many answered wrongly
  const asked = new Map(); // by kind: how many, how many of them right
  const outcomes = games.words.outcome;
  for (const game of found) {
    const outcome = outcomes[columns.outcome[game]];
    const ruling = games.word("ruling", "ruling", game);
    if (columns.mode[game] >= 0) {
      count.played++;
      if (ruling !== null) count.accepted++;
    }
    if (ruling === "benign" || ruling === "error") {
      const checked = !columns.trusted[game];
      count.decided++;
      if (checked) count.ruled++;
      else count.trusted++;
      if (games.contradicts(game)) count.against++;
      if (games.word("mode", "mode", game) === "benign" && checked) {
        count.benign++;
        if (ruling === "error") count.spoilt++;
      }
    }
    if (outcome.startsWith("assessor") || outcome === "no answer") {
      const source = games.word("source", "source", game);
      const [all, right] = asked.get(source) || [0, 0];
      asked.set(source, [all + 1, right + (outcome === "assessor right")]);
      const truth = wrong.get(games.word("label", "truth", game));
      if (truth) {
        truth[0]++;
        if (outcome === "assessor wrong") truth[1]++;
      }
    }
    if (columns.second[game] >= 0) {
      count.both++;
      if (games.disagree(game)) count.apart++;
    }
  }
  const share = (part, of) => `${Math.round((100 * part) / of)} % of ${of.toLocaleString("en")}`;
  const rows = [];
  if (count.played) rows.push(["an edit was accepted", share(count.accepted, count.played)]);
  if (count.trusted) rows.push(["label is what was asked for, not checked", share(count.trusted, count.decided)]);
  if (count.trusted && !count.ruled) rows.push(["edit was not what was asked for", "not measured"]);
  if (count.ruled) rows.push(["edit was not what was asked for", share(count.against, count.ruled)]);
  if (count.benign) rows.push(["benign edit was an error", share(count.spoilt, count.benign)]);
  for (const [source, [all, right]] of [...asked].sort()) rows.push([`assessor right, ${source}`, share(right, all)]);
  const [[errors, overlooked], [sound, accused]] = wrong.values();
  if (errors) rows.push(["error that the assessor overlooked", share(overlooked, errors)]);
  if (sound) rows.push(["sound note that it called INCORRECT", share(accused, sound)]);
  if (count.both) rows.push(["referees disagree", share(count.apart, count.both)]);
  return rows;
}
