// A matrix as a picture, a pixel for each number: dark violet is -limit, grey is 0, pale yellow is
// +limit. It becomes lighter all the way, so that it can be read without colours too.
const HEAT = [
  [64, 0, 90],
  [140, 140, 140],
  [240, 243, 165],
];

function heatMap(canvas, { rows, columns, data }, limit, label) {
  canvas.width = columns;
  canvas.height = rows;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  const context = canvas.getContext("2d");
  const picture = context.createImageData(columns, rows);
  data.forEach((value, i) => picture.data.set([...heatColor(value / limit), 255], 4 * i));
  context.putImageData(picture, 0, 0);
}

// value from -1 to 1 -> [red, green, blue]
function heatColor(value) {
  const size = Math.min(Math.abs(value), 1);
  const end = value < 0 ? HEAT[0] : HEAT[2];
  return HEAT[1].map((middle, i) => middle + size * (end[i] - middle));
}
