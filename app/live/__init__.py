"""Live speech: audio is turned into pictures with their audio, without files."""
