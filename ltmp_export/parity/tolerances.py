"""How much more than float32 in PyTorch a right file may differ, with what was measured."""

from __future__ import annotations

# Right files differ from the reference in float64 by rounding alone, about as much as PyTorch in
# float32 does on the same images under the same decisions. That is measured in every check, for the
# scores of each step, the tokens after each block and the logits; allowed is so many times as much.
# Measured: at most 2.6 times (four families on digits, synthetic pictures and photographs, DeiT-S;
# attention logits of up to 280; errors from 1e-7 to 5e-4).
ROUNDING_FACTOR = 8.0
LEAST_ALLOWED = 2e-6  # where few numbers were measured; float32 rounds by 6e-8

# A wrong constant shifts all tokens a little, by less than rounding may shift one. So the mean over
# the tokens of an image, divided by PyTorch's in float32, may not be above this for most images.
# Measured: 0.7 to 1.1 for right files; 3.4 and more for a LayerNorm epsilon of 1e-5 on the digits.
MEAN_FACTOR = 2.5

# A decision is borderline where its score is nearer to the threshold than BOUND_FACTOR times the
# largest difference measured on undisputed scores of the same step, at least LEAST_BOUND (where
# few scores, or none, could be measured) and at most what is allowed of a score there.
BOUND_FACTOR = 4.0
LEAST_BOUND = 1e-6

# An integer that an int8 layer is given may be further from its input than half a step by this many
# steps, or by ROUNDING_FACTOR times what float32 in PyTorch is where that is more.
LEAST_EXCESS = 0.05

# Where what float32 products gave is rounded (`--int8-form qdq`), rounding alone takes a few
# integers to the next one from run to run, each by itself as right; an image may differ by this
# share of what int8 may cost. Measured on the digits: at most 1.2e-3 of the logits.
REROUNDED = 0.1
