// How smoothly the page runs: pictures a second, and what painting one costs.

const KEPT_MS = 2000;

export class FrameMeter {
  #frames = []; // [when it began, its cost], milliseconds; of the last two seconds

  take(now, cost_ms) {
    this.#frames.push([now, cost_ms]);
    while (this.#frames[0][0] < now - KEPT_MS) this.#frames.shift();
  }

  /** Pictures a second, over the last two. */
  get fps() {
    const [first, last] = [this.#frames[0], this.#frames.at(-1)];
    return last && last[0] > first[0] ? ((this.#frames.length - 1) * 1000) / (last[0] - first[0]) : 0;
  }

  /** What each of them cost in script, in milliseconds. */
  get costs() {
    return this.#frames.map(([, cost]) => cost);
  }
}
