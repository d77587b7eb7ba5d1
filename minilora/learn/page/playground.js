// The widget playground.
function startPlayground(data) {}
