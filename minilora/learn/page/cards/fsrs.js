// When to ask a card again: FSRS-6, the free spaced repetition scheduler, with its default
// parameters. Formulas: open-spaced-repetition, "The Algorithm", section FSRS-6. The numbers are
// those of Python's package fsrs 6 without learning steps, relearning steps and fuzz.
//
// What is remembered of a card is two numbers. Its stability S is the number of days after which
// the chance of recalling it has fallen to 90 %; its difficulty D goes from 1 to 10. A review
// changes both, and the card is due again S days later.
const FSRS = [
  0.212, 1.2931, 2.3065, 8.2956, 6.4133, 0.8334, 3.0194, 0.001, 1.8722, 0.1666, 0.796,
  1.4835, 0.0614, 0.2629, 1.6483, 0.6014, 1.8729, 0.5425, 0.0912, 0.0658, 0.1542,
];
const AGAIN = 1; // the grade of a wrong answer; FSRS knows 1 again, 2 hard, 3 good, 4 easy
const GOOD = 3; // the grade of a right answer
const EASY = 4;
const IN_REVIEW = 2; // FSRS's name for a card that is in no learning step
const DAY = 24 * 60 * 60 * 1000;
const LONGEST = 36500; // days

// The memory of a card after an answer at this time. before: the memory so far, null for a new
// card: {state, step, stability, difficulty, due, last_review}, times as ISO 8601 text.
function fsrsReview(before, right, now) {
  const grade = right ? GOOD : AGAIN;
  const days = before ? Math.floor((now - new Date(before.last_review)) / DAY) : null;
  const stability = Math.max(0.001, before ? nextStability(before, grade, days) : FSRS[grade - 1]);
  const difficulty = before ? nextDifficulty(before.difficulty, grade) : firstDifficulty(grade);
  const interval = Math.min(Math.max(Math.round(stability), 1), LONGEST);
  return {
    state: IN_REVIEW,
    step: null,
    stability,
    difficulty: clampDifficulty(difficulty),
    due: isoTime(new Date(now.getTime() + interval * DAY)),
    last_review: isoTime(now),
  };
}

// R(t) = (1 + f t / S)^(-w20), with f such that R(S) = 0.9.
function chanceOfRecall(stability, days) {
  const factor = 0.9 ** (-1 / FSRS[20]) - 1;
  return (1 + (factor * Math.max(days, 0)) / stability) ** -FSRS[20];
}

function nextStability({ stability, difficulty }, grade, days) {
  if (days < 1) return stabilityOnTheSameDay(stability, grade);
  const recall = chanceOfRecall(stability, days);
  if (grade === AGAIN) return stabilityAfterForgetting(stability, difficulty, recall);
  // S' = S (1 + e^w8 (11 - D) S^-w9 (e^(w10 (1 - R)) - 1)): the gain is largest if R was small.
  const gain = Math.exp(FSRS[10] * (1 - recall)) - 1;
  return stability * (1 + Math.exp(FSRS[8]) * (11 - difficulty) * stability ** -FSRS[9] * gain);
}

// S' = w11 D^-w12 ((S + 1)^w13 - 1) e^(w14 (1 - R)), and not above S / e^(w17 w18).
function stabilityAfterForgetting(stability, difficulty, recall) {
  const forgotten =
    FSRS[11] *
    difficulty ** -FSRS[12] *
    ((stability + 1) ** FSRS[13] - 1) *
    Math.exp(FSRS[14] * (1 - recall));
  return Math.min(forgotten, stability / Math.exp(FSRS[17] * FSRS[18]));
}

// S' = S e^(w17 (G - 3 + w18)) S^-w19, and a right answer does not lower it.
function stabilityOnTheSameDay(stability, grade) {
  const change = Math.exp(FSRS[17] * (grade - 3 + FSRS[18])) * stability ** -FSRS[19];
  return stability * (grade === GOOD ? Math.max(change, 1) : change);
}

// D0(G) = w4 - e^(w5 (G - 1)) + 1.
function firstDifficulty(grade) {
  return FSRS[4] - Math.exp(FSRS[5] * (grade - 1)) + 1;
}

// D' = D - w6 (G - 3) (10 - D) / 9, drawn a little (w7) towards D0 of an easy card.
function nextDifficulty(difficulty, grade) {
  const moved = difficulty - (FSRS[6] * (grade - 3) * (10 - difficulty)) / 9;
  return FSRS[7] * firstDifficulty(EASY) + (1 - FSRS[7]) * moved;
}

function clampDifficulty(difficulty) {
  return Math.min(Math.max(difficulty, 1), 10);
}

// As Python's datetime.isoformat() writes a time in UTC.
function isoTime(date) {
  return date.toISOString().replace("Z", "+00:00");
}
