// The state of the page: named values, kept in the address, which so can be copied and shared.
//
// A widget declares its values with their defaults, then gets, sets and watches them. In the
// address they stand behind "#"; an unknown name, or a value of the wrong type, gives the default.
const state = { defaults: {}, values: {}, watchers: [], written: undefined };

function declare(defaults) {
  Object.assign(state.defaults, defaults);
}

function get(name) {
  return name in state.values ? state.values[name] : state.defaults[name];
}

function set(name, value) {
  setAll({ [name]: value });
}

// Several values at once: whoever watches some of them is called once.
function setAll(values) {
  const changed = Object.keys(values).filter((name) => get(name) !== values[name]);
  if (!changed.length) return;
  for (const name of changed) state.values[name] = values[name];
  clearTimeout(state.written); // a browser allows only so many new addresses a second
  state.written = setTimeout(writeAddress, 200);
  notify(changed);
}

// Calls react() whenever one of the names has changed. "live." stands for all that begin so.
function watch(names, react) {
  state.watchers.push({ names, react });
}

function notify(changed) {
  const meant = (name) =>
    changed.some((c) => c === name || (name.endsWith(".") && c.startsWith(name)));
  for (const { names, react } of state.watchers) {
    if (names.some(meant)) react();
  }
}

// The address of this page in its present state.
function address() {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(state.values)) {
    if (value !== state.defaults[name]) given.set(name, String(value));
  }
  const text = given.toString();
  return location.href.split("#")[0] + (text ? "#" + text : "");
}

function writeAddress() {
  history.replaceState(null, "", address());
}

function readAddress() {
  const read = {};
  for (const [name, text] of new URLSearchParams(location.hash.slice(1))) {
    if (!Object.hasOwn(state.defaults, name)) continue;
    const value = parseAs(state.defaults[name], text);
    if (value !== undefined) read[name] = value;
  }
  state.values = read;
}

function parseAs(example, text) {
  if (typeof example === "number")
    return text.trim() !== "" && isFinite(text) ? Number(text) : undefined;
  if (typeof example === "boolean") return { true: true, false: false }[text];
  return text;
}
