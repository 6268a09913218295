"""Pictures, arrays and labelled sets as model inputs."""
