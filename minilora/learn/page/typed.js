// Which choice does a typed answer come to? Spaces, case and thousands commas do not matter, nor how
// a product or a root is written.
function keyOfTyped(card, text) {
  const typed = plainAnswer(text);
  const index = card.typed.findIndex((choice) => plainAnswer(choice) === typed);
  if (index >= 0) return card.keys[index];
  return card.accept.some((other) => plainAnswer(other) === typed) ? card.answer : "";
}

function plainAnswer(text) {
  return text
    .toLowerCase()
    .replace(/(\d),(?=\d{3})/g, "$1")
    .replace(/[·×]/g, "*")
    .replace(/−/g, "-")
    .replace(/[\s`$.]+$/, "")
    .replace(/[\s`$]/g, "");
}
