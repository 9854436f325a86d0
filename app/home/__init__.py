"""The home folder: identities, locks, scratch folders, removal."""
