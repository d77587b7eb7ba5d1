// The widget cards.
function startCards(data) {}
