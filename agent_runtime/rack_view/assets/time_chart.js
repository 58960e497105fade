// Small charts over time: percentiles as lines on a logarithmic axis, or crowds stacked.

import { make, makeSvg, say } from "./elements.js";
import { briefSeconds, count, moment, MISSING, shortSeconds } from "./quantities.js";

const PAD = { left: 3.2, right: 0.6, top: 0.4, bottom: 1.3 }; // in sizes of the font
const TICKS = [1e-4, 2e-4, 5e-4]; // that people count time in, in seconds
for (const unit of [1e-3, 1e-2, 1e-1, 1]) TICKS.push(unit, 2 * unit, 5 * unit);
TICKS.push(10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 18_000, 36_000, 86_400, 172_800, 432_000, 864_000);
let numCharts = 0;

class TimeChart {
  #svg = makeSvg("svg", { role: "img" });
  #grid = makeSvg("g");
  #whole = makeSvg("g", { class: "ahead" });
  #past = makeSvg("g");
  #clip = makeSvg("rect", { y: 0 });
  #playhead = makeSvg("line", { class: "playhead" });
  #cross = makeSvg("line", { class: "cross", visibility: "hidden" });
  #pointed = null; // x in pixels, while the pointer is over it
  #drawn = "";
  #span = [0, 1];

  constructor(place, { title, onSeek }) {
    this.title = title;
    this.words = make("span", { class: "values" });
    this.element = make(
      "figure",
      { class: "chart" },
      make("figcaption", {}, make("b", {}, title), this.words),
      this.#svg,
    );
    const id = `clip-${(numCharts += 1)}`;
    this.#past.setAttribute("clip-path", `url(#${id})`);
    const clip = makeSvg("clipPath", { id }, this.#clip);
    this.#svg.append(clip, this.#grid, this.#whole, this.#past, this.#playhead, this.#cross);
    place.append(this.element);
    this.#svg.addEventListener("pointermove", (event) => this.#point(event.offsetX));
    this.#svg.addEventListener("pointerleave", () => this.#point(null));
    if (onSeek) {
      this.#svg.classList.add("seeks");
      this.#svg.addEventListener("click", (event) => onSeek(this.#timeAt(event.offsetX)));
    }
  }

  /**
   * @param samples with their `t`, in order.
   * @param from, to what the axis covers, in seconds of the run; `now`: what is past of it.
   */
  show(samples, from, to, now) {
    const width = this.#svg.clientWidth;
    const height = this.#svg.clientHeight;
    if (!width || !height) return;
    this.samples = samples;
    this.now = now;
    const em = (this.em = parseFloat(getComputedStyle(document.documentElement).fontSize));
    this.plot = {
      x: PAD.left * em,
      y: PAD.top * em,
      w: width - (PAD.left + PAD.right) * em,
      h: height - (PAD.top + PAD.bottom) * em,
    };
    this.#span = [from, to > from ? to : from + 1];
    const key = [samples.length, samples.at(-1)?.t, from, to, width, height].join(" ");
    if (key !== this.#drawn) {
      this.#drawn = key;
      this.#svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      this.#grid.replaceChildren(...this.#timeTicks(), ...this.yTicks());
      this.#whole.replaceChildren(...this.marks());
      this.#past.replaceChildren(...this.marks());
      this.#clip.setAttribute("height", height);
    }
    const x = this.x(now);
    this.#clip.setAttribute("width", Math.max(0, x));
    place(this.#playhead, x, this.plot);
    this.#playhead.setAttribute("visibility", now < to ? "visible" : "hidden");
    this.#tell();
  }

  x(t) {
    const [from, to] = this.#span;
    return this.plot.x + ((t - from) / (to - from)) * this.plot.w;
  }

  gridLine(y, text) {
    const { x, w } = this.plot;
    return [
      makeSvg("line", { class: "grid", x1: x, x2: x + w, y1: y, y2: y }),
      makeSvg("text", { x: x - 0.4 * this.em, y: y + 0.26 * this.em, class: "y" }, text),
    ];
  }

  #timeTicks() {
    const [from, to] = this.#span;
    const most = Math.max(2, Math.floor(this.plot.w / (3.2 * this.em)));
    const step = roundStep((to - from) / most);
    const ticks = [];
    for (let t = Math.ceil(from / step) * step; t <= to; t += step) {
      const x = this.x(t);
      if (x < this.plot.x - 1 || x > this.plot.x + this.plot.w - 0.8 * this.em) continue;
      ticks.push(
        makeSvg("text", { x, y: this.plot.y + this.plot.h + this.em, class: "x" }, timeTick(t, step)),
      );
    }
    return ticks;
  }

  #timeAt(x) {
    const [from, to] = this.#span;
    return from + Math.min(1, Math.max(0, (x - this.plot.x) / this.plot.w)) * (to - from);
  }

