// Draws an explanation (page.py). No library, no request: everything that is
// shown is in the JSON block of the page. `state` is what the visitor chose;
// `update` changes it and draws the parts that depend on what changed.
"use strict";

const MIDDLE = 0.75; // of a scale: from here on cells have light text
const FAR = 0.25; // of the box: the end of the scale of how far joints are
const HEAT = [
  [13, 8, 60],
  [106, 23, 130],
  [200, 58, 90],
  [248, 148, 40],
  [252, 250, 160],
];
const THUMB = 144; // pixels: the width of small pictures
const COLD = [40, 110, 235],
  WARM = [235, 95, 20];

let data; // of the page, its arrays unpacked
const state = {
  layer: 0,
  view: 0,
  joint: 0,
  show: "attention",
  opacity: 0.75,
  smooth: false,
  skeleton: "end",
  place: -1,
  measure: "moved",
  likeness: "inner",
  ofHeads: "distance",
};

// ---------------------------------------------------------------- arrays

async function inflated(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes])
    .stream()
    .pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

/** Replaces every packed array within, and maps by functions of an index. */
async function unpacked(value) {
  if (Array.isArray(value) || value === null || typeof value !== "object") {
    return value;
  }
  if (value.kind && value.data !== undefined) {
    const types = { u1: Uint8Array, u2: Uint16Array, f4: Float32Array };
    const values = new types[value.kind](await inflated(value.data));
    return { shape: value.shape, values };
  }
  const names = Object.keys(value);
  const parts = await Promise.all(names.map((name) => unpacked(value[name])));
  const made = Object.fromEntries(names.map((name, i) => [name, parts[i]]));
  return made.levels ? mapsOf(made) : made;
}

/** Maps of 8 bits: `maps(i)` are the values of the i-th. */
function mapsOf({ levels, low, step }) {
  const size = levels.shape[levels.shape.length - 1];
  return (i) =>
    Float32Array.from(
      levels.values.subarray(i * size, (i + 1) * size),
      (level) => low.values[i] + level * step.values[i],
    );
}

const keypoints = () => data.names.length;
const pointOf = (points, i) => [points.values[2 * i], points.values[2 * i + 1]];
const lastLayer = () => data.layers.length - 1;
/** The index of (layer, view, joint) in the arrays of attention. */
const attentionIndex = (layer, view, joint) =>
  (layer * data.views.length + view) * keypoints() + joint;
const joints = () => data.names.map((_, i) => i);
const isCovered = () => state.place >= 0;
const placeIndex = (joint) => state.place * keypoints() + joint;

function endOf(joint) {
  return pointOf(data.points, lastLayer() * keypoints() + joint);
}

const scoreOf = (joint) =>
  data.scores.values[lastLayer() * keypoints() + joint];

function atLayer(layer, joint) {
  return pointOf(data.points, layer * keypoints() + joint);
}

function afterCover(joint) {
  return pointOf(data.places.points, placeIndex(joint));
}

function distance([x, y], [u, v]) {
  return Math.hypot(x - u, y - v);
}

function patchMiddle(i) {
  const [rows, columns] = data.grid,
    [height, width] = data.size;
  return [
    (((i % columns) + 0.5) * width) / columns - 0.5,
    ((Math.floor(i / columns) + 0.5) * height) / rows - 0.5,
  ];
}

function inPatches([x, y], [u, v]) {
  const [rows, columns] = data.grid,
    [height, width] = data.size;
  return Math.hypot(((x - u) * columns) / width, ((y - v) * rows) / height);
}

/** What is shown of the chosen joint's attention, covered or not. */
function attentionShown() {
  const source = isCovered() ? data.places.attention : data.attention;
  const i = isCovered()
    ? placeIndex(state.joint)
    : attentionIndex(state.layer, state.view, state.joint);
  return {
    patches: source.patches(i),
    keypoints: source.keypoints(i),
    peak: source.peaks.values[i],
    onImage: source.onImage.values[i],
  };
}

/** (joint, place) -> movement over the box, or loss of score. */
function sensitivity(joint, place) {
  const i = place * keypoints() + joint;
  if (state.measure === "lost") {
    return scoreOf(joint) - data.places.scores.values[i];
  }
  return distance(pointOf(data.places.points, i), endOf(joint)) / data.boxSide;
}

function placeCount() {
  return data.places.scores.shape[0];
}

function sensitivityMap(joint) {
  return Float32Array.from({ length: placeCount() }, (_, place) =>
    sensitivity(joint, place),
  );
}

// ---------------------------------------------------------------- words

