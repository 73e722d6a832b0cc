"""Training: an extra, imported late and only by the command line.

In PyTorch:

signs          signs, and what stands for their derivative
xnor           XNOR-Net's binary weights, and its authors' BinOp as functions
layers         binary layers in four modes, RSign, RPReLU
shift_based    shift-based BatchNorm and AdaMax
gradients      compares gradients with finite differences
networks       LeNet-5, Network in Network and VGG-small, named as the zoo's
bitres         bitinfer's own networks
distortion     altered copies of pictures
loop           optimiser steps, BatchNorm's statistics, and a state to go on from
source         a trained network as the zoo's parameter source

In NumPy:

by_hand        dense networks with back-propagation written out
pictures, digits   CIFAR-10 and MNIST from their files
curves, charts     tables and pictures of training

recipes        from a data set to a model file or a picture
"""
