// Light Markdown as ranges of the text: blocks, and runs inside of them. It makes no elements and no links.

const FENCE = /^\s{0,3}```/;
const HEADING = /^(#{1,4})\s+/;
const ITEM = /^(\s*)(?:[-*+]|(\d{1,9})[.)])\s+/;

/**
 * Blocks of ``text`` in order: {type, start, end, …} with type "code" | "heading" | "list" | "paragraph".
 * A list has ``items`` and ``ordered``; a code block has ``language``. Ranges leave the markup out.
 */
export function blocks(text) {
  const lines = linesOf(text);
  const found = [];
  for (let at = 0; at < lines.length; ) {
    const line = lines[at];
    if (line.words.trim() === "") at += 1;
    else if (FENCE.test(line.words)) at = code(lines, at, found);
    else if (HEADING.test(line.words)) at = heading(lines, at, found);
    else if (ITEM.test(line.words)) at = list(lines, at, found);
    else at = paragraph(lines, at, found);
  }
  return found;
}

function linesOf(text) {
  const lines = [];
  let start = 0;
  for (const words of text.split("\n")) {
    lines.push({ start, end: start + words.length, words });
    start += words.length + 1;
  }
  return lines;
}

function code(lines, at, found) {
  const language = lines[at].words.replace(FENCE, "").trim().slice(0, 30);
  let last = at + 1;
  while (last < lines.length && !FENCE.test(lines[last].words)) last += 1;
  const closed = last < lines.length;
  const start = lines[Math.min(at + 1, lines.length - 1)].start;
  const end = last > at + 1 ? lines[last - 1].end : start;
  if (closed || at + 1 < lines.length) found.push({ type: "code", start, end, language });
  return last + 1;
}

function heading(lines, at, found) {
  const { start, end, words } = lines[at];
  found.push({ type: "heading", start: start + HEADING.exec(words)[0].length, end });
  return at + 1;
}

function list(lines, at, found) {
  const first = ITEM.exec(lines[at].words);
  const ordered = first[2] !== undefined;
  const items = [];
  let next = at;
  for (; next < lines.length; next += 1) {
    const { start, end, words } = lines[next];
    const item = ITEM.exec(words);
    if (item && (item[2] !== undefined) === ordered)
      items.push({ start: start + item[0].length, end, deep: item[1].length >= 2, value: item[2] });
    else if (item && item[1].length >= 2)
      items.push({ start: start + item[0].length, end, deep: true, value: item[2] });
    else if (/^\s{2,}\S/.test(words) && !FENCE.test(words)) items.at(-1).end = end;
    else if (words.trim() === "" && ITEM.test(lines[next + 1]?.words ?? "")) continue;
    else break;
  }
  found.push({ type: "list", ordered, items, start: items[0].start, end: items.at(-1).end });
  return next;
}

function paragraph(lines, at, found) {
  let last = at + 1;
  while (last < lines.length && isPlain(lines[last].words)) last += 1;
  found.push({ type: "paragraph", start: lines[at].start, end: lines[last - 1].end });
  return last;
}

const isPlain = (words) =>
  words.trim() !== "" && !FENCE.test(words) && !HEADING.test(words) && !ITEM.test(words);

const INLINE = /`([^`\n]+)`|\*\*(?=\S)(.+?\S|\S)\*\*|(?<![\w*])\*(?=[^\s*])([^*\n]*[^\s*])\*(?![\w*])/gs;

/** Runs of text[start, end): {start, end, style} with style "code" | "strong" | "em" | "". */
export function runs(text, start, end) {
  const found = [];
  let at = start;
  const plain = (until) => {
    if (until > at) found.push({ start: at, end: until, style: "" });
  };
  for (const match of text.slice(start, end).matchAll(INLINE)) {
    const from = start + match.index;
    const [style, marks] = match[1] !== undefined ? ["code", 1] : match[2] !== undefined ? ["strong", 2] : ["em", 1];
    plain(from);
    found.push({ start: from + marks, end: from + match[0].length - marks, style });
    at = from + match[0].length;
  }
  plain(end);
  return found;
}
