// The review: the cards that are due, the longest waiting first, and then some that are new.
const NEW_A_DAY = 10; // as in `minilora quiz`: each comes back several times in its first weeks

const review = { card: null, order: [], given: null };

function dueCards(cards, now = new Date()) {
  const due = cards.filter(({ id }) => progress.cards[id] && new Date(progress.cards[id].due) <= now);
  return due.sort((a, b) => new Date(progress.cards[a.id].due) - new Date(progress.cards[b.id].due));
}

// The new ones that still fit into this day.
function newCards(cards, now = new Date()) {
  const isFirstToday = ({ answered, last_review }) =>
    answered === 1 && new Date(last_review).toDateString() === now.toDateString();
  const begun = Object.values(progress.cards).filter(isFirstToday).length;
  return cards.filter(({ id }) => !progress.cards[id]).slice(0, Math.max(NEW_A_DAY - begun, 0));
}

function nextReview() {
  const cards = cardsOfTopic(get("cards.topic"));
  review.card = [...dueCards(cards), ...newCards(cards)][0] || null;
  review.given = null;
  if (review.card) review.order = shuffled([...review.card.keys.keys()], Math.random);
  showReview();
}

function takeReview(given) {
  review.given = given;
  recordAnswer(review.card.id, isRightAnswer(review.card, given));
  showReview();
  showProgress();
  focusFace(byId("cards-review"));
}

function showReview() {
  const cards = cardsOfTopic(get("cards.topic"));
  const { card, given } = review;
  const counts = make("p", { class: "note" },
    `${dueCards(cards).length} due, ${newCards(cards).length} new for today.`);
  if (!card) {
    byId("cards-review").replaceChildren(counts, make("div", { class: "panel card" }, make("div", { class: "face" },
      faceTitle("Nothing is due"), make("p", {}, nextDueText(cards)))));
    return;
  }
  const shown = given ? answerFace(card, review)
    : questionFace(card, { ...review, take: takeReview, title: CARDS.topics[card.tags[0]] });
  const goOn = () => {
    nextReview();
    focusFace(byId("cards-review"));
  };
  const again = given ? [
    make("p", {}, `You will be asked again ${dayText(progress.cards[card.id].due)}.`),
    make("div", { class: "buttons" }, make("button", { type: "button", class: "first", "data-enter": true, onclick: goOn }, "Next card")),
  ] : [];
  byId("cards-review").replaceChildren(counts, make("div", { class: "panel card" }, shown, ...again));
}

function nextDueText(cards) {
  const dates = cards.filter(({ id }) => progress.cards[id]).map(({ id }) => progress.cards[id].due);
  if (!dates.length) return "There is no card here.";
  const first = dates.reduce((a, b) => (new Date(a) < new Date(b) ? a : b));
  return `The next card is due ${dayText(first)}. There will be new cards tomorrow.`;
}

// "on 3 December 2026", whatever the language of the browser: the page is English.
function dayText(time) {
  return "on " + new Date(time).toLocaleDateString("en-GB", { day: "numeric", month: "long", year: "numeric" });
}
