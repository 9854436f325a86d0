"""What can be chosen by name, for those who can't wait for torch: it takes seconds to import."""

from __future__ import annotations

MODES = ("paste", "head")
"""How a line is shown: pasted into the person's own footage, or the head alone."""
PRESETS = ("preview", "standard", "high")
"""How long a person is learnt."""
DEFAULT_PRESET = "standard"
