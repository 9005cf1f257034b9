"""The attention block in plain PyTorch, written once for every split.

Where to look: `stack` drives chunks through layers, `layer` holds the four stages of a layer, `attention` the tiles of
one attention, `softmax` its arithmetic, `inputs` the tensors, `reference` the fp32 truth, `stock` what PyTorch itself
would run, `capture` the way from here to a `Program`.

Shape letters: B batch, T query tokens of a chunk, S key tokens, K KV heads, G query heads per KV head, D head_dim,
H hidden, F ffn.
"""
