// The grid of images with their points.
import { $, element, svg } from "./dom.js";
import { store } from "./store.js";

export function tile(entry, set, point, colours, isChanged, open) {
  const picture = element("span", { class: "picture" });
  const image = element("img", { src: `/image/${entry.index}?v=${store.state.session}`, loading: "lazy", decoding: "async", alt: "" });
  image.addEventListener("error", () => picture.classList.add("broken"));
  picture.append(image, overlay(entry, set, point, colours));
  const button = element("button", { type: "button", "data-index": entry.index, onclick: () => open(entry.index) },
    picture, caption(entry, point, isChanged));
  return element("li", { class: "shot" }, button);
}

function caption(entry, point, isChanged) {
  const made = element("span", { class: "caption" }, element("span", { class: "name" }, entry.name));
  if (isChanged) made.append(element("span", { class: "mark changed" }, "not saved"));
  else if (entry.label) made.append(element("span", { class: "mark" }, "labelled"));
  const sure = entry.label && point === null ? null : likelihood(entry, point);
  if (sure !== null) made.append(element("span", { class: "sure" }, `${Math.round(100 * sure)} %`));
  return made;
}

export function likelihood(entry, point) {
  const sure = entry.points?.sure;
  if (!sure) return null;
  if (point !== null) return sure[point] ?? null;
  const known = sure.filter((value) => value !== null);
  return known.length ? known.reduce((a, b) => a + b) / known.length : null;
}

// The points of an image, drawn in its own pixels; the label where there is one.
function overlay(entry, set, point, colours) {
  const seen = entry.points;
  const [width, height] = [seen?.width || entry.width || 1, seen?.height || entry.height || 1];
  const made = svg("svg", { viewBox: `-0.5 -0.5 ${width} ${height}`, "aria-hidden": "true" });
  const isLabel = entry.label && point === null;
  const points = isLabel
    ? entry.label.points
    : (seen?.xy || []).map((xy, k) => (xy && seen.flags[k] ? [...xy, seen.flags[k]] : null));
  const unit = Math.max(width, height) / 100;
  if (!isLabel && point === null) made.append(...edges(points, set.skeleton, unit));
  points.forEach((at, k) => {
    if (!at || (point !== null && k !== point)) return;
    const colour = isLabel ? colours[k] : set.colours[k];
    const circle = svg("circle", { "data-k": isLabel ? null : k, cx: at[0], cy: at[1], r: 2 * unit, class: at[2] === 2 ? "" : "hollow" });
    circle.style.setProperty("--k", colour);
    made.append(circle);
  });
  made.style.setProperty("--unit", unit);
  return made;
}

export function edges(points, skeleton, unit) {
  return skeleton
    .filter(([a, b]) => points[a] && points[b])
    .map(([a, b]) => svg("line", { x1: points[a][0], y1: points[a][1], x2: points[b][0], y2: points[b][1],
      class: "edge", "stroke-width": 0.7 * unit }));
}

// Show some points of the set alone, with null all again. Points of labels have no number in the set.
export function highlight(points) {
  $("images").classList.toggle("lit", points !== null);
  for (const circle of $("images").querySelectorAll("circle")) {
    circle.classList.toggle("on", points !== null && points.includes(+circle.dataset.k));
  }
}

// Show tiles in place of the others; those that are the same keep the focus.
export function show(tiles) {
  const focused = document.activeElement?.closest?.("#images button")?.dataset.index;
  $("images").replaceChildren(...tiles);
  if (focused !== undefined) $("images").querySelector(`[data-index="${focused}"]`)?.focus({ preventScroll: true });
}

// Arrow keys go from tile to tile.
$("images").addEventListener("keydown", (event) => {
  const shots = [...$("images").children];
  const at = shots.indexOf(event.target.closest("li"));
  const columns = getComputedStyle($("images")).gridTemplateColumns.split(" ").length;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
  if (at < 0 || !step || !shots[at + step]) return;
  shots[at + step].querySelector("button").focus();
  event.preventDefault();
});