const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)} %`;
/** Without 0 before the point, for narrow cells. */
const short = (value) =>
  (Math.round(100 * value) / 100 || 0).toFixed(2).replace("0.", ".");
const signed = (value, digits) =>
  (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);

function viewName(view) {
  const name = data.views[view];
  if (name === "mean") return "mean of the heads";
  return name === "rollout" ? "rollout" : `head ${name}`;
}

function whereShown() {
  return `layer ${data.layers[state.layer]}, ${viewName(state.view)}`;
}

// ---------------------------------------------------------------- elements

const byId = (id) => document.getElementById(id);

/** A new element in a parent: attributes, and text. */
function add(parent, name, attributes = {}, text = "") {
  const made = document.createElementNS(parent.namespaceURI, name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  if (text !== "") made.textContent = text;
  parent.append(made);
  return made;
}

/** A table of numbers with names, whose cells are colored and can be chosen.
 *
 * `read(row, column)` is a cell's sentence; `pick` what a click does.
 */
function makeMatrix(id, rows, columns, read, pick) {
  const table = byId(id);
  table.classList.toggle("dense", columns.length > 26);
  const head = add(add(table, "thead"), "tr");
  add(head, "td");
  for (const name of columns) {
    add(add(head, "th", { scope: "col" }), "span", {}, name);
  }
  const body = add(table, "tbody");
  const cells = rows.map((name) => {
    const row = add(body, "tr");
    add(row, "th", { scope: "row", title: name }, name);
    return columns.map(() => add(row, "td"));
  });
  const at = (event) => {
    const cell = event.target.closest("tbody td");
    return cell && [cell.parentNode.sectionRowIndex, cell.cellIndex - 1];
  };
  table.addEventListener("pointerover", (event) => {
    const found = at(event);
    if (found) byId(`${id}-readout`).textContent = read(...found);
  });
  table.addEventListener("click", (event) => {
    const row = event.target.closest("tbody tr");
    if (row && pick) pick(row.sectionRowIndex, (at(event) || [])[1]);
  });
  return { table, cells };
}

/** Colors and texts of a matrix: values (row, column), the scale's end. */
function drawMatrix(matrix, value, end, text, mark = () => false) {
  const { table, cells } = matrix;
  cells.forEach((row, r) =>
    row.forEach((cell, c) => {
      const number = value(r, c);
      const share = Math.min(1, Math.abs(number) / (end || 1));
      const color = number < 0 ? "--accent" : "--warm";
      cell.style.background = `rgba(var(${color}), ${(0.08 + 0.92 * share).toFixed(3)})`;
      cell.style.color = share > MIDDLE ? "var(--card)" : "inherit";
      cell.textContent = text(number, r, c);
      cell.classList.toggle("mark", mark(r, c));
    }),
  );
  markRow(matrix, state.joint);
}

const matrices = {}; // by the ids of their tables

function markRow({ table }, chosen) {
  [...table.tBodies[0].rows].forEach((row, r) => {
    row.classList.toggle("chosen", r === chosen);
  });
}

function markColumn({ table }, column) {
  [...table.tHead.rows[0].cells].forEach((cell, c) => {
    cell.classList.toggle("chosen", c === column + 1);
  });
}

// ---------------------------------------------------------------- pixels

function heatColor(share) {
  const at = Math.max(0, Math.min(1, share)) * (HEAT.length - 1);
  const i = Math.min(HEAT.length - 2, Math.floor(at));
  return HEAT[i].map((from, c) => from + (at - i) * (HEAT[i + 1][c] - from));
}

/** Fills a canvas of one pixel a value; both signs: cold and warm. */
function paint(canvas, rows, columns, values, end, isSigned = false) {
  canvas.width = columns;
  canvas.height = rows;
  const image = new ImageData(columns, rows);
  values.forEach((value, i) => {
    const share = Math.max(-1, Math.min(1, value / (end || 1)));
    const color = isSigned ? (share < 0 ? COLD : WARM) : heatColor(share);
    const shown = isSigned ? Math.abs(share) : Math.sqrt(Math.max(0, share));
    image.data.set([...color, 255 * shown], 4 * i);
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function scaleColors(isSigned) {
  const css = (color) => `rgb(${color.map(Math.round).join(",")})`;
  if (isSigned) return [css(COLD), "transparent", css(WARM)];
  return [0, 0.25, 0.5, 0.75, 1].map((at) => css(heatColor(at)));
}

const largest = (values) => values.reduce((a, b) => Math.max(a, b), 0);
const largestSize = (values) =>
  values.reduce((a, b) => Math.max(a, Math.abs(b)), 0);

// Where a heatmap lies on the crop (codec.py): pixel centers, not edges.
function heatmapBox() {
  const [height, width] = data.size,
    [h, w] = data.heatSize;
  const ratio = (w - 1) / (width - 1);
  const left = -0.5 / ratio + 0.5;
  const top = height / 2 - h / ratio / 2;
  return [left / width, top / height, w / ratio / width, h / ratio / height];
}

// ---------------------------------------------------------------- stage

/** What the overlay shows: size, values, the end of its scale, its words. */
function overlayShown() {
  const [rows, columns] = data.grid;
  const attention = attentionShown();
  const heat = (values) => ({
    rows: data.heatSize[0],
    columns: data.heatSize[1],
    box: heatmapBox(),
    values,
    end: largest(values),
    low: "0",
    high: largest(values).toFixed(2) + (isCovered() ? " (not covered)" : ""),
  });
  const places = () => ({
    rows: data.places.rows,
    columns: placeCount() / data.places.rows,
    values: sensitivityMap(state.joint),
    end: sensitivityEnd(),
    low: "0",
    high:
      state.measure === "lost"
        ? `${sensitivityEnd().toFixed(2)} of score`
        : `${percent(sensitivityEnd())} of the box`,
  });
  if (state.show === "heatmap") {
    return heat(data.heatmaps(state.layer * keypoints() + state.joint));
  }
  if (state.show === "covered") return places();
  if (state.show === "none") return null;
  if (state.show === "change" && isCovered()) {
    const before = data.attention.patches(
      attentionIndex(lastLayer(), data.views.indexOf("mean"), state.joint),
    );
    const values = attention.patches.map((value, i) => value - before[i]);
    const end = largestSize(values);
    return {
      rows,
      columns,
      values,
      end,
      isSigned: true,
      low: `−${percent(end)}`,
      high: `+${percent(end)}`,
    };
  }
  const end = largest(attention.patches);
  return {
    rows,
    columns,
    values: attention.patches,
    end,
    low: "0",
    high: `${percent(end, 2)} of attention`,
  };
}

function drawOverlay() {
  const canvas = byId("overlay"),
    shown = overlayShown();
  canvas.hidden = !shown;
  const dimmed = shown ? state.opacity : 0;
  byId("picture").style.filter =
    `grayscale(${0.8 * dimmed}) brightness(${1 - 0.5 * dimmed})`;
  byId("scale").parentNode.style.visibility = shown ? "visible" : "hidden";
  if (!shown) return;
  paint(
    canvas,
    shown.rows,
    shown.columns,
    shown.values,
    shown.end,
    shown.isSigned,
  );
  const box = shown.box || [0, 0, 1, 1];
  ["left", "top", "width", "height"].forEach((side, i) => {
    canvas.style[side] = `${100 * box[i]}%`;
  });
  canvas.style.opacity = state.opacity;
  canvas.style.imageRendering = state.smooth ? "auto" : "pixelated";
  byId("scale-low").textContent = shown.low;
  byId("scale-high").textContent = shown.high;
  byId("scale").style.background =
    `linear-gradient(90deg, ${scaleColors(shown.isSigned).join(",")})`;
}

/** Attributes of a line, its width in 1/256 of the crop's height. */
function pen(stroke, width, more = {}) {
  return {
    stroke,
    "stroke-width": width * unit(),
    fill: "none",
    "stroke-linecap": "round",
    ...more,
  };
}

const unit = () => data.size[0] / 256;
const dashes = (on, off) => ({
  "stroke-dasharray": `${on * unit()} ${off * unit()}`,
});
const lineTo = ([x, y], [u, v]) => `M${x} ${y}L${u} ${v}`;

/** Lines and joints at places. */
function drawSkeleton(layer, place) {
  for (const [a, b] of data.limbs) {
    const d = lineTo(place(a), place(b));
    add(layer, "path", { d, ...pen("#000", 3, { opacity: 0.45 }) });
    add(layer, "path", { d, ...pen(`rgb(${data.colors[a]})`, 1.6) });
  }
  for (const joint of joints()) {
    const isChosen = joint === state.joint;
    const edge = isChosen ? pen("#fff", 1.6) : pen("#000", 0.8);
    const fill = `rgb(${data.colors[joint]})`;
    drawJoint(layer, place(joint), isChosen ? 4.2 : 2.6, { ...edge, fill });
  }
}

/** The same before something was covered. */
function drawOutline(layer, place) {
  for (const [a, b] of data.limbs) {
    const d = lineTo(place(a), place(b));
    add(layer, "path", { d, ...pen("#fff", 1, dashes(3, 2)) });
  }
  for (const joint of joints()) {
    const size = joint === state.joint ? 4.2 : 2.6;
    drawJoint(layer, place(joint), size, pen("#fff", 1));
  }
}

function drawJoint(layer, [cx, cy], size, attributes) {
  add(layer, "circle", { cx, cy, r: size * unit(), ...attributes });
}

/** Where the chosen joint was at each layer. */
function drawPath(layer) {
  const places = data.layers.map((_, i) => atLayer(i, state.joint));
  add(layer, "polyline", { points: places.join(" "), ...pen("#fff", 1) });
  const edge = pen("#000", 0.8, { fill: "#fff" });
  drawJoint(layer, places[state.layer], 2, edge);
}

/** A cross on a patch, and a line from there to the joint. */
function drawPeak(layer, peak) {
  const [x, y] = patchMiddle(peak),
    r = 5 * unit();
  const joint = isCovered() ? afterCover(state.joint) : endOf(state.joint);
  const line = pen("#fff", 1, dashes(2, 2));
  add(layer, "path", { d: lineTo([x, y], joint), ...line });
  const d =
    lineTo([x - r, y - r], [x + r, y + r]) +
    lineTo([x - r, y + r], [x + r, y - r]);
  add(layer, "path", { d, ...pen("#000", 3.6) });
  add(layer, "path", { d, ...pen("#fff", 1.8) });
}

function drawStage() {
  const layer = byId("figures");
  layer.replaceChildren();
  if (isCovered()) {
    drawOutline(layer, endOf);
    drawSkeleton(layer, afterCover);
  } else if (state.skeleton === "end") drawSkeleton(layer, endOf);
  else if (state.skeleton === "layer") {
    drawSkeleton(layer, (joint) => atLayer(state.layer, joint));
  }
  if (state.show === "heatmap") drawPath(layer);
  if (["attention", "change"].includes(state.show)) {
    drawPeak(layer, attentionShown().peak);
  }
  drawOccluder();
  drawOverlay();
  say();
}

function drawOccluder() {
  const square = byId("occluder");
  square.style.display = isCovered() ? "" : "none";
  if (!isCovered()) return;
  const [x, y] = pointOf(data.places.centers, state.place);
  const side = data.places.side;
  for (const [key, value] of Object.entries({
    x: x - side / 2,
    y: y - side / 2,
    width: side,
    height: side,
  }))
    square.setAttribute(key, value);
}

function say() {
  const { peak, onImage } = attentionShown(),
    joint = data.names[state.joint];
  const where = isCovered()
    ? "last layer, mean of heads, covered"
    : whereShown();
  const at = isCovered() ? afterCover(state.joint) : endOf(state.joint);
  const away = inPatches(patchMiddle(peak), at);
  let text =
    `${joint}; ${where}. The attention's peak (cross) is` +
    ` ${away.toFixed(1)} patches from the joint. ${percent(onImage, 0)} of` +
    ` the attention goes to the image, ${percent(1 - onImage, 0)} to` +
    " keypoints.";
  if (isCovered()) {
    const moved = distance(at, endOf(state.joint)) / data.boxSide;
    text += ` With the square it moves by ${percent(moved)} of the box.`;
  }
  byId("say").textContent = text;
  byId("drawing").setAttribute("aria-label", `Predicted skeleton. ${text}`);
}

