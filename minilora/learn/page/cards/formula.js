// Do two formulas say the same? Both are evaluated, with the same random values for their names.
// So r d_in + r*d_out and (d_out + d_in)·r are one answer, in any style.
//
// Every value is a 2×2 matrix [a, b, c, d]. The names of matrices stand for random ones, so that
// A B is not B A; every number, and every other name, stands for a multiple of the identity.
const MATRIX_NAMES = ["A", "B", "W", "W0", "ΔW", "G", "U", "V", "x", "y", "dA", "dB", "dW", "dx"];
const SPELLINGS = [
  [/[$`{}]/g, (mark) => ({ "{": "(", "}": ")" })[mark] || ""],
  [/^.*=/, ""],
  [/(\d),(?=\d{3})/g, "$1"],
  [/\*\*/g, "^"],
  [/[·×⋅@]/g, "*"],
  [/[−–]/g, "-"],
  [/sqrt/gi, "√"],
  [/(lora_)?alpha/gi, "α"],
  [/delta ?W/gi, "ΔW"],
  [/ᵀ|\.T\b/g, "^T"],
  [/[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+/g, (raised) => `^(${raised.replace(/./g, digitOf)})`],
  [/[₀₁₂₃₄₅₆₇₈₉]/g, digitOf],
];
const NAME = /[A-Za-zα-ωΔ]+(_[A-Za-z0-9]+|\d+)?/g;

// Of a raised or lowered digit, or a raised minus.
function digitOf(character) {
  const digits = ["⁰¹²³⁴⁵⁶⁷⁸⁹", "₀₁₂₃₄₅₆₇₈₉"].map((row) => row.indexOf(character));
  return Math.max(...digits) < 0 ? "-" : Math.max(...digits);
}

function sameFormula(typed, wanted) {
  const [one, other] = [plainFormula(typed), plainFormula(wanted)];
  if (one.length > 120) return false; // no answer is longer
  const names = new Set(other.replace(/\^T/g, "").match(NAME));
  return [1, 2, 3].every((seed) => {
    try {
      const values = valuesOf(names, randomFrom(seed));
      const [a, b] = [formulaValue(one, values), formulaValue(other, values)];
      return a.every((entry, i) => Math.abs(entry - b[i]) <= 1e-9 * Math.max(...b.map(Math.abs)));
    } catch {
      return false; // one of them is no formula, or has names that the other has not
    }
  });
}

function plainFormula(text) {
  for (const [spelling, meant] of SPELLINGS) text = text.replace(spelling, meant);
  return text.trim();
}

function valuesOf(names, random) {
  const draw = () => 0.5 + random();
  const values = new Map();
  for (const name of names) {
    const isMatrix = MATRIX_NAMES.includes(name);
    values.set(name, isMatrix ? [draw(), draw(), draw(), draw()] : scalar2(draw()));
  }
  return values;
}

// sum: product + product - …   product: power power * power / …   power: atom ^ exponent
function formulaValue(text, values) {
  const longestFirst = [...values.keys()].sort((a, b) => b.length - a.length); // "rd_in" is r d_in
  const token = new RegExp([...longestFirst, "\\d+\\.?\\d*", "\\.\\d+", "\\S"].join("|"), "g");
  const tokens = text.match(token) || [];
  const take = (...wanted) => (wanted.includes(tokens[0]) ? tokens.shift() : "");

  function sum() {
    let total = take("-") ? times2(scalar2(-1), product()) : product();
    for (let sign; (sign = take("+", "-")); ) {
      const term = product();
      total = total.map((entry, i) => entry + (sign === "+" ? term[i] : -term[i]));
    }
    return total;
  }
  function product() {
    let result = power();
    while (tokens.length && !["+", "-", ")"].includes(tokens[0])) {
      const divides = take("*", "/") === "/";
      const factor = power();
      result = times2(result, divides ? inverse2(factor) : factor);
    }
    return result;
  }
  function power() {
    const base = atom();
    if (!take("^")) return base;
    if (take("T")) return [base[0], base[2], base[1], base[3]];
    return power2(base, take("-") ? times2(scalar2(-1), atom()) : atom());
  }
  function atom() {
    const token = tokens.shift();
    if (values.has(token)) return values.get(token);
    if (token === "√") return power2(atom(), scalar2(0.5));
    if (token !== "(") return scalar2(Number(token)); // NaN, which equals nothing, for "?"
    const inside = sum();
    if (!take(")")) throw new Error("a bracket is not closed");
    return inside;
  }
  const value = sum();
  if (tokens.length) throw new Error("something is left over");
  return value;
}

function scalar2(number) {
  return [number, 0, 0, number];
}

function times2([a, b, c, d], [e, f, g, h]) {
  return [a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h];
}

function inverse2([a, b, c, d]) {
  const determinant = a * d - b * c;
  return [d, -b, -c, a].map((entry) => entry / determinant);
}

// A power of a number; of a matrix only the square and the inverse.
function power2(base, [exponent]) {
  if (base[1] === 0 && base[2] === 0) return scalar2(base[0] ** exponent);
  if (exponent === 2) return times2(base, base);
  return exponent === -1 ? inverse2(base) : scalar2(NaN);
}
