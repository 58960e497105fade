// The page begins here: live from the server it came from, or with the recording inside it.

import { Dashboard } from "./dashboard.js";
import { byId, say } from "./elements.js";
import { LiveStream } from "./live_stream.js";
import { Player } from "./player.js";
import { KINDS, ProtocolError, RackModel, unknownKind } from "./rack_model.js";
import { KeptStories, readRecording, Timeline } from "./recording.js";

const LONGEST_SPREAD_MS = { live: 1000, replay: 5000 }; // changes are shown so much late at most
const KEY_STORED_AS = "panjiu-dashboard-key";

/** Play what is inside the page. */
function replay(messages) {
  const stories = new KeptStories();
  const dashboard = new Dashboard({
    stories,
    onSeek: (t) => player.seek(t),
  });
  const timeline = new Timeline(messages, (problem) => dashboard.notices.tell("message", problem));
  stories.take(timeline.stories);
  let index = 0;
  let model = timeline.modelAt(0);
  const jump = () => {
    index = timeline.indexAt(player.t);
    model = timeline.modelAt(index);
    dashboard.show(model, performance.now(), null);
  };
  const player = new Player(timeline, jump);
  dashboard.begin(model, timeline.whole);
  jump();
  showPhase("recording", "Recording");
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) player.toggle();
  const onStep = (now) => {
    if (!player.step(now)) return;
    const next = timeline.indexAt(player.t);
    if (next === index) return;
    const from = timeline.frames[index].t;
    while (index < next) model.apply(timeline.frames[(index += 1)]);
    const pause_s = ((timeline.frames[index + 1]?.t ?? model.t) - model.t) / player.speed;
    dashboard.show(model, now, {
      from,
      to: model.t,
      over_ms: Math.min(pause_s * 1000, LONGEST_SPREAD_MS.replay),
    });
  };
  const keys = {
    " ": () => player.toggle(),
    ArrowLeft: () => player.skip(-1),
    ArrowRight: () => player.skip(1),
    PageUp: () => player.skip(-10),
    PageDown: () => player.skip(10),
    Home: () => player.seek(timeline.start),
    End: () => player.seek(timeline.end),
  };
  return {
    dashboard,
    keys,
    onStep,
    probe: () => ({ mode: "replay", phase: "recording", isPlaying: player.isPlaying, speed: player.speed }),
  };
}

/** Follow the server. */
function live() {
  const model = new RackModel();
  let frozen = null; // a copy of the model, while the page stands still
  let framedAt = 0;
  let phase = "connecting";
  const dashboard = new Dashboard({
    stories: {
      fetch: (turn) => stream.fetchJson(new URL(`view/turns/${encodeURIComponent(turn)}`, location.href)),
      isKept: () => true,
      near: () => [],
    },
  });
  const onMessage = (message) => {
    const before = model.t;
    const kind = takeMessage(model, message);
    const now = performance.now();
    if (kind === "layout") {
      frozen = null;
      dashboard.begin(model);
      showFrozen();
    } else if (kind === "frame") {
      const over_ms = Math.min(now - framedAt, LONGEST_SPREAD_MS.live);
      framedAt = now;
      if (!frozen) dashboard.show(model, now, message.whole ? null : { from: before, to: model.t, over_ms });
    } else if (!KINDS.includes(kind)) {
      dashboard.notices.tell("kind", unknownKind(kind));
    }
  };
  const showFrozen = () => {
    byId("freeze").setAttribute("aria-pressed", String(frozen !== null));
    showPhase(frozen ? "frozen" : phase, frozen ? "Frozen" : PHASES[phase]);
  };
  const freeze = () => {
    frozen = frozen || !model.layout ? null : model.copy();
    if (frozen || model.layout) dashboard.show(frozen ?? model, performance.now(), null);
    showFrozen();
  };
  const onState = (state) => {
    phase = state.phase;
    showFrozen();
    if (phase === "open") for (const name of ["stream", "key"]) dashboard.notices.clear(name);
    if (phase === "waiting" || phase === "ended") dashboard.notices.tell("stream", state.text);
    if (phase === "key") askForKey(state, dashboard, stream);
  };
  const stream = new LiveStream(new URL("view/stream", location.href), {
    keys: sessionKeys(),
    onMessage,
    onState,
  });
  byId("freeze").hidden = false;
  byId("freeze").addEventListener("click", freeze);
  stream.follow().catch(report(dashboard));
  return {
    dashboard,
    keys: { " ": freeze },
    onStep: () => {},
    probe: () => ({ mode: "live", phase, isFrozen: frozen !== null }),
  };
}

const PHASES = {
  connecting: "Connecting",
  open: "Live",
  waiting: "Not connected",
  key: "Key needed",
  ended: "Ended",
};

/** A newer protocol does not become an older one by asking again. */
function takeMessage(model, message) {
  try {
    return model.apply(message);
  } catch (error) {
    if (error instanceof ProtocolError) error.isFinal = message?.kind === "layout" && message.v !== 1;
    throw error;
  }
}

function showPhase(phase, word) {
  const status = byId("status");
  status.dataset.phase = phase;
  say(byId("status-word"), word);
}

/** The key stays with the tab, and nowhere else. */
function sessionKeys() {
  let kept = null;
  return {
    read() {
      try {
        return sessionStorage.getItem(KEY_STORED_AS) ?? kept;
      } catch {
        return kept; // a browser that keeps nothing: until the page is left
      }
    },
    write(key) {
      kept = key;
      try {
        sessionStorage.setItem(KEY_STORED_AS, key);
      } catch {
        // see above
      }
    },
  };
}

function askForKey({ text, status }, dashboard, stream) {
  const dialog = byId("key-dialog");
  const ask = () => {
    byId("key-reason").textContent = text;
    if (!dialog.open) dialog.showModal();
    byId("key").focus();
  };
  dashboard.notices.tell("key", `${status}: the server wants a key for its dashboard.`, ["Give a key", ask]);
  byId("key-form").onsubmit = (event) => {
    event.preventDefault();
    const key = byId("key").value.trim();
    if (!key) return;
    byId("key").value = "";
    dialog.close();
    dashboard.notices.clear("key");
    stream.follow(key).catch(report(dashboard));
  };
  ask();
}

function report(dashboard) {
  return (error) => {
    dashboard.notices.tell("page", `The page itself failed: ${error.message}. Reload it.`);
    throw error;
  };
}

function takeKeys({ dashboard, keys }) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return;
    const isTyped = event.target.closest("input:not([type=range]), select, textarea");
    const presses = event.key === " " && event.target.closest("button, a, summary");
    if (isTyped || presses) {
      if (event.key === "Escape") dashboard.onKey(event.key);
      return;
    }
    if (dashboard.model && dashboard.onKey(event.key)) event.preventDefault();
    else if (keys[event.key]) {
      event.preventDefault();
      keys[event.key]();
    }
  });
}

async function begin() {
  let page;
  try {
    const messages = await readRecording();
    page = messages ? replay(messages) : live();
  } catch (error) {
    showPhase("ended", "Unreadable");
    byId("notices").append(`This recording can't be shown: ${error.message}`);
    window.panjiuView = { mode: "broken" };
    if (error instanceof ProtocolError) return;
    throw error;
  }
  takeKeys(page);
  Object.defineProperty(window, "panjiuView", { get: () => ({ ...page.dashboard.probe, ...page.probe() }) });
  const onFrame = (now) => {
    const began = performance.now();
    page.onStep(now);
    page.dashboard.paint(now, began);
    requestAnimationFrame(onFrame); // which no browser calls while the page is out of sight
  };
  requestAnimationFrame(onFrame);
}

begin();
