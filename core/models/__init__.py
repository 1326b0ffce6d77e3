"""The networks: each file defines the initial variables and the forward pass of one network.

`mobilenet_v2` is the encoder of `mobilenet_unet`. `core.experiment.Experiment` describes the functions
`init_weights` and `forward` of the other files. Their `init_weights` also has the keyword argument `classes`,
the number of logits per pixel (`logits` in `road_unet`). To offer a new network in `experiments.own_images`,
add its module, and the number that must divide the sides of its images, to NETWORKS there.
"""
