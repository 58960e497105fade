// The page's words above the picture: what is shown, how many are where, and what goes wrong.

import { byId, make, say } from "./elements.js";
import { count, moment, percent, rate, seconds, tokens } from "./quantities.js";

const SUMMARY_EVERY_MS = 15_000; // for who listens to the page: more often would be all they hear

export class Headline {
  #counts = {};
  #values = {};
  #summary = byId("summary");
  #said = -Infinity;

  reset(layout) {
    byId("title").textContent = layout.title ?? "Rack";
    document.title = `${layout.title ?? "Rack"} · Panjiu`;
    const source =
      { emulated: "emulated rack", engines: "real engines", recording: "recording" }[layout.source] ??
      layout.source;
    const facts = [source, layout.policy && `policy ${layout.policy}`, layout.band && `band ${layout.band}`];
    if (layout.source === "emulated" && layout.speed && layout.speed !== 1)
      facts.push(`${layout.speed}x real time`);
    if (layout.kv_tokens) facts.push(`${tokens(layout.kv_tokens)} tokens of KV a replica`);
    if (layout.fill === "reckoned") facts.push("KV levels reckoned from contexts");
    byId("facts").replaceChildren(...facts.filter(Boolean).map((fact) => make("span", {}, fact)));
    const entry = (place, name, word, title, dot) => {
      const value = make("dd", {}, "–");
      place.append(
        make(
          "div",
          { title },
          make("dt", {}, dot ? make("span", { class: `dot ${dot}` }) : null, word),
          value,
        ),
      );
      return value;
    };
    const strip = byId("strip");
    strip.replaceChildren();
    for (const state of layout.states)
      this.#counts[state] = entry(strip, state, state, STATE_WORDS[state], state);
    for (const [name, word, title] of FIGURES) this.#values[name] = entry(strip, name, word, title);
  }

  show(model, now) {
    const counts = model.counts();
    for (const [state, element] of Object.entries(this.#counts)) say(element, count(counts[state]));
    const rates = model.rates();
    const { totals } = model;
    const texts = {
      turns: rate(rates.turns),
      output: rate(rates.outputTokens),
      hit: percent(rates.hitRatio, 1),
      all: count(totals.turns),
      closed: count(totals.sessions_closed),
      refused: count(totals.refused),
    };
    for (const [name, text] of Object.entries(texts)) say(this.#values[name], text);
    if (now - this.#said > SUMMARY_EVERY_MS) {
      this.#said = now;
      say(this.#summary, summaryOf(model, counts, texts));
    }
  }
}

const STATE_WORDS = {
  held: "Waiting at the scheduler for a place worth its cost",
  prefill: "Its prompt is being computed, or waits for that on its replica",
  decode: "Its answer is being written",
  gap: "A tool or a person is at work; its KV stays at its home",
};

const FIGURES = [
  ["turns", "turns/s", "Turns that ended, a second of the run, lately"],
  ["output", "output tok/s", "Tokens written, a second of the run, lately"],
  ["hit", "prefix hit", "Share of prompt tokens found cached, lately"],
  ["all", "turns", "Turns that ended, in all"],
  ["closed", "sessions closed", "In all"],
  ["refused", "refused", "Turns that no replica could ever hold"],
];

function summaryOf(model, counts, texts) {
  const states = Object.entries(counts)
    .map(([state, number]) => `${number} ${state}`)
    .join(", ");
  const longest = model.longestHold();
  const down = model.replicas.filter((replica) => replica.health === "down").length;
  return (
    `At ${moment(model.t)}: sessions ${states}. ` +
    (longest !== null ? `The longest is held for ${seconds(longest)}. ` : "") +
    `${model.replicas.length - down} of ${model.replicas.length} replicas up. ` +
    `${texts.turns} turns a second, prefix hit ${texts.hit}.`
  );
}

/** What went wrong, until it is put away or over. */
export class Notices {
  #place = byId("notices");
  #shown = new Map();

  /** Show a text under a name; an earlier one of that name gives way. `act`: [word, function]. */
  tell(name, text, act = null) {
    const before = this.#shown.get(name);
    if (before?.text === text) {
      before.number += 1;
      before.times.textContent = ` (${before.number} times)`;
      return;
    }
    this.clear(name);
    const times = make("span");
    const row = make("p", { class: "notice" }, make("span", {}, text, times));
    if (act) row.append(button(act[0], act[1]));
    row.append(button("Dismiss", () => this.clear(name)));
    this.#shown.set(name, { row, text, times, number: 1 });
    this.#place.append(row);
  }

  clear(name) {
    this.#shown.get(name)?.row.remove();
    this.#shown.delete(name);
  }
}

function button(word, act) {
  const element = make("button", { type: "button" }, word);
  element.addEventListener("click", act);
  return element;
}
