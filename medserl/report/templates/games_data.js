"use strict";

/* Games as medserl/report/games_data.py packs them. */

async function unpack(packed) {
  const binary = atob(packed.trim());
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function applied(change, original) {
  if (change === null || typeof change === "string") return change;
  const [start, end, middle] = change;
  return original.slice(0, start) + middle + original.slice(original.length - end);
}

function readReply([reply, strict, tokens, think, seconds, reward, trained, advantage]) {
  const part = (value, by) => (value === null ? null : value / by);
  return {
    reply, strict: !!strict, tokens, think, seconds: part(seconds, 100), reward: part(reward, 100), trained: !!trained,
    advantage: part(advantage, 1000),
  };
}

class Games {
  constructor(index, packed) {
    Object.assign(this, { runs: index.runs, words: index.words, columns: index.columns, redacted: index.redacted });
    this.starts = index.starts; // the first game of each chunk, and how many there are
    this.count = index.columns.run.length;
    this.packed = packed;
    this.chunks = new Array(packed.length).fill(null);
    this.coming = new Map();
  }

  static async unpacked({ index, chunks }) {
    return new Games(await unpack(index), chunks);
  }

  /* The texts of a game's neighbourhood, once they are unpacked. */
  load(chunk) {
    if (!this.coming.has(chunk)) {
      this.coming.set(chunk, unpack(this.packed[chunk]).then((texts) => (this.chunks[chunk] = texts)));
    }
    return this.coming.get(chunk);
  }

  async loadAll() {
    for (let chunk = 0; chunk < this.packed.length; chunk++) await this.load(chunk);
  }

  chunkOf(game) {
    let low = 0;
    let high = this.packed.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.starts[middle] <= game) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /* What its chunk holds of a game; null while that is still packed. */
  packedTexts(game) {
    const chunk = this.chunkOf(game);
    return this.chunks[chunk] && this.chunks[chunk].games[game - this.starts[chunk]];
  }

  word(list, column, game) {
    const place = this.columns[column][game];
    return place < 0 ? null : this.words[list][place];
  }

  /* null while they are still packed. */
  texts(game) {
    const found = this.packedTexts(game);
    if (!found) return null;
    const [id, place, shown, attempts, reason, second, assessor] = found;
    const original = place < 0 ? null : this.chunks[this.chunkOf(game)].notes[place];
    return {
      id, original, shown: applied(shown, original), reason, second,
      attempts: attempts.map(([change, why, edits, similarity, ...reply]) => ({
        modified: applied(change, original), reason: why || null, edits,
        similarity: similarity === null ? null : similarity / 1000, ...readReply(reply),
      })),
      assessor: assessor && { form: assessor[0], task: assessor[1], ...readReply(assessor.slice(2)) },
    };
  }

  contradicts(game) {
    const mode = this.word("mode", "mode", game);
    const ruling = this.word("ruling", "ruling", game);
    return (mode === "benign" && ruling === "error") || (mode === "error" && ruling === "benign");
  }

  disagree(game) {
    const second = this.columns.second[game];
    return second >= 0 && second !== this.columns.ruling[game];
  }

  /* Bits: -log2 of the probability that the assessor gave to the truth; null where nobody knows it. */
  surprise(game) {
    const truth = this.word("label", "truth", game);
    const p = this.columns.p[game];
    if (p < 0 || truth === null) return null;
    return -Math.log2(Math.max(truth === "INCORRECT" ? p : 1000 - p, 0.5) / 1000);
  }
}

/* What went and what came between two texts, word by word: [kind, text], kind one of same, gone, came. */
function wordDiff(before, after) {
  const a = before.match(/\S+\s*|\s+/g) || [];
  const b = after.match(/\S+\s*|\s+/g) || [];
  const same = (i, j) => a[i].trimEnd() === b[j].trimEnd();
  let start = 0;
  while (start < a.length && start < b.length && same(start, start)) start++;
  let end = 0;
  while (end < a.length - start && end < b.length - start && same(a.length - 1 - end, b.length - 1 - end)) end++;
  const parts = [];
  const add = (kind, text) => {
    const last = parts[parts.length - 1];
    if (last && last[0] === kind) last[1] += text;
    else parts.push([kind, text]);
  };
  for (let i = 0; i < start; i++) add("same", b[i]);
  for (const [kind, text] of middleDiff(a.slice(start, a.length - end), b.slice(start, b.length - end))) add(kind, text);
  for (let i = b.length - end; i < b.length; i++) add("same", b[i]);
  return parts;
}

/* Longest common subsequence; texts that share little of much are shown as replaced. */
function middleDiff(a, b) {
  const whole = [...a.map((w) => ["gone", w]), ...b.map((w) => ["came", w])];
  if (!a.length || !b.length || a.length * b.length > 200000) return whole;
  const width = b.length + 1;
  const longest = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      const equal = a[i].trimEnd() === b[j].trimEnd();
      const skip = Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
      longest[i * width + j] = equal ? longest[(i + 1) * width + j + 1] + 1 : skip;
    }
  }
  const parts = [];
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i].trimEnd() === b[j].trimEnd()) {
      parts.push(["same", b[j++]]);
      i++;
    } else if (j >= b.length || (i < a.length && longest[(i + 1) * width + j] >= longest[i * width + j + 1])) {
      parts.push(["gone", a[i++]]);
    } else parts.push(["came", b[j++]]);
  }
  return parts;
}

/* The same with little around the change: so many characters before it, and what follows up to as many as are read. */
function around(parts, before = 48, most = 320) {
  const first = parts.findIndex(([kind]) => kind !== "same");
  if (first <= 0) return clipped(parts, most);
  const lead = parts[first - 1][1];
  if (lead.length <= before + 12) return clipped(parts, most);
  const cut = lead.slice(-before).replace(/^\S*\s+/, "");
  return clipped([["same", `… ${cut}`], ...parts.slice(first)], most);
}

function clipped(parts, most) {
  const kept = [];
  for (const [kind, text] of parts) {
    if (most <= 0) break;
    kept.push([kind, text.slice(0, most)]);
    most -= text.length;
  }
  return kept;
}
