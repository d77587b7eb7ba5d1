// Charts as SVG: axes with labels, then lines or bars. They are drawn in pixels of the width there
// is, so that their text is never scaled. Colours and dashes are those of the classes in style.css.
// Each chart is one image to a screen reader, whose label states what it shows.
const CHART_MARGIN = { left: 56, right: 16, top: 8, bottom: 40 };

// An SVG element: drawn("line", { x1: 0, … }), drawn("text", { x: 3, y: 4 }, "its text").
function drawn(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// Calls draw() now and whenever the element's width has changed.
function drawToFit(element, draw) {
  let width;
  new ResizeObserver(() => {
    if (element.clientWidth !== width) draw();
    width = element.clientWidth;
  }).observe(element);
  draw();
}

// Lines of points [x, y], with a dot on each if they have `dots`, over two axes { label, min, max,
// log }. levels are horizontal lines { at, name, class }, marks are short ones at [x, y]; cursor is
// a vertical line.
function lineChart(svg, { label, x, y, lines, levels = [], marks = [], cursor, height = 300 }) {
  const { X, Y, box } = drawAxes(svg, { label, x, y, height });
  let named = -Infinity; // where the last name of a level stands
  for (const level of levels) {
    const at = Y(level.at);
    svg.append(drawn("line", { class: level.class, x1: box.left, x2: box.right, y1: at, y2: at }));
    if (Math.abs(at - named) < 14) continue;
    named = at;
    const place = { class: "note", x: box.right - 4, y: at - 4, "text-anchor": "end" };
    svg.append(drawn("text", place, level.name));
  }
  for (const [a, b] of marks) {
    const [x1, x2] = [X(a) - 12, X(a) + 12];
    svg.append(drawn("line", { class: "mark", x1, x2, y1: Y(b), y2: Y(b) }));
  }
  for (const line of lines) {
    const places = line.points.map(([a, b]) => [X(a).toFixed(1), Y(b).toFixed(1)]);
    svg.append(drawn("polyline", { class: `line ${line.class}`, points: places.join(" ") }));
    if (!line.dots) continue;
    for (const [cx, cy] of places) {
      svg.append(drawn("circle", { class: `dot ${line.class}`, cx, cy, r: 4.5 }));
    }
  }
  if (cursor !== undefined) {
    const at = X(cursor);
    svg.append(drawn("line", { class: "cursor", x1: at, x2: at, y1: box.top, y2: box.bottom }));
  }
}

// Groups of upright bars, a group for each of `names`; series are { class, values }.
function barChart(svg, { label, x, y, names, series, height = 240 }) {
  const across = { ...x, min: 0, max: names.length, ticks: [] };
  const { X, Y, box } = drawAxes(svg, { label, x: across, y, height });
  const width = ((X(1) - X(0)) * 0.8) / series.length;
  names.forEach((name, i) => {
    series.forEach(({ class: kind, values }, j) => {
      const left = X(i + 0.1) + j * width;
      const top = Y(values[i] ?? 0);
      const size = { width: Math.max(width - 1, 1), height: Math.max(box.bottom - top, 0) };
      svg.append(drawn("rect", { class: `bar ${kind}`, x: left, y: top, ...size }));
    });
    const place = { x: X(i + 0.5), y: box.bottom + 16, "text-anchor": "middle" };
    svg.append(drawn("text", place, name));
  });
}

// Lying bars, one below the other, each of parts { class, value } under its name and text.
function stackedBars(svg, { label, rows, max }) {
  const [bar, step] = [22, 52];
  const { width } = prepareChart(svg, label, rows.length * step);
  rows.forEach((row, i) => {
    const top = i * step + 20;
    svg.append(drawn("text", { x: 0, y: top - 6 }, `${row.name}: ${row.text}`));
    let left = 0;
    for (const part of row.parts) {
      const size = { width: (part.value / max) * width, height: bar };
      svg.append(drawn("rect", { class: `bar ${part.class}`, x: left, y: top, ...size }));
      left += size.width;
    }
  });
}

function chartWidth(svg) {
  return Math.max(svg.clientWidth, 240);
}

function prepareChart(svg, label, height) {
  const width = chartWidth(svg);
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  svg.classList.add("chart");
  return { width, height };
}

// The frame of a chart; X and Y turn values into pixels.
function drawAxes(svg, { label, x, y, height }) {
  const { width } = prepareChart(svg, label, height);
  const { left, top } = CHART_MARGIN;
  const box = {
    left,
    top,
    right: width - CHART_MARGIN.right,
    bottom: height - CHART_MARGIN.bottom,
  };
  const X = axisScale(x, box.left, box.right);
  const Y = axisScale(y, box.bottom, box.top);
  for (const tick of axisTicks(y, 5)) {
    const at = Y(tick);
    svg.append(drawn("line", { class: "grid", x1: box.left, x2: box.right, y1: at, y2: at }));
    svg.append(
      drawn("text", { x: box.left - 6, y: at + 4, "text-anchor": "end" }, tickText(y, tick)),
    );
  }
  for (const tick of axisTicks(x, 6)) {
    const place = { x: X(tick), y: box.bottom + 16, "text-anchor": "middle" };
    svg.append(drawn("text", place, tickText(x, tick)));
  }
  const below = { x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle" };
  svg.append(drawn("text", below, x.label));
  const middle = (box.top + box.bottom) / 2;
  const beside = { transform: `translate(12 ${middle}) rotate(-90)`, "text-anchor": "middle" };
  svg.append(drawn("text", beside, y.label));
  return { X, Y, box };
}

// A value outside the axis is drawn at its end.
function axisScale({ min, max, log }, from, to) {
  const place = log ? Math.log10 : (value) => value;
  return (value) => {
    const inside = Math.min(Math.max(value, min), max);
    return from + ((place(inside) - place(min)) / (place(max) - place(min))) * (to - from);
  };
}

// About so many round values: powers of ten, or multiples of 1, 2 or 5 times one.
function axisTicks({ min, max, log, ticks: given }, about) {
  if (given) return given;
  const low = log ? Math.ceil(Math.log10(min) - 1e-9) : min;
  const high = log ? Math.floor(Math.log10(max) + 1e-9) : max;
  const step = log ? Math.max(1, Math.ceil((high - low) / about)) : roundStep((high - low) / about);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9; i++) found.push(i * step);
  return log ? found.map((power) => 10 ** power) : found;
}

function roundStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least * 0.999);
}

function tickText({ log }, value) {
  return log ? powerOfTen(Math.round(Math.log10(value))) : String(Number(value.toPrecision(6)));
}
