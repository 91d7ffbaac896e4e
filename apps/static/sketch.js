// The page 'Sketch': a board to draw on, and the picture that follows it.
//
// A drawing is {kind, paper, strokes}: of a "sketch" lines, of a "map" parts on a grid without
// smoothing, so that no colour lies between two paints. Strokes are lists of points from 0 to 1, so
// a drawing has no resolution until it is shown. Every change of it is a turn; what belongs to an
// earlier turn comes too late and is left out.
const SIDE = 512; // of the board
const GRID = 256; // of a map
const BLANK = 255;
const PAUSE = 60; // ms between the end of a stroke and the request
const REST = 1300; // ms without a stroke after which the refined picture is drawn
const STROKES = 20000;
const POINTS = 500000;
const FILL = 500; // points that one fill counts for
const LARGEST = 2048; // side of a paper

const byId = (id) => document.getElementById(id);
const part = (name) => document.querySelector(`[data-part="${name}"]`);
const all = (selector) => [...document.querySelectorAll(selector)];
const board = byId("gk-board");
const nothing = part("sketch.meter").innerHTML; // before there is a picture
const brush = board.getContext("2d", { willReadFrequently: true });
const over = byId("gk-overlay").getContext("2d");
const paints = all("[data-paint] i").map((dot) => dot.dataset.colour.split(",").map(Number));

const fresh = () => ({ paper: null, image: null, strokes: [] });
const drawings = { sketch: fresh(), map: fresh() };
let tab = "sketch";
let tool = "brush";
let paint = 0;
const width = { sketch: 4, map: 26 };
let stroke = null; // the one that is being drawn
let parts = new Uint8Array(GRID * GRID).fill(BLANK); // what the map's grid holds

const kind = () => (tab === "map" ? "map" : "sketch");
const drawing = () => drawings[kind()];
const blank = () => !drawing().paper && !drawing().strokes.some((one) => one.tool !== "eraser");

// --- the board ---------------------------------------------------------------------------------

function line(one, from = 0) {
  const points = one.points.slice(Math.max(from - 1, 0));
  brush.strokeStyle = one.tool === "eraser" ? "#fff" : "#000";
  brush.lineWidth = one.width;
  brush.lineCap = brush.lineJoin = "round";
  brush.beginPath();
  points.forEach(([x, y], i) => (i ? brush.lineTo(x * SIDE, y * SIDE) : brush.moveTo(x * SIDE, y * SIDE)));
  if (points.length === 1) brush.lineTo(points[0][0] * SIDE + 0.01, points[0][1] * SIDE);
  brush.stroke();
}

// A disc of a part at every place of a line: no smoothing.
function stamp(one, from = 0) {
  const value = one.tool === "eraser" ? BLANK : one.part;
  const points = one.points.slice(Math.max(from - 1, 0)).map(([x, y]) => [x * GRID, y * GRID]);
  const radius = Math.max(one.width * GRID / SIDE / 2, 0.5);
  const disc = (x, y) => {
    for (let row = Math.max(Math.ceil(y - radius), 0); row <= Math.min(y + radius, GRID - 1); row += 1) {
      const half = Math.sqrt(radius * radius - (row - y) ** 2);
      parts.fill(value, row * GRID + Math.max(Math.ceil(x - half), 0), row * GRID + Math.min(Math.floor(x + half), GRID - 1) + 1);
    }
  };
  disc(...points[0]);
  for (let i = 1; i < points.length; i += 1) {
    const [[x0, y0], [x1, y1]] = [points[i - 1], points[i]];
    const steps = Math.ceil(Math.hypot(x1 - x0, y1 - y0));
    for (let k = 1; k <= steps; k += 1) disc(x0 + (x1 - x0) * k / steps, y0 + (y1 - y0) * k / steps);
  }
}

// Everything of one part that hangs together becomes another part.
function flood(one) {
  const [x, y] = one.points[0].map((share) => Math.min(Math.floor(share * GRID), GRID - 1));
  const old = parts[y * GRID + x];
  if (old === one.part) return;
  const waiting = [y * GRID + x];
  while (waiting.length) {
    const at = waiting.pop();
    if (parts[at] !== old) continue;
    parts[at] = one.part;
    if (at % GRID) waiting.push(at - 1);
    if (at % GRID < GRID - 1) waiting.push(at + 1);
    if (at >= GRID) waiting.push(at - GRID);
    if (at < GRID * (GRID - 1)) waiting.push(at + GRID);
  }
}

