// What the playground shows of a step: errors, singular values, the matrices, and in words what
// happened and why. Every number in the words is one that was just computed.
const LOSS_FLOOR = 1e-10; // where the axis ends: what is below is 0 for every purpose

function showPlayground() {
  const [step, steps] = [shownStep(), get("playground.steps")];
  byId("play-step").max = steps;
  byId("play-step").value = step;
  byId("play-step-text").value = `${step} of ${steps}`;
  markTrap();
  drawLosses();
  if (!playground.trained) return;
  byId("play-finding").textContent = playgroundFinding();
  byId("play-reason").textContent = playgroundReasons().join(" ");
  showStudents();
  showSingularValues();
  showHeatMaps();
}

// The button of what is set now is pressed.
function markTrap() {
  const { "playground.step": _, ...defaults } = playgroundDefaults();
  for (const button of byId("play-traps").children) {
    const values = Object.entries({ ...defaults, ...TRAPS[button.textContent] });
    button.setAttribute(
      "aria-pressed",
      String(values.every(([name, value]) => get(name) === value)),
    );
  }
}

function changeAt(method, step) {
  const { d_in, d_out } = playground.settings;
  return { rows: d_in, columns: d_out, data: playground.runs[method].changes[step] };
}

function readableLoss(loss) {
  return loss < LOSS_FLOOR ? `less than ${powerOfTen(-10)}` : readable(loss);
}

function drawLosses() {
  const { settings, task, runs } = playground;
  const all = Object.values(runs).flatMap((run) => run.losses);
  const levels = [];
  for (let r = 1; r < settings.k; r++) {
    const own = r === settings.r && runs.lora;
    const at = leastLoss(task.sigma, r, settings.d_out);
    levels.push({
      at,
      name: own || settings.k <= 4 ? `rank ${r}` : "",
      class: own ? "bound own" : "bound",
    });
  }
  const least = Math.min(1e-4, ...all, ...levels.map((level) => level.at / 2));
  const decade = (value, round) => 10 ** round(Math.log10(value));
  lineChart(byId("play-loss"), {
    label: playground.trained
      ? `Error against training step. ${playgroundFinding()}`
      : "Error against training step",
    x: { label: "training step", min: 0, max: settings.steps },
    y: {
      label: "mean squared error",
      log: true,
      min: Math.max(decade(least, Math.floor), LOSS_FLOOR),
      max: decade(Math.max(...all, 1e-3), Math.ceil),
    },
    lines: Object.entries(runs).map(([method, run]) => ({
      class: method,
      points: run.losses.map((loss, step) => [step, loss]),
    })),
    levels,
    cursor: playground.trained ? shownStep() : undefined,
  });
}

function playgroundFinding() {
  const { settings, runs } = playground;
  const step = shownStep();
  const said = Object.entries(runs).map(([method, run]) => {
    const name = method === "lora" ? `LoRA of rank ${settings.r}` : "full fine-tuning";
    return `${name} has an error of ${readableLoss(run.losses[step])}`;
  });
  const start = Object.values(runs)[0].losses[0];
  return `At step ${step} of ${settings.steps}, ${said.join(", and ")}; the start was ${readable(start)}.`;
}

// Why it ended as it did, in sentences.
function playgroundReasons() {
  const { runs, settings } = playground;
  const said = [];
  if (runs.lora) said.push(loraReason(runs.lora.losses));
  if (runs.full) said.push(fullReason(runs.full.losses, settings));
  return said.filter(Boolean);
}

