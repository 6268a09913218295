"""In which numbers a file computes: formats, stored weights, what PyTorch makes of both."""
