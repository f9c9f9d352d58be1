// The dial: one turn is one token, each arc as long as its part of the time, and a dot at the token's place.

import { el, layers, number, reducedMotion, say, svg } from "./dom.js";

const [X, Y, R] = [200, 152, 95];
const FASTEST_TURN_MS = 900; // a faster dot can't be followed with the eyes
const SLOWER = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];
const LABELLED = 6; // more names than these would cover each other
const CALM = 0.35; // share of a new measure; arcs shouldn't tremble

const point = (radius, degrees) => {
  const angle = ((degrees - 90) * Math.PI) / 180;
  return [X + radius * Math.cos(angle), Y + radius * Math.sin(angle)];
};

function arc(from, to) {
  const [x0, y0] = point(R, from);
  const [x1, y1] = point(R, to);
  const long = to - from > 180 ? 1 : 0;
  return `M${x0.toFixed(2)} ${y0.toFixed(2)}A${R} ${R} 0 ${long} 1 ${x1.toFixed(2)} ${y1.toFixed(2)}`;
}

/** The parts of one turn in order: primary, way, worker, way, …, way back; each with its time in ms. */
export function parts({ primary, name, spans }) {
  const turn = [{ kind: "primary", label: name || "primary", note: "first and last", ms: primary?.compute_ms ?? 0 }];
  spans.forEach((span, index) => {
    turn.push({ kind: "way", path: span.path, ms: span.hop_ms ?? 0 });
    const note = layers(span.start, span.stop);
    turn.push({ kind: "worker", index, label: span.name, note, ms: span.compute_ms ?? 0 });
  });
  turn.push({ kind: "way", path: spans.at(-1).path, ms: primary?.hop_ms ?? spans.at(-1).hop_ms ?? 0 });
  return turn;
}

/** Give each part its degrees: at least enough to be seen, the rest in proportion to its time. */
export function shareOut(turn) {
  const workers = turn.filter(({ kind }) => kind !== "way").length;
  const least = { way: Math.min(11, 110 / workers), worker: Math.min(22, 150 / workers) };
  const widths = turn.map(({ kind }) => (kind === "way" ? least.way : least.worker));
  const rest = 360 - widths.reduce((sum, width) => sum + width, 0);
  const total = turn.reduce((sum, part) => sum + part.ms, 0);
  let at = 0;
  const placed = turn.map((part, index) => {
    const share = total > 0 ? part.ms / total : 1 / turn.length;
    const from = at;
    at += widths[index] + rest * share;
    return { ...part, from, to: at };
  });
  const turned = (placed[0].to - placed[0].from) / 2; // the primary's middle stands at the top
  return placed.map((part) => ({ ...part, from: part.from - turned, to: part.to - turned }));
}

const shorten = (name, length) => (name.length > length ? `${name.slice(0, length - 1)}…` : name);

export class Ring {
  constructor(root, pace) {
    this.root = root;
    this.title = root.querySelector("title");
    this.pace = pace;
    this.arcs = svg("g");
    this.speed = svg("text", { class: "speed", x: X, y: Y + 8 });
    this.unit = svg("text", { class: "unit", x: X, y: Y + 30 });
    this.dot = svg("circle", { class: "token-dot", r: 8.5 });
    root.append(this.arcs, this.speed, this.unit, this.dot);
    this.segments = [];
    this.smooth = new Map();
    this.moving = false;
    this.turn = 0;
    reducedMotion.addEventListener("change", () => this.move());
    this.empty();
  }

  /** Nothing to show: a broken circle. */
  empty() {
    this.segments = [];
    this.smooth.clear();
    const circle = svg("circle", { class: "no-ring", cx: X, cy: Y, r: R });
    this.arcs.replaceChildren(circle);
    say(this.speed, "");
    say(this.unit, "no pipeline");
    say(this.title, "No pipeline");
    say(this.pace, "");
    this.move();
  }

