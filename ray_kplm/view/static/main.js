// The page: what is looked for, the grid of it, and what comes together when something changes.
import * as dialogs from "./dialogs.js";
import { $, options, say, tried } from "./dom.js";
import * as editor from "./editor.js";
import * as grid from "./grid.js";
import * as panel from "./panel.js";
import { labelColours, loadListing, loadPoints, loadState, set, store, unsaved } from "./store.js";

const AGAIN_MS = 1200; // between two lists while images are predicted ahead
let turn = 0; // of the newest list; older ones are not shown

function showState() {
  const { run, source, labels, sets, splits, edited } = store.state;
  $("run").textContent = run.split("/").slice(-2).join("/");
  $("run").title = run;
  $("source").textContent = source;
  document.title = `${source} · landmarks`;
  $("labels").textContent = `${labels.count} labelled, in ${labels.file}`;
  options($("set"), sets.map((one) => [one.id, one.id]), store.wanted.set);
  $("split-label").hidden = splits.length < 2;
  options($("split"), [["", "all"], ...splits.map((name) => [name, name])], store.wanted.split);
  options($("point"), [["", "mean of all"], ...set().names.map((name, k) => [k, name])], store.wanted.point ?? "");
  $("open-panel").hidden = !edited;
  $("open-adapt").hidden = !edited;
}

function showGrid() {
  const { images, total, offset, left: notSeen } = store.listing;
  const open = (index) => editor.open(index);
  grid.show(images.map((entry) =>
    grid.tile(entry, set(), store.wanted.point, labelColours(), store.drafts.get(entry.index)?.isChanged, open)));
  const of = store.state.images;
  const left = store.wanted.order !== "given" || store.wanted.below !== null ? notSeen : 0;
  const ahead = left > 0 ? `; ${left} of ${of} are still looked at` : "";
  $("status").textContent = total === of ? `${of} images${ahead}` : `${total} of ${of} images${ahead}`;
  const pages = Math.max(1, Math.ceil(total / store.wanted.count));
  $("page").textContent = `page ${offset / store.wanted.count + 1} of ${pages}`;
  $("earlier").disabled = offset === 0;
  $("later").disabled = offset + store.wanted.count >= total;
  document.body.dataset.shown = `${store.wanted.set} ${images.filter((entry) => entry.points).length}/${images.length}`;
  return left;
}

// List the images again, then their points as they come; while others are looked at ahead, from time to time.
async function list() {
  turn += 1;
  const own = turn;
  const isWanted = () => own === turn;
  await tried(async () => {
    await loadListing();
    if (!isWanted()) return;
    const left = showGrid();
    await loadPoints(store.listing.images.map((entry) => entry.index), isWanted, showGrid);
    if (left > 0 && isWanted()) setTimeout(() => isWanted() && editor.openIndex() === null && list(), AGAIN_MS);
  });
}

async function again() {
  await loadState();
  showState();
  await list();
}

function want(changes) {
  Object.assign(store.wanted, { offset: 0 }, changes);
  return list();
}

// Go to another image of the list, also beyond the page.
async function step(by) {
  const { images } = store.listing;
  const at = images.findIndex((entry) => entry.index === editor.openIndex());
  const next = images[at + by];
  if (next) return editor.open(next.index);
  const offset = store.wanted.offset + by * store.wanted.count;
  if (offset < 0 || offset >= store.listing.total) return say(by > 0 ? "this was the last image" : "this is the first image");
  store.wanted.offset = offset;
  turn += 1;
  await tried(loadListing);
  showGrid();
  const other = by > 0 ? store.listing.images[0] : store.listing.images.at(-1);
  return other && editor.open(other.index);
}

editor.setUp({
  step,
  closed: async (last) => {
    await list();
    $("images").querySelector(`[data-index="${last}"]`)?.focus();
  },
  saved: async () => {
    await loadState();
    showState();
  },
  conflict: async () => {
    await loadState();
    await loadListing();
    showState();
  },
});

async function chooseSet(name) {
  store.wanted.set = name;
  store.wanted.point = null;
  await again();
  store.wanted.set = name;
  if (editor.openIndex() !== null) editor.refresh();
}

panel.setUp({ saved: chooseSet });
dialogs.setUp({
  adapted: chooseSet,
  named: async () => {
    await again();
    if (editor.openIndex() !== null) editor.refresh();
    else if (store.listing.images.length) await editor.open(store.listing.images[0].index);
  },
});

$("set").addEventListener("change", (event) => chooseSet(event.target.value));
$("split").addEventListener("change", (event) => want({ split: event.target.value }));
$("labelled").addEventListener("change", (event) => want({ labelled: event.target.value }));
$("order").addEventListener("change", (event) => want({ order: event.target.value }));
$("point").addEventListener("change", (event) => want({ point: event.target.value === "" ? null : +event.target.value }));
$("below").addEventListener("change", (event) => want({ below: event.target.value === "" ? null : +event.target.value / 100 }));
$("earlier").addEventListener("click", () => want({ offset: Math.max(0, store.wanted.offset - store.wanted.count) }));
$("later").addEventListener("click", () => want({ offset: store.wanted.offset + store.wanted.count }));
$("tools").addEventListener("submit", (event) => event.preventDefault());
addEventListener("beforeunload", (event) => { if (unsaved()) event.preventDefault(); });
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) tried(async () => { await loadState(); showState(); });
});

await tried(again);
const wanted = /^#image=(\d+)$/.exec(location.hash);
if (wanted && store.listing.images.some((entry) => entry.index === +wanted[1])) await editor.open(+wanted[1]);
