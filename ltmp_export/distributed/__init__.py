"""Work that is spread over processes of a cluster, and comes back in its order."""
