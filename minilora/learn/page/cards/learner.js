// What a learner sees of the progress (progress.js); saving it, adding to it, forgetting it.
function startLearner() {
  byId("cards-save").addEventListener("click", saveToFile);
  byId("cards-load").addEventListener("change", addFromFile);
  byId("cards-forget").addEventListener("click", forget);
}

function showProgress() {
  const answered = CARDS.cards.filter(({ id }) => progress.cards[id]);
  const right = answered.filter(({ id }) => progress.cards[id].right);
  const due = dueCards(CARDS.cards);
  byId("cards-answered").textContent =
    `You have answered ${answered.length} of ${CARDS.cards.length} cards, ` +
    `${right.length} of them right at least once; ${due.length} are due for review.`;
  say(progress.trouble);
  showTopics();
}

function say(sentence) {
  byId("cards-trouble").textContent = sentence;
}

function saveToFile() {
  const file = new Blob([progressText()], { type: "application/json" });
  const address = URL.createObjectURL(file);
  make("a", { href: address, download: "minilora-progress.json" }).click();
  URL.revokeObjectURL(address);
}

async function addFromFile(event) {
  const [file] = event.target.files;
  if (!file) return;
  try {
    const { taken, broken } = mergeProgress(await file.text());
    const others = broken ? `, ${broken} could not be read` : "";
    showProgress();
    say(`${taken} cards were taken over from ${file.name}${others}; what was newer here stays.`);
  } catch (error) {
    say(`${file.name} was not added: ${error.message}. Your progress is as it was.`);
  }
  event.target.value = ""; // so that the same file can be chosen again
}

function forget() {
  if (!confirm("Forget all that you have answered? You can save it to a file first.")) return;
  progress.cards = {};
  saveProgress();
  showProgress();
}
