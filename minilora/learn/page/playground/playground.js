// The playground trains LoRA and full fine-tuning on one task, and keeps what every step learned.
// Its buttons then move through the steps; the task is in teacher.js.
declare({
  "playground.d_in": 24,
  "playground.d_out": 24,
  "playground.k": 4,
  "playground.r": 4,
  "playground.alpha": 8,
  "playground.rate": 0.05,
  "playground.full_rate": 0.05,
  "playground.steps": 400,
  "playground.method": "both",
  "playground.spectrum": "geometric",
  "playground.start": "lora",
  "playground.seed": 0,
  "playground.step": 600, // that is shown; beyond the last one: the last one
});

const RATES = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 3];
const TRAPS = {
  "None of them": {},
  "A = B = 0": { "playground.start": "zero" },
  "r < k": { "playground.r": 2 },
  "A tenth of the rate": { "playground.rate": 0.005, "playground.full_rate": 0.005 },
  "A rate that is too high": { "playground.rate": 2 },
};
const METHODS = { lora: "LoRA", full: "full fine-tuning" };

// settings, task, and for each method that trains its { losses, changes }, an entry a step.
let playground;

function startPlayground() {
  const section = byId("playground");
  for (const id of ["play-rate", "play-full-rate"]) {
    byId(id).append(...RATES.map((rate) => make("option", {}, String(rate))));
  }
  bindControls(section);
  for (const [name, values] of Object.entries(TRAPS)) {
    const spring = () => setAll({ ...playgroundDefaults(), ...values });
    byId("play-traps").append(makeButton(name, spring));
  }
  const settings = Object.keys(playgroundDefaults()).filter((name) => name !== "playground.step");
  watch(settings, trainPlayground);
  watch(["playground.step"], showPlayground);
  byId("play-play").addEventListener("click", playOrPause);
  byId("play-reset").addEventListener("click", () => moveTo(0));
  byId("play-back").addEventListener("click", () => moveTo(shownStep() - 1));
  byId("play-next").addEventListener("click", () => moveTo(shownStep() + 1));
  byId("play-step").addEventListener("input", (event) => moveTo(Number(event.target.value)));
  trainPlayground();
  offerPython("playground", playgroundInPython);
  drawToFit(byId("play-loss"), showPlayground);
  startRanks();
}

// Every value of the playground, by its name in the state, with what get() says of it.
function playgroundValues(read) {
  const names = Object.keys(state.defaults).filter((name) => name.startsWith("playground."));
  return Object.fromEntries(names.map((name) => [name, read(name)]));
}

function playgroundDefaults() {
  return playgroundValues((name) => state.defaults[name]);
}

// The values by their names without "playground.".
function playgroundSettings() {
  const values = Object.entries(playgroundValues(get));
  return Object.fromEntries(values.map(([name, value]) => [name.split(".")[1], value]));
}

let stopTraining = () => {};

function trainPlayground() {
  stopPlaying();
  stopTraining();
  const settings = playgroundSettings();
  const chosen = settings.method === "both" ? Object.keys(METHODS) : [settings.method];
  const runs = Object.fromEntries(chosen.map((method) => [method, { losses: [], changes: [] }]));
  playground = { settings, task: drawTask(settings), runs, trained: false };
  stopTraining = inSlices(trainStudents(playground), showPlayground);
}

function* trainStudents(mine) {
  const { alpha, r, rate, full_rate, steps, start } = mine.settings;
  for (const [method, { losses, changes }] of Object.entries(mine.runs)) {
    const lora = method === "lora";
    const student = lora
      ? loraStudent(mine.task, alpha / r, start === "zero")
      : fullStudent(mine.task);
    for (const { change, loss } of training(mine.task, student, lora ? rate : full_rate, steps)) {
      losses.push(loss);
      changes.push(Float32Array.from(change.data));
      yield;
    }
  }
  mine.trained = true;
}

function shownStep() {
  return Math.min(Math.max(Math.round(get("playground.step")), 0), get("playground.steps"));
}

function moveTo(step) {
  stopPlaying();
  showStep(step);
}

function showStep(step) {
  const last = step >= get("playground.steps");
  set("playground.step", last ? state.defaults["playground.step"] : Math.max(step, 0));
}

function prefersCalm() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}

let playing; // the timer

function playOrPause() {
  if (playing) return stopPlaying();
  const steps = get("playground.steps");
  const [stride, pause] = prefersCalm()
    ? [steps / 5, 1000]
    : [Math.max(1, Math.round(steps / 200)), 30];
  if (shownStep() === steps) showStep(0);
  playing = setInterval(() => {
    showStep(shownStep() + stride);
    if (shownStep() === steps) stopPlaying();
  }, pause);
  byId("play-play").textContent = "Pause";
}

function stopPlaying() {
  clearInterval(playing);
  playing = undefined;
  byId("play-play").textContent = "Play";
}
