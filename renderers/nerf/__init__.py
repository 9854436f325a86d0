"""The NeRF head: a radiance field in the space of the resting head, carried by the tracked mesh."""
