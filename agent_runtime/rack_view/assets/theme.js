// Light or dark: as the system says, until somebody chooses.

import { byId } from "./elements.js";

const THEMES = ["auto", "light", "dark"];
const STORED_AS = "panjiu-theme";

/** The choice; `onChange` is told whenever colours may be others. */
export class Theme {
  #button = byId("theme");

  constructor(onChange) {
    this.onChange = onChange;
    this.#take(stored() ?? "auto");
    this.#button.addEventListener("click", () => {
      const next = THEMES[(THEMES.indexOf(this.choice) + 1) % THEMES.length];
      store(next);
      this.#take(next);
      onChange();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", onChange);
  }

  get isDark() {
    return (
      this.choice === "dark" || (this.choice === "auto" && matchMedia("(prefers-color-scheme: dark)").matches)
    );
  }

  #take(choice) {
    this.choice = choice;
    document.documentElement.dataset.theme = choice;
    this.#button.setAttribute(
      "aria-label",
      `Colours: ${choice === "auto" ? "as the system has them" : choice}`,
    );
    this.#button.title = this.#button.getAttribute("aria-label");
  }
}

// A file that was opened from a disk, or a browser that keeps nothing, may have no storage.
function stored() {
  try {
    const choice = localStorage.getItem(STORED_AS);
    return THEMES.includes(choice) ? choice : null;
  } catch {
    return null;
  }
}

function store(choice) {
  try {
    localStorage.setItem(STORED_AS, choice);
  } catch {
    // then it holds until the page is closed
  }
}
