"""Reading checkpoint files: no code from a file is run, nothing is taken into memory unasked.

    known        the closed table of names that a pickle may use
    pickles      opcodes → plain values
    torch_files  the two containers of torch.save → their pickle and storages
    weights      any checkpoint file → its top-level mapping, tensors not yet read

A `containers.stored.StoredTensor` stands for a tensor in a file until somebody reads it.
"""
