// The section of the exam cards: which cards, by topic, difficulty and search; the card that is
// read and answered; and the learner's progress.
declare({
  "cards.mode": "browse", // or "exam", "review"
  "cards.topic": "", // "" is all of them
  "cards.difficulty": "",
  "cards.search": "",
  "cards.card": "", // an id; "" is the first
  "cards.turned": false,
  "cards.questions": 20,
  "cards.minutes": 20,
  "cards.seed": 1,
});
const CARDS = { topics: {}, lessons: {}, cards: [] };
const reading = { id: "", given: null }; // the card on the table, and what was answered

function startCards(data) {
  Object.assign(CARDS, data);
  loadProgress();
  byId("cards-questions").max = CARDS.cards.length;
  bindControls(byId("cards"));
  for (const span of document.querySelectorAll("[data-cards=count]")) span.textContent = CARDS.cards.length;
  byId("cards-core").append(measurement(CARDS.cards[0], [...CARDS.cards[0].keys.keys()]));
  for (const button of document.querySelectorAll("#cards [data-mode]")) {
    button.addEventListener("click", () => set("cards.mode", button.dataset.mode));
  }
  byId("cards-previous").addEventListener("click", () => goTo(-1));
  byId("cards-next").addEventListener("click", () => goTo(1));
  byId("cards-setup").addEventListener("submit", (event) => {
    event.preventDefault();
    beginExam();
  });
  byId("cards").addEventListener("keydown", pressKey);
  startProgress();
  watch(["cards.mode", "cards.topic"], showMode);
  watch(["cards.topic"], showTopics);
  watch(["cards.topic", "cards.difficulty", "cards.search", "cards.card", "cards.turned", "predict"], showCard);
  offerPython("cards", cardInPython);
  showMode();
  showCard();
  showProgress();
}

function cardsOfTopic(topic) {
  return CARDS.cards.filter(({ tags }) => !topic || tags.includes(topic));
}

// The cards that the topic, the difficulty and the search let through.
function chosenCards() {
  const words = searchable(get("cards.search")).split(" ");
  return cardsOfTopic(get("cards.topic")).filter((card) =>
    (!get("cards.difficulty") || card.difficulty === Number(get("cards.difficulty"))) &&
    words.every((word) => textOf(card).includes(word)));
}

function textOf(card) {
  card.text ??= searchable(`${byId(`card-${card.id}`).content.textContent} ${card.id} ${card.tags.join(" ")}`);
  return card.text;
}

