// One image, large, with points that are moved by mouse, touch and keys. What the points are is for `Stage`'s user to know.
import { $, svg } from "./dom.js";
import { store } from "./store.js";

const RADIUS = 7; // pixels of the screen
const HIT = 15;
const MOST_ZOOM = 40;

export class Stage {
  // hooks: begin(k) before a drag, move(k, x, y) in it, choose(k), place(x, y) for a click on the picture.
  constructor(hooks) {
    this.hooks = hooks;
    this.root = $("stage");
    this.chosen = null;
    this.size = [1, 1];
    this.view = [0, 0, 1, 1];
    this.root.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    this.root.addEventListener("pointerdown", (event) => this.onDown(event));
    new ResizeObserver(() => this.drawn && this.draw(this.drawn)).observe(this.root);
  }

  // Show another image.
  open(index, width, height) {
    this.size = [width, height];
    this.picture = svg("image", { href: `/image/${index}?large&v=${store.state.session}`, x: -0.5, y: -0.5, width, height, preserveAspectRatio: "none" });
    this.ghosts = svg("g", { class: "ghosts", "aria-hidden": "true" });
    this.lines = svg("g", { "aria-hidden": "true" });
    this.marks = svg("g");
    this.root.replaceChildren(this.picture, this.ghosts, this.lines, this.marks);
    this.drawn = null;
    this.fit();
  }

  fit() {
    this.view = [-0.5, -0.5, ...this.size];
    this.look();
  }

  // Zoom about a point of the picture, by default its shown middle.
  zoom(factor, x = this.view[0] + this.view[2] / 2, y = this.view[1] + this.view[3] / 2) {
    const [left, top, width] = this.view;
    const longest = this.size[0];
    const wanted = Math.min(longest, Math.max(longest / MOST_ZOOM, width / factor));
    const by = wanted / width;
    this.view = [x - (x - left) * by, y - (y - top) * by, wanted, (wanted * this.size[1]) / this.size[0]];
    this.look();
  }

  look() {
    const [left, top, width, height] = this.view;
    const clamp = (at, length, full) => Math.max(-0.5, Math.min(full - 0.5 - length, at));
    this.view = [clamp(left, width, this.size[0]), clamp(top, height, this.size[1]), width, height];
    this.root.setAttribute("viewBox", this.view.join(" "));
    if (this.drawn) this.draw(this.drawn);
  }

  // Pixels of the picture for one of the screen.
  get unit() {
    const matrix = this.root.getScreenCTM();
    return matrix && matrix.a ? 1 / matrix.a : this.view[2] / Math.max(1, this.root.clientWidth);
  }

  // drawn: points, names, colours, touched, skeleton, withNames, ghosts (points with colours)
  draw(drawn) {
    this.drawn = drawn;
    const unit = this.unit;
    this.root.style.setProperty("--unit", unit);
    this.drawGhosts(drawn.ghosts, unit);
    this.lines.replaceChildren(...drawn.skeleton
      .filter(([a, b]) => drawn.points[a] && drawn.points[b])
      .map(([a, b]) => svg("line", { class: "edge", x1: drawn.points[a].x, y1: drawn.points[a].y,
        x2: drawn.points[b].x, y2: drawn.points[b].y, "stroke-width": 1.6 * unit })));
    drawn.points.forEach((point, k) => this.drawPoint(point, k, unit));
    while (this.marks.children.length > drawn.points.length) this.marks.lastChild.remove();
  }

  drawGhosts(ghosts, unit) {
    this.ghosts.replaceChildren(...ghosts.map(({ x, y, colour, name }) => {
      const made = svg("g", {}, svg("title", {}, name), svg("path", { transform: `translate(${x} ${y}) scale(${unit})`,
        d: "M-6 0H6M0 -6V6" }));
      made.style.setProperty("--k", colour);
      return made;
    }));
  }

