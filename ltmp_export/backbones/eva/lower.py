"""The graph of an `Eva`, see `positioned.lower`."""

from ltmp_export.backbones.positioned.lower import half_places as half_places
from ltmp_export.backbones.positioned.lower import lower as lower
