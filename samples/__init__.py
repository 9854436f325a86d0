"""A synthetic person and a line of speech. The package contains the line and its text."""

LINE_TEXT = (
    "People often believe that a picture can speak, but somebody has to show it how to move."
)
