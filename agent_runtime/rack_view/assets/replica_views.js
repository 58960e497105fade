// Replicas in words: the table that stands for the picture, and the panel of one of them.

import { byId, make, say } from "./elements.js";
import { labelOf } from "./rack_model.js";
import { briefSeconds, count, moment, percent, seconds, tokens } from "./quantities.js";

const MAX_LISTED = 200;

/** The picture's textual twin: a row a replica. */
export class ReplicaTable {
  #body = byId("replica-rows");
  #rows = [];

  /** @param onOpen told of the replica whose name was pressed. */
  constructor(onOpen) {
    this.onOpen = onOpen;
  }

  reset(layout) {
    this.#rows = layout.replicas.map((_, index) => {
      const button = make("button", { type: "button", class: "link" }, labelOf(layout, index));
      button.addEventListener("click", () => this.onOpen(index));
      const cells = Array.from({ length: 8 }, () => make("td"));
      return { cells, row: make("tr", {}, make("th", { scope: "row" }, button), ...cells) };
    });
    this.#body.replaceChildren(...this.#rows.map(({ row }) => row));
  }

  show(model) {
    const crowds = model.layout.replicas.map(() => ({ prefill: 0, decode: 0, gap: 0 }));
    for (const { replica, state } of model.sessions.values()) {
      if (crowds[replica] && state in crowds[replica]) crowds[replica][state] += 1;
    }
    model.replicas.forEach((replica, index) => {
      const crowd = crowds[index];
      const texts = [
        replica.health,
        count(replica.running),
        count(replica.waiting),
        percent(replica.used),
        percent(replica.active),
        count(crowd.prefill),
        count(crowd.decode),
        count(crowd.gap),
      ];
      texts.forEach((text, column) => say(this.#rows[index].cells[column], text));
      this.#rows[index].row.className = `is-${replica.health}`;
    });
  }
}

/** What one replica has, session by session; `onSession` is told of the session that was pressed. */
export function replicaParts(model, index, onSession) {
  const { chips } = model.layout.replicas[index];
  const replica = model.replicas[index];
  const held = model.layout.kv_tokens;
  const isRack = model.layout.source !== "engines";
  const rows = [["Health", replica.health]];
  if (isRack) rows.push([chips.length === 1 ? "Chip" : "Chips", spans(chips)]);
  rows.push(["Running", count(replica.running)], ["Waiting", count(replica.waiting)]);
  const used = held ? ` of ${tokens(held)} tokens` : "";
  rows.push(["KV used", `${percent(replica.used)}${used}`], ["by running turns", percent(replica.active)]);
  const facts = make(
    "dl",
    { class: "facts" },
    ...rows.flatMap(([term, text]) => [make("dt", {}, term), make("dd", {}, text)]),
  );
  const sessions = model.sessionsAt(index);
  const head = make("h3", {}, `${count(sessions.length)} session${sessions.length === 1 ? "" : "s"} here`);
  const list = make(
    "ul",
    { class: "session-list" },
    ...sessions.slice(0, MAX_LISTED).map((session) => sessionItem(model, session, onSession)),
  );
  const more =
    sessions.length > MAX_LISTED
      ? make("p", { class: "muted" }, `and ${count(sessions.length - MAX_LISTED)} more`)
      : null;
  return [facts, make("section", {}, head, list, more)];
}

function sessionItem(model, session, onSession) {
  const button = make(
    "button",
    { type: "button" },
    make("span", { class: `dot ${session.state}` }),
    make("span", { class: "name" }, session.id),
    make("span", { class: "muted" }, `${session.state} ${seconds(Math.max(0, model.t - session.since))}`),
    make("span", { class: "number" }, tokens(session.context)),
  );
  button.addEventListener("click", () => onSession(session));
  return make("li", {}, button);
}

function spans(chips) {
  const sorted = [...chips].sort((a, b) => a - b);
  const isRow = sorted.every((chip, index) => chip === sorted[0] + index);
  return isRow && sorted.length > 2 ? `${sorted[0]} to ${sorted.at(-1)}` : sorted.join(", ");
}

/** The latest turns that were sent somewhere. It stands still while somebody points at it or is in it. */
export class DecisionList {
  #list = byId("decisions");
  #note = byId("decisions-note");
  #shown = -1;
  #isPointed = false;

  /**
   * @param onOpen told of the decision that was pressed.
   * @param isTold whether the story of a turn can be had.
   */
  constructor(onOpen, isTold) {
    this.onOpen = onOpen;
    this.isTold = isTold;
    this.#list.addEventListener("pointerenter", () => (this.#isPointed = true));
    this.#list.addEventListener("pointerleave", () => (this.#isPointed = false));
    this.#list.addEventListener("keydown", (event) => this.#onKey(event));
  }

  show(model) {
    const more = model.numDispatched - this.#shown;
    const isHeld =
      this.#shown >= 0 && more > 0 && (this.#isPointed || this.#list.contains(document.activeElement));
    say(this.#note, isHeld ? `${count(more)} newer, shown when you leave the list` : "");
    if (isHeld || more === 0) return;
    this.#shown = model.numDispatched;
    const newest = model.latest.toReversed();
    this.#list.replaceChildren(...newest.map((decision, index) => this.#item(model, decision, index === 0)));
  }

  /** Show what the model has, as after a jump in time. */
  reset(model) {
    this.#shown = -1;
    this.show(model);
  }

  #item(model, decision, isFirst) {
    const label = labelOf(model.layout, decision.replica);
    const isNamed = decision.turn.startsWith(decision.session); // a bare number would say nothing
    const held = decision.held >= 0.0005 ? briefSeconds(decision.held) : "0";
    const button = make(
      "button",
      {
        type: "button",
        class: this.isTold(decision.turn) ? "decision told" : "decision",
        tabindex: isFirst ? 0 : -1,
      },
      make("span", { class: "time" }, moment(decision.at)),
      make(
        "span",
        { class: "name", title: `${decision.turn} of ${decision.session}` },
        isNamed ? decision.turn : decision.session,
      ),
      make(
        "span",
        { class: "to", title: `to replica ${label}` },
        label.length > 7 ? `…${label.slice(-6)}` : label,
      ),
      make("span", { class: decision.held > 1 ? "number held-long" : "number muted" }, held),
      make(
        "span",
        { class: "number", title: "tokens of its prompt expected in cache there" },
        tokens(decision.cached),
      ),
    );
    button.addEventListener("click", () => this.onOpen(decision));
    return make("li", {}, button);
  }

  #onKey(event) {
    const buttons = [...this.#list.querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    const next = buttons[Math.min(Math.max(to, 0), buttons.length - 1)];
    buttons[at].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }
}
