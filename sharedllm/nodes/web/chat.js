// The conversation: what was said, what is being said, stopping it, and trying again.

import { Refusal, request, serverEvents } from "./api.js";
import { byId, el, number, say } from "./dom.js";
import { ledBy, Reply, tally } from "./reply.js";
import { sampling, systemPrompt } from "./settings.js";

const NEAR_PX = 60; // a person who reads further up is not pulled down

export class Chat {
  /** ``onBusy(bool)`` hears when a reply starts and ends. */
  constructor(onBusy) {
    this.onBusy = onBusy;
    this.messages = [];
    this.model = "";
    this.stopping = null; // the AbortController of the reply that grows
    this.growing = null; // the Reply that grows
    this.spokenUntil = 0;
    byId("ask").addEventListener("submit", (event) => this.submitted(event));
    byId("message").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      byId("ask").requestSubmit();
    });
    byId("stop").addEventListener("click", () => this.stop());
    byId("new-chat").addEventListener("click", () => this.clear());
    for (const start of byId("starts").children)
      start.addEventListener("click", () => this.say(start.textContent));
    this.atEnd = true;
    byId("scroll").addEventListener("scroll", ({ target }) => {
      this.atEnd = target.scrollHeight - target.scrollTop - target.clientHeight < NEAR_PX;
    });
    byId("turns").addEventListener("grown", () => this.follow());
  }

  submitted(event) {
    event.preventDefault();
    const words = byId("message").value.trim();
    if (words === "" || this.stopping !== null) return;
    byId("message").value = "";
    this.say(words);
  }

  say(words) {
    if (this.stopping !== null) return;
    byId("welcome").hidden = true;
    this.messages.push({ role: "user", content: words });
    const turn = el("article", { class: "turn person", "aria-label": "You" });
    turn.append(el("h3", { class: "who" }, "You"), el("p", {}, words));
    byId("turns").append(turn);
    this.answer();
  }

  stop() {
    this.stopping?.abort();
  }

  clear() {
    this.stop();
    this.messages = [];
    for (const id of ["turns", "trouble", "spoken"]) byId(id).replaceChildren();
    byId("welcome").hidden = false;
    byId("legend").hidden = true;
    byId("turns").dispatchEvent(new CustomEvent("cleared", { bubbles: true }));
    byId("message").focus();
  }

  /** Ask for the reply to the messages so far, and show it as it comes. */
  async answer() {
    const system = systemPrompt();
    const messages = [...(system === "" ? [] : [{ role: "system", content: system }]), ...this.messages];
    const reply = new Reply(this.model || "The model");
    reply.prefix = messages;
    reply.asked = this.model || undefined;
    reply.element.classList.add("growing");
    byId("trouble").replaceChildren();
    byId("turns").append(reply.element);
    this.begin(reply);
    const said = { talk: this.messages, reason: null, cached: 0, started: 0, last: 0 };
    const stopping = this.stopping;
    try {
      await this.read(reply, messages, said, stopping.signal);
      this.ended(reply, said, said.reason === "length" ? "It reached the most tokens that the settings allow." : "");
    } catch (error) {
      if (stopping.signal.aborted) this.ended(reply, said, "You stopped it here.");
      else this.failed(reply, said, error);
    } finally {
      if (this.stopping === stopping) this.finish(reply);
    }
  }

  begin(reply) {
    this.stopping = new AbortController();
    this.growing = reply;
    this.spokenUntil = 0;
    byId("spoken").replaceChildren();
    byId("send").hidden = true;
    byId("stop").hidden = false;
    this.onBusy(true);
    this.follow(true);
  }

  finish(reply) {
    const hadFocus = document.activeElement === byId("stop");
    this.stopping = null;
    this.growing = null;
    this.speak(reply.text, true);
    byId("stop").hidden = true;
    byId("send").hidden = false;
    if (hadFocus) byId("message").focus();
    this.onBusy(false);
  }

  async read(reply, messages, said, signal) {
    const body = { model: this.model, messages, stream: true, stream_options: { include_usage: true } };
    Object.assign(body, { logprobs: true, top_logprobs: 5 }, sampling());
    const response = await request("/v1/chat/completions", { body, signal });
    for await (const chunk of serverEvents(response)) {
      if (chunk.error) throw new Refusal(chunk.error.message ?? "The reply broke off.");
      said.cached = chunk.usage?.prompt_tokens_details?.cached_tokens ?? said.cached;
      const choice = chunk.choices?.[0];
      if (choice === undefined) continue;
      said.reason = choice.finish_reason ?? said.reason;
      this.take(reply, choice, chunk.sharedllm ?? {}, said);
    }
    if (said.reason === null) throw new Refusal("The reply broke off before its end.");
  }

  take(reply, choice, { token: id = null, responsibilities, receipt }, said) {
    reply.receipt = receipt ?? reply.receipt;
    const piece = choice.delta?.content ?? "";
    const seen = choice.logprobs?.content?.[0];
    if (piece === "" && id === null) return;
    said.started ||= performance.now();
    said.last = performance.now();
    const top = (seen?.top_logprobs ?? []).map(({ token, logprob }) => ({ piece: token, logprob }));
    reply.add(id, piece, seen?.logprob ?? 0, top, responsibilities ?? {});
    byId("legend").hidden = false;
    if (responsibilities !== undefined) this.led(Object.keys(responsibilities));
    this.speak(reply.text, false);
  }

  /** Several specialists speak: say whose line is whose, and mark them from the first time on. */
  led(names) {
    if (this.leaders === String(names)) return;
    this.leaders = String(names);
    const items = names.map((name, index) => el("li", {}, el("span", { class: `sample ${ledBy(index)}` }, name)));
    byId("leaders").replaceChildren(...items);
    if (!byId("lead-label").hidden) return;
    byId("lead-label").hidden = false;
    byId("lead").click();
  }

  ended(reply, said, why) {
    const count = tally(reply.tokens.length, (said.last - said.started) / 1000, said.cached);
    reply.finish([reply.text === "" ? "The reply is empty" : count, why].filter(Boolean).join(". "));
    if (reply.text !== "") said.talk.push({ role: "assistant", content: reply.text });
  }

  failed(reply, said, error) {
    const known = error instanceof Refusal;
    if (!known) console.error(error);
    reply.finish("It broke off here.");
    if (reply.text === "") reply.element.remove();
    const wait = known && error.retryAfterS !== null ? ` It asks you to wait ${number(error.retryAfterS)} s.` : "";
    const again = el("button", { type: "button", class: "main-button" }, "Try again");
    again.addEventListener("click", () => {
      reply.element.remove();
      this.answer();
      byId("message").focus();
    });
    const sentence = known ? error.message : "Something in the page went wrong; the browser's console has the details.";
    byId("trouble").replaceChildren(el("div", { class: "notice" }, el("p", {}, sentence + wait), again));
    this.follow();
  }

  /** Put whole sentences where a screen reader hears them: not word by word. */
  speak(text, all) {
    const rest = text.slice(this.spokenUntil);
    const ends = [...rest.matchAll(/[.!?…:](?=\s)|\n/g)].at(-1);
    const length = all ? rest.length : ends === undefined ? 0 : ends.index + 1;
    if (rest.slice(0, length).trim() !== "") byId("spoken").append(el("p", {}, rest.slice(0, length)));
    this.spokenUntil += length;
  }

  follow(always = false) {
    if (always || this.atEnd) byId("scroll").scrollTop = byId("scroll").scrollHeight;
  }

  named(model) {
    this.model = model;
    say(byId("model"), model);
  }
}
