// Why a turn runs where it does: what could have been done, what each would have cost, and how it came out.

import { byId, make } from "./elements.js";
import { count, moment, percent, seconds, tokens } from "./quantities.js";

const COSTS = [
  ["wait_s", "wait", "Prefill ahead of it there"],
  ["move_s", "move", "Pulling its KV there"],
  ["load_s", "load", "Loading its KV from host memory"],
  ["prefill_s", "prefill", "Computing the rest of its prompt"],
  ["crowd_s", "crowd", "Delay of the turns that decode there while it is prefilled"],
  ["decode_s", "decode", "What decoding beside them takes longer, for it and for them"],
  ["loss_s", "loss", "KV dropped for it that will be missed"],
];

/** All that an option costs, in seconds. */
export function costOf(option) {
  return COSTS.reduce((sum, [name]) => sum + (option[name] ?? 0), 0);
}

/** The parts of the page that tell a turn's story; `name` says what a replica is called. */
export function storyParts(story, name) {
  const sent = story.receipts.findLast(([, receipt]) => receipt.chosen !== null);
  return [facts(story, sent, name), outcome(story, sent), decisions(story, name)].filter(Boolean);
}

function facts(story, sent, name) {
  const rows = [
    ["Session", story.session],
    ["Prompt", `${count(story.prompt_tokens)} tokens${cached(story)}`],
    ["Arrived", moment(story.arrived_s)],
  ];
  const holds = story.receipts.filter(([, receipt]) => receipt.chosen === null).length;
  if (story.dispatched_s != null) {
    const held = story.dispatched_s - story.arrived_s;
    rows.push([
      "Held",
      held > 0 ? `${seconds(held)}${holds ? `, looked at ${holds} times` : ""}` : "not at all",
    ]);
    const due = sent?.[1].due ? ", for it had been held long enough" : "";
    rows.push(["Sent", `to replica ${name(story.replica)} at ${moment(story.dispatched_s)}${due}`]);
  } else {
    rows.push(["Held", "still, no replica has a place worth its cost"]);
  }
  if (story.prefilled_s != null)
    rows.push(["First token", `after ${seconds(story.prefilled_s - story.arrived_s)}`]);
  else if (story.cached_tokens != null)
    rows.push(["First token", "with all others: the answer came in one piece"]);
  if (story.ended_s != null)
    rows.push([
      "Ended",
      `${moment(story.ended_s)}, ${seconds(story.ended_s - story.arrived_s)} after it came`,
    ]);
  return make(
    "dl",
    { class: "facts" },
    ...rows.flatMap(([term, text]) => [make("dt", {}, term), make("dd", {}, text)]),
  );
}

function cached(story) {
  if (story.cached_tokens == null || !(story.prompt_tokens > 0)) return "";
  return `, ${tokens(story.cached_tokens)} found cached (${percent(story.cached_tokens / story.prompt_tokens)})`;
}

/** Predicted beside realised, from the decision to the first token. */
function outcome(story, sent) {
  const option = sent?.[1].options.find((each) => each.replica === sent[1].chosen);
  if (!option) return null;
  const predicted = option.ttft_s;
  const realised = story.prefilled_s == null ? null : story.prefilled_s - sent[0];
  const longest = Math.max(predicted, realised ?? 0, 1e-9);
  const missing = story.ended_s == null ? "not yet" : "not seen";
  const bar = (word, value, kind) => {
    const level = make("span", { class: `level ${kind}` });
    level.style.width = `${((value ?? 0) / longest) * 100}%`;
    return [
      make("dt", {}, word),
      make(
        "dd",
        {},
        make("span", { class: "bar" }, level),
        make("span", { class: "number" }, value === null ? missing : seconds(value)),
      ),
    ];
  };
  return make(
    "section",
    {},
    make("h3", {}, "To the first token, from the decision on"),
    make(
      "dl",
      { class: "bars" },
      ...bar("predicted", predicted, "predicted"),
      ...bar("realised", realised, "realised"),
    ),
  );
}

