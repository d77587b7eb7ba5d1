// The error at the end of training by LoRA's rank, beside the least that each rank allows. Where it
// falls to zero is the rank of Δ. The ranks are trained when one scrolls near.
let stopRanks = () => {};

function startRanks() {
  const section = byId("play-ranks-figure");
  let seen = false;
  const settings = Object.keys(playgroundDefaults()).filter((name) => name !== "playground.step");
  watch(settings, () => seen && trainRanks());
  const see = ([entry]) => {
    if (!entry.isIntersecting || seen) return;
    seen = true;
    trainRanks();
    drawToFit(byId("play-ranks"), drawRanks);
  };
  new IntersectionObserver(see, { rootMargin: "1000px" }).observe(section);
  addEventListener("beforeprint", () => { // paper does not scroll, and does not wait
    if (!seen) for (const _ of trainEveryRank(playgroundSettings()));
  });
}

let ranks = []; // { r, loss, least } of those that are trained so far

function trainRanks() {
  stopRanks();
  ranks = [];
  drawRanks();
  stopRanks = inSlices(trainEveryRank(playgroundSettings()), () => {});
}

// The ranks from 1 to two more than Δ has, each drawn when it is trained. The task is that of the
// playground, whatever r: A is drawn last.
function* trainEveryRank(settings) {
  const { k, alpha, start, rate, steps, d_out } = settings;
  for (let r = 1; r <= k + 2; r++) {
    const task = drawTask({ ...settings, r });
    let loss;
    for (const now of training(task, loraStudent(task, alpha / r, start === "zero"), rate, steps)) {
      loss = now.loss;
      yield;
    }
    ranks.push({ r, loss, least: leastLoss(task.sigma, r, d_out) });
    drawRanks();
  }
}

function drawRanks() {
  const { k } = playgroundSettings();
  const high = Math.max(1, ...ranks.map(({ loss }) => loss));
  const said = ranks.map(({ r, loss }) => `rank ${r} ${readableLoss(loss)}`).join(", ");
  lineChart(byId("play-ranks"), {
    label: `Error at the end of training by rank: ${said}`,
    x: { label: "rank r of LoRA", min: 0.5, max: k + 2.5, ticks: ranks.map(({ r }) => r) },
    y: {
      label: "mean squared error",
      log: true,
      min: LOSS_FLOOR,
      max: 10 ** Math.ceil(Math.log10(high)),
    },
    lines: [{ class: "lora", points: ranks.map(({ r, loss }) => [r, loss]), dots: true }],
    marks: ranks.filter(({ least }) => least > 0).map(({ r, least }) => [r, least]),
    height: 220,
  });
  const rows = ranks.map(({ r, loss, least }) =>
    tableRow(String(r), [readableLoss(loss), readable(least)]),
  );
  byId("play-ranks-table").replaceChildren(...rows);
}
