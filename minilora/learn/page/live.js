// The live model: base and adapted model write side by side, and say what they expect.
//
// Everything shown follows from the state. update() keeps what a change has not touched, and
// computes the rest in slices.
const FULL_TEXT = 400; // characters of a text
const KINDS = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"];
const KIND_NAMES = ["query", "key", "value", "attention output", "MLP up", "MLP down"];
const AS_TRAINED = { "live.strength": 1, "live.rank": 4, "live.time": 0 };
for (const kind of KINDS) AS_TRAINED[`live.${kind}`] = true;

declare(AS_TRAINED);
declare({ "live.prompt": "def ", "live.temperature": 0.7, "live.seed": 1, "live.written": 240, "live.after": "prompt" });

const live = { kept: {}, stop: () => {}, playing: undefined };

function startLive(data) {
  live.data = data;
  live.model = readModel(data);
  live.adapters = readAdapters(data);
  Object.assign(AS_TRAINED, { "live.rank": data.rank, "live.time": data.steps.length - 1 });
  declare(AS_TRAINED);
  const section = byId("live");
  tellSizes(section, data);
  const time = section.querySelector("#live-time");
  Object.assign(time, { max: data.steps.length - 1 });
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

function tellSizes(section, data) {
  const sizeOf = (name) => data.shapes[name].reduce((product, n) => product * n, 1);
  const total = Object.keys(data.shapes).reduce((sum, name) => sum + sizeOf(name), 0);
  const trained = data.adapted.reduce((sum, path) => {
    const [d_in, d_out] = data.shapes[path + ".weight"];
    return sum + data.rank * (d_in + d_out);
  }, 0);
  const surpriseAt = (strength) => data.curves.at(-1)[0][data.strengths.indexOf(strength)].toFixed(2);
  const said = {
    python0: surpriseAt(0),
    python1: surpriseAt(1),
    python3: surpriseAt(3),
    total: total.toLocaleString("en"),
    trained: trained.toLocaleString("en"),
    share: `${((100 * trained) / total).toFixed(1)} %`,
    rank: data.rank,
    allSteps: data.steps.at(-1),
  };
  for (const place of section.querySelectorAll("[data-live]")) place.textContent = said[place.dataset.live];
}

function listen(section) {
  for (const button of section.querySelectorAll("[data-try]")) {
    button.addEventListener("click", () => setAll({ ...AS_TRAINED, ...JSON.parse(button.dataset.try) }));
  }
  const on = (id, act) => section.querySelector(id).addEventListener("click", act);
  on("#live-one", () => setAll({ "live.written": Math.min(FULL_TEXT, written() + 1), "live.after": "text" }));
  on("#live-again", () => set("live.written", 0));
  on("#live-play", () => (live.playing ? pause() : play()));
}

function play() {
  if (written() >= FULL_TEXT) set("live.written", 0);
  byId("live-play").textContent = "Pause";
  live.playing = setInterval(() => {
    set("live.written", written() + 1);
    if (written() >= FULL_TEXT) pause();
  }, 30);
}

function pause() {
  byId("live-play").textContent = "Write on";
  live.playing = clearInterval(live.playing);
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
  const prompt = idsOf(get("live.prompt"));
  const kinds = KINDS.filter((kind) => get(`live.${kind}`));
  const settings = [get("live.time"), get("live.strength"), get("live.rank"), ...kinds].join();
  const text = [get("live.prompt"), get("live.temperature"), get("live.seed")].join();
  const newWriter = (weights) => new Writer(model, weights, prompt, get("live.temperature"), get("live.seed"));

  live.weights = keep("weights", settings, () =>
    merge(model.weights, live.adapters[get("live.time")], get("live.strength"), get("live.rank"), new Set(kinds)),
  );
  live.readers = [
    keep("base reader", "", () => new Reader(model, model.weights)),
    keep("adapted reader", settings, () => new Reader(model, live.weights)),
  ];
  live.writers = [
    keep("base writer", text, () => newWriter(model.weights)),
    keep("adapted writer", text + settings, () => newWriter(live.weights)),
  ];
  live.surprises = [keep("base surprise", "", () => []), keep("adapted surprise", settings, () => [])];
  live.measuring = [
    keep("base measuring", "", () => measureSurprise(model.weights, live.surprises[0])),
    keep("adapted measuring", settings, () => measureSurprise(live.weights, live.surprises[1])),
  ];
  keep("spectrum drawn", [get("live.time"), get("live.rank"), ...kinds].join(), () => drawSpectrum(kinds));
  drawSurprise();
  live.writing = true;
  live.stop = inSlices(liveWork(prompt), () => live.writing && drawTexts());
}

// What takes long: the texts, then the surprise on texts that are kept for that. A measurement that
// was interrupted goes on where it was, if its model is still the one that is shown.
function* liveWork(prompt) {
  if (get("live.after") === "prompt") drawNext(prompt);
  yield;
  while (live.writers.some((writer) => writer.written < written())) {
    for (const writer of live.writers) if (writer.written < written()) writer.write();
    yield;
  }
  drawTexts();
  live.writing = false;
  if (get("live.after") === "text") drawNext(live.writers[1].ids.slice(0, prompt.length + written()));
  for (const measuring of live.measuring) yield* measuring;
}

// Nats per character of each of the texts, as they become known, into `found`.
function* measureSurprise(weights, found) {
  for (const windows of live.data.heldOut) {
    let total = 0;
    for (const text of windows) {
      total += yield* surprise(live.model, weights, idsOf(text));
    }
    found.push(total / windows.length);
    drawSurprise();
  }
}

function drawTexts() {
  for (const [i, id] of ["live-base-text", "live-adapted-text"].entries()) {
    const { ids, prompt } = live.writers[i];
    const given = make("b", {}, spell(ids.slice(0, prompt)));
    const box = byId(id);
    box.replaceChildren(given, spell(ids.slice(prompt, prompt + written())));
    if (live.playing) box.scrollTop = box.scrollHeight;
  }
}

function idsOf(text) {
  return [...text].map((character) => live.model.alphabet.indexOf(character));
}

function spell(ids) {
  return ids.map((id) => live.model.alphabet[id]).join("");
}

// The table of surprises, and a sentence that says what they are in this state.
function drawSurprise() {
  const [base, adapted] = live.surprises;
  for (const [j, row] of document.querySelectorAll("#live-surprise tbody tr").entries()) {
    for (const [i, nats] of live.surprises.entries()) {
      const shown = nats[j] === undefined ? ["…"] : bar(nats[j] / 5, nats[j].toFixed(2), i);
      row.cells[i + 1].replaceChildren(...shown);
    }
  }
  const measured = adapted.length === 2 && base.length === 2;
  const steps = live.data.steps[get("live.time")];
  const state = `After ${steps} steps of training, at strength ${get("live.strength")} and rank ${get("live.rank")}, `;
  const change = (j) => `from ${base[j].toFixed(2)} to ${adapted[j].toFixed(2)}`;
  byId("live-now").textContent = measured
    ? `${state}the surprise on Python goes ${change(0)} nats per character, on English ${change(1)}.`
    : `${state}the surprise of the adapted model is …`;
}

// Nats per character against strength, for both texts, and in words where each is least.
function drawCurves() {
  const { curves, strengths, steps } = live.data;
  const [python, english] = curves[get("live.time")];
  const points = (losses) => losses.map((nats, i) => [strengths[i], nats]);
  const least = (losses) => {
    const nats = Math.min(...losses);
    return `at strength ${strengths[losses.indexOf(nats)]} (${nats.toFixed(2)} nats)`;
  };
  const trained = steps[get("live.time")];
  const said = trained
    ? `After ${trained} steps the surprise is least ${least(python)} on Python and ${least(english)} on English.`
    : "Before training every strength gives the base model: ΔW is 0.";
  byId("live-least").textContent = said;
  lineChart(byId("live-curves"), {
    label: said,
    x: { label: "strength λ of the adapter", min: 0, max: strengths.at(-1) },
    y: { label: "nats per character", min: 0, max: Math.ceil(Math.max(...curves.flat(2))) },
    lines: [
      { class: "python", points: points(python) },
      { class: "english", points: points(english) },
    ],
    cursor: get("live.strength"),
    height: 240,
  });
}

// The likeliest next characters after ids, of both models.
function drawNext(ids) {
  const p = live.readers.map((reader) => softmax(reader.after(ids, get("live.prompt").length)));
  const best = (id) => Math.max(p[0][id], p[1][id]);
  const likeliest = Array.from(p[0].keys()).sort((a, b) => best(b) - best(a)).slice(0, 10);
  const rows = likeliest.map((id) => {
    const row = make("tr", {}, headCell(nameOfCharacter(live.model.alphabet[id]), "row"));
    for (const i of [0, 1]) row.append(make("td", {}, ...bar(p[i][id], `${(100 * p[i][id]).toFixed(1)} %`, i)));
    return row;
  });
  document.querySelector("#live-next tbody").replaceChildren(...rows);
}

function nameOfCharacter(character) {
  return { " ": "space", "\n": "line end" }[character] ?? character;
}

// A bar as long as this share of its cell, with a number; of the base (i = 0) or the adapted model.
function bar(share, number, i) {
  const line = make("span", { class: i ? "bar of-adapted" : "bar of-base" });
  line.style.setProperty("--share", Math.min(1, share));
  return [line, make("span", { class: "number" }, number)];
}

// A row for each kind of matrix, a cell for each layer, a bar for each singular value.
function drawSpectrum(kinds) {
  const { data, adapters } = live;
  const all = keep("singular values", "", () => adapters.map((adapter) => {
    return Object.fromEntries(Object.entries(adapter).map(([path, layer]) => [path, singularValuesOf(layer)]));
  }));
  const highest = Math.max(...all.flatMap((ofPaths) => Object.values(ofPaths).flat()));
  const layers = Array.from({ length: data.layers }, (_, i) => i);
  const head = make("tr", {}, headCell("matrix", "col"), ...layers.map((i) => headCell(`block ${i + 1}`, "col")));
  document.querySelector("#live-spectrum thead").replaceChildren(head);
  const rows = KINDS.map((kind, n) => {
    const row = make("tr", {}, headCell(KIND_NAMES[n], "row"));
    for (const i of layers) {
      const path = live.data.adapted.find((p) => p.startsWith(`layers.${i}.`) && kindOf(p) === kind);
      const kept = kinds.includes(kind) ? get("live.rank") : 0;
      row.append(spectrumCell(all[get("live.time")][path], highest, kept));
    }
    return row;
  });
  document.querySelector("#live-spectrum tbody").replaceChildren(...rows);
}

function headCell(text, scope) {
  return make("th", { scope }, text);
}

function spectrumCell(values, highest, kept) {
  const columns = make("span", { class: "columns", role: "img", "aria-label": values.map((v) => v.toFixed(2)).join(", ") });
  for (const [k, value] of values.entries()) {
    const column = make("span", { class: k < kept ? "column" : "column hollow" });
    column.style.setProperty("--share", value / highest);
    columns.append(column);
  }
  return make("td", {}, columns, make("span", { class: "number" }, values[0].toFixed(2)));
}

// The state shown as lines of Python, which give the same probabilities and surprises.
function liveInPython(data) {
  const kinds = KINDS.filter((kind) => get(`live.${kind}`));
  const prompt = JSON.stringify(get("live.prompt"));
  const temperature = get("live.temperature");
  return `import minilora as ml
from minilora.experiments.tuning import set_up

tuned = set_up("code", "lora")  # docs-tiny with a new adapter
for _ in range(${data.steps[get("live.time")]}):
    tuned.training.step()

model = ml.load_model("docs-tiny")
for name, parameter in model.named_parameters():
    path = name.removesuffix(".weight")
    if path.endswith((${kinds.map((kind) => `"${kind}", `).join("").trim()})):
        delta = ml.get_delta_weight(tuned.model, path)
        parameter.data += ${get("live.strength")} * ml.analysis.truncate(delta, ${get("live.rank")})

print(ml.text_loss(model, ml.load_corpus("code").test, 8), "nats per character on Python")
print(ml.text_loss(model, ml.load_corpus("prose").test, 8), "on English")
# Its random numbers are not the page's: only at temperature 0 the text is the same.
print(ml.write(model, ${prompt}, ${written()}, temperature=${temperature}, seed=${get("live.seed")}))`;
}
