"""Training recipes, in PyTorch: an extra, imported late and only by the command line.

``xnor`` has the binary layers with XNOR-Net's weights, ``lenet5_mnist`` takes LeNet-5 on MNIST from
the four files of the data set to a model file.
"""
