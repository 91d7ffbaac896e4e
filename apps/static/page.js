// What the pages do in the browser alone: language, dark mode, keys, dropped files, links.
// Language and mode live in localStorage, so that every page of the suite opens in the same.
"use strict";
(() => {
  const store = {
    get: (key) => { try { return localStorage.getItem(key); } catch { return null; } },
    set: (key, value) => { try { localStorage.setItem(key, value); } catch { /* private mode */ } },
  };
  const asked = () => new URLSearchParams(location.search);
  const known = (language) => (["en", "vi"].includes(language) ? language : null);
  const root = document.documentElement;

  // The language: of the link, else as chosen before, else the browser's.
  function language() {
    const browser = (navigator.languages || [navigator.language || "en"])
      .map((name) => known(name.slice(0, 2))).find(Boolean);
    return known(asked().get("lang")) || known(store.get("genkit.language")) || browser || "en";
  }

  // Shows one language: the texts in HTML by CSS, the helps of the buttons by their ids.
  function speak(language, titles) {
    root.lang = language;
    store.set("genkit.language", language);
    for (const [id, text] of Object.entries(titles || {})) {
      const element = document.getElementById(id);
      if (element) { element.title = text; element.setAttribute("aria-description", text); }
    }
    root.classList.add("gk-ready");
    return language;
  }

  // Dark mode: the visitor's choice, else the system's. Gradio sets the class on <body> when it
  // mounts and when the system changes; the observer puts the choice back.
  const system = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => store.get("genkit.theme");
  function paint() {
    const dark = (chosen() || (system.matches ? "dark" : "light")) === "dark";
    if (document.body && document.body.classList.contains("dark") !== dark) {
      document.body.classList.toggle("dark", dark);
    }
    root.style.colorScheme = dark ? "dark" : "light";
    return dark;
  }
  function toggle() {
    const dark = document.body.classList.contains("dark");
    store.set("genkit.theme", dark ? "light" : "dark");
    paint();
  }

  function watch() {
    paint();
    new MutationObserver(paint).observe(document.body, { attributeFilter: ["class"] });
    system.addEventListener("change", paint);
  }
  if (document.body) watch(); else document.addEventListener("DOMContentLoaded", watch);

  const button = (id) => document.getElementById(id);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      const draw = button("gk-draw");
      // The last keystroke must have reached the server's copy of the prompt before the click.
      if (draw) { event.preventDefault(); setTimeout(() => draw.click(), 30); }
    } else if (event.key === "Escape") {
      const stop = button("gk-stop");
      if (stop && !stop.disabled) stop.click();
    }
  }, true);

  // A picture that is dropped anywhere on the page goes to the field that reads receipts.
  const field = () => document.querySelector("#gk-receipts input[type=file]");
  const carries = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!carries(event) || !field()) return;
    event.preventDefault();
    root.classList.add("gk-dragging");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) root.classList.remove("gk-dragging");
  });
  document.addEventListener("drop", (event) => {
    root.classList.remove("gk-dragging");
    const input = field();
    if (!carries(event) || !input || !event.dataTransfer.files.length) return;
    event.preventDefault();
    const files = new DataTransfer();
    files.items.add(event.dataTransfer.files[0]);
    input.files = files.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });

  // A link that opens these settings; it also becomes the address of the page.
  async function link(values) {
    const url = new URL(location.href);
    url.hash = "";
    url.search = "";
    for (const [name, value] of Object.entries({ ...values, lang: root.lang })) {
      if (value !== "" && value !== null && value !== undefined) url.searchParams.set(name, value);
    }
    history.replaceState(null, "", url);
    try {
      await navigator.clipboard.writeText(url.href);
    } catch { // no clipboard without https or permission
      const area = document.createElement("textarea");
      area.value = url.href;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    return url.href;
  }

  // The page stays invisible until its language is known, but never for long.
  root.lang = language();
  setTimeout(() => root.classList.add("gk-ready"), 2500);
  // On a narrow screen the pictures are below the prompt: bring them into view when they begin.
  function begin() {
    window.genkit.halted = false;
    const place = document.getElementById("gk-status");
    if (place && place.getBoundingClientRect().top > innerHeight * 0.6) {
      place.scrollIntoView({ behavior: "smooth", block: "start" });
    }
  }

  const opened = () => root.classList.add("gk-open"); // the settings are in their places
  window.genkit = { language, speak, toggle, link, begin, opened, halted: false };
})();