const act = (one, from) => {
  if (kind() === "sketch") line(one, from);
  else if (one.tool === "fill") { if (!from) flood(one); } else stamp(one, from);
};

// The grid in its paints on a canvas of its own size.
function painted() {
  const image = new ImageData(GRID, GRID);
  const colours = new Uint32Array(image.data.buffer);
  const table = new Uint32Array(256);
  paints.forEach(([r, g, b], i) => { table[i] = (255 << 24 | b << 16 | g << 8 | r) >>> 0; });
  parts.forEach((value, i) => { colours[i] = table[value]; });
  const canvas = Object.assign(document.createElement("canvas"), { width: GRID, height: GRID });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function present() {
  if (kind() !== "map") return;
  brush.imageSmoothingEnabled = false;
  brush.fillStyle = "#fff";
  brush.fillRect(0, 0, SIDE, SIDE);
  brush.drawImage(painted(), 0, 0, SIDE, SIDE);
}

// The whole drawing again: paper, then every stroke.
function redraw() {
  const { image, strokes } = drawing();
  brush.fillStyle = "#fff";
  brush.fillRect(0, 0, SIDE, SIDE);
  if (kind() === "map") {
    parts.fill(BLANK);
    if (image) lay(image);
  } else if (image) {
    brush.imageSmoothingEnabled = false;
    brush.drawImage(image, 0, 0, SIDE, SIDE);
  }
  strokes.forEach((one) => act(one, 0));
  present();
  board.closest(".gk-paper").classList.toggle("gk-empty", blank());
}

// A painted paper becomes parts again: the nearest paint.
function lay(image) {
  const canvas = Object.assign(document.createElement("canvas"), { width: GRID, height: GRID });
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(image, 0, 0, GRID, GRID);
  const { data } = context.getImageData(0, 0, GRID, GRID);
  const known = new Map(paints.map((colour, i) => [colour.join(), i]));
  for (let i = 0; i < parts.length; i += 1) {
    const name = `${data[4 * i]},${data[4 * i + 1]},${data[4 * i + 2]}`;
    parts[i] = data[4 * i + 3] < 128 ? BLANK : known.get(name) ?? BLANK;
  }
}

// --- drawing -----------------------------------------------------------------------------------

function point(event) {
  const box = board.getBoundingClientRect();
  const share = (value, start, length) => Math.round(1e4 * Math.min(Math.max((value - start) / length, 0), 1)) / 1e4;
  return [share(event.clientX, box.left, box.width), share(event.clientY, box.top, box.height)];
}

board.addEventListener("pointerdown", (event) => {
  if (stroke || event.button > 0) return;
  event.preventDefault();
  board.focus({ preventScroll: true });
  board.setPointerCapture(event.pointerId);
  clearTimeout(resting);
  halt();
  const used = tool === "fill" && kind() === "sketch" ? "brush" : tool;
  stroke = { id: event.pointerId, tool: used, width: width[kind()], part: paint, points: [point(event)] };
  act(stroke, 0);
  present();
});
board.addEventListener("pointermove", (event) => {
  if (!stroke || event.pointerId !== stroke.id || stroke.tool === "fill") return;
  const from = stroke.points.length;
  const moves = event.getCoalescedEvents?.() || [];
  stroke.points.push(...(moves.length ? moves : [event]).map(point));
  act(stroke, from);
  present();
});
function lift(event) {
  if (!stroke || event.pointerId !== stroke.id) return;
  const { id, ...done } = stroke;
  stroke = null;
  drawing().strokes.push(done);
  changed();
}
board.addEventListener("pointerup", lift);
board.addEventListener("pointercancel", lift);
board.addEventListener("lostpointercapture", lift); // the pointer went up outside of the window
board.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });

function undo() {
  if (stroke) return;
  const one = drawing();
  if (one.strokes.length) one.strokes.pop();
  else if (one.paper) Object.assign(one, { paper: null, image: null });
  redraw();
  changed();
}
function clear() {
  drawings[kind()] = fresh();
  redraw();
  changed();
}
board.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "z") {
    event.preventDefault();
    undo();
  }
});

// --- tools -------------------------------------------------------------------------------------

const press = (buttons, chosen) => buttons.forEach((one) => one.setAttribute("aria-pressed", String(one === chosen)));

