// Behind one token: how likely it was, what else could have stood there, and which machines moved it.

import { Refusal, request } from "./api.js";
import { byId, el, layers, number, percent, visible } from "./dom.js";
import { leader, ledBy } from "./reply.js";
import { badge } from "./ring.js";

const PATIENCE_MS = 180; // a person who leafs through tokens doesn't want each one explained

const UNREADABLE = "The answer can't be read; the browser's console has the details.";

const worth = (words) => el("span", { class: "bar-value" }, words);
const piece = (text) => el("span", { class: "piece" }, visible(text));
const signed = (value) => `${value < 0 ? "−" : "+"}${number(Math.abs(value), 2)}`;

export class TokenPanel {
  constructor() {
    this.root = byId("token");
    this.reply = null;
    this.asking = null;
  }

  /** Show the token at ``index`` of ``reply``; ``byKeyboard`` takes the focus along. */
  open({ reply, index, byKeyboard }) {
    if (this.reply !== null && this.reply !== reply) this.reply.mark(undefined);
    [this.reply, this.index, this.byKeyboard] = [reply, index, byKeyboard];
    reply.mark(index);
    this.draw();
    this.root.hidden = false;
    reply.spansOf(index)[0]?.scrollIntoView({ block: "nearest" });
    this.root.parentElement.scrollTop = 0;
    if (byKeyboard) byId("token-title").focus();
    this.explain();
  }

  close() {
    if (this.root.hidden) return;
    this.asking?.abort();
    this.root.hidden = true;
    this.reply.mark(undefined);
    if (this.byKeyboard || this.root.contains(document.activeElement)) {
      if (this.reply.walking) this.reply.focus(this.index, 1);
      else byId("message").focus();
    }
    this.reply = null;
  }

  leaf(step) {
    const index = this.index + step;
    if (index < 0 || index >= this.reply.tokens.length) return;
    this.open({ reply: this.reply, index, byKeyboard: false });
    this.root.querySelector(step < 0 ? ".earlier" : ".later").focus();
  }

  draw() {
    const token = this.reply.tokens[this.index];
    const button = (words, className, act) =>
      el("button", { type: "button", class: `small-button ${className}`, click: act }, words);
    const head = el("div", { class: "token-head" });
    head.append(
      el("h2", { id: "token-title", tabindex: "-1" }, "Why ", piece(token.piece), "?"),
      button("Close", "close", () => this.close()),
    );
    const place = el("div", { class: "token-place" });
    place.append(
      button("← Earlier", "earlier", () => this.leaf(-1)),
      el("span", { class: "hint" }, `token ${number(this.index + 1)} of ${number(this.reply.tokens.length)}`),
      button("Later →", "later", () => this.leaf(1)),
    );
    this.answer = el("div", { class: "explained", role: "status" });
    const likely = alternatives(token, token.top);
    this.root.replaceChildren(head, place, ...spoke(token.shares), ...likely, this.answer);
  }

  async explain() {
    this.asking?.abort();
    this.asking = new AbortController();
    const { signal } = this.asking;
    const token = this.reply.tokens[this.index];
    const ids = this.reply.tokens.slice(0, this.index + 1).map(({ id }) => id);
    const body = { messages: this.reply.prefix, tokens: ids, index: this.index, model: this.reply.asked };
    const spinner = el("span", { class: "spinner", "aria-hidden": "true" });
    this.answer.replaceChildren(el("p", { class: "waiting hint" }, spinner, "Asking the machines who moved it."));
    try {
      await new Promise((resolve) => setTimeout(resolve, PATIENCE_MS));
      if (signal.aborted) return;
      token.explained ??= await (await request("/v1/sharedllm/explain", { body, signal })).json();
      if (!signal.aborted) this.answer.replaceChildren(...explained(token.explained));
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Refusal)) console.error(error);
      const why = error instanceof Refusal ? error.message : UNREADABLE;
      const again = el("button", { type: "button", class: "small-button" }, "Try again");
      again.addEventListener("click", () => this.explain());
      const sentence = el("p", { class: "hint" }, `Nobody could say. ${why}`);
      this.answer.replaceChildren(el("h3", {}, "Who moved it"), sentence, again);
    }
  }
}

/** The chosen token among the likeliest ones, each with its probability. */
function alternatives(token, top) {
  const chosen = { piece: token.piece, logprob: token.logprob, chosen: true };
  const sameText = top.findIndex((one) => one.piece === token.piece);
  const same = sameText >= 0 ? sameText : top.findIndex(({ logprob }) => logprob === token.logprob);
  const others = top.filter((_, rank) => rank !== same); // half a letter reads differently when it stands alone
  const rows = [chosen, ...others].sort((one, other) => other.logprob - one.logprob);
  const first = rows[0].chosen;
  const sentence = first
    ? `It was the model's first choice, with ${percent(Math.exp(token.logprob))}.`
    : `The model gave it ${percent(Math.exp(token.logprob))}; its first choice was “${visible(rows[0].piece)}”.`;
  const items = rows.map(({ piece: text, logprob, chosen: here }) => {
    const bar = el("span", { class: "bar", "aria-hidden": "true" }, el("span"));
    bar.firstChild.style.setProperty("--share", String(Math.exp(logprob)));
    const name = el("span", { class: "bar-name" }, piece(text));
    if (here) name.append(el("span", { class: "chosen" }, " chosen"));
    return el("li", { class: here ? "here" : null }, name, bar, worth(percent(Math.exp(logprob))));
  });
  return [el("p", {}, sentence), el("ol", { class: "bars", "aria-label": "What could have stood here" }, ...items)];
}

