// Settings of the next reply, kept as long as the tab lives.

import { byId, number } from "./dom.js";

const NAME = "sharedllm-settings";
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
