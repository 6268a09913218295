"""Thresholds without training: from the scores of some images, to a target of executed work.

| module | what it holds |
|---|---|
| `quantiles` | thresholds that remove given shares of the tokens, block by block |
| `shift` | the thresholds of a fine-tuned model moved together, their order kept |
| `search` | the one number to turn until the target is met |
| `targets` | a target met: made, measured, made again |
| `measure` | what a model with some thresholds does to images |
"""
