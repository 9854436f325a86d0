"""The NeRF head: a radiance field of the head at rest that is conditioned on the motion code."""
