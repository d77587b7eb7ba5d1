// A GPT-2 that reads one character at a time: weights, forward pass, KV cache.
//
// It is minilora/generation/decoder.py once more. A vector of C numbers, the stream, starts as the
// character's embedding plus that of its position. Each block adds what attention gathers from
// earlier positions, and what an MLP makes of this one. Matrices are Float32Arrays, row after row:
// W[i * d_out + j] is in row i, column j.

// data: as live_data.py makes it. Weights are kept by their Python names.
function readModel(data) {
  const numbers = readHalves(data.weights);
  const weights = {};
  let start = 0;
  for (const [name, shape] of Object.entries(data.shapes)) {
    const size = shape.reduce((product, n) => product * n, 1);
    weights[name] = numbers.subarray(start, (start += size));
  }
  const { alphabet, heads, layers, block, epsilon, shapes } = data;
  return {
    alphabet,
    heads,
    layers,
    block,
    epsilon,
    shapes,
    width: shapes["norm.weight"][0],
    weights,
  };
}

// float16 numbers in base64: 1 bit sign, 5 bits exponent, 10 bits fraction (IEEE 754).
function readHalves(base64) {
  const bytes = atob(base64); // a string, of which each character is a byte
  const powers = Array.from({ length: 32 }, (_, exponent) => 2 ** (Math.max(exponent, 1) - 15));
  const numbers = new Float32Array(bytes.length / 2);
  for (let i = 0; i < numbers.length; i++) {
    const bits = bytes.charCodeAt(2 * i) + 256 * bytes.charCodeAt(2 * i + 1);
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = (bits & 1023) / 1024;
    numbers[i] = sign * powers[exponent] * (exponent ? 1 + fraction : fraction);
  }
  return numbers;
}

// The keys and values of the positions that each layer has seen, so as not to compute them again.
function newCache(model) {
  const perLayer = () =>
    Array.from({ length: model.layers }, () => new Float32Array(model.block * model.width));
  return { length: 0, keys: perLayer(), values: perLayer() };
}

// Reads the character with this id; returns the logits of the next, one for each of the alphabet.
function readCharacter(model, weights, cache, id) {
  const C = model.width;
  const position = cache.length++;
  const x = row(weights["tok_embed.weight"], id, C).slice(); // the stream (C,)
  add(x, row(weights["pos_embed.weight"], position, C));
  for (let i = 0; i < model.layers; i++) {
    const layer = (name) => [
      weights[`layers.${i}.${name}.weight`],
      weights[`layers.${i}.${name}.bias`],
    ];
    let h = layerNorm(x, ...layer("attn_norm"), model.epsilon);
    const q = linear(h, ...layer("attn.q_proj"));
    cache.keys[i].set(linear(h, ...layer("attn.k_proj")), position * C);
    cache.values[i].set(linear(h, ...layer("attn.v_proj")), position * C);
    const gathered = attention(q, cache.keys[i], cache.values[i], position + 1, model.heads);
    add(x, linear(gathered, ...layer("attn.o_proj")));
    h = layerNorm(x, ...layer("mlp_norm"), model.epsilon);
    h = linear(h, ...layer("mlp.up_proj")).map(gelu);
    add(x, linear(h, ...layer("mlp.down_proj")));
  }
  const last = layerNorm(x, weights["norm.weight"], weights["norm.bias"], model.epsilon);
  const table = weights["tok_embed.weight"]; // the head is the embedding once more, transposed
  const logits = new Float32Array(model.alphabet.length);
  for (let v = 0; v < logits.length; v++) logits[v] = dot(last, row(table, v, C));
  return logits;
}

// x W + b.   x (d_in,), W (d_in, d_out), b (d_out,) -> (d_out,)
// Four rows of W at a time, so that y is read and written a quarter as often.
function linear(x, W, b) {
  const y = b.slice();
  const n = b.length;
  for (let i = 0; i < x.length; i += 4) {
    const [x0, x1, x2, x3] = [x[i], x[i + 1], x[i + 2], x[i + 3]];
    for (let j = 0, k = i * n; j < n; j++, k++) {
      y[j] += x0 * W[k] + x1 * W[k + n] + x2 * W[k + 2 * n] + x3 * W[k + 3 * n];
    }
  }
  return y;
}

// Each head compares its part of q with the keys of all positions so far, and takes the mean of
// their values, weighted by softmax(q·k / √D).   q (C,), keys and values (length, C) -> (C,)
function attention(q, keys, values, length, heads) {
  const C = q.length;
  const D = C / heads;
  const gathered = new Float32Array(C);
  for (let head = 0; head < heads; head++) {
    const from = head * D;
    const part = q.subarray(from, from + D);
    const scores = new Float32Array(length);
    for (let s = 0; s < length; s++) {
      scores[s] = dot(part, keys.subarray(s * C + from, s * C + from + D)) / Math.sqrt(D);
    }
    softmax(scores).forEach((p, s) => {
      for (let d = 0; d < D; d++) gathered[from + d] += p * values[s * C + from + d];
    });
  }
  return gathered;
}

function layerNorm(x, weight, bias, epsilon) {
  const mean = x.reduce((sum, value) => sum + value, 0) / x.length;
  const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length;
  const scale = 1 / Math.sqrt(variance + epsilon);
  return x.map((value, i) => (value - mean) * scale * weight[i] + bias[i]);
}

// GPT-2's: x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2
function gelu(x) {
  return (x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x)))) / 2;
}

function softmax(scores) {
  const highest = Math.max(...scores);
  const powers = scores.map((score) => Math.exp(score - highest));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / total);
}

function row(matrix, i, width) {
  return matrix.subarray(i * width, (i + 1) * width);
}

function add(x, y) {
  for (let i = 0; i < x.length; i++) x[i] += y[i];
}
