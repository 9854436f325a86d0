"""Live speech: sound in, pictures with their sound out, without a file at either end."""
