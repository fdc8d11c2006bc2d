// Own points, the fit of points on labels, and help.
import { get, post } from "./api.js";
import { $, element, say, tried } from "./dom.js";
import { labelNames, store } from "./store.js";

let hooks = {};
const PAUSE_MS = 400; // between two questions how far the fit is

export function setUp(given) {
  hooks = given;
}

$("open-own").addEventListener("click", () => {
  $("own-names").value = store.state.labels.names.join("\n");
  $("own-error").textContent = "";
  $("own").showModal();
});

$("own-save").addEventListener("click", async () => {
  const names = $("own-names").value.split("\n").map((name) => name.trim()).filter(Boolean);
  try {
    await post("/api/names", { names, known: store.state.labels.names });
  } catch (error) {
    $("own-error").textContent = error.message;
    return;
  }
  $("own").close();
  await hooks.named();
  say(`click ${labelNames().join(", ")} on some images`);
});

$("open-adapt").addEventListener("click", () => {
  const { labels, job } = store.state;
  $("adapt-text").textContent = `${labels.count} ${labels.count === 1 ? "image is" : "images are"} labelled with ` +
    `${labels.names.length} points. Fit these points on the landmarks of the run, so that they are found in all images.`;
  $("adapt-begin").disabled = !labels.count || job.state === "running";
  $("adapt").showModal();
  if (job.state === "running") follow();
});

$("adapt-begin").addEventListener("click", async () => {
  $("adapt-begin").disabled = true;
  $("adapt-result").hidden = true;
  $("adapt-status").classList.remove("wrong");
  try {
    await post("/api/adapt", { name: $("adapt-name").value.trim() });
    await follow();
  } catch (error) {
    $("adapt-status").textContent = error.message;
    $("adapt-status").classList.add("wrong");
  }
  $("adapt-begin").disabled = false;
});

// Show how far the fit is until it ends, and its points then.
async function follow() {
  for (;;) {
    const job = await get("/api/job");
    $("adapt-progress").value = job.share ?? 0;
    $("adapt-status").textContent = job.text || "fitting …";
    if (job.state === "failed") throw new Error(job.text);
    if (job.state === "done") {
      showResult(job.facts);
      $("adapt-status").textContent = `${job.name} is fitted and shown.`;
      await tried(() => hooks.adapted(job.name));
      return;
    }
    await new Promise((done) => { setTimeout(done, PAUSE_MS); });
  }
}

const percent = (value) => (value === null ? "–" : `${value.toFixed(1)} %`);
const pixels = (value) => (value === null ? "–" : `${value.toFixed(1)} px`);

// The cross-validated error of each point, what more labels would gain, and what to mind.
function showResult(facts) {
  const cells = (kind, values) => element("tr", {}, ...values.map((value, n) =>
    element(n || kind === "th" ? kind : "th", { scope: kind === "th" ? "col" : n ? null : "row", class: n ? "n" : "" }, value)));
  const rows = facts.table.map((one) => cells("td", [one.name, one.labels, pixels(one.error_pixels), percent(one.error)]));
  const table = element("table", {},
    element("thead", {}, cells("th", ["Point", "Labels", "Error", "of the object"])),
    element("tbody", {}, ...rows, cells("td", ["all", facts.objects, pixels(facts.error_pixels), percent(facts.error)])));
  const { forecast } = facts;
  const gain = forecast && `The next ${forecast.labels} labels would gain about ${percent(forecast.now - forecast.then)} of the object.`;
  const lines = [gain || "There are too few labels to tell what more of them would gain.",
    ...facts.confused.map(([a, b]) => `${a} and ${b} are hardly told apart: are they labelled the same way in all images?`),
    ...facts.rejected.slice(0, 5).map(([image, reason]) => `not used: ${image}: ${reason}`), ...facts.left_out, ...facts.notes];
  $("adapt-result").replaceChildren(table, element("p", { class: "quiet" }, "Errors are measured on images that the points were not fitted on."),
    ...lines.map((line) => element("p", {}, line)));
  $("adapt-result").hidden = false;
}

$("open-help").addEventListener("click", () => $("help").showModal());
addEventListener("keydown", (event) => {
  if (event.key !== "?" || event.target.matches?.("input, textarea") || document.querySelector("dialog[open]")) return;
  $("help").showModal();
  event.preventDefault();
});
