"""Readers: the bytes of one file format to plain data, without running anything from the file.

Each module has ``from_bytes(data)``, which returns a :class:`~bitinfer.importers.foreign.Foreign`
graph, or a checkpoint as nested dicts of arrays, or raises CheckpointError.  A reader knows no node
of bitinfer.  ``detect.FORMATS`` says which reader reads what.

torch_checkpoint    what ``torch.save`` writes
"""
