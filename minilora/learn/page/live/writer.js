// Text from a model: a character is drawn, fed back as input, and the next is drawn.

// Reads texts with one set of weights, and remembers what it has read in a KV cache. When the
// model's window is full, it goes on with the later half of what it sees, as ml.generate does.
class Reader {
  constructor(model, weights) {
    Object.assign(this, { model, weights, read: [], cache: newCache(model), logits: undefined });
  }

  // The logits of what follows ids. prompt: how many of them were given, not written.
  after(ids, prompt) {
    const seen = ids.slice(windowStart(ids.length, prompt, this.model.block));
    const known = this.read.every((id, i) => id === seen[i]) && this.read.length <= seen.length;
    if (!known || !this.logits) {
      this.read = [];
      this.cache.length = 0;
    }
    for (const id of seen.slice(this.read.length)) {
      this.logits = readCharacter(this.model, this.weights, this.cache, id);
      this.read.push(id);
    }
    return this.logits;
  }
}

// Where the window of a text of n characters begins.
function windowStart(n, prompt, block) {
  const first = Math.max(0, prompt - block);
  const beyond = n - (first + block);
  if (beyond <= 0) return first;
  const half = block / 2;
  const restarts = Math.floor((beyond - 1) / (half + 1));
  return first + block + 1 + restarts * (half + 1) - half;
}

// A text that can be continued: ids holds the prompt and what has been written.
class Writer {
  constructor(model, weights, prompt, temperature, seed) {
    this.reader = new Reader(model, weights);
    Object.assign(this, {
      ids: [...prompt],
      prompt: prompt.length,
      temperature,
      random: randomFrom(seed),
    });
  }

  get written() {
    return this.ids.length - this.prompt;
  }

  // The ids of the prompt and of the first so many characters that were written.
  shown(written) {
    return this.ids.slice(0, this.prompt + written);
  }

  write() {
    this.ids.push(
      choose(this.reader.after(this.ids, this.prompt), this.temperature, this.random()),
    );
  }
}

// The likeliest character, or one drawn from softmax(logits / temperature): the likeliest come
// first, and u, uniform in [0, 1), says how far to go.
function choose(logits, temperature, u) {
  const order = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b);
  if (temperature === 0) return order[0];
  const powers = order.map((id) => Math.exp((logits[id] - logits[order[0]]) / temperature));
  let rest = u * powers.reduce((sum, power) => sum + power, 0);
  return order.find((_, i) => (rest -= powers[i]) < 0) ?? order.at(-1);
}

// Nats per character on texts of which each character is to be expected from those before it.
function* surprise(model, weights, ids) {
  const cache = newCache(model);
  let total = 0;
  for (let i = 0; i + 1 < ids.length; i++) {
    yield;
    total -= Math.log(softmax(readCharacter(model, weights, cache, ids[i]))[ids[i + 1]]);
  }
  return total / (ids.length - 1);
}
