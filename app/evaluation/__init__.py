"""How good a rendering is: figures against held-out frames, and sheets to look at."""
