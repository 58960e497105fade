// A dot a session: where it is drawn, where it is going, and when it sets out. Knows no canvas.

import { bayPitch, bayPlace, commonPitch, queuePitch, queuePlace, queueRoom } from "./geometry.js";

const GLIDE_MS = 520;
const APPEAR_MS = 300;
const SMALLEST = 0.58; // of the largest dot, for a session without any context
const LARGEST_OF_PITCH = 0.42;
const NOBODY = { running: [], parked: [] };

/**
 * Dots follow a model. They set out one after another, spread over the time to the next frame by
 * when their sessions changed: otherwise all of them would jump twice a second.
 */
export class SessionDots {
  constructor() {
    this.byId = new Map();
    this.moving = new Set(); // dots that are not where they belong yet
    this.leaving = new Set(); // dots of closed sessions, as they fade
    this.instant = false; // where people want no motion
  }

  #largestContext = 1;
  #pitch = Infinity; // between dots in bays
  #bays = new Map(); // by replica: { running: places, parked: places }, each an id or null

  /**
   * Take the model's sessions over.
   *
   * @param now when, in the page's milliseconds.
   * @param spread { from, to, over_ms }: changes since `from` up to `to` set out over so long; null
   *     for all at once, as after a jump in time.
   */
  sync(model, geometry, now, spread) {
    this.step(now); // or who gets a new place at every frame would never set out for it
    this.#forgetClosed(model, now, spread === null);
    for (const session of model.sessions.values()) {
      if (session.context > this.#largestContext) this.#largestContext = session.context;
      this.#settle(session, now, spread);
    }
    this.place(model, geometry, now, spread);
  }

  /** Take any spacing, as after a change of the page's size. */
  forgetSpacing() {
    this.#pitch = Infinity;
  }

  /** Give all dots their places. */
  place(model, geometry, now, spread = null) {
    const held = [];
    for (const dot of this.byId.values()) {
      // Whose home is an engine that left has no place of its own either.
      if (!dot.seat || !geometry.byReplica.has(dot.seat.replica)) held.push(dot);
    }
    const waits = (dot) => (dot.session.state === "held" ? 0 : 1);
    held.sort(
      (a, b) =>
        waits(a) - waits(b) || a.session.since - b.session.since || (a.session.id < b.session.id ? -1 : 1),
    );
    const room = queueRoom(geometry.queue, geometry.unit);
    const pitch = queuePitch(room, held.length, geometry.unit);
    held.forEach((dot, index) => this.#send(dot, queuePlace(room, pitch, index), pitch, now, spread));
    const fits = geometry.frames.map(({ bay, replica }) => {
      const { running, parked } = this.#bays.get(replica) ?? NOBODY;
      return bayPitch(bay, running.length, parked.length, geometry.unit);
    });
    this.#pitch = commonPitch(fits, this.#pitch);
    geometry.frames.forEach((frame, index) => {
      const bay = this.#bays.get(frame.replica) ?? NOBODY;
      const step = Math.min(this.#pitch, fits[index]);
      this.#seat(bay.running, frame, step, true, now, spread);
      this.#seat(bay.parked, frame, step, false, now, spread);
    });
  }

  #seat(places, frame, pitch, isRunning, now, spread) {
    places.forEach((id, index) => {
      if (id !== null)
        this.#send(this.byId.get(id), bayPlace(frame.bay, pitch, index, isRunning), pitch, now, spread);
    });
  }

  /** Move everything to where it is at `now`; return whether anything is still under way. */
  step(now) {
    for (const dot of this.moving) {
      const share = this.instant ? 1 : (now - dot.start) / dot.lasts;
      if (share <= 0) continue;
      if (dot.shown !== dot.session.state) dot.shown = dot.session.state;
      const eased = share >= 1 ? 1 : 1 - (1 - share) ** 3;
      dot.x = dot.x0 + (dot.x1 - dot.x0) * eased;
      dot.y = dot.y0 + (dot.y1 - dot.y0) * eased;
      dot.r = dot.r0 + (dot.r1 - dot.r0) * eased;
      if (share >= 1) this.moving.delete(dot);
    }
    for (const dot of this.leaving) {
      const share = this.instant ? 1 : (now - dot.start) / APPEAR_MS;
      dot.r = dot.r0 * Math.max(0, 1 - Math.max(0, share));
      if (share >= 1) this.leaving.delete(dot);
    }
    return this.moving.size > 0 || this.leaving.size > 0;
  }

  /** The dot nearest to a point and within `reach` pixels of it, or null. */
  nearest(x, y, reach) {
    let best = null;
    let bestSquare = reach * reach;
    for (const dot of this.byId.values()) {
      const square = (dot.x - x) ** 2 + (dot.y - y) ** 2;
      if (square < bestSquare) [best, bestSquare] = [dot, square];
    }
    return best;
  }

  #forgetClosed(model, now, atOnce) {
    for (const [id, dot] of this.byId) {
      if (model.sessions.has(id)) continue;
      this.#leaveSeat(dot);
      this.byId.delete(id);
      this.moving.delete(dot);
      if (atOnce) continue;
      dot.r0 = dot.r;
      dot.start = now;
      this.leaving.add(dot);
    }
  }

  /** Seat a session as its state says; whoever stays where it was keeps its place. */
  #settle(session, now, spread) {
    let dot = this.byId.get(session.id);
    if (!dot) {
      dot = {
        session,
        shown: session.state,
        seat: null,
        x: NaN,
        y: 0,
        r: 0,
        x0: 0,
        y0: 0,
        r0: 0,
        x1: NaN,
        y1: 0,
        r1: 0,
        start: 0,
        lasts: 1,
      };
      this.byId.set(session.id, dot);
    } else if (dot.session === session) {
      return;
    }
    dot.session = session;
    if (dot.shown !== session.state) {
      dot.start = setsOut(session, now, spread);
      this.moving.add(dot);
    }
    const kind = session.state === "gap" ? "parked" : "running";
    const isQueued = session.state === "held" || session.replica < 0;
    if (dot.seat && !isQueued && dot.seat.replica === session.replica && dot.seat.kind === kind) return;
    this.#leaveSeat(dot);
    if (!isQueued) dot.seat = this.#takeSeat(session, kind);
  }

