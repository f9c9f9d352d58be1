// What the primary says of its pipeline twice a second, as people read it; and what changed, in sentences.

import { byId, copyText, el, layers, ms, number, say } from "./dom.js";
import { badge, Ring } from "./ring.js";

const PATHS = { lan: "over the local network", wan: "over the internet", relay: "through a relay" };
const COORDINATOR = {
  away: "The coordinator can't be reached; what runs goes on.",
  up: "The coordinator is back.",
};
const KEPT = 30; // sentences of what happened

/** What changed between the spans before and now, as sentences. */
export function changes(before, now) {
  const names = new Set(now.map(({ node }) => node));
  const gone = before.filter(({ node }) => !names.has(node));
  if (gone.length > 0) return gone.map((span) => `${span.name} left; ${heirs(span, now)}.`);
  const same = before.length === now.length && before.every((span, at) => sameSpan(span, now[at]));
  if (same) return [];
  const all = now.map((span) => `${span.name} has ${layers(span.start, span.stop)}`);
  return [`The layers were shared out anew: ${all.join(", ")}.`];
}

const sameSpan = (one, other) =>
  one.node === other.node && one.start === other.start && one.stop === other.stop;

function heirs({ start, stop }, now) {
  const shares = now
    .map((span) => ({ name: span.name, from: Math.max(start, span.start), to: Math.min(stop, span.stop) }))
    .filter(({ from, to }) => from < to);
  const told = shares.map(
    ({ name, from, to }) => `${layers(from, to)} ${to - from === 1 ? "is" : "are"} now with ${name}`,
  );
  return told.length > 0 ? told.join(", ") : `${layers(start, stop)} ${stop - start === 1 ? "has" : "have"} no home`;
}

/** What "% of floor" means here, in a plain sentence. */
export function floorSentence({ token_ms: taken, floor_ms: floor, floor_percent: share }) {
  if (!(taken > 0) || !(floor > 0) || !(share > 0)) return "";
  return (
    `Computing and the way between the machines need at least ${ms(floor)} for a token. ` +
    `It takes ${ms(taken)}, so the pipeline runs at ${number(share)}\u00a0% of the best pace that these machines allow.`
  );
}

export class Pipeline {
  /** ``onChange(sentence)`` hears what happens, as the list on the page does. */
  constructor(onChange) {
    this.onChange = onChange;
    this.ring = new Ring(byId("ring"), byId("pace"));
    this.before = null;
    this.spans = [];
    this.own = false;
    byId("audit-copy").addEventListener("click", ({ target }) => copyText(byId("audit-key").textContent, target));
  }

  /** A reply of this page starts or ends: the dot shouldn't wait for the next news. */
  busy(own) {
    this.own = own;
    this.ring.move(own || this.before?.active > 0);
  }

  /** No news from the primary. */
  lost(sentence) {
    this.status("lost", "no news");
    say(byId("sentence"), sentence);
    this.ring.move(false);
    if (!this.away) this.tell(sentence);
    this.away = true;
  }

  update(state) {
    const ready = state.spans.length > 0 && state.status !== "none";
    const told = { ready: "ready", opening: "opening", none: "no pipeline" }[state.status] ?? state.status;
    const count = state.spans.length;
    const workers = `${number(count)} ${count === 1 ? "worker" : "workers"}`;
    this.status(state.status, ready ? `${told}, ${workers}` : told);
    say(byId("sentence"), ready ? carried(state) : state.sentence || "No pipeline yet.");
    if (ready) this.ring.show(state, this.own || state.active > 0);
    else this.ring.empty();
    this.gauges(state, ready);
    this.list(state, ready);
    this.leftOut(state.left_out ?? []);
    this.figures(state);
    this.audit(state.audit);
    this.happened(state);
    this.before = state;
    this.away = false;
  }

  status(kind, words) {
    byId("status").dataset.kind = kind;
    say(byId("status"), words);
  }

  gauges(state, ready) {
    byId("gauges").hidden = !ready;
    say(byId("token-ms"), ms(state.token_ms));
    say(byId("floor-percent"), state.floor_percent > 0 ? `${number(state.floor_percent)}\u00a0%` : "–");
    say(byId("active"), number(state.active ?? 0) + (state.waiting > 0 ? ` + ${number(state.waiting)} waiting` : ""));
    say(byId("floor"), ready ? floorSentence(state) : "");
  }

