"""The folder of identities: what is in it, and who may change it."""
