// Own points, the fit of points on labels, and help.
import { get, post } from "./api.js";
import { $, say, tried } from "./dom.js";
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
      $("adapt-result").textContent = job.lines.join("\n");
      $("adapt-result").hidden = !job.lines.length;
      $("adapt-status").textContent = `${job.name} is fitted and shown.`;
      await tried(() => hooks.adapted(job.name));
      return;
    }
    await new Promise((done) => { setTimeout(done, PAUSE_MS); });
  }
}

$("open-help").addEventListener("click", () => $("help").showModal());
addEventListener("keydown", (event) => {
  if (event.key !== "?" || event.target.matches?.("input, textarea") || document.querySelector("dialog[open]")) return;
  $("help").showModal();
  event.preventDefault();
});
