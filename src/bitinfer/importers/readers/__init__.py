"""Readers: the bytes of one file format to plain data, without running anything from the file.

Each module has ``from_bytes(data)``, which returns a :class:`~bitinfer.importers.foreign.Foreign`
graph, or a checkpoint as nested dicts of arrays, or raises CheckpointError, or ConversionError
where the file is sound but holds what has no word in foreign.OPERATIONS.  A reader knows no node of
bitinfer.  Where a parser in native code is needed, ``from_bytes`` runs the module's ``parse(data)``
in a process of its own (sandbox.py).  ``detect.FORMATS`` says which reader reads what.

torch_checkpoint    what ``torch.save`` writes
bnn_pynq            dense networks of BNN-PYNQ
darknet             darknet, with xnor=1
keras               Keras 2 and Larq: HDF5 and zip
mxnet               MXNet, with BMXNet's layers
onnx                ONNX and QONNX, of PyTorch, tf2onnx, Brevitas and FINN
safetensors         state dicts that safetensors has written
tflite              TensorFlow Lite with the operators of Larq Compute Engine
"""
