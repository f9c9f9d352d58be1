// Every element with text of its own whose colour stands out too little from what is painted behind it, by the
// WCAG 2 formula: {bad: [sentence], seen: number of elements}.
(least) => {
  const parse = (colour) => {
    const found = colour.match(/[\d.]+/g).map(Number);
    const scale = colour.startsWith("color(") ? 255 : 1;
    return [...found.slice(0, 3).map((channel) => channel * scale), found[3] ?? 1];
  };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3]));
  const behind = (node) => {
    const layers = [];
    for (let at = node; at instanceof Element; at = at.parentElement)
      layers.push(parse(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
  };
  const ofArc = (node) => parse(getComputedStyle(node.previousElementSibling).stroke).slice(0, 3);
  const light = (colour) =>
    colour
      .map((channel) => channel / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
      .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const bad = [];
  let seen = 0;
  for (const node of document.body.querySelectorAll("*")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim() !== "");
    if (!own || !node.checkVisibility() || node.closest(".unseen, noscript, title")) continue;
    seen += 1;
    const style = getComputedStyle(node);
    const under = node.matches(".station-number") ? ofArc(node) : behind(node);
    const front = over(parse(node instanceof SVGElement ? style.fill : style.color), under);
    const [low, high] = [light(front), light(under)].sort((one, other) => one - other);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < least) bad.push(`${node.tagName} "${node.textContent.slice(0, 30)}" ${ratio.toFixed(2)}`);
  }
  return { bad, seen };
}
