// Elements, without markup in texts.
const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

export function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export function options(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, text]) => element("option", { value }, text)));
  select.value = chosen;
}

// Text for people, read to those who do not see it.
export function say(text, isWrong = false) {
  const message = $("message");
  message.textContent = text;
  message.classList.toggle("wrong", isWrong);
}

export async function tried(work) {
  try {
    return await work();
  } catch (error) {
    say(error.message, true);
    return null;
  }
}
