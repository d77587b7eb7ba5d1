// The counter: what LoRA trains of a named model, or of matrices of any size, in numbers, bytes and
// to scale.
declare({
  "count.model": "llama-2-7b",
  "count.r": 8,
  "count.d_in": 4096,
  "count.d_out": 4096,
  "count.layers": 1,
  "count.q_proj": true,
  "count.k_proj": false,
  "count.v_proj": true,
  "count.c_attn": false,
  "count.o_proj": false,
  "count.gate_proj": false,
  "count.up_proj": false,
  "count.down_proj": false,
});

const OWN_MATRIX = "own";
const LADDER = { full: "full fine-tuning", lora: "LoRA", qlora: "QLoRA" };

function startCount(data) {
  const models = Object.keys(data.models).map((name) => make("option", { value: name }, name));
  byId("count-model").append(
    ...models,
    make("option", { value: OWN_MATRIX }, "matrices of your own"),
  );
  bindControls(byId("count"));
  byId("count-qv").addEventListener("click", () => tickMatrices(["q_proj", "v_proj"]));
  byId("count-all").addEventListener("click", () => tickMatrices(undefined));
  watch(["count."], () => showCount(data));
  offerPython("count", () => countInPython(countedModel(data), countTargets(countedModel(data))));
  showCount(data);
  drawToFit(byId("count-drawing"), () => showCount(data));
}

// Without names: every matrix, q, k and v as three.
function tickMatrices(names) {
  const ticks = [...byId("count-targets").querySelectorAll("input")].map(
    (tick) => tick.dataset.state,
  );
  const wanted = (tick) => (names ? names.includes(tick.split(".")[1]) : tick !== "count.c_attn");
  setAll(Object.fromEntries(ticks.map((tick) => [tick, wanted(tick)])));
}

// Matrices of one's own are a model that has nothing else.
function countedModel(data) {
  if (get("count.model") !== OWN_MATRIX) return data.models[get("count.model")];
  const [d_in, d_out, layers] = ["d_in", "d_out", "layers"].map((name) => get(`count.${name}`));
  return { total: layers * d_in * d_out, layers, shapes: { W: [d_in, d_out] } };
}

// The names of the matrices that are ticked, of those that the model has.
function countTargets(model) {
  if (get("count.model") === OWN_MATRIX) return ["W"];
  const ticked = Object.keys(model.shapes).filter((name) => get(`count.${name}`));
  return ticked.includes("c_attn") ? ticked.filter((name) => !QKV.includes(name)) : ticked;
}

function showCount(data) {
  const model = countedModel(data);
  const targets = countTargets(model);
  const own = get("count.model") === OWN_MATRIX;
  for (const control of byId("count").querySelectorAll(".own")) control.hidden = !own;
  byId("count-targets").hidden = own;
  byId("count-presets").hidden = own;
  for (const tick of byId("count-targets").querySelectorAll("input")) {
    const name = tick.dataset.state.split(".")[1];
    tick.parentElement.hidden = !(name in model.shapes);
    tick.disabled = QKV.includes(name) && targets.includes("c_attn");
  }
  setText("count-problem", targets.length ? "" : "Tick at least one matrix to adapt.");
  byId("count-result").hidden = targets.length === 0;
  if (targets.length === 0) return;
  const trained = loraParameters(model, get("count.r"), targets);
  setText("count-finding", countFinding(model, targets, trained));
  byId("count-rank").textContent = rankRemark(model, targets);
  showCosts(model, trained);
  showMatrices(model, targets);
  showToScale(model, targets);
  showLadder(memoryLadder(model, get("count.r"), targets, data.nf4_bits));
}

function countFinding(model, targets, trained) {
  const own = get("count.model") === OWN_MATRIX;
  const ownName = model.layers === 1 ? "the matrix's" : "these matrices'";
  const of = own ? ownName : `${get("count.model")}'s`;
  const on = own ? "" : ` on ${listed(targets)}`;
  const fewer = trained < model.total / 2 ? `, one in ${readableWhole(model.total / trained)}` : "";
  return (
    `LoRA of rank ${readableWhole(get("count.r"))}${on} trains ${readableWhole(trained)} ` +
    `numbers, ${readablePercent(trained / model.total)} of ${of} ${readableWhole(model.total)}` +
    `${fewer}.`
  );
}

