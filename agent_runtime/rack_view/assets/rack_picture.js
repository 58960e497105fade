// The picture of the rack as a thing one can point at, walk through with arrow keys, and open.

import { byId, make, say } from "./elements.js";
import { frameAt, layOut, neighbour } from "./geometry.js";
import { RackCanvas, replicaSentence, sessionSentence } from "./rack_canvas.js";
import { SessionDots } from "./session_dots.js";

const REACH_PX = 12; // of a pointer around a dot; a finger is wider
const FINGER_REACH_PX = 22;
const STILL_EVERY_MS = 100; // its words can't be read faster

export class RackPicture {
  #box = byId("rack");
  #stage = byId("stage");
  #options = byId("rack-options");
  #tip = byId("tip");
  #pointed = null; // { session } or { replica }, under the pointer
  #model = null;
  #isDirty = true;
  #isStillOld = true;
  #stillAt = -Infinity;

  /** @param onOpen told of { session } or { replica }. */
  constructor({ onOpen }) {
    this.onOpen = onOpen;
    this.canvas = new RackCanvas(byId("still"), byId("live"));
    this.dots = new SessionDots();
    this.geometry = null;
    this.selected = null; // { session: id } or { replica }, opened in the panel
    this.focused = 0; // the replica that arrow keys go on from
    new ResizeObserver(() => this.#fit()).observe(this.#box);
    this.#stage.addEventListener("pointermove", (event) => this.#point(event));
    this.#stage.addEventListener("pointerleave", () => this.#show(null));
    this.#stage.addEventListener("click", (event) => this.#press(event));
    this.#stage.addEventListener("keydown", (event) => this.#onKey(event));
    for (const name of ["focus", "blur"]) this.#stage.addEventListener(name, () => this.#repaint());
  }

  /** Whether motion is wanted. */
  set still(isStill) {
    this.dots.instant = this.canvas.instant = isStill;
  }

  /** Begin with a new layout. */
  reset(model) {
    this.#model = model;
    this.dots = Object.assign(new SessionDots(), { instant: this.dots.instant });
    this.#options.replaceChildren(
      ...model.layout.replicas.map((_, index) => make("li", { id: `replica-${index}`, role: "option" })),
    );
    this.#fit();
  }

  /** Take a model's state over; `spread` as in SessionDots.sync. */
  sync(model, now, spread) {
    this.#model = model;
    if (!this.geometry) return;
    this.dots.sync(model, this.geometry, now, spread);
    this.canvas.sync(model, now, spread);
    this.#isDirty = this.#isStillOld = true;
    if (this.#pointed) this.#show(this.#pointed);
  }

  recolour() {
    this.canvas.readColours();
    this.#repaint();
  }

  select(selected) {
    this.selected = selected;
    this.#repaint();
  }

  /** Paint, if there is anything to; return whether it was. */
  paint(now) {
    if (!this.geometry || !this.#model) return false;
    if (this.#isStillOld && now - this.#stillAt >= STILL_EVERY_MS) {
      this.#stillAt = now;
      this.#describe();
      this.#repaint();
    }
    const moving = this.dots.step(now);
    if (!moving && !this.#isDirty) return false;
    const marked = this.#pointed?.session ?? this.selected?.session;
    this.#isDirty = this.canvas.paintLive(this.#model, this.geometry, this.dots, now, marked);
    return true;
  }

  #fit() {
    const width = this.#box.clientWidth;
    if (!width || !this.#model?.layout) return;
    const unit = parseFloat(getComputedStyle(document.documentElement).fontSize) / 14;
    const isFree = getComputedStyle(this.#box).getPropertyValue("--free-height").trim() === "1";
    const before = this.geometry;
    this.geometry = layOut(this.#model.layout, width, isFree ? null : this.#box.clientHeight, unit);
    if (!before?.byReplica.has(this.focused)) this.focused = this.geometry.frames[0]?.replica ?? 0;
    this.canvas.resize(width, this.geometry.height, unit);
    this.#stage.style.height = isFree ? `${this.geometry.height}px` : "100%";
    this.canvas.readColours();
    const now = performance.now();
    this.dots.forgetSpacing();
    this.dots.sync(this.#model, this.geometry, now, null);
    this.canvas.sync(this.#model, now, { from: 0, to: 0, over_ms: 0 });
    for (const dot of this.dots.byId.values()) dot.start = -1e9; // a page that is resized is no motion
    this.#repaint();
  }

  #repaint() {
    if (!this.geometry || !this.#model) return;
    this.#isDirty = true;
    this.#isStillOld = false;
    const focused = document.activeElement === this.#stage ? this.focused : null;
    this.canvas.paintStill(this.#model, this.geometry, { selected: this.selected?.replica ?? null, focused });
  }

  #describe() {
    this.#model.replicas.forEach((_, index) =>
      say(this.#options.children[index], replicaSentence(this.#model, index)),
    );
    this.#stage.setAttribute("aria-activedescendant", `replica-${this.focused}`);
  }

  #thingAt(event) {
    const { left, top } = this.#stage.getBoundingClientRect();
    const [x, y] = [event.clientX - left, event.clientY - top];
    const dot = this.dots.nearest(x, y, event.pointerType === "touch" ? FINGER_REACH_PX : REACH_PX);
    if (dot) return { session: dot.session.id, x, y };
    const replica = this.geometry ? frameAt(this.geometry, x, y) : null;
    return replica === null ? null : { replica, x, y };
  }

  #point(event) {
    if (event.pointerType !== "touch") this.#show(this.#thingAt(event));
  }

  #press(event) {
    const thing = this.#thingAt(event);
    if (!thing) return;
    if (thing.replica !== undefined) this.#walkTo(thing.replica);
    this.onOpen(thing);
  }

  #show(thing) {
    const session = thing?.session ? this.#model.sessions.get(thing.session) : null;
    this.#isDirty ||= this.#pointed?.session !== thing?.session;
    this.#pointed = session || thing?.replica !== undefined ? thing : null;
    this.#stage.classList.toggle("points", this.#pointed !== null);
    this.#tip.hidden = this.#pointed === null;
    if (!this.#pointed) return;
    const [title, text] = session
      ? [session.id, sessionSentence(this.#model, session)]
      : ["", replicaSentence(this.#model, thing.replica)];
    this.#tip.replaceChildren(...(title ? [make("b", {}, title)] : []), make("span", {}, text));
    const room = this.#box.clientWidth - this.#tip.offsetWidth - 4;
    this.#tip.style.left = `${Math.max(4, Math.min(thing.x + 14, room))}px`;
    const below = thing.y + 18;
    const fits = below + this.#tip.offsetHeight < this.#stage.clientHeight;
    this.#tip.style.top = `${fits ? below : Math.max(4, thing.y - this.#tip.offsetHeight - 12)}px`;
  }

  #onKey(event) {
    if (!this.geometry?.frames.length || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key.startsWith("Arrow")) this.#walkTo(neighbour(this.geometry, this.focused, event.key));
    else if (event.key === "Home") this.#walkTo(this.geometry.frames[0].replica);
    else if (event.key === "End") this.#walkTo(this.geometry.frames.at(-1).replica);
    else if (event.key === "Enter") this.onOpen({ replica: this.focused });
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #walkTo(replica) {
    this.focused = replica;
    this.#describe();
    this.#repaint();
  }
}