  #point(x) {
    this.#pointed = x;
    if (this.plot) this.#tell();
  }

  #tell() {
    const isPointed = this.#pointed !== null;
    const t = isPointed ? this.#timeAt(this.#pointed) : this.now;
    const sample = this.samples.findLast((each) => each.t <= t) ?? null;
    this.#cross.setAttribute("visibility", isPointed && sample ? "visible" : "hidden");
    if (isPointed && sample) place(this.#cross, this.x(sample.t), this.plot);
    this.tell(sample, isPointed);
    const at = sample ? ` at ${moment(sample.t)}` : "";
    this.#svg.setAttribute("aria-label", `${this.title}: ${this.words.textContent}${isPointed ? "" : at}`);
  }
}

/** The median and the 99th percentile of a latency. */
export class LatencyChart extends TimeChart {
  constructor(place, options) {
    super(place, options);
    this.p50 = make("span", { class: "p50" });
    this.p99 = make("span", { class: "p99" });
    this.words.append(this.p50, this.p99);
  }

  yTicks() {
    const values = this.samples.flatMap(({ p50, p99 }) => [p50, p99]).filter((value) => value > 0);
    const low = values.length ? values.reduce((a, b) => Math.min(a, b)) : 0.1;
    const high = values.length ? values.reduce((a, b) => Math.max(a, b)) : 1;
    const ticks = TICKS;
    const first = Math.min(
      Math.max(
        0,
        ticks.findLastIndex((tick) => tick <= low * 1.0001),
      ),
      ticks.length - 2,
    );
    const above = ticks.findIndex((tick) => tick >= high * 0.9999);
    const last = Math.max(first + 1, above < 0 ? ticks.length - 1 : above);
    this.low = ticks[first];
    this.high = ticks[last];
    const every = Math.ceil((last - first + 1) / Math.max(2, Math.floor(this.plot.h / (1.25 * this.em))));
    return ticks
      .filter((_, index) => index >= first && index <= last && (index - first) % every === 0)
      .flatMap((tick) => this.gridLine(this.y(tick), shortSeconds(tick)));
  }

  y(value) {
    const share = Math.log(Math.max(value, this.low) / this.low) / Math.log(this.high / this.low);
    return this.plot.y + this.plot.h * (1 - share);
  }

  marks() {
    return ["p99", "p50"].map((name) => {
      const points = this.samples.map(
        (sample) => `${this.x(sample.t).toFixed(1)} ${this.y(sample[name]).toFixed(1)}`,
      );
      return makeSvg("path", { class: `line ${name}`, d: points.length ? `M${points.join("L")}` : "" });
    });
  }

  tell(sample) {
    say(this.p50, `p50 ${sample ? briefSeconds(sample.p50) : MISSING}`);
    say(this.p99, `p99 ${sample ? briefSeconds(sample.p99) : MISSING}`);
  }
}

/** How many sessions are in each state, stacked in the order given. */
export class PopulationChart extends TimeChart {
  constructor(place, options) {
    super(place, options);
    this.states = options.states;
  }

  yTicks() {
    const total = (sample) => this.states.reduce((sum, state) => sum + (sample.counts[state] ?? 0), 0);
    const most = this.samples.reduce((high, sample) => Math.max(high, total(sample)), 1);
    const step = Math.max(1, roundStep(most / 2.5));
    this.high = Math.ceil(most / step) * step;
    const ticks = [];
    for (let tick = 0; tick <= this.high; tick += step)
      ticks.push(...this.gridLine(this.y(tick), count(tick)));
    return ticks;
  }

  y(value) {
    return this.plot.y + this.plot.h * (1 - value / this.high);
  }

  marks() {
    const below = this.samples.map(() => 0);
    if (!this.samples.length) return [];
    return this.states.map((state) => {
      const floor = this.samples.map(
        (sample, index) => `${this.x(sample.t).toFixed(1)} ${this.y(below[index]).toFixed(1)}`,
      );
      this.samples.forEach((sample, index) => (below[index] += sample.counts[state] ?? 0));
      const roof = this.samples.map(
        (sample, index) => `${this.x(sample.t).toFixed(1)} ${this.y(below[index]).toFixed(1)}`,
      );
      return makeSvg("path", {
        class: `area ${state}`,
        d: `M${roof.join("L")}L${floor.reverse().join("L")}Z`,
      });
    });
  }

  tell(sample) {
    const total = sample ? Object.values(sample.counts).reduce((a, b) => a + b, 0) : 0;
    say(this.words, sample ? `${count(total)} open` : MISSING);
  }
}

function place(line, x, plot) {
  for (const [name, value] of [
    ["x1", x],
    ["x2", x],
    ["y1", plot.y],
    ["y2", plot.y + plot.h],
  ])
    line.setAttribute(name, value);
}

function timeTick(t, step) {
  return step >= 60 || t < 60 ? shortSeconds(Math.round(t * 1000) / 1000) : moment(t).replace(/\.\d$/, "");
}

/** The next step that people count in: 1, 2, 5 of a power of ten, and of a minute or an hour. */
function roundStep(step) {
  for (const unit of [3600, 60]) {
    if (step <= unit / 2) continue;
    const steps = [1, 2, 5, 10, 15, 20, 30].map((each) => each * unit);
    const found = steps.find((each) => each >= step);
    if (found) return found;
  }
  const power = 10 ** Math.floor(Math.log10(step));
  return [1, 2, 5, 10].map((digit) => digit * power).find((each) => each >= step * 0.999);
}
