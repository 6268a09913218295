"""Whether a file computes what its checkpoint says: the bridge between both sides."""