// ---------------------------------------------------------------- look

function drawCharts() {
  const i = (layer) => attentionIndex(layer, state.view, state.joint);
  const end = endOf(state.joint);
  chart(
    "distance",
    data.layers.map((_, layer) =>
      inPatches(patchMiddle(data.attention.peaks.values[i(layer)]), end),
    ),
    0,
  );
  chart(
    "share",
    data.layers.map(
      (_, layer) => 100 * data.attention.onImage.values[i(layer)],
    ),
    100,
  );
}

/** A line over the layers; a click on one goes there. */
function chart(id, values, most) {
  const svg = byId(id),
    width = 330,
    height = 130,
    left = 34,
    bottom = 22;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute(
    "aria-label",
    `${data.names[state.joint]}, by layer: ` +
      values.map((value) => value.toFixed(1)).join(", "),
  );
  svg.replaceChildren();
  const end = most || Math.max(1, Math.ceil(largest(values)));
  const step = (width - left - 8) / values.length;
  const x = (layer) => left + (layer + 0.5) * step;
  const y = (value) => height - bottom - (value / end) * (height - bottom - 10);
  for (const value of [0, end / 2, end]) {
    add(svg, "line", {
      class: "axis",
      x1: left,
      x2: width - 8,
      y1: y(value),
      y2: y(value),
    });
    add(
      svg,
      "text",
      { x: left - 5, y: y(value) + 4, "text-anchor": "end" },
      String(value),
    );
  }
  const every = Math.ceil(values.length / 12);
  data.layers.forEach((name, layer) => {
    if (layer % every === 0) {
      add(
        svg,
        "text",
        { x: x(layer), y: height - 6, "text-anchor": "middle" },
        name,
      );
    }
  });
  add(svg, "polyline", {
    points: values.map((v, i) => [x(i), y(v)]).join(" "),
  });
  add(svg, "circle", {
    class: "now",
    cx: x(state.layer),
    cy: y(values[state.layer]),
    r: 5,
  });
  values.forEach((value, layer) => {
    const area = add(svg, "rect", {
      x: x(layer) - step / 2,
      y: 0,
      width: step,
      height: height - bottom,
    });
    add(area, "title", {}, `layer ${data.layers[layer]}: ${value.toFixed(1)}`);
    area.addEventListener("click", () => update({ layer }));
  });
}

