"""Learning thresholds: the reduction as a mask over all tokens, differentiable, in batches.

| module | what it holds |
|---|---|
| `masked` | the token algebra of METHOD §1 under a mask |
| `forms` | which tokens the mask means: as deployed (`ALIGNED`), as published (`PUBLISHED`) |
| `model` | a timm ViT with thresholds as parameters, run in one of the forms |
| `budget` | the loss term of the multiply-accumulates |
| `settings` | how to train |
| `processes` | one process of several, and what they tell each other |
| `loop` | the steps of a run: optimisers, schedule, precision |
| `state` | a run between two of its steps: resuming, history |
| `saving` | the checkpoint at its end |
"""
