// Controls and state are tied together: whoever moves one moves the other.
//
// In the HTML an input, select or textarea says which value it shows, data-state="live.strength".
// An <output for="its id"> shows the number, or the word for it in data-labels="none some all",
// counted from 0. An element of class "problem" in the same .control says what is wrong with what
// was typed: data-problem, or of a number its limits. A value that the control cannot show, as an
// address may hold, becomes the default. Radio buttons are not known here: take a select.

// Ties all controls within an element, once their options and limits are there.
function bindControls(root) {
  for (const control of root.querySelectorAll("[data-state]")) bind(control);
}

function bind(control) {
  const name = control.dataset.state;
  const read = reader(control, typeof state.defaults[name]);
  const output = document.querySelector(`output[for="${control.id}"]`);
  const problem = control.closest(".control")?.querySelector(".problem");

  const show = () => {
    if (read() !== get(name)) put(control, get(name));
    if (read() !== get(name) || !control.checkValidity()) {
      put(control, state.defaults[name]);
      set(name, state.defaults[name]);
    }
    say("");
    if (output) output.value = label(control, get(name));
  };
  const take = () => {
    const value = control.checkValidity() ? read() : undefined;
    if (value === undefined) say(wanted(control, get(name)));
    else if (value === get(name)) say("");
    else set(name, value);
  };
  const say = (text) => {
    control.setAttribute("aria-invalid", String(text !== ""));
    if (problem) problem.textContent = text;
  };
  watch([name], show);
  control.addEventListener("input", take);
  show();
}

// What to type instead. The results are still those of the value before.
function wanted({ type, min, max, dataset, validationMessage }, value) {
  if (dataset.problem) return dataset.problem;
  if (type !== "number") return validationMessage;
  const limits = [min, max].map((limit) => readableWhole(Number(limit))).join(" to ");
  const shown = `The results are still those of ${readableWhole(value)}.`;
  return `Type a whole number from ${limits}. ${shown}`;
}

function label(control, value) {
  const labels = control.dataset.labels?.split(" ");
  if (labels) control.setAttribute("aria-valuetext", labels[value]);
  return labels ? labels[value] : value;
}

function reader(control, type) {
  if (control.type === "checkbox") return () => control.checked;
  if (type === "number")
    return () => (control.value.trim() === "" ? undefined : Number(control.value));
  return () => control.value;
}

function put(control, value) {
  if (control.type === "checkbox") control.checked = value;
  else control.value = value;
}
