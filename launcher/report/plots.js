"use strict";
// Draws the plots of a page from the JSON in its element #plots, with BokehJS. Names and texts of
// a run reach the page as text nodes only: Bokeh would render text between $$ by a script that it
// loads from the network.
(() => {
  const {axis, plots, marks} = JSON.parse(document.getElementById("plots").textContent);
  const root = document.documentElement;
  const isTouch = matchMedia("(pointer: coarse)").matches;
  const color = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  const [low, high] = [axis.low, axis.high].map(
    (end, at) => end + (at ? 0.01 : -0.01) * (axis.high - axis.low));
  const range = new Bokeh.Range1d({start: low, end: high, bounds: [low, high]});
  const cursor = new Bokeh.Span({dimension: "height", line_dash: "dotted", line_alpha: 0.7});
  Bokeh.set_log_level("error");
  const restyles = [];
  const readouts = [];

  const digits = (value) => {
    const size = Math.abs(value);
    if (size >= 1e15 || (size > 0 && size < 1e-3)) return value.toExponential(2);
    for (const [factor, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]])
      if (size >= factor)
        return `${Number((value / (letter === "k" ? 1e3 : factor)).toPrecision(4))}${letter}`;
    return String(Number(value.toPrecision(4)));
  };
  const bytes = (value) => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let at = 0;
    while (Math.abs(value) >= 1024 && at < 4) (value /= 1024), at++;
    return `${Number(value.toPrecision(3))} ${units[at]}`;
  };
  const seconds = (value) => (Math.abs(value) < 1 ? `${digits(value * 1e3)} ms` : `${digits(value)} s`);
  const formats = {
    number: digits, bytes, seconds, percent: (value) => `${digits(value)}%`,
    "per second": (value) => `${digits(value)}/s`,
  };

  const element = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  // Bytes have ticks at powers of two; all but plain numbers are shown from zero.
  const ticks = (made, unit) => {
    const [axisLeft] = made.left;
    axisLeft.ticker.desired_num_ticks = 5;
    axisLeft.formatter = {
      number: () => new Bokeh.BasicTickFormatter({power_limit_low: -5}),
      bytes: () => new Bokeh.NumeralTickFormatter({format: "0.[0] ib"}),
      seconds: () => new Bokeh.BasicTickFormatter({power_limit_low: -5}),
      percent: () => new Bokeh.PrintfTickFormatter({format: "%g%%"}),
      "per second": () => new Bokeh.NumeralTickFormatter({format: "0.[0]a"}),
    }[unit]();
    if (unit === "bytes") {
      const mantissas = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];
      axisLeft.ticker = new Bokeh.AdaptiveTicker({base: 1024, mantissas, desired_num_ticks: 5});
      made.ygrid.ticker = axisLeft.ticker;
    }
  };

  const base = (height, more = {}) => {
    const tools = [new Bokeh.CrosshairTool({overlay: cursor})];
    const zoom = new Bokeh.BoxZoomTool({dimensions: "width"});
    const pinch = new Bokeh.WheelZoomTool({dimensions: "width"});
    tools.push(isTouch ? pinch : zoom);
    const made = Bokeh.Plotting.figure({
      height, sizing_mode: "stretch_width", x_range: range, tools, toolbar_location: null,
      min_border_left: 60, min_border_right: 14, outline_line_color: null, background_fill_alpha: 0,
      border_fill_alpha: 0, ...more,
    });
    made.toolbar.active_drag = isTouch ? null : zoom;
    made.toolbar.active_scroll = isTouch ? pinch : null;
    restyles.push(() => {
      for (const side of [...made.below, ...made.left]) side.setv({
        axis_line_color: color("grid"), major_tick_line_color: color("grid"),
        minor_tick_line_color: null, major_label_text_color: color("tick"),
        major_label_text_font: "system-ui, sans-serif", major_label_text_font_size: "11px",
      });
      for (const grid of made.center) grid.setv({grid_line_color: color("grid")});
    });
    return made;
  };

  // Where the cursor is: each plot shows its values there; null: outside of all plots.
  const follow = (made) => {
    made.on_event("mousemove", (event) => show(event.x));
    made.on_event("tap", (event) => show(event.x));
    made.on_event("mouseleave", () => show(null));
    made.on_event("doubletap", reset);
  };
  const show = (x) => { for (const readout of readouts) readout(x); };
  const reset = () => { range.setv({start: low, end: high}); };

  // The index of the value of sorted `xs` that is nearest to `x`.
  const nearest = (xs, x) => {
    let low = 0, high = xs.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (xs[middle] < x) low = middle; else high = middle;
    }
    return Math.abs(xs[low] - x) <= Math.abs(xs[high] - x) ? low : high;
  };

  const curves = (place, plot) => {
    const fromZero = plot.unit === "number" ? {} : {y_range: new Bokeh.DataRange1d({start: 0})};
    const made = base(220, fromZero);
    const format = formats[plot.unit];
    ticks(made, plot.unit);
    const key = element("ul", "key");
    place.append(element("figcaption", "", plot.title), key);
    for (const line of plot.lines) {
      const source = new Bokeh.ColumnDataSource({
        data: {x: line.x, y: line.y.map((y) => (y === null ? NaN : y))},
      });
      const columns = [{field: "x"}, {field: "y"}];
      const dash = {dashed: [6, 4], dotted: [2, 3]}[line.style] ?? [];
      const glyph = made.line(...columns, {source, line_width: line.style ? 1.5 : 2,
                                           line_dash: dash}).glyph;
      // A line does not show a point without a neighbour.
      const isDrawn = (at) => (line.y[at] ?? null) !== null;
      const marked = [...line.x.keys()].filter((at) => isDrawn(at) && (
        line.x.length < 60 && line.style !== "dashed" || !isDrawn(at - 1) && !isDrawn(at + 1)));
      const data = {x: marked.map((at) => line.x[at]), y: marked.map((at) => line.y[at])};
      const points = marked.length ? made.scatter(...columns, {
        source: new Bokeh.ColumnDataSource({data}), size: line.x.length < 2 ? 8 : 5,
        line_color: null,
      }).glyph : null;
      const swatch = element("i", line.style);
      const value = element("b");
      const item = element("li");
      item.append(swatch, `${line.name} `, value);
      key.append(item);
      swatch.style.cssText = `background: var(--c${line.color}); border-color: var(--c${line.color})`;
      restyles.push(() => {
        glyph.line_color = color(`c${line.color}`);
        if (points) points.fill_color = color(`c${line.color}`);
      });
      readouts.push((x) => {
        const at = x === null ? line.x.length - 1 : nearest(line.x, x);
        const y = line.y[at];
        value.textContent = y === null || y === undefined ? "–" : format(y);
      });
    }
    follow(made);
    return made;
  };

  // The events in a row for each kind, and those nearest to the cursor as text.
  const events = (place) => {
    const lanes = [...new Set(marks.map((mark) => mark.lane))];
    const made = base(54 + 24 * lanes.length, {y_range: lanes.toReversed()});
    const data = {x: marks.map((mark) => mark.x), y: marks.map((mark) => mark.lane)};
    const source = new Bokeh.ColumnDataSource({data: {...data, fill: []}});
    const fields = {size: 9, line_color: null, fill_color: {field: "fill"}};
    made.scatter({field: "x"}, {field: "y"}, {source, ...fields});
    restyles.push(() => {
      source.data = {...data, fill: marks.map((mark) => color(`c${mark.color}`))};
    });
    const places = [...new Set(marks.map((mark) => mark.x))].sort((a, b) => a - b);
    const list = element("ul", "key events");
    place.append(element("figcaption", "", "Events"), list);
    readouts.push((x) => {
      const at = places[x === null ? places.length - 1 : nearest(places, x)];
      const lines = marks.filter((mark) => mark.x === at).map((mark) => {
        const item = element("li");
        item.append(`${axis.label} ${at}: `, element("b", "", mark.text));
        return item;
      });
      list.replaceChildren(...lines);
    });
    follow(made);
    return made;
  };

  const draw = () => {
    for (const place of document.querySelectorAll("figure[data-plot]"))
      shown.push([curves(place, plots[Number(place.dataset.plot)]), place]);
    for (const place of document.querySelectorAll("figure[data-marks]"))
      shown.push([events(place), place]);
    restyle();
    const drawn = new Bokeh.Document(); // one, as the plots share their x axis
    for (const [made] of shown) drawn.add_root(made);
    Bokeh.embed.add_document_standalone(drawn, document.body, shown.map(([, place]) => place));
    show(null);
  };
  const shown = [];
  const restyle = () => { for (const one of restyles) one(); };
  const onPaper = (is) => { root.classList.toggle("paper", is); restyle(); };
  addEventListener("beforeprint", () => onPaper(true));
  addEventListener("afterprint", () => onPaper(false));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
  for (const button of document.querySelectorAll("[data-reset]"))
    button.addEventListener("click", reset);
  draw();
})();
