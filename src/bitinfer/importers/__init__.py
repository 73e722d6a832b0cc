"""Other people's checkpoints, read without running anything that they hold.

torch_checkpoint      the containers of torch.save, to nested dicts of arrays
xnor_net_pytorch      jiecaoyu/XNOR-Net-PyTorch: LeNet-5, NIN, AlexNet
"""
