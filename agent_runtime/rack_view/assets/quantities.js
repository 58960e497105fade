// Quantities as people read them: three digits that matter, and the unit. The same words as reports have.

export const MISSING = "–";

const CALENDAR = [
  [86400, "d", 3600, "h"],
  [3600, "h", 60, "m"],
  [60, "m", 1, "s"],
];

/** A duration in seconds: "312 ms", "4.21 s", "12 m 05 s", "1 h 02 m". */
export function seconds(value) {
  if (!Number.isFinite(value)) return MISSING;
  if (value < 0) return `-${seconds(-value)}`;
  for (const [large, largeUnit, small, smallUnit] of CALENDAR) {
    if (value < large - small / 20) continue;
    const steps = Math.round(value / small);
    const rest = steps % (large / small);
    const whole = (steps - rest) / (large / small);
    return `${count(whole)} ${largeUnit} ${String(rest).padStart(2, "0")} ${smallUnit}`;
  }
  if (value >= 0.9995) return `${digits(value)} s`;
  return value === 0 ? "0 s" : value < 0.0005 ? "<1 ms" : `${digits(value * 1000)} ms`;
}

/** A duration where there is little room: "24.5 m", "1.41 h". */
export function briefSeconds(value) {
  if (value >= 3598) return `${digits(value / 3600)} h`;
  return value >= 59.95 ? `${digits(value / 60)} m` : seconds(value);
}

/** A tick of an axis: "5 m", "200 ms". */
export function shortSeconds(value) {
  if (value >= 86400 && value % 3600 === 0) return `${+(value / 86400).toPrecision(3)} d`;
  if (value >= 3600) return `${+(value / 3600).toPrecision(3)} h`;
  if (value >= 60) return `${+(value / 60).toPrecision(3)} m`;
  if (value >= 1 || value === 0) return `${+value.toPrecision(3)} s`;
  return `${+(value * 1000).toPrecision(3)} ms`;
}

/** A moment of a run: "3:07.5", "1:02:33". */
export function moment(value) {
  if (!Number.isFinite(value)) return MISSING;
  const tenths = Math.max(0, Math.round(value * 10));
  const pad = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(tenths / 36000);
  const minutes = Math.floor(tenths / 600) % 60;
  const rest = Math.floor(tenths / 10) % 60;
  if (hours) return `${hours}:${pad(minutes)}:${pad(rest)}`;
  return `${minutes}:${pad(rest)}.${tenths % 10}`;
}

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export function count(value) {
  return Number.isFinite(value) ? WHOLE.format(value) : MISSING;
}

/** How many tokens: "812", "128 k", "1.25 M". */
export function tokens(value) {
  if (!Number.isFinite(value)) return MISSING;
  for (const [unit, word] of [
    [1e9, "B"],
    [1e6, "M"],
    [1e3, "k"],
  ]) {
    if (Math.abs(value) >= unit * 0.9995) return `${digits(value / unit)} ${word}`;
  }
  return count(value);
}

/** How many a second: "0.42", "17.3", "1.25 k". */
export function rate(value) {
  if (!Number.isFinite(value)) return MISSING;
  return value >= 999.5 ? tokens(value) : digits(value);
}

export function percent(ratio, places = 0) {
  return Number.isFinite(ratio) ? `${(ratio * 100).toFixed(places)} %` : MISSING;
}

function digits(value) {
  if (value >= 99.95) return value.toFixed(0);
  return value >= 9.995 ? value.toFixed(1) : value.toFixed(2);
}
