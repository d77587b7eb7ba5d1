// A card on the page has two faces: its question with ways to answer, and its answer with reasons.
//
// An answer that a person has given is {key, text}: the key of the choice that it comes to, "" if
// to none of them, and what was typed or put together.
const LETTERS = "ABCDEFGH";

// The texts of a card, cloned from its template.
function cardTexts(card) {
  const texts = byId(`card-${card.id}`).content.cloneNode(true);
  const one = (name) => texts.querySelector(`.${name}`);
  const all = (name) => [...texts.querySelectorAll(`.${name}`)];
  return {
    question: one("question"),
    items: one("items"), // of the kinds order and match
    options: one("options"), // of the kind match
    choices: all("text"),
    whys: all("why"),
    explanation: one("explanation"),
    source: one("source"),
    does: one("does"), // what its demo does
  };
}

// Are the choices seen at once, with letters? If not, the answer is typed or put together.
function isLettered({ kind }) {
  return kind === "choice" || kind === "error";
}

function isRightAnswer(card, given) {
  return Boolean(given) && given.key === card.answer;
}

function faceTitle(text) {
  return make("h3", { tabindex: "-1", class: "face-title" }, text);
}

// The face with the question. order: the numbers of the choices, as they are shown. given: the
// answer so far, or null. take(given) is called with each new one, and keep(given) with what stands
// in the form while its button is not pressed yet.
function questionFace(card, { order, given, take, title, keep = () => {} }) {
  const texts = cardTexts(card);
  const face = make("div", { class: "face" }, faceTitle(title), texts.question);
  const choices = choiceButtons(card, texts, order, given, take);
  if (isLettered(card)) {
    face.append(choices);
    return face;
  }
  const summary = make("summary", {}, "Choose from a list instead");
  const list = make("details", { open: Boolean(given?.key) }, summary, choices);
  const lists = [texts.items, texts.options].filter(Boolean);
  face.append(...lists, answerForm(card, texts, given, { take, keep, list }), list);
  return face;
}