function take(name) {
  tool = name;
  press(all("[data-tool]"), document.querySelector(`[data-tool="${name}"]`));
}
function choose(name) {
  quiet();
  tab = name;
  press(all("[data-tab]"), document.querySelector(`[data-tab="${name}"]`));
  document.documentElement.dataset.sketchTab = name;
  byId("gk-brush").value = width[kind()];
  if (tool === "fill" && kind() === "sketch") take("brush");
  redraw();
  overlay();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-tab], [data-tool], [data-act], [data-paint], [data-example], [data-thumb]");
  if (!button || stroke) return;
  const { tab: name, tool: chosen, act: deed, paint: colour, example, thumb } = button.dataset;
  if (name) choose(name);
  else if (chosen) take(chosen);
  else if (deed) ({ undo, clear, save, open: () => byId("gk-open-drawing").click() })[deed]();
  else if (colour) {
    paint = Number(colour);
    press(all("[data-paint]"), button);
    if (tool === "eraser") take("brush");
  } else if (example) start(example, button.dataset.paper);
  else if (thumb) pick(Number(thumb));
});
byId("gk-brush").addEventListener("input", (event) => { width[kind()] = Number(event.target.value); });

const picture = (url) => { const image = new Image(); image.src = url; return image.decode().then(() => image); };

// A drawing gets this paper, and keeps these strokes.
async function start(name, url, strokes = []) {
  const now = turn += 1;
  const image = url ? await picture(url) : null;
  if (now !== turn || stroke) return;
  drawings[name] = { paper: url, image, strokes };
  if (kind() !== name) choose(name); else redraw();
  changed();
}

// The server has found the edges of a photo: what was drawn over them stays.
function paper(text) {
  if (text) start("sketch", JSON.parse(text).paper, drawings.sketch.strokes);
}

// A receipt was opened: its picture is there already, nothing is asked for.
async function back(text) {
  if (!text) return;
  const { paper: url, kind: name } = JSON.parse(text);
  await start(name, url);
  quiet();
}

// --- saving ------------------------------------------------------------------------------------

