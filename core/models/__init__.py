"""The networks: each file defines the initial variables and the forward pass of one network.

`core.experiment.Experiment` describes the functions `init_weights` and `forward`. The function `init_weights`
also has the keyword argument `classes`, the number of logits per pixel (`logits` in `road_unet`). In NETWORKS
of `experiments.own_images`, list the module and the number that must divide the sides of its images.
"""
