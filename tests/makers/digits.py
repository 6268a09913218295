"""scikit-learn's handwritten digits as training data, and the dense ViT they are learned on.

    python -m tests.makers.digits FOLDER

writes `train.npz` (1,437 images), `val.npz` (the other 360, of which the first 48 are those the
package ships and `golden.npz` has) and `base.pth` (the dense weights under the demo's thresholds).
The dense ViT was trained on the first set alone. Needs scikit-learn.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ltmp_export.checkpoint.contents import take_apart
from ltmp_export.images import inputs

TRAINED = 1437
DEMO = inputs.fixture("digits_ltmp.pth.tar")


def arrays() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """All 1,797 digits [n, 1, 32, 32] in [-1, 1], and their labels; those to train on first."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = torch.from_numpy(digits.images / 16.0)[:, None]  # [n, 1, 8, 8] in [0, 1]
    large = torch.nn.functional.interpolate(small, size=32, mode="bilinear", align_corners=False)
    order = torch.randperm(len(large), generator=torch.Generator().manual_seed(1))
    images = ((large - 0.5) / 0.5).float()[order]
    return images.numpy(), digits.target[order.numpy()].astype(np.int64)


def write(folder: Path) -> None:
    """Write the three files."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = arrays()
    for name, part in (("train", slice(TRAINED)), ("val", slice(TRAINED, None))):
        np.savez(folder / f"{name}.npz", images=images[part], labels=labels[part])
    torch.save(take_apart(DEMO).weights, folder / "base.pth")


def main() -> None:
    (folder,) = sys.argv[1:]
    write(Path(folder))


if __name__ == "__main__":
    main()
