// The large view: a draft of one image on the stage, its list of points, and the keys.
import { post } from "./api.js";
import { $, element, say, tried } from "./dom.js";
import { Stage } from "./stage.js";
import { draftOf, entryOf, labelColours, labelEdges, labelNames, loadPoints, set, store } from "./store.js";

let index = null; // of the image that is open
let draft = null;
let hooks = {}; // step(by) -> goes to another image, closed() after it, saved() after a save

const stage = new Stage({
  begin: () => draft.step(),
  move: (k, x, y) => put(k, { ...draft.points[k], x, y }),
  choose: (k) => choose(k, false),
  place: (x, y) => place(x, y),
});

export function setUp(given) {
  hooks = given;
}

export function openIndex() {
  return index;
}

export async function open(wanted) {
  index = wanted;
  const entry = entryOf(index);
  $("browse").hidden = true;
  $("one").hidden = false;
  $("one-title").textContent = entry.name;
  history.replaceState(null, "", `#image=${index}`);
  if (!entry.points) {
    $("one-status").textContent = "looking for the points …";
    await tried(() => loadPoints([index], () => index === wanted, () => {}));
    if (index !== wanted) return;
  }
  if (entry.points?.error) say(`${entry.name}: ${entry.points.error}`, true);
  draft = draftOf(entry);
  stage.chosen = null;
  stage.open(index, entry.points?.width || entry.width || 1, entry.points?.height || entry.height || 1);
  const first = draft.points.findIndex((point) => !point);
  draw();
  choose(first >= 0 ? first : 0, first < 0);
  if (first >= 0) $("list").focus({ preventScroll: true });
  document.body.dataset.open = index;
}

export function close() {
  if (index === null) return;
  const last = index;
  index = null;
  draft = null;
  delete document.body.dataset.open;
  $("one").hidden = true;
  $("browse").hidden = false;
  history.replaceState(null, "", location.pathname);
  hooks.closed(last);
}

// Draw again, as names, colours or predictions have changed.
export function refresh() {
  if (index === null) return;
  const entry = entryOf(index);
  if (!entry) return close();
  draft = draftOf(entry);
  draw();
}

function draw() {
  const [names, colours] = [labelNames(), labelColours()];
  stage.draw({
    points: draft.points, names, colours, touched: draft.touched, skeleton: labelEdges(),
    withNames: $("names").checked, ghosts: $("predicted").checked ? ghosts() : [],
  });
  $("list").replaceChildren(...names.map((name, k) => row(name, k, colours[k])));
  $("undo").disabled = !draft.past.length;
  $("redo").disabled = !draft.future.length;
  $("unlabel").disabled = draft.revision === null;
  const there = draft.points.filter(Boolean).length;
  const what = draft.isChanged ? "not saved" : draft.revision ? "labelled" : "predicted, not labelled";
  $("one-status").textContent = `${there} of ${names.length} points; ${what}`;
  $("save").classList.toggle("asks", draft.isChanged);
}

function ghosts() {
  const seen = entryOf(index).points;
  const { names, colours } = set();
  return (seen?.xy || []).flatMap((xy, k) => (xy && seen.flags[k] ? [{ x: xy[0], y: xy[1], colour: colours[k], name: names[k] }] : []));
}

function row(name, k, colour) {
  const point = draft.points[k];
  const chip = element("span", { class: "chip", "aria-hidden": "true" });
  chip.style.setProperty("--k", colour);
  const made = element("li", { role: "option", id: `row-${k}`, "aria-selected": String(k === stage.chosen),
    class: point ? "" : "missing", onclick: () => choose(k, true) },
    chip, element("span", { class: "name" }, name), element("span", { class: "quiet" }, stateOf(point, k, name)));
  return made;
}

function stateOf(point, k, name) {
  if (!point) return "not there";
  const words = [point.v === 1 && "hidden", draft.touched.has(k) && "touched"].filter(Boolean);
  const seen = set().names.indexOf(name);
  const sure = entryOf(index).points?.sure?.[seen];
  if (!words.length && draft.revision === null && sure !== undefined && sure !== null) words.push(`${Math.round(100 * sure)} %`);
  return words.join(", ");
}

function choose(k, focus) {
  stage.choose(k, focus);
  for (const item of $("list").children) item.setAttribute("aria-selected", String(item.id === `row-${k}`));
  $("list").setAttribute("aria-activedescendant", `row-${k}`);
  $(`row-${k}`)?.scrollIntoView({ block: "nearest" });
  if (focus && !draft.points[k]) $("list").focus({ preventScroll: true });
}

function put(k, point) {
  draft.put(k, point);
  draw();
}

// Put the chosen point, if it is not there yet, to a place, and choose the next that is not there.
function place(x, y) {
  const k = stage.chosen;
  if (k === null || draft.points[k]) return;
  draft.step();
  put(k, { x, y, v: 2 });
  const next = draft.points.findIndex((point) => !point);
  choose(next >= 0 ? next : k, next < 0);
}

