// The live model: base and adapted model write side by side, and say what they expect.
//
// Everything shown follows from the state. update() keeps what a change has not touched, and
// computes the rest in slices.
const FIRST_TEXT = 240; // characters of a text, before anybody presses a button
const FULL_TEXT = 400;
const KINDS = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"];
const KIND_NAMES = ["query", "key", "value", "attention output", "MLP up", "MLP down"];
const AS_TRAINED = { "live.strength": 1, "live.rank": 4, "live.time": 0 };
for (const kind of KINDS) AS_TRAINED[`live.${kind}`] = true;

declare(AS_TRAINED);
declare({
  "live.prompt": "def ",
  "live.temperature": 0.7,
  "live.seed": 1,
  "live.written": FIRST_TEXT,
  "live.after": "prompt",
});

const live = { kept: {}, stop: () => {} };

function startLive(data) {
  live.data = data;
  live.model = readModel(data);
  live.adapters = readAdapters(data);
  Object.assign(AS_TRAINED, { "live.rank": data.rank, "live.time": data.steps.length - 1 });
  declare(AS_TRAINED);
  const section = byId("live");
  tellSizes(section, data);
  const time = section.querySelector("#live-time");
  time.max = data.steps.length - 1;
  time.dataset.labels = data.steps.join(" ");
  section.querySelector("#live-rank").max = data.rank;
  bindControls(section);
  listen(section);
  watch(["live."], update);
  update();
  drawToFit(byId("live-curves"), drawCurves);
  watch(["live.strength", "live.time"], drawCurves);
  offerPython("live", () => liveInPython(data));
}

function listen(section) {
  for (const button of section.querySelectorAll("[data-try]")) {
    button.addEventListener("click", () =>
      setAll({ ...AS_TRAINED, ...JSON.parse(button.dataset.try) }),
    );
  }
  const on = (id, act) => section.querySelector(id).addEventListener("click", act);
  on("#live-one", () =>
    setAll({ "live.written": Math.min(FULL_TEXT, written() + 1), "live.after": "text" }),
  );
  on("#live-again", () => set("live.written", 0));
  runButton(byId("live-play"), 30, () => {
    set("live.written", written() < FULL_TEXT ? written() + 1 : 0);
    return written() < FULL_TEXT;
  });
  runButton(byId("live-learn"), 1000, () => {
    set("live.time", (get("live.time") + 1) % live.data.steps.length);
    return get("live.time") < live.data.steps.length - 1;
  });
}

// Makes a button start and stop what goes on in time: step() is called every so many milliseconds,
// until the button is pressed again, or step() returns false.
function runButton(button, milliseconds, step) {
  const label = button.textContent;
  let timer;
  const stop = () => {
    timer = clearInterval(timer);
    button.textContent = label;
  };
  const tick = () => {
    if (!step()) stop();
  };
  button.addEventListener("click", () => {
    if (timer) return stop();
    button.textContent = "Pause";
    timer = setInterval(tick, milliseconds);
    tick();
  });
}

// How many characters of each text are shown.
function written() {
  return Math.min(FULL_TEXT, Math.max(0, Math.round(get("live.written"))));
}

// What was made under this name for this key, or else create() it.
function keep(name, key, create) {
  if (live.kept[name]?.key !== key) live.kept[name] = { key, value: create() };
  return live.kept[name].value;
}

function update() {
  live.stop();
  const { model } = live;
  const [time, strength, rank] = [get("live.time"), get("live.strength"), get("live.rank")];
  const kinds = KINDS.filter((kind) => get(`live.${kind}`));
  const settings = [time, strength, rank, ...kinds].join();
  live.weights = keep("weights", settings, () =>
    merge(model.weights, live.adapters[time], strength, rank, new Set(kinds)),
  );
  live.sides = [side("base", model.weights, ""), side("adapted", live.weights, settings)];
  keep("spectrum", [time, rank, ...kinds].join(), () => drawSpectrum(kinds));
  drawSurprise();
  live.writing = true;
  live.stop = inSlices(liveWork(), () => live.writing && drawTexts());
}

// What one of the two models has: its text, what it has read, and its surprise on other texts.
// settings: what its weights depend on.
function side(name, weights, settings) {
  const { model } = live;
  const [prompt, temperature, seed] = [
    get("live.prompt"),
    get("live.temperature"),
    get("live.seed"),
  ];
  const of = (what, key, create) => keep(`${what} of ${name}`, key, create);
  const found = of("surprises", settings, () => []);
  return {
    found,
    measuring: of("measuring", settings, () => measureSurprise(weights, found)),
    reader: of("reader", settings, () => new Reader(model, weights)),
    writer: of("writer", JSON.stringify([settings, prompt, temperature, seed]), () => {
      return new Writer(model, weights, idsOf(prompt), temperature, seed);
    }),
  };
}

// What takes long: the texts, then the surprise on texts that are kept for that. A measurement that
// was interrupted goes on where it was, if its model is still the one that is shown.
function* liveWork() {
  const writers = live.sides.map(({ writer }) => writer);
  if (get("live.after") === "prompt") drawNext(idsOf(get("live.prompt")));
  yield;
  while (writers.some((writer) => writer.written < written())) {
    for (const writer of writers) if (writer.written < written()) writer.write();
    yield;
  }
  drawTexts();
  live.writing = false;
  if (get("live.after") === "text") drawNext(writers[1].shown(written()));
  for (const { measuring } of live.sides) yield* measuring;
}

// Nats per character of each of the texts, as they become known, into `found`.
function* measureSurprise(weights, found) {
  for (const windows of live.data.heldOut) {
    let total = 0;
    for (const text of windows) total += yield* surprise(live.model, weights, idsOf(text));
    found.push(total / windows.length);
    drawSurprise();
  }
}

function idsOf(text) {
  return [...text].map((character) => live.model.alphabet.indexOf(character));
}
