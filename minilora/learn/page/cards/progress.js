// What a learner has answered, kept in this browser (localStorage) and nowhere else. It has the
// form of the file of `minilora quiz`, so that each can read the other's:
//
//   {"minilora progress": 1, "cards": {ID: {state, step, stability, difficulty, due, last_review,
//                                           answered, right}}}
//
// Nothing is ever lost: what cannot be read is moved to another key, and what is imported is
// merged, each card as it was answered last. Where there is no storage, progress lasts as long as
// the page.
const PROGRESS_KEY = "minilora progress";
const PROGRESS_VERSION = 1;
const progress = { cards: {}, trouble: "", stored: true }; // trouble: a sentence for the learner

// Reads the store, each time anew, since another tab may have written to it.
function loadProgress() {
  if (!progress.stored) return;
  let text;
  try {
    text = localStorage.getItem(PROGRESS_KEY);
  } catch {
    keepInMemory("This browser keeps no data for this page, so your progress ends with it.");
    return;
  }
  if (text === null) {
    progress.cards = {};
    return;
  }
  try {
    const { cards, broken } = parseProgress(text);
    progress.cards = cards;
    if (broken) setAside(text, `${broken} of its cards cannot be read`);
  } catch (error) {
    if (!error.isLater) setAside(text, error.message);
    else keepInMemory(`The progress in this browser is left alone: ${error.message}.`);
  }
}

// Moves what cannot be read to a key of its own, and says so.
function setAside(text, reason) {
  const what = `The progress in this browser is damaged (${reason})`;
  let number = 1;
  while (localStorage.getItem(`${PROGRESS_KEY} broken ${number}`) !== null) number += 1;
  const key = `${PROGRESS_KEY} broken ${number}`;
  try {
    localStorage.setItem(key, text);
    localStorage.setItem(PROGRESS_KEY, progressText());
    progress.trouble = `${what}. It was set aside under the key "${key}"; what can be read stays.`;
  } catch {
    keepInMemory(`${what} and cannot be set aside: what you do now ends with this page.`);
  }
}

function saveProgress() {
  if (!progress.stored) return;
  try {
    localStorage.setItem(PROGRESS_KEY, progressText());
  } catch {
    keepInMemory("This browser has no room for your progress: it ends with this page, save it.");
  }
}

function keepInMemory(sentence) {
  progress.stored = false;
  progress.trouble = sentence;
}

function progressText() {
  return JSON.stringify({ "minilora progress": PROGRESS_VERSION, cards: progress.cards }, null, 1);
}

function recordAnswer(id, right, now = new Date()) {
  loadProgress();
  const before = progress.cards[id];
  progress.cards[id] = {
    ...before,
    ...fsrsReview(before?.last_review ? before : null, right, now),
    answered: (before ? before.answered : 0) + 1,
    right: (before ? before.right : 0) + (right ? 1 : 0),
  };
  saveProgress();
}

// Takes over what was answered later than here. Returns how many cards that were, and how many of
// the text are broken.
function mergeProgress(text) {
  const { cards, broken } = parseProgress(text);
  loadProgress();
  const isLater = (id) => answeredAt(cards[id]) > answeredAt(progress.cards[id]);
  const taken = Object.keys(cards).filter(isLater);
  for (const id of taken) progress.cards[id] = cards[id];
  saveProgress();
  return { taken: taken.length, broken };
}

function answeredAt(record) {
  return record?.last_review ? Date.parse(record.last_review) : -Infinity;
}

// The records that can be, and the number of those that cannot. Throws an Error whose message says
// what is wrong with the whole.
function parseProgress(text) {
  let read;
  try {
    read = JSON.parse(text);
  } catch {
    throw new Error("it is not JSON");
  }
  const version = read?.["minilora progress"];
  if (Number.isInteger(version) && version > PROGRESS_VERSION) {
    const error = new Error(`it is progress ${version} of a later minilora than this page`);
    throw Object.assign(error, { isLater: true });
  }
  if (version !== PROGRESS_VERSION || !isObject(read.cards)) {
    throw new Error("it is not progress of minilora");
  }
  const records = Object.entries(read.cards);
  const good = records.filter(([, record]) => isRecord(record));
  return { cards: Object.fromEntries(good), broken: records.length - good.length };
}

function isRecord(record) {
  const isTime = (value) => typeof value === "string" && !isNaN(Date.parse(value));
  const isCount = (value) => Number.isInteger(value) && value >= 0;
  const isIn = (value, least, most) => typeof value === "number" && least <= value && value <= most;
  if (!isObject(record)) return false;
  const { state, step, stability, difficulty, due, last_review, answered, right } = record;
  const isNew = answered === 0 && [stability, difficulty, last_review].every((v) => v === null);
  const isMemory = isIn(stability, 0.001, 1e6) && isIn(difficulty, 1, 10) && isTime(last_review);
  return (
    [1, 2, 3].includes(state) &&
    (step === null || isCount(step)) &&
    (isNew || isMemory) &&
    isTime(due) &&
    isCount(answered) &&
    isCount(right) &&
    right <= answered
  );
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
