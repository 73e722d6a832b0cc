"""Training, in PyTorch: an extra, imported late and only by the command line.

xnor         binary layers with XNOR-Net's weights
lenet5       XNOR-Net's LeNet-5, its modules named as its authors' and the zoo's
digits       MNIST's files, and digits as a network's input
distortion   randomly distorted copies of pictures
loop         optimiser steps, and BatchNorm's statistics measured anew
source       a trained network as the zoo's parameter source
recipes      from a data set to a model file, one module each
"""
