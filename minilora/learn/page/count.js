// The widget count.
function startCount(data) {}
