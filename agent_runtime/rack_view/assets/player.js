// Time in a recording: it runs, stands, or is put anywhere.

import { byId, make, say } from "./elements.js";
import { moment, shortSeconds } from "./quantities.js";

const SPEEDS = [1, 10, 60, 300];
const WHOLE_TAKES_S = 60;

export class Player {
  #scrubber = byId("scrubber");
  #playButton = byId("play");
  #speedSelect = byId("speed");
  #clock = byId("clock");
  #last = null; // milliseconds, at the step before

  /**
   * @param onTime told of a time that was jumped to; time that goes on is in what `step` returns.
   */
  constructor(timeline, onTime) {
    this.timeline = timeline;
    this.onTime = onTime;
    this.t = timeline.start;
    this.isPlaying = false;
    const fit = Math.max((timeline.end - timeline.start) / WHOLE_TAKES_S, 0.1);
    this.speed = fit;
    const speeds = [
      [fit, `${+fit.toPrecision(2)}x, all in a minute`],
      ...SPEEDS.map((speed) => [speed, `${speed}x`]),
    ];
    this.#speedSelect.append(
      ...speeds.map(([speed, text], index) => make("option", { value: speed, selected: index === 0 }, text)),
    );
    this.#speedSelect.addEventListener("change", () => (this.speed = Number(this.#speedSelect.value)));
    Object.assign(this.#scrubber, {
      min: timeline.start,
      max: timeline.end,
      step: "any",
      value: timeline.start,
    });
    this.#scrubber.addEventListener("input", () => this.seek(Number(this.#scrubber.value)));
    this.#playButton.addEventListener("click", () => this.toggle());
    byId("transport").hidden = false;
    this.#show();
  }

  toggle() {
    if (!this.isPlaying && this.t >= this.timeline.end) this.seek(this.timeline.start);
    this.isPlaying = !this.isPlaying;
    this.#last = null;
    this.#show();
  }

  seek(t) {
    this.t = Math.min(Math.max(t, this.timeline.start), this.timeline.end);
    this.#show();
    this.onTime(this.t);
  }

  /** Go by so many hundredths of the whole. */
  skip(hundredths) {
    this.seek(this.t + ((this.timeline.end - this.timeline.start) * hundredths) / 100);
  }

  /** Let time go on to `now` (milliseconds); return whether it did. */
  step(now) {
    const last = this.#last ?? now;
    this.#last = now;
    if (!this.isPlaying) return false;
    const passed_s = Math.min(now - last, 250) / 1000; // a page that was hidden goes on where it was
    this.t = Math.min(this.t + passed_s * this.speed, this.timeline.end);
    if (this.t >= this.timeline.end) this.isPlaying = false;
    this.#show();
    return true;
  }

  #show() {
    const { start, end } = this.timeline;
    this.#scrubber.value = this.t;
    const share = end > start ? (this.t - start) / (end - start) : 1;
    this.#scrubber.style.setProperty("--done", `${share * 100}%`);
    this.#scrubber.setAttribute("aria-valuetext", `${moment(this.t)} of ${moment(end)}`);
    say(this.#clock, `${moment(this.t)} / ${moment(end)}`);
    this.#clock.title = `a run of ${shortSeconds(Math.round(end - start))}`;
    const word = this.isPlaying ? "Pause" : "Play";
    if (this.#playButton.getAttribute("aria-label") !== word) {
      this.#playButton.setAttribute("aria-label", word);
      this.#playButton.dataset.shows = this.isPlaying ? "pause" : "play";
    }
  }
}
