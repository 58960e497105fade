// A recording inside the page: unpacked, and every moment of it in reach.

import { KINDS, ProtocolError, RackModel, unknownKind } from "./rack_model.js";

const FRAMES_BETWEEN_COPIES = 16;

/** Return the messages of the page's recording; null where it has none. */
export async function readRecording() {
  const element = document.getElementById("recording");
  if (!element) return null;
  const packed = Uint8Array.from(atob(element.textContent.trim()), (letter) => letter.charCodeAt(0));
  element.remove(); // some megabytes of text that nobody needs any more
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const lines = (await new Response(unpacked).text()).split("\n");
  return lines.filter((line) => line).map((line, index) => parsed(line, index + 1));
}

function parsed(line, number) {
  try {
    return JSON.parse(line);
  } catch (error) {
    throw new ProtocolError(`line ${number} of the recording is no JSON: ${error.message}`);
  }
}

/** The frames of a run. Any of them can be asked for: whole copies of the model stand at even steps. */
export class Timeline {
  /**
   * @param messages the layout, frames, and perhaps stories.
   * @param onProblem told in words of a message that was left out.
   * @throws {ProtocolError} there is nothing in it to show.
   */
  constructor(messages, onProblem) {
    this.stories = {};
    this.frames = [];
    this.copies = [];
    const model = new RackModel();
    for (const message of messages) {
      try {
        const kind = model.apply(message);
        if (kind === "stories") Object.assign(this.stories, message.turns);
        if (kind === "frame") this.#take(message, model);
        if (!KINDS.includes(kind)) onProblem(unknownKind(kind));
      } catch (error) {
        if (!(error instanceof ProtocolError) || !model.layout) throw error;
        onProblem(`A message was left out: ${error.message}`);
      }
    }
    if (!this.frames.length)
      throw new ProtocolError("the recording has no frames: make it anew with --replay");
    this.whole = model; // its series are those of the whole run
  }

  #take(frame, model) {
    if (this.frames.length && frame.t < this.frames.at(-1).t) {
      throw new ProtocolError(`a frame of ${frame.t} s comes after one of ${this.frames.at(-1).t} s`);
    }
    if (this.frames.length % FRAMES_BETWEEN_COPIES === 0) this.copies.push(model.copy());
    this.frames.push(frame);
  }

  get start() {
    return this.frames[0].t;
  }

  get end() {
    return this.frames.at(-1).t;
  }

  /** Index of the last frame that is not after `t`. */
  indexAt(t) {
    let low = 0;
    let high = this.frames.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.frames[middle].t <= t) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** The rack as of one frame: a model of the caller's own, which takes the frames after it too. */
  modelAt(index) {
    const model = this.copies[Math.floor(index / FRAMES_BETWEEN_COPIES)].copy();
    const first = index - (index % FRAMES_BETWEEN_COPIES) + 1;
    for (let at = first; at <= index; at += 1) model.apply(this.frames[at]);
    return model;
  }
}

const MAX_NEAR = 8;

/** The stories of turns that a recording has: of some, since those of all would be most of it. */
export class KeptStories {
  #turns = new Map();

  take(turns) {
    this.#turns = new Map(Object.entries(turns));
  }

  async fetch(turn) {
    const story = this.#turns.get(turn);
    if (story) return story;
    throw new Error(`This recording keeps the receipts of ${this.#turns.size} turns, and not of this one.`);
  }

  isKept = (turn) => this.#turns.has(turn);

  /** The kept ones of a session, or else any, that were sent nearest to a time: [turn, session, when]. */
  near(session, t) {
    const sent = [...this.#turns.values()].filter((story) => story.dispatched_s !== null);
    const own = sent.filter((story) => story.session === session);
    return (own.length ? own : sent)
      .sort((a, b) => Math.abs(a.dispatched_s - t) - Math.abs(b.dispatched_s - t))
      .slice(0, MAX_NEAR)
      .map((story) => [story.turn, story.session, story.dispatched_s]);
  }
}