/** Peak to joint in patches, or the share of the image, of the chosen joint. */
function ofHead(view, layer) {
  const i = attentionIndex(layer, view, state.joint);
  if (state.ofHeads === "share") return data.attention.onImage.values[i];
  const peak = patchMiddle(data.attention.peaks.values[i]);
  return inPatches(peak, endOf(state.joint));
}

function headText(value) {
  return state.ofHeads === "share"
    ? (100 * value).toFixed(0)
    : value.toFixed(value < 9.95 ? 1 : 0);
}

function makeHeads() {
  byId("heads").classList.toggle("many", data.layers.length > 12);
  const names = data.views.map((name) => (+name ? `head ${name}` : name));
  matrices.heads = makeMatrix(
    "heads",
    names,
    data.layers,
    (view, layer) =>
      `${data.names[state.joint]}; layer ${data.layers[layer]}, ${names[view]}: ` +
      headText(ofHead(view, layer)) +
      (state.ofHeads === "share"
        ? " % of the attention to the image"
        : " patches from the peak to the joint"),
    (view, layer) => update(layer === undefined ? { view } : { view, layer }),
  );
}

function drawHeads() {
  byId("h-heads").textContent =
    `${data.names[state.joint]}: all heads and layers`;
  const all = data.views.flatMap((_, view) =>
    data.layers.map((_, layer) => ofHead(view, layer)),
  );
  const end = state.ofHeads === "share" ? 1 : largest(all);
  drawMatrix(matrices.heads, ofHead, end, headText);
  markHead();
}

function markHead() {
  markRow(matrices.heads, state.view);
  markColumn(matrices.heads, state.layer);
}

// ---------------------------------------------------------------- constraints

function weightsShown() {
  return joints().map((joint) =>
    data.attention.keypoints(attentionIndex(state.layer, state.view, joint)),
  );
}

function topOf(weights, joint, count) {
  return joints()
    .filter((other) => other !== joint)
    .sort((a, b) => weights[b] - weights[a] || a - b)
    .slice(0, count);
}

const kindOf = (a, b) => data.kindNames[data.kinds[a][b]] || "itself";

function makeConstraints() {
  matrices.constraints = makeMatrix(
    "constraints",
    data.names,
    data.names,
    (a, b) =>
      `${data.names[a]} → ${data.names[b]} (${kindOf(a, b)}): ` +
      `${percent(weightsShown()[a][b], 2)} of its attention`,
    (joint) => update({ joint }),
  );
}

function drawConstraints() {
  const weights = weightsShown();
  const end = largest(
    weights.flatMap((row, a) => [...row].filter((_, b) => a !== b)),
  );
  drawMatrix(
    matrices.constraints,
    (a, b) => weights[a][b],
    end,
    (value) => (value >= 0.005 ? (100 * value).toFixed(0) : ""),
  );
  drawTop(weights);
  drawKinds(weights);
}

function drawTop(weights) {
  byId("h-top").textContent =
    `${data.names[state.joint]}: first of the other joints`;
  const table = byId("top"),
    row = weights[state.joint];
  table.replaceChildren();
  const first = topOf(row, state.joint, 5);
  for (const other of first) {
    const line = add(table, "tr"),
      kind = kindOf(state.joint, other);
    add(line, "th", { scope: "row" }, data.names[other]);
    add(add(line, "td"), "span", { class: `kind ${kind}` }, kind);
    const bar = add(add(line, "td", { class: "wide" }), "div", {
      class: "bar",
    });
    add(bar, "i", { class: "warm" }).style.width =
      `${(100 * row[other]) / (row[first[0]] || 1)}%`;
    add(line, "td", { class: "number" }, percent(row[other]));
  }
}

