"""ViTs of other libraries under timm's names: a file for each library's names."""
