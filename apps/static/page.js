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
      const draw = button("gk-draw") || button("gk-sketch-draw");
      // The last keystroke must have reached the server's copy of the prompt before the click.
      if (draw) { event.preventDefault(); setTimeout(() => draw.click(), 30); }
    } else if (event.key === "Escape") {
      const stop = button("gk-stop") || button("gk-sketch-halt");
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

// The page 'Noise': an answer of the server holds every time; the slider only chooses among them.
(() => {
  const COLUMNS = 5; // pictures in a row of a sheet
  const FILM = 9; // pictures in a strip
  const sheets = {};
  let answer = null;
  let latest = 0;

  const slider = () => document.getElementById("gk-time");
  const each = (selector, act) => document.querySelectorAll(selector).forEach(act);
  const picture = (url) => { const image = new Image(); image.src = url; return image.decode().then(() => image); };

  function draw(canvas, index) {
    const sheet = sheets[canvas.dataset.sheet];
    const size = canvas.width;
    const [row, column] = [Math.floor(index / COLUMNS), index % COLUMNS];
    canvas.getContext("2d").drawImage(sheet, column * size, row * size, size, size, 0, 0, size, size);
  }

  function bars(path, heights) {
    const [left, width, base, unit, top] = ["left", "width", "base", "unit", "top"].map((name) => Number(path.dataset[name]));
    const steps = heights.map((height, i) => {
      const y = Math.max(base - unit * height, top).toFixed(1);
      return `L${(left + width * i).toFixed(1)} ${y}H${(left + width * (i + 1)).toFixed(1)}`;
    });
    path.setAttribute("d", `M${left} ${base}${steps.join("")}V${base}Z`);
  }

  // Everything that depends on the time.
  function move() {
    if (!answer || !slider()) return;
    const index = Number(slider().value);
    each("canvas[data-sheet]:not([data-frame])", (canvas) => draw(canvas, index));
    each("[data-live]", (place) => {
      const [side, name] = place.dataset.live.split(".");
      place.innerHTML = answer.live[side][index][name];
    });
    each("[data-histogram]", (path) => bars(path, answer.histograms[path.dataset.histogram][index]));
    each("#gk-noise-figures .gk-now", (line) => {
      const chart = line.ownerSVGElement.dataset;
      const x = Number(chart.left) + Number(chart.span) * index / Number(slider().max);
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
    });
    each(".gk-film button", (button) => button.classList.toggle("gk-here", Number(button.dataset.to) === index));
  }

  // The strips, whose pictures are buttons that take the slider to their time.
  function film() {
    const last = Number(slider().max);
    each(".gk-film", (strip) => {
      if (!strip.children.length) {
        for (let i = 0; i < FILM; i += 1) {
          const button = document.createElement("button");
          const canvas = document.createElement("canvas");
          button.type = "button";
          button.dataset.to = canvas.dataset.frame = Math.round(i * last / (FILM - 1));
          button.setAttribute("aria-label", `${strip.dataset.film.toUpperCase()} ${i} / ${FILM - 1}`);
          canvas.dataset.sheet = strip.dataset.film;
          canvas.width = canvas.height = 128;
          button.append(canvas);
          strip.append(button);
        }
      }
      strip.querySelectorAll("canvas").forEach((canvas) => draw(canvas, Number(canvas.dataset.frame)));
    });
  }

  async function show(text) {
    if (!text) return;
    const turn = latest += 1;
    const next = JSON.parse(text);
    const names = Object.keys(next.sheets);
    const images = await Promise.all(names.map((name) => picture(next.sheets[name])));
    if (turn !== latest) return; // a later answer has come meanwhile
    names.forEach((name, i) => { sheets[name] = images[i]; });
    answer = next;
    for (const [name, html] of Object.entries(next.slots)) {
      each(`[data-slot="${name}"]`, (place) => { place.innerHTML = html; });
    }
    each("a[data-file]", (link) => {
      const file = next.files[link.dataset.file];
      link.hidden = !file;
      if (file) { link.href = file.url; link.download = file.name; }
    });
    film();
    move();
    document.documentElement.classList.add("gk-shown");
  }

  // The fields of the chosen schedule.
  function kind(side, name) {
    const place = document.getElementById(`gk-side-${side}`);
    for (const one of [...place.classList].filter((one) => one.startsWith("gk-kind-"))) place.classList.remove(one);
    place.classList.add(`gk-kind-${name}`);
  }

  document.addEventListener("input", (event) => { if (event.target.id === "gk-time") move(); });
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.(".gk-film button");
    if (button) { slider().value = button.dataset.to; move(); }
  });
  window.genkit.noise = { show, kind };
})();

