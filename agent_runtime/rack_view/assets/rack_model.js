// What the messages say, applied: the rack as it is at one moment. Knows no page and no clock.

export const PROTOCOL_VERSION = 1;
const MAX_HISTORY = 64;
const MAX_LATEST = 50;
const MAX_SAMPLES = 2400;
const RATE_WINDOW_S = 10;

/** What a message of a kind of the future is worth saying about. */
export function unknownKind(kind) {
  return `Messages of a kind that this page does not know are left out: ${kind.slice(0, 40)}`;
}

export const KINDS = ["layout", "frame", "stories"];

/** What people call a replica; a free slot for an engine has no name of its own. */
export function labelOf(layout, replica) {
  return layout.replicas[replica]?.label || `${replica}`;
}

/** A message that this page cannot take; says which part, and why. */
export class ProtocolError extends Error {}

function need(holds, what) {
  if (!holds) throw new ProtocolError(what);
}

function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/**
 * Sessions are values: a change makes a new one, so copies of a model may share them.
 * The same holds for replicas, moves, decisions and samples.
 */
export class RackModel {
  constructor() {
    this.layout = null;
    this.forget();
  }

  /** Drop all but the layout, as before a whole frame. */
  forget() {
    this.t = 0;
    this.replicas = [];
    this.sessions = new Map();
    this.moves = [];
    this.latest = [];
    this.numDispatched = 0; // rows of `latest` ever seen; tells new ones apart
    this.series = (this.layout?.series ?? []).map(() => []);
    this.totals = {};
    this.history = []; // [{t, totals}], the oldest first
    this.population = []; // [{t, counts}], one a frame
  }

  copy() {
    const other = new RackModel();
    Object.assign(other, this);
    other.sessions = new Map(this.sessions);
    other.series = this.series.map((samples) => samples.slice());
    for (const name of ["replicas", "moves", "latest", "history", "population"]) {
      other[name] = this[name].slice();
    }
    return other;
  }

  /**
   * Take one message; return its kind. Of one that is not known here nothing is taken.
   * @throws {ProtocolError} it is not one of this protocol; the model is then as it was before.
   */
  apply(message) {
    need(message !== null && typeof message === "object", "a message is no JSON object");
    if (message.kind === "layout") {
      checkLayout(message);
      this.layout = message;
      this.forget();
    } else if (message.kind === "frame") {
      need(this.layout, "a frame came before the layout");
      checkFrame(message, this.layout);
      this.#applyFrame(message);
    } else {
      need(typeof message.kind === "string", "a message has no kind");
    }
    return message.kind;
  }

  #applyFrame(frame) {
    const { states, healths } = this.layout;
    if (frame.whole) [this.sessions, this.moves] = [new Map(), []];
    for (const id of frame.gone ?? []) this.sessions.delete(id);
    this.t = frame.t;
    this.replicas = frame.replicas.map((row) => ({
      running: row[0],
      waiting: row[1],
      used: row[2] / 1000,
      active: row[3] / 1000,
      health: named(row[4], healths),
    }));
    for (const row of frame.sessions) {
      const before = this.sessions.get(row[0]);
      this.sessions.set(row[0], {
        id: row[0],
        state: named(row[1], states),
        replica: row[2],
        context: row[3],
        since: row[4],
        turn: row[5] || before?.turn || "",
        parent: row[6] || "",
      });
    }
    this.#applyMoves(frame.moves ?? []);
    this.#applyLatest(frame.latest ?? []);
    this.#applySeries(frame.series ?? []);
    this.totals = frame.totals;
    keep(this.history, { t: frame.t, totals: frame.totals }, MAX_HISTORY);
    keep(this.population, { t: frame.t, counts: this.counts() }, MAX_SAMPLES);
  }

  #applyMoves(rows) {
    this.moves = this.moves.filter((move) => move.ready > this.t - 1);
    for (const [session, from, to, start, ready, size] of rows) {
      this.moves.push({ session, from, to, start, ready, tokens: size });
    }
  }

  #applyLatest(rows) {
    for (const [turn, session, replica, at, held, cached] of rows) {
      this.latest.push({ turn, session, replica, at, held, cached });
    }
    this.numDispatched += rows.length;
    if (this.latest.length > MAX_LATEST) this.latest = this.latest.slice(-MAX_LATEST);
  }

  #applySeries(samples) {
    samples.forEach((sample, index) => {
      if (sample) {
        const [p50, p99, n] = sample;
        keep(this.series[index], { t: this.t, p50, p99, n }, MAX_SAMPLES);
      }
    });
  }

  /** Sessions by state, in the order of the layout's states. */
  counts() {
    const counts = Object.fromEntries((this.layout?.states ?? []).map((state) => [state, 0]));
    for (const session of this.sessions.values()) counts[session.state] += 1;
    return counts;
  }

  /** What went through lately, a second; null where too little is known. */
  rates() {
    const now = this.history.at(-1);
    const since = this.history.findLast((entry) => entry.t <= this.t - RATE_WINDOW_S) ?? this.history[0];
    const span = now && since ? now.t - since.t : 0;
    if (!(span > 0)) return { turns: null, outputTokens: null, hitRatio: this.hitRatio() };
    const more = (name) => (now.totals[name] ?? 0) - (since.totals[name] ?? 0);
    const prompt = more("prompt_tokens");
    return {
      turns: more("turns") / span,
      outputTokens: more("output_tokens") / span,
      hitRatio: prompt > 0 ? more("cached_tokens") / prompt : this.hitRatio(),
    };
  }

  /** Of all prompt tokens so far, the share that was found cached. */
  hitRatio() {
    const { prompt_tokens: prompt, cached_tokens: cached } = this.totals;
    return prompt > 0 ? cached / prompt : null;
  }

  /** Seconds for which the session that waits longest is held; null where nobody waits. */
  longestHold() {
    let longest = null;
    for (const session of this.sessions.values()) {
      if (session.state === "held") longest = Math.max(longest ?? 0, this.t - session.since);
    }
    return longest;
  }

  /** Sessions whose place is this replica, the one longest in its state first. */
  sessionsAt(replica) {
    return [...this.sessions.values()]
      .filter((session) => session.replica === replica && session.state !== "held")
      .sort((a, b) => a.since - b.since);
  }
}

