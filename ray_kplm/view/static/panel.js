// The side panel: names, partners and edges of points, which of the landmarks they are made of, and which are dropped.
import { get, post } from "./api.js";
import { $, element, say, svg, tried } from "./dom.js";
import { edges as drawnEdges, highlight } from "./grid.js";
import { store } from "./store.js";

let points = []; // {id, landmarks, name, partner (another point or null)}
let edges = []; // pairs of points
let dropped = []; // landmarks
let places = []; // of landmarks, percent of the picture; null: not known
let first = null; // the point that an edge begins at
let hooks = {};

export function setUp(given) {
  hooks = given;
}

export async function open() {
  $("panel").hidden = false;
  $("open-panel").setAttribute("aria-expanded", "true");
  begin();
  draw();
  await tried(loadPlaces);
  $("points").querySelector("input.name")?.focus();
}

export function close() {
  $("panel").hidden = true;
  $("open-panel").setAttribute("aria-expanded", "false");
  $("open-panel").focus();
}

const landmarks = () => store.state.sets.find((one) => one.id === "landmarks");

// Take what the run has.
function begin() {
  const edited = store.state.edited;
  points = edited.points.map((one, k) => ({ id: k, landmarks: [...one.landmarks], name: one.name, partner: null, isChosen: false }));
  const called = (name) => points.find((point) => point.name === name) ?? null;
  edited.points.forEach((one, k) => { points[k].partner = called(one.partner); });
  edges = edited.edges.map((ends) => ends.map(called));
  dropped = [...edited.dropped];
  first = null;
}

// Mean places of the landmarks in some images.
async function loadPlaces() {
  const images = store.listing.images.slice(0, 32).map((entry) => entry.index);
  if (!images.length) return;
  const found = Object.values(await get("/api/points", { set: "landmarks", images: images.join(",") }));
  places = landmarks().names.map((_, k) => {
    const seen = found.filter((one) => one.xy?.[k]).map((one) => [one.xy[k][0] / one.width, one.xy[k][1] / one.height]);
    const mean = (axis) => seen.reduce((sum, at) => sum + at[axis], 0) / seen.length;
    return seen.length ? [mean(0), mean(1)] : null;
  });
  fill();
  draw();
}

// Scale the places to the diagram.
function fill() {
  const known = places.filter(Boolean);
  if (!known.length) return;
  const [left, top] = [0, 1].map((axis) => Math.min(...known.map((at) => at[axis])));
  const [right, bottom] = [0, 1].map((axis) => Math.max(...known.map((at) => at[axis])));
  const scale = 100 / Math.max(right - left, bottom - top, 1e-6);
  places = places.map((at) => at && [50 + (at[0] - (left + right) / 2) * scale, 50 + (at[1] - (top + bottom) / 2) * scale]);
}

function colourOf(point) {
  return landmarks().colours[point.landmarks[0]];
}

function placeOf(point) {
  const known = point.landmarks.map((k) => places[k]).filter(Boolean);
  return known.length ? [0, 1].map((axis) => known.reduce((sum, at) => sum + at[axis], 0) / known.length) : null;
}

function draw() {
  drawDiagram();
  $("points").replaceChildren(...points.map(row));
  $("dropped").replaceChildren(...(dropped.length ? [element("h3", {}, "Dropped"), ...dropped.map(droppedRow)] : []));
  $("merge").disabled = points.filter((point) => point.isChosen).length < 2;
}

function drawDiagram() {
  const at = points.map(placeOf);
  const pairs = edges.map(([a, b]) => [points.indexOf(a), points.indexOf(b)]);
  $("diagram").replaceChildren(...drawnEdges(at, pairs, 1.6), ...points.flatMap((point, n) => (at[n] ? [diagramPoint(point, at[n])] : [])));
}

function diagramPoint(point, [x, y]) {
  const made = svg("g", { tabindex: 0, role: "button", "aria-pressed": String(point === first), "data-id": point.id,
    transform: `translate(${x} ${y})`, "aria-label": point.name, class: point === first ? "chosen" : "", onclick: () => join(point),
    onkeydown: (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      join(point);
    } },
    svg("title", {}, point.name), svg("circle", { r: 2.6 }));
  made.style.setProperty("--k", colourOf(point));
  return made;
}

function join(point) {
  if (first === null) {
    first = point;
    $("diagram-status").textContent = `${point.name} and … ? Choose the other end.`;
  } else if (first === point) {
    first = null;
    $("diagram-status").textContent = "Choose two points to join them by an edge, or to separate them.";
  } else {
    const old = edges.findIndex((edge) => edge.includes(first) && edge.includes(point));
    if (old >= 0) edges.splice(old, 1);
    else edges.push([first, point]);
    $("diagram-status").textContent = `${first.name} and ${point.name} are ${old >= 0 ? "separate" : "joined"}.`;
    first = null;
  }
  drawDiagram();
  $("diagram").querySelector(`[data-id="${point.id}"]`)?.focus();
}