function loraReason(losses) {
  const { settings, task } = playground;
  const { k, r, rate, steps, d_out } = settings;
  const [start, end, worst] = [losses[0], losses.at(-1), Math.max(...losses)];
  const least = leastLoss(task.sigma, r, d_out);
  if (settings.start === "zero") {
    return (
      `LoRA has not moved in ${steps} steps, and never will: the gradient of A is a product with B, ` +
      "that of B a product with A, and both are zero. So one of the two has to start at random."
    );
  }
  const arrived = end <= 1.1 * least + 1e-5 * start;
  if (worst > 10 * start) {
    return (
      `The rate ${rate} is too high for LoRA: its error rose to ${readable(worst)}, ` +
      `${readableWhole(worst / start)} times that of the start. A step of Adam is about as long as ` +
      "the rate, whatever the gradient, so training does not run off to infinity; as the rate falls " +
      `to zero it comes back, and ${arrived ? "arrives all the same" : `ends at ${readable(end)}`}.`
    );
  }
  if (!arrived) {
    const { number, found, wanted } = worstDirection();
    return (
      `LoRA has not arrived: after ${steps} steps at the rate ${rate} its error is ` +
      `${readable(end)}. Singular value ${number} is ${readableSigma(found)}, and should be ` +
      `${readableSigma(wanted)}. It needs ${rate < 0.05 ? "a higher rate" : "more steps, or another rate"}.`
    );
  }
  if (r < k) {
    return (
      `Of the ${k} directions of Δ, LoRA has learned the ${r} strongest. No ΔW of rank ${r} has an error ` +
      `below ${readable(least)}; LoRA's is ${readable(end / least)} times that.`
    );
  }
  if (r === k) return `Rank ${r} is just enough for Δ, and LoRA has found it.`;
  return `Rank ${k} would have been enough: the other ${r - k} singular values of ΔW are close to 0.`;
}

function fullReason(losses, { full_rate, steps }) {
  if (losses.at(-1) > 1e-4 * losses[0]) {
    return `Full fine-tuning has not arrived: ${steps} steps at the rate ${full_rate} are too few.`;
  }
  return `Full fine-tuning arrives at the rate ${full_rate}; no rank limits it.`;
}

// Of the singular values that LoRA can have, the one that it has missed most, of its size.
function worstDirection() {
  const { settings, task } = playground;
  const found = singularValues(changeAt("lora", settings.steps));
  const directions = task.sigma
    .slice(0, settings.r)
    .map((wanted, i) => ({ number: i + 1, found: found[i], wanted }));
  const missed = ({ found, wanted }) => Math.abs(found - wanted) / wanted;
  return directions.reduce((worst, one) => (missed(one) > missed(worst) ? one : worst));
}

function showStudents() {
  const { settings, task, runs } = playground;
  const { d_in, d_out, r } = settings;
  const whole = d_in * d_out;
  const trains = { lora: r * (d_in + d_out), full: whole };
  const least = { lora: leastLoss(task.sigma, r, d_out), full: 0 };
  const rows = Object.entries(runs).map(([method, run]) => {
    const share = method === "lora" ? ` (${readablePercent(trains.lora / whole)})` : "";
    const cells = [
      readableWhole(trains[method]) + share,
      readableLoss(run.losses[shownStep()]),
      readable(least[method]),
    ];
    return tableRow(METHODS[method], cells, method);
  });
  byId("play-table").replaceChildren(...rows);
}

function tableRow(name, numbers, kind = "") {
  const cells = numbers.map((text) => make("td", { class: "number" }, text));
  return make("tr", {}, make("th", { scope: "row", class: kind }, name), ...cells);
}

