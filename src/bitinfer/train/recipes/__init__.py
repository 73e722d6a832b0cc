"""Recipes: what ``bitinfer train`` can be asked for.

networks       LeNet-5, Network in Network, VGG-small and bitinfer's own, through one loop
half_moon      two layers by hand, and their binary twin
mlp_cifar10    dense networks by hand on CIFAR-10: a sweep
"""
