// The singular values of a matrix, largest first, by one-sided Jacobi rotations (Hestenes 1958).
// Two columns are turned in their plane until they are at a right angle; that changes no singular
// value. When all pairs are at right angles, the lengths of the columns are the singular values.
function singularValues(X) {
  const columns = columnsOf(X.rows < X.columns ? transpose(X) : X);
  for (let sweep = 0; sweep < 30; sweep++) {
    let turned = false;
    for (let i = 0; i < columns.length; i++) {
      for (let j = i + 1; j < columns.length; j++) {
        turned = makeOrthogonal(columns[i], columns[j]) || turned;
      }
    }
    if (!turned) break;
  }
  return columns.map((x) => Math.sqrt(dot(x, x))).sort((a, b) => b - a);
}

// Turns x and y so that x · y = 0, by the angle with cot 2θ = (y·y − x·x) / (2 x·y); false if they
// are at a right angle already, but for rounding.
function makeOrthogonal(x, y) {
  const xx = dot(x, x);
  const yy = dot(y, y);
  const xy = dot(x, y);
  if (Math.abs(xy) <= 1e-15 * Math.sqrt(xx * yy)) return false;
  const cot = (yy - xx) / (2 * xy);
  const tan = (cot < 0 ? -1 : 1) / (Math.abs(cot) + Math.sqrt(1 + cot * cot));
  const cos = 1 / Math.sqrt(1 + tan * tan);
  for (let i = 0; i < x.length; i++) {
    const xi = x[i];
    x[i] = cos * (xi - tan * y[i]);
    y[i] = cos * (tan * xi + y[i]);
  }
  return true;
}
