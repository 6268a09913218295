"""Every tolerance of the tests, each with the error it was measured against.

The errors are the largest absolute differences over all cases of the tests named, on CPU with
torch 2.15, onnxruntime 1.31 and timm 1.0.31. Logits are of the order of 10 on the digits and of 1
on the random ViTs.
"""

from __future__ import annotations

# Where the closest decision is nearer to its threshold than this, float32 may decide otherwise and
# the row is looked at for finiteness only. The authors' margins on the digits start at 1.6e-7; the
# random thresholds lie in gaps: margins there are 1e-4 and up, or 1e-15 and below at exact ties.
GOLDEN_DECIDED = 1e-5
RANDOM_DECIDED = 1e-5

# test_golden: against the authors' float32 logits
GOLDEN_EXPORTED = 1e-4  # 5.1e-6, the same at every opset and batch
GOLDEN_REFERENCE = 1e-4  # 0 in float32 (the same operators in the same order), 3.5e-6 in float64
GOLDEN_ORACLE = 1e-4  # 3.5e-6: what float32 is off by
ROW_ALONE = 1e-5  # 9.5e-7: a row in any batch against the same image alone

# test_oracle: against float64
RANDOM_EXPORTED = 2e-5  # 4.7e-6
RANDOM_REFERENCE = 2e-5  # 3.5e-6
RANDOM_REFERENCE_64 = 1e-12  # 7.1e-15
DENSE_TIMM = 2e-5  # 2.1e-6: the graph of a plan that reduces nothing against timm's own forward

# test_tokens: size-weighted means in float32
TOKENS = 1e-6

# test_reference: one attention in float32
ATTENTION = 1e-5  # 1.2e-6: a token of size 2 against two equal tokens

# test_masked: batched attention in float32 against the reference, one image at a time
MASKED = 3e-5

# test_libraries: another library's forward, as a share of its largest output
OTHER_LIBRARY = 2e-4