  show(state, moving) {
    const turn = parts(state);
    const key = turn.map(({ label, note }) => `${label}${note}`).join("|");
    if (key !== this.key) this.smooth.clear();
    this.key = key;
    turn.forEach((part, index) => {
      const before = this.smooth.get(index) ?? part.ms;
      part.ms = before + CALM * (part.ms - before);
      this.smooth.set(index, part.ms);
    });
    this.segments = shareOut(turn);
    this.arcs.replaceChildren(...this.segments.flatMap((part) => this.draw(part, state.spans.length)));
    const speed = state.tokens_per_s > 0 ? number(state.tokens_per_s, state.tokens_per_s < 100 ? 1 : 0) : "–";
    say(this.speed, speed);
    say(this.unit, "tokens a second");
    const stations = turn.filter(({ label }) => label).map(({ label, note }) => `${label}, ${note}`);
    say(this.title, `Ring: ${stations.join("; ")}`);
    this.setPace(state.token_ms ?? state.predicted_ms);
    this.move(moving);
  }

  draw(part, workers) {
    if (part.kind === "way") {
      const way = svg("path", { class: `way way-${part.path}`, d: arc(part.from + 1.5, part.to - 1.5) });
      return [way];
    }
    const colour = part.kind === "primary" ? "primary" : `series-${part.index % 5}`;
    part.line = svg("path", { class: `station ${colour}`, d: arc(part.from, part.to) });
    const middle = (part.from + part.to) / 2;
    const drawn = [part.line];
    if (part.to - part.from > 9 && part.kind === "worker") {
      const [x, y] = point(R, middle);
      drawn.push(svg("text", { class: "station-number", x, y: y + 4 }, String(part.index + 1)));
    }
    if (workers <= LABELLED) drawn.push(this.label(part, middle));
    return drawn;
  }

  label(part, middle) {
    const [x, y] = point(R + 21, middle);
    const side = Math.abs(x - X) < 40 ? "middle" : x > X ? "start" : "end";
    const up = y < Y - 60 ? -14 : y > Y + 60 ? 8 : -2;
    const words = svg("text", { class: "station-label", x, y: y + up, "text-anchor": side });
    words.append(svg("tspan", { class: "station-name" }, shorten(part.label, side === "middle" ? 24 : 11)));
    words.append(svg("tspan", { x, dy: 15 }, part.note));
    return words;
  }

  setPace(tokenMs) {
    this.tokenMs = tokenMs;
    if (!(tokenMs > 0)) return say(this.pace, "");
    this.slower = SLOWER.find((times) => tokenMs * times >= FASTEST_TURN_MS) ?? SLOWER.at(-1);
    if (tokenMs >= FASTEST_TURN_MS / 1.5) this.slower = 1;
    const dot = this.slower === 1 ? "at its real pace" : `${this.slower} times slower than it is`;
    const still = "Longer arcs take longer.";
    return say(this.pace, reducedMotion.matches ? still : `${still} The dot goes ${dot}.`);
  }

  /** Set the dot going or standing; with reduced motion it stands at the primary. */
  move(moving = this.moving) {
    this.moving = moving;
    this.root.classList.toggle("at-work", moving && this.segments.length > 0);
    const goes = moving && this.segments.length > 0 && !reducedMotion.matches && this.tokenMs > 0;
    this.dot.toggleAttribute("hidden", this.segments.length === 0);
    if (goes && !this.frame) {
      this.last = performance.now();
      this.frame = requestAnimationFrame((now) => this.step(now));
    } else if (!goes) {
      cancelAnimationFrame(this.frame);
      this.frame = 0;
      this.turn = 0;
      this.place(0);
    }
  }

  step(now) {
    this.turn = (this.turn + (now - this.last) / (this.tokenMs * this.slower)) % 1;
    this.last = now;
    this.place(this.turn);
    this.frame = requestAnimationFrame((next) => this.step(next));
  }

  /** Where the token is after this share of its time: not evenly, but as long in each arc as that arc takes. */
  place(share) {
    const total = this.segments.reduce((sum, part) => sum + part.ms, 0);
    let left = share * total;
    let degrees = 0;
    for (const part of this.segments) {
      const here = left >= 0 && left < part.ms;
      part.line?.classList.toggle("lit", here && this.moving);
      if (here) degrees = part.from + ((part.to - part.from) * left) / part.ms;
      left -= part.ms;
    }
    if (share === 0) degrees = 0;
    const [x, y] = point(R, degrees);
    this.dot.setAttribute("cx", x.toFixed(2));
    this.dot.setAttribute("cy", y.toFixed(2));
  }
}

/** The number and colour that stand for the worker at ``index`` wherever it appears. */
export const badge = (index) =>
  el("span", { class: `badge series-${index % 5}`, "aria-hidden": "true" }, String(index + 1));
