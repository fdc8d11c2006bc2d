// The points of an image as they are being corrected: null, or {x, y, v} with v 2 visible and 1 hidden. They can be undone.
const MOST_STEPS = 200;

export class Draft {
  constructor(names, points, revision) {
    this.names = names;
    this.points = points;
    this.touched = new Set();
    this.revision = revision; // of the label that a save replaces
    this.isChanged = false;
    this.past = [];
    this.future = [];
    this.last = "";
  }

  // Remember how it is, before a change. Changes of one kind that follow each other are undone together.
  step(kind = "") {
    const isSame = kind !== "" && kind === this.last;
    this.last = kind;
    if (isSame) return;
    this.past.push(this.copy());
    if (this.past.length > MOST_STEPS) this.past.shift();
    this.future = [];
  }

  copy() {
    return { points: this.points.map((point) => point && { ...point }), touched: new Set(this.touched) };
  }

  put(k, point) {
    this.points[k] = point;
    this.touched.add(k);
    this.isChanged = true;
  }

  // Take the places of the points that another draft, of other names, has too.
  take(other) {
    this.names.forEach((name, k) => {
      const there = other.names.indexOf(name);
      if (there >= 0 && other.touched.has(there)) this.put(k, other.points[there]);
    });
    this.revision = other.revision;
  }

  undo() {
    return this.swap(this.past, this.future);
  }

  redo() {
    return this.swap(this.future, this.past);
  }

  swap(from, to) {
    if (!from.length) return false;
    to.push(this.copy());
    Object.assign(this, from.pop());
    this.last = "";
    this.isChanged = true;
    return true;
  }

  saved(revision) {
    this.revision = revision;
    this.isChanged = false;
  }

  // What is saved: [x, y, v] or null for each point.
  toList() {
    return this.points.map((point) => point && [point.x, point.y, point.v]);
  }
}

// Points of names from a label, or else from what was predicted of points with these names.
export function beginning(entry, names, set) {
  if (entry.label) {
    return entry.label.points.map((point) => point && { x: point[0], y: point[1], v: point[2] });
  }
  const seen = entry.points;
  return names.map((name) => {
    const k = set.names.indexOf(name);
    if (k < 0 || !seen || !seen.xy || !seen.xy[k] || !seen.flags[k]) return null;
    return { x: seen.xy[k][0], y: seen.xy[k][1], v: seen.flags[k] };
  });
}