function drawKinds(weights) {
  const counts = data.kindNames.map(() => 0);
  const taken = Math.min(3, keypoints() - 1);
  for (const joint of joints()) {
    for (const other of topOf(weights[joint], joint, taken)) {
      counts[data.kinds[joint][other]] += 1;
    }
  }
  const table = byId("kinds");
  table.replaceChildren();
  const head = add(add(table, "thead"), "tr");
  for (const name of ["", "share", "by chance"]) {
    add(head, name ? "th" : "td", name ? { scope: "col" } : {}, name);
  }
  data.kindNames.forEach((kind, i) => {
    const row = add(table, "tr");
    add(
      add(row, "th", { scope: "row" }),
      "span",
      { class: `kind ${kind}` },
      kind,
    );
    const share = counts[i] / (taken * keypoints() || 1);
    add(row, "td", {}, percent(share, 0));
    add(row, "td", {}, percent(data.chance[i], 0));
  });
}

function makeSimilarity() {
  matrices.similarity = makeMatrix(
    "similarity",
    data.names,
    data.names,
    (a, b) => {
      const i = a * keypoints() + b,
        { inner, cosine } = data.similarity;
      return (
        `${data.names[a]}, ${data.names[b]} (${kindOf(a, b)}): inner product` +
        ` ${inner.values[i].toFixed(3)}, cosine ${cosine.values[i].toFixed(3)}`
      );
    },
  );
}

function drawSimilarity() {
  const { values } = data.similarity[state.likeness];
  drawMatrix(
    matrices.similarity,
    (a, b) => values[a * keypoints() + b],
    1,
    short,
  );
}

// ---------------------------------------------------------------- forms

function makeStrip() {
  for (const [layer, name] of data.layers.entries()) {
    const button = add(byId("strip"), "button", { type: "button" });
    add(button, "canvas", { "aria-hidden": "true" });
    add(button, "span", {}, `layer ${name}`);
    button.addEventListener("click", () => update({ layer, show: "heatmap" }));
  }
}

let grayPicture;

/** The crop, gray and faint, THUMB pixels wide. */
function makeGray() {
  grayPicture = document.createElement("canvas");
  grayPicture.width = THUMB;
  grayPicture.height = Math.round((THUMB * data.size[0]) / data.size[1]);
  const context = grayPicture.getContext("2d");
  context.filter = "grayscale(1) brightness(0.6)";
  context.drawImage(
    byId("picture"),
    0,
    0,
    grayPicture.width,
    grayPicture.height,
  );
}

/** The crop with something on it. */
function onPicture(canvas, overlay, box) {
  const { width, height } = grayPicture;
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  context.drawImage(grayPicture, 0, 0);
  context.imageSmoothingEnabled = Boolean(box);
  const [x, y, w, h] = box || [0, 0, 1, 1];
  context.drawImage(overlay, x * width, y * height, w * width, h * height);
  return context;
}

function dot(context, [x, y]) {
  const factor = THUMB / data.size[1];
  context.beginPath();
  context.arc((x + 0.5) * factor, (y + 0.5) * factor, 4, 0, 7);
  context.lineWidth = 2;
  context.strokeStyle = "#fff";
  context.stroke();
}

function drawStrip() {
  byId("h-strip").textContent = `${data.names[state.joint]}, layer by layer`;
  const small = document.createElement("canvas"),
    [rows, columns] = data.heatSize;
  [...byId("strip").children].forEach((button, layer) => {
    const i = layer * keypoints() + state.joint,
      values = data.heatmaps(i);
    paint(small, rows, columns, values, largest(values));
    const context = onPicture(button.firstChild, small, heatmapBox());
    dot(context, atLayer(layer, state.joint));
    button.title = `largest value ${data.scores.values[i].toFixed(2)}`;
  });
}

function drawForms() {
  const [x, y] = atLayer(state.layer, state.joint);
  const i = state.layer * keypoints() + state.joint;
  const away = distance([x, y], endOf(state.joint)) / data.boxSide;
  byId("forms-text").textContent =
    `${data.names[state.joint]} at layer ${data.layers[state.layer]}: at` +
    ` (${x.toFixed(1)}, ${y.toFixed(1)}) of the crop, score` +
    ` ${data.scores.values[i].toFixed(2)}, ${percent(away)} of the box from` +
    " where it ends; it settles at layer" +
    ` ${data.layers[data.settled[state.joint]]}.` +
    " Each map has its own scale here; circles are the maxima.";
  [...byId("strip").children].forEach((button, layer) => {
    button.setAttribute("aria-pressed", layer === state.layer);
  });
  if (matrices.forms) markColumn(matrices.forms, state.layer);
}

function formed(joint, layer) {
  return distance(atLayer(layer, joint), endOf(joint)) / data.boxSide;
}

function makeForms() {
  byId("forms").classList.toggle("many", data.layers.length > 12);
  matrices.forms = makeMatrix(
    "forms",
    data.names,
    data.layers,
    (joint, layer) =>
      `${data.names[joint]} at layer ${data.layers[layer]}: ` +
      `${percent(formed(joint, layer))} from where it ends; settles at layer` +
      ` ${data.layers[data.settled[joint]]}`,
    (joint, layer) =>
      update(layer === undefined ? { joint } : { joint, layer }),
  );
}

