"""Measures of renderings and of lips. Importing a module registers its measures, in this order."""

from talkhead.app.evaluation.measures import (  # isort: skip
    image,  # noqa: F401
    skin,  # noqa: F401
    lpips,  # noqa: F401
    cutout,  # noqa: F401
    lips,  # noqa: F401
    phonemes,  # noqa: F401
    sync_model,  # noqa: F401
    syncnet,  # noqa: F401
)
