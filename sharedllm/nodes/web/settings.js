// Settings of the next reply, kept as long as the tab lives: how it is sampled, and which model gives it.

import { byId, el, number } from "./dom.js";

const NAME = "sharedllm-settings";
const MODEL = "sharedllm-model";
const KINDS = { mixture: "Together", specialist: "Specialists", base: "Base", adapter: "Adapters" };
const DEFAULTS = { temperature: "0.7", "max-tokens": "512", seed: "", system: "" };

/** Fill the fields from what was kept, and keep what is changed. */
export function openSettings() {
  const kept = { ...DEFAULTS, ...JSON.parse(sessionStorage.getItem(NAME) ?? "{}") };
  for (const id of Object.keys(DEFAULTS)) byId(id).value = kept[id];
  byId("settings").addEventListener("input", () => {
    const values = Object.keys(DEFAULTS).map((id) => [id, byId(id).value]);
    sessionStorage.setItem(NAME, JSON.stringify(Object.fromEntries(values)));
    showTemperature();
  });
  showTemperature();
}

function showTemperature() {
  byId("temperature-shown").textContent = number(byId("temperature").value, 1);
}

/** The system prompt, or an empty text. */
export const systemPrompt = () => byId("system").value.trim();

/** The fields of a request that people have a say in. Raises nothing: what is out of range the primary refuses. */
export function sampling() {
  const chosen = { temperature: Number(byId("temperature").value) };
  chosen.max_tokens = Number(byId("max-tokens").value || DEFAULTS["max-tokens"]);
  if (byId("seed").value !== "") chosen.seed = Number(byId("seed").value);
  return chosen;
}

/** Offer what the primary serves, its default first; ``onChoice(name)`` hears what is chosen, now and later. */
export function offerModels(models, onChoice) {
  const menu = byId("models");
  const groups = Object.entries(KINDS).map(([kind, label]) => {
    const options = models.filter(({ sharedllm }) => (sharedllm?.kind ?? "base") === kind).map(option);
    return options.length > 0 ? el("optgroup", { label }, ...options) : null;
  });
  menu.replaceChildren(...groups.filter(Boolean));
  menu.hidden = models.length < 2;
  byId("model").hidden = !menu.hidden;
  const kept = sessionStorage.getItem(MODEL);
  menu.value = models.some(({ id }) => id === kept) ? kept : models[0].id;
  menu.onchange = () => {
    sessionStorage.setItem(MODEL, menu.value);
    onChoice(menu.value);
  };
  onChoice(menu.value);
}

function option({ id, sharedllm }) {
  const several = sharedllm?.members?.length > 1;
  return el("option", { value: id }, several ? `${id} of ${sharedllm.members.join(", ")}` : id);
}
