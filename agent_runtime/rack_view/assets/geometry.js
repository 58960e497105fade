// Where everything stands: the queue, the domains, their replicas, and in these chips and places for sessions.

const GAP = 8;
const FRAME_ASPECT = 0.92; // width over height that frames come nearest to
const LARGEST_FRAME = { w: 420, h: 360 };
const SMALLEST_FRAME = { w: 74, h: 84 };
const PITCHES = [20, 17, 14.5, 12, 10, 9, 8, 7, 6, 5, 4, 3];
const STACK_BELOW = 620; // domains stand below each other on anything narrower

/**
 * Lay out a rack.
 *
 * @param layout as the protocol has it.
 * @param width of the canvas; `height` too, or null for as much as it takes.
 * @param unit pixels of a design pixel: 1 at a font size of 14 px.
 * @returns {{width, height, queue: Box, groups: Group[], frames: Frame[], byReplica: Map}} a frame a replica.
 */
export function layOut(layout, width, height, unit) {
  const groups = groupsOf(layout);
  const queue = { x: 0, y: 0, w: width, h: 46 * unit };
  const top = queue.h + 10 * unit;
  const stacked = width < STACK_BELOW * unit;
  const columns = stacked ? 1 : Math.min(groups.length, 2);
  const rows = Math.ceil(groups.length / columns);
  const space = 14 * unit;
  const groupWidth = (width - space * (columns - 1)) / columns;
  const full = height ?? top + naturalHeight(groups, columns, groupWidth, space, unit);
  const groupHeight = (full - top - space * (rows - 1)) / rows;
  const frames = [];
  groups.forEach((group, index) => {
    group.box = {
      x: (index % columns) * (groupWidth + space),
      y: top + Math.floor(index / columns) * (groupHeight + space),
      w: groupWidth,
      h: groupHeight,
    };
    placeFrames(group, layout, unit, frames);
  });
  const byReplica = new Map(frames.map((frame) => [frame.replica, frame]));
  return { width, height: full, unit, queue, groups, frames, byReplica };
}

/** Replicas by the domains that their chips are in, and the chips that none of them has. */
function groupsOf(layout) {
  const groups = new Map();
  const groupOf = (domains) => {
    const name = domains.join(", ");
    if (!groups.has(name)) groups.set(name, { domains, replicas: [], spares: [] });
    return groups.get(name);
  };
  const taken = new Set();
  layout.replicas.forEach((replica, index) => {
    for (const chip of replica.chips) taken.add(chip);
    if (isFreeSlot(layout, replica)) return;
    const domains = [...new Set(replica.chips.map((chip) => layout.chips[chip].domain))];
    groupOf(domains.sort((a, b) => a - b)).replicas.push(index);
  });
  layout.chips.forEach((chip, id) => {
    if (!taken.has(id)) groupOf([chip.domain]).spares.push(id);
  });
  return [...groups.values()].sort(
    (a, b) => a.domains[0] - b.domains[0] || b.domains.length - a.domains.length,
  );
}

/** A place that an engine may take later; it would only take room from those that are there. */
export function isFreeSlot(layout, replica) {
  return layout.source === "engines" && !replica.label;
}

const HEAD = 20;
const SPARES = 26;

function naturalHeight(groups, columns, width, space, unit) {
  const heights = groups.map((group) => {
    const across = Math.max(1, Math.floor((width + GAP * unit) / ((SMALLEST_FRAME.w + GAP) * unit)));
    const rows = Math.ceil(group.replicas.length / across);
    return (
      HEAD * unit + rows * (SMALLEST_FRAME.h + 16 + GAP) * unit + (group.spares.length ? SPARES * unit : 0)
    );
  });
  const rows = Math.ceil(groups.length / columns);
  return Math.max(...heights, 0) * rows + space * (rows - 1);
}

function placeFrames(group, layout, unit, frames) {
  const { box } = group;
  const spares = group.spares.length ? SPARES * unit : 0;
  const area = { x: box.x, y: box.y + HEAD * unit, w: box.w, h: box.h - HEAD * unit - spares };
  const gap = (group.replicas.length > 32 ? 5 : GAP) * unit;
  const grid = bestGrid(group.replicas.length, area, gap, unit);
  group.columns = grid.columns;
  group.replicas.forEach((replica, index) => {
    const frame = {
      replica,
      x: area.x + (index % grid.columns) * (grid.w + gap),
      y: area.y + Math.floor(index / grid.columns) * (grid.h + gap),
      w: grid.w,
      h: grid.h,
    };
    frames.push(furnish(frame, layout.replicas[replica].chips.length, unit));
  });
  const rows = Math.ceil(group.replicas.length / grid.columns);
  group.spareBox = { x: area.x, y: area.y + rows * (grid.h + gap), w: area.w, h: spares };
}

function bestGrid(number, area, gap, unit) {
  let best = { columns: 1, w: area.w, h: area.h, off: Infinity };
  for (let columns = 1; columns <= number; columns += 1) {
    const rows = Math.ceil(number / columns);
    const w = Math.min((area.w - gap * (columns - 1)) / columns, LARGEST_FRAME.w * unit);
    const h = Math.min((area.h - gap * (rows - 1)) / rows, LARGEST_FRAME.h * unit);
    if (w <= 0 || h <= 0) continue;
    const empty = (rows * columns - number) / number;
    const off = Math.abs(Math.log(w / h / FRAME_ASPECT)) + empty * 0.7 - Math.log(w * h) * 0.25;
    if (off < best.off) best = { columns, w, h, off };
  }
  return best;
}