function drawAllForms() {
  drawMatrix(
    matrices.forms,
    formed,
    FAR,
    (value) => (100 * value).toFixed(0),
    (joint, layer) => layer === data.settled[joint],
  );
}

// ---------------------------------------------------------------- covering

function nearestPlace([x, y]) {
  let best = 0;
  for (let i = 1; i < placeCount(); i += 1) {
    const { centers } = data.places;
    if (
      distance(pointOf(centers, i), [x, y]) <
      distance(pointOf(centers, best), [x, y])
    )
      best = i;
  }
  return best;
}

/** Puts the square on the chosen joint, or takes it off. */
function toggleCover() {
  if (!data.places) return;
  update({ place: isCovered() ? -1 : nearestPlace(endOf(state.joint)) });
}

function moveCover(right, down) {
  if (!data.places) return;
  if (!isCovered()) return toggleCover();
  const rows = data.places.rows,
    columns = placeCount() / rows;
  const clip = (value, count) => Math.max(0, Math.min(count - 1, value));
  const row = clip(Math.floor(state.place / columns) + down, rows);
  const column = clip((state.place % columns) + right, columns);
  update({ place: row * columns + column });
}

/** Puts the square where the chosen joint suffers most. */
function coverWorst() {
  const values = sensitivityMap(state.joint);
  update({ place: values.indexOf(largest(values)) });
}

function makeOutcome() {
  const table = byId("outcome"),
    head = add(add(table, "thead"), "tr");
  for (const name of ["joint", "score", "before → after", "moved"]) {
    add(head, "th", { scope: "col" }, name);
  }
  const body = add(table, "tbody");
  for (const name of data.names) {
    const row = add(body, "tr");
    add(row, "th", { scope: "row" }, name);
    const bar = add(add(row, "td", { class: "wide" }), "div", { class: "bar" });
    add(bar, "i");
    add(bar, "i", { class: "before" });
    add(row, "td", { class: "number" });
    add(row, "td", { class: "number" });
  }
}

function drawOutcome() {
  byId("covering").checked = isCovered();
  byId("put").textContent = isCovered()
    ? "Take the square off"
    : "Put the square on the picture";
  [...byId("outcome").tBodies[0].rows].forEach((row, joint) => {
    const before = scoreOf(joint);
    const after = isCovered()
      ? data.places.scores.values[placeIndex(joint)]
      : before;
    const moved = isCovered()
      ? distance(afterCover(joint), endOf(joint)) / data.boxSide
      : 0;
    const [now, then] = row.querySelectorAll("i");
    const width = (score) => `${100 * Math.max(0, Math.min(1, score))}%`;
    now.style.width = width(after);
    now.classList.toggle("warm", before - after > 0.05);
    then.style.width = width(before);
    row.cells[2].textContent = isCovered()
      ? `${before.toFixed(2)} → ${after.toFixed(2)}`
      : before.toFixed(2);
    row.cells[3].textContent = isCovered() ? percent(moved) : "";
    row.classList.toggle("chosen", joint === state.joint);
  });
}

function makeSensitivity() {
  data.names.forEach((name, joint) => {
    const button = add(byId("sensitivity"), "button", { type: "button" });
    add(button, "canvas", { "aria-hidden": "true" });
    add(button, "span", {}, name);
    button.addEventListener("click", () => update({ joint, show: "covered" }));
  });
}

/** One scale for all joints, so that they can be compared. */
function sensitivityEnd() {
  return Math.max(0.02, ...joints().map((j) => largest(sensitivityMap(j))));
}

function drawSensitivity() {
  const small = document.createElement("canvas"),
    end = sensitivityEnd();
  const rows = data.places.rows,
    columns = placeCount() / rows;
  [...byId("sensitivity").children].forEach((button, joint) => {
    paint(small, rows, columns, sensitivityMap(joint), end);
    const context = onPicture(button.firstChild, small);
    dot(context, endOf(joint));
  });
  const brightest = state.measure === "lost" ? end.toFixed(2) : percent(end);
  byId("sensitivity-text").textContent =
    "Colored: what a square in the middle of each cell does to the joint" +
    ` (circle), on one scale for all; brightest is ${brightest}. A click` +
    " shows it on the picture.";
}

function markSensitivity() {
  [...byId("sensitivity").children].forEach((button, joint) => {
    button.setAttribute("aria-pressed", joint === state.joint);
  });
}

function rise(covered, other) {
  const i = (state.layer * keypoints() + covered) * keypoints() + other;
  return data.joints.rise.values[i];
}

function makeRise() {
  matrices.rise = makeMatrix(
    "rise",
    data.names,
    data.names,
    (a, b) =>
      `${data.names[a]} covered: its attention to ${data.names[b]}` +
      ` (${kindOf(a, b)}) changes by ${signed(100 * rise(a, b), 2)} points`,
    (joint) => update({ joint }),
  );
}

function drawRise() {
  const all = joints().flatMap((a) => joints().map((b) => rise(a, b)));
  const end = largestSize(all);
  drawMatrix(matrices.rise, rise, end, (value) =>
    Math.abs(value) >= 0.005 ? signed(100 * value, 0) : "",
  );
  const joint = state.joint;
  const others = joints()
    .filter((other) => other !== joint)
    .sort((a, b) => rise(joint, b) - rise(joint, a));
  const before = scoreOf(joint);
  const after = data.joints.scores.values[joint * keypoints() + joint];
  const at = pointOf(data.joints.points, joint * keypoints() + joint);
  byId("rise-text").textContent =
    `${data.names[joint]} covered, layer ${data.layers[state.layer]}: more` +
    " attention goes to " +
    others
      .slice(0, 3)
      .map(
        (other) =>
          `${data.names[other]} (` +
          `${signed(100 * rise(joint, other), 1)}, ${kindOf(joint, other)})`,
      )
      .join(", ") +
    `. It moves by ${percent(distance(at, endOf(joint)) / data.boxSide)} of` +
    ` the box; its score goes from ${before.toFixed(2)} to` +
    ` ${after.toFixed(2)}.`;
}

