// How many numbers LoRA trains, and the memory of training: the arithmetic of analysis/counting.py.
// A model is { total, layers, shapes }, shapes being [d_in, d_out] by name; a list of targets may
// have c_attn, q, k and v as one matrix, instead of the three.
const QKV = ["q_proj", "k_proj", "v_proj"];

function loraParameters(model, r, targets) {
  const sizes = targets.map((name) => model.shapes[name][0] + model.shapes[name][1]);
  return model.layers * r * sizes.reduce((sum, size) => sum + size, 0);
}

// The rank at which A and B have as many numbers as W.
function breakEvenRank(d_in, d_out) {
  return (d_in * d_out) / (d_in + d_out);
}

// Of training with AdamW, without activations: a trained number has 2 bytes of weight, 2 of
// gradient, and 8 of optimizer, its two moments in float32 (counting.py says what others keep).
function trainingBytes(frozen, trained, frozenBits = 16) {
  const parts = {
    weights: (frozen * frozenBits) / 8 + 2 * trained,
    gradients: 2 * trained,
    optimizer: 8 * trained,
  };
  return { ...parts, total: parts.weights + parts.gradients + parts.optimizer };
}

// QLoRA keeps the matrices of the blocks in NF4, and everything else in 16 bits.
function memoryLadder(model, r, targets, nf4Bits) {
  const single = Object.entries(model.shapes).filter(([name]) => name !== "c_attn");
  const inBlock = single.reduce((sum, [, [d_in, d_out]]) => sum + d_in * d_out, 0);
  const inNf4 = model.layers * inBlock;
  const meanBits = (inNf4 * nf4Bits + (model.total - inNf4) * 16) / model.total;
  const adapter = loraParameters(model, r, targets);
  return {
    full: trainingBytes(0, model.total),
    lora: trainingBytes(model.total, adapter),
    qlora: trainingBytes(model.total, adapter, meanBits),
  };
}
