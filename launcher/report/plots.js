"use strict";
// Draws the plots of a page as SVG from the JSON in its element #plots. Texts of a run are text nodes.
(() => {
  const {plots} = JSON.parse(document.getElementById("plots").textContent);
  const LEFT = 64, RIGHT = 12, TOP = 8, BOTTOM = 24;
  const ends = plots.flatMap((plot) => plot.lines.flatMap((line) => [line.x[0], line.x.at(-1)]));
  const first = Math.min(...ends);
  let last = Math.max(...ends);
  if (last === first) last += 1;
  const margin = 0.01 * (last - first);
  const whole = [first - margin, last + margin];
  let [low, high] = whole;
  const redraws = [], readouts = [];

  const digits = (value) => {
    const size = Math.abs(value);
    if (size >= 1e15 || (size > 0 && size < 1e-3)) return String(Number(value.toPrecision(3)).toExponential());
    for (const [least, factor, letter] of [[1e12, 1e12, "T"], [1e9, 1e9, "G"], [1e6, 1e6, "M"], [1e4, 1e3, "k"]])
      if (size >= least) return `${Number((value / factor).toPrecision(4))}${letter}`;
    return String(Number(value.toPrecision(4)));
  };
  const bytes = (value) => {
    const at = Math.max(0, Math.min(4, Math.floor(Math.log2(Math.abs(value) || 1) / 10)));
    return `${Number((value / 1024 ** at).toPrecision(3))} ${["B", "KiB", "MiB", "GiB", "TiB"][at]}`;
  };
  const formats = {
    number: digits, bytes, percent: (value) => `${digits(value)}%`, "per second": (value) => `${digits(value)}/s`,
    seconds: (value) => (Math.abs(value) < 1 ? `${digits(value * 1e3)} ms` : `${digits(value)} s`),
  };

  const html = (name, className = "", text = "") => {
    const made = document.createElement(name);
    made.className = className;
    made.textContent = text;
    return made;
  };
  const svg = (name, attributes = {}, text = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  };

  // About `count` round numbers from `from` to `to`; those of bytes are powers of two.
  const ticks = (from, to, count, base = 10) => {
    const power = base ** Math.floor(Math.log((to - from) / count) / Math.log(base));
    const step = power * ((base === 2 ? [1, 2] : [1, 2, 5, 10]).find((by) => power * by * count >= to - from) ?? 1);
    const found = [];
    for (let at = Math.ceil(from / step); at * step <= to; at++) found.push(at * step);
    return found;
  };
  // The index of the value of sorted `xs` that is nearest to `x`.
  const nearest = (xs, x) => {
    let start = 0, end = xs.length - 1;
    while (end - start > 1) {
      const middle = (start + end) >> 1;
      if (xs[middle] < x) start = middle; else end = middle;
    }
    return Math.abs(xs[start] - x) <= Math.abs(xs[end] - x) ? start : end;
  };
  const show = (x) => { for (const readout of readouts) readout(x); };
  const zoom = (from, to) => { [low, high] = [from, to]; for (const redraw of redraws) redraw(); };

  // An empty plot: `vertical` gives ends, ticks and their texts, `content` the elements inside.
  const frame = (place, height, vertical, content) => {
    const root = place.appendChild(svg("svg"));
    const cursor = svg("line", {class: "cursor", y1: 0, y2: height}), range = svg("rect", {class: "range", y: 0, height});
    let width, dragged = null;
    const inner = () => width - LEFT - RIGHT;
    const redraw = () => {
      width = Math.max(place.clientWidth, 160);
      root.setAttribute("viewBox", `0 0 ${width} ${height}`);
      const {from, to, at, text} = vertical();
      const x = (value) => (value - low) / (high - low) * inner();
      const y = (value) => TOP + (to - value) / (to - from) * (height - TOP - BOTTOM);
      const area = svg("svg", {x: LEFT, width: inner(), height: height - BOTTOM});
      area.append(...content(x, y), range, cursor);
      root.replaceChildren(
        ...at.flatMap((value) => [
          svg("line", {class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value)}),
          svg("text", {x: LEFT - 8, y: y(value) + 4, "text-anchor": "end"}, text(value))]),
        ...ticks(low, high, Math.max(2, inner() / 90)).flatMap((value) => [
          svg("line", {class: "grid", x1: LEFT + x(value), x2: LEFT + x(value), y1: TOP, y2: height - BOTTOM}),
          svg("text", {class: "x", x: LEFT + x(value), y: height - 6, "text-anchor": "middle"}, Number(value.toPrecision(8)))]),
        area);
    };
    const valueAt = (event) => {
      const box = root.getBoundingClientRect();
      const inside = (event.clientX - box.left) / box.width * width - LEFT;
      return low + Math.max(0, Math.min(1, inside / inner())) * (high - low);
    };
    const drag = (from, to) => {
      range.setAttribute("x", (Math.min(from, to) - low) / (high - low) * inner());
      range.setAttribute("width", Math.abs(to - from) / (high - low) * inner());
    };
    root.addEventListener("pointerdown", (event) => { dragged = valueAt(event); root.setPointerCapture(event.pointerId); });
    root.addEventListener("pointermove", (event) => {
      const value = valueAt(event);
      show(value);
      if (dragged !== null) drag(dragged, value);
    });
    root.addEventListener("pointerup", (event) => {
      const value = valueAt(event), from = dragged;
      dragged = null;
      drag(value, value);
      if (from !== null && Math.abs(value - from) > 0.01 * (high - low)) zoom(Math.min(from, value), Math.max(from, value));
      else show(value);
    });
    root.addEventListener("pointercancel", () => { dragged = null; drag(low, low); });
    // A tapped point stays shown.
    root.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") show(null); });
    root.addEventListener("dblclick", () => zoom(...whole));
    readouts.push((x) => {
      const at = x === null ? -9 : (x - low) / (high - low) * inner();
      cursor.setAttribute("x1", at);
      cursor.setAttribute("x2", at);
    });
    redraws.push(redraw);
    new ResizeObserver(() => place.clientWidth !== width && redraw()).observe(place);
  };

  // All but plain numbers are shown from zero; a gap of a line has no value.
  const curves = (place, plot) => {
    const format = formats[plot.unit], isDrawn = (line, at) => (line.y[at] ?? null) !== null;
    const key = html("ul", "key");
    place.append(html("figcaption", "", plot.title), key);
    for (const line of plot.lines) {
      const item = html("li"), swatch = html("i", line.style), value = html("b");
      swatch.style.cssText = `background: var(--c${line.color}); border-color: var(--c${line.color})`;
      item.append(swatch, `${line.name} `, value);
      key.append(item);
      readouts.push((x) => {
        const at = x === null ? line.x.length - 1 : nearest(line.x, x);
        value.textContent = isDrawn(line, at) ? format(line.y[at]) : "–";
      });
    }
    const vertical = () => {
      const seen = plot.lines.flatMap((line) => line.y.filter(
        (y, at) => y !== null && line.x[at] >= low && line.x[at] <= high));
      const ends = [...seen, ...(plot.unit === "number" && seen.length ? [] : [0])];
      let [from, to] = [Math.min(...ends), Math.max(...ends)];
      const room = (to - from) * 0.05 || Math.abs(to) * 0.05 || 1;
      [from, to] = [from - (from === 0 && plot.unit !== "number" ? 0 : room), to + room];
      return {from, to, at: ticks(from, to, 5, plot.unit === "bytes" ? 2 : 10), text: format};
    };
    frame(place, 220, vertical, (x, y) => plot.lines.flatMap((line) => {
      const style = `stroke: var(--c${line.color}); fill: var(--c${line.color})`;
      const path = line.x.map((at, n) => isDrawn(line, n)
        ? `${isDrawn(line, n - 1) ? "L" : "M"}${x(at).toFixed(1)} ${y(line.y[n]).toFixed(1)}` : "").join("");
      // A line does not show a point without a neighbour.
      const points = [...line.x.keys()].filter((n) => isDrawn(line, n) && (
        line.x.length < 60 && line.style !== "dashed" || !isDrawn(line, n - 1) && !isDrawn(line, n + 1)));
      return [svg("path", {d: path, class: `line ${line.style}`, style}),
              ...points.map((n) => svg("circle", {cx: x(line.x[n]), cy: y(line.y[n]), r: 2.5, style}))];
    }));
  };

  for (const place of document.querySelectorAll("figure[data-plot]")) curves(place, plots[Number(place.dataset.plot)]);
  for (const button of document.querySelectorAll("[data-reset]")) button.addEventListener("click", () => zoom(...whole));
  zoom(...whole);
  show(null);
})();