  list(state, ready) {
    const root = byId("spans");
    const spans = ready ? state.spans : [];
    const key = spans.map(({ node, start, stop }) => `${node} ${start} ${stop}`).join();
    if (key !== this.listed) root.replaceChildren(...(ready ? [primaryRow(), ...spans.map(workerRow)] : []));
    this.listed = key;
    if (!ready) return;
    const [first, ...rows] = root.children;
    const back = state.primary?.hop_ms;
    say(first.querySelector(".name"), state.name || "primary");
    const way = back >= 0 ? `, reached in ${ms(back)}` : "";
    say(first.querySelector(".times"), `computes ${ms(state.primary?.compute_ms)}${way}`);
    rows.forEach((row, at) => workerNews(row, spans[at]));
  }

  leftOut(pairs) {
    byId("left-out").hidden = pairs.length === 0;
    const key = JSON.stringify(pairs);
    if (key === this.leftKey) return;
    this.leftKey = key;
    byId("left-out-list").replaceChildren(
      ...pairs.map(([name, why]) => el("li", {}, el("strong", {}, name), ` ${why}`)),
    );
  }

  figures(state) {
    const rows = [
      ["Predicted for a token", ms(state.predicted_ms)],
      ["Activations travel as", state.wire ?? "–"],
      ["Positions in memory", `${number(state.used_tokens ?? 0)} of ${number(state.capacity_tokens ?? 0)}`],
      ["Prompt starts remembered", number(state.prefix_hits ?? 0)],
      ["Failovers", number(state.failovers ?? 0)],
      ["Pipeline epoch", String(state.epoch ?? "–")],
      ["Coordinator", state.coordinator === "away" ? "away" : "reached"],
    ];
    const list = byId("figures-list");
    if (list.children.length === 0)
      list.append(...rows.map(([name]) => el("div", {}, el("dt", {}, name), el("dd"))));
    rows.forEach(([, value], at) => say(list.children[at].lastChild, value));
  }

  /** The key that receipts are verified with; nothing where no log is kept. */
  audit(log) {
    byId("audit").hidden = !log;
    if (!log) return;
    say(byId("audit-size"), `${number(log.size)} ${log.size === 1 ? "entry" : "entries"}`);
    say(byId("audit-key"), log.key);
    say(byId("audit-sentence"), log.sentence);
  }

  happened(state) {
    const was = this.before;
    const now = state.status === "none" ? [] : state.spans;
    let told = [];
    if (now.length > 0) {
      if (this.spans.length > 0) told = changes(this.spans, now);
      else told = [`The pipeline opened: ${now.map(({ name }) => name).join(", then ")}.`];
      this.spans = now;
    }
    if (was && told.length === 0 && state.failovers > was.failovers)
      told = ["A connection broke; the pipeline was opened again and replies go on."];
    if (state.status === "none" && was?.status !== "none") told.push(state.sentence);
    if (was?.status === "none" && state.status === "ready" && told.length === 0) told.push("The pipeline is back.");
    if (was && was.coordinator !== state.coordinator) told.push(COORDINATOR[state.coordinator]);
    if (this.away) told.unshift("The primary is heard again.");
    told.forEach((sentence) => this.tell(sentence));
  }

  tell(sentence) {
    const root = byId("history");
    const time = new Date().toLocaleTimeString("en", { hourCycle: "h23" });
    root.prepend(el("li", {}, el("time", {}, time), ` ${sentence}`));
    while (root.children.length > KEPT) root.lastChild.remove();
    this.onChange(sentence);
  }
}

function carried({ spans }) {
  const machines = new Set(spans.map(({ host }) => host)).size;
  const where = machines === 1 ? "one machine" : `${number(machines)} machines`;
  const hands = spans.length === 1 ? "one worker" : `${number(spans.length)} workers`;
  return `${number(spans.at(-1).stop)} layers, carried by ${hands} on ${where}.`;
}

function primaryRow() {
  const mark = el("span", { class: "badge primary", "aria-hidden": "true" }, "P");
  const words = el("p", {}, el("strong", { class: "name" }), " words in and out");
  return el("li", { class: "first" }, mark, words, el("p", { class: "times hint" }));
}

function workerRow(span, index) {
  const words = el("p", {}, el("strong", { class: "name" }, span.name), ` ${layers(span.start, span.stop)}`);
  const meter = el("span", { class: `meter series-${index % 5}`, "aria-hidden": "true" }, el("span"));
  const busy = el("p", { class: "busy hint" }, meter, el("span", { class: "busy-words" }));
  return el("li", {}, badge(index), words, el("p", { class: "times hint" }), busy);
}

function workerNews(row, span) {
  const way = PATHS[span.path] ?? span.path;
  say(row.querySelector(".times"), `computes ${ms(span.compute_ms)}, reached in ${ms(span.hop_ms)} ${way}`);
  say(row.querySelector(".busy-words"), `${number(100 * (span.busy ?? 0))}\u00a0% busy`);
  row.querySelector(".meter span").style.setProperty("--share", String(Math.min(1, span.busy ?? 0)));
}