function named(value, names) {
  return typeof value === "number" ? names[value] : value;
}

function keep(entries, entry, most) {
  if (entries.length && entries.at(-1).t === entry.t) entries.pop();
  entries.push(entry);
  if (entries.length > most) entries.splice(0, entries.length - most);
}

function checkLayout(layout) {
  need(
    layout.v === PROTOCOL_VERSION,
    `the server speaks version ${String(layout.v).slice(0, 20)} of the view's protocol and this page ` +
      `version ${PROTOCOL_VERSION}: reload the page, or make the recording anew`,
  );
  for (const name of ["chips", "replicas", "states", "healths", "series"]) {
    need(Array.isArray(layout[name]), `layout.${name} is no list`);
  }
  layout.replicas.forEach((replica, index) => {
    need(Array.isArray(replica?.chips), `layout.replicas[${index}].chips is no list`);
    for (const chip of replica.chips) {
      need(layout.chips[chip], `layout.replicas[${index}] has chip ${chip}, which is not in layout.chips`);
    }
  });
}

function checkFrame(frame, layout) {
  need(isNumber(frame.t), "frame.t is no number");
  need(Array.isArray(frame.replicas), "frame.replicas is no list");
  need(
    frame.replicas.length === layout.replicas.length,
    `frame.replicas has ${frame.replicas.length} entries, and the layout ${layout.replicas.length} replicas`,
  );
  frame.replicas.forEach((row, index) => {
    const fits = Array.isArray(row) && row.length >= 5 && row.slice(0, 4).every(isNumber);
    need(fits && isOneOf(row[4], layout.healths), `frame.replicas[${index}] is not as the protocol says`);
  });
  need(Array.isArray(frame.sessions), "frame.sessions is no list");
  frame.sessions.forEach((row, index) => {
    const where = `frame.sessions[${index}]`;
    need(
      Array.isArray(row) && row.length >= 5 && typeof row[0] === "string",
      `${where} is not as the protocol says`,
    );
    need(isOneOf(row[1], layout.states), `${where} has an unknown state`);
    need(Number.isInteger(row[2]) && row[2] < layout.replicas.length, `${where} is on an unknown replica`);
    need(isNumber(row[3]) && isNumber(row[4]), `${where} has a context or a time that is no number`);
  });
  for (const name of ["gone", "moves", "latest", "series"]) {
    need(frame[name] === undefined || Array.isArray(frame[name]), `frame.${name} is no list`);
  }
  (frame.moves ?? []).forEach((row, index) => {
    const fits = Array.isArray(row) && row.length >= 6 && row.slice(1).every(isNumber);
    need(fits, `frame.moves[${index}] is not as the protocol says`);
  });
  (frame.latest ?? []).forEach((row, index) => {
    need(Array.isArray(row) && row.length >= 6, `frame.latest[${index}] is not as the protocol says`);
  });
  (frame.series ?? []).forEach((sample, index) => {
    const fits = sample === null || (Array.isArray(sample) && sample.length >= 3);
    need(fits && index < layout.series.length, `frame.series[${index}] is not as the protocol says`);
  });
  need(frame.totals !== null && typeof frame.totals === "object", "frame.totals is missing");
}

function isOneOf(value, names) {
  return typeof value === "number" ? names[value] !== undefined : names.includes(value);
}
