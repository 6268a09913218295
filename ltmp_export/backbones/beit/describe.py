"""A timm model read back as a `Beit`."""

from ltmp_export.backbones.positioned.describe import arrays as arrays
from ltmp_export.backbones.positioned.describe import describe as describe
