// One reply: its tokens as they arrive, drawn as light Markdown in which every token can be picked.

import { Refusal, request } from "./api.js";
import { copyText, el, number, percent, visible } from "./dom.js";
import { blocks, runs } from "./markdown.js";

const TAGS = { strong: "strong", em: "em", code: "code" };
const LEVELS = [0.5, 0.1, 0.02]; // the legend of the page names these

/** 0 (expected) to 3 (very surprising), from the natural logarithm of a token's probability. */
export function surprise(logprob) {
  return LEVELS.filter((least) => Math.exp(logprob) < least).length;
}

/** Colour and line of a mixture's member: no two of 25 have the same pair, and the line alone tells five. */
export const ledBy = (index) => `series-${index % 5} line-${(index + Math.floor(index / 5)) % 5}`;

/** The member with the largest share: its name and place, or undefined for a model alone. */
export function leader(shares) {
  const entries = Object.entries(shares).map(([name, share], index) => ({ name, share, index }));
  return entries.sort((one, other) => other.share - one.share)[0];
}

/** The element of a reply fires "pick" with {reply, index, byKeyboard} when a token is picked. */
export class Reply {
  constructor(model) {
    this.receipt = ""; // the id under which the primary keeps the receipt
    this.tokens = []; // {id, piece, logprob, top: [{piece, logprob}], shares: {name: share}, start, end}
    this.text = "";
    this.prefix = []; // the messages that it answers
    this.drawn = [];
    this.pending = 0;
    this.body = el("div", { class: "words" });
    this.events = el("div", { class: "reply-events" });
    this.notes = el("p", { class: "reply-notes hint" });
    this.copyButton = el("button", { type: "button", class: "small-button", click: () => this.copy() }, "Copy");
    this.walkButton = el(
      "button",
      { type: "button", class: "small-button", "aria-pressed": "false", click: () => this.walk(!this.walking) },
      "Walk the tokens",
    );
    this.actions = el("div", { class: "reply-actions", hidden: true }, this.copyButton, this.walkButton, this.notes);
    this.element = el("article", { class: "turn reply", "aria-label": `Reply of ${model}` });
    this.element.append(el("h3", { class: "who" }, model), this.body, this.events, this.actions);
    this.body.addEventListener("click", (event) => this.clicked(event));
    this.body.addEventListener("keydown", (event) => this.pressed(event));
  }

  /** Take one piece; ``id`` null or −1 means text without a token of its own. */
  add(id, piece, logprob, top, shares = {}) {
    const start = this.text.length;
    this.text += piece;
    if (typeof id === "number" && id >= 0) {
      this.tokens.push({ id, piece, logprob, top, shares, start, end: this.text.length });
    } else if (this.tokens.length > 0) {
      this.tokens.at(-1).end = this.text.length;
      this.tokens.at(-1).piece += piece;
    }
    this.pending ||= requestAnimationFrame(() => this.draw());
  }

  /** What happened to the pipeline while this reply was made. */
  happened(sentence) {
    this.events.append(el("p", {}, sentence));
  }

  finish(notes) {
    cancelAnimationFrame(this.pending);
    this.draw();
    this.element.classList.remove("growing");
    this.notes.textContent = notes;
    this.actions.hidden = false;
    if (this.receipt !== "") this.notes.before(this.receiptLink());
    for (const button of [this.copyButton, this.walkButton]) button.hidden = this.text === "";
  }

  /** Draw anew from the first block that differs from what is shown. */
  draw() {
    this.pending = 0;
    const found = blocks(this.text);
    const keys = found.map((block) => JSON.stringify(block) + this.text.slice(block.start, block.end));
    let same = 0;
    while (same < keys.length && keys[same] === this.drawn[same]) same += 1;
    while (this.body.children.length > same) this.body.lastChild.remove();
    for (const block of found.slice(same)) this.body.append(this.block(block));
    this.drawn = keys;
    if (this.picked !== undefined) this.mark(this.picked);
    this.element.dispatchEvent(new CustomEvent("grown", { bubbles: true }));
  }

  block(block) {
    if (block.type === "code") return this.code(block);
    if (block.type !== "list") return this.inline(el(block.type === "heading" ? "h4" : "p"), block);
    const items = block.items.map((item) => {
      const value = block.ordered && item.value ? item.value : null;
      return this.inline(el("li", { class: item.deep ? "deep" : null, value }), item);
    });
    return el(block.ordered ? "ol" : "ul", {}, ...items);
  }

  code({ start, end, language }) {
    const words = this.text.slice(start, end);
    const copy = el("button", { type: "button", class: "small-button" }, "Copy code");
    copy.addEventListener("click", () => copyText(words, copy));
    const label = language === "" ? "Code" : `Code, ${language}`;
    const code = el("code", {}, ...this.pieces(start, end));
    const head = el("div", { class: "code-head" }, el("span", {}, language || "code"), copy);
    const box = el("pre", { tabindex: "0", "aria-label": label, role: "region" }, code);
    return el("div", { class: "code-block" }, head, box);
  }

  inline(parent, { start, end }) {
    for (const run of runs(this.text, start, end)) {
      const pieces = this.pieces(run.start, run.end);
      if (run.style === "") parent.append(...pieces);
      else parent.append(el(TAGS[run.style], {}, ...pieces));
    }
    return parent;
  }