  #takeSeat(session, kind) {
    let bay = this.#bays.get(session.replica);
    if (!bay) this.#bays.set(session.replica, (bay = { running: [], parked: [] }));
    const free = bay[kind].indexOf(null);
    const index = free < 0 ? bay[kind].length : free;
    bay[kind][index] = session.id;
    return { replica: session.replica, kind, index };
  }

  #leaveSeat(dot) {
    if (!dot.seat) return;
    const places = this.#bays.get(dot.seat.replica)[dot.seat.kind];
    places[dot.seat.index] = null;
    while (places.length && places.at(-1) === null) places.pop();
    dot.seat = null;
  }

  #send(dot, place, pitch, now, spread) {
    const share = SMALLEST + (1 - SMALLEST) * Math.sqrt(dot.session.context / this.#largestContext);
    const r = pitch * LARGEST_OF_PITCH * share;
    if (place.x === dot.x1 && place.y === dot.y1 && r === dot.r1) return;
    const isNew = Number.isNaN(dot.x1);
    if (isNew) [dot.x, dot.y, dot.r] = [place.x, place.y, 0];
    [dot.x0, dot.y0, dot.r0] = [dot.x, dot.y, dot.r];
    [dot.x1, dot.y1, dot.r1] = [place.x, place.y, r];
    dot.start = dot.shown !== dot.session.state || isNew ? setsOut(dot.session, now, spread) : now;
    dot.lasts = isNew ? APPEAR_MS : GLIDE_MS;
    this.moving.add(dot);
  }
}

function setsOut(session, now, spread) {
  if (!spread || !(spread.to > spread.from)) return now;
  const share = (session.since - spread.from) / (spread.to - spread.from);
  return now + Math.min(1, Math.max(0, share)) * spread.over_ms;
}
