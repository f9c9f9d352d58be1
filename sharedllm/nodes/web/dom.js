// Builds elements from text alone: nothing here turns a string into markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** One HTML element; attributes that are null or false are left out, children may be strings. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** One SVG element. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Set a text only when it differs, so that readers and selections aren't disturbed. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

export const number = (value, digits = 0) =>
  Number(value).toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

/** Milliseconds as people read them: 0.42 ms, 7.1 ms, 48 ms, 1,250 ms (never parted at the blank). */
export function ms(value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return "–";
  return `${number(value, value < 1 ? 2 : value < 10 ? 1 : 0)}\u00a0ms`;
}

/** A share of one as a percentage with as many digits as it deserves. */
export function percent(share) {
  const value = 100 * share;
  if (value > 0 && value < 0.01) return "<\u00a00.01\u00a0%";
  const digits = value >= 99.95 || value === 0 ? 0 : value >= 10 ? 1 : 2;
  return `${number(value, digits)}\u00a0%`;
}

/** Layers of a half-open span, as people count them: "layers 0–9", "layer 4". */
export function layers(start, stop) {
  return stop - start === 1 ? `layer ${start}` : `layers ${start}–${stop - 1}`;
}

/** A token with its blanks made visible. */
export function visible(piece) {
  if (piece === "") return "(no text of its own)";
  return piece.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥");
}

/** Copy a text, and let the button that asked for it say so for a while. */
export async function copyText(text, button) {
  const was = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "The browser does not allow it";
  }
  setTimeout(() => (button.textContent = was), 1800);
}
