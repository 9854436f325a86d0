"""Renderers: models, fitted per person, that turn motion code and head pose into an image."""
