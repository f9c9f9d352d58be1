// Every request of the page: to its own primary alone, with the key if one is needed, refused with sentences.

const KEY = "sharedllm-api-key";
let askForKey = async () => null;
let asking = null;
let keyHeard = [];

/** A request that was refused or broke off; ``message`` is a sentence for people. */
export class Refusal extends Error {
  constructor(sentence, status = 0, retryAfterS = null) {
    super(sentence);
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

/** ``ask(again)`` shows a dialog and gives the key, or null. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

/** Settles once a person has given a key. */
export const keyGiven = () => new Promise((resolve) => keyHeard.push(resolve));

async function newKey() {
  asking ??= askForKey(sessionStorage.getItem(KEY) !== null).finally(() => (asking = null));
  const key = await asking;
  if (key === null) return false;
  sessionStorage.setItem(KEY, key);
  for (const heard of keyHeard.splice(0)) heard();
  return true;
}

function send(path, body, signal) {
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key !== null) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  return fetch(path, {
    method: body === undefined ? "GET" : "POST",
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    signal,
    cache: "no-store",
    credentials: "omit",
    redirect: "error",
  });
}

/** The response, once it is a good one. ``quiet`` never opens the dialog for a key. Raises Refusal. */
export async function request(path, { body, signal, quiet = false } = {}) {
  for (;;) {
    let response;
    try {
      response = await send(path, body, signal);
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Refusal("The primary does not answer. Check that it is running, then try again.");
    }
    if (response.ok) return response;
    if (response.status === 401 && !quiet && (await newKey())) continue;
    throw await refusal(response);
  }
}

async function refusal(response) {
  let sentence = `The primary refused with status ${response.status}.`;
  try {
    const { error } = await response.json();
    sentence = error.message ?? sentence;
  } catch {
    // not the usual shape; the status says what is known
  }
  const wait = Number.parseFloat(response.headers.get("Retry-After"));
  return new Refusal(sentence, response.status, Number.isFinite(wait) ? wait : null);
}

/** The ``data`` of each server-sent event, parsed; ends with the stream or with [DONE]. */
export async function* serverEvents(response) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let held = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      held = (held + decoder.decode(value, { stream: true })).replaceAll("\r\n", "\n");
      const parts = held.split("\n\n");
      held = parts.pop();
      for (const part of parts) {
        const lines = part.split("\n").filter((line) => line.startsWith("data:"));
        const data = lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
        if (data === "[DONE]") return;
        if (data !== "") yield JSON.parse(data);
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // already closed or aborted: nothing is left to cancel
  }
}
