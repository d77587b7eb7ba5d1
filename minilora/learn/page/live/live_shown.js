// What the live model shows: texts, surprise, next characters, singular values, lines of Python.
// The numbers in the text that do not depend on the state.
function tellSizes(section, data) {
  const sizeOf = (name) => data.shapes[name].reduce((product, n) => product * n, 1);
  const total = Object.keys(data.shapes).reduce((sum, name) => sum + sizeOf(name), 0);
  const trained = data.adapted.reduce((sum, path) => {
    const [d_in, d_out] = data.shapes[path + ".weight"];
    return sum + data.rank * (d_in + d_out);
  }, 0);
  const python = data.curves.at(-1)[0]; // the surprise on Python, against strength
  const surpriseAt = (strength) => python[data.strengths.indexOf(strength)].toFixed(2);
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
  for (const place of section.querySelectorAll("[data-live]")) {
    place.textContent = said[place.dataset.live];
  }
}

function drawTexts() {
  for (const [i, id] of ["live-base-text", "live-adapted-text"].entries()) {
    const { writer } = live.sides[i];
    const [given, box] = [spell(writer.shown(0)), byId(id)];
    const following = spell(writer.shown(written())).slice(given.length);
    box.replaceChildren(make("b", {}, given), following);
    if (written() > FIRST_TEXT) box.scrollTop = box.scrollHeight; // what was written last
  }
}

function spell(ids) {
  return ids.map((id) => live.model.alphabet[id]).join("");
}

// The table of surprises, and a sentence that says what they are in this state.
function drawSurprise() {
  const [base, adapted] = live.sides.map(({ found }, i) =>
    [0, 1].map((j) => found[j] ?? surpriseWhenMade(i, j)));
  for (const [j, row] of document.querySelectorAll("#live-surprise tbody tr").entries()) {
    for (const [i, nats] of [base, adapted].entries()) {
      const shown = nats[j] === undefined ? ["…"] : bar(nats[j] / 5, nats[j].toFixed(2), i);
      row.cells[i + 1].replaceChildren(...shown);
    }
  }
  const isMeasured = live.sides.every(({ found }) => found.length === 2);
  byId("live-surprise").setAttribute("aria-busy", String(!isMeasured));
  const isKnown = [...base, ...adapted].every((nats) => nats !== undefined);
  const steps = live.data.steps[get("live.time")];
  const [strength, rank] = [get("live.strength"), get("live.rank")];
  const state = `After ${steps} steps of training, at strength ${strength} and rank ${rank}, `;
  const change = (j) => `from ${base[j].toFixed(2)} to ${adapted[j].toFixed(2)}`;
  byId("live-now").textContent = isKnown
    ? `${state}the surprise on Python goes ${change(0)} nats per character, on English ` +
      `${change(1)}.`
    : `${state}the surprise of the adapted model is …`;
}

// What was measured when the page was made, of the base (i = 0) or the adapted model on text j, or
// undefined: it was at some strengths of all of ΔW.
function surpriseWhenMade(i, j) {
  const { curves, strengths, rank } = live.data;
  const strength = i ? get("live.strength") : 0;
  const isWhole = get("live.rank") === rank && KINDS.every((kind) => get(`live.${kind}`));
  const place = strength === 0 || isWhole ? strengths.indexOf(strength) : -1;
  return curves[get("live.time")][j][place];
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
  const both = `${least(python)} on Python and ${least(english)} on English`;
  const said = trained
    ? `After ${trained} steps the surprise is least ${both}.`
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
  const p = live.sides.map(({ reader }) => softmax(reader.after(ids, get("live.prompt").length)));
  const best = (id) => Math.max(p[0][id], p[1][id]);
  const likeliest = Array.from(p[0].keys())
    .sort((a, b) => best(b) - best(a))
    .slice(0, 10);
  const rows = likeliest.map((id) => {
    const row = make("tr", {}, headCell(nameOfCharacter(live.model.alphabet[id]), "row"));
    for (const [i, ofModel] of p.entries()) {
      row.append(make("td", {}, ...bar(ofModel[id], `${(100 * ofModel[id]).toFixed(1)} %`, i)));
    }
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
  const highest = keep("highest singular value", "", () => {
    return Math.max(...adapters.flatMap(Object.values).flatMap(singularValuesOf));
  });
  const layers = Array.from({ length: data.layers }, (_, i) => i);
  const heads = ["matrix", ...layers.map((i) => `block ${i + 1}`)];
  const head = make("tr", {}, ...heads.map((text) => headCell(text, "col")));
  document.querySelector("#live-spectrum thead").replaceChildren(head);
  const rows = KINDS.map((kind, n) => {
    const row = make("tr", {}, headCell(KIND_NAMES[n], "row"));
    for (const i of layers) {
      const path = data.adapted.find((p) => p.startsWith(`layers.${i}.`) && kindOf(p) === kind);
      const values = singularValuesOf(adapters[get("live.time")][path]);
      row.append(spectrumCell(values, highest, kinds.includes(kind) ? get("live.rank") : 0));
    }
    return row;
  });
  document.querySelector("#live-spectrum tbody").replaceChildren(...rows);
}

function headCell(text, scope) {
  return make("th", { scope }, text);
}

function spectrumCell(values, highest, kept) {
  const label = values.map((value) => value.toFixed(2)).join(", ");
  const columns = make("span", { class: "columns", role: "img", "aria-label": label });
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
  const drawn = `temperature=${get("live.temperature")}, seed=${get("live.seed")}`;
  return `import minilora as ml
from minilora.experiments.tuning import set_up

tuned = set_up("code", "lora")  # docs-tiny with a new adapter
for _ in range(${data.steps[get("live.time")]}):
    tuned.training.step()

model = ml.load_model("docs-tiny")
for name, parameter in model.named_parameters():
    path = name.removesuffix(".weight")
    if path.endswith((${kinds
      .map((kind) => `"${kind}", `)
      .join("")
      .trim()})):
        delta = ml.get_delta_weight(tuned.model, path)
        parameter.data += ${get("live.strength")} * ml.analysis.truncate(delta, ${get("live.rank")})

print(ml.text_loss(model, ml.load_corpus("code").test, 8), "nats per character on Python")
print(ml.text_loss(model, ml.load_corpus("prose").test, 8), "on English")
# Its random numbers are not the page's: only at temperature 0 the text is the same.
print(ml.write(model, ${prompt}, ${written()}, ${drawn}))`;
}
