// Which choice does a typed answer come to: by its words, its number or its formula?
function keyOfTyped(card, text) {
  if (card.accept.some((other) => sameAnswer(text, other))) return card.answer;
  const index = card.texts.findIndex((choice) => sameAnswer(text, choice));
  return index < 0 ? "" : card.keys[index];
}

function sameAnswer(typed, wanted) {
  if (sameWords(typed, wanted) || sameNumber(typed, wanted)) return true;
  return /[$+*/^√(]/.test(wanted) && sameFormula(typed, wanted);
}

// Capitals, articles, spaces and punctuation do not matter; the letters of a formula do.
function sameWords(typed, wanted) {
  const ignored = /\b(the|an?) |[`"'“”‘’!?\s-]|\.$/g;
  const plain = (text) => text.toLowerCase().replace(ignored, "");
  return !wanted.includes("$") && plain(typed) === plain(wanted);
}

// The unit may be left out.
function sameNumber(typed, wanted) {
  const [one, other] = [numberAndUnit(typed), numberAndUnit(wanted)];
  return Boolean(one && other) && one[0] === other[0] && ["", other[1]].includes(one[1]);
}

function numberAndUnit(text) {
  const plain = text.toLowerCase().replace(/[$\s]|(?<=\d),(?=\d{3})/g, "").replace("−", "-");
  const found = /^(-?\d+(?:\.\d+)?)([^\d.,]*)$/.exec(plain);
  return found && [Number(found[1]), found[2]];
}
