// Pulls of KV as arrows from replica to replica, for as long as they last.

const ARROW_MS = 900; // a pull is seen so long at least: it may take less than one picture
const MAX_ARROWS = 40; // the largest pulls; more would hide the rack

export class KvArrows {
  #shown = []; // { move, start, lasts }, in milliseconds of the page
  #seen = new WeakSet(); // or one that takes longer than it should would begin anew

  /** Pulls that are seen; of more than a few dozen only the largest are drawn. */
  get size() {
    return this.#shown.length;
  }

  /** Take over a model's pulls; `spread` as in SessionDots.sync. */
  sync(model, now, spread) {
    if (spread === null) [this.#shown, this.#seen] = [[], new WeakSet()];
    const msPerSecond = spread && spread.to > spread.from ? spread.over_ms / (spread.to - spread.from) : 0;
    for (const move of model.moves) {
      if (this.#seen.has(move) || move.from === move.to) continue;
      this.#seen.add(move);
      const wait = spread ? Math.max(0, move.start - spread.from) * msPerSecond : 0;
      const lasts = Math.max(ARROW_MS, (move.ready - move.start) * msPerSecond);
      this.#shown.push({ move, start: now + wait, lasts });
    }
    this.#shown = this.#shown.filter(({ start, lasts }) => now < start + lasts);
  }

  /**
   * Paint them in the colour that is set: a thin line from replica to replica, and on it an arrow that
   * gets as far as the KV has. Return whether there are any.
   */
  paint(ctx, geometry, now, isStill) {
    this.#shown = this.#shown.filter(({ start, lasts }) => now < start + lasts);
    const { unit } = geometry;
    ctx.lineCap = "round";
    for (const { move, start, lasts } of this.#largest(now)) {
      const from = geometry.byReplica.get(move.from)?.centre;
      const to = geometry.byReplica.get(move.to)?.centre;
      if (!from || !to) continue;
      const share = isStill ? 1 : Math.min(1, (now - start) / lasts);
      const eased = share < 0.5 ? 2 * share * share : 1 - 2 * (1 - share) ** 2;
      const bend = bow(from, to);
      ctx.globalAlpha = 0.22;
      ctx.lineWidth = unit;
      stretch(ctx, from, bend, to, 0, 1);
      ctx.globalAlpha = isStill ? 0.9 : Math.min(1, (1 - share) * 6);
      ctx.lineWidth = Math.min(3.6, 1.2 + Math.sqrt(move.tokens / 60_000)) * unit;
      const tail = isStill ? 0 : Math.max(0, eased - 0.3);
      const tip = stretch(ctx, from, bend, to, tail, eased);
      if (eased > 0.03) head(ctx, tip, 7.5 * unit);
    }
    ctx.globalAlpha = 1;
    ctx.lineCap = "butt";
    return this.#shown.length > 0;
  }

  #largest(now) {
    const begun = this.#shown.filter(({ start }) => start <= now);
    if (begun.length <= MAX_ARROWS) return begun;
    return begun.sort((a, b) => b.move.tokens - a.move.tokens).slice(0, MAX_ARROWS);
  }
}

function bow(from, to) {
  const lift = 0.18;
  return {
    x: (from.x + to.x) / 2 + (to.y - from.y) * lift,
    y: (from.y + to.y) / 2 - (to.x - from.x) * lift,
  };
}

/** Stroke a piece of a quadratic curve, from `u` to `v` of its 0 to 1; return its end and direction. */
function stretch(ctx, from, bend, to, u, v) {
  const blossom = (a, b, axis) =>
    (1 - a) * (1 - b) * from[axis] + (a * (1 - b) + b * (1 - a)) * bend[axis] + a * b * to[axis];
  const end = { x: blossom(v, v, "x"), y: blossom(v, v, "y") };
  const middle = { x: blossom(u, v, "x"), y: blossom(u, v, "y") };
  ctx.beginPath();
  ctx.moveTo(blossom(u, u, "x"), blossom(u, u, "y"));
  ctx.quadraticCurveTo(middle.x, middle.y, end.x, end.y);
  ctx.stroke();
  return { ...end, angle: Math.atan2(end.y - middle.y, end.x - middle.x) };
}

function head(ctx, tip, size) {
  ctx.beginPath();
  ctx.moveTo(tip.x + size * 0.5 * Math.cos(tip.angle), tip.y + size * 0.5 * Math.sin(tip.angle));
  for (const turn of [2.5, -2.5]) {
    ctx.lineTo(tip.x + size * Math.cos(tip.angle + turn), tip.y + size * Math.sin(tip.angle + turn));
  }
  ctx.closePath();
  ctx.fill();
}
