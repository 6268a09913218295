"""A timm model read back as an `Eva`."""

from ltmp_export.backbones.positioned.describe import arrays as arrays
from ltmp_export.backbones.positioned.describe import describe as describe