function listed(names) {
  return names.length < 2 ? names.join() : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

// A rank that is larger than it can be of use.
function rankRemark(model, targets) {
  const r = get("count.r");
  const beyond = targets.filter((name) => r >= breakEvenRank(...model.shapes[name]));
  if (beyond.length === 0) return "Below the break-even rank A and B have fewer numbers than W.";
  const useless = targets.filter((name) => r > Math.min(...model.shapes[name]));
  return (
    `At this rank LoRA trains at least as many numbers as W has: ${listed(beyond)}.` +
    (useless.length ? ` And no ΔW of ${listed(useless)} can have so high a rank.` : "")
  );
}

// For several tasks, full fine-tuning keeps a model each, LoRA one base and an adapter each.
function showCosts(model, trained) {
  const costs = (times) => [model.total, trained].map((n) => readableBytes(times * n));
  const tasks = [200 * model.total, 2 * model.total + 200 * trained].map(readableBytes);
  const rows = {
    "numbers that train": [model.total, trained].map(readableWhole),
    "file at 2 bytes": costs(2),
    "file at 4 bytes": costs(4),
    "files of 100 tasks": tasks,
    gradients: costs(2),
    optimizer: costs(8),
  };
  const shown = Object.entries(rows).map(([name, texts]) => tableRow(name, texts));
  byId("count-costs").replaceChildren(...shown);
}

function showMatrices(model, targets) {
  const r = get("count.r");
  const rows = targets.map((name) => {
    const [d_in, d_out] = model.shapes[name];
    const [inW, inAB] = [d_in * d_out, r * (d_in + d_out)];
    const numbers = [readableWhole(inW), readableWhole(inAB), readablePercent(inAB / inW)];
    const row = tableRow(name, [...numbers, readable(breakEvenRank(d_in, d_out), 6)]);
    row.firstChild.append(make("span", { class: "note" }, readableSizes(d_in, d_out)));
    return row;
  });
  byId("count-matrices").replaceChildren(...rows);
  const layers = readableWhole(model.layers);
  const own = model.layers === 1 ? "The matrix" : `One of the ${layers} matrices`;
  byId("count-matrices-title").textContent =
    get("count.model") === OWN_MATRIX ? own : `The matrices of one of the ${layers} blocks`;
}

// W with A at its left, as high as W, and B above it, as wide as W.
function showToScale(model, targets) {
  const svg = byId("count-drawing");
  const [d_in, d_out] = model.shapes[targets[0]];
  const r = get("count.r");
  const title =
    `${targets[0]} (${readableSizes(d_in, d_out)}) with A and B of rank ${readableWhole(r)}, ` +
    "to scale";
  const room = 28; // for a label
  const pixels = Math.min((chartWidth(svg) - 2 * room) / (d_out + r), 200 / (d_in + r));
  const thick = Math.max(r * pixels, 1);
  const [high, wide] = [Math.max(d_in * pixels, 1), Math.max(d_out * pixels, 1)];
  const [left, top] = [room + thick + 6, room + thick + 6];
  prepareChart(svg, title, top + high + 8);
  const rectangles = {
    W: { class: "bar frozen", x: left, y: top, width: wide, height: high },
    A: { class: "bar lora", x: room, y: top, width: thick, height: high },
    B: { class: "bar lora", x: left, y: room, width: wide, height: thick },
  };
  for (const place of Object.values(rectangles)) svg.append(drawn("rect", place));
  const middle = { "text-anchor": "middle" };
  svg.append(
    drawn("text", { x: left + wide / 2, y: top + high / 2 + 4, ...middle }, "W"),
    drawn("text", { x: room - 12, y: top + high / 2 + 4, ...middle }, "A"),
    drawn("text", { x: left + wide / 2, y: room - 8, ...middle }, "B"),
  );
  byId("count-drawing-title").textContent = title;
  byId("count-drawing-note").textContent =
    r * pixels < 1
      ? `A and B are drawn a pixel thin; to scale they would be ${readable(r * pixels, 2)} of one.`
      : "";
}

function showLadder(ladder) {
  const parts = ["weights", "gradients", "optimizer"];
  const rows = Object.entries(LADDER).map(([method, name]) => ({
    name,
    text: readableBytes(ladder[method].total),
    parts: parts.map((part) => ({ class: part, value: ladder[method][part] })),
  }));
  const label = rows.map(({ name, text }) => `${name} ${text}`).join(", ");
  const max = Math.max(...Object.values(ladder).map(({ total }) => total));
  stackedBars(byId("count-ladder"), { label: `Memory of training: ${label}`, rows, max });
  const lines = Object.entries(LADDER).map(([method, name]) =>
    tableRow(
      name,
      [...parts, "total"].map((part) => readableBytes(ladder[method][part])),
    ),
  );
  byId("count-ladder-table").replaceChildren(...lines);
}

function countInPython(model, targets) {
  const r = get("count.r");
  if (get("count.model") === OWN_MATRIX) {
    const [d_in, d_out] = model.shapes.W;
    return [
      "import minilora as ml",
      "",
      `d_in, d_out, r, matrices = ${d_in}, ${d_out}, ${r}, ${model.layers}`,
      "trained = matrices * r * (d_in + d_out)",
      "total = matrices * d_in * d_out",
      'print("trained", trained)',
      'print("total", total)',
      'print("break-even rank", ml.analysis.counting.break_even_rank(d_in, d_out))',
      'print("bytes", ml.analysis.counting.training_bytes(total, trained))',
    ].join("\n");
  }
  return [
    "import minilora as ml",
    "",
    "counting = ml.analysis.counting",
    `config = counting.ARCHITECTURES["${get("count.model")}"]`,
    `targets = [${targets.map((name) => `"${name}"`).join(", ")}]`,
    `print("trained", counting.lora_parameters(config, ${r}, targets))`,
    'print("total", counting.total_parameters(config))',
    `for method, parts in counting.memory_ladder(config, ${r}, targets).items():`,
    "    print(method, parts)",
  ].join("\n");
}
