// The second half of the page 'VAE against diffusion'. An answer of a section holds all its
// pictures in one sheet; what is chosen here (a path, a number of the code, a slider) only chooses
// among them. A canvas says by data-row and data-column which picture it shows.
const SIDE = 32;
const each = (root, selector, act) => root.querySelectorAll(selector).forEach(act);
const part = (name, html) => each(document, `[data-part="${name}"]`, (place) => { place.innerHTML = html; });
const picture = (url) => { const image = new Image(); image.src = url; return image.decode().then(() => image); };

// A section keeps its last answer; one that comes late is left out.
function section(name, draw) {
  const state = { answer: null, sheet: null, latest: 0, moved: false };
  state.root = () => document.getElementById(`gk-${name}`);
  state.show = async (text) => {
    if (!text) return;
    const turn = state.latest += 1;
    const next = JSON.parse(text);
    const sheet = await picture(next.sheet);
    if (turn !== state.latest || !state.root()) return;
    [state.answer, state.sheet] = [next, sheet];
    state.mark();
    for (const [slot, html] of Object.entries(next.slots)) part(slot, html);
    each(state.root(), "a[data-save]", (link) => {
      const file = next.files[link.dataset.save];
      link.hidden = !file;
      if (file) { link.href = file.url; link.download = file.name; }
    });
    draw(state);
  };
  // What is shown, or on its way, belongs to a picture that is no longer that of the page.
  state.begin = () => { state.moved = false; };
  state.stale = () => { state.moved = true; state.mark(); };
  state.fresh = () => true;
  state.mark = () => { if (state.answer) state.root().classList.toggle("gk-stale", state.moved || !state.fresh()); };
  state.draw = () => { if (state.answer) draw(state); };
  return state;
}

function paint(state, canvas, row, column) {
  const brush = canvas.getContext("2d");
  brush.clearRect(0, 0, SIDE, SIDE);
  if (row >= 0) brush.drawImage(state.sheet, column * SIDE, row * SIDE, SIDE, SIDE, 0, 0, SIDE, SIDE);
}

const place = (canvas) => [Number(canvas.dataset.row), Number(canvas.dataset.column)];

// Rows come one after the other.
const dreams = section("dreams", (state) => each(state.root(), "canvas", (canvas) => {
  const [row, column] = place(canvas);
  paint(state, canvas, state.answer.rows.includes(row) ? row : -1, column);
}));

// The sheet holds all rows of the straight line, then those of the arc.
const bridge = section("bridge", (state) => {
  const first = state.root().dataset.path === "straight" ? 0 : state.answer.count;
  each(state.root(), ".gk-tier canvas", (canvas) => {
    const [row, column] = place(canvas);
    paint(state, canvas, state.answer.rows.includes(row) ? first + row : -1, column);
  });
});

// The picture B may come to the page after the answer that is about it: the two are compared.
let other = null; // as HTML, once it has changed
bridge.fresh = () => other === null || other.includes(bridge.answer.other);
bridge.other = (html) => { other = html; bridge.mark(); };

// One row for each number of the code; the map stands behind the strip.
const traverse = section("traverse", (state) => {
  const root = state.root();
  const { values, says } = state.answer;
  const unit = Number(root.dataset.unit || 0);
  const slider = document.getElementById("gk-traverse-value");
  each(root, ".gk-thumb", (canvas) => paint(state, canvas, Number(canvas.closest("button").dataset.unit), place(canvas)[1]));
  paint(state, root.querySelector(".gk-traverse-now"), unit, Number(slider.value));
  paint(state, root.querySelector(".gk-traverse-map"), unit, values.length);
  part("traverse.value", values[Number(slider.value)]);
  part("traverse.now", says[unit]);
});

// The last row: averages of more and more draws.
const blur = section("blur", (state) => {
  const slider = document.getElementById("gk-blur-count");
  const last = Math.min(Number(slider.value), state.answer.counts.length - 1);
  each(state.root(), "canvas", (canvas) => {
    const [row, column] = place(canvas);
    paint(state, canvas, row, canvas.classList.contains("gk-blur-average") ? last : column);
  });
  part("blur.count", state.answer.counts[last]);
  slider.setAttribute("aria-valuetext", state.answer.counts[last]);
});

const press = (buttons, chosen) => buttons.forEach((button) => button.setAttribute("aria-pressed", String(button === chosen)));

document.addEventListener("click", (event) => {
  const path = event.target.closest?.(".gk-paths button");
  const unit = event.target.closest?.(".gk-strips button");
  if (path) {
    bridge.root().dataset.path = path.dataset.to;
    press([...bridge.root().querySelectorAll(".gk-paths button")], path);
    bridge.draw();
  } else if (unit) {
    traverse.root().dataset.unit = unit.dataset.unit;
    press([...traverse.root().querySelectorAll(".gk-strips button")], unit);
    traverse.draw();
  }
});
document.addEventListener("input", (event) => {
  if (event.target.id === "gk-traverse-value") traverse.draw();
  if (event.target.id === "gk-blur-count") blur.draw();
});
document.addEventListener("genkit:picture", () => [bridge, traverse, blur].forEach((one) => one.stale()));
Object.assign(window.genkit, { dreams, bridge, traverse, blur });
