"""A checkpoint folder, or a name on the hub, to checked settings and tensors; nothing here computes."""
