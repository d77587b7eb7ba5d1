// What every section has: results to hide, a guess before them, a link to copy, lines of Python.
//
// A widget marks its results with class="result". Its question is a <fieldset class="guess"> with
// radio buttons, the right one marked data-right, and a <p class="answer"> to be read afterwards,
// in which a <span class="verdict"> says whether the guess was right.
const SECTIONS = [...document.querySelectorAll("main > section")];

declare({ predict: false });
for (const section of SECTIONS)
  declare({ [`hide.${section.id}`]: false, [`guess.${section.id}`]: "" });

function startTools() {
  bindControls(document.querySelector("header"));
  for (const section of SECTIONS) {
    addTools(section);
    addGuess(section);
  }
  for (const link of document.querySelectorAll("nav a, .skip")) {
    link.addEventListener("click", (event) => {
      event.preventDefault(); // "#live" would take the place of the state in the address
      const section = document.querySelector(link.getAttribute("href"));
      section.scrollIntoView();
      section.focus({ preventScroll: true });
    });
  }
}

function addTools(section) {
  const tools = fromTemplate("tools");
  const [tick, button, status, note] = tools.querySelectorAll(
    "input, button, [role=status], .cover",
  );
  tick.dataset.state = `hide.${section.id}`;
  button.setAttribute(
    "aria-label",
    `Copy link to this state of ${section.querySelector("h2").textContent}`,
  );
  button.addEventListener("click", () => copy(address(), status));
  section.querySelector("h2").after(tools);
  bind(tick);
  const cover = () => {
    const hidden = get(`hide.${section.id}`);
    const isAnswer = ({ value }) => value === get(`guess.${section.id}`);
    const answers = [...section.querySelectorAll(".guess input")];
    const asked = get("predict") && answers.length > 0 && !answers.some(isAnswer);
    section.classList.toggle("covered", Boolean(hidden || asked));
    note.hidden = !hidden && !asked;
    note.textContent = hidden ? "The results are hidden." : "Guess first: then the results appear.";
  };
  watch(["predict", `hide.${section.id}`, `guess.${section.id}`], cover);
  cover();
}

function addGuess(section) {
  const guess = section.querySelector(".guess");
  if (!guess) return;
  const name = `guess.${section.id}`;
  const answer = guess.querySelector(".answer");
  const show = () => {
    const chosen = [...guess.querySelectorAll("input")].find((input) => input.value === get(name));
    guess.hidden = !get("predict");
    for (const input of guess.querySelectorAll("input")) input.checked = input === chosen;
    answer.hidden = !chosen;
    guess.querySelector(".verdict").textContent =
      chosen && "right" in chosen.dataset ? "Right. " : "Not so. ";
  };
  guess.addEventListener("change", (event) => set(name, event.target.value));
  watch(["predict", name], show);
  show();
}

// Shows, at the end of a section, the Python lines that lines() returns for the present state.
function offerPython(section, lines) {
  const details = fromTemplate("python");
  const [code, button, status] = details.querySelectorAll("code, button, [role=status]");
  const show = () => (code.textContent = lines());
  button.addEventListener("click", () => copy(code.textContent, status));
  byId(section).append(details);
  watch([`${section}.`], show);
  show();
}

async function copy(text, status) {
  try {
    await navigator.clipboard.writeText(text);
    status.textContent = "Copied.";
  } catch {
    prompt("Your browser does not let a page copy. The text is here, to be copied by hand:", text);
  }
}

function fromTemplate(id) {
  return byId(id).content.firstElementChild.cloneNode(true);
}