function furnish(frame, numChips, unit) {
  const pad = Math.min(7 * unit, frame.w * 0.09);
  const inner = { x: frame.x + pad, y: frame.y + pad, w: frame.w - 2 * pad, h: frame.h - 2 * pad };
  frame.head = { x: inner.x, y: inner.y, w: inner.w, h: 13 * unit };
  const chipArea = {
    x: inner.x,
    y: inner.y + 18 * unit,
    w: inner.w,
    h: Math.min(Math.max((inner.h - 18 * unit) * 0.36, 10 * unit), 96 * unit),
  };
  frame.chips = chipBoxes(numChips, chipArea, unit);
  const bayTop = chipArea.y + chipArea.h + 7 * unit;
  frame.bay = { x: inner.x, y: bayTop, w: inner.w, h: Math.max(inner.y + inner.h - bayTop, 4) };
  frame.centre = { x: chipArea.x + chipArea.w / 2, y: chipArea.y + chipArea.h / 2 };
  return frame;
}

function chipBoxes(number, area, unit) {
  const gap = Math.min(3 * unit, area.w / number / 4);
  const rows = number > 4 && area.w / number < 9 * unit ? Math.ceil((number * 9 * unit) / area.w) : 1;
  const columns = Math.ceil(number / rows);
  const w = (area.w - gap * (columns - 1)) / columns;
  const h = (area.h - gap * (rows - 1)) / rows;
  return Array.from({ length: number }, (_, index) => ({
    x: area.x + (index % columns) * (w + gap),
    y: area.y + Math.floor(index / columns) * (h + gap),
    w,
    h,
  }));
}

/**
 * The widest spacing at which a bay takes both its crowds: who runs from the top, who is parked from
 * the bottom.
 */
export function bayPitch(bay, numRunning, numParked, unit) {
  for (const pitch of PITCHES) {
    const step = pitch * unit;
    const columns = Math.max(1, Math.floor(bay.w / step));
    const rows = Math.floor(bay.h / step);
    if (Math.ceil(numRunning / columns) + Math.ceil(numParked / columns) <= rows) return step;
  }
  return PITCHES.at(-1) * unit;
}

/** The middle of a place in a bay. */
export function bayPlace(bay, pitch, index, isRunning) {
  const columns = Math.max(1, Math.floor(bay.w / pitch));
  const rows = Math.max(1, Math.floor(bay.h / pitch));
  const row = Math.min(Math.floor(index / columns), rows - 1);
  const x = bay.x + ((index % columns) + 0.5) * pitch;
  return { x, y: isRunning ? bay.y + (row + 0.5) * pitch : bay.y + bay.h - (row + 0.5) * pitch };
}

/**
 * One spacing for all bays, so that dots can be compared, taken from what each has room for: that of
 * the fullest tenth, which are packed closer by themselves if need be. A wider one than before is only
 * taken when it is much wider, or all dots would move whenever a session does.
 */
export function commonPitch(fits, before) {
  const sorted = [...fits].sort((a, b) => a - b);
  const fit = sorted[Math.floor(sorted.length / 10)] ?? PITCHES[0];
  return fit < before || fit > before * 1.3 ? fit : before;
}

/** The room for dots in the queue, beside its words. */
export function queueRoom(queue, unit) {
  const words = Math.min(150 * unit, queue.w * 0.36);
  return {
    x: queue.x + words,
    y: queue.y + 7 * unit,
    w: queue.w - words - 10 * unit,
    h: queue.h - 14 * unit,
  };
}

/** Columns of places from the left: the head of the queue is at its left end. */
export function queuePitch(room, number, unit) {
  for (const pitch of PITCHES.filter((each) => each <= 12)) {
    const step = pitch * unit;
    if (Math.floor(room.w / step) * Math.max(1, Math.floor(room.h / step)) >= number) return step;
  }
  return PITCHES.at(-1) * unit;
}

export function queuePlace(room, pitch, index) {
  const rows = Math.max(1, Math.floor(room.h / pitch));
  const columns = Math.max(1, Math.floor(room.w / pitch));
  const column = Math.min(Math.floor(index / rows), columns - 1);
  const slack = (room.h - rows * pitch) / 2;
  return { x: room.x + (column + 0.5) * pitch, y: room.y + slack + ((index % rows) + 0.5) * pitch };
}

/** The replica whose frame has this point, or null. */
export function frameAt(geometry, x, y) {
  const inside = (frame) => x >= frame.x && x <= frame.x + frame.w && y >= frame.y && y <= frame.y + frame.h;
  return geometry.frames.find(inside)?.replica ?? null;
}

/** The nearest replica in a direction ("ArrowLeft", …), or the same one. */
export function neighbour(geometry, replica, key) {
  const from = geometry.byReplica.get(replica);
  if (!from) return geometry.frames[0]?.replica ?? replica;
  const [alongX, sign] = {
    ArrowLeft: [true, -1],
    ArrowRight: [true, 1],
    ArrowUp: [false, -1],
    ArrowDown: [false, 1],
  }[key];
  let best = { replica, far: Infinity };
  for (const frame of geometry.frames) {
    const dx = frame.x + frame.w / 2 - from.x - from.w / 2;
    const dy = frame.y + frame.h / 2 - from.y - from.h / 2;
    const ahead = (alongX ? dx : dy) * sign;
    const aside = Math.abs(alongX ? dy : dx);
    const far = ahead + aside * 4;
    if (ahead > 1 && far < best.far) best = { replica: frame.replica, far };
  }
  return best.replica;
}