  // Elements are kept, as one of them may have the focus or hold the pointer.
  drawPoint(point, k, unit) {
    const { names, colours, touched, withNames } = this.drawn;
    const mark = this.marks.children[k] ?? this.marks.appendChild(this.newMark(k));
    const [ring, dot, , text] = mark.children;
    mark.toggleAttribute("hidden", !point);
    mark.style.display = point ? "" : "none";
    mark.setAttribute("class", ["mark", k === this.chosen && "chosen", touched.has(k) && "touched",
      point?.v === 1 && "hollow"].filter(Boolean).join(" "));
    mark.setAttribute("aria-label", names[k]);
    mark.style.setProperty("--k", colours[k]);
    if (!point) return;
    mark.setAttribute("transform", `translate(${point.x} ${point.y}) scale(${unit})`);
    mark.setAttribute("aria-valuenow", Math.round(point.x));
    mark.setAttribute("aria-valuetext",
      `x ${point.x.toFixed(1)}, y ${point.y.toFixed(1)}, ${point.v === 2 ? "visible" : "hidden"}`);
    text.textContent = withNames ? names[k] : "";
    ring.setAttribute("r", RADIUS + (k === this.chosen ? 5 : 3.5));
    dot.setAttribute("r", RADIUS);
  }

  newMark(k) {
    return svg("g", { tabindex: 0, role: "slider", "data-k": k, "aria-valuemin": 0, "aria-valuemax": this.size[0],
      onfocus: () => this.hooks.choose(k) },
      svg("circle", { class: "ring" }), svg("circle", { class: "dot" }), svg("circle", { class: "hit", r: HIT }),
      svg("text", { x: 12, y: 4 }));
  }

  // Choose a point; with `focus` keys go to it.
  choose(k, focus = false) {
    this.chosen = k;
    if (this.drawn) this.draw(this.drawn);
    const mark = this.marks.children[k];
    if (focus && mark && mark.style.display !== "none") mark.focus({ preventScroll: true });
  }

  at(event) {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(this.root.getScreenCTM().inverse());
    return [point.x, point.y];
  }

  onWheel(event) {
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY / (event.deltaMode ? 12 : 400)), ...this.at(event));
  }

  onDown(event) {
    if (event.button !== 0) return;
    const mark = event.target.closest(".mark");
    const [x, y] = this.at(event);
    if (mark) this.drag(event, +mark.dataset.k, x, y);
    else this.pan(event, x, y);
  }

  drag(event, k, x, y) {
    event.preventDefault();
    const from = this.drawn.points[k];
    const [dx, dy] = [from.x - x, from.y - y];
    let isMoved = false;
    this.hooks.choose(k);
    this.choose(k, true);
    this.follow(event, (moved) => {
      if (!isMoved) this.hooks.begin(k);
      isMoved = true;
      const [px, py] = this.at(moved);
      const clamp = (value, length) => Math.max(-0.5, Math.min(length - 0.5, value));
      this.hooks.move(k, clamp(px + dx, this.size[0]), clamp(py + dy, this.size[1]));
    }, () => {});
  }

  // Dragging the picture moves it; a click puts a point there.
  pan(event, x, y) {
    const start = [event.clientX, event.clientY];
    let isMoved = false;
    this.follow(event, (moved) => {
      isMoved ||= Math.hypot(moved.clientX - start[0], moved.clientY - start[1]) > 4;
      if (!isMoved) return;
      const [px, py] = this.at(moved);
      this.view = [this.view[0] + x - px, this.view[1] + y - py, this.view[2], this.view[3]];
      this.look();
    }, () => !isMoved && this.hooks.place(x, y));
  }

  follow(event, move, end) {
    const id = event.pointerId;
    this.root.setPointerCapture(id);
    const moved = (next) => next.pointerId === id && move(next);
    const ended = (next) => {
      if (next.pointerId !== id) return;
      removeEventListener("pointermove", moved);
      removeEventListener("pointerup", ended);
      removeEventListener("pointercancel", ended);
      end();
    };
    addEventListener("pointermove", moved);
    addEventListener("pointerup", ended);
    addEventListener("pointercancel", ended);
  }
}
