// What a learner sees of the progress (progress.js), and saving it, adding to it and forgetting it.
function startProgress() {
  byId("cards-save").addEventListener("click", saveToFile);
  byId("cards-load").addEventListener("change", addFromFile);
  byId("cards-forget").addEventListener("click", forget);
}

function showProgress() {
  const known = CARDS.cards.filter(({ id }) => progress.cards[id]);
  const right = known.filter(({ id }) => progress.cards[id].right);
  const due = dueCards(CARDS.cards).length;
  document.querySelector("[data-cards=progress]").textContent =
    `You have answered ${known.length} of ${CARDS.cards.length} cards, ${right.length} of them right at least once; ${due} are due for review.`;
  say(progress.trouble);
  showTopics();
}

function say(sentence) {
  byId("cards-trouble").textContent = sentence;
}

function saveToFile() {
  const link = make("a", {
    href: URL.createObjectURL(new Blob([progressText()], { type: "application/json" })),
    download: "minilora-progress.json",
  });
  link.click();
  URL.revokeObjectURL(link.href);
}

async function addFromFile(event) {
  const [file] = event.target.files;
  if (!file) return;
  try {
    const { taken, broken } = mergeProgress(await file.text());
    showProgress();
    say(`${taken} cards were taken over from ${file.name}${broken ? `, ${broken} could not be read` : ""}; later answers that were here stay.`);
  } catch (error) {
    say(`${file.name} was not added: ${error.message}. Your progress is as it was.`);
  }
  event.target.value = "";
}

function forget() {
  if (!confirm("Forget which cards you have answered? Save them to a file first if you may want them again.")) return;
  progress.cards = {};
  saveProgress();
  showProgress();
}
