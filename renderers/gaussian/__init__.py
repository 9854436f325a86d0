"""The 3DGS head and its rasterizers."""