function decisions(story, name) {
  if (!story.receipts.length) {
    return make(
      "p",
      { class: "muted" },
      "There is no receipt of it: the policy gives none, or nobody watched when it was decided.",
    );
  }
  const place = make("div");
  const show = (index) => place.replaceChildren(...decision(story.receipts[index], name));
  const last = story.receipts.length - 1;
  const chosen = story.receipts.findLastIndex(([, receipt]) => receipt.chosen !== null);
  const first = chosen < 0 ? last : chosen;
  show(first);
  const head = make("div", { class: "section-head" }, make("h3", {}, "What could have been done"));
  if (last > 0) {
    const choices = story.receipts.map(([t, receipt], index) => {
      const word = receipt.chosen === null ? "held" : `sent to ${name(receipt.chosen)}`;
      return make(
        "option",
        { value: index, selected: index === first },
        `${index + 1} of ${last + 1}: ${word} at ${moment(t)}`,
      );
    });
    const select = make("select", { "aria-label": "Which decision" }, ...choices);
    select.addEventListener("change", () => show(Number(select.value)));
    head.append(select);
  }
  return make("section", {}, head, place);
}

function decision([, receipt], name) {
  if (!receipt.options.length) return [make("p", { class: "muted" }, "No replica had room.")];
  const options = receipt.options.toSorted((a, b) => costOf(a) - costOf(b));
  const worst = options.reduce((most, option) => Math.max(most, costOf(option)), 1e-9);
  const heads = COSTS.map(([, word, title]) => make("th", { scope: "col", title }, word));
  const table = make(
    "table",
    { class: "options" },
    make("caption", { class: "hidden" }, "Options by all they cost, in seconds"),
    make(
      "thead",
      {},
      make(
        "tr",
        {},
        make("th", { scope: "col" }, "replica"),
        make("th", { scope: "col" }, "in all"),
        ...heads,
        make("th", { scope: "col", title: "Tokens of its prompt, there by then" }, "cached"),
        make("th", { scope: "col", title: "Sessions whose KV would make room" }, "drops"),
      ),
    ),
    make(
      "tbody",
      {},
      ...options.map((option) => optionRow(option, option.replica === receipt.chosen, worst, name)),
    ),
  );
  const held =
    receipt.chosen === null
      ? make("p", { class: "muted" }, "Held: none of these was worth its cost yet.")
      : null;
  return [
    held,
    make("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Options" }, table),
  ].filter(Boolean);
}

function optionRow(option, isChosen, worst, name) {
  const total = costOf(option);
  const cells = COSTS.map(([key]) => {
    const value = option[key] ?? 0;
    const share = total > 0 ? value / total : 0;
    return make("td", { class: value === 0 ? "zero" : share > 0.5 ? "most" : null }, seconds(value));
  });
  const level = make("span", { class: "level" });
  level.style.width = `${(total / worst) * 100}%`;
  const mark = isChosen ? make("span", { class: "chosen-mark" }, "chosen") : null;
  return make(
    "tr",
    { class: isChosen ? "chosen" : null },
    make("th", { scope: "row" }, name(option.replica), mark),
    make(
      "td",
      { class: "all" },
      make("span", { class: "bar" }, level),
      make("span", { class: "number" }, seconds(total)),
    ),
    ...cells,
    make("td", {}, tokens(option.cached_tokens)),
    make("td", {}, count(option.dropped_sessions)),
  );
}

/** The panel at the page's side: one thing is open in it, and closing it gives the focus back. */
export class SidePanel {
  #panel = byId("panel");
  #title = byId("panel-title");
  #body = byId("panel-body");
  #before = null;

  constructor(onClose) {
    this.onClose = onClose;
    byId("panel-close").addEventListener("click", () => this.close());
  }

  get isOpen() {
    return !this.#panel.hidden;
  }

  /** Open it with a title; return a function that sets its content while it is still this that is shown. */
  open(title, kind) {
    if (!this.isOpen) this.#before = document.activeElement;
    this.#panel.hidden = false;
    this.#panel.dataset.kind = kind;
    this.#title.textContent = title;
    const shown = (this.shown = Symbol(title));
    this.#body.scrollTop = 0;
    this.#title.focus();
    return (...parts) => {
      if (this.shown === shown) this.#body.replaceChildren(...parts);
    };
  }

  close() {
    if (!this.isOpen) return;
    this.#panel.hidden = true;
    this.shown = null;
    this.#body.replaceChildren();
    if (this.#before?.isConnected) this.#before.focus();
    this.onClose();
  }
}