function moveBy(dx, dy) {
  const k = stage.chosen;
  if (k === null) return;
  const [width, height] = stage.size;
  if (!draft.points[k]) {
    draft.step();
    put(k, { x: (width - 1) / 2, y: (height - 1) / 2, v: 2 });
    return choose(k, true);
  }
  const { x, y, v } = draft.points[k];
  draft.step(`key ${k}`);
  const clamp = (value, length) => Math.max(-0.5, Math.min(length - 0.5, value));
  put(k, { x: clamp(x + dx, width), y: clamp(y + dy, height), v });
}

function toggleHidden() {
  const point = draft.points[stage.chosen];
  if (!point) return;
  draft.step();
  put(stage.chosen, { ...point, v: point.v === 2 ? 1 : 2 });
}

function remove() {
  const k = stage.chosen;
  if (k === null || !draft.points[k]) return;
  draft.step();
  put(k, null);
  choose(k, true);
}

function back(way) {
  if (draft[way]()) draw();
}

async function save(andNext) {
  const [saved, entry, at] = [draft, entryOf(index), index];
  const points = saved.toList();
  const body = { image: at, points, names: labelNames(), revision: saved.revision };
  const label = await tried(() => conflictTold(post("/api/label", body), entry, saved));
  if (!label) return;
  entry.label = label;
  saved.saved(label.revision);
  say(`${entry.name} is saved as labelled`);
  await hooks.saved();
  if (index !== at) return;
  draw();
  if (andNext) await hooks.step(1);
}

// A label of another tab is taken as what a further save replaces, so that nobody overwrites what they have not been told of.
async function conflictTold(request, entry, saved) {
  try {
    return await request;
  } catch (error) {
    if (error.status === 409) {
      await hooks.conflict(entry.index);
      const now = entryOf(entry.index);
      saved.revision = now?.label?.revision ?? null;
      saved.isChanged = true;
    }
    throw error;
  }
}

async function unlabel() {
  const entry = entryOf(index);
  if (!(await tried(() => conflictTold(post("/api/unlabel", { image: index, revision: draft.revision }), entry, draft)))) return;
  entry.label = null;
  store.drafts.delete(index);
  say(`the label of ${entry.name} is removed`);
  await hooks.saved();
  refresh();
}

const KEYS = {
  h: toggleHidden, Delete: remove, Backspace: remove, s: () => save(false), Enter: () => save(true), n: () => hooks.step(1),
  p: () => hooks.step(-1), Escape: close, "+": () => stage.zoom(1.5), "=": () => stage.zoom(1.5), "-": () => stage.zoom(1 / 1.5),
  0: () => stage.fit(),
};
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function onKey(event) {
  if (index === null || !draft || document.querySelector("dialog[open]")) return;
  const target = event.target;
  if (target.closest?.("#panel, #tools") || target.matches?.("input:not([type=checkbox]), textarea, select")) return;
  const isButton = target.matches?.("button, input, a") && ["Enter", " "].includes(event.key);
  if (isButton || event.altKey) return;
  const isCommand = event.ctrlKey || event.metaKey;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (isCommand && ["z", "y"].includes(key)) {
    back(key === "y" || event.shiftKey ? "redo" : "undo");
  } else if (MOVES[key]) {
    if (target === $("list") && ["ArrowUp", "ArrowDown"].includes(key)) chooseNext(key === "ArrowDown" ? 1 : -1);
    else {
      const by = event.shiftKey ? 10 : isCommand ? 0.1 : 1;
      moveBy(MOVES[key][0] * by, MOVES[key][1] * by);
    }
  } else if (KEYS[key] && !isCommand) {
    KEYS[key]();
  } else return;
  event.preventDefault();
}

function chooseNext(by) {
  const count = draft.points.length;
  choose(((stage.chosen ?? -by) + by + count) % count, false);
}

addEventListener("keydown", onKey);
$("save").addEventListener("click", () => save(false));
$("undo").addEventListener("click", () => back("undo"));
$("redo").addEventListener("click", () => back("redo"));
$("hide").addEventListener("click", toggleHidden);
$("absent").addEventListener("click", remove);
$("unlabel").addEventListener("click", unlabel);
$("back").addEventListener("click", close);
$("next").addEventListener("click", () => hooks.step(1));
$("previous").addEventListener("click", () => hooks.step(-1));
$("zoom-in").addEventListener("click", () => stage.zoom(1.5));
$("zoom-out").addEventListener("click", () => stage.zoom(1 / 1.5));
$("zoom-fit").addEventListener("click", () => stage.fit());
$("names").addEventListener("change", draw);
$("predicted").addEventListener("change", draw);
