(() => {
  // What a page breaks of WCAG 2.1 AA, as far as a script can see it: contrast of text, names of controls, structure, width.
  const found = [];
  const where = (e) => {
    const text = (e.textContent || "").trim().slice(0, 30);
    return e.tagName.toLowerCase() + (e.className && e.className.baseVal === undefined ? "." + e.className : "") + ` "${text}"`;
  };
  const parse = (text) => {
    const m = text.match(/rgba?\(([^)]+)\)/);
    if (!m) return null;
    const p = m[1].split(/[ ,/]+/).map(Number);
    return [p[0], p[1], p[2], p.length > 3 ? p[3] : 1];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const light = (c) => {
    const [r, g, b] = c.slice(0, 3).map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  const canvas = parse(getComputedStyle(document.body).backgroundColor);
  if (!canvas || canvas[3] !== 1) found.push("body has no background of its own");
  const behind = (e) => {
    const layers = [];
    for (let at = e; at; at = at.parentElement) {
      const c = parse(getComputedStyle(at).backgroundColor);
      if (c && c[3] > 0) { layers.push(c); if (c[3] === 1) break; }
    }
    return layers.reverse().reduce((below, top) => over(top, below), canvas || [255, 255, 255, 1]);
  };
  let checked = 0;
  const isShown = (e) => {
    const s = getComputedStyle(e), box = e.getBoundingClientRect();
    return s.visibility === "visible" && s.display !== "none" && box.width > 0 && box.height > 0 && box.right > 0;
  };
  const judge = (e, colour, ground) => {
    const s = getComputedStyle(e), size = parseFloat(s.fontSize), bold = parseInt(s.fontWeight, 10) >= 700;
    const least = size >= 24 || (bold && size >= 18.66) ? 3 : 4.5;
    const is = ratio(over(colour, ground), ground);
    checked += 1;
    if (is < least) found.push(`contrast ${is.toFixed(2)} of ${where(e)}`);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || e.closest("script, style, title, option") || !isShown(e)) continue;
    const s = getComputedStyle(e);
    if (e.closest("svg")) {
      const bar = e.classList.contains("within") && e.parentElement.querySelector("rect");
      judge(e, parse(s.fill), bar ? over(parse(getComputedStyle(bar).fill), behind(e)) : behind(e));
    } else {
      judge(e, parse(s.color), behind(e));
    }
  }
  // Bars are meaningful graphics.
  for (const bar of document.querySelectorAll("svg rect")) {
    const is = ratio(parse(getComputedStyle(bar).fill), behind(bar.closest("svg").parentElement));
    if (is < 3) found.push(`contrast ${is.toFixed(2)} of a bar .${bar.className.baseVal}`);
  }
  for (const e of document.querySelectorAll("input, select, textarea, main button")) {
    const edge = parse(getComputedStyle(e).borderTopColor), is = ratio(over(edge, behind(e.parentElement)), behind(e.parentElement));
    if (isShown(e) && is < 3) found.push(`contrast ${is.toFixed(2)} of the edge of ${where(e)}`);
  }
  for (const e of document.querySelectorAll("input, select, textarea")) {
    checked += 1;
    const name = e.getAttribute("aria-label") || [...(e.labels || [])].map((l) => l.textContent.trim()).join(" ");
    if (!name.trim()) found.push(`no label for ${where(e)} name=${e.name}`);
  }
  for (const e of document.querySelectorAll("a[href], button, summary")) {
    const name = (e.getAttribute("aria-label") || e.textContent || e.title || "").trim();
    if (!name) found.push(`no name for ${e.outerHTML.slice(0, 80)}`);
  }
  for (const e of document.querySelectorAll("img")) if (!e.alt) found.push("an image without text");
  for (const e of document.querySelectorAll("svg")) if (!e.getAttribute("aria-label")) found.push("a drawing without text");
  for (const e of document.querySelectorAll("th")) if (!e.scope) found.push(`no scope for ${where(e)}`);
  for (const e of document.querySelectorAll("nav")) if (!e.getAttribute("aria-label")) found.push("a nav without a name");
  for (const e of document.querySelectorAll("[tabindex]")) if (e.tabIndex > 0) found.push(`tabindex of ${where(e)}`);
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  ids.filter((id, at) => ids.indexOf(id) !== at).forEach((id) => found.push(`id ${id} is there twice`));
  if (document.documentElement.lang !== "en") found.push("no language");
  if (document.querySelectorAll("h1").length !== 1) found.push(`${document.querySelectorAll("h1").length} h1`);
  if (document.querySelectorAll("main").length !== 1) found.push("no main");
  if (!document.title) found.push("no title");
  let level = 1;
  for (const e of document.querySelectorAll("main h1, main h2, main h3, main h4")) {
    const is = Number(e.tagName[1]);
    if (is > level + 1) found.push(`${e.tagName} after h${level}: ${where(e)}`);
    level = is;
  }
  const wide = document.documentElement.scrollWidth - window.innerWidth;
  if (wide > 0) {
    const past = [...document.body.querySelectorAll("*")].filter((e) => !e.closest(".wide, pre, svg") && e.getBoundingClientRect().right > window.innerWidth + 1);
    found.push(`${wide} px too wide: ${past.slice(0, 3).map(where).join("; ")}`);
  }
  return { found: [...new Set(found)], checked };
})()
