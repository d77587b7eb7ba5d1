// An adapter merged into a model: W + strength · ΔW, where ΔW = s A B is cut to a lower rank.
//
// Of each adapted matrix the page has A' (d_in, r) and B' (r, d_out) with A' B' = s A B, turned by
// the SVD so that the strongest direction comes first: live_data.py says how. The best ΔW of rank k
// is then that of the first k columns of A' and rows of B'.

// The adapters of all steps of training: [{path: {A, B, d_in, d_out, r}, …}, …].
function readAdapters(data) {
  return data.adapters.map((base64) => {
    const numbers = readHalves(base64);
    const layers = {};
    let start = 0;
    for (const path of data.adapted) {
      const [d_in, d_out] = data.shapes[path + ".weight"];
      const A = numbers.subarray(start, (start += d_in * data.rank));
      const B = numbers.subarray(start, (start += data.rank * d_out));
      layers[path] = { A, B, d_in, d_out, r: data.rank };
    }
    return layers;
  });
}

// The weights of the adapted model; kinds: which projections are adapted, such as Set {"q_proj"}.
// Matrices without an adapter are the base's own, not copies.
function merge(weights, adapter, strength, rank, kinds) {
  const merged = { ...weights };
  for (const [path, layer] of Object.entries(adapter)) {
    if (!kinds.has(kindOf(path)) || strength === 0) continue;
    const W = weights[path + ".weight"].slice();
    for (let i = 0; i < layer.d_in; i++) {
      const rowOfW = row(W, i, layer.d_out);
      for (let k = 0; k < rank; k++) {
        const a = strength * layer.A[i * layer.r + k];
        const b = row(layer.B, k, layer.d_out);
        for (let j = 0; j < layer.d_out; j++) rowOfW[j] += a * b[j];
      }
    }
    merged[path + ".weight"] = W;
  }
  return merged;
}

// σ_1 ≥ … ≥ σ_r of ΔW: σ_k = ‖column k of A'‖ · ‖row k of B'‖.
function singularValuesOf(layer) {
  return Array.from({ length: layer.r }, (_, k) => {
    let a = 0;
    for (let i = 0; i < layer.d_in; i++) a += layer.A[i * layer.r + k] ** 2;
    const b = row(layer.B, k, layer.d_out);
    return Math.sqrt(a * dot(b, b));
  });
}

// "layers.0.attn.q_proj" is of the kind "q_proj".
function kindOf(path) {
  return path.split(".").at(-1);
}
