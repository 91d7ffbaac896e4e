"""Layers of networks: parameters and shapes, no probabilities.

layers        initial values, precision, modulation        embedding     time, position
convnet       residual blocks, changes of resolution       attention     softmax attention
transformer   pre-norm layers over sequences               unet          the U-Net of diffusion
"""

__all__: list[str] = []
