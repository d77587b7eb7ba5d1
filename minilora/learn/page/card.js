// A card on the page has two faces: its question with ways to answer, and its answer with reasons.
//
// An answer that a person has given is {key, text}: the key of the choice that it comes to, "" if
// to none of them, and what was typed.
const LETTERS = "ABCDEFGH";

// The texts of a card, cloned from its template.
function cardTexts(card) {
  const texts = byId(`card-${card.id}`).content.cloneNode(true);
  const [question, items, options, explanation, source] = [
    "question", "items", "options", "explanation", "source",
  ].map((name) => texts.querySelector(`.${name}`));
  const choices = [...texts.querySelectorAll(".text")];
  const whys = [...texts.querySelectorAll(".why")];
  return { question, items, options, explanation, source, choices, whys };
}

// The face with the question. order: the choices' numbers as they are shown. take(given) is called
// with each answer; given: the one so far, or null.
function questionFace(card, { order, given, take, title }) {
  const texts = cardTexts(card);
  const face = make("div", { class: "face" }, faceTitle(title), texts.question);
  if (texts.items) face.append(texts.items);
  if (texts.options) face.append(texts.options);
  const choices = choiceButtons(card, texts, order, given, take);
  if (card.kind === "choice" || card.kind === "error") {
    face.append(choices);
  } else {
    const listed = make("details", { open: Boolean(given && given.key) },
      make("summary", {}, "Choose from a list instead"), choices);
    face.append(answerForm(card, texts, given, take, listed), listed);
  }
  return face;
}

function faceTitle(title) {
  return make("h3", { tabindex: "-1", class: "face-title" }, title);
}

function choiceButtons(card, texts, order, given, take) {
  const list = make("ul", { class: "answers" });
  order.forEach((number, place) => {
    const key = card.keys[number];
    const button = make(
      "button",
      {
        type: "button",
        "data-key": key,
        "aria-pressed": String(Boolean(given) && given.key === key),
        onclick: () => take({ key, text: card.typed[number] }),
      },
      make("span", { class: "letter" }, LETTERS[place]),
      make("span", {}, ...texts.choices[number].childNodes),
    );
    list.append(make("li", {}, button));
  });
  return list;
}

// A line to type the answer of a cloze, or a select for each item that is to be ordered or matched.
function answerForm(card, texts, given, take, listed) {
  const fields = card.kind === "cloze" ? [gapField(given)] : itemSelects(card, texts, given);
  const problem = make("p", { class: "problem", role: "status" });
  const submit = (event) => {
    event.preventDefault();
    const text = fields.map((field) => field.value.trim()).join(" ");
    const key = keyOfTyped(card, text);
    if (card.kind === "cloze" && key === "") {
      problem.textContent = "This page does not recognize that as one of the answers. Choose the one you mean.";
      listed.open = true;
    } else {
      take({ key, text });
    }
  };
  const labels = fields.map((field) => make("label", {}, `${field.title} `, field));
  return make("form", { class: "typing", onsubmit: submit }, ...labels,
    make("button", {}, "Answer"), problem);
}

function gapField(given) {
  const field = make("input", {
    type: "text", required: true, title: "Fill the gap:", autocomplete: "off", spellcheck: "false",
  });
  field.value = given ? given.text : "";
  return field;
}

// For an order "2 4 1 3" the places, for a match "1B 2A" the letters.
function itemSelects(card, texts, given) {
  const before = given ? given.text.split(" ") : [];
  return [...texts.items.children].map((item, i) => {
    const isOrder = card.kind === "order";
    const values = isOrder
      ? [...texts.items.children].map((_, number) => String(number + 1))
      : [...texts.options.children].map((_, number) => `${i + 1}${LETTERS[number]}`);
    const options = values.map((value) => make("option", { value }, isOrder ? value : value.slice(1)));
    const title = isOrder ? `Step ${i + 1}:` : `${i + 1} is`;
    const select = make("select", { required: true, title }, make("option", { value: "" }, "–"), ...options);
    select.value = values.includes(before[i]) ? before[i] : "";
    return select;
  });
}

// The face with the answer. given: what was answered, or null.
function answerFace(card, { order, given }) {
  const texts = cardTexts(card);
  const isRight = isRightAnswer(card, given);
  const title = !given ? "The answer" : isRight ? "✓ Right" : "✗ Wrong";
  const kind = !given ? "" : isRight ? "is-right" : "is-wrong";
  const reason = (number, intro) => choiceReason(card, texts, order, number, intro);
  const chosen = given ? card.keys.indexOf(given.key) : -1;
  const answer = card.keys.indexOf(card.answer);
  const others = order.filter((number) => number !== answer && number !== chosen);

  const result = make("div", { class: "result" });
  if (given && chosen < 0) {
    result.append(make("div", { class: "reason" }, make("p", {}, make("b", {}, "You answered "), given.text), spelledOut(texts, given.text)));
  }
  if (given && !isRight && chosen >= 0) result.append(reason(chosen, "You chose"));
  result.append(
    reason(answer, "The answer is"),
    texts.explanation,
    make("details", {}, make("summary", {}, "Why not the others"), ...others.map((number) => reason(number, ""))),
    measurement(card, order),
    make("p", { class: "note" }, "Source: ", ...texts.source.childNodes, `. Lesson ${card.lesson}: ${CARDS.lessons[card.lesson]}.`),
  );
  return make("div", { class: `face answer-face ${kind}` }, faceTitle(title), result);
}

function isRightAnswer(card, given) {
  return Boolean(given) && given.key === card.answer;
}

function letterOf(card, order, key) {
  return LETTERS[order.indexOf(card.keys.indexOf(key))];
}

// A choice and why it is right or wrong.
function choiceReason(card, texts, order, number, intro) {
  const letter = letterOf(card, order, card.keys[number]);
  return make("div", { class: "reason" },
    make("p", {}, make("b", {}, `${intro} ${letter}. `), ...texts.choices[number].cloneNode(true).childNodes),
    spelledOut(texts, texts.choices[number].textContent),
    make("p", { class: "why" }, ...texts.whys[number].childNodes));
}

// The items in the order "2 1 3"; of "1B 2A" each with its option; nothing where there are no items.
function spelledOut(texts, answer) {
  if (!texts.items) return "";
  const lines = answer.split(" ").map((part) => {
    const item = texts.items.children[part[0] - 1].cloneNode(true);
    const option = texts.options && texts.options.children[LETTERS.indexOf(part[1])];
    if (option) item.append(" → ", ...option.cloneNode(true).childNodes);
    return item;
  });
  return make("ol", {}, ...lines);
}

// What the demo of a card measured, and which choices that supports.
function measurement(card, order) {
  const rows = card.measured.map(([name, value]) => make("tr", {},
    make("th", { scope: "row" }, name), make("td", { class: "number" }, value)));
  const supported = card.supported.map((key) => letterOf(card, order, key)).join(" and ") || "none";
  return make("div", { class: "measured" },
    make("p", { class: "note" }, `Measured when this page was made: ${card.does}`),
    make("div", { class: "scrolls" }, make("table", { "aria-label": "What was measured" }, make("tbody", {}, ...rows))),
    make("p", {}, `Of what the choices claim, these numbers support ${supported}.`));
}
