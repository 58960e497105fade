// The server's stream of messages: read with fetch, since a key can be sent with that; taken up again when it breaks.

import { ProtocolError } from "./rack_model.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;
const SILENCE_MS = 20_000; // the server says something at least twice a second, or a comment

/** Server-sent events out of pieces of text, however they are cut. */
export class EventReader {
  #rest = "";
  #data = [];

  /** Take a piece; return the data of the events that it completes. */
  push(text) {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    const events = [];
    for (const line of lines) {
      if (line === "") {
        if (this.#data.length) events.push(this.#data.join("\n"));
        this.#data = [];
      } else if (line.startsWith("data:")) {
        this.#data.push(line.slice(line[5] === " " ? 6 : 5));
      }
    }
    return events;
  }
}

/** An answer that is no stream: what to do about it is in `advice`. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }

  get wantsKey() {
    return this.status === 401 || this.status === 403;
  }
}

/**
 * Follows a stream for as long as the page lives.
 *
 * `onState` is told of { phase, text }: "connecting", "open", "waiting" (to try again), "key" (a key
 * is wanted), "ended" (nothing more will come: the page has to be loaded anew).
 */
export class LiveStream {
  #url;
  #keys;
  #onMessage;
  #onState;
  #stop = null;
  #wait_ms = FIRST_WAIT_MS;

  /**
   * @param keys { read(), write(key) }: where the dashboard's key is kept.
   * @param onMessage takes a parsed message; a ProtocolError of its makes the stream begin anew,
   *     which brings a whole frame.
   */
  constructor(url, { keys, onMessage, onState }) {
    this.#url = url;
    this.#keys = keys;
    this.#onMessage = onMessage;
    this.#onState = onState;
  }

  /** Connect, and again whenever that ends; with a new key, if there is one. */
  async follow(key = null) {
    if (key !== null) this.#keys.write(key);
    this.#stop?.abort();
    const stop = new AbortController();
    this.#stop = stop;
    while (!stop.signal.aborted) {
      this.#onState({ phase: "connecting", text: "Connecting" });
      const lost = await this.#readOnce(stop.signal);
      if (stop.signal.aborted) return;
      if (lost.wantsKey) {
        this.#onState({ phase: "key", text: lost.message, status: lost.status });
        return;
      }
      if (lost instanceof ProtocolError && lost.isFinal) {
        this.#onState({ phase: "ended", text: lost.message });
        return;
      }
      await this.#pause(lost, stop.signal);
    }
  }

  /** Return an answer of the server as JSON. @throws {Refused} */
  async fetchJson(url) {
    const response = await fetch(url, { headers: this.#headers() });
    if (!response.ok) throw await refusal(response);
    return response.json();
  }

  #headers() {
    const key = this.#keys.read();
    return key ? { Authorization: `Bearer ${key}` } : {};
  }

  async #readOnce(outer) {
    const silence = new AbortController();
    let timer = 0;
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
    };
    const signal = AbortSignal.any([outer, silence.signal]);
    heard();
    try {
      const response = await fetch(this.#url, { headers: this.#headers(), signal, cache: "no-store" });
      if (!response.ok) return await refusal(response);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const events = new EventReader();
      this.#onState({ phase: "open", text: "Live" });
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return new Error("The server ended the stream");
        heard();
        for (const data of events.push(value)) this.#take(data);
      }
    } catch (error) {
      if (error instanceof ProtocolError) return error;
      if (silence.signal.aborted) return new Error(`The server said nothing for ${SILENCE_MS / 1000} s`);
      if (error instanceof TypeError || error.name === "AbortError") return new Error("The server is gone");
      throw error;
    } finally {
      clearTimeout(timer);
      silence.abort(); // or a stream that is given up would go on being sent
    }
  }

  #take(data) {
    let message;
    try {
      message = JSON.parse(data);
    } catch (error) {
      throw new ProtocolError(`a message is no JSON: ${error.message}`);
    }
    this.#onMessage(message);
    this.#wait_ms = FIRST_WAIT_MS; // only what can be read counts as an answer
  }

  async #pause(lost, signal) {
    const wait_ms = this.#wait_ms * (0.75 + Math.random() / 2); // so that not all pages come at once
    this.#wait_ms = Math.min(this.#wait_ms * 2, LONGEST_WAIT_MS);
    const wait = wait_ms < 950 ? "in a moment" : `in ${Math.round(wait_ms / 1000)} s`;
    this.#onState({ phase: "waiting", text: `${lost.message}; trying again ${wait}` });
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, wait_ms);
      signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
    });
  }
}

async function refusal(response) {
  const text = (await response.text()).slice(0, 2000);
  let said = "";
  try {
    const error = JSON.parse(text)?.error;
    said = typeof error === "string" ? error : (error?.message ?? "");
  } catch {
    said = ""; // not JSON: a proxy's page, say, of which only the status is worth showing
  }
  return new Refused(response.status, said || `The server answered ${response.status}`);
}
