// What happened in the playground and why, in words, and the same in Python. Every number is one
// that was just computed.
function playgroundFinding() {
  const { settings, runs } = playground;
  const step = shownStep();
  const said = Object.entries(runs).map(([method, run]) => {
    const name = method === "lora" ? `LoRA of rank ${settings.r}` : "full fine-tuning";
    const loss = run.losses[step];
    return `${name} has an error ${loss < LOSS_FLOOR ? "" : "of "}${readableLoss(loss)}`;
  });
  const start = Object.values(runs)[0].losses[0];
  return (
    `At step ${step} of ${settings.steps}, ${said.join(", and ")}; ` +
    `the start was ${readable(start)}.`
  );
}

// Why it ended as it did, in sentences; the step shown may be another than the last.
function playgroundReasons() {
  const { runs, settings } = playground;
  const said = shownStep() < settings.steps ? ["At the end:"] : [];
  if (runs.lora) said.push(loraReason(runs.lora.losses));
  if (runs.full) said.push(fullReason(runs.full.losses, settings));
  return said;
}

function loraReason(losses) {
  const { settings, task } = playground;
  const { k, r, rate, steps, d_out } = settings;
  const [start, end, worst] = [losses[0], losses.at(-1), Math.max(...losses)];
  const least = leastLoss(task.sigma, r, d_out);
  if (settings.start === "zero") {
    return (
      `LoRA has not moved in ${steps} steps, and never will: the gradient of A is a product with ` +
      "B, that of B a product with A, and both are zero. So one of the two has to start at random."
    );
  }
  const arrived = end <= 1.1 * least + 1e-5 * start;
  if (worst > 10 * start) {
    return (
      `The rate ${rate} is too high for LoRA: its error rose to ${readable(worst)}, ` +
      `${readable(worst / start)} times that of the start. A step of Adam is about as long ` +
      "as the rate, whatever the gradient, so training does not run off to infinity; as the rate " +
      "falls to zero it comes back, and " +
      `${arrived ? "arrives all the same" : `ends at ${readable(end)}`}.`
    );
  }
  if (!arrived) {
    const { number, found, wanted } = worstDirection();
    return (
      `LoRA has not arrived: after ${steps} steps at the rate ${rate} its error is ` +
      `${readable(end)}. Singular value ${number} is ${readableSigma(found)}, and should be ` +
      `${readableSigma(wanted)}. ` +
      `It needs ${rate < 0.05 ? "a higher rate, or more steps" : "more steps, or another rate"}.`
    );
  }
  if (r < k) {
    const isFlat = settings.spectrum === "flat";
    const learned = isFlat ? `${r}: all are equally strong` : `the ${r} strongest`;
    return (
      `Of the ${k} directions of Δ, LoRA has learned ${learned}. No ΔW of rank ${r} has ` +
      `an error below ${readable(least)}; LoRA's is ${(end / least).toFixed(2)} times that.`
    );
  }
  if (r === k) return `Rank ${r} is just enough for Δ, and LoRA has found it.`;
  const others = `the other ${r - k} singular values of ΔW are close to 0`;
  return `Rank ${k} would have been enough: ${others}.`;
}

function fullReason(losses, { full_rate, steps }) {
  if (losses.at(-1) > 1e-4 * losses[0]) {
    return `Full fine-tuning has not arrived: ${steps} steps at the rate ${full_rate} are too few.`;
  }
  const worst = Math.max(...losses);
  if (worst > 10 * losses[0]) {
    return `Full fine-tuning is thrown off too, to ${readable(worst)}, and arrives all the same.`;
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

// The same in Python: the task that the page has drawn, and its training in minilora.
function playgroundInPython() {
  const { d_in, d_out, k, r, alpha, steps, spectrum, seed, start, rate, full_rate, method } =
    playground.settings;
  const zero = start === "zero";
  const lines = [
    "import numpy as np",
    "import minilora as ml",
    "from minilora.learn.page.playground.teacher import draw_task",
    "",
    `sizes = {"d_in": ${d_in}, "d_out": ${d_out}, "k": ${k}, "r": ${r}}`,
    `task = draw_task(**sizes, spectrum="${spectrum}", seed=${seed})`,
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
