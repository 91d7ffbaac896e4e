// The page 'Latents': the points of four spaces are drawn, coloured and compared in the browser.
// `base` is the answer of the server with all scenes; a picked scene, or a picture that the server
// has embedded, is marked in all plots alike.
"use strict";
if (!window.genkit.spaces) {
  const SETTLE = 600; // milliseconds in which points move from one view to the other
  const REACH = 14; // pixels within which a point is hit
  const state = { base: null, attribute: "time", view: "pca", only: null, chosen: null, line: null, from: null, share: 1, hover: null };
  const each = (selector, act) => document.querySelectorAll(selector).forEach(act);
  const fill = (name, html) => each(`[data-part="${name}"]`, (place) => { place.innerHTML = html; });
  const two = ([en, vi]) => (en === vi ? en : `<span lang="en">${en}</span><span lang="vi">${vi}</span>`);
  // A sentence of the server in both languages, its {gaps} filled.
  const said = (key, gaps = {}) => two(state.base.texts[key].map((text, side) => text.replace(/\{(\w+)\}/g, (_, gap) => gaps[gap][side])));
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  function files(root, found) {
    each(`${root} a[data-save]`, (link) => {
      const file = found?.[link.dataset.save];
      link.hidden = !file;
      if (!file) return;
      link.href = file.url;
      link.download = file.name;
    });
  }

  // What the server sends, unpacked: numbers as arrays of their type.
  function unpack(answer) {
    for (const one of Object.values(answer.attributes)) one.values = bytes(one.values);
    for (const [name, text] of Object.entries(answer.near)) answer.near[name] = new Uint16Array(bytes(text).buffer);
    for (const view of Object.values(answer.views)) {
      for (const [name, text] of Object.entries(view)) view[name] = framed(new Float32Array(bytes(text).buffer));
    }
    return answer;
  }

  // Points and the square that holds them: both axes have one scale, so that distances are true.
  function framed(points) {
    const ends = [Infinity, -Infinity, Infinity, -Infinity];
    for (let i = 0; i < points.length; i += 2) {
      ends[0] = Math.min(ends[0], points[i]); ends[1] = Math.max(ends[1], points[i]);
      ends[2] = Math.min(ends[2], points[i + 1]); ends[3] = Math.max(ends[3], points[i + 1]);
    }
    const side = 1.06 * Math.max(ends[1] - ends[0], ends[3] - ends[2], 1e-9);
    return { points, x: (ends[0] + ends[1]) / 2, y: (ends[2] + ends[3]) / 2, side };
  }

  const seen = (name, view = state.view) => state.base?.views[view]?.[name] || state.base?.views.pca[name];
  const viewed = (name) => (state.base?.views[state.view]?.[name] ? state.view : "pca");
  const put = (frame, x, y) => [0.5 + (x - frame.x) / frame.side, 0.5 - (y - frame.y) / frame.side];

  // Where a scene stands in a plot, 0 … 1, on its way from the last view to this one.
  function at(name, index) {
    const frame = seen(name);
    const now = put(frame, frame.points[2 * index], frame.points[2 * index + 1]);
    if (state.share >= 1 || !state.from) return now;
    const old = seen(name, state.from);
    const [x, y] = put(old, old.points[2 * index], old.points[2 * index + 1]);
    return [x + (now[0] - x) * state.share, y + (now[1] - y) * state.share];
  }

  function draw(canvas) {
    const name = canvas.dataset.plot;
    const side = canvas.clientWidth;
    const scale = window.devicePixelRatio || 1;
    if (!side) return;
    if (canvas.width !== Math.round(side * scale)) canvas.width = canvas.height = Math.round(side * scale);
    const brush = canvas.getContext("2d");
    brush.setTransform(scale, 0, 0, scale, 0, 0);
    brush.clearRect(0, 0, side, side);
    if (!state.base || !seen(name)) return;
    const style = getComputedStyle(document.body);
    const ink = style.getPropertyValue("--body-text-color");
    const paper = style.getPropertyValue("--gk-mat");
    const over = canvas.dataset.over;
    points(brush, name, side, over === "line", ink);
    if (over === "line") path(brush, name, side, ink, paper); else marks(brush, name, side, ink, paper);
  }

  function points(brush, name, side, faint, ink) {
    const { values, colours } = state.base.attributes[state.attribute];
    const radius = Math.max(1.4, side / 150);
    const groups = colours.map(() => []);
    for (let i = 0; i < values.length; i += 1) groups[values[i]].push(i);
    groups.forEach((group, value) => {
      const back = state.only !== null && state.only !== value;
      brush.globalAlpha = back ? 0.07 : faint ? 0.3 : 0.8;
      brush.fillStyle = colours[value];
      brush.strokeStyle = ink;
      brush.lineWidth = 0.25;
      for (const index of group) {
        const [x, y] = at(name, index);
        brush.beginPath();
        brush.arc(x * side, y * side, radius, 0, 7);
        brush.fill();
        if (!back && !faint) brush.stroke();
      }
    });
    brush.globalAlpha = 1;
  }

  function ring(brush, x, y, radius, ink, paper, filled) {
    brush.beginPath();
    brush.arc(x, y, radius, 0, 7);
    brush.lineWidth = 3.5; brush.strokeStyle = paper; brush.stroke();
    brush.lineWidth = 1.6; brush.strokeStyle = ink; brush.stroke();
    if (filled) { brush.fillStyle = ink; brush.fill(); }
  }

  // The picked picture and its neighbours, joined by thin lines.
  function marks(brush, name, side, ink, paper) {
    const one = state.chosen;
    if (state.hover?.index !== undefined && state.hover.index !== one?.index) {
      const [x, y] = at(name, state.hover.index).map((share) => share * side);
      ring(brush, x, y, 5, ink, paper);
    }
    if (!one || !one.near[name]) return;
    const place = one.index !== null ? at(name, one.index) : foreign(name, one.places[name]);
    if (!place) return;
    const [x, y] = place.map((share) => Math.min(Math.max(share, 0.02), 0.98) * side);
    brush.strokeStyle = ink; brush.lineWidth = 0.9; brush.globalAlpha = 0.55;
    brush.beginPath();
    for (const index of one.near[name]) {
      const [u, v] = at(name, index);
      brush.moveTo(x, y); brush.lineTo(u * side, v * side);
    }
    brush.stroke();
    brush.globalAlpha = 1;
    for (const index of one.near[name]) {
      const [u, v] = at(name, index);
      ring(brush, u * side, v * side, Math.max(3, side / 75), ink, paper);
    }
    ring(brush, x, y, Math.max(5, side / 45), ink, paper, true);
  }

  function foreign(name, places) {
    const place = places?.[viewed(name)]?.[0];
    return place ? put(seen(name), ...place) : null;
  }

  function path(brush, name, side, ink, paper) {
    const places = state.line?.[name]?.[viewed(name)];
    if (!places) return;
    const found = places.map((place) => put(seen(name), ...place).map((share) => share * side));
    for (const [width, colour] of [[5, paper], [2, ink]]) {
      brush.lineWidth = width; brush.strokeStyle = colour;
      brush.beginPath();
      found.forEach(([x, y]) => brush.lineTo(x, y));
      brush.stroke();
    }
    found.slice(1, -1).forEach(([x, y]) => ring(brush, x, y, 2.2, ink, paper, true));
    [["A", found[0]], ["B", found[found.length - 1]]].forEach(([letter, [x, y]]) => {
      ring(brush, x, y, 8, ink, paper, true);
      brush.fillStyle = paper; brush.font = "600 11px system-ui, sans-serif";
      brush.textAlign = "center"; brush.textBaseline = "middle";
      brush.fillText(letter, x, y + 0.5);
    });
  }

  const redraw = () => each("canvas[data-plot]", draw);

  // A picture of the sheet as the background of an element.
  function crop(element, index) {
    const { columns, count } = state.base;
    const rows = Math.ceil(count / columns);
    const [row, column] = [Math.floor(index / columns), index % columns];
    element.style.backgroundImage = `url("${state.sheet}")`;
    element.style.backgroundSize = `${100 * columns}% ${100 * rows}%`;
    element.style.backgroundPosition = `${columns > 1 ? 100 * column / (columns - 1) : 0}% ${rows > 1 ? 100 * row / (rows - 1) : 0}%`;
  }

  function legend() {
    const one = state.base.attributes[state.attribute];
    const counts = one.names.map((_, value) => one.values.reduce((sum, v) => sum + (v === value), 0));
    const items = one.names.map((name, value) => (counts[value]
      ? `<button type="button" data-class="${value}" aria-pressed="${state.only === value}"><i style="background:${one.colours[value]}"></i>${two(name)} <small>${counts[value]}</small></button>` : ""));
    fill("spaces.legend", items.join(""));
  }

  // What is known of a scene: its classes, in words.
  function words(index) {
    const names = ["time", "ground", "weather", "light", "mountains", "thing"];
    const known = names.map((name) => [name, state.base.attributes[name]]);
    const told = known.filter(([name, one]) => one.keys[one.values[index]] !== "none");
    return [0, 1].map((side) => told.map(([, one]) => one.names[one.values[index]][side]).join(" · "));
  }

  // The picked picture, its neighbours in each space, and in how many of them they agree with it.
  function tell() {
    const one = state.chosen;
    if (!one || !state.base) return;
    each("#gk-spaces-figure [data-part='spaces.chosen']", (place) => {
      if (one.index === null) { place.innerHTML = one.picture; return; }
      place.innerHTML = '<i class="gk-pixels"></i>';
      crop(place.firstChild, one.index);
    });
    const name = one.seed === null ? said("own") : said("seed", { seed: [one.seed, one.seed] });
    fill("spaces.told", `<b>${name}</b>${one.words || one.index !== null ? `<br>${two(one.words || words(one.index))}` : ""}`);
    const attribute = state.base.attributes[state.attribute];
    each("[data-nearest]", (box) => {
      const near = one.near[box.dataset.nearest] || [];
      [...box.children].forEach((place, rank) => {
        if (near[rank] !== undefined) { crop(place, near[rank]); place.dataset.index = near[rank]; }
      });
      const same = [...near].filter((index) => attribute.values[index] === attribute.values[one.index]).length;
      const far = one.far?.[box.dataset.nearest];
      each(`[data-agree="${box.dataset.nearest}"]`, (line) => {
        line.innerHTML = "&nbsp;";
        if (one.index === null && far) line.innerHTML = said("far", { far });
        if (one.index !== null && near.length) {
          line.innerHTML = said("same", { same: [same, same], all: [near.length, near.length], what: attribute.title });
        }
      });
    });
    redraw();
  }

  function choose(index) {
    const near = {};
    for (const name of state.base.encoders) {
      const few = state.base.near[name].length / state.base.count;
      near[name] = state.base.near[name].subarray(few * index, few * (index + 1));
    }
    state.chosen = { index, seed: state.base.first + index, near, places: {} };
    files("#gk-spaces-figure"); // those of the server were of another picture
    tell();
  }

  // The point under the pointer, if there is one.
  function hit(canvas, event) {
    const box = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let best = REACH ** 2;
    let found;
    const { values } = state.base.attributes[state.attribute];
    for (let i = 0; i < state.base.count; i += 1) {
      if (state.only !== null && values[i] !== state.only) continue;
      const [u, v] = at(canvas.dataset.plot, i);
      const far = (u * box.width - x) ** 2 + (v * box.width - y) ** 2;
      if (far < best) { best = far; found = i; }
    }
    return found;
  }

  function tip(canvas, index) {
    each('[data-part="spaces.tip"]', (place) => {
      place.classList.toggle("gk-on", index !== undefined);
      if (index === undefined) return;
      place.innerHTML = `<i class="gk-pixels"></i><span>${state.base.first + index}</span>`;
      crop(place.firstChild, index);
      const [box, frame] = [canvas.getBoundingClientRect(), place.offsetParent.getBoundingClientRect()];
      const [u, v] = at(canvas.dataset.plot, index);
      const left = box.left - frame.left + u * box.width;
      place.style.left = `${Math.min(Math.max(left - 48, 0), frame.width - 96)}px`;
      place.style.top = `${box.top - frame.top + v * box.width - 128}px`;
    });
  }

  const plot = (event) => (state.base && event.target.closest?.('canvas[data-over="query"]')) || null;
  document.addEventListener("pointermove", (event) => {
    const canvas = plot(event);
    const index = canvas && seen(canvas.dataset.plot) && event.pointerType !== "touch" ? hit(canvas, event) : undefined;
    if (index === state.hover?.index) return;
    state.hover = index === undefined ? null : { index };
    tip(canvas, index);
    if (canvas) canvas.style.cursor = index === undefined ? "" : "pointer";
    redraw();
  });
  document.addEventListener("click", (event) => {
    const canvas = plot(event);
    if (canvas && seen(canvas.dataset.plot)) {
      const index = hit(canvas, event);
      if (index !== undefined) choose(index);
      return;
    }
    const near = event.target.closest?.("[data-nearest] [data-index]");
    if (near && state.base) { choose(Number(near.dataset.index)); return; }
    const one = event.target.closest?.("[data-class]");
    if (one && state.base) {
      const value = Number(one.dataset.class);
      state.only = state.only === value ? null : value;
      legend();
      redraw();
      return;
    }
    const make = event.target.closest?.("button[data-make]");
    if (make && state.base) (make.dataset.make === "figure" ? figure : table)();
  });
  document.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || !plot(event)) return;
    event.preventDefault();
    const { count } = state.base;
    choose(((state.chosen?.index ?? -step) + step + count) % count);
  });

  function save(blob, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  // The four plots as they are, side by side with their names.
  function figure() {
    const shown = [...document.querySelectorAll('canvas[data-over="query"]')];
    const [side, head] = [shown[0].width, 40];
    const whole = document.createElement("canvas");
    [whole.width, whole.height] = [side * shown.length, side + head];
    const brush = whole.getContext("2d");
    const style = getComputedStyle(document.body);
    brush.fillStyle = style.getPropertyValue("--body-background-fill") || "#fff";
    brush.fillRect(0, 0, whole.width, whole.height);
    brush.fillStyle = style.getPropertyValue("--body-text-color");
    brush.font = "600 20px system-ui, sans-serif";
    shown.forEach((canvas, i) => {
      brush.drawImage(canvas, i * side, head, side, side);
      brush.fillText(canvas.closest("figure").querySelector("figcaption b").innerText, i * side + 8, 26);
    });
    whole.toBlob((blob) => save(blob, `latents-${state.view}.png`));
  }

  function table() {
    const { base } = state;
    const views = Object.entries(base.views).filter(([, one]) => Object.keys(one).length);
    const names = Object.keys(base.attributes);
    const heads = views.flatMap(([view, one]) => Object.keys(one).flatMap((name) => [`${view}_${name}_x`, `${view}_${name}_y`]));
    const lines = [["seed", ...names, ...heads].join(",")];
    for (let i = 0; i < base.count; i += 1) {
      const classes = names.map((name) => base.attributes[name].keys[base.attributes[name].values[i]]);
      const places = views.flatMap(([, one]) => Object.values(one).flatMap(({ points: p }) => [p[2 * i], p[2 * i + 1]].map((v) => v.toPrecision(6))));
      lines.push([base.first + i, ...classes, ...places].join(","));
    }
    save(new Blob([`${lines.join("\n")}\n`], { type: "text/csv" }), "latents-points.csv");
  }

  function move(from) {
    [state.from, state.share] = [from, calm.matches ? 1 : 0];
    const begun = performance.now();
    const step = (now) => {
      const share = Math.min(Math.max((now - begun) / SETTLE, 0), 1);
      state.share = share * share * (3 - 2 * share);
      redraw();
      if (share < 1) requestAnimationFrame(step);
    };
    if (state.share < 1) requestAnimationFrame(step); else redraw();
  }

  function view(name) {
    const from = state.view;
    state.view = name;
    const root = document.getElementById("gk-spaces");
    root?.classList.toggle("gk-unsettled", name === "tsne" && !Object.keys(state.base?.views.tsne || {}).length);
    if (state.base && from !== name) move(from);
  }

  function colour(name) {
    [state.attribute, state.only] = [name, null];
    if (!state.base) return;
    legend();
    tell();
    redraw();
  }

  const spaces = {
    colour,
    view,
    show(text) {
      if (!text) return;
      const first = !state.base;
      state.base = unpack(JSON.parse(text));
      if (state.sheet) URL.revokeObjectURL(state.sheet);
      const [kind, data] = state.base.sheet.slice(5).split(";base64,");
      state.sheet = URL.createObjectURL(new Blob([bytes(data)], { type: kind }));
      for (const [name, html] of Object.entries(state.base.slots)) fill(name, html);
      files("#gk-truth", state.base.files);
      legend();
      view(state.view);
      if (first || !state.chosen) choose(Math.min(7, state.base.count - 1)); else tell();
      redraw();
      document.documentElement.classList.add("gk-mapped");
    },
    // Where the scenes stand in a plot, for tests and for the curious.
    where: (name, index) => at(name, index),
  };
  const near = {
    show(text) {
      if (!text || !state.base) return;
      state.chosen = JSON.parse(text);
      files("#gk-spaces-figure", state.chosen.files);
      tell();
    },
  };
  const section = (name, act) => ({
    show(text) {
      if (!text) return;
      const answer = JSON.parse(text);
      for (const [place, html] of Object.entries(answer.slots)) fill(place, html);
      files(`#gk-${name}`, answer.files);
      act(answer);
    },
  });
  const line = section("line", (answer) => { state.line = answer.places; redraw(); });
  Object.assign(window.genkit, { spaces, near, line, match: section("match", () => {}) });

  new MutationObserver(() => requestAnimationFrame(redraw)).observe(document.body, { attributeFilter: ["class"] });
  new ResizeObserver(() => redraw()).observe(document.body);
}