// The section 'bound' of that page: an answer grows while the model is asked; the last one holds
// every time, among which the section's own slider chooses.
(() => {
  const COLUMNS = 5; // pictures in a row of a sheet
  const first = new Map(); // what stood in a place before an answer came
  let sheets = {};
  let answer = null;
  let latest = 0;
  let moved = false; // since the run began

  const slider = () => document.getElementById("gk-bound-time");
  const each = (selector, act) => document.querySelectorAll(selector).forEach(act);
  const picture = (url) => { const image = new Image(); image.src = url; return image.decode().then(() => image); };

  function put(name, html) {
    each(`[data-part="bound.${name}"]`, (place) => {
      if (!first.has(place)) first.set(place, place.innerHTML);
      place.innerHTML = html;
    });
  }

  function draw(canvas, sheet, column, row) {
    const size = canvas.width;
    const brush = canvas.getContext("2d");
    brush.clearRect(0, 0, size, size);
    if (sheet) brush.drawImage(sheet, column * size, row * size, size, size, 0, 0, size, size);
  }

  // Everything that depends on the time.
  function move() {
    const index = Number(slider().value);
    each("#gk-bound-figures .gk-now", (line) => {
      const chart = line.ownerSVGElement.dataset;
      const x = Number(chart.left) + Number(chart.span) * index / Number(slider().max);
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
    });
    if (!answer?.live) return;
    for (const [name, html] of Object.entries(answer.live[index])) put(name, html);
    each("canvas[data-bound-sheet]", (canvas) => {
      draw(canvas, sheets[canvas.dataset.boundSheet], index % COLUMNS, Math.floor(index / COLUMNS));
    });
    each("canvas[data-bound-film]", (canvas) => {
      const step = Number(canvas.dataset.boundFilm);
      const shown = step < answer.film[index];
      canvas.classList.toggle("gk-none", !shown);
      draw(canvas, shown && sheets.film, step, index);
    });
  }

  async function show(text) {
    if (!text) return;
    const turn = latest += 1;
    const next = JSON.parse(text);
    const names = Object.keys(next.sheets || {});
    const images = await Promise.all(names.map((name) => picture(next.sheets[name])));
    if (turn !== latest) return; // a later answer has come meanwhile, or another run
    sheets = Object.fromEntries(names.map((name, i) => [name, images[i]]));
    answer = next;
    if (!Object.keys(next.slots).length) empty();
    document.getElementById("gk-bound-figures").classList.toggle("gk-stale", moved);
    for (const [name, html] of Object.entries(next.slots)) put(name, html);
    each("#gk-bound-figures a[data-save]", (link) => {
      const file = next.files?.[link.dataset.save];
      link.hidden = !file;
      if (file) { link.href = file.url; link.download = file.name; }
    });
    move();
  }

  // A new run begins with empty places.
  function empty() {
    first.forEach((html, place) => { place.innerHTML = html; });
    each("canvas[data-bound-sheet], canvas[data-bound-film]", (canvas) => draw(canvas, null));
  }

  // What is shown, or on its way, belongs to a picture and choices that are no longer those of the page.
  function stale() {
    moved = true;
    const place = document.getElementById("gk-bound-figures");
    if (!answer?.live || place.classList.contains("gk-stale")) return;
    place.classList.add("gk-stale");
  }

  document.addEventListener("input", (event) => { if (event.target.id === "gk-bound-time") move(); });
  window.genkit.bound = { show, stale, begin: () => { moved = false; } };
})();

// The sections that run a model: a race of samplers, and a classifier that steers.
(() => {
  const picture = (url) => { const image = new Image(); image.src = url; return image.decode().then(() => image); };
  const parts = (name) => document.querySelectorAll(`[data-part="${name}"]`);

  // An answer holds all that is known so far; one that comes late is left out.
  function section(name, draw) {
    const state = { answer: null, sheet: null, latest: 0 };
    state.root = () => document.getElementById(`gk-${name}`);
    state.show = async (text) => {
      if (!text) return;
      const turn = state.latest += 1;
      const next = JSON.parse(text);
      const sheet = next.sheet ? await picture(next.sheet) : null;
      if (turn !== state.latest || !state.root()) return;
      [state.answer, state.sheet] = [next, sheet];
      for (const [slot, html] of Object.entries(next.slots)) parts(slot).forEach((place) => { place.innerHTML = html; });
      state.root().querySelectorAll("a[data-save]").forEach((link) => {
        const file = next.files[link.dataset.save];
        link.hidden = !file;
        if (file) { link.href = file.url; link.download = file.name; }
      });
      draw(state);
    };
    state.draw = () => draw(state);
    return state;
  }

  // The picture in a row and a column of the sheet, and what is written below it.
  function tile(state, index, row, column, caption) {
    const figure = state.root().querySelector(`[data-tile="${index}"]`);
    const canvas = figure.querySelector("canvas");
    const size = state.answer.size || canvas.width;
    canvas.width = canvas.height = size; // also clears it
    if (state.sheet && caption !== "") {
      canvas.getContext("2d").drawImage(state.sheet, column * size, row * size, size, size, 0, 0, size, size);
    }
    figure.querySelector("figcaption > span").innerHTML = caption || "";
  }

  const race = section("race", (state) => {
    const slider = document.getElementById("gk-race-count");
    const { answer } = state;
    slider.max = answer.columns.length - 1;
    const column = Number(slider.value);
    const count = String(answer.columns[column]);
    parts("race.count").forEach((place) => { place.textContent = count; });
    slider.setAttribute("aria-valuetext", count);
    if (answer.says[column]) parts("race.now").forEach((place) => { place.innerHTML = answer.says[column]; });
    tile(state, 0, 0, 0, state.sheet ? null : "");
    for (let i = 1; i < 7; i += 1) {
      const [name, colour] = answer.names[i - 1] || ["", ""];
      const figure = state.root().querySelector(`[data-tile="${i}"]`);
      figure.querySelector("figcaption > b").innerHTML = name ? `<i class="gk-${colour}">●</i> ${name}` : "";
      figure.classList.toggle("gk-empty", !name);
      tile(state, i, i, column, name ? answer.captions[i - 1][column] : "");
    }
  });

  const steer = section("steer", (state) => {
    if (!state.sheet) return;
    state.answer.captions.forEach((row, i) => row.forEach((caption, j) => tile(state, `${i}-${j}`, i, j, caption)));
  });

  document.addEventListener("input", (event) => {
    if (event.target.id !== "gk-race-count") return;
    const columns = race.answer ? race.answer.columns : event.target.dataset.columns.split(",");
    parts("race.count").forEach((place) => { place.textContent = columns[Number(event.target.value)]; });
    if (race.answer) race.draw();
  });
  Object.assign(window.genkit, { race, steer });
})();
