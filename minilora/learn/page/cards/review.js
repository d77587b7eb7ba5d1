// The review: the cards that are due, the longest waiting first, and then some that are new.
const NEW_A_DAY = 10; // as in `minilora quiz`: each comes back several times in its first weeks
const review = { card: null, order: [], given: null };

function dueCards(cards, now = new Date()) {
  const dueAt = ({ id }) => new Date(progress.cards[id].due);
  const due = cards.filter((card) => progress.cards[card.id] && dueAt(card) <= now);
  return due.sort((one, other) => dueAt(one) - dueAt(other));
}

// The new ones that still fit into this day.
function newCards(cards, now = new Date()) {
  const isFirstToday = ({ answered, last_review }) =>
    answered === 1 && new Date(last_review).toDateString() === now.toDateString();
  const begun = Object.values(progress.cards).filter(isFirstToday).length;
  return cards.filter(({ id }) => !progress.cards[id]).slice(0, Math.max(NEW_A_DAY - begun, 0));
}

function nextReview() {
  const cards = cardsOfTopic(chosenTopic());
  const [card = null] = [...dueCards(cards), ...newCards(cards)];
  Object.assign(review, { card, given: null });
  if (card) review.order = shuffled([...card.keys.keys()], Math.random);
  showReview();
}

function takeReview(given) {
  review.given = given;
  recordAnswer(review.card.id, isRightAnswer(review.card, given));
  showReview();
  showProgress();
  focusFace(byId("cards-review"));
}

function goOnReviewing() {
  nextReview();
  focusFace(byId("cards-review"));
}

function showReview() {
  const cards = cardsOfTopic(chosenTopic());
  const counts = `${dueCards(cards).length} due, ${newCards(cards).length} new for today.`;
  const panel = make("div", { class: "panel card" }, ...reviewFace(cards));
  byId("cards-review").replaceChildren(make("p", { class: "note" }, counts), panel);
}

function reviewFace(cards) {
  const { card, given } = review;
  if (!card) {
    const text = make("p", {}, nextDueText(cards));
    return [make("div", { class: "face" }, faceTitle("Nothing is due"), text)];
  }
  if (!given) {
    return [questionFace(card, { ...review, take: takeReview, title: CARDS.topics[card.tags[0]] })];
  }
  const again = make("p", {}, `You will be asked again ${dayText(progress.cards[card.id].due)}.`);
  const next = makeButton("Next card", goOnReviewing, { class: "first", "data-enter": true });
  return [answerFace(card, review), again, make("div", { class: "buttons" }, next)];
}

function nextDueText(cards) {
  const due = cards.flatMap(({ id }) => progress.cards[id]?.due || []);
  const times = due.map((text) => Date.parse(text));
  if (!times.length) return "New cards come tomorrow.";
  return `The next card is due ${dayText(Math.min(...times))}; new cards come tomorrow.`;
}

// The page is English, whatever the language of the browser: "on 3 December 2026".
function dayText(time) {
  const form = { day: "numeric", month: "long", year: "numeric" };
  return `on ${new Date(time).toLocaleDateString("en-GB", form)}`;
}
