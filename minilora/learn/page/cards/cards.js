// The section of the exam cards: which cards are shown, and the one that lies on the table. Cards
// are chosen by topic, difficulty and search; here is also what the keys do.
declare({
  "cards.mode": "browse", // or exam, review
  "cards.topic": "", // "" is all of them
  "cards.difficulty": "",
  "cards.search": "",
  "cards.card": "", // an id; "" is the first
  "cards.turned": false,
  "cards.questions": 20,
  "cards.minutes": 20,
  "cards.seed": 1,
});
const CARDS = { topics: {}, lessons: {}, pass: 0, cards: [] }; // as cards_data.py has them
const onTable = { id: "", given: null }; // the card on the table, and what was answered

function startCards(data) {
  Object.assign(CARDS, data);
  loadProgress();
  const core = CARDS.cards[0];
  byId("cards-count").textContent = CARDS.cards.length;
  byId("cards-core").append(measurement(core, [...core.keys.keys()]));
  byId("cards-questions").max = CARDS.cards.length;
  bindControls(byId("cards"));
  for (const button of document.querySelectorAll("#cards [data-mode]")) {
    button.addEventListener("click", () => set("cards.mode", button.dataset.mode));
  }
  for (const id of ["cards-difficulty", "cards-search"]) {
    byId(id).addEventListener("input", () => set("cards.turned", false)); // for another card
  }
  byId("cards-previous").addEventListener("click", () => goToCard(-1));
  byId("cards-next").addEventListener("click", () => goToCard(1));
  byId("cards-setup").addEventListener("submit", (event) => {
    event.preventDefault();
    beginExam();
  });
  byId("cards").addEventListener("keydown", pressKey);
  addEventListener("beforeunload", keepExam);
  startLearner();
  const shown = ["topic", "difficulty", "search", "card", "turned"].map((name) => `cards.${name}`);
  watch(["cards.mode", "cards.topic"], showMode);
  watch(["cards.topic"], showTopics);
  watch([...shown, "predict"], showCard);
  showMode();
  showCard();
  showProgress();
  offerPython("cards", cardInPython);
}

// The topic in the address, "" if there is no such topic.
function chosenTopic() {
  return Object.hasOwn(CARDS.topics, get("cards.topic")) ? get("cards.topic") : "";
}

function cardsOfTopic(topic) {
  return CARDS.cards.filter(({ tags }) => !topic || tags.includes(topic));
}

// The cards that the topic, the difficulty and the search let through.
function chosenCards() {
  const difficulty = get("cards.difficulty");
  const words = searchable(get("cards.search")).split(" ");
  return cardsOfTopic(chosenTopic()).filter(
    (card) =>
      (!difficulty || card.difficulty === Number(difficulty)) &&
      words.every((word) => searchedText(card).includes(word)),
  );
}

function searchedText(card) {
  const texts = byId(`card-${card.id}`).content.textContent;
  card.searched ??= searchable(`${texts} ${card.id} ${card.tags.join(" ")}`);
  return card.searched;
}

