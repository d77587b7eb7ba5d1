// What the playground shows of a step: errors, singular values, the matrices themselves.
const LOSS_FLOOR = 1e-10; // where the axis ends: what is below is 0 for every purpose

function showPlayground() {
  if (!playground.trained && prefersCalm()) return; // its lines would grow
  const [step, steps] = [shownStep(), get("playground.steps")];
  byId("play-step").max = steps;
  byId("play-step").value = step;
  byId("play-step-text").value = `${step} of ${steps}`;
  markTrap();
  drawLosses();
  if (!playground.trained) return;
  setText("play-finding", playgroundFinding());
  setText("play-reason", playgroundReasons().join(" "));
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
  return loss < LOSS_FLOOR ? `under ${powerOfTen(-10)}` : readable(loss);
}

function drawLosses() {
  const { settings, task, runs } = playground;
  const all = Object.values(runs).flatMap((run) => run.losses);
  const levels = [];
  for (let r = 1; r < settings.k && runs.lora; r++) {
    const own = r === settings.r;
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
    const apart = `it differs from Δ by ${readablePercent(missing)} of Δ's length`;
    const label = `ΔW of ${METHODS[method]} as a picture; ${apart}`;
    heatMap(byId(`play-map-${method}`), change, limit, label);
  }
  byId("play-heat-low").textContent = `−${readable(limit, 2)}`;
  byId("play-heat-high").textContent = readable(limit, 2);
}
