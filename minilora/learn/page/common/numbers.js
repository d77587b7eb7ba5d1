// Numbers as they are read, on one line: 1,234,567 · 0.0123 · 4.7 × 10⁻¹⁰ · 0.24 % · 84 GB.
const NO_BREAK = "\u00a0"; // a space at which no line ends

const RAISED_DIGITS = {
  "-": "⁻",
  0: "⁰",
  1: "¹",
  2: "²",
  3: "³",
  4: "⁴",
  5: "⁵",
  6: "⁶",
  7: "⁷",
  8: "⁸",
  9: "⁹",
};

function powerOfTen(power) {
  return "10" + [...String(power)].map((sign) => RAISED_DIGITS[sign]).join("");
}

function readableWhole(n) {
  return n.toLocaleString("en", { maximumFractionDigits: 0 });
}

// With so many significant digits; very small and very large ones with a power of ten.
function readable(value, digits = 3) {
  if (value === 0 || !isFinite(value)) return String(value);
  if (Math.abs(value) >= 1e-3 && Math.abs(value) < 1e6) {
    return value.toLocaleString("en", { maximumSignificantDigits: digits });
  }
  const [factor, power] = value.toExponential(Math.min(digits, 2) - 1).split("e");
  return [factor, "×", powerOfTen(Number(power))].join(NO_BREAK);
}

function readablePercent(share) {
  return readable(100 * share) + NO_BREAK + "%";
}

// In units of 1,000: 1 GB is 10⁹ bytes.
function readableBytes(n) {
  const units = ["bytes", "KB", "MB", "GB", "TB", "PB"];
  const power = n < 1 ? 0 : Math.min(Math.floor(Math.log10(n) / 3 + 1e-12), units.length - 1);
  return readable(n / 1000 ** power) + NO_BREAK + units[power];
}

// The sizes of a matrix: 768 × 3,072.
function readableSizes(d_in, d_out) {
  return [readableWhole(d_in), "×", readableWhole(d_out)].join(NO_BREAK);
}
