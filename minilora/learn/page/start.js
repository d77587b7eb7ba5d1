// Last of the scripts: every widget has declared its values; now the address is read, and each
// widget shows its first state.
const DATA = JSON.parse(document.getElementById("data").textContent);

readAddress();
startLive(DATA.live);
startPlayground(DATA.playground);
startCount(DATA.count);
startCards(DATA.cards);

addEventListener("hashchange", () => {
  if (location.hash && !location.hash.includes("=")) return; // a link to a section
  readAddress();
  notify(Object.keys(state.defaults));
});
