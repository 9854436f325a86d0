"""Motion code and head pose -> image: renderers that are fitted per identity."""