/** Signed bars per node, each of which opens to its layers. */
function moved({ contributions, embedding, total }) {
  const values = [embedding, ...contributions.map(({ logit }) => logit)];
  const scale = Math.max(...values.map(Math.abs), 1e-9);
  const inner = Math.max(...contributions.flatMap((node) => node.layers.map(({ logit }) => Math.abs(logit))), 1e-9);
  const nodes = contributions.map((node, index) => {
    const name = el("span", { class: "bar-name" }, badge(index), el("span", {}, node.name));
    name.append(el("span", { class: "hint" }, layers(node.start, node.stop)));
    const parts = node.layers.map(({ layer, logit }) =>
      el("li", {}, ...signedRow(el("span", { class: "bar-name" }, `layer ${layer}`), logit, inner, index)),
    );
    const inside = el("ol", { class: "bars signed inside", "aria-label": `Layers of ${node.name}` }, ...parts);
    return el("li", {}, el("details", {}, el("summary", {}, ...signedRow(name, node.logit, scale, index)), inside));
  });
  const before = el("span", { class: "bar-name" }, "the token before it");
  const own = el("li", {}, ...signedRow(before, embedding, scale, null));
  const meaning =
    "To the right a machine raised the token's score, to the left it lowered it. " +
    `Together: ${signed(total)}. Open a machine to see its layers.`;
  return [
    el("h3", {}, "Who moved it"),
    el("p", {}, strongest(contributions)),
    el("ol", { class: "bars signed", "aria-label": "How much each machine moved this token" }, own, ...nodes),
    el("p", { class: "hint" }, meaning),
  ];
}

function signedRow(name, value, scale, index) {
  const colour = index === null ? "primary" : `series-${index % 5}`;
  const bar = el("span", { class: `bar ${colour} ${value < 0 ? "minus" : "plus"}`, "aria-hidden": "true" }, el("span"));
  bar.firstChild.style.setProperty("--share", String(Math.abs(value) / scale));
  return [name, bar, worth(signed(value))];
}

function strongest(contributions) {
  const sorted = [...contributions].sort((one, other) => other.logit - one.logit);
  const [up, down] = [sorted[0], sorted.at(-1)];
  const parts = [];
  if (up.logit > 0) parts.push(`${up.name} raised it most (${signed(up.logit)})`);
  if (down.logit < 0) parts.push(`${down.name} held it back (${signed(down.logit)})`);
  return `${parts.join("; ") || "No machine moved it"}.`;
}

/** A model alone, or each member of a mixture in turn, beginning with the one that led. */
function explained(answer) {
  const { responsibilities = [], members = [], leading } = answer;
  if (members.length === 0) return [...moved(answer), ...came(answer)];
  const shown = el("div");
  const choices = members.map((member, index) => {
    const button = el("button", { type: "button", class: "small-button" }, member.name);
    button.addEventListener("click", () => show(index));
    return button;
  });
  const show = (index) => {
    choices.forEach((button, at) => button.setAttribute("aria-pressed", String(at === index)));
    shown.replaceChildren(...moved(members[index]));
  };
  show(Math.max(0, members.findIndex(({ name }) => name === leading)));
  const label = "Whose layers to look into";
  const choice = el("div", { class: "choices", role: "group", "aria-label": label }, ...choices);
  return [...(responsibilities.length > 0 ? came(answer) : []), el("h3", {}, "Inside a specialist"), choice, shown];
}

/** The members' shares in the token, as bars under the names that mark their words. */
function spoke(shares) {
  const lead = leader(shares);
  if (lead === undefined) return [];
  const items = Object.entries(shares).map(([name, share], index) => {
    const bar = el("span", { class: `bar series-${index % 5}`, "aria-hidden": "true" }, el("span"));
    bar.firstChild.style.setProperty("--share", String(share));
    const mark = el("span", { class: `sample ${ledBy(index)}` }, name);
    return el("li", {}, el("span", { class: "bar-name" }, mark), bar, worth(percent(share)));
  });
  return [
    el("h3", {}, "Which specialist spoke"),
    el("p", {}, `${lead.name} led, with ${percent(lead.share)} of the responsibility. The shares sum to 1.`),
    el("ol", { class: "bars", "aria-label": "Responsibility of each specialist" }, ...items),
  ];
}

/** Why the shares are what they are: weight before the token, times how likely each called it. */
function came({ responsibilities = [], diversity = 0, logprob }) {
  if (responsibilities.length === 0) return [];
  const nats = (value) => `${signed(value)}\u00a0nats`;
  const sentences = responsibilities.map(({ name, weight, logprob: own }) =>
    el("li", {}, el("strong", {}, name), ` weighed ${percent(weight)} and gave it ${percent(Math.exp(own))}.`),
  );
  const rows = responsibilities.flatMap(({ name, evidence, prior }) => [
    [`${name}: evidence`, evidence],
    [`${name}: prior`, prior],
  ]);
  rows.push(["diversity", diversity], ["together, its log-probability", logprob]);
  const lines = rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, nats(value))));
  const exact = el("details", { class: "figures" }, el("summary", {}, "The exact lines"), el("dl", {}, ...lines));
  return [el("h3", {}, "How the shares came about"), el("ul", { class: "plain" }, ...sentences), exact];
}