function save() {
  const { paper: url, strokes } = drawing();
  const text = JSON.stringify({ genkit: "drawing", format: 1, kind: kind(), paper: url, strokes });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = `genkit-${kind()}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const number = (value, low, high) => typeof value === "number" && value >= low && value <= high;

// The drawing of a file, or an error: nothing in a file is trusted.
function parsed(text) {
  const file = JSON.parse(text);
  if (file?.genkit !== "drawing" || file.format !== 1 || !Object.hasOwn(drawings, file.kind)) throw new Error("file");
  if (file.paper !== null && !/^data:image\/png;base64,[\w+/=]*$/.test(file.paper)) throw new Error("file");
  if (!Array.isArray(file.strokes)) throw new Error("file");
  if (file.strokes.length > STROKES) throw new Error("strokes");
  let count = 0;
  const strokes = file.strokes.map((one) => {
    const tools = file.kind === "map" ? ["brush", "eraser", "fill"] : ["brush", "eraser"];
    const sound = tools.includes(one?.tool) && number(one.width, 0.5, 64)
      && Number.isInteger(one.part) && number(one.part, 0, paints.length - 1) && Array.isArray(one.points)
      && one.points.length && one.points.every((at) => Array.isArray(at) && at.length === 2 && at.every((x) => number(x, 0, 1)));
    if (!sound) throw new Error("file");
    count += one.tool === "fill" ? FILL : one.points.length;
    if (count > POINTS) throw new Error("strokes");
    return { tool: one.tool, width: one.width, part: one.part, points: one.points };
  });
  return { kind: file.kind, paper: file.paper, strokes };
}

function say(key) {
  const note = byId("gk-board-note");
  note.hidden = !key;
  note.innerHTML = key ? document.querySelector(`[data-says="${key}"]`).innerHTML : "";
}

byId("gk-open-drawing").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (!file || stroke) return;
  try {
    if (file.size > 16e6) throw new Error("strokes");
    const found = parsed(await file.text());
    const image = found.paper ? await picture(found.paper) : null;
    if (image && Math.max(image.naturalWidth, image.naturalHeight) > LARGEST) throw new Error("file");
    await start(found.kind, found.paper, found.strokes);
  } catch (error) {
    say(error.message === "strokes" ? "strokes" : "file");
  }
});

// --- what is sent, and what comes back ---------------------------------------------------------

let lively = true;
let busy = false; // a live picture is on its way
let waiting = false; // strokes have ended since
let resting = 0;
let turn = 0; // of the drawing
let answers = [];
let shown = 0;

function sent() {
  if (blank()) return JSON.stringify({ kind: kind(), image: "" });
  const canvas = kind() === "map" ? painted() : board;
  return JSON.stringify({ kind: kind(), image: canvas.toDataURL("image/png") });
}

// Nothing is asked for by itself any more.
function quiet() {
  clearTimeout(resting);
  waiting = false;
}

// The drawing is another one: ask for its picture, and later for a refined one.
function changed() {
  turn += 1;
  say(null);
  board.closest(".gk-paper").classList.toggle("gk-empty", blank());
  overlay();
  quiet();
  halt();
  if (blank()) { answers = []; pick(0); }
  waiting = lively && !blank();
  if (waiting) setTimeout(pump, PAUSE);
}
function pump() {
  if (busy || !waiting || stroke) return;
  waiting = false;
  busy = true;
  byId("gk-live-run").click();
}
function rest(failed = false) {
  busy = false;
  if (waiting) { pump(); return; }
  clearTimeout(resting);
  if (!failed && lively && !stroke && !blank() && !byId("gk-sketch-draw").disabled) resting = setTimeout(refine, REST);
}
const refine = () => { const draw = byId("gk-sketch-draw"); if (!draw.disabled && !stroke) draw.click(); };
const halt = () => { const stop = byId("gk-sketch-halt"); if (stop && !stop.disabled) stop.click(); };

function overlay() {
  const opacity = Number(byId("gk-over").value) / 100;
  byId("gk-overlay").style.opacity = opacity;
  over.clearRect(0, 0, SIDE, SIDE);
  if (!opacity || blank()) return;
  over.imageSmoothingEnabled = false;
  if (kind() === "map") { over.drawImage(painted(), 0, 0, SIDE, SIDE); return; }
  const image = brush.getImageData(0, 0, SIDE, SIDE);
  const ink = image.data;
  for (let i = 0; i < ink.length; i += 4) { ink[i + 3] = 255 - ink[i]; ink[i] = 214; ink[i + 1] = 40; ink[i + 2] = 57; }
  over.putImageData(image, 0, 0);
}
byId("gk-over").addEventListener("input", overlay);

function pick(index) {
  shown = Math.max(Math.min(index, answers.length - 1), 0);
  const one = answers[shown];
  const image = part("sketch.picture");
  image.hidden = !one;
  part("sketch.meter").innerHTML = one?.meter || nothing;
  part("sketch.seed").innerHTML = one?.seed || "";
  part("sketch.save").hidden = !one?.name;
  if (!one) { part("sketch.thumbs").innerHTML = ""; return; }
  image.src = one.url;
  image.alt = document.querySelector("#gk-sketch-prompt textarea").value;
  const link = part("sketch.save");
  if (one.name) { link.href = one.url; link.download = one.name; }
  all("[data-thumb]").forEach((thumb, i) => thumb.setAttribute("aria-pressed", String(i === shown)));
}

function show(text) {
  if (!text) return;
  const next = JSON.parse(text);
  if (next.stage === "live" && (stroke || blank())) return; // of a drawing that has gone on
  document.documentElement.dataset.sketchStage = next.stage;
  if (next.stage === "wait") return;
  answers = next.pictures;
  part("sketch.thumbs").innerHTML = answers.length > 1
    ? answers.map((_, i) => `<button type="button" data-thumb="${i}" aria-label="${i + 1}"><img alt=""></button>`).join("") : "";
  all("[data-thumb] img").forEach((image, i) => { image.src = answers[i].url; });
  pick(shown);
  if (next.said && next.stage === "live") document.querySelector("#gk-sketch-status .gk-status").innerHTML = next.said;
}

const alone = {
  begin: quiet,
  show(text) {
    if (!text) return;
    const { stage, pictures } = JSON.parse(text);
    if (stage === "wait") return;
    const image = part("alone.picture");
    image.closest("figure").hidden = false;
    image.src = pictures[0].url;
    if (pictures[0].meter) part("alone.meter").innerHTML = pictures[0].meter;
  },
};
const grid = {
  begin: quiet,
  show(text) { if (text) part("grid.table").innerHTML = JSON.parse(text).html; },
};

document.addEventListener("focusin", (event) => { if (event.target.closest("#gk-sketch-prompt")) clearTimeout(resting); });
const live = (on) => { lively = on; quiet(); };
Object.assign(window.genkit, { sketch: { sent, show, rest, live, paper, back, changed, refine, begin: quiet }, alone, grid });
choose("sketch");
document.documentElement.classList.add("gk-sketch-ready");
