// Ties the parts of the page together: keys of the keyboard, the news of the pipeline, the key of the API.

import { keyGiven, onKeyNeeded, request, serverEvents } from "./api.js";
import { Chat } from "./chat.js";
import { byId } from "./dom.js";
import { Pipeline } from "./pipeline.js";
import { offerModels, openSettings } from "./settings.js";
import { TokenPanel } from "./token.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 8000;
const SILENCE_MS = 5000; // news comes twice a second

const SILENT = "The primary has been silent for some seconds; asking again.";

const chat = new Chat((busy) => pipeline.busy(busy));
const pipeline = new Pipeline((sentence) => chat.growing?.happened(sentence));
const panel = new TokenPanel();

function askForKey(again) {
  const dialog = byId("key-dialog");
  byId("key").value = "";
  byId("key-title").textContent = again ? "That key was not the right one" : "This primary asks for a key";
  dialog.showModal();
  return new Promise((resolve) => {
    byId("key-cancel").onclick = () => dialog.close("");
    byId("key-form").onsubmit = (event) => {
      event.preventDefault();
      dialog.close("given");
    };
    dialog.onclose = () => resolve(dialog.returnValue === "given" ? byId("key").value : null);
  });
}

const pause = (duration) => new Promise((resolve) => setTimeout(resolve, duration));

async function seen() {
  if (!document.hidden) return;
  await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
}

let served = ""; // what the primary answers with if nobody chooses

/** The primary serves something else than it did, or says so for the first time. */
function changed(model) {
  if (served !== "") offer().catch((error) => pipeline.lost(error.message));
  else if (chat.model === "") chat.named(model);
  served = model;
}

async function offer() {
  const { data } = await (await request("/v1/models")).json();
  offerModels(data, (name) => chat.named(name));
}

/** Listen to the state for as long as someone looks; come back after every silence. */
async function follow() {
  for (let wait = FIRST_WAIT_MS; ; wait = Math.min(2 * wait, LONGEST_WAIT_MS)) {
    await seen();
    const away = new AbortController();
    let silence = 0;
    const listen = () => {
      clearTimeout(silence);
      silence = setTimeout(() => away.abort(SILENT), SILENCE_MS);
    };
    const hide = () => document.hidden && away.abort();
    document.addEventListener("visibilitychange", hide);
    listen();
    try {
      const response = await request("/v1/sharedllm/events", { signal: away.signal, quiet: true });
      for await (const state of serverEvents(response)) {
        wait = FIRST_WAIT_MS;
        listen();
        pipeline.update(state);
        if (state.model !== served) changed(state.model);
      }
      pipeline.lost("The primary ended its news; asking again.");
    } catch (error) {
      if (error.status === 401) {
        pipeline.lost("The pipeline is shown once a key is given.");
        await keyGiven();
        continue;
      }
      if (away.signal.reason === SILENT) pipeline.lost(SILENT);
      else if (!away.signal.aborted) pipeline.lost(error.message);
    } finally {
      clearTimeout(silence);
      document.removeEventListener("visibilitychange", hide);
    }
    await pause(wait);
  }
}

async function start() {
  openSettings();
  onKeyNeeded(askForKey);
  follow();
  try {
    await offer();
  } catch (error) {
    pipeline.lost(error.message);
  }
}

document.addEventListener("pick", (event) => panel.open(event.detail));
document.addEventListener("cleared", () => panel.close());

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.defaultPrevented || byId("key-dialog").open) return;
  if (byId("token").contains(document.activeElement)) panel.close();
  else if (chat.stopping !== null) chat.stop();
  else panel.close();
});

/** Words are marked in one way at a time: two kinds of line under a word can't be told apart. */
function marked(box, other) {
  if (byId(box).checked) byId(other).checked = false;
  byId("turns").classList.toggle("plain-words", !byId("tint").checked);
  byId("turns").classList.toggle("led-words", byId("lead").checked);
  byId("surprises").hidden = byId("lead").checked;
  byId("leaders").hidden = !byId("lead").checked;
}
byId("tint").addEventListener("change", () => marked("tint", "lead"));
byId("lead").addEventListener("change", () => marked("lead", "tint"));

byId("show-pipeline").addEventListener("click", () => {
  const open = byId("instrument").classList.toggle("open");
  byId("show-pipeline").setAttribute("aria-expanded", String(open));
});

start();