// ---------------------------------------------------------------- controls

function options(select, rows) {
  for (const [value, text] of rows) add(select, "option", { value }, text);
}

function makeControls() {
  byId("layer").max = lastLayer();
  byId("head").max = data.views.length - 1;
  options(
    byId("joint"),
    data.names.map((name, i) => [i, name]),
  );
  options(byId("show"), [
    ["attention", "attention"],
    ...(data.places ? [["change", "its change"]] : []),
    ["heatmap", "heatmap"],
    ...(data.places ? [["covered", "sensitivity"]] : []),
    ["none", "nothing"],
  ]);
  const listen = (id, field, read) =>
    byId(id)?.addEventListener("input", (event) =>
      update({ [field]: read(event.target) }),
    );
  const value = (input) => input.value,
    number = (input) => +input.value;
  listen("layer", "layer", number);
  listen("head", "view", number);
  listen("joint", "joint", number);
  listen("show", "show", value);
  listen("opacity", "opacity", number);
  listen("skeleton", "skeleton", value);
  listen("measure", "measure", value);
  listen("likeness", "likeness", value);
  listen("of-heads", "ofHeads", value);
  listen("smooth", "smooth", (input) => input.checked);
  byId("covering")?.addEventListener("input", toggleCover);
  byId("put")?.addEventListener("click", toggleCover);
  byId("worst")?.addEventListener("click", coverWorst);
  byId("previous").addEventListener("click", () => step("joint", -1));
  byId("next").addEventListener("click", () => step("joint", 1));
  byId("play").addEventListener("click", play);
  byId("help-button").addEventListener("click", () => byId("help").showModal());
  byId("help-close").addEventListener("click", () => byId("help").close());
}

function drawControls() {
  const values = {
    layer: state.layer,
    head: state.view,
    joint: state.joint,
    show: state.show,
    opacity: state.opacity,
    skeleton: state.skeleton,
  };
  for (const id in values) byId(id).value = values[id];
  byId("layer-name").textContent = data.layers[state.layer];
  byId("head-name").textContent = data.views[state.view];
  byId("layer").setAttribute(
    "aria-valuetext",
    `layer ${data.layers[state.layer]}`,
  );
  byId("head").setAttribute("aria-valuetext", viewName(state.view));
}

/** Changes layer, view or joint by one; joints go round. */
function step(field, by) {
  const counts = {
    layer: data.layers.length,
    view: data.views.length,
    joint: keypoints(),
  };
  const count = counts[field],
    next = state[field] + by;
  update({
    [field]:
      field === "joint"
        ? (next + count) % count
        : Math.max(0, Math.min(count - 1, next)),
  });
}

let playing = 0;

/** Goes through the layers, once, or stops doing so. */
function play() {
  if (playing) return stop();
  byId("play").textContent = "Stop";
  update({ layer: 0, place: -1, skeleton: "layer" });
  playing = setInterval(
    () => {
      if (state.layer === lastLayer()) stop();
      else step("layer", 1);
    },
    Math.max(150, 4000 / data.layers.length),
  );
}

function stop() {
  clearInterval(playing);
  playing = 0;
  byId("play").textContent = "Play";
  update({ skeleton: "end" });
}

const KEYS = {
  ArrowLeft: () => step("layer", -1),
  ArrowRight: () => step("layer", 1),
  h: () => step("view", 1),
  H: () => step("view", -1),
  j: () => step("joint", 1),
  k: () => step("joint", -1),
  o: toggleCover,
  x: () => data.places && coverWorst(),
  w: () => moveCover(0, -1),
  s: () => moveCover(0, 1),
  a: () => moveCover(-1, 0),
  d: () => moveCover(1, 0),
  v: () => {
    const all = [...byId("show").options].map((option) => option.value);
    update({ show: all[(all.indexOf(state.show) + 1) % all.length] });
  },
  "?": () => byId("help").showModal(),
};
// Only where the picture has the focus: the page scrolls by them.
const PICTURE_KEYS = {
  ArrowUp: () => step("view", -1),
  ArrowDown: () => step("view", 1),
};
const SHIFT_KEYS = {
  ArrowLeft: () => moveCover(-1, 0),
  ArrowRight: () => moveCover(1, 0),
  ArrowUp: () => moveCover(0, -1),
  ArrowDown: () => moveCover(0, 1),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (byId("help").open) return;
  const isArrow = event.key.startsWith("Arrow");
  const field = event.target.closest("input, select");
  // Sliders and lists have arrows of their own; lists also letters.
  if (field && (isArrow || field.tagName === "SELECT")) return;
  const inPicture = event.target.closest("#view");
  const action =
    event.shiftKey && isArrow
      ? SHIFT_KEYS[event.key]
      : KEYS[event.key] || (inPicture && PICTURE_KEYS[event.key]);
  if (!action) return;
  event.preventDefault();
  action();
}

/** Crop pixels under the pointer. */
function cropPoint(event) {
  const box = byId("drawing").getBoundingClientRect();
  const [height, width] = data.size;
  return [
    ((event.clientX - box.left) / box.width) * width - 0.5,
    ((event.clientY - box.top) / box.height) * height - 0.5,
  ];
}

