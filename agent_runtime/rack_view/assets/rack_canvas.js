// The rack as a picture: what stands still on one canvas, what moves on another above it.

import { isFreeSlot } from "./geometry.js";
import { KvArrows } from "./kv_arrows.js";
import { percent, seconds, tokens } from "./quantities.js";
import { labelOf } from "./rack_model.js";

const LEVEL_MS = 140; // in which a level comes two thirds nearer to where it belongs
const COLOURS = [
  "ink",
  "muted",
  "rule",
  "card",
  "tile",
  "accent",
  "accent-soft",
  "held",
  "held-ink",
  "prefill",
  "decode",
  "gap",
  "move",
  "bad",
];
const DOT_STATES = ["gap", "decode", "prefill", "held"]; // from the bottom up
const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif';

export class RackCanvas {
  #still;
  #live;
  #colours = {};
  #levels = []; // by replica: what is shown of used and active, and where that goes
  #leveledAt = 0;
  #scale = 1;

  constructor(still, live) {
    this.#still = still.getContext("2d");
    this.#live = live.getContext("2d");
    this.instant = false;
    this.arrows = new KvArrows();
  }

  /** Look the colours up again, as after a change of theme. */
  readColours() {
    const probe = document.createElement("span");
    document.body.append(probe);
    for (const name of COLOURS) {
      probe.style.color = `var(--${name})`;
      this.#colours[name] = getComputedStyle(probe).color;
    }
    probe.remove();
  }

  resize(width, height, unit) {
    this.#scale = Math.min(window.devicePixelRatio || 1, 2);
    this.unit = unit;
    for (const { canvas } of [this.#still, this.#live]) {
      canvas.width = Math.round(width * this.#scale);
      canvas.height = Math.round(height * this.#scale);
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
    }
  }

  /** Take over levels and pulls; `spread` as in SessionDots.sync. */
  sync(model, now, spread) {
    model.replicas.forEach((replica, index) => {
      (this.#levels[index] ??= { used: 0, active: 0 }).to = replica;
    });
    this.#levels.length = model.replicas.length;
    this.arrows.sync(model, now, spread);
  }

  /** Paint what changes only with a frame of the stream: boxes, words, health. */
  paintStill(model, geometry, { selected, focused }) {
    const ctx = this.#begin(this.#still);
    this.#paintQueue(ctx, model, geometry);
    for (const group of geometry.groups) this.#paintGroup(ctx, model, group);
    for (const frame of geometry.frames) {
      this.#paintFrame(ctx, model, frame, frame.replica === selected, frame.replica === focused);
    }
  }

  /** Paint what moves; return whether it has to be painted again. */
  paintLive(model, geometry, dots, now, marked) {
    const ctx = this.#begin(this.#live);
    const rising = this.#paintLevels(ctx, geometry, now);
    this.#paintTails(ctx, dots);
    this.#paintDots(ctx, dots);
    if (marked) this.#paintMarked(ctx, dots, marked);
    ctx.strokeStyle = ctx.fillStyle = this.#colours.move;
    const pulling = this.arrows.paint(ctx, geometry, now, this.instant);
    return rising || pulling;
  }

  #begin(ctx) {
    ctx.setTransform(this.#scale, 0, 0, this.#scale, 0, 0);
    ctx.clearRect(0, 0, ctx.canvas.width, ctx.canvas.height);
    ctx.textBaseline = "alphabetic";
    return ctx;
  }

  #write(
    ctx,
    text,
    x,
    y,
    { size = 11, colour = "muted", weight = 400, align = "left", room = Infinity } = {},
  ) {
    ctx.font = `${weight} ${size * this.unit}px ${FONT}`;
    ctx.fillStyle = this.#colours[colour];
    ctx.textAlign = align;
    ctx.fillText(fitted(ctx, text, room), x, y);
  }

  #paintQueue(ctx, model, { queue }) {
    const { unit } = this;
    ctx.fillStyle = this.#colours.card;
    ctx.strokeStyle = this.#colours.rule;
    rounded(ctx, queue, 8 * unit);
    ctx.fill();
    ctx.stroke();
    const longest = model.longestHold();
    const says = longest === null ? "nobody waits" : `longest ${seconds(longest)}`;
    this.#write(ctx, "Held", queue.x + 12 * unit, queue.y + 20 * unit, {
      size: 13,
      colour: "ink",
      weight: 600,
    });
    this.#write(ctx, says, queue.x + 12 * unit, queue.y + 36 * unit, { size: 11.5 });
  }

