// Matrices: rows, columns, and their numbers in one array, row after row.
function matrix(rows, columns, number) {
  const data = new Float64Array(rows * columns);
  if (number) for (let i = 0; i < data.length; i++) data[i] = number(i);
  return { rows, columns, data };
}

// s X Y. The innermost loop runs along rows of Y and of the result: memory is read in its order.
function product(X, Y, s = 1) {
  const Z = matrix(X.rows, Y.columns);
  const n = Y.columns;
  for (let i = 0; i < X.rows; i++) {
    for (let k = 0; k < X.columns; k++) {
      const x = s * X.data[i * X.columns + k];
      for (let j = 0; j < n; j++) Z.data[i * n + j] += x * Y.data[k * n + j];
    }
  }
  return Z;
}

function transpose(X) {
  const Z = matrix(X.columns, X.rows);
  for (let i = 0; i < X.rows; i++) {
    for (let j = 0; j < X.columns; j++) Z.data[j * X.rows + i] = X.data[i * X.columns + j];
  }
  return Z;
}

function difference(X, Y) {
  return matrix(X.rows, X.columns, (i) => X.data[i] - Y.data[i]);
}

// ‖X‖²: the sum of the squares of its entries.
function sumOfSquares(X) {
  return dot(X.data, X.data);
}

// The columns of X made orthonormal, one after the other (modified Gram-Schmidt).
function orthonormalColumns(X) {
  const columns = columnsOf(X);
  columns.forEach((column, j) => {
    for (const before of columns.slice(0, j)) addMultiple(column, before, -dot(column, before));
    const length = Math.sqrt(dot(column, column));
    for (let i = 0; i < column.length; i++) column[i] /= length;
  });
  return matrix(X.rows, X.columns, (i) => columns[i % X.columns][Math.floor(i / X.columns)]);
}

function columnsOf(X) {
  const { rows, data } = transpose(X);
  return Array.from({ length: rows }, (_, j) => data.slice(j * X.rows, (j + 1) * X.rows));
}

function dot(x, y) {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i] * y[i];
  return sum;
}

function addMultiple(x, y, factor) {
  for (let i = 0; i < x.length; i++) x[i] += factor * y[i];
}