/** The joint within a finger's width of a place; -1: none. */
function jointAt(point) {
  const place = isCovered() ? afterCover : endOf;
  const reach = (18 * data.size[1]) / byId("drawing").clientWidth;
  const found = joints()
    .map((joint) => [distance(place(joint), point), joint])
    .sort((a, b) => a[0] - b[0])[0];
  return found[0] <= reach ? found[1] : -1;
}

function makePointer() {
  const svg = byId("drawing");
  let isDragging = false,
    isDown = false;
  svg.addEventListener("pointerdown", (event) => {
    isDown = true;
    isDragging = event.target.id === "occluder";
    if (isDragging) svg.setPointerCapture(event.pointerId);
  });
  // Browsers scroll on drags up and down, whatever `touch-action` the square has.
  svg.addEventListener(
    "touchstart",
    (event) => {
      if (event.target.id === "occluder") event.preventDefault();
    },
    { passive: false },
  );
  svg.addEventListener("pointermove", (event) => {
    if (!isDragging) return;
    const place = nearestPlace(cropPoint(event));
    if (place !== state.place) update({ place });
  });
  svg.addEventListener("pointerup", (event) => {
    const isClick = isDown && !isDragging;
    isDown = isDragging = false;
    if (!isClick) return;
    const joint = jointAt(cropPoint(event));
    if (joint >= 0) update({ joint });
    else if (isCovered()) update({ place: nearestPlace(cropPoint(event)) });
  });
  svg.addEventListener("pointercancel", () => {
    isDown = isDragging = false;
  });
}

function makeStage() {
  const svg = byId("drawing"),
    [height, width] = data.size;
  // Pixel centers are at integers.
  svg.setAttribute("viewBox", `-0.5 -0.5 ${width} ${height}`);
  add(svg, "rect", {
    id: "occluder",
    fill: "rgba(124, 116, 104, 0.9)",
    stroke: "#fff",
    "stroke-width": height / 160,
    "stroke-dasharray": `${height / 60}`,
  });
  add(svg, "g", { id: "figures", "pointer-events": "none" });
}

// ---------------------------------------------------------------- address

let saving = 0;

// Browsers take only so many changes of the address in a while.
function saveAddress() {
  clearTimeout(saving);
  saving = setTimeout(() => {
    const fields = new URLSearchParams({
      layer: data.layers[state.layer],
      head: data.views[state.view],
      joint: data.names[state.joint],
      show: state.show,
    });
    if (isCovered()) fields.set("cover", state.place);
    history.replaceState(null, "", `#${fields}`);
  }, 300);
}

/** The state that the address asks for, as far as this page has it. */
function addressed() {
  const fields = new URLSearchParams(location.hash.slice(1)),
    found = {};
  const lists = {
    layer: ["layer", data.layers],
    head: ["view", data.views],
    joint: ["joint", data.names],
  };
  for (const name in lists) {
    const [field, values] = lists[name];
    const i = values.indexOf(fields.get(name));
    if (i >= 0) found[field] = i;
  }
  const shown = [...byId("show").options].map((option) => option.value);
  if (shown.includes(fields.get("show"))) found.show = fields.get("show");
  if (data.places) {
    const place = Number(fields.get("cover") ?? -1);
    found.place = Number.isInteger(place) && place < placeCount() ? place : -1;
  }
  return found;
}

// ---------------------------------------------------------------- all of it

// What is drawn, and the fields of `state` that it depends on.
const PARTS = [
  [
    drawControls,
    ["layer", "view", "joint", "show", "opacity", "skeleton", "place"],
  ],
  [
    drawStage,
    [
      "layer",
      "view",
      "joint",
      "show",
      "opacity",
      "skeleton",
      "place",
      "smooth",
      "measure",
    ],
  ],
  [drawCharts, ["layer", "view", "joint"]],
  [drawHeads, ["joint", "ofHeads"]],
  [markHead, ["layer", "view"]],
  [drawConstraints, ["layer", "view", "joint"]],
  [drawSimilarity, ["joint", "likeness"]],
  [drawStrip, ["joint"]],
  [drawForms, ["layer", "joint"]],
  [drawAllForms, ["joint"]],
  [saveAddress, ["layer", "view", "joint", "show", "place"]],
];
const PLACE_PARTS = [
  [drawOutcome, ["joint", "place"]],
  [drawSensitivity, ["measure"]],
  [markSensitivity, ["joint"]],
];
const JOINT_PARTS = [[drawRise, ["joint", "layer"]]];

function update(change) {
  Object.assign(state, change);
  for (const [draw, fields] of PARTS) {
    if (fields.some((field) => field in change)) draw();
  }
}

async function start() {
  if (!("DecompressionStream" in window)) {
    throw new Error("it needs a browser of 2023 or later");
  }
  data = await unpacked(JSON.parse(byId("data").textContent));
  data.names = data.names.map((name) => name.replaceAll("_", " "));
  await byId("picture").decode();
  if (data.places) PARTS.push(...PLACE_PARTS);
  if (data.joints) PARTS.push(...JOINT_PARTS);
  state.layer = lastLayer();
  [
    makeGray,
    makeStage,
    makeControls,
    makePointer,
    makeHeads,
    makeConstraints,
    makeSimilarity,
    makeStrip,
    makeForms,
  ].forEach((make) => make());
  if (data.places) [makeOutcome, makeSensitivity].forEach((make) => make());
  if (data.joints) makeRise();
  document.addEventListener("keydown", onKey);
  window.addEventListener("hashchange", () => update(addressed()));
  update({ ...state, ...addressed() });
  byId("view").focus({ preventScroll: true });
  document.documentElement.dataset.ready = "yes";
}

start().catch((error) => {
  const trouble = byId("trouble");
  trouble.hidden = false;
  trouble.textContent = `This page cannot be drawn: ${error.message}.`;
});