  /** Spans of text[start, end), cut where tokens meet. */
  pieces(start, end) {
    const spans = [];
    let at = start;
    for (let index = this.firstEndingAfter(start); at < end; index += 1) {
      const token = this.tokens[index];
      const stop = token === undefined ? end : Math.min(token.end, end);
      if (stop === at) continue;
      const level = token === undefined ? 0 : surprise(token.logprob);
      const lead = token && leader(token.shares);
      const classes = ["token", level > 0 && `surprise-${level}`, lead && ledBy(lead.index)].filter(Boolean).join(" ");
      spans.push(el("span", { class: classes, "data-index": token && index }, this.text.slice(at, stop)));
      at = stop;
    }
    return spans;
  }

  firstEndingAfter(position) {
    let [low, high] = [0, this.tokens.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.tokens[middle].end > position) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  clicked(event) {
    const span = event.target.closest("[data-index]");
    if (span === null || String(getSelection()) !== "") return;
    this.pick(Number(span.dataset.index), event.detail === 0);
  }

  pick(index, byKeyboard) {
    const detail = { reply: this, index, byKeyboard };
    this.element.dispatchEvent(new CustomEvent("pick", { bubbles: true, detail }));
  }

  spansOf(index) {
    return this.body.querySelectorAll(`[data-index="${index}"]`);
  }

  mark(index) {
    for (const span of this.body.querySelectorAll(".picked")) span.classList.remove("picked");
    this.picked = index;
    if (index !== undefined) for (const span of this.spansOf(index)) span.classList.add("picked");
  }

  /** Into or out of the walk, in which arrow keys go from token to token and Enter picks one. */
  walk(on) {
    this.walking = on;
    this.walkButton.setAttribute("aria-pressed", String(on));
    this.body.classList.toggle("walking", on);
    if (!on) {
      for (const name of ["role", "aria-label"]) this.body.removeAttribute(name);
      for (const span of this.body.querySelectorAll("[data-index]"))
        for (const name of ["role", "tabindex", "aria-label"]) span.removeAttribute(name);
      return;
    }
    this.body.setAttribute("role", "application");
    this.body.setAttribute("aria-label", "Tokens: arrow keys go from one to the next, Enter explains, Escape leaves");
    this.focus(this.picked ?? 0, 1);
  }

  /** Focus the token at ``index``, or the next in ``direction`` that has something to show. */
  focus(index, direction) {
    let at = Math.min(Math.max(index, 0), this.tokens.length - 1);
    while (at >= 0 && at < this.tokens.length && this.spansOf(at).length === 0) at += direction;
    const span = this.spansOf(at)[0];
    if (span === undefined) return;
    for (const other of this.body.querySelectorAll("[tabindex='0'][data-index]")) other.tabIndex = -1;
    const { piece, logprob, shares } = this.tokens[at];
    const lead = leader(shares);
    span.setAttribute("role", "button");
    const place = `token ${at + 1} of ${this.tokens.length}`;
    const who = lead === undefined ? "" : `, led by ${lead.name}`;
    span.setAttribute("aria-label", `${visible(piece)}, ${percent(Math.exp(logprob))}${who}, ${place}`);
    span.tabIndex = 0;
    span.focus();
  }

  pressed(event) {
    const span = event.target.closest("[data-index]");
    if (!this.walking || span === null) return;
    const index = Number(span.dataset.index);
    const moves = { ArrowRight: [index + 1, 1], ArrowLeft: [index - 1, -1] };
    Object.assign(moves, { Home: [0, 1], End: [this.tokens.length - 1, -1] });
    if (event.key in moves) this.focus(...moves[event.key]);
    else if (event.key === "Enter" || event.key === " ") this.pick(index, true);
    else if (event.key === "Escape") {
      this.walk(false);
      this.walkButton.focus();
      event.stopPropagation();
    } else return;
    event.preventDefault();
  }

  receiptLink() {
    const href = `/v1/sharedllm/receipts/${encodeURIComponent(this.receipt)}`;
    const download = `receipt-${this.receipt}.json`;
    const save = (event) => {
      event.preventDefault();
      this.save(href, download);
    };
    return el("a", { class: "receipt", href, download, click: save }, "Save the receipt");
  }

  /** Fetch with the key of this tab, which a plain link would not send, and keep what came as a file. */
  async save(path, download) {
    try {
      const href = URL.createObjectURL(await (await request(path)).blob());
      el("a", { href, download }).click();
      URL.revokeObjectURL(href);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.happened(error.message);
    }
  }

  copy() {
    copyText(this.text, this.copyButton);
  }
}

/** What a finished reply says of itself: "42 tokens, 21.3 a second, 12 of the prompt were known already". */
export function tally(count, seconds, cached) {
  const parts = [`${number(count)} ${count === 1 ? "token" : "tokens"}`];
  if (count > 1 && seconds > 0) parts.push(`${number((count - 1) / seconds, 1)} a second`);
  if (cached > 0) parts.push(`${number(cached)} prompt tokens remembered`);
  return parts.join(", ");
}