// Browsers leave MathML out of a button's name: a screen reader gets the linear form of formulas.
function choiceButtons(card, texts, order, given, take) {
  const entries = order.map((number, place) => {
    const key = card.keys[number];
    const letter = make("span", { class: "letter" }, LETTERS[place]);
    const shown = make("span", {}, ...texts.choices[number].childNodes);
    const text = card.texts[number].replace(/[$`{}]/g, "");
    const button = makeButton([letter, shown], () => take({ key, text }), {
      "data-key": key,
      "aria-label": `${LETTERS[place]}: ${text}`,
      "aria-pressed": String(given?.key === key),
    });
    return make("li", {}, button);
  });
  return make("ul", { class: "answers" }, ...entries);
}

// A line to type the answer of a cloze, or a select for each item that is to be ordered or matched.
// list: the choices, for an answer that is none of them.
function answerForm(card, texts, given, { take, keep, list }) {
  const fields = card.kind === "cloze" ? [gapField(given)] : itemFields(card, texts, given);
  const problem = make("p", { class: "problem", role: "status" });
  const labels = fields.map(({ label, control }) => make("label", {}, label, control));
  const form = make("form", { class: "typing" }, ...labels, make("button", {}, "Answer"), problem);
  const answer = () => {
    const text = fields.map(({ control }) => control.value.trim()).join(" ");
    return { key: keyOfTyped(card, text), text };
  };
  form.addEventListener("change", () => {
    if (form.checkValidity()) keep(answer());
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (answer().key || card.kind !== "cloze") {
      take(answer());
    } else {
      problem.textContent = "That is not recognized as an answer: choose the one you mean.";
      list.open = true;
    }
  });
  return form;
}

function gapField(given) {
  const plain = { autocomplete: "off", autocapitalize: "off", spellcheck: "false" };
  const control = make("input", { type: "text", required: true, ...plain });
  control.value = given ? given.text : "";
  return { label: "Fill the gap: ", control };
}

// The parts of an order such as "2 4 1 3", or of a match such as "1B 2A 3C".
function itemFields(card, texts, given) {
  const isOrder = card.kind === "order";
  const before = given ? given.text.split(" ") : [];
  const items = [...texts.items.children];
  const letters = LETTERS.slice(0, texts.options?.children.length);
  return items.map((_, i) => {
    const control = make("select", { required: true }, make("option", { value: "" }, "–"));
    for (const name of isOrder ? items.map((_, k) => k + 1) : letters) {
      control.append(make("option", { value: isOrder ? name : `${i + 1}${name}` }, name));
    }
    control.value = before[i] || "";
    return { label: isOrder ? `Step ${i + 1}: ` : `${i + 1} is `, control };
  });
}

// The face with the answer. given: what was answered, or null.
function answerFace(card, { order, given }) {
  const texts = cardTexts(card);
  const reason = (number, intro) => choiceReason(card, texts, order, number, intro);
  const answer = card.keys.indexOf(card.answer);
  const chosen = given ? card.keys.indexOf(given.key) : -1;
  const others = order.filter((number) => number !== answer && number !== chosen);
  const result = make("div", { class: "result" });
  if (given && chosen < 0) result.append(unlistedAnswer(card, texts, given.text));
  if (chosen >= 0 && chosen !== answer) result.append(reason(chosen, "You chose"));
  result.append(
    reason(answer, "The answer is"),
    texts.explanation,
    make("details", {}, make("summary", {}, "Why not the others"),
      ...others.map((number) => reason(number, ""))),
    measurement(card, order),
    make("p", { class: "note" }, "Source: ", ...texts.source.childNodes,
      `. Lesson ${card.lesson}: ${CARDS.lessons[card.lesson]}.`),
  );
  const [title, kind] = verdictOn(card, given);
  return make("div", { class: `face ${kind}` }, faceTitle(title), texts.question, result);
}

function verdictOn(card, given) {
  if (!given) return ["The answer", ""];
  return isRightAnswer(card, given) ? ["✓ Right", "is-right"] : ["✗ Wrong", "is-wrong"];
}

function letterOf(card, order, key) {
  return LETTERS[order.indexOf(card.keys.indexOf(key))];
}

// A choice and why it is right or wrong.
function choiceReason(card, texts, order, number, intro) {
  const letter = isLettered(card) ? `${letterOf(card, order, card.keys[number])}. ` : "";
  const choice = texts.choices[number];
  return make("div", { class: "reason" },
    make("p", {}, make("b", {}, `${intro} ${letter}`), ...choice.cloneNode(true).childNodes),
    spelledOut(texts, choice.textContent),
    make("p", { class: "why" }, ...texts.whys[number].childNodes));
}

// What is none of the choices; of an order or a match, how much of it is right.
function unlistedAnswer(card, texts, text) {
  const answer = card.texts[card.keys.indexOf(card.answer)].split(" ");
  const right = text.split(" ").filter((part, i) => part === answer[i]).length;
  const judged = texts.items ? `${right} of ${answer.length} right` : "not recognized as a choice";
  return make("div", { class: "reason" },
    make("p", {}, make("b", {}, "You answered "), `${text}: ${judged}.`), spelledOut(texts, text));
}

// The items in the order "2 1 3"; of "1B 2A" each with its option; nothing without items.
function spelledOut(texts, answer) {
  if (!texts.items) return "";
  const lines = answer.split(" ").map(([number, letter]) => {
    const line = texts.items.children[number - 1].cloneNode(true);
    const option = texts.options?.children[LETTERS.indexOf(letter)];
    if (option) line.append(" → ", ...option.cloneNode(true).childNodes);
    return line;
  });
  return make("ol", {}, ...lines);
}

// What the demo of a card measured, and which choice that supports.
function measurement(card, order) {
  const rows = card.measured.map(([name, value]) =>
    make("tr", {}, make("th", { scope: "row" }, name), make("td", { class: "number" }, value)));
  const { does } = cardTexts(card);
  const supported = supportedText(card, order);
  return make("div", { class: "measured" },
    make("p", { class: "note" }, "Measured when this page was made: ", ...does.childNodes),
    make("table", { "aria-label": "What was measured" }, make("tbody", {}, ...rows)),
    make("p", {}, `Of what the choices claim, these numbers support ${supported}.`));
}

function supportedText(card, order) {
  const letters = card.supported.map((key) => letterOf(card, order, key));
  if (letters.length !== 1) return letters.join(" and ") || "none";
  return `${isLettered(card) ? letters[0] : "this answer"} alone`;
}
