"use strict";
(() => {
  const FIRST = 36, STEP = 60;
  const get = (id) => document.getElementById(id);
  const list = get("images"), landmark = get("landmark"), order = get("order"), numbers = get("numbers");
  const opening = [...list.children];
  const shots = opening.filter((item) => item.matches(".shot"));
  const facts = new Map(shots.map((shot) => [shot, {
    rank: +shot.dataset.rank, index: +shot.dataset.index, confidence: shot.dataset.confidence.split(",").map(Number),
    caption: shot.querySelector(".caption").textContent,
  }]));
  const names = JSON.parse(list.dataset.names);
  const label = (k) => names[k] || String(k);
  const chosen = document.head.appendChild(document.createElement("style"));
  let visible = FIRST, sequence = shots;

  // If one landmark is selected, images are ordered by its relative confidence.
  function difficulty(shot) {
    const { rank, confidence } = facts.get(shot);
    return landmark.value === "" ? rank : -confidence[+landmark.value];
  }

  function items() {
    if (order.value === "opening" && landmark.value === "") return opening;
    const key = order.value === "given" ? (shot) => facts.get(shot).index : difficulty;
    const sorted = [...shots].sort((a, b) => key(a) - key(b));
    if (order.value === "worst") return sorted.reverse();
    if (order.value !== "opening") return sorted;
    const half = Math.floor(sorted.length / 2), ends = Math.min(12, half);
    const worst = sorted.slice(sorted.length - ends).reverse();
    const middle = sorted.slice(ends, sorted.length - ends).reverse();
    const groups = opening.filter((item) => item.matches(".group"));
    return [groups[0], ...sorted.slice(0, ends), groups[1], ...worst, groups[2], ...middle].filter(Boolean);
  }

  function name(shot) { return shot.querySelector("img").alt; }

  function showNumbers(shot) {
    const svg = shot.querySelector("svg");
    svg.querySelectorAll("text").forEach((text) => text.remove());
    if (!numbers.checked && !shot.closest("dialog")) return;
    for (const circle of svg.querySelectorAll("circle")) {
      const text = document.createElementNS("http://www.w3.org/2000/svg", "text");
      const radius = +circle.getAttribute("r");
      text.setAttribute("x", +circle.getAttribute("cx") + 1.3 * radius);
      text.setAttribute("y", +circle.getAttribute("cy") - 0.8 * radius);
      text.setAttribute("font-size", 3.4 * radius);
      text.setAttribute("class", circle.classList[0]);
      text.textContent = label(+circle.classList[0].slice(1));
      svg.append(text);
    }
  }

  function update() {
    const only = landmark.value;
    chosen.textContent = only === "" ? "" : `.shot svg :not(.k${only}),#large svg :not(.k${only}){display:none}`;
    let shown = 0;
    sequence = items();
    for (const item of sequence) {
      if (item.matches(".shot")) {
        item.hidden = ++shown > visible;
        const { caption, confidence } = facts.get(item);
        item.querySelector(".caption").textContent = only === "" ? caption : `confidence ${confidence[+only]} %`;
        if (!item.hidden) showNumbers(item);
      } else {
        item.hidden = shown >= visible;
      }
    }
    opening.filter((item) => item.matches(".group") && !sequence.includes(item)).forEach((item) => item.remove());
    list.append(...sequence);
    sequence = sequence.filter((item) => item.matches(".shot"));
    get("more").hidden = visible >= shots.length;
    get("more").textContent = `Show ${Math.min(STEP, shots.length - visible)} more`;
    const selected = only === "" ? "" : `, landmark ${label(+only)}`;
    get("status").textContent = `${Math.min(visible, shots.length)} of ${shots.length} shown${selected}`;
  }

  for (const control of [landmark, order]) {
    control.addEventListener("change", () => { visible = FIRST; update(); });
  }
  numbers.addEventListener("change", update);
  get("tools").addEventListener("submit", (event) => event.preventDefault());
  get("more").addEventListener("click", () => {
    const next = sequence[visible];
    visible += STEP;
    update();
    next?.querySelector("button").focus();
  });
  for (const button of document.querySelectorAll("[data-show]")) {
    button.addEventListener("click", () => {
      landmark.value = button.dataset.show;
      visible = FIRST;
      update();
      get("gallery").scrollIntoView();
      landmark.focus({ preventScroll: true });
    });
  }

  const dialog = get("large");
  let current = null;
  function enlarge(shot) {
    current = shot;
    const picture = shot.querySelector(".picture").cloneNode(true);
    get("large-picture").replaceChildren(picture);
    picture.querySelectorAll("circle").forEach((circle) => circle.setAttribute("r", 0.55 * circle.getAttribute("r")));
    showNumbers(picture);
    get("large-title").textContent = name(shot);
    const { rank, confidence, caption } = facts.get(shot);
    const least = confidence.indexOf(Math.min(...confidence));
    get("large-text").textContent = `${caption} · ${rank + 1} of ${shots.length}, ` +
      `best first · least confident: landmark ${label(least)}, ${confidence[least]} % of its median`;
    if (!dialog.open) dialog.showModal();
  }
  function step(by) {
    const at = sequence.indexOf(current) + by;
    if (at >= 0 && at < sequence.length) enlarge(sequence[at]);
  }
  list.addEventListener("click", (event) => {
    const shot = event.target.closest(".shot");
    if (shot) enlarge(shot);
  });
  get("previous").addEventListener("click", () => step(-1));
  get("next").addEventListener("click", () => step(1));
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  dialog.addEventListener("close", () => current?.querySelector("button").focus());
  update();
})();
