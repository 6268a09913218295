"""What a step may decide by: a backbone offers these scores of its tokens, a step demands some.

Similarity of two tokens is the inner product of their rows of `METRIC`.
"""

METRIC = "metric"  # [N, D] unit vectors: the mean over heads of the keys
IMPORTANCE = "importance"  # [N] attention received, mean over heads and queries
CLASS_ATTENTION = "class_attention"  # [N] attention of the class token, mean over heads
CLASS_VALUES = "class_values"  # [N] that of each head times the length of its value, all heads' sum
