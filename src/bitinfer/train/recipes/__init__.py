"""Recipes: each takes one network from a data set to a model file.

lenet5_mnist    XNOR-Net's LeNet-5 on MNIST
"""
