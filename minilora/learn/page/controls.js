// Controls and state are tied together: whoever moves one moves the other.
//
// In the HTML an input, select or textarea says which value it shows, data-state="live.strength".
// An <output for="its id"> beside it shows the number, and an element of class "problem" in the
// same .control says what is wrong with what was typed. A value that the control cannot show, as
// an address may hold, becomes the default.

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
    if (output) output.value = [get(name), control.dataset.unit ?? ""].join(" ").trim();
  };
  const take = () => {
    const value = control.checkValidity() ? read() : undefined;
    if (value === undefined) say(control.validationMessage || "Type a number.");
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

function reader(control, type) {
  if (control.type === "checkbox") return () => control.checked;
  if (type === "number") return () => (control.value.trim() === "" ? undefined : Number(control.value));
  return () => control.value;
}

function put(control, value) {
  if (control.type === "checkbox") control.checked = value;
  else control.value = value;
}
