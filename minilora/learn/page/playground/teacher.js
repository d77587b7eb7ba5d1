// A layer learns a change of known rank. The teacher answers x with x (W0 + Δ), where Δ has rank k;
// the student starts at W0 and learns ΔW, all of it (full) or as s A B (LoRA). W0 cancels: the
// student's error is x ΔW − x Δ, so W0 occurs nowhere below. drawTask draws what teacher.py draws.
const SAMPLES = 256;

function drawTask({ d_in, d_out, k, spectrum, r, seed }) {
  const uniform = randomFrom(seed);
  const normal = () => normalNumber(uniform);
  const x = matrix(SAMPLES, d_in, normal);
  const U = orthonormalColumns(matrix(d_in, k, normal));
  const V = orthonormalColumns(matrix(d_out, k, normal));
  const bound = 1 / Math.sqrt(d_in);
  const A = matrix(d_in, r, () => bound * (2 * uniform() - 1));
  const sigma = targetSpectrum(spectrum, k);
  const scaledU = matrix(d_in, k, (i) => U.data[i] * sigma[i % k]);
  const delta = product(scaledU, transpose(V));
  return { x, xT: transpose(x), delta, sigma, A, answers: product(x, delta) };
}

// A standard normal number of two uniform ones (Box & Muller 1958).
function normalNumber(uniform) {
  const length = Math.sqrt(-2 * Math.log(1 - uniform()));
  return length * Math.cos(2 * Math.PI * uniform());
}

// k singular values: all 1, or from 2 down to 0.2 by equal factors.
function targetSpectrum(spectrum, k) {
  const fall = 0.1 ** (1 / Math.max(k - 1, 1));
  return Array.from({ length: k }, (_, i) => (spectrum === "flat" ? 1 : 2 * fall ** i));
}

// Eckart & Young 1936: ‖ΔW − Δ‖² is at least the sum of σ² beyond the r largest if ΔW has rank r.
// On inputs of variance 1, the mean squared error of an output is ‖ΔW − Δ‖² / d_out.
function leastLoss(sigma, r, d_out) {
  return sigma.slice(r).reduce((sum, value) => sum + value * value, 0) / d_out;
}

function fullStudent(task) {
  const dW = matrix(task.delta.rows, task.delta.columns);
  return {
    parameters: [dW],
    change: () => dW,
    output: () => product(task.x, dW),
    // G is the gradient of the loss with respect to the output.
    gradients: (G) => [product(task.xT, G)],
  };
}

// The output is s (x A) B, B starts at zero. dB = s (x A)ᵀ G and dA = s xᵀ (G Bᵀ): with A = B = 0
// both are zero, and stay so.
function loraStudent(task, s, startsAtZero) {
  const A = startsAtZero ? matrix(task.A.rows, task.A.columns) : structuredClone(task.A);
  const B = matrix(task.A.columns, task.delta.columns);
  return {
    parameters: [A, B],
    change: () => product(A, B, s),
    output: () => product(product(task.x, A), B, s),
    gradients: (G) => [
      product(task.xT, product(G, transpose(B)), s),
      product(transpose(product(task.x, A)), G, s),
    ],
  };
}

// Trains with Adam on all samples in every step, and yields after each step, first before the first
// one: the change ΔW so far, and its loss on new inputs. The rate falls to 0 along half a cosine.
function* training(task, student, rate, steps) {
  const adam = new Adam(student.parameters);
  for (let step = 0; ; step++) {
    const change = student.change();
    yield { change, loss: sumOfSquares(difference(change, task.delta)) / task.delta.columns };
    if (step === steps) return;
    const G = difference(student.output(), task.answers);
    for (let i = 0; i < G.data.length; i++) G.data[i] *= 2 / G.data.length;
    adam.step(student.gradients(G), (rate * (1 + Math.cos((Math.PI * step) / steps))) / 2);
  }
}

// p ← p − rate · m̂ / (√v̂ + 1e-8): m and v are running averages of the gradient and of its square,
// m̂ and v̂ the same without their bias to the zeros they start from (Kingma & Ba 2015).
class Adam {
  constructor(parameters) {
    this.parameters = parameters;
    this.m = parameters.map((p) => new Float64Array(p.data.length));
    this.v = parameters.map((p) => new Float64Array(p.data.length));
    this.t = 0;
  }

  step(gradients, rate) {
    this.t += 1;
    const correctM = 1 - 0.9 ** this.t;
    const correctV = 1 - 0.999 ** this.t;
    this.parameters.forEach((p, n) => {
      const m = this.m[n];
      const v = this.v[n];
      for (let i = 0; i < p.data.length; i++) {
        const g = gradients[n].data[i];
        m[i] = 0.9 * m[i] + 0.1 * g;
        v[i] = 0.999 * v[i] + 0.001 * g * g;
        p.data[i] -= (rate * (m[i] / correctM)) / (Math.sqrt(v[i] / correctV) + 1e-8);
      }
    });
  }
}