function row(point) {
  const chips = point.landmarks.map((k) => {
    const chip = element("span", { class: "chip", title: `landmark ${k}` });
    chip.style.setProperty("--k", landmarks().colours[k]);
    return chip;
  });
  const name = element("input", { class: "name", value: point.name, "aria-label": `Name of ${point.name}`, maxlength: 64, spellcheck: "false",
    "data-landmarks": point.landmarks.join("+"), oninput: (event) => { point.name = event.target.value; }, onchange: () => draw() });
  const partner = element("select", { "aria-label": `Mirror partner of ${point.name}`, title: "Partner in the mirror image",
    onchange: (event) => { pair(point, points.find((one) => String(one.id) === event.target.value) ?? null); } },
    element("option", { value: "" }, "no partner"),
    ...points.filter((one) => one !== point).map((one) => element("option", { value: one.id, selected: one === point.partner }, `↔ ${one.name}`)));
  const choose = element("input", { type: "checkbox", "aria-label": `Choose ${point.name} to merge it`, checked: point.isChosen,
    onchange: (event) => { point.isChosen = event.target.checked; $("merge").disabled = points.filter((one) => one.isChosen).length < 2; } });
  const split = element("button", { type: "button", onclick: () => separate(point) }, "Split");
  const drop = element("button", { type: "button", "aria-label": `Drop ${point.name}`, onclick: () => remove(point) }, "Drop");
  const show = () => light(point);
  const hide = () => light(null);
  return element("li", { onfocusin: show, onfocusout: hide, onpointerenter: show, onpointerleave: hide }, choose, element("span", { class: "chips" }, ...chips), name, partner, ...(point.landmarks.length > 1 ? [split] : []), drop);
}

// Show a point alone, in the diagram and in the images if these have the landmarks or the edited points.
function light(point) {
  for (const mark of $("diagram").querySelectorAll("g")) mark.classList.toggle("lit", point !== null && mark.dataset.id === String(point.id));
  if (point === null) return highlight(null);
  const isShown = { landmarks: point.landmarks, edited: indicesOf(point) }[store.wanted.set];
  highlight(isShown ?? null);
}

function indicesOf(point) {
  return store.state.edited.points.flatMap((one, k) => (one.landmarks.some((n) => point.landmarks.includes(n)) ? [k] : []));
}

function droppedRow(k) {
  const chip = element("span", { class: "chip" });
  chip.style.setProperty("--k", landmarks().colours[k]);
  const name = landmarks().names[k];
  return element("p", { class: "row" }, chip, element("span", { class: "name" }, name),
    element("button", { type: "button", "aria-label": `Restore ${name}`, onclick: () => restore(k) }, "Restore"));
}

function pair(point, partner) {
  if (point.partner) point.partner.partner = null;
  if (partner?.partner) partner.partner.partner = null;
  point.partner = partner;
  if (partner) partner.partner = point;
  draw();
}

function forget(point) {
  if (point.partner) point.partner.partner = null;
  if (first === point) first = null;
  points.splice(points.indexOf(point), 1);
}

function remove(point) {
  if (points.length === 1) return say("one point has to stay", true);
  forget(point);
  edges = edges.filter((edge) => !edge.includes(point));
  dropped = [...dropped, ...point.landmarks].sort((a, b) => a - b);
  draw();
}

function newPoint(k) {
  const taken = points.map((point) => point.name);
  let name = landmarks().names[k];
  while (taken.includes(name)) name += "_";
  return { id: Math.max(-1, ...points.map((point) => point.id)) + 1, landmarks: [k], name, partner: null, isChosen: false };
}

function restore(k) {
  dropped = dropped.filter((one) => one !== k);
  points.push(newPoint(k));
  draw();
}

function separate(point) {
  const [, ...rest] = point.landmarks;
  point.landmarks = point.landmarks.slice(0, 1);
  for (const k of rest) points.push(newPoint(k));
  draw();
}

function merge() {
  const [into, ...others] = points.filter((point) => point.isChosen);
  for (const point of others) {
    forget(point);
    into.landmarks.push(...point.landmarks);
    edges = edges.map((edge) => edge.map((end) => (end === point ? into : end)));
  }
  into.landmarks.sort((a, b) => a - b);
  into.isChosen = false;
  const seen = new Set();
  edges = edges.filter(([a, b]) => {
    const key = [a.id, b.id].sort().join();
    return a !== b && !seen.has(key) && seen.add(key);
  });
  draw();
}

async function save() {
  const body = {
    points: points.map((point) => ({ landmarks: point.landmarks, name: point.name.trim(), partner: point.partner?.name.trim() ?? null })),
    edges: edges.map(([a, b]) => [a.name.trim(), b.name.trim()]),
  };
  const saved = await tried(() => post("/api/edit", body));
  if (!saved) return;
  await hooks.saved(saved.set);
  say([`the points are saved: ${saved.file}`, ...saved.notes].join("; "));
  begin();
  draw();
}

$("open-panel").addEventListener("click", () => ($("panel").hidden ? open() : close()));
$("close-panel").addEventListener("click", close);
$("merge").addEventListener("click", merge);
$("save-points").addEventListener("click", save);
$("reset-points").addEventListener("click", () => { begin(); draw(); });
