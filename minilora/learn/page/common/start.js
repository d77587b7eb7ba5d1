// The last of the scripts starts the widgets. Each has declared its values by now; the address is
// read, and every widget shows its first state.
const DATA = JSON.parse(document.getElementById("data").textContent);

readAddress();
startTools();
startLive(DATA.live);
startPlayground(DATA.playground);
startCount(DATA.count);
startCards(DATA.cards);

addEventListener("hashchange", () => {
  if (location.hash && !location.hash.includes("=")) return; // a link to a section
  readAddress();
  notify(Object.keys(state.defaults));
});
addEventListener("pagehide", writeAddress);
