"""What servers need beside a model file: configurations, and how pictures are prepared."""
