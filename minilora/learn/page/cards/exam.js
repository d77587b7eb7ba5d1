// The mock exam: questions balanced over the topics, a clock, and no word until it is handed in.
const exam = { state: "none", questions: [], at: 0, began: 0, ends: Infinity, took: 0, clock: 0 };

// n questions {card, order, given} that take the topics in turn, so that no topic has two more than
// another unless that has no more cards. The order of the questions and of their choices is drawn.
function examQuestions(cards, n, seed) {
  const random = randomFrom(seed);
  const ofTopic = (topic) => cards.filter((card) => card.tags[0] === topic);
  const piles = Object.keys(CARDS.topics).map((topic) => shuffled(ofTopic(topic), random));
  const drawn = [];
  while (drawn.length < n && piles.some((pile) => pile.length)) {
    for (const pile of shuffled(piles, random)) {
      if (pile.length && drawn.length < n) drawn.push(pile.pop());
    }
  }
  return shuffled(drawn, random).map((card) => {
    return { card, order: shuffled([...card.keys.keys()], random), given: null };
  });
}

function beginExam() {
  const minutes = get("cards.minutes");
  const cards = cardsOfTopic(chosenTopic());
  const questions = examQuestions(cards, get("cards.questions"), get("cards.seed"));
  clearInterval(exam.clock);
  Object.assign(exam, { state: "running", questions, at: 0, began: Date.now() });
  exam.ends = minutes ? exam.began + minutes * 60000 : Infinity;
  exam.clock = setInterval(tickExam, 250);
  goToQuestion(0);
}

// Who leaves the page by mistake, while an exam is running, is asked.
function keepExam(event) {
  if (exam.state === "running") event.preventDefault();
}

function tickExam() {
  if (Date.now() >= exam.ends) handInExam();
  else byId("cards-clock").textContent = timeLeft();
}

function timeLeft() {
  const seconds = Math.ceil((exam.ends - Date.now()) / 1000);
  return isFinite(seconds) ? `${minutesText(seconds)} left` : "no time limit";
}

function minutesText(seconds) {
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

function goToQuestion(at) {
  exam.at = at;
  showExam();
  focusFace(byId("cards-exam"));
}

function takeExamAnswer(given) {
  exam.questions[exam.at].given = given;
  showExam();
  focusFace(byId("cards-exam"), `[data-key="${given.key}"]`);
}

function askToHandIn() {
  const open = openQuestions();
  if (!open || confirm(`${open} questions are not answered. Hand in all the same?`)) handInExam();
}

function handInExam() {
  clearInterval(exam.clock);
  exam.state = "done";
  exam.took = Math.min(Date.now(), exam.ends) - exam.began;
  for (const { card, given } of exam.questions) {
    if (given) recordAnswer(card.id, isRightAnswer(card, given));
  }
  showExam();
  showProgress();
  if (get("cards.mode") === "exam") focusFace(byId("cards-exam"));
}

function openQuestions() {
  return exam.questions.filter(({ given }) => !given).length;
}

function showExam() {
  const views = { none: () => [], running: runningExam, done: examResult };
  byId("cards-setup").hidden = exam.state === "running";
  byId("cards-exam").replaceChildren(...views[exam.state]());
}

function runningExam() {
  const { questions, at } = exam;
  const total = questions.length;
  const title = `Question ${at + 1} of ${total}`;
  const isLast = at === total - 1;
  const isAll = total < get("cards.questions") ? "; there are no more cards" : "";
  const head = make("p", { class: "note exam-head" },
    make("span", {}, `${total - openQuestions()} of ${total} answered${isAll}`),
    make("span", { id: "cards-clock", role: "timer" }, timeLeft()));
  const buttons = make("div", { class: "buttons" },
    makeButton("Previous", () => goToQuestion(at - 1), { disabled: at === 0 }),
    makeButton("Next", () => goToQuestion(at + 1), { disabled: isLast, "data-enter": true }),
    makeButton("Hand in", askToHandIn, { class: openQuestions() ? "last" : "last first" }));
  const question = questions[at];
  const keep = (given) => (question.given = given); // for whoever forgets the button
  const face = questionFace(question.card, { ...question, title, keep, take: takeExamAnswer });
  return [make("div", { class: "panel card" }, head, face, buttons), questionList()];
}

function questionList() {
  const entries = exam.questions.map(({ given }, i) => {
    const state = given ? "answered" : "open";
    const button = makeButton(String(i + 1), () => goToQuestion(i), {
      class: state,
      "aria-label": `Question ${i + 1}, ${state}`,
      "aria-current": i === exam.at ? "step" : false,
    });
    return make("li", {}, button);
  });
  return make("ol", { class: "places", "aria-label": "Questions" }, ...entries);
}

function examResult() {
  const { questions, took, ends } = exam;
  const isRight = ({ card, given }) => isRightAnswer(card, given);
  const right = questions.filter(isRight).length;
  const wrong = questions.filter((question) => !isRight(question));
  const verdict = right >= CARDS.pass * questions.length ? "Passed" : "Not passed";
  const sentences = [
    `${verdict}: the pass line is ${100 * CARDS.pass} %.`,
    `It took ${minutesText(Math.round(took / 1000))} minutes.`,
  ];
  if (exam.began + took >= ends) sentences.push("The time was up.");
  if (openQuestions()) sentences.push(`${openQuestions()} not answered.`);
  const percent = Math.round((100 * right) / questions.length);
  const face = make("div", { class: "face result" },
    faceTitle(`${right} of ${questions.length} right, ${percent} %`),
    make("p", {}, sentences.join(" ")),
    scoreTable(questions, isRight));
  if (wrong.length) face.append(make("h3", {}, "What went wrong"), ...wrong.map(wrongAnswer));
  return [make("div", { class: "panel card" }, face)];
}

function scoreTable(questions, isRight) {
  const names = ["Topic", "Right", "", "Read again"];
  const heads = names.map((name) => make("th", { scope: "col" }, name));
  const rows = Object.keys(CARDS.topics).map((topic) => scoreRow(topic, questions, isRight));
  const table = make("table", {},
    make("caption", {}, "By topic, with the lessons to read again"),
    make("thead", {}, make("tr", {}, ...heads)),
    make("tbody", {}, ...rows));
  const name = "Score by topic";
  return make("div", { class: "scrolls", tabindex: "0", role: "group", "aria-label": name }, table);
}

function scoreRow(topic, questions, isRight) {
  const asked = questions.filter(({ card }) => card.tags[0] === topic);
  if (!asked.length) return "";
  const right = asked.filter(isRight).length;
  const lessons = asked.filter((question) => !isRight(question)).map(({ card }) => card.lesson);
  const again = [...new Set(lessons)].sort().map((lesson) => `${lesson} ${CARDS.lessons[lesson]}`);
  return make("tr", {},
    make("th", { scope: "row" }, CARDS.topics[topic]),
    make("td", { class: "number" }, `${right} of ${asked.length}`),
    make("td", {}, shareBar(1, right / asked.length)),
    make("td", {}, again.join("; ") || "nothing"));
}

function wrongAnswer(question) {
  const place = exam.questions.indexOf(question) + 1;
  const face = answerFace(question.card, question);
  const asked = face.querySelector(".question");
  asked.remove(); // it becomes what is seen of the closed details
  const name = { "aria-label": `${place}. ${asked.textContent}` };
  const summary = make("summary", name, `${place}. `, ...asked.childNodes);
  return make("details", { class: "reviewed" }, summary, face);
}
