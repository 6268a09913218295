"""Learning thresholds, under a mask over all tokens; learning weights, under a static plan.

| module | what it holds |
|---|---|
| `masked` | the token algebra of METHOD §1 under a mask |
| `forms` | which tokens the mask means: as deployed (`ALIGNED`), as published (`PUBLISHED`) |
| `model` | a timm ViT with thresholds as parameters, run in one of the forms |
| `budget` | the loss term of the multiply-accumulates |
| `static_model` | a timm ViT under a plan of fixed token counts, in batches |
| `goal` | what a run is after: what tells one kind of training from another |
| `thresholds`, `weights` | the two kinds |
| `bottleneck` | a loss term of the latter |
| `settings` | how to train |
| `beginning` | where a run begins |
| `processes` | one process of several, and what they tell each other |
| `record` | what a step is given, and what it gives |
| `loop` | the steps of a run: images, schedule, precision |
| `state` | a run between two of its steps: resuming, history |
| `saving` | the checkpoint at its end |
"""
