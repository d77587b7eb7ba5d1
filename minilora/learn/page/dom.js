// Making elements: make("p", { class: "note" }, "text", another element). No text of data is ever
// read as HTML.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function makeButton(label, press, attributes = {}) {
  const button = make("button", { type: "button", ...attributes }, ...[label].flat());
  button.addEventListener("click", press);
  return button;
}

function byId(id) {
  return document.getElementById(id);
}
