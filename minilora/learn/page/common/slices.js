// Long work in short slices, so that the page answers while it computes.
//
// work is a generator, which yields wherever it may be interrupted; draw() shows, after each slice,
// what there is by then. Returns a function that stops it.
function inSlices(work, draw) {
  let stopped = false;
  const slice = () => {
    if (stopped) return;
    const end = performance.now() + 12;
    let done = false;
    while (!done && performance.now() < end) ({ done } = work.next());
    draw();
    if (!done) setTimeout(slice);
  };
  slice();
  return () => (stopped = true);
}