function showSingularValues() {
  const { settings, task, runs } = playground;
  const { d_in, d_out, k, r } = settings;
  const count = Math.min(d_in, d_out, Math.max(k, r) + 2);
  const numbers = Array.from({ length: count }, (_, i) => i);
  const found = { target: numbers.map((i) => task.sigma[i] ?? 0) };
  for (const method of Object.keys(runs)) {
    found[method] = singularValues(changeAt(method, shownStep())).slice(0, count);
  }
  const list = (values) =>
    values
      .slice(0, 4)
      .map((value) => readable(value, 2))
      .join(", ");
  const said = Object.keys(runs).map((method) => `${METHODS[method]} ${list(found[method])}`);
  barChart(byId("play-values"), {
    label: `The four largest singular values: Δ ${list(found.target)}; ${said.join("; ")}`,
    x: { label: "singular value, largest first" },
    y: { label: "size", min: 0, max: 1.1 * Math.max(...Object.values(found).flat()) },
    names: numbers.map((i) => String(i + 1)),
    series: Object.entries(found).map(([kind, values]) => ({ class: kind, values })),
  });
  const cell = (kind, i) => (found[kind] ? readableSigma(found[kind][i]) : "–");
  const rows = numbers.map((i) =>
    tableRow(
      String(i + 1),
      ["target", "lora", "full"].map((kind) => cell(kind, i)),
    ),
  );
  byId("play-values-table").replaceChildren(...rows);
}

function readableSigma(value) {
  return value < 5e-4 ? "0.000" : value.toFixed(3);
}

function showHeatMaps() {
  const { task, runs } = playground;
  const limit = Math.max(...task.delta.data.map(Math.abs));
  heatMap(byId("play-map-target"), task.delta, limit, "The numbers of Δ as a picture");
  for (const method of Object.keys(METHODS)) {
    byId(`play-map-${method}-figure`).hidden = !runs[method];
    if (!runs[method]) continue;
    const change = changeAt(method, shownStep());
    const missing = Math.sqrt(
      sumOfSquares(difference(change, task.delta)) / sumOfSquares(task.delta),
    );
    const label = `ΔW of ${METHODS[method]} as a picture; it differs from Δ by ${readablePercent(missing)} of Δ's length`;
    heatMap(byId(`play-map-${method}`), change, limit, label);
  }
  byId("play-heat-low").textContent = `−${readable(limit, 2)}`;
  byId("play-heat-high").textContent = readable(limit, 2);
}

// The same in Python: the task that the page has drawn, and its training in minilora.
function playgroundInPython() {
  const { d_in, d_out, k, r, alpha, steps, spectrum, seed, start, rate, full_rate, method } =
    playground.settings;
  const zero = start === "zero";
  const lines = [
    "import numpy as np",
    "import minilora as ml",
    "from minilora.learn.page.teacher import draw_task",
    "",
    `task = draw_task(d_in=${d_in}, d_out=${d_out}, k=${k}, spectrum="${spectrum}", r=${r}, seed=${seed})`,
    "",
    "def train(lr, lora):",
    "    rng = np.random.default_rng(0)  # any W0 will do: it cancels",
    `    model = ml.ModuleList([ml.Linear(${d_in}, ${d_out}, bias=False, rng=rng)]).to(np.float64)`,
    "    W0 = model[0].weight.data.copy()",
    "    if lora:",
    `        config = ml.LoraConfig(r=${r}, lora_alpha=${alpha}, target_modules=["0"])`,
    "        ml.add_adapter(model, config, rng=rng)",
    `        model[0].adapters["default"].A.data = ${zero ? "np.zeros_like(task.A)" : "task.A"}`,
    "    x, answers = ml.Tensor(task.x), ml.Tensor(task.x @ (W0 + task.delta))",
    "    optimizer = ml.AdamW(model.trainable_parameters(), betas=(0.9, 0.999), weight_decay=0)",
    `    for i in range(${shownStep()}):`,
    "        error = model[0](x) - answers",
    "        (error * error).mean().backward()",
    `        optimizer.lr = lr * ml.warmup_cosine(i, ${steps}, warmup=0, final=0)`,
    "        optimizer.step()",
    "        optimizer.zero_grad()",
    '    change = ml.get_delta_weight(model, "0") if lora else model[0].weight.data - W0',
    `    return float(np.sum((change - task.delta) ** 2) / ${d_out})`,
    "",
  ];
  if (method !== "full") lines.push(`print("LoRA", train(${rate}, lora=True))`);
  if (method !== "lora") lines.push(`print("full fine-tuning", train(${full_rate}, lora=False))`);
  return lines.join("\n");
}
