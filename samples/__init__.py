"""A synthetic person and a line of speech; the package holds the line and what it says."""

LINE_TEXT = (
    "People often believe that a picture can speak, but somebody has to show it how to move."
)
