// Making elements: make("p", { class: "note" }, "text", another element). No text of data is ever
// read as HTML.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value); // onclick
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function makeButton(label, press, attributes = {}) {
  return make("button", { type: "button", onclick: press, ...attributes }, ...[label].flat());
}

function byId(id) {
  return document.getElementById(id);
}

// A status is read aloud when its text is set, so that it is set only if it is another one.
function setText(id, text) {
  if (byId(id).textContent !== text) byId(id).textContent = text;
}