  #paintGroup(ctx, model, group) {
    const { unit } = this;
    const { box, domains, replicas, spares } = group;
    const isRack = model.layout.source !== "engines";
    const name = isRack ? `Domain${domains.length > 1 ? "s" : ""} ${domains.join(", ")}` : "Engines";
    this.#write(ctx, name, box.x, box.y + 12 * unit, { size: 12, colour: "ink", weight: 600 });
    const chips = replicas.reduce((sum, replica) => sum + model.layout.replicas[replica].chips.length, 0);
    const word = isRack ? "replica" : "engine";
    const parts = [`${replicas.length} ${word}${replicas.length === 1 ? "" : "s"}`];
    const numFree = model.layout.replicas.filter((replica) => isFreeSlot(model.layout, replica)).length;
    if (numFree) parts.push(`room for ${numFree} more`);
    if (isRack) parts.push(`${chips} chip${chips === 1 ? "" : "s"}`);
    this.#write(ctx, parts.join(" · "), box.x + box.w, box.y + 12 * unit, { size: 11.5, align: "right" });
    if (spares.length) this.#paintSpares(ctx, group.spareBox, spares.length);
  }

  #paintSpares(ctx, box, number) {
    const { unit } = this;
    const label = `${number} chips without a replica`;
    this.#write(ctx, label, box.x, box.y + 16 * unit, { size: 11 });
    const start = box.x + ctx.measureText(label).width + 10 * unit;
    const step = Math.min(9 * unit, (box.x + box.w - start) / number);
    ctx.strokeStyle = this.#colours.rule;
    ctx.beginPath();
    for (let index = 0; index < number; index += 1)
      ctx.rect(start + index * step, box.y + 8 * unit, step * 0.7, 9 * unit);
    ctx.stroke();
  }

  #paintFrame(ctx, model, frame, isSelected, isFocused) {
    const { unit } = this;
    const replica = model.replicas[frame.replica];
    const health = replica?.health ?? "empty";
    ctx.fillStyle = this.#colours.card;
    ctx.strokeStyle = this.#colours[health === "down" ? "bad" : isSelected || isFocused ? "accent" : "rule"];
    ctx.lineWidth = isSelected || isFocused ? 2 * unit : 1;
    ctx.setLineDash(health === "up" || isSelected ? [] : [4 * unit, 3 * unit]);
    rounded(ctx, frame, 6 * unit);
    ctx.fill();
    ctx.stroke();
    ctx.setLineDash([]);
    ctx.lineWidth = 1;
    this.#paintHead(ctx, model, frame, replica, health);
    ctx.fillStyle = this.#colours.tile;
    ctx.beginPath();
    for (const chip of frame.chips) ctx.roundRect(chip.x, chip.y, chip.w, chip.h, 2.5 * unit);
    ctx.fill();
  }

  #paintHead(ctx, model, frame, replica, health) {
    const { unit } = this;
    const { head } = frame;
    const baseline = head.y + 10 * unit;
    const isNarrow = head.w < 62 * unit;
    const { running = 0, waiting = 0 } = replica ?? {};
    const batch = waiting ? `${running} + ${waiting}` : `${running}`;
    const right = health === "up" ? (isNarrow ? `${running + waiting}` : batch) : health;
    const style = { size: isNarrow ? 10 : 11.5, align: "right" };
    if (health === "down") Object.assign(style, { colour: "bad", weight: 600 });
    else if (waiting && health === "up") style.colour = "held-ink";
    this.#write(ctx, right, head.x + head.w, baseline, style);
    const room = head.w - ctx.measureText(right).width - 6 * unit;
    const label = labelOf(model.layout, frame.replica);
    this.#write(ctx, label, head.x, baseline, {
      size: isNarrow ? 10 : 11.5,
      colour: "ink",
      weight: 600,
      room,
    });
  }

  #paintLevels(ctx, geometry, now) {
    const share = this.instant ? 1 : 1 - Math.exp(-Math.max(0, now - this.#leveledAt) / LEVEL_MS);
    this.#leveledAt = now;
    let rising = false;
    const used = new Path2D();
    const active = new Path2D();
    for (const frame of geometry.frames) {
      const level = this.#levels[frame.replica];
      if (!level) continue;
      for (const name of ["used", "active"]) {
        const far = level.to[name] - level[name];
        level[name] += Math.abs(far) < 0.002 ? far : far * share;
        if (level[name] !== level.to[name]) rising = true;
      }
      const radius = 2.5 * this.unit;
      for (const chip of frame.chips) {
        fillUp(used, chip, Math.min(1, level.used), radius);
        fillUp(active, chip, Math.min(1, level.active), radius);
      }
    }
    ctx.fillStyle = this.#colours["accent-soft"];
    ctx.fill(used);
    ctx.fillStyle = this.#colours.accent;
    ctx.fill(active);
    return rising;
  }

  /** A short tail behind whoever is on the way, so that one sees whence. */
  #paintTails(ctx, dots) {
    if (this.instant) return;
    for (const state of DOT_STATES) {
      let any = false;
      ctx.beginPath();
      for (const dot of dots.moving) {
        if (dot.shown !== state || dot.r0 === 0) continue;
        const [dx, dy] = [dot.x1 - dot.x, dot.y1 - dot.y];
        const far = Math.hypot(dx, dy);
        if (far < 6) continue;
        const long = Math.min(far * 0.5, 26 * this.unit, Math.hypot(dot.x - dot.x0, dot.y - dot.y0)) / far;
        ctx.moveTo(dot.x, dot.y);
        ctx.lineTo(dot.x - dx * long, dot.y - dy * long);
        any = true;
      }
      if (!any) continue;
      ctx.globalAlpha = 0.4;
      ctx.strokeStyle = this.#colours[state];
      ctx.lineWidth = 2 * this.unit;
      ctx.stroke();
      ctx.globalAlpha = 1;
    }
  }

  #paintDots(ctx, dots) {
    const paths = Object.fromEntries(DOT_STATES.map((state) => [state, new Path2D()]));
    const add = (dot) => {
      if (!(dot.r > 0.2)) return;
      const path = paths[dot.shown] ?? paths.gap;
      const r = dot.shown === "prefill" ? dot.r * 0.8 : dot.r;
      path.moveTo(dot.x + r, dot.y);
      path.arc(dot.x, dot.y, r, 0, 2 * Math.PI);
    };
    for (const dot of dots.byId.values()) add(dot);
    for (const dot of dots.leaving) add(dot);
    for (const state of DOT_STATES) {
      if (state === "prefill") {
        ctx.strokeStyle = this.#colours.prefill;
        ctx.lineWidth = 1.8 * this.unit;
        ctx.stroke(paths[state]);
      } else {
        ctx.fillStyle = this.#colours[state];
        ctx.fill(paths[state]);
      }
    }
  }

  /** A ring around one session, and lines to its parent and its children. */
  #paintMarked(ctx, dots, id) {
    const dot = dots.byId.get(id);
    if (!dot) return;
    ctx.strokeStyle = this.#colours.ink;
    ctx.lineWidth = 1.5 * this.unit;
    ctx.beginPath();
    for (const other of dots.byId.values()) {
      if (other.session.parent !== id && dot.session.parent !== other.session.id) continue;
      ctx.moveTo(dot.x, dot.y);
      ctx.lineTo(other.x, other.y);
    }
    ctx.globalAlpha = 0.45;
    ctx.stroke();
    ctx.globalAlpha = 1;
    ctx.beginPath();
    ctx.arc(dot.x, dot.y, dot.r + 3.5 * this.unit, 0, 2 * Math.PI);
    ctx.stroke();
  }
}