function searchable(text) {
  return text.toLowerCase().replace(/[_^{}$`]/g, "").replace(/\s+/g, " ").trim();
}

function showMode() {
  for (const panel of document.querySelectorAll("#cards [data-panel]")) {
    panel.hidden = panel.dataset.panel !== get("cards.mode");
  }
  for (const button of document.querySelectorAll("#cards [data-mode]")) {
    button.setAttribute("aria-pressed", String(button.dataset.mode === get("cards.mode")));
  }
  if (get("cards.mode") === "exam") showExam();
  if (get("cards.mode") === "review") nextReview();
}

function showCard() {
  const cards = chosenCards();
  const at = Math.max(0, cards.findIndex(({ id }) => id === get("cards.card")));
  const card = cards[at];
  byId("cards-place").textContent = card ? `Card ${at + 1} of ${cards.length}` : "No card has all of this.";
  byId("cards-previous").disabled = !card || at === 0;
  byId("cards-next").disabled = !card || at === cards.length - 1;
  byId("cards-card").replaceChildren(...(card ? [cardOnTable(card)] : []));
}

function cardOnTable(card) {
  if (reading.id !== card.id) Object.assign(reading, { id: card.id, given: null });
  const order = [...card.keys.keys()];
  const mayTurn = reading.given || !get("predict");
  const turned = get("cards.turned") && mayTurn;
  const front = questionFace(card, { order, given: reading.given, take: takeAnswer, title: CARDS.topics[card.tags[0]] });
  const back = answerFace(card, { order, given: reading.given });
  front.hidden = turned;
  back.hidden = !turned;
  const turn = make("button", { type: "button", "data-turn": true, disabled: !mayTurn, onclick: turnCard },
    turned ? "Turn back to the question" : "Turn the card over");
  const next = make("button", { type: "button", class: "first", "data-enter": true, onclick: () => goTo(1) }, "Next card");
  const buttons = make("div", { class: "buttons" }, turn, ...(turned && !byId("cards-next").disabled ? [next] : []));
  const about = make("p", { class: "note about" }, `Lesson ${card.lesson} · difficulty ${card.difficulty} of 5`);
  return make("article", { class: "panel card" }, about, front, back, buttons);
}

// Only the first answer to a card counts, until another card was on the table.
function takeAnswer(given) {
  const card = CARDS.cards.find(({ id }) => id === reading.id);
  if (!reading.given) recordAnswer(card.id, isRightAnswer(card, given));
  reading.given = given;
  showProgress();
  turnCard();
}

function turnCard() {
  set("cards.turned", !get("cards.turned"));
  focusFace(byId("cards-card"));
}

function goTo(step) {
  const cards = chosenCards();
  const at = Math.max(0, cards.findIndex(({ id }) => id === get("cards.card")));
  setAll({ "cards.card": cards[at + step].id, "cards.turned": false });
  focusFace(byId("cards-card"));
}

// To what a selector finds, or else to the title of the face that is seen, which is then read aloud.
function focusFace(root, selector) {
  const target = selector && root.querySelector(selector);
  (target || root.querySelector(".face:not([hidden]) .face-title")).focus();
}

// Keys choose an answer, turn the card and go on: only within a card, and not while one types.
function pressKey(event) {
  const { target, key } = event;
  const root = target.closest(".card");
  if (!root || target.matches("input, select, textarea") || event.ctrlKey || event.altKey || event.metaKey) return;
  const face = root.querySelector(".face:not([hidden])");
  const letter = "12345678".includes(key) ? LETTERS["12345678".indexOf(key)] : key.toUpperCase();
  const chosen = [...face.querySelectorAll(".answers button")][LETTERS.indexOf(letter)];
  if (key.length === 1 && chosen) chosen.click();
  else if (key.toLowerCase() === "t" && root.closest("#cards-card")) root.querySelector("[data-turn]").click();
  else if (key === "Enter" && !target.matches("button, summary, a")) root.querySelector("[data-enter]:enabled")?.click();
  else return;
  event.preventDefault();
}

function showTopics() {
  const most = Math.max(...Object.keys(CARDS.topics).map((topic) => cardsOfTopic(topic).length));
  const topics = [["", "All topics"], ...Object.entries(CARDS.topics)];
  byId("cards-topics").replaceChildren(...topics.map(([topic, title]) => make("li", {}, topicButton(topic, title, most))));
}

function topicButton(topic, title, most) {
  const cards = cardsOfTopic(topic);
  const right = cards.filter(({ id }) => progress.cards[id]?.right).length;
  const choose = () => {
    set("cards.topic", topic);
    byId("cards-topics").querySelector("[aria-pressed=true]").focus();
  };
  return make("button", { type: "button", "aria-pressed": String(topic === get("cards.topic")), onclick: choose },
    make("span", {}, title),
    topic ? shareBar(cards.length / most, right / cards.length) : make("span"),
    make("span", { class: "number" }, right ? `${right} of ${cards.length}` : String(cards.length)));
}

// A bar of this length, of which a share is filled; both from 0 to 1. The numbers stand beside it.
function shareBar(length, share) {
  return make("span", { class: "bar", style: `width: ${100 * length}%` }, make("span", { style: `width: ${100 * share}%` }));
}

function cardInPython() {
  const id = get("cards.card") || CARDS.cards[0].id;
  return [
    "from minilora.learn.cards import load_cards",
    "from minilora.learn.demos.demo import prove",
    "",
    `card = next(card for card in load_cards() if card.id == "${id}")`,
    "print(card.question)",
    "print(prove(card))",
  ].join("\n");
}
