"""What ViTs share that tell attention where tokens lie: by turning queries and keys, or a bias."""
