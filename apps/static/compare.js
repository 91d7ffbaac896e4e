// The section 'ways' of the page 'VAE against diffusion': an answer holds every place of every
// way; the slider only chooses among them.
const COLUMNS = 12; // pictures in a row of a sheet
const SHOWN = ["state", "look", "off"]; // the three pictures of a stop, one after the other
const SIDE = 32;
let answer = null;
let sheets = {};
let latest = 0;
let moved = false; // since the run began

const figures = () => document.getElementById("gk-ways-figures");
const slider = () => document.getElementById("gk-ways-place");
const each = (selector, act) => figures().querySelectorAll(selector).forEach(act);
const picture = (url) => { const image = new Image(); image.src = url; return image.decode().then(() => image); };

function draw(canvas, sheet, index) {
  const brush = canvas.getContext("2d");
  brush.clearRect(0, 0, SIDE, SIDE);
  if (!sheet) return;
  const [row, column] = [Math.floor(index / COLUMNS), index % COLUMNS];
  brush.drawImage(sheet, column * SIDE, row * SIDE, SIDE, SIDE, 0, 0, SIDE, SIDE);
}

// Which picture of a row's sheet is seen at a place of the slider.
const stop = (name, place) => answer.rows[name].places[place];
const index = (name, place, shown) => 3 * stop(name, place) + SHOWN.indexOf(shown);
const placed = (button) => Math.round(Number(button.dataset.waysShare) * Number(slider().max));

// Everything that depends on the slider.
function move() {
  const place = Number(slider().value);
  each("[data-ways-row]", (row) => {
    const name = row.dataset.waysRow;
    const known = Boolean(answer?.rows?.[name] && sheets[name]);
    row.querySelectorAll("canvas[data-ways-of]").forEach((canvas) => {
      draw(canvas, known && sheets[name], known && index(name, place, canvas.dataset.waysOf));
    });
    row.querySelector(".gk-route-now").innerHTML = known ? answer.rows[name].said[stop(name, place)] : "&nbsp;";
  });
  let near = null;
  each("[data-ways-share]", (button) => {
    const distance = Math.abs(placed(button) - place);
    if (!near || distance < near[0]) near = [distance, button.dataset.waysShare];
  });
  each("[data-ways-share]", (button) => button.classList.toggle("gk-here", button.dataset.waysShare === near[1]));
}

function strips() {
  each("[data-ways-row]", (row) => {
    const name = row.dataset.waysRow;
    const known = answer?.rows?.[name] && sheets[name];
    row.querySelectorAll("[data-ways-share]").forEach((button) => {
      draw(button.firstElementChild, known && sheets[name], known && index(name, placed(button), "state"));
    });
  });
}

async function show(text) {
  if (!text) return;
  const turn = latest += 1;
  const next = JSON.parse(text);
  const names = Object.keys(next.rows || {});
  const images = await Promise.all(names.map((name) => picture(next.rows[name].sheet)));
  if (turn !== latest || !figures()) return; // a later answer has come meanwhile, or another run
  if (!names.length) { figures().classList.add("gk-waiting"); return; } // the last results stay
  figures().classList.remove("gk-waiting");
  figures().classList.toggle("gk-stale", moved);
  sheets = Object.fromEntries(names.map((name, i) => [name, images[i]]));
  answer = next;
  const share = Number(slider().value) / Number(slider().max);
  slider().max = next.last;
  slider().value = Math.round(share * next.last);
  for (const [slot, html] of Object.entries(next.slots)) {
    each(`[data-part="${slot}"]`, (place) => { place.innerHTML = html; });
  }
  each("a[data-save]", (link) => {
    const file = next.files[link.dataset.save];
    link.hidden = !file;
    if (file) { link.href = file.url; link.download = file.name; }
  });
  strips();
  move();
}

// What is shown, or on its way, belongs to a picture or choices that are no longer those of the page.
function stale() {
  moved = true;
  if (answer && figures()) figures().classList.add("gk-stale");
}
const begin = () => { moved = false; };
const end = () => figures()?.classList.remove("gk-waiting");

document.addEventListener("input", (event) => { if (event.target.id === "gk-ways-place") move(); });
document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-ways-share]");
  if (button) { slider().value = placed(button); move(); }
});
document.addEventListener("genkit:picture", stale);
window.genkit.ways = { show, stale, begin, end };
document.documentElement.classList.add("gk-ways-ready");