// MathML has d_in as "d" and "in", so that its text is "din".
function searchable(text) {
  return text.toLowerCase().replace(/[_^{}$`]/g, "").replace(/\s+/g, " ").trim();
}

function showMode() {
  const modes = ["browse", "exam", "review"];
  const mode = modes.includes(get("cards.mode")) ? get("cards.mode") : "browse";
  for (const panel of document.querySelectorAll("#cards [data-panel]")) {
    panel.hidden = panel.dataset.panel !== mode;
  }
  for (const button of document.querySelectorAll("#cards [data-mode]")) {
    button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
  }
  if (mode === "exam") showExam();
  if (mode === "review") nextReview();
}

function showTopics() {
  const sizes = Object.keys(CARDS.topics).map((topic) => cardsOfTopic(topic).length);
  const topics = [["", "All topics"], ...Object.entries(CARDS.topics)];
  const entries = topics.map(([topic, title]) =>
    make("li", {}, topicButton(topic, title, Math.max(...sizes))));
  byId("cards-topics").replaceChildren(...entries);
}

// most: the cards of the largest topic.
function topicButton(topic, title, most) {
  const cards = cardsOfTopic(topic);
  const right = cards.filter(({ id }) => progress.cards[id]?.right).length;
  const bar = topic ? shareBar(cards.length / most, right / cards.length) : make("span");
  const count = right ? `${right} of ${cards.length}` : String(cards.length);
  const parts = [make("span", {}, title), bar, make("span", { class: "number" }, count)];
  const choose = () => {
    setAll({ "cards.topic": topic, "cards.turned": false });
    byId("cards-topics").querySelector("[aria-pressed=true]").focus();
  };
  return makeButton(parts, choose, { "aria-pressed": String(topic === chosenTopic()) });
}

// A bar of this length, of which a share is filled; both from 0 to 1. The numbers stand beside it.
function shareBar(length, share) {
  const filled = make("span", { style: `width: ${100 * share}%` });
  return make("span", { class: "bar", style: `width: ${100 * length}%` }, filled);
}

function showCard() {
  const cards = chosenCards();
  const at = placeOfCard(cards);
  const place = cards.length ? `Card ${at + 1} of ${cards.length}` : "No card has all of this.";
  byId("cards-place").textContent = place;
  byId("cards-previous").disabled = at <= 0;
  byId("cards-next").disabled = at >= cards.length - 1;
  const shown = cards.length ? cardOnTable(cards[at], at < cards.length - 1) : "";
  byId("cards-card").replaceChildren(shown);
}

function placeOfCard(cards) {
  return Math.max(0, cards.findIndex(({ id }) => id === get("cards.card")));
}

function cardOnTable(card, hasNext) {
  if (onTable.id !== card.id) Object.assign(onTable, { id: card.id, given: null });
  const { given } = onTable;
  const order = [...card.keys.keys()];
  const mayTurn = Boolean(given) || !get("predict");
  const isTurned = get("cards.turned") && mayTurn;
  const title = CARDS.topics[card.tags[0]];
  const front = questionFace(card, { order, given, title, take: takeAnswer });
  const back = answerFace(card, { order, given });
  front.hidden = isTurned;
  back.hidden = !isTurned;
  const label = isTurned ? "Turn back to the question" : "Turn the card over";
  const turning = { disabled: !mayTurn, "data-turn": true };
  const buttons = make("div", { class: "buttons" },
    makeButton(label, () => turnCard(!isTurned), turning));
  if (isTurned && hasNext) {
    const first = { class: "first", "data-enter": true };
    buttons.append(makeButton("Next card", () => goToCard(1), first));
  }
  const about = make("p", { class: "note" },
    `Lesson ${card.lesson} · difficulty ${card.difficulty} of 5`);
  return make("article", { class: "panel card" }, about, front, back, buttons);
}

// Only the first answer to a card counts, until another card lies on the table.
function takeAnswer(given) {
  const card = CARDS.cards.find(({ id }) => id === onTable.id);
  if (!onTable.given) recordAnswer(card.id, isRightAnswer(card, given));
  onTable.given = given;
  showProgress();
  turnCard(true);
}

function turnCard(turned) {
  set("cards.turned", turned);
  showCard();
  focusFace(byId("cards-card"));
}

function goToCard(step) {
  const cards = chosenCards();
  setAll({ "cards.card": cards[placeOfCard(cards) + step].id, "cards.turned": false });
  focusFace(byId("cards-card"));
}

// The focus goes to what a selector finds, or else to the title of the face that is seen: a screen
// reader reads it, and Tab leads on from there.
function focusFace(root, selector) {
  const found = selector && root.querySelector(selector);
  (found || root.querySelector(".face:not([hidden]) .face-title")).focus();
}

// Keys answer, turn the card and go on: only within a card, and not while one types.
function pressKey(event) {
  const root = event.target.closest(".card");
  const isOther = event.ctrlKey || event.altKey || event.metaKey;
  if (!root || isOther || event.target.matches("input, select")) return;
  const pressed = keyMeans(root, event.target, event.key);
  if (!pressed) return;
  event.preventDefault();
  pressed.click();
}

// The button that a key stands for, if there is one.
function keyMeans(root, target, key) {
  if (key === "Enter" && target.matches("button, summary")) return null; // it presses that
  if (key === "Enter") return root.querySelector("[data-enter]:enabled");
  if (key.toLowerCase() === "t") return root.querySelector("[data-turn]");
  const place = Math.max("12345678".indexOf(key), LETTERS.indexOf(key.toUpperCase()));
  return root.querySelectorAll(".face:not([hidden]) .answers button")[place];
}

function cardInPython() {
  const place = CARDS.cards.findIndex(({ id }) => id === onTable.id);
  return [
    "from minilora.learn.exam.cards import load_cards",
    "from minilora.learn.demos.demo import prove",
    "",
    `card = load_cards()[${place}]`, // not its id, which may tell the answer
    "print(card.question)",
    "print(prove(card))",
  ].join("\n");
}
