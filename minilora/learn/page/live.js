// The widget live.
function startLive(data) {}
