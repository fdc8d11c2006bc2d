// What the page knows of the server, and what is being looked at.
import { get } from "./api.js";
import { Draft, beginning } from "./draft.js";

export const store = {
  state: null, // of the server
  wanted: { set: "", order: "given", point: null, below: null, split: "", labelled: "", offset: 0, count: 60 },
  listing: { total: 0, offset: 0, left: 0, images: [] },
  drafts: new Map(), // image -> Draft
};

export async function loadState() {
  store.state = await get("/api/state");
  if (!store.wanted.set || !set()) store.wanted.set = store.state.chosen;
  if (!set()) store.wanted.set = store.state.sets[0].id;
  return store.state;
}

// The set of points that is shown.
export function set() {
  return store.state.sets.find((one) => one.id === store.wanted.set);
}

// Names of the points that are labelled: those of the file, or of the set until there is one.
export function labelNames() {
  return store.state.labels.names.length ? store.state.labels.names : set()?.names ?? [];
}

export function labelColours() {
  return store.state.labels.names.length ? store.state.labels.colours : set().colours;
}

// Edges of the set between points that are labelled.
export function labelEdges() {
  const names = labelNames();
  return set().skeleton
    .map(([a, b]) => [names.indexOf(set().names[a]), names.indexOf(set().names[b])])
    .filter(([a, b]) => a >= 0 && b >= 0);
}

export function entryOf(index) {
  return store.listing.images.find((entry) => entry.index === index);
}

// The draft of an image; made again of what is known now unless somebody worked on it.
export function draftOf(entry) {
  const names = labelNames();
  const made = store.drafts.get(entry.index);
  const isWorkedOn = made && (made.isChanged || made.past.length > 0);
  if (isWorkedOn && made.names.join("\n") === names.join("\n")) return made;
  const draft = new Draft(names, beginning(entry, names, set()), entry.label?.revision ?? null);
  if (isWorkedOn && made.isChanged) draft.take(made);
  store.drafts.set(entry.index, draft);
  return draft;
}

export function unsaved() {
  return [...store.drafts.values()].filter((draft) => draft.isChanged).length;
}

export async function loadListing() {
  const { labelled, ...rest } = store.wanted;
  store.listing = await get("/api/images", { ...rest, labelled });
  return store.listing;
}

// Points of listed images that are not known yet, a few at a time.
export async function loadPoints(indices, isWanted, shown) {
  const missing = indices.filter((index) => entryOf(index) && !entryOf(index).points);
  for (let start = 0; start < missing.length; start += 8) {
    if (!isWanted()) return;
    const some = missing.slice(start, start + 8);
    const found = await get("/api/points", { set: store.wanted.set, images: some.join(",") });
    if (!isWanted()) return;
    for (const index of some) {
      const entry = entryOf(index);
      if (entry) entry.points = found[index];
    }
    shown(some);
  }
}
