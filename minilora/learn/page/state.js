// The state of the page: named values, kept in the address behind "#", so that a copied address
// shows the same page. A widget declares its values with their defaults, then gets, sets and
// watches them. An address with an unknown name or a value of the wrong type gives the default.
const state = { defaults: {}, values: {}, watchers: [] };

function declare(defaults) {
  Object.assign(state.defaults, defaults);
}

function get(name) {
  return name in state.values ? state.values[name] : state.defaults[name];
}

function set(name, value) {
  if (get(name) === value) return;
  state.values[name] = value;
  writeAddress();
  notify([name]);
}

// Calls react() whenever one of the names has changed.
function watch(names, react) {
  state.watchers.push({ names, react });
}

function notify(changed) {
  for (const { names, react } of state.watchers) {
    if (names.some((name) => changed.includes(name))) react();
  }
}

function writeAddress() {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(state.values)) {
    if (value !== state.defaults[name]) given.set(name, String(value));
  }
  const text = given.toString();
  history.replaceState(null, "", text ? "#" + text : location.pathname + location.search);
}

function readAddress() {
  const read = {};
  for (const [name, text] of new URLSearchParams(location.hash.slice(1))) {
    const value = parseAs(state.defaults[name], text);
    if (value !== undefined) read[name] = value;
  }
  state.values = read;
}

function parseAs(example, text) {
  if (typeof example === "number") return text.trim() !== "" && isFinite(text) ? Number(text) : undefined;
  if (typeof example === "boolean") return { true: true, false: false }[text];
  return typeof example === "string" ? text : undefined;
}
