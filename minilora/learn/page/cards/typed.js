// Which choice does a typed answer come to: by its words, its number or its formula?
//
// What the quiz of the terminal takes is taken here too: answers.py has the same rules.
function keyOfTyped(card, text) {
  const typed = withoutWordAfterGap(card, text.trim());
  if (card.accept.some((other) => sameAnswer(typed, other))) return card.answer;
  const index = card.texts.findIndex((choice) => sameAnswer(typed, choice));
  return index < 0 ? "" : card.keys[index];
}

// What stands after the gap, such as a unit, may be typed as well.
function withoutWordAfterGap({ after }, typed) {
  if (!after) return typed;
  return typed.replace(new RegExp(`(?<=[\\d\\s])${after}$`, "i"), "").trim();
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

// To the decimal places of what is wanted; the unit may be left out.
function sameNumber(typed, wanted) {
  const [one, other] = [numberAndUnit(typed), numberAndUnit(wanted)];
  if (!one || !other || !["", other.unit].includes(one.unit)) return false;
  const { value, decimals } = other;
  return one.value === value || (decimals > 0 && Number(one.value.toFixed(decimals)) === value);
}

// 9,216 has a comma between thousands; 4,5 and 0,125 have one before the decimal places.
function numberAndUnit(text) {
  const plain = text.toLowerCase().replace(/[$\s]/g, "").replace("−", "-");
  const decimal = plain.replace(/(?<![\d.])(0|\d+(?=,(\d{1,2}|\d{4,})(?!\d))),(?=\d)/, "$1.");
  const found = /^(-?\d+(?:\.(\d+))?)([^\d.,]*)$/.exec(decimal.replace(/(?<=\d),(?=\d{3})/g, ""));
  if (!found) return null;
  return { value: Number(found[1]), decimals: (found[2] || "").length, unit: found[3] };
}
