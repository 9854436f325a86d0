"""Speed, memory and quality, as JSON lines. The README's figures come from here."""
