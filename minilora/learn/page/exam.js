// The mock exam: questions balanced over the topics, a clock, no word until it is handed in.
const exam = { questions: [], at: 0, ends: Infinity, began: 0, state: "none", clock: 0 };

// n questions that take the topics in turn, so that no topic has two more than another unless it
// runs out of cards; the order of the questions and of their choices is drawn too.
function examQuestions(cards, n, seed) {
  const random = randomFrom(seed);
  const piles = Object.keys(CARDS.topics).map((topic) =>
    shuffled(cards.filter((card) => card.tags[0] === topic), random));
  const drawn = [];
  while (drawn.length < n && piles.some((pile) => pile.length)) {
    for (const pile of shuffled(piles, random)) {
      if (pile.length && drawn.length < n) drawn.push(pile.pop());
    }
  }
  return shuffled(drawn, random).map((card) =>
    ({ card, order: shuffled([...card.keys.keys()], random), given: null }));
}

function beginExam() {
  const cards = cardsOfTopic(get("cards.topic"));
  const minutes = get("cards.minutes");
  exam.questions = examQuestions(cards, get("cards.questions"), get("cards.seed"));
  exam.at = 0;
  exam.began = Date.now();
  exam.ends = minutes ? exam.began + minutes * 60000 : Infinity;
  exam.state = "running";
  clearInterval(exam.clock);
  exam.clock = setInterval(tickExam, 250);
  showExam();
  focusFace(byId("cards-exam"));
}

function tickExam() {
  const left = Math.ceil((exam.ends - Date.now()) / 1000);
  if (left <= 0) handInExam();
  else byId("cards-clock").textContent = clockText(left);
}

function clockText(seconds) {
  return isFinite(seconds) ? `${minutesText(seconds)} left` : "no time limit";
}

function minutesText(seconds) {
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

function askToHandIn(missing) {
  if (!missing || confirm(`${missing} questions are not answered. Hand in all the same?`)) handInExam();
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
  focusFace(byId("cards-exam"));
}

function showExam() {
  byId("cards-setup").hidden = exam.state === "running";
  const views = { none: () => [], running: runningExam, done: examResult };
  byId("cards-exam").replaceChildren(...views[exam.state]());
}

function runningExam() {
  const { questions, at } = exam;
  const question = questions[at];
  const missing = questions.filter(({ given }) => !given).length;
  const go = (to) => {
    exam.at = to;
    showExam();
    focusFace(byId("cards-exam"));
  };
  const take = (given) => {
    question.given = given;
    showExam();
    focusFace(byId("cards-exam"), `[data-key="${given.key}"]`);
  };
  const left = Math.ceil((exam.ends - Date.now()) / 1000);
  const places = questions.map(({ given }, i) => make("li", {}, make("button", {
    type: "button",
    "aria-current": i === at ? "step" : false,
    "aria-label": `Question ${i + 1}, ${given ? "answered" : "open"}`,
    class: given ? "answered" : "open",
    onclick: () => go(i),
  }, String(i + 1))));
  return [
    make("div", { class: "panel card" },
      make("p", { class: "note exam-head" },
        make("span", {}, `${questions.length - missing} of ${questions.length} answered`),
        make("span", { id: "cards-clock", role: "timer" }, clockText(left))),
      questionFace(question.card, { ...question, take, title: `Question ${at + 1} of ${questions.length}` }),
      make("div", { class: "buttons" },
        make("button", { type: "button", disabled: at === 0, onclick: () => go(at - 1) }, "Previous"),
        make("button", { type: "button", "data-enter": true, disabled: at === questions.length - 1, onclick: () => go(at + 1) }, "Next"),
        make("button", { type: "button", class: missing ? "last" : "last first", onclick: () => askToHandIn(missing) }, "Hand in"))),
    make("ol", { class: "places", "aria-label": "Questions" }, ...places),
  ];
}

function examResult() {
  const { questions } = exam;
  const isRight = ({ card, given }) => isRightAnswer(card, given);
  const right = questions.filter(isRight).length;
  const wrong = questions.filter((question) => !isRight(question));
  const open = questions.filter(({ given }) => !given).length;
  const percent = Math.round((100 * right) / questions.length);
  const took = minutesText(Math.round(exam.took / 1000));
  const lateness = exam.took >= exam.ends - exam.began ? " The time was up." : "";
  const face = make("div", { class: "face result" },
    faceTitle(`${right} of ${questions.length} right, ${percent} %`),
    make("p", {}, `In ${took} minutes${open ? `, ${open} not answered` : ""}.${lateness}`),
    make("div", { class: "scrolls" }, scoreTable(questions, isRight)));
  if (wrong.length) {
    face.append(make("h3", {}, "What went wrong"), ...wrong.map(wrongAnswer));
  }
  return [make("div", { class: "panel card" }, face)];
}

// A row for each topic: the score, and the lessons of the cards that went wrong.
function scoreTable(questions, isRight) {
  const rows = Object.entries(CARDS.topics).map(([topic, title]) => {
    const asked = questions.filter(({ card }) => card.tags[0] === topic);
    if (!asked.length) return "";
    const lessons = new Set(asked.filter((q) => !isRight(q)).map(({ card }) => card.lesson));
    const again = [...lessons].sort().map((lesson) => `${lesson} ${CARDS.lessons[lesson]}`);
    const right = asked.filter(isRight).length;
    return make("tr", {},
      make("th", { scope: "row" }, title),
      make("td", { class: "number" }, `${right} of ${asked.length}`),
      make("td", {}, shareBar(1, right / asked.length)),
      make("td", {}, again.join("; ") || "nothing"));
  });
  return make("table", {},
    make("caption", {}, "By topic, with the lessons to read again"),
    make("thead", {}, make("tr", {}, ...["Topic", "Right", "", "Read again"].map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, ...rows));
}

function wrongAnswer(question) {
  const place = exam.questions.indexOf(question) + 1;
  const { question: text } = cardTexts(question.card);
  return make("details", { class: "reviewed" },
    make("summary", {}, `${place}. `, ...text.childNodes), answerFace(question.card, question));
}