/** What a replica is, in a sentence; for its tip and for those who do not see the picture. */
export function replicaSentence(model, index) {
  const replica = model.replicas[index];
  const label = labelOf(model.layout, index);
  if (!replica) return `Replica ${label}`;
  return (
    `Replica ${label}: ${replica.health}, ${replica.running} running, ${replica.waiting} waiting, ` +
    `KV ${percent(replica.used)} used, ${percent(replica.active)} by running turns`
  );
}

/** What a session is, in a sentence. */
export function sessionSentence(model, session) {
  const label = labelOf(model.layout, session.replica);
  const where =
    session.replica < 0
      ? ""
      : session.state === "gap"
        ? `, home is replica ${label}`
        : ` on replica ${label}`;
  const parent = session.parent ? `, child of ${session.parent}` : "";
  const since = seconds(Math.max(0, model.t - session.since));
  return `${session.state}${where} for ${since}, context of ${tokens(session.context)} tokens${parent}`;
}

function rounded(ctx, box, radius) {
  ctx.beginPath();
  ctx.roundRect(box.x + 0.5, box.y + 0.5, box.w - 1, box.h - 1, radius);
}

function fillUp(path, chip, share, radius) {
  const h = chip.h * share;
  if (h < 0.3) return;
  const top = Math.max(0, radius - (chip.h - h));
  path.roundRect(chip.x, chip.y + chip.h - h, chip.w, h, [top, top, radius, radius]);
}

function fitted(ctx, text, room) {
  if (room === Infinity || ctx.measureText(text).width <= room) return text;
  for (let length = text.length - 1; length > 0; length -= 1) {
    const shorter = `…${text.slice(-length)}`; // the end of an address tells more than its start
    if (ctx.measureText(shorter).width <= room) return shorter;
  }
  return "";
}
