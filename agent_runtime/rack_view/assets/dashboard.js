// The parts of the page, and what they are told when the rack or somebody's mind changes.

import { byId, make, say } from "./elements.js";
import { FrameMeter } from "./frame_meter.js";
import { Headline, Notices } from "./headline.js";
import { moment, seconds, tokens } from "./quantities.js";
import { labelOf } from "./rack_model.js";
import { replicaSentence, sessionSentence } from "./rack_canvas.js";
import { RackPicture } from "./rack_picture.js";
import { SidePanel, storyParts } from "./receipt_panel.js";
import { DecisionList, replicaParts, ReplicaTable } from "./replica_views.js";
import { Theme } from "./theme.js";
import { LatencyChart, PopulationChart } from "./time_chart.js";

const WORDS_EVERY_MS = 200; // numbers that change faster can't be read
const CHARTS_EVERY_MS = 500;

/**
 * Shows a model. Where its state comes from, and stories of turns, is its owner's: a stream or a
 * recording.
 */
export class Dashboard {
  #charts = [];
  #areWordsOld = false;
  #areChartsOld = false;
  #saidAt = -Infinity;
  #chartedAt = -Infinity;
  #showPanel = null; // brings the open panel up to date

  /**
   * @param stories { fetch, isKept, near }: fetch(turn) returns a promise of the turn's story and rejects
   *     with why there is none; isKept(turn), whether one is to be expected; near(session, t), the kept
   *     ones nearest to that, as [turn, session, when].
   * @param onSeek told of a time that was pressed in a chart; null where time can't be set.
   */
  constructor({ stories, onSeek = null }) {
    this.stories = stories;
    this.onSeek = onSeek;
    this.notices = new Notices();
    this.meter = new FrameMeter();
    this.model = null;
    this.headline = new Headline();
    this.panel = new SidePanel(() => this.#closed());
    this.picture = new RackPicture({ onOpen: (thing) => this.open(thing) });
    this.table = new ReplicaTable((replica) => this.open({ replica }));
    this.decisions = new DecisionList((decision) => this.openTurn(decision.turn, decision), stories.isKept);
    this.theme = new Theme(() => this.picture.recolour());
    const motion = matchMedia("(prefers-reduced-motion: reduce)");
    this.picture.still = motion.matches;
    motion.addEventListener("change", () => (this.picture.still = motion.matches));
    byId("as-table").addEventListener("click", () => this.toggleTable());
    byId("help-button").addEventListener("click", () => byId("help").showModal());
    for (const dialog of document.querySelectorAll("dialog")) {
      dialog.querySelector(".close")?.addEventListener("click", () => dialog.close());
    }
  }

  /** Begin with a model that has a layout. `series` and `population` of a recording are known in whole. */
  begin(model, whole = null) {
    this.model = model;
    this.whole = whole;
    this.headline.reset(model.layout);
    this.table.reset(model.layout);
    this.picture.reset(model);
    const place = byId("charts");
    place.replaceChildren();
    this.#charts = model.layout.series.map((name, index) => {
      const title = name.replace(/_s$/, "").toUpperCase();
      return [new LatencyChart(place, { title, onSeek: this.onSeek }), (shown) => shown.series[index]];
    });
    const states = ["decode", "prefill", "gap", "held"].filter((state) =>
      model.layout.states.includes(state),
    );
    const crowd = new PopulationChart(place, { title: "Sessions", states, onSeek: this.onSeek });
    this.#charts.push([crowd, (shown) => shown.population]);
  }

  /** Show a model's state; `spread` as in SessionDots.sync. */
  show(model, now, spread) {
    this.model = model;
    this.picture.sync(model, now, spread);
    if (spread === null) this.decisions.reset(model);
    this.#areWordsOld = this.#areChartsOld = true;
    if (spread === null) this.#catchUp(now, 0);
  }

  /** Once a picture of the screen. */
  paint(now, began) {
    if (!this.isTable) this.picture.paint(now);
    this.#catchUp(now, 1);
    this.meter.take(now, performance.now() - began);
  }

  get isTable() {
    return byId("as-table").getAttribute("aria-pressed") === "true";
  }

  toggleTable() {
    const isTable = !this.isTable;
    byId("as-table").setAttribute("aria-pressed", String(isTable));
    byId("rack").hidden = isTable;
    byId("table").hidden = !isTable;
    this.table.show(this.model);
  }

  open({ session: id, replica }) {
    if (replica !== undefined) return this.openReplica(replica);
    const session = this.model.sessions.get(id);
    if (!session) return undefined;
    if (session.turn) return this.openTurn(session.turn, null, session.id);
    const show = this.#openPanel(session.id, "session", { session: id });
    return show(
      make("p", {}, sessionSentence(this.model, session)),
      make("p", { class: "muted" }, "No turn of it is known here yet."),
    );
  }

  openReplica(index) {
    const show = this.#openPanel(`Replica ${labelOf(this.model.layout, index)}`, "replica", {
      replica: index,
    });
    this.#showPanel = () =>
      show(...replicaParts(this.model, index, (session) => this.open({ session: session.id })));
    this.#showPanel();
  }

  /** Open the receipt of a turn. `decision` is what the list knows of it, if it comes from there. */
  async openTurn(turn, decision = null, sessionId = decision?.session) {
    const show = this.#openPanel(`Turn ${turn}`, "turn", { session: sessionId });
    const session = this.model.sessions.get(sessionId);
    const lead =
      session?.turn === turn
        ? [make("p", { class: "lead" }, `${session.id}: ${sessionSentence(this.model, session)}`)]
        : [];
    show(...lead, make("p", { class: "muted" }, "Looking for its receipt …"));
    try {
      const story = await this.stories.fetch(turn);
      show(...lead, ...storyParts(story, (replica) => labelOf(this.model.layout, replica)));
    } catch (error) {
      if (decision) {
        const held = decision.held > 0 ? `held for ${seconds(decision.held)}, then ` : "";
        lead.push(
          make(
            "p",
            {},
            `${held}sent to replica ${labelOf(this.model.layout, decision.replica)} at ${moment(decision.at)}; ${tokens(decision.cached)} tokens were expected in its cache.`,
          ),
        );
      }
      show(
        ...lead,
        make("p", { class: "notice" }, error.message),
        ...this.#nearStories(sessionId, decision?.at ?? this.model.t),
      );
    }
  }

  #nearStories(sessionId, t) {
    const near = this.stories.near(sessionId, t);
    if (!near.length) return [];
    const items = near.map(([turn, session, at]) => {
      const button = make("button", { type: "button" }, `${turn}, ${moment(at)}`);
      button.addEventListener("click", () => this.openTurn(turn, null, session));
      return make("li", {}, button);
    });
    return [
      make(
        "section",
        {},
        make("h3", {}, "Kept, and nearest to it"),
        make("ul", { class: "link-list" }, ...items),
      ),
    ];
  }

  /** A key of the keyboard that nothing else took; return whether it meant something here. */
  onKey(key) {
    if (key === "?") byId("help").showModal();
    else if (key === "Escape" && this.panel.isOpen) this.panel.close();
    else if (key === "t") this.toggleTable();
    else if (key === "d") byId("theme").click();
    else return false;
    return true;
  }

  #openPanel(title, kind, selected) {
    this.#showPanel = null;
    this.picture.select(selected);
    return this.panel.open(title, kind);
  }

  #closed() {
    this.#showPanel = null;
    this.picture.select(null);
  }

  /** Bring words and charts up to date, if they are old and were not just now; `pace` 0: at once. */
  #catchUp(now, pace) {
    if (this.#areWordsOld && now - this.#saidAt >= WORDS_EVERY_MS * pace) this.#showWords(now);
    if (this.#areChartsOld && now - this.#chartedAt >= CHARTS_EVERY_MS * pace) this.#showCharts(now);
  }

  #showWords(now) {
    this.#areWordsOld = false;
    this.#saidAt = now;
    this.headline.show(this.model, now);
    this.decisions.show(this.model);
    if (this.isTable) this.table.show(this.model);
    say(byId("at"), `at ${moment(this.model.t)}`);
    // What somebody is in with the keyboard or the pointer must not be taken from under them.
    const body = byId("panel-body");
    if (this.#showPanel && !body.matches(":hover") && !body.contains(document.activeElement))
      this.#showPanel();
  }

  #showCharts(now) {
    this.#areChartsOld = false;
    this.#chartedAt = now;
    const shown = this.whole ?? this.model;
    const from = shown.population[0]?.t ?? 0;
    const to = shown.population.at(-1)?.t ?? 1;
    for (const [chart, samples] of this.#charts) chart.show(samples(shown), from, to, this.model.t);
  }

  /** What tests and the curious may look at. */
  get probe() {
    return {
      t: this.model?.t ?? null,
      counts: this.model?.layout ? this.model.counts() : {},
      replicas: this.model?.replicas ?? [],
      numDots: this.picture.dots.byId.size,
      numMoving: this.picture.dots.moving.size,
      numArrows: this.picture.canvas.arrows.size,
      places: (id) => this.picture.dots.byId.get(id),
      frames: this.picture.geometry?.frames ?? [],
      fps: this.meter.fps,
      frameCosts: this.meter.costs,
      isDark: this.theme.isDark,
      focused: this.model?.replicas.length ? replicaSentence(this.model, this.picture.focused) : "",
    };
  }
}
